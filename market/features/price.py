"""Returns, gaps, and where the close stands among recent prices."""

import math

from market.features.feature import CLOSE, HIGH, LOW, OPEN, Node, Window, features, further_features
from market.kernels import location, log_ratio, rolling, zscore


@rolling(2)
def _below_highest(high, close, bars, first, out):
    for t in range(first, close.size):
        highest = high[t]
        for i in range(t - bars + 1, t):
            highest = max(highest, high[i])
        out[t - first] = math.log(close[t] / highest)


@rolling(2)
def _above_lowest(low, close, bars, first, out):
    for t in range(first, close.size):
        lowest = low[t]
        for i in range(t - bars + 1, t):
            lowest = min(lowest, low[i])
        out[t - first] = math.log(close[t] / lowest)


@features(return_1=1, return_4=4, return_24=24, return_72=72)
@further_features(return_2=2, return_8=8, return_168=168, return_336=336, return_672=672)
def log_return(bars: int) -> Node:
    """Log return over some bars: ``log(close[t] / close[t - bars])``."""
    return Window(log_ratio, (CLOSE, CLOSE), (bars,), lookback=bars + 1)


@features(gap_1=())
def gap() -> Node:
    """Log of the open over the close before it; 0 in a market that never sleeps."""
    return Window(log_ratio, (OPEN, CLOSE), (1,), lookback=2)


@features(close_location_24=24, close_location_96=96)
@further_features(close_location_1=1, close_location_336=336, close_location_672=672)
def close_location(bars: int) -> Node:
    """Place of the close between the window's lowest low (-1) and highest high (1); no range: 0."""
    return Window(location, (HIGH, LOW, CLOSE), (bars,), lookback=bars)


@features(zscore_24=24, zscore_96=96)
@further_features(zscore_672=672)
def close_zscore(bars: int) -> Node:
    """Standard deviations (ddof 0) of the close above its simple average; constant prices: 0."""
    return Window(zscore, (CLOSE,), (bars,), lookback=bars)


@further_features(drawdown_168=168)
def drawdown(bars: int) -> Node:
    """Log of the close over the window's highest high, 0 or less."""
    return Window(_below_highest, (HIGH, CLOSE), (bars,), lookback=bars)


@further_features(runup_168=168)
def runup(bars: int) -> Node:
    """Log of the close over the window's lowest low, 0 or more."""
    return Window(_above_lowest, (LOW, CLOSE), (bars,), lookback=bars)

"""Returns, gaps, and where the close stands among recent prices."""

from market.features.feature import CLOSE, HIGH, LOW, OPEN, Node, Window, features
from market.kernels import location, log_ratio, zscore


@features(return_1=1, return_4=4, return_24=24, return_72=72)
def log_return(bars: int) -> Node:
    """Log return over some bars: ``log(close[t] / close[t - bars])``."""
    return Window(log_ratio, (CLOSE, CLOSE), (bars,), lookback=bars + 1)


@features(gap_1=())
def gap() -> Node:
    """Log of the open over the close before it; 0 in a market that never sleeps."""
    return Window(log_ratio, (OPEN, CLOSE), (1,), lookback=2)


@features(close_location_24=24, close_location_96=96)
def close_location(bars: int) -> Node:
    """Place of the close between the window's lowest low (-1) and highest high (1); no range: 0."""
    return Window(location, (HIGH, LOW, CLOSE), (bars,), lookback=bars)


@features(zscore_24=24, zscore_96=96)
def close_zscore(bars: int) -> Node:
    """Standard deviations (ddof 0) of the close above its simple average; constant prices: 0."""
    return Window(zscore, (CLOSE,), (bars,), lookback=bars)

"""Oscillators: how one-sided the latest moves were."""

import math

from market.features.feature import CLOSE, HIGH, LOW, Node, Window, features, indicator, rows_to_forget
from market.features.price import close_location, log_return
from market.features.volatility import volatility
from market.kernels import STILL, from_percent, mean, ratio, rolling


@rolling(3)
def _cci(high, low, close, bars, first, out):
    for t in range(first, close.size):
        # Typical prices counted from the newest: equal prices give a deviation of exactly 0.
        newest = (high[t] + low[t] + close[t]) / 3.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += (high[i] + low[i] + close[i]) / 3.0 - newest
        average = total / bars
        spread = 0.0
        for i in range(t - bars + 1, t + 1):
            spread += abs((high[i] + low[i] + close[i]) / 3.0 - newest - average)
        out[t - first] = ratio(-average, 0.015 * spread / bars) / 200.0


@rolling(2)
def _in_deviations(returns, volatility, bars, first, out):
    for t in range(first, returns.size):
        out[t - first] = returns[t] / (max(volatility[t], STILL) * math.sqrt(bars))


@features(rsi_4=4, rsi_14=14)
def rsi(bars: int) -> Node:
    """Wilder's relative strength index, centered: -1 only falls, 1 only rises; no moves: 0.

    Computed as TA-Lib's CMO, which is ``2 RSI - 100`` by definition but calls a market without moves
    neutral, where TA-Lib's RSI calls it utterly oversold.
    """
    node = indicator("CMO", CLOSE, timeperiod=bars, forget=rows_to_forget(1 / bars))
    return Window(from_percent, (node,))


@features(stochastic_14=(14, 3))
def stochastic(bars: int, smoothing: int) -> Node:
    """Slow stochastic %K, centered: mean of 3 places of the close in 14 bars, -1 to 1; no range: 0."""
    return Window(mean, (close_location(bars),), (smoothing,), lookback=smoothing)


@features(cci_20=20)
def cci(bars: int) -> Node:
    """Commodity channel index over 200, about -1 to 1; constant prices: 0."""
    return Window(_cci, (HIGH, LOW, CLOSE), (bars,), lookback=bars)


@features(momentum_ratio_12=(12, 24))
def momentum_ratio(bars: int, window: int) -> Node:
    """Log return over 12 bars in units of what volatility_24 (at least STILL) lets one expect."""
    return Window(_in_deviations, (log_return(bars), volatility(window)), (bars,))

"""The fixed signals of the system this project set out from, for the family ``origin8``.

Its bars were days and its thresholds belong to days; the formulas are the published ones, on any bars.
"""

from market.features.feature import CLOSE, HIGH, LOW, Node, Window, features
from market.kernels import ratio, rolling, window_mean

_FAST, _SLOW, _RSI, _RANGE = 5, 20, 14, 14


@rolling(1, 2)
def _trend(close, fast, slow, first, out):
    for t in range(first, close.size):
        gap = window_mean(close, t, fast) - window_mean(close, t, slow)
        momentum = 0.0
        for i in range(t - fast + 1, t + 1):
            momentum += close[i] / close[i - 1] - 1.0
        out[t - first] = 5.0 * gap / close[t] + 10.0 * momentum / fast


@rolling(1, 2)
def _reversion(close, bars, slow, first, out):
    for t in range(first, close.size):
        gains = 0.0
        losses = 0.0
        for i in range(t - bars + 1, t + 1):
            move = close[i] - close[i - 1]
            gains += move if move > 0.0 else 0.0
            losses -= move if move < 0.0 else 0.0
        average = window_mean(close, t, slow)
        # RSI on simple means; (50 - RSI) / 50 is the share of losses minus the share of gains.
        oversold = ratio(losses - gains, losses + gains)
        moved = 1.0 if losses + gains > 0.0 else 0.0
        out[t - first] = moved * (3.0 * oversold - 5.0 * (close[t] - average) / average)


@rolling(3)
def _range(high, low, close, bars, first, out):
    for t in range(first, close.size):
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += high[i] - low[i]
        out[t - first] = total / bars / close[t]


@rolling(1)
def _momentum(close, bars, first, out):
    for t in range(first, close.size):
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += close[i] / close[i - 1] - 1.0
        out[t - first] = total / bars


@features(origin_trend=())
def origin_trend() -> Node:
    """``5 (SMA5 - SMA20) / close + 10 mean(return, 5)``: the origin's volatile and trending specialists."""
    return Window(_trend, (CLOSE,), (_FAST, _SLOW), lookback=_SLOW)


@features(origin_reversion=())
def origin_reversion() -> Node:
    """``3 (50 - RSI14) / 50 - 5 (close - SMA20) / SMA20``, RSI on simple means; no moves in 14 bars: 0."""
    return Window(_reversion, (CLOSE,), (_RSI, _SLOW), lookback=_SLOW)


@features(origin_range_14=_RANGE)
def origin_range(bars: int) -> Node:
    """Mean of high minus low over the close, which scales the origin's position size."""
    return Window(_range, (HIGH, LOW, CLOSE), (bars,), lookback=bars)


@features(origin_momentum_5=_FAST)
def origin_momentum(bars: int) -> Node:
    """Mean simple return of the last 5 bars."""
    return Window(_momentum, (CLOSE,), (bars,), lookback=bars + 1)

"""How far the price moves: ranges, deviations of returns, and how these behave over time.

"Return" is the log return of one bar. A market below :data:`market.kernels.STILL` per bar stands still;
each feature says what it then is.
"""

import math

from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    Node,
    Window,
    features,
    further_features,
    indicator,
    rows_to_forget,
)
from market.features.price import log_return
from market.kernels import STILL, deviation, log_ratio, rolling, window_mean, window_moments, zscore

RETURN = log_return(1)
LOG_RANGE = Window(log_ratio, (HIGH, LOW), (0,))
LOG_BODY = Window(log_ratio, (CLOSE, OPEN), (0,))
#: Wilder's average true range over 14 bars, quote currency: the yardstick of the trend features.
ATR_14 = indicator("ATR", HIGH, LOW, CLOSE, timeperiod=14, forget=rows_to_forget(1 / 14))


@rolling(2, 0)
def _fraction(part, whole, first, out):
    for t in range(first, whole.size):
        out[t - first] = part[t] / whole[t]


@rolling(1)
def _parkinson(log_range, bars, first, out):
    for t in range(first, log_range.size):
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += log_range[i] * log_range[i]
        out[t - first] = math.sqrt(total / bars / (4.0 * math.log(2.0)))


@rolling(2)
def _garman_klass(log_range, log_body, bars, first, out):
    weight = 2.0 * math.log(2.0) - 1.0
    for t in range(first, log_range.size):
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            # Never negative: the body lies inside the range, and the weight is below one half.
            total += 0.5 * log_range[i] * log_range[i] - weight * log_body[i] * log_body[i]
        out[t - first] = math.sqrt(total / bars)


@rolling(2, 0)
def _log_of_volatilities(short, long, first, out):
    for t in range(first, short.size):
        out[t - first] = math.log(max(short[t], STILL) / max(long[t], STILL))


@rolling(1)
def _relative_deviation(values, bars, first, out):
    for t in range(first, values.size):
        center, spread = window_moments(values, t, bars)
        out[t - first] = spread / max(center, STILL)


@rolling(1)
def _downside_ratio(returns, bars, first, out):
    for t in range(first, returns.size):
        falls = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            square = returns[i] * returns[i]
            total += square
            if returns[i] < 0.0:
                falls += square
        out[t - first] = falls / total if total > bars * STILL * STILL else 0.5


@rolling(1)
def _band_width(close, bars, first, out):
    for t in range(first, close.size):
        center, spread = window_moments(close, t, bars)
        out[t - first] = 4.0 * spread / center


@rolling(1, 2)
def _variance_ratio(returns, bars, horizon, first, out):
    # The factor that makes the variance of overlapping sums unbiased under a random walk.
    unbiased = horizon * (bars - horizon + 1.0) * (1.0 - horizon / bars)
    for t in range(first, returns.size):
        drift = window_mean(returns, t, bars)
        single = 0.0
        for i in range(t - bars + 1, t + 1):
            single += (returns[i] - drift) ** 2
        if single <= bars * STILL * STILL:
            out[t - first] = 0.0
            continue
        summed = 0.0
        for i in range(t - bars + horizon, t + 1):
            over = 0.0
            for j in range(i - horizon + 1, i + 1):
                over += returns[j] - drift
            summed += over * over
        out[t - first] = (summed / unbiased) / (single / (bars - 1.0)) - 1.0


@rolling(1)
def _autocorrelation(returns, bars, first, out):
    for t in range(first, returns.size):
        drift = window_mean(returns, t, bars)
        before = returns[t - bars + 1] - drift
        squares = before * before
        products = 0.0
        for i in range(t - bars + 2, t + 1):
            now = returns[i] - drift
            squares += now * now
            products += now * before
            before = now
        out[t - first] = products / squares if squares > bars * STILL * STILL else 0.0


@features(range_1=())
def log_range() -> Node:
    """Log of the high over the low."""
    return LOG_RANGE


@features(atr_14=())
def average_true_range() -> Node:
    """Wilder's average true range over 14 bars, as a fraction of the close."""
    return Window(_fraction, (ATR_14, CLOSE))


@features(volatility_24=24, volatility_168=168)
@further_features(volatility_8=8)
def volatility(bars: int) -> Node:
    """Standard deviation (ddof 0) of the returns, per bar."""
    return Window(deviation, (RETURN,), (bars,), lookback=bars)


def log_of_volatilities(one: Node, other: Node) -> Window:
    """Return the log of a volatility over another, both at least STILL."""
    return Window(_log_of_volatilities, (one, other))


@features(volatility_ratio=(24, 168))
@further_features(volatility_ratio_8_72=(8, 72))
def volatility_ratio(short: int, long: int) -> Node:
    """Log of a short window's volatility (24 bars unless named) over a long one's (168); at rest: 0.

    Both count as at least STILL.
    """
    return log_of_volatilities(volatility(short), volatility(long))


@features(parkinson_24=24)
@further_features(parkinson_168=168)
def parkinson(bars: int) -> Node:
    """Volatility per bar from highs and lows.

    Source: Parkinson (1980), equation 2.
    """
    return Window(_parkinson, (LOG_RANGE,), (bars,), lookback=bars)


@features(garman_klass_24=24)
def garman_klass(bars: int) -> Node:
    """Volatility per bar from open, high, low and close, without the move from close to open.

    Source: Garman and Klass (1980), the practical estimator (their number 5).
    """
    return Window(_garman_klass, (LOG_RANGE, LOG_BODY), (bars,), lookback=bars)


@features(volatility_of_volatility_72=(24, 72))
def volatility_of_volatility(short: int, bars: int) -> Node:
    """Deviation of the day's volatility over three days, over its mean (at least STILL); at rest: 0."""
    return Window(_relative_deviation, (volatility(short),), (bars,), lookback=bars)


@features(downside_ratio_72=72)
def downside_ratio(bars: int) -> Node:
    """Share of the squared returns that came from falls, 0 to 1; a market at rest: one half."""
    return Window(_downside_ratio, (RETURN,), (bars,), lookback=bars)


@features(bollinger_width_20=20)
def bollinger_width(bars: int) -> Node:
    """Distance of the Bollinger bands (2 deviations each way) over the average between them."""
    return Window(_band_width, (CLOSE,), (bars,), lookback=bars)


@features(variance_ratio_96=(96, 8))
@further_features(variance_ratio_48=(48, 2), variance_ratio_240=(240, 24))
def variance_ratio(bars: int, horizon: int) -> Node:
    """Variance of returns over 8 bars against 8 times that over 1 bar, minus 1; a market at rest: 0.

    In the window of 48 bars over 2 bars, in that of 240 over 24.

    Above 0 moves go on, below 0 they come back.

    Source: Lo and MacKinlay (1988), equations 12 and 13 (overlapping, unbiased).
    """
    return Window(_variance_ratio, (RETURN,), (bars, horizon), lookback=bars)


@features(autocorrelation_48=48)
def autocorrelation(bars: int) -> Node:
    """Autocorrelation of the returns at one bar, -1 to 1; a market at rest: 0."""
    return Window(_autocorrelation, (RETURN,), (bars,), lookback=bars)


@further_features(volatility_zscore_336=(24, 336))
def volatility_zscore(short: int, bars: int) -> Node:
    """Standard deviations (ddof 0) of the day's volatility above its mean of two weeks; at rest: 0."""
    return Window(zscore, (volatility(short),), (bars,), lookback=bars)

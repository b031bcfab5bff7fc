"""Whether the price goes somewhere: averages, directional movement, slopes, efficiency.

Distances between prices are given in average true ranges (Wilder, 14 bars), the average taken as at least
:data:`market.kernels.STILL` of the close: where nothing moves they are 0 rather than 0/0.
"""

import math

from compute.kernels import kernel
from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    Indicator,
    Node,
    Window,
    features,
    further_features,
    indicator,
    rows_to_forget,
)
from market.features.volatility import ATR_14
from market.kernels import STILL, from_percent, ratio, rolling


@rolling(3, 0)
def _in_ranges(distance, average_range, close, first, out):
    for t in range(first, close.size):
        out[t - first] = distance[t] / max(average_range[t], STILL * close[t])


@rolling(4, 0)
def _gap_in_ranges(fast, slow, average_range, close, first, out):
    for t in range(first, close.size):
        out[t - first] = (fast[t] - slow[t]) / max(average_range[t], STILL * close[t])


@rolling(2, 0)
def _balance(plus, minus, first, out):
    for t in range(first, plus.size):
        out[t - first] = ratio(plus[t] - minus[t], plus[t] + minus[t])


@rolling(2)
def _slope(close, average_range, bars, first, out):
    middle = 0.5 * (bars - 1)
    spread = bars * (bars * bars - 1.0) / 12.0
    for t in range(first, close.size):
        # Least squares against bar numbers counted from their middle, prices counted from the newest.
        total = 0.0
        for k in range(bars):
            total += (k - middle) * (close[t - bars + 1 + k] - close[t])
        out[t - first] = bars * total / spread / max(average_range[t], STILL * close[t])


@rolling(1)
def _efficiency(close, bars, first, out):
    for t in range(first, close.size):
        path = 0.0
        for i in range(t - bars + 1, t + 1):
            path += abs(close[i] - close[i - 1])
        out[t - first] = min(ratio(abs(close[t] - close[t - bars]), path), 1.0)


@rolling(1)
def _fit(close, bars, first, out):
    middle = 0.5 * (bars - 1)
    spread = bars * (bars * bars - 1.0) / 12.0
    for t in range(first, close.size):
        # Prices as shares of the newest, and counted from it: equal prices vary by exactly 0.
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += close[i] / close[t] - 1.0
        average = total / bars
        products = 0.0
        varied = 0.0
        for k in range(bars):
            away = close[t - bars + 1 + k] / close[t] - 1.0 - average
            products += (k - middle) * away
            varied += away * away
        explained = products * products / spread
        share = min(explained / varied, 1.0) if varied > bars * STILL * STILL else 0.0
        out[t - first] = share if products > 0.0 else -share


@rolling(3)
def _vortex(high, low, close, bars, first, out):
    for t in range(first, close.size):
        rising = 0.0
        falling = 0.0
        for i in range(t - bars + 1, t + 1):
            rising += high[i] - low[i - 1]
            falling += high[i - 1] - low[i]
        # A gap makes one of the two negative, so their sum may vanish; the way travelled does not.
        way = 0.0
        for i in range(t - bars + 1, t + 1):
            way += max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        out[t - first] = (rising - falling) / max(way, bars * STILL * close[t])


@rolling(3)
def _choppiness(high, low, close, bars, first, out):
    for t in range(first, close.size):
        way = 0.0
        highest = close[t - bars]
        lowest = close[t - bars]
        for i in range(t - bars + 1, t + 1):
            way += max(high[i], close[i - 1]) - min(low[i], close[i - 1])
            highest = max(highest, high[i])
            lowest = min(lowest, low[i])
        moved = way > bars * STILL * close[t]
        out[t - first] = math.log(way / (highest - lowest)) / math.log(bars) if moved else 0.0


@rolling(1)
def _streak(close, most, first, out):
    for t in range(first, close.size):
        length = 0
        rises = close[t] > close[t - 1]
        if close[t] != close[t - 1]:
            i = t
            while length < most and close[i] != close[i - 1] and (close[i] > close[i - 1]) == rises:
                length += 1
                i -= 1
        signed = length if rises else -length
        out[t - first] = signed / most


@kernel(inline=True)
def _midpoint(high, low, t, bars):
    highest = high[t]
    lowest = low[t]
    for i in range(t - bars + 1, t):
        highest = max(highest, high[i])
        lowest = min(lowest, low[i])
    return 0.5 * highest + 0.5 * lowest


@rolling(4, 2)
def _line_gap(high, low, average_range, close, fast, slow, first, out):
    for t in range(first, close.size):
        gap = _midpoint(high, low, t, fast) - _midpoint(high, low, t, slow)
        out[t - first] = gap / max(average_range[t], STILL * close[t])


@rolling(4, 3)
def _cloud_gap(high, low, average_range, close, fast, slow, slowest, first, out):
    for t in range(first, close.size):
        then = t - slow
        one = 0.5 * _midpoint(high, low, then, fast) + 0.5 * _midpoint(high, low, then, slow)
        other = _midpoint(high, low, then, slowest)
        above = max(close[t] - max(one, other), 0.0)
        below = max(min(one, other) - close[t], 0.0)
        out[t - first] = (above - below) / max(average_range[t], STILL * close[t])


def ema(bars: int) -> Indicator:
    """Return the node of an exponential moving average of the close."""
    return indicator("EMA", CLOSE, timeperiod=bars, forget=rows_to_forget(2 / (bars + 1)))


@features(ema_gap_8_24=(8, 24), ema_gap_24_96=(24, 96), ema_gap_48_192=(48, 192))
def ema_gap(fast: int, slow: int) -> Node:
    """Distance of a fast exponential average above a slow one, in average true ranges."""
    return Window(_gap_in_ranges, (ema(fast), ema(slow), ATR_14, CLOSE))


@features(macd_histogram=(12, 26, 9))
def macd_histogram(fast: int, slow: int, signal: int) -> Node:
    """MACD minus its signal line, in average true ranges."""
    periods = {"fastperiod": fast, "slowperiod": slow, "signalperiod": signal}
    histogram = indicator("MACD", CLOSE, **periods, forget=rows_to_forget(2 / (slow + 1)), output=2)
    return Window(_in_ranges, (histogram, ATR_14, CLOSE))


@features(adx_14=14)
def adx(bars: int) -> Node:
    """Wilder's average directional index, 0 to 1; a market that never moved: 0."""
    node = indicator("ADX", HIGH, LOW, CLOSE, timeperiod=bars, forget=rows_to_forget(1 / bars, stages=2))
    return Window(from_percent, (node,))


@features(di_balance_14=14)
def di_balance(bars: int) -> Node:
    """Wilder's (+DI - -DI) / (+DI + -DI), -1 to 1; without directional movement: 0."""
    forget = rows_to_forget(1 / bars)
    plus = indicator("PLUS_DI", HIGH, LOW, CLOSE, timeperiod=bars, forget=forget)
    minus = indicator("MINUS_DI", HIGH, LOW, CLOSE, timeperiod=bars, forget=forget)
    return Window(_balance, (plus, minus))


@features(aroon_24=24)
def aroon(bars: int) -> Node:
    """Aroon oscillator, -1 to 1: the bars since the window's low minus those since its high, over the window.

    Of equal prices the newest counts, so constant prices give 0.
    """
    return Window(from_percent, (indicator("AROONOSC", HIGH, LOW, timeperiod=bars, forget=0),))


@features(slope_24=24)
@further_features(slope_96=96)
def slope(bars: int) -> Node:
    """Rise of the regression line through the closes over the window, in average true ranges."""
    return Window(_slope, (CLOSE, ATR_14), (bars,), lookback=bars)


@features(kama_gap_10=10)
def kama_gap(bars: int) -> Node:
    """Distance of the close above Kaufman's adaptive average, in average true ranges.

    The average forgets at a speed set by the market; the warm-up assumes an efficiency of 0.1 on average,
    a third of that of a random walk.
    """
    rate = (0.1 * (2 / 3 - 2 / 31) + 2 / 31) ** 2
    node = indicator("KAMA", CLOSE, timeperiod=bars, forget=rows_to_forget(rate))
    return Window(_gap_in_ranges, (CLOSE, node, ATR_14, CLOSE))


@features(efficiency_24=24, efficiency_72=72)
def efficiency(bars: int) -> Node:
    """Kaufman's efficiency ratio, 0 to 1: way made over way travelled; no way travelled: 0."""
    return Window(_efficiency, (CLOSE,), (bars,), lookback=bars + 1)


@further_features(trend_fit_24=24, trend_fit_96=96)
def trend_fit(bars: int) -> Node:
    """Share of the closes' variance that a line explains, with the line's sign, -1 to 1; at rest: 0."""
    return Window(_fit, (CLOSE,), (bars,), lookback=bars)


@further_features(vortex_14=14)
def vortex(bars: int) -> Node:
    """Vortex indicator: upward minus downward movement over the true ranges; at rest: 0.

    Source: Botes and Siepman (2010).
    """
    return Window(_vortex, (HIGH, LOW, CLOSE), (bars,), lookback=bars + 1)


@further_features(choppiness_24=24)
def choppiness(bars: int) -> Node:
    """Choppiness index, 0 (one straight move) to 1 (every bar spans the same range); at rest: 0."""
    return Window(_choppiness, (HIGH, LOW, CLOSE), (bars,), lookback=bars + 1)


@further_features(trix_15=15)
def trix(bars: int) -> Node:
    """Growth per bar of a triple exponential average of the close."""
    node = indicator("TRIX", CLOSE, timeperiod=bars, forget=rows_to_forget(2 / (bars + 1), stages=3))
    return Window(from_percent, (node,))


@further_features(streak_12=12)
def streak(most: int) -> Node:
    """Closes in a row that rose (positive) or fell, at most 12, over 12; an unchanged close: 0."""
    return Window(_streak, (CLOSE,), (most,), lookback=most + 1)


@further_features(ichimoku_gap_9_26=(9, 26))
def ichimoku_gap(fast: int, slow: int) -> Node:
    """Ichimoku's conversion line minus its base line, in average true ranges."""
    return Window(_line_gap, (HIGH, LOW, ATR_14, CLOSE), (fast, slow), lookback=slow)


@further_features(ichimoku_cloud_9_26_52=(9, 26, 52))
def ichimoku_cloud(fast: int, slow: int, slowest: int) -> Node:
    """Distance of the close above (positive) or below the cloud of 26 bars ago; inside: 0.

    In average true ranges. What a chart draws 26 bars ahead is what it knew 26 bars ago.
    """
    settings = (fast, slow, slowest)
    return Window(_cloud_gap, (HIGH, LOW, ATR_14, CLOSE), settings, lookback=slow + slowest)

"""Whether the price goes somewhere: averages, directional movement, slopes, efficiency.

Distances between prices are given in average true ranges (Wilder, 14 bars), the average taken as at least
:data:`market.kernels.STILL` of the close: where nothing moves they are 0 rather than 0/0.
"""

from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    Indicator,
    Node,
    Window,
    features,
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

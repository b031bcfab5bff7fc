"""Rolling loops over windows that end now.

Shapes: n rows of which the first ``first`` are the kept past and are not answered again. A rolling kernel
writes ``out[t - first]`` for every row t from ``first`` on, and reads rows up to t only.

Each window is summed afresh. A running sum would be faster, but it remembers every row since the start:
one bad tick, or merely another starting row, would change all later bits.
"""

import math
from collections.abc import Callable

import numba

from compute.kernels import R1, W1, kernel

#: A market whose typical move per bar is below this fraction of the price counts as standing still. It is
#: the floor of denominators such as an average range: a hundredth of a basis point, far below any trading.
STILL = 1e-6


def rolling(n_inputs: int, n_settings: int = 1) -> Callable:
    """Compile ``function(inputs..., settings..., first, out)`` as a rolling kernel.

    Parameters
    ----------
    n_inputs : int
        Leading arguments that are columns, float64 (n,).
    n_settings : int
        Whole numbers after them, such as the bars of a window.
    """
    columns, settings = [R1] * n_inputs, [numba.int64] * n_settings
    return kernel(numba.void(*columns, *settings, numba.int64, W1))


@kernel(inline=True)
def ratio(part, whole):
    """Return part / whole, and 0 where the whole is 0."""
    return part / whole if whole != 0.0 else 0.0


@kernel(inline=True)
def window_mean(values, t, bars):
    """Return the mean of the ``bars`` rows that end at row t."""
    total = 0.0
    for i in range(t - bars + 1, t + 1):
        total += values[i]
    return total / bars


@kernel(inline=True)
def window_moments(values, t, bars):
    """Return mean and standard deviation (ddof 0) of the ``bars`` rows that end at row t.

    Counted from the newest value: equal values give a deviation of exactly 0, and nothing cancels when the
    spread is small beside the level.
    """
    origin = values[t]
    total = 0.0
    for i in range(t - bars + 1, t + 1):
        total += values[i] - origin
    shift = total / bars
    squares = 0.0
    for i in range(t - bars + 1, t + 1):
        off = values[i] - origin - shift
        squares += off * off
    return origin + shift, math.sqrt(squares / bars)


@rolling(2)
def log_ratio(numerator, denominator, lag, first, out):
    """Write ``log(numerator[t] / denominator[t - lag])``; both positive."""
    for t in range(first, numerator.size):
        out[t - first] = math.log(numerator[t] / denominator[t - lag])


@rolling(1, 0)
def from_percent(values, first, out):
    """Write the values over 100."""
    for t in range(first, values.size):
        out[t - first] = values[t] / 100.0


@rolling(1)
def mean(values, bars, first, out):
    """Write the mean of the last ``bars`` rows."""
    for t in range(first, values.size):
        out[t - first] = window_mean(values, t, bars)


@rolling(1)
def deviation(values, bars, first, out):
    """Write the standard deviation (ddof 0) of the last ``bars`` rows."""
    for t in range(first, values.size):
        out[t - first] = window_moments(values, t, bars)[1]


@rolling(1)
def zscore(values, bars, first, out):
    """Write how many standard deviations (ddof 0) the newest value lies above the window's mean.

    The newest value belongs to the window, so the result lies within ``±sqrt(bars - 1)``. Equal values: 0.
    """
    for t in range(first, values.size):
        center, spread = window_moments(values, t, bars)
        out[t - first] = ratio(values[t] - center, spread)


@rolling(3)
def location(high, low, close, bars, first, out):
    """Write the place of the close between the window's lowest low (-1) and highest high (1).

    A window without any range: 0.
    """
    for t in range(first, close.size):
        highest = high[t]
        lowest = low[t]
        for i in range(t - bars + 1, t):
            highest = max(highest, high[i])
            lowest = min(lowest, low[i])
        if highest > lowest:
            out[t - first] = 2.0 * (close[t] - lowest) / (highest - lowest) - 1.0
        else:
            out[t - first] = 0.0

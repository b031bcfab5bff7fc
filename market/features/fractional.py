"""Fractional differences: as little differencing as stationarity asks for, so that memory is kept."""

from market.features.feature import Node, Window, further_features
from market.features.volatility import RETURN
from market.kernels import rolling

#: Prices in the window. At order 0.4 the weight of the last one is 1e-4 of the first one's.
WIDTH = 256


@rolling(1, 2)
def _fractional(returns, percent, width, first, out):
    # Prices weigh (1 - L)^d, and what the window cuts off is put on its oldest price, so that the weights sum
    # to 0. By parts, returns then weigh the running sums of these weights: no level, no unit is left.
    order = percent / 100.0
    for t in range(first, returns.size):
        out[t - first] = 0.0
    weight = 1.0
    running = 1.0
    for k in range(width - 1):
        # Lags outside, so that rows are done side by side; each row still adds in the same order.
        for t in range(first, returns.size):
            out[t - first] += running * returns[t - k]
        weight *= -(order - k) / (k + 1.0)
        running += weight


@further_features(fractional_20=20, fractional_40=40, fractional_60=60)
def fractional(percent: int) -> Node:
    """Log price differenced to an order of 0.2, 0.4 or 0.6 over a window of 256 closes; at rest: 0.

    The weights that the fixed-width window cuts off are put on its oldest close. Plain truncation leaves a
    multiple of the price's level, which is a unit.

    Source: Lopez de Prado (2018), section 5.5, fixed-width window, with that change.
    """
    return Window(_fractional, (RETURN,), (percent, WIDTH), lookback=WIDTH - 1)

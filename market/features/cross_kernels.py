"""Rolling loops over columns of which some rows are not known (NaN). Only logs of prices stay NaN there."""

import math

from compute.kernels import kernel
from market.kernels import STILL, ratio, rolling

_HOUR = 3_600.0
# A joined price below this, the least of PRICE_LIMITS, is none: a quotient of two others stays in range.
# Written out, since a constant of another file would be compiled in and go stale.
LEAST = 1e-60


@kernel(inline=True)
def _known(value):
    return not math.isnan(value)


@rolling(1)
def change(prices, bars, first, out):
    """Write the log change of prices over ``bars`` rows; NaN where either is not known."""
    for t in range(first, prices.size):
        one, other = prices[t], prices[t - bars]
        out[t - first] = math.log(one / other) if one >= LEAST and other >= LEAST else math.nan


@rolling(2, 0)
def log_of_ratio(one, other, first, out):
    """Write the log of a joined price over the own one; NaN where it is not known."""
    for t in range(first, one.size):
        out[t - first] = math.log(one[t] / other[t]) if one[t] >= LEAST else math.nan


@rolling(2, 0)
def ahead(one, other, first, out):
    """Write how much the first lies above the second; 0 where the first is not known."""
    for t in range(first, one.size):
        out[t - first] = one[t] - other[t] if _known(one[t]) else 0.0


@rolling(1, 0)
def or_neutral(values, first, out):
    """Write the values; 0 where they are not known."""
    for t in range(first, values.size):
        out[t - first] = values[t] if _known(values[t]) else 0.0


@rolling(1, 0)
def missing(values, first, out):
    """Write 1 where a value is not known, else 0."""
    for t in range(first, values.size):
        out[t - first] = 0.0 if _known(values[t]) else 1.0


@rolling(1, 0)
def missing_price(prices, first, out):
    """Write 1 where a joined price is not known or none, else 0."""
    for t in range(first, prices.size):
        out[t - first] = 0.0 if prices[t] >= LEAST else 1.0


@kernel(inline=True)
def _known_moments(values, t, bars):
    # How many are known, their mean, and their deviation (ddof 0), counted from the newest value.
    origin = values[t]
    n_known = 0
    total = 0.0
    for i in range(t - bars + 1, t + 1):
        known = _known(values[i])
        n_known += 1 if known else 0
        total += values[i] - origin if known else 0.0
    shift = total / max(n_known, 1)
    squares = 0.0
    for i in range(t - bars + 1, t + 1):
        off = values[i] - origin - shift if _known(values[i]) else 0.0
        squares += off * off
    return n_known, origin + shift, math.sqrt(squares / max(n_known, 1))


@rolling(1, 2)
def zscore(values, of_logs, bars, first, out):
    """Write the newest value's place in the known rows of the window, in standard deviations (ddof 0)."""
    for t in range(first, values.size):
        if not _known(values[t]):
            out[t - first] = 0.0
            continue
        n_known, center, spread = _known_moments(values, t, bars)
        # Logs of a quotient that never changes still differ in their last digits.
        enough = 2 * n_known >= bars and (of_logs == 0 or spread > STILL)
        out[t - first] = ratio(values[t] - center, spread) if enough else 0.0


@rolling(1, 2)
def standard_change(values, lag, bars, first, out):
    """Write the change over ``lag`` rows in standard deviations (ddof 0) of the window."""
    for t in range(first, values.size):
        if not (_known(values[t]) and _known(values[t - lag])):
            out[t - first] = 0.0
            continue
        n_known, _, spread = _known_moments(values, t, bars)
        enough = 2 * n_known >= bars
        out[t - first] = ratio(values[t] - values[t - lag], spread) if enough else 0.0


@rolling(1)
def level(values, bars, first, out):
    """Write the newest value over the root mean square of the known rows of the window."""
    for t in range(first, values.size):
        if not _known(values[t]):
            out[t - first] = 0.0
            continue
        # As shares of the largest, so that no square leaves float64 or vanishes.
        n_known = 0
        largest = 0.0
        for i in range(t - bars + 1, t + 1):
            n_known += 1 if _known(values[i]) else 0
            largest = max(largest, abs(values[i])) if _known(values[i]) else largest
        squares = 0.0
        for i in range(t - bars + 1, t + 1):
            share = values[i] / largest if _known(values[i]) else 0.0
            squares += share * share
        enough = 2 * n_known >= bars and largest > 0.0
        out[t - first] = values[t] / largest / math.sqrt(squares / n_known) if enough else 0.0


@rolling(2, 3)
def comovement(own, other, lag, bars, as_beta, first, out):
    """Write correlation, or slope of the first on the second, over the rows where both are known."""
    # Over the rows where both are known; `other` is read `lag` rows earlier.
    for t in range(first, own.size):
        n_known = 0
        mine = 0.0
        its = 0.0
        for i in range(t - bars + 1 + lag, t + 1):
            known = _known(other[i - lag])
            n_known += 1 if known else 0
            mine += own[i] if known else 0.0
            its += other[i - lag] if known else 0.0
        if 2 * n_known < bars:
            out[t - first] = 0.0
            continue
        mine /= n_known
        its /= n_known
        products = 0.0
        own_squares = 0.0
        squares = 0.0
        for i in range(t - bars + 1 + lag, t + 1):
            known = _known(other[i - lag])
            one = own[i] - mine if known else 0.0
            two = other[i - lag] - its if known else 0.0
            products += one * two
            own_squares += one * one
            squares += two * two
        floor = n_known * STILL * STILL
        varied = squares > floor and (as_beta == 1 or own_squares > floor)
        whole = squares if as_beta else math.sqrt(own_squares * squares)
        out[t - first] = products / whole if varied else 0.0


@rolling(2)
def volatility_ratio(own, other, bars, first, out):
    """Write the log of the second's deviation over the first's, both at least STILL."""
    for t in range(first, own.size):
        n_known, _, its = _known_moments(other, t, bars) if _known(other[t]) else (0, 0.0, 0.0)
        mine = _known_moments(own, t, bars)[2]
        enough = 2 * n_known >= bars
        out[t - first] = math.log(max(its, STILL) / max(mine, STILL)) if enough else 0.0


@rolling(3, 0)
def age(time, event, values, first, out):
    """Write the log of 1 plus the hours since the event; 0 where the value is not known."""
    for t in range(first, time.size):
        hours = (time[t] - event[t]) / _HOUR
        known = _known(values[t]) and _known(event[t])
        out[t - first] = math.log1p(max(hours, 0.0)) if known else 0.0


@rolling(2)
def taker_share(bought, volume, bars, first, out):
    """Write the net volume of takers over all of it, over the rows where it is known."""
    for t in range(first, volume.size):
        net = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            if _known(bought[i]):
                net += 2.0 * min(max(bought[i], 0.0), volume[i]) - volume[i]
                total += volume[i]
        out[t - first] = ratio(net, total)


@rolling(3)
def taker_divergence(bought, volume, returns, bars, first, out):
    """Write the net share of takers minus the return over the way travelled."""
    # The balance of takers against that of returns: who pushes, and whether the price gives way.
    for t in range(first, volume.size):
        net = 0.0
        total = 0.0
        moved = 0.0
        way = 0.0
        for i in range(t - bars + 1, t + 1):
            if _known(bought[i]):
                net += 2.0 * min(max(bought[i], 0.0), volume[i]) - volume[i]
                total += volume[i]
                moved += returns[i]
                way += abs(returns[i])
        push = ratio(net, total)
        out[t - first] = push - moved / way if way > bars * STILL else push

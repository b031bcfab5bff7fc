"""Loops of labels: the scan for the first barrier, and the draws of the sequential bootstrap. LOOK AHEAD."""

import math

import numba
import numpy as np

from compute.kernels import R1, RB1, RI1, W1, kernel

#: "No such row" and "no such time": the largest int64, so that an index by it is refused.
NEVER = np.iinfo(np.int64).max

_B1 = numba.int8[::1]
_I1 = numba.int64[::1]


@kernel(numba.void(R1, R1, R1, R1, RB1, R1, R1, RB1, numba.int64, _B1, _I1, _I1, W1))
def barrier_scan(open_, high, low, close, gap, above, below, side, horizon, value, end, settled, ret):
    """Find for every row which barrier the bars after it touch first (Lopez de Prado 2018, section 3.4).

    Row t enters at the open of bar t+1 and looks at bars t+1 to t+horizon. A barrier that is just touched
    counts. An open beyond a barrier comes before anything inside its bar and is the price; where the rest
    of a bar touches both barriers, the stop of ``side`` comes first.

    Parameters
    ----------
    open_, high, low, close : float64 (n,)
    gap : int8 (n,)
        1 where bars are missing in front of a row: no label reaches across.
    above, below : float64 (n,)
        Distances of the barriers, fractions of the entry, above 0; infinity: none; NaN: not known.
    side : int8 (n,)
        Below 0: the upper barrier is the stop, otherwise the lower one.
    horizon : int64
        Bars, at least 1.
    value : int8 (n,)
        Written: 1 upper, -1 lower, 0 neither, or not known.
    end : int64 (n,)
        Written: row of the touch or of the horizon; NEVER where the label is not known.
    settled : int64 (n,)
        Written: the last row that was read; after it nothing changes the answer. NEVER where the bars end
        before that.
    ret : float64 (n,)
        Written: exit price over entry, less 1; NaN where the label is not known.
    """
    n = open_.size
    for t in range(n):
        value[t] = 0
        end[t] = NEVER
        settled[t] = NEVER
        ret[t] = math.nan
        if math.isnan(above[t]) or math.isnan(below[t]):
            settled[t] = t
            continue
        # Without the comparison a very long horizon would overflow.
        last = t + horizon if horizon < n - t else n
        entry = open_[t + 1] if t + 1 < n else math.nan
        upper = entry * (1.0 + above[t])
        lower = entry * (1.0 - below[t])
        for s in range(t + 1, min(last + 1, n)):
            if gap[s] != 0:
                settled[t] = s
                break
            up = high[s] >= upper
            down = low[s] <= lower
            if up or down:
                if open_[s] <= lower:
                    outcome, price = -1, open_[s]
                elif open_[s] >= upper:
                    outcome, price = 1, open_[s]
                elif down and (side[t] >= 0 or not up):
                    outcome, price = -1, lower
                else:
                    outcome, price = 1, upper
            elif s == last:
                outcome, price = 0, close[s]
            else:
                continue
            value[t] = outcome
            end[t] = s
            settled[t] = s
            ret[t] = price / entry - 1.0
            break


@kernel(inline=True)
def _first_from(sorted_, bound):
    # The first place in an increasing array whose value is at least the bound.
    low = 0
    high = sorted_.size
    while low < high:
        middle = (low + high) // 2
        if sorted_[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(numba.void(RI1, RI1, numba.int64, R1, _I1, W1, W1, _I1))
def sequential_draws(first, last, longest, uniform, concurrency, tree, prefix, drawn):
    """Draw labels one by one, each in proportion to how unique it would be among those drawn so far.

    A draw changes the uniqueness of the labels beside it and of no others. The probabilities therefore lie
    in a binary tree of sums, and a draw costs the longest label times the logarithm of their number, where
    the recipe of the book costs labels times bars.

    Parameters
    ----------
    first, last : int64 (m,)
        First and last bar each label reads; ``first`` increases.
    longest : int64
        Bars of the longest label.
    uniform : float64 (d,)
        In [0, 1), one per draw.
    concurrency : int64 (bars,)
        Zeros. Holds afterwards how many drawn labels read each bar.
    tree : float64 (2 * leaves,)
        Memory; ``leaves`` is a power of two, at least m. Node i holds the sum of nodes 2i and 2i + 1.
    prefix : float64 (3 * longest,)
        Memory.
    drawn : int64 (d,)
        Written: which label was drawn.

    Source: Lopez de Prado (2018), section 4.5.
    """
    leaves = tree.size // 2
    tree[:] = 0.0
    for j in range(first.size):
        tree[leaves + j] = 1.0
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]
    for draw in range(uniform.size):
        rest = uniform[draw] * tree[1]
        node = 1
        while node < leaves:
            node *= 2
            # Rounding may leave a rest for a branch that is empty.
            if rest >= tree[node] and tree[node + 1] > 0.0:
                rest -= tree[node]
                node += 1
        chosen = node - leaves
        drawn[draw] = chosen
        for s in range(first[chosen], last[chosen] + 1):
            concurrency[s] += 1
        # The labels that share a bar with the chosen one begin and end within ``longest`` of it.
        origin = max(first[chosen] - longest + 1, 0)
        stop = min(last[chosen] + longest, concurrency.size)
        prefix[0] = 0.0
        for s in range(origin, stop):
            prefix[s - origin + 1] = prefix[s - origin] + 1.0 / (1.0 + concurrency[s])
        low = _first_from(first, origin)
        high = _first_from(first, last[chosen] + 1)
        for j in range(low, high):
            if last[j] >= first[chosen]:
                total = prefix[last[j] - origin + 1] - prefix[first[j] - origin]
                tree[leaves + j] = total / (last[j] - first[j] + 1)
        low = (leaves + low) // 2
        high = (leaves + high - 1) // 2
        while low > 0:
            for node in range(low, high + 1):
                tree[node] = tree[2 * node] + tree[2 * node + 1]
            low //= 2
            high //= 2

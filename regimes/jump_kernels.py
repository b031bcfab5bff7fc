"""The recursion of the statistical jump model: what each state has cost so far, row by row, causal.

The memory is advanced as everywhere in ``regimes``: cutting the rows anywhere, and going on with the same
memory, writes the same bits.
"""

import math

import numba
import numpy as np

from compute.kernels import R2, W1, W2, kernel

RESIDUAL_LIMIT = 3.0  # standard deviations; one bar moves the level by no more than this times the gain


@kernel(numba.void(R2, R2, numba.int64, numba.float64, numba.float64, numba.float64, W1, W2, W2))
def follow_jumps(observations, centers, n_levels, penalty, gain, fade, memory, leveled, out):
    """Write the cost of the cheapest path of states that ends in each state: the jump model's values.

    A path pays half the squared distance of every row to the center of its state, and the penalty for every
    change of state::

        value[t, k] = distance(row t, center k)**2 / 2 + min over j of value[t - 1, j] + penalty * (j != k)

    Only differences matter, so the smallest value is taken off at each row and nothing grows. The cheapest
    state of row t uses rows up to and including t; a path that is read backwards from the last row does not.

    The first columns may be measured from a level that follows the rows: by ``gain`` times the residual of
    the row from the center of its cheapest state, so that a long stay in a state is no reason to move.

    Parameters
    ----------
    observations : float64 (n, f)
        A row with a NaN costs nothing in any state: only the jumps are weighed. Before the first known row
        there are no values.
    centers : float64 (k, f)
    n_levels : int64
        The first columns that are measured from a level.
    penalty : float64
        Cost of a jump; 0 leaves the nearest center of each row.
    gain, fade : float64
        Step of the level per residual, and the share of it that is lost per row; 0 and 0: no level.
    memory : float64 (k + n_levels,)
        In and out: the values of the last row (NaN before the first known one), then the levels.
    leveled : float64 (n, f)
        Written in place: the observations less the levels they were judged with.
    out : float64 (n, k)
        Written in place: the values, at least 0, the cheapest state at 0; NaN before the first known row.

    Source: Nystrup, Lindstrom, Madsen (2020), Learning hidden Markov models with persistent states by
    penalizing jumps, Expert Systems with Applications 150, equations 1 to 4.
    """
    n_states, n_columns = centers.shape
    for t in range(observations.shape[0]):
        known = True
        for f in range(n_columns):
            known &= not math.isnan(observations[t, f])
        started = not math.isnan(memory[0])
        for f in range(n_columns):
            level = memory[n_states + f] if f < n_levels else 0.0
            leveled[t, f] = observations[t, f] - level if known else np.nan
        cheapest = 0
        for k in range(n_states):
            # The cheapest state before stands at 0, so a jump from the best of the others costs the penalty.
            value = min(memory[k], penalty) if started else 0.0
            if known:
                distance = 0.0
                for f in range(n_columns):
                    away = leveled[t, f] - centers[k, f]
                    distance += away * away
                value += 0.5 * distance
            out[t, k] = value if started or known else np.nan
            if out[t, k] < out[t, cheapest]:
                cheapest = k
        lowest = out[t, cheapest]
        for k in range(n_states):
            out[t, k] -= lowest
            memory[k] = out[t, k]
        if known:
            for f in range(n_levels):
                residual = leveled[t, f] - centers[cheapest, f]
                residual = min(max(residual, -RESIDUAL_LIMIT), RESIDUAL_LIMIT)
                memory[n_states + f] = (1.0 - fade) * memory[n_states + f] + gain * residual


@kernel(numba.void(R2, numba.float64, W2))
def confidence(values, sharpness, out):
    """Write the probability of each state: the softmax of minus its value, times the sharpness.

    Parameters
    ----------
    values : float64 (n, k)
        From :func:`follow_jumps`.
    sharpness : float64
        Nats per unit of cost.
    out : float64 (n, k)
        Written in place; NaN where there are no values.
    """
    n_states = values.shape[1]
    for t in range(values.shape[0]):
        total = 0.0
        for k in range(n_states):
            out[t, k] = math.exp(-sharpness * values[t, k])
            total += out[t, k]
        for k in range(n_states):
            out[t, k] /= total

"""Recursions of the detectors: what they observe, log densities, forward filter, hysteresis, dwell.

Every kernel advances a memory it is given, row by row. Cutting the rows anywhere, and going on with the
same memory, writes the same bits.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, W1, W2, kernel

R3 = numba.types.Array(numba.float64, 3, "C", readonly=True)
W3 = numba.float64[:, :, ::1]

POOL_FLOOR = 1e-9  # a member may not rule a regime out on its own


@kernel(numba.void(R2, R1, R1, numba.float64, numba.float64, W2, W1, W2))
def observe(values, location, scale, floor, clip, ring, memory, out):
    """Write what a detector sees of its feature rows: relative levels and plain columns, standardised.

    The first ``c`` columns are positive levels such as a volatility. They enter as ``log(max(x, floor))``
    minus the mean of the ``w`` rows before, so that a level is high or low *for these months*. Row t uses
    rows up to and including t. A row with a NaN is NaN and leaves the memory as it was.

    Parameters
    ----------
    values : float64 (n, f)
        Feature rows.
    location, scale : float64 (f,)
        Learned from training rows; ``(x - location) / scale``.
    floor : float64
        Smallest level, so that the log of a dead market is finite.
    clip : float64
        Standardised values are cut to ``-clip..clip``.
    ring : float64 (w, c)
        Memory: the last ``w`` log levels, in rotating order. ``w = 0``: levels are not made relative.
    memory : float64 (c + 1,)
        Memory: the sum of each ring column, and the ring row that is written next.
    out : float64 (n, f)
        Written in place.
    """
    window, n_levels = ring.shape
    n_columns = values.shape[1]
    for t in range(values.shape[0]):
        known = True
        for f in range(n_columns):
            known &= math.isfinite(values[t, f])
        if not known:
            for f in range(n_columns):
                out[t, f] = np.nan
            continue
        place = int(memory[n_levels])
        for f in range(n_columns):
            x = values[t, f]
            if f < n_levels:
                x = math.log(max(x, floor))
                if window > 0:
                    relative = x - memory[f] / window
                    memory[f] += x - ring[place, f]
                    ring[place, f] = x
                    x = relative
            out[t, f] = min(max((x - location[f]) / scale[f], -clip), clip)
        if window > 0:
            place += 1
            if place == window:
                # Once per turn the sums are taken afresh: rounding errors of years must not add up.
                place = 0
                for f in range(n_levels):
                    memory[f] = 0.0
                    for row in range(window):
                        memory[f] += ring[row, f]
            memory[n_levels] = place


@kernel(numba.boolean(R3, W3, W1))
def whiten(covariance, whitening, constant):
    """Prepare Gaussian log densities: ``y = whitening (x - mean)`` is standard normal.

    Parameters
    ----------
    covariance : float64 (k, f, f)
        Symmetric.
    whitening : float64 (k, f, f)
        Written in place: the inverse of the lower Cholesky factor.
    constant : float64 (k,)
        Written in place: log density at the mean, nats.

    Returns
    -------
    bool
        False if a covariance is not positive definite.
    """
    n_states, n_columns, _ = covariance.shape
    lower = np.zeros((n_columns, n_columns))
    for j in range(n_states):
        constant[j] = -0.5 * n_columns * math.log(2.0 * math.pi)
        for row in range(n_columns):
            for column in range(row + 1):
                x = covariance[j, row, column]
                for i in range(column):
                    x -= lower[row, i] * lower[column, i]
                if row > column:
                    lower[row, column] = x / lower[column, column]
                elif x > 0.0 and math.isfinite(x):
                    lower[row, row] = math.sqrt(x)
                    constant[j] -= math.log(lower[row, row])
                else:
                    return False
        for column in range(n_columns):
            for row in range(n_columns):
                x = 1.0 if row == column else 0.0
                for i in range(column, row):
                    x -= lower[row, i] * whitening[j, i, column]
                whitening[j, row, column] = x / lower[row, row] if row >= column else 0.0
    return True


@kernel(numba.void(R2, R2, R3, R1, W2))
def gaussian_log_density(observations, mean, whitening, constant, out):
    """Write the log density of each row under each state's Gaussian.

    Parameters
    ----------
    observations : float64 (n, f)
        A row with a NaN carries no information: its densities are 0 under every state.
    mean : float64 (k, f)
    whitening : float64 (k, f, f)
        Lower triangular, from :func:`whiten`.
    constant : float64 (k,)
        From :func:`whiten`.
    out : float64 (n, k)
        Nats; written in place.
    """
    n_states, n_columns = mean.shape
    for t in range(observations.shape[0]):
        known = True
        for f in range(n_columns):
            known &= not math.isnan(observations[t, f])
        for j in range(n_states):
            distance = 0.0
            if known:
                for row in range(n_columns):
                    y = 0.0
                    for i in range(row + 1):
                        y += whitening[j, row, i] * (observations[t, i] - mean[j, i])
                    distance += y * y
            out[t, j] = constant[j] - 0.5 * distance if known else 0.0


@kernel(numba.void(R2, R2, W1, W2))
def forward_filter(log_likelihood, transition, belief, out):
    """Advance the filtered state probabilities of a hidden Markov model.

    Row t uses observations up to and including t. This is the forward recursion alone, not the smoothed
    posterior. Weights are compared as logs, so likelihoods far outside the range of floats are exact.

    Parameters
    ----------
    log_likelihood : float64 (n, k)
        Log density of each observation under each state, nats. A row of equal values says nothing: the
        belief is only carried forward by the transition.
    transition : float64 (k, k)
        ``transition[i, j]`` = P(state j now | state i one bar ago); rows sum to 1.
    belief : float64 (k,)
        Memory. In: probabilities before row 0. Out: probabilities after row n-1.
    out : float64 (n, k)
        Filtered probabilities, written in place.

    Source: Rabiner (1989), section III-A.
    """
    n_states = transition.shape[0]
    weight = np.empty(n_states)
    for t in range(log_likelihood.shape[0]):
        best = -np.inf
        for j in range(n_states):
            predicted = 0.0
            for i in range(n_states):
                predicted += belief[i] * transition[i, j]
            weight[j] = math.log(predicted) + log_likelihood[t, j] if predicted > 0.0 else -np.inf
            best = max(best, weight[j])
        total = 0.0
        for j in range(n_states):
            weight[j] = math.exp(weight[j] - best)
            total += weight[j]
        for j in range(n_states):
            belief[j] = weight[j] / total
            out[t, j] = belief[j]


@kernel(numba.void(R2, R1, R1, numba.float64, W1, W2))
def hysteresis(observations, enter, leave, sharpness, memory, out):
    """Advance a rule of two switches, and write how far each regime is from being called.

    Switch 0 (volatile) turns on at ``enter[0]`` and off at ``leave[0]``; switch 1 (directed) likewise.
    The regime is volatile while switch 0 is on, else trending while switch 1 is on, else ranging. The
    cost of another regime is the distance its switches still have to travel; probabilities are the
    softmax of minus ``sharpness`` times the cost, so the regime in force is never the less probable one.

    Parameters
    ----------
    observations : float64 (n, 2)
        Standardised volatility and direction. A row with a NaN repeats the row before.
    enter, leave : float64 (2,)
        Thresholds, ``leave <= enter``.
    sharpness : float64
        Probability per distance: 1 / standard deviations of the training rows.
    memory : float64 (5,)
        The two switches, 0 or 1, and the last row written; all NaN before the first known row.
    out : float64 (n, 3)
        Ranging, trending, volatile; written in place; NaN before the first known row.
    """
    for t in range(observations.shape[0]):
        if not (math.isnan(observations[t, 0]) or math.isnan(observations[t, 1])):
            for s in range(2):
                # The first known row has no past: the switch is thrown at the middle of the two thresholds.
                threshold = 0.5 * (enter[s] + leave[s])
                if not math.isnan(memory[s]):
                    threshold = leave[s] if memory[s] == 1.0 else enter[s]
                memory[s] = 1.0 if observations[t, s] >= threshold else 0.0
            is_volatile = memory[0] == 1.0
            is_directed = memory[1] == 1.0
            # Each switch stands on its own side of its threshold, so distances are never negative.
            flip = observations[t, 0] - leave[0] if is_volatile else enter[0] - observations[t, 0]
            turn = observations[t, 1] - leave[1] if is_directed else enter[1] - observations[t, 1]
            calm = flip if is_volatile else 0.0
            memory[2] = math.exp(-sharpness * (calm + (turn if is_directed else 0.0)))
            memory[3] = math.exp(-sharpness * (calm + (0.0 if is_directed else turn)))
            memory[4] = math.exp(-sharpness * (0.0 if is_volatile else flip))
            total = memory[2] + memory[3] + memory[4]
            for j in range(2, 5):
                memory[j] /= total
        for j in range(3):
            out[t, j] = memory[2 + j]


@kernel(numba.void(R3, R1, W2))
def pool(members, weight, out):
    """Write the weighted geometric mean of several opinions, normalised.

    Parameters
    ----------
    members : float64 (m, n, k)
        Probabilities of each member. A member whose row is NaN has no say in that row, and the others weigh
        as much more.
    weight : float64 (m,)
        Not negative, sums to 1.
    out : float64 (n, k)
        Written in place; NaN where no member has a say.

    Source: Genest and Zidek (1986), Statistical Science 1, section 3: the logarithmic opinion pool.
    """
    n_members, n_rows, n_regimes = members.shape
    for t in range(n_rows):
        said = 0.0
        for j in range(n_regimes):
            out[t, j] = 0.0
        for m in range(n_members):
            if not math.isnan(members[m, t, 0]):
                said += weight[m]
                for j in range(n_regimes):
                    out[t, j] += weight[m] * math.log(max(members[m, t, j], POOL_FLOOR))
        best = -math.inf
        for j in range(n_regimes):
            out[t, j] = out[t, j] / said if said > 0.0 else np.nan
            best = max(best, out[t, j])
        total = 0.0
        for j in range(n_regimes):
            out[t, j] = math.exp(out[t, j] - best)
            total += out[t, j]
        for j in range(n_regimes):
            out[t, j] /= total


@kernel(numba.void(R1, numba.float64, numba.float64, numba.float64, W1, W1))
def switch(values, enter, leave, sharpness, memory, out):
    """Advance one switch with hysteresis, and write how likely it is on.

    Parameters
    ----------
    values : float64 (n,)
        A NaN repeats the row before.
    enter, leave : float64
        The switch goes on at ``enter`` and off below ``leave``, which is not higher.
    sharpness : float64
        The probability is the logistic function of this times the distance from the threshold that would
        turn the switch: above one half while it is on, below while it is off.
    memory : float64 (2,)
        Whether it is on, and the last probability; NaN before the first known row.
    out : float64 (n,)
        Written in place; NaN before the first known row.
    """
    for t in range(values.size):
        if not math.isnan(values[t]):
            # The first known row has no past: the switch is thrown at the middle of the two thresholds.
            threshold = 0.5 * (enter + leave)
            if not math.isnan(memory[0]):
                threshold = leave if memory[0] == 1.0 else enter
            is_on = values[t] >= threshold
            memory[0] = 1.0 if is_on else 0.0
            memory[1] = 1.0 / (1.0 + math.exp(-sharpness * (values[t] - (leave if is_on else enter))))
        out[t] = memory[1]


@kernel(numba.void(R2, numba.float64, numba.int64, W1, W2))
def dwell(probabilities, threshold, min_dwell, memory, out):
    """Advance a path through regime probabilities: one label per row, kept for a minimum of rows.

    Parameters
    ----------
    probabilities : float64 (n, k)
        A NaN row keeps the label.
    threshold : float64
        Another regime takes over only with at least this probability.
    min_dwell : int64
        A label is kept for at least this many rows.
    memory : float64 (2,)
        The label in force (-1: undecided) and the rows it has been kept.
    out : float64 (n, 2)
        Label and its probability, written in place; -1 and NaN before the first known row, the
        probability also NaN in NaN rows.
    """
    n_states = probabilities.shape[1]
    for t in range(probabilities.shape[0]):
        label = int(memory[0])
        if math.isnan(probabilities[t, 0]):
            out[t, 0] = label
            out[t, 1] = np.nan
            memory[1] += 1.0 if label >= 0 else 0.0
            continue
        best = 0
        for j in range(1, n_states):
            if probabilities[t, j] > probabilities[t, best]:
                best = j
        if label < 0 or (best != label and memory[1] >= min_dwell and probabilities[t, best] >= threshold):
            label = best
            memory[0] = best
            memory[1] = 0.0
        memory[1] += 1.0
        out[t, 0] = label
        out[t, 1] = probabilities[t, label]

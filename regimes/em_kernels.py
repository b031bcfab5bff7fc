"""Kernels of hidden Markov models with Gaussian or Student-t states: the E step, and densities at a level.

Rows are stored column by column, so that densities and statistics run in vector registers; only the two
recursions of the chain go row by row. Exponentials are taken of differences to the row's best state, and
logarithms of running products, once in many rows.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RI1, W1, W2, W3, kernel
from regimes.kernels import forward_filter

R3 = numba.types.Array(numba.float64, 3, "C", readonly=True)

LANES = 8  # partial sums: a fixed order of additions, whatever the width of the registers
BLOCK = 256  # rows whose scratch stays in the first-level cache
LOG_LIMIT = 1e200  # a running product is logged before it leaves the range of floats
LEAST_LOG = -700.0  # densities farther below the row's best state than this count as this
# What `follow_level` notes of each row.
LEVEL, PREDICTIVE = range(2)

# exp(x) = 2^n exp(r) with n = round(x / ln 2): the number below rounds a float that is added to it. ln 2 is
# split in two so that n times its first part is exact; exp(r) is its series, right to the last bit or two.
ROUNDER = 1.5 * 2.0**52
PER_LN2 = 1.0 / math.log(2.0)
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
N_TERMS = 14
TERM = tuple(1.0 / math.factorial(i) for i in range(N_TERMS))
EXPONENT_BIAS, EXPONENT_PLACE = 1023, 52


@kernel(inline=True)
def exponentials(x, bits, out):
    """Write exp of ``x``, LEAST_LOG to 0, to ``out``; ``x`` is spent, ``bits`` is int64 scratch."""
    power = bits.view(np.float64)
    for t in range(x.size):
        scaled = x[t] * PER_LN2 + ROUNDER
        whole = scaled - ROUNDER
        bits[t] = (np.int64(whole) + EXPONENT_BIAS) << EXPONENT_PLACE
        r = (x[t] - whole * LN2_HIGH) - whole * LN2_LOW
        series = TERM[13]
        series = TERM[12] + r * series
        series = TERM[11] + r * series
        series = TERM[10] + r * series
        series = TERM[9] + r * series
        series = TERM[8] + r * series
        series = TERM[7] + r * series
        series = TERM[6] + r * series
        series = TERM[5] + r * series
        series = TERM[4] + r * series
        series = TERM[3] + r * series
        series = TERM[2] + r * series
        x[t] = 1.0 + r * (1.0 + r * series)
    for t in range(x.size):
        out[t] = x[t] * power[t]


@kernel(inline=True)
def dot(a, b, lanes):
    """Return the sum of products of two vectors; ``lanes`` is scratch, float64 (LANES,)."""
    n = a.size
    for lane in range(LANES):
        lanes[lane] = 0.0
    for first in range(0, n - LANES + 1, LANES):
        for lane in range(LANES):
            lanes[lane] += a[first + lane] * b[first + lane]
    total = 0.0
    for lane in range(LANES):
        total += lanes[lane]
    for t in range(n - n % LANES, n):
        total += a[t] * b[t]
    return total


@kernel(inline=True)
def distances(columns, first, mean, whitening, j, diagonal, scratch, out):
    """Write the squared Mahalanobis distance from state ``j`` of ``out.size`` rows, from ``first`` on."""
    out[:] = 0.0
    for row in range(mean.shape[1]):
        scratch[:] = 0.0
        for i in range(row if diagonal else 0, row + 1):
            weight = whitening[j, row, i]
            center = mean[j, i]
            for t in range(out.size):
                scratch[t] += weight * (columns[i, first + t] - center)
        for t in range(out.size):
            out[t] += scratch[t] * scratch[t]


@kernel(inline=True)
def emit(columns, mean, whitening, constant, degrees, diagonal, weight, pull, surprise):
    """Write densities over the row's best to ``weight`` and return the sum of the best ones' logs, nats.

    For Student-t states also ``pull`` = (nu + f) / (nu + distance), the weight of a row in the moments, and
    ``surprise`` = log(pull) - pull, by which the degrees of freedom are found.
    """
    n_states, n_columns = mean.shape
    n = columns.shape[1]
    logs = np.empty((n_states, BLOCK))
    best = np.empty(BLOCK)
    scratch = np.empty(BLOCK)
    bits = np.empty(BLOCK, np.int64)
    total = 0.0
    for first in range(0, n, BLOCK):
        m = min(BLOCK, n - first)
        for j in range(n_states):
            log = logs[j, :m]
            distances(columns, first, mean, whitening, j, diagonal, scratch[:m], log)
            nu = degrees[j]
            if math.isinf(nu):
                for t in range(m):
                    log[t] = constant[j] - 0.5 * log[t]
                if pull.size > 0:
                    pull[j, first : first + m] = 1.0
                    surprise[j, first : first + m] = -1.0
            else:
                half = 0.5 * (nu + n_columns)
                share = math.log((nu + n_columns) / nu)
                for t in range(m):
                    ratio = 1.0 + log[t] / nu
                    pull[j, first + t] = (nu + n_columns) / nu / ratio
                    scratch[t] = ratio
                for t in range(m):
                    scratch[t] = math.log(scratch[t])
                for t in range(m):
                    log[t] = constant[j] - half * scratch[t]
                    surprise[j, first + t] = share - scratch[t] - pull[j, first + t]
        for t in range(m):
            best[t] = logs[0, t]
        for j in range(1, n_states):
            for t in range(m):
                best[t] = max(best[t], logs[j, t])
        for t in range(m):
            total += best[t]
        for j in range(n_states):
            log = logs[j, :m]
            for t in range(m):
                log[t] = max(log[t] - best[t], LEAST_LOG)
            exponentials(log, bits[:m], weight[j, first : first + m])
    return total


@kernel(inline=True)
def chain_forward(transition, start, weight, forward):
    """Write the forward recursion of one sequence, and return its log likelihood beyond :func:`emit`'s.

    Row t is divided by the mass of row t - 1, whose reciprocal is ready while row t is still predicted. The
    factors stay in ``weight``, so that the backward recursion needs none of its own.
    """
    n_states, n = weight.shape
    row = np.empty(n_states)
    predicted = start.copy()
    product = 1.0
    total = 0.0
    mass = 1.0
    for t in range(n):
        scale = 1.0 / mass
        product *= scale
        if product > LOG_LIMIT:
            total -= math.log(product)
            product = 1.0
        mass = 0.0
        for j in range(n_states):
            w = weight[j, t] * scale
            weight[j, t] = w
            row[j] = predicted[j] * w
            forward[j, t] = row[j]
            mass += row[j]
        for j in range(n_states):
            x = 0.0
            for i in range(n_states):
                x += row[i] * transition[i, j]
            predicted[j] = x
    return total - math.log(product) + math.log(mass), mass


@kernel(inline=True)
def chain_backward(transition, mass, weight, backward):
    """Write the backward recursion of one sequence: times the forward one it is the smoothed probability.

    ``weight`` is overwritten by its product with ``backward``: what a transition into the row leads to.
    """
    n_states, n = weight.shape
    ahead = np.empty(n_states)
    row = np.full(n_states, 1.0 / mass)
    for t in range(n - 1, -1, -1):
        for j in range(n_states):
            backward[j, t] = row[j]
            ahead[j] = weight[j, t] * row[j]
            weight[j, t] = ahead[j]
        for i in range(n_states):
            x = 0.0
            for j in range(n_states):
                x += transition[i, j] * ahead[j]
            row[i] = x


@kernel(inline=True)
def moments(columns, mean, diagonal, smoothed, pull, total, pulled, first_moment, second_moment):
    """Sum up the rows under each state, centered on its old mean; see :func:`expect`."""
    n_states, n_columns = mean.shape
    n = columns.shape[1]
    away = np.empty((n_columns, BLOCK))
    weighted = np.empty(BLOCK)
    product = np.empty(BLOCK)
    ones = np.ones(BLOCK)
    lanes = np.empty(LANES)
    for first in range(0, n, BLOCK):
        m = min(BLOCK, n - first)
        for j in range(n_states):
            w = smoothed[j, first : first + m]
            rows = dot(w, ones[:m], lanes)
            total[j] += rows
            if pull.size > 0:
                for t in range(m):
                    weighted[t] = w[t] * pull[j, first + t]
                w = weighted[:m]
                rows = dot(w, ones[:m], lanes)
            pulled[j] += rows
            for i in range(n_columns):
                for t in range(m):
                    away[i, t] = columns[i, first + t] - mean[j, i]
                    product[t] = w[t] * away[i, t]
                first_moment[j, i] += dot(w, away[i, :m], lanes)
                for h in range(i if diagonal else 0, i + 1):
                    second_moment[j, i, h] += dot(product[:m], away[h, :m], lanes)


@kernel(
    numba.float64(R2, RI1, R1, R2, R2, R3, R1, R1, numba.boolean, W1, W2, W1, W1, W1, W2, W3, W3, W3),
)
def expect(
    columns,
    lengths,
    start,
    transition,
    mean,
    whitening,
    constant,
    degrees,
    diagonal,
    starts,
    counts,
    total,
    pulled,
    surprised,
    first_moment,
    second_moment,
    work,
    heavy,
):
    """Return the log likelihood, nats, and write what EM learns from the rows. LOOKS AHEAD.

    For fitting on training rows only; decisions use :func:`regimes.kernels.forward_filter`.

    Parameters
    ----------
    columns : float64 (f, n)
        Observations, one row per column of the model; no NaN.
    lengths : int64 (m,)
        Rows of each sequence, in order; at least 1 each, they sum to n.
    start : float64 (k,)
        Probabilities of the states at the first row of a sequence.
    transition : float64 (k, k)
        ``transition[i, j]`` = P(state j now | state i one row ago).
    mean : float64 (k, f)
    whitening : float64 (k, f, f)
        Lower triangular, see :func:`regimes.kernels.whiten`.
    constant : float64 (k,)
        Log density at the mean, nats.
    degrees : float64 (k,)
        Of freedom of each state's Student t; inf: a Gaussian.
    diagonal : bool
        Only the diagonal of ``whitening`` is read and only that of ``second_moment`` written.
    starts : float64 (k,)
        Written in place, as all that follow: expected sequences that begin in each state.
    counts : float64 (k, k)
        Expected transitions.
    total : float64 (k,)
        Expected rows of each state.
    pulled : float64 (k,)
        The same with each row weighted by u = (nu + f) / (nu + its squared distance), 1 for Gaussians.
    surprised : float64 (k,)
        Sums of log(u) - u, weighted by the state's probability.
    first_moment, second_moment : float64 (k, f), (k, f, f)
        Sums of (x - mean) and of its outer product (lower triangle), weighted by probability times u.
    work : float64 (3, k, n)
        Scratch; kept between iterations, because new memory costs as much as the arithmetic.
    heavy : float64 (2, k, n or 0)
        Scratch; 0 if all states are Gaussian.

    Returns
    -------
    float
        NaN or infinite if the parameters cannot explain the rows.

    Source: Baum, Petrie, Soules, Weiss (1970); Peel and McLachlan (2000) for the weights of Student t.
    """
    n_states = mean.shape[0]
    n = columns.shape[1]
    weight = work[0]
    forward = work[1]
    backward = work[2]
    pull = heavy[0]
    surprise = heavy[1]
    likelihood = emit(columns, mean, whitening, constant, degrees, diagonal, weight, pull, surprise)
    starts[:] = 0.0
    counts[:] = 0.0
    total[:] = 0.0
    pulled[:] = 0.0
    surprised[:] = 0.0
    first_moment[:] = 0.0
    second_moment[:] = 0.0
    lanes = np.empty(LANES)
    first = 0
    for s in range(lengths.size):
        end = first + lengths[s]
        gain, mass = chain_forward(transition, start, weight[:, first:end], forward[:, first:end])
        likelihood += gain
        chain_backward(transition, mass, weight[:, first:end], backward[:, first:end])
        for i in range(n_states):
            starts[i] += forward[i, first] * backward[i, first]
            for j in range(n_states):
                flow = dot(forward[i, first : end - 1], weight[j, first + 1 : end], lanes)
                counts[i, j] += flow * transition[i, j]
        first = end
    for j in range(n_states):
        for t in range(n):
            forward[j, t] *= backward[j, t]
        if pull.size > 0:
            surprised[j] = dot(forward[j], surprise[j], lanes)
        else:
            surprised[j] = -1.0
    moments(columns, mean, diagonal, forward, pull, total, pulled, first_moment, second_moment)
    return likelihood


@kernel(
    numba.void(R2, R2, R3, R1, R1, R1, R2, numba.float64, numba.float64, numba.float64, W1, W2, W2),
)
def follow_level(
    observations,
    mean,
    whitening,
    constant,
    degrees,
    loading,
    transition,
    evidence,
    gain,
    fade,
    memory,
    out,
    journal,
):
    """Write the log density of each row under each state, all of them at a common level that moves slowly.

    The level shifts every state's mean by ``level * loading``. It follows the rows' scores, averaged over the
    states as they are believed to be: a long episode of one state is explained by the state and leaves the
    level alone. Row t is judged with the level of the rows before it.

    Parameters
    ----------
    observations : float64 (n, f)
        A row with a NaN carries no information: its densities are 0, and the level stays.
    mean, whitening, constant, degrees
        As in :func:`expect`.
    loading : float64 (f,)
        Shift of each column per unit of the level.
    transition : float64 (k, k)
    evidence : float64
        Weight of a row's log density in the belief.
    gain : float64
        Share of a row's distance from what was expected that the level takes over; 0: it stays where it is.
    fade : float64
        Share of the level that is lost per known row.
    memory : float64 (k + 1,)
        In and out: the belief and the level.
    out : float64 (n, k)
        Nats, not weighted; written in place.
    journal : float64 (n, 2)
        Written in place: LEVEL, what each row was judged with, and PREDICTIVE, the log density of the row
        given the rows before, nats (0 in unknown rows).

    Source: Creal, Koopman, Lucas (2013) for the score as the step of a parameter.
    """
    n_states, n_columns = mean.shape
    y = np.empty(n_columns)
    score = np.empty(n_states)
    believed = np.empty((1, n_states))
    weighted = np.empty((1, n_states))
    pull = np.empty((n_states, n_columns))  # the whitened loading of each state
    strength = np.empty(n_states)
    for j in range(n_states):
        strength[j] = 0.0
        for row in range(n_columns):
            pull[j, row] = 0.0
            for i in range(row + 1):
                pull[j, row] += whitening[j, row, i] * loading[i]
            strength[j] += pull[j, row] * pull[j, row]
    for t in range(observations.shape[0]):
        known = True
        for f in range(n_columns):
            known &= not math.isnan(observations[t, f])
        level = memory[n_states]
        journal[t, LEVEL] = level
        journal[t, PREDICTIVE] = 0.0
        best = -math.inf
        for j in range(n_states):
            out[t, j] = 0.0
            if known:
                distance = 0.0
                score[j] = 0.0
                for row in range(n_columns):
                    y[row] = 0.0
                    for i in range(row + 1):
                        away = observations[t, i] - level * loading[i] - mean[j, i]
                        y[row] += whitening[j, row, i] * away
                    distance += y[row] * y[row]
                    score[j] += y[row] * pull[j, row]
                nu = degrees[j]
                if math.isinf(nu):
                    out[t, j] = constant[j] - 0.5 * distance
                else:
                    out[t, j] = constant[j] - 0.5 * (nu + n_columns) * math.log(1.0 + distance / nu)
                    score[j] *= (nu + n_columns) / (nu + distance)
            weighted[0, j] = evidence * out[t, j]
            best = max(best, out[t, j])
        if known:
            density = 0.0
            for j in range(n_states):
                predicted = 0.0
                for i in range(n_states):
                    predicted += memory[i] * transition[i, j]
                density += predicted * math.exp(out[t, j] - best)
            journal[t, PREDICTIVE] = best + math.log(density)
        forward_filter(weighted, transition, memory[:n_states], believed)
        if known:
            step = 0.0
            total = 0.0
            for j in range(n_states):
                step += believed[0, j] * score[j]
                total += believed[0, j] * strength[j]
            memory[n_states] = (1.0 - fade) * level + (gain * step / total if total > 0.0 else 0.0)

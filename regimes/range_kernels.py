"""Recursions of the Markov-switching model of whole bars: what a bar says, its likelihood, its filter.

A bar says more about its variance than its close does: given the variance ``V``, open, high, low and close
of a Brownian motion have a joint density that is a known series in ``y = V / range²``. The series depends on
the bar alone, so it is tabled once per bar at fixed nodes of ``y``; every likelihood after that is a short
sum over the nodes, whatever law the variance has.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RB1, W1, W2, W3, kernel

# Columns of the emission matrix, one row per regime. VOLATILITY: of a bar's log return at level and season
# one. SHOCK, MEMORY: weights of the last squared return and the last variance in the variance. HALF_DOF:
# half the degrees of freedom. DRIFT: of the trend, in volatilities. ECHO: share of the last return that
# comes again (the autoregression).
VOLATILITY, SHOCK, MEMORY, HALF_DOF, DRIFT, ECHO = range(6)
N_EMISSION = 6

R3 = numba.types.Array(numba.float64, 3, "C", readonly=True)

# A return beyond this many volatilities counts as this many: one flash crash must not rule the days after.
SHOCK_LIMIT = 4.0

# Nodes of y: powers of sqrt(2), so that exp(-x / y) at each node is the square of the one two nodes above.
N_NODES = 20
NODE_STEP = 0.5 * math.log(2.0)
NODE = np.array([2.0 ** ((j - 13) / 2) for j in range(N_NODES)])
INVERSE_NODE = 1.0 / NODE
LOG_NODE = np.log(NODE)
# Below this node the sum over mirror images is used, from it on the sum over eigenfunctions (y = 0.25).
FIRST_MODE_NODE = 9
N_IMAGES = 4
N_MODES = 6
MODE_DECAY = np.exp(-0.5 * np.outer((np.pi * np.arange(1, N_MODES + 1)) ** 2, NODE))
# The density vanishes where a path only touches its own start or end; stay this share of the range away.
EDGE = 1e-6
# Bounds of the tilt x in exp(-x / y): beyond them every state is as impossible as the next one.
TILT_LOW = -4.0
TILT_HIGH = 600.0 * 8.0

# What a bar is after `read_bars`: its log range (0: nothing is known), its log return from open to close.
LENGTH, MOVE = range(2)
# What `follow` notes of each row.
LEVEL, LIKELIHOOD = range(2)


@kernel(numba.void(R2, W2, W2))
def read_bars(shape, bars, series):
    """Turn a bar's range, body and lower wick into what the likelihood reads.

    Parameters
    ----------
    shape : float64 (n, 3)
        Columns ``range_1``, ``body_1``, ``lower_wick_1`` of the features. A row with a NaN is unknown.
    bars : float64 (n, 2)
        Written in place: LENGTH and MOVE. Unknown rows, and bars that did not move at all, are zero.
    series : float64 (n, N_NODES)
        Written in place: joint density of high, low and close at range one, at each node of y.

    Source: reflection at both barriers (Feller 1951), differentiated in high and low; the two forms of the
    sum are those of Jacobi's theta function.
    """
    decay = np.empty(N_NODES)
    for t in range(shape.shape[0]):
        length = shape[t, 0]
        body = shape[t, 1]
        wick = shape[t, 2]
        if not (length > 0.0 and math.isfinite(length) and math.isfinite(body) and math.isfinite(wick)):
            bars[t, LENGTH] = 0.0
            bars[t, MOVE] = 0.0
            for j in range(N_NODES):
                series[t, j] = 0.0
            continue
        # Wick and body are shares of a difference of prices; the path is one of logs.
        rise = math.expm1(length)
        start = math.log1p((wick + max(-body, 0.0)) * rise)
        end = math.log1p((wick + max(body, 0.0)) * rise)
        bars[t, LENGTH] = length
        bars[t, MOVE] = end - start
        depth = min(max(start / length, EDGE), 1.0 - EDGE)
        move = min(max(end / length, EDGE), 1.0 - EDGE) - depth
        twice = 2.0 * (1.0 - depth)
        for j in range(N_NODES):
            series[t, j] = 0.0
        for i in range(-N_IMAGES, N_IMAGES):
            for side in range(2):
                away = move - 2.0 * i - (twice if side else 0.0)
                weight = -4.0 * i * (i + 1) if side else 4.0 * i * i
                square = away * away
                decay[FIRST_MODE_NODE - 1] = math.exp(-0.5 * square * INVERSE_NODE[FIRST_MODE_NODE - 1])
                decay[FIRST_MODE_NODE - 2] = math.exp(-0.5 * square * INVERSE_NODE[FIRST_MODE_NODE - 2])
                for j in range(FIRST_MODE_NODE - 3, -1, -1):
                    decay[j] = decay[j + 2] * decay[j + 2]
                for j in range(FIRST_MODE_NODE):
                    series[t, j] += weight * (square - NODE[j]) * decay[j]
        for j in range(FIRST_MODE_NODE):
            y = NODE[j]
            series[t, j] /= y * y * math.sqrt(2.0 * math.pi * y)
        z = 2.0 * depth + move
        for i in range(1, N_MODES + 1):
            u = i * math.pi
            uu = u * u
            cos_move = math.cos(u * move)
            sin_move = math.sin(u * move)
            cos_z = math.cos(u * z)
            sin_z = math.sin(u * z)
            # The density is F_RR(move) - F_RR(z) - 2 F_Rz(z) at R = 1, a parabola in y per eigenfunction,
            # with F = (1/R) Σ cos(nπz/R) exp(-n²π²V/2R²).
            flat = 2.0 * (cos_move - cos_z) - 4.0 * u * (move * sin_move - z * sin_z)
            flat -= uu * (move * move * cos_move - z * z * cos_z) + 4.0 * u * sin_z + 2.0 * uu * z * cos_z
            slope = -5.0 * uu * (cos_move - cos_z) + 2.0 * uu * u * (move * sin_move - z * sin_z)
            slope += 2.0 * uu * u * sin_z
            bend = uu * uu * (cos_move - cos_z)
            for j in range(FIRST_MODE_NODE, N_NODES):
                y = NODE[j]
                series[t, j] += (flat + y * (slope + y * bend)) * MODE_DECAY[i - 1, j]
        total = 0.0
        for j in range(N_NODES):
            series[t, j] = max(series[t, j], 0.0)
            total += series[t, j]
        if not total > 0.0:  # rounding left nothing of a path along the very edge
            bars[t, LENGTH] = 0.0


@kernel(inline=True)
def tilted(series, powers, t, r, tilt, weight):
    """Return sums over the nodes of ``series y^-h exp(-tilt / y)``, and of that times 1/y and ln y.

    ``series`` is read in row ``t``, ``powers`` (y^-h) in row ``r``; ``weight`` is a scratch row of N_NODES.
    """
    weight[N_NODES - 1] = math.exp(-tilt * INVERSE_NODE[N_NODES - 1])
    weight[N_NODES - 2] = math.exp(-tilt * INVERSE_NODE[N_NODES - 2])
    for j in range(N_NODES - 3, -1, -1):
        weight[j] = weight[j + 2] * weight[j + 2]
    for j in range(N_NODES):
        weight[j] *= series[t, j] * powers[r, j]
    total = 0.0
    inverse = 0.0
    log = 0.0
    for j in range(N_NODES):
        total += weight[j]
        inverse += weight[j] * INVERSE_NODE[j]
        log += weight[j] * LOG_NODE[j]
    return max(total, 1e-300), inverse, log


@kernel(inline=True)
def expected(emission, r, sign, scale, cluster, echo):
    """Return mean and variance of a bar's log return in regime ``r`` with the trend's ``sign``.

    ``scale`` multiplies the volatility; ``echo`` is the return before, which enters within limits.
    """
    deviation = emission[r, VOLATILITY] * scale
    limit = SHOCK_LIMIT * deviation
    mean = sign * emission[r, DRIFT] * deviation + emission[r, ECHO] * min(max(echo, -limit), limit)
    return mean, deviation * deviation * cluster


@kernel(inline=True)
def shocked(emission, r, scale, move, cluster):
    """Return the clustering factor of regime ``r`` after a bar is known, and the squared shock in it."""
    shock = min(abs(move) / (emission[r, VOLATILITY] * scale), SHOCK_LIMIT)
    shock = shock * shock
    weight = emission[r, SHOCK]
    memory = emission[r, MEMORY]
    return 1.0 - weight - memory + weight * shock + memory * cluster, shock


@kernel(inline=True)
def node_powers(emission):
    """Return ``y^-h`` of each regime at each node, float64 (r, N_NODES)."""
    powers = np.empty((emission.shape[0], N_NODES))
    for r in range(emission.shape[0]):
        for j in range(N_NODES):
            powers[r, j] = math.exp(-emission[r, HALF_DOF] * LOG_NODE[j])
    return powers


@kernel(numba.void(R2, R2, R1, R2, R1, RB1, R1, W2, W3, W2, W3))
def bar_likelihood(bars, series, scale, emission, digamma, regime, sign, log_density, slope, cluster, drag):
    """Write the log density of each bar under each state, and how it answers to the parameters.

    The variance of a bar is inverse gamma around its expectation, which makes the return Student t. The
    expectation follows a GARCH recursion of its own in each regime (Haas, Mittnik, Paolella 2004), a
    function of past returns alone. Row t uses bars up to and including t.

    Parameters
    ----------
    bars, series
        From :func:`read_bars`.
    scale : float64 (n,)
        Multiplier of the volatility.
    emission : float64 (r, N_EMISSION)
    digamma : float64 (r,)
        Digamma function at HALF_DOF.
    regime, sign : int8 (s,), float64 (s,)
        Regime of each state, and the sign of its trend.
    log_density : float64 (n, s)
        Nats, written in place; 0 in unknown rows.
    slope : float64 (n, s, 3)
        Written in place: derivatives by log variance, by HALF_DOF and by the mean.
    cluster : float64 (n, r)
        Written in place: variance of the row over its long-run value.
    drag : float64 (n, r, 3)
        Written in place: derivatives of the log variance by log VOLATILITY, SHOCK and MEMORY.
    """
    n_regimes = emission.shape[0]
    powers = node_powers(emission)
    weight = np.empty(N_NODES)
    factor = np.ones(n_regimes)
    pull = np.zeros((n_regimes, 3))
    log_gamma = np.empty(n_regimes)
    for r in range(n_regimes):
        log_gamma[r] = math.lgamma(emission[r, HALF_DOF])
    echo = 0.0
    for t in range(bars.shape[0]):
        length = bars[t, LENGTH]
        move = bars[t, MOVE]
        for r in range(n_regimes):
            cluster[t, r] = factor[r]
            drag[t, r, 0] = 2.0 + pull[r, 0] / factor[r]
            drag[t, r, 1] = pull[r, 1] / factor[r]
            drag[t, r, 2] = pull[r, 2] / factor[r]
        if not length > 0.0:
            for s in range(regime.size):
                log_density[t, s] = 0.0
                for i in range(3):
                    slope[t, s, i] = 0.0
            continue
        log_length = math.log(length)
        square = length * length
        for s in range(regime.size):
            r = regime[s]
            half = emission[r, HALF_DOF]
            mean, variance = expected(emission, r, sign[s], scale[t], factor[r], echo)
            rate = (half - 1.0) * variance
            tilt = min(max((rate - mean * (move - 0.5 * mean)) / square, TILT_LOW), TILT_HIGH)
            total, inverse, log = tilted(series, powers, t, r, tilt, weight)
            inverse /= total * square
            log_rate = math.log(rate)
            log_density[t, s] = (
                math.log(total * NODE_STEP) + half * log_rate - log_gamma[r] - (2.0 * half + 3.0) * log_length
            )
            slope[t, s, 0] = half - rate * inverse
            slope[t, s, 1] = (
                log_rate
                + half / (half - 1.0)
                - digamma[r]
                - log / total
                - 2.0 * log_length
                - variance * inverse
            )
            slope[t, s, 2] = (move - mean) * inverse
        for r in range(n_regimes):
            before = factor[r]
            factor[r], shock = shocked(emission, r, scale[t], move, before)
            answer = 0.0 if shock >= SHOCK_LIMIT * SHOCK_LIMIT else -2.0 * shock * emission[r, SHOCK]
            pull[r, 0] = answer + emission[r, MEMORY] * pull[r, 0]
            pull[r, 1] = shock - 1.0 + emission[r, MEMORY] * pull[r, 1]
            pull[r, 2] = before - 1.0 + emission[r, MEMORY] * pull[r, 2]
        echo = move


@kernel(numba.float64(R2, R2, R1, W2, W2))
def expectation(log_density, transition, belief, smoothed, counts):
    """Return the log likelihood, and write what the states probably were: the E step. LOOKS AHEAD.

    For fitting on training rows only; decisions use :func:`follow`.

    Parameters
    ----------
    log_density : float64 (n, s)
        Of each row under each state, nats.
    transition : float64 (s, s)
        ``transition[i, j]`` = P(state j now | state i one bar ago); all positive.
    belief : float64 (s,)
        Probabilities before row 0.
    smoothed : float64 (n, s)
        Written in place: probabilities of the states given all rows.
    counts : float64 (s, s)
        Written in place: expected number of transitions between the rows.

    Returns
    -------
    float
        Nats.

    Source: Baum, Petrie, Soules, Weiss (1970); the backward pass is that of Kim (1994), section 2.2.
    """
    n, n_states = log_density.shape
    total = 0.0
    product = 1.0  # of the rows' masses; its log is taken before it leaves the range of floats
    joint = np.empty(n_states)
    before = belief.copy()
    for t in range(n):
        best = log_density[t, 0]
        for j in range(1, n_states):
            best = max(best, log_density[t, j])
        mass = 0.0
        for j in range(n_states):
            predicted = 0.0
            for i in range(n_states):
                predicted += before[i] * transition[i, j]
            joint[j] = predicted * math.exp(log_density[t, j] - best)
            mass += joint[j]
        total += best
        product *= mass
        if product < 1e-200:
            total += math.log(product)
            product = 1.0
        share = 1.0 / mass
        for j in range(n_states):
            before[j] = joint[j] * share
            smoothed[t, j] = before[j]
    total += math.log(product)
    counts[:] = 0.0
    for t in range(n - 2, -1, -1):
        for j in range(n_states):
            predicted = 0.0
            for i in range(n_states):
                predicted += smoothed[t, i] * transition[i, j]
            joint[j] = smoothed[t + 1, j] / predicted if predicted > 0.0 else 0.0
        for i in range(n_states):
            after = 0.0
            for j in range(n_states):
                flow = smoothed[t, i] * transition[i, j] * joint[j]
                counts[i, j] += flow
                after += flow
            smoothed[t, i] = after
    return total


@kernel(numba.void(R2, R1, R2, RB1, R1, R2, R3, R3, W2))
def emission_gradient(bars, scale, emission, regime, sign, smoothed, slope, drag, gradient):
    """Sum up how the likelihood answers to the emission: expected slopes under the smoothed states.

    By Fisher's identity this is the gradient of the likelihood itself, not only of the E step's bound.

    Parameters
    ----------
    bars, scale, emission, regime, sign, slope, drag
        As in :func:`bar_likelihood`.
    smoothed : float64 (n, s)
        From :func:`expectation`.
    gradient : float64 (r, N_EMISSION)
        Written in place; the first column is by log VOLATILITY, the others by the parameters themselves.
    """
    gradient[:] = 0.0
    echo = 0.0
    for t in range(bars.shape[0]):
        if not bars[t, LENGTH] > 0.0:
            continue
        for s in range(regime.size):
            r = regime[s]
            deviation = emission[r, VOLATILITY] * scale[t]
            limit = SHOCK_LIMIT * deviation
            weight = smoothed[t, s]
            spread = weight * slope[t, s, 0]
            mean = weight * slope[t, s, 2]
            gradient[r, VOLATILITY] += spread * drag[t, r, 0]
            gradient[r, VOLATILITY] += mean * sign[s] * emission[r, DRIFT] * deviation
            if abs(echo) > limit:  # the limit moves with the volatility
                gradient[r, VOLATILITY] += mean * emission[r, ECHO] * math.copysign(limit, echo)
            gradient[r, SHOCK] += spread * drag[t, r, 1]
            gradient[r, MEMORY] += spread * drag[t, r, 2]
            gradient[r, HALF_DOF] += weight * slope[t, s, 1]
            gradient[r, DRIFT] += mean * sign[s] * deviation
            gradient[r, ECHO] += mean * min(max(echo, -limit), limit)
        echo = bars[t, MOVE]


@kernel(numba.void(R2, R2, R1, R2, RB1, R1, R2, numba.float64, numba.float64, W1, W2, W2))
def follow(bars, series, season, emission, regime, sign, transition, gain, fade, memory, out, journal):
    """Advance the filter of the model, with a level of volatility that moves slowly.

    The level (a common factor of all volatilities) follows the score of the bars, averaged over the states
    as they are believed to be: a long episode of a volatile state is explained by the state and leaves the
    level alone. Row t uses bars up to and including t.

    Parameters
    ----------
    bars, series
        From :func:`read_bars`. An unknown row carries the belief forward by the transition only.
    season : float64 (n,)
        Multiplier of the volatility, known beforehand.
    emission, regime, sign
        As in :func:`bar_likelihood`.
    transition : float64 (s, s)
    gain : float64
        Step of the log level per unit of score; 0: the level stays.
    fade : float64
        Share of the log level that is lost per bar.
    memory : float64 (s + r + 2,)
        In and out: belief, clustering factors, log level, last return.
    out : float64 (n, s)
        Filtered probabilities, written in place.
    journal : float64 (n, 2)
        Written in place: LEVEL, the log level that a row was judged with, and LIKELIHOOD, the log density of
        the row given all rows before it, nats (0 in unknown rows).

    Source: Hamilton (1989); Creal, Koopman, Lucas (2013) for the score as the step of a parameter.
    """
    n_states = regime.size
    n_regimes = emission.shape[0]
    place_level = n_states + n_regimes
    powers = node_powers(emission)
    weight = np.empty(N_NODES)
    density = np.empty(n_states)
    score = np.empty(n_states)
    log_gamma = np.empty(n_regimes)
    for r in range(n_regimes):
        log_gamma[r] = math.lgamma(emission[r, HALF_DOF])
    for t in range(bars.shape[0]):
        level = memory[place_level]
        journal[t, LEVEL] = level
        journal[t, LIKELIHOOD] = 0.0
        length = bars[t, LENGTH]
        move = bars[t, MOVE]
        known = length > 0.0
        scale = season[t] * math.exp(level)
        best = 0.0
        if known:
            best = -math.inf
            square = length * length
            log_length = math.log(length)
            for s in range(n_states):
                r = regime[s]
                half = emission[r, HALF_DOF]
                mean, variance = expected(
                    emission, r, sign[s], scale, memory[n_states + r], memory[place_level + 1]
                )
                rate = (half - 1.0) * variance
                tilt = min(max((rate - mean * (move - 0.5 * mean)) / square, TILT_LOW), TILT_HIGH)
                total, inverse, _ = tilted(series, powers, t, r, tilt, weight)
                density[s] = (
                    math.log(total * NODE_STEP)
                    + half * math.log(rate)
                    - log_gamma[r]
                    - (2.0 * half + 3.0) * log_length
                )
                score[s] = half - rate * inverse / (total * square)
                best = max(best, density[s])
        mass = 0.0
        for j in range(n_states):
            predicted = 0.0
            for i in range(n_states):
                predicted += memory[i] * transition[i, j]
            out[t, j] = predicted * math.exp(density[j] - best) if known else predicted
            mass += out[t, j]
        step = 0.0
        for j in range(n_states):
            out[t, j] /= mass
            memory[j] = out[t, j]
            step += out[t, j] * score[j] if known else 0.0
        if known:
            journal[t, LIKELIHOOD] = best + math.log(mass)
            for r in range(n_regimes):
                memory[n_states + r], _ = shocked(emission, r, scale, move, memory[n_states + r])
            memory[place_level] = (1.0 - fade) * level + gain * step
            memory[place_level + 1] = move

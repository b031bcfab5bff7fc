"""Kernels of the synthetic market: the walk of the price, and the densities its true filter needs.

Shapes: n bars, m steps inside a bar, k regimes, s hidden states (a regime with a direction counts
twice, once up and once down), j nodes of the quadrature.

Everything a state's law depends on is a function of past *closes* (``expected`` and ``absorb`` below),
so that whoever knows the true parameters can compute it: no hidden variance, no hidden anchor.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RB1, W1, W2, kernel

# Columns of the parameter matrix, one row per regime.
VOLATILITY, TREND, PULL, ANCHOR, THRESHOLD, REACH, SHOCK, MEMORY, DOF = range(9)
N_PARAMETERS = 9

# A shock beyond this many standard deviations counts as this many in the clustering recursion.
SHOCK_LIMIT = 4.0

# Quadrature over the variance of one bar, V = y R² with R the bar's range: equal steps in ln y. The
# likelihood of a range leaves no weight outside these bounds. Against adaptive quadrature, states that keep
# any weight (within e^-15 of the best) are exact to 1e-4 up to 10 degrees of freedom, to 3e-3 at 30.
N_NODES = 28
NODE_FIRST = -4.5
NODE_STEP = 0.25
# Below this y the sum over mirror images converges fast, above it the sum over eigenfunctions does.
Y_IMAGES = 0.3
N_IMAGES = 3
N_MODES = 6
# The joint density vanishes where a path only touches its own start or end; stay this share of R away.
EDGE = 1e-6


@kernel(inline=True)
def expected(parameters, k, scale, log_close, anchor, cluster):
    """Return expected log return without direction, trend size and variance of regime ``k`` for the next bar.

    ``scale`` multiplies the volatility of the bar (hour of the week, slow drift of the parameters).
    """
    volatility = parameters[k, VOLATILITY]
    variance = volatility * volatility * scale * scale * cluster
    stretch = log_close - anchor
    beyond = abs(stretch) - parameters[k, THRESHOLD] * volatility
    beyond = min(max(beyond, 0.0), parameters[k, REACH] * volatility)
    mean = -parameters[k, PULL] * math.copysign(beyond, stretch)
    # The expected *simple* return of a bar without trend and pull is zero to second order.
    return mean - 0.5 * variance, parameters[k, TREND] * volatility * scale, variance


@kernel(inline=True)
def absorb(parameters, k, scale, log_return, log_close, anchor, cluster):
    """Return anchor and clustering factor of regime ``k`` after a close is known."""
    shock = min(abs(log_return) / (parameters[k, VOLATILITY] * scale), SHOCK_LIMIT)
    shock_weight = parameters[k, SHOCK]
    memory = parameters[k, MEMORY]
    cluster = 1.0 - shock_weight - memory + shock_weight * shock * shock + memory * cluster
    return anchor + parameters[k, ANCHOR] * (log_close - anchor), cluster


@kernel(numba.void(R1, R2, numba.int64, numba.int64[::1]))
def switch(uniform, cumulative, state, out):
    """Draw the hidden states of a Markov chain.

    Parameters
    ----------
    uniform : float64 (n,)
        One number in [0, 1) per bar; the state moves before the bar.
    cumulative : float64 (s, s)
        Row sums of the transition matrix, cumulated from left to right.
    state : int64
        State before row 0.
    out : int64 (n,)
        States, written in place.
    """
    last = cumulative.shape[1] - 1
    for t in range(uniform.size):
        after = 0
        while after < last and uniform[t] >= cumulative[state, after]:
            after += 1
        state = after
        out[t] = state


@kernel(numba.void(numba.float64, W1))
def fade(memory, noise):
    """Turn independent standard normal numbers into an AR(1) series with unit variance, in place.

    Parameters
    ----------
    memory : float64
        Autocorrelation at one bar, 0 to below 1.
    noise : float64 (n,)
        In and out.
    """
    fresh = math.sqrt(1.0 - memory * memory)
    for t in range(1, noise.size):
        noise[t] = memory * noise[t - 1] + fresh * noise[t]


@kernel(numba.void(R2, R1, RB1, R1, R1, R2, R2, R2, W2, W1, W2))
def walk(parameters, scale, regime, direction, mixing, normal, above, below, memory, log_close, out):
    """Walk the price through bars whose regimes are known, and keep each bar's extremes and close.

    Inside a bar the log price is a Brownian motion seen at ``m`` equal steps. Between two steps its highest
    point is drawn from the exact law of the Brownian bridge, ``(a + b + sqrt((b - a)² + 2 v E)) / 2`` with
    E exponential, and its lowest point likewise, so that ranges do not depend on ``m``. The only
    approximation is that the two are drawn independently within one step.

    Parameters
    ----------
    parameters : float64 (k, N_PARAMETERS)
        One row per regime.
    scale : float64 (n,)
        Multiplier of the volatility, known beforehand.
    regime : int8 (n,)
        Regime of each bar.
    direction : float64 (n,)
        -1, 0 or 1: sign of the trend.
    mixing : float64 (n,)
        Variance of the bar over its conditional expectation, inverse gamma: makes returns Student t.
    normal, above, below : float64 (n, m)
        Standard normal steps; standard exponentials for the extremes.
    memory : float64 (k, 2)
        Anchor and clustering factor per regime; in and out.
    log_close : float64 (1,)
        Log close; in and out.
    out : float64 (n, 3)
        Log high, log low, log close of each bar, written in place.

    Source: Beaglehole, Dybvig, Zhou (1997), Going to extremes (the maximum of a bridge).
    """
    m = normal.shape[1]
    for t in range(regime.size):
        r = regime[t]
        start = log_close[0]
        mean, trend, variance = expected(parameters, r, scale[t], start, memory[r, 0], memory[r, 1])
        step_mean = (mean + direction[t] * trend) / m
        step_variance = variance * mixing[t] / m
        step_deviation = math.sqrt(step_variance)
        here = 0.0
        high = 0.0
        low = 0.0
        for i in range(m):
            move = step_mean + step_deviation * normal[t, i]
            there = here + move
            top = 0.5 * (here + there + math.sqrt(move * move + 2.0 * step_variance * above[t, i]))
            bottom = 0.5 * (here + there - math.sqrt(move * move + 2.0 * step_variance * below[t, i]))
            high = max(high, top)
            low = min(low, bottom)
            here = there
        log_close[0] = start + here
        out[t, 0] = start + high
        out[t, 1] = start + low
        out[t, 2] = log_close[0]
        for k in range(parameters.shape[0]):
            memory[k, 0], memory[k, 1] = absorb(
                parameters, k, scale[t], here, log_close[0], memory[k, 0], memory[k, 1]
            )


@kernel(numba.void(R2, R1, R1, R1, RB1, R1, numba.float64, W2, W2))
def conditional_moments(parameters, scale, open_, close, regime_of, direction_of, log_start, mean, variance):
    """Return mean and variance of each bar's log return under each hidden state, from earlier closes alone.

    Parameters
    ----------
    parameters : float64 (k, N_PARAMETERS)
        One row per regime.
    scale : float64 (n,)
        Multiplier of the volatility, known beforehand.
    open_, close : float64 (n,)
        Prices; ``open_`` is the close before.
    regime_of, direction_of : int8 (s,), float64 (s,)
        Regime and sign of the trend of each hidden state.
    log_start : float64
        Log of the price before row 0.
    mean, variance : float64 (n, s)
        Log return and its square, written in place; the law is Student t with the regime's dof.
    """
    n_regimes = parameters.shape[0]
    anchor = np.full(n_regimes, log_start)
    cluster = np.ones(n_regimes)
    for t in range(close.size):
        before = math.log(open_[t])
        for s in range(regime_of.size):
            r = regime_of[s]
            calm, trend, spread = expected(parameters, r, scale[t], before, anchor[r], cluster[r])
            mean[t, s] = calm + direction_of[s] * trend
            variance[t, s] = spread
        after = math.log(close[t])
        for r in range(n_regimes):
            anchor[r], cluster[r] = absorb(
                parameters, r, scale[t], after - before, after, anchor[r], cluster[r]
            )


@kernel(numba.void(R1, R1, R2, R2, R1, W2))
def close_log_density(open_, close, mean, variance, dof, out):
    """Return the log density of each bar's log return under each hidden state: scaled Student t.

    Parameters
    ----------
    open_, close : float64 (n,)
        Prices.
    mean, variance : float64 (n, s)
        Moments of the log return under each state.
    dof : float64 (s,)
        Degrees of freedom, above 2.
    out : float64 (n, s)
        Nats, written in place.
    """
    for s in range(dof.size):
        half = 0.5 * dof[s]
        rate = half - 1.0  # mixing has mean one
        constant = math.lgamma(half + 0.5) - math.lgamma(half) - 0.5 * math.log(2.0 * math.pi * rate)
        for t in range(close.size):
            miss = math.log(close[t] / open_[t]) - mean[t, s]
            spread = variance[t, s]
            out[t, s] = (
                constant
                - 0.5 * math.log(spread)
                - (half + 0.5) * math.log1p(miss * miss / (2.0 * rate * spread))
            )


@kernel(inline=True)
def image_density(depth, move, y):
    """Return :func:`extremes_density` as a sum over mirror images: fast for small ``y``.

    Source: reflection at both barriers (Feller 1951), differentiated in high and low.
    """
    total = 0.0
    twice = 2.0 * (1.0 - depth)
    for i in range(-N_IMAGES - 1, N_IMAGES + 1):
        near = move - 2.0 * i
        far = near - twice
        total += 4.0 * i * i * (near * near - y) * math.exp(-0.5 * near * near / y)
        total -= 4.0 * i * (i + 1) * (far * far - y) * math.exp(-0.5 * far * far / y)
    return total / (y * y * math.sqrt(2.0 * math.pi * y))


@kernel(inline=True)
def mode_density(depth, move, y):
    """Return :func:`extremes_density` as a sum over eigenfunctions: fast for large ``y``."""
    total = 0.0
    z = 2.0 * depth + move
    for i in range(1, N_MODES + 1):
        u = i * math.pi
        uu = u * u
        cos_move = math.cos(u * move)
        sin_move = math.sin(u * move)
        cos_z = math.cos(u * z)
        sin_z = math.sin(u * z)
        # F = (1/R) Σ cos(nπz/R) exp(-n²π²V/2R²); the density is F_RR(move) - F_RR(z) - 2 F_Rz(z) at R = 1.
        slope_move = -move * sin_move - u * y * cos_move
        bend_move = (uu * y * y - move * move - y) * cos_move + 2.0 * u * y * move * sin_move
        slope_z = -z * sin_z - u * y * cos_z
        bend_z = (uu * y * y - z * z - y) * cos_z + 2.0 * u * y * z * sin_z
        mixed = 2.0 * u * sin_z + uu * z * cos_z - uu * u * y * sin_z
        term = 2.0 * (cos_move - cos_z) + 4.0 * u * (slope_move - slope_z) + uu * (bend_move - bend_z)
        total += (term - 2.0 * mixed) * math.exp(-0.5 * uu * y)
    return total


@kernel(inline=True)
def extremes_density(depth, move, y):
    """Return the joint density of high, low and close of a driftless Brownian motion at range 1.

    ``depth`` is start minus low, ``move`` is close minus start, ``y`` is the variance of the close. At range
    R and variance V the density is this one at ``y = V / R²``, over R³.
    """
    if y < Y_IMAGES:
        return image_density(depth, move, y)
    return mode_density(depth, move, y)


@kernel(numba.void(R1, R1, R1, R1, R2, R2, R1, W2))
def bar_log_density(open_, high, low, close, mean, variance, dof, out):
    """Return the log density of each bar's (high, low, close) given its open, under each hidden state.

    Given the variance V of the bar the density is that of Brownian motion with drift (series above, times
    Girsanov's factor); V is inverse gamma around the state's expectation and is integrated out
    on a fixed grid of ``ln (V / range²)``. The series depends on the bar only and is shared by the states.

    Parameters
    ----------
    open_, high, low, close : float64 (n,)
        Prices.
    mean, variance : float64 (n, s)
        Moments of the log return under each state.
    dof : float64 (s,)
        Degrees of freedom, above 2 and at most 30 (a narrower law falls between the nodes).
    out : float64 (n, s)
        Nats, written in place.
    """
    node = np.empty(N_NODES)
    series = np.empty(N_NODES)
    log_gamma = np.empty(dof.size)
    for s in range(dof.size):
        log_gamma[s] = math.lgamma(0.5 * dof[s])
    for j in range(N_NODES):
        node[j] = math.exp(NODE_FIRST + NODE_STEP * j)
    for t in range(close.size):
        up = math.log(high[t] / open_[t])
        down = math.log(low[t] / open_[t])
        move = math.log(close[t] / open_[t])
        length = up - down
        if not length > 0.0:  # a bar that did not move at all says nothing about the path
            out[t, :] = 0.0
            continue
        # Near the edge the density is proportional to the distance, in every state alike.
        depth = min(max(-down / length, EDGE), 1.0 - EDGE)
        place = min(max((move - down) / length, EDGE), 1.0 - EDGE)
        for j in range(N_NODES):
            series[j] = extremes_density(depth, place - depth, node[j])
        for s in range(dof.size):
            half = 0.5 * dof[s]
            rate = (half - 1.0) * variance[t, s]
            drift = mean[t, s]
            best = -math.inf
            total = 0.0
            for j in range(N_NODES):
                if series[j] > 0.0:
                    v = node[j] * length * length
                    weight = (drift * (move - 0.5 * drift) - rate) / v - half * math.log(v)
                    if weight > best:
                        total = total * math.exp(best - weight) + series[j]
                        best = weight
                    else:
                        total += series[j] * math.exp(weight - best)
            out[t, s] = (
                best
                + math.log(total * NODE_STEP)
                + half * math.log(rate)
                - log_gamma[s]
                - 3.0 * math.log(length)
            )


@kernel(numba.void(R2, R2, RB1, W1, W2))
def filter_regimes(log_density, transition, regime_of, belief, out):
    """Advance the filtered probabilities of a hidden Markov chain and sum them by regime.

    Row t uses bars up to and including t: the forward recursion alone, nothing is smoothed.

    Parameters
    ----------
    log_density : float64 (n, s)
        Of each bar under each hidden state, given the bars before it; nats.
    transition : float64 (s, s)
        ``transition[i, j]`` = P(state j now | state i one bar ago).
    regime_of : int8 (s,)
        Regime of each state.
    belief : float64 (s,)
        In: probabilities of the state before row 0. Out: after row n-1.
    out : float64 (n, k)
        Probabilities of the regimes, written in place.

    Source: Hamilton (1989); Rabiner (1989), section III-A.
    """
    n_states = belief.size
    predicted = np.empty(n_states)
    for t in range(log_density.shape[0]):
        best = -math.inf
        for s in range(n_states):
            best = max(best, log_density[t, s])
        total = 0.0
        for s in range(n_states):
            chance = 0.0
            for i in range(n_states):
                chance += belief[i] * transition[i, s]
            predicted[s] = chance * math.exp(log_density[t, s] - best)
            total += predicted[s]
        out[t, :] = 0.0
        for s in range(n_states):
            belief[s] = predicted[s] / total
            out[t, regime_of[s]] += belief[s]

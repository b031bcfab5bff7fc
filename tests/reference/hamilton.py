"""Markov-switching regressions in the form of Hamilton (1989), as hidden Markov chains, slow and obvious.

    y[t] - m[t] = sum of ar[s[t], l] (y[t - l] - m[t - l]) over l = 1..p, plus normal noise,
    m[t] = weights[s[t]] . x[t]

The mean of every lag is that of the regime at that lag, so a density needs the last p + 1 regimes. Those
together are one state of an ordinary hidden Markov chain: of k^(p + 1) states, most transitions impossible.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np


class SwitchingRegression(NamedTuple):
    """Parameters; ``transition[i, j]`` = P(regime j now | regime i before)."""

    transition: np.ndarray  # (k, k)
    weights: np.ndarray  # (k, m)
    variance: np.ndarray  # (k,)
    ar: np.ndarray  # (k, p)


class HiddenChain(NamedTuple):
    """The same model in states; ``states[a]`` are the regimes of state a, the latest first."""

    states: list[tuple[int, ...]]
    log_density: np.ndarray  # (n - p, k^(p + 1))
    transition: np.ndarray
    start: np.ndarray  # probabilities one row before the first density


def read(parameters, k, n_columns, order, switching_variance, switching_ar) -> SwitchingRegression:
    """Take apart a vector of parameters as Stata, E-views and statsmodels print them.

    Probabilities of going *to* regime 0 from each regime, to regime 1 from each, and so on but for the last;
    then regressors, variance and autoregression, each either once or once for each regime.
    """
    left = list(parameters)

    def take(n):
        taken, left[:] = left[:n], left[n:]
        return taken

    going = np.array(take(k * (k - 1))).reshape(k - 1, k)
    transition = np.vstack([going, 1 - going.sum(axis=0)]).T
    weights = np.array(take(k * n_columns)).reshape(n_columns, k).T
    variance = np.array(take(k) if switching_variance else take(1) * k)
    ar = np.array([take(k) if switching else take(1) * k for switching in switching_ar]).reshape(order, k).T
    if left:
        raise ValueError(f"{len(left)} parameters are left over; the model is another one")
    return SwitchingRegression(transition, weights, variance, ar)


def stationary(transition):
    """Long-run share of each regime: a very high power of the chain."""
    return np.linalg.matrix_power(transition, 2**20)[0]


def hidden_chain(law: SwitchingRegression, y, x) -> HiddenChain:
    """Write the model on ``y`` (n,) and ``x`` (n, m) out in states; the first p rows are only lags."""
    k, order = law.ar.shape
    states = list(itertools.product(range(k), repeat=order + 1))
    mean = np.asarray(x) @ law.weights.T
    log_density = np.empty((len(y) - order, len(states)))
    for row, t in enumerate(range(order, len(y))):
        for a, regimes in enumerate(states):
            now = regimes[0]
            error = y[t] - mean[t, now]
            for lag in range(1, order + 1):
                error -= law.ar[now, lag - 1] * (y[t - lag] - mean[t - lag, regimes[lag]])
            variance = law.variance[now]
            log_density[row, a] = -0.5 * (math.log(2 * math.pi * variance) + error**2 / variance)
    transition = np.zeros((len(states), len(states)))
    for a, before in enumerate(states):
        for b, after in enumerate(states):
            if after[1:] == before[:-1]:  # what was now is one bar ago
                transition[a, b] = law.transition[before[0], after[0]]
    share = stationary(law.transition)
    start = np.empty(len(states))
    for a, regimes in enumerate(states):
        start[a] = share[regimes[-1]]
        for newer, older in itertools.pairwise(regimes):
            start[a] *= law.transition[older, newer]
    return HiddenChain(states, log_density, transition, start)


def by_latest(probabilities, states, k):
    """Probabilities of the latest regime, (n, k): those of the states (n, k^(p + 1)) summed."""
    out = np.zeros((len(probabilities), k))
    for a, regimes in enumerate(states):
        out[:, regimes[0]] += probabilities[:, a]
    return out

"""What regime probabilities foretell of the next bar: the yardstick on which any two detectors compare.

Detectors model different things (a window's average, a whole bar, nothing at all), so their own likelihoods
do not compare. Here each one's probabilities, carried one bar ahead by its chain, weigh the same simple laws
of the next return and the next range. The laws are fitted on training rows; what counts is the held-out rest.
"""

import math

import numpy as np

from market.bars import Bars
from regimes.regime import RegimeProbabilities

RETURN, RANGE = range(2)
HALF_LIFE_BARS = 720.0  # of the level that both are measured against: a month of hourly bars
MAX_ITERATIONS = 200
TOLERANCE = 1e-10  # relative gain that ends a fit
DEGREES = (1.5, 200.0)  # bounds of the degrees of freedom
MIN_SCALE = 1e-6


def foretold(probabilities: RegimeProbabilities, chain: np.ndarray, bars: Bars, train: slice) -> np.ndarray:
    """Return the log density of each bar, given the rows before it and what a detector said of them.

    Parameters
    ----------
    probabilities : RegimeProbabilities (n, k)
        Filtered, one row per bar.
    chain : float64 (k, k)
        P(regime j at the next bar | regime i at this one).
    bars : Bars (n,)
    train : slice
        Rows on which the laws are fitted: those the detector was fitted on. Figures of these rows are
        in-sample.

    Returns
    -------
    float64 (n, 2)
        Nats: RETURN, of the log return from close to close; RANGE, of the log of the log range. NaN where a
        bar or the probabilities before it are not known, and where a bar did not move.
    """
    ahead = np.full(probabilities.values.shape, np.nan)
    ahead[1:] = probabilities.values[:-1] @ chain
    return _foretold(ahead, bars, train)


def foretold_without(bars: Bars, train: slice) -> np.ndarray:
    """Return what :func:`foretold` would without regimes: the zero point of the yardstick, float64 (n, 2)."""
    ahead = np.ones((len(bars), 1))
    ahead[:1] = np.nan
    return _foretold(ahead, bars, train)


def _foretold(ahead: np.ndarray, bars: Bars, train: slice) -> np.ndarray:
    close = bars.column("close")
    log_return = np.full(len(bars), np.nan)
    log_return[1:] = np.diff(np.log(close))
    values, level = relative(log_return, np.log(bars.column("high") / bars.column("low")))
    out = np.full((len(bars), 2), np.nan)
    known = np.isfinite(ahead).all(axis=1) & np.isfinite(values).all(axis=1) & np.isfinite(level)
    fitted = np.zeros(len(bars), dtype=bool)
    fitted[train] = True
    for column in range(2):
        law = fit_laws(values[known & fitted, column], ahead[known & fitted])
        out[known, column] = log_mixture(log_densities(values[known, column], law), ahead[known])
    out[:, RETURN] -= level  # densities of the return itself, not of its multiple of the level
    return out


def relative(log_return: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the laws are about, with the slow level of volatility taken out; causal.

    Parameters
    ----------
    log_return, length : float64 (n,)
        From close to close; log of high over low.

    Returns
    -------
    float64 (n, 2), float64 (n,)
        The return over the level, and the log range less the log level; the log level itself, an
        exponentially weighted mean of the log ranges before the row. Not finite where a bar is not known or
        did not move.
    """
    with np.errstate(divide="ignore"):
        log_range = np.log(length)
    decay = 0.5 ** (1.0 / HALF_LIFE_BARS)
    level, total, weight = np.full(length.size, np.nan), 0.0, 0.0
    for t, x in enumerate(log_range.tolist()):
        if weight > 0.0:
            level[t] = total / weight
        if math.isfinite(x):
            total, weight = decay * total + x, decay * weight + 1.0
    return np.column_stack([log_return / np.exp(level), log_range - level]), level


def fit_laws(values: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Return one Student t per regime, by maximum likelihood of a mixture whose weights are given row by row.

    Parameters
    ----------
    values : float64 (n,)
        Finite.
    ahead : float64 (n, k)
        Probability of each regime at each row, as known before it.

    Returns
    -------
    float64 (k, 3)
        Location, scale, degrees of freedom.
    """
    from scipy.optimize import minimize
    from scipy.special import digamma, gammaln

    k, n = ahead.shape[1], values.size
    weight = np.ascontiguousarray(ahead.T)  # a regime's row is contiguous: five times as fast as columns
    spread = math.log(values.std() + MIN_SCALE)
    start = np.column_stack(
        [
            np.full(k, np.median(values)),
            spread + (np.log(np.geomspace(0.7, 1.4, k)) if k > 1 else np.zeros(1)),
            np.full(k, math.log(8.0)),
        ]
    )

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        location, log_scale, log_degrees = x.reshape(k, 3).T[:, :, None]
        scale, degrees = np.exp(log_scale), np.exp(log_degrees)
        constant = gammaln((degrees + 1) / 2) - gammaln(degrees / 2)
        constant = constant - 0.5 * np.log(degrees * np.pi) - log_scale
        away = (values - location) / scale
        square = away * away
        tail = np.log1p(square / degrees)
        log_density = constant - (degrees + 1) / 2 * tail
        best = log_density.max(axis=0)
        joint = weight * np.exp(log_density - best)
        total = joint.sum(axis=0)
        share = joint / total
        pull = (degrees + 1) / (degrees + square)
        per_degree = 0.5 * (digamma((degrees + 1) / 2) - digamma(degrees / 2) - 1 / degrees)
        per_degree = per_degree - 0.5 * tail + 0.5 * pull * square / degrees
        gradient = np.column_stack(
            [
                (share * pull * away).sum(axis=1) / scale[:, 0],
                (share * (pull * square - 1)).sum(axis=1),
                (share * per_degree).sum(axis=1) * degrees[:, 0],
            ]
        )
        return -float((best + np.log(total)).sum()) / n, -gradient.ravel() / n

    low, high = np.log(DEGREES)
    bounds = [(None, None), (math.log(MIN_SCALE), None), (low, high)] * k
    options = {"maxiter": MAX_ITERATIONS, "ftol": TOLERANCE}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    law = found.x.reshape(k, 3).copy()
    law[:, 1:] = np.exp(law[:, 1:])
    return law


def log_densities(values: np.ndarray, law: np.ndarray) -> np.ndarray:
    """Return the log density of each value (n,) under each of the laws (k, 3), float64 (n, k), nats."""
    out = np.empty((values.size, len(law)))
    for j, (location, scale, degrees) in enumerate(law):
        constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
        constant -= 0.5 * math.log(degrees * math.pi) + math.log(scale)
        away = (values - location) / scale
        out[:, j] = constant - (degrees + 1) / 2 * np.log1p(away**2 / degrees)
    return out


def log_mixture(log_density: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Return the log density (n,) of rows whose regime is known with probabilities ``ahead`` (n, k)."""
    best = log_density.max(axis=1)
    return best + np.log((ahead * np.exp(log_density - best[:, None])).sum(axis=1))

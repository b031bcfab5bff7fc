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
TOLERANCE = 1e-7  # gain per row and iteration that ends a fit, nats
DEGREES = (1.5, 200.0)  # bounds of the degrees of freedom
MIN_SCALE = 1e-6
WEIGHT_FLOOR = 1e-12  # rows a law needs at least, so that it stays defined


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

    Source: Peel and McLachlan (2000), Statistics and Computing 10.
    """
    from scipy.optimize import brentq
    from scipy.special import digamma

    k = ahead.shape[1]
    law = np.column_stack(
        [np.full(k, np.median(values)), np.full(k, values.std() + MIN_SCALE), np.full(k, 8.0)]
    )
    law[:, 1] *= np.geomspace(0.7, 1.4, k) if k > 1 else 1.0
    before = -math.inf
    for _ in range(MAX_ITERATIONS):
        log_density = log_densities(values, law)
        likelihood = log_mixture(log_density, ahead)
        share = ahead * np.exp(log_density - likelihood[:, None])
        gain = float(likelihood.mean()) - before
        if gain < TOLERANCE:
            break
        before = float(likelihood.mean())
        for j in range(k):
            location, scale, degrees = law[j]
            total = share[:, j].sum() + WEIGHT_FLOOR
            steadiness = (degrees + 1) / (degrees + ((values - location) / scale) ** 2)
            weight = share[:, j] * steadiness
            location = float(weight @ values) / (weight.sum() + WEIGHT_FLOOR)
            scale = math.sqrt(float(weight @ (values - location) ** 2) / total) + MIN_SCALE
            surprise = float(share[:, j] @ (np.log(steadiness) - steadiness)) / total
            surprise += float(digamma((degrees + 1) / 2) - math.log((degrees + 1) / 2))

            def slope(nu: float, surprise: float = surprise) -> float:
                return 1.0 + surprise + math.log(nu / 2) - float(digamma(nu / 2))

            low, high = DEGREES
            if slope(low) <= 0.0:
                degrees = low
            else:
                degrees = high if slope(high) >= 0.0 else float(brentq(slope, low, high, xtol=1e-3))
            law[j] = location, scale, degrees
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

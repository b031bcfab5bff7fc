"""Maximum likelihood of hidden Markov models with Gaussian or Student-t states, by EM. LOOKS AHEAD.

For fitting on training rows only. With Gaussian states every iteration is that of hmmlearn with the same
priors: the same log likelihood and parameters up to rounding, in a fraction of the time.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from regimes.em_kernels import expect
from regimes.kernels import whiten

COVARIANCE_PRIOR = 1e-2  # hmmlearn's covars_prior: added to every entry of a state's scatter
MIN_ROWS = 1e-5  # of a state, in the denominator of a diagonal covariance; hmmlearn's
DEGREES = (2.1, 200.0)  # bounds of the degrees of freedom: a finite variance, and all but a Gaussian
START_DEGREES = 8.0
DEGREES_PRECISION = 1e-6


@dataclass(frozen=True, eq=False)
class MarkovModel:
    """Parameters of a hidden Markov model.

    Parameters
    ----------
    start : float64 (k,)
        Probabilities of the states at the first row of a sequence.
    transition : float64 (k, k)
        ``transition[i, j]`` = P(state j now | state i one row ago).
    mean : float64 (k, f)
    covariance : float64 (k, f, f)
        Of a Gaussian; the scale matrix of a Student t, whose covariance is nu / (nu - 2) times that.
    degrees : float64 (k,)
        Degrees of freedom nu of each state's Student t; inf: a Gaussian.
    """

    start: np.ndarray
    transition: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    degrees: np.ndarray


@dataclass(frozen=True, eq=False)
class EmFit:
    """How EM ended.

    Parameters
    ----------
    model : MarkovModel
    history : tuple of float
        Log likelihood of all rows before each iteration's M step, nats.
    """

    model: MarkovModel
    history: tuple[float, ...]


def fit_em(
    rows: np.ndarray,
    lengths: np.ndarray,
    model: MarkovModel,
    *,
    diagonal: bool,
    transition_prior: np.ndarray | float = 1.0,
    n_iterations: int = 100,
    tolerance: float = 1e-2,
) -> EmFit:
    """Return the model that EM climbs to from a start.

    Parameters
    ----------
    rows : float64 (n, f)
        Sequences one after the other; no NaN.
    lengths : int (m,)
        Rows of each sequence; at least 1 each, they sum to n.
    model : MarkovModel
        The start. States with finite ``degrees`` are Student t and theirs are fitted too.
    diagonal : bool
        Whether covariances are kept diagonal.
    transition_prior : float64 (k, k)
        Dirichlet prior of each row of the transition; 1 is flat.
    n_iterations : int
        At most.
    tolerance : float
        EM ends when the log likelihood of all rows gains less, nats.

    Raises
    ------
    ValueError
        If a state is left without rows or the likelihood is not finite.

    Source: Baum, Petrie, Soules, Weiss (1970); Liu and Rubin (1995) for Student t; Huang, Acero, Hon (2001),
    pages 443-445, for the covariance prior, as in hmmlearn.
    """
    rows = np.asarray(rows, dtype=np.float64)
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    if rows.ndim != 2 or lengths.sum() != len(rows) or not (lengths > 0).all():
        raise ValueError(
            f"lengths are positive and sum to the rows; got {lengths.tolist()[:5]}... for {rows.shape}"
        )
    columns = np.ascontiguousarray(rows.T)
    (k, f), n = model.mean.shape, len(rows)
    sums = [np.empty(shape) for shape in (k, (k, k), k, k, k, (k, f), (k, f, f))]
    scratch = np.empty((3, k, n)), np.empty((2, k, n if np.isfinite(model.degrees).any() else 0))
    history: list[float] = []
    for _ in range(n_iterations):
        whitening, constant = prepared(model)
        likelihood = expect(
            columns,
            lengths,
            model.start,
            model.transition,
            model.mean,
            whitening,
            constant,
            model.degrees,
            diagonal,
            *sums,
            *scratch,
        )
        if not math.isfinite(likelihood):
            raise ValueError(f"the log likelihood is {likelihood} in iteration {len(history) + 1}")
        model = _maximised(model, *sums, diagonal, transition_prior)
        history.append(likelihood)
        if len(history) > 1 and history[-1] - history[-2] < tolerance:
            break
    return EmFit(model, tuple(history))


def fit_hmmlearn(
    rows: np.ndarray,
    lengths: np.ndarray,
    model: MarkovModel,
    *,
    diagonal: bool,
    transition_prior: np.ndarray | float = 1.0,
    n_iterations: int = 100,
    tolerance: float = 1e-2,
) -> EmFit:
    """Return the model that hmmlearn's EM climbs to from a start; parameters as in :func:`fit_em`.

    Raises
    ------
    ValueError
        If a state is Student t, or the parameters cease to be finite.
    """
    from hmmlearn.hmm import GaussianHMM  # takes 1.4 s to import

    if np.isfinite(model.degrees).any():
        raise ValueError("hmmlearn knows no Student-t states")
    fitted = GaussianHMM(
        len(model.mean),
        covariance_type="diag" if diagonal else "full",
        transmat_prior=transition_prior,
        covars_prior=COVARIANCE_PRIOR,
        n_iter=n_iterations,
        tol=tolerance,
        init_params="",
        implementation="log",
    )
    fitted.startprob_, fitted.transmat_, fitted.means_ = model.start, model.transition, model.mean
    fitted.covars_ = np.diagonal(model.covariance, 0, 1, 2) if diagonal else model.covariance
    with _one_quiet_thread():
        fitted.fit(rows, lengths)
    found = MarkovModel(
        fitted.startprob_, fitted.transmat_, fitted.means_, np.array(fitted.covars_), model.degrees
    )
    return EmFit(found, tuple(float(one) for one in fitted.monitor_.history))


#: EM by whom: both are called alike, and find the same Gaussians.
FITTERS = {"hmmlearn": fit_hmmlearn, "numba": fit_em}


@contextmanager
def _one_quiet_thread() -> Iterator[None]:
    # BLAS splits sums by threads, and a fit must not depend on their number. hmmlearn warns whenever the
    # likelihood falls, as it may by right with a prior; convergence is judged by us.
    from threadpoolctl import threadpool_limits

    logger = logging.getLogger("hmmlearn.base")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with threadpool_limits(1):
            yield
    finally:
        logger.setLevel(level)


def prepared(model: MarkovModel) -> tuple[np.ndarray, np.ndarray]:
    """Return what log densities are computed with: whitening float64 (k, f, f), log density at the mean (k,).

    Raises
    ------
    ValueError
        If a covariance is not positive definite.
    """
    whitening, constant = np.empty_like(model.covariance), np.empty(len(model.mean))
    if not whiten(model.covariance, whitening, constant):
        raise ValueError("a covariance is not positive definite")
    f = model.mean.shape[1]
    for j, nu in enumerate(model.degrees):
        if math.isfinite(nu):  # the normalising constant of Student t in place of the Gaussian one
            constant[j] += 0.5 * f * math.log(2.0 / nu) + math.lgamma((nu + f) / 2) - math.lgamma(nu / 2)
    return whitening, constant


def _maximised(
    model: MarkovModel,
    starts: np.ndarray,
    counts: np.ndarray,
    total: np.ndarray,
    pulled: np.ndarray,
    surprised: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    diagonal: bool,
    transition_prior: np.ndarray | float,
) -> MarkovModel:
    # The M step from the sums of `expect`; a transition that is zero stays zero, as in hmmlearn.
    if not (pulled > 0).all():
        raise ValueError(f"a state is left with {total.min():.3g} rows")
    shift = first / pulled[:, None]
    scatter = second - shift[:, :, None] * first[:, None, :]
    if diagonal:
        variance = COVARIANCE_PRIOR + np.diagonal(scatter, 0, 1, 2)
        covariance = np.zeros_like(scatter)
        covariance[:, range(first.shape[1]), range(first.shape[1])] = (
            variance / np.maximum(total, MIN_ROWS)[:, None]
        )
    else:
        lower = np.tril(scatter)
        scatter = lower + np.tril(scatter, -1).transpose(0, 2, 1)
        covariance = (COVARIANCE_PRIOR + scatter) / total[:, None, None]
    start = np.where(model.start == 0, 0.0, starts)
    counts = np.where(model.transition == 0, 0.0, np.maximum(transition_prior - 1.0 + counts, 0.0))
    left = counts.sum(axis=1, keepdims=True)
    # Sequences of one row say nothing of transitions: what was believed stays.
    transition = np.where(left > 0, counts / np.where(left > 0, left, 1.0), model.transition)
    degrees = model.degrees
    if np.isfinite(degrees).any():
        degrees = np.array(
            [
                _degrees(nu, surprised[j] / total[j], first.shape[1]) if math.isfinite(nu) else nu
                for j, nu in enumerate(degrees)
            ]
        )
    return MarkovModel(
        start / start.sum(),
        transition,
        model.mean + shift,
        covariance,
        degrees,
    )


def _degrees(nu: float, surprise: float, n_columns: int) -> float:
    # The root of the likelihood's slope in nu, which falls, within DEGREES; by bisection of its logarithm.
    from scipy.special import digamma

    half = 0.5 * (nu + n_columns)
    known = 1.0 + surprise + float(digamma(half)) - math.log(half)

    def slope(nu: float) -> float:
        return known + math.log(0.5 * nu) - float(digamma(0.5 * nu))

    low, high = DEGREES
    if slope(low) <= 0.0:
        return low
    if slope(high) >= 0.0:
        return high
    while high > low * (1.0 + DEGREES_PRECISION):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0.0 else (low, middle)
    return math.sqrt(low * high)

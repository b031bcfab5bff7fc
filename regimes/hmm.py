"""``hmm``: a Gaussian hidden Markov model, fitted by hmmlearn and filtered by our own forward recursion.

hmmlearn estimates parameters and does nothing else here: its ``predict`` and ``predict_proba`` use the
whole sequence, and change past labels once the future is known.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compute.seeds import stream
from configs.load import Config, validate
from market.table import DataError, Table
from regimes.chain import chain_of_states, check_chain
from regimes.detector import DETECTORS, by_regime, name_states, require_fitted, save_detector, saved_detector
from regimes.kernels import forward_filter, gaussian_log_density, whiten
from regimes.observations import Observer
from regimes.regime import REGIME_NAMES, RegimeProbabilities

PLACE = "detector hmm"
MIN_ROWS_PER_STATE = 100
MIN_STRIDES_PER_STATE = 10
MIN_SHARE = 0.02  # a state with less of the training rows is an outlier, not a regime
MIN_DWELL_BARS = 6.0  # a state that is left at once is noise
MIN_DEVIATION = 0.02  # of the standardised rows; a narrower state has collapsed on a repeated value
MIN_TRANSITION = 1e-6  # no state may be out of reach, whatever the training rows missed


class HmmConfig(Config):
    """What the model observes, and how it is fitted."""

    n_states: int = Field(3, ge=3, le=8, description="Hidden states; beyond three, states share a name.")
    level_columns: tuple[str, ...] = Field(
        ("parkinson_24",), min_length=1, description="Positive volatility levels; their mean names volatile."
    )
    direction_columns: tuple[str, ...] = Field(
        ("efficiency_24", "variance_ratio_96"),
        min_length=1,
        description="Larger is more directed; their mean names trending.",
    )
    other_columns: tuple[str, ...] = Field((), description="Observed, but without a say in the names.")
    baseline_bars: int = Field(
        4320,
        ge=0,
        le=100_000,
        description="Levels are relative to their mean over these bars, half a year of hours; 0: absolute.",
    )
    covariance: Literal["full", "diag"] = Field(
        "diag",
        description="Shape of each state's Gaussian; with full ones, refits of the default columns on real "
        "bars fall into one of two different models.",
    )
    stride_bars: int = Field(
        36,
        ge=1,
        le=1000,
        description="Rows this far apart are taken for independent: about the span of the columns' windows.",
    )
    evidence: float = Field(
        0.15,
        gt=0,
        le=1,
        description="Weight of one bar's log density in the filter; 1 / stride_bars counts each bar of a "
        "window once, more reacts sooner and is surer than it should be.",
    )
    dwell_bars: float = Field(168.0, ge=2, description="Expected stay in a state, a priori, bars.")
    stickiness: float = Field(
        1.0, ge=0, le=100, description="Weight of that belief, as a fraction of the training rows."
    )
    n_starts: int = Field(4, ge=1, le=100, description="Starting points; the likeliest one is finished.")
    start_iterations: int = Field(10, ge=1, le=1000, description="EM iterations each start gets.")
    n_iterations: int = Field(100, ge=1, le=10_000, description="EM iterations the best start gets at most.")
    tolerance: float = Field(1e-5, gt=0, description="Gain per row and iteration that ends the fit, nats.")
    max_rows: int = Field(60_000, ge=1000, description="The latest training rows that EM runs over.")
    seed: int = Field(7, ge=0, description="Root of the random starts.")

    @model_validator(mode="after")
    def _different(self) -> Self:
        columns = self.level_columns + self.direction_columns + self.other_columns
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]} is named twice; a model observes each column once")
        return self


@dataclass(frozen=True)
class HmmFit:
    """How a fit ended.

    Parameters
    ----------
    log_likelihood : float
        Nats per training row.
    n_iterations : int
        EM iterations that finished the best start.
    converged : bool
        Whether its last gain per row was below ``tolerance``.
    n_rejected : int
        Starts that were rejected as degenerate on the way.
    """

    log_likelihood: float
    n_iterations: int
    converged: bool
    n_rejected: int


@DETECTORS.register("hmm")
class HmmDetector:
    """Filtered state probabilities of a Gaussian hidden Markov model, summed by the states' names.

    Observations are standardised columns (see ``regimes.observations``). States are kept in the order
    of their names, then of their volatility. A row with an unknown column carries no information: the
    belief of the row before is advanced by the transition only. Before the first known row the output is
    NaN. The belief starts at the stationary distribution. Row t uses rows up to and including t.

    Columns over windows that overlap say the same thing many times. The fit therefore reads rows one
    stride apart, and the filter takes each bar's log density at the weight ``evidence`` (a power
    likelihood, see Holmes and Walker, 2017, Biometrika 104). The probabilities are still surer than they
    should be: they rank rows well, but are not calibrated frequencies.

    Attributes
    ----------
    mean : float64 (k, f)
    covariance : float64 (k, f, f)
    transition : float64 (k, k)
        ``transition[i, j]`` = P(state j now | state i one bar ago).
    regime : int8 (k,)
        The :class:`~regimes.regime.Regime` of each hidden state.
    chain : float64 (3, 3)
        The transition of the named regimes.
    stationary : float64 (k,)
        Long-run share of each state: the belief before anything is known.
    summary : HmmFit or None
        How the fit ended; None for a loaded detector.

    Parameters
    ----------
    config : HmmConfig
        Defaults if not given.
    """

    Config = HmmConfig

    def __init__(self, config: HmmConfig | None = None) -> None:
        self.config = config or HmmConfig()
        levels = self.config.level_columns
        plain = self.config.direction_columns + self.config.other_columns
        self.columns = levels + plain
        self.warmup = self.config.baseline_bars + 4 * math.ceil(self.config.dwell_bars)
        self.fitted_until: int | None = None
        self.summary: HmmFit | None = None
        self._observer = Observer(levels, plain, self.config.baseline_bars, PLACE)

    def fit(self, features: Table) -> Self:
        """Learn from training rows and return self.

        Raises
        ------
        DataError
            If there are too few known rows, a column does not vary, or every start ends degenerate.
        """
        each = max(MIN_ROWS_PER_STATE, MIN_STRIDES_PER_STATE * self.config.stride_bars)
        min_rows = each * self.config.n_states
        self._observer.fit(features, min_rows)
        observations = self._observer.fresh().update(features)[-self.config.max_rows :]
        known = ~np.isnan(observations[:, 0])
        if known.sum() < min_rows:
            raise DataError(
                f"{PLACE}: {known.sum()} of the latest {known.size} training rows are known; fitting needs "
                f"at least {min_rows}"
            )
        rows, lengths = _strided(observations, self.config.stride_bars)
        mean, covariance, transition, self.summary = _estimate(rows, lengths, self.config)
        n_levels = len(self.config.level_columns)
        n_named = n_levels + len(self.config.direction_columns)
        volatility = mean[:, :n_levels].mean(axis=1)
        regime = name_states(volatility, mean[:, n_levels:n_named].mean(axis=1))
        order = np.lexsort((volatility, regime))
        transition = np.ascontiguousarray(transition[np.ix_(order, order)])
        self._set(mean[order], covariance[order], transition, regime[order], _stationary(transition))
        self.fitted_until = int(features.time[-1])
        return self

    def _set(
        self,
        mean: np.ndarray,
        covariance: np.ndarray,
        transition: np.ndarray,
        regime: np.ndarray,
        stationary: np.ndarray,
    ) -> None:
        self.mean, self.covariance, self.transition = mean, covariance, transition
        self.regime, self.stationary = regime, stationary
        self.chain = chain_of_states(transition, stationary, regime, len(REGIME_NAMES))
        self._whitening, self._constant = np.empty_like(self.covariance), np.empty(len(regime))
        if not whiten(self.covariance, self._whitening, self._constant):
            raise DataError(f"{PLACE}: a covariance is not positive definite")
        self._forget()

    def _forget(self) -> None:
        self._observer = self._observer.fresh()
        self._belief = self.stationary.copy()
        self._started = False

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        if self.fitted_until is not None:
            other.__dict__.update(self.__dict__)
            other._forget()
        return other

    def log_likelihood(self, features: Table) -> np.ndarray:
        """Return float64 (n, k): log density of each row under each hidden state, nats; causal.

        Weighted by ``evidence``. Advances the memory of the observations, not the belief; rows with
        unknown columns are 0. The first rows, before anything is known, are NaN.
        """
        require_fitted(self, PLACE)
        observations = self._observer.update(features)
        out = np.empty((len(features), len(self.regime)))
        gaussian_log_density(observations, self.mean, self._whitening, self._constant, out)
        out *= self.config.evidence
        if not self._started:
            known = ~np.isnan(observations[:, 0])
            self._started = bool(known.any())
            out[: int(np.argmax(known)) if self._started else len(out)] = np.nan
        return out

    def update(self, features: Table) -> RegimeProbabilities:
        """Return filtered regime probabilities, one row per row."""
        log_likelihood = self.log_likelihood(features)
        first = int(np.isnan(log_likelihood[:, 0]).sum())
        hidden = np.full(log_likelihood.shape, np.nan)
        forward_filter(log_likelihood[first:], self.transition, self._belief, hidden[first:])
        return RegimeProbabilities(features.time, self.by_regime(hidden), REGIME_NAMES)

    def by_regime(self, hidden: np.ndarray) -> np.ndarray:
        """Return float64 (n, 3): probabilities of hidden states (n, k) summed by the states' names."""
        return by_regime(hidden, self.regime)

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, as JSON."""
        require_fitted(self, PLACE)
        parameters = {
            **self._observer.parameters(),
            "mean": self.mean,
            "covariance": self.covariance,
            "transition": self.transition,
            "regime": self.regime,
            "stationary": self.stationary,
        }
        save_detector(folder, "hmm", self, parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If the file is missing or damaged.
        """
        saved = saved_detector(folder, "hmm")
        detector = cls(validate(HmmConfig, saved.config, str(saved.path)))
        detector._observer = detector._observer.restored(saved.array)
        k, f = detector.config.n_states, len(detector.columns)
        transition, regime = saved.array("transition", (k, k)), saved.array("regime", (k,))
        check_chain(transition, f"{saved.path}: parameters.transition")
        if set(regime) != set(range(len(REGIME_NAMES))):
            raise DataError(f"{saved.path}: parameters.regime is {regime.tolist()}; each regime must occur")
        mean, covariance = saved.array("mean", (k, f)), saved.array("covariance", (k, f, f))
        stationary = saved.array("stationary", (k,))
        detector._set(mean, covariance, transition, regime.astype(np.int8), stationary)
        detector.fitted_until = saved.fitted_until
        return detector


def _estimate(
    observations: np.ndarray, lengths: np.ndarray, config: HmmConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, HmmFit]:
    # Every start runs a few iterations; they are finished from the likeliest on until one is sound.
    starts, rejected, reason = [], 0, ""
    with _one_quiet_thread():
        for start in range(config.n_starts):
            model = _start(observations, config, start)
            try:
                model.fit(observations, lengths)
            except ValueError as error:  # a state without rows leaves NaN parameters behind
                rejected, reason = rejected + 1, f"EM failed: {error}"
            else:
                starts.append((model.monitor_.history[-1], -start, model))
        for _, _, model in sorted(starts, key=lambda one: one[:2], reverse=True):
            model.n_iter = model.monitor_.n_iter = config.n_iterations
            try:
                model.fit(observations, lengths)
            except ValueError as error:
                rejected, reason = rejected + 1, f"EM failed: {error}"
                continue
            mean, covariance = model.means_, model.covars_
            transition = _per_bar(model.transmat_, config.stride_bars)
            reason = _degenerate(mean, covariance, transition) or ""
            if not reason:
                history = list(model.monitor_.history)
                gain = history[-1] - history[-2] if len(history) > 1 else math.inf
                converged = gain < config.tolerance * len(observations)
                summary = HmmFit(history[-1] / len(observations), len(history), converged, rejected)
                return mean, covariance, transition, summary
            rejected += 1
    raise DataError(
        f"{PLACE}: no sound model in {config.n_starts} starts over {len(observations)} rows; the last one: "
        f"{reason}; give more rows, fewer states or other columns"
    )


def _start(observations: np.ndarray, config: HmmConfig, start: int) -> Any:
    # hmmlearn's own start is k-means, whose result depends on threads. Ours: start 0 cuts off the upper
    # volatility quantile and slices the rest by direction; the others grow around random far-apart rows.
    from hmmlearn.hmm import GaussianHMM  # takes 1.4 s to import

    n, k = len(observations), config.n_states
    if start == 0:
        n_levels = len(config.level_columns)
        n_named = n_levels + len(config.direction_columns)
        volatility = observations[:, :n_levels].mean(axis=1)
        direction = observations[:, n_levels:n_named].mean(axis=1)
        calm = volatility < np.quantile(volatility, 1 - 1 / k)
        slices = np.quantile(direction[calm], np.arange(1, k - 1) / (k - 1))
        member = np.where(calm, np.searchsorted(slices, direction), k - 1)
    else:
        random = stream(config.seed, "regimes", "hmm", start)
        centres = observations[random.integers(n)][None]
        while len(centres) < k:
            nearest = ((observations[:, None, :] - centres) ** 2).sum(axis=2).min(axis=1)
            pick = np.searchsorted(np.cumsum(nearest), random.random() * nearest.sum())
            centres = np.vstack([centres, observations[min(int(pick), n - 1)]])
        member = ((observations[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1)
    overall = np.cov(observations.T).reshape(observations.shape[1], -1)
    means, covariances = [], []
    for state in range(k):
        rows = observations[member == state]
        means.append(rows.mean(axis=0) if len(rows) else observations[start])
        # Half of the overall covariance keeps a start of a few rows open to its surroundings.
        covariances.append(0.5 * overall + 0.5 * (np.cov(rows.T) if len(rows) > 1 else overall))
    stay = (1 - 1 / config.dwell_bars) ** config.stride_bars
    transition = np.full((k, k), (1 - stay) / (k - 1))
    np.fill_diagonal(transition, stay)
    model = GaussianHMM(
        k,
        covariance_type=config.covariance,
        transmat_prior=1 + config.stickiness * n / k * transition,
        n_iter=config.start_iterations,
        tol=config.tolerance * n,
        init_params="",
        implementation="log",
    )
    model.startprob_, model.transmat_, model.means_ = np.full(k, 1 / k), transition, np.array(means)
    covariances = np.array(covariances).reshape(k, observations.shape[1], -1)
    model.covars_ = covariances if config.covariance == "full" else np.diagonal(covariances, 0, 1, 2)
    return model


def _strided(observations: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    # Rows that share bars repeat each other, and a model fitted on all of them follows the ripples of the
    # windows. Every stride-th row is a sequence, from each of the first rows, so that no row is lost. A gap
    # ends a sequence, so that no transition is learned across it.
    parts = []
    for first in range(stride):
        rows = observations[first::stride]
        known = ~np.isnan(rows[:, 0])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]])))
        parts += [rows[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return np.concatenate(parts), np.array([len(part) for part in parts])


def _per_bar(transition: np.ndarray, stride: int) -> np.ndarray:
    # From one step per stride to one step per bar: the same chance to be still there after a stride.
    stay = np.diagonal(transition) ** (1 / stride)
    leaving = np.maximum(transition - np.diag(np.diagonal(transition)), MIN_TRANSITION)
    np.fill_diagonal(leaving, 0.0)
    per_bar = leaving / leaving.sum(axis=1, keepdims=True) * (1 - stay)[:, None]
    per_bar = np.maximum(per_bar + np.diag(stay), MIN_TRANSITION)
    return per_bar / per_bar.sum(axis=1, keepdims=True)


def _degenerate(mean: np.ndarray, covariance: np.ndarray, transition: np.ndarray) -> str | None:
    # Says what is wrong with a fitted model, or None.
    if not all(np.isfinite(array).all() for array in (mean, covariance, transition)):
        return "its parameters are not finite"
    deviation = np.sqrt(np.diagonal(covariance, 0, 1, 2).min())
    if not deviation >= MIN_DEVIATION:
        return f"a state has shrunk to {deviation:.2g} standard deviations"
    if not whiten(covariance, np.empty_like(covariance), np.empty(len(mean))):
        return "a covariance is not positive definite"
    dwell_bars = 1 / (1 - np.diagonal(transition).min())
    if dwell_bars < MIN_DWELL_BARS:
        return f"a state lasts {dwell_bars:.1f} bars"
    share = _stationary(transition).min()
    return f"a state holds {share:.1%} of the time" if share < MIN_SHARE else None


def _stationary(transition: np.ndarray) -> np.ndarray:
    # Share of time in each state in the long run: what is believed before anything is seen.
    k = len(transition)
    equations = np.vstack([transition.T - np.eye(k), np.ones(k)])
    share = np.linalg.lstsq(equations, np.append(np.zeros(k), 1.0), rcond=None)[0]
    share = np.maximum(share, 0.0)
    return share / share.sum()


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

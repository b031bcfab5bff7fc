"""``hmm``: a hidden Markov model of each bar's range and body, filtered by our own forward recursion.

hmmlearn (or our own EM) estimates parameters and does nothing else here: its ``predict`` and
``predict_proba`` use the whole sequence, and change past labels once the future is known.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compute.seeds import stream
from configs.load import Config, validate
from market.table import DataError, Table
from regimes.chain import chain_of_states, check_chain, stationary
from regimes.detector import (
    DETECTORS,
    by_regime,
    name_states,
    require_fitted,
    save_detector,
    saved_detector,
    select_columns,
)
from regimes.em import FITTERS, START_DEGREES, EmFit, MarkovModel, prepared
from regimes.em_kernels import LEVEL, PREDICTIVE, follow_level
from regimes.kernels import forward_filter
from regimes.observations import Observer
from regimes.regime import REGIME_NAMES, RegimeProbabilities
from regimes.season import centered_mean

PLACE = "detector hmm"
MIN_ROWS_PER_STATE = 100
MIN_STRIDES_PER_STATE = 10
MIN_SHARE = 0.02  # a state with less of the training rows is an outlier, not a regime
MIN_DWELL_BARS = 6.0  # a state that is left at once is noise
MIN_DEVIATION = 0.02  # of the standardised rows; a narrower state has collapsed on a repeated value
MIN_TRANSITION = 1e-6  # no state may be out of reach, whatever the training rows missed
FADE = 0.05  # per unit of gain: the level comes home after some twenty times its own memory
VIEW_BARS = 1001  # span of the centered mean that is the second view of the level (training rows only)
LEVEL_ROUNDS = 2  # fits of the states with the level that the fit before implies
DWELLS_PER_SPAN = 8  # starting states are told apart by means over this fraction of a stay
# Differences shrink by e in about one stay, and those of the level in about one step; after this many of them
# they are below 1e-6 (measured, on BTC and on every scenario).
FORGET_DWELLS = 4
FORGET_STEPS = 75


class HmmConfig(Config):
    """What the model observes, and how it is fitted."""

    n_states: int = Field(3, ge=3, le=8, description="Hidden states; beyond three, states share a name.")
    level_columns: tuple[str, ...] = Field(
        ("range_1",), min_length=1, description="Positive volatility levels; their mean names volatile."
    )
    magnitude_columns: tuple[str, ...] = Field(
        ("body_1",), description="Observed without their sign, and without a say in the names."
    )
    other_columns: tuple[str, ...] = Field(
        (), description="Observed as they are, without a say in the names."
    )
    direction_columns: tuple[str, ...] = Field(
        ("efficiency_72",),
        min_length=1,
        description="Larger is more directed; their mean over a state's rows names trending.",
    )
    observe_direction: bool = Field(
        False,
        description="Whether these are observed as well. Columns over windows, observed at every bar, hide "
        "what a single bar says.",
    )
    baseline_bars: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Levels are relative to their mean over these bars, 4320 is half a year of hours; "
        "0: absolute, which suits a level that is followed.",
    )
    gain: float = Field(
        0.01,
        ge=0,
        le=0.05,
        description="Step of a level common to all states, as a share of what a bar differs from what was "
        "expected, if that foretells the training rows better than a level that stays; 0: it stays.",
    )
    seasonal: bool = Field(True, description="Whether levels are relative to their hour of the week.")
    emission: Literal["gaussian", "student"] = Field(
        "gaussian", description="Law of a state's rows; student (heavier tails) needs the fitter numba."
    )
    fitter: Literal["hmmlearn", "numba"] = Field(
        "hmmlearn", description="Whose EM: hmmlearn's, or ours, which finds the same Gaussians sooner."
    )
    covariance: Literal["full", "diag"] = Field("full", description="Shape of each state's covariance.")
    stride_bars: int = Field(
        1,
        ge=1,
        le=1000,
        description="Rows this far apart are taken for independent: about the span of the columns' windows.",
    )
    evidence: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Weight of one bar's log density in the filter. 1 where each bar is news; volatility "
        "that clusters within a state, or windows that overlap, deserve less.",
    )
    dwell_bars: float = Field(168.0, ge=2, description="Expected stay in a state, a priori, bars.")
    stickiness: float = Field(
        2.0, ge=0, le=100, description="Weight of that belief, as a fraction of the training rows."
    )
    n_starts: int = Field(3, ge=1, le=100, description="Starting points; the likeliest one is finished.")
    start_iterations: int = Field(10, ge=1, le=1000, description="EM iterations each start gets.")
    n_iterations: int = Field(100, ge=1, le=10_000, description="EM iterations the best start gets at most.")
    tolerance: float = Field(1e-5, gt=0, description="Gain per row and iteration that ends the fit, nats.")
    start_rows: int = Field(
        15_000, ge=1000, description="The latest training rows that every start runs over."
    )
    max_rows: int = Field(60_000, ge=1000, description="The latest training rows that EM runs over.")
    seed: int = Field(7, ge=0, description="Root of the random starts.")

    @model_validator(mode="after")
    def _different(self) -> Self:
        columns = self.level_columns + self.direction_columns + self.other_columns + self.magnitude_columns
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]} is named twice; a model observes each column once")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.emission == "student" and self.fitter == "hmmlearn":
            raise ValueError("emission is student; hmmlearn fits gaussian only, so fitter must be numba")
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


@dataclass(frozen=True, eq=False)
class _Law:
    # A fitted model with a transition per bar, and what is needed to follow its level.
    model: MarkovModel
    gain: float
    loading: np.ndarray  # float64 (f,): standard deviations of each column per unit of the log level
    evidence: float

    def __post_init__(self) -> None:
        whitening, constant = prepared(self.model)
        object.__setattr__(self, "stationary", stationary(self.model.transition))
        object.__setattr__(self, "whitening", whitening)
        object.__setattr__(self, "constant", constant)

    def memory(self) -> np.ndarray:
        return np.append(self.stationary, 0.0)

    def followed(self, observations: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Log densities (n, k) and the journal (n, 2) of `follow_level`; advances the memory.
        model, k = self.model, len(self.stationary)
        out, journal = np.empty((len(observations), k)), np.empty((len(observations), 2))
        follow_level(
            observations,
            model.mean,
            self.whitening,
            self.constant,
            model.degrees,
            self.loading,
            model.transition,
            self.evidence,
            self.gain,
            FADE * self.gain,
            memory,
            out,
            journal,
        )
        return out, journal


@DETECTORS.register("hmm")
class HmmDetector:
    """Filtered state probabilities of a hidden Markov model, summed by the states' names.

    Observations are standardised columns (see ``regimes.observations``): each bar's log range, relative to
    its hour of the week, and the size of its body. A level of volatility that is common to all states is
    followed slowly, so that "volatile" keeps its meaning over years (see ``em_kernels.follow_level``). States
    are kept in the order of their names, then of their volatility.

    A row with an unknown column carries no information: the belief of the row before is advanced by the
    transition only. Before the first known row the output is NaN. The belief starts at the stationary
    distribution, the level at that of the training rows. Row t uses rows up to and including t.

    Bars of one state are not quite independent, and columns over windows that overlap say the same thing
    many times. The filter therefore takes each bar's log density at the weight ``evidence`` (a power
    likelihood, see Holmes and Walker, 2017, Biometrika 104), and of windows the fit reads rows one stride
    apart.

    Attributes
    ----------
    mean : float64 (k, f)
    covariance : float64 (k, f, f)
    degrees : float64 (k,)
        Degrees of freedom of each state's Student t; inf for a Gaussian.
    transition : float64 (k, k)
        ``transition[i, j]`` = P(state j now | state i one bar ago).
    gain : float
        Step of the common level, 0 if it stays.
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
        levels, direction = self.config.level_columns, self.config.direction_columns
        plain = (direction if self.config.observe_direction else ()) + self.config.other_columns
        self._observer = Observer(
            levels,
            plain,
            self.config.baseline_bars,
            PLACE,
            self.config.magnitude_columns,
            self.config.seasonal,
        )
        observed = self._observer.columns
        self.columns = observed if self.config.observe_direction else observed + direction
        self.warmup = self.config.baseline_bars + FORGET_DWELLS * math.ceil(self.config.dwell_bars)
        self.fitted_until: int | None = None
        self.summary: HmmFit | None = None

    def fit(self, features: Table) -> Self:
        """Learn from training rows and return self.

        Raises
        ------
        DataError
            If there are too few known rows, a column does not vary, or every start ends degenerate.
        """
        each = max(MIN_ROWS_PER_STATE, MIN_STRIDES_PER_STATE * self.config.stride_bars)
        min_rows = each * self.config.n_states
        select_columns(features, self.columns, PLACE)
        self._observer.fit(features, min_rows)
        observations = self._observer.fresh().update(features)[-self.config.max_rows :]
        known = ~np.isnan(observations[:, 0])
        if known.sum() < min_rows:
            raise DataError(
                f"{PLACE}: {known.sum()} of the latest {known.size} training rows are known; fitting needs "
                f"at least {min_rows}"
            )
        direction = self._directions(features, min_rows)[-self.config.max_rows :]
        law, self.summary = _estimate(observations, self._loading(), self.config)
        model, n_levels = law.model, len(self.config.level_columns)
        volatility = model.mean[:, :n_levels].mean(axis=1)
        regime = name_states(volatility, _state_means(law, observations, direction))
        order = np.lexsort((volatility, regime))
        model = MarkovModel(
            model.start[order],
            np.ascontiguousarray(model.transition[np.ix_(order, order)]),
            model.mean[order],
            model.covariance[order],
            model.degrees[order],
        )
        self._set(model, law.gain, regime[order], stationary(model.transition))
        self.fitted_until = int(features.time[-1])
        return self

    def _loading(self) -> np.ndarray:
        loading = np.zeros(len(self._observer.columns))
        n_levels = len(self.config.level_columns)
        loading[:n_levels] = 1.0 / self._observer.scale[:n_levels]
        return loading

    def _directions(self, features: Table, min_rows: int) -> np.ndarray:
        # How directed each row is, float64 (n,): the mean of the standardised columns, NaN where not known.
        names = self.config.direction_columns
        values = select_columns(features, names, PLACE)
        known = np.isfinite(values).all(axis=1)
        if known.sum() < min_rows:
            raise DataError(
                f"{PLACE}: {known.sum()} of {len(features)} training rows are known in all of "
                f"{', '.join(names)}; fitting needs at least {min_rows}"
            )
        location, scale = values[known].mean(axis=0), values[known].std(axis=0)
        flat = scale <= 1e-9 * np.maximum(1.0, np.abs(location))
        if flat.any():
            raise DataError(
                f"{PLACE}: column {names[int(np.argmax(flat))]} does not vary over the training rows; "
                f"states cannot be named by it"
            )
        return np.where(known, ((values - location) / scale).mean(axis=1), np.nan)

    def _set(self, model: MarkovModel, gain: float, regime: np.ndarray, stationary: np.ndarray) -> None:
        self.mean, self.covariance, self.degrees = model.mean, model.covariance, model.degrees
        self.transition, self.gain = model.transition, gain
        self.regime, self.stationary = regime, stationary
        self.chain = chain_of_states(self.transition, stationary, regime, len(REGIME_NAMES))
        try:
            self._law = _Law(model, gain, self._loading(), self.config.evidence)
        except ValueError as error:
            raise DataError(f"{PLACE}: {error}") from error
        dwell_bars = max(self.config.dwell_bars, float((1 / (1 - np.diagonal(self.transition))).max()))
        self.warmup = self.config.baseline_bars + math.ceil(FORGET_DWELLS * dwell_bars)
        self.warmup += math.ceil(FORGET_STEPS / gain) if gain > 0 else 0
        self._forget()

    def _forget(self) -> None:
        self._observer = self._observer.fresh()
        self._belief = self.stationary.copy()
        self._followed = np.append(self.stationary, 0.0)
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

        Weighted by ``evidence``, each row at the level that the rows before it left. Advances the memory of
        the observations and of the level, not the belief; rows with unknown columns are 0. The first rows,
        before anything is known, are NaN.
        """
        require_fitted(self, PLACE)
        observations = self._observer.update(features)
        out, _ = self._law.followed(observations, self._followed)
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
            "inverse_degrees": 1 / self.degrees,  # JSON knows no infinity
            "transition": self.transition,
            "gain": self.gain,
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
        k, f = detector.config.n_states, len(detector._observer.columns)
        transition, regime = saved.array("transition", (k, k)), saved.array("regime", (k,))
        check_chain(transition, f"{saved.path}: parameters.transition")
        if set(regime) != set(range(len(REGIME_NAMES))):
            raise DataError(f"{saved.path}: parameters.regime is {regime.tolist()}; each regime must occur")
        gain, inverse = float(saved.array("gain", ())), saved.array("inverse_degrees", (k,))
        if gain < 0 or (inverse < 0).any():
            raise DataError(f"{saved.path}: parameters.gain and inverse_degrees must not be negative")
        with np.errstate(divide="ignore"):
            degrees = 1 / inverse
        mean, covariance = saved.array("mean", (k, f)), saved.array("covariance", (k, f, f))
        stationary = saved.array("stationary", (k,))
        model = MarkovModel(np.full(k, 1 / k), transition, mean, covariance, degrees)
        detector._set(model, gain, regime.astype(np.int8), stationary)
        detector.fitted_until = saved.fitted_until
        return detector


def _estimate(observations: np.ndarray, loading: np.ndarray, config: HmmConfig) -> tuple[_Law, HmmFit]:
    # Every start runs a few iterations on the latest rows, with each view of the level; they are finished
    # from the one that foretells most on, until one is sound.
    known = np.flatnonzero(~np.isnan(observations[:, 0]))
    latest = slice(known[-config.start_rows :][0], None)
    views = [np.zeros(len(observations))]
    if config.gain > 0:
        views.append(_slow_level(observations, loading))
    starts, rejected, reason = [], 0, ""
    for start in range(config.n_starts):
        for view in views:
            rows, lengths = _strided((observations - view[:, None] * loading)[latest], config.stride_bars)
            try:
                fit = _climb(rows, lengths, _start(rows, config, start), config, config.start_iterations)
                law, foretold = _at_best_gain(fit.model, loading, observations[latest], config)
            except ValueError as error:  # a state without rows
                rejected, reason = rejected + 1, f"EM failed: {error}"
            else:
                worth = foretold if config.gain > 0 else fit.history[-1]
                starts.append((worth, -len(starts), fit.model, law))
    for _, _, model, law in sorted(starts, key=lambda one: one[:2], reverse=True):
        try:
            for _ in range(LEVEL_ROUNDS if config.gain > 0 else 1):
                level = law.followed(observations, law.memory())[1][:, LEVEL, None]
                rows, lengths = _strided(observations - level * loading, config.stride_bars)
                fit = _climb(rows, lengths, model, config, config.n_iterations)
                model = fit.model
                law, _ = _at_best_gain(model, loading, observations, config)
        except ValueError as error:
            rejected, reason = rejected + 1, f"EM failed: {error}"
            continue
        reason = _degenerate(law.model) or ""
        if not reason:
            history = fit.history
            gain = history[-1] - history[-2] if len(history) > 1 else math.inf
            converged = gain < config.tolerance * len(rows)
            return law, HmmFit(history[-1] / len(rows), len(history), converged, rejected)
        rejected += 1
    raise DataError(
        f"{PLACE}: no sound model in {config.n_starts} starts over {len(observations)} rows; the last one: "
        f"{reason}; give more rows, fewer states or other columns"
    )


def _start(rows: np.ndarray, config: HmmConfig, start: int) -> MarkovModel:
    # Rows are told apart by means over a fraction of a stay: single bars of different states overlap. Start 0
    # cuts volatility at its quantiles or, where direction is observed, cuts off the upper one and slices the
    # rest by direction; the others grow around random far-apart rows.
    k, stride = config.n_states, config.stride_bars
    n_levels = len(config.level_columns)
    span = 2 * int(config.dwell_bars / (2 * DWELLS_PER_SPAN * stride)) + 1
    smooth = centered_mean(rows, span)
    if start == 0:
        volatility = smooth[:, :n_levels].mean(axis=1)
        if config.observe_direction:
            n_named = n_levels + len(config.direction_columns)
            direction = smooth[:, n_levels:n_named].mean(axis=1)
            calm = volatility < np.quantile(volatility, 1 - 1 / k)
            slices = np.quantile(direction[calm], np.arange(1, k - 1) / (k - 1))
            member = np.where(calm, np.searchsorted(slices, direction), k - 1)
        else:
            member = np.searchsorted(np.quantile(volatility, np.arange(1, k) / k), volatility)
    else:
        random = stream(config.seed, "regimes", "hmm", start)
        centers = smooth[random.integers(len(smooth))][None]
        while len(centers) < k:
            nearest = ((smooth[:, None, :] - centers) ** 2).sum(axis=2).min(axis=1)
            pick = np.searchsorted(np.cumsum(nearest), random.random() * nearest.sum())
            centers = np.vstack([centers, smooth[min(int(pick), len(smooth) - 1)]])
        member = ((smooth[:, None, :] - centers) ** 2).sum(axis=2).argmin(axis=1)
    f = rows.shape[1]
    overall = np.cov(rows.T).reshape(f, f)
    means, covariances = [], []
    for state in range(k):
        own = rows[member == state]
        means.append(own.mean(axis=0) if len(own) else rows[start])
        # Half of the overall covariance keeps a start of a few rows open to its surroundings.
        covariances.append(0.5 * overall + 0.5 * (np.cov(own.T).reshape(f, f) if len(own) > 1 else overall))
    covariance = np.array(covariances)
    if config.covariance == "diag":
        covariance = covariance * np.eye(f)
    degrees = np.full(k, START_DEGREES if config.emission == "student" else np.inf)
    return MarkovModel(np.full(k, 1 / k), _believed(config), np.array(means), covariance, degrees)


def _believed(config: HmmConfig) -> np.ndarray:
    # The transition per stride that is expected a priori.
    stay = (1 - 1 / config.dwell_bars) ** config.stride_bars
    transition = np.full((config.n_states,) * 2, (1 - stay) / (config.n_states - 1))
    np.fill_diagonal(transition, stay)
    return transition


def _climb(
    rows: np.ndarray, lengths: np.ndarray, model: MarkovModel, config: HmmConfig, n_iterations: int
) -> EmFit:
    return FITTERS[config.fitter](
        rows,
        lengths,
        model,
        diagonal=config.covariance == "diag",
        transition_prior=1 + config.stickiness * len(rows) / config.n_states * _believed(config),
        n_iterations=n_iterations,
        tolerance=config.tolerance * len(rows),
    )


def _at_best_gain(
    model: MarkovModel, loading: np.ndarray, observations: np.ndarray, config: HmmConfig
) -> tuple[_Law, float]:
    # The law whose level follows, or stays, as foretells the rows better, and how well it does, nats.
    per_bar = replace(model, transition=_per_bar(model.transition, config.stride_bars))
    best = None
    for gain in sorted({0.0, config.gain}):
        law = _Law(per_bar, gain, loading, config.evidence)
        foretold = float(law.followed(observations, law.memory())[1][:, PREDICTIVE].sum())
        if best is None or foretold > best[1]:
            best = law, foretold
    return best


def _slow_level(observations: np.ndarray, loading: np.ndarray) -> np.ndarray:
    # A view of the level that knows the whole training period: the mean of the log levels around each row.
    known = np.flatnonzero(~np.isnan(observations[:, 0]))
    levels = loading > 0
    level = (observations[known][:, levels] / loading[levels]).mean(axis=1)
    around = np.interp(np.arange(len(observations)), known, centered_mean(level, VIEW_BARS))
    return around - around.mean()


def _state_means(law: _Law, observations: np.ndarray, values: np.ndarray) -> np.ndarray:
    # Mean of a column over the training rows of each state, float64 (k,), weighted by filtered probabilities.
    density, _ = law.followed(observations, law.memory())
    hidden = np.empty_like(density)
    forward_filter(density * law.evidence, law.model.transition, law.stationary.copy(), hidden)
    known = np.isfinite(values) & ~np.isnan(observations[:, 0])
    return values[known] @ hidden[known] / hidden[known].sum(axis=0)


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


def _degenerate(model: MarkovModel) -> str | None:
    # Says what is wrong with a fitted model, or None.
    transition = model.transition
    if not all(np.isfinite(array).all() for array in (model.mean, model.covariance, transition)):
        return "its parameters are not finite"
    deviation = np.sqrt(np.diagonal(model.covariance, 0, 1, 2).min())
    if not deviation >= MIN_DEVIATION:
        return f"a state has shrunk to {deviation:.2g} standard deviations"
    dwell_bars = 1 / (1 - np.diagonal(transition).min())
    if dwell_bars < MIN_DWELL_BARS:
        return f"a state lasts {dwell_bars:.1f} bars"
    share = stationary(transition).min()
    return f"a state holds {share:.1%} of the time" if share < MIN_SHARE else None

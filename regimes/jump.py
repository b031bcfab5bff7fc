"""``jump``: a statistical jump model, fitted by jumpmodels and followed online by our own recursion.

A jump model is clustering with persistence: each row belongs to the nearest of a few centers, but changing
the center costs a penalty. jumpmodels finds the centers and does nothing else here: its ``predict`` reads the
best path backwards from the last row, and changes past labels once the future is known.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from compute.seeds import stream
from configs.load import Config, ConfigError, validate
from market.table import DataError, Table
from regimes.chain import chain_of_labels, check_chain
from regimes.detector import DETECTORS, name_states, require_fitted, save_detector, saved_detector
from regimes.jump_kernels import confidence, follow_jumps
from regimes.observations import Observer
from regimes.regime import REGIME_NAMES, RegimeProbabilities
from regimes.season import N_SEASON, hours_of_week, seasonal

PLACE = "detector jump"
N_STATES = len(REGIME_NAMES)
MIN_ROWS = 600
MIN_SHARE = 0.02  # a state with less of the training rows is an outlier, not a regime
MIN_DWELL_BARS = 6.0  # a state that is left at once is noise
MIN_DISTANCE = 0.1  # standard deviations between two centers; closer ones are one state told twice
CLIP = 3.0  # standard deviations; a dead bar or a flash crash must not outweigh the penalty by itself
START_PENALTY = 3.0  # of the starts, where none is given: half the variance, a change every two weeks
DESCENTS = 100  # steps of jumpmodels, at most
TOLERANCE = 2e-3  # standard deviations that no center moved in the last round
# Share of the gain by which the level goes back to zero. Less, and on real bars the level takes over a whole
# regime's place for months and the states change their meaning; more, and it cannot follow the bars.
FADE = 0.3
FORGET_STEPS = 24  # of the gain, until what the level began with is below 1e-6 (measured, see the tests)
SHARPNESS = (1e-3, 1e3)


class JumpConfig(Config):
    """What the model observes, what a jump costs, and how it is fitted."""

    level_columns: tuple[str, ...] = Field(
        ("range_1",), min_length=1, description="Positive volatility levels; their mean names volatile."
    )
    direction_columns: tuple[str, ...] = Field(
        ("efficiency_72", "variance_ratio_96"),
        min_length=1,
        description="Larger is more directed; their mean names trending.",
    )
    direction_weight: float = Field(
        0.2,
        gt=0,
        le=10,
        description="Weight of a direction column's deviation beside that of a level: columns over windows "
        "say the same thing for many bars, and full weight would count it each time.",
    )
    baseline_bars: int = Field(
        2160,
        ge=0,
        le=100_000,
        description="Levels are relative to their mean over these bars, a quarter of hours; 0: absolute. "
        "Half a year is better where nothing drifts, and worse where volatility swings within a year "
        "(synthetic markets, seeds 100 to 102).",
    )
    level_gain: float = Field(
        0.005,
        ge=0,
        le=0.05,
        description="How fast the common level follows the bars, per bar and residual from the state's "
        "center: it mends what the baseline takes for level while one regime lasts. 0: baseline only.",
    )
    penalty: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Cost of a jump, half squared standard deviations; not given: learned from the training "
        "rows, see caution.",
    )
    caution: float = Field(
        1.2,
        gt=0,
        le=100,
        description="A learned penalty is this times what makes the jump model the most probable path of a "
        "Markov chain with as many jumps: bars of one regime are more alike than independent ones. Of 1, 1.2 "
        "and 1.4 the best mean accuracy on synthetic markets (seeds 100 to 102).",
    )
    n_starts: int = Field(5, ge=1, le=100, description="k-means++ starts; the cheapest one is finished.")
    start_rows: int = Field(6000, ge=500, description="The latest training rows that starts are tried on.")
    n_rounds: int = Field(10, ge=1, le=1000, description="Rounds of centers, season and level at most.")
    max_rows: int = Field(
        30_000, ge=1000, description="The latest training rows that are fitted; jumpmodels takes 4 us a row."
    )
    seed: int = Field(7, ge=0, description="Root of the random starts.")

    @model_validator(mode="after")
    def _different(self) -> Self:
        columns = self.level_columns + self.direction_columns
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]} is named twice; a model observes each column once")
        return self


@dataclass(frozen=True)
class JumpFit:
    """How a fit ended.

    Parameters
    ----------
    cost : float
        Of the best path, per training row: distances and jumps.
    dwell_bars : float
        Mean stay of that path in a state, bars.
    n_rounds : int
    converged : bool
        Whether no center moved any more.
    n_rejected : int
        Starts that were rejected as degenerate on the way.
    """

    cost: float
    dwell_bars: float
    n_rounds: int
    converged: bool
    n_rejected: int


@dataclass(frozen=True)
class _Path:
    # Centers, the best path through the training rows with hindsight (jumpmodels' labels_), and its cost.
    centers: np.ndarray
    label: np.ndarray
    cost: float

    @property
    def jumps(self) -> int:
        return int(np.count_nonzero(np.diff(self.label)))


@DETECTORS.register("jump")
class JumpDetector:
    """How much cheaper each state is than the others, on the cheapest path up to each row.

    Observations are standardised columns (see ``regimes.observations``): the range of each bar, relative to
    its baseline, less the hour of the week and less a level common to all states that follows the bars
    slowly; and with little weight, how directed the moves were. The label of a row is the state in which the
    cheapest path ends there: that of jumpmodels' ``predict_online``. Probabilities are the softmax of minus
    the values of the recursion, at the sharpness that best foretells the hindsight path of the training rows:
    they are calibrated against what the model itself says later, not against a truth. An unknown row costs
    nothing and weighs jumps only; before the first known row the output is NaN. Row t uses rows up to and
    including t.

    Attributes
    ----------
    centers : float64 (3, f)
        Of the states, in the order of their names.
    penalty : float
        Cost of a jump.
    sharpness : float
        Nats per unit of cost.
    season : float64 (N_SEASON, number of levels)
        Weights of the hour and the weekend, standard deviations.
    renewal : int
        Longest stretch of training rows before some state was so far ahead that the past no longer mattered.
    chain : float64 (3, 3)
        Counted on the labels of the training rows.
    summary : JumpFit or None
        How the fit ended; None for a loaded detector.

    Parameters
    ----------
    config : JumpConfig
        Defaults if not given.

    Source: Nystrup, Lindstrom, Madsen (2020), Expert Systems with Applications 150; Shu, Yu, Mulvey (2024),
    Journal of Asset Management 25, for the online labels.
    """

    Config = JumpConfig

    def __init__(self, config: JumpConfig | None = None) -> None:
        self.config = config or JumpConfig()
        config = self.config
        self.columns = config.level_columns + config.direction_columns
        self.warmup = config.baseline_bars
        self.fitted_until: int | None = None
        self.summary: JumpFit | None = None
        self._n_levels = len(config.level_columns)
        self._observer = Observer(config.level_columns, config.direction_columns, config.baseline_bars, PLACE)
        self.chain = np.full((N_STATES, N_STATES), 1 / N_STATES)
        self._memory = np.empty(0)

    def fit(self, features: Table) -> Self:
        """Learn from training rows and return self.

        Raises
        ------
        DataError
            If there are too few known rows, a column does not vary, or every start ends degenerate.
        ConfigError
            If the package jumpmodels is not installed.
        """
        config = self.config
        self._observer.fit(features, MIN_ROWS)
        rows = slice(max(0, len(features) - config.max_rows), None)
        seen = self._observe(self._observer.fresh(), features)[rows]
        known = ~np.isnan(seen[:, 0])
        if known.sum() < MIN_ROWS:
            raise DataError(
                f"{PLACE}: {known.sum()} of the latest {known.size} training rows are known; fitting needs "
                f"at least {MIN_ROWS}"
            )
        hours = hours_of_week(features.time[rows])[known]
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # BLAS splits sums by threads, and a fit must not depend on their number
            model = _Estimation(np.ascontiguousarray(seen[known]), hours, config).best()
        self._set(*model.parameters())
        self.summary = model.summary
        self.fitted_until = int(features.time[-1])
        self.chain = chain_of_labels(self.fresh().update(features))
        return self

    def _set(
        self, centers: np.ndarray, penalty: float, sharpness: float, season: np.ndarray, renewal: int
    ) -> None:
        self.centers, self.penalty, self.sharpness = centers, penalty, sharpness
        self.season, self.renewal = season, renewal
        gain = self.config.level_gain
        level = int(np.ceil(FORGET_STEPS / gain)) if gain > 0 else 0
        self.warmup = self.config.baseline_bars + level + 2 * renewal
        self._forget()

    def _forget(self) -> None:
        self._observer = self._observer.fresh()
        self._memory = _blank(self._n_levels)

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        if self.fitted_until is not None:
            other.__dict__.update(self.__dict__)
            other._forget()
        return other

    def _observe(self, observer: Observer, features: Table) -> np.ndarray:
        seen = observer.update(features, clip=CLIP)
        seen[:, self._n_levels :] *= self.config.direction_weight
        return seen

    def values(self, features: Table) -> tuple[np.ndarray, np.ndarray]:
        """Return what each state has cost more than the cheapest, and the observations it was judged by.

        Advances the memory as ``update`` does.

        Returns
        -------
        float64 (n, 3)
            Half squared standard deviations; NaN before the first known row.
        float64 (n, f)
            Standardised, weighted, less season and level; NaN in unknown rows.
        """
        require_fitted(self, PLACE)
        seen = self._observe(self._observer, features)
        seen[:, : self._n_levels] -= seasonal(hours_of_week(features.time), self.season)
        return _followed(seen, self.centers, self.penalty, self.config.level_gain, self._memory)

    def update(self, features: Table) -> RegimeProbabilities:
        """Return regime probabilities, one row per row: NaN before the first known row."""
        values, _ = self.values(features)
        out = np.empty(values.shape)
        confidence(values, self.sharpness, out)
        return RegimeProbabilities(features.time, out, REGIME_NAMES)

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, as JSON."""
        require_fitted(self, PLACE)
        parameters = {
            **self._observer.parameters(),
            "centers": self.centers,
            "penalty": [self.penalty],
            "sharpness": [self.sharpness],
            "season": self.season,
            "renewal": [self.renewal],
            "chain": self.chain,
        }
        save_detector(folder, "jump", self, parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If the file is missing or damaged.
        """
        saved = saved_detector(folder, "jump")
        detector = cls(validate(JumpConfig, saved.config, str(saved.path)))
        detector._observer = detector._observer.restored(saved.array)
        n_levels = detector._n_levels
        centers = saved.array("centers", (N_STATES, len(detector.columns)))
        level = centers[:, :n_levels].mean(axis=1)
        if level.argmax() != N_STATES - 1:
            raise DataError(
                f"{saved.path}: parameters.centers have levels {level.tolist()}; the last state is the "
                f"volatile one and must have the highest"
            )
        penalty, sharpness, renewal = (
            float(saved.array(name, (1,))[0]) for name in ("penalty", "sharpness", "renewal")
        )
        for name, value in (("penalty", penalty), ("sharpness", sharpness)):
            if value <= 0:
                raise DataError(f"{saved.path}: parameters.{name} is {value}; it must be positive")
        if renewal < 0 or renewal != int(renewal):
            raise DataError(f"{saved.path}: parameters.renewal is {renewal}; it must be a number of bars")
        chain = saved.array("chain", (N_STATES, N_STATES))
        detector.chain = check_chain(chain, f"{saved.path}: parameters.chain")
        detector._set(centers, penalty, sharpness, saved.array("season", (N_SEASON, n_levels)), int(renewal))
        detector.fitted_until = saved.fitted_until
        return detector


class _Estimation:
    # One fit: rows (n, f) without gaps, the hours they belong to, and what is being learned from them.

    def __init__(self, seen: np.ndarray, hours: np.ndarray, config: JumpConfig) -> None:
        self.seen, self.hours, self.config = seen, hours, config
        self.n_levels = len(config.level_columns)
        self.penalty = config.penalty or START_PENALTY
        self.season = np.zeros((N_SEASON, self.n_levels))
        self.path: _Path | None = None
        self.summary: JumpFit | None = None

    def best(self) -> "_Estimation":
        # Starts are tried on the latest rows, and finished from the cheapest on until one is sound.
        rows = self.seen[-self.config.start_rows :]
        starts, rejected, reason = [], 0, ""
        for start in range(self.config.n_starts):
            seed = int(stream(self.config.seed, "regimes", "jump", start).integers(2**32))
            path = _descent(rows, self.penalty, DESCENTS, seed=seed)
            reason = _degenerate(path)
            if reason:
                rejected += 1
            else:
                starts.append((path.cost, start, path.centers))
        for _, _, centers in sorted(starts, key=lambda one: one[:2]):
            attempt = _Estimation(self.seen, self.hours, self.config)
            n_rounds, converged = attempt.climb(centers)
            reason = _degenerate(attempt.path)
            if not reason:
                n, jumps = len(self.seen), attempt.path.jumps
                attempt.summary = JumpFit(
                    attempt.path.cost / n, n / (jumps + 1), n_rounds, converged, rejected
                )
                return attempt
            rejected += 1
        raise DataError(
            f"{PLACE}: no sound model in {self.config.n_starts} starts over {len(self.seen)} rows; the last "
            f"one: {reason}; give more rows, another penalty or other columns"
        )

    def climb(self, centers: np.ndarray) -> tuple[int, bool]:
        # What is learned depends on each other: the level and the season on the centers, these on what is
        # left of the rows, the penalty on both. In turns, from rough to fine.
        converged = False
        for n_rounds in range(1, self.config.n_rounds + 1):
            seen = self._deseasonalised()
            _, rows = self._follow(seen, centers)
            self.path = _descent(rows, self.penalty, 1, centers)
            if _degenerate(self.path):
                return n_rounds, False
            # Centers and level can rise together without a difference to the rows; the level is what is left
            # over on average, so that it may begin at zero.
            moved = self.path.centers + (seen - rows).mean(axis=0) - centers
            centers = centers + moved
            self._learn(rows)
            converged = bool(np.abs(moved).max() < TOLERANCE)
            if converged:
                break
        _, rows = self._follow(self._deseasonalised(), centers)
        self.path = _descent(rows, self.penalty, DESCENTS, centers)
        return n_rounds, converged

    def _deseasonalised(self) -> np.ndarray:
        seen = self.seen.copy()
        seen[:, : self.n_levels] -= seasonal(self.hours, self.season)
        return seen

    def _follow(self, seen: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _followed(seen, centers, self.penalty, self.config.level_gain, _blank(self.n_levels))

    def _learn(self, rows: np.ndarray) -> None:
        levels = slice(0, self.n_levels)
        residual = rows[:, levels] - self.path.centers[self.path.label, levels]
        columns = np.column_stack([self.hours, np.ones(len(rows))])
        self.season = self.season + np.linalg.lstsq(columns, residual, rcond=None)[0][:N_SEASON]
        if self.config.penalty is None:
            # A Markov chain with Gaussian states of this variance pays, per change, the log odds of staying.
            variance = (residual**2).mean()
            leaving = max(self.path.jumps, 1) / (len(rows) - 1)
            odds = (1 - leaving) / leaving * (N_STATES - 1)
            self.penalty = float(self.config.caution * variance * np.log(odds))

    def parameters(self) -> tuple[np.ndarray, float, float, np.ndarray, int]:
        centers = self.path.centers
        volatility = centers[:, : self.n_levels].mean(axis=1)
        regime = name_states(volatility, centers[:, self.n_levels :].mean(axis=1))
        centers = np.ascontiguousarray(centers[np.argsort(regime)])  # with three states, one of each name
        values, _ = self._follow(self._deseasonalised(), centers)
        sharpness = _sharpness(values, regime[self.path.label])
        return centers, self.penalty, sharpness, self.season, _renewal(values, self.penalty)


def _blank(n_levels: int) -> np.ndarray:
    return np.append(np.full(N_STATES, np.nan), np.zeros(n_levels))


def _followed(
    seen: np.ndarray, centers: np.ndarray, penalty: float, gain: float, memory: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    values, leveled = np.empty((len(seen), N_STATES)), np.empty(seen.shape)
    n_levels = memory.size - N_STATES
    follow_jumps(seen, centers, n_levels, penalty, gain, FADE * gain, memory, leveled, values)
    return values, leveled


def _descent(
    rows: np.ndarray, penalty: float, n_steps: int, centers: np.ndarray | None = None, seed: int = 0
) -> _Path:
    # jumpmodels' coordinate descent, from given centers or from one k-means++ start. States come back in
    # order of their first column: in its own order, that of their frequency, they would change places.
    model = _jump_model(
        n_components=N_STATES,
        jump_penalty=penalty,
        n_init=1 if centers is None else 0,
        max_iter=n_steps,
        random_state=seed,
    )
    if centers is not None:
        model.centers_ = centers  # which jumpmodels takes for one more start
    with np.errstate(divide="ignore", invalid="ignore"):  # it divides by the rows of empty states
        model.fit(rows)
    order = np.argsort(model.centers_[:, 0])
    label = np.argsort(order)[np.asarray(model.labels_)]
    return _Path(np.ascontiguousarray(model.centers_[order]), label, float(model.val_))


def _jump_model(**settings: Any) -> Any:
    try:
        # It changes numpy's and pandas' settings for the whole process when it is imported.
        import pandas

        width = pandas.get_option("display.width")
        with np.errstate(), pandas.option_context("display.width", width):
            from jumpmodels.jump import JumpModel  # takes 1 s to import, with pandas and scikit-learn
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{PLACE} needs the package jumpmodels; pip install 'regime-conductor[regimes]'"
        ) from error
    return JumpModel(**settings)


def _degenerate(path: _Path) -> str:
    # Says what is wrong with a fitted model, or nothing.
    if not np.isfinite(path.centers).all():
        return "a state is empty"
    share = np.bincount(path.label, minlength=N_STATES).min() / path.label.size
    if share < MIN_SHARE:
        return f"a state holds {share:.1%} of the rows"
    away = np.linalg.norm(path.centers[:, None] - path.centers[None], axis=2)
    away = away[~np.eye(N_STATES, dtype=bool)].min()
    if away < MIN_DISTANCE:
        return f"two centers are {away:.2g} standard deviations apart"
    dwell = path.label.size / (path.jumps + 1)
    return f"a state lasts {dwell:.1f} bars" if dwell < MIN_DWELL_BARS else ""


def _sharpness(values: np.ndarray, label: np.ndarray) -> float:
    # Maximum likelihood of the labels under softmax(-sharpness * values), which is concave in the sharpness:
    # its slope falls, from the surplus of the mean value over that of the labels.
    from scipy.optimize import brentq

    paid = values[np.arange(len(label)), label].mean()
    out = np.empty(values.shape)

    def slope(log_sharpness: float) -> float:
        confidence(values, float(np.exp(log_sharpness)), out)
        return float((out * values).sum(axis=1).mean() - paid)

    low, high = np.log(SHARPNESS)
    if slope(high) >= 0:
        return SHARPNESS[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-6))) if slope(low) > 0 else SHARPNESS[0]


def _renewal(values: np.ndarray, penalty: float) -> int:
    # Where every other state is a whole penalty behind, all paths go on from the cheapest one: nothing that
    # was before matters any more. Returns the longest stretch without such a row.
    behind = np.sort(values, axis=1)[:, 1] >= penalty
    rows = np.flatnonzero(behind)
    return int(np.diff(rows, prepend=-1, append=len(values)).max())

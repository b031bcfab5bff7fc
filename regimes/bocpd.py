"""``bocpd``: Bayesian online change points, as a detector of regimes and as an alarm for transitions.

Other detectors ask which regime it is. This one asks first when the run of bars began that the present one
belongs to, and only then of which regime such a run is.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config, validate
from market.table import DataError, Table
from regimes.chain import check_chain, counted_chain
from regimes.detector import (
    DETECTORS,
    require_fitted,
    save_detector,
    saved_detector,
    select_columns,
)
from regimes.observations import Observer
from regimes.regime import REGIME_NAMES, RegimeProbabilities
from regimes.run_length_kernels import (
    AGE,
    CHANGE,
    DRIFT,
    EVIDENCE,
    GAIN,
    HEIGHT,
    LEVEL_WEIGHT,
    MEAN,
    MOVE_WEIGHT,
    N_JOURNAL,
    N_SUMS,
    N_TABLE,
    REGIME,
    RUN,
    advance,
)
from regimes.season import N_SEASON, hours_of_week, learned_season, seasonal
from regimes.switching import named_order

PLACE = "detector bocpd"
ALARM_COLUMNS = ("change_probability", "expected_run_bars")
MIN_ROWS = 1000
CLIP = 3.0  # standard deviations; one wild bar must not decide alone
SMOOTH_BARS = 25  # span of the centred mean whose quantiles are first guesses of the levels (likewise)
START_QUANTILES = ((0.2, 0.55, 0.9), (0.1, 0.5, 0.9), (0.3, 0.7, 0.95))
# Of segmenting and estimating. Double as many change up to 2 % of the training rows' labels, but it does not
# settle everywhere: after a seventh, 8 % of BTC's differ.
N_ROUNDS = 6
SAME_REGIME = 0.1  # probability that a run is followed by another one of its regime, at another level
MIN_SHARE = 0.02  # a regime with less of the training rows is an outlier
MIN_SPREAD = 0.05  # of the levels of a regime's runs; with a handful of runs it could come out as none
MIN_NOISE = 0.2  # of a bar around its run: narrower ones would make the density of an outlier zero
MOST_ECHO = 0.9
# Two starts differ by less than 1e-6 after four of the longest run; after so many they mostly have the same
# bits (measured, on real markets and every scenario; the latest to meet took 24).
FORGET_RUNS = 16


class BocpdConfig(Config):
    """What a run is taken to be, and when the alarm calls a change recent."""

    mean_run_bars: float = Field(
        200.0, ge=2, le=10_000, description="Expected length of a run, bars; its inverse is the hazard."
    )
    max_run_bars: int = Field(
        240,
        ge=8,
        le=5000,
        description="Runs of so many bars or more are one, and are judged by their last bars, this many.",
    )
    alarm_bars: int = Field(
        24, ge=1, le=5000, description="The alarm tells how likely a change within so many bars is."
    )
    baseline_bars: int = Field(
        4320,
        ge=0,
        le=100_000,
        description="Levels are relative to their mean over these bars, half a year of hours; 0: absolute.",
    )
    max_rows: int = Field(60_000, ge=MIN_ROWS, description="The latest training rows that are fitted.")

    @model_validator(mode="after")
    def _remembered(self) -> Self:
        if self.alarm_bars > self.max_run_bars:
            raise ValueError(
                f"alarm_bars is {self.alarm_bars}; it must not be above max_run_bars, {self.max_run_bars}"
            )
        return self


@dataclass(frozen=True, eq=False)
class RunLaw:
    """What runs are like, in standard deviations of the training rows; one entry per regime.

    Parameters
    ----------
    level, spread : float64 (k,)
        Mean and standard deviation of the level that a run draws when it begins.
    noise : float64 (k,)
        Standard deviation of a bar's level given the run and the bar before.
    drift : float64 (k,)
        Standard deviation of the drift that a run draws when it begins: large in a regime that trends.
    echo : float64 (1,)
        Autocorrelation at one bar of the level within a run.
    share : float64 (k,)
        Share of the training rows.
    """

    level: np.ndarray
    spread: np.ndarray
    noise: np.ndarray
    drift: np.ndarray
    echo: np.ndarray
    share: np.ndarray

    @classmethod
    def read(cls, array: Callable[[str, tuple[int, ...]], np.ndarray]) -> Self:
        """Return a saved law; ``array(name, shape)`` reads one of its arrays."""
        k = len(REGIME_NAMES)
        return cls(*(array(one.name, (1,) if one.name == "echo" else (k,)) for one in fields(cls)))

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return its arrays by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def ordered(self, order: np.ndarray) -> Self:
        """Return the law with its regimes in another order."""
        return type(self)(**{k: v if k == "echo" else v[order] for k, v in self.arrays().items()})

    def table(self, max_run_bars: int) -> np.ndarray:
        """Return what runs foretell of their next bar, float64 (k, N_TABLE, max_run_bars + 1).

        A run of n bars has a normal posterior of its level: the prior's precision plus that of an
        autoregression's n bars. The posterior of its drift is that of n independent bars of variance one.
        """
        echo, n = self.echo[0], np.arange(max_run_bars + 1)
        variance = self.noise[:, None] ** 2
        prior = variance / self.spread[:, None] ** 2  # precisions in units of the noise's
        precision = prior + np.where(n > 0, (1 - echo**2) + (n - 1) * (1 - echo) ** 2, 0.0)
        # The first bar of a run has no bar before it: the stationary law of the autoregression.
        heard, own = np.where(n > 0, 1 - echo, 1.0), np.where(n > 0, 1.0, 1 / (1 - echo**2))
        level_variance = variance * (own + heard**2 / precision)
        ratio = self.drift[:, None] ** 2
        move_variance = 1 + ratio / (1 + n * ratio)
        table = np.empty((self.level.size, N_TABLE, n.size))
        table[:, MEAN] = heard * prior * self.level[:, None] / precision
        table[:, GAIN] = heard / precision
        table[:, DRIFT] = ratio / (1 + n * ratio)
        table[:, LEVEL_WEIGHT] = 0.5 / level_variance
        table[:, MOVE_WEIGHT] = 0.5 / move_variance
        table[:, HEIGHT] = 1 / (2 * math.pi * np.sqrt(level_variance * move_variance))
        return table

    def successor(self) -> np.ndarray:
        """Return P(regime of a new run | regime of the run before it), float64 (k, k)."""
        k = self.level.size
        other = (1 - SAME_REGIME) / (k - 1)
        return np.full((k, k), other) + (SAME_REGIME - other) * np.eye(k)


@DETECTORS.register("bocpd")
class BocpdDetector:
    """Filtered posterior of the run length, and of the regime of the run.

    A run begins with a constant hazard. It draws its regime, then its own level of volatility and its own
    drift from the normal laws of that regime, and keeps them. Bars are read by

    * the log range, less the hour of the week, relative to its mean over half a year: normal around the run's
      level, with autocorrelated noise (volatility clusters within a run, too);
    * the body as a share of the range: normal around the run's drift, which only a directed run has.

    All posteriors of a run are conjugate, so the recursion is exact but for its two ends: runs longer than
    ``max_run_bars`` are judged by their last bars, and masses below 1e-12 are nothing. The probability of a
    regime is the mass of all runs of that regime.

    ``fit`` segments the training rows with hindsight: back from the last row, each most probable run hands
    over to the run before it. Laws of levels and drifts are moments of the segments, in rounds, from three
    starting points, of which the one that foretells the training rows best is kept. Names go by level first,
    then by how directed runs are; where that is not beyond doubt, the calmer regime is ranging.

    A bar without range says nothing and is unknown. Unknown rows repeat the row before: runs grow by known
    bars. Row t uses rows up to and including t.

    Attributes
    ----------
    law : RunLaw or None
        What was learned; None before ``fit``.
    chain : float64 (3, 3)
        What followed what, bar by bar, in the segments of the training rows.

    Parameters
    ----------
    config : BocpdConfig
        Defaults if not given.

    Source: Adams and MacKay (2007), arXiv 0710.3742; Fearnhead and Liu (2007), JRSS B 69, for runs that draw
    from one of several models and for the segmentation backwards.
    """

    Config = BocpdConfig
    columns = ("range_1", "body_1")

    def __init__(self, config: BocpdConfig | None = None) -> None:
        self.config = config or BocpdConfig()
        longest = max(self.config.max_run_bars, self.config.mean_run_bars)
        self.warmup = self.config.baseline_bars + FORGET_RUNS * math.ceil(longest)
        self.fitted_until: int | None = None
        self.law: RunLaw | None = None
        self.chain = np.full((len(REGIME_NAMES),) * 2, 1 / len(REGIME_NAMES))
        self._season, self._center = np.zeros((2, N_SEASON))
        self._observer = Observer(self.columns[:1], self.columns[1:], self.config.baseline_bars, PLACE)
        self._table = self._memory = np.empty(0)

    def fit(self, features: Table) -> Self:
        """Learn from training rows and return self.

        Raises
        ------
        DataError
            If there are too few known rows, a column does not vary, or no start ends with three regimes.
        """
        from threadpoolctl import threadpool_limits

        rows = features[max(0, len(features) - self.config.max_rows) :]
        with threadpool_limits(1):  # BLAS splits sums by threads, and a fit must not depend on their number
            self._season, self._center = _season(rows)
            self._observer.fit(self._calmed(rows), MIN_ROWS)
            seen = self._observer.fresh().update(self._calmed(rows), CLIP)
            law, label = _estimate(seen[~np.isnan(seen[:, 0])], self.config)
        self.chain = counted_chain(label, len(REGIME_NAMES))
        self._set(law)
        self.fitted_until = int(features.time[-1])
        return self

    def _set(self, law: RunLaw) -> None:
        self.law = law
        self._table = law.table(self.config.max_run_bars)
        self._forget()

    def _forget(self) -> None:
        self._observer = self._observer.fresh()
        self._memory = np.zeros((len(REGIME_NAMES) + N_SUMS, self.config.max_run_bars))

    def _calmed(self, features: Table) -> Table:
        # The columns with the hour of the week taken out of the range; a bar without range is unknown.
        span, body = select_columns(features, self.columns, PLACE).T
        away = hours_of_week(features.time) - self._center
        calmed = span * np.exp(-seasonal(away, self._season))
        return Table(features.time, np.column_stack([np.where(span > 0, calmed, np.nan), body]), self.columns)

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        if self.fitted_until is not None:
            other.__dict__.update(self.__dict__)
            other._forget()
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return filtered regime probabilities, one row per row: NaN before the first known row."""
        return RegimeProbabilities(features.time, self._advance(features)[0], REGIME_NAMES)

    def alarm(self, features: Table) -> Table:
        """Return the transition alarm, one row per row: NaN before the first known row.

        Advances the memory as ``update`` does: give each row to one of the two, once.

        Returns
        -------
        Table
            ``change_probability``, 0..1: a run began within the last ``alarm_bars`` known bars, this one
            included. The beginning of the stream is no change. ``expected_run_bars``: expected length of the
            present run in known bars, where every longer one counts as ``max_run_bars``.
        """
        journal = self._advance(features)[1]
        return Table(features.time, journal[:, [CHANGE, AGE]], ALARM_COLUMNS)

    def log_likelihood(self, features: Table) -> np.ndarray:
        """Return float64 (n,): log density of each row given all rows before it, nats.

        In standardized columns; unknown rows 0, NaN before the first known row. Advances the memory as
        ``update`` does.
        """
        return self._advance(features)[1][:, EVIDENCE]

    def _advance(self, features: Table) -> tuple[np.ndarray, np.ndarray]:
        require_fitted(self, PLACE)
        seen = self._observer.update(self._calmed(features), CLIP)
        return _filtered(seen, self.law, self._table, self.config, self._memory)

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, as JSON."""
        require_fitted(self, PLACE)
        learned = {"season": self._season, "center": self._center, "chain": self.chain}
        parameters = {**self._observer.parameters(), **learned, **self.law.arrays()}
        save_detector(folder, "bocpd", self, parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If the file is missing or damaged.
        """
        saved = saved_detector(folder, "bocpd")
        detector = cls(validate(BocpdConfig, saved.config, str(saved.path)))
        detector._observer = detector._observer.restored(saved.array)
        detector._season, detector._center = (saved.array(one, (N_SEASON,)) for one in ("season", "center"))
        chain = saved.array("chain", (len(REGIME_NAMES),) * 2)
        detector.chain = check_chain(chain, f"{saved.path}: parameters.chain")
        law = RunLaw.read(saved.array)
        _check(law, saved.path)
        detector._set(law)
        detector.fitted_until = saved.fitted_until
        return detector


class Alarm(NamedTuple):
    """One alarm: its row, its time (nanoseconds UTC, bar close), and the change probability there."""

    row: int
    time: int
    probability: float


def alarms(table: Table, threshold: float, refractory_bars: int) -> tuple[Alarm, ...]:
    """Return the alarms of a table, in order.

    An alarm is a row whose change probability reaches the threshold, at least ``refractory_bars`` rows after
    the alarm before it. A probability that stays above it therefore alarms again.

    Parameters
    ----------
    table : Table
        With a column ``change_probability``, see :meth:`BocpdDetector.alarm`; unknown rows are no alarms.
    threshold : float
        0..1.
    refractory_bars : int
        At least 1.
    """
    probability = table.column(ALARM_COLUMNS[0])
    found: list[Alarm] = []
    for row in np.flatnonzero(probability >= threshold):
        if not found or row - found[-1].row >= refractory_bars:
            found.append(Alarm(int(row), int(table.time[row]), float(probability[row])))
    return tuple(found)


def _filtered(
    observations: np.ndarray, law: RunLaw, table: np.ndarray, config: BocpdConfig, memory: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # Regime probabilities and the journal of each row; advances the memory.
    out, journal = np.empty((len(observations), law.level.size)), np.empty((len(observations), N_JOURNAL))
    hazard, echo = 1 / config.mean_run_bars, float(law.echo[0])
    advance(
        observations, table, law.successor(), law.share, hazard, echo, config.alarm_bars, memory, out, journal
    )
    return out, journal


def _season(rows: Table) -> tuple[np.ndarray, np.ndarray]:
    span = select_columns(rows, BocpdDetector.columns, PLACE)[:, 0]
    known = np.isfinite(span) & (span > 0)
    if known.sum() < MIN_ROWS:  # the observer refuses them in a better sentence
        return np.zeros(N_SEASON), np.zeros(N_SEASON)
    return learned_season(rows.time[known], np.log(span[known]))


def _moving_mean(values: np.ndarray, span: int) -> np.ndarray:
    return np.convolve(values, np.full(span, 1 / span), "valid")


def _estimate(seen: np.ndarray, config: BocpdConfig) -> tuple[RunLaw, np.ndarray]:
    # The law and the regime of each known row, with hindsight. Starts that lose a regime come last.
    found = []
    for quantiles in START_QUANTILES:
        law = _start(seen[:, 0], np.array(quantiles))
        for _ in range(N_ROUNDS):
            law = _moments(seen, _segments(seen, law, config)[0], law)
        segments, evidence = _segments(seen, law, config)
        share = np.bincount(segments.regime, segments.length, len(REGIME_NAMES)) / len(seen)
        sound = min(share.min(), law.share.min()) >= MIN_SHARE
        found.append((sound, evidence, law, segments))
    sound, _, law, segments = max(found, key=lambda one: one[:2])
    if not sound:
        raise DataError(
            f"{PLACE}: no three regimes in {len(seen)} training rows: the likeliest of "
            f"{len(START_QUANTILES)} starts found {np.unique(segments.regime).size} in "
            f"{len(segments.length)} run(s); give more rows, or a shorter mean_run_bars"
        )
    order = _naming(seen, segments, law)
    return law.ordered(order), np.repeat(np.argsort(order)[segments.regime], segments.length)


def _naming(seen: np.ndarray, segments: "_Segments", law: RunLaw) -> np.ndarray:
    # Which state is ranging, trending and volatile. The variance ratio over whole runs tells how directed
    # they are: squared sums of their moves over the number of bars, one where moves are independent.
    square = np.add.reduceat(seen[:, 1], segments.first) ** 2
    n = np.array([segments.length[segments.regime == r].sum() for r in range(law.level.size)])
    ratio = np.array([square[segments.regime == r].sum() for r in range(law.level.size)]) / n
    off = square - ratio[segments.regime] * segments.length
    error = np.sqrt([(off[segments.regime == r] ** 2).sum() for r in range(law.level.size)]) / n
    return named_order(law.level, ratio, error)[0]


def _start(level: np.ndarray, quantiles: np.ndarray) -> RunLaw:
    smooth = _moving_mean(level, SMOOTH_BARS)
    noise = (level[SMOOTH_BARS // 2 : -(SMOOTH_BARS // 2)] - smooth).std()
    k = quantiles.size
    return RunLaw(
        level=np.quantile(smooth, quantiles),
        spread=np.full(k, 0.1),
        noise=np.full(k, max(noise, MIN_NOISE)),
        drift=np.full(k, 0.05),
        echo=np.zeros(1),
        share=np.full(k, 1 / k),
    )


@dataclass(frozen=True, eq=False)
class _Segments:
    """Unbroken runs: their first rows, lengths and regimes, int64 (m,) each."""

    first: np.ndarray
    length: np.ndarray
    regime: np.ndarray


def _segments(seen: np.ndarray, law: RunLaw, config: BocpdConfig) -> tuple[_Segments, float]:
    # LOOKS AHEAD, for training rows only: given that a run begins at a row, what came before does not depend
    # on what comes after, so the filter's most probable run of the row before is the one with hindsight.
    memory = np.zeros((law.level.size + N_SUMS, config.max_run_bars))
    journal = _filtered(seen, law, law.table(config.max_run_bars), config, memory)[1]
    run, regime = journal[:, [RUN, REGIME]].astype(np.int64).T
    first, kind = [], []
    row = len(seen) - 1
    while row >= 0:
        kind.append(regime[row])
        while run[row] >= config.max_run_bars and row >= config.max_run_bars:
            row -= config.max_run_bars  # at least so long: the same run, seen from its earlier bars
        row -= min(int(run[row]), row + 1)
        first.append(row + 1)
    first, kind = np.array(first[::-1]), np.array(kind[::-1])
    return _Segments(first, np.diff(first, append=len(seen)), kind), float(journal[:, EVIDENCE].sum())


def _moments(seen: np.ndarray, segments: _Segments, law: RunLaw) -> RunLaw:
    # Moments of the segments; a regime without a segment keeps what it had.
    level, length = seen[:, 0], segments.length
    mean = np.add.reduceat(level, segments.first) / length
    total = np.add.reduceat(seen[:, 1], segments.first)
    around = level - np.repeat(mean, length)
    inner = np.ones(len(seen), dtype=bool)
    inner[segments.first] = False
    later = np.flatnonzero(inner)
    echo = (around[later] * around[later - 1]).sum() / max((around[later - 1] ** 2).sum(), 1e-12)
    echo = float(np.clip(echo, 0.0, MOST_ECHO))
    fresh = around[later] - echo * around[later - 1]
    kind = np.repeat(segments.regime, length)[later]
    new = {one: values.copy() for one, values in law.arrays().items()}
    new["echo"][0] = echo
    for r in range(law.level.size):
        own = segments.regime == r
        weight = length[own]
        new["share"][r] = (weight.sum() + 1) / (len(seen) + law.level.size)
        if not own.any() or weight.max() < 2:
            continue
        new["level"][r] = np.average(mean[own], weights=weight)
        freedom = max((kind == r).sum() - own.sum(), 1)  # each segment's own mean costs one
        new["noise"][r] = max(math.sqrt((fresh[kind == r] ** 2).sum() / freedom), MIN_NOISE)
        chance = (new["noise"][r] / (1 - echo)) ** 2 / weight  # of a segment's mean around its level
        spread = np.average((mean[own] - new["level"][r]) ** 2 - chance, weights=weight)
        new["spread"][r] = math.sqrt(max(spread, MIN_SPREAD**2))
        drift = (total[own] ** 2 - weight).sum() / (weight**2).sum()
        new["drift"][r] = math.sqrt(max(drift, 0.0))
    return replace(law, **new)


def _check(law: RunLaw, path: Path) -> None:
    for name in ("spread", "noise", "share"):
        if (getattr(law, name) <= 0).any():
            raise DataError(
                f"{path}: parameters.{name} is {getattr(law, name).tolist()}; it must be positive"
            )
    if (law.drift < 0).any() or abs(law.share.sum() - 1) > 1e-9 or not 0 <= law.echo[0] <= MOST_ECHO:
        raise DataError(
            f"{path}: parameters.drift must not be negative, share must sum to 1, echo lie in 0..{MOST_ECHO}"
        )

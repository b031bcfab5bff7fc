"""Markets prepared for trading tasks: bars, what specialists read of them, and causal regime labels.

An asset is prepared once. Detector and scaler learn from the first share of its rows, and windows begin
after it, so that nothing in a window depends on a bar after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.venue import Venue
from configs.load import Config, ConfigError, PluginConfig
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.scaling import Scaler
from market.splits import embargo_bars
from market.table import DataError, utc
from regimes.detector import DETECTORS
from regimes.path import PathConfig, PathFilter
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, Regime
from specialists.family import FAMILIES, Family
from specialists.fitness import FitnessConfig
from specialists.specialist import awake_rows, decision_rows
from specialists.training import GENERALIST, LEAST_AWAKE

#: Settings that a market is prepared with; sources of windows on it must have the same.
PREPARED = ("family", "detector", "path", "fit_share")
#: Share of the bars of a stretch that must be there: across longer gaps no position is held and no
#: feature remembered.
PRESENT = 0.95


class WindowsConfig(Config):
    """Which stretches of a market become tasks, and what is searched on them."""

    window_bars: int = Field(
        1500, ge=200, le=100_000, description="Length of a window, bars; two months of hourly bars."
    )
    n_windows: int | None = Field(
        None,
        ge=1,
        description="Windows per market and regime at most, evenly spread; by default all that fit.",
    )
    overlap: float = Field(
        0.0, ge=0.0, le=0.9, description="Share of a window that it has in common with the next one."
    )
    regimes: tuple[str, ...] = Field(
        REGIME_NAMES, min_length=1, description="Whose specialists are evolved; all is a generalist."
    )
    least_awake: int = Field(
        LEAST_AWAKE,
        ge=1,
        description="Bars of its regime that a window must have to be a task; an even share of them in half "
        "of its folds at least.",
    )
    fit_share: float = Field(
        0.25,
        gt=0.0,
        lt=1.0,
        description="Share of a market's bars, from the first on, that detector and scaler learn from.",
    )
    detector: PluginConfig = PluginConfig(name="markov_ar")
    path: PathConfig = PathConfig()
    family: PluginConfig = PluginConfig(name="blend")
    fitness: FitnessConfig = FitnessConfig(folds=5, min_trades=8)
    costs: Costs = Costs()
    limits: RiskLimits = RiskLimits()
    venue: Venue = Venue()
    population_size: int = Field(50, ge=8, le=8192, description="Individuals of a task's search.")
    n_generations: int = Field(60, ge=1, le=100_000, description="Generations of a task's search.")
    reference_runs: int = Field(
        4, ge=1, le=1000, description="Searches for the best known value of a window with smooth controls."
    )
    reference_factor: int = Field(
        4, ge=1, le=1000, description="Budgets of a task that each search for the best known value takes."
    )
    floor: float = Field(
        0.01, gt=0.0, lt=1.0, description="Normalised regret below which an error does not count."
    )

    @field_validator("regimes")
    @classmethod
    def _known_regimes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = (*CRISIS_NAMES, GENERALIST)
        for name in names:
            if name not in known:
                raise ValueError(f"must hold names out of {', '.join(known)}; {name!r} is none")
        if len(set(names)) != len(names):
            raise ValueError("must name each regime once")
        return names

    @field_validator("fitness")
    @classmethod
    def _same_for_all_generations(cls, fitness: FitnessConfig) -> FitnessConfig:
        if fitness.rotation < 1.0:
            raise ValueError(
                f"must have the rotation 1, not {fitness.rotation:g}: a task is the same in all generations"
            )
        return fitness


class Eras(NamedTuple):
    """Stretches of time that share nothing: each a first and a last instant, nanoseconds UTC."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Market:
    """One asset, prepared for any number of windows.

    Parameters
    ----------
    bars : Bars (n,)
    family : Family
        Whose genomes trade.
    rows : float64 (n, k)
        What the family reads, scaled by what the first rows taught.
    labels : int8 (n,)
        Causal regime, -1 where undecided.
    regime_names : tuple of str
        Which regimes the detector tells.
    first : int
        The first row that may belong to a window: detector and scaler learned from earlier ones.
    memory : int
        Bars until a feature has forgotten.
    config : WindowsConfig
    """

    bars: Bars
    family: Family
    rows: np.ndarray
    labels: np.ndarray
    regime_names: tuple[str, ...]
    first: int
    memory: int
    config: WindowsConfig

    @classmethod
    def of(cls, bars: Bars, config: WindowsConfig) -> Self:
        """Prepare an asset.

        Raises
        ------
        ConfigError
            If a plugin or its settings are unknown, the genomes are no plain vectors, or there are too few
            bars to learn from and one window.
        """
        family = FAMILIES.create(config.family.name, config.family.settings)
        if hasattr(family, "toolbox"):
            raise ConfigError(
                f"family.name is {config.family.name}, which brings its own operators; windows need a family "
                "whose genomes are plain vectors, such as blend"
            )
        detector = DETECTORS.create(config.detector.name, config.detector.settings)
        names = dict.fromkeys((*family.signals, *family.levels, *detector.columns))
        pipeline = FeaturePipeline(FeaturesConfig(names=tuple(names)))
        first = round(len(bars) * config.fit_share)
        least = config.least_awake * len(REGIME_NAMES)  # below it no detector tells three regimes apart
        if first - pipeline.warmup < least or len(bars) - first < config.window_bars:
            raise ConfigError(
                f"{bars.label}: {len(bars)} bars, of which {first} are to learn from; features need "
                f"{pipeline.warmup} to warm up, detector and scaler {least} after that, and a window "
                f"{config.window_bars} more, so it takes more bars or another fit_share"
            )
        features = transform(pipeline, bars)
        fit = features[pipeline.warmup : first]
        probabilities = transform(detector.fit(fit), features)
        labels = transform(PathFilter(config.path), probabilities).column("label").astype(np.int8)
        for name in config.regimes:
            if name not in (*probabilities.names, GENERALIST):
                raise ConfigError(
                    f"regimes: {name} is not known to the detector {config.detector.name}, which tells "
                    f"{', '.join(probabilities.names)}"
                )
        scaler = Scaler.fit(fit.select(family.signals)) if family.signals else None
        rows = decision_rows(family, scaler, features)
        rows.flags.writeable = labels.flags.writeable = False
        return cls(bars, family, rows, labels, probabilities.names, first, pipeline.warmup, config)

    @property
    def symbol(self) -> str:
        """Name of the asset."""
        return self.bars.symbol

    @property
    def embargo_ns(self) -> int:
        """Time between two eras: the longest memory of a feature, nanoseconds."""
        return self.bars.interval_ns * embargo_bars(self.bars.interval_ns, label=0, memory=self.memory)

    @cached_property
    def _awake(self) -> dict[str, np.ndarray]:
        found = {}
        for name in (*CRISIS_NAMES, GENERALIST):
            regime = None if name == GENERALIST else Regime.of(name)
            found[name] = awake_rows(regime, self.labels, self.rows)
            found[name].flags.writeable = False
        return found

    def awake(self, specialist: str) -> np.ndarray:
        """Return where a regime's specialist may trade, int8 (n,); see ``specialists.specialist``."""
        return self._awake[specialist]

    def stretch(self, rows: slice) -> tuple[int, int] | None:
        """Return start and stop of a stretch [ns UTC], see :class:`conductor.tasks.Window`.

        None if too many of its bars are missing.
        """
        start, last = self.bars.time[rows.start], self.bars.time[rows.stop - 1]
        stop = int(last) + self.bars.interval_ns
        present = (rows.stop - rows.start) * self.bars.interval_ns / (stop - int(start))
        return (int(start), stop) if present >= PRESENT else None

    def rows_between(self, begin: int | None, end: int | None) -> slice:
        """Return the rows after the learned ones whose whole bars lie between two times [ns UTC]."""
        time, interval = self.bars.time, self.bars.interval_ns
        first = self.first if begin is None else int(np.searchsorted(time, begin + interval))
        last = len(time) if end is None else int(np.searchsorted(time, end, side="right"))
        return slice(max(first, self.first), max(first, self.first, last))

    def spanned(self, start: int, stop: int) -> slice:
        """Return the rows of a window; see :class:`conductor.tasks.Window`.

        Raises
        ------
        DataError
            If it begins or ends between two bars, or holds a row that detector and scaler learned from.
        """
        time, interval = self.bars.time, self.bars.interval_ns
        rows = slice(int(np.searchsorted(time, start)), int(np.searchsorted(time, stop)))
        whole = rows.start < rows.stop and time[rows.start] == start
        if not (whole and time[rows.stop - 1] + interval == stop):
            raise DataError(
                f"{self.bars.label}: the window from {utc(start)} to {utc(stop)} does not begin with a bar "
                "and end after one"
            )
        if rows.start < self.first:
            raise DataError(
                f"{self.bars.label}: the window from {utc(start)} on holds rows that the detector learned "
                f"from; the first that may is at {utc(time[self.first])}"
            )
        return rows


def eras(markets: Sequence[Market], train: float = 0.5, validation: float = 0.2) -> Eras:
    """Cut the time that several markets cover into what trains, what selects, and what judges.

    Between two eras lies the longest memory of a feature, so that no row of one remembers another.

    Parameters
    ----------
    markets : sequence of Market
    train, validation : float
        Shares of the time from the first row of any window to the last bar; the rest tests.

    Raises
    ------
    DataError
        If an era would be empty.
    """
    if not (markets and train > 0.0 and validation > 0.0 and train + validation < 1.0):
        raise ValueError(
            f"{len(markets)} markets, shares {train:g} and {validation:g}; both and the rest need some time"
        )
    begin = min(int(m.bars.time[m.first]) - m.bars.interval_ns for m in markets)
    end = max(int(m.bars.time[-1]) for m in markets)
    gap = max(m.embargo_ns for m in markets)
    first, second = (begin + int((end - begin) * share) for share in (train, train + validation))
    if min(first - begin, second - first, end - second) <= gap:
        raise DataError(
            f"markets: from {utc(begin)} to {utc(end)} there is no room for three eras that lie "
            f"{gap / 86_400e9:.0f} days apart; it takes more bars or other shares"
        )
    # The gap is taken from the era before it, as market.splits takes it.
    return Eras((begin, first - gap), (first, second - gap), (second, end))

"""The settings of ``python -m ensemble.validate``."""

import hashlib
import json
import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.venue import Venue
from compute.seeds import MAX_SEED
from configs.load import Config, PluginConfig
from ensemble.criteria import CriteriaConfig
from ensemble.evidence import EvidenceConfig
from ensemble.gating import GatingConfig
from ensemble.robustness import RobustnessConfig
from ensemble.sizing import SizingConfig
from forecasters.settings import MOST_BARS, ForecastConfig, LearningConfig, ScheduleConfig
from ga.controls import Hyperparameters
from ga.variation import Variation
from market.features.cross import JoinedFeaturesConfig
from market.features.dataset import LabelConfig
from market.features.pipeline import FeaturesConfig
from market.sources.selection import MarketConfig
from market.splits import Split, walk_forward, window_lengths, windows
from regimes.path import PathConfig
from regimes.regime import Regime
from specialists.fitness import FitnessConfig
from specialists.settings import WorkersConfig
from specialists.training import GENERALIST, SpecialistConfig

#: Calendar spans, shortest first, in months.
MONTHS = {"month": 1, "quarter": 3, "year": 12}
Span = Literal["month", "quarter", "year"]
#: Choices of tested groups beyond which nobody waits for the last.
MOST_COMBINATIONS = 1_000
Share = Annotated[float, Field(gt=0, lt=1)]


class WalkForwardConfig(Config):
    """Which rows teach, choose and judge, fold by fold."""

    span: Span = Field("quarter", description="Calendar span after which everything is fitted anew.")
    train_spans: int = Field(3, ge=1, le=1000, description="Whole spans to learn from before the first fold.")
    validation_spans: int = Field(2, ge=1, le=100, description="Spans on which the blender is fitted.")
    window_bars: int | None = Field(
        None,
        ge=3,
        le=MOST_BARS,
        description="Bars of a window that is cut by shares, in place of all spans; 17520 are two years of "
        "hours. The next begins one test later.",
    )
    shares: tuple[Share, Share, Share] = Field(
        (0.7, 0.15, 0.15), description="Of a window for training, validation and test, together 1."
    )
    expanding: bool = Field(
        True, description="Learn from all that lies before; false: from the latest spans, or the window."
    )
    embargo_bars: int = Field(
        288, ge=2, le=100_000, description="Bars left out before validation and test; 12 days of hours."
    )
    start: str | None = Field(
        None, description="First day that may be tested, for example 2019-01-01; by default the earliest."
    )
    latest: int | None = Field(None, ge=1, description="Only the latest so many folds; by default all.")

    @field_validator("start", mode="before")
    @classmethod
    def _day(cls, start: object) -> object:
        from datetime import date

        if start is None:
            return None
        try:
            return date.fromisoformat(str(start)).isoformat()
        except ValueError:
            raise ValueError(f"{start!r} is no day; it must be written like 2019-01-01") from None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        # Files name every setting, so what counts is whether one was changed, not whether it was named.
        spans = ("shares",) if self.window_bars is None else ("span", "train_spans", "validation_spans")
        for name in spans:
            given, usual = getattr(self, name), type(self).model_fields[name].default
            if given == usual:
                continue
            if self.window_bars is None:
                raise ValueError("shares cut windows, and window_bars is not given; give both, or neither")
            raise ValueError(
                f"{name} is {given} and window_bars {self.window_bars}; windows know no calendar, so {name} "
                f"must be left at {usual}"
            )
        if self.window_bars is not None:
            self.lengths()
        return self

    def lengths(self) -> tuple[int, int, int]:
        """Return how many bars of a window train, validate and test."""
        return window_lengths(self.window_bars, self.shares)

    def splits(self, time: np.ndarray) -> tuple[Split, ...]:
        """Return all folds of a clock, oldest first; ``start`` and ``latest`` are not asked.

        Parameters
        ----------
        time : int64 (n,)
            Close of each bar, ns UTC.

        Raises
        ------
        DataError
            If there are too few bars for one.
        """
        rules = {"expanding": self.expanding, "embargo": self.embargo_bars}
        if self.window_bars is None:
            return walk_forward(time, self.span, self.train_spans, self.validation_spans, **rules)
        return windows(time, self.window_bars, self.shares, **rules)

    def tested_on(self) -> str:
        """Return what a fold is tested on, in words: a quarter."""
        if self.window_bars is None:
            return f"a {self.span}"
        parts = "/".join(f"{100 * share:g}" for share in self.shares)
        begin = "learning from the first bar on" if self.expanding else "learning from its own bars alone"
        return f"{self.lengths()[2]:,} bars (windows of {self.window_bars:,} bars, cut {parts}, each {begin})"


class SpecialistsConfig(Config):
    """The specialists that are evolved in every fold."""

    regimes: tuple[str, ...] = Field(
        ("ranging", "trending", "volatile"),
        description="Regimes that get specialists, all for generalists; may be empty.",
    )
    champions: int = Field(1, ge=1, le=32, description="Independent searches per regime, one member of each.")
    awake: Literal["label", "probability"] = Field(
        "label", description="Awake where the regime leads, or where it has at least a probability."
    )
    threshold: float = Field(0.3, gt=0, lt=1, description="That probability.")
    family: PluginConfig = PluginConfig(name="blend")
    fitness: FitnessConfig = FitnessConfig()
    hyperparameters: Hyperparameters = Hyperparameters()
    policy: PluginConfig = PluginConfig(name="fixed")
    variation: Variation = Variation()
    generalist: bool = Field(
        True, description="Whether one generalist is evolved with the budget of all specialists, to compare."
    )

    @field_validator("regimes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name != GENERALIST:
                Regime.of(name)
        if len(set(names)) != len(names):
            raise ValueError("must name each regime once")
        return names


class ForecasterMember(Config):
    """A forecaster among the members of the ensemble."""

    name: str = Field(description="A forecaster such as xgboost, or a YAML file of one.")
    settings: dict = Field({}, description="Settings beside those of its file: {hidden: 32}.")
    label: LabelConfig = LabelConfig(horizon="24h")
    span: Span = Field(
        "quarter",
        description="Calendar span after which it is trained anew; with windows of bars it is trained before "
        "the first validation and before every test instead.",
    )
    train_spans: int = Field(
        2, ge=1, le=1000, description="Whole spans of training before its first answer; not with windows."
    )
    validation: float = Field(0.15, gt=0, lt=0.9, description="Share of its training rows that stops it.")

    def title(self) -> str:
        """Return what its column is called: name and horizon."""
        stem = self.name.rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml")
        return f"{stem}_{self.label.horizon}"


class RandomRoutingConfig(Config):
    """Routing by regimes that are drawn at random and last as long as the detected ones."""

    draws: int = Field(10, ge=0, le=1000, description="Draws; 0 leaves the baseline out.")


class PermutationConfig(Config):
    """The bar-permutation test: the whole search again, smaller, on the bars and on shuffled ones."""

    count: int = Field(0, ge=0, le=10_000, description="Shuffled markets; 0 leaves the test out.")
    span: Span = Field("year", description="Calendar span of its folds; windows stay as they are.")
    population_size: int = Field(64, ge=8, le=8192, description="Individuals of its searches.")
    n_generations: int = Field(15, ge=1, le=100_000, description="Generations of its searches.")
    forecasters: bool = Field(False, description="Whether its forecasters are trained anew, too.")


class CpcvConfig(Config):
    """Combinatorial purged cross-validation: many paths through the history in place of one."""

    groups: int = Field(
        0, ge=0, le=50, description="Groups of equal length that the history is cut into, as 6; 0: none."
    )
    test: int = Field(2, ge=1, le=49, description="Groups that are tested at a time.")
    validation: float = Field(
        0.25, gt=0, lt=0.9, description="Latest share of what teaches, on which the blender is fitted."
    )
    population_size: int | None = Field(
        None, ge=8, le=8192, description="Individuals of its searches; null: as in the folds."
    )
    n_generations: int | None = Field(
        None, ge=1, le=100_000, description="Generations of its searches; null: as in the folds."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.groups:
            return self
        if self.test >= self.groups:
            raise ValueError(
                f"test is {self.test} and groups {self.groups}; fewer groups must be tested than there are"
            )
        if self.combinations > MOST_COMBINATIONS:
            raise ValueError(
                f"there are {self.combinations:,} ways to test {self.test} of {self.groups} groups; there "
                f"must be at most {MOST_COMBINATIONS}, for each is fitted by itself"
            )
        return self

    @property
    def combinations(self) -> int:
        """How many choices of tested groups there are, each of which is fitted by itself."""
        return math.comb(self.groups, self.test) if self.groups else 0

    @property
    def paths(self) -> int:
        """How often each row is tested."""
        return math.comb(self.groups - 1, self.test - 1) if self.groups else 0


class ValidateConfig(Config):
    """Settings of ``python -m ensemble.validate``."""

    market: MarketConfig = MarketConfig()
    folds: WalkForwardConfig = WalkForwardConfig()
    features: FeaturesConfig = FeaturesConfig()
    forecast_features: JoinedFeaturesConfig = JoinedFeaturesConfig(names="full")
    detector: PluginConfig = PluginConfig(name="markov_ar")
    path: PathConfig = PathConfig()
    specialists: SpecialistsConfig = SpecialistsConfig()
    forecasters: tuple[ForecasterMember, ...] = (
        ForecasterMember(name="xgboost"),
        ForecasterMember(name="lstm", span="year", train_spans=1),
    )
    learning: LearningConfig = LearningConfig()
    blender: PluginConfig = PluginConfig(name="route")
    rivals: tuple[str, ...] = Field(
        ("equal", "route", "regime_weighted", "rank", "validated", "stack", "bma", "online"),
        description="Blenders that are shown beside it.",
    )
    gating: GatingConfig = GatingConfig()
    sizing: SizingConfig = SizingConfig()
    random_routing: RandomRoutingConfig = RandomRoutingConfig()
    costs: Costs = Costs()
    limits: RiskLimits = RiskLimits()
    venue: Venue = Venue()
    criteria: CriteriaConfig = CriteriaConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    robustness: RobustnessConfig = RobustnessConfig()
    permutation: PermutationConfig = PermutationConfig()
    cpcv: CpcvConfig = CpcvConfig()
    workers: WorkersConfig = WorkersConfig()
    runs: str = Field("experiments/runs", description="Folder of runs; the trial ledger lies beside it.")
    seed: int = Field(7, ge=0, le=MAX_SEED, description="Root of all random streams.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.specialists.regimes and not self.forecasters:
            raise ValueError("there is no member; name regimes under specialists, or forecasters")
        titles = [member.title() for member in self.forecasters]
        if len(set(titles)) != len(titles):
            raise ValueError(f"forecasters must differ in name or horizon; they are {', '.join(titles)}")
        for member in self.forecasters:
            # With windows they are trained anew at each test, whatever their span.
            if self.folds.window_bars is None and MONTHS[member.span] % MONTHS[self.folds.span]:
                raise ValueError(
                    f"forecasters: {member.name} is trained anew every {member.span}, within a fold of a "
                    f"{self.folds.span}; it must be a whole number of folds"
                )
        return self

    def forecast(self, member: ForecasterMember, seed: int) -> ForecastConfig:
        """Return the settings of a forecaster's own walk-forward."""
        from forecasters.forecaster import plugin_config

        base = plugin_config(member.name)
        folds = self.folds
        if folds.window_bars is None:
            when = {"span": member.span, "train_spans": member.train_spans}
        else:  # where the first validation begins, and then at every test, with the rest of the fold
            train, validation, test = folds.lengths()
            when = {"train_bars": train, "first_bars": validation, "every_bars": test}
        return ForecastConfig(
            model=base.model_copy(update=member.settings),
            market=self.market,
            features=self.forecast_features,
            label=member.label,
            schedule=ScheduleConfig(
                **when,
                expanding=folds.expanding,
                validation=member.validation,
                embargo_bars=folds.embargo_bars,
            ),
            learning=self.learning,
            baselines=(),
            seed=seed,
        )

    def specialist(self, regime: str, seed: int, whole: bool = False) -> SpecialistConfig:
        """Return the settings of one search; with ``whole`` it has the budget of all searches together."""
        own, hyperparameters = self.specialists, self.specialists.hyperparameters
        if whole:
            # As many evaluations as all specialists together: more generations, not a larger population.
            searches = max(1, len(own.regimes) * own.champions)
            hyperparameters = hyperparameters.model_copy(
                update={
                    "n_generations": hyperparameters.n_generations * searches,
                    "patience": hyperparameters.patience * searches,
                }
            )
        return SpecialistConfig(
            regime=regime,
            features=self.features,
            detector=self.detector,
            path=self.path,
            family=own.family,
            fitness=own.fitness,
            costs=self.costs,
            limits=self.limits,
            venue=self.venue,
            hyperparameters=hyperparameters,
            policy=own.policy,
            variation=own.variation,
            seed=seed,
        )

    def digest(self) -> str:
        """Return the SHA-256 of all settings that the result depends on."""
        document = self.model_dump(mode="json", exclude={"workers", "runs"})
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

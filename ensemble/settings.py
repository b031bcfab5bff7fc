"""The settings of ``python -m ensemble.validate``."""

import hashlib
import json
from typing import Literal, Self

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
from forecasters.settings import ForecastConfig, LearningConfig, ScheduleConfig
from ga.controls import Hyperparameters
from ga.variation import Variation
from market.features.cross import JoinedFeaturesConfig
from market.features.dataset import LabelConfig
from market.features.pipeline import FeaturesConfig
from market.sources.selection import MarketConfig
from regimes.path import PathConfig
from regimes.regime import Regime
from specialists.fitness import FitnessConfig
from specialists.settings import WorkersConfig
from specialists.training import GENERALIST, SpecialistConfig

#: Calendar spans, shortest first, in months.
MONTHS = {"month": 1, "quarter": 3, "year": 12}
Span = Literal["month", "quarter", "year"]


class WalkForwardConfig(Config):
    """Which rows teach, choose and judge, fold by fold."""

    span: Span = Field("quarter", description="Calendar span after which everything is fitted anew.")
    train_spans: int = Field(3, ge=1, le=1000, description="Whole spans to learn from before the first fold.")
    validation_spans: int = Field(2, ge=1, le=100, description="Spans on which the blender is fitted.")
    expanding: bool = Field(
        True, description="Learn from all that lies before; false: from the latest spans."
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
    span: Span = Field("quarter", description="Calendar span after which it is trained anew.")
    train_spans: int = Field(2, ge=1, le=1000, description="Whole spans of training before its first answer.")
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
    span: Span = Field("year", description="Calendar span of its folds.")
    population_size: int = Field(64, ge=8, le=8192, description="Individuals of its searches.")
    n_generations: int = Field(15, ge=1, le=100_000, description="Generations of its searches.")
    forecasters: bool = Field(False, description="Whether its forecasters are trained anew, too.")


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
            if MONTHS[member.span] % MONTHS[self.folds.span]:
                raise ValueError(
                    f"forecasters: {member.name} is trained anew every {member.span}, within a fold of a "
                    f"{self.folds.span}; it must be a whole number of folds"
                )
        return self

    def forecast(self, member: ForecasterMember, seed: int) -> ForecastConfig:
        """Return the settings of a forecaster's own walk-forward."""
        from forecasters.forecaster import plugin_config

        base = plugin_config(member.name)
        return ForecastConfig(
            model=base.model_copy(update=member.settings),
            market=self.market,
            features=self.forecast_features,
            label=member.label,
            schedule=ScheduleConfig(
                span=member.span,
                train_spans=member.train_spans,
                expanding=self.folds.expanding,
                validation=member.validation,
                embargo_bars=self.folds.embargo_bars,
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

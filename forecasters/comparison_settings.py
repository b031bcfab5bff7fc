"""The settings of ``python -m experiments.compare``."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.venue import Venue
from compute.seeds import MAX_SEED
from configs.load import Config, PluginConfig
from experiments.tracking import TrackingConfig
from forecasters.promotion import PromotionConfig
from forecasters.settings import ForecastConfig, LearningConfig, ScheduleConfig
from market.features.cross import JoinedFeaturesConfig
from market.features.dataset import LabelConfig
from market.sources.selection import MarketConfig
from market.sources.series import ExternalConfig
from regimes.path import PathConfig

ALL = "all"
#: Settings that a training takes over as they are.
_TRAINING = (
    "market", "features", "peers", "peer_max_age", "external", "schedule", "learning", "seed",
)  # fmt: skip


class CausalRegimesConfig(Config):
    """Which regime each row is counted to, as it was known at its close."""

    detector: PluginConfig = PluginConfig(name="volatility")
    every_bars: int = Field(
        4000, ge=1, le=10_000_000, description="Bars after which it is fitted anew, on all rows before."
    )
    path: PathConfig = PathConfig()


class CompareConfig(Config):
    """Settings of ``python -m experiments.compare``."""

    forecasters: tuple[str, ...] = Field(
        (ALL,), min_length=1, description="Names, YAML files, or all that fit the data."
    )
    horizons: tuple[str, ...] = Field(("4h",), min_length=1, description="Of the label: bars, or times.")
    models: dict[str, PluginConfig] = Field(
        {}, description="Settings of each forecaster by its label; filled from forecasters when a run starts."
    )
    runs_of: tuple[str, ...] = Field(
        (), description="Finished trainings to compare as they are; nothing is trained then."
    )
    reuse: bool = Field(
        True, description="Whether finished trainings with equal settings, data and code are taken."
    )
    market: MarketConfig = MarketConfig()
    features: JoinedFeaturesConfig = JoinedFeaturesConfig(names="full")
    peers: dict[str, str] = Field({}, description="Other symbols by name, and the files of their bars.")
    peer_max_age: str = Field("3h", description="Age from which a peer's price is not known any more.")
    external: ExternalConfig | None = Field(None, description="External series to join, external.yaml.")
    label: LabelConfig = LabelConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    learning: LearningConfig = LearningConfig()
    baselines: tuple[str, ...] = Field(
        ("majority", "last_sign", "ar1"), description="Naive forecasters that every model is held against."
    )
    costs: Costs = Costs()
    limits: RiskLimits = RiskLimits()
    venue: Venue = Venue()
    regimes: CausalRegimesConfig | None = CausalRegimesConfig()
    promotion: PromotionConfig = PromotionConfig()
    least_f1: float = Field(0.35, ge=0, le=1, description="F1 macro that a model must exceed.")
    bootstrap_paths: int = Field(200, ge=20, le=100_000, description="Paths behind intervals and leads.")
    block_bars: int = Field(
        24,
        ge=1,
        le=100_000,
        description="Mean block of the bootstrap; twice the span of the label where that is more.",
    )
    tracking: TrackingConfig = TrackingConfig()
    runs: str = Field("experiments/runs", description="Folder of runs.")
    seed: int = Field(7, ge=0, le=MAX_SEED, description="Root of all random streams.")

    @field_validator("horizons", mode="before")
    @classmethod
    def _texts(cls, horizons: object) -> object:
        if isinstance(horizons, list | tuple):
            return [
                str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in horizons
            ]
        return horizons

    @field_validator("forecasters", "horizons", "runs_of", "baselines")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("must name each of them once")
        return names

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        # What no training could be made of is told before one is begun.
        if "horizon" in self.label.model_fields_set:
            named = (LabelConfig().horizon, *self.horizons)  # a config that was written holds the default
            if self.label.horizon not in named:
                raise ValueError(
                    f"label.horizon is {self.label.horizon}; a comparison names its horizons under horizons"
                )
        self.training(PluginConfig(name="majority"), self.horizons[0], self.runs)
        return self

    def training(self, model: PluginConfig, horizon: str, runs: str) -> ForecastConfig:
        """Return the settings of one training; baselines are trainings of their own."""
        return ForecastConfig(
            model=model,
            label=self.label.model_copy(update={"horizon": horizon}),
            baselines=(),
            bootstrap_paths=self.bootstrap_paths,
            runs=runs,
            **{part: getattr(self, part) for part in _TRAINING},
        )

    def block(self, horizon_bars: int) -> float:
        """Return the mean block of the bootstrap, rows: never shorter than labels overlap."""
        return float(max(self.block_bars, 2 * horizon_bars))

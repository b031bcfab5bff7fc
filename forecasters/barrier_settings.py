"""The settings of ``python -m forecasters.barriers``."""

import math

from pydantic import Field, ValidationInfo, field_validator

from backtest.costs import Costs
from compute.seeds import MAX_SEED
from configs.load import Config, PluginConfig
from ga.controls import Hyperparameters
from market.features.dataset import LabelConfig
from market.labels import HORIZONS
from market.sources.selection import MarketConfig
from market.splits import SplitConfig


class WeightsConfig(Config):
    """What each term of the fitness counts."""

    balance: float = Field(1.0, ge=0, le=100, description="Entropy of the classes, weighted by uniqueness.")
    moves: float = Field(1.0, ge=0, le=100, description="Share of the labelled moves beyond their costs.")
    sharpe: float = Field(1.0, ge=0, le=100, description="Sharpe ratio of the probe after costs.")


class FitnessConfig(Config):
    """How barriers are judged."""

    weights: WeightsConfig = WeightsConfig()
    lookbacks: tuple[int, ...] = Field(
        (1, 6, 24, 96), min_length=1, max_length=20, description="Of the probe's momentum, bars."
    )
    blocks: int = Field(8, ge=2, le=100, description="Blocks of time on which the probe bets.")
    confidence: float = Field(
        1.0, ge=0, le=10, description="Standard errors over blocks that are taken off the Sharpe ratio."
    )
    least_labels: float = Field(
        200,
        ge=1,
        le=1e9,
        description="Labels without overlap that the rows must hold; barriers of fewer fail.",
    )

    @field_validator("weights")
    @classmethod
    def _some(cls, weights: WeightsConfig) -> WeightsConfig:
        if not weights.balance + weights.moves + weights.sharpe > 0:
            raise ValueError("must hold a weight above 0")
        return weights

    @field_validator("lookbacks")
    @classmethod
    def _bars(cls, lookbacks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(lookbacks)) != len(lookbacks) or not all(1 <= bars <= 100_000 for bars in lookbacks):
            raise ValueError("must name each lookback once, from 1 to 100,000 bars")
        return lookbacks


class WidthConfig(Config):
    """Where a barrier may stand, in expected moves."""

    least: float = Field(0.3, gt=0, le=100, description="Nearest distance.")
    most: float = Field(3.0, gt=0, le=100, description="Farthest distance.")
    step: float = Field(0.05, ge=0.001, le=100, description="Between two distances.")

    @field_validator("most")
    @classmethod
    def _above(cls, most: float, info: ValidationInfo) -> float:
        if "least" in info.data and most < info.data["least"]:
            raise ValueError(f"must be at least the nearest distance, {info.data['least']:g}")
        return most

    def steps(self) -> int:
        """Return how many steps lie between the nearest and the farthest distance."""
        return math.floor((self.most - self.least) / self.step + 1e-9)


class BarrierSpaceConfig(Config):
    """Which barriers are tried."""

    up: WidthConfig = WidthConfig()
    down: WidthConfig = WidthConfig()
    horizons: tuple[str, ...] = Field(
        HORIZONS, min_length=1, max_length=100, description="Bars, or times of whole bars."
    )
    volatilities: tuple[str, ...] = Field(
        (
            "volatility_8", "volatility_24", "volatility_168", "parkinson_24",
            "parkinson_168", "garman_klass_24", "yang_zhang_24", "yang_zhang_168",
        ),
        min_length=1,
        max_length=100,
        description="Features that scale the barriers, per bar.",
    )  # fmt: skip

    @field_validator("horizons", mode="before")
    @classmethod
    def _texts(cls, horizons: object) -> object:
        if not isinstance(horizons, list | tuple):
            return horizons
        whole = [isinstance(one, int) and not isinstance(one, bool) for one in horizons]
        return tuple(str(one) if text else one for one, text in zip(horizons, whole, strict=True))

    @field_validator("volatilities")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("must name each feature once")
        return names


class BarriersConfig(Config):
    """Settings of ``python -m forecasters.barriers``."""

    market: MarketConfig = MarketConfig()
    costs: Costs = Costs()
    label: LabelConfig = Field(LabelConfig(horizon="4h"), description="The barriers to beat.")
    space: BarrierSpaceConfig = BarrierSpaceConfig()
    fitness: FitnessConfig = FitnessConfig()
    split: SplitConfig = SplitConfig()
    hyperparameters: Hyperparameters = Hyperparameters(population_size=48, n_generations=25, patience=10)
    policy: PluginConfig = PluginConfig(name="fixed")
    runs: str = Field("experiments/runs", description="Folder of runs.")
    seed: int = Field(7, ge=0, le=MAX_SEED, description="Root of all random streams.")

    @field_validator("label")
    @classmethod
    def _barriers(cls, label: LabelConfig) -> LabelConfig:
        if label.kind != "triple_barrier":
            raise ValueError(f"must be of kind triple_barrier, not {label.kind}")
        return label

    def volatilities(self) -> tuple[str, ...]:
        """Return every column of volatility that is needed, that of the barriers to beat included."""
        return tuple(dict.fromkeys((*self.space.volatilities, self.label.volatility)))

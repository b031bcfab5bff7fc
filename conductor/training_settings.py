"""The settings of ``python -m conductor.train``."""

import hashlib
import json
import re
from typing import Self

from pydantic import Field, model_validator

from conductor.markets import WindowsConfig
from conductor.static_tuning import StaticTuningConfig
from conductor.strategies import StrategiesConfig
from configs.load import Config, ConfigError, PluginConfig
from ga.variation import Variation
from market.sources.selection import MarketConfig

#: What a default run takes on two cores, about: what a budget is measured by.
DEFAULT_SECONDS = 900.0


class LandscapesConfig(Config):
    """Synthetic landscapes among the tasks."""

    dimensions: tuple[int, ...] = Field((5, 8, 10, 15), min_length=1, description="Genes, equally likely.")
    sizes: tuple[tuple[int, int], ...] = Field(
        ((40, 60),), min_length=1, description="Population size and generations, equally likely."
    )


class TradingConfig(Config):
    """Market windows among the tasks."""

    assets: tuple[str, ...] = Field(
        ("A", "B", "C", "D"),
        min_length=1,
        description="Markets. Synthetic ones differ by their name; of files market.bars holds {asset}.",
    )
    held_out: tuple[str, ...] = Field(
        (), description="Assets that only test, so that the race shows what an unseen asset brings."
    )
    held_out_regimes: tuple[str, ...] = Field((), description="Regimes whose windows only test, in all eras.")
    train: float = Field(0.5, gt=0.0, lt=1.0, description="Share of the time that trains.")
    validation: float = Field(0.2, gt=0.0, lt=1.0, description="Share of the time after it that selects.")
    windows: WindowsConfig = WindowsConfig()


class LabelsConfig(Config):
    """How many vine labels are made for variants that learn from them."""

    runs: int = Field(128, ge=8, le=1_000_000, description="Runs with random controls.")
    forks: int = Field(768, ge=8, le=10_000_000, description="States of them from which branches fork.")
    branches: int = Field(16, ge=2, le=1024, description="Continuations of each fork.")
    horizon: int = Field(8, ge=1, le=1000, description="Generations for which a branch keeps its controls.")
    repeats: int = Field(2, ge=1, le=100, description="Random streams that every branch is tried on.")


class JudgingConfig(Config):
    """What chooses among the weights and what judges the chosen ones; no task is in both."""

    validation_tasks: int = Field(160, ge=8, le=100_000, description="Runs that choose the weights.")
    race_tasks: int = Field(224, ge=8, le=100_000, description="Runs of the race at the end.")
    schedule_iterations: int = Field(
        30, ge=0, le=100_000, description="Iterations for tuning the schedule of the race; 0 leaves it out."
    )


class TrainConfig(Config):
    """Settings of ``python -m conductor.train``."""

    variant: PluginConfig = PluginConfig(name="hybrid")
    tasks: str = Field(
        "both",
        pattern="^(both|landscapes|windows)$",
        description="What it learns on: both, landscapes, windows.",
    )
    windows_share: float = Field(
        0.35, gt=0.0, lt=1.0, description="Share of windows among the tasks of both."
    )
    landscapes: LandscapesConfig = LandscapesConfig()
    trading: TradingConfig = TradingConfig()
    market: MarketConfig = MarketConfig()
    variation: Variation = Variation()
    static: StaticTuningConfig = StaticTuningConfig()
    labels: LabelsConfig = LabelsConfig()
    strategies: StrategiesConfig = StrategiesConfig()
    judging: JudgingConfig = JudgingConfig()
    rate: float = Field(
        0.4,
        gt=0.0,
        le=1.0,
        description="Share of the way to its target that a control moves in a generation.",
    )
    effort: float = Field(
        1.0, gt=0.0, le=10_000.0, description="Multiplies iterations, labels and meta-generations."
    )
    checkpoint_every: int = Field(20, ge=1, description="Meta-generations between checkpoints.")
    threads: int | None = Field(None, ge=1, le=1024, description="Threads; by default one per core.")
    runs: str = Field("experiments/runs", description="Folder of runs.")
    seed: int = Field(7, ge=0, le=2**63 - 1, description="Root of all random streams.")

    @model_validator(mode="after")
    def _somebody_trains(self) -> Self:
        strangers = set(self.trading.held_out) - set(self.trading.assets)
        if strangers:
            raise ValueError(
                f"trading.held_out names {', '.join(sorted(strangers))}; they must be among the assets"
            )
        if set(self.trading.assets) == set(self.trading.held_out):
            raise ValueError("trading.held_out holds all assets; one must be left to train on")
        return self

    def scaled(self) -> Self:
        """Return the settings with the effort multiplied into labels and meta-generations.

        An effort below 1 shortens the tuning of the fixed controls and the judging as well; above it they
        stay, so that rivals of longer trainings are the same.
        """

        def less(part: Config, *names: str, effort: float, least: int = 8) -> Config:
            return part.model_copy(
                update={name: max(least, round(getattr(part, name) * effort)) for name in names}
            )

        short = min(self.effort, 1.0)
        judging = less(self.judging, "validation_tasks", "race_tasks", effort=short)
        return self.model_copy(
            update={
                "static": less(self.static, "iterations", effort=short, least=1),
                "labels": less(self.labels, "runs", "forks", effort=self.effort),
                "strategies": less(self.strategies, "generations", effort=self.effort, least=1),
                "judging": less(judging, "schedule_iterations", effort=short, least=0),
            }
        )

    def digest(self) -> str:
        """Return the SHA-256 of all settings that the result depends on."""
        document = self.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def effort_of(budget: str) -> float:
    """Return the effort of a budget such as 45m or 2h, against the quarter of an hour of a default run.

    Raises
    ------
    ConfigError
        If it is no length of time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)\s*", budget)
    if not found or float(found[1]) <= 0.0:
        raise ConfigError(f"--budget: {budget!r} is no length of time; it must be such as 90s, 45m, 2h or 1d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] / DEFAULT_SECONDS


_WITHOUT_EFFECT = {"runs", "threads", "checkpoint_every"}

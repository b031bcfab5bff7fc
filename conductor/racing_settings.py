"""The settings of ``python -m conductor.race``."""

from typing import Literal, Self

from pydantic import Field, model_validator

from conductor.markets import WindowsConfig
from conductor.static_tuning import StaticTuningConfig
from configs.load import Config
from market.sources.selection import MarketConfig


class RaceConfig(Config):
    """Who races, on what, and how often."""

    conductors: tuple[str, ...] = Field(
        (),
        description="Conductors by run, variant, name or folder; the first is the one that is judged.",
    )
    suite: Literal["bbob", "families", "windows"] = Field(
        "bbob",
        description="Functions of BBOB, landscape families that never train, or stretches of markets.",
    )
    contestants: tuple[str, ...] = Field((), description="Rivals by name; by default all.")
    instances: int = Field(15, ge=1, le=1000, description="Instances of each function or family.")
    n_windows: int = Field(60, ge=1, le=100_000, description="Windows of suite windows at most.")
    seeds: int | None = Field(
        None, ge=1, le=10_000, description="Runs of each problem; by default 1, on windows 30."
    )
    dimension: int = Field(10, ge=2, le=40, description="Genes; of windows the family decides.")
    population: int | None = Field(
        None, ge=8, le=8192, description="Individuals; by default 40, of windows their own setting."
    )
    generations: int | None = Field(
        None, ge=1, le=10_000, description="Generations; by default 60, of windows their own setting."
    )
    bars: tuple[str, ...] = Field(
        (), description="Files of bars; {asset} in a name stands for each of the assets."
    )
    assets: tuple[str, ...] = Field(
        ("X", "Y", "Z"),
        min_length=1,
        description="Markets. Synthetic ones differ by name, and training uses others by default.",
    )
    market: MarketConfig = MarketConfig()
    windows: WindowsConfig = WindowsConfig()
    train: float = Field(0.5, gt=0.0, lt=1.0, description="Share of the time that rivals may learn from.")
    validation: float = Field(
        0.2, gt=0.0, lt=1.0, description="Share of the time after it that is left out; the rest judges."
    )
    practice: int = Field(
        192, ge=8, le=100_000, description="Training runs that the habits of a conductor are measured on."
    )
    schedule: StaticTuningConfig = StaticTuningConfig()
    threads: int | None = Field(None, ge=1, le=1024, description="Threads; by default one per core.")
    runs: str = Field("experiments/runs", description="Folder of runs.")
    seed: int = Field(7, ge=0, le=2**63 - 1, description="Root of all random streams.")

    @model_validator(mode="after")
    def _all_different(self) -> Self:
        for name in ("conductors", "contestants", "bars", "assets"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} names {', '.join(given)}; each may be named once")
        return self

    @property
    def n_seeds(self) -> int:
        """Runs of each problem."""
        return self.seeds or (30 if self.suite == "windows" else 1)

"""The settings of ``python -m ga.evolve``."""

import hashlib
import json
from typing import Literal

from pydantic import Field

from configs.load import Config
from market.sources.selection import MarketConfig
from specialists.archives import ArchiveConfig
from specialists.fronts import FrontConfig
from specialists.training import SpecialistConfig


class WorkersConfig(Config):
    """Where evaluations run; the result does not depend on it."""

    name: Literal["auto", "serial", "threads", "ray"] = Field(
        "auto", description="auto: threads on all cores; ray: processes of a local or a named Ray cluster."
    )
    count: int | None = Field(None, ge=1, le=1024, description="Number of workers; by default one per core.")
    address: str | None = Field(
        None, description="Ray cluster to join, for example auto or host:6379; by default a local one."
    )
    dashboard: bool = Field(False, description="Whether a local Ray serves its dashboard, on loopback only.")


class CheckpointConfig(Config):
    """What survives a kill."""

    keep: int = Field(3, ge=1, le=100, description="Latest checkpoints that are kept.")
    every: int = Field(1, ge=0, le=100_000, description="Generations between checkpoints; 0 writes none.")


class EvolveConfig(SpecialistConfig):
    """Settings of ``python -m ga.evolve``."""

    market: MarketConfig = MarketConfig()
    search: Literal["champion", "nsga2", "nsga3", "map_elites"] = Field(
        "champion",
        description="What is searched for: one champion; a front of net return, drawdown and turnover "
        "(nsga2, nsga3); or the best of every way of behaving (map_elites, extra diversity).",
    )
    front: FrontConfig = FrontConfig()
    archive: ArchiveConfig = ArchiveConfig()
    workers: WorkersConfig = WorkersConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    runs: str = Field("experiments/runs", description="Folder of runs; the trial ledger lies beside it.")
    tearsheet: bool = Field(
        False,
        description="Whether to write the champion's tear sheet and stress tests as well; some seconds.",
    )
    mirror: str | None = Field(
        None,
        description="Optuna storage that shows every generation as a trial, for example "
        "sqlite:///evolution.db (extra studies).",
    )

    def digest(self) -> str:
        """Return the SHA-256 of all settings that the result depends on."""
        document = self.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


_WITHOUT_EFFECT = {"workers", "checkpoints", "runs", "tearsheet", "mirror"}

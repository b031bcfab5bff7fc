"""The settings of ``python -m experiments.tune``."""

import hashlib
import json
from typing import Any, Self

from pydantic import Field, model_validator

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.venue import Venue
from configs.load import Config
from experiments.ranges import Range
from experiments.studies import PruningConfig, SamplingConfig
from forecasters.settings import ForecastConfig

#: Names among the parameters of a trial, which no setting of a forecaster can have.
DOWN, UP = "thresholds.down", "thresholds.up"


class ObjectiveConfig(Config):
    """What is maximized: the mean over folds of F1 macro less a penalty for drawdowns of the signal."""

    drawdown_weight: float = Field(
        0.1, ge=0, le=10, description="F1 that a drawdown of all that is there costs, beyond the tolerated."
    )
    drawdown_tolerated: float = Field(
        0.1, ge=0, lt=1, description="Drawdown of a fold, a fraction of equity, that costs nothing."
    )
    thresholds: Range | None = Field(
        Range(low=0.0, high=0.15),
        description="By how much the probability of a direction must exceed its share in general before it "
        "is decided; tried for down and for up. null: decisions as forecasters.train makes them.",
    )

    @model_validator(mode="after")
    def _of_probabilities(self) -> Self:
        if self.thresholds is not None:
            ends = self.thresholds.ends()
            if not all(type(end) in (int, float) and 0.0 <= end < 1.0 for end in ends):
                raise ValueError("thresholds must lie between 0 and 1")
        return self

    def penalty(self, drawdown: float) -> float:
        """Return what a drawdown costs; both at least 0."""
        return self.drawdown_weight * max(0.0, drawdown - self.drawdown_tolerated)


class TuneConfig(ForecastConfig):
    """Settings of ``python -m experiments.tune``: those of ``forecasters.train``, and how to search."""

    target: str = Field("forecasters.xgboost", description="What is tuned: forecasters.<name>.")
    trials: int = Field(150, ge=1, le=100_000, description="Trials in all, those given up included.")
    hold_out: int = Field(
        4,
        ge=1,
        le=1_000,
        description="Spans of the schedule at the end that the search never sees, and that judge what it "
        "has found.",
    )
    space: dict[str, Range] = Field(
        {}, description="Ranges beside or instead of those in the file of the forecaster."
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    sampling: SamplingConfig = SamplingConfig()
    pruning: PruningConfig = PruningConfig()
    costs: Costs = Costs()
    limits: RiskLimits = RiskLimits()
    venue: Venue = Venue()

    @model_validator(mode="before")
    @classmethod
    def _model_of_target(cls, given: Any) -> Any:
        # So that a setting of the model can be given without the name, which the target has said.
        if isinstance(given, dict) and isinstance(given.get("model", {}), dict):
            target = str(given.get("target", cls.model_fields["target"].default))
            given = {
                **given,
                "model": {"name": target.removeprefix("forecasters."), **given.get("model", {})},
            }
        return given

    def parameters(self) -> dict[str, Range]:
        """Return all that a trial chooses: settings of the forecaster, and thresholds."""
        threshold = self.objective.thresholds
        return dict(self.space) | ({} if threshold is None else {DOWN: threshold, UP: threshold})

    def digest(self) -> str:
        """Return the SHA-256 of all settings that a trial depends on; their number may grow."""
        document = self.model_dump(mode="json", exclude={"runs", "trials"})
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

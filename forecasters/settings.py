"""The settings of ``python -m forecasters.train``."""

import hashlib
import json
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from compute.seeds import MAX_SEED
from configs.load import Config, PluginConfig
from forecasters.calibration import Kind
from market.features.cross import JoinedFeaturesConfig
from market.features.dataset import DatasetConfig, LabelConfig
from market.sources.selection import MarketConfig
from market.sources.series import ExternalConfig
from market.splits import Split, rolling_origin, walk_forward

#: Most bars of a span; beyond all bars that anybody has.
MOST_BARS = 100_000_000


class ScheduleConfig(Config):
    """When a forecaster is trained anew, and on what."""

    span: Literal["month", "quarter", "year"] = Field(
        "quarter", description="Calendar span after which it is trained anew, and which it answers for."
    )
    train_spans: int = Field(8, ge=1, le=1000, description="Whole spans of training before the first test.")
    every_bars: int | None = Field(
        None, ge=1, le=MOST_BARS, description="Bars of a span, in place of the calendar; by default none."
    )
    train_bars: int | None = Field(
        None,
        ge=1,
        le=MOST_BARS,
        description="Bars of training before the first test, with every_bars; by default train_spans times "
        "as many.",
    )
    first_bars: int | None = Field(
        None, ge=1, le=MOST_BARS, description="Bars of the first test alone; by default every_bars."
    )
    expanding: bool = Field(True, description="Train on all that lies before; false: on the latest spans.")
    validation: float = Field(
        0.15, gt=0, lt=0.9, description="Share of the training rows, the latest, that stops and calibrates."
    )
    embargo_bars: int = Field(
        288, ge=0, le=100_000, description="Bars left out before validation and test, beyond the labels."
    )
    latest: int | None = Field(None, ge=1, description="Only the latest so many spans; by default all.")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        # Files name every setting, so what counts is whether one was changed, not whether it was named.
        if self.every_bars is None:
            for name in ("train_bars", "first_bars"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} counts with every_bars alone, which is not given; give both")
        elif self.span != (usual := type(self).model_fields["span"].default):
            raise ValueError(
                f"span is {self.span} and every_bars {self.every_bars}; spans of bars know no calendar, so "
                f"span must be left at {usual}"
            )
        return self

    def splits(
        self, time: np.ndarray, known_at: np.ndarray | None = None, embargo: int = 0
    ) -> tuple[Split, ...]:
        """Return all folds of a clock, oldest first; ``latest`` is not asked.

        Parameters
        ----------
        time : int64 (n,)
            Close of each bar, ns UTC.
        known_at : int64 (n,), optional
            When the label of each row is settled, ns UTC; training is purged of those that reach the test.
        embargo : int
            Bars between training and test, beyond the purge.

        Raises
        ------
        DataError
            If there are too few bars for one.
        """
        if self.every_bars is None:
            return walk_forward(
                time, self.span, self.train_spans,
                expanding=self.expanding, embargo=embargo, known_at=known_at,
            )  # fmt: skip
        return rolling_origin(
            time, self.train_bars or self.train_spans * self.every_bars, self.every_bars, self.first_bars,
            expanding=self.expanding, embargo=embargo, known_at=known_at,
        )  # fmt: skip

    def training(self) -> str:
        """Return how much is trained on before the first test, in words: 8 quarters."""
        if self.every_bars is None:
            return f"{self.train_spans} {self.span}s"
        return f"{self.train_bars or self.train_spans * self.every_bars:,} bars"


class SelectionConfig(Config):
    """Which columns are read, chosen anew in each fold on the rows it is fitted on."""

    by: Literal["none", "importance", "mutual_information", "correlation"] = Field(
        "none",
        description="Score of a column: its importance to a forest, its mutual information with the class, "
        "or its rank correlation with the return; none reads all columns.",
    )
    keep: int = Field(60, ge=1, le=100_000, description="Most columns to keep.")
    redundant: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Of columns with a rank correlation beyond this, the one with the better score is kept.",
    )


class ThresholdsConfig(Config):
    """By how much the probability of a direction must exceed its share before it is decided."""

    down: float = Field(0.0, ge=0, le=1, description="For down; 0 asks nothing.")
    up: float = Field(0.0, ge=0, le=1, description="For up.")


class LearningConfig(Config):
    """What examples count, and what becomes of the answers."""

    class_weights: bool = Field(
        True, description="Whether all classes count the same in total, however rare they are."
    )
    uniqueness: bool = Field(True, description="Whether labels that overlap share what they count.")
    calibration: Kind = Field(
        "bias_corrected", description="none, temperature, bias_corrected or isotonic, on validation rows."
    )
    decision: Literal["balanced", "likeliest"] = Field(
        "balanced",
        description="The class most likely against its share of the validation rows, or simply most likely.",
    )
    thresholds: ThresholdsConfig = ThresholdsConfig()
    selection: SelectionConfig = Field(
        SelectionConfig(),
        description="Which columns are read; the name of a score alone stands for its rest.",
    )

    @field_validator("selection", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return {"by": value} if isinstance(value, str) else value


class ForecastConfig(Config):
    """Settings of ``python -m forecasters.train``."""

    model: PluginConfig = PluginConfig(name="xgboost")
    market: MarketConfig = MarketConfig()
    features: JoinedFeaturesConfig = JoinedFeaturesConfig(names="full")
    peers: dict[str, str] = Field({}, description="Other symbols by name, and the files of their bars.")
    peer_max_age: str = Field("3h", description="Age from which a peer's price is not known any more.")
    external: ExternalConfig | None = Field(None, description="External series to join, external.yaml.")
    label: LabelConfig = LabelConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    learning: LearningConfig = LearningConfig()
    baselines: tuple[str, ...] = Field(
        ("majority", "last_sign", "ar1"), description="Forecasters to measure beside it on the same rows."
    )
    bootstrap_paths: int = Field(
        200, ge=20, le=100_000, description="Paths of the bootstrap that says whether it leads a baseline."
    )
    runs: str = Field("experiments/runs", description="Folder of runs.")
    seed: int = Field(7, ge=0, le=MAX_SEED, description="Root of all random streams.")

    @field_validator("baselines")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("must name each baseline once")
        return names

    @model_validator(mode="after")
    def _of_a_data_set(self) -> Self:
        self.dataset()
        return self

    def dataset(self) -> DatasetConfig:
        """Return what of it says how features and labels are made."""
        parts = ("market", "features", "peers", "peer_max_age", "external", "label")
        return DatasetConfig(**{part: getattr(self, part) for part in parts}, out=None)

    def rivals(self) -> tuple[str, ...]:
        """Return the baselines, the model itself left out."""
        return tuple(name for name in self.baselines if name != self.model.name)

    def digest(self) -> str:
        """Return the SHA-256 of all settings that the result depends on."""
        document = self.model_dump(mode="json", exclude={"runs"})
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

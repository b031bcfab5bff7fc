"""A data set for forecasters: features, labels and splits of some bars, and the hash of its content.

The label looks ahead, so nothing on the way from bars to orders may import this module.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from configs.load import Config, ConfigError, InputError, validate
from market.bars import Bars, timeframe_ns, timeframe_text
from market.external import ExternalSeries
from market.features.cross import JoinedFeaturesConfig, joined
from market.features.pipeline import FeaturePipeline, FeaturesConfig, FeatureTable
from market.features.quality import ColumnQuality, is_constant, measured
from market.labels import Labels, direction, forward_return, horizon_bars, triple_barrier
from market.sources.selection import MarketConfig
from market.sources.series import ExternalConfig, external_join
from market.splits import Split, holdout
from market.table import DataError, Table, same_rows

FORMAT = 1
SPANS = ("train", "validation", "test")


class LabelConfig(Config):
    """What the rows are to foretell, see :mod:`market.labels`."""

    kind: Literal["triple_barrier", "direction", "return"] = Field(
        "triple_barrier", description="Which barrier is touched first, or the sign of the return."
    )
    horizon: str = Field("24h", description="Bars such as 20, or a time of whole bars such as 4h.")
    up: float = Field(1.0, gt=0, le=100, description="Distance of the upper barrier, in expected moves.")
    down: float = Field(1.0, gt=0, le=100, description="Distance of the lower barrier, in expected moves.")
    volatility: str = Field("volatility_24", description="Feature that scales the barriers, per bar.")
    band: float = Field(0.0, ge=0, le=1, description="Returns within this fraction count as no direction.")

    @field_validator("horizon", mode="before")
    @classmethod
    def _text(cls, horizon: object) -> object:
        return str(horizon) if isinstance(horizon, int) and not isinstance(horizon, bool) else horizon

    def labels(self, bars: Bars) -> Labels:
        """Return the labels of bars.

        Raises
        ------
        ConfigError
            If the horizon is no whole number of bars, or there is no such feature.
        """
        if self.kind == "return":
            return forward_return(bars, self.horizon)
        if self.kind == "direction":
            return direction(bars, self.horizon, self.band)
        names = {"names": (self.volatility,)}
        scale = FeaturePipeline(validate(FeaturesConfig, names, "label.volatility")).update(bars)
        return triple_barrier(bars, self.horizon, self.up, self.down, scale.column(self.volatility))


class SpansConfig(Config):
    """Which rows teach, choose and judge, in this order of time."""

    train: float = Field(0.7, gt=0, lt=1, description="Share of the rows to learn from.")
    validation: float = Field(0.15, ge=0, lt=1, description="Share of the rows to choose on.")
    embargo_bars: int = Field(
        288, ge=0, le=100_000, description="Bars left out before each span, beyond the span of a label."
    )


class DatasetConfig(Config):
    """Settings of ``python -m market.features``."""

    market: MarketConfig = MarketConfig()
    features: JoinedFeaturesConfig = JoinedFeaturesConfig(names="full")
    peers: dict[str, str] = Field(
        {}, description="Other symbols by name, and the files of their bars, read as the market's is."
    )
    peer_max_age: str = Field("3h", description="Age from which a peer's price is not known any more.")
    external: ExternalConfig | None = Field(None, description="External series to join, external.yaml.")
    label: LabelConfig = LabelConfig()
    split: SpansConfig = SpansConfig()
    out: str | None = Field("data/features", description="Folder of data sets; null writes none.")

    @field_validator("peer_max_age")
    @classmethod
    def _duration(cls, text: str) -> str:
        try:
            timeframe_ns(text)
        except InputError as error:
            raise ValueError(str(error)) from None
        return text


@dataclass(frozen=True, eq=False)
class Dataset:
    """Features and labels on one clock, and which rows are for what.

    Parameters
    ----------
    bars : Bars (n,)
    features : Table (n, c)
        Columns that vary over the training rows.
    labels : Labels (n,)
    split : Split
        Training, validation and test rows. A training label never reaches a later span.
    feature_version : str
        Of the pipeline, all its columns included.
    constant : tuple of str
        Columns that were dropped, since they do not vary over the training rows.
    """

    bars: Bars
    features: Table
    labels: Labels
    split: Split
    feature_version: str
    constant: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        same_rows(self.bars, self.features)
        if not np.array_equal(self.labels.time, self.bars.time):
            raise DataError(f"{self.bars.label}: {self.labels.name} stands on another clock than the bars")

    @property
    def spans(self) -> dict[str, slice]:
        """Rows by name; an empty validation is left out."""
        found = {name: getattr(self.split, name) for name in SPANS}
        return {name: rows for name, rows in found.items() if rows.stop > rows.start}

    def arrays(self, rows: slice) -> dict[str, np.ndarray]:
        """Return a span as plain arrays: time, x, label, known, known_at, ret."""
        labels = self.labels
        return {
            "time": self.features.time[rows],
            "x": self.features.values[rows],
            "label": labels.value[rows],
            "known": labels.known[rows],
            "known_at": labels.known_at[rows],
            "ret": labels.ret[rows],
        }

    def version(self) -> str:
        """Return 16 hexadecimal digits: the hash of every name, value, label and span."""
        head = [FORMAT, self.feature_version, self.features.names, self.labels.name, self.bars.label]
        digest = hashlib.sha256(json.dumps(head).encode())
        for name, rows in self.spans.items():
            digest.update(f"|{name} {rows.start} {rows.stop}|".encode())
            for array in self.arrays(rows).values():
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def quality(self) -> list[ColumnQuality]:
        """Return the figures of every column; the label of a test row is not looked at."""
        return measured(self.features, self.spans, self.labels.ret, self.labels.known)


def joins(config: DatasetConfig, interval_ns: int) -> Iterator:
    """Yield the stages that join peers and external series, and their names by kind.

    Raises
    ------
    ConfigError, DataError
        If a file is missing or wrong, or its bars have another timeframe.
    """
    if config.peers:
        from market.sources.files import read_bars

        series = []
        for name, path in config.peers.items():
            bars, _ = read_bars(path, repairs=config.market.repairs, accept=config.market.accept)
            if bars.interval_ns != interval_ns:
                raise ConfigError(
                    f"peers.{name}: {path} has bars of {timeframe_text(bars.interval_ns)}; they must have "
                    f"{timeframe_text(interval_ns)}"
                )
            series.append(ExternalSeries.of_bars(bars, "close", name))
        yield "peers", joined(series, timeframe_ns(config.peer_max_age)), tuple(config.peers)
    if config.external is not None:
        join = external_join(config.external, events=True)
        yield "series", join, tuple(name for name in join.names if "." not in name)


def computed(bars: Bars, config: DatasetConfig) -> FeatureTable:
    """Return the features of bars, with those of peers and external series; no column is left out.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong.
    """
    if config.features.peers or config.features.series:
        raise ConfigError(
            "features.peers and features.series follow from the files; name these under peers and external"
        )
    names, tables = {}, []
    for kind, join, found in joins(config, bars.interval_ns):
        names[kind] = found
        tables.append(join.update(bars))
    table = None
    if tables:
        columns = tuple(name for one in tables for name in one.names)
        table = Table(bars.time, np.hstack([one.values for one in tables]), columns)
    chosen = validate(JoinedFeaturesConfig, {**config.features.model_dump(), **names}, "features")
    return FeaturePipeline(chosen).update(bars, table)


def build(bars: Bars, config: DatasetConfig) -> Dataset:
    """Return features, labels and splits of bars.

    Raises
    ------
    ConfigError, DataError
        If a setting is wrong, or there are too few bars for the splits.
    """
    features = computed(bars, config)
    labels = config.label.labels(bars)
    purge = horizon_bars(config.label.horizon, bars.interval_ns)
    split = holdout(
        slice(min(features.warmup, len(bars)), len(bars)),
        train=config.split.train,
        validation=_validation(config.split),
        purge=purge,
        embargo=config.split.embargo_bars,
    )
    kept = [name for name in features.names if not is_constant(features.column(name)[split.train])]
    constant = tuple(name for name in features.names if name not in kept)
    return Dataset(bars, features.select(kept), labels, split, features.version, constant)


def _validation(split: SpansConfig) -> float:
    if split.train + split.validation >= 1:
        raise ConfigError(
            f"split: train is {split.train:g} and validation {split.validation:g}; together they must leave "
            f"rows to judge on"
        )
    return split.validation


def shares(labels: Labels, rows: slice) -> dict[str, float]:
    """Return the share of each class among the rows that have a label; empty where none has."""
    value = labels.value[rows][labels.known[rows]]
    classes = (("down", -1), ("none", 0), ("up", 1))
    return {name: float((value == one).mean()) for name, one in classes} if value.size else {}

"""``FeaturePipeline``: bars in, one row of features per bar out, whole years or bar by bar."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from configs.load import Config, did_you_mean
from market.bars import Bars
from market.features.feature import (
    BAR_COLUMNS,
    FEATURES,
    FORGOTTEN,
    SOURCES,
    Feature,
    JoinedColumn,
    feature_names,
    ordered,
)
from market.kernels import STILL
from market.table import DataError, Table, same_rows, utc

#: Prices and volumes beyond these read as these: far outside any market, near enough that no square of a
#: price, a volume or their product leaves float64. Every value after the warm-up is therefore finite.
PRICE_LIMITS = (1e-60, 1e60)
VOLUME_LIMITS = (0.0, 1e60)
#: Extra and joined columns beyond these read as these, for the same reason.
EXTRA_LIMITS = (-1e60, 1e60)
#: Rows computed at once. A longer input is taken in pieces, which changes no bit and bounds the memory.
BLOCK_ROWS = 16_384
#: Rows after which the kept past moves to the front of the working table again. Moving it for every single
#: bar would cost more than most features do.
SPARE_ROWS = 512


@dataclass(frozen=True, eq=False)
class FeatureTable(Table):
    """Features on the clock of their bars.

    Parameters
    ----------
    time, values, names
        As in :class:`market.table.Table`; one column per feature.
    version : str
        Hash of the features' specification; fitted things refuse another one.
    warmup : int
        Leading rows of *this* table in which NaN is allowed.

    Raises
    ------
    DataError
        If a value after the warm-up is not finite.
    """

    version: str = ""
    warmup: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = ~np.isfinite(self.values[self.warmup :])
        if unknown.any():
            row, column = (int(i) for i in np.argwhere(unknown)[0])
            raise DataError(
                f"features: {self.names[column]} is {self.values[self.warmup + row, column]} at "
                f"{utc(self.time[self.warmup + row])} (row {self.warmup + row}), after the warm-up of "
                f"{self.warmup} rows; every feature must be finite there"
            )

    def __getitem__(self, rows: slice) -> Self:
        """Return the rows of a slice with step 1; the warm-up shrinks by the rows left out in front."""
        part = Table(self.time, self.values, self.names)[rows]
        start = rows.indices(len(self))[0]
        return replace(self, time=part.time, values=part.values, warmup=max(0, self.warmup - start))


class FeaturesConfig(Config):
    """Which features are computed."""

    names: Annotated[
        Literal["all", "full"] | tuple[str, ...],
        Field(
            default="all",
            description="Feature columns in order; or all: the core set by name; or full: every column that "
            "bars alone give, by name.",
        ),
    ]

    def selected(self) -> list[Feature]:
        """Return the features, in the order of their columns."""
        names = feature_names(self.names) if isinstance(self.names, str) else self.names
        return [FEATURES.get(name) for name in names]

    @field_validator("names")
    @classmethod
    def _known(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(names, str):
            return names
        if not names:
            raise ValueError("must name at least one feature, or be all")
        for name in names:
            if name not in FEATURES:
                raise ValueError(
                    f"must hold known features; {name!r} is none{did_you_mean(name, FEATURES.names())}"
                )
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"must name each feature once; {twice} is there twice")
        return names


class FeaturePipeline:
    """The stage that computes features.

    Row t is a function of bars, and rows of the joined table, up to t. Windows and averages count bars, not
    hours: a bar that is missing is not made up.

    Parameters
    ----------
    config : FeaturesConfig, optional
        Default: the core set.

    Attributes
    ----------
    names : tuple of str
        Feature columns, in order.
    joined : tuple of str
        Columns of the joined table that they read; empty where bars are enough.
    version : str
        16 hexadecimal digits: hash of names, formulas' revisions and parameters.
    warmup : int
        Rows until every feature is known and no longer depends on where the stream began.
    warmups : dict of str to int
        The same per feature; a column is NaN in its own first rows.
    """

    def __init__(self, config: FeaturesConfig | None = None) -> None:
        self.config = config or FeaturesConfig()
        found = self.config.selected()
        self.names = tuple(feature.name for feature in found)
        self.warmups = {feature.name: feature.warmup for feature in found}
        self.warmup = max(self.warmups.values())
        self.version = _version({feature.name: feature.node.specification() for feature in found})
        nodes = ordered([*BAR_COLUMNS, *(feature.node for feature in found)])
        self.joined = tuple(node.name for node in nodes if isinstance(node, JoinedColumn))
        place = {node: i for i, node in enumerate(nodes)}
        self._columns = np.array([place[feature.node] for feature in found])
        self._sources = [
            (node, place[node]) for node in nodes[len(BAR_COLUMNS) :] if isinstance(node, SOURCES)
        ]
        self._plan = [
            (node.open(), tuple(place[inner] for inner in node.inputs), place[node])
            for node in nodes
            if not isinstance(node, SOURCES)
        ]
        # One row per node: rows kept for the windows of the next chunk, then room for new ones. Before the
        # first bar they are NaN, so a window that reaches back further than its declared warm-up shows.
        self._kept = max(node.lookback for node in nodes) - 1
        self._work = np.full((len(nodes), self._kept), np.nan)
        self._end = self._kept
        self._first_known = np.array([feature.warmup for feature in found])
        self._seen = 0
        self._stream: tuple[str, int, str] | None = None  # symbol, interval and label of the bars so far
        self._last_time = 0

    def fresh(self) -> Self:
        """Return the same features with empty memory."""
        return type(self)(self.config)

    def update(self, new: Bars, joined: Table | None = None) -> FeatureTable:
        """Return one row per new bar.

        Parameters
        ----------
        new : Bars
            Bars after all earlier ones, of the same symbol and interval; any number of them.
        joined : Table, optional
            Rows on the clock of ``new``: what an :class:`market.external.AsOfJoin` returns. Needed where
            :attr:`joined` names columns.

        Returns
        -------
        FeatureTable
            Each column NaN in its own warm-up.

        Raises
        ------
        DataError
            If the bars are of another symbol or interval, or do not come after the earlier ones; if a column
            that is read is missing, or the joined table stands on another clock.
        """
        self._check(new)
        if joined is not None:
            same_rows(new, joined)
        sources = [(_known(node.read(new, joined)), place) for node, place in self._sources]
        values = np.empty((len(new), len(self.names)))
        for start in range(0, len(new), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            self._advance(new.values[block, :5], [(read[block], place) for read, place in sources])
            rows = slice(self._end - len(values[block]), self._end)
            values[block] = self._work[self._columns, rows].T
        warmup = max(0, self.warmup - self._seen)
        if warmup:
            rows = np.arange(self._seen, self._seen + min(len(new), warmup))
            values[: rows.size][rows[:, None] < self._first_known] = np.nan
        self._seen += len(new)
        if self._work.shape[1] > self._kept + SPARE_ROWS:
            self._work = self._work[:, self._end - self._kept : self._end].copy()
            self._end = self._kept
        if len(new):
            self._stream = self._stream or (new.symbol, new.interval_ns, new.label)
            self._last_time = int(new.time[-1])
        values.flags.writeable = False
        return FeatureTable(new.time, values, self.names, self.version, warmup)

    def _advance(self, bars: np.ndarray, sources: list[tuple[np.ndarray, int]]) -> None:
        work, first = self._room(len(bars))
        end = first + len(bars)
        np.clip(bars[:, :4].T, *PRICE_LIMITS, out=work[:4, first:end])
        np.clip(bars[:, 4], *VOLUME_LIMITS, out=work[4, first:end])
        for read, place in sources:
            np.clip(read, *EXTRA_LIMITS, out=work[place, first:end])
        inputs = work[:, first - self._kept : end]
        inputs.flags.writeable = False  # kernels declare their inputs read-only
        for memory, places, place in self._plan:
            memory.advance(tuple(inputs[i] for i in places), self._kept, work[place, first:end])
        self._end = end

    def _room(self, n: int) -> tuple[np.ndarray, int]:
        # The working table with room for n more rows, and where they begin.
        if self._end + n > self._work.shape[1]:
            past = self._work[:, self._end - self._kept : self._end]
            self._work = np.empty((len(past), self._kept + max(n, SPARE_ROWS)))
            self._work[:, : self._kept] = past
            self._end = self._kept
        return self._work, self._end

    def _check(self, new: Bars) -> None:
        if self._stream is None or len(new) == 0:
            return
        if (new.symbol, new.interval_ns) != self._stream[:2]:
            raise DataError(
                f"features: the stream holds {self._stream[2]}, the new bars are {new.label}; "
                f"each symbol and timeframe needs its own pipeline"
            )
        if new.time[0] <= self._last_time:
            raise DataError(
                f"features: {new.label} goes on at {utc(new.time[0])}, but bars until "
                f"{utc(self._last_time)} are already answered; new bars must come after them"
            )


def _known(read: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(read), read, np.nan)


def _version(specification: dict[str, list]) -> str:
    constants = {"forgotten": FORGOTTEN, "still": STILL, "price": PRICE_LIMITS, "volume": VOLUME_LIMITS}
    text = json.dumps([constants, list(specification.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]

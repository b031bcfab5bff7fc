"""``Strategy``: the one causal object that is validated, saved and traded.

Bars go in, and a :class:`ensemble.signals.Blend` comes out: what was decided at each close, and why::

    bars -> features -> regimes -> signals -> blend -> gates -> size -> exposure from the next open

A strategy is a stage: a backtest is one big update, live trading is updates of one bar, and both answer the
same bits. It never answers for a row that taught one of its parts.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from backtest.limits import RiskLimits
from configs.load import Config, ConfigError, validate
from ensemble.blenders import Blender, load_blender
from ensemble.gating import Gates, GatingConfig, require_known
from ensemble.informed import informed, wanted
from ensemble.keeping import read_whole, sealed, write_whole
from ensemble.signals import Blend, SignalTable
from ensemble.sizing import Sizing, SizingConfig
from ensemble.sources import Source, checked_name, load_source
from market.bars import Bars, timeframe_text
from market.features.cross import JoinedFeaturesConfig
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.table import DataError, Table, same_rows, utc
from regimes.detector import Detector, load_detector
from regimes.path import PathConfig, PathFilter
from regimes.regime import RegimeProbabilities

FORMAT = 1
DOCUMENT, DETECTOR, BLENDER, SOURCES = "strategy.json", "detector", "blender", "sources"
#: Settings among the parameters of a strategy.
_SETTINGS: dict[str, type[Config]] = {
    "features": FeaturesConfig,
    "forecast_features": JoinedFeaturesConfig,
    "path": PathConfig,
    "gating": GatingConfig,
    "sizing": SizingConfig,
    "limits": RiskLimits,
}


class Strategy:
    """Everything that decides, as one stage.

    Parameters
    ----------
    features : FeaturesConfig
        What detector, specialists and gates read.
    forecast_features : JoinedFeaturesConfig or None
        What forecasters read; None without forecasters. Of bars alone: no peers and no external series.
    detector : Detector
        Fitted.
    path : PathConfig
    sources : sequence of Source
        At least one, of different names.
    blender : Blender
    gating : GatingConfig
    sizing : SizingConfig
    limits : RiskLimits
        Largest exposure, and whether short is refused.
    fitted_until : int
        Time of the last bar that influenced anything, selection included, nanoseconds UTC; not before that of
        any part. The exposure of rows up to then is 0.
    label : str
        What it trades, for messages: ``BTC/USDT 1h``.
    interval_ns : int
        Length of a bar, nanoseconds.

    Attributes
    ----------
    warmup : int
        Rows from the first one until features, regimes and signals, volatility and its rank, no longer depend
        on where the rows began. What hysteresis and bands keep has no fixed length: it ends whenever a
        position is closed.

    Raises
    ------
    ConfigError
        If a part reads what another does not give.
    DataError
        If a part has seen more than ``fitted_until`` says.

    Notes
    -----
    What the parts do where something is missing: a forecaster without a whole window (a gap, the first rows)
    has no opinion and its vote is shared by the others; without any opinion the answer is flat. A specialist
    is asleep, and flat, where a feature is not known. Windows and means count bars, not hours: a gap only
    makes forecasters abstain for a window, and is shared among its bars by the volatility. A frozen feed
    looks like a market without volatility: ``sizing.least_volatility`` bounds what is bought then.
    """

    def __init__(
        self,
        features: FeaturesConfig,
        forecast_features: JoinedFeaturesConfig | None,
        detector: Detector,
        path: PathConfig,
        sources: Sequence[Source],
        blender: Blender,
        gating: GatingConfig,
        sizing: SizingConfig,
        limits: RiskLimits,
        fitted_until: int,
        label: str,
        interval_ns: int,
    ) -> None:
        self.features = features
        self.forecast_features = forecast_features
        self.path = path
        self.gating = gating
        self.sizing = sizing
        self.limits = limits
        self.fitted_until = int(fitted_until)
        self.label = label
        self.interval_ns = int(interval_ns)
        self.detector = detector.fresh()
        self.sources = tuple(source.fresh() for source in sources)
        self.blender = blender.fresh()
        self._core = FeaturePipeline(features)
        self._wide = None if forecast_features is None else FeaturePipeline(forecast_features)
        self._labels = PathFilter(path)
        self._gates = Gates(gating)
        self._sizing = Sizing(sizing, limits)
        self._heard_until: int | None = None
        self._decided_until: int | None = None
        self._way: str | None = None
        self._midway = False
        self._fingerprint: str | None = None
        self._check_parts()
        heard = [self._reads(source).warmup + source.warmup for source in self.sources]
        regimes = self._core.warmup + self.detector.warmup + self._labels.warmup
        later = (getattr(self.blender, "warmup", 0), self._gates.warmup, self._sizing.warmup)
        self.warmup = max(regimes, *heard) + sum(later)

    # A stage

    def fresh(self) -> Self:
        """Return the same strategy with empty memory."""
        other = self.with_blender(self.blender)
        other._fingerprint = self._fingerprint
        return other

    def with_blender(self, blender: Blender) -> Self:
        """Return the same strategy with another blender, fitted on the same members, and empty memory."""
        return type(self)(
            self.features, self.forecast_features, self.detector, self.path, self.sources, blender,
            self.gating, self.sizing, self.limits, self.fitted_until, self.label, self.interval_ns,
        )  # fmt: skip

    def branched(self) -> Self:
        """Return a strategy that can :meth:`blend` on from where this one stands, apart from it.

        Only what the second half of a decision remembers is copied: all else is shared, and only one of the
        two may hear again.
        """
        other = copy.copy(self)
        for name in ("blender", "_gates", "_sizing"):
            setattr(other, name, copy.deepcopy(getattr(self, name)))
        return other

    def update(self, new: Bars) -> Blend:
        """Return what is decided at the close of each new bar.

        Parameters
        ----------
        new : Bars
            Bars after all earlier ones, of the same interval; any number of them.

        Raises
        ------
        DataError
            If the bars do not go on where the earlier ones ended. Nothing has changed then.
        """
        self._follow("update", new, self._heard_until)
        core = self._core.update(new)
        wide = None
        if self._wide is not None:
            wide = core if self._wide.version == self._core.version else self._wide.update(new)
        return self._decided(new, core, wide)

    def decide(self, bars: Bars, core: Table, wide: Table | None = None) -> Blend:
        """Return the same rows as :meth:`update` where the features are there already.

        Parameters
        ----------
        bars : Bars (n,)
        core : Table (n, f)
            Of ``features``, from the same first bar on.
        wide : Table (n, g), optional
            Of ``forecast_features``; needed with forecasters.
        """
        self._follow("decide", bars, self._heard_until)
        return self._decided(bars, core, wide)

    def hear(
        self, bars: Bars, core: Table, wide: Table | None = None
    ) -> tuple[SignalTable, RegimeProbabilities, Table]:
        """Return the first half of a decision: signals, regime probabilities, and label with confidence.

        A signal is NaN in rows that its source was fitted on.
        """
        self._follow("halves", bars, self._heard_until)
        return self._hear(bars, core, wide)

    def blend(
        self, bars: Bars, core: Table, signals: SignalTable, regimes: RegimeProbabilities, labels: Table
    ) -> Blend:
        """Return the second half of a decision, from what :meth:`hear` returned."""
        self._follow("halves", bars, self._decided_until)
        return self._blend(bars, core, signals, regimes, labels)

    def _decided(self, bars: Bars, core: Table, wide: Table | None) -> Blend:
        return self._blend(bars, core, *self._hear(bars, core, wide))

    def _hear(
        self, bars: Bars, core: Table, wide: Table | None
    ) -> tuple[SignalTable, RegimeProbabilities, Table]:
        self._midway = True
        given = {"core": core, "forecast": wide}
        for reads, pipeline in (("core", self._core), ("forecast", self._wide)):
            if pipeline is None:
                continue
            if (table := given[reads]) is None:
                raise DataError(f"strategy {self.label}: its forecasters need their features, and got none")
            same_rows(bars, table)
            version = getattr(table, "version", pipeline.version)
            if version != pipeline.version:
                raise DataError(
                    f"strategy {self.label}: reads features {pipeline.version}; these are {version}"
                )
        regimes = self.detector.update(core)
        labels = self._labels.update(regimes)
        values = np.full((len(bars), len(self.sources)), np.nan)
        # Forecasters first: specialists may read what they say.
        for j, source in sorted(enumerate(self.sources), key=lambda one: one[1].kind != "forecaster"):
            table = given[source.reads]
            if columns := wanted(source.columns):
                table = informed(core, columns, dict(zip(self._names, values.T, strict=True)))
            signal = source.update(bars, table, regimes, labels)
            values[:, j] = np.where(bars.time > source.fitted_until, signal, np.nan)
        if len(bars):
            self._heard_until = int(bars.time[-1])
        self._midway = False
        return SignalTable(bars.time, values, self._names), regimes, labels

    def _blend(
        self, bars: Bars, core: Table, signals: SignalTable, regimes: RegimeProbabilities, labels: Table
    ) -> Blend:
        self._midway = True
        same_rows(bars, core, signals, regimes, labels)
        label = labels.column("label").astype(np.int8)
        confidence = labels.column("confidence")
        weights, blended = self.blender.update(signals, regimes, labels, bars)
        # What is not out of sample opens no position and leaves none behind for the first row that is.
        allowed = np.where(bars.time > self.fitted_until, blended, np.nan)
        gated = self._gates.update(allowed, signals, regimes, label, confidence, core)
        exposure = self._sizing.update(bars, gated)
        if len(bars):
            self._decided_until = int(bars.time[-1])
        self._midway = False
        return Blend(bars.time, signals, regimes, label, confidence, weights, blended, gated, exposure)

    # On disk

    def save(self, folder: str | Path) -> None:
        """Write the strategy into a folder of its own: ``strategy.json``, and every part beside it.

        The document holds all settings and the SHA-256 of every file, its own included. A strategy that was
        there before is replaced at once; nothing is ever half there.

        Raises
        ------
        DataError
            If the folder holds something else, or cannot be written.
        """
        write_whole(Path(folder), DOCUMENT, self._document(), self._parts())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return a saved strategy, with empty memory; it answers to the bit as the saved one did.

        Raises
        ------
        InputError
            If a file is missing, is not the one that was saved, or a part is not installed.
        """
        folder = Path(folder)
        path = folder / DOCUMENT
        types = {
            "format": int, "label": str, "interval_ns": int, "fitted_until": int, "sources": list,
            **dict.fromkeys(_SETTINGS, dict), "forecast_features": (dict, type(None)),
        }  # fmt: skip
        document = read_whole(folder, DOCUMENT, "strategy", types)
        if document["format"] != FORMAT:
            raise DataError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
        settings = {
            name: validate(kind, document[name], f"{path}: {name}")
            for name, kind in _SETTINGS.items()
            if document[name] is not None
        }
        found = cls(
            **{"forecast_features": None, **settings},
            detector=load_detector(folder / DETECTOR),
            sources=[load_source(folder / SOURCES / checked_name(name)) for name in document["sources"]],
            blender=load_blender(folder / BLENDER),
            fitted_until=document["fitted_until"],
            label=document["label"],
            interval_ns=document["interval_ns"],
        )
        found._fingerprint = document["digest"]
        return found

    def fingerprint(self) -> str:
        """Return the SHA-256 of settings and parts: who this strategy is, wherever it lies."""
        if self._fingerprint is None:
            with tempfile.TemporaryDirectory() as folder:
                for place, write in self._parts().items():
                    write(Path(folder) / place)
                self._fingerprint = sealed(self._document(), Path(folder))["digest"]
        return self._fingerprint

    def _document(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return {
            "format": FORMAT,
            "label": self.label,
            "interval_ns": self.interval_ns,
            "fitted_until": self.fitted_until,
            "sources": list(self._names),
            **{name: None if one is None else one.model_dump(mode="json") for name, one in settings.items()},
        }

    def _parts(self) -> dict[str, Callable[[Path], None]]:
        parts = {DETECTOR: self.detector.save, BLENDER: self.blender.save}
        return parts | {f"{SOURCES}/{source.name}": source.save for source in self.sources}

    # What must be true

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.sources)

    def _reads(self, source: Source) -> FeaturePipeline:
        return self._wide if source.reads == "forecast" else self._core

    def _follow(self, way: str, new: Bars, last: int | None) -> None:
        if self._way not in (None, way):
            raise ValueError(
                f"this strategy was fed by {self._way} and is now fed by {way}; take a fresh() one, for they "
                f"do not share the memory of the features"
            )
        if self._midway:
            raise ValueError("an earlier update of this strategy failed halfway; take a fresh() one")
        if new.interval_ns != self.interval_ns:
            raise DataError(
                f"strategy {self.label}: the bars are {new.label}; it decides on bars of "
                f"{timeframe_text(self.interval_ns)}"
            )
        if last is not None and len(new) and int(new.time[0]) <= last:
            raise DataError(
                f"strategy {self.label}: bars go on at {utc(new.time[0])}, but bars until {utc(last)} are "
                f"already answered; new bars must come after them"
            )
        self._way = way

    def _check_parts(self) -> None:
        place = f"strategy {self.label}"
        if not self.sources:
            raise ConfigError(f"{place}: has no source; it must have at least one")
        if len(set(self._names)) < len(self._names):
            raise ConfigError(f"{place}: sources are {', '.join(self._names)}; their names must differ")
        if self._wide is not None and self._wide.joined:
            raise ConfigError(
                f"{place}: forecast features read {', '.join(self._wide.joined)} beside the bars; a strategy "
                f"sees the bars alone, so there must be no peers and no external series"
            )
        for name in (*self.detector.columns, *self._gates.columns):
            require_known(name, self._core.names, f"{place}: a column of detector or gates", "feature")
        if self.gating.confirm is not None:
            require_known(self.gating.confirm, self._names, "gating.confirm", "source")
        for source in self.sources:
            pipeline = self._reads(source)
            if pipeline is None:
                raise ConfigError(f"{place}: source {source.name} needs forecast features; there are none")
            if source.interval_ns not in (None, self.interval_ns):
                raise ConfigError(
                    f"{place}: source {source.name} was fitted on bars of "
                    f"{timeframe_text(source.interval_ns)}; the strategy decides on bars of "
                    f"{timeframe_text(self.interval_ns)}"
                )
            if source.version not in (None, pipeline.version):
                raise ConfigError(
                    f"{place}: source {source.name} was fitted on features {source.version}; the settings "
                    f"give {pipeline.version}"
                )
            for name in set(source.columns) - set(wanted(source.columns)):
                require_known(name, pipeline.names, f"{place}: a column of source {source.name}", "feature")
        for what, until in self._seen().items():
            if until is None:
                raise ConfigError(f"{place}: {what} is not fitted; every part must be")
            if until > self.fitted_until:
                raise DataError(
                    f"{place}: is said to be fitted until {utc(self.fitted_until)}, but {what} has seen what "
                    f"was known at {utc(until)}; a strategy carries the latest of its parts"
                )

    def _seen(self) -> dict[str, int | None]:
        seen = {"the detector": self.detector.fitted_until, "the blender": self.blender.fitted_until}
        return seen | {f"source {source.name}": source.fitted_until for source in self.sources}

"""Sources of signals: a specialist that trades its regime, a forecaster whose probabilities become a wish.

A source is a stage: fed bar by bar or at once, it answers the same bits. It says which features it reads,
until when it has seen, and keeps itself in a folder without pickle.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import numpy as np

from ensemble.signals import Kind, Member
from forecasters.fitted import FittedForecaster
from forecasters.forecaster import checked
from forecasters.windows import CLASSES, Examples, examples_of
from market.bars import Bars
from market.saved import read_saved, write_saved
from market.table import DataError, Table, concat
from regimes.path import PATH_COLUMNS
from regimes.regime import UNDECIDED, Regime, RegimeProbabilities
from specialists.family import FAMILIES
from specialists.specialist import Specialist

FORMAT = 1
DOCUMENT = "source.json"
Reads = Literal["core", "forecast"]
Awake = Literal["label", "probability"]
#: Windows that are answered at once, always as many, see :class:`ForecasterSource`: of models that read one
#: row, and of those that read many, for which each costs more.
ROWS_AT_ONCE, WINDOWS_AT_ONCE = 256, 32
#: Share of the rows whose probabilities are less far apart than the scale, and the least scale.
SCALE_QUANTILE, LEAST_SCALE = 0.95, 0.05
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_DOWN, _UP = CLASSES.index("down"), CLASSES.index("up")


class Source(Protocol):
    """Emits one causal signal.

    Attributes
    ----------
    name : str
        Of its column; letters, digits, ``_``, ``-`` and ``.``.
    kind : str
        ``specialist`` or ``forecaster``.
    regime : Regime or None
        What it trades; None: any.
    fitted_until : int
        Time of the last thing that influenced it, nanoseconds UTC.
    reads : str
        Which features: ``core``, or those of the forecasters, ``forecast``.
    columns : tuple of str
        Columns of these that it reads.
    version : str or None
        Of the features it was fitted on; None: any that have the columns.
    interval_ns : int or None
        Length of the bars it was fitted on, nanoseconds; None: any.
    warmup : int
        Rows of known features until it no longer depends on where they began.
    """

    name: str
    kind: Kind
    regime: Regime | None
    fitted_until: int
    reads: Reads
    columns: tuple[str, ...]
    version: str | None
    interval_ns: int | None
    warmup: int

    def fresh(self) -> Self:
        """Return the same source with empty memory."""
        ...

    def update(self, bars: Bars, features: Table, regimes: RegimeProbabilities, labels: Table) -> np.ndarray:
        """Return the signal of each new row, float64 (n,) in [-1, 1]; NaN: no opinion."""
        ...

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one, with empty memory."""
        ...


def member_of(source: Source) -> Member:
    """Return what blenders know of a source."""
    return Member(source.name, source.kind, source.regime)


class SpecialistSource:
    """A specialist's exposure over its largest one; asleep is 0, an opinion, and never NaN.

    Parameters
    ----------
    name : str
    specialist : Specialist
    awake : str
        ``label``: awake where its regime is in force. ``probability``: where the probability of its regime
        is at least the threshold, which may be beside the leading regime, for blenders that weigh by
        probabilities.
    threshold : float
        Of that probability, in 0..1.
    scale : float
        Share of the largest exposure that counts as a full signal; see :meth:`scale_of`. What a full signal
        is worth in risk is for the sizing to say, and gates can mean the same for every source.

    Notes
    -----
    A generalist (regime None) is awake wherever a regime is decided, either way. A specialist of a regime
    that the detector does not tell is never awake by probability.
    """

    kind: ClassVar[Kind] = "specialist"
    reads: ClassVar[Reads] = "core"
    version: ClassVar[str | None] = None
    interval_ns: ClassVar[int | None] = None
    warmup = 0  # it forgets whenever it falls asleep

    def __init__(
        self,
        name: str,
        specialist: Specialist,
        awake: Awake = "label",
        threshold: float = 0.3,
        scale: float = 1.0,
    ) -> None:
        self.name = checked_name(name)
        if awake not in ("label", "probability"):
            raise ValueError(f"awake is {awake!r}; it must be label or probability")
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"threshold is {threshold:g}; it must be a probability above 0")
        if not 0.0 < scale <= 1.0:
            raise ValueError(f"scale is {scale:g}; it must be a share of the largest exposure, above 0")
        self.specialist = specialist
        self.awake = awake
        self.threshold = float(threshold)
        self.scale = float(scale)
        self.regime = specialist.regime
        self.fitted_until = int(specialist.fitted_until)
        self.columns = (*specialist.family.signals, *specialist.family.levels)
        self._stage = specialist.fresh()

    @staticmethod
    def scale_of(signal: np.ndarray) -> float:
        """Return the scale that past signals of scale 1 suggest, in ``LEAST_SCALE``..1.

        95 of 100 positions are below a full signal. Without any position it is 1.
        """
        size = np.abs(signal[np.nan_to_num(signal) != 0.0])
        return float(np.clip(np.quantile(size, SCALE_QUANTILE), LEAST_SCALE, 1.0)) if size.size else 1.0

    def with_specialist(self, specialist: Specialist, scale: float | None = None) -> Self:
        """Return the same source of another specialist, or on another scale, with empty memory."""
        scale = self.scale if scale is None else scale
        return type(self)(self.name, specialist, self.awake, self.threshold, scale)

    def fresh(self) -> Self:
        """Return the same specialist, flat and with empty memory."""
        return self.with_specialist(self.specialist)

    def update(self, bars: Bars, features: Table, regimes: RegimeProbabilities, labels: Table) -> np.ndarray:
        """Return the signal of each new row, float64 (n,) in [-1, 1]."""
        if self.awake == "probability" and self.regime is not None:
            labels = awake_by_probability(regimes, self.regime, self.threshold)
        exposure = self._stage.update(bars, features, labels).column("exposure")
        return np.clip(exposure / (self.specialist.limits.max_exposure * self.scale), -1.0, 1.0)

    def save(self, folder: Path) -> None:
        """Write the specialist and ``source.json`` into a folder."""
        folder = Path(folder)
        self.specialist.save(folder, _family_name(self.specialist))
        document = {
            "format": FORMAT, "kind": self.kind, "name": self.name, "awake": self.awake,
            "threshold": self.threshold, "scale": self.scale,
        }  # fmt: skip
        write_saved(folder / DOCUMENT, document)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved source; InputError if a file is missing or is not what it must be."""
        folder = Path(folder)
        types = {"awake": str, "threshold": (int, float), "scale": (int, float)}
        document = _read(folder, cls.kind, types)
        specialist = Specialist.load(folder)
        return _built(
            folder,
            lambda: cls(
                document["name"], specialist, document["awake"], document["threshold"], document["scale"]
            ),
        )


class ForecasterSource:
    """A fitted forecaster's ``(p_up - p_down) / scale``, cut to [-1, 1].

    NaN where a row has no whole window of known features without a gap, and in rows that are no later than
    what the forecaster has seen: those taught it.

    Windows are answered :attr:`tile` at a time, zeros in the free places, and each at the place that its
    time gives it. A network's sums depend in their last bit on how many windows it is given and on the
    place among them; so they depend on neither where the input is cut nor where it begins.

    Parameters
    ----------
    name : str
    fitted : FittedForecaster
    scale : float
        Distance of the probabilities that counts as a full signal; see :meth:`scale_of`.
    regime : Regime, optional
        The regime it is for; by default any.
    hold : int
        Bars for which each answer stands, as its horizon says: the signal is the mean of the last so many
        answers, as if each were a position of its own that is held until its horizon ends. 1: the latest
        answer alone. Answers that are not there count for nothing.
    """

    kind: ClassVar[Kind] = "forecaster"
    reads: ClassVar[Reads] = "forecast"

    def __init__(
        self,
        name: str,
        fitted: FittedForecaster,
        scale: float,
        regime: Regime | None = None,
        hold: int = 1,
    ) -> None:
        self.name = checked_name(name)
        if not 0.0 < scale <= 1.0:
            raise ValueError(
                f"scale is {scale:g}; it must be a distance of probabilities, above 0 and at most 1"
            )
        self.fitted = fitted
        self.scale = float(scale)
        self.regime = regime
        self.fitted_until = int(fitted.trained_through)
        self.columns = fitted.scaler.names
        self.version = fitted.feature_version
        self.interval_ns = fitted.interval_ns
        self.warmup = fitted.forecaster.lookback - 1
        self.tile = WINDOWS_AT_ONCE if self.warmup else ROWS_AT_ONCE
        if hold < 1:
            raise ValueError(f"hold is {hold}; an answer stands for at least 1 bar")
        self.hold = int(hold)
        self.warmup += self.hold - 1
        self._tail: Table | None = None
        self._said = np.full(self.hold - 1, np.nan)  # the latest answers before the next row

    @staticmethod
    def scale_of(answers: np.ndarray, hold: int = 1) -> float:
        """Return the scale that past answers suggest, in ``LEAST_SCALE``..1.

        95 of 100 of them are signals below a full one. A forecaster that hardly ever tells up from down keeps
        small signals: the scale has a floor. Without any answer it is 1.

        Parameters
        ----------
        answers : float64 (j, 3)
            Probabilities of consecutive rows that did not teach the forecaster; NaN: none.
        hold : int
            Bars for which each answer stands.
        """
        apart = np.abs(_held(_apart(answers), hold))
        apart = apart[~np.isnan(apart)]
        if not apart.size:
            return 1.0
        return float(np.clip(np.quantile(apart, SCALE_QUANTILE), LEAST_SCALE, 1.0))

    def signal(self, answers: np.ndarray) -> np.ndarray:
        """Return probabilities (j, 3) of consecutive rows as signals, float64 (j,); NaN stays NaN."""
        return np.clip(_held(_apart(answers), self.hold) / self.scale, -1.0, 1.0)

    def fresh(self) -> Self:
        """Return the same forecaster with empty memory."""
        return type(self)(self.name, self.fitted, self.scale, self.regime, self.hold)

    def update(self, bars: Bars, features: Table, regimes: RegimeProbabilities, labels: Table) -> np.ndarray:
        """Return the signal of each new row, float64 (n,) in [-1, 1]; NaN: no opinion.

        Raises
        ------
        DataError
            If the features are computed in another way than those it was fitted on.
        """
        fitted = self.fitted
        version = getattr(features, "version", fitted.feature_version)
        if version != fitted.feature_version:
            raise DataError(
                f"source {self.name}: was fitted on features {fitted.feature_version}; these are {version}"
            )
        if not len(features):
            return np.empty(0)
        # Of the rows that taught it, a window's worth is enough: it is asked about none of them.
        lookback = fitted.forecaster.lookback
        first = int(np.searchsorted(features.time, fitted.trained_through, side="right"))
        skipped = max(0, first - lookback)
        new = features[skipped:].select(self.columns)
        rows = new if self._tail is None or skipped else concat([self._tail, new])
        kept = len(rows) - len(new)
        asked = np.arange(kept + first - skipped, len(rows))
        out = np.full(len(features), np.nan)
        found = examples_of(rows, None, asked, lookback, fitted.scaler, interval_ns=fitted.interval_ns)
        if len(found):
            out[skipped + found.rows - kept] = _apart(self._answers(found, rows.time[found.rows]))
        # At least one row, by which a gap before the next chunk is noticed. A view would keep them all.
        tail = rows[max(0, len(rows) - max(lookback - 1, 1)) :]
        self._tail = Table(tail.time.copy(), tail.values.copy(), tail.names)
        said = np.concatenate([self._said, out])
        self._said = said[said.size - self.hold + 1 :]
        return np.clip(_held(said, self.hold)[self.hold - 1 :] / self.scale, -1.0, 1.0)

    def _answers(self, found: Examples, time: np.ndarray) -> np.ndarray:
        # Calibrated probabilities (m, 3), each window at the place of its time in a tile.
        number = time // self.fitted.interval_ns
        place = number % self.tile
        tile = number // self.tile
        # Bars that are closer than their interval would share a place; the later begins a further tile.
        new_tile = np.diff(tile, prepend=tile[0] - 1) != 0
        starts = np.flatnonzero(new_tile | (np.diff(number, prepend=number[0] - 1) == 0))
        forecaster, width = self.fitted.forecaster, (found.lookback, len(found.names))
        answers = np.empty((len(found), len(CLASSES)))
        for start, stop in zip(starts, [*starts[1:], len(found)], strict=True):
            windows = np.zeros((self.tile, *width), np.float32)
            windows[place[start:stop]] = found.windows(slice(start, stop))
            raw = checked(forecaster.predict(windows), self.tile, type(forecaster).__name__)
            answers[start:stop] = self.fitted.calibration.apply(raw)[place[start:stop]]
        return answers

    def save(self, folder: Path) -> None:
        """Write the forecaster, with all that was fitted beside it, and ``source.json`` into a folder."""
        folder = Path(folder)
        self.fitted.save(folder)
        document = {
            "format": FORMAT, "kind": self.kind, "name": self.name, "scale": self.scale,
            "regime": None if self.regime is None else self.regime.text, "hold": self.hold,
        }  # fmt: skip
        write_saved(folder / DOCUMENT, document)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved source; InputError if a file is missing or is not what it must be."""
        folder = Path(folder)
        types = {"scale": (int, float), "regime": (str, type(None)), "hold": int}
        document = _read(folder, cls.kind, types)
        regime = document["regime"]
        found = FittedForecaster.load(folder)
        return _built(
            folder,
            lambda: cls(
                document["name"],
                found,
                document["scale"],
                None if regime is None else Regime.of(regime),
                document["hold"],
            ),
        )


#: What is saved under which kind.
SOURCES: dict[str, type[Source]] = {one.kind: one for one in (SpecialistSource, ForecasterSource)}


def _apart(answers: np.ndarray) -> np.ndarray:
    return answers[:, _UP] - answers[:, _DOWN]


def _held(apart: np.ndarray, hold: int) -> np.ndarray:
    # Mean of the last `hold` answers, added up newest first whatever the input is cut into.
    total = apart.copy()
    known = np.nan_to_num(apart, nan=0.0)
    for lag in range(1, hold):
        total[lag:] += known[:-lag]
    return total / hold


def awake_by_probability(regimes: RegimeProbabilities, regime: Regime, threshold: float) -> Table:
    """Return labels by which a regime is in force wherever its probability is at least the threshold."""
    own = regime.text
    p = regimes.column(own) if own in regimes.names else np.full(len(regimes), np.nan)
    label = np.where(p >= threshold, float(regime), float(UNDECIDED))
    return Table(regimes.time, np.column_stack([label, p]), PATH_COLUMNS)


def load_source(folder: Path) -> Source:
    """Return whichever source was saved in a folder; InputError if there is none or it is damaged."""
    return SOURCES[_read(Path(folder), None, {})["kind"]].load(folder)


def checked_name(name: str) -> str:
    """Return a name that a column and a folder can have.

    Raises
    ------
    DataError
        If it is no such name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(
            f"source: its name is {name!r}; it must be 1 to 64 letters, digits, _, - or ., and begin with "
            f"a letter, a digit or _"
        )
    return name


def _family_name(specialist: Specialist) -> str:
    kind = type(specialist.family)
    for name in FAMILIES:
        if FAMILIES.get(name) is kind:
            return name
    raise ValueError(f"family {kind.__name__} is not registered; what is saved must be found again by a name")


def _read(folder: Path, kind: str | None, types: dict) -> dict:
    path = folder / DOCUMENT
    document = read_saved(path, "source", {"format": int, "kind": str, "name": str})
    if document["format"] != FORMAT:
        raise DataError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
    if document["kind"] not in SOURCES or kind not in (None, document["kind"]):
        raise DataError(
            f"{path}: holds the source kind {document['kind']!r}; it must be {kind or ' or '.join(SOURCES)}"
        )
    return read_saved(path, f"source {document['kind']}", {"name": str, **types}) if types else document


def _built(folder: Path, build: Callable[[], Source]) -> Source:
    try:
        return build()
    except ValueError as error:
        raise DataError(f"{folder / DOCUMENT}: {error}") from error

"""What a blender is, how it is kept on disk, and the arithmetic that blenders share.

A blender makes one signal of many. ``fit`` learns on validation rows, on which the members' signals are out
of sample, and sees no others; ``update`` answers row by row, and row t depends on nothing after it. A member
without an opinion (NaN) abstains, and the others share its vote; where nobody has one the answer is 0.

To add one, derive from :class:`Blender`, write ``_learn`` and ``_answer``, and register the class::

    @BLENDERS.register("mine")
    class Mine(Blender):
        name = "mine"
        def _answer(self, rows): ...
"""

import abc
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from configs.load import Config, validate
from configs.registry import Registry
from ensemble.signals import KINDS, Member, SignalTable, earned
from market.bars import Bars
from market.saved import read_saved, write_saved
from market.table import DataError, Table, same_rows, utc
from regimes.regime import CRISIS_NAMES, Regime, RegimeProbabilities

FORMAT = 1
FILE = "blender.json"
MAX_BYTES = 100_000_000
#: Rows after which the last decision of a span is over: bought at the next open, sold at the one after.
OPEN_ROWS = 2


class Rows(NamedTuple):
    """What a blender reads: signals (n, s), regime probabilities (n, k), labels and bars on one clock.

    ``labels`` has the column ``label``: the regime in force, -1 while undecided.
    """

    signals: SignalTable
    regimes: RegimeProbabilities
    labels: Table
    bars: Bars


class Blender(abc.ABC):
    """Makes one signal of many.

    Attributes
    ----------
    config : Config
        Its settings, of the class ``Config``.
    members : tuple of Member (s,)
        Whose signals it was fitted on, in the order of the columns.
    cost : float
        Fraction paid per unit of turnover.
    fitted_until : int or None
        Time of the last row that influenced the parameters, nanoseconds UTC; None before ``fit``.
    """

    #: The name it is registered under.
    name: ClassVar[str]
    #: Settings of the blender.
    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Config | None = None) -> None:
        self.config = self.Config() if config is None else config
        self.members: tuple[Member, ...] = ()
        self.n_regimes = 0
        self.cost = 0.0
        self.fitted_until: int | None = None

    def fit(
        self,
        signals: SignalTable,
        regimes: RegimeProbabilities,
        labels: Table,
        bars: Bars,
        *,
        members: Sequence[Member],
        cost: float,
        seed: int,
    ) -> Self:
        """Learn from these rows and no others, forget what was streamed, and return self.

        Parameters
        ----------
        signals : SignalTable (n, s)
            Of rows that did not teach the members.
        regimes : RegimeProbabilities (n, k)
        labels : Table (n, ...)
            Column ``label``.
        bars : Bars (n,)
        members : sequence of Member (s,)
            Who emits each column.
        cost : float
            Fraction paid per unit of turnover: fee, half spread and impact of one side.
        seed : int
            Root of all random numbers; the same seed gives the same blender.

        Raises
        ------
        DataError
            If clocks or names disagree, or there are too few rows to learn from.
        """
        rows, members = Rows(signals, regimes, labels, bars), tuple(members)
        same_rows(*rows)
        if not members or signals.names != tuple(member.name for member in members):
            raise DataError(
                f"{self._place}: signals are of {', '.join(signals.names) or 'nobody'}, and members are "
                f"{', '.join(member.name for member in members) or 'none'}; they must be the same"
            )
        for member in members:
            if member.regime is not None and member.regime >= len(regimes.names):
                raise DataError(
                    f"{self._place}: {member.name} trades the regime {member.regime.text}, which is none of "
                    f"{', '.join(regimes.names)}, the regimes the detector tells"
                )
        if not (math.isfinite(cost) and cost >= 0.0):
            raise ValueError(f"cost is {cost}; a unit of turnover costs zero or more")
        if len(bars) == 0:
            raise DataError(f"{self._place}: there are no rows to fit on; there must be at least one")
        self.members, self.n_regimes, self.cost = members, len(regimes.names), float(cost)
        self.fitted_until = None  # while it learns, and after an attempt that failed
        self._learn(rows, seed)
        self.fitted_until = int(bars.time[-1])
        self._forget()
        return self

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        other.__dict__.update(self.__dict__)
        other._forget()
        return other

    def update(
        self, signals: SignalTable, regimes: RegimeProbabilities, labels: Table, bars: Bars
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what each member counts and the blended signal, for each new row.

        Returns
        -------
        weights : float64 (n, s)
            Zero or more, with a sum of at most 1 (what is missing stays in cash); 0 for a member without an
            opinion.
        blended : float64 (n,)
            In [-1, 1]; 0 where nobody has an opinion. The sum of weight times signal, except where a blender
            says otherwise (``stack``).

        Raises
        ------
        DataError
            If clocks disagree, or members or regimes are not those it was fitted on.
        """
        if self.fitted_until is None:
            raise ValueError(
                f"{self._place} is not fitted; call fit(past rows) or load(folder) before update"
            )
        same_rows(signals, regimes, labels, bars)
        names = tuple(member.name for member in self.members)
        if signals.names != names:
            raise DataError(
                f"{self._place}: signals are of {', '.join(signals.names)}; it was fitted on "
                f"{', '.join(names)}"
            )
        if len(regimes.names) != self.n_regimes:
            raise DataError(
                f"{self._place}: there are {len(regimes.names)} regimes; it was fitted on {self.n_regimes}"
            )
        return self._answer(Rows(signals, regimes, labels, bars))

    def save(self, folder: Path) -> None:
        """Write the fitted blender into a folder as JSON, and what its library writes beside it."""
        if self.fitted_until is None:
            raise ValueError(f"{self._place} is not fitted; there is nothing to save")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = self._write(folder)
        document = {
            "format": FORMAT,
            "blender": self.name,
            "settings": self.config.model_dump(mode="json"),
            "members": [
                [one.name, one.kind, None if one.regime is None else one.regime.text] for one in self.members
            ],
            "regimes": self.n_regimes,
            "cost": self.cost,
            "fitted_until": self.fitted_until,
            "parameters": {key: np.asarray(value).tolist() for key, value in self._parameters().items()},
            "files": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files},
        }
        write_saved(folder / FILE, document)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved blender with empty memory; it answers to the bit as the saved one did.

        Raises
        ------
        DataError, ConfigError
            If something is missing, damaged, or another blender.
        """
        saved = read_blender(folder, cls.name)
        found = cls(validate(cls.Config, saved.document["settings"], f"{saved.path}: settings"))
        found.members, found.n_regimes = saved.members(), saved.document["regimes"]
        found.cost = float(saved.document["cost"])
        found._restore(saved)
        found.fitted_until = saved.document["fitted_until"]
        found._forget()
        return found

    # What a kind of blender writes itself

    def _learn(self, rows: Rows, seed: int) -> None:  # noqa: B027 (not every blender learns)
        """Learn parameters; members, cost and number of regimes are set."""

    @abc.abstractmethod
    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and the blended signal of new rows."""

    def _forget(self) -> None:  # noqa: B027 (not every blender has a memory)
        """Empty the memory: put new objects in its place, for a fresh blender shares the old ones."""

    def _parameters(self) -> Mapping[str, Any]:
        """Return what was learned, as numbers or arrays of finite numbers."""
        return {}

    def _write(self, folder: Path) -> tuple[str, ...]:
        """Write what is no plain array, and return the names of the files."""
        return ()

    def _restore(self, saved: "SavedBlender") -> None:  # noqa: B027 (nor parameters)
        """Take the parameters back."""

    @property
    def _place(self) -> str:
        return f"blender {self.name}"


#: Every blender, by the name used in YAML.
BLENDERS: Registry[Blender] = Registry(
    "blender", "ensemble", modules=("routing", "weighting", "online", "stacking")
)


# On disk


@dataclass(frozen=True)
class SavedBlender:
    """What :meth:`Blender.save` wrote: the file and its content."""

    path: Path
    document: dict[str, Any]

    def members(self) -> tuple[Member, ...]:
        """Return the members; DataError if they are not what members are."""
        found = []
        for entry in self.document["members"]:
            if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
                raise DataError(f"{self.path}: members holds {entry!r}; it must be name, kind and regime")
            name, kind, regime = entry
            if kind not in KINDS or (regime is not None and regime not in CRISIS_NAMES):
                raise DataError(f"{self.path}: member {name} is {kind!r} of {regime!r}, which nobody is")
            found.append(Member(name, kind, None if regime is None else Regime.of(regime)))
        if not found or len({member.name for member in found}) != len(found):
            raise DataError(f"{self.path}: members must have different names, and there must be one at least")
        return tuple(found)

    def array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a parameter, float64 of this shape; DataError if it is not there or not finite."""
        try:
            array = np.array(self.document["parameters"][key], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: parameters.{key} is missing or no array of numbers") from error
        if array.shape != shape or not np.isfinite(array).all():
            raise DataError(
                f"{self.path}: parameters.{key} has shape {array.shape}; it must be finite with shape {shape}"
            )
        return array

    def shares(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array whose rows are zero or more and have the sum 1."""
        array = self.array(key, shape)
        if (array < 0.0).any() or (np.abs(array.sum(axis=-1) - 1.0) > 1e-9).any():
            raise DataError(f"{self.path}: parameters.{key} must be zero or more, with the sum 1")
        return array


def read_blender(folder: Path, name: str) -> SavedBlender:
    """Return what was saved in a folder, after its files have been held against their digests.

    Raises
    ------
    DataError
        If something is missing, is not what was saved, or is another blender.
    """
    path = Path(folder) / FILE
    document = _document(path)
    if document["blender"] != name:
        raise DataError(f"{path}: holds the blender {document['blender']!r}; it must be {name!r}")
    for file, digest in document["files"].items():
        part = path.parent / file
        if part.parent != path.parent or not part.is_file() or part.stat().st_size > MAX_BYTES:
            raise DataError(f"{part}: is missing or too large; {FILE} belongs to it")
        if hashlib.sha256(part.read_bytes()).hexdigest() != digest:
            raise DataError(f"{part}: is not the file that was saved with {FILE}")
    return SavedBlender(path, document)


def load_blender(folder: Path) -> Blender:
    """Return whichever blender was saved in a folder."""
    path = Path(folder) / FILE
    name = _document(path)["blender"]
    if name not in BLENDERS:
        raise DataError(f"{path}: holds the blender {name!r}; known are {', '.join(BLENDERS.names())}")
    return BLENDERS.get(name).load(folder)


def _document(path: Path) -> dict[str, Any]:
    types = {
        "format": int,
        "blender": str,
        "settings": dict,
        "members": list,
        "regimes": int,
        "cost": (int, float),
        "fitted_until": int,
        "parameters": dict,
        "files": dict,
    }
    document = read_saved(path, "blender", types)
    if document["format"] != FORMAT:
        raise DataError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
    if not (math.isfinite(document["cost"]) and document["cost"] >= 0.0):
        raise DataError(f"{path}: cost is {document['cost']}; it must be zero or more")
    return document


# Arithmetic that blenders share


def blended(signals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of weight times signal, float64 (n,) in [-1, 1]; a NaN signal counts nothing."""
    total = np.zeros(len(signals))
    for j in range(signals.shape[1]):  # member by member: a sum whose order no number of rows changes
        total += weights[:, j] * opinions(signals[:, j])
    return np.clip(total, -1.0, 1.0)


def shared(signals: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return weights (n, s): shares of zero or more, divided among the members that have an opinion.

    Parameters
    ----------
    signals : float64 (n, s)
    shares : float64 (n, s) or (s,)

    Returns
    -------
    float64 (n, s)
        Each row has the sum 1, or is 0 where nobody with a share has an opinion.
    """
    kept = np.where(np.isnan(signals), 0.0, shares)
    total = np.zeros(len(kept))
    for j in range(kept.shape[1]):
        total += kept[:, j]
    return kept / np.where(total > 0.0, total, 1.0)[:, None]


def opinions(signals: np.ndarray) -> np.ndarray:
    """Return signals as positions: who has no opinion holds nothing."""
    return np.where(np.isnan(signals), 0.0, signals)


def net_returns(signals: np.ndarray, bars: Bars, cost: float) -> np.ndarray:
    """Return what following signals from flat would have earned, after the cost of one's own turnover.

    Row t is ``signal[t] * earned[t] - cost * |signal[t] - signal[t-1]|``, of the decision at the close of t.
    This looks ahead, as :func:`ensemble.signals.earned` does: for fits on past rows.

    Parameters
    ----------
    signals : float64 (n, s) or (n,)
        NaN is flat.
    bars : Bars (n,)
    cost : float
        Fraction paid per unit of turnover.

    Returns
    -------
    float64 (n - 2, s) or (n - 2,)
        Fractions of equity; the last two decisions are not over. Empty for fewer than three rows.
    """
    held = opinions(signals)
    turnover = np.abs(np.diff(held, axis=0, prepend=np.zeros((1, *held.shape[1:]))))
    gross = (held.T * earned(bars)).T
    return (gross - cost * turnover)[: max(len(bars) - OPEN_ROWS, 0)]


def least_rows(place: str, found: int, least: int, when: int) -> None:
    """Raise :class:`DataError` if a fit has too few rows; ``when`` is the time of the last one."""
    if found < least:
        raise DataError(
            f"{place}: the rows until {utc(when)} hold {found} finished decisions; learning from them takes "
            f"{least} at least"
        )

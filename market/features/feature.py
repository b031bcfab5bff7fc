"""How a feature is declared: a column computed by nodes, each of which is compiled and remembers little.

A node is one of six kinds:

* :class:`BarColumn`: open, high, low, close, volume, or an extra column that the bars may have;
* :class:`Clock`: the time at which a row became known;
* :class:`JoinedColumn`: a column of the second table, joined to the bars;
* :class:`Window`: a compiled function of the rows ``t - lookback + 1`` to t of other nodes;
* :class:`Indicator`: a recursion of TA-Lib, carried forward bar by bar by its streaming handle;
* :class:`Recursion`: a compiled recursion of our own with a small array as memory.

Equal nodes are computed once, whichever features ask for them. To add a feature, write a function that
returns its node in a file of this package and decorate it with :func:`features` or :func:`further_features`.
"""

import functools
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import talib
import talib.abstract
import talib.stream

from configs.registry import Registry
from market.bars import NS_PER_SECOND, OHLCV, Bars
from market.table import DataError, Table

#: Share of its starting error that a recursion may still carry when its warm-up ends. On hourly crypto
#: bars the starts were off by up to six typical values, so this keeps the 1e-6 of start invariance (L3).
FORGOTTEN = 1e-8


def rows_to_forget(rate: float, stages: int = 1) -> int:
    """Return the rows after which an exponential average has forgotten its start.

    Parameters
    ----------
    rate : float
        Weight of the newest row: ``2 / (period + 1)`` for an EMA, ``1 / period`` for Wilder's average.
    stages : int
        Averages of that rate one after the other.
    """
    rows = math.ceil(math.log(FORGOTTEN) / math.log1p(-rate))
    # What a cascade still carries is a term of the binomial; for one average it is (1 - rate) ** rows.
    while math.comb(rows, stages - 1) * rate ** (stages - 1) * (1 - rate) ** rows > FORGOTTEN:
        rows += 1
    return rows


class Memory(Protocol):
    """What a node remembers while a stream runs."""

    def advance(self, inputs: tuple[np.ndarray, ...], first: int, out: np.ndarray) -> None:
        """Write the node's value for the rows from ``first`` on; earlier rows are the kept past."""
        ...


class Node(Protocol):
    """One computed column.

    Attributes
    ----------
    inputs : tuple of Node
        The columns it reads.
    lookback : int
        Rows of its inputs it reads at once, the newest included.
    warmup : int
        Rows from the start of a stream before its value may be used.
    """

    inputs: tuple["Node", ...]
    lookback: int
    warmup: int

    def specification(self) -> list:
        """Return everything that fixes its values, as plain lists, texts and numbers."""
        ...


@dataclass(frozen=True)
class BarColumn:
    """A column of the bars: one of OHLCV, which are always there, or an extra one by name."""

    name: str

    inputs = ()
    lookback = 1
    warmup = 0

    def specification(self) -> list:
        """Return the column's name."""
        return ["bars", self.name]

    def read(self, bars: Bars, joined: Table | None) -> np.ndarray:
        """Return the column as float64 (n,); :class:`DataError` where the bars lack it."""
        if self.name not in bars.names:
            raise DataError(
                f"features: {bars.label} has no column {self.name}, which the features read; "
                f"its columns are {', '.join(bars.names)}"
            )
        return bars.column(self.name)


OPEN, HIGH, LOW, CLOSE, VOLUME = BAR_COLUMNS = tuple(BarColumn(name) for name in OHLCV)


@dataclass(frozen=True)
class Clock:
    """Time of the rows, seconds since 1970 UTC: when a bar closed, and what follows from it may be done.

    Whole seconds are exact, as float64 of nanoseconds would not be. An hour of the day is therefore the one
    that begins now, in which the next bar opens, and not the one that the closed bar covered.
    """

    name = "time"
    inputs = ()
    lookback = 1
    warmup = 0

    def specification(self) -> list:
        """Return the name."""
        return ["clock", self.name]

    def read(self, bars: Bars, joined: Table | None) -> np.ndarray:
        """Return seconds, float64 (n,)."""
        whole, rest = np.divmod(bars.time, NS_PER_SECOND)
        return whole + rest / NS_PER_SECOND


TIME = Clock()


@dataclass(frozen=True)
class JoinedColumn:
    """A column of the second table on the clock of the bars; NaN and infinities mean "not known"."""

    name: str

    inputs = ()
    lookback = 1
    warmup = 0

    def specification(self) -> list:
        """Return the column's name."""
        return ["joined", self.name]

    def read(self, bars: Bars, joined: Table | None) -> np.ndarray:
        """Return the column as float64 (n,); :class:`DataError` where the table lacks it."""
        if joined is None or self.name not in joined.names:
            found = "there is no such table" if joined is None else f"it has {', '.join(joined.names)}"
            raise DataError(f"features: column {self.name} is read from the joined table, but {found}")
        return joined.column(self.name)


#: The kinds that are read and not computed.
SOURCES = (BarColumn, Clock, JoinedColumn)


@dataclass(frozen=True)
class Window:
    """A compiled function of windows that end now.

    Parameters
    ----------
    kernel : callable
        ``kernel(inputs..., settings..., first, out)``, see :mod:`market.kernels`.
    inputs : tuple of Node
    settings : tuple of int
    lookback : int
        Rows it reads, the newest included.
    revision : int
        Raised whenever the kernel's formula changes, so that the version of the features changes too.
    """

    kernel: Callable
    inputs: tuple[Node, ...]
    settings: tuple[int, ...] = ()
    lookback: int = 1
    revision: int = 1

    @property
    def warmup(self) -> int:
        """Rows until all inputs are known and the window is full."""
        return max(node.warmup for node in self.inputs) + self.lookback - 1

    def specification(self) -> list:
        """Return kernel, settings and inputs."""
        inputs = [node.specification() for node in self.inputs]
        return ["window", self.kernel.__name__, list(self.settings), self.lookback, self.revision, inputs]

    def open(self) -> "_WindowMemory":
        """Return an empty memory."""
        return _WindowMemory(self.kernel, self.settings)


class _WindowMemory:
    # Remembers nothing: the pipeline keeps the past rows of all nodes.
    def __init__(self, kernel: Callable, settings: tuple[int, ...]) -> None:
        self._kernel, self._settings = kernel, settings

    def advance(self, inputs: tuple[np.ndarray, ...], first: int, out: np.ndarray) -> None:
        self._kernel(*inputs, *self._settings, first, out)


@dataclass(frozen=True)
class Recursion:
    """A compiled recursion over bar columns.

    Parameters
    ----------
    kernel : callable
        ``kernel(inputs..., settings..., memory, first, out)``; ``memory`` is float64 (m,), in and out,
        zeros at the start.
    inputs : tuple of BarColumn
    settings : tuple of int
    memory_size : int
        ``m``.
    warmup : int
        Rows after which the start no longer matters, see :func:`rows_to_forget`.
    revision : int
        Raised whenever the kernel's formula changes.
    """

    kernel: Callable
    inputs: tuple[BarColumn, ...]
    settings: tuple[int, ...]
    memory_size: int
    warmup: int
    revision: int = 1

    lookback = 1

    def specification(self) -> list:
        """Return kernel, settings and inputs."""
        inputs = [node.specification() for node in self.inputs]
        return ["recursion", self.kernel.__name__, list(self.settings), self.warmup, self.revision, inputs]

    def open(self) -> "_RecursionMemory":
        """Return an empty memory."""
        return _RecursionMemory(self.kernel, self.settings, np.zeros(self.memory_size))


class _RecursionMemory:
    def __init__(self, kernel: Callable, settings: tuple[int, ...], memory: np.ndarray) -> None:
        self._kernel, self._settings, self._memory = kernel, settings, memory

    def advance(self, inputs: tuple[np.ndarray, ...], first: int, out: np.ndarray) -> None:
        self._kernel(*inputs, *self._settings, self._memory, first, out)


@dataclass(frozen=True)
class Indicator:
    """One output of a TA-Lib function, from bar columns; write it with :func:`indicator`."""

    function: str
    inputs: tuple[BarColumn, ...]
    parameters: tuple[tuple[str, float], ...]
    forget: int
    output: int
    revision: int = 1

    lookback = 1

    @property
    def warmup(self) -> int:
        """Rows until TA-Lib's first value, and then until its start no longer matters."""
        return self.first_row + self.forget

    @functools.cached_property
    def first_row(self) -> int:
        """Row of TA-Lib's first value."""
        function = talib.abstract.Function(self.function)
        function.parameters = dict(self.parameters)
        return function.lookback

    def specification(self) -> list:
        """Return function, parameters and inputs."""
        inputs = [node.specification() for node in self.inputs]
        parameters = [list(pair) for pair in self.parameters]
        return ["talib", self.function, parameters, self.output, self.warmup, self.revision, inputs]

    def open(self) -> "_IndicatorMemory":
        """Return an empty memory."""
        return _IndicatorMemory(self)


def indicator(
    function: str, *inputs: BarColumn, forget: int, output: int = 0, **parameters: float
) -> Indicator:
    """Return a node that is an output of a TA-Lib function.

    Use it for recursions and for functions that compare only. Where TA-Lib carries a running sum over a
    window (SMA, STDDEV, LINEARREG_SLOPE, most candle patterns), another first row changes its last bits
    for ever; there a :class:`Window` is better and TA-Lib is its twin in the tests.

    Parameters
    ----------
    function : str
        TA-Lib's name, for example ``ATR``.
    inputs : BarColumn
        In TA-Lib's order.
    forget : int
        Rows after TA-Lib's first value until its start no longer matters; 0 for a pure window.
    output : int
        Which output, for functions with several.
    parameters : float
        TA-Lib's parameters by name.
    """
    return Indicator(function, inputs, tuple(sorted(parameters.items())), forget, output)


class _IndicatorMemory:
    # TA-Lib's handle equals its batch function bit for bit; before it can open, the rows are collected.
    def __init__(self, indicator: Indicator) -> None:
        self._stream = getattr(talib.stream, indicator.function)
        self._parameters = dict(indicator.parameters)
        self._first_row = indicator.first_row
        self._output = indicator.output
        self._history: list[tuple[np.ndarray, ...]] = []
        self._handle: Any = None

    def advance(self, inputs: tuple[np.ndarray, ...], first: int, out: np.ndarray) -> None:
        rows = tuple(values[first:] for values in inputs)
        if self._handle is None:
            self._open(rows, out)
            return
        update, output = self._handle.update, self._output
        for i, row in enumerate(zip(*(values.tolist() for values in rows), strict=True)):
            value = update(*row)
            out[i] = value[output] if isinstance(value, tuple) else value

    def _open(self, rows: tuple[np.ndarray, ...], out: np.ndarray) -> None:
        out[:] = np.nan
        # Copied, because the pipeline reuses nothing but must not keep its whole working table alive.
        self._history.append(tuple(values.copy() for values in rows))
        history = [np.concatenate(parts) for parts in zip(*self._history, strict=True)]
        if history[0].size <= self._first_row:
            return
        try:
            self._handle, filled = self._stream.open_and_fill(*history, **self._parameters)
        except talib.InsufficientHistory:  # some functions seed with a few rows more than they announce
            return
        filled = filled[self._output] if isinstance(filled, tuple) else filled
        out[:] = filled[filled.size - out.size :]
        self._history = []


class Feature:
    """A named column of the feature table.

    Parameters
    ----------
    name : str
    node : Node
        What computes it. The docstring of the function that declared it says what it means.
    """

    def __init__(self, name: str, node: Node) -> None:
        self.name = name
        self.node = node

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it makes: one, of its own name."""
        return (self.name,)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns it reads: those of the bars first, then time, extra and joined ones by name."""
        found = {node.name for node in ordered([self.node]) if isinstance(node, SOURCES)}
        return (*(name for name in OHLCV if name in found), *sorted(found.difference(OHLCV)))

    @property
    def warmup(self) -> int:
        """Rows from the start of a stream before its value may be used."""
        return self.node.warmup

    def __repr__(self) -> str:
        return f"Feature({self.name!r}, reads {', '.join(self.reads)}, warm-up {self.warmup} rows)"


#: Modules of this package that are built on features and declare none. Data sets read labels, which look
#: ahead; what trades must not load them with its features.
BUILT_ON = frozenset({"__main__", "dataset", "dataset_files", "exporting", "quality"})
_FOUND = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
_SUBJECTS = tuple(name for name in _FOUND if name not in BUILT_ON)
#: Every feature of bars alone, by the name of its column; its tag ``set`` is core (the default) or full.
FEATURES: Registry[Feature] = Registry("feature", "market.features", _SUBJECTS)


def feature_names(chosen: str) -> tuple[str, ...]:
    """Return the sorted names of a set of features.

    Parameters
    ----------
    chosen : str
        ``all``: the core set, whose values and order fitted things rely on. ``full``: every feature that bars
        alone give.
    """
    names = FEATURES.names()
    if chosen == "full":
        return tuple(names)
    return tuple(name for name in names if FEATURES.tags(name).get("set", "core") == "core")


def features(**columns: int | tuple[int, ...]) -> Callable:
    """Declare features of the core set that differ in their numbers only.

    Parameters
    ----------
    columns : int or tuple of int
        Column name and the arguments its declaring function is called with.

    Examples
    --------
    ::

        @features(return_1=1, return_24=24)
        def log_return(bars):
            \"\"\"Log return over ``bars`` bars.\"\"\"
            return Window(log_ratio, (CLOSE, CLOSE), (bars,), lookback=bars + 1)
    """
    return _declaring(columns, "core")


def further_features(**columns: int | tuple[int, ...]) -> Callable:
    """Declare features of the full set only; see :func:`features`."""
    return _declaring(columns, "full")


def declared(name: str, function: Callable[..., Node], *arguments: Any) -> Feature:
    """Return the feature of a declaring function, with that function's documentation."""
    feature = Feature(name, function(*arguments))
    functools.update_wrapper(feature, function, updated=())
    return feature


def _declaring(columns: dict[str, int | tuple[int, ...]], belongs: str) -> Callable:
    def decorator(function: Callable[..., Node]) -> Callable[..., Node]:
        subject = function.__module__.rpartition(".")[2]
        for name, numbers in columns.items():
            feature = declared(name, function, *(numbers if isinstance(numbers, tuple) else (numbers,)))
            FEATURES.register(name, subject=subject, set=belongs)(feature)
        return function

    return decorator


def ordered(nodes: list[Node]) -> list[Node]:
    """Return nodes and everything they read, each once, inputs before their readers."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            for inner in node.inputs:
                visit(inner)
            found[node] = None

    for node in nodes:
        visit(node)
    return list(found)

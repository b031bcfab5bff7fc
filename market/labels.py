"""What became of a row: triple barriers, forward returns, directions. LOOKS AHEAD, by profession.

The label of row t answers what a position would have earned that was decided at the close of bar t, entered
at the open of bar t+1 and left by bar t + horizon at the latest::

    bar        t        t+1   t+2   ...   end  ...  t+horizon
           decision   entry at the        touch      close of the horizon
           at close   open; barriers      of a       if nothing was touched
                      count from here     barrier

A label is known at the close of the bar that decides it, ``known_at``, and until then it may teach nobody.
Nothing on the way from bars to orders may import this module; an import contract sees to it.

A row has **no** label where the bars end first, where its volatility is not known, and where bars are
missing before it is decided: what the missing bars touched nobody can say, and a horizon counted across
an outage is a longer one. Whether a label is known is decided at some time, too: ``settled_at``. It is what
splits are given (a row that has no label because of an outage long ago must not purge everything after it)::

    walk_forward(bars.time, known_at=labels.settled_at)
"""

from dataclasses import dataclass

import numpy as np

from configs.load import ConfigError
from market.bars import Bars, timeframe_ns, timeframe_text
from market.kernels import STILL
from market.label_kernels import NEVER, barrier_scan
from market.table import DataError, utc

#: The horizons of the house: bars, and times that are whole bars of the timeframe.
HORIZONS = ("5", "10", "15", "20", "1h", "4h", "8h", "24h")


@dataclass(frozen=True, eq=False)
class Labels:
    """One label per row, and when it became known.

    Parameters
    ----------
    time : int64 (n,)
        Close of each row, nanoseconds UTC, increasing.
    value : int8 (n,)
        1 up, -1 down, 0 neither; of meta-labels 1 pays, 0 does not. 0 where the label is not known.
    known : bool (n,)
        Whether there is a label.
    known_at : int64 (n,)
        Close of the bar ``end``, nanoseconds UTC; the largest int64 where there is no label.
    end : int64 (n,)
        The row that decided, after its own row; the largest int64 where there is no label.
    ret : float64 (n,)
        Return from the entry (open of the next bar) to the exit, a fraction, before costs; NaN where there
        is no label.
    horizon : int
        Bars after which a label is decided at the latest.
    name : str
        Kind and horizon, for example ``triple_barrier_24h``.
    settled_at : int64 (n,), optional
        When it was settled whether there is a label and which: ``known_at`` where there is one, the close
        that showed the reason where there is none, the largest int64 where only more bars can tell.
        The answer of a row depends on bars up to then and on none later. By default ``known_at``.
    side : int8 (n,), optional
        Whose stop came first where one bar touched both barriers: 1 that of a long, -1 that of a short
        position, 0 where the label treats both alike (the default).

    Raises
    ------
    DataError
        If shapes disagree, or a row breaks one of the rules above.
    """

    time: np.ndarray
    value: np.ndarray
    known: np.ndarray
    known_at: np.ndarray
    end: np.ndarray
    ret: np.ndarray
    horizon: int
    name: str
    settled_at: np.ndarray | None = None
    side: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.settled_at is None:
            object.__setattr__(self, "settled_at", self.known_at)
        if self.side is None:
            object.__setattr__(self, "side", np.zeros(len(self), np.int8))
        for name, dtype in _COLUMNS:
            column = np.asarray(getattr(self, name))
            if column.shape != (len(self),) or column.dtype != dtype:
                raise DataError(
                    f"{self.name}: {name} is {column.dtype} {column.shape}; it must be "
                    f"{np.dtype(dtype)} ({len(self)},)"
                )
            if column.flags.writeable:
                column = column.copy()
                column.flags.writeable = False
            object.__setattr__(self, name, column)
        self._check()

    def __len__(self) -> int:
        return len(self.time)

    def known_by(self, moment: int) -> np.ndarray:
        """Return which labels are known at a time (nanoseconds UTC): bool (n,), what may teach then."""
        return self.known_at <= moment

    def _check(self) -> None:
        n, rows, known = len(self), np.arange(len(self)), self.known
        end = np.where(known, self.end, 0)
        inside = known & (end > rows) & (end < n)
        closes = self.time[np.where(inside, end, 0)] if n else self.time
        rules = (
            ((self.value < -1) | (self.value > 1), "its value must be -1, 0 or 1"),
            (known & ~inside, "it must end at a row after its own"),
            (inside & (self.known_at != closes), "it must be known at the close of the row it ends at"),
            (known & np.isnan(self.ret), "a known label needs a return"),
            (known & (self.settled_at != self.known_at), "a known label is settled when it is known"),
            (self.settled_at < self.time, "it cannot be settled before its row"),
            (
                ~known & ((self.known_at != NEVER) | (self.end != NEVER) | (self.value != 0)),
                "without a label the value is 0, and the end and the time of knowing are the largest int64",
            ),
        )
        for wrong, rule in rules:
            if wrong.any():
                row = int(np.argmax(wrong))
                raise DataError(f"{self.name}: label of row {row} at {utc(self.time[row])}: {rule}")


_COLUMNS = (
    ("time", np.int64),
    ("value", np.int8),
    ("known", np.bool_),
    ("known_at", np.int64),
    ("end", np.int64),
    ("ret", np.float64),
    ("settled_at", np.int64),
    ("side", np.int8),
)


def horizon_bars(horizon: int | str, interval_ns: int) -> int:
    """Return a horizon in bars.

    Parameters
    ----------
    horizon : int or str
        Bars, as a number or as text (``"20"``), or a time of whole bars (``"4h"``).
    interval_ns : int
        Length of a bar, nanoseconds.

    Raises
    ------
    ConfigError
        If the horizon is neither, or is no whole number of bars, at least 1.
    """
    text = str(horizon)
    if text.isascii() and text.isdigit() and 0 < len(text) <= 9:
        bars, rest = int(text), 0
    else:
        try:
            bars, rest = divmod(timeframe_ns(text), interval_ns)
        except DataError:
            bars, rest = 0, 0
    if bars < 1 or rest:
        raise ConfigError(
            f"horizon {text!r} on bars of {timeframe_text(interval_ns)}: it must be a number of bars such as "
            f"20, or a time of whole bars such as {timeframe_text(4 * interval_ns)}"
        )
    return bars


def triple_barrier(
    bars: Bars,
    horizon: int | str,
    up: float | np.ndarray,
    down: float | np.ndarray,
    volatility: np.ndarray,
    *,
    side: np.ndarray | None = None,
    sqrt_horizon: bool = True,
    least_width: float = STILL,
    across_gaps: bool = False,
) -> Labels:
    """Return which barrier the price touched first: 1 the upper, -1 the lower, 0 neither by the horizon.

    The barriers stand at ``entry * (1 + up * width)`` and ``entry * (1 - down * width)``, where the entry is
    the open of bar t+1 and the width is the volatility of row t times the root of the horizon. They are
    tested against high and low of bars t+1 to t+horizon. An open beyond a barrier pays the open, inside the
    bar the barrier is paid, and if both are touched inside one bar the stop comes first.

    Parameters
    ----------
    bars : Bars
    horizon : int or str
        See :func:`horizon_bars`.
    up, down : float, or float64 (n,)
        Distances in widths, above 0; infinity: no such barrier. One per row lets target and stop change
        places with the side.
    volatility : float64 (n,)
        Of the returns of one bar, a fraction, known at the close of each row (a causal column such as
        ``volatility_24``); NaN: not known, and the row has no label.
    side : int8 (n,), optional
        Position the label is for. Where it is below 0 the upper barrier is the stop; by default everywhere
        the lower one. Labels for :func:`market.meta_labels.meta_labels` need it.
    sqrt_horizon : bool
        False: the width is the volatility alone, as in the book, whatever the horizon.
    least_width : float
        Smallest distance of a barrier, a fraction of the entry, above 0. Nobody can earn a barrier that is
        nearer than the costs of a round trip.
    across_gaps : bool
        True: a label goes on across missing bars, and the open after them is the first price. For markets
        that close: over a weekend a position is held. False: it has no label.

    Raises
    ------
    ConfigError
        If horizon, distances or the least width are out of bounds.
    DataError
        If volatility or side do not fit the bars.

    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 3.4.
    """
    bars_ahead = horizon_bars(horizon, bars.interval_ns)
    if not 0.0 < least_width < np.inf:
        raise ConfigError(f"triple barrier: least width is {least_width:g}; it must be above 0 and finite")
    volatility = _column(bars, volatility, "volatility")
    scale = volatility * np.sqrt(bars_ahead) if sqrt_horizon else volatility
    above, below = (
        _distance(bars, name, multiple, scale, least_width) for name, multiple in (("up", up), ("down", down))
    )
    return _scan(bars, bars_ahead, f"triple_barrier_{horizon}", above, below, _side(bars, side), across_gaps)


def forward_return(bars: Bars, horizon: int | str, *, across_gaps: bool = False) -> Labels:
    """Return the return from the next open to the close of bar t+horizon; the value is its sign.

    Parameters
    ----------
    bars : Bars
    horizon : int or str
        See :func:`horizon_bars`.
    across_gaps : bool
        See :func:`triple_barrier`.

    Raises
    ------
    ConfigError
        If the horizon is out of bounds.
    """
    return _signed(bars, horizon, f"return_{horizon}", np.zeros(len(bars)), across_gaps)


def direction(
    bars: Bars, horizon: int | str, band: float | np.ndarray, *, across_gaps: bool = False
) -> Labels:
    """Return the sign of the forward return where it leaves a dead band, and 0 within it.

    Parameters
    ----------
    bars : Bars
    horizon : int or str
        See :func:`horizon_bars`.
    band : float, or float64 (n,)
        Half width, a fraction; a return of exactly the band lies within it. One per row is known at the
        close of each row; NaN: not known, and the row has no label.
    across_gaps : bool
        See :func:`triple_barrier`.

    Raises
    ------
    ConfigError
        If the horizon is out of bounds, or a number for the band is negative or not finite.
    DataError
        If the band is a column that does not fit the bars.
    """
    if np.ndim(band) == 0:
        if not 0.0 <= float(band) < np.inf:
            raise ConfigError(f"direction: the band is {float(band):g}; it must be 0 or more, and finite")
        band = np.full(len(bars), float(band))
    return _signed(bars, horizon, f"direction_{horizon}", _column(bars, band, "band"), across_gaps)


def _signed(bars: Bars, horizon: int | str, name: str, band: np.ndarray, across_gaps: bool) -> Labels:
    # Barriers that cannot be reached: what is left is the horizon.
    far = np.where(np.isnan(band), np.nan, np.inf)
    return _scan(bars, horizon_bars(horizon, bars.interval_ns), name, far, far, None, across_gaps, band)


def _scan(
    bars: Bars,
    horizon: int,
    name: str,
    above: np.ndarray,
    below: np.ndarray,
    side: np.ndarray | None,
    across_gaps: bool,
    band: np.ndarray | None = None,
) -> Labels:
    n = len(bars)
    gap = np.zeros(n, np.int8)
    if not across_gaps:
        gap[1:] = np.diff(bars.time) > bars.interval_ns
    prices = (bars.column(column) for column in ("open", "high", "low", "close"))
    stops = np.zeros(n, np.int8) if side is None else side
    value, end, settled, ret = np.empty(n, np.int8), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    barrier_scan(*prices, gap, above, below, stops, horizon, value, end, settled, ret)
    known = end != NEVER
    if band is not None:
        value = np.where(known, np.sign(np.where(np.abs(ret) > band, ret, 0.0)), 0).astype(np.int8)
    return Labels(
        bars.time, value, known, _closes(bars.time, end), end, ret, horizon, name,
        settled_at=_closes(bars.time, settled), side=side,
    )  # fmt: skip


def _closes(time: np.ndarray, rows: np.ndarray) -> np.ndarray:
    found = rows != NEVER
    closes = np.full(time.size, NEVER)
    closes[found] = time[rows[found]]
    return closes


def _distance(
    bars: Bars, name: str, multiple: float | np.ndarray, scale: np.ndarray, least: float
) -> np.ndarray:
    multiple = np.asarray(multiple, dtype=np.float64)
    if multiple.shape not in ((), scale.shape):
        raise DataError(
            f"{bars.label}: {name} has shape {multiple.shape}; it must be a number or {scale.shape}"
        )
    if not (multiple > 0.0).all():
        wrong = multiple if multiple.ndim == 0 else multiple[np.argmin(multiple > 0.0)]
        raise ConfigError(f"triple barrier: {name} is {wrong:g} widths; it must be above 0")
    # Infinity times a market at rest is no number, and means no barrier.
    none = np.isinf(multiple) & ~np.isnan(scale)
    return np.where(none, np.inf, np.maximum(np.where(none, 1.0, multiple) * scale, least))


def _column(bars: Bars, values: np.ndarray, what: str) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=np.float64)
    if values.shape != (len(bars),):
        raise DataError(f"{bars.label}: {what} has shape {values.shape}; it must have one value per bar")
    wrong = (values < 0.0) | np.isinf(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{bars.label}: {what} is {values[row]:g} at {utc(bars.time[row])} (row {row}); it must be 0 or "
            f"more and finite, or NaN where it is not known"
        )
    return values


def _side(bars: Bars, side: np.ndarray | None) -> np.ndarray:
    if side is None:
        return np.ones(len(bars), np.int8)
    return np.where(signs(bars.time, side, "side") < 0, -1, 1).astype(np.int8)


def signs(time: np.ndarray, side: np.ndarray, what: str) -> np.ndarray:
    """Return a column of positions as int8 (n,): 1 long, -1 short, 0 none.

    Raises
    ------
    DataError
        If it does not have one of these three per row.
    """
    side = np.asarray(side)
    if side.shape != time.shape:
        raise DataError(f"{what} has shape {side.shape}; it must have one value for each of {time.size} rows")
    wrong = ~np.isin(side, (-1, 0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{what} is {side[row]} at {utc(time[row])} (row {row}); it must be -1, 0 or 1")
    return side.astype(np.int8)

"""Bars that are possible but hard to believe: erroneous prints, lasting jumps, frozen feeds, local clocks.

These functions judge recorded history as a whole and may look both ways in time. They decide whether a file
is believed, never what is traded.

The rule for prints: a price is an *erroneous print* when it lies more than a factor of 3 **and** more than
10 local scales from the median close of the 11 bars around its bar. The local scale is the usual log range
of a bar there (see :func:`local_scale`) and grows in a crash: in the fall of March 2020 hourly bars range
over 5 to 10 %, so an honest crash passes, while 0.01 in a market of 100 never does. A wick of -87 % is
doubted even in a crash, unless bars range over 20 % there: the price alone cannot tell a flash crash from
an error, so the user has to.
"""

from datetime import UTC, datetime

import numpy as np

BLOCK_BARS = 50
REACH_BARS = 5
PRINT_SCALES = 10.0
PRINT_FACTOR = 3.0
JUMP_FACTOR = 1.9  # below 2, because a two-for-one split rarely falls on an unmoved price
FROZEN_BARS = 500
REPEATED_BARS = 3
_HOUR_NS = 3_600 * 1_000_000_000


def local_scale(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return the usual log range of a bar around each bar, float64 (n,).

    Blocks of 50 bars have their median range; a bar takes the largest of its own block and the two beside
    it, so that the scale has risen when a crash begins. It is never below the typical range of the bars that
    moved, since a quiet night says nothing about errors.
    """
    spread = np.log(high / low)
    moving = spread[spread > 0]
    floor = float(np.median(moving)) if moving.size else 0.0
    n_blocks = max(1, spread.size // BLOCK_BARS)  # the last block takes the rest
    edges = np.minimum(np.arange(spread.size) // BLOCK_BARS, n_blocks - 1)
    whole = (n_blocks - 1) * BLOCK_BARS
    medians = np.empty(n_blocks)
    medians[:-1] = np.median(spread[:whole].reshape(n_blocks - 1, BLOCK_BARS), axis=1)
    medians[-1] = np.median(spread[whole:])
    padded = np.concatenate([medians[:1], medians, medians[-1:]])
    widest = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(widest, floor)[edges]


def erroneous_prints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which price of each bar is an erroneous print, and where the market stood.

    Parameters
    ----------
    values : float64 (n, >= 4)
        open, high, low, close; finite and positive.

    Returns
    -------
    column : int64 (n,)
        0 to 3 for open, high, low, close: the print farthest away; -1 for a bar that is believed.
    level : float64 (n,)
        Median close of the bars around; NaN where no bar needed a look.
    """
    n = values.shape[0]
    column, level = np.full(n, -1), np.full(n, np.nan)
    limit = np.log(PRINT_FACTOR)
    logs = np.log(values[:, :4])
    suspect = logs[:, 1] - logs[:, 2] > limit
    suspect[1:] |= np.abs(logs[1:, [0, 3]] - logs[:-1, 3:4]).max(axis=1) > limit
    if not suspect.any():
        return column, level
    # A spike of several bars jumps only at its ends; look at every bar within reach of a suspect.
    around = np.flatnonzero(suspect)[:, None] + np.arange(-REACH_BARS, REACH_BARS + 1)
    around = np.unique(around[(around >= 0) & (around < n)])
    scale = local_scale(values[:, 1], values[:, 2])
    for row in around:
        middle = np.median(logs[max(0, row - REACH_BARS) : row + REACH_BARS + 1, 3])
        distance = np.abs(logs[row] - middle)
        level[row] = np.exp(middle)
        if distance.max() > max(limit, PRINT_SCALES * scale[row]):
            column[row] = int(np.argmax(distance))
    return column, level


def price_jumps(time: np.ndarray, values: np.ndarray, interval_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the price steps to another level and stays, and by which factor.

    The level is the median close of the 5 bars before and of the 5 from there on; erroneous prints are left
    out. The scale grows with the square root of the bars that are missing before
    a bar, since a price may move during an outage.

    Returns
    -------
    jump : bool (n,)
    factor : float64 (n,)
        New level by old; 1 elsewhere.
    """
    n = values.shape[0]
    jump, factor = np.zeros(n, bool), np.ones(n)
    believed = np.flatnonzero(erroneous_prints(values)[0] < 0)
    if believed.size < 2:
        return jump, factor
    closes = np.log(values[believed, 3])
    entries = np.log(values[believed][:, [0, 3]])
    limit = np.log(JUMP_FACTOR)
    suspects = np.flatnonzero(np.abs(entries[1:] - closes[:-1, None]).max(axis=1) > limit) + 1
    if not suspects.size:
        return jump, factor
    scale = local_scale(values[:, 1], values[:, 2])[believed]
    bars = np.diff(time[believed], prepend=time[believed[0]] - interval_ns) / interval_ns
    for row in suspects:
        before = np.median(closes[max(0, row - REACH_BARS) : row])
        change = np.median(closes[row : row + REACH_BARS]) - before
        if abs(change) > max(limit, PRINT_SCALES * scale[row] * np.sqrt(bars[row])):
            jump[believed[row]], factor[believed[row]] = True, np.exp(change)
    return jump, factor


def exchanged_open_close(open_: np.ndarray, close: np.ndarray, time: np.ndarray, interval_ns: int) -> bool:
    """Return whether open and close were exchanged: closes then follow opens instead of opens closes."""
    neighbours = np.diff(time) == interval_ns
    pairs = int(np.count_nonzero(neighbours))
    if pairs < 10:
        return False
    follows = np.median(np.abs(np.log(open_[1:] / close[:-1]))[neighbours])
    reversed_ = np.median(np.abs(np.log(close[1:] / open_[:-1]))[neighbours])
    # Rightly ordered, the second spans two whole bars and the first only the pause between them.
    return bool(follows > (1.5 if pairs >= 30 else 3.0) * reversed_)


def runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and the lengths of the stretches in which a mask is true."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts


def unchanged(values: np.ndarray) -> np.ndarray:
    """Return the bars that stand exactly at the close before, without any range: bool (n,)."""
    prices = values[:, :4]
    still = (prices == prices[:, 3:4]).all(axis=1)
    still[1:] &= prices[1:, 3] == prices[:-1, 3]
    still[:1] = False
    return still


def repeated(values: np.ndarray) -> np.ndarray:
    """Return the bars that repeat the bar before in price and volume although something moved: bool (n,)."""
    again = np.zeros(values.shape[0], bool)
    again[1:] = (values[1:, :5] == values[:-1, :5]).all(axis=1) & (values[1:, 1] > values[1:, 2])
    return again


def frozen_run(values: np.ndarray) -> tuple[int, int, str]:
    """Return start, length and kind of the first stretch too long to be a market; length 0 when none is.

    A price that stands still for 500 bars, or for 100 when that is half of the file; or the same moving bar
    three times again. Shorter standstills happen in quiet markets and before outages: they are reported only.
    """
    starts, lengths = runs(repeated(values))
    long = lengths >= REPEATED_BARS
    if long.any():
        first = int(np.argmax(long))
        return int(starts[first]), int(lengths[first]), "the same bar repeats"
    starts, lengths = runs(unchanged(values))
    long = (lengths >= FROZEN_BARS) | ((lengths >= 100) & (2 * lengths >= values.shape[0]))
    if long.any():
        first = int(np.argmax(long))
        return int(starts[first]), int(lengths[first]), "the price is constant"
    return 0, 0, ""


def wall_clock_switch(open_time: np.ndarray, interval_ns: int) -> int | None:
    """Return the first row after an hour that is missing exactly where clocks change to summer time.

    The changes of Europe (last Sunday of March) and of North America (second Sunday of March) are known.
    """
    if interval_ns > _HOUR_NS:
        return None
    for row in np.flatnonzero(np.diff(open_time) == interval_ns + _HOUR_NS) + 1:
        missing = datetime.fromtimestamp((int(open_time[row]) - _HOUR_NS) // 1_000_000_000, UTC)
        last_or_second = missing.day >= 25 or 8 <= missing.day <= 14
        if missing.month == 3 and missing.weekday() == 6 and last_or_second and missing.hour in (1, 2):
            return int(row)
    return None

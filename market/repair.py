"""The rules that rows must pass to become bars; a broken rule is repaired only when its repair was named.

Each rule passes, raises :class:`DataError` naming file, row, column and remedy, or applies the named repair
and counts the rows it touched. Missing bars stay missing.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from market.anomalies import (
    erroneous_prints,
    exchanged_open_close,
    frozen_run,
    price_jumps,
    wall_clock_switch,
)
from market.bars import timeframe_text
from market.rows import Remedies, Rows
from market.table import DataError, utc

MAX_DROPPED = 0.05  # above this the file is misread, not dirty
OLDEST_NS = 315_532_800 * 1_000_000_000  # 1980: earlier stamps are nearly always misread units
PRICE_RANGE = (1e-15, 1e12)
MAX_VOLUME = 1e18
MAX_USUAL_RANGE = 2.0  # a volume taken for the low passes every bound, but no market moves like that
_DAY_NS = 86_400 * 1_000_000_000
_SECOND_NS = 1_000_000_000


def clean(
    rows: Rows, remedies: Remedies, *, interval_ns: int | None, now_ns: int, wall_clock: bool = False
) -> tuple[Rows, int, tuple[str, ...]]:
    """Return rows that are bars, the length of a bar, and what was found on the way.

    Parameters
    ----------
    rows : Rows
        At least one.
    remedies : Remedies
        What may be repaired or accepted; its counts are advanced.
    interval_ns : int or None
        Length of a bar, nanoseconds; None infers it from the steps.
    now_ns : int
        The present, nanoseconds UTC: a bar that closes later has not happened.
    wall_clock : bool
        Whether the times came as text without a zone, and so may be local time.

    Raises
    ------
    DataError
        If a rule is broken and no remedy for it was named.
    """
    if len(rows) == 0:
        raise DataError(f"{rows.place}: has no rows; it must hold at least one bar")
    rows = _in_history(rows, remedies, now_ns)
    rows = _in_order(rows, remedies)
    rows = _one_per_time(rows, remedies)
    interval_ns, evidence = _interval(rows, interval_ns)
    rows, phase_ns = _on_grid(rows, remedies, interval_ns)
    rows = _one_per_time(rows, remedies)
    rows = _finished(rows, remedies, interval_ns, now_ns)
    rows = _possible(rows, remedies)
    if wall_clock:
        _in_utc(rows, remedies, interval_ns)
    rows = _believable(rows, remedies, interval_ns)
    if len(rows) == 0:
        raise DataError(f"{rows.place}: no rows are left after the repairs")
    if phase_ns:
        evidence += (f"bars open {phase_ns // _SECOND_NS} s after the full {timeframe_text(interval_ns)}",)
    return rows, interval_ns, evidence


def _in_history(rows: Rows, remedies: Remedies, now_ns: int) -> Rows:
    future = rows.open_time > now_ns
    if future.any():
        raise rows.refusal(
            future, lambda row: f"opens at {rows.stamp(row)}, in the future", "bars must lie in the past"
        )
    early = rows.open_time < OLDEST_NS
    if early.any() and not remedies.accepts("old-times", early.sum()):
        raise rows.refusal(
            early,
            lambda row: f"time is {rows.stamp(row)}",
            "times must not lie before 1980; is the unit of the stamps right?",
            "--accept old-times",
        )
    return rows


def _in_order(rows: Rows, remedies: Remedies) -> Rows:
    step = np.diff(rows.open_time)
    back = np.concatenate([[False], step < 0])
    if not back.any() or remedies.repairs("sort", back.sum()):
        return rows.take(np.argsort(rows.open_time, kind="stable")) if back.any() else rows
    rule = "times must increase"
    if (step <= 0).all():
        rule = "the file runs backwards, newest first; times must increase"
    raise rows.refusal(
        back,
        lambda row: f"time is {rows.stamp(row)} after {rows.stamp(row - 1)}",
        rule,
        "--repair sort",
    )


def _one_per_time(rows: Rows, remedies: Remedies) -> Rows:
    again = np.concatenate([[False], np.diff(rows.open_time) == 0])
    if not again.any():
        return rows
    # Rows of one time lie next to each other; a group is identical when every row equals its first.
    group = np.cumsum(~again) - 1
    first = np.flatnonzero(~again)
    same = np.equal(rows.values, rows.values[first[group]]) | (
        np.isnan(rows.values) & np.isnan(rows.values[first[group]])
    )
    conflict_groups = np.zeros(first.size, bool)
    np.logical_or.at(conflict_groups, group, ~same.all(axis=1))
    conflicting = again & conflict_groups[group]
    identical = again & ~conflict_groups[group]
    keep = np.ones(len(rows), bool)
    if identical.any():
        if not remedies.repairs("drop-duplicates", identical.sum()):
            raise rows.refusal(
                identical,
                lambda row: f"repeats the bar of {rows.stamp(row)}",
                "each bar must stand once",
                "--repair drop-duplicates",
            )
        keep &= ~identical
    if conflicting.any():
        if remedies.repairs("keep-first-conflict", conflicting.sum()):
            keep &= ~conflicting
        elif remedies.repairs("keep-last-conflict", conflicting.sum()):
            last = np.concatenate([~again[1:], [True]])
            keep &= ~conflict_groups[group] | last
        else:
            row = int(np.argmax(conflicting))
            column = int(np.argmax(~same[row])) if (~same[row]).any() else 0
            raise rows.refusal(
                conflicting,
                lambda row: (
                    f"is a second bar of {rows.stamp(row)} with other values ({rows.names[column]} "
                    f"{rows.values[first[group[row]], column]:.12g} and {rows.values[row, column]:.12g})"
                ),
                "a time has one bar; a change from summer time shows the same",
                "--repair keep-first-conflict",
                "--repair keep-last-conflict",
            )
    return rows.take(keep)


def _interval(rows: Rows, interval_ns: int | None) -> tuple[int, tuple[str, ...]]:
    if interval_ns is not None:
        return interval_ns, (f"timeframe {timeframe_text(interval_ns)} as given",)
    if len(rows) < 2:
        raise DataError(f"{rows.place}: has one row, which shows no timeframe; go on with --timeframe")
    steps, counts = np.unique(np.diff(rows.open_time), return_counts=True)
    most = int(np.argmax(counts))
    interval_ns, total = int(steps[most]), rows.open_time.size - 1
    share = counts[most] / total
    bars = (rows.open_time[-1] - rows.open_time[0]) // interval_ns + 1
    present = len(rows) / bars
    second = np.delete(counts, most).max(initial=0) / total
    plausible = interval_ns % _SECOND_NS == 0 and (_DAY_NS % interval_ns == 0 or interval_ns % _DAY_NS == 0)
    text = f"{share:.1%} of the steps are {timeframe_text(interval_ns)}"
    if not plausible or second > 0.25 or present < 0.55 or share < 0.5:
        raise DataError(
            f"{rows.place}: steps are irregular: {text}, the next most frequent step makes {second:.1%}, and "
            f"{present:.0%} of the bars are present; if that is right, go on with --timeframe"
        )
    return interval_ns, (f"timeframe {timeframe_text(interval_ns)}: {text}",)


def _on_grid(rows: Rows, remedies: Remedies, interval_ns: int) -> tuple[Rows, int]:
    phases, counts = np.unique(rows.open_time % interval_ns, return_counts=True)
    phase = int(phases[np.argmax(counts)])
    if counts.max() * 2 <= counts.sum():
        phase = 0  # no majority: the natural grid is the better guess of what was meant
    off = (rows.open_time - phase + interval_ns // 2) % interval_ns - interval_ns // 2
    wrong = off != 0
    if wrong.any():
        near = np.abs(off) <= interval_ns // 20
        if not near[wrong].all() or not remedies.repairs("round-times", wrong.sum()):
            far = wrong & ~near
            raise rows.refusal(
                far if far.any() else wrong,
                lambda row: (
                    f"opens at {_exact(rows.open_time[row])}, off the {timeframe_text(interval_ns)} grid"
                ),
                "bars must open on the grid of their timeframe",
                *(() if far.any() else ("--repair round-times",)),
            )
        rows = replace(rows, open_time=rows.open_time - off)
    if (rows.open_time[0] + interval_ns) % _SECOND_NS:
        raise DataError(
            f"{rows.place}: bars open at {_exact(rows.open_time[0])}, not on a whole second; if these are "
            f"closing times, go on with --column close_time=NAME"
        )
    return rows, phase


def _finished(rows: Rows, remedies: Remedies, interval_ns: int, now_ns: int) -> Rows:
    unfinished = rows.open_time + interval_ns > now_ns
    if not unfinished.any() or remedies.repairs("drop-unfinished", unfinished.sum()):
        return rows.take(~unfinished) if unfinished.any() else rows
    raise rows.refusal(
        unfinished,
        lambda row: f"the bar of {rows.stamp(row)} has not closed yet",
        "only finished bars are data",
        "--repair drop-unfinished",
    )


def _possible(rows: Rows, remedies: Remedies) -> Rows:
    rows = _numbers(rows, remedies)
    values = rows.values
    inverted = values[:, 1] < values[:, 2]
    if inverted.any() and remedies.repairs("swap-high-low", inverted.sum()):
        values = values.copy()
        values[inverted, 1:3] = values[inverted, 2:0:-1]
        rows = replace(rows, values=values)
    top, bottom = np.maximum(values[:, 0], values[:, 3]), np.minimum(values[:, 0], values[:, 3])
    outside = (top > values[:, 1]) | (bottom < values[:, 2])
    if not outside.any():
        return rows
    inverted = values[:, 1] < values[:, 2]
    if (
        not inverted.any()
        and outside.mean() <= MAX_DROPPED
        and remedies.repairs("widen-range", outside.sum())
    ):
        values = values.copy()
        values[:, 1] = np.maximum(values[:, 1], top)
        values[:, 2] = np.minimum(values[:, 2], bottom)
        return replace(rows, values=values)
    if outside.mean() > MAX_DROPPED:
        way = ["--column open=NAME for each column"]
        if _is_bitfinex_order(values):
            way.insert(0, "--layout bitfinex (open, close, high, low), which holds in every row,")
        raise rows.refusal(
            outside,
            lambda row: _bounds_text(values[row]),
            f"{outside.mean():.0%} of the rows break low <= open, close <= high, so the columns stand in "
            f"another order",
            *way,
        )
    remedy = ("--repair swap-high-low",) if inverted.any() else ("--repair widen-range",)
    return _without(
        rows,
        outside,
        remedies,
        lambda row: _bounds_text(values[row]),
        "high must enclose every price from above and low from below",
        *remedy,
    )


def _is_bitfinex_order(values: np.ndarray) -> bool:
    open_, close, high, low = values[:, :4].T
    return bool(((np.maximum(open_, close) <= high) & (np.minimum(open_, close) >= low)).all())


def _numbers(rows: Rows, remedies: Remedies) -> Rows:
    broken = np.empty((len(rows), 5), bool)
    broken[:, :4] = ~((rows.values[:, :4] >= PRICE_RANGE[0]) & (rows.values[:, :4] <= PRICE_RANGE[1]))
    broken[:, 4] = ~((rows.values[:, 4] >= 0) & (rows.values[:, 4] <= MAX_VOLUME))
    wrong = broken.any(axis=1)
    if not wrong.any():
        return rows

    def found(row: int) -> str:
        column = int(np.argmax(broken[row]))
        return f"{rows.names[column]} is {rows.values[row, column]:.12g} at {rows.stamp(row)}"

    rule = (
        f"prices must be finite and positive ({PRICE_RANGE[0]:g} to {PRICE_RANGE[1]:g}), volume zero or more"
    )
    return _without(rows, wrong, remedies, found, rule)


def _without(
    rows: Rows,
    wrong: np.ndarray,
    remedies: Remedies,
    found: Callable[[int], str],
    rule: str,
    *others: str,
) -> Rows:
    few = wrong.mean() <= MAX_DROPPED or np.count_nonzero(wrong) <= 1
    if few and remedies.repairs("drop-bad-rows", wrong.sum()):
        return rows.take(~wrong)
    if not few:
        rule += f" ({wrong.mean():.0%} of the rows, too many to drop)"
    raise rows.refusal(wrong, found, rule, *others, *(("--repair drop-bad-rows",) if few else ()))


def _believable(rows: Rows, remedies: Remedies, interval_ns: int) -> Rows:
    bars = rows.values[:, :4]
    if exchanged_open_close(bars[:, 0], bars[:, 3], rows.open_time, interval_ns):
        raise DataError(
            f"{rows.place}: opens do not follow closes but closes follow opens, so the two columns are "
            f"exchanged; say which is which with --column open=NAME --column close=NAME"
        )
    usual = float(np.median(bars[:, 1] / bars[:, 2]))
    if usual > MAX_USUAL_RANGE:
        raise DataError(
            f"{rows.place}: the high of the median bar is {usual:.3g} times its low, so a column that is no "
            f"price is read as one; say which is which with --column high=NAME --column low=NAME"
        )
    rows = _without_erroneous_prints(rows, remedies)
    jump, factor = price_jumps(rows.open_time, rows.values, interval_ns)
    if jump.any() and not remedies.accepts("jumps", jump.sum()):
        raise rows.refusal(
            jump,
            lambda row: f"the price changes by a factor of {factor[row]:.4g} at {rows.stamp(row)} and stays",
            "such a step is a split, a redenomination or another market",
            "--accept jumps",
        )
    start, length, kind = frozen_run(rows.values)
    if length and not remedies.accepts("frozen", length):
        raise DataError(
            f"{rows.place}: {rows.counted} {rows.number[start]}: {kind} for {length} bars from "
            f"{rows.stamp(start)}; the feed stood still; go on with --accept frozen"
        )
    return rows


def _without_erroneous_prints(rows: Rows, remedies: Remedies) -> Rows:
    column, level = erroneous_prints(rows.values)
    wrong = column >= 0
    if not wrong.any() or remedies.accepts("outliers", wrong.sum()):
        return rows
    # A wick can be cut because the body says where the market was; a wrong open or close cannot.
    bodies = rows.values[:, [0, 3]]
    wick = wrong & (np.abs(np.log(bodies / level[:, None])) < np.log(2)).all(axis=1)
    if wick.any() and remedies.repairs("clip-outliers", wick.sum()):
        values = rows.values.copy()
        values[wick, 1] = np.minimum(values[wick, 1], np.maximum(bodies.max(axis=1), level)[wick])
        values[wick, 2] = np.maximum(values[wick, 2], np.minimum(bodies.min(axis=1), level)[wick])
        values[wick, 1] = np.maximum(values[wick, 1], bodies.max(axis=1)[wick])
        values[wick, 2] = np.minimum(values[wick, 2], bodies.min(axis=1)[wick])
        rows, wrong = replace(rows, values=values), wrong & ~wick
    if not wrong.any():
        return rows
    if remedies.repairs("drop-outliers", wrong.sum()):
        return rows.take(~wrong)
    raise rows.refusal(
        wrong,
        lambda row: (
            f"{rows.names[column[row]]} is {rows.values[row, column[row]]:.12g} at {rows.stamp(row)} while "
            f"the market stands at {level[row]:.6g}"
        ),
        "a print this far away is an error or a flash crash, and no rule should be tuned on it unawares",
        *(("--repair clip-outliers",) if wick.any() else ()),
        "--repair drop-outliers",
        "--accept outliers",
    )


def _in_utc(rows: Rows, remedies: Remedies, interval_ns: int) -> None:
    row = wall_clock_switch(rows.open_time, interval_ns)
    if row is None or remedies.accepts("wall-clock", 1):
        return
    raise DataError(
        f"{rows.place}: {rows.counted} {rows.number[row]}: the hour before {rows.stamp(row)} is missing, "
        f"where clocks change to summer time, and the times carry no zone; times must be UTC; go on with "
        f"--accept wall-clock if they are"
    )


def _bounds_text(row: np.ndarray) -> str:
    return f"open {row[0]:.12g}, high {row[1]:.12g}, low {row[2]:.12g}, close {row[3]:.12g}"


def _exact(time_ns: int) -> str:
    rest = int(time_ns) % _SECOND_NS
    return utc(time_ns) if not rest else f"{utc(time_ns)[:-1]}.{rest:09d}".rstrip("0") + "Z"

"""Columns become numbers and times, strictly: what could mean two things is refused until it is named."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.rows import Remedies
from market.sources.readers import RawTable
from market.table import DataError

# Every plausible stamp tells its unit: seconds reach 1e11 in the year 5138, milliseconds start there in 1973.
UNITS = (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000), ("ns", 1))
_UNIT_EDGES = np.array([1e11, 1e14, 1e17])
BINANCE_SWITCH_NS = 1_735_689_600 * 1_000_000_000  # 2025-01-01: spot dumps go from ms to µs
_LAST_NS = 2**63 - 1
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_CLOCK = r"\d{2}:\d{2}(:\d{2}(\.\d+)?)?"
_ZONED = _CLOCK + r"\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)$"
_DAY_AND_MONTH = r"^\d{1,2}[./-]\d{1,2}[./-]\d{4}"


@dataclass(frozen=True)
class Stamps:
    """Times of a column.

    Parameters
    ----------
    ns : int64 (n,)
        Nanoseconds UTC.
    unit : str
        ``s``, ``ms``, ``µs`` or ``ns`` of numbers, ``text`` of dates, ``time`` of a typed column.
    zoned : bool
        Whether the column says its zone, or counts from 1970 and so needs none.
    note : str
        How the times were read.
    unit_ns : int64 (n,) or None
        Nanoseconds of one unit, by row; None when the column is not numeric.
    """

    ns: np.ndarray
    unit: str
    zoned: bool
    note: str
    unit_ns: np.ndarray | None = None


def numbers(raw: RawTable, name: str, remedies: Remedies, *, blank: bool = False) -> np.ndarray:
    """Return a column as float64 (n,); nulls are NaN.

    Parameters
    ----------
    raw : RawTable
        The file.
    name : str
        Its column.
    remedies : Remedies
        ``decimal-comma``, ``thousands-comma`` and ``drop-bad-rows`` act here; what the last one is to drop
        becomes NaN.
    blank : bool
        Whether an empty text means "not known" (extra columns) rather than an error.

    Raises
    ------
    DataError
        If a cell is no number.
    """
    column = raw.column(name)
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(raw), np.nan)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan), dtype=np.float64)
    if pa.types.is_decimal(kind):
        # By way of the text, because arrow's own cast divides and may miss the nearest float by one.
        column, kind = column.cast(pa.string()), pa.string()
    if not _is_text(kind):
        raise DataError(f"{raw.place}: column {name} is {kind}; it must be numbers")
    return _parsed(raw, name, column.cast(pa.string()), remedies, blank)


def _parsed(raw: RawTable, name: str, text: pa.Array, remedies: Remedies, blank: bool) -> np.ndarray:
    if blank:
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    try:
        return _floats(text)
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(text)
    for remedy, pattern, replace in (
        ("thousands-comma", r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$", (",", "")),
        ("decimal-comma", r"^[+-]?\d+,\d+$", (",", ".")),
    ):
        matches = pc.fill_null(pc.match_substring_regex(text, pattern), False)
        if pc.any(matches).as_py() and remedies.repairs(remedy, pc.sum(matches).as_py()):
            text = pc.if_else(matches, pc.replace_substring(text, *replace), text)
    wrong = ~_mask(pc.match_substring_regex(text, f"{_NUMBER}|^[+-]?(?i:nan|inf|infinity)$"), null=True)
    if not wrong.any():
        return _floats(text)
    if remedies.asked("drop-bad-rows"):
        return _floats(pc.if_else(pa.array(wrong), pa.scalar(None, pa.string()), text))
    row = int(np.argmax(wrong))
    cell = text[row].as_py()
    way = "--repair drop-bad-rows"
    if "," in cell:
        way = "--repair decimal-comma or --repair thousands-comma, whichever it is"
    more = f" ({np.count_nonzero(wrong)} such rows)" if np.count_nonzero(wrong) > 1 else ""
    raise DataError(
        f"{raw.place}: {raw.counted} {raw.number[row]}: {name} is {_shown(cell)}; it must be a number{more}; "
        f"go on with {way}"
    )


def times(raw: RawTable, name: str, remedies: Remedies, *, binance: bool = False) -> Stamps:
    """Return a column as times.

    Numbers count from 1970 in the unit that their magnitude tells; text is ISO 8601, or day-first or
    month-first when that repair was named.

    Parameters
    ----------
    raw, name, remedies
        As for :func:`numbers`.
    binance : bool
        Whether the unit may change from ms to µs on 2025-01-01, as in Binance's dumps.

    Raises
    ------
    DataError
        If a cell is no time, units or zones are mixed, or a time lies beyond the year 2262.
    """
    column = raw.column(name)
    kind = column.type
    if column.null_count:
        row = int(np.argmax(_mask(column.is_null())))
        raise DataError(
            f"{raw.place}: {raw.counted} {raw.number[row]}: {name} is missing; every bar has a time"
        )
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        zoned = getattr(kind, "tz", None) is not None
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            ns = np.asarray(column.cast(pa.int64()))
        else:
            ns = _ns_of_micros(raw, name, np.asarray(micros))
        note = "times carry their zone" if zoned else "times carry no zone: read as UTC"
        # A typed time without a zone is the habit of writers that mean UTC; text is more often local.
        return Stamps(ns, "time", True, note)
    if pa.types.is_integer(kind):
        return _counted(raw, name, np.asarray(column.cast(pa.int64(), safe=False)), binance)
    if pa.types.is_floating(kind):
        return _counted(raw, name, _whole(raw, name, np.asarray(column, dtype=np.float64)), binance)
    if not _is_text(kind):
        raise DataError(f"{raw.place}: column {name} is {kind}; it must be times")
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    numeric = _mask(pc.match_substring_regex(text, _NUMBER))
    if numeric.all():
        try:
            return _counted(raw, name, np.asarray(text.cast(pa.int64())), binance)
        except pa.ArrowInvalid:
            return _counted(raw, name, _whole(raw, name, _floats(text)), binance)
    if numeric.any():
        _refuse(raw, name, text, numeric == numeric[0], "times must all be numbers or all be dates")
    return _dated(raw, name, text, remedies)


def _whole(raw: RawTable, name: str, stamps: np.ndarray) -> np.ndarray:
    wrong = ~((np.abs(stamps) < 2.0**63) & (stamps == np.floor(stamps)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{raw.place}: {raw.counted} {raw.number[row]}: {name} is {stamps[row]:.17g}; "
            f"stamps must be whole numbers"
        )
    return stamps.astype(np.int64)


def _counted(raw: RawTable, name: str, stamps: np.ndarray, binance: bool) -> Stamps:
    magnitude = np.abs(stamps.astype(np.float64))  # the smallest int64 has no absolute value of its own
    unit = np.searchsorted(_UNIT_EDGES, magnitude, side="right")
    factor = np.array([size for _, size in UNITS])[unit]
    over = magnitude > _LAST_NS // factor
    if over.any():
        row = int(np.argmax(over))
        raise DataError(
            f"{raw.place}: {raw.counted} {raw.number[row]}: {name} is {stamps[row]}, beyond the year 2262"
        )
    ns = stamps * factor
    used = np.unique(unit)
    text = " and ".join(UNITS[i][0] for i in used)
    if used.size > 1:
        switched = list(used) == [1, 2] and np.array_equal(unit == 2, ns >= BINANCE_SWITCH_NS)
        if not (binance and switched):
            row = int(np.argmax(unit != unit[0]))
            raise DataError(
                f"{raw.place}: {raw.counted} {raw.number[row]}: {name} is {stamps[row]} "
                f"({UNITS[unit[row]][0]}) after {stamps[row - 1]} ({UNITS[unit[row - 1]][0]}); "
                f"stamps must have one unit"
            )
        text += ", changing on 2025-01-01 as Binance does"
    return Stamps(ns, UNITS[used[0]][0], True, f"stamps in {text} since 1970", factor)


def _dated(raw: RawTable, name: str, text: pa.Array, remedies: Remedies) -> Stamps:
    text = pc.replace_substring_regex(text, r"^(\d{4})/(\d{2})/(\d{2})", r"\1-\2-\3")
    ordered = _mask(pc.match_substring_regex(text, _DAY_AND_MONTH))
    if ordered.any():
        text = _reordered(raw, name, text, ordered, remedies)
    zoned = _mask(pc.match_substring_regex(text, _ZONED))
    if zoned.any() and not zoned.all():
        _refuse(raw, name, text, zoned == zoned[0], "times must all carry a zone or none")
    text = pc.replace_substring_regex(text, r"\s*UTC$", "Z")
    text = pc.replace_substring_regex(text, r"(\.\d{6})0+", r"\1")
    kind = pa.timestamp("us", "UTC" if zoned.any() else None)
    try:
        micros = np.asarray(text.cast(kind).cast(pa.int64()))
    except pa.ArrowInvalid:
        valid = np.ones(len(text), bool)
        for row in range(len(text)):  # only to find the row to name
            try:
                text[row].cast(kind)
            except pa.ArrowInvalid:
                valid[row] = False
                break
        _refuse(raw, name, text, valid, "times must be ISO dates such as 2024-06-30 23:00:00Z")
    note = "dates carry their zone" if zoned.any() else "dates carry no zone: read as UTC"
    return Stamps(_ns_of_micros(raw, name, micros), "text", bool(zoned.any()), note)


def _reordered(raw: RawTable, name: str, text: pa.Array, ordered: np.ndarray, remedies: Remedies) -> pa.Array:
    text = pc.replace_substring_regex(text, r"^(\d)([./-])", r"0\1\2")
    text = pc.replace_substring_regex(text, r"^(\d{2}[./-])(\d)([./-])", r"\10\2\3")
    rows = int(ordered.sum())
    if remedies.repairs("day-first", rows):
        order = r"\3-\2-\1"
    elif remedies.repairs("month-first", rows):
        order = r"\3-\1-\2"
    else:
        _refuse(
            raw,
            name,
            text,
            ~ordered,
            "day and month cannot be told apart; go on with --repair day-first or --repair month-first",
        )
    return pc.replace_substring_regex(text, r"^(\d{2})[./-](\d{2})[./-](\d{4})", order)


def _ns_of_micros(raw: RawTable, name: str, micros: np.ndarray) -> np.ndarray:
    over = np.abs(micros.astype(np.float64)) > _LAST_NS // 1_000
    if over.any():
        row = int(np.argmax(over))
        raise DataError(
            f"{raw.place}: {raw.counted} {raw.number[row]}: {name} lies beyond the years 1678 to 2262"
        )
    return micros * 1_000


def _refuse(raw: RawTable, name: str, text: pa.Array, valid: np.ndarray, rule: str) -> None:
    row = int(np.argmin(valid))
    raise DataError(
        f"{raw.place}: {raw.counted} {raw.number[row]}: {name} is {_shown(text[row].as_py())}; {rule}"
    )


def _floats(text: pa.Array) -> np.ndarray:
    return np.asarray(text.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)


def _mask(array: pa.Array, null: bool = False) -> np.ndarray:
    return np.asarray(pc.fill_null(array, null), dtype=bool)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _shown(cell: str) -> str:
    return ascii(cell if len(cell) <= 40 else cell[:40] + "...")

"""The laws of flow as plain checks, for every stage of the house.

Each check takes a stage (fitted; it is never advanced itself, only ``fresh()`` ones are) and the tables it
reads, and raises ``AssertionError`` with column and row. They find broken stages as well as they pass sound
ones: ``tests/market/test_features_laws.py`` shows them planted leaks.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from market.causal import transform
from market.table import Table, concat

Poison = Callable[[Table], Table]


def check_chunk_law(stage, tables: Table | Sequence[Table], cuts: Sequence[int]) -> None:
    """Check that cutting the input at some rows changes no output bit (guarantees L1 and L4).

    Since the rows before a cut are answered before the later ones exist, this also is prefix invariance.

    Parameters
    ----------
    stage : Stage
    tables : Table or sequence of Table
        What one ``update`` takes; equal clocks.
    cuts : sequence of int
        Row numbers, in any order; ``range(n)`` cuts into single rows, a number twice gives an empty chunk.
    """
    tables = _tuple(tables)
    n = len(tables[0])
    whole = _rows(transform(stage, *tables), tables[0])
    edges = [0, *sorted(min(max(cut, 0), n) for cut in cuts), n]
    streamed = stage.fresh()
    for start, end in itertools.pairwise(edges):
        chunk = tuple(table[start:end] for table in tables)
        part = _rows(streamed.update(*chunk), chunk[0])
        for name, values in part.items():
            _same(whole[name][start:end], values, name, start, f"cut at {edges[1:-1][:8]}")


def check_altered_future(stage, tables: Table | Sequence[Table], row: int, poison: Poison) -> None:
    """Check that replacing everything after a row changes nothing up to it (guarantee L2).

    Parameters
    ----------
    stage : Stage
    tables : Table or sequence of Table
    row : int
        The last row that stays.
    poison : callable
        ``poison(table of the later rows) -> table`` with the same times, for example one of ``POISONS``.
    """
    tables = _tuple(tables)
    altered = tuple(concat([table[: row + 1], poison(table[row + 1 :])]) for table in tables)
    if not any(_differ(a.values, b.values).any() for a, b in zip(tables, altered, strict=True)):
        raise ValueError(f"the poison changes nothing after row {row}; the check would prove nothing")
    before = _rows(transform(stage, *tables), tables[0])
    after = _rows(transform(stage, *altered), tables[0])
    for name, values in before.items():
        _same(values[: row + 1], after[name][: row + 1], name, 0, f"rows after {row} altered")


def check_start_invariance(
    stage, tables: Table | Sequence[Table], offsets: Sequence[int], tolerance: float = 1e-6
) -> None:
    """Check that after the declared warm-up it no longer matters where the stream began (guarantee L3).

    Differences are relative to the larger of the two values and the column's median absolute value: a
    column that crosses zero has no relative error there.

    Parameters
    ----------
    stage : Stage
        ``stage.warmup`` is put to the test, per column where it has ``warmups``.
    tables : Table or sequence of Table
        Longer than the warm-up plus the largest offset.
    offsets : sequence of int
        First rows of the later starts.
    tolerance : float
        Largest relative difference.
    """
    tables = _tuple(tables)
    n = len(tables[0])
    whole = _rows(transform(stage, *tables), tables[0])
    warmups = getattr(stage, "warmups", {})
    for offset in offsets:
        if offset + stage.warmup >= n:
            raise ValueError(f"offset {offset} and warm-up {stage.warmup} leave none of {n} rows to compare")
        later = tuple(table[offset:] for table in tables)
        part = _rows(transform(stage, *later), later[0])
        for name, values in part.items():
            # Both streams must be past their warm-up: the first began `offset` rows earlier.
            first = warmups.get(name, stage.warmup)
            a = np.asarray(whole[name][offset + first :], dtype=np.float64)
            b = np.asarray(values[first:], dtype=np.float64)
            with np.errstate(invalid="ignore"):
                size = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.median(np.abs(a)))
                wrong = ~((np.abs(a - b) <= tolerance * size) | (a == b))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise AssertionError(
                    f"column {name}, row {offset + first + row}: {a[row]!r} when started at row 0, "
                    f"{b[row]!r} when started at row {offset}, after a warm-up of {first} rows"
                )


def check_finite_after_warmup(stage, tables: Table | Sequence[Table]) -> None:
    """Check that a stage answers NaN in its warm-up only, and never an infinity."""
    tables = _tuple(tables)
    for name, values in _rows(transform(stage, *tables), tables[0]).items():
        if values.dtype.kind != "f":
            continue
        first = getattr(stage, "warmups", {}).get(name, stage.warmup)
        wrong = ~np.isfinite(values)
        wrong[:first] &= np.isinf(values[:first])
        if wrong.any():
            row = int(np.argmax(wrong))
            raise AssertionError(f"column {name}, row {row}: {values[row]!r}, with a warm-up of {first} rows")


def check_inputs_untouched(stage, tables: Table | Sequence[Table]) -> None:
    """Check that a stage leaves its input as it was, and that a second ``fresh`` one repeats the first."""
    tables = _tuple(tables)
    before = [table.values.copy() for table in tables]
    first = _rows(transform(stage, *tables), tables[0])
    for table, values in zip(tables, before, strict=True):
        for j, name in enumerate(table.names):
            _same(values[:, j], table.values[:, j], name, 0, "input")
    second = _rows(transform(stage, *tables), tables[0])
    for name, values in first.items():
        _same(values, second[name], name, 0, "second run")


def _times_1000(table: Table) -> Table:
    return dataclasses.replace(table, values=table.values * 1000.0)


def _reversed(table: Table) -> Table:
    return dataclasses.replace(table, values=table.values[::-1])


def _shuffled(table: Table) -> Table:
    order = np.random.default_rng(len(table)).permutation(len(table))
    return dataclasses.replace(table, values=table.values[order])


def _frozen(table: Table) -> Table:
    return dataclasses.replace(table, values=np.repeat(table.values[:1], len(table), axis=0))


#: Futures that are valid bars whenever the true future is: no NaN, low <= open, close <= high.
POISONS: dict[str, Poison] = {
    "times 1000": _times_1000,
    "reversed": _reversed,
    "shuffled": _shuffled,
    "frozen": _frozen,
}


def replaced_by(other: Table) -> Poison:
    """Return the poison that goes on with the last rows of another market instead."""

    def poison(table: Table) -> Table:
        return dataclasses.replace(table, values=other.values[len(other) - len(table) :])

    return poison


def _tuple(tables: Table | Sequence[Table]) -> tuple[Table, ...]:
    return (tables,) if isinstance(tables, Table) else tuple(tables)


def _rows(output, given: Table) -> dict[str, np.ndarray]:
    # Columns by name, of a Table or of a record of arrays on the clock of its `time`.
    if not np.array_equal(output.time, given.time):
        raise AssertionError(f"{len(given)} rows in, {len(output.time)} out, or other times: the row law")
    if isinstance(output, Table):
        return {name: output.values[:, j] for j, name in enumerate(output.names)}
    columns = {}
    for field in dataclasses.fields(output):
        value = getattr(output, field.name)
        if isinstance(value, Table):
            columns.update({f"{field.name}.{name}": column for name, column in _rows(value, given).items()})
        elif isinstance(value, np.ndarray) and value.shape[:1] == output.time.shape:
            for j, column in enumerate(value.reshape(len(value), -1).T if len(value) else ()):
                columns[f"{field.name}[{j}]" if value.ndim > 1 else field.name] = column
    return columns


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # By bits, so that 0.0 and -0.0 differ; any NaN equals any other.
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if a.dtype.kind != "f":
        return a != b
    bits = np.dtype(f"i{a.dtype.itemsize}")
    return (a.view(bits) != b.view(bits)) & ~(np.isnan(a) & np.isnan(b))


def _same(expected: np.ndarray, found: np.ndarray, name: str, start: int, what: str) -> None:
    differ = _differ(expected, found)
    if differ.any():
        row = int(np.argmax(differ))
        raise AssertionError(
            f"column {name}, row {start + row}: {expected[row]!r} became {found[row]!r} ({what}); "
            f"{int(differ.sum())} rows differ"
        )

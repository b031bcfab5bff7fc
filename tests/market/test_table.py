"""Tables: one row per time, read-only, cut and joined without loss."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import OHLCV, Bars
from market.table import DataError, Table, concat, same_rows, utc

HOUR = 3_600 * 10**9


def table(n: int, names: tuple[str, ...] = ("a", "b"), start: int = 0) -> Table:
    time = (start + np.arange(n)) * HOUR
    values = np.random.default_rng(n).normal(size=(n, len(names)))
    return Table(time, values, names)


def equal(one: Table, two: Table) -> bool:
    return (
        type(one) is type(two)
        and one.names == two.names
        and np.array_equal(one.time, two.time)
        and one.values.tobytes() == two.values.tobytes()
    )


# Construction


def test_arrays_are_copied_when_their_owner_could_still_change_them():
    time, values = np.arange(3), np.ones((3, 1))
    made = Table(time, values, ("a",))
    time[0], values[0] = -5, 9.0
    assert made.time[0] == 0
    assert made.values[0, 0] == 1.0


def test_nobody_can_change_a_table():
    made = table(3)
    for array in (made.time, made.values, made[:2].values, table(3, ("a",)).column("a")):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.names = ("x", "y")


def test_a_column_is_read_only_too():
    assert not table(3).column("a").flags.writeable


def test_arrays_get_one_type_and_one_order():
    made = Table([1, 2], np.asfortranarray([[1, 2], [3, 4]], dtype=np.int32), ["a", "b"])
    assert made.time.dtype == np.int64
    assert made.values.dtype == np.float64
    assert made.values.flags.c_contiguous
    assert made.names == ("a", "b")


def test_an_empty_table_is_a_table():
    made = Table(np.empty(0), np.empty((0, 2)), ("a", "b"))
    assert len(made) == 0
    assert equal(concat([made, table(3)]), table(3))


def test_a_read_only_array_is_shared_and_not_copied():
    made = table(4)
    again = Table(made.time, made.values, made.names)
    assert again.values is made.values


@pytest.mark.parametrize(
    ("time", "values", "names", "sentence"),
    [
        (
            [0, 1],
            np.ones((3, 1)),
            ("a",),
            r"Table: time has shape \(2,\), values \(3, 1\), and there are 1 names; "
            r"values must have one row per time and one column per name",
        ),
        ([0, 1], np.ones((2, 2)), ("a",), r"there are 1 names"),
        ([0, 1], np.ones(2), ("a",), r"values \(2,\)"),
        ([[0, 1]], np.ones((2, 1)), ("a",), r"time has shape \(1, 2\)"),
        ([0, 1], np.ones((2, 2)), ("a", "a"), r"^Table: column a is named twice; names must differ$"),
        (
            [0, HOUR, HOUR],
            np.ones((3, 1)),
            ("a",),
            r"^Table: row 2 is at 1970-01-01T01:00:00Z, not after row 1 at 1970-01-01T01:00:00Z; "
            r"times must strictly increase$",
        ),
        ([2, 1], np.ones((2, 1)), ("a",), r"row 1 is at .* times must strictly increase"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(time, values, names, sentence):
    with pytest.raises(DataError, match=sentence):
        Table(np.array(time), values, names)


def test_the_kind_of_table_is_named():
    bars = (np.array([0, 0]), np.ones((2, 5)), OHLCV)
    with pytest.raises(DataError, match=r"^Bars: row 1 is at"):
        Bars(*bars, symbol="X", interval_ns=HOUR)


def test_times_that_are_no_whole_nanoseconds_are_refused():
    with pytest.raises(DataError):
        Table(np.array([0.5, 1.5]), np.ones((2, 1)), ("a",))


@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], [["x"], ["y"]]])
def test_values_that_are_no_numbers_are_refused_as_data(values):
    with pytest.raises(DataError):
        Table(np.arange(2), values, ("a",))


def test_a_read_only_view_of_a_writable_array_cannot_change_a_table():
    values = np.ones((2, 1))
    view = values.view()
    view.flags.writeable = False
    made = Table(np.arange(2), view, ("a",))
    values[0] = 9.0
    assert made.values[0, 0] == 1.0


# Columns and rows


def test_columns_are_found_by_name():
    made = table(3, ("a", "b", "c"))
    assert made.index("c") == 2
    assert np.array_equal(made.column("b"), made.values[:, 1])
    assert made.column("b").flags.c_contiguous
    with pytest.raises(LookupError, match="no column 'd'; columns are a, b, c"):
        made.column("d")


def test_selected_columns_come_in_the_order_asked_for():
    made = table(3, ("a", "b", "c")).select(["c", "a"])
    assert made.names == ("c", "a")
    assert np.array_equal(made.values, table(3, ("a", "b", "c")).values[:, [2, 0]])
    with pytest.raises(LookupError):
        made.select(["b"])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.integers(-15, 15) | st.none(), st.integers(-15, 15) | st.none())
def test_a_slice_of_rows_is_a_table_of_these_rows(n, start, stop):
    made = table(n)
    part = made[start:stop]
    assert np.array_equal(part.time, made.time[start:stop])
    assert np.array_equal(part.values, made.values[start:stop])
    assert part.names == made.names


def test_a_slice_copies_nothing_and_keeps_the_kind(make_bars):
    bars = make_bars(20)
    part = bars[5:9]
    assert type(part) is Bars
    assert (part.symbol, part.interval_ns) == (bars.symbol, bars.interval_ns)
    assert np.shares_memory(part.values, bars.values)


@pytest.mark.parametrize("rows", [3, slice(0, 4, 2), slice(None, None, -1), [0, 1], np.array([True, False])])
def test_rows_are_taken_by_slices_only(rows):
    with pytest.raises(TypeError, match="rows are taken by slices with step 1"):
        table(4)[rows]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(-2 * HOUR, 14 * HOUR))
def test_row_at_counts_what_was_known(n, time):
    made = table(n)
    past = made[: made.row_at(time)]
    assert (past.time <= time).all()
    assert len(past) == sum(int(one) <= time for one in made.time)


# Joining


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 15), st.lists(st.integers(0, 15), max_size=5))
def test_cutting_and_joining_changes_no_bit(n, cuts):
    made = table(n)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [made[a:b] for a, b in itertools.pairwise(edges)]
    assert equal(concat(parts), made)
    # Negative control: a lost row, if there is one to lose, is seen.
    lost = [part for part in parts if len(part)]
    lost[-1] = lost[-1][:-1]
    assert not equal(concat(lost), made)


def test_bars_are_joined_to_bars(make_bars):
    bars = make_bars(20)
    joined = concat([bars[:7], bars[7:]])
    assert equal(joined, bars)
    assert joined.fingerprint() == bars.fingerprint()


def test_tables_that_do_not_fit_are_not_joined():
    with pytest.raises(DataError, match=r"^concat needs at least one table$"):
        concat([])
    with pytest.raises(DataError, match=r"^concat: columns \('b',\) do not match \('a',\)$"):
        concat([table(2, ("a",)), table(2, ("b",), start=2)])
    with pytest.raises(DataError, match=r"row 2 is at .* times must strictly increase"):
        concat([table(2), table(2, start=1)])


@pytest.mark.parametrize("other", [{"symbol": "ETH/USDT"}, {"timeframe": "15m", "start": 100}])
def test_bars_of_another_market_are_not_joined(make_bars, other):
    with pytest.raises(DataError):
        concat([make_bars(5), make_bars(5, **({"start": 5} | other))])


def test_same_rows_names_the_first_row_that_differs():
    one = table(3)
    same_rows(one)
    same_rows(one, table(3, ("x",)), one)
    with pytest.raises(DataError, match=r"^tables have 3 and 2 rows; inputs of one stage share one clock$"):
        same_rows(one, one[:2])
    other = Table(one.time + np.array([0, 1, 0]) * 10**9, one.values, one.names)
    sentence = "^row 1 is 1970-01-01T01:00:00Z in one table and 1970-01-01T01:00:01Z in another; "
    with pytest.raises(DataError, match=sentence):
        same_rows(one, table(3), other)


def test_times_are_written_in_utc():
    assert utc(0) == "1970-01-01T00:00:00Z"
    assert utc(1_502_942_400 * 10**9) == "2017-08-17T04:00:00Z"
    assert utc(-1) == "1969-12-31T23:59:59Z"
    assert utc(2**63 - 1) == "2262-04-11T23:47:16Z"
    assert utc(-(2**63)) == "1677-09-21T00:12:43Z"

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import OHLCV, Bars
from market.external import AsOfJoin, ExternalSeries, unit_factor
from market.table import DataError, Table

S = 10**9


def clock(*times):
    return Table(np.array(times, np.int64), np.zeros((len(times), 1)), ("x",))


def series(rows, name="rate"):
    event, available, value = zip(*rows, strict=True)
    return ExternalSeries(np.array(event), np.array(available), np.array(value, float), name)


def test_a_value_is_seen_from_the_moment_it_is_available():
    joined = AsOfJoin([series([(10, 20, 1.0), (30, 40, 2.0)])]).update(clock(19, 20, 39, 40, 99))
    np.testing.assert_array_equal(joined.values[:, 0], [np.nan, 1, 1, 2, 2])
    assert joined.names == ("rate",)


def test_a_revision_counts_from_its_publication_and_not_before():
    revised = series([(10, 20, 1.0), (10, 50, 1.5)])
    joined = AsOfJoin([revised]).update(clock(30, 49, 50))
    np.testing.assert_array_equal(joined.values[:, 0], [1, 1, 1.5])


def test_a_late_report_about_an_old_event_does_not_displace_a_newer_one():
    late = series([(10, 60, 1.0), (30, 40, 2.0), (20, 70, 9.0)])
    joined = AsOfJoin([late]).update(clock(39, 40, 60, 70))
    np.testing.assert_array_equal(joined.values[:, 0], [np.nan, 2, 2, 2])


def test_nulls_are_no_observations_and_old_values_can_expire():
    sparse = series([(10, 10, 1.0), (20, 20, np.nan), (30, 30, np.nan)])
    assert len(sparse) == 1
    np.testing.assert_array_equal(AsOfJoin([sparse]).update(clock(25, 35)).values[:, 0], [1, 1])
    np.testing.assert_array_equal(AsOfJoin([sparse], 20).update(clock(30, 31)).values[:, 0], [1, np.nan])


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match=r"available at .*, before its event"):
        series([(10, 9, 1.0)])
    with pytest.raises(DataError, match=r"two values .* at the same moment"):
        series([(10, 20, 1.0), (10, 20, 2.0)])
    with pytest.raises(DataError, match="must be finite"):
        series([(10, 20, np.inf)])
    with pytest.raises(DataError, match="equally long"):
        ExternalSeries(np.arange(2), np.arange(3), np.zeros(2), "x")
    with pytest.raises(DataError, match="repeat a name"):
        AsOfJoin([series([(1, 1, 1.0)]), series([(1, 1, 1.0)])])


def test_completed_coarser_bars_join_at_their_close():
    four = Bars([4 * 3600 * S, 8 * 3600 * S], [[1, 2, 1, 2, 1], [2, 3, 2, 3, 1.0]], OHLCV, "X", 4 * 3600 * S)
    joined = AsOfJoin([ExternalSeries.of_bars(four, "close", "close_4h")])
    hours = np.arange(1, 10) * 3600 * S
    np.testing.assert_array_equal(joined.update(clock(*hours)).values[:, 0], [np.nan] * 3 + [2] * 4 + [3] * 2)


def test_units_are_compared_on_common_events():
    first, second = (
        series([(1, 1, 2.0), (2, 2, 4.0), (3, 3, 0.0)]),
        series([(2, 2, 4000.0), (3, 3, 5.0), (4, 4, 9.0)]),
    )
    assert unit_factor(first, second) == 1000
    with pytest.raises(DataError, match="share no event"):
        unit_factor(first, series([(9, 9, 1.0)]))


def naive(rows, t):
    # Straight from the definition: among the rows known at t, the newest event, in its latest revision.
    known = [row for row in rows if row[1] <= t and not np.isnan(row[2])]
    return max(known, key=lambda row: (row[0], row[1]))[2] if known else np.nan


ROWS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(1, 5)),
    min_size=1,
    max_size=12,
    unique_by=lambda row: (row[0], row[0] + row[1]),
)


@given(ROWS, st.lists(st.integers(0, 16), unique=True, min_size=1), st.integers(0, 16))
@settings(max_examples=200, deadline=None)
def test_the_join_is_its_definition_and_keeps_the_chunk_law(rows, times, cut):
    rows = [(event, event + delay, float(value)) for event, delay, value in rows]
    times = sorted(times)
    stage = AsOfJoin([series(rows)])
    whole = stage.fresh().update(clock(*times))
    np.testing.assert_array_equal(whole.values[:, 0], [naive(rows, t) for t in times])
    table, parts = clock(*times), stage.fresh()
    at = cut % (len(times) + 1)
    chunks = np.concatenate([parts.update(table[:at]).values, parts.update(table[at:]).values])
    np.testing.assert_array_equal(chunks, whole.values)
    # Altered future: what becomes available after a row changes nothing at that row.
    past = [row for row in rows if row[1] <= times[0]] + [(99, 99, 7.0)]
    np.testing.assert_array_equal(AsOfJoin([series(past)]).update(clock(times[0])).values, whole.values[:1])


def test_joining_by_event_time_would_be_caught():
    # Negative control: the cheating join sees the value before it was published.
    rows = [(10, 20, 1.0), (30, 40, 2.0)]
    cheating = series([(event, event, value) for event, _, value in rows])
    seen = AsOfJoin([cheating]).update(clock(15, 35)).values[:, 0]
    assert not np.array_equal(seen, [naive(rows, 15), naive(rows, 35)], equal_nan=True)

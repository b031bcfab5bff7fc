"""Windows end at their row, reach back, and cross neither a gap nor what is not known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasters.windows import Examples, examples_of
from market.labels import forward_return
from market.scaling import Scaler
from market.table import DataError, Table

HOUR = 3_600_000_000_000
NAMES = ("a", "b")


def table_of(n, missing=(), unknown=(), seed=0):
    """Return n rows with the hours of ``missing`` left out, and NaN in the rows of ``unknown``."""
    values = np.random.default_rng(seed).normal(size=(n, 2))
    values[list(unknown), 1] = np.nan
    hours = [hour for hour in range(n + len(set(missing))) if hour not in set(missing)][:n]
    return Table((np.array(hours, np.int64) + 1) * HOUR, values, NAMES)


def scaler_of(table, rows=slice(None)):
    return Scaler.fit(table[rows])


def by_hand(table, lookback):
    """Return the rows that have a whole window, found by looking at each window."""
    found = []
    for row in range(lookback - 1, len(table)):
        rows = slice(row - lookback + 1, row + 1)
        whole = table.time[row] - table.time[rows.start] == (lookback - 1) * HOUR
        if whole and not np.isnan(table.values[rows]).any():
            found.append(row)
    return found


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(8, 40),
    lookback=st.integers(1, 6),
    missing=st.sets(st.integers(1, 30), max_size=4),
    unknown=st.sets(st.integers(0, 7), max_size=3),
)
def test_examples_are_exactly_the_rows_with_a_whole_window(n, lookback, missing, unknown):
    table = table_of(n, missing, unknown)
    found = examples_of(table, None, slice(0, n), lookback, scaler_of(table), interval_ns=HOUR)
    assert found.rows.tolist() == by_hand(table, lookback)
    assert len(found) + sum(found.left_out.values()) == n


def test_a_window_is_the_scaled_rows_up_to_its_own():
    table = table_of(30)
    scaler = scaler_of(table, slice(0, 20))
    found = examples_of(table, None, slice(10, 30), 4, scaler)
    windows = found.windows()
    assert windows.shape == (20, 4, 2)
    assert windows.dtype == np.float32
    scaled = scaler.update(table).values
    # The first window of the span reaches back before it: the past of a row is known.
    np.testing.assert_allclose(windows[0], scaled[7:11], rtol=1e-6)
    np.testing.assert_array_equal(found.tabular(), windows[:, -1])
    np.testing.assert_array_equal(found.windows(np.array([3, 5])), windows[[3, 5]])
    np.testing.assert_array_equal(found.take(slice(2, 6)).windows(), windows[2:6])


def test_no_window_changes_when_later_rows_do():
    table = table_of(40)
    scaler = scaler_of(table, slice(0, 20))
    values = table.values.copy()
    values[25:] += 100.0
    altered = Table(table.time, values, NAMES)
    before, after = (examples_of(one, None, slice(0, 40), 5, scaler).windows() for one in (table, altered))
    same = (before == after).all(axis=(1, 2))
    assert same[: 25 - 4].all()
    assert not same[25 - 4 :].any()  # the negative control: what may change does


def test_windows_never_cross_a_gap_though_a_build_that_ignores_time_does():
    table = table_of(30, missing=(12, 13))
    found = examples_of(table, None, slice(0, 30), 5, scaler_of(table), interval_ns=HOUR)
    steps = np.diff(table.time[found.rows[:, None] + np.arange(-4, 1)], axis=1)
    assert (steps == HOUR).all()
    assert found.left_out["missing bars"] == 4
    blind = examples_of(table, None, slice(0, 30), 5, scaler_of(table), interval_ns=10 * HOUR)
    steps = np.diff(table.time[blind.rows[:, None] + np.arange(-4, 1)], axis=1)
    assert (steps > HOUR).any()


def test_a_tabular_model_needs_no_past_and_sees_rows_after_a_gap():
    table = table_of(30, missing=(12, 13))
    assert len(examples_of(table, None, slice(0, 30), 1, scaler_of(table), interval_ns=HOUR)) == 30


def test_reasons_are_counted():
    table = table_of(30, missing=(20,), unknown=(0, 1))
    found = examples_of(table, None, slice(0, 30), 3, scaler_of(table), interval_ns=HOUR)
    assert found.left_out == {"not known": 2, "window not full": 2, "missing bars": 2}


def test_targets_are_classes_and_rows_without_a_label_or_weight_are_left_out(make_bars):
    bars = make_bars(50)
    labels = forward_return(bars, 4)
    table = Table(bars.time, np.random.default_rng(1).normal(size=(50, 2)), NAMES)
    weights = np.linspace(0.0, 2.0, 50)
    found = examples_of(table, labels, slice(0, 50), 1, scaler_of(table), weights)
    assert found.left_out == {"without a label": 4, "without weight": 1}
    np.testing.assert_array_equal(found.target, labels.value[1:46] + 1)
    assert found.weight.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(found.weight, weights[1:46] / weights[1:46].mean())


def test_labels_of_another_clock_are_refused(make_bars):
    labels = forward_return(make_bars(50, start=3), 4)
    table = table_of(50)
    with pytest.raises(DataError, match="another clock"):
        examples_of(table, labels, slice(0, 50), 1, scaler_of(table))


@pytest.mark.parametrize(
    ("rows", "lookback", "match"),
    [([0, 1], 2, "they must increase from 1"), ([3, 3], 1, "must increase"), ([4, 9], 1, "to at most 4")],
)
def test_examples_that_cannot_be_are_refused(rows, lookback, match):
    features = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match=match):
        Examples(features, np.array(rows), lookback, None, None, NAMES)


def test_features_cannot_be_written_through_examples():
    found = examples_of(table_of(10), None, slice(0, 10), 2, scaler_of(table_of(10)))
    with pytest.raises(ValueError, match="read-only"):
        found.features[0, 0] = 1.0

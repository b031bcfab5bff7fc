import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, validate
from market.causal import transform
from market.table import Table
from regimes.path import PATH_COLUMNS, PathConfig, PathFilter, regime_path
from regimes.regime import REGIME_NAMES, RegimePath, RegimeProbabilities
from tests.conformance import laws


def probabilities(rows):
    rows = np.array(rows, dtype=float)
    return RegimeProbabilities(np.arange(1, len(rows) + 1) * 3600 * 10**9, rows, REGIME_NAMES)


def drawn(n, seed):
    rows = np.random.default_rng(seed).dirichlet(np.full(3, 0.3), size=n)
    rows[:3] = np.nan
    return probabilities(rows)


def test_a_path_by_hand():
    rows = probabilities(
        [[np.nan] * 3, [0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.5, 0.4], [0.2, 0.1, 0.7]]
    )
    table = PathFilter(PathConfig(threshold=0.6, min_dwell_bars=2)).update(rows)
    assert table.names == PATH_COLUMNS
    assert table.column("label").tolist() == [-1, 0, 0, 1, 1, 2]
    np.testing.assert_array_equal(table.column("confidence"), [np.nan, 0.4, 0.1, 0.8, 0.5, 0.7])
    path = regime_path(table)
    assert isinstance(path, RegimePath)
    assert path.label.dtype == np.int8
    assert [change.row for change in path.transitions()] == [3, 5]


def test_between_the_thresholds_the_label_in_force_stays():
    rows = probabilities([[0.7, 0.2, 0.1], [0.45, 0.55, 0.0], [0.3, 0.7, 0.0], [0.55, 0.45, 0.0]])
    assert PathFilter(PathConfig(min_dwell_bars=1)).update(rows).column("label").tolist() == [0, 0, 1, 1]


@given(st.integers(0, 1000), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_every_stay_but_the_last_lasts_the_minimum_dwell(seed, min_dwell):
    path = regime_path(PathFilter(PathConfig(min_dwell_bars=min_dwell)).update(drawn(400, seed)))
    rows = [3, *(change.row for change in path.transitions())]
    assert (np.diff(rows) >= min_dwell).all()


@pytest.mark.parametrize("cuts", [range(120), [1, 2, 50, 50, 119], []])
def test_the_path_obeys_the_chunk_law(cuts):
    laws.check_chunk_law(PathFilter(), drawn(120, 1), cuts)


@pytest.mark.parametrize("poison", ["reversed", "shuffled", "frozen"])
def test_the_path_does_not_see_the_future(poison):
    for row in (10, 60, 110):
        laws.check_altered_future(PathFilter(), drawn(120, 2), row, laws.POISONS[poison])


class Majority:
    """A planted leak: the label of the next rows' majority, as a centred smoother would give."""

    warmup = 0

    def fresh(self):
        return type(self)()

    def update(self, rows):
        label = rows.values.argmax(axis=1)
        ahead = [np.bincount(label[t : t + 5], minlength=3).argmax() for t in range(len(label))]
        return Table(rows.time, np.array(ahead, dtype=float)[:, None], ("label",))


def test_the_laws_find_a_path_that_looks_ahead():
    rows = drawn(120, 3)[3:]
    with pytest.raises(AssertionError, match="became"):
        laws.check_chunk_law(Majority(), rows, range(117))
    last = int(np.flatnonzero(np.diff(transform(Majority(), rows).values[:, 0]))[5])
    with pytest.raises(AssertionError, match="altered"):
        laws.check_altered_future(Majority(), rows, last, another_future(rows, last))


def another_future(rows, last):
    # Goes on with a regime that the true future did not have a majority of.
    regime = (int(transform(Majority(), rows).values[last, 0]) + 1) % 3
    row = np.eye(3)[regime]
    return lambda later: RegimeProbabilities(later.time, np.tile(row, (len(later), 1)), REGIME_NAMES)


def test_settings_out_of_bounds_are_refused():
    with pytest.raises(ConfigError, match="min_dwell_bars is 0"):
        validate(PathConfig, {"min_dwell_bars": 0}, "path")

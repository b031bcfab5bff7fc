"""Choices of tested groups: how many there are, that each row is tested alike often, and who may teach."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market import combinatorial as module
from market.combinatorial import combinatorial, paths_of
from market.splits import purged_train
from market.table import DataError
from tests.reference import splits as naive

HOUR = 3_600_000_000_000


def clock(n):
    return HOUR * np.arange(1, n + 1, dtype=np.int64)


def rows_in(runs):
    return [row for run in runs for row in range(run.start, run.stop)]


@pytest.mark.parametrize(
    ("groups", "test", "splits", "paths"), [(6, 1, 6, 1), (6, 2, 15, 5), (6, 3, 20, 10), (10, 2, 45, 9)]
)
def test_there_are_as_many_splits_and_paths_as_in_the_book(groups, test, splits, paths):
    found = combinatorial(clock(120), 120, groups, test)
    assert len(found) == splits == comb(groups, test)
    assert paths_of(groups, test).shape == (paths, groups)
    assert paths == splits * test // groups


def test_six_groups_of_which_two_are_tested_make_the_five_paths_of_the_book():
    # Figure 12.2 of the book, splits numbered from 0.
    assert paths_of(6, 2).T.tolist() == [
        [0, 1, 2, 3, 4],
        [0, 5, 6, 7, 8],
        [1, 5, 9, 10, 11],
        [2, 6, 9, 12, 13],
        [3, 7, 10, 12, 14],
        [4, 8, 11, 13, 14],
    ]


def test_two_of_four_groups_by_hand():
    found = combinatorial(clock(20), slice(2, 18), 4, 2, embargo=1)
    assert [one.chosen for one in found] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert found[0].train == (slice(11, 18),)
    assert found[1].test == (slice(2, 6), slice(10, 14))
    assert found[1].train == (slice(7, 9), slice(15, 18))
    assert found[4].train == (slice(2, 5), slice(11, 13))


@given(st.integers(2, 7), st.data(), st.integers(0, 5), st.integers(0, 4), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_every_row_is_tested_equally_often_and_whoever_is_apart_teaches(groups, data, first, embargo, label):
    test = data.draw(st.integers(1, groups - 1))
    n = first + data.draw(st.integers(20 * groups, 30 * groups))
    time = clock(n)
    known = time + HOUR * np.random.default_rng(n).integers(0, label + 1, n)
    found = combinatorial(time, slice(first, n), groups, test, embargo, known)
    tested = np.bincount([row for one in found for row in rows_in(one.test)], minlength=n)
    assert set(tested[first:]) == {len(paths_of(groups, test))}
    assert not tested[:first].any()
    for one in found:
        assert rows_in(one.train) == taught(time, known, range(first, n), one.test, embargo)
        assert all(a.stop < b.start for a, b in zip(one.train, one.train[1:], strict=False))


def taught(time, known, rows, test, embargo):
    """The same rows, one by one."""
    for span in test:
        widened = range(max(0, span.start - embargo), span.stop)
        rows = naive.purged_train(time.tolist(), known.tolist(), rows, widened, embargo)
    return rows


def too_near(found, embargo):
    """Training rows within the embargo of a tested group, on either side."""
    return [
        row
        for one in found
        for row in rows_in(one.train)
        if any(span.start - embargo <= row < span.stop + embargo for span in one.test)
    ]


@given(st.integers(2, 7), st.data(), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_no_training_row_is_within_the_embargo_of_a_tested_group(groups, data, embargo):
    test = data.draw(st.integers(1, groups - 1))
    n = data.draw(st.integers(20 * groups, 30 * groups))
    assert too_near(combinatorial(clock(n), n, groups, test, embargo), embargo) == []


@pytest.mark.parametrize("side", ["before", "behind"])
def test_an_embargo_on_one_side_alone_is_caught(side, monkeypatch):
    def one_sided(time, known, train, test, embargo):
        if side == "before":
            return purged_train(time, known, train, test, 0)
        return purged_train(time, known, train, slice(test.start + embargo, test.stop), embargo)

    monkeypatch.setattr(module, "purged_train", one_sided)
    assert too_near(combinatorial(clock(100), 100, 5, 2, 3), 3)


def test_a_label_that_reaches_into_a_tested_group_does_not_teach():
    time = clock(30)
    known = time.copy()
    known[4] = time[12]
    (_, middle, _) = combinatorial(time, 30, 3, 1, 2, known)
    assert 4 not in rows_in(middle.train)
    assert 4 in rows_in(combinatorial(time, 30, 3, 1, 2)[1].train)


def test_what_cannot_be_cut_is_one_sentence():
    with pytest.raises(DataError, match="5 rows cannot be cut into 6 folds"):
        combinatorial(clock(5), 5, 6, 2)
    with pytest.raises(
        DataError, match="beside the groups 1, 3 of 4 with an embargo of 6 bars on both sides"
    ):
        combinatorial(clock(20), 20, 4, 2, 6)
    for test in (0, 4):
        with pytest.raises(ValueError, match="4 groups are tested; it must be at least 1, and not all"):
            combinatorial(clock(20), 20, 4, test)
        with pytest.raises(ValueError, match="not all of them"):
            paths_of(4, test)

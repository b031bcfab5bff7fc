import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.table import DataError
from regimes.accuracy import balanced_accuracy, confusion, detection_delays, false_switches, recall
from tests.reference import regimes as naive

TRUTH = np.array([0, 0, 0, 0, 2, 2, 2, 1, 1, 1, 1, 1])
LABEL = np.array([-1, 0, 0, 2, 0, 2, 2, 2, 2, 1, 0, 1])


def test_confusion_and_balanced_accuracy_by_hand():
    np.testing.assert_array_equal(confusion(TRUTH, LABEL), [[2, 0, 1], [1, 2, 2], [1, 0, 2]])
    np.testing.assert_allclose(recall(TRUTH, LABEL), [2 / 3, 2 / 5, 2 / 3])
    assert balanced_accuracy(TRUTH, LABEL) == pytest.approx((2 / 3 + 2 / 5 + 2 / 3) / 3)


def test_balanced_accuracy_is_not_flattered_by_a_common_regime():
    truth = np.array([0] * 98 + [1, 2])
    assert balanced_accuracy(truth, np.zeros(100, dtype=int)) == pytest.approx(1 / 3)
    assert (truth == 0).mean() == 0.98  # what plain accuracy would have said


def test_a_regime_that_never_occurs_does_not_count():
    assert balanced_accuracy(np.array([0, 0, 2, 2]), np.array([0, 0, 2, 1])) == pytest.approx(0.75)


def test_delays_by_hand():
    # The volatile regime is seen one bar late, the trending one two bars late.
    assert detection_delays(TRUTH, LABEL).tolist() == [1, 2]
    # A regime that is never noticed costs its whole length; one that is called early costs nothing.
    assert detection_delays(np.array([0, 0, 1, 1, 1]), np.zeros(5, dtype=int)).tolist() == [3]
    assert detection_delays(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1])).tolist() == [0]


def test_false_switches_by_hand():
    # True: to 2 in the volatile stretch, to 1 in the trending one. False: to 2 too early, back to 0; then
    # away from 1 and back.
    assert false_switches(TRUTH, LABEL) == 4
    assert false_switches(TRUTH, TRUTH) == 0
    assert false_switches(TRUTH, np.zeros(12, dtype=int)) == 0


def test_a_switch_that_comes_early_is_one_false_switch():
    assert false_switches(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])) == 1


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_confusion_equals_counting(seed):
    truth, label = np.random.default_rng(seed).integers(-1, 3, size=(2, 50))
    np.testing.assert_array_equal(confusion(truth, label), naive.confusion(truth, label))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_truth_is_a_perfect_detector_of_itself(seed):
    truth = np.repeat(np.random.default_rng(seed).integers(0, 3, size=9), 4)
    assert balanced_accuracy(truth, truth) == 1.0
    assert not detection_delays(truth, truth).any()
    assert false_switches(truth, truth) == 0


def test_labels_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match="one value per row"):
        confusion(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="no row has both"):
        balanced_accuracy(np.zeros(3), np.full(3, -1))

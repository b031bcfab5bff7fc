"""Calibration brings probabilities to frequencies, and the figures are what their names say."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from forecasters.calibration import Calibration
from forecasters.measures import decided, f1_lead, measured
from market.table import DataError

KINDS = ("temperature", "bias_corrected", "isotonic")


def drawn(n=6000, seed=0):
    """Return true probabilities of three unequal classes and what came true."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(n, 3)) + np.array([0.0, -1.0, 0.5])
    truth = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return truth, (random.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1).clip(0, 2).astype(np.int8)


def distorted(truth, sharper=2.5, tilt=(0.8, 1.5, -0.6)):
    scores = np.log(truth) * sharper + np.array(tilt)
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def loss(probabilities, target):
    return log_loss(target, probabilities, labels=[0, 1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_helps_rows_that_it_never_saw(kind):
    truth, target = drawn()
    found = Calibration.fit(kind, distorted(truth), target, np.ones(len(target)))
    fresh, came = drawn(seed=1)
    after = found.apply(distorted(fresh))
    np.testing.assert_allclose(after.sum(axis=1), 1.0)
    assert loss(after, came) < loss(distorted(fresh), came) - 0.1


def test_a_bias_corrected_temperature_is_recovered_and_a_temperature_alone_is_not_enough():
    truth, target = drawn(20_000)
    found = Calibration.fit("bias_corrected", distorted(truth), target, np.ones(len(target)))
    assert found.temperature == pytest.approx(2.5, rel=0.05)
    np.testing.assert_allclose(found.apply(distorted(truth)), truth, atol=0.03)
    alone = Calibration.fit("temperature", distorted(truth), target, np.ones(len(target)))
    assert np.abs(alone.apply(distorted(truth)) - truth).max() > 0.1


def test_temperature_keeps_the_likeliest_class():
    truth, target = drawn()
    found = Calibration.fit("temperature", distorted(truth), target, np.ones(len(target)))
    np.testing.assert_array_equal(
        found.apply(distorted(truth)).argmax(axis=1), distorted(truth).argmax(axis=1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_weight_do_not_count(kind):
    truth, target = drawn(400)
    weight = np.repeat([1.0, 0.0], 200)
    lies = np.where(weight > 0, target, 2 - target).astype(np.int8)
    one = Calibration.fit(kind, truth, target, weight).apply(truth)
    np.testing.assert_allclose(Calibration.fit(kind, truth, lies, weight).apply(truth), one, atol=1e-6)
    assert np.abs(Calibration.fit(kind, truth, lies, np.ones(400)).apply(truth) - one).max() > 0.05


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_a_calibration_survives_its_document_to_the_bit(kind):
    truth, target = drawn(500)
    found = Calibration.fit(kind, distorted(truth), target, np.ones(500))
    again = Calibration.of_document(found.document(), "here")
    np.testing.assert_array_equal(again.apply(truth), found.apply(truth))


@pytest.mark.parametrize(
    "change", [{"kind": "magic"}, {"temperature": 0.0}, {"bias": [1.0]}, {"curves": [[[0], []]]}]
)
def test_a_document_that_is_no_calibration_is_refused(change):
    with pytest.raises(DataError, match="here: holds no calibration"):
        Calibration.of_document(Calibration().document() | change, "here")


def test_too_few_rows_change_nothing_and_unknown_answers_stay_unknown():
    truth, target = drawn(20)
    assert Calibration.fit("isotonic", truth, target, np.ones(20)).kind == "none"
    truth, target = drawn(300)
    truth[4] = np.nan
    found = Calibration.fit("bias_corrected", truth[5:], target[5:], np.ones(295)).apply(truth)
    assert np.isnan(found[4]).all()
    assert not np.isnan(found[:4]).any()


def test_figures_are_those_of_the_libraries():
    truth, target = drawn(900)
    answers = distorted(truth, 0.7)
    decision = decided(answers)
    ret = (target - 1.0) * 0.01 + np.random.default_rng(3).normal(0, 0.01, 900)
    found = measured(answers, decision, target, ret)
    assert found["f1_macro"] == pytest.approx(f1_score(target, decision, average="macro"))
    assert found["f1_up"] == pytest.approx(f1_score(target == 2, decision == 2))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, decision))
    assert found["log_loss"] == pytest.approx(loss(answers, target))
    assert found["information_coefficient"] == pytest.approx(spearmanr(answers[:, 2] - answers[:, 0], ret)[0])
    assert found["brier"] == pytest.approx(((answers - np.eye(3)[target]) ** 2).sum(axis=1).mean())
    signal = decision != 1
    assert found["hit_rate"] == pytest.approx((np.sign(ret[signal]) == decision[signal] - 1).mean())
    assert found["signals"] == pytest.approx(signal.mean())


def test_calibrated_answers_have_a_small_calibration_error_and_others_a_large_one():
    truth, target = drawn(20_000)
    ret = target - 1.0
    assert measured(truth, decided(truth), target, ret)["calibration_error"] < 0.01
    sure = distorted(truth, 4.0)
    assert measured(sure, decided(sure), target, ret)["calibration_error"] > 0.05


def test_nothing_to_measure_gives_nothing():
    found = measured(np.empty((0, 3)), np.empty(0, np.int8), np.empty(0, np.int8), np.empty(0))
    assert found["rows"] == 0
    assert set(found.values()) == {0, None}


def test_a_decision_against_the_shares_serves_rare_classes():
    truth, target = drawn(4000)
    shares = np.bincount(target) / target.size
    plain, balanced = decided(truth), decided(truth, shares)
    assert balanced_accuracy_score(target, balanced) > balanced_accuracy_score(target, plain)
    assert decided(np.full((1, 3), np.nan))[0] == 1


def test_a_lead_is_found_where_there_is_one_and_not_where_there_is_none():
    truth, target = drawn(1500)
    random = np.random.default_rng(4)
    good, guess, other = decided(truth), *(random.integers(0, 3, (2, 1500)).astype(np.int8))
    one = f1_lead(target, good, guess, 10.0, np.random.default_rng(1), 99)
    assert one["p"] == pytest.approx(0.01)
    assert one["low"] < one["lead"] < one["high"]
    assert one["lead"] == pytest.approx(
        f1_score(target, good, average="macro") - f1_score(target, guess, average="macro")
    )
    assert f1_lead(target, guess, other, 10.0, np.random.default_rng(1), 99)["p"] > 0.05
    assert f1_lead(target, good, good, 10.0, np.random.default_rng(1), 99)["p"] == 1.0

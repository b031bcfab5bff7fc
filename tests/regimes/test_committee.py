"""The committee: whom it believes, how it pools, and that it stays a detector among detectors."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.load import ConfigError
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from regimes import committee
from regimes.accuracy import balanced_accuracy
from regimes.committee import CommitteeConfig, CommitteeDetector
from regimes.detector import DETECTORS, load_detector
from regimes.foretelling import foretold
from regimes.kernels import pool
from tests.conformance import laws

N, TRAIN = 14_000, 10_000
SETTINGS = {
    "members": [
        {"name": "markov_ar"},
        {"name": "volatility", "baseline_bars": 500},
    ]
}


@pytest.fixture(scope="module")
def market():
    market = synthetic_market(SyntheticConfig(scenario="overlapping", seed=101, n_bars=N))
    columns = CommitteeDetector(CommitteeConfig(**SETTINGS)).columns
    return market, transform(FeaturePipeline(FeaturesConfig(names=columns)), market.bars)


@pytest.fixture(scope="module")
def fitted(market):
    return DETECTORS.create("committee", SETTINGS).fit(market[1][:TRAIN])


def test_the_member_that_foretells_more_counts_for_more(fitted):
    assert fitted.weight[0] > 0.7
    assert fitted.weight.sum() == pytest.approx(1.0)
    assert fitted.gain > 0.01
    np.testing.assert_allclose(
        fitted.chain, fitted.weight[0] * fitted.members[0].chain + fitted.weight[1] * fitted.members[1].chain
    )


def test_together_they_know_at_least_what_the_best_member_knows(fitted, market):
    whole, features = market
    train = slice(0, TRAIN)
    found = []
    for detector in (fitted, *fitted.members):
        probabilities = transform(detector, features)
        nats = np.nanmean(foretold(probabilities, detector.chain, whole.bars, train)[TRAIN:], axis=0).sum()
        found.append(
            (nats, balanced_accuracy(whole.regime[TRAIN:], probabilities.values[TRAIN:].argmax(axis=1)))
        )
    together, *members = found
    assert together[0] > max(one[0] for one in members) - 0.01
    assert together[1] > max(one[1] for one in members) - 0.01
    assert members[0][0] > members[1][0] + 0.02  # control: the members differ


def test_a_member_that_knows_nothing_hardly_counts(market):
    # Its columns are shuffled in time: the same distribution, no information. A little is left to it: noise
    # in the pool makes it less sure, and the other member is a little too sure.
    features = market[1]
    values = features.values.copy()
    for name in ("parkinson_24", "efficiency_72"):
        place = features.names.index(name)
        known = np.isfinite(values[:, place])
        values[known, place] = np.random.default_rng(0).permutation(values[known, place])
    blind = Table(features.time, values, features.names)
    detector = DETECTORS.create("committee", SETTINGS).fit(blind[:TRAIN])
    assert detector.weight[1] < 0.12


def test_members_are_fitted_on_all_training_rows_in_the_end(fitted, market):
    alone = DETECTORS.create("volatility", {"baseline_bars": 500}).fit(market[1][:TRAIN])
    assert fitted.members[1].fitted_until == fitted.fitted_until == market[1].time[TRAIN - 1]
    rows = market[1][TRAIN:]
    assert transform(fitted.members[1], rows).values.tobytes() == transform(alone, rows).values.tobytes()


def test_the_weights_are_learned_on_rows_that_the_members_have_not_seen(market, monkeypatch):
    seen = []

    def calibrated(opinions, chains, values):
        seen.append([member.fitted_until for member in watched.members])
        return np.full(2, 0.5), 0.0

    watched = CommitteeDetector(CommitteeConfig(**SETTINGS))
    monkeypatch.setattr(committee, "_calibrated", calibrated)
    watched.fit(market[1][:TRAIN])
    last = round((1 - watched.config.holdout) * TRAIN) - 1
    assert seen == [[market[1].time[last]] * 2]


def test_the_laws_hold(fitted, market):
    features = market[1]
    values = features.values[TRAIN:].copy()
    values[[50, 51, 700], [0, 1, 2]] = np.nan
    gaps = Table(features.time[TRAIN:], values, features.names)
    laws.check_chunk_law(fitted, gaps, [0, 1, 7, 50, 51, 1190, 1201])
    for poison in laws.POISONS.values():
        laws.check_altered_future(fitted, gaps, 705, poison)
    laws.check_inputs_untouched(fitted, gaps)


def test_the_pool_by_hand():
    members = np.array(
        [
            [[0.8, 0.2], [np.nan] * 2, [1.0, 0.0], [np.nan] * 2],
            [[0.5, 0.5], [0.3, 0.7], [0.5, 0.5], [np.nan] * 2],
        ]
    )
    out = np.empty((4, 2))
    pool(members, np.array([0.5, 0.5]), out)
    assert out[0, 0] / out[0, 1] == pytest.approx(2.0)  # the root of 4 and 1
    np.testing.assert_allclose(out[1], [0.3, 0.7])  # the other one is silent
    assert 0 < out[2, 1] < 1e-4  # nobody rules a regime out alone
    assert np.isnan(out[3]).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_a_pool_of_equals_is_each_of_them_and_orders_do_not_matter(seed, m):
    random = np.random.default_rng(seed)
    one = random.dirichlet(np.ones(4), 5)
    weight = random.dirichlet(np.ones(m))
    out = np.empty((5, 4))
    pool(np.stack([one] * m), weight, out)
    np.testing.assert_allclose(out, one, atol=1e-8)
    members, again = random.dirichlet(np.ones(4), (m, 5)), np.empty((5, 4))
    pool(members, weight, out)
    order = random.permutation(m)
    pool(np.ascontiguousarray(members[order]), weight[order], again)
    np.testing.assert_allclose(out, again, rtol=1e-12)
    naive = np.exp((weight[:, None, None] * np.log(np.maximum(members, 1e-9))).sum(axis=0))
    np.testing.assert_allclose(out, naive / naive.sum(axis=1, keepdims=True), rtol=1e-9)


def test_it_comes_back_from_disk_with_its_members(fitted, market, tmp_path):
    fitted.save(tmp_path)
    loaded = load_detector(tmp_path)
    rows = market[1][TRAIN:]
    assert transform(loaded, rows).values.tobytes() == transform(fitted, rows).values.tobytes()
    assert loaded.warmup == fitted.warmup
    assert math.isnan(loaded.gain)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("weight", [0.5, 0.6], "must be positive and sum to 1"),
        ("weight", [1.5, -0.5], "must be positive and sum to 1"),
        ("chain", [[0.5, 0.5, 0.5]] * 3, "each row must be positive and sum to 1"),
    ],
)
def test_a_damaged_file_is_refused(key, value, sentence, fitted, tmp_path):
    fitted.save(tmp_path)
    document = json.loads((tmp_path / "detector.json").read_text())
    document["parameters"][key] = value
    (tmp_path / "detector.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=sentence):
        load_detector(tmp_path)


def test_a_member_in_the_wrong_place_is_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    fitted.members[1].save(tmp_path / "member_1_markov_ar")
    with pytest.raises(DataError, match="member_1_markov_ar: holds another detector"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([{"name": "markov_ar"}], "at least 2"),
        ([{"name": "markov_ar"}, {"name": "committee"}], "cannot sit in a committee"),
        ([{"name": "markov_ar"}, {"name": "volatil"}], "did you mean volatility"),
    ],
)
def test_settings_that_make_no_sense_are_refused(members, sentence):
    with pytest.raises(ConfigError, match=sentence):
        DETECTORS.create("committee", {"members": members})


def test_members_that_tell_different_regimes_are_refused(market):
    members = [{"name": "volatility"}, {"name": "crisis", "base": {"name": "volatility"}}]
    detector = DETECTORS.create("committee", {"members": members})
    features = transform(FeaturePipeline(FeaturesConfig(names=detector.columns)), market[0].bars)
    with pytest.raises(ConfigError, match="volatility tells 3, crisis tells 4"):
        detector.fit(features[:TRAIN])


def test_too_few_rows_to_calibrate_are_refused(market):
    with pytest.raises(DataError, match="calibration needs at least 500"):
        DETECTORS.create("committee", SETTINGS).fit(market[1][:1600])
    with pytest.raises(ValueError, match="not fitted"):
        CommitteeDetector().update(market[1])

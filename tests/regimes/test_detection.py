"""One detector on one market: training rows teach, later rows do not, and the truth is met on equal terms."""

import math

import numpy as np
import pytest

from configs.load import ConfigError
from market.bars import Bars
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.splits import SplitConfig
from regimes.accuracy import balanced_accuracy
from regimes.detection import (
    STATISTICS,
    MeasuresConfig,
    agreement,
    detect,
    feature_columns,
    measure,
    oracles,
    prepare,
    state_now,
    without_regimes,
)
from regimes.detector import DETECTORS
from regimes.path import PathConfig
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, Regime
from regimes.statistics import stationary_blocks

N = 6000
MEASURES = MeasuresConfig(n_paths=99)


@pytest.fixture(scope="module")
def market():
    return synthetic_market(SyntheticConfig(scenario="short_dwell", n_bars=N, seed=11))


def grounded(bars, truth=None, name="volatility"):
    detector = DETECTORS.create(name)
    return detector, prepare(bars, feature_columns({name: detector}), SplitConfig(), truth)


@pytest.fixture(scope="module")
def found(market):
    detector, ground = grounded(market.bars, market.regime)
    return detect("volatility", detector, ground, PathConfig()), ground


def measured(one, ground, config=MEASURES):
    n = ground.held_out.stop - ground.held_out.start
    blocks = stationary_blocks(n, 100.0, config.n_paths, np.random.default_rng(0))
    return measure(one, ground, config, without_regimes(ground), blocks)


@pytest.fixture(scope="module")
def figures(found):
    return measured(*found)


def doubled_from(bars, row):
    values = bars.values.copy()
    values[row:, :4] *= np.linspace(1.0, 3.0, len(bars) - row)[:, None]
    return Bars(bars.time, values, bars.names, bars.symbol, bars.interval_ns)


def test_rows_after_the_training_rows_teach_nothing_and_change_no_earlier_label(market, found):
    one, ground = found
    held_out = ground.held_out.start
    detector, other_ground = grounded(doubled_from(market.bars, held_out), market.regime)
    other = detect("volatility", detector, other_ground, PathConfig())
    assert detector.fitted_until == one.detector.fitted_until == market.bars.time[ground.split.train.stop - 1]
    np.testing.assert_array_equal(one.chain, other.chain)
    np.testing.assert_array_equal(one.probabilities.values[:held_out], other.probabilities.values[:held_out])
    np.testing.assert_array_equal(one.path.label[:held_out], other.path.label[:held_out])
    assert (one.probabilities.values[held_out:] != other.probabilities.values[held_out:]).any()
    # Control: a fit on all rows would have seen them.
    fitted_on_all = DETECTORS.create("volatility").fit(other_ground.features)
    assert (fitted_on_all.chain != other.chain).any()


def test_training_and_held_out_rows_are_an_embargo_apart_that_no_feature_bridges(found):
    _, ground = found
    split = ground.split
    assert split.test.start - split.train.stop == split.embargo >= ground.features.warmup
    assert split.train.start == ground.features.warmup
    assert split.test.stop == N


def test_the_embargo_and_the_share_are_settings(market):
    columns = feature_columns({})
    ground = prepare(market.bars, columns, SplitConfig(train=0.5, embargo_bars=7))
    assert ground.split.embargo == 7
    assert ground.split.test.start == pytest.approx(ground.features.warmup + 0.5 * (N - 200), abs=101)


def test_columns_are_those_of_the_detectors_and_of_the_statistics_once_each():
    detectors = {name: DETECTORS.create(name) for name in ("volatility", "markov_ar")}
    columns = feature_columns(detectors)
    assert len(set(columns)) == len(columns)
    assert {*STATISTICS, *detectors["volatility"].columns, *detectors["markov_ar"].columns} == set(columns)


def test_a_detector_that_reads_no_known_feature_is_told_so():
    detector = DETECTORS.create("volatility")
    detector.columns = ("parkinson_42",)
    with pytest.raises(ConfigError, match=r"detector volatility: features: names.*did you mean parkinson_24"):
        feature_columns({"volatility": detector})


def test_too_few_bars_are_refused_with_what_it_takes(market):
    with pytest.raises(ConfigError, match=r"900 bars are too few; .* at least 1192 in all"):
        prepare(market.bars[:900], feature_columns({}), SplitConfig())


def test_figures_of_the_held_out_rows_are_those_of_the_path(found, figures):
    one, ground = found
    label = one.path.label[ground.held_out]
    held_out = figures["held_out"]
    assert held_out["bars"] == label.size
    changes = int((np.diff(label) != 0).sum())
    assert held_out["switches"] == changes
    assert held_out["switches_per_year"] == pytest.approx(changes / label.size * 8760)
    assert held_out["mean_dwell"] == pytest.approx(label.size / (changes + 1))
    for regime in Regime:
        if regime.text in held_out["regimes"]:
            assert held_out["regimes"][regime.text]["share"] == pytest.approx((label == regime).mean())
    assert sum(one["stays"] for one in held_out["regimes"].values()) == changes + 1
    assert sum(held_out["calibration"]["rows"]) == label.size


def test_the_gain_is_the_likelihood_less_that_without_regimes(found, figures):
    _, ground = found
    nats = figures["held_out"]["log_likelihood"]
    without = np.nanmean(without_regimes(ground)[ground.held_out], axis=0)
    assert nats["return"] - nats["gain_return"] == pytest.approx(without[0], abs=1e-9)
    assert nats["range"] - nats["gain_range"] == pytest.approx(without[1], abs=1e-9)
    assert nats["total"] == pytest.approx(nats["return"] + nats["range"])
    assert nats["gain"] == pytest.approx(nats["gain_return"] + nats["gain_range"])
    assert nats["gain"] > 0.02  # the rule knows something of the next bar


def test_agreement_with_the_truth_is_that_of_held_out_rows(market, found, figures):
    one, ground = found
    rows = ground.held_out
    likeliest = one.probabilities.values[rows].argmax(axis=1)
    truth = figures["truth"]
    assert truth["likeliest"]["balanced_accuracy"] == balanced_accuracy(market.regime[rows], likeliest)
    assert truth["path"]["balanced_accuracy"] == balanced_accuracy(market.regime[rows], one.path.label[rows])
    assert truth["path"]["switches"] == (np.diff(market.regime[rows]) != 0).sum()


def test_the_oracles_are_better_and_the_one_that_sees_ranges_is_best(market, found, figures):
    _, ground = found
    bar, close = (measured(one, ground) for one in oracles(market, ground, PathConfig()))
    accuracy = [one["truth"]["likeliest"]["balanced_accuracy"] for one in (bar, close, figures)]
    assert accuracy == sorted(accuracy, reverse=True)
    assert bar["held_out"]["calibration"]["error"] < figures["held_out"]["calibration"]["error"]
    assert "fit_seconds" not in bar


def test_oracles_of_a_later_time_range_are_the_rows_of_the_whole_market(market):
    later = slice(1000, N)
    ground = prepare(market.bars[later], feature_columns({}), SplitConfig(), market.regime[later])
    one, _ = oracles(market, ground, PathConfig())
    np.testing.assert_array_equal(one.probabilities.values, market.oracle.values[later])
    np.testing.assert_array_equal(one.probabilities.time, ground.bars.time)


def test_without_a_truth_confidence_is_held_against_the_label_of_later(found):
    one, ground = found
    blind = prepare(ground.bars, ground.features.names, SplitConfig())
    far, near = (measured(one, blind, MeasuresConfig(n_paths=99, calibration_bars=bars)) for bars in (500, 1))
    assert near["truth"] is None
    assert sum(near["held_out"]["calibration"]["rows"]) == len(range(*blind.held_out.indices(N))) - 1
    hits = [
        np.dot(np.nan_to_num(np.array(c["hit_rate"], dtype=float)), c["rows"]) / sum(c["rows"])
        for c in (near["held_out"]["calibration"], far["held_out"]["calibration"])
    ]
    assert hits[0] > 0.95  # the label of the next bar is nearly always the same
    assert hits[1] < 0.7


def test_regimes_are_told_apart_by_volatility_and_labels_at_random_are_not(found, figures):
    one, ground = found
    assert figures["order"][0]["statistic"] == "parkinson_24"
    assert figures["order"][0]["p_value"] == pytest.approx(0.01)
    assert figures["order"][0]["mean_higher"] > figures["order"][0]["mean_lower"]
    random = np.random.default_rng(0)
    shuffled = type(one.path)(
        one.path.time, random.permutation(one.path.label), one.path.confidence, one.path.names
    )
    blind = type(one)("blind", one.probabilities, shuffled, one.chain, one.detector)
    assert measured(blind, ground)["order"][0]["p_value"] > 0.05


def test_a_fourth_regime_has_its_own_figures_and_counts_as_volatile_against_the_truth(market):
    detector = DETECTORS.create("crisis", {"base": {"name": "volatility"}, "enter": 0.9, "leave": 0.8})
    ground = prepare(market.bars, feature_columns({"crisis": detector}), SplitConfig(), market.regime)
    one = detect("crisis", detector, ground, PathConfig())
    figures = measured(one, ground)
    assert figures["regimes"] == list(CRISIS_NAMES)
    assert np.shape(figures["chain"]) == np.shape(figures["counted_chain"]) == (4, 4)
    assert figures["held_out"]["regimes"]["crisis"]["share"] > 0.02
    assert {"higher": "crisis", "lower": "volatile"}.items() <= figures["order"][2].items()
    rows = ground.held_out
    label = np.where(one.path.label == Regime.CRISIS, Regime.VOLATILE, one.path.label)[rows]
    assert figures["truth"]["path"]["balanced_accuracy"] == balanced_accuracy(market.regime[rows], label)
    assert list(figures["truth"]["path"]["recall"]) == list(REGIME_NAMES)
    base, base_ground = grounded(market.bars, market.regime)
    shares = agreement(
        {"crisis": one, "volatility": detect("volatility", base, base_ground, PathConfig())}, rows
    )
    assert shares["crisis"]["crisis"] == 1.0
    assert shares["crisis"]["volatility"] == shares["volatility"]["crisis"]


def test_the_state_of_now_is_that_of_the_last_row(found):
    one, ground = found
    now = state_now(one, ground.bars)
    label = one.path.label
    assert now["regime"] == REGIME_NAMES[label[-1]]
    last = int(np.flatnonzero(np.diff(label))[-1]) + 1
    assert now["bars"] == N - last
    assert now["transitions"][0]["bars_ago"] == N - 1 - last
    assert now["confidence"] == one.path.confidence[-1]
    ahead = one.probabilities.values[-1] @ np.linalg.matrix_power(one.chain, 6)
    assert list(now["ahead"]["6"].values()) == pytest.approx(ahead.tolist())
    stay = one.chain.diagonal()
    best = int(one.probabilities.values[-1].argmax())
    expected = one.probabilities.values[-1, best] * stay[best] / (1 - stay[best])
    assert now["remaining_bars"] == pytest.approx(expected)
    assert math.isclose(sum(now["probabilities"].values()), 1.0)


def test_an_undecided_last_row_has_no_state(found):
    one, ground = found
    label = one.path.label.copy()
    label[-1] = -1
    undecided = type(one.path)(one.path.time, label, one.path.confidence, one.path.names)
    assert state_now(type(one)("x", one.probabilities, undecided, one.chain), ground.bars) is None

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.load import ConfigError, validate
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from regimes import hmm
from regimes.accuracy import balanced_accuracy
from regimes.detector import load_detector
from regimes.hmm import HmmConfig, HmmDetector
from regimes.observations import Observer
from regimes.regime import REGIME_NAMES
from tests.conformance import laws
from tests.reference import regimes as naive
from tests.reference.regimes import HOUR_NS, WINDOWS, small_market

ROOT = Path(__file__).parents[2]
NEWS = WINDOWS | {"evidence": 1.0, "dwell_bars": 100, "stickiness": 1.0}
SCENARIOS = {"separated": 0.97, "overlapping": 0.92, "short_dwell": 0.88, "fat_tails": 0.72, "drifting": 0.68}
TRAIN, N = 14_000, 20_000


@pytest.fixture(scope="module")
def market():
    return small_market(12_000, seed=3, dwell_bars=100)


@pytest.fixture(scope="module")
def detector(market):
    return HmmDetector(HmmConfig(**NEWS)).fit(market[1][:7000])


def test_the_true_parameters_are_found(detector):
    # Order of the saved states: ranging, trending, volatile. Columns are standardised on the training rows.
    assert detector.regime.tolist() == [0, 1, 2]
    raw = detector.mean * detector._observer.scale + detector._observer.location
    np.testing.assert_allclose(raw[:, 0], [-5.6, -5.1, -4.2], atol=0.03)
    np.testing.assert_allclose(raw[:, 2], [-0.2, 0.25, -0.05], atol=0.03)
    stay = np.diagonal(detector.transition)
    np.testing.assert_allclose(1 / (1 - stay), 100, rtol=0.25)
    assert detector.summary.converged
    assert detector.summary.n_rejected == 0


def test_probabilities_equal_the_naive_filter_on_textbook_densities(detector, market):
    rows = market[1][7000:7300]
    columns = [rows.column(name) for name in detector.columns]
    columns[0] = np.log(columns[0])
    x = (np.column_stack(columns) - detector._observer.location) / detector._observer.scale
    densities = np.empty((300, 3))
    for j in range(3):
        away = np.clip(x, -5, 5) - detector.mean[j]
        distance = np.einsum("tf,fg,tg->t", away, np.linalg.inv(detector.covariance[j]), away)
        densities[:, j] = -0.5 * (distance + np.linalg.slogdet(2 * np.pi * detector.covariance[j])[1])
    expected = naive.forward_filter(densities, detector.transition, detector.stationary)
    np.testing.assert_allclose(transform(detector, rows).values, expected, rtol=1e-6, atol=1e-12)


def test_regimes_are_found_out_of_sample(detector, market):
    truth = market[0][7000:]
    label = transform(detector, market[1][7000:]).values.argmax(axis=1)
    assert balanced_accuracy(truth, label) > 0.98
    assert balanced_accuracy(truth, np.roll(label, 500)) < 0.5  # control


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("n_states", [3, 4, 5])
def test_more_states_and_either_covariance_keep_three_names(market, n_states, covariance):
    config = HmmConfig(**NEWS | {"n_states": n_states, "covariance": covariance})
    detector = HmmDetector(config).fit(market[1][:5000])
    assert set(detector.regime) == set(range(len(REGIME_NAMES)))
    assert (np.diff(detector.regime) >= 0).all()
    probabilities = transform(detector, market[1][7000:])
    assert balanced_accuracy(market[0][7000:], probabilities.values.argmax(axis=1)) > 0.8
    if covariance == "diag":
        off = detector.covariance[:, ~np.eye(3, dtype=bool)]
        assert (off == 0).all()


def test_unknown_rows_are_bridged_by_the_transition(detector, market):
    rows = market[1][7000:7010]
    values = rows.values.copy()
    values[5:] = np.nan
    out = transform(detector, Table(rows.time, values, rows.names)).values
    np.testing.assert_array_equal(out[:5], transform(detector, rows).values[:5])
    np.testing.assert_allclose(out[7], out[4] @ np.linalg.matrix_power(detector.transition, 3), rtol=1e-12)


def test_names_agree_after_refits_on_shifted_windows():
    _, features = small_market(16_000, seed=11, dwell_bars=200)
    config = HmmConfig(**WINDOWS, baseline_bars=1000, evidence=1.0)
    labels = []
    for start in (0, 1000, 2500, 4000, 6000):
        detector = HmmDetector(replace_seed(config, start)).fit(features[start : start + 8000])
        labels.append(transform(detector, features).values.argmax(axis=1)[6000:])
    for label in labels[1:]:
        assert (label == labels[0]).mean() >= 0.95


def replace_seed(config, seed):
    # Other starts number the states in another order: only the naming rule can make the labels agree.
    return config.model_copy(update={"seed": seed})


def test_without_the_naming_rule_refits_would_not_agree(monkeypatch):
    # The control of the test above: states named by the order in which a fit numbered them.
    _, features = small_market(6000, seed=11, dwell_bars=200)
    monkeypatch.setattr(hmm, "name_states", lambda volatility, direction: np.arange(3, dtype=np.int8))
    random_starts = HmmConfig(**NEWS, n_starts=2)
    informed = hmm._start

    def only_random(rows, config, start):
        return informed(rows, config, start + 1)

    monkeypatch.setattr(hmm, "_start", only_random)
    labels = [
        transform(HmmDetector(replace_seed(random_starts, seed)).fit(features[:4000]), features)
        for seed in range(4)
    ]
    agreement = [(one.values.argmax(1) == labels[0].values.argmax(1)).mean() for one in labels[1:]]
    assert min(agreement) < 0.5


def test_a_state_of_a_few_outliers_is_not_taken_for_a_regime(market):
    values = market[1].values[:4000].copy()
    values[1000:1012, 0] *= 1e4  # half a day of broken prints
    features = Table(market[1].time[:4000], values, market[1].names)
    detector = HmmDetector(HmmConfig(**NEWS)).fit(features)
    assert detector.stationary.min() > 0.1


def test_when_every_start_is_degenerate_one_sentence_says_why(market):
    # Columns that repeat one of two values leave states of no width.
    values = np.where(market[1].values > np.median(market[1].values, axis=0), 0.9, 0.1)
    with pytest.raises(DataError, match="no sound model in 2 starts over 3000 rows; the last one: a state"):
        HmmDetector(HmmConfig(**NEWS, n_starts=2)).fit(
            replace(market[1][:3000], values=np.ascontiguousarray(values[:3000]))
        )


def test_only_the_latest_rows_are_fitted_when_there_are_too_many(market, monkeypatch):
    seen = []
    estimate = hmm._estimate

    def watched(observations, loading, config):
        seen.append(observations)
        return estimate(observations, loading, config)

    monkeypatch.setattr(hmm, "_estimate", watched)
    whole = HmmDetector(HmmConfig(**NEWS)).fit(market[1][:7000])
    latest = HmmDetector(HmmConfig(**NEWS, max_rows=3000)).fit(market[1][:7000])
    np.testing.assert_array_equal(seen[1], seen[0][-3000:])
    assert latest.fitted_until == whole.fitted_until == market[1].time[6999]


def test_training_rows_that_end_in_a_long_gap_are_fitted():
    features = scenario("separated")[1][:5000]
    values = features.values.copy()
    values[2500:] = np.nan
    gap = Table(features.time, values, features.names)
    settings = HmmConfig(fitter="numba", start_rows=1000)
    found = HmmDetector(settings).fit(gap)
    np.testing.assert_array_equal(found.mean, HmmDetector(settings).fit(features[:2500]).mean)
    assert found.fitted_until == features.time[-1]


def test_rows_one_stride_apart_are_fitted_and_gaps_end_a_sequence():
    observations = np.arange(10.0)[:, None]
    observations[6] = np.nan
    rows, lengths = hmm._strided(observations, 3)
    assert rows[:, 0].tolist() == [0, 3, 9, 1, 4, 7, 2, 5, 8]
    assert lengths.tolist() == [2, 1, 3, 3]


def test_a_transition_per_stride_becomes_one_per_bar():
    per_bar = hmm._per_bar(np.array([[0.5, 0.4, 0.1], [0.2, 0.8, 0.0], [0.1, 0.1, 0.8]]), 24)
    np.testing.assert_allclose(np.diagonal(per_bar) ** 24, [0.5, 0.8, 0.8], rtol=1e-4)
    np.testing.assert_allclose(per_bar.sum(axis=1), 1.0, rtol=1e-14)
    assert per_bar[0, 1] / per_bar[0, 2] == pytest.approx(4)
    assert per_bar.min() >= 0.99e-6


def test_hmmlearn_estimates_and_does_nothing_else():
    # The banned calls look ahead; the source must not hold them.
    for path in (ROOT / "regimes").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for banned in (".predict(", ".predict_proba(", ".decode(", ".score_samples("):
            assert banned not in text, f"{path.name} calls {banned}"


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="n_states is 2"):
        validate(HmmConfig, {"n_states": 2}, "detector hmm")
    with pytest.raises(ConfigError, match="hmmlearn fits gaussian only, so fitter must be numba"):
        validate(HmmConfig, {"emission": "student"}, "detector hmm")
    with pytest.raises(ConfigError, match="column adx_14 is named twice"):
        validate(HmmConfig, {"direction_columns": ["adx_14"], "other_columns": ["adx_14"]}, "detector hmm")


def test_regime_names_are_the_columns(detector, market):
    assert transform(detector, market[1][:10]).names == REGIME_NAMES


# Whole bars: what the default columns see


@functools.cache
def scenario(name):
    made = synthetic_market(SyntheticConfig(scenario=name, seed=100, n_bars=N))
    names = HmmDetector().columns
    return made.regime, transform(FeaturePipeline(FeaturesConfig(names=names)), made.bars)


@functools.cache
def of_bars(name, **settings):
    return HmmDetector(HmmConfig(fitter="numba", **settings)).fit(scenario(name)[1][:TRAIN])


def accuracy(name, **settings):
    truth, features = scenario(name)
    label = transform(of_bars(name, **settings), features).values.argmax(axis=1)
    return balanced_accuracy(truth[TRAIN:], label[TRAIN:])


@pytest.mark.parametrize("name", SCENARIOS)
def test_whole_bars_tell_the_regimes_of_every_scenario(name):
    assert accuracy(name) >= SCENARIOS[name]


def test_a_level_that_drifts_is_followed():
    detector = of_bars("drifting")
    assert detector.gain > 0
    assert accuracy("drifting") > accuracy("drifting", gain=0.0) + 0.05
    assert of_bars("overlapping").gain == 0  # where nothing drifts nothing is followed


def test_both_fitters_find_the_same_detector(tmp_path):
    ours = of_bars("drifting")
    theirs = HmmDetector(HmmConfig(fitter="hmmlearn")).fit(scenario("drifting")[1][:TRAIN])
    assert theirs.gain == ours.gain
    for name in ("mean", "covariance", "transition", "stationary"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-7)


def test_the_laws_hold_while_a_level_is_followed():
    detector, features = of_bars("drifting"), scenario("drifting")[1]
    rows = features[TRAIN : TRAIN + 1200]
    laws.check_chunk_law(detector, rows, [0, 1, 7, 7, 300, 301, *range(500, 520)])
    for poison in laws.POISONS.values():
        laws.check_altered_future(detector, rows, 700, poison)
    laws.check_inputs_untouched(detector, rows)


def test_after_the_warmup_the_level_does_not_know_where_the_rows_began():
    detector, features = of_bars("drifting"), scenario("drifting")[1]
    laws.check_start_invariance(detector, features, [1, 500, 3000])
    # The control: the level remembers longer than the belief.
    with pytest.raises(AssertionError, match="after a warm-up of 500 rows"):
        laws.check_start_invariance(Hasty(detector), features, [3000])


class Hasty:
    """The same detector, with a warm-up that counts on the belief alone."""

    warmup = 500

    def __init__(self, detector):
        self._detector = detector.fresh()

    def fresh(self):
        return Hasty(self._detector)

    def update(self, features):
        return self._detector.update(features)


def test_columns_that_only_name_are_not_read_by_the_filter():
    detector, features = of_bars("separated"), scenario("separated")[1][TRAIN:]
    values = features.values.copy()
    values[:, features.names.index("efficiency_72")] = np.nan
    blind = Table(features.time, values, features.names)
    expected = transform(detector, features).values
    np.testing.assert_array_equal(transform(detector, blind).values, expected)
    # Control: the range is read.
    values[:, features.names.index("range_1")] *= 2
    assert (
        np.abs(transform(detector, Table(features.time, values, features.names)).values - expected).max()
        > 0.5
    )


def test_the_sign_of_a_body_says_nothing():
    detector, features = of_bars("separated"), scenario("separated")[1][TRAIN:]
    values = features.values.copy()
    values[:, features.names.index("body_1")] *= -1
    turned = transform(detector, Table(features.time, values, features.names)).values
    np.testing.assert_array_equal(turned, transform(detector, features).values)


def test_what_is_usual_at_an_hour_is_learned_and_taken_out():
    random = np.random.default_rng(0)
    time = np.arange(1, 3001) * HOUR_NS
    level = np.exp(0.3 * random.normal(size=3000))
    busy = np.exp(0.8 * np.cos(2 * np.pi * (np.arange(3000) % 24) / 24))
    table = Table(time, np.column_stack([level * busy, random.normal(size=3000)]), ("range_1", "adx_14"))
    seen = {}
    for seasonal in (True, False):
        observer = Observer(("range_1",), ("adx_14",), 0, "here", seasonal=seasonal).fit(table, 100)
        seen[seasonal] = observer.fresh().update(table)[:, 0]
        again = observer.restored(lambda name, shape, one=observer: one.parameters()[name].reshape(shape))
        assert again.update(table)[:, 0].tobytes() == seen[seasonal].tobytes()
    assert np.corrcoef(seen[True], np.log(level))[0, 1] > 0.99
    assert np.corrcoef(seen[False], np.log(level))[0, 1] < 0.6  # control


def test_heavy_tails_are_fitted_where_asked_and_come_back_from_disk(tmp_path):
    values = small_market(6000, seed=2, dwell_bars=100)[1]
    random = np.random.default_rng(1)
    heavy = values.values.copy()
    heavy[:, 0] *= np.exp(0.4 * random.standard_t(2.5, size=6000))
    features = Table(values.time, heavy, values.names)
    detector = HmmDetector(HmmConfig(**NEWS, emission="student", fitter="numba")).fit(features)
    assert detector.degrees.max() < 20
    assert np.isinf(HmmDetector(HmmConfig(**NEWS)).fit(features).degrees).all()
    detector.save(tmp_path)
    rows = features[:500]
    assert (
        transform(load_detector(tmp_path), rows).values.tobytes()
        == transform(detector, rows).values.tobytes()
    )
    # A weight that a file cannot hold is refused.
    text = (tmp_path / "detector.json").read_text()
    document = json.loads(text)
    document["parameters"]["gain"] = -1
    (tmp_path / "detector.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="gain and inverse_degrees must not be negative"):
        load_detector(tmp_path)


def test_states_that_cannot_be_named_are_refused_in_one_sentence():
    features = scenario("separated")[1][:4000]
    place = features.names.index("efficiency_72")
    for value, message in (
        (np.nan, "0 of 4000 training rows are known in all of efficiency_72; fitting needs at least 300"),
        (0.5, "column efficiency_72 does not vary over the training rows; states cannot be named by it"),
    ):
        values = features.values.copy()
        values[:, place] = value
        with pytest.raises(DataError, match=message):
            HmmDetector().fit(Table(features.time, values, features.names))
    with pytest.raises(DataError, match="there is no feature column 'efficiency_72'"):
        HmmDetector().fit(Table(features.time, features.values[:, :2], features.names[:2]))


def test_names_agree_after_refits_of_whole_bars_on_shifted_windows():
    features = scenario("overlapping")[1]
    labels = []
    for start in (0, 2000, 4000):
        detector = HmmDetector(HmmConfig(fitter="numba", seed=start)).fit(features[start : start + 12_000])
        labels.append(transform(detector, features).values.argmax(axis=1)[5000:12_000])
    for label in labels[1:]:
        assert (label == labels[0]).mean() >= 0.95

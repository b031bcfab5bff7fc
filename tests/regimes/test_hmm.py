import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.load import ConfigError, validate
from market.causal import transform
from market.table import DataError, Table
from regimes import hmm
from regimes.accuracy import balanced_accuracy
from regimes.hmm import HmmConfig, HmmDetector
from regimes.regime import REGIME_NAMES, Regime
from tests.reference import regimes as naive
from tests.reference.regimes import small_market

ROOT = Path(__file__).parents[2]
# The small market has no windows that overlap: every row is news.
NEWS = {"baseline_bars": 0, "stride_bars": 1, "evidence": 1.0, "dwell_bars": 100, "covariance": "full"}


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
    assert set(detector.regime) == set(Regime)
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
    config = HmmConfig(baseline_bars=1000, stride_bars=1, evidence=1.0)
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

    def only_random(observations, config, start):
        return informed(observations, config, start + 1)

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

    def watched(observations, lengths, config):
        seen.append(observations)
        return estimate(observations, lengths, config)

    monkeypatch.setattr(hmm, "_estimate", watched)
    whole = HmmDetector(HmmConfig(**NEWS)).fit(market[1][:7000])
    latest = HmmDetector(HmmConfig(**NEWS, max_rows=3000)).fit(market[1][:7000])
    np.testing.assert_array_equal(seen[1], seen[0][-3000:])
    assert latest.fitted_until == whole.fitted_until == market[1].time[6999]


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


def test_stationary_shares_by_hand():
    np.testing.assert_allclose(hmm._stationary(np.array([[0.9, 0.1], [0.3, 0.7]])), [0.75, 0.25])


def test_parameters_do_not_depend_on_the_number_of_threads(market, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.reference.regimes import small_market\n"
        "from regimes.hmm import HmmConfig, HmmDetector\n"
        "features = small_market(3000, seed=3)[1]\n"
        "config = HmmConfig(baseline_bars=100, stride_bars=6, n_starts=2)\n"
        "HmmDetector(config).fit(features).save(sys.argv[2])\n"
    )
    saved = set()
    for threads in ("1", "2"):
        folder = tmp_path / threads
        settings = {f"{name}_NUM_THREADS": threads for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        environment = os.environ | settings
        subprocess.run([sys.executable, "-c", code, str(ROOT), str(folder)], check=True, env=environment)
        saved.add((folder / "detector.json").read_bytes())
    assert len(saved) == 1


def test_importing_the_detector_does_not_import_hmmlearn():
    code = "import sys, regimes.hmm; print('hmmlearn' in sys.modules or 'sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_hmmlearn_estimates_and_does_nothing_else():
    # The banned calls look ahead; the source must not hold them.
    for path in (ROOT / "regimes").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for banned in (".predict(", ".predict_proba(", ".decode(", ".score_samples("):
            assert banned not in text, f"{path.name} calls {banned}"


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="n_states is 2"):
        validate(HmmConfig, {"n_states": 2}, "detector hmm")
    with pytest.raises(ConfigError, match="column adx_14 is named twice"):
        validate(HmmConfig, {"direction_columns": ["adx_14"], "other_columns": ["adx_14"]}, "detector hmm")


def test_regime_names_are_the_columns(detector, market):
    assert transform(detector, market[1][:10]).names == REGIME_NAMES

"""The fourth regime: a rule over another detector, which leaves the other three in proportion."""

import json

import numpy as np
import pytest

from backtest.crises import CRISES
from configs.load import ConfigError
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.table import DataError, Table
from regimes.crisis import CrisisConfig, CrisisDetector
from regimes.detector import DETECTORS, load_detector
from regimes.kernels import switch
from regimes.path import PathFilter, regime_path
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, Regime, RegimePath, RegimeProbabilities
from tests.conformance import laws
from tests.regimes.test_on_markets import real_bars

HOUR = 3_600_000_000_000
TRAIN, N = 4000, 6000
SETTINGS = {
    "base": {"name": "volatility", "baseline_bars": 300},
    "baseline_bars": 300,
}


@pytest.fixture(scope="module")
def features():
    # Calm, directed and wild stretches, and three crashes, the last of them in the test rows.
    random = np.random.default_rng(4)
    level = np.exp(np.repeat(random.choice([-0.5, 0.0, 0.5], N // 60), 60) + 0.1 * random.normal(size=N))
    fall = 0.02 * random.normal(size=N)
    for start in (1200, 2600, 5000):
        level[start : start + 60] *= 6.0
        fall[start : start + 60] = -0.25 + 0.01 * random.normal(size=60)
    level[4500:4540] *= 6.0  # as wild, but the price rises
    fall[4500:4540] = 0.25
    directed = random.random(N)
    values = np.column_stack([0.005 * level, fall, directed])
    return Table(HOUR * np.arange(1, N + 1), values, ("parkinson_24", "return_72", "efficiency_72"))


@pytest.fixture(scope="module")
def fitted(features):
    return CrisisDetector(CrisisConfig(**SETTINGS)).fit(features[:TRAIN])


def test_a_crash_is_a_crisis_and_a_rise_as_wild_is_none(fitted, features):
    rows = transform(fitted, features)
    assert rows.names == CRISIS_NAMES
    label = rows.values.argmax(axis=1)
    assert (label[5001:5060] == Regime.CRISIS).all()
    assert (label[4500:4540] != Regime.CRISIS).all()
    quiet = np.r_[TRAIN:4990, 5080:N]
    assert np.mean(label[quiet] == Regime.CRISIS) < 0.02
    assert fitted.chain.shape == (4, 4)
    assert fitted.chain[3, 3] > 0.8


def test_the_other_regimes_keep_their_proportions(fitted, features):
    rows = transform(fitted, features).values
    base = transform(fitted.base, features).values
    np.testing.assert_allclose(rows[:, :3], base * (1 - rows[:, 3:]), rtol=1e-12)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-12)


def test_the_laws_hold(fitted, features):
    values = features.values.copy()
    values[[50, 51, 1010], [0, 1, 2]] = np.nan
    gaps = Table(features.time, values, features.names)
    laws.check_chunk_law(fitted, gaps, [1, 7, 50, 51, 1190, 1201, 4501])
    for poison in laws.POISONS.values():
        laws.check_altered_future(fitted, gaps, 1205, poison)
    laws.check_start_invariance(fitted, features, [1, 100, 777])


def test_a_crisis_ends_later_than_it_begins():
    values = np.array([np.nan, 0.0, 3.0, 1.5, 1.5, 0.9, 1.5, np.nan, 3.0])
    memory, out = np.full(2, np.nan), np.empty(9)
    switch(values, 2.0, 1.0, 3.0, memory, out)
    assert np.isnan(out[0])
    assert (out[1:] > 0.5).tolist() == [False, True, True, True, False, False, False, True]
    assert out[7] == out[6]  # nothing known: as before
    # Halves of the way are certainties of the distance to the threshold that would turn it.
    assert out[3] == pytest.approx(1 / (1 + np.exp(-3.0 * 0.5)))
    assert out[6] == pytest.approx(1 / (1 + np.exp(3.0 * 0.5)))


def test_a_path_of_four_regimes_counts_all_of_them(fitted, features):
    probabilities = transform(fitted, features)
    path = regime_path(transform(PathFilter(), probabilities), probabilities.names)
    assert path.share().shape == path.mean_dwell().shape == (4,)
    assert path.share()[Regime.CRISIS] > 0
    with pytest.raises(DataError, match=r"label is 3 in row .*; it must lie in -1..2"):
        RegimePath(path.time, path.label, path.confidence)
    with pytest.raises(DataError, match="with crisis after them or not"):
        RegimeProbabilities(np.arange(1), [[0.5, 0.5]], ("ranging", "crisis"))


def test_it_comes_back_from_disk_with_the_detector_below(fitted, features, tmp_path):
    fitted.save(tmp_path)
    loaded = load_detector(tmp_path)
    rows = features[TRAIN:]
    assert transform(loaded, rows).values.tobytes() == transform(fitted, rows).values.tobytes()
    assert loaded.warmup == fitted.warmup
    DETECTORS.create("hmm")  # another detector in the place of the base
    document = json.loads((tmp_path / "detector.json").read_text())
    document["config"]["base"] = {"name": "hmm"}
    (tmp_path / "detector.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="holds another detector than hmm"):
        load_detector(tmp_path)


def test_thresholds_that_rise_are_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    document = json.loads((tmp_path / "detector.json").read_text())
    document["parameters"]["thresholds"] = [1.0, 2.0]
    (tmp_path / "detector.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="they must fall"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"base": {"name": "crisis"}}, "base is crisis itself"),
        ({"enter": 0.9, "leave": 0.95}, "must not lie above enter"),
        ({"base": {"name": "hmn"}}, "no detector named 'hmn'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        DETECTORS.create("crisis", settings)


def test_an_unfitted_detector_and_too_few_rows_are_refused(features):
    with pytest.raises(ValueError, match="not fitted"):
        CrisisDetector().update(features)
    with pytest.raises(DataError, match="fitting needs at least 1000"):
        CrisisDetector(CrisisConfig(**SETTINGS)).fit(features[:500])


def test_on_real_bars_it_is_found_in_the_crises_that_have_names(shared_data):
    bars = real_bars(shared_data)
    detector = DETECTORS.create("crisis", {"base": {"name": "volatility"}})
    features = transform(FeaturePipeline(FeaturesConfig(names=detector.columns)), bars)
    first = int(0.6 * len(features))
    probabilities = transform(detector.fit(features[:first]), features)
    path = regime_path(transform(PathFilter(), probabilities), probabilities.names)
    named = np.zeros(len(bars), dtype=bool)
    for crisis in CRISES:
        named |= (bars.time > crisis.start) & (bars.time <= crisis.end)
    later = np.arange(len(bars)) >= first
    inside, outside = (np.mean(path.label[later & rows] == Regime.CRISIS) for rows in (named, ~named))
    assert inside > 8 * outside > 0
    assert 0.005 < path.share()[Regime.CRISIS] < 0.05


def test_names_with_and_without_the_fourth():
    assert (*REGIME_NAMES, "crisis") == CRISIS_NAMES
    assert Regime.of("Crisis") is Regime.CRISIS

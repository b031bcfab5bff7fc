import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import digamma

from configs.load import ConfigError, InputError, validate
from market.bars import OHLCV, Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.kernels import bar_log_density, extremes_density
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from regimes import range_kernels as kernels
from regimes import switching
from regimes.accuracy import balanced_accuracy, detection_delays
from regimes.detector import load_detector
from regimes.markov_ar import MarkovArConfig, MarkovArDetector
from regimes.path import PathFilter, regime_path
from regimes.range_kernels import (
    DRIFT,
    ECHO,
    HALF_DOF,
    MEMORY,
    MOVE,
    N_EMISSION,
    N_NODES,
    NODE,
    SHOCK,
    VOLATILITY,
    expectation,
    follow,
    read_bars,
)
from regimes.regime import REGIME_NAMES, Regime, RegimeProbabilities
from regimes.season import learned_season
from regimes.switching import STATE_REGIME, STATE_SIGN, Effort, named_order
from tests.conformance import laws
from tests.reference import markov_ar as naive
from tests.reference import regimes as naive_chain

COLUMNS = MarkovArDetector.columns
EFFORT = Effort(20.0, 0.03, 0.004, 15_000, 12, 40, 1e-7)
TRAIN, N = 15_000, 24_000


def described(bars):
    return transform(FeaturePipeline(FeaturesConfig(names=COLUMNS)), bars)


def market_of(**settings):
    market = synthetic_market(SyntheticConfig(**settings))
    return market, described(market.bars)


def read(features):
    bars, series = np.empty((len(features), 2)), np.empty((len(features), N_NODES))
    read_bars(np.ascontiguousarray(features.select(COLUMNS).values), bars, series)
    return bars, series


@pytest.fixture(scope="module")
def overlapping():
    return market_of(scenario="overlapping", n_bars=N, seed=7)


@pytest.fixture(scope="module")
def fitted(overlapping):
    return MarkovArDetector().fit(overlapping[1][:TRAIN])


@pytest.fixture(scope="module")
def lively():
    """A detector whose level follows the bars, and rows for it."""
    _, features = market_of(scenario="drifting", n_bars=N, seed=8)
    detector = MarkovArDetector().fit(features[:TRAIN])
    assert detector.law.gain[0] > 0
    return detector, features


def with_gaps(features):
    values = features.values.copy()
    values[:7] = np.nan
    values[[50, 51, 52], [0, 1, 2]] = np.nan
    values[60] = 0.0  # a bar that did not move
    return Table(features.time, values, features.names)


# What a bar says


def test_a_bar_is_read_back_from_its_range_body_and_wick():
    market, features = market_of(n_bars=400, seed=3)
    bars, _ = read(features)
    open_, high, low, close = (market.bars.column(name) for name in OHLCV[:4])
    np.testing.assert_allclose(bars[:, 0], np.log(high / low), rtol=1e-12)
    np.testing.assert_allclose(bars[:, MOVE], np.log(close / open_), rtol=1e-9, atol=1e-15)


def test_the_series_at_the_nodes_is_the_density_of_the_extremes():
    # The generator's own sums, one node at a time, are the twin.
    random = np.random.default_rng(0)
    start, end = random.uniform(0.01, 0.99, (2, 200))
    length = 0.02
    low = np.exp(-start * length)
    high, close = low * np.exp(length), low * np.exp(end * length)
    body = (close - 1) / (high - low)
    wick = (np.minimum(1, close) - low) / (high - low)
    series = np.empty((200, N_NODES))
    read_bars(np.column_stack([np.full(200, length), body, wick]), np.empty((200, 2)), series)
    twin = [[extremes_density(d, e - d, y) for y in NODE] for d, e in zip(start, end, strict=True)]
    peak = np.max(twin, axis=1, keepdims=True)
    np.testing.assert_allclose(series / peak, twin / peak, atol=1e-9)
    # A Brownian path run backwards is one too: what rose from the low may as well have fallen to it.
    backwards, other = np.empty((2, 200, N_NODES))
    read_bars(np.column_stack([np.full(200, length), -body, wick]), np.empty((200, 2)), backwards)
    np.testing.assert_allclose(backwards / peak, series / peak, atol=1e-9)
    read_bars(np.column_stack([np.full(200, length), body, 0.5 * wick]), np.empty((200, 2)), other)
    assert np.abs(other / peak - series / peak).max() > 0.1  # control: another bar


@pytest.mark.parametrize(("half", "error"), [(1.3, 3e-4), (3.0, 3e-3), (10.0, 2e-2)])
def test_bar_densities_equal_those_of_the_oracle_under_the_same_law(half, error):
    market, features = market_of(n_bars=1500, seed=5)
    bars, series = read(features)
    emission = np.zeros((3, N_EMISSION))
    emission[:, VOLATILITY], emission[:, HALF_DOF] = (0.003, 0.006, 0.012), half
    emission[1, DRIFT] = 0.1
    n, k = len(bars), STATE_REGIME.size
    density, cluster = np.empty((n, k)), np.empty((n, 3))
    kernels.bar_likelihood(
        bars, series, np.ones(n), emission, digamma(emission[:, HALF_DOF]), STATE_REGIME, STATE_SIGN,
        density, np.empty((n, k, 3)), cluster, np.empty((n, 3, 3)),
    )  # fmt: skip
    volatility = emission[STATE_REGIME, VOLATILITY]
    mean = np.tile(STATE_SIGN * emission[STATE_REGIME, DRIFT] * volatility, (n, 1))
    twin = np.empty((n, k))
    columns = [market.bars.column(name) for name in OHLCV[:4]]
    bar_log_density(*columns, mean, np.tile(volatility**2, (n, 1)), np.full(k, 2 * half), twin)
    likely = twin > twin.max(axis=1, keepdims=True) - 10
    np.testing.assert_allclose(density[likely], twin[likely], rtol=0, atol=error)
    assert np.abs(np.diff(twin, axis=1)).max() > 1  # control: states differ by far more


def test_the_filter_equals_its_naive_twin():
    _, features = market_of(n_bars=70, seed=2)
    bars, series = read(with_gaps(features))
    emission = np.array(
        [
            [0.003, 0.05, 0.85, 3.0, 0.0, -0.2],
            [0.006, 0.10, 0.80, 2.0, 0.1, 0.1],
            [0.012, 0.15, 0.70, 2.5, 0.0, 0.0],
        ]
    )
    transition = np.full((4, 4), 0.01) + np.diag(np.full(4, 0.96))
    belief, season = np.array([0.4, 0.2, 0.2, 0.2]), np.linspace(0.8, 1.2, 70)
    memory = np.concatenate([belief, np.ones(3), [0.0, 0.0]])
    out, journal = np.empty((70, 4)), np.empty((70, 2))
    chain = (emission, STATE_REGIME, STATE_SIGN, transition, 0.02, 0.001)
    follow(bars, series, season, *chain, memory, out, journal)
    values = features.select(COLUMNS).values
    paths = []
    for t, (length, body, wick) in enumerate(values):
        rise = np.expm1(length)
        start, end = np.log1p((wick + max(-body, 0)) * rise), np.log1p((wick + max(body, 0)) * rise)
        known = t >= 7 and t not in (50, 51, 52, 60)
        paths.append((length - start, -start, end - start) if known else None)
    rows, levels, likelihoods = naive.follow(paths, season, *chain, belief)
    np.testing.assert_allclose(out, rows, atol=2e-3)
    np.testing.assert_allclose(journal[:, kernels.LEVEL], levels, atol=2e-3)
    np.testing.assert_allclose(journal[:, kernels.LIKELIHOOD], likelihoods, atol=5e-3)
    assert np.abs(levels).max() > 0.05  # control: the level did move


# The fit


@pytest.mark.parametrize("seed", range(3))
def test_the_e_step_equals_the_sum_over_all_state_paths(seed):
    random = np.random.default_rng(seed)
    log_density, transition = 2 * random.normal(size=(6, 3)), random.dirichlet(np.ones(3), size=3)
    belief = random.dirichlet(np.ones(3))
    smoothed, counts = np.empty((6, 3)), np.empty((3, 3))
    likelihood = expectation(log_density, transition, belief, smoothed, counts)
    every_path = naive_chain.enumerated(log_density, transition, belief, last=lambda t: 5)
    np.testing.assert_allclose(smoothed, every_path, rtol=1e-9)
    np.testing.assert_allclose(counts.sum(axis=1), smoothed[:-1].sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(counts.sum(axis=0), smoothed[1:].sum(axis=0), rtol=1e-9)
    weight = belief
    for row in log_density:
        weight = (weight @ transition) * np.exp(row)
    assert likelihood == pytest.approx(np.log(weight.sum()), rel=1e-12)


def gradients(raw, climb, n):
    scale = np.exp(0.1 * np.sin(np.arange(n)))
    found = climb.value(raw, scale, slice(None))[1]
    step = 1e-5 * np.eye(raw.size)
    above, below = (
        np.array([climb.value(raw + sign * one, scale, slice(None))[0] for one in step]) for sign in (1, -1)
    )
    return found, (above - below) / 2e-5


@pytest.mark.parametrize("n_states", [3, 4])
def test_the_gradient_is_the_slope_of_the_likelihood(n_states, monkeypatch):
    _, features = market_of(n_bars=1500, seed=7)
    climb = switching._Climb(*read(with_gaps(features)), EFFORT)
    raw = switching._first(np.array([-5.0, -4.6, -4.0]), EFFORT)
    if n_states == 4:
        raw = switching._with_directions(raw, np.array([1, 0, 2]))
    raw = raw + 0.2 * np.random.default_rng(0).normal(size=raw.size)
    found, slope = gradients(raw, climb, 1500)
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=0.02)
    # Control: without the clustering's answer the slopes are others.
    inner = kernels.emission_gradient

    def deaf(bars, scale, emission, regime, sign, smoothed, slope, drag, gradient):
        inner(bars, scale, emission, regime, sign, smoothed, slope, np.full_like(drag, 2.0), gradient)

    monkeypatch.setattr(switching, "emission_gradient", deaf)
    found, slope = gradients(raw, climb, 1500)
    assert np.abs(found - slope).max() > 1


def test_the_true_parameters_are_found(fitted, overlapping):
    config = overlapping[0].config
    true = [(one.volatility, one.shock, one.memory, one.dof / 2, one.trend) for one in config.regimes]
    found = fitted.law.emission
    np.testing.assert_allclose(found[:, VOLATILITY], [one[0] for one in true], rtol=0.08)
    np.testing.assert_allclose(found[:, SHOCK], [one[1] for one in true], atol=0.02)
    np.testing.assert_allclose(found[:, MEMORY], [one[2] for one in true], atol=0.1)
    np.testing.assert_allclose(found[:, HALF_DOF], [one[3] for one in true], rtol=0.2)
    assert found[Regime.TRENDING, DRIFT] == pytest.approx(true[1][4], abs=0.06)
    assert (np.abs(found[:, ECHO]) < 0.05).all()
    assert fitted.law.gain[0] == 0.0
    assert fitted.summary.naming_errors > 3
    assert np.bincount(STATE_REGIME, fitted.law.stationary).min() > 0.1


@pytest.mark.parametrize(("timeframe", "error"), [("5m", 0.06), ("1h", 0.02)])
def test_the_hours_of_the_week_are_found_on_bars_of_any_length(timeframe, error):
    market, features = market_of(timeframe=timeframe, n_bars=20_000, seed=5)
    season, _ = learned_season(features.time, np.log(features.column("range_1")))
    peak = 2 * np.pi * 15 / 24  # the generator's day peaks at 15:00
    wave = market.config.day_swing * np.array([np.cos(peak), np.sin(peak)])
    np.testing.assert_allclose(season[:4], [*wave, 0, 0], atol=error)
    assert np.abs(wave).min() > 1.5 * error  # control: no season at all would be seen


def test_names_follow_the_statistics():
    error = np.full(3, 0.1)
    volatility = np.array([2.0, 1.0, 3.0])
    order, errors = named_order(volatility, np.array([1.4, 0.8, 0.5]), error)
    assert order.tolist() == [1, 0, 2]
    assert errors == pytest.approx(0.6 / 0.1 / np.sqrt(2))
    # The calmer state goes on, the livelier one comes back, and both beyond doubt: names change places.
    assert named_order(volatility, np.array([0.8, 1.4, 0.5]), error)[0].tolist() == [0, 1, 2]
    # Within the error the calmer one is ranging, whichever ratio came out higher.
    assert named_order(volatility, np.array([0.9, 1.1, 0.5]), error)[0].tolist() == [1, 0, 2]


def test_names_agree_after_refits_on_shifted_windows(overlapping, fitted):
    features = overlapping[1]
    labels = [transform(fitted, features).values.argmax(axis=1)[3000:]]
    for start in (1000, 3000):
        again = MarkovArDetector().fit(features[start : start + TRAIN])
        labels.append(transform(again, features).values.argmax(axis=1)[3000:])
    agreement = [(label == labels[0]).mean() for label in labels[1:]]
    assert min(agreement) >= 0.95


def test_without_the_variance_ratio_a_calm_trend_would_be_misnamed(monkeypatch):
    # Trends in the calmest regime: volatility alone cannot name them.
    calm = {"volatility": 0.003, "trend": 0.15}
    lively = {"volatility": 0.007, "pull": 0.05}
    market, features = market_of(scenario="overlapping", n_bars=20_000, seed=9, trending=calm, ranging=lively)
    by_ratio = transform(MarkovArDetector().fit(features), features).values.argmax(axis=1)
    monkeypatch.setattr(switching, "NAMING_ERRORS", np.inf)
    by_volatility = transform(MarkovArDetector().fit(features), features).values.argmax(axis=1)
    assert balanced_accuracy(market.regime, by_ratio) > 0.85
    assert balanced_accuracy(market.regime, by_volatility) < 0.5


# What the detector knows


@pytest.mark.parametrize("scenario", ["overlapping", "short_dwell", "fat_tails"])
def test_regimes_are_found_nearly_as_well_as_anyone_could(scenario, overlapping, fitted):
    market, features = overlapping
    detector = fitted
    if scenario != "overlapping":
        market, features = market_of(scenario=scenario, n_bars=N, seed=7)
        detector = MarkovArDetector().fit(features[:TRAIN])
    truth = market.regime[TRAIN:]

    def labels(table):
        return table.values[TRAIN:].argmax(axis=1)

    label = labels(transform(detector, features))
    closes, best = (balanced_accuracy(truth, labels(one)) for one in (market.oracle_close, market.oracle))
    assert closes < balanced_accuracy(truth, label)
    assert 0.94 * best < balanced_accuracy(truth, label)
    delay = np.median(detection_delays(truth, labels(market.oracle)))
    assert np.median(detection_delays(truth, label)) <= 1.5 * max(delay, 1)
    # Control: the same bars with the ranges of other bars know less than the closes say.
    values = features.values.copy()
    values[:, 0] = np.random.default_rng(0).permutation(values[:, 0])
    mixed = labels(transform(detector, replace(features, values=values)))
    assert balanced_accuracy(truth, mixed) < closes


def test_volatile_keeps_its_meaning_when_the_market_calms_down_for_good():
    market, features = market_of(scenario="separated", n_bars=N, seed=4)
    values = features.values.copy()
    values[TRAIN:, 0] *= 0.25  # all ranges and moves, from one day to the next
    calmer = replace(features, values=values)
    truth, later = market.regime[TRAIN + 4000 :], slice(TRAIN + 4000, None)
    found = {}
    for gain in (0.004, 0.0):
        detector = MarkovArDetector(MarkovArConfig(largest_gain=gain)).fit(features[:TRAIN])
        detector._set(replace(detector.law, gain=np.array([gain])))
        found[gain] = balanced_accuracy(truth, transform(detector, calmer).values[later].argmax(axis=1))
    assert found[0.004] > 0.8
    assert found[0.0] < 0.4  # control: with the old level everything is calm


# Laws of flow


@pytest.mark.parametrize("which", ["fitted", "lively"])
def test_cutting_the_input_anywhere_changes_no_bit(which, fitted, lively, overlapping):
    detector, features = (fitted, overlapping[1]) if which == "fitted" else lively
    rows = with_gaps(features[TRAIN : TRAIN + 1500])
    for cuts in ([1, 7, 8, 50, 51, 51, 1400], range(250, 400)):
        laws.check_chunk_law(detector, rows, list(cuts))


@pytest.mark.parametrize("poison", sorted(laws.POISONS))
def test_altering_the_future_changes_nothing_before_it(poison, lively):
    for row in (0, 3, 500, 1200):
        laws.check_altered_future(
            lively[0], with_gaps(lively[1][TRAIN : TRAIN + 2000]), row, laws.POISONS[poison]
        )


class Smoothed:
    """A planted leak: probabilities given the whole chunk, which the E step knows and a filter must not."""

    def __init__(self, detector):
        self.detector, self.warmup = detector, 0

    def fresh(self):
        return type(self)(self.detector)

    def update(self, features):
        filtered = transform(self.detector, features).values
        with np.errstate(divide="ignore"):
            logs = np.maximum(np.log(filtered), -50)
        smoothed = np.empty_like(filtered)
        chain = np.full((3, 3), 0.01) + 0.97 * np.eye(3)
        expectation(logs, chain, np.full(3, 1 / 3), smoothed, np.empty((3, 3)))
        return RegimeProbabilities(
            features.time, smoothed / smoothed.sum(axis=1, keepdims=True), REGIME_NAMES
        )


def test_the_laws_find_states_seen_with_hindsight(fitted, overlapping):
    rows = overlapping[1][TRAIN : TRAIN + 600]
    with pytest.raises(AssertionError):
        laws.check_altered_future(Smoothed(fitted), rows, 300, laws.POISONS["reversed"])
    laws.check_altered_future(fitted, rows, 300, laws.POISONS["reversed"])


@pytest.mark.parametrize("which", ["fitted", "lively"])
def test_after_the_warmup_it_does_not_matter_where_the_rows_began(which, fitted, lively, overlapping):
    detector, features = (fitted, overlapping[1]) if which == "fitted" else lively
    laws.check_start_invariance(detector, features, [1, 777, 9000])
    if which == "lively":
        hasty = detector.fresh()
        hasty.warmup = 100  # control: the level has not forgotten by then

        class Hasty:
            warmup = 100

            def fresh(self):
                return detector.fresh()

        with pytest.raises(AssertionError, match="after a warm-up of 100"):
            laws.check_start_invariance(Hasty(), features, [9000])


def test_rows_are_distributions_and_nan_only_before_the_first_known_row(fitted, overlapping):
    rows = transform(fitted, with_gaps(overlapping[1][TRAIN : TRAIN + 500]))
    assert np.isnan(rows.values[:7]).all()
    np.testing.assert_allclose(rows.values[7:].sum(axis=1), 1.0, atol=1e-12)
    assert len(transform(fitted, overlapping[1][:0])) == 0


def test_unknown_rows_are_bridged_by_the_transition(fitted, overlapping):
    rows = overlapping[1][TRAIN : TRAIN + 10]
    values = rows.values.copy()
    values[5:] = np.nan
    detector = fitted.fresh()
    detector.update(rows[:5])
    belief = detector._memory[:4].copy()
    out = detector.update(Table(rows.time, values, rows.names)[5:])
    expected = belief @ np.linalg.matrix_power(fitted.law.transition, 3)
    np.testing.assert_allclose(out.values[2], np.bincount(STATE_REGIME, expected), rtol=1e-10)


def test_the_log_likelihood_is_that_of_the_filter_and_prefers_the_law_it_was_fitted_to(fitted, overlapping):
    rows = overlapping[1][TRAIN:]
    likelihood = fitted.fresh().log_likelihood(rows)
    assert np.isfinite(likelihood).all()
    worse = fitted.fresh()
    emission = fitted.law.emission.copy()
    emission[:, VOLATILITY] *= 1.3
    worse._set(replace(fitted.law, emission=emission))
    assert likelihood.sum() > worse.log_likelihood(rows).sum() + 100


# Keeping it


def test_a_detector_comes_back_from_disk_bit_by_bit(lively, tmp_path):
    detector, features = lively
    used = detector.fresh()
    used.update(features[:500])
    used.save(tmp_path)
    loaded = load_detector(tmp_path)
    assert isinstance(loaded, MarkovArDetector)
    assert (loaded.config, loaded.fitted_until) == (detector.config, detector.fitted_until)
    rows = features[TRAIN:]
    expected = transform(detector, rows).values.tobytes()
    assert transform(loaded, rows).values.tobytes() == expected
    assert used.update(rows).values.tobytes() != expected  # control: a memory does matter


def test_the_same_rows_give_the_same_detector_and_later_rows_do_not_matter(fitted, overlapping, tmp_path):
    again = MarkovArDetector().fit(overlapping[1][:TRAIN])
    fitted.save(tmp_path / "a")
    again.save(tmp_path / "b")
    assert (tmp_path / "a/detector.json").read_bytes() == (tmp_path / "b/detector.json").read_bytes()
    assert fitted.fitted_until == overlapping[1].time[TRAIN - 1]


def test_only_the_latest_rows_are_fitted_when_there_are_too_many(overlapping):
    few = MarkovArConfig(max_rows=2000, start_iterations=2, n_iterations=2)
    part, whole = (
        MarkovArDetector(few).fit(overlapping[1][rows]) for rows in (slice(2000, 4000), slice(4000))
    )
    for name, array in part.law.arrays().items():
        np.testing.assert_array_equal(array, whole.law.arrays()[name])


@pytest.mark.parametrize(
    "damage",
    [
        {"transition": None},
        {"emission": [1.0]},
        {"emission": [[0.01, 0.5, 0.6, 2.0, 0.0, 0.0]] * 3},
        {"emission": [[-0.01, 0.1, 0.6, 2.0, 0.0, 0.0]] * 3},
        {"transition": [[0.5] * 4] * 4},
        {"stationary": [0.5] * 4},
        {"gain": [float("nan")]},
        {"gain": [-1.0]},
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(damage, fitted, tmp_path):
    fitted.save(tmp_path)
    file = tmp_path / "detector.json"
    document = json.loads(file.read_text())
    document["parameters"].update(damage)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as refusal:
        MarkovArDetector.load(tmp_path)
    assert "\n" not in str(refusal.value)
    assert str(file) in str(refusal.value)


def test_training_rows_that_cannot_teach_are_refused_in_one_sentence(overlapping):
    features = overlapping[1]
    with pytest.raises(DataError, match=r"150 of 150 training rows moved .*; fitting needs at least"):
        MarkovArDetector().fit(features[:150])
    unknown = replace(features, values=np.full(features.values.shape, np.nan), warmup=len(features))
    with pytest.raises(DataError, match="0 of 24000 training rows"):
        MarkovArDetector().fit(unknown)
    with pytest.raises(DataError, match=r"no feature column 'range_1'"):
        MarkovArDetector().fit(Table(features.time, features.values[:, :1], ("range_2",)))
    with pytest.raises(ValueError, match="not fitted"):
        MarkovArDetector().update(features)
    with pytest.raises(ConfigError, match="min_dwell_bars is 1"):
        validate(MarkovArConfig, {"min_dwell_bars": 1}, "detector markov_ar")


def test_when_every_start_is_degenerate_one_sentence_says_why(overlapping, monkeypatch):
    monkeypatch.setattr(switching, "MIN_SHARE", 1.1)
    few = MarkovArConfig(start_iterations=1, n_iterations=1)
    with pytest.raises(DataError, match="no sound model in 6 starts over 1000 rows; the last one: a regime"):
        MarkovArDetector(few).fit(overlapping[1][:1000])


# A real market


def real_bars(folder):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.read_table(folder / "ohlcv" / "btcusdt_binance_spot_1h.parquet")
    opened = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    hour = 3_600_000_000_000
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    return Bars(opened + hour, values, OHLCV, symbol="BTC/USDT", interval_ns=hour)


def test_on_real_bars_every_regime_lives_in_every_year(shared_data):
    statistics = ("parkinson_24", "efficiency_72", "variance_ratio_96")
    config = FeaturesConfig(names=(*COLUMNS, *statistics))
    features = transform(FeaturePipeline(config), real_bars(shared_data))
    first = int(0.6 * len(features))
    path = regime_path(transform(PathFilter(), transform(MarkovArDetector().fit(features[:first]), features)))
    year = features.time.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    for one in range(2018, 2025):
        share = np.bincount(path.label[year == one], minlength=3) / (year == one).sum()
        assert (share >= 0.08).all(), (one, share)
    assert (path.mean_dwell() >= 12).all()
    # Out of sample the regimes are what their names say.
    means = {
        name: [features.column(name)[first:][path.label[first:] == regime].mean() for regime in range(3)]
        for name in statistics
    }
    ranging, trending, volatile = means["parkinson_24"]
    assert volatile > 1.2 * trending > 1.2 * ranging
    assert means["efficiency_72"][Regime.TRENDING] > 1.05 * means["efficiency_72"][Regime.RANGING]
    assert means["variance_ratio_96"][Regime.TRENDING] > means["variance_ratio_96"][Regime.RANGING] + 0.05

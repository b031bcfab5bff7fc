import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, InputError, validate
from market.bars import OHLCV, Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from regimes import jump
from regimes.accuracy import balanced_accuracy, recall
from regimes.jump import FADE, JumpConfig, JumpDetector
from regimes.jump_kernels import RESIDUAL_LIMIT, confidence, follow_jumps
from regimes.path import PathFilter, regime_path
from regimes.regime import REGIME_NAMES, Regime, RegimeProbabilities
from tests.conformance import laws
from tests.reference import jump as naive
from tests.reference.regimes import HOUR_NS, small_market

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jumpmodels") is None, reason="jumpmodels is not installed"
)
# The small market has no windows that overlap: every row is news, in every column.
NEWS = {"level_columns": ("parkinson_24",), "direction_weight": 1.0, "baseline_bars": 300, "n_starts": 2}
STEADY = NEWS | {"baseline_bars": 0, "level_gain": 0.0}
TRAIN, N = 4000, 6000


@pytest.fixture(scope="module")
def market():
    return small_market(N, seed=1, dwell_bars=100)


@pytest.fixture(scope="module")
def fitted(market):
    return JumpDetector(JumpConfig(**NEWS)).fit(market[1][:TRAIN])


@pytest.fixture(scope="module")
def overlapping():
    made = synthetic_market(SyntheticConfig(scenario="overlapping", n_bars=20_000, seed=107))
    return made, described(made.bars)


@pytest.fixture(scope="module")
def learned(overlapping):
    return JumpDetector().fit(overlapping[1][:12_000])


def described(bars):
    return transform(FeaturePipeline(FeaturesConfig(names=JumpDetector().columns)), bars)


def followed(rows, centers, penalty, n_levels=0, gain=0.0, fade=0.0, memory=None):
    rows, centers = np.array(rows, dtype=float), np.array(centers, dtype=float)
    n, k = len(rows), len(centers)
    memory = np.append(np.full(k, np.nan), np.zeros(n_levels)) if memory is None else memory
    leveled, values = np.empty(rows.shape), np.empty((n, k))
    follow_jumps(rows, centers, n_levels, penalty, gain, fade, memory, leveled, values)
    return values, leveled


def random_walk_of_states(seed, n=2000, k=3, f=2):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(k, f))
    state = np.cumsum(random.random(n) < 0.02) % k
    return centers[state] + random.normal(size=(n, f)), centers + 0.1 * random.normal(size=(k, f))


def with_gaps(features):
    values = features.values.copy()
    values[:7] = np.nan
    values[[50, 51, 300], [0, 2, 3]] = np.nan
    values[55] = np.nan
    return Table(features.time, values, features.names)


# The recursion


@pytest.mark.parametrize("penalty", [0.0, 0.7, 6.0])
@pytest.mark.parametrize(("k", "f"), [(2, 1), (3, 2), (4, 3)])
def test_labels_equal_those_of_jumpmodels_online(k, f, penalty):
    rows, centers = random_walk_of_states(10 * k + f, k=k, f=f)
    model = jump._jump_model(n_components=k, jump_penalty=penalty, n_init=0, max_iter=0)
    model.centers_ = centers
    model.fit(rows)  # no step: it only reads the settings, and sorts the states by their frequency
    label = followed(rows, model.centers_, penalty)[0].argmin(axis=1)
    np.testing.assert_array_equal(label, model.predict_online(rows))
    # Controls: another penalty, and the path with hindsight, are something else.
    assert (followed(rows, model.centers_, penalty + 1)[0].argmin(axis=1) != label).any()
    assert penalty == 0 or (model.predict(rows) != label).any()


def test_the_recursion_equals_its_naive_twin_with_gaps_and_a_level():
    random = np.random.default_rng(2)
    rows, centers = random_walk_of_states(5, n=400)
    rows += np.linspace(0, 2, 400)[:, None]  # so that the level has something to follow
    rows[30] *= 50  # and its step something to limit
    rows[:4] = np.nan
    rows[random.integers(0, 400, 30)] = np.nan
    values, leveled = followed(rows, centers, 2.0, 1, 0.05, 0.01)
    plain = [None if np.isnan(row).any() else row.tolist() for row in rows]
    twin, twin_leveled = naive.follow(plain, centers.tolist(), 2.0, 1, 0.05, 0.01, RESIDUAL_LIMIT)
    np.testing.assert_allclose(values, twin, rtol=1e-9, atol=1e-9)
    known = ~np.isnan(rows[:, 0])
    expected = [row for row in twin_leveled if row is not None]
    np.testing.assert_allclose(leveled[known], expected, rtol=1e-9, atol=1e-9)
    assert np.isnan(leveled[~known]).all()
    assert np.isnan(values[:4]).all()
    assert (leveled[known, 0] - rows[known, 0]).min() < -0.5  # control: the level did move


number = st.floats(-3, 3).map(lambda x: round(x, 3))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(number, number), min_size=1, max_size=6),
    centers=st.lists(st.tuples(number, number), min_size=2, max_size=3),
    penalty=st.floats(0, 5).map(lambda x: round(x, 3)),
)
def test_values_are_the_costs_of_the_cheapest_of_all_paths(rows, centers, penalty):
    best = np.array(naive.cheapest_to_each(rows, centers, penalty))
    values, _ = followed(rows, centers, penalty)
    np.testing.assert_allclose(values[-1], best - best.min(), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), penalties=st.tuples(st.floats(0, 20), st.floats(0, 20)))
def test_a_higher_penalty_never_means_a_path_of_more_jumps(seed, penalties):
    rows, centers = random_walk_of_states(seed, n=120)
    low, high = sorted(penalties)
    jumps = [
        np.count_nonzero(np.diff(naive.hindsight(rows.tolist(), centers.tolist(), penalty)))
        for penalty in (low, high)
    ]
    assert jumps[1] <= jumps[0]


def test_online_jumps_become_rarer_as_the_penalty_grows():
    rows, centers = random_walk_of_states(3, n=20_000)
    labels = [followed(rows, centers, penalty)[0].argmin(axis=1) for penalty in (0, 0.5, 1, 2, 4, 8, 1e6)]
    jumps = [np.count_nonzero(np.diff(label)) for label in labels]
    assert jumps == sorted(jumps, reverse=True)
    assert len(set(jumps)) == len(jumps)


def test_without_a_penalty_each_row_belongs_to_the_nearest_center():
    rows, centers = random_walk_of_states(4)
    distance = ((rows[:, None] - centers) ** 2).sum(axis=2)
    label = followed(rows, centers, 0.0)[0].argmin(axis=1)
    np.testing.assert_array_equal(label, distance.argmin(axis=1))
    assert (followed(rows, centers, 1.0)[0].argmin(axis=1) != label).any()  # control


def test_values_never_grow():
    rows, centers = random_walk_of_states(6, n=50_000)
    values, _ = followed(rows, centers, 3.0)
    distance = 0.5 * ((rows[:, None] - centers) ** 2).sum(axis=2)
    assert (values.min(axis=1) == 0).all()
    assert (values.max(axis=1) <= 3.0 + np.ptp(distance, axis=1) + 1e-9).all()


def test_an_unknown_row_weighs_jumps_only():
    rows, centers = [[0.0], [np.nan], [np.nan], [0.1]], [[0.0], [1.0], [4.0]]
    memory = np.full(3, np.nan)
    values, _ = followed(rows, centers, 2.0, memory=memory)
    np.testing.assert_allclose(values[0], [0, 0.5, 8])
    np.testing.assert_allclose(values[1], [0, 0.5, 2])  # nothing is further away than one jump
    np.testing.assert_array_equal(values[2], values[1])
    np.testing.assert_array_equal(memory, values[3])


def test_probabilities_by_hand():
    out = np.empty((2, 3))
    confidence(np.array([[0.0, 1.0, 2.0], [np.nan] * 3]), np.log(2), out)
    np.testing.assert_allclose(out[0], [4 / 7, 2 / 7, 1 / 7])
    assert np.isnan(out[1]).all()


# The fit


def test_the_true_centers_are_found(market):
    detector = JumpDetector(JumpConfig(**STEADY)).fit(market[1][:TRAIN])
    observer = detector._observer
    raw = detector.centers * observer.scale + observer.location
    np.testing.assert_allclose(raw[:, 0], [-5.6, -5.1, -4.2], atol=0.05)
    np.testing.assert_allclose(raw[:, 1], [0.08, 0.28, 0.14], atol=0.02)
    np.testing.assert_allclose(raw[:, 2], [-0.2, 0.25, -0.05], atol=0.03)
    assert detector.summary.converged
    assert detector.summary.n_rejected == 0
    np.testing.assert_allclose(detector.summary.dwell_bars, 100, rtol=0.3)
    np.testing.assert_allclose(np.diagonal(detector.chain), 0.99, atol=0.01)


def test_regimes_are_found_out_of_sample(fitted, market):
    truth = market[0][TRAIN:]
    label = transform(fitted, market[1]).values[TRAIN:].argmax(axis=1)
    assert balanced_accuracy(truth, label) > 0.95
    assert balanced_accuracy(truth, np.roll(label, 500)) < 0.5  # control


def test_fitted_labels_are_those_of_jumpmodels_online(fitted, market):
    values, rows = fitted.fresh().values(market[1])
    model = jump._jump_model(n_components=3, jump_penalty=fitted.penalty, n_init=0, max_iter=0)
    model.centers_ = fitted.centers
    model.fit(rows)
    order = [int(np.flatnonzero((model.centers_ == center).all(axis=1))[0]) for center in fitted.centers]
    np.testing.assert_array_equal(np.array(order)[values.argmin(axis=1)], model.predict_online(rows))
    np.testing.assert_array_equal(values.argmin(axis=1), transform(fitted, market[1]).values.argmax(axis=1))


@pytest.mark.parametrize("deviation", [0.5, 1.0])
def test_a_learned_penalty_is_the_log_odds_of_staying_times_the_variance(deviation):
    random = np.random.default_rng(0)
    state = np.cumsum((random.random(8000) < 0.01) * random.integers(1, 3, 8000)) % 3
    seen = 4.0 * state[:, None] * [1.0, 0.0] + deviation * random.normal(size=(8000, 2))
    config = JumpConfig(level_columns=("a",), direction_columns=("b",), caution=1.0, level_gain=0.0)
    fit = jump._Estimation(seen, np.zeros((8000, 5)), config).best()
    jumps = np.count_nonzero(np.diff(state))
    expected = deviation**2 * np.log((7999 / jumps - 1) * 2)
    assert fit.penalty == pytest.approx(expected, rel=0.05)
    cautious = jump._Estimation(seen, np.zeros((8000, 5)), config.model_copy(update={"caution": 2.0})).best()
    assert cautious.penalty == pytest.approx(2 * expected, rel=0.05)


def test_a_given_penalty_is_kept_and_a_higher_one_means_longer_stays(market):
    dwells = []
    for penalty in (1.0, 4.0, 40.0):
        detector = JumpDetector(JumpConfig(**NEWS, penalty=penalty)).fit(market[1][:TRAIN])
        assert detector.penalty == penalty
        label = transform(detector, market[1]).values.argmax(axis=1)
        dwells.append(N / (1 + np.count_nonzero(np.diff(label))))
    assert dwells == sorted(dwells)
    assert dwells[0] < 0.7 * dwells[-1]


def test_the_sharpness_is_the_likeliest_and_makes_probabilities_frequencies(learned, overlapping):
    values, rows = learned.fresh().values(overlapping[1][:12_000])
    known = ~np.isnan(rows[:, 0])
    values, rows = values[known], rows[known]
    label = jump._descent(rows, learned.penalty, 0, learned.centers).label
    by_name = np.argsort(np.argsort(learned.centers[:, 0]))  # states of a descent are in order of their level
    label = np.argsort(by_name)[label]

    def log_likelihood(sharpness):
        out = np.empty(values.shape)
        confidence(values, sharpness, out)
        return np.log(out[np.arange(len(label)), label]).mean(), out

    found, out = log_likelihood(learned.sharpness)
    assert found > max(log_likelihood(learned.sharpness * factor)[0] for factor in (0.9, 1.1))
    best = out.argmax(axis=1)

    def surplus(out):  # certainty of the label over how often the model later agrees
        return out.max(axis=1).mean() - (best == label).mean()

    assert abs(surplus(out)) < 0.02
    assert surplus(log_likelihood(0.2 * learned.sharpness)[1]) < -0.02  # controls
    assert surplus(log_likelihood(20 * learned.sharpness)[1]) > 0.02


def test_names_agree_after_refits_on_shifted_windows():
    _, features = small_market(12_000, seed=11, dwell_bars=200)
    labels = []
    for start in (0, 1000, 2500, 4000):
        config = JumpConfig(**STEADY, seed=start)  # other starts number the states in another order
        detector = JumpDetector(config).fit(features[start : start + 6000])
        labels.append(transform(detector, features).values.argmax(axis=1)[4000:])
    for label in labels[1:]:
        assert (label == labels[0]).mean() >= 0.95


def test_without_the_naming_rule_states_would_change_their_names(market, monkeypatch):
    # The control of the test above: states named by their level alone, as a descent returns them.
    values = market[1].values.copy()
    values[:, 0] *= np.exp(np.array([0.5, -0.5, 0.0])[market[0]])  # ranging and trending change their levels
    quiet = Table(market[1].time, values, market[1].names)
    detector = JumpDetector(JumpConfig(**STEADY)).fit(quiet[:TRAIN])
    assert detector.sharpness > 0.3  # the path it was learned from goes by the same names
    label = transform(detector, quiet).values.argmax(axis=1)
    assert balanced_accuracy(market[0], label) > 0.95  # trends calmer than ranges are still called trends
    monkeypatch.setattr(jump, "name_states", lambda volatility, direction: np.argsort(np.argsort(volatility)))
    label = transform(JumpDetector(JumpConfig(**STEADY)).fit(quiet[:TRAIN]), quiet).values.argmax(axis=1)
    assert balanced_accuracy(market[0], label) < 0.5


def test_only_the_latest_rows_are_fitted_when_there_are_too_many(market, monkeypatch):
    seen, estimation = [], jump._Estimation

    def watched(rows, hours, config):
        seen.append(rows)
        return estimation(rows, hours, config)

    monkeypatch.setattr(jump, "_Estimation", watched)
    for max_rows in (60_000, 2000):
        detector = JumpDetector(JumpConfig(**NEWS, max_rows=max_rows)).fit(market[1][:TRAIN])
        assert detector.fitted_until == market[1].time[TRAIN - 1]
    assert {len(rows) for rows in seen} == {TRAIN, 2000}
    np.testing.assert_array_equal(seen[-1], seen[0][-2000:])


def test_the_package_is_imported_by_a_fit_only_and_leaves_no_settings_behind():
    code = (
        "import sys, numpy, regimes.jump as jump\n"
        "print('jumpmodels' in sys.modules, 'sklearn' in sys.modules)\n"
        "import pandas\n"
        "before = numpy.geterr(), pandas.get_option('display.width')\n"
        "jump._jump_model(n_components=3)\n"
        "print('jumpmodels' in sys.modules)\n"
        "print((numpy.geterr(), pandas.get_option('display.width')) == before)\n"
        "numpy.seterr(divide='ignore'); print(numpy.geterr() == before[0])  # control\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "True", "True", "False"]


def test_a_missing_package_is_said_in_one_sentence(market, monkeypatch):
    monkeypatch.setitem(sys.modules, "jumpmodels.jump", None)
    detector = JumpDetector(JumpConfig(**NEWS))
    with pytest.raises(ConfigError) as refusal:
        detector.fit(market[1][:TRAIN])
    assert str(refusal.value) == (
        "detector jump needs the package jumpmodels; pip install 'regime-conductor[regimes]'"
    )
    assert detector.fitted_until is None


def test_training_rows_that_cannot_teach_are_refused_in_one_sentence(market):
    features = market[1]
    detector = JumpDetector(JumpConfig(**NEWS))
    with pytest.raises(DataError, match=r"known in all of .*; fitting needs at least 600"):
        detector.fit(features[:150])
    unknown = Table(features.time, np.full(features.values.shape, np.nan), features.names)
    with pytest.raises(DataError, match="0 of 6000 training rows"):
        detector.fit(unknown)
    late = features.values.copy()
    late[5300:] = np.nan
    with pytest.raises(DataError, match="300 of the latest 1000 training rows are known"):
        JumpDetector(JumpConfig(**NEWS, max_rows=1000)).fit(Table(features.time, late, features.names))
    still = features.values.copy()
    still[:, 0] = 0.01
    with pytest.raises(DataError, match="column parkinson_24 does not vary"):
        detector.fit(Table(features.time, still, features.names))
    with pytest.raises(DataError, match=r"no feature column 'parkinson_24'; did you mean parkinson_42\?"):
        detector.fit(Table(features.time, features.values[:, :1], ("parkinson_42",)))
    assert detector.fitted_until is None
    with pytest.raises(ValueError, match="not fitted"):
        detector.update(features)
    assert detector.fresh().fitted_until is None


@pytest.mark.parametrize(
    ("penalty", "reason"),
    [(1e-6, "a state lasts [0-9.]+ bars"), (1000.0, "a state (is empty|holds 0.0% of the rows)")],
)
def test_when_every_start_is_degenerate_one_sentence_says_why(penalty, reason, market):
    config = JumpConfig(**NEWS, penalty=penalty)
    noise = np.random.default_rng(0).permutation(market[1].values[:2000])
    rows = Table(market[1].time[:2000], noise, market[1].names)
    with pytest.raises(DataError, match=f"no sound model in 2 starts over 2000 rows; the last one: {reason}"):
        JumpDetector(config).fit(rows)


def test_what_makes_a_model_degenerate():
    label = np.repeat([0, 1, 2], 100)
    centers = np.diag([1.0, 2.0, 3.0])
    sound = jump._Path(centers, label, 1.0)
    assert jump._degenerate(sound) == ""
    twins = centers.copy()
    twins[1] = twins[0] + 0.01
    assert "0.017 standard deviations apart" in jump._degenerate(replace(sound, centers=twins))
    assert jump._degenerate(replace(sound, centers=np.full((3, 3), np.nan))) == "a state is empty"
    few = np.repeat([0, 1, 2], [150, 149, 1])
    assert jump._degenerate(replace(sound, label=few)) == "a state holds 0.3% of the rows"
    assert jump._degenerate(replace(sound, label=np.tile([0, 1, 2], 100))) == "a state lasts 1.0 bars"


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="penalty is 0"):
        validate(JumpConfig, {"penalty": 0}, "detector jump")
    with pytest.raises(ConfigError, match="column adx_14 is named twice"):
        validate(JumpConfig, {"level_columns": ["adx_14"], "direction_columns": ["adx_14"]}, "detector jump")


# What the detector knows


def test_ranges_tell_regimes_better_than_the_true_parameters_tell_from_closes(learned, overlapping):
    made, features = overlapping
    truth = made.regime[12_000:]

    def accuracy(values):
        return balanced_accuracy(truth, values[12_000:].argmax(axis=1))

    found = accuracy(transform(learned, features).values)
    assert found > accuracy(made.oracle_close.values) + 0.02
    assert found < accuracy(made.oracle.values)
    values = features.values.copy()  # control: the ranges of other bars
    values[:, 0] = np.random.default_rng(0).permutation(values[:, 0])
    mixed = Table(features.time, values, features.names)
    assert accuracy(np.nan_to_num(transform(learned, mixed).values)) < 0.5


def test_the_hours_of_the_week_are_found(learned, overlapping):
    peak = 2 * np.pi * 15 / 24  # the generator's day peaks at 15:00
    config = overlapping[0].config
    wave = config.day_swing * np.array([np.cos(peak), np.sin(peak)])
    season = learned.season[:, 0] * learned._observer.scale[0]
    np.testing.assert_allclose(season[:2], wave, atol=0.03)
    assert season[4] == pytest.approx(np.log(config.weekend), abs=0.05)
    assert np.abs(season[2:4]).max() < 0.03  # control: there is no second wave


def test_volatile_keeps_its_meaning_when_the_market_calms_down_for_good(market):
    values = market[1].values.copy()
    values[TRAIN:, 0] *= 0.3
    calmer = Table(market[1].time, values, market[1].names)
    late = slice(TRAIN + 800, None)
    found = {}
    for name, config in (("relative", NEWS), ("absolute", STEADY)):
        detector = JumpDetector(JumpConfig(**config)).fit(calmer[:TRAIN])
        label = transform(detector, calmer).values[late].argmax(axis=1)
        found[name] = recall(market[0][late], label)
    assert found["relative"].min() > 0.8
    assert found["absolute"][Regime.VOLATILE] < 0.1  # control: with the old level nothing is volatile


def test_the_level_mends_what_the_baseline_takes_for_level():
    # One regime all along, while the baseline slowly comes to call it normal.
    centers = [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    rows = np.column_stack([np.linspace(1.0, 0.3, 2000), np.zeros(2000)])
    rows += 0.3 * np.random.default_rng(0).normal(size=rows.shape)
    with_level, without = (
        followed(rows, centers, 2.0, 1, gain, FADE * gain)[0].argmin(axis=1) for gain in (0.005, 0.0)
    )
    assert (with_level == Regime.VOLATILE).all()
    assert (without[-200:] == Regime.TRENDING).all()  # control


# Laws of flow


def test_cutting_the_input_anywhere_changes_no_bit(fitted, market):
    rows = with_gaps(market[1][TRAIN:])
    for cuts in ([1, 7, 8, 50, 51, 51, 1900], range(400)):
        laws.check_chunk_law(fitted, rows[: 400 if isinstance(cuts, range) else None], list(cuts))


@pytest.mark.parametrize("poison", sorted(laws.POISONS))
def test_altering_the_future_changes_nothing_before_it(poison, fitted, market):
    for row in (0, 3, 500, 1200):
        laws.check_altered_future(fitted, with_gaps(market[1][TRAIN:]), row, laws.POISONS[poison])


class Hindsight:
    """A planted leak: the cheapest path through all rows at hand, as jumpmodels' own ``predict`` gives it."""

    def __init__(self, detector):
        self.detector, self.warmup = detector, 0

    def fresh(self):
        return type(self)(self.detector)

    def update(self, features):
        _, rows = self.detector.fresh().values(features)
        path = naive.hindsight(rows.tolist(), self.detector.centers.tolist(), self.detector.penalty)
        return RegimeProbabilities(features.time, np.eye(3)[path], REGIME_NAMES)


def test_the_laws_find_a_path_that_is_read_backwards(learned, overlapping):
    rows = overlapping[1][12_000:12_400]
    leak = Hindsight(learned)
    # A path is settled at most rows whatever comes later, so a leak is looked for at many rows.
    caught = 0
    for row in range(20, 380, 3):
        laws.check_altered_future(learned, rows, row, laws.POISONS["reversed"])
        try:
            laws.check_altered_future(leak, rows, row, laws.POISONS["reversed"])
        except AssertionError:
            caught += 1
    assert caught > 0
    with pytest.raises(AssertionError, match="cut at"):
        laws.check_chunk_law(leak, rows, range(1, 400, 7))


class Hasty:
    """A stage that promises to have forgotten its start too soon."""

    warmup = 100

    def __init__(self, detector):
        self.detector = detector

    def fresh(self):
        return self.detector.fresh()


def test_after_the_warmup_it_does_not_matter_where_the_rows_began(learned, overlapping):
    laws.check_start_invariance(learned, overlapping[1], [1, 777, 9000])
    with pytest.raises(AssertionError, match="after a warm-up of 100"):
        laws.check_start_invariance(Hasty(learned), overlapping[1], [9000])


def test_a_row_in_which_all_paths_agree_ends_the_memory_to_the_bit():
    rows, centers = random_walk_of_states(8, n=3000)
    whole, _ = followed(rows, centers, 1.0)
    stretch = jump._renewal(whole, 1.0)
    for start in (1, 100, 1111):
        late, _ = followed(rows[start:], centers, 1.0)
        np.testing.assert_array_equal(late[stretch:], whole[start + stretch :])
        assert (late[: stretch // 4] != whole[start : start + stretch // 4]).any()  # control


def test_rows_are_distributions_and_nan_only_before_the_first_known_row(fitted, market):
    rows = transform(fitted, with_gaps(market[1][TRAIN:]))
    assert rows.names == REGIME_NAMES
    assert np.isnan(rows.values[:7]).all()
    np.testing.assert_allclose(rows.values[7:].sum(axis=1), 1.0, atol=1e-12)
    laws.check_inputs_untouched(fitted, with_gaps(market[1][TRAIN:]))
    assert len(transform(fitted, market[1][:0])) == 0


def test_gaps_in_the_training_rows_do_no_harm(fitted, market):
    gappy = market[1].values.copy()
    gappy[np.random.default_rng(0).integers(0, TRAIN, 200)] = np.nan
    detector = JumpDetector(JumpConfig(**NEWS)).fit(Table(market[1].time, gappy, market[1].names)[:TRAIN])
    labels = [transform(one, market[1]).values.argmax(axis=1) for one in (detector, fitted)]
    assert (labels[0] == labels[1]).mean() > 0.97


# Keeping it


def test_a_detector_comes_back_from_disk_bit_by_bit(fitted, market, tmp_path):
    used = fitted.fresh()
    used.update(market[1][:500])
    used.save(tmp_path)
    loaded = JumpDetector.load(tmp_path)
    assert (loaded.config, loaded.fitted_until) == (fitted.config, fitted.fitted_until)
    assert loaded.warmup == fitted.warmup > fitted.config.baseline_bars
    np.testing.assert_array_equal(loaded.chain, fitted.chain)
    rows = market[1][TRAIN:]
    expected = transform(fitted, rows).values.tobytes()
    assert transform(loaded, rows).values.tobytes() == expected
    assert used.update(rows).values.tobytes() != expected  # control: a memory does matter


def test_the_same_rows_give_the_same_bytes_and_later_rows_do_not_matter(fitted, market, tmp_path):
    later = market[1].values.copy()
    later[TRAIN:] *= 1000
    again = JumpDetector(JumpConfig(**NEWS)).fit(Table(market[1].time, later, market[1].names)[:TRAIN])
    other = JumpDetector(JumpConfig(**NEWS)).fit(market[1][: TRAIN - 100])
    files = []
    for name, detector in (("a", fitted), ("b", again), ("c", other)):
        detector.save(tmp_path / name)
        files.append((tmp_path / name / "detector.json").read_bytes())
    assert files[0] == files[1] != files[2]
    assert fitted.fitted_until == market[1].time[TRAIN - 1] == TRAIN * HOUR_NS


@pytest.mark.parametrize(
    "damage",
    [
        {"centers": None},
        {"centers": [1.0]},
        {"centers": [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]},
        {"penalty": [0.0]},
        {"penalty": [float("nan")]},
        {"sharpness": [-1.0]},
        {"season": [[0.0]]},
        {"renewal": [1.5]},
        {"renewal": [-1.0]},
        {"chain": [[0.5] * 3] * 3},
        {"location": ["a", "b", "c"]},
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(damage, fitted, tmp_path):
    fitted.save(tmp_path)
    file = tmp_path / "detector.json"
    document = json.loads(file.read_text())
    document["parameters"].update(damage)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as refusal:
        JumpDetector.load(tmp_path)
    assert "\n" not in str(refusal.value)
    assert str(file) in str(refusal.value)


# Real bars


def test_on_real_bars_every_regime_lives_in_every_year(shared_data):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.read_table(shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet")
    opened = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    features = described(Bars(opened + HOUR_NS, values, OHLCV, symbol="BTC/USDT", interval_ns=HOUR_NS))
    first = int(0.6 * len(features))
    detector = JumpDetector().fit(features[:first])
    path = regime_path(transform(PathFilter(), transform(detector, features)))
    year = features.time.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    for one in range(2018, 2025):
        share = np.bincount(path.label[year == one], minlength=3) / (year == one).sum()
        assert (share >= 0.08).all(), (one, share)
    assert (path.mean_dwell() >= 12).all()

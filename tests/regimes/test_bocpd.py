import inspect
import itertools
import json
import math
from dataclasses import replace
from functools import cache

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
from regimes import bocpd
from regimes import run_length_kernels as kernels
from regimes.accuracy import balanced_accuracy, detection_delays
from regimes.bocpd import ALARM_COLUMNS, BocpdConfig, BocpdDetector, RunLaw, alarms
from regimes.path import PathFilter, regime_path
from regimes.regime import REGIME_NAMES, RegimeProbabilities
from regimes.run_length_kernels import AGE, CHANGE, EVIDENCE, N_JOURNAL, N_SUMS, advance
from regimes.volatility import VolatilityDetector
from tests.conformance import laws
from tests.reference import bocpd as naive

COLUMNS = BocpdDetector.columns
TRAIN, N = 15_000, 24_000
SMALL = {"baseline_bars": 2000, "max_run_bars": 120}


def law_of(level, spread, noise, drift, echo, share):
    each = {"level": level, "spread": spread, "noise": noise, "drift": drift, "share": share}
    return RunLaw(
        **{name: np.array(value, dtype=float) for name, value in each.items()}, echo=np.array([echo])
    )


THREE = law_of([-0.8, 0.1, 1.5], [0.2, 0.3, 0.25], [0.5, 0.6, 0.7], [0.0, 0.2, 0.05], 0.25, [0.5, 0.3, 0.2])
ONE = law_of([0.3], [0.8], [0.6], [0.3], 0.4, [1.0])


def regimes_of(law):
    """The arguments of the twin's density, per regime."""
    rows = zip(law.level, law.spread, law.noise, law.drift, strict=True)
    return [(*(float(x) for x in row), float(law.echo[0])) for row in rows]


def successor_of(law):
    return np.ones((1, 1)) if law.level.size == 1 else law.successor()


def followed(observations, law, hazard=0.05, alarm_bars=4, longest=80, memory=None, step=advance):
    """Probabilities, journal and memory of rows under a law."""
    k = law.level.size
    memory = np.zeros((k + N_SUMS, longest)) if memory is None else memory
    out, journal = np.empty((len(observations), k)), np.zeros((len(observations), N_JOURNAL))
    fixed = (law.table(longest), successor_of(law), law.share, hazard, float(law.echo[0]), alarm_bars)
    step(observations, *fixed, memory, out, journal)
    return out, journal, memory


def rows_with_a_change(n=45, seed=0):
    random = np.random.default_rng(seed)
    rows = random.normal([-0.7, 0.1], 0.6, (n, 2))
    rows[n // 2 :] += [1.8, 0.5]
    rows[[0, 11]] = np.nan
    rows[30, 1] = np.nan
    return rows


def twin(rows, law, hazard=0.05, alarm_bars=4, longest=80):
    bars = [None if np.isnan(row).any() else tuple(row) for row in rows]
    return naive.follow(bars, regimes_of(law), successor_of(law), law.share, hazard, alarm_bars, longest)


@cache
def answer_of_the_twin(seed, longest):
    return twin(rows_with_a_change(seed=seed), THREE, longest=longest)


def differences(step=advance, seed=0, longest=80):
    """The largest difference between the kernel and its twin."""
    out, journal, _ = followed(rows_with_a_change(seed=seed), THREE, longest=longest, step=step)
    found = np.column_stack([out, journal[:, [CHANGE, AGE, EVIDENCE]]])
    expected = answer_of_the_twin(seed, longest)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    return np.nanmax(np.abs(found - expected))


# The recursion


@pytest.mark.parametrize("longest", [80, 9], ids=["no run is too long", "runs are merged"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_posterior_equals_that_of_a_list_of_all_runs(longest, seed):
    # Observations are on a grid of 1e-6 standard deviations, masses on one of 1e-12.
    assert differences(seed=seed, longest=longest) < 1e-4


def next_level(observations, t):
    """What no filter may read."""
    later = observations[t + 1 :, 0]
    later = later[~np.isnan(later)]
    return later[0] if later.size else 0.0


def planted(before, after):
    """The kernel as plain Python, with one line of it replaced."""
    source = inspect.getsource(advance.py_func)
    source = source[source.index("def ") :]
    assert source.count(before) == 1, before
    scope = {**vars(kernels), "next_level": next_level}
    exec(source.replace(before, after), scope)
    return scope["advance"]


DEFECTS = {
    "a hazard of growth ignored": ("(1.0 - hazard) * memory[j, r]", "memory[j, r]"),
    "level sums not moved on by one": ("memory[levels, r - 1] + (1.0", "memory[levels, r] + (1.0"),
    "move sums not moved on by one": ("memory[moves, r - 1] + move", "memory[moves, r] + move"),
    "masses not moved on by one": ("memory[j, r] = carried[r - 1]", "memory[j, r] = carried[r]"),
    "the mass of the oldest runs dropped": ("memory[j, longest - 1] += carried[longest - 1]", "pass"),
    "a future row read": ("fresh = level - ", "level = next_level(observations, t); fresh = level - "),
    "the bar before forgotten": ("fresh = level - echo * memory[rest, 0]", "fresh = level"),
    "the beginning taken for a change": ("int(memory[rest, 1]) - 1", "int(memory[rest, 1])"),
    "regimes drawn without regard to the last": ("ended[i] * successor[i, j]", "ended[i] * share[j]"),
}


@pytest.mark.parametrize("defect", sorted(DEFECTS))
def test_the_twin_finds(defect):
    longest = 9 if "oldest" in defect else 80
    with np.errstate(invalid="ignore"):
        wrong = differences(planted(*DEFECTS[defect]), longest=longest)
    assert not wrong < 1e-3


def test_nothing_but_the_planted_line_makes_the_twin_complain():
    assert (
        differences(planted("total = 0.0\n            for i in", "total = 0.0\n            for i in")) < 1e-4
    )


def test_a_row_that_peeks_is_seen_by_its_prefix():
    rows = rows_with_a_change()
    for step, sound in ((advance, True), (planted(*DEFECTS["a future row read"]), False)):
        whole, part = (followed(some, THREE, step=step)[0] for some in (rows, rows[:30]))
        assert np.array_equal(whole[:30], part, equal_nan=True) == sound


@pytest.mark.parametrize("law", [ONE, law_of([0.3], [0.8], [0.6], [0.3], 0.0, [1.0])], ids=["echo", "none"])
def test_a_single_run_has_the_posterior_and_the_evidence_of_a_linear_model(law):
    # Without a hazard there is one run: Bayesian regression on a constant with AR(1) noise, in closed form.
    n = 40
    rows = np.random.default_rng(3).normal([0.9, 0.2], [0.7, 1.0], (n, 2))
    out, journal, memory = followed(rows, law, hazard=1e-13, longest=60)
    np.testing.assert_array_equal(out, 1.0)
    regime = regimes_of(law)[0]
    joint = naive.run_log_density(rows, *regime)
    assert journal[:, EVIDENCE].sum() == pytest.approx(joint, abs=1e-4)
    echo, noise, spread, drift = law.echo[0], law.noise[0], law.spread[0], law.drift[0]
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    inverse = np.linalg.inv(noise**2 / (1 - echo**2) * echo**apart)
    precision = inverse.sum() + 1 / spread**2
    mean = ((inverse @ rows[:, 0]).sum() + law.level[0] / spread**2) / precision
    table = law.table(60)
    found = table[0, kernels.MEAN, n] + table[0, kernels.GAIN, n] * memory[1, n - 1]
    assert found == pytest.approx((1 - echo) * mean, abs=1e-5)
    variance = 0.5 / table[0, kernels.LEVEL_WEIGHT, n]
    assert variance == pytest.approx(noise**2 + (1 - echo) ** 2 / precision, rel=1e-12)
    slope = rows[:, 1].sum() / (n + 1 / drift**2)
    assert table[0, kernels.DRIFT, n] * memory[2, n - 1] == pytest.approx(slope, abs=1e-5)
    # Control: with a hazard the same rows are more than one run.
    assert abs(followed(rows, law, hazard=0.2, longest=60)[1][:, EVIDENCE].sum() - joint) > 0.2


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    hazard=st.floats(1e-4, 0.5),
    echo=st.floats(0.0, 0.9),
    longest=st.integers(8, 40),
    size=st.floats(0.1, 3.0),
)
def test_masses_are_kept_whatever_comes(seed, hazard, echo, longest, size):
    random = np.random.default_rng(seed)
    law = replace(THREE, echo=np.array([echo]), noise=random.uniform(0.2, 1.5, 3))
    rows = np.clip(random.standard_t(2.0, (100, 2)) * size, -3, 3)
    rows[random.random(100) < 0.1] = np.nan
    out, journal, memory = followed(rows, law, hazard, 5, longest)
    known = ~np.isnan(out[:, 0])
    assert known.sum() == 100 - np.argmin(np.isnan(rows[:, 0]))
    np.testing.assert_allclose(out[known].sum(axis=1), 1.0, atol=1e-12)
    assert memory[:3].sum() == pytest.approx(1.0, abs=1e-9)
    assert (memory[:3] >= 0).all()
    change, age = journal[known][:, [CHANGE, AGE]].T
    assert ((change >= 0) & (change <= 1)).all()
    assert ((age >= 1) & (age <= longest)).all()
    later = followed(rows, law, hazard, 8, longest)[1][known][:, CHANGE]
    assert (later >= change).all()  # a longer memory of changes holds more of them


# What it knows


def test_probabilities_are_frequencies_where_the_law_is_true():
    hazard, alarm_bars = 0.02, 12
    bars, age, kind = naive.drawn(30_000, regimes_of(THREE), THREE.successor(), THREE.share, hazard, seed=5)

    def off(belief):
        """The largest miss of observed frequencies in tenths of the probability, in standard errors."""
        out, journal, _ = followed(bars, THREE, belief, alarm_bars, longest=300)
        pairs = [(out[:, j], kind == j) for j in range(3)]
        pairs.append((journal[:, CHANGE], age <= alarm_bars))
        worst = 0.0
        for probability, happened in pairs:
            tenth = np.minimum((probability * 10).astype(int), 9)
            for i in range(10):
                rows = tenth == i
                if rows.sum() > 500:
                    # About a dozen neighbours say the same, so they count as one.
                    error = math.sqrt(max(probability[rows].var(), 0.002) / 12 + 0.25 * 12 / rows.sum())
                    worst = max(worst, abs(happened[rows].mean() - probability[rows].mean()) / error)
        return worst

    assert off(hazard) < 2.5
    assert off(0.3) > 4  # control: a wrong hazard is seen


def test_the_run_length_collapses_within_bars_of_a_shift_of_the_level():
    random = np.random.default_rng(1)
    rows = random.normal([-0.8, 0.0], [0.5, 1.0], (600, 2))
    shifted = rows.copy()
    shifted[400:, 0] += 2.3
    ages, changes = followed(shifted, THREE, 0.005, 24, 240)[1][:, [AGE, CHANGE]].T
    assert ages[399] > 150
    assert changes[399] < 0.1
    assert ages[404] < 10
    assert changes[404] > 0.95
    assert ages[599] == pytest.approx(200, abs=20)
    assert followed(rows, THREE, 0.005, 24, 240)[1][400:, AGE].min() > 60  # control: no shift, no collapse


def test_the_run_length_shortens_when_a_trend_sets_in():
    random = np.random.default_rng(2)
    rows = random.normal([-0.3, 0.0], [0.55, 1.0], (500, 2))
    trending = rows.copy()
    trending[300:, 1] += 0.8
    age = followed(trending, THREE, 0.005, 24, 240)[1][:, AGE]
    still = followed(rows, THREE, 0.005, 24, 240)[1][:, AGE]
    assert age[360] < 100 < still[360]


@pytest.mark.parametrize("echo", [0.0, 0.5])
def test_a_stationary_series_alarms_less_than_once_in_a_thousand_bars(echo):
    random = np.random.default_rng(4)
    law = replace(THREE, echo=np.array([echo]))
    noise = random.normal(0, law.noise[0], 20_000)
    level = np.empty(20_000)
    level[0] = noise[0]
    for t in range(1, 20_000):
        level[t] = echo * level[t - 1] + noise[t]
    rows = np.column_stack([np.clip(level + law.level[0], -3, 3), random.normal(size=20_000)])

    def rate(law, threshold=0.9):
        journal = followed(rows, law, 0.005, 24, 240)[1]
        table = Table(np.arange(20_000), journal[:, [CHANGE, AGE]], ALARM_COLUMNS)
        return len(alarms(table, threshold, 24)) / 20_000

    assert rate(law) < 1 / 1000
    # Controls: what is likely a priori (24 bars times the hazard) is no news, and half the noise shocks.
    assert rate(law, 0.02) > 1 / 100
    assert rate(replace(law, noise=0.5 * law.noise)) > 1 / 400


# The detector


def described(bars):
    return transform(FeaturePipeline(FeaturesConfig(names=COLUMNS)), bars)


def market_of(**config):
    market = synthetic_market(SyntheticConfig(**config))
    return market, described(market.bars)


@pytest.fixture(scope="module")
def overlapping():
    return market_of(scenario="overlapping", n_bars=N, seed=101)


@pytest.fixture(scope="module")
def fitted(overlapping):
    return BocpdDetector(BocpdConfig(**SMALL)).fit(overlapping[1][:TRAIN])


@pytest.fixture(scope="module")
def default(overlapping):
    return BocpdDetector(BocpdConfig(baseline_bars=0)).fit(overlapping[1][:TRAIN])


def with_gaps(features):
    values = features.values.copy()
    values[:7] = np.nan
    values[[50, 51], [0, 1]] = np.nan
    values[60] = 0.0  # a bar that did not move
    return Table(features.time, values, features.names)


class AlarmStage:
    """The alarm as a stage of its own, so that the laws can be applied to it."""

    def __init__(self, detector):
        self.detector, self.warmup = detector, detector.warmup

    def fresh(self):
        return type(self)(self.detector.fresh())

    def update(self, features):
        return self.detector.alarm(features)


@pytest.mark.parametrize("scenario", ["overlapping", "short_dwell"])
def test_regimes_are_found_far_better_than_by_the_volatility_rule(scenario, overlapping, default):
    market, features = overlapping
    detector = default
    if scenario != "overlapping":
        market, features = market_of(scenario=scenario, n_bars=N, seed=101)
        detector = BocpdDetector(BocpdConfig(baseline_bars=0)).fit(features[:TRAIN])
    truth = market.regime[TRAIN:]
    label = transform(detector, features).values[TRAIN:].argmax(axis=1)
    best = market.oracle.values[TRAIN:].argmax(axis=1)
    rule = VolatilityDetector().columns
    columns = transform(FeaturePipeline(FeaturesConfig(names=rule)), market.bars)
    known = ~np.isnan(columns.values).any(axis=1)
    simple = transform(VolatilityDetector().fit(columns[:TRAIN]), columns).values[TRAIN:].argmax(axis=1)
    assert known[TRAIN:].all()
    accuracy = balanced_accuracy(truth, label)
    assert accuracy > balanced_accuracy(truth, simple) + 0.15
    assert accuracy > 0.93 * balanced_accuracy(truth, best)
    assert np.median(detection_delays(truth, label)) <= 3 * max(np.median(detection_delays(truth, best)), 1)
    # Control: the same bars with the ranges of other bars say next to nothing.
    values = features.values.copy()
    values[:, 0] = np.random.default_rng(0).permutation(values[:, 0])
    mixed = transform(detector, replace(features, values=values)).values[TRAIN:].argmax(axis=1)
    assert balanced_accuracy(truth, mixed) < accuracy - 0.3


def test_the_alarm_catches_most_switches_soon_and_cries_wolf_seldom(overlapping, default):
    market, features = overlapping
    rows = transform(AlarmStage(default), features)[TRAIN:]
    truth = market.regime[TRAIN:]
    switches = np.flatnonzero(np.diff(truth)) + 1

    def caught(rows):
        at = np.array([one.row for one in alarms(rows, 0.8, 24)])
        found = [at[(at >= s) & (at <= s + 24)] - s for s in switches]
        last = switches[np.maximum(np.searchsorted(switches, at, side="right") - 1, 0)]
        false = ((at < last) | (at > last + 24)).sum()
        delays = [one[0] for one in found if one.size]
        return len(delays) / len(switches), np.median(delays), false / len(truth)

    share, delay, false = caught(rows)
    assert share > 0.7
    assert delay <= 10
    assert false < 1 / 500
    moved = Table(rows.time, np.roll(rows.values, 300, axis=0), rows.names)
    assert caught(moved)[0] < 0.3  # control: alarms at other times


def test_the_parameters_that_made_the_market_are_found(overlapping, default):
    market, features = overlapping
    config = market.config
    true = np.log([one.volatility for one in config.regimes])
    span = np.log(features.column("range_1")[:TRAIN])
    scale = default._observer.scale[0]
    np.testing.assert_allclose(np.diff(default.law.level) * scale, np.diff(true), atol=0.06)
    assert default.law.drift.argmax() == 1
    share = np.bincount(market.regime[:TRAIN]) / TRAIN
    np.testing.assert_allclose(default.law.share, share, atol=0.05)
    stays = np.diagonal(default.chain)
    np.testing.assert_allclose(1 / (1 - stays), [one.dwell_bars for one in config.regimes], rtol=0.6)
    assert scale == pytest.approx(span.std(), rel=0.1)


def test_names_agree_after_refits_on_shifted_windows(overlapping, default):
    features = overlapping[1]
    first = transform(default, features).values.argmax(axis=1)
    again = BocpdDetector(default.config).fit(features[3000 : 3000 + TRAIN])
    assert (transform(again, features).values.argmax(axis=1) == first).mean() > 0.95


def test_a_level_relative_to_its_past_keeps_its_meaning_when_the_market_calms_down_for_good():
    market, features = market_of(scenario="separated", n_bars=N, seed=100)
    values = features.values.copy()
    values[TRAIN:, 0] *= 0.3
    calmer = Table(features.time, values, features.names)
    later = slice(TRAIN + 4000, None)
    found = {}
    for baseline in (3000, 0):
        detector = BocpdDetector(BocpdConfig(baseline_bars=baseline)).fit(features[:TRAIN])
        label = transform(detector, calmer).values[later].argmax(axis=1)
        found[baseline] = balanced_accuracy(market.regime[later], label)
    assert found[3000] > 0.75
    assert found[0] < 0.5


def test_update_and_alarm_and_likelihood_advance_one_memory(fitted, overlapping):
    features = overlapping[1][:900]
    whole, alarm = transform(fitted, features), transform(AlarmStage(fitted), features)
    likelihood = fitted.fresh().log_likelihood(features)
    mixed = fitted.fresh()
    assert mixed.update(features[:300]).values.tobytes() == whole.values[:300].tobytes()
    assert mixed.alarm(features[300:600]).values.tobytes() == alarm.values[300:600].tobytes()
    assert mixed.log_likelihood(features[600:700]).tobytes() == likelihood[600:700].tobytes()
    assert mixed.update(features[700:]).values.tobytes() == whole.values[700:].tobytes()
    twice = fitted.fresh()
    twice.update(features[:300])
    assert twice.alarm(features[:300]).values.tobytes() != alarm.values[:300].tobytes()  # control


def test_held_out_rows_are_foretold_better_than_by_one_endless_run(fitted, overlapping):
    features = overlapping[1]
    ours = fitted.fresh().log_likelihood(features)[TRAIN:].mean()
    seen = fitted._observer.fresh().update(fitted._calmed(features), bocpd.CLIP)[TRAIN:]
    endless = -0.5 * np.log(2 * np.pi * seen.var(axis=0)).sum() - 1.0  # two independent normals
    assert ours > endless + 0.1


def test_alarms_by_hand():
    nan = math.nan
    probability = [nan, 0.2, 0.9, 0.95, 0.5, 0.91, 0.9, 0.1, 0.92]
    table = Table(np.arange(9) * 10, np.column_stack([probability, np.ones(9)]), ALARM_COLUMNS)
    assert [tuple(one) for one in alarms(table, 0.9, 3)] == [(2, 20, 0.9), (5, 50, 0.91), (8, 80, 0.92)]
    assert [one.row for one in alarms(table, 0.9, 4)] == [2, 6]
    assert [one.row for one in alarms(table, 0.9, 1)] == [2, 3, 5, 6, 8]
    assert alarms(table, 0.99, 1) == alarms(table[:0], 0.1, 1) == ()


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.01, 1), st.integers(1, 20))
def test_alarms_reach_the_threshold_and_keep_their_distance(probability, threshold, refractory):
    n = len(probability)
    table = Table(np.arange(n), np.reshape(probability, (n, 1)), ALARM_COLUMNS[:1])
    rows = [one.row for one in alarms(table, threshold, refractory)]
    assert all(probability[row] >= threshold for row in rows)
    assert all(b - a >= refractory for a, b in itertools.pairwise(rows))
    # None is missing: every row above the threshold is an alarm or close behind one.
    assert all(
        any(0 <= t - row < refractory for row in rows) for t in range(n) if probability[t] >= threshold
    )


# Laws of flow


@pytest.mark.parametrize("kind", [lambda detector: detector, AlarmStage], ids=["update", "alarm"])
def test_cutting_the_input_anywhere_changes_no_bit(kind, fitted, overlapping):
    rows = with_gaps(overlapping[1][TRAIN : TRAIN + 1500])
    for cuts in ([1, 7, 8, 50, 51, 51, 60, 1400], range(250, 400)):
        laws.check_chunk_law(kind(fitted), rows, list(cuts))
    laws.check_inputs_untouched(kind(fitted), rows)


@pytest.mark.parametrize("poison", sorted(laws.POISONS))
@pytest.mark.parametrize("kind", [lambda detector: detector, AlarmStage], ids=["update", "alarm"])
def test_altering_the_future_changes_nothing_before_it(kind, poison, fitted, overlapping):
    rows = with_gaps(overlapping[1][TRAIN : TRAIN + 1500])
    for row in (0, 3, 500, 1200):
        laws.check_altered_future(kind(fitted), rows, row, laws.POISONS[poison])


class Hindsight(AlarmStage):
    """A planted leak: regimes of the segments that hindsight finds in the chunk."""

    def update(self, features):
        seen = self.detector.fresh()._observer.update(self.detector._calmed(features), bocpd.CLIP)
        found = bocpd._segments(seen, self.detector.law, self.detector.config)[0]
        label = np.repeat(found.regime, found.length)
        return RegimeProbabilities(features.time, np.eye(3)[label], REGIME_NAMES)


def test_the_laws_find_segments_seen_with_hindsight(fitted, overlapping):
    rows = overlapping[1][TRAIN : TRAIN + 1500]
    with pytest.raises(AssertionError, match="cut at"):
        laws.check_chunk_law(Hindsight(fitted), rows, range(100, 1400, 10))
    laws.check_chunk_law(fitted, rows, range(100, 1400, 10))


@pytest.mark.parametrize("kind", [lambda detector: detector, AlarmStage], ids=["update", "alarm"])
def test_after_the_warmup_it_does_not_matter_where_the_rows_began(kind, fitted, overlapping):
    features = with_gaps(overlapping[1])
    stage = kind(fitted)
    laws.check_start_invariance(stage, features, [1, 777, 9000])
    # And not only nearly: rows are the same to the last bit but for rare rounding.
    whole, part = transform(stage, features), transform(stage, features[9000:])
    same = (whole.values[9000:] == part.values).all(axis=1)
    assert same[stage.warmup :].mean() > 0.999
    assert same[: fitted.config.max_run_bars].mean() < 0.1  # control: at first they are not

    class Hasty(AlarmStage):
        warmup = 100

        def __init__(self, detector):
            self.detector = detector

    with pytest.raises(AssertionError, match="after a warm-up of 100"):
        laws.check_start_invariance(Hasty(fitted), features, [9000])


def test_rows_are_distributions_and_nan_only_before_the_first_known_row(fitted, overlapping):
    features = with_gaps(overlapping[1][TRAIN : TRAIN + 500])
    rows, alarm = transform(fitted, features), transform(AlarmStage(fitted), features)
    assert np.isnan(rows.values[:7]).all()
    assert np.isnan(alarm.values[:7]).all()
    np.testing.assert_allclose(rows.values[7:].sum(axis=1), 1.0, atol=1e-12)
    assert np.isfinite(alarm.values[7:]).all()
    assert alarm.names == ALARM_COLUMNS
    assert alarm.values[7].tolist() == [0.0, 1.0]  # the beginning of the stream is no change
    for table in (rows, alarm):  # unknown rows, and the bar that did not move, repeat the row before
        assert (table.values[[50, 51, 60]] == table.values[[49, 49, 59]]).all()
    assert len(transform(fitted, features[:0])) == len(fitted.fresh().alarm(features[:0])) == 0


def test_only_the_two_columns_are_read(fitted, overlapping):
    features = overlapping[1][TRAIN : TRAIN + 300]
    values = np.column_stack([features.values[:, ::-1], np.full(300, np.nan)])
    other = Table(features.time, values, (*features.names[::-1], "other"))
    assert transform(fitted, other).values.tobytes() == transform(fitted, features).values.tobytes()


# Kept on disk


def test_a_detector_comes_back_from_disk_bit_by_bit(fitted, overlapping, tmp_path):
    used = fitted.fresh()
    used.update(overlapping[1][:500])
    used.save(tmp_path / "one")
    loaded = BocpdDetector.load(tmp_path / "one")
    loaded.save(tmp_path / "two")
    one, two = ((tmp_path / name / "detector.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert loaded.config == fitted.config
    assert loaded.fitted_until == fitted.fitted_until == overlapping[1].time[TRAIN - 1]
    np.testing.assert_array_equal(loaded.chain, fitted.chain)
    rows = overlapping[1][TRAIN : TRAIN + 800]
    for kind in (lambda detector: detector, AlarmStage):
        expected = transform(kind(fitted), rows).values.tobytes()
        assert transform(kind(loaded), rows).values.tobytes() == expected
        assert transform(kind(used), rows).values.tobytes() == expected
    assert used.update(rows).values.tobytes() != transform(fitted, rows).values.tobytes()  # control


def test_the_same_rows_give_the_same_bytes_and_later_rows_do_not_matter(fitted, overlapping, tmp_path):
    features = overlapping[1]
    values = features.values.copy()
    values[TRAIN:] *= 1000
    again = BocpdDetector(fitted.config).fit(Table(features.time, values, features.names)[:TRAIN])
    fewer = BocpdDetector(fitted.config).fit(features[: TRAIN - 500])
    saved = []
    for i, detector in enumerate((fitted, again, fewer)):
        detector.save(tmp_path / str(i))
        saved.append((tmp_path / str(i) / "detector.json").read_bytes())
    assert saved[0] == saved[1] != saved[2]


def changed(key, value):
    def damage(document):
        *path, last = key.split(".")
        for one in path:
            document = document[one]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        changed("parameters.level", None),
        changed("parameters.level", [0.0]),
        changed("parameters.spread", [0.1, 0.0, 0.1]),
        changed("parameters.noise", [-1.0, 1.0, 1.0]),
        changed("parameters.drift", [-0.1, 0.0, 0.0]),
        changed("parameters.echo", [1.0]),
        changed("parameters.share", [0.5, 0.5, 0.5]),
        changed("parameters.season", [float("nan")] * 5),
        changed("parameters.chain", [[0.5, 0.5, 0.5]] * 3),
        changed("parameters.location", ["a", "b"]),
        changed("config", {"alarm_bars": 500}),
        changed("detector", "hmm"),
        changed("format", 9),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(damage, fitted, tmp_path):
    fitted.save(tmp_path)
    file = tmp_path / "detector.json"
    document = json.loads(file.read_text())
    damage(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as refusal:
        BocpdDetector.load(tmp_path)
    assert "\n" not in str(refusal.value)
    assert str(file) in str(refusal.value)


# What it refuses


def test_an_unfitted_detector_says_so(overlapping, tmp_path):
    detector = BocpdDetector()
    for call in (detector.update, detector.alarm, detector.log_likelihood):
        with pytest.raises(ValueError, match="not fitted"):
            call(overlapping[1])
    with pytest.raises(ValueError, match="not fitted"):
        detector.save(tmp_path)
    assert detector.fitted_until is None
    assert detector.fresh().fitted_until is None
    np.testing.assert_allclose(detector.chain.sum(axis=1), 1.0)


def test_training_rows_that_cannot_teach_are_refused_in_one_sentence(overlapping):
    features = overlapping[1]
    detector = BocpdDetector()
    with pytest.raises(DataError, match=r"900 of 900 training rows .*; fitting needs at least 1000"):
        detector.fit(features[:900])
    unknown = Table(features.time, np.full(features.values.shape, np.nan), features.names)
    with pytest.raises(DataError, match="0 of 24000 training rows"):
        detector.fit(unknown)
    with pytest.raises(DataError, match="0 of 24000 training rows"):
        detector.fit(Table(features.time, np.zeros(features.values.shape), features.names))
    for column, name in enumerate(COLUMNS):
        still = features.values.copy()
        still[:, column] = 0.01
        with pytest.raises(DataError, match=f"column {name} does not vary"):
            detector.fit(Table(features.time, still, features.names))
    with pytest.raises(DataError, match=r"no feature column 'body_1'"):
        detector.fit(features.select(COLUMNS[:1]))
    assert detector.fitted_until is None


def test_independent_noise_has_no_regimes_and_is_refused():
    random = np.random.default_rng(0)
    values = np.column_stack([np.exp(random.normal(-5, 0.3, 3000)), random.uniform(-1, 1, 3000)])
    noise = Table(np.arange(1, 3001) * 3_600_000_000_000, values, COLUMNS)
    with pytest.raises(DataError, match="no three regimes in 3000 training rows") as refusal:
        BocpdDetector(BocpdConfig(baseline_bars=0)).fit(noise)
    assert "\n" not in str(refusal.value)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="alarm_bars is 300; it must not be above max_run_bars, 240"):
        validate(BocpdConfig, {"alarm_bars": 300}, "detector bocpd")
    with pytest.raises(ConfigError, match="mean_run_bars"):
        validate(BocpdConfig, {"mean_run_bars": 1}, "detector bocpd")


def test_bitcoin_keeps_every_regime_for_long(shared_data):
    file = shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet"
    if not file.is_file():
        pytest.skip("no hourly BTC/USDT beside the repository")
    import pandas

    # The training part alone: what follows belongs to the benchmark.
    rows = pandas.read_parquet(file).iloc[:36_000]
    opened = rows["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.column_stack([rows[name].to_numpy() for name in OHLCV])
    hour = 3_600_000_000_000
    bars = Bars(opened + hour, values, OHLCV, symbol="BTC/USDT", interval_ns=hour)
    features = described(bars)
    detector = BocpdDetector(BocpdConfig(max_rows=24_000)).fit(features[:24_000])
    path = regime_path(transform(PathFilter(), transform(detector, features)))
    later = path.label[24_000:]
    assert np.bincount(later, minlength=3).min() > 0.08 * later.size
    assert path.mean_dwell().min() > 12
    span = features.column("range_1")[24_000:]
    assert np.median(span[later == 2]) > 1.3 * max(np.median(span[later == r]) for r in (0, 1))

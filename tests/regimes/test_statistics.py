"""Figures per regime, stays, calibration and p-values: by hand, against slow twins, with broken controls."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from market.bars import OHLCV, Bars
from regimes.regime import REGIME_NAMES, RegimePath
from regimes.statistics import (
    Blocks,
    RegimeStatistics,
    calibration,
    dwells,
    later,
    order_p_value,
    plain,
    regime_statistics,
    stationary_blocks,
)

HOUR = 3_600_000_000_000
YEAR = 8760.0


def bars_of(log_close, missing=()):
    """Bars with these log closes, an hour apart; before the rows in ``missing`` an hour is missing."""
    n = len(log_close)
    skipped = np.cumsum([row in missing for row in range(n)])
    close = 100 * np.exp(np.asarray(log_close, dtype=float))
    values = np.column_stack([close, close, close, close, np.ones(n)])
    return Bars((1 + np.arange(n) + skipped) * HOUR, values, OHLCV, "TEST/USD", HOUR)


def random_market(seed, n=60):
    random = np.random.default_rng(seed)
    missing = set(random.choice(n, 4, replace=False).tolist())
    return bars_of(np.cumsum(random.normal(0, 0.01, n)), missing), random.integers(-1, 3, n)


# What the market did


def test_figures_by_hand():
    # After the labels of regime 0 (rows 0, 1, 2) come returns of +1 %, +3 % and -2 %.
    bars = bars_of(np.cumsum([0.0, 0.01, 0.03, -0.02, 0.05, 0.04]))
    calm, wild = regime_statistics(bars, np.array([0, 0, 0, 1, 1, 1]), 2, horizon=2)
    assert calm.bars == 3
    assert calm.annual_return == pytest.approx((0.01 + 0.03 - 0.02) / 3 * YEAR)
    assert calm.annual_volatility == pytest.approx(np.std([0.01, 0.03, -0.02], ddof=1) * math.sqrt(YEAR))
    # Pairs (1, 3), (3, -2), (-2, 5): the second bar of the last one follows a label of regime 1.
    assert calm.autocorrelation == pytest.approx(np.corrcoef([1, 3, -2], [3, -2, 5])[0, 1])
    made = np.array([4, 1, 3])
    single = np.array([1, 3, 3, -2, -2, 5]) - 8 / 6
    assert calm.variance_ratio == pytest.approx(((made - 8 / 3) ** 2).sum() / (single**2).sum())
    assert calm.efficiency == pytest.approx((4 / 4 + 1 / 5 + 3 / 7) / 3)
    # The last label has no bar after it, the last but one no second one.
    assert wild.bars == 2
    assert wild.annual_return == pytest.approx(0.045 * YEAR)
    assert wild.efficiency == pytest.approx(1.0)
    assert math.isnan(wild.variance_ratio)
    assert math.isnan(wild.autocorrelation)


def test_a_regime_that_never_occurs_has_no_bars_and_no_figures():
    never = regime_statistics(bars_of([0.0, 0.1, 0.2]), np.zeros(3, int), 2, horizon=2)[1]
    assert never.bars == 0
    assert all(math.isnan(value) for name, value in vars(never).items() if name != "bars")


def test_a_market_that_stands_still_has_no_ratio_and_no_warning():
    still = regime_statistics(bars_of(np.zeros(30)), np.zeros(30, int), 1, horizon=5)[0]
    assert (still.bars, still.annual_return, still.annual_volatility, still.efficiency) == (29, 0, 0, 0)
    assert math.isnan(still.autocorrelation)
    assert math.isnan(still.variance_ratio)


def naive_figures(bars, label, regime, horizon):
    """The definitions, one label after the other."""
    close, time = np.log(bars.column("close")), bars.time
    step = [close[t + 1] - close[t] for t in range(len(bars) - 1)]

    def ahead(size):
        return [
            step[t : t + size]
            for t in range(len(bars))
            if label[t] == regime and t + size < len(bars) and time[t + size] - time[t] == size * HOUR
        ]

    one, two, many = ahead(1), ahead(2), ahead(horizon)
    single = [r for window in many for r in window]
    made = [math.fsum(window) for window in many]
    spread = sum((r - np.mean(single)) ** 2 for r in single) if single else 0.0
    return RegimeStatistics(
        bars=len(one),
        annual_return=np.mean(one) * YEAR if one else math.nan,
        annual_volatility=np.std(one, ddof=1) * math.sqrt(YEAR) if len(one) > 1 else math.nan,
        autocorrelation=np.corrcoef(np.transpose(two))[0, 1] if len(two) > 1 else math.nan,
        variance_ratio=sum((s - np.mean(made)) ** 2 for s in made) / spread if len(made) > 1 else math.nan,
        efficiency=np.mean([abs(math.fsum(w)) / sum(map(abs, w)) for w in many]) if many else math.nan,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_figures_are_those_of_the_slow_twin_gaps_and_undecided_rows_included(seed, horizon):
    bars, label = random_market(seed)
    for regime, found in enumerate(regime_statistics(bars, label, 3, horizon)):
        wanted = naive_figures(bars, label, regime, horizon)
        assert vars(found) == pytest.approx(vars(wanted), rel=1e-9, abs=1e-12, nan_ok=True)


def test_no_figure_knows_a_bar_that_its_label_had_seen():
    bars, _ = random_market(3, 40)
    label = np.full(40, -1)
    label[20:25] = 0

    def figures(shifted_from, shifted_to):
        values = bars.values.copy()
        values[shifted_from:shifted_to, :4] *= np.linspace(1.1, 1.5, shifted_to - shifted_from)[:, None]
        other = Bars(bars.time, values, bars.names, bars.symbol, bars.interval_ns)
        return regime_statistics(other, label, 1, horizon=4)[0]

    assert figures(0, 20) == figures(0, 0)
    assert figures(22, 23) != figures(0, 0)  # control: bars after a label count


def test_a_random_walk_has_a_variance_ratio_of_one_and_a_trend_a_higher_one():
    steps = np.random.default_rng(0).normal(0, 0.01, 40_000)
    walk, trend = steps, steps + 0.5 * np.concatenate([[0], steps[:-1]])
    found = [regime_statistics(bars_of(np.cumsum(x)), np.zeros(x.size, int), 1, 12)[0] for x in (walk, trend)]
    assert found[0].variance_ratio == pytest.approx(1.0, abs=0.05)
    assert found[0].autocorrelation == pytest.approx(0.0, abs=0.02)
    assert found[1].variance_ratio > 1.6
    assert found[1].autocorrelation == pytest.approx(0.5 / 1.25, abs=0.02)


# Stays, and labels of later


def test_stays_by_hand():
    stays = dwells(np.array([-1, 0, 0, 1, 0, 0, 0, 1]), 3)
    assert [one.tolist() for one in stays] == [[2, 3], [1, 1], []]


@given(st.lists(st.integers(-1, 2), max_size=60))
def test_stays_add_up_to_the_decided_rows_and_have_the_mean_of_the_path(labels):
    label = np.array(labels, dtype=np.int8)
    stays = dwells(label, 3)
    assert [int(one.sum()) for one in stays] == [labels.count(regime) for regime in range(3)]
    path = RegimePath(np.arange(label.size), label, np.ones(label.size), REGIME_NAMES)
    mean = [one.mean() if one.size else math.nan for one in stays]
    np.testing.assert_array_equal(mean, path.mean_dwell())


def test_the_label_of_later_is_unknown_at_the_end():
    assert later(np.array([0, 1, 2, 1]), 2).tolist() == [2, 1, -1, -1]
    assert later(np.array([0, 1]), 5).tolist() == [-1, -1]


# Calibration


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.75, 0.25], [0.4, 0.6], [np.nan, np.nan], [0.5, 0.5]])
    found = calibration(probabilities, np.array([0, 0, 0, 1, 0, -1]), np.array([0, 1, 0, -1, 0, 0]), 2)
    # Left out: a row whose truth is not known, one without probabilities, one without a label.
    assert found.rows.tolist() == [0, 3]
    assert found.confidence[1] == pytest.approx((0.9 + 0.7 + 0.75) / 3)
    assert found.hit_rate[1] == pytest.approx(2 / 3)
    assert found.error == pytest.approx(abs((0.9 + 0.7 + 0.75) / 3 - 2 / 3))
    assert found.brier == pytest.approx((2 * 0.1**2 + 2 * 0.7**2 + 2 * 0.25**2) / 3)
    assert math.isnan(found.confidence[0])
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["hit_rate"][0] is None


def test_certain_labels_fall_into_the_last_bin():
    found = calibration(np.array([[1.0, 0.0]]), np.array([0]), np.array([1]), 10)
    assert (found.rows[-1], found.error, found.brier) == (1, 1.0, 2.0)


def test_nothing_to_judge_by_is_not_defined():
    found = calibration(np.full((3, 2), 0.5), np.zeros(3, int), np.full(3, -1), 4)
    assert found.rows.sum() == 0
    assert math.isnan(found.error)
    assert math.isnan(found.brier)


def test_honest_probabilities_are_calibrated_and_louder_ones_are_not():
    random = np.random.default_rng(5)
    honest = random.dirichlet([1.0, 1.0, 1.0], 20_000)
    right = (random.random(20_000)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    loud = honest**3 / (honest**3).sum(axis=1, keepdims=True)
    first, second = (calibration(p, p.argmax(axis=1), right, 10) for p in (honest, loud))
    assert first.error < 0.02
    assert second.error > 0.1
    assert first.brier < second.brier
    np.testing.assert_allclose(first.hit_rate[4:], first.confidence[4:], atol=0.03)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_calibration_is_that_of_the_slow_twin(seed, n_bins):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([1.0, 1.0, 1.0], 50)
    label, right = random.integers(-1, 3, (2, 50))
    found = calibration(probabilities, label, right, n_bins)
    bins = [[] for _ in range(n_bins)]
    brier = []
    for p, said, true in zip(probabilities, label, right, strict=True):
        if said >= 0 and true >= 0:
            bins[min(int(p[said] * n_bins), n_bins - 1)].append((p[said], said == true))
            brier.append(sum((p[j] - (j == true)) ** 2 for j in range(3)))
    assert found.rows.tolist() == [len(one) for one in bins]
    gaps = [abs(sum(c for c, _ in one) - sum(h for _, h in one)) for one in bins]
    assert found.error == pytest.approx(sum(gaps) / len(brier))
    assert found.brier == pytest.approx(np.mean(brier))


# p-values


def written_out(blocks):
    """The rows of every path."""
    rows = [[] for _ in range(blocks.n_paths)]
    for start, length, path in zip(blocks.start, blocks.length, blocks.path, strict=True):
        rows[path] += [(start + i) % blocks.n for i in range(length)]
    return np.array(rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 50), st.floats(1, 80))
def test_every_path_is_as_long_as_the_data(seed, n, mean_block):
    rows = written_out(stationary_blocks(n, mean_block, 7, np.random.default_rng(seed)))
    assert rows.shape == (7, n)
    assert ((rows >= 0) & (rows < n)).all()


def test_blocks_have_their_mean_length_and_every_row_is_as_likely():
    blocks = stationary_blocks(200, 10.0, 4_000, np.random.default_rng(1))
    rows = written_out(blocks)
    goes_on = (np.diff(rows, axis=1) % 200 == 1).mean()
    assert goes_on == pytest.approx(0.9 + 0.1 / 200, abs=0.002)
    drawn = np.bincount(rows[:, 100], minlength=200)
    assert drawn.std() < 1.25 * math.sqrt(4_000 / 200)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1, 30))
def test_a_p_value_is_that_of_paths_written_out(seed, mean_block):
    random = np.random.default_rng(seed)
    value, label = random.normal(0, 1, 40), random.integers(-1, 3, 40)
    value[random.integers(0, 40, 3)] = np.nan
    blocks = stationary_blocks(40, mean_block, 50, random)
    below = 0
    for rows in written_out(blocks):
        high, low = (value[rows][(label[rows] == one) & ~np.isnan(value[rows])] for one in (2, 0))
        below += not (high.size and low.size and high.mean() > low.mean())
    assert order_p_value(value, label, 2, 0, blocks) == pytest.approx((below + 1) / 51)


def test_a_regime_that_never_occurs_has_no_p_value():
    blocks = stationary_blocks(10, 2.0, 99, np.random.default_rng(0))
    assert math.isnan(order_p_value(np.arange(10.0), np.zeros(10, int), 1, 0, blocks))


def test_a_level_far_from_zero_does_not_drown_the_difference():
    label = np.tile([0, 1], 100)
    blocks = stationary_blocks(200, 5.0, 199, np.random.default_rng(0))
    assert order_p_value(1e9 + 1e-3 * label, label, 1, 0, blocks) == pytest.approx(1 / 200)
    assert order_p_value(1e9 + 1e-3 * label, label, 0, 1, blocks) == 1.0


def rejected(mean_block, n_series=100, n=400):
    # Series that know nothing of the labels; both persist for long. Share of them with p below 5 %.
    count = 0
    for seed in range(n_series):
        random = np.random.default_rng(seed)
        value = lfilter([1.0], [1.0, -0.95], random.normal(0, 1, n))
        label = np.repeat(random.integers(0, 2, n // 20), 20)
        blocks = stationary_blocks(n, mean_block, 99, random)
        count += order_p_value(value, label, 1, 0, blocks) < 0.05
    return count / n_series


def test_blocks_keep_a_persistent_statistic_from_looking_like_a_difference():
    assert rejected(60.0) < 0.16
    assert rejected(1.0) > 0.25  # control: rows drawn alone, as if they did not depend on each other


def test_the_blocks_of_a_seed_are_the_same():
    one, other = (stationary_blocks(50, 5.0, 20, np.random.default_rng(3)) for _ in range(2))
    assert isinstance(one, Blocks)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_plain_objects_hold_no_array_and_nothing_infinite():
    value = {"a": np.array([1.0, np.nan]), "b": (np.float64(np.inf), np.int8(3)), "c": "text", "d": None}
    assert plain(value) == {"a": [1.0, None], "b": [None, 3], "c": "text", "d": None}

"""Statistics of a race against published figures, other libraries, and races whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from conductor import race_statistics as statistics
from conductor.race_statistics import Clusters, Estimate

# Demsar (2006), table 6: AUC of C4.5 and of three ways to tune it, on 14 data sets. The paper ranks unrounded
# figures: two that it prints as 0.975 are no tie there.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
).T


def clusters(n, size=1, **options):
    return Clusters(np.repeat(np.arange(n), size), **options)


# Ranks.


def test_ranks_and_critical_difference_are_those_of_the_published_example():
    found = statistics.ranking(-DEMSAR)  # lower is better here
    assert found.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.n_blocks == 14


def test_the_tests_are_those_of_the_published_example_but_for_its_ties():
    found = statistics.ranking(-DEMSAR)
    # The paper does not correct for ties; undone, the correction leaves its figures.
    spread = ((statistics.ranks(-DEMSAR) - 2.5) ** 2).sum() / (14 * 3)
    plain = found.chi_square * spread / (4 * 5 / 12)
    assert plain == pytest.approx(9.28, abs=0.005)
    assert 13 * plain / (14 * 3 - plain) == pytest.approx(3.69, abs=0.005)
    assert found.f > 3.69
    assert found.p < 0.02


@pytest.mark.parametrize(
    ("k", "q"),
    list(enumerate((1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164), 2)),
)
def test_critical_values_are_those_of_the_published_table(k, q):
    n = 30
    assert statistics.nemenyi_difference(k, n) == pytest.approx(
        q * math.sqrt(k * (k + 1) / (6 * n)), rel=3e-4
    )


def test_friedmans_test_is_scipys_ties_included():
    values = np.random.default_rng(1).integers(0, 4, (5, 12)).astype(float)
    found = statistics.ranking(values)
    theirs = stats.friedmanchisquare(*values)
    assert found.chi_square == pytest.approx(theirs.statistic)
    assert found.p_chi_square == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("values", [np.ones((4, 6)), np.ones((2, 6)), np.ones((4, 1)), np.ones((1, 3))])
def test_a_test_without_enough_to_test_is_no_number(values):
    found = statistics.ranking(values)
    assert math.isnan(found.p)
    assert math.isnan(found.p_chi_square)
    assert np.all(found.mean_ranks == (len(values) + 1) / 2)


def test_the_same_order_on_all_blocks_is_the_surest_difference():
    found = statistics.ranking(np.arange(4.0)[:, None] + np.zeros((4, 6)))
    assert found.f == math.inf
    assert found.p == 0.0


# Pairs.


def test_signed_ranks_of_the_published_example_reject_equality():
    differences = DEMSAR[0] - DEMSAR[1]  # R- = 12 with 14 data sets, where 21 is the critical value
    magnitude = stats.rankdata(np.round(np.abs(differences), 6))
    zeros = magnitude[np.round(differences, 6) == 0.0].sum() / 2.0
    assert magnitude[np.round(differences, 6) > 0.0].sum() + zeros == pytest.approx(12.0)
    assert statistics.signed_rank(differences) < 0.05


def test_signed_ranks_without_a_difference_reject_nothing():
    assert statistics.signed_rank(np.zeros(9)) == 1.0
    assert statistics.signed_rank(np.full(9, 1e-15)) == 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_holm_is_that_of_statsmodels(n):
    p_values = np.random.default_rng(n).uniform(0.0, 0.1, n).round(2)  # rounded: ties
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_a_test_that_could_not_be_made_is_none_of_the_tests():
    assert statistics.holm([0.02, math.nan, 0.01]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)


@pytest.mark.parametrize(("won", "n"), [(0, 5), (13, 20), (20, 20)])
def test_shares_have_wilsons_interval(won, n):
    theirs = stats.binomtest(won, n).proportion_ci(0.95, "wilson")
    assert statistics.share(won, n) == pytest.approx((won / n, theirs.low, theirs.high), abs=1e-12)


def test_superiority_is_the_mann_whitney_statistic_of_each_cluster():
    rng = np.random.default_rng(2)
    values, reference = np.round(rng.normal(size=(2, 40)), 1)  # rounded: ties
    found = statistics.superiority(values, reference, clusters(4, 10))
    each = [
        stats.mannwhitneyu(reference[part], values[part]).statistic / 100
        for part in np.split(np.arange(40), 4)
    ]
    assert found.value == pytest.approx(np.mean(each))


def test_superiority_is_between_none_and_all():
    low, high = np.zeros(6), np.ones(6)
    assert statistics.superiority(low, high, clusters(3, 2)) == Estimate(1.0, 1.0, 1.0)
    assert statistics.superiority(high, low, clusters(3, 2)) == Estimate(0.0, 0.0, 0.0)
    assert statistics.superiority(low, low, clusters(3, 2)) == Estimate(0.5, 0.5, 0.5)


def test_the_middle_half_is_the_trimmed_mean_and_outliers_do_not_move_it():
    differences = np.random.default_rng(3).normal(size=24)
    groups = clusters(6, 4)
    found = statistics.interquartile_mean(differences, groups)
    assert found.value == pytest.approx(stats.trim_mean(differences, 0.25))
    assert found.low < found.value < found.high
    differences[np.argmax(differences)] = 1e6
    assert statistics.interquartile_mean(differences, groups).value == pytest.approx(found.value)
    assert groups.estimate(differences).value > 1e3  # which the mean does not survive


def test_a_half_gain_is_half_kept_and_a_share_of_nothing_is_nothing():
    whole = np.random.default_rng(4).normal(-1.0, 0.3, 20)
    groups = clusters(20)
    assert statistics.kept_share(0.5 * whole, whole, groups) == pytest.approx((0.5, 0.5, 0.5))
    kept = statistics.kept_share(whole, whole - whole.mean(), groups)
    assert all(math.isnan(x) for x in kept)


# Intervals.


def covered(groups, n_clusters, size, rounds=400):
    """The share of intervals that hold the truth, 0, where runs of a cluster share half of their variance."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(rounds):
        values = np.repeat(rng.normal(size=n_clusters), size) + rng.normal(size=n_clusters * size)
        held += not groups.estimate(values).excludes(0.0)
    return held / rounds


def test_an_interval_over_clusters_holds_the_truth_as_often_as_it_says():
    assert 0.92 <= covered(clusters(12, 8, n_resamples=1000), 12, 8) <= 0.98


def test_an_interval_over_runs_would_not():
    assert covered(clusters(96, 1, n_resamples=1000), 12, 8) < 0.7


def test_percentiles_that_are_not_widened_would_not_either(monkeypatch):
    groups = clusters(10, n_resamples=1000)
    assert 0.935 <= covered(groups, 10, 1, rounds=2000) <= 0.965
    monkeypatch.setattr(statistics, "expanded_levels", lambda n: (0.025, 0.975))
    assert covered(groups, 10, 1, rounds=2000) < 0.92


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_clusters_get_an_interval_that_percentiles_cannot_give(n, monkeypatch):
    assert 0.935 <= covered(clusters(n, n_resamples=1000), n, 1, rounds=2000) <= 0.965
    monkeypatch.setattr(statistics, "FEW", 2)
    assert covered(clusters(n, n_resamples=1000), n, 1, rounds=2000) < 0.93


def test_three_clusters_that_all_agree_are_not_yet_proof():
    values = np.array([-0.02, -0.3, -0.2])
    assert not clusters(3).estimate(values).excludes(0.0)
    assert clusters(3).estimate(np.array([-0.29, -0.3, -0.31])).excludes(0.0)


def test_the_interval_of_a_mean_is_about_as_wide_as_students():
    values = np.random.default_rng(6).normal(size=15)
    found = clusters(15).estimate(values)
    low, high = stats.t.interval(0.95, 14, values.mean(), stats.sem(values))
    assert found.high - found.low == pytest.approx(high - low, rel=0.06)


def test_clusters_count_the_same_however_many_runs_they_have():
    groups = Clusters(np.array([0, 1, 1, 1, 1, 1]))
    assert groups.estimate([6.0, 0.0, 0.0, 0.0, 0.0, 0.0]).value == 3.0


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(-5.0, 5.0))
def test_an_interval_moves_with_the_data_and_does_not_know_their_order(seed, shift):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(6), rng.integers(0, 6, 20)])
    values = rng.normal(size=26)
    found = Clusters(codes, 500).estimate(values)
    order = rng.permutation(26)
    assert Clusters(codes[order], 500).estimate(values[order]) == pytest.approx(found)
    moved = Clusters(codes, 500).estimate(values + shift)
    assert moved == pytest.approx([x + shift for x in found])
    assert found.low <= found.value <= found.high


def test_one_cluster_has_no_interval_and_decides_nothing():
    found = clusters(1, 9).estimate(np.full(9, -3.0))
    assert found.value == -3.0
    assert math.isnan(found.low)
    assert not found.excludes(0.0)


def test_numbers_of_clusters_have_no_gaps():
    with pytest.raises(ValueError, match="without gaps"):
        Clusters(np.array([0, 2]))


# Targets.


def test_expected_running_time_counts_what_failures_have_spent():
    hits, spent = np.array([100.0, np.nan, 300.0]), np.array([500.0, 500.0, 500.0])
    assert statistics.expected_running_time(hits, spent) == (100 + 500 + 300) / 2
    assert statistics.expected_running_time(np.array([np.nan]), np.array([9.0])) == math.inf


def falling(rng, n, speed=1.0):
    """Error curves that fall linearly over 100 evaluations, and their grid."""
    at = np.tile(np.arange(1.0, 101.0), (n, 1))
    return rng.normal(0.0, 0.3, (n, 1)) - np.minimum(speed * at, 100.0) / 20.0, at


def saved(fast, slow, at, groups, owners):
    spent = np.full(len(at), 100.0)
    return statistics.saving((fast, slow), (at, at), (spent, spent), groups, owners)


def test_who_is_twice_as_fast_needs_half_of_the_evaluations():
    rng = np.random.default_rng(7)
    level = np.repeat(rng.normal(size=20), 20)[:, None]  # the same for all runs of a group: no luck
    _, at = falling(rng, 400)
    fast, slow = level - np.minimum(2 * at, 100.0), level - at
    found = saved(fast, slow, at, np.repeat(np.arange(20), 20), clusters(10, 40))
    assert found.ratio == pytest.approx((0.5, 0.5, 0.5))
    assert (found.unreached, found.groups) == (0, 20)


def test_equal_contestants_need_the_same_and_oneself_exactly_the_same():
    rng = np.random.default_rng(8)
    (one, at), (other, _) = falling(rng, 600), falling(rng, 600)
    groups, owners = np.repeat(np.arange(20), 30), clusters(20, 30)
    assert not saved(one, other, at, groups, owners).ratio.excludes(1.0)
    assert saved(one, one, at, groups, owners).ratio == Estimate(1.0, 1.0, 1.0)


def test_who_never_gets_there_is_charged_for_it_and_counted():
    rng = np.random.default_rng(9)
    good, at = falling(rng, 40)
    found = saved(good + 10.0, good, at, np.repeat(np.arange(4), 10), clusters(4, 10))
    assert found.unreached == found.groups == 4
    assert found.ratio.low > 5.0


def test_a_target_is_reached_when_the_curve_touches_it():
    curves, at = np.array([[3.0, 2.0, 1.0], [3.0, 3.0, 3.0]]), np.array([[10.0, 20.0, 30.0]] * 2)
    assert statistics.first_reached(curves, at, 2.0).tolist()[0] == 20.0
    assert np.isnan(statistics.first_reached(curves, at, 2.0)[1])


def test_the_share_of_targets_grows_to_the_share_that_was_reached():
    hits = np.array([[10.0, 50.0, np.nan], [100.0, np.nan, np.nan]])
    shares = statistics.reached_share(hits, np.array([100.0, 100.0]), np.array([0.05, 0.1, 0.5, 1.0]))
    assert shares == pytest.approx([0.0, 1 / 6, 2 / 6, 3 / 6])


def test_targets_are_those_of_published_comparisons():
    assert len(statistics.TARGETS) == 51
    assert statistics.TARGETS[[0, -1]] == pytest.approx([1e2, 1e-8])
    assert np.diff(np.log10(statistics.TARGETS)) == pytest.approx(-0.2)


def test_the_profile_counts_who_is_how_far_behind_the_best():
    final = np.array([[0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    found = statistics.behind_best(final, np.array([0.0, 1.0, 2.0, 5.0]))
    assert found.tolist() == [[0.5, 0.75, 1.0, 1.0], [0.75, 0.75, 0.75, 1.0]]

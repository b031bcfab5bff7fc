import math
from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute.seeds import stream
from experiments.evidence import (
    TrackRecord,
    deflated_sharpe,
    effective_trials,
    expected_max_sharpe,
    min_track_record_length,
    pbo,
    pbo_of_blocks,
    pbo_range,
    probabilistic_sharpe,
)
from tests.reference import evidence as naive

DAYS = 250  # per year, in the papers' examples


# --- worked examples of the papers ------------------------------------------------------------------


def test_deflated_sharpe_of_the_2014_paper():
    # Annual Sharpe 2.5 over five years of 250 days, skewness -3, kurtosis 10; the best of N trials whose
    # annual Sharpe ratios have variance 1/2.
    chosen = TrackRecord(2.5 / math.sqrt(DAYS), 1250, skewness=-3, kurtosis=10)
    variance = 0.5 / DAYS
    assert expected_max_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(chosen, 100, variance) == pytest.approx(0.9004, abs=5e-5)
    # The paper goes on: after 46 trials it would have passed, and with normal returns after 88.
    assert deflated_sharpe(chosen, 46, variance) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(TrackRecord(chosen.sharpe, 1250), 88, variance) == pytest.approx(0.9505, abs=5e-5)


def test_mistakes_with_the_2014_example_are_seen():
    variance = 0.5 / DAYS
    for wrong in (
        deflated_sharpe(TrackRecord(2.5 / math.sqrt(DAYS), 1250), 100, variance),  # shape forgotten
        deflated_sharpe(TrackRecord(2.5 / math.sqrt(DAYS), 1250, -3, 10), 100, 0.5),  # annual variance
        deflated_sharpe(TrackRecord(2.5, 1250, -3, 10), 100, variance),  # annual Sharpe ratio
        deflated_sharpe(TrackRecord(2.5 / math.sqrt(DAYS), 1250, -3, 13), 100, variance),  # 3 added twice
    ):
        assert abs(wrong - 0.9004) > 1e-3


def test_an_excess_kurtosis_is_refused():
    with pytest.raises(
        ValueError, match=r"kurtosis is 7 with skewness -3; it is at least skewness\*\*2 \+ 1 = 10"
    ):
        TrackRecord(0.1, 1250, skewness=-3, kurtosis=7)
    with pytest.raises(ValueError, match="kurtosis is 0 "):
        TrackRecord(0.1, 1250, kurtosis=0)


def test_probabilistic_sharpe_of_the_2012_paper():
    # The hedge fund of the numerical example: 24 months, monthly Sharpe 0.458 (1.585 a year),
    # skewness -2.448, kurtosis 10.164. Normal returns would pass at 0.982; these do after three years.
    fund = TrackRecord(0.458, 24, skewness=-2.448, kurtosis=10.164)
    assert probabilistic_sharpe(fund) == pytest.approx(0.913, abs=5e-4)
    assert probabilistic_sharpe(TrackRecord(0.458, 24)) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe(TrackRecord(0.458, 36, -2.448, 10.164)) == pytest.approx(0.953, abs=6e-4)


@pytest.mark.parametrize(
    ("per_year", "skewness", "kurtosis", "years"),
    [(250, 0, 3, 2.73), (52, 0, 3, 2.83), (12, 0, 3, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_minimum_track_records_of_the_2012_paper(per_year, skewness, kurtosis, years):
    # An annual Sharpe ratio of 2, trusted at 95 % to lie above 1: daily, weekly, monthly; like hedge funds.
    root = math.sqrt(per_year)
    record = TrackRecord(2 / root, 100, skewness, kurtosis)
    assert min_track_record_length(record, 1 / root) / per_year == pytest.approx(years, abs=5e-3)


# --- laws ---------------------------------------------------------------------------------------------


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-2, 2), st.floats(0, 20), st.integers(3, 5000))
@settings(max_examples=200, deadline=None)
def test_psr_equals_its_twin_and_mintrl_inverts_it(sharpe, benchmark, skewness, above, n):
    kurtosis = skewness**2 + 1.5 + above
    record = TrackRecord(sharpe, n, skewness, kurtosis)
    found = probabilistic_sharpe(record, benchmark)
    assert found == pytest.approx(
        naive.probabilistic_sharpe(sharpe, n, skewness, kurtosis, benchmark), abs=1e-12
    )
    if sharpe - benchmark > 1e-3 and 0.5 < found < 0.999999:
        assert min_track_record_length(record, benchmark, found) == pytest.approx(n, rel=1e-5)


@given(st.integers(2, 10**7), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_expected_maximum_equals_its_twin(n_trials, variance):
    expected = naive.expected_max_sharpe(n_trials, variance)
    assert expected_max_sharpe(n_trials, variance) == pytest.approx(expected, rel=1e-6)


def test_expected_maximum_of_simulated_searches():
    best = stream(1, "searches").normal(size=(4000, 100)).max(axis=1)
    error = best.std() / math.sqrt(best.size)
    assert expected_max_sharpe(100, 1.0) == pytest.approx(best.mean(), abs=4 * error + 0.02)
    assert abs(expected_max_sharpe(50, 1.0) - best.mean()) > 0.1  # half the trials forgotten


def test_one_trial_needs_no_deflation_and_more_trials_deflate_more():
    record = TrackRecord(0.05, 2000)
    assert deflated_sharpe(record, 1, nan) == probabilistic_sharpe(record)
    values = [deflated_sharpe(record, n, 1 / 2000) for n in (1, 1.1, 1.5, 2, 10, 1000, 10**9, 10**15)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


def test_what_is_not_defined_is_nan_and_never_passes():
    flat = TrackRecord.of(np.full(100, 0.1))
    assert math.isnan(flat.sharpe)
    assert math.isnan(probabilistic_sharpe(flat))
    assert math.isnan(min_track_record_length(flat))
    assert math.isnan(deflated_sharpe(TrackRecord(0.1, 100), 2, nan))
    assert math.isnan(probabilistic_sharpe(TrackRecord(0.1, 2)))
    assert min_track_record_length(TrackRecord(0.1, 100), 0.1) == math.inf


@pytest.mark.parametrize("scale", [1.0, 1e-200])
def test_the_record_of_returns_equals_its_twin(scale):
    returns = stream(2, "returns").standard_t(4, 300) * scale
    record = TrackRecord.of(returns, serial=True)
    expected = naive.moments((returns / scale).tolist())
    found = (record.sharpe, record.skewness, record.kurtosis, record.autocorrelation)
    assert found == pytest.approx(expected, rel=1e-9)
    assert record.n_bars == 300
    assert TrackRecord.of(returns).autocorrelation == 0.0


@pytest.mark.parametrize("true_sharpe", [0.1, 1.0])
def test_autocorrelation_widens_the_error_as_simulation_says(true_sharpe):
    # Skewed AR(1) returns with a known Sharpe ratio: the spread of 3000 estimates beside the formula.
    random, rho, n = stream(3, "ar1"), 0.3, 1000
    noise = random.gamma(2.0, size=(3000, n + 100)) - 2.0
    returns = np.empty_like(noise)
    returns[:, 0] = noise[:, 0]
    for t in range(1, noise.shape[1]):
        returns[:, t] = rho * returns[:, t - 1] + noise[:, t]
    returns = returns[:, 100:] + true_sharpe * math.sqrt(2 / (1 - rho**2))
    estimates = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    skewness = 2 / math.sqrt(2) * (1 - rho**2) ** 1.5 / (1 - rho**3)
    kurtosis = 3 + 3 * (1 - rho**2) / (1 + rho**2)  # excess 6 / 2 of the gamma, damped by the AR(1)

    def error(autocorrelation):
        record = TrackRecord(true_sharpe, n, skewness, kurtosis, autocorrelation)
        step = 0.01  # a benchmark near by: the probability is then far from 0 and 1
        return step / naive.QUANTILE(probabilistic_sharpe(record, true_sharpe - step))

    assert error(rho) == pytest.approx(estimates.std(), rel=0.05)
    assert error(0.0) < 0.9 * estimates.std()  # the convention for independent bars would be too sure


def test_bad_inputs_are_refused():
    with pytest.raises(ValueError, match="bar 1"):
        TrackRecord.of(np.array([0.1, nan]))
    with pytest.raises(ValueError, match="bar 1 of trial 0"):
        pbo(np.array([[0.1, 0.2], [nan, 0.1]] * 20), 4)
    with pytest.raises(ValueError, match="n_trials is 0"):
        expected_max_sharpe(0, 1.0)
    with pytest.raises(ValueError, match="variance is -1"):
        expected_max_sharpe(2, -1.0)
    with pytest.raises(ValueError, match="n_blocks is 5"):
        pbo(np.zeros((100, 3)), 5)
    with pytest.raises(ValueError, match="need 2 trials and at least 32 rows"):
        pbo(np.zeros((31, 3)), 16)


# --- effective trials ---------------------------------------------------------------------------------


def test_effective_trials_of_clones_clusters_and_strangers():
    random = stream(4, "trials")
    strangers = random.normal(size=(5000, 10))
    assert effective_trials(strangers) == pytest.approx(10, abs=0.2)
    assert effective_trials(strangers, "spectrum") == pytest.approx(10, abs=0.2)
    clones = np.repeat(strangers[:, :1], 10, axis=1)
    assert effective_trials(clones) == pytest.approx(1)
    assert effective_trials(clones, "spectrum") == pytest.approx(1)
    clusters = np.repeat(strangers[:, :2], 5, axis=1)  # two ideas, five copies each
    assert effective_trials(clusters, "spectrum") == pytest.approx(2, abs=0.1)
    assert effective_trials(clusters) > 5  # the careful one
    never_traded = np.column_stack([strangers, np.zeros((5000, 4)), np.full((5000, 2), 0.1)])
    assert effective_trials(never_traded) == pytest.approx(effective_trials(strangers))
    assert effective_trials(np.zeros((50, 4))) == 0.0


@given(st.integers(3, 12), st.integers(2, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_effective_trials_equal_their_twins(n, m, seed):
    random = np.random.default_rng(seed)
    returns = random.normal(size=(n, m)) + random.normal(size=(n, 1))
    columns = [column.tolist() for column in returns.T]
    assert effective_trials(returns) == pytest.approx(naive.average_correlation_trials(columns), rel=1e-9)
    assert effective_trials(returns, "spectrum") == pytest.approx(naive.spectrum_trials(columns), rel=1e-9)


# --- overfitting --------------------------------------------------------------------------------------


@given(
    st.integers(8, 30), st.integers(3, 6), st.sampled_from([2, 4]), st.booleans(), st.integers(0, 2**32 - 1)
)
@settings(max_examples=80, deadline=None)
def test_pbo_equals_its_twin(n, m, n_blocks, with_ties, seed):
    random = np.random.default_rng(seed)
    returns = random.normal(size=(n, m))
    if with_ties:  # equal trials, and trials that do not trade in the first half or at all
        returns[: n // 2] *= random.random(m) < 0.5
        returns[:, 1] *= random.random() < 0.5
        returns[:, -1] = returns[:, 0]
    found = pbo(returns, n_blocks)
    expected = naive.cscv([column.tolist() for column in returns.T], n_blocks)
    ranks, inside, outside = (np.array(values) for values in zip(*expected, strict=True))
    assert sorted(1 / (1 + np.exp(-found.logits))) == pytest.approx(sorted(ranks), abs=1e-9)
    assert found.pbo == pytest.approx(np.mean(ranks <= 0.5))
    assert found.loss == pytest.approx(np.mean(outside < 0))
    assert found.n_splits == len(expected) == found.logits.size
    if np.ptp(inside) > 1e-6:
        assert found.slope == pytest.approx(np.polyfit(inside, outside, 1)[0], rel=1e-6, abs=1e-9)


def block_sums(returns, n_blocks):
    blocks = np.array_split(returns, n_blocks)
    rows = np.array([len(block) for block in blocks])
    return rows, np.array([b.sum(axis=0) for b in blocks]), np.array([(b**2).sum(axis=0) for b in blocks])


@given(st.integers(8, 40), st.integers(2, 6), st.sampled_from([2, 4, 6]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_pbo_of_blocks_equals_the_twin_on_the_returns(n, m, n_blocks, seed):
    n = max(n, 2 * n_blocks)
    returns = np.random.default_rng(seed).normal(size=(n, m))
    found = pbo_of_blocks(*block_sums(returns, n_blocks))
    expected = naive.cscv([column.tolist() for column in returns.T], n_blocks)
    ranks, _, outside = (np.array(values) for values in zip(*expected, strict=True))
    assert sorted(1 / (1 + np.exp(-found.logits))) == pytest.approx(sorted(ranks), abs=1e-9)
    assert found.loss == pytest.approx(np.mean(outside < 0), abs=1e-9)
    whole = pbo(returns, n_blocks)
    assert (found.pbo, found.loss) == (whole.pbo, whole.loss)
    assert found.slope == pytest.approx(whole.slope, rel=1e-9)


def test_blocks_of_unequal_length_weigh_by_their_bars():
    returns = stream(21, "unequal").normal(0.1, 1, size=(103, 9))
    rows, sums, squares = block_sums(returns, 4)
    assert set(rows) == {25, 26}
    right = pbo_of_blocks(rows, sums, squares)
    wrong = pbo_of_blocks(rows[::-1].copy(), sums, squares)  # the negative control: counts of other blocks
    assert right.slope == pytest.approx(pbo(returns, 4).slope, rel=1e-9)
    assert wrong.slope != pytest.approx(right.slope, rel=1e-9)


def test_every_split_of_four_thousand_trials_is_judged():
    random = stream(22, "many")
    sums, squares = random.normal(size=(16, 4_096)), random.gamma(2_500, 1.0, size=(16, 4_096))
    found = pbo_of_blocks(np.full(16, 2_500), sums, squares)
    assert found.n_splits == 12_870
    assert found.pbo == pytest.approx(0.5, abs=0.2)
    assert abs(found.logits).max() < math.log(4_096.5)


def test_blocks_that_do_not_belong_together_are_refused():
    rows, sums, squares = block_sums(np.random.default_rng(0).normal(size=(40, 3)), 4)
    for wrong in (
        (rows[:3], sums[:3], squares[:3]),  # an odd number
        (rows, sums, squares[:, :2]),
        (rows, sums[:2], squares[:2]),
        (rows, sums[:, :1], squares[:, :1]),
        (np.array([10, 10, 10, 1]), sums, squares),
        (rows, np.full_like(sums, np.nan), squares),
    ):
        with pytest.raises(ValueError, match=r"must be|not finite"):
            pbo_of_blocks(*wrong)


def test_equal_trials_share_their_rank():
    # Ten clones of one trial: the winner stands in the middle of its equals, with a logit of exactly 0.
    # Ranking equals low or high would put it at -2.3 or 2.3.
    clones = np.repeat(stream(5, "clones").normal(size=(160, 1)), 10, axis=1)
    found = pbo(clones, 8)
    assert (found.logits == 0).all()
    assert found.pbo == 1.0  # "at or below the median"


def test_trials_that_won_in_one_bar_each_share_their_rank():
    # One profitable bar among k gives 1 / sqrt(k) whatever its size; rounding must not choose the winner.
    returns = np.zeros((40, 8))
    returns[np.arange(8) * 2 + 1, np.arange(8)] = returns[np.arange(8) * 2 + 21, np.arange(8)] = (
        np.arange(1, 9) / 7
    )
    found = pbo(returns, 2)
    assert (found.logits == 0).all()


def test_trials_that_never_trade_rank_as_zero():
    random = stream(6, "idle")
    losers = random.normal(-0.5, 1, size=(320, 3))
    found = pbo(np.column_stack([losers, np.zeros(320)]), 8)
    assert found.pbo == 0.0  # doing nothing wins in sample and out of sample
    assert found.loss == 0.0
    assert math.isnan(found.slope)


def test_an_overfit_family_is_caught_and_a_real_edge_is_not():
    # Each trial makes its profit in one block only, by construction: picking the best is worthless.
    blocks, rows = 8, 50
    overfit = stream(7, "overfit").normal(size=(blocks * rows, blocks))
    for trial in range(blocks):
        overfit[trial * rows : (trial + 1) * rows, trial] += 1.0
        overfit[:, trial] -= overfit[:, trial].mean()
    found = pbo(overfit, blocks)
    assert found.pbo > 0.9
    assert found.slope < 0
    # S4: a planted edge of 0.15 a bar in 20 of 200 trials.
    random = stream(8, "edge")
    for _ in range(4):
        returns = random.normal(size=(1000, 200))
        returns[:, :20] += 0.15
        sharpe = returns.mean(axis=0) / returns.std(axis=0)
        assert np.argmax(sharpe) < 20
        assert pbo(returns, 10).pbo < 0.02


def test_swapping_in_and_out_of_sample_would_be_seen():
    # CSCV is symmetric as a whole, so the planted swap must be looked for within one split: the winner's own
    # half beats the other one on noise.
    returns = stream(9, "swap").normal(size=(400, 40))
    found = naive.cscv([column.tolist() for column in returns[:60].T], 4)
    assert all(inside > outside for _, inside, outside in found)
    assert pbo(returns, 8).loss > 0.2  # in sample the winner of 40 never loses


def test_several_block_counts_give_a_range():
    returns = stream(10, "range").normal(size=(500, 30))
    low, high = pbo_range(returns, (4, 6, 8))
    single = [pbo(returns, blocks).pbo for blocks in (4, 6, 8)]
    assert (low, high) == (min(single), max(single))
    assert low < high  # PBO is itself noisy


def test_rows_that_do_not_divide_into_blocks_are_kept():
    returns = stream(11, "rows").normal(size=(103, 5))
    ours = pbo(returns, 10)
    assert ours.n_splits == 252
    moved = returns.copy()
    moved[-1] += 50.0  # the last row, which trimming to 100 would have thrown away
    assert not np.array_equal(ours.logits, pbo(moved, 10).logits)


# --- calibration on noise (S3) --------------------------------------------------------------------------


def test_searches_of_pure_noise_rarely_pass():
    n_searches, n_trials, n_bars = 200, 50, 500
    passed, naive_passed, found = 0, 0, []
    for search in range(n_searches):
        returns = stream(12, "null", search).standard_t(5, size=(n_bars, n_trials))
        sharpe = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
        best = TrackRecord.of(returns[:, np.argmax(sharpe)])
        passed += deflated_sharpe(best, n_trials, float(sharpe.var(ddof=1))) > 0.95
        naive_passed += (
            probabilistic_sharpe(best) > 0.95
        )  # the negative control: a search that counts no trials
        found.append(pbo(returns, 6).pbo)
    assert passed <= 0.095 * n_searches
    assert naive_passed > 0.8 * n_searches
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


# --- an independent oracle ------------------------------------------------------------------------------


def test_ffn_agrees():
    ffn = pytest.importorskip("ffn", reason="ffn (extra reports) is not installed")
    pandas = pytest.importorskip("pandas")
    returns = stream(13, "ffn").normal(0.02, 1, size=(240, 12))
    sharpe = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
    for n_trials in (2, 12, 5000):
        ours, theirs = expected_max_sharpe(n_trials, 0.04), ffn.core.calc_expected_max_sharpe(n_trials, 0.2)
        assert ours == pytest.approx(theirs, rel=1e-9)
    full = ffn.core.calc_prob_backtest_overfitting(pandas.DataFrame(returns), 6, full_output=True)
    ours = pbo(returns, 6)
    assert ours.pbo == full["pbo"]
    assert sorted(ours.logits) == pytest.approx(sorted(full["logits"]), rel=1e-12)
    best = int(np.argmax(sharpe))
    theirs = ffn.core.calc_deflated_sharpe_ratio(
        pandas.Series(returns[:, best]), sharpe, nperiods=1, annualized_trials=False
    )
    # ffn corrects the sample moments for bias, we do not: a difference of order 1 / n.
    assert deflated_sharpe(TrackRecord.of(returns[:, best]), 12, sharpe.var(ddof=1)) == pytest.approx(
        theirs, abs=1e-3
    )

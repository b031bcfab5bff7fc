"""SPA, StepM, the confidence set, paired intervals: against plain twins, chance, and planted edges."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.bootstrap import bootstrap_returns, stationary_rows
from compute.seeds import stream
from configs.load import ConfigError
from ensemble.comparisons import (
    FIGURES,
    confidence_set,
    grouped,
    intervals,
    long_run_deviation,
    superiority,
)
from market.table import DataError
from tests.reference import comparisons as naive

arch = pytest.importorskip("arch.bootstrap")

BENCHMARK = "hold"


def named(matrix):
    """The first column is the benchmark."""
    return {BENCHMARK if i == 0 else f"c{i}": column for i, column in enumerate(matrix.T)}


def world(seed, n=150, edges=(0.0, 0.1, 0.05, 0.0, -0.3), noise=(1.0, 1.0, 2.0, 1.0, 1.0), phi=0.3):
    """Autocorrelated returns with something in common, hundredths a bar."""
    rng = np.random.default_rng(seed)
    shocks = rng.normal(size=(n, len(edges))) + rng.normal(size=(n, 1))
    for t in range(1, n):
        shocks[t] += phi * shocks[t - 1]
    return 0.01 * (np.array(edges) + shocks * np.array(noise))


# --- S2: the plain twins ---------------------------------------------------------------------------------


def drawn(n, block, reps, *names):
    """The rows that arch draws for a test, so that the plain twin judges the same samples."""
    bootstrap = arch.StationaryBootstrap(block, np.arange(n), seed=stream(*names))
    return [data[0][0] for data in bootstrap.bootstrap(reps)]


def test_s2_the_p_of_spa_is_that_of_hansens_formulas_on_20_matrices():
    for seed in range(20):
        x = world(seed)
        found = superiority(BENCHMARK, named(x), seed=seed, reps=300, mean_block=4, equal_volatility=False)
        rows = drawn(len(x), 4, 300, seed, "evidence", "spa", BENCHMARK)
        expected, statistics, stars = naive.spa(x[:, 1:] - x[:, :1], rows, 4)
        assert (found.p_lower, found.p, found.p_upper) == pytest.approx(expected, abs=1.5 / 301)
        best = np.maximum(stars.max(axis=1), 0)
        for j, name in enumerate(found.p_of):
            # One candidate, corrected for all of them: how often the best of them would do as well.
            alone = float(np.mean(best > statistics[j])) if statistics[j] > 0 else 1.0
            assert found.p_of[name] == pytest.approx(alone, abs=2 / 301)


def test_s2_other_samples_give_the_same_p_within_their_error():
    for seed in range(3):
        x = world(seed)
        found = superiority(BENCHMARK, named(x), seed=seed, reps=2_500, mean_block=4, equal_volatility=False)
        rows = stationary_rows(len(x), 4, np.random.default_rng(seed + 100), 2_500)
        expected, _, _ = naive.spa(x[:, 1:] - x[:, :1], rows, 4)
        assert (found.p_lower, found.p, found.p_upper) == pytest.approx(expected, abs=0.03)


def test_a_test_that_forgets_to_studentize_is_seen():
    # One candidate is certain, another is wild: as raw means the wild one's luck drowns the certain one.
    rng = np.random.default_rng(2)
    n = 200
    x = 0.01 * np.column_stack([np.zeros(n), 0.4 + rng.normal(size=n), 30 * rng.normal(size=n)])
    assert superiority(BENCHMARK, named(x), seed=1, equal_volatility=False).p_of["c1"] < 0.01
    raw = arch.SPA(x[:, 0], -x[:, 1:], block_size=1, reps=500, seed=1)
    raw.compute()
    assert 1 not in raw.better_models(0.05)
    assert 0 not in raw.better_models(0.05)


def test_s2_stepm_finds_those_of_romano_and_wolf_on_20_matrices():
    sizes = set()
    for seed in range(20):
        x = world(seed, edges=(0, 0.5, 0.3, 0.15, 0.0), noise=(1,) * 5)
        found = superiority(BENCHMARK, named(x), seed=seed, reps=300, mean_block=4, equal_volatility=False)
        rows = drawn(len(x), 4, 300, seed, "evidence", "spa", BENCHMARK)
        _, statistics, stars = naive.spa(x[:, 1:] - x[:, :1], rows, 4)
        assert set(found.better) == {f"c{j + 1}" for j in naive.step_down(statistics, stars, 0.05)}
        sizes.add(len(found.better))
    assert len(sizes) > 2  # the matrices differ in what is found


def test_s2_the_confidence_set_is_that_of_the_plain_twin_on_20_matrices():
    for seed in range(20):
        x = world(seed, edges=(0.3, 0.25, 0.1, 0.0, -0.3))
        found = confidence_set(named(x), seed=seed, reps=300, mean_block=4, equal_volatility=False)
        expected = naive.confidence_set(-x, drawn(len(x), 4, 300, seed, "evidence", "mcs"))
        assert list(found.p_of.values()) == pytest.approx(expected, abs=1 / 300)
        wrong = naive.confidence_set(x, drawn(len(x), 4, 300, seed, "evidence", "mcs"))
        assert list(found.p_of.values()) != pytest.approx(wrong, abs=0.03)  # the sign of a loss


def test_the_long_run_deviation_is_that_of_the_library_and_of_the_plain_twin():
    x = world(3)
    for block in (1, 4, 30):
        test = arch.SPA(x[:, 0], -x[:, 1:], block_size=block, reps=2, seed=1)
        test.compute()
        ahead = x[:, :1] + x[:, 1:]
        ours = long_run_deviation(ahead, block)
        np.testing.assert_allclose(ours**2, test._loss_diff_var, rtol=1e-10)
        np.testing.assert_allclose(ours[0] ** 2, naive.long_run_variance(ahead[:, 0], block), rtol=1e-10)


# --- chance and power ------------------------------------------------------------------------------------


def null_rate(**settings):
    low = []
    for seed in range(150):
        x = world(1_000 + seed, n=120, edges=(0.0,) * 4, noise=(1.0,) * 4, phi=0.0)
        low.append(superiority(BENCHMARK, named(x), seed=seed, reps=150, **settings).p <= 0.1)
    return np.mean(low)


def test_spa_finds_skill_in_noise_as_rarely_as_it_says():
    # Exact 99.9 % band of 10 % in 150 worlds.
    assert 0.03 <= null_rate() <= 0.19


def test_without_the_correction_for_many_the_same_noise_would_pass():
    # The best of three alone, as if nobody had looked at the other two: the negative control.
    low = []
    for seed in range(150):
        x = world(1_000 + seed, n=120, edges=(0.0,) * 4, noise=(1.0,) * 4, phi=0.0)
        z = x / x.std(axis=0, ddof=1)
        best = 1 + int(np.argmax((z[:, 1:] - z[:, :1]).mean(axis=0)))
        low.append(superiority(BENCHMARK, named(x[:, [0, best]]), seed=seed, reps=150).p <= 0.1)
    assert np.mean(low) > 0.19


def test_a_planted_edge_is_found_and_belongs_to_the_one_that_has_it():
    x = world(7, n=1_500, edges=(0.0, 0.0, 0.2, 0.0, 0.0), noise=(1.0,) * 5, phi=0.0)
    found = superiority(BENCHMARK, named(x), seed=1)
    assert found.better == ("c2",)
    assert found.p == found.p_of["c2"] < 0.01
    assert min(found.p_of[name] for name in ("c1", "c3", "c4")) > 0.05
    assert confidence_set(named(x), seed=1).included == ("c2",)


def test_the_confidence_set_leaves_out_one_of_equals_as_rarely_as_it_says():
    def whole(names):
        kept = 0
        for seed in range(100):
            x = world(2_000 + seed, n=120, edges=(0.0,) * 4, noise=(1.0,) * 4, phi=0.0)
            kept += len(confidence_set(names(x), seed=seed, reps=150).included) == 4
        return kept / 100

    assert whole(named) >= 0.8  # 99.9 % band of 90 % and above
    # The same with one that is worse: the negative control.
    assert whole(lambda x: named(x - np.array([0, 0, 0, 0.004]))) < 0.5


def test_p_is_never_zero_and_is_one_where_nobody_leads():
    x = world(7, n=300, edges=(0.0, 3.0, 3.0), noise=(1.0,) * 3)
    assert superiority(BENCHMARK, named(x), seed=1, reps=100).p == 1 / 101
    behind = superiority(BENCHMARK, named(-x), seed=1, reps=100)
    assert (behind.p, behind.p_of, behind.better) == (1.0, {"c1": 1.0, "c2": 1.0}, ())


@pytest.mark.parametrize("seed", [3, 14, 17])
def test_all_candidates_may_be_better_one_step_after_another(seed):
    # On these matrices the step-down of arch alone runs out of candidates and fails.
    x = world(seed, n=400, edges=(0.0, 2.0, 0.25, 0.18), noise=(1.0,) * 4, phi=0.0)
    found = superiority(BENCHMARK, named(x), seed=1, reps=200, equal_volatility=False)
    assert found.better == ("c1", "c2", "c3")


# --- laws ------------------------------------------------------------------------------------------------


def test_leverage_is_no_skill():
    x = world(8)
    levered = x * np.array([1.0, 5.0, 0.2, 1.0, 3.0])
    ours, theirs = (superiority(BENCHMARK, named(one), seed=1, reps=200) for one in (x, levered))
    assert ours.p_of == pytest.approx(theirs.p_of)
    plain = [
        superiority(BENCHMARK, named(one), seed=1, reps=200, equal_volatility=False) for one in (x, levered)
    ]
    assert plain[0].p_of != pytest.approx(plain[1].p_of)


def test_who_equals_the_benchmark_is_not_better_and_twins_share_their_place():
    x = world(9, edges=(0.0, 0.0, 0.3, 0.3, 0.0))
    x[:, 1], x[:, 3] = x[:, 0], x[:, 2]
    found = superiority(BENCHMARK, named(x), seed=1, reps=200)
    assert found.p_of["c1"] == 1.0
    assert found.p_of["c2"] == found.p_of["c3"]
    chosen = confidence_set(named(x), seed=1, reps=200)
    assert chosen.p_of[BENCHMARK] == chosen.p_of["c1"]
    assert chosen.p_of["c2"] == chosen.p_of["c3"]
    everyone = confidence_set({"a": x[:, 0], "b": x[:, 0]}, seed=1, reps=200)
    assert everyone.p_of == {"a": 1.0, "b": 1.0}


def test_a_series_that_never_moves_is_compared_like_any_other():
    x = world(9)
    x[:, 1] = 0.0
    found = superiority(BENCHMARK, named(x), seed=1, reps=200)
    assert all(0 < p <= 1 for p in found.p_of.values())
    flat = superiority("c1", named(x), seed=1, reps=200)
    assert set(flat.p_of) == {BENCHMARK, "c2", "c3", "c4"}


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    x = named(world(10))
    again = [superiority(BENCHMARK, x, seed=seed, reps=200).to_dict() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]
    sets = [confidence_set(x, seed=seed, reps=200).to_dict() for seed in (1, 1, 2)]
    assert sets[0] == sets[1] != sets[2]


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 300), most=st.integers(1, 100))
def test_sums_of_runs_keep_every_bar_once(n, most):
    x = np.random.default_rng(n).normal(size=(n, 2))
    rows = grouped(x, most)
    assert len(rows) == min(n, most)
    np.testing.assert_allclose(rows.sum(axis=0), x.sum(axis=0), rtol=1e-9, atol=1e-12)
    counts = grouped(np.ones((n, 1)), most)
    assert counts.max() - counts.min() <= 1


def test_long_series_are_judged_on_sums_and_hardly_otherwise():
    x = world(11, n=6_000, edges=(0.0, 0.05, 0.02), noise=(1.0,) * 3, phi=0.0)
    found = superiority(BENCHMARK, named(x), seed=1, reps=400, mean_block=10)
    assert found.n_rows == 2_500
    assert found.mean_block == math.ceil(10 * 2_500 / 6_000)
    z = x / x.std(axis=0, ddof=1)
    ahead = z[:, 1:] - z[:, :1]
    rows = stationary_rows(len(x), 10, np.random.default_rng(1), 400)
    stars = np.array([ahead[path].mean(axis=0) for path in rows]) - ahead.mean(axis=0)
    omega = stars.std(axis=0)
    p = np.mean((stars / omega).max(axis=1) > (ahead.mean(axis=0) / omega).max())
    assert found.p == pytest.approx(p, abs=0.06)


# --- paired intervals ------------------------------------------------------------------------------------


def test_an_interval_covers_the_truth_as_often_as_it_says_and_one_for_single_rows_does_not():
    def coverage(block, phi=0.5, worlds=120):
        hits = 0
        for seed in range(worlds):
            # With this autocorrelation the mean of n bars has a deviation of 1 / (1 - phi) / sqrt(n).
            x = world(3_000 + seed, n=250, edges=(0.1,), noise=(1.0,), phi=phi)[:, 0]
            spread, _ = intervals({"a": x}, 1.0, seed=seed, n_paths=150, mean_block=block)
            true = 0.1 / math.sqrt(2 / (1 - phi**2))
            hits += spread["sharpe"].low <= true <= spread["sharpe"].high
        return hits / worlds

    assert 0.78 <= coverage(12.0) <= 0.97
    assert coverage(1.0) < 0.75


def test_what_two_series_have_in_common_cancels_in_the_lead():
    rng = np.random.default_rng(12)
    market = rng.normal(0, 0.02, 800)
    ahead = market + 0.001 + rng.normal(0, 0.001, 800)
    own, leads = intervals({"a": ahead, "b": market}, 365.0, seed=1, n_paths=300)
    lead = leads["b"]["sharpe"]
    assert lead.low > 0
    assert lead.positive == 1.0
    assert own["sharpe"].high - own["sharpe"].low > 5 * (lead.high - lead.low)
    # Drawn apart, the same two series could not be told from each other.
    apart = [
        intervals({"x": x}, 365.0, seed=s, n_paths=300)[0]["sharpe"] for s, x in ((1, ahead), (2, market))
    ]
    assert apart[0].low < apart[1].high


def test_the_interval_of_one_series_is_that_of_the_bootstrap_of_accounts():
    x = world(13, n=400)[:, 1]
    own, leads = intervals({"a": x}, 365.0, seed=1, n_paths=3_000, mean_block=5.0)
    paths = bootstrap_returns(x, 365.0, seed=2, n_paths=3_000, mean_block=5.0)
    assert leads == {}
    for name in FIGURES:
        values = getattr(paths, name)
        assert own[name].estimate == pytest.approx(paths.taken[name])
        error = 0.2 * values.std()
        assert own[name].low == pytest.approx(np.quantile(values, 0.05), abs=error)
        assert own[name].high == pytest.approx(np.quantile(values, 0.95), abs=error)


def test_what_never_moves_has_a_sharpe_ratio_of_nothing_in_a_lead():
    x = world(14, n=100)[:, 1]
    own, leads = intervals({"flat": np.zeros(100), "b": x}, 365.0, seed=1, n_paths=200)
    assert own["sharpe"].to_dict() == {"estimate": 0.0, "low": 0.0, "high": 0.0, "positive": 0.0}
    mirrored, _ = intervals({"b": x}, 365.0, seed=1, n_paths=200)
    assert leads["b"]["sharpe"].low == pytest.approx(-mirrored["sharpe"].high)


# --- wrong input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({"hold": np.zeros(29), "a": np.zeros(29)}, "29 bars out of sample; a comparison needs at least 30"),
        ({"hold": np.zeros(40), "a": np.zeros(41)}, "they must be one return per bar, alike"),
        ({"hold": np.zeros(40), "a": np.full(40, np.nan)}, "return 0 of a is nan; it must be finite"),
    ],
)
def test_series_that_cannot_be_compared_are_refused(series, message):
    for ask in (
        lambda: superiority("hold", series, seed=1),
        lambda: confidence_set(series, seed=1),
        lambda: intervals(series, 365.0, seed=1),
    ):
        with pytest.raises(DataError, match=message):
            ask()


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(DataError, match="nothing to compare with hold"):
        superiority("hold", {"hold": np.zeros(40)}, seed=1)
    with pytest.raises(DataError, match="1 series; a confidence set is one of at least 2"):
        confidence_set({"hold": np.zeros(40)}, seed=1)


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "arch", None)
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    for ask in (superiority, confidence_set):
        arguments = ("hold",) if ask is superiority else ()
        with pytest.raises(ConfigError, match=r"SPA, StepM and MCS need arch; .*\[validation\]"):
            ask(*arguments, {"hold": np.zeros(40), "a": np.zeros(40)}, seed=1)

"""The stationary bootstrap against its theory, and bars rebuilt from blocks of shapes."""

import math
import sys
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from backtest import metrics
from backtest.bootstrap import (
    FIGURES,
    QUANTILES,
    best_block,
    bootstrap_bars,
    bootstrap_returns,
    path_figures,
    rebuilt,
    stationary_rows,
)
from compute.seeds import stream
from configs.load import ConfigError
from market.bars import OHLCV, Bars
from market.table import DataError

HOUR = 3_600_000_000_000
N, BLOCK, PATHS = 60, 5.0, 20_000


def autoregressive(n, phi, rng, start=50):
    noise = rng.normal(size=n + start)
    series = np.zeros(n + start)
    for t in range(1, n + start):
        series[t] = phi * series[t - 1] + noise[t]
    return series[start:]


# The law of the rows, against Politis and Romano (1994), and samplers that break it.


def departures(sampler):
    """|z| of the sample moments of the paths against what theory says of a stationary bootstrap."""
    rng = np.random.default_rng(1)
    x = autoregressive(N, 0.8, rng) + np.linspace(0.0, 2.0, N)  # the ends differ, so a wrap is seen
    mean = x.mean()
    circular = [float(np.mean((x - mean) * (np.roll(x, -k) - mean))) for k in range(N)]
    stay = 1.0 - 1.0 / BLOCK
    of_the_mean = circular[0] + 2 * sum((1 - k / N) * stay**k * circular[k] for k in range(1, N))
    paths = x[sampler(N, BLOCK, rng, PATHS)]

    def z(values, expected):
        return abs(values.mean() - expected) / (values.std(ddof=1) / math.sqrt(PATHS))

    off = paths - mean
    found = {
        "mean": z(off.mean(axis=1), 0.0),
        "variance": z((off**2).mean(axis=1), circular[0]),
        "variance of the mean": z(off.mean(axis=1) ** 2, of_the_mean / N),
    }
    for lag in (1, 2, 5):
        products = (off[:, lag:] * off[:, :-lag]).mean(axis=1)
        found[f"autocovariance {lag}"] = z(products, stay**lag * circular[lag])
    return found


def one_by_one(n, mean_block, rng, n_paths):
    return stationary_rows(n, 1.0, rng, n_paths)


def shuffled_inside_blocks(n, mean_block, rng, n_paths):
    rows = stationary_rows(n, mean_block, rng, n_paths)
    for path in rows:
        for block in np.split(path, np.flatnonzero(breaks(path, n)) + 1):
            rng.shuffle(block)  # a view: shuffles the path
    return rows


def without_the_wrap(n, mean_block, rng, n_paths):
    rows = stationary_rows(n, mean_block, rng, n_paths)
    for path in rows:
        for block in np.split(path, np.flatnonzero(breaks(path, n)) + 1):
            past = np.flatnonzero(block == 0)
            if past.size and past[0] > 0:
                block[past[0] :] = n - 1
    return rows


def blocks_of_one_length(n, mean_block, rng, n_paths):
    starts = rng.integers(n, size=(n_paths, math.ceil(n / mean_block)))
    rows = starts[:, :, None] + np.arange(int(mean_block))
    return rows.reshape(n_paths, -1)[:, :n] % n


def breaks(path, n):
    return path[1:] != (path[:-1] + 1) % n


def test_the_moments_of_the_paths_are_those_of_the_theory():
    found = departures(stationary_rows)
    assert max(found.values()) < 4.0, found


@pytest.mark.parametrize(
    ("sampler", "moments"),
    [
        (one_by_one, ("autocovariance 1", "autocovariance 2", "variance of the mean")),
        (shuffled_inside_blocks, ("autocovariance 1", "autocovariance 2")),
        (without_the_wrap, ("mean",)),
        (blocks_of_one_length, ("autocovariance 5",)),
    ],
)
def test_a_broken_bootstrap_is_seen_by_the_moment_it_breaks(sampler, moments):
    found = departures(sampler)
    assert min(found[moment] for moment in moments) > 8.0, found


def lengths_fit(rows, mean_block):
    """p-value of the complete blocks of a long path against the geometric law."""
    n = rows.size
    # A new block that happens to go on where the old one ended is not seen as one.
    seen = (1.0 - 1.0 / n) / mean_block
    lengths = np.diff(np.flatnonzero(breaks(rows, n)))
    cells = np.arange(1, int(3 * mean_block))
    observed = np.append([(lengths == k).sum() for k in cells], (lengths > cells[-1]).sum())
    law = seen * (1.0 - seen) ** (cells - 1)
    return stats.chisquare(observed, lengths.size * np.append(law, 1.0 - law.sum())).pvalue


def test_block_lengths_are_geometric_with_the_mean_asked_for():
    rng = np.random.default_rng(2)
    assert lengths_fit(stationary_rows(60_000, 8.0, rng)[0], 8.0) > 0.01
    assert lengths_fit(stationary_rows(60_000, 9.0, rng)[0], 8.0) < 1e-6
    assert lengths_fit(blocks_of_one_length(60_000, 8.0, rng, 1)[0], 8.0) < 1e-6


def test_every_row_is_as_likely_as_every_other_at_every_place():
    rows = stationary_rows(40, 6.0, np.random.default_rng(3), 8_000)
    for place in (0, 1, 20, 39):
        assert stats.chisquare(np.bincount(rows[:, place], minlength=40)).pvalue > 1e-3


def test_a_block_goes_on_from_the_last_row_to_the_first():
    rows = stationary_rows(10, 50.0, np.random.default_rng(4), 500)
    after_last = rows[:, 1:][rows[:, :-1] == 9]
    assert np.mean(after_last == 0) > 0.95
    assert rows.min() == 0
    assert rows.max() == 9


@pytest.mark.parametrize("mean_block", [0.99, 0.0, -3.0, math.nan, math.inf])
def test_a_mean_block_below_one_row_is_refused(mean_block):
    with pytest.raises(ConfigError, match="mean_block is"):
        stationary_rows(10, mean_block, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="mean_block is"):
        bootstrap_returns(np.array([0.1, -0.1]), 365.0, seed=1, mean_block=mean_block)


def coverage(mean_block, phi, trials=400):
    """How often the 90 % percentile interval of the mean of an AR(1) holds its true mean, 0."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(trials):
        x = autoregressive(300, phi, rng)
        low, high = np.quantile(x[stationary_rows(300, mean_block, rng, 200)].mean(axis=1), (0.05, 0.95))
        inside += low <= 0.0 <= high
    return inside / trials


def test_intervals_for_the_mean_of_dependent_returns_cover_it_and_those_of_single_rows_do_not():
    assert 0.82 < coverage(20.0, 0.6) < 0.93
    assert coverage(1.0, 0.6) < 0.7
    assert 0.86 < coverage(1.0, 0.0) < 0.94  # where rows are independent, single rows are right


# The automatic block length.


def test_the_best_block_of_an_autoregression_is_that_of_the_theory():
    pytest.importorskip("arch")
    rng = np.random.default_rng(6)
    n, phi = 4_000, 0.7
    found = np.median([best_block(autoregressive(n, phi, rng)) for _ in range(9)])
    # (2 G^2 / D)^(1/3) n^(1/3) with G = sum |k| R(k), D = 2 (sum R(k))^2
    assert found == pytest.approx((2 * phi / (1 - phi**2)) ** (2 / 3) * n ** (1 / 3), rel=0.2)


def test_the_best_block_is_that_of_the_library_for_returns_or_for_their_sizes():
    bootstrap = pytest.importorskip("arch.bootstrap")
    rng = np.random.default_rng(7)
    storms = rng.normal(size=3_000) * np.exp(0.2 * autoregressive(3_000, 0.95, rng))
    own, of_sizes = (
        bootstrap.optimal_block_length(x)["stationary"].iloc[0] for x in (storms, np.abs(storms))
    )
    assert best_block(storms) == of_sizes > 3 * own
    trend = autoregressive(3_000, 0.9, rng) + 100.0
    own = bootstrap.optimal_block_length(trend)["stationary"].iloc[0]
    assert best_block(trend) == own


def test_returns_that_never_move_are_drawn_one_by_one():
    pytest.importorskip("arch")
    assert best_block(np.zeros(100)) == 1.0


def test_without_the_library_the_block_length_must_be_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "arch", None)
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    returns = np.random.default_rng(0).normal(0, 0.01, 100)
    with pytest.raises(ConfigError, match=r"needs arch; .*regime-conductor\[validation\]"):
        bootstrap_returns(returns, 365.0, seed=1, n_paths=10)
    assert len(bootstrap_returns(returns, 365.0, seed=1, n_paths=10, mean_block=5.0)) == 10


def test_too_few_returns_and_returns_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="29 returns"):
        best_block(np.zeros(29))
    with pytest.raises(DataError, match="1 returns; a path needs at least 2"):
        bootstrap_returns(np.zeros(1), 365.0, seed=1)
    with pytest.raises(DataError, match="return 1 is nan"):
        bootstrap_returns(np.array([0.0, math.nan, 0.0]), 365.0, seed=1)


# Paths of returns.

matrices = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(2, 30)),
    elements=st.one_of(st.floats(-1.5, 3.0, width=32), st.just(0.0), st.just(-1.0)),
)


@given(matrices)
@settings(max_examples=150, deadline=None)
def test_the_figures_of_a_path_are_those_of_the_metrics(returns):
    found = path_figures(returns, 365.0)
    for path, figures in zip(returns, found, strict=True):
        named = dict(zip(FIGURES, figures, strict=True))
        for name, expected in (
            ("total_return", metrics.total_return(path)),
            ("sharpe", metrics.sharpe(path, 365.0)),
            ("max_drawdown", metrics.max_drawdown(path)),
            ("lowest", min(1.0, *np.cumprod(np.maximum(1 + path, 0.0)))),
        ):
            assert named[name] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), name


def test_two_paths_by_hand():
    returns = np.array([[0.1, -0.5, 0.2], [-0.6, 0.0, 4.0]])
    found = path_figures(returns, 1.0)
    assert found[:, 0] == pytest.approx([1.1 * 0.5 * 1.2 - 1, 0.4 * 5.0 - 1])
    assert found[:, 2] == pytest.approx([-0.5, -0.6])
    assert found[:, 3] == pytest.approx([0.55, 0.4])


def test_growth_beyond_all_numbers_is_not_a_number():
    assert math.isnan(path_figures(np.full((1, 2_000), 2.0), 365.0)[0, 0])


def test_more_paths_leave_the_first_ones_as_they_were_and_another_seed_does_not():
    returns = np.random.default_rng(8).normal(0, 0.01, 9_000)  # 55 paths to a chunk
    few = bootstrap_returns(returns, 8760.0, seed=1, n_paths=70, mean_block=10)
    many = bootstrap_returns(returns, 8760.0, seed=1, n_paths=150, mean_block=10)
    other = bootstrap_returns(returns, 8760.0, seed=2, n_paths=70, mean_block=10)
    for name in FIGURES:
        assert np.array_equal(getattr(few, name), getattr(many, name)[:70])
        assert not np.isin(getattr(few, name), getattr(other, name)).any()
    assert np.unique(many.total_return).size == 150


def test_paths_are_made_in_pieces_that_fit_into_memory():
    returns = np.random.default_rng(9).normal(0, 0.01, 10_000)
    tracemalloc.start()
    bootstrap_returns(returns, 8760.0, seed=1, n_paths=1_000, mean_block=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # all at once would be 80 MB for the returns alone
    tracemalloc.start()
    returns[stationary_rows(10_000, 20, np.random.default_rng(0), 1_000)].sum()
    all_at_once = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all_at_once > 80e6


def test_of_independent_returns_the_spread_is_that_of_the_normal_law():
    rng = np.random.default_rng(10)
    returns = rng.normal(0.0004, 0.01, 2_000)
    paths = bootstrap_returns(returns, 365.0, seed=1, n_paths=8_000, mean_block=1.0)
    logs = np.log1p(returns)
    law = NormalDist(2_000 * logs.mean(), math.sqrt(2_000) * logs.std())
    assert paths.loss_probability == pytest.approx(law.cdf(0.0), abs=0.02)
    assert paths.quantiles("total_return") == pytest.approx(
        [math.expm1(law.inv_cdf(level)) for level in QUANTILES], abs=0.06
    )
    per_bar = paths.sharpe / math.sqrt(365.0)
    assert per_bar.std() == pytest.approx(1 / math.sqrt(2_000), rel=0.05)
    assert paths.taken["sharpe"] == pytest.approx(metrics.sharpe(returns, 365.0))


def test_losses_that_come_in_runs_make_deeper_drawdowns_than_the_same_losses_one_by_one():
    returns = 0.002 * autoregressive(3_000, 0.9, np.random.default_rng(11))
    together = bootstrap_returns(returns, 365.0, seed=1, n_paths=500, mean_block=60.0)
    alone = bootstrap_returns(returns, 365.0, seed=1, n_paths=500, mean_block=1.0)
    assert np.median(together.max_drawdown) < 1.5 * np.median(alone.max_drawdown)
    assert together.ruin_probability > alone.ruin_probability + 0.05


def test_ruin_is_the_share_of_paths_that_fall_so_far_below_their_start():
    returns = np.array([0.5, -0.3, 0.1, -0.2])
    paths = bootstrap_returns(returns, 365.0, seed=3, n_paths=4_000, mean_block=2.0, ruin=0.6)
    assert paths.ruin_probability == np.mean(paths.lowest <= 0.6)
    assert 0.05 < paths.ruin_probability < 0.95
    assert paths.loss_probability == np.mean(paths.total_return < 0)
    deeper = bootstrap_returns(returns, 365.0, seed=3, n_paths=4_000, mean_block=2.0, ruin=0.3)
    assert deeper.ruin_probability < paths.ruin_probability


@pytest.mark.parametrize(("setting", "value"), [("ruin", 0.0), ("ruin", 1.0), ("n_paths", 0)])
def test_settings_out_of_bounds_are_refused_by_name(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} is {value}"):
        bootstrap_returns(np.zeros(50), 365.0, seed=1, mean_block=2.0, **{setting: value})


def test_an_account_that_never_moves_has_no_sharpe_ratio_and_says_so():
    paths = bootstrap_returns(np.zeros(50), 365.0, seed=1, n_paths=20, mean_block=2.0)
    assert np.isnan(paths.quantiles("sharpe")).all()
    told = paths.to_dict()
    assert told["sharpe"] == dict.fromkeys([f"{level:g}" for level in QUANTILES] + ["taken"])
    assert told["total_return"]["0.5"] == told["ruin_probability"] == 0.0


# Paths of bars.


def with_extras(bars, seed=0):
    """The same bars with gaps between them, funding and mark prices."""
    rng = np.random.default_rng(seed)
    level = np.exp(np.append(0.0, np.cumsum(rng.normal(0, 0.003, len(bars) - 1))))
    prices = bars.values[:, :4] * level[:, None]
    mark_high = prices[:, 1] * rng.uniform(0.999, 1.001, len(bars))
    mark_low = prices[:, 2] * rng.uniform(0.999, 1.001, len(bars))
    funding = np.where(np.arange(len(bars)) % 8 == 0, rng.normal(1e-4, 1e-5, len(bars)), 0.0)
    values = np.column_stack([prices, bars.values[:, 4], funding, mark_high, mark_low])
    return Bars(
        bars.time, values, (*OHLCV, "funding", "mark_high", "mark_low"), bars.symbol, bars.interval_ns
    )


def test_rows_in_their_own_order_give_the_bars_back(make_bars):
    bars = with_extras(make_bars(300, 1))
    same = rebuilt(bars, np.arange(300))
    assert np.allclose(same.values, bars.values, rtol=1e-12, atol=0)
    assert (same.names, same.label) == (bars.names, bars.label)


def test_a_path_is_made_of_the_shapes_of_its_rows(make_bars):
    bars = with_extras(make_bars(200, 2))
    rows = stationary_rows(200, 7.0, np.random.default_rng(3))[0]
    path = rebuilt(bars, rows)
    assert np.array_equal(path.time, bars.time)
    assert path.values[0, 0] == bars.values[0, 0]
    for name in ("high", "low", "close", "mark_high", "mark_low"):
        shape = path.column(name) / path.column("open")
        assert np.allclose(shape, (bars.column(name) / bars.column("open"))[rows], rtol=1e-12)
    for name in ("volume", "funding"):
        assert np.array_equal(path.column(name), bars.column(name)[rows])
    gap = np.append(1.0, bars.column("open")[1:] / bars.column("close")[:-1])
    assert np.allclose(path.column("open")[1:] / path.column("close")[:-1], gap[rows][1:], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1.0, 30.0), st.floats(1e-6, 1e6))
def test_bars_of_any_size_make_valid_bars(seed, mean_block, level):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    # Prices on a coarse grid: highs that are closes, lows that are opens, bars that never move.
    prices = level * np.exp(0.05 * rng.integers(-3, 4, (n, 2)))
    beyond = np.exp(0.05 * rng.integers(0, 2, (2, n)))
    high, low = prices.max(axis=1) * beyond[0], prices.min(axis=1) / beyond[1]
    values = np.column_stack([prices[:, 0], high, low, prices[:, 1], rng.integers(0, 3, n)])
    bars = Bars(HOUR * np.arange(1, n + 1), values, OHLCV, "T/U", HOUR)
    before = bars.values.copy()
    path = bootstrap_bars(bars, rng, mean_block)  # the constructor of Bars checks every rule
    assert np.array_equal(path.time, bars.time)
    assert path.values[0, 0] == values[0, 0]
    assert np.array_equal(bars.values, before)


def test_storms_stay_together_on_paths_of_blocks_and_scatter_on_paths_of_single_bars(make_bars):
    calm = make_bars(4_000, 5)
    rng = np.random.default_rng(6)
    size = np.exp(0.6 * autoregressive(4_000, 0.97, rng))[:, None]
    body = np.log(calm.values[:, 1:4] / calm.values[:, :1]) * size
    opens = 100.0 * np.exp(np.append(0.0, np.cumsum(body[:-1, 2])))
    values = np.column_stack([opens, opens[:, None] * np.exp(body), calm.values[:, 4]])
    bars = Bars(calm.time, values, OHLCV, "T/U", HOUR)

    def clustering(path):
        reach = np.log(path.column("high") / path.column("low"))
        return np.corrcoef(reach[1:], reach[:-1])[0, 1]

    real = clustering(bars)
    together = clustering(bootstrap_bars(bars, np.random.default_rng(7), 50.0))
    alone = clustering(bootstrap_bars(bars, np.random.default_rng(7), 1.0))
    assert real > 0.3
    assert together == pytest.approx(real, abs=0.12)
    assert abs(alone) < 0.06


def test_a_path_belongs_to_its_stream_and_no_bars_make_no_path(make_bars):
    bars = make_bars(100, 8)
    one, same, other = (bootstrap_bars(bars, stream(1, "bars", i), 5.0) for i in (0, 0, 1))
    assert np.array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)
    assert not np.array_equal(one.values, bars.values)
    assert len(bootstrap_bars(bars[:0], stream(1), 5.0)) == 0

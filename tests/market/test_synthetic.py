"""The synthetic market: what it promises about its bars, its regimes and its oracles."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from configs.load import ConfigError, config_text, parse_yaml, validate
from market.bars import timeframe_ns
from market.sources import kernels
from market.sources.law import TrueLaw
from market.sources.oracle import bar_oracle, close_oracle
from market.sources.scenarios import REGIME_NAMES, SCENARIOS, SyntheticConfig
from market.sources.synthetic import synthetic_market
from market.table import DataError
from tests.reference import synthetic as reference

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "ohlcv" / "btcusdt_binance_spot_1h.parquet"

# Hourly BTC/USDT on Binance, 2018-01 to 2024-06: the value, and a band that holds for BTC and for three
# years of the default scenario. Three years are short: single calendar years of BTC have a standard
# deviation of 0.0045 to 0.0104, excess kurtosis 8 to 125, |r| acf at 24 of 0.10 to 0.24, at 168 of 0.06 to
# 0.15, and a correlation of volume and range of 0.27 to 0.89.
BTC = {
    "std": (0.00773, 0.0060, 0.0095),
    "excess kurtosis": (37.8, 8.0, 125.0),
    "median |r| / std": (0.334, 0.30, 0.46),
    "q95 |r| / std": (1.970, 1.75, 2.20),
    "q99 |r| / std": (3.841, 3.30, 4.30),
    "q99.9 |r| / std": (7.990, 6.00, 9.50),
    "share |r| < 1 bp": (0.0228, 0.012, 0.032),
    "acf r 1": (-0.028, -0.06, 0.01),
    "acf |r| 1": (0.296, 0.20, 0.40),
    "acf |r| 24": (0.196, 0.12, 0.28),
    "acf |r| 168": (0.133, 0.03, 0.20),
    "acf log range 1": (0.710, 0.50, 0.80),
    "acf log range 24": (0.543, 0.35, 0.65),
    "Parkinson / close std": (1.073, 0.97, 1.12),
    "std log volume": (0.912, 0.65, 1.10),
    "skew log volume": (0.478, -0.30, 0.60),
    "acf log volume 1": (0.857, 0.65, 0.95),
    "acf log volume 24": (0.686, 0.45, 0.80),
    "corr log volume, log range": (0.541, 0.45, 0.80),
}


def config(scenario="default", **settings):
    return SyntheticConfig(scenario=scenario, **settings)


@pytest.fixture(scope="module")
def markets():
    """Four default markets of three years."""
    return [synthetic_market(config(seed=seed)) for seed in (7, 8, 9, 10)]


# ---------------------------------------------------------------- bars


def test_the_same_config_gives_the_same_bytes():
    one, two = (synthetic_market(config(n_bars=5000, seed=3)) for _ in range(2))
    assert one.bars.fingerprint() == two.bars.fingerprint()
    assert one.regime.tobytes() == two.regime.tobytes()
    assert one.oracle.values.tobytes() == two.oracle.values.tobytes()
    other = synthetic_market(config(n_bars=5000, seed=4))
    assert one.bars.fingerprint() != other.bars.fingerprint()


@given(n=st.integers(1, 4400), seed=st.integers(0, 2**63 - 1), scenario=st.sampled_from(sorted(SCENARIOS)))
@settings(max_examples=15, deadline=None)
def test_a_longer_market_begins_with_the_shorter_one(n, seed, scenario):
    long = synthetic_market(config(scenario, n_bars=4400, seed=seed, steps=8))
    short = synthetic_market(config(scenario, n_bars=n, seed=seed, steps=8))
    assert short.bars.fingerprint() == long.bars[:n].fingerprint()
    assert np.array_equal(short.regime, long.regime[:n])
    for name in ("oracle", "oracle_close"):
        assert getattr(short, name).values.tobytes() == getattr(long, name)[:n].values.tobytes()


def test_bars_open_at_the_close_before_on_a_regular_clock():
    bars = synthetic_market(config(n_bars=500, timeframe="4h", start="20200229", price=123.0)).bars
    assert bars.column("open")[0] == 123.0
    assert np.array_equal(bars.column("open")[1:], bars.column("close")[:-1])
    assert np.all(np.diff(bars.time) == timeframe_ns("4h"))
    assert bars.time[0] == np.datetime64("2020-02-29T04:00", "ns").astype(np.int64)
    assert bars.symbol == "SYN/USDT"
    assert np.all(bars.column("high") > bars.column("low"))


def test_truth_cannot_be_changed():
    market = synthetic_market(config(n_bars=10))
    with pytest.raises(ValueError, match="read-only"):
        market.regime[0] = 1
    with pytest.raises(AttributeError):
        market.regime = None
    assert market.regime.dtype == np.int8
    assert market.oracle is market.oracle  # computed once


def test_walk_equals_its_plain_twin():
    settings_ = config("drifting", n_bars=300, day_swing=0.4)
    law, draw = TrueLaw.of(settings_), np.random.default_rng(1)
    regime = np.repeat(np.array([0, 1, 2, 1, 0], dtype=np.int8), 60)
    direction = np.where(regime == 1, np.repeat([1.0, -1.0], 150), 0.0)
    mixing = 1.5 / draw.standard_gamma(2.5, 300)
    normal, above, below = (
        draw.standard_normal((300, 12)),
        *(draw.standard_exponential((300, 12)) for _ in "ab"),
    )
    out, memory = np.empty((300, 3)), np.column_stack([np.zeros(3), np.ones(3)])
    kernels.walk(
        law.parameters, law.scale, regime, direction, mixing, normal, above, below, memory, np.zeros(1), out
    )
    twin = reference.walk(settings_.regimes, law.scale, regime, direction, mixing, normal, above, below)
    np.testing.assert_allclose(out, twin, rtol=0, atol=1e-12)


def steady_ranges(steps, reach_of_bridges=1.0, n=30_000):
    """Range over volatility of bars with one constant volatility and no drift."""
    constant = {"pull": 0.0, "trend": 0.0, "shock": 0.0, "memory": 0.0}
    law = TrueLaw.of(config(n_bars=n, ranging=constant, day_swing=0.0, weekend=1.0))
    draw, out = np.random.default_rng(5), np.empty((n, 3))
    kernels.walk(
        law.parameters, law.scale, np.zeros(n, dtype=np.int8), np.zeros(n), np.ones(n),
        draw.standard_normal((n, steps)),
        reach_of_bridges * draw.standard_exponential((n, steps)),
        reach_of_bridges * draw.standard_exponential((n, steps)),
        np.column_stack([np.zeros(3), np.ones(3)]), np.zeros(1), out,
    )  # fmt: skip
    return (out[:, 0] - out[:, 1]) / law.parameters[0, kernels.VOLATILITY]


@pytest.mark.parametrize("steps", [8, 60])
def test_ranges_follow_brownian_motion_whatever_the_number_of_steps(steps):
    # Feller (1951): E R = sqrt(8/pi); Parkinson (1980): E R² = 4 ln 2.
    ranges = steady_ranges(steps)
    for value, truth in ((ranges, np.sqrt(8 / np.pi)), (ranges**2, 4 * np.log(2))):
        assert abs(value.mean() - truth) < 4 * value.std() / np.sqrt(value.size)


def test_ranges_from_the_steps_alone_would_be_too_small():
    ranges = steady_ranges(60, reach_of_bridges=0.0)
    error = (ranges**2).std() / np.sqrt(ranges.size)
    assert (ranges**2).mean() < 4 * np.log(2) - 10 * error


# ---------------------------------------------------------------- regimes


def episodes(label):
    """Return regime and length of all complete episodes."""
    cuts = np.flatnonzero(np.diff(label)) + 1
    return label[cuts[:-1]], np.diff(cuts)


def dwell_misses(market, dwell_bars):
    """Return by how many standard errors each regime's mean dwell differs from what was promised."""
    regime, length = episodes(market.regime)
    misses = []
    for r, dwell in enumerate(dwell_bars):
        some = length[regime == r]
        misses.append((some.mean() - dwell) / (some.std() / np.sqrt(some.size)))
    return np.abs(misses)


@pytest.fixture(scope="module")
def long_market():
    return synthetic_market(config(n_bars=300_000, steps=8))


def test_dwell_times_and_shares_are_the_promised_ones(long_market):
    law = TrueLaw.of(long_market.config)
    assert np.all(dwell_misses(long_market, (336, 240, 168)) < 4)
    for r in range(3):
        share = law.stationary[law.regime_of == r].sum()
        blocks = (long_market.regime == r).reshape(60, -1).mean(axis=1)  # 5,000 bars: nearly independent
        assert abs(blocks.mean() - share) < 4 * blocks.std() / np.sqrt(60)
        assert share > 0.15


def test_a_wrong_dwell_time_is_noticed(long_market):
    assert np.any(dwell_misses(long_market, (336 * 1.5, 240 * 1.5, 168 * 1.5)) > 4)


def test_direction_is_drawn_at_the_start_of_a_trend_and_kept(long_market):
    regime, direction = long_market.regime, long_market.direction
    assert np.all((direction == 0) == (regime != 1))
    together = (regime[1:] == 1) & (regime[:-1] == 1)
    assert np.array_equal(direction[1:][together], direction[:-1][together])
    begins = np.flatnonzero((regime[1:] == 1) & (regime[:-1] != 1)) + 1
    ups = np.sum(direction[begins] > 0)
    assert stats.binomtest(int(ups), begins.size, 0.56).pvalue > 1e-3


def variance_ratio(market, r, span=24):
    """Return variance of ``span``-bar returns over ``span`` times that of one bar, inside episodes."""
    returns = np.diff(np.log(market.bars.column("close")), prepend=np.nan)
    total = np.convolve(returns, np.ones(span), "valid")
    inside = np.convolve(market.regime == r, np.ones(span), "valid") == span
    inside &= np.isfinite(total)
    one = returns[(market.regime == r) & np.isfinite(returns)]
    return np.mean(total[inside] ** 2) / (span * np.mean(one**2))


def efficiency_ratio(market, r, span=24):
    returns = np.diff(np.log(market.bars.column("close")), prepend=0.0)
    way, path = (np.convolve(x, np.ones(span), "valid") for x in (returns, np.abs(returns)))
    inside = np.convolve(market.regime == r, np.ones(span), "valid") == span
    return np.mean(np.abs(way[inside]) / path[inside])


def named_statistics(scenario):
    long = synthetic_market(config(scenario, n_bars=120_000, steps=8))
    returns = np.diff(np.log(long.bars.column("close")), prepend=np.log(long.config.price))
    volatility = [returns[long.regime == r].std() for r in range(3)]
    ratio = [variance_ratio(long, r) for r in range(3)]
    efficiency = [efficiency_ratio(long, r) for r in range(3)]
    return volatility, ratio, efficiency


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - {"random_walk"}))
def test_regimes_differ_in_the_statistic_that_names_them(scenario):
    volatility, ratio, efficiency = named_statistics(scenario)
    assert volatility[2] > 1.3 * volatility[1] > 1.3 * 1.2 * volatility[0]
    assert ratio[1] > 1.1
    assert ratio[0] < 0.9
    assert efficiency[1] > 1.1 * efficiency[0]


def test_a_random_walk_has_volatile_times_but_nothing_to_foretell():
    volatility, ratio, _ = named_statistics("random_walk")
    assert volatility[2] > 1.5 * volatility[1] > 1.5 * 1.5 * volatility[0]
    assert np.all(np.abs(np.array(ratio) - 1) < 0.1)


def test_expected_simple_returns_of_a_random_walk_are_zero():
    for seed in range(3):
        market = synthetic_market(config("random_walk", n_bars=200_000, steps=8, seed=seed))
        simple = market.bars.column("close") / market.bars.column("open") - 1
        assert abs(simple.mean()) < 4 * simple.std() / np.sqrt(simple.size)


def test_returns_are_student_t_around_a_known_variance():
    plain = {"pull": 0.0, "trend": 0.0, "shock": 0.0, "memory": 0.0, "volatility": 0.01}
    settings_ = config(
        n_bars=40_000, ranging=plain, trending=plain, volatile=plain, day_swing=0.0, weekend=1.0
    )
    market = synthetic_market(settings_)
    move = np.diff(np.log(market.bars.column("close")), prepend=np.log(settings_.price)) + 0.5 * 0.01**2
    for r, regime in enumerate(settings_.regimes):
        unit = 0.01 * np.sqrt((regime.dof - 2) / regime.dof)
        some = move[market.regime == r] / unit
        assert stats.kstest(some, stats.t(regime.dof).cdf).pvalue > 1e-3
        assert stats.kstest(some, stats.norm(scale=some.std()).cdf).pvalue < 1e-6


# ---------------------------------------------------------------- likeness to BTC


def test_moments_lie_in_the_bands_around_hourly_btc(markets):
    found = [reference.bar_moments(market.bars) for market in markets]
    for name, (value, low, high) in BTC.items():
        assert low <= value <= high
        assert low <= np.median([one[name] for one in found]) <= high, name


def test_a_market_of_one_calm_gaussian_regime_falls_out_of_the_bands():
    plain = {"shock": 0.0, "memory": 0.0, "volatility": 0.0075, "dof": 30.0}
    market = synthetic_market(config(ranging=plain, trending=plain, volatile=plain))
    found = reference.bar_moments(market.bars)
    outside = {name for name, (_, low, high) in BTC.items() if not low <= found[name] <= high}
    assert {"excess kurtosis", "acf |r| 1", "acf |r| 24", "q99.9 |r| / std"} <= outside


@pytest.mark.skipif(not DATA.exists(), reason="the shared development data are not beside the repository")
def test_the_btc_numbers_are_those_of_the_file():
    from benchmarks.synthetic_moments import btc_moments

    found = btc_moments(DATA)
    assert set(found) == set(BTC)
    for name, (value, _, _) in BTC.items():
        assert found[name] == pytest.approx(value, rel=0.01), name


def test_volume_depends_on_the_range_and_the_clock_only():
    # Two markets with other regimes and the same seed: after range and hour, the same noise is left.
    def rest(**settings_):
        market = synthetic_market(config(n_bars=3000, **settings_))
        log_range = np.log(market.bars.column("high") / market.bars.column("low"))
        typical = np.median([regime.volatility for regime in market.config.regimes])
        return np.log(market.bars.column("volume")) - 0.7 * np.log(log_range / typical)

    one, two = rest(), rest(volatile={"volatility": 0.03, "dwell_bars": 20}, trending={"trend": 0.3})
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-9)


def test_hours_and_weekends_are_quieter_or_busier_as_set():
    market = synthetic_market(config("random_walk", n_bars=100_000, steps=8))
    opened = (market.bars.time - market.bars.interval_ns).astype("datetime64[ns]")
    hour = opened.astype("datetime64[h]").astype(int) % 24
    weekend = (opened.astype("datetime64[D]").astype(int) + 3) % 7 >= 5
    for column, swing, factor in (("range", 0.15, 0.8), ("volume", 0.28, 0.7)):
        size = np.log(market.bars.column("high") / market.bars.column("low"))
        if column == "volume":
            size = np.log(market.bars.column("volume")) - 0.7 * np.log(size)
        else:
            size = np.log(size)
        assert np.mean(size[hour == 15]) - np.mean(size[hour == 3]) == pytest.approx(2 * swing, abs=0.06)
        assert np.mean(size[weekend]) - np.mean(size[~weekend]) == pytest.approx(np.log(factor), abs=0.03)


# ---------------------------------------------------------------- edges


def mean_sharpes(markets, fee_bps):
    return {
        name: np.mean([reference.annual_sharpe(reference.hand_rule(m, name, fee_bps)) for m in markets])
        for name in REGIME_NAMES
    }


def test_each_regime_pays_a_simple_rule_after_costs_and_not_absurdly(markets):
    for name, sharpe in mean_sharpes(markets, 15.0).items():
        assert 0.8 < sharpe < 4.5, name


def test_the_same_rules_earn_nothing_in_a_random_walk():
    placebo = [synthetic_market(config("random_walk", seed=seed)) for seed in range(20, 24)]
    # Twelve years in all: the standard error of an annual Sharpe is 0.29.
    for name, sharpe in mean_sharpes(placebo, 0.0).items():
        assert abs(sharpe) < 4 * 0.29, name
    assert all(sharpe < 0.5 for sharpe in mean_sharpes(placebo, 15.0).values())


# ---------------------------------------------------------------- densities


@given(
    depth=st.floats(0.02, 0.98),
    place=st.floats(0.02, 0.98),
    length=st.floats(0.1, 10),
    y=st.floats(0.05, 3.0),
)
@settings(max_examples=200, deadline=None)
def test_density_of_extremes_equals_its_twin(depth, place, length, y):
    high, low, close = (1 - depth) * length, -depth * length, (place - depth) * length
    twin = reference.extremes_density(high, low, close, y * length**2) * length**3
    found = kernels.extremes_density(depth, place - depth, y)
    assert found == pytest.approx(twin, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("close", [-0.3, 0.0, 1.1])
def test_density_of_extremes_adds_up_to_the_density_of_the_close(close):
    total, step = 0.0, 0.02
    for high in max(close, 0) + step * (np.arange(300) + 0.5):
        for low in min(close, 0) - step * (np.arange(300) + 0.5):
            r = high - low
            total += kernels.extremes_density(-low / r, close / r, 1 / r**2) / r**3 * step**2
    assert total == pytest.approx(stats.norm.pdf(close), rel=1e-3)


def test_both_series_agree_where_one_takes_over():
    for depth, place in np.random.default_rng(0).uniform(0.02, 0.98, (50, 2)):
        one, two = (
            f(depth, place - depth, kernels.Y_IMAGES) for f in (kernels.image_density, kernels.mode_density)
        )
        assert one == pytest.approx(two, rel=1e-9)


def moments_of(market):
    law, bars = TrueLaw.of(market.config), market.bars
    mean, variance = np.empty((len(bars), law.regime_of.size)), np.empty((len(bars), law.regime_of.size))
    kernels.conditional_moments(
        law.parameters, law.scale, bars.column("open"), bars.column("close"),
        law.regime_of, law.direction_of, np.log(market.config.price), mean, variance,
    )  # fmt: skip
    return law, mean, variance


@pytest.mark.parametrize("scenario", ["default", "fat_tails", "separated"])
def test_density_of_a_bar_equals_adaptive_quadrature(scenario):
    market = synthetic_market(config(scenario, n_bars=400))
    law, mean, variance = moments_of(market)
    open_, high, low, close = market.bars.values[:, :4].T.copy()
    found = np.empty_like(mean)
    kernels.bar_log_density(open_, high, low, close, mean, variance, law.dof, found)
    checked = 0
    for t in range(0, 400, 40):
        best = found[t].max()
        for s in range(law.dof.size):
            if found[t, s] < best - 15:  # such a state has no weight left
                continue
            twin = reference.bar_log_density(
                *(np.log(x[t] / open_[t]) for x in (high, low, close)), mean[t, s], variance[t, s], law.dof[s]
            )
            assert found[t, s] == pytest.approx(twin, abs=1e-4)
            checked += 1
    assert checked > 20


def test_a_bar_without_any_range_says_nothing():
    out, flat = np.full((1, 2), np.nan), np.array([100.0])
    kernels.bar_log_density(
        flat, flat, flat, flat, np.zeros((1, 2)), np.full((1, 2), 1e-4), np.array([3.0, 9.0]), out
    )
    assert np.array_equal(out, np.zeros((1, 2)))


# ---------------------------------------------------------------- oracles


def test_close_oracle_equals_bayes_rule_in_plain_numbers():
    market = synthetic_market(config("short_dwell", n_bars=400))
    open_, close = market.bars.column("open"), market.bars.column("close")
    twin = reference.close_probabilities(market.config, TrueLaw.of(market.config), open_, close)
    np.testing.assert_allclose(market.oracle_close.values, twin, rtol=0, atol=1e-9)


def test_probabilities_are_a_table_on_the_clock_of_the_bars():
    market = synthetic_market(config(n_bars=2000))
    for table in (market.oracle, market.oracle_close):
        assert table.names == REGIME_NAMES
        assert np.array_equal(table.time, market.bars.time)
        assert np.all(table.values >= 0)
        np.testing.assert_allclose(table.values.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def calibration(scenario, misread=None, seeds=24, n=5000):
    """Return how many standard errors truth and probability lie apart, (2 oracles, 3 regimes, 5 bins).

    Rows of one market depend on each other, so the standard error is taken over whole markets.
    """
    misses = []
    for seed in range(1000, 1000 + seeds):
        market = synthetic_market(config(scenario, seed=seed, n_bars=n, steps=16))
        reader = market.config if misread is None else misread(market.config)
        truth = market.regime[:, None] == np.arange(3)
        one = []
        for oracle in (bar_oracle, close_oracle):
            probability = oracle(reader, market.bars).values
            place = np.minimum((5 * probability).astype(int), 4)
            one.append(
                [[((truth - probability)[:, r][place[:, r] == b]).sum() for b in range(5)] for r in range(3)]
            )
        misses.append(one)
    misses = np.array(misses)
    return misses.sum(axis=0) / np.sqrt((misses**2).sum(axis=0))


@pytest.mark.parametrize("scenario", ["default", "short_dwell", "fat_tails"])
def test_oracles_mean_what_they_say(scenario):
    misses = calibration(scenario)
    assert np.all(np.abs(misses) < 4)
    assert np.mean(misses**2) < 2.5


def test_an_oracle_with_a_wrong_volatility_does_not():
    def misread(true):
        wrong = true.trending.model_copy(update={"volatility": 1.2 * true.trending.volatility})
        return true.model_copy(update={"trending": wrong})

    misses = calibration("default", misread)
    assert np.max(np.abs(misses[0])) > 4
    assert np.mean(misses**2, axis=(1, 2)).min() > 2.5


def smoothed(market, n):
    """Return what must not be done: probabilities that have seen all n rows (forward-backward)."""
    law, mean, variance = moments_of(market)
    density = np.empty_like(mean)
    bars = market.bars
    kernels.close_log_density(bars.column("open"), bars.column("close"), mean, variance, law.dof, density)
    weight = np.exp(density[:n] - density[:n].max(axis=1, keepdims=True))
    after = np.ones((n, law.dof.size))
    for t in range(n - 2, -1, -1):
        after[t] = law.transition @ (weight[t + 1] * after[t + 1])
        after[t] /= after[t].sum()
    belief, rows = law.stationary, []
    for t in range(n):
        belief = (belief @ law.transition) * weight[t]
        belief /= belief.sum()
        both = belief * after[t]
        rows.append([both[law.regime_of == r].sum() / both.sum() for r in range(3)])
    return np.array(rows)


def test_later_bars_change_no_earlier_probability():
    market = synthetic_market(config(n_bars=3000))
    altered = market.bars.values.copy()
    altered[2000:, :4] *= 1.5
    altered[2000, 0] = altered[1999, 3]
    altered[2000, 2] = min(altered[2000, 2], altered[2000, 0])
    other = type(market.bars)(
        market.bars.time, altered, market.bars.names, "SYN/USDT", market.bars.interval_ns
    )
    for oracle in (bar_oracle, close_oracle):
        whole = oracle(market.config, market.bars).values
        for t in (1, 17, 999, 2000):
            assert oracle(market.config, market.bars[:t]).values.tobytes() == whole[:t].tobytes()
        assert oracle(market.config, other).values[:2000].tobytes() == whole[:2000].tobytes()
        assert oracle(market.config, other).values.tobytes() != whole.tobytes()


def test_smoothed_probabilities_would_be_caught():
    market = synthetic_market(config("short_dwell", n_bars=1000))
    whole = smoothed(market, 1000)
    cuts = range(100, 1000, 100)
    assert max(np.max(np.abs(whole[:t] - smoothed(market, t))) for t in cuts) > 0.05


@pytest.mark.parametrize(
    ("scenario", "least"),
    [("default", 0.90), ("separated", 0.97), ("overlapping", 0.92), ("short_dwell", 0.90),
     ("fat_tails", 0.88), ("drifting", 0.90)],
)  # fmt: skip
def test_ranges_tell_more_than_closes(scenario, least):
    score = np.array(
        [
            [reference.balanced_accuracy(m.regime, table.values) for table in (m.oracle, m.oracle_close)]
            for m in (synthetic_market(config(scenario, seed=seed, n_bars=13_140)) for seed in (1, 2, 3))
        ]
    )
    bar, close = score.mean(axis=0)
    assert bar > least
    assert 0.65 < close < bar - 0.01


def test_an_oracle_refuses_bars_of_another_clock():
    market = synthetic_market(config(n_bars=100))
    with pytest.raises(DataError, match="50 bars do not begin the 100 bars"):
        bar_oracle(market.config, market.bars[50:])
    with pytest.raises(DataError, match="100 bars do not begin the 40 bars"):
        close_oracle(config(n_bars=40), market.bars)


# ---------------------------------------------------------------- settings


def test_the_packaged_file_is_the_default_market():
    text, place = config_text("market.yaml")
    document = parse_yaml(text, place)
    assert validate(SyntheticConfig, document["synthetic"], place) == SyntheticConfig()


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_a_scenario_survives_writing_and_reading(scenario):
    one = config(scenario)
    assert validate(SyntheticConfig, one.model_dump(mode="json"), "config.yaml") == one
    assert one.scenario == scenario


def test_a_setting_beside_the_scenario_replaces_only_itself():
    one = config("fat_tails", volatile={"volatility": 0.02})
    assert one.volatile.volatility == 0.02
    assert one.volatile.dof == config("fat_tails").volatile.dof
    assert one.ranging == config("fat_tails").ranging


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"scenario": "calm"}, "m.yaml: scenario is 'calm'; it must be one of default, separated"),
        ({"timeframe": "1x"}, "m.yaml: timeframe is '1x'; it must be a number and s, m, h, d or w"),
        ({"start": "01.02.2020"}, "m.yaml: start is '01.02.2020'; it must be a date YYYYMMDD"),
        ({"n_bars": 0}, "m.yaml: n_bars is 0; it should be greater than or equal to 1"),
        (
            {"ranging": {"leaving": (0.5, 0.6)}},
            "m.yaml: ranging.leaving is (0.5, 0.6); it must be two chances",
        ),
        (
            {"volatile": {"shock": 0.3}},
            "m.yaml: volatile.memory is 0.85; it must keep shock + memory below 1",
        ),
        ({"volatile": {"volatilty": 0.3}}, "did you mean volatility?"),
        ({"n_bar": 5}, "m.yaml: n_bar is not a setting; did you mean n_bars?"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(document, sentence):
    with pytest.raises(ConfigError) as error:
        validate(SyntheticConfig, document, "m.yaml")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert "more)" not in str(error.value)

"""What a conductor sees: the market against naive twins, the scaler, and the state of a search."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.tsa.stattools import acf

from conductor import market_context, state
from conductor.market_context import CONTEXT_NAMES, ContextScaler, MarketContext, ScaledContext
from conductor.state import (
    BOUND,
    HISTORY_NAMES,
    STATE_NAMES,
    ConductorState,
    squashed,
    state_of,
    state_vectors,
)
from ga.controls import CONTROL_NAMES, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.population import Population
from ga.progress import STATISTIC_NAMES, Chronicle, Outcome
from ga.space import GenomeSpace
from market.bars import OHLCV, Bars
from market.sources.scenarios import SCENARIOS
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from tests.market.bars_factory import HOSTILE, HOUR, flat_bars, random_bars

DAY = 24 * HOUR
NO_MARKET = ScaledContext.unknown()


def walk(returns, volume=None, reach=0.0, price=100.0, interval=HOUR):
    """Bars whose closes make these log returns."""
    close = price * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    open_ = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * math.exp(reach), np.minimum(open_, close) * math.exp(-reach)
    volume = np.ones(len(close)) if volume is None else volume
    time = (np.arange(len(close)) + 1) * interval
    return Bars(time, np.column_stack([open_, high, low, close, volume]), OHLCV, "TEST/USD", interval)


def without(bars, rows):
    """The bars less some rows."""
    kept = np.ones(len(bars), dtype=bool)
    kept[rows] = False
    return dataclasses.replace(bars, time=bars.time[kept], values=bars.values[kept])


def with_values(bars, **columns):
    values = bars.values.copy()
    for name, column in columns.items():
        values[:, OHLCV.index(name)] = column
    return dataclasses.replace(bars, values=values)


def named(bars):
    return dict(zip(CONTEXT_NAMES, MarketContext.of(bars).values.tolist(), strict=True))


# -- the naive twin: the definitions as loops over bars --------------------------------------------------


def directional_index(high, low, close):
    """Wilder's ADX of 14 bars, with TA-Lib's first sums over 13 moves; from its 28th bar on."""
    plus = minus = true_range = average = 0.0
    first, out = [], []
    for t in range(1, len(close)):
        up, down = high[t] - high[t - 1], low[t - 1] - low[t]
        moved = max(high[t] - low[t], abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
        keep = 13 / 14 if t >= 14 else 1.0
        plus = keep * plus + (up if up > down and up > 0 else 0.0)
        minus = keep * minus + (down if down > up and down > 0 else 0.0)
        true_range = keep * true_range + moved
        if t < 14:
            continue
        index = 100 * abs(plus - minus) / (plus + minus)
        if len(first) < 14:
            first.append(index)
            average = sum(first) / 14
        else:
            average = (13 * average + index) / 14
        if len(first) == 14:
            out.append(average)
    return out


def twin(bars):
    time, (_, high, low, close, volume) = bars.time.tolist(), bars.values[:, :5].T.tolist()
    n, interval = len(bars), bars.interval_ns
    y = [math.log(c) for c in close]

    def gapless(t, k):
        return t + k < n and all(time[i + 1] - time[i] == interval for i in range(t, t + k))

    def mean(values):
        return sum(values) / len(values) if values else math.nan

    starts = [t for t in range(n - 1) if gapless(t, 1)]
    r = [y[t + 1] - y[t] for t in starts]
    m = len(r)
    drift, realised = mean(r), mean([x * x for x in r])
    variance = mean([(x - drift) ** 2 for x in r])
    year = 365 * DAY / interval

    last = r[m - m // 4 :]
    blocks = [math.sqrt(mean([x * x for x in r[m - 24 * (k + 1) : m - 24 * k]])) for k in range(m // 24)]
    falls, rises = sum(x * x for x in r if x < 0), sum(x * x for x in r if x >= 0)

    index, begin = [], 0
    for t in range(n):
        if not gapless(t, 1):
            part = slice(begin, t + 1)
            index += directional_index(*(list(map(math.log, x[part])) for x in (high, low, close)))
            begin = t + 1

    clock = [(t - time[0]) / interval for t in time]
    slope, intercept = np.polyfit(clock, y, 1)
    residual = sum((b - intercept - slope * a) ** 2 for a, b in zip(clock, y, strict=True))
    spread = sum((a - mean(clock)) ** 2 for a in clock)
    t_statistic = slope / math.sqrt(residual / (n - 2) / spread)

    ways = [
        abs(y[t + 24] - y[t]) / sum(abs(y[i + 1] - y[i]) for i in range(t, t + 24))
        for t in range(n)
        if gapless(t, 24)
    ]
    long = [(y[t + 10] - y[t] - 10 * drift) ** 2 for t in range(n) if gapless(t, 10)]
    # Lo and MacKinlay's m q (m - q + 1) (1 - q / m) over the number of sums, m - q + 1 without a gap.
    ratio = mean(long) / (10 * (1 - 10 / m)) / (variance * m / (m - 1)) - 1
    pairs = [t for t in range(n) if gapless(t, 2)]
    neighbors = mean([(y[t + 1] - y[t] - drift) * (y[t + 2] - y[t + 1] - drift) for t in pairs])
    bipower = math.pi / 2 * mean([abs(y[t + 1] - y[t]) * abs(y[t + 2] - y[t + 1]) for t in pairs])

    peak = max(h for h, t in zip(high, time, strict=True) if t > time[-1] - 365 * DAY)
    money = [close[t + 1] * volume[t + 1] for t in starts]

    def impact(first):
        rows = [(abs(a), b) for a, b in zip(r[first:], money[first:], strict=True) if b > 0]
        known = len(rows) >= (m - first) / 2
        return (mean([a for a, _ in rows]) + 1e-6) / mean([b for _, b in rows]) if known else math.nan

    return {
        "log_volatility": math.log(math.sqrt(realised * year)),
        "log_volatility_ratio": math.log(math.sqrt(mean([x * x for x in last]) / realised)),
        "volatility_of_volatility": float(np.std(blocks, ddof=1)) / mean(blocks),
        "log_semivariance_ratio": math.log(falls / rises),
        "trend_strength": mean(index) / 100,
        "trend_t_statistic": t_statistic / math.sqrt(n - 2),
        "efficiency": mean(ways),
        "variance_ratio": ratio,
        "autocorrelation": neighbors / variance,
        "skewness": mean([(x - drift) ** 3 for x in r]) / variance**1.5,
        "jump_share": 1 - bipower / realised,
        "drawdown": 1 - close[-1] / peak,
        "log_illiquidity": math.log(impact(m - m // 4) / impact(0)),
    }


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(130, 320),
    seed=st.integers(0, 999),
    gaps=st.integers(0, 6),
    idle=st.sampled_from([0, 0.3, 0.6]),
)
def test_every_feature_equals_its_naive_twin(n, seed, gaps, idle):
    rng = np.random.default_rng(seed)
    bars = random_bars(n, seed)
    bars = with_values(bars, volume=np.where(rng.random(n) < idle, 0.0, bars.column("volume")))
    bars = without(bars, rng.integers(1, n - 1, gaps))
    ours, naive = named(bars), twin(bars)
    assert list(naive) == list(CONTEXT_NAMES)
    for name, value in naive.items():
        assert ours[name] == pytest.approx(value, rel=1e-7, abs=1e-9, nan_ok=True), name


def test_the_twin_tells_a_wrong_definition_from_the_right_one():
    # Each feature of the twin moves when one bar in the middle does, except those that a bar cannot reach.
    bars = random_bars(300, 1)
    altered = without(bars, [290])
    for name, value in twin(bars).items():
        assert twin(altered)[name] != pytest.approx(value, rel=1e-7) or name == "drawdown", name


def test_skewness_and_autocorrelation_equal_those_of_the_libraries():
    bars = random_bars(400, 5)
    returns, ours = np.diff(np.log(bars.column("close"))), named(bars)
    assert ours["skewness"] == pytest.approx(stats.skew(returns))
    assert ours["autocorrelation"] == pytest.approx(acf(returns, nlags=1, adjusted=True)[1])


# -- known values ------------------------------------------------------------------------------------------


def test_a_random_walk_has_the_values_of_theory():
    returns = np.random.default_rng(0).normal(0.0, 0.01, 40_000)
    ours = named(walk(returns))
    assert ours["log_volatility"] == pytest.approx(math.log(0.01 * math.sqrt(8760)), abs=0.01)
    assert ours["log_volatility_ratio"] == pytest.approx(0.0, abs=0.02)
    assert ours["volatility_of_volatility"] == pytest.approx(1 / math.sqrt(48), abs=0.01)
    assert ours["log_semivariance_ratio"] == pytest.approx(0.0, abs=0.05)
    assert abs(ours["trend_t_statistic"]) < 5.0  # the plain t-statistic is 200 times as large
    assert ours["efficiency"] == pytest.approx(1 / math.sqrt(24), abs=0.01)
    assert ours["variance_ratio"] == pytest.approx(0.0, abs=0.05)
    assert ours["autocorrelation"] == pytest.approx(0.0, abs=0.02)
    assert ours["skewness"] == pytest.approx(0.0, abs=0.05)
    assert ours["jump_share"] == pytest.approx(0.0, abs=0.02)


def test_a_trend_is_seen_by_all_that_look_for_one():
    rng = np.random.default_rng(1)
    rising = named(walk(rng.normal(0.01, 0.004, 500)))
    falling = named(walk(rng.normal(-0.01, 0.004, 500)))
    wandering = named(walk(rng.normal(0.0, 0.01, 500)))
    assert rising["trend_t_statistic"] > 20.0
    assert falling["trend_t_statistic"] < -20.0
    assert abs(wandering["trend_t_statistic"]) < 3.0
    for trend in (rising, falling):
        assert trend["trend_strength"] > 0.6 > 0.4 > wandering["trend_strength"]
        assert trend["efficiency"] > 0.95 > 0.3 > wandering["efficiency"]
    assert rising["drawdown"] < 0.02
    assert falling["drawdown"] > 0.9
    assert rising["log_semivariance_ratio"] < -3.0 < 3.0 < falling["log_semivariance_ratio"]


@pytest.mark.parametrize(("echo", "sign"), [(0.5, 1), (-0.5, -1)])
def test_moves_that_go_on_and_moves_that_come_back_have_opposite_signs(echo, sign):
    noise, returns = np.random.default_rng(2).normal(0.0, 0.01, 20_000), np.zeros(20_000)
    for t in range(1, 20_000):
        returns[t] = echo * returns[t - 1] + noise[t]
    ours = named(walk(returns))
    assert ours["autocorrelation"] == pytest.approx(echo, abs=0.02)
    # Of an AR(1): 1 + 2 sum (1 - k / 10) echo^k.
    expected = 2 * sum((1 - k / 10) * echo**k for k in range(1, 10))
    assert ours["variance_ratio"] == pytest.approx(expected, abs=0.08)
    assert math.copysign(1, expected) == sign


def test_a_jump_is_told_from_volatility():
    returns = np.random.default_rng(3).normal(0.0, 0.01, 1000)
    jumped = returns.copy()
    jumped[400] = 0.6
    assert abs(named(walk(returns))["jump_share"]) < 0.1
    assert named(walk(jumped))["jump_share"] == pytest.approx(0.36 / (0.36 + 0.1), abs=0.05)
    assert named(walk(np.where(np.arange(1000) < 500, returns, 5 * returns)))["jump_share"] < 0.1


def test_a_market_turned_upside_down_turns_the_signs():
    returns = np.random.default_rng(4).standard_t(4, 600) * 0.01
    up, down = named(walk(returns)), named(walk(-returns))
    for name in ("log_semivariance_ratio", "trend_t_statistic", "skewness"):
        assert up[name] == pytest.approx(-down[name])
        assert abs(up[name]) > 0.01
    for name in ("log_volatility", "volatility_of_volatility", "efficiency", "variance_ratio", "jump_share"):
        assert up[name] == pytest.approx(down[name])


def test_the_last_quarter_by_hand():
    sign = np.where(np.arange(400) % 2, 1.0, -1.0)
    livelier = named(walk(0.01 * sign * np.where(np.arange(400) < 300, 1.0, 2.0)))
    assert livelier["log_volatility_ratio"] == pytest.approx(math.log(2.0 / math.sqrt((3 + 4) / 4)))
    close = walk(0.01 * sign).column("close")
    thinner = walk(0.01 * sign, volume=np.where(np.arange(401) < 301, 4.0, 2.0) / close)
    assert named(thinner)["log_illiquidity"] == pytest.approx(math.log(3.5 / 2.0))


def test_drawdown_looks_back_one_year_and_no_further():
    n = 500
    close = np.full(n, 100.0) + np.arange(n) % 2
    close[10], close[300], close[-1] = 1000.0, 200.0, 150.0
    bars = walk(np.diff(np.log(close)), price=100.0, interval=DAY)
    assert named(bars)["drawdown"] == pytest.approx(1 - 150 / 200)
    assert named(bars[:370])["drawdown"] == pytest.approx(1 - close[369] / 1000)


def test_a_straight_line_is_known_as_far_as_it_is_anything():
    line = MarketContext.of(walk(np.full(200, 0.001)))
    ours = dict(zip(CONTEXT_NAMES, line.values.tolist(), strict=True))
    assert ours["efficiency"] == pytest.approx(1.0)
    assert ours["trend_t_statistic"] == pytest.approx(1000.0, rel=1e-3)
    assert {name for name, known in zip(CONTEXT_NAMES, line.known, strict=True) if not known} == {
        "variance_ratio",
        "autocorrelation",
        "skewness",
    }


# -- what must not matter ----------------------------------------------------------------------------------


def check_level(context, bars):
    """Features that move with the price level or with the unit of the volume."""
    plain, found = context(bars), set()
    prices = bars.values[:, :4]
    for price, volume in ((1000.0, 1.0), (1e-7, 1.0), (1.0, 1e9), (3.0, 1 / 3)):
        values = np.column_stack([prices * price, bars.values[:, 4] * volume])
        moved = context(dataclasses.replace(bars, values=values))
        same = np.isclose(moved, plain, rtol=1e-7, atol=1e-10, equal_nan=True)
        found |= {name for name, ok in zip(CONTEXT_NAMES, same, strict=True) if not ok}
    return found


def context_of(bars):
    return MarketContext.of(bars).values


def test_the_price_level_and_the_unit_of_volume_change_nothing():
    for bars in (random_bars(400, 2), walk(np.random.default_rng(0).normal(0, 1e-5, 300), reach=1e-6)):
        assert check_level(context_of, bars) == set()


def test_the_level_check_finds_a_plain_amihud_ratio():
    def planted(bars):
        values = context_of(bars).copy()
        moves = np.abs(np.diff(np.log(bars.column("close"))))
        values[-1] = math.log(np.mean(moves / (bars.column("close") * bars.column("volume"))[1:]))
        return values

    assert check_level(planted, random_bars(400, 2)) == {"log_illiquidity"}


def check_outside(context, bars, rows):
    """Features of the rows of a slice that move when the rows outside of it do."""
    before = context(bars, rows)
    values = bars.values.copy()
    values[rows.stop :] *= 3.0
    values[: rows.start, :4] *= 5.0
    after = context(dataclasses.replace(bars, values=values), rows)
    same = np.isclose(before, after, rtol=0, atol=0, equal_nan=True)
    return {name for name, ok in zip(CONTEXT_NAMES, same, strict=True) if not ok}


def test_bars_outside_the_window_change_no_bit():
    def windowed(bars, rows):
        return context_of(bars[rows])

    for start in (0, 150):
        assert check_outside(windowed, random_bars(600, 3), slice(start, 400)) == set()


def test_the_altered_future_finds_a_look_ahead():
    def peeking(bars, rows):
        values = context_of(bars[rows]).copy()
        values[CONTEXT_NAMES.index("drawdown")] = (
            1 - bars.column("close")[rows][-1] / bars.column("high").max()
        )
        return values

    assert check_outside(peeking, random_bars(600, 3), slice(150, 400)) == {"drawdown"}


# -- gaps, masks, and what is refused ----------------------------------------------------------------------


def test_a_row_without_prices_is_a_missing_row():
    bars, rows = random_bars(300, 6), [20, 21, 150, 299]
    values = bars.values.copy()
    values[rows] = np.nan
    values[150, :3] = 100.0  # some prices are not enough
    gappy = MarketContext.of(Table(bars.time, values, bars.names), HOUR)
    np.testing.assert_array_equal(gappy.values, context_of(without(bars, rows)))
    assert gappy.known.all()


def test_a_step_over_a_gap_is_no_return():
    returns = np.random.default_rng(7).normal(0.0, 0.01, 400)
    returns[199] = 0.7  # from row 199 to row 200
    joined = named(walk(returns))
    time = walk(returns).time + np.where(np.arange(401) >= 200, 30 * HOUR, 0)
    apart = named(dataclasses.replace(walk(returns), time=time))
    calm = math.log(np.sqrt(np.mean(np.delete(returns, 199) ** 2) * 8760))
    assert apart["log_volatility"] == pytest.approx(calm)
    assert joined["log_volatility"] > calm + 0.5
    assert apart["jump_share"] < 0.1 < 0.5 < joined["jump_share"]
    assert abs(apart["skewness"]) < 0.5 < joined["skewness"]
    assert apart["trend_strength"] != joined["trend_strength"]


def test_features_that_need_a_stretch_without_gaps_are_masked_where_there_is_none():
    bars = random_bars(400, 8)
    known = MarketContext.of(without(bars, np.arange(8, 400, 9))).known
    missing = {name for name, ok in zip(CONTEXT_NAMES, known, strict=True) if not ok}
    assert missing == {"trend_strength", "efficiency", "variance_ratio"}


@pytest.mark.parametrize(("idle", "masked"), [(1.0, True), (0.51, True), (0.45, False), (0.0, False)])
def test_liquidity_is_masked_where_the_volume_is_mostly_missing(idle, masked):
    bars = random_bars(4000, 9)
    rest = np.random.default_rng(9).random(4000) < idle
    for nothing in (0.0, np.nan):
        values = bars.values.copy()
        values[rest, 4] = nothing
        context = MarketContext.of(Table(bars.time, values, bars.names), HOUR)
        assert context.known[-1] != masked
        assert context.known[:-1].all()
        np.testing.assert_array_equal(context.values[:-1], context_of(bars)[:-1])


def test_liquidity_is_masked_without_a_volume_column_and_where_volume_stops():
    bars = random_bars(400, 10)
    prices = bars.select(OHLCV[:4])
    assert MarketContext.of(prices, HOUR).known.tolist() == [True] * 12 + [False]
    stopped = with_values(bars, volume=np.where(np.arange(400) < 320, bars.column("volume"), 0.0))
    assert not MarketContext.of(stopped).known[-1]


@pytest.mark.parametrize(
    ("bars", "sentence"),
    [
        (
            flat_bars(300),
            r"TEST/USD 1h: the price moves by 0 of itself per bar; it must move more than 1e-06",
        ),
        (HOSTILE["last digit"](300), r"it must move more than 1e-06"),
        (walk(np.tile([1e-7, -1e-7], 150)), r"moves by 1e-07 of itself per bar; it must move more"),
        (random_bars(96), r"TEST/USD 1h: 95 returns from one bar to the next; it needs 96"),
        (without(random_bars(300), np.arange(0, 300, 2)), r": 0 returns from one bar to the next"),
        (random_bars(5)[:0], r": 0 returns from one bar to the next"),
    ],
    ids=["constant", "last digit", "hardly", "short", "all gaps", "empty"],
)
def test_a_window_that_shows_no_market_is_refused_in_one_sentence(bars, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        MarketContext.of(bars)
    assert "\n" not in str(error.value)


def test_a_price_that_moved_before_the_first_block_only_has_no_volatility_of_volatility():
    context = MarketContext.of(walk(np.where(np.arange(101) < 5, 0.01, 0.0)))  # 4 blocks of 24, and 5 more
    missing = {name for name, ok in zip(CONTEXT_NAMES, context.known, strict=True) if not ok}
    assert missing == {"volatility_of_volatility"}


def test_97_bars_are_enough():
    assert MarketContext.of(random_bars(97)).known.all()


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [(3, -1.0, "price"), (1, np.inf, "price"), (3, 0.0, "price"), (4, -1.0, "volume"), (4, np.inf, "volume")],
)
def test_impossible_numbers_are_refused(column, value, sentence):
    bars = random_bars(200)
    values = bars.values.copy()
    values[77, column] = value
    with pytest.raises(DataError, match=f"{sentence} at 1970-01-04T06:00:00Z"):
        MarketContext.of(Table(bars.time, values, bars.names), HOUR)


def test_a_table_must_say_how_long_its_bars_are():
    bars = random_bars(200)
    with pytest.raises(TypeError, match="interval_ns"):
        MarketContext.of(Table(bars.time, bars.values, bars.names))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bars_give_finite_features_or_a_sentence(name):
    try:
        context = MarketContext.of(HOSTILE[name](400))
    except DataError:
        assert "constant" in name or "last digit" in name or "no binary fraction" in name
    else:
        assert np.isfinite(context.values[context.known]).all()
        assert context.known.sum() >= 9


def test_the_context_remembers_when_its_window_ended_and_cannot_be_changed():
    bars = random_bars(200)
    context = MarketContext.of(bars[:150])
    assert context.until == bars.time[149]
    with pytest.raises(ValueError, match="read-only"):
        context.values[0] = 1.0
    with pytest.raises(ValueError, match="13 numbers"):
        MarketContext(np.zeros(12))
    assert not MarketContext.unknown().known.any()


# -- the scaler --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tasks():
    """Contexts of 203 windows of 250 to 500 bars, from all scenarios."""
    contexts = []
    for k, scenario in enumerate(SCENARIOS):
        bars = synthetic_market(SyntheticConfig(scenario=scenario, seed=k, n_bars=7300, steps=12)).bars
        sizes = np.random.default_rng(k).integers(250, 501, 29)
        contexts += [MarketContext.of(bars[250 * j : 250 * j + size]) for j, size in enumerate(sizes)]
    return contexts


def planted(contexts, **features):
    """The contexts with some features replaced by a number."""
    out = []
    for context in contexts:
        values = context.values.copy()
        for name, value in features.items():
            values[CONTEXT_NAMES.index(name)] = value
        out.append(MarketContext(values, context.until))
    return out


def test_no_feature_is_constant_over_synthetic_windows(tasks):
    assert len(tasks) >= 200
    scaler = ContextScaler.fit(tasks)
    assert scaler.names == CONTEXT_NAMES
    scaled = np.array([scaler.scaled(context).values for context in tasks])
    assert (np.abs(scaled) < scaler.limit).mean(axis=0).min() > 0.9
    assert scaled.std(axis=0).min() > 0.5
    distance = 1 - np.abs(np.corrcoef(scaled.T)) + np.eye(len(CONTEXT_NAMES))
    assert distance.min() > 0.02  # no two say the same


@pytest.mark.parametrize("name", CONTEXT_NAMES)
def test_a_planted_constant_is_found(tasks, name):
    with pytest.raises(DataError, match=f"{name} is the same in all of 203 training tasks"):
        ContextScaler.fit(planted(tasks, **{name: 0.37}))


def test_median_and_quartiles_by_hand():
    rows = [MarketContext(np.full(13, value), until=k) for k, value in enumerate([1.0, 2.0, 3.0, 4.0, 100.0])]
    scaler = ContextScaler.fit(rows)
    assert scaler.center == (3.0,) * 13
    assert scaler.scale == (2.0 / 1.349,) * 13
    assert scaler.fitted_until == 4
    for value, expected in ((3.0, 0.0), (5.0, 1.349), (100.0, 5.0), (-100.0, -5.0)):
        scaled = scaler.scaled(MarketContext(np.full(13, value)))
        np.testing.assert_allclose(scaled.values, expected)
        assert scaled.known.all()


def test_one_wild_task_hardly_moves_the_scale(tasks):
    plain, wild = ContextScaler.fit(tasks), ContextScaler.fit([*tasks, MarketContext(np.full(13, 1e6))])
    np.testing.assert_allclose(wild.scale, plain.scale, rtol=0.05)


def test_what_is_not_known_is_zero_and_masked(tasks):
    scaler = ContextScaler.fit(tasks)
    [context] = planted(tasks[:1], log_illiquidity=np.nan)
    scaled, whole = scaler.scaled(context), scaler.scaled(tasks[0])
    assert scaled.known.tolist() == [True] * 12 + [False]
    assert scaled.values[-1] == 0.0 != whole.values[-1]
    np.testing.assert_array_equal(scaled.values[:-1], whole.values[:-1])


def test_a_feature_that_training_never_knew_stays_masked(tasks):
    scaler = ContextScaler.fit([*planted(tasks, log_illiquidity=np.nan), *tasks[:3]])
    assert scaler.names == CONTEXT_NAMES[:-1]
    assert not scaler.scaled(tasks[0]).known[-1]
    assert scaler.scaled(tasks[0]).values[-1] == 0.0


def test_tasks_without_a_market_teach_nothing(tasks):
    landscapes = [MarketContext.unknown()] * 50
    assert ContextScaler.fit([*landscapes, *tasks]) == ContextScaler.fit(tasks)
    blind = ContextScaler.fit(landscapes)
    assert blind.names == ()
    assert not blind.scaled(tasks[0]).known.any()
    assert not blind.scaled(tasks[0]).values.any()


def test_too_few_tasks_are_refused(tasks):
    with pytest.raises(DataError, match="no training task"):
        ContextScaler.fit([])
    with pytest.raises(DataError, match="3 of 5 training tasks have a market; it needs at least 4"):
        ContextScaler.fit([*tasks[:3], MarketContext.unknown(), MarketContext.unknown()])
    assert ContextScaler.fit(tasks[:4]).names == CONTEXT_NAMES


def test_a_saved_scaler_scales_to_the_same_bits(tasks, tmp_path):
    for contexts in (tasks, planted(tasks, log_illiquidity=np.nan), [MarketContext.unknown()]):
        scaler = ContextScaler.fit(contexts)
        scaler.save(tmp_path / "scaler.json")
        assert ContextScaler.load(tmp_path / "scaler.json") == scaler


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "scaler"},
        {"state_version": market_context.STATE_VERSION + 1},
        {"limit": -1.0},
        {"limit": math.inf},
        {"names": list(CONTEXT_NAMES[::-1])},
        {"names": list(CONTEXT_NAMES[:-1])},
        {"center": ["0"] * 13},
        {"center": [True] * 13},
        {"center": [math.nan] * 13},
        {"scale": [0.0] * 13},
        {"scale": [1.0] * 12},
        {"names": None},
    ],
    ids=str,
)
def test_a_damaged_scaler_is_refused(tasks, tmp_path, damage):
    path = tmp_path / "scaler.json"
    ContextScaler.fit(tasks).save(path)
    document = json.loads(path.read_text())
    assert damage.keys() <= document.keys()
    path.write_text(json.dumps(document | damage))
    with pytest.raises(DataError, match=r"scaler\.json") as error:
        ContextScaler.load(path)
    assert "\n" not in str(error.value)


def test_real_bars_with_gaps_are_known_and_vary(shared_data):
    from pyarrow.parquet import read_table

    table = read_table(
        shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet", columns=["timestamp", *OHLCV]
    )
    open_time = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    bars = Bars(open_time + HOUR, values, OHLCV, "BTC/USDT", HOUR)
    contexts = [MarketContext.of(bars[start : start + 500]) for start in range(0, len(bars) - 500, 500)]
    assert len(contexts) > 100
    assert all(context.known.all() for context in contexts)
    assert ContextScaler.fit(contexts).names == CONTEXT_NAMES


# -- the state ---------------------------------------------------------------------------------------------

D, P = 4, 33
SPACE = GenomeSpace(tuple("abcd"), np.zeros(D), np.ones(D), ("real",) * D)
CONTROLS = GAControls(
    mutation_rate=0.2, mutation_tail=0.3, immigrant_fraction=0.1, restart_fraction=0.3, tournament_size=3.0
)


def rugged(genes):
    """A landscape of many basins, on a grid of 2^-20, so that sums and products below are exact."""
    fitness = np.sin(9.0 * genes).sum(axis=1) - 4.0 * ((genes - 0.4) ** 2).sum(axis=1)
    return np.round(fitness * 2.0**20) / 2.0**20


def progresses(fitness, n_generations=20, seed=3, population_size=P):
    """The progress after each generation of a search."""
    run = Hyperparameters(population_size=population_size, n_generations=n_generations, patience=0)
    evolution, out = Evolution(SPACE, run, np.random.default_rng(seed)), []
    while not evolution.finished:
        evolution.tell(fitness(evolution.ask(CONTROLS)))
        out.append(evolution.progress)
    return out


def states(fitness, see=state_of, n_generations=20, **options):
    return [see(progress, NO_MARKET, **options) for progress in progresses(fitness, n_generations)]


def bits(states):
    return b"".join(s.vector.tobytes() + s.history.tobytes() + s.history_known.tobytes() for s in states)


@pytest.mark.parametrize(("scale", "shift"), [(10.0, 0.0), (1.0, 1000.0), (10.0, -777.0), (0.125, 3.0)])
def test_the_scale_of_fitness_changes_no_bit(scale, shift):
    # Exact because the landscape lies on a grid: no product, sum or difference rounds.
    plain = states(rugged, n_history=16)
    assert bits(states(lambda genes: scale * rugged(genes) + shift, n_history=16)) == bits(plain)
    assert len({s.vector.tobytes() for s in plain}) == len(plain) == 21


def test_the_check_of_scale_finds_a_state_that_shows_fitness():
    def raw(progress, context, **options):
        seen = state_of(progress, context, **options)
        vector = seen.vector.copy()
        vector[0] = progress.best / 100.0
        return dataclasses.replace(seen, vector=vector)

    assert bits(states(lambda genes: 10.0 * rugged(genes), raw)) != bits(states(rugged, raw))


def test_where_fitness_rounds_the_state_moves_by_rounding_alone():
    # A shift of 1,234.5 takes three digits from fitness, and the statistics are their ratios.
    plain = np.array([s.vector for s in states(lambda genes: rugged(genes) * math.pi)])
    moved = np.array([s.vector for s in states(lambda genes: 37.3 * rugged(genes) * math.pi - 1234.5)])
    np.testing.assert_allclose(moved, plain, rtol=0, atol=1e-6)


def hopeless(genes):
    return np.full(len(genes), np.nan)


def flat(genes):
    return np.zeros(len(genes))


def sparse(genes):
    return np.where(genes[:, 0] < 0.9, np.nan, genes[:, 1])


def steps(genes):
    return np.round(3.0 * genes[:, 0])


def giant(genes):
    return 1e300 * rugged(genes)


def beyond(genes):
    return np.where(genes[:, 0] > 0.9, 1.7e308, -1.7e308)  # differences leave float64


def tiny(genes):
    return 5e-324 * np.round(100.0 * genes[:, 0])


def late(genes):
    return np.where(genes[:, 0] > 0.97, rugged(genes), -np.inf)


def check_sound(seen):
    assert seen.vector.dtype == seen.history.dtype == np.float32
    assert seen.vector.shape == (len(STATE_NAMES),)
    assert np.isfinite(seen.vector).all()
    assert np.isfinite(seen.history).all()
    market = np.array([name.startswith("market_") for name in STATE_NAMES])
    assert np.abs(seen.vector[~market]).max() <= BOUND
    assert np.abs(seen.vector[market]).max() <= 5.0
    assert np.abs(seen.history).max(initial=0.0) <= BOUND


@pytest.mark.parametrize("fitness", [hopeless, flat, sparse, steps, giant, beyond, tiny, late])
def test_degenerate_searches_have_finite_bounded_states(fitness):
    for progress in progresses(fitness):
        check_sound(state_of(progress, NO_MARKET, n_history=8))


@pytest.mark.parametrize("fitness", [np.zeros(8), np.full(8, -np.inf), np.arange(8.0)])
def test_clones_have_finite_bounded_states(fitness):
    nobody = np.zeros(8, dtype=bool)
    outcome = Outcome(np.zeros(8, dtype=np.int8), nobody, np.zeros(8), *np.full((2, 8), np.nan), 8, 0, 8, 0)
    chronicle = Chronicle(Hyperparameters(), D)
    for generation in range(3):
        clones = Population(np.full((8, D), 0.5), fitness, np.zeros(8), ~nobody)
        progress = chronicle.record(generation, clones, np.argsort(-fitness), outcome, CONTROLS)
        assert progress.diversity == 0.0
        check_sound(state_of(progress, NO_MARKET, n_history=8))


any_number = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=200, deadline=None)
@given(
    statistics=st.lists(any_number, min_size=len(STATISTIC_NAMES), max_size=len(STATISTIC_NAMES)),
    unit=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    rows=st.integers(0, 5),
    n_history=st.integers(0, 7),
    market=st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), min_size=13, max_size=13),
)
def test_no_state_is_ever_infinite_or_unbounded(tasks, statistics, unit, rows, n_history, market):
    [progress, *_] = progresses(flat, n_generations=1)
    progress = dataclasses.replace(
        progress,
        statistics=np.array(statistics),
        history=np.tile(statistics, (rows, 1)),
        controls=GAControls.from_unit(np.array(unit)),
    )
    values = np.array([np.nan if value is None else value for value in market])
    context = ContextScaler.fit(tasks[:30]).scaled(MarketContext(values))
    seen = state_of(progress, context, n_history=n_history)
    check_sound(seen)
    assert seen.history.shape == (n_history, len(HISTORY_NAMES))
    np.testing.assert_array_equal(seen.vector[state.KNOWN], ~np.isnan(values))


def test_the_check_of_bounds_finds_statistics_that_were_not_squashed():
    progress = progresses(flat)[-1]
    seen = state_of(progress, NO_MARKET)
    loose = np.concatenate([progress.statistics[:26], seen.vector[26:]]).astype(np.float32)
    unknown = np.where(np.arange(64) == 30, np.nan, seen.vector).astype(np.float32)
    for vector in (loose, unknown):
        with pytest.raises(AssertionError):
            check_sound(dataclasses.replace(seen, vector=vector))


def test_squashing_keeps_the_order_of_all_that_a_search_shows():
    ranges = {
        "log_population_size": (math.log(8), math.log(8192)),
        "log_n_genes": (0.0, math.log(1000)),
        "stagnation_share": (0.0, 4.0),
        "fitness_skew": (-1.0, 1.0),
        "fitness_distance_correlation": (-1.0, 1.0),
        "relative_diversity": (0.0, 5.0),
        "log_relative_diversity": (-40.0, 2.0),
        "best_to_centre": (0.0, 10.0),
        "log_step_to_diversity": (-10.0, 40.0),
    }
    for j, name in enumerate(STATISTIC_NAMES):
        values = np.zeros((50, len(STATISTIC_NAMES)))
        values[:, j] = np.linspace(*ranges.get(name, (0.0, 1.0)), 50)
        out = squashed(values).astype(np.float32)
        assert (np.diff(out[:, j]) > 0).all(), name
        assert not np.diff(np.delete(out, j, axis=1), axis=0).any()


def test_the_vector_holds_what_its_names_say():
    progress = progresses(rugged)[7]
    values, known = np.linspace(-5, 5, 13), np.arange(13) % 2 == 0
    seen = state_of(progress, ScaledContext(values, known))
    named_vector = dict(zip(STATE_NAMES, seen.vector.tolist(), strict=True))
    assert named_vector["budget_used"] == np.float32(7 / 20)
    assert named_vector["log_population_size"] == pytest.approx(math.log(33 / 128) / math.log(4))
    assert named_vector["log_n_genes"] == pytest.approx(3 * math.tanh(math.log(4 / 8) / math.log(4) / 3))
    for name in ("success_rate", "median_gap", "age_of_best", "immigrant_success"):
        assert named_vector[name] == np.float32(progress.statistics[STATISTIC_NAMES.index(name)])
    for name in ("log_relative_diversity", "log_step_to_diversity"):
        raw = progress.statistics[STATISTIC_NAMES.index(name)]
        assert named_vector[name] == pytest.approx(3 * math.tanh(raw / 12))
    for name, unit in zip(CONTROL_NAMES, CONTROLS.to_unit(), strict=True):
        assert named_vector[f"previous_{name}"] == np.float32(unit)
    for name, value, seen_it in zip(CONTEXT_NAMES, values, known, strict=True):
        assert named_vector[f"market_{name}"] == np.float32(value)
        assert named_vector[f"known_{name}"] == seen_it
    parts = [state.PROGRESS, state.CONTROLS, state.MARKET, state.KNOWN]
    assert np.concatenate([seen.vector[part] for part in parts]).tobytes() == seen.vector.tobytes()
    np.testing.assert_array_equal(seen.vector[state.CONTROLS], CONTROLS.to_unit().astype(np.float32))


def test_before_anything_was_bred_controls_stand_in_the_middle():
    first = state_of(progresses(rugged)[0], NO_MARKET)
    assert (first.vector[state.CONTROLS] == 0.5).all()


def test_history_is_padded_in_front_and_ends_with_now():
    for generation, progress in enumerate(progresses(rugged)):
        seen = state_of(progress, NO_MARKET, n_history=16)
        n = min(16, generation + 1)
        assert seen.history.shape == (16, len(HISTORY_NAMES))
        assert seen.history_known.tolist() == [False] * (16 - n) + [True] * n
        assert not seen.history[: 16 - n].any()
        expected = squashed(progress.history)[-n:].astype(np.float32)
        np.testing.assert_array_equal(seen.history[16 - n :], expected)
        shown = [HISTORY_NAMES.index(name) for name in state.PROGRESS_NAMES]
        np.testing.assert_array_equal(seen.history[-1, shown], seen.vector[state.PROGRESS])
    assert state_of(progress, NO_MARKET).history.shape == (0, len(HISTORY_NAMES))


def test_the_regime_is_a_label_and_no_input():
    progress = progresses(rugged)[5]
    labelled = [state_of(progress, NO_MARKET, n_history=4, regime=regime) for regime in (-1, 0, 2)]
    assert [one.regime for one in labelled] == [-1, 0, 2]
    assert len({bits([one]) for one in labelled}) == 1
    assert not any("regime" in name for name in STATE_NAMES + HISTORY_NAMES)


def test_states_of_many_runs_at_once_are_those_of_each():
    runs = progresses(rugged)[1:]
    controls = np.array([progress.controls.to_unit() for progress in runs])
    statistics = np.array([progress.statistics for progress in runs])
    together = state_vectors(statistics, controls, NO_MARKET.values, NO_MARKET.known)
    for vector, progress in zip(together, runs, strict=True):
        assert vector.tobytes() == state_of(progress, NO_MARKET).vector.tobytes()
    grid = state_vectors(
        statistics.reshape(4, 5, -1), controls.reshape(4, 5, -1), *dataclasses.astuple(NO_MARKET)
    )
    assert grid.reshape(20, -1).tobytes() == together.tobytes()


def test_states_cannot_be_changed_and_change_nothing():
    progress = progresses(rugged)[5]
    before = progress.history.tobytes()
    seen = state_of(progress, NO_MARKET, n_history=4)
    for array in (seen.vector, seen.history, seen.history_known):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert progress.history.tobytes() == before


def test_the_state_moves_with_the_search():
    vectors = np.array([s.vector for s in states(rugged, n_generations=80)])
    constant = {name for name, column in zip(STATE_NAMES, vectors.T, strict=True) if np.ptp(column) == 0.0}
    of_the_run = {"log_population_size", "log_n_genes"}
    market = {name for name in STATE_NAMES if name.startswith(("market_", "known_"))}
    # no genome repeats or fails in this continuous search
    assert constant <= of_the_run | market | {"duplicate_share", "cached_share", "invalid_share"}
    assert market < constant


#: Version 1. Saved conductors rely on it: whoever changes a name, the order or a definition raises
#: STATE_VERSION and adds the new list here.
VERSION_1 = """
budget_used log_population_size log_n_genes success_rate best_improved stagnation_share improvement_1
improvement_5 improvement_15 median_gap quartile_gap fitness_skew fitness_distance_correlation
relative_diversity log_relative_diversity best_to_centre log_step_to_diversity duplicate_share cached_share
invalid_share restarted_share age_of_best mutation_success crossover_success differential_success
immigrant_success
previous_mutation_rate previous_mutation_step previous_mutation_tail previous_crossover_rate
previous_crossover_spread previous_differential_rate previous_differential_weight previous_tournament_size
previous_elite_fraction previous_immigrant_fraction previous_crowding_rate previous_restart_fraction
market_log_volatility market_log_volatility_ratio market_volatility_of_volatility
market_log_semivariance_ratio market_trend_strength market_trend_t_statistic market_efficiency
market_variance_ratio market_autocorrelation market_skewness market_jump_share market_drawdown
market_log_illiquidity
known_log_volatility known_log_volatility_ratio known_volatility_of_volatility known_log_semivariance_ratio
known_trend_strength known_trend_t_statistic known_efficiency known_variance_ratio known_autocorrelation
known_skewness known_jump_share known_drawdown known_log_illiquidity
"""


def test_the_order_of_the_state_is_pinned_to_its_version():
    assert {1: VERSION_1}[market_context.STATE_VERSION].split() == list(STATE_NAMES)
    assert len(STATE_NAMES) == len(set(STATE_NAMES)) == 64
    assert len(HISTORY_NAMES) == 30
    assert len(CONTEXT_NAMES) == 13
    assert tuple(feature.__name__ for feature in market_context.CONTEXT_FEATURES) == CONTEXT_NAMES
    assert {field.name for field in dataclasses.fields(ConductorState)} == {
        "vector",
        "history",
        "history_known",
        "regime",
    }

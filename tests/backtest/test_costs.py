"""Costs by hand: fee, half spread, and impact from the turnover that was known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import LIQUIDITY_BARS, Costs, ImpactBucket
from configs.load import ConfigError, validate
from market.bars import OHLCV, Bars

HOUR = 3_600_000_000_000
BUCKETS = (
    ImpactBucket(turnover=0, impact_bps=20),
    ImpactBucket(turnover=1_000, impact_bps=10),
    ImpactBucket(turnover=10_000, impact_bps=5),
)


def bars_of(turnover, price=100.0):
    n = len(turnover)
    values = np.column_stack([np.full((n, 4), price), np.asarray(turnover, dtype=float) / price])
    return Bars(HOUR * np.arange(1, n + 1), values, OHLCV, "TEST/USD", HOUR)


def naive(costs, turnover):
    """Return slippage bar by bar: the bucket of the mean turnover of the bars before, at most a day."""
    out = []
    for t in range(len(turnover)):
        past = turnover[max(0, t - LIQUIDITY_BARS) : t]
        if len(past) == 0:
            impact = max(bucket.impact_bps for bucket in costs.impact)
        else:
            mean = sum(past) / len(past)
            impact = [bucket.impact_bps for bucket in costs.impact if mean >= bucket.turnover][-1]
        out.append((costs.half_spread_bps + impact) / 10_000)
    return out


def test_the_fee_is_a_fraction_of_notional_on_every_bar():
    assert Costs(fee_bps=7.5).fees(bars_of([0, 1, 2])).tolist() == [7.5e-4] * 3


def test_the_first_bar_pays_the_most_expensive_bucket_and_later_ones_what_was_known():
    costs = Costs(half_spread_bps=1, impact=BUCKETS)
    slippage = costs.slippage(bars_of([50_000, 50_000, 0, 0]))
    # Means before each bar: none, 50,000, 50,000, 33,333.
    assert slippage == pytest.approx([21e-4, 6e-4, 6e-4, 6e-4], rel=1e-15)


def test_a_bar_is_not_charged_by_its_own_turnover():
    costs = Costs(impact=BUCKETS)
    quiet, loud = [500.0] * 30, [500.0] * 30
    loud[20] = 1e9
    one, two = costs.slippage(bars_of(quiet)), costs.slippage(bars_of(loud))
    assert np.array_equal(one[:21], two[:21])
    assert two[21] < one[21]


def test_a_turnover_is_forgotten_after_a_day_of_bars():
    costs = Costs(half_spread_bps=0, impact=BUCKETS)
    turnover = [10_000.0 * LIQUIDITY_BARS] + [0.0] * (LIQUIDITY_BARS + 2)
    slippage = costs.slippage(bars_of(turnover))
    assert slippage[LIQUIDITY_BARS] == pytest.approx(5e-4)
    assert slippage[LIQUIDITY_BARS + 1] == pytest.approx(20e-4)


def test_a_mean_exactly_at_a_bucket_belongs_to_it():
    slippage = Costs(half_spread_bps=0, impact=BUCKETS).slippage(bars_of([1_000.0, 1_000.0]))
    assert slippage[1] == pytest.approx(10e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90))
def test_slippage_equals_a_loop_over_bars(seed, n):
    rng = np.random.default_rng(seed)
    turnover = np.round(np.exp(rng.normal(8, 2, n)))
    costs = Costs(half_spread_bps=2, impact=BUCKETS)
    assert costs.slippage(bars_of(turnover, 1.0)) == pytest.approx(naive(costs, turnover.tolist()), rel=1e-14)


def test_slippage_of_a_bar_does_not_depend_on_where_the_bars_start_or_end():
    rng = np.random.default_rng(1)
    bars = bars_of(np.exp(rng.normal(8, 2, 300)))
    costs = Costs(impact=tuple(ImpactBucket(turnover=x, impact_bps=x % 97) for x in np.arange(0, 2e4, 50.0)))
    whole = costs.slippage(bars)
    for first, last in ((0, 25), (40, 41 + LIQUIDITY_BARS), (100, 300), (7, 290)):
        part = costs.slippage(bars[first:last])
        known = LIQUIDITY_BARS if first else 0
        assert np.array_equal(part[known:], whole[first + known : last])


def test_the_defaults_are_pessimistic_for_a_thin_market_and_rise_with_it():
    thin, deep = (Costs().slippage(bars_of([x] * 3))[2] for x in (1e3, 1e8))
    assert thin == pytest.approx(16e-4)
    assert deep == pytest.approx(3e-4)


def test_no_bars_cost_nothing():
    bars = bars_of([1.0])[:0]
    assert Costs().slippage(bars).size == 0
    assert Costs().fees(bars).size == 0


def test_scaled_costs_are_all_costs_times_the_factor():
    bars = bars_of(np.geomspace(10, 1e6, 60))
    costs = Costs(fee_bps=8, half_spread_bps=2, impact=BUCKETS, delay_bars=2)
    for factor in (0.0, 0.5, 3.0):
        scaled = costs.scaled(factor)
        assert scaled.fees(bars) == pytest.approx(factor * costs.fees(bars), rel=1e-14)
        assert scaled.slippage(bars) == pytest.approx(factor * costs.slippage(bars), rel=1e-14)
        assert scaled.delay_bars == 2


@pytest.mark.parametrize(
    "impact",
    [
        [],
        [{"turnover": 5, "impact_bps": 1}],
        [{"turnover": 0, "impact_bps": 1}, {"turnover": 0, "impact_bps": 1}],
        [
            {"turnover": 0, "impact_bps": 1},
            {"turnover": 9, "impact_bps": 1},
            {"turnover": 3, "impact_bps": 1},
        ],
        [{"turnover": 0, "impact_bps": -1}],
    ],
)
def test_buckets_that_do_not_start_at_zero_and_rise_are_refused(impact):
    with pytest.raises(ConfigError):
        validate(Costs, {"impact": impact}, "costs")


@pytest.mark.parametrize("wrong", [{"fee_bps": -1}, {"delay_bars": -1}, {"delay_bars": 0.5}, {"fee": 1}])
def test_impossible_costs_are_refused(wrong):
    with pytest.raises(ConfigError):
        validate(Costs, wrong, "costs")


# Size: the square-root law, the maker's fee, the room of a bar.


def test_impact_of_size_is_the_deviation_times_the_root_of_the_share_of_turnover(make_bars):
    bars = make_bars(200, seed=3)
    close, volume = bars.column("close"), bars.column("volume")
    coefficient = Costs(size_impact=1.5).impact_coefficient(bars)
    t = 150
    moves = close[t - 24 : t] / close[t - 25 : t - 1] - 1
    sigma, turnover = np.sqrt(np.mean(moves**2)), np.mean((close * volume)[t - 24 : t])
    # An order as large as a bar's turnover moves the price by 1.5 deviations.
    assert coefficient[t] * np.sqrt(turnover) == pytest.approx(1.5 * sigma, rel=1e-12)
    assert not Costs().impact_coefficient(bars).any()


def test_impact_of_size_and_room_know_no_later_bar(make_bars):
    bars = make_bars(200, seed=3)
    values = bars.values.copy()
    values[100:, :4] *= 3.0
    values[100:, 4] += 1e6
    altered = Bars(bars.time, values, bars.names, bars.symbol, bars.interval_ns)
    costs = Costs(size_impact=1.0, participation=0.1)
    # Row 100 is known before bar 100; the room of a bar is its own volume.
    assert np.array_equal(costs.impact_coefficient(bars)[:101], costs.impact_coefficient(altered)[:101])
    assert np.array_equal(costs.room(bars)[:100], costs.room(altered)[:100])
    assert not np.array_equal(costs.impact_coefficient(bars)[101:], costs.impact_coefficient(altered)[101:])


def test_room_is_a_share_of_the_volume_in_whole_lots(make_bars):
    bars = make_bars(50, seed=1)
    assert np.isinf(Costs().room(bars)).all()
    room = Costs(participation=0.025).room(bars)
    assert room == pytest.approx(0.025 * bars.column("volume"))
    lots = Costs(participation=0.025).room(bars, 0.01) / 0.01
    assert np.allclose(lots, np.round(lots), atol=1e-6)
    assert (lots * 0.01 <= room * (1 + 1e-9)).all()


def test_stress_scales_the_makers_fee_and_the_impact_of_size():
    costs = Costs(maker_fee_bps=2, size_impact=0.5).scaled(3)
    assert (costs.maker_fee_bps, costs.size_impact) == (6, 1.5)
    assert Costs().scaled(3).maker_fee_bps is None

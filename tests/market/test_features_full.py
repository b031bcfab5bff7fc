"""The full set of features: naive twins, values by hand, neutral markets, the clock, and the laws of flow."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import OHLCV, Bars, timeframe_ns
from market.features.feature import (
    CLOSE,
    FEATURES,
    TIME,
    BarColumn,
    Feature,
    Window,
    feature_names,
    ordered,
)
from market.features.fractional import WIDTH
from market.features.pipeline import BLOCK_ROWS, SPARE_ROWS, FeaturePipeline, FeaturesConfig
from market.features.volatility import RETURN
from tests.conformance.laws import (
    POISONS,
    check_altered_future,
    check_chunk_law,
    check_finite_after_warmup,
    check_inputs_untouched,
    check_start_invariance,
    replaced_by,
)
from tests.market.bars_factory import HOSTILE, HOUR, flat_bars, make_bars, random_bars
from tests.reference.further_features import TWINS

N = 2400
PATTERNS = ("shooting_star", "piercing", "inside_bar", "three_soldiers", "marubozu")
#: What a market at rest shows where that is not 0; the clock goes on.
AT_REST = {"downside_ratio_72", "doji"}


def pipeline(*names):
    return FeaturePipeline(FeaturesConfig(names=names or "full"))


def column(name, bars):
    """The values of one feature, its warm-up left out."""
    rows = pipeline(name).update(bars)
    return rows.values[rows.warmup :, 0]


def with_outages(bars, seed=0):
    """The bars without some of them, in rows of one to nine."""
    missing = np.zeros(len(bars), bool)
    for start in np.random.default_rng(seed).integers(0, len(bars), len(bars) // 60):
        missing[start : start + 1 + start % 9] = True
    return Bars(bars.time[~missing], bars.values[~missing], OHLCV, bars.symbol, HOUR)


def clock(moments, interval="1h"):
    """Flat bars that close at some moments."""
    time = np.array([int(moment.timestamp()) * 10**9 for moment in moments])
    values = np.tile([1.0, 1.0, 1.0, 1.0, 1.0], (len(time), 1))
    return Bars(time, values, OHLCV, "TEST/USD", timeframe_ns(interval))


@pytest.fixture(scope="module")
def bars():
    return with_outages(random_bars(N, seed=11, gap=0.006))


@pytest.fixture(scope="module")
def whole():
    return pipeline()


@pytest.fixture(scope="module")
def rows(bars, whole):
    return whole.fresh().update(bars)


# -- the set -----------------------------------------------------------------------------------------------


def test_the_full_set_has_at_least_107_columns_of_bars_alone(whole):
    assert len(whole.names) >= 107
    assert whole.joined == ()
    reads = {name for feature in whole.config.selected() for name in feature.reads}
    assert reads == {*OHLCV, "time"}


def test_the_full_set_remembers_no_longer_than_the_core_set(whole):
    # The embargo between training and test rows is the longest memory of a feature.
    assert whole.warmup == FeaturePipeline().warmup


def test_every_further_feature_has_a_twin():
    assert set(feature_names("full")) - set(feature_names("all")) == set(TWINS)


def test_no_two_columns_say_the_same(rows):
    values = rows.values[rows.warmup :]
    values = values[:, np.ptp(values, axis=0) > 0]
    found = np.abs(np.corrcoef(values.T))
    np.fill_diagonal(found, 0.0)
    assert found.max() < 0.9999


# -- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(TWINS) - set(PATTERNS)))
def test_feature_equals_its_naive_twin(name, bars, rows):
    first = FEATURES.get(name).warmup
    expected, found = TWINS[name](bars)[first:], rows.column(name)[first:]
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_equals_its_naive_twin(name, bars, rows):
    first = FEATURES.get(name).warmup
    expected = TWINS[name](bars)[first:]
    assert (expected != 0).sum() >= 5
    np.testing.assert_array_equal(rows.column(name)[first:], expected)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("fractional_40", "fractional_20"),
        ("vwap_gap_24", "twap_gap_24"),
        ("yang_zhang_24", "rogers_satchell_24"),
        ("session_us", "session_europe"),
        ("skewness_72", "skewness_168"),
    ],
)
def test_the_twin_of_another_feature_is_told_apart(name, wrong, bars, rows):
    first = rows.warmup
    expected, found = TWINS[wrong](bars)[first:], rows.column(name)[first:]
    assert np.abs(found - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("shooting_star", talib.CDLSHOOTINGSTAR),
        ("piercing", talib.CDLPIERCING),
        ("piercing", talib.CDLDARKCLOUDCOVER),
    ],
)
def test_wherever_talib_sees_the_pattern_we_do(name, pattern):
    gapping = random_bars(20_000, seed=5, gap=0.012)
    *prices, _ = (gapping.column(which) for which in OHLCV)
    seen = np.sign(pattern(*prices)).astype(float)
    first = FEATURES.get(name).warmup + 2
    found = pipeline(name).update(gapping).column(name)
    assert (seen[first:] != 0).sum() >= 3
    np.testing.assert_array_equal(found[first:][seen[first:] != 0], seen[first:][seen[first:] != 0])


def test_values_by_hand():
    # Ten rises of 10 %, then one fall of 10 %; each bar a point, so ranges are the moves.
    close = np.concatenate([1.1 ** np.arange(12.0), [1.1**10]])
    bars = make_bars(close, close, close, close, np.full(13, 2.0))
    assert column("streak_12", bars)[0] == -1 / 12
    rising = make_bars(close[:-1], close[:-1], close[:-1], close[:-1], np.ones(12))
    both = pipeline("return_8", "up_share_24").update(rising).column("return_8")
    np.testing.assert_allclose(both[8:], 8 * np.log(1.1))
    four = make_bars([2, 2, 2, 2], [4, 4, 4, 8], [1, 1, 1, 2], [2, 2, 2, 4], [1, 1, 1, 1])
    np.testing.assert_allclose(column("close_location_1", four), [-1 / 3] * 4)


def test_a_straight_line_is_told_from_noise():
    line = 100.0 + np.arange(200.0)
    rising = make_bars(line, line, line, line, np.ones(200))
    falling = make_bars(*[line[::-1]] * 4, np.ones(200))
    assert column("trend_fit_96", rising) == pytest.approx(1.0)
    assert column("trend_fit_96", falling) == pytest.approx(-1.0)
    assert column("choppiness_24", rising) == pytest.approx(0.0)
    assert column("permutation_entropy_96", rising).max() == 0.0
    noise = random_bars(4000, seed=2, gap=0.0)
    assert np.abs(np.median(column("trend_fit_24", noise))) < 0.3
    assert column("permutation_entropy_96", noise).min() > 0.8


def test_the_hurst_exponent_is_centered_and_knows_persistence():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 6000)
    persistent = np.convolve(noise, np.ones(24), "full")[:6000] / 5
    found = {}
    for name, moves in (("none", noise), ("some", persistent), ("back", np.diff(noise, prepend=0.0))):
        close = 100 * np.exp(np.cumsum(moves))
        found[name] = column("hurst_128", make_bars(close, close, close, close, np.ones(6000))).mean()
    assert abs(found["none"]) < 0.03
    assert found["some"] > 0.15
    assert found["back"] < -0.15


def test_spreads_of_a_bouncing_market_are_found():
    # A martingale seen through a spread of 1 %: every close is half of it above or below.
    rng = np.random.default_rng(3)
    ticks = rng.normal(0, 0.0005, 40 * 4000).cumsum() + rng.choice([-0.005, 0.005], 40 * 4000)
    path = 100 * np.exp(ticks.reshape(4000, 40).T)
    bars = make_bars(path[0], path.max(0), path.min(0), path[-1], np.ones(4000))
    assert column("roll_spread_72", bars).mean() == pytest.approx(0.01, rel=0.25)
    assert column("abdi_ranaldo_24", bars).mean() == pytest.approx(0.01, rel=0.25)


def test_all_range_estimators_agree_on_a_diffusion():
    rng = np.random.default_rng(4)
    steps = rng.normal(0, 0.01 / np.sqrt(400), (400, 3000))
    path = 100 * np.exp(steps.cumsum(0) + np.concatenate([[0], steps.sum(0).cumsum()[:-1]]))
    before = np.concatenate([[100.0], path[-1, :-1]])
    high, low = np.maximum(path.max(0), before), np.minimum(path.min(0), before)
    bars = make_bars(before, high, low, path[-1], np.ones(3000))
    names = ("parkinson_168", "rogers_satchell_24", "yang_zhang_168", "volatility_168", "garman_klass_24")
    rows = pipeline(*names).update(bars)
    means = rows.values[rows.warmup :].mean(axis=0)
    np.testing.assert_allclose(means, 0.01, rtol=0.08)  # ranges of 400 steps fall a little short


# -- fractional differences --------------------------------------------------------------------------------


def plainly_truncated(prices, first, out):
    order, weight = 0.4, 1.0
    out[:] = 0.0
    for k in range(WIDTH):
        out[:] += weight * np.log(prices[first - k : prices.size - k])
        weight *= -(order - k) / (k + 1)


def test_fractional_differences_are_free_of_the_price_level_where_plain_truncation_is_not(monkeypatch):
    bars = random_bars(700, seed=6)
    scaled = Bars(bars.time, bars.values * 1024.0, OHLCV, "", HOUR)
    np.testing.assert_array_equal(column("fractional_40", bars), column("fractional_40", scaled))
    plain = Feature("plain", Window(plainly_truncated, (CLOSE,), lookback=WIDTH))
    monkeypatch.setitem(FEATURES._plugins, "plain", plain)
    assert np.abs(column("plain", scaled) - column("plain", bars)).min() > 0.1


def test_order_one_is_the_return_and_order_zero_the_whole_move():
    from market.features.fractional import _fractional

    bars = random_bars(600, seed=6)
    moves = np.diff(np.log(bars.column("close")))
    for order, expected in ((100, moves[254:]), (0, np.log(bars.column("close"))[255:])):
        out = np.empty(moves.size - 254)
        _fractional(np.ascontiguousarray(moves), order, WIDTH, 254, out)
        start = 0 if order else np.log(bars.column("close"))[: out.size]
        np.testing.assert_allclose(out, expected - start, atol=1e-12)


def test_higher_orders_remember_less():
    bars = random_bars(6000, seed=8, gap=0.0)
    log_price = np.log(bars.column("close"))
    memory = []
    for name in ("fractional_20", "fractional_40", "fractional_60"):
        found = column(name, bars)
        memory.append(abs(np.corrcoef(found, log_price[-found.size :])[0, 1]))
    assert memory == sorted(memory, reverse=True)


# -- the clock ---------------------------------------------------------------------------------------------


def test_time_reaches_kernels_as_exact_seconds():
    moments = [datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC), datetime(2033, 1, 1, 0, 0, 1, tzinfo=UTC)]
    stamped = clock(moments)
    seconds = TIME.read(stamped, None)
    assert seconds.tolist() == [int(moment.timestamp()) for moment in moments]
    assert FEATURES.get("hour_sin").reads == ("time",)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        # A Friday, the last of the month: settlement and expiry pass at eight.
        ("2024-06-28T08:00", {"funding_wait": 1.0, "funding_hour": 0.0, "expiry_wait": 28 / 35}),
        ("2024-06-28T07:30", {"funding_wait": 1 / 16, "funding_hour": 1.0, "expiry_wait": 0.5 / 24 / 35}),
        ("2024-02-29T12:00", {"month_turn": 1.0, "weekend": 0.0, "session_europe": 1.0}),
        ("2023-02-28T12:00", {"month_turn": 1.0}),
        ("2024-02-28T12:00", {"month_turn": 0.0}),
        ("2024-03-03T23:00", {"month_turn": 1.0, "weekend": 1.0, "session_us": 0.0}),
        ("2024-03-04T00:00", {"month_turn": 0.0, "weekend": 0.0, "session_asia": 1.0, "weekday_cos": 1.0}),
        ("2024-03-04T13:29", {"session_us": 0.0, "session_europe": 1.0, "session_asia": 0.0}),
        ("2024-03-04T13:30", {"session_us": 1.0}),
        ("2023-12-31T18:00", {"month_turn": 1.0, "hour_sin": -1.0}),
        ("2100-02-28T00:00", {"month_turn": 1.0}),  # no leap year
        ("2000-02-28T00:00", {"month_turn": 0.0}),  # a leap year
        ("1969-12-31T06:00", {"month_turn": 1.0, "hour_sin": 1.0, "weekend": 0.0}),
    ],
)
def test_moments_by_hand(moment, expected):
    row = pipeline(*expected).update(clock([datetime.fromisoformat(moment).replace(tzinfo=UTC)]))
    for name, value in expected.items():
        assert row.column(name)[0] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(start=st.datetimes(datetime(1971, 1, 1), datetime(2150, 1, 1)), step=st.integers(1, 40 * 86_400))
def test_the_calendar_agrees_with_the_library_at_any_time(start, step):
    start = start.replace(microsecond=0, tzinfo=UTC)
    stamped = clock([start + timedelta(seconds=i * step) for i in range(5)], "1s")
    names = tuple(name for name in feature_names("full") if FEATURES.tags(name)["subject"] == "sessions")
    names = tuple(name for name in names if name != "outage_24")
    found = pipeline(*names).update(stamped)
    for name in names:
        np.testing.assert_allclose(found.column(name), TWINS[name](stamped), atol=1e-9, err_msg=name)


def test_an_outage_shows_and_passes():
    bars = random_bars(200)
    kept = np.r_[0:100, 124:200]
    found = column("outage_24", Bars(bars.time[kept], bars.values[kept], OHLCV, "", HOUR))
    assert found[100 - 24 - 1] == 0.0
    assert found[100 - 24] == pytest.approx(np.log(2.0))
    assert found[-1] == 0.0


# -- neutral values, units, hostile markets ----------------------------------------------------------------


def without_clock(names):
    return [name for name in names if FEATURES.get(name).reads != ("time",)]


def test_a_market_at_rest_is_zero_elsewhere(whole):
    rows = whole.fresh().update(flat_bars(N, price=0.1, volume=0.0))
    moving = {name for name in without_clock(rows.names) if abs(rows.column(name)[-1]) > 1e-6}
    assert moving == AT_REST


@pytest.mark.parametrize(("prices", "volumes"), [(2.0**20, 1.0), (2.0**-12, 2.0**30), (0.5, 8.0)])
def test_features_are_free_of_the_units_of_price_and_volume(prices, volumes, bars, rows, whole):
    # Powers of two scale without rounding.
    scaled = Bars(bars.time, bars.values * ([prices] * 4 + [volumes]), bars.names, bars.symbol, HOUR)
    np.testing.assert_array_equal(whole.fresh().update(scaled).values, rows.values)


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_every_value_is_finite_after_its_warmup_on(whole, name):
    check_finite_after_warmup(whole, HOSTILE[name](2100))


def test_bounded_features_keep_their_bounds():
    bounds = {
        (-1, 1): "trend_fit_24 streak_12 true_strength_13_25 ultimate_7_14_28 stochastic_rsi_14 up_share_24 "
        "rsi_48 semivariance_balance_24 leverage_96 volume_balance_8 price_volume_correlation_72 "
        "move_volume_correlation_72 bulk_imbalance_24 body_mean_24 wick_balance_24 tail_balance_168 "
        "autocorrelation_168_lag_24 clustering_96 return_rank_168 range_rank_168 volume_rank_168 "
        "close_location_1 close_location_336 close_location_672",
        (
            0,
            1,
        ): "choppiness_24 jump_share_72 volume_concentration_24 bulk_toxicity_72 funding_wait expiry_wait "
        "permutation_entropy_96 return_entropy_168",
    }
    for make in HOSTILE.values():
        rows = pipeline(*" ".join(bounds.values()).split()).update(make(1200))
        for (least, most), names in bounds.items():
            for name in names.split():
                values = rows.column(name)[rows.warmup :]
                assert least - 1e-9 <= values.min() <= values.max() <= most + 1e-9, name


# -- laws --------------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(0, N), max_size=12), single=st.integers(0, N - 40), seed=st.integers(0, 5))
def test_cutting_bars_anywhere_changes_no_bit(cuts, single, seed):
    bars = with_outages(random_bars(N, seed=seed), seed)
    check_chunk_law(pipeline(), bars, [*cuts, *range(single, single + 40)])


def test_bar_by_bar_from_the_very_first_equals_batch(whole, bars):
    # Past the row where the working table moves its past to the front, and past the warm-up.
    check_chunk_law(whole, bars, [*range(SPARE_ROWS + 40), *range(whole.warmup - 20, whole.warmup + 20)])


def test_a_long_chunk_leaves_no_more_memory_behind_than_single_rows_need(bars):
    stage = pipeline("return_2", "rsi_14")
    stage.update(bars)
    assert stage._work.shape[1] <= stage._kept + SPARE_ROWS < len(bars)


@pytest.mark.parametrize("n", [1, SPARE_ROWS - 1, SPARE_ROWS, SPARE_ROWS + 1])
def test_chunks_about_as_long_as_the_spare_rows_change_no_bit(n):
    check_chunk_law(pipeline("close_location_336", "rsi_14"), random_bars(1700), range(0, 1700, n))


def test_long_inputs_taken_in_blocks_change_no_bit(monkeypatch, whole, bars, rows):
    assert len(bars) < BLOCK_ROWS
    monkeypatch.setattr("market.features.pipeline.BLOCK_ROWS", 97)
    np.testing.assert_array_equal(whole.fresh().update(bars).values, rows.values)


@pytest.mark.parametrize("name", ["ends of float64", "frozen feed", "one bad tick", "last digit"])
def test_hostile_bars_obey_the_chunk_law_too(whole, name):
    check_chunk_law(whole, HOSTILE[name](N), [1, 2, 3, 30, 31, 700, 1959, 1960, 1961])


@pytest.mark.parametrize("poison", sorted(POISONS))
@pytest.mark.parametrize("row", [0, 500, 1970])
def test_another_future_changes_no_row_before_it(whole, bars, row, poison):
    check_altered_future(whole, bars, row, POISONS[poison])


def test_another_market_afterwards_changes_no_row_before_it(whole, bars):
    check_altered_future(whole, bars, 2000, replaced_by(random_bars(N, seed=9, price=3e-5)))


def test_features_repeat_themselves_and_leave_the_bars_alone(whole, bars):
    check_inputs_untouched(whole, bars)


def test_each_column_is_nan_in_its_own_warmup_and_no_longer(whole, rows):
    for name in whole.names:
        unknown = np.isnan(rows.column(name))
        assert unknown[: whole.warmups[name]].all()
        assert not unknown[whole.warmups[name] :].any()


def test_where_the_stream_begins_no_longer_matters_after_the_warmup(whole):
    check_start_invariance(whole, with_outages(random_bars(6000, seed=3)), range(150, 1651, 500))


def test_windows_forget_their_start_to_the_last_bit_behind_a_bad_tick_too():
    columns = random_bars(4000, seed=8)
    values = columns.values.copy()
    values[100, :4] *= 1e6
    plain = (BarColumn, Window, type(TIME))
    names = [
        name
        for name in feature_names("full")
        if all(isinstance(node, plain) for node in ordered([FEATURES.get(name).node]))
    ]
    assert len(names) >= 110
    spiked = Bars(columns.time, values, OHLCV, columns.symbol, HOUR)
    check_start_invariance(pipeline(*names), spiked, [700], tolerance=0.0)


def test_start_invariance_on_bitcoin(whole, shared_data):
    import pandas as pd

    frame = pd.read_parquet(shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet").iloc[20_000:27_000]
    time = frame["timestamp"].astype("datetime64[ns, UTC]").astype("int64").to_numpy() + HOUR
    bars = Bars(time, frame[list(OHLCV)].to_numpy(np.float64), OHLCV, "BTC/USDT", HOUR)
    check_start_invariance(whole, bars, [1, 777, 3100])


# -- planted violators -------------------------------------------------------------------------------------


def planted(monkeypatch, node):
    monkeypatch.setitem(FEATURES._plugins, "planted", Feature("planted", node))
    return pipeline("rsi_4", "planted")


def next_step(time, first, out):
    out[:] = np.append(np.diff(time[first:]), 3600.0)


def since_the_start(returns, first, out):
    known = np.nan_to_num(returns[first:])
    out[:] = np.cumsum(known)


def test_a_clock_that_looks_ahead_is_caught(monkeypatch):
    # The clock tells when the next bar comes, and so whether an outage begins.
    bars = with_outages(random_bars(400))
    check_chunk_law(planted(monkeypatch, FEATURES.get("outage_24").node), bars, range(100, 140))
    with pytest.raises(AssertionError, match="column planted"):
        check_chunk_law(planted(monkeypatch, Window(next_step, (TIME,))), bars, range(len(bars)))


@pytest.mark.parametrize(
    ("name", "warmup"), [("true_strength_13_25", 140), ("ewma_volatility_ratio", 180), ("trix_15", 60)]
)
def test_a_warmup_cut_short_is_caught(name, warmup):
    bars = random_bars(2500, seed=3)
    check_start_invariance(pipeline(name), bars, [150, 450])

    class Hasty(FeaturePipeline):
        def __init__(self, config):
            super().__init__(config)
            self.warmups, self.warmup, self._first_known = {name: warmup}, warmup, np.array([warmup])

    with pytest.raises(AssertionError, match=f"column {name}"):
        check_start_invariance(Hasty(pipeline(name).config), bars, [150, 450])


def test_a_sum_since_the_start_is_caught(monkeypatch):
    stage = planted(monkeypatch, Window(since_the_start, (RETURN,)))
    with pytest.raises(AssertionError, match="column planted"):
        check_start_invariance(stage, random_bars(900), [100])


def test_a_feature_with_a_unit_is_caught(monkeypatch, bars):
    stage = planted(monkeypatch, CLOSE)
    scaled = Bars(bars.time, bars.values * 2.0, bars.names, bars.symbol, HOUR)
    before, after = (stage.fresh().update(given).values[300:] for given in (bars, scaled))
    assert np.array_equal(before[:, 0], after[:, 0])
    assert not np.array_equal(before[:, 1], after[:, 1])

"""Features of peers, external series and taker volume: twins, what is not known and since when, the laws."""

import dataclasses

import numpy as np
import pytest

from configs.load import ConfigError, load
from market.bars import OHLCV, Bars
from market.causal import transform
from market.external import AsOfJoin, ExternalSeries
from market.features import cross, cross_kernels, liquidity, volume
from market.features.cross import FLOW, PEER, SERIES, JoinedFeaturesConfig, joined
from market.features.feature import Feature, JoinedColumn, Window
from market.features.pipeline import PRICE_LIMITS, FeaturePipeline
from market.table import DataError, Table
from tests.conformance.laws import (
    POISONS,
    check_altered_future,
    check_chunk_law,
    check_finite_after_warmup,
    check_inputs_untouched,
    check_start_invariance,
)
from tests.market.bars_factory import HOUR, flat_bars, random_bars
from tests.reference import cross_features as twins

N = 2400
DAY = 24 * HOUR
CONFIG = JoinedFeaturesConfig(names=("return_1",), peers=("eth",), series=("vix",), taker=True)


def with_taker(bars, seed=0, unknown=0.0):
    """Bars with a column of taker volume, of which some rows are not known."""
    rng = np.random.default_rng(seed)
    bought = bars.column("volume") * rng.beta(3, 3, len(bars))
    bought[rng.random(len(bars)) < unknown] = np.nan
    values = np.column_stack([bars.values, bought])
    return Bars(bars.time, values, (*OHLCV, "taker_buy_volume"), bars.symbol, bars.interval_ns)


def daily(n, seed=0, delay=6 * HOUR, name="vix"):
    """A daily series about each midnight, reported six hours later, with holes on some days."""
    rng = np.random.default_rng(seed)
    event = np.arange(3, n // 24) * DAY
    event = event[rng.random(event.size) > 0.2]
    return ExternalSeries.delayed(event, 20 + rng.normal(0, 1, event.size).cumsum(), name, delay)


def peer_of(bars, seed=0):
    """A correlated symbol that begins later and pauses for two days."""
    rng = np.random.default_rng(seed)
    moves = np.diff(np.log(bars.column("close")), prepend=np.log(bars.column("close")[0]))
    close = 7 * np.exp(np.cumsum(0.8 * moves + rng.normal(0, 0.005, len(bars))))
    values = np.column_stack([close] * 4 + [np.ones(len(bars))])
    whole = Bars(bars.time, values, OHLCV, "ETH/USD", HOUR)
    kept = np.r_[100:1500, 1548 : len(bars)]
    return Bars(whole.time[kept], whole.values[kept], OHLCV, "ETH/USD", HOUR)


def second_table(bars, max_age=30 * HOUR):
    eth = ExternalSeries.of_bars(peer_of(bars), "close", "eth")
    return joined([eth, daily(len(bars))], max_age).update(bars)


@pytest.fixture(scope="module")
def bars():
    return with_taker(random_bars(N, seed=4), unknown=0.1)


@pytest.fixture(scope="module")
def table(bars):
    return second_table(bars)


@pytest.fixture(scope="module")
def stage():
    return FeaturePipeline(CONFIG)


@pytest.fixture(scope="module")
def rows(stage, bars, table):
    return transform(stage, bars, table)


# -- values ------------------------------------------------------------------------------------------------


def test_every_joined_feature_has_a_twin():
    assert set(PEER) == set(twins.PEER)
    assert set(SERIES) == set(twins.SERIES)
    assert set(FLOW) == set(twins.FLOW)


def check_equal(stage, rows, name, expected):
    first = stage.warmups[name]
    found, expected = rows.column(name)[first:], expected[first:]
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("ending", PEER)
def test_peer_feature_equals_its_naive_twin(ending, stage, bars, table, rows):
    check_equal(stage, rows, f"eth_{ending}", twins.PEER[ending](bars, table, "eth"))


@pytest.mark.parametrize("ending", SERIES)
def test_series_feature_equals_its_naive_twin(ending, stage, bars, table, rows):
    check_equal(stage, rows, f"vix_{ending}", twins.SERIES[ending](bars, table, "vix"))


@pytest.mark.parametrize("ending", FLOW)
def test_taker_feature_equals_its_naive_twin(ending, stage, bars, rows):
    check_equal(stage, rows, f"taker_{ending}", twins.FLOW[ending](bars))


def test_another_twin_is_told_apart(stage, bars, table, rows):
    with pytest.raises(AssertionError):
        check_equal(stage, rows, "eth_beta_168", twins.PEER["correlation_168"](bars, table, "eth"))
    with pytest.raises(AssertionError):
        check_equal(stage, rows, "vix_change_24", twins.SERIES["change_168"](bars, table, "vix"))


def test_a_peer_that_is_a_power_of_the_price_by_hand():
    bars = random_bars(800, seed=1)
    close = bars.column("close")
    table = Table(bars.time, close[:, None] ** 2, ("double",))
    config = JoinedFeaturesConfig(names=("return_1",), peers=("double",))
    rows = FeaturePipeline(config).update(bars, table)[300:]
    np.testing.assert_allclose(rows.column("double_correlation_168"), 1.0)
    np.testing.assert_allclose(rows.column("double_beta_168"), 0.5)
    np.testing.assert_allclose(rows.column("double_volatility_ratio_72"), np.log(2.0))
    np.testing.assert_allclose(rows.column("double_ratio_return_1"), rows.column("return_1"), atol=1e-14)


def test_a_peer_that_leads_is_told_from_one_that_follows():
    bars = random_bars(1200, seed=1)
    close = bars.column("close")
    columns = np.column_stack([np.append(close[1:], close[-1]), np.append(close[:1], close[:-1])])
    table = Table(bars.time, columns, ("leader", "follower"))  # the leader is a planted oracle
    config = JoinedFeaturesConfig(names=("return_1",), peers=("leader", "follower"))
    rows = FeaturePipeline(config).update(bars, table)[300:]
    assert rows.column("leader_lead_168").min() > 0.99
    assert abs(rows.column("follower_lead_168").mean()) < 0.2


def test_taker_imbalance_by_hand():
    plain = flat_bars(4, volume=10.0)
    values = np.column_stack([plain.values, [10.0, 0.0, 7.5, np.nan]])
    bars = Bars(plain.time, values, (*OHLCV, "taker_buy_volume"), "TEST/USD", HOUR)
    config = JoinedFeaturesConfig(names=("return_1",), taker=True)
    rows = FeaturePipeline(config).update(bars)
    assert rows.column("taker_imbalance_1").tolist() == [1.0, -1.0, 0.5, 0.0]
    assert rows.column("taker_missing").tolist() == [0.0, 0.0, 0.0, 1.0]


def test_series_are_free_of_their_unit_and_peers_of_their_price(stage, bars, table, rows):
    scaled = dataclasses.replace(table, values=table.values * [4.0, 1e3, 1.0, 1.0])
    assert table.names == ("eth", "vix", "eth.event", "vix.event")
    found = transform(stage, bars, scaled)
    first = rows.warmup
    np.testing.assert_allclose(found.values[first:], rows.values[first:], rtol=1e-9, atol=1e-9)
    # Negative control: a unit that changes on the way does show.
    values = table.values.copy()
    values[N // 2 :, 1] *= 1e-3
    changed = transform(stage, bars, dataclasses.replace(table, values=values))
    assert np.abs(changed.values[first:] - rows.values[first:]).max() > 1.0


# -- what is not known -------------------------------------------------------------------------------------


def test_nothing_known_is_neutral_and_said(stage, bars, table):
    nothing = dataclasses.replace(table, values=np.full(table.values.shape, np.nan))
    rows = transform(stage, bars, nothing)[stage.warmup :]
    for name in stage.names:
        if name.startswith(("eth_", "vix_")):
            expected = 1.0 if name.endswith("_missing") else 0.0
            assert (rows.column(name) == expected).all(), name


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 0.0, -1.0])
def test_a_peer_without_a_price_counts_as_missing(bad, stage, bars, table):
    values = table.values.copy()
    values[2000, 0] = bad
    rows = transform(stage, bars, dataclasses.replace(table, values=values))
    assert rows.column("eth_missing")[1999:2002].tolist() == [0.0, 1.0, 0.0]
    assert rows.column("eth_return_1")[2000:2002].tolist() == [0.0, 0.0]


def test_a_value_that_is_too_old_is_missing(bars):
    short, long = (
        transform(FeaturePipeline(CONFIG), bars, second_table(bars, age)).column("vix_missing")[1000:]
        for age in (30 * HOUR, None)
    )
    assert short.sum() > 0
    assert long.sum() == 0


def test_the_age_counts_from_the_event_and_not_from_the_report(bars, rows):
    series = daily(N)
    row = 1000 + int(np.argmin(rows.column("vix_missing")[1000:]))
    at = np.flatnonzero(series.available_at <= bars.time[row])[-1]
    hours = (bars.time[row] - series.event_time[at]) / HOUR
    assert hours >= 6
    assert rows.column("vix_age")[row] == pytest.approx(np.log1p(hours))


def test_half_a_window_must_be_known():
    bars = random_bars(900)
    values = np.full((900, 2), np.nan)
    values[-84:, 0] = np.arange(84.0)
    values[-83:, 1] = np.arange(83.0)
    table = Table(bars.time, np.column_stack([values, values]), ("half", "less", "half.event", "less.event"))
    config = JoinedFeaturesConfig(names=("return_1",), series=("half", "less"))
    row = FeaturePipeline(config).update(bars, table)[-1:]
    assert row.column("half_zscore_168")[0] == pytest.approx(np.sqrt(3 * 83 / 85))
    assert row.column("less_zscore_168")[0] == 0.0


def test_constants_that_are_written_out_twice_agree():
    assert (PRICE_LIMITS[0], volume.EMPTY) == (cross_kernels.LEAST, liquidity.EMPTY)


# -- when it is known --------------------------------------------------------------------------------------


def test_a_value_changes_no_row_before_it_is_available(stage, bars):
    eth = ExternalSeries.of_bars(peer_of(bars), "close", "eth")
    series = daily(N)
    which = np.flatnonzero(series.available_at > bars.time[1600])[0]
    value = series.value.copy()
    value[which] += 50.0
    other = ExternalSeries(series.event_time, series.available_at, value, "vix")
    before, after = (
        transform(stage, bars, joined([eth, one]).update(bars)).values for one in (series, other)
    )
    available = np.searchsorted(bars.time, series.available_at[which])
    np.testing.assert_array_equal(before[:available], after[:available])
    assert (before[available] != after[available]).any()


def test_a_join_on_event_times_is_seen(stage, bars):
    # Negative control: the usual leak gives other rows already between event and report.
    eth = ExternalSeries.of_bars(peer_of(bars), "close", "eth")
    honest, hasty = (joined([eth, daily(N, delay=delay)]).update(bars) for delay in (6 * HOUR, 0))
    one, two = (transform(stage, bars, table) for table in (honest, hasty))
    differ = np.flatnonzero(one.column("vix_age")[1000:] != two.column("vix_age")[1000:]) + 1000
    assert differ.size > 100
    assert (bars.time[differ] % DAY < 6 * HOUR).all()


# -- laws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[1, 2, 3, 99, 100, 101, 1500, 1548, 1960], range(1480, 1560)])
def test_cutting_both_tables_anywhere_changes_no_bit(stage, bars, table, cuts):
    check_chunk_law(stage, (bars, table), cuts)


@pytest.mark.parametrize("poison", sorted(POISONS))
@pytest.mark.parametrize("row", [500, 1530])
def test_another_future_of_both_tables_changes_no_row_before_it(stage, bars, table, row, poison):
    check_altered_future(stage, (bars, table), row, POISONS[poison])


def test_another_future_of_the_joined_table_alone_does_show_afterwards(stage, bars, table, rows):
    values = table.values.copy()
    values[2000:, 0] *= np.linspace(1, 2, N - 2000)
    found = transform(stage, bars, dataclasses.replace(table, values=values))
    np.testing.assert_array_equal(found.values[:2000], rows.values[:2000])
    assert (found.values[2001] != rows.values[2001]).any()


def test_features_repeat_themselves_and_leave_both_tables_alone(stage, bars, table):
    check_inputs_untouched(stage, (bars, table))


def test_where_the_stream_begins_no_longer_matters(stage, bars, table):
    check_start_invariance(stage, (bars, table), [50, 777, 1300], tolerance=0.0)


@pytest.mark.parametrize("worst", [5e-324, 1e-300, 1.0, 1e300, 1.7e308, -1.7e308])
def test_every_value_is_finite_on_hostile_tables(stage, bars, table, worst):
    rng = np.random.default_rng(7)
    values = table.values.copy()
    values[rng.random(values.shape) < 0.3] = worst
    values[rng.random(values.shape) < 0.1] = np.nan
    taken = bars.values.copy()
    taken[rng.random(len(taken)) < 0.3, 5] = worst
    hostile = dataclasses.replace(bars, values=taken)
    check_finite_after_warmup(stage, (hostile, dataclasses.replace(table, values=values)))


def next_value(values, first, out):
    out[:] = np.nan_to_num(np.append(values[first + 1 :], values[-1]))


def test_a_joined_feature_that_looks_ahead_is_caught(monkeypatch, bars, table):
    def leak(price):
        return Window(next_value, (price,))

    monkeypatch.setitem(cross.PEER, "leak", (leak, ()))
    with pytest.raises(AssertionError, match="column eth_leak"):
        check_chunk_law(FeaturePipeline(CONFIG), (bars, table), range(200, 240))
    with pytest.raises(AssertionError, match="column eth_leak"):
        check_altered_future(FeaturePipeline(CONFIG), (bars, table), 500, POISONS["times 1000"])


def test_a_window_that_reads_more_than_it_says_is_caught(monkeypatch, bars, table):
    def greedy(values, first, out):
        out[:] = [np.nan_to_num(values[t - 40 : t + 1]).sum() for t in range(first, values.size)]

    monkeypatch.setitem(cross.PEER, "greedy", (lambda price: Window(greedy, (price,), lookback=11), ()))
    with pytest.raises(AssertionError, match="column eth_greedy"):
        check_start_invariance(FeaturePipeline(CONFIG), (bars, table), [777])


# -- configuration and errors ------------------------------------------------------------------------------


def test_the_packaged_full_config_asks_for_the_full_set():
    config = load(JoinedFeaturesConfig, "features_full.yaml")
    assert config.names == "full"
    assert len(FeaturePipeline(config).names) >= 107


def test_columns_follow_the_names(stage):
    wide = FeaturePipeline(JoinedFeaturesConfig(names="full", peers=("eth", "ltc"), series=("vix",)))
    assert len(wide.names) == len(FeaturePipeline(load(JoinedFeaturesConfig, "features_full.yaml")).names) + (
        2 * len(PEER) + len(SERIES)
    )
    assert wide.joined == ("eth", "ltc", "vix", "vix.event")
    assert wide.version != stage.version
    for feature in stage.config.selected():
        assert len(feature.__doc__) > 20, feature.name
    found = {feature.name: feature for feature in stage.config.selected()}
    assert found["eth_beta_168"].reads == ("close", "eth")
    assert found["taker_imbalance_1"].reads == ("volume", "taker_buy_volume")


def test_other_peers_give_another_version():
    one, other = (FeaturePipeline(JoinedFeaturesConfig(peers=(name,))) for name in ("eth", "ltc"))
    assert one.version != other.version


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("peers=[ETH/USDT]", "'ETH/USDT' is none"),
        ("peers=[close]", "'close' is none"),
        ("peers=[eth, eth]", "eth_return_1 would be there twice"),
        ("series=[eth]", "eth_missing would be there twice"),
    ],
)
def test_wrong_names_are_one_sentence(setting, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(JoinedFeaturesConfig, "features_full.yaml", ["peers=[eth]", setting])
    assert "\n" not in str(caught.value)


def test_a_missing_table_or_column_is_said(stage, bars, table):
    with pytest.raises(DataError, match=r"eth is read from the joined table, but there is no such table"):
        stage.fresh().update(bars)
    with pytest.raises(DataError, match=r"vix\.event is read from the joined table, but it has eth, vix$"):
        stage.fresh().update(bars, table.select(["eth", "vix"]))
    plain = Bars(bars.time, bars.values[:, :5], OHLCV, "TEST/USD", HOUR)
    with pytest.raises(DataError, match="TEST/USD 1h has no column taker_buy_volume"):
        stage.fresh().update(plain, table)


def test_a_refused_chunk_leaves_the_stream_as_it_was(stage, bars, table, rows):
    live = stage.fresh()
    live.update(bars[:1000], table[:1000])
    with pytest.raises(DataError, match="one clock"):
        live.update(bars[1000:1010], table[1001:1011])
    with pytest.raises(DataError, match="joined table"):
        live.update(bars[1000:1010])
    found = live.update(bars[1000:], table[1000:])
    np.testing.assert_array_equal(found.values, rows.values[1000:])


def test_a_stage_that_needs_no_table_ignores_one(bars, table):
    plain = FeaturePipeline()
    np.testing.assert_array_equal(plain.update(bars, table).values, plain.fresh().update(bars).values)


def test_joining_keeps_availability_for_values_and_events_alike():
    series = daily(N)
    join = joined([series], 3 * DAY)
    assert isinstance(join, AsOfJoin)
    assert join.names == ("vix", "vix.event")
    for one in join.series:
        np.testing.assert_array_equal(one.available_at, series.available_at)
    assert JoinedColumn("vix").specification() == ["joined", "vix"]
    assert "reads vix" in repr(Feature("a", JoinedColumn("vix")))

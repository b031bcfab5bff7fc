"""Each feature against its naive twin and by hand; declaration, versions, configuration, errors."""

import dataclasses

import numpy as np
import pytest
import talib

from configs.load import ConfigError, load
from market.bars import Bars
from market.features import volatility as volatility_features
from market.features.feature import (
    CLOSE,
    FEATURES,
    Feature,
    Indicator,
    Window,
    feature_names,
    features,
    further_features,
    ordered,
    rows_to_forget,
)
from market.features.pipeline import FeaturePipeline, FeaturesConfig, FeatureTable
from market.kernels import mean
from market.table import DataError, concat
from tests.conformance.laws import check_finite_after_warmup
from tests.market.bars_factory import HOUR, flat_bars, make_bars, random_bars
from tests.reference.features import TWINS

N = 2600
SUBJECTS = ("price", "trend", "momentum", "volatility", "volume", "candles")
PATTERNS = ("engulfing", "hammer", "doji", "harami", "morning_star", "evening_star")


def pipeline(*names):
    return FeaturePipeline(FeaturesConfig(names=names or "all"))


def column(name, bars):
    """The values of one feature, its warm-up left out."""
    rows = pipeline(name).update(bars)
    return rows.values[rows.warmup :, 0]


@pytest.fixture(scope="module")
def bars():
    return random_bars(N, seed=11, gap=0.006)


@pytest.fixture(scope="module")
def rows(bars):
    return FeaturePipeline().update(bars)


def test_every_feature_of_our_subjects_has_a_twin():
    ours = {name for name in feature_names("all") if FEATURES.tags(name)["subject"] in SUBJECTS}
    assert ours == set(TWINS)
    assert len(ours) == 52


def test_the_core_set_stays_what_fitted_things_were_fitted_on():
    assert len(feature_names("all")) == 56
    assert FeaturePipeline().version == "57e717a476facbc8"
    assert set(feature_names("all")) < set(feature_names("full"))


def test_a_feature_belongs_to_the_core_set_unless_declared_as_further(monkeypatch):
    monkeypatch.setattr(FEATURES, "_plugins", dict(FEATURES._plugins))
    monkeypatch.setattr(FEATURES, "_tags", dict(FEATURES._tags))

    def last_close():
        return CLOSE

    features(plain=())(last_close)
    further_features(wide=())(last_close)
    FEATURES.register("from_elsewhere")(Feature("from_elsewhere", CLOSE))
    assert {"plain", "from_elsewhere"} < set(feature_names("all"))
    assert "wide" not in feature_names("all")
    assert {"plain", "wide", "from_elsewhere"} < set(feature_names("full"))


@pytest.mark.parametrize("name", sorted(set(TWINS) - set(PATTERNS)))
def test_feature_equals_its_naive_twin(name, bars, rows):
    first = FEATURES.get(name).warmup
    expected, found = TWINS[name](bars)[first:], rows.column(name)[first:]
    assert np.ptp(expected) > 0
    # Twins accumulate from the start or carry running sums, so they agree to their rounding only.
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_equals_talib_where_the_market_gaps(name, bars, rows):
    first = FEATURES.get(name).warmup
    expected = TWINS[name](bars)[first:]
    assert (expected != 0).sum() >= 5
    np.testing.assert_array_equal(rows.column(name)[first:], expected)


@pytest.mark.parametrize("name", ["morning_star", "evening_star"])
def test_stars_need_no_gap_where_the_market_never_sleeps(name):
    close = random_bars(N, seed=4).column("close")
    open_ = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    found = column(name, make_bars(open_, high, low, close, np.ones(N)))
    assert (TWINS[name](make_bars(open_, high, low, close, np.ones(N))) == 0).all()
    assert (found != 0).mean() > 0.003


def test_a_twin_with_another_period_is_told_apart(bars, rows):
    first = FEATURES.get("rsi_14").warmup
    wrong = talib.RSI(bars.column("close"), 13)[first:] / 50 - 1
    assert np.abs(wrong - rows.column("rsi_14")[first:]).max() > 1e-2


def test_values_by_hand():
    # Three bars: 10 -> 12 (range 9..12), 12 -> 11 (10.5..12.5), 11 -> 11 (10..14, volume 0).
    bars = make_bars([10, 12, 11], [12, 12.5, 14], [9, 10.5, 10], [12, 11, 11], [5, 3, 0])
    row = pipeline("return_1", "gap_1", "range_1", "body_1", "upper_wick_1", "lower_wick_1").update(bars)
    np.testing.assert_allclose(row.column("return_1")[1:], [np.log(11 / 12), 0.0])
    np.testing.assert_allclose(row.column("gap_1")[1:], [0.0, 0.0])
    np.testing.assert_allclose(row.column("range_1"), np.log([12 / 9, 12.5 / 10.5, 14 / 10]))
    np.testing.assert_allclose(row.column("body_1"), [2 / 3, -1 / 2, 0.0])
    np.testing.assert_allclose(row.column("upper_wick_1"), [0.0, 0.5 / 2, 3 / 4])
    np.testing.assert_allclose(row.column("lower_wick_1"), [1 / 3, 0.5 / 2, 1 / 4])


def test_longer_windows_by_hand():
    # Close rises by 1 from 1 to 24, then stays: ranges are points, so true ranges are the moves.
    close = np.concatenate([np.arange(1.0, 25.0), [24.0]])
    volume = np.full(25, 2.0)
    bars = make_bars(close, close, close, close, volume)
    assert column("efficiency_24", bars)[0] == 1.0  # 23 made, 23 travelled
    assert column("volume_balance_24", bars)[0] == 23 / 24  # one of 24 bars did not rise
    assert column("close_location_24", bars)[1] == 1.0
    assert column("aroon_24", bars)[0] == 1.0
    assert column("mfi_14", bars)[-1] == 1.0
    assert column("zscore_24", bars)[0] == pytest.approx((24 - 12.5) / np.sqrt((24**2 - 1) / 12))


@pytest.mark.parametrize(("name", "neutral"), [("downside_ratio_72", 0.5), ("doji", 1.0)])
def test_a_market_at_rest_is_neutral_where_that_is_not_zero(name, neutral):
    assert (column(name, flat_bars(N)) == neutral).all()


def test_a_market_at_rest_is_zero_elsewhere():
    rows = FeaturePipeline().update(flat_bars(N, price=0.1, volume=0.0))[N - 1 :]
    moving = {name for name, value in zip(rows.names, rows.values[0], strict=True) if abs(value) > 1e-6}
    assert moving == {"downside_ratio_72", "doji"}


def test_rsi_calls_rest_neutral_where_talib_calls_it_oversold():
    assert talib.RSI(np.full(50, 100.0), 14)[-1] == 0.0
    assert (column("rsi_14", flat_bars(400)) == 0.0).all()


def test_an_empty_bar_reads_as_a_thousandth_of_the_average_volume():
    *prices, volume = (
        random_bars(400).column(name).copy() for name in ("open", "high", "low", "close", "volume")
    )
    volume[-1] = 0.0
    assert column("volume_ratio_168", make_bars(*prices, volume))[-1] == np.log(1e-3)


@pytest.mark.parametrize(("prices", "volumes"), [(2.0**20, 1.0), (2.0**-12, 1.0), (1.0, 2.0**30), (0.5, 8.0)])
def test_features_are_free_of_the_units_of_price_and_volume(prices, volumes, bars, rows):
    # Powers of two scale without rounding; EMPTY, TA-Lib's zero and STILL are far away.
    scaled = Bars(bars.time, bars.values * ([prices] * 4 + [volumes]), bars.names, bars.symbol, HOUR)
    np.testing.assert_array_equal(FeaturePipeline().update(scaled).values, rows.values)


def test_bounded_features_keep_their_bounds(rows):
    signed = (
        "close_location_24",
        "close_location_96",
        "di_balance_14",
        "aroon_24",
        "rsi_4",
        "rsi_14",
        "mfi_14",
    )
    signed += ("stochastic_14", "autocorrelation_48", "volume_balance_24", "body_1", *PATTERNS)
    shares = ("adx_14", "efficiency_24", "efficiency_72", "downside_ratio_72", "upper_wick_1", "lower_wick_1")
    for name in signed + shares:
        values = rows.column(name)[rows.warmup :]
        assert values.max() <= 1, name
        assert values.min() >= (-1 if name in signed else 0), name


# -- the pipeline ------------------------------------------------------------------------------------------


def test_some_features_alone_equal_the_same_columns_of_all(bars, rows):
    names = ("amihud_72", "rsi_4", "doji", "ema_gap_48_192", "volatility_ratio")
    some = pipeline(*names).update(bars)
    assert some.names == names
    np.testing.assert_array_equal(some.values, rows.select(names).values)


def test_extra_columns_of_bars_are_left_alone(bars, rows):
    extra = np.column_stack([bars.values, np.full(len(bars), np.nan)])
    wider = Bars(bars.time, extra, (*bars.names, "funding"), bars.symbol, HOUR)
    np.testing.assert_array_equal(FeaturePipeline().update(wider).values, rows.values)


def test_equal_nodes_are_computed_once():
    nodes = ordered([FEATURES.get(name).node for name in FEATURES])
    average_ranges = [node for node in nodes if isinstance(node, Indicator) and node.function == "ATR"]
    assert average_ranges == [volatility_features.ATR_14]
    assert len(nodes) == len(set(nodes))


def test_every_feature_says_what_it_is():
    for name in FEATURES:
        feature = FEATURES.get(name)
        assert feature.columns == (name,)
        assert feature.reads
        assert feature.warmup >= 0
        assert len(feature.__doc__) > 20, name
        assert name in repr(feature)
    assert FEATURES.get("volume_balance_24").reads == ("close", "volume")


def test_a_feature_name_is_given_once():
    with pytest.raises(ValueError, match="registered twice"):
        FEATURES.register("rsi_14")(FEATURES.get("doji"))


def test_warmup_is_that_of_the_slowest_feature():
    whole = FeaturePipeline()
    assert whole.warmup == whole.warmups["ema_gap_48_192"] == 191 + rows_to_forget(2 / 193)
    assert whole.warmup == 1960
    assert pipeline("return_4", "doji").warmup == 10


def test_version_knows_names_parameters_and_revisions(monkeypatch):
    base = pipeline("rsi_14", "doji").version
    assert base == pipeline("rsi_14", "doji").version
    assert len(base) == 16
    assert int(base, 16) > 0
    others = {pipeline("doji", "rsi_14").version, pipeline("rsi_14").version}
    rsi = FEATURES.get("rsi_14").node
    changes = {
        "another period": dataclasses.replace(
            rsi, inputs=(dataclasses.replace(rsi.inputs[0], parameters=(("timeperiod", 15),)),)
        ),
        "another revision": dataclasses.replace(rsi, revision=2),
        "another input": dataclasses.replace(
            rsi, inputs=(dataclasses.replace(rsi.inputs[0], inputs=(volatility_features.HIGH,)),)
        ),
    }
    for node in changes.values():
        monkeypatch.setitem(FEATURES._plugins, "rsi_14", Feature("rsi_14", node))
        others.add(pipeline("rsi_14", "doji").version)
    assert len(others) == 5
    assert base not in others


def test_fresh_forgets_and_keeps_the_version(bars, rows):
    used = FeaturePipeline()
    used.update(bars[:100])
    fresh = used.fresh()
    assert fresh.version == used.version
    np.testing.assert_array_equal(fresh.update(bars[:500]).values, rows.values[:500])


def test_an_empty_chunk_gives_no_rows(bars):
    stage = pipeline("rsi_14", "return_1")
    assert stage.update(bars[:0]).values.shape == (0, 2)
    stage.update(bars[:7])
    assert len(stage.update(bars[7:7])) == 0


def test_bars_that_do_not_go_on_are_refused(bars):
    stage = pipeline("return_1")
    stage.update(bars[:10])
    with pytest.raises(DataError, match="already answered"):
        stage.update(bars[9:12])
    other = Bars(bars.time[10:12], bars.values[10:12], bars.names, "OTHER/USD", HOUR)
    with pytest.raises(DataError, match="needs its own pipeline"):
        stage.update(other)


def test_feature_table_refuses_values_unknown_after_the_warmup():
    time = np.arange(3)
    FeatureTable(time, np.array([[np.nan], [1.0], [2.0]]), ("a",), "v", 1)
    with pytest.raises(DataError, match=r"a is nan .*\(row 1\)"):
        FeatureTable(time, np.array([[np.nan], [np.nan], [2.0]]), ("a",), "v", 1)


def test_slices_of_a_feature_table_know_their_rest_of_the_warmup(rows):
    assert rows.warmup == 1960
    assert rows[1000:].warmup == 960
    assert rows[2000:2100].warmup == 0
    assert rows[-1:].warmup == 0
    assert rows[5:10].version == rows.version


def test_chunks_of_features_join_into_the_whole_table(bars, rows):
    stage = FeaturePipeline()
    joined = concat([stage.update(bars[start : start + 900]) for start in range(0, N, 900)])
    assert (joined.warmup, joined.version, joined.names) == (rows.warmup, rows.version, rows.names)
    np.testing.assert_array_equal(joined.values, rows.values)


def test_a_window_longer_than_declared_is_found(monkeypatch, bars):
    honest = Window(mean, (CLOSE,), (24,), lookback=24)
    monkeypatch.setitem(FEATURES._plugins, "average", Feature("average", honest))
    pipeline("average").update(bars)
    short = Window(mean, (CLOSE,), (24,), lookback=23)
    monkeypatch.setitem(FEATURES._plugins, "average", Feature("average", short))
    alone, beside = pipeline("average"), pipeline("average", "zscore_96")
    # Before the first bar the past is NaN. Beside a longer window only the columns' own warm-ups tell.
    with pytest.raises(DataError, match="average is nan"):
        alone.update(bars)
    with pytest.raises(AssertionError, match="column average, row 22"):
        check_finite_after_warmup(beside, bars)


# -- configuration -----------------------------------------------------------------------------------------


def test_the_packaged_config_asks_for_all():
    assert load(FeaturesConfig, "features.yaml").names == "all"
    assert FeaturePipeline().names == feature_names("all")


def test_the_full_set_can_be_asked_for():
    config = load(FeaturesConfig, "features.yaml", ["names=full"])
    assert FeaturePipeline(config).names == tuple(FEATURES.names())


def test_names_can_be_set():
    config = load(FeaturesConfig, "features.yaml", ["names=[rsi_14, doji]"])
    assert FeaturePipeline(config).names == ("rsi_14", "doji")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[rsi_41]", "rsi_4"),
        ("[rsi_14, rsi_14]", "rsi_14 is there twice"),
        ("[]", "at least one"),
    ],
)
def test_wrong_names_are_one_sentence(names, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(FeaturesConfig, "features.yaml", [f"names={names}"])
    assert "\n" not in str(caught.value)

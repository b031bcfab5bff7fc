"""External series joined to bars: no rule looks ahead, a server continues a file, wrong settings are told."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, InputError, load, validate
from market.external import EVENT, AsOfJoin, ExternalSeries
from market.sources import observations
from market.sources.availability import AVAILABILITY
from market.sources.observations import RULES, SERIES_SOURCES, Observations, Treatment, series_of
from market.sources.series import (
    ExternalConfig,
    continued,
    external_join,
    external_series,
    external_table,
    read_series,
)
from market.sources.units import check_name
from market.table import DataError, Table
from tests.market.external_factory import DAY, HOUR, clock, config, days, ns, with_setting, write

# Laws of the whole way from rows to bars.

ROWS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.sampled_from([0.0, 1.0, 2.0, 2.0, 3.0, 9.0, np.nan]),
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 1, 4]),
    ),
    min_size=1,
    max_size=25,
)
LAWFUL = Treatment(
    "next-day",
    AVAILABILITY["next-day"],
    (
        "drop-nulls",
        "drop-zeros",
        "drop-beyond-range",
        "drop-implausible",
        "drop-frozen",
        "drop-duplicates",
        "keep-first-conflict",
    ),
    most=5,
    frozen_after=2,
)


def joined(rows, times):
    """The whole way: a row is (day, value, high less one, days until its publication)."""
    rows = [(-9, 1.5, 3, 0), *rows]  # one that every rule lets pass
    event, value, high, delay = (np.array(column) for column in zip(*rows, strict=True))
    given = Observations(
        "test",
        event * DAY,
        value.astype(float),
        published=(event + delay) * DAY,
        low=np.zeros(len(rows)),
        high=high + 1.0,
    )
    table = Table(np.array(times, np.int64) * DAY, np.zeros((len(times), 1)), ("x",))
    series, _ = series_of("x_count", given, LAWFUL)
    # The event beside the value: dropping a repeat changes how old the value is.
    days = ExternalSeries(series.event_time, series.available_at, series.event_time // DAY, "day")
    return AsOfJoin([series, days]).update(table).values


def broken_by_altered_future(rows, day, other):
    """Whether rows that are published and over after ``day`` change what was known by then."""
    times = range(1, day + 1)
    altered = [row for row in rows if row[0] + row[3] + 1 <= day]
    altered += [row for row in other if row[0] + row[3] + 1 > day]
    return bool(altered) and not np.array_equal(joined(rows, times), joined(altered, times), equal_nan=True)


@given(ROWS, ROWS, st.integers(1, 13))
@settings(max_examples=150, deadline=None)
def test_no_rule_looks_ahead(rows, other, day):
    assert not broken_by_altered_future(rows, day, other)


def test_a_rule_that_looks_ahead_is_caught(monkeypatch):
    # Negative control: runs counted whole know how long they will last.
    def whole(value):
        new = np.concatenate([[True], value[1:] != value[:-1]])
        return np.bincount(np.cumsum(new) - 1)[np.cumsum(new) - 1]

    rows = [(day, 2.0, 3, 0) for day in range(6)]
    other = [(day, 1.0 + day % 2, 3, 0) for day in range(6)]
    assert not broken_by_altered_future(rows, 2, other)
    with monkeypatch.context() as planted:
        planted.setattr(observations, "_run_length", whole)
        assert broken_by_altered_future(rows, 2, other)
    # And so is one that counts a revision among the rows of its event, before anybody knew it.
    rows = [(1, 1.0, 3, 0), (2, 2.0, 3, 0), (3, 2.0, 3, 0), (4, 1.0, 3, 0)]
    other = [(2, 2.0, 3, 4), (4, 1.0, 3, 0)]
    assert not broken_by_altered_future(rows, 4, other)
    with monkeypatch.context() as planted:
        planted.setattr(
            observations,
            "_in_order_of_knowledge",
            lambda rows: rows.take(np.argsort(rows.event_time, kind="stable")),
        )
        assert broken_by_altered_future(rows, 4, other)


def test_the_join_of_the_real_series_keeps_the_chunk_law(shared_data):
    names = (
        "funding_8h_fraction",
        "mvrv_ratio",
        "vix_points",
        "us10y_pct",
        "gold_etf_usd",
        "fear_greed_index",
    )
    stage = external_join(config(shared_data, names=names))
    time = ns("2023-12-20") + HOUR * np.arange(600)
    table = Table(time, np.zeros((time.size, 1)), ("x",))
    whole = stage.fresh().update(table)
    assert whole.names == names
    assert np.isfinite(whole.values).all()
    parts = stage.fresh()
    cuts = [0, 1, 7, 300, 600]
    chunks = [parts.update(table[a:b]).values for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(chunks), whole.values)


def test_times_of_events_are_joined_beside_the_values(shared_data):
    names = ("vix_points", "fear_greed_index")
    chosen = with_setting(config(shared_data), "fear_greed_index", max_age="2d")
    stage = external_join(chosen.model_copy(update={"names": names}), events=True)
    assert stage.names == (*names, *(f"{name}{EVENT}" for name in names))
    row = stage.update(clock("2018-04-16T20:14:00")).values[0]
    assert row[2] * 10**9 == ns("2018-04-13")  # Friday, while Monday's session is open
    assert np.isnan(row[[1, 3]]).all()  # three days without an index
    cross = pytest.importorskip("market.features.cross")
    assert cross.EVENT == EVENT


def test_the_whole_shipped_registry_joins_to_the_bars_of_an_asset(shared_data, make_bars):
    chosen = config(shared_data)
    names = tuple(name for name in chosen.series if name != "news_sentiment_score")  # needs an extra
    start = ns("2022-03-01") // HOUR
    bars = make_bars(24 * 14, start=start)
    for asset, least in (("BTC", 23), ("ETH", 12), ("LTC", 12)):
        of_asset = chosen.model_copy(update={"names": names}).of_asset(asset)
        table = external_table(of_asset, bars)
        assert len(table.names) >= least
        assert np.array_equal(table.time, bars.time)
        _, missing = read_series(of_asset)
        assert "open_interest_binance_usd" in missing


# A file continued by a server.


def history(values, name="x_count"):
    return ExternalSeries(days(len(values)), days(len(values)) + DAY, np.array(values, float), name)


def test_a_server_continues_a_file_and_its_revisions_count_from_now():
    now = ns("2024-03-01")
    fresh = ExternalSeries(days(6)[2:], days(6)[2:] + DAY, np.array([3.0, 4.04, 5.0, 6.0]), "x_count")
    series, revised = continued(history([1, 2, 3, 4]), fresh, now)
    assert revised == 1
    join = AsOfJoin([series])
    table = join.update(clock("2024-01-05", "2024-01-06", "2024-01-07", "2024-03-02"))
    np.testing.assert_array_equal(table.values[:, 0], [4.0, 5.0, 6.0, 6.0])
    revision = series.value == 4.04
    assert series.available_at[revision].tolist() == [now]
    # What the file lacked in its own time nobody knew then.
    holed = ExternalSeries(days(4)[[0, 1, 3]], days(4)[[0, 1, 3]] + DAY, np.array([1.0, 2.0, 4.0]), "x_count")
    fresh = ExternalSeries(days(4), days(4) + DAY, np.array([1.0, 2.0, 3.0, 4.0]), "x_count")
    series, revised = continued(holed, fresh, now)
    assert revised == 1
    assert series.available_at[series.value == 3].tolist() == [now]


def test_of_several_revisions_of_a_server_the_newest_counts_from_now():
    event = days(4)[[1, 2, 3, 3]]
    told = event + DAY * np.array([1, 1, 1, 5])
    fresh = ExternalSeries(event, told, np.array([2.0, 3.0, 4.01, 4.02]), "x_count")
    series, revised = continued(history([1, 2, 3, 4]), fresh, ns("2024-03-01"))
    assert revised == 1
    assert series.value[series.event_time == days(4)[3]].tolist() == [4.0, 4.02]


def test_another_quantity_does_not_continue_a_file():
    for factor, said in ((0.75, "differ by a factor 0.75"), (1_000.0, "another unit")):
        values = factor * np.array([2.0, 3.0, 4.0, 5.0])
        fresh = ExternalSeries(days(5)[1:], days(5)[1:] + DAY, values, "x_count")
        with pytest.raises(DataError, match=said):
            continued(history([1, 2, 3, 4]), fresh, ns("2024-03-01"))
    late = ns("2025-01-01") + np.array([0, DAY])
    fresh = ExternalSeries(late, late + DAY, np.ones(2), "x_count")
    with pytest.raises(DataError, match="share no event"):
        continued(history([1, 2]), fresh, ns("2026-01-01"))


# Settings.


def test_the_shipped_registry_is_sound():
    chosen = load(ExternalConfig, "external.yaml")
    assert len(chosen.chosen()) >= 25
    for name, spec in chosen.series.items():
        check_name(name, spec.unit)
        assert set(spec.rules) <= set(RULES), name
        assert spec.max_age is not None, name
        if spec.web is not None:
            validate(SERIES_SOURCES.get(spec.web.name).Config, spec.web.settings, name)
    used = {spec.web.name for spec in chosen.series.values() if spec.web is not None}
    assert used <= set(SERIES_SOURCES.names())
    assert {"funding", "open-interest", "coinmetrics", "fred-graph", "yahoo", "fear-greed"} <= used


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"available": "yesterday"}, "available yesterday: no such rule"),
        ({"rules": ["drop-null"]}, r"rule drop-null: no such rule; did you mean drop-nulls\?"),
        ({"rules": ["drop-frozen"]}, "rule drop-frozen needs the setting frozen_after"),
        ({"rules": ["round-times"]}, "rule round-times needs the setting grid"),
        ({"file": None}, "needs a file or a web source"),
        ({"low": "low"}, "needs both low and high"),
        ({"max_age": "soon"}, "max_age"),
        ({"like": "other_count"}, "like is other_count; it must be one of the series that are read"),
        ({"file": "missing.parquet"}, "there is no such file for x_count of the asset BTC"),
        ({"value": "y"}, "column y is missing; columns are timestamp, x_count"),
        ({"file": None, "web": {"name": "coinmetrics", "metric": "TxCnt"}}, "set external.live to true"),
        ({"web": {"name": "coinmetric"}}, None),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(tmp_path, change, said):
    write(tmp_path, "a.parquet", {"timestamp": days(2), "x_count": [1.0, 2.0]})
    spec = {"unit": "count", "available": "next-day", "file": "a.parquet", **change}
    if said is None:  # only asked for when live
        assert len(external_series(config(tmp_path, {"x_count": spec}))) == 1
        with pytest.raises(ConfigError, match="named 'coinmetric'; did you mean coinmetrics"):
            external_series(config(tmp_path, {"x_count": spec}, live=True))
        return
    with pytest.raises(InputError, match=said) as error:
        external_series(config(tmp_path, {"x_count": spec}))
    assert "\n" not in str(error.value)


def test_names_that_are_not_in_the_registry_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"vix_point is no series .*; did you mean vix_points\?"):
        external_series(config(tmp_path, names=("vix_point",)))
    for asset in ("../BTC", "", ".", "a/b"):
        with pytest.raises(ConfigError, match="external: asset is"):
            config(tmp_path).of_asset(asset)
    with pytest.raises(DataError, match="has none of the external series for the asset DOGE"):
        external_join(config(tmp_path, names=("funding_8h_fraction",), asset="DOGE"))


def test_paths_take_the_asset_as_written_small_or_capital(tmp_path):
    write(tmp_path, "a/ethusdt.parquet", {"timestamp": days(2), "x_count": [1.0, 2.0]})
    write(tmp_path, "a/LTCusdt.parquet", {"timestamp": days(2), "x_count": [3.0, 4.0]})
    spec = {"unit": "count", "available": "next-day", "file": "a/{asset}usdt.parquet"}
    for asset, first in (("ETH", 1), ("eth", 1), ("LTC", 3), ("ltc", 3)):
        [series] = external_series(config(tmp_path, {"x_count": spec}).of_asset(asset))
        assert series.value[0] == first

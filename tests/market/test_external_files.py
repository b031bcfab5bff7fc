"""Files of external series: when each value is known, what is no observation, and the traps of real files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.load import ConfigError
from market.external import AsOfJoin, ExternalSeries
from market.sources.availability import AVAILABILITY, us_holidays
from market.sources.series import (
    external_series,
    external_table,
    read_series,
)
from market.sources.units import UNITS, check_name, check_units, column_unit, conversion
from market.table import DataError, Table
from tests.market.external_factory import DAY, HOUR, clock, config, days, ns, one, with_setting, write

# When a value is known.


@pytest.mark.parametrize(
    ("rule", "event", "known"),
    [
        ("settlement", "2024-01-05T08:00:00", "2024-01-05T08:00:00"),
        ("next-day", "2024-01-05", "2024-01-06"),
        ("us-close", "2024-01-05", "2024-01-05T21:00:00"),
        ("us-close", "2024-07-05", "2024-07-05T20:00:00"),
        ("us-close", "1990-04-02", "1990-04-02T20:00:00"),  # summer time began in April then
        ("us-close", "2024-04-02", "2024-04-02T20:00:00"),
        ("us-close", "1990-03-20", "1990-03-20T21:00:00"),
        ("us-index-close", "2024-01-05", "2024-01-05T21:15:00"),
        ("us-index-close", "2024-07-05", "2024-07-05T20:15:00"),
        ("next-business-day", "2024-01-04", "2024-01-05T21:15:00"),
        ("next-business-day", "2024-01-05", "2024-01-08T21:15:00"),  # Friday, known on Monday
        ("next-business-day", "2024-01-12", "2024-01-16T21:15:00"),  # and that Monday is a holiday
        ("next-business-day", "2024-01-06", "2024-01-09T21:15:00"),  # no business day: the next one counts
        ("next-business-day", "2023-09-12", "2023-09-13T20:15:00"),  # as the Federal Reserve's note tells
        ("shortly-after", "2024-01-05", "2024-01-05T00:10:00"),
        ("news", "2024-01-05T12:00:00", "2024-01-05T12:15:00"),
        ("news-unzoned", "2024-01-05T12:00:00", "2024-01-06T00:15:00"),
        ("published", "2024-01-05T12:30:00", "2024-01-05T12:30:00"),
        ("published-day", "2024-01-05", "2024-01-06T05:00:00"),
    ],
)
def test_each_rule_says_when_a_value_is_known(rule, event, known):
    assert AVAILABILITY[rule].at(np.array([ns(event)])).tolist() == [ns(known)]


def test_no_rule_lets_a_value_be_known_before_its_event():
    random = np.random.default_rng(0)
    events = np.sort(random.integers(ns("1990-01-01"), ns("2030-01-01"), 300))
    for name, rule in AVAILABILITY.items():
        on_days = events // DAY * DAY if rule.clock else events
        known = rule.at(on_days)
        assert (known >= on_days).all(), name
        assert (np.diff(known) >= 0).all(), name
        assert rule.source, name


def test_holidays_are_those_of_an_independent_calendar():
    holiday = pytest.importorskip("pandas.tseries.holiday")
    twin = holiday.USFederalHolidayCalendar().holidays("1990-01-01", "2035-12-31")
    assert list(us_holidays(1990, 2035)) == [day.date() for day in twin]
    assert us_holidays(1990, 2035) != us_holidays(1990, 2034)


def test_yields_are_missing_on_the_holidays_that_delay_them(shared_data):
    table = pq.read_table(shared_data / "macro" / "us_rates_1d.parquet")
    day = np.asarray(table["timestamp"].cast(pa.int64())) // 86_400_000
    missing = np.isnan(np.asarray(table["us10y"].to_numpy()))
    holidays = np.array(us_holidays(1990, 2024), "datetime64[D]").astype(np.int64)
    of_holidays = missing[np.isin(day, holidays)]
    assert of_holidays.mean() > 0.95  # all but the Fridays on which offices close and banks do not
    assert missing[~np.isin(day, holidays)].mean() < 0.005


@pytest.mark.parametrize(
    ("name", "event", "before", "known"),
    [
        ("funding_8h_fraction", "2024-06-28T08:00:00", "2024-06-28T07:59:59", "2024-06-28T08:00:00"),
        ("open_interest_usd", "2024-06-28", "2024-06-28T23:00:00", "2024-06-29"),
        ("hashrate_ths", "2024-06-28", "2024-06-28T23:00:00", "2024-06-29"),
        ("active_addresses_count", "2020-07-24", "2020-07-24T23:00:00", "2020-07-25"),
        ("mvrv_ratio", "2024-06-28", "2024-06-28T23:00:00", "2024-06-29"),
        ("fund_reserve_btc", "2024-06-28", "2024-06-28T23:00:00", "2024-06-29"),
        ("vix_points", "2024-06-28", "2024-06-28T20:14:00", "2024-06-28T20:15:00"),
        ("vix_points", "2024-01-05", "2024-01-05T21:14:00", "2024-01-05T21:15:00"),
        ("dxy_points", "2024-06-27", "2024-06-27T23:00:00", "2024-06-28"),
        ("us10y_pct", "2024-06-27", "2024-06-28T20:14:00", "2024-06-28T20:15:00"),
        ("us2y_pct", "2024-06-21", "2024-06-24T20:00:00", "2024-06-24T20:15:00"),
        ("gold_etf_usd", "2024-06-28", "2024-06-28T19:59:00", "2024-06-28T20:00:00"),
        ("sp500_points", "2024-01-05", "2024-01-05T20:59:00", "2024-01-05T21:00:00"),
        ("fear_greed_index", "2024-06-28", "2024-06-28T00:09:00", "2024-06-28T00:10:00"),
    ],
)
def test_the_real_series_are_known_when_their_source_says(shared_data, name, event, before, known):
    chosen = config(shared_data, names=(name,))
    series, _ = one(chosen)
    row = int(np.flatnonzero(series.event_time == ns(event))[0])
    assert series.available_at[row] == ns(known)
    seen = external_table(chosen, clock(before, known)).values[:, 0]
    assert seen[1] == series.value[row]
    assert seen[0] == series.value[row - 1]
    # Negative control: joined by its date, the value would be there already.
    hours = series.event_time // HOUR
    leaky = ExternalSeries(series.event_time, series.event_time, hours, name)
    if name != "funding_8h_fraction":
        assert AsOfJoin([leaky]).update(clock(before)).values[0, 0] >= hours[row]


def test_a_slower_source_takes_a_further_delay(tmp_path):
    write(tmp_path, "a.parquet", {"timestamp": days(2), "x_count": [1.0, 2.0]})
    registry = {"x_count": {"unit": "count", "available": "next-day", "file": "a.parquet", "delay": "6h"}}
    assert one(config(tmp_path, registry))[0].available_at[0] == ns("2024-01-02T06:00:00")


def test_revisions_are_rows_that_count_from_their_publication(tmp_path):
    write(
        tmp_path,
        "a.parquet",
        {
            "timestamp": [ns("2024-01-01"), ns("2024-01-01"), ns("2024-01-02")],
            "told": ["2024-01-03", "2024-01-10", "2024-01-04"],
            "gdp_usd": [1.0, 1.5, 2.0],
        },
    )
    registry = {
        "gdp_usd": {"unit": "USD", "available": "published-day", "file": "a.parquet", "published": "told"}
    }
    chosen = config(tmp_path, registry)
    series, _ = one(chosen)
    assert len(series) == 3
    seen = external_table(chosen, clock("2024-01-04T04:59:00", "2024-01-04T05:00:00", "2024-01-05T05:00:00"))
    np.testing.assert_array_equal(seen.values[:, 0], [np.nan, 1.0, 2.0])
    # The revised value of the older day belongs to the series, not to the newest value.
    assert series.value[series.available_at == ns("2024-01-11T05:00:00")] == [1.5]
    # Negative control: a rule of publication on a file that tells none would be a leak, and is refused.
    silent = {"gdp_usd": {**registry["gdp_usd"], "published": None}}
    with pytest.raises(ConfigError, match="needs the publication of each row"):
        external_series(config(tmp_path, silent))


# Trap 10: funding.


def test_zero_rates_of_litecoin_are_holes_that_are_counted(shared_data):
    chosen = config(shared_data, asset="LTC", names=("funding_8h_fraction",))
    series, report = one(chosen)
    assert report.rules["drop-zeros"] == 312
    assert (report.rows, report.used) == (4_904, 4_592)
    assert not (series.value == 0).any()
    # Negative control: without the rule they are rates, and the report says that they look wrong.
    loose = with_setting(chosen, "funding_8h_fraction", rules=())
    series, report = one(loose)
    assert np.count_nonzero(series.value == 0) == 312
    assert any("312 of 4904 values are exactly 0" in note for note in report.notes)


def test_the_default_rate_is_an_observation_and_is_reported(shared_data):
    series, report = one(config(shared_data), "funding_8h_fraction")
    assert len(series) == 5_267
    assert any("0.0001, perhaps a default" in note for note in report.notes)


def test_a_settlement_stamped_milliseconds_late_belongs_to_its_hour(tmp_path):
    stamps = ns("2024-01-01") + 8 * HOUR * np.arange(4) + np.array([6_000_000, 0, 3_000_000, 999_000_000])
    write(tmp_path, "f.parquet", {"timestamp": stamps, "funding_rate": [1e-4, 2e-4, 3e-4, 4e-4]})
    spec = {"unit": "fraction", "available": "settlement", "file": "f.parquet", "value": "funding_rate"}
    good = config(tmp_path, {"rate_fraction": {**spec, "rules": ["round-times"], "grid": "8h"}})
    at = clock("2024-01-01T00:00:00", "2024-01-01T08:00:00", "2024-01-01T16:00:00", "2024-01-02T00:00:00")
    np.testing.assert_array_equal(external_table(good, at).values[:, 0], [1e-4, 2e-4, 3e-4, 4e-4])
    assert one(good)[1].rules["round-times"] == 3
    # Negative control: unrounded, the hour that ends with the settlement misses it.
    bad = config(tmp_path, {"rate_fraction": spec})
    np.testing.assert_array_equal(external_table(bad, at).values[:, 0], [np.nan, 2e-4, 2e-4, 3e-4])


def test_a_settlement_minutes_late_is_known_late(tmp_path):
    stamps = ns("2024-01-01") + 8 * HOUR * np.arange(3) + np.array([0, 5 * 60 * 10**9, 0])
    write(tmp_path, "f.parquet", {"timestamp": stamps, "rate_fraction": [1e-4, 2e-4, 3e-4]})
    spec = {"unit": "fraction", "available": "settlement", "file": "f.parquet"}
    rounded = config(tmp_path, {"rate_fraction": {**spec, "rules": ["round-times"], "grid": "8h"}})
    at = clock("2024-01-01T08:00:00", "2024-01-01T08:05:00")
    np.testing.assert_array_equal(external_table(rounded, at).values[:, 0], [1e-4, 2e-4])
    write(tmp_path, "f.parquet", {"timestamp": stamps + np.array([0, HOUR, 0]), "rate_fraction": [1.0, 2, 3]})
    with pytest.raises(DataError, match="off the grid"):
        external_series(rounded)


# Trap 11: typing errors.


def test_typing_errors_of_the_vix_are_dropped_by_rule_and_counted(shared_data):
    chosen = config(shared_data)
    opens = with_setting(chosen, "vix_points", value="open")
    series, report = one(opens)
    assert report.rules["drop-beyond-range"] == 47
    for day in ("2004-11-08", "2006-02-08"):
        assert ns(day) not in series.event_time
    # The closes are right, although their rows are not.
    series, report = one(chosen, "vix_points")
    assert report.rules["drop-beyond-range"] == 0
    assert ns("2004-11-08") in series.event_time
    # Negative controls: without the rule it is refused; without the range the error is taken for a value.
    with pytest.raises(DataError, match=r"must lie between the low and the high .* \(47 such rows\); go on"):
        one(with_setting(chosen, "vix_points", value="open", rules=("drop-nulls",)))
    taken, _ = one(
        with_setting(chosen, "vix_points", value="open", rules=("drop-nulls",), low=None, high=None)
    )
    assert taken.value[taken.event_time == ns("2004-11-08")] == [2.58]


def test_values_out_of_bounds_are_refused_or_dropped_by_rule(tmp_path):
    write(tmp_path, "a.parquet", {"timestamp": days(4), "fear_index": [50.0, 101.0, -1.0, 40.0]})
    spec = {"unit": "index", "available": "shortly-after", "file": "a.parquet", "least": 0, "most": 100}
    with pytest.raises(DataError, match=r"row 2: fear_index of 2024-01-02T00:00:00Z is 101; .* 0 to 100"):
        external_series(config(tmp_path, {"fear_index": spec}))
    series, report = one(config(tmp_path, {"fear_index": {**spec, "rules": ["drop-implausible"]}}))
    assert series.value.tolist() == [50, 40]
    assert report.rules == {"drop-implausible": 2}


# Trap 12: rows that are no observations.


def test_sundays_and_holidays_are_no_observations(shared_data):
    chosen = config(shared_data)
    _, report = one(chosen, "dxy_points")
    assert report.rules["drop-nulls"] == 498
    monday = external_table(with_setting(chosen, "dxy_points"), clock("2024-06-28T23:00:00", "2024-06-30"))
    assert np.isfinite(monday.values).all()  # the Sunday row does not hide the close of Friday
    with pytest.raises(DataError, match=r"is empty; a row must have a value \(498 such rows\)"):
        one(with_setting(chosen, "dxy_points", rules=()))
    # Negative control: taken as an observation, the null of Sunday would hide the close.
    table = pq.read_table(shared_data / "macro" / "dxy_1d.parquet")
    event = np.asarray(table["timestamp"].cast(pa.int64())) * 1_000_000
    value = np.nan_to_num(table["dxy"].to_numpy(), nan=-1.0)
    naive = AsOfJoin([ExternalSeries(event, event + DAY, value, "dxy")])
    assert naive.update(clock("2024-07-01T12:00:00")).values[0, 0] == -1
    _, report = one(chosen, "us10y_pct")
    assert report.rules["drop-nulls"] == 370


def test_missing_days_keep_the_last_value_until_it_is_too_old(shared_data):
    chosen = with_setting(config(shared_data), "fear_greed_index", max_age="2d")
    series, report = one(chosen)
    assert not set(series.event_time) & {ns(f"2018-04-{day}") for day in (14, 15, 16)}
    assert any("1 steps differ" in note for note in report.notes)
    last = series.value[series.event_time == ns("2018-04-13")][0]
    at = clock("2018-04-14T12:00:00", "2018-04-15", "2018-04-15T01:00:00", "2018-04-17T01:00:00")
    seen = external_table(chosen, at).values[:, 0]
    np.testing.assert_array_equal(seen[:3], [last, last, np.nan])
    assert np.isfinite(seen[3])
    # Negative control: without an age the value of four days ago would be today's.
    forever = with_setting(config(shared_data), "fear_greed_index", max_age=None)
    assert external_table(forever, at).values[2, 0] == last


def test_interleaved_sparse_columns_are_joined_each_on_its_own(shared_data):
    spec = {
        "available": "next-day",
        "file": "onchain/btc_activity_sparse.parquet",
        "rules": ["drop-nulls"],
        "max_age": "10d",
    }
    chosen = config(
        shared_data,
        {
            "hashrate_ths": {**spec, "unit": "TH/s"},
            "active_addresses_count": {**spec, "unit": "count", "value": "active_addresses"},
            "tx_volume_usd": {**spec, "unit": "USD"},
        },
    )
    got, _ = read_series(chosen)
    assert [report.rules["drop-nulls"] for _, report in got] == [900, 900, 902]
    hours = ns("2020-01-01") + HOUR * np.arange(24 * 60)
    joined = external_table(chosen, Table(hours, np.zeros((hours.size, 1)), ("x",)))
    assert np.isfinite(joined.values).all()
    for column, (series, _) in enumerate(got):
        for row in (0, 500, 1_439):
            known = np.flatnonzero(series.available_at <= hours[row])
            assert joined.values[row, column] == series.value[known[np.argmax(series.event_time[known])]]


# Trap 13: false zeros.


def test_false_zeros_of_the_fund_reserve_are_dropped_by_rule(shared_data):
    chosen = config(shared_data)
    _, report = one(chosen, "fund_reserve_btc")
    assert report.rules == {"drop-nulls": 2_990, "drop-zeros": 216}
    at = clock("2023-12-31T12:00:00", "2024-01-01T12:00:00", "2024-01-02T12:00:00", "2024-01-03T12:00:00")
    seen = external_table(with_setting(chosen, "fund_reserve_btc"), at).values[:, 0]
    assert seen == pytest.approx([647_110, 647_110, 647_110, 682_606], abs=1)
    # Negative controls: without the rule the zero is refused; without the rule and bounds it is used.
    with pytest.raises(DataError, match=r"is 0; it must lie in 1 to .* go on with the rule drop-zeros"):
        one(with_setting(chosen, "fund_reserve_btc", rules=("drop-nulls",)))
    loose = with_setting(chosen, "fund_reserve_btc", rules=("drop-nulls",), least=None)
    assert (external_table(loose, at).values[1:3, 0] == 0).all()


def test_a_source_that_stands_still_is_noticed(shared_data):
    chosen = config(shared_data)
    series, report = one(chosen, "exchange_reserve_btc")
    assert report.rules["drop-frozen"] == 21
    value = series.value[np.argsort(series.event_time)]
    runs = np.diff(np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1], [True]])))
    assert runs.max() == 3
    raw, _ = one(with_setting(chosen, "exchange_reserve_btc", rules=("drop-nulls",)))
    value = raw.value[np.argsort(raw.event_time)]
    assert np.diff(np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1], [True]]))).max() == 17


# Trap 14: units.


def test_a_unit_is_converted_when_it_is_declared(tmp_path):
    write(tmp_path, "a.parquet", {"timestamp": days(3), "rate": [1e9, 2e9, 3e9]})
    spec = {"unit": "TH/s", "available": "next-day", "file": "a.parquet", "value": "rate"}
    series, _ = one(config(tmp_path, {"hashrate_ths": {**spec, "file_unit": "GH/s"}}))
    assert series.value.tolist() == [1e6, 2e6, 3e6]
    assert conversion("percent", "bps") == pytest.approx(100)


def test_a_copy_in_another_unit_is_noticed(tmp_path):
    random = np.random.default_rng(1).lognormal(18, 0.1, 30)
    write(tmp_path, "t.parquet", {"timestamp": days(30), "rate": random})
    write(tmp_path, "g.parquet", {"timestamp": days(30), "rate": random * 1_000})
    spec = {"unit": "TH/s", "available": "next-day", "value": "rate"}
    registry = {
        "first_ths": {**spec, "file": "t.parquet"},
        "second_ths": {**spec, "file": "g.parquet", "like": "first_ths"},
    }
    with pytest.raises(DataError, match=r"second_ths is 1000 times first_ths .* another unit"):
        external_series(config(tmp_path, registry))
    registry["second_ths"]["file_unit"] = "GH/s"
    got, _ = read_series(config(tmp_path, registry))
    assert got[1][1].notes[-1] == "second_ths is 1 times first_ths (median of common events)"
    # Negative control: without the comparison the wrong unit goes through.
    del registry["second_ths"]["file_unit"], registry["second_ths"]["like"]
    assert external_series(config(tmp_path, registry))[1].value[0] == pytest.approx(1_000 * random[0])


def test_the_real_copies_agree_in_unit_and_differ_in_definition(shared_data):
    day = {"available": "next-day", "rules": ["drop-nulls", "drop-zeros"]}
    sparse, metrics = "onchain/btc_activity_sparse.parquet", "onchain/btc_coinmetrics_1d.parquet"
    got, _ = read_series(
        config(
            shared_data,
            {
                "hashrate_ths": {**day, "unit": "TH/s", "file": "onchain/btc_network_1d.parquet"},
                "hashrate_sparse_ths": {
                    **day, "unit": "TH/s", "file": sparse, "value": "hashrate_ths", "like": "hashrate_ths",
                },
                "hashrate_metrics_ths": {
                    **day, "unit": "TH/s", "file": metrics, "value": "HashRate", "like": "hashrate_ths",
                },
                "addresses_count": {**day, "unit": "count", "file": metrics, "value": "AdrActCnt"},
                "addresses_sparse_count": {
                    **day, "unit": "count", "file": sparse, "value": "active_addresses",
                    "like": "addresses_count",
                },
            },
        )
    )  # fmt: skip
    series = {one.name: one for one, _ in got}
    assert check_units(series["hashrate_ths"], series["hashrate_metrics_ths"]) == pytest.approx(1, abs=1e-3)
    assert check_units(series["addresses_count"], series["addresses_sparse_count"]) == pytest.approx(
        0.75, abs=0.02
    )
    assert "times addresses_count" in got[-1][1].notes[-1]


def test_a_name_without_its_unit_and_a_contradicting_column_are_refused(tmp_path):
    values = [1.0, 2.0]
    columns = {"timestamp": days(2), "hashrate_ghs": values, "HashRate": values, "rate": values}
    write(tmp_path, "a.parquet", columns)
    spec = {"unit": "TH/s", "available": "next-day", "file": "a.parquet"}
    with pytest.raises(ConfigError, match="must carry the unit and end with _ths"):
        external_series(config(tmp_path, {"hashrate": spec}))
    with pytest.raises(ConfigError, match=r"declared in TH/s, but its name says GH/s"):
        external_series(config(tmp_path, {"hashrate_ths": {**spec, "value": "hashrate_ghs"}}))
    with pytest.raises(ConfigError, match="Coin Metrics gives it in TH/s"):
        external_series(
            config(tmp_path, {"hashrate_ths": {**spec, "value": "HashRate", "file_unit": "GH/s"}})
        )
    with pytest.raises(ConfigError, match="measures a share and TH/s hashes per second"):
        external_series(config(tmp_path, {"hashrate_ths": {**spec, "value": "rate", "file_unit": "percent"}}))
    with pytest.raises(ConfigError, match=r"unit TH: no such unit; did you mean TH/s\?"):
        check_name("hashrate_ths", "TH")
    assert column_unit("hashrate_ghs") == "GH/s"
    assert column_unit("close") is None
    assert len({one.ending for one in UNITS.values()}) == len(UNITS)


# Trap 15: dates of the form D-M-YYYY.


def test_day_first_dates_are_read_right_only_by_their_rule(shared_data):
    path = "sentiment/crypto_news_2021-10_2022-07.parquet"
    spec = {
        "unit": "count",
        "available": "news-unzoned",
        "file": path,
        "time": "date_raw",
        "news": {"measure": "count"},
    }
    rules = ["drop-nulls", "drop-duplicates"]
    right, report = one(config(shared_data, {"news_count": {**spec, "rules": [*rules, "day-first"]}}))
    assert report.rules["day-first"] == 7_524
    typed, _ = one(config(shared_data, {"news_count": {**spec, "time": "timestamp", "rules": rules}}))
    np.testing.assert_array_equal(right.event_time, typed.event_time)
    np.testing.assert_array_equal(right.value, typed.value)
    # Negative controls: unnamed it is refused; month first it fails where it can.
    with pytest.raises(DataError, match="day and month cannot be told apart"):
        one(config(shared_data, {"news_count": {**spec, "rules": rules}}))
    with pytest.raises(DataError, match="must be ISO dates"):
        one(config(shared_data, {"news_count": {**spec, "rules": [*rules, "month-first"]}}))


def test_month_first_dates_are_silently_wrong_where_they_can_be(tmp_path):
    # The 2,602 rows of the trap: nobody can notice from the file alone, so the order must be named.
    write(tmp_path, "a.parquet", {"day": ["5-7-2022 04:24", "12-10-2021 20:00"], "x_count": [1.0, 2.0]})
    spec = {"unit": "count", "available": "next-day", "file": "a.parquet", "time": "day"}
    read = {
        rule: one(config(tmp_path, {"x_count": {**spec, "rules": [rule]}}))[0].event_time.tolist()
        for rule in ("day-first", "month-first")
    }
    assert read["day-first"] == [ns("2021-10-12T20:00:00"), ns("2022-07-05T04:24:00")]
    assert read["month-first"] == [ns("2021-12-10T20:00:00"), ns("2022-05-07T04:24:00")]


# Trap 16: dividends.


def test_prices_that_fall_with_dividends_are_used_only_by_rule(shared_data):
    chosen = config(shared_data)
    spec = {**chosen.series["gold_etf_usd"].model_dump(), "fund": "UUP", "web": None}
    with pytest.raises(
        DataError, match=r"UUP is not known as a fund without distributions.* unadjusted-prices"
    ):
        external_series(config(shared_data, {"dollar_etf_usd": spec}))
    spec["rules"] = (*spec["rules"], "unadjusted-prices")
    series, report = one(config(shared_data, {"dollar_etf_usd": spec}))
    assert report.rules["unadjusted-prices"] == report.rows == 2_015
    at = int(np.flatnonzero(series.event_time == ns("2023-12-18"))[0])
    assert series.value[at] / series.value[at - 1] - 1 == pytest.approx(-0.060, abs=1e-3)
    # Negative control: gold pays nothing and needs no rule.
    _, report = one(chosen, "gold_etf_usd")
    assert "unadjusted-prices" not in report.rules
    spec["fund"] = "GDL"
    with pytest.raises(DataError, match="has no rows of the fund GDL; it must be one of GLD, QQQ"):
        external_series(config(shared_data, {"dollar_etf_usd": spec}))


# Rows that repeat or contradict each other.


def test_repeats_and_contradictions_need_a_rule(tmp_path):
    write(tmp_path, "a.parquet", {"timestamp": days(3)[[0, 1, 1, 2]], "x_count": [1.0, 2.0, 2.0, 3.0]})
    spec = {"unit": "count", "available": "next-day", "file": "a.parquet"}
    with pytest.raises(DataError, match=r"row 3: .* must not repeat another; go on with the rule drop-dup"):
        external_series(config(tmp_path, {"x_count": spec}))
    series, report = one(config(tmp_path, {"x_count": {**spec, "rules": ["drop-duplicates"]}}))
    assert (series.value.tolist(), report.rules) == ([1, 2, 3], {"drop-duplicates": 1})
    write(tmp_path, "a.parquet", {"timestamp": days(3)[[1, 0, 1, 2]], "x_count": [2.0, 1.0, 5.0, 3.0]})
    with pytest.raises(DataError, match="keep-first-conflict or keep-last-conflict"):
        external_series(config(tmp_path, {"x_count": spec}))
    for rule, kept in (("keep-first-conflict", 2), ("keep-last-conflict", 5)):
        series, report = one(config(tmp_path, {"x_count": {**spec, "rules": [rule]}}))
        assert (series.value.tolist(), report.rules) == ([1, kept, 3], {rule: 1})


# What is no number.


@pytest.mark.parametrize("mark", ["", ".", "NA", "null"])
def test_marks_for_no_value_are_nulls_and_other_text_is_refused(tmp_path, mark):
    path = tmp_path / "a.csv"
    path.write_text(f"observation_date,DGS10\n2024-01-01,{mark}\n2024-01-02,3.95\n", encoding="utf-8")
    spec = {
        "unit": "percent",
        "available": "next-business-day",
        "file": "a.csv",
        "time": "observation_date",
        "value": "DGS10",
        "rules": ["drop-nulls"],
    }
    series, report = one(config(tmp_path, {"us10y_pct": spec}))
    assert (series.value.tolist(), report.rules) == ([3.95], {"drop-nulls": 1})
    path.write_text("observation_date,DGS10\n2024-01-01,abc\n2024-01-02,3.95\n", encoding="utf-8")
    with pytest.raises(DataError, match="DGS10 is 'abc'; it must be a number"):
        external_series(config(tmp_path, {"us10y_pct": spec}))


def test_a_file_without_any_value_is_refused(tmp_path):
    write(tmp_path, "a.parquet", {"timestamp": days(2), "x_count": [np.nan, np.nan]})
    spec = {"unit": "count", "available": "next-day", "file": "a.parquet", "rules": ["drop-nulls"]}
    with pytest.raises(DataError, match="holds no value of x_count"):
        external_series(config(tmp_path, {"x_count": spec}))
    write(tmp_path, "a.parquet", {"timestamp": days(2), "x_count": [1.0, np.inf]})
    with pytest.raises(DataError, match=r"row 2: x_count .* is inf; it must be finite"):
        external_series(config(tmp_path, {"x_count": spec}))


def test_a_report_says_in_words_what_was_done(shared_data):
    text = one(config(shared_data), "fund_reserve_btc")[1].text()
    assert "1,267 values of 4,473 rows" in text
    assert "drop-nulls 2,990, drop-zeros 216; available next-day" in text

"""Bars that could not have happened are refused; timeframes and ranges mean what traders mean by them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import (
    NS_PER_SECOND,
    OHLCV,
    Bars,
    Panel,
    between,
    timeframe_ns,
    timeframe_text,
    timerange_ns,
)
from market.table import DataError

HOUR = 3_600 * NS_PER_SECOND
DAY = 24 * HOUR
GOOD = [[10.0, 12.0, 9.0, 11.0, 5.0], [11.0, 11.0, 11.0, 11.0, 0.0], [11.0, 13.0, 10.0, 10.0, 1.0]]


def bars(values=GOOD, names=OHLCV, symbol="BTC/USDT", interval=HOUR, start=0) -> Bars:
    time = start + (1 + np.arange(len(values))) * interval
    return Bars(time, np.array(values, dtype=float), names, symbol=symbol, interval_ns=interval)


def with_value(row: int, column: int, value: float) -> list[list[float]]:
    values = [list(one) for one in GOOD]
    values[row][column] = value
    return values


# Bars


def test_possible_bars_pass():
    made = bars()
    assert len(made) == 3
    assert made.label == "BTC/USDT 1h"
    assert made.bars_per_year == 8760.0
    assert bars(interval=DAY).bars_per_year == 365.0


def test_further_columns_may_follow():
    made = bars([[*row, np.nan] for row in GOOD], (*OHLCV, "funding"))
    assert np.isnan(made.column("funding")).all()


@pytest.mark.parametrize(
    ("row", "column", "value", "sentence"),
    [
        (1, 0, 0.0, "open is 0 at 1970-01-01T02:00:00Z (row 1); prices must be positive and finite"),
        (2, 3, -3.2, "close is -3.2 at 1970-01-01T03:00:00Z (row 2); prices must be positive and finite"),
        (0, 2, np.nan, "low is nan at 1970-01-01T01:00:00Z (row 0); prices must be positive and finite"),
        (0, 1, np.inf, "high is inf at 1970-01-01T01:00:00Z (row 0); prices must be positive and finite"),
        (0, 0, 12.5, "open is 12.5 at 1970-01-01T01:00:00Z (row 0); no price may lie above the high"),
        (0, 3, 12.5, "close is 12.5 at 1970-01-01T01:00:00Z (row 0); no price may lie above the high"),
        (0, 2, 12.5, "low is 12.5 at 1970-01-01T01:00:00Z (row 0); no price may lie above the high"),
        (0, 0, 8.5, "open is 8.5 at 1970-01-01T01:00:00Z (row 0); no price may lie below the low"),
        (2, 3, 9.5, "close is 9.5 at 1970-01-01T03:00:00Z (row 2); no price may lie below the low"),
        (1, 4, -1.0, "volume is -1 at 1970-01-01T02:00:00Z (row 1); volume must be zero or more, and finite"),
        (1, 4, np.nan, "volume is nan at 1970-01-01T02:00:00Z (row 1); volume must be zero or more"),
    ],
)
def test_an_impossible_bar_is_named(row, column, value, sentence):
    with pytest.raises(DataError) as refused:
        bars(with_value(row, column, value))
    assert str(refused.value).startswith(f"BTC/USDT 1h: {sentence}")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.floats() | st.sampled_from([1.0, 2.0, 3.0])] * 5), min_size=1, max_size=3))
def test_bars_are_refused_exactly_when_a_plain_reading_says_so(rows):
    def possible(open_, high, low, close, volume):
        prices = [open_, high, low, close]
        return (
            all(np.isfinite(price) and price > 0 for price in prices)
            and low <= min(open_, close)
            and max(open_, close) <= high
            and np.isfinite(volume)
            and volume >= 0
        )

    if all(possible(*row) for row in rows):
        bars(rows)
    else:
        with pytest.raises(DataError):
            bars(rows)


def test_columns_and_interval_are_checked():
    with pytest.raises(DataError, match=r"columns begin .*'close', 'open'.*; they must begin"):
        bars(names=("close", "open", "high", "low", "volume"))
    with pytest.raises(DataError, match="interval is 0 ns; it must be positive"):
        Bars(np.array([1]), np.array(GOOD[:1]), OHLCV, symbol="X", interval_ns=0)
    with pytest.raises(DataError, match="row 0 closes at 1 ns, not on a whole second"):
        Bars(np.array([1]), np.array(GOOD[:1]), OHLCV, symbol="X", interval_ns=HOUR)


def test_a_bar_that_does_not_close_on_a_whole_second_is_refused():
    with pytest.raises(DataError, match="not on a whole second"):
        Bars(np.array([HOUR, 2 * HOUR + 1]), np.array(GOOD[:2]), OHLCV, interval_ns=HOUR)


def test_the_fingerprint_is_the_identity_of_the_data(make_bars):
    made = make_bars(50)
    print_of = made.fingerprint()
    assert print_of == make_bars(50).fingerprint()
    assert print_of != made[:-1].fingerprint()
    assert print_of != dataclasses.replace(made, symbol="ETH/USDT").fingerprint()
    values = made.values.copy()
    values[17, 4] = np.nextafter(values[17, 4], np.inf)
    assert print_of != dataclasses.replace(made, values=values).fingerprint()


# Panels


def test_a_panel_stands_on_the_union_of_the_clocks():
    one, two = bars(symbol="A"), bars(symbol="B", start=HOUR)
    panel = Panel.of(one, two)
    assert panel.time.tolist() == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]
    assert panel.present.tolist() == [[True, False], [True, True], [True, True], [False, True]]
    assert list(panel.bars) == ["A", "B"]
    assert panel.bars["B"] is two
    assert not panel.time.flags.writeable
    assert not panel.present.flags.writeable


def test_what_makes_no_panel_is_named():
    with pytest.raises(DataError, match=r"^a panel needs the bars of at least one symbol$"):
        Panel.of()
    with pytest.raises(
        DataError, match=r"^panel: symbols \['A', 'A'\] repeat; each symbol has one set of bars$"
    ):
        Panel.of(bars(symbol="A"), bars(symbol="A"))
    with pytest.raises(DataError, match=r"^panel: timeframes \['A 1h', 'B 1d'\] differ; they must be equal$"):
        Panel.of(bars(symbol="A"), bars(symbol="B", interval=DAY))


# Timeframes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("1m", 60), ("15m", 900), ("1h", 3_600), ("4h", 14_400), ("1d", 86_400), ("1w", 604_800)],
)
def test_timeframes_are_read_and_written_alike(text, seconds):
    assert timeframe_ns(text) == seconds * NS_PER_SECOND
    assert timeframe_text(seconds * NS_PER_SECOND) == text


@pytest.mark.parametrize(
    "text",
    ["", "h", "1", "0h", "1.5h", "-1h", "1 h", "1H", "1M", "1y", "h1", "\uff11h", "²h", "1hh", "+1h", "1_0h"],
)
def test_what_is_no_timeframe_is_refused(text):
    with pytest.raises(DataError, match=r"is not known; write a number and s, m, h, d or w, for example 1h$"):
        timeframe_ns(text)


@given(st.integers(1, 10_000), st.sampled_from("smhdw"))
def test_a_timeframe_survives_being_written(number, unit):
    interval = timeframe_ns(f"{number}{unit}")
    assert timeframe_ns(timeframe_text(interval)) == interval


def test_odd_intervals_have_a_text_too():
    assert timeframe_text(1) == "1ns"
    assert timeframe_text(0) == "0ns"
    assert timeframe_text(90 * 60 * NS_PER_SECOND) == "90m"


def test_a_timeframe_longer_than_time_is_refused():
    with pytest.raises(DataError):
        timeframe_ns("9999999999w")


# Ranges


def test_a_range_of_dates_is_read_as_utc_midnights():
    start, end = timerange_ns("20190101-20240630")
    assert start == 1_546_300_800 * NS_PER_SECOND
    assert end == 1_719_705_600 * NS_PER_SECOND
    assert timerange_ns("20190101-") == (start, None)
    assert timerange_ns("-20240630") == (None, end)
    assert timerange_ns("20190101T12-20190101T1230") == (start + 12 * HOUR, start + 12 * HOUR + HOUR // 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must look like 20190101-20240630; either side may be empty"),
        ("-", "must look like"),
        ("20190101", "must look like"),
        ("2019-01-01", "must look like"),
        ("20190101-20190102-20190103", "must look like"),
        ("20191301-", "'20191301' is not a date; write YYYYMMDD, for example 20190101"),
        ("20190230-", "is not a date"),
        ("yesterday-", "is not a date"),
        ("20240630-20190101", "ends before it starts"),
        ("20190101-20190101", "ends before it starts"),
    ],
)
def test_what_is_no_range_is_refused(text, sentence):
    with pytest.raises(DataError) as refused:
        timerange_ns(text)
    assert str(refused.value).startswith(f"timerange {text!r}")
    assert sentence in str(refused.value)


@pytest.mark.parametrize("text", ["2019111-", "201911-", "20190101T1-", "20190101T123-"])
def test_a_date_with_missing_digits_is_refused(text):
    with pytest.raises(DataError):
        timerange_ns(text)


@pytest.mark.parametrize("text", ["00010101-", "-99991231"])
def test_a_date_that_nanoseconds_cannot_hold_takes_all_bars(text, make_bars):
    assert len(between(make_bars(5), *timerange_ns(text))) == 5


def test_the_whole_span_of_a_bar_lies_in_the_range():
    made = bars([GOOD[1]] * 48)  # closes at 1970-01-01T01 to 1970-01-03T00
    part = between(made, *timerange_ns("19700102-19700103"))
    assert len(part) == 24
    assert part.time[0] - HOUR == DAY  # opens at midnight
    assert part.time[-1] == 2 * DAY  # closes at the next
    assert len(between(made, *timerange_ns("19700101-"))) == 48
    assert len(between(made, *timerange_ns("-19700102T0030"))) == 24
    assert len(between(made, *timerange_ns("19700101T0030-"))) == 47
    assert len(between(made, None, None)) == 48
    assert len(between(made, *timerange_ns("20190101-"))) == 0
    assert len(between(made, *timerange_ns("-19691231"))) == 0
    assert len(between(made, *timerange_ns("19700101T0010-19700101T0020"))) == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.none() | st.integers(-3, 50), st.none() | st.integers(-3, 50))
def test_between_is_the_filter_it_says(n, start, end):
    made = bars([GOOD[1]] * n) if n else bars([GOOD[1]])[:0]
    quarter = HOUR // 4
    start, end = (None if side is None else side * quarter for side in (start, end))
    if start is not None and end is not None and start >= end:
        return
    expected = [
        int(close)
        for close in made.time
        if (start is None or close - HOUR >= start) and (end is None or close <= end)
    ]
    assert between(made, start, end).time.tolist() == expected


def test_neighboring_ranges_share_no_bar_and_lose_none():
    made = bars([GOOD[1]] * 48)
    cut = DAY
    assert len(between(made, None, cut)) + len(between(made, cut, None)) == len(made)

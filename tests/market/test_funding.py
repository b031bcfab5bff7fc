"""Funding rates: read from files, and joined to the bars they are settled in."""

import math

import numpy as np
import pytest

from market.bars import OHLCV, Bars
from market.sources.funding import read_funding, with_funding
from market.sources.selection import MarketConfig, select_bars
from market.table import DataError

HOUR = 3_600_000_000_000


def bars_of(n=48, interval=HOUR):
    time = interval * np.arange(1, n + 1)
    return Bars(time, np.column_stack([np.full((n, 4), 100.0), np.full(n, 1e3)]), OHLCV, "TEST/USD", interval)


def test_settlements_are_joined_to_the_bar_that_ends_with_them():
    times = np.array([8, 16, 24, 32, 40, 48]) * HOUR
    joined = with_funding(bars_of(48), times, np.arange(1.0, 7.0))
    assert joined.column("funding")[times // HOUR - 1].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.count_nonzero(joined.column("funding")) == 6
    assert not joined.column("funding_inside").any()
    assert joined.names[:5] == OHLCV
    # Venues stamp them some milliseconds late.
    late = with_funding(bars_of(48), times + 7_000_000, np.arange(1.0, 7.0))
    assert np.array_equal(late.values, joined.values)
    # Joining again replaces the columns.
    assert np.array_equal(with_funding(joined, times, np.arange(1.0, 7.0)).values, joined.values)


def test_settlements_inside_a_long_bar_are_summed():
    joined = with_funding(
        bars_of(2, 24 * HOUR), np.array([8, 16, 24, 32, 40, 48]) * HOUR, np.arange(1.0, 7.0)
    )
    assert joined.column("funding_inside").tolist() == [3.0, 9.0]
    assert joined.column("funding").tolist() == [3.0, 6.0]


def test_a_settlement_where_bars_are_missing_finds_the_position_of_the_close_before():
    bars = bars_of(48)
    keep = np.ones(48, bool)
    keep[12:20] = False  # the bars that close at hours 13 to 20
    parted = Bars(bars.time[keep], bars.values[keep], OHLCV, "TEST/USD", HOUR)
    joined = with_funding(parted, np.array([8, 16, 24, 32, 40, 48]) * HOUR, np.arange(1.0, 7.0))
    assert joined.column("funding")[11] == 2.0
    assert joined.column("funding").sum() == 21.0


def test_funding_that_does_not_reach_over_the_bars_is_refused():
    for times in ([8, 16], [32, 40, 48]):
        with pytest.raises(DataError, match="run beyond the funding"):
            with_funding(bars_of(48), np.array(times) * HOUR, np.ones(len(times)))
    with pytest.raises(DataError, match="do not increase at row 1"):
        with_funding(bars_of(48), np.array([8, 8]) * HOUR, np.ones(2))
    with pytest.raises(DataError, match="row 1 has a rate"):
        with_funding(bars_of(48), np.array([8, 16]) * HOUR, np.array([1.0, math.nan]))
    with pytest.raises(DataError, match="one rate per settlement"):
        with_funding(bars_of(48), np.array([8, 16]) * HOUR, np.ones(3))


def test_the_real_funding_of_btc_joins_to_its_hours(shared_data):
    times, rates = read_funding(shared_data / "derivatives" / "btcusdt_binance_funding_8h.parquet")
    first, last = times[10] // HOUR, times[400] // HOUR
    time = HOUR * np.arange(first + 1, last + 1)
    values = np.column_stack([np.full((time.size, 4), 100.0), np.full(time.size, 1e3)])
    joined = with_funding(Bars(time, values, OHLCV, "BTC/USDT", HOUR), times, rates)
    assert np.count_nonzero(joined.column("funding")) >= 385
    assert joined.column("funding").sum() == pytest.approx(rates[11:401].sum(), rel=1e-12)


# Files.


@pytest.mark.parametrize(
    ("header", "unit"), [("fundingTime,fundingRate,symbol", 1), ("calc_time,last_funding_rate,hours", 1000)]
)
def test_the_dumps_of_exchanges_are_read(tmp_path, header, unit):
    first = 1_577_836_800_000
    rows = "".join(f"{(first + 28_800_000 * i) * unit},{0.0001 * i:.8f},{i}\n" for i in range(4))
    path = tmp_path / "funding.csv"
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    times, rates = read_funding(path)
    assert times.tolist() == [(first + 28_800_000 * i) * 1_000_000 for i in range(4)]
    assert rates == pytest.approx([0.0, 0.0001, 0.0002, 0.0003])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fundingTime,value\n1577836800000,0.1\n", "funding rates"),
        ("when,fundingRate\n1577836800000,0.1\n", "times"),
        ("time,date,fundingRate\n1577836800000,1577836800000,0.1\n", "times"),
        ("fundingTime,fundingRate\n1577836800000,abc\n", "abc"),
    ],
)
def test_a_file_without_times_or_rates_is_refused(tmp_path, text, said):
    path = tmp_path / "funding.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_funding(path)
    with pytest.raises(DataError):
        read_funding(tmp_path / "missing.csv")


def test_a_job_may_name_a_file_of_funding(tmp_path):
    bars = select_bars(MarketConfig(synthetic={"n_bars": 300})).bars
    path = tmp_path / "funding.csv"
    stamps = np.arange(bars.time[0] - 16 * HOUR, bars.time[-1] + 16 * HOUR, 8 * HOUR) // 1_000_000
    path.write_text("fundingTime,fundingRate\n" + "".join(f"{stamp},0.0001\n" for stamp in stamps))
    selection = select_bars(MarketConfig(synthetic={"n_bars": 300}, funding=str(path)))
    assert np.count_nonzero(selection.bars.column("funding")) >= 37
    assert "funding of" in selection.origin

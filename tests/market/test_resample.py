import numpy as np
import pytest

from market.bars import OHLCV, Bars
from market.resample import resample
from market.table import DataError

MINUTE_NS = 60 * 10**9


def minutes(rows, first=0):
    time = (first + 1 + np.arange(len(rows))) * MINUTE_NS
    return Bars(time, np.array(rows, float), OHLCV, "X", MINUTE_NS)


def test_prices_come_from_bars_with_trades_alone():
    rows = [(9, 9, 9, 9, 0), (10, 12, 8, 11, 2), (11, 13, 11, 12, 1), (12, 12, 12, 12, 0)]
    coarse = resample(minutes(rows), "4m")
    np.testing.assert_array_equal(coarse.values, [[10, 13, 8, 12, 3]])
    np.testing.assert_array_equal(coarse.time, [4 * MINUTE_NS])


def test_a_bar_without_any_trade_stands_flat_and_one_without_rows_is_missing():
    rows = [(1, 2, 1, 2, 5), (2, 2, 2, 2, 1), (2, 2, 2, 2, 0), (2, 2, 2, 2, 0)]
    bars = minutes(rows)
    np.testing.assert_array_equal(resample(bars, "2m").values, [[1, 2, 1, 2, 6], [2, 2, 2, 2, 0]])
    later = Bars(bars.time + np.array([0, 0, 10, 10]) * MINUTE_NS, bars.values, OHLCV, "X", MINUTE_NS)
    np.testing.assert_array_equal(resample(later, "2m").time, np.array([2, 14]) * MINUTE_NS)


def test_an_unfinished_coarse_bar_is_left_out():
    rows = [(1, 2, 1, 2, 5)] * 7
    assert len(resample(minutes(rows), "3m")) == 2
    assert len(resample(minutes(rows)[:0], "3m")) == 0


def test_bars_cannot_be_split():
    with pytest.raises(DataError, match="no multiple"):
        resample(minutes([(1, 2, 1, 2, 5)]), "90s")

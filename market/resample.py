"""Coarser bars from finer ones, as the exchange itself would have made them."""

import numpy as np

from market.bars import OHLCV, Bars, timeframe_ns, timeframe_text
from market.table import DataError


def resample(bars: Bars, timeframe: str) -> Bars:
    """Return bars of a coarser timeframe.

    Prices come only from bars with volume: bars without trades carry the last price forward and would give
    wrong opens, highs and lows. A coarse bar without any trade stands flat at the close before it. A coarse
    bar that has none of its fine bars is missing, and one whose span is not over by the last fine bar is
    left out.

    Parameters
    ----------
    bars : Bars
        Fine bars; extra columns are dropped.
    timeframe : str
        A multiple of theirs, on the grid of UTC.

    Raises
    ------
    DataError
        If the timeframe is not a multiple.
    """
    interval_ns = timeframe_ns(timeframe)
    if interval_ns % bars.interval_ns:
        raise DataError(
            f"{bars.label}: {timeframe} is no multiple of {timeframe_text(bars.interval_ns)}; bars "
            f"cannot be split"
        )
    if not len(bars):
        return Bars(bars.time, bars.values[:, :5], OHLCV, bars.symbol, interval_ns)
    slot = (bars.time - bars.interval_ns) // interval_ns
    values = bars.values[:, :5]
    slots, first = np.unique(slot, return_index=True)
    coarse = np.empty((slots.size, 5))
    coarse[:, 4] = np.add.reduceat(values[:, 4], first)
    traded = values[:, 4] > 0
    traded_slots, start = np.unique(slot[traded], return_index=True)
    at = np.searchsorted(slots, traded_slots)
    priced = values[traded]
    end = np.append(start[1:], priced.shape[0]) - 1
    if start.size:
        coarse[at, 0] = priced[start, 0]
        coarse[at, 1] = np.maximum.reduceat(priced[:, 1], start)
        coarse[at, 2] = np.minimum.reduceat(priced[:, 2], start)
        coarse[at, 3] = priced[end, 3]
    silent = np.setdiff1d(np.arange(slots.size), at, assume_unique=True)
    # The close a silent bar carries on is written in its own fine bars.
    coarse[silent, :4] = values[first[silent], 3:4]
    time = (slots + 1) * interval_ns
    over = time <= bars.time[-1]
    return Bars(time[over], coarse[over], OHLCV, bars.symbol, interval_ns)

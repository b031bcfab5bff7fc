"""Funding of a perpetual contract: read from files, and joined to the bars it is settled in."""

from pathlib import Path

import numpy as np

from market.bars import NS_PER_SECOND, Bars
from market.table import DataError, utc

NS_PER_HOUR = 3_600 * NS_PER_SECOND
FUNDING, FUNDING_INSIDE = "funding", "funding_inside"  # columns of bars: settled at the close, and before it

_TIMES = ("timestamp", "fundingtime", "funding_time", "calc_time", "time", "date", "datetime")
_RATES = ("funding_rate", "fundingrate", "last_funding_rate", "lastfundingrate", "rate")


def read_funding(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return settlement instants (int64, nanoseconds UTC) and rates (float64) of a file.

    CSV, JSON, Parquet or Feather as :mod:`market.sources.files` reads them, with one column of times
    (``fundingTime``, ``calc_time``, ``timestamp``, ...) and one of rates (``fundingRate``, ...).

    Raises
    ------
    DataError
        If the file is missing or wrong, or a column is not found or ambiguous.
    """
    from market.rows import Remedies
    from market.sources.containers import open_content
    from market.sources.parsing import numbers, times
    from market.sources.readers import read_raw

    remedies = Remedies((), ())
    raw = read_raw(open_content(path), remedies)
    names = {}
    for what, known in (("times", _TIMES), ("funding rates", _RATES)):
        found = [name for name in raw.names if name.strip().lower() in known]
        if len(found) != 1:
            raise DataError(
                f"{raw.place}: columns {', '.join(raw.names)}; one of them must be the {what}, under one of "
                f"the names {', '.join(known)}"
            )
        names[what] = found[0]
    stamps = times(raw, names["times"], remedies)
    return stamps.ns, numbers(raw, names["funding rates"], remedies)


def with_funding(bars: Bars, times: np.ndarray, rates: np.ndarray) -> Bars:
    """Return the bars with the columns ``funding`` and ``funding_inside``.

    Parameters
    ----------
    bars : Bars (n,)
        A bar covers the time after its open up to and including its close.
    times : int64 (m,)
        Settlement instants, nanoseconds UTC, strictly increasing. Venues stamp them some milliseconds
        late: an instant within a second after a full hour counts as that hour. One that falls where bars are
        missing finds the position of the close before.
    rates : float64 (m,)
        Paid by longs where positive, fraction of notional.

    Raises
    ------
    DataError
        If instants do not increase, a rate is not finite, or bars lie beyond the settlements given:
        funding that is not known is not zero.
    """
    times, rates = np.asarray(times, dtype=np.int64), np.asarray(rates, dtype=np.float64)
    if times.ndim != 1 or times.shape != rates.shape or times.size == 0:
        raise DataError(f"funding has {times.shape} times and {rates.shape} rates; one rate per settlement")
    if (np.diff(times) <= 0).any():
        raise DataError(f"funding times do not increase at row {int(np.argmax(np.diff(times) <= 0)) + 1}")
    if not np.isfinite(rates).all():
        raise DataError(f"funding row {int(np.argmin(np.isfinite(rates)))} has a rate that is not finite")
    times = times - np.where(times % NS_PER_HOUR < NS_PER_SECOND, times % NS_PER_HOUR, 0)
    spacing = int(np.median(np.diff(times))) if times.size > 1 else 0
    if len(bars) and not (
        times[0] - spacing <= bars.time[0] - bars.interval_ns and bars.time[-1] < times[-1] + spacing
    ):
        raise DataError(
            f"{bars.label}: bars from {utc(bars.time[0])} to {utc(bars.time[-1])} run beyond the funding "
            f"given, {utc(times[0])} to {utc(times[-1])}; cut the bars with --timerange"
        )
    row = np.searchsorted(bars.time, times, side="left")
    opened = bars.time - bars.interval_ns
    within = (row < len(bars)) & (times > opened[np.minimum(row, len(bars) - 1)])
    columns = np.zeros((2, len(bars)))
    at_close = within & (times == bars.time[np.minimum(row, len(bars) - 1)])
    np.add.at(columns[0], row[at_close], rates[at_close])
    # Where bars are missing, whoever held a position at the last close before pays.
    missed = ~within & (row > 0) & (row < len(bars))
    np.add.at(columns[0], row[missed] - 1, rates[missed])
    np.add.at(columns[1], row[within & ~at_close], rates[within & ~at_close])
    names = [name for name in bars.names if name not in (FUNDING, FUNDING_INSIDE)]
    values = np.column_stack([*(bars.column(name) for name in names), *columns])
    return Bars(bars.time, values, (*names, FUNDING, FUNDING_INSIDE), bars.symbol, bars.interval_ns)

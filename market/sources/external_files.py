"""Files of external series: funding, open interest, on-chain figures, macro series, headlines.

CSV, JSON, Parquet or Feather as :mod:`market.sources.containers` opens them. A table has one column of times
and one of values; what else must be said (unit, fund, range of the row) is named, never guessed.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.load import ConfigError
from market.rows import Remedies
from market.sources.containers import open_content
from market.sources.observations import Observations
from market.sources.onchain import coin_metrics_unit
from market.sources.parsing import Stamps, numbers, times
from market.sources.readers import RawTable, read_raw
from market.sources.sentiment import Headlines, headlines
from market.sources.units import column_unit, conversion
from market.table import DataError

NULLS = ("", ".", "-", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None")
# Funds that hold a good or futures and have never paid anything out.
NO_DISTRIBUTIONS = frozenset({"GLD", "GLDM", "IAU", "SLV", "USO"})


@dataclass(frozen=True)
class Columns:
    """Where a file has what.

    Parameters
    ----------
    value : str
        Column of values.
    time : str
        Column of event times: dates with or without zone, or numbers since 1970.
    published : str, optional
        Column of publication times; a row per revision.
    low, high : str, optional
        Columns of the range of each row, in the unit of the values.
    fund : str, optional
        Ticker: the rows whose column ``symbol`` says so, of a fund whose prices are not adjusted.
    unit : str, optional
        Unit of the column of values, where it is another than that of the series.
    """

    value: str
    time: str = "timestamp"
    published: str | None = None
    low: str | None = None
    high: str | None = None
    fund: str | None = None
    unit: str | None = None


def read_file(path: str, known: dict[str, RawTable] | None = None) -> RawTable:
    """Return the columns of a file; ``known`` keeps them for the next series of the same file."""
    known = {} if known is None else known
    if path not in known:
        known[path] = read_raw(open_content(path), Remedies())
    return known[path]


def file_observations(
    raw: RawTable, columns: Columns, unit: str, rules: tuple[str, ...] = ()
) -> Observations:
    """Return the rows of one series of a file.

    Parameters
    ----------
    raw : RawTable
        The file.
    columns : Columns
        Where it has what.
    unit : str
        Unit of the series; values are converted into it.
    rules : tuple of str
        ``day-first`` and ``month-first`` act here.

    Raises
    ------
    DataError
        If a column is missing or holds no times or numbers.
    ConfigError
        If the unit declared is not that of the column.
    """
    unadjusted = None
    if columns.fund is not None:
        raw = _of_fund(raw, columns.fund)
        if columns.fund not in NO_DISTRIBUTIONS:
            # Adjusted prices would be no way out: they rewrite the past at each distribution.
            unadjusted = (
                len(raw),
                (
                    f"{columns.fund} is not known as a fund without distributions, and its prices are not "
                    f"adjusted"
                ),
            )
    factor = conversion(_given_unit(raw, columns, unit), unit)
    stamps, touched = _times(raw, columns.time, rules)
    published = None if columns.published is None else _times(raw, columns.published, rules)[0].ns
    values = {
        key: None if name is None else column_numbers(raw, name) * factor
        for key, name in (("value", columns.value), ("low", columns.low), ("high", columns.high))
    }
    return Observations(
        f"{raw.place}, column {columns.value}",
        stamps.ns,
        published=published,
        number=raw.number,
        counted=raw.counted,
        notes=raw.notes if stamps.zoned else (*raw.notes, stamps.note),
        touched=touched,
        unadjusted=unadjusted,
        **values,
    )


def news_of_file(raw: RawTable, time: str, score: str | None, rules: tuple[str, ...]) -> Headlines:
    """Return the headlines of a file with the columns ``title`` and ``text``.

    Parameters
    ----------
    raw : RawTable
        The file.
    time : str
        Column of times.
    score : str, optional
        Column of scores that the source brings along.
    rules : tuple of str
        ``day-first``, ``month-first``, ``drop-nulls`` and ``drop-duplicates`` act here.
    """
    stamps, touched = _times(raw, time, rules)
    title, text = (raw.column(name).cast(pa.string()).to_pylist() for name in ("title", "text"))
    scores = None if score is None else column_numbers(raw, score)
    news = headlines(raw.place, stamps.ns, title, text, scores, rules)
    return replace(news, touched={**touched, **news.touched}, notes=() if stamps.zoned else (stamps.note,))


def column_numbers(raw: RawTable, name: str) -> np.ndarray:
    """Return a column as float64 (m,); NaN where a text says that there is no value, as FRED's dot does."""
    column = raw.column(name)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        missing = pc.is_in(text, value_set=pa.array(NULLS))
        cleared = pc.if_else(missing, pa.scalar(None, pa.string()), text)
        at = raw.names.index(name)
        raw = replace(raw, columns=(*raw.columns[:at], cleared, *raw.columns[at + 1 :]))
    return numbers(raw, name, Remedies(), blank=True)


def _times(raw: RawTable, name: str, rules: tuple[str, ...]) -> tuple[Stamps, dict[str, int]]:
    remedies = Remedies([rule for rule in ("day-first", "month-first") if rule in rules])
    return times(raw, name, remedies), dict(remedies.repaired)


def _of_fund(raw: RawTable, fund: str) -> RawTable:
    if "symbol" not in raw.names:
        return raw
    named = raw.column("symbol").cast(pa.string())
    mask = pc.fill_null(pc.equal(named, fund), False)
    if not pc.any(mask).as_py():
        listed = ", ".join(sorted(str(name) for name in pc.unique(named).to_pylist())[:12])
        raise DataError(f"{raw.place}: has no rows of the fund {fund}; it must be one of {listed}")
    chosen = np.asarray(mask, dtype=bool)
    return replace(
        raw,
        columns=tuple(column.filter(mask) for column in raw.columns),
        number=raw.number[chosen],
    )


def _given_unit(raw: RawTable, columns: Columns, unit: str) -> str:
    given = columns.unit or unit
    told = {
        "Coin Metrics gives it in": coin_metrics_unit(columns.value),
        "its name says": column_unit(columns.value),
    }
    for who, said in told.items():
        if said is not None and said != given:
            raise ConfigError(
                f"{raw.place}: column {columns.value} is declared in {given}, but {who} {said}; declare that "
                f"as its unit"
            )
    return given

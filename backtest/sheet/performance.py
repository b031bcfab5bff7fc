"""Drawdowns, months and years, and the spread of returns on a tear sheet."""

import math

import numpy as np

from backtest import metrics
from backtest.breakdown import calendar_returns, drawdown_spells, trade_returns
from backtest.sheet.subject import DAYS_PER_YEAR, STRATEGY, Subject
from experiments.evidence import TrackRecord
from experiments.page import Grid, decimal, paragraph, percent, table, whole

DEEPEST = 5  # drawdowns
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def drawdowns(subject: Subject) -> tuple[str, ...]:
    """Return the deepest drawdowns and how long each lasted."""
    spells = drawdown_spells(subject.returns)
    if not spells:
        return (paragraph("Equity never closed below an earlier peak.") if len(subject.time) else "",)
    days = DAYS_PER_YEAR / subject.result.bars_per_year
    rows = tuple(
        (
            str(i),
            percent(spell.depth),
            "start" if spell.peak < 0 else subject.clock(subject.time[spell.peak]),
            subject.clock(subject.time[spell.trough]),
            "not yet" if spell.recovery is None else subject.clock(subject.time[spell.recovery]),
            whole(spell.trough - spell.peak),
            whole(spell.bars),
            decimal(spell.bars * days, 1),
        )
        for i, spell in enumerate(spells[:DEEPEST], 1)
    )
    columns = ("", "depth", "peak", "trough", "recovery", "bars to the trough", "bars below", "days below")
    note = (
        "The deepest drawdowns at closes, UTC. Peak: the last close at it (start: the capital). Recovery: "
        "the first close that is no longer below. Bars below: closes below the peak."
    )
    return (table(Grid("drawdowns", columns, rows, title="Deepest drawdowns", note=note)),)


def calendar(subject: Subject) -> tuple[str, ...]:
    """Return monthly returns as a heat map, years beside the benchmarks, and how months are spread."""
    if not len(subject.time):
        return ()
    months = {
        name: calendar_returns(one.curve.time, one.curve.column("net_return"), "M")
        for name, one in subject.everyone.items()
    }
    years = {
        name: calendar_returns(one.curve.time, one.curve.column("net_return"), "Y")
        for name, one in subject.everyone.items()
    }
    period, returns = months[STRATEGY]
    strongest = max(float(np.quantile(np.abs(returns), 0.9)), 1e-9)
    rows, shades = [], {}
    for row, year in enumerate(years[STRATEGY][0]):
        cells = [""] * 12
        for month, value in zip(period, returns, strict=True):
            if month.astype("datetime64[Y]") == year:
                column = int((month - year.astype("datetime64[M]")).astype(int))
                cells[column] = percent(value)
                shades[row, column + 1] = float(np.clip(value / strongest, -1, 1))
        rows.append((str(year), *cells, percent(years[STRATEGY][1][row])))
    note = (
        "Net returns of the bars that end in a month, UTC, compounded; a bar that closes at midnight belongs "
        "to the day before. First and last month may be incomplete."
    )
    kinds = (
        ("number", lambda values: whole(values.size)),
        ("with a gain", lambda values: percent(np.mean(values > 0), signed=False)),
        ("mean", lambda values: percent(values.mean())),
        ("best", lambda values: percent(values.max())),
        ("worst", lambda values: percent(values.min())),
    )
    spread = tuple((name, *(style(values) for _, values in months.values())) for name, style in kinds)
    yearly = tuple(
        (str(year), *(percent(values[i]) for _, values in years.values()))
        for i, year in enumerate(years[STRATEGY][0])
    )
    return (
        table(Grid("months", ("", *_MONTHS, "year"), tuple(rows), note=note, shades=shades)),
        table(Grid("years", ("year", *years), yearly)),
        table(Grid("spread", ("months", *months), spread)),
    )


def returns(subject: Subject) -> tuple[str, ...]:
    """Return how bar and trade returns are spread, and what is left without the best of them."""
    if not len(subject.time):
        return ()
    bars = subject.returns
    kinds = {"bars": bars, "bars that moved": bars[bars != 0], "trades": trade_returns(subject.result.trades)}
    rows = tuple((name, *_distribution(values)) for name, values in kinds.items() if values.size)
    columns = (
        "", "number", "positive", "mean", "median", "deviation", "skewness", "kurtosis", "worst", "5 %",
        "95 %", "best",
    )  # fmt: skip
    note = (
        "Net returns. A bar moved if its return is not zero. Return of a trade: net profit over largest "
        "quantity x price of the first fill. Deviation with n - 1; kurtosis of a normal distribution: 3."
    )
    few = [("as it was", percent(metrics.total_return(bars)))]
    for count, kind in ((10, "best"), (10, "worst"), (50, "best"), (50, "worst")):
        if np.count_nonzero(bars) > count:
            kept = np.sort(bars)[:-count] if kind == "best" else np.sort(bars)[count:]
            few.append((f"without the {count} {kind} bars", percent(metrics.total_return(kept))))
    return (
        table(Grid("distribution", columns, rows, note=note)),
        table(Grid("few-bars", ("does it hang on a few bars?", "total return"), tuple(few))),
    )


def _distribution(values: np.ndarray) -> tuple[str, ...]:
    record = TrackRecord.of(values)
    low, high = np.quantile(values, (0.05, 0.95))
    moves = values.size > 1 and np.ptp(values) > 0
    return (
        whole(values.size),
        percent(np.mean(values > 0), signed=False),
        percent(values.mean(), 4),
        percent(np.median(values), 4),
        percent(values.std(ddof=1) if values.size > 1 else math.nan, 3, signed=False),
        decimal(record.skewness if moves else math.nan),
        decimal(record.kurtosis if moves else math.nan),
        percent(values.min(), 2),
        percent(low, 3),
        percent(high, 3),
        percent(values.max(), 2),
    )

"""The metrics of a tear sheet: unit and convention of each, beside the benchmarks, and what they prove."""

import math
from collections.abc import Callable
from dataclasses import fields

from backtest import metrics
from backtest.breakdown import Comparison
from backtest.sheet.subject import Subject
from backtest.simulate import BacktestResult
from experiments.evidence import TrackRecord, min_track_record_length, probabilistic_sharpe
from experiments.page import Grid, decimal, money_style, percent, significant, table, whole

# Field of Metrics: title, unit, convention. A field that is missing here is shown all the same.
CONVENTIONS = {
    "total_return": ("total return", "percent", "net returns of all bars, compounded"),
    "annual_return": ("return per year", "percent", "geometric: (1 + total)^(bars per year / bars) - 1"),
    "annual_volatility": (
        "volatility per year",
        "size",
        "deviation of bar returns (n - 1) x root of bars per year",
    ),
    "sharpe": (
        "Sharpe ratio",
        "ratio",
        "arithmetic mean over deviation of bar returns, x root of bars per year; risk-free rate 0",
    ),
    "sortino": (
        "Sortino ratio",
        "ratio",
        "mean over root mean square of min(return, 0) over all bars, x root of bars per year",
    ),
    "calmar": ("Calmar ratio", "ratio", "return per year over the size of the largest drawdown"),
    "omega": ("Omega ratio", "ratio", "sum of gains over sum of losses of bars, threshold 0"),
    "max_drawdown": (
        "largest drawdown",
        "percent",
        "lowest equity over its peak so far, at closes; the capital is the first peak",
    ),
    "drawdown_duration": ("longest drawdown", "count", "most bars in a row that close below an earlier peak"),
    "ulcer": ("ulcer index", "size", "root mean square of the drawdown at all closes"),
    "var_95": ("VaR 95 %, one bar", "fine", "5 % quantile of bar returns, at most 0"),
    "cvar_95": ("CVaR 95 %, one bar", "fine", "mean of the worst 5 % of bar returns, at most 0"),
    "tail_ratio": ("tail ratio", "ratio", "size of the 95 % over size of the 5 % quantile of bar returns"),
    "n_trades": ("trades", "count", "closed round trips"),
    "hit_rate": ("hit rate", "size", "trades with a net profit over all trades"),
    "profit_factor": ("profit factor", "ratio", "net profits over net losses of trades, as money"),
    "expectancy": ("profit per trade", "money", "mean net profit of a trade, quote currency"),
    "worst_trade": ("worst trade", "money", "smallest net profit of a trade, quote currency"),
    "losing_streak": ("losing streak", "count", "most losing trades in a row"),
    "turnover": (
        "turnover per year",
        "ratio",
        "value bought and sold per bar over equity, mean x bars per year",
    ),
    "time_in_market": ("time in market", "size", "bars that close with a position over all bars"),
    "gross_exposure": ("mean size of exposure", "size", "mean of the absolute exposure at closes"),
    "net_exposure": ("mean exposure", "percent", "mean of the signed exposure at closes"),
    "n_bars": ("bars", "count", "length of the record"),
    "bars_per_year": ("bars per year", "plain", "a year has 365 days"),
}


def metrics_table(subject: Subject) -> tuple[str, ...]:
    """Return the metrics beside those of the benchmarks, what they prove, and how both move together."""
    everyone = subject.everyone
    names = tuple(everyone)
    rows = []
    for entry in fields(metrics.Metrics):
        title, unit, convention = CONVENTIONS.get(entry.name, _unknown(entry.name))
        rows.append((title, *(_styled(one, entry.name, unit) for one in everyone.values()), convention))
    grid = Grid(
        "metrics",
        ("after all costs", *names, "convention"),
        tuple(rows),
        words=(len(names) + 1,),
        note="A dash means: not defined.",
    )
    return (table(grid), *_luck(subject), *_comparison(subject))


def _styled(result: BacktestResult, name: str, unit: str) -> str:
    styles: dict[str, Callable[[float], str]] = {
        "percent": percent,
        "size": lambda value: percent(value, signed=False),
        "fine": lambda value: percent(value, 3),
        "ratio": decimal,
        "count": whole,
        "money": money_style(result.capital),
        "plain": lambda value: significant(value, 10),
        "unknown": lambda value: significant(value, 4),
    }
    return styles[unit](float(getattr(result.metrics, name)))


def _unknown(name: str) -> tuple[str, str, str]:
    # A metric that is newer than the table of conventions speaks for itself.
    explained = getattr(metrics, name, None)
    text = "" if explained is None else (explained.__doc__ or "").strip().partition("\n")[0]
    return name.replace("_", " "), "unknown", text.removeprefix("Return ").rstrip(".")


def _luck(subject: Subject) -> tuple[str, ...]:
    if len(subject.time) < 3:
        return ()
    everyone = subject.everyone
    records = [TrackRecord.of(one.curve.column("net_return"), serial=True) for one in everyone.values()]
    skill = [probabilistic_sharpe(record) for record in records]
    years = [
        min_track_record_length(record) / one.bars_per_year if math.isfinite(probability) else math.nan
        for record, probability, one in zip(records, skill, everyone.values(), strict=True)
    ]
    # A record that never moves has no moments; it carries those of a normal distribution.
    moments = [
        (r.skewness, r.kurtosis, r.autocorrelation) if math.isfinite(r.sharpe) else (math.nan,) * 3
        for r in records
    ]
    rows = (
        ("skewness of bar returns", *(decimal(m[0]) for m in moments), "third standardised moment"),
        (
            "kurtosis of bar returns",
            *(decimal(m[1]) for m in moments),
            "fourth standardised moment; 3 is normal",
        ),
        ("autocorrelation", *(decimal(m[2], 3) for m in moments), "of bar returns, lag 1"),
        (
            "probability of skill",
            *(percent(probability, signed=False) for probability in skill),
            "that the true Sharpe ratio is above 0 (Bailey and Lopez de Prado 2012, autocorrelation of "
            "lag 1 allowed for)",
        ),
        (
            "years needed",
            *(decimal(year) for year in years),
            "for a probability of 95 %, if the Sharpe ratio stays what it is",
        ),
    )
    return (
        table(
            Grid(
                "luck",
                ("could it be luck?", *everyone, "convention"),
                rows,
                words=(len(everyone) + 1,),
                note="Of one strategy taken by itself: nothing is allowed for how many were tried.",
            )
        ),
    )


def _comparison(subject: Subject) -> tuple[str, ...]:
    if not subject.benchmarks or len(subject.time) < 3:
        return ()
    pairs = [
        Comparison.of(subject.returns, one.curve.column("net_return"), subject.result.bars_per_year)
        for one in subject.benchmarks.values()
    ]
    rows = (
        ("correlation", *(decimal(p.correlation) for p in pairs), "of bar returns"),
        ("beta", *(decimal(p.beta) for p in pairs), "slope of the regression on the benchmark's bar returns"),
        ("alpha per year", *(percent(p.alpha) for p in pairs), "its intercept x bars per year"),
        (
            "tracking error per year",
            *(percent(p.tracking_error, signed=False) for p in pairs),
            "deviation (n - 1) of the differences x root of bars per year",
        ),
        (
            "information ratio",
            *(decimal(p.information_ratio) for p in pairs),
            "annual mean of the differences over the tracking error",
        ),
    )
    columns = ("strategy against", *subject.benchmarks, "convention")
    return (table(Grid("comparison", columns, rows, words=(len(pairs) + 1,))),)

"""Numbers of a report that the account alone gives: by year, fold and regime, trades, costs, tails, crises.

Everything here is computed from what ``BacktestResult.save`` writes (and, for regimes, from the labels of the
saved decisions), so that anybody can have it again from the files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from backtest.breakdown import Bill, calendar_returns, drawdown_spells, trade_groups, trade_returns
from backtest.crises import crisis_windows
from backtest.metrics import Metrics, cvar_95, measure, sharpe, total_return, var_95
from backtest.simulate import REASONS, BacktestResult
from ensemble.validation import Validated
from market.table import utc
from regimes.regime import UNDECIDED
from regimes.statistics import plain

DEEPEST = 5  # drawdowns
EXTREME = 5  # best trades, and worst
UNKNOWN = "undecided"


def account_tables(validated: Validated) -> dict[str, Any]:
    """Return everything that the account of the strategy gives, as plain objects for JSON."""
    result = validated.result
    return plain(
        {
            "years": [_span(validated, name, rows) for name, rows in _years(validated.time)],
            "folds_performance": [_span(validated, name, rows) for name, rows in _folds(validated)],
            "regimes": _regimes(validated),
            "trades": _trades(result, validated.regime_names),
            "costs": _costs(result),
            "tails": _tails(result),
            "drawdowns": _drawdowns(result),
            "crises": [
                row.to_dict() for row in crisis_windows(validated.bars[: validated.rows.stop], result)
            ],
        }
    )


def held_label(label: np.ndarray) -> np.ndarray:
    """Return the regime in force when what is held in each bar was decided, int8 (n,): the label before.

    A bar's own label knows how the bar ended, so a return put down to it would be explained by itself.
    """
    return np.concatenate([np.full(min(label.size, 1), UNDECIDED, label.dtype), label[:-1]])


def measured(result: BacktestResult, rows: slice | np.ndarray, pnl: np.ndarray) -> Metrics:
    """Return the metrics of some rows of an account, and of some of its trades."""
    columns = (result.curve.column(name)[rows] for name in ("net_return", "exposure", "turnover"))
    returns, exposure, turnover = columns
    return measure(returns, exposure, pnl, turnover, result.bars_per_year)


def rows_of_exits(result: BacktestResult) -> np.ndarray:
    """Return the row in which each trade ended, int64 (m,)."""
    time = result.curve.time
    return np.minimum(np.searchsorted(time, result.trades["exit_time"]), max(time.size - 1, 0))


def _years(time: np.ndarray) -> Iterator[tuple[str, slice]]:
    # A bar belongs to the year in which it ends; one that closes at midnight to the day before.
    year = (time - 1).astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    starts = np.flatnonzero(np.diff(year, prepend=year[0] - 1))
    for start, stop in zip(starts, np.append(starts[1:], time.size), strict=True):
        yield str(year[start]), slice(int(start), int(stop))


def _folds(validated: Validated) -> Iterator[tuple[str, slice]]:
    first = validated.rows.start
    for fold in validated.folds:
        yield str(fold.number + 1), slice(fold.test.start - first, fold.test.stop - first)


def _span(validated: Validated, name: str, rows: slice) -> dict[str, Any]:
    # One unbroken stretch of the one account; a trade belongs to the stretch in which it ended.
    result, time = validated.result, validated.time
    ended = rows_of_exits(result)
    inside = (ended >= rows.start) & (ended < rows.stop)
    return {
        "name": name,
        "first": utc(time[rows.start]),
        "last": utc(time[rows.stop - 1]),
        "metrics": measured(result, rows, result.trades["pnl"][inside]).to_dict(),
        "baselines": {
            other: {
                "total_return": total_return(one.curve.column("net_return")[rows]),
                "sharpe": sharpe(one.curve.column("net_return")[rows], one.bars_per_year),
            }
            for other, one in validated.baselines.items()
        },
    }


def _regimes(validated: Validated) -> list[dict[str, Any]]:
    # The bars of a regime put one after the other; a trade belongs to the regime it was decided in.
    result, label = validated.result, held_label(validated.blend.label)
    everyone = dict(enumerate(validated.regime_names)) | {UNDECIDED: UNKNOWN}
    returns = result.curve.column("net_return")
    whole = float(np.log1p(np.maximum(returns, -1.0 + 1e-12)).sum())
    found = []
    for code, name in everyone.items():
        rows = label == code
        if code == UNDECIDED and rows.sum() <= 1:
            continue  # the first bar alone, in which nothing can be held
        part = float(np.log1p(np.maximum(returns[rows], -1.0 + 1e-12)).sum())
        pnl = result.trades["pnl"][result.trades["regime"] == code]
        found.append(
            {
                "name": name,
                "bars": int(rows.sum()),
                "share": float(rows.mean()),
                "metrics": measured(result, rows, pnl).to_dict(),
                "log_return": part,
                "part": part / whole if whole > 0 else np.nan,
                "held_sharpe": _held_sharpe(validated, rows),
            }
        )
    return found


def _held_sharpe(validated: Validated, rows: np.ndarray) -> float:
    # Of the price itself from close to close: what holding has earned in these bars, before costs.
    close = validated.bars.column("close")[: validated.rows.stop]
    moves = np.concatenate([[0.0], close[1:] / close[:-1] - 1.0])[validated.rows]
    return sharpe(moves[rows], validated.result.bars_per_year)


def _trades(result: BacktestResult, names: tuple[str, ...]) -> dict[str, Any]:
    trades = result.trades
    returns = trade_returns(trades)
    groups = trade_groups(trades, dict(enumerate(names)))
    order = np.argsort(trades["pnl"], kind="stable")
    return {
        "count": len(trades),
        "mean_bars": float(trades["bars"].mean()) if len(trades) else np.nan,
        "median_bars": float(np.median(trades["bars"])) if len(trades) else np.nan,
        "mean_return": float(returns.mean()) if len(trades) else np.nan,
        "median_return": float(np.median(returns)) if len(trades) else np.nan,
        "largest_share": _largest_share(trades["pnl"]),
        "groups": {kind: [asdict(group) for group in members] for kind, members in groups.items()},
        "best": [_trade(trades[i], names) for i in order[::-1][:EXTREME]],
        "worst": [_trade(trades[i], names) for i in order[:EXTREME]],
    }


def _largest_share(pnl: np.ndarray) -> float:
    # Of all gains, how much the few best trades made: luck comes in few large ones.
    gains = pnl[pnl > 0]
    return float(np.sort(gains)[::-1][:EXTREME].sum() / gains.sum()) if gains.size else np.nan


def _trade(trade: np.void, names: tuple[str, ...]) -> dict[str, Any]:
    regime = int(trade["regime"])
    return {
        "entry": utc(trade["entry_time"]),
        "exit": utc(trade["exit_time"]),
        "side": "long" if trade["side"] > 0 else "short",
        "regime": names[regime] if 0 <= regime < len(names) else UNKNOWN,
        "reason": REASONS[int(trade["reason"])],
        "bars": int(trade["bars"]),
        "pnl": float(trade["pnl"]),
        "return": float(trade["pnl"] / (trade["quantity"] * trade["entry_price"])),
    }


def _costs(result: BacktestResult) -> dict[str, Any]:
    bill = Bill.of(result)
    return {
        "capital": result.capital,
        **asdict(bill),
        "costs": bill.costs,
        "gross": bill.gross,
        "share_of_gross": bill.share(bill.costs),
        "per_value_traded": bill.rate(bill.costs),
    }


def _tails(result: BacktestResult) -> dict[str, Any]:
    returns = result.curve.column("net_return")
    days, daily = calendar_days(result.curve.time, returns)
    worst = int(np.argmin(daily))
    return {
        "var_95_bar": var_95(returns),
        "cvar_95_bar": cvar_95(returns),
        "worst_bar": float(returns.min()),
        "best_bar": float(returns.max()),
        "days": len(daily),
        "var_95_day": var_95(daily),
        "cvar_95_day": cvar_95(daily),
        "worst_day": float(daily[worst]),
        "worst_day_date": str(days[worst]),
        "best_day": float(daily.max()),
        "months": _months(result),
    }


def calendar_days(time: np.ndarray, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the UTC days that hold a bar, datetime64 (k,), and the compounded return of each, float64 (k,).

    A bar belongs to the day in which it ends; one that closes at midnight to the day before.
    """
    return calendar_returns(time, returns, "D")  # type: ignore[arg-type]


def _months(result: BacktestResult) -> dict[str, float]:
    months, returns = calendar_returns(result.curve.time, result.curve.column("net_return"), "M")
    return {str(month): float(value) for month, value in zip(months, returns, strict=True)}


def _drawdowns(result: BacktestResult) -> list[dict[str, Any]]:
    time = result.curve.time
    return [
        {
            "since": None if spell.peak < 0 else utc(time[spell.peak]),
            "trough": utc(time[spell.trough]),
            "recovered": None if spell.recovery is None else utc(time[spell.recovery]),
            "depth": spell.depth,
            "bars": spell.bars,
        }
        for spell in drawdown_spells(result.curve.column("net_return"))[:DEEPEST]
    ]


def metrics_of(results: Mapping[str, BacktestResult]) -> dict[str, Any]:
    """Return the metrics of each result by name, ready for JSON."""
    return {name: result.metrics.to_dict() for name, result in results.items()}

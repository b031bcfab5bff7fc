"""What an account of a tear sheet held, traded and paid."""

import math
from collections.abc import Callable

import numpy as np

from backtest.breakdown import Bill, regime_name, trade_costs, trade_groups, trade_returns
from backtest.sheet.subject import Subject
from backtest.simulate import REASONS
from experiments.page import Grid, decimal, money_style, paragraph, percent, significant, table, whole

LISTED = 5  # best and worst trades


def costs(subject: Subject) -> tuple[str, ...]:
    """Return the bill of costs, and how trades and equity add up."""
    result = subject.result
    bill = Bill.of(result)
    money, paid = money_style(result.capital), money_style(result.capital, signed=False)
    if not bill.traded > 0:
        return (paragraph("Nothing was traded, so nothing was paid."),)
    years = len(subject.time) / result.bars_per_year
    items = {
        "profit before costs": bill.gross,
        "fees": bill.fees,
        "slippage": bill.slippage,
        "funding": bill.funding,
        "all costs": bill.costs,
        "profit after costs": bill.net,
    }
    rows = tuple(
        (
            name,
            (money if name.startswith("profit") else paid)(amount),
            percent(bill.share(amount), signed=False),
            decimal(1e4 * bill.rate(amount)),
            percent(amount / result.capital / years, signed=False),
        )
        for name, amount in items.items()
    )
    columns = (
        "",
        "amount",
        "of profit before costs",
        "basis points of value traded",
        "of the capital, per year",
    )
    note = (
        "Costs are positive when paid; funding is negative when earned. Slippage is spread and impact. "
        "Before costs: the same quantities at the reference prices, without the costs."
    )
    closed = float(result.trades["pnl"].sum())
    balance = (
        ("capital", paid(result.capital)),
        ("net profit of closed trades", money(closed)),
        ("not in a closed trade", money(bill.net - closed)),
        ("last equity", paid(subject.equity[-1])),
        ("value traded", paid(bill.traded)),
    )
    absent = (
        ""
        if bill.gross > 0
        else paragraph("There was no profit before costs for the costs to take.", "warning")
    )
    return (
        absent,
        table(Grid("bill", columns, rows, note=note)),
        table(Grid("balance", ("does it add up?", "amount"), balance)),
    )


def exposure(subject: Subject) -> tuple[str, ...]:
    """Return how much was held and traded, beside the benchmarks."""
    if not len(subject.time):
        return ()
    rows: list[list[str]] = [[] for _ in range(7)]
    for one in subject.everyone.values():
        held, traded = one.curve.column("exposure"), one.curve.column("turnover")
        cells = (
            percent(np.mean(held > 0), signed=False),
            percent(np.mean(held < 0), signed=False),
            percent(np.mean(held == 0), signed=False),
            percent(np.abs(held[held != 0]).mean() if held.any() else math.nan, signed=False),
            percent(np.max(held, initial=0.0)),
            percent(np.min(held, initial=0.0)),
            percent(np.mean(traded > 0), signed=False),
        )
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    names = (
        "bars long", "bars short", "bars flat", "mean size while held", "largest long", "largest short",
        "bars with a trade",
    )  # fmt: skip
    grid = Grid(
        "exposure",
        ("at closes", *subject.everyone),
        tuple((name, *row) for name, row in zip(names, rows, strict=True)),
        note="Exposure is the value of the position over equity. Bars as fractions of all bars.",
    )
    return (table(grid),)


def trades(subject: Subject, see: Callable[[str], str]) -> tuple[str, ...]:
    """Return groups, excursions, and the best and worst trades; ``see`` returns a picture by name."""
    records = subject.result.trades
    if not records.size:
        return (paragraph("No trade was closed."),)
    money, paid = (money_style(subject.result.capital, signed) for signed in (True, False))
    rows: list[tuple[str, ...]] = []
    for kind, groups in trade_groups(records, subject.regimes).items():
        rows.append((f"by {kind}",))
        rows += (
            (
                group.name,
                whole(group.n_trades),
                percent(group.hit_rate, signed=False),
                decimal(group.profit_factor),
                money(group.pnl),
                money(group.expectancy),
                percent(group.mean_return, 2),
                paid(group.costs),
                decimal(group.mean_bars, 1),
            )
            for group in groups
        )
    columns = (
        "", "trades", "hit rate", "profit factor", "net profit", "per trade", "mean return", "costs",
        "mean bars",
    )  # fmt: skip
    return (
        table(Grid("groups", columns, tuple(rows))),
        see("groups"),
        _few_trades(records, money),
        see("excursions"),
        _excursions(records),
        _listed(subject, "best", "Best trades"),
        _listed(subject, "worst", "Worst trades"),
    )


def _few_trades(records: np.ndarray, money: Callable[[float], str]) -> str:
    profit = np.sort(records["pnl"])
    rows = [("as it was", money(profit.sum()))]
    rows += (
        (
            f"without the {'best trade' if count == 1 else f'{count} best trades'}",
            money(profit[:-count].sum()),
        )
        for count in (1, 5, 10)
        if profit.size > count
    )
    return table(Grid("few-trades", ("does it hang on a few trades?", "net profit of trades"), tuple(rows)))


def _excursions(records: np.ndarray) -> str:
    gained = records["pnl"] > 0
    rows = tuple(
        (
            name,
            whole(group.size),
            percent(group["mae"].mean(), 2),
            percent(np.median(group["mae"]), 2),
            percent(group["mae"].min(), 2),
            percent(group["mfe"].mean(), 2),
            percent(np.median(group["mfe"]), 2),
            percent(group["mfe"].max(), 2),
        )
        for name, group in (("with a profit", records[gained]), ("without", records[~gained]))
        if group.size
    )
    columns = (
        "trades", "number", "mean MAE", "median MAE", "worst MAE", "mean MFE", "median MFE", "best MFE",
    )  # fmt: skip
    note = (
        "MAE and MFE: how far the price went against and in favor of a trade, fractions of its entry price, "
        "before costs."
    )
    return table(Grid("excursions", columns, rows, note=note))


def _listed(subject: Subject, kind: str, title: str) -> str:
    records = subject.result.trades
    money, plain = (money_style(subject.result.capital, signed) for signed in (True, False))
    order = np.argsort(records["pnl"], kind="stable")
    chosen = order[::-1][:LISTED] if kind == "best" else order[:LISTED]
    chosen = [i for i in chosen if (records["pnl"][i] > 0) == (kind == "best")]
    if not chosen:
        return paragraph("No trade made a profit." if kind == "best" else "Every trade made a profit.")
    profits, paid = trade_returns(records), trade_costs(records)
    rows = tuple(
        (
            str(i),
            subject.clock(trade["entry_time"]),
            subject.clock(trade["exit_time"]),
            "long" if trade["side"] > 0 else "short",
            significant(trade["entry_price"], 8),
            significant(trade["exit_price"], 8),
            money(trade["pnl"]),
            percent(profits[i], 2),
            plain(paid[i]),
            percent(trade["mae"], 2),
            percent(trade["mfe"], 2),
            whole(trade["bars"]),
            REASONS[trade["reason"]],
            regime_name(int(trade["regime"]), subject.regimes),
        )
        for i, trade in ((i, records[i]) for i in chosen)
    )
    columns = (
        "row", "entry, UTC", "exit, UTC", "side", "entry", "exit", "net profit", "return", "costs", "MAE",
        "MFE", "bars", "reason", "regime",
    )  # fmt: skip
    note = "Row: of trades.parquet, from 0. Prices are those of the first and the last fill."
    return table(Grid(kind, columns, rows, title=title, note=note, words=(3, 12, 13)))

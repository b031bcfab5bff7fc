"""What stands first on a tear sheet: sample, warnings, headline, facts; and last: where it all comes from."""

from collections.abc import Mapping

import numpy as np

from backtest.breakdown import Bill
from backtest.sheet.subject import Subject
from backtest.simulate import REASONS
from experiments.page import (
    UNDEFINED,
    Grid,
    bullets,
    decimal,
    money_style,
    paragraph,
    percent,
    significant,
    table,
    whole,
)
from market.bars import timeframe_text

FEW_TRADES = 30


def opening(subject: Subject) -> tuple[str, ...]:
    """Return what a reader must know first: the sample, warnings, the headline, the facts."""
    result, curve = subject.result, subject.result.curve
    found, bill = result.metrics, Bill.of(result)
    amount = money_style(result.capital, signed=False)
    headline = Grid(
        "headline",
        (
            "total return",
            "return per year",
            "Sharpe ratio",
            "largest drawdown",
            "costs / gross profit",
            "trades",
        ),
        (
            (
                percent(found.total_return),
                percent(found.annual_return),
                decimal(found.sharpe),
                percent(found.max_drawdown),
                percent(bill.share(bill.costs), signed=False),
                whole(found.n_trades),
            ),
        ),
    )
    given = subject.bars is not None
    record = (
        ("symbol", (subject.bars.symbol or "not named") if given else "not given"),
        ("timeframe", timeframe_text(subject.bars.interval_ns) if given else "not given"),
        ("first close, UTC", subject.clock(curve.time[0]) if len(curve) else UNDEFINED),
        ("last close, UTC", subject.clock(curve.time[-1]) if len(curve) else UNDEFINED),
        ("bars", whole(len(curve))),
        ("bars per year", significant(result.bars_per_year, 10)),
        ("years", decimal(len(curve) / result.bars_per_year, 3)),
    )
    account = (
        ("capital", amount(result.capital)),
        ("last equity", amount(subject.equity[-1])),
        ("highest equity at a close", amount(subject.equity.max())),
        ("lowest equity at a close", amount(subject.equity.min())),
        ("costs paid", amount(bill.costs)),
        ("value traded", amount(bill.traded)),
        ("trades closed", whole(found.n_trades)),
    )
    return (
        paragraph(subject.sample or "sample not stated", "sample"),
        *(paragraph(warning, "warning") for warning in warnings(subject)),
        table(headline),
        table(Grid("record", ("", "the record"), record)),
        table(Grid("account", ("", "the account"), account)),
    )


def warnings(subject: Subject) -> tuple[str, ...]:
    """Return what speaks against the figures of a sheet, one sentence each."""
    result = subject.result
    n_bars, n_trades = len(subject.time), len(result.trades)
    reasons = {REASONS[code] for code in np.unique(result.trades["reason"])}
    said = (subject.sample or "").lower().replace("-", " ").replace("_", " ").split()
    checks = (
        (said[:2] == ["in", "sample"],
         "The strategy was chosen on these bars. What it earns on them says nothing of what it will earn."),
        (not said, "Nobody said whether these bars helped to choose the strategy. Believe the figures less."),
        ("ruin" in reasons, "The account was ruined: its equity is gone, and what follows stays flat."),
        ("liquidation" in reasons, "A position was liquidated: its margin was lost."),
        ("halt" in reasons, "A breaker (daily loss or drawdown) halted the account."),
        (n_bars == 0, "There are no bars, so there is nothing to say."),
        (n_bars == 1, "There is a single bar: nothing that needs a spread of returns is defined."),
        (n_bars > 0 and n_trades == 0, "No trade was closed: figures of trades are not defined."),
        (0 < n_trades < FEW_TRADES, f"Fewer than {FEW_TRADES} trades: their figures rest on few cases."),
        (n_bars > 0 and result.curve.column("exposure")[-1:].any(),
         "A position is still open at the last close; its profit so far is in the equity, not among trades."),
        (0 < n_bars < result.bars_per_year, "The record is shorter than a year: annual figures extrapolate."),
        (n_bars > 0 and not subject.benchmarks, "No benchmark was given to compare with."),
    )  # fmt: skip
    return tuple(sentence for found, sentence in checks if found)


def sources(subject: Subject, files: Mapping[str, str]) -> tuple[str, ...]:
    """Return which files the numbers come from; ``files`` holds their SHA-256 by name."""
    lines = [
        "Every number in the tables, except of stress tests, follows from these files, the capital and the "
        "bars per year.",
        "Amounts are in quote currency. Times are UTC; a bar is known by its close.",
    ]
    shared = set(subject.result.assumptions)
    for i, (name, one) in enumerate(subject.benchmarks.items(), 1):
        other = " ".join(sentence for sentence in one.assumptions if sentence not in shared)
        lines.append(f"benchmark-{i} is {name}. {'It differs in: ' + other if other else ''}")
    grid = Grid("files", ("file", "SHA-256"), tuple(files.items()), words=(1,))
    return (bullets(lines, "sources"), table(grid))

"""The stress tests of a tear sheet."""

import math
from collections.abc import Mapping
from typing import Any

from backtest.sheet.subject import Subject
from experiments.page import Grid, decimal, paragraph, percent, significant, table, whole


def stress(subject: Subject) -> tuple[str, ...]:
    """Return the tables of a stress report; the files beside the page do not hold their numbers."""
    if subject.stress is None:
        return ()
    found = subject.stress.to_dict()
    crises = Grid(
        "stress-crises",
        ("crisis", "return", "drawdown", "worst bar", "held: return", "held: drawdown", "trades", "covered"),
        tuple(_crisis(row) for row in found["crises"]),
        title="Named crises",
        words=(7,),
    )
    parts = [
        paragraph(
            "These numbers come from further simulations, not from the files beside this page.", "note"
        ),
        table(crises),
        table(_variants("stress-costs", "times the costs", found["costs"]["factors"], "factor")),
        paragraph(found["costs"]["verdict"]),
        table(_variants("stress-delays", "bars of further delay", found["delays"], "extra_bars")),
        table(_paths("stress-returns", "returns in another order", found["returns"])),
    ]
    if found["markets"] is not None:
        parts += [
            table(_paths("stress-account", "account on other markets", found["markets"]["account"])),
            table(_paths("stress-held", "held on other markets", found["markets"]["held"])),
        ]
    return tuple(parts)


def _crisis(row: Mapping[str, Any]) -> tuple[str, ...]:
    account, held = row["account"] or {}, row["held"] or {}
    return (
        row["name"],
        *(_share(account.get(name)) for name in ("total_return", "max_drawdown", "worst_bar")),
        *(_share(held.get(name)) for name in ("total_return", "max_drawdown")),
        "-" if row["trades"] is None else whole(row["trades"]),
        row["coverage"],
    )


def _variants(name: str, title: str, variants: list[dict[str, Any]], setting: str) -> Grid:
    rows = tuple(
        (
            significant(one[setting], 4),
            _share(one["total_return"]),
            _number(one["sharpe"]),
            _share(one["max_drawdown"]),
            _number(one["profit_factor"]),
            whole(one["n_trades"]),
        )
        for one in variants
    )
    return Grid(name, (title, "total return", "Sharpe ratio", "drawdown", "profit factor", "trades"), rows)


def _paths(name: str, title: str, paths: Mapping[str, Any]) -> Grid:
    kinds = (
        ("total return", "total_return", _share),
        ("Sharpe ratio", "sharpe", _number),
        ("largest drawdown", "max_drawdown", _share),
        ("lowest equity", "lowest", _size),
    )
    levels = tuple(paths["total_return"])
    columns = (title, *(level if level == "taken" else f"{float(level):.0%}" for level in levels))
    rows = tuple((label, *(style(paths[kind][level]) for level in levels)) for label, kind, style in kinds)
    note = (
        f"Quantiles of {paths['paths']:,} paths of blocks of {paths['mean_block']:.3g} bars in the mean: "
        f"{paths['loss_probability']:.1%} end below their start, {paths['ruin_probability']:.1%} fall to "
        f"{paths['ruin']:.0%} of it."
    )
    return Grid(name, columns, rows, note=note)


def _share(value: float | None) -> str:
    return percent(math.nan if value is None else value)


def _size(value: float | None) -> str:
    return percent(math.nan if value is None else value, signed=False)


def _number(value: float | None) -> str:
    return decimal(math.nan if value is None else value)

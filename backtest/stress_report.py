"""What :mod:`backtest.stress` found out: frozen records, plain objects for JSON, and plain text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.bootstrap import QUANTILES, Paths
from backtest.crises import CrisisRow, WindowFigures
from backtest.metrics import Metrics
from market.table import utc

_WINDOW = ("total_return", "max_drawdown", "worst_bar", "cvar_95")
_METRICS = (
    ("total return", "total_return", "{:+.1%}"),
    ("Sharpe", "sharpe", "{:.2f}"),
    ("drawdown", "max_drawdown", "{:.1%}"),
    ("profit factor", "profit_factor", "{:.2f}"),
    ("trades", "n_trades", "{:,.0f}"),
)
_FIGURES = (
    ("total return", "total_return", "{:+.1%}"),
    ("Sharpe", "sharpe", "{:.2f}"),
    ("drawdown", "max_drawdown", "{:.1%}"),
    ("lowest equity", "lowest", "{:.1%}"),
)


@dataclass(frozen=True)
class Variant:
    """The figures of one re-simulation.

    Parameters
    ----------
    setting : float
        The factor of the costs, or the bars of extra delay.
    metrics : Metrics
    """

    setting: float
    metrics: Metrics


@dataclass(frozen=True)
class CostStress:
    """One set of decisions at several multiples of the costs.

    Parameters
    ----------
    variants : tuple of Variant
        By factor, in the order asked for.
    break_even : float or None
        The factor at which the total return crosses zero; None where it crosses nowhere.
    verdict : str
        The same in words, also where there is none.
    """

    variants: tuple[Variant, ...]
    break_even: float | None
    verdict: str


@dataclass(frozen=True, eq=False)
class Markets:
    """A rule on markets that never were.

    Parameters
    ----------
    account : Paths
        The account after costs.
    held : Paths
        The price of the same paths: buying and holding before costs.
    """

    account: Paths
    held: Paths

    @property
    def ahead(self) -> float:
        """Share of the paths on which the account ends above holding."""
        return float(np.mean(self.account.total_return > self.held.total_return))

    def to_dict(self) -> dict[str, Any]:
        """Return both as plain objects for JSON."""
        return {"account": self.account.to_dict(), "held": self.held.to_dict(), "ahead": self.ahead}


@dataclass(frozen=True, eq=False)
class StressReport:
    """Everything :func:`backtest.stress.stress` found out; ``str()`` of it is a page of plain text.

    Parameters
    ----------
    label : str
        Symbol and timeframe.
    start, end : int
        First open and last close of the account, nanoseconds UTC.
    assumptions : tuple of str
        Of the plain simulation.
    crises : tuple of CrisisRow
    costs : CostStress
    delays : tuple of Variant
    returns : Paths
        The net returns in another order.
    markets : Markets or None
        The rule on paths of the market; None without a rule.
    """

    label: str
    start: int
    end: int
    assumptions: tuple[str, ...]
    crises: tuple[CrisisRow, ...]
    costs: CostStress
    delays: tuple[Variant, ...]
    returns: Paths
    markets: Markets | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain objects for JSON; what is not defined is None."""
        return {
            "label": self.label,
            "start": utc(self.start),
            "end": utc(self.end),
            "assumptions": list(self.assumptions),
            "crises": [row.to_dict() for row in self.crises],
            "costs": {
                "factors": [{"factor": v.setting, **v.metrics.to_dict()} for v in self.costs.variants],
                "break_even": self.costs.break_even,
                "verdict": self.costs.verdict,
            },
            "delays": [{"extra_bars": v.setting, **v.metrics.to_dict()} for v in self.delays],
            "returns": self.returns.to_dict(),
            "markets": None if self.markets is None else self.markets.to_dict(),
        }

    def __str__(self) -> str:
        parts = [
            f"Stress of {self.label}, {utc(self.start)} to {utc(self.end)}",
            crises_text(self.crises),
            variants_text("times the costs", self.costs.variants),
            self.costs.verdict,
            variants_text("more bars of delay", self.delays),
            paths_text("returns in another order", self.returns),
        ]
        if self.markets is not None:
            parts += [
                paths_text("account on other markets", self.markets.account),
                paths_text("held on other markets", self.markets.held),
                f"The account ends ahead of holding on {self.markets.ahead:.1%} of these paths.",
            ]
        return "\n\n".join(parts)


def crises_text(rows: Sequence[CrisisRow]) -> str:
    """Return the crises as a table of plain text: the account after costs, and holding below it."""
    head = ("crisis", "of", "return", "drawdown", "worst bar", "CVaR 95", "exposure", "trades", "coverage")
    lines = []
    for row in (row for row in rows if row.held is not None):
        account = [_or_dash("{:.0%}", row.exposure), _or_dash("{:,d}", row.n_trades)]
        if row.account is not None:
            lines.append([row.crisis.name, "account", *_window(row.account), *account, row.coverage])
        name = ["", ""] if row.account is not None else [row.crisis.name, row.coverage]
        lines.append([name[0], "held", *_window(row.held), "", "", name[1]])
    absent = [f"{row.crisis.name} ({row.coverage})" for row in rows if row.held is None]
    table = [_grid(head, lines, left=(0, 1, len(head) - 1))] if lines else []
    return "\n".join([*table, *absent])


def variants_text(title: str, variants: Sequence[Variant]) -> str:
    """Return re-simulations as a table of plain text, one per line."""
    lines = [
        [f"{variant.setting:g}"]
        + [_or_dash(form, getattr(variant.metrics, field)) for _, field, form in _METRICS]
        for variant in variants
    ]
    return _grid((title, *(name for name, _, _ in _METRICS)), lines)


def paths_text(title: str, paths: Paths) -> str:
    """Return the spread of many paths as a table of plain text, and the probabilities in a sentence."""
    lines = [
        [name, *(_or_dash(form, value) for value in (*paths.quantiles(field), paths.taken[field]))]
        for name, field, form in _FIGURES
    ]
    table = _grid((title, *(f"{level:.0%}" for level in QUANTILES), "taken"), lines)
    return (
        f"{table}\n{len(paths):,} paths of blocks of {paths.mean_block:.3g} bars in the mean: "
        f"{paths.loss_probability:.1%} end below their start, {paths.ruin_probability:.1%} fall to "
        f"{paths.ruin:.0%} of it."
    )


def _window(figures: WindowFigures) -> list[str]:
    return [f"{getattr(figures, name):+.1%}" for name in _WINDOW]


def _or_dash(style: str, value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else style.format(value)


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]], left: tuple[int, ...] = (0,)) -> str:
    rows = [list(head), *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    cells = [
        [row[i].ljust(width) if i in left else row[i].rjust(width) for i, width in enumerate(widths)]
        for row in rows
    ]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(row).rstrip() for row in cells)

"""Tables of the report on trades, tails and crises, and on what was fitted when, and from what."""

import math
from collections.abc import Mapping
from typing import Any

from ensemble.report_grids import Report, change, day, number, ratio, share
from experiments.page import UNDEFINED, Grid, decimal, printable, whole


def trade_groups(report: Report) -> Grid:
    """Return the trades by what they have in common."""
    rows: list[tuple[str, ...]] = []
    for kind, groups in report["trades"]["groups"].items():
        rows.append((f"by {kind}",))
        rows += [
            (
                one["name"],
                whole(one["n_trades"]),
                share(one["hit_rate"], 0),
                ratio(one["profit_factor"]),
                decimal(number(one["pnl"]), 2, signed=True),
                decimal(number(one["costs"]), 2),
                change(one["mean_return"], 2),
                ratio(one["mean_bars"], 1),
            )
            for one in groups
        ]
    return Grid(
        "trades",
        ("", "trades", "hit rate", "profit factor", "net profit", "costs", "mean return", "mean bars"),
        tuple(rows), title="What trades have in common",
    )  # fmt: skip


def extreme_trades(report: Report) -> Grid:
    """Return the best and the worst trades."""
    rows: list[tuple[str, ...]] = []
    for title, key in (("best", "best"), ("worst", "worst")):
        rows.append((title,))
        rows += [
            (
                one["entry"][:16].replace("T", " "),
                one["exit"][:16].replace("T", " "),
                one["side"],
                one["regime"],
                one["reason"],
                whole(one["bars"]),
                decimal(one["pnl"], 2, signed=True),
                change(one["return"], 2),
            )
            for one in report["trades"][key]
        ]
    return Grid(
        "extremes",
        ("entry, UTC", "exit, UTC", "side", "regime", "ended by", "bars", "net profit", "return"),
        tuple(rows), title="Best and worst trades",
    )  # fmt: skip


def tails(report: Report) -> Grid:
    """Return value at risk and expected shortfall."""
    found = report["tails"]
    rows = (
        ("value at risk, 95 %", change(found["var_95_bar"], 2), change(found["var_95_day"], 2)),
        ("expected shortfall, 95 % (CVaR)", change(found["cvar_95_bar"], 2), change(found["cvar_95_day"], 2)),
        ("worst", change(found["worst_bar"], 2), change(found["worst_day"], 2)),
        ("best", change(found["best_bar"], 2), change(found["best_day"], 2)),
    )
    return Grid("tails", ("", "of a bar", "of a UTC day"), rows, title="Tails",
                note=f"The worst day was {found['worst_day_date']}.")  # fmt: skip


def drawdowns(report: Report) -> Grid:
    """Return the deepest drawdowns."""
    rows = tuple(
        (
            str(i),
            share(one["depth"]),
            "the start" if one["since"] is None else day(one["since"]),
            day(one["trough"]),
            "not yet" if one["recovered"] is None else day(one["recovered"]),
            whole(one["bars"]),
        )
        for i, one in enumerate(report["drawdowns"], 1)
    )
    return Grid("drawdowns", ("", "depth", "peak", "trough", "recovered", "bars below the peak"), rows,
                title="Deepest drawdowns")  # fmt: skip


def crises(report: Report) -> Grid:
    """Return what the account did in named crises, beside holding."""
    rows = tuple(
        (
            one["name"],
            one["coverage"],
            *(change((one["account"] or {}).get(key)) for key in ("total_return", "max_drawdown")),
            *(change((one["held"] or {}).get(key)) for key in ("total_return", "max_drawdown")),
            share(one["exposure"], 0),
            whole(number(one["trades"])),
        )
        for one in report["crises"]
    )
    return Grid(
        "crises",
        ("crisis", "covered", "return", "drawdown", "of holding", "its drawdown", "mean size", "trades"),
        rows, words=(1,), title="Crises", note="Windows are named with hindsight; holding is before costs.",
    )  # fmt: skip


def fitted(report: Report) -> Grid:
    """Return which rows taught, chose and judged in each fold."""
    rows = []
    for fold in report["folds"]:
        trials = sum(one.get("n_evaluated") or 0 for one in fold["members"].values())
        rows.append(
            (
                str(fold["number"] + 1),
                *(day(stamp) for name in ("learn", "validation", "test") for stamp in fold["spans"][name]),
                fold["fitted_until_utc"][:16].replace("T", " "),
                f"{len(fold['members'])} of {len(fold['members']) + len(fold['absent'])}",
                whole(trials),
                fold["fingerprint"][:12],
            )
        )
    return Grid(
        "fitted",
        ("fold", "learned from", "to", "blender from", "to", "tested from", "to", "last bar seen, UTC",
         "members", "trials", "strategy"),
        tuple(rows),
        note="Nothing of a fold has seen a bar after the last bar seen, which lies before its test. Trials: "
        "of the members' searches, the generalist's not among them.",
    )  # fmt: skip


def absent(report: Report) -> tuple[str, ...]:
    """Return who is missing in which fold, and why, one sentence each."""
    return tuple(
        f"Fold {fold['number'] + 1} has no {name}: {why}."
        for fold in report["folds"]
        for name, why in fold["absent"].items()
    )


def fitted_members(report: Report) -> Grid:
    """Return the last bar each member of each fold has seen, and what its search found in sample."""
    rows: list[tuple[str, ...]] = []
    for fold in report["folds"]:
        rows.append((f"fold {fold['number'] + 1}",))
        rows += [
            (
                name,
                one["fitted_until_utc"][:16].replace("T", " "),
                ratio(one.get("sharpe_learn")),
                whole(number(one.get("n_evaluated"))),
                str(one.get("fingerprint") or UNDEFINED)[:12],
            )
            for name, one in fold["members"].items()
        ]
    return Grid(
        "fitted-members",
        ("member", "last bar seen, UTC", "Sharpe IN SAMPLE", "trials", "fingerprint"),
        tuple(rows), title="Members of each fold", note="Genes are in report.json, fold by fold.",
    )  # fmt: skip


def ledger(report: Report) -> Grid:
    """Return how much was tried, and how often these rows were looked at."""
    found, looks = report["ledger"]["trials"], report["ledger"]["looks"]
    rows = (
        ("runs that tried anything on these bars", whole(found["n_runs"])),
        ("answers given to searches", whole(found["n_evaluated"])),
        ("different genomes", whole(found["n_unique"])),
        ("effective number of trials", ratio(found["n_effective"], 1)),
        ("earlier looks at these test rows", whole(looks["earlier"])),
        ("other strategies judged on them", whole(looks["others"])),
    )
    return Grid("ledger", ("", "count"), rows,
                note="Counted by the ledger; no number here is typed in.")  # fmt: skip


def overlap_sentence(report: Report) -> str:
    """Return a warning if these rows were looked at before; nothing if not."""
    earlier = report["ledger"]["looks"]["earlier"]
    if not earlier:
        return ""
    return (
        f"These test rows have been looked at {earlier} time{'' if earlier == 1 else 's'} before: they are "
        "no longer unseen, and the probabilities of skill are deflated for it."
    )


def random_routing(report: Report) -> str:
    """Return the spread of random routings as a sentence; nothing without any."""
    found = report["random_routing"]
    if not found["draws"]:
        return ""
    return (
        f"Random routing was drawn {found['draws']} times: annual Sharpe ratio from {ratio(found['low'])} to "
        f"{ratio(found['high'])}, median {ratio(found['median'])}; the strategy beats "
        f"{share(found['beaten'], 0)} of the draws."
    )


def provenance(report: Report) -> Grid:
    """Return where it comes from: data, settings, seed."""
    skipped = ("warnings", "truth")
    rows = tuple(
        (key.replace("_", " "), _plain(value)) for key, value in report["data"].items() if key not in skipped
    )
    return Grid("provenance", ("", "value"), rows, words=(1,))


def files(found: Mapping[str, str]) -> Grid:
    """Return the files that the numbers come from."""
    return Grid("files", ("file", "SHA-256"), tuple(found.items()), words=(1,))


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return UNDEFINED if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else UNDEFINED
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) or UNDEFINED
    return printable(value)

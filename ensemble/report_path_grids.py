"""Tables of the report on combinatorial cross-validation: how the paths spread, group by group, fit by fit.

As in ``ensemble.report_grids``, everything is made from the plain objects of ``report.json``.
"""

from ensemble.report_grids import Report, change, day, number, ratio, share
from experiments.page import Grid, whole

NOTE = (
    "Each fit learned from rows on both sides of what it was tested on, so the future taught the past: this "
    "says how much the result owes to one history, not what could have been earned. All paths share one "
    "market and most of what was learned. Forecasters were not trained anew: their answers are those of "
    "their own walk-forward, whose models of later groups learned from earlier ones."
)
MOST_ROWS = 60  # of combinations; all are in report.json


def sentence(report: Report) -> str:
    """Return what cross-validation has found, as one sentence."""
    found = report["cpcv"]
    spread, count = found["spread"]["sharpe"], len(found["paths"])
    hold = 0.0 if found["hold"]["sharpe"] is None else number(found["hold"]["sharpe"])
    several = f"{ratio(spread['low'])} to {ratio(spread['high'])}, median {ratio(spread['median'])}"
    return (
        f"Cross-validation (CPCV): {len(found['combinations'])} fits make {count} "
        f"{'path' if count == 1 else 'paths'} from {found['first'][:10]} to {found['last'][:10]}. "
        f"Annual Sharpe ratio {several}; {share(found['below_zero'], 0)} of the paths are below zero, and "
        f"{share(1.0 - found['above_hold'], 0)} do not beat holding at the same volatility ({ratio(hold)})."
    )


def spread(report: Report) -> Grid:
    """Return how Sharpe ratio, return and drawdown spread over the paths, beside holding."""
    found = report["cpcv"]
    kinds = (
        ("sharpe", "annual Sharpe ratio", ratio),
        ("total_return", "total return", change),
        ("max_drawdown", "deepest drawdown", share),
    )
    rows = []
    for key, name, style in kinds:
        one = found["spread"][key]
        cells = [style(one[part]) for part in ("low", "median", "mean", "high")]
        rows.append((name, *cells, style(found["hold"][key])))
    return Grid(
        "cpcv_spread", ("", "lowest", "median", "mean", "highest", "hold at the same volatility"),
        tuple(rows),
        title="All paths, each one account from the first group to the last",
        note=f"A path that never trades has a Sharpe ratio of 0. Deviation of the Sharpe ratios: "
        f"{ratio(found['spread']['sharpe']['deviation'])}. {whole(found['n_evaluated'])} evaluations, all in "
        f"the ledger.",
    )  # fmt: skip


def groups(report: Report) -> Grid:
    """Return the Sharpe ratios of each group, over the paths."""
    found, rows, shades = report["cpcv"], [], {}
    for i, one in enumerate(found["groups"]):
        rows.append(
            (f"{i + 1}", day(one["first"]), day(one["last"]), ratio(one["low"]), ratio(one["median"]),
             ratio(one["high"]), ratio(one["hold"]))
        )  # fmt: skip
        shades[i, 4] = max(-1.0, min(1.0, number(one["median"]) / 3.0))
    return Grid(
        "cpcv_groups", ("group", "from", "to", "lowest", "median", "highest", "hold"), tuple(rows),
        title="Annual Sharpe ratio group by group", shades=shades,
    )  # fmt: skip


def combinations(report: Report) -> Grid:
    """Return what each fit was tested on, what it learned from, and who was missing."""
    found = report["cpcv"]
    rows = tuple(
        (
            f"{i + 1}",
            ", ".join(str(group) for group in one["chosen"]),
            whole(one["learned"]),
            whole(one["validated"]),
            "; ".join(f"{name}: {why}" for name, why in one["absent"].items()) or "nobody",
        )
        for i, one in enumerate(found["combinations"][:MOST_ROWS])
    )
    left = len(found["combinations"]) - len(rows)
    return Grid(
        "cpcv_combinations",
        ("fit", "tested on groups", "bars it learned from", "bars of validation", "absent"), rows,
        title="What each fit stands on", words=(4,),
        note=f"{whole(found['embargo_bars'])} bars are left out on both sides of each tested group, and "
        f"before the validation.{f' {left} more are in report.json.' if left else ''}",
    )  # fmt: skip

"""Tables of the report on the verdict, the account and the evidence: cells as people read them.

Every table is made from the plain objects of ``report.json`` and nothing else, so the page and the file
cannot disagree. A number that is not defined is a dash.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from experiments.listing import METRICS
from experiments.page import UNDEFINED, Grid, decimal, percent, significant, whole

Report = Mapping[str, Any]
Style = Callable[[float], str]

GROUPS = (("baselines", "baselines"), ("members", "members alone"), ("blenders", "other blenders"))
PASSED, FAILED = 0.6, -0.6  # shades


def number(value: Any) -> float:
    """Return a number of the report, NaN for None."""
    return math.nan if value is None else float(value)


def share(value: Any, digits: int = 1) -> str:
    """Return a fraction in percent without a sign."""
    return percent(number(value), digits, signed=False)


def change(value: Any, digits: int = 1) -> str:
    """Return a return in percent with its sign."""
    return percent(number(value), digits)


def ratio(value: Any, digits: int = 2) -> str:
    """Return a number with so many decimals."""
    return decimal(number(value), digits)


def probability(value: Any) -> str:
    """Return a probability; one too small or too large for the digits says so."""
    found = number(value)
    if 0.0 < found < 0.001:
        return "<0.001"
    if 0.999 < found < 1.0:
        return ">0.999"
    return decimal(found, 3)


def day(stamp: Any) -> str:
    """Return the day of a stamp such as ``2020-01-01T00:00:00Z``."""
    return UNDEFINED if stamp is None else str(stamp)[:10]


def headline(report: Report) -> Grid:
    """Return the few figures that stand large at the top."""
    own, spread = report["metrics"]["strategy"], report["evidence"]["intervals"]["sharpe"]
    cells = {
        "Sharpe, net": ratio(own["sharpe"]),
        "its interval": f"{ratio(spread['low'], 1)} to {ratio(spread['high'], 1)}",
        "total return": change(own["total_return"]),
        "drawdown": share(own["max_drawdown"]),
        "profit factor": ratio(own["profit_factor"]),
        "trades": whole(own["n_trades"]),
        "criteria met": f"{sum(one['passed'] for one in report['criteria'])} of {len(report['criteria'])}",
    }
    return Grid("headline", tuple(cells), (tuple(cells.values()),))


def criteria(report: Report) -> Grid:
    """Return the criteria, two abreast, those that failed first."""
    lines = [
        (one["name"], significant(number(one["value"]), 3), significant(number(one["threshold"]), 3),
         "pass" if one["passed"] else "FAIL")
        for one in sorted(report["criteria"], key=lambda one: one["passed"])
    ]  # fmt: skip
    half = (len(lines) + 1) // 2
    rows, shades = [], {}
    for i in range(half):
        second = lines[half + i] if half + i < len(lines) else ("", "", "", "")
        rows.append((*lines[i], *second))
        for column, line in ((3, lines[i]), (7, second)):
            if line[3]:
                shades[i, column] = PASSED if line[3] == "pass" else FAILED
    heads = ("criterion", "value", "needs", "result")
    return Grid(
        "criteria", (*heads, *heads), tuple(rows), words=(0, 4), shades=shades,
        title="What was asked, out of sample and after costs",
    )  # fmt: skip


def comparison(report: Report) -> Grid:
    """Return the strategy beside everything it is compared with, on the same rows and costs."""
    heads = ("", *(title for _, title, _ in METRICS))
    rows: list[tuple[str, ...]] = [("strategy", *_metrics(report["metrics"]["strategy"]))]
    for key, title in GROUPS:
        found = report["metrics"][key]
        if found:
            rows.append((title,))
            rows += [(name, *_metrics(one)) for name, one in found.items()]
    return Grid(
        "comparison", heads, tuple(rows), title="Everything on the same bars, after the same costs",
        note="All but buying and holding and constant exposure are sized to the same volatility by the same "
        "rule. The best single forecaster is picked on these very rows: with hindsight, in its favor.",
    )  # fmt: skip


def spans(report: Report, key: str, title: str, head: str) -> Grid:
    """Return what the account did in stretches of time, ``years`` or ``folds_performance``."""
    first = next(iter(report[key]), None)
    others = [] if first is None else list(first["baselines"])[:2]
    heads = (
        head, "from", "to", "return", "Sharpe", "drawdown", "trades", "hit rate", "profit factor",
        "turnover/year", "in market", *(f"Sharpe of {name}" for name in others),
    )  # fmt: skip
    rows = tuple(
        (
            one["name"],
            day(one["first"]),
            day(one["last"]),
            change(one["metrics"]["total_return"]),
            ratio(one["metrics"]["sharpe"]),
            share(one["metrics"]["max_drawdown"]),
            whole(one["metrics"]["n_trades"]),
            share(one["metrics"]["hit_rate"], 0),
            ratio(one["metrics"]["profit_factor"]),
            ratio(one["metrics"]["turnover"], 0),
            share(one["metrics"]["time_in_market"], 0),
            *(ratio(one["baselines"][name]["sharpe"]) for name in others),
        )
        for one in report[key]
    )
    return Grid(key, heads, rows, title=title, note="A trade belongs to the stretch in which it ended.")


def regimes(report: Report) -> Grid:
    """Return what the account did in the bars of each regime."""
    rows = tuple(
        (
            one["name"],
            share(one["share"]),
            whole(one["bars"]),
            change(one["metrics"]["total_return"]),
            share(one["part"], 0),
            ratio(one["metrics"]["sharpe"]),
            ratio(one["held_sharpe"]),
            share(one["metrics"]["max_drawdown"]),
            whole(one["metrics"]["n_trades"]),
            share(one["metrics"]["hit_rate"], 0),
            ratio(one["metrics"]["profit_factor"]),
            share(one["metrics"]["time_in_market"], 0),
        )
        for one in report["regimes"]
    )
    return Grid(
        "regimes",
        ("regime", "share", "bars", "return", "of all growth", "Sharpe", "Sharpe of the price", "drawdown",
         "trades", "hit rate", "profit factor", "in market"),
        rows,
        title="By the regime in force at the decision",
        note="The bars of a regime are put one after another; a year of them has all bars of a year. Trades "
        "count for the regime in which they were decided. The price is held, before costs.",
    )  # fmt: skip


def skill(report: Report) -> Grid:
    """Return what the Sharpe ratio proves, given how many were tried."""
    found = report["evidence"]["skill"]
    rows = (
        ("annual Sharpe ratio, net", ratio(found["sharpe"])),
        ("bars", whole(number(found["n_bars"]))),
        ("skewness, kurtosis of a bar", f"{ratio(found['skewness'])}, {ratio(found['kurtosis'], 1)}"),
        ("autocorrelation of a bar", ratio(found["autocorrelation"], 3)),
        ("probability that the true Sharpe ratio is positive (PSR)", probability(found["probabilistic"])),
        ("bars it takes to trust that at 95 % (minimum track record)", whole(number(found["track_record"]))),
        ("strategies ever judged on these rows", whole(number(found["champions"]))),
        ("what luck gives the best of them, annual Sharpe ratio", ratio(found["luck_unseen"])),
        ("probability of more than that (deflated Sharpe ratio)", probability(found["deflated_unseen"])),
        ("trials in the ledger, the larger of unique and effective", whole(number(found["n_trials"]))),
        ("what luck gives the best of them, annual Sharpe ratio", ratio(found["luck"])),
        ("probability of more than that (deflated by all trials)", probability(found["deflated"])),
    )
    return Grid(
        "skill", ("", "value"), rows, title="Is the Sharpe ratio luck?",
    )  # fmt: skip


SKILL_NOTE = (
    "The trials were judged on earlier rows, on which the best was picked: deflating unseen rows by all of "
    "them is stricter than it need be. Strategies judged on these very rows have to be deflated for."
)


def selection(report: Report) -> Grid | None:
    """Return whether choosing among the variants generalizes; None where it was not asked."""
    found = report["evidence"]["selection"]
    if found is None:
        return None
    rows = (
        ("probability of backtest overfitting (PBO)", share(found["pbo"])),
        ("its bootstrap interval", f"{share(found['low'])} to {share(found['high'])}"),
        ("so low a PBO where all variants are alike", probability(found["luck"])),
        ("the chosen variant loses out of sample", share(found["loss"])),
        ("slope of Sharpe out of sample on in sample", ratio(found["slope"])),
        ("PBO by number of blocks", ", ".join(f"{n}: {share(v, 0)}" for n, v in found["by_blocks"].items())),
        ("variants (independent ones)", f"{found['n_variants']} ({ratio(found['n_effective'], 1)})"),
    )
    return Grid("selection", ("", "value"), rows, title="Does choosing among strategy, members and blenders "
                "generalize?", note="By combinatorially symmetric cross-validation; luck: 50 %.")  # fmt: skip


def superiority(report: Report) -> Grid | None:
    """Return the tests against each baseline; None without baselines."""
    evidence = report["evidence"]
    names = list(evidence["leads"])
    if not names:
        return None
    rows = []
    for name in names:
        spa = evidence["superiority"].get(name, {})
        lead = evidence["leads"][name]
        rows.append(
            (
                name,
                probability(spa.get("p")),
                probability(spa.get("p_of", {}).get("strategy")),
                _listed(spa.get("better")),
                _lead(lead["sharpe"], ratio),
                _lead(lead["total_return"], change),
                share(lead["sharpe"]["positive"]),
            )
        )
    return Grid(
        "superiority",
        ("baseline", "SPA p, any variant", "SPA p, strategy", "better by StepM", "lead in Sharpe (interval)",
         "lead in return (interval)", "paths with a lead"),
        tuple(rows),
        words=(3,),
        title="Is it better than the baselines?",
        note="SPA and StepM at equal volatility, corrected for all variants that were looked at; leads on "
        "paired paths of a stationary bootstrap.",
    )  # fmt: skip


def confidence_set(report: Report) -> Grid | None:
    """Return the model confidence set; None where it was not asked."""
    found = report["evidence"]["confidence_set"]
    if found is None:
        return None
    inside = set(found["included"])
    order = sorted(found["p_of"].items(), key=lambda one: -one[1])
    return Grid(
        "confidence-set",
        ("", "p", "in the set"),
        tuple((name, probability(p), "yes" if name in inside else "no") for name, p in order),
        title=f"What cannot be told from the best, at a size of {share(found['size'], 0)} (MCS)",
    )


def intervals(report: Report) -> Grid:
    """Return the bootstrap intervals of the strategy."""
    styles: dict[str, Style] = {"total_return": change, "sharpe": ratio, "max_drawdown": share}
    titles = {"total_return": "total return", "sharpe": "annual Sharpe ratio", "max_drawdown": "drawdown"}
    rows = tuple(
        (
            titles.get(name, name),
            *(styles.get(name, ratio)(one[end]) for end in ("estimate", "low", "high")),
        )
        for name, one in report["evidence"]["intervals"].items()
    )
    return Grid(
        "intervals", ("", "was", "from", "to"), rows,
        title="Bootstrap intervals",
        note=f"Stationary bootstrap, mean block {ratio(report['evidence']['mean_block'], 0)} bars.",
    )  # fmt: skip


def costs(report: Report) -> Grid:
    """Return what the costs took."""
    found = report["costs"]
    capital = number(found["capital"])
    keys = ("gross", "fees", "slippage", "funding", "net")
    titles = ("profit before costs", "fees", "slippage and spread", "funding", "profit after costs")
    rows = tuple(
        (
            title,
            decimal(sign * number(found[key]), 2, signed=True),
            change(sign * number(found[key]) / capital),
            ratio(sign * 1e4 * number(found[key]) / number(found["traded"]), 2)
            if found["traded"]
            else UNDEFINED,
        )
        for key, title, sign in zip(keys, titles, (1, -1, -1, -1, 1), strict=True)
    )
    return Grid(
        "costs", ("", f"of an account of {whole(capital)}", "over capital", "bps of value traded"), rows,
        title="What the costs took",
        note=f"Costs are {share(found['share_of_gross'])} of the profit before costs.",
    )  # fmt: skip


def stress(report: Report) -> tuple[Grid, ...]:
    """Return what is left under costs, delays and shaken champions."""
    found = report["robustness"]
    heads = ("return", "Sharpe", "drawdown", "profit factor", "trades")
    late = lambda bars: "as decided" if bars == 0 else f"{bars:g} late"  # noqa: E731
    grids = [
        Grid("cost-stress", ("times the costs", *heads),
             tuple((f"{one['factor']:g}", *_variant(one)) for one in found["costs"]["factors"]),
             title="If costs were other", note=found["costs"]["verdict"]),
        Grid("delay-stress", ("bars", *heads),
             tuple((late(one["extra_bars"]), *_variant(one)) for one in found["delays"]),
             title="If every order were late"),
    ]  # fmt: skip
    if found["perturbations"]:
        rows = tuple(
            (
                share(one["sigma"], 0),
                whole(one["draws"]),
                share(one["positive"], 0),
                ratio(one["unshaken"]),
                *(ratio(value) for value in one["quantiles"].values()),
                share(one["kept"], 0),
            )
            for one in found["perturbations"]
        )
        ends = tuple(f"Sharpe, {float(q):.0%}" for q in found["perturbations"][0]["quantiles"])
        grids.append(
            Grid("perturbations", ("shaken by", "draws", "gain", "Sharpe unshaken", *ends, "median kept"),
                 rows, title="If the champions were not quite the same ones",
                 note="Shaken by: the deviation of each gene, of its range.")
        )  # fmt: skip
    return tuple(grids)


def permutations(report: Report) -> Grid | None:
    """Return what the whole search finds on shuffled bars; None where it was not asked."""
    found = report["permutations"]
    if found is None:
        return None
    others = sorted(found["found"])
    rows = (
        ("Sharpe ratio of a bar, on the market", ratio(found["observed"], 4)),
        ("shuffled markets", whole(found["permutations"])),
        ("on them: smallest, median, largest",
         ", ".join(ratio(others[i], 4) for i in (0, len(others) // 2, -1)) if others else UNDEFINED),
        ("probability of as much by chance", probability(found["p"])),
    )  # fmt: skip
    return Grid("permutations", ("", "value"), rows, title="Does the search find as much in shuffled bars?",
                note="The whole search again, smaller: their order tells nothing.")  # fmt: skip


def _metrics(one: Mapping[str, Any]) -> Iterable[str]:
    return (UNDEFINED if one[key] is None else style.format(one[key]) for key, _, style in METRICS)


def _variant(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        change(one["total_return"]), ratio(one["sharpe"]), share(one["max_drawdown"]),
        ratio(one["profit_factor"]), whole(number(one["n_trades"])),
    )  # fmt: skip


def _lead(interval: Mapping[str, Any], style: Style) -> str:
    return f"{style(interval['estimate'])} ({style(interval['low'])} to {style(interval['high'])})"


def _listed(names: Iterable[str] | None) -> str:
    return UNDEFINED if names is None else ", ".join(names) or "none"

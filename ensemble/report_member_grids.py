"""Tables of the report on regimes and members: what they are, what they add, and what they keep."""

from collections.abc import Mapping
from typing import Any

from ensemble.report_grids import Report, change, number, ratio, share
from experiments.page import UNDEFINED, Grid, whole


def stability(report: Report) -> Grid:
    """Return shares, stays and character of the regimes."""
    found = report["stability"]
    rows = tuple(
        (
            name,
            share(one["share"]),
            whole(number(one["stays"])),
            ratio(one["mean_stay"], 1),
            share(one["annual_volatility"], 0),
            ratio(one["autocorrelation"], 3),
            ratio(one["variance_ratio"]),
            ratio(one["efficiency"], 3),
        )
        for name, one in found["regimes"].items()
    )
    horizon = whole(found["horizon_bars"])
    return Grid(
        "stability",
        ("regime", "share", "stays", "mean stay, bars", "volatility/year", "autocorrelation",
         f"variance ratio, {horizon} bars", f"efficiency, {horizon} bars"),
        rows,
        title="What the market did after labels of each regime, out of sample",
        note="Of the bars after each label, which the label had not seen. A random walk has a variance ratio "
        "of 1; the longer a trend, the nearer to 1 the efficiency.",
    )  # fmt: skip


def shares_by_fold(report: Report) -> Grid:
    """Return the shares of the regimes in each fold, and how far they are from those of all folds."""
    found = report["stability"]
    names = list(found["regimes"])
    rows = tuple(
        (str(i), *(share(value, 0) for value in one["shares"]), share(one["distance"], 0))
        for i, one in enumerate(found["folds"], 1)
    )
    return Grid(
        "shares", ("fold", *names, "bars elsewhere"), rows, title="Regimes by fold",
        note="Bars elsewhere: how much of the fold would have to change for the shares of all folds.",
    )  # fmt: skip


def agreement_sentence(report: Report) -> str:
    """Return whether regimes mean the same in every fold."""
    found = report["stability"]
    said = (
        f"{whole(found['switches'])} switches, {share(found['undecided'])} of the bars undecided, mean "
        f"confidence {share(found['mean_confidence'], 0)}."
    )
    for key, text in (
        ("volatile_most_volatile", "bars after labels of the volatile regime are the more volatile ones"),
        ("trending_more_efficient", "those of the trending regime go further on their way than the ranging"),
    ):
        if found[key]["folds"]:
            said += f" In {share(found[key]['share'], 0)} of {found[key]['folds']} folds {text}."
    return said


def accuracy(report: Report) -> tuple[Grid, ...]:
    """Return how often labels are right, where the truth is known."""
    found = report["accuracy"]
    if found is None:
        return ()
    rows = (
        ("right", share(found["accuracy"])),
        ("balanced accuracy", ratio(found["balanced_accuracy"], 3)),
        *((f"found of {name}", share(value)) for name, value in found["recall"].items()),
        ("true switches", whole(found["switches"])),
        ("median delay, bars", ratio(found["median_delay"], 1)),
        ("false switches", whole(found["false_switches"])),
    )
    table = found["confusion"]
    most = max((max(row) for row in table), default=0) or 1
    return (
        Grid("accuracy", ("", "value"), rows, title="Against the true regimes",
             note="Synthetic bars: the truth is known. Blind: 1/3."),
        Grid("confusion", ("true, labelled as", *found["names"]),
             tuple((name, *(whole(x) for x in row)) for name, row in zip(found["names"], table, strict=True)),
             title="Confusion, bars",
             shades={(i, j + 1): (0.9 if i == j else -0.9) * value / most
                     for i, row in enumerate(table) for j, value in enumerate(row)}),
    )  # fmt: skip


def transitions(report: Report) -> tuple[Grid, ...]:
    """Return lags, whipsaws and the commonest switches."""
    found = report["transitions"]
    back, around = found["whipsaws"], found["around"]
    rows = (
        ("switches of the label", whole(found["switches"])),
        ("a year", ratio(report["stability"]["switches_per_year"], 0)),
        ("label behind the most probable regime, median (90 %), bars", _lag(found["label_lag"])),
        ("first trade after a switch, median (90 %), bars", _lag(found["account_lag"])),
        ("switches without any trade", whole(found["account_lag"]["never"])),
        (f"net return of the {around['bars_before']} bars up to a switch, mean", change(around["before"], 2)),
        (f"net return of the {around['bars_after']} bars after it, mean", change(around["after"], 2)),
        (f"whipsaws: back within {whole(back['longest_bars'])} bars", whole(back["count"])),
        ("share of the switches", share(back["share"])),
        ("net log return while in them", change(back["log_return"], 2)),
        ("turnover while in them, of equity", ratio(back["turnover"], 1)),
    )
    pairs = tuple((pair, whole(count)) for pair, count in list(found["pairs"].items())[:8])
    return (
        Grid("transitions", ("", "value"), rows, title="Around switches of the regime"),
        Grid("pairs", ("switch", "times"), pairs, title="Commonest switches"),
    )


def members(report: Report) -> Grid:
    """Return how often each member speaks, what it adds, and what it earns alone."""
    alone = report["metrics"]["members"]
    shown = report["ablation"]
    rows = tuple(
        (
            name,
            one["regime"] or "any",
            share(one["opinion"], 0),
            share(one["active"], 0),
            share(one["active_in_regime"], 0),
            share(one["long"], 0),
            ratio(one["mean_weight"]),
            share(one["say"], 0),
            change(one["contribution"]),
            share(one["risk_share"], 0),
            ratio(None if shown is None else shown["lost"][name]),
            ratio(alone[name]["sharpe"]),
        )
        for name, one in report["members"].items()
    )
    return Grid(
        "members",
        ("member", "regime", "has an opinion", "active", "in its regime", "long", "mean weight", "say",
         "adds, a year", "of the risk", "Sharpe lost without", "Sharpe alone"),
        rows,
        title="Specialists and forecasters, out of sample",
        note="Active: wants a position. Say: its part of all that is wanted. Adds: the net return of its "
        "part of the blended signal, before gates and sizing, at "
        f"{ratio(1e4 * number(report['cost_per_turnover']), 1)} bps per unit of turnover. Sharpe lost: of "
        "the blended signal if its weight went to the others, nothing fitted again. Alone: sized as all are.",
    )  # fmt: skip


def stages(report: Report) -> Grid:
    """Return what blending, gates and sizing make of the wish."""
    titles = {"blended": "blended signal", "gated": "after the gates", "exposure": "after sizing"}
    rows = tuple(
        (
            titles[one["name"]],
            ratio(one["sharpe_before_costs"]),
            ratio(one["sharpe"]),
            ratio(one["turnover"], 0),
            ratio(one["mean_size"]),
            share(one["flat"], 0),
        )
        for one in report["stages"]
    )
    return Grid(
        "stages", ("", "Sharpe before costs", "after costs", "turnover/year", "mean size", "flat"), rows,
        title="From signals to exposure",
        note="Each from open to open at one cost per turnover, without stops; the account itself is above.",
    )  # fmt: skip


def correlation(report: Report) -> Grid:
    """Return the correlation of the signals."""
    found = report["diversity"]
    table = found["correlation"]
    return Grid(
        "correlation", ("correlation of signals", *found["names"]),
        tuple((name, *(ratio(x) for x in row)) for name, row in zip(found["names"], table, strict=True)),
        note=f"The net returns of {len(table)} members amount to {ratio(found['effective_members'], 1)} "
        "uncorrelated ones. A dash: one of the two never moves while both have an opinion.",
        shades={(i, j + 1): number(x) if i != j else 0.0
                for i, row in enumerate(table) for j, x in enumerate(row)},
    )  # fmt: skip


def disagreement(report: Report) -> Grid:
    """Return how often members want opposite positions."""
    found = report["diversity"]
    table = found["disagreement"]
    return Grid(
        "disagreement", ("want opposite positions", *found["names"]),
        tuple(
            (name, *(UNDEFINED if i == j else share(x, 0) for j, x in enumerate(row)))
            for i, (name, row) in enumerate(zip(found["names"], table, strict=True))
        ),
        note="Of the bars in which both want one.",
    )  # fmt: skip


def degradation(report: Report) -> Grid:
    """Return what the searches found in sample, and what it was worth later."""
    found = report["degradation"]
    rows = tuple(
        (str(one["fold"]), one["member"], ratio(one["in_sample"]), ratio(one["out_of_sample"]))
        for one in found["points"]
    )
    return Grid(
        "degradation", ("fold", "specialist", "Sharpe IN SAMPLE", "Sharpe out of sample"), rows,
        words=(1,), title="What the searches promised, and what was kept",
    )  # fmt: skip


def degradation_sentence(report: Report) -> str:
    """Return the line through in-sample and out-of-sample Sharpe ratios as a sentence."""
    found = report["degradation"]
    return (
        f"IN SAMPLE the champions of {found['pairs']} searches show a mean Sharpe ratio of "
        f"{ratio(found['mean_in_sample'])}, out of sample they keep {ratio(found['mean_out_of_sample'])}; "
        f"{share(found['positive_out_of_sample'], 0)} of them gain at all. Slope of the second on the first "
        f"{ratio(found['slope'])}, correlation {ratio(found['correlation'])}: a slope of 1 keeps every "
        "difference, 0 none."
    )


def _lag(found: Mapping[str, Any]) -> str:
    return f"{ratio(found['median'], 0)} ({ratio(found['p90'], 0)})" if found["count"] else UNDEFINED

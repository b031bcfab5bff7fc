"""What the report says, in which order: the same chapters for the page and for Markdown.

Everything is read from the plain objects of ``report.json``; nothing is computed again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ensemble import report_grids as account
from ensemble import report_member_grids as inside
from ensemble import report_path_grids as many
from ensemble import report_trade_grids as trades
from ensemble.report_grids import Report
from experiments.page import Grid


class Sentence(NamedTuple):
    """A paragraph; ``kind`` as :func:`experiments.page.paragraph` takes it."""

    text: str
    kind: str = ""


class Picture(NamedTuple):
    """A picture by its name, and what to say below it."""

    name: str
    caption: str


class Lines(NamedTuple):
    """A list of sentences with an id."""

    name: str
    lines: Sequence[str]


Part = Grid | Sentence | Picture | Lines | None

CAPTIONS = {
    "overview": "Equity over its start on a log scale (Sharpe ratio in brackets), and drawdown, after costs. "
    "The shade is the regime that was in force most of the time.",
    "luck": "Each dot is one alternative on the same rows, after the same costs.",
    "cpcv": "Equity of each path over its start on a log scale, after costs, beside holding at the same "
    "volatility; the Sharpe ratios of the paths, and in each group.",
    "folds": "Return and Sharpe ratio of each fold, out of sample, beside holding.",
    "rolling": "Sharpe ratio and volatility of the latest bars, beside the first two baselines.",
    "around": "What was earned around switches of the regime: mean, and its 90 % band.",
    "members": "What each member adds to the blended signal, and what it earns alone.",
    "weights": "Whom the blender listens to, and who wants a position.",
    "correlation": "Correlation of the signals, and how often members want opposite positions.",
    "degradation": "Each dot is one search: what it promised on the rows it was picked on, and what it kept.",
    "exposure": "Exposure and turnover.",
    "returns": "Returns of bars and of trades.",
    "robustness": "What is left if costs are other, orders late, champions shaken.",
}


def title(report: Report) -> str:
    """Return the title of the report."""
    data = report["data"]
    return f"Validation of {data.get('symbol', 'the strategy')} {data.get('timeframe', '')}".strip()


def opening(report: Report) -> tuple[Part, ...]:
    """Return the first screen: the verdict, what was asked, equity, drawdown and regimes."""
    data = report["data"]
    origin = str(data.get("origin", ""))
    tested = f" and tested on {data['tested_on']}" if "tested_on" in data else ""
    return (
        Sentence(report["verdict"], "" if report["passed"] else "warning"),
        account.headline(report),
        Sentence(
            f"Out of sample, after costs: {data['first'][:10]} to {data['last'][:10]}, "
            f"{data['test_bars']:,} bars in {len(report['folds'])} folds, each fitted on its past alone"
            f"{tested}. Blender {report['blender']}.",
            "note",
        ),
        Sentence(f"{origin.rstrip('.')}.", "warning" if "SYNTHETIC" in origin.upper() else "note")
        if origin
        else None,
        *(Sentence(line, "warning") for line in (trades.overlap_sentence(report), *data.get("warnings", ()))),
        _see("overview"),
        account.criteria(report),
    )


def chapters(report: Report) -> tuple[tuple[str, tuple[Part, ...]], ...]:
    """Return the chapters after the first screen, each a title and its parts; None is nothing."""
    routing, absent = trades.random_routing(report), trades.absent(report)
    return (
        ("Against everything it must beat", (
            account.comparison(report), Sentence(routing) if routing else None, _see("luck"),
        )),
        ("Is it luck?", (
            account.skill(report), Sentence(account.SKILL_NOTE, "note"), account.intervals(report),
            account.selection(report),
            account.confidence_set(report), account.permutations(report), account.superiority(report),
        )),
        *([("Many paths through the history", (
            Sentence(many.sentence(report)), Sentence(many.NOTE, "note"), _see("cpcv"), many.spread(report),
            many.groups(report), many.combinations(report),
        ))] if report.get("cpcv") else []),
        ("Years and folds", (
            account.spans(report, "years", "By year", "year"), _see("folds"),
            account.spans(report, "folds_performance", "By fold", "fold"), _see("rolling"),
        )),
        ("Regimes", (
            account.regimes(report), inside.stability(report), Sentence(inside.agreement_sentence(report)),
            inside.shares_by_fold(report), *inside.accuracy(report),
        )),
        ("Switches of the regime", (*inside.transitions(report), _see("around"))),
        ("Members", (
            inside.members(report), _see("members"), inside.stages(report), _see("weights"),
        )),
        ("Diversity", (inside.correlation(report), inside.disagreement(report), _see("correlation"))),
        ("In sample against out of sample", (
            Sentence(inside.degradation_sentence(report)), _see("degradation"), inside.degradation(report),
        )),
        ("Trades", (trades.trade_groups(report), trades.extreme_trades(report), _see("exposure"))),
        ("Costs and robustness", (account.costs(report), *account.stress(report), _see("robustness"))),
        ("Tails, drawdowns and crises", (
            trades.tails(report), trades.drawdowns(report), _see("returns"), trades.crises(report),
        )),
        ("What was fitted when", (
            trades.fitted(report), Lines("absent", absent) if absent else None, trades.fitted_members(report),
        )),
        ("The ledger", (trades.ledger(report),)),
        ("Assumptions", (Lines("assumptions", report["assumptions"]),)),
    )  # fmt: skip


def sources(report: Report, files: Mapping[str, str]) -> tuple[str, tuple[Part, ...]]:
    """Return the last chapter: where the numbers come from."""
    lines = (
        "Every number in the tables is one of report.json, rounded. Those of the account can be had again "
        "from metrics/equity.parquet and metrics/trades.parquet, those of what it is held against from "
        "metrics/returns.parquet, those of regimes and members from predictions/decisions.parquet"
        f"{', those of many paths from metrics/cpcv.parquet' if report.get('cpcv') else ''}.",
        "IN SAMPLE marks every figure of rows that taught what it is about; all others are out of sample.",
        "A dash is a number that is not defined. Times are UTC; a bar is known by its close.",
    )
    return "Where the numbers come from", (
        Lines("sources", lines), trades.provenance(report), trades.files(files) if files else None,
    )  # fmt: skip


def _see(name: str) -> Picture:
    return Picture(name, CAPTIONS[name])

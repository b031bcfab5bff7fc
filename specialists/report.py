"""The verdict on a champion: what it did, beside what chance and the baselines would have done."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from backtest.metrics import Metrics
from experiments.evidence import TrackRecord, deflated_sharpe, expected_max_sharpe, probabilistic_sharpe
from experiments.ledger import LedgerSummary, Openings
from experiments.listing import METRICS
from experiments.promotion import Criterion, verdict
from specialists.training import Evolved, Unseen

CONFIDENCE = 0.95
LEAST_TRADES = 20
LEAST_KEPT = 0.5  # what luck gives


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against luck.

    Parameters
    ----------
    n_trials, n_runs : int
        Different genomes ever tried on these bars, and the runs that tried them, resumes included.
    n_answers : int
        Answers those runs were given, repeated genomes and judgments on other windows included.
    luck_sharpe : float
        Annual Sharpe ratio in sample that the best of so many worthless trials is expected to show.
    deflated_sharpe : float
        Probability that the champion's Sharpe ratio in sample is more than that. Bailey and Lopez de
        Prado's number takes the trials for independent draws and their spread for that of luck. The
        trials of a search are neither: where there is an edge the whole population spreads over it, and
        the number stays low however real the edge is. It is shown, and the verdict rests on unseen rows.
    earlier_looks : int
        How often these test rows were looked at before.
    champions : int
        Different champions ever judged on them, this one included.
    probabilistic_sharpe : float
        Probability that its true Sharpe ratio is positive, from the test rows alone.
    deflated_unseen : float
        The same against the best of so many worthless champions.
    pbo, pbo_loss : float
        Probability of backtest overfitting of the initial population, on the training rows: how often the
        best of it on half of the time is at or below the median on the other half; and how often it loses
        there. These genomes were drawn before anything was known, so luck gives 0.5, and more where it
        pays costs. NaN if not known. The verdict asks that the best loses in no more than half of the
        splits; PBO itself is shown only, because it compares ranks: costs alone keep genomes that trade
        little above those that trade much, on every half, edge or none.
    pbo_search, pbo_search_loss : float
        The same of all genomes of the search. They were bred from what did well everywhere, so the numbers
        flatter: they are shown and judged by nobody.
    n_matrix : int
        Genomes that these two rest on.
    """

    n_trials: int
    n_runs: int
    n_answers: int
    luck_sharpe: float
    deflated_sharpe: float
    earlier_looks: int
    champions: int
    probabilistic_sharpe: float
    deflated_unseen: float
    pbo: float
    pbo_loss: float
    pbo_search: float
    pbo_search_loss: float
    n_matrix: int


def weigh(evolved: Evolved, unseen: Unseen, trials: LedgerSummary, looks: Openings) -> Evidence:
    """Return the evidence for a champion, given every trial and every look the ledger knows of."""
    chosen = TrackRecord.of(evolved.in_sample.curve.column("net_return"))
    later = TrackRecord.of(unseen.champion.curve.column("net_return"), serial=True)
    n_trials = max(trials.n_unique, trials.n_effective)
    luck = expected_max_sharpe(n_trials, trials.sharpe_variance)
    champions = looks.others + 1
    first, whole = evolved.trials.pbo_of_first(), evolved.trials.pbo()
    return Evidence(
        n_trials=int(n_trials),
        n_runs=trials.n_runs,
        n_answers=trials.n_evaluated,
        luck_sharpe=luck * math.sqrt(evolved.in_sample.bars_per_year),
        deflated_sharpe=deflated_sharpe(chosen, n_trials, trials.sharpe_variance),
        earlier_looks=looks.earlier,
        champions=champions,
        probabilistic_sharpe=probabilistic_sharpe(later),
        # Champions without skill spread over the test rows as sampling error does: 1 / (T - 1) per bar.
        deflated_unseen=deflated_sharpe(later, champions, 1.0 / (later.n_bars - 1)),
        pbo=math.nan if first is None else first.pbo,
        pbo_loss=math.nan if first is None else first.loss,
        pbo_search=math.nan if whole is None else whole.pbo,
        pbo_search_loss=math.nan if whole is None else whole.loss,
        n_matrix=len(evolved.trials),
    )


def criteria(unseen: Unseen, evidence: Evidence) -> tuple[Criterion, ...]:
    """Return what a champion must reach; the verdict is that all of it is reached."""
    champion, held, gated = (result.metrics for result in (unseen.champion, unseen.held, unseen.gated))
    return (
        Criterion.at_least(
            f"probability of skill ({evidence.champions} judged on these rows)",
            evidence.deflated_unseen,
            CONFIDENCE,
        ),
        Criterion.at_least("Sharpe out of sample against buy and hold", champion.sharpe, held.sharpe),
        Criterion.at_least("Sharpe out of sample against hold in regime", champion.sharpe, gated.sharpe),
        Criterion.at_least("trades out of sample", champion.n_trades, LEAST_TRADES),
        # From the training rows alone, so it fails independently of a lucky test.
        Criterion.at_least(
            "chance that the best of a blind draw still gains on the other half of the training rows",
            1.0 - evidence.pbo_loss,
            LEAST_KEPT,
        ),
    )


def sentence(regime: str, judged: tuple[Criterion, ...]) -> str:
    """Return the verdict as one sentence with its reasons."""
    failed = [criterion for criterion in judged if not criterion.passed]
    if not failed:
        return f"PASS: the {regime} specialist meets all {len(judged)} criteria."
    reasons = "; ".join(f"{c.name} is {_plain(c.value)}, needs {_plain(c.threshold)}" for c in failed)
    return f"FAIL: the {regime} specialist does not pass ({reasons})."


def summary(
    evolved: Evolved,
    unseen: Unseen,
    evidence: Evidence,
    judged: tuple[Criterion, ...],
    regime: str,
    **further: Any,
) -> dict[str, Any]:
    """Return everything a reader or a program needs, as plain objects for JSON."""
    return {
        "verdict": sentence(regime, judged),
        "passed": verdict(judged),
        "criteria": [criterion.to_dict() for criterion in judged],
        "regime": regime,
        "champion": {"fitness": evolved.fitness, "genes": evolved.specialist.genes_by_name()},
        "metrics": {name: metrics.to_dict() for name, metrics in columns(evolved, unseen).items()},
        "evidence": {key: _finite(value) for key, value in vars(evidence).items()},
        "search": {
            "evaluated": evolved.n_evaluated,
            "unique": evolved.n_unique,
            "avoided_offspring": evolved.n_avoided,
            "hit_rate": evolved.hit_rate,
            "generations": len(evolved.generations) - 1,
        },
        "assumptions": list(unseen.champion.assumptions),
        **further,
    }


def columns(evolved: Evolved, unseen: Unseen) -> dict[str, Metrics]:
    """Return the columns of the comparison, in-sample first and labelled so."""
    return {
        "in sample": evolved.in_sample.metrics,
        "out of sample": unseen.champion.metrics,
        "buy and hold": unseen.held.metrics,
        "hold in regime": unseen.gated.metrics,
    }


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print a summary for people."""
    grid = Grid(title="Champion after costs; both baselines are on the out-of-sample bars")
    grid.add_column("")
    for name in found["metrics"]:
        grid.add_column(name, justify="right")
    for metric, title, style in METRICS:
        values = [_styled(found["metrics"][name][metric], style) for name in found["metrics"]]
        grid.add_row(title, *values)
    console.print(grid)
    genes = Grid(title="Genes", show_header=False)
    every = found["champion"]["genes"].items()
    for name, value in every:
        if isinstance(value, str):  # a formula needs the whole line
            console.print(f"{name}: {value}", markup=False)
    named = [(name, value) for name, value in every if not isinstance(value, str)]
    half = (len(named) + 1) // 2
    for i in range(half):
        row = [*named[i], *(named[half + i] if half + i < len(named) else ("", None))]
        genes.add_row(row[0], _styled(row[1], "{:.4g}"), row[2], _styled(row[3], "{:.4g}"))
    console.print(genes)
    for line in (_searched(found["search"]), *_luck(found["evidence"])):
        console.print(line)
    for criterion in found["criteria"]:
        mark = "[green]pass[/green]" if criterion["passed"] else "[red]fail[/red]"
        value, line = _styled(criterion["value"], "{:.3g}"), _styled(criterion["threshold"], "{:.3g}")
        console.print(f"  {mark}  {criterion['name']}: {value}, needs {line}")
    color = "green" if found["passed"] else "red"
    console.print(f"[bold {color}]{found['verdict']}[/bold {color}]")


def markdown(found: Mapping[str, Any], title: str, pictures: Mapping[str, str]) -> str:
    """Return a summary as a Markdown report; ``pictures`` are captions by path beside the report."""
    names = list(found["metrics"])
    lines = [f"# {title}", "", f"**{found['verdict']}**", "", found["data"]["origin"] + ".", ""]
    lines += ["| | " + " | ".join(names) + " |", "| --- |" + " --: |" * len(names)]
    for metric, row, style in METRICS:
        values = " | ".join(_styled(found["metrics"][name][metric], style) for name in names)
        lines.append(f"| {row} | {values} |")
    lines += ["", "Buy and hold, and hold in regime, are on the out-of-sample bars.", "", "## Criteria", ""]
    for criterion in found["criteria"]:
        mark = "pass" if criterion["passed"] else "**fail**"
        value, line = _styled(criterion["value"], "{:.3g}"), _styled(criterion["threshold"], "{:.3g}")
        lines.append(f"- {mark}: {criterion['name']} is {value}, needs {line}")
    lines += [
        "",
        _searched(found["search"]),
        "",
        *_luck(found["evidence"]),
        "",
        "## Genes",
        "",
        "| gene | value |",
        "| --- | --: |",
        *(f"| {name} | {_gene(value)} |" for name, value in found["champion"]["genes"].items()),
        "",
        "## Pictures",
        "",
        # Pages are linked, pictures are shown.
        *(
            f"{'' if path.endswith('.html') else '!'}[{caption}]({path})\n"
            for path, caption in pictures.items()
        ),
        "## Assumptions",
        "",
        *(f"- {assumption}" for assumption in found["assumptions"]),
        "",
        "## Data",
        "",
        *(f"- {key}: {value}" for key, value in found["data"].items() if value != []),
    ]
    return "\n".join(lines) + "\n"


def _searched(search: Mapping[str, Any]) -> str:
    return (
        f"Search: {search['unique']:,} genomes evaluated in {search['generations']:,} generations; "
        f"{search['avoided_offspring']:,} offspring ({search['hit_rate']:.1%}) were answered from memory."
    )


def _luck(evidence: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Luck: {evidence['n_trials']:,} genomes tried on these bars in {evidence['n_runs']} run(s), "
        f"{evidence['n_answers']:,} answers in all. The best of so many worthless ones would show a Sharpe "
        f"of {_styled(evidence['luck_sharpe'], '{:.2f}')} in sample; deflated Sharpe in sample: "
        f"{_styled(evidence['deflated_sharpe'], '{:.3g}')}.",
        f"Overfitting, on the training rows: the best of the initial population on half of the time is in "
        f"the lower half of it on the other half in {_styled(evidence['pbo'], '{:.0%}')} of all splits (PBO; "
        f"luck gives 50%), and loses there in {_styled(evidence['pbo_loss'], '{:.0%}')}. For "
        f"{evidence['n_matrix']:,} genomes of the whole search these are "
        f"{_styled(evidence['pbo_search'], '{:.0%}')} and {_styled(evidence['pbo_search_loss'], '{:.0%}')}, "
        f"which flatters: they were bred on all of it.",
    ]
    if evidence["earlier_looks"]:
        lines.append(
            f"These test rows have been looked at {evidence['earlier_looks']} time(s) before: they are no "
            f"longer unseen."
        )
    return lines


def _styled(value: float | None, style: str) -> str:
    return "-" if value is None else style.format(value)


def _gene(value: float | str) -> str:
    return f"`{value}`" if isinstance(value, str) else f"{value:.6g}"


def _plain(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "undefined"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

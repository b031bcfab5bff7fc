"""``evolution.html``: a search to look at, while it runs and afterwards; one page that needs nothing else.

While the run has no verdict yet, the page asks the browser to load it again every few seconds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from experiments.page import (
    UNDEFINED,
    Grid,
    chapter,
    decimal,
    document,
    paragraph,
    percent,
    picture,
    printable,
    significant,
    table,
    whole,
)
from experiments.records import flat
from experiments.runs import Run
from ga.gene_history import GeneHistory
from ga.space import GenomeSpace

PAGE = "evolution.html"
REFRESH_SECONDS = 5
LATEST = 12  # generations in the table
FAMOUS = 10  # members of the hall of fame side by side

Rows = Sequence[Mapping[str, Any]]

_SAMPLES = (
    ("total_return", "total return", percent),
    ("annual_return", "return/year", percent),
    ("sharpe", "Sharpe", decimal),
    ("max_drawdown", "drawdown", percent),
    ("n_trades", "trades", whole),
    ("time_in_market", "time in market", lambda x: percent(x, signed=False)),
)


def write_evolution_page(run: Run, generations: Rows, history: GeneHistory, **contents: Any) -> None:
    """Write ``evolution.html`` into a run, atomically: a reader finds the old page or the new one.

    Parameters
    ----------
    run : Run
    generations, history, **contents
        Of :func:`evolution_page`.
    """
    run.write_bytes(PAGE, evolution_page(generations, history, **contents))


def evolution_page(
    generations: Rows,
    history: GeneHistory,
    *,
    title: str,
    n_generations: int,
    hall_of_fame: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the page of a search.

    Parameters
    ----------
    generations : sequence of mapping
        Rows of the logbook so far, at least one; see :meth:`ga.progress.Progress.row`.
    history : GeneHistory
        Its space gives the genes their names and bounds.
    title : str
    n_generations : int
        Generations the run may take.
    hall_of_fame : sequence of mapping
        ``fitness``, ``genes`` (values by name) and, where known, ``generation`` of birth; fittest first.
    settings : mapping, optional
        Settings of the run, nested or by dotted path.
    facts : mapping, optional
        What else a reader should know, by name: market, seed, workers, evaluations avoided.
    report : mapping, optional
        What ``report.json`` holds; None while the run is going on.
    """
    if not generations:
        raise ValueError("there is no generation yet; the page begins with the initial population")
    from ga import figures

    space = history.space
    bred = len(_numbers(generations)) > 1
    page = document(
        title,
        *_opening(generations, n_generations, report),
        _verdict(report) if report else "",
        chapter(
            "Fitness and diversity",
            _drawn(
                lambda file: figures.fitness_curve(generations, file, "Fitness in sample"),
                "Fitness of each generation on the training rows, and the distance between its genomes. "
                "The axis leaves out the depths from which the first medians rise.",
            ),
            table(_latest(generations)),
        ),
        chapter(
            "Operators",
            _drawn(
                lambda file: figures.operators_and_repeats(generations, file, "Success and use of operators"),
                "Share of each operator's offspring that is fitter than the parent (bold: mean of five "
                "generations); what offspring are made with; and offspring that were no new genome.",
            )
            if bred
            else "",
        ),
        chapter(
            "Controls",
            _drawn(
                lambda file: figures.control_values(generations, file, "Controls in their range"),
                "Each control in its range from bottom to top; the latest value stands at the right.",
            )
            if bred
            else "",
        ),
        chapter(
            "Genes",
            _drawn(
                lambda file: figures.gene_distribution(
                    history.quantiles(), space.names, space.low, space.high, file, "Genes of the population"
                ),
                "Each gene in its range from bottom to top: median, and the bands of the middle 50 %, 80 % "
                "and 100 % of the population. A gene whose band stays wide hardly matters, or is undecided.",
            )
            if np.isfinite(history.quantiles()).any()
            else "",
        ),
        chapter("Hall of fame", table(_famous(hall_of_fame, space)) if hall_of_fame else ""),
        chapter("Settings", table(_pairs("settings", "setting", flat(settings))) if settings else ""),
        chapter("The run", table(_pairs("facts", "", facts)) if facts else ""),
    )
    return page if report else _reloading(page, REFRESH_SECONDS)


def _opening(generations: Rows, n_generations: int, report: Mapping[str, Any] | None) -> tuple[str, ...]:
    best = max(generations, key=lambda row: row["best"])
    last = generations[-1]
    offspring = [row for row in generations if row["generation"] > 0]
    headline = {
        "generation": f"{whole(last['generation'])} of {whole(n_generations)}",
        "best fitness, in sample": decimal(_number(best["best"]), 3),
        "found in generation": whole(_first(generations, best["best"])),
        "evaluations": whole(_evaluations(generations)),
        "offspring from memory": percent(
            float(np.mean([row.get("cached_share", math.nan) for row in offspring]))
            if offspring
            else math.nan,
            1,
            signed=False,
        ),
    }
    if report:
        unseen = report.get("metrics", {}).get("out of sample", {})
        headline["Sharpe out of sample"] = decimal(_number(unseen.get("sharpe")))
    state = "finished" if report else "running"
    notes = []
    origin = str((report or {}).get("data", {}).get("origin", ""))
    if origin:
        notes.append(paragraph(f"{origin}.", "warning" if "SYNTHETIC" in origin else "note"))
    notes.append(
        paragraph(
            "Fitness is of the training rows and says nothing about others"
            + ("; the verdict below is of rows that the search has not seen." if report else ".")
            + ("" if report else f" This page loads itself again every {REFRESH_SECONDS} seconds."),
            "note",
        )
    )
    return (
        paragraph(state, "sample"),
        *notes,
        table(Grid("headline", tuple(headline), (tuple(headline.values()),))),
    )


def _verdict(report: Mapping[str, Any]) -> str:
    criteria = Grid(
        "criteria",
        ("criterion", "value", "needs", "result"),
        tuple(
            (
                one["name"],
                significant(_number(one["value"]), 3),
                significant(_number(one["threshold"]), 3),
                "pass" if one["passed"] else "fail",
            )
            for one in report.get("criteria", ())
        ),
    )
    metrics = report.get("metrics", {})
    samples = Grid(
        "samples",
        ("", *metrics),
        tuple(
            (title, *(style(_number(found.get(key))) for found in metrics.values()))
            for key, title, style in _SAMPLES
        ),
        note="After costs. Baselines are on the out-of-sample rows.",
    )
    return chapter(
        "Verdict",
        paragraph(str(report.get("verdict", UNDEFINED)), "" if report.get("passed") else "warning"),
        table(criteria) if criteria.rows else "",
        table(samples) if metrics else "",
    )


def _latest(generations: Rows) -> Grid:
    islands = any("island" in row for row in generations)
    rows = tuple(
        (
            whole(row["generation"]),
            *((whole(row["island"]),) if islands else ()),
            decimal(_number(row["best"]), 4),
            decimal(_number(row["median"]), 4),
            decimal(_number(row["diversity"]), 4),
            whole(row["evaluations"]),
            percent(_number(row.get("success_rate")), signed=False),
            percent(_number(row.get("cached_share")), signed=False),
            whole(row["stagnation"]),
        )
        for row in list(generations)[: -LATEST - 1 : -1]
    )
    return Grid(
        "latest",
        (
            "generation",
            *(("island",) if islands else ()),
            "best",
            "median",
            "diversity",
            "evaluations",
            "fitter than parent",
            "from memory",
            "without improvement",
        ),
        rows,
        title="The latest generations, the latest first",
    )


def _famous(hall: Sequence[Mapping[str, Any]], space: GenomeSpace) -> Grid:
    hall = hall[:FAMOUS]
    rows = [
        ("fitness", *(decimal(_number(one.get("fitness")), 3) for one in hall)),
        ("born in generation", *(_born(one.get("generation")) for one in hall)),
    ]
    shades = {}
    for j, name in enumerate(space.names):
        values = [one.get("genes", {}).get(name) for one in hall]
        for k, value in enumerate(values, 1):
            if isinstance(value, int | float):
                shades[len(rows), k] = 2.0 * _place(value, space, j) - 1.0
        rows.append((name, *(_gene(value, space, j) for value in values)))
    return Grid(
        "hall",
        ("gene", *(f"{k}." for k in range(1, len(hall) + 1))),
        tuple(rows),
        title="The best different genomes, by fitness in sample",
        note="Genes in natural units, shaded by their place in the range: red low, green high.",
        shades=shades,
    )


def _pairs(name: str, title: str, pairs: Mapping[str, Any]) -> Grid:
    rows = tuple((str(key), _value(value)) for key, value in pairs.items())
    return Grid(name, (title, "value"), rows, words=(1,))


def _drawn(draw: Callable[[BytesIO], None], caption: str) -> str:
    file = BytesIO()
    draw(file)
    return picture(file.getvalue(), caption)


def _reloading(page: bytes, seconds: int) -> bytes:
    # The browser loads a page that is still growing again by itself; no script is needed, or allowed.
    mark = b'<meta charset="utf-8">'
    if mark not in page:
        raise RuntimeError("experiments.page.document no longer begins as it did; see _reloading()")
    return page.replace(mark, mark + b'<meta http-equiv="refresh" content="%d">' % seconds, 1)


def _numbers(generations: Rows) -> set[int]:
    return {int(row["generation"]) for row in generations}


def _first(generations: Rows, best: float) -> int:
    return min(int(row["generation"]) for row in generations if row["best"] == best)


def _evaluations(generations: Rows) -> int:
    # Islands count for themselves; each one's last row has its count so far.
    last = {row.get("island", 0): int(row["evaluations"]) for row in generations}
    return sum(last.values())


def _place(value: float, space: GenomeSpace, j: int) -> float:
    low, high = float(space.low[j]), float(space.high[j])
    if space.kind[j] == "log":
        return math.log(max(value, low) / low) / math.log(high / low)
    return (value - low) / (high - low) if space.kind[j] != "choice" else 0.5


def _gene(value: Any, space: GenomeSpace, j: int) -> str:
    # As many decimals as tell ten thousand places of a gene's range apart.
    if not isinstance(value, float) or space.kind[j] in ("log", "choice"):
        return _value(value)
    reach = float(space.high[j]) - float(space.low[j])
    return decimal(value, min(max(4 - math.floor(math.log10(reach)), 0), 12))


def _born(generation: Any) -> str:
    return UNDEFINED if generation is None else whole(generation)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _value(value: Any) -> str:
    if isinstance(value, float):
        return significant(value, 4)
    if isinstance(value, int) and not isinstance(value, bool):
        return whole(value)
    return UNDEFINED if value is None else printable(value)

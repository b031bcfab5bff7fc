"""What a race has shown, in words that can be checked: ``report.md``, ``race.html``, ``report.json``, plots.

Every table and picture of a suite is of the same paired runs; :mod:`conductor.race_verdict` finds the words.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from conductor import race_comparison as comparing
from conductor import race_statistics as statistics
from conductor.race_comparison import BETTER, METRICS, UNDECIDED, WORSE, Race, Rows
from conductor.race_statistics import Saving
from conductor.race_verdict import interval, sentences, share
from experiments.page import (
    UNDEFINED,
    Grid,
    bullets,
    chapter,
    decimal,
    document,
    paragraph,
    percent,
    picture,
    printable,
    table,
    whole,
)
from experiments.runs import Run

if TYPE_CHECKING:
    from rich.console import Console

PAGE, MARKDOWN, JSON = "race.html", "report.md", "report.json"
_PLAINLY = 1e-9  # a shade that is none, so that a negative number (which is good here) is not set in red
_POINTS = 200  # along the curves of shares

METHOD = (
    "Errors are log10 of the regret, in decades; lower is better, -0.30 is half the error. Final: at the end "
    "of the budget. Anytime: mean over the evaluations of the budget.",
    "Runs are paired: the same problem and the same seed on both sides, and the same number of evaluations.",
    "Intervals hold 95 %. They are bootstrapped over clusters (functions, families, stretches of a market), "
    "never over runs, and widened for their small number (below ten: Student's t); each counts the same.",
    "p: Wilcoxon's signed-rank test of the cluster means, corrected by Holm for all rows of its table.",
    "Superiority: how often a run has a lower error than any run of the other in the same cluster "
    "(Vargha-Delaney A12); 50 % is no difference.",
    "Evaluations needed: expected running time to the other's median final error, as a share of its own; "
    "geometric mean. A contestant that never gets there counts as having succeeded half a time.",
    "Critical difference: Nemenyi's, of the ranks of the cluster means. It holds for all pairs of "
    "contestants together and so sees less than the paired intervals.",
)


def write(
    run: Run,
    rows: Rows,
    subject: str,
    reference: str,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare what has raced, and write report, page and plots into a run.

    Parameters
    ----------
    run : Run
    rows : pyarrow.Table, or mapping of str to array
        One row per run; see :mod:`conductor.race_comparison`.
    subject : str
        Who is to be judged.
    reference : str
        What it is judged against.
    title : str, optional
    notes : sequence of str
        What a reader must know, such as what the subject was trained on; shown on top.

    Returns
    -------
    dict
        ``subject``, ``reference``, ``notes``, ``sentences`` (by suite) and ``suites`` (what
        :func:`conductor.race_comparison.compare` found).

    Raises
    ------
    DataError
        If the runs are no paired race.
    """
    rows = comparing.checked(rows)
    title = title or f"Race: {subject} against {reference}"
    races = [Race.of(rows, suite) for suite in comparing.suites(rows)]
    slugs = _slugs(race.suite for race in races)
    found: dict[str, Any] = {
        "title": title,
        "subject": subject,
        "reference": reference,
        "notes": list(notes),
        "suites": {race.suite: comparing.compare(race, subject, reference) for race in races},
    }
    found["sentences"] = {suite: sentences(one) for suite, one in found["suites"].items()}
    pictures: dict[str, dict[str, tuple[str, bytes]]] = {}
    for race in races:
        pictures[race.suite] = {}
        for name, (caption, content) in _drawn(race, found["suites"][race.suite]).items():
            path = f"plots/{slugs[race.suite]}-{name}.png"
            run.write_bytes(path, content)
            pictures[race.suite][path] = (caption, content)
    run.write_bytes(PAGE, page(found, pictures))
    run.write_bytes(MARKDOWN, markdown(found, pictures).encode())
    run.write_json(JSON, plain(found))
    return found


def show(console: "Console", found: Mapping[str, Any]) -> None:
    """Print the tables against the reference and the verdict of each suite.

    Parameters
    ----------
    console : rich.console.Console
    found : mapping
        What :func:`write` returned.
    """
    from rich.table import Table
    from rich.text import Text

    for suite, one in found["suites"].items():
        grid = _against(one)
        drawn = Table(title=f"{suite}: {grid.title}", title_justify="left")
        for i, column in enumerate(grid.columns):
            drawn.add_column(column, justify="right" if i else "left")
        for row in grid.rows:
            bold = "bold" if row[0] == found["subject"] else ""
            drawn.add_row(*(Text(printable(cell), style=bold) for cell in row))
        console.print(drawn)
        for line in found["sentences"][suite]:
            console.print(Text(printable(line)))
        console.print()


# Tables.


def _headline(found: Mapping[str, Any]) -> Grid:
    rows, shades = [], {}
    for i, (suite, one) in enumerate(found["suites"].items()):
        pair = one["against_reference"][one["subject"]]
        cells = [suite]
        for metric in METRICS:
            shades[i, len(cells)] = _shade(pair[metric]["verdict"])
            cells += [interval(pair[metric]["difference"]), pair[metric]["verdict"]]
        ratio = pair["saving"].ratio if "saving" in pair else None
        cells.append(interval(ratio, lambda x: percent(x, 0, signed=False)) if ratio else UNDEFINED)
        cells.append(interval(pair["final"]["pairs_won"], share))
        cells += [whole(one["size"]["clusters"]), whole(one["size"]["pairs"])]
        rows.append(tuple(cells))
    return Grid(
        "headline-suites",
        (
            "suite", "final, decades", "verdict", "anytime, decades", "verdict", "evaluations needed",
            "pairs won", "clusters", "pairs",
        ),
        tuple(rows),
        title=f"{found['subject']} against {found['reference']}",
        shades=shades,
    )  # fmt: skip


def _against(one: Mapping[str, Any]) -> Grid:
    pairs = one["against_reference"]
    return _errors("against", f"Everybody against {one['reference']}, best final error first", pairs)


def _facing(one: Mapping[str, Any]) -> Grid:
    subject = one["subject"]
    title = f"{subject} against everybody; below zero {subject} is better"
    return _errors("facing", title, one["subject_against"])


def _errors(name: str, title: str, pairs: Mapping[str, Any]) -> Grid:
    rows, shades = [], {}
    for i, other in enumerate(_ordered(pairs)):
        cells = [other]
        for metric in METRICS:
            shades[i, len(cells)] = _shade(pairs[other][metric]["verdict"])
            cells += [interval(pairs[other][metric]["difference"]), _p(pairs[other][metric]["p_holm"])]
        shades[i, len(cells)] = _PLAINLY
        cells.append(interval(pairs[other]["middle"]))
        rows.append(tuple(cells))
    columns = ("", "final, decades", "p", "anytime, decades", "p", "final, middle half")
    return Grid(name, columns, tuple(rows), title=title, shades=shades)


def _won(one: Mapping[str, Any]) -> Grid:
    pairs = one["against_reference"]
    saved = any("saving" in pair for pair in pairs.values())
    rows = []
    for name in _ordered(pairs):
        final = pairs[name]["final"]
        cells = [
            name,
            interval(final["pairs_won"], share),
            interval(final["clusters_won"], share),
            interval(final["superiority"], share),
        ]
        if saved:
            saving = pairs[name]["saving"]
            cells += [interval(saving.ratio, share), f"{saving.unreached} of {saving.groups}"]
        rows.append(tuple(cells))
    return Grid(
        "won",
        (
            "", "pairs won", "clusters won", "superiority",
            *(("evaluations needed", "never there") if saved else ()),
        ),
        tuple(rows),
        title=f"How often, and how soon: final error against {one['reference']}",
    )  # fmt: skip


def _by_regime(one: Mapping[str, Any]) -> Grid | None:
    regimes = one["by_regime"]
    if not regimes:
        return None
    rows, shades = [], {}
    for i, name in enumerate(_ordered(one["against_reference"])):
        cells = [name]
        for figures in regimes.values():
            estimate = figures[name]["final"]
            shades[i, len(cells)] = _shade(comparing.verdict_of(estimate))
            cells.append(interval(estimate))
        rows.append(tuple(cells))
    return Grid(
        "regimes",
        ("", *regimes),
        tuple(rows),
        title=f"By regime: final error against {one['reference']}, decades",
        shades=shades,
    )


def _ordered(pairs: Mapping[str, Any]) -> list[str]:
    return sorted(pairs, key=lambda name: pairs[name]["final"]["difference"].value)


_ALONE: dict[str, tuple[str, Callable[[float], str]]] = {
    "final": ("final error", decimal),
    "final_rank": ("mean rank", decimal),
    "anytime": ("anytime error", decimal),
    "anytime_rank": ("mean rank", decimal),
    "error_10": ("at 10 % of the budget", decimal),
    "error_30": ("at 30 %", decimal),
    "error_100": ("at 100 %", decimal),
    "evaluations": ("evaluations", whole),
    "unique_share": ("of them unique", lambda x: percent(x, 0, signed=False)),
    "invalid": ("invalid", whole),
    "in_sample": ("Sharpe in sample", decimal),
    "out_of_sample": ("Sharpe out of sample", decimal),
}


def _alone(one: Mapping[str, Any]) -> Grid:
    contestants = one["contestants"]
    order = sorted(contestants, key=lambda name: contestants[name]["final"])
    shown = [key for key in _ALONE if key in contestants[order[0]]]
    rows = tuple((name, *(_ALONE[key][1](contestants[name][key]) for key in shown)) for name in order)
    shades = {(i, j): _PLAINLY for i in range(len(rows)) for j in range(1, len(shown) + 1)}
    return Grid(
        "alone",
        ("", *(_ALONE[key][0] for key in shown)),
        rows,
        title="Each contestant alone: log10 of the error, mean over clusters",
        shades=shades,
    )


def _earned(one: Mapping[str, Any]) -> Grid | None:
    pairs = {name: pair for name, pair in one["against_reference"].items() if "out_of_sample" in pair}
    if not pairs:
        return None
    order = sorted(pairs, key=lambda name: -_number(pairs[name]["out_of_sample"]["difference"].value))
    rows = tuple(
        (
            name,
            *(
                interval(pairs[name][column]["difference"]) if column in pairs[name] else UNDEFINED
                for column in ("in_sample", "out_of_sample")
            ),
            whole(pairs[name]["out_of_sample"]["pairs"]),
        )
        for name in order
    )
    return Grid(
        "earned",
        ("", "in sample", "out of sample", "pairs"),
        rows,
        title=f"Net annual Sharpe ratio of the champions against those of {one['reference']}",
        note="In sample: on the window that was searched. Out of sample: on the bars that follow it.",
    )


# Page, text and pictures.


def page(found: Mapping[str, Any], pictures: Mapping[str, Mapping[str, tuple[str, bytes]]]) -> bytes:
    """Return the page of a race, self-contained.

    Parameters
    ----------
    found : mapping
        What :func:`write` returns.
    pictures : mapping of str to mapping of str to (str, bytes)
        Caption and PNG by path, by suite.
    """
    parts = [paragraph(_verdicts(found), "sample"), *(paragraph(note, "note") for note in found["notes"])]
    parts.append(table(_headline(found)))
    for i, (suite, one) in enumerate(found["suites"].items(), 1):
        shown = [picture(content, caption) for caption, content in pictures[suite].values()]
        parts.append(
            chapter(
                suite,
                bullets(found["sentences"][suite], f"verdict-{i}"),
                paragraph(_sized(one), "note"),
                *shown[:1],
                *(table(grid) for grid in _grids(one)),
                *shown[1:],
            )
        )
    parts.append(chapter("How to read this", bullets(METHOD, "method")))
    return document(found["title"], *parts)


def markdown(found: Mapping[str, Any], pictures: Mapping[str, Mapping[str, tuple[str, bytes]]]) -> str:
    """Return the report of a race as Markdown; arguments as of :func:`page`."""
    lines = [f"# {found['title']}", "", f"**{_verdicts(found)}**", ""]
    for note in found["notes"]:
        lines += [printable(note), ""]
    lines += [*_markdown_table(_headline(found)), ""]
    for suite, one in found["suites"].items():
        lines += [
            f"## {suite}",
            "",
            *(f"- {line}" for line in found["sentences"][suite]),
            "",
            _sized(one),
            "",
        ]
        for grid in _grids(one):
            lines += [f"**{grid.title}**", "", *_markdown_table(grid), ""]
            lines += [grid.note, ""] if grid.note else []
        for path, (caption, _) in pictures[suite].items():
            lines += [f"![{caption}]({path})", ""]
    lines += ["## How to read this", "", *(f"- {line}" for line in METHOD)]
    return "\n".join(lines) + "\n"


def _grids(one: Mapping[str, Any]) -> list[Grid]:
    grids = (_against(one), _facing(one), _won(one), _by_regime(one), _earned(one), _alone(one))
    return [grid for grid in grids if grid is not None]


def _markdown_table(grid: Grid) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"

    return [
        line(grid.columns),
        "| --- |" + " --: |" * (len(grid.columns) - 1),
        *(line(row) for row in grid.rows),
    ]


def _verdicts(found: Mapping[str, Any]) -> str:
    said = [f"{one['verdict']['final']} ({suite})" for suite, one in found["suites"].items()]
    return f"Final error: {', '.join(said)}"


def _sized(one: Mapping[str, Any]) -> str:
    size, ranked = one["size"], one["ranking"]["final"]
    low, high = size["budget"]
    budget = whole(low) if low == high else f"{whole(low)} to {whole(high)}"
    friedman = (
        f" Friedman's test over clusters, final error: chi-square {ranked['chi_square']:.1f}, "
        f"Iman-Davenport p {_p(ranked['p'])}."
        if math.isfinite(ranked["p"])
        else ""
    )
    return (
        f"{whole(size['runs'])} runs: {size['contestants']} contestants on {whole(size['pairs'])} pairs, "
        f"{whole(size['problems'])} problems in {size['clusters']} clusters, {budget} evaluations each."
        + friedman
    )


def _drawn(race: Race, one: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    from conductor import figures

    subject, reference = one["subject"], one["reference"]
    named = {"subject": subject, "reference": reference}
    drawn: dict[str, tuple[str, bytes]] = {}

    def keep(
        name: str, caption: str, function: Callable[..., None], *data: Any, title: str, **options: Any
    ) -> None:
        file = BytesIO()
        function(*data, file, title, **options)
        drawn[name] = (caption, file.getvalue())

    for metric, text in METRICS.items():
        pairs = one["against_reference"]
        order = sorted(pairs, key=lambda name: pairs[name][metric]["difference"].value)
        keep(
            f"{metric}-differences",
            f"{text.capitalize()} against {reference}, 95 % intervals clustered",
            figures.differences,
            {name: pairs[name][metric]["difference"] for name in order},
            title=f"{race.suite}: {text} against {reference}",
            **named,
        )  # fmt: skip
    if len(race.contestants) > 2 and race.clusters.n > 1:
        for metric, text in METRICS.items():
            ranked = one["ranking"][metric]
            keep(
                f"{metric}-ranks",
                f"Mean ranks of the {text}; joined contestants are not told apart",
                figures.critical_difference,
                ranked["mean_ranks"],
                ranked["critical_difference"],
                note=f"{ranked['blocks']} clusters, Nemenyi at 5 %",
                title=f"{race.suite}: ranks of the {text}",
                **named,
            )
    keep(
        "clusters",
        f"Mean final error of {subject} against {reference} on each cluster, with quartiles of the pairs",
        figures.cluster_bars,
        one["by_cluster"]["final"],
        title=f"{race.suite}: {subject} against {reference}",
    )
    if race.curves is not None and race.at is not None:
        x, curves, against = _mean_curves(race, reference)
        keep(
            "curves",
            f"Mean error of the best so far, and its paired difference from {reference}; band: 95 % interval "
            f"of {subject}",
            figures.best_so_far,
            x,
            curves,
            against=against,
            title=f"{race.suite}: best so far",
            **named,
        )
    if race.hits is not None and (telling := _telling(race.hits)).any():
        x = np.geomspace(
            max(float(np.nanmin(race.hits / race.values["budget"][..., None])), 1e-3), 1.0, _POINTS
        )
        shares = {
            name: (x, statistics.reached_share(race.hits[i][:, telling], race.values["budget"][i], x))
            for i, name in enumerate(race.contestants)
        }
        keep(
            "targets",
            f"Share of (run, target) pairs reached, {int(telling.sum())} targets",
            figures.target_ecdf,
            shares,
            title=f"{race.suite}: targets reached",
            **named,
        )
    final = race.values["final"]
    x = np.linspace(0.0, max(float(np.quantile(final - final.min(axis=0), 0.95)), 0.1), _POINTS)
    keep(
        "profile",
        "Share of pairs within some decades of the best contestant",
        figures.performance_profile,
        x,
        dict(zip(race.contestants, statistics.behind_best(final, x), strict=True)),
        title=f"{race.suite}: performance profile",
        **named,
    )
    return drawn


def _mean_curves(race: Race, reference: str) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    # Shares of the budget, mean curves over clusters, and paired differences from the reference with bands.
    if race.curves is None or race.at is None:
        raise ValueError(f"runs of suite {race.suite} have no curves")
    spent = race.at / race.values["budget"][:, :, None]
    x = np.median(spent.reshape(-1, spent.shape[2]), axis=0)
    curves, against = {}, {}
    home = race.curves[race.position(reference)]
    for i, name in enumerate(race.contestants):
        curves[name] = race.clusters.means(race.curves[i].T).mean(axis=1)
        if name != reference:
            apart = race.clusters.means((race.curves[i] - home).T)  # (m, C)
            mean = apart.mean(axis=1)
            against[name] = (mean, *race.clusters.bounds(mean, race.clusters.weights @ apart.T))
    return x, curves, against


def _telling(hits: np.ndarray) -> np.ndarray:
    # Targets that somebody reached, and that not everybody reached at the same moment.
    reached = np.isfinite(hits)
    first = np.where(reached, hits, np.inf).min(axis=(0, 1))
    last = np.where(reached, hits, np.inf).max(axis=(0, 1))
    return reached.any(axis=(0, 1)) & (first != last)


# Cells.


def _p(value: float) -> str:
    return UNDEFINED if not math.isfinite(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _shade(verdict: str) -> float:
    return {BETTER: 0.6, WORSE: -0.6, UNDECIDED: _PLAINLY}[verdict]


def _number(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _slugs(suites: Iterable[str]) -> dict[str, str]:
    # A part of a file name for each suite, no two the same.
    slugs: dict[str, str] = {}
    for suite in suites:
        letters = (letter if letter.isascii() and letter.isalnum() else "-" for letter in suite.lower())
        slug = "".join(letters).strip("-")[:40] or "suite"
        taken = sum(other == slug or other.startswith(f"{slug}-no") for other in slugs.values())
        slugs[suite] = f"{slug}-no{taken + 1}" if taken else slug
    return slugs


def plain(value: Any) -> Any:
    """Return a value as JSON has it: None for what is no number, lists for intervals and arrays."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Saving):
        return {"ratio": plain(value.ratio), "unreached": value.unreached, "groups": value.groups}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value

"""The verdict as text: the table on the screen, and the whole report as Markdown."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ensemble.chapters import Lines, Part, Picture, Sentence, chapters, opening, sources, title
from ensemble.report_grids import GROUPS, Report, number, share
from ensemble.report_path_grids import sentence as path_sentence
from experiments.listing import METRICS
from experiments.page import UNDEFINED, Grid, printable, significant

ON_SCREEN = ("total_return", "sharpe", "max_drawdown", "profit_factor", "n_trades")
NAME_WIDTH = 28  # so that names stay whole on a screen of 80 columns


def show(console: Console, report: Report) -> None:
    """Print the strategy beside everything else, the criteria, and the verdict."""
    shown = [one for one in METRICS if one[0] in ON_SCREEN]
    grid = Table(title="Out of sample, after costs, on the same bars", box=SIMPLE_HEAD)
    grid.add_column("", min_width=NAME_WIDTH, overflow="fold")
    for _, head, _ in shown:
        grid.add_column(head.replace(" ", "\n"), justify="right")

    def add(name: str, metrics: Mapping[str, float | None], style: str = "") -> None:
        cells = (UNDEFINED if metrics[key] is None else form.format(metrics[key]) for key, _, form in shown)
        grid.add_row(Text(printable(name)), *cells, style=style)

    add("strategy", report["metrics"]["strategy"], "bold")
    for key, head in GROUPS:
        if report["metrics"][key]:
            grid.add_section()
            grid.add_row(Text(head, style="dim"))
            for name, metrics in report["metrics"][key].items():
                add(name, metrics)
    console.print(grid)
    skill = report["evidence"]["skill"]
    console.print(
        f"Luck: {skill['champions']} judged on these rows, {number(skill['n_trials']):,.0f} trials in the "
        f"ledger; probability of skill {share(skill['deflated_unseen'])}.",
        soft_wrap=True,
        highlight=False,
    )
    if report.get("cpcv"):
        console.print(path_sentence(report), soft_wrap=True, highlight=False)
    for one in report["criteria"]:
        mark = "[green]pass[/green]" if one["passed"] else "[red]fail[/red]"
        value, least = (significant(number(one[key]), 3) for key in ("value", "threshold"))
        console.print(f"  {mark}  ", end="")
        console.print(f"{printable(one['name'])}: {value}, needs {least}", markup=False, soft_wrap=True)
    color = "green" if report["passed"] else "red"
    console.print(Text(report["verdict"], style=f"bold {color}"), soft_wrap=True)


def markdown(report: Report, pictures: Mapping[str, str], files: Mapping[str, str]) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    report : mapping
        What ``report.json`` holds.
    pictures : mapping of str to str
        Paths beside the report, by name.
    files : mapping of str to str
        SHA-256 of the files that the numbers come from, by name.
    """
    lines = [f"# {_safe(title(report))}", ""]
    lines += _text(opening(report), pictures)
    for head, parts in (*chapters(report), sources(report, files)):
        lines += [f"## {head}", "", *_text(parts, pictures)]
    return "\n".join(lines).rstrip() + "\n"


def _text(parts: Sequence[Part], pictures: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Grid) and part.rows:
            lines += _table(part)
        elif isinstance(part, Picture) and part.name in pictures:
            lines += [f"![{_safe(part.caption)}]({pictures[part.name]})", ""]
        elif isinstance(part, Lines):
            lines += [*(f"- {_safe(line)}" for line in part.lines), ""]
        elif isinstance(part, Sentence) and part.text:
            bold = part.kind in ("", "warning")
            lines += [f"**{_safe(part.text)}**" if bold else _safe(part.text), ""]
    return lines


def _table(grid: Grid) -> list[str]:
    lines = [f"*{_safe(grid.title)}*", ""] if grid.title else []
    align = [":--" if i == 0 or i in grid.words else "--:" for i in range(len(grid.columns))]
    lines += [_row(grid.columns), _row(align, safe=True)]
    for row in grid.rows:
        if len(row) == 1 < len(grid.columns):
            lines.append(_row((f"**{_safe(row[0])}**", *[""] * (len(grid.columns) - 1)), safe=True))
        else:
            lines.append(_row(row))
    return [*lines, "", *([_safe(grid.note), ""] if grid.note else [])]


def _row(cells: Sequence[str], safe: bool = False) -> str:
    return "| " + " | ".join(cell if safe else _safe(cell) for cell in cells) + " |"


def _safe(text: str) -> str:
    # A name may hold what Markdown would take for a column, a link, markup or HTML.
    shown = printable(text)
    for letter in "\\`*_[]<>|#":
        shown = shown.replace(letter, f"\\{letter}")
    return shown

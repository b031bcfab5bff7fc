"""Runs and specialists in tables, and one run on one screen: what ``python -m experiments`` prints.

Every table is made of plain rows first, which ``--json`` prints as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from experiments.page import UNDEFINED, printable
from experiments.records import (
    IN_SAMPLE,
    OUT_OF_SAMPLE,
    UNFINISHED,
    Record,
    entry,
    read_json,
    records,
    specialist_folders,
    unusual,
)

WIDE = 130  # columns from which a table repeats what the id of a run says already
PIPED = 160  # width where there is no terminal to ask
DIGITS = 12  # of a specialist's fingerprint
FEW_FILES = 24

#: Metrics that people compare: name in the report, title, format.
METRICS = (
    ("total_return", "total return", "{:+.1%}"),
    ("annual_return", "return/year", "{:+.1%}"),
    ("annual_volatility", "volatility/year", "{:.1%}"),
    ("sharpe", "Sharpe", "{:.2f}"),
    ("sortino", "Sortino", "{:.2f}"),
    ("calmar", "Calmar", "{:.2f}"),
    ("max_drawdown", "drawdown", "{:.1%}"),
    ("hit_rate", "hit rate", "{:.0%}"),
    ("profit_factor", "profit factor", "{:.2f}"),
    ("n_trades", "trades", "{:,.0f}"),
    ("turnover", "turnover/year", "{:,.1f}"),
    ("time_in_market", "time in market", "{:.0%}"),
)
_COLORS = {
    "pass": "green",
    "fail": "red",
    "done": "green",
    "damaged": "red",
    "same": "green",
    "different": "red",
    "missing": "red",
    "new": "red",
}


def console(as_json: bool = False) -> Console:
    """Return where tables go: the terminal at its width, or wide lines for a program that reads them."""
    wide = Console(stderr=as_json, highlight=False)
    return wide if wide.is_terminal else Console(stderr=as_json, highlight=False, width=PIPED)


def table(*columns: str) -> Grid:
    """Return an empty table in the style of this command."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for column in columns:
        grid.add_column(column, overflow="fold")
    return grid


def cell(value: object) -> Text:
    """Return one cell from whatever a file held: a dash for nothing, and no control characters."""
    return Text(UNDEFINED if value in (None, "") else printable(value))


def word(text: str) -> Text:
    """Return a verdict or a state in its color."""
    return Text(text, style=_COLORS.get(text, ""))


def run_rows(root: str | Path, command: str | None = None) -> list[dict[str, Any]]:
    """Return one plain row per run, the newest last."""
    return [_run_row(record) for record in records(root, command)]


def _run_row(record: Record) -> dict[str, Any]:
    return {
        "run": record.run.id,
        "command": record.command,
        "name": record.name,
        "opened": _stamp(record),
        "wall_seconds": record.wall_seconds,
        "bars": record.bars,
        "sharpe_in_sample": record.metric(IN_SAMPLE, "sharpe"),
        "sharpe_out_of_sample": record.metric(OUT_OF_SAMPLE, "sharpe"),
        "passed": record.verdict,
        "state": record.state,
        "changes": list(record.changes),
        "problems": list(record.problems),
    }


def show_runs(where: Console, rows: Sequence[Mapping[str, Any]], root: str | Path) -> None:
    """Print the table of runs, and what its states mean."""
    if not rows:
        where.print(f"No runs in {root}. python -m ga.evolve makes one.", soft_wrap=True, markup=False)
        return
    wide = where.width >= WIDE
    grid = table("run", *(("command", "name", "opened, UTC") if wide else ()))
    for title in ("wall", "bars", "Sharpe in", "out of sample"):
        grid.add_column(title, justify="right")
    grid.add_column("verdict")
    grid.add_column("state")
    for row in rows:
        opened = (row["opened"] or UNDEFINED)[:16].replace("T", " ")
        grid.add_row(
            cell(row["run"]),
            *((cell(row["command"]), cell(row["name"]), opened) if wide else ()),
            _duration(row["wall_seconds"]),
            _styled(row["bars"], "{:,.0f}"),
            _styled(row["sharpe_in_sample"], "{:.2f}"),
            _styled(row["sharpe_out_of_sample"], "{:.2f}"),
            word(_verdict(row["passed"])),
            word(row["state"]),
        )
    where.print(grid)
    states = {row["state"] for row in rows}
    for state, meaning in (
        (
            "changed",
            "finished, but the sources or libraries are others now; `reproduce` tells whether it matters",
        ),
        (UNFINISHED, "no report: still running, or broken off"),
        ("damaged", "a file cannot be read; `show` says which"),
    ):
        if state in states:
            where.print(f"  {state}: {meaning}", style="dim", soft_wrap=True, markup=False)


def specialist_rows(root: str | Path, regime: str | None = None) -> list[dict[str, Any]]:
    """Return one plain row per saved specialist (of one regime), the newest run last.

    ``specialist`` is the beginning of its fingerprint, None in a run that has not noted one; figures and
    verdict are those of the run's champion and None for any other specialist. A file that cannot be read
    is named in ``problem``.
    """
    rows = []
    for record in records(root):
        for folder in specialist_folders(record):
            row = _specialist_row(record, folder)
            if regime is None or row["regime"] == regime:
                rows.append(row)
    return rows


def _specialist_row(record: Record, folder: Path) -> dict[str, Any]:
    problem = None
    saved: dict[str, Any] = {}
    genome: dict[str, Any] = {}
    try:
        saved, genome = (read_json(folder / name) for name in ("specialist.json", "genome.json"))
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{folder.name}: cannot be read ({error})"
    genes = genome.get("values") if isinstance(genome.get("values"), dict) else {}
    # Other specialists may lie beside the champion (an archive): its figures are not theirs.
    champion = bool(genes) and genes == record.genes()
    return {
        "specialist": record.champion[:DIGITS] if champion and record.champion else None,
        "run": record.run.id,
        "folder": folder.relative_to(record.run.folder).as_posix(),
        "regime": saved.get("regime"),
        "family": entry(saved, "family", "name"),
        "passed": record.verdict if champion else None,
        "fitness": genome.get("fitness"),
        "sharpe_in_sample": record.metric(IN_SAMPLE, "sharpe") if champion else None,
        "sharpe_out_of_sample": record.metric(OUT_OF_SAMPLE, "sharpe") if champion else None,
        "generation": entry(genome, "origin", "generation"),
        "parents": record.parents,
        "genes": genes,
        "state": record.state,
        "problem": problem,
    }


def show_specialists(where: Console, rows: Sequence[Mapping[str, Any]], root: str | Path) -> None:
    """Print the table of specialists, and below it the genes of each by name."""
    if not rows:
        where.print(f"No specialists in {root}. python -m ga.evolve makes one.", soft_wrap=True, markup=False)
        return
    grid = table("specialist", "run", "regime", "family")
    for title in ("fitness", "Sharpe in", "out of sample", "born in"):
        grid.add_column(title, justify="right")
    for title in ("verdict", "parents"):
        grid.add_column(title)
    for row in rows:
        grid.add_row(
            cell(row["specialist"]),
            cell(row["run"]),
            cell(row["regime"]),
            cell(row["family"]),
            _styled(row["fitness"], "{:.3f}"),
            _styled(row["sharpe_in_sample"], "{:.2f}"),
            _styled(row["sharpe_out_of_sample"], "{:.2f}"),
            _styled(row["generation"], "{:,.0f}"),
            word(_verdict(row["passed"])),
            cell(", ".join(row["parents"])),
        )
    where.print(grid)
    # One table of genes per set of names: specialists of a family stand side by side.
    families: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["genes"]:
            families.setdefault(tuple(row["genes"]), []).append(row)
        elif row["problem"]:
            where.print(f"{row['run']}: {row['problem']}", style="red", soft_wrap=True, markup=False)
    for names, alike in families.items():
        for start in range(0, len(alike), _abreast(where)):
            some = alike[start : start + _abreast(where)]
            genes = table("gene")
            for row in some:
                genes.add_column(cell(row["specialist"] or row["run"]), justify="right", overflow="fold")
            for name in names:
                genes.add_row(cell(name), *(_gene(row["genes"][name]) for row in some))
            where.print(genes)


def run_document(record: Record) -> dict[str, Any]:
    """Return everything about one run as plain objects."""
    changed, source = unusual(record)
    manifest, report = record.manifest, record.report
    return {
        **_run_row(record),
        "folder": str(record.run.folder),
        "settings": {"differ": changed, "source": source},
        "data": {
            "fingerprints": record.fingerprints,
            "rows": manifest.get("rows"),
            **_mapping(report, "data"),
        },
        "seeds": _mapping(manifest, "seeds"),
        "code": _mapping(manifest, "code"),
        "python": manifest.get("python"),
        "platform": manifest.get("platform"),
        "libraries": _mapping(manifest, "libraries"),
        "verdict": report.get("verdict"),
        "criteria": report.get("criteria") if isinstance(report.get("criteria"), list) else [],
        "metrics": _mapping(report, "metrics"),
        "evidence": _mapping(report, "evidence"),
        "search": _mapping(report, "search"),
        "champion": {
            "fitness": entry(report, "champion", "fitness"),
            "fingerprint": record.champion,
            "genes": record.genes(),
        },
        "parents": record.parents,
        "checkpoint": record.checkpoint,
        "specialists": [_specialist_row(record, folder) for folder in specialist_folders(record)],
        "files": dict(record.files()),
    }


def show_run(where: Console, record: Record) -> None:
    """Print one run: where it comes from, what it was asked, what it found, what lies in its folder."""
    found = run_document(record)
    heading = Text(f"{record.run.id}  ", style="bold")
    heading.append_text(word(record.state))
    where.print(heading)
    for problem in record.problems:
        where.print(f"  {problem}", style="red", soft_wrap=True, markup=False)
    facts = Grid(box=None, show_header=False, padding=(0, 2, 0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for title, value in _facts(record, found):
        if value:
            facts.add_row(title, cell(value))
    where.print(facts)
    changed = found["settings"]["differ"]
    title = f"Settings that differ from the defaults ({found['settings']['source']})"
    if changed:
        _print_pairs(where, title, changed)
    elif record.config:
        where.print(f"\n{title}: none", soft_wrap=True, markup=False)
    if found["metrics"]:
        where.print()
        where.print(metrics_grid(found["metrics"]))
    if found["champion"]["genes"]:
        _print_pairs(where, "Genes of the champion", found["champion"]["genes"])
    where.print()
    for criterion in found["criteria"]:
        if isinstance(criterion, dict):
            mark = word(_verdict(criterion.get("passed")))
            value, least = (_styled(criterion.get(key), "{:.3g}") for key in ("value", "threshold"))
            where.print(
                Text("  ")
                .append_text(mark)
                .append(f"  {printable(criterion.get('name'))}: {value}, needs {least}")
            )
    if found["verdict"]:
        where.print(cell(found["verdict"]), style="bold green" if record.verdict else "bold red")
    files = record.files()
    where.print(f"Files in {record.run.folder}", soft_wrap=True, markup=False)
    shown = "  ".join(f"{name} ({_size(size)})" for name, size in files[:FEW_FILES])
    more = f"  and {len(files) - FEW_FILES} more" if len(files) > FEW_FILES else ""
    where.print(f"  {printable(shown)}{more}", style="dim", markup=False)


def _facts(record: Record, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, code, champion = found["data"], found["code"], found["champion"]
    rows = data.get("rows")
    spans = ", ".join(f"{k} {v[0]:,} to {v[1]:,}" for k, v in _spans(rows).items())
    version = (
        f"version {code.get('version')}",
        f"commit {str(code.get('commit'))[:10]}",
        f"sources {str(code.get('sources') or '')[:DIGITS]}",
    )
    state = f"changed since: {'; '.join(record.changes)}" if record.changes else "the same as now"
    born = [row["generation"] for row in found["specialists"] if row["genes"] == champion["genes"]]
    lineage = [f"builds upon {', '.join(found['parents'])}" if found["parents"] else "no parent runs"]
    if born and champion["genes"]:
        lineage.append(f"champion born in generation {born[0]}")
    if champion["fingerprint"]:
        lineage.append(f"specialist {champion['fingerprint'][:DIGITS]}")
    took = "" if found["wall_seconds"] is None else f", took {_duration(found['wall_seconds'])}"
    reached = ""
    if record.state == UNFINISHED and record.checkpoint is not None:
        reached = (
            f"generation {record.checkpoint}, with a checkpoint; --resume {record.run.id} goes on from it"
        )
    search = found["search"]
    counts = ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in search.items())
    return [
        ("opened", f"{found['opened']}{took}"),
        ("code", f"{', '.join(version)}; {state}" if code else ""),
        ("ran on", ", ".join(str(one) for one in (found["python"], found["platform"]) if one)),
        ("market", ", ".join(str(data[key]) for key in ("origin", "symbol", "label") if data.get(key))),
        ("data", ", ".join(f"{name} {value[:DIGITS]}" for name, value in data["fingerprints"].items())),
        ("bars", ", ".join(part for part in (_styled(record.bars, "{:,.0f}"), spans) if part != UNDEFINED)),
        ("seeds", ", ".join(f"{name} {value}" for name, value in found["seeds"].items())),
        ("search", counts),
        ("reached", reached),
        ("lineage", "; ".join(lineage) if record.manifest else ""),
    ]


def metrics_grid(metrics: Mapping[str, Any]) -> Grid:
    """Return the table of metrics, one column for each sample."""
    grid = table("")
    samples = [name for name, found in metrics.items() if isinstance(found, Mapping)]
    for name in samples:
        grid.add_column(cell(name), justify="right")
    for key, title, style in METRICS:
        if any(key in metrics[name] for name in samples):
            grid.add_row(title, *(_styled(metrics[name].get(key), style) for name in samples))
    return grid


def _print_pairs(where: Console, title: str, pairs: Mapping[str, Any]) -> None:
    # As many columns of name and value as the screen holds, filled downward.
    where.print(f"\n{title}", style="bold", soft_wrap=True, markup=False)
    cells = [(printable(name), _plain(value)) for name, value in pairs.items()]
    longest = max(len(name) + min(len(value), 30) for name, value in cells) + 6
    n = max(1, min(4, where.width // longest))
    height = -(-len(cells) // n)
    grid = Grid(box=None, show_header=False, padding=(0, 1, 0, 2))
    for _ in range(n):
        grid.add_column(style="dim")
        grid.add_column(justify="right" if n > 1 else "left", overflow="fold")
    for i in range(height):
        row = [cell for j in range(i, len(cells), height) for cell in cells[j]]
        grid.add_row(*(Text(cell) for cell in row))
    where.print(grid)


def _abreast(where: Console) -> int:
    return max(1, (where.width - 28) // 14)


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _spans(rows: Any) -> dict[str, list[int]]:
    if not isinstance(rows, dict):
        return {}
    return {
        str(name): span
        for name, span in rows.items()
        if isinstance(span, list) and len(span) == 2 and all(isinstance(x, int) for x in span)
    }


def _stamp(record: Record) -> str | None:
    return None if record.opened is None else record.opened.isoformat().replace("+00:00", "Z")


def _verdict(passed: bool | None) -> str:
    return UNDEFINED if passed is None else "pass" if passed else "fail"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(value)


def _gene(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def _styled(value: Any, style: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNDEFINED
    return style.format(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return UNDEFINED
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _size(size: int) -> str:
    return f"{size:,} B" if size < 10_000 else f"{size / 1000:,.0f} kB"

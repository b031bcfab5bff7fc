"""Models in tables, and one of them on one screen: what ``python -m experiments models`` prints."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from configs.load import ConfigError
from experiments.listing import DIGITS, WIDE, cell, table, word
from experiments.model_origin import missed
from experiments.model_store import PRODUCTION, Model, Version
from experiments.models import Models, differences
from experiments.page import UNDEFINED
from experiments.records import changes_since
from experiments.runs import code_version, library_versions

WHOLE, DAMAGED = "whole", "damaged"
_STAGES = {PRODUCTION: "bold green"}
_COLUMNS = (
    "model", "version", "stage", "passed", "sharpe_out_of_sample", "fitted_until", "run", "fold",
    "registered", "note", "fingerprint", "state", "problem",
)  # fmt: skip
_TITLES = {
    "run": "validation",
    "fold": "fold",
    "fitted_until": "fitted until",
    "market": "market",
    "settings": "settings",
    "data": "data",
    "members": "members",
    "sharpe": "Sharpe out of sample",
    "passed": "verdict",
    "sources": "source files",
}


def version_rows(models: Models) -> list[dict[str, Any]]:
    """Return one plain row per version of every model; one of its own for a model that cannot be read."""
    rows = []
    for name in models.names():
        try:
            rows += [version_row(version) for version in models.model(name).versions]
        except ConfigError as error:
            rows.append({**dict.fromkeys(_COLUMNS), "model": name, "state": DAMAGED, "problem": str(error)})
    return rows


def version_row(version: Version) -> dict[str, Any]:
    """Return a version as a plain row; ``state`` says whether its files are those that were registered."""
    damage, origin = version.damage(), version.origin
    return {
        "model": version.model,
        "version": version.number,
        "stage": version.stage,
        "passed": origin["passed"],
        "sharpe_out_of_sample": origin["sharpe"],
        "fitted_until": _utc(origin["fitted_until"]),
        "run": origin["run"],
        "fold": origin["fold"],
        "registered": version.registered,
        "note": version.note,
        "fingerprint": version.fingerprint,
        "state": WHOLE if damage is None else DAMAGED,
        "problem": None if damage is None else f"{version.folder}: {damage}",
    }


def show_versions(where: Console, rows: Sequence[Mapping[str, Any]], root: Path) -> None:
    """Print the table of versions, and what is wrong with any."""
    if not rows:
        where.print(
            f"No models in {root}. python -m experiments models register adds one.",
            soft_wrap=True, markup=False,
        )  # fmt: skip
        return
    where.print(_versions(rows, where.width >= WIDE))
    for row in rows:
        if row["problem"]:
            where.print(f"  {row['problem']}", style="red", soft_wrap=True, markup=False)


def model_document(model: Model, number: int | None = None) -> dict[str, Any]:
    """Return everything about one model as plain objects.

    Parameters
    ----------
    model : Model
    number : int, optional
        Of the version to show; by default the one in production, or else the newest.
    """
    version = model.version(number) if number is not None else model.in_production or model.version()
    then = {"code": version.origin["code"], "libraries": version.origin["libraries"]}
    return {
        **version_row(version),
        "folder": str(version.folder),
        "origin": dict(version.origin),
        "missed": missed(version.origin),
        "changes": list(changes_since(then, code_version(), library_versions())),
        "versions": [version_row(one) for one in model.versions],
        "history": [event.to_dict() for event in model.events],
        "leftovers": list(model.leftovers),
    }


def show_version(where: Console, found: Mapping[str, Any]) -> None:
    """Print the version that :func:`model_document` has chosen, where it comes from, and its verdict."""
    heading = Text(f"{found['model']} version {found['version']}  ", style="bold")
    where.print(heading.append_text(_stage(found["stage"])).append("  ").append_text(word(found["state"])))
    if found["problem"]:
        where.print(f"  {found['problem']}", style="red", soft_wrap=True, markup=False)
    facts = Grid(box=None, show_header=False, padding=(0, 2, 0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for title, value in _facts(found):
        if value:
            facts.add_row(title, cell(value))
    where.print(facts)
    if found["origin"]["verdict"]:
        style = "bold green" if found["passed"] else "bold red"
        where.print(cell(found["origin"]["verdict"]), style=style, soft_wrap=True)
    else:
        where.print("No finished validation has judged it.", style="bold red")


def show_model(where: Console, found: Mapping[str, Any]) -> None:
    """Print what :func:`model_document` returns: a version, the others, and the history."""
    show_version(where, found)
    where.print()
    where.print(_versions(found["versions"], where.width >= WIDE))
    where.print()
    where.print(_history(found["history"]))
    if found["leftovers"]:
        where.print(
            f"  {', '.join(found['leftovers'])}: of a registration that was broken off; nothing reads it",
            style="dim", soft_wrap=True, markup=False,
        )  # fmt: skip


def show_change(where: Console, before: Version | None, after: Version) -> None:
    """Print how the version that is served now differs from the one before it."""
    if before is None:
        return
    grid = table("", f"version {before.number}", f"version {after.number}")
    for key, (old, new) in differences(before, after).items():
        grid.add_row(_TITLES[key], cell(_value(key, old)), cell(_value(key, new)))
    if grid.row_count:
        where.print(grid)


def _versions(rows: Sequence[Mapping[str, Any]], wide: bool) -> Grid:
    grid = table("model", "version", "stage", "verdict")
    grid.add_column("Sharpe", justify="right")
    for title in ("fitted until", *(("validation", "fold", "registered, UTC") if wide else ()), "strategy"):
        grid.add_column(title)
    grid.add_column("files")
    for row in rows:
        more = (cell(row["run"]), cell(row["fold"]), cell(_day(row["registered"])))
        grid.add_row(
            cell(row["model"]),
            cell(row["version"]),
            _stage(row["stage"]),
            word(_verdict(row["passed"])),
            cell(_value("sharpe", row["sharpe_out_of_sample"])),
            cell(_day(row["fitted_until"])),
            *(more if wide else ()),
            cell((row["fingerprint"] or "")[:DIGITS]),
            word(row["state"]),
        )
    return grid


def _history(events: Sequence[Mapping[str, Any]]) -> Grid:
    grid = table("", "when, UTC", "what", "version", "before", "why")
    for event in events:
        forced = event.get("forced")
        overruled = f"by force, although {'; '.join(event['objections'])}: {forced}" if forced else ""
        why = ". ".join(part for part in (event["note"], overruled) if part)
        when = event["time"][:19].replace("T", " ")
        named = (event["number"], when, event["what"], event["version"], event.get("before"), why)
        grid.add_row(*(cell(one) for one in named))
    return grid


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    origin = found["origin"]
    code, looks = origin["code"] or {}, origin["looks"] or {}
    fold = f", fold {origin['fold']} of {origin['folds']}" if origin["folds"] else ""
    tested = " to ".join(origin["tested"] or ())
    weighed = (
        f"{origin['trials']:,} trials, {looks.get('earlier')} earlier looks at the same rows"
        if origin["trials"] is not None
        else ""
    )
    changed = f"; changed since: {'; '.join(found['changes'])}" if found["changes"] else "; the same as now"
    versions = f"version {code.get('version')}, commit {str(code.get('commit'))[:10]}"
    return [
        ("registered", f"{found['registered']}{': ' if found['note'] else ''}{found['note']}"),
        ("strategy", f"{found['fingerprint'][:DIGITS]}, {origin['label']}"),
        ("members", ", ".join(origin["members"] or ())),
        ("fitted until", found["fitted_until"]),
        ("validation", f"{origin['run']}{fold}" if origin["run"] else "none"),
        ("tested", f"{tested}, Sharpe {_value('sharpe', origin['sharpe'])}" if tested else ""),
        ("weighed", weighed),
        ("market", origin["market"]),
        ("data", _value("data", origin["data"])),
        ("settings", (origin["settings"] or "")[:DIGITS]),
        ("code", f"{versions}{changed}" if code else ""),
        ("folder", found["folder"]),
    ]


def _value(key: str, value: Any) -> str:
    if value is None or value == {}:
        return "not judged" if key == "passed" else UNDEFINED
    if key == "fitted_until":
        return _utc(value) or UNDEFINED
    if key == "data":
        return ", ".join(f"{name} {digest[:DIGITS]}" for name, digest in value.items())
    if key == "members":
        return ", ".join(value)
    if key == "passed":
        return _verdict(value)
    if key in ("settings", "sources"):
        return str(value)[:DIGITS]
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _stage(stage: str | None) -> Text:
    return Text(stage or UNDEFINED, style=_STAGES.get(stage or "", ""))


def _verdict(passed: bool | None) -> str:
    return UNDEFINED if passed is None else "pass" if passed else "fail"


def _day(time: str | None) -> str:
    return (time or "")[:16].replace("T", " ")


def _utc(time: Any) -> str | None:
    if not isinstance(time, int):
        return None
    return datetime.fromtimestamp(time // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")

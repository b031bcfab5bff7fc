"""Run a stored config again, and hold the bytes of its files against those of the first time.

A result is a function of config, code, libraries and data. So everything a run writes must come out the same
to the bit, except for what is listed here: times, the place of the run, and what the trial ledger has counted
meanwhile.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.load import ConfigError, parse_yaml
from experiments.disk import file_digest
from experiments.listing import cell, table, word
from experiments.records import Record, read, records
from experiments.runs import Run

#: The module of each command that opens runs.
MODULES = {
    "detect": "regimes.detect",
    "evolve": "ga.evolve",
    "forecast": "forecasters.train",
    "race": "conductor.race",
    "train": "conductor.train",
    "tune": "experiments.tune",
    "validate": "ensemble.validate",
}

SAME, DIFFERENT, MISSING, NEW, LEFT_OUT = "same", "different", "missing", "new", "not compared"

#: Settings that send a run's progress somewhere outside of its folder.
WATCHED = ("mirror",)

# Files that may differ, by pattern, and why nothing is lost by leaving them out.
NOT_COMPARED = {
    "log.txt": "holds times",
    "changes.json": "tells of a resume",
    "*.html": "repeats the report, with times or hashes of it",
    "report.md": "repeats the report, with what the ledger counts",
    "plots/luck.png": "draws the luck of as many trials as the ledger counts",
    "*.ckpt": "what a broken run goes on from, not a result",
    "study*.sqlite": "holds times; report.json has every trial",
}

# Entries that may differ, by file: their path in it (* is any name), and why. All others must be equal.
_WHERE = "the place of the run"
_WHEN = "a measured time"
_LEDGER = "counts every trial and look that the ledger knew of"
VOLATILE: dict[str, dict[str, str]] = {
    "config.yaml": {"runs": _WHERE},
    "manifest.json": {
        "run": _WHERE,
        "written": _WHEN,
        "wall_seconds": _WHEN,
        "seconds": _WHEN,
        # What these say is told as a reason, in the heading.
        "code": "the code of now",
        "python": "the interpreter of now",
        "platform": "the machine of now",
        "libraries": "the libraries of now",
    },
    "report.json": {
        "run": _WHERE,
        "wall_seconds": _WHEN,
        "detectors.*.fit_seconds": _WHEN,
        "training.seconds.*": _WHEN,
        "detectors.*.microseconds_per_bar": _WHEN,
        "evidence": _LEDGER,
        # The verdict weighs the metrics, which are compared, and the evidence.
        "criteria": _LEDGER,
        "verdict": _LEDGER,
        "passed": _LEDGER,
    },
}
# The same of commands whose files say more: they stand instead of the entries above.
_COUNTED = (
    "champions", "earlier_looks", "deflated_unseen", "luck_unseen", "n_trials", "n_evaluated", "n_unique",
    "n_effective", "n_runs", "deflated", "luck",
)  # fmt: skip
VOLATILE_OF: dict[str, dict[str, dict[str, str]]] = {
    "validate": {
        "report.json": {
            "data.run": _WHERE,
            "ledger": _LEDGER,
            **{f"evidence.skill.{name}": _LEDGER for name in _COUNTED},
            "criteria": _LEDGER,
            "verdict": _LEDGER,
            "passed": _LEDGER,
        }
    }
}


def reproduce(
    record: Record, where: Console, scratch: str | Path | None = None, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a stored config again in a process of its own, and compare every file.

    Parameters
    ----------
    record : Record
        The run to reproduce; it is not touched.
    where : Console
        Shows that something is happening.
    scratch : str or Path, optional
        Folder for the new run and its own ledger, which stays; by default one that is removed.
    settings : sequence of str
        Overrides, ``a.b=c``, that must not change the result, for example the number of workers.

    Returns
    -------
    dict
        ``run``, ``again`` (the new run's folder, None if removed), ``command``, ``reasons`` (what else has
        changed), ``files`` (name, outcome, note of each) and ``identical``.

    Raises
    ------
    ConfigError
        If the run cannot be repeated: no config, no report, a command that is not known, or the new run
        fails.
    """
    if record.damaged or not record.config or not record.report:
        raise ConfigError(f"{record.run.folder}: cannot be reproduced: {'; '.join(record.problems)}")
    module = MODULES.get(record.command)
    if module is None:
        known = ", ".join(MODULES)
        raise ConfigError(
            f"{record.run.id}: {record.command} is no command that can be repeated; known: {known}"
        )
    if scratch is not None:
        return _reproduce(record, module, where, Path(scratch), settings, kept=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        return _reproduce(record, module, where, Path(folder), settings, kept=False)


def _reproduce(
    record: Record, module: str, where: Console, scratch: Path, settings: Sequence[str], kept: bool
) -> dict[str, Any]:
    # The trial ledger lies beside the folder of runs: the new run gets its own, and the real one does not
    # count the same trials twice.
    folder = scratch / "runs"
    before = {one.run.id for one in records(folder)}
    config = record.run.folder / "config.yaml"
    command = [sys.executable, "-m", module, "--config", str(config), "--runs", str(folder), "--json"]
    # A repetition is no run of its own: whoever watches the first one must not find it twice.
    unwatched = [f"{name}=null" for name in WATCHED if record.config.get(name) is not None]
    settings = [*unwatched, *settings]
    for setting in settings:
        command += ["--set", setting]
    with where.status(f"running {record.run.id} again"):
        done = subprocess.run(  # noqa: S603 - this interpreter, a module of ours, and no shell
            command, capture_output=True, text=True, errors="replace", check=False
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(
            f"{record.run.id}: running it again failed with status {done.returncode}: "
            f"{last.removeprefix('error: ')}"
        )
    made = [one for one in records(folder) if one.run.id not in before]
    if len(made) != 1:
        raise ConfigError(f"{folder}: holds {len(made)} new runs; another process works in this folder")
    again = made[0]
    files = compare_files(record.run, again.run, [setting.partition("=")[0].strip() for setting in settings])
    return {
        "run": record.run.id,
        "again": str(again.run.folder) if kept else None,
        "command": " ".join(["python", *command[1:4], "RUN/config.yaml", *command[7:]]),
        "reasons": _reasons(record, again),
        "files": files,
        "identical": not any(one["outcome"] in (DIFFERENT, MISSING, NEW) for one in files),
    }


def compare_files(first: Run, second: Run, overridden: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return what became of every file of two runs, in order of names.

    Parameters
    ----------
    first, second : Run
    overridden : sequence of str
        Settings that the second was given others of, by their dotted path.

    Returns
    -------
    list of dict
        ``file``; ``outcome``: same, different, missing (in the second), new (in the second), not compared;
        ``note``: why, or what the sameness leaves out.
    """
    both = [read(run) for run in (first, second)]
    one, two = ({name for name, _ in record.files()} for record in both)
    listed = VOLATILE | VOLATILE_OF.get(both[0].command, {})
    found = []
    for name in sorted(one | two):
        reason = next((why for pattern, why in NOT_COMPARED.items() if fnmatchcase(name, pattern)), None)
        if reason is not None:
            outcome, note = LEFT_OUT, reason
        elif name not in two:
            outcome, note = MISSING, "the new run has not written it"
        elif name not in one:
            outcome, note = NEW, "the first run had not written it"
        else:
            volatile = dict(listed.get(name, {}))
            if name == "config.yaml":
                volatile |= dict.fromkeys(overridden, "given anew")
            if name == "manifest.json":  # it names the settings that differ from the defaults
                volatile |= {f"changed.{key}": "given anew" for key in overridden}
            outcome, note = _compare(first.folder / name, second.folder / name, volatile)
        found.append({"file": name, "outcome": outcome, "note": note})
    return found


def _compare(first: Path, second: Path, volatile: Mapping[str, str]) -> tuple[str, str]:
    if file_digest(first) == file_digest(second):
        return SAME, ""
    if first.suffix not in (".json", ".yaml"):
        sizes = [path.stat().st_size for path in (first, second)]
        if sizes[0] == sizes[1]:
            return DIFFERENT, f"as many bytes ({sizes[0]:,}), but others"
        return DIFFERENT, f"{sizes[0]:,} bytes then, {sizes[1]:,} now"
    try:
        documents = [_parsed(path) for path in (first, second)]
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        return DIFFERENT, f"cannot be read ({error})"
    places = sorted(set(_differences(*documents)))
    if not places:
        return DIFFERENT, "only in how it is written"
    excuses = {place: _excuse(place, volatile) for place in places}
    serious = [place for place, pattern in excuses.items() if pattern is None]
    if serious:
        more = f" and {len(serious) - 3} more" if len(serious) > 3 else ""
        return DIFFERENT, f"{', '.join(serious[:3])}{more}"
    patterns: dict[str, list[str]] = {}
    for pattern in dict.fromkeys(excuses.values()):
        patterns.setdefault(volatile[pattern], []).append(pattern)
    return SAME, "but for " + "; ".join(f"{', '.join(found)} ({why})" for why, found in patterns.items())


def _parsed(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else parse_yaml(text, path.name)


def _differences(one: Any, two: Any, place: str = "") -> list[str]:
    # Places in which two documents differ, keys joined by dots; a list counts by its positions.
    if isinstance(one, dict) and isinstance(two, dict):
        pairs = [(str(key), one.get(key, ...), two.get(key, ...)) for key in {**one, **two}]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(one, two, strict=True))]
    else:
        # JSON keeps the bits of a float; 0.0 and -0.0 are equal but not the same.
        return [] if type(one) is type(two) and repr(one) == repr(two) else [place or "all of it"]
    found = []
    for key, left, right in pairs:
        found += _differences(left, right, f"{place}.{key}" if place else key)
    return found


def _excuse(place: str, volatile: Mapping[str, str]) -> str | None:
    # The pattern that covers a place or what it lies in.
    parts = place.split(".")
    for pattern in volatile:
        wanted = pattern.split(".")
        if len(wanted) <= len(parts) and all(w in ("*", p) for w, p in zip(wanted, parts, strict=False)):
            return pattern
    return None


def _reasons(first: Record, second: Record) -> list[str]:
    # What besides luck could explain a difference.
    found = [f"changed since: {change}" for change in first.changes]
    if (first.run.folder / "changes.json").is_file():
        found.append("the run was resumed with other code or libraries than it began with: changes.json")
    if first.fingerprints != second.fingerprints:
        found.append("the data are others now: their fingerprints differ")
    for name in ("python", "platform"):
        then, now = first.manifest.get(name), second.manifest.get(name)
        if then != now:
            found.append(f"{name}: {then} then, {now} now")
    return found


def show(where: Console, found: Mapping[str, Any]) -> None:
    """Print what became of every file, and the conclusion."""
    grid = table("file", "outcome", "note")
    for one in found["files"]:
        grid.add_row(cell(one["file"]), word(one["outcome"]), cell(one["note"]))
    where.print(grid)
    for reason in found["reasons"]:
        where.print(f"  {reason}", style="dim", soft_wrap=True, markup=False)
    compared = [one for one in found["files"] if one["outcome"] != LEFT_OUT]
    wrong = [one for one in compared if one["outcome"] != SAME]
    if found["identical"]:
        where.print(f"Reproduced: all {len(compared)} compared files are the same.", style="bold green")
    else:
        why = "" if found["reasons"] else "; code, libraries and data are those of the first time"
        where.print(
            f"Not reproduced: {len(wrong)} of {len(compared)} compared files differ{why}.", style="bold red"
        )
    if found["again"]:
        where.print(f"The new run: {found['again']}", soft_wrap=True, markup=False)

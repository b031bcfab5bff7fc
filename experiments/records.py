"""A run as it is read back from disk, whole or not: what it was asked, what it found, what is missing.

Nothing here trusts a file. A run may be unfinished, damaged, of another command or of an older version; what
cannot be read becomes a sentence in :attr:`Record.problems`, never a traceback.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from configs.load import Config, ConfigError, config_text, did_you_mean, load, parse_yaml
from experiments.runs import Run, code_version, library_versions, list_runs

DONE, CHANGED, UNFINISHED, DAMAGED = "done", "changed", "unfinished", "damaged"
LATEST = "latest"
IN_SAMPLE, OUT_OF_SAMPLE, STRATEGY = "in sample", "out of sample", "strategy"
PLACES = ("runs",)  # settings that say where results lie, not what they are
LARGEST_JSON = 64_000_000  # bytes
_ID = re.compile(r"(?P<command>[^-]+)-(?P<name>.+)_(?P<time>\d{8}T\d{6}Z)(-\d+)?")
_CHECKPOINT = re.compile(r"generation-(?P<generation>\d+)\.ckpt")
_ABSENT = object()


@dataclass(frozen=True)
class Record:
    """What a run's folder holds.

    Parameters
    ----------
    run : Run
    command, name : str
        For example ``evolve`` and ``volatile``.
    opened : datetime or None
        When the run was opened, UTC, from its id; None if that is no time.
    config, manifest, report : dict
        Their files as plain objects; empty where a file is missing or cannot be read.
    problems : tuple of str
        What is missing or damaged, one sentence each.
    damaged : bool
        Whether a file is there that cannot be read.
    changes : tuple of str
        What has changed since the run, see :func:`changes_since`.
    """

    run: Run
    command: str
    name: str
    opened: datetime | None
    config: dict[str, Any]
    manifest: dict[str, Any]
    report: dict[str, Any]
    problems: tuple[str, ...]
    damaged: bool
    changes: tuple[str, ...]

    @property
    def state(self) -> str:
        """``done``; ``changed``: done by other code or libraries; ``unfinished``: no report; ``damaged``."""
        if self.damaged:
            return DAMAGED
        if not self.report:
            return UNFINISHED
        return CHANGED if self.changes else DONE

    @property
    def verdict(self) -> bool | None:
        """Whether it passed; None for a run that was not judged."""
        passed = self.report.get("passed")
        return passed if isinstance(passed, bool) else None

    @property
    def bars(self) -> int | None:
        """Bars of its market."""
        bars = _number(entry(self.report, "data", "bars"))
        return None if bars is None else int(bars)

    @property
    def wall_seconds(self) -> float | None:
        """How long it took, from the report or else the manifest; None for an unfinished run."""
        if not self.report:
            return None  # its manifest is from the beginning
        found = _number(self.report.get("wall_seconds"))
        return _number(self.manifest.get("wall_seconds")) if found is None else found

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each input, by name."""
        data = self.manifest.get("data")
        return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}

    @property
    def champion(self) -> str | None:
        """Fingerprint of the specialist it ended with; None where the manifest names none."""
        subject = self.manifest.get("subject")
        return subject if isinstance(subject, str) and subject else None

    @property
    def parents(self) -> list[str]:
        """Runs that this one builds upon."""
        parents = self.manifest.get("parents")
        return [str(one) for one in parents] if isinstance(parents, list) else []

    def metric(self, sample: str, name: str) -> float | None:
        """Return one metric of ``in sample``, ``out of sample`` or a baseline; None where there is none.

        Every row that a validation's strategy trades is out of sample.
        """
        found = entry(self.report, "metrics", sample, name)
        if found is None and sample == OUT_OF_SAMPLE:
            found = entry(self.report, "metrics", STRATEGY, name)
        return _number(found)

    def genes(self) -> dict[str, float | str]:
        """Return the champion's genes by name; empty without a champion."""
        found = entry(self.report, "champion", "genes")
        if not isinstance(found, dict):
            return {}
        return {str(k): v for k, v in found.items() if isinstance(v, str | int | float)}

    def settings(self) -> dict[str, Any]:
        """Return every setting that decides the result, by its dotted path."""
        return flat({key: value for key, value in self.config.items() if key not in PLACES})

    @property
    def checkpoint(self) -> int | None:
        """Generation of the last checkpoint; None without one."""
        found = [
            int(match["generation"])
            for path in self.run.folder.glob("checkpoints/**/*.ckpt")
            if (match := _CHECKPOINT.fullmatch(path.name))
        ]
        return max(found, default=None)

    def files(self) -> list[tuple[str, int]]:
        """Return name and size in bytes of every file, in order of names; drafts are left out."""
        found = [
            (path.relative_to(self.run.folder).as_posix(), path.stat().st_size)
            for path in self.run.folder.rglob("*")
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
        ]
        return sorted(found)


def read(run: Run) -> Record:
    """Return what a run's folder holds."""
    match = _ID.fullmatch(run.id)
    if match is None:
        raise ValueError(f"{run.id} is not the id of a run")
    problems: list[str] = []
    damaged = False
    found: dict[str, dict[str, Any]] = {}
    for name, parse, without in (
        ("config.yaml", _yaml, "its settings are not known"),
        ("manifest.json", read_json, "where its result came from is not known"),
        ("report.json", read_json, "the run has not finished, or was broken off"),
    ):
        path = run.folder / name
        found[name] = {}
        if not path.is_file():
            problems.append(f"{name} is missing: {without}")
            continue
        try:
            found[name] = parse(path)
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            damaged = True
            problems.append(f"{name} cannot be read: {_reason(error, path)}")
    manifest = found["manifest.json"]
    return Record(
        run=run,
        command=match["command"],
        name=match["name"],
        opened=_time(match["time"]),
        config=found["config.yaml"],
        manifest=manifest,
        report=found["report.json"],
        problems=tuple(problems),
        damaged=damaged,
        changes=changes_since(manifest, *_present()),
    )


def records(root: str | Path, command: str | None = None) -> list[Record]:
    """Return the runs of a folder (of one command), oldest first."""
    return [read(run) for run in list_runs(root, command) if _ID.fullmatch(run.id)]


def find(root: str | Path, text: str) -> Record:
    """Return the run that a person means.

    Parameters
    ----------
    root : str or Path
        Folder of runs.
    text : str
        A run's id, the beginning of one that no other run shares, or ``latest``.

    Raises
    ------
    ConfigError
        If no run or more than one is meant.
    """
    runs = {run.id: run for run in list_runs(root) if _ID.fullmatch(run.id)}
    if not runs:
        raise ConfigError(f"{root}: holds no runs; python -m ga.evolve makes one, and --runs names a folder")
    if text == LATEST:
        return read(list(runs.values())[-1])
    if text in runs:
        return read(runs[text])
    meant = [one for one in runs if text and one.startswith(text)]
    if len(meant) == 1:
        return read(runs[meant[0]])
    if meant:
        more = f" and {len(meant) - 4} more" if len(meant) > 4 else ""
        some = f"{', '.join(meant[:4])}{more}"
        raise ConfigError(f"run {text!r} may be any of {len(meant)} in {root}: {some}; type more of it")
    newest = list(runs)[-20:]
    raise ConfigError(f"no run {text!r} in {root}{did_you_mean(text, newest[::-1])}")


def changes_since(
    manifest: Mapping[str, Any], code: Mapping[str, Any], libraries: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what differs between the code and libraries of a manifest and those given, as phrases.

    A library that is only here now or was only there then counts: what is installed decides what runs.
    """
    found = []
    before = manifest.get("code")
    if isinstance(before, dict) and before.get("sources") != code.get("sources"):
        commits = [_short(one.get("commit")) for one in (before, code)]
        found.append(
            f"sources (commit {commits[0]} then, {commits[1]} now)"
            if commits[0] != commits[1]
            else f"sources (commit {commits[0]} then and now; edits that were not committed)"
        )
    then = manifest.get("libraries")
    if isinstance(then, dict):
        found += (
            f"{name} ({then.get(name, 'none')} then, {libraries.get(name, 'none')} now)"
            for name in sorted(then.keys() | libraries.keys())
            if then.get(name) != libraries.get(name)
        )
    return tuple(found)


def changed_settings(config: Config, packaged: str) -> dict[str, Any]:
    """Return the settings that differ from those a command runs with when nothing is said.

    Write it into the manifest, ``run.write_manifest(..., changed=changed_settings(config, "evolve.yaml"))``:
    the defaults of today are known when a run starts, and not later.

    Parameters
    ----------
    config : Config
    packaged : str
        Name of the command's packaged YAML file.

    Returns
    -------
    dict
        Value by dotted path, in the order of the config; folders of results are left out.
    """
    usual = flat(load(type(config), packaged).model_dump(mode="json"))
    mine = flat(config.model_dump(mode="json"))
    return {
        path: value
        for path, value in mine.items()
        if usual.get(path, _ABSENT) != value and path.partition(".")[0] not in PLACES
    }


def unusual(record: Record) -> tuple[dict[str, Any], str]:
    """Return a run's settings that differ from the defaults, and how that is known.

    From the manifest where the run has noted them; otherwise against the packaged YAML of its command, which
    leaves out settings that this file does not mention.
    """
    noted = record.manifest.get("changed")
    if isinstance(noted, dict):
        return flat(noted), "noted when the run started"
    try:
        usual = _packaged(f"{record.command}.yaml")
    except ConfigError:
        return record.settings(), f"all of them: {record.command} has no packaged settings"
    differ = {
        path: value
        for path, value in record.settings().items()
        if path in usual and usual[path] != value and str(usual[path]) != str(value)  # a date may be a number
    }
    return differ, f"against {record.command}.yaml of now; settings that it does not mention are not compared"


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, keys joined by dots; lists stay whole, an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return found


def entry(document: Any, *path: str) -> Any:
    """Return a nested entry, None where the document has no such place."""
    for key in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def specialist_folders(record: Record) -> Iterator[Path]:
    """Yield the folders of saved specialists in a run, in order of names."""
    for path in sorted(record.run.folder.glob("checkpoints/**/specialist.json")):
        if (path.parent / "genome.json").is_file():
            yield path.parent


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; numbers that JSON does not have become None.

    Raises
    ------
    ValueError, OSError
        If it is too large, not JSON, or not one object.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"it has {size:,} bytes, at most {LARGEST_JSON:,} are read")
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__}, not an object")
    return document


def _yaml(path: Path) -> dict[str, Any]:
    document = parse_yaml(config_text(path)[0], path.name)
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__}, not a mapping")
    return document


@cache
def _present() -> tuple[dict[str, Any], dict[str, str]]:
    # Hashing every source takes a while, and what runs does not change under a process.
    return code_version(), library_versions()


def _packaged(name: str) -> dict[str, Any]:
    document = parse_yaml(*config_text(name))
    if not isinstance(document, dict):
        raise ConfigError(f"{name}: is not a mapping")
    for key, value in document.items():
        if isinstance(value, str) and value.endswith(".yaml"):
            document[key] = parse_yaml(*config_text(value))
    return flat(document)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON, {error.msg} in line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return text.removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _short(commit: Any) -> str:
    return commit[:10] if isinstance(commit, str) and commit else "unknown"


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:  # a folder that somebody named after no hour of any day
        return None

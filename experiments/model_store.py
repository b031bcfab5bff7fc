"""The versions of a model on the disk: what they are, whether they are whole, and how one is put in place."""

import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from configs.load import ConfigError
from experiments.disk import explained, file_digest, sync
from experiments.model_history import PROMOTE, REGISTER, Event, read_history, served
from experiments.model_origin import DOCUMENT
from experiments.records import read_json

PRODUCTION, RETIRED, CANDIDATE = "production", "retired", "candidate"
_VERSION = re.compile(r"v([1-9]\d*)")
_DRAFT = re.compile(r"\.[0-9a-f]{12}-v[1-9]\d*")


@dataclass(frozen=True)
class Version:
    """One registered strategy.

    Parameters
    ----------
    model : str
    number : int
    folder : Path
        Where it lies; ``Strategy.load(folder)`` reads it.
    stage : str
        ``production``: it is served. ``retired``: it was. ``candidate``: it never was.
    registered : str
        When, UTC.
    note : str
        What was said about it then.
    fingerprint : str
        Of the strategy.
    files : mapping of str to str
        SHA-256 of every file.
    origin : mapping
        See :meth:`experiments.model_origin.Source.origin`.
    """

    model: str
    number: int
    folder: Path
    stage: str
    registered: str
    note: str
    fingerprint: str
    files: Mapping[str, str]
    origin: Mapping[str, Any]

    def damage(self) -> str | None:
        """Return what is wrong with its files, in one phrase; None if they are those that were registered."""
        for name, digest in self.files.items():
            path = self.folder / name
            try:
                if file_digest(path) != digest:
                    return f"{name} is not the file that was registered"
            except FileNotFoundError:
                return f"{name} is missing"
            except OSError as error:
                return f"{name} cannot be read ({(error.strerror or str(error)).lower()})"
        return None

    def require_whole(self) -> None:
        """Raise :class:`ConfigError` if its files are not those that were registered."""
        found = self.damage()
        if found is not None:
            raise ConfigError(
                f"{self.folder}: is damaged, {found}; restore it from a copy, or roll back to another version"
            )


@dataclass(frozen=True)
class Model:
    """A name, its versions, and what happened to it.

    Parameters
    ----------
    name : str
    versions : tuple of Version
        In the order of their numbers.
    events : tuple of Event
    served : tuple of int
        Versions that were put into service and not rolled back; the last one is in production.
    leftovers : tuple of str
        Folders of registrations that were broken off; they are harmless.
    """

    name: str
    versions: tuple[Version, ...]
    events: tuple[Event, ...]
    served: tuple[int, ...]
    leftovers: tuple[str, ...]

    @property
    def in_production(self) -> Version | None:
        """The version that is served; None before the first promotion."""
        return self.version(self.served[-1]) if self.served else None

    def version(self, number: int | None = None) -> Version:
        """Return a version, by default the newest; :class:`ConfigError` if there is none."""
        found = {one.number: one for one in self.versions}
        number = max(found, default=0) if number is None else number
        if number not in found:
            known = ", ".join(map(str, found)) or "none"
            raise ConfigError(f"model {self.name}: has no version {number}; registered: {known}")
        return found[number]


def read_model(root: Path, name: str) -> Model:
    """Return a model as it stands on the disk; one without events if there is none of this name.

    Raises
    ------
    ConfigError
        If its history is damaged.
    """
    folder = root / name
    events = read_history(folder)
    stack = served(events)
    put = {event.version for event in events if event.what == PROMOTE}
    versions = tuple(
        Version(
            model=name,
            number=event.version,
            folder=folder / f"v{event.version}",
            stage=_stage(event.version, stack, put),
            registered=event.time,
            note=event.note,
            **event.details,
        )
        for event in events
        if event.what == REGISTER
    )
    known = {version.folder.name for version in versions}
    with explained(folder, "listed"):
        found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    leftovers = tuple(
        one for one in found if _DRAFT.fullmatch(one) or (_VERSION.fullmatch(one) and one not in known)
    )
    return Model(name, versions, events, stack, leftovers)


def sealed_files(folder: Path, fingerprint: str) -> dict[str, str]:
    """Return the SHA-256 of the files a saved strategy consists of, as its document names them.

    Whatever else lies in the folder is not it.

    Parameters
    ----------
    folder : Path
    fingerprint : str
        Of the strategy that was loaded from it.

    Raises
    ------
    ConfigError
        If the folder holds another one by now.
    """
    path = folder / DOCUMENT
    with explained(path, "read"):
        own, document = file_digest(path), read_json(path)
    if document.get("digest") != fingerprint:
        raise ConfigError(f"{folder}: has changed while it was registered; try again")
    files = {str(name): str(digest) for name, digest in document["files"].items()}
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ConfigError(f"{path}: names the file {name}, which lies elsewhere")
    return {**files, DOCUMENT: own}


def place_version(root: Path, model: Model, source: Path, files: Mapping[str, str]) -> int:
    """Copy a saved strategy to where its next version belongs, whole or not at all; return its number.

    Parameters
    ----------
    root : Path
        Held by :func:`experiments.model_history.locked`.
    model : Model
    source : Path
    files : mapping of str to str
        SHA-256 of every file that is copied.

    Raises
    ------
    ConfigError
        If a file is not what it was, or the disk refuses.
    """
    # Under the lock, drafts and folders that no event names are of processes that are no more. Such a
    # folder is whole: it is taken if it is what is registered now, and its number passed over if not.
    folder = root / model.name
    numbers = [version.number for version in model.versions]
    for name in model.leftovers:
        if match := _VERSION.fullmatch(name):
            numbers.append(int(match[1]))
            if all(_same(folder / name / file, digest) for file, digest in files.items()):
                return int(match[1])
        else:
            shutil.rmtree(folder / name, ignore_errors=True)
    number = 1 + max(numbers, default=0)
    draft, target = folder / f".{secrets.token_hex(6)}-v{number}", folder / f"v{number}"
    with explained(target, "written"):
        folder.mkdir(exist_ok=True)
        try:
            _copy(source, draft, files)
            draft.rename(target)
            sync(folder)
            sync(root)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            with suppress(OSError):  # not empty: a model that was there before
                folder.rmdir()
            raise
    return number


def _stage(number: int, stack: tuple[int, ...], put: set[int]) -> str:
    if number in stack[-1:]:
        return PRODUCTION
    return RETIRED if number in put else CANDIDATE


def _copy(source: Path, draft: Path, files: Mapping[str, str]) -> None:
    draft.mkdir()
    for name, digest in files.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
        if not _same(target, digest):
            raise ConfigError(f"{source / name}: has changed while it was registered; try again")
        sync(target)
    for folder in [draft, *(path for path in draft.rglob("*") if path.is_dir())]:
        sync(folder)


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest

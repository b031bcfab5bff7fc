"""What has happened to a model, event by event, in a folder that only grows.

Every event is a JSON file of its own, ``000001.json`` and on, put in place whole by a hard link that fails if
the number is taken: nothing is ever rewritten or half there, and of two processes that write the same number
one must look again. Each event is sealed together with the seal before it, so that one that was edited,
exchanged or lost in the middle is noticed. A copy of the folder is a backup, at any moment.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.load import ConfigError
from experiments.disk import explained, sync
from experiments.page import printable
from experiments.records import read_json

FOLDER = "history"
REGISTER, PROMOTE, ROLLBACK = "register", "promote", "rollback"
FORMAT = 1
_NAME = re.compile(r"\d{6}\.json")
_DRAFT = re.compile(r"\.[0-9a-f]{12}-\d{6}\.json")
_KEYS = {
    "format": int, "number": int, "time": str, "what": str, "version": int, "note": str, "details": dict,
    "previous": (str, type(None)), "seal": str,
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One thing that was done to a model.

    Parameters
    ----------
    number : int
        1 for the first.
    time : str
        When, UTC, in ISO format. The order of events is that of their numbers: clocks may be set.
    what : str
        ``register``, ``promote`` or ``rollback``.
    version : int
        The version that was registered, or that is served from then on.
    note : str
        Why, in words.
    details : mapping
        Of ``register``: ``fingerprint``, ``files`` and ``origin``. Of the others: ``before``, the version
        that was served until then (None: none). Of ``promote`` also ``objections``, what spoke against it,
        and ``forced``, why it was done all the same.
    seal : str
        SHA-256 of all this and of the seal of the event before.
    """

    number: int
    time: str
    what: str
    version: int
    note: str
    details: Mapping[str, Any]
    seal: str

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader wants to know as plain objects: files and origin belong to the version."""
        details = {key: value for key, value in self.details.items() if key not in ("files", "origin")}
        return {
            "number": self.number,
            "time": self.time,
            "what": self.what,
            "version": self.version,
            "note": self.note,
            **details,
        }


def read_history(folder: Path) -> tuple[Event, ...]:
    """Return the events of a model, the first one first; none where there is no history.

    Parameters
    ----------
    folder : Path
        Of the model.

    Raises
    ------
    ConfigError
        If an event is missing or is not what was written.
    """
    place = folder / FOLDER
    with explained(place, "read"):
        names = sorted(name for name in os.listdir(place) if _NAME.fullmatch(name)) if place.exists() else []
    found: list[Event] = []
    for number, name in enumerate(names, start=1):
        path = place / name
        if name != _name(number):
            raise ConfigError(f"{place / _name(number)}: is missing; restore {place} from a copy")
        document = _read(path)
        previous = found[-1].seal if found else None
        told = {key: value for key, value in document.items() if key != "seal"}
        if document["seal"] != _seal(told) or document["number"] != number:
            raise ConfigError(f"{path}: is not the event that was written; restore {place} from a copy")
        if document["previous"] != previous:
            raise ConfigError(f"{path}: does not follow the event before it; restore {place} from a copy")
        found.append(
            Event(**{key: value for key, value in document.items() if key not in ("format", "previous")})
        )
    return tuple(found)


def append_event(
    folder: Path,
    events: Sequence[Event],
    what: str,
    version: int,
    note: str,
    details: Mapping[str, Any],
) -> Event:
    """Add an event to the history of a model, and return it once it is on the disk.

    Parameters
    ----------
    folder : Path
        Of the model, in a registry that is :func:`locked`.
    events : sequence of Event
        All that have happened, as they were read for the decision to write this one.
    what, version, note, details
        As of :class:`Event`.

    Raises
    ------
    ConfigError
        If another process has written in the meantime, or the disk refuses; nothing has happened then.
    """
    number = len(events) + 1
    told = {
        "format": FORMAT,
        "number": number,
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "what": what,
        "version": version,
        "note": printable(note),
        "details": dict(details),
        "previous": events[-1].seal if events else None,
    }
    document = {**told, "seal": _seal(told)}
    place = folder / FOLDER
    draft, target = place / f".{secrets.token_hex(6)}-{_name(number)}", place / _name(number)
    with explained(place, "written"):
        place.mkdir(parents=True, exist_ok=True)
        sync(folder)
        for path in place.iterdir():
            if _DRAFT.fullmatch(path.name):  # of a process that was killed: who writes holds the lock
                path.unlink(missing_ok=True)
        try:
            draft.write_text(f"{json.dumps(document, indent=1, allow_nan=False)}\n", encoding="utf-8")
            sync(draft)
            try:
                os.link(draft, target)
            except FileExistsError:
                raise ConfigError(
                    f"{target}: another process has changed this model in the meantime; try again"
                ) from None
        finally:
            draft.unlink(missing_ok=True)
        sync(place)
    return Event(**{key: value for key, value in document.items() if key not in ("format", "previous")})


def served(events: Sequence[Event]) -> tuple[int, ...]:
    """Return the versions that were put into service and not rolled back, the one that is served last.

    A promotion puts a version on top; a rollback takes away what lies on top of the one it returns to.
    """
    stack: list[int] = []
    for event in events:
        if event.what == PROMOTE:
            stack.append(event.version)
        elif event.what == ROLLBACK:
            while stack and stack[-1] != event.version:
                stack.pop()
    return tuple(stack)


@contextmanager
def locked(root: Path, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the registry for writing; readers need no lock. It ends with the process, however that ends.

    Raises
    ------
    ConfigError
        If the folder cannot be made, or another process holds it for longer.
    """
    with explained(root, "used as the folder of models"):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with explained(root, "locked"):
            _lock(root, descriptor, timeout_s)
        yield
    finally:
        os.close(descriptor)


def _lock(root: Path, descriptor: int, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= end:
            raise ConfigError(
                f"{root}: another process has been changing models for {timeout_s:g} s; end it or try again"
            )
        time.sleep(0.02)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); restore {path.parent} from a copy") from error
    if document.get("format") not in (None, FORMAT):
        raise ConfigError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
    if document.keys() != _KEYS.keys() or not all(isinstance(document[k], kind) for k, kind in _KEYS.items()):
        raise ConfigError(f"{path}: is not the event that was written; restore {path.parent} from a copy")
    return document


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _seal(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode()).hexdigest()

"""The registry of strategies: versions of a model by name, and which of them is served.

A model is a folder, and a copy of it serves elsewhere::

    experiments/models/btc/v1/         the strategy as it was saved, whole; never changed again
    experiments/models/btc/history/    what happened, event by event; only grows

A version is put in place whole before the event that registers it, and a promotion or a rollback is one
event: a process that is killed at any moment leaves the old state or the new one, and what is served is
always a whole version. The files of a version are held against the digests noted when it was registered
whenever it is served, promoted or listed.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from configs.load import ConfigError, did_you_mean
from experiments.disk import explained
from experiments.model_history import FOLDER, PROMOTE, REGISTER, ROLLBACK, append_event, locked
from experiments.model_origin import Source, missed, objections
from experiments.model_store import Model, Version, place_version, read_model, sealed_files
from experiments.page import printable
from experiments.records import entry
from experiments.runs import checked_id

ROOT = "experiments/models"
SHORT = 12  # digits of a fingerprint, for people
_REASONS = 4  # more would be no sentence
_COMPARED = ("run", "fold", "fitted_until", "market", "settings", "data", "members", "sharpe", "passed")

# A registry of experiments stands on a floor below the strategies it keeps, and knows them by name only. That
# a process which has imported nothing yet can load the folder is also what the registry promises.
_LOAD = """
import sys
from configs.load import InputError
from ensemble.strategy import Strategy
try:
    print(Strategy.load(sys.argv[1]).fingerprint())
except InputError as error:
    sys.exit(f"error: {error}")
"""


class Strategic(Protocol):
    """What is loaded from a version: something that knows who it is."""

    def fingerprint(self) -> str:
        """Return the digest of settings and parts."""
        ...


T = TypeVar("T", bound=Strategic)


def identified(folder: Path) -> str:
    """Return the fingerprint of a saved strategy after a process of its own has loaded it.

    Raises
    ------
    ConfigError
        With the sentence of :meth:`ensemble.strategy.Strategy.load`, if it cannot be loaded.
    """
    done = subprocess.run(  # noqa: S603 - this interpreter, a program of ours, and no shell
        [sys.executable, "-c", _LOAD, str(folder)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
        raise ConfigError(last if last.startswith(str(folder)) else f"{folder}: cannot be loaded: {last}")
    return done.stdout.split()[-1]


class Models:
    """All models in a folder.

    Parameters
    ----------
    root : str or Path
        Made with the first registration.
    identify : callable, optional
        Loads a saved strategy and returns its fingerprint; by default :func:`identified`.

    Raises
    ------
    ConfigError
        From every method, in one sentence: what is asked for does not exist or cannot be done, a file is
        not what was written, or the disk refuses.
    """

    def __init__(self, root: str | Path = ROOT, identify: Callable[[Path], str] | None = None) -> None:
        self.root = Path(root)
        self._identify = identified if identify is None else identify

    def names(self) -> list[str]:
        """Return the names of all models, sorted."""
        with explained(self.root, "listed"):
            found = sorted(self.root.iterdir()) if self.root.exists() else []
        return [path.name for path in found if (path / FOLDER).is_dir()]

    def model(self, name: str) -> Model:
        """Return one model; :class:`ConfigError` if there is none of this name, or its history is damaged."""
        found = read_model(self.root, _checked_name(name))
        if not found.events:
            known = self.names()
            hint = did_you_mean(name, known) if known else "; python -m experiments models register adds one"
            raise ConfigError(f"no model {name!r} in {self.root}{hint}")
        return found

    def production(self, name: str, load: Callable[[Path], T]) -> T:
        """Return the strategy that is served, loaded and held against what was registered.

        Parameters
        ----------
        name : str
        load : callable
            ``Strategy.load``: this floor knows no strategies.

        Raises
        ------
        InputError
            If nothing is in production, or it is not what was registered.
        """
        version = self.model(name).in_production
        if version is None:
            raise ConfigError(
                f"model {name}: no version is in production; python -m experiments models promote {name}"
            )
        version.require_whole()
        found = load(version.folder)
        self._require_same(version, found.fingerprint())
        return found

    def register(self, name: str, source: Source, note: str = "") -> Version:
        """Copy a saved strategy as the next version of a model.

        Parameters
        ----------
        name : str
            Of the model; a new one is begun with its first version.
        source : Source
        note : str
            What is worth remembering about it.

        Raises
        ------
        InputError
            If it cannot be loaded, its report judged something else, or it is registered already. Nothing is
            left behind then.
        """
        _checked_name(name)
        fingerprint = self._identify(source.folder)
        origin = source.origin(fingerprint)
        files = sealed_files(source.folder, fingerprint)
        with locked(self.root):
            model = read_model(self.root, name)
            for one in model.versions:
                if one.fingerprint == fingerprint:
                    raise ConfigError(
                        f"model {name}: this strategy ({fingerprint[:SHORT]}) is version {one.number} already"
                    )
            number = place_version(self.root, model, source.folder, files)
            details = {"fingerprint": fingerprint, "files": files, "origin": origin}
            append_event(self.root / name, model.events, REGISTER, number, note, details)
        return self.model(name).version(number)

    def promote(
        self, name: str, number: int | None = None, note: str = "", force: str | None = None
    ) -> tuple[Version | None, Version]:
        """Serve a version from now on; return the one before it (None: none) and the new one.

        Parameters
        ----------
        name : str
        number : int, optional
            Of the version; by default the newest.
        note : str
            Why.
        force : str, optional
            Why it shall be served although its validation has not passed; is kept in the history beside what
            spoke against it.
        """
        if force is not None and not force.strip():
            raise ConfigError("--force is empty; it must say why the version is promoted all the same")
        self.model(name)  # nothing is made, not even a lock, for a model that is not there
        with locked(self.root):
            model = self.model(name)
            version, before = model.version(number), model.in_production
            if before is not None and before.number == version.number:
                raise ConfigError(f"model {name}: version {version.number} is in production already")
            against = objections(version.origin)
            if against and force is None:
                raise ConfigError(
                    f"model {name}: version {version.number} is not promoted: {'; '.join(against)}"
                    f'{_reasons(version)}; --force "why" promotes it all the same'
                )
            details = {
                "before": None if before is None else before.number,
                "objections": against,
                "forced": printable(force) if against and force is not None else None,
            }
            self._serve(model, version, PROMOTE, note, details)
        return before, self.model(name).version(version.number)

    def rollback(self, name: str, to: int | None = None, note: str = "") -> tuple[Version, Version]:
        """Serve the version again that was served before; return the one that is taken back, and that one.

        Parameters
        ----------
        name : str
        to : int, optional
            Further back: a version that was served before, and has not been rolled back since.
        note : str
            Why.
        """
        self.model(name)
        with locked(self.root):
            model = self.model(name)
            now, earlier = model.in_production, model.served[:-1]
            if now is None or not earlier:
                what = (
                    "nothing is in production" if now is None else f"nothing was before version {now.number}"
                )
                raise ConfigError(f"model {name}: there is nothing to roll back to; {what}")
            target = model.version(earlier[-1] if to is None else to)
            if target.number == now.number:
                raise ConfigError(f"model {name}: version {now.number} is in production already")
            if target.number not in earlier:
                some = ", ".join(str(one) for one in dict.fromkeys(reversed(earlier)))
                raise ConfigError(
                    f"model {name}: version {target.number} was not in production before version "
                    f"{now.number}; it can go back to {some}, and `promote` serves any other"
                )
            self._serve(model, target, ROLLBACK, note, {"before": now.number})
        return now, self.model(name).version(target.number)

    def _serve(
        self, model: Model, version: Version, what: str, note: str, details: Mapping[str, Any]
    ) -> None:
        # Whoever asks for the served version next must get it: files and libraries are tried before.
        version.require_whole()
        self._require_same(version, self._identify(version.folder))
        append_event(self.root / model.name, model.events, what, version.number, note, details)

    def _require_same(self, version: Version, fingerprint: str) -> None:
        if fingerprint != version.fingerprint:
            raise ConfigError(
                f"{version.folder}: loads as strategy {fingerprint[:SHORT]}; version {version.number} was "
                f"registered as {version.fingerprint[:SHORT]}, so restore it from a copy"
            )


def differences(before: Version | None, after: Version) -> dict[str, tuple[Any, Any]]:
    """Return what sets two versions apart: by what it is, the value of each; no version has only None."""
    first, second = ({} if one is None else one.origin for one in (before, after))
    pairs = {key: (first.get(key), second.get(key)) for key in _COMPARED}
    pairs["sources"] = (entry(first, "code", "sources"), entry(second, "code", "sources"))
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _reasons(version: Version) -> str:
    found = missed(version.origin)
    more = f"; and {len(found) - _REASONS} more" if len(found) > _REASONS else ""
    return f" ({'; '.join(found[:_REASONS])}{more})" if found else ""


def _checked_name(name: str) -> str:
    checked_id(name, "model")
    if "." in name:
        raise ConfigError(f"model {name!r} is not a name; it must have no dots")
    return name

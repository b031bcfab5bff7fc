"""``Run``: the directory of one experiment. It is never overwritten, and what is in it is whole.

Every file is written to a draft beside it, flushed to the disk, and renamed over the old one: whoever
reads a run, even after a crash in the middle of writing, finds the old content or the new one.
"""

import hashlib
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from configs.load import Config, ConfigError, dump
from experiments.disk import explained, sync

DISTRIBUTION = "regime-conductor"
PACKAGES = (
    "backtest", "compute", "conductor", "configs", "ensemble", "experiments",
    "forecasters", "ga", "live", "market", "regimes", "specialists",
)  # fmt: skip
LIBRARIES = (
    "arch", "catboost", "deap", "hmmlearn", "lightgbm", "llvmlite", "numba", "numpy", "optuna", "pandas",
    "pyarrow", "pydantic", "ribs", "scikit-learn", "scipy", "TA-Lib", "torch", "xgboost", "xgboost-cpu",
)  # fmt: skip

#: Everything that a run is refused is a folder that cannot be used.
_explained = partial(explained, advice="; choose a folder that can be written")

_ROOT = Path(__file__).resolve().parent.parent
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STAMPED = re.compile(r"(?P<label>.+)_(?P<time>\d{8}T\d{6}Z)(?:-(?P<again>\d+))?")
_STAMP = "%Y%m%dT%H%M%SZ"
_DRAFT = re.compile(r"\.[0-9a-f]{12}-.+")


def checked_id(text: str, what: str = "run") -> str:
    """Return a name that is safe as one folder or file name.

    Raises
    ------
    ConfigError
        If it is not 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or
        digit (which leaves out ``..``, hidden files, options and every path).
    """
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise ConfigError(
            f"{what} {text!r} is not a name; it must be 1 to 64 letters, digits, dots, dashes and "
            f"underscores, beginning with a letter or digit"
        )
    return text


@dataclass(frozen=True)
class Run:
    """One experiment on disk: ``config.yaml``, ``manifest.json``, ``log.txt`` and what the job adds.

    Make one with :meth:`open`, or return to one with :meth:`at`. Subfolders (``checkpoints``,
    ``predictions``, ``metrics``, ``plots``) appear with their first file.

    Parameters
    ----------
    id : str
        ``{command}-{name}_{utc time}``, with ``-2``, ``-3``, ... when a second holds several runs.
    folder : Path
        Its directory, named by the id.
    clock : float
        Reading of the monotonic clock when this process took up the run, seconds.
    """

    id: str
    folder: Path
    clock: float = field(default_factory=time.monotonic, repr=False)

    @classmethod
    def open(cls, root: str | Path, command: str, name: str, now: datetime | None = None) -> Self:
        """Return a new run; its directory is made here, and no other run can get the same one.

        Parameters
        ----------
        root : str or Path
            Folder of all runs; made if missing.
        command : str
            For example ``evolve``.
        name : str
            For example ``volatile``.
        now : datetime, optional
            With time zone; the present by default.

        Raises
        ------
        ConfigError
            If the names are not safe or too long together, or the folder cannot be made.
        """
        now = datetime.now(UTC) if now is None else now
        if now.tzinfo is None:
            raise ValueError(f"now is {now.isoformat()} without a time zone; pass an aware datetime")
        checked_id(command, "command")
        checked_id(name, "run name")
        root = Path(root)
        with _explained(root, "used as the folder of runs"):
            root.mkdir(parents=True, exist_ok=True)
        stamp = now.astimezone(UTC).strftime(_STAMP)
        first = f"{command}-{name}_{stamp}"
        # After every run of this second, of any command: the order of the ids is the order of the runs.
        again = 1 + max((again for time, again, _ in _stamped(root) if time == stamp), default=0)
        while True:
            run_id = checked_id(first if again == 1 else f"{first}-{again}")
            with _explained(root / run_id, "made"):
                try:
                    (root / run_id).mkdir()  # atomic: of two processes one gets it, the other goes on
                except FileExistsError:
                    again += 1
                    continue
                sync(root)
            return cls(run_id, root / run_id)

    @classmethod
    def at(cls, root: str | Path, run_id: str) -> Self:
        """Return an existing run by its id; :class:`ConfigError` if there is none."""
        folder = Path(root) / checked_id(run_id)
        if folder.is_symlink() or not folder.is_dir():
            raise ConfigError(f"{folder}: no such run; list_runs() names the runs in {root}")
        return cls(run_id, folder)

    def path(self, name: str) -> Path:
        """Return where a file of this run belongs, for example ``path("plots/fitness.png")``.

        The subfolder is made, the file is not.

        Raises
        ------
        ConfigError
            If a part is not a safe name, a link leads out of the run, the run's folder is gone, or the
            subfolder cannot be made.
        """
        for part in name.split("/"):
            checked_id(part, f"part of the file name {name!r},")
        target = self.folder / name
        if not self.folder.is_dir():  # do not make it anew: the rest of the run would be missing in it
            raise ConfigError(f"{self.folder}: the folder of this run has disappeared; start a new run")
        with _explained(target.parent, "made"):
            if not target.parent.resolve().is_relative_to(self.folder.resolve()):
                raise ConfigError(f"{target.parent}: leads out of the run {self.id}; remove that link")
            target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a draft path to a writer, and put the draft in place once it is whole and on the disk.

        ``with run.writing("plots/fitness.png") as draft: figure.savefig(draft)``. The draft has the
        file's suffix. If the writer fails, the draft is removed and the earlier file stays.

        Raises
        ------
        ConfigError
            If the disk refuses.
        """
        target = self.path(name)
        draft = target.with_name(f".{secrets.token_hex(6)}-{target.name}")
        try:
            with _explained(target, "written"):
                yield draft
                sync(draft)
                os.replace(draft, target)
                sync(target.parent)
        except BaseException:
            with suppress(OSError):  # the failure above is the news, not a draft that will not go
                draft.unlink(missing_ok=True)
            raise

    def remove_drafts(self) -> int:
        """Remove what a killed process was writing when it was killed; return how many files.

        Call it when a run is taken up again, and never while another process may be writing in it.
        """
        found = self.folder.rglob(".*")
        drafts = [path for path in found if _DRAFT.fullmatch(path.name) and not path.is_dir()]
        with _explained(self.folder, "cleared of drafts"):
            for draft in drafts:
                draft.unlink(missing_ok=True)
        return len(drafts)

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file atomically; return its path."""
        with self.writing(name) as draft:
            draft.write_bytes(content)
        return self.folder / name

    def write_json(self, name: str, document: Any) -> Path:
        """Write plain objects (also NumPy scalars and arrays) as JSON, atomically; return the path.

        Raises
        ------
        ValueError
            If a number is NaN or infinite, which JSON does not have: write None.
        """
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
        return self.write_bytes(name, f"{text}\n".encode())

    def write_config(self, config: Config) -> Path:
        """Write the resolved config as ``config.yaml``, from which the run can be repeated."""
        with self.writing("config.yaml") as draft:
            dump(config, draft)
        return self.folder / "config.yaml"

    def write_manifest(
        self,
        data: Mapping[str, str] | None = None,
        seeds: Mapping[str, int] | None = None,
        parents: Sequence[str] = (),
        **further: Any,
    ) -> Path:
        """Write ``manifest.json``: what it takes to say where a result came from.

        Call it when the run starts and again when it ends; the last call stands.

        Parameters
        ----------
        data : mapping of str to str
            Fingerprint of each input, by name.
        seeds : mapping of str to int
            Root seed of each random component.
        parents : sequence of str
            Runs this one builds upon.
        further : Any
            More entries, for example ``rows={"train": [0, 900]}``: the rows a run has seen.
        """
        document = {
            "run": self.id,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(time.monotonic() - self.clock, 3),
            "code": code_version(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "libraries": library_versions(),
            "data": dict(data or {}),
            "seeds": dict(seeds or {}),
            "parents": [checked_id(parent, "parent run") for parent in parents],
        }
        taken = sorted(document.keys() & further.keys())
        if taken:
            raise ValueError(f"the manifest writes {', '.join(taken)} itself; choose another name")
        return self.write_json("manifest.json", document | further)

    def log(self, line: str) -> None:
        """Append one line, with the time in UTC, to ``log.txt``; control characters are written out."""
        text = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line
        )
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        target = self.path("log.txt")
        with _explained(target, "written"), target.open("ab") as file:
            file.write(f"{stamp} {text}\n".encode())


def list_runs(root: str | Path, command: str | None = None) -> list[Run]:
    """Return the runs in a folder (of one command), oldest first; none if the folder does not exist.

    Folders whose names are not run ids are left alone.
    """
    root = Path(root)
    found = [
        (time, again, name)
        for time, again, name in _stamped(root)
        if (command is None or name.startswith(f"{command}-")) and (root / name).is_dir()
    ]
    return [Run(name, root / name) for _, _, name in sorted(found)]


def _stamped(root: Path) -> list[tuple[str, int, str]]:
    # Second, number within it and id of everything in a folder that is named like a run.
    with _explained(root, "listed"):
        names = os.listdir(root) if root.exists() else []
    matches = [_STAMPED.fullmatch(name) for name in names if _ID.fullmatch(name)]
    return [(match["time"], int(match["again"] or 1), match.string) for match in matches if match]


def latest(root: str | Path, command: str | None = None) -> Run | None:
    """Return the youngest run in a folder (of one command), or None."""
    runs = list_runs(root, command)
    return runs[-1] if runs else None


def code_version() -> dict[str, str | None]:
    """Return which code runs.

    Returns
    -------
    dict
        ``version`` of the installed distribution (None if it is not installed); git ``commit`` of the
        checkout (None outside of one); ``sources``, the SHA-256 of the source files, because a commit
        does not tell of edits that were never committed.
    """
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = None
    return {"version": version, "commit": git_commit(_ROOT), "sources": _source_digest(_ROOT)}


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that can change a number."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # an extra that is not installed has no version
            found[name] = metadata.version(name)
    return found


def git_commit(root: Path) -> str | None:
    """Return the commit checked out in ``root``, read from its ``.git``; None if that cannot be told.

    Only ``root`` itself counts: an installed package inside somebody else's checkout has no commit.
    """
    try:
        git = root / ".git"
        if git.is_file():  # a worktree: the file names the folder
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        commit = _resolved(git, head.removeprefix("ref:").strip()) if head.startswith("ref:") else head
    except (OSError, UnicodeDecodeError):  # not a checkout, or a broken one: no reason to stop a run
        return None
    return commit if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit) else None


def _resolved(git: Path, ref: str) -> str:
    shared = git / "commondir"
    common = git / shared.read_text(encoding="utf-8").strip() if shared.is_file() else git
    for folder in (git, common):
        if (folder / ref).is_file():
            return (folder / ref).read_text(encoding="utf-8").strip()
    for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return commit
    return ""


def _source_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for pattern in ("*.py", "*.yaml", "*/*.py", "*/*.yaml"):
            for path in sorted((root / package).glob(pattern)):
                name = path.relative_to(root)
                if name.parts[:2] == ("experiments", "runs"):
                    continue  # results, not sources
                content = path.read_bytes()
                digest.update(f"{name.as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

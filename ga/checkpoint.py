"""``Checkpoints``: the state of a search on the disk, whole or not at all, generation by generation."""

import fcntl
import os
import re
import stat
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from configs.load import ConfigError
from ga.snapshot import MAX_BYTES, DamagedError, pack, unpack

_NAME = re.compile(r"generation-(\d{6,12})\.ckpt")
_DRAFT = ".draft-"


class Change(NamedTuple):
    """Something that was no longer the same when a run was resumed all the same.

    Parameters
    ----------
    generation : int
        From which the run went on.
    key : str
        What changed, a key of the identity.
    before, after : str
        Its values.
    """

    generation: int
    key: str
    before: str
    after: str


class Resumed(NamedTuple):
    """A state that was read back.

    Parameters
    ----------
    generation : int
    state : dict
        As it was saved, bit for bit; arrays are writable.
    notes : tuple of str
        What the user must be told: checkpoints that were passed over, with the reason, and changes.
    """

    generation: int
    state: dict[str, Any]
    notes: tuple[str, ...]


class Checkpoints:
    """The latest checkpoints of one run, in a folder of their own that one process uses at a time.

    A checkpoint is written to a draft, flushed to the disk, and renamed; then the folder is flushed. A
    process that is killed at any moment leaves the earlier checkpoints, and at worst a draft that the
    next one removes. The folder is locked until :meth:`close`, or until the process ends, however it does.
    ``ga.snapshot`` describes the files.

    Parameters
    ----------
    folder : Path
        Made if missing; not made again if it disappears later.
    identity : mapping of str to str
        What must be the same for a resumed run to go on bit for bit, for example digests of the config, the
        data and the code. Every entry counts.
    keep : int
        How many checkpoints are kept, at least 1.

    Raises
    ------
    ConfigError
        If the folder cannot be made or another process uses it.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, str], keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least one checkpoint must be kept")
        if not all(isinstance(text, str) for pair in identity.items() for text in pair):
            raise TypeError(f"identity is {dict(identity)!r}; it must map texts to texts")
        self.folder = Path(folder)
        self.identity = dict(identity)
        self.keep = keep
        self._changes: tuple[Change, ...] = ()
        with self._explained("used for checkpoints"):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Everything below goes through this descriptor: a folder that was deleted and made again by
            # somebody else is another folder.
            self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._close = weakref.finalize(self, os.close, self._descriptor)
            try:
                self._lock()
                self._remove_drafts()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process use the folder; nothing can be saved or loaded after it."""
        self._close()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What changed whenever this run was resumed by force, in earlier processes too."""
        return self._changes

    def generations(self) -> list[int]:
        """Return the generations there is a checkpoint of, intact or not, ascending."""
        with self._explained("listed"):
            matches = [_NAME.fullmatch(name) for name in os.listdir(self._descriptor)]
        found = {int(match[1]): match[0] for match in matches if match}
        return sorted(generation for generation, name in found.items() if name == _name(generation))

    def save(self, generation: int, state: Mapping[str, Any]) -> Path:
        """Put the state of one generation on the disk, then remove all but the last ``keep``.

        Checkpoints of later generations go too: they were damaged, or of another identity, when this run
        went on from an earlier one.

        Parameters
        ----------
        generation : int
            From 0 on.
        state : mapping
            What :func:`ga.snapshot.pack` takes.

        Raises
        ------
        ConfigError
            If the disk refuses, the folder has disappeared, or the state is too large; the earlier
            checkpoints are as they were.
        TypeError
            If the state holds what cannot be kept.
        """
        if not 0 <= generation < 10**12:
            raise ValueError(f"generation is {generation}; it must be 0 or more")
        name = _name(generation)
        head = {"generation": generation, "identity": self.identity, "changes": self._changes}
        parts = pack(head, state)
        draft = _DRAFT + name
        with self._explained("written", name):
            try:
                self._write(draft, parts)
                os.replace(draft, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
                os.fsync(self._descriptor)  # only now does the new name survive a power failure
            except BaseException:
                with suppress(OSError):  # the failure above is the news
                    os.unlink(draft, dir_fd=self._descriptor)
                raise
        saved = self.generations()
        kept = [one for one in saved if one <= generation][-self.keep :]
        self._remove([one for one in saved if one not in kept])
        return self.folder / name

    def load(self, force: Collection[str] = ()) -> Resumed:
        """Return the newest checkpoint that is intact and of this identity.

        A process that was killed after it had saved may have left one checkpoint too many; it goes now.

        Parameters
        ----------
        force : collection of str
            Keys of the identity that may differ. What differs is noted, and stays in :attr:`changes` and in
            every later checkpoint of the run.

        Raises
        ------
        ConfigError
            If there is no checkpoint, none is intact, or those that are have another identity: a search
            that went on with another config, other data or other code would end in a result that nobody
            can repeat.
        """
        generations = self.generations()
        if not generations:
            raise ConfigError(f"{self.folder}: there is no checkpoint to resume from; start the run anew")
        reasons, foreign = [], False
        for generation in reversed(generations):
            name = _name(generation)
            try:
                head, state = unpack(self._read(name))
                before, earlier = _checked_head(head, generation)
            except OSError as error:
                reasons.append(f"{name}: cannot be read ({_reason(error)})")
                continue
            except DamagedError as error:
                reasons.append(f"{name}: {error}")
                continue
            changes = _changes(generation, before, self.identity)
            refused = [change for change in changes if change.key not in force]
            if not refused:
                self._changes = (*earlier, *changes)
                self._remove([one for one in generations if one <= generation][: -self.keep])
                return Resumed(generation, state, self._notes(reasons, generation))
            reasons.append(f"{name}: {', '.join(map(_described, refused))}")
            foreign = True
        if not foreign:
            raise ConfigError(
                f"{self.folder}: no checkpoint is intact ({'; '.join(reasons)}); start the run anew"
            )
        raise ConfigError(
            f"{self.folder}: the run cannot go on bit for bit ({'; '.join(reasons)}); restore what has "
            f"changed (for code and libraries, --resume-changed goes on all the same and marks the run)"
        )

    def _remove(self, generations: Collection[int]) -> None:
        with self._explained("cleared of earlier checkpoints"):
            for one in generations:
                os.unlink(_name(one), dir_fd=self._descriptor)

    def _notes(self, reasons: list[str], generation: int) -> tuple[str, ...]:
        notes = [f"{reason}; passed over" for reason in reasons]
        if reasons:
            notes.append(f"falling back to the checkpoint of generation {generation}")
        for change in self._changes:
            notes.append(
                f"the run was changed when it went on from generation {change.generation}: "
                f"{_described(change)}"
            )
        return tuple(notes)

    def _write(self, name: str, parts: list[bytes | memoryview]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)
        descriptor = os.open(name, flags, 0o644, dir_fd=self._descriptor)
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> bytearray:
        # Without O_NONBLOCK a named pipe in the place of a checkpoint would wait for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._descriptor)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DamagedError("is not a file")
            if status.st_size > MAX_BYTES:
                raise DamagedError(f"has {status.st_size:,} bytes; the most is {MAX_BYTES:,}")
            content = bytearray(status.st_size)
            rest = memoryview(content)
            while rest:
                count = os.readv(descriptor, [rest])
                if not count:
                    raise DamagedError("was cut off while it was read")
                rest = rest[count:]
        finally:
            os.close(descriptor)
        return content

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{self.folder}: another process works on this run; wait for it to end, or end it"
            ) from error
        except OSError:  # a network file system without locks: no reason to refuse the run
            pass

    def _remove_drafts(self) -> None:
        for name in os.listdir(self._descriptor):
            if name.startswith(_DRAFT) and _NAME.fullmatch(name.removeprefix(_DRAFT)):
                os.unlink(name, dir_fd=self._descriptor)

    @contextmanager
    def _explained(self, action: str, name: str = "") -> Iterator[None]:
        place = self.folder / name
        try:
            yield
        except FileNotFoundError as error:
            raise ConfigError(
                f"{place}: cannot be {action} (the folder of checkpoints has disappeared); start a new run"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{place}: cannot be {action} ({_reason(error)}); the earlier checkpoints are untouched: "
                f"mend that and resume the run"
            ) from error


def _name(generation: int) -> str:
    return f"generation-{generation:06d}.ckpt"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _checked_head(head: dict[str, Any], generation: int) -> tuple[dict[str, str], tuple[Change, ...]]:
    # The checksum says that the head is as it was written, not who wrote it.
    try:
        number, identity = head["generation"], head["identity"]
        changes = tuple(Change(*change) for change in head["changes"])
        texts = [*identity, *identity.values(), *(text for one in changes for text in one[1:])]
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError("has a head that cannot be read") from error
    if not all(type(text) is str for text in texts) or not all(type(one[0]) is int for one in changes):
        raise DamagedError("has a head that cannot be read")
    if number != generation:
        raise DamagedError(f"holds generation {number!a}"[:60])
    return identity, changes


def _changes(generation: int, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    keys = sorted(before.keys() | after.keys())
    pairs = ((key, before.get(key, "none"), after.get(key, "none")) for key in keys)
    return [Change(generation, *pair) for pair in pairs if pair[1] != pair[2]]


def _described(change: Change) -> str:
    # What a file says is foreign text: digests are shortened, control characters written out.
    key, before, after = (ascii(text if len(text) <= 40 else text[:12])[1:-1] for text in change[1:])
    return f"{key} was {before} and is {after}"

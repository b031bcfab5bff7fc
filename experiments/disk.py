"""What files need beyond reading and writing: refusals in a sentence, a flush that lasts, a digest."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.load import ConfigError


@contextmanager
def explained(path: Path, action: str, advice: str = "") -> Iterator[None]:
    """Turn what the file system refuses into one sentence, a :class:`ConfigError`; the advice ends it."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: cannot be {action} ({reason}){advice}") from error


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk; a new name is there for good once its folder is flushed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

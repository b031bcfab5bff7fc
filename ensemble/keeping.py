"""A folder of many parts that is written whole, and read only if every file is the one that was written."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.disk import file_digest
from market.saved import read_saved, write_saved
from market.table import DataError


def sealed(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a document with the SHA-256 of every file below a folder, and with its own.

    Parameters
    ----------
    document : mapping
        Plain objects.
    folder : Path
        Its files are named in the order of their paths, so that the same content has the same digest.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    whole = {**document, "files": {path: file_digest(folder / path) for path in paths}}
    return {**whole, "digest": _digest(whole)}


def write_whole(
    folder: Path, name: str, document: Mapping[str, Any], parts: Mapping[str, Callable[[Path], None]]
) -> None:
    """Write parts into sub-folders, and a document that seals them; what was there before is replaced.

    A reader finds the old folder or the new one (or, between two renamings, none), never a mixture.

    Parameters
    ----------
    folder : Path
    name : str
        Of the document's file.
    document : mapping
    parts : mapping of str to callable
        What writes each sub-folder it is given.

    Raises
    ------
    DataError
        If the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / name).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise DataError(
            f"{folder}: holds something else than {name}; what is saved takes a folder of its own"
        )
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    replaced = folder.with_name(f"{folder.name}.replaced")
    try:
        for old in (unfinished, replaced):
            shutil.rmtree(old, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for place, write in parts.items():
            write(unfinished / place)
        write_saved(unfinished / name, sealed(document, unfinished))
        _exchange(unfinished, folder, replaced)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_whole(folder: Path, name: str, what: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a folder after every file has been held against its digest.

    Parameters
    ----------
    folder : Path
    name : str
        Of the document's file.
    what : str
        What it holds, for messages.
    types : mapping of str to type
        The entries it must have.

    Raises
    ------
    DataError
        With the file that is missing or is not what was saved.
    """
    folder = Path(folder)
    path = folder / name
    document = read_saved(path, what, {"files": dict, "digest": str, **types})
    if _digest({key: value for key, value in document.items() if key != "digest"}) != document["digest"]:
        raise DataError(f"{path}: is not what was saved; its content does not have the digest it names")
    for file, digest in document["files"].items():
        part = PurePosixPath(file)
        if part.is_absolute() or ".." in part.parts:
            raise DataError(f"{path}: names the file {file}, which lies elsewhere")
        if not (folder / part).is_file():
            raise DataError(f"{folder / part}: is missing; {name} belongs to it")
        try:
            same = file_digest(folder / part) == digest
        except OSError as error:
            raise DataError(f"{folder / part}: cannot be read ({error})") from error
        if not same:
            raise DataError(f"{folder / part}: is not the file that was saved with {name}")
    return document


def _exchange(new: Path, folder: Path, old: Path) -> None:
    if not folder.exists():
        os.replace(new, folder)
        return
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()

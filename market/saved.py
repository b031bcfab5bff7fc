"""Fitted things on disk: JSON that is written whole and read with suspicion."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from market.table import DataError

MAX_BYTES = 10_000_000


def write_saved(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON; floats are written so that they read back to the same bits.

    A reader finds the old file or the new one, never half of one.

    Raises
    ------
    ValueError
        If a number is NaN or infinite.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(unfinished, path)


def read_saved(path: Path, what: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document that has the entries it must have.

    Parameters
    ----------
    path : Path
    what : str
        What it holds, for messages: ``scaler``.
    types : mapping of str to type or tuple of type
        The entries it must have and what each must be.

    Raises
    ------
    DataError
        If the file is missing, too large, no JSON, or lacks an entry.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is larger than {MAX_BYTES} bytes; a saved {what} is not")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; save a fitted {what} there first") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), kind) for key, kind in types.items()
    ):
        raise DataError(f"{path}: is no saved {what}; it must have {', '.join(types)}")
    return document

"""Figures that are composed in full and not painted, for tests of whole commands.

Painting takes most of a short run, and no number comes of it. Every command keeps one test with real
pictures, and the figures have tests of their own.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

# One white pixel.
BLANK = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)


@contextmanager
def unpainted() -> Iterator[None]:
    """Save a blank picture wherever a figure is saved."""
    from matplotlib.figure import Figure

    def save(figure: Figure, file: str | Path | IO[bytes], **options: object) -> None:
        if hasattr(file, "write"):
            file.write(BLANK)
        else:
            Path(file).write_bytes(BLANK)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield

"""The bar of every long command: what it is at, how much is done, since when, and how long it still takes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: How the count is written: whole things, things and a part of one, or a share.
COUNT, PARTS, SHARE = (
    "{task.completed:,.0f}/{task.total:,.0f}",
    "{task.completed:.1f}/{task.total:,.0f}",
    "{task.percentage:3.0f} %",
)


@contextmanager
def progress_bar(
    console: Console, what: str, total: float, done: float = 0, written: str = COUNT
) -> Iterator[Callable[..., None]]:
    """Show a bar while the block runs; on a console that is no terminal nothing is shown.

    Parameters
    ----------
    console : Console
    what : str
        What is counted, shown until more is told.
    total, done : float
        How much there is, and how much of it was done before.
    written : str
        How the count is written: ``COUNT``, ``PARTS`` or ``SHARE``.

    Yields
    ------
    callable
        ``told(done, line, total=None)``: how much is done, and a line about it.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn(written),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(what, total=total, completed=done)

        def told(done: float, line: str, total: float | None = None) -> None:
            progress.update(bar, completed=done, description=line, total=total)

        yield told

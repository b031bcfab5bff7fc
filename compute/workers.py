"""Where work is spread: one small seam between "apply this function to these items" and the machine.

A mapper changes how fast an answer comes, never the answer: results keep the order of the items, and an
error raised by the function arrives unchanged. Another kind of mapper (a cluster of processes) is one more
class with the same three methods and one more branch in :func:`mapper`; it must pass the same tests.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self, TypeVar

I = TypeVar("I")  # noqa: E741 - the item
R = TypeVar("R")

MAPPER_NAMES = ("auto", "serial", "threads")


class Mapper(Protocol):
    """Maps a function over items; usable in a ``with`` statement, which closes it."""

    n_workers: int

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return ``[function(item) for item in items]``; the first item that fails raises its own error."""
        ...

    def close(self) -> None:
        """Release the workers; a closed mapper maps no more. Closing twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class SerialMapper:
    """Works in the caller's own thread, one item after the other."""

    n_workers = 1

    def __init__(self) -> None:
        self._closed = False

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return the results in the order of the items."""
        _check_open(self._closed)
        return [function(item) for item in items]

    def close(self) -> None:
        """Map no more."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ThreadMapper:
    """Works in threads of this process.

    Compiled kernels release the interpreter lock, so threads share the market arrays without copies and
    still use every core. The function must be safe to call from several threads at once.

    Parameters
    ----------
    n : int or None
        Number of threads; None takes one per core this process may use.
    """

    def __init__(self, n: int | None = None) -> None:
        self.n_workers = n_cores() if n is None else n
        if self.n_workers < 1:
            raise ValueError(f"number of workers is {n}; it must be at least 1")
        self._pool = ThreadPoolExecutor(self.n_workers, thread_name_prefix="mapper")
        self._closed = False

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return the results in the order of the items."""
        _check_open(self._closed)
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """Wait for running items, then release the threads."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def mapper(name: str = "auto", n: int | None = None) -> Mapper:
    """Return a mapper by name.

    Parameters
    ----------
    name : {"auto", "serial", "threads"}
        ``auto`` takes threads when there is more than one worker to use. On one machine threads are
        quicker than processes, because nothing is copied.
    n : int or None
        Number of workers; None takes one per usable core. ``serial`` always works alone.

    Raises
    ------
    ValueError
        If the name is unknown or ``n`` is below 1.
    """
    if n is not None and n < 1:
        raise ValueError(f"number of workers is {n}; it must be at least 1")
    if name == "auto":
        name = "threads" if (n_cores() if n is None else n) > 1 else "serial"
    if name == "serial":
        return SerialMapper()
    if name == "threads":
        return ThreadMapper(n)
    raise ValueError(f"no mapper named {name!r}; known: {', '.join(MAPPER_NAMES)}")


def n_cores() -> int:
    """Return the number of cores this process may use, which a container can make smaller than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_open(closed: bool) -> None:
    if closed:
        raise RuntimeError("map() was called on a closed mapper; open a new one with mapper()")

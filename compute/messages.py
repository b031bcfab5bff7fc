"""What travels between a caller and its worker processes, and what a worker process does with it.

Nothing here knows which system carries the messages; :mod:`compute.workers` does.
"""

import math
import os
import platform
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

#: A message costs about a millisecond of processor time, whatever it holds: it should hold this many genomes,
FEWEST_GENOMES = 25
#: and this much work in seconds, as far as that is known.
LEAST_WORK = 0.1
#: Most messages per worker and call: workers of unequal speed then share the work.
MESSAGES_PER_WORKER = 4
#: Functions a worker remembers; the one unused for longest goes first.
FUNCTIONS_HELD = 8


class Answer(NamedTuple):
    """What a worker sends back: results in the order of the items, up to the first item that failed."""

    results: list[Any]
    error: Exception | None
    seconds: float  # spent in the function


def grouped(items: Sequence[Any], n_workers: int, pace: float = math.inf) -> list[slice]:
    """Return which neighboring items travel in one message, in order.

    Arrays are rows of genomes, and small ones travel together: a message holds at least
    ``FEWEST_GENOMES`` of them where there are that many. Anything else may be work for minutes and travels
    alone.

    Parameters
    ----------
    items : sequence
    n_workers : int
        Among how many workers the messages are shared out.
    pace : float
        Seconds per genome; quick work is cut into fewer messages.
    """
    rows = [len(item) if isinstance(item, np.ndarray) and item.ndim else None for item in items]
    total = sum(row for row in rows if row is not None)
    share = -(-total // n_workers)
    cuts = min(MESSAGES_PER_WORKER, max(1.0, share * pace / LEAST_WORK)) if share else 1
    enough = max(FEWEST_GENOMES, math.ceil(share / int(cuts)))
    groups: list[slice] = []
    start = weight = 0
    for i, row in enumerate(rows):
        if row is None:
            if start < i:
                groups.append(slice(start, i))
            groups.append(slice(i, i + 1))
            start, weight = i + 1, 0
            continue
        weight += row
        if weight >= enough:
            groups.append(slice(start, i + 1))
            start, weight = i + 1, 0
    if start < len(rows):
        groups.append(slice(start, len(rows)))
        if weight < FEWEST_GENOMES and len(groups) > 1 and rows[start - 1] is not None:
            last = groups.pop()  # too few for a message of their own
            groups[-1] = slice(groups[-1].start, last.stop)
    return groups


def installation() -> dict[str, str]:
    """Return what the bits of a result depend on; a worker must equal its caller in all of it."""
    import numba

    from compute.kernels import cache_folder

    try:
        version = metadata.version("regime-conductor")
    except metadata.PackageNotFoundError:  # run from a checkout
        version = "not installed"
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "regime-conductor": version,
        "NumPy": np.__version__,
        "Numba": numba.__version__,
        "kernel sources": cache_folder().name,
    }


class Worker:
    """One worker process: holds functions with their data and applies them to the items that arrive.

    Parameters
    ----------
    dumps, loads : callable
        Object to bytes and back. Messages are bytes, so that arrays arrive writable, as from a thread.
    """

    def __init__(self, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
        _one_thread()
        self._dumps = dumps
        self._loads = loads
        self._functions: OrderedDict[int, Callable[[Any], Any]] = OrderedDict()

    def hello(self) -> tuple[int, dict[str, str]]:
        """Return the process number and :func:`installation`."""
        return os.getpid(), installation()

    def run(self, key: int, function: Callable[[Any], Any] | None, message: bytes) -> bytes:
        """Return a packed :class:`Answer` to packed items; ``function`` is None where its key is known."""
        if function is not None:
            self._functions[key] = function
            while len(self._functions) > FUNCTIONS_HELD:
                self._functions.popitem(last=False)
        self._functions.move_to_end(key)
        function, results = self._functions[key], []
        items, began = self._loads(message), time.perf_counter()
        for item in items:
            try:
                results.append(function(item))
            except Exception as error:
                return self._dumps(Answer(results, self._portable(error), time.perf_counter() - began))
        return self._dumps(Answer(results, None, time.perf_counter() - began))

    def publish(
        self, publish: Callable[[dict[str, float], str], None], gauges: dict[str, float], run: str
    ) -> None:
        """Publish gauges from this process."""
        publish(gauges, run)

    def _portable(self, error: Exception) -> Exception:
        # An error keeps its type; one that cannot travel is told by its name.
        told = "".join(traceback.format_exception(error))
        try:
            error.add_note(f"In a worker process:\n{told}")
            copy = self._loads(self._dumps(error))
            if type(copy).__qualname__ == type(error).__qualname__:
                return error
        except Exception:  # noqa: S110 - a constructor of its own, an open file among its arguments, ...
            pass
        return RuntimeError(f"a worker process failed with {type(error).__qualname__}: {error}\n{told}")


def _one_thread() -> None:
    # There is one worker per core already. The variable is for a Numba not yet imported.
    os.environ["NUMBA_NUM_THREADS"] = "1"
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(1)

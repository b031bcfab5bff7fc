"""Where work is spread: one small seam between "apply this function to these items" and the machine.

A mapper changes how fast an answer comes, never the answer: results keep the order of the items, and an
error raised by the function arrives unchanged. This is the only module that imports Ray, and only when a
mapper named ``ray`` is asked for.
"""

import math
import os
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import MethodType, ModuleType, TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from compute.cluster_connection import ClusterError, Connection, WorkersError, first_line
from compute.messages import FUNCTIONS_HELD, Answer, Worker, grouped, installation

I = TypeVar("I")  # noqa: E741 - the item
R = TypeVar("R")

MAPPER_NAMES = ("auto", "serial", "threads", "ray")
#: Before it, anybody who reached the dashboard could run code.
OLDEST_RAY = (2, 52)
#: Prefix of every published gauge; Ray puts its own ``ray_`` before it.
GAUGE_PREFIX = "regime_conductor_"
#: How often one message may be lost with its worker before the work itself is suspected.
MAX_LOSSES = 4
#: Messages a worker has at once: the next one waits there while the first is worked on.
DEPTH = 2
#: How long no worker at all may be available; a cluster that grows on demand needs minutes.
START_SECONDS = 300.0
#: How often a waiting mapper looks whether its Ray still lives.
WATCH_SECONDS = 1.0


def n_cores() -> int:
    """Return the number of cores this process may use, which a container can make smaller than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Mapper(Protocol):
    """Maps a function over items; usable in a ``with`` statement, which closes it.

    Attributes
    ----------
    n_workers : int
        How many items can be worked on at once.
    dashboard_url, metrics_url : str or None
        Pages to watch the workers on, and their gauges as Prometheus text.
    dashboard_hint : str or None
        How to open the dashboard, one sentence to print.
    """

    n_workers: int
    dashboard_url: str | None
    metrics_url: str | None
    dashboard_hint: str | None

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return ``[function(item) for item in items]``; the first item that fails raises its own error."""
        ...

    def publish(self, gauges: Mapping[str, float], *, run: str = "") -> None:
        """Show named numbers to whoever watches, labeled with the run; nothing where nobody can."""
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


class _Mapper:
    """What all mappers share: they can be closed, and most of them cannot be watched."""

    dashboard_url: str | None = None
    metrics_url: str | None = None
    dashboard_hint: str | None = None
    _closed = False

    def publish(self, gauges: Mapping[str, float], *, run: str = "") -> None:
        """Do nothing: there is nobody to show gauges to."""

    def close(self) -> None:
        """Map no more."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("map() was called on a closed mapper; open a new one with mapper()")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SerialMapper(_Mapper):
    """Works in the caller's own thread, one item after the other."""

    n_workers = 1

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return the results in the order of the items."""
        self._check_open()
        return [function(item) for item in items]


class ThreadMapper(_Mapper):
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
        _check_number(self.n_workers)
        self._pool = ThreadPoolExecutor(self.n_workers, thread_name_prefix="mapper")

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return the results in the order of the items."""
        self._check_open()
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """Wait for running items, then release the threads."""
        super().close()
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Actor:
    """The caller's view of one worker process."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.hello = handle.hello.remote()
        self.ready = False
        self.held: OrderedDict[int, None] = OrderedDict()  # keys of functions, as the worker remembers them
        self.load = 0  # messages under way


class RayMapper(_Mapper):
    """Works in Ray actors, on this machine or on a cluster.

    Each actor is one process with one thread. A function travels to an actor once, with all its data, and
    is recognised by identity afterwards: it must not change once it has been mapped. The arrays it holds
    lie in shared memory, once per machine, and are read-only. Small arrays among the items travel together,
    see :func:`compute.messages.grouped`.

    An actor that dies is replaced and its unfinished messages are worked on again; nobody sees a result
    twice. When Ray itself dies, :class:`ClusterError` says so.

    A Ray that this process has already started is used, and not shut down. Otherwise one is started for
    this machine alone: it listens on loopback only, demands its token, and reports no usage.

    Parameters
    ----------
    n : int or None
        Number of actors; None takes one per core of this machine, or per CPU of the cluster.
    address : str or None
        A running cluster, ``"host:6379"``, ``"ray://host:10001"`` or ``"auto"``; None starts a local Ray.
    dashboard : bool
        Whether the local Ray serves its dashboard; on a named cluster that is not ours to decide.

    Attributes
    ----------
    replaced : int
        Workers that were lost and replaced so far.
    sent_bytes, messages : int
        What has traveled to the workers so far, functions not counted.

    Raises
    ------
    WorkersError
        If Ray is missing or too old, or the cluster cannot be reached.
    ClusterError
        If Ray does not start.
    """

    def __init__(self, n: int | None = None, *, address: str | None = None, dashboard: bool = False) -> None:
        if n is not None:
            _check_number(n)
        self.replaced = self.messages = self.sent_bytes = 0
        self._lock = threading.Lock()
        self._functions: OrderedDict[object, tuple[int, Any, Any]] = OrderedDict()
        self._last_key = self._failed_starts = 0
        self._gauges: dict[str, Any] = {}
        self._pace: dict[int, float] = {}  # seconds per genome, by the function's key
        self._actors: list[_Actor] = []
        self._ray = _import_ray(local=address is None)
        self._connection = Connection.join(self._ray, n or n_cores(), address, dashboard)
        try:
            self.n_workers = n or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            self.dashboard_url = self._connection.dashboard_url
            self.metrics_url = self._connection.metrics_url
            # The events of each task cost a third of a message.
            options = {"num_cpus": 1, "max_restarts": 0, "enable_task_events": False}
            self._Actor = self._ray.remote(scheduling_strategy="SPREAD", **options)(Worker)
            self._actors = [self._start() for _ in range(self.n_workers)]
            self._await_workers()
        except BaseException:
            self.close()
            raise

    @property
    def dashboard_hint(self) -> str | None:  # type: ignore[override]
        """How to open the dashboard, one sentence; None without one."""
        if self.dashboard_url is None:
            return None
        if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
            return f"Ray dashboard: {self.dashboard_url}"
        return f"Ray dashboard: {self.dashboard_url} (it asks for the token that `ray get-auth-token` prints)"

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> list[R]:
        """Return the results in the order of the items.

        Raises
        ------
        WorkersError
            If the function or an item cannot be sent to another process.
        ClusterError
            If Ray died, its object store is full, or a worker died on the same work again and again.
        """
        self._check_open()
        items = list(items)
        with self._lock:
            return self._map(function, items) if items else []

    def publish(self, gauges: Mapping[str, float], *, run: str = "") -> None:
        """Publish gauges, name to value, that Prometheus finds at ``metrics_url`` some seconds later.

        Ray names them ``ray_regime_conductor_<name>`` and labels them with the run.
        """
        if self._closed:
            return
        wrong = [name for name in gauges if not re.fullmatch("[a-z][a-z0-9_]*", name)]
        if wrong:
            raise ValueError(f"gauge {wrong[0]!r} must be named by lower-case letters, digits and _")
        values = {name: float(value) for name, value in gauges.items()}
        if self._connection.remote:  # this process belongs to no node, so an actor speaks for it
            self._actors[0].handle.publish.remote(_publish, values, run)
        else:
            _publish(values, run, self._gauges)

    def close(self) -> None:
        """Release the actors, and Ray where this mapper was the last to use one that it started."""
        if self._closed:
            return
        super().close()
        self._functions.clear()
        self._connection.leave([actor.handle for actor in self._actors])
        self._actors.clear()

    def _map(self, function: Callable[[I], R], items: list[I]) -> list[R]:
        self._connection.check()
        key, held, reference = self._hold(function)
        groups = grouped(items, self.n_workers, self._pace.get(key, math.inf))
        packed = [self._pack(items[group]) for group in groups]
        answers: list[Answer | None] = [None] * len(groups)
        losses = [0] * len(groups)
        waiting = deque(range(len(groups)))
        flying: dict[Any, tuple[_Actor, int]] = {}
        n_needed = len(groups)  # up to and with the first message that holds an error

        while any(answer is None for answer in answers[:n_needed]):
            for actor, index in self._assign(waiting):
                known = key in actor.held
                actor.held[key] = None
                actor.held.move_to_end(key)
                if len(actor.held) > FUNCTIONS_HELD:
                    actor.held.popitem(last=False)
                sent = actor.handle.run.remote(key, None if known else reference, packed[index])
                flying[sent] = actor, index
                self.messages += 1
                self.sent_bytes += len(packed[index])
            # With nothing left to send there is no need to wake up for each answer.
            for done in self._wait(list(flying), 1 if waiting else len(flying)):
                actor, index = flying.pop(done)
                actor.load -= 1
                answer = self._receive(done, held)
                if answer is None:
                    losses[index] += 1
                    self._replace(actor)
                    if losses[index] > MAX_LOSSES:
                        raise ClusterError(
                            f"{losses[index]} workers died one after the other on the same work, perhaps for "
                            "want of memory; with fewer workers the run can be resumed"
                        )
                    if index < n_needed:
                        waiting.appendleft(index)
                    continue
                answers[index] = answer
                if answer.error is not None:
                    n_needed = min(n_needed, index + 1)
                    waiting = deque(i for i in waiting if i < n_needed)
        genomes = sum(len(item) for item in items if isinstance(item, np.ndarray) and item.ndim)
        if genomes and n_needed == len(groups):
            self._pace[key] = sum(answer.seconds for answer in answers) / genomes
        found: list[R] = []
        for answer in answers[:n_needed]:
            found += answer.results
            if answer.error is not None:
                raise answer.error
        return found

    def _hold(self, function: Callable[[I], R]) -> tuple[int, Any, Any]:
        # The mapper keeps the function alive, so that its identity is never given to another one.
        identity = (
            (id(function.__self__), id(function.__func__))
            if isinstance(function, MethodType)
            else id(function)
        )
        if identity not in self._functions:
            self._last_key += 1
            reference = self._put(function)
            self._functions[identity] = self._last_key, function, reference
            if len(self._functions) > FUNCTIONS_HELD:
                _, (dropped, _, _) = self._functions.popitem(last=False)
                self._pace.pop(dropped, None)
        self._functions.move_to_end(identity)
        return self._functions[identity]

    def _put(self, function: Callable[[I], R]) -> Any:
        try:
            return self._ray.put(function)
        except self._ray.exceptions.RayError as error:
            raise self._full(error) from error
        except Exception as error:
            raise _unsendable(f"the function {_name(function)}", error) from error

    def _pack(self, items: list[I]) -> bytes:
        try:
            return self._ray.cloudpickle.dumps(items)
        except Exception as error:
            raise _unsendable("an item", error) from error

    def _assign(self, waiting: deque[int]) -> Iterator[tuple[_Actor, int]]:
        # Every worker gets a first message before any gets a second one.
        for depth in range(1, DEPTH + 1):
            for actor in self._actors:
                if waiting and actor.ready and actor.load < depth:
                    actor.load += 1
                    yield actor, waiting.popleft()

    def _wait(self, flying: list[Any], n: int = 1) -> list[Any]:
        """Return messages that have been answered or lost; welcome workers that have started meanwhile."""
        began = time.monotonic()
        while True:
            hellos = {actor.hello: actor for actor in self._actors if not actor.ready}
            done, _ = self._ray.wait([*flying, *hellos], num_returns=max(1, n), timeout=WATCH_SECONDS)
            welcome = [reference for reference in done if reference in hellos]
            for reference in welcome:
                self._welcome(hellos[reference])
            if done:
                return [reference for reference in done if reference not in hellos]
            self._connection.check()
            if not flying and time.monotonic() - began > START_SECONDS:
                raise ClusterError(
                    f"Ray made none of {self.n_workers} workers ready within {START_SECONDS:.0f} s; does the "
                    "cluster have a free CPU?"
                )

    def _receive(self, reference: Any, function: Callable[[I], R]) -> Answer | None:
        # None: lost with its worker.
        try:
            return self._ray.cloudpickle.loads(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, self._ray.exceptions.RayError):
                raise self._full(error.cause) from error
            raise WorkersError(
                f"a worker process could not take {_name(function)} or return its result: "
                f"{first_line(error.cause)}"
            ) from error
        except (self._ray.exceptions.ObjectStoreFullError, self._ray.exceptions.OutOfDiskError) as error:
            raise self._full(error) from error
        except self._ray.exceptions.RayError:
            return None

    def _start(self) -> _Actor:
        pickle = self._ray.cloudpickle
        return _Actor(self._Actor.remote(pickle.dumps, pickle.loads))

    def _await_workers(self) -> None:
        # On this machine there is a CPU for each; a cluster may have to grow first, and one is a beginning.
        enough = self.n_workers if self._connection.started and self._connection.users == 1 else 1
        while sum(actor.ready for actor in self._actors) < enough:
            self._wait([])

    def _welcome(self, actor: _Actor) -> None:
        try:
            process, found = self._ray.get(actor.hello)
        except self._ray.exceptions.RayError as error:
            self._replace(actor)
            self._failed_starts += 1
            if self._failed_starts > MAX_LOSSES:
                raise ClusterError(f"Ray's workers do not start: {first_line(error)}") from error
            return
        self._connection.note(process)
        for name, ours in installation().items():
            if found.get(name) != ours:
                raise WorkersError(
                    f"a worker of the cluster has another {name} ({found.get(name)}) than this machine "
                    f"({ours}), so results could differ; install the same on every node"
                )
        actor.ready = True
        self._failed_starts = 0

    def _replace(self, actor: _Actor) -> None:
        if actor in self._actors:  # its other messages may have been lost before
            self._actors.remove(actor)
            with suppress(Exception):  # dead already, most of the time
                self._ray.kill(actor.handle)
            self._connection.check(thoroughly=True)
            self._actors.append(self._start())
            self.replaced += 1

    def _full(self, error: Exception) -> ClusterError:
        return ClusterError(
            f"Ray's object store cannot take more ({first_line(error)}); free memory or take fewer workers, "
            "then resume the run"
        )


def mapper(
    name: str = "auto", n: int | None = None, *, address: str | None = None, dashboard: bool = False
) -> Mapper:
    """Return a mapper by name.

    Parameters
    ----------
    name : {"auto", "serial", "threads", "ray"}
        ``auto`` takes threads when there is more than one worker to use. On one machine threads are
        quicker than processes, because nothing is copied.
    n : int or None
        Number of workers; None takes one per usable core. ``serial`` always works alone.
    address : str or None
        For ``ray``: a running cluster instead of a local Ray.
    dashboard : bool
        For ``ray``: whether a local Ray serves its dashboard.

    Raises
    ------
    ValueError
        If the name is unknown or ``n`` is below 1.
    WorkersError
        If Ray is asked for and missing, or another mapper is asked for what only Ray has.
    ClusterError
        If Ray does not start.
    """
    if n is not None:
        _check_number(n)
    if name == "ray":
        return RayMapper(n, address=address, dashboard=dashboard)
    if name in MAPPER_NAMES and (dashboard or address is not None):
        what = "a dashboard" if dashboard else "a cluster's address"
        raise WorkersError(f"{what} needs workers 'ray', not {name!r}")
    if name == "auto":
        name = "threads" if (n_cores() if n is None else n) > 1 else "serial"
    if name == "serial":
        return SerialMapper()
    if name == "threads":
        return ThreadMapper(n)
    raise ValueError(f"no mapper named {name!r}; known: {', '.join(MAPPER_NAMES)}")


def _check_number(n: int) -> None:
    if n < 1:
        raise ValueError(f"number of workers is {n}; it must be at least 1")


def _import_ray(local: bool) -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Otherwise a library that announces a change of its own warns at every actor.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    late = "ray" in sys.modules  # it has read its variables
    set_token = local and "RAY_AUTH_MODE" not in os.environ
    if set_token:
        os.environ["RAY_AUTH_MODE"] = "token"
    if not local:  # one attempt to connect is 40 s; Ray makes twenty
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    try:
        import ray
        import ray.util.client
        import ray.util.metrics
    except ImportError as error:
        raise WorkersError(
            "workers 'ray' need the package ray; pip install 'regime-conductor[cluster]'"
        ) from error
    found = tuple(int(part) for part in re.findall(r"\d+", ray.__version__)[:2])
    if found < OLDEST_RAY:
        oldest = ".".join(map(str, OLDEST_RAY))
        raise WorkersError(
            f"Ray {ray.__version__} is older than {oldest}, the first whose dashboard a web page cannot "
            "misuse; pip install 'regime-conductor[cluster]'"
        )
    if late and set_token:
        ray._raylet.Config.initialize("")  # as Ray does when it turns the token on by itself
    return ray


def _publish(gauges: dict[str, float], run: str, known: dict[str, Any] | None = None) -> None:
    from ray.util.metrics import Gauge

    known = _GAUGES if known is None else known
    for name, value in gauges.items():
        if name not in known:
            known[name] = Gauge(GAUGE_PREFIX + name, description=name.replace("_", " "), tag_keys=("run",))
        if math.isfinite(value):
            known[name].set(value, {"run": run})


_GAUGES: dict[str, Any] = {}  # of a worker process that publishes for a caller outside the cluster


def _unsendable(what: str, error: Exception) -> WorkersError:
    return WorkersError(
        f"{what} cannot be sent to Ray's workers ({first_line(error)}); it must be picklable: no locks, open "
        "files, threads or generators"
    )


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)

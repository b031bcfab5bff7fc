"""The tie between this process and Ray: started, joined, watched, and left without a trace.

Ray itself is handed in by :mod:`compute.workers`, the only module that imports it.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

_NAMESPACE = "regime-conductor"
_LOOPBACK = "127.0.0.1"
# Off, it makes Ray a system of this machine alone, as it is on macOS: then nothing listens but on loopback.
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_GAUGE_MS = 2_000  # how often gauges reach the metrics endpoint; Ray's own 10 s is long beside a generation


class WorkersError(ValueError):
    """Workers cannot be had as asked for, which the user can mend; the message says how.

    A command reports it like a wrong option: ``format_message`` is what tells those apart.
    """

    def format_message(self) -> str:
        """Return the sentence for the user."""
        return str(self)


class ClusterError(OSError):
    """Ray broke down in mid-run: an error of the machine, after which a run can be resumed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(errno.EIO, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


class Connection:
    """The tie between one process and Ray, shared by all its mappers: there can be only one.

    Parameters
    ----------
    ray : module
    started : bool
        Whether this module has started the Ray, for this process and on loopback.
    joined : bool
        Whether this module has connected, so that it disconnects when the last mapper leaves.
    """

    _ours: ClassVar["Connection | None"] = None  # the tie that this module has made

    def __init__(self, ray: ModuleType, *, started: bool, joined: bool) -> None:
        self.started, self.joined, self.users = started, joined, 0
        self.remote = ray.util.client.ray.is_connected()  # through ray://: this process belongs to no node
        self.dashboard_url = self.metrics_url = None
        self._ray = ray
        self._died = False
        self._processes: dict[int, Any] = {}  # psutil's, by number, of the Ray that this module has started
        with suppress(Exception):  # an old or a foreign cluster need not tell
            dashboard = ray._private.worker.get_dashboard_url()
            self.dashboard_url = f"http://{dashboard}" if dashboard else None
        if not self.remote:
            here = ray.get_runtime_context().get_node_id()
            for node in ray.nodes():
                if node["NodeID"] == here:
                    self.node_address = node["NodeManagerAddress"]
                    host = f"[{self.node_address}]" if ":" in self.node_address else self.node_address
                    self.metrics_url = f"http://{host}:{node['MetricsExportPort']}/metrics"
        if started:
            self._note_children()

    @classmethod
    def join(cls, ray: ModuleType, n: int, address: str | None, dashboard: bool) -> Self:
        """Return the connection there is, or make one; the caller must :meth:`leave` it."""
        if not ray.is_initialized():
            cls._ours = None  # somebody else has shut it down
            try:
                cls._ours = cls._local(ray, n, dashboard) if address is None else cls._named(ray, address)
            except BaseException:
                ray.shutdown()
                raise
        connection = cls._ours or cls(ray, started=False, joined=False)
        connection.users += 1
        return connection

    @classmethod
    def _local(cls, ray: ModuleType, n: int, dashboard: bool) -> Self:
        try:
            with _loopback(ray):
                ray.init(
                    address="local",
                    num_cpus=n,
                    include_dashboard=dashboard,
                    dashboard_host=_LOOPBACK,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    namespace=_NAMESPACE,
                    _system_config={"metrics_report_interval_ms": _GAUGE_MS},
                )
        except Exception as error:
            raise ClusterError(f"Ray did not start on this machine: {first_line(error)}") from error
        connection = cls(ray, started=True, joined=True)
        _guard_token()
        if not connection.node_address.startswith("127."):
            raise ClusterError(
                f"Ray {ray.__version__} would listen on {connection.node_address}, not only on loopback, so "
                "it was shut down; take another version of Ray, or name a cluster"
            )
        return connection

    @classmethod
    def _named(cls, ray: ModuleType, address: str) -> Self:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace=_NAMESPACE)
        except Exception as error:
            raise WorkersError(
                f"no Ray cluster answers at {address!r} ({first_line(error)}); `ray start --head` prints the "
                "address, and with a token RAY_AUTH_MODE=token must be set on both sides"
            ) from error
        return cls(ray, started=False, joined=True)

    def note(self, process: int) -> None:
        """Remember a worker's process number, to see to it that it ends."""
        if self.started and process not in self._processes:
            import psutil  # comes with Ray

            with suppress(psutil.Error):
                self._processes[process] = psutil.Process(process)

    def check(self, thoroughly: bool = False) -> None:
        """Raise ClusterError if Ray has died; ``thoroughly`` asks the cluster, which can take seconds."""
        node = self._ray._private.worker._global_node if self.started else None
        if node is not None:
            dead = {kind for kind, _ in node.dead_processes()} & {"gcs_server", "raylet"}
            if dead:
                self._died = True
                raise ClusterError(
                    f"Ray's process {' and '.join(sorted(dead))} has died (see {node.get_logs_dir_path()}); "
                    "the run can be resumed"
                )
        if thoroughly:
            try:
                alive = any(found["Alive"] for found in self._ray.nodes())
            except Exception:  # whatever it is, the cluster does not answer
                alive = False
            if not alive:
                raise ClusterError("the Ray cluster does not answer any more; the run can be resumed")

    def leave(self, handles: list[Any]) -> None:
        """Release actors; disconnect, or shut down, with the last mapper."""
        self.users -= 1
        if self.joined and self.users == 0:
            type(self)._ours = None
            self._shut_down()
            return
        for handle in handles:
            with suppress(Exception):  # a dead one is released already
                self._ray.kill(handle)

    def _shut_down(self) -> None:
        if not self.started:
            self._ray.shutdown()
            return
        import psutil  # comes with Ray

        self._note_children()
        folder = self._ray._private.worker._global_node.get_session_dir_path()
        try:
            self._ray.shutdown()
        finally:  # what survives it, for example because the process that should have ended it was killed
            _, left = psutil.wait_procs(list(self._processes.values()), timeout=3.0)
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=3.0)
        if not self._died:
            shutil.rmtree(folder, ignore_errors=True)  # megabytes of logs that nobody needs

    def _note_children(self) -> None:
        # Ray's own processes and theirs; this process may have other children.
        import psutil

        node = self._ray._private.worker._global_node
        for _, one in node.live_processes() if node is not None else ():
            with suppress(psutil.Error):
                started = psutil.Process(one.pid)
                for process in (started, *started.children(recursive=True)):
                    self._processes.setdefault(process.pid, process)


def first_line(error: BaseException | None) -> str:
    """Return what an error says in its first line; some of Ray's go on for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =-")]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")


@contextmanager
def _loopback(ray: ModuleType) -> Iterator[None]:
    # Its processes get the variable from the environment; this one has read it at import.
    constants = ray._private.ray_constants
    constant, variable = constants.ENABLE_RAY_CLUSTER, os.environ.get(_CLUSTERS)
    constants.ENABLE_RAY_CLUSTER, os.environ[_CLUSTERS] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = constant
        os.environ.pop(_CLUSTERS)
        if variable is not None:
            os.environ[_CLUSTERS] = variable


def _guard_token() -> None:
    # Ray writes the token readable for all users of the machine, who could then run code as this one.
    token = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)

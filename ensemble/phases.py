"""What each phase of a validation takes: seconds and memory, for the run's log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.runs import Run


@contextmanager
def phase(run: Run, name: str) -> Iterator[None]:
    """Log the seconds of what is done inside, and the most memory the process has had until then.

    Nothing is logged of a phase that fails.
    """
    began = time.perf_counter()
    yield
    peak = peak_bytes()
    memory = "" if peak is None else f", {peak / 1e9:.2f} GB at most so far"
    run.log(f"{name}: {time.perf_counter() - began:.1f} s{memory}")


def peak_bytes() -> int | None:
    """Return the largest resident memory this process has had; None where the system does not tell.

    Threads are part of it, worker processes of Ray are not.
    """
    try:
        # Linux hands ``ru_maxrss`` of a parent on to the child, where it stands for a peak of its own.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

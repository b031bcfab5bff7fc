"""Plants one bug at a time into a copy of the tree and lets the tests that are named for it look.

The copy keeps its place while bugs come and go, so that compiled kernels that no bug touches are compiled
once. A changed file gets a time stamp of its own: byte code and kernels are known by it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.house.tree import ROOT, everything
from tests.mutants.mutant import Mutant
from tests.mutants.witness import VARIABLE

#: A test failed by its own judgment, as it should.
KILLED = "killed"
#: All named tests passed.
SURVIVED = "SURVIVED"
#: The code stopped working altogether, or did not end: that proves nothing.
BROKEN = "BROKEN"
#: A named test does not pass without the bug either.
UNSOUND = "UNSOUND"

PYTEST = (
    "-m", "pytest", "-q", "-n", "0", "--tb=no", "-p", "no:cacheprovider", "-p", "tests.mutants.witness",
    "--hypothesis-seed=0",
)  # fmt: skip
#: pytest's exit statuses: all passed, some failed; anything else is a breakdown.
ALL_PASSED, SOME_FAILED = 0, 1
SECONDS_PER_RUN = 600.0
# What an outer pytest, a coverage run or a debugging session would impose on the inner one.
FOREIGN = ("PYTEST_", "COV_", "COVERAGE_", "NUMBA_DISABLE_JIT", "PYTHONHOME")


@dataclass(frozen=True)
class Note:
    """How one test ended; ``judgment`` is True where it failed by its own judgment, None where not at all."""

    test: str
    judgment: bool | None
    said: str


@dataclass(frozen=True)
class Session:
    """One run of pytest: its exit status (None: it did not end), what each test did, and its last words."""

    status: int | None
    notes: tuple[Note, ...]
    last: str


@dataclass(frozen=True)
class Verdict:
    """What became of a planted bug; ``said`` names the test that caught it, or why none counts."""

    mutant: Mutant
    outcome: str
    said: str
    seconds: float = 0.0


class Copy:
    """The tree's own files in a folder of their own, with caches of their own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._notes = folder / "notes.jsonl"
        self._changes = 0
        for path in everything():
            target = self.root / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self._environment = kept | {
            "PYTHONPATH": str(self.root),
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "NUMBA_CACHE_DIR": str(folder / "kernels"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
            VARIABLE: str(self._notes),
        }

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        """Have a bug in the copy for as long as the block lasts."""
        path = self.root / mutant.file
        source, stamp = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
        self._changes += 1
        path.write_text(mutant.plant(source), encoding="utf-8")
        # Byte code is told apart by whole seconds and kernels by any, so no two versions may share one.
        os.utime(path, ns=(stamp, stamp + self._changes * 1_000_000_000))
        try:
            yield
        finally:
            path.write_text(source, encoding="utf-8")
            os.utime(path, ns=(stamp, stamp))

    def test(self, tests: Iterable[str], *options: str, seconds: float = SECONDS_PER_RUN) -> Session:
        """Run tests by node id in the copy."""
        self._notes.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, *PYTEST, *options, *tests],
            cwd=self.root,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that what a test started can be ended with it
        )
        try:
            output, _ = process.communicate(timeout=seconds)
            status = process.returncode
        except subprocess.TimeoutExpired:
            output, status = f"no end after {seconds:g} s", None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        lines = self._notes.read_text(encoding="utf-8").splitlines() if self._notes.exists() else []
        said = [line for line in output.splitlines() if line.strip()]
        return Session(status, tuple(Note(**json.loads(line)) for line in lines), said[-1] if said else "")


def examine(mutants: Iterable[Mutant], workers: int = 1, folder: Path | None = None) -> Iterator[Verdict]:
    """Yield a verdict on each bug as it is reached.

    Every named test first runs on the sound tree, where all of them must pass.

    Parameters
    ----------
    mutants : iterable of Mutant
    workers : int
        Copies that work side by side, each with its own caches.
    folder : Path, optional
        Where the copies are made; a temporary folder by default.

    Raises
    ------
    RuntimeError
        If pytest cannot run the named tests on the sound tree at all.
    """
    mutants = list(mutants)
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
        copies: SimpleQueue[Copy] = SimpleQueue()
        first = Copy(folder / "0")
        unsound = _failing_without_bug(first, mutants)
        copies.put(first)
        for i in range(1, workers):
            copies.put(Copy(folder / str(i)))
        pool = stack.enter_context(ThreadPoolExecutor(workers))

        def examined(mutant: Mutant) -> Verdict:
            if mutant.name in unsound:
                return Verdict(mutant, UNSOUND, unsound[mutant.name])
            copy = copies.get()
            try:
                return verdict(copy, mutant)
            finally:
                copies.put(copy)

        yield from pool.map(examined, mutants)


def verdict(copy: Copy, mutant: Mutant) -> Verdict:
    """Return what the named tests say of a bug; the first that fails ends the run."""
    began = time.perf_counter()
    try:
        with copy.planted(mutant):
            outcome, said = judged(copy.test(mutant.tests, "-x"))
    except ValueError as error:  # the source has moved on
        outcome, said = BROKEN, str(error)
    return Verdict(mutant, outcome, said, time.perf_counter() - began)


def judged(session: Session) -> tuple[str, str]:
    """Return the outcome of a session with a bug, and the test that killed it or what went wrong."""
    failed = [note for note in session.notes if note.judgment is not None]
    if session.status == SOME_FAILED and failed and failed[0].judgment:
        return KILLED, failed[0].test
    if session.status == ALL_PASSED and not failed:
        return SURVIVED, f"{len(session.notes)} tests passed"
    return BROKEN, failed[0].said if failed else session.last


def _failing_without_bug(copy: Copy, mutants: list[Mutant]) -> dict[str, str]:
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    session = copy.test(tests, seconds=2 * SECONDS_PER_RUN)
    if session.status not in (ALL_PASSED, SOME_FAILED):
        raise RuntimeError(f"the sound tree cannot be tested: {session.last}")
    found = {}
    for mutant in mutants:
        for test in mutant.tests:
            notes = [note for note in session.notes if f"{note.test}[".startswith(f"{test}[")]
            wrong = [note for note in notes if note.said != "passed"]
            if wrong or not notes:
                said = f"without the bug: {wrong[0].said}" if wrong else "was not found"
                found.setdefault(mutant.name, f"{test} {said}")
    return found

"""Kill an evolution at random moments, resume it, and compare what it leaves with an undisturbed run.

    python -m benchmarks.kills [--kills 50] [--double 20] [--aimed 20] [--damage] [--seed 1]

Each trial is `python -m ga.evolve` in a process of its own that gets SIGKILL at a random moment between its
first checkpoint and its end, and is then taken up again with `--resume`. A double kill hits the resumed
process as well; an aimed one falls while a checkpoint is half written. The run must end with the same bytes
(champion, hall of fame, generations, predictions, report), must have lost at most one generation, and the
trial ledger must count every evaluation once. The exit status is 1 if one trial fails.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks import damage
from compute.seeds import stream
from ga.checkpoint import Checkpoints
from ga.snapshot import pack

GENERATIONS = 25
SETTINGS = (
    "--set", "market.synthetic.n_bars=6000",
    "--set", "detector={name: volatility}",
    "--set", "fitness={folds: 4, min_trades: 5}",
    "--set", f"hyperparameters={{population_size: 32, n_generations: {GENERATIONS}, patience: 0}}",
    "--threads", "1",
)  # fmt: skip
STATE = Path("checkpoints") / "state"
# What two undisturbed runs do not share either: names, times, and where the run lies.
PASSING = ("run", "wall_seconds")
PATIENCE_S = 280.0  # of a first run that compiles its kernels on a busy machine
_PRELOADED = ["__main__", "ga.evolve", "specialists.evolving", "backtest.figures", "ga.figures", __name__]


@dataclass(frozen=True)
class Kill:
    """One process that was killed.

    Parameters
    ----------
    generation : int
        The last one that it had told; -1 for none.
    draft : bool
        Whether it left a checkpoint half written.
    """

    generation: int
    draft: bool


@dataclass(frozen=True)
class Trial:
    """A run that was killed and resumed to its end.

    Parameters
    ----------
    kind : str
    kills : tuple of Kill
    lost : int
        Most generations that were bred again after a kill.
    differing : tuple of str
        What is not as in the undisturbed run.
    """

    kind: str
    kills: tuple[Kill, ...]
    lost: int
    differing: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs and at most one generation was lost per kill."""
        return not self.differing and self.lost <= 1


def evolve(arguments: Sequence[str], said: Path, told: Path) -> None:
    """Run the command in this process; note each generation when it has been told."""
    from ga import evolve, searching

    for stream_number in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream_number)
    notes = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    step = searching.Search.step

    def noting(search: searching.Search, *arguments: object) -> None:
        step(search, *arguments)
        os.write(notes, b"%d\n" % search.generation)

    searching.Search.step = noting
    evolve.main(list(arguments))


class Workplace:
    """A folder for one run with a ledger of its own, and the processes that work on it.

    Parameters
    ----------
    folder : Path
        Made here.
    settings : sequence of str
        Arguments of the command.
    target : callable
        What a process runs, with the parameters of :func:`evolve`.
    """

    def __init__(
        self, folder: Path, settings: Sequence[str] = SETTINGS, target: Callable[..., None] = evolve
    ) -> None:
        folder.mkdir(parents=True)
        self.runs = folder / "runs"
        self.told = folder / "told.txt"
        self.said = folder / "said.txt"
        self.settings = tuple(settings)
        self._target = target

    @property
    def run(self) -> Path | None:
        """The folder of the run, once there is one."""
        found = sorted(self.runs.glob("evolve-*"))
        if len(found) > 1:
            raise AssertionError(f"a resumed run must go on in its folder; there are {len(found)}")
        return found[0] if found else None

    @property
    def finished(self) -> bool:
        """Whether the run has its report, which is written last."""
        return self.run is not None and (self.run / "report.json").exists()

    def begin(self) -> multiprocessing.Process:
        """Start the command, or take up the run that is there."""
        run = self.run
        given = self.settings if run is None else ("--resume", run.name)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        arguments = ["--runs", str(self.runs), *given]
        process = context.Process(target=self._target, args=(arguments, self.said, self.told))
        process.start()
        return process

    def generations(self) -> list[int]:
        """Return the generations told so far, by all processes, in order."""
        return [int(line) for line in self.told.read_text().split()] if self.told.exists() else []

    def has_checkpoint(self) -> bool:
        """Whether a checkpoint is on the disk."""
        run = self.run
        return run is not None and any((run / STATE).glob("generation-*"))

    def drafts(self) -> bool:
        """Whether a checkpoint is being written."""
        run = self.run
        try:
            return run is not None and any(name.startswith(".draft") for name in os.listdir(run / STATE))
        except FileNotFoundError:
            return False


def kill_after(place: Workplace, generation: int | None, delay_s: float = 0.0) -> Kill | None:
    """Kill a new process of the run some time after it has told a generation, or after its start.

    Returns
    -------
    Kill or None
        None if the process had ended before.
    """
    process = place.begin()
    if generation is not None:
        _wait(process, lambda: max(place.generations(), default=-1) >= generation)
    process.join(delay_s)
    return _killed(place, process)


def kill_while_writing(place: Workplace, after: int) -> Kill | None:
    """Kill a new process of the run with a checkpoint half written, once it has told a generation.

    The process is stopped on sight of a draft, and killed if the draft is still there while it stands.
    """
    process = place.begin()
    while process.is_alive():
        if not place.drafts() or max(place.generations(), default=-1) < after:
            continue
        os.kill(process.pid, signal.SIGSTOP)
        _wait_until_stopped(process.pid)
        if place.drafts():
            return _killed(place, process)
        os.kill(process.pid, signal.SIGCONT)
    return _killed(place, process)


def ended(place: Workplace, process: multiprocessing.Process) -> None:
    """Wait for the end of a process; AssertionError with what the command said if it is not a good one."""
    process.join(PATIENCE_S)
    status = process.exitcode
    if status != 0:
        process.kill()
        said = place.said.read_text()[-2000:] if place.said.exists() else ""
        raise AssertionError(f"the command ended with {status}: {said}")


def _wait(process: multiprocessing.Process, ready: Callable[[], bool]) -> None:
    while process.is_alive() and not ready():
        time.sleep(0.0005)


def _wait_until_stopped(pid: int) -> None:
    if not os.path.isdir("/proc/self"):
        time.sleep(0.01)
        return
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state in "TtZX":
            return


def _killed(place: Workplace, process: multiprocessing.Process) -> Kill | None:
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    if process.exitcode != -signal.SIGKILL:
        ended(place, process)
        return None
    return Kill(max(place.generations(), default=-1), place.drafts())


def leavings(place: Workplace) -> dict[str, str]:
    """Return a digest of everything a run leaves that must not depend on how it was made.

    Returns
    -------
    dict of str to str
        By file; the report without ``PASSING``; what the ledger has counted.
    """
    from experiments.ledger import Ledger

    found = {}
    run = place.run
    name = run.name.encode()  # with the time it began; part of the origin of every genome
    for pattern in ("checkpoints/**/*.json", "metrics/*", "predictions/**/*.parquet"):
        for path in sorted(run.glob(pattern)):
            content = path.read_bytes().replace(name, b"RUN")
            found[path.relative_to(run).as_posix()] = hashlib.sha256(content).hexdigest()
    report = json.loads((run / "report.json").read_bytes().replace(name, b"RUN"))
    for part, value in report.items():
        if part not in PASSING:
            found[f"report: {part}"] = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    summary = Ledger(place.runs.parent / "ledger.sqlite").summary(report["data"]["fingerprint"])
    found["ledger"] = repr(summary)
    return found


def lost(told: Sequence[int]) -> int:
    """Return the most generations that were told again after a kill; the next one is the usual case."""
    return max((before - after + 1 for before, after in pairwise(told)), default=0)


class Campaign:
    """The trials on one search, each in a new folder.

    Parameters
    ----------
    root : Path
        Where the folders are made.
    seed : int
        Of the moments.
    settings : sequence of str
        Arguments of the command.
    target : callable
        What a process runs, with the parameters of :func:`evolve`.
    """

    def __init__(
        self,
        root: Path,
        seed: int = 1,
        settings: Sequence[str] = SETTINGS,
        target: Callable[..., None] = evolve,
    ) -> None:
        self._root, self._settings, self._target = root, settings, target
        self._rng = stream(seed, "kills")
        self._made = 0
        first = self._place()
        ended(first, first.begin())  # compiles kernels where they are not in the cache
        whole = self._place()
        began = time.monotonic()
        process = whole.begin()
        _wait(process, whole.has_checkpoint)
        self.start_s = time.monotonic() - began
        _wait(process, lambda: GENERATIONS in whole.generations())
        self.search_s = time.monotonic() - began - self.start_s
        ended(whole, process)
        self.report_s = time.monotonic() - began - self.start_s - self.search_s
        self.expected = leavings(whole)
        self.generations = max(whole.generations())

    def random(self) -> Trial:
        """One kill between the first checkpoint and the end."""
        place, kill = self._hit(self._random_kill)
        return self.compared("random", place, [kill])

    def double(self) -> Trial:
        """A second kill hits the resumed process: while it starts, while it searches or while it reports."""
        place, first = self._hit(self._random_kill)
        if self._rng.random() < 0.5:
            second = kill_after(place, None, self._rng.uniform(0.0, self.start_s))
        else:
            second = self._random_kill(place, first.generation + 1)
        return self.compared("double", place, [first, *([second] if second else [])])

    def aimed(self) -> Trial:
        """One kill while a checkpoint is half written."""
        after = int(self._rng.integers(-1, self.generations - 3))
        place, kill = self._hit(lambda place: kill_while_writing(place, after))
        return self.compared("aimed", place, [kill])

    def _random_kill(self, place: Workplace, first: int = 0) -> Kill | None:
        # Any generation is as likely as another, and one kill in five falls into what comes after the search.
        if self._rng.random() < 0.2 or first >= self.generations:
            return kill_after(place, self.generations, self._rng.uniform(0.0, self.report_s))
        delay_s = self._rng.uniform(0.0, self.search_s / self.generations)
        return kill_after(place, int(self._rng.integers(first, self.generations)), delay_s)

    def _hit(self, shoot: Callable[[Workplace], Kill | None]) -> tuple[Workplace, Kill]:
        while True:  # a run that was quicker than its kill is no trial
            place = self._place()
            kill = shoot(place)
            if kill is not None:
                return place, kill

    def compared(self, kind: str, place: Workplace, kills: list[Kill]) -> Trial:
        """Take up a run that was killed, and compare what it leaves with the undisturbed run."""
        try:
            if not place.finished:  # a kill may come after the last file
                ended(place, place.begin())
            found = leavings(place)
        except AssertionError as error:
            return Trial(kind, tuple(kills), 0, (str(error),))
        names = sorted(self.expected.keys() | found.keys())
        differing = [name for name in names if found.get(name) != self.expected.get(name)]
        told = place.generations()
        if sorted(set(told)) != list(range(self.generations + 1)):
            differing.append("generations told")
        return Trial(kind, tuple(kills), lost(told), tuple(differing))

    def _place(self) -> Workplace:
        self._made += 1
        return Workplace(self._root / f"trial-{self._made}", self._settings, self._target)


def show(trials: Sequence[Trial]) -> bool:
    """Print a line per trial that failed and a table by kind; return whether all passed."""
    for trial in trials:
        if not trial.passed:
            print(f"FAILED {trial.kind}, killed after {trial.kills}: lost {trial.lost}; {trial.differing}")
    heads = ("trials", "kills", "same bytes", "half written", "lost at most", "after generation")
    print(f"{'kill':8s}" + "".join(f"{head:>18s}" for head in heads))
    for kind in dict.fromkeys(trial.kind for trial in trials):
        group = [trial for trial in trials if trial.kind == kind]
        kills = [kill for trial in group for kill in trial.kills]
        generations = sorted(kill.generation for kill in kills)
        figures = (
            len(group),
            len(kills),
            sum(not trial.differing for trial in group),
            sum(kill.draft for kill in kills),
            max(trial.lost for trial in group),
            f"{generations[0]} to {generations[-1]}",
        )
        print(f"{kind:8s}" + "".join(f"{figure:>18}" for figure in figures))
    return all(trial.passed for trial in trials)


def speed(folder: Path, repetitions: int = 20) -> str:
    """Return how long a checkpoint of a long search takes: 200 x 24 genes, 60,000 keys and fitness values."""
    state = damage.state_of(0, population=200, known=60_000)
    packing, saving = [], []
    with Checkpoints(folder, damage.IDENTITY) as checkpoints:
        for generation in range(repetitions):
            began = time.perf_counter()
            pack({}, state)
            packed = time.perf_counter()
            path = checkpoints.save(generation, state)
            packing.append(packed - began)
            saving.append(time.perf_counter() - packed)
        began = time.perf_counter()
        checkpoints.load()
        loading = time.perf_counter() - began
    pack_ms, save_ms, load_ms = (1e3 * seconds for seconds in (median(packing), median(saving), loading))
    return (
        f"a checkpoint of 200 x 24 genes and 60,000 known genomes: {path.stat().st_size:,} bytes, "
        f"{pack_ms:.1f} ms to pack, {save_ms:.1f} ms until it is safe on the disk, {load_ms:.1f} ms to load"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="runs that are killed once")
    parser.add_argument("--double", type=int, default=20, help="runs whose resumption is killed too")
    parser.add_argument("--aimed", type=int, default=20, help="kills in the middle of a checkpoint")
    parser.add_argument("--damage", action="store_true", help="also 300 damaged checkpoint files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder", default=None, help="where the runs are made; default: the temporary folder"
    )
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        print(speed(Path(root) / "speed"))
        campaign = Campaign(Path(root), options.seed)
        print(
            f"undisturbed: first checkpoint after {campaign.start_s:.2f} s, {campaign.generations} "
            f"generations in {campaign.search_s:.2f} s, results and report in {campaign.report_s:.2f} s",
            flush=True,
        )
        trials = [campaign.random() for _ in range(options.kills)]
        trials += [campaign.double() for _ in range(options.double)]
        trials += [campaign.aimed() for _ in range(options.aimed)]
        if trials:
            good = show(trials)
    if options.damage:
        good &= damage.show(damage.trials(damage.KINDS, options.seed))
    print("passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

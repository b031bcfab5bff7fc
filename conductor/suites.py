"""What contestants are raced on: named batches of runs, each with the cluster that an interval is drawn over.

Nothing of a suite is ever learned from. Every random stream of a race leaves the remainder of the split
``test``, see :mod:`conductor.tasks`, so no run of a race draws what a run of training drew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from compute.seeds import stream
from conductor.curriculum import Batch, Landscapes
from conductor.objective import FLOOR
from conductor.sight import Outlook
from conductor.tasks import SEED_LIMIT, SPLITS, Instance, Task, TaskSampler, Window
from configs.load import ConfigError
from ga.space import GenomeSpace

if TYPE_CHECKING:
    from conductor.windows import TradingWindows

SUITES = ("bbob", "families", "windows")
#: Functions of BBOB, and the box that they are searched in.
FUNCTIONS = range(1, 25)
BOX = (-5.0, 5.0)

#: Net annual Sharpe ratios of genomes, (problem, genes (m, d)) -> float64 (m,) twice: on the problem itself,
#: and on what follows it, NaN where nothing does.
Judge = Callable[[Instance | Window, np.ndarray], tuple[np.ndarray, np.ndarray]]
#: Errors of a problem, measured anew from a best that lies below zero, (problem, errors, lowest) -> errors.
Rebase = Callable[[Instance | Window, np.ndarray, float], np.ndarray]


@dataclass(frozen=True, eq=False)
class Suite:
    """Runs that all contestants make, paired by their seeds.

    Parameters
    ----------
    name : str
        One of ``SUITES``.
    batch : Batch
        Of B runs.
    problems : tuple of B str
        What is searched; runs of one problem differ by their seeds alone.
    clusters : tuple of B str
        What problems belong together: function, family, or stretch of a market.
    instances : tuple of B int
        Number of the problem in its cluster, from 1.
    rebase : callable, optional
        Where the best known is only the best that anybody has found, what errors become when a contestant
        finds a better one, see ``Rebase``.
    judge : callable, optional
        Values champions, see ``Judge``.

    Raises
    ------
    ValueError
        If there is not one entry per run.
    """

    name: str
    batch: Batch
    problems: tuple[str, ...]
    clusters: tuple[str, ...]
    instances: tuple[int, ...]
    rebase: Rebase | None = None
    judge: Judge | None = None

    def __post_init__(self) -> None:
        for name in ("problems", "clusters", "instances"):
            if len(getattr(self, name)) != len(self.batch):
                raise ValueError(
                    f"suite {self.name} has {len(getattr(self, name))} {name}; it needs one for each of its "
                    f"{len(self.batch)} runs"
                )

    def __len__(self) -> int:
        return len(self.batch)

    def part(self, rows: np.ndarray) -> Batch:
        """Return some of its runs, int64 (m,), as a batch."""
        return self.batch.rows(rows)

    @property
    def sentence(self) -> str:
        """What the suite is, for people."""
        tasks = self.batch.tasks
        sizes = sorted({(task.population_size, task.n_generations) for task in tasks})
        genes = sorted({task.dimension for task in tasks})
        return (
            f"{self.name}: {len(self):,} runs of {len(set(self.problems))} problems in "
            f"{len(set(self.clusters))} clusters, {_listed(genes)} genes, "
            f"{_listed([f'{p} x {g}' for p, g in sizes])} individuals and generations, "
            f"{_listed(sorted({task.budget for task in tasks}))} evaluations"
        )


def bbob(
    *,
    dimension: int = 10,
    n_instances: int = 15,
    n_seeds: int = 1,
    population_size: int = 40,
    n_generations: int = 60,
    functions: Sequence[int] = FUNCTIONS,
    seed: int = 0,
) -> Suite:
    """Return the noiseless BBOB functions in the box from -5 to 5; a cluster is a function.

    The error is f minus its optimum, with the published floor of 1e-8.

    Parameters
    ----------
    dimension : int
    n_instances : int
        The first so many of each function.
    n_seeds : int
        Runs of each instance.
    population_size, n_generations : int
    functions : sequence of int
        From 1 to 24.
    seed : int
        Root of the seeds of the runs.

    Raises
    ------
    ConfigError
        If package ioh is not installed.

    Notes
    -----
    Source: Hansen, Finck, Ros and Auger (2009), real-parameter black-box optimization benchmarking; in the
    package ioh of de Nobel, Ye, Vermetten, Wang, Doerr and Baeck (2024).
    """
    try:
        import ioh  # noqa: F401
    except ImportError as error:
        raise ConfigError("suite bbob needs package ioh; install the extra race") from error
    tasks, problems, clusters, instances = [], [], [], []
    for function in functions:
        for instance in range(1, n_instances + 1):
            problem = _bbob_problem(function, instance)
            for run in range(n_seeds):
                own = _seed(seed, "bbob", function, instance, dimension, run)
                tasks.append(Task(problem, dimension, population_size, n_generations, own))
                problems.append(f"f{function:02d} i{instance:02d}")
                clusters.append(f"f{function:02d}")
                instances.append(instance)
    n = len(tasks)
    batch = Batch(tuple(tasks), Outlook.unknown(n), np.full(n, FLOOR), _open_bbob)
    return Suite("bbob", batch, tuple(problems), tuple(clusters), tuple(instances))


def families(
    *,
    dimension: int = 10,
    n_instances: int = 15,
    n_seeds: int = 1,
    population_size: int = 40,
    n_generations: int = 60,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Suite:
    """Return landscapes of the families that belong to the split ``test``; a cluster is a family.

    Parameters
    ----------
    dimension, n_instances, n_seeds, population_size, n_generations, seed : int
        As of :func:`bbob`.
    names : sequence of str, optional
        Families instead of those, as new instances: seeds keep them apart from all that trained and chose.
    """
    sampler = TaskSampler(
        "test",
        int(stream(seed, "race", "families").integers(2**31)),
        dimensions=(dimension,),
        sizes=((population_size, n_generations),),
        families=names,
    )
    drawn = Landscapes(sampler).batch(0, n_instances * len(sampler.families)).tasks
    drawn = sorted(drawn, key=lambda task: (task.problem.family, task.problem.seed))
    tasks, problems, clusters, instances = [], [], [], []
    for i, task in enumerate(drawn):
        family, instance = task.problem.family, i % n_instances + 1
        for run in range(n_seeds):
            tasks.append(replace(task, seed=_seed(seed, "families", family, instance, dimension, run)))
            problems.append(f"{family} {instance}")
            clusters.append(family)
            instances.append(instance)
    n = len(tasks)
    batch = Batch(tuple(tasks), Outlook.unknown(n), np.full(n, FLOOR))
    return Suite("families", batch, tuple(problems), tuple(clusters), tuple(instances))


def windows(source: "TradingWindows", *, n_windows: int, n_seeds: int = 30, seed: int = 0) -> Suite:
    """Return stretches of markets; a cluster is a stretch, whichever regimes' specialists trade on it.

    Champions are valued by their net annual Sharpe ratio on the window and on the stretch of the same length
    that follows it.

    Parameters
    ----------
    source : TradingWindows
        Of the split ``test``.
    n_windows : int
        At most; fewer if the source has no more.
    n_seeds : int
        Runs on each.
    seed : int
        Root of the seeds of the runs.
    """
    # No window of a batch comes twice before all came once.
    drawn = source.batch(0, min(n_windows, len(source)))
    chosen = sorted((task.problem for task in drawn.tasks), key=lambda w: (w.symbol, w.start, w.specialist))
    numbered: dict[str, list[Window]] = {}
    for window in chosen:
        numbered.setdefault(_stretch(window), []).append(window)
    runs = [
        (window, _seed(seed, "windows", window.symbol, window.start, window.specialist, run))
        for window in chosen
        for run in range(n_seeds)
    ]
    clusters = tuple(_stretch(window) for window, _ in runs)
    return Suite(
        "windows",
        source.batch_of(*zip(*runs, strict=True)),
        tuple(f"{_stretch(window)} {window.specialist}" for window, _ in runs),
        clusters,
        tuple(
            numbered[cluster].index(window) + 1 for cluster, (window, _) in zip(clusters, runs, strict=True)
        ),
        rebase=lambda window, errors, lowest: _rebased(source, window, errors, lowest),
        judge=lambda window, genes: _market_value(source, window, genes),
    )


def _bbob_problem(function: int, instance: int) -> Window:
    # What is no landscape of ours is a window to the environment: a name, and times that mean nothing.
    return Window(f"bbob {function} {instance}", 0, 1, "bbob")


def _open_bbob(task: Task) -> tuple[GenomeSpace, Callable[[np.ndarray], np.ndarray]]:
    # An object of its own for each run: they keep counts and are not safe to call from several threads.
    import ioh

    _, function, instance = task.problem.symbol.split()
    d = task.dimension
    found = ioh.get_problem(int(function), int(instance), d, ioh.ProblemClass.BBOB)
    lowest, (low, high) = found.optimum.y, BOX
    space = GenomeSpace(tuple(f"x{j}" for j in range(d)), np.zeros(d), np.ones(d), ("real",) * d)
    return space, lambda genes: lowest - np.asarray(found((low + genes * (high - low)).tolist()))


def _rebased(source: "TradingWindows", window: Window, errors: np.ndarray, lowest: float) -> np.ndarray:
    old = source.calibrated([window])[0]
    new = replace(old, best_known=float(old.fitness(np.array(lowest))))
    return new.regret(old.fitness(errors))


def _market_value(
    source: "TradingWindows", window: Window, genes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    after = source.next_window(window)
    unknown = np.full(len(genes), np.nan)
    return source.value(window, genes), unknown if after is None else source.value(after, genes)


def _stretch(window: Window) -> str:
    begin = np.datetime64(window.start, "ns").astype("datetime64[D]")
    end = np.datetime64(window.stop, "ns").astype("datetime64[D]")
    return f"{window.symbol} {begin} to {end}"


def _seed(seed: int, *names: str | int) -> int:
    n, split = len(SPLITS), list(SPLITS).index("test")
    return int(stream(seed, "race", *names).integers(SEED_LIMIT // n - 1)) * n + split


def _listed(values: Sequence[object]) -> str:
    return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)

"""Other searches at the same evaluations: what chance reaches, and the ceiling.

They see a problem as a function of genes from 0 to 1, answer with one genome after another, and are cut off
when the budget of the run is spent. Their best so far is read where a generation of the race would end, every
``population_size`` evaluations, so that all curves of a race are read at the same places.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from compute.seeds import stream
from compute.workers import Mapper
from conductor.contestants import Performance
from conductor.curriculum import Batch
from conductor.objective import Outcome
from conductor.tasks import Instance, Task
from configs.load import ConfigError
from ga.progress import STATISTIC_NAMES
from ga.variation import Variation

_REPEATED, _INVALID = STATISTIC_NAMES.index("cached_share"), STATISTIC_NAMES.index("invalid_share")
#: First step of CMA-ES, as a share of the box: a quarter, as its author advises for a start within it.
SIGMA = 0.25
_WORST = 1e100  # what an infinite error is to CMA-ES, which takes differences of errors
#: Factor of the population of CMA-ES after each restart: IPOP.
GROWTH = 2


class Spent(Exception):  # noqa: N818
    """The budget is used up: how a search that knows no such limit is stopped."""


class Counter:
    """A problem that counts, remembers its best, and stops whoever asks for more than the budget.

    Parameters
    ----------
    fitness : callable
        Genes (m, d) from 0 to 1 -> fitness (m,), higher is better.
    budget : int
        Evaluations.
    d : int
        Number of genes.
    """

    def __init__(self, fitness: Callable[[np.ndarray], np.ndarray], budget: int, d: int) -> None:
        self._fitness, self.budget = fitness, budget
        self.n = 0
        self.best = np.full(budget, -np.inf)
        self.repeated, self.invalid = np.zeros(budget, dtype=bool), np.zeros(budget, dtype=bool)
        self.champion = np.full(d, 0.5)
        self._seen: set[bytes] = set()

    @property
    def left(self) -> int:
        """Evaluations left."""
        return self.budget - self.n

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return the errors, float64 (m,), lower is better and infinite where the fitness is no number.

        Raises
        ------
        Spent
            If there is no evaluation left, or, once the last ones are done, if more were asked for.
        """
        if not self.left:
            raise Spent
        asked = len(genes)
        genes = np.clip(np.asarray(genes, dtype=np.float64), 0.0, 1.0)[: self.left]
        fitness = np.array(self._fitness(genes), dtype=np.float64)
        rows = slice(self.n, self.n + len(genes))
        self.invalid[rows] = ~np.isfinite(fitness)
        fitness[~np.isfinite(fitness)] = -np.inf
        for i, one in enumerate(genes, self.n):
            key = one.tobytes()
            self.repeated[i] = key in self._seen
            self._seen.add(key)
        before = self.best[self.n - 1] if self.n else -np.inf
        if self.n == 0 or fitness.max() > before:
            self.champion = genes[np.argmax(fitness)].copy()
        self.best[rows] = np.maximum(np.maximum.accumulate(fitness), before)
        self.n += len(genes)
        if asked > len(genes):
            raise Spent
        return -fitness


#: Searches a problem until it is :class:`Spent`, or until it has found all it can.
Search = Callable[[Counter, Task, np.random.Generator], None]


@dataclass(frozen=True, eq=False)
class Outside:
    """Another search, run by run.

    Parameters
    ----------
    name : str
    search : callable
        See ``Search``.
    seed : int
        Root of the draws; those of a run follow from the seed of its task.
    """

    name: str
    search: Search
    seed: int = 0

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what the search does; see :class:`conductor.contestants.Contestant`.

        Runs follow one another in this thread: the libraries are not made for several.
        """
        longest = max(task.n_generations for task in batch.tasks) + 1
        best, asked = np.zeros((len(batch), longest)), np.zeros((len(batch), longest), dtype=np.int64)
        history = np.zeros((len(batch), longest, len(STATISTIC_NAMES)))
        champions = []
        for b, task in enumerate(batch.tasks):
            counter = Counter(fitness_of(batch, task), task.budget, task.dimension)
            with suppress(Spent):
                self.search(counter, task, stream(self.seed, "outside", self.name, task.seed))
            champions.append(counter.champion)
            counter.best[counter.n :] = counter.best[counter.n - 1]
            done = np.arange(task.budget).reshape(-1, task.population_size) < counter.n
            n = task.n_generations + 1
            best[b, :n] = counter.best.reshape(n, -1)[:, -1]
            best[b, n:] = best[b, n - 1]
            asked[b, :n] = done.sum(axis=1)
            for column, flags in ((_REPEATED, counter.repeated), (_INVALID, counter.invalid)):
                history[b, :n, column] = (flags.reshape(n, -1) & done).sum(axis=1) / np.maximum(
                    asked[b, :n], 1
                )
        return Performance(Outcome(batch.tasks, best, asked, history), tuple(champions))


def fitness_of(batch: Batch, task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """Return the fitness of a task of a batch, genes (m, d) from 0 to 1 -> (m,): minus the error."""
    if isinstance(task.problem, Instance):
        landscape = task.landscape()
        return lambda genes: -landscape(genes)
    if batch.opening is None:
        raise ValueError(f"the task is a window of {task.problem.symbol}; its batch cannot open it")
    return batch.opening(task)[1]


def random_search(counter: Counter, task: Task, rng: np.random.Generator) -> None:
    """Draw every genome anew, all equally likely."""
    while True:
        counter(rng.random((task.population_size, task.dimension)))


def differential_evolution(counter: Counter, task: Task, rng: np.random.Generator) -> None:
    """Evolve by SciPy's own defaults (best1bin, F from 0.5 to 1, CR 0.7) with the population of the task.

    Source: Storn and Price (1997).
    """
    from scipy.optimize import differential_evolution as search

    search(
        lambda genes: counter(genes.T),
        [(0.0, 1.0)] * task.dimension,
        init=rng.random((task.population_size, task.dimension)),
        maxiter=task.budget,
        tol=-1.0,  # never converged: the budget decides
        polish=False,
        updating="deferred",
        vectorized=True,
        rng=rng,
    )


def cma_es(counter: Counter, task: Task, rng: np.random.Generator) -> None:
    """Evolve by CMA-ES with its own defaults, restarted with twice the population whenever it has stopped.

    Sources: Hansen and Ostermeier (2001); Auger and Hansen (2005), IPOP.
    """
    cma = _cma()
    d = max(task.dimension, 2)  # the library knows no single dimension; the second one has no effect
    size = 4 + int(3 * np.log(d))
    while True:
        options = {
            "popsize": size,
            "bounds": [0.0, 1.0],
            # Its own default seeds the global generator of NumPy.
            "seed": np.nan,
            "randn": lambda *shape: rng.standard_normal(shape),
            "verbose": -9,
        }
        evolution = cma.CMAEvolutionStrategy(rng.random(d), SIGMA, options)
        while not evolution.stop():
            points = evolution.ask()
            errors = counter(np.array(points)[:, : task.dimension])
            evolution.tell(points, np.minimum(errors, _WORST).tolist())
        size *= GROWTH


def _cma():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of optional packages that it does not find
            import cma
    except ImportError as error:
        raise ConfigError("contestant CMA-ES needs package cma; install the extra conductor") from error
    return cma

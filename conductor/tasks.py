"""Tasks of meta-training: one whole run of the search each, drawn from streams that never meet.

Three splits keep what trains, what selects and what judges apart. They differ in two ways at once:

* by family: the families of a split belong to it alone (``SPLITS``);
* by seed: the seed of an instance and of a run leaves the number of its split as remainder, so no two
  splits can draw the same instance or the same random stream, even of a family given to both by hand.

A sampler draws by number: batch ``i`` holds the same tasks with the same seeds whenever and by whomever it
is asked for. All candidates of one meta-generation are compared on it (common random numbers), and the next
meta-generation asks for the next batch. A published suite of functions is in none of the splits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from conductor.landscapes import FAMILIES, MAX_DIMENSION, MIN_DIMENSION, Landscape, landscape
from ga.controls import Hyperparameters

#: Which families each split holds; the position of a split is the remainder of its seeds.
SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "sphere",
            "ellipsoid",
            "rosenbrock",
            "rastrigin",
            "ackley",
            "griewank",
            "peaks",
            "steps",
            "discus",
            "weierstrass",
        ),
        "validation": ("levels",),
        "test": ("powers", "ridge", "schwefel"),
    }
)
#: Seeds lie below it, so that they are exact in every format that saves a task.
SEED_LIMIT = 2**53


@dataclass(frozen=True)
class Instance:
    """A landscape by name: its family and the seed of the instance."""

    family: str
    seed: int

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"landscape family is {self.family!r}; known: {', '.join(FAMILIES)}")
        if self.seed < 0:
            raise ValueError(f"seed of {self.family} is {self.seed}; it must not be negative")


@dataclass(frozen=True)
class Window:
    """A stretch of a market on which a specialist is evolved.

    Parameters
    ----------
    symbol : str
        Which market.
    start, stop : int
        First bar and the one after the last, in nanoseconds since 1970.
    specialist : str
        Which strategy's genes are searched.
    """

    symbol: str
    start: int
    stop: int
    specialist: str

    def __post_init__(self) -> None:
        if not self.start < self.stop:
            raise ValueError(
                f"the window of {self.symbol} is from {self.start} to {self.stop}; it must end later"
            )


@dataclass(frozen=True)
class Task:
    """One whole run of the search: where, how large, how long, and with which random stream.

    Parameters
    ----------
    problem : Instance or Window
    dimension : int
        Number of genes.
    population_size : int
        From 8 to 8192.
    n_generations : int
        Bred after the initial population.
    seed : int
        Of the run: everything random in it follows from this number and the controls.

    Raises
    ------
    ValueError
        If a size or the seed is out of range.
    """

    problem: Instance | Window
    dimension: int
    population_size: int
    n_generations: int
    seed: int

    def __post_init__(self) -> None:
        least, most = (MIN_DIMENSION, MAX_DIMENSION) if isinstance(self.problem, Instance) else (1, 2**16)
        for name, low, high in (
            ("dimension", least, most),
            ("population_size", 8, 8192),
            ("n_generations", 1, 100_000),
            ("seed", 0, SEED_LIMIT),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} of a task is {value}; it must be from {low} to {high}")

    @property
    def budget(self) -> int:
        """Evaluations of the run if every place gets an offspring in every generation."""
        return self.population_size * (self.n_generations + 1)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The settings of the same run in ``ga``; it does not end early."""
        return Hyperparameters(
            population_size=self.population_size, n_generations=self.n_generations, patience=0
        )

    def landscape(self) -> Landscape:
        """Return the landscape of the task.

        Raises
        ------
        TypeError
            If the task is a market window.
        """
        if not isinstance(self.problem, Instance):
            raise TypeError(f"the task is a market window of {self.problem.symbol}; it has no landscape")
        return landscape(self.problem.family, self.dimension, self.problem.seed)


class TaskSampler:
    """Draws batches of landscape tasks of one split, by number.

    Parameters
    ----------
    split : {"train", "validation", "test"}
    seed : int
        Of the sampler: another meta-seed draws other batches.
    dimensions : sequence of int
        Equally likely.
    sizes : sequence of (int, int)
        Population size and generations, equally likely.
    families : sequence of str, optional
        Instead of those of the split, for example to validate on unseen instances of the training families;
        the seeds keep the splits apart then.

    Raises
    ------
    ValueError
        If the split or a family is unknown, a list is empty, or the seed is negative.
    """

    def __init__(
        self,
        split: str,
        seed: int = 0,
        *,
        dimensions: Sequence[int] = (5, 8, 10),
        sizes: Sequence[tuple[int, int]] = ((40, 60),),
        families: Sequence[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split of tasks is {split!r}; known: {', '.join(SPLITS)}")
        if seed < 0:
            raise ValueError(f"seed of the {split} tasks is {seed}; it must not be negative")
        self.split, self.seed = split, int(seed)
        self.families = tuple(SPLITS[split] if families is None else families)
        self.dimensions = tuple(int(d) for d in dimensions)
        self.sizes = tuple((int(p), int(g)) for p, g in sizes)
        for name in ("families", "dimensions", "sizes"):
            if not getattr(self, name):
                raise ValueError(f"{name} of the {split} tasks are empty; at least one is needed")
        if strangers := [family for family in self.families if family not in FAMILIES]:
            raise ValueError(
                f"families of the {split} tasks name {', '.join(strangers)}; known: {', '.join(FAMILIES)}"
            )

    def batch(self, number: int, n: int, repeats: int = 1) -> tuple[Task, ...]:
        """Return batch ``number``: ``n`` instances, each with ``repeats`` runs of their own seeds in a row.

        Families take turns, from a random one on, so that every batch is as even as its size allows.

        Raises
        ------
        ValueError
            If the number is negative, or n or repeats is below 1.
        """
        if number < 0 or n < 1 or repeats < 1:
            raise ValueError(
                f"batch {number} of {n} instances and {repeats} repeats was asked for; a batch has a number "
                "from 0, at least one instance and at least one repeat"
            )
        rng = np.random.default_rng([self.seed, number, list(SPLITS).index(self.split)])
        turn = rng.permutation(len(self.families))
        tasks = []
        for i in range(n):
            if i and i % len(turn) == 0:
                turn = rng.permutation(len(self.families))
            family = self.families[turn[i % len(turn)]]
            dimension = self.dimensions[rng.integers(len(self.dimensions))]
            population_size, n_generations = self.sizes[rng.integers(len(self.sizes))]
            problem = Instance(family, self._seed(rng))
            for _ in range(repeats):
                tasks.append(Task(problem, dimension, population_size, n_generations, self._seed(rng)))
        return tuple(tasks)

    def _seed(self, rng: np.random.Generator) -> int:
        n = len(SPLITS)
        return int(rng.integers(SEED_LIMIT // n - 1)) * n + list(SPLITS).index(self.split)

"""The individuals of one generation as arrays, one row each."""

from dataclasses import dataclass

import numpy as np

from ga import kernels


@dataclass(frozen=True, eq=False)
class Population:
    """Individuals of one generation; arrays are read-only.

    Parameters
    ----------
    genes : float64 (p, d)
        In the unit cube.
    fitness : float64 (p,)
        Higher is better; -inf for a genome whose fitness was not a number; NaN where not yet evaluated.
    age : int32 (p,)
        Generations each individual has survived.
    evaluated : bool (p,)
        Whether the fitness is known.

    Raises
    ------
    ValueError
        If the arrays do not have one row per individual, or an evaluated fitness is NaN.
    """

    genes: np.ndarray
    fitness: np.ndarray
    age: np.ndarray
    evaluated: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (
            ("genes", np.float64),
            ("fitness", np.float64),
            ("age", np.int32),
            ("evaluated", np.bool_),
        ):
            array = np.array(getattr(self, name), dtype=dtype, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        p = len(self.genes)
        if self.genes.ndim != 2 or p == 0:
            raise ValueError(f"genes have shape {self.genes.shape}; a population needs (p, d) with p > 0")
        for name in ("fitness", "age", "evaluated"):
            if getattr(self, name).shape != (p,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; {p} genomes need ({p},)")
        if np.isnan(self.fitness[self.evaluated]).any():
            raise ValueError("the fitness of an evaluated individual is NaN; the worst fitness is -inf")

    @classmethod
    def owning(
        cls, genes: np.ndarray, fitness: np.ndarray, age: np.ndarray, evaluated: np.ndarray
    ) -> "Population":
        """Return a population of arrays that already are as documented and that nobody else writes to.

        Neither copies nor checks: a search makes one in every generation.
        """
        population = object.__new__(cls)
        set_field = object.__setattr__
        for name, array in (("genes", genes), ("fitness", fitness), ("age", age), ("evaluated", evaluated)):
            array.flags.writeable = False
            set_field(population, name, array)
        return population

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def best(self) -> int:
        """Row of the fittest evaluated individual, the first of several.

        Raises
        ------
        ValueError
            If none is evaluated.
        """
        if not self.evaluated.any():
            raise ValueError("no individual is evaluated yet; tell() the fitness of the first ask() first")
        return int(np.argmax(np.where(self.evaluated, self.fitness, -np.inf)))

    @property
    def diversity(self) -> float:
        """Root mean square distance to the centre, per gene: 0.29 when uniformly random, 0 for clones."""
        return float(kernels.diversity(self.genes))

"""What a search for a front knows: the genomes that none beats, and its progress in numbers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ga import pareto
from ga.controls import CONTROL_NAMES, GAControls, Hyperparameters


@dataclass(frozen=True, eq=False)
class FrontProgress:
    """The state of a search for a front after one generation.

    Parameters
    ----------
    generation : int
        0 is the initial population.
    evaluations : int
        Genomes asked for since the start.
    best, median, mean : float
        Of the first objective, over the rows of the population that keep the constraints; -inf, -inf and
        NaN if there are none.
    diversity : float
        Root mean square distance to the centre, per gene.
    stagnation : int
        Generations since the volume last grew by ``ga.multiobjective.LEAST_GROWTH``.
    invalid, duplicates, cached : int
        Offspring of this generation without finite objectives; mutated again because they repeated a known
        genome; answered from a cache.
    hypervolume : float
        Of the archive, beyond the reference point; NaN before a row keeps the constraints.
    front : int
        Genomes in the archive.
    feasible : float
        Share of the population that keeps the constraints.
    hyperparameters : Hyperparameters
    controls : GAControls or None
        None for the initial population.
    """

    generation: int
    evaluations: int
    best: float
    median: float
    mean: float
    diversity: float
    stagnation: int
    invalid: int
    duplicates: int
    cached: int
    hypervolume: float
    front: int
    feasible: float
    hyperparameters: Hyperparameters
    controls: GAControls | None = None

    def row(self) -> dict[str, float | int]:
        """Return the log row: every number, and the controls (NaN for none) by name."""
        hidden = ("hyperparameters", "controls")
        row = {name: value for name, value in vars(self).items() if name not in hidden}
        row.update(self.controls.to_dict() if self.controls else dict.fromkeys(CONTROL_NAMES, math.nan))
        return row

    @classmethod
    def of(cls, row: dict[str, Any], hyperparameters: Hyperparameters) -> "FrontProgress":
        """Return the progress of a log row."""
        values = dict(row)
        controls = {name: values.pop(name) for name in CONTROL_NAMES}
        known = not any(math.isnan(value) for value in controls.values())  # the initial population has none
        return cls(
            **values, hyperparameters=hyperparameters, controls=GAControls(**controls) if known else None
        )


@dataclass(frozen=True, eq=False)
class FrontArchive:
    """Genomes that none of the others beats, the best in the first objective first.

    Parameters
    ----------
    genes : float64 (n, d)
    objectives : float64 (n, k)
        No two rows equal: of several such genomes the first stays.
    born : int64 (n,)
        Generation of each.
    """

    genes: np.ndarray
    objectives: np.ndarray
    born: np.ndarray

    @classmethod
    def empty(cls, d: int, k: int) -> "FrontArchive":
        """Return the archive before anything is known."""
        return cls(np.empty((0, d)), np.empty((0, k)), np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.genes)

    def joined(self, genes: np.ndarray, objectives: np.ndarray, generation: int, size: int) -> "FrontArchive":
        """Return the archive with new rows in it; beyond ``size`` the most crowded rows go."""
        objectives = np.concatenate([self.objectives, objectives]) + 0.0  # -0.0 is equal to 0.0 here as well
        genes = np.concatenate([self.genes, genes])
        born = np.concatenate([self.born, np.full(len(genes) - len(self), generation)])
        rows = np.sort(np.unique(objectives, axis=0, return_index=True)[1])
        rows = rows[pareto.front_ranks(objectives[rows]) == 0]
        if rows.size > size:
            kept, _ = pareto.by_crowding(objectives[rows], np.zeros(rows.size, dtype=np.int64), size)
            rows = rows[kept]
        rows = rows[np.lexsort(-objectives[rows].T[::-1])]
        return FrontArchive(genes[rows], objectives[rows], born[rows])

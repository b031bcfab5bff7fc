"""A search for a front instead of one champion: NSGA-II and NSGA-III with the operators of the house.

One generation: parents are drawn by tournaments over the order of the population, bred and mutated by the
same compiled operators as in :mod:`ga.evolution`; parents and offspring then compete for the places. NSGA-II
keeps the rows in the emptiest parts of the last front, NSGA-III spreads them over reference directions. What
no other genome ever beat is kept in an archive beside the population.

Of the 12 controls, those of recombination, mutation, tournaments and immigrants act. Survival is elitist and
spread by itself: ``elite_fraction``, ``crowding_rate`` and ``restart_fraction`` are not read.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ga import kernels, operators, pareto
from ga.controls import GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.front import FrontArchive, FrontProgress
from ga.space import GenomeSpace
from ga.variation import Variation

METHODS = ("nsga2", "nsga3")
#: A generation counts as progress if the volume of the front grows by this share.
LEAST_GROWTH = 1e-3
#: Operators and controls for fronts: ``benchmarks/pareto_sort.py --search`` measures them.
FRONT_VARIATION = Variation(recombination="sbx", mutation="polynomial")
FRONT_CONTROLS = GAControls(
    mutation_rate=0.04,
    mutation_step=0.1,
    mutation_tail=0.0,
    crossover_rate=1.0,
    crossover_spread=0.125,
    differential_rate=0.0,
    tournament_size=3.0,
    immigrant_fraction=0.0,
)


@dataclass(frozen=True, eq=False)
class _Brood:
    genes: np.ndarray  # float64 (m, d)
    duplicates: int
    controls: GAControls | None  # None for the initial population


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The population, best first."""

    genes: np.ndarray  # float64 (p, d)
    objectives: np.ndarray  # float64 (p, k), finite
    violation: np.ndarray  # float64 (p,)


class MultiObjectiveEvolution:
    """NSGA-II or NSGA-III on the unit cube: maximises several objectives and owns no evaluation.

    ``ask`` and ``tell`` alternate as in :class:`ga.evolution.Evolution`. The same generator state and the
    same objectives give the same bytes.

    Parameters
    ----------
    space : GenomeSpace
    hyperparameters : Hyperparameters
        ``patience`` counts generations in which the volume of the front does not grow.
    rng : numpy.random.Generator
        The only source of randomness.
    n_objectives : int
        2 or 3, so that the volume is exact.
    method : {"nsga2", "nsga3"}
    reference : float64 (k,), optional
        The worst point that counts for the volume. By default what the first generation with valid rows
        shows at worst, and a tenth of its range beyond.
    divisions : int, optional
        Of the reference directions of NSGA-III; by default as many as give no more directions than
        individuals.
    archive_size : int
        Most genomes in the archive.
    variation : Variation, optional
        Which recombination and mutation; ``FRONT_VARIATION`` by default.
    toolbox : deap.base.Toolbox or None
        Operators by name; None takes :func:`ga.operators.toolbox` of the variation.

    Attributes
    ----------
    front : FrontArchive
    progress : FrontProgress
    logbook : list of dict
        One row of ``FrontProgress.row()`` per generation.

    Raises
    ------
    ValueError
        If the method is unknown, or the number of objectives is neither 2 nor 3.

    Sources: Deb, Pratap, Agarwal and Meyarivan (2002), Deb and Jain (2014); Jain and Deb (2014) for the
    constraints.
    """

    def __init__(
        self,
        space: GenomeSpace,
        hyperparameters: Hyperparameters,
        rng: np.random.Generator,
        n_objectives: int,
        method: str = "nsga2",
        *,
        reference: ArrayLike | None = None,
        divisions: int | None = None,
        archive_size: int = 500,
        variation: Variation | None = None,
        toolbox: object | None = None,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"no search for fronts named {method!r}; known: {', '.join(METHODS)}")
        if n_objectives not in (2, 3):
            raise ValueError(f"{n_objectives} objectives; a search for a front takes 2 or 3")
        if archive_size < 1:
            raise ValueError(f"archive_size is {archive_size}; it must be at least 1")
        self.space = space
        self.hyperparameters = hyperparameters
        self.n_objectives = n_objectives
        self.method = method
        self.front = FrontArchive.empty(space.n_genes, n_objectives)
        self.logbook: list[dict[str, float | int]] = []
        self._rng = rng
        variation = FRONT_VARIATION if variation is None else variation
        self._toolbox = operators.toolbox(variation) if toolbox is None else toolbox
        self._archive_size = archive_size
        self._reference = None if reference is None else np.array(reference, dtype=np.float64)
        if self._reference is not None and self._reference.shape != (n_objectives,):
            raise ValueError(f"reference has shape {self._reference.shape}; it needs ({n_objectives},)")
        self._niches: pareto.ReferenceNiches | None = None
        if method == "nsga3":
            if divisions is None:
                divisions = pareto.divisions_for(n_objectives, hyperparameters.population_size)
            self._niches = pareto.ReferenceNiches(pareto.das_dennis(n_objectives, divisions))
        self._ranked: _Ranked | None = None
        self._order: np.ndarray | None = None  # rows of the population from best to worst
        self._seen: set[bytes] = set()
        self._volume = 0.0  # when it last counted as grown
        self._brood: _Brood | None = None
        self.progress = FrontProgress(
            generation=0,
            evaluations=0,
            best=-math.inf,
            median=-math.inf,
            mean=math.nan,
            diversity=0.0,
            stagnation=0,
            invalid=0,
            duplicates=0,
            cached=0,
            hypervolume=math.nan,
            front=0,
            feasible=0.0,
            hyperparameters=hyperparameters,
        )

    @property
    def finished(self) -> bool:
        """Whether all generations are bred, or patience is exhausted."""
        patience = self.hyperparameters.patience
        return (
            self.progress.generation >= self.hyperparameters.n_generations
            or 0 < patience <= self.progress.stagnation
        )

    @property
    def population(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Genes (p, d) and objectives (p, k) of the present population; None before the first ``tell``."""
        return None if self._ranked is None else (self._ranked.genes, self._ranked.objectives)

    def ask(self, controls: GAControls | None = None) -> np.ndarray:
        """Return the genes to evaluate next, float64 (m, d), read-only.

        Parameters
        ----------
        controls : GAControls, optional
            The knobs of this generation; the initial population needs none.

        Raises
        ------
        RuntimeError
            If the last genomes were not told, or the search is finished.
        TypeError
            If controls are missing after the first call.
        """
        if self._brood is not None:
            raise RuntimeError(
                "ask() was called twice; tell() needs the objectives of the last genomes first"
            )
        if self._ranked is None:
            genes = self.space.sample(self._rng, self.hyperparameters.population_size)
            self._seen.update(self.space.keys(genes))
            self._brood = _Brood(genes, 0, None)
        else:
            if self.finished:
                raise RuntimeError(
                    f"ask() was called after the search finished in generation {self.progress.generation}"
                )
            if not isinstance(controls, GAControls):
                raise TypeError(
                    f"controls are {controls!r}; ask() needs GAControls after the first generation"
                )
            self._brood = self._bred(controls)
        genes = self._brood.genes.view()
        genes.flags.writeable = False
        return genes

    def tell(self, objectives: ArrayLike, violation: ArrayLike | None = None, *, cached: int = 0) -> None:
        """Take the objectives of the genomes that ``ask`` returned, and complete the generation.

        Parameters
        ----------
        objectives : float64 (m, k)
            In the order of ``ask``, higher is better. A row that is not finite breaks the constraints worst.
        violation : float64 (m,), optional
            By how much each genome breaks its constraints; 0 keeps them.
        cached : int
            How many were answered from a cache; only counted.

        Raises
        ------
        RuntimeError
            If ``ask`` was not called before.
        ValueError
            If the shapes do not fit, or a violation is negative or NaN.
        """
        brood = self._brood
        if brood is None:
            raise RuntimeError("tell() was called without ask(); ask() for genomes first")
        m = len(brood.genes)
        objectives = np.array(objectives, dtype=np.float64)
        violation = np.zeros(m) if violation is None else np.array(violation, dtype=np.float64)
        if objectives.shape != (m, self.n_objectives) or violation.shape != (m,):
            raise ValueError(
                f"objectives have shape {objectives.shape} and violations {violation.shape}; tell() needs "
                f"({m}, {self.n_objectives}) and ({m},), one row per genome returned by ask()"
            )
        if not np.all(violation >= 0.0):
            raise ValueError("a violation is negative or NaN; 0 keeps the constraints, more breaks them")
        invalid = ~np.isfinite(objectives).all(axis=1)
        objectives[invalid], violation[invalid] = 0.0, np.inf
        generation = 0 if brood.controls is None else self.progress.generation + 1
        kept = violation == 0.0
        self.front = self.front.joined(brood.genes[kept], objectives[kept], generation, self._archive_size)
        if self._ranked is None:
            candidates = _Ranked(brood.genes, objectives, violation)
        else:
            candidates = _Ranked(
                np.concatenate([self._ranked.genes, brood.genes]),
                np.concatenate([self._ranked.objectives, objectives]),
                np.concatenate([self._ranked.violation, violation]),
            )
        self._survive(candidates)
        self._record(generation, brood, int(invalid.sum()), cached, objectives[kept])
        self._brood = None

    def _survive(self, candidates: _Ranked) -> None:
        p = self.hyperparameters.population_size
        ranks = pareto.front_ranks(candidates.objectives, candidates.violation)
        kept = candidates.violation == 0.0
        ties = self._rng.random(p)
        if self._niches is None or kept.sum() < p:
            rows, distance = pareto.by_crowding(candidates.objectives, ranks, p)
            self._order = np.lexsort((ties, -distance, ranks[rows]))
        else:  # enough that keep the constraints: the others neither live nor move the axes
            valid = np.flatnonzero(kept)
            rows = valid[self._niches.select(self._rng, candidates.objectives[valid], ranks[valid], p)]
            self._order = np.lexsort((ties, ranks[rows]))
        self._ranked = _Ranked(
            candidates.genes[rows], candidates.objectives[rows], candidates.violation[rows]
        )

    def _record(self, generation: int, brood: _Brood, invalid: int, cached: int, told: np.ndarray) -> None:
        if self._reference is None and len(told):
            worst, best = told.min(axis=0), told.max(axis=0)
            self._reference = worst - 0.1 * np.where(best > worst, best - worst, 1.0)
        volume = math.nan
        if self._reference is not None:
            volume = pareto.hypervolume(self.front.objectives, self._reference)
        grown = volume > self._volume * (1.0 + LEAST_GROWTH)
        stagnation = 0 if grown or generation == 0 else self.progress.stagnation + 1
        if grown:
            self._volume = volume
        kept = self._ranked.violation == 0.0
        first = self._ranked.objectives[kept, 0]
        self.progress = replace(
            self.progress,
            generation=generation,
            evaluations=self.progress.evaluations + len(brood.genes),
            best=float(first.max(initial=-math.inf)),
            median=float(np.median(first)) if first.size else -math.inf,
            mean=float(first.mean()) if first.size else math.nan,
            diversity=float(kernels.diversity(self._ranked.genes)),
            stagnation=stagnation,
            invalid=invalid,
            duplicates=brood.duplicates,
            cached=cached,
            hypervolume=volume,
            front=len(self.front),
            feasible=float(kept.mean()),
            controls=brood.controls,
        )
        self.logbook.append(self.progress.row())

    def _bred(self, controls: GAControls) -> _Brood:
        rng, box, p = self._rng, self._toolbox, self.hyperparameters.population_size
        fresh = min(p, box.round(rng, controls.immigrant_fraction * p))
        genes = np.empty((p, self.space.n_genes))
        m = p - fresh
        parents = box.select(rng, self._order, m, controls.tournament_size)
        genes[:m] = box.breed(rng, self._ranked.genes, self._order, parents, controls).children
        if fresh:
            genes[m:] = self.space.sample(rng, fresh)
        duplicates = self._without_duplicates(genes, controls)
        return _Brood(genes, duplicates, controls)

    def _without_duplicates(self, genes: np.ndarray, controls: GAControls) -> int:
        # Mutate repeated genomes in place until they are new; what still repeats is asked for anyway.
        keys = self.space.keys(genes)
        repeated = self._repeated(keys)
        duplicates = len(repeated)
        for attempt in range(operators.MAX_TRIES):
            if not repeated:
                break
            genes[repeated] = self._toolbox.remutate(self._rng, genes[repeated], controls, attempt)
            for row, key in zip(repeated, self.space.keys(genes[repeated]), strict=True):
                keys[row] = key
            repeated = self._repeated(keys)
        self._seen.update(keys)
        return duplicates

    def _repeated(self, keys: list[bytes]) -> list[int]:
        # Rows whose genome was asked for before, or stands in an earlier row.
        batch: set[bytes] = set()
        repeated = []
        for row, key in enumerate(keys):
            if key in self._seen or key in batch:
                repeated.append(row)
            batch.add(key)
        return repeated

    def state(self) -> dict[str, Any]:
        """Return everything the search goes on from: nested dictionaries of arrays and plain values.

        Raises
        ------
        RuntimeError
            Between ``ask`` and ``tell``.
        """
        if self._brood is not None:
            raise RuntimeError("state() was called between ask() and tell(); tell() the objectives first")
        seen = sorted(self._seen)
        state: dict[str, Any] = {
            "method": self.method,
            "rng": self._rng.bit_generator.state,
            "logbook": [dict(row) for row in self.logbook],
            "volume": self._volume,
            "reference": None if self._reference is None else self._reference.copy(),
            "archive": {name: array.copy() for name, array in vars(self.front).items()},
            "seen": np.frombuffer(b"".join(seen), dtype=np.uint8)
            .reshape(len(seen), -1 if seen else 0)
            .copy(),
            "niches": None if self._niches is None else self._niches.state(),
            "population": None,
        }
        if self._ranked is not None:
            state["population"] = {name: array.copy() for name, array in vars(self._ranked).items()}
            state["population"]["order"] = self._order.copy()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit; this search is new, of the same space, settings and method.

        Raises
        ------
        ValueError
            If the state is of another method.
        """
        if state["method"] != self.method:
            raise ValueError(f"the state is of {state['method']}; this search is {self.method}")
        self._rng.bit_generator.state = state["rng"]
        self.logbook = [dict(row) for row in state["logbook"]]
        self._volume = float(state["volume"])
        self._reference = None if state["reference"] is None else np.array(state["reference"])
        archive = state["archive"]
        self.front = FrontArchive(*(np.array(archive[name]) for name in ("genes", "objectives", "born")))
        self._seen = {key.tobytes() for key in np.ascontiguousarray(state["seen"], dtype=np.uint8)}
        if self._niches is not None:
            self._niches.restore(state["niches"])
        population = state["population"]
        self._brood = self._ranked = self._order = None
        if population is not None:
            names = ("genes", "objectives", "violation")
            self._ranked = _Ranked(*(np.array(population[name]) for name in names))
            self._order = np.array(population["order"])
            self.progress = FrontProgress.of(self.logbook[-1], self.hyperparameters)


class RowEvaluator(Evaluator):
    """An evaluator for searches that need more than the fitness of a genome."""

    def rows(self, genes: np.ndarray, generation: int | None = None) -> np.ndarray:
        """Return fitness and all further numbers remembered of genomes, float64 (m, 1 + e).

        New genomes are evaluated first.

        Parameters
        ----------
        genes : float64 (m, d)
        generation : int, optional
            For the record of calls.
        """
        self(genes, generation)
        return self.known_rows(genes)

    def known_rows(self, genes: np.ndarray) -> np.ndarray:
        """Return the same of genomes that were evaluated before; it counts as nothing.

        Raises
        ------
        KeyError
            If a genome was never evaluated.
        """
        keys = self._space.keys(np.ascontiguousarray(genes, dtype=np.float64))
        return self._memory[[self._row_of[key] for key in keys]]

"""The search itself: ask for genomes, tell their fitness, until the run is over.

One generation, with the controls handed to ``ask``:

1. the elites keep their places; every other place gets one offspring;
2. the places of the least fit go to newcomers: immigrants, and after stagnation a partial restart;
3. of the other places some are defended (their occupant is the parent), the rest are open (a
   tournament winner is the parent);
4. an offspring is made with a difference vector, with a partner, or by mutation alone; all are mutated;
5. an offspring that repeats an evaluated genome is mutated again, before it costs an evaluation;
6. once told, offspring take open places, and defended ones if they are at least as fit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ga import operators
from ga.archive import HallOfFame, genome_keys
from ga.controls import ControlPolicy, GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.population import Population
from ga.progress import CROSSOVER, DIFFERENTIAL, IMMIGRANT, MUTATION, Chronicle, Outcome, Progress
from ga.space import Genome, GenomeSpace

#: How often an offspring that repeats an evaluated genome is mutated again.
MAX_TRIES = 8


@dataclass(frozen=True, eq=False)
class _Brood:
    """Offspring between ask() and tell(); ``m`` is their number."""

    genes: np.ndarray  # float64 (m, d)
    keys: list[bytes]  # (m,)
    places: np.ndarray  # int64 (m,), the row each is meant for
    defended: np.ndarray  # bool (m,)
    parents: np.ndarray  # int64 (m,), the row it is compared with to count successes
    operator: np.ndarray  # int8 (m,), position in OPERATORS
    duplicates: int
    restarted: int
    controls: GAControls | None  # None for the initial population


class Evolution:
    """A genetic algorithm on the unit cube that maximises and owns no evaluation.

    The caller owns the loop: ``ask`` and ``tell`` alternate (:func:`search` is that loop). All state is
    arrays, counters and the generator; the same generator state and the same fitness give the same bytes.

    Parameters
    ----------
    space : GenomeSpace
    hyperparameters : Hyperparameters
    rng : numpy.random.Generator
        The only source of randomness.
    run : str
        Name of the run, part of the champion's origin.
    stagnation_guard : int or None
        Generations without improvement, and since the last restart, after which ``restart_fraction``
        acts. None takes half the patience, or 10 without one.
    hall_size : int
        Size of the hall of fame.
    toolbox : deap.base.Toolbox or None
        Operators by name; None takes :func:`ga.operators.toolbox`.

    Attributes
    ----------
    population : Population
        After the last ``tell``; unevaluated after the first ``ask``. None before it.
    progress : Progress
    logbook : deap.tools.Logbook
        One row of ``Progress.row()`` per generation.
    hall_of_fame : HallOfFame
        The best distinct genomes ever evaluated.
    """

    def __init__(
        self,
        space: GenomeSpace,
        hyperparameters: Hyperparameters,
        rng: np.random.Generator,
        *,
        run: str = "",
        stagnation_guard: int | None = None,
        hall_size: int = 10,
        toolbox: object | None = None,
    ) -> None:
        if stagnation_guard is None:
            stagnation_guard = max(1, hyperparameters.patience // 2) if hyperparameters.patience else 10
        if stagnation_guard < 1:
            raise ValueError(f"stagnation_guard is {stagnation_guard}; it must be at least 1 generation")
        self.space = space
        self.hyperparameters = hyperparameters
        self.population: Population | None = None
        self.hall_of_fame = HallOfFame(space, hall_size, run)
        self.logbook = operators.logbook()
        self._rng = rng
        self._toolbox = operators.toolbox() if toolbox is None else toolbox
        self._guard = stagnation_guard
        self._chronicle = Chronicle(hyperparameters, space.n_genes)
        self.progress: Progress = self._chronicle.start()
        self._order: np.ndarray | None = None  # rows of the population from best to worst
        self._seen: set[bytes] = set()  # every genome ever asked for
        self._since_restart = 0  # generations
        self._brood: _Brood | None = None  # between ask() and tell()

    @property
    def champion(self) -> Genome:
        """The fittest genome ever evaluated.

        Raises
        ------
        ValueError
            If no genome has had a finite fitness yet.
        """
        genomes = self.hall_of_fame.genomes()
        if not genomes:
            raise ValueError("there is no champion: no genome has had a finite fitness yet")
        return genomes[0]

    @property
    def finished(self) -> bool:
        """Whether all generations are bred, or patience is exhausted."""
        patience = self.hyperparameters.patience
        return (
            self.progress.generation >= self.hyperparameters.n_generations
            or 0 < patience <= self.progress.stagnation
        )

    def ask(self, controls: GAControls | None = None) -> np.ndarray:
        """Return the genes, float64 (m, d) and read-only, of the genomes to evaluate next.

        The first call returns the initial population. Later calls return offspring only: survivors
        keep the fitness they have.

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
            raise RuntimeError("ask() was called twice; tell() needs the fitness of the last genomes first")
        if self._order is None:
            self._brood = self._first_brood()
        else:
            if self.finished:
                raise RuntimeError(
                    f"ask() was called after the search finished in generation {self.progress.generation}"
                )
            if not isinstance(controls, GAControls):
                raise TypeError(
                    f"controls are {controls!r}; ask() needs GAControls after the first generation"
                )
            self._brood = self._next_brood(controls)
        self._seen.update(self._brood.keys)
        genes = self._brood.genes.view()
        genes.flags.writeable = False
        return genes

    def tell(self, fitness: ArrayLike, *, cached: int = 0) -> None:
        """Take the fitness of the genomes that ``ask`` returned, and complete the generation.

        Parameters
        ----------
        fitness : float64 (m,)
            In the order of ``ask``, higher is better. NaN counts as the worst, -inf.
        cached : int
            How many were answered from a cache; only counted.

        Raises
        ------
        RuntimeError
            If ``ask`` was not called before.
        ValueError
            If there is not one value per genome, or one is +inf.
        """
        brood = self._brood
        if brood is None:
            raise RuntimeError("tell() was called without ask(); ask() for genomes first")
        fitness = np.array(fitness, dtype=np.float64)
        if fitness.shape != (len(brood.genes),):
            raise ValueError(
                f"fitness has shape {fitness.shape}; tell() needs ({len(brood.genes)},), "
                f"one value per genome returned by ask()"
            )
        if np.any(fitness == np.inf):
            row = int(np.argmax(fitness))
            raise ValueError(f"fitness is +inf in row {row}; nothing could ever be better, so it is an error")
        invalid = ~np.isfinite(fitness)
        fitness[invalid] = -np.inf
        before = self.population
        if brood.controls is None:
            generation = 0
            accepted = improved = np.zeros(len(brood.genes), dtype=bool)
            population = Population(before.genes, fitness, before.age, np.ones(len(before), dtype=bool))
        else:
            generation = self.progress.generation + 1
            improved = fitness > before.fitness[brood.parents]
            accepted = self._toolbox.replace(before.fitness, brood.places, fitness, brood.defended)
            population = _replaced(before, brood, fitness, accepted)
        outcome = Outcome(
            operator=brood.operator,
            improved=improved,
            duplicates=brood.duplicates,
            cached=cached,
            invalid=int(invalid.sum()),
            restarted=brood.restarted,
        )
        self.hall_of_fame.update(brood.genes, fitness, brood.keys, generation)
        self.population = population
        self._order = self._toolbox.order(self._rng, population.fitness)
        self.progress = self._chronicle.record(generation, population, self._order, outcome, brood.controls)
        self.logbook.record(**self.progress.row())
        self._since_restart = 0 if brood.restarted else self._since_restart + 1
        self._brood = None

    def _first_brood(self) -> _Brood:
        p = self.hyperparameters.population_size
        genes = self.space.sample(self._rng, p)
        nobody = np.zeros(p, dtype=bool)
        self.population = Population(genes, np.full(p, np.nan), np.zeros(p, dtype=np.int32), nobody)
        return _Brood(
            genes=genes,
            keys=genome_keys(self.space.decode(genes)),
            places=np.arange(p),
            defended=nobody,
            parents=np.arange(p),
            operator=np.full(p, IMMIGRANT, dtype=np.int8),
            duplicates=0,
            restarted=0,
            controls=None,
        )

    def _next_brood(self, controls: GAControls) -> _Brood:
        rng, box, p = self._rng, self._toolbox, len(self.population)
        elites = min(p - 1, max(1, box.round(rng, controls.elite_fraction * p)))
        places = self._order[elites:]  # the least fit stand last
        immigrants = box.round(rng, controls.immigrant_fraction * places.size)
        restarted = 0
        if min(self.progress.stagnation, self._since_restart) >= self._guard:
            restarted = box.round(rng, controls.restart_fraction * places.size)
        fresh = min(places.size, max(immigrants, restarted))  # the newcomers of a restart are immigrants too
        m = places.size - fresh

        defended = rng.random(places.size) < controls.crowding_rate
        defended[m:] = False
        parents = places.copy()
        winners = box.select(rng, self._order, m, controls.tournament_size)
        parents[:m] = np.where(defended[:m], places[:m], winners)
        bred, operator, always = self._breed(parents[:m], controls)
        genes = np.empty((places.size, self.space.n_genes))
        genes[:m] = box.mutate(
            rng, bred, controls.mutation_rate, controls.mutation_step, controls.mutation_tail, always
        )
        if fresh:
            genes[m:] = self.space.sample(rng, fresh)
        keys, duplicates = self._without_duplicates(genes, controls)
        return _Brood(
            genes=genes,
            keys=keys,
            places=places,
            defended=defended,
            parents=parents,
            operator=np.concatenate([operator, np.full(fresh, IMMIGRANT, dtype=np.int8)]),
            duplicates=duplicates,
            restarted=restarted,
            controls=controls,
        )

    def _breed(self, parents: np.ndarray, controls: GAControls) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Children (m, d) before mutation, how each was made, and which of them are still their parent.
        rng, box, genes, m = self._rng, self._toolbox, self.population.genes, parents.size
        partners = box.select(rng, self._order, m, controls.tournament_size)
        differs = rng.random(m) < controls.differential_rate
        mates = ~differs & (rng.random(m) < controls.crossover_rate)
        operator = np.full(m, MUTATION, dtype=np.int8)
        operator[differs] = DIFFERENTIAL
        operator[mates] = CROSSOVER
        children = genes[parents]
        rows = np.flatnonzero(mates)
        children[rows] = box.mate(rng, children[rows], genes[partners[rows]], controls.crossover_spread)
        rows = np.flatnonzero(differs)
        one = rng.integers(len(genes), size=rows.size)
        other = (one + rng.integers(1, len(genes), size=rows.size)) % len(genes)  # never the same
        children[rows] = box.differ(
            rng,
            children[rows],
            genes[partners[rows]],
            genes[one] - genes[other],
            controls.crossover_rate,
            controls.differential_weight,
        )
        return children, operator, operator == MUTATION

    def _without_duplicates(self, genes: np.ndarray, controls: GAControls) -> tuple[list[bytes], int]:
        # Mutate repeated genomes in place, each try with longer steps of more genes, because around a
        # converged population all neighbours may be known. What still repeats is asked for anyway.
        keys = genome_keys(self.space.decode(genes))
        repeated = self._repeated(keys, range(len(keys)))
        duplicates = len(repeated)
        for attempt in range(MAX_TRIES):
            if not repeated:
                break
            genes[repeated] = self._toolbox.mutate(
                self._rng,
                genes[repeated],
                max(controls.mutation_rate, attempt / MAX_TRIES),
                min(0.5, controls.mutation_step * 4.0**attempt),
                controls.mutation_tail,
                np.ones(len(repeated), dtype=bool),
            )
            for row, key in zip(repeated, genome_keys(self.space.decode(genes[repeated])), strict=True):
                keys[row] = key
            repeated = self._repeated(keys, repeated)
        return keys, duplicates

    def _repeated(self, keys: list[bytes], rows: list[int] | range) -> list[int]:
        # Rows among those given whose genome was asked for before, or stands in another row of the batch.
        asked = self._seen
        if asked.isdisjoint(keys) and len(set(keys)) == len(keys):
            return []
        suspects = set(rows)
        batch = {key for row, key in enumerate(keys) if row not in suspects}
        repeated = []
        for row in rows:
            if keys[row] in asked or keys[row] in batch:
                repeated.append(row)
            batch.add(keys[row])
        return repeated


def _replaced(before: Population, brood: _Brood, fitness: np.ndarray, accepted: np.ndarray) -> Population:
    genes, values, age = before.genes.copy(), before.fitness.copy(), before.age + 1
    places = brood.places[accepted]
    genes[places] = brood.genes[accepted]
    values[places] = fitness[accepted]
    age[places] = 0
    return Population(genes, values, age, before.evaluated)


def search(
    evolution: Evolution,
    evaluator: Evaluator,
    policy: ControlPolicy,
    on_generation: Callable[[Evolution], None] | None = None,
) -> Genome:
    """Run a search to its end and return the champion.

    Parameters
    ----------
    evolution : Evolution
        New, or stopped between two generations.
    evaluator : Evaluator
    policy : ControlPolicy
        Sets the controls of each generation from the progress so far.
    on_generation : callable, optional
        Called with the evolution after every generation, the initial population included.
    """
    while not evolution.finished:
        genes = evolution.ask(policy.controls(evolution.progress))
        hits = evaluator.hits
        fitness = evaluator(genes)
        evolution.tell(fitness, cached=evaluator.hits - hits)
        if on_generation is not None:
            on_generation(evolution)
    return evolution.champion

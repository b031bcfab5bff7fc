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

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import ArrayLike

from ga import kernels, operators
from ga.archive import HallOfFame, Seen
from ga.controls import GAControls, Hyperparameters
from ga.population import Population
from ga.progress import Chronicle, Outcome, Progress
from ga.space import Genome, GenomeSpace
from ga.variation import Variation

_NO_ROWS = np.empty(0, dtype=np.int64)


class _Stream(np.random.Generator):
    """The generator handed in, with a word for numba that spares it to look up the type in every call."""

    _numba_type_ = numba.types.npy_rng


class _Brood(NamedTuple):
    """Offspring between ask() and tell(); ``m`` is their number."""

    genes: np.ndarray  # float64 (m, d)
    keys: np.ndarray  # uint64 (m, 2), digests
    places: np.ndarray  # int64 (m,), the row each is meant for
    defended: np.ndarray  # bool (m,)
    parents: np.ndarray  # int64 (m,), the row it is compared with to count successes
    operator: np.ndarray  # int8 (k,), position in OPERATORS of the first k; the others are immigrants
    weight: np.ndarray  # float64 (k,), F and CR of the children of difference vectors, NaN for others
    rate: np.ndarray
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
    variation : Variation, optional
        Which recombination and mutation the search uses. If it has an archive, ``breed`` is handed
        ``archive``, the individuals (a, d) that fitter ones replaced; without a variation a toolbox of the
        caller's is not.
    toolbox : deap.base.Toolbox or None
        Operators by name; None takes :func:`ga.operators.toolbox` of the variation.

    Attributes
    ----------
    population : Population
        After the last ``tell``; unevaluated after the first ``ask``. None before it.
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
        variation: Variation | None = None,
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
        self._rng = _Stream(rng.bit_generator)
        if variation is None:  # another toolbox need not know of an archive
            variation = Variation() if toolbox is None else Variation(archive=False)
        self._variation = variation
        self._toolbox = operators.toolbox(self._variation) if toolbox is None else toolbox
        self._guard = stagnation_guard
        self._chronicle = Chronicle(hyperparameters, space.n_genes)
        self._logbook = operators.logbook()
        self._order: np.ndarray | None = None  # rows of the population from best to worst
        self._seen = Seen()  # every genome ever asked for
        self._since_restart = 0  # generations
        p = hyperparameters.population_size if self._variation.archive else 0
        self._replaced = np.empty((p, space.n_genes))  # those that fitter ones replaced, a ring
        self._n_replaced = 0  # ever
        self._brood: _Brood | None = None  # between ask() and tell()

    @property
    def progress(self) -> Progress:
        """What the search has shown so far."""
        return self._chronicle.progress

    @property
    def logbook(self) -> operators.Logbook:
        """One row of ``Progress.row()`` per generation; rows are written when somebody looks."""
        for row in self._chronicle.rows(len(self._logbook)):
            self._logbook.record(**row)
        return self._logbook

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
        fitness, invalid = self._measured(fitness, len(brood.genes), "per genome returned by ask()")
        before, generation = self.population, 0
        m = len(fitness)
        improved, gain = np.zeros(m, dtype=bool), np.zeros(m)
        if brood.controls is None:
            everybody = np.ones(len(before), dtype=bool)
            population = Population.owning(before.genes, fitness, before.age, everybody)
        else:
            generation = self.progress.generation + 1
            accepted = self._toolbox.replace(before.fitness, brood.places, fitness, brood.defended)
            if self._variation.archive:
                self._n_replaced = kernels.archive(
                    before.genes,
                    before.fitness,
                    brood.places,
                    fitness,
                    accepted,
                    self._replaced,
                    self._n_replaced,
                )
            genes, values = np.empty_like(before.genes), np.empty_like(before.fitness)
            age = np.empty_like(before.age)
            kernels.succeed(
                before.genes,
                before.fitness,
                before.age,
                brood.places,
                brood.parents,
                brood.genes,
                fitness,
                accepted,
                genes,
                values,
                age,
                improved,
                gain,
            )
            population = Population.owning(genes, values, age, before.evaluated)
        outcome = Outcome(
            operator=brood.operator,
            improved=improved,
            gain=gain,
            weight=brood.weight,
            rate=brood.rate,
            duplicates=brood.duplicates,
            cached=cached,
            invalid=invalid,
            restarted=brood.restarted,
        )
        self.hall_of_fame.update(brood.genes, fitness, brood.keys, generation)
        self.population = population
        self._order = self._toolbox.order(self._rng, population.fitness)
        self._chronicle.record(generation, population, self._order, outcome, brood.controls)
        self._since_restart = 0 if brood.restarted else self._since_restart + 1
        self._brood = None

    def reassess(self, fitness: ArrayLike) -> None:
        """Replace the fitness of the whole population, between two generations: it is measured anew.

        For a fitness that changes with time, such as a rotating window of data. The hall of fame is
        rebuilt from the population, since older values no longer compare; generation, stagnation and the
        log rows written so far stay.

        Parameters
        ----------
        fitness : float64 (p,)
            In the order of ``population``, as in :meth:`tell`.

        Raises
        ------
        RuntimeError
            Between ``ask`` and ``tell``, and before the initial population is evaluated.
        ValueError
            As in :meth:`tell`.
        """
        self._between("reassess()")
        before = self.population
        fitness, _ = self._measured(fitness, len(before), "per individual of the population")
        self.population = Population.owning(before.genes, fitness, before.age, before.evaluated)
        self._order = self._toolbox.order(self._rng, fitness)
        self.hall_of_fame.clear()
        born = self.progress.generation - before.age
        rows = self._order  # best first, so that of equals the one that stands higher is kept
        keys = self.space.digests(before.genes)
        self.hall_of_fame.update(before.genes[rows], fitness[rows], keys[rows], born[rows].astype(np.int64))
        self._chronicle.reassess(self.population, self._order)

    def immigrate(self, genes: ArrayLike, fitness: ArrayLike) -> None:
        """Let evaluated genomes from elsewhere take the places of the worst, between two generations.

        How islands exchange individuals. Genomes that are known here already are welcome too. A migrant
        that is fitter than all natives counts as an improvement in the next generation.

        Parameters
        ----------
        genes : float64 (k, d)
            In the unit cube.
        fitness : float64 (k,)
            On the same measure as that of the population; NaN counts as -inf.

        Raises
        ------
        RuntimeError
            Between ``ask`` and ``tell``, and before the initial population is evaluated.
        ValueError
            If there are more migrants than individuals that are not elites, genes are not k rows of numbers
            from 0 to 1, or fitness is not one number per migrant.
        """
        self._between("immigrate()")
        before = self.population
        genes = np.array(genes, dtype=np.float64, order="C")
        if genes.ndim != 2 or genes.shape[1] != self.space.n_genes:
            raise ValueError(
                f"migrants have genes of shape {genes.shape}; they need (k, {self.space.n_genes})"
            )
        if not ((genes >= 0.0) & (genes <= 1.0)).all():
            raise ValueError("a migrant has a gene outside the unit cube; genes lie between 0 and 1")
        fitness, _ = self._measured(fitness, len(genes), "per migrant")
        controls, p = self.progress.controls, len(before)
        elites = max(1, int(controls.elite_fraction * p)) if controls else 1
        if len(genes) > p - elites:
            raise ValueError(f"{len(genes)} migrants come to {p} individuals with {elites} elites; too many")
        if len(genes) == 0:
            return
        places = self._order[p - len(genes) :]
        arrays = [array.copy() for array in (before.genes, before.fitness, before.age)]
        for array, values in zip(arrays, (genes, fitness, 0), strict=True):
            array[places] = values
        self.population = Population.owning(*arrays, before.evaluated)
        keys = self.space.digests(genes)
        self._seen.enter(keys)
        self.hall_of_fame.update(genes, fitness, keys, self.progress.generation)
        self._order = self._toolbox.order(self._rng, self.population.fitness)

    def state(self) -> dict[str, Any]:
        """Return everything that :meth:`restore` needs to go on bit for bit, between two generations.

        Nested dictionaries and lists of NumPy arrays, numbers, texts, booleans and None; nothing in them
        changes when the search goes on.

        Raises
        ------
        RuntimeError
            Between ``ask`` and ``tell``.
        """
        if self._brood is not None:
            raise RuntimeError("state() was called between ask() and tell(); tell() the fitness first")
        population, started = self.population, self._order is not None
        return {
            "population": {
                "genes": population.genes.copy(),
                "fitness": population.fitness.copy(),
                "age": population.age.copy(),
            }
            if started
            else None,
            "order": self._order.copy() if started else None,
            "hall_of_fame": self.hall_of_fame.state(),
            "chronicle": self._chronicle.state(),
            "seen": self._seen.state(),
            "since_restart": self._since_restart,
            "replaced": self._replaced[: self._n_replaced].copy(),
            "n_replaced": self._n_replaced,
            "rng": copy.deepcopy(self._rng.bit_generator.state),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned, in a new search of the same space and hyperparameters.

        Raises
        ------
        RuntimeError
            If this search has begun.
        ValueError
            If the state belongs to another population size, space, length of run or kind of generator.
        """
        if self._brood is not None or self._order is not None:
            raise RuntimeError("restore() was called after ask(); only a new search takes over a state")
        expected = (self.hyperparameters.population_size, self.space.n_genes)
        saved = state["population"]
        if saved is not None and np.shape(saved["genes"]) != expected:
            raise ValueError(
                f"the saved population has shape {np.shape(saved['genes'])}; this search needs {expected}"
            )
        n_replaced, rows = int(state["n_replaced"]), np.shape(state["replaced"])
        if rows != (min(n_replaced, len(self._replaced)), self.space.n_genes):
            raise ValueError(
                f"the saved archive of replaced individuals has shape {rows} of {n_replaced} ever; "
                f"this search keeps {len(self._replaced)}"
            )
        self._rng.bit_generator.state = copy.deepcopy(state["rng"])
        self.hall_of_fame.restore(state["hall_of_fame"])
        self._chronicle.restore(state["chronicle"])
        self._seen.restore(state["seen"])
        self._since_restart = int(state["since_restart"])
        self._n_replaced = n_replaced
        self._replaced[: len(state["replaced"])] = state["replaced"]
        if saved is not None:
            self.population = Population(
                saved["genes"], saved["fitness"], saved["age"], np.ones(expected[0], dtype=bool)
            )
            self._order = np.array(state["order"], dtype=np.int64)

    def _between(self, call: str) -> None:
        if self._brood is not None or self._order is None:
            when = "before tell() completed the generation" if self._brood is not None else "before ask()"
            raise RuntimeError(f"{call} was called {when}; it works between two generations")

    def _measured(self, fitness: ArrayLike, n: int, which: str) -> tuple[np.ndarray, int]:
        # The fitness as our own array with -inf for what is not finite, and how many that were.
        fitness = np.array(fitness, dtype=np.float64)
        if fitness.shape != (n,):
            raise ValueError(f"fitness has shape {fitness.shape}; it needs ({n},), one value {which}")
        valid = np.isfinite(fitness)
        if valid.all():
            return fitness, 0
        if np.any(fitness == np.inf):
            row = int(np.argmax(fitness))
            raise ValueError(f"fitness is +inf in row {row}; nothing could ever be better, so it is an error")
        fitness[~valid] = -np.inf
        return fitness, int(n - valid.sum())

    def _first_brood(self) -> _Brood:
        p = self.hyperparameters.population_size
        genes = self.space.sample(self._rng, p)
        keys = self.space.digests(genes)
        self._seen.enter(keys)
        nobody = np.zeros(p, dtype=bool)
        self.population = Population(genes, np.full(p, np.nan), np.zeros(p, dtype=np.int32), nobody)
        return _Brood(
            genes=genes,
            keys=keys,
            places=np.arange(p),
            defended=nobody,
            parents=np.arange(p),
            operator=np.empty(0, dtype=np.int8),
            weight=np.empty(0),
            rate=np.empty(0),
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
        parents[:m] = box.select(rng, self._order, m, controls.tournament_size)
        np.copyto(parents, places, where=defended)
        archive = {"archive": self._replaced[: self._n_replaced]} if self._variation.archive else {}
        genes, operator, weight, rate = box.breed(
            rng, self.population.genes, self._order, parents[:m], controls, **archive
        )
        if fresh:
            genes = np.concatenate([genes, self.space.sample(rng, fresh)])
        keys, duplicates = self._without_duplicates(genes, controls)
        return _Brood(
            genes=genes,
            keys=keys,
            places=places,
            defended=defended,
            parents=parents,
            operator=operator,
            weight=weight,
            rate=rate,
            duplicates=duplicates,
            restarted=restarted,
            controls=controls,
        )

    def _without_duplicates(self, genes: np.ndarray, controls: GAControls) -> tuple[np.ndarray, int]:
        # Mutate repeated genomes in place: those asked for before, or equal to an earlier row. What still
        # repeats after some tries is asked for anyway.
        keys = self.space.digests(genes)
        repeated = self._repeated(keys)
        duplicates = len(repeated)
        for attempt in range(operators.MAX_TRIES):
            if len(repeated) == 0:
                break
            mutants = self._toolbox.remutate(self._rng, genes[repeated], controls, attempt)
            genes[repeated] = mutants
            keys[repeated] = again = self.space.digests(mutants)
            repeated = repeated[self._repeated(again)]
        return keys, duplicates

    def _repeated(self, keys: np.ndarray) -> np.ndarray:
        # Rows whose genome was seen before; all are seen from now on.
        new = self._seen.enter(keys)
        return np.flatnonzero(~new) if not new.all() else _NO_ROWS

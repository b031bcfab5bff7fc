"""Islands: several populations that evolve apart and now and then exchange their best.

Apart, populations end in different valleys; a migrant that is better than what lives in the next valley
takes it over within some generations, so islands trade speed for breadth. The population size of the run is
that of all islands together, so that a search costs the same with and without them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from compute.seeds import stream
from configs.load import Config, ConfigError
from ga.archive import HallOfFame
from ga.controls import ControlPolicy, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.population import Population
from ga.progress import Progress
from ga.space import Genome, GenomeSpace

LEAST_ISLAND = 8  # individuals, as of any population


class IslandsConfig(Config):
    """How a population is spread over islands."""

    count: int = Field(1, ge=1, le=64, description="Islands; the population is divided between them.")
    interval: int = Field(10, ge=1, le=100_000, description="Generations between two migrations.")
    migrants: int = Field(
        2, ge=1, le=64, description="Best individuals that each island sends to the next one in the ring."
    )

    def sizes(self, population_size: int) -> list[int]:
        """Return the population of each island; the first ones hold the remainder.

        Raises
        ------
        ConfigError
            If an island would be too small to evolve.
        """
        share, rest = divmod(population_size, self.count)
        if share < max(LEAST_ISLAND, 2 * self.migrants):
            raise ConfigError(
                f"islands.count is {self.count} for a population of {population_size}: an island would hold "
                f"{share}; it must hold at least {LEAST_ISLAND}, and twice the {self.migrants} migrants"
            )
        return [share + (i < rest) for i in range(self.count)]


class Islands:
    """Several evolutions in one, with the interface of :class:`ga.evolution.Evolution`.

    Each island draws from its own random stream, so that its first generations do not depend on how many
    others there are. Controls are asked for island by island: ``ask`` takes one :class:`GAControls` per
    island that still evolves (:class:`IslandPolicies` makes them).

    Parameters
    ----------
    space : GenomeSpace
    hyperparameters : Hyperparameters
        Of the whole; see :meth:`IslandsConfig.sizes`.
    config : IslandsConfig
    seed : int
        Root of the islands' random streams.
    **further
        Passed on to every :class:`ga.evolution.Evolution`.

    Raises
    ------
    ConfigError
        If the population is too small for so many islands.
    """

    def __init__(
        self,
        space: GenomeSpace,
        hyperparameters: Hyperparameters,
        config: IslandsConfig,
        seed: int,
        **further: Any,
    ) -> None:
        sizes = config.sizes(hyperparameters.population_size)
        self.space = space
        self.hyperparameters = hyperparameters
        self.islands = [
            Evolution(
                space,
                hyperparameters.model_copy(update={"population_size": size}),
                stream(seed, "ga", "island", i),
                **further,
            )
            for i, size in enumerate(sizes)
        ]
        self._config = config
        self._asked: list[tuple[int, int]] = []  # island and number of genomes, between ask() and tell()

    @property
    def finished(self) -> bool:
        """Whether every island has finished; one that ran out of patience waits for migrants until then."""
        return all(island.finished for island in self.islands)

    @property
    def leader(self) -> Evolution:
        """The island with the fittest individual; of several the first."""
        return max(self.islands, key=lambda island: island.progress.best)

    @property
    def progress(self) -> Progress:
        """The leading island's progress, with the generation and the evaluations of the whole."""
        return replace(
            self.leader.progress,
            generation=max(island.progress.generation for island in self.islands),
            evaluations=sum(island.progress.evaluations for island in self.islands),
        )

    @property
    def progresses(self) -> tuple[Progress, ...]:
        """The progress of each island that still evolves."""
        return tuple(island.progress for island in self.islands if not island.finished)

    @property
    def population(self) -> Population | None:
        """All individuals, island after island; None before the first ``ask``."""
        parts = [island.population for island in self.islands]
        if any(part is None for part in parts):
            return None
        return Population(*(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS))

    @property
    def hall_of_fame(self) -> HallOfFame:
        """The best distinct genomes of all islands; of equals that of the first island stands higher."""
        joined = HallOfFame(self.space, self.islands[0].hall_of_fame.size)
        for island in self.islands:
            genomes = island.hall_of_fame.genomes()
            if genomes:
                genes = np.array([genome.genes for genome in genomes])
                fitness = np.array([genome.fitness for genome in genomes])
                born = np.array([genome.origin[1] for genome in genomes])
                joined.update(genes, fitness, self.space.keys(genes), born)
        return joined

    @property
    def champion(self) -> Genome:
        """The fittest genome ever evaluated; of equals that of the first island."""
        return max(
            (island.champion for island in self.islands if len(island.hall_of_fame)),
            key=lambda genome: genome.fitness,
        )

    @property
    def logbook(self) -> list[dict[str, Any]]:
        """One row per generation and island, in this order, each with its ``island``."""
        rows = [{**row, "island": i} for i, island in enumerate(self.islands) for row in island.logbook]
        return sorted(rows, key=lambda row: row["generation"])  # stable: islands stay in order

    def ask(self, controls: Sequence[GAControls] | None = None) -> np.ndarray:
        """Return the genes to evaluate next, of all islands that still evolve, float64 (m, d)."""
        evolving = [i for i, island in enumerate(self.islands) if not island.finished]
        if controls is not None and len(controls) != len(evolving):
            raise ValueError(f"{len(controls)} controls for {len(evolving)} islands; ask() needs one each")
        parts = [
            self.islands[i].ask(None if controls is None else controls[k]) for k, i in enumerate(evolving)
        ]
        self._asked = [(i, len(part)) for i, part in zip(evolving, parts, strict=True)]
        genes = np.concatenate(parts)
        genes.flags.writeable = False
        return genes

    def tell(self, fitness: np.ndarray, *, known: np.ndarray | None = None) -> None:
        """Take the fitness of the genomes of ``ask``; every ``interval`` generations the best migrate.

        Parameters
        ----------
        fitness : float64 (m,)
        known : bool (m,), optional
            Which answers came from a cache.
        """
        start = 0
        for i, m in self._asked:
            part = slice(start, start + m)
            self.islands[i].tell(fitness[part], cached=0 if known is None else int(known[part].sum()))
            start += m
        self._asked = []
        generation = max(island.progress.generation for island in self.islands)
        if len(self.islands) > 1 and generation and generation % self._config.interval == 0:
            self._migrate()

    def reassess(self, fitness: np.ndarray) -> None:
        """Replace the fitness of all individuals, in the order of :attr:`population`."""
        start = 0
        for island in self.islands:
            stop = start + len(island.population)
            island.reassess(fitness[start:stop])
            start = stop

    def state(self) -> dict[str, Any]:
        """Return everything that the search goes on from; see :meth:`ga.evolution.Evolution.state`."""
        return {"islands": [island.state() for island in self.islands]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of as many islands."""
        if len(state["islands"]) != len(self.islands):
            raise ValueError(
                f"the state is of {len(state['islands'])} islands; this search has {len(self.islands)}"
            )
        for island, part in zip(self.islands, state["islands"], strict=True):
            island.restore(part)

    def _migrate(self) -> None:
        # All leave before any arrives, so that nobody travels twice in one migration.
        leaving = []
        for island in self.islands:
            population = island.population
            best = np.argsort(-population.fitness, kind="stable")[: self._config.migrants]
            leaving.append((population.genes[best], population.fitness[best]))
        for i, (genes, fitness) in enumerate(leaving):
            there = self.islands[(i + 1) % len(self.islands)]
            if not there.finished:
                there.immigrate(genes, fitness)


class IslandPolicies:
    """One policy per island: what one learned of its island says nothing about another.

    Parameters
    ----------
    policies : sequence of ControlPolicy
    """

    def __init__(self, policies: Sequence[ControlPolicy]) -> None:
        self.policies = list(policies)

    def controls_of(self, islands: Islands) -> tuple[GAControls, ...]:
        """Return the controls of each island that still evolves."""
        return tuple(
            policy.controls(island.progress)
            for policy, island in zip(self.policies, islands.islands, strict=True)
            if not island.finished
        )

    def state(self) -> dict[str, Any]:
        """Return what the policies remember."""
        return {"policies": [policy.state() for policy in self.policies]}

    def restore(self, state: dict[str, Any]) -> None:
        """Give every policy its memory back."""
        for policy, part in zip(self.policies, state["policies"], strict=True):
            policy.restore(part)


_ARRAYS = ("genes", "fitness", "age", "evaluated")

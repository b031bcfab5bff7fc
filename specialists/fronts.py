"""Evolving a front of specialists (``--search nsga2``, ``--search nsga3``), and choosing one of it.

A front shows what return costs in drawdown and in trading; one specialist of it is judged. Which one is
decided by a rule on in-sample figures alone, before the test rows are opened: see :func:`knee`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from backtest.kernels import LANES
from compute.seeds import stream
from compute.workers import Mapper
from configs.load import Config, ConfigError
from experiments.runs import Run
from experiments.trials import TrialMatrix
from ga.controls import ControlPolicy
from ga.front import FrontArchive
from ga.multiobjective import FRONT_CONTROLS, METHODS, MultiObjectiveEvolution, RowEvaluator
from ga.policies import FixedPolicy, ScheduledPolicy
from ga.space import Genome
from ga.variation import Variation
from specialists.objectives import COLUMNS, MEANINGS, OBJECTIVES, VIOLATION, FrontFitness
from specialists.training import Evolved, Ground, SpecialistConfig, SpecialistSearch, judge

#: Policies that need no single fitness to go by.
POLICIES_FOR_FRONTS = (FixedPolicy, ScheduledPolicy)

#: Called after each generation, for example to draw or to note trials.
Watch = Callable[[MultiObjectiveEvolution, RowEvaluator], None]


class FrontConfig(Config):
    """How a front is searched for."""

    divisions: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Divisions per objective of the reference directions (nsga3). By default as many as give "
        "no more directions than individuals.",
    )
    archive: int = Field(500, ge=10, le=10_000, description="Most specialists kept on the front.")


@dataclass(frozen=True, eq=False)
class Front:
    """A front of specialists, and the one that was chosen; all figures are of the training rows.

    Parameters
    ----------
    method : str
        ``nsga2`` or ``nsga3``.
    genomes : tuple of Genome
        Highest net return first; the fitness of each is that of a search for one champion.
    objectives : float64 (n, 3)
        In the order of ``specialists.objectives.OBJECTIVES``, higher is better.
    ids : tuple of str
        Short names: the first twelve digits of what tells genomes apart.
    chosen : int
        Row of the chosen one, see :func:`knee`.
    hypervolume : float
        Of the front, in the units of the objectives, beyond the worst of the first generation.
    evolved : Evolved
        The chosen specialist as a champion, for the test and the verdict.
    """

    method: str
    genomes: tuple[Genome, ...]
    objectives: np.ndarray
    ids: tuple[str, ...]
    chosen: int
    hypervolume: float
    evolved: Evolved

    def document(self) -> dict[str, Any]:
        """Return the front as plain objects for JSON."""
        space = self.evolved.specialist.family.space
        return {
            "search": self.method,
            "sample": "in-sample",
            "objectives": dict(zip(OBJECTIVES, MEANINGS, strict=True)),
            "hypervolume": self.hypervolume,
            "chosen": self.ids[self.chosen],
            "rule": RULE,
            "front": [
                {
                    "id": one,
                    "born": genome.origin[1],
                    "fitness": genome.fitness,
                    "objectives": dict(zip(OBJECTIVES, values, strict=True)),
                    "genes": space.values(genome.genes),
                }
                for one, genome, values in zip(self.ids, self.genomes, self.objectives.tolist(), strict=True)
            ],
        }


#: The rule of :func:`knee` in one sentence, for reports.
RULE = (
    "Of the specialists whose net return bound is above zero, the one closest to the best value of every "
    "objective, each measured on the range that these specialists span; without any, the highest bound."
)


def knee(objectives: np.ndarray) -> int:
    """Return the row that gives up least of every objective; the first of equals.

    Parameters
    ----------
    objectives : float64 (n, k)
        A front, higher is better; the first objective is the net return bound.

    Source: Zeleny (1973), compromise programming: the Euclidean distance to the ideal point.
    """
    paying = np.flatnonzero(objectives[:, 0] > 0.0)
    if not paying.size:
        return int(np.argmax(objectives[:, 0]))
    values = objectives[paying]
    best, span = values.max(axis=0), np.ptp(values, axis=0)
    lost = (best - values) / np.where(span > 0.0, span, 1.0)
    return int(paying[np.argmin((lost**2).sum(axis=1))])


class FrontSearch:
    """A search for a front that is ready to start; between two steps its state can be saved.

    Parameters
    ----------
    ready : SpecialistSearch
        Ground, settings and fitness of the specialists.
    workers : Mapper
    method : {"nsga2", "nsga3"}
    settings : FrontConfig, optional
    run : str
        Name of the run, part of each genome's origin.

    Attributes
    ----------
    evolution : MultiObjectiveEvolution
    evaluator : RowEvaluator
    trials : TrialMatrix
        What the evaluated genomes earned per block of time; its fittest is by the single fitness.

    Raises
    ------
    ConfigError
        If the policy needs a single fitness, the fitness is to rotate, or there are to be islands.
    """

    def __init__(
        self,
        ready: SpecialistSearch,
        workers: Mapper,
        method: str = "nsga2",
        settings: FrontConfig | None = None,
        run: str = "",
    ) -> None:
        settings = FrontConfig() if settings is None else settings
        config = ready.config
        if method not in METHODS:
            raise ConfigError(f"search {method!r} is none for fronts; it must be {' or '.join(METHODS)}")
        if not isinstance(ready.policy, POLICIES_FOR_FRONTS):
            raise ConfigError(
                f"policy.name is {config.policy.name}; a search for a front has no single fitness to adapt "
                f"to, so it must be fixed or scheduled"
            )
        if ready.fitness.rotates:
            raise ConfigError(
                f"fitness.rotation is {config.fitness.rotation:g}; it must be 1 in a search for a front, "
                f"whose members come from different generations"
            )
        if config.islands.count > 1:
            raise ConfigError(
                f"islands.count is {config.islands.count}; it must be 1 in a search for a front, which keeps "
                f"its population spread by itself"
            )
        self.ready = ready
        self.method = method
        self.run = run
        self.policy: ControlPolicy = ready.policy
        if config.policy.name == "fixed" and not config.policy.settings:  # nobody asked for other controls
            self.policy = FixedPolicy(FixedPolicy.Config(**FRONT_CONTROLS.to_dict()))
        self.fitness = FrontFitness.of(ready.fitness)
        family = self.fitness.family
        space = family.space
        self.trials = TrialMatrix(self.fitness.block_bars)
        self.evaluator = RowEvaluator(
            self.fitness, space, workers, chunk_size=LANES, witness=self.trials.append
        )
        self.evolution = MultiObjectiveEvolution(
            space,
            config.hyperparameters,
            stream(config.seed, "ga", method),
            len(OBJECTIVES),
            method,
            divisions=settings.divisions if method == "nsga3" else None,
            archive_size=settings.archive,
            variation=None if config.variation == Variation() else config.variation,
            toolbox=family.toolbox() if hasattr(family, "toolbox") else None,
        )

    @property
    def finished(self) -> bool:
        """Whether the evolution is over."""
        return self.evolution.finished

    def step(self, before_tell: Callable[[], None] | None = None) -> None:
        """Breed, evaluate and tell one generation; see :meth:`ga.searching.Search.step`."""
        evolution, evaluator = self.evolution, self.evaluator
        began = evolution.population is not None
        genes = evolution.ask(self.policy.controls(evolution.progress) if began else None)
        hits = evaluator.hits
        rows = evaluator.rows(genes, evolution.progress.generation + 1 if began else 0)
        if before_tell is not None:
            before_tell()
        evolution.tell(rows[:, COLUMNS], rows[:, VIOLATION], cached=evaluator.hits - hits)

    def front(self) -> Front:
        """Return what was found so far, with the chosen specialist traded on the training rows.

        Raises
        ------
        ConfigError
            If no genome trades as often as ``fitness.min_trades`` asks.
        """
        archive = self.evolution.front
        if not len(archive):
            raise ConfigError(
                f"fitness.min_trades is {self.ready.config.fitness.min_trades}; no genome of the search "
                f"traded so often, so there is no front: lower it, or search longer"
            )
        space = self.fitness.family.space
        fitness = self.evaluator.known_rows(archive.genes)[:, 0]
        genomes = tuple(
            Genome(genes, space.name, float(value), (self.run, int(born)))
            for genes, value, born in zip(archive.genes, fitness, archive.born, strict=True)
        )
        chosen = knee(archive.objectives)
        return Front(
            method=self.method,
            genomes=genomes,
            objectives=archive.objectives,
            ids=tuple(key.hex()[:12] for key in space.keys(archive.genes)),
            chosen=chosen,
            hypervolume=self.evolution.progress.hypervolume,
            evolved=self._evolved(genomes, chosen, archive),
        )

    def _evolved(self, genomes: tuple[Genome, ...], chosen: int, archive: FrontArchive) -> Evolved:
        ready, champion = self.ready, genomes[chosen]
        ground, config = ready.ground, ready.config
        train = ground.split.train
        specialist = ready.specialist(champion)
        in_sample = judge(specialist, ground, train, config.costs, config.venue)
        fallen, known = in_sample.metrics.max_drawdown, archive.objectives[chosen, 1]
        if not abs(fallen - known) <= 1e-9:  # what was evolved must be what is traded
            raise RuntimeError(
                f"the population kernel found a drawdown of {known!r} and the streaming specialist "
                f"{fallen!r} on the same bars; they must agree"
            )
        evaluator = self.evaluator
        return Evolved(
            specialist=specialist,
            fitness=champion.fitness,
            generations=[dict(row) for row in self.evolution.logbook],
            in_sample=in_sample,
            trial_sharpes=evaluator.details()[:, 0],
            trials=self.trials,
            hall_of_fame=(champion, *(one for one in genomes if one is not champion)),
            n_evaluated=evaluator.asked,
            n_unique=evaluator.evaluations,
            n_avoided=evaluator.hits,
            hit_rate=evaluator.hit_rate,
        )

    def evolved(self) -> Evolved:
        """Return the chosen specialist of :meth:`front` as a champion."""
        return self.front().evolved

    def state(self) -> dict[str, Any]:
        """Return everything the search goes on from: nested dictionaries of arrays and plain values."""
        return {
            "evolution": self.evolution.state(),
            "evaluator": self.evaluator.state(),
            "trials": self.trials.state(),
            "policy": self.policy.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit as the search that was stopped there would have."""
        self.evolution.restore(state["evolution"])
        self.evaluator.restore(state["evaluator"])
        self.trials.restore(state["trials"])
        self.policy.restore(state["policy"])


def evolve_front(
    ground: Ground,
    config: SpecialistConfig,
    workers: Mapper,
    on_generation: Watch | None = None,
    method: Literal["nsga2", "nsga3"] = "nsga2",
    settings: FrontConfig | None = None,
) -> Front:
    """Search the training rows for a front of specialists.

    The same ground, config and seed give the same bytes, whatever the workers.

    Parameters
    ----------
    ground : Ground
    config : SpecialistConfig
    workers : Mapper
        Where evaluations run.
    on_generation : callable, optional
        Called after each generation with the search and the evaluator.
    method : {"nsga2", "nsga3"}
    settings : FrontConfig, optional
    """
    search = FrontSearch(SpecialistSearch.of(ground, config), workers, method, settings)
    while not search.finished:
        search.step()
        if on_generation is not None:
            on_generation(search.evolution, search.evaluator)
    return search.front()


def save_front(run: Run, front: Front, title: str) -> dict[str, str]:
    """Write ``front.json`` and ``plots/front.png``; return the caption of each picture by its path."""
    from specialists.figures import draw_front

    run.write_json("front.json", front.document())
    with run.writing("plots/front.png") as draft:
        draw_front(front.objectives, front.chosen, draft, f"{title}: the front in sample")
    return {"plots/front.png": "The front on the training rows; the ring marks the specialist that is judged"}

"""Evolving an archive of specialists that differ (``--search map_elites``).

One grid per regime: trade frequency, holding time and net exposure; each cell keeps the specialist with the
highest fitness. The regime ``all`` means here: every regime that occurs often enough, each with a grid of
its own, in turns.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from backtest.kernels import LANES
from compute.seeds import stream
from compute.workers import Mapper
from configs.load import Config, ConfigError
from experiments.trials import TrialMatrix
from ga.elites import Elites, ElitesProgress, MapElites
from ga.multiobjective import RowEvaluator
from ga.space import Genome
from regimes.regime import Regime
from specialists.niches import AXES, COLUMNS, NicheFitness
from specialists.training import (
    LEAST_AWAKE,
    Evolved,
    Ground,
    SpecialistConfig,
    SpecialistSearch,
    judge,
)

#: Called after each generation with the search of all regimes and all evaluations so far.
Watch = Callable[["Archives", "Evaluations"], None]


class ArchiveConfig(Config):
    """How an archive is searched for."""

    emitters: tuple[Literal["gaussian", "line", "improvement", "sample"], ...] = Field(
        MapElites.DEFAULT,
        min_length=1,
        description="What proposes genomes: gaussian steps from elites, steps along the line between two, "
        "improvement (CMA-ES climbs where the archive improves; half of the genomes), uniform samples.",
    )


class Evaluations:
    """The evaluations of searches that take turns, as if one evaluator had made them.

    Parameters
    ----------
    evaluators : sequence of RowEvaluator
        Each is called once per generation, in this order.
    """

    def __init__(self, evaluators: Sequence[RowEvaluator]) -> None:
        self._evaluators = tuple(evaluators)

    @property
    def evaluations(self) -> int:
        """Genomes the fitness was called for."""
        return sum(one.evaluations for one in self._evaluators)

    @property
    def hits(self) -> int:
        """Genomes answered without calling it."""
        return sum(one.hits for one in self._evaluators)

    @property
    def asked(self) -> int:
        """Answers given."""
        return sum(one.asked for one in self._evaluators)

    @property
    def hit_rate(self) -> float:
        """Share of the offspring that cost no evaluation; 0 before there were offspring."""
        later = self.calls[self.calls[:, 0] != 0]
        offspring = int(later[:, 1:3].sum())
        return int(later[:, 2].sum()) / offspring if offspring else 0.0

    @property
    def calls(self) -> np.ndarray:
        """Every call in the order made, int64 (calls, 4), see :class:`ga.evaluation.Evaluator`."""
        calls = np.concatenate([one.calls for one in self._evaluators])
        return calls[self._turns(calls)]

    def details(self) -> np.ndarray:
        """Return the further numbers of every evaluation in the order made, (evaluations, e)."""
        calls = np.concatenate([one.calls for one in self._evaluators])
        known = [one.details() for one in self._evaluators if one.evaluations]
        if not known:
            return np.empty((0, 0))
        ends = np.cumsum(calls[:, 1])
        turns = self._turns(calls)
        rows = [np.arange(ends[turn] - calls[turn, 1], ends[turn]) for turn in turns]
        return np.concatenate(known)[np.concatenate(rows)]

    @staticmethod
    def _turns(calls: np.ndarray) -> np.ndarray:
        return np.argsort(calls[:, 0], kind="stable")  # by generation


class Archives:
    """The searches of several regimes that take turns, seen as one.

    Parameters
    ----------
    searches : sequence of MapElites

    Attributes
    ----------
    population : None
        There is none: each archive is its own.
    logbook : list of dict
        One row per generation, of all archives together.
    """

    population = None

    def __init__(self, searches: Sequence[MapElites]) -> None:
        self.searches = tuple(searches)
        self.logbook: list[dict[str, float | int]] = []

    @property
    def finished(self) -> bool:
        """Whether the search of every regime is over."""
        return all(one.finished for one in self.searches)

    @property
    def progress(self) -> ElitesProgress:
        """The progress of all archives together: sums, the best, medians and means over the elites."""
        every = [one.progress for one in self.searches]
        elites = [one.elites for one in self.searches]
        objective = np.concatenate([one.objective for one in elites])
        filled = np.array([len(one) for one in elites])
        diversity = np.array([one.diversity for one in every])
        return ElitesProgress(
            generation=max(one.generation for one in every),
            evaluations=sum(one.evaluations for one in every),
            best=max(one.best for one in every),
            median=float(np.median(objective)) if objective.size else -math.inf,
            diversity=float(diversity @ filled / max(1, filled.sum())),
            stagnation=min(one.stagnation for one in every),
            coverage=float(filled.sum() / sum(one.n_cells for one in self.searches)),
            qd_score=sum(one.qd_score for one in every),
            positive=sum(one.positive for one in every),
            invalid=sum(one.invalid for one in every),
        )


@dataclass(frozen=True, eq=False)
class RegimeElites:
    """The archive of one regime, on the training rows.

    Parameters
    ----------
    regime : Regime
    search : SpecialistSearch
        Scaling and fitness of its specialists.
    elites : Elites
        The fitness is the objective.
    n_cells : int
    """

    regime: Regime
    search: SpecialistSearch
    elites: Elites
    n_cells: int


@dataclass(frozen=True, eq=False)
class Archive:
    """Archives of one or several regimes, and the best of all elites as a champion.

    Parameters
    ----------
    regimes : tuple of RegimeElites
    evolved : Evolved
        The elite with the highest fitness in sample, for the test and the verdict.
    """

    regimes: tuple[RegimeElites, ...]
    evolved: Evolved

    def __len__(self) -> int:
        return sum(len(one.elites) for one in self.regimes)

    @property
    def n_cells(self) -> int:
        """Cells of all regimes."""
        return sum(one.n_cells for one in self.regimes)

    @property
    def objective(self) -> np.ndarray:
        """Fitness of all elites in sample, float64 (n,), regime after regime."""
        return np.concatenate([one.elites.objective for one in self.regimes])

    def fingerprint(self) -> str:
        """Return the SHA-256 of all genes and their regimes: which archive is looked at."""
        digest = hashlib.sha256()
        for one in self.regimes:
            digest.update(one.regime.text.encode())
            digest.update(one.elites.genes.tobytes())
        return digest.hexdigest()


class ArchiveSearch:
    """A search for archives that is ready to start; between two steps its state can be saved.

    Parameters
    ----------
    ready : SpecialistSearch
        Ground and settings; of a generalist an archive of every regime is searched for.
    workers : Mapper
    settings : ArchiveConfig, optional
    run : str
        Name of the run, part of each genome's origin.

    Attributes
    ----------
    regimes : list of SpecialistSearch
        Of each regime: scaling and fitness of its specialists.
    evolution : Archives
    evaluator : Evaluations
        All evaluations of all regimes.
    trials : TrialMatrix
        What the evaluated genomes earned per block of time.

    Raises
    ------
    ConfigError
        If pyribs is missing, the fitness is to rotate, there are to be islands, or no regime occurs often
        enough.
    """

    def __init__(
        self,
        ready: SpecialistSearch,
        workers: Mapper,
        settings: ArchiveConfig | None = None,
        run: str = "",
    ) -> None:
        settings = ArchiveConfig() if settings is None else settings
        config = ready.config
        if config.fitness.rotation < 1:
            raise ConfigError(
                f"fitness.rotation is {config.fitness.rotation:g}; it must be 1 in a search for an archive, "
                f"whose elites come from different generations"
            )
        if config.islands.count > 1:
            raise ConfigError(
                f"islands.count is {config.islands.count}; it must be 1 in a search for an archive, whose "
                f"cells are its islands"
            )
        self.ready = ready
        self.run = run
        self.regimes = _of_regimes(ready)
        space = ready.fitness.family.space
        self.trials = TrialMatrix(ready.fitness.block_bars)
        self._evaluators = [
            RowEvaluator(
                NicheFitness.of(one.fitness), space, workers, chunk_size=LANES, witness=self.trials.append
            )
            for one in self.regimes
        ]
        self.evaluator = Evaluations(self._evaluators)
        self.evolution = Archives(
            [
                MapElites(
                    space,
                    AXES,
                    config.hyperparameters,
                    int(stream(config.seed, "ga", "map_elites", one.regime.text).integers(2**63)),
                    settings.emitters,
                )
                for one in self.regimes
            ]
        )

    @property
    def finished(self) -> bool:
        """Whether the search of every regime is over."""
        return self.evolution.finished

    def step(self, before_tell: Callable[[], None] | None = None) -> None:
        """Propose, evaluate and tell one generation of every regime that is not finished.

        Parameters
        ----------
        before_tell : callable, optional
            As of :meth:`ga.searching.Search.step`.
        """
        for elites, evaluator in zip(self.evolution.searches, self._evaluators, strict=True):
            if elites.finished:
                continue
            genes = elites.ask()
            rows = evaluator.rows(genes, elites.progress.generation + 1 if elites.logbook else 0)
            if before_tell is not None:
                before_tell()
            elites.tell(rows[:, 0], rows[:, COLUMNS])
        self.evolution.logbook.append(self.evolution.progress.row())

    def archive(self) -> Archive:
        """Return what was found so far, with the champion traded on the training rows.

        Raises
        ------
        ConfigError
            If no cell of any regime is filled.
        """
        regimes = tuple(
            RegimeElites(ready.regime, ready, elites.elites, elites.n_cells)
            for ready, elites in zip(self.regimes, self.evolution.searches, strict=True)
        )
        if not any(len(one.elites) for one in regimes):
            raise ConfigError("the archive is empty: no genome had a finite fitness; search longer")
        return Archive(regimes, self._evolved(regimes))

    def _evolved(self, regimes: tuple[RegimeElites, ...]) -> Evolved:
        best = max(
            (one for one in regimes if len(one.elites)), key=lambda one: float(one.elites.objective.max())
        )
        ready, config, ground = best.search, self.ready.config, self.ready.ground
        space, train = ready.fitness.family.space, ground.split.train
        order = np.argsort(-best.elites.objective, kind="stable")
        genomes = tuple(
            Genome(genes, space.name, float(fitness), (self.run, int(born)))
            for genes, fitness, born in zip(
                best.elites.genes[order], best.elites.objective[order], best.elites.born[order], strict=True
            )
        )
        specialist = ready.specialist(genomes[0])
        return Evolved(
            specialist=specialist,
            fitness=genomes[0].fitness,
            generations=[dict(row) for row in self.evolution.logbook],
            in_sample=judge(specialist, ground, train, config.costs, config.venue),
            trial_sharpes=self.evaluator.details()[:, 0],
            trials=self.trials,
            hall_of_fame=genomes,
            n_evaluated=self.evaluator.asked,
            n_unique=self.evaluator.evaluations,
            n_avoided=self.evaluator.hits,
            hit_rate=self.evaluator.hit_rate,
        )

    def evolved(self) -> Evolved:
        """Return the champion of :meth:`archive`."""
        return self.archive().evolved

    def state(self) -> dict[str, Any]:
        """Return everything the search goes on from: nested dictionaries of arrays and plain values."""
        return {
            "elites": [one.state() for one in self.evolution.searches],
            "evaluators": [one.state() for one in self._evaluators],
            "logbook": [dict(row) for row in self.evolution.logbook],
            "trials": self.trials.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit, on a new search of the same ground and settings."""
        for one, part in zip(self.evolution.searches, state["elites"], strict=True):
            one.restore(part)
        for one, part in zip(self._evaluators, state["evaluators"], strict=True):
            one.restore(part)
        self.evolution.logbook = [dict(row) for row in state["logbook"]]
        self.trials.restore(state["trials"])


def evolve_archive(
    ground: Ground,
    config: SpecialistConfig,
    workers: Mapper,
    on_generation: Watch | None = None,
    settings: ArchiveConfig | None = None,
) -> Archive:
    """Search the training rows for archives of specialists, of one regime or (``all``) of every one.

    The same ground, config and seed give the same bytes, whatever the workers.

    Parameters
    ----------
    ground : Ground
    config : SpecialistConfig
        Of the hyperparameters, ``population_size`` genomes per generation and ``n_generations``, per regime.
    workers : Mapper
    on_generation : callable, optional
        Called after each generation.
    settings : ArchiveConfig, optional
    """
    search = ArchiveSearch(SpecialistSearch.of(ground, config), workers, settings)
    while not search.finished:
        search.step()
        if on_generation is not None:
            on_generation(search.evolution, search.evaluator)
    return search.archive()


def _of_regimes(ready: SpecialistSearch) -> list[SpecialistSearch]:
    # The search itself, or of a generalist one per regime that occurs often enough.
    if ready.regime is not None:
        return [ready]
    ground, config = ready.ground, ready.config
    labels = ground.regime_labels[ground.split.train]
    names = [name for i, name in enumerate(ground.regime_names) if np.sum(labels == i) >= 2 * LEAST_AWAKE]
    if not names:
        raise ConfigError(f"no regime covers {2 * LEAST_AWAKE} training bars; an archive needs one that does")
    return [SpecialistSearch.of(ground, config.model_copy(update={"regime": name})) for name in names]

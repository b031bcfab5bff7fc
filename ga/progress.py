"""What a search has shown so far: one record per generation, in numbers that have no scale.

A policy that learned on one fitness must understand another, so no statistic moves when the fitness is
multiplied by a positive number or shifted; fitness itself appears only in the fields meant for people.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ga import kernels
from ga.controls import CONTROL_NAMES, GAControls, Hyperparameters
from ga.population import Population

#: How an offspring was made, by code: mutation alone, partner, difference vector, or drawn anew.
OPERATORS = ("mutation", "crossover", "differential", "immigrant")
MUTATION, CROSSOVER, DIFFERENTIAL, IMMIGRANT = range(4)

#: The entries of ``Progress.statistics``, all finite. "Gain" is best fitness now minus best at the start.
STATISTIC_NAMES: tuple[str, ...] = (
    "budget_used",  # generations bred / n_generations
    "log_population_size",  # natural logarithm
    "log_n_genes",
    "success_rate",  # share of offspring fitter than their parent
    "best_improved",  # 1 if this generation raised the best fitness
    "stagnation_share",  # generations without improvement / patience (or n_generations without one)
    "improvement_1",  # part of the gain made in the last 1, 5, 15 generations
    "improvement_5",
    "improvement_15",
    "median_gap",  # (best - median) / (best - worst)
    "quartile_gap",  # (best - upper quartile) / (best - worst)
    "fitness_skew",  # (q75 + q25 - 2 median) / (q75 - q25), from -1 to 1
    "fitness_distance_correlation",  # Spearman, fitness against distance to the best; -1 is a funnel
    "relative_diversity",  # diversity / diversity of the initial population
    "log_relative_diversity",  # its natural logarithm, not below -40
    "best_to_centre",  # distance of the best to the centre / diversity
    "log_step_to_diversity",  # mutation step / diversity, natural logarithm within +-40
    "duplicate_share",  # offspring that repeated an evaluated genome and had to be mutated again
    "cached_share",  # offspring whose fitness was known after all: evaluations avoided
    "invalid_share",  # offspring whose fitness is not a finite number
    "restarted_share",  # part of the population drawn anew by a restart in this generation
    "age_of_best",  # generations the best has lived / generations so far
    "control_mutation_step",  # the controls that made this generation, place in their range
    "control_crossover_rate",
    "control_differential_rate",
    "control_tournament_size",
    "mutation_success",  # success rate of each operator; of an unused one, that of all
    "crossover_success",
    "differential_success",
    "immigrant_success",
)
_SHOWN_CONTROLS = [
    CONTROL_NAMES.index(name.removeprefix("control_"))
    for name in STATISTIC_NAMES
    if name.startswith("control_")
]
_PLAIN = ("generation", "evaluations", "best", "median", "mean", "diversity", "stagnation", "invalid")
_WHOLE = ("generation", "evaluations", "stagnation", "invalid")
_LOG_LIMIT = 40.0  # e^-40 is below the resolution of float64 genes


@dataclass(frozen=True, eq=False)
class Progress:
    """The state of a search after one generation, as a policy and a reader see it.

    Parameters
    ----------
    generation : int
        0 is the initial population.
    evaluations : int
        Genomes asked for since the start, known ones included.
    best, median, mean : float
        Fitness in the population; the mean is that of finite values (NaN if there are none).
    diversity : float
        Root mean square distance to the centre, per gene.
    stagnation : int
        Generations since the best fitness last rose.
    invalid : int
        Offspring of this generation whose fitness is not a finite number.
    statistics : float64 (m,)
        Scale-free statistics in the order of ``STATISTIC_NAMES``; zero before the first ``tell()``.
    history : float64 (g, m)
        The statistics of all generations up to this one.
    hyperparameters : Hyperparameters
        The settings of the run.
    controls : GAControls or None
        What made this generation; None for the initial population.
    trials, successes : tuple of 4 int
        Offspring made by each of ``OPERATORS`` in this generation, and those fitter than their parent.
    successful_weight, successful_rate : float
        Lehmer means of the scale factors F and of the crossover rates CR of the children of difference
        vectors that were fitter than their parent, weighted by their gain; NaN without any.
    """

    generation: int
    evaluations: int
    best: float
    median: float
    mean: float
    diversity: float
    stagnation: int
    invalid: int
    statistics: np.ndarray
    history: np.ndarray
    hyperparameters: Hyperparameters
    controls: GAControls | None = None
    trials: tuple[int, ...] = (0, 0, 0, 0)
    successes: tuple[int, ...] = (0, 0, 0, 0)
    successful_weight: float = math.nan
    successful_rate: float = math.nan

    def row(self) -> dict[str, float | int]:
        """Return the log row: the plain fields, the statistics and the controls (NaN for none) by name."""
        row: dict[str, float | int] = {name: getattr(self, name) for name in _PLAIN}
        row.update(zip(STATISTIC_NAMES, self.statistics.tolist(), strict=True))
        row.update(_named(self.controls))
        return row


class Outcome(NamedTuple):
    """What became of the offspring of one generation; ``m`` is their number.

    Parameters
    ----------
    operator : int8 (k,)
        Position in ``OPERATORS`` of the first ``k`` offspring; all further ones are immigrants.
    improved : bool (m,)
        Fitter than the parent.
    gain : float64 (m,)
        Fitness minus that of the parent.
    weight, rate : float64 (k,)
        F and CR of the children of difference vectors, NaN for others.
    duplicates, cached, invalid, restarted : int
        Offspring mutated again, answered from a cache, without a finite fitness, drawn anew by a restart.
    """

    operator: np.ndarray
    improved: np.ndarray
    gain: np.ndarray
    weight: np.ndarray
    rate: np.ndarray
    duplicates: int
    cached: int
    invalid: int
    restarted: int


class Chronicle:
    """Turns each generation into its :class:`Progress`; the memory is plain arrays and numbers.

    Parameters
    ----------
    hyperparameters : Hyperparameters
    n_genes : int
    """

    def __init__(self, hyperparameters: Hyperparameters, n_genes: int) -> None:
        self._run = hyperparameters
        rows = hyperparameters.n_generations + 1
        self._history = np.zeros((rows, len(STATISTIC_NAMES)))
        self._visible = _readonly(self._history)
        # One entry per generation; lists, since numbers of Python come and go quicker than those of arrays.
        self._plain: list[tuple[float, ...]] = []
        self._controls: list[GAControls | None] = []
        self._level: list[float] = []  # best fitness; past ones are moved to the present fitness window
        self._n_genes = n_genes
        self._initial_diversity = 0.0
        self._progress = self.start()
        self._known = (None, (0.0, 0.0, 0.0, 0.0))  # the last controls and their places in their ranges

    def start(self) -> Progress:
        """Return the progress before anything was evaluated."""
        return Progress(
            generation=0,
            evaluations=0,
            best=-math.inf,
            median=-math.inf,
            mean=math.nan,
            diversity=0.0,
            stagnation=0,
            invalid=0,
            statistics=_readonly(np.zeros(len(STATISTIC_NAMES))),
            history=_readonly(np.zeros((0, len(STATISTIC_NAMES)))),
            hyperparameters=self._run,
        )

    @property
    def progress(self) -> Progress:
        """The progress after the last recorded generation; empty before the first."""
        return self._progress

    def record(
        self,
        generation: int,
        population: Population,
        order: np.ndarray,
        outcome: Outcome,
        controls: GAControls | None,
    ) -> Progress:
        """Return the progress after a generation and remember it.

        Parameters
        ----------
        generation : int
        population : Population
            After replacement, all evaluated.
        order : int64 (p,)
            Its rows from best to worst.
        outcome : Outcome
        controls : GAControls or None
        """
        m, p = outcome.improved.size, len(population)
        leader = int(order[0])
        best = float(population.fitness[leader])
        diversity, to_centre, numbers = _described(population, order, leader, outcome)
        median, mean, median_gap, quartile_gap, skew, correlation, *counts, weight, rate = numbers
        made, risers = counts[:4], counts[4:]

        risen = generation > 0 and best > self._level[-1]
        self._level.append(best)
        stagnation = 0 if risen or generation == 0 else self._progress.stagnation + 1
        evaluations = self._progress.evaluations + m
        if generation == 0:
            self._initial_diversity = diversity
        success_rate = sum(risers) / m if m else 0.0
        relative = diversity / self._initial_diversity if self._initial_diversity > 0.0 else 0.0
        self._history[generation] = (
            generation / self._run.n_generations,
            math.log(p),
            math.log(self._n_genes),
            success_rate,
            float(risen),
            stagnation / (self._run.patience or self._run.n_generations),
            self._improvement(generation, 1),
            self._improvement(generation, 5),
            self._improvement(generation, 15),
            median_gap,
            quartile_gap,
            skew,
            correlation,
            relative,
            _log(relative, 1.0),
            to_centre / diversity if diversity > 0.0 else 0.0,
            _log(controls.mutation_step, diversity) if controls else 0.0,
            outcome.duplicates / m if m else 0.0,
            outcome.cached / m if m else 0.0,
            outcome.invalid / m if m else 0.0,
            outcome.restarted / p,
            int(population.age[leader]) / (generation + 1),
            *self._shown(controls),
            *(s / n if n else success_rate for s, n in zip(risers, made, strict=True)),
        )
        self._plain.append(
            (generation, evaluations, best, median, mean, diversity, stagnation, outcome.invalid)
        )
        self._controls.append(controls)
        self._progress = Progress(
            generation=generation,
            evaluations=evaluations,
            best=best,
            median=median,
            mean=mean,
            diversity=diversity,
            stagnation=stagnation,
            invalid=outcome.invalid,
            statistics=self._visible[generation],
            history=self._visible[: generation + 1],  # later generations write other rows
            hyperparameters=self._run,
            controls=controls,
            trials=tuple(map(int, made)),
            successes=tuple(map(int, risers)),
            successful_weight=weight,
            successful_rate=rate,
        )
        return self._progress

    def reassess(self, population: Population, order: np.ndarray) -> Progress:
        """Return the progress after the fitness of the whole population was measured anew.

        Generation, stagnation, statistics and log rows stay. Past best values are moved by the
        difference, so that a later gain is one on the new measure and not the change of measure.

        Parameters
        ----------
        population : Population
            With the new fitness.
        order : int64 (p,)
            Its rows from best to worst.
        """
        leader = int(order[0])
        best = float(population.fitness[leader])
        _, _, (median, mean, *_) = _described(population, order, leader, _NOTHING)
        shift = best - self._level[-1]
        if math.isfinite(shift):
            self._level = [level + shift for level in self._level]
        self._level[-1] = best
        self._progress = replace(self._progress, best=best, median=median, mean=mean)
        return self._progress

    def rows(self, start: int = 0) -> list[dict[str, float | int]]:
        """Return the log rows from generation ``start`` on, as :meth:`Progress.row` made them."""
        rows = []
        for generation in range(start, len(self._plain)):
            row: dict[str, float | int] = dict(zip(_PLAIN, self._plain[generation], strict=True))
            row.update(zip(STATISTIC_NAMES, self._history[generation].tolist(), strict=True))
            row.update(_named(self._controls[generation]))
            rows.append(row)
        return rows

    def state(self) -> dict[str, Any]:
        """Return all that :meth:`restore` needs, as arrays with one row per generation, and numbers."""
        now, n = self._progress, len(self._plain)
        nobody = np.full(len(CONTROL_NAMES), np.nan)
        controls = [nobody if one is None else one.to_array() for one in self._controls]
        return {
            "history": self._history[:n].copy(),
            "plain": np.array(self._plain, dtype=np.float64).reshape(n, len(_PLAIN)),
            "controls": np.array(controls).reshape(n, len(CONTROL_NAMES)),
            "level": np.array(self._level, dtype=np.float64),
            "initial_diversity": self._initial_diversity,
            "fitness": [now.best, now.median, now.mean],
            "trials": list(now.trials),
            "successes": list(now.successes),
            "successful": [now.successful_weight, now.successful_rate],
        }

    def restore(self, state: Mapping[str, Any]) -> Progress:
        """Take over the memory that :meth:`state` returned, and return its progress.

        Raises
        ------
        ValueError
            If it is the memory of a longer run, or its rows do not have the columns of today.
        """
        names = ("history", "plain", "controls", "level")
        history, plain, controls, level = (np.asarray(state[name], dtype=np.float64) for name in names)
        n, columns = len(history), (len(STATISTIC_NAMES), len(_PLAIN), len(CONTROL_NAMES))
        shapes = tuple(array.shape for array in (history, plain, controls, level))
        if n > len(self._history) or shapes != (*((n, width) for width in columns), (n,)):
            raise ValueError(
                f"the saved history of the run has shapes {shapes}; a run of {len(self._history)} rows, the "
                f"initial population included, has at most that many, with {columns} columns"
            )
        self._history[:n] = history
        self._plain = [_whole(row) for row in plain.tolist()]
        self._controls = [None if math.isnan(row[0]) else GAControls(*row) for row in controls.tolist()]
        self._level = level.tolist()
        self._initial_diversity = float(state["initial_diversity"])
        if n:
            row = dict(zip(_PLAIN, self._plain[-1], strict=True))
            row.update(zip(("best", "median", "mean"), map(float, state["fitness"]), strict=True))
            weight, rate = map(float, state["successful"])
            self._progress = Progress(
                **row,
                statistics=self._visible[n - 1],
                history=self._visible[:n],
                hyperparameters=self._run,
                controls=self._controls[-1],
                trials=tuple(map(int, state["trials"])),
                successes=tuple(map(int, state["successes"])),
                successful_weight=weight,
                successful_rate=rate,
            )
        return self._progress

    def _shown(self, controls: GAControls | None) -> tuple[float, ...]:
        # Places of some controls in their ranges; most policies hand out the same controls again and again.
        if controls is not self._known[0]:
            unit = np.zeros(len(CONTROL_NAMES)) if controls is None else controls.to_unit()
            self._known = (controls, tuple(unit[_SHOWN_CONTROLS].tolist()))
        return self._known[1]

    def _improvement(self, generation: int, span: int) -> float:
        now, then = self._level[generation], self._level[max(0, generation - span)]
        if not now > then:
            return 0.0
        start = self._level[0]
        # From a start without a valid genome every later gain is measured from the first valid one.
        return (now - then) / (now - start) if math.isfinite(start) else 1.0


_NOTHING = Outcome(
    operator=np.empty(0, dtype=np.int8),
    improved=np.empty(0, dtype=bool),
    gain=np.empty(0),
    weight=np.empty(0),
    rate=np.empty(0),
    duplicates=0,
    cached=0,
    invalid=0,
    restarted=0,
)


def _described(
    population: Population, order: np.ndarray, leader: int, outcome: Outcome
) -> tuple[float, float, list[float]]:
    # Diversity, distance of the best to the centre, and the numbers of kernels.describe.
    genes, fitness = population.genes, population.fitness
    near, place, numbers = np.empty(len(fitness)), np.empty(2), np.empty(16)
    kernels.locate(genes, leader, near, place)
    kernels.describe(fitness, order, near, near.argsort(), *outcome[:5], numbers)
    return *place.tolist(), numbers.tolist()


def _named(controls: GAControls | None) -> dict[str, float]:
    return dict.fromkeys(CONTROL_NAMES, math.nan) if controls is None else controls.to_dict()


def _whole(row: list[float]) -> tuple[float, ...]:
    # The plain fields of a row that was saved as floats.
    return tuple(int(v) if name in _WHOLE else v for name, v in zip(_PLAIN, row, strict=True))


def _log(numerator: float, denominator: float) -> float:
    if numerator <= 0.0:
        return -_LOG_LIMIT
    if denominator <= 0.0:
        return _LOG_LIMIT
    return min(max(math.log(numerator / denominator), -_LOG_LIMIT), _LOG_LIMIT)


def _readonly(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view

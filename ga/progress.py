"""What a search has shown so far: one record per generation, in numbers that have no scale.

A policy that learned on one fitness must understand another, so no statistic moves when the fitness is
multiplied by a positive number or shifted; fitness itself appears only in the fields meant for people.
"""

import math
from dataclasses import dataclass

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

    def row(self) -> dict[str, float | int]:
        """Return the log row: the plain fields, the statistics and the controls (NaN for none) by name."""
        row: dict[str, float | int] = {
            "generation": self.generation,
            "evaluations": self.evaluations,
            "best": self.best,
            "median": self.median,
            "mean": self.mean,
            "diversity": self.diversity,
            "stagnation": self.stagnation,
            "invalid": self.invalid,
        }
        row.update(zip(STATISTIC_NAMES, self.statistics.tolist(), strict=True))
        row.update(self.controls.to_dict() if self.controls else dict.fromkeys(CONTROL_NAMES, math.nan))
        return row


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the offspring of one generation; ``m`` is their number.

    Parameters
    ----------
    operator : int8 (m,)
        Position in ``OPERATORS``.
    improved : bool (m,)
        Fitter than the parent.
    duplicates, cached, invalid, restarted : int
        Offspring mutated again, answered from a cache, without a finite fitness, drawn anew by a restart.
    """

    operator: np.ndarray
    improved: np.ndarray
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
        self._best = np.full(rows, -np.inf)
        self._n_genes = n_genes
        self._initial_diversity = 0.0
        self._stagnation = 0
        self._evaluations = 0

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
        m, p = outcome.operator.size, len(population)
        fitness = population.fitness[order]  # best first
        finite = fitness[np.isfinite(fitness)]  # the invalid ones stand last
        best = float(fitness[0])
        self._best[generation] = best
        risen = generation > 0 and best > self._best[generation - 1]
        self._stagnation = 0 if risen or generation == 0 else self._stagnation + 1
        self._evaluations += m
        diversity = population.diversity
        if generation == 0:
            self._initial_diversity = diversity

        successes = np.bincount(outcome.operator[outcome.improved], minlength=4)
        made = np.bincount(outcome.operator, minlength=4)
        success_rate = float(successes.sum()) / m if m else 0.0
        relative = diversity / self._initial_diversity if self._initial_diversity > 0.0 else 0.0
        age = int(population.age[order[0]])
        gaps = _gaps(finite)
        correlation, to_centre = _geometry(population, order)
        unit = controls.to_unit() if controls else np.zeros(len(CONTROL_NAMES))
        step = _log(controls.mutation_step, diversity) if controls else 0.0
        self._history[generation] = (
            generation / self._run.n_generations,
            math.log(p),
            math.log(self._n_genes),
            success_rate,
            float(risen),
            self._stagnation / (self._run.patience or self._run.n_generations),
            self._improvement(generation, 1),
            self._improvement(generation, 5),
            self._improvement(generation, 15),
            *gaps,
            correlation,
            relative,
            _log(relative, 1.0),
            to_centre / diversity if diversity > 0.0 else 0.0,
            step,
            outcome.duplicates / m if m else 0.0,
            outcome.cached / m if m else 0.0,
            outcome.invalid / m if m else 0.0,
            outcome.restarted / p,
            age / (generation + 1),
            *unit[_SHOWN_CONTROLS],
            *(s / n if n else success_rate for s, n in zip(successes.tolist(), made.tolist(), strict=True)),
        )
        return Progress(
            generation=generation,
            evaluations=self._evaluations,
            best=best,
            median=float(0.5 * (fitness[(p - 1) // 2] + fitness[p // 2])),
            mean=float(finite.mean()) if finite.size else math.nan,
            diversity=diversity,
            stagnation=self._stagnation,
            invalid=outcome.invalid,
            statistics=_readonly(self._history[generation]),
            history=_readonly(self._history[: generation + 1]),  # later generations write other rows
            hyperparameters=self._run,
            controls=controls,
        )

    def _improvement(self, generation: int, span: int) -> float:
        now, then = self._best[generation], self._best[max(0, generation - span)]
        start = self._best[0]
        if not now > then:
            return 0.0
        # From a start without a valid genome every later gain is measured from the first valid one.
        return float((now - then) / (now - start)) if math.isfinite(start) else 1.0


def _gaps(fitness: np.ndarray) -> tuple[float, float, float]:
    # Quartiles of the finite values, best first, by linear interpolation.
    n = fitness.size
    if n < 2 or not fitness[0] > fitness[-1]:
        return 0.0, 0.0, 0.0
    upper, median, lower = (_quantile(fitness, share) for share in (0.25, 0.5, 0.75))
    best, span = float(fitness[0]), float(fitness[0] - fitness[-1])
    middle = upper - lower
    skew = (upper + lower - 2.0 * median) / middle if middle > 0.0 else 0.0
    return (best - median) / span, (best - upper) / span, skew


def _quantile(values: np.ndarray, share: float) -> float:
    place = share * (values.size - 1)
    i = int(place)
    a = float(values[i])
    return a + (place - i) * (float(values[min(i + 1, values.size - 1)]) - a)


def _geometry(population: Population, order: np.ndarray) -> tuple[float, float]:
    # Rank correlation of fitness with the distance to the best, and that distance of the centre.
    distance = np.empty(len(population) + 1)
    kernels.distances(population.genes, int(order[0]), distance)
    near = distance[:-1]
    correlation = kernels.rank_correlation(population.fitness, order[::-1].copy(), near, np.argsort(near))
    return float(correlation), float(distance[-1])


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

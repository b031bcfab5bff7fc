"""The five hyperparameters of a run: their ranges, what they mean at a fixed budget, and labels by racing.

A conductor sets them once, before anything is bred, as residuals in logit space around those that the run
would have had. The budget of evaluations is given. It is spent on one run after the other from scratch: the
hyperparameters say how large and long these are, after how long a standstill each gives way to the next, and
how mutation step and crossover rate drift in each.

Labels come from races. On each task plans drawn at random spend the same budget; how early a run gives way is
answered from the stored curves of runs that did not, which costs nothing. What a plan gained over the mean of
its task is its advantage, as with vine labels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from compute.seeds import stream
from compute.workers import Mapper
from conductor.curriculum import Batch, Source
from conductor.objective import LIMIT
from conductor.school import Labels
from conductor.sight import Inputs, Outlook
from conductor.state import HISTORY_NAMES, state_vectors
from conductor.steering import Steering
from conductor.tasks import Instance, Task
from conductor.vine import branch_residuals, seeds_beside
from ga.controls import CONTROL_NAMES, ControlRange, Hyperparameters, values_at
from ga.progress import STATISTIC_NAMES
from ga.variation import Variation

#: The five hyperparameters in the order of the second head.
HYPERPARAMETER_RANGES: dict[str, ControlRange] = {
    "population_size": ControlRange(16.0, 512.0, "log", "Individuals in the population."),
    "n_generations": ControlRange(20.0, 500.0, "log", "Generations of a run before the next one begins."),
    "patience": ControlRange(
        0.05, 0.5, "log", "Share of the generations without improvement after which a run gives way."
    ),
    "mutation_schedule": ControlRange(1e-3, 1.0, "log", "Last mutation step as a share of the first."),
    "crossover_schedule": ControlRange(-0.8, 0.8, "linear", "Last crossover rate minus the first."),
}
HYPERPARAMETER_NAMES: tuple[str, ...] = tuple(HYPERPARAMETER_RANGES)
_LOW = np.array([limits.low for limits in HYPERPARAMETER_RANGES.values()])
_HIGH = np.array([limits.high for limits in HYPERPARAMETER_RANGES.values()])
_IS_LOG = np.array([limits.scale == "log" for limits in HYPERPARAMETER_RANGES.values()])
#: The fewest individuals of a run whose whole budget is small.
LEAST_POPULATION = 8
#: Usual places nearer to their bounds than this are moved by residuals as if they were as far: what usually
#: stands on its bound, such as no drift, could not be moved by small residuals otherwise.
EDGE = 0.1
#: Standard deviation of the residuals of plans in races, in logits.
SPREAD = 1.0
#: Residuals of the patience with which every plan is valued; none of them costs a run.
PATIENCE_RESIDUALS = (0.0, -3.0, -1.5, 1.5, 3.0)
#: Runs that are stored of a plan and a repeat; where even more would begin, the last of them goes on.
MOST_CURVES = 24
_PATIENCE = HYPERPARAMETER_NAMES.index("patience")
_STEP, _RATE = CONTROL_NAMES.index("mutation_step"), CONTROL_NAMES.index("crossover_rate")
_NOTHING = 1e-9


def hyperparameter_places(values: np.ndarray) -> np.ndarray:
    """Return the places in their ranges, float64 (..., 5) from 0 to 1, of natural values; clipped."""
    values = np.clip(np.asarray(values, dtype=np.float64), _LOW, _HIGH)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(values / _LOW) / np.log(_HIGH / _LOW)
    return np.where(_IS_LOG, logs, (values - _LOW) / (_HIGH - _LOW))


def hyperparameter_values(places: np.ndarray) -> np.ndarray:
    """Return natural values, float64 (..., 5) within their ranges, of places 0 to 1."""
    places = np.asarray(places, dtype=np.float64)
    ratio = np.where(_IS_LOG, _HIGH / _LOW, 1.0)
    return np.clip(np.where(_IS_LOG, _LOW * ratio**places, _LOW + places * (_HIGH - _LOW)), _LOW, _HIGH)


def moved(places: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Return places moved by residuals in logit space, float64 (..., 5); by a residual of 0 not at all."""
    begin = logit(np.clip(places, EDGE, 1.0 - EDGE))
    return np.clip(places + (expit(begin + residual) - expit(begin)), 0.0, 1.0)


@dataclass(frozen=True)
class Plan:
    """How the budget of a task is spent.

    Parameters
    ----------
    population_size, n_generations : int
        Of each run.
    n_runs : int
        How many of them the budget lets begin if none ends early.
    patience : int
        Generations without improvement after which a run gives way; 0 never.
    mutation_schedule, crossover_schedule : float
        See :class:`ga.controls.Hyperparameters`.
    """

    population_size: int
    n_generations: int
    n_runs: int
    patience: int
    mutation_schedule: float
    crossover_schedule: float

    @property
    def evaluations(self) -> int:
        """Of one run."""
        return self.population_size * (self.n_generations + 1)

    def hyperparameters(self) -> Hyperparameters:
        """Return the settings of one run in ``ga``."""
        return Hyperparameters(
            population_size=self.population_size,
            n_generations=self.n_generations,
            patience=self.patience,
            mutation_schedule=self.mutation_schedule,
            crossover_schedule=self.crossover_schedule,
        )

    def controls(self, steering: Steering) -> np.ndarray:
        """Return the tuned controls with the drift of the plan, float64 (n_generations, 12)."""
        elapsed = np.arange(self.n_generations) / max(1, self.n_generations - 1)
        controls = np.tile(values_at(np.array(steering.static)), (self.n_generations, 1))
        controls[:, _STEP] *= self.mutation_schedule**elapsed
        controls[:, _RATE] += self.crossover_schedule * elapsed
        return controls


def usual_places(task: Task) -> np.ndarray:
    """Return the places, float64 (5,), that stand for the run as the task describes it.

    Its sizes, if they are within the ranges; the longest patience; no drift.
    """
    return hyperparameter_places(np.array([task.population_size, task.n_generations, 0.5, 1.0, 0.0]))


def plan(task: Task, residual: np.ndarray | None = None) -> Plan:
    """Return how the budget of a task is spent.

    Parameters
    ----------
    task : Task
        Gives the budget and, without a residual, its own sizes exactly, as one run that does not end early.
    residual : float (5,), optional
        Of the hyperparameters, in logit space around :func:`usual_places`. One of zeros alone is none, and
        what it leaves at zero stays as it is in the task. One that is not a number counts as 0.
    """
    residual = np.nan_to_num(np.zeros(5) if residual is None else np.asarray(residual, dtype=np.float64))
    size, length, patience, step, rate = hyperparameter_values(moved(usual_places(task), residual)).tolist()
    population_size = round(size) if residual[0] else task.population_size
    n_generations = round(length) if residual[1] else task.n_generations
    # A run may not cost more than there is: first it is shorter, then smaller.
    least = min(n_generations, int(_LOW[1]))
    population_size = max(min(population_size, task.budget // (least + 1)), LEAST_POPULATION)
    n_generations = max(1, min(n_generations, task.budget // population_size - 1))
    return Plan(
        population_size,
        n_generations,
        max(1, task.budget // (population_size * (n_generations + 1))),
        max(1, round(patience * n_generations)) if residual[2] else 0,
        step if residual[3] else 1.0,
        rate if residual[4] else 0.0,
    )


def opening_inputs(tasks: Sequence[Task], outlook: Outlook, n_history: int = 0) -> Inputs:
    """Return what a network sees before anything was bred, when it sets the hyperparameters.

    The market, the number of genes and the usual size of the population; all else is zero.
    """
    statistics = np.zeros((len(tasks), len(STATISTIC_NAMES)))
    statistics[:, STATISTIC_NAMES.index("log_population_size")] = [
        math.log(task.population_size) for task in tasks
    ]
    statistics[:, STATISTIC_NAMES.index("log_n_genes")] = [math.log(task.dimension) for task in tasks]
    places = np.full((len(tasks), len(CONTROL_NAMES)), 0.5)
    return Inputs(
        state_vectors(statistics, places, outlook.market, outlook.known),
        np.zeros((len(tasks), n_history, len(HISTORY_NAMES)), dtype=np.float32),
        np.zeros((len(tasks), n_history), dtype=bool),
        outlook.regime,
    )


def race_labels(
    source: Source,
    steering: Steering,
    variation: Variation,
    *,
    n_tasks: int,
    n_plans: int = 12,
    repeats: int = 2,
    seed: int,
    mapper: Mapper | None = None,
    told: Callable[[int, int, str], None] | None = None,
) -> Labels:
    """Return labels of hyperparameters: residuals (m, 5) and their advantages at equal budgets.

    Each task is a fork and a run of its own. Its branches are plans: the one of the task itself and others
    drawn at random around it, in pairs of opposites, each of them with every patience of
    ``PATIENCE_RESIDUALS``. All repeats of a task have seeds of their own, the same for all plans.

    Parameters
    ----------
    source : Source
        Of training tasks; those of one batch, whose number follows from the seed.
    steering, variation : Steering, Variation
        The tuned controls, around which the schedules drift, and their operators.
    n_tasks, n_plans, repeats : int
        The work is that of twice ``n_tasks * n_plans * repeats`` whole budgets: runs that give way early
        need others after them.
    seed : int
    mapper : Mapper, optional
        Works on the runs.
    told : callable, optional
        ``told(done, total, sentence)`` after each plan of all tasks.

    Raises
    ------
    ValueError
        If there is no task or repeat, or there are fewer than two plans.
    """
    for name, value, least in (("n_tasks", n_tasks, 1), ("n_plans", n_plans, 2), ("repeats", repeats, 1)):
        if value < least:
            raise ValueError(f"{name} of races is {value}; it must be at least {least}")
    batch = source.batch(int(stream(seed, "race", "batch").integers(2**31, 2**32)), n_tasks)
    rng = stream(seed, "race", "plans")
    drawn = branch_residuals(rng, n_tasks, n_plans, len(HYPERPARAMETER_NAMES), SPREAD).astype(np.float64)
    seeds = _seeds(rng, batch, repeats)
    residuals, values = [], []
    for i in range(n_plans):
        residual = drawn[:, i].copy()
        residual[:, _PATIENCE] = 0.0
        # One plan of all tasks at a time keeps the batch within memory.
        curves = _curves(batch, residual, seeds, steering, variation, mapper)
        for patience in PATIENCE_RESIDUALS:
            residual[:, _PATIENCE] = patience
            residuals.append(residual.copy())
            values.append(_values(batch, curves, residual))
        if told is not None:
            told(i + 1, n_plans, "races of hyperparameters")
    return _standardised(batch, np.stack(residuals, axis=1), np.stack(values, axis=1))


def values_of_plans(
    batch: Batch,
    residual: np.ndarray,
    steering: Steering,
    variation: Variation,
    *,
    repeats: int = 2,
    seed: int,
    mapper: Mapper | None = None,
) -> np.ndarray:
    """Return what the budgets of tasks buy with given hyperparameters, float64 (B,); lower is better.

    Decades of error, anytime and final in equal parts, a mean over the repeats. The seeds of the runs follow
    from ``seed``, so that two plans of a task can be compared in pairs.

    Parameters
    ----------
    batch : Batch
    residual : float (B, 5)
        See :func:`plan`.
    steering, variation : Steering, Variation
        The tuned controls, around which the schedules drift, and their operators.
    repeats, seed : int
    mapper : Mapper, optional
        Works on the runs.
    """
    seeds = _seeds(stream(seed, "race", "values"), batch, repeats)
    curves = _curves(batch, residual, seeds, steering, variation, mapper)
    return np.array(_values(batch, curves, residual))


#: Best-so-far fitness and evaluations asked for, after each generation, of runs that follow one another.
_Curves = list[tuple[np.ndarray, np.ndarray]]


def _seeds(rng: np.random.Generator, batch: Batch, repeats: int) -> np.ndarray:
    return seeds_beside(rng, batch.tasks, repeats * MOST_CURVES).reshape(len(batch), repeats, MOST_CURVES)


def _values(batch: Batch, curves: list[list[_Curves]], residual: np.ndarray) -> list[float]:
    return [
        _value(task, own, floor, plan(task, one))
        for task, own, floor, one in zip(batch.tasks, curves, batch.floor, residual, strict=True)
    ]


def _curves(
    batch: Batch,
    residual: np.ndarray,
    seeds: np.ndarray,
    steering: Steering,
    variation: Variation,
    mapper: Mapper | None,
) -> list[list[_Curves]]:
    """Return the curves of runs by task and repeat, all bred side by side to their ends."""
    plans = [plan(task, one) for task, one in zip(batch.tasks, residual, strict=True)]
    rows, tasks, schedules = [], [], []
    for row, (task, own) in enumerate(zip(batch.tasks, plans, strict=True)):
        n = min(MOST_CURVES, 2 * own.n_runs)
        for run in seeds[row, :, :n].ravel().tolist():
            rows.append(row)
            tasks.append(Task(task.problem, task.dimension, own.population_size, own.n_generations, run))
            schedules.append(own.controls(steering))
    longest = max(len(schedule) for schedule in schedules)
    controls = np.stack(
        [
            np.concatenate([schedule, np.repeat(schedule[-1:], longest - len(schedule), axis=0)])
            for schedule in schedules
        ],
        axis=1,
    )
    some = Batch(tuple(tasks), batch.outlook.rows(rows), batch.floor[rows], batch.opening)
    outcome = some.environment(variation, mapper=mapper).run_fixed(controls)
    found: list[_Curves] = [[] for _ in batch.tasks]
    for row, task, best, asked in zip(rows, tasks, outcome.best, outcome.asked, strict=True):
        found[row].append((best[: task.n_generations + 1], asked[: task.n_generations + 1]))
    each = [len(own) // seeds.shape[1] for own in found]
    return [[own[i : i + n] for i in range(0, len(own), n)] for own, n in zip(found, each, strict=True)]


def _value(task: Task, repeats: Sequence[_Curves], floor: float, own: Plan) -> float:
    """Return decades of error, anytime and final in equal parts, of a budget spent as planned."""
    found = []
    for curves in repeats:
        # Without patience what a run leaves of its budget, as elites do, is no further run.
        begun = curves if own.patience else curves[: own.n_runs]
        best, asked = spent(begun, own.patience, task.budget)
        logs = np.log10(np.clip(-best, floor, np.finfo(np.float64).max))
        area = (logs * asked).sum() / task.budget + logs[-1] * (1.0 - asked.sum() / task.budget)
        found.append(0.5 * (area + logs[-1]))
    return float(np.mean(found))


def spent(curves: _Curves, patience: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a budget buys when each run gives way after a standstill, from curves of whole runs.

    Parameters
    ----------
    curves : list of (float64 (g + 1,), int64 (g + 1,))
        Best fitness so far and evaluations asked for, generation by generation, of runs from scratch that
        did not end early. The last of them goes on to its end.
    patience : int
        Generations without a better champion after which a run ends; 0 never.
    budget : int
        Evaluations; a generation that does not fit into it is not bred.

    Returns
    -------
    best : float64 (t,)
        Best fitness so far over all runs, after each generation of any.
    asked : int64 (t,)
        Evaluations of that generation.
    """
    best, asked = [], []
    for number, (own, costs) in enumerate(curves, 1):
        stop = len(own)
        if patience and number < len(curves):
            generation = np.arange(len(own))
            better = np.concatenate([[True], own[1:] > own[:-1]])
            standstill = generation - np.maximum.accumulate(np.where(better, generation, 0))
            over = np.flatnonzero(standstill >= patience)
            stop = over[0] + 1 if over.size else stop
        best.append(own[:stop])
        asked.append(costs[:stop])
    best, asked = np.concatenate(best), np.concatenate(asked)
    fits = np.cumsum(asked) <= budget
    fits[0] = True
    return np.maximum.accumulate(best[fits]), asked[fits]


def _standardised(batch: Batch, residual: np.ndarray, value: np.ndarray) -> Labels:
    # Lower is better; landscapes and market windows have units of their own, as in vine labels.
    gain = np.clip(value.mean(axis=1, keepdims=True) - value, -LIMIT, LIMIT)
    gain -= gain.mean(axis=1, keepdims=True)
    landscape = np.array([isinstance(task.problem, Instance) for task in batch.tasks])
    for kind in (landscape, ~landscape):
        unit = float(np.sqrt((gain[kind] ** 2).mean())) if kind.any() else 0.0
        gain[kind] = gain[kind] / unit if unit > _NOTHING else 0.0
    forks = np.repeat(np.arange(len(batch)), residual.shape[1])
    inputs = opening_inputs(batch.tasks, batch.outlook)
    return Labels(
        *(part[forks] for part in inputs),
        residual.reshape(-1, len(HYPERPARAMETER_NAMES)).astype(np.float32),
        gain.ravel().astype(np.float32),
        forks,
        forks.copy(),
    )

"""Who races: the same search under controls that stay, follow the clock, or are drawn at random.

All of them breed the same kind of generations with the same budget; they differ by the 12 controls alone.
Contestants that learn inside a run are in :mod:`conductor.adaptive`, networks and what is left of them when
something is taken away in :mod:`conductor.ablations`, other searches in :mod:`conductor.outside`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from scipy.special import expit, logit

from compute.seeds import stream
from compute.workers import Mapper
from conductor.curriculum import Batch, Source
from conductor.environment import Environment
from conductor.objective import Outcome, candidate_losses
from conductor.static_tuning import StaticTuningConfig, cma_minimum
from conductor.steering import MARGIN, Steering
from conductor.tasks import Task
from ga.controls import CONTROL_NAMES, GAControls, values_at
from ga.variation import Variation

N_CONTROLS = len(CONTROL_NAMES)


@dataclass(frozen=True, eq=False)
class Performance:
    """What a contestant has done with a batch of runs.

    Parameters
    ----------
    outcome : Outcome
        Of B runs.
    champions : tuple of B float64 (d,)
        The best genome of each run, its genes from 0 to 1.
    """

    outcome: Outcome
    champions: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, environment: Environment, outcome: Outcome) -> Self:
        """Return the performance of a batch whose runs are over."""
        champions = []
        for b in range(len(environment)):
            genes, fitness, _ = environment.population(b)
            champions.append(genes[np.argmax(fitness)])
        return cls(outcome, tuple(champions))


class Contestant(Protocol):
    """One way to spend the budget of a run."""

    name: str

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what it does with the runs of a batch, the same whenever it is asked.

        Parameters
        ----------
        batch : Batch
        variation : Variation
            The operators of the race; contestants that stand for another search bring their own.
        mapper : Mapper
            Threads, or serial.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """The same controls in all generations.

    Parameters
    ----------
    name : str
    controls : callable
        The controls of a task.
    variation : Variation, optional
        Operators instead of those of the race.
    """

    name: str
    controls: Callable[[Task], GAControls]
    variation: Variation | None = None

    @classmethod
    def at(cls, name: str, controls: GAControls) -> Self:
        """Return the contestant that has these controls for all tasks."""
        return cls(name, lambda task: controls)

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what the controls do; see :class:`Contestant`."""
        environment = batch.environment(self.variation or variation, mapper=mapper)
        controls = np.array([self.controls(task).to_array() for task in batch.tasks])
        return Performance.of(environment, environment.run_fixed(controls))


def deap_defaults(task: Task) -> GAControls:
    """Return DEAP's ``eaSimple`` as its tutorial has it: 0.5, 0.2, tournaments of 3.

    Partners are blended (``cxBlend``, alpha 0.5) with probability 0.5; a child mutates with probability 0.2,
    each of its genes then with 0.2 (``mutGaussian``), by a tenth of the box. Nothing is kept but the best,
    without which a search could not say what it found.
    """
    return GAControls(
        mutation_rate=0.2 * 0.2,
        mutation_step=0.1,
        mutation_tail=0.0,
        crossover_rate=0.5,
        crossover_spread=0.5,
        differential_rate=0.0,
        differential_weight=0.5,
        tournament_size=3.0,
        elite_fraction=1 / 512,
        immigrant_fraction=0.0,
        crowding_rate=0.0,
        restart_fraction=0.0,
    )


def pymoo_defaults(task: Task) -> GAControls:
    """Return pymoo's ``GA``: binary tournaments, SBX with 0.9 and index 15, mutation of 1/d with index 20.

    Its survivors are the best of parents and children; here a child replaces its parent if it is no worse.
    """
    eta = 20.0
    return GAControls(
        mutation_rate=max(1.0 / task.dimension, 0.004),
        mutation_step=float(np.sqrt(2.0 / ((eta + 2.0) * (eta + 3.0)))),
        mutation_tail=0.0,
        crossover_rate=0.9,
        # The alpha whose children lie as far beyond their parents as with index 15: (1 + 2 a) / (4 a^2) = 15.
        crossover_spread=float((2.0 + np.sqrt(4.0 + 4.0 * 60.0)) / 120.0),
        differential_rate=0.0,
        differential_weight=0.5,
        tournament_size=2.0,
        elite_fraction=1 / 512,
        immigrant_fraction=0.0,
        crowding_rate=1.0,
        restart_fraction=0.0,
    )


#: What the operators of these two libraries are here.
DEAP_VARIATION = Variation(recombination="blend", mutation="gaussian_cauchy", jitter=False, archive=False)
PYMOO_VARIATION = Variation(recombination="sbx", mutation="polynomial", jitter=False, archive=False)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Controls by the clock of the run: places at evenly spaced shares of its generations, lines between.

    A line between places is a constant factor per generation for controls on a logarithmic scale.

    Parameters
    ----------
    places : float64 (n, 12)
        From 0 to 1, the first bred generation first and the last last. One row is a constant.

    Raises
    ------
    ValueError
        If the shape is another one, or a place is out of range.
    """

    places: np.ndarray

    def __post_init__(self) -> None:
        places = np.asarray(self.places, dtype=np.float64)
        if places.ndim != 2 or places.shape[1] != N_CONTROLS or len(places) == 0:
            raise ValueError(f"places have shape {places.shape}; a schedule needs (n, {N_CONTROLS})")
        if not ((places >= 0.0) & (places <= 1.0)).all():
            raise ValueError("places of a schedule must be from 0 to 1")
        object.__setattr__(self, "places", places)

    def at(self, share: np.ndarray) -> np.ndarray:
        """Return the places, float64 (..., 12), at shares of the run from 0 to 1."""
        at = np.clip(share, 0.0, 1.0) * (len(self.places) - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, len(self.places) - 1)
        part = (at - low)[..., None]
        return self.places[low] * (1.0 - part) + self.places[high] * part

    def controls(self, tasks: Sequence[Task]) -> np.ndarray:
        """Return the controls of all bred generations, float64 (g, B, 12), in natural units."""
        ends = np.array([task.n_generations for task in tasks])
        share = np.arange(ends.max())[:, None] / np.maximum(ends - 1, 1)
        return values_at(self.at(share))

    def to_dict(self) -> dict[str, list[float]]:
        """Return the places of each control by name."""
        return dict(zip(CONTROL_NAMES, self.places.T.tolist(), strict=True))

    @classmethod
    def from_dict(cls, places: Mapping[str, Sequence[float]]) -> Self:
        """Return the schedule that :meth:`to_dict` has written."""
        return cls(np.array([places[name] for name in CONTROL_NAMES]).T)


@dataclass(frozen=True, eq=False)
class Scheduled:
    """Controls that follow the clock of the run and nothing else.

    Parameters
    ----------
    name : str
    schedule : Schedule
    """

    name: str
    schedule: Schedule

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what the schedule does; see :class:`Contestant`."""
        environment = batch.environment(variation, mapper=mapper)
        return Performance.of(environment, environment.run_fixed(self.schedule.controls(batch.tasks)))


def tuned_schedule(
    source: Source,
    steering: Steering,
    variation: Variation,
    config: StaticTuningConfig,
    *,
    seed: int,
    mapper: Mapper,
    final_share: float = 0.5,
    told: Callable[[int, int], None] | None = None,
) -> Schedule:
    """Return the best found straight line from one set of controls to another, 24 numbers.

    CMA-ES in the logits of the places on fresh training tasks in every iteration, as the static controls
    were tuned, from which it begins. What it ends with must beat them on tasks that neither has seen, or the
    static controls are the schedule.

    Parameters
    ----------
    source : Source
        Training tasks.
    steering : Steering
        The tuned static controls.
    variation : Variation
    config : StaticTuningConfig
        Runs are the product of iterations, candidates and tasks, and eight times the tasks at the end.
    seed : int
    mapper : Mapper
    final_share : float
        Weight of the final error; the rest is the area under the curve.
    told : callable, optional
        ``told(done, total)`` after every iteration.

    Raises
    ------
    ConfigError
        If package cma is not installed.
    """

    def losses(schedules: Sequence[Schedule], batch: Batch) -> np.ndarray:
        copies = batch.repeated(len(schedules))
        controls = np.concatenate([one.controls(batch.tasks) for one in schedules], axis=1)
        scored = copies.scores(copies.environment(variation, mapper=mapper).run_fixed(controls))
        return scored.weighed(final_share).reshape(len(schedules), len(batch))

    def evaluated(points: np.ndarray, iteration: int) -> np.ndarray:
        schedules = [_line(point) for point in points]
        return candidate_losses(losses(schedules, source.batch(iteration, config.tasks)))

    begin = np.tile(logit(np.array(steering.static)), 2)
    root = int(stream(seed, "tuned schedule").integers(2**31))
    found = _line(cma_minimum(evaluated, begin, config, root, told))
    static = Schedule(np.array([steering.static]))
    ours, theirs = losses([found, static], source.batch(config.iterations, 4 * config.tasks)).mean(axis=1)
    return found if ours < theirs else static


def _line(logits: np.ndarray) -> Schedule:
    return Schedule(np.clip(expit(logits), MARGIN, 1.0 - MARGIN).reshape(2, N_CONTROLS))


@dataclass(frozen=True, eq=False)
class RandomControl:
    """Controls drawn anew in every generation of every run.

    Parameters
    ----------
    name : str
    steering : Steering, optional
        Around whose controls; by default every place is equally likely.
    spread : float64 (12,), optional
        Standard deviation around them, of the logits of the places.
    seed : int
        Root of the draws; those of a run follow from the seed of its task.
    """

    name: str
    steering: Steering | None = None
    spread: np.ndarray | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steering is None) != (self.spread is None):
            raise ValueError(
                "random control around tuned controls needs both steering and spread, or neither"
            )

    def controls(self, tasks: Sequence[Task]) -> np.ndarray:
        """Return the controls of all bred generations, float64 (g, B, 12), in natural units."""
        places = np.full((max(task.n_generations for task in tasks), len(tasks), N_CONTROLS), 0.5)
        for b, task in enumerate(tasks):
            rng = stream(self.seed, "random control", task.seed)
            shape = task.n_generations, N_CONTROLS
            if self.steering is None:
                places[: shape[0], b] = rng.random(shape)
            else:
                around = logit(np.array(self.steering.static))
                places[: shape[0], b] = expit(around + self.spread * rng.standard_normal(shape))
        return values_at(places)

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what chance does; see :class:`Contestant`."""
        environment = batch.environment(variation, mapper=mapper)
        return Performance.of(environment, environment.run_fixed(self.controls(batch.tasks)))


@dataclass(frozen=True, eq=False)
class Steered:
    """A policy of the environment, made anew for each batch.

    Parameters
    ----------
    name : str
    policy : callable
        ``policy(batch)`` is a :class:`conductor.environment.Policy` for its runs.
    varied : callable, optional
        What it needs to change about the operators of the race.
    """

    name: str
    policy: Callable[[Batch], Any] = field(repr=False)
    varied: Callable[[Variation], Variation] | None = None

    def run(self, batch: Batch, variation: Variation, mapper: Mapper) -> Performance:
        """Return what the policy does; see :class:`Contestant`."""
        chosen = variation if self.varied is None else self.varied(variation)
        environment = batch.environment(chosen, mapper=mapper)
        return Performance.of(environment, environment.run(self.policy(batch)))

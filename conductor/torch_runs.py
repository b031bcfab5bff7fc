"""Runs of one size as tensors, in lockstep: the state of many searches, and what a generation does to it.

What :class:`conductor.torch_environment.TorchEnvironment` consists of. The order of things is that of
``ga.evolution.Evolution``, as ``conductor.environment_kernels`` has it for one run after the other.

Shapes: ``R`` runs, ``p`` individuals, ``d`` genes, ``g`` generations, the initial population not counted.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from conductor.environment_kernels import MAX_TRIES
from conductor.tasks import Task
from conductor.torch_draws import Draws, mixed
from conductor.torch_landscapes import TensorLandscapes
from conductor.torch_operators import bred, column, latin_hypercube, planned, remutated, shuffled_ranks
from conductor.torch_statistics import Brood, diversity, statistics, successful, tallied
from ga.controls import CONTROL_NAMES, CONTROL_RANGES
from ga.progress import IMMIGRANT, OPERATORS, STATISTIC_NAMES
from ga.variation import Variation

#: Places in the table of known genomes per genome that a run may evaluate: two for each, most of them free.
_ROOM = 4
_SHOWN = [name.removeprefix("control_") for name in STATISTIC_NAMES if name.startswith("control_")]
#: What a run takes with it into a fork.
_STATE = ("pool", "fitness", "age", "replaced", "known", "stagnation", "since_restart", "spread", "level")
_RECORD = ("history", "asked", "trials", "successes", "successful", "controls")


class TensorRuns:
    """Runs of landscapes of one size.

    Parameters
    ----------
    tasks : sequence of Task
        Of R runs, alike in dimension, population size and generations.
    variation : Variation
        One of :data:`conductor.torch_operators.BREEDS`.
    guard : int
        Generations of stagnation from which on restarts act.
    device : torch.device
    dtype : torch.dtype

    Attributes
    ----------
    pool : float (R, 2 p + 1, d)
        Genes of the population, best first; of those whom fitter ones replaced; of nobody.
    fitness, age : float (R, p), int64 (R, p)
        Of the population.
    level, asked : float (R, g + 1), int64 (R, g + 1)
        Best fitness after each generation, and genomes evaluated in it.
    history : float (R, g + 1, k)
        Statistics of each generation.
    trials, successes, successful, controls
        Of the last generation, as in :class:`conductor.environment.Environment`.
    generation : int
        The last; -1 before the initial population is evaluated.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        variation: Variation,
        guard: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        first = tasks[0]
        self.p, self.d, self.n_generations = first.population_size, first.dimension, first.n_generations
        self._variation, self._guard = variation, guard
        self._landscapes = TensorLandscapes([task.landscape() for task in tasks], device, dtype)
        self.draws = Draws([task.seed for task in tasks], device, dtype)
        n = len(tasks)
        places = 1 << (_ROOM * first.budget - 1).bit_length()

        def zeros(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros((n, *shape), device=device, dtype=dtype)

        self.pool = zeros(2 * self.p + 1, self.d)
        self.fitness, self.age = zeros(self.p), zeros(self.p, dtype=torch.int64)
        self.replaced = zeros(dtype=torch.int64)
        self.known = zeros(places, dtype=torch.int32)
        self.stagnation, self.since_restart = zeros(dtype=torch.int64), zeros(dtype=torch.int64)
        self.spread, self.level = zeros(), zeros(self.n_generations + 1)
        self.history = zeros(self.n_generations + 1, len(STATISTIC_NAMES))
        self.asked = zeros(self.n_generations + 1, dtype=torch.int64)
        self.trials, self.successes = (zeros(len(OPERATORS), dtype=torch.int64) for _ in range(2))
        self.successful = zeros(2)
        self.controls = torch.full((n, len(CONTROL_NAMES)), math.nan, device=device, dtype=dtype)
        factors = np.random.default_rng(self.d).integers(0, 2**62, self.d) * 2 + 1
        self._factors = torch.as_tensor(factors, device=device)
        self.generation = -1

    def __len__(self) -> int:
        return len(self.fitness)

    @property
    def finished(self) -> bool:
        """Whether all generations are bred."""
        return self.generation >= self.n_generations

    def reset(self) -> None:
        """Go back to the start."""
        for name in (*_STATE, *_RECORD):
            getattr(self, name).zero_()
        self.controls.fill_(math.nan)
        self.generation = -1

    def take(self, other: "TensorRuns", rows: Tensor) -> None:
        """Take over the state of the rows (R,) of other runs of this size."""
        for name in (*_STATE, *_RECORD):
            getattr(self, name).copy_(getattr(other, name)[rows])
        self.generation = other.generation

    def begin(self) -> None:
        """Draw and evaluate the initial population."""
        n, size = len(self), torch.full((len(self),), self.p, device=self.fitness.device)
        genes = latin_hypercube(self.draws, 0, size, self.p, self.d)
        everybody = torch.ones((n, self.p), dtype=torch.bool, device=genes.device)
        new = self._entered(genes, everybody)
        told, invalid = self._measured(genes, everybody)
        nobody, nothing = ~everybody, torch.zeros_like(told)
        brood = Brood(
            child=everybody,
            improved=nobody,
            gain=nothing,
            operator=torch.full_like(self.age, IMMIGRANT),
            weight=nothing,
            rate=nothing,
            duplicates=torch.zeros_like(size),
            cached=(~new).sum(1),
            invalid=invalid,
            restarted=torch.zeros_like(size),
        )
        self._complete(genes, told, torch.zeros_like(self.age), brood)

    def breed(self, controls: Tensor) -> None:
        """Breed, evaluate and complete one generation with controls (R, 12) in natural units."""
        p, now = self.p, self.generation + 1
        self.controls = controls
        since = torch.minimum(self.stagnation, self.since_restart)
        plan = planned(self.draws, now, controls, since, self._guard, p)
        archived = self.replaced.clamp(max=p)
        children = bred(self.draws, now, self.pool, archived, plan, controls, self._variation)
        repeated = plan.child & ~self._entered(children.genes, plan.child)
        genes, cached = self._without_duplicates(children.genes, repeated, controls, now)

        told, invalid = self._measured(genes, plan.child)
        rival = self.fitness.gather(1, plan.parent)
        improved = plan.child & (told > rival)
        brood = Brood(
            child=plan.child,
            improved=improved,
            gain=told - rival,
            operator=children.operator,
            weight=children.weight,
            rate=children.rate,
            duplicates=repeated.sum(1),
            cached=cached,
            invalid=invalid,
            restarted=plan.restarted,
        )
        accepted = plan.child & (~plan.defended | (told >= self.fitness))
        if self._variation.archive:
            self._retire(accepted & (told > self.fitness))
        genes = torch.where(accepted[..., None], genes, self.pool[:, :p])
        age = torch.where(accepted, 0, self.age + 1)
        self._complete(genes, torch.where(accepted, told, self.fitness), age, brood)

    def _measured(self, genes: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
        told = -self._landscapes(genes)
        valid = told.isfinite()
        return torch.where(valid, told, -math.inf), (child & ~valid).sum(1)

    def _retire(self, leaving: Tensor) -> None:
        # The ring takes them in the order of their places; its oldest make room.
        place = self.p + (self.replaced[:, None] + leaving.cumsum(1) - 1) % self.p
        place = torch.where(leaving, place, 2 * self.p)
        self.pool.scatter_(1, place[..., None].expand(-1, -1, self.d), self.pool[:, : self.p].clone())
        self.replaced += leaving.sum(1)

    def _complete(self, genes: Tensor, fitness: Tensor, age: Tensor, brood: Brood) -> None:
        now = self.generation + 1
        order = shuffled_ranks(self.draws, now, fitness)
        self.pool[:, : self.p] = genes.gather(1, order[..., None].expand(-1, -1, self.d))
        self.fitness, self.age = fitness.gather(1, order), age.gather(1, order)
        self.level[:, now] = self.fitness[:, 0]
        genes, controls = self.pool[:, : self.p], None
        if now == 0:
            self.spread = diversity(genes)[0]
            self.stagnation.zero_()
        else:
            risen = self.level[:, now] > self.level[:, now - 1]
            self.stagnation = torch.where(risen, 0, self.stagnation + 1)
            controls = column(self.controls, "mutation_step")[:, 0], _shown(self.controls)
        counts = tallied(brood)
        self.history[:, now] = statistics(
            now,
            self.n_generations,
            genes,
            self.fitness,
            self.age,
            self.level,
            self.stagnation,
            self.spread,
            brood,
            counts,
            controls,
        )
        self.trials, self.successes = counts
        self.successful = successful(brood)
        self.asked[:, now] = brood.child.sum(1)
        self.since_restart = torch.where(brood.restarted > 0, 0, self.since_restart + 1)
        self.generation = now

    def _without_duplicates(
        self, genes: Tensor, repeated: Tensor, controls: Tensor, now: int
    ) -> tuple[Tensor, Tensor]:
        # Only those that repeat a known genome are mutated again: so few that the device is asked for them.
        runs, rows = repeated.nonzero(as_tuple=True)
        for attempt in range(MAX_TRIES):
            if len(runs) == 0:
                break
            mutants = remutated(
                self.draws, now, genes[runs, rows], runs, rows, controls, attempt, self._variation.mutation
            )
            genes[runs, rows] = mutants
            places, mark = self._digests(mutants)
            flat = (places + runs[:, None] * self.known.shape[1]).flatten()
            table, mark = self.known.view(-1), mark.repeat_interleave(2)
            known = (table[flat] == mark).view(-1, 2).any(1)
            table.scatter_reduce_(0, flat, mark, "amax")
            runs, rows = runs[known], rows[known]
        return genes, torch.bincount(runs, minlength=len(self))

    def _entered(self, genes: Tensor, child: Tensor) -> Tensor:
        # Enters genomes into the table of all that a run asked for; returns which are new, bool (R, p). Each
        # stands at two places; where two genomes meet, the larger mark stays, whatever the order of writing,
        # and few lose both.
        places, marks = self._digests(genes)
        marks = torch.where(child, marks, 0)
        places = places.flatten(1)
        both = marks.repeat_interleave(2, 1)
        known = (self.known.gather(1, places) == both).view(len(self), -1, 2).any(2)
        self.known.scatter_reduce_(1, places, both, "amax")
        earlier = torch.ones((self.p, self.p), dtype=torch.bool, device=genes.device).tril(-1)
        twin = ((marks[:, :, None] == marks[:, None, :]) & earlier).any(2)
        return child & ~known & ~twin

    def _digests(self, genes: Tensor) -> tuple[Tensor, Tensor]:
        # Two places (..., 2) in the table and a mark above 0 (...).
        bits = torch.int64 if genes.dtype == torch.float64 else torch.int32
        words = (genes + 0.0).contiguous().view(bits).long()  # -0.0 is 0.0
        digest = mixed((words * self._factors).sum(-1))
        last = self.known.shape[1] - 1
        second = mixed(digest)
        mark = ((digest >> 33) & (2**31 - 2)) + 1
        return torch.stack([digest & last, second & last], -1), mark.int()


def _shown(controls: Tensor) -> Tensor:
    # Places in their ranges, (R, 4), of the controls that statistics show.
    places = []
    for name in _SHOWN:
        limits, value = CONTROL_RANGES[name], column(controls, name)[:, 0]
        if limits.scale == "log":
            places.append(torch.log(value / limits.low) / math.log(limits.high / limits.low))
        else:
            places.append((value - limits.low) / (limits.high - limits.low))
    return torch.stack(places, 1)

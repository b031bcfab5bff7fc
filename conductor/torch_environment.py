"""Many runs of the genetic algorithm as tensors [runs, population, genes], for a GPU where there is one.

The runs of :class:`conductor.environment.Environment` once more, with the same face, for landscapes: equal to
those of ``ga`` in distribution, statistic by statistic, but not in bits, since a GPU draws its own numbers.
All runs of one size do the same work at the same time and what a run does not want is masked, so that a
generation takes about a thousand calls to the device however many runs there are. On processors the compiled
environment is the faster one.

A run follows from its task and its controls alone: runs of the same seed draw the same numbers, in any batch
and on any device. Sums on another device or in another batch may end in other last bits, and a search then
parts from its twin after a while.

Shapes: ``B`` runs, ``p`` individuals, ``d`` genes, ``g`` generations of the longest run (its initial
population not counted), ``k`` statistics.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from conductor.environment import STAGNATION_GUARD
from conductor.landscapes import FAMILIES
from conductor.objective import FLOOR, Outcome
from conductor.tasks import Instance, Task
from conductor.torch_draws import Draws
from conductor.torch_operators import BREEDS
from conductor.torch_runs import TensorRuns
from ga.controls import CONTROL_NAMES, CONTROL_RANGES
from ga.variation import Variation

#: Sets the controls (B, 12), in natural units and on the device, from the statistics (B, k) there.
TensorPolicy = Callable[[Tensor, "TorchEnvironment"], Tensor]


def best_device() -> torch.device:
    """Return the device for large batches: the CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def suits(tasks: Sequence[Task], variation: Variation) -> bool:
    """Return whether these tasks can be run as tensors: landscapes, bred with one of ``BREEDS``."""
    return _stranger(variation) is None and all(isinstance(task.problem, Instance) for task in tasks)


class TorchEnvironment:
    """A batch of runs on landscapes, bred generation by generation with the controls that a policy hands in.

    Has the face of :class:`conductor.environment.Environment`, whose policies it takes; ``run_on_device`` and
    ``step`` also take tensors, and then nothing but a few counts leaves the device. A run of 40 individuals,
    60 generations and 10 genes takes about 130 kB in double precision, half of it its table of known genomes.

    Parameters
    ----------
    tasks : sequence of Task
        Landscapes, of any mixture of sizes; runs of one size work together.
    variation : Variation, optional
        One of :data:`conductor.torch_operators.BREEDS`, with or without jitter and archive.
    stagnation_guard : int
        As in ``ga.evolution.Evolution``.
    device : torch.device or str, optional
        The CUDA device if there is one, else the processor.
    dtype : torch.dtype
        float64, or float32: half the memory and time, and errors below about 1e-6 mean nothing.

    Raises
    ------
    ValueError
        If there is no task, one is no landscape, or the operators are others.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        variation: Variation | None = None,
        stagnation_guard: int = STAGNATION_GUARD,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if len(tasks) == 0:
            raise ValueError("an environment was given no tasks; it needs at least one")
        if stagnation_guard < 1:
            raise ValueError(f"stagnation_guard is {stagnation_guard}; it must be at least 1 generation")
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype of an environment is {dtype}; it must be float64 or float32")
        self.variation = Variation() if variation is None else variation
        if name := _stranger(self.variation):
            has, wanted = " or ".join(map(str, BREEDS[name])), getattr(self.variation, name)
            raise ValueError(
                f"{name} of the variation is {wanted}; an environment of tensors breeds with {has} alone"
            )
        for b, task in enumerate(tasks):
            if not isinstance(task.problem, Instance):
                raise ValueError(
                    f"task {b} is a window of {task.problem.symbol}; an environment of tensors has landscapes"
                )
        self.tasks = tuple(tasks)
        self.stagnation_guard = stagnation_guard
        self.device = best_device() if device is None else torch.device(device)
        self.dtype = dtype
        sizes: dict[tuple[int, int, int], list[int]] = {}
        # Side by side by family, so that each formula works on one piece of memory.
        for b in sorted(range(len(tasks)), key=lambda b: FAMILIES.index(tasks[b].problem.family)):
            task = tasks[b]
            sizes.setdefault((task.population_size, task.dimension, task.n_generations), []).append(b)
        self._rows = [torch.tensor(rows, device=self.device) for rows in sizes.values()]
        self._blocks = [
            TensorRuns([tasks[b] for b in rows], self.variation, stagnation_guard, self.device, dtype)
            for rows in sizes.values()
        ]
        order = torch.cat(self._rows)
        straight = torch.equal(order, torch.arange(len(order), device=self.device))
        self._back = None if straight else order.argsort()
        limits = CONTROL_RANGES.values()
        self._low, self._high = (
            torch.tensor([getattr(one, side) for one in limits], device=self.device, dtype=dtype)
            for side in ("low", "high")
        )

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def generation(self) -> int:
        """The last generation of the longest run; -1 before the initial populations are evaluated."""
        return max(block.generation for block in self._blocks)

    @property
    def finished(self) -> np.ndarray:
        """Which runs are over, bool (B,)."""
        over = [torch.full((len(block),), block.finished, device=self.device) for block in self._blocks]
        return self._joined(over).cpu().numpy()

    @property
    def states(self) -> np.ndarray:
        """Statistics of the last generation of each run, float64 (B, k)."""
        return _array(self.states_on_device)

    @property
    def history(self) -> np.ndarray:
        """Statistics of all generations so far, float64 (B, generation + 1, k)."""
        return _array(self.history_on_device())

    @property
    def best(self) -> np.ndarray:
        """Best fitness after each generation so far, float64 (B, generation + 1)."""
        return _array(self._over_time("level", self.generation + 1))

    @property
    def controls(self) -> np.ndarray:
        """The controls of the last generation of each run, float64 (B, 12); NaN before any.

        In natural units and inside their ranges. Of a run that is over, whatever was last handed in.
        """
        return _array(self.controls_on_device)

    @property
    def trials(self) -> np.ndarray:
        """Offspring by each of ``ga.progress.OPERATORS`` in the last generation, int64 (B, 4)."""
        return self._of("trials").cpu().numpy()

    @property
    def successes(self) -> np.ndarray:
        """Those of them that are fitter than their parent, int64 (B, 4)."""
        return self._of("successes").cpu().numpy()

    @property
    def successful(self) -> np.ndarray:
        """Lehmer means of successful F and CR in the last generation, float64 (B, 2), NaN without any."""
        return _array(self._of("successful"))

    @property
    def states_on_device(self) -> Tensor:
        """Statistics of the last generation of each run, float (B, k), on the device."""
        return self._joined([block.history[:, max(block.generation, 0)] for block in self._blocks])

    @property
    def controls_on_device(self) -> Tensor:
        """The controls of the last generation of each run, float (B, 12), on the device; NaN before any."""
        return self._of("controls")

    def history_on_device(self, n: int | None = None) -> Tensor:
        """Return the statistics of the last ``n`` generations, or of all, float (B, n, k), on the device."""
        stop = self.generation + 1
        history = self._over_time("history", stop)
        return history if n is None else history[:, max(stop - n, 0) :]

    def population(self, b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return copies of the genes (p, d), fitness (p,) and age (p,) of run ``b``, best first."""
        block, row = next(
            (block, int((rows == b).nonzero()))
            for block, rows in zip(self._blocks, self._rows, strict=True)
            if (rows == b).any()
        )
        genes, fitness = block.pool[row, : block.p], block.fitness[row]
        return _array(genes), _array(fitness), block.age[row].cpu().numpy().astype(np.int32)

    def reset(self) -> None:
        """Go back to the start of all runs."""
        for block in self._blocks:
            block.reset()

    def step(self, controls: ArrayLike | Tensor | None = None) -> np.ndarray | Tensor:
        """Breed, evaluate and complete one generation of every run that is not over; return the states.

        Parameters
        ----------
        controls : float (B, 12), optional
            In natural units, clipped into their ranges. The initial population, the first step, needs none.
            After a tensor the states returned are one on the device, else an array.

        Raises
        ------
        ValueError
            If controls are missing, of another shape or not numbers.
        """
        self._advance(None if self.generation < 0 else self._clipped(controls, 2))
        return self.states_on_device if isinstance(controls, Tensor) else self.states

    def run(self, policy: Callable[[np.ndarray, Any], np.ndarray]) -> Outcome:
        """Run to the ends, asking the policy for the controls of each generation, as in ``Environment``."""
        if self.generation < 0:
            self.step()
        while not self._over:
            self.step(policy(self.states, self))
        return self.outcome()

    def run_on_device(self, policy: TensorPolicy) -> None:
        """Run to the ends with a policy that reads and answers tensors on the device; then ask for scores."""
        if self.generation < 0:
            self._advance(None)
        while not self._over:
            self._advance(self._clipped(policy(self.states_on_device, self), 2))

    def run_fixed(self, controls: ArrayLike | Tensor) -> Outcome:
        """Run to the ends with controls that are known beforehand.

        Parameters
        ----------
        controls : float (12,), (B, 12) or (t, B, 12)
            For all, for each run, or for each of the next ``t`` generations, of which the last goes on.
        """
        controls = torch.as_tensor(controls, device=self.device, dtype=self.dtype)
        if controls.ndim == 1:
            controls = controls.expand(len(self), -1)
        controls = self._clipped(controls if controls.ndim == 3 else controls[None], 3)
        if self.generation < 0:
            self._advance(None)
        used = 0
        while not self._over:
            self._advance(controls[min(used, len(controls) - 1)])
            used += 1
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return what the runs have shown.

        Raises
        ------
        RuntimeError
            If a run is not over.
        """
        self._demand_the_end("outcome()")
        longest = max(block.n_generations for block in self._blocks) + 1
        best = _array(self._over_time("level", longest))
        ends = np.array([task.n_generations for task in self.tasks])
        after = np.arange(longest) > ends[:, None]
        best[after] = np.broadcast_to(best[np.arange(len(self)), ends][:, None], best.shape)[after]
        asked = self._over_time("asked", longest).cpu().numpy()
        return Outcome(self.tasks, best, asked, _array(self._over_time("history", longest)))

    def scores_on_device(self, floor: ArrayLike = FLOOR) -> tuple[Tensor, Tensor]:
        """Return decades of error of complete runs, anytime and final, float (B,) each, on the device.

        What :func:`conductor.objective.scores` computes from the outcome, without its way to the processor.

        Raises
        ------
        RuntimeError
            If a run is not over.
        """
        self._demand_the_end("scores_on_device()")
        lowest = torch.as_tensor(floor, device=self.device, dtype=self.dtype).expand(len(self))
        anytime, final = [], []
        for block, rows in zip(self._blocks, self._rows, strict=True):
            most = torch.finfo(self.dtype).max
            logs = torch.log10(
                torch.minimum(torch.maximum(-block.level, lowest[rows, None]), lowest.new_tensor(most))
            )
            spent = block.asked.to(self.dtype) / (block.p * (block.n_generations + 1))
            final.append(logs[:, -1])
            anytime.append((logs * spent).sum(1) + logs[:, -1] * (1.0 - spent.sum(1)))
        return self._joined(anytime), self._joined(final)

    def fork(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> "TorchEnvironment":
        """Return a new environment whose runs go on from where these runs are, as in ``Environment``."""
        rows = [range(len(self))[row] for row in rows]
        if seeds is not None and len(seeds) != len(rows):
            raise ValueError(f"{len(seeds)} seeds are given for {len(rows)} forked runs; each needs one")
        other = TorchEnvironment(
            [self.tasks[row] for row in rows],
            variation=self.variation,
            stagnation_guard=self.stagnation_guard,
            device=self.device,
            dtype=self.dtype,
        )
        place = {int(b): (i, n) for i, own in enumerate(self._rows) for n, b in enumerate(own.tolist())}
        for block, own in zip(other._blocks, other._rows, strict=True):
            sources = [place[rows[b]] for b in own.tolist()]
            taken = torch.tensor([n for _, n in sources], device=self.device)
            block.take(self._blocks[sources[0][0]], taken)  # runs of one size stand in one block
            if seeds is not None:
                block.draws = Draws([seeds[b] for b in own.tolist()], self.device, self.dtype)
        return other

    @property
    def _over(self) -> bool:
        return all(block.finished for block in self._blocks)

    def _demand_the_end(self, call: str) -> None:
        if not self._over:
            open_runs = int((~self.finished).sum())
            raise RuntimeError(
                f"{call} was called with {open_runs} of {len(self)} runs unfinished; run() first"
            )

    def _advance(self, controls: Tensor | None) -> None:
        with torch.no_grad():
            for block, rows in zip(self._blocks, self._rows, strict=True):
                if block.generation < 0:
                    block.begin()
                elif block.finished:
                    block.controls = controls[rows]  # of a run that is over, whatever was last handed in
                else:
                    block.breed(controls[rows])

    def _clipped(self, controls: ArrayLike | Tensor | None, ndim: int) -> Tensor:
        n, width = len(self), len(CONTROL_NAMES)
        if controls is None:
            raise ValueError("step() was called without controls; every generation but the first needs them")
        controls = torch.as_tensor(controls, device=self.device, dtype=self.dtype)
        if controls.ndim != ndim or controls.shape[-2:] != (n, width) or controls.numel() == 0:
            raise ValueError(f"controls have shape {tuple(controls.shape)}; {n} runs need ({n}, {width})")
        if controls.isnan().any():
            *_, run, control = controls.isnan().nonzero()[0].tolist()
            raise ValueError(f"{CONTROL_NAMES[control]} of run {run} is NaN; controls must be numbers")
        return torch.clamp(controls, self._low, self._high)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        together = parts[0] if len(parts) == 1 else torch.cat(parts)
        return together.clone() if self._back is None else together[self._back]

    def _of(self, name: str) -> Tensor:
        return self._joined([getattr(block, name) for block in self._blocks])

    def _over_time(self, name: str, stop: int) -> Tensor:
        parts = []
        for block in self._blocks:
            part = getattr(block, name)[:, :stop]
            missing = stop - part.shape[1]
            if missing > 0:
                part = torch.cat([part, part.new_zeros(len(part), missing, *part.shape[2:])], 1)
            parts.append(part)
        return self._joined(parts)


def _stranger(variation: Variation) -> str | None:
    # The first setting that asks for what conductor.torch_operators does not have.
    return next((name for name, has in BREEDS.items() if getattr(variation, name) not in has), None)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.to("cpu", torch.float64, copy=True).numpy()

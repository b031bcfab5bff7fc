"""Policies that learn inside one run, from which offspring were fitter than their parents.

None of them draws random numbers, and none reads a fitness: successes are counts, and what the successful
children had in common is weighted by shares of the gain. Multiplying the fitness by ten changes nothing.
Each learns once per generation, however often it is asked, and its memory is saved with the search.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pydantic

from configs.load import Config
from ga.controls import POLICIES, GAControls, inside
from ga.policies import SmoothConfig, controls_of
from ga.progress import CROSSOVER, DIFFERENTIAL, MUTATION, Progress


class _Learner:
    """What the policies of this module share: learning once per generation, and a memory that is saved."""

    def __init__(self, config: Config) -> None:
        self._start = controls_of(config)
        self._learned = 0  # the initial population teaches nothing: no policy made it

    def controls(self, progress: Progress) -> GAControls:
        """Return the controls of the next generation; the same again for the same progress."""
        if progress.generation > self._learned:
            self._learn(progress)
            self._learned = progress.generation
        return self._next()

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on bit for bit."""
        return {"learned": self._learned, **self._memory()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned, in a policy of the same settings.

        Raises
        ------
        ValueError
            If the memory is of another shape: it belongs to other settings.
        """
        for name, mine in self._memory().items():
            if np.shape(state[name]) != np.shape(mine):
                raise ValueError(
                    f"the saved {name} of the policy has shape {np.shape(state[name])}; these settings need "
                    f"{np.shape(mine)}"
                )
        self._learned = int(state["learned"])
        self._remember(state)

    def _learn(self, progress: Progress) -> None:
        raise NotImplementedError

    def _next(self) -> GAControls:
        raise NotImplementedError

    def _memory(self) -> dict[str, Any]:
        raise NotImplementedError

    def _remember(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


class SuccessHistoryConfig(SmoothConfig):
    """Settings of policy success_history; weight and crossover rate are where the memory starts."""

    differential_weight: float = pydantic.Field(
        0.5, ge=0.0, le=1.2, description="Scale factor F in every place of the memory at the start."
    )
    crossover_rate: float = pydantic.Field(
        0.5, ge=0.0, le=1.0, description="Crossover rate CR in every place of the memory at the start."
    )
    memory: int = pydantic.Field(
        5, ge=1, le=100, description="Places of the memory: one success-weighted mean of F and CR in each."
    )


@POLICIES.register("success_history")
class SuccessHistoryPolicy(_Learner):
    """The weight and the crossover rate of difference vectors follow those that succeeded.

    A ring of places holds means of F and CR. Every generation with a success overwrites one place by the
    weighted Lehmer means of the F and CR of the children that were fitter than their parent; the next
    generations take the places in turn. The children scatter around it (setting ``variation.jitter``; without
    it there is nothing to learn from), so the means can move both ways. All other controls stay.

    Source: Tanabe and Fukunaga (2013), SHADE; there each child draws its place of the memory, here all
    children of one generation share it, since controls are set per generation.
    """

    Config = SuccessHistoryConfig

    def __init__(self, config: SuccessHistoryConfig | None = None) -> None:
        config = config or SuccessHistoryConfig()
        super().__init__(config)
        self._means = np.empty((config.memory, 2))  # F, CR
        self._means[:] = config.differential_weight, config.crossover_rate
        self._place = 0  # the next one to be overwritten

    def _learn(self, progress: Progress) -> None:
        found = (progress.successful_weight, progress.successful_rate)
        if not all(math.isfinite(mean) for mean in found):
            return
        self._means[self._place] = (
            inside("differential_weight", found[0]),
            inside("crossover_rate", found[1]),
        )
        self._place = (self._place + 1) % len(self._means)

    def _next(self) -> GAControls:
        weight, rate = self._means[self._learned % len(self._means)].tolist()
        return replace(self._start, differential_weight=weight, crossover_rate=rate)

    def _memory(self) -> dict[str, Any]:
        return {"means": self._means.copy(), "place": self._place}

    def _remember(self, state: Mapping[str, Any]) -> None:
        self._means = np.array(state["means"], dtype=np.float64)
        self._place = int(state["place"])


class OneFifthConfig(SmoothConfig):
    """Settings of policy one_fifth; the mutation step is where it starts."""

    target: float = pydantic.Field(
        0.2, gt=0.0, lt=1.0, description="Share of successful mutants at which the step stays."
    )
    speed: float = pydantic.Field(
        0.3, gt=0.0, le=2.0, description="How much the logarithm of the step grows if every mutant succeeds."
    )


@POLICIES.register("one_fifth")
class OneFifthPolicy(_Learner):
    """The mutation step grows while more than a fifth of the mutants succeed, and shrinks while fewer do.

    ``step x exp(speed (share - target) / (1 - target))`` once per generation, within the control's range.
    Mutants are the children of mutation alone; in a generation without any, all bred children count.

    Source: Rechenberg (1973), the 1/5 success rule; Hansen, Arnold and Auger (2015) in this form.
    """

    Config = OneFifthConfig

    def __init__(self, config: OneFifthConfig | None = None) -> None:
        config = config or OneFifthConfig()
        super().__init__(config)
        self._target, self._speed = config.target, config.speed
        self._step = config.mutation_step

    def _learn(self, progress: Progress) -> None:
        bred = [MUTATION] if progress.trials[MUTATION] else [CROSSOVER, DIFFERENTIAL]
        trials = sum(int(progress.trials[operator]) for operator in bred)
        successes = sum(int(progress.successes[operator]) for operator in bred)
        if trials:
            surplus = (successes / trials - self._target) / (1.0 - self._target)
            self._step = inside("mutation_step", self._step * math.exp(self._speed * surplus))

    def _next(self) -> GAControls:
        return replace(self._start, mutation_step=self._step)

    def _memory(self) -> dict[str, Any]:
        return {"step": self._step}

    def _remember(self, state: Mapping[str, Any]) -> None:
        self._step = float(state["step"])


#: What the bandit chooses between: differential rate, crossover rate, factor of the mutation step.
ARMS = (
    (0.9, 0.9, 1.0),  # difference vectors of all genes
    (0.9, 0.1, 1.0),  # difference vectors of few genes
    (0.1, 0.9, 1.0),  # partners
    (0.1, 0.1, 1.0),  # mutation
    (0.1, 0.1, 0.1),  # mutation by short steps
    (0.1, 0.1, 0.01),
)


class BanditConfig(SmoothConfig):
    """Settings of policy bandit; the rates of the mix are chosen by it, the rest are kept."""

    window: int = pydantic.Field(
        40, ge=len(ARMS), le=10_000, description="Generations that count; older ones are forgotten."
    )
    exploration: float = pydantic.Field(
        0.3, ge=0.0, le=10.0, description="Weight of the bonus for mixes that were tried seldom."
    )


@POLICIES.register("bandit")
class BanditPolicy(_Learner):
    """Each generation is bred by the mix of operators that has earned most lately, or was tried too seldom.

    The mixes (``ARMS``) lean to difference vectors, partners, or mutation by steps of three lengths. A
    generation earns its mix the share of bred children that were fitter than their parent, where a success of
    mutation alone counts by the length of its step: short steps succeed often and gain little. The next mix
    is the one with the largest mean over the window, as a share of the best mean, plus
    ``exploration x sqrt(log(generations in the window) / times tried in it)``; untried ones come first.

    Source: Garivier and Moulines (2011), sliding-window UCB; Fialho, Da Costa, Schoenauer and Sebag (2010),
    adaptive operator selection by bandits.
    """

    Config = BanditConfig

    def __init__(self, config: BanditConfig | None = None) -> None:
        config = config or BanditConfig()
        super().__init__(config)
        self._exploration = config.exploration
        self._arms = np.full(config.window, -1, dtype=np.int64)  # oldest first; -1: no generation yet
        self._earned = np.zeros(config.window)

    def _learn(self, progress: Progress) -> None:
        arm = self._choice()
        worth = {MUTATION: ARMS[arm][2], CROSSOVER: 1.0, DIFFERENTIAL: 1.0}
        trials = sum(int(progress.trials[operator]) for operator in worth)
        successes = sum(value * int(progress.successes[operator]) for operator, value in worth.items())
        earned = successes / trials if trials else 0.0
        self._arms = np.append(self._arms[1:], arm)
        self._earned = np.append(self._earned[1:], earned)

    def _choice(self) -> int:
        known = self._arms >= 0
        tried = np.bincount(self._arms[known], minlength=len(ARMS))
        if not tried.all():
            return int(np.argmin(tried > 0))
        mean = np.bincount(self._arms[known], self._earned[known], minlength=len(ARMS)) / tried
        best = mean.max()
        bonus = self._exploration * np.sqrt(math.log(int(known.sum())) / tried)
        return int(np.argmax((mean / best if best > 0.0 else mean) + bonus))

    def _next(self) -> GAControls:
        differential, crossover, factor = ARMS[self._choice()]
        step = inside("mutation_step", self._start.mutation_step * factor)
        return replace(
            self._start, differential_rate=differential, crossover_rate=crossover, mutation_step=step
        )

    def _memory(self) -> dict[str, Any]:
        return {"arms": self._arms.copy(), "earned": self._earned.copy()}

    def _remember(self, state: Mapping[str, Any]) -> None:
        self._arms = np.array(state["arms"], dtype=np.int64)
        self._earned = np.array(state["earned"], dtype=np.float64)

"""The policies of :mod:`ga.adaptive_policies`, for all runs of a batch at once.

Each is the twin of the policy of the same name: a batch of one gets its controls to the bit, and so does
every run of a batch. All runs of a batch have the same generation, so all learn at the same time.
"""

import math
from typing import Any

import numpy as np

from conductor.environment import Environment
from ga.adaptive_policies import ARMS, BanditConfig, OneFifthConfig, SuccessHistoryConfig
from ga.controls import CONTROL_NAMES, CONTROL_RANGES
from ga.policies import controls_of
from ga.progress import CROSSOVER, DIFFERENTIAL, MUTATION

_STEP = CONTROL_NAMES.index("mutation_step")
_RECOMBINED = CONTROL_NAMES.index("crossover_rate")
_DIFFERENTIAL = CONTROL_NAMES.index("differential_rate")
_WEIGHT = CONTROL_NAMES.index("differential_weight")
_ARMS = np.array(ARMS)
# The library's exponential may differ in its last bit from NumPy's, and a search never forgets a bit.
_exp = np.frompyfunc(math.exp, 1, 1)


class _Twin:
    """What the twins share: the controls that stay, and learning once per bred generation."""

    def __init__(self, n: int, config: Any) -> None:
        self._start = np.tile(controls_of(config).to_array(), (n, 1))

    def __call__(self, states: np.ndarray, environment: Environment) -> np.ndarray:
        """Return the controls of the next generation, float64 (B, 12)."""
        if environment.generation > 0:  # the initial population teaches nothing: no policy made it
            self._learn(environment)
        return self._next(environment.generation)

    def _learn(self, environment: Environment) -> None:
        raise NotImplementedError

    def _next(self, generation: int) -> np.ndarray:
        raise NotImplementedError


class OneFifth(_Twin):
    """Twin of :class:`ga.adaptive_policies.OneFifthPolicy`.

    Parameters
    ----------
    n : int
        Runs of the batch.
    config : OneFifthConfig
    """

    def __init__(self, n: int, config: OneFifthConfig) -> None:
        super().__init__(n, config)
        self._target, self._speed = config.target, config.speed
        self._step = np.full(n, config.mutation_step)

    def _learn(self, environment: Environment) -> None:
        trials, successes = environment.trials, environment.successes
        mutated = trials[:, MUTATION] > 0
        made, won = (
            np.where(mutated, counts[:, MUTATION], counts[:, CROSSOVER] + counts[:, DIFFERENTIAL])
            for counts in (trials, successes)
        )
        surplus = (won / np.maximum(made, 1) - self._target) / (1.0 - self._target)
        step = self._step * _exp(self._speed * surplus).astype(np.float64)
        self._step = np.where(made > 0, _inside("mutation_step", step), self._step)

    def _next(self, generation: int) -> np.ndarray:
        controls = self._start.copy()
        controls[:, _STEP] = self._step
        return controls


class SuccessHistory(_Twin):
    """Twin of :class:`ga.adaptive_policies.SuccessHistoryPolicy`.

    Parameters
    ----------
    n : int
        Runs of the batch.
    config : SuccessHistoryConfig
    """

    def __init__(self, n: int, config: SuccessHistoryConfig) -> None:
        super().__init__(n, config)
        self._means = np.empty((n, config.memory, 2))  # F, CR
        self._means[:] = config.differential_weight, config.crossover_rate
        self._place = np.zeros(n, dtype=np.int64)  # the next one to be overwritten

    def _learn(self, environment: Environment) -> None:
        found = environment.successful
        rows = np.flatnonzero(np.isfinite(found).all(axis=1))
        places = self._place[rows]
        self._means[rows, places, 0] = _inside("differential_weight", found[rows, 0])
        self._means[rows, places, 1] = _inside("crossover_rate", found[rows, 1])
        self._place[rows] = (places + 1) % self._means.shape[1]

    def _next(self, generation: int) -> np.ndarray:
        controls = self._start.copy()
        controls[:, [_WEIGHT, _RECOMBINED]] = self._means[:, generation % self._means.shape[1]]
        return controls


class Bandit(_Twin):
    """Twin of :class:`ga.adaptive_policies.BanditPolicy`.

    Parameters
    ----------
    n : int
        Runs of the batch.
    config : BanditConfig
    """

    def __init__(self, n: int, config: BanditConfig) -> None:
        super().__init__(n, config)
        self._exploration = config.exploration
        self._arms = np.full((n, config.window), -1, dtype=np.int64)  # oldest first; -1: no generation yet
        self._earned = np.zeros((n, config.window))

    def _learn(self, environment: Environment) -> None:
        arm = self._choice()
        trials, successes = environment.trials, environment.successes
        made = trials[:, MUTATION] + trials[:, CROSSOVER] + trials[:, DIFFERENTIAL]
        won = _ARMS[arm, 2] * successes[:, MUTATION] + successes[:, CROSSOVER] + successes[:, DIFFERENTIAL]
        earned = np.where(made > 0, won / np.maximum(made, 1), 0.0)
        self._arms = np.column_stack([self._arms[:, 1:], arm])
        self._earned = np.column_stack([self._earned[:, 1:], earned])

    def _choice(self) -> np.ndarray:
        n, known = len(self._arms), self._arms >= 0
        # bincount adds in the order of time, as the policy does; another order has other last bits.
        code = (np.arange(n)[:, None] * len(ARMS) + self._arms)[known]
        tried = np.bincount(code, minlength=n * len(ARMS)).reshape(n, -1)
        earned = np.bincount(code, self._earned[known], minlength=n * len(ARMS)).reshape(n, -1)
        mean = earned / np.maximum(tried, 1)
        best = mean.max(axis=1, keepdims=True)
        relative = np.where(best > 0.0, mean / np.where(best > 0.0, best, 1.0), mean)
        seen = max(int(known[0].sum()), 1)
        bonus = self._exploration * np.sqrt(math.log(seen) / np.maximum(tried, 1))
        untried = np.argmin(tried > 0, axis=1)
        return np.where((tried > 0).all(axis=1), np.argmax(relative + bonus, axis=1), untried)

    def _next(self, generation: int) -> np.ndarray:
        arm = self._choice()
        controls = self._start.copy()
        controls[:, _DIFFERENTIAL], controls[:, _RECOMBINED] = _ARMS[arm, 0], _ARMS[arm, 1]
        controls[:, _STEP] = _inside("mutation_step", self._start[:, _STEP] * _ARMS[arm, 2])
        return controls


def _inside(name: str, values: np.ndarray) -> np.ndarray:
    limits = CONTROL_RANGES[name]
    return np.clip(values, limits.low, limits.high)

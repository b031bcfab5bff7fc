"""Runs of the search as episodes: what an action sets, and what it is paid.

One step is one generation. Its reward is how far it moved the run away from its static twin, the run of the
same task and seed with the tuned controls; the rewards of an episode add up to minus what
:func:`conductor.objective.objective` says of it, limits included. So an agent that does not discount
maximizes what conductors are judged by, and one that does nothing is paid exactly zero.

That holds because each score has a value for an unfinished run too: the final error, that the error stays as
it is; the area under the curve, that it stays so for the rest of the budget. A reward is the difference of
two such values, a shaping by potentials that leaves the best policy as it was. The twin is a baseline that no
action moves: it changes no gradient on average and takes out what is the luck of a task.

Source: A. Y. Ng, D. Harada and S. Russell (1999), Policy invariance under reward transformations (ICML).
"""

from typing import NamedTuple

import numpy as np

from compute.workers import Mapper
from conductor.curriculum import Batch
from conductor.environment import Environment
from conductor.objective import LIMIT
from conductor.sight import inputs_of
from conductor.steering import Steering
from ga.controls import CONTROL_NAMES
from ga.variation import Variation

#: Largest residual that an action sets: it moves a control from the middle of its range to 12 or to 88 %.
REACH = 2.0


class Terms(NamedTuple):
    """What an episode is played by.

    Parameters
    ----------
    steering : Steering
        Around the tuned static controls, which are also those of the twin.
    variation : Variation
        Operators behind the controls.
    final_share : float
        Weight of the final error, from 0 to 1; the rest is that of the area under the curve.
    reach : float
        Residual that an action of 1 sets.
    """

    steering: Steering
    variation: Variation
    final_share: float = 0.5
    reach: float = REACH


class Episodes:
    """Runs of a batch that begin together, with the curves of their static twins.

    Runs of different lengths end one by one; an ended run reads no action and is paid nothing.

    Parameters
    ----------
    batch : Batch
        Of B runs.
    terms : Terms
    mapper : Mapper, optional
        Where runs are bred, see :class:`conductor.environment.Environment`.

    Attributes
    ----------
    environment : Environment
        The runs, the initial populations evaluated.
    """

    def __init__(self, batch: Batch, terms: Terms, *, mapper: Mapper | None = None) -> None:
        if not 0.0 <= terms.final_share <= 1.0:
            raise ValueError(f"final_share is {terms.final_share}; it must be from 0 to 1")
        if not terms.reach > 0.0:
            raise ValueError(f"reach is {terms.reach}; it must be above 0")
        self.batch, self.terms = batch, terms
        self.environment: Environment = batch.environment(terms.variation, mapper=mapper)
        self._rows = np.arange(len(batch))
        self._budget = np.array([task.budget for task in batch.tasks], dtype=np.float64)
        self._ends = np.array([task.n_generations for task in batch.tasks])
        twin = self.environment.run_fixed(terms.steering.controls.to_array())
        logs, spent = self._logs(twin.best), twin.asked / self._budget[:, None]
        self._twin_final = logs
        self._twin_area = (logs * spent).cumsum(axis=1) + logs * (1.0 - spent.cumsum(axis=1))
        self.environment.reset()
        self.environment.step()
        self._area, self._spent = np.zeros(len(batch)), np.zeros(len(batch))
        self._value = self._valued(np.ones(len(batch), dtype=bool))

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def finished(self) -> np.ndarray:
        """Which runs are over, bool (B,)."""
        return self.environment.finished

    @property
    def value(self) -> np.ndarray:
        """Decades below the static twin so far, float64 (B,): the sum of the rewards."""
        return self._value.copy()

    def seen(self) -> np.ndarray:
        """Return the state of each run, float32 (B, 64), see :class:`conductor.sight.Inputs`."""
        return inputs_of(self.environment, self.batch.outlook).state

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Breed a generation; return the reward of each run, float64 (B,), in decades.

        Parameters
        ----------
        actions : float (B, 12)
            Residuals in units of the reach, clipped to plus and minus 1; one that is not a number counts
            as 0, as it does for a network.

        Raises
        ------
        ValueError
            If there are not 12 numbers per run.
        """
        actions = np.asarray(actions, dtype=np.float64)
        needed = len(self), len(CONTROL_NAMES)
        if actions.shape != needed:
            raise ValueError(f"actions have shape {actions.shape}; {len(self)} runs need {needed}")
        live = ~self.finished
        residual = self.terms.reach * np.clip(np.nan_to_num(actions), -1.0, 1.0)
        self.environment.step(self.terms.steering.steered(residual, self.environment.controls))
        before, self._value = self._value, self._valued(live)
        return self._value - before

    def _logs(self, best: np.ndarray) -> np.ndarray:
        # As objective.scores() takes them; the best known fitness of every task of a batch is 0.
        floor = self.batch.floor if best.ndim == 1 else self.batch.floor[:, None]
        return np.log10(np.clip(-best, floor, np.finfo(np.float64).max))

    def _valued(self, live: np.ndarray) -> np.ndarray:
        # Value of each run after its last generation, of which `live` says whose is new.
        at = np.minimum(self.environment.generation, self._ends)
        logs = self._logs(self.environment.best[self._rows, at])
        spent = np.where(live, self.environment.asked[self._rows, at] / self._budget, 0.0)
        self._area += logs * spent
        self._spent += spent
        area = self._area + logs * (1.0 - self._spent)
        share = self.terms.final_share
        gained = np.clip(self._twin_area[self._rows, at] - area, -LIMIT, LIMIT)
        nearer = np.clip(self._twin_final[self._rows, at] - logs, -LIMIT, LIMIT)
        return (1.0 - share) * gained + share * nearer

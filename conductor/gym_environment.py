"""Episodes for libraries of reinforcement learning: a run for gymnasium, many for Stable-Baselines3.

Both show the 64 numbers of ``conductor.state``, take residuals in units of a reach, and pay as
:mod:`conductor.episodes` says. A run ends where its budget ends, and the share of the budget used is one of
the numbers: that is an end of the task (``terminated``), not a cut.

Needs the extra ``rl``; nothing but a variant that asks for it imports this module.
"""

from collections import deque
from typing import Any, ClassVar

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from compute.workers import Mapper, SerialMapper
from conductor.curriculum import Batch, Source
from conductor.episodes import Episodes, Terms
from conductor.state import STATE_NAMES
from ga.controls import CONTROL_NAMES

#: Beyond every entry of a state: what a search shows lies within 3, a scaled market within 5.
_HIGHEST = 10.0
OBSERVATIONS = gymnasium.spaces.Box(-_HIGHEST, _HIGHEST, (len(STATE_NAMES),), np.float32)
ACTIONS = gymnasium.spaces.Box(-1.0, 1.0, (len(CONTROL_NAMES),), np.float32)


class RunEnvironment(gymnasium.Env):
    """One run of the search per episode, its task drawn anew at each reset.

    Parameters
    ----------
    source : Source
    terms : Terms
    drawn : int
        Tasks of the batch from which the one is drawn: a mixture gives at least one per source.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = OBSERVATIONS
    action_space = ACTIONS

    def __init__(self, source: Source, terms: Terms, *, drawn: int = 8) -> None:
        if drawn < 1:
            raise ValueError(f"drawn is {drawn}; an episode needs at least one task to draw from")
        self._source, self._terms, self._drawn = source, terms, drawn
        self._episodes: Episodes | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a run; a seed decides its task and those of all episodes after it."""
        super().reset(seed=seed)
        batch = self._source.batch(int(self.np_random.integers(2**31)), self._drawn)
        one = batch.rows(np.array([int(self.np_random.integers(len(batch)))]))
        self._episodes = Episodes(one, self._terms, mapper=SerialMapper())
        return self._episodes.seen()[0], {"task": one.tasks[0]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Breed a generation.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If no run is under way.
        """
        if self._episodes is None or self._episodes.finished[0]:
            raise gymnasium.error.ResetNeeded("no run is under way; call reset() first")
        reward = self._episodes.step(np.asarray(action)[None])[0]
        info = {"value": float(self._episodes.value[0])}
        return self._episodes.seen()[0], float(reward), bool(self._episodes.finished[0]), False, info


class RunVecEnv(VecEnv):
    """Many runs side by side, bred as batches by the compiled environment.

    Runs that begin together are one batch; whoever ends begins anew at once, together with all that end in
    the same generation. Tasks are taken from batches of the source in the order of their lengths, so that
    those of one batch mostly end together.

    Seeds that are handed in change nothing: batches are known by number, which is what makes them the same
    for everybody.

    Parameters
    ----------
    source : Source
    terms : Terms
    n_runs : int
        Runs at the same time, and tasks per batch of the source.
    first : int
        Number of the first batch.
    mapper : Mapper, optional
        Where runs are bred, see :class:`conductor.environment.Environment`.
    """

    def __init__(
        self, source: Source, terms: Terms, n_runs: int, *, first: int = 0, mapper: Mapper | None = None
    ) -> None:
        self._source, self._terms, self._mapper = source, terms, mapper
        self._first = self._number = first
        self._groups: list[tuple[Episodes, np.ndarray]] = []  # episodes, and the place of each run or -1
        self._waiting: deque[Batch] = deque()
        self._actions: np.ndarray | None = None
        self.render_mode = None
        super().__init__(n_runs, OBSERVATIONS, ACTIONS)

    def reset(self) -> np.ndarray:
        """Begin all runs with the next tasks; return their states, float32 (n_runs, 64)."""
        self._groups.clear()
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        seen = np.zeros((self.num_envs, *OBSERVATIONS.shape), dtype=np.float32)
        self._begin(np.arange(self.num_envs), seen)
        return seen

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions, float (n_runs, 12), for :meth:`step_wait`."""
        self._actions = np.asarray(actions, dtype=np.float64)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Breed a generation; return states, rewards in decades, ends, and what else there is to say.

        An ended run is replaced at once: its last state is ``terminal_observation`` of its info, and the
        sum of its rewards and its length are ``episode``.
        """
        seen = np.zeros((self.num_envs, *OBSERVATIONS.shape), dtype=np.float32)
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        ended = np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._lengths += 1
        for episodes, places in self._groups:
            live = places >= 0
            actions = np.zeros((len(places), *ACTIONS.shape))
            actions[live] = self._actions[places[live]]
            paid = episodes.step(actions)
            seen[places[live]], rewards[places[live]] = episodes.seen()[live], paid[live]
            for row in np.flatnonzero(live & episodes.finished).tolist():
                place = int(places[row])
                ended[place] = True
                infos[place] = {
                    "terminal_observation": seen[place].copy(),
                    "episode": {"r": float(episodes.value[row]), "l": int(self._lengths[place])},
                    "task": episodes.batch.tasks[row],
                    "TimeLimit.truncated": False,
                }
                places[row] = -1
        self._groups = [group for group in self._groups if (group[1] >= 0).any()]
        if ended.any():
            self._begin(np.flatnonzero(ended), seen)
        return seen, rewards, ended, infos

    def close(self) -> None:
        """Forget the runs; the mapper is the caller's."""
        self._groups.clear()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute as if each run had it."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: runs have no attributes of their own."""
        raise AttributeError(f"{attr_name} cannot be set: runs have no attributes of their own")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: runs have no methods of their own."""
        raise AttributeError(f"{method_name} cannot be called: runs have no methods of their own")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        """Return that no run is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _begin(self, places: np.ndarray, seen: np.ndarray) -> None:
        # The next tasks take these places; their first states are written into `seen`.
        parts: list[Batch] = []
        while (missing := len(places) - sum(len(part) for part in parts)) > 0:
            if not self._waiting:
                batch = self._source.batch(self._number, self.num_envs)
                self._number += 1
                lengths = [task.n_generations for task in batch.tasks]
                self._waiting.append(batch.rows(np.argsort(lengths, kind="stable")))
            batch = self._waiting.popleft()
            parts.append(batch.rows(np.arange(min(missing, len(batch)))))
            if len(batch) > missing:
                self._waiting.appendleft(batch.rows(np.arange(missing, len(batch))))
        batch = parts[0] if len(parts) == 1 else Batch.joined(parts)
        episodes = Episodes(batch, self._terms, mapper=self._mapper)
        seen[places] = episodes.seen()
        self._lengths[places] = 0
        self._groups.append((episodes, places.copy()))

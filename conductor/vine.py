"""Vine labels: what a change of controls is worth in a state, found by trying several from that very state.

Runs are bred with controls drawn at random around the tuned ones. From states on their way K continuations
branch off like the shoots of a vine. Each is a residual drawn at random, independent of all that a network
sees, held for some generations; all branches of a fork draw the same random numbers, so that most of the luck
cancels. What a branch gained over the mean of its fork is its advantage.

Nothing of it is circular: a network sees the same inputs in all branches of a fork, so no label can follow
from them, and a branch is good only through the error that it leaves behind.

Source: J. Schulman et al. (2015), Trust region policy optimization (ICML), section 5.2, the vine procedure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compute.seeds import stream
from compute.workers import Mapper
from conductor.curriculum import Batch, Source
from conductor.environment import Environment
from conductor.school import Labels
from conductor.sight import Inputs, inputs_of
from conductor.steering import Steering
from conductor.tasks import SEED_LIMIT, SPLITS, Instance, Task
from ga.controls import CONTROL_NAMES
from ga.variation import Variation

#: Generations for which the controls of a run are held before others are drawn: shorter ones show nothing.
HOLD = 6
#: Standard deviation of the residuals of branches, in logits; of the runs they branch from, at most that.
SPREAD = 1.0
#: Decades beyond which a gain counts no further, so that one fork does not decide a mean.
LIMIT = 3.0
#: Continuations bred at once: about 100 kB each.
_AT_ONCE = 1024
#: Spreads below it are the rounding of logarithms.
_NOTHING = 1e-9


@dataclass(frozen=True, eq=False)
class Forks:
    """What the branches of F forks have gained, before it is made into labels.

    Parameters
    ----------
    inputs : Inputs
        Of the F states.
    residual : float32 (F, K, 12)
        Of the branches. The first is zero, the tuned controls; the others are pairs of a residual and its
        opposite.
    gain : float64 (F, K, R)
        Decades of error that each branch left behind in each repeat.
    run : int64 (F,)
        Which run the state came from.
    generation : int64 (F,)
        After which generation of it.
    landscape : bool (F,)
        Whether the run was on a landscape; the others were on market windows.
    """

    inputs: Inputs
    residual: np.ndarray
    gain: np.ndarray
    run: np.ndarray
    generation: np.ndarray
    landscape: np.ndarray

    def __len__(self) -> int:
        return len(self.run)

    @property
    def agreement(self) -> float:
        """Correlation of the gains of branches between two repeats: the share of them that is not luck.

        Of the gains over the mean of their fork; NaN with one repeat, or where nothing was gained.
        """
        if self.gain.shape[2] < 2:
            return float("nan")
        centred = self.gain - self.gain.mean(axis=1, keepdims=True)
        halves = np.array_split(centred, 2, axis=2)
        first, second = (half.mean(axis=2).ravel() for half in halves)
        power = np.sqrt((first**2).sum() * (second**2).sum())
        return float((first * second).sum() / power) if power > _NOTHING else float("nan")

    def labels(self) -> Labels:
        """Return the labels: each gain over the mean of its fork, in standard deviations of such gains.

        Landscapes and market windows are measured by standard deviations of their own: errors of the first
        fall by decades, regrets of the second by parts of one. All forks of a kind share one unit, so that a
        fork in which the controls hardly mattered says hardly anything. Some forks gain nothing at all.
        """
        n_forks, n_branches = self.residual.shape[:2]
        gain = self.gain.mean(axis=2)
        gain -= gain.mean(axis=1, keepdims=True)
        for kind in (self.landscape, ~self.landscape):
            unit = float(np.sqrt((gain[kind] ** 2).mean())) if kind.any() else 0.0
            gain[kind] = gain[kind] / unit if unit > _NOTHING else 0.0
        forks = np.repeat(np.arange(n_forks), n_branches)
        return Labels(
            *(part[forks] for part in self.inputs),
            self.residual.reshape(-1, len(CONTROL_NAMES)),
            gain.ravel().astype(np.float32),
            forks,
            self.run[forks],
        )


def vine(
    source: Source,
    steering: Steering,
    variation: Variation,
    n_history: int,
    *,
    n_runs: int,
    n_forks: int,
    n_branches: int = 16,
    horizon: int = 8,
    follow: int = 0,
    repeats: int = 2,
    seed: int,
    mapper: Mapper | None = None,
) -> Forks:
    """Breed runs with random controls, let continuations branch off them, and return what these gained.

    The work is that of ``n_runs`` runs and of ``n_forks * n_branches * repeats`` pieces of ``horizon +
    follow`` generations.

    Parameters
    ----------
    source : Source
        Of training tasks. The tasks are those of one batch, whose number follows from the seed.
    steering : Steering
        Around the tuned controls.
    variation : Variation
        Operators behind the controls.
    n_history : int
        Generations that the inputs look back on.
    n_runs, n_forks : int
        Runs, and states of all of them together from which continuations branch off, as many of each run and
        spread over the whole of it; a run that is too short gives fewer.
    n_branches : int
        Continuations of a state, at least 2.
    horizon, follow : int
        Generations for which a branch holds its residual, at least 1, and generations with the tuned
        controls after them, before its gain is taken: what a control does for the population may show only
        then. A run that ends earlier is measured at its end.
    repeats : int
        How often all branches of a fork are bred, each time with other random numbers.
    seed : int
        The forks follow from it.
    mapper : Mapper, optional
        Works on the runs.

    Raises
    ------
    ValueError
        If there are too few branches, or another number is below 1 (``follow`` and ``n_history`` below 0).
    """
    for name, value, least in (
        ("n_runs", n_runs, 1),
        ("n_forks", n_forks, 1),
        ("n_branches", n_branches, 2),
        ("horizon", horizon, 1),
        ("follow", follow, 0),
        ("repeats", repeats, 1),
        ("n_history", n_history, 0),
    ):
        if value < least:
            raise ValueError(f"{name} of vine labels is {value}; it must be at least {least}")
    # Far from the small numbers that whole runs are evolved with later.
    number = int(stream(seed, "vine", "batch").integers(2**31, 2**32))
    batch = source.batch(number, n_runs)
    environment = batch.environment(variation, mapper=mapper)
    moments = _moments(batch, n_forks, horizon, seed)
    walk = _Walk(steering, len(batch), stream(seed, "vine", "walk"))
    draws = stream(seed, "vine", "branches")
    seen, residuals, gains, runs, generations = [], [], [], [], []
    environment.step()
    for generation in range(1 + max(max(own, default=0) for own in moments)):
        due = [b for b, own in enumerate(moments) if generation in own]
        if due:
            branches = branch_residuals(draws, len(due), n_branches)
            seeds = seeds_beside(draws, [batch.tasks[b] for b in due], repeats)
            inputs = inputs_of(environment, batch.outlook, n_history)
            seen.append(Inputs(*(part[due] for part in inputs)))
            residuals.append(branches)
            gains.append(_gains(environment, batch, due, branches, seeds, steering, horizon, follow))
            runs.extend(due)
            generations.extend([generation] * len(due))
        environment.step(walk(environment))
    return Forks(
        Inputs(*(np.concatenate(parts) for parts in zip(*seen, strict=True))),
        np.concatenate(residuals),
        np.concatenate(gains),
        np.array(runs, dtype=np.int64),
        np.array(generations, dtype=np.int64),
        np.array([isinstance(batch.tasks[b].problem, Instance) for b in runs]),
    )


def branch_residuals(
    rng: np.random.Generator,
    n_forks: int,
    n_branches: int,
    width: int = len(CONTROL_NAMES),
    spread: float = SPREAD,
) -> np.ndarray:
    """Return residuals of the branches of forks, float32 (n_forks, n_branches, width).

    The first is zero. The others are normal, in pairs of opposites, so that as far as the gain is linear the
    mean of a fork is that of no residual, and branches that all gain the same ask for none.
    """
    half = rng.normal(scale=spread, size=(n_forks, n_branches // 2, width))
    pairs = np.stack([half, -half], axis=2).reshape(n_forks, -1, width)
    residuals = np.zeros((n_forks, n_branches, width), dtype=np.float32)
    residuals[:, 1:] = pairs[:, : n_branches - 1]
    return residuals


def seeds_beside(rng: np.random.Generator, tasks: Sequence[Task], n: int) -> np.ndarray:
    """Return ``n`` new seeds for each task, int64 (len(tasks), n), of the same split as its own.

    The split of a seed is what it leaves as remainder, see :mod:`conductor.tasks`.
    """
    n_splits = len(SPLITS)
    split = np.array([task.seed % n_splits for task in tasks])
    return rng.integers(SEED_LIMIT // n_splits - 1, size=(len(tasks), n)) * n_splits + split[:, None]


class _Walk:
    """The policy of the runs from which states are taken: residuals drawn at random, each held for a while.

    Each draw has a spread of its own, from none to ``SPREAD``: the states of a conductor lie somewhere
    between those of the tuned controls and those of wild ones.
    """

    def __init__(self, steering: Steering, n: int, rng: np.random.Generator) -> None:
        self._steering, self._rng = steering, rng
        self._residual = np.zeros((n, len(CONTROL_NAMES)))
        # Runs change their controls at different generations.
        self._left = rng.integers(1, HOLD + 1, size=n)

    def __call__(self, environment: Environment) -> np.ndarray:
        self._left -= 1
        n = len(self._left)
        spread = self._rng.uniform(0.0, SPREAD, size=(n, 1))
        drawn = spread * self._rng.normal(size=self._residual.shape)
        held = self._rng.integers(HOLD, 2 * HOLD + 1, size=n)
        over = self._left == 0
        self._residual[over], self._left[over] = drawn[over], held[over]
        return self._steering.steered(self._residual, environment.controls)


def _moments(batch: Batch, n_forks: int, horizon: int, seed: int) -> list[frozenset[int]]:
    # One generation from each of equal parts of a run. The last of them leaves half a horizon: what to do
    # near the end must be learned too.
    rng = stream(seed, "vine", "moments")
    each, more = divmod(n_forks, len(batch))
    moments = []
    for b, task in enumerate(batch.tasks):
        stop = max(1, task.n_generations - (horizon + 1) // 2 + 1)
        edges = np.linspace(0, stop, min(each + (b < more), stop) + 1).astype(np.int64)
        moments.append(frozenset(rng.integers(edges[:-1], edges[1:]).tolist()))
    return moments


def _gains(
    environment: Environment,
    batch: Batch,
    due: Sequence[int],
    branches: np.ndarray,
    seeds: np.ndarray,
    steering: Steering,
    horizon: int,
    follow: int,
) -> np.ndarray:
    """Return the decades that branches left behind, float64 (F, K, R)."""
    (n_forks, n_branches), repeats = branches.shape[:2], seeds.shape[1]
    at_once = max(1, _AT_ONCE // (n_branches * repeats))
    pieces = []
    for first in range(0, n_forks, at_once):
        some = slice(first, first + at_once)
        rows = np.repeat(np.array(due[some]), n_branches * repeats)
        # Branch by branch, and within it repeat by repeat: all branches of a repeat share its stream.
        residual = np.repeat(branches[some].reshape(-1, branches.shape[2]), repeats, axis=0)
        streams = np.repeat(seeds[some][:, None], n_branches, axis=1).ravel()
        continued = environment.fork(rows.tolist(), streams.tolist())
        floor = batch.floor[rows]
        before = _decades(continued, floor)
        for t in range(horizon + follow):
            if continued.finished.all():
                break
            said = residual if t < horizon else np.zeros_like(residual)
            continued.step(steering.steered(said, continued.controls))
        gain = np.clip(before - _decades(continued, floor), 0.0, LIMIT)
        pieces.append(gain.reshape(-1, n_branches, repeats))
    return np.concatenate(pieces)


def _decades(environment: Environment, floor: np.ndarray) -> np.ndarray:
    # A run that is over keeps what it has reached; later columns of its row are those of longer runs.
    reached = environment.best.max(axis=1, initial=-np.inf, where=_bred(environment))
    return np.log10(np.clip(-reached, floor, np.finfo(np.float64).max))


def _bred(environment: Environment) -> np.ndarray:
    ends = np.array([task.n_generations for task in environment.tasks])
    return np.arange(environment.best.shape[1]) <= ends[:, None]

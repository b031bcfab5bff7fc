"""What a complete run is worth to a conductor: decades of error, anytime and at the end.

Shapes: ``B`` runs, ``g`` generations of the longest (its initial population not counted), ``k`` statistics.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from conductor.tasks import Instance, Task

#: Errors below it count as it, the last target of published comparisons.
FLOOR = 1e-8
#: Decades beyond which a difference from the reference run counts no further.
LIMIT = 3.0
#: Standard deviations beyond which a candidate's result on one task counts no further.
CLIP = 2.5


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a batch of complete runs has shown.

    Parameters
    ----------
    tasks : tuple of Task
    best : float64 (B, g + 1)
        Best fitness so far after each generation, the initial population first; of a shorter run, its last
        value goes on.
    asked : int64 (B, g + 1)
        Genomes evaluated in each generation, repeated ones included; 0 after a shorter run.
    history : float64 (B, g + 1, k)
        Statistics of each generation; 0 after a shorter run.
    """

    tasks: tuple[Task, ...]
    best: np.ndarray
    asked: np.ndarray
    history: np.ndarray

    def errors(self, best_known: ArrayLike | None = None) -> np.ndarray:
        """Return the regret of the best so far, float64 (B, g + 1).

        Parameters
        ----------
        best_known : float64 (B,), optional
            The best fitness that any method ever found for each task. Landscapes need none: it is 0.

        Raises
        ------
        ValueError
            If a task is no landscape and nothing is said, or there is not one number per run.
        """
        if best_known is None:
            others = [task for task in self.tasks if not isinstance(task.problem, Instance)]
            if others:
                raise ValueError(
                    f"{len(others)} tasks are no landscapes; errors() needs the best known fitness of all"
                )
            best_known = np.zeros(len(self.tasks))
        best_known = np.asarray(best_known, dtype=np.float64)
        if best_known.shape != (len(self.tasks),):
            raise ValueError(
                f"best_known has shape {best_known.shape}; {len(self.tasks)} runs need ({len(self.tasks)},)"
            )
        return best_known[:, None] - self.best


@dataclass(frozen=True, eq=False)
class Scores:
    """How well runs went, in decades of error; lower is better.

    Parameters
    ----------
    anytime : float64 (B,)
        Mean over the evaluations of the budget of log10 of the error so far. What a run leaves of its budget
        (elites are not evaluated again) counts with the last error.
    final : float64 (B,)
        log10 of the last error.
    """

    anytime: np.ndarray
    final: np.ndarray

    def weighed(self, final_share: float) -> np.ndarray:
        """Return one number per run, float64 (B,): a share of the final error, the rest of the area."""
        return (1.0 - final_share) * self.anytime + final_share * self.final


def scores(outcome: Outcome, best_known: ArrayLike | None = None, floor: ArrayLike = FLOOR) -> Scores:
    """Return the area under the curve of the best so far, and its end.

    Parameters
    ----------
    outcome : Outcome
    best_known : float64 (B,), optional
        As in :meth:`Outcome.errors`.
    floor : float or float64 (B,)
        Smaller errors, also those of a fitness above the best known, count as it.
    """
    lowest = np.asarray(floor, dtype=np.float64)
    if not (lowest > 0.0).all():
        raise ValueError(f"floor of errors is {floor}; its logarithm is taken, so it must be above 0")
    errors = outcome.errors(best_known)
    logs = np.log10(np.clip(errors, lowest.reshape(-1, 1), np.finfo(np.float64).max))
    budget = np.array([task.budget for task in outcome.tasks])
    spent = outcome.asked / budget[:, None]
    anytime = (logs * spent).sum(axis=1) + logs[:, -1] * (1.0 - outcome.asked.sum(axis=1) / budget)
    return Scores(anytime, logs[:, -1])


def objective(
    scored: Scores, reference: Scores, *, final_share: float = 0.0, limit: float = LIMIT
) -> np.ndarray:
    """Return how many decades each run lies above the reference run of the same task, float64 (B,).

    Negative is better. With the same seed on both sides most of the luck of a task cancels, and the limit
    keeps one task from deciding a mean.

    Parameters
    ----------
    scored, reference : Scores
        Of the same tasks in the same order.
    final_share : float
        Weight of the final error; the rest is that of the area.
    limit : float
        Differences are clipped to plus and minus so many decades.

    Raises
    ------
    ValueError
        If the numbers of runs differ, or the share is not from 0 to 1.
    """
    if scored.anytime.shape != reference.anytime.shape:
        raise ValueError(
            f"{scored.anytime.size} runs are compared with {reference.anytime.size} reference runs; "
            "both must be runs of the same tasks"
        )
    if not 0.0 <= final_share <= 1.0:
        raise ValueError(f"final_share is {final_share}; it must be from 0 to 1")
    area = np.clip(scored.anytime - reference.anytime, -limit, limit)
    final = np.clip(scored.final - reference.final, -limit, limit)
    return (1.0 - final_share) * area + final_share * final


def candidate_losses(values: np.ndarray) -> np.ndarray:
    """Return the loss of each candidate, float64 (c,), from values (c, n) on the same n tasks.

    Each task is standardised over the candidates and clipped (``CLIP``), so that no badly scaled one decides.
    """
    deviation = values.std(axis=0)
    z = (values - values.mean(axis=0)) / np.where(deviation > 0.0, deviation, 1.0)
    return np.clip(z, -CLIP, CLIP).mean(axis=1)

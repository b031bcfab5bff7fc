"""Where tasks come from: batches by number, of landscapes, of market windows, or of both.

A batch carries all that a run of it needs: its tasks, how to open those that are no landscapes, what its
networks see of market and regime, and below which error nothing counts. Every source gives the same batch
for the same number, whoever asks; what trains, what selects and what judges come from sources that share
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from compute.workers import Mapper
from conductor.environment import Environment, Opening
from conductor.objective import FLOOR, Outcome, Scores, scores
from conductor.sight import Outlook
from conductor.tasks import Task, TaskSampler
from ga.variation import Variation


@dataclass(frozen=True, eq=False)
class Batch:
    """Tasks and all that their runs need.

    Parameters
    ----------
    tasks : tuple of Task
        Of B runs.
    outlook : Outlook
        Of the same runs.
    floor : float64 (B,)
        Errors below it count as it.
    opening : callable, optional
        Opens the tasks that are no landscapes, see :class:`conductor.environment.Environment`. What it opens
        answers minus the error: 0 is the best known.
    """

    tasks: tuple[Task, ...]
    outlook: Outlook
    floor: np.ndarray
    opening: Opening | None = None

    def __len__(self) -> int:
        return len(self.tasks)

    def environment(
        self, variation: Variation | None = None, *, copies: int = 1, mapper: Mapper | None = None
    ) -> Environment:
        """Return a new environment of all runs, ``copies`` times one after the other."""
        tasks = self.tasks * copies
        return Environment(tasks, variation=variation, opening=self.opening, mapper=mapper)

    def repeated(self, copies: int) -> "Batch":
        """Return the batch ``copies`` times one after the other."""
        return self.rows(np.tile(np.arange(len(self)), copies))

    def rows(self, rows: np.ndarray) -> "Batch":
        """Return some of its runs, int64 (m,), as a batch; one may occur many times."""
        tasks = tuple(self.tasks[row] for row in rows)
        return Batch(tasks, self.outlook.rows(rows), self.floor[rows], self.opening)

    def scores(self, outcome: Outcome) -> Scores:
        """Return decades of error, anytime and final, of runs of this batch or of copies of it."""
        copies, rest = divmod(len(outcome.tasks), len(self))
        if rest:
            raise ValueError(f"{len(outcome.tasks)} runs are no whole copies of a batch of {len(self)}")
        floor = np.tile(self.floor, copies)
        return scores(outcome, np.zeros(len(outcome.tasks)), floor)

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> Self:
        """Return several batches as one; each task is opened by the part that it came with."""
        openings = {task.problem: part.opening for part in parts if part.opening for task in part.tasks}

        def opening(task: Task):
            return openings[task.problem](task)

        return cls(
            tuple(task for part in parts for task in part.tasks),
            Outlook.joined([part.outlook for part in parts]),
            np.concatenate([part.floor for part in parts]),
            opening if openings else None,
        )


class Source(Protocol):
    """Gives batches by number."""

    def batch(self, number: int, n: int) -> Batch:
        """Return batch ``number`` of ``n`` tasks, the same whenever it is asked for."""
        ...


@dataclass(frozen=True)
class Landscapes:
    """Batches of synthetic landscapes.

    Parameters
    ----------
    sampler : TaskSampler
    """

    sampler: TaskSampler

    def batch(self, number: int, n: int) -> Batch:
        """Return batch ``number`` of ``n`` tasks; landscapes have no market and no regime."""
        return Batch(self.sampler.batch(number, n), Outlook.unknown(n), np.full(n, FLOOR))


@dataclass(frozen=True)
class Mixture:
    """Batches of which a share comes from each of several sources.

    Parameters
    ----------
    sources : tuple of Source
    shares : tuple of float
        Positive, one per source; every source gives at least one task of a batch.
    """

    sources: tuple[Source, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.shares) or min(self.shares) <= 0.0:
            raise ValueError(f"a mixture has {len(self.sources)} sources and shares {self.shares}")

    def batch(self, number: int, n: int) -> Batch:
        """Return batch ``number`` of ``n`` tasks, those of the first source first."""
        if n < len(self.sources):
            raise ValueError(f"a batch of {n} tasks cannot come from {len(self.sources)} sources")
        edges = np.cumsum(self.shares) / sum(self.shares)
        ends = np.round(edges * (n - len(self.sources))).astype(int) + np.arange(1, len(self.sources) + 1)
        sizes = np.diff(ends, prepend=0).tolist()
        return Batch.joined(
            [source.batch(number, size) for source, size in zip(self.sources, sizes, strict=True)]
        )


@dataclass(frozen=True)
class Shifted:
    """A source whose batches begin at another number, so that two uses of it never meet the same tasks.

    Parameters
    ----------
    source : Source
    first : int
        Number of the batch that is number 0 here.
    """

    source: Source
    first: int

    def batch(self, number: int, n: int) -> Batch:
        """Return batch ``number`` of ``n`` tasks."""
        return self.source.batch(self.first + number, n)

"""What a variant may learn from before whole runs are evolved: tasks, labels, and how much of each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compute.workers import Mapper
from conductor.curriculum import Source
from conductor.steering import Steering
from ga.variation import Variation


@dataclass(frozen=True, eq=False)
class Labels:
    """Vine labels: what a change of controls was worth, found by forking stored runs.

    From one state of a run, K continuations with other controls are run on the same random stream; the
    advantage is what each gained over the mean of its fork. No label is an input, and none was made by the
    network that learns it.

    Parameters
    ----------
    state, history, known, regime : arrays (m, ...)
        What the network sees in the state, see :class:`conductor.sight.Inputs`.
    residual : float32 (m, 12)
        Of the continuation: logit of its places minus logit of the tuned ones.
    advantage : float32 (m,)
        Gain over the mean of its fork, in standard deviations of all gains of such forks; higher is better.
    fork : int64 (m,)
        Which state: rows of one fork are compared with each other and never split between training and test.
    run : int64 (m,)
        Which run the state came from, likewise.
    """

    state: np.ndarray
    history: np.ndarray
    known: np.ndarray
    regime: np.ndarray
    residual: np.ndarray
    advantage: np.ndarray
    fork: np.ndarray
    run: np.ndarray

    def __len__(self) -> int:
        return len(self.advantage)

    def rows(self, rows: np.ndarray) -> "Labels":
        """Return some of the rows."""
        return Labels(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class School:
    """Everything that schooling may use; nothing of it comes from validation or test tasks.

    Parameters
    ----------
    source : Source
        Training tasks.
    steering : Steering
        Around the tuned static controls.
    variation : Variation
        Operators behind the controls.
    labels : callable
        Returns the vine labels, made when first asked for, with at least ``n_history`` rows of history.
    seed : int
        Root of the streams of schooling.
    effort : float
        1 for a default run, 10 for one ten times as long.
    mapper : Mapper
        Where runs are bred.
    told : callable
        ``told(done, total, sentence)`` shows progress.
    """

    source: Source
    steering: Steering
    variation: Variation
    labels: Callable[[int], Labels]
    seed: int
    effort: float
    mapper: Mapper
    told: Callable[[int, int, str], None]

"""What the networks of a batch of runs see, generation by generation.

What stays the same for a whole run, its market and its regime, is an :class:`Outlook`; what changes comes
from the environment. One run inside ``ga`` sees the same numbers (:func:`inputs_of_progress`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from conductor.market_context import CONTEXT_NAMES, ScaledContext
from conductor.state import HISTORY_NAMES, NO_REGIME, squashed, state_of, state_vectors
from ga.controls import places_of
from ga.progress import Progress

if TYPE_CHECKING:
    from conductor.environment import Environment


class Inputs(NamedTuple):
    """What a network reads, one row per run; NumPy arrays or torch tensors of the same shapes.

    Parameters
    ----------
    state : float32 (B, 64)
        In the order of ``conductor.state.STATE_NAMES``.
    history : float32 (B, N, 30)
        The last N generations in the order of ``conductor.state.HISTORY_NAMES``, the newest last, rows of
        zeros before the beginning.
    known : bool (B, N)
        Which of these rows are generations.
    regime : int64 (B,)
        Position in ``regimes.regime.Regime``, or -1 for a run that belongs to none. Domain label or router
        input; a network never takes it for a number.
    """

    state: np.ndarray
    history: np.ndarray
    known: np.ndarray
    regime: np.ndarray


@dataclass(frozen=True, eq=False)
class Outlook:
    """What each run of a batch stands on.

    Parameters
    ----------
    market, known : float64 (B, 13), bool (B, 13)
        Scaled market features and their mask, see :class:`conductor.market_context.ScaledContext`.
    regime : int64 (B,)
        See :class:`Inputs`.
    """

    market: np.ndarray
    known: np.ndarray
    regime: np.ndarray

    @classmethod
    def of(cls, contexts: Sequence[ScaledContext], regimes: Sequence[int]) -> Self:
        """Return the outlook of runs with these contexts and regimes."""
        return cls(
            np.array([context.values for context in contexts]).reshape(-1, len(CONTEXT_NAMES)),
            np.array([context.known for context in contexts], dtype=bool).reshape(-1, len(CONTEXT_NAMES)),
            np.array(regimes, dtype=np.int64),
        )

    @classmethod
    def unknown(cls, n: int) -> Self:
        """Return the outlook of ``n`` runs without a market."""
        return cls.of([ScaledContext.unknown()] * n, [NO_REGIME] * n)

    def __len__(self) -> int:
        return len(self.regime)

    def rows(self, rows: Sequence[int] | np.ndarray) -> "Outlook":
        """Return the outlook of some runs; one may occur many times."""
        return Outlook(self.market[rows], self.known[rows], self.regime[rows])

    @classmethod
    def joined(cls, parts: Sequence["Outlook"]) -> Self:
        """Return the outlook of several batches one after the other."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("market", "known", "regime")
            )
        )


def inputs_of(environment: "Environment", outlook: Outlook, n_history: int = 0) -> Inputs:
    """Return what the networks of a batch see after its last generation.

    Parameters
    ----------
    environment : Environment
        Of B runs, the initial population evaluated.
    outlook : Outlook
        Of the same runs.
    n_history : int
        Generations to look back on.
    """
    controls = environment.controls
    begun = ~np.isnan(controls[:, :1])
    places = np.where(begun, places_of(np.where(begun, controls, 1.0)), 0.5)
    state = state_vectors(environment.states, places, outlook.market, outlook.known)
    history = np.zeros((len(outlook), n_history, len(HISTORY_NAMES)), dtype=np.float32)
    known = np.zeros((len(outlook), n_history), dtype=bool)
    if n_history:
        seen = environment.history[:, -n_history:]
        history[:, n_history - seen.shape[1] :] = squashed(seen)
        known[:, n_history - seen.shape[1] :] = True
    return Inputs(state, history, known, outlook.regime)


def inputs_of_progress(
    progress: Progress, context: ScaledContext, regime: int = NO_REGIME, n_history: int = 0
) -> Inputs:
    """Return what the network of one run inside ``ga`` sees, a batch of one."""
    seen = state_of(progress, context, n_history=n_history, regime=regime)
    return Inputs(
        seen.vector[None], seen.history[None], seen.history_known[None], np.array([regime], dtype=np.int64)
    )

"""What a conductor sees: the market that its run stands on, and the search so far, in numbers of like size.

The market is a :class:`conductor.market_context.ScaledContext`, the same for the whole run. The search is the
scale-free statistics of :mod:`ga.progress`. :func:`state_of` puts both into one vector per generation.
"""

import math
from dataclasses import dataclass

import numpy as np

from conductor.market_context import CONTEXT_NAMES, ScaledContext
from ga.controls import CONTROL_NAMES
from ga.progress import STATISTIC_NAMES, Progress

#: Statistics and controls lie within this, either way; the market within the limit of its scaler.
BOUND = 3.0
# How each statistic is brought to that size: centre, unit, and whether it has no bounds of its own. Bounded
# ones are taken as they are and clipped, unbounded ones bent: 3 tanh(x / 3) is x near 0 and loses no order.
_SQUASH: dict[str, tuple[float, float, bool]] = dict.fromkeys(STATISTIC_NAMES, (0.0, 1.0, False))
_SQUASH.update(
    log_population_size=(math.log(128.0), math.log(4.0), False),  # 8: -2, 8192: 3
    log_n_genes=(math.log(8.0), math.log(4.0), True),
    stagnation_share=(0.0, 1.0, True),  # beyond 1 where a search goes on in spite of its patience
    relative_diversity=(0.0, 1.0, True),
    log_relative_diversity=(0.0, 4.0, True),
    best_to_centre=(0.0, 1.0, True),
    log_step_to_diversity=(0.0, 4.0, True),
)
if tuple(_SQUASH) != STATISTIC_NAMES:
    raise TypeError("a transform names a statistic that ga.progress does not have")
#: Columns of that table, (30,) each.
CENTER, UNIT, IS_OPEN = (np.array(column) for column in zip(*_SQUASH.values(), strict=True))

#: Columns of a row of :attr:`ConductorState.history`.
HISTORY_NAMES: tuple[str, ...] = STATISTIC_NAMES
# The four controls among the statistics are left to the twelve that follow them.
_ONCE = np.array([j for j, name in enumerate(STATISTIC_NAMES) if not name.startswith("control_")])
#: The statistics in the vector of a state.
PROGRESS_NAMES: tuple[str, ...] = tuple(STATISTIC_NAMES[j] for j in _ONCE)
#: The entries of :attr:`ConductorState.vector`.
STATE_NAMES: tuple[str, ...] = (
    *PROGRESS_NAMES,
    *(f"previous_{name}" for name in CONTROL_NAMES),
    *(f"market_{name}" for name in CONTEXT_NAMES),
    *(f"known_{name}" for name in CONTEXT_NAMES),
)
#: Parts of the vector.
PROGRESS = slice(0, len(PROGRESS_NAMES))
CONTROLS = slice(PROGRESS.stop, PROGRESS.stop + len(CONTROL_NAMES))
MARKET = slice(CONTROLS.stop, CONTROLS.stop + len(CONTEXT_NAMES))
KNOWN = slice(MARKET.stop, MARKET.stop + len(CONTEXT_NAMES))
# Place of a control in its range before anything was bred: the middle says the least.
_NO_CONTROLS = np.full(len(CONTROL_NAMES), 0.5)
#: The label of a run that belongs to no regime.
NO_REGIME = -1


@dataclass(frozen=True, eq=False)
class ConductorState:
    """All that a conductor may see when it sets the controls of the next generation.

    Parameters
    ----------
    vector : float32 (64,)
        In the order of ``STATE_NAMES``, all finite: the statistics of the generation; the 12 controls that
        made it, as places in their ranges from 0 to 1 (0.5 in the initial population); the scaled market
        and its mask.
    history : float32 (N, 30)
        Statistics of the last N generations in the order of ``HISTORY_NAMES``, the newest last; rows of
        zeros stand before the beginning.
    history_known : bool (N,)
        Which of these rows are generations.
    regime : int
        Position in ``regimes.regime.Regime``, or -1. Label of the domain or input of a router, and never
        a feature: it is not part of the vector.
    """

    vector: np.ndarray
    history: np.ndarray
    history_known: np.ndarray
    regime: int = NO_REGIME


def state_of(
    progress: Progress, context: ScaledContext, *, n_history: int = 0, regime: int = NO_REGIME
) -> ConductorState:
    """Return what a conductor sees of a search after a generation.

    Parameters
    ----------
    progress : Progress
    context : ScaledContext
        Of the run; ``ScaledContext.unknown()`` where there is no market.
    n_history : int
        Generations to look back on, for networks that read sequences.
    regime : int
        See :class:`ConductorState`.
    """
    controls = _NO_CONTROLS if progress.controls is None else progress.controls.to_unit()
    vector = state_vectors(progress.statistics, controls, context.values, context.known)
    history = np.zeros((n_history, len(HISTORY_NAMES)), dtype=np.float32)
    known = np.zeros(n_history, dtype=bool)
    n = min(n_history, len(progress.history))
    if n:
        history[-n:] = squashed(progress.history[-n:])
        known[-n:] = True
    vector.flags.writeable = history.flags.writeable = known.flags.writeable = False
    return ConductorState(vector, history, known, regime)


def state_vectors(
    statistics: np.ndarray, controls: np.ndarray, market: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Return the vectors of many states at once, such as of many runs, float32 (..., 64).

    Parameters
    ----------
    statistics : float64 (..., 30)
        In the order of ``STATISTIC_NAMES``.
    controls : float64 (..., 12)
        As places in their ranges; 0.5 for none.
    market, known : float64 (..., 13), bool (..., 13)
        See :class:`ScaledContext`.
    """
    vectors = np.empty((*statistics.shape[:-1], len(STATE_NAMES)), dtype=np.float32)
    vectors[..., PROGRESS] = squashed(statistics)[..., _ONCE]
    vectors[..., CONTROLS] = controls
    vectors[..., MARKET] = market
    vectors[..., KNOWN] = known
    return vectors


def squashed(statistics: np.ndarray) -> np.ndarray:
    """Return statistics of a search within ±3, float64 (..., 30), in the order of ``STATISTIC_NAMES``.

    A fixed transform, nothing is learned. Shares, gaps, rates and the two correlations stay as they are;
    the population size is counted in factors of 4 from 128, the genes in factors of 4 from 8, logarithms of
    diversity and step in factors of e^4. What has no bounds is bent by ``3 tanh(x / 3)``. A
    statistic that is not a number, as when differences of fitness leave float64, counts as 0.
    """
    values = (statistics - CENTER) / UNIT
    np.copyto(values, BOUND * np.tanh(values / BOUND), where=IS_OPEN)
    values[np.isnan(values)] = 0.0
    return np.maximum(np.minimum(values, BOUND, out=values), -BOUND, out=values)

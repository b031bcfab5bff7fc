"""The Markov chain of named regimes: how likely each one follows each other one at the next bar."""

from collections.abc import Sequence

import numpy as np

from market.table import DataError
from regimes.regime import UNDECIDED, RegimeProbabilities

PSEUDO_COUNT = 1.0  # one transition of each kind beyond those seen: nothing is impossible


def counted_chain(label: np.ndarray, n_regimes: int) -> np.ndarray:
    """Return the chain of a column of labels: what followed what, row by row.

    Parameters
    ----------
    label : int (n,)
        A :class:`~regimes.regime.Regime` per row, -1 where undecided; such rows count for nothing.
    n_regimes : int
        k.

    Returns
    -------
    float64 (k, k)
        ``chain[i, j]`` = P(regime j at the next bar | regime i at this one). All positive, rows sum to 1.
    """
    label = np.asarray(label, dtype=np.int64)
    decided = (label[:-1] != UNDECIDED) & (label[1:] != UNDECIDED)
    pairs = label[:-1][decided] * n_regimes + label[1:][decided]
    count = np.bincount(pairs, minlength=n_regimes**2).reshape(n_regimes, n_regimes) + PSEUDO_COUNT
    return count / count.sum(axis=1, keepdims=True)


def chain_of_labels(probabilities: RegimeProbabilities) -> np.ndarray:
    """Return the counted chain of the most probable regime of each row, float64 (k, k)."""
    values = probabilities.values
    label = np.where(np.isnan(values[:, 0]), UNDECIDED, values.argmax(axis=1))
    return counted_chain(label, len(probabilities.names))


def chain_of_states(
    transition: np.ndarray, stationary: np.ndarray, regime: Sequence[int] | np.ndarray, n_regimes: int
) -> np.ndarray:
    """Return the chain of regimes that a chain of hidden states amounts to in the long run.

    Parameters
    ----------
    transition : float64 (s, s)
        P(state j now | state i one bar ago).
    stationary : float64 (s,)
        Long-run share of each state: how much each one counts for its regime.
    regime : int (s,)
        Regime of each state; each regime occurs.
    n_regimes : int
        k.

    Returns
    -------
    float64 (k, k)
        As :func:`counted_chain`.
    """
    member = np.zeros((len(stationary), n_regimes))
    member[np.arange(len(stationary)), np.asarray(regime, dtype=np.int64)] = 1.0
    flow = member.T @ (stationary[:, None] * transition) @ member
    return flow / flow.sum(axis=1, keepdims=True)


def stationary(transition: np.ndarray) -> np.ndarray:
    """Return the long-run share of each state of a chain (s, s), float64 (s,)."""
    k = len(transition)
    equations = np.vstack([transition.T - np.eye(k), np.ones(k)])
    share = np.linalg.lstsq(equations, np.append(np.zeros(k), 1.0), rcond=None)[0]
    share = np.maximum(share, 0.0)
    return share / share.sum()


def check_chain(chain: np.ndarray, place: str) -> np.ndarray:
    """Return a chain of regimes or hidden states if it is sound.

    Raises
    ------
    DataError
        If a probability is not positive or a row does not sum to 1.
    """
    if (chain <= 0).any() or (np.abs(chain.sum(axis=1) - 1) > 1e-9).any():
        raise DataError(f"{place}: each row must be positive and sum to 1")
    return chain

"""Quantiles of a label's return: their levels, their names in files, and how good answers are.

A level of 0.1 asks for the return that one row in ten falls below. An answer is judged by its pinball loss,
which the true quantile alone minimizes, and by its coverage: the share of returns that did fall below it.

Source: Koenker and Bassett (1978), "Regression quantiles".
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from forecasters.windows import Examples
from market.table import DataError

#: Levels that are closer to each other, or to 0 and 1, are not told apart.
LEAST_STEP = 0.001


def _apart(levels: tuple[float, ...]) -> tuple[float, ...]:
    if levels and np.diff([0.0, *levels, 1.0]).min() < LEAST_STEP * (1.0 - 1e-6):
        raise ValueError(f"must increase between 0 and 1, by {LEAST_STEP} at least")
    return levels


#: The setting ``quantiles`` of a forecaster; empty where none are asked for.
Levels = Annotated[tuple[float, ...], AfterValidator(_apart)]


def column(level: float) -> str:
    """Return the name of the column that holds a quantile: ``q_10`` for the level 0.1."""
    return f"q_{100.0 * level:g}"


def returns_of(examples: Examples, name: str, what: str) -> np.ndarray:
    """Return the returns of examples, float64 (m,); DataError if they have none.

    Parameters
    ----------
    examples : Examples
    name, what : str
        Of the forecaster, and of the examples, for the message.
    """
    if examples.ret is None:
        raise DataError(
            f"forecaster {name}: {what} examples have no returns, which its quantiles are learned from"
        )
    return examples.ret


def checked_quantiles(quantiles: Any, m: int, levels: Sequence[float], name: str) -> np.ndarray:
    """Return what a forecaster answered as float64 (m, q).

    Raises
    ------
    ValueError
        If it is no such thing, or a quantile is below one of a lower level: a mistake of the forecaster's
        author, not of its user.
    """
    found = np.asarray(quantiles, dtype=np.float64)
    if found.shape != (m, len(levels)):
        raise ValueError(f"forecaster {name}: quantiles are {found.shape}; they must be {(m, len(levels))}")
    if not np.isfinite(found).all() or (np.diff(found, axis=1) < 0.0).any():
        raise ValueError(f"forecaster {name}: quantiles of a row must be finite and must not fall")
    return found


def pinball(quantiles: np.ndarray, ret: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return the mean pinball loss of each level, float64 (q,), in units of the return.

    Parameters
    ----------
    quantiles : float64 (m, q) or (q,)
        Of each row, or the same of all.
    ret : float64 (m,)
    levels : sequence of float (q,)
    """
    above = ret[:, None] - quantiles
    level = np.asarray(levels)
    return np.maximum(level * above, (level - 1.0) * above).mean(axis=0)


def quantile_figures(
    quantiles: np.ndarray, constant: np.ndarray, ret: np.ndarray, levels: Sequence[float]
) -> dict[str, Any]:
    """Return how good quantiles are whose returns are known.

    Parameters
    ----------
    quantiles : float64 (m, q)
    constant : float64 (m, q)
        Quantiles of the returns that were fitted on: what is known without looking at a row.
    ret : float64 (m,)
    levels : sequence of float (q,)

    Returns
    -------
    dict
        ``rows``; ``levels``, by the column of each: ``level``, ``coverage`` (share of the returns at or below
        it, which should be the level), ``pinball``, ``constant`` (the pinball loss of the constant quantiles)
        and ``skill`` (1 less the ratio of the two; None where the constant ones lose nothing); ``within``:
        the share of returns from the lowest to the highest quantile, and ``expected``: what it should be.
    """
    if not len(ret):
        return {"rows": 0, "levels": {}, "within": None, "expected": levels[-1] - levels[0]}
    own, plain = pinball(quantiles, ret, levels), pinball(constant, ret, levels)
    below = (ret[:, None] <= quantiles).mean(axis=0)
    return {
        "rows": len(ret),
        "levels": {
            column(level): {
                "level": level,
                "coverage": float(below[i]),
                "pinball": float(own[i]),
                "constant": float(plain[i]),
                "skill": float(1.0 - own[i] / plain[i]) if plain[i] > 0.0 else None,
            }
            for i, level in enumerate(levels)
        },
        "within": float(((ret >= quantiles[:, 0]) & (ret <= quantiles[:, -1])).mean()),
        "expected": levels[-1] - levels[0],
    }

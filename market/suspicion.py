"""Columns that know too much: too close to the label, or too much of a model, for anything of the past.

Altering the future finds what a *stage* reads. A column that came from a file has no stage; what gives it
away is that no market is so easy to foretell. On hourly BTC/USDT the closest honest column has a rank
correlation of 0.06 with the return of the next four hours or of the next day, and one of 0.55 with its size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from market.features.quality import TOO_GOOD, is_constant
from market.table import Table

#: A rank correlation with the *size* of the return beyond this. Size is foretold far better than direction,
#: best of all that of a triple barrier, whose distance is itself a volatility of the past.
TOO_GOOD_SIZE = 0.75
#: A column with more of the importance than this, whose correlation is half of what is too good.
MUCH = 0.3
#: A column with more of the importance than this, among ``ENOUGH`` columns, whatever its correlation.
ALONE, ENOUGH = 0.5, 10
#: Standard errors by which a correlation may exceed its bound by chance.
ERRORS = 4.0


@dataclass(frozen=True)
class Suspicion:
    """A column that has probably seen the answer.

    Parameters
    ----------
    name : str
    share : float
        Of the importance; 0 where that is not known.
    correlation : float
        Rank correlation with the return.
    size_correlation : float
        Rank correlation with the absolute return.
    reason : str
        Which bound it exceeds, as a clause.
    """

    name: str
    share: float
    correlation: float
    size_correlation: float
    reason: str

    def __str__(self) -> str:
        return f"{self.name} is too good to be true, does it know the future? {self.reason}"


def suspicious(
    features: Table,
    ret: np.ndarray,
    importances: Mapping[str, float] | None = None,
    rows: np.ndarray | None = None,
    horizon: int = 1,
) -> tuple[Suspicion, ...]:
    """Return the columns that are closer to what comes later than the past can be, the worst first.

    Four bounds, each for another leak: the return itself; its size; a share of the model that goes with half
    such a correlation (a leak under noise); a share of the model that no honest column has, whatever the
    correlation (a leak without direction).

    Parameters
    ----------
    features : Table (n, c)
    ret : float64 (n,)
        What became of each row: the return of its label; NaN where that is not known.
    importances : mapping of str to float, optional
        Share of columns in a model, as :meth:`forecasters.forecaster.Forecaster.importances` gives them.
    rows : int64 (m,), optional
        Rows to look at, for example those out of fold; by default all.
    horizon : int
        Rows that a label reaches ahead: so many neighbors tell the same story, and chance is wider by that.
    """
    from scipy.stats import rankdata

    rows = np.arange(len(features)) if rows is None else rows
    ret, shares, found = ret[rows], dict(importances or {}), []
    ranked: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}  # most columns are known on the same rows
    for name in features.names:
        column = features.column(name)[rows]
        known = ~(np.isnan(column) | np.isnan(ret))
        share = shares.get(name, 0.0)
        if known.sum() < 3 or is_constant(column[known]) or is_constant(ret[known]):
            continue
        key = known.tobytes()
        if key not in ranked:
            ranked[key] = rankdata(ret[known]), rankdata(np.abs(ret[known]))
        own = rankdata(column[known])
        direction, size = (_correlation(own, other) for other in ranked[key])
        chance = ERRORS / math.sqrt(max(1.0, known.sum() / horizon))
        reason = _reason(share, direction, size, chance, len(shares))
        if reason:
            found.append(Suspicion(name, share, direction, size, reason))
    return tuple(sorted(found, key=lambda one: (-max(abs(one.correlation), one.share), one.name)))


def _reason(share: float, direction: float, size: float, chance: float, columns: int) -> str:
    if abs(direction) > TOO_GOOD + chance:
        return f"its rank correlation with the return is {direction:.2f}, beyond {TOO_GOOD:g}"
    if abs(size) > TOO_GOOD_SIZE + chance:
        return f"its rank correlation with the size of the return is {size:.2f}, beyond {TOO_GOOD_SIZE:g}"
    if share > MUCH and abs(direction) > TOO_GOOD / 2 + chance:
        return (
            f"it carries {share:.0%} of the model, and its rank correlation with the return is "
            f"{direction:.2f}, beyond {TOO_GOOD / 2:g}"
        )
    if share > ALONE and columns >= ENOUGH:
        return f"it carries {share:.0%} of a model of {columns} columns"
    return ""


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])

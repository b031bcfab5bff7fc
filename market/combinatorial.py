"""Which rows may teach and which may judge, many times over: combinatorial purged cross-validation.

The rows are cut into groups, and every choice of some of them is tested once by what was learned beside it.
So each row is tested as often as there are **paths**, each of which goes through all groups once: not one
account of what a strategy would have done, but several.

Four groups of which two are tested, the combination that answers each group on each path::

    combination   0       1       2       3       4       5          group  0  1  2  3
    tested        0, 1    0, 2    0, 3    1, 2    1, 3    2, 3       path 0  0  0  1  2
                                                                     path 1  1  3  3  4
                                                                     path 2  2  4  5  5

Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 12.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from market.splits import folds, purged_train
from market.table import DataError


@dataclass(frozen=True)
class Combination:
    """One choice of groups that are tested together, and what may teach then.

    Parameters
    ----------
    chosen : tuple of int
        Numbers of the tested groups, ascending.
    test : tuple of slice
        Rows of each of them.
    train : tuple of slice
        Runs of rows that may teach, in their order; no two of them touch.
    """

    chosen: tuple[int, ...]
    test: tuple[slice, ...]
    train: tuple[slice, ...]


def combinatorial(
    time: np.ndarray,
    rows: int | slice,
    groups: int,
    test: int,
    embargo: int = 0,
    known_at: np.ndarray | None = None,
) -> tuple[Combination, ...]:
    """Return every way to test some of the groups that rows are cut into, in lexicographic order.

    What lies beside the tested groups teaches, purged of labels that reach into one of them. The embargo is
    kept on **both** sides of each: unlike a single split, training goes on after a test, with features that
    remember it, and ends before one that may begin with a position.

    Parameters
    ----------
    time : int64 (n,)
        Close of each row, ns UTC, increasing.
    rows : int or slice
        Rows that are cut into groups.
    groups : int
        Of equal length, but for one row.
    test : int
        How many of them are tested at a time, fewer than there are.
    embargo : int
        Bars left out before and after each tested group, beyond the purge.
    known_at : int64 (n,) or (n, h), optional
        When each label became known, ns UTC; by default at its row.

    Raises
    ------
    DataError
        If there are fewer rows than groups, or a combination leaves nothing to learn from.

    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 12.
    """
    _check_choice(groups, test)
    rows = rows if isinstance(rows, slice) else slice(0, int(rows))
    spans = folds(rows, groups)
    time = np.asarray(time, dtype=np.int64)
    known = time if known_at is None else known_at
    honest = []
    for span in spans:
        # What must not be known before the test opens must not be known an embargo before it either.
        widened = slice(max(0, span.start - embargo), span.stop)
        kept = np.zeros(len(time), bool)
        kept[purged_train(time, known, rows, widened, embargo)] = True
        honest.append(kept)
    found = []
    for chosen in combinations(range(groups), test):
        train = _runs(np.logical_and.reduce([honest[group] for group in chosen]))
        if not train:
            numbers = ", ".join(str(group + 1) for group in chosen)
            raise DataError(
                f"combinations: no rows are left to learn from beside the groups {numbers} of {groups} with "
                f"an embargo of {embargo} bars on both sides; it takes more bars or a smaller embargo"
            )
        found.append(Combination(chosen, tuple(spans[group] for group in chosen), train))
    return tuple(found)


def paths_of(groups: int, test: int) -> np.ndarray:
    """Return which combination answers each group on each path, int64 (paths, groups).

    The combinations are numbered as :func:`combinatorial` returns them. Each is asked about each of its
    groups once, so there are ``C(groups - 1, test - 1)`` paths, and path i takes the i-th combination that
    tests a group.
    """
    _check_choice(groups, test)
    chosen = list(combinations(range(groups), test))
    answers = [[i for i, one in enumerate(chosen) if group in one] for group in range(groups)]
    return np.array(answers, dtype=np.int64).T


def _check_choice(groups: int, test: int) -> None:
    if not 1 <= test < groups:
        raise ValueError(f"{test} of {groups} groups are tested; it must be at least 1, and not all of them")


def _runs(kept: np.ndarray) -> tuple[slice, ...]:
    # Runs of True of a bool (n,).
    edges = np.flatnonzero(np.diff(kept, prepend=False, append=False)).tolist()
    return tuple(slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True))

"""What is better when there are several objectives: fronts, crowding, niches, and the volume of a front.

Everything is maximised. A row dominates another if it is nowhere worse and somewhere better.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ga import pareto_kernels


def front_ranks(objectives: ArrayLike, violation: ArrayLike | None = None) -> np.ndarray:
    """Return the front of each row, int64 (n,): 0 where no row dominates it.

    The ranks are those of ``deap.tools.sortNondominated``; equal rows share a front. With constraints a
    row that keeps them comes before all that break them, and of those the smaller violation comes first
    (constrained domination).

    Parameters
    ----------
    objectives : float64 (n, k)
        Higher is better; infinities are values like others.
    violation : float64 (n,), optional
        By how much a row breaks its constraints; 0 keeps them, infinity breaks them worst.

    Raises
    ------
    ValueError
        If there is no objective, a value is NaN or a violation is negative.

    Source: Deb, Pratap, Agarwal and Meyarivan (2002), section VI, for the constraints.
    """
    objectives = _matrix(objectives)
    ranks = np.empty(len(objectives), dtype=np.int64)
    if violation is None:
        pareto_kernels.ranks(objectives, ranks)
        return ranks
    violation = np.asarray(violation, dtype=np.float64)
    if violation.shape != ranks.shape or not np.all(violation >= 0.0):
        raise ValueError(f"violation must be {ranks.shape}, one number of at least 0 per row of objectives")
    kept = violation == 0.0
    inside = np.empty(int(kept.sum()), dtype=np.int64)
    fronts = pareto_kernels.ranks(objectives[kept], inside)
    ranks[kept] = inside
    ranks[~kept] = fronts + np.unique(violation[~kept], return_inverse=True)[1]
    return ranks


def crowding_distance(objectives: ArrayLike, ranks: ArrayLike) -> np.ndarray:
    """Return how far apart the neighbors of each row are in its front, float64 (n,); infinite at its ends.

    Equal to ``deap.tools.emo.assignCrowdingDist`` of each front with its rows in their order here.

    Parameters
    ----------
    objectives : float64 (n, k)
        Finite.
    ranks : int64 (n,)
        Front of each row, every number from 0 on in use.
    """
    objectives = _matrix(objectives)
    if not np.isfinite(objectives).all():
        raise ValueError("an objective is infinite; distances between rows need finite values")
    ranks = np.ascontiguousarray(ranks, dtype=np.int64)
    if ranks.shape != (len(objectives),):
        raise ValueError(
            f"ranks have shape {ranks.shape}; {len(objectives)} rows of objectives need one each"
        )
    out = np.empty(len(objectives))
    pareto_kernels.crowding(objectives, ranks, int(ranks.max(initial=-1)) + 1, out)
    return out


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the exact volume that rows of two or three objectives dominate beyond a reference point.

    Parameters
    ----------
    points : float64 (n, k)
        k is 2 or 3.
    reference : float64 (k,)
        The worst point that counts.

    Raises
    ------
    ValueError
        If k is neither, or a value is not finite.
    """
    points = _matrix(points)
    reference = np.ascontiguousarray(reference, dtype=np.float64)
    if points.shape[1] not in (2, 3) or reference.shape != (points.shape[1],):
        raise ValueError(
            f"points have shape {points.shape} and the reference {reference.shape}; the hypervolume is exact "
            f"for (n, 2) or (n, 3) and a reference of the same width"
        )
    if not (np.isfinite(points).all() and np.isfinite(reference).all()):
        raise ValueError("a point or the reference is not finite; a volume needs finite values")
    return float(pareto_kernels.hypervolume(points, reference))


def das_dennis(k: int, divisions: int) -> np.ndarray:
    """Return evenly spread weights, float64 (r, k): all multiples of 1/divisions that sum to one.

    Source: Das and Dennis (1998).
    """
    if k < 2 or divisions < 1:
        raise ValueError(f"{k} objectives and {divisions} divisions; needed are at least 2 and 1")
    points = np.array(_compositions(k, divisions), dtype=np.float64)
    return points / divisions


def divisions_for(k: int, most: int) -> int:
    """Return the largest number of divisions for which ``das_dennis`` gives at most ``most`` points."""
    divisions = 1
    while math.comb(divisions + k, k - 1) <= most:  # the number of points with one division more
        divisions += 1
    return divisions


def by_crowding(objectives: np.ndarray, ranks: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that NSGA-II keeps, int64 (m,), best first, and their crowding distances.

    Whole fronts first, then of the front that does not fit the rows in the emptiest places.

    Parameters
    ----------
    objectives : float64 (n, k)
        Finite.
    ranks : int64 (n,)
    m : int
        At most n.

    Source: Deb, Pratap, Agarwal and Meyarivan (2002), section III-C.
    """
    distance = crowding_distance(objectives, ranks)
    kept = np.lexsort((-distance, ranks))[:m]
    return kept, distance[kept]


class ReferenceNiches:
    """The selection of NSGA-III: rows spread over reference directions, on axes that the search has seen.

    Ideal point and extreme points are remembered over the generations, as in the original algorithm, so
    that one poor generation does not turn the axes.

    Parameters
    ----------
    directions : float64 (r, k)
        Reference points, see :func:`das_dennis`.

    Source: Deb and Jain (2014).
    """

    def __init__(self, directions: np.ndarray) -> None:
        directions = np.ascontiguousarray(directions, dtype=np.float64)
        self._directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        k = directions.shape[1]
        self._ideal = np.full(k, np.inf)  # of minus the objectives, like everything in here
        self._extremes = np.empty((0, k))

    def select(
        self, rng: np.random.Generator, objectives: np.ndarray, ranks: np.ndarray, m: int
    ) -> np.ndarray:
        """Return the rows to keep, int64 (m,), by front.

        Parameters
        ----------
        rng : numpy.random.Generator
        objectives : float64 (n, k)
            Finite.
        ranks : int64 (n,)
        m : int
            At most n.
        """
        by_rank = np.argsort(ranks, kind="stable")
        critical = ranks[by_rank[m - 1]]
        sure = by_rank[ranks[by_rank] < critical]
        last = by_rank[ranks[by_rank] == critical]
        normalized = self._normalized(-objectives, ranks == 0, np.concatenate([sure, last]))
        if sure.size + last.size == m:
            return by_rank[:m]
        niche = np.empty(len(normalized), dtype=np.int64)
        distance = np.empty(len(normalized))
        pareto_kernels.associate(normalized, self._directions, niche, distance)
        counts = np.bincount(niche[: sure.size], minlength=len(self._directions)).astype(np.int64)
        chosen = np.empty(m - sure.size, dtype=np.int64)
        pareto_kernels.fill_niches(
            niche[sure.size :], distance[sure.size :], counts, rng.random((chosen.size, 2)), chosen
        )
        return np.concatenate([sure, last[chosen]])

    def _normalized(self, losses: np.ndarray, first: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # Losses of the given rows as shares of the distance from the ideal point to the intercepts of the
        # plane through the extreme points.
        front = losses[first]
        self._ideal = np.minimum(self._ideal, front.min(axis=0))
        k = self._ideal.size
        weights = np.where(np.eye(k, dtype=bool), 1.0, 1e6)
        candidates = np.concatenate([self._extremes, front])
        shifted = candidates - self._ideal
        achievement = (shifted[None, :, :] * weights[:, None, :]).max(axis=2)
        self._extremes = candidates[np.argmin(achievement, axis=1)]
        nadir = front.max(axis=0) - self._ideal
        scale = _intercepts(self._extremes - self._ideal)
        if scale is None or np.any(scale > (losses[rows] - self._ideal).max(axis=0) * (1.0 + 1e-9)):
            scale = nadir
        return (losses[rows] - self._ideal) / np.maximum(scale, 1e-12)

    def state(self) -> dict[str, Any]:
        """Return what is remembered, as arrays."""
        return {"ideal": self._ideal.copy(), "extremes": self._extremes.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._ideal = np.array(state["ideal"], dtype=np.float64)
        self._extremes = np.array(state["extremes"], dtype=np.float64).reshape(-1, self._ideal.size)


def _intercepts(extremes: np.ndarray) -> np.ndarray | None:
    # Where the plane through the extreme points meets the axes; None if it meets one nowhere in front.
    try:
        plane = np.linalg.solve(extremes, np.ones(len(extremes)))
    except np.linalg.LinAlgError:
        return None
    if not np.all(plane > 0.0) or not np.allclose(extremes @ plane, 1.0):
        return None
    return 1.0 / plane


def _compositions(k: int, total: int) -> list[tuple[int, ...]]:
    if k == 1:
        return [(total,)]
    return [(i, *rest) for i in range(total + 1) for rest in _compositions(k - 1, total - i)]


def _matrix(objectives: ArrayLike) -> np.ndarray:
    matrix = np.ascontiguousarray(objectives, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"objectives have shape {matrix.shape}; needed is (n, k), one row each")
    nan = np.isnan(matrix)
    if nan.any():
        row, column = np.argwhere(nan)[0]
        raise ValueError(f"objective {column} of row {row} is NaN; it must be a number, to be compared")
    return matrix

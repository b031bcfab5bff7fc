"""Compiled loops of multi-objective search: fronts, crowding, niches and hypervolume; all is maximised."""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RI1, W1, kernel

_WI1 = numba.int64[::1]


@kernel(inline=True)
def _dominates(a, b):
    # Whether row ``a`` is at least as good as ``b`` in every objective and better in one.
    better = False
    for j in range(a.size):
        if a[j] < b[j]:
            return False
        better = better | (a[j] > b[j])
    return better


@kernel(numba.int64(R2, _WI1))
def ranks(objectives, out):
    """Write the front of each row, 0 for the rows that none dominates, and return how many fronts there are.

    The efficient non-dominated sort with binary search: rows are taken in lexicographic order, so that a
    row can only be dominated by an earlier one, and each is compared with the fronts found so far. A front
    that dominates a row is preceded by fronts that do so as well, which is what halving relies on.

    Parameters
    ----------
    objectives : float64 (n, k)
        Higher is better; no NaN.
    out : int64 (n,)
        Written in place.

    Source: Zhang, Tian, Cheng and Jin (2015), ENS-BS.
    """
    n, k = objectives.shape
    order = np.arange(n)
    for j in range(k - 1, -1, -1):
        order = order[np.argsort(-objectives[order, j], kind="mergesort")]
    values = objectives[order]
    last = np.empty(n, np.int64)  # the latest member of each front, which is the likeliest to dominate
    before = np.empty(n, np.int64)  # the member that entered the same front before
    fronts = 0
    for i in range(n):
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            member = last[middle]
            while member >= 0 and not _dominates(values[member], values[i]):
                member = before[member]
            if member >= 0:
                low = middle + 1
            else:
                high = middle
        if low == fronts:
            last[low] = -1
            fronts += 1
        before[i] = last[low]
        last[low] = i
        out[order[i]] = low
    return fronts


@kernel(numba.void(R2, RI1, numba.int64, W1))
def crowding(objectives, ranks, n_fronts, out):
    """Write the crowding distance of each row within its front.

    Ties are broken as DEAP breaks them, by the order that the objective before has left behind.

    Parameters
    ----------
    objectives : float64 (n, k)
    ranks : int64 (n,)
        Front of each row.
    n_fronts : int
    out : float64 (n,)
        Mean over the objectives of the gap between both neighbors as a share of the front's range; infinite
        at the ends. Written in place.

    Source: Deb, Pratap, Agarwal and Meyarivan (2002), section III-B.
    """
    n, k = objectives.shape
    grouped = np.argsort(ranks, kind="mergesort")
    out[:] = 0.0
    start = 0
    for front in range(n_fronts):
        stop = start
        while stop < n and ranks[grouped[stop]] == front:
            stop += 1
        rows = grouped[start:stop].copy()
        for j in range(k):
            rows = rows[np.argsort(objectives[rows, j], kind="mergesort")]
            lowest, highest = objectives[rows[0], j], objectives[rows[-1], j]
            out[rows[0]] = math.inf
            out[rows[-1]] = math.inf
            if highest != lowest:
                scale = k * (highest - lowest)
                for i in range(1, rows.size - 1):
                    out[rows[i]] += (objectives[rows[i + 1], j] - objectives[rows[i - 1], j]) / scale
        start = stop


@kernel(numba.float64(R2, R1))
def hypervolume(points, reference):
    """Return the volume between a reference point and what two or three objectives reach beyond it.

    A sweep from the best third objective down, over the staircase that the other two form: exact, and
    quadratic in the number of points.

    Parameters
    ----------
    points : float64 (n, 2) or (n, 3)
        Dominated ones and ones that do not pass the reference add nothing.
    reference : float64 (2,) or (3,)
        The worst point that counts.
    """
    n, k = points.shape
    depth = np.ones(n)  # two objectives are three of which the last is the same for all
    if k == 3:
        depth = points[:, 2] - reference[2]
    order = np.argsort(-depth, kind="mergesort")
    right, top = np.empty(n), np.empty(n)  # the steps, from the rightmost and lowest to the highest
    steps, area, volume = 0, 0.0, 0.0
    for place in range(n):
        i = order[place]
        if depth[i] <= 0.0:
            break
        x, y = points[i, 0] - reference[0], points[i, 1] - reference[1]
        if x > 0.0 and y > 0.0:
            first = 0
            while first < steps and right[first] >= x:
                first += 1
            if first == 0 or top[first - 1] < y:
                beyond = first  # the steps that the new one swallows end here
                while beyond < steps and top[beyond] <= y:
                    beyond += 1
                moved = first + 1 - beyond
                if moved == 1:
                    for s in range(steps, first, -1):
                        right[s], top[s] = right[s - 1], top[s - 1]
                elif moved < 0:
                    for s in range(beyond, steps):
                        right[s + moved], top[s + moved] = right[s], top[s]
                steps += moved
                right[first], top[first] = x, y
                area, below = 0.0, 0.0
                for s in range(steps):
                    area += right[s] * (top[s] - below)
                    below = top[s]
        following = depth[order[place + 1]] if place + 1 < n else 0.0
        volume += area * (depth[i] - max(following, 0.0))
    return volume


@kernel(numba.void(R2, R2, _WI1, W1))
def associate(normalized, directions, niche, distance):
    """Write the reference direction that each row lies closest to, and how far from it.

    Parameters
    ----------
    normalized : float64 (n, k)
        Distance from the ideal point in each objective, 0 the best.
    directions : float64 (r, k)
        Unit vectors.
    niche : int64 (n,)
        The first of equally close directions. Written in place.
    distance : float64 (n,)
        Perpendicular. Written in place.

    Source: Deb and Jain (2014), algorithm 3.
    """
    n, k = normalized.shape
    for i in range(n):
        distance[i] = math.inf
        niche[i] = 0
        for r in range(directions.shape[0]):
            along = 0.0
            for j in range(k):
                along += normalized[i, j] * directions[r, j]
            squares = 0.0
            for j in range(k):
                squares += (normalized[i, j] - along * directions[r, j]) ** 2
            if squares < distance[i]:
                distance[i] = squares
                niche[i] = r
        distance[i] = math.sqrt(distance[i])


@kernel(numba.void(RI1, R1, RI1, R2, _WI1))
def fill_niches(niche, distance, counts, draws, chosen):
    """Choose rows of the last front, one by one, for the niches that have the fewest members.

    Parameters
    ----------
    niche, distance : int64 (n,), float64 (n,)
        Of the rows to choose from.
    counts : int64 (r,)
        Members that each niche has already.
    draws : float64 (m, 2)
        Uniform in [0, 1): which of several such niches, and which of its rows unless it is empty; an empty
        niche takes its closest row.
    chosen : int64 (m,)
        Rows, all different; m is at most n. Written in place.

    Source: Deb and Jain (2014), algorithm 4.
    """
    n, r = niche.size, counts.size
    members = counts.copy()
    available = np.zeros(r, np.int64)  # rows still to choose from, by niche
    taken = np.zeros(n, np.bool_)
    for i in range(n):
        available[niche[i]] += 1
    for step in range(chosen.size):
        fewest, equal = np.int64(2**62), 0
        for j in range(r):
            if available[j] > 0 and members[j] < fewest:
                fewest, equal = members[j], 0
            if available[j] > 0 and members[j] == fewest:
                equal += 1
        place = int(draws[step, 0] * equal)
        here = -1
        for j in range(r):
            if available[j] > 0 and members[j] == fewest:
                if place == 0:
                    here = j
                    break
                place -= 1
        best, place = -1, int(draws[step, 1] * available[here])
        for i in range(n):
            if niche[i] == here and not taken[i]:
                if members[here] == 0:
                    if best < 0 or distance[i] < distance[best]:
                        best = i
                else:
                    if place == 0:
                        best = i
                        break
                    place -= 1
        chosen[step] = best
        taken[best] = True
        available[here] -= 1
        members[here] += 1

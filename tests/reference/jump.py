"""Slow and obvious versions of the jump model's recursion and paths."""

import itertools
import math


def half_square(row, center):
    """What a row costs in a state."""
    return 0.5 * sum((x - c) ** 2 for x, c in zip(row, center, strict=True))


def follow(rows, centers, penalty, n_levels=0, gain=0.0, fade=0.0, limit=math.inf):
    """Values as sums that grow, all pairs of states compared; the leveled rows; None for an unknown row."""
    k, value, levels, out, leveled = len(centers), None, [0.0] * n_levels, [], []
    for row in rows:
        if row is not None:
            row = [x - (levels[f] if f < n_levels else 0.0) for f, x in enumerate(row)]
        leveled.append(row)
        if row is None and value is None:
            out.append([math.nan] * k)
            continue
        before = value or [0.0] * k
        value = []
        for j in range(k):
            arrive = (
                min(before[i] + (penalty if i != j else 0.0) for i in range(k)) if out_known(out) else 0.0
            )
            value.append(arrive + (half_square(row, centers[j]) if row is not None else 0.0))
        out.append([x - min(value) for x in value])
        if row is not None:
            best = value.index(min(value))
            for f in range(n_levels):
                residual = max(-limit, min(limit, row[f] - centers[best][f]))
                levels[f] = (1 - fade) * levels[f] + gain * residual
    return out, leveled


def out_known(out):
    """Whether a row before was known."""
    return bool(out) and not math.isnan(out[-1][0])


def path_cost(rows, centers, penalty, path):
    """Of one path of states."""
    jumps = sum(a != b for a, b in itertools.pairwise(path))
    return penalty * jumps + sum(half_square(row, centers[j]) for row, j in zip(rows, path, strict=True))


def cheapest_to_each(rows, centers, penalty):
    """Cost of the cheapest path that ends in each state: every path is tried."""
    k = len(centers)
    best = [math.inf] * k
    for path in itertools.product(range(k), repeat=len(rows)):
        best[path[-1]] = min(best[path[-1]], path_cost(rows, centers, penalty, path))
    return best


def hindsight(rows, centers, penalty):
    """The cheapest path through all rows, read backwards from the last one. LOOKS AHEAD."""
    values, _ = follow(rows, centers, penalty)
    path = [values[-1].index(min(values[-1]))]
    for value in reversed(values[:-1]):
        cost = [x + (penalty if j != path[0] else 0.0) for j, x in enumerate(value)]
        path.insert(0, cost.index(min(cost)))
    return path

"""Naive twins of the multi-objective kernels: definitions written down, one row at a time."""

import itertools
import math


def dominates(a, b):
    """Nowhere worse and somewhere better."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def ranks(rows):
    """Peel off the rows that no other one left dominates, front by front."""
    left, out, front = set(range(len(rows))), [0] * len(rows), 0
    while left:
        peeled = {i for i in left if not any(dominates(rows[j], rows[i]) for j in left)}
        for i in peeled:
            out[i] = front
        left -= peeled
        front += 1
    return out


def hypervolume(rows, reference):
    """Inclusion and exclusion over all sets of boxes."""
    boxes = [
        [x - r for x, r in zip(row, reference, strict=True)]
        for row in rows
        if all(x > r for x, r in zip(row, reference, strict=True))
    ]
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for chosen in itertools.combinations(boxes, size):
            total += (-1) ** (size + 1) * math.prod(min(sides) for sides in zip(*chosen, strict=True))
    return total


def fill_niches(niche, distance, counts, draws):
    """Algorithm 4 of Deb and Jain (2014) with given random numbers."""
    counts, left, chosen = list(counts), list(range(len(niche))), []
    for which, who in draws:
        open_niches = sorted({niche[i] for i in left})
        fewest = min(counts[j] for j in open_niches)
        candidates = [j for j in open_niches if counts[j] == fewest]
        here = candidates[int(which * len(candidates))]
        members = [i for i in left if niche[i] == here]
        if counts[here] == 0:
            row = min(members, key=lambda i: (distance[i], i))
        else:
            row = members[int(who * len(members))]
        chosen.append(row)
        left.remove(row)
        counts[here] += 1
    return chosen

"""Slow and obvious versions of the genetic algorithm's arithmetic, one individual and one gene at a time."""

import math


def decode(gene, kind, low, high, options=None):
    """Return the natural value of one gene."""
    if kind == "real":
        return low + gene * (high - low)
    if kind == "log":
        return math.exp(math.log(low) + gene * (math.log(high) - math.log(low)))
    values = [low + i for i in range(int(high - low) + 1)] if kind == "integer" else list(options)
    return values[min(int(gene * len(values)), len(values) - 1)]


def fold(gene):
    """Return where a gene comes to rest when the walls at 0 and 1 mirror it."""
    while not 0.0 <= gene <= 1.0:
        gene = -gene if gene < 0.0 else 2.0 - gene
    return gene


def tournament(rng, fitness, size):
    """Return the winner among ``size`` contestants drawn with replacement."""
    contestants = [int(rng.integers(len(fitness))) for _ in range(size)]
    return max(contestants, key=lambda i: fitness[i])


def diversity(genes):
    """Return the root mean square distance to the centre, per gene."""
    p, d = len(genes), len(genes[0])
    centre = [sum(row[j] for row in genes) / p for j in range(d)]
    return math.sqrt(sum((row[j] - centre[j]) ** 2 for row in genes for j in range(d)) / (p * d))


def survivors(fitness, places, offspring_fitness, defended):
    """Return the fitness of the population after replacement."""
    after = list(fitness)
    for place, value, guarded in zip(places, offspring_fitness, defended, strict=True):
        if not guarded or value >= fitness[place]:
            after[place] = value
    return after


def hall_of_fame(genomes, size):
    """Return the best ``size`` different (key, fitness) pairs; the earlier of equals first."""
    first = {}
    for key, fitness in genomes:
        if math.isfinite(fitness):
            first.setdefault(key, fitness)
    return sorted(first.items(), key=lambda pair: -pair[1])[:size]

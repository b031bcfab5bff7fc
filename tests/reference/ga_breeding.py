"""Breeding one child and one gene at a time in plain Python, drawing from a generator in the same order."""

import math

import numpy as np

LIMIT = 1e6  # of a Cauchy step


def fold(gene):
    """Return where a gene comes to rest when the walls at 0 and 1 mirror it, to the bit."""
    return gene if 0.0 <= gene <= 1.0 else 1.0 - abs(1.0 - gene % 2.0)


def pick(uniform, n):
    """Return a random whole number from 0 to n - 1."""
    return min(math.floor(uniform * n), n - 1)


def tournament(rng, order, size):
    """Return the winner of a tournament by inverting the distribution of the best of its contestants."""
    contestants = math.floor(size) + (rng.random() < size - math.floor(size))
    return order[pick(1.0 - (1.0 - rng.random()) ** (1.0 / contestants), len(order))]


def wait(rng, rate):
    """Return how many genes are passed over before the next one that mutates."""
    uniform = rng.random()
    if rate >= 1.0 or rate <= 0.0:
        return 0 if rate >= 1.0 else math.inf
    return math.floor(math.log(1.0 - uniform) / math.log1p(-rate))


def polynomial(uniform, gene, eta):
    """Return a gene after DEAP's ``mutPolynomialBounded``."""
    if uniform < 0.5:
        value = 2.0 * uniform + (1.0 - 2.0 * uniform) * (1.0 - gene) ** (eta + 1.0)
        gene += value ** (1.0 / (eta + 1.0)) - 1.0
    else:
        value = 2.0 * (1.0 - uniform) + 2.0 * (uniform - 0.5) * gene ** (eta + 1.0)
        gene += 1.0 - value ** (1.0 / (eta + 1.0))
    return min(max(gene, 0.0), 1.0)


def simulated_binary(coin, uniform, side, parent, partner, eta):
    """Return one gene of one child of DEAP's ``cxSimulatedBinaryBounded``."""
    if coin > 0.5 or abs(parent - partner) <= 1e-14:
        return parent
    low, high = sorted((parent, partner))

    def spread(room):
        beta = 1.0 + 2.0 * room / (high - low)
        alpha = 2.0 - beta ** -(eta + 1.0)
        if uniform <= 1.0 / alpha:
            return (uniform * alpha) ** (1.0 / (eta + 1.0))
        return (1.0 / (2.0 - uniform * alpha)) ** (1.0 / (eta + 1.0))

    if side <= 0.5:
        return min(max(0.5 * (low + high - spread(low) * (high - low)), 0.0), 1.0)
    return min(max(0.5 * (low + high + spread(1.0 - high) * (high - low)), 0.0), 1.0)


def mutated(rng, row, forced, waiting, rate, step, tail, mutation):
    """Return a row after mutation, and how many genes of later rows are still passed over."""
    eta = max(0.0, 0.5 * (math.sqrt(1.0 + 8.0 / (step * step)) - 5.0))
    row = list(row)
    for j in range(len(row)):
        chosen = waiting == 0
        if chosen or j == forced:
            if mutation == "multiscale":
                width = step * 10.0 ** (-2.5 * rng.random())
                heavy = rng.random() < tail
                move = min(max(rng.standard_cauchy(), -LIMIT), LIMIT) if heavy else rng.standard_normal()
                row[j] = min(max(row[j] + width * move, 0.0), 1.0)
            elif rng.random() < tail:
                row[j] = fold(row[j] + step * min(max(rng.standard_cauchy(), -LIMIT), LIMIT))
            elif mutation == "polynomial":
                row[j] = polynomial(rng.random(), row[j], eta)
            else:
                row[j] = fold(row[j] + step * rng.standard_normal())
        waiting = wait(rng, rate) if chosen else waiting - 1
    return row, waiting


def remutate(rng, genes, rate, step, tail, mutation):
    """Return mutants with at least one moved gene each."""
    waiting, rows = wait(rng, rate), []
    for row in genes:
        forced = pick(rng.random(), len(row))
        row, waiting = mutated(rng, row, forced, waiting, rate, step, tail, mutation)
        rows.append(row)
    return np.array(rows)


def axes_of(rng, genes):
    """Return orthogonal directions of differences of random pairs by Gram and Schmidt, each made twice."""
    p, d, axes = len(genes), len(genes[0]), []
    while len(axes) < d:
        one = pick(rng.random(), p)
        other = (one + 1 + pick(rng.random(), p - 1)) % p
        axis = [a - b for a, b in zip(genes[one], genes[other], strict=True)]
        while True:
            before = dot(axis, axis)
            for _ in range(2):
                for known in axes:
                    share = dot(axis, known)
                    axis = [a - share * b for a, b in zip(axis, known, strict=True)]
            length = dot(axis, axis)
            if length > 1e-20 * before:
                break
            axis = [rng.standard_normal() for _ in range(d)]
        axes.append([a / math.sqrt(length) for a in axis])
    return axes


def dot(one, other):
    """Return the scalar product, summed in order."""
    total = 0.0
    for a, b in zip(one, other, strict=True):
        total += a * b
    return total


def uniforms(rng, d):
    """Return ``d`` uniform numbers, two from each draw: its leading 26 bits and the others."""
    found = []
    while len(found) < d:
        scaled = rng.random() * 2.0**26
        found += [math.floor(scaled) / 2.0**26, scaled - math.floor(scaled)]
    return found[:d]


def breed(rng, genes, order, parents, controls, variation, archive=()):
    """Return children, operators, F and CR as lists."""
    genes, order, archive = genes.tolist(), order.tolist(), [list(row) for row in archive]
    everybody = genes + archive
    p, d, spread = len(genes), len(genes[0]), controls.crossover_spread
    eta = min((1.0 + 2.0 * spread) / max(4.0 * spread**2, 1e-300), 1e3)
    children, operators, weights, rates = [], [], [], []
    axes = axes_of(rng, genes) if variation.rotation > 0.0 and controls.differential_rate > 0.0 else None
    waiting = wait(rng, controls.mutation_rate)
    for row in parents:
        parent = genes[row]
        weight = rate = math.nan
        forced = -1
        if rng.random() < controls.differential_rate:
            operator = 2
            guide = genes[tournament(rng, order, controls.tournament_size)]
            one = pick(rng.random(), p)
            other = (one + 1 + pick(rng.random(), len(everybody) - 1)) % len(everybody)
            start, end = genes[one], everybody[other]
            weight, rate = controls.differential_weight, controls.crossover_rate
            if variation.jitter:
                weight = 0.0
                while weight <= 0.0:
                    weight = controls.differential_weight + 0.1 * rng.standard_cauchy()
                weight = min(weight, 1.2)
                rate = min(max(rate + 0.1 * rng.standard_normal(), 0.0), 1.0)
            turned = variation.rotation > 0.0 and rng.random() < variation.rotation * rate
            certain = pick(rng.random(), d)
            step = [weight * (g - a + (b - e)) for g, a, b, e in zip(guide, parent, start, end, strict=True)]
            crosses = [u < rate or j == certain for j, u in enumerate(uniforms(rng, d))]
            if turned:
                child = [a + b for a, b in zip(parent, step, strict=True)]
                for axis, crossed in zip(axes, crosses, strict=True):
                    if not crossed:
                        share = dot(axis, step)
                        child = [a - share * b for a, b in zip(child, axis, strict=True)]
            else:
                child = [a + b if c else a for a, b, c in zip(parent, step, crosses, strict=True)]
            child = [fold(a) for a in child]
        else:
            partner = row
            if rng.random() < controls.crossover_rate:
                partner = tournament(rng, order, controls.tournament_size)
            operator, child = 0, parent
            if partner == row:
                forced = pick(rng.random(), d)
            else:
                operator = 1
                kind = variation.recombination
                if kind == "mixed":
                    kind = ("blend", "sbx", "uniform")[pick(rng.random(), 3)]
                child = []
                shares = uniforms(rng, d) if kind == "blend" else [None] * d
                for a, b, u in zip(parent, genes[partner], shares, strict=True):
                    if kind == "blend":
                        child.append(fold(a + (u * (1.0 + 2.0 * spread) - spread) * (b - a)))
                    elif kind == "sbx":
                        child.append(simulated_binary(rng.random(), rng.random(), rng.random(), a, b, eta))
                    else:
                        child.append(b if rng.random() < spread else a)
        child, waiting = mutated(
            rng,
            child,
            forced,
            waiting,
            controls.mutation_rate,
            controls.mutation_step,
            controls.mutation_tail,
            variation.mutation,
        )
        for kept, value in ((children, child), (operators, operator), (weights, weight), (rates, rate)):
            kept.append(value)
    return np.array(children), np.array(operators), np.array(weights), np.array(rates)

"""Compiled breeding: tournaments, recombination, difference vectors and mutation, one child at a time.

Every number is drawn from the NumPy generator handed in, one after the other in the order of the code, so
that a plain Python loop over the same generator gives the same bits (``tests/reference/ga_breeding.py`` is
that loop). Genes that leave the unit cube are folded back at its walls; clipping would pile them up there.
An unchanged gene keeps its bits.

Shapes: ``p`` individuals, ``m`` offspring, ``d`` genes, ``a`` archived individuals.
"""

import math

import numba
import numpy as np

from compute.kernels import R1, R2, RI1, W1, W2, kernel

#: How an offspring was made; the positions of ``ga.progress.OPERATORS``.
MUTATION, CROSSOVER, DIFFERENTIAL = 0, 1, 2
#: Positions in ``ga.variation.RECOMBINATIONS`` and ``MUTATIONS``.
BLEND, SBX, UNIFORM, MIXED = 0, 1, 2, 3
GAUSSIAN_CAUCHY, POLYNOMIAL, MULTISCALE = 0, 1, 2
#: A Cauchy step has no mean; beyond this many widths folding has long lost all memory of the start.
MAX_STEP = 1e6
#: Scale of the jitter of F and CR, and the largest F (Zhang and Sanderson 2009; the range of the control).
JITTER, MAX_WEIGHT = 0.1, 1.2
#: Largest distribution index of simulated binary crossover: a child is then a copy to 3 digits.
MAX_ETA = 1e3
#: Decades below the mutation step over which multiscale mutation spreads its widths.
DECADES = 2.5
#: Part of the squared length of a difference that must be new for it to give a further axis.
LEAST_NEW = 1e-20
_NEVER = 1 << 62

_RNG = numba.types.npy_rng
_F, _I = numba.float64, numba.int64
_WI1, _WB1 = numba.int64[::1], numba.int8[::1]


@kernel(inline=True)
def folded(gene):
    """Return where a gene comes to rest when the walls at 0 and 1 mirror it as often as needed."""
    if gene < 0.0 or gene > 1.0:  # only strays: the formula would round the others
        return 1.0 - abs(1.0 - gene % 2.0)
    return gene


@kernel(inline=True)
def fold_row(genes, i):
    """Fold the strays of row ``i`` back, in place."""
    strays = False
    for j in range(genes.shape[1]):
        strays |= (genes[i, j] < 0.0) | (genes[i, j] > 1.0)
    if strays:
        for j in range(genes.shape[1]):
            genes[i, j] = folded(genes[i, j])


@kernel(inline=True)
def index(uniform, n):
    """Return the whole number from 0 to n - 1 that a uniform number from [0, 1) falls on."""
    return min(int(uniform * n), n - 1)  # the product may round up to n


@kernel(inline=True)
def scatter(rng, out):
    """Write uniform numbers from [0, 1), two from each draw: its leading 26 bits, and the others.

    A draw costs more than all that is done with it here, and nothing here needs 53 bits.
    """
    for j in range(0, out.size, 2):
        scaled = rng.random() * 67108864.0
        whole = math.floor(scaled)
        out[j] = whole / 67108864.0
        if j + 1 < out.size:
            out[j + 1] = scaled - whole


@kernel(inline=True)
def winner(chance, smallest, tournament_size, p):
    """Return the place, from the best, of the winner of one tournament.

    The best place among ``k`` contestants drawn with replacement is one uniform number by inversion: the
    smallest of ``k`` uniforms has the distribution function ``1 - (1 - x)^k``.
    """
    contestants = math.floor(tournament_size)
    if chance < tournament_size - contestants:
        contestants += 1.0
    return index(1.0 - (1.0 - smallest) ** (1.0 / contestants), p)


@kernel(numba.void(R2, RI1, _F, _WI1))
def tournaments(uniform, order, tournament_size, out):
    """Write the winners of ``m`` tournaments.

    Parameters
    ----------
    uniform : float64 (2, m)
        From [0, 1).
    order : int64 (p,)
        Rows of the population from best to worst.
    tournament_size : float
        Contestants; each tournament rounds a fraction up or down at random.
    out : int64 (m,)
        Rows of the winners, written in place.
    """
    for i in range(out.shape[0]):
        out[i] = order[winner(uniform[0, i], uniform[1, i], tournament_size, order.shape[0])]


@kernel(inline=True)
def simulated_binary(coin, uniform, side, parent, partner, eta):
    """Return one gene of a child by bounded simulated binary crossover.

    Half of the genes stay the parent's; of the others the child takes one of the two symmetric values.

    Source: Deb and Agrawal (1995), in the bounded form of Deb's NSGA-II code, as ``deap.tools`` has it.
    """
    low, high = min(parent, partner), max(parent, partner)
    if coin > 0.5 or high - low <= 1e-14:
        return parent
    lower = side <= 0.5
    room = low if lower else 1.0 - high
    beta = 1.0 + 2.0 * room / (high - low)
    alpha = 2.0 - beta ** -(eta + 1.0)
    if uniform <= 1.0 / alpha:
        spread = (uniform * alpha) ** (1.0 / (eta + 1.0))
    else:
        spread = (1.0 / (2.0 - uniform * alpha)) ** (1.0 / (eta + 1.0))
    gene = 0.5 * (low + high - spread * (high - low) if lower else low + high + spread * (high - low))
    return min(max(gene, 0.0), 1.0)


@kernel(inline=True)
def polynomial(uniform, gene, eta):
    """Return a gene after bounded polynomial mutation.

    Source: Deb and Agrawal (1999), in the bounded form of Deb's NSGA-II code, as ``deap.tools`` has it.
    """
    if uniform < 0.5:
        value = 2.0 * uniform + (1.0 - 2.0 * uniform) * (1.0 - gene) ** (eta + 1.0)
        move = value ** (1.0 / (eta + 1.0)) - 1.0
    else:
        value = 2.0 * (1.0 - uniform) + 2.0 * (uniform - 0.5) * gene ** (eta + 1.0)
        move = 1.0 - value ** (1.0 / (eta + 1.0))
    return min(max(gene + move, 0.0), 1.0)


@kernel(inline=True)
def binary_index(crossover_spread):
    """Return the distribution index eta of simulated binary crossover for a BLX alpha.

    With BLX the mean distance of a child beyond its parents is ``alpha^2 / (1 + 2 alpha)`` of their
    distance, with simulated binary crossover far from the walls ``1 / (4 eta)``; eta equates the two.
    """
    return min((1.0 + 2.0 * crossover_spread) / max(4.0 * crossover_spread**2, 1e-300), MAX_ETA)


@kernel(inline=True)
def polynomial_index(mutation_step):
    """Return the distribution index eta at which a polynomial step has this standard deviation.

    Far from the walls the variance is ``2 / ((eta + 2) (eta + 3))``.
    """
    return max(0.0, 0.5 * (math.sqrt(1.0 + 8.0 / (mutation_step * mutation_step)) - 5.0))


@kernel(inline=True)
def gap(uniform, rate):
    """Return how many genes are passed over before the next one that mutates: a geometric number.

    One draw per mutation instead of one per gene.
    """
    if rate >= 1.0:
        return 0
    if rate <= 0.0:
        return _NEVER
    return int(min(math.log(1.0 - uniform) / math.log1p(-rate), 1e18))


@kernel(inline=True)
def mutant(rng, gene, step, tail, kind, eta):
    """Return a gene after one mutation."""
    if kind == MULTISCALE:
        width = step * 10.0 ** (-DECADES * rng.random())
        move = rng.standard_cauchy() if rng.random() < tail else rng.standard_normal()
        move = width * min(max(move, -MAX_STEP), MAX_STEP)
        return min(max(gene + move, 0.0), 1.0)  # strays stay at the wall
    if rng.random() < tail:
        return folded(gene + step * min(max(rng.standard_cauchy(), -MAX_STEP), MAX_STEP))
    if kind == POLYNOMIAL:
        return polynomial(rng.random(), gene, eta)
    return folded(gene + step * rng.standard_normal())


@kernel(inline=True)
def mutate_row(rng, genes, i, forced, wait, rate, step, tail, kind, eta):
    """Mutate genes of row ``i`` in place, ``forced`` among them (-1: none).

    ``wait`` is the number of genes still to be passed over; the new number is returned.
    """
    d = genes.shape[1]
    if forced < 0 and wait >= d:
        return wait - d
    for j in range(d):
        if wait == 0:
            genes[i, j] = mutant(rng, genes[i, j], step, tail, kind, eta)
            wait = gap(rng.random(), rate)
        else:
            wait -= 1
            if j == forced:
                genes[i, j] = mutant(rng, genes[i, j], step, tail, kind, eta)
    return wait


@kernel(numba.void(_RNG, W2, _F, _F, _F, _I))
def mutate(rng, genes, rate, step, tail, kind):
    """Mutate genomes in place, at least one gene of each.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (m, d)
    rate, step, tail : float
        Probability per gene; standard deviation of a step, or width of a Cauchy step; share of those.
    kind : int
        GAUSSIAN_CAUCHY, POLYNOMIAL or MULTISCALE.
    """
    m, d = genes.shape
    eta = polynomial_index(step)
    wait = gap(rng.random(), rate)
    for i in range(m):
        forced = index(rng.random(), d)
        wait = mutate_row(rng, genes, i, forced, wait, rate, step, tail, kind, eta)


@kernel(inline=True)
def orthogonal(axes, k):
    """Make row ``k`` a unit vector at right angles to the rows before it, in place.

    Twice is enough (Kahan): the second pass removes what rounding left of the first. Returns whether enough
    of the row was new; without, it is left as it is.
    """
    d = axes.shape[1]
    before = after = 0.0
    for j in range(d):
        before += axes[k, j] * axes[k, j]
    for _ in range(2):
        for n in range(k):
            share = 0.0
            for j in range(d):
                share += axes[k, j] * axes[n, j]
            for j in range(d):
                axes[k, j] -= share * axes[n, j]
    for j in range(d):
        after += axes[k, j] * axes[k, j]
    if not after > LEAST_NEW * before:
        return False
    length = math.sqrt(after)
    for j in range(d):
        axes[k, j] /= length
    return True


@kernel(numba.void(_RNG, R2, W2))
def principal(rng, genes, axes):
    """Write ``d`` orthogonal directions along which the population is spread.

    Differences of random pairs, made orthogonal in the order drawn: the first lies most likely along the
    longest axis of the population, each further one along the longest of the others. That serves a
    recombination as well as eigenvectors do, costs a tenth, and is the same to the bit everywhere.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (p, d)
        At least two individuals.
    axes : float64 (d, d)
        One unit vector per row, written in place.
    """
    p, d = genes.shape
    for k in range(d):
        one = index(rng.random(), p)
        other = (one + 1 + index(rng.random(), p - 1)) % p  # never the same
        for j in range(d):
            axes[k, j] = genes[one, j] - genes[other, j]
        while not orthogonal(axes, k):  # a population without spread in so many directions: any direction
            for j in range(d):
                axes[k, j] = rng.standard_normal()


@kernel(numba.void(_RNG, R2, R2, RI1, RI1, R1, _I, _I, _I, _F, W2, _WB1, W1, W1))
def breed(
    rng,
    genes,
    archive,
    order,
    parents,
    controls,
    recombination,
    mutation,
    jitter,
    rotation,
    out,
    operator,
    weights,
    rates,
):
    """Write finished offspring, recombined and mutated.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (p, d)
        Of the population.
    archive : float64 (a, d)
        Further individuals that a difference vector may end in; may be empty.
    order : int64 (p,)
        Rows of the population from best to worst.
    parents : int64 (m,)
        Row of the parent of each offspring.
    controls : float64 (8,)
        Mutation rate, step and tail, crossover rate and spread, differential rate and weight, tournament
        size: the first eight of ``ga.controls.CONTROL_NAMES``.
    recombination, mutation : int
        BLEND, SBX, UNIFORM or MIXED; GAUSSIAN_CAUCHY, POLYNOMIAL or MULTISCALE.
    jitter : int
        1 if each child of a difference vector draws its own F and CR.
    rotation : float
        Times CR: probability that such a child crosses over along :func:`principal` directions, not genes.
    out : float64 (m, d)
    operator : int8 (m,)
        MUTATION, CROSSOVER or DIFFERENTIAL.
    weights, rates : float64 (m,)
        F and CR of the children of difference vectors, NaN for the others. All four are written in place.
    """
    mutation_rate, mutation_step, mutation_tail = controls[0], controls[1], controls[2]
    crossover_rate, crossover_spread = controls[3], controls[4]
    differential_rate, differential_weight, tournament_size = controls[5], controls[6], controls[7]
    p, d = genes.shape
    pool = p + archive.shape[0]
    eta_crossover = binary_index(crossover_spread)
    eta_mutation = polynomial_index(mutation_step)
    axes, step = np.empty((d, d)), np.empty(d)
    chance = np.empty(d)  # drawn first: loops without a draw in them work on several genes at once
    if rotation > 0.0 and differential_rate > 0.0:
        principal(rng, genes, axes)
    wait = gap(rng.random(), mutation_rate)
    for i in range(parents.shape[0]):
        row = parents[i]  # rows by number: a slice would be counted as a reference to its array
        weights[i] = rates[i] = math.nan
        forced = -1
        if rng.random() < differential_rate:
            operator[i] = DIFFERENTIAL
            guide = order[winner(rng.random(), rng.random(), tournament_size, p)]
            one = index(rng.random(), p)
            other = (one + 1 + index(rng.random(), pool - 1)) % pool  # never the same
            weight, rate = differential_weight, crossover_rate
            if jitter:
                weight = differential_weight + JITTER * rng.standard_cauchy()
                while weight <= 0.0:
                    weight = differential_weight + JITTER * rng.standard_cauchy()
                weight = min(weight, MAX_WEIGHT)
                rate = min(max(crossover_rate + JITTER * rng.standard_normal(), 0.0), 1.0)
            turned = rotation > 0.0 and rng.random() < rotation * rate
            certain = index(rng.random(), d)
            for j in range(d):
                gene = genes[row, j]
                end = genes[other, j] if other < p else archive[other - p, j]
                step[j] = weight * (genes[guide, j] - gene + (genes[one, j] - end))
            scatter(rng, chance)
            chance[certain] = -1.0
            if turned:
                for j in range(d):
                    out[i, j] = genes[row, j] + step[j]
                for k in range(d):  # take back the step along each direction that does not cross over
                    if chance[k] < rate:
                        continue
                    share = 0.0
                    for j in range(d):
                        share += axes[k, j] * step[j]
                    for j in range(d):
                        out[i, j] -= share * axes[k, j]
            else:
                for j in range(d):
                    gene = genes[row, j]
                    out[i, j] = gene + step[j] if chance[j] < rate else gene
            fold_row(out, i)
            weights[i], rates[i] = weight, rate
        else:
            partner = row
            if rng.random() < crossover_rate:
                partner = order[winner(rng.random(), rng.random(), tournament_size, p)]
            if partner == row:  # also one that meets itself: the child is its parent but for its mutations
                operator[i] = MUTATION
                for j in range(d):
                    out[i, j] = genes[row, j]
                forced = index(rng.random(), d)
            else:
                operator[i] = CROSSOVER
                kind = recombination
                if kind == MIXED:
                    kind = index(rng.random(), 3)
                if kind == BLEND:
                    scatter(rng, chance)
                    for j in range(d):
                        share = chance[j] * (1.0 + 2.0 * crossover_spread) - crossover_spread
                        out[i, j] = genes[row, j] + share * (genes[partner, j] - genes[row, j])
                    fold_row(out, i)
                elif kind == SBX:
                    for j in range(d):
                        coin, uniform, side = rng.random(), rng.random(), rng.random()
                        one_gene, other_gene = genes[row, j], genes[partner, j]
                        out[i, j] = simulated_binary(coin, uniform, side, one_gene, other_gene, eta_crossover)
                else:
                    for j in range(d):
                        out[i, j] = genes[partner if rng.random() < crossover_spread else row, j]
        wait = mutate_row(
            rng, out, i, forced, wait, mutation_rate, mutation_step, mutation_tail, mutation, eta_mutation
        )


@kernel(numba.void(numba.types.Array(numba.float64, 3, "C", readonly=True), W2))
def stratify(uniform, out):
    """Write a Latin hypercube: each gene visits each of ``p`` equal strata exactly once.

    Parameters
    ----------
    uniform : float64 (2, p, d)
        From [0, 1): the shuffles (Fisher and Yates), and the places inside the strata.
    out : float64 (p, d)
        Written in place.
    """
    p, d = out.shape
    for i in range(p):
        for j in range(d):
            other = index(uniform[0, i, j], i + 1)
            out[i, j] = out[other, j]
            out[other, j] = i
    for i in range(p):
        for j in range(d):
            out[i, j] = (out[i, j] + uniform[1, i, j]) / p

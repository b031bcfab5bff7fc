"""Synthetic landscapes on the unit cube for meta-training, compiled, with a known optimum of 0.

An instance is a family, a dimension and a seed. The seed draws the place of the optimum, the rotation, the
condition and the shape, so that two instances of a family share only their formula. The formulas are of the
literature, and none is an instance of a published suite, which keeps such suites for the test. Families
differ in what makes them hard: nothing (sphere), condition (ellipsoid, discus, powers), a bent or sharp
valley (rosenbrock, ridge), many small wrong basins (rastrigin, ackley, griewank, weierstrass), few large or
deceptive ones (schwefel, peaks), plateaus (steps), and genes that count (levels). Every third instance of
most families is lopsided as well: the way to the optimum is steeper from one side than from the other.

Shapes: ``p`` genomes, ``d`` genes, ``n`` peaks.
"""

import functools
import math
from dataclasses import dataclass

import numba
import numpy as np

from compute.kernels import R1, R2, W1, kernel

#: Families by name; the position is the code that :func:`evaluate` reads, and part of the seed.
FAMILIES = (
    "sphere",
    "ellipsoid",
    "discus",
    "powers",
    "rosenbrock",
    "ridge",
    "rastrigin",
    "ackley",
    "griewank",
    "weierstrass",
    "schwefel",
    "peaks",
    "steps",
    "levels",
)
(
    SPHERE,
    ELLIPSOID,
    DISCUS,
    POWERS,
    ROSENBROCK,
    RIDGE,
    RASTRIGIN,
    ACKLEY,
    GRIEWANK,
    WEIERSTRASS,
    SCHWEFEL,
    PEAKS,
    STEPS,
    LEVELS,
) = range(len(FAMILIES))
#: Fewest and most genes of an instance.
MIN_DIMENSION, MAX_DIMENSION = 2, 64
#: Half the width of the cube in the units of the formula; 5 where nothing is said.
HALF_WIDTH = {
    "rosenbrock": 2.0,
    "rastrigin": 5.12,
    "ackley": 32.0,
    "griewank": 100.0,
    "weierstrass": 2.0,
    "peaks": 0.5,
}
#: Where the parameters of an instance begin: whether rotated, a number of the family, whether lopsided, its
#: width; then optimum (d), weights (d), the rotation (d, d) if there is one, the factors of a lopsided one
#: above (d) and below (d) the optimum, and what only peaks and levels have.
HEAD = 4
#: Families whose formula takes no factors; share of the instances of others that has some, and their largest.
EVEN_FAMILIES = ("schwefel", "peaks", "levels")
LOPSIDED_SHARE, LOPSIDED_MOST = 0.35, 10.0
N_PEAKS = 21
HIGHEST_PEAK = 10.0
#: Octaves of weierstrass; each is three times as fine and half as high as the one before.
OCTAVES = 9
#: Where ``z sin(sqrt(z))`` is largest up to 500: the best basin of Schwefel's function.
SCHWEFEL_BEST = 420.9687463599821
#: Half of the genes of a levels instance have one of these numbers of levels.
LEVEL_COUNTS = (2, 3, 5, 9)


#: Genomes that are evaluated side by side: enough for the processor, few enough for its nearest memory.
_SIDE_BY_SIDE = 64


# One function per formula. Of ``n`` genomes side by side each takes ``z (d, n or more)`` in the units of the
# formula and writes ``error (n or more,)``, which is zero before. Gene by gene, all genomes of one gene in a
# row: the processor works on several at once, and each genome has the bits that it has alone.


@kernel(inline=True)
def _power_sum(z, n, exponents, error):
    for j in range(z.shape[0]):
        for i in range(n):
            error[i] += abs(z[j, i]) ** exponents[j]
    for i in range(n):
        error[i] = math.sqrt(error[i])


@kernel(inline=True)
def _weighted_squares(z, n, weights, error):
    for j in range(z.shape[0]):
        for i in range(n):
            error[i] += weights[j] * z[j, i] * z[j, i]


@kernel(inline=True)
def _rosenbrock(z, n, error):
    for j in range(z.shape[0] - 1):
        for i in range(n):
            here, there = z[j, i] + 1.0, z[j + 1, i] + 1.0
            error[i] += 100.0 * (there - here * here) ** 2 + (1.0 - here) ** 2


@kernel(inline=True)
def _ridge(z, n, steepness, error):
    for j in range(1, z.shape[0]):
        for i in range(n):
            error[i] += z[j, i] * z[j, i]
    for i in range(n):
        error[i] = z[0, i] * z[0, i] + steepness * math.sqrt(error[i])


@kernel(inline=True)
def _rastrigin(z, n, weights, height, error):
    for j in range(z.shape[0]):
        for i in range(n):
            x = weights[j] * z[j, i]
            error[i] += x * x + height * (1.0 - math.cos(2.0 * math.pi * x))


@kernel(inline=True)
def _ackley(z, n, error):
    d = z.shape[0]
    waves = np.zeros(n)
    for j in range(d):
        for i in range(n):
            error[i] += z[j, i] * z[j, i]
            waves[i] += math.cos(2.0 * math.pi * z[j, i])
    for i in range(n):
        # Differences from 1 in one step each: the sum of four rounded numbers would end at 1e-15, not at 0.
        squares = -20.0 * math.expm1(-0.2 * math.sqrt(error[i] / d))
        error[i] = squares - math.e * math.expm1(waves[i] / d - 1.0)


@kernel(inline=True)
def _griewank(z, n, error):
    waves = np.ones(n)
    for j in range(z.shape[0]):
        root = math.sqrt(j + 1.0)
        for i in range(n):
            error[i] += z[j, i] * z[j, i]
            waves[i] *= math.cos(z[j, i] / root)
    for i in range(n):
        error[i] = error[i] / 4000.0 + 1.0 - waves[i]


@kernel(inline=True)
def _weierstrass(z, n, error):
    d = z.shape[0]
    rough, cosine = np.zeros(n), np.empty(n)
    for j in range(d):
        for i in range(n):
            cosine[i] = math.cos(2.0 * math.pi * z[j, i])
            error[i] += z[j, i] * z[j, i]
        height = 1.0
        for _ in range(OCTAVES):
            for i in range(n):
                rough[i] += height * (1.0 - cosine[i])
                cosine[i] *= 4.0 * cosine[i] * cosine[i] - 3.0  # of three times the angle
            height *= 0.5
    for i in range(n):
        error[i] = 10.0 * (rough[i] / d) ** 3 + 0.1 * error[i]


@kernel(inline=True)
def _schwefel_gain(x):
    return x * math.sin(math.sqrt(abs(x)))


@kernel(inline=True)
def _schwefel(z, n, weights, error):
    d, best = z.shape[0], _schwefel_gain(SCHWEFEL_BEST)
    for j in range(d):
        for i in range(n):
            error[i] += max(best - _schwefel_gain(SCHWEFEL_BEST + weights[j] * z[j, i]), 0.0)
    for i in range(n):
        error[i] /= d


@kernel(inline=True)
def _peaks(z, n, parameters, at, error):
    # Heights, then centres and sharpness, (d, N_PEAKS) each. The hill that is highest here decides.
    d = z.shape[0]
    distance, best = np.zeros((N_PEAKS, n)), np.full(n, -np.inf)
    for j in range(d):
        for k in range(N_PEAKS):
            centre = parameters[at + (1 + j) * N_PEAKS + k]
            sharpness = parameters[at + (1 + d + j) * N_PEAKS + k]
            for i in range(n):
                distance[k, i] += sharpness * (z[j, i] - centre) ** 2
    for k in range(N_PEAKS):
        height = parameters[at + k]
        for i in range(n):
            best[i] = max(best[i], height - distance[k, i])
    for i in range(n):
        error[i] = -HIGHEST_PEAK * math.expm1(best[i])


@kernel(inline=True)
def _steps(z, n, fineness, error):
    for j in range(z.shape[0]):
        for i in range(n):
            error[i] += math.floor(fineness * z[j, i] + 0.5) ** 2 + 1e-4 * z[j, i] * z[j, i]


@kernel(inline=True)
def _level(gene, count):
    # The middle of the level that a gene falls on; a gene without levels is itself.
    if count < 1.0:
        return gene
    return (min(math.floor(gene * count), count - 1.0) + 0.5) / count


@kernel(inline=True)
def _levels(z, n, weights, height, error):
    for j in range(z.shape[0]):
        for i in range(n):
            x = z[j, i]
            error[i] += weights[j] * x * x + height * (1.0 - math.cos(2.0 * math.pi * x))


@kernel(numba.void(numba.int64, R1, R2, W1))
def evaluate(family, parameters, genes, out):
    """Write the errors of genomes: 0 at the optimum, positive elsewhere.

    One genome has the same bits alone and in any batch.

    Parameters
    ----------
    family : int
        Position in ``FAMILIES``.
    parameters : float64 (n,)
        Of :attr:`Landscape.parameters`.
    genes : float64 (p, d)
        In the unit cube.
    out : float64 (p,)
        Written in place.
    """
    p, d = genes.shape
    rotated, first, width = parameters[0] > 0.0, parameters[1], parameters[3]
    optimum, weights = parameters[HEAD : HEAD + d], parameters[HEAD + d : HEAD + 2 * d]
    rotation = HEAD + 2 * d
    further = rotation + d * d if rotated else rotation
    most = min(p, _SIDE_BY_SIDE)
    moved, turned, error = np.empty((d, most)), np.empty((d if rotated else 0, most)), np.empty(most)
    for start in range(0, p, _SIDE_BY_SIDE):
        n = min(p - start, _SIDE_BY_SIDE)
        error[:] = 0.0
        for j in range(d):
            for i in range(n):
                gene = genes[start + i, j]
                if family == LEVELS:
                    gene = _level(gene, parameters[further + j])
                moved[j, i] = (gene - optimum[j]) * width
        z = moved
        if rotated:
            turned[:] = 0.0
            for k in range(d):
                for j in range(d):
                    part = parameters[rotation + k * d + j]
                    for i in range(n):
                        turned[j, i] += moved[k, i] * part
            z = turned
        if parameters[2] > 0.0:
            for j in range(d):
                above, below = parameters[further + j], parameters[further + d + j]
                for i in range(n):
                    z[j, i] *= above if z[j, i] > 0.0 else below
        if family == POWERS:
            _power_sum(z, n, weights, error)
        elif family == ROSENBROCK:
            _rosenbrock(z, n, error)
        elif family == RIDGE:
            _ridge(z, n, first, error)
        elif family == RASTRIGIN:
            _rastrigin(z, n, weights, first, error)
        elif family == ACKLEY:
            _ackley(z, n, error)
        elif family == GRIEWANK:
            _griewank(z, n, error)
        elif family == WEIERSTRASS:
            _weierstrass(z, n, error)
        elif family == SCHWEFEL:
            _schwefel(z, n, weights, error)
        elif family == PEAKS:
            _peaks(z, n, parameters, further, error)
        elif family == STEPS:
            _steps(z, n, first, error)
        elif family == LEVELS:
            _levels(z, n, weights, first, error)
        else:
            _weighted_squares(z, n, weights, error)
        for i in range(n):
            out[start + i] = max(error[i], 0.0) + 0.0  # rounding may step below, and -0.0 has other bytes


@dataclass(frozen=True, eq=False)
class Landscape:
    """One instance: ``landscape(genes (p, d)) -> errors (p,)``.

    Parameters
    ----------
    family : str
        One of ``FAMILIES``.
    dimension : int
        Number of genes.
    seed : int
        Of the instance.
    parameters : float64 (n,)
        All that the seed has drawn, read-only, as :func:`evaluate` reads it.
    """

    family: str
    dimension: int
    seed: int
    parameters: np.ndarray

    @property
    def code(self) -> int:
        """Position of the family in ``FAMILIES``."""
        return FAMILIES.index(self.family)

    @property
    def optimum(self) -> np.ndarray:
        """The genome with error 0, float64 (d,)."""
        return self.parameters[HEAD : HEAD + self.dimension]

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return the errors, float64 (p,), of genes (p, d) in the unit cube.

        Raises
        ------
        ValueError
            If genes do not have one column per gene.
        """
        genes = np.ascontiguousarray(genes, dtype=np.float64)
        if genes.ndim != 2 or genes.shape[1] != self.dimension:
            raise ValueError(f"genes have shape {genes.shape}; {self.family} needs (p, {self.dimension})")
        errors = np.empty(len(genes))
        evaluate(self.code, self.parameters, genes, errors)
        return errors


@functools.lru_cache(maxsize=4096)
def landscape(family: str, dimension: int, seed: int) -> Landscape:
    """Return one instance of a family; the same three arguments give the same bytes.

    Parameters
    ----------
    family : str
        One of ``FAMILIES``.
    dimension : int
        Genes, from 2 to 64.
    seed : int
        Not negative.

    Raises
    ------
    ValueError
        If the family is unknown, or dimension or seed are out of range.

    Source: Hansen and others (2009) collect the formulas and their names; Ackley (1987); Griewank (1981);
    Rastrigin (1974); Schwefel (1981); Gallagher and Yuan
    (2006) for peaks.
    """
    if family not in FAMILIES:
        raise ValueError(f"landscape family is {family!r}; known: {', '.join(FAMILIES)}")
    if not MIN_DIMENSION <= dimension <= MAX_DIMENSION:
        raise ValueError(
            f"{family} has dimension {dimension}; it must be from {MIN_DIMENSION} to {MAX_DIMENSION}"
        )
    if seed < 0:
        raise ValueError(f"seed of {family} is {seed}; it must not be negative")
    d, rng = dimension, np.random.default_rng([seed, dimension, FAMILIES.index(family)])
    optimum = rng.uniform(0.1, 0.9, d)
    if rng.random() < 0.25:  # as with rules, whose best threshold is often none at all
        walls = rng.random(d) < 1 / 3
        optimum[walls] = np.round(optimum[walls])
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    rotated = family not in ("sphere", "schwefel") and (family == "ridge" or rng.random() < 0.6)
    width = 2.0 * HALF_WIDTH.get(family, 5.0)
    first, further, weights = 0.0, np.empty(0), np.ones(d)
    even = np.linspace(0.0, 1.0, d)
    if family == "ellipsoid":
        weights = rng.permutation(10.0 ** (even * rng.uniform(2.0, 6.0)))
    elif family == "discus":  # one stiff axis, or one soft axis
        stiff = 10.0 ** rng.uniform(3.0, 6.0)
        weights, odd = (weights, stiff) if rng.random() < 0.5 else (weights * stiff, 1.0)
        weights[rng.integers(d)] = odd
    elif family == "powers":
        weights = rng.permutation(2.0 + even * rng.uniform(2.0, 6.0))
    elif family == "ridge":
        first = 10.0 ** rng.uniform(1.0, 3.0)
    elif family == "rastrigin":
        first, weights = rng.uniform(3.0, 12.0), rng.permutation(10.0 ** (even * rng.uniform(0.0, 0.5)))
    elif family == "schwefel":  # as much of Schwefel's cube as holds its optimum, each gene either way up
        reach, width = rng.uniform(600.0, 1000.0, d), 1.0
        weights = reach * rng.choice([-1.0, 1.0], d)
        room = (500.0 - SCHWEFEL_BEST) / reach  # beyond the optimum
        place = rng.uniform(1.0 - room, np.minimum(1.0, (500.0 + SCHWEFEL_BEST) / reach))
        optimum = np.where(weights > 0.0, place, 1.0 - place)
    elif family == "peaks":
        further = _peak_parameters(rng, optimum, rotation if rotated else None)
    elif family == "steps":
        first = rng.uniform(0.8, 3.0)
    elif family == "levels":
        counts = np.where(rng.permutation(d) < d // 2, rng.choice(LEVEL_COUNTS, d), 0).astype(np.float64)
        steps = np.minimum(np.floor(optimum * counts), np.maximum(counts - 1.0, 0.0))
        optimum = np.where(counts > 0.0, (steps + 0.5) / np.maximum(counts, 1.0), optimum)
        weights = rng.permutation(10.0 ** (even * rng.uniform(0.0, 3.0)))
        first, further = rng.choice([0.0, 3.0, 10.0]), counts
    # Random numbers of its own, so that the other instances are what they are without it.
    factors = np.empty(0)
    if family not in EVEN_FAMILIES:
        factors = _lopsided(d, np.random.default_rng([seed, d, FAMILIES.index(family), 1]))
    head = np.array([float(rotated), first, float(factors.size > 0), width])
    turn = rotation.ravel() if rotated else np.empty(0)
    parameters = np.concatenate([head, optimum, weights, turn, factors, further])
    parameters.flags.writeable = False
    return Landscape(family, d, seed, parameters)


def _lopsided(d: int, rng: np.random.Generator) -> np.ndarray:
    # Factors above and below the optimum, (2 * d,); nothing for an instance that is the same on both sides.
    if rng.random() >= LOPSIDED_SHARE:
        return np.empty(0)
    factors = np.ones((2, d))
    strength = rng.uniform(0.2, math.log10(LOPSIDED_MOST))
    factors[rng.integers(2, size=d), np.arange(d)] = 10.0 ** (strength * rng.random(d))
    return factors.ravel()


def _peak_parameters(
    rng: np.random.Generator, optimum: np.ndarray, rotation: np.ndarray | None
) -> np.ndarray:
    # Heights as logarithms of their share of the highest; centres and sharpness in the turned coordinates.
    d = optimum.size
    height = np.log(np.concatenate([[1.0], rng.uniform(0.1, 0.93, N_PEAKS - 1)]))
    centre = rng.uniform(0.05, 0.95, (N_PEAKS, d)) - optimum
    centre[0] = 0.0
    if rotation is not None:
        centre = centre @ rotation
    stretch = 10.0 ** (np.linspace(-0.5, 0.5, d) * rng.uniform(0.0, 3.0))
    sharpness = np.concatenate([[20.0], rng.uniform(4.0, 30.0, N_PEAKS - 1)]) / d
    axes = np.array([rng.permutation(stretch) for _ in range(N_PEAKS)]) * sharpness[:, None]
    return np.concatenate([height, centre.T.ravel(), axes.T.ravel()])

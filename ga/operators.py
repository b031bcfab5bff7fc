"""Selection, recombination, mutation and replacement of whole populations, registered in a DEAP toolbox.

DEAP's operators change one individual at a time; these treat the population as one matrix, which is
some twenty times quicker, and DEAP's own are their twins in the tests. Each operator takes a NumPy
generator first, draws nothing elsewhere, and never changes the arrays it is given. Genes that leave
the unit cube are folded back at its walls; clipping would pile them up there.

Shapes: ``p`` individuals, ``m`` offspring, ``d`` genes.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from deap import base, tools

#: A Cauchy step has no mean; beyond this many widths folding has long lost all memory of the start.
MAX_STEP = 1e6


def toolbox() -> base.Toolbox:
    """Return a new toolbox with the array operators; register another function to replace one."""
    box = base.Toolbox()
    box.register("order", order)
    box.register("select", select)
    box.register("mate", mate)
    box.register("differ", differ)
    box.register("mutate", mutate)
    box.register("replace", replace)
    box.register("round", round_stochastically)
    return box


def logbook() -> tools.Logbook:
    """Return a new DEAP logbook, a list of one dictionary per generation."""
    return tools.Logbook()


@contextmanager
def python_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's global generator, from which DEAP's own operators draw, and restore it afterwards."""
    before = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(before)


def round_stochastically(rng: np.random.Generator, value: float) -> int:
    """Return ``value`` rounded up or down at random, so that its mean is ``value``."""
    low = int(value)
    return low + int(rng.random() < value - low)


def order(rng: np.random.Generator, fitness: np.ndarray) -> np.ndarray:
    """Return the rows of a population from best to worst, int64 (p,); equals stand in random order."""
    shuffled = rng.permutation(fitness.size)
    return shuffled[np.argsort(-fitness[shuffled], kind="stable")]


def select(rng: np.random.Generator, order: np.ndarray, m: int, tournament_size: float) -> np.ndarray:
    """Return the winners of ``m`` tournaments, int64 (m,).

    The best place among ``k`` contestants drawn with replacement is one uniform number by inversion:
    the smallest of ``k`` uniforms has the distribution function ``1 - (1 - x)^k``.

    Parameters
    ----------
    rng : numpy.random.Generator
    order : int64 (p,)
        Rows from best to worst.
    m : int
        Number of tournaments.
    tournament_size : float
        Contestants per tournament; each tournament rounds a fraction up or down at random.
    """
    whole = int(tournament_size)
    contestants = whole + (rng.random(m) < tournament_size - whole)
    smallest = 1.0 - (1.0 - rng.random(m)) ** (1.0 / contestants)  # in [0, 1): never past the last row
    return order[(smallest * order.size).astype(np.int64)]


def mate(
    rng: np.random.Generator, parents: np.ndarray, partners: np.ndarray, crossover_spread: float
) -> np.ndarray:
    """Return children (m, d) by blend crossover.

    Each gene is uniform on the interval between its two parents, lengthened on both sides by
    ``crossover_spread`` times their distance.

    Source: Eshelman and Schaffer (1993), BLX-alpha.
    """
    weight = rng.random(parents.shape)
    weight *= 1.0 + 2.0 * crossover_spread
    weight -= crossover_spread
    weight *= partners - parents
    weight += parents
    return _folded(weight)


def differ(
    rng: np.random.Generator,
    parents: np.ndarray,
    guides: np.ndarray,
    differences: np.ndarray,
    crossover_rate: float,
    differential_weight: float,
) -> np.ndarray:
    """Return children (m, d) by differential evolution, current-to-guide/1 with binomial crossover.

    ``parent + F (guide - parent) + F difference`` in each gene that crosses over; at least one does.

    Parameters
    ----------
    rng : numpy.random.Generator
    parents, guides : float64 (m, d)
        The guide is a tournament winner, which makes this the random rule for a tournament of one.
    differences : float64 (m, d)
        Difference of two random individuals.
    crossover_rate : float
        Probability that a gene takes the new value.
    differential_weight : float
        F.

    Source: Storn and Price (1997); Zhang and Sanderson (2009), equation 6, with tournament winners.
    """
    m, d = parents.shape
    crossed = rng.random((m, d)) < crossover_rate
    crossed[np.arange(m), rng.integers(d, size=m)] = True
    step = guides - parents
    step += differences
    step *= differential_weight
    step *= crossed
    step += parents
    return _folded(step)


def mutate(
    rng: np.random.Generator,
    genes: np.ndarray,
    mutation_rate: float,
    mutation_step: float,
    mutation_tail: float,
    always: np.ndarray | None = None,
) -> np.ndarray:
    """Return mutants (m, d): each gene moves with probability ``mutation_rate``.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (m, d)
    mutation_rate : float
        Probability per gene.
    mutation_step : float
        Standard deviation of a Gaussian step, width of a Cauchy step, as a fraction of the range.
    mutation_tail : float
        Share of steps that are Cauchy.
    always : bool (m,), optional
        Rows in which at least one gene must move.
    """
    m, d = genes.shape
    moves = rng.random((m, d)) < mutation_rate
    if always is not None:
        rows = np.flatnonzero(always)
        moves[rows, rng.integers(d, size=rows.size)] = True
    where = np.flatnonzero(moves)
    step = rng.standard_normal(where.size)
    heavy = np.flatnonzero(rng.random(where.size) < mutation_tail)
    step[heavy] = rng.standard_cauchy(heavy.size)
    mutants = genes.copy()
    flat = mutants.reshape(-1)
    flat[where] = _folded(flat[where] + mutation_step * np.clip(step, -MAX_STEP, MAX_STEP))
    return mutants


def replace(
    fitness: np.ndarray, places: np.ndarray, offspring_fitness: np.ndarray, defended: np.ndarray
) -> np.ndarray:
    """Return which offspring take their places, bool (m,).

    An offspring takes an open place in any case, and a defended one, whose occupant is its own parent,
    if it is at least as fit: drifting along a plateau is how a search leaves it. Parent against child
    is crowding with the closest relative, and the selection of differential evolution.

    Parameters
    ----------
    fitness : float64 (p,)
    places : int64 (m,)
        Row of the population each offspring is meant for, all different.
    offspring_fitness : float64 (m,)
    defended : bool (m,)

    Source: Mahfoud (1992), deterministic crowding.
    """
    return ~defended | (offspring_fitness >= fitness[places])


def _folded(genes: np.ndarray) -> np.ndarray:
    # A wall mirrors what crosses it, as often as needed. Only strays are touched: the formula would
    # round the others, and an unchanged gene must keep its bits to be recognised. In place.
    if genes.size and (genes.min() < 0.0 or genes.max() > 1.0):
        strays = (genes < 0.0) | (genes > 1.0)
        genes[strays] = 1.0 - np.abs(1.0 - np.mod(genes[strays], 2.0))
    return genes

"""Selection, breeding and replacement of whole populations, registered in a DEAP toolbox.

DEAP's operators change one individual at a time; these treat the population as one matrix in compiled
loops, and DEAP's own are their twins in the tests. Each operator takes a NumPy generator first, draws
nothing elsewhere, and never changes the arrays it is given. Another family of genomes (trees, say) keeps
the search and registers its own ``breed`` and ``remutate``.

Shapes: ``p`` individuals, ``m`` offspring, ``d`` genes.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from deap import base
from deap.tools import Logbook

from ga import breeding_kernels, kernels
from ga.controls import GAControls
from ga.variation import MUTATIONS, RECOMBINATIONS, Variation

#: How often an offspring that repeats an evaluated genome is mutated again.
MAX_TRIES = 8


def toolbox(variation: Variation | None = None) -> base.Toolbox:
    """Return a new toolbox with the array operators; register another function to replace one.

    Parameters
    ----------
    variation : Variation, optional
        Which recombination and mutation ``breed`` and ``remutate`` use.
    """
    variation = Variation() if variation is None else variation
    box = base.Toolbox()
    box.register("order", order)
    box.register("select", select)
    box.register("breed", breed, variation=variation)
    box.register("remutate", remutate, variation=variation)
    box.register("replace", replace)
    box.register("round", round_stochastically)
    return box


def logbook() -> Logbook:
    """Return a new DEAP logbook, a list of one dictionary per generation."""
    return Logbook()


_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def python_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's global generator, from which DEAP's own operators draw, and restore it afterwards.

    One thread at a time: searches that run side by side would draw each other's numbers.
    """
    with _ONE_AT_A_TIME:
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
    rows = np.empty(fitness.size, dtype=np.int64)
    if kernels.descend(fitness, fitness.argsort(), rows):
        return np.lexsort((rng.random(fitness.size), -fitness))
    return rows


def select(rng: np.random.Generator, order: np.ndarray, m: int, tournament_size: float) -> np.ndarray:
    """Return the winners of ``m`` tournaments among contestants drawn with replacement, int64 (m,).

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
    winners = np.empty(m, dtype=np.int64)
    breeding_kernels.tournaments(rng.random((2, m)), order, tournament_size, winners)
    return winners


class Bred(NamedTuple):
    """Offspring of one generation; ``m`` is their number."""

    #: float64 (m, d), finished: recombined and mutated.
    children: np.ndarray
    #: int8 (m,), position in ``ga.progress.OPERATORS``.
    operator: np.ndarray
    #: float64 (m,), scale factor F of the children of difference vectors, NaN for others.
    weight: np.ndarray
    #: float64 (m,), crossover rate CR of the same, NaN for others.
    rate: np.ndarray


def breed(
    rng: np.random.Generator,
    genes: np.ndarray,
    order: np.ndarray,
    parents: np.ndarray,
    controls: GAControls,
    *,
    variation: Variation,
    archive: np.ndarray | None = None,
) -> Bred:
    """Return one finished offspring per parent.

    Each child is made with a difference vector (probability ``differential_rate``), else with a partner
    (probability ``crossover_rate``), else it is its parent; then its genes mutate. A child of mutation
    alone, also one whose partner is its parent, mutates in at least one gene. Difference vectors are those
    of differential evolution, current-to-guide/1 with binomial crossover:
    ``parent + F (guide - parent) + F (one - other)`` in each gene that crosses over; at least one does.
    Guides and partners are tournament winners, which makes this the random rule for a tournament of one.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (p, d)
        Of the population.
    order : int64 (p,)
        Its rows from best to worst.
    parents : int64 (m,)
        Row of the parent of each offspring.
    controls : GAControls
    variation : Variation
        Which recombination and mutation.
    archive : float64 (a, d), optional
        Replaced individuals, among which ``other`` is drawn too.

    Source: Eshelman and Schaffer (1993), BLX-alpha; Deb and Agrawal (1995), simulated binary crossover;
    Syswerda (1989), uniform crossover; Storn and Price (1997), differential evolution; Zhang and Sanderson
    (2009), equation 6, with tournament winners, and the archive and the jitter of F and CR of JADE; Guo and
    Yang (2015), crossover in the eigenvector coordinates of the population.
    """
    m, d = parents.size, genes.shape[1]
    bred = Bred(np.empty((m, d)), np.empty(m, dtype=np.int8), np.empty(m), np.empty(m))
    breeding_kernels.breed(
        rng,
        genes,
        genes[:0] if archive is None else archive,
        order,
        parents,
        controls.to_array(),
        RECOMBINATIONS.index(variation.recombination),
        MUTATIONS.index(variation.mutation),
        int(variation.jitter),
        variation.rotation,
        *bred,
    )
    return bred


def remutate(
    rng: np.random.Generator,
    genes: np.ndarray,
    controls: GAControls,
    attempt: int,
    *,
    variation: Variation,
) -> np.ndarray:
    """Return mutants (m, d) of genomes that repeat a known one, at least one gene of each moved.

    Each attempt makes longer steps of more genes, because around a converged population all neighbors
    may be known.

    Parameters
    ----------
    rng : numpy.random.Generator
    genes : float64 (m, d)
    controls : GAControls
    attempt : int
        From 0 to ``MAX_TRIES - 1``.
    variation : Variation
    """
    mutants = np.array(genes, dtype=np.float64, order="C")
    breeding_kernels.mutate(
        rng,
        mutants,
        max(controls.mutation_rate, attempt / MAX_TRIES),
        min(0.5, controls.mutation_step * 4.0**attempt),
        controls.mutation_tail,
        MUTATIONS.index(variation.mutation),
    )
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

import numpy as np
import pytest
from deap import base, creator, tools
from hypothesis import given, settings
from hypothesis import strategies as st

from ga.archive import HallOfFame, genome_keys
from ga.space import GenomeSpace
from tests.reference import ga_operators as reference

SPACE = GenomeSpace(("a", "b"), [0, 0], [3, 3], ("integer", "integer"), name="grid")

if not hasattr(creator, "GaArchiveMax"):
    creator.create("GaArchiveMax", base.Fitness, weights=(1.0,))
    creator.create("GaArchiveIndividual", list, fitness=creator.GaArchiveMax)

batches = st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), max_size=6)


def grid_fitness(decoded):
    return decoded[:, 0] * 4 + decoded[:, 1]  # different for every cell of the grid


def fill(hall, rows_of_batches, fitness_of=grid_fitness):
    for generation, rows in enumerate(rows_of_batches):
        genes = np.array(rows)
        decoded = SPACE.decode(genes)
        hall.update(genes, fitness_of(decoded), genome_keys(decoded), generation)
    return hall


@given(batches, st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_the_hall_keeps_what_deaps_keeps(rows_of_batches, size):
    ours = fill(HallOfFame(SPACE, size), rows_of_batches)
    theirs = tools.HallOfFame(size)
    for rows in rows_of_batches:
        people = [creator.GaArchiveIndividual(row) for row in SPACE.decode(np.array(rows)).tolist()]
        for one in people:
            one.fitness.values = (one[0] * 4 + one[1],)
        theirs.update(people)
    decoded = [SPACE.decode(genome.genes[None])[0].tolist() for genome in ours.genomes()]
    assert decoded == [list(one) for one in theirs]


@given(batches, st.integers(1, 8), st.integers(2, 5))
@settings(max_examples=100, deadline=None)
def test_the_hall_equals_the_naive_twin_with_ties_and_invalid_genomes(rows_of_batches, size, levels):
    def coarse(decoded):
        value = np.floor(grid_fitness(decoded) % levels)
        return np.where(value == 0, -np.inf, value)

    hall = fill(HallOfFame(SPACE, size), rows_of_batches, coarse)
    stream = []
    for rows in rows_of_batches:
        decoded = SPACE.decode(np.array(rows))
        stream += zip(genome_keys(decoded), coarse(decoded).tolist(), strict=True)
    kept = [(genome_keys(SPACE.decode(g.genes[None]))[0], g.fitness) for g in hall.genomes()]
    assert kept == reference.hall_of_fame(stream, size)


def test_genomes_remember_their_origin():
    hall = fill(HallOfFame(SPACE, 2, run="run-1"), [[(0.1, 0.1)], [(0.9, 0.9)]])
    assert [g.origin for g in hall.genomes()] == [("run-1", 1), ("run-1", 0)]
    assert [g.space for g in hall.genomes()] == ["grid", "grid"]


def test_the_hall_does_not_follow_later_changes_of_the_genes():
    genes = np.array([[0.9, 0.9]])
    hall = HallOfFame(SPACE, 2)
    hall.update(genes, np.array([1.0]), genome_keys(SPACE.decode(genes)), 0)
    genes[:] = 0.0
    assert hall.genomes()[0].genes.tolist() == [0.9, 0.9]


def test_keys_tell_genomes_apart_exactly():
    assert genome_keys(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])) == [
        np.array([1.0, 2.0]).tobytes(),
        np.array([1.0, 2.0]).tobytes(),
        np.array([2.0, 1.0]).tobytes(),
    ]


def test_an_empty_hall_is_refused():
    with pytest.raises(ValueError, match="size of the hall of fame is 0; it must be at least 1"):
        HallOfFame(SPACE, 0)

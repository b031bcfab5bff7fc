import numpy as np
import pytest
from deap import base, creator, tools
from hypothesis import given, settings
from hypothesis import strategies as st

from ga.archive import HallOfFame, Seen
from ga.space import GenomeSpace
from tests.reference import ga_operators as reference

SPACE = GenomeSpace(("a", "b"), [0, 0], [3, 3], ("integer", "integer"), name="grid")
SPACE_OF_NUMBERS = GenomeSpace(("n",), [0], [1], ("real",))

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
        hall.update(genes, fitness_of(decoded), SPACE.keys(genes), generation)
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
        stream += zip(SPACE.keys(np.array(rows)), coarse(decoded).tolist(), strict=True)
    kept = [(SPACE.keys(g.genes[None])[0], g.fitness) for g in hall.genomes()]
    assert kept == reference.hall_of_fame(stream, size)


def test_genomes_remember_their_origin():
    hall = fill(HallOfFame(SPACE, 2, run="run-1"), [[(0.1, 0.1)], [(0.9, 0.9)]])
    assert [g.origin for g in hall.genomes()] == [("run-1", 1), ("run-1", 0)]
    assert [g.space for g in hall.genomes()] == ["grid", "grid"]


def test_the_hall_does_not_follow_later_changes_of_the_genes():
    genes = np.array([[0.9, 0.9]])
    hall = HallOfFame(SPACE, 2)
    hall.update(genes, np.array([1.0]), SPACE.keys(genes), 0)
    genes[:] = 0.0
    assert hall.genomes()[0].genes.tolist() == [0.9, 0.9]


def test_an_empty_hall_is_refused():
    with pytest.raises(ValueError, match="size of the hall of fame is 0; it must be at least 1"):
        HallOfFame(SPACE, 0)


@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.integers(0, 60), max_size=60))
@settings(max_examples=100, deadline=None)
def test_new_genomes_are_those_a_set_does_not_hold(first, second):
    seen, known = Seen(), set()
    for numbers in (first, second):
        digests = SPACE_OF_NUMBERS.digests(np.array(numbers).reshape(-1, 1) / 100)
        expected = []
        for number in numbers:
            expected.append(number not in known)
            known.add(number)
        assert seen.enter(digests).tolist() == expected
        assert len(seen) == len(known)


@pytest.mark.parametrize("step", [1, 77, 5_000])
def test_a_table_that_grew_still_knows_everybody(step):
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 2**64, (20_000, 2), dtype=np.uint64)
    digests[:, 0] &= np.uint64(0xFFFFFFFF0000FFFF)  # crowded: many share their place in the table
    seen = Seen()
    for start in range(0, len(digests), step) if step > 1 else range(3_000):
        assert seen.enter(digests[start : start + step]).all()
    n = len(seen)
    assert n == (20_000 if step > 1 else 3_000)
    assert not seen.enter(digests[:n]).any()
    np.testing.assert_array_equal(seen.state(), digests[:n])
    again = Seen()
    again.restore(seen.state())
    np.testing.assert_array_equal(again.state(), digests[:n])
    assert not again.enter(digests[:n]).any()
    assert again.enter(digests[:1] + np.uint64(1)).all()


def test_a_restored_hall_goes_on_like_the_one_that_was_saved():
    batches = [[(0.1, 0.1), (0.4, 0.9)], [(0.9, 0.9), (0.2, 0.6)], [(0.5, 0.5), (0.99, 0.1)]]
    whole = fill(HallOfFame(SPACE, 3, run="r"), batches)
    saved = fill(HallOfFame(SPACE, 3, run="r"), batches[:2])
    state = saved.state()
    restored = HallOfFame(SPACE, 3, run="r")
    restored.restore(state)
    genes = np.array(batches[2])
    restored.update(genes, grid_fitness(SPACE.decode(genes)), SPACE.digests(genes), 2)
    for ours, theirs in zip(restored.genomes(), whole.genomes(), strict=True):
        assert ours.genes.tobytes() == theirs.genes.tobytes()
        assert (ours.fitness, ours.origin) == (theirs.fitness, theirs.origin)
    assert restored.state()["keys"].tobytes() == whole.state()["keys"].tobytes()
    assert len(saved) == len(state["losses"])  # the state does not follow
    empty = HallOfFame(SPACE, 3)
    empty.restore(HallOfFame(SPACE, 3).state())
    assert len(empty) == 0
    with pytest.raises(ValueError, match=r"saved hall of fame has genes of shape \(3, 2\)"):
        HallOfFame(SPACE, 2).restore(whole.state())

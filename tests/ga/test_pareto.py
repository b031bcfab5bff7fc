import math

import numpy as np
import pytest
from deap import base, tools
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ga import pareto, pareto_kernels
from tests.reference import pareto as naive

# Few levels make ties and duplicates; -0.0 beside 0.0 and infinities are values like others.
LEVELS = st.sampled_from([-math.inf, -2.0, -1.0, -0.0, 0.0, 1.0, 2.0, math.inf])
FLOATS = st.floats(-1e6, 1e6)


def matrices(elements, most=30):
    shapes = st.tuples(st.integers(1, most), st.integers(1, 4))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=elements))


class Individual(list):
    pass


def individuals(objectives):
    kind = type("Maximised", (base.Fitness,), {"weights": (1.0,) * objectives.shape[1]})
    population = []
    for row, values in enumerate(objectives.tolist()):
        individual = Individual([row])
        individual.fitness = kind(tuple(values))
        population.append(individual)
    return population


def deap_ranks(objectives, sort):
    population, ranks = individuals(objectives), np.full(len(objectives), -1)
    for rank, front in enumerate(sort(population, len(population))):
        for individual in front:
            ranks[individual[0]] = rank
    return ranks


@given(matrices(LEVELS) | matrices(FLOATS))
@settings(max_examples=200, deadline=None)
def test_fronts_are_peeled_off_as_the_definition_says(objectives):
    assert pareto.front_ranks(objectives).tolist() == naive.ranks(objectives.tolist())


@pytest.mark.parametrize("sort", [tools.sortNondominated, tools.sortLogNondominated])
@pytest.mark.parametrize("levels", [2, 6, None])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_ranks_are_those_of_deap_with_ties_and_duplicates(sort, levels, k):
    rng = np.random.default_rng(k)
    objectives = rng.random((150, k)) if levels is None else rng.integers(0, levels, (150, k)).astype(float)
    objectives[::7] = objectives[0]
    assert np.array_equal(pareto.front_ranks(objectives), deap_ranks(objectives, sort))


def test_a_sort_that_lets_equals_dominate_each_other_is_noticed():
    objectives = np.random.default_rng(1).integers(0, 3, (60, 3)).astype(float)
    broken = np.zeros(60, dtype=int)
    for i in np.lexsort(-objectives.T[::-1]):
        broken[i] = 1 + max(
            (broken[j] for j in range(60) if j != i and (objectives[j] >= objectives[i]).all() and broken[j]),
            default=0,
        )
    assert not np.array_equal(broken - 1, deap_ranks(objectives, tools.sortNondominated))


@given(matrices(st.sampled_from([0.0, 1.0, 2.0, 5.0])) | matrices(FLOATS))
@settings(max_examples=100, deadline=None)
def test_crowding_distances_are_those_of_deap_bit_for_bit(objectives):
    ranks = pareto.front_ranks(objectives)
    distance = pareto.crowding_distance(objectives, ranks)
    population = individuals(objectives)
    for front in range(ranks.max() + 1):
        members = [population[i] for i in np.flatnonzero(ranks == front)]
        tools.emo.assignCrowdingDist(members)
        for member in members:
            assert distance[member[0]] == member.fitness.crowding_dist


def test_the_order_of_rows_is_no_part_of_the_ranks():
    rng = np.random.default_rng(3)
    objectives = rng.integers(0, 5, (80, 3)).astype(float)
    shuffled = rng.permutation(80)
    assert np.array_equal(pareto.front_ranks(objectives)[shuffled], pareto.front_ranks(objectives[shuffled]))


def test_rows_that_break_constraints_come_after_all_others_by_how_much():
    objectives = np.array([[0.0, 0.0], [9.0, 9.0], [1.0, 1.0], [9.0, 9.0], [5.0, 5.0]])
    violation = np.array([0.0, 0.5, 0.0, np.inf, 0.5])
    assert pareto.front_ranks(objectives, violation).tolist() == [1, 2, 0, 3, 2]
    assert pareto.front_ranks(objectives, np.full(5, 0.5)).tolist() == [0] * 5


@pytest.mark.parametrize(
    ("objectives", "violation", "message"),
    [
        ([[0.0, 1.0], [2.0, math.nan]], None, "objective 1 of row 1 is NaN"),
        ([1.0, 2.0], None, r"shape \(2,\)"),
        (np.empty((3, 0)), None, "shape"),
        ([[1.0], [2.0]], [0.0], "violation must be"),
        ([[1.0], [2.0]], [0.0, -1.0], "at least 0"),
        ([[1.0], [2.0]], [0.0, math.nan], "at least 0"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_one_sentence(objectives, violation, message):
    with pytest.raises(ValueError, match=message) as refused:
        pareto.front_ranks(objectives, violation)
    assert "\n" not in str(refused.value)


def test_distances_and_volumes_of_infinite_objectives_are_refused():
    with pytest.raises(ValueError, match="infinite"):
        pareto.crowding_distance([[np.inf, 0.0]], [0])
    with pytest.raises(ValueError, match="not finite"):
        pareto.hypervolume([[np.inf, 0.0]], [0.0, 0.0])
    with pytest.raises(ValueError, match="exact for"):
        pareto.hypervolume(np.zeros((2, 4)), np.zeros(4))


@given(st.integers(2, 3).flatmap(lambda k: arrays(np.float64, (7, k), elements=st.floats(-2, 2))))
@settings(max_examples=100, deadline=None)
def test_the_volume_is_that_of_the_union_of_boxes(points):
    reference = np.full(points.shape[1], -1.0)
    expected = naive.hypervolume(points.tolist(), reference.tolist())
    assert pareto.hypervolume(points, reference) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [2, 3])
def test_the_volume_is_that_of_the_library(k):
    moocore = pytest.importorskip("moocore")
    points = np.random.default_rng(k).random((300, k))
    expected = moocore.hypervolume(-points, ref=np.full(k, -0.1))
    assert pareto.hypervolume(points, np.full(k, 0.1)) == pytest.approx(expected, rel=1e-12)
    on_a_sphere = points / np.linalg.norm(points, axis=1, keepdims=True)
    expected = moocore.hypervolume(-on_a_sphere, ref=np.zeros(k))
    assert pareto.hypervolume(on_a_sphere, np.zeros(k)) == pytest.approx(expected, rel=1e-12)


def test_no_points_have_no_volume():
    assert pareto.hypervolume(np.empty((0, 3)), np.zeros(3)) == 0.0
    assert pareto.hypervolume([[0.0, 1.0]], [0.0, 0.0]) == 0.0


@pytest.mark.parametrize(("k", "divisions"), [(2, 7), (3, 12), (4, 3)])
def test_reference_points_are_those_of_deap(k, divisions):
    ours = sorted(map(tuple, pareto.das_dennis(k, divisions).tolist()))
    theirs = sorted(map(tuple, tools.uniform_reference_points(k, divisions).tolist()))
    assert np.allclose(ours, theirs, atol=1e-15)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_as_many_divisions_as_individuals_allow(k):
    for most in (k, 20, 91, 92, 200):
        divisions = pareto.divisions_for(k, most)
        assert len(pareto.das_dennis(k, divisions)) <= most or divisions == 1
        assert len(pareto.das_dennis(k, divisions + 1)) > most


def test_rows_are_associated_as_deap_associates_them():
    from deap.tools.emo import associate_to_niche

    rng = np.random.default_rng(5)
    losses, directions = rng.random((60, 3)), pareto.das_dennis(3, 6)
    niche, distance = np.empty(60, dtype=np.int64), np.empty(60)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    pareto_kernels.associate(losses, units, niche, distance)
    expected, expected_distance = associate_to_niche(losses, directions, np.zeros(3), np.ones(3))
    assert np.allclose(distance, expected_distance, atol=1e-12)
    agree = niche == expected
    assert agree.mean() > 0.95  # equally close directions may differ by rounding
    assert np.allclose(distance[~agree], expected_distance[~agree], atol=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_niches_are_filled_as_the_algorithm_says(seed):
    rng = np.random.default_rng(seed)
    n, r = int(rng.integers(1, 25)), int(rng.integers(1, 8))
    niche, distance = rng.integers(0, r, n), rng.integers(0, 4, n) / 4.0
    counts, draws = rng.integers(0, 3, r), rng.random((int(rng.integers(1, n + 1)), 2))
    chosen = np.empty(len(draws), dtype=np.int64)
    pareto_kernels.fill_niches(niche, distance, counts, draws, chosen)
    assert chosen.tolist() == naive.fill_niches(niche.tolist(), distance, counts, draws)


def spread_front(n, rng):
    losses = rng.random((n, 3))
    return -losses / np.linalg.norm(losses, axis=1, keepdims=True)


def test_reference_niches_keep_whole_fronts_and_spread_the_last_one():
    rng = np.random.default_rng(7)
    front = spread_front(200, rng)
    objectives = np.concatenate([front[:20], front[20:] * 1.3])
    ranks = np.array([0] * 20 + [1] * 180)
    kept = pareto.ReferenceNiches(pareto.das_dennis(3, 6)).select(rng, objectives, ranks, 60)
    assert len(set(kept.tolist())) == 60
    assert set(range(20)) <= set(kept.tolist())
    first = np.arange(60)
    reach = lambda rows: np.min(  # noqa: E731 - how far each direction is from the nearest row
        np.linalg.norm(spread_front(300, np.random.default_rng(8))[:, None] - objectives[rows], axis=2),
        axis=1,
    ).mean()
    assert reach(kept) < reach(first)


def test_axes_are_remembered_over_generations():
    rng = np.random.default_rng(9)
    one = pareto.ReferenceNiches(pareto.das_dennis(3, 6))
    one.select(rng, spread_front(50, rng), np.zeros(50, dtype=int), 20)
    other = pareto.ReferenceNiches(pareto.das_dennis(3, 6))
    other.restore(one.state())
    later, ranks = spread_front(50, rng) * 1.5, np.zeros(50, dtype=int)
    kept = [it.select(np.random.default_rng(1), later, ranks, 20).tolist() for it in (one, other)]
    assert kept[0] == kept[1]
    fresh = pareto.ReferenceNiches(pareto.das_dennis(3, 6))
    assert fresh.select(np.random.default_rng(1), later, ranks, 20).tolist() != kept[0]


def test_selection_by_crowding_is_that_of_deap():
    objectives = np.random.default_rng(11).random((60, 3))
    population = individuals(objectives)
    chosen = {individual[0] for individual in tools.selNSGA2(population, 25)}
    rows, distance = pareto.by_crowding(objectives, pareto.front_ranks(objectives), 25)
    assert set(rows.tolist()) == chosen
    assert distance.tolist() == [population[i].fitness.crowding_dist for i in rows]

"""The array operators beside DEAP's own, which are their twins."""

import random

import numpy as np
import pytest
from deap import base, creator, tools
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ga import operators
from tests.reference import ga_operators as reference

if not hasattr(creator, "GaTestMax"):  # DEAP keeps its classes in a module
    creator.create("GaTestMax", base.Fitness, weights=(1.0,))
    creator.create("GaTestIndividual", list, fitness=creator.GaTestMax)

DRAWS = 20_000
REJECT = 1e-3  # seeded, so a test either always passes or never does


def individual(genes, fitness=None):
    one = creator.GaTestIndividual(genes)
    if fitness is not None:
        one.fitness.values = (fitness,)
    return one


def same_distribution(a, b):
    """Return whether two samples may come from one distribution, by Kolmogorov and Smirnov."""
    return stats.ks_2samp(a, b).pvalue > REJECT


def deap_winners(rng, fitness, tournament_size, n):
    people = [individual([i], value) for i, value in enumerate(fitness)]
    with operators.python_random(rng):
        return np.array([one[0] for one in tools.selTournament(people, n, tournament_size)])


def winner_counts(winners, p):
    return np.bincount(winners, minlength=p)


def counts_agree(a, b):
    used = (a + b) > 0
    return stats.chi2_contingency(np.array([a[used], b[used]])).pvalue > REJECT


@pytest.mark.parametrize("tournament_size", [1, 2, 3, 8])
def test_whole_tournaments_choose_like_deap(tournament_size):
    rng = np.random.default_rng(tournament_size)
    fitness = rng.permutation(15).astype(float)
    ours = operators.select(rng, operators.order(rng, fitness), DRAWS, tournament_size)
    theirs = deap_winners(rng, fitness, tournament_size, DRAWS)
    assert counts_agree(winner_counts(ours, 15), winner_counts(theirs, 15))
    other = operators.select(
        rng, operators.order(rng, fitness), DRAWS, tournament_size - 0.5 * (tournament_size > 1)
    )
    if tournament_size in (2, 3):  # the check would notice half a contestant less
        assert not counts_agree(winner_counts(other, 15), winner_counts(theirs, 15))


def test_a_real_tournament_size_is_a_mixture_of_two_whole_ones():
    rng = np.random.default_rng(5)
    fitness = rng.permutation(15).astype(float)
    ours = operators.select(rng, operators.order(rng, fitness), DRAWS, 2.3)
    theirs = np.concatenate([deap_winners(rng, fitness, 2, 14_000), deap_winners(rng, fitness, 3, 6_000)])
    assert counts_agree(winner_counts(ours, 15), winner_counts(theirs, 15))


def test_equally_fit_individuals_are_chosen_equally_often():
    rng = np.random.default_rng(6)
    fitness = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    ours = np.concatenate(
        [operators.select(rng, operators.order(rng, fitness), 20, 2.0) for _ in range(DRAWS // 20)]
    )
    theirs = deap_winners(rng, fitness, 2, DRAWS)
    # draws that share an order are not independent, so the shares are compared and not a p-value
    np.testing.assert_allclose(winner_counts(ours, 5) / DRAWS, winner_counts(theirs, 5) / DRAWS, atol=0.02)


def test_the_order_is_from_best_to_worst_with_the_invalid_last():
    rng = np.random.default_rng(7)
    fitness = np.array([0.5, -np.inf, 2.0, 0.5, -np.inf, 1.0])
    orders = {tuple(operators.order(rng, fitness).tolist()) for _ in range(200)}
    assert orders == {(2, 5, a, b, c, d) for a, b in ((0, 3), (3, 0)) for c, d in ((1, 4), (4, 1))}


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.7])
def test_blend_crossover_makes_children_like_deap(spread):
    rng = np.random.default_rng(11)
    mother, father = [0.4, 0.55], [0.5, 0.45]
    ours = operators.mate(rng, np.tile(mother, (DRAWS, 1)), np.tile(father, (DRAWS, 1)), spread)
    theirs = np.empty((DRAWS, 2))
    with operators.python_random(rng):
        for i in range(DRAWS):
            theirs[i], _ = tools.cxBlend(list(mother), list(father), spread)
    other = operators.mate(rng, np.tile(mother, (DRAWS, 1)), np.tile(father, (DRAWS, 1)), spread + 0.05)
    for j in range(2):
        assert same_distribution(ours[:, j], theirs[:, j])
        assert not same_distribution(other[:, j], theirs[:, j])


def test_gaussian_mutation_moves_genes_like_deap():
    rng = np.random.default_rng(12)
    start = np.full((DRAWS // 4, 4), 0.5)
    ours = operators.mutate(rng, start, 0.3, 0.05, 0.0) - start
    theirs = np.empty_like(start)
    with operators.python_random(rng):
        for row in theirs:
            (mutant,) = tools.mutGaussian([0.5] * 4, 0.0, 0.05, 0.3)
            row[:] = np.array(mutant) - 0.5
    other = operators.mutate(rng, start, 0.3, 0.06, 0.0) - start
    moved, expected = ours != 0.0, theirs != 0.0
    assert abs(moved.mean() - expected.mean()) < 4 * np.sqrt(2 * 0.3 * 0.7 / DRAWS)
    assert same_distribution(ours[moved], theirs[expected])
    assert not same_distribution(other[other != 0.0], theirs[expected])


def test_heavy_tailed_steps_are_cauchy():
    rng = np.random.default_rng(13)
    start = np.full((DRAWS, 1), 0.5)
    step = (operators.mutate(rng, start, 1.0, 1e-4, 1.0) - start)[:, 0] / 1e-4
    inside = np.abs(step) < 1000  # beyond, the walls fold it
    truncated = stats.cauchy.cdf(1000) - stats.cauchy.cdf(-1000)
    assert (
        stats.kstest(
            step[inside], lambda x: (stats.cauchy.cdf(x) - stats.cauchy.cdf(-1000)) / truncated
        ).pvalue
        > REJECT
    )
    mixed = (operators.mutate(rng, start, 1.0, 1e-4, 0.25) - start)[:, 0] / 1e-4
    beyond = stats.cauchy.sf(5.0) * 2
    assert (np.abs(mixed) > 5.0).mean() == pytest.approx(0.25 * beyond, rel=0.1)


def test_mutation_can_be_made_certain_row_by_row():
    rng = np.random.default_rng(14)
    start = np.full((400, 6), 0.5)
    always = np.arange(400) % 2 == 0
    mutants = operators.mutate(rng, start, 0.0, 0.1, 0.0, always)
    changed = (mutants != start).sum(axis=1)
    np.testing.assert_array_equal(changed, always.astype(int))
    assert set(np.nonzero(mutants != start)[1]) == set(range(6))


def test_difference_vectors_follow_the_formula():
    rng = np.random.default_rng(15)
    parents, guides, differences = rng.random((3, 50, 8)) * 0.1 + 0.45
    differences -= 0.5
    everywhere = operators.differ(rng, parents, guides, differences, 1.0, 0.7)
    np.testing.assert_allclose(everywhere, parents + 0.7 * (guides - parents) + 0.7 * differences, atol=1e-15)
    nowhere = operators.differ(rng, parents, guides, differences, 0.0, 0.7)
    changed = nowhere != parents
    np.testing.assert_array_equal(changed.sum(axis=1), 1)  # at least one gene always crosses over
    np.testing.assert_array_equal(nowhere[changed], everywhere[changed])
    half = operators.differ(rng, parents, guides, differences, 0.5, 0.7) != parents
    assert half.mean() == pytest.approx(0.5 + 0.5 / 8, abs=0.06)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_strays_are_folded_back_as_if_by_mirrors(values):
    genes = np.array([values])
    folded = operators.mate(np.random.default_rng(0), genes, genes, 0.0)[0]  # a clone, then the walls
    np.testing.assert_allclose(folded, [reference.fold(v) for v in values], atol=1e-12)
    inside = (genes[0] >= 0.0) & (genes[0] <= 1.0)
    np.testing.assert_array_equal(folded[inside], genes[0][inside])  # untouched to the bit


def test_genes_do_not_pile_up_at_the_walls():
    rng = np.random.default_rng(16)
    start = np.full((DRAWS, 1), 0.02)
    step = rng.standard_normal(start.shape) * 0.3
    mutants = operators.mutate(rng, start, 1.0, 0.3, 0.0)
    clipped = np.clip(start + step, 0.0, 1.0)
    at_wall = [(np.abs(g - 0.0) < 1e-9).mean() for g in (mutants, clipped)]
    assert at_wall[0] == 0.0
    assert at_wall[1] > 0.4  # what clipping would have done
    assert ((mutants >= 0.0) & (mutants <= 1.0)).all()


def test_replacement_equals_the_naive_twin():
    rng = np.random.default_rng(17)
    for _ in range(50):
        fitness = rng.integers(0, 5, 12).astype(float)
        places = rng.permutation(12)[:9]
        offspring = np.where(rng.random(9) < 0.2, -np.inf, rng.integers(0, 5, 9))
        defended = rng.random(9) < 0.5
        accepted = operators.replace(fitness, places, offspring, defended)
        after = fitness.copy()
        after[places[accepted]] = offspring[accepted]
        assert after.tolist() == reference.survivors(fitness, places, offspring, defended)


def test_stochastic_rounding_has_the_right_mean():
    rng = np.random.default_rng(18)
    rounded = [operators.round_stochastically(rng, 2.3) for _ in range(DRAWS)]
    assert set(rounded) == {2, 3}
    assert np.mean(rounded) == pytest.approx(2.3, abs=0.015)
    assert {operators.round_stochastically(rng, 4.0) for _ in range(100)} == {4}


def test_operators_leave_their_inputs_and_the_global_generators_alone():
    rng = np.random.default_rng(19)
    genes, partners, differences = rng.random((3, 20, 5))
    fitness = rng.random(20)
    before = [a.copy() for a in (genes, partners, differences, fitness)]
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    operators.mate(rng, genes, partners, 0.7)
    operators.differ(rng, genes, partners, differences, 0.5, 1.2)
    operators.mutate(rng, genes, 0.5, 0.5, 0.5, np.ones(20, dtype=bool))
    operators.select(rng, operators.order(rng, fitness), 20, 3.5)
    for array, copy in zip((genes, partners, differences, fitness), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy  # noqa: NPY002


def test_deaps_draws_are_seeded_and_the_global_generator_is_restored():
    before = random.getstate()
    draws = []
    for _ in range(2):
        with operators.python_random(np.random.default_rng(3)):
            draws.append([random.random() for _ in range(3)])
    assert draws[0] == draws[1]
    assert random.getstate() == before
    with pytest.raises(KeyError), operators.python_random(np.random.default_rng(3)):
        raise KeyError
    assert random.getstate() == before


def test_the_toolbox_names_every_operator():
    box = operators.toolbox()
    assert isinstance(box, base.Toolbox)
    for name in ("order", "select", "mate", "differ", "mutate", "replace", "round"):
        assert callable(getattr(box, name))
    assert isinstance(operators.logbook(), tools.Logbook)

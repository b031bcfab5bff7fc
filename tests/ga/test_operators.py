"""The array operators beside DEAP's own, which are their twins."""

import random

import numpy as np
import pytest
from deap import base, creator, tools
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ga import breeding_kernels, operators
from ga.controls import GAControls
from ga.progress import DIFFERENTIAL, MUTATION
from ga.variation import MUTATIONS, RECOMBINATIONS, Variation
from tests.reference import ga_breeding
from tests.reference import ga_operators as reference

if not hasattr(creator, "GaTestMax"):  # DEAP keeps its classes in a module
    creator.create("GaTestMax", base.Fitness, weights=(1.0,))
    creator.create("GaTestIndividual", list, fitness=creator.GaTestMax)

DRAWS = 20_000
PLAIN = Variation(
    recombination="blend", mutation="gaussian_cauchy", jitter=False, archive=False, rotation=0.0
)
REJECT = 1e-3  # seeded, so a test either always passes or never does


def individual(genes, fitness=None):
    one = creator.GaTestIndividual(genes)
    if fitness is not None:
        one.fitness.values = (fitness,)
    return one


def same_distribution(a, b):
    """Return whether two samples may come from one distribution, by Kolmogorov and Smirnov."""
    return stats.ks_2samp(a, b).pvalue > REJECT


def bred(rng, genes, m=DRAWS, *, parents=None, order=None, archive=None, variation=None, **controls):
    """Breed with nothing turned on but what is named; unlike GAControls this allows rates of zero."""
    values = {
        "mutation_rate": 0.0,
        "mutation_step": 0.1,
        "mutation_tail": 0.0,
        "crossover_rate": 0.0,
        "crossover_spread": 0.0,
        "differential_rate": 0.0,
        "differential_weight": 0.5,
        "tournament_size": 1.0,
    }
    assert set(controls) <= set(values)
    variation = variation or PLAIN
    d = genes.shape[1]
    out = operators.Bred(np.empty((m, d)), np.empty(m, dtype=np.int8), np.empty(m), np.empty(m))
    breeding_kernels.breed(
        rng,
        genes,
        np.empty((0, d)) if archive is None else archive,
        np.arange(len(genes)) if order is None else order,
        np.zeros(m, dtype=np.int64) if parents is None else parents,
        np.array(list({**values, **controls}.values())),
        RECOMBINATIONS.index(variation.recombination),
        MUTATIONS.index(variation.mutation),
        int(variation.jitter),
        variation.rotation,
        *out,
    )
    return out


def children_of(rng, mother, father, spread, recombination="blend", n=DRAWS):
    """Return children (n, d) of two parents."""
    return bred(
        rng,
        np.array([mother, father]),
        n,
        order=np.array([1, 1]),  # the father wins every tournament
        variation=PLAIN.model_copy(update={"recombination": recombination}),
        crossover_rate=1.0,
        crossover_spread=spread,
    ).children


def mutants_of(rng, start, rate, step, tail=0.0, mutation="gaussian_cauchy"):
    """Return mutants of genomes (n, d), in which no mutation is certain."""
    n = len(start)
    return bred(
        rng,
        np.vstack([start, start[:1]]),
        n,
        parents=np.arange(n),
        order=np.full(n + 1, n),  # a partner that is nobody's parent
        variation=PLAIN.model_copy(update={"recombination": "uniform", "mutation": mutation}),
        crossover_rate=1.0,  # with a spread of 0 the child is its parent
        mutation_rate=rate,
        mutation_step=step,
        mutation_tail=tail,
    ).children


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


MOTHER, FATHER = [0.4, 0.55, 0.02], [0.5, 0.45, 0.3]


def deap_children(rng, mate, n=DRAWS):
    """Return first children (n, d) of the two parents above by an operator of DEAP."""
    children = np.empty((n, 3))
    with operators.python_random(rng):
        for row in children:
            row[:], _ = mate(list(MOTHER), list(FATHER))
    return children


def same_columns(a, b):
    return [same_distribution(a[:, j], b[:, j]) for j in range(a.shape[1])]


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.7])
def test_blend_crossover_makes_children_like_deap(spread):
    rng = np.random.default_rng(11)
    ours = children_of(rng, MOTHER, FATHER, spread)
    theirs = deap_children(rng, lambda a, b: tools.cxBlend(a, b, spread))
    theirs = np.abs(theirs)  # DEAP knows no walls; ours is a mirror, and only the one at 0 is reached
    assert all(same_columns(ours, theirs))
    assert not any(same_columns(children_of(rng, MOTHER, FATHER, spread + 0.05), theirs)[:2])


def binary_eta(spread):
    """Return the index at which simulated binary children lie as far beyond their parents as blended ones."""
    return (1.0 + 2.0 * spread) / (4.0 * spread**2)


@pytest.mark.parametrize("spread", [0.2, 0.5, 0.7])
def test_simulated_binary_crossover_makes_children_like_deap(spread):
    rng = np.random.default_rng(21)
    ours = children_of(rng, MOTHER, FATHER, spread, "sbx")
    theirs = deap_children(
        rng, lambda a, b: tools.cxSimulatedBinaryBounded(a, b, binary_eta(spread), 0.0, 1.0)
    )
    assert all(same_columns(ours, theirs))
    other = children_of(rng, MOTHER, FATHER, 0.7 * spread, "sbx")
    assert not any(same_columns(other, theirs))


def beyond(children):
    """Return how far children lie beyond their parents on average, in units of the parents' distance."""
    low, high = np.minimum(MOTHER, FATHER)[:2], np.maximum(MOTHER, FATHER)[:2]
    children = children[:, :2]
    return (np.maximum(low - children, 0.0) + np.maximum(children - high, 0.0)) / (high - low)


@pytest.mark.parametrize("spread", [0.2, 0.4, 0.6])
def test_the_spread_means_the_same_for_blend_and_simulated_binary(spread):
    rng = np.random.default_rng(22)
    blend = beyond(children_of(rng, MOTHER, FATHER, spread)).mean()
    binary = beyond(children_of(rng, MOTHER, FATHER, spread, "sbx"))
    binary = 2.0 * binary.mean()  # half of its genes stay the mother's
    assert blend == pytest.approx(spread**2 / (1 + 2 * spread), rel=0.03)
    assert binary == pytest.approx(blend, rel=0.2)  # equal far from the walls; some of it is cut off here
    wrong = beyond(children_of(rng, MOTHER, FATHER, 0.7 * spread, "sbx"))
    assert 2.0 * wrong.mean() != pytest.approx(blend, rel=0.2)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_uniform_crossover_makes_children_like_deap(spread):
    rng = np.random.default_rng(23)
    ours = children_of(rng, MOTHER, FATHER, spread, "uniform") == FATHER
    theirs = deap_children(rng, lambda a, b: tools.cxUniform(a, b, spread)) == FATHER
    other = children_of(rng, MOTHER, FATHER, spread + 0.05, "uniform") == FATHER
    patterns = [table @ [1, 2, 4] for table in (ours, theirs, other)]
    counts = [np.bincount(pattern, minlength=8) for pattern in patterns]
    assert counts_agree(counts[0], counts[1])
    assert not counts_agree(counts[2], counts[1])


def test_mixed_recombination_is_each_of_the_three_equally_often():
    rng = np.random.default_rng(24)
    mixed = children_of(rng, MOTHER, FATHER, 0.4, "mixed")
    kinds = ("blend", "sbx", "uniform")
    parts = [children_of(rng, MOTHER, FATHER, 0.4, kind, DRAWS // 3) for kind in kinds]
    assert all(same_columns(mixed, np.vstack(parts)))
    assert not any(same_columns(mixed, np.vstack(parts[:2])))


def test_gaussian_mutation_moves_genes_like_deap():
    rng = np.random.default_rng(12)
    start = np.full((DRAWS // 4, 4), 0.5)
    ours = mutants_of(rng, start, 0.3, 0.05) - start
    theirs = np.empty_like(start)
    with operators.python_random(rng):
        for row in theirs:
            (mutant,) = tools.mutGaussian([0.5] * 4, 0.0, 0.05, 0.3)
            row[:] = np.array(mutant) - 0.5
    other = mutants_of(rng, start, 0.3, 0.06) - start
    moved, expected = ours != 0.0, theirs != 0.0
    assert abs(moved.mean() - expected.mean()) < 4 * np.sqrt(2 * 0.3 * 0.7 / DRAWS)
    assert same_distribution(ours[moved], theirs[expected])
    assert not same_distribution(other[other != 0.0], theirs[expected])


@pytest.mark.parametrize("gene", [0.5, 0.03])
def test_polynomial_mutation_moves_genes_like_deap(gene):
    rng, step = np.random.default_rng(25), 0.05
    eta = 0.5 * (np.sqrt(1 + 8 / step**2) - 5)
    start = np.full((DRAWS, 1), gene)
    ours = mutants_of(rng, start, 1.0, step, 0.0, "polynomial")[:, 0]
    with operators.python_random(rng):
        theirs = np.array(
            [tools.mutPolynomialBounded([gene], eta, 0.0, 1.0, 1.0)[0][0] for _ in range(DRAWS)]
        )
    assert same_distribution(ours, theirs)
    assert not same_distribution(mutants_of(rng, start, 1.0, 0.9 * step, 0.0, "polynomial")[:, 0], theirs)


@pytest.mark.parametrize("step", [0.002, 0.02, 0.08])
@pytest.mark.parametrize("mutation", ["gaussian_cauchy", "polynomial"])
def test_the_step_is_the_standard_deviation_of_a_mutation(mutation, step):
    start = np.full((DRAWS, 1), 0.5)
    moved = mutants_of(np.random.default_rng(26), start, 1.0, step, 0.0, mutation) - start
    assert moved.std() == pytest.approx(step, rel=0.03)
    assert abs(moved.mean()) < 4 * step / np.sqrt(DRAWS)


def test_heavy_tailed_steps_are_cauchy():
    rng = np.random.default_rng(13)
    start = np.full((DRAWS, 1), 0.5)
    step = (mutants_of(rng, start, 1.0, 1e-4, 1.0) - start)[:, 0] / 1e-4
    inside = np.abs(step) < 1000  # beyond, the walls fold it
    truncated = stats.cauchy.cdf(1000) - stats.cauchy.cdf(-1000)
    assert (
        stats.kstest(
            step[inside], lambda x: (stats.cauchy.cdf(x) - stats.cauchy.cdf(-1000)) / truncated
        ).pvalue
        > REJECT
    )
    beyond_5 = stats.cauchy.sf(5.0) * 2
    for mutation in ("gaussian_cauchy", "polynomial"):
        mixed = (mutants_of(rng, start, 1.0, 1e-4, 0.25, mutation) - start)[:, 0] / 1e-4
        assert (np.abs(mixed) > 5.0).mean() == pytest.approx(0.25 * beyond_5, rel=0.15), mutation


@pytest.mark.parametrize("rate", [0.004, 0.1, 0.6, 1.0])
def test_each_gene_mutates_with_the_rate_and_on_its_own(rate):
    d = 4
    start = np.full((DRAWS, d), 0.5)
    moved = mutants_of(np.random.default_rng(27), start, rate, 0.01) != start
    error = 4 * np.sqrt(rate * (1 - rate) / DRAWS) + 1e-12
    assert np.abs(moved.mean(axis=0) - rate).max() < error
    pairs = (moved[:, 0] & moved[:, 1]).mean(), (moved[:-1, -1] & moved[1:, 0]).mean()
    both = rate**2
    for share in pairs:  # neighbors in a row, and across the end of one
        assert abs(share - both) < 4 * np.sqrt(both * (1 - both) / DRAWS) + 1e-12


def test_a_child_of_mutation_alone_moves_at_least_one_gene():
    rng = np.random.default_rng(14)
    start = np.full((400, 6), 0.5)
    alone = bred(rng, start, 400, parents=np.arange(400))
    assert (alone.operator == MUTATION).all()
    changed = alone.children != start
    np.testing.assert_array_equal(changed.sum(axis=1), 1)
    assert set(np.nonzero(changed)[1]) == set(range(6))
    assert (mutants_of(rng, start, 0.0, 0.1) == start).all()  # with a partner nothing is certain
    itself = bred(
        rng, start, 400, parents=np.arange(400), order=np.zeros(400, dtype=np.int64), crossover_rate=1.0
    )
    assert itself.operator[0] == MUTATION  # its partner is itself
    assert (itself.children[0] != start[0]).sum() == 1
    assert (itself.children[1:] == start[1:]).all()
    again = operators.remutate(rng, start, GAControls(mutation_rate=0.004), 0, variation=PLAIN)
    assert ((again != start).sum(axis=1) >= 1).all()


def test_later_attempts_move_more_genes_further():
    rng = np.random.default_rng(28)
    start = np.full((2000, 6), 0.5)
    controls = GAControls(mutation_rate=0.01, mutation_step=1e-3, mutation_tail=0.0)
    moved = [operators.remutate(rng, start, controls, k, variation=PLAIN) - start for k in range(8)]
    shares = [(step != 0.0).mean() for step in moved]
    sizes = [np.abs(step[step != 0.0]).mean() for step in moved]
    assert shares == sorted(shares)
    assert sizes[:5] == sorted(sizes[:5])
    assert shares[0] == pytest.approx(1 / 6 + 0.01 * 5 / 6, abs=0.01)
    assert sizes[2] == pytest.approx(16 * sizes[0], rel=0.1)


def test_operators_are_chosen_with_the_rates():
    rng = np.random.default_rng(29)
    genes = rng.random((20, 3))
    made = bred(rng, genes, differential_rate=0.3, crossover_rate=0.6)
    shares = np.bincount(made.operator, minlength=4) / DRAWS
    partners = 0.7 * 0.6 * 19 / 20  # one in twenty meets itself: mutation alone
    np.testing.assert_allclose(shares, [0.7 - partners, partners, 0.3, 0.0], atol=0.015)
    by_vector = made.operator == DIFFERENTIAL
    assert np.isnan(made.weight[~by_vector]).all()
    assert (made.weight[by_vector] == 0.5).all()
    assert (made.rate[by_vector] == 0.6).all()


def test_difference_vectors_follow_the_formula():
    rng = np.random.default_rng(15)
    genes = rng.random((4, 8)) * 0.1 + 0.45
    options = {"order": np.array([3, 3, 3, 3]), "differential_rate": 1.0, "differential_weight": 0.7}
    possible = {
        (one, other): genes[0] + 0.7 * (genes[3] - genes[0] + (genes[one] - genes[other]))
        for one in range(4)
        for other in range(4)
        if one != other
    }
    everywhere = bred(rng, genes, 3000, crossover_rate=1.0, **options)
    distance = np.array([np.abs(everywhere.children - child).max(axis=1) for child in possible.values()])
    assert distance.min(axis=0).max() < 1e-15
    assert counts_agree(np.bincount(distance.argmin(axis=0), minlength=12), np.full(12, 250))
    changed = bred(rng, genes, 3000, crossover_rate=0.0, **options).children != genes[0]
    genes_changed = changed.sum(axis=1)
    assert set(genes_changed) == {0, 1}  # one gene always crosses over; a twelfth of the steps are zero
    assert genes_changed.mean() == pytest.approx(11 / 12, abs=0.02)
    half = bred(rng, genes, 3000, crossover_rate=0.5, **options).children != genes[0]
    assert half.mean() == pytest.approx((0.5 + 0.5 / 8) * 11 / 12, abs=0.02)


def test_difference_vectors_may_end_in_the_archive():
    rng = np.random.default_rng(30)
    genes = np.tile(rng.random(5), (6, 1))  # a converged population has no differences of its own
    archive = genes[:2] + np.array([[0.1], [-0.1]])
    options = {"differential_rate": 1.0, "crossover_rate": 1.0, "mutation_rate": 0.0}
    without = bred(rng, genes, 4000, **options)
    assert np.abs(without.children - genes[0]).max() < 1e-12
    with_it = bred(rng, genes, 4000, archive=archive, **options)
    moved = np.round((with_it.children - genes[0])[:, 0] / 0.05)
    assert set(moved) == {-1.0, 0.0, 1.0}
    assert (moved != 0.0).mean() == pytest.approx(
        2 / 7, abs=0.03
    )  # all but the first vector are equally likely


def test_jitter_draws_f_and_cr_around_the_controls():
    rng = np.random.default_rng(31)
    genes = rng.random((20, 3))
    options = {"differential_rate": 1.0, "crossover_rate": 0.5, "differential_weight": 0.4}
    made = bred(rng, genes, variation=PLAIN.model_copy(update={"jitter": True}), **options)
    assert made.weight.min() > 0.0
    assert made.weight.max() == 1.2
    assert same_distribution(made.rate, np.clip(rng.normal(0.5, 0.1, DRAWS), 0.0, 1.0))
    drawn = 0.4 + 0.1 * rng.standard_cauchy(3 * DRAWS)
    expected = np.minimum(drawn[drawn > 0.0], 1.2)
    assert same_distribution(made.weight, expected)
    assert not same_distribution(made.weight, np.clip(drawn, 0.0, 1.2))  # redrawn below 0, not cut
    still = bred(rng, genes, **options)
    assert (still.weight == 0.4).all()
    inert = bred(
        rng,
        genes,
        variation=PLAIN.model_copy(update={"jitter": True}),
        **{**options, "differential_weight": 0.0},
    )
    assert inert.weight.min() > 0.0


VARIATIONS = st.builds(
    Variation,
    recombination=st.sampled_from(RECOMBINATIONS),
    mutation=st.sampled_from(MUTATIONS),
    jitter=st.booleans(),
    rotation=st.sampled_from([0.0, 0.5, 1.0]),
)
CONTROLS = st.builds(
    GAControls,
    mutation_rate=st.sampled_from([0.004, 0.05, 0.5, 1.0]),
    mutation_step=st.sampled_from([1e-4, 0.05, 0.5]),
    mutation_tail=st.sampled_from([0.0, 0.5, 1.0]),
    crossover_rate=st.sampled_from([0.0, 0.5, 1.0]),
    crossover_spread=st.floats(0.0, 0.7),
    differential_rate=st.sampled_from([0.0, 0.5, 1.0]),
    differential_weight=st.floats(0.0, 1.2),
    tournament_size=st.floats(1.0, 8.0),
)


@given(VARIATIONS, CONTROLS, st.integers(2, 12), st.integers(1, 9), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_compiled_breeding_equals_the_naive_twin_bit_for_bit(variation, controls, p, d, a, seed):
    data = np.random.default_rng([seed, 1])
    genes, archive = data.random((p, d)), data.random((a, d))
    genes[data.random((p, d)) < 0.1] = 0.0
    genes[data.random((p, d)) < 0.1] = 1.0
    order, parents = data.permutation(p), data.integers(p, size=p)
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    ours = operators.breed(rngs[0], genes, order, parents, controls, variation=variation, archive=archive)
    twin = ga_breeding.breed(rngs[1], genes, order, parents, controls, variation, archive)
    for one, other in zip(ours, twin, strict=True):
        np.testing.assert_array_equal(one, other)
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state
    assert ((ours.children >= 0.0) & (ours.children <= 1.0)).all()
    ours = operators.remutate(rngs[0], genes, controls, 1, variation=variation)
    twin = ga_breeding.remutate(
        rngs[1],
        genes.tolist(),
        max(controls.mutation_rate, 1 / 8),
        min(0.5, 4 * controls.mutation_step),
        controls.mutation_tail,
        variation.mutation,
    )
    np.testing.assert_array_equal(ours, twin)
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state


def test_the_twin_would_notice_one_draw_out_of_order(monkeypatch):
    def hasty(rng, order, size):
        place, chance = rng.random(), rng.random()  # the two draws of a tournament, swapped
        contestants = int(size) + (chance < size - int(size))
        return order[int((1.0 - (1.0 - place) ** (1.0 / contestants)) * len(order))]

    monkeypatch.setattr(ga_breeding, "tournament", hasty)
    genes = np.random.default_rng(0).random((10, 3))
    rows, controls = np.arange(10), GAControls()
    ours = operators.breed(np.random.default_rng(1), genes, rows, rows, controls, variation=PLAIN)
    twin = ga_breeding.breed(np.random.default_rng(1), genes, rows, rows, controls, PLAIN)
    assert not np.array_equal(ours.children, twin[0])


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_strays_are_folded_back_as_if_by_mirrors(values):
    genes = np.array([values])
    folded = children_of(np.random.default_rng(0), values, values, 0.0, n=1)[0]  # a clone, then the walls
    np.testing.assert_allclose(folded, [reference.fold(v) for v in values], atol=1e-12)
    inside = (genes[0] >= 0.0) & (genes[0] <= 1.0)
    np.testing.assert_array_equal(folded[inside], genes[0][inside])  # untouched to the bit


def test_genes_do_not_pile_up_at_the_walls():
    rng = np.random.default_rng(16)
    start = np.full((DRAWS, 1), 0.02)
    step = rng.standard_normal(start.shape) * 0.3
    mutants = mutants_of(rng, start, 1.0, 0.3)
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
    genes, fitness = rng.random((20, 5)), rng.random(20)
    parents = rng.integers(20, size=20)
    before = [a.copy() for a in (genes, fitness, parents)]
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    variation = Variation(recombination="mixed", jitter=True)
    order = operators.order(rng, fitness)
    operators.select(rng, order, 20, 3.5)
    operators.breed(rng, genes, order, parents, GAControls(), variation=variation)
    operators.remutate(rng, genes, GAControls(), 3, variation=variation)
    for array, copy in zip((genes, fitness, parents), before, strict=True):
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
    for name in ("order", "select", "breed", "remutate", "replace", "round"):
        assert callable(getattr(box, name))
    assert isinstance(operators.logbook(), tools.Logbook)


def test_multiscale_steps_have_widths_of_all_sizes_and_stop_at_the_walls():
    rng = np.random.default_rng(5)
    middle = np.full((DRAWS, 1), 0.5)
    size = np.abs(mutants_of(rng, middle, 1.0, 0.01, 0.0, "multiscale") - middle)[:, 0]
    expected = 0.01 * 10.0 ** (-2.5 * rng.random(DRAWS)) * np.abs(rng.standard_normal(DRAWS))
    assert same_distribution(size, expected)
    assert not same_distribution(size, 0.01 * np.abs(rng.standard_normal(DRAWS)))  # of one width
    far = mutants_of(rng, middle, 1.0, 0.5, 1.0, "multiscale")
    assert (far == 0.0).mean() > 0.02
    assert (far == 1.0).mean() > 0.02
    folded = mutants_of(rng, middle, 1.0, 0.5, 1.0, "gaussian_cauchy")
    assert not np.isin(folded, (0.0, 1.0)).any()


@pytest.mark.parametrize("d", [1, 2, 9])
def test_principal_directions_are_orthogonal_and_the_first_lies_along_the_population(d):
    rng = np.random.default_rng(6)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    genes = 0.5 + (rng.standard_normal((60, d)) * np.array([0.1] + [1e-3] * (d - 1))) @ rotation
    along = []
    for _ in range(50):
        axes = np.empty((d, d))
        breeding_kernels.principal(rng, genes, axes)
        np.testing.assert_allclose(axes @ axes.T, np.eye(d), atol=1e-12)
        along.append(abs(axes[0] @ rotation[0]))
    assert np.median(along) > 0.9


def test_a_population_on_one_point_still_has_directions():
    axes = np.empty((4, 4))
    breeding_kernels.principal(np.random.default_rng(7), np.full((10, 4), 0.3), axes)
    np.testing.assert_allclose(axes @ axes.T, np.eye(4), atol=1e-12)


def test_rotated_children_stay_in_the_line_of_an_oblique_population_and_others_leave_it():
    rng = np.random.default_rng(8)
    genes = 0.5 + 0.1 * rng.standard_normal((80, 1)) * np.ones((1, 5)) / 5.0 + 1e-9 * rng.random((80, 5))
    options = {"differential_rate": 1.0, "crossover_rate": 0.5, "mutation_rate": 0.004, "mutation_step": 1e-4}

    def off_the_line(rotation):
        variation = Variation(jitter=False, rotation=rotation, mutation="gaussian_cauchy")
        children = bred(rng, genes, parents=np.arange(80), m=80, variation=variation, **options).children
        return np.ptp(children, axis=1)

    turned, plain = off_the_line(1.0), off_the_line(0.0)
    # At CR 0.5 half of the children cross over along the directions of the population, which is one line.
    assert (turned < 1e-3).mean() > 0.25
    assert (plain < 1e-3).mean() < 0.15

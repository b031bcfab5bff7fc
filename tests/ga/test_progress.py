import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ga import kernels
from ga.controls import GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.population import Population
from ga.progress import STATISTIC_NAMES, Chronicle, Outcome
from ga.space import GenomeSpace
from tests.reference import ga_statistics as reference

D, P = 4, 30
SPACE = GenomeSpace(tuple("abcd"), np.zeros(D), np.ones(D), ("real",) * D)


def rugged(genes):
    return np.sin(9.0 * genes).sum(axis=1) - 4.0 * ((genes - 0.4) ** 2).sum(axis=1)


def histories(transform, n_generations=20, seed=3):
    run = Hyperparameters(population_size=P, n_generations=n_generations, patience=6)
    evolution = Evolution(SPACE, run, np.random.default_rng(seed))
    controls = GAControls(mutation_rate=0.2, immigrant_fraction=0.1, restart_fraction=0.3)
    while not evolution.finished:
        evolution.tell(transform(rugged(evolution.ask(controls))))
    return evolution


def outcome_of(operator, improved, gain=None, weight=None, rate=None, duplicates=0, cached=0, invalid=0):
    m = len(operator)
    nothing = np.full(m, np.nan)
    return Outcome(
        operator=np.array(operator, dtype=np.int8),
        improved=np.array(improved, dtype=bool),
        gain=np.ones(m) if gain is None else np.array(gain),
        weight=nothing if weight is None else np.array(weight),
        rate=nothing if rate is None else np.array(rate),
        duplicates=duplicates,
        cached=cached,
        invalid=invalid,
        restarted=0,
    )


def statistics_of(genes, fitness):
    """Return the named statistics of one population, as the initial one of a search."""
    p, d = genes.shape
    population = Population(genes, fitness, np.zeros(p), np.ones(p))
    chronicle = Chronicle(Hyperparameters(), d)
    outcome = outcome_of(np.full(p, 3), np.zeros(p), invalid=int((~np.isfinite(fitness)).sum()))
    progress = chronicle.record(0, population, np.argsort(-fitness, kind="stable"), outcome, None)
    return progress, dict(zip(STATISTIC_NAMES, progress.statistics.tolist(), strict=True))


@pytest.mark.parametrize(("scale", "shift"), [(8.0, 0.0), (0.125, 0.0), (1.0, 64.0), (37.3, -1234.5)])
def test_statistics_do_not_move_with_the_scale_of_fitness(scale, shift):
    plain = histories(lambda f: f)
    moved = histories(lambda f: scale * f + shift)
    assert plain.progress.generation > 8
    np.testing.assert_allclose(moved.progress.history, plain.progress.history, atol=1e-8)
    np.testing.assert_array_equal(moved.champion.genes, plain.champion.genes)


def test_the_invariance_check_catches_a_statistic_with_a_scale():
    plain, moved = (histories(transform) for transform in (lambda f: f, lambda f: 8.0 * f))
    best = [[row["best"] for row in one.logbook] for one in (plain, moved)]
    assert not np.allclose(*best, atol=1e-8)


def test_statistics_move_with_the_search():
    history = histories(lambda f: f, n_generations=80).progress.history
    constant = {
        name for name, column in zip(STATISTIC_NAMES, history.T, strict=True) if np.ptp(column) == 0.0
    }
    # sizes and fixed controls are context; no genome repeats or fails in this continuous search
    assert constant <= {
        "log_population_size",
        "log_n_genes",
        "duplicate_share",
        "cached_share",
        "invalid_share",
    }


@given(st.integers(5, 40), st.integers(1, 6), st.integers(0, 1000), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_population_statistics_equal_the_naive_twin(p, d, seed, ties, invalid):
    rng = np.random.default_rng(seed)
    genes, fitness = rng.random((p, d)), rng.standard_normal(p)
    if ties:
        fitness = np.round(fitness)
    if invalid:
        fitness[: p // 5] = -np.inf
    finite = np.sort(fitness[np.isfinite(fitness)])
    q25, q75 = np.quantile(finite, [0.25, 0.75])
    if finite[0] == finite[-1] or q25 == q75:
        return  # the twin divides by zero; see the degenerate populations below
    progress, ours = statistics_of(genes, fitness)
    expected = reference.population_statistics(genes, fitness)
    assert progress.diversity == pytest.approx(expected.pop("diversity"), rel=1e-12)
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize(
    "fitness",
    [
        np.zeros(8),
        np.full(8, -np.inf),
        np.where(np.arange(8) == 3, 1.0, -np.inf),
        np.where(np.arange(8) < 2, [1.0, 2.0] * 4, -np.inf),
    ],
    ids=["all equal", "all invalid", "one valid", "two valid"],
)
@pytest.mark.parametrize(
    "genes", [np.full((8, 2), 0.5), np.random.default_rng(0).random((8, 2))], ids=["clones", "spread"]
)
def test_degenerate_populations_have_finite_statistics(genes, fitness):
    progress, ours = statistics_of(genes, fitness)
    assert np.isfinite(progress.statistics).all(), ours
    assert -1.0 <= ours["fitness_distance_correlation"] <= 1.0
    if not np.isfinite(fitness).all():
        assert progress.invalid > 0


def test_a_funnel_has_a_correlation_of_minus_one():
    genes = np.random.default_rng(1).random((50, 3))
    funnel = -np.linalg.norm(genes - genes[7], axis=1)
    assert statistics_of(genes, funnel)[1]["fitness_distance_correlation"] == pytest.approx(-1.0)
    deceptive = -funnel
    deceptive[7] = 10.0
    assert statistics_of(genes, deceptive)[1]["fitness_distance_correlation"] > 0.8


@given(st.lists(st.integers(0, 6), min_size=2, max_size=30), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_rank_correlation_equals_scipys(values, seed):
    x = np.array(values, dtype=float)
    y = np.round(np.random.default_rng(seed).random(x.size) * 5)
    ours = kernels.rank_correlation(x, np.argsort(x), y, np.argsort(y))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert ours == 0.0
    else:
        assert ours == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_improvements_are_parts_of_the_gain():
    chronicle = Chronicle(Hyperparameters(n_generations=30), 2)
    genes = np.random.default_rng(0).random((4, 2))
    outcome = outcome_of([0] * 4, [False] * 4)
    for generation, best in enumerate([0.0, 0.0, 3.0, 3.0, 4.0, 4.0, 4.0, 8.0]):
        population = Population(genes, [best, -1.0, -2.0, -3.0], np.zeros(4), np.ones(4))
        progress = chronicle.record(
            generation, population, np.arange(4), outcome, GAControls() if generation else None
        )
    row = progress.row()
    assert row["improvement_1"] == pytest.approx(4 / 8)
    assert row["improvement_5"] == pytest.approx(5 / 8)  # since generation 2
    assert row["improvement_15"] == 1.0
    assert progress.history[6, STATISTIC_NAMES.index("stagnation_share")] == pytest.approx(2 / 15)
    assert progress.history[7, STATISTIC_NAMES.index("best_improved")] == 1.0
    assert row["budget_used"] == pytest.approx(7 / 30)


def test_success_is_counted_per_operator():
    chronicle = Chronicle(Hyperparameters(), 2)
    population = Population(np.random.default_rng(0).random((6, 2)), np.arange(6.0), np.zeros(6), np.ones(6))
    operator = np.array([0, 0, 1, 1, 1, 2], dtype=np.int8)
    improved = np.array([True, False, True, True, True, False])
    outcome = outcome_of(operator, improved, duplicates=3, cached=2)
    progress = chronicle.record(0, population, np.arange(6)[::-1].copy(), outcome, None)
    row = progress.row()
    assert progress.trials == (2, 3, 1, 0)
    assert progress.successes == (1, 3, 0, 0)
    assert row["success_rate"] == pytest.approx(4 / 6)
    assert (row["mutation_success"], row["crossover_success"], row["differential_success"]) == (0.5, 1.0, 0.0)
    assert row["immigrant_success"] == pytest.approx(4 / 6)  # unused: that of all
    assert row["duplicate_share"] == 0.5
    assert row["cached_share"] == pytest.approx(1 / 3)


def successful(improved, gain, weight, rate, operator=(2, 2, 2, 0)):
    chronicle = Chronicle(Hyperparameters(), 2)
    population = Population(np.random.default_rng(0).random((6, 2)), np.arange(6.0), np.zeros(6), np.ones(6))
    outcome = outcome_of(operator, improved, gain, weight, rate)
    progress = chronicle.record(0, population, np.arange(6)[::-1].copy(), outcome, None)
    return progress.successful_weight, progress.successful_rate


def test_successful_weights_and_rates_are_lehmer_means_weighted_by_gain():
    weight, rate = [0.2, 0.6, 1.0, np.nan], [0.1, 0.9, 0.5, np.nan]
    means = successful([True, True, False, True], [1.0, 3.0, 0.0, 50.0], weight, rate)
    assert means[0] == pytest.approx((1 * 0.2**2 + 3 * 0.6**2) / (1 * 0.2 + 3 * 0.6))
    assert means[1] == pytest.approx((1 * 0.1**2 + 3 * 0.9**2) / (1 * 0.1 + 3 * 0.9))
    scaled = successful([True, True, False, True], [8.0, 24.0, 0.0, 400.0], weight, rate)
    assert scaled == means  # the scale of fitness does not matter
    first = successful([True, False, False, False], [np.inf, 0.0, 0.0, 0.0], weight, rate)
    assert first == pytest.approx((0.2, 0.1))  # a parent without a valid fitness
    both = successful([True, True, False, False], [np.inf, 2.0, 0.0, 0.0], weight, rate)
    assert both[0] == pytest.approx((0.2**2 + 0.6**2) / (0.2 + 0.6))  # counts like the largest finite gain
    assert successful([True] * 2, [1.0] * 2, [0.5, 0.5], [0.0, 0.0], (2, 2)) == (0.5, 0.0)
    assert np.isnan(successful([False] * 4, [0.0] * 4, weight, rate)).all()
    assert np.isnan(successful([False] * 3 + [True], [0.0] * 3 + [1.0], weight, rate)).all()


def test_offspring_are_compared_with_their_own_parents():
    run = Hyperparameters(population_size=P, n_generations=5, patience=0)
    controls = GAControls(crowding_rate=1.0, elite_fraction=1 / 512)
    evolution = Evolution(SPACE, run, np.random.default_rng(1))
    evolution.tell(rugged(evolution.ask()))
    before = evolution.population.fitness
    evolution.tell(rugged(evolution.ask(controls)))
    risen = (evolution.population.fitness > before).sum()  # every place is defended by the parent
    assert evolution.progress.row()["success_rate"] == pytest.approx(risen / (P - 1))
    assert risen > 0


def test_history_grows_and_its_past_is_fixed():
    run = Hyperparameters(population_size=P, n_generations=6, patience=0)
    evolution = Evolution(SPACE, run, np.random.default_rng(2))
    assert evolution.progress.history.shape == (0, len(STATISTIC_NAMES))
    kept = []
    while not evolution.finished:
        evolution.tell(rugged(evolution.ask(GAControls())))
        kept.append((evolution.progress.history, evolution.progress.history.copy()))
    for generation, (view, copy) in enumerate(kept):
        assert view.shape == (generation + 1, len(STATISTIC_NAMES))
        np.testing.assert_array_equal(view, copy)
        np.testing.assert_array_equal(view[-1], kept[-1][0][generation])
        assert not view.flags.writeable


def test_the_row_names_every_statistic_and_control_once():
    evolution = histories(lambda f: f)
    row = evolution.progress.row()
    assert set(STATISTIC_NAMES) < set(row)
    assert set(GAControls().to_dict()) < set(row)
    assert len(row) == 8 + len(STATISTIC_NAMES) + 12
    assert row["median"] == np.median(evolution.population.fitness)
    assert row["mean"] == pytest.approx(evolution.population.fitness.mean())
    assert all(math.isfinite(value) for value in row.values())


@given(st.data())
@settings(max_examples=60)
def test_sorting_by_counting_is_a_stable_sort_of_any_length(data):
    n = data.draw(st.one_of(st.integers(0, 40), st.integers(250, 262)))
    few = data.draw(st.booleans())  # values, so that most are equal
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    values = rng.integers(0, 3, n).astype(float) if few else rng.normal(size=n)
    if n:
        values[rng.integers(n, size=2)] = -np.inf
    order = np.empty(n, np.int64)
    kernels.ascend(values, order)
    np.testing.assert_array_equal(order, np.argsort(values, kind="stable"))

"""The pieces of the tensor environment, each against the piece of ``ga`` that it stands for.

What takes the same numbers must give the same answer: tournaments, folds, archive, statistics, landscapes.
What draws its own must have the same distribution; broken operators, each wrong in one way, stand beside
them and must be found by the same comparison.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import conductor.torch_landscapes
import conductor.torch_operators
import conductor.torch_runs
from conductor.landscapes import FAMILIES, landscape
from conductor.tasks import Instance, Task
from conductor.torch_draws import PURPOSES, Draws, cauchy, mixed, normal
from conductor.torch_landscapes import TensorLandscapes
from conductor.torch_operators import (
    BREEDS,
    bred,
    folded,
    index,
    latin_hypercube,
    planned,
    remutated,
    rounded,
    shuffled_ranks,
    winners,
)
from conductor.torch_runs import TensorRuns
from ga import breeding_kernels, kernels
from ga.controls import CONTROL_NAMES, GAControls
from ga.operators import breed, remutate, select
from ga.population import Population
from ga.progress import DIFFERENTIAL, OPERATORS, STATISTIC_NAMES, Chronicle, Outcome
from ga.variation import Variation

#: Something of everything: partners, difference vectors, immigrants, restarts, elites, crowding.
MIXED = GAControls(
    mutation_rate=0.1,
    mutation_step=0.05,
    mutation_tail=0.3,
    crossover_rate=0.8,
    crossover_spread=0.4,
    differential_rate=0.4,
    differential_weight=0.5,
    tournament_size=2.5,
    elite_fraction=0.06,
    immigrant_fraction=0.05,
    crowding_rate=0.4,
    restart_fraction=0.3,
)
#: Probability with which a comparison of two equal things may fail, over all its parts.
LEVEL = 1e-3
CPU = torch.device("cpu")
P, D = 16, 4


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draws_of(seeds, dtype=torch.float64):
    return Draws(seeds, CPU, dtype)


def genomes(ones, rng):
    """Random genomes, walls, the optimum and its neighborhood, float64 (R, p, d)."""
    optima = np.array([one.optimum for one in ones])[:, None]
    n, _, d = optima.shape
    near = [np.clip(optima + size * rng.standard_normal((n, 3, d)), 0.0, 1.0) for size in (1e-2, 1e-5)]
    return np.concatenate([rng.random((n, 8, d)), np.zeros((n, 1, d)), np.ones((n, 1, d)), optima, *near], 1)


def error_of_landscapes(dimension):
    """The largest difference from the compiled landscapes, as a share of the error or of 1."""
    ones = [landscape(family, dimension, seed) for seed in range(6) for family in FAMILIES]
    genes = genomes(ones, np.random.default_rng(dimension))
    errors = TensorLandscapes(ones, CPU)(torch.as_tensor(genes)).numpy()
    expected = np.array([one(own) for one, own in zip(ones, genes, strict=True)])
    return (np.abs(errors - expected) / np.maximum(expected, 1.0)).max()


@pytest.mark.parametrize("dimension", [2, 5, 17])
def test_landscapes_are_those_of_the_compiled_ones(dimension):
    assert error_of_landscapes(dimension) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_a_landscape_with_a_wrong_formula_is_found(family, monkeypatch):
    right = conductor.torch_landscapes._FORMULAS[family]
    monkeypatch.setitem(conductor.torch_landscapes._FORMULAS, family, lambda z, own: right(z, own) * 1.000001)
    assert error_of_landscapes(5) > 1e-9


def test_landscapes_stand_in_any_order_and_one_stands_for_many_runs():
    ones = [landscape(family, 3, 1) for family in ("levels", "sphere", "levels", "peaks", "sphere")]
    genes = torch.rand((5, 4, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = TensorLandscapes(ones, CPU)(genes)
    for row, one in enumerate(ones):
        assert np.allclose(together[row].numpy(), one(genes[row].numpy()), rtol=1e-12, atol=1e-12)


def test_landscapes_of_several_dimensions_are_refused():
    with pytest.raises(ValueError, match="landscapes of one tensor have dimensions"):
        TensorLandscapes([landscape("sphere", 2, 0), landscape("sphere", 3, 0)], CPU)
    with pytest.raises(ValueError, match="genes have shape"):
        TensorLandscapes([landscape("sphere", 2, 0)], CPU)(torch.zeros(2, 5, 2))


def test_hashes_are_the_published_numbers_of_splitmix64():
    # The first numbers of the published generator for the seed 1234567.
    golden = 0x9E3779B97F4A7C15 - 2**64
    words = 1234567 + torch.arange(1, 4) * golden
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [int(word) % 2**64 for word in mixed(words)] == published


def test_a_run_draws_the_same_numbers_alone_in_any_batch_and_at_any_width():
    together = draws_of([7, 9, 7, 11])
    one, other = (together.own(numbers) for numbers in together.uniform(3, 5, 6, 4))
    alone = draws_of([9]).uniform(3, 5, 6, 4)
    assert torch.equal(one[1], alone[0][0])
    assert torch.equal(other[1], alone[1][0])
    assert torch.equal(one[0], one[2])
    assert not torch.equal(one[0], one[3])
    assert torch.equal(together.own(together.uniform(3, 5, 2, 4)[0]), one[:, :2])
    at = together.uniform_at(3, 5, torch.tensor([2, 3]), torch.tensor([4, 0]), 4)
    assert torch.equal(at[0], torch.stack([one[2, 4], one[3, 0]]))
    assert torch.equal(at[1], torch.stack([other[2, 4], other[3, 0]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers_are_uniform_and_independent_along_every_axis(dtype):
    draws = draws_of(range(40), dtype)
    cube = torch.stack(
        [torch.stack(draws.uniform(t, purpose, 8)) for t in range(5) for purpose in range(PURPOSES)]
    ).numpy()
    assert cube.min() >= 0.0
    assert cube.max() < 1.0
    assert stats.kstest(cube.ravel(), "uniform").pvalue > LEVEL
    assert len(np.unique(cube.astype(np.float64))) > 0.98 * cube.size
    for axis in range(cube.ndim):  # generation and purpose, one or other, seed, place
        neighbors = np.moveaxis(cube, axis, 0)
        r = np.corrcoef(neighbors[1:].ravel(), neighbors[:-1].ravel())[0, 1]
        assert abs(r) < 4.0 / math.sqrt(neighbors[1:].size)


def test_normal_and_cauchy_numbers_have_their_distributions():
    one, other = draws_of(range(20)).uniform(0, 0, 500)
    assert stats.kstest(normal(one, other).numpy().ravel(), "norm").pvalue > LEVEL
    assert stats.kstest(cauchy(other).numpy().ravel(), "cauchy").pvalue > LEVEL


@settings(deadline=None, max_examples=50)
@given(st.floats(1.0, 8.0), st.integers(8, 200), st.integers(0, 1000))
def test_tournaments_have_the_winners_of_ga_for_the_same_numbers(size, p, seed):
    uniform = np.random.default_rng(seed).random((2, 64))
    expected = np.empty(64, dtype=np.int64)
    breeding_kernels.tournaments(uniform, np.arange(p), size, expected)
    found = winners(*torch.as_tensor(uniform[:, None]), torch.tensor([[size]], dtype=torch.float64), p)
    # The two powers may round to the two sides of a whole number: once in 1e15 numbers.
    assert np.array_equal(found[0].numpy(), expected)


@settings(deadline=None, max_examples=100)
@given(st.floats(-30.0, 30.0))
def test_strays_are_folded_as_in_ga(gene):
    assert folded(torch.tensor([gene], dtype=torch.float64)).item() == breeding_kernels.folded(gene)


def test_whole_numbers_are_those_of_ga_and_never_beyond_the_last():
    uniform = torch.tensor([0.0, 0.5, math.nextafter(1.0, 0.0)], dtype=torch.float64)
    for n in (1, 7, 2**53 - 1):
        expected = [breeding_kernels.index(u, n) for u in uniform.tolist()]
        assert index(uniform, n).tolist() == expected
        assert index(uniform, torch.tensor(n)).tolist() == expected
    value = torch.full((20000,), 2.3, dtype=torch.float64)
    whole = rounded(torch.rand(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64), value)
    assert set(whole.tolist()) == {2, 3}
    assert abs(whole.double().mean() - 2.3) < 0.02


def test_newcomers_visit_each_stratum_once_and_no_other_run_is_disturbed():
    size = torch.tensor([5, 0, 8, 1])
    cube = latin_hypercube(draws_of([1, 2, 3, 4]), 6, size, 8, 3)
    for row, n in enumerate(size.tolist()):
        strata = (cube[row, :n] * n).floor().long()
        assert torch.equal(strata.sort(0).values, torch.arange(n)[:, None].expand(n, 3))
    alone = latin_hypercube(draws_of([1]), 6, size[:1], 5, 3)
    assert torch.equal(alone[0], cube[0, :5])
    assert not torch.equal(cube[2, :, 0].argsort(), cube[2, :, 1].argsort())  # a shuffle for each gene


def test_ranks_put_the_best_first_and_equals_in_random_order():
    fitness = torch.tensor([[1.0, -math.inf, 3.0, 1.0, 1.0]], dtype=torch.float64).repeat(600, 1)
    order = shuffled_ranks(draws_of(range(600)), 2, fitness)
    assert (order[:, 0] == 2).all()
    assert (order[:, 4] == 1).all()
    counts = np.unique(order[:, 1:4].numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > LEVEL


def test_a_plan_has_the_shares_that_the_controls_ask_for():
    n, p = 4000, 20
    values = {
        "elite_fraction": 0.13,
        "immigrant_fraction": 0.08,
        "restart_fraction": 0.5,
        "crowding_rate": 0.3,
    }
    row = [values.get(name, getattr(MIXED, name)) for name in CONTROL_NAMES]
    controls = torch.tensor(row, dtype=torch.float64).repeat(n, 1)
    stagnation = torch.arange(n) % 20
    plan = planned(draws_of(range(n)), 1, controls, stagnation, 10, p)
    elites, fresh = p - plan.child.sum(1), (plan.child & ~plan.bred).sum(1)
    assert abs(elites.double().mean() - 0.13 * p) < 0.03
    calm = stagnation < 10
    assert (plan.restarted[calm] == 0).all()
    assert (plan.restarted[~calm] > 0).all()
    size = (p - elites).double()
    assert abs(fresh[calm] - 0.08 * size[calm]).mean() < 0.6
    assert abs(fresh[calm].double().mean() - 0.08 * size[calm].mean()) < 0.04
    assert abs(fresh[~calm].double().mean() - 0.5 * size[~calm].mean()) < 0.04
    assert abs(plan.defended[plan.bred].double().mean() - 0.3) < 0.01
    assert not (plan.defended & ~plan.bred).any()
    rows = torch.arange(p).expand(n, p)
    own = plan.defended | ~plan.bred
    assert torch.equal(plan.parent[own], rows[own])
    first = torch.arange(p) < elites[:, None]
    assert torch.equal(first, ~plan.child)


def population_of(rng):
    """A population with spread, a gene at a wall, and individuals of an archive."""
    genes = 0.5 + 0.15 * rng.standard_normal((P + 6, D))
    genes[:, 1] = np.abs(0.05 * rng.standard_normal(P + 6))
    genes[::3, 2] = 1.0
    return np.clip(genes, 0.0, 1.0)


KINDS = {
    "mutation": {"crossover_rate": 0.0, "differential_rate": 0.0, "mutation_rate": 0.3, "mutation_step": 0.3},
    "crossover": {"crossover_rate": 1.0, "differential_rate": 0.0, "mutation_rate": 0.004},
    "differential": {"differential_rate": 1.0, "crossover_rate": 0.5, "mutation_rate": 0.004},
    "all": {"mutation_rate": 0.05},
}


def in_tensors(controls, genes, *, archived=6, runs=500, **variation):
    """Children of many runs of one population, their parents' rows, operators, F and CR."""
    pool = torch.as_tensor(genes).repeat(runs, 1, 1)
    rows = torch.tensor(controls.to_array()).repeat(runs, 1)
    draws, calm = draws_of(range(runs)), torch.zeros(runs, dtype=torch.int64)
    plan = planned(draws, 1, rows, calm, 10, P)
    children = bred(draws, 1, pool, torch.full((runs,), archived), plan, rows, Variation(**variation))
    at = plan.bred
    return tuple(part[at].numpy() for part in (children.genes, plan.parent, *children[1:]))


def in_ga(controls, genes, *, archived=6, runs=500, **variation):
    rng, m = np.random.default_rng(1), runs * (P - 1)
    population, order = np.ascontiguousarray(genes[:P]), np.arange(P)
    parents = select(rng, order, m, controls.tournament_size)
    children, *rest = breed(
        rng,
        population,
        order,
        parents,
        controls,
        variation=Variation(**variation),
        archive=np.ascontiguousarray(genes[P : P + archived]),
    )
    return children, parents, *rest


def chances(one, other, genes):
    """p-values of all comparisons of two broods."""
    found = []
    for operator in range(3):
        a, b = ((*part,) for part in (one, other))
        own, others = (part[2] == operator for part in (a, b))
        table = [[own.sum(), (~own).sum()], [others.sum(), (~others).sum()]]
        if min(map(min, table)) > 0:
            found.append(stats.chi2_contingency(table).pvalue)
        if min(own.sum(), others.sum()) < 50:
            continue
        for side_one, side_other in zip(features(a, own, genes), features(b, others, genes), strict=True):
            found.append(stats.ks_2samp(side_one, side_other, method="asymp").pvalue)
    return np.array(found)


def features(brood, rows, genes):
    """What a brood shows: genes, moves from the parent on two scales, moved genes, places, F and CR."""
    children, parents, operator, weight, rate = (part[rows] for part in brood)
    moves = children - genes[parents]
    shown = [*children.T, *moves.T, parents, (moves != 0.0).sum(1)]
    shown += [np.log10(np.maximum(np.abs(moves[:, 0]), 1e-12)), np.abs(moves).max(1)]
    first = np.argmax(moves != 0.0, axis=1)
    return [*shown, first, weight, rate] if operator[0] == DIFFERENTIAL else [*shown, first]


def alike(controls, *, tensors=None, **options):
    genes = population_of(np.random.default_rng(0))
    found = chances(
        in_tensors(controls, genes, **(tensors or options)), in_ga(controls, genes, **options), genes
    )
    return found.min() * len(found) > LEVEL


def controls_of(kind):
    fixed = {"immigrant_fraction": 0.0, "crowding_rate": 0.0, "elite_fraction": 1 / 512}
    return GAControls(**MIXED.to_dict() | fixed | KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_offspring_have_the_distribution_of_ga(kind):
    assert alike(controls_of(kind))


def test_offspring_without_jitter_and_archive_have_the_distribution_of_ga():
    assert alike(controls_of("differential"), jitter=False, archived=0)


@pytest.mark.parametrize("jitter", [True, False])
@pytest.mark.parametrize("kind", ["mutation", "all"])
def test_offspring_with_steps_of_one_size_have_the_distribution_of_ga(kind, jitter):
    assert alike(controls_of(kind), mutation="gaussian_cauchy", jitter=jitter)


def clipped(genes):
    return genes.clamp(0.0, 1.0)


def one_contestant_more(chance, smallest, size, p, right=winners):
    return right(chance, smallest, size + 1.0, p)


BROKEN = {
    "clips strays": ("crossover", "folded", clipped),
    "has one contestant more": ("crossover", "winners", one_contestant_more),
    "has narrower mutations": ("mutation", "DECADES", 3.5),
    "jitters less": ("differential", "JITTER", 0.05),
    "bounds F elsewhere": ("differential", "MAX_WEIGHT", 0.8),
    "mutates the first gene for certain": ("mutation", "index", lambda u, n: index(0.0 * u, n)),
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_offspring_of_an_operator_that_is_wrong_are_found(wrong, monkeypatch):
    kind, name, value = BROKEN[wrong]
    monkeypatch.setattr(conductor.torch_operators, name, value)
    assert not alike(controls_of(kind))


@pytest.mark.parametrize("options", [{"archived": 0}, {"jitter": False}])
def test_offspring_without_what_ga_has_are_found(options):
    assert not alike(controls_of("differential"), tensors=options)


BROKEN_STEPS = {
    "stops at the walls": ("folded", clipped),
    "has no long steps": ("MAX_STEP", 1.0),
    "has other steps": ("normal", lambda one, other: 1.2 * normal(one, other)),
    "takes the other share of them": ("_unit_moves", lambda moves, tail: heavy_first(*moves, tail)),
}


def heavy_first(coin, gaussian, heavy, tail):
    return torch.where(coin < tail, gaussian, heavy)


@pytest.mark.parametrize("wrong", BROKEN_STEPS)
def test_steps_of_one_size_that_are_wrong_are_found(wrong, monkeypatch):
    monkeypatch.setattr(conductor.torch_operators, *BROKEN_STEPS[wrong])
    assert not alike(controls_of("mutation"), mutation="gaussian_cauchy")


@pytest.mark.parametrize("mutation", BREEDS["mutation"])
def test_steps_of_the_other_kind_are_found(mutation):
    (other,) = set(BREEDS["mutation"]) - {mutation}
    assert not alike(controls_of("mutation"), mutation=mutation, tensors={"mutation": other})


def mutants_alike(mutation, attempt, *, tensors=None):
    """Whether genomes mutated again have the same distribution as in ga."""
    runs, controls = 500, controls_of("mutation")
    genes = np.tile(population_of(np.random.default_rng(0))[:P], (runs, 1))
    at = torch.arange(runs * P)
    rows = torch.tensor(controls.to_array()).repeat(runs, 1)
    one = remutated(
        draws_of(range(runs)), 1, torch.as_tensor(genes), at // P, at % P, rows, attempt, tensors or mutation
    ).numpy()
    other = remutate(
        np.random.default_rng(1), genes, controls, attempt, variation=Variation(mutation=mutation)
    )
    moves = [side - genes for side in (one, other)]
    assert all((move != 0.0).any(1).mean() > 0.8 for move in moves)
    shown = [[*side.T, *move.T, (move != 0.0).sum(1)] for side, move in zip((one, other), moves, strict=True)]
    found = [stats.ks_2samp(*pair, method="asymp").pvalue for pair in zip(*shown, strict=True)]
    return min(found) * len(found) > LEVEL


@pytest.mark.parametrize("attempt", [0, 3])
@pytest.mark.parametrize("mutation", BREEDS["mutation"])
def test_genomes_mutated_again_have_the_distribution_of_ga(mutation, attempt):
    assert mutants_alike(mutation, attempt)
    (other,) = set(BREEDS["mutation"]) - {mutation}
    assert not mutants_alike(mutation, attempt, tensors=other)


def runs_of(families=FAMILIES, n_generations=12, variation=None, dtype=torch.float64):
    tasks = [Task(Instance(family, 3), 5, 12, n_generations, i) for i, family in enumerate(families)]
    return tasks, TensorRuns(tasks, variation or Variation(), 3, CPU, dtype)


def bred_with(runs, rng, n):
    runs.begin()
    for _ in range(n):
        rows = [GAControls.from_unit(rng.random(12)).to_array() for _ in range(len(runs))]
        runs.breed(torch.as_tensor(np.array(rows)))


def differences_of_statistics(monkeypatch, spoil=0.0):
    """The largest difference of each statistic from what ``ga.progress`` says of the same population."""
    seen, right = [], conductor.torch_runs.statistics

    def remembered(*arguments):
        seen.append([one.clone() if isinstance(one, torch.Tensor) else one for one in arguments])
        return right(*arguments) + spoil

    monkeypatch.setattr(conductor.torch_runs, "statistics", remembered)
    tasks, runs = runs_of()
    # Some answers are no numbers, and the first ones of a run are none at all.
    answer = runs._landscapes

    def unreliable(genes):
        errors = answer(genes)
        errors[5, 3:7] = math.nan
        errors[6] = math.inf if runs.generation < 2 else errors[6]
        return errors

    runs._landscapes = unreliable
    bred_with(runs, np.random.default_rng(3), 12)
    asked = runs.controls
    assert asked.shape == (len(tasks), 12)
    worst, chronicles = (
        np.zeros(len(STATISTIC_NAMES)),
        [Chronicle(task.hyperparameters, task.dimension) for task in tasks],
    )
    for t, (_, _, genes, fitness, age, _, _, _, brood, _, shown) in enumerate(seen):
        for b, chronicle in enumerate(chronicles):
            child = brood.child[b]
            by = brood.operator[b][child].numpy()
            k = int((by < 3).sum()) if t else 0
            pair = [np.where(by == DIFFERENTIAL, part[b][child].numpy(), np.nan)[:k] for part in brood[4:6]]
            improved = brood.improved[b][child].numpy()
            outcome = Outcome(
                by[:k].astype(np.int8),
                improved,
                np.where(improved, brood.gain[b][child].numpy(), 0.0),
                *pair,
                *(int(part[b]) for part in brood[6:]),
            )
            arrays = genes[b].numpy().copy(), fitness[b].numpy(), age[b].numpy(), np.ones(len(fitness[b]))
            controls = None
            if t:
                # Statistics show one control in natural units and the places of four.
                unit = np.full(12, 0.5)
                for i, name in enumerate(n for n in STATISTIC_NAMES if n.startswith("control_")):
                    unit[CONTROL_NAMES.index(name.removeprefix("control_"))] = shown[1][b, i].item()
                controls = GAControls.from_unit(unit)
                assert math.isclose(controls.mutation_step, shown[0][b].item(), rel_tol=1e-9)
            progress = chronicle.record(t, Population(*arrays), np.arange(12), outcome, controls)
            worst = np.maximum(worst, np.abs(progress.statistics - runs.history[b, t].numpy()))
            if t == len(seen) - 1:
                means = [progress.successful_weight, progress.successful_rate]
                assert runs.trials[b].tolist() == list(progress.trials)
                assert runs.successes[b].tolist() == list(progress.successes)
                assert np.allclose(runs.successful[b].numpy(), means, rtol=1e-9, equal_nan=True)
    return worst


def test_statistics_are_those_of_ga_for_the_same_population(monkeypatch):
    assert differences_of_statistics(monkeypatch).max() < 1e-9


def test_every_wrong_statistic_is_found(monkeypatch):
    assert differences_of_statistics(monkeypatch, spoil=1e-6).min() > 1e-7


def test_the_archive_keeps_whom_that_of_ga_keeps():
    _, runs = runs_of()
    rng, ring, n = np.random.default_rng(5), np.zeros((12, 5)), 0
    bred_with(runs, rng, 1)
    ring[:], n = runs.pool[4, 12:24].numpy(), int(runs.replaced[4])
    for _ in range(6):
        leaving = rng.random(12) < 0.5
        genes, fitness = runs.pool[4, :12].numpy().copy(), np.zeros(12)
        n = kernels.archive(genes, fitness, np.arange(12), fitness + 1.0, leaving, ring, n)
        runs._retire(torch.as_tensor(np.tile(leaving, (len(runs), 1))))
        runs.pool[:, :12] = torch.as_tensor(rng.random((len(runs), 12, 5)))
        assert int(runs.replaced[4]) == n
        assert np.array_equal(runs.pool[4, 12:24].numpy(), ring)


def test_a_genome_that_was_asked_for_is_known_and_no_other():
    _, runs = runs_of(n_generations=60)
    rng, everybody = np.random.default_rng(7), torch.ones((len(FAMILIES), 12), dtype=torch.bool)
    broods = [torch.as_tensor(rng.random((len(FAMILIES), 12, 5))) for _ in range(60)]
    assert all(runs._entered(brood, everybody).all() for brood in broods)
    remembered = torch.stack([~runs._entered(brood, everybody) for brood in broods])
    assert remembered.double().mean() > 0.97  # the table forgets where two genomes meet twice
    twins = torch.as_tensor(rng.random((len(FAMILIES), 12, 5)))
    twins[:, 7] = twins[:, 2]
    twins[:, 9] = twins[:, 2] + 1e-15
    expected = torch.arange(12) != 7
    assert torch.equal(runs._entered(twins, everybody), expected.expand(len(FAMILIES), 12))
    assert not runs._entered(-0.0 * twins, everybody)[:, 1:].any()  # -0.0 is 0.0, and all are alike


def test_genomes_that_repeat_are_mutated_again_until_they_are_new():
    _, runs = runs_of()
    bred_with(runs, np.random.default_rng(2), 3)
    rows = torch.as_tensor(np.tile(MIXED.to_array(), (len(runs), 1)))
    genes = runs.pool[:, :12].clone()
    repeated = torch.arange(12).expand(len(runs), 12) % 3 == 0
    new, cached = runs._without_duplicates(genes.clone(), repeated, rows, 4)
    changed = (new != genes).any(2)
    assert torch.equal(changed, repeated)
    assert (cached == 0).all()
    stuck = rows.clone()
    stuck[:, 1] = 0.0  # a step of no length: every attempt stays where it was
    _, cached = runs._without_duplicates(genes.clone(), repeated, stuck, 4)
    assert (cached == 4).all()


def test_the_operators_have_the_codes_of_ga():
    assert OPERATORS == ("mutation", "crossover", "differential", "immigrant")

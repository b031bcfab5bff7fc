"""Variation of trees: within the limits, repeatable, under the 12 controls; and what a search makes of it."""

import random

import numba
import numpy as np
import pytest
from deap import gp

from ga import tree_variation
from ga.controls import GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.trees import MAX_HEIGHT
from tests.ga.planted_trees import NODES, SPACE, SYMBOLS, answers, check_tree, genome_of, tree_of

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="digests overflow, which only compiled code does in silence"
)

# Variation.

BOX = tree_variation.toolbox(SPACE)


def generations(box, n: int, controls: GAControls, seed: int = 11, p: int = 60):
    rng = np.random.default_rng(seed)
    genes = SPACE.sample(rng, p)
    for _ in range(n):
        # No selection: drift visits more than a search would.
        parents = rng.integers(0, p, p)
        genes = box.breed(rng, genes, rng.permutation(p), parents, controls).children
        yield genes


WILD = GAControls(
    mutation_rate=0.3,
    mutation_step=0.5,
    mutation_tail=0.6,
    crossover_rate=1.0,
    differential_rate=0.1,
    tournament_size=4.0,
    crowding_rate=1.0,
)


def test_no_tree_is_ever_too_high_too_large_or_wrongly_typed():
    largest = highest = 0
    for genes in generations(BOX, 60, WILD):
        assert ((genes >= 0.0) & (genes <= 1.0)).all()
        for tree in SPACE.trees(genes):
            check_tree(tree)
            largest, highest = max(largest, len(tree)), max(highest, tree.height)
    assert highest == MAX_HEIGHT
    assert largest > 25  # the limits were met


def test_without_the_limits_trees_grow_out_of_the_genome():
    box = tree_variation.toolbox(SPACE)
    box.register("cross_trees", tree_variation.cross_trees)
    box.register("insert_node", gp.mutInsert, pset=SYMBOLS)
    with pytest.raises(ValueError, match=r"fit|no tree"):
        for _ in generations(box, 60, WILD):
            pass


def test_variation_is_the_same_for_the_same_generator_and_leaves_pythons_alone():
    random.seed(5)
    before = random.getstate()
    one = [genes.tobytes() for genes in generations(BOX, 5, WILD)]
    assert random.getstate() == before
    random.seed(6)
    assert [genes.tobytes() for genes in generations(tree_variation.toolbox(SPACE), 5, WILD)] == one
    assert [genes.tobytes() for genes in generations(BOX, 5, WILD, seed=12)] != one


def changed_trees(controls: GAControls, seed: int = 1, p: int = 200) -> float:
    """Return the share of offspring whose tree says something else than its parent's."""
    rng = np.random.default_rng(seed)
    genes = SPACE.sample(rng, p)
    children = BOX.breed(rng, genes, np.arange(p), np.arange(p), controls).children
    return float((SPACE.semantics(children) != SPACE.semantics(genes)).any(axis=1).mean())


def test_the_mutation_rate_counts_per_node_and_the_crossover_rate_per_tree():
    quiet = {"crossover_rate": 0.0, "differential_rate": 1.0}
    assert changed_trees(GAControls(mutation_rate=0.004, **quiet)) < 0.12
    assert changed_trees(GAControls(mutation_rate=1.0, **quiet)) > 0.9
    middle = changed_trees(GAControls(mutation_rate=0.05, **quiet))
    sizes = (SPACE.programs(SPACE.sample(np.random.default_rng(1), 200)) >= 0).sum(axis=1)
    assert middle == pytest.approx((1 - 0.95**sizes).mean(), abs=0.12)
    crossing = GAControls(mutation_rate=0.004, crossover_rate=1.0, differential_rate=0.0)
    assert changed_trees(crossing) > 0.97


def test_operators_are_counted_as_they_were_used():
    rng = np.random.default_rng(3)
    genes = SPACE.sample(rng, 400)
    controls = GAControls(crossover_rate=0.5, differential_rate=0.4, mutation_rate=0.004)
    bred = BOX.breed(rng, genes, np.arange(400), np.arange(400), controls)
    shares = np.bincount(bred.operator, minlength=3) / 400
    np.testing.assert_allclose(shares, [0.3, 0.3, 0.4], atol=0.08)
    same = (bred.children == genes).all(axis=1)
    assert not same[bred.operator == 0].any()  # a child by mutation alone differs from its parent


def test_small_steps_keep_the_shape_of_a_tree():
    tree = tree_of("add(mul(a, 0.5), choose(greater(b, -1.0), c, neg(d)))")
    shapes = set()
    random.seed(1)
    for tail in (0.0, 1.0):
        for _ in range(200):
            made = tree_variation.mutated(gp.PrimitiveTree(tree), tail, 0.05, BOX)
            check_tree(made)
            assert made != tree
            shapes.add((tail, tuple(node.arity for node in made)))
    assert {shape for tail, shape in shapes if tail == 0.0} == {tuple(node.arity for node in tree)}
    assert len(shapes) > 20  # negative control: wide steps change it


def test_a_nudged_constant_moves_by_the_step_and_stays_in_range():
    random.seed(2)
    steps = {}
    for step in (1e-4, 0.1):
        moved = []
        for _ in range(300):
            (tree,) = BOX.nudge_constant(tree_of("mul(a, 3.5)"), step)
            moved.append(tree[2].value)
        assert max(np.abs(moved)) <= 4.0
        assert 3.5 not in moved
        steps[step] = np.std(moved)
    assert steps[1e-4] == pytest.approx(0.05, rel=0.05)  # the next level, up or down
    assert 0.3 < steps[0.1] < 0.8
    (tree,) = BOX.nudge_constant(tree_of("neg(a)"), 0.1)
    assert tree == tree_of("neg(a)")


@pytest.mark.parametrize("value", [-4.0, -3.95, 0.0, 2.0, 4.0])
def test_the_widest_nudge_ends_on_a_constant_and_not_where_it_began(value):
    random.seed(3)
    for step in (1e-4, 0.5):
        for _ in range(300):
            (tree,) = BOX.nudge_constant(tree_of(f"mul(a, {value})"), step)
            assert tree[2].value != value
            SPACE.plant([tree])  # refuses what is no constant


def test_repeated_trees_are_mutated_into_others():
    rng = np.random.default_rng(9)
    genes = np.tile(genome_of("add(mul(a, 0.5), b)"), (100, 1))
    before = set(SPACE.keys(genes))
    assert len(before) == 1
    for attempt in range(4):
        keys = SPACE.keys(BOX.remutate(rng, genes, GAControls(), attempt))
        assert len(set(keys) - before) > 60
    for tree in SPACE.trees(BOX.remutate(rng, genes, GAControls(), 3)):
        check_tree(tree)


def most_alike(genes: np.ndarray) -> int:
    """Return how many of these genomes carry trees that say the same, at most."""
    _, counts = np.unique(SPACE.semantics(genes), axis=0, return_counts=True)
    return int(counts.max())


def test_no_tree_takes_over_a_brood(monkeypatch):
    rng = np.random.default_rng(2)
    clones = SPACE.sample(rng, 200)
    clones[:, :NODES] = genome_of("add(mul(a, 0.5), sub(b, c))")[:NODES]
    quiet = GAControls(mutation_rate=0.004, crossover_rate=0.0, differential_rate=1.0, tournament_size=2.0)
    crowd = 0.05 * len(clones)
    assert most_alike(BOX.breed(rng, clones, np.arange(200), np.arange(200), quiet).children) <= crowd + 3
    # Negative control: without the law nearly every child carries its parent's tree.
    monkeypatch.setattr(tree_variation, "CROWD", 1.0)
    assert most_alike(BOX.breed(rng, clones, np.arange(200), np.arange(200), quiet).children) > 150


# The search.

TARGET = "choose(greater(a, 0.5), b, neg(c))"
KNOBS = GAControls(
    mutation_rate=0.05, mutation_step=0.007, mutation_tail=0.5, crossover_rate=0.95, crossover_spread=0.5,
    differential_rate=0.4, differential_weight=0.35, tournament_size=4.5, elite_fraction=0.003,
    immigrant_fraction=0.02, crowding_rate=0.2, restart_fraction=0.3,
)  # fmt: skip
ROWS = np.clip(np.random.default_rng(0).normal(0.0, 1.2, (256, 5)), -4.0, 4.0)


def likeness(genes: np.ndarray) -> np.ndarray:
    """Return minus the distance to what the target tree says, in standard deviations of it."""
    wanted = answers(genome_of(TARGET)[None], ROWS)
    return -np.sqrt(((answers(genes, ROWS) - wanted) ** 2).mean(axis=0)) / wanted.std()


def searched(seed: int, box: object | None, generations: int = 25) -> Evolution:
    run = Hyperparameters(population_size=60, n_generations=generations, patience=0)
    evolution = Evolution(SPACE, run, np.random.default_rng(seed), toolbox=box)
    while not evolution.finished:
        evolution.tell(likeness(evolution.ask(KNOBS)))
    return evolution


def test_a_search_by_tree_operators_beats_one_by_array_operators_and_random_trees():
    ours = [searched(seed, BOX).champion.fitness for seed in range(4)]
    arrays = [searched(seed, None).champion.fitness for seed in range(4)]
    drawn = [likeness(SPACE.sample(np.random.default_rng(seed), 1_500)).max() for seed in range(4)]
    assert np.mean(ours) > max(np.mean(arrays), np.mean(drawn)) + 0.05


def test_a_search_never_evaluates_two_trees_that_say_the_same_with_the_same_further_genes():
    evolution = Evolution(
        SPACE, Hyperparameters(population_size=40, n_generations=8, patience=0), np.random.default_rng(4),
        toolbox=BOX,
    )  # fmt: skip
    asked = []
    while not evolution.finished:
        genes = evolution.ask(KNOBS)
        asked += SPACE.keys(genes)
        evolution.tell(likeness(genes))
    assert len(set(asked)) == len(asked) > 300


def test_a_search_for_trees_goes_on_from_its_state_bit_for_bit():
    whole = searched(5, BOX, 8)
    run = Hyperparameters(population_size=60, n_generations=8, patience=0)
    first = Evolution(SPACE, run, np.random.default_rng(5), toolbox=BOX)
    for _ in range(4):
        first.tell(likeness(first.ask(KNOBS)))
    state = first.state()
    random.seed(1)  # nothing hangs on Python's own generator
    again = Evolution(SPACE, run, np.random.default_rng(0), toolbox=tree_variation.toolbox(SPACE))
    again.restore(state)
    while not again.finished:
        again.tell(likeness(again.ask(KNOBS)))
    assert again.population.genes.tobytes() == whole.population.genes.tobytes()
    assert again.champion.fitness == whole.champion.fitness
    # Negative control: another beginning ends elsewhere.
    assert searched(6, BOX, 8).population.genes.tobytes() != whole.population.genes.tobytes()

"""Trees as genomes: valid whatever the genes, compiled as DEAP compiles them, told apart by what they say."""

import itertools
import json
import random

import numba
import numpy as np
import pytest
from deap import gp
from hypothesis import given, settings
from hypothesis import strategies as st

from ga import tree_kernels as kernels
from ga.space import Genome, GenomeSpace
from ga.trees import MAX_HEIGHT, Condition, Number, TreeSpace, probes
from tests.ga.planted_trees import (
    FURTHER,
    NODES,
    SIGNALS,
    SPACE,
    SYMBOLS,
    answers,
    check_tree,
    genome_of,
    tree_of,
)

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="digests overflow, which only compiled code does in silence"
)


def interpreted(tree: gp.PrimitiveTree, rows: np.ndarray, symbols=SYMBOLS) -> list[float]:
    """Return what DEAP's compiled Python says: the slow twin."""
    function = gp.compile(tree, symbols)
    return [float(function(*row, *(1.0 if x > 0 else 0.0 for x in row))) for row in rows.tolist()]


cubes = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random((20, SPACE.n_genes)) ** (0.3 + seed % 5)
)


# Reading and writing genes.


@given(cubes)
@settings(max_examples=40, deadline=None)
def test_every_point_of_the_cube_is_a_valid_tree(genes):
    for tree in SPACE.trees(genes):
        check_tree(tree)


@pytest.mark.parametrize("corner", [0.0, 1.0, 0.5, np.nextafter(1.0, 0.0)])
def test_the_corners_of_the_cube_are_valid_trees_too(corner):
    (tree,) = SPACE.trees(np.full((1, SPACE.n_genes), corner))
    check_tree(tree)


@given(st.integers(1, MAX_HEIGHT), st.integers(3, 127), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_limits_of_height_and_size_hold_whatever_they_are(height, nodes, k, seed):
    space = TreeSpace.of(SIGNALS[:k], FURTHER, nodes, height)
    rng = np.random.default_rng(seed)
    # Many primitives: genes in the upper half of each bin list.
    genes = 1.0 - 0.6 * rng.random((30, space.n_genes))
    trees = space.trees(genes)
    for tree in trees:
        check_tree(tree, space)
    drawn = space.sample(rng, 10)
    for tree in space.trees(drawn):
        check_tree(tree, space)


def test_the_check_sees_wrong_trees():
    nodes = {node.name: node for kind in SYMBOLS.primitives.values() for node in kind}
    a = SYMBOLS.mapping["a"]
    for wrong, message in (
        ([nodes["add"], a], "incomplete"),
        ([nodes["greater"], a, a], "where a Number is due"),
        ([nodes["choose"], a, a, a], "where a Condition is due"),
        ([nodes["neg"]] * 7 + [a], "too high"),
        ([nodes["neg"], a, a], "pop"),
    ):
        with pytest.raises((AssertionError, IndexError), match=message):
            check_tree(gp.PrimitiveTree(wrong))


@given(cubes)
@settings(max_examples=40, deadline=None)
def test_writing_is_the_inverse_of_reading(genes):
    values = SPACE.decode(genes)
    again = SPACE.encode(values)
    assert ((again >= 0.0) & (again <= 1.0)).all()
    assert SPACE.decode(again)[:, :NODES].tobytes() == values[:, :NODES].tobytes()
    np.testing.assert_allclose(SPACE.decode(again), values, rtol=1e-12)
    programs = SPACE.programs(genes)
    for tree, program in zip(SPACE.trees(genes), programs, strict=True):
        numbers = SPACE.vocabulary.program(tree)
        assert numbers == program[: len(tree)].tolist()
        assert (program[len(tree) :] == kernels.UNUSED).all()


def test_genes_of_unused_nodes_do_not_count():
    genome = genome_of("add(a, b)")
    other = genome.copy()
    other[3:NODES] = 0.77
    assert SPACE.decode(other[None]).tobytes() == SPACE.decode(genome[None]).tobytes()
    other[2] = 0.77
    assert SPACE.decode(other[None]).tobytes() != SPACE.decode(genome[None]).tobytes()


def test_a_genome_decodes_to_the_same_bytes_alone_and_in_a_batch():
    genes = np.random.default_rng(4).random((40, SPACE.n_genes))
    alone = np.vstack([SPACE.decode(one[None]) for one in genes])
    assert SPACE.decode(genes).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    "program",
    [
        [kernels.ADD, kernels.SIGNAL],
        [kernels.GREATER, kernels.SIGNAL, kernels.SIGNAL],
        [kernels.IF, kernels.SIGNAL, kernels.SIGNAL, kernels.SIGNAL],
        [kernels.NEG] * 7 + [kernels.SIGNAL],
        [kernels.SIGNAL, kernels.SIGNAL],
        [kernels.SIGNAL + 2 * len(SIGNALS) + kernels.LEVELS],
        [-3.0],
        [],
    ],
    ids=[
        "incomplete",
        "condition at the root",
        "number as condition",
        "too high",
        "two",
        "no node",
        "-3",
        "none",
    ],
)
def test_what_is_no_tree_is_refused(program):
    values = SPACE.decode(np.full((1, SPACE.n_genes), 0.3))
    values[0, :NODES] = kernels.UNUSED
    values[0, : len(program)] = program
    with pytest.raises(ValueError, match="program 0 is no tree of tree of height 6"):
        SPACE.encode(values)


def test_a_tree_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="tree 0 has 5 nodes; at most 3 fit"):
        TreeSpace.of(SIGNALS, FURTHER, 3).plant([tree_of("add(a, add(b, c))")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), FURTHER), "a tree without signals says nothing"),
        ((SIGNALS, FURTHER, 2), "max_nodes is 2; it must be from 3 to 127"),
        ((SIGNALS, FURTHER, 31, 7), "max_height is 7; it must be from 1 to 6"),
        ((SIGNALS, FURTHER, 31, 0), "max_height is 0"),
    ],
)
def test_a_wrong_space_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        TreeSpace.of(*arguments)


def test_a_tree_reads_like_a_formula():
    condition = "both(greater(a, -0.3), negation(b_is_positive))"
    text = f"choose({condition}, quotient(c, squash(d)), neg(minimum(e, 2.0)))"
    values = SPACE.values(genome_of(text))
    assert values == {
        "signal": "if(((a > -0.3) and not (b > 0)), quotient(c, squash(d)), -min(e, 2))",
        "threshold": pytest.approx(0.1 * 20**0.5),
        "hold": 26,
    }


def test_a_saved_tree_is_loaded_bit_for_bit(tmp_path):
    genome = Genome(genome_of("add(a, mul(b, 0.35))"), SPACE.name, 1.5)
    genome.save(tmp_path / "genome.json", SPACE)
    again = Genome.load(tmp_path / "genome.json", SPACE)
    assert again.genes.tobytes() == genome.genes.tobytes()
    document = json.loads((tmp_path / "genome.json").read_text(encoding="utf-8"))
    assert document["values"]["signal"] == "(a + (b * 0.35))"


# Running programs.


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_compiled_program_says_what_deap_says_bit_for_bit(seed):
    rng = np.random.default_rng(seed)
    genes = np.vstack([SPACE.sample(rng, 8), 1.0 - 0.6 * rng.random((8, SPACE.n_genes))])
    rows = np.clip(rng.normal(0.0, 1.5, (20, len(SIGNALS))), -4.0, 4.0)
    rows[rng.random(rows.shape) < 0.1] = 0.0
    said = answers(genes, rows)
    for tree, column in zip(SPACE.trees(genes), said.T, strict=True):
        assert interpreted(tree, rows) == column.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sub(a, b)", -1.5),
        ("quotient(b, a)", 2.0 / np.sqrt(1.25)),
        ("maximum(a, minimum(b, c))", 0.5),
        ("squash(b)", 2.0 / 3.0),
        ("absolute(neg(c))", 3.0),
        ("choose(either(c_is_positive, greater(b, a)), 0.25, 4.0)", 0.25),
        ("choose(both(c_is_positive, greater(b, a)), 0.25, 4.0)", 4.0),
        ("choose(negation(c_is_positive), d, e)", 0.0),
    ],
)
def test_every_operation_by_hand(text, expected):
    row = np.array([[0.5, 2.0, -3.0, 0.0, 4.0]])
    assert answers(genome_of(text)[None], row)[0, 0] == pytest.approx(expected, rel=1e-15)


def test_the_twin_tells_a_wrong_operation_from_a_right_one():
    rng = np.random.default_rng(1)
    genes = SPACE.sample(rng, 60)
    rows = probes(len(SIGNALS))[:20]
    said = answers(genes, rows)
    for name in ("add", "quotient", "minimum", "choose", "greater", "both", "negation", "squash"):
        right, symbols = SYMBOLS.context[name], SYMBOLS
        symbols.context[name] = lambda *a, right=right: right(*a[::-1]) + 0.5
        try:
            wrong = [
                interpreted(tree, rows) != column.tolist()
                for tree, column in zip(SPACE.trees(genes), said.T, strict=True)
            ]
        finally:
            symbols.context[name] = right
        assert any(wrong), name


def test_a_row_gets_the_same_bits_alone_and_in_any_block():
    rng = np.random.default_rng(2)
    genes = SPACE.sample(rng, 30)
    rows = np.clip(rng.normal(0.0, 1.5, (2 * kernels.BLOCK + 37, len(SIGNALS))), -4.0, 4.0)
    whole = answers(genes, rows)
    for start, stop in ((0, 1), (5, 8), (100, 100 + kernels.BLOCK), (kernels.BLOCK - 3, kernels.BLOCK + 9)):
        assert answers(genes, rows[start:stop].copy()).tobytes() == whole[start:stop].tobytes()
    alone = np.hstack([answers(one[None], rows) for one in genes])
    assert np.ascontiguousarray(alone).tobytes() == whole.tobytes()


def test_only_chosen_rows_are_read_and_written():
    genes = np.vstack([genome_of("add(a, b)"), genome_of("neg(c)")])
    rows = np.full((6, len(SIGNALS)), np.nan)
    rows[[1, 4]] = [[1, 2, 3, 4, 5], [10, 20, 30, 40, 50]]
    out = np.full((6, 3), 7.0)
    kernels.run_programs(SPACE.programs(genes), rows, np.array([1, 4]), len(SIGNALS), out)
    expected = np.full((6, 3), 7.0)
    expected[[1, 4], :2] = [[3, -3], [30, -30]]
    assert np.array_equal(out, expected)


def test_the_wildest_tree_stays_finite():
    full = "a"
    for _ in range(MAX_HEIGHT):
        full = f"mul({full}, {full})"
    space = TreeSpace.of(SIGNALS, FURTHER, 127)
    values = space.decode(np.zeros((1, space.n_genes)))
    values[0, :127] = space.vocabulary.program(tree_of(full))
    said = answers(space.encode(values), np.array([[4.0, 0, 0, 0, 0], [-4.0, 0, 0, 0, 0]]), space)
    assert said.ravel().tolist() == [4.0**64, 4.0**64]


@given(cubes)
@settings(max_examples=20, deadline=None)
def test_answers_are_finite_on_clipped_signals(genes):
    corners = np.array(list(itertools.product([-4.0, 0.0, 4.0], repeat=5)))
    assert np.isfinite(answers(genes, corners)).all()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([kernels.ADD, kernels.SIGNAL], "ends before it is complete"),
        ([500.0, 0.0], "no node"),
        ([-1.0, -1.0], "no node"),
        ([kernels.SIGNAL - 0.0, -1.0], "a chosen row"),
    ],
)
def test_a_broken_program_or_row_is_refused_before_memory_is_read(program, message):
    with pytest.raises(ValueError, match=message):
        kernels.run_programs(
            np.array([program], dtype=float), np.ones((3, 5)), np.array([0, 3]), 5, np.ones((3, 1))
        )
    with pytest.raises(ValueError, match="rows must hold the signals"):
        kernels.run_programs(np.array([[14.0]]), np.ones((3, 4)), np.array([0]), 5, np.ones((3, 1)))


# What tells trees apart.

SAME = [
    ("add(a, b)", "add(b, a)"),
    ("add(add(a, b), c)", "add(a, add(b, c))"),
    ("neg(neg(a))", "a"),
    ("sub(a, neg(b))", "add(a, b)"),
    ("choose(negation(c_is_positive), a, b)", "choose(c_is_positive, b, a)"),
    ("choose(greater(a, 4.0), b, c)", "c"),
    ("mul(a, 1.0)", "a"),
    ("add(mul(a, 0.5), mul(a, 0.5))", "a"),
    ("maximum(a, neg(a))", "absolute(a)"),
]
DIFFERENT = [
    ("a", "b"),
    ("sub(a, b)", "sub(b, a)"),
    ("mul(a, 0.5)", "mul(a, 0.55)"),
    ("choose(greater(a, 3.9), b, c)", "c"),
    ("quotient(a, b)", "quotient(b, a)"),
    ("squash(a)", "a"),
    ("add(a, 0.05)", "a"),
]


def planted_as_written(text: str) -> np.ndarray:
    values = SPACE.decode(np.full((1, SPACE.n_genes), 0.5))
    numbers = SPACE.vocabulary.program(tree_of(text))
    values[0, :NODES] = kernels.UNUSED
    values[0, : len(numbers)] = numbers
    return SPACE.encode(values)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_trees_that_say_the_same_are_the_same(one, other):
    genes = np.vstack([planted_as_written(one), planted_as_written(other)])
    first, second = SPACE.keys(genes)
    assert first == second
    assert len(first) == 16
    # Negative control: by their numbers they differ.
    assert SPACE.decode(genes)[0].tobytes() != SPACE.decode(genes)[1].tobytes()


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_trees_that_say_different_things_are_different(one, other):
    first, second = SPACE.keys(np.vstack([planted_as_written(one), planted_as_written(other)]))
    assert first != second


def test_the_further_genes_belong_to_the_identity_as_decoded():
    genes = np.vstack([genome_of("a", (x, y)) for x, y in ((0.5, 0.5), (0.50001, 0.5), (0.5, 0.501))])
    keys = SPACE.keys(genes)
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]  # the same whole number of bars


@given(cubes)
@settings(max_examples=25, deadline=None)
def test_shortening_changes_no_meaning_and_makes_nothing_longer(genes):
    programs = SPACE.programs(genes)
    genes = SPACE.encode(SPACE.decode(genes))
    planted = np.hstack([SPACE.plant(SPACE.trees(genes)), genes[:, NODES:]])
    assert SPACE.keys(planted) == SPACE.keys(genes)
    assert ((SPACE.programs(planted) >= 0).sum(axis=1) <= (programs >= 0).sum(axis=1)).all()
    rows = np.clip(np.random.default_rng(3).standard_t(3, (200, 5)), -4.0, 4.0)  # not the probes
    np.testing.assert_allclose(answers(planted, rows), answers(genes, rows), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("neg(neg(a))", "a"),
        ("add(squash(maximum(a, a)), sub(b, b))", "squash(a)"),
        ("choose(greater(absolute(a), 4.0), mul(c, c), add(a, b))", "(a + b)"),
        ("mul(a, add(1.5, -0.5))", "a"),
        ("mul(a, add(1.5, 0.5))", "(a * 2)"),
        ("choose(negation(negation(a_is_positive)), b, c)", "if((a > 0), b, c)"),
        ("add(a, b)", "(a + b)"),
    ],
)
def test_what_changes_nothing_goes(text, short):
    assert SPACE.values(genome_of(text))["signal"] == short


# Random trees.


def test_random_trees_are_ramped_different_and_never_constant():
    genes = SPACE.sample(np.random.default_rng(5), 300)
    assert genes.shape == (300, SPACE.n_genes)
    assert ((genes >= 0.0) & (genes <= 1.0)).all()
    assert len(set(SPACE.keys(np.hstack([genes[:, :NODES], np.full((300, 2), 0.5)])))) > 295
    assert (np.ptp(answers(genes, probes(5)), axis=0) > 0).all()
    heights = np.bincount([tree.height for tree in SPACE.trees(genes)], minlength=5)
    assert heights[5:].sum() == 0
    assert (heights[1:5] > 20).all()
    used = {node.name for tree in SPACE.trees(genes) for node in tree if node.arity}
    assert used == {name for name in SYMBOLS.mapping if name in SYMBOLS.context and name != "__builtins__"}
    # Negative control: points of the cube drawn at random repeat and say nothing far more often.
    drawn = GenomeSpace.sample(SPACE, np.random.default_rng(5), 300)
    drawn[:, NODES:] = 0.5
    assert len(set(SPACE.keys(drawn))) < 250


def test_the_further_genes_of_a_sample_are_a_latin_hypercube():
    genes = SPACE.sample(np.random.default_rng(6), 16)[:, NODES:]
    assert np.array_equal(
        np.sort((genes * 16).astype(int), axis=0), np.repeat(np.arange(16)[:, None], 2, axis=1)
    )


def test_a_sample_draws_from_its_generator_only_and_restores_pythons():
    random.seed(3)
    before = random.getstate()
    one = SPACE.sample(np.random.default_rng(7), 20)
    assert random.getstate() == before
    random.seed(99)
    assert SPACE.sample(np.random.default_rng(7), 20).tobytes() == one.tobytes()
    assert SPACE.sample(np.random.default_rng(8), 20).tobytes() != one.tobytes()


def test_types_hash_the_same_in_every_process():
    assert [hash(Number), hash(Condition)] == [6, 9]
    assert list({Number, Condition}) == list({Condition, Number})

    class Other:
        pass

    assert hash(Other) == object.__hash__(Other)  # negative control: an address, and so is any other class's

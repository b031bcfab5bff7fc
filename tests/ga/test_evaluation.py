import pickle

import numpy as np
import pytest

from compute.workers import SerialMapper, ThreadMapper
from ga.evaluation import Evaluator
from ga.space import GenomeSpace

SPACE = GenomeSpace(("a", "b"), [0.0, 1.0], [1.0, 9.0], ("real", "integer"))


class Counting:
    def __init__(self):
        self.sizes = []

    def __call__(self, genes):
        self.sizes.append(len(genes))
        return genes[:, 0] * 10 + np.floor(genes[:, 1] * 9)


def test_each_genome_is_paid_for_once():
    function = Counting()
    evaluator = Evaluator(function, SPACE, chunk_size=4)
    genes = np.random.default_rng(0).random((10, 2))
    first = evaluator(genes)
    assert function.sizes == [4, 4, 2]
    np.testing.assert_array_equal(first, genes[:, 0] * 10 + np.floor(genes[:, 1] * 9))
    again = evaluator(genes[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    assert (evaluator.evaluations, evaluator.hits) == (10, 10)
    assert function.sizes == [4, 4, 2]


def test_genomes_that_decode_to_the_same_values_share_an_evaluation():
    function = Counting()
    evaluator = Evaluator(function, SPACE)
    fitness = evaluator(np.array([[0.5, 0.01], [0.5, 0.02], [0.5, 0.99]]))
    assert function.sizes == [2]
    assert fitness[0] == fitness[1] != fitness[2]
    assert (evaluator.evaluations, evaluator.hits) == (2, 1)


def test_an_invalid_fitness_is_remembered_too():
    calls = []

    def fails(genes):
        calls.append(len(genes))
        return np.full(len(genes), np.nan)

    evaluator = Evaluator(fails, SPACE)
    genes = np.array([[0.5, 0.5]])
    assert np.isnan(evaluator(genes)[0])
    assert np.isnan(evaluator(genes)[0])
    assert calls == [1]


def test_no_genomes_have_no_fitness():
    assert Evaluator(Counting(), SPACE)(np.empty((0, 2))).shape == (0,)


def chunk_dependent(genes):
    return genes[:, 0] - genes[:, 0].mean()


class SplitByWorkers(Evaluator):
    """Wrong on purpose: cuts the batch into as many chunks as there are workers."""

    def __call__(self, genes):
        self._chunk_size = -(-len(genes) // self._mapper.n_workers)
        return super().__call__(genes)


@pytest.mark.parametrize(("kind", "same"), [(Evaluator, True), (SplitByWorkers, False)])
def test_chunks_do_not_depend_on_the_number_of_workers(kind, same):
    # Even a fitness that looks at its whole chunk, which it must not, cannot tell the workers apart.
    genes = np.random.default_rng(1).random((77, 2))
    results = []
    for mapper in (SerialMapper(), ThreadMapper(2), ThreadMapper(3)):
        with mapper:
            results.append(kind(chunk_dependent, SPACE, mapper)(genes).tobytes())
    assert (len(set(results)) == 1) is same


def test_a_wrong_fitness_shape_is_refused():
    genes = np.random.default_rng(0).random((3, 2))
    for wrong, shape in ((lambda g: g[:2, 0], r"\(2,\)"), (lambda g: g[:, 0].sum(), r"\(\)")):
        with pytest.raises(ValueError, match=f"returned shape {shape} for 3 genomes; it must return .3,."):
            Evaluator(wrong, SPACE)(genes)


def test_further_numbers_are_kept_once_per_evaluation_in_order():
    evaluator = Evaluator(lambda g: np.column_stack([g[:, 0], g[:, 0] + 1, g[:, 0] + 2]), SPACE, chunk_size=2)
    assert evaluator.details().shape == (0, 0)
    genes = np.random.default_rng(0).random((5, 2))
    np.testing.assert_array_equal(evaluator(genes), genes[:, 0])
    evaluator(genes)  # known by now
    np.testing.assert_array_equal(evaluator.details(), genes[:, :1] + [1, 2])


def test_an_error_of_the_fitness_arrives_unchanged():
    def broken(genes):
        raise ZeroDivisionError("bar 17")

    with ThreadMapper(2) as mapper, pytest.raises(ZeroDivisionError, match="bar 17"):
        Evaluator(broken, SPACE, mapper)(np.random.default_rng(0).random((50, 2)))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        Evaluator(broken, SPACE, chunk_size=0)


def test_an_answer_of_another_width_is_refused():
    evaluator = Evaluator(lambda g: np.tile(g[:, :1], 2 if g[0, 0] < 0.5 else 3), SPACE)
    evaluator(np.array([[0.1, 0.1]]))
    with pytest.raises(ValueError, match="returned 3 numbers per genome; it must return equally many"):
        evaluator(np.array([[0.9, 0.1]]))


# --- what is counted --------------------------------------------------------------------------------------


def test_the_hit_rate_is_the_share_of_offspring_that_cost_nothing():
    evaluator = Evaluator(Counting(), SPACE)
    first = np.array([[0.1, 0.1], [0.2, 0.2], [0.2, 0.2]])
    evaluator(first, 0)
    assert evaluator.hit_rate == 0.0  # the repeated genome of the initial population is no offspring
    evaluator(np.array([[0.1, 0.1], [0.3, 0.3], [0.4, 0.4], [0.4, 0.4]]), 1)
    np.testing.assert_array_equal(evaluator.known, [True, False, False, True])
    assert evaluator.hit_rate == 2 / 4
    assert (evaluator.evaluations, evaluator.hits, evaluator.asked) == (4, 3, 7)
    np.testing.assert_array_equal(evaluator.calls, [[0, 2, 1, 0], [1, 2, 2, 0]])


def test_a_witness_sees_every_new_evaluation_once_and_in_order():
    seen, rows = [], []

    def witness(keys, answers):
        seen.extend(keys)
        rows.append(answers)

    evaluator = Evaluator(Folds(), SPACE, chunk_size=4, witness=witness)
    genes = np.random.default_rng(0).random((10, 2))
    evaluator(genes[:6])
    evaluator(genes)
    evaluator(genes)
    assert len(seen) == len(set(seen)) == evaluator.evaluations == 10
    np.testing.assert_array_equal(np.concatenate(rows), Folds()(genes))


# --- windows ------------------------------------------------------------------------------------------------


class Folds:
    """Four folds per genome, of which each generation judges another one; a fifth number nobody reads."""

    rotates = True
    n_details = 4

    def __call__(self, genes):
        folds = np.floor(genes[:, :1] * 1000) * np.array([1.0, -1.0, 2.0, 0.5])
        return np.column_stack([self.score(folds, None), folds, genes[:, 0]])

    def score(self, details, generation):
        return details.mean(axis=1) if generation is None else details[:, generation % 4].copy()


class Forgetful(Evaluator):
    """Wrong on purpose: keeps the number that a genome was first told."""

    def fitness_of(self, genes, generation=None):
        return super().fitness_of(genes, 0)


@pytest.mark.parametrize(("kind", "same"), [(Evaluator, True), (Forgetful, False)])
def test_those_who_live_are_judged_as_a_fresh_evaluation_on_the_window_would(kind, same):
    genes = np.random.default_rng(2).random((9, 2))
    evaluator = kind(Folds(), SPACE)
    evaluator(genes, 0)
    for generation in (1, 2, 3, 4, None):
        fresh = Evaluator(Folds(), SPACE)(genes, generation)
        if generation != 4:  # the window of generation 0 again
            again = evaluator.fitness_of(genes, generation).tobytes() == fresh.tobytes()
            assert again is same
    assert evaluator.evaluations == 9  # no new trials
    if same:  # the choice on all windows is no question of the search
        assert evaluator.asked == 9 + 3 * 9
        evaluator(genes[:0], 5)
        np.testing.assert_array_equal(evaluator.calls[-1], [5, 0, 0, 27])
    assert evaluator.hit_rate == 0.0


def test_only_what_is_remembered_is_kept_and_a_stranger_is_not_guessed():
    evaluator = Evaluator(Folds(), SPACE)
    evaluator(np.array([[0.5, 0.5]]), 0)
    assert evaluator.details().shape == (1, 4)
    assert not evaluator.details().flags.writeable
    with pytest.raises(ValueError, match="row 1 was never evaluated"):
        evaluator.fitness_of(np.array([[0.5, 0.5], [0.6, 0.5]]), 1)
    assert not Evaluator(Counting(), SPACE).rotates


# --- what travels, and what is saved ----------------------------------------------------------------------


class Noting(SerialMapper):
    def __init__(self):
        super().__init__()
        self.functions = []

    def map(self, function, items):
        self.functions.append(function)
        return super().map(function, items)


def test_workers_get_one_callable_for_the_whole_run_and_none_of_the_memory():
    mapper = Noting()
    evaluator = Evaluator(Counting(), SPACE, mapper)
    rng = np.random.default_rng(0)
    for _ in range(5):
        evaluator(rng.random((50, 2)))
    assert len({id(function) for function in mapper.functions}) == 1
    assert len(pickle.dumps(mapper.functions[0])) < 1_000
    assert (
        len(pickle.dumps(Evaluator.fitness_of.__get__(evaluator))) > 5_000
    )  # what a bound method drags along


class WithoutCalls(Evaluator):
    """Wrong on purpose: forgets how it came by what it knows."""

    def restore(self, state):
        super().restore(state)
        self._hits = 0


@pytest.mark.parametrize(("kind", "same"), [(Evaluator, True), (WithoutCalls, False)])
def test_a_restored_evaluator_goes_on_bit_for_bit(kind, same):
    batches = np.round(np.random.default_rng(4).random((6, 30, 2)), 1)  # with repeats

    def go(evaluator, generations):
        for generation in generations:
            evaluator(batches[generation], generation)
            evaluator.fitness_of(batches[generation], generation + 1)

    def told(evaluator):
        numbers = evaluator.evaluations, evaluator.hits, evaluator.asked, evaluator.hit_rate
        return numbers, evaluator.calls.tobytes(), evaluator.details().tobytes()

    straight = Evaluator(Folds(), SPACE)
    go(straight, range(6))
    stopped = Evaluator(Folds(), SPACE)
    go(stopped, range(3))
    resumed = kind(Folds(), SPACE)
    resumed.restore(pickle.loads(pickle.dumps(stopped.state())))
    go(stopped, range(3, 6))  # the state is a copy: what goes on does not change it
    go(resumed, range(3, 6))
    assert (told(resumed) == told(straight)) is same
    assert told(stopped) == told(straight)
    np.testing.assert_array_equal(resumed(batches[0], 9), straight(batches[0], 9))
    fresh = Evaluator(Folds(), SPACE)
    fresh.restore(Evaluator(Folds(), SPACE).state())
    assert fresh.evaluations == 0
    assert fresh(batches[0], 0).tobytes() == Evaluator(Folds(), SPACE)(batches[0], 0).tobytes()


def test_a_state_whose_parts_do_not_belong_together_is_refused():
    evaluator = Evaluator(Folds(), SPACE)
    evaluator(np.random.default_rng(0).random((4, 2)))
    state = evaluator.state()
    for part in ("keys", "memory", "calls"):
        with pytest.raises(ValueError, match="these must agree"):
            Evaluator(Folds(), SPACE).restore({**state, part: state[part][:-1]})

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

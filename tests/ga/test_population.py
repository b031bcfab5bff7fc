import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ga.population import Population
from tests.reference import ga_operators as reference


def population(p=4, d=3, **change):
    rng = np.random.default_rng(0)
    arrays = {
        "genes": rng.random((p, d)),
        "fitness": np.arange(p, dtype=float),
        "age": np.zeros(p, dtype=int),
        "evaluated": np.ones(p, dtype=bool),
    }
    return Population(**{**arrays, **change})


def test_the_best_is_the_fittest_evaluated_individual():
    assert population().best == 3
    assert population(evaluated=[True, True, False, False]).best == 1
    assert population(fitness=[2.0, 5.0, 5.0, 1.0]).best == 1  # the first of equals
    assert population(fitness=[-np.inf] * 4).best == 0


def test_nobody_is_best_before_anybody_is_evaluated():
    with pytest.raises(ValueError, match="no individual is evaluated yet"):
        _ = population(fitness=[np.nan] * 4, evaluated=[False] * 4).best


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_diversity_equals_the_naive_twin(p, d, seed):
    genes = np.random.default_rng(seed).random((p, d))
    one = Population(genes, np.zeros(p), np.zeros(p), np.ones(p))
    np.testing.assert_allclose(one.diversity, reference.diversity(genes.tolist()), rtol=1e-12, atol=1e-15)


def test_diversity_knows_clones_and_uniform_genes():
    assert population(genes=np.full((4, 3), 0.3)).diversity < 1e-16
    uniform = np.random.default_rng(2).random((5000, 4))
    one = Population(uniform, np.zeros(5000), np.zeros(5000), np.ones(5000))
    assert one.diversity == pytest.approx(1 / np.sqrt(12), rel=0.02)


def test_a_population_does_not_follow_changes_of_the_callers_arrays():
    genes = np.full((4, 3), 0.5)
    one = population(genes=genes)
    genes[0, 0] = 0.9
    assert one.genes[0, 0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        one.genes[0, 0] = 0.1


def test_ragged_arrays_are_refused():
    with pytest.raises(ValueError, match=r"fitness has shape \(3,\); 4 genomes need \(4,\)"):
        population(fitness=np.zeros(3))
    with pytest.raises(ValueError, match=r"genes have shape \(0, 3\)"):
        population(genes=np.zeros((0, 3)))
    with pytest.raises(ValueError, match="evaluated individual is NaN"):
        population(fitness=[0.0, np.nan, 0.0, 0.0])

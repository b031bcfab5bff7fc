"""The distribution of genes over the generations, against NumPy's own quantiles."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ga.gene_history import QUANTILES, GeneHistory
from ga.space import GenomeSpace


def space(d):
    return GenomeSpace(tuple(f"g{i}" for i in range(d)), np.full(d, -1.0), np.full(d, 3.0), ("real",) * d)


def genes(p, d, seed=0):
    return np.random.default_rng(seed).random((p, d))


def told(generations, d=3, p=20):
    history = GeneHistory(space(d))
    for g in generations:
        history.add(g, genes(p, d, g))
    return history


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.floats(0.0, 1.0)
    )
)
def test_quantiles_are_those_of_numpy(population):
    before = population.copy()
    for layout in (np.ascontiguousarray, np.asfortranarray):
        given_genes = layout(population)
        history = GeneHistory(space(population.shape[1]))
        history.add(0, given_genes)
        expected = np.quantile(population, QUANTILES, axis=0)
        np.testing.assert_allclose(history.quantiles()[0], expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(given_genes, before)  # the population itself is not sorted


def test_a_read_only_population_of_one_is_taken_as_it_is():
    alone = genes(1, 4)
    alone.flags.writeable = False
    history = GeneHistory(space(4))
    history.add(0, alone)
    assert (history.quantiles()[0] == alone[0].astype(np.float32)).all()


def test_a_search_is_noted_by_its_generation_and_its_population():
    history = GeneHistory(space(3))
    for g in range(3):
        history.note(
            SimpleNamespace(
                progress=SimpleNamespace(generation=g), population=SimpleNamespace(genes=genes(9, 3, g))
            )
        )
    assert len(history) == 3
    expected = np.quantile(genes(9, 3, 2), QUANTILES, axis=0)
    np.testing.assert_allclose(history.quantiles()[2], expected, rtol=1e-6)


def test_a_long_history_keeps_its_beginning():
    short, long = told(range(3)), told(range(200))
    assert len(long) == 200
    assert (long.quantiles()[:3] == short.quantiles()).all()
    assert np.isfinite(long.quantiles()).all()


def test_a_restored_history_goes_on_as_if_nothing_had_happened():
    whole = told(range(150))
    for stop in (0, 1, 64, 100):
        resumed = GeneHistory(space(3))
        resumed.restore(told(range(stop)).state())
        for g in range(stop, 150):
            resumed.add(g, genes(20, 3, g))
        assert resumed.quantiles().tobytes() == whole.quantiles().tobytes()


def test_a_state_does_not_change_with_the_search_it_was_taken_from():
    history = told(range(3))
    state = history.state()
    before = state["quantiles"].copy()
    history.add(2, genes(20, 3, 99))
    assert (state["quantiles"] == before).all()
    assert (history.quantiles()[2] != before[2]).any()


def test_a_generation_that_is_told_again_replaces_itself_and_forgets_the_rest():
    history = told(range(10))
    history.add(4, genes(20, 3, 77))
    assert len(history) == 5
    assert (history.quantiles()[:4] == told(range(4)).quantiles()).all()
    expected = np.quantile(genes(20, 3, 77), QUANTILES, axis=0)
    np.testing.assert_allclose(history.quantiles()[4], expected, rtol=1e-6)


def test_a_generation_that_nobody_told_is_unknown():
    history = told((0, 1, 5, 90))
    unknown = np.isnan(history.quantiles()).all(axis=(1, 2))
    assert np.flatnonzero(~unknown).tolist() == [0, 1, 5, 90]


def test_arrays_survive_a_file_and_say_what_they_mean(tmp_path):
    history = told(range(4))
    np.savez(tmp_path / "genes.npz", **history.arrays())
    with np.load(tmp_path / "genes.npz", allow_pickle=False) as stored:
        assert (stored["quantiles"] == history.quantiles()).all()
        assert stored["names"].tolist() == ["g0", "g1", "g2"]
        assert stored["shares"].tolist() == list(QUANTILES)
        assert stored["low"].tolist() == [-1.0] * 3
        assert stored["high"].tolist() == [3.0] * 3


def test_what_is_no_population_of_these_genes_is_refused():
    history = GeneHistory(space(3))
    for generation, shape in ((0, (5, 2)), (0, (0, 3)), (-1, (5, 3))):
        with pytest.raises(ValueError, match=r"it needs \(p, 3\)"):
            history.add(generation, np.zeros(shape))
    assert len(history) == 0
    with pytest.raises(ValueError, match=r"needs \(g, 7, 3\)"):
        history.restore(told(range(2), d=2).state())
    with pytest.raises(ValueError, match="read-only"):
        told(range(2)).quantiles()[0] = 0.0

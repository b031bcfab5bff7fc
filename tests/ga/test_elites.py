import math
import sys

import numpy as np
import pytest

from configs.load import ConfigError
from ga.controls import Hyperparameters
from ga.elites import Axis, MapElites, qd_score
from ga.space import GenomeSpace

pytest.importorskip("ribs")

AXES = (Axis("pace", 1.0, 100.0, 8, log=True), Axis("lean", -1.0, 1.0, 5))
STEPS = MapElites.DEFAULT
THREE = (*STEPS, "improvement")  # CMA-ES compiles for seconds, once


def unit_space(d=6):
    return GenomeSpace(tuple(f"x{i}" for i in range(d)), np.zeros(d), np.ones(d), ("real",) * d, name="cube")


def answers(genes):
    """An objective that is best at 0.4, and two measures of behavior."""
    measures = np.column_stack([10.0 ** (2.2 * genes[:, 0]) - 0.1, 2.4 * genes[:, 1] - 1.2])
    return 0.5 - ((genes - 0.4) ** 2).sum(axis=1), measures


def searching(emitters=STEPS, p=40, generations=20, seed=1, patience=0):
    run = Hyperparameters(population_size=p, n_generations=generations, patience=patience)
    return MapElites(unit_space(), AXES, run, seed, emitters)


def finished(search):
    while not search.finished:
        search.tell(*answers(search.ask()))
    return search


def fingerprint(search):
    elites = search.elites
    arrays = (elites.genes, elites.objective, elites.measures, elites.cells, elites.born)
    return [array.tobytes() for array in arrays], search.logbook


@pytest.mark.parametrize("emitters", [("gaussian",), ("line",), ("improvement",), THREE])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(emitters):
    one, same, other = (finished(searching(emitters, seed=seed)) for seed in (1, 1, 2))
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("emitters", [STEPS, THREE])
def test_a_search_that_is_stopped_and_restored_goes_on_bit_for_bit(emitters):
    whole, first, second = (searching(emitters) for _ in range(3))
    for _ in range(7):
        first.tell(*answers(first.ask()))
    second.restore(first.state())
    assert second.progress.generation == 6
    assert fingerprint(finished(second)) == fingerprint(finished(whole))


def test_a_state_with_one_answer_changed_goes_on_otherwise():
    first, second, third = searching(), searching(), searching()
    for _ in range(3):
        first.tell(*answers(first.ask()))
    state = first.state()
    second.restore(state)
    state["told"][0][:, 0] = -state["told"][0][:, 0]
    third.restore(state)
    assert fingerprint(finished(second)) != fingerprint(finished(third))


def test_a_state_of_another_seed_or_for_a_search_under_way_is_refused():
    first = searching()
    first.tell(*answers(first.ask()))
    with pytest.raises(ValueError, match="the state is of seed 1"):
        searching(seed=2).restore(first.state())
    with pytest.raises(ValueError, match="a new search"):
        first.restore(first.state())


def test_every_cell_keeps_the_best_genome_that_was_told_for_it():
    search, best = searching(p=60, generations=15), {}
    while not search.finished:
        genes = search.ask()
        objective, measures = answers(genes)
        for row, value, (pace, lean) in zip(genes, objective.tolist(), measures.tolist(), strict=True):
            cell = (
                min(max(math.floor(8 * math.log(max(pace, 1e-9)) / math.log(100.0)), 0), 7),
                min(max(math.floor(5 * (lean + 1.0) / 2.0), 0), 4),
            )
            if cell not in best or value > best[cell][0]:
                best[cell] = (value, row.tobytes())
        search.tell(objective, measures)
    elites = search.elites
    found = {
        tuple(cell): (value, genes.tobytes())
        for cell, value, genes in zip(
            elites.cells.tolist(), elites.objective.tolist(), elites.genes, strict=True
        )
    }
    assert found == best
    assert len(found) == 40 * search.progress.coverage
    objective, measures = answers(elites.genes)
    assert np.array_equal(objective, elites.objective)
    assert np.array_equal(measures, elites.measures)
    assert elites.born.max() > 0


@pytest.mark.parametrize("emitters", [("gaussian",), ("line",), THREE])
def test_emitters_fill_the_archive_better_than_random_genomes(emitters):
    search, sampled = (
        finished(searching(emitters, generations=30)),
        finished(searching(("sample",), generations=30)),
    )
    assert search.progress.evaluations == sampled.progress.evaluations == 31 * 40
    assert search.progress.qd_score > 1.15 * sampled.progress.qd_score


def test_genomes_stay_in_the_cube_and_are_as_many_as_asked_for():
    search = searching(MapElites.EMITTERS, p=53, generations=12)
    while not search.finished:
        genes = search.ask()
        assert genes.shape == (53, 6)
        assert ((genes >= 0.0) & (genes <= 1.0)).all()
        with pytest.raises(ValueError, match="read-only"):
            genes[0, 0] = 0.5
        search.tell(*answers(genes))


def test_what_is_not_finite_never_becomes_an_elite():
    search = searching(generations=3)
    genes = search.ask()
    objective, measures = answers(genes)
    objective[::2] = np.nan
    measures[1] = np.nan
    search.tell(objective, measures)
    assert search.progress.invalid == 20
    assert np.isin(search.elites.objective, objective[1::2]).all()
    finished(search)
    assert np.isfinite(search.elites.objective).all()
    nothing = searching(generations=2)
    while not nothing.finished:
        nothing.tell(np.full(40, np.nan), answers(nothing.ask())[1])
    assert len(nothing.elites) == 0
    assert nothing.progress.best == -math.inf


def test_the_score_counts_what_is_earned_and_never_falls():
    assert qd_score([1.0, -5.0, 0.25]) == 1.25
    assert qd_score([]) == 0.0
    rows = finished(searching(generations=30)).logbook
    score = [row["qd_score"] for row in rows]
    assert score == sorted(score)
    assert score[-1] > 1.5 * score[0]


def test_patience_ends_a_search_that_stands_still():
    search = searching(patience=4, generations=50)
    while not search.finished:
        search.ask()
        search.tell(np.zeros(40), np.zeros((40, 2)))
    assert search.progress.generation == 4


def test_asking_and_telling_out_of_turn_is_refused():
    search = searching(generations=1)
    with pytest.raises(RuntimeError, match="without ask"):
        search.tell(np.zeros(40), np.zeros((40, 2)))
    search.ask()
    with pytest.raises(RuntimeError, match="twice"):
        search.ask()
    with pytest.raises(RuntimeError, match="between ask"):
        search.state()
    with pytest.raises(ValueError, match="one row per genome"):
        search.tell(np.zeros(40), np.zeros((40, 3)))
    search.tell(*answers(np.zeros((40, 6))))
    finished(search)
    with pytest.raises(RuntimeError, match="finished"):
        search.ask()


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"low": 2.0, "high": 1.0, "bins": 3}, "must increase"),
        ({"low": 0.0, "high": math.inf, "bins": 3}, "must increase"),
        ({"low": 0.0, "high": 1.0, "bins": 3, "log": True}, "starts above 0"),
        ({"low": 0.0, "high": 1.0, "bins": 0}, "at least 1"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(axis, message):
    with pytest.raises(ValueError, match=message):
        Axis("pace", **axis)
    with pytest.raises(ValueError, match="emitters are"):
        searching(("gaussian", "guess"))


def test_the_ends_of_an_axis_hold_what_lies_beyond():
    assert AXES[0].scaled(np.array([0.0, 1.0, 10.0, 100.0, 1e9])).tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert AXES[0].edges == pytest.approx(np.geomspace(1, 100, 9))
    assert AXES[1].edges == pytest.approx([-1, -0.6, -0.2, 0.2, 0.6, 1])


def test_without_pyribs_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ribs.archives", None)
    with pytest.raises(ConfigError, match=r"regime-conductor\[diversity\]") as refused:
        searching()
    assert "\n" not in str(refused.value)

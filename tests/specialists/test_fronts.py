import json

import numpy as np
import pytest

from compute.workers import SerialMapper, ThreadMapper
from configs.load import ConfigError, PluginConfig
from experiments.runs import Run
from ga import pareto
from ga.multiobjective import FRONT_CONTROLS, METHODS
from specialists.fitness import FitnessConfig
from specialists.fronts import FrontConfig, FrontSearch, evolve_front, knee, save_front
from specialists.objectives import OBJECTIVES
from specialists.training import SpecialistSearch, open_test, prepare
from tests.specialists.ground import small_config, small_evolved, small_ground


def evolved(method="nsga2", workers=None, config=None, **settings):
    return evolve_front(
        small_ground(),
        config or small_config(),
        workers or SerialMapper(),
        method=method,
        settings=FrontConfig(**settings),
    )


def fingerprint(front):
    one = front.evolved
    return (
        front.objectives.tobytes(),
        [genome.genes.tobytes() for genome in front.genomes],
        front.chosen,
        one.specialist.fingerprint(),
        one.in_sample.curve.values.tobytes(),
        one.trial_sharpes.tobytes(),
        json.dumps(one.generations),
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_front_with_one_thread_or_two(method):
    expected = fingerprint(evolved(method))
    for workers in (ThreadMapper(1), ThreadMapper(2)):
        with workers:
            assert fingerprint(evolved(method, workers)) == expected
    assert fingerprint(evolved(method, config=small_config(seed=8))) != expected


@pytest.mark.parametrize("method", METHODS)
def test_a_search_for_a_front_that_is_stopped_goes_on_bit_for_bit(method):
    def search():
        return FrontSearch(SpecialistSearch.of(small_ground(), small_config()), SerialMapper(), method=method)

    first, second = search(), search()
    for _ in range(3):
        first.step()
    second.restore(first.state())
    while not second.finished:
        second.step()
    assert fingerprint(second.front()) == fingerprint(evolved(method))
    assert second.trials.n_seen == second.evaluator.evaluations


def test_no_member_of_the_front_beats_another_and_the_chosen_one_is_among_them():
    front = evolved()
    assert (pareto.front_ranks(front.objectives) == 0).all()
    assert front.evolved.specialist.genome.genes.tobytes() == front.genomes[front.chosen].genes.tobytes()
    assert front.evolved.hall_of_fame[0] is front.genomes[front.chosen]
    assert len(set(front.ids)) == len(front.genomes) == len(front.evolved.hall_of_fame)
    assert front.evolved.in_sample.metrics.max_drawdown == pytest.approx(front.objectives[front.chosen, 1])


def test_every_evaluation_of_a_front_counts_as_a_trial():
    calls = []
    front = evolve_front(
        small_ground(), small_config(), SerialMapper(), lambda e, v: calls.append((e.progress, v.evaluations))
    )
    one = front.evolved
    assert one.n_unique == len(one.trial_sharpes) == one.trials.n_seen == calls[-1][1]
    assert one.n_evaluated == one.n_unique + one.n_avoided == one.generations[-1]["evaluations"]
    assert [progress.generation for progress, _ in calls] == list(range(5))


def test_the_chosen_specialist_goes_through_the_usual_test():
    front = evolved()
    unseen = open_test(small_ground(), front.evolved.specialist, small_config().costs)
    assert len(unseen.champion.curve) == len(unseen.held.curve)


def test_a_longer_search_finds_a_larger_front():
    config = small_config(hyperparameters={"population_size": 64, "n_generations": 15, "patience": 0})
    front, early = evolved(config=config), evolved()
    assert front.hypervolume > early.hypervolume
    assert len(front.genomes) > len(early.genomes)
    assert max(genome.fitness for genome in front.genomes) > 0.5 * small_evolved().fitness


def test_the_chosen_one_gives_up_least_of_every_objective():
    corners = np.array([[1.0, -0.5, -100.0], [0.9, -0.1, -20.0], [0.1, 0.0, -10.0]])
    assert knee(corners) == 1
    assert knee(corners * [10.0, 0.2, 3.0]) == 1  # units are no part of the rule
    assert knee(np.array([[0.1, -0.5, -9.0], [-0.2, 0.0, 0.0]])) == 0
    assert knee(np.array([[-0.3, -0.1, 0.0], [-0.2, -0.9, -99.0]])) == 1
    assert knee(np.array([[0.5, -0.1, -1.0]])) == 0


def test_altering_the_test_rows_changes_no_front():
    from dataclasses import replace

    bars = small_ground().bars
    values = bars.values.copy()
    cut = small_ground().split.train.stop
    values[cut:, :4] = values[cut:, :4][::-1] * 3.0
    altered = prepare(replace(bars, values=values), small_config())
    again = evolve_front(altered, small_config(), SerialMapper())
    assert fingerprint(again) == fingerprint(evolved())


def test_a_front_is_saved_as_json_and_picture(tmp_path):
    front = evolved()
    run = Run.open(tmp_path, "evolve", "volatile")
    captions = save_front(run, front, "volatile specialist")
    found = json.loads((run.folder / "front.json").read_text())
    assert found["chosen"] == front.ids[front.chosen]
    assert [one["id"] for one in found["front"]] == list(front.ids)
    saved = [[one["objectives"][name] for name in OBJECTIVES] for one in found["front"]]
    assert np.array_equal(saved, front.objectives)
    assert set(found["front"][0]["genes"]) == set(front.evolved.specialist.genes_by_name())
    assert [(run.folder / path).read_bytes()[:4] for path in captions] == [b"\x89PNG"]


def test_controls_are_those_for_fronts_unless_the_policy_has_settings():
    row = evolved().evolved.generations[-1]
    assert row.items() >= FRONT_CONTROLS.to_dict().items()
    config = small_config(policy=PluginConfig(name="fixed", mutation_rate=0.25))
    row = evolved(config=config).evolved.generations[-1]
    assert row["mutation_rate"] == 0.25
    assert row["tournament_size"] != FRONT_CONTROLS.tournament_size
    config = small_config(policy=PluginConfig(name="scheduled"))
    steps = [row["mutation_step"] for row in evolved(config=config).evolved.generations[1:]]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0]


def test_a_policy_that_needs_a_single_fitness_is_refused():
    class Adapting:
        def controls(self, progress):
            return FRONT_CONTROLS

    ready = SpecialistSearch.of(small_ground(), small_config(), policy=Adapting())
    with pytest.raises(ConfigError, match="must be fixed or scheduled"):
        FrontSearch(ready, SerialMapper())


@pytest.mark.parametrize(
    ("changes", "method", "message"),
    [
        ({}, "nsga9", "must be nsga2 or nsga3"),
        ({"fitness": FitnessConfig(folds=4, rotation=0.5)}, "nsga2", "fitness.rotation is 0.5"),
        ({"islands": {"count": 2}}, "nsga2", "islands.count is 2"),
        ({"fitness": FitnessConfig(folds=4, min_trades=5_000)}, "nsga3", "fitness.min_trades is 5000"),
    ],
)
def test_settings_that_no_front_can_have_are_refused_in_one_sentence(changes, method, message):
    with pytest.raises(ConfigError, match=message) as refused:
        evolved(method, config=small_config(**changes))
    assert "\n" not in str(refused.value)

"""Evolution strategies: they climb, resume bit for bit, and never keep anything worse than the beginning."""

import numpy as np
import pytest

from compute.workers import SerialMapper
from conductor.conducting import Conducting
from conductor.curriculum import Batch, Landscapes, Mixture
from conductor.network import VARIANTS, flat, new_network, put, tensors
from conductor.sight import Outlook, inputs_of
from conductor.static_tuning import StaticTuningConfig, cma_minimum, tune_static
from conductor.steering import Steering
from conductor.strategies import FineTuning, Strategies, StrategiesConfig
from conductor.tasks import TaskSampler
from ga.controls import GAControls
from ga.variation import Variation

SIZES = {"dimensions": (3,), "sizes": ((8, 6),)}
SOURCE = Landscapes(TaskSampler("train", 3, **SIZES))
VALIDATION = Landscapes(TaskSampler("validation", 3, **SIZES)).batch(0, 6)
SMALL = StrategiesConfig(generations=4, pairs=2, tasks=3, validate_every=2)
STEERING = Steering.around(GAControls())


def fine_tuning(config=SMALL, seed=1, **further):
    network = new_network("es", {"hidden": 3}, 5)
    mapper = SerialMapper()
    return FineTuning(network, SOURCE, VALIDATION, STEERING, Variation(), config, seed, mapper), network


def test_strategies_find_the_minimum_of_a_bowl_and_their_average_is_nearer_than_their_beginning():
    target = np.linspace(-1.0, 1.0, 20)
    config = StrategiesConfig(generations=200, pairs=8, learning_rate=0.05, decay=0.0)
    search = Strategies(np.zeros(20), config, seed=4)
    for _ in range(200):
        search.tell(np.square(search.ask() - target).sum(axis=1))
    assert np.abs(search.mean - target).max() < 0.15
    assert np.abs(search.average - target).max() < 0.15


def test_candidates_and_steps_are_shorter_where_there_are_many_weights():
    few, many = (Strategies(np.zeros(n), SMALL, seed=2) for n in (100, 1000))
    spreads = []
    for search in (few, many):
        spreads.append(search.ask().std())
        search.tell(np.arange(4.0))
    assert spreads[0] == pytest.approx(SMALL.sigma, rel=0.2)
    assert spreads[1] == pytest.approx(0.4 * SMALL.sigma, rel=0.1)
    assert np.abs(many.mean).max() < 0.5 * np.abs(few.mean).max()


def test_only_ranks_of_the_losses_count():
    searches = [Strategies(np.zeros(5), SMALL, seed=2) for _ in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        losses = rng.normal(size=4)
        searches[0].tell(losses)
        searches[1].tell(np.exp(3.0 * losses))
    np.testing.assert_array_equal(searches[0].mean, searches[1].mean)


def test_candidates_are_pairs_on_both_sides_of_the_mean_and_others_in_each_generation():
    search = Strategies(np.ones(5), SMALL, seed=2)
    first = search.ask()
    np.testing.assert_allclose(first[:2] + first[2:], 2.0, rtol=1e-12)
    np.testing.assert_array_equal(first, search.ask())
    search.tell(np.arange(4.0))
    assert not np.allclose(first - first.mean(axis=0), search.ask() - search.ask().mean(axis=0))


def test_a_resumed_fine_tuning_ends_with_the_same_bits():
    whole, network = fine_tuning()
    whole.run()
    first, _ = fine_tuning()
    first.step()
    first.step()
    state = first.state()
    second, resumed = fine_tuning()
    second.restore(state)
    second.run()
    np.testing.assert_array_equal(flat(network), flat(resumed))
    assert whole.curve == second.curve


def test_weights_that_validation_finds_worse_are_not_kept():
    # A step so large that the search walks away from everything that works.
    config = SMALL.model_copy(update={"learning_rate": 1.0, "sigma": 5.0})
    tuning, network = fine_tuning(config)
    begin = flat(network)
    tuning.run()
    kept = min(tuning.curve, key=lambda row: row["objective"])
    assert kept["objective"] <= 0.0
    if kept["generation"] == 0.0:
        np.testing.assert_array_equal(flat(network), begin)


def test_a_new_network_conducts_exactly_as_the_tuned_fixed_controls_do():
    for name in ("es", "dann", "hybrid", "specific", "multitask", "committee", "transformer"):
        network = VARIANTS.create(name, {})
        batch = SOURCE.batch(5, 6)
        conducting = Conducting(network, STEERING, batch.outlook)
        conducted = batch.environment(mapper=SerialMapper()).run(conducting)
        fixed = batch.environment(mapper=SerialMapper()).run_fixed(STEERING.controls.to_array())
        np.testing.assert_array_equal(conducted.best, fixed.best)


def test_a_candidate_says_in_one_batch_with_others_what_it_says_alone():
    network = VARIANTS.create("es", {"hidden": 3})
    rng = np.random.default_rng(1)
    weights = flat(network) + rng.normal(0.0, 0.3, (3, flat(network).size))
    batch = SOURCE.batch(2, 4)
    environment = batch.repeated(3).environment(mapper=SerialMapper())
    environment.step()
    outlook = batch.repeated(3).outlook
    inputs = tensors(inputs_of(environment, outlook))
    together = Conducting(network, STEERING, outlook, weights).residual(inputs)
    assert np.ptp(together.reshape(3, 4, 12), axis=0).max() > 0.01
    for i, one in enumerate(weights):
        put(network, one)
        alone = Conducting(network, STEERING, outlook).residual(inputs)
        np.testing.assert_allclose(together[4 * i : 4 * i + 4], alone[4 * i : 4 * i + 4], atol=1e-5)


def test_tuned_controls_beat_the_ones_they_began_with_on_unseen_instances():
    begin = GAControls(mutation_step=1e-4, crossover_rate=0.0, differential_rate=0.0, tournament_size=1.0)
    tuned = tune_static(
        SOURCE,
        Variation(),
        StaticTuningConfig(iterations=15, candidates=8, tasks=24),
        3,
        SerialMapper(),
        start=begin,
    )
    batch = SOURCE.batch(99, 120)
    scored = [
        batch.scores(batch.environment(mapper=SerialMapper()).run_fixed(one.to_array())).final.mean()
        for one in (tuned.controls, begin)
    ]
    assert scored[0] < scored[1]


def test_tuning_gives_the_same_controls_again_and_leaves_the_global_generator_alone():
    def squares(points, iteration):
        return np.square(points - 1.0).sum(axis=1)

    config = StaticTuningConfig(iterations=8, candidates=6)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = [cma_minimum(squares, np.zeros(4), config, seed=5) for _ in range(2)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert np.square(found[0] - 1.0).sum() < 4.0


def test_a_mixture_gives_each_source_its_share_and_every_source_a_task():
    other = Landscapes(TaskSampler("train", 9, dimensions=(4,), sizes=((8, 6),)))
    batch = Mixture((SOURCE, other), (0.75, 0.25)).batch(0, 12)
    dimensions = [task.dimension for task in batch.tasks]
    assert dimensions == [3] * 9 + [4] * 3
    assert [task.dimension for task in Mixture((SOURCE, other), (0.999, 0.001)).batch(0, 4).tasks][-1] == 4
    with pytest.raises(ValueError, match="cannot come from 2 sources"):
        Mixture((SOURCE, other), (1.0, 1.0)).batch(0, 1)


def test_scores_of_copies_of_a_batch_are_read_with_its_floors():
    batch = SOURCE.batch(0, 3)
    lifted = Batch(batch.tasks, Outlook.unknown(3), np.array([1e-8, 1e3, 1e-8]))
    outcome = lifted.environment(copies=2, mapper=SerialMapper()).run_fixed(GAControls().to_array())
    np.testing.assert_array_equal(lifted.scores(outcome).final[[1, 4]], 3.0)
    with pytest.raises(ValueError, match="no whole copies"):
        lifted.scores(
            SOURCE.batch(0, 4).environment(mapper=SerialMapper()).run_fixed(GAControls().to_array())
        )

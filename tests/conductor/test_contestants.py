"""Contestants: twins that follow ``ga`` to the bit, rivals that learn elsewhere, and budgets that hold.

Broken rivals stand beside the real ones: a twin with another speed, a champion of another run, a blindfold
that hides nothing. The same comparisons must tell them apart.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.special import logit

from compute.workers import SerialMapper
from conductor import contestants as contestants_module
from conductor.ablations import (
    Conducted,
    Untrained,
    habits,
    shuffled,
    without_market,
    without_population,
)
from conductor.adaptive import Bandit, OneFifth, SuccessHistory
from conductor.conducting import Conducting
from conductor.contestants import (
    DEAP_VARIATION,
    PYMOO_VARIATION,
    Fixed,
    RandomControl,
    Schedule,
    Scheduled,
    Steered,
    deap_defaults,
    pymoo_defaults,
    tuned_schedule,
)
from conductor.curriculum import Batch, Landscapes
from conductor.lineup import RIVALS
from conductor.model import Conductor
from conductor.network import VARIANTS
from conductor.outside import (
    Counter,
    Outside,
    Spent,
    cma_es,
    differential_evolution,
    fitness_of,
    random_search,
)
from conductor.sight import Inputs, Outlook
from conductor.state import KNOWN, MARKET, PROGRESS_NAMES, STATE_NAMES
from conductor.static_tuning import StaticTuningConfig
from conductor.steering import Steering
from conductor.tasks import Instance, Task, TaskSampler
from ga import breeding_kernels
from ga.adaptive_policies import BanditConfig, OneFifthConfig, SuccessHistoryConfig
from ga.controls import CONTROL_NAMES, CONTROL_RANGES, POLICIES, SMOOTH, GAControls, places_of
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.progress import STATISTIC_NAMES
from ga.space import GenomeSpace
from ga.variation import Variation

MAPPER = SerialMapper()
STEERING = Steering.around(SMOOTH)
#: By policy of ``ga``: settings, and the twin with them.
TWINS = {
    "one_fifth": (OneFifthConfig(mutation_step=0.1, differential_rate=0.2), OneFifth),
    "success_history": (SuccessHistoryConfig(memory=3), SuccessHistory),
    # A window that forgets within the run, and a policy that tries all arms before.
    "bandit": (BanditConfig(window=8, exploration=0.5), Bandit),
}


def batch_of(n_families=3, population_size=12, n_generations=14, dimension=4, first=0):
    families = ("sphere", "rastrigin", "rosenbrock", "ackley", "steps")
    tasks = tuple(
        Task(
            Instance(families[i % len(families)], 5 + i), dimension, population_size, n_generations, first + i
        )
        for i in range(n_families)
    )
    n = len(tasks)
    return Batch(tasks, Outlook.unknown(n), np.full(n, 1e-8))


def conductor_of(scale=0.5, seed=0):
    network = VARIANTS.create("es", {})
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.head.weight.normal_(std=scale) if scale else None
    return Conductor("es", network, STEERING)


def best_of(contestant, batch):
    return contestant.run(batch, Variation(), MAPPER).outcome.best


def in_ga(task, policy):
    """The same run through ``ga``, steered by its own policy."""
    landscape, d = task.landscape(), task.dimension
    space = GenomeSpace(tuple(f"x{j}" for j in range(d)), np.zeros(d), np.ones(d), ("real",) * d)
    evaluator = Evaluator(lambda genes: -landscape(genes), space)
    evolution = Evolution(space, task.hyperparameters, np.random.default_rng(task.seed), stagnation_guard=10)
    evolution.tell(evaluator(evolution.ask()), cached=int(evaluator.known.sum()))
    while not evolution.finished:
        genes = evolution.ask(policy.controls(evolution.progress))
        evolution.tell(evaluator(genes), cached=int(evaluator.known.sum()))
    return evolution.population


def same_as_ga(name, batch, twin):
    """Whether the runs of a batch, steered by a twin, end with the populations of ``ga``."""
    config = TWINS[name][0]
    environment = batch.environment(Variation(), mapper=MAPPER)
    environment.run(twin)
    for b, task in enumerate(batch.tasks):
        theirs = in_ga(task, POLICIES.create(name, config.model_dump()))
        genes, fitness, _ = environment.population(b)
        if not (np.array_equal(genes, theirs.genes) and np.array_equal(fitness, theirs.fitness)):
            return False
    return True


@pytest.mark.parametrize("name", list(TWINS))
def test_every_run_of_a_batch_follows_the_policy_of_ga_to_the_bit(name):
    config, twin = TWINS[name]
    batch = batch_of(5, population_size=16, n_generations=30)
    assert same_as_ga(name, batch, twin(len(batch), config))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("one_fifth", {"speed": 0.31}),
        ("success_history", {"memory": 4}),
        ("bandit", {"window": 9, "exploration": 0.4}),
    ],
)
def test_a_twin_with_another_setting_is_told_apart(name, change):
    config, twin = TWINS[name]
    batch = batch_of(5, population_size=16, n_generations=30)
    assert not same_as_ga(name, batch, twin(len(batch), config.model_copy(update=change)))


def test_the_libraries_keep_their_own_distribution_indices():
    task = batch_of(1).tasks[0]
    assert breeding_kernels.binary_index(pymoo_defaults(task).crossover_spread) == pytest.approx(15.0)
    assert breeding_kernels.polynomial_index(pymoo_defaults(task).mutation_step) == pytest.approx(20.0)
    assert pymoo_defaults(task).mutation_rate == 1.0 / task.dimension
    assert deap_defaults(task).tournament_size == 3.0


def test_a_schedule_of_one_row_is_fixed_controls():
    batch = batch_of()
    constant = Scheduled("constant", Schedule(SMOOTH.to_unit()[None]))
    fixed = Fixed.at("fixed", GAControls.from_unit(SMOOTH.to_unit()))
    assert np.array_equal(best_of(constant, batch), best_of(fixed, batch))
    moved = Scheduled("moved", Schedule(np.array([SMOOTH.to_unit(), GAControls().to_unit()])))
    assert not np.array_equal(best_of(moved, batch), best_of(fixed, batch))


def test_a_schedule_runs_from_its_first_row_to_its_last_by_the_clock_of_each_run():
    rng = np.random.default_rng(0)
    schedule = Schedule(rng.random((3, 12)))
    short, long = batch_of(1, n_generations=5).tasks[0], batch_of(1, n_generations=9).tasks[0]
    controls = schedule.controls([short, long])
    assert controls.shape == (9, 2, 12)
    places = places_of(controls)
    for b, task in enumerate((short, long)):
        assert places[0, b] == pytest.approx(schedule.places[0])
        assert places[(task.n_generations - 1) // 2, b] == pytest.approx(schedule.places[1])
        assert places[task.n_generations - 1, b] == pytest.approx(schedule.places[2])
    # Halfway to the middle of the long run a logarithmic control has gone half the way in factors.
    step = CONTROL_NAMES.index("mutation_step")
    assert controls[2, 1, step] == pytest.approx(np.sqrt(controls[0, 1, step] * controls[4, 1, step]))


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.just(12)), elements=st.floats(0, 1)))
def test_a_schedule_survives_being_written_and_stays_in_the_box(places):
    schedule = Schedule(places)
    assert np.array_equal(Schedule.from_dict(schedule.to_dict()).places, places)
    controls = schedule.controls(batch_of(1).tasks)
    for j, limits in enumerate(CONTROL_RANGES.values()):
        assert (controls[..., j] >= limits.low).all()
        assert (controls[..., j] <= limits.high).all()


@pytest.mark.parametrize("places", [np.zeros(12), np.zeros((0, 12)), np.full((2, 12), 1.1)])
def test_places_that_are_no_schedule_are_refused(places):
    with pytest.raises(ValueError, match="schedule"):
        Schedule(places)


def test_the_schedule_is_tuned_on_training_tasks_and_beats_controls_that_are_far_off():
    far = Steering.around(GAControls(mutation_step=1e-4, mutation_rate=0.01, crossover_rate=0.0))
    source = Landscapes(TaskSampler("train", 3, dimensions=(4,), sizes=((12, 14),)))
    config = StaticTuningConfig(iterations=4, candidates=8, tasks=8, step=1.5)
    told = []
    found = tuned_schedule(
        source, far, Variation(), config, seed=1, mapper=MAPPER, told=lambda *now: told.append(now)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = tuned_schedule(source, far, Variation(), config, seed=1, mapper=MAPPER)
    assert np.array_equal(found.places, again.places)
    batch = source.batch(99, 64)
    tuned = batch.scores(Scheduled("tuned", found).run(batch, Variation(), MAPPER).outcome)
    static = batch.scores(Fixed.at("static", far.controls).run(batch, Variation(), MAPPER).outcome)
    assert tuned.final.mean() < static.final.mean() - 0.1


POOR = GAControls(mutation_step=1e-4, mutation_rate=0.004, crossover_rate=0.0, differential_rate=0.0)


@pytest.mark.parametrize(("found", "static", "rows"), [(GAControls(), POOR, 2), (POOR, GAControls(), 1)])
def test_a_schedule_that_is_no_better_than_static_controls_is_thrown_away(monkeypatch, found, static, rows):
    line = np.tile(logit(np.array(Steering.around(found).static)), 2)
    monkeypatch.setattr(contestants_module, "cma_minimum", lambda *_: line)
    source = Landscapes(TaskSampler("train", 3, dimensions=(4,), sizes=((12, 14),)))
    config = StaticTuningConfig(iterations=1, candidates=4, tasks=16)
    kept = tuned_schedule(source, Steering.around(static), Variation(), config, seed=1, mapper=MAPPER)
    assert len(kept.places) == rows


def test_random_control_is_even_over_the_box_and_the_same_in_any_batch():
    batch = batch_of(40, n_generations=20)
    one = RandomControl("random", seed=4)
    places = places_of(one.controls(batch.tasks))
    for j in range(12):
        assert stats.kstest(places[..., j].ravel(), "uniform").pvalue > 1e-4
    assert np.array_equal(one.controls(batch.tasks[7:8])[:, 0], one.controls(batch.tasks)[:, 7])
    assert not np.array_equal(places[:, 0], places[:, 1])
    assert not np.array_equal(
        RandomControl("random", seed=5).controls(batch.tasks), one.controls(batch.tasks)
    )


def test_random_control_around_tuned_has_the_spread_that_it_is_given():
    batch, spread = batch_of(40, n_generations=20), np.linspace(0.05, 1.0, 12)
    found = logit(places_of(RandomControl("around", STEERING, spread).controls(batch.tasks)))
    assert found.mean(axis=(0, 1)) == pytest.approx(logit(np.array(STEERING.static)), abs=0.15)
    assert found.std(axis=(0, 1)) == pytest.approx(spread, rel=0.12)
    with pytest.raises(ValueError, match="both"):
        RandomControl("around", STEERING)


def everybody():
    one = conductor_of()
    return [
        Fixed.at("tuned static", SMOOTH),
        Fixed("DEAP", deap_defaults, DEAP_VARIATION),
        Fixed("pymoo", pymoo_defaults, PYMOO_VARIATION),
        Scheduled("schedule", Schedule(np.full((2, 12), 0.5))),
        RandomControl("random"),
        Steered("bandit", lambda batch: Bandit(len(batch), BanditConfig())),
        Conducted("conductor", one),
        Conducted("shuffled", one, shuffled(1)),
        Untrained("untrained", one),
        Outside("random search", random_search),
        Outside("differential evolution", differential_evolution),
        Outside("CMA-ES", cma_es),
    ]


def champions_hold(batch, performance, champions):
    return all(
        fitness_of(batch, task)(genes[None])[0] == best
        for task, genes, best in zip(batch.tasks, champions, performance.outcome.best[:, -1], strict=True)
    )


@pytest.mark.parametrize("contestant", everybody(), ids=lambda one: one.name)
def test_nobody_overspends_champions_re_evaluate_bit_for_bit_and_nothing_depends_on_the_day(contestant):
    batch = batch_of(4)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - whoever uses the global generator is not paired
    one, again = (contestant.run(batch, Variation(), MAPPER) for _ in range(2))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert (one.outcome.asked.sum(axis=1) <= batch.tasks[0].budget).all()
    assert (np.diff(one.outcome.best, axis=1) >= 0.0).all()
    assert champions_hold(batch, one, one.champions)
    assert not champions_hold(batch, one, one.champions[1:] + one.champions[:1])
    assert np.array_equal(one.outcome.best, again.outcome.best)


def test_all_controls_begin_with_the_same_population():
    batch = batch_of(4)
    first = [best_of(one, batch)[:, 0] for one in everybody() if not isinstance(one, Outside)]
    assert all(np.array_equal(first[0], other) for other in first)
    assert not np.array_equal(first[0], best_of(Outside("random search", random_search), batch)[:, 0])


def test_other_searches_are_cut_off_at_the_budget_and_repeats_are_counted():
    counter = Counter(lambda genes: genes.sum(axis=1), 5, 2)
    assert np.array_equal(counter(np.array([[0.1, 0.2], [0.9, 2.0]])), [-(0.1 + 0.2), -1.9])
    counter(np.array([[0.1, 0.2]]))
    with pytest.raises(Spent):
        counter(np.array([[0.3, 0.3], [1.0, 1.0], [1.0, 0.9]]))
    with pytest.raises(Spent):
        counter(np.array([[0.3, 0.3]]))
    assert counter.n == 5
    assert counter.best.tolist() == [pytest.approx(0.3), 1.9, 1.9, 1.9, 2.0]
    assert counter.repeated.tolist() == [False, False, True, False, False]
    assert counter.champion.tolist() == [1.0, 1.0]


def test_an_answer_that_is_no_number_is_the_worst_and_counted():
    counter = Counter(lambda genes: np.where(genes[:, 0] > 0.5, np.nan, genes[:, 0]), 3, 1)
    assert np.array_equal(counter(np.array([[0.9], [0.4], [0.2]])), [np.inf, -0.4, -0.2])
    assert counter.best.tolist() == [-np.inf, 0.4, 0.4]
    assert counter.invalid.tolist() == [True, False, False]


def test_cma_es_restarts_with_twice_the_population_and_beats_chance():
    sizes = []

    class Watched(Counter):
        def __call__(self, genes):
            sizes.append(len(genes))
            return super().__call__(genes)

    flat = Watched(lambda genes: np.zeros(len(genes)), 400, 3)
    with pytest.raises(Spent):
        cma_es(flat, batch_of(1, dimension=3).tasks[0], np.random.default_rng(1))
    sizes.pop()  # the last one met the end of the budget
    assert list(dict.fromkeys(sizes)) == [7 * 2**i for i in range(len(set(sizes)))]
    assert len(set(sizes)) >= 3
    batch = batch_of(1, population_size=20, n_generations=30)
    chance = best_of(Outside("random search", random_search), batch)[0, -1]
    for search in (cma_es, differential_evolution):
        assert best_of(Outside("search", search), batch)[0, -1] > chance / 10.0  # minus the error of a sphere


def test_a_network_that_says_nothing_is_tuned_static_whatever_it_sees():
    batch, silent = batch_of(), conductor_of(0.0)
    static = best_of(Fixed.at("tuned static", STEERING.controls), batch)
    for blindfold in (None, shuffled(3), without_market, without_population):
        assert np.array_equal(best_of(Conducted("conductor", silent, blindfold), batch), static)
    assert not np.array_equal(best_of(Conducted("conductor", conductor_of()), batch), static)


def inputs_of_rows(n=6):
    rng = np.random.default_rng(0)
    return Inputs(
        rng.normal(size=(n, 64)).astype(np.float32),
        rng.normal(size=(n, 3, 30)).astype(np.float32),
        np.ones((n, 3), dtype=bool),
        np.arange(n) % 3,
    )


@given(st.integers(2, 60), st.integers(0, 99))
def test_shuffled_features_are_always_those_of_another_run(n, seed):
    inputs = inputs_of_rows(n)
    blind = shuffled(seed)(batch_of(n))
    seen = blind(inputs)
    assert not (seen.state == inputs.state).all(axis=1).any()
    assert np.array_equal(np.sort(seen.state, axis=0), np.sort(inputs.state, axis=0))
    assert np.array_equal(blind(inputs).state, seen.state)


def test_shuffled_features_change_what_a_conductor_does():
    batch, one = batch_of(), conductor_of()
    assert not np.array_equal(
        best_of(Conducted("shuffled", one, shuffled(1)), batch), best_of(Conducted("conductor", one), batch)
    )


def test_blindfolds_hide_what_they_say_and_leave_the_rest():
    inputs = inputs_of_rows()
    untouched = inputs.state.copy()
    market = without_market(batch_of())(inputs).state
    names = np.array(STATE_NAMES)
    changed = names[(market != inputs.state).any(axis=0)]
    assert set(changed) == set(names[MARKET]) | set(names[KNOWN])
    population = without_population(batch_of())(inputs)
    changed = set(names[(population.state != inputs.state).any(axis=0)])
    assert changed == set(PROGRESS_NAMES) - {"budget_used", "log_population_size", "log_n_genes"}
    assert (population.history[..., 0] == inputs.history[..., 0]).all()
    assert (population.history[..., 3] == 0.0).all()
    assert np.array_equal(inputs.state, untouched)  # nothing was changed in place


def test_untrained_networks_are_as_loud_as_the_trained_one_and_differ_from_each_other():
    one = conductor_of()
    drawn = [Untrained("untrained", one, seed=2).network(i) for i in range(2)]
    weights = [network.head.weight.detach() for network in (one.network, *drawn)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(weights[a], weights[b])
        assert float(weights[a].std()) == pytest.approx(float(weights[b].std()), rel=0.25)
    assert best_of(Untrained("untrained", conductor_of(0.0)), batch_of()) == pytest.approx(
        best_of(Fixed.at("tuned static", STEERING.controls), batch_of())
    )


def test_habits_are_the_means_of_what_the_conductor_did():
    one, batch = conductor_of(), batch_of(6)
    found = habits(one, batch, MAPPER)
    environment = batch.environment(Variation(), mapper=MAPPER)
    environment.step()
    policy, places = Conducting(one.network, one.steering, batch.outlook), []
    while not environment.finished.all():
        environment.step(policy(environment.states, environment))
        places.append(places_of(environment.controls))
    places = np.array(places)
    assert found.mean.places[0] == pytest.approx(places.mean(axis=(0, 1)))
    assert found.schedule.places[0] == pytest.approx(places[0].mean(axis=0))
    assert found.schedule.places[-1] == pytest.approx(places[-1].mean(axis=0))
    assert found.spread == pytest.approx(logit(np.clip(places, 1e-6, 1 - 1e-6)).std(axis=(0, 1)))
    assert (found.spread > 0.0).all()


def test_habits_of_a_silent_network_are_the_tuned_controls_without_spread():
    found = habits(conductor_of(0.0), batch_of(), MAPPER)
    assert found.mean.places[0] == pytest.approx(np.array(STEERING.static))
    assert found.schedule.places == pytest.approx(np.tile(STEERING.static, (61, 1)))
    assert found.spread == pytest.approx(np.zeros(12), abs=1e-9)


def test_success_history_learns_in_a_race_whose_operators_have_no_jitter():
    batch, still = batch_of(), Variation(jitter=False)
    learning = RIVALS["success history on tuned"]("success history on tuned", conductor_of(), None, 1)
    fixed = Fixed.at("tuned static", STEERING.controls)
    with SerialMapper() as mapper:
        histories = [one.run(batch, still, mapper).outcome.history for one in (learning, fixed)]
        deaf = Steered("deaf", learning.policy).run(batch, still, mapper).outcome.history
    weights = [STATISTIC_NAMES.index(f"control_{name}") for name in ("crossover_rate",)]
    assert np.ptp(histories[0][:, 2:, weights], axis=1).max() > 0.01
    assert np.ptp(deaf[:, 2:, weights], axis=1).max() < 1e-9

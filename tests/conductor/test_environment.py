"""The environment: the bits of ``ga``, whatever the batch and the threads, and an honest score.

Broken environments stand beside the real one: one with another tournament, one that ignores a control, one
whose random streams follow the place in the batch. The same comparisons must tell them apart.
"""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compute.workers import SerialMapper, ThreadMapper
from conductor.environment import Environment
from conductor.landscapes import FAMILIES
from conductor.objective import FLOOR, Outcome, Scores, objective, scores
from conductor.tasks import Instance, Task, TaskSampler, Window
from ga.controls import CONTROL_NAMES, RUGGED, GAControls
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.progress import STATISTIC_NAMES
from ga.space import GenomeSpace
from ga.variation import MUTATIONS, RECOMBINATIONS, Variation

#: Something of everything: partners, difference vectors, immigrants, restarts, elites, crowding.
MIXED = GAControls(
    mutation_rate=0.1,
    mutation_step=0.05,
    mutation_tail=0.3,
    crossover_rate=0.8,
    crossover_spread=0.4,
    differential_rate=0.4,
    differential_weight=0.5,
    tournament_size=2.5,
    elite_fraction=0.06,
    immigrant_fraction=0.05,
    crowding_rate=0.4,
    restart_fraction=0.3,
)
TOURNAMENT = CONTROL_NAMES.index("tournament_size")


def tasks_of(families=FAMILIES, n_generations=20, population_size=16, dimension=5, first=0):
    return [
        Task(Instance(family, 3), dimension, population_size, n_generations, first + i)
        for i, family in enumerate(families)
    ]


def cube(d):
    return GenomeSpace(tuple(f"x{j}" for j in range(d)), np.zeros(d), np.ones(d), ("real",) * d)


def problem_of(task):
    """The space and the fitness of a landscape task, for ``ga``."""
    one = task.landscape()
    return cube(task.dimension), lambda genes: -one(genes)


def in_ga(task, controls, problem=problem_of, guard=10, variation=None):
    """The same run through ``ga``: controls (t, 12), one row per bred generation, the last for all others."""
    space, fitness = problem(task)
    evaluator = Evaluator(fitness, space)
    evolution = Evolution(
        space,
        task.hyperparameters,
        np.random.default_rng(task.seed),
        stagnation_guard=guard,
        variation=variation,
    )
    evolution.tell(evaluator(evolution.ask()), cached=int(evaluator.known.sum()))
    while not evolution.finished:
        row = controls[min(evolution.progress.generation, len(controls) - 1)]
        genes = evolution.ask(GAControls.from_array(row))
        evolution.tell(evaluator(genes), cached=int(evaluator.known.sum()))
    return evolution


def same_as_ga(environment, b, evolution):
    """Whether run ``b`` has the bits of a run of ``ga``: populations, ages and all statistics."""
    population, progress = evolution.population, evolution.progress
    genes, fitness, age = environment.population(b)
    history = environment.history[b, : progress.generation + 1]
    asked = environment.outcome().asked[b].sum()
    return (
        genes.tobytes() == population.genes.tobytes()
        and fitness.tobytes() == population.fitness.tobytes()
        and age.tobytes() == population.age.tobytes()
        and history.tobytes() == progress.history.tobytes()
        and asked == progress.evaluations
    )


def schedule(rng, t, n):
    """Random controls, float64 (t, n, 12), anywhere in their ranges."""
    return np.array([[GAControls.from_unit(rng.random(12)).to_array() for _ in range(n)] for _ in range(t)])


class OtherTournament(Environment):
    """Wrong on purpose: every tournament has far more contestants."""

    def _controls(self, controls, ndim):
        controls = super()._controls(controls, ndim)
        controls[..., TOURNAMENT] = 8.0
        return controls


class Ignoring(Environment):
    """Wrong on purpose: one control never arrives."""

    ignored = 0

    def _controls(self, controls, ndim):
        controls = super()._controls(controls, ndim)
        controls[..., self.ignored] = MIXED.to_array()[self.ignored]
        return controls


class StreamsByPlace(Environment):
    """Wrong on purpose: what is random follows the place of a run in its batch."""

    def _start(self):
        super()._start()
        self._runs.streams[:] = Environment(tasks_of("sphere" for _ in self.tasks))._runs.streams


@pytest.mark.parametrize("kind", [Environment, OtherTournament])
def test_a_run_has_the_bits_of_the_same_run_in_ga(kind):
    tasks = tasks_of(n_generations=30)
    controls = schedule(np.random.default_rng(1), 30, len(tasks))
    environment = kind(tasks)
    environment.run_fixed(controls)
    same = [same_as_ga(environment, b, in_ga(task, controls[:, b])) for b, task in enumerate(tasks)]
    assert all(same) if kind is Environment else not any(same)


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    sizes=st.tuples(st.integers(2, 12), st.integers(8, 40), st.integers(1, 25)),
    seed=st.integers(0, 2**53),
    guard=st.integers(1, 12),
    variation=st.builds(
        Variation,
        recombination=st.sampled_from(RECOMBINATIONS),
        mutation=st.sampled_from(MUTATIONS),
        jitter=st.booleans(),
        archive=st.booleans(),
        rotation=st.sampled_from([0.0, 0.5, 1.0]),
    ),
)
def test_bits_agree_for_all_sizes_operators_and_controls(family, sizes, seed, guard, variation):
    d, p, g = sizes
    task = Task(Instance(family, seed % 1000), d, p, g, seed)
    controls = schedule(np.random.default_rng(seed), g, 1)
    environment = Environment([task], variation=variation, stagnation_guard=guard)
    environment.run_fixed(controls)
    assert same_as_ga(environment, 0, in_ga(task, controls[:, 0], guard=guard, variation=variation))


@pytest.mark.parametrize("controls", [GAControls(), RUGGED])
def test_the_tuned_controls_of_ga_agree_over_a_whole_run(controls):
    task = Task(Instance("rastrigin", 5), 10, 40, 60, 11)
    environment = Environment([task])
    environment.run_fixed(controls.to_array())
    assert same_as_ga(environment, 0, in_ga(task, controls.to_array()[None]))


def test_runs_of_other_seeds_have_the_distribution_of_ga_and_another_tournament_has_not():
    n, controls = 120, dataclasses.replace(MIXED, tournament_size=1.0, crowding_rate=0.0).to_array()
    for family in ("sphere", "rastrigin"):
        (task,) = tasks_of([family], n_generations=12)
        theirs = [
            in_ga(dataclasses.replace(task, seed=seed), controls[None]).progress.best for seed in range(n)
        ]
        others = [dataclasses.replace(task, seed=seed) for seed in range(n, 2 * n)]
        right, wrong = (
            stats.ks_2samp(theirs, kind(others).run_fixed(controls).best[:, -1]).pvalue
            for kind in (Environment, OtherTournament)
        )
        assert right > 1e-3
        assert wrong < 1e-6


def window_task(seed, n_generations=15):
    return Task(Window("BTC/USDT", 0, 1000, "trend"), 4, 12, n_generations, seed)


def opened(task):
    """A coarse space, in which genomes repeat, with a fitness that is not always a number."""
    space = GenomeSpace(
        ("a", "b", "c", "d"),
        np.array([0.0, 1.0, 0.0, -2.0]),
        np.array([3.0, 100.0, 0.0, 1.0]),
        ("integer", "log", "choice", "integer"),
        {"c": ("x", "y", "z")},
    )

    def fitness(genes):
        values = space.decode(genes)
        total = -((values - np.array([2.0, 30.0, 1.0, 0.0])) ** 2).sum(axis=1)
        return np.where(values[:, 0] == 3.0, np.nan, total.round(-1))

    return space, fitness


def test_runs_with_a_fitness_from_outside_have_the_bits_of_ga_too():
    tasks = [window_task(1), *tasks_of(["ackley"]), window_task(2, n_generations=25)]
    controls = schedule(np.random.default_rng(2), 25, 3)
    environment = Environment(tasks, opening=opened, stagnation_guard=2)
    outcome = environment.run_fixed(controls)
    for b, problem in enumerate((opened, problem_of, opened)):
        assert same_as_ga(environment, b, in_ga(tasks[b], controls[:, b], problem, guard=2))
    seen = dict(zip(STATISTIC_NAMES, outcome.history[[0, 2]].max(axis=(0, 1)), strict=True))
    assert min(seen["duplicate_share"], seen["invalid_share"], seen["restarted_share"]) > 0.0


def test_genomes_that_repeat_for_want_of_others_count_as_known():
    # Two genes of two levels each: after four genomes all others repeat, and are counted as known.
    space = GenomeSpace(("a", "b"), np.zeros(2), np.ones(2), ("integer", "integer"))
    task = dataclasses.replace(window_task(3), dimension=2)
    opening = lambda task: (space, lambda genes: space.decode(genes).sum(axis=1))  # noqa: E731
    environment = Environment([task], opening=opening)
    environment.run_fixed(MIXED.to_array())
    assert same_as_ga(environment, 0, in_ga(task, MIXED.to_array()[None], opening))
    assert (environment.history[0, 2:, STATISTIC_NAMES.index("cached_share")] == 1.0).all()


def bytes_of(environment, b):
    outcome = environment.outcome()
    return b"".join(
        array.tobytes() for array in (*environment.population(b), outcome.best[b], outcome.history[b])
    )


@pytest.mark.parametrize("kind", [Environment, StreamsByPlace])
def test_a_run_is_the_same_alone_in_any_batch_and_on_any_number_of_threads(kind):
    tasks = TaskSampler("train", dimensions=(3, 9), sizes=((12, 15), (20, 15))).batch(0, 13)
    controls = MIXED.to_array()
    batches = {1: range(13), 2: range(12, -1, -1), 3: [5, 5, 2, 9]}
    alone = []
    for task in tasks:
        one = kind([task], mapper=SerialMapper())
        one.run_fixed(controls)
        alone.append(bytes_of(one, 0))
    same = []
    for threads, rows in batches.items():
        with ThreadMapper(threads) as mapper:
            many = kind([tasks[row] for row in rows], mapper=mapper)
            many.run_fixed(controls)
        same += [bytes_of(many, b) == alone[row] for b, row in enumerate(rows)]
    assert all(same) if kind is Environment else not all(same)


def test_a_policy_sees_the_statistics_of_the_last_generation_and_sets_the_next():
    tasks = [*tasks_of(["sphere", "steps"], n_generations=8), *tasks_of(["discus"], n_generations=5)]
    controls, seen = schedule(np.random.default_rng(3), 8, 3), []

    def policy(states, environment):
        assert states.shape == (3, len(STATISTIC_NAMES))
        assert environment.generation == len(seen)
        assert environment.history.shape == (3, len(seen) + 1, len(STATISTIC_NAMES))
        assert environment.best.shape == (3, len(seen) + 1)
        assert environment.trials.sum() > 0
        assert (environment.successes <= environment.trials).all()
        assert environment.successful.shape == (3, 2)
        seen.append(states)
        return controls[len(seen) - 1]

    asked = Environment(tasks).run(policy)
    known = Environment(tasks).run_fixed(controls)
    assert asked.history.tobytes() == known.history.tobytes()
    assert asked.best.tobytes() == known.best.tobytes()
    for t, states in enumerate(seen):
        np.testing.assert_array_equal(states[:2], known.history[:2, t])
        np.testing.assert_array_equal(states[2], known.history[2, min(t, 5)])


#: A value of each control that differs from that of MIXED.
TURNED = {name: {"elite_fraction": 0.25, "tournament_size": 6.0}.get(name, 0.02) for name in CONTROL_NAMES}


def turned(kind, name):
    """Whether turning a control changes the genomes, and gives the run that ``ga`` makes of it."""
    tasks = tasks_of(["steps", "levels"], n_generations=10)
    other = dataclasses.replace(MIXED, **{name: TURNED[name]}).to_array()
    environments = [kind(tasks, stagnation_guard=1) for _ in range(2)]
    for environment, controls in zip(environments, (MIXED.to_array(), other), strict=True):
        environment.run_fixed(controls)
    changed = all(
        environments[0].population(b)[0].tobytes() != environments[1].population(b)[0].tobytes()
        for b in range(2)
    )
    right = same_as_ga(environments[1], 0, in_ga(tasks[0], other[None], guard=1))
    return changed, right


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_every_control_acts(name):
    assert turned(Environment, name) == (True, True)


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_a_control_that_never_arrives_is_seen(name):
    deaf = type("Deaf", (Ignoring,), {"ignored": CONTROL_NAMES.index(name)})
    assert turned(deaf, name) == (False, False)


def test_a_reset_repeats_the_runs_and_another_seed_does_not():
    environment = Environment(tasks_of(["griewank", "peaks"]))
    first = environment.run_fixed(MIXED.to_array())
    environment.reset()
    assert environment.generation == -1
    assert environment.run_fixed(MIXED.to_array()).history.tobytes() == first.history.tobytes()
    others = Environment(tasks_of(["griewank", "peaks"], first=9)).run_fixed(MIXED.to_array())
    assert (others.best != first.best).all()


def test_forks_go_on_from_where_the_run_was():
    tasks = [*tasks_of(["rosenbrock", "levels"]), *tasks_of(["powers"], n_generations=6, dimension=9)]
    parent = Environment(tasks, stagnation_guard=2)
    for _ in range(5):
        parent.step(np.tile(MIXED.to_array(), (3, 1)))
    forked = parent.fork([1, 1, 0, 2])
    other = np.tile(MIXED.to_array(), (4, 1))
    other[1] = GAControls().to_array()
    forked.run_fixed(other)
    reseeded = parent.fork([0], seeds=[99])
    reseeded.run_fixed(MIXED.to_array())
    assert parent.generation == 4  # forks do not move it
    parent.run_fixed(MIXED.to_array())
    for row, b in ((1, 0), (0, 2), (2, 3)):
        best, history = forked.outcome().best[b], forked.outcome().history[b]
        np.testing.assert_array_equal(best, parent.outcome().best[row])
        np.testing.assert_array_equal(history, parent.outcome().history[row])
        np.testing.assert_array_equal(forked.population(b)[0], parent.population(row)[0])
    np.testing.assert_array_equal(forked.history[1, :5], parent.history[1, :5])
    assert (forked.population(1)[0] != parent.population(1)[0]).any()
    np.testing.assert_array_equal(reseeded.history[0, :5], parent.history[0, :5])
    assert (reseeded.population(0)[0] != parent.population(0)[0]).any()


def outcome_of(errors, asked, tasks):
    best = -np.array(errors, dtype=np.float64)
    return Outcome(tuple(tasks), best, np.array(asked), np.zeros((*best.shape, len(STATISTIC_NAMES))))


def test_scores_are_the_area_over_evaluations_and_the_end():
    tasks = tasks_of(["sphere", "sphere"], n_generations=1, population_size=10)  # budgets of 20
    scored = scores(outcome_of([[100.0, 1.0], [10.0, 0.0]], [[10, 10], [10, 4]], tasks))
    np.testing.assert_allclose(scored.anytime, [(10 * 2 + 10 * 0) / 20, (10 * 1 + 10 * np.log10(FLOOR)) / 20])
    np.testing.assert_allclose(scored.final, [0.0, np.log10(FLOOR)])
    known = scores(outcome_of([[100.0, 1.0]], [[10, 10]], tasks[:1]), best_known=[-1.0], floor=1e-2)
    np.testing.assert_allclose(known.final, -2.0)
    lost = scores(outcome_of([[np.inf, 1.0]], [[10, 10]], tasks[:1]))
    assert np.isfinite(lost.anytime).all()


def test_a_run_that_ends_earlier_has_the_same_score_in_any_batch():
    short, long = tasks_of(["ackley"], n_generations=5), tasks_of(["ackley"], n_generations=40, first=3)
    alone = scores(Environment(short).run_fixed(MIXED.to_array()))
    both = Environment([*short, *long]).run_fixed(MIXED.to_array())
    assert (both.best[0, 6:] == both.best[0, 5]).all()
    assert (both.asked[0, 6:] == 0).all()
    together = scores(both)
    assert together.final[0] == alone.final[0]
    np.testing.assert_allclose(together.anytime[0], alone.anytime[0], rtol=1e-14)


def test_the_objective_is_the_difference_from_the_reference_of_the_same_task():
    one = Scores(np.array([1.0, -6.0, 0.0]), np.array([0.0, -8.0, 2.0]))
    reference = Scores(np.array([1.5, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(objective(one, reference), [-0.5, -3.0, 0.0])
    np.testing.assert_allclose(objective(one, reference, final_share=1.0), [-1.0, -3.0, 2.0])
    np.testing.assert_allclose(objective(one, reference, final_share=0.5, limit=10.0), [-0.75, -7.0, 1.0])
    np.testing.assert_array_equal(objective(reference, reference), np.zeros(3))


def test_better_controls_have_the_better_objective():
    tasks = TaskSampler("train").batch(0, 24)
    reference = scores(Environment(tasks).run_fixed(GAControls().to_array()))
    still = dataclasses.replace(GAControls(), differential_rate=0.0, crossover_rate=0.0, mutation_step=1e-4)
    worse = scores(Environment(tasks).run_fixed(still.to_array()))
    assert objective(worse, reference).mean() > 0.5


def test_controls_outside_their_ranges_are_moved_to_the_nearest_bound():
    tasks = tasks_of(["sphere"])
    wild, bound = MIXED.to_array(), MIXED.to_array()
    wild[[0, TOURNAMENT]], bound[[0, TOURNAMENT]] = (7.0, -3.0), (1.0, 1.0)
    one, other = (Environment(tasks).run_fixed(controls) for controls in (wild, bound))
    assert one.history.tobytes() == other.history.tobytes()


def begun():
    environment = Environment(tasks_of(["sphere", "steps"]))
    environment.step()
    return environment


def spoiled():
    controls = np.tile(MIXED.to_array(), (2, 1))
    controls[1, 3] = np.nan
    return controls


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Environment([]), "an environment was given no tasks; it needs at least one"),
        (lambda: Environment(tasks_of(), stagnation_guard=0), "stagnation_guard is 0; it must be at least 1"),
        (lambda: begun().step(), "step() was called without controls; every generation but the first"),
        (lambda: begun().step(MIXED.to_array()), "controls have shape (12,); 2 runs need (2, 12)"),
        (lambda: begun().step(np.ones((2, 11))), "controls have shape (2, 11); 2 runs need (2, 12)"),
        (lambda: begun().run_fixed(np.ones((3, 12))), "controls have shape (1, 3, 12); 2 runs need (2, 12)"),
        (lambda: begun().step(spoiled()), "crossover_rate of run 1 is NaN; controls must be numbers"),
        (lambda: begun().fork([0], [1, 2]), "2 seeds are given for 1 forked runs; each needs one"),
        (lambda: Environment([window_task(0)]), "task 0 is a window of BTC/USDT; opening= must say how"),
        (
            lambda: Environment([window_task(0)], opening=lambda task: (cube(3), None)),
            "task 0 has dimension 4; its space has 3 genes",
        ),
        (
            lambda: Environment([window_task(0)], opening=lambda task: (cube(4), np.median)).step(),
            "fitness of task 0 has shape (); 12 genomes need (12,)",
        ),
        (
            lambda: Environment(
                [window_task(0)], opening=lambda task: (cube(4), lambda genes: genes[:, 0] + np.inf)
            ).step(),
            "fitness of task 0 is +inf; nothing could ever be better",
        ),
        (
            lambda: outcome_of([[1.0]], [[1]], [window_task(0)]).errors(),
            "1 tasks are no landscapes; errors() needs the best known fitness of all",
        ),
        (
            lambda: outcome_of([[1.0]], [[1]], tasks_of(["sphere"])).errors([1.0, 2.0]),
            "best_known has shape (2,); 1 runs need (1,)",
        ),
        (lambda: scores(None, floor=0.0), "floor of errors is 0.0; its logarithm is taken"),
        (
            lambda: objective(Scores(np.ones(2), np.ones(2)), Scores(np.ones(3), np.ones(3))),
            "2 runs are compared with 3 reference runs; both must be runs of the same tasks",
        ),
        (
            lambda: objective(*[Scores(np.ones(2), np.ones(2))] * 2, final_share=2.0),
            "final_share is 2.0; it must be from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_an_unfinished_outcome_is_refused():
    with pytest.raises(RuntimeError, match=re.escape("outcome() was called with 2 of 2 runs unfinished")):
        begun().outcome()


def test_after_a_task_failed_only_a_reset_goes_on():
    fail = [True]

    def opening(task):
        space, fitness = opened(task)
        return space, lambda genes: genes if fail[0] else fitness(genes)

    environment = Environment([*tasks_of(["sphere"]), window_task(1)], opening=opening)
    with pytest.raises(ValueError, match="fitness of task 1 has shape"):
        environment.step()
    fail[0] = False
    with pytest.raises(RuntimeError, match=re.escape("runs stand still within it; reset() first")):
        environment.step()
    environment.reset()
    environment.run_fixed(MIXED.to_array())
    assert same_as_ga(environment, 1, in_ga(window_task(1), MIXED.to_array()[None], opened))

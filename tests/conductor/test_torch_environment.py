"""Whole runs as tensors: the distribution of ``ga``, run by run the same in any batch, and one face for both.

``conductor.environment.Environment`` has the bits of ``ga`` and stands for it here. Broken environments, each
wrong in one way, stand beside the tensors; the same comparison must tell them apart.
"""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from conductor.conducting import Conducting
from conductor.curriculum import Batch
from conductor.environment import Environment
from conductor.landscapes import FAMILIES
from conductor.network import flat, put
from conductor.objective import scores
from conductor.sight import Outlook, inputs_of
from conductor.steering import Steering
from conductor.tasks import Instance, Task, Window
from conductor.torch_conducting import TensorConducting, conducted_scores
from conductor.torch_draws import Draws
from conductor.torch_environment import TorchEnvironment, suits
from conductor.torch_runs import TensorRuns
from conductor.variants.es import Es, EsConfig
from ga.controls import CONTROL_NAMES, CONTROL_RANGES, RUGGED, SMOOTH, GAControls
from ga.progress import STATISTIC_NAMES
from ga.variation import Variation

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
#: Probability with which a comparison of two equal things may fail, over all its parts.
LEVEL = 1e-3
REPEATS, GENERATIONS = 24, 20
DEFAULT = Variation()
#: Steps of one size, with jitter and without: the second is what conductors are trained with.
ONE_SIZE = [Variation(mutation="gaussian_cauchy", jitter=jitter) for jitter in (True, False)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_cpu(tasks, **settings):
    return TorchEnvironment(tasks, device="cpu", **settings)


def repeated_tasks(first=0):
    """Runs of one instance of each family with seeds of their own: equal runs have equal distributions."""
    return [
        Task(Instance(family, 3), 5, 16, GENERATIONS, first + 100 * i + seed)
        for i, family in enumerate(FAMILIES)
        for seed in range(REPEATS)
    ]


def mixed_tasks():
    """Tasks of several sizes, in no order."""
    sizes = [(2, 8, 6), (5, 16, 10), (5, 16, 7), (3, 9, 10)]
    return [Task(Instance(FAMILIES[(3 * i) % 14], i), *sizes[i % 4], 50 + i // 2) for i in range(12)]


def drawn(rng, *shape):
    """Random controls, float64 (*shape, 12), anywhere in their ranges."""
    n = int(np.prod(shape))
    rows = [GAControls.from_unit(rng.random(12)).to_array() for _ in range(n)]
    return np.array(rows).reshape(*shape, 12)


def chances(one, other):
    """p-values that two outcomes have one distribution: last errors by family, all statistics."""
    found = {}
    errors = [np.log10(np.maximum(-outcome.best, 1e-12)) for outcome in (one, other)]
    for i, family in enumerate(FAMILIES):
        own = slice(i * REPEATS, (i + 1) * REPEATS)
        sides = [error[own, -1] for error in errors]
        found[f"last error on {family}"] = stats.ks_2samp(*sides, method="asymp").pvalue
    columns = [errors, [outcome.asked for outcome in (one, other)]]
    columns += [[outcome.history[..., k] for outcome in (one, other)] for k in range(len(STATISTIC_NAMES))]
    for name, (a, b) in zip(("mean error", "asked", *STATISTIC_NAMES), columns, strict=True):
        a, b = (side[:, 1:].mean(1).round(5) for side in (a, b))  # so that equal shares are equal in both
        if max(np.ptp(a), np.ptp(b)) == 0.0:  # a constant: the size, the budget, controls
            found[name] = float(np.allclose(a, b, rtol=1e-6))
            continue
        # Families differ far more than runs of one, so the two sides are paired by family.
        found[name] = stats.ttest_rel(a, b).pvalue
        found[f"distribution of {name}"] = stats.ks_2samp(a, b, method="asymp").pvalue
    return found


_reference: dict[tuple[GAControls, Variation], object] = {}


def reference(controls, variation=DEFAULT):
    """What the compiled environment shows of other seeds with these controls."""
    key = controls, variation
    if key not in _reference:
        environment = Environment(repeated_tasks(10**6), variation=variation)
        _reference[key] = environment.run_fixed(controls.to_array())
    return _reference[key]


def alike(controls, variation=DEFAULT, **settings):
    environment = on_cpu(repeated_tasks(), variation=variation, **settings)
    found = chances(environment.run_fixed(controls.to_array()), reference(controls, variation))
    worst = min(found, key=found.get)
    return found[worst] * len(found) > LEVEL, f"{worst}: {found[worst]:.2e} of {len(found)}"


@pytest.mark.parametrize("controls", [MIXED, GAControls(), RUGGED])
def test_runs_have_the_distribution_of_ga(controls):
    same, why = alike(controls)
    assert same, why


@pytest.mark.parametrize("controls", [MIXED, RUGGED])
def test_runs_in_single_precision_have_it_too(controls):
    same, why = alike(controls, dtype=torch.float32)
    assert same, why


@pytest.mark.parametrize("variation", ONE_SIZE)
def test_runs_with_steps_of_one_size_have_the_distribution_of_ga(variation):
    for settings in ({}, {"dtype": torch.float32})[: 1 if variation.jitter else 2]:
        same, why = alike(MIXED, variation, **settings)
        assert same, why


def bred_otherwise(**settings):
    class Otherwise(TensorRuns):
        """Wrong on purpose: another setting of the operators than was asked for."""

        def __init__(self, tasks, variation, *further):
            super().__init__(tasks, variation.model_copy(update=settings), *further)

    return Otherwise


@pytest.mark.parametrize("settings", [{"mutation": "multiscale"}, {"jitter": True}])
def test_runs_with_other_operators_than_asked_for_are_found(settings, monkeypatch):
    monkeypatch.setattr("conductor.torch_environment.TensorRuns", bred_otherwise(**settings))
    assert not alike(SMOOTH, ONE_SIZE[1])[0]


def test_the_mean_error_is_that_of_ga_within_a_narrow_interval():
    outcome = on_cpu(repeated_tasks()).run_fixed(MIXED.to_array())
    errors = [np.log10(-one.best[:, -1]).reshape(-1, REPEATS) for one in (outcome, reference(MIXED))]
    gap = (errors[0] - errors[1]).mean()
    spread = np.sqrt(sum(error.var(axis=1, ddof=1).mean() for error in errors) / errors[0].size)
    assert abs(gap) < 3.0 * spread
    assert spread < 0.1  # decades: an interval that says something


def ignoring(name):
    class Ignoring(TensorRuns):
        """Wrong on purpose: one control never arrives."""

        def breed(self, controls):
            controls = controls.clone()
            controls[:, CONTROL_NAMES.index(name)] = CONTROL_RANGES[name].high
            super().breed(controls)

    return Ignoring


class Forgetful(TensorRuns):
    """Wrong on purpose: nobody enters the archive."""

    def _retire(self, leaving):
        pass


class Unguarded(TensorRuns):
    """Wrong on purpose: restarts do not wait."""

    def breed(self, controls):
        self._guard = 1
        super().breed(controls)


class Repeating(TensorRuns):
    """Wrong on purpose: genomes that repeat are evaluated again."""

    def _without_duplicates(self, genes, repeated, controls, now):
        return genes, repeated.sum(1)


@pytest.mark.parametrize(
    "wrong",
    [
        *map(ignoring, ("crowding_rate", "crossover_spread")),
        Forgetful,
        Unguarded,
        Repeating,
    ],
    ids=lambda wrong: wrong.__doc__.split(":")[1],
)
def test_runs_that_are_wrong_in_one_way_are_found(wrong, monkeypatch):
    monkeypatch.setattr("conductor.torch_environment.TensorRuns", wrong)
    controls = {Repeating: RUGGED, Forgetful: SMOOTH}.get(wrong, MIXED)
    assert not alike(controls)[0]


def test_a_run_is_the_same_alone_and_in_any_batch():
    tasks, rng = mixed_tasks(), np.random.default_rng(1)
    controls = drawn(rng, 10, len(tasks))
    together = on_cpu(tasks)
    outcome = together.run_fixed(controls)
    for b, task in enumerate(tasks):
        alone = on_cpu([task])
        own = alone.run_fixed(controls[:, [b]])
        longest = task.n_generations + 1
        assert np.allclose(own.best[0], outcome.best[b, :longest], rtol=1e-9, atol=1e-12)
        assert (outcome.best[b, longest:] == outcome.best[b, longest - 1]).all()
        assert np.array_equal(own.asked[0], outcome.asked[b, :longest])
        assert (outcome.history[b, longest:] == 0.0).all()
        for one, other in zip(alone.population(0), together.population(b), strict=True):
            assert np.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_runs_of_one_seed_draw_the_same_and_differ_by_their_controls_alone():
    task = Task(Instance("rastrigin", 1), 4, 12, 10, 5)
    controls = np.tile(MIXED.to_array(), (3, 1))
    controls[2, CONTROL_NAMES.index("mutation_step")] = 0.2
    outcome = on_cpu([task] * 3).run_fixed(controls)
    assert np.array_equal(outcome.best[0], outcome.best[1])
    assert outcome.best[0, 0] == outcome.best[2, 0]
    assert outcome.best[0, -1] != outcome.best[2, -1]
    another = on_cpu([Task(task.problem, 4, 12, 10, 6)]).run_fixed(controls[0])
    assert another.best[0, 0] != outcome.best[0, 0]


def acts(name):
    """Whether runs of the same numbers differ where this control does."""
    tasks = [Task(Instance(family, 2), 4, 20, 15, 9) for family in ("steps", "rastrigin")]
    controls = np.tile(GAControls().to_array(), (2, 2, 1))
    limits, column = CONTROL_RANGES[name], CONTROL_NAMES.index(name)
    controls[:, :, column] = np.array([[limits.low], [limits.high]])
    one, other = (on_cpu(tasks, stagnation_guard=1).run_fixed(own).history for own in controls)
    return not np.array_equal(one, other)


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_every_control_acts(name):
    assert acts(name)


def test_a_control_that_never_arrives_is_seen(monkeypatch):
    monkeypatch.setattr("conductor.torch_environment.TensorRuns", ignoring("restart_fraction"))
    assert not acts("restart_fraction")


def test_a_reset_repeats_the_runs():
    environment = on_cpu(mixed_tasks())
    first = environment.run_fixed(MIXED.to_array())
    environment.reset()
    assert environment.generation == -1
    assert np.isnan(environment.controls).all()
    again = environment.run_fixed(MIXED.to_array())
    for name in ("best", "asked", "history"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()


def test_forks_go_on_from_where_the_run_was():
    tasks, rows = mixed_tasks(), [4, 1, 4, 4]
    controls = np.tile(MIXED.to_array(), (len(tasks), 1))
    environment = on_cpu(tasks)
    for _ in range(5):
        environment.step(controls)
    fork = environment.fork(rows)
    other = environment.fork([4, 4], seeds=[1, 2])
    bolder = fork.controls.copy()
    bolder[3, CONTROL_NAMES.index("mutation_step")] = 0.4
    assert np.array_equal(fork.history, environment.history[rows])
    outcome, forked = environment.run_fixed(controls), fork.run_fixed(bolder)
    own = [4, 1, 4]
    width = forked.best.shape[1]
    assert np.allclose(forked.best[:3], outcome.best[own, :width], rtol=1e-9)
    assert not np.array_equal(forked.best[3], forked.best[0])
    assert forked.best[3, :5].tolist() == forked.best[0, :5].tolist()
    said = other.run_fixed(MIXED.to_array())
    assert not np.array_equal(said.best[0], said.best[1])
    assert said.best[0, :5].tolist() == said.best[1, :5].tolist()


def test_a_policy_sees_what_the_runs_have_shown_and_sets_the_next_controls():
    tasks, seen = mixed_tasks(), []

    def policy(states, environment):
        seen.append(states)
        assert np.array_equal(states[2], environment.history[2, min(environment.generation, 7)])
        return drawn(np.random.default_rng(environment.generation), len(tasks))

    environment = on_cpu(tasks)
    outcome = environment.run(policy)
    assert len(seen) == 10
    assert np.array_equal(seen[3], outcome.history[:, 3])
    assert np.allclose(environment.controls, drawn(np.random.default_rng(9), len(tasks)), rtol=1e-12)
    expected = on_cpu(tasks).run_fixed(
        np.array([drawn(np.random.default_rng(t), len(tasks)) for t in range(10)])
    )
    assert np.array_equal(outcome.best, expected.best)
    assert environment.trials.sum(1).tolist() == [
        outcome.asked[b, task.n_generations] for b, task in enumerate(tasks)
    ]
    assert (environment.successes <= environment.trials).all()
    assert environment.finished.all()


def network_and_weights(n):
    torch.manual_seed(1)
    network = Es(EsConfig(hidden=8))
    return network, np.random.default_rng(2).normal(0.0, 0.3, (n, flat(network).size))


@pytest.mark.parametrize("candidates", [0, 3])
def test_a_network_on_the_device_says_what_it_says_to_arrays(candidates):
    tasks = mixed_tasks()
    network, weights = network_and_weights(3)
    if not candidates:
        torch.nn.init.normal_(network.head.weight, 0.0, 0.3)
    steering = Steering.around(GAControls())
    rng = np.random.default_rng(4)
    outlook = Outlook(rng.normal(0.0, 1.0, (12, 13)), rng.random((12, 13)) < 0.7, np.full(12, -1))
    arguments = network, steering, outlook, weights if candidates else None
    environment = on_cpu(tasks)
    environment.run_on_device(TensorConducting(*arguments))
    expected = on_cpu(tasks)
    outcome = expected.run(Conducting(*arguments))
    assert np.allclose(environment.history, expected.history, rtol=1e-6, atol=1e-6)
    scored = scores(outcome)
    anytime, final = environment.scores_on_device()
    assert np.allclose(anytime.numpy(), scored.anytime, atol=1e-6)
    assert np.allclose(final.numpy(), scored.final, atol=1e-6)


def test_candidates_are_scored_as_each_would_be_alone():
    network, weights = network_and_weights(3)
    steering = Steering.around(GAControls())
    batch = Batch(tuple(mixed_tasks()), Outlook.unknown(12), np.where(np.arange(12) < 6, 1e-1, 1e-8))
    found = conducted_scores(network, steering, batch, weights, device="cpu")
    for row, one in enumerate(weights):
        environment = on_cpu(batch.tasks)
        alone = batch.scores(environment.run(Conducting(network, steering, batch.outlook, one[None])))
        for name in ("anytime", "final"):
            own = getattr(found, name).reshape(3, 12)[row]
            assert np.allclose(own, getattr(alone, name), atol=1e-6)
    put(network, weights[1])
    own = conducted_scores(network, steering, batch, device="cpu")
    assert np.allclose(own.final, found.final.reshape(3, 12)[1], atol=1e-6)


def test_what_suits_tensors_is_known_beforehand():
    window = Task(Window("BTC/USDT", 0, 9, "volatile"), 4, 12, 10, 0)
    assert suits(mixed_tasks(), Variation(jitter=False, archive=False))
    assert not suits([*mixed_tasks(), window], Variation())
    assert not suits(mixed_tasks(), Variation(rotation=0.5))
    assert all(suits(mixed_tasks(), variation) for variation in ONE_SIZE)
    assert not suits(mixed_tasks(), Variation(mutation="polynomial"))


def test_a_network_that_looks_back_sees_the_same_history_on_the_device():
    network, _ = network_and_weights(1)
    network.n_history = 4
    environment, outlook = on_cpu(mixed_tasks()), Outlook.unknown(12)
    policy = TensorConducting(network, Steering.around(GAControls()), outlook)
    for _ in range(7):
        environment.step(None if environment.generation < 0 else drawn(np.random.default_rng(1), 12))
        policy(environment.states_on_device, environment)
        found = policy.inputs(environment.states_on_device, environment)
        for one, other in zip(found, inputs_of(environment, outlook, 4), strict=True):
            assert one.shape == other.shape
            assert np.allclose(one.numpy(), other, atol=1e-6)


def test_tensors_go_in_and_come_out_on_the_device():
    environment = on_cpu(mixed_tasks(), dtype=torch.float32)
    environment.step()
    states = environment.step(torch.tensor(MIXED.to_array()).repeat(12, 1))
    assert isinstance(states, torch.Tensor)
    assert states.dtype == torch.float32
    assert environment.states.dtype == np.float64
    assert environment.best.shape == (12, 2)


def test_controls_outside_their_ranges_are_moved_to_the_nearest_bound():
    environment = on_cpu(mixed_tasks())
    environment.step()
    environment.step(np.full((12, 12), 1e9))
    assert environment.controls[0].tolist() == [limits.high for limits in CONTROL_RANGES.values()]
    environment.step(np.full((12, 12), -1.0))
    assert environment.controls[3].tolist() == [limits.low for limits in CONTROL_RANGES.values()]


def begun():
    environment = on_cpu(mixed_tasks()[:2])
    environment.step()
    return environment


def spoiled():
    controls = np.tile(MIXED.to_array(), (2, 1))
    controls[1, 3] = np.nan
    return controls


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: on_cpu([]), "an environment was given no tasks; it needs at least one"),
        (lambda: on_cpu(mixed_tasks(), stagnation_guard=0), "stagnation_guard is 0; it must be at least 1"),
        (
            lambda: on_cpu(mixed_tasks(), dtype=torch.float16),
            "dtype of an environment is torch.float16; it must",
        ),
        (
            lambda: on_cpu([Task(Window("BTC/USDT", 0, 9, "volatile"), 4, 12, 10, 0)]),
            "task 0 is a window of BTC/USDT; an environment of tensors has landscapes",
        ),
        (
            lambda: on_cpu(mixed_tasks(), variation=Variation(recombination="sbx")),
            "recombination of the variation is sbx; an environment of tensors breeds with blend alone",
        ),
        (
            lambda: on_cpu(mixed_tasks(), variation=Variation(mutation="polynomial")),
            "mutation of the variation is polynomial; an environment of tensors breeds with multiscale or "
            "gaussian_cauchy alone",
        ),
        (lambda: begun().step(), "step() was called without controls; every generation but the first"),
        (lambda: begun().step(MIXED.to_array()), "controls have shape (12,); 2 runs need (2, 12)"),
        (lambda: begun().run_fixed(np.ones((3, 12))), "controls have shape (1, 3, 12); 2 runs need (2, 12)"),
        (lambda: begun().step(spoiled()), "crossover_rate of run 1 is NaN; controls must be numbers"),
        (lambda: begun().fork([0], [1, 2]), "2 seeds are given for 1 forked runs; each needs one"),
        (
            lambda: TensorConducting(Es(EsConfig()), None, Outlook.unknown(3), np.ones((2, 9))),
            "3 runs cannot be shared evenly by 2 candidates",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("call", ["outcome", "scores_on_device"])
def test_scores_of_unfinished_runs_are_refused(call):
    with pytest.raises(RuntimeError, match=re.escape(f"{call}() was called with 2 of 2 runs unfinished")):
        getattr(begun(), call)()


@pytest.mark.gpu
def test_a_gpu_draws_the_numbers_of_the_processor_and_its_runs_have_the_distribution_of_ga():
    here, there = (Draws(range(50), device, torch.float64) for device in ("cpu", "cuda"))
    for one, other in zip(here.uniform(3, 4, 7, 5), there.uniform(3, 4, 7, 5), strict=True):
        assert torch.equal(one, other.cpu())
    for dtype in (torch.float64, torch.float32):
        environment = TorchEnvironment(repeated_tasks(), device="cuda", dtype=dtype)
        found = chances(environment.run_fixed(MIXED.to_array()), reference(MIXED))
        assert min(found.values()) * len(found) > LEVEL
    first = TorchEnvironment(mixed_tasks(), device="cuda")
    outcome = first.run_fixed(MIXED.to_array())
    again = TorchEnvironment(mixed_tasks(), device="cuda").run_fixed(MIXED.to_array())
    assert outcome.history.tobytes() == again.history.tobytes()

"""Variants that know the regime, and the one with a second head: what they share, what sets them apart.

Broken networks stand beside the real ones: one that mixes the runs of a batch, one that lets regimes
teach each other, one that takes the regime for a number.
"""

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, vmap

from compute.workers import SerialMapper
from conductor import hyperparameters as hyper
from conductor.curriculum import Batch, Landscapes
from conductor.hyperparameters import (
    EDGE,
    HYPERPARAMETER_NAMES,
    HYPERPARAMETER_RANGES,
    hyperparameter_places,
    hyperparameter_values,
    moved,
    opening_inputs,
    plan,
    race_labels,
    spent,
    usual_places,
)
from conductor.network import VARIANTS, ConductorNetwork, flat, put, silent, tensors, unflatten
from conductor.regression import inputs_of_labels, one_per_fork
from conductor.school import Labels, School
from conductor.sight import Inputs, Outlook
from conductor.state import STATE_NAMES
from conductor.steering import Steering
from conductor.tasks import Instance, Task, TaskSampler, Window
from conductor.variants.multitask import Joint, Multitask, MultitaskConfig
from conductor.variants.specific import shares
from conductor.vine import branch_residuals
from configs.load import Config, ConfigError
from ga.controls import CONTROL_NAMES, GAControls, Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.space import GenomeSpace
from ga.variation import Variation

#: A base that needs no adversary keeps what is asked here apart from what `dann` does.
WIDE = {"name": "es", "features": STATE_NAMES, "hidden": 16}
SETTINGS = {"specific": {}, "hybrid": {"base": WIDE, "shrinkage": 0.01}, "multitask": {}}
RACE = {"n_tasks": 8, "n_plans": 5, "seed": 2}
STEP, RATE = CONTROL_NAMES.index("mutation_step"), CONTROL_NAMES.index("crossover_rate")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name, seed=0, **changes):
    torch.manual_seed(seed)
    return VARIANTS.create(name, {**SETTINGS[name], **changes})


def stirred(network, seed=1):
    """The same network with other weights everywhere: a new one says nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def inputs_of(n=24, seed=0, regimes=(-1, 0, 1, 2)):
    rng = np.random.default_rng(seed)
    return tensors(
        Inputs(
            rng.normal(size=(n, 64)).astype(np.float32),
            np.zeros((n, 0, 30), dtype=np.float32),
            np.zeros((n, 0), dtype=bool),
            np.array(regimes)[np.arange(n) % len(regimes)].astype(np.int64),
        )
    )


def answer(network, inputs):
    with torch.inference_mode():
        return network(inputs)


def in_regime(inputs, regime):
    return inputs._replace(regime=torch.full_like(inputs.regime, regime))


def planted(n=400, n_branches=12, seed=0, wanted=(1.0, -1.0, 1.0)):
    """Labels in which the first control should rise or fall, as the regime wants it; 4 forks of each run."""
    rng = np.random.default_rng(seed)
    run = np.arange(n) // 4
    regime = run % 3
    residual = branch_residuals(rng, n, n_branches)
    gain = np.array(wanted)[regime][:, None] * residual[..., 0] - residual[..., 5]
    gain = gain + 0.5 * rng.normal(size=gain.shape)
    gain -= gain.mean(axis=1, keepdims=True)
    fork = np.repeat(np.arange(n), n_branches)
    state = 0.3 * rng.normal(size=(n, 64)).astype(np.float32)
    return Labels(
        state[fork],
        np.zeros((len(fork), 0, 30), dtype=np.float32),
        np.zeros((len(fork), 0), dtype=bool),
        regime[fork],
        residual.reshape(-1, 12),
        (gain / gain.std()).ravel().astype(np.float32),
        fork,
        run[fork],
    )


def school_of(labels, **others):
    return School(
        others.get("source"),
        others.get("steering"),
        Variation(),
        lambda n_history: labels,
        3,
        others.get("effort", 1.0),
        SerialMapper(),
        lambda done, total, sentence: None,
    )


class Mixing(ConductorNetwork):
    """Wrong on purpose: what a run hears depends on its neighbors in the batch."""

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(64, 12)

    def forward(self, inputs):
        return self.head(inputs.state - inputs.state.mean(dim=0))


def depends_on_the_batch(network, inputs):
    """Whether a run hears something else alone, or when the batch stands in another order."""
    n = len(inputs.state)
    whole = answer(network, inputs)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    turned = answer(network, Inputs(*(part[order] for part in inputs)))
    alone = torch.cat([answer(network, Inputs(*(part[b : b + 1] for part in inputs))) for b in range(n)])
    return not (torch.allclose(whole[order], turned, atol=1e-5) and torch.allclose(whole, alone, atol=1e-5))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_new_network_answers_exactly_zero_whatever_the_regime(name):
    network = made(name)
    assert not answer(network, inputs_of()).any()
    said = network.hyperparameters(inputs_of())
    assert said is None or not said.detach().any()
    assert answer(stirred(network), inputs_of()).any()


def test_the_default_hybrid_stands_on_a_dann_and_answers_zero_too():
    network = VARIANTS.create("hybrid", {})
    assert type(network.base) is VARIANTS.get("dann")
    assert not answer(network, inputs_of()).any()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_hears_the_same_in_any_batch(name):
    assert not depends_on_the_batch(stirred(made(name)), inputs_of())


def test_a_network_that_mixes_runs_is_seen():
    assert depends_on_the_batch(Mixing(Config()), inputs_of())


@pytest.mark.parametrize("name", SETTINGS)
def test_many_candidates_at_once_say_what_each_says_alone(name):
    network, inputs = stirred(made(name)), inputs_of()
    weights = flat(network) + np.random.default_rng(0).normal(size=(3, flat(network).size))
    slices = Inputs(*(torch.stack([part] * 3) for part in inputs))
    with torch.inference_mode():
        together = vmap(lambda own, seen: functional_call(network, own, (seen,)))(
            unflatten(network, weights), slices
        )
    for one, said in zip(weights, together, strict=True):
        put(network, one)
        assert torch.allclose(answer(network, inputs), said, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_that_are_searched_are_few_and_move_what_is_said(name):
    network = stirred(made(name))
    before = answer(network, inputs_of())
    weights = flat(network)
    assert 100 < weights.size <= 5000
    put(network, weights + 0.1)
    assert not torch.allclose(answer(network, inputs_of()), before)


# specific


def test_a_run_hears_the_network_of_its_regime_and_one_without_the_mean_of_all():
    network, inputs = stirred(made("specific")), inputs_of()
    said = [answer(network, in_regime(inputs, regime)) for regime in range(3)]
    assert not torch.allclose(said[0], said[1], atol=1e-2)
    mean = torch.stack(said).mean(dim=0)
    assert torch.allclose(answer(network, in_regime(inputs, -1)), mean, atol=1e-6)
    # A regime that has no network of its own, such as a crisis, is none of them.
    assert torch.allclose(answer(network, in_regime(inputs, 3)), mean, atol=1e-6)


@pytest.mark.parametrize("regime", [0, 1, 2])
def test_a_regime_teaches_its_own_network_alone(regime):
    network = stirred(made("specific"))
    network(in_regime(inputs_of(), regime)).square().sum().backward()
    taught = [any(p.grad is not None and p.grad.any() for p in net.parameters()) for net in network.nets]
    assert taught == [position == regime for position in range(3)]


def test_a_network_whose_regimes_teach_each_other_is_seen(monkeypatch):
    network = stirred(made("specific"))

    def soft(regime, n_regimes, *, alone):
        return 0.9 * shares(regime, n_regimes, alone=alone) + 0.1 / n_regimes

    monkeypatch.setattr("conductor.variants.specific.shares", soft)
    network(in_regime(inputs_of(), 1)).square().sum().backward()
    assert all(any(p.grad is not None and p.grad.any() for p in net.parameters()) for net in network.nets)


def test_runs_without_a_regime_teach_all_networks():
    network = stirred(made("specific"))
    network(in_regime(inputs_of(), -1)).square().sum().backward()
    assert all(any(p.grad.any() for p in net.parameters()) for net in network.nets)


@pytest.mark.parametrize("alone", [True, False])
def test_shares_of_regimes_are_whole(alone):
    found = shares(torch.tensor([-1, 0, 1, 2, 3]), 3, alone=alone)
    assert torch.equal(found[1:4], torch.eye(3))
    assert torch.allclose(found[[0, 4]], torch.full((2, 3), alone / 3.0))


@pytest.mark.parametrize("name", ["specific", "hybrid"])
def test_regimes_that_want_opposite_controls_get_them(name):
    network, labels = made(name), planted()
    network.schooled(school_of(labels))
    means = [float(answer(network, in_regime(inputs_of(200), regime))[:, 0].mean()) for regime in range(3)]
    assert means[0] > 0.15
    assert means[1] < -0.15
    assert means[2] > 0.15


def test_a_network_without_the_regime_cannot_give_regimes_opposite_controls():
    torch.manual_seed(0)
    network, labels = VARIANTS.create("es", {}), planted()
    ConductorNetwork.schooled(network, school_of(labels))
    means = [float(answer(network, in_regime(inputs_of(200), regime))[:, 0].mean()) for regime in range(3)]
    assert means[0] == means[1] == means[2]


# hybrid


def test_a_run_without_a_regime_hears_the_base_alone():
    network, inputs = stirred(made("hybrid")), inputs_of()
    for regime in (-1, 3):
        assert torch.equal(answer(network, in_regime(inputs, regime)), answer(network.base, inputs))
        assert not network.deviation(in_regime(inputs, regime)).detach().any()
    for regime in range(3):
        assert network.deviation(in_regime(inputs, regime)).detach().any()


def test_regimes_alone_are_left_to_the_heads_and_the_base_rests_meanwhile():
    labels, network = planted(), made("hybrid")
    base = made("hybrid").base
    base.schooled = lambda school: ConductorNetwork.schooled(base, school)
    base.schooled(school_of(labels))
    network.base.schooled = lambda school: ConductorNetwork.schooled(network.base, school)
    figures = network.schooled(school_of(labels))
    assert figures["base"]["epoch"] > 0
    assert figures["heads"]["epoch"] > 0
    for name, part in base.state_dict().items():
        assert torch.equal(network.base.state_dict()[name], part)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert figures["heads"]["held_out_loss"][figures["heads"]["epoch"]] < figures["heads"]["held_out_loss"][0]


def test_the_report_says_how_much_regimes_weigh_and_shrinkage_makes_it_less():
    labels = planted()
    sizes = []
    for shrinkage in (0.0, 100.0):
        network = made("hybrid", shrinkage=shrinkage)
        found = network.schooled(school_of(labels))["regimes"]
        assert list(found) == ["ranging", "trending", "volatile"]
        assert all(0.0 < one["gate"] < 1.0 for one in found.values())
        sizes.append(max(one["deviation"] for one in found.values()))
    assert sizes[0] > 0.1
    assert sizes[1] < 0.2 * sizes[0]


def test_heads_of_regimes_stay_silent_where_regimes_want_the_same():
    network = made("hybrid", shrinkage=0.3)
    found = network.schooled(school_of(planted(wanted=(1.0, 1.0, 1.0))))
    base, deviation = (max(one[part] for one in found["regimes"].values()) for part in ("base", "deviation"))
    assert deviation < 0.5 * base


def test_a_base_that_reads_history_gets_it():
    network = VARIANTS.create("hybrid", {"base": {"name": "transformer"}})
    assert network.n_history == network.base.n_history > 0


def test_an_unknown_base_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="no variant named 'dan'"):
        VARIANTS.create("hybrid", {"base": {"name": "dan"}})


# multitask


def race_of(n=120, n_branches=12, seed=0, noise=0.3):
    """Races that a smaller population wins, and more so the larger the usual one."""
    rng = np.random.default_rng(seed)
    tasks = [
        Task(Instance("sphere", 3), 5, int(size), 20, 3) for size in rng.integers(20, 400, size=n).tolist()
    ]
    inputs = opening_inputs(tasks, Outlook.unknown(n))
    residual = branch_residuals(rng, n, n_branches, 5)
    gain = -(1.0 + inputs.state[:, 1:2]) * residual[..., 0] + noise * rng.normal(size=residual.shape[:2])
    gain -= gain.mean(axis=1, keepdims=True)
    fork = np.repeat(np.arange(n), n_branches)
    return Labels(
        *(part[fork] for part in inputs),
        residual.reshape(-1, 5),
        (gain / gain.std()).ravel().astype(np.float32),
        fork,
        fork.copy(),
    )


def schooled_with(races, monkeypatch, worth=1.0):
    """Schooled on given races, and proven where a small population is worth something."""
    monkeypatch.setattr("conductor.variants.multitask.race_labels", lambda *args, **options: races)
    monkeypatch.setattr(
        "conductor.variants.multitask.values_of_plans",
        lambda batch, residual, *args, **options: worth * residual[:, 0],
    )
    network = made("multitask")
    school = school_of(planted(wanted=(1.0, 1.0, 1.0)), source=sources())
    return network, network.schooled(school)


def test_both_heads_learn_and_the_size_of_the_population_is_told_from_the_task(monkeypatch):
    network, figures = schooled_with(race_of(), monkeypatch)
    assert figures["controls"]["explained"] > 0.05
    found = figures["hyperparameters"]
    assert found["explained"] > 0.1
    assert found["gain"] > 3.0 * found["gain_error"] > 0.0
    assert found["decades"] < 0.0
    assert not found["silenced"]
    rows = one_per_fork(race_of(seed=5))
    with torch.inference_mode():
        said = network.hyperparameters(tensors(inputs_of_labels(rows))).numpy()
    assert said[:, 0].mean() < -0.1
    assert np.abs(said[:, 1:].mean(axis=0)).max() < 0.5 * -said[:, 0].mean()


def test_shuffled_races_teach_nothing(monkeypatch):
    rng, races = np.random.default_rng(0), race_of()
    advantage = rng.permuted(races.advantage.reshape(-1, 12), axis=1).ravel()
    _, figures = schooled_with(dataclasses.replace(races, advantage=advantage), monkeypatch)
    assert figures["hyperparameters"]["explained"] < 0.05


def test_a_head_of_hyperparameters_that_loses_on_new_tasks_is_silenced(monkeypatch):
    network, figures = schooled_with(race_of(), monkeypatch, worth=-1.0)
    assert figures["hyperparameters"]["decades"] > 0.0
    assert figures["hyperparameters"]["silenced"]
    assert not network.hyperparameters(inputs_of()).detach().any()


def test_schooling_goes_through_on_real_races():
    network = made("multitask", race_tasks=4, race_plans=3)
    school = school_of(planted(n=40), source=sources(size=(12, 20)), steering=coarse(), effort=1.0)
    found = network.schooled(school)["hyperparameters"]
    assert (found["races"], found["held_out_races"]) == (4, 1)
    assert np.isfinite([found["decades"], found["decades_error"], found["gain"]]).all()
    assert found["silenced"] == (not found["decades"] < 0.0)


def test_whole_runs_move_the_controls_and_never_the_hyperparameters():
    network, inputs = stirred(made("multitask")), inputs_of()
    before = network.hyperparameters(inputs).detach(), answer(network, inputs)
    put(network, flat(network) + 0.2)
    assert torch.equal(network.hyperparameters(inputs).detach(), before[0])
    assert not torch.allclose(answer(network, inputs), before[1])
    everything = [name for name, _ in ConductorNetwork.searched(network)]
    assert any(name.startswith("run_head") for name in everything)  # without a choice they would move


def test_the_noisier_task_gets_the_larger_variance_and_so_the_smaller_weight():
    torch.manual_seed(0)
    network = Multitask(MultitaskConfig())
    races = one_per_fork(race_of(20))
    joint = Joint(network, Labels(*map(torch.from_numpy, dataclasses.astuple(races))))
    optimizer = torch.optim.Adam([joint.log_variance], lr=0.1)
    said = torch.zeros(200, 12)
    noisy = 0.5 * torch.randn(said.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(200):
        optimizer.zero_grad()
        (joint.criterion(said, noisy) + joint.penalty(network, races, 0.0)).backward()
        optimizer.step()
    controls, run = joint.log_variance.detach().tolist()
    assert controls > run
    # Kendall's optimum: the variance is twice the loss where half its logarithm is added.
    loss = float(nn.functional.huber_loss(said, noisy, reduction="none").sum(dim=1).mean())
    assert controls == pytest.approx(np.log(2.0 * loss), abs=0.05)


# hyperparameters


TASKS = st.builds(
    Task,
    st.just(Instance("sphere", 3)),
    st.integers(2, 20),
    st.integers(8, 600),
    st.integers(1, 300),
    st.just(3),
)
RESIDUALS = st.lists(st.floats(-8.0, 8.0), min_size=5, max_size=5).map(np.array)


@given(TASKS)
def test_no_residual_leaves_the_run_exactly_as_the_task_has_it(task):
    found = plan(task, np.zeros(5))
    assert found == plan(task)
    assert (found.population_size, found.n_generations, found.n_runs) == (
        task.population_size,
        task.n_generations,
        1,
    )
    assert found.patience == 0
    steering = Steering.around(GAControls())
    assert (found.controls(steering) == steering.controls.to_array()).all()


@given(TASKS, RESIDUALS)
def test_a_plan_never_costs_more_than_the_budget_and_can_always_be_run(task, residual):
    found = plan(task, residual)
    assert found.n_runs >= 1
    assert found.n_runs * found.evaluations <= task.budget
    Hyperparameters.model_validate(found.hyperparameters().model_dump())
    Task(task.problem, task.dimension, found.population_size, found.n_generations, 3)
    assert np.isfinite(found.controls(Steering.around(GAControls()))).all()


@pytest.mark.parametrize(
    ("position", "field"),
    [(0, "population_size"), (2, "patience"), (3, "mutation_schedule"), (4, "crossover_schedule")],
)
def test_every_hyperparameter_acts_and_rises_with_its_residual(position, field):
    task = Task(Instance("sphere", 3), 10, 60, 100, 3)
    residual = np.zeros((4, 5))
    residual[:, position] = -3.0, -2.0, -1.0, -0.5
    values = [getattr(plan(task, one), field) for one in residual]
    assert values == sorted(set(values))


def test_shorter_runs_are_more_runs():
    task = Task(Instance("sphere", 3), 10, 40, 200, 3)
    found = plan(task, np.array([0.0, -3.0, 0.0, 0.0, 0.0]))
    assert found.n_generations < 60
    assert found.n_runs > 2


def test_a_residual_that_is_no_number_counts_as_none():
    task = Task(Instance("sphere", 3), 10, 40, 60, 3)
    assert plan(task, np.full(5, np.nan)) == plan(task)


@given(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5).map(np.array))
def test_places_and_values_of_hyperparameters_are_inverses(places):
    values = hyperparameter_values(places)
    for value, limits in zip(values, HYPERPARAMETER_RANGES.values(), strict=True):
        assert limits.low <= value <= limits.high
    assert np.allclose(hyperparameter_places(values), places, atol=1e-9)


@given(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5).map(np.array), RESIDUALS)
def test_residuals_move_places_in_their_direction_and_never_out_of_range(places, residual):
    found = moved(places, residual)
    assert ((found >= 0.0) & (found <= 1.0)).all()
    assert ((found - places) * residual >= 0.0).all()
    assert (moved(places, np.zeros(5)) == places).all()
    assert (np.abs(found - places) <= 1.0 - EDGE).all()


def test_the_opening_shows_the_task_and_nothing_of_a_search():
    tasks = [Task(Instance("sphere", 3), 5, 30, 20, 3), Task(Instance("sphere", 3), 10, 90, 20, 3)]
    outlook = dataclasses.replace(Outlook.unknown(2), regime=np.array([1, 2]))
    found = opening_inputs(tasks, outlook, 4)
    assert found.history.shape == (2, 4, 30)
    assert not found.known.any()
    assert found.regime.tolist() == [1, 2]
    differs = [STATE_NAMES[i] for i in np.flatnonzero(found.state[0] != found.state[1])]
    assert differs == ["log_population_size", "log_n_genes"]
    rest = [i for i, name in enumerate(STATE_NAMES) if not name.startswith(("log_", "previous_"))]
    assert not found.state[:, rest].any()


def curve(*best, cost=10):
    return np.array(best, dtype=float), np.full(len(best), cost)


def test_a_budget_is_spent_run_after_run_and_each_gives_way_after_its_patience():
    runs = [curve(-9, -5, -5, -5, -5, -1), curve(-8, -4, -3, -3, -3, -2), curve(-7, -6, -6, -6, -6, -6)]
    best, asked = spent(runs, 2, 1000)
    # The first gives way before its late success; the last goes on to its end.
    assert best.tolist() == [-9, -5, -5, -5, -5, -4, -3, -3, -3, -3, -3, -3, -3, -3, -3]
    assert asked.sum() == 150
    patient = spent(runs, 0, 1000)[0]
    assert patient.tolist()[:6] == [-9, -5, -5, -5, -5, -1]
    assert len(patient) == 18
    assert spent(runs, 2, 65)[1].sum() == 60


@pytest.mark.parametrize("patience", [2, 4, 7])
def test_a_counterfactual_patience_is_that_of_a_run_that_ends_early(patience):
    task = Task(Window("A", 0, 9, "all"), 4, 12, 150, 5)
    controls = dataclasses.replace(GAControls(), restart_fraction=0.0)
    space = GenomeSpace(tuple("abcd"), np.zeros(4), np.ones(4), ("real",) * 4)

    def fitness(genes):
        return -np.round(((genes - 0.4) ** 2).sum(axis=1), 2)

    evaluator = Evaluator(fitness, space)
    hyperparameters = Hyperparameters(population_size=12, n_generations=150, patience=patience)
    # In ga restarts inside a run follow the patience; here both sides have them off and draw alike.
    evolution = Evolution(space, hyperparameters, np.random.default_rng(5), stagnation_guard=10)
    evolution.tell(evaluator(evolution.ask()))
    bests = [evolution.progress.best]
    while not evolution.finished:
        evolution.tell(evaluator(evolution.ask(controls)))
        bests.append(evolution.progress.best)
    assert len(bests) < 151
    batch = Batch((task,), Outlook.unknown(1), np.array([0.01]), lambda task: (space, fitness))
    outcome = batch.environment(Variation(), mapper=SerialMapper()).run_fixed(controls.to_array())
    stored = outcome.best[0], outcome.asked[0]
    best, asked = spent([stored, stored], patience, 10**6)
    assert best[: len(bests)].tolist() == np.maximum.accumulate(bests).tolist()
    assert len(best) == len(asked) == len(bests) + 151


def sources(families=("sphere", "ellipsoid"), size=(12, 60)):
    return Landscapes(TaskSampler("train", 3, dimensions=(4,), sizes=(size,), families=families))


def coarse(**changes):
    """Mutation alone, with a step that is far too large for the end of a run."""
    return Steering.around(
        dataclasses.replace(
            GAControls(),
            mutation_rate=0.6,
            mutation_step=0.2,
            mutation_tail=0.0,
            crossover_rate=0.1,
            differential_rate=0.0,
            **changes,
        )
    )


def test_a_race_finds_that_a_coarse_step_must_shrink_and_a_broken_race_does_not(monkeypatch):
    variation = Variation(mutation="gaussian_cauchy")
    where = HYPERPARAMETER_NAMES.index("mutation_schedule")

    def only_the_schedule(*args):
        residual = branch_residuals(*args)
        residual[..., [i for i in range(5) if i != where]] = 0.0
        return residual

    def help_of_shrinking():
        labels = race_labels(sources(), coarse(), variation, mapper=SerialMapper(), **RACE)
        if not labels.advantage.any():
            return 0.0
        return -np.corrcoef(labels.residual[:, where], labels.advantage)[0, 1]

    monkeypatch.setattr(hyper, "branch_residuals", only_the_schedule)
    assert help_of_shrinking() > 0.4
    monkeypatch.setattr(hyper, "PATIENCE_RESIDUALS", (0.0,))
    assert help_of_shrinking() > 0.4
    monkeypatch.setattr(hyper.Plan, "controls", lambda self, steering: steering.controls.to_array()[None])
    assert help_of_shrinking() == 0.0


def test_the_value_of_a_plan_is_that_of_its_budget_and_pairs_share_their_seeds():
    batch, variation = sources().batch(0, 6), Variation(mutation="gaussian_cauchy")

    def values(schedule, seed=7):
        residual = np.zeros((6, 5))
        residual[:, HYPERPARAMETER_NAMES.index("mutation_schedule")] = schedule
        return hyper.values_of_plans(batch, residual, coarse(), variation, seed=seed, mapper=SerialMapper())

    usual = values(0.0)
    assert (usual == values(0.0)).all()
    assert (usual != values(0.0, seed=8)).any()
    assert values(-2.5).mean() < usual.mean() - 0.1
    # The plan of the task itself is its own run: the same score as from the batch.
    one = sources().batch(0, 1)
    seeds = hyper._seeds(hyper.stream(7, "race", "values"), one, 1)
    task = dataclasses.replace(one.tasks[0], seed=int(seeds[0, 0, 0]))
    same = dataclasses.replace(one, tasks=(task,))
    scored = same.scores(same.environment(variation).run_fixed(coarse().controls.to_array()))
    found = hyper.values_of_plans(one, np.zeros((1, 5)), coarse(), variation, repeats=1, seed=7)
    assert found[0] == pytest.approx(0.5 * (scored.anytime[0] + scored.final[0]), rel=1e-12)


def test_labels_of_races_are_centred_and_the_plan_of_the_task_is_among_them():
    labels = race_labels(sources(), coarse(), Variation(), mapper=SerialMapper(), **RACE)
    n_branches = RACE["n_plans"] * len(hyper.PATIENCE_RESIDUALS)
    assert labels.residual.shape == (RACE["n_tasks"] * n_branches, 5)
    advantage = labels.advantage.reshape(RACE["n_tasks"], n_branches).astype(float)
    assert np.allclose(advantage.mean(axis=1), 0.0, atol=1e-6)
    assert np.sqrt((advantage**2).mean()) == pytest.approx(1.0, abs=1e-6)
    residual = labels.residual.reshape(RACE["n_tasks"], n_branches, 5)
    assert not residual[:, 0].any()
    assert np.allclose(residual.mean(axis=1), 0.0, atol=1e-6)
    assert (labels.state.reshape(RACE["n_tasks"], n_branches, -1) == labels.state[::n_branches, None]).all()
    assert not (residual == residual[:, :1]).all()


def test_races_are_the_same_for_the_same_seed():
    one, same, other = (
        race_labels(
            sources(size=(12, 20)),
            coarse(),
            Variation(),
            n_tasks=2,
            n_plans=3,
            seed=seed,
            mapper=SerialMapper(),
        )
        for seed in (4, 4, 5)
    )
    for field in dataclasses.fields(one):
        assert getattr(one, field.name).tobytes() == getattr(same, field.name).tobytes()
    assert one.advantage.tobytes() != other.advantage.tobytes()


@settings(max_examples=20)
@given(RESIDUALS)
def test_windows_have_plans_as_landscapes_have(residual):
    landscape, window = (
        Task(problem, 5, 50, 60, 3) for problem in (Instance("sphere", 3), Window("A", 0, 9, "all"))
    )
    assert plan(landscape, residual) == plan(window, residual)
    assert (usual_places(landscape) == usual_places(window)).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_tasks": 0}, "n_tasks of races is 0; it must be at least 1"),
        ({"n_plans": 1}, "n_plans of races is 1; it must be at least 2"),
        ({"repeats": 0}, "repeats of races is 0; it must be at least 1"),
    ],
)
def test_a_race_without_contestants_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        race_labels(sources(), coarse(), Variation(), **{**RACE, **changes})


def test_a_silent_layer_is_what_keeps_new_networks_silent():
    layer = nn.Linear(3, 2)
    assert layer(torch.ones(1, 3)).detach().any()
    assert not silent(layer)(torch.ones(1, 3)).detach().any()

"""A conductor inside a search: the same inputs as in training, no look ahead, and nothing to save."""

import copy
import json

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compute.workers import SerialMapper
from conductor.conducting import Conducting
from conductor.curriculum import Landscapes
from conductor.hyperparameters import Plan, plan
from conductor.market_context import ContextScaler, MarketContext
from conductor.model import Conductor
from conductor.network import flat, new_network, put
from conductor.piloting import PilotedPolicy, conducted
from conductor.sight import inputs_of, inputs_of_progress
from conductor.state import MARKET, STATE_NAMES
from conductor.steering import Steering
from conductor.tasks import Instance, Task, TaskSampler
from configs.load import ConfigError, PluginConfig, load
from ga.controls import POLICIES, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.evolve import main
from ga.space import GenomeSpace
from ga.variation import Variation
from market.sources.selection import select_bars
from market.table import DataError
from specialists.settings import EvolveConfig
from specialists.training import ChampionSearch, SpecialistSearch, evolve_specialist, prepare
from tests.specialists.ground import small_config, small_ground

TASKS = Landscapes(TaskSampler("train", 3, dimensions=(4,), sizes=((16, 12),))).batch(0, 3)


@pytest.fixture
def folder(tmp_path):
    network = new_network("es", {}, 1)
    put(network, flat(network) + np.random.default_rng(1).normal(0.0, 0.3, flat(network).size))
    return Conductor("es", network, Steering.around(GAControls())).save(tmp_path / "conductor")


def policy_of(folder, **settings):
    return POLICIES.create("conductor", {"folder": str(folder), **settings})


def searched(task, policy):
    """Yield the progress of a search of a landscape whose controls a policy sets."""
    one = task.landscape()
    space = GenomeSpace(tuple(f"x{j}" for j in range(4)), np.zeros(4), np.ones(4), ("real",) * 4)
    evolution = Evolution(space, task.hyperparameters, np.random.default_rng(task.seed))
    evolution.tell(-one(evolution.ask(None)))
    while True:
        yield evolution.progress
        if evolution.finished:
            return
        evolution.tell(-one(evolution.ask(policy.controls(evolution.progress))))


def test_a_search_meets_the_inputs_and_controls_that_training_met(folder):
    conductor, policy = Conductor.load(folder), policy_of(folder)
    conducting = Conducting(conductor.network, conductor.steering, TASKS.outlook)
    environment = TASKS.environment(conductor.variation, mapper=SerialMapper())
    environment.step()
    runs = [searched(task, policy) for task in TASKS.tasks]
    for generation in range(4):  # later on the last bits of products have led the runs apart
        inputs = inputs_of(environment, TASKS.outlook, 3)
        for b, run in enumerate(runs):
            progress = next(run)
            assert progress.generation == generation
            mine = inputs_of_progress(progress, policy._context, -1, 3)
            for all_runs, one in zip(inputs, mine, strict=True):
                np.testing.assert_allclose(all_runs[b], one[0], atol=1e-5)
        environment.step(conducting(environment.states, environment))


def test_the_same_progress_gives_the_same_controls_and_there_is_nothing_to_save(folder):
    policy = policy_of(folder)
    for progress in searched(TASKS.tasks[0], policy):
        assert policy.controls(progress) == policy.controls(progress)
    assert policy.state() == {}
    assert policy.seconds > 0.0


def test_a_new_policy_and_a_copy_for_an_island_set_the_same_controls(folder):
    policy = policy_of(folder)
    twin, other = copy.deepcopy(policy), policy_of(folder)
    for progress in searched(TASKS.tasks[1], policy):
        assert policy.controls(progress) == twin.controls(progress) == other.controls(progress)


def test_the_market_reaches_the_network_and_only_training_bars_do(tmp_path, make_bars):
    bars = make_bars(900, seed=4)
    contexts = [MarketContext.of(bars[i : i + 300]) for i in range(0, 600, 100)]
    network = new_network("es", {"features": STATE_NAMES}, 1)
    put(network, flat(network) + np.random.default_rng(1).normal(0.0, 0.3, flat(network).size))
    scaler = ContextScaler.fit(contexts)
    place = Conductor("es", network, Steering.around(GAControls()), scaler=scaler).save(tmp_path / "c")
    opened = int(bars.time[600]) - bars.interval_ns
    policy = policy_of(place).placed(bars[:600], 2, opened)
    blind = policy_of(place)
    progress = next(searched(TASKS.tasks[0], blind))
    assert policy.controls(progress) != blind.controls(progress)
    mine = inputs_of_progress(progress, policy._context, 2).state[0]
    np.testing.assert_allclose(
        mine[MARKET], scaler.scaled(MarketContext.of(bars[:600])).values.astype(np.float32)
    )
    assert len(mine) == len(STATE_NAMES)


def test_a_conductor_that_has_seen_later_bars_is_refused(tmp_path, make_bars):
    bars = make_bars(900, seed=4)
    opened = int(bars.time[600]) - bars.interval_ns
    network = new_network("es", {}, 1)
    for until, fine in ((opened, True), (opened + 1, False)):
        place = Conductor("es", network, Steering.around(GAControls()), fitted_until=until).save(
            tmp_path / str(until)
        )
        if fine:
            policy_of(place).placed(bars[:600], None, opened)
        else:
            with pytest.raises(DataError, match="are not out of sample for it"):
                policy_of(place).placed(bars[:600], None, opened)


def test_a_run_that_began_with_other_weights_does_not_go_on(folder):
    with pytest.raises(ConfigError, match="go on with that one or begin anew"):
        policy_of(folder, weights_sha256="0" * 64)


def test_the_command_finds_the_conductor_and_keeps_its_digest_in_the_settings(folder):
    config = conducted(EvolveConfig(), str(folder))
    assert config.policy.name == "conductor"
    assert isinstance(POLICIES.create("conductor", config.policy.settings), PilotedPolicy)
    assert config.digest() != EvolveConfig().digest()


def test_another_policy_or_other_operators_beside_a_conductor_are_refused(folder):
    with pytest.raises(ConfigError, match=r"policy\.name is bandit"):
        conducted(EvolveConfig(policy=PluginConfig(name="bandit")), str(folder))
    with pytest.raises(ConfigError, match="learned to steer"):
        conducted(EvolveConfig(variation=Variation(recombination="sbx")), str(folder))


USUAL = Hyperparameters(population_size=64, n_generations=49, patience=10)
#: Of the head of hyperparameters: fewer individuals, shorter runs, less patience, both schedules.
SAID = (-0.9, -1.5, -1.0, -2.0, -1.0)
SMALL = [
    "--set", "market.synthetic.n_bars=6000",
    "--set", "detector={name: volatility}",
    "--set", "fitness={folds: 4, min_trades: 5}",
    "--set", "hyperparameters={population_size: 32, n_generations: 3, patience: 0}",
    "--workers", "serial",
]  # fmt: skip


def saved(folder, said=SAID, controls=0.0):
    """Save a conductor whose head of hyperparameters always says the same; return its folder."""
    network = new_network("multitask", {}, 1)
    if controls:
        put(network, flat(network) + np.random.default_rng(1).normal(0.0, controls, flat(network).size))
    with torch.no_grad():
        network.run_head.bias.copy_(torch.tensor(said))
    return Conductor("multitask", network, Steering.around(GAControls())).save(folder)


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("two_heads"))


def evaluations(run):
    return run.population_size * (run.n_generations + 1)


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(st.floats(-50.0, 50.0, width=32) | st.just(0.0) | st.just(np.nan), min_size=5, max_size=5),
    size=st.integers(8, 8192),
    generations=st.integers(1, 3000),
    patience=st.integers(0, 4000),
    share=st.floats(0.0, 1.0),
)
@example([0.0] * 5, 64, 49, 10, 1.0)
@example([-50.0] * 5, 8, 1, 1, 1.0)
@example([50.0] * 5, 8192, 3000, 0, 0.0)
@example([0.0, 50.0, 0.0, 0.0, 0.0], 200, 10, 5, 0.0)
def test_whatever_is_said_the_budget_is_used_up_and_no_more(
    two_heads, said, size, generations, patience, share
):
    policy = policy_of(two_heads)
    with torch.no_grad():
        policy._loaded().network.run_head.bias.copy_(torch.tensor(said))
    usual = Hyperparameters(population_size=size, n_generations=generations, patience=patience)
    least = max(8, int(share * size))
    chosen = policy.hyperparameters(usual, 12, least)
    assert evaluations(usual) - chosen.population_size < evaluations(chosen) <= evaluations(usual)
    assert chosen.population_size >= least
    assert (chosen.patience == 0) == (patience == 0)
    if not np.nan_to_num(said).any():
        assert chosen is usual
    if size > 512:
        assert chosen.population_size == size


def test_several_runs_of_a_plan_become_one_that_costs_as_much(two_heads):
    task = Task(Instance("sphere", 1), 12, USUAL.population_size, USUAL.n_generations, 1)
    planned = plan(task, np.array(SAID))
    assert planned.n_runs > 1
    assert evaluations(planned) * planned.n_runs <= evaluations(USUAL)
    chosen = policy_of(two_heads).hyperparameters(USUAL, 12)
    assert chosen.population_size == planned.population_size < USUAL.population_size
    assert chosen.n_generations == evaluations(USUAL) // planned.population_size - 1
    assert chosen.mutation_schedule == planned.mutation_schedule < 1.0
    assert chosen.crossover_schedule == planned.crossover_schedule < 0.0
    share = chosen.patience / chosen.n_generations
    assert 0.05 <= share < USUAL.patience / USUAL.n_generations


def test_what_is_left_unsaid_stays_as_the_settings_have_it(tmp_path):
    patient = policy_of(saved(tmp_path / "one", (-0.9, 0.0, 0.0, 0.0, 0.0))).hyperparameters(USUAL, 12)
    assert patient.n_generations > USUAL.n_generations
    share = USUAL.patience / USUAL.n_generations
    assert patient.patience == round(share * patient.n_generations)
    assert (patient.mutation_schedule, patient.crossover_schedule) == (1.0, 0.0)
    other = policy_of(saved(tmp_path / "two", (0.0, 0.0, 0.0, 0.0, 1.0))).hyperparameters(USUAL, 12)
    assert other.model_dump(exclude={"mutation_schedule", "crossover_schedule"}) == USUAL.model_dump(
        exclude={"mutation_schedule", "crossover_schedule"}
    )


def test_the_head_sees_the_market_the_regime_and_the_size_of_the_task(tmp_path, make_bars):
    bars = make_bars(900, seed=4)
    scaler = ContextScaler.fit([MarketContext.of(bars[i : i + 300]) for i in range(0, 600, 100)])
    network = new_network("multitask", {}, 1)
    with torch.no_grad():
        network.run_head.weight.copy_(torch.tensor(np.random.default_rng(2).normal(0.0, 1.0, (5, 32))))
    place = Conductor("multitask", network, Steering.around(GAControls()), scaler=scaler).save(tmp_path)
    opened = int(bars.time[600]) - bars.interval_ns
    policy = policy_of(place).placed(bars[:600], 2, opened)
    chosen = policy.hyperparameters(USUAL, 12)
    assert chosen == policy_of(place).placed(bars[:600], 2, opened).hyperparameters(USUAL, 12)
    assert chosen != policy_of(place).hyperparameters(USUAL, 12)
    assert chosen != policy.hyperparameters(USUAL, 40)


@pytest.mark.parametrize("variant", ["es", "multitask"])
def test_without_a_head_that_speaks_nothing_changes(tmp_path, variant):
    network = new_network(variant, {}, 1)
    put(network, flat(network) + np.random.default_rng(1).normal(0.0, 0.3, flat(network).size))
    place = Conductor(variant, network, Steering.around(GAControls())).save(tmp_path)
    asked, never = policy_of(place), policy_of(place)
    # The schedules of the settings belong to policy scheduled.
    usual = USUAL.model_copy(update={"mutation_schedule": 0.01, "crossover_schedule": -0.5})
    assert asked.hyperparameters(usual, 4) is usual
    for progress in searched(TASKS.tasks[0], never):
        assert asked.controls(progress) == never.controls(progress)


class Compounding(PilotedPolicy):
    """A broken build: steering begins where the drift ended, so that it drifts again and again."""

    def _drifted(self, progress, bred):
        return (1.0, 0.0) if bred < progress.generation else super()._drifted(progress, bred)


def drifting(kind, folder):
    """Return a policy that has chosen, and a search of that size."""
    task = TASKS.tasks[0]
    policy = kind(PilotedPolicy.Config(folder=str(folder)))
    run = policy.hyperparameters(task.hyperparameters, task.dimension)
    return policy, run, Task(task.problem, task.dimension, run.population_size, run.n_generations, task.seed)


@pytest.mark.parametrize("crossover", [-1.0, 1.0])  # the latter ends at the bound of the rate
def test_controls_drift_as_in_the_races_that_taught_it(tmp_path, crossover):
    folder = saved(tmp_path, (*SAID[:4], crossover))
    gaps = []
    for kind in (PilotedPolicy, Compounding):
        policy, run, task = drifting(kind, folder)
        made = [policy.controls(progress).to_array() for progress in searched(task, policy)]
        races = Plan(
            run.population_size, run.n_generations, 1, 0, run.mutation_schedule, run.crossover_schedule
        ).controls(policy._loaded().steering)
        wanted = np.stack([GAControls.from_array(row).to_array() for row in races])
        assert wanted[-1, 1] < 0.5 * wanted[0, 1]
        assert crossover > 0.0 or wanted[-1, 3] < wanted[0, 3] - 0.2
        gaps.append(np.abs(made[: run.n_generations] / wanted - 1.0).max())
    assert gaps[0] < 1e-9
    assert gaps[1] > 0.1


def test_a_copy_for_an_island_and_a_policy_that_chooses_again_drift_alike(tmp_path):
    folder = saved(tmp_path, controls=0.3)
    policy, run, task = drifting(PilotedPolicy, folder)
    twin, (other, again, _), undecided = (
        copy.deepcopy(policy),
        drifting(PilotedPolicy, folder),
        policy_of(folder),
    )
    assert again == run
    for progress in searched(task, policy):
        assert policy.controls(progress) == twin.controls(progress) == other.controls(progress)
    assert policy.controls(progress) != undecided.controls(progress)


def test_a_search_has_what_was_chosen_and_its_config_what_the_user_gave(two_heads):
    config = small_config(policy={"name": "conductor", "folder": str(two_heads)})
    ready = SpecialistSearch.of(small_ground(), config)
    hunt = ChampionSearch(ready, SerialMapper())
    assert ready.config == config
    assert hunt.evolution.hyperparameters == ready.hyperparameters != config.hyperparameters
    while not hunt.finished:
        hunt.step()
    progress = hunt.evolution.progress
    assert progress.generation == ready.hyperparameters.n_generations > config.hyperparameters.n_generations
    assert hunt.evaluator.evaluations <= progress.evaluations <= evaluations(config.hyperparameters)
    silent = SpecialistSearch.of(small_ground(), small_config())
    assert silent.hyperparameters is silent.config.hyperparameters


def test_islands_keep_their_least_size_and_are_judged_by_what_the_user_gave(two_heads):
    policy = {"name": "conductor", "folder": str(two_heads)}
    config = small_config(policy=policy, islands={"count": 3, "migrants": 2})  # of 8 individuals each
    hunt = ChampionSearch(SpecialistSearch.of(small_ground(), config), SerialMapper())
    assert [island.hyperparameters.population_size for island in hunt.evolution.islands] == [8, 8, 8]
    hunt.step()
    hunt.step()
    small = small_config(policy=policy, islands={"count": 4, "migrants": 2})
    with pytest.raises(ConfigError, match=r"islands\.count is 4 for a population of 24"):
        ChampionSearch(SpecialistSearch.of(small_ground(), small), SerialMapper())


def evolve(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return exit_.value.code


def test_a_stopped_run_chooses_the_same_again_and_its_settings_stay(two_heads, tmp_path, monkeypatch, capsys):
    from specialists.watching import GenerationTable

    show = GenerationTable.show

    def interrupt(self, evolution):
        show(self, evolution)
        if evolution.progress.generation == 2:
            raise KeyboardInterrupt

    start = ["--runs", str(tmp_path / "runs"), *SMALL, "--conductor", str(two_heads)]
    monkeypatch.setattr(GenerationTable, "show", interrupt)
    assert evolve(*start) == 130
    monkeypatch.undo()
    (run,) = (tmp_path / "runs").glob("evolve-*")
    said = "The conductor chose"
    (first,) = [line for line in capsys.readouterr().out.splitlines() if said in line]
    assert evolve("--runs", str(run.parent), "--resume", run.name, "--workers", "serial") == 0
    (again,) = [line for line in capsys.readouterr().out.splitlines() if said in line]
    assert first == again
    assert "in place of 32 and 3, with no early end" in first
    kept = yaml.safe_load((run / "config.yaml").read_text())["hyperparameters"]
    assert (kept["population_size"], kept["n_generations"]) == (32, 3)
    report = json.loads((run / "report.json").read_text())
    chosen = Hyperparameters(**report["hyperparameters"])
    assert f"chose {chosen.population_size} individuals and {chosen.n_generations} generations" in first
    assert report["search"]["generations"] == chosen.n_generations > 3
    assert evaluations(chosen) <= 32 * 4
    assert report["search"]["evaluated"] <= 32 * 4
    config = load(EvolveConfig, run / "config.yaml")
    undisturbed = evolve_specialist(prepare(select_bars(config.market).bars, config), config, SerialMapper())
    assert report["champion"]["genes"] == undisturbed.specialist.genes_by_name()

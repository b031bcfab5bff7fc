"""Runs as episodes: what is paid is the objective, and the libraries of reinforcement learning can play them.

What needs gymnasium and Stable-Baselines3 (extra rl) is skipped without them; episodes and the network of the
variant need neither.
"""

import random
import runpy
import sys

import numpy as np
import pytest
import torch

from compute.workers import SerialMapper
from conductor.conducting import Conducting
from conductor.curriculum import Batch, Landscapes, Mixture
from conductor.episodes import Episodes, Terms
from conductor.network import N_CONTROLS, N_STATE, VARIANTS, flat, put, tensors
from conductor.objective import LIMIT, objective
from conductor.school import School
from conductor.sight import Outlook, inputs_of
from conductor.state import STATE_NAMES
from conductor.steering import Steering
from conductor.tasks import Task, TaskSampler, Window
from conductor.variants.rl import Rl, RlConfig
from configs.load import ConfigError
from ga.controls import CONTROL_NAMES, GAControls
from ga.space import GenomeSpace
from ga.variation import Variation

STEERING = Steering.around(GAControls())
SHORT = Landscapes(TaskSampler("train", 1, dimensions=(3, 5), sizes=((10, 8),)))
MIXED = Landscapes(TaskSampler("train", 2, dimensions=(3,), sizes=((10, 4), (12, 7), (16, 2))))


def terms(**settings):
    return Terms(STEERING, Variation(), **settings)


def windows(n, first=0):
    """Market windows whose fitness falls, from 0, with the distance from the middle."""
    space = GenomeSpace(("a", "b"), np.zeros(2), np.ones(2), ("real",) * 2)
    tasks = tuple(Task(Window("X", i, i + 1, "all"), 2, 10, 5, first + i) for i in range(n))
    return Batch(
        tasks,
        Outlook.unknown(n),
        np.full(n, 0.01),
        lambda task: (space, lambda genes: -np.abs(genes - 0.5).sum(axis=1)),
    )


def played(batch, agreed, actions, broken=None):
    """Sum of the rewards of each run, and the runs."""
    episodes = Episodes(batch, agreed, mapper=SerialMapper())
    if broken is not None:
        broken(episodes)
    rng = np.random.default_rng(3)
    total = np.zeros(len(batch))
    while not episodes.finished.all():
        total += episodes.step(actions(rng, episodes))
    return total, episodes


def at_random(rng, episodes):
    return rng.uniform(-1.0, 1.0, (len(episodes), N_CONTROLS))


def judged(batch, episodes, share):
    """What the objective says of the same runs."""
    fixed = batch.environment(Variation(), mapper=SerialMapper()).run_fixed(STEERING.controls.to_array())
    own = batch.scores(episodes.environment.outcome())
    return objective(own, batch.scores(fixed), final_share=share)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "batch", [SHORT.batch(0, 12), MIXED.batch(0, 12), windows(6)], ids=["equal", "mixed", "windows"]
)
def test_rewards_add_up_to_minus_the_objective(share, batch):
    total, episodes = played(batch, terms(final_share=share), at_random)
    found = judged(batch, episodes, share)
    assert np.ptp(found) > 0.1
    np.testing.assert_allclose(total, -found, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(episodes.value, total, rtol=0.0, atol=1e-12)


def test_a_reward_that_forgets_what_was_spent_is_noticed():
    def broken(episodes):
        episodes._budget *= 2.0  # every generation counts half

    batch = SHORT.batch(0, 12)
    total, episodes = played(batch, terms(final_share=0.0), at_random, broken)
    assert np.abs(total + judged(batch, episodes, 0.0)).max() > 0.05


def test_rewards_add_up_beyond_the_limits_too():
    # Controls that all but stop the search, on the smoothest landscape, against ones that do not.
    sampler = TaskSampler("train", 1, dimensions=(3,), sizes=((20, 60),), families=("sphere",))
    batch = Landscapes(sampler).batch(0, 4)
    total, episodes = played(batch, terms(final_share=1.0, reach=6.0), idle)
    found = judged(batch, episodes, 1.0)
    np.testing.assert_allclose(total, -found, rtol=0.0, atol=1e-12)
    assert (found == LIMIT).any()


def idle(rng, episodes):
    action = np.full((len(episodes), N_CONTROLS), -1.0)
    action[:, CONTROL_NAMES.index("immigrant_fraction")] = 1.0
    return action


def test_doing_nothing_is_paid_exactly_nothing_and_is_the_static_twin():
    for batch in (SHORT.batch(1, 8), MIXED.batch(1, 9), windows(3)):
        for nothing in (0.0, np.nan):
            total, episodes = played(
                batch, terms(), lambda rng, e, nothing=nothing: np.full((len(e), N_CONTROLS), nothing)
            )
            assert not total.any()
        twin = batch.environment(Variation(), mapper=SerialMapper())
        np.testing.assert_array_equal(
            episodes.environment.outcome().best, twin.run_fixed(STEERING.controls.to_array()).best
        )


def test_an_ended_run_is_paid_nothing_and_reads_no_action():
    batch = MIXED.batch(0, 12)
    ends = np.array([task.n_generations for task in batch.tasks])
    episodes = Episodes(batch, terms(), mapper=SerialMapper())
    rng = np.random.default_rng(0)
    for generation in range(1, ends.max() + 1):
        action = at_random(rng, episodes)
        action[ends < generation] = np.inf
        paid = episodes.step(action)
        assert not paid[ends < generation].any()
        np.testing.assert_array_equal(episodes.finished, ends <= generation)
    assert np.count_nonzero(episodes.value) > 8


def test_an_action_is_a_residual_in_units_of_the_reach_and_no_more():
    batch = SHORT.batch(0, 4)
    action = np.linspace(-3.0, 3.0, N_CONTROLS)
    episodes = Episodes(batch, terms(reach=1.5), mapper=SerialMapper())
    episodes.step(np.tile(action, (4, 1)))
    expected = STEERING.steered(1.5 * np.clip(action, -1, 1), np.full(N_CONTROLS, np.nan))
    np.testing.assert_array_equal(episodes.environment.controls, np.tile(expected, (4, 1)))


def test_what_an_agent_sees_is_what_a_network_sees():
    episodes = Episodes(SHORT.batch(0, 4), terms(), mapper=SerialMapper())
    episodes.step(at_random(np.random.default_rng(0), episodes))
    seen = episodes.seen()
    assert seen.shape == (4, len(STATE_NAMES))
    np.testing.assert_array_equal(seen, inputs_of(episodes.environment, episodes.batch.outlook).state)


def test_the_twin_takes_most_of_the_luck_of_a_task_out_of_what_is_paid():
    batch = Landscapes(TaskSampler("train", 4, sizes=((20, 20),))).batch(0, 64)
    total, episodes = played(batch, terms(final_share=0.0), at_random)
    begin = np.log10(-episodes.environment.best[:, 0])
    without = begin - batch.scores(episodes.environment.outcome()).anytime
    assert total.var() < 0.6 * without.var()


def test_terms_and_actions_that_make_no_sense_are_refused():
    batch = SHORT.batch(0, 2)
    with pytest.raises(ValueError, match=r"final_share is 1\.5; it must be from 0 to 1"):
        Episodes(batch, terms(final_share=1.5))
    with pytest.raises(ValueError, match="reach is 0; it must be above 0"):
        Episodes(batch, terms(reach=0))
    with pytest.raises(ValueError, match=r"actions have shape \(2, 3\); 2 runs need \(2, 12\)"):
        Episodes(batch, terms(), mapper=SerialMapper()).step(np.zeros((2, 3)))


# The network, without the libraries


def school_of(source, said=None, effort=1.0):
    return School(
        source,
        STEERING,
        Variation(),
        lambda n: pytest.fail("reinforcement learning reads no labels"),
        7,
        effort,
        SerialMapper(),
        lambda *words: None if said is None else said.append(words),
    )


def new(**settings):
    torch.manual_seed(0)
    return Rl(RlConfig(**settings))


def test_a_new_actor_is_silent_and_small_enough_to_be_evolved_on():
    network = VARIANTS.create("rl")
    batch = SHORT.batch(0, 6)
    environment = batch.environment(mapper=SerialMapper())
    conducting = Conducting(network, STEERING, batch.outlook)
    environment.run(conducting)
    assert len(conducting.residuals) == 8
    assert not np.any(conducting.residuals)
    assert flat(network).size == sum(parameter.numel() for parameter in network.parameters())


def test_no_residual_is_beyond_the_reach():
    network = new(reach=1.25)
    put(network, np.random.default_rng(0).normal(0.0, 3.0, flat(network).size))
    batch = SHORT.batch(0, 6)
    conducting = Conducting(network, STEERING, batch.outlook)
    batch.environment(mapper=SerialMapper()).run(conducting)
    sizes = np.abs(conducting.residuals)
    assert sizes.max() <= np.float32(1.25)
    assert sizes.max() > 1.0


def test_without_the_extra_training_is_refused_in_a_sentence_and_nothing_else_is(monkeypatch):
    monkeypatch.setattr("conductor.variants.rl.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r"gymnasium and stable_baselines3, which this .* pip install 'regime-conductor\[rl\]'",
    ):
        new().schooled(school_of(SHORT))
    batch = SHORT.batch(0, 2)
    batch.environment(mapper=SerialMapper()).run(Conducting(new(), STEERING, batch.outlook))


def test_variants_and_episodes_are_imported_without_the_extra(monkeypatch, root):
    for package in ("gymnasium", "stable_baselines3"):
        monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    monkeypatch.setitem(VARIANTS._plugins, "rl", Rl)  # put back what the module registers here
    for module in ("conductor.episodes", "conductor.variants.rl"):
        assert runpy.run_path(sys.modules[module].__file__, run_name=module)
    with pytest.raises(ImportError):
        runpy.run_path(str(root / "conductor" / "gym_environment.py"))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="algorithm"):
        VARIANTS.create("rl", {"algorithm": "dqn"})
    with pytest.raises(ConfigError, match="reach"):
        VARIANTS.create("rl", {"reach": 0})


# With the libraries


@pytest.fixture
def gym():
    for package in ("gymnasium", "stable_baselines3"):
        pytest.importorskip(package, reason=f"{package} (extra rl) is not installed")
    from conductor import gym_environment

    return gym_environment


def test_gymnasium_accepts_the_environment_of_one_run(gym):
    from gymnasium.utils.env_checker import check_env

    check_env(gym.RunEnvironment(MIXED, terms()), skip_render_check=True)  # there is nothing to render


def test_gymnasium_would_not_accept_one_that_lies_about_its_states(gym):
    from gymnasium.utils.env_checker import check_env

    class Broken(gym.RunEnvironment):
        def reset(self, **settings):
            seen, info = super().reset(**settings)
            return seen * 100.0, info

    with pytest.raises(AssertionError, match="observation"):
        check_env(Broken(MIXED, terms()), skip_render_check=True)


def test_one_run_ends_with_its_budget_and_is_paid_what_its_batch_is_paid(gym):
    environment = gym.RunEnvironment(MIXED, terms(), drawn=5)
    seen, info = environment.reset(seed=4)
    task, rng = info["task"], np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (task.n_generations, N_CONTROLS)).astype(np.float32)
    alone = Episodes(Batch((task,), Outlook.unknown(1), np.array([1e-8])), terms(), mapper=SerialMapper())
    for generation, action in enumerate(actions, 1):
        seen, reward, terminated, truncated, _ = environment.step(action)
        assert reward == alone.step(action[None])[0]
        np.testing.assert_array_equal(seen, alone.seen()[0])
        assert terminated == (generation == task.n_generations)
        assert not truncated
    with pytest.raises(Exception, match="no run is under way; call reset"):
        environment.step(actions[0])


def test_a_seed_decides_the_tasks_of_all_episodes(gym):
    def tasks(seed):
        environment = gym.RunEnvironment(SHORT, terms())
        return [environment.reset(seed=seed)[1]["task"], *(environment.reset()[1]["task"] for _ in range(3))]

    assert tasks(1) == tasks(1)
    assert len(set(tasks(1))) == 4
    assert not set(tasks(1)) & set(tasks(2))


@pytest.mark.parametrize("source", [SHORT, MIXED, Mixture((SHORT, MIXED), (1.0, 1.0))])
def test_many_runs_are_paid_and_shown_what_each_alone_would_be(gym, source):
    environment = gym.RunVecEnv(source, terms(), 6, first=3, mapper=SerialMapper())
    seen = environment.reset()
    queue = [
        task
        for number in range(3, 20)
        for task in sorted(source.batch(number, 6).tasks, key=lambda task: task.n_generations)
    ]
    rng, alone = np.random.default_rng(1), []
    for place in range(6):
        alone.append(one_run(queue.pop(0)))
        np.testing.assert_array_equal(seen[place], alone[place].seen()[0])
    n_ended = 0
    for _ in range(20):
        actions = rng.uniform(-1.0, 1.0, (6, N_CONTROLS)).astype(np.float32)
        seen, rewards, ended, infos = environment.step(actions)
        for place in range(6):
            reward = alone[place].step(actions[place][None])[0]
            assert rewards[place] == np.float32(reward)
            assert ended[place] == alone[place].finished[0]
            last = alone[place].seen()[0]
            if ended[place]:
                n_ended += 1
                np.testing.assert_array_equal(infos[place]["terminal_observation"], last)
                assert infos[place]["task"] == alone[place].batch.tasks[0]
                assert infos[place]["episode"] == {
                    "r": alone[place].value[0],
                    "l": alone[place].batch.tasks[0].n_generations,
                }
                alone[place] = one_run(queue.pop(0))
                last = alone[place].seen()[0]
            else:
                assert infos[place] == {}
            np.testing.assert_array_equal(seen[place], last)
    assert n_ended > 6


def one_run(task):
    return Episodes(Batch((task,), Outlook.unknown(1), np.array([1e-8])), terms(), mapper=SerialMapper())


def test_many_runs_of_windows_are_opened_by_the_batch_they_came_with(gym):
    class Windows:
        def batch(self, number, n):
            return windows(n, first=100 * number)

    environment = gym.RunVecEnv(Mixture((Windows(), MIXED), (1.0, 1.0)), terms(), 4, mapper=SerialMapper())
    environment.reset()
    seen = set()
    for _ in range(12):
        *_, infos = environment.step(np.zeros((4, N_CONTROLS)))
        seen |= {type(info["task"].problem).__name__ for info in infos if info}
    assert seen == {"Window", "Instance"}


def test_the_libraries_own_checks_accept_the_vectorized_runs(gym):
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor

    environment = VecMonitor(gym.RunVecEnv(SHORT, terms(), 3, mapper=SerialMapper()))
    assert isinstance(environment, VecEnv)
    environment.seed(3)
    first = environment.reset()
    assert environment.observation_space.contains(first[0])
    for _ in range(8):
        *_, ended, infos = environment.step(np.zeros((3, N_CONTROLS), dtype=np.float32))
    assert ended.all()
    assert [info["episode"]["l"] for info in infos] == [8, 8, 8]
    assert environment.env_is_wrapped(VecMonitor) == [False] * 3
    with pytest.raises(AttributeError, match="runs have no attributes"):
        environment.set_attr("n", 1)
    environment.close()


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
def test_the_network_answers_as_the_trained_agent_does_without_noise(gym, algorithm, monkeypatch):
    from conductor.variants import rl

    models = []

    def model(*arguments):
        models.append(made(*arguments))
        return models[-1]

    made = rl._model
    monkeypatch.setattr(rl, "_model", model)
    network = new(algorithm=algorithm, steps=96, runs=4, hidden=6, learning_rate=0.01, judging_tasks=4)
    keep_last(monkeypatch)
    said = []
    figures = network.schooled(school_of(SHORT, said))
    assert flat(network).any()
    assert figures["steps"][0] == 0
    assert figures["judged"][0] == 0.0
    assert sum(figures["episodes"]) >= 8
    assert said[-1][:2] == (96, 96)
    episodes = Episodes(SHORT.batch(5, 7), terms(), mapper=SerialMapper())
    episodes.step(at_random(np.random.default_rng(0), episodes))
    seen = episodes.seen()
    with torch.inference_mode():
        answer = network(tensors(inputs_of(episodes.environment, episodes.batch.outlook))).numpy()
    action, _ = models[0].predict(seen, deterministic=True)
    np.testing.assert_allclose(answer, network.config.reach * action, rtol=0.0, atol=1e-5)
    assert np.abs(answer).max() > 1e-4


def keep_last(monkeypatch):
    """The last actor is the best, whatever it is worth."""
    from conductor.variants import rl

    real = rl.objective
    count = iter(range(1, 1000))
    monkeypatch.setattr(rl, "objective", lambda *a, **k: 0.0 * real(*a, **k) - next(count))


def test_training_begins_at_the_tuned_controls(gym, monkeypatch):
    from conductor.variants import rl

    seen = np.zeros((3, N_STATE), dtype=np.float32) + 0.3
    for algorithm in ("ppo", "sac", "td3"):
        config = RlConfig(algorithm=algorithm, steps=64, runs=4)
        environment = gym.RunVecEnv(SHORT, terms(), 4, mapper=SerialMapper())
        model = rl._model(config, environment, 64, 0)
        assert np.abs(model.predict(seen, deterministic=True)[0]).max() > 0.0  # not so without loading
        rl._load(model, Rl(config))
        assert not model.predict(seen, deterministic=True)[0].any()


def test_an_actor_that_is_worse_than_silence_is_not_kept(gym, monkeypatch):
    from conductor.variants import rl

    real = rl.objective
    monkeypatch.setattr(rl, "objective", lambda *a, **k: np.abs(real(*a, **k)) + 0.01)
    network = new(steps=96, runs=4, hidden=6, learning_rate=0.01, judging_tasks=4)
    before = flat(network)
    figures = network.schooled(school_of(SHORT))
    assert figures["kept"] == 0
    assert len(figures["judged"]) > 2
    np.testing.assert_array_equal(flat(network), before)


def test_a_choice_that_other_tasks_do_not_confirm_is_not_kept(gym, monkeypatch):
    from conductor.variants import rl

    keep_last(monkeypatch)
    chosen = rl._Course._worth
    course = []

    def worth(self, batch, reference):
        course.append(batch)
        return 0.01 if batch is self._checking[0] else chosen(self, batch, reference)

    monkeypatch.setattr(rl._Course, "_worth", worth)
    network = new(steps=96, runs=4, hidden=6, judging_tasks=4)
    figures = network.schooled(school_of(SHORT))
    assert figures["checked"] == 0.01
    assert figures["kept"] == 0
    assert min(figures["judged"]) < 0.0
    assert not network.head.weight.any()
    assert not {task.problem for task in course[0].tasks} & {task.problem for task in course[-1].tasks}


def test_training_is_deterministic_and_leaves_the_global_generators_alone(gym, monkeypatch):
    keep_last(monkeypatch)
    weights = []
    for beginning in (1, 2):
        random.seed(beginning)
        torch.manual_seed(0)
        network = Rl(RlConfig(steps=64, runs=4, hidden=6, judging_tasks=2))
        states = random.getstate(), torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002
        threads = torch.get_num_threads()
        network.schooled(school_of(SHORT))
        after = random.getstate(), torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002
        assert after[0] == states[0]
        assert torch.equal(after[1], states[1])
        assert all(np.array_equal(one, other) for one, other in zip(after[2], states[2], strict=True))
        assert torch.get_num_threads() == threads
        weights.append(flat(network))
    np.testing.assert_array_equal(*weights)

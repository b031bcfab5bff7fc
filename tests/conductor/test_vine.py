"""Vine labels: what a change of controls is worth, and nothing that a network could copy from its inputs.

Broken vines stand beside the real one: one whose branches breed with other controls than they note down, one
that takes its labels from the log of the controller, one whose branches draw different random numbers. The
same checks must tell them apart.
"""

import dataclasses
import re

import numpy as np
import pytest
from scipy.special import logit

from compute.workers import SerialMapper, ThreadMapper
from conductor import vine as module
from conductor.curriculum import Batch, Landscapes
from conductor.environment import Environment
from conductor.sight import Outlook
from conductor.state import CONTROLS
from conductor.steering import Steering
from conductor.tasks import SPLITS, Instance, Task, TaskSampler, Window
from conductor.vine import HOLD, branch_residuals, seeds_beside, vine
from ga.controls import CONTROL_NAMES, GAControls, places_of
from ga.space import GenomeSpace
from ga.variation import Variation

STEP = CONTROL_NAMES.index("mutation_step")
#: Mutation alone, and with a step that is far too small.
TIMID = GAControls(
    mutation_rate=0.5,
    mutation_step=1e-3,
    mutation_tail=0.0,
    crossover_rate=0.05,
    crossover_spread=0.1,
    differential_rate=0.02,
    differential_weight=0.1,
    tournament_size=3.0,
    elite_fraction=0.01,
    immigrant_fraction=0.001,
    crowding_rate=0.1,
    restart_fraction=0.01,
)


def landscapes(split="train", families=("sphere", "ellipsoid"), sizes=((12, 24),), dimension=4):
    return Landscapes(TaskSampler(split, 3, dimensions=(dimension,), sizes=sizes, families=families))


class Windows:
    """Tasks that are opened, with a regime each: a sphere whose regret is small, in units of ``scale``."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def batch(self, number, n):
        tasks = tuple(
            Task(Window(f"A{number}-{i}", 0, 1 + i, "all"), 3, 12, 20, 3 * (number % 1000 + i))
            for i in range(n)
        )
        outlook = dataclasses.replace(Outlook.unknown(n), regime=np.arange(n) % 3)
        return Batch(tasks, outlook, np.full(n, 0.01 * self.scale), self.opening)

    def opening(self, task):
        space = GenomeSpace(("a", "b", "c"), np.zeros(3), np.ones(3), ("real",) * 3)
        return space, lambda genes: -self.scale * (0.2 + ((genes - 0.4) ** 2).sum(axis=1))


class Both:
    """Half landscapes, half windows."""

    def batch(self, number, n):
        return Batch.joined([landscapes().batch(number, n // 2), Windows().batch(number, n - n // 2)])


def grown(source=None, controls=TIMID, n_history=0, steering=Steering.around, **settings):
    settings = {"n_runs": 8, "n_forks": 24, "n_branches": 8, "horizon": 8, "follow": 2, "seed": 1, **settings}
    source = landscapes() if source is None else source
    return vine(source, steering(controls), Variation(), n_history, mapper=SerialMapper(), **settings)


def forks_of(labels):
    """The rows of each fork."""
    return [np.flatnonzero(labels.fork == fork) for fork in np.unique(labels.fork)]


def help_of_the_step(labels):
    """Correlation of the advantage with the residual of the mutation step."""
    if not labels.advantage.any():
        return 0.0
    return np.corrcoef(labels.residual[:, STEP], labels.advantage)[0, 1]


def follows_from_inputs(labels):
    """Whether some function of the inputs could be the residuals: it says the same in all rows of a fork."""
    return all((labels.residual[rows] == labels.residual[rows[:1]]).all() for rows in forks_of(labels))


class Deaf(Steering):
    """Wrong on purpose: notes residuals down and breeds with the tuned controls."""

    def steered(self, residual, controls):
        return super().steered(np.zeros_like(residual), controls)


def test_a_larger_step_has_an_advantage_where_the_tuned_one_is_far_too_small():
    assert help_of_the_step(grown(n_runs=16, n_forks=48).labels()) > 0.3


def test_branches_that_breed_with_other_controls_than_they_note_down_show_no_such_advantage():
    labels = grown(n_runs=16, n_forks=48, steering=Deaf.around).labels()
    assert abs(help_of_the_step(labels)) < 0.1


def test_no_label_can_follow_from_what_a_network_sees():
    labels = grown(n_history=6).labels()
    for rows in forks_of(labels):
        for name in ("state", "history", "known", "regime", "run"):
            part = getattr(labels, name)[rows]
            assert (part == part[:1]).all()
        assert len(np.unique(labels.residual[rows], axis=0)) == len(rows)
    assert not follows_from_inputs(labels)


def test_labels_from_the_log_of_a_controller_are_seen_to_follow_from_the_inputs():
    labels = grown().labels()
    steering = Steering.around(TIMID)
    previous = labels.state[:, CONTROLS]
    copied = logit(np.clip(previous, 0.01, 0.99)) - logit(np.array(steering.static))
    assert follows_from_inputs(dataclasses.replace(labels, residual=copied.astype(np.float32)))


def test_the_residuals_of_branches_know_nothing_of_the_state():
    labels = grown(n_runs=40, n_forks=160, n_branches=3, horizon=1, follow=0, repeats=1).labels()
    first = np.array([rows[1] for rows in forks_of(labels)])
    state = labels.state[first]
    state = state[:, state.std(axis=0) > 1e-6]
    found = np.corrcoef(state.T, labels.residual[first].T)[: state.shape[1], state.shape[1] :]
    bound = 5.0 / np.sqrt(len(first))
    assert np.abs(found).max() < bound
    # The check can fail: a state is not independent of itself.
    assert np.abs(np.corrcoef(state.T, state.T + 1e-3)[: state.shape[1], state.shape[1] :]).max() > bound


@pytest.fixture
def same_branches(monkeypatch):
    """All branches of all forks are the tuned controls."""

    def silent(rng, n_forks, n_branches):
        return np.zeros((n_forks, n_branches, len(CONTROL_NAMES)), dtype=np.float32)

    monkeypatch.setattr(module, "branch_residuals", silent)


def test_branches_of_a_fork_share_their_random_numbers_and_repeats_do_not(same_branches):
    gain = grown().gain
    assert gain.any()
    assert (gain == gain[:, :1]).all()
    assert (gain[:, 0, 0] != gain[:, 0, 1]).any()


def test_branches_with_random_numbers_of_their_own_are_seen(same_branches, monkeypatch):
    fork = Environment.fork
    monkeypatch.setattr(
        Environment, "fork", lambda self, rows, seeds: fork(self, rows, [3 * i for i in range(len(rows))])
    )
    gain = grown().gain
    assert (gain != gain[:, :1]).any()


def test_seeds_of_branches_stay_in_the_split_of_their_task():
    rng = np.random.default_rng(0)
    for remainder, split in enumerate(SPLITS):
        tasks = landscapes(split).batch(0, 5).tasks
        seeds = seeds_beside(rng, tasks, 4)
        assert seeds.shape == (5, 4)
        assert (seeds % len(SPLITS) == remainder).all()
        assert len(np.unique(seeds)) == 20


@pytest.mark.parametrize("n_branches", [2, 3, 4, 7, 16])
def test_branches_are_the_tuned_controls_and_pairs_of_opposites(n_branches):
    residual = branch_residuals(np.random.default_rng(1), 6, n_branches)
    assert residual.shape == (6, n_branches, 12)
    assert not residual[:, 0].any()
    for i in range(1, n_branches - 1, 2):
        assert (residual[:, i] == -residual[:, i + 1]).all()
    assert len(np.unique(residual[:, 1:].reshape(-1, 12), axis=0)) == 6 * (n_branches - 1)


def test_advantages_are_centred_in_each_fork_and_have_one_unit_per_kind_of_task():
    found = grown(Both(), n_runs=10, n_forks=30)
    advantage = found.labels().advantage.reshape(len(found), -1)
    assert np.allclose(advantage.mean(axis=1), 0.0, atol=1e-6)
    for kind in (found.landscape, ~found.landscape):
        assert kind.any()
        assert np.isclose(np.sqrt((advantage[kind].astype(float) ** 2).mean()), 1.0)


def test_the_order_of_advantages_is_that_of_the_gains():
    found = grown()
    gain = found.gain.mean(axis=2)
    advantage = found.labels().advantage.reshape(gain.shape)
    assert (np.argsort(gain, axis=1, kind="stable") == np.argsort(advantage, axis=1, kind="stable")).all()


def test_labels_do_not_change_with_the_unit_of_the_fitness():
    one, other = (grown(Windows(scale)).labels() for scale in (1.0, 1024.0))
    assert one.residual.tobytes() == other.residual.tobytes()
    assert np.allclose(one.advantage, other.advantage, atol=1e-5)


def test_labels_carry_the_regime_of_their_run_and_landscapes_have_none():
    labels = grown(Both(), n_runs=10, n_forks=30).labels()
    regime = {int(run): set(labels.regime[labels.run == run].tolist()) for run in np.unique(labels.run)}
    assert regime == {run: {-1} if run < 5 else {(run - 5) % 3} for run in range(10)}


def test_the_same_seed_gives_the_same_labels_on_any_threads_and_another_gives_others():
    settings = {"n_runs": 4, "n_forks": 8, "n_branches": 4, "horizon": 3, "follow": 1}
    steering, variation = Steering.around(TIMID), Variation()

    def bytes_of(seed, mapper):
        labels = vine(landscapes(), steering, variation, 4, seed=seed, mapper=mapper, **settings).labels()
        return [getattr(labels, field.name).tobytes() for field in dataclasses.fields(labels)]

    with ThreadMapper(2) as threads:
        assert bytes_of(5, SerialMapper()) == bytes_of(5, threads)
    assert bytes_of(5, SerialMapper()) != bytes_of(6, SerialMapper())


def test_forks_are_spread_over_the_run_and_never_at_its_very_end():
    found = grown(n_runs=30, n_forks=120, horizon=6, follow=0, n_branches=3, repeats=1)
    generation = found.generation
    assert np.bincount(found.run).tolist() == [4] * 30
    assert generation.min() == 0
    assert generation.max() == 24 - 3
    by_run = [np.sort(generation[found.run == run]) for run in range(30)]
    stop = 24 - 3 + 1
    edges = np.linspace(0, stop, 5).astype(int)
    assert all(((edges[:-1] <= own) & (own < edges[1:])).all() for own in by_run)


def test_forks_are_shared_evenly_by_the_runs_and_short_runs_give_what_they_have():
    assert np.bincount(grown(n_runs=5, n_forks=13, n_branches=2).run).tolist() == [3, 3, 3, 2, 2]
    assert np.bincount(grown(n_runs=5, n_forks=2, n_branches=2).run, minlength=5).tolist() == [1, 1, 0, 0, 0]
    short = landscapes(sizes=((12, 6),))
    assert np.bincount(grown(short, n_runs=2, n_forks=40, n_branches=2, horizon=8).run).tolist() == [3, 3]


def test_inputs_are_those_of_the_generation_of_the_fork():
    found = grown(n_history=30)
    assert np.allclose(found.inputs.state[:, 0], found.generation / 24, atol=1e-6)
    assert (found.inputs.known.sum(axis=1) == found.generation + 1).all()


def test_a_run_that_ends_early_is_measured_at_its_end_beside_longer_ones():
    tasks = [Task(Instance("sphere", 3), 4, 12, n, 3) for n in (5, 40)]
    steering = Steering.around(TIMID)
    branches = branch_residuals(np.random.default_rng(2), 2, 4)
    seeds = np.arange(12, step=3).reshape(2, 2)

    def gains(some):
        own = [tasks[i] for i in some]
        batch = Batch(tuple(own), Outlook.unknown(len(own)), np.full(len(own), 1e-8))
        environment = batch.environment(Variation(), mapper=SerialMapper())
        environment.step()
        rows = list(range(len(own)))
        return module._gains(environment, batch, rows, branches[some], seeds[some], steering, 8, 4)

    together = gains([0, 1])
    assert together[0].tobytes() == gains([0]).tobytes()
    assert together[1].tobytes() == gains([1]).tobytes()
    assert together[0].any()


def test_forks_in_pieces_gain_what_they_gain_at_once(monkeypatch):
    whole = grown().gain
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    assert grown().gain.tobytes() == whole.tobytes()


def test_random_controls_are_held_for_some_generations_and_stay_near_the_tuned_ones():
    steering, n = Steering.around(GAControls(), rate=1.0), 20
    walk = module._Walk(steering, n, np.random.default_rng(3))

    class Here:
        controls = np.full((n, 12), np.nan)

    places = []
    for _ in range(60):
        Here.controls = walk(Here)
        places.append(places_of(Here.controls))
    changed = np.abs(np.diff(places, axis=0)).max(axis=2) > 1e-9
    for run in range(n):
        gaps = np.diff(np.flatnonzero(changed[:, run]))
        assert gaps.size
        assert gaps.min() >= HOLD
    logits = steering.residual(places)
    assert 0.3 < logits.std() < 1.0


def test_agreement_of_repeats_is_high_where_controls_matter_and_none_where_they_do_nothing():
    found = grown(n_runs=16, n_forks=48)
    assert found.agreement > 0.3
    assert np.isnan(grown(steering=Deaf.around).agreement)
    assert np.isnan(grown(repeats=1).agreement)
    rng = np.random.default_rng(0)
    luck = dataclasses.replace(found, gain=rng.normal(size=(400, 8, 2)))
    assert abs(luck.agreement) < 0.1


def test_forks_that_gain_nothing_make_advantages_of_zero():
    assert not grown(steering=Deaf.around, repeats=1).labels().advantage.any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_runs": 0}, "n_runs of vine labels is 0; it must be at least 1"),
        ({"n_forks": 0}, "n_forks of vine labels is 0; it must be at least 1"),
        ({"n_branches": 1}, "n_branches of vine labels is 1; it must be at least 2"),
        ({"horizon": 0}, "horizon of vine labels is 0; it must be at least 1"),
        ({"follow": -1}, "follow of vine labels is -1; it must be at least 0"),
        ({"repeats": 0}, "repeats of vine labels is 0; it must be at least 1"),
        ({"n_history": -1}, "n_history of vine labels is -1; it must be at least 0"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        grown(**settings)

"""Policies that learn inside a run follow successes, lose nothing in a checkpoint, and know no scale."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ga.adaptive_policies import ARMS, BanditPolicy, OneFifthPolicy, SuccessHistoryPolicy
from ga.controls import CONTROL_RANGES, POLICIES, RUGGED, SMOOTH, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.policies import FixedPolicy
from ga.progress import CROSSOVER, DIFFERENTIAL, MUTATION, Chronicle
from ga.space import GenomeSpace
from ga.variation import Variation

D = 6
SPACE = GenomeSpace(tuple("abcdef"), np.zeros(D), np.ones(D), ("real",) * D)
LEARNING = ("bandit", "one_fifth", "success_history")
START = Chronicle(Hyperparameters(population_size=16, n_generations=500), D).start()


def after(generation, successes=(0, 0, 0, 0), trials=(100, 100, 100, 0), weight=np.nan, rate=np.nan):
    """Return the progress after a generation with these successes."""
    return replace(
        START,
        generation=generation,
        trials=np.array(trials),
        successes=np.array(successes),
        successful_weight=weight,
        successful_rate=rate,
    )


def of(operator, share):
    """Return counts of successes in 100 trials of one operator."""
    counts = [0, 0, 0, 0]
    counts[operator] = round(100 * share)
    return counts


def sphere(genes):
    return -((genes - 0.3) ** 2 * np.arange(1, D + 1)).sum(axis=1)


def controls_of_a_run(policy, fitness=sphere, generations=40, seed=3, variation=None):
    """Return the controls of every generation, float64 (g, 12)."""
    run = Hyperparameters(population_size=24, n_generations=generations, patience=0)
    evolution = Evolution(SPACE, run, np.random.default_rng(seed), variation=variation)
    rows = []
    while not evolution.finished:
        controls = policy.controls(evolution.progress)
        rows.append(controls.to_array())
        evolution.tell(fitness(evolution.ask(controls)))
    return np.array(rows)


# The 1/5 rule


@pytest.mark.parametrize("operator", [MUTATION, DIFFERENTIAL])
def test_the_step_grows_on_many_successes_shrinks_on_few_and_stays_at_a_fifth(operator):
    trials = [0, 0, 0, 0]
    trials[operator] = 100
    for share, direction in ((0.5, 1), (0.2, 0), (0.05, -1)):
        policy = OneFifthPolicy()
        steps = [policy.controls(after(g, of(operator, share), trials)).mutation_step for g in range(1, 6)]
        assert (np.sign(np.diff(steps)) == direction).all()


def test_the_rule_listens_to_mutants_alone_where_there_are_any():
    policy = OneFifthPolicy()
    start = policy.controls(START).mutation_step
    assert policy.controls(after(1, of(DIFFERENTIAL, 1.0))).mutation_step < start


def test_a_generation_without_children_teaches_nothing():
    for policy in (OneFifthPolicy(), SuccessHistoryPolicy()):
        start = policy.controls(START)
        assert policy.controls(after(1, trials=(0, 0, 0, 100))) == start


@given(st.lists(st.integers(0, 100), max_size=60))
@settings(max_examples=50, deadline=None)
def test_the_step_never_leaves_its_range(successes):
    policy = OneFifthPolicy(OneFifthPolicy.Config(speed=2.0))
    limits = CONTROL_RANGES["mutation_step"]
    for g, count in enumerate(successes, start=1):
        step = policy.controls(after(g, (count, 0, 0, 0))).mutation_step
        assert limits.low <= step <= limits.high


def test_the_rule_finds_the_step_of_a_sphere_from_far_too_long_and_far_too_short():
    steps = {}
    for first in (0.5, 1e-4):
        settings_ = {
            "mutation_step": first, "differential_rate": 0.0, "crossover_rate": 0.0, "mutation_rate": 1.0,
            "mutation_tail": 0.0,
        }  # fmt: skip
        policy, plain = POLICIES.create("one_fifth", settings_), Variation(mutation="gaussian_cauchy")
        steps[first] = controls_of_a_run(policy, generations=150, variation=plain)[:, 1]
    assert steps[0.5][-1] < 0.05
    assert steps[1e-4].max() > 1e-3


# Success history


def test_the_memory_takes_up_what_succeeded_place_by_place():
    policy = SuccessHistoryPolicy(SuccessHistoryPolicy.Config(memory=3))
    seen = [policy.controls(START)]
    for g in range(1, 7):
        seen.append(policy.controls(after(g, weight=0.9, rate=0.1)))
    start = replace(SMOOTH, differential_weight=0.5, crossover_rate=0.5)
    learned = replace(start, differential_weight=0.9, crossover_rate=0.1)
    assert seen[0] == start
    assert seen[1] == start  # place 1, not yet overwritten: the first success went to place 0
    assert seen[3] == seen[5] == seen[6] == learned


def test_means_beyond_the_ranges_are_kept_inside():
    policy = SuccessHistoryPolicy(SuccessHistoryPolicy.Config(memory=1))
    controls = policy.controls(after(1, weight=1.3, rate=1.0000001))
    assert (controls.differential_weight, controls.crossover_rate) == (1.2, 1.0)


def test_the_crossover_rate_rises_where_genes_must_move_together():
    def mean_rate(rotation):
        def valley(genes):
            x = (genes - 0.4) @ rotation
            return -(np.array([1.0, 1e2, 1e4, 1e6, 1e6, 1e6]) * x**2).sum(axis=1)

        rows = [
            controls_of_a_run(POLICIES.create("success_history"), valley, 120, seed)[60:, 3]
            for seed in range(4)
        ]
        return np.mean(rows)

    oblique = np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0]
    assert mean_rate(oblique) > 0.6
    # Negative control: without jitter there is nothing to learn from.
    still = SuccessHistoryPolicy()
    assert still.controls(after(1)) == still.controls(START)


# The bandit


def played(policy, worth, generations=200):
    """Return the arms a bandit plays where arm ``i`` has the success rate ``worth[i]``."""
    arms = []
    progress = START
    for g in range(1, generations + 1):
        controls = policy.controls(progress)
        step = SMOOTH.mutation_step
        mix = (controls.differential_rate, controls.crossover_rate)
        arm = next(
            i for i, (a, b, factor) in enumerate(ARMS)
            if (a, b) == mix and np.isclose(controls.mutation_step, max(1e-4, step * factor))
        )  # fmt: skip
        arms.append(arm)
        successes = np.zeros(4)
        successes[[MUTATION, CROSSOVER, DIFFERENTIAL]] = 100 * worth[arm]
        progress = after(g, successes.astype(int))
    return np.array(arms)


def test_every_mix_is_tried_before_any_is_preferred():
    arms = played(BanditPolicy(), np.full(len(ARMS), 0.3), len(ARMS))
    assert sorted(arms) == list(range(len(ARMS)))


@pytest.mark.parametrize("best", range(3))
def test_the_mix_that_succeeds_is_played_most_and_the_others_stay_in_play(best):
    worth = np.full(len(ARMS), 0.1)
    worth[best] = 0.5
    share = np.bincount(played(BanditPolicy(), worth)[50:], minlength=len(ARMS)) / 150
    assert share.argmax() == best
    assert share[best] > 0.5
    assert (share > 0.0).all()


def test_the_bandit_follows_a_change_because_the_window_forgets():
    policy = BanditPolicy()
    first, then = np.full(len(ARMS), 0.1), np.full(len(ARMS), 0.1)
    first[0] = then[2] = 0.5
    played(policy, first)
    policy._learned = 0  # the generations of the second part count from 1 again
    assert np.bincount(played(policy, then)[60:], minlength=len(ARMS)).argmax() == 2


def test_a_success_of_a_short_step_is_worth_less():
    earned = {}
    for arm in (3, 4, 5):
        policy = BanditPolicy()
        policy._arms[:] = [i for i in range(len(ARMS)) if i != arm] * 8  # all but this one were tried
        policy.controls(after(1, of(MUTATION, 0.5), (100, 0, 0, 0)))
        earned[arm] = policy._earned[-1]
    assert earned == pytest.approx({3: 0.5, 4: 0.05, 5: 0.005})


# What all of them promise


@pytest.mark.parametrize("name", POLICIES.names())
def test_fitness_times_ten_changes_no_control(name):
    ones = controls_of_a_run(POLICIES.create(name))
    tens = controls_of_a_run(POLICIES.create(name), lambda genes: 8.0 * sphere(genes))  # 8: exact in binary
    np.testing.assert_array_equal(ones, tens)
    tens = controls_of_a_run(POLICIES.create(name), lambda genes: 10.0 * sphere(genes))
    np.testing.assert_allclose(ones, tens, rtol=1e-9)


class Scaled(FixedPolicy):
    """Wrong on purpose: reads the fitness itself."""

    def controls(self, progress):
        return replace(super().controls(progress), mutation_step=0.01 + 0.01 * float(progress.best < -1.0))


def test_a_policy_with_a_scale_would_be_seen():
    ones, tens = (controls_of_a_run(Scaled(), lambda genes, k=k: k * sphere(genes)) for k in (1.0, 10.0))
    assert not np.allclose(ones, tens)


def half_and_half(name, restored):
    """Return the controls of a run whose search and policy were saved and taken over half way."""
    run = Hyperparameters(population_size=24, n_generations=40, patience=0)
    evolution, policy, rows = Evolution(SPACE, run, np.random.default_rng(3)), POLICIES.create(name), []
    while not evolution.finished:
        if evolution.progress.generation == 20:
            again = Evolution(SPACE, run, np.random.default_rng(99))
            again.restore(evolution.state())
            fresh = POLICIES.create(name)
            if restored:
                fresh.restore(policy.state())
            evolution, policy = again, fresh
        controls = policy.controls(evolution.progress)
        rows.append(controls.to_array())
        evolution.tell(sphere(evolution.ask(controls)))
    return np.array(rows)


@pytest.mark.parametrize("name", POLICIES.names())
def test_a_resumed_policy_goes_on_bit_for_bit(name):
    whole = controls_of_a_run(POLICIES.create(name))
    np.testing.assert_array_equal(half_and_half(name, True), whole)
    if name in LEARNING:  # negative control: a policy that starts afresh goes another way
        assert not np.array_equal(half_and_half(name, False), whole)


@pytest.mark.parametrize("name", LEARNING)
def test_a_saved_state_does_not_change_when_the_run_goes_on(name):
    policy = POLICIES.create(name)
    policy.controls(after(1, (90, 90, 90, 0), weight=0.7, rate=0.2))
    saved = policy.state()
    before = {key: np.copy(value) for key, value in saved.items()}
    policy.controls(after(2, (0, 0, 0, 0), weight=0.1, rate=0.9))
    for key, value in before.items():
        np.testing.assert_array_equal(saved[key], value)


def test_a_state_of_other_settings_is_refused():
    small, large = (SuccessHistoryPolicy(SuccessHistoryPolicy.Config(memory=n)) for n in (2, 7))
    with pytest.raises(ValueError, match=r"saved means of the policy has shape \(2, 2\); .* need \(7, 2\)"):
        large.restore(small.state())


@pytest.mark.parametrize("name", LEARNING)
def test_asking_twice_teaches_once(name):
    once, twice = POLICIES.create(name), POLICIES.create(name)
    for g in range(1, 30):
        progress = after(g, (5 * g % 60, g % 40, 3 * g % 50, 0), weight=0.3 + 0.01 * g, rate=0.9 - 0.02 * g)
        expected = once.controls(progress)
        assert [twice.controls(progress) for _ in range(3)] == [expected] * 3


def test_the_rugged_preset_is_a_policy_of_its_own():
    assert POLICIES.create("rugged").controls(START) == RUGGED
    assert POLICIES.create("smooth").controls(START) == SMOOTH
    assert POLICIES.create("fixed").controls(START) == GAControls()
    assert len({GAControls(), SMOOTH, RUGGED}) == 3
    turned = POLICIES.create("rugged", {"tournament_size": 5.0}).controls(START)
    assert turned == replace(RUGGED, tournament_size=5.0)

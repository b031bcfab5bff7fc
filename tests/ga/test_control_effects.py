"""Every one of the 12 controls acts: turning it changes the offspring, in the direction its name says.

The same measurements run on two broken searches: one ignores the control altogether, one ignores it but
draws other random numbers when it is turned. Neither may be mistaken for a control that acts.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ga.controls import CONTROL_NAMES, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.population import Population
from ga.space import GenomeSpace

D, P, SEEDS = 6, 64, 24
SPACE = GenomeSpace(tuple("abcdef"), np.zeros(D), np.ones(D), ("real",) * D)
#: A search in which nothing happens unless a test turns it on.
STILL = GAControls(
    mutation_rate=0.004,
    mutation_step=1e-4,
    mutation_tail=0.0,
    crossover_rate=0.0,
    crossover_spread=0.0,
    differential_rate=0.0,
    differential_weight=0.5,
    tournament_size=1.0,
    elite_fraction=1 / 64,
    immigrant_fraction=0.0,
    crowding_rate=0.0,
    restart_fraction=0.0,
)
DETECTED = 1e-6


class Ignoring(Evolution):
    """Wrong on purpose: one control never arrives."""

    def __init__(self, *args, ignored, noisy, **kwargs):
        super().__init__(*args, **kwargs)
        self._ignored, self._noisy = ignored, noisy

    def ask(self, controls=None):
        if controls is not None:
            if self._noisy and getattr(controls, self._ignored) != getattr(STILL, self._ignored):
                self._rng.random()
            controls = replace(controls, **{self._ignored: getattr(STILL, self._ignored)})
        return super().ask(controls)


def fitness_of(genes):
    return -((genes - 0.3) ** 2).sum(axis=1)


def one_generation(kind, seed, controls, *, cluster=False, stagnant=False, offspring_fitness=None):
    """Return the population before, the offspring, and the population after."""
    run = Hyperparameters(population_size=P, n_generations=30, patience=0)
    evolution = kind(SPACE, run, np.random.default_rng(seed), stagnation_guard=3)
    genes = evolution.ask()
    evolution.tell(fitness_of(genes))
    if stagnant:
        for _ in range(3):
            evolution.tell(np.full(len(evolution.ask(STILL)), -1e3))
    before = evolution.population
    if cluster:  # a converged population: whoever is far away is a newcomer
        near = 0.5 + 1e-3 * (before.genes - 0.5)
        before = Population(near, before.fitness, before.age, before.evaluated)
        evolution.population = before
    offspring = evolution.ask(controls)
    evolution.tell(
        fitness_of(offspring) if offspring_fitness is None else np.full(len(offspring), offspring_fitness)
    )
    return before, offspring, evolution.population


def nearest(before, offspring):
    return np.abs(offspring[:, None] - before.genes).max(axis=2).min(axis=1)


def unchanged_genes(before, offspring, _):
    return np.mean([np.isin(offspring[:, j], before.genes[:, j]).mean() for j in range(D)])


def step_size(before, offspring, _):
    return nearest(before, offspring).mean()


def largest_step(before, offspring, _):
    return np.log10(nearest(before, offspring).max())


def offspring_spread(before, offspring, _):
    return offspring.std()


def offspring_fitness(before, offspring, _):
    return fitness_of(offspring).mean()


def n_offspring(before, offspring, _):
    return len(offspring)


def newcomers(before, offspring, _):
    return (nearest(before, offspring) > 0.01).sum()


def n_survivors(before, offspring, after):
    return (after.age > 0).sum()


#: control: (what it is turned to, what else is set, how the search is prepared, measurement, its direction)
EFFECTS = {
    "mutation_rate": (0.5, {}, {}, unchanged_genes, -1),
    "mutation_step": (0.01, {"mutation_rate": 1.0}, {}, step_size, +1),
    "mutation_tail": (1.0, {"mutation_rate": 1.0}, {}, largest_step, +1),
    "crossover_rate": (0.9, {}, {}, unchanged_genes, -1),
    "crossover_spread": (0.7, {"crossover_rate": 1.0}, {}, offspring_spread, +1),
    "differential_rate": (0.8, {"differential_weight": 1.0, "crossover_rate": 1.0}, {}, offspring_spread, +1),
    "differential_weight": (1.0, {"differential_rate": 1.0, "crossover_rate": 1.0}, {}, offspring_spread, +1),
    "tournament_size": (4.5, {}, {}, offspring_fitness, +1),
    "elite_fraction": (0.25, {}, {}, n_offspring, -1),
    "immigrant_fraction": (0.2, {}, {"cluster": True}, newcomers, +1),
    "crowding_rate": (0.6, {}, {"offspring_fitness": -1e3}, n_survivors, +1),
    "restart_fraction": (0.5, {}, {"cluster": True, "stagnant": True}, newcomers, +1),
}


def p_value(kind, name, prepared=None):
    """Return the one-sided p-value that turning a control moved its measurement the way it should."""
    turned, others, setting, measure, direction = EFFECTS[name]
    low = replace(STILL, **others)
    high = replace(low, **{name: turned})
    prepared = setting if prepared is None else prepared
    a, b = (
        np.array([measure(*one_generation(kind, seed, controls, **prepared)) for seed in range(SEEDS)])
        for controls in (low, high)
    )
    noise = np.random.default_rng(0).normal(0.0, 1e-12, (2, SEEDS))  # no division by a variance of zero
    direction_name = "greater" if direction > 0 else "less"
    return stats.ttest_ind(b + noise[1], a + noise[0], equal_var=False, alternative=direction_name).pvalue


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_turning_a_control_changes_the_offspring(name):
    assert p_value(Evolution, name) < DETECTED


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_an_ignored_control_would_be_caught(name, noisy):
    def broken(*args, **kwargs):
        return Ignoring(*args, ignored=name, noisy=noisy, **kwargs)

    assert p_value(broken, name) > 1e-3


def test_a_restart_waits_for_stagnation():
    assert p_value(Evolution, "restart_fraction", {"cluster": True, "stagnant": False}) > 1e-3


def test_a_restart_waits_for_the_guard_again_after_a_restart():
    run = Hyperparameters(population_size=P, n_generations=30, patience=0)
    evolution = Evolution(SPACE, run, np.random.default_rng(1), stagnation_guard=3)
    evolution.tell(np.zeros(len(evolution.ask())))
    shares = []
    for _ in range(9):
        evolution.tell(np.full(len(evolution.ask(replace(STILL, restart_fraction=0.5))), -1.0))
        shares.append(evolution.progress.row()["restarted_share"] > 0)
    assert shares == [False, False, False, True, False, False, False, True, False]


def test_elites_survive_the_worst_offspring():
    for fraction, n in ((1 / 64, 1), (0.25, 16)):
        before, _, after = one_generation(
            Evolution, 3, replace(STILL, elite_fraction=fraction), offspring_fitness=-1e3
        )
        best = np.sort(before.fitness)[-n:]
        np.testing.assert_array_equal(np.sort(after.fitness[after.age > 0]), best)

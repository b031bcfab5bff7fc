"""The search with the controls for smooth functions beside random search and DEAP's eaSimple."""

import random

import numpy as np
import pytest
from deap import algorithms, base, creator, tools

from ga.controls import SMOOTH, GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.operators import python_random
from ga.space import GenomeSpace

D, EVALUATIONS, SEEDS = 10, 10_000, 3
SPACE = GenomeSpace(tuple(f"x{i}" for i in range(D)), np.zeros(D), np.ones(D), ("real",) * D)

if not hasattr(creator, "GaQualityMax"):
    creator.create("GaQualityMax", base.Fitness, weights=(1.0,))
    creator.create("GaQualityIndividual", list, fitness=creator.GaQualityMax)


def sphere(x):
    return (x**2).sum(axis=1)


def rastrigin(x):
    return (x**2 - 10.0 * np.cos(2.0 * np.pi * x) + 10.0).sum(axis=1)


def rosenbrock(x):
    x = x / 2.0 + 1.0
    return (100.0 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1.0 - x[:, :-1]) ** 2).sum(axis=1)


def ackley(x):
    valley = 20.0 * np.exp(-0.2 * np.sqrt((x**2).mean(axis=1)))
    return 20.0 - valley + np.e - np.exp(np.cos(2.0 * np.pi * x).mean(axis=1))


def shifted(function, seed):
    """Return the error on the unit cube, with its minimum 0 at a random place."""
    optimum = np.random.default_rng([77, seed]).uniform(0.2, 0.8, D)
    return lambda genes: function((genes - optimum) * 10.24)


def our_error(error, seed, controls=None):
    run = Hyperparameters(
        population_size=40, n_generations=500, patience=0
    )  # few evaluations, few individuals
    evolution = Evolution(SPACE, run, np.random.default_rng(seed))
    while evolution.progress.evaluations < EVALUATIONS - 40:
        evolution.tell(-error(evolution.ask(controls or SMOOTH)))
    return -evolution.champion.fitness


def random_error(error, seed):
    return error(np.random.default_rng(seed).random((EVALUATIONS, D))).min()


def deap_error(error, seed):
    best = np.inf

    def evaluate(individual):
        nonlocal best
        individual[:] = [min(max(x, 0.0), 1.0) for x in individual]
        value = float(error(np.array([individual]))[0])
        best = min(best, value)
        return (-value,)

    box = base.Toolbox()
    box.register("individual", tools.initRepeat, creator.GaQualityIndividual, random.random, D)
    box.register("population", tools.initRepeat, list, box.individual)
    box.register("evaluate", evaluate)
    box.register("mate", tools.cxBlend, alpha=0.5)
    box.register("mutate", tools.mutGaussian, mu=0.0, sigma=0.1, indpb=1.0 / D)
    box.register("select", tools.selTournament, tournsize=3)
    with python_random(np.random.default_rng(seed)):
        # cxpb 0.5 and mutpb 0.2 change about 60 of 100 each generation
        _, log = algorithms.eaSimple(box.population(100), box, 0.5, 0.2, 165, verbose=False)
    assert abs(sum(log.select("nevals")) - EVALUATIONS) < 1_000
    return best


@pytest.fixture(scope="module")
def errors():
    """Mean log10 errors (function, [ours, DEAP, random])."""
    table = {}
    for function in (sphere, rastrigin, rosenbrock, ackley):
        rows = []
        for seed in range(SEEDS):
            error = shifted(function, seed)
            rows.append((our_error(error, seed), deap_error(error, seed), random_error(error, seed)))
        table[function.__name__] = np.log10(np.maximum(rows, 1e-12)).mean(axis=0)
    return table


@pytest.mark.parametrize("name", ["sphere", "rosenbrock", "ackley"])
def test_the_search_comes_ten_times_closer_than_random_search(errors, name):
    ours, _, randoms = errors[name]
    assert ours < randoms - 1.0


@pytest.mark.parametrize("name", ["sphere", "ackley"])
def test_the_search_comes_ten_times_closer_than_plain_deap_in_a_funnel(errors, name):
    ours, deaps, _ = errors[name]
    assert ours < deaps - 1.0


def test_the_search_beats_plain_deap_in_a_curved_valley(errors):
    ours, deaps, _ = errors["rosenbrock"]
    assert ours < deaps


def test_the_loss_where_genes_can_be_solved_one_by_one_is_bounded(errors):
    # On separable Rastrigin plain DEAP is the better one (benchmarks/ga_overhead.py shows by how much): the
    # defaults move all genes together, as oblique valleys need it. This bounds the loss; no win is claimed.
    ours, deaps, randoms = errors["rastrigin"]
    assert ours < deaps + 1.2
    assert ours < randoms - 0.4


def test_the_comparison_catches_a_search_without_selection():
    blind = GAControls(tournament_size=1.0, crowding_rate=0.0, mutation_rate=1.0, mutation_step=0.5)
    error = shifted(sphere, 0)
    assert np.log10(our_error(error, 0, blind)) > np.log10(random_error(error, 0)) - 1.0

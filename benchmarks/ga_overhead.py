"""What the genetic algorithm costs beside its fitness, and how well it searches, next to DEAP's eaSimple.

    python benchmarks/ga_overhead.py [--population 200] [--generations 200] [--genes 24] [--repeats 5]
    python benchmarks/ga_overhead.py --profile

Overhead: wall time per generation with the sphere as fitness, the time inside the fitness taken off. Ours
includes selection, breeding, duplicate check, statistics, hall of fame and log; once with the operators of
DEAP's run (blend crossover, Gaussian mutation, tournaments of three), once with our defaults. DEAP's has list
individuals and records nothing. Runs alternate, so all see the same machine; medians are shown.

Search: median log10 error of seeds after 10,000 evaluations at 10 genes with the default controls, on
instances that no tuning has seen (``ga_tuning.py`` says how the defaults were found).
"""

import argparse
import cProfile
import platform
import pstats
import random
import time
from pathlib import Path

import numpy as np
from deap import algorithms, base, creator, tools

from benchmarks.landscapes import NAMES, landscape
from ga.controls import GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.operators import python_random
from ga.space import GenomeSpace
from ga.variation import Variation

UNLIMITED = 10**12

creator.create("OverheadMax", base.Fitness, weights=(1.0,))
creator.create("OverheadIndividual", list, fitness=creator.OverheadMax)


def unit_space(d):
    return GenomeSpace(tuple(f"x{i}" for i in range(d)), np.zeros(d), np.ones(d), ("real",) * d, name="cube")


def like_deap(d):
    """Return the controls and operators of DEAP's run below: blend crossover, Gaussian mutation."""
    controls = GAControls(
        mutation_rate=max(0.004, 1.0 / d),
        mutation_step=0.05,
        mutation_tail=0.0,
        crossover_rate=0.9,
        crossover_spread=0.5,
        differential_rate=0.0,
        tournament_size=3.0,
        immigrant_fraction=0.0,
        crowding_rate=0.0,
        restart_fraction=0.0,
    )
    plain = Variation(recombination="blend", mutation="gaussian_cauchy", jitter=False, archive=False)
    return controls, plain


def ours(error, d, population_size, n_generations, evaluations, seed, controls=None, variation=None):
    """Return (seconds outside the fitness, generations bred, best error)."""
    run = Hyperparameters(population_size=population_size, n_generations=n_generations, patience=0)
    evolution = Evolution(unit_space(d), run, np.random.default_rng(seed), variation=variation)
    controls = GAControls() if controls is None else controls
    inside, used, best = 0.0, 0, np.inf
    start = time.perf_counter()
    while not evolution.finished and used < evaluations:
        genes = evolution.ask(controls)
        before = time.perf_counter()
        errors = error(genes)
        best = min(best, errors[: evaluations - used].min())
        inside += time.perf_counter() - before
        used += len(genes)
        evolution.tell(-errors)
    return time.perf_counter() - start - inside, evolution.progress.generation, best


def deap_toolbox(evaluate, d, mutation_step):
    box = base.Toolbox()
    box.register("individual", tools.initRepeat, creator.OverheadIndividual, random.random, d)
    box.register("population", tools.initRepeat, list, box.individual)
    box.register("evaluate", evaluate)
    box.register("mate", tools.cxBlend, alpha=0.5)
    box.register("mutate", tools.mutGaussian, mu=0.0, sigma=mutation_step, indpb=1.0 / d)
    box.register("select", tools.selTournament, tournsize=3)
    return box


def deaps(d, population_size, n_generations, seed):
    """Return (seconds outside the fitness, generations bred) of eaSimple."""
    inside = 0.0

    def evaluate(individual):
        nonlocal inside
        before = time.perf_counter()
        total = 0.0
        for x in individual:
            total -= (x - 0.3) * (x - 0.3)
        inside += time.perf_counter() - before
        return (total,)

    with python_random(np.random.default_rng(seed)):
        box = deap_toolbox(evaluate, d, 0.05)
        population = box.population(population_size)
        start = time.perf_counter()
        algorithms.eaSimple(population, box, 0.9, 0.2, n_generations, verbose=False)
        return time.perf_counter() - start - inside, n_generations


def deap_search(error, d, evaluations, seed, population_size=100):
    """Return the best error that eaSimple with its tutorial settings finds; strays are clipped."""
    used, best = 0, np.inf

    def evaluate(individual):
        nonlocal used, best
        individual[:] = [min(max(x, 0.0), 1.0) for x in individual]
        value = float(error(np.array([individual]))[0])
        used += 1
        if used <= evaluations:
            best = min(best, value)
        return (-value,)

    with python_random(np.random.default_rng(seed)):
        box = deap_toolbox(evaluate, d, 0.1)
        population = box.population(population_size)
        while used < evaluations:
            algorithms.eaSimple(population, box, 0.5, 0.2, 10, verbose=False)  # changes the list in place
    return best


def random_search(error, d, evaluations, seed):
    return error(np.random.default_rng(seed).random((evaluations, d))).min()


def machine():
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = f"{names[0]}, {len(names)} cores" if names else cpu
    return f"{cpu}; Python {platform.python_version()}, NumPy {np.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--population", type=int, default=200)
    parser.add_argument("--generations", type=int, default=200)
    parser.add_argument("--genes", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="instances per function in the search table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="show where the overhead goes, and stop")
    a = parser.parse_args()
    sphere = lambda genes: ((genes - 0.3) ** 2).sum(axis=1)  # noqa: E731
    ours(sphere, a.genes, a.population, 3, UNLIMITED, a.seed)  # the first call loads what is loaded once
    if a.profile:
        profile = cProfile.Profile()
        profile.runcall(ours, sphere, a.genes, a.population, a.generations, UNLIMITED, a.seed)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    print(machine())
    print(
        f"population {a.population}, {a.genes} genes, {a.generations} generations, seed {a.seed}, "
        f"median of {a.repeats}"
    )
    kinds = {"operators of DEAP's run": like_deap(a.genes), "default operators": (None, None)}
    times = {name: [] for name in (*kinds, "DEAP")}
    for repeat in range(a.repeats):
        seed = a.seed + repeat
        for name, setting in kinds.items():
            seconds, generations, _ = ours(
                sphere, a.genes, a.population, a.generations, UNLIMITED, seed, *setting
            )
            times[name].append(1e3 * seconds / generations)
        seconds, generations = deaps(a.genes, a.population, a.generations, seed)
        times["DEAP"].append(1e3 * seconds / generations)
    for name, values in times.items():
        ratio = np.median(times["DEAP"]) / np.median(values)
        print(
            f"{name:24s}{np.median(values):6.3f} ms per generation ({min(values):.3f} to {max(values):.3f}); "
            f"DEAP / this {ratio:5.1f}",
            flush=True,
        )
    print()

    print(f"median log10 error of {a.seeds} instances, 10 genes, 10,000 evaluations, population 100")
    print(f"{'':20s} {'ours':>7s} {'DEAP':>7s} {'random':>7s}")
    for name in NAMES:
        errors = []
        for seed in range(a.seed * 10_000, a.seed * 10_000 + a.seeds):
            error = landscape(name, 10, seed)
            errors.append(
                (
                    ours(error, 10, 100, 1000, 10_000, seed)[2],
                    deap_search(error, 10, 10_000, seed),
                    random_search(error, 10, 10_000, seed),
                )
            )
        medians = np.median(np.log10(np.maximum(errors, 1e-16)), axis=0)
        print(f"{name:20s} " + " ".join(f"{value:7.2f}" for value in medians), flush=True)


if __name__ == "__main__":
    main()

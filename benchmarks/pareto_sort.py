"""The non-dominated sort beside DEAP's, and NSGA-II and NSGA-III beside DEAP's on problems with known fronts.

    python -m benchmarks.pareto_sort [--individuals 1000] [--objectives 3] [--repeats 5]
    python -m benchmarks.pareto_sort --search [--seeds 5]

Sort: time to rank a random population, ours and both of DEAP's, in one run and on the same objectives, and
whether all ranks and crowding distances are equal.

Search: hypervolume (higher is better) and inverted generational distance (lower is better) of the last
population after the same number of evaluations, mean of seeds. DEAP's searches are those of its examples:
simulated binary crossover (eta 20, NSGA-III 30), polynomial mutation (eta 20, 1/d). ZDT1 has 30 genes and 2
objectives, DTLZ2 12 genes and 3.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from deap import base, tools

from benchmarks.measuring import machine
from ga import pareto
from ga.controls import GAControls, Hyperparameters
from ga.multiobjective import FRONT_CONTROLS, FRONT_VARIATION, MultiObjectiveEvolution
from ga.operators import python_random
from ga.space import GenomeSpace
from ga.variation import Variation


class Individual(list):
    """A DEAP individual; its fitness is set from outside."""


def fitness_class(k: int) -> type[base.Fitness]:
    """Return DEAP's fitness of k objectives, all maximised."""
    return type("Maximised", (base.Fitness,), {"weights": (1.0,) * k})


def individuals(genes: np.ndarray, objectives: np.ndarray) -> list[Individual]:
    """Return a DEAP population."""
    kind, population = fitness_class(objectives.shape[1]), []
    for row, values in zip(genes.tolist(), objectives.tolist(), strict=True):
        individual = Individual(row)
        individual.fitness = kind(tuple(values))
        population.append(individual)
    return population


def zdt1(genes: np.ndarray) -> np.ndarray:
    """Return minus the two objectives of ZDT1, float64 (m, 2); its front is f2 = 1 - sqrt(f1)."""
    first = genes[:, 0]
    g = 1.0 + 9.0 * genes[:, 1:].mean(axis=1)
    return -np.column_stack([first, g * (1.0 - np.sqrt(first / g))])


def dtlz2(genes: np.ndarray) -> np.ndarray:
    """Return minus the three objectives of DTLZ2, float64 (m, 3); its front is the unit sphere's octant."""
    g = 1.0 + ((genes[:, 2:] - 0.5) ** 2).sum(axis=1)
    a, b = genes[:, 0] * np.pi / 2, genes[:, 1] * np.pi / 2
    return -g[:, None] * np.column_stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])


def zdt1_front() -> np.ndarray:
    """Return evenly spread points of the true front, as maximised."""
    first = np.linspace(0.0, 1.0, 500)
    return -np.column_stack([first, 1.0 - np.sqrt(first)])


def dtlz2_front() -> np.ndarray:
    """Return evenly spread points of the true front, as maximised."""
    points = pareto.das_dennis(3, 30)
    return -points / np.linalg.norm(points, axis=1, keepdims=True)


#: Problem: objectives, genes, true front, reference point of the volume.
PROBLEMS: dict[str, tuple[Callable, int, np.ndarray, tuple[float, ...]]] = {
    "ZDT1": (zdt1, 30, zdt1_front(), (-1.1, -1.1)),
    "DTLZ2": (dtlz2, 12, dtlz2_front(), (-1.1, -1.1, -1.1)),
}


def inverted_distance(objectives: np.ndarray, front: np.ndarray) -> float:
    """Return the mean distance from the points of the true front to the nearest one found."""
    gaps = front[:, None, :] - objectives[None, :, :]
    return float(np.sqrt((gaps**2).sum(axis=2)).min(axis=1).mean())


def ours(
    problem: str,
    method: str,
    p: int,
    generations: int,
    seed: int,
    controls: GAControls = FRONT_CONTROLS,
    variation: Variation = FRONT_VARIATION,
) -> np.ndarray:
    """Return the objectives of the last population of our search."""
    function, d, _, reference = PROBLEMS[problem]
    space = GenomeSpace(tuple(f"x{i}" for i in range(d)), np.zeros(d), np.ones(d), ("real",) * d)
    run = Hyperparameters(population_size=p, n_generations=generations, patience=0)
    evolution = MultiObjectiveEvolution(
        space, run, np.random.default_rng(seed), len(reference), method, reference=reference,
        variation=variation,
    )  # fmt: skip
    while not evolution.finished:
        genes = evolution.ask(controls)
        evolution.tell(function(genes))
    return evolution.population[1]


@contextmanager
def seeded(seed: int) -> Iterator[np.random.Generator]:
    """Seed both global generators from which DEAP draws, and restore them afterwards."""
    before, rng = np.random.get_state(), np.random.default_rng(seed)  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        with python_random(rng):
            yield rng
    finally:
        np.random.set_state(before)  # noqa: NPY002


def deaps(problem: str, method: str, p: int, generations: int, seed: int) -> np.ndarray:
    """Return the objectives of the last population of DEAP's search, as in its examples."""
    function, d, _, reference = PROBLEMS[problem]
    k, eta = len(reference), 30.0 if method == "nsga3" else 20.0
    directions = tools.uniform_reference_points(k, pareto.divisions_for(k, p))
    with seeded(seed) as rng:
        genes = rng.random((p, d))
        population = individuals(genes, function(genes))
        if method == "nsga2":
            population = tools.selNSGA2(population, p)  # assigns the crowding distance
        for _ in range(generations):
            if method == "nsga2":
                parents = tools.selTournamentDCD(population, p)
            else:
                parents = random.sample(population, p)
            children = [Individual(parent) for parent in parents]
            for one, other in zip(children[::2], children[1::2], strict=False):
                tools.cxSimulatedBinaryBounded(one, other, eta, 0.0, 1.0)
            for child in children:
                tools.mutPolynomialBounded(child, 20.0, 0.0, 1.0, 1.0 / d)
            genes = np.array(children)
            joined = population + individuals(genes, function(genes))
            if method == "nsga2":
                population = tools.selNSGA2(joined, p)
            else:
                population = tools.selNSGA3(joined, p, directions)
    return np.array([individual.fitness.values for individual in population])


def compare_sorts(n: int, k: int, repeats: int, seed: int) -> None:
    """Print the times of three sorts, and that they agree."""
    objectives = np.random.default_rng(seed).random((n, k))
    population = individuals(np.zeros((n, 1)), objectives)
    times: dict[str, list[float]] = {"ours": [], "DEAP": [], "DEAP, log": []}
    for _ in range(repeats):
        began = time.perf_counter()
        ranks = pareto.front_ranks(objectives)
        distance = pareto.crowding_distance(objectives, ranks)
        times["ours"].append(time.perf_counter() - began)
        for name, sort in (
            ("DEAP", tools.sortNondominated),
            ("DEAP, log", tools.sortLogNondominated),
        ):
            began = time.perf_counter()
            fronts = sort(population, n)
            for front in fronts:
                tools.emo.assignCrowdingDist(front)
            times[name].append(time.perf_counter() - began)
            rank_of = {id(one): i for i, front in enumerate(fronts) for one in front}
            same = [rank_of[id(one)] for one in population] == ranks.tolist()
            crowded = np.array([one.fitness.crowding_dist for one in population])
            print(f"{name}: ranks equal: {same}, crowding equal: {np.array_equal(crowded, distance)}")
    print(f"\n{n:,} individuals, {k} objectives, {ranks.max() + 1} fronts, seed {seed}, median of {repeats}")
    for name, seconds in times.items():
        print(f"  {name:10s} {1e3 * np.median(seconds):10.3f} ms")
    print(f"  DEAP / ours {np.median(times['DEAP']) / np.median(times['ours']):8.0f}")


def compare_searches(seeds: int, first: int, controls: GAControls = FRONT_CONTROLS) -> None:
    """Print volume and distance of four searches on two problems."""
    print(f"mean of {seeds} seeds from {first} on")
    print(f"{'':24s} {'volume, ours':>13s} {'DEAP':>8s}   {'distance, ours':>14s} {'DEAP':>8s}")
    for problem, (_, _, front, reference) in PROBLEMS.items():
        p, generations = (100, 150) if problem == "ZDT1" else (92, 150)
        for method in ("nsga2", "nsga3"):
            scores = []
            for seed in range(first, first + seeds):
                mine = ours(problem, method, p, generations, seed, controls)
                theirs = deaps(problem, method, p, generations, seed)
                scores.append(
                    [pareto.hypervolume(found, reference) for found in (mine, theirs)]
                    + [inverted_distance(found, front) for found in (mine, theirs)]
                )
            a, b, c, e = np.mean(scores, axis=0)
            name = f"{problem} {method} {p} x {generations}"
            print(f"{name:24s} {a:13.4f} {b:8.4f}   {c:14.4f} {e:8.4f}", flush=True)


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--individuals", type=int, default=1000)
    parser.add_argument("--objectives", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--search", action="store_true", help="compare searches instead of sorts")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    print(machine())
    if a.search:
        compare_searches(a.seeds, a.seed)
    else:
        compare_sorts(a.individuals, a.objectives, a.repeats, a.seed)


if __name__ == "__main__":
    main()

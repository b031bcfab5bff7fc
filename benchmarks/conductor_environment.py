"""How many whole runs of the search per minute the environment of the conductor gives.

One run is 40 individuals for 60 generations on 10 genes, 2,440 evaluations, with all statistics, on the
training families in turn. Four ways: controls known beforehand; a network of 16 hidden units that is asked
for every generation of every run; the same on one thread; and the same runs one after the other through
``ga.searching``, whose champions must be the same to the bit.

    python -m benchmarks.conductor_environment
    python -m benchmarks.conductor_environment --runs 3000 --genes 20 --generations 240
"""

import argparse
import time

import numpy as np

from benchmarks.measuring import machine
from compute.workers import Mapper, SerialMapper, ThreadMapper, n_cores
from conductor.environment import Environment
from conductor.landscapes import FAMILIES
from conductor.tasks import Task, TaskSampler
from ga.controls import GAControls
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.policies import FixedPolicy
from ga.progress import STATISTIC_NAMES
from ga.searching import search
from ga.space import GenomeSpace

HIDDEN = 16


def network(seed: int):
    """Return a policy that nudges the tuned controls by a small network, as an untrained conductor would."""
    rng = np.random.default_rng(seed)
    tuned = GAControls().to_array()
    first = rng.normal(0.0, 0.3, (len(STATISTIC_NAMES), HIDDEN))
    second = rng.normal(0.0, 0.02, (HIDDEN, tuned.size))
    return lambda states, environment: tuned * np.exp(np.tanh(states @ first) @ second)


def through_ga(task: Task) -> float:
    """Return the best fitness of the same run through ``ga.searching``."""
    d, one = task.dimension, task.landscape()
    space = GenomeSpace(tuple(f"x{j}" for j in range(d)), np.zeros(d), np.ones(d), ("real",) * d)
    evolution = Evolution(space, task.hyperparameters, np.random.default_rng(task.seed))
    return search(evolution, Evaluator(lambda genes: -one(genes), space), FixedPolicy()).fitness


def timed(work):
    """Return wall and processor seconds of a call, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def report(name: str, wall: float, cpu: float, runs: int) -> None:
    print(
        f"{name:56s}{60.0 * runs / wall:8,.0f} runs per minute{1e3 * cpu / runs:7.2f} ms of processor each",
        flush=True,
    )


def batched(tasks: tuple[Task, ...], mapper: Mapper, policy=None):
    environment = Environment(tasks, mapper=mapper)
    return environment.run_fixed(GAControls().to_array()) if policy is None else environment.run(policy)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1536)
    parser.add_argument("--genes", type=int, default=10)
    parser.add_argument("--population", type=int, default=40)
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    sizes = {"dimensions": (a.genes,), "sizes": ((a.population, a.generations),)}
    tasks = TaskSampler("train", a.seed, **sizes).batch(0, a.runs)
    for task in tasks:
        task.landscape()  # instances are drawn once and shared by all candidates of a meta-generation
    print(machine())
    print(
        f"{a.runs:,} runs of {a.population} individuals x {a.generations} generations = {tasks[0].budget:,} "
        f"evaluations, {a.genes} genes, seed {a.seed}"
    )
    with ThreadMapper(a.threads) as threads, SerialMapper() as serial:
        batched(tasks[:8], threads)  # the first call starts the threads
        wall, cpu, outcome = timed(lambda: batched(tasks, threads))
        report(f"controls known beforehand, {a.threads} threads", wall, cpu, a.runs)
        wall, cpu, _ = timed(lambda: batched(tasks, threads, network(a.seed)))
        report(f"network asked every generation, {a.threads} threads", wall, cpu, a.runs)
        wall, cpu, _ = timed(lambda: batched(tasks, serial, network(a.seed)))
        report("network asked every generation, 1 thread", wall, cpu, a.runs)
        few = min(a.runs, 128)
        wall, cpu, best = timed(lambda: [through_ga(task) for task in tasks[:few]])
        report(f"the first {few} one after the other through ga.searching", wall, cpu, few)
        same = int((np.array(best) == outcome.best[:few, -1]).sum())
        print(f"champions with the same bits in both: {same} of {few}")
        print()
        for family in FAMILIES:
            own = TaskSampler("train", a.seed, families=(family,), **sizes).batch(0, 64)
            for task in own:
                task.landscape()
            wall, cpu, _ = timed(lambda own=own: batched(own, serial))
            report(family, wall, cpu, len(own))


if __name__ == "__main__":
    main()

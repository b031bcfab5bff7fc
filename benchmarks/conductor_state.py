"""What it costs a conductor to look: the market once per run, the search once per generation.

    python -m benchmarks.conductor_state [--repeats 200]

Processor time, the best of the repeats, which hardly depends on what else the machine does. A generation is
that of our genetic algorithm without its fitness: what any evaluation comes on top of.
"""

import argparse
import time

import numpy as np

from benchmarks.measuring import machine
from conductor.market_context import (
    CONTEXT_FEATURES,
    ContextScaler,
    MarketContext,
    PricePath,
    ScaledContext,
)
from conductor.state import state_of, state_vectors
from ga.controls import GAControls, Hyperparameters
from ga.evolution import Evolution
from ga.space import GenomeSpace
from market.sources.synthetic import SyntheticConfig, synthetic_market

N_GENES = 24
N_GENERATIONS = 60
N_RUNS = 1024  # of a batch


def best(function, repeats):
    """Return the processor seconds of the quickest of some calls, after one that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def searched(population_size):
    """Return the progress of a search after its last generation, and its seconds per generation."""
    space = GenomeSpace(
        tuple(f"x{i}" for i in range(N_GENES)), np.zeros(N_GENES), np.ones(N_GENES), ("real",) * N_GENES
    )
    run = Hyperparameters(population_size=population_size, n_generations=N_GENERATIONS, patience=0)
    evolution, controls, spent = Evolution(space, run, np.random.default_rng(0)), GAControls(), 0.0
    while not evolution.finished:
        start = time.process_time()
        genes = evolution.ask(controls)
        spent -= start - time.process_time()
        fitness = -np.square(genes - 0.3).sum(axis=1)
        start = time.process_time()
        evolution.tell(fitness)
        spent -= start - time.process_time()
    return evolution.progress, spent / (N_GENERATIONS + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=200, help="calls of the short ones; of the long, a tenth"
    )
    repeats = parser.parse_args().repeats
    print(machine())

    bars = synthetic_market(SyntheticConfig(n_bars=60_000)).bars
    print("\nmarket context, once per run\n      bars        ms")
    for n in (250, 500, 2_000, 10_000, 60_000):
        seconds = best(lambda n=n: MarketContext.of(bars[:n]), max(1, repeats // 10))
        print(f"{n:10,} {seconds * 1e3:9.2f}")
    print("\nits parts at 60,000 bars   ms")
    label, interval = bars.label, bars.interval_ns
    path = PricePath.of(bars, interval, label)
    parts = {"rows, checked": lambda: PricePath.of(bars, interval, label)}
    parts |= {feature.__name__: lambda feature=feature: feature(path) for feature in CONTEXT_FEATURES}
    for name, part in parts.items():
        print(f"{name:24} {best(part, max(1, repeats // 10)) * 1e3:6.2f}")

    contexts = [MarketContext.of(bars[k : k + 500]) for k in range(0, len(bars), 500)]
    scaled = ContextScaler.fit(contexts).scaled(contexts[-1])
    print("\nstate, once per generation\npopulation   history   us   generation us   share")
    for size in (40, 200):
        progress, generation = searched(size)
        for n_history in (0, 32):
            seconds = best(lambda p=progress, n=n_history: state_of(p, scaled, n_history=n), repeats)
            share = seconds / generation
            print(f"{size:10} {n_history:9} {seconds * 1e6:4.0f} {generation * 1e6:15.0f} {share:7.1%}")

    statistics, controls = np.tile(progress.statistics, (N_RUNS, 1)), np.full((N_RUNS, 12), 0.5)
    market = ScaledContext.unknown()
    seconds = best(lambda: state_vectors(statistics, controls, market.values, market.known), repeats)
    print(f"\nvectors of {N_RUNS:,} runs at once: {seconds / N_RUNS * 1e6:.2f} us each")


if __name__ == "__main__":
    main()

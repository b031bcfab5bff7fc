"""Policies and sets of controls beside each other on the default specialists, at equal evaluations.

    python -m benchmarks.control_sets [--policy fixed smooth rugged] [--size 256x60 64x240] [--markets 4]
                                      [--first-seed 11] [--bars 30000] [--seeds 2]

Every synthetic market gives three searches (one per regime) for each seed. Printed are the mean fitness found
**in sample**, which is what was maximised; the champions' Sharpe ratio on the test rows, after costs; and the
paired difference of both to the first policy and size, with its standard error. The number of evaluations is
population x (generations + 1), whatever the size, and no search ends early.
"""

import argparse
import io
from itertools import product

import numpy as np
from rich.console import Console

from benchmarks.measuring import machine
from compute.workers import mapper
from configs.load import load
from specialists.evolving import Work
from specialists.settings import EvolveConfig
from specialists.training import SpecialistSearch, open_test

REGIMES = ("volatile", "trending", "ranging")


def found(
    work: Work, policy: str, size: tuple[int, int], regime: str, seed: int, workers
) -> tuple[float, float]:
    """Return fitness in sample and Sharpe ratio out of sample of one champion."""
    config = work.config
    hyperparameters = config.hyperparameters.model_copy(
        update={"population_size": size[0], "n_generations": size[1], "patience": 0}
    )
    config = config.model_copy(
        update={
            "regime": regime,
            "seed": seed,
            "hyperparameters": hyperparameters,
            "policy": config.policy.model_copy(update={"name": policy}),
        }
    )
    evolved = SpecialistSearch.of(work.ground, config).evolve(workers)
    unseen = open_test(work.ground, evolved.specialist, config.costs, config.venue)
    return evolved.fitness, unseen.champion.metrics.sharpe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", nargs="+", default=["fixed", "smooth", "rugged"])
    parser.add_argument("--size", nargs="+", default=["256x60"], help="population x generations")
    parser.add_argument("--markets", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=11)
    parser.add_argument("--bars", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=2, help="searches per market and regime")
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in options.size]
    runs = list(product(options.policy, sizes))
    results = {run: [] for run in runs}
    silent = Console(file=io.StringIO())
    print(machine())
    print(
        f"{options.markets} synthetic markets from seed {options.first_seed}, {options.bars:,} bars, "
        f"{len(REGIMES)} regimes, seeds 1 to {options.seeds}; evaluations are equal within a percent"
    )
    with mapper() as workers:
        for number in range(options.first_seed, options.first_seed + options.markets):
            settings = (f"market.synthetic.seed={number}", f"market.synthetic.n_bars={options.bars}")
            work = Work.open(load(EvolveConfig, "evolve.yaml", settings), silent)
            for regime, seed, run in product(REGIMES, range(1, options.seeds + 1), runs):
                results[run].append(found(work, *run, regime, seed, workers))
    first = np.array(results[runs[0]])
    print(f"{'':28s} {'in sample':>22s} {'Sharpe out of sample':>24s}")
    for policy, size in runs:
        values = np.array(results[policy, size])
        difference = values - first
        error = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
        columns = [
            f"{mean:6.2f} ({d:+.2f} +- {e:.2f})"
            for mean, d, e in zip(values.mean(axis=0), difference.mean(axis=0), error, strict=True)
        ]
        print(f"{policy + f', {size[0]} x {size[1]}':28s} {columns[0]:>22s} {columns[1]:>24s}", flush=True)


if __name__ == "__main__":
    main()

"""What a fitness is worth out of sample: champions of several synthetic markets under different settings.

``python -m benchmarks.generalisation [--markets 6] [--set fitness.folds=6 ...]`` prints, per regime, the
mean Sharpe ratio in and out of sample over markets (each with its own seed), how many champions earn
anything on bars they never saw, and how many pass the verdict. The synthetic market has an edge in every
regime, so a fitness that generalises shows here; on real bars the same numbers would be a search over the
test rows. ``--set market.synthetic.scenario=random_walk`` has no edge: what passes there passes by luck.
"""

import argparse
import math
import platform

import numpy as np

from compute.workers import mapper
from configs.load import load
from experiments.ledger import LedgerSummary, Openings
from experiments.promotion import verdict
from market.sources.synthetic import synthetic_market
from specialists.evolving import EvolveConfig
from specialists.report import criteria, weigh
from specialists.training import evolve_specialist, open_test, prepare

# Every market is looked at once, and the verdict does not rest on the trials.
NO_LEDGER = LedgerSummary("", 1, 1, 1.0, 1, math.nan, math.nan, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--regimes", nargs="+", default=["volatile", "trending", "ranging"])
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"settings: {' '.join(options.settings) or 'defaults'}; markets {options.markets}")
    found = {regime: [] for regime in options.regimes}
    with mapper("threads") as workers:
        for seed in range(options.first_seed, options.first_seed + options.markets):
            config = load(EvolveConfig, "evolve.yaml", [*options.settings, f"market.synthetic.seed={seed}"])
            ground = prepare(synthetic_market(config.market.synthetic).bars, config)
            for regime in options.regimes:
                chosen = config.model_copy(update={"regime": regime, "seed": seed})
                evolved = evolve_specialist(ground, chosen, workers)
                unseen = open_test(ground, evolved.specialist, chosen.costs)
                evidence = weigh(evolved, unseen, NO_LEDGER, Openings(0, 0))
                passed = verdict(criteria(unseen, evidence))
                later = unseen.champion.metrics
                found[regime].append((evolved.in_sample.metrics.sharpe, later.sharpe, later.n_trades, passed))
    for regime, rows in found.items():
        inside, outside, trades, passed = np.array(rows, dtype=float).T
        outside = np.nan_to_num(outside)
        error = outside.std(ddof=1) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
        print(
            f"{regime:>9}: Sharpe in sample {inside.mean():5.2f}, out of sample {outside.mean():5.2f} "
            f"(standard error {error:.2f}), positive {np.mean(outside > 0):4.0%}, "
            f"trades {trades.mean():.0f}, passed {passed.mean():.0%}"
        )


if __name__ == "__main__":
    main()

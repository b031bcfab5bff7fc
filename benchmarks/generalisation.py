"""What a fitness is worth out of sample: champions of several synthetic markets under different settings.

``python -m benchmarks.generalisation [--markets 6] [--set fitness.folds=6 ...]`` prints, per regime, the
mean Sharpe ratio in and out of sample over markets (each with its own seed), how many champions earn
anything on bars they never saw, and how many pass the verdict. The synthetic market has an edge in every
regime, so a fitness that generalises shows here; on real bars the same numbers would be a search over the
test rows. ``--set market.synthetic.scenario=random_walk`` has no edge: what passes there passes by luck.

The last columns are about overfitting, from the training rows alone: the probability of backtest
overfitting and of a loss on the other half, for the initial population (drawn blindly) and for the whole
search (bred on all rows).
"""

import argparse
import math
import platform
import time

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
                began = time.perf_counter()
                evolved = evolve_specialist(ground, chosen, workers)
                seconds = time.perf_counter() - began
                unseen = open_test(ground, evolved.specialist, chosen.costs)
                evidence = weigh(evolved, unseen, NO_LEDGER, Openings(0, 0))
                later = unseen.champion.metrics
                found[regime].append(
                    (
                        evolved.in_sample.metrics.sharpe,
                        later.sharpe,
                        later.n_trades,
                        verdict(criteria(unseen, evidence)),
                        evidence.pbo,
                        evidence.pbo_loss,
                        evidence.pbo_search,
                        evidence.pbo_search_loss,
                        seconds,
                    )
                )
    found["together"] = [row for regime in options.regimes for row in found[regime]]
    for regime, rows in found.items():
        print(line(regime, np.array(rows, dtype=float)))


def line(regime: str, rows: np.ndarray) -> str:
    """Return what champions of several markets have in common."""
    inside, outside, trades, passed, pbo, loss, searched, search_loss, seconds = rows.T
    outside = np.nan_to_num(outside)
    error = outside.std(ddof=1) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
    return (
        f"{regime:>9}: Sharpe in sample {inside.mean():5.2f}, out of sample {outside.mean():5.2f} "
        f"(standard error {error:.2f}), positive {np.mean(outside > 0):4.0%}, "
        f"trades {trades.mean():4.0f}, passed {passed.mean():4.0%}; overfitting: initial population "
        f"PBO {np.median(pbo):.2f} (at most 0.2: {np.mean(pbo <= 0.2):4.0%}), loss {np.median(loss):.2f} "
        f"(at most 0.5: {np.mean(loss <= 0.5):4.0%}); whole search PBO {np.median(searched):.2f} "
        f"(at most 0.2: {np.mean(searched <= 0.2):4.0%}), loss {np.median(search_loss):.2f}; "
        f"{seconds.mean():.2f} s"
    )


if __name__ == "__main__":
    main()

"""Whether regimes keep their names when a detector is fitted again: agreement of refits on shared rows.

    python -m benchmarks.regime_refits [--detectors markov_ar hmm] [--bars 20000] [--seeds 3]
    python -m benchmarks.regime_refits --real BARS.parquet [--bars 30000]

Synthetic: two windows, the second shifted by a fifth of its length. Real: windows of the first 60 % of the
rows, each shifted by a fifth; then expanding windows, a refit every 4,000 rows after 20,000. Printed is the
share of shared rows on which both fits find the same regime the most probable.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.regime_accuracy import FIRST_SEED, SCENARIOS, TRAIN, described, hourly
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.detector import DETECTORS
from regimes.refits import RefitSchedule, agreement, continuity, fit_schedule


def shifted(name: str, features: Table, n_bars: int) -> list[float]:
    """Return the agreement of each window with the one shifted by a fifth, on the rows both have seen."""
    shift = n_bars // 5
    starts = range(0, len(features) - n_bars + 1, shift)
    fits = [DETECTORS.create(name).fit(features[start : start + n_bars]) for start in starts]
    pairs = zip(starts[1:], fits[:-1], fits[1:], strict=True)
    return [agreement(one, other, features[start : start + n_bars - shift]) for start, one, other in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detectors", nargs="+", default=["markov_ar", "hmm"])
    parser.add_argument("--bars", type=int, default=20_000, help="rows of a window")
    parser.add_argument("--seeds", type=int, default=3, help="markets per scenario")
    parser.add_argument("--real", nargs="+", type=Path, help="hourly bars instead, Parquet")
    options = parser.parse_args()
    for name in options.detectors:
        columns = tuple(DETECTORS.create(name).columns)
        for path in options.real or ():
            bars = hourly(path)
            features = described(bars, columns)[: int(TRAIN * len(bars))]
            found = shifted(name, features, options.bars)
            kept = continuity(fit_schedule(name, None, features, RefitSchedule()), features)
            print(f"{name}, {path.stem}: shifted " + " ".join(f"{one:.3f}" for one in found))
            print(f"{name}, {path.stem}: expanding " + " ".join(f"{one:.3f}" for one in kept), flush=True)
        for scenario in () if options.real else SCENARIOS:
            found = []
            for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
                config = SyntheticConfig(scenario=scenario, seed=seed, n_bars=options.bars * 6 // 5)
                found += shifted(name, described(synthetic_market(config).bars, columns), options.bars)
            print(f"{name}, {scenario}: lowest {np.min(found):.3f}, mean {np.mean(found):.3f}", flush=True)


if __name__ == "__main__":
    main()

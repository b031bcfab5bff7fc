"""Time of the features: a long series at once, and bar by bar as in live trading.

``python -m benchmarks.features``
"""

import time

import numpy as np

from market.features.feature import FEATURES
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market

N_BARS = 60_000
N_SINGLE = 2_000


def best_ms(function, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main():
    bars = synthetic_market(SyntheticConfig(n_bars=N_BARS)).bars
    whole = FeaturePipeline()
    print(f"{len(whole.names)} features, warm-up {whole.warmup} bars, version {whole.version}")
    print(f"{N_BARS:,} bars at once: {best_ms(lambda: whole.fresh().update(bars)):.0f} ms")

    live = whole.fresh()
    live.update(bars[: whole.warmup])
    singles = [bars[t : t + 1] for t in range(whole.warmup, whole.warmup + N_SINGLE)]
    took = []
    for bar in singles:
        start = time.perf_counter()
        live.update(bar)
        took.append(time.perf_counter() - start)
    middle, slow = np.quantile(took, [0.5, 0.99]) * 1e6
    print(f"one bar: {middle:.0f} us in the middle, {slow:.0f} us in the slowest hundredth")

    print(f"alone, with the nodes they read, ms per {N_BARS:,} bars (the ten slowest):")
    alone = {}
    for name in FEATURES:
        pipeline = FeaturePipeline(FeaturesConfig(names=(name,)))
        alone[name] = best_ms(lambda pipeline=pipeline: pipeline.fresh().update(bars), repeats=1)
    for name in sorted(alone, key=alone.get, reverse=True)[:10]:
        print(f"  {name:28} {alone[name]:7.1f}")


if __name__ == "__main__":
    main()

"""Time of the features: a long series at once, and bar by bar as in live trading; core set and full set.

Seconds of the processor, not of the clock, so that other work on the machine counts little.

``python -m benchmarks.features``
"""

import time

import numpy as np

from market.external import ExternalSeries
from market.features.cross import JoinedFeaturesConfig, joined
from market.features.feature import feature_names
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market

N_BARS = 60_000
N_ALONE = 20_000
N_SINGLE = 2_000


def cpu_seconds(function, repeats=3):
    """Return the shortest processor time of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def measure(title, pipeline, *tables):
    """Print what one set costs, at once and bar by bar."""
    print(f"{title}: {len(pipeline.names)} columns, warm-up {pipeline.warmup}, version {pipeline.version}")
    took = cpu_seconds(lambda: pipeline.fresh().update(*tables))
    per_bar = took / N_BARS * 1e6
    print(f"  {N_BARS:,} bars at once: {took * 1e3:.0f} ms, {per_bar:.1f} us per bar")
    live = pipeline.fresh()
    live.update(*(table[: pipeline.warmup] for table in tables))
    singles = []
    for t in range(pipeline.warmup, pipeline.warmup + N_SINGLE):
        row = tuple(table[t : t + 1] for table in tables)
        start = time.process_time()
        live.update(*row)
        singles.append(time.process_time() - start)
    middle, slow = np.quantile(singles, [0.5, 0.99]) * 1e6
    print(f"  one bar: {middle:.0f} us in the middle, {slow:.0f} us in the slowest hundredth")


def main():
    """Print all figures."""
    bars = synthetic_market(SyntheticConfig(n_bars=N_BARS)).bars
    measure("core set (names: all)", FeaturePipeline(), bars)
    measure("full set (names: full)", FeaturePipeline(FeaturesConfig(names="full")), bars)

    peers = [ExternalSeries.of_bars(bars, column, f"peer_{column}") for column in ("open", "high")]
    days = bars.time[:: 24 * 3]
    series = [ExternalSeries.delayed(days, np.cos(days * k), f"series_{k}", 0) for k in range(1, 9)]
    table = joined([*peers, *series]).update(bars)
    names = {"peers": tuple(p.name for p in peers), "series": tuple(s.name for s in series)}
    config = JoinedFeaturesConfig(names="full", **names)
    measure("full set, two peers, eight external series", FeaturePipeline(config), bars, table)

    print(f"alone, with the nodes they read, us per bar of {N_ALONE:,} (the ten slowest):")
    alone, part = {}, bars[:N_ALONE]
    for name in feature_names("full"):
        pipeline = FeaturePipeline(FeaturesConfig(names=(name,)))
        alone[name] = cpu_seconds(lambda pipeline=pipeline: pipeline.fresh().update(part), repeats=1)
    for name in sorted(alone, key=alone.get, reverse=True)[:10]:
        print(f"  {name:28} {alone[name] / N_ALONE * 1e6:7.2f}")


if __name__ == "__main__":
    main()

"""How often the intervals of a race hold the truth, and those that it does not use.

    python benchmarks/race_intervals.py [--races 2000] [--resamples 1000] [--seed 0]

In a simulated race the mean of all clusters is 0, and runs of a cluster share a part of their variance.
Printed is the share of 95 % intervals that hold 0:

used        of ``conductor.race_statistics``: clusters resampled, widened; below ten clusters Student's t
plain       clusters resampled, the plain percentiles
both        clusters resampled, then the runs within each of them, the plain percentiles
runs        runs resampled, as if they were independent
"""

import argparse

import numpy as np

from benchmarks.measuring import machine
from compute.seeds import stream
from conductor.race_statistics import Clusters

#: Clusters, runs in each, standard deviation between clusters (1 within them).
RACES = ((24, 15, 1.0), (24, 15, 0.2), (20, 1, 1.0), (12, 8, 1.0), (8, 4, 1.0), (8, 4, 0.2), (3, 24, 1.0))


def resampled_twice(n, size, n_resamples, rng):
    """Return shares of runs in resamples of clusters and of runs within them, (n_resamples, n size)."""
    drawn = rng.integers(n, size=(n_resamples, n, 1)) * size + rng.integers(size, size=(n_resamples, n, size))
    cells = np.arange(n_resamples)[:, None, None] * (n * size) + drawn
    counts = np.bincount(cells.ravel(), minlength=n_resamples * n * size)
    return counts.reshape(n_resamples, -1) / (n * size)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--races", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    print(f"{'clusters':>8} {'runs':>5} {'between':>8} {'used':>7} {'plain':>7} {'both':>7} {'runs':>7}")
    for n, size, between in RACES:
        rng = stream(options.seed, "race intervals", n, size, str(between))
        groups = Clusters(np.repeat(np.arange(n), size), options.resamples, options.seed)
        others = (
            np.repeat(groups.weights, size, axis=1) / size,
            resampled_twice(n, size, options.resamples, rng),
            resampled_twice(n * size, 1, options.resamples, rng),
        )
        held = np.zeros(4)
        for _ in range(options.races):
            values = np.repeat(between * rng.normal(size=n), size) + rng.normal(size=n * size)
            held[0] += not groups.estimate(values).excludes(0.0)
            for i, weights in enumerate(others, 1):
                low, high = np.quantile(weights @ values, (0.025, 0.975))
                held[i] += low <= 0.0 <= high
        shares = " ".join(f"{share:7.1%}" for share in held / options.races)
        print(f"{n:8d} {size:5d} {between:8.1f} {shares}", flush=True)


if __name__ == "__main__":
    main()

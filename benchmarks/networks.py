"""Time of the networks: an epoch of 40,000 training rows, and a single answer, with 149 columns.

Seconds of the processor, not of the clock, so that other work on the machine counts little. A few batches
are measured; an epoch is as many of them as it takes.

``python -m benchmarks.networks``
"""

import sys
import time

import numpy as np

from forecasters.forecaster import new_forecaster, plugin_config
from forecasters.order_book import SIDES
from forecasters.windows import Examples

N_ROWS, N_COLUMNS, N_LEVELS = 40_000, 149, 10
N_BATCHES, N_SINGLE = 6, 300
NETWORKS = ("lstm", "gru", "tcn", "transformer", "patchtst", "nhits", "cnn_lstm")


def columns_of(name):
    """Return the columns that a network reads: features, or the levels of a book."""
    if name == "cnn_lstm":
        return tuple(f"{side}{level}" for level in range(1, N_LEVELS + 1) for side in SIDES)
    return tuple(f"feature_{i}" for i in range(N_COLUMNS))


def fit_seconds(name, columns, features, target, n):
    """Return the processor time of an epoch over n rows and the fitted network."""
    model = new_forecaster(plugin_config(name))
    model.config = model.config.model_copy(update={"epochs": 1})
    rows = np.arange(model.lookback, model.lookback + n, dtype=np.int64)
    train = Examples(features, rows, model.lookback, target[rows], None, columns)
    start = time.process_time()
    model.fit(train, train.take(slice(0, 1)), seed=1)
    return time.process_time() - start, model, train


def measure(name):
    """Print what one network costs."""
    rng, columns = np.random.default_rng(0), columns_of(name)
    features = rng.normal(size=(3000, len(columns))).astype(np.float32)
    target = rng.integers(0, 3, 3000).astype(np.int8)
    batch = new_forecaster(plugin_config(name)).config.batch_size
    fit_seconds(name, columns, features, target, batch)
    few, _, _ = fit_seconds(name, columns, features, target, 2 * batch)
    many, model, train = fit_seconds(name, columns, features, target, (N_BATCHES + 2) * batch)
    epoch = (many - few) / (N_BATCHES * batch) * N_ROWS
    single, one = [], train.windows(slice(0, 1))
    for _ in range(N_SINGLE):
        start = time.process_time()
        model.predict(one)
        single.append(time.process_time() - start)
    middle, slow = np.quantile(single, [0.5, 0.99]) * 1e3
    weights = sum(part.numel() for part in model.network.parameters())
    print(
        f"{name:12} {weights:8,} weights, {epoch:5.1f} s per epoch of {N_ROWS:,} rows"
        f", one answer {middle:.2f} ms in the middle, {slow:.2f} ms in the slowest hundredth",
        flush=True,
    )


def main():
    """Print the figures of the networks named, or of all."""
    for name in sys.argv[1:] or NETWORKS:
        measure(name)


if __name__ == "__main__":
    main()

"""Small examples with a planted pattern, and small networks to learn it."""

import itertools
from contextlib import contextmanager

import numpy as np
import torch

from forecasters.forecaster import FORECASTERS
from forecasters.windows import Examples

LOOKBACK = 8
LEVEL = ("ask_price_1", "ask_size_1", "bid_price_1", "bid_size_1")
#: Every network of this project, small and quick.
SMALL = {
    "lstm": {"hidden": 16},
    "gru": {"hidden": 16},
    "tcn": {"channels": 16, "blocks": 3},
    "tft": {"d_model": 16, "heads": 2, "quantiles": []},
    "transformer": {"d_model": 16, "heads": 2, "feed_forward": 16},
    "patchtst": {"d_model": 16, "heads": 2, "feed_forward": 16, "channels": 4, "patch": 2, "stride": 2},
    "nhits": {"rates": [4, 1], "hidden": 32, "channels": 4},
    "cnn_lstm": {"filters": 6, "branch_filters": 6, "hidden": 12},
}
QUICK = {
    "lookback": LOOKBACK,
    "batch_size": 64,
    "learning_rate": 0.01,
    "warmup_steps": 10,
    "averaging": 0.8,
    "epochs": 12,
    "dropout": 0.0,
}


def small(name, **settings):
    """A network of a kind that learns within a second."""
    return FORECASTERS.create(name, {**QUICK, **SMALL[name], **settings})


def examples(features, target, begin, end, *, weight=None, lookback=LOOKBACK, names=LEVEL):
    rows = np.arange(begin, end, dtype=np.int64)
    return Examples(features, rows, lookback, target[begin:end], weight, names)


def planted(n=2000, lag=3, seed=0):
    """Features and targets: the class is told by the first column ``lag`` rows ago, and by nothing else."""
    features = np.random.default_rng(seed).normal(size=(n, len(LEVEL))).astype(np.float32)
    before = np.concatenate([np.zeros(lag, np.float32), features[: n - lag, 0]])
    return features, (1 + (before > 0.43) - (before < -0.43)).astype(np.int8)


def parts(n=2000, **options):
    """Training, validation and test examples of the planted pattern, one after the other."""
    features, target = planted(n, **options)
    ends = [LOOKBACK, int(0.6 * n), int(0.8 * n), n]
    return tuple(examples(features, target, *span) for span in itertools.pairwise(ends))


def balanced_accuracy(probabilities, target):
    said = probabilities.argmax(axis=1)
    return float(np.mean([(said[target == one] == one).mean() for one in np.unique(target)]))


def shaken(module, seed=0, size=0.3):
    """A network whose weights are all different from what it began with, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.parameters():
            part.add_(torch.randn(part.shape, generator=generator) * size)
    return module.eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Examples whose classes follow from a column, for tests of forecasters."""

import numpy as np

from forecasters.windows import Examples

NAMES = ("return_1", "teller", "noise_1", "noise_2", "noise_3")


def examples(n=600, lookback=1, seed=0, strength=2.0, begin=0):
    """Return examples in which the newest value of ``teller`` says which class is likely.

    A strength of 0 makes targets that nothing foretells.
    """
    random = np.random.default_rng([seed, begin])
    features = random.normal(size=(n + lookback - 1, len(NAMES))).astype(np.float32)
    rows = np.arange(lookback - 1, n + lookback - 1)
    level = strength * features[rows, 1] + random.normal(size=n)
    spread = np.sqrt(strength**2 + 1.0)
    target = np.digitize(level, [-0.4 * spread, 0.4 * spread]).astype(np.int8)
    weight = random.uniform(0.5, 1.5, n)
    return Examples(features, rows, lookback, target, weight / weight.mean(), NAMES)

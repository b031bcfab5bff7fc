"""What specialists would have done without their regimes: always awake, or routed by regimes of chance.

The same genomes, the same bars, another routing: whatever the regimes are worth must show against these.
"""

from collections.abc import Sequence

import numpy as np

from ensemble.sources import SpecialistSource
from market.bars import Bars
from market.features.pipeline import FeatureTable
from market.table import Table
from regimes.path import PATH_COLUMNS
from regimes.regime import UNDECIDED


def always_on(sources: Sequence[SpecialistSource], bars: Bars, features: FeatureTable) -> np.ndarray:
    """Return the mean signal of specialists to whom it is always their regime, float64 (n,)."""
    signals = [
        _signal(one, bars, features, _labels(bars.time, np.full(len(bars), float(one.regime or 0))))
        for one in sources
    ]
    return np.mean(signals, axis=0) if signals else np.zeros(len(bars))


def random_routing(
    sources: Sequence[SpecialistSource],
    bars: Bars,
    features: FeatureTable,
    label: np.ndarray,
    rows: slice,
    rng: np.random.Generator,
    draws: int,
) -> np.ndarray:
    """Return the mean signal of the specialists whose regime leads, by regimes drawn at random.

    The stays of the detected path are kept as they are, regime and length, and put in another order, which
    begins at another place in every draw. So a drawn path has the shares, the dwell times and about the
    switches of the detected one, and no knowledge of the market.

    Parameters
    ----------
    sources : sequence of SpecialistSource
    bars, features : Bars (n,), FeatureTable (n, f)
    label : int8 (n,)
        The detected path.
    rows : slice
        That are wanted.
    rng : numpy.random.Generator
    draws : int

    Returns
    -------
    float64 (m, draws)
    """
    n = rows.stop - rows.start
    out = np.zeros((n, draws))
    if not sources:
        return out
    edges = np.flatnonzero(np.diff(label)) + 1
    stays = np.split(label, edges)
    for draw in range(draws):
        path = np.concatenate([stays[i] for i in rng.permutation(len(stays))])
        labels = _labels(bars.time, path.astype(np.float64))
        total, count = np.zeros(len(bars)), np.zeros(len(bars))
        for one in sources:
            total += _signal(one, bars, features, labels)
            count += 1.0 if one.regime is None else path == int(one.regime)
        out[:, draw] = (total / np.maximum(count, 1.0))[rows]
    return out


def _signal(source: SpecialistSource, bars: Bars, features: FeatureTable, labels: Table) -> np.ndarray:
    # By these labels, whatever the source would wake up by.
    own = SpecialistSource(source.name, source.specialist, "label", scale=source.scale)
    return np.nan_to_num(own.update(bars, features, None, labels))


def _labels(time: np.ndarray, label: np.ndarray) -> Table:
    confidence = np.where(label == UNDECIDED, np.nan, 1.0)
    return Table(time, np.column_stack([label, confidence]), PATH_COLUMNS)

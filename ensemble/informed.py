"""What forecasters say, as columns that specialists may read: ``forecast_NAME`` beside the features.

A specialist learns on answers that are out of fold and trades on those of models that came later, so both are
of the same kind. Where a forecaster has no opinion, or is not there at all, its column is 0: no view.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from market.table import Table

PREFIX = "forecast_"


def wanted(columns: Iterable[str]) -> tuple[str, ...]:
    """Return those of some columns that are forecasts, each once."""
    return tuple(dict.fromkeys(name for name in columns if name.startswith(PREFIX)))


def informed(features: Table, columns: tuple[str, ...], signals: Mapping[str, np.ndarray]) -> Table:
    """Return features with a column of each forecast that is wanted.

    Parameters
    ----------
    features : Table (n, f)
    columns : tuple of str
        As of :func:`wanted`; without any the features themselves are returned.
    signals : mapping of str to float64 (n,)
        By the forecaster's name; NaN: no opinion.
    """
    if not columns:
        return features
    nothing = np.zeros(len(features))
    added = [np.nan_to_num(signals.get(name.removeprefix(PREFIX), nothing), nan=0.0) for name in columns]
    return Table(features.time, np.column_stack([features.values, *added]), (*features.names, *columns))

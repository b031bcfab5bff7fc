"""Meta-labels: was it worth following the primary signal? LOOKS AHEAD, like the labels they are made of.

A primary signal says which side; a second model learns from meta-labels whether to follow it, and
:mod:`market.bet_sizing` turns its probability into how much. The primary may then be generous: the second
model trades its false alarms for precision.
"""

import numpy as np

from configs.load import ConfigError
from market.label_kernels import NEVER
from market.labels import Labels, signs
from market.table import DataError, utc


def meta_labels(primary: np.ndarray, labels: Labels, *, cost: float = 0.0) -> Labels:
    """Return labels of a position on the side of a signal: 1 it pays, 0 it does not.

    Parameters
    ----------
    primary : int (n,)
        1 long, -1 short, 0 no bet; known at the close of each row. Rows without a bet have no label.
    labels : Labels
        What became of the price. Triple barriers must have been made with ``side=primary``: where one bar
        touches both barriers, the stop of the side that is taken comes first.
    cost : float
        Of a round trip, a fraction, 0 or more. A bet pays if its return is above it.

    Returns
    -------
    Labels
        ``ret`` is the return of the bet before costs, ``known_at`` that of the label it is made of.

    Raises
    ------
    ConfigError
        If the cost is out of bounds.
    DataError
        If primary does not fit, or the labels flatter one of its bets.

    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 3.6 and snippet 3.7.
    """
    if not 0.0 <= cost < np.inf:
        raise ConfigError(f"meta-labels: the cost is {cost:g}; it must be 0 or more, and finite")
    side = signs(labels.time, primary, "primary")
    flattered = side * labels.side < 0
    if flattered.any():
        row = int(np.argmax(flattered))
        raise DataError(
            f"{labels.name}: row {row} at {utc(labels.time[row])} is for the other side than the primary "
            f"signal, so that a bar which touches both barriers would count as won; give triple_barrier "
            f"side=primary"
        )
    bet = side != 0
    known = labels.known & bet
    ret = np.where(known, side * labels.ret, np.nan)
    return Labels(
        labels.time,
        (known & (ret > cost)).astype(np.int8),
        known,
        np.where(known, labels.known_at, NEVER),
        np.where(known, labels.end, NEVER),
        ret,
        labels.horizon,
        f"meta_{labels.name}",
        settled_at=np.where(bet, labels.settled_at, labels.time),
        side=side,
    )

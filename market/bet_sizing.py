"""How much to bet on a forecast: from probabilities to a size. Causal, and knows nothing of labels.

This stands apart from :mod:`market.meta_labels` because a decision may use it and may not reach labels.

Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 10.
"""

import numpy as np

from configs.load import ConfigError
from market.table import DataError


def bet_size(probability: np.ndarray, side: np.ndarray | float = 1.0, step: float = 0.0) -> np.ndarray:
    """Return the size of bets that pay with a probability: float64 (n,), in [-1, 1], signed as the side.

    The size is ``2 * Phi(z) - 1`` with ``z = (p - 1/2) / sqrt(p * (1 - p))``, Phi the normal distribution;
    0 at a probability of one half or less: a bet that does not pay is not taken, rather than reversed.

    Parameters
    ----------
    probability : float64 (n,)
        That the bet pays (a model of meta-labels), in [0, 1]; NaN gives NaN, which an account reads as flat.
    side : float64 (n,) or float
        -1, 0 or 1: the primary signal.
    step : float
        Sizes are rounded to multiples of this, in [0, 1]; 0: not at all. Saves small changes of position.

    Raises
    ------
    ConfigError
        If the step is out of bounds.
    DataError
        If a probability is.

    Source: Lopez de Prado (2018), section 10.3 (two outcomes), section 10.5 and snippet 10.3.
    """
    probability = _probabilities(probability)
    return _discrete(side * np.maximum(_confidence(probability, 2), 0.0), step)


def bet_size_of_classes(probabilities: np.ndarray, step: float = 0.0) -> np.ndarray:
    """Return the size of a bet on the most probable of down, none and up: float64 (n,), in [-1, 1].

    The size is ``2 * Phi(z) - 1`` with ``z = (p - 1/3) / sqrt(p * (1 - p))`` for the largest probability p,
    with the sign of its class. The class none, and a tie of down and up, give 0.

    Parameters
    ----------
    probabilities : float64 (n, 3)
        Of down, none and up, in [0, 1]; a row with a NaN gives NaN.
    step : float
        As in :func:`bet_size`.

    Raises
    ------
    ConfigError
        If the step is out of bounds.
    DataError
        If a probability is, or there are not three per row.

    Source: Lopez de Prado (2018), section 10.3 (more than two outcomes), snippets 10.1 and 10.3.
    """
    probabilities = _probabilities(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != 3:
        raise DataError(f"bet size: probabilities are {probabilities.shape}; they must be of three classes")
    down, none, up = probabilities.T
    largest = probabilities.max(axis=1)  # NaN where one is missing
    side = np.where(none == largest, 0.0, np.sign(up - down))
    return _discrete(side * np.maximum(_confidence(largest, 3), 0.0), step)


def average_active(size: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the mean size of the bets that are open at each row: float64 (n,); 0 where there is none.

    A new signal then moves the position by its share instead of replacing it. The bet of row t is open from
    row t to the row before its end, so row t uses sizes up to its own and which bets are over by then.

    Parameters
    ----------
    size : float64 (n,)
        Of the bet made at each row; NaN: no bet was made. A bet of size 0 counts.
    end : int64 (n,)
        Row at whose close each bet is over, after its own; n or more for bets that are still open.

    Raises
    ------
    DataError
        If a bet ends before it began, or shapes disagree.

    Source: Lopez de Prado (2018), section 10.4 and snippet 10.2.
    """
    size, end = np.asarray(size, dtype=np.float64), np.asarray(end)
    n = size.size
    if size.ndim != 1 or end.shape != size.shape:
        raise DataError(
            f"bets: sizes are {size.shape} and ends {end.shape}; there must be one of each per row"
        )
    made = ~np.isnan(size)
    wrong = made & (end <= np.arange(n))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"bets: the bet of row {row} ends at row {end[row]}; it must end after it began")
    over = np.minimum(end[made], n).astype(np.int64)
    bets = np.where(made, size, 0.0)
    opened = np.cumsum(made) - np.cumsum(np.bincount(over, minlength=n + 1))[:n]
    total = np.cumsum(bets - np.bincount(over, weights=bets[made], minlength=n + 1)[:n])
    # What rounding leaves in the sum must not push a mean of full bets beyond a full one.
    return np.where(opened > 0, np.clip(total / np.maximum(opened, 1), -1.0, 1.0), 0.0)


def _confidence(probability: np.ndarray, outcomes: int) -> np.ndarray:
    from scipy.special import ndtr

    with np.errstate(divide="ignore"):
        z = (probability - 1.0 / outcomes) / np.sqrt(probability * (1.0 - probability))
    return 2.0 * ndtr(z) - 1.0


def _discrete(size: np.ndarray, step: float) -> np.ndarray:
    if not 0.0 <= step <= 1.0:
        raise ConfigError(f"bet size: the step is {step:g}; it must lie between 0 and 1")
    return np.clip(np.round(size / step) * step, -1.0, 1.0) if step else size + 0.0  # no minus zero


def _probabilities(given: np.ndarray) -> np.ndarray:
    values = np.asarray(given, dtype=np.float64)
    wrong = (values < 0.0) | (values > 1.0)
    if wrong.any():
        raise DataError(f"bet size: a probability is {values[wrong][0]:g}; it must lie between 0 and 1")
    return values

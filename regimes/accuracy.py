"""How well labels agree with the truth: pure functions on two columns of labels.

The truth is that of the synthetic market, or hindsight on a real one. Labels are int (n,), a
:class:`~regimes.regime.Regime` or -1; rows where either side is -1 are left out, so judge rows after
the warm-up only.
"""

import numpy as np

from market.table import DataError
from regimes.regime import REGIME_NAMES, UNDECIDED


def confusion(truth: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return int64 (k, k): rows in which the truth is i and the label is j; k is 4 where a crisis occurs."""
    truth, label = _decided(truth, label)
    k = len(REGIME_NAMES)
    if truth.size:
        k = max(k, 1 + int(truth.max()), 1 + int(label.max()))
    return np.bincount(truth * k + label, minlength=k * k).reshape(k, k)


def recall(truth: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return float64 (k,): the fraction of each true regime's rows that are labelled so; NaN without rows."""
    table = confusion(truth, label)
    with np.errstate(invalid="ignore"):
        return np.diagonal(table) / table.sum(axis=1)


def balanced_accuracy(truth: np.ndarray, label: np.ndarray) -> float:
    """Return the mean recall over the regimes that occur in the truth, 0..1; blind guessing gives 1/3.

    Raises
    ------
    DataError
        If no row has both a truth and a label.
    """
    each = recall(truth, label)
    if np.isnan(each).all():
        raise DataError("balanced accuracy: no row has both a true and a detected regime")
    return float(np.nanmean(each))


def detection_delays(truth: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the bars from each true switch until the label first shows the new regime.

    Parameters
    ----------
    truth, label : int (n,)
        One label per row.

    Returns
    -------
    int64 (m,)
        One value per true switch, 0 if the label shows the regime at the switch or before it. A
        switch that is never noticed counts the whole length of its regime: the trader waited so long.
    """
    truth, label = _decided(truth, label)
    starts, ends = _runs(truth)
    delays = []
    for start, end in zip(starts[1:], ends[1:], strict=True):
        seen = np.flatnonzero(label[start:end] == truth[start])
        delays.append(seen[0] if seen.size else end - start)
    return np.array(delays, dtype=np.int64)


def false_switches(truth: np.ndarray, label: np.ndarray) -> int:
    """Return how many changes of label were not the noticing of a true switch.

    Within each unbroken true regime one change is right: the first one that arrives at this regime,
    unless the label already stood there when the regime began. All others are false.
    """
    truth, label = _decided(truth, label)
    changes = np.flatnonzero(np.diff(label)) + 1
    false = changes.size
    for start, end in zip(*_runs(truth), strict=True):
        there = (label[max(start - 1, 0) : start + 1] == truth[start]).all()
        here = changes[(changes >= start) & (changes < end)]
        false -= int(not there and (label[here] == truth[start]).any())
    return false


def _decided(truth: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, label = np.asarray(truth), np.asarray(label)
    if truth.shape != label.shape or truth.ndim != 1:
        raise DataError(
            f"truth has shape {truth.shape} and labels {label.shape}; both must have one value per row"
        )
    decided = (truth != UNDECIDED) & (label != UNDECIDED)
    return truth[decided].astype(np.int64), label[decided].astype(np.int64)


def _runs(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # First row of each unbroken run, and the row after its last.
    starts = np.flatnonzero(np.diff(label, prepend=UNDECIDED))
    return starts, np.append(starts[1:], label.size)

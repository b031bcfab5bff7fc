"""How good answers are: of the class, of the probability, and of the direction."""

from typing import Any

import numpy as np

from backtest.bootstrap import stationary_rows
from forecasters.calibration import LEAST
from forecasters.windows import CLASSES

#: Figures in the order in which they are shown.
FIGURES = (
    "f1_macro", "f1_up", "balanced_accuracy", "log_loss", "brier", "calibration_error",
    "information_coefficient", "hit_rate", "signals",
)  # fmt: skip
_BINS = 10


def decided(probabilities: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
    """Return the class of each row, int8 (m,).

    Parameters
    ----------
    probabilities : float64 (m, 3)
        A row that is not known is decided as none.
    prior : float64 (3,), optional
        Share of each class in general, above 0. With it, the class is taken that is most
        likely in comparison with its share, which serves rare classes as well as frequent ones (balanced
        accuracy, F1 macro). Without, simply the most likely one.
    """
    ratio = probabilities if prior is None else probabilities / prior
    known = ~np.isnan(probabilities).any(axis=1)
    found = np.full(len(probabilities), CLASSES.index("none"), np.int8)
    found[known] = ratio[known].argmax(axis=1)
    return found


def with_thresholds(
    probabilities: np.ndarray, prior: np.ndarray | None, thresholds: tuple[float, float]
) -> np.ndarray:
    """Return the class of each row, int8 (m,): down or up only where it is likely enough.

    Parameters
    ----------
    probabilities : float64 (m, 3)
        A row that is not known is decided as none.
    prior : float64 (3,), optional
        Share of each class in general, as of :func:`decided`; without it, a third each.
    thresholds : tuple of float (2,)
        By how much the probabilities of down and of up must exceed that share; 0 asks nothing.
    """
    found = decided(probabilities, prior)
    shares = np.full(len(CLASSES), 1.0 / len(CLASSES)) if prior is None else prior
    for one, threshold in zip((0, len(CLASSES) - 1), thresholds, strict=True):
        if threshold > 0.0:
            # A row without probabilities is decided as none already, and NaN is below nothing.
            found[(found == one) & (probabilities[:, one] < shares[one] + threshold)] = CLASSES.index("none")
    return found


def measured(
    probabilities: np.ndarray, decision: np.ndarray, target: np.ndarray, ret: np.ndarray
) -> dict[str, Any]:
    """Return figures of answers whose truth is known; None where there is nothing to measure.

    Parameters
    ----------
    probabilities : float64 (m, 3)
        Known.
    decision, target : int8 (m,)
        Class that was decided, and that came true.
    ret : float64 (m,)
        What the label earned, before costs.

    Returns
    -------
    dict
        ``rows``; ``f1_macro``, ``f1_up``, ``balanced_accuracy`` (classes that occur); ``log_loss`` in nats;
        ``brier``: sum of the squared errors of the three probabilities; ``calibration_error``: mean distance
        of the probability of up from its frequency, in ten equal bins; ``information_coefficient``: rank
        correlation of P(up) - P(down) with the return; ``signals``: share of rows decided up or down;
        ``hit_rate``: share of these whose return had that sign.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import f1_score, recall_score

    m = len(target)
    if not m:
        return {"rows": 0} | dict.fromkeys(FIGURES)
    classes, present = list(range(len(CLASSES))), np.unique(target).tolist()
    f1 = f1_score(target, decision, labels=classes, average=None, zero_division=0.0)
    score, signal = probabilities[:, 2] - probabilities[:, 0], decision != 1
    truth = np.eye(len(CLASSES))[target]
    return {
        "rows": m,
        "f1_macro": float(f1.mean()),
        "f1_up": float(f1[2]),
        "balanced_accuracy": float(
            recall_score(target, decision, labels=present, average="macro", zero_division=0.0)
        ),
        "log_loss": float(-np.log(np.maximum(probabilities[np.arange(m), target], LEAST)).mean()),
        "brier": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
        "calibration_error": _calibration_error(probabilities[:, 2], target == 2),
        "information_coefficient": _correlation(rankdata(score), rankdata(ret)),
        "signals": float(signal.mean()),
        "hit_rate": float((np.sign(ret[signal]) == decision[signal] - 1).mean()) if signal.any() else None,
    }


def f1_lead(
    target: np.ndarray,
    decision: np.ndarray,
    rival: np.ndarray,
    mean_block: float,
    rng: np.random.Generator,
    paths: int,
) -> dict[str, float]:
    """Return by how much a decision leads another in F1 macro, by a paired stationary bootstrap.

    Rows are drawn in blocks, the same for both, since labels that overlap and regimes that last make
    neighboring rows alike.

    Parameters
    ----------
    target, decision, rival : int8 (m,)
        In the order of time.
    mean_block : float
        Mean length of a block, rows.
    rng : numpy.random.Generator
    paths : int

    Returns
    -------
    dict
        ``lead``; ``low`` and ``high``: its 5 and 95 percent quantiles; ``p``: one-sided, the share of paths
        on which it does not lead, the observed one counted among them.
    """
    cells = [len(CLASSES) * target.astype(np.int64) + one for one in (decision, rival)]
    leads = []
    for _ in range(paths):  # path by path: all of them at once would be gigabytes
        rows = stationary_rows(len(target), mean_block, rng)[0]
        leads.append(_f1(cells[0][rows]) - _f1(cells[1][rows]))
    low, high = np.quantile(leads, (0.05, 0.95))
    return {
        "lead": _f1(cells[0]) - _f1(cells[1]),
        "low": float(low),
        "high": float(high),
        "p": float((1 + np.sum(np.array(leads) <= 0.0)) / (1 + paths)),
    }


def _f1(cells: np.ndarray) -> float:
    # Of cells of the confusion matrix, 3 * truth + decision; a class without any is 0, as above.
    counts = np.bincount(cells, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1)
    both = counts.sum(axis=0) + counts.sum(axis=1)
    return float((2.0 * np.diag(counts) / np.maximum(both, 1)).mean())


def _calibration_error(probability: np.ndarray, happened: np.ndarray) -> float:
    place = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    off = np.bincount(place, probability - happened, minlength=_BINS)
    return float(np.abs(off).sum() / probability.size)


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if a.size < 3 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    return float(np.corrcoef(a, b)[0, 1])

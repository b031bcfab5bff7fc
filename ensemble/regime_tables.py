"""Numbers of a report about regimes: do they stay what they are, what do switches cost, are they right.

On a real market nobody knows the true regime, so the report shows whether the detected ones are stable: the
same shares and the same character in every fold. On a synthetic one it shows how often they are right.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from ensemble.report_tables import held_label
from ensemble.validation import Validated
from market.table import DataError
from regimes.accuracy import balanced_accuracy, confusion, detection_delays, false_switches, recall
from regimes.regime import CRISIS_NAMES, UNDECIDED, Regime
from regimes.statistics import dwells, plain, regime_statistics

HORIZON = 24  # bars that variance and efficiency ratios look at
AROUND = (-24, 48)  # bars before and after a switch
#: A stay this short after which the former regime is back has moved the account for nothing.
WHIPSAW_BARS = 48
FEWEST = 30  # labels of a regime in a fold, for its character to say anything


def regime_tables(validated: Validated, truth: np.ndarray | None = None) -> dict[str, Any]:
    """Return everything about regimes, as plain objects for JSON.

    Parameters
    ----------
    validated : Validated
    truth : int8 (m,), optional
        The true regime of each test row, where bars come from a synthetic market; -1 where there is none.

    Raises
    ------
    DataError
        If the truth has not one value per test row.
    """
    return plain(
        {
            "stability": stability(validated),
            "transitions": transitions(validated),
            "accuracy": None if truth is None else accuracy(validated, np.asarray(truth)),
        }
    )


def stability(validated: Validated) -> dict[str, Any]:
    """Return shares, stays and character of the regimes over all test rows, and how much folds differ."""
    label, names = validated.blend.label, validated.regime_names
    bars = validated.bars[validated.rows]
    k, years = len(names), max(label.size / validated.result.bars_per_year, 1e-12)
    each = regime_statistics(bars, label, k, HORIZON)
    stays = dwells(label, k)
    share = np.array([np.mean(label == code) for code in range(k)])
    first = validated.rows.start
    folds, agree = [], {"volatile": [], "trending": []}
    for fold in validated.folds:
        rows = slice(fold.test.start - first, fold.test.stop - first)
        own = np.array([np.mean(label[rows] == code) for code in range(k)])
        folds.append({"shares": own, "distance": 0.5 * float(np.abs(own - share).sum())})
        _compare(agree, regime_statistics(bars[rows], label[rows], k, HORIZON), names)
    confidence = validated.blend.confidence
    known = np.isfinite(confidence)
    return {
        "horizon_bars": HORIZON,
        "undecided": float(np.mean(label == UNDECIDED)),
        "switches": int(np.count_nonzero(np.diff(label))),
        "switches_per_year": np.count_nonzero(np.diff(label)) / years,
        "mean_confidence": float(confidence[known].mean()) if known.any() else np.nan,
        "regimes": {
            name: {
                "share": share[code],
                "stays": len(stays[code]),
                "mean_stay": float(stays[code].mean()) if len(stays[code]) else np.nan,
                **asdict(each[code]),
            }
            for code, name in enumerate(names)
        },
        "folds": folds,
        "mean_distance": float(np.mean([fold["distance"] for fold in folds])),
        "volatile_most_volatile": _share(agree["volatile"]),
        "trending_more_efficient": _share(agree["trending"]),
    }


def _compare(agree: dict[str, list[bool]], each: Sequence[Any], names: Sequence[str]) -> None:
    # In this fold: does the volatile regime have the highest volatility, and the trending the clearer path?
    known = {name: one for name, one in zip(names, each, strict=True) if one.bars >= FEWEST}
    calm = [one.annual_volatility for name, one in known.items() if name not in ("volatile", "crisis")]
    if "volatile" in known and calm:
        agree["volatile"].append(known["volatile"].annual_volatility > max(calm))
    if "trending" in known and "ranging" in known:
        agree["trending"].append(known["trending"].efficiency > known["ranging"].efficiency)


def _share(found: list[bool]) -> dict[str, Any]:
    return {"folds": len(found), "share": float(np.mean(found)) if found else np.nan}


def transitions(validated: Validated) -> dict[str, Any]:
    """Return what happened around switches of the label: returns, lags and whipsaws.

    The lag of the label is how many bars the probabilities had put the new regime first, without a break,
    when the label followed: what threshold and minimum stay cost. The lag of the account is how many bars
    later it traded for the first time. A whipsaw is a stay of at most ``WHIPSAW_BARS`` bars after which the
    label is back where it was.
    """
    label, names = validated.blend.label, validated.regime_names
    curve = validated.result.curve
    at = np.flatnonzero(np.diff(label)) + 1
    pairs: dict[str, int] = {}
    for row in at:
        pair = f"{_name(label[row - 1], names)} to {_name(label[row], names)}"
        pairs[pair] = pairs.get(pair, 0) + 1
    label_lags = [_first_since(validated, row) for row in at if label[row] != UNDECIDED]
    ends = np.append(at, label.size)[1:]
    account_lags = [
        _until_traded(curve.column("turnover"), row, end) for row, end in zip(at, ends, strict=True)
    ]
    acted = [lag for lag in account_lags if lag is not None]
    back = [
        (start, end)
        for start, end in pairwise(at.tolist())
        if end - start <= WHIPSAW_BARS and label[end] == label[start - 1]
    ]
    inside = np.zeros(label.size, bool)
    for start, end in back:
        inside[start:end] = True
    inside = held_label(inside.astype(np.int8)) == 1  # decided at a close, held in the next bar
    return {
        "switches": int(at.size),
        "pairs": dict(sorted(pairs.items(), key=lambda one: (-one[1], one[0]))),
        "around": _around(validated, at),
        "label_lag": _spread(label_lags),
        "account_lag": {**_spread(acted), "never": len(account_lags) - len(acted)},
        "whipsaws": {
            "longest_bars": WHIPSAW_BARS,
            "count": len(back),
            "share": len(back) / at.size if at.size else np.nan,
            "bars": int(inside.sum()),
            "log_return": float(np.log1p(np.maximum(curve.column("net_return")[inside], -1 + 1e-12)).sum()),
            "turnover": float(curve.column("turnover")[inside].sum()),
        },
    }


def _name(code: int, names: Sequence[str]) -> str:
    return "undecided" if code == UNDECIDED else names[int(code)]


def _first_since(validated: Validated, row: int) -> int:
    values, code = validated.blend.regimes.values, int(validated.blend.label[row])
    since = row
    while since > 0 and np.isfinite(values[since - 1]).all() and values[since - 1].argmax() == code:
        since -= 1
    return row - since


def _until_traded(turnover: np.ndarray, row: int, end: int) -> int | None:
    # What is decided at the close of the row is traded in the next bar at the earliest; None: not at all.
    later = np.flatnonzero(turnover[row + 1 : end + 1])
    return int(later[0]) if later.size else None


def _spread(found: Sequence[int]) -> dict[str, float]:
    if not found:
        return {"count": 0, "mean": np.nan, "median": np.nan, "p90": np.nan}
    values = np.asarray(found, np.float64)
    return {
        "count": len(found),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p90": float(np.quantile(values, 0.9)),
    }


def _around(validated: Validated, at: np.ndarray) -> dict[str, Any]:
    # Mean sum of net returns from the bar of the switch on, backward and forward; and the same of the price.
    before, after = -AROUND[0], AROUND[1]
    returns = validated.result.curve.column("net_return")
    close = validated.bars.column("close")[validated.rows]
    moves = np.abs(np.concatenate([[0.0], np.diff(np.log(close))]))
    whole = at[(at >= before) & (at + after < returns.size)]
    reach = {"switches": int(whole.size), "bars_before": before, "bars_after": after}
    empty = {"offsets": [], "strategy": [], "low": [], "high": [], "move": []}
    if not whole.size:
        return {**reach, **empty, "before": np.nan, "after": np.nan}
    offsets = np.arange(-before, after + 1)
    rows = whole[:, None] + offsets
    # The bar of the switch ends the old regime: sums begin behind it.
    sums = np.cumsum(returns[rows], axis=1)
    sums -= sums[:, [before]]
    error = (
        sums.std(axis=0, ddof=1) / np.sqrt(whole.size) if whole.size > 1 else np.full(offsets.size, np.nan)
    )
    mean = sums.mean(axis=0)
    return {
        **reach,
        "offsets": offsets,
        "strategy": mean,
        "low": mean - 1.645 * error,
        "high": mean + 1.645 * error,
        "move": moves[rows].mean(axis=0),
        "before": float(-mean[0]),
        "after": float(mean[-1]),
    }


def accuracy(validated: Validated, truth: np.ndarray) -> dict[str, Any]:
    """Return how often the label in force is the true one, int8 (m,); a crisis counts as volatile.

    Raises
    ------
    DataError
        If there is not one value per test row.
    """
    label = validated.blend.label
    if truth.shape != label.shape:
        raise DataError(
            f"truth has shape {truth.shape}; it must have one value for each of {label.size} rows"
        )
    if "crisis" not in validated.regime_names or not (truth == Regime.CRISIS).any():
        truth, label = (np.where(x == Regime.CRISIS, Regime.VOLATILE, x) for x in (truth, label))
    table = confusion(truth, label)
    delays = detection_delays(truth, label)
    names = CRISIS_NAMES[: len(table)]
    return {
        "names": list(names),
        "confusion": table,
        "accuracy": float(np.diagonal(table).sum() / table.sum()) if table.sum() else np.nan,
        "balanced_accuracy": balanced_accuracy(truth, label) if table.sum() else np.nan,
        "recall": dict(zip(names, recall(truth, label).tolist(), strict=True)),
        "switches": int(delays.size),
        "median_delay": float(np.median(delays)) if delays.size else np.nan,
        "false_switches": false_switches(truth, label),
    }

"""What a table of features is worth before anything learns from it: gaps, drift, memory, hints of the label.

Every figure stands on rows that may be looked at. Drift compares spans of *features*; correlation with the
label uses training and validation rows and never a test row, whose look counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from market.scaling import CONSTANT
from market.splits import folds
from market.table import Table

#: Bins of the population stability index, by deciles of the training rows.
BINS = 10
_LEAST_SHARE = 1e-4  # an empty bin counts as this share: its logarithm stays finite
#: Above these a column is said to drift somewhat, and much; the usual bounds of credit scoring.
SOME_DRIFT, MUCH_DRIFT = 0.1, 0.25
#: A rank correlation with the label beyond this is no skill but a column that has seen the answer.
TOO_GOOD = 0.3
#: Rows, the latest of the training rows, and lagged differences of the Dickey-Fuller test.
TESTED_ROWS, TESTED_LAGS = 10_000, 24
_SINGULAR, _EXACT = 1e12, 1e-9
#: Spans of time in which the correlation with the label is measured anew.
N_FOLDS = 10


@dataclass(frozen=True)
class ColumnQuality:
    """Figures of one column.

    Parameters
    ----------
    name : str
    missing : dict of str to float
        Share of rows without a value, by span.
    constant : bool
        Whether it does not vary over the training rows.
    drift : dict of str to float
        Population stability index against the training rows, by later span.
    unit_root_p : float or None
        p-value of the augmented Dickey-Fuller test on training rows: small, where the column is stationary.
        None where it was not tested.
    correlation, correlation_t : float or None
        Mean over ten spans of the training rows of the rank correlation with the label's return, and that
        mean in its standard errors. None where it varies in fewer than half of them.
    validation_correlation : float or None
        The same correlation on the validation rows.
    """

    name: str
    missing: dict[str, float]
    constant: bool
    drift: dict[str, float]
    unit_root_p: float | None
    correlation: float | None
    correlation_t: float | None
    validation_correlation: float | None

    @property
    def largest_drift(self) -> float:
        """Population stability index of the span that differs most."""
        return max(self.drift.values(), default=0.0)

    @property
    def suspicious(self) -> bool:
        """Whether it is so close to the label that it has probably seen it."""
        return any(
            found is not None and abs(found) > TOO_GOOD
            for found in (self.correlation, self.validation_correlation)
        )

    def to_dict(self) -> dict:
        """Return plain objects for JSON."""
        return {
            "name": self.name,
            "missing": self.missing,
            "constant": self.constant,
            "drift": self.drift,
            "unit_root_p": self.unit_root_p,
            "correlation": self.correlation,
            "correlation_t": self.correlation_t,
            "validation_correlation": self.validation_correlation,
            "suspicious": self.suspicious,
        }


def stability_index(reference: np.ndarray, other: np.ndarray, bins: int = BINS) -> float:
    """Return the population stability index: how far a column's distribution moved from the reference's.

    Parameters
    ----------
    reference, other : float64 (n,), (m,)
        NaN is left out. The bins are quantiles of the reference, or its values where there are few.
    bins : int

    Returns
    -------
    float
        0 for equal shares; NaN where either has no value.
    """
    reference, other = (values[~np.isnan(values)] for values in (reference, other))
    if reference.size == 0 or other.size == 0:
        return math.nan
    distinct = np.unique(reference)
    if distinct.size <= bins:
        # Also a value that the reference does not have falls outside of its own.
        edges = np.concatenate([distinct, np.nextafter(distinct, np.inf)])
    else:
        edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins))
    edges.sort()
    before, now = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=edges.size + 1) / values.size
        for values in (reference, other)
    )
    before, now = np.maximum(before, _LEAST_SHARE), np.maximum(now, _LEAST_SHARE)
    return float(((now - before) * np.log(now / before)).sum())


def unit_root_p(values: np.ndarray) -> float | None:
    """Return the p-value of the augmented Dickey-Fuller test: small, where the column is stationary.

    With a constant and 24 lagged differences, on the latest 10,000 values; p-values by MacKinnon (1994), for
    which it needs statsmodels. None without it, and where the test cannot be made: for too few values, and
    for a column that its own past foretells exactly, such as the hour of the day.

    Source: Said and Dickey (1984).
    """
    try:
        from statsmodels.tsa.adfvalues import mackinnonp
    except ImportError:
        return None
    values = values[~np.isnan(values)][-TESTED_ROWS:]
    if values.size < 10 * TESTED_LAGS or is_constant(values):
        return None
    values = (values - values.mean()) / values.std()
    steps = np.diff(values)
    lagged = np.lib.stride_tricks.sliding_window_view(steps, TESTED_LAGS + 1)
    target = lagged[:, -1]
    known = np.column_stack([values[TESTED_LAGS:-1], lagged[:, :-1], np.ones(target.size)])
    products = known.T @ known
    if np.linalg.cond(products) > _SINGULAR:
        return None
    inverse = np.linalg.inv(products)
    weights = inverse @ (known.T @ target)
    left = target - known @ weights
    noise = left @ left / (target.size - weights.size)
    if noise <= _EXACT * target.var():
        return None
    return float(mackinnonp(weights[0] / math.sqrt(noise * inverse[0, 0]), regression="c", N=1))


def is_constant(values: np.ndarray) -> bool:
    """Whether known values differ by no more than rounding."""
    known = values[~np.isnan(values)]
    return known.size == 0 or bool(np.ptp(known) <= CONSTANT * np.abs(known).max())


def rank_correlation(values: np.ndarray, target: np.ndarray) -> float | None:
    """Return Spearman's correlation over rows where both are known; None where either is constant.

    Parameters
    ----------
    values, target : float64 (n,)
    """
    from scipy.stats import rankdata

    both = ~(np.isnan(values) | np.isnan(target))
    if both.sum() < 3 or is_constant(values[both]) or is_constant(target[both]):
        return None
    return float(np.corrcoef(rankdata(values[both]), rankdata(target[both]))[0, 1])


def measured(
    features: Table, spans: Mapping[str, slice], target: np.ndarray, known: np.ndarray
) -> list[ColumnQuality]:
    """Return the figures of every column.

    Parameters
    ----------
    features : Table (n, c)
    spans : mapping of str to slice
        Rows by name: ``train``, ``validation``, ``test``. An empty span is left out.
    target : float64 (n,)
        The return that the label is about.
    known : bool (n,)
        Rows that have a label; others do not count.
    """
    from threadpoolctl import threadpool_limits

    spans = {name: rows for name, rows in spans.items() if rows.stop > rows.start}
    train = spans["train"]
    target = np.where(known, target, np.nan)
    with threadpool_limits(1, user_api="blas"):  # small products: more threads only wait for each other
        return [_column(name, features.column(name), spans, train, target) for name in features.names]


def _column(
    name: str, values: np.ndarray, spans: Mapping[str, slice], train: slice, target: np.ndarray
) -> ColumnQuality:
    found = [rank_correlation(values[rows], target[rows]) for rows in folds(train, N_FOLDS)]
    found = np.array([one for one in found if one is not None])
    # A flag that was up in one span only has no correlation to speak of.
    average = float(found.mean()) if 2 * found.size >= N_FOLDS else None
    error = found.std(ddof=1) / math.sqrt(found.size) if average is not None else 0.0
    validation = spans.get("validation")
    return ColumnQuality(
        name,
        missing={span: float(np.isnan(values[rows]).mean()) for span, rows in spans.items()},
        constant=is_constant(values[train]),
        drift={
            span: stability_index(values[train], values[rows])
            for span, rows in spans.items()
            if span != "train"
        },
        unit_root_p=unit_root_p(values[train]),
        correlation=average,
        correlation_t=average / float(error) if error > 0 else None,
        validation_correlation=None
        if validation is None
        else rank_correlation(values[validation], target[validation]),
    )

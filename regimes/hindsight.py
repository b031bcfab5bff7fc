"""Regimes seen with hindsight: labels for research, NEVER for a decision.

A smoothed probability of bar t uses bars after t. It answers "what was it?" better than any filter can,
and a backtest that trades on it earns money nobody could have earned. Nothing on the way from bars to
orders may import this module; an import contract and the law tests see to it.
"""

import numba
import numpy as np

from compute.kernels import R2, W2, kernel
from market.table import Table
from regimes.hmm import HmmDetector
from regimes.kernels import forward_filter
from regimes.regime import REGIME_NAMES, RegimeProbabilities


@kernel(numba.void(R2, R2, W2))
def backward_smoother(filtered, transition, out):
    """Turn filtered state probabilities into smoothed ones. LOOKS AHEAD: row t uses all rows.

    Parameters
    ----------
    filtered : float64 (n, k)
        From ``regimes.kernels.forward_filter``.
    transition : float64 (k, k)
        The one used there; all positive.
    out : float64 (n, k)
        Probabilities given all n observations, written in place.

    Source: Kim (1994), Journal of Econometrics 60, section 2.2.
    """
    n, n_states = filtered.shape
    if n > 0:
        out[n - 1] = filtered[n - 1]
    for t in range(n - 2, -1, -1):
        for i in range(n_states):
            out[t, i] = 0.0
        for j in range(n_states):
            predicted = 0.0
            for i in range(n_states):
                predicted += filtered[t, i] * transition[i, j]
            for i in range(n_states):
                out[t, i] += filtered[t, i] * transition[i, j] * (out[t + 1, j] / predicted)


def smoothed(detector: HmmDetector, features: Table) -> RegimeProbabilities:
    """Return regime probabilities given *all* rows of a table. LOOKS AHEAD: for research only.

    Parameters
    ----------
    detector : HmmDetector
        Fitted; its memory is left as it is.
    features : Table
        Rows from the beginning; NaN before the first known row.
    """
    fresh = detector.fresh()
    log_likelihood = fresh.log_likelihood(features)
    first = int(np.isnan(log_likelihood[:, 0]).sum())
    filtered, hidden = np.full((2, *log_likelihood.shape), np.nan)
    forward_filter(log_likelihood[first:], fresh.transition, fresh.stationary.copy(), filtered[first:])
    backward_smoother(filtered[first:], fresh.transition, hidden[first:])
    return RegimeProbabilities(features.time, fresh.by_regime(hidden), REGIME_NAMES)

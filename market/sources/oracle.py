"""The best that any causal filter could do: regime probabilities under the true law.

What is exact. The hidden state is a Markov chain with known transition probabilities; expectation and
variance of a bar under each state are functions of earlier closes; returns are Student t. ``close_oracle`` is
therefore the exact posterior given the closes. ``bar_oracle`` uses the joint density of high, low and close
of Brownian motion with drift, mixed over the variance; open and volume add nothing to it, so it bounds
every detector that reads these bars.

What is approximated, in ``bar_oracle`` only. The integral over a bar's variance is a sum over 28 nodes
(log densities within 1e-4 of adaptive quadrature up to 10 degrees of freedom), and the generator draws
the highest and the lowest point between two inner steps independently (a bar's two extremes rarely fall
into one step out of sixty).

Row t uses bars up to t and the clock, nothing later.
"""

import numpy as np

from market.bars import Bars
from market.sources.kernels import (
    bar_log_density,
    close_log_density,
    conditional_moments,
    filter_regimes,
)
from market.sources.law import TrueLaw
from market.sources.scenarios import REGIME_NAMES, SyntheticConfig
from market.table import DataError, Table


def bar_oracle(config: SyntheticConfig, bars: Bars) -> Table:
    """Return filtered regime probabilities from high, low and close.

    Parameters
    ----------
    config : SyntheticConfig
        The true parameters.
    bars : Bars
        The market that ``config`` describes, or its first rows.

    Returns
    -------
    Table (n, 3)
        Columns ``REGIME_NAMES``; rows sum to one.

    Raises
    ------
    DataError
        If the bars do not stand on the clock of the config.
    """
    law = TrueLaw.of(config)
    mean, variance = _moments(config, law, bars)
    log_density = np.empty_like(mean)
    open_, high, low, close = (bars.column(name) for name in ("open", "high", "low", "close"))
    bar_log_density(open_, high, low, close, mean, variance, law.dof, log_density)
    return _filtered(law, bars, log_density)


def close_oracle(config: SyntheticConfig, bars: Bars) -> Table:
    """Return filtered regime probabilities from closes alone; see :func:`bar_oracle`."""
    law = TrueLaw.of(config)
    mean, variance = _moments(config, law, bars)
    log_density = np.empty_like(mean)
    close_log_density(bars.column("open"), bars.column("close"), mean, variance, law.dof, log_density)
    return _filtered(law, bars, log_density)


def _moments(config: SyntheticConfig, law: TrueLaw, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    n = len(bars)
    if not np.array_equal(bars.time, law.time[:n]):
        raise DataError(
            f"{bars.label}: {n} bars do not begin the {config.n_bars} bars that the config describes; "
            f"the oracle knows the true law of its own market only"
        )
    mean, variance = np.empty((n, law.regime_of.size)), np.empty((n, law.regime_of.size))
    # Logs are taken inside the kernels: the same bits however many rows are given.
    conditional_moments(
        law.parameters,
        law.scale,
        bars.column("open"),
        bars.column("close"),
        law.regime_of,
        law.direction_of,
        np.log(config.price),
        mean,
        variance,
    )
    return mean, variance


def _filtered(law: TrueLaw, bars: Bars, log_density: np.ndarray) -> Table:
    probabilities = np.empty((len(bars), len(REGIME_NAMES)))
    # One step of the chain leaves its long-run law as it is, so that is also the belief before the first bar.
    filter_regimes(log_density, law.transition, law.regime_of, law.stationary.copy(), probabilities)
    return Table(bars.time, probabilities, REGIME_NAMES)

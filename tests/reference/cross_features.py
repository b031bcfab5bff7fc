"""Naive twins of the features of joined columns, on pandas, which leaves out what is not known by itself.

Every function takes bars, the joined table and the name of a peer or series, and returns float64 (n,).
"""

import numpy as np
import pandas as pd

PEER, SERIES, FLOW = {}, {}, {}


def twin(group, ending, *arguments):
    """Register a twin under the ending of its column, with the numbers it is called with."""

    def decorator(function):
        group[ending] = lambda *given: np.asarray(function(*given, *arguments), dtype=float)
        return function

    return decorator


def closes(bars):
    return pd.Series(bars.column("close"))


def moves(prices, lag=1):
    logs = np.log(prices.where(prices > 0))
    return logs - logs.shift(lag)


def price_of(joined, name):
    return pd.Series(joined.column(name))


@twin(PEER, "return_1", 1)
@twin(PEER, "return_24", 24)
def _(bars, joined, name, lag):
    return moves(price_of(joined, name), lag).fillna(0.0)


@twin(PEER, "ratio_return_1", 1)
@twin(PEER, "ratio_return_24", 24)
@twin(PEER, "ratio_return_168", 168)
def _(bars, joined, name, lag):
    return moves(price_of(joined, name) / closes(bars), lag).fillna(0.0)


def standard(values, bars):
    """Place of the newest of a window that is known at least by half, in its deviations."""
    window = values.rolling(bars, min_periods=(bars + 1) // 2)
    spread = window.std(ddof=0)
    return ((values - window.mean()) / spread).where(spread > 0, 0.0).fillna(0.0)


@twin(PEER, "ratio_zscore_168")
def _(bars, joined, name):
    return standard(np.log(price_of(joined, name) / closes(bars)), 168)


@twin(PEER, "correlation_168", 0)
@twin(PEER, "lead_168", 1)
def _(bars, joined, name, lag):
    own, other = moves(closes(bars)), moves(price_of(joined, name)).shift(lag)
    return own.rolling(168 - lag, min_periods=84).corr(other).fillna(0.0)


@twin(PEER, "beta_168")
def _(bars, joined, name):
    own, other = moves(closes(bars)), moves(price_of(joined, name))
    own = own.where(other.notna())
    covariance = own.rolling(168, min_periods=84).cov(other, ddof=0)
    return (covariance / other.rolling(168, min_periods=84).var(ddof=0)).fillna(0.0)


@twin(PEER, "volatility_ratio_72")
def _(bars, joined, name):
    own, other = moves(closes(bars)), moves(price_of(joined, name))
    its = other.rolling(72, min_periods=36).std(ddof=0)
    return np.log(its / own.rolling(72).std(ddof=0)).where(other.notna()).fillna(0.0)


@twin(PEER, "missing")
def _(bars, joined, name):
    return price_of(joined, name).isna()


@twin(SERIES, "zscore_168", 168)
@twin(SERIES, "zscore_720", 720)
def _(bars, joined, name, window):
    return standard(pd.Series(joined.column(name)), window)


@twin(SERIES, "change_24", 24)
@twin(SERIES, "change_168", 168)
def _(bars, joined, name, lag):
    values = pd.Series(joined.column(name))
    spread = values.rolling(720, min_periods=360).std(ddof=0)
    return ((values - values.shift(lag)) / spread).where(spread > 0, 0.0).fillna(0.0)


@twin(SERIES, "level_720")
def _(bars, joined, name):
    values = pd.Series(joined.column(name))
    return (values / np.sqrt((values**2).rolling(720, min_periods=360).mean())).fillna(0.0)


@twin(SERIES, "age")
def _(bars, joined, name):
    event = pd.to_datetime(joined.column(f"{name}.event"), unit="s")
    hours = (pd.to_datetime(bars.time, unit="ns") - event).total_seconds() / 3600
    return pd.Series(np.log1p(hours)).where(pd.notna(joined.column(name))).fillna(0.0)


@twin(SERIES, "missing")
def _(bars, joined, name):
    return np.isnan(joined.column(name))


def taker(bars):
    bought, volume = pd.Series(bars.column("taker_buy_volume")), pd.Series(bars.column("volume"))
    volume = volume.where(bought.notna())
    return 2 * bought - volume, volume


def share(part, whole, bars):
    window = {"window": bars, "min_periods": 1}
    return (part.rolling(**window).sum() / whole.rolling(**window).sum()).fillna(0.0)


@twin(FLOW, "imbalance_1", 1)
@twin(FLOW, "imbalance_24", 24)
@twin(FLOW, "imbalance_168", 168)
def _(bars, window):
    return share(*taker(bars), window)


@twin(FLOW, "divergence_24")
def _(bars):
    net, volume = taker(bars)
    moved = moves(closes(bars)).where(volume.notna())
    return share(net, volume, 24) - share(moved, moved.abs(), 24)


@twin(FLOW, "missing")
def _(bars):
    return np.isnan(bars.column("taker_buy_volume"))

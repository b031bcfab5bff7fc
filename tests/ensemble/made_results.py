"""Accounts made from a series of returns, for tests that ask nothing of an engine."""

import numpy as np

from backtest import kernels
from backtest.simulate import CAPITAL, TRADE_DTYPE, BacktestResult
from market.table import Table

HOUR = 3_600_000_000_000


def account(returns, n_trades=0, pnl=None, start=0, bars_per_year=8_760.0):
    """An account with these net returns per bar, always in the market where it moves."""
    returns = np.asarray(returns, dtype=np.float64)
    columns = dict.fromkeys(kernels.CURVE, np.zeros(returns.size))
    columns["equity"] = CAPITAL * np.cumprod(1 + returns)
    columns["net_return"] = returns
    columns["exposure"] = np.full(returns.size, float(np.any(returns)))
    curve = Table(
        start + HOUR * np.arange(1, returns.size + 1), np.column_stack(list(columns.values())), kernels.CURVE
    )
    trades = np.zeros(n_trades if pnl is None else len(pnl), dtype=TRADE_DTYPE)
    if pnl is not None:
        trades["pnl"] = pnl
    return BacktestResult(curve, trades, CAPITAL, bars_per_year, ())


def noise(seed, n=400, edge=0.0, scale=0.01):
    """Returns per bar with a Sharpe ratio per bar of about ``edge``."""
    return scale * (np.random.default_rng(seed).normal(size=n) + edge)

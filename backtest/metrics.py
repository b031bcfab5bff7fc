"""What a series of returns was worth: pure functions, and the record ``Metrics``.

Inputs are **net simple returns**, float64 (n,), one per bar and after all costs. They compound:
``equity[t] = equity[t-1] * (1 + returns[t])``. A return of -1 or below is ruin, and equity stays at 0.

Rules that hold for every function here:

* NaN or infinite inputs are refused with :class:`ValueError`: a backtest that made one is wrong.
* What is not defined (no bars, nothing in the denominator) is **NaN**, never 0 and never infinite. A
  series that never moves has no Sharpe ratio. :meth:`Metrics.to_dict` writes NaN as None.
* Equity is exact to ``ROUNDING``; a smaller drawdown, loss or deviation is arithmetic and counts as none.
* Drawdowns, VaR and CVaR are fractions, zero or below.
* Annual figures use ``bars_per_year``, which is never guessed: ``Bars.bars_per_year`` derives it from the
  interval and a year of 365 days. Hourly crypto bars: 24 * 365 = 8760.

``docs/metrics.md`` has the formulas in one table, and where other libraries differ.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

# The account promises its equity to this fraction. Without the rule a price that comes back to its peak has
# recovered or not by chance, and growth at a constant rate has a Sharpe ratio of 1e13.
ROUNDING = 1e-9


def total_return(returns: np.ndarray) -> float:
    """Return the compounded return over all bars, a fraction; 0 for no bars.

    -1 after ruin; NaN where the growth overflows. NaN input: ValueError.
    """
    returns = _finite(returns)
    return _growth(float(_log_equity(returns)[-1])) if returns.size else 0.0


def annual_return(returns: np.ndarray, bars_per_year: float) -> float:
    """Return the geometric annual growth (CAGR), a fraction.

    ``(1 + total_return) ** (bars_per_year / n) - 1``: years are counted in bars, not in calendar days.
    -1 after ruin; NaN for no bars, or when the growth of a few bars overflows. NaN input: ValueError.
    """
    returns = _finite(returns)
    _check_year(bars_per_year)
    if returns.size == 0:
        return math.nan
    return _growth(float(_log_equity(returns)[-1]) * (bars_per_year / returns.size))


def annual_volatility(returns: np.ndarray, bars_per_year: float) -> float:
    """Return the standard deviation (ddof 1) times the root of bars_per_year, a fraction.

    0 for returns that never move; NaN for fewer than 2 bars. NaN input: ValueError.
    """
    returns = _finite(returns)
    _check_year(bars_per_year)
    return _deviation(returns) * math.sqrt(bars_per_year)


def sharpe(returns: np.ndarray, bars_per_year: float) -> float:
    """Return the annual Sharpe ratio: arithmetic mean over standard deviation (ddof 1), risk-free rate 0.

    Times the root of ``bars_per_year``; ``bars_per_year=1`` gives the ratio per bar that
    :mod:`experiments.evidence` wants. NaN for fewer than 2 bars and for returns that never move (a
    strategy that never trades has no Sharpe ratio, not one of 0). NaN input: ValueError.
    """
    returns = _finite(returns)
    _check_year(bars_per_year)
    return _ratio(_mean(returns), _deviation(returns)) * math.sqrt(bars_per_year)


def sortino(returns: np.ndarray, bars_per_year: float) -> float:
    """Return the annual Sortino ratio for a target of 0.

    Arithmetic mean over the downside deviation ``sqrt(mean(min(returns, 0) ** 2))`` over **all** bars,
    times the root of ``bars_per_year``. NaN without a losing bar. NaN input: ValueError.

    Source: Sortino and Price (1994), "Performance measurement in a downside risk framework".
    """
    returns = _finite(returns)
    _check_year(bars_per_year)
    downside = math.sqrt(_mean(np.minimum(returns, 0) ** 2)) if returns.size else math.nan
    return _ratio(_mean(returns), downside) * math.sqrt(bars_per_year)


def calmar(returns: np.ndarray, bars_per_year: float) -> float:
    """Return the annual (geometric) return over the size of the maximum drawdown of the whole series.

    NaN without a drawdown. NaN input: ValueError.
    """
    return _ratio(annual_return(returns, bars_per_year), -max_drawdown(returns))


def omega(returns: np.ndarray) -> float:
    """Return the sum of gains over the sum of losses of the bars, threshold 0.

    NaN without a losing bar. NaN input: ValueError.

    Source: Keating and Shadwick (2002), "A universal performance measure".
    """
    returns = _finite(returns)
    return _ratio(_gains(returns), _gains(-returns))


def drawdown(returns: np.ndarray) -> np.ndarray:
    """Return the drawdown at the close of each bar, float64 (n,): equity over its peak so far, minus 1.

    The starting capital counts as a peak. Fractions in [-1, 0]; a close within ``ROUNDING`` of the peak
    has reached it. NaN input: ValueError.
    """
    equity = _log_equity(_finite(returns))
    depth = np.expm1(equity - np.maximum.accumulate(np.maximum(equity, 0.0)))
    return np.where(depth < -ROUNDING, depth, 0.0)


def max_drawdown(returns: np.ndarray) -> float:
    """Return the deepest relative drawdown, a fraction in [-1, 0]; 0 for no bars. NaN input: ValueError."""
    returns = _finite(returns)
    return float(drawdown(returns).min()) if returns.size else 0.0


def drawdown_duration(returns: np.ndarray) -> int:
    """Return the longest run of bars whose close lies below an earlier peak, bars.

    A drawdown that has not recovered counts to the end; 0 for no bars. NaN input: ValueError.
    """
    return _longest_run(drawdown(returns) < 0)


def ulcer(returns: np.ndarray) -> float:
    """Return the ulcer index, the root mean square of the drawdowns, a fraction >= 0.

    NaN for no bars. NaN input: ValueError.

    Source: Martin and McCann (1989), "The investor's guide to Fidelity funds" (there in percent).
    """
    return math.sqrt(_mean(drawdown(returns) ** 2)) if np.size(returns) else math.nan


def var_95(returns: np.ndarray) -> float:
    """Return the historical value at risk of one bar: the 5 % quantile of the returns, at most 0.

    Interpolated linearly between order statistics. NaN for no bars. NaN input: ValueError.
    """
    returns = _finite(returns)
    return min(float(np.quantile(returns, 0.05)), 0.0) if returns.size else math.nan


def cvar_95(returns: np.ndarray) -> float:
    """Return the historical expected shortfall of one bar: the mean of the worst 5 % of bars, at most 0.

    Exactly 5 % of the weight is averaged; where 0.05 n is not whole, the last bar counts in part. Ties at
    the quantile (a strategy that is mostly flat) therefore do not dilute it. NaN for no bars. NaN
    input: ValueError.

    Source: Acerbi and Tasche (2002), "On the coherence of expected shortfall", definition 2.6.
    """
    returns = _finite(returns)
    if returns.size == 0:
        return math.nan
    share = returns.size / 20  # exact where 0.05 * n is not
    whole = math.floor(share)
    worst = np.partition(returns, whole)[: whole + 1]
    worst.sort()
    tail = float(worst[:whole].sum()) + (share - whole) * float(worst[whole])
    return min(tail / share, 0.0)


def tail_ratio(returns: np.ndarray) -> float:
    """Return the size of the 95 % quantile over the size of the 5 % quantile.

    NaN for no bars, or when the 5 % quantile is 0. NaN input: ValueError.
    """
    returns = _finite(returns)
    if returns.size == 0:
        return math.nan
    low, high = np.quantile(returns, (0.05, 0.95))
    return _ratio(abs(float(high)), abs(float(low)))


def hit_rate(trade_pnl: np.ndarray) -> float:
    """Return the fraction of trades with a profit, float64 (m,) net profits of trades in.

    NaN without trades. NaN input: ValueError.
    """
    pnl = _finite(trade_pnl)
    return float(np.mean(pnl > 0)) if pnl.size else math.nan


def profit_factor(trade_pnl: np.ndarray) -> float:
    """Return the sum of the profits over the sum of the losses of trades, net of costs.

    Of amounts of money, so that a large trade weighs more than a small one. NaN without a losing trade.
    NaN input: ValueError.
    """
    pnl = _finite(trade_pnl)
    return _ratio(_gains(pnl), _gains(-pnl), least=0.0)  # money: equity's rounding is not its unit


def expectancy(trade_pnl: np.ndarray) -> float:
    """Return the mean net profit of a trade, in the unit it is given in.

    NaN without trades. NaN input: ValueError.
    """
    return _mean(_finite(trade_pnl))


def worst_trade(trade_pnl: np.ndarray) -> float:
    """Return the smallest net profit of a trade, in the unit it is given in; a loss is negative.

    NaN without trades. NaN input: ValueError.
    """
    pnl = _finite(trade_pnl)
    return float(pnl.min()) if pnl.size else math.nan


def losing_streak(trade_pnl: np.ndarray) -> int:
    """Return the longest run of losing trades, one after the other in the order given.

    A trade without profit or loss ends it. 0 without trades. NaN input: ValueError.
    """
    return _longest_run(_finite(trade_pnl) < 0)


def annual_turnover(turnover: np.ndarray, bars_per_year: float) -> float:
    """Return how often the equity is traded per year.

    ``turnover`` is float64 (n,): value bought plus value sold in each bar as a fraction of equity. Its
    mean is multiplied by ``bars_per_year``; buying all and selling all once a year gives 2. NaN for no
    bars. NaN input: ValueError.
    """
    _check_year(bars_per_year)
    return _mean(_finite(turnover)) * bars_per_year


def time_in_market(exposure: np.ndarray) -> float:
    """Return the fraction of bars with exposure to any asset, float64 (n,) or (n, a) in.

    NaN for no bars. NaN input: ValueError.
    """
    return _mean((_by_asset(exposure) != 0).any(axis=1))


def gross_exposure(exposure: np.ndarray) -> float:
    """Return the mean over the bars of the sum of absolute exposures, a fraction of equity >= 0.

    float64 (n,) or (n, a) in. A position of full size in every bar gives 1, leverage more. NaN for no
    bars. NaN input: ValueError.
    """
    return _mean(np.abs(_by_asset(exposure)).sum(axis=1))


def net_exposure(exposure: np.ndarray) -> float:
    """Return the mean over the bars of the sum of signed exposures, a fraction of equity.

    float64 (n,) or (n, a) in. Near 0 the account leans neither way, however large its positions. NaN for
    no bars. NaN input: ValueError.
    """
    return _mean(_by_asset(exposure).sum(axis=1))


@dataclass(frozen=True)
class Metrics:
    """The figures of one backtest. NaN means not defined; each is explained by the function of its name.

    Parameters
    ----------
    total_return, annual_return : float
        Fractions; the annual one is geometric.
    annual_volatility : float
        Fraction, ddof 1.
    sharpe, sortino, calmar : float
        Annual ratios, risk-free rate and target 0.
    omega : float
        Gains over losses of the bars.
    max_drawdown : float
        Fraction <= 0 of the peak.
    drawdown_duration : int
        Longest time below a peak, bars.
    ulcer : float
        Root mean square of the drawdowns, fraction >= 0.
    var_95, cvar_95 : float
        Fractions <= 0 of one bar.
    tail_ratio : float
        Size of the 95 % quantile over the size of the 5 % quantile of the bars.
    n_trades : int
        Closed trades.
    hit_rate : float
        Fraction of trades with a profit.
    profit_factor : float
        Profits over losses of the trades.
    expectancy, worst_trade : float
        Mean and smallest net profit of a trade, in the unit of the profits.
    losing_streak : int
        Longest run of losing trades.
    turnover : float
        Value traded per year over equity.
    time_in_market : float
        Fraction of bars with exposure.
    gross_exposure, net_exposure : float
        Mean over the bars, absolute and signed, fractions of equity.
    n_bars : int
        Length of the series.
    bars_per_year : float
        The year behind every annual figure.
    """

    # growth
    total_return: float
    annual_return: float
    annual_volatility: float
    # reward for risk
    sharpe: float
    sortino: float
    calmar: float
    omega: float
    # drawdowns
    max_drawdown: float
    drawdown_duration: int
    ulcer: float
    # tails of one bar
    var_95: float
    cvar_95: float
    tail_ratio: float
    # trades
    n_trades: int
    hit_rate: float
    profit_factor: float
    expectancy: float
    worst_trade: float
    losing_streak: int
    # activity
    turnover: float
    time_in_market: float
    gross_exposure: float
    net_exposure: float
    # clock
    n_bars: int
    bars_per_year: float

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields by name, ready for JSON: what is not finite is None."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def measure(
    returns: np.ndarray,
    exposure: np.ndarray,
    trade_pnl: np.ndarray,
    turnover: np.ndarray,
    bars_per_year: float,
) -> Metrics:
    """Return the metrics of one backtest.

    Parameters
    ----------
    returns : float64 (n,)
        Net simple returns per bar.
    exposure : float64 (n,) or (n, a)
        Held during each bar, signed fractions of equity.
    trade_pnl : float64 (m,)
        Net profit of each closed trade.
    turnover : float64 (n,)
        Value traded in each bar, fraction of equity.
    bars_per_year : float
        Positive.

    Raises
    ------
    ValueError
        If lengths disagree or a number is not finite.
    """
    if not len(returns) == len(exposure) == len(turnover):
        raise ValueError(
            f"returns, exposure and turnover have {len(returns)}, {len(exposure)} and {len(turnover)} rows; "
            f"they share one clock"
        )
    return Metrics(
        total_return=total_return(returns),
        annual_return=annual_return(returns, bars_per_year),
        annual_volatility=annual_volatility(returns, bars_per_year),
        sharpe=sharpe(returns, bars_per_year),
        sortino=sortino(returns, bars_per_year),
        calmar=calmar(returns, bars_per_year),
        omega=omega(returns),
        max_drawdown=max_drawdown(returns),
        drawdown_duration=drawdown_duration(returns),
        ulcer=ulcer(returns),
        var_95=var_95(returns),
        cvar_95=cvar_95(returns),
        tail_ratio=tail_ratio(returns),
        n_trades=len(trade_pnl),
        hit_rate=hit_rate(trade_pnl),
        profit_factor=profit_factor(trade_pnl),
        expectancy=expectancy(trade_pnl),
        worst_trade=worst_trade(trade_pnl),
        losing_streak=losing_streak(trade_pnl),
        turnover=annual_turnover(turnover, bars_per_year),
        time_in_market=time_in_market(exposure),
        gross_exposure=gross_exposure(exposure),
        net_exposure=net_exposure(exposure),
        n_bars=len(returns),
        bars_per_year=float(bars_per_year),
    )


def _log_equity(returns: np.ndarray) -> np.ndarray:
    # Starting from 0. Logs neither overflow nor forget what little is left; ruin is minus infinity, for good.
    with np.errstate(divide="ignore"):
        return np.cumsum(np.log1p(np.maximum(returns, -1.0)))


def _growth(log_equity: float) -> float:
    try:
        return math.expm1(log_equity)
    except OverflowError:
        return math.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _deviation(returns: np.ndarray) -> float:
    if returns.size < 2:
        return math.nan
    high, low = float(returns.max()), float(returns.min())
    # A return is a quotient less 1, so its rounding is that of the quotient.
    return float(returns.std(ddof=1)) if high - low > ROUNDING * (1 + abs(high)) else 0.0


def _gains(values: np.ndarray) -> float:
    return float(values[values > 0].sum())


def _ratio(above: float, below: float, least: float = ROUNDING) -> float:
    ratio = above / below if below > least else math.nan
    return ratio if math.isfinite(ratio) else math.nan


def _longest_run(chosen: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    return int((edges[1::2] - edges[::2]).max()) if edges.size else 0


def _by_asset(exposure: np.ndarray) -> np.ndarray:
    exposure = _finite(exposure, ndim=(1, 2))
    return exposure[:, None] if exposure.ndim == 1 else exposure


def _finite(values: np.ndarray, ndim: tuple[int, ...] = (1,)) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in ndim:
        raise ValueError(f"values have shape {values.shape}; they must be one per bar or trade")
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise ValueError(f"row {row} is {values[row]}; returns, exposures and profits are finite")
    return values


def _check_year(bars_per_year: float) -> None:
    if not (bars_per_year > 0 and math.isfinite(bars_per_year)):
        raise ValueError(
            f"bars_per_year is {bars_per_year}; it must be positive, 8760 for hourly crypto bars"
        )

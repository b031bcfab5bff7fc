"""Metrics of a backtest in plain Python, one loop per sentence of the definition.

Below them: the series that every implementation is compared on, and wrong conventions that others shipped.
"""

import math
import warnings
from itertools import groupby, pairwise
from statistics import NormalDist

import numpy as np

ROUNDING = 1e-9


def equity(returns):
    curve, value = [], 1.0
    for r in returns:
        value = value * (1 + r) if r > -1 else 0.0
        curve.append(value)
    return curve


def drawdown(returns):
    peak, found = 1.0, []
    for value in equity(returns):
        peak = max(peak, value)
        depth = value / peak - 1
        found.append(depth if depth < -ROUNDING else 0.0)
    return found


def total_return(returns):
    return equity(returns)[-1] - 1 if returns else 0.0


def annual_return(returns, bars_per_year):
    if not returns:
        return math.nan
    years = len(returns) / bars_per_year
    try:
        return (total_return(returns) + 1) ** (1 / years) - 1
    except OverflowError:
        return math.nan


def mean(values):
    return math.fsum(values) / len(values) if values else math.nan


def deviation(returns):
    if len(returns) < 2:
        return math.nan
    if max(returns) - min(returns) <= ROUNDING * (1 + abs(max(returns))):
        return 0.0
    m = mean(returns)
    return math.sqrt(math.fsum((r - m) ** 2 for r in returns) / (len(returns) - 1))


def ratio(above, below):
    return above / below if below > ROUNDING else math.nan


def annual_volatility(returns, bars_per_year):
    return deviation(returns) * math.sqrt(bars_per_year)


def sharpe(returns, bars_per_year):
    return ratio(mean(returns), deviation(returns)) * math.sqrt(bars_per_year)


def sortino(returns, bars_per_year):
    if not returns:
        return math.nan
    downside = math.sqrt(math.fsum(r * r for r in returns if r < 0) / len(returns))
    return ratio(mean(returns), downside) * math.sqrt(bars_per_year)


def max_drawdown(returns):
    return min(drawdown(returns), default=0.0)


def calmar(returns, bars_per_year):
    return ratio(annual_return(returns, bars_per_year), abs(max_drawdown(returns)))


def omega(returns):
    gains = math.fsum(r for r in returns if r > 0)
    losses = math.fsum(-r for r in returns if r < 0)
    return ratio(gains, losses)


def drawdown_duration(returns):
    longest = current = 0
    for depth in drawdown(returns):
        current = current + 1 if depth < 0 else 0
        longest = max(longest, current)
    return longest


def ulcer(returns):
    return math.sqrt(mean([depth**2 for depth in drawdown(returns)])) if returns else math.nan


def quantile(values, q):
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = min(int(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def var_95(returns):
    return min(quantile(returns, 0.05), 0.0) if returns else math.nan


def cvar_95(returns):
    """Give every bar the weight 1/20 of the whole, and spend it from the worst bar upwards."""
    if not returns:
        return math.nan
    left = len(returns) / 20
    budget, total = left, 0.0
    for r in sorted(returns):
        weight = min(1.0, left)
        total += weight * r
        left -= weight
        if left <= 0:
            break
    return min(total / budget, 0.0)


def tail_ratio(returns):
    return ratio(abs(quantile(returns, 0.95)), abs(quantile(returns, 0.05))) if returns else math.nan


def hit_rate(pnl):
    return len([p for p in pnl if p > 0]) / len(pnl) if pnl else math.nan


def profit_factor(pnl):
    losses = math.fsum(-p for p in pnl if p < 0)
    return math.fsum(p for p in pnl if p > 0) / losses if losses else math.nan


def expectancy(pnl):
    return mean(pnl)


def worst_trade(pnl):
    return sorted(pnl)[0] if pnl else math.nan


def losing_streak(pnl):
    longest = current = 0
    for p in pnl:
        current = current + 1 if p < 0 else 0
        longest = max(longest, current)
    return longest


def annual_turnover(turnover, bars_per_year):
    return mean(turnover) * bars_per_year


def by_asset(exposure):
    return [row if isinstance(row, list) else [row] for row in exposure]


def time_in_market(exposure):
    held = [row for row in by_asset(exposure) if any(e != 0 for e in row)]
    return len(held) / len(exposure) if exposure else math.nan


def gross_exposure(exposure):
    return mean([math.fsum(abs(e) for e in row) for row in by_asset(exposure)])


def net_exposure(exposure):
    return mean([math.fsum(row) for row in by_asset(exposure)])


# The series


def _series():
    random = np.random.default_rng(20240229)
    normal = random.normal(0.0004, 0.01, 480)
    prices = 100 + np.cumsum(random.integers(-1, 2, 400))
    channel = np.tile([100.0, 102.0, 97.0], 40)  # back on its peak every third bar
    carry = 10_000 * 1.0001 ** np.arange(60)
    mostly_flat = np.zeros(400)
    mostly_flat[::50] = random.normal(0.0, 0.03, 8)
    ruined, overdrawn = normal[:120].copy(), normal[:90].copy()
    ruined[60] = -1.0
    overdrawn[[30, 70]] = -1.5  # twice below nothing is not above it
    return {
        "normal": normal,
        "fat tails": np.maximum(random.standard_t(2.2, 433) * 0.01, -0.9),
        "losing": random.normal(-0.002, 0.01, 300),
        "lost on the first bar": np.concatenate([[-0.3], normal[:59]]),
        "on a grid": prices[1:] / prices[:-1] - 1,
        "back at its peak": channel[1:] / channel[:-1] - 1,
        "deep early, long later": np.array([-0.5, 1.1, 2.0, -0.2, *[0.001] * 40]),
        "mostly flat": mostly_flat,
        "flat": np.zeros(50),
        "gains only": np.linspace(0.001, 0.02, 40),
        "the same gain": np.full(50, 0.1),
        "the same loss": np.full(50, -0.01),
        "carry": carry[1:] / carry[:-1] - 1,  # equal but for rounding
        "ruined": ruined,
        "overdrawn": overdrawn,
        "one loss": np.array([-0.02]),
        "two bars": np.array([0.01, -0.02]),
        "no bars": np.array([]),
    }


def _profits():
    random = np.random.default_rng(7)
    return {
        "trades": np.round(random.normal(3.0, 40.0, 90), 2),
        "with zeros": np.array([10.0, 0.0, -4.0, -1.0, 0.0, -2.0, -2.0, -2.0, 0.0, 6.0]),
        "winners only": np.array([5.0, 2.0]),
        "losers only": np.array([-5.0, -2.0, -1.0]),
        "tiny amounts": np.array([3e-10, -1e-10]),  # money, say in BTC: no rounding of equity
        "no trades": np.array([]),
    }


def _exposures():
    random = np.random.default_rng(8)
    one = np.round(random.normal(0.0, 0.6, 200), 1)
    return {
        "one asset": one,
        "long and short": np.column_stack([one, -one]),
        "three assets": np.round(random.normal(0.0, 0.2, (173, 3)), 1),
        "flat": np.zeros(20),
        "no bars": np.array([]),
    }


SERIES, PROFITS, EXPOSURES = _series(), _profits(), _exposures()
YEAR = 365.0 * 24

ON_RETURNS = (
    "total_return", "omega", "max_drawdown", "drawdown_duration", "ulcer", "var_95", "cvar_95", "tail_ratio",
)  # fmt: skip
ANNUAL = ("annual_return", "annual_volatility", "sharpe", "sortino", "calmar")
ON_TRADES = ("hit_rate", "profit_factor", "expectancy", "worst_trade", "losing_streak")
ON_EXPOSURES = ("time_in_market", "gross_exposure", "net_exposure")


def cases():
    """Every metric with every argument it is compared on, by name: lists of argument tuples."""
    found = {name: [(r,) for r in SERIES.values()] for name in ON_RETURNS}
    found |= {name: [(r, YEAR) for r in SERIES.values()] for name in ANNUAL}
    found |= {name: [(pnl,) for pnl in PROFITS.values()] for name in ON_TRADES}
    found |= {name: [(e,) for e in EXPOSURES.values()] for name in ON_EXPOSURES}
    found["annual_turnover"] = [(abs(r), YEAR) for r in SERIES.values()]
    return found


def disagreements(module, close):
    """Names of the metrics of a module that differ from the ones above on any case."""
    found = set()
    for name, calls in cases().items():
        for first, *rest in calls:
            ours = getattr(module, name)(first, *rest)
            if not close(ours, globals()[name](first.tolist(), *rest)):
                found.add(name)
    return sorted(found)


# The mistakes: conventions that libraries and papers shipped under the same name


def _curve(returns):
    return np.concatenate([[1.0], np.cumprod(1 + returns)])


def _peaks(curve):
    return np.maximum.accumulate(curve)


def _summed_drawdown(returns):
    curve = np.cumsum(np.concatenate([[0.0], returns]))
    return (curve - _peaks(curve)).min()


def _mixed_drawdown(returns):
    curve = _curve(returns)
    fall = _peaks(curve) - curve
    return -fall.max() / _peaks(curve)[fall.argmax()]


def _later_drawdown(returns):
    curve = _curve(returns)[1:]
    return (curve / _peaks(curve) - 1).min()


def _closed_drawdown(returns):
    curve = _curve(returns)[::5]  # trades that are closed every fifth bar
    return (curve / _peaks(curve) - 1).min()


def _exact_duration(returns):
    curve = _curve(returns)
    return max((len(list(run)) for below, run in groupby(curve < _peaks(curve)) if below), default=0)


def _recovered_duration(returns):
    at_peak = np.flatnonzero(np.array([0.0, *drawdown(returns.tolist())]) == 0)
    return max((b - a - 1 for a, b in pairwise(at_peak)), default=0)


def _deepest_duration(returns):
    depths = np.array([0.0, *drawdown(returns.tolist()), 0.0])
    deepest, at_peak = depths.argmin(), np.flatnonzero(depths == 0)
    if not depths[deepest]:
        return 0
    return at_peak[at_peak > deepest][0] - at_peak[at_peak < deepest][-1] - 1


def _calendar_years(returns, year):
    days = (len(returns) - 1) / 24
    return np.float64(1 + total_return(returns.tolist())) ** (year / days) - 1


def _shifted_years(returns, year):
    return np.float64(1 + total_return(returns.tolist())) ** (year / (len(returns) - 1)) - 1


def _diluted(returns):
    return returns[returns <= np.quantile(returns, 0.05)].mean()


def _whole_bars(returns):
    return np.sort(returns)[: int((len(returns) - 1) * 0.05) + 1].mean()


def _sum_by_bar(exposure):
    return exposure if exposure.ndim == 1 else exposure.sum(axis=1)


STOCKS = 252 / 365

MISTAKES = {
    "total_return": {
        "summed": lambda r: r.sum(),
        "logarithmic": lambda r: np.log1p(r).sum(),
        "resurrected after ruin": lambda r: np.prod(1 + r) - 1,
    },
    "annual_return": {
        "arithmetic": lambda r, year: r.mean() * year,
        "252 days": lambda r, year: annual_return(r.tolist(), year * STOCKS),
        "calendar days over bars per year": _calendar_years,
        "from the first stamp to the last": _shifted_years,
    },
    "annual_volatility": {
        "ddof 0": lambda r, year: r.std() * math.sqrt(year),
        "252 days": lambda r, year: annual_volatility(r.tolist(), year * STOCKS),
        "not annual": lambda r, year: r.std(ddof=1),
        "times the year": lambda r, year: r.std(ddof=1) * year,
    },
    "sharpe": {
        "ddof 0": lambda r, year: r.mean() / r.std() * math.sqrt(year),
        "252 days": lambda r, year: sharpe(r.tolist(), year * STOCKS),
        "geometric": lambda r, year: annual_return(r.tolist(), year) / annual_volatility(r.tolist(), year),
        "per trade": lambda r, year: sharpe(r[r != 0].tolist(), year),
    },
    "sortino": {
        "deviation of the losses": lambda r, year: r.mean() / r[r < 0].std(ddof=1) * math.sqrt(year),
        "over the losing bars": lambda r, year: (
            r.mean() / math.sqrt((r[r < 0] ** 2).mean()) * math.sqrt(year)
        ),
        "252 days": lambda r, year: sortino(r.tolist(), year * STOCKS),
    },
    "calmar": {
        "arithmetic": lambda r, year: -r.mean() * year / max_drawdown(r.tolist()),
        "signed": lambda r, year: annual_return(r.tolist(), year) / max_drawdown(r.tolist()),
        "not annual": lambda r, year: -total_return(r.tolist()) / max_drawdown(r.tolist()),
    },
    "omega": {
        "mean gain over mean loss": lambda r: r[r > 0].mean() / -r[r < 0].mean(),
        "gain to pain": lambda r: r.sum() / -r[r < 0].sum(),
    },
    "max_drawdown": {
        "of the running sum": _summed_drawdown,
        "of closed trades": _closed_drawdown,
        "absolute and relative mixed": _mixed_drawdown,
        "without the starting capital": _later_drawdown,
        "of the starting capital": lambda r: (_curve(r) - _peaks(_curve(r))).min(),
        "positive": lambda r: -max_drawdown(r.tolist()),
    },
    "drawdown_duration": {
        "with the peak": lambda r: drawdown_duration(r.tolist()) + 1,
        "recovered only": _recovered_duration,
        "of the deepest": _deepest_duration,
        "decided by rounding": _exact_duration,
    },
    "ulcer": {
        "n - 1": lambda r: ulcer(r.tolist()) * math.sqrt(len(r) / (len(r) - 1)),
        "mean of the drawdowns": lambda r: -mean(drawdown(r.tolist())),
        "percent": lambda r: 100 * ulcer(r.tolist()),
    },
    "var_95": {
        "positive": lambda r: -var_95(r.tolist()),
        "a gain": lambda r: np.quantile(r, 0.05),
        "normal": lambda r: min(r.mean() + r.std(ddof=1) * NormalDist().inv_cdf(0.05), 0.0),
        "annual": lambda r: var_95(r.tolist()) * math.sqrt(YEAR),
    },
    "cvar_95": {
        "positive": lambda r: -cvar_95(r.tolist()),
        "diluted by ties": _diluted,
        "rounded to whole bars": _whole_bars,
        "the quantile itself": lambda r: var_95(r.tolist()),
    },
    "tail_ratio": {
        "upside down": lambda r: 1 / tail_ratio(r.tolist()),
        "signed": lambda r: np.quantile(r, 0.95) / np.quantile(r, 0.05),
    },
    "hit_rate": {
        "without the zeros": lambda pnl: (pnl > 0).sum() / (pnl != 0).sum(),
        "zeros won": lambda pnl: (pnl >= 0).mean(),
    },
    "profit_factor": {
        "mean win over mean loss": lambda pnl: pnl[pnl > 0].mean() / -pnl[pnl < 0].mean(),
    },
    "expectancy": {
        "without the zeros": lambda pnl: pnl[pnl != 0].mean(),
        "median": lambda pnl: np.median(pnl),
        "sum": lambda pnl: pnl.sum(),
    },
    "worst_trade": {
        "positive": lambda pnl: -pnl.min(),
        "at most zero": lambda pnl: min(pnl.min(), 0.0),
    },
    "losing_streak": {
        "zeros lose": lambda pnl: losing_streak((pnl - 1e-12).tolist()),
        "all losers": lambda pnl: (pnl < 0).sum(),
    },
    "annual_turnover": {
        "one way": lambda turnover, year: turnover.mean() * year / 2,
        "252 days": lambda turnover, year: turnover.mean() * year * STOCKS,
        "sum": lambda turnover, year: turnover.sum(),
    },
    "time_in_market": {
        "rounded up to a percent": lambda e: math.ceil(100 * time_in_market(e.tolist())) / 100,
        "by asset": lambda e: (e != 0).mean(),
        "of the net": lambda e: (_sum_by_bar(e) != 0).mean(),
        "long only": lambda e: (_sum_by_bar(np.maximum(e, 0)) > 0).mean(),
    },
    "gross_exposure": {
        "net": lambda e: abs(_sum_by_bar(e)).mean(),
        "by asset": lambda e: abs(e).mean(),
        "while held": lambda e: _sum_by_bar(abs(e)).mean() / time_in_market(e.tolist()),
    },
    "net_exposure": {
        "gross": lambda e: _sum_by_bar(abs(e)).mean(),
        "without sign": lambda e: abs(_sum_by_bar(e)).mean(),
    },
}

# What is put in the place of NaN.
INVENTIONS = {
    "annual_return": {"zero": lambda r, year: 0.0},
    "annual_volatility": {"zero": lambda r, year: 0.0},
    "sharpe": {
        "zero": lambda r, year: 0.0,
        "infinite": lambda r, year: math.inf,
        "noise over noise": lambda r, year: r.mean() / r.std(ddof=1) * math.sqrt(year),
    },
    "sortino": {"infinite": lambda r, year: math.inf},
    "calmar": {"infinite": lambda r, year: math.inf, "zero": lambda r, year: 0.0},
    "omega": {"infinite": lambda r: math.inf},
    "ulcer": {"zero": lambda r: 0.0},
    "var_95": {"zero": lambda r: 0.0},
    "cvar_95": {"zero": lambda r: 0.0},
    "tail_ratio": {"infinite": lambda r: math.inf},
    "hit_rate": {"zero": lambda pnl: 0.0},
    "profit_factor": {
        "infinite": lambda pnl: math.inf,
        "zero": lambda pnl: 0.0,
        "the profit": lambda pnl: pnl.sum(),
    },
    "expectancy": {"zero": lambda pnl: 0.0},
    "worst_trade": {"zero": lambda pnl: 0.0},
    "annual_turnover": {"zero": lambda turnover, year: 0.0},
    "time_in_market": {"zero": lambda e: 0.0},
    "gross_exposure": {"zero": lambda e: 0.0},
    "net_exposure": {"zero": lambda e: 0.0},
}


def _planted(metric, wrong, where_defined):
    """The metric with the mistake in it, and right wherever the mistake has nothing to say."""

    def answer(values, *rest):
        right = globals()[metric](values.tolist(), *rest)
        if math.isnan(right) is where_defined or (where_defined and len(values) < 2):
            return right
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            found = float(wrong(values, *rest))
        return right if math.isnan(found) else found

    return answer


def mistakes():
    """Every planted mistake: (metric, what is wrong, function)."""
    kinds = ((MISTAKES, True), (INVENTIONS, False))
    return [
        (metric, label, _planted(metric, wrong, where_defined))
        for known, where_defined in kinds
        for metric, listed in known.items()
        for label, wrong in listed.items()
    ]

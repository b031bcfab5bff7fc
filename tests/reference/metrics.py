"""Metrics of a backtest in plain Python, one loop per sentence of the definition."""

import math


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
        found.append(value / peak - 1)
    return found


def total_return(returns):
    return equity(returns)[-1] - 1 if returns else 0.0


def annual_return(returns, bars_per_year):
    if not returns:
        return math.nan
    years = len(returns) / bars_per_year
    return (total_return(returns) + 1) ** (1 / years) - 1


def mean(values):
    return math.fsum(values) / len(values) if values else math.nan


def deviation(returns):
    if len(returns) < 2:
        return math.nan
    if len(set(returns)) == 1:
        return 0.0
    m = mean(returns)
    return math.sqrt(math.fsum((r - m) ** 2 for r in returns) / (len(returns) - 1))


def ratio(above, below):
    return above / below if below != 0 else math.nan


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
    return omega(pnl)


def expectancy(pnl):
    return mean(pnl)


def annual_turnover(turnover, bars_per_year):
    return mean(turnover) * bars_per_year


def time_in_market(exposure):
    return len([e for e in exposure if e != 0]) / len(exposure) if exposure else math.nan

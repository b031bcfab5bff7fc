"""Volatility from all four prices of a bar, and what estimates say of each other: jumps, squeezes, signs."""

import math

import numba

from compute.kernels import R1, W1, kernel
from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    Node,
    Recursion,
    Window,
    further_features,
    rows_to_forget,
)
from market.features.price import gap
from market.features.volatility import (
    ATR_14,
    LOG_BODY,
    LOG_RANGE,
    RETURN,
    log_of_volatilities,
    parkinson,
    volatility,
)
from market.kernels import STILL, rolling, window_mean, window_moments


@rolling(4, 0)
def _rogers_satchell(open_, high, low, close, first, out):
    for t in range(first, close.size):
        above = math.log(high[t] / close[t]) * math.log(high[t] / open_[t])
        below = math.log(low[t] / close[t]) * math.log(low[t] / open_[t])
        out[t - first] = above + below


@rolling(1)
def root_of_mean(values, bars, first, out):
    """Write the root of the mean of the last ``bars`` rows; a mean below 0 counts as 0."""
    for t in range(first, values.size):
        out[t - first] = math.sqrt(max(window_mean(values, t, bars), 0.0))


@rolling(3)
def _yang_zhang(gaps, bodies, terms, bars, first, out):
    weight = 0.34 / (1.34 + (bars + 1.0) / (bars - 1.0))
    unbiased = bars / (bars - 1.0)
    for t in range(first, gaps.size):
        overnight = window_moments(gaps, t, bars)[1]
        inside = window_moments(bodies, t, bars)[1]
        without_drift = window_mean(terms, t, bars)
        variance = unbiased * (overnight * overnight + weight * inside * inside)
        out[t - first] = math.sqrt(max(variance + (1.0 - weight) * without_drift, 0.0))


@rolling(1)
def _signed_squares(returns, bars, first, out):
    for t in range(first, returns.size):
        balance = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            square = returns[i] * returns[i]
            total += square
            balance += square if returns[i] > 0.0 else -square
        out[t - first] = balance / total if total > bars * STILL * STILL else 0.0


@rolling(1)
def _jump_share(returns, bars, first, out):
    for t in range(first, returns.size):
        squares = 0.0
        products = 0.0
        for i in range(t - bars + 1, t + 1):
            squares += returns[i] * returns[i]
        for i in range(t - bars + 2, t + 1):
            products += abs(returns[i] * returns[i - 1])
        smooth = 0.5 * math.pi * products * bars / (bars - 1.0)
        out[t - first] = max(1.0 - smooth / squares, 0.0) if squares > bars * STILL * STILL else 0.0


@kernel(numba.void(R1, numba.int64, W1, numba.int64, W1))
def _fading_volatility(close, percent, memory, first, out):
    keep = percent / 100.0
    before, variance = memory[0], memory[1]
    for t in range(first, close.size):
        moved = math.log(close[t] / before) if before > 0.0 else 0.0
        before = close[t]
        variance = keep * variance + (1.0 - keep) * moved * moved
        out[t - first] = math.sqrt(variance)
    memory[0], memory[1] = before, variance


@rolling(1)
def _range_ratio(ranges, bars, first, out):
    for t in range(first, ranges.size):
        out[t - first] = math.log(max(ranges[t], STILL) / max(window_mean(ranges, t, bars), STILL))


@rolling(2)
def _squeeze(close, average_range, bars, first, out):
    for t in range(first, close.size):
        spread = window_moments(close, t, bars)[1]
        out[t - first] = math.log(max(spread, STILL * close[t]) / max(average_range[t], STILL * close[t]))


@rolling(1)
def _leverage(returns, bars, first, out):
    # Correlation of a return with the size of the next one; both counted from their means.
    pairs = bars - 1
    for t in range(first, returns.size):
        move = 0.0
        size = 0.0
        for i in range(t - bars + 2, t + 1):
            move += returns[i - 1]
            size += abs(returns[i])
        move /= pairs
        size /= pairs
        products = 0.0
        moves = 0.0
        sizes = 0.0
        for i in range(t - bars + 2, t + 1):
            one = returns[i - 1] - move
            other = abs(returns[i]) - size
            products += one * other
            moves += one * one
            sizes += other * other
        varied = min(moves, sizes) > pairs * STILL * STILL
        out[t - first] = products / math.sqrt(moves * sizes) if varied else 0.0


_TERM = Window(_rogers_satchell, (OPEN, HIGH, LOW, CLOSE))


@further_features(rogers_satchell_24=24)
def rogers_satchell(bars: int) -> Node:
    """Volatility per bar from open, high, low and close, whatever the drift; gaps are not seen.

    Source: Rogers and Satchell (1991).
    """
    return Window(root_of_mean, (_TERM,), (bars,), lookback=bars)


@further_features(yang_zhang_24=24, yang_zhang_168=168)
def yang_zhang(bars: int) -> Node:
    """Volatility per bar from gaps, bodies and ranges, whatever the drift.

    Source: Yang and Zhang (2000), with their k = 0.34 / (1.34 + (n + 1) / (n - 1)).
    """
    return Window(_yang_zhang, (gap(), LOG_BODY, _TERM), (bars,), lookback=bars)


@further_features(parkinson_ratio_24=24)
def parkinson_ratio(bars: int) -> Node:
    """Log of Parkinson's volatility over that of closes, both at least STILL: above 0 moves come back."""
    return log_of_volatilities(parkinson(bars), volatility(bars))


@further_features(semivariance_balance_24=24)
def semivariance_balance(bars: int) -> Node:
    """Squared returns of rises minus those of falls, over all of them, -1 to 1; a market at rest: 0.

    Source: Barndorff-Nielsen, Kinnebrock and Shephard (2010), as Patton and Sheppard's signed jump variation
    (2015) over the realized variance.
    """
    return Window(_signed_squares, (RETURN,), (bars,), lookback=bars)


@further_features(jump_share_72=72)
def jump_share(bars: int) -> Node:
    """Share of the realized variance that bipower variation calls jumps, 0 to 1; a market at rest: 0.

    Source: Barndorff-Nielsen and Shephard (2004), with the factor n / (n - 1) for short windows.
    """
    return Window(_jump_share, (RETURN,), (bars,), lookback=bars)


@further_features(ewma_volatility_ratio=(94, 168))
def ewma_volatility_ratio(percent: int, bars: int) -> Node:
    """Log of the exponentially weighted volatility (0.94 kept per bar) over the week's, both at least STILL.

    Source: RiskMetrics (1996), with its decay for days applied to bars.
    """
    warmup = 1 + rows_to_forget(1 - percent / 100)
    fading = Recursion(_fading_volatility, (CLOSE,), (percent,), memory_size=2, warmup=warmup)
    return log_of_volatilities(fading, volatility(bars))


@further_features(range_ratio_24=24)
def range_ratio(bars: int) -> Node:
    """Log of the bar's log range over its mean of the last bars, both at least STILL."""
    return Window(_range_ratio, (LOG_RANGE,), (bars,), lookback=bars)


@further_features(squeeze_20=20)
def squeeze(bars: int) -> Node:
    """Log of the closes' deviation over the average true range: Bollinger's bands against Keltner's.

    Both count as at least STILL of the close.
    """
    return Window(_squeeze, (CLOSE, ATR_14), (bars,), lookback=bars)


@further_features(leverage_96=96)
def leverage(bars: int) -> Node:
    """Correlation of returns with the size of the next return, -1 to 1; a market at rest: 0.

    Below 0 falls are followed by larger moves than rises are.
    """
    return Window(_leverage, (RETURN,), (bars,), lookback=bars)

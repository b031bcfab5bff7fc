"""Oscillators: how one-sided the latest moves were."""

import math

import numba

from compute.kernels import R1, W1, kernel
from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    Node,
    Recursion,
    Window,
    features,
    further_features,
    indicator,
    rows_to_forget,
)
from market.features.price import close_location, log_return
from market.features.volatility import volatility
from market.kernels import STILL, from_percent, mean, ratio, rolling


@rolling(3)
def _cci(high, low, close, bars, first, out):
    for t in range(first, close.size):
        # Typical prices counted from the newest: equal prices give a deviation of exactly 0.
        newest = (high[t] + low[t] + close[t]) / 3.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += (high[i] + low[i] + close[i]) / 3.0 - newest
        average = total / bars
        spread = 0.0
        for i in range(t - bars + 1, t + 1):
            spread += abs((high[i] + low[i] + close[i]) / 3.0 - newest - average)
        out[t - first] = ratio(-average, 0.015 * spread / bars) / 200.0


@rolling(2)
def _in_deviations(returns, volatility, bars, first, out):
    for t in range(first, returns.size):
        out[t - first] = returns[t] / (max(volatility[t], STILL) * math.sqrt(bars))


@rolling(2)
def _faster(returns, volatility, bars, first, out):
    for t in range(first, returns.size):
        gained = returns[t] - returns[t - bars]
        out[t - first] = gained / (max(volatility[t], STILL) * math.sqrt(2.0 * bars))


@kernel(numba.void(R1, numba.int64, numba.int64, W1, numba.int64, W1))
def _true_strength(close, fast, slow, memory, first, out):
    keep_fast = 1.0 - 2.0 / (fast + 1.0)
    keep_slow = 1.0 - 2.0 / (slow + 1.0)
    before, moved, moves, twice_moved, twice_moves = memory[0], memory[1], memory[2], memory[3], memory[4]
    for t in range(first, close.size):
        # Moves as shares of the price: one bar at a price of another order must not own the averages.
        move = close[t] / before - 1.0 if before > 0.0 else 0.0
        move = max(min(move, 1.0), -1.0)
        before = close[t]
        moved = keep_slow * moved + (1.0 - keep_slow) * move
        moves = keep_slow * moves + (1.0 - keep_slow) * abs(move)
        twice_moved = keep_fast * twice_moved + (1.0 - keep_fast) * moved
        twice_moves = keep_fast * twice_moves + (1.0 - keep_fast) * moves
        out[t - first] = twice_moved / max(twice_moves, STILL)
    memory[0], memory[1], memory[2], memory[3], memory[4] = before, moved, moves, twice_moved, twice_moves


@kernel(inline=True)
def _pressure(high, low, close, t, bars):
    # Buying pressure over true range, both summed: what is left below the close.
    bought = 0.0
    way = 0.0
    for i in range(t - bars + 1, t + 1):
        bottom = min(low[i], close[i - 1])
        bought += close[i] - bottom
        way += max(high[i], close[i - 1]) - bottom
    return bought / way if way > 0.0 else 0.5


@rolling(3, 3)
def _ultimate(high, low, close, fast, middle, slow, first, out):
    for t in range(first, close.size):
        total = 4.0 * _pressure(high, low, close, t, fast) + 2.0 * _pressure(high, low, close, t, middle)
        out[t - first] = 2.0 * (total + _pressure(high, low, close, t, slow)) / 7.0 - 1.0


@rolling(1)
def _place(values, bars, first, out):
    for t in range(first, values.size):
        highest = values[t]
        lowest = values[t]
        for i in range(t - bars + 1, t):
            highest = max(highest, values[i])
            lowest = min(lowest, values[i])
        within = highest - lowest
        # An oscillator at rest still moves in its last digits.
        out[t - first] = 2.0 * (values[t] - lowest) / within - 1.0 if within > STILL else 0.0


@rolling(1)
def _rises(close, bars, first, out):
    for t in range(first, close.size):
        balance = 0
        for i in range(t - bars + 1, t + 1):
            balance += 1 if close[i] > close[i - 1] else 0
            balance -= 1 if close[i] < close[i - 1] else 0
        out[t - first] = balance / bars


@features(rsi_4=4, rsi_14=14)
@further_features(rsi_48=48)
def rsi(bars: int) -> Node:
    """Wilder's relative strength index, centered: -1 only falls, 1 only rises; no moves: 0.

    Computed as TA-Lib's CMO, which is ``2 RSI - 100`` by definition but calls a market without moves
    neutral, where TA-Lib's RSI calls it utterly oversold.
    """
    node = indicator("CMO", CLOSE, timeperiod=bars, forget=rows_to_forget(1 / bars))
    return Window(from_percent, (node,))


@features(stochastic_14=(14, 3))
def stochastic(bars: int, smoothing: int) -> Node:
    """Slow stochastic %K, centered: mean of 3 places of the close in 14 bars, -1 to 1; no range: 0."""
    return Window(mean, (close_location(bars),), (smoothing,), lookback=smoothing)


@features(cci_20=20)
def cci(bars: int) -> Node:
    """Commodity channel index over 200, about -1 to 1; constant prices: 0."""
    return Window(_cci, (HIGH, LOW, CLOSE), (bars,), lookback=bars)


@features(momentum_ratio_12=(12, 24))
@further_features(momentum_ratio_72=(72, 168), momentum_ratio_168=(168, 168))
def momentum_ratio(bars: int, window: int) -> Node:
    """Log return over some bars in units of what a volatility (at least STILL) lets one expect.

    Over 12 bars that of the day, volatility_24; over 72 and 168 bars that of the week, volatility_168.
    """
    return Window(_in_deviations, (log_return(bars), volatility(window)), (bars,))


@further_features(acceleration_12=(12, 24))
def acceleration(bars: int, window: int) -> Node:
    """Log return over 12 bars minus that over the 12 before, in units of what volatility_24 lets expect."""
    return Window(_faster, (log_return(bars), volatility(window)), (bars,), lookback=bars + 1)


@further_features(true_strength_13_25=(13, 25))
def true_strength(fast: int, slow: int) -> Node:
    """True strength index, -1 to 1: moves smoothed twice over their sizes smoothed twice; at rest: 0.

    Of simple returns, each within -1 to 1, rather than of price differences.

    Source: Blau (1991), on returns.
    """
    warmup = rows_to_forget(2 / (slow + 1), stages=2)
    return Recursion(_true_strength, (CLOSE,), (fast, slow), memory_size=5, warmup=warmup)


@further_features(ultimate_7_14_28=(7, 14, 28))
def ultimate(fast: int, middle: int, slow: int) -> Node:
    """Williams' ultimate oscillator, centered: -1 all selling, 1 all buying pressure; no range: 0."""
    return Window(_ultimate, (HIGH, LOW, CLOSE), (fast, middle, slow), lookback=slow + 1)


@further_features(stochastic_rsi_14=(14, 14))
def stochastic_rsi(bars: int, window: int) -> Node:
    """Place of rsi_14 between its lowest (-1) and highest (1) of 14 bars; no range: 0."""
    return Window(_place, (rsi(bars),), (window,), lookback=window)


@further_features(up_share_24=24)
def up_share(bars: int) -> Node:
    """Rising closes minus falling ones over all, -1 to 1."""
    return Window(_rises, (CLOSE,), (bars,), lookback=bars + 1)

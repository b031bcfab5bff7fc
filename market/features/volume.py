"""How much was traded, on which side, and how far it moved the price. All are free of the volume's unit."""

import math

import numba

from compute.kernels import R1, W1, kernel
from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    VOLUME,
    Node,
    Recursion,
    Window,
    features,
    further_features,
    rows_to_forget,
)
from market.features.volatility import RETURN
from market.kernels import STILL, ratio, rolling, window_mean, zscore

# A volume below a thousandth of its average reads as that: the log of an empty bar stays finite.
SMALLEST_SHARE = 1e-3
# Averages of volume below this are empty: a fading average must not be divided by its last digits.
EMPTY = 1e-200


@rolling(1)
def _log_share(volume, bars, first, out):
    for t in range(first, volume.size):
        average = window_mean(volume, t, bars)
        out[t - first] = math.log(max(volume[t] / average, SMALLEST_SHARE)) if average > EMPTY else 0.0


@rolling(4)
def _money_flow(high, low, close, volume, bars, first, out):
    for t in range(first, close.size):
        rising = 0.0
        falling = 0.0
        before = (high[t - bars] + low[t - bars] + close[t - bars]) / 3.0
        for i in range(t - bars + 1, t + 1):
            typical = (high[i] + low[i] + close[i]) / 3.0
            if typical > before:
                rising += typical * volume[i]
            elif typical < before:
                falling += typical * volume[i]
            before = typical
        out[t - first] = ratio(rising - falling, rising + falling)


@rolling(2)
def _signed_share(close, volume, bars, first, out):
    for t in range(first, close.size):
        signed = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += volume[i]
            if close[i] > close[i - 1]:
                signed += volume[i]
            elif close[i] < close[i - 1]:
                signed -= volume[i]
        out[t - first] = ratio(signed, total)


@rolling(3, 2)
def _impact(returns, close, volume, bars, baseline, first, out):
    for t in range(first, close.size):
        moved = 0.0
        money = 0.0
        moved_now = 0.0
        money_now = 0.0
        for i in range(t - baseline + 1, t + 1):
            move = abs(returns[i])
            paid = close[i] * volume[i]
            moved += move
            money += paid
            if i > t - bars:
                moved_now += move
                money_now += paid
        moves = (moved_now / bars + STILL) / (moved / baseline + STILL)
        trade = max((money_now / bars) / (money / baseline), SMALLEST_SHARE) if money > EMPTY else 1.0
        out[t - first] = math.log(moves / trade)


@kernel(numba.void(R1, R1, R1, R1, numba.int64, numba.int64, W1, numba.int64, W1))
def _chaikin(high, low, close, volume, fast, slow, memory, first, out):
    # The distance of an exponential average behind the accumulation line needs the line's last step only,
    # d[t] = (1 - a) (d[t-1] + flow[t]); so the line itself, which grows for ever, is never formed.
    keep_fast = 1.0 - 2.0 / (fast + 1.0)
    keep_slow = 1.0 - 2.0 / (slow + 1.0)
    behind_fast, behind_slow, average = memory[0], memory[1], memory[2]
    for t in range(first, close.size):
        place = ratio((close[t] - low[t]) - (high[t] - close[t]), high[t] - low[t])
        flow = place * volume[t]
        behind_fast = keep_fast * (behind_fast + flow)
        behind_slow = keep_slow * (behind_slow + flow)
        average = keep_slow * average + (1.0 - keep_slow) * volume[t]
        out[t - first] = (behind_slow - behind_fast) / max(average, EMPTY)
    memory[0], memory[1], memory[2] = behind_fast, behind_slow, average


@rolling(1, 2)
def _log_of_averages(volume, short, long, first, out):
    for t in range(first, volume.size):
        average = window_mean(volume, t, long)
        share = max(window_mean(volume, t, short) / average, SMALLEST_SHARE)
        out[t - first] = math.log(share) if average > EMPTY else 0.0


@features(volume_ratio_168=168)
@further_features(volume_ratio_24=24)
def volume_ratio(bars: int) -> Node:
    """Log of the volume over its average.

    Below a thousandth of the average, empty bars included: log(0.001); where the whole window is empty: 0.
    """
    return Window(_log_share, (VOLUME,), (bars,), lookback=bars)


@features(volume_zscore_168=168)
def volume_zscore(bars: int) -> Node:
    """Standard deviations (ddof 0) of the volume above its average; constant volume: 0."""
    return Window(zscore, (VOLUME,), (bars,), lookback=bars)


@features(mfi_14=14)
def money_flow(bars: int) -> Node:
    """Money flow index, centered: -1 all money traded in falling bars, 1 in rising ones; no flow: 0."""
    return Window(_money_flow, (HIGH, LOW, CLOSE, VOLUME), (bars,), lookback=bars + 1)


@features(volume_balance_24=24)
@further_features(volume_balance_8=8, volume_balance_96=96)
def volume_balance(bars: int) -> Node:
    """Volume of rising closes minus that of falling ones, over all of it, -1 to 1; no volume: 0."""
    return Window(_signed_share, (CLOSE, VOLUME), (bars,), lookback=bars + 1)


@features(chaikin_3_10=(3, 10))
def chaikin(fast: int, slow: int) -> Node:
    """Chaikin's accumulation oscillator over the slow average of the volume; no volume: fades to 0."""
    warmup = rows_to_forget(2 / (slow + 1))
    return Recursion(_chaikin, (HIGH, LOW, CLOSE, VOLUME), (fast, slow), memory_size=3, warmup=warmup)


@features(amihud_72=(72, 504))
@further_features(amihud_24=(24, 168))
def amihud(bars: int, baseline: int) -> Node:
    """Log of the price move per money traded, the last 72 (24) bars against the last 504 (168); at rest: 0.

    Moves and money are summed before dividing, since one bar with next to no volume would own the mean of
    their ratios. The average move counts at least STILL, the money at least a thousandth of its average.
    Where nothing is traded in the longer window, only the moves are compared.

    Source: Amihud (2002), equation 1, with that change.
    """
    return Window(_impact, (RETURN, CLOSE, VOLUME), (bars, baseline), lookback=baseline)


@further_features(volume_trend_24_168=(24, 168))
def volume_trend(short: int, long: int) -> Node:
    """Log of the day's average volume over the week's, at least log(0.001); an empty week: 0."""
    return Window(_log_of_averages, (VOLUME,), (short, long), lookback=long)

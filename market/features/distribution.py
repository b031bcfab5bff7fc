"""The shape of recent returns: asymmetry, tails, disorder, memory, and the rank of the newest bar."""

import math

import numpy as np

from compute.kernels import kernel
from market.features.feature import CLOSE, VOLUME, Node, Window, further_features
from market.features.volatility import LOG_RANGE, RETURN
from market.kernels import STILL, rolling, window_mean

#: Bins of equal probability under a normal distribution, in standard deviations.
OCTILES = (-1.1503493803760079, -0.6744897501960817, -0.3186393639643752, 0.0)
N_BINS = 8
#: Blocks of the rescaled range, bars. Each divides the window.
BLOCKS = (8, 16, 32, 64, 128)


def expected_range(n: int) -> float:
    """Return the mean rescaled range of n independent normal values.

    Source: Anis and Lloyd (1976).
    """
    front = math.exp(math.lgamma((n - 1) / 2) - math.lgamma(n / 2)) / math.sqrt(math.pi)
    return front * sum(math.sqrt((n - i) / i) for i in range(1, n))


_EXPECTED = tuple(expected_range(n) for n in BLOCKS)
# Weights of the least-squares slope against the logs of the block lengths.
_LOGS = tuple(math.log(n) for n in BLOCKS)
_CENTERED = tuple(x - sum(_LOGS) / len(_LOGS) for x in _LOGS)
_SLOPE = tuple(x / sum(y * y for y in _CENTERED) for x in _CENTERED)


@kernel(inline=True)
def _moment(values, t, bars, center, power):
    total = 0.0
    for i in range(t - bars + 1, t + 1):
        away = values[i] - center
        square = away * away
        total += square * (away if power == 3 else square)
    return total / bars


@kernel(inline=True)
def _variance(values, t, bars, center):
    total = 0.0
    for i in range(t - bars + 1, t + 1):
        total += (values[i] - center) ** 2
    return total / bars


@rolling(1)
def _skewness(returns, bars, first, out):
    for t in range(first, returns.size):
        center = window_mean(returns, t, bars)
        variance = _variance(returns, t, bars, center)
        moves = variance > STILL * STILL
        third = _moment(returns, t, bars, center, 3)
        out[t - first] = third / (variance * math.sqrt(variance)) if moves else 0.0


@rolling(1)
def _kurtosis(returns, bars, first, out):
    for t in range(first, returns.size):
        center = window_mean(returns, t, bars)
        variance = _variance(returns, t, bars, center)
        moves = variance > STILL * STILL
        fourth = _moment(returns, t, bars, center, 4)
        out[t - first] = fourth / (variance * variance) - 3.0 if moves else 0.0


@rolling(1)
def _tail_balance(returns, bars, first, out):
    for t in range(first, returns.size):
        rise = 0.0
        fall = 0.0
        for i in range(t - bars + 1, t + 1):
            rise = max(rise, returns[i])
            fall = max(fall, -returns[i])
        out[t - first] = (rise - fall) / (rise + fall) if rise + fall > STILL else 0.0


@rolling(1)
def _order_entropy(close, bars, first, out):
    counts = np.zeros(6)
    for t in range(first, close.size):
        counts[:] = 0.0
        for i in range(t - bars + 3, t + 1):
            a, b, c = close[i - 2], close[i - 1], close[i]
            # Of equal closes the earlier counts as the lower one.
            pattern = 4 if a > b else 0
            pattern += 2 if b > c else 0
            if a > c:
                pattern += 1
            # rising 0; a <= c < b 2; c < a <= b 3; b < a <= c 4; b <= c < a 5; falling 7
            counts[pattern if pattern < 6 else 1] += 1.0
        entropy = 0.0
        for count in counts:
            if count > 0.0:
                share = count / (bars - 2.0)
                entropy -= share * math.log(share)
        out[t - first] = entropy / math.log(6.0)


@rolling(1)
def _bin_entropy(returns, bars, first, out):
    counts = np.zeros(N_BINS)
    for t in range(first, returns.size):
        center = window_mean(returns, t, bars)
        variance = _variance(returns, t, bars, center)
        if variance <= STILL * STILL:
            out[t - first] = 0.0
            continue
        spread = math.sqrt(variance)
        counts[:] = 0.0
        for i in range(t - bars + 1, t + 1):
            away = (returns[i] - center) / spread
            place = 0
            for edge in OCTILES:
                place += 1 if away > edge else 0
            for edge in OCTILES[:3]:
                place += 1 if away > -edge else 0
            counts[place] += 1.0
        entropy = 0.0
        for count in counts:
            if count > 0.0:
                entropy -= count / bars * math.log(count / bars)
        out[t - first] = entropy / math.log(float(N_BINS))


@rolling(1)
def _hurst(returns, bars, first, out):
    for t in range(first, returns.size):
        slope = 0.0
        known = True
        for size, expected, weight in zip(BLOCKS, _EXPECTED, _SLOPE):  # noqa: B905 - numba knows no strict
            total = 0.0
            n_moving = 0
            for end in range(t - bars + size, t + 1, size):
                center = window_mean(returns, end, size)
                walked = 0.0
                highest = 0.0
                lowest = 0.0
                squares = 0.0
                for i in range(end - size + 1, end + 1):
                    away = returns[i] - center
                    walked += away
                    highest = max(highest, walked)
                    lowest = min(lowest, walked)
                    squares += away * away
                if squares > size * STILL * STILL:
                    total += (highest - lowest) / math.sqrt(squares / size)
                    n_moving += 1
            known = known and n_moving > 0
            slope += weight * math.log(total / n_moving / expected) if n_moving > 0 else 0.0
        out[t - first] = slope if known else 0.0


@rolling(1, 3)
def _autocorrelation(returns, of_sizes, bars, lag, first, out):
    for t in range(first, returns.size):
        center = 0.0
        for i in range(t - bars + 1, t + 1):
            center += abs(returns[i]) if of_sizes else returns[i]
        center /= bars
        squares = 0.0
        products = 0.0
        for i in range(t - bars + 1, t + 1):
            now = (abs(returns[i]) if of_sizes else returns[i]) - center
            squares += now * now
            if i > t - bars + lag:
                products += now * ((abs(returns[i - lag]) if of_sizes else returns[i - lag]) - center)
        out[t - first] = products / squares if squares > bars * STILL * STILL else 0.0


@rolling(1)
def _rank(values, bars, first, out):
    for t in range(first, values.size):
        balance = 0
        for i in range(t - bars + 1, t):
            balance += 1 if values[i] < values[t] else 0
            balance -= 1 if values[i] > values[t] else 0
        out[t - first] = balance / (bars - 1.0)


@further_features(skewness_72=72, skewness_168=168)
def skewness(bars: int) -> Node:
    """Skewness of the returns (ddof 0); a market at rest: 0."""
    return Window(_skewness, (RETURN,), (bars,), lookback=bars)


@further_features(kurtosis_72=72, kurtosis_168=168)
def kurtosis(bars: int) -> Node:
    """Excess kurtosis of the returns (ddof 0), a normal distribution's being 0; a market at rest: 0."""
    return Window(_kurtosis, (RETURN,), (bars,), lookback=bars)


@further_features(tail_balance_168=168)
def tail_balance(bars: int) -> Node:
    """Largest rise minus largest fall over their sum, -1 to 1; a market at rest: 0."""
    return Window(_tail_balance, (RETURN,), (bars,), lookback=bars)


@further_features(permutation_entropy_96=96)
def permutation_entropy(bars: int) -> Node:
    """Entropy of the order of three closes in a row, 0 (always the same) to 1 (any order as often).

    Of equal closes the earlier counts as the lower one, so a market at rest has 0.

    Source: Bandt and Pompe (2002), order 3.
    """
    return Window(_order_entropy, (CLOSE,), (bars,), lookback=bars)


@further_features(return_entropy_168=168)
def return_entropy(bars: int) -> Node:
    """Entropy of the standardized returns in the eight equal shares of a normal distribution, 0 to 1.

    1: as normal returns; a market at rest: 0.
    """
    return Window(_bin_entropy, (RETURN,), (bars,), lookback=bars)


@further_features(hurst_128=BLOCKS[-1])
def hurst(bars: int) -> Node:
    """Hurst exponent of the returns minus one half: above 0 moves go on, below 0 they come back; at rest: 0.

    Slope of the log rescaled range against the log length of blocks of 8 to 128 bars, each range over what
    independent returns give.

    Source: Mandelbrot and Wallis (1969); Anis and Lloyd (1976) for the expected range.
    """
    return Window(_hurst, (RETURN,), (bars,), lookback=bars)


@further_features(autocorrelation_168_lag_24=(0, 168, 24), clustering_96=(1, 96, 1))
def lagged_autocorrelation(of_sizes: int, bars: int, lag: int) -> Node:
    """Autocorrelation of returns at 24 bars, or of their sizes at one (clustering), -1 to 1; at rest: 0."""
    return Window(_autocorrelation, (RETURN,), (of_sizes, bars, lag), lookback=bars)


@further_features(return_rank_168=168)
def return_rank(bars: int) -> Node:
    """Share of the week's earlier returns below the newest minus the share above, -1 to 1."""
    return Window(_rank, (RETURN,), (bars,), lookback=bars)


@further_features(range_rank_168=168)
def range_rank(bars: int) -> Node:
    """Share of the week's earlier log ranges below the newest minus the share above, -1 to 1."""
    return Window(_rank, (LOG_RANGE,), (bars,), lookback=bars)


@further_features(volume_rank_168=168)
def volume_rank(bars: int) -> Node:
    """Share of the week's earlier volumes below the newest minus the share above, -1 to 1."""
    return Window(_rank, (VOLUME,), (bars,), lookback=bars)

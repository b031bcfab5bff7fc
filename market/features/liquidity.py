"""What trading costs and who pays: averages that orders are measured by, spreads, flows estimated from bars.

None knows the order book. Spreads are estimated from prices alone and are fractions of the price.
"""

import math

from market.features.estimators import root_of_mean
from market.features.feature import CLOSE, HIGH, LOW, VOLUME, Node, Window, further_features
from market.features.volatility import RETURN, volatility
from market.kernels import STILL, mean, ratio, rolling, window_mean

_ROOT_2 = math.sqrt(2.0)
# As in market.features.volume; a constant of another file would be compiled in and go stale.
EMPTY = 1e-200


@rolling(4)
def _vwap_gap(high, low, close, volume, bars, first, out):
    for t in range(first, close.size):
        paid = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            paid += (high[i] + low[i] + close[i]) / 3.0 * volume[i]
            total += volume[i]
        traded = total > EMPTY
        out[t - first] = math.log(close[t] / (paid / total)) if traded else 0.0


@rolling(3)
def _twap_gap(high, low, close, bars, first, out):
    for t in range(first, close.size):
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += (high[i] + low[i] + close[i]) / 3.0
        out[t - first] = math.log(close[t] / (total / bars))


@rolling(1)
def _roll(returns, bars, first, out):
    for t in range(first, returns.size):
        drift = window_mean(returns, t, bars)
        products = 0.0
        for i in range(t - bars + 2, t + 1):
            products += (returns[i] - drift) * (returns[i - 1] - drift)
        out[t - first] = 2.0 * math.sqrt(max(-products / (bars - 1.0), 0.0))


@rolling(2, 0)
def _corwin_schultz(high, low, first, out):
    scale = 3.0 - 2.0 * _ROOT_2
    for t in range(first, high.size):
        one = math.log(high[t - 1] / low[t - 1])
        other = math.log(high[t] / low[t])
        both = math.log(max(high[t - 1], high[t]) / min(low[t - 1], low[t]))
        beta = one * one + other * other
        alpha = (_ROOT_2 - 1.0) * math.sqrt(beta) / scale - both / math.sqrt(scale)
        out[t - first] = 2.0 * math.tanh(0.5 * max(alpha, 0.0))


@rolling(3, 0)
def _abdi_ranaldo(high, low, close, first, out):
    for t in range(first, close.size):
        # The close before against the middle of its own bar, and against that of this bar, in logs.
        before = close[t - 1]
        own = 0.5 * (math.log(before / high[t - 1]) + math.log(before / low[t - 1]))
        after = 0.5 * (math.log(before / high[t]) + math.log(before / low[t]))
        out[t - first] = 4.0 * own * after


@rolling(2, 2)
def _correlation(returns, volume, of_sizes, bars, first, out):
    for t in range(first, returns.size):
        # Volumes as shares of the largest, so that their squares stay in range.
        largest = 0.0
        move = 0.0
        for i in range(t - bars + 1, t + 1):
            largest = max(largest, volume[i])
            move += abs(returns[i]) if of_sizes else returns[i]
        if largest <= EMPTY:
            out[t - first] = 0.0
            continue
        origin = volume[t] / largest
        level = 0.0
        for i in range(t - bars + 1, t + 1):
            level += volume[i] / largest - origin
        move /= bars
        level /= bars
        products = 0.0
        moves = 0.0
        levels = 0.0
        for i in range(t - bars + 1, t + 1):
            one = (abs(returns[i]) if of_sizes else returns[i]) - move
            other = volume[i] / largest - origin - level
            products += one * other
            moves += one * one
            levels += other * other
        varied = moves > bars * STILL * STILL and levels > bars * STILL * STILL
        out[t - first] = products / math.sqrt(moves * levels) if varied else 0.0


@rolling(1)
def _concentration(volume, bars, first, out):
    for t in range(first, volume.size):
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            total += volume[i]
        squares = 0.0
        traded = total > EMPTY
        for i in range(t - bars + 1, t + 1):
            share = volume[i] / total if traded else 1.0 / bars
            squares += share * share
        out[t - first] = max(bars * squares - 1.0, 0.0) / (bars - 1.0)


@rolling(2, 0)
def _bulk_side(returns, volatility, first, out):
    # Twice the normal probability that the bar's volume was bought, minus 1.
    for t in range(first, returns.size):
        out[t - first] = math.erf(returns[t] / max(volatility[t], STILL) / _ROOT_2)


@rolling(2)
def _net_share(side, volume, bars, first, out):
    for t in range(first, volume.size):
        net = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            net += side[i] * volume[i]
            total += volume[i]
        out[t - first] = ratio(net, total)


@rolling(2)
def _gross_share(side, volume, bars, first, out):
    for t in range(first, volume.size):
        gross = 0.0
        total = 0.0
        for i in range(t - bars + 1, t + 1):
            gross += abs(side[i]) * volume[i]
            total += volume[i]
        out[t - first] = ratio(gross, total)


@further_features(vwap_gap_24=24, vwap_gap_168=168)
def vwap_gap(bars: int) -> Node:
    """Log of the close over the volume-weighted average of typical prices; nothing traded: 0."""
    return Window(_vwap_gap, (HIGH, LOW, CLOSE, VOLUME), (bars,), lookback=bars)


@further_features(twap_gap_24=24, twap_gap_168=168)
def twap_gap(bars: int) -> Node:
    """Log of the close over the plain average of typical prices (high, low and close)."""
    return Window(_twap_gap, (HIGH, LOW, CLOSE), (bars,), lookback=bars)


@further_features(roll_spread_72=72)
def roll_spread(bars: int) -> Node:
    """Spread, fraction of the price, from the bounce of returns; where returns go on rather than back: 0.

    Source: Roll (1984), on log returns.
    """
    return Window(_roll, (RETURN,), (bars,), lookback=bars)


@further_features(corwin_schultz_24=24)
def corwin_schultz(bars: int) -> Node:
    """Spread, fraction of the price, from ranges of one and of two bars; mean of the last bars.

    Estimates below 0 count as 0, as the authors do; a gap between bars is not adjusted for.

    Source: Corwin and Schultz (2012), equations 14 and 18.
    """
    pair = Window(_corwin_schultz, (HIGH, LOW), lookback=2)
    return Window(mean, (pair,), (bars,), lookback=bars)


@further_features(abdi_ranaldo_24=24)
def abdi_ranaldo(bars: int) -> Node:
    """Spread, fraction of the price, from earlier closes against the middles of their own and the bar after.

    Source: Abdi and Ranaldo (2017), with one mean for the window; a mean below 0 counts as 0.
    """
    pair = Window(_abdi_ranaldo, (HIGH, LOW, CLOSE), lookback=2)
    return Window(root_of_mean, (pair,), (bars,), lookback=bars)


@further_features(price_volume_correlation_72=(0, 72), move_volume_correlation_72=(1, 72))
def volume_correlation(of_sizes: int, bars: int) -> Node:
    """Correlation of returns (or their sizes: move) with volume, -1 to 1; either constant: 0."""
    return Window(_correlation, (RETURN, VOLUME), (of_sizes, bars), lookback=bars)


@further_features(volume_concentration_24=24)
def volume_concentration(bars: int) -> Node:
    """Whether few bars held the volume, 0 (all equal) to 1 (one bar): Herfindahl's index, normalized."""
    return Window(_concentration, (VOLUME,), (bars,), lookback=bars)


_SIDE = Window(_bulk_side, (RETURN, volatility(168)))


@further_features(bulk_imbalance_24=24)
def bulk_imbalance(bars: int) -> Node:
    """Volume bought minus volume sold over all of it, -1 to 1, sides estimated in bulk; no volume: 0.

    The part bought in a bar is the normal probability of its return in units of volatility_168.

    Source: Easley, Lopez de Prado and O'Hara (2012), bulk volume classification.
    """
    return Window(_net_share, (_SIDE, VOLUME), (bars,), lookback=bars)


@further_features(bulk_toxicity_72=72)
def bulk_toxicity(bars: int) -> Node:
    """Mean imbalance of single bars regardless of side, weighted by volume, 0 to 1; no volume: 0.

    Source: Easley, Lopez de Prado and O'Hara (2012), VPIN with bars in place of volume buckets.
    """
    return Window(_gross_share, (_SIDE, VOLUME), (bars,), lookback=bars)

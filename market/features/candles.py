"""Shapes of single bars, and candlestick patterns as -1 (bearish), 0, 1 (bullish).

Bodies count as long or short against the ten bars before, as in TA-Lib, whose functions are the twins. TA-Lib
keeps these averages as running sums; on coarse ticks, where body and average are often equal, their
rounding decided differently for different first rows. Here each average is summed afresh.
"""

from compute.kernels import kernel
from market.features.feature import (
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    Node,
    Window,
    features,
    further_features,
    indicator,
)
from market.kernels import mean, ratio, rolling

AVERAGED_BARS = 10
NEAR_BARS = 5


@kernel(inline=True)
def _body(open_, close, t):
    return abs(close[t] - open_[t])


@kernel(inline=True)
def _average_body(open_, close, t):
    # Of the ten bars before row t.
    total = 0.0
    for i in range(t - AVERAGED_BARS, t):
        total += abs(close[i] - open_[i])
    return total / AVERAGED_BARS


@kernel(inline=True)
def _average_range(high, low, t, bars):
    total = 0.0
    for i in range(t - bars, t):
        total += high[i] - low[i]
    return total / bars


@rolling(4, 0)
def _body_share(open_, high, low, close, first, out):
    for t in range(first, close.size):
        out[t - first] = ratio(close[t] - open_[t], high[t] - low[t])


@rolling(4, 0)
def _upper_wick(open_, high, low, close, first, out):
    for t in range(first, close.size):
        out[t - first] = ratio(high[t] - max(open_[t], close[t]), high[t] - low[t])


@rolling(4, 0)
def _lower_wick(open_, high, low, close, first, out):
    for t in range(first, close.size):
        out[t - first] = ratio(min(open_[t], close[t]) - low[t], high[t] - low[t])


@rolling(1, 0)
def _sign(values, first, out):
    for t in range(first, values.size):
        falls = -1.0 if values[t] < 0.0 else 0.0
        out[t - first] = 1.0 if values[t] > 0.0 else falls


@rolling(4, 0)
def _doji(open_, high, low, close, first, out):
    for t in range(first, close.size):
        small = 0.1 * _average_range(high, low, t, AVERAGED_BARS)
        out[t - first] = 1.0 if _body(open_, close, t) <= small else 0.0


@rolling(4, 0)
def _hammer(open_, high, low, close, first, out):
    for t in range(first, close.size):
        body = _body(open_, close, t)
        bottom = min(open_[t], close[t])
        found = (
            body < _average_body(open_, close, t)
            and bottom - low[t] > body
            and high[t] - max(open_[t], close[t]) < 0.1 * _average_range(high, low, t, AVERAGED_BARS)
            and bottom <= low[t - 1] + 0.2 * _average_range(high, low, t - 1, NEAR_BARS)
        )
        out[t - first] = 1.0 if found else 0.0


@rolling(2, 0)
def _harami(open_, close, first, out):
    for t in range(first, close.size):
        found = (
            _body(open_, close, t - 1) > _average_body(open_, close, t - 1)
            and _body(open_, close, t) <= _average_body(open_, close, t)
            and max(open_[t], close[t]) <= max(open_[t - 1], close[t - 1])
            and min(open_[t], close[t]) >= min(open_[t - 1], close[t - 1])
        )
        against = -1.0 if close[t - 1] >= open_[t - 1] else 1.0
        out[t - first] = against if found else 0.0


@rolling(2)
def _star(open_, close, direction, first, out):
    for t in range(first, close.size):
        # A long first body, a short one beyond its end, and a body back into the first.
        first_body = _body(open_, close, t - 2)
        if direction > 0:
            beyond = max(open_[t - 1], close[t - 1]) <= close[t - 2] and close[t - 2] < open_[t - 2]
        else:
            beyond = min(open_[t - 1], close[t - 1]) >= close[t - 2] and close[t - 2] >= open_[t - 2]
        found = (
            beyond
            and first_body > _average_body(open_, close, t - 2)
            and _body(open_, close, t - 1) <= _average_body(open_, close, t - 1)
            and direction * (close[t] - open_[t]) > _average_body(open_, close, t)
            and direction * close[t] > direction * close[t - 2] + 0.3 * first_body
        )
        out[t - first] = float(direction) if found else 0.0


@rolling(4, 0)
def _wick_balance(open_, high, low, close, first, out):
    for t in range(first, close.size):
        above = high[t] - max(open_[t], close[t])
        below = min(open_[t], close[t]) - low[t]
        out[t - first] = ratio(below - above, high[t] - low[t])


@rolling(4, 0)
def _shooting_star(open_, high, low, close, first, out):
    for t in range(first, close.size):
        body = _body(open_, close, t)
        bottom = min(open_[t], close[t])
        found = (
            body < _average_body(open_, close, t)
            and high[t] - max(open_[t], close[t]) > body
            and bottom - low[t] < 0.1 * _average_range(high, low, t, AVERAGED_BARS)
            and bottom >= max(open_[t - 1], close[t - 1])
        )
        out[t - first] = -1.0 if found else 0.0


@rolling(2, 0)
def _piercing(open_, close, first, out):
    for t in range(first, close.size):
        # The body before, and this one the other way: from beyond its end to past its middle.
        before = close[t - 1] - open_[t - 1]
        way = 1.0 if before < 0.0 else -1.0
        middle = open_[t - 1] + 0.5 * before
        found = (
            abs(before) > _average_body(open_, close, t - 1)
            and way * open_[t] <= way * close[t - 1]
            and way * close[t] > way * middle
            and way * close[t] < way * open_[t - 1]
        )
        out[t - first] = way if found else 0.0


@rolling(2, 0)
def _inside(high, low, first, out):
    for t in range(first, high.size):
        within = high[t] <= high[t - 1] and low[t] >= low[t - 1]
        out[t - first] = 1.0 if within and high[t] - low[t] < high[t - 1] - low[t - 1] else 0.0


@rolling(2, 0)
def _three(open_, close, first, out):
    for t in range(first, close.size):
        way = 1.0 if close[t] > open_[t] else -1.0
        found = True
        for i in range(t - 2, t + 1):
            found = found and way * (close[i] - open_[i]) > 0.5 * _average_body(open_, close, t - 2)
        for i in range(t - 1, t + 1):
            found = (
                found
                and way * close[i] > way * close[i - 1]
                and way * open_[i] >= way * open_[i - 1]
                and way * open_[i] <= way * close[i - 1]
            )
        out[t - first] = way if found else 0.0


@rolling(4, 0)
def _marubozu(open_, high, low, close, first, out):
    for t in range(first, close.size):
        short = 0.1 * _average_range(high, low, t, AVERAGED_BARS)
        found = (
            _body(open_, close, t) > _average_body(open_, close, t)
            and high[t] - max(open_[t], close[t]) < short
            and min(open_[t], close[t]) - low[t] < short
        )
        way = 1.0 if close[t] >= open_[t] else -1.0
        out[t - first] = way if found else 0.0


@features(body_1=())
def body() -> Node:
    """Close minus open as a fraction of the range, -1 to 1; no range: 0."""
    return Window(_body_share, (OPEN, HIGH, LOW, CLOSE))


@features(upper_wick_1=())
def upper_wick() -> Node:
    """Part of the range above the body, 0 to 1; no range: 0."""
    return Window(_upper_wick, (OPEN, HIGH, LOW, CLOSE))


@features(lower_wick_1=())
def lower_wick() -> Node:
    """Part of the range below the body, 0 to 1; no range: 0."""
    return Window(_lower_wick, (OPEN, HIGH, LOW, CLOSE))


@features(engulfing=())
def engulfing() -> Node:
    """1 or -1: the body covers the body before, which went the other way."""
    node = indicator("CDLENGULFING", OPEN, HIGH, LOW, CLOSE, forget=0)
    return Window(_sign, (node,))


@features(hammer=())
def hammer() -> Node:
    """1: a short body on top of a long lower wick, near the low before."""
    return Window(_hammer, (OPEN, HIGH, LOW, CLOSE), lookback=AVERAGED_BARS + 1)


@features(doji=())
def doji() -> Node:
    """1: open and close nearly equal, within a tenth of the average range; a bar that did not move is one."""
    return Window(_doji, (OPEN, HIGH, LOW, CLOSE), lookback=AVERAGED_BARS + 1)


@features(harami=())
def harami() -> Node:
    """1 or -1: a short body inside the long body before, against that one's direction."""
    return Window(_harami, (OPEN, CLOSE), lookback=AVERAGED_BARS + 2)


@features(morning_star=1)
def morning_star(direction: int) -> Node:
    """1: a long fall, a short body at or below its end, a rise back through 30 % of the fall.

    TA-Lib asks for a gap below the first body. A market that never sleeps opens where it closed, so here
    touching is enough; wherever TA-Lib sees a star, this one does too.
    """
    return Window(_star, (OPEN, CLOSE), (direction,), lookback=AVERAGED_BARS + 3)


@features(evening_star=-1)
def evening_star(direction: int) -> Node:
    """-1: a long rise, a short body at or above its end, a fall back through 30 % of the rise.

    Touching is enough, as in :func:`morning_star`.
    """
    return Window(_star, (OPEN, CLOSE), (direction,), lookback=AVERAGED_BARS + 3)


@further_features(body_mean_24=24)
def body_mean(bars: int) -> Node:
    """Mean of body_1 over the last bars, -1 to 1."""
    return Window(mean, (body(),), (bars,), lookback=bars)


@further_features(wick_balance_24=24)
def wick_balance(bars: int) -> Node:
    """Mean of the lower wick minus the upper one, as fractions of each range, -1 to 1; no range: 0."""
    node = Window(_wick_balance, (OPEN, HIGH, LOW, CLOSE))
    return Window(mean, (node,), (bars,), lookback=bars)


@further_features(shooting_star=())
def shooting_star() -> Node:
    """-1: a short body under a long upper wick, at or above the body before.

    Touching is enough, as in :func:`morning_star`.
    """
    return Window(_shooting_star, (OPEN, HIGH, LOW, CLOSE), lookback=AVERAGED_BARS + 1)


@further_features(piercing=())
def piercing() -> Node:
    """1: after a long fall, a rise from its end past its middle (piercing); -1: the reverse (dark cloud).

    TA-Lib asks for a gap beyond the wick before; here touching the close before is enough, as in
    :func:`morning_star`.
    """
    return Window(_piercing, (OPEN, CLOSE), lookback=AVERAGED_BARS + 2)


@further_features(inside_bar=())
def inside_bar() -> Node:
    """1: the range lies within the range before, and is smaller."""
    return Window(_inside, (HIGH, LOW), lookback=2)


@further_features(three_soldiers=())
def three_soldiers() -> Node:
    """1: three rises, each from within the body before to beyond it (white soldiers); -1: three falls.

    Each body is longer than half of the average body of the ten bars before the three.
    """
    return Window(_three, (OPEN, CLOSE), lookback=AVERAGED_BARS + 3)


@further_features(marubozu=())
def marubozu() -> Node:
    """1 or -1: a long body with next to no wicks, each below a tenth of the average range."""
    return Window(_marubozu, (OPEN, HIGH, LOW, CLOSE), lookback=AVERAGED_BARS + 1)

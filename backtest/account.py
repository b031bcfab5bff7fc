"""The phases of one bar of one account: the building blocks that every loop over bars inlines.

A *shadow* and an *account* walk side by side. The shadow is what a target means: the exposure ``held``, its
age, its stop and target level; it depends on the market alone, so that a specialist that streams decisions
keeps the same one. The account is what came of it: equity, a quantity, the quantity it wants (``goal``).

Fills happen at reference prices (the open, a stop, a target); fees, spread and impact are costs beside them.
A market order of notional N costs ``N * rate + impact * N * sqrt(N)``.

The blocks use selects instead of branches (no ``min``, ``max``, ``and``, ``or``), so that LLVM can turn a
loop over genomes into vector code. Options that are off come in as constants, and their code folds away:
impact 0, room infinite, maker -1, grids 0, largest infinite.
"""

import math

import numpy as np

from compute.kernels import kernel

# A multiple of a step stays itself although its quotient may come out a little low.
SAME_STEP = 1e-9
# Between the first bar of a new day and the next open, which takes up the standing exposure again.
REARMED = 0.5


@kernel(inline=True)
def renew(held, age, stop, take, pending, price):
    """Let the shadow take up what was decided at the last close.

    ``stop`` and ``take`` come in as distances (fractions of the open) when the target has changed and as
    price levels otherwise; they go out as levels.

    Returns
    -------
    tuple
        held, age, stop, take, changed.
    """
    changed = pending != held
    side = 1.0 if pending > 0.0 else -1.0
    stop = price - side * price * stop if changed else stop
    take = price + side * price * take if changed else take
    age = 0.0 if changed else age
    return pending, age, stop, take, changed


@kernel(inline=True)
def touched(held, stop, take, price, high, low):
    """Check the shadow's stop and target against the bar's range; the stop comes first.

    A gap through the stop fills at the open, a gap through the target at the target and no better.

    Returns
    -------
    tuple
        stopped, taken, gapped, exit_price (the open where neither was touched).
    """
    long = held > 0.0
    adverse = low if long else high
    favourable = high if long else low
    side = 1.0 if long else -1.0
    inside = held != 0.0
    stopped = inside & ((adverse - stop) * side <= 0.0)
    taken = inside & ((favourable - take) * side >= 0.0)
    out = stopped | taken
    gapped = (price - stop) * side < 0.0
    exit_price = price if gapped else stop
    exit_price = exit_price if stopped else take
    exit_price = exit_price if out else price
    return stopped, taken, stopped & gapped, exit_price


@kernel(inline=True)
def trailed(held, stop, high, low, trail):
    """Return the stop level after this bar; it works from the next one, as the path inside is unknown."""
    raised = high - high * trail
    lowered = low + low * trail
    raised = raised if raised > stop else stop
    lowered = lowered if lowered < stop else stop
    level = raised if held > 0.0 else lowered
    return level if held != 0.0 else stop


@kernel(inline=True)
def resize(
    equity,
    quantity,
    goal,
    pending,
    changed,
    halted,
    price,
    per_unit,
    rate,
    impact,
    room,
    lot,
    least,
    largest,
):
    """Trade towards the goal at the open, and set a new goal when the target has changed.

    ``equity`` is marked at the open; ``per_unit`` is ``1 / (open * (1 + rate))``, so that the costs are paid
    out of the position and full exposure borrows nothing. A reversal pays for closing the old side before
    it sizes the new one. Quantities round towards zero on the grid of ``lot``; an order below ``least``
    (notional) is dropped unless it closes everything, and a reversal that is too small just closes; what
    exceeds ``room`` is carried to the next open.

    Returns
    -------
    tuple
        equity, quantity, goal, cost, room left for the rest of the bar.
    """
    owned = abs(quantity) * price
    closing = owned * rate
    closing = closing + impact * owned * math.sqrt(owned) if impact > 0.0 else closing
    closing = closing if pending * quantity < 0.0 else 0.0
    worth = equity - closing
    worth = worth if worth > 0.0 else 0.0  # a gap may have taken everything before the open
    value = pending * worth
    wanted = value * per_unit
    wanted = value / (price * (1.0 + (rate + impact * math.sqrt(abs(value))))) if impact > 0.0 else wanted
    unit = lot if lot > 0.0 else 1.0
    steps = np.floor(abs(wanted) / unit + SAME_STEP) * unit
    steps = steps if wanted > 0.0 else -steps
    wanted = steps if lot > 0.0 else wanted
    if largest < math.inf:  # the compiler cannot leave out a comparison with infinity: it may be NaN
        wanted = wanted if wanted < largest else largest
        wanted = wanted if wanted > -largest else -largest
    dropped = (least > 0.0) & (wanted != 0.0) & (abs(wanted - quantity) * price < least)
    kept = quantity if pending * quantity > 0.0 else 0.0
    wanted = kept if dropped else wanted
    goal = wanted if changed else goal
    goal = 0.0 if halted else goal
    # What the bar has room for; the result stays on the grid.
    ordered = abs(goal - quantity)
    capped = ordered > room
    capped = capped & (room < math.inf)
    part = quantity + room if goal > quantity else quantity - room
    part = np.rint(part / unit) * unit if lot > 0.0 else part
    filled = part if capped else goal
    waits = (least > 0.0) & (filled != 0.0) & (abs(filled - quantity) * price < least)
    filled = quantity if waits else filled
    traded = abs(filled - quantity) * price
    cost = traded * rate
    # A reversal is two orders: one closes, one opens.
    bought = abs(filled) * price
    roots = owned * math.sqrt(owned) + bought * math.sqrt(bought)
    roots = roots if quantity * filled < 0.0 else traded * math.sqrt(traded)
    cost = cost + impact * roots if impact > 0.0 else cost
    left = 0.0 if (ordered >= room) & (filled != quantity) else room - abs(filled - quantity)
    return equity - cost, filled, goal, cost, left


@kernel(inline=True)
def leave(
    equity,
    quantity,
    goal,
    held,
    stopped,
    taken,
    gapped,
    exit_price,
    price,
    high,
    low,
    rate,
    maker,
    impact,
    room,
    lot,
    tick,
    least,
):
    """Follow the shadow out of the market at a stop or a target, as far as the bar has room.

    A target pays ``maker`` per unit of notional where that is not negative, and no spread or impact. With a
    ``tick``, prices inside the bar are rounded against the account, but never beyond the bar's range.

    Returns
    -------
    tuple
        equity, quantity, goal, cost, exit_price.
    """
    out = stopped | taken
    # Where an order waits, the account may still be on the other side of its shadow: a target that a gap has
    # passed would then be better than the market.
    waiting = (least > 0.0) | (room < math.inf)
    passed = waiting & (not stopped) & (held * quantity < 0.0) & ((price - exit_price) * held > 0.0)
    exit_price = price if passed else exit_price
    gapped = gapped | passed
    exit_price = (
        against(exit_price, quantity, high, low, tick) if (tick > 0.0) & out & (not gapped) else exit_price
    )
    capped = abs(quantity) > room
    capped = capped & (room < math.inf)
    rest = abs(quantity) - room
    unit = lot if lot > 0.0 else 1.0
    rest = np.rint(rest / unit) * unit if lot > 0.0 else rest
    rest = rest if quantity > 0.0 else -rest
    rest = rest if capped else 0.0
    waits = (least > 0.0) & (rest != 0.0) & (abs(quantity - rest) * exit_price < least)
    rest = quantity if waits else rest
    sold = quantity - rest
    notional = abs(sold) * exit_price
    cost = notional * rate
    cost = cost + impact * notional * math.sqrt(notional) if impact > 0.0 else cost
    cost = notional * maker if (maker >= 0.0) & (not stopped) else cost
    cost = cost if out else 0.0
    equity = equity + sold * (exit_price - price) - cost
    quantity = rest if out else quantity
    goal = 0.0 if out else goal
    return equity, quantity, goal, cost, exit_price


@kernel(inline=True)
def against(price, quantity, high, low, tick):
    """Return the price at which a quantity is given up, rounded to the tick against its owner."""
    # Rounding does not leave the bar; a target that was gapped through lies outside it already.
    down = np.floor(price / tick + SAME_STEP) * tick
    down = down if (down > low) | (price < low) else low
    up = -np.floor(-price / tick + SAME_STEP) * tick
    up = up if (up < high) | (price > high) else high
    return down if quantity > 0.0 else up


@kernel(inline=True)
def mark_at_close(equity, quantity, price, close, closing_rate, closing_impact, funding, ruin):
    """Mark the account at the close, and take funding and the cost of closing from it.

    ``closing_rate`` and ``closing_impact`` are zero except on the last bar. What falls below ``ruin`` leaves
    ``ruin`` and no quantity; such an account never trades again.

    Returns
    -------
    tuple
        equity, quantity, cost.
    """
    notional = abs(quantity) * close
    cost = notional * closing_rate if closing_rate > 0.0 else 0.0
    deep = closing_impact * notional * math.sqrt(notional)
    cost = cost + deep if closing_impact > 0.0 else cost
    equity = equity + quantity * (close - price) - cost - funding
    ruined = equity < ruin
    equity = ruin if ruined else equity
    quantity = 0.0 if ruined else quantity
    return equity, quantity, cost


@kernel(inline=True)
def funding_due(opened, quantity, price, close, inside, at_close):
    """Return what a position pays for the settlements of a bar; longs pay a positive rate.

    ``opened`` is the quantity after the fill at the open. A settlement strictly inside the bar finds that
    quantity; where it was reduced inside the bar, a credit is not given, as it may have been missed.
    """
    due = opened * price * inside
    missed = (due < 0.0) & (abs(quantity) < abs(opened))
    return (0.0 if missed else due) + quantity * close * at_close


@kernel(inline=True)
def posted_margin(posted, before, after, price, leverage):
    """Return the isolated margin of a position minus its cost, after a fill at ``price``.

    With m the margin and e the mean entry price this is ``m - quantity * e``: adding ``quantity * mark``
    gives the margin that is left at a mark price. A new position posts ``notional / leverage``.
    """
    fresh = abs(after) * price / leverage - after * price
    grown = posted + (abs(after) - abs(before)) * price / leverage - (after - before) * price
    kept = posted * (after / (before if before != 0.0 else 1.0))
    kept = kept if abs(after) < abs(before) else posted
    kept = grown if abs(after) > abs(before) else kept
    return kept if before * after > 0.0 else fresh


@kernel(inline=True)
def liquidation_level(quantity, posted, tiers):
    """Return the mark price at which margin no longer covers maintenance; a tuple of 8 rates and 8 amounts.

    Maintenance at notional N is ``max(N * rate - amount)`` over the tiers (rates rise), so the level is
    the nearest of those of the tiers.
    """
    r0, r1, r2, r3, r4, r5, r6, r7, a0, a1, a2, a3, a4, a5, a6, a7 = tiers
    level = _tier_level(quantity, posted, r0, a0)
    level = _nearer(level, _tier_level(quantity, posted, r1, a1), quantity)
    level = _nearer(level, _tier_level(quantity, posted, r2, a2), quantity)
    level = _nearer(level, _tier_level(quantity, posted, r3, a3), quantity)
    level = _nearer(level, _tier_level(quantity, posted, r4, a4), quantity)
    level = _nearer(level, _tier_level(quantity, posted, r5, a5), quantity)
    level = _nearer(level, _tier_level(quantity, posted, r6, a6), quantity)
    return _nearer(level, _tier_level(quantity, posted, r7, a7), quantity)


@kernel(inline=True)
def _tier_level(quantity, posted, rate, amount):
    long = (-posted - amount) / (quantity * (1.0 - rate))
    short = (posted + amount) / (-quantity * (1.0 + rate))
    return long if quantity > 0.0 else short


@kernel(inline=True)
def _nearer(one, other, quantity):
    higher = one if one > other else other
    lower = one if one < other else other
    return higher if quantity > 0.0 else lower


@kernel(inline=True)
def liquidate(
    equity,
    quantity,
    goal,
    posted,
    price,
    high,
    low,
    mark_high,
    mark_low,
    rate,
    impact,
    tick,
    tiers,
):
    """Close the position by force where the mark price reached its liquidation level.

    The fill is the level, no worse than the bar's own extreme, or the open where that lies beyond the
    level. The exchange keeps what is left of the margin; a loss beyond the margin is the account's.

    Returns
    -------
    tuple
        equity, quantity, goal, cost, exit_price, liquidated.
    """
    long = quantity > 0.0
    side = 1.0 if long else -1.0
    level = liquidation_level(quantity if quantity != 0.0 else 1.0, posted, tiers)
    adverse = low if long else high
    mark = mark_low if long else mark_high
    liquidated = (quantity != 0.0) & ((mark - level) * side <= 0.0)
    gapped = (price - level) * side < 0.0
    exit_price = adverse if (level - adverse) * side < 0.0 else level
    # A mark beyond the market: the level may lie above the open of a long, and nothing sells there.
    exit_price = against(exit_price, quantity, high, low, tick) if tick > 0.0 else exit_price
    exit_price = price if gapped else exit_price
    exit_price = exit_price if liquidated else price
    notional = abs(quantity) * exit_price
    cost = notional * rate
    cost = cost + impact * notional * math.sqrt(notional) if impact > 0.0 else cost
    left = posted + quantity * exit_price
    cost = left if left > cost else cost
    cost = cost if liquidated else 0.0
    equity = equity + quantity * (exit_price - price) - cost
    quantity = 0.0 if liquidated else quantity
    goal = 0.0 if liquidated else goal
    return equity, quantity, goal, cost, exit_price, liquidated


@kernel(inline=True)
def halted_at_close(halt, equity, peak, day_equity, daily_loss, drawdown, ruin):
    """Return 2 where the account is halted for good, 1 until the next UTC day, else what ``halt`` was.

    0 is an account that may trade, and ``REARMED`` one that was halted until this bar. A comparison with NaN
    is false, so that NaN halts.
    """
    today = equity > day_equity * (1.0 - daily_loss)
    ever = (equity > peak * (1.0 - drawdown)) & (equity > ruin)
    halt = halt if today | (halt > 1.0) else 1.0
    return halt if ever else 2.0


@kernel(inline=True)
def rearmed(halt, new_day):
    """Return the halt after an open: a day's halt ends with the first bar of the next."""
    ended = REARMED if new_day & (halt == 1.0) else halt
    return 0.0 if halt < 1.0 else ended


@kernel(inline=True)
def decided(answer, held, stop, take, largest, smallest, account_stop, account_take):
    """Bound what was decided; an unchanged exposure keeps its stop and target levels.

    Returns
    -------
    tuple
        stop, take, exposure, and the two distances as decided.
    """
    exposure, stop_distance, take_distance, _ = answer
    known = exposure == exposure
    exposure = exposure if exposure < largest else largest
    exposure = exposure if exposure > smallest else smallest
    exposure = exposure if known else 0.0  # NaN is flat
    stop_distance = stop_distance if stop_distance < account_stop else account_stop
    take_distance = take_distance if take_distance < account_take else account_take
    changed = exposure != held
    stop = stop_distance if changed else stop
    take = take_distance if changed else take
    return stop, take, exposure, stop_distance, take_distance

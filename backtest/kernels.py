"""The account step, and the loops around it: one account over given targets, a population over its genes.

The phases of a bar exist once, as scalar building blocks: :func:`fill_at_open`, :func:`exit_inside`,
:func:`mark_at_close`. The simulator, the shadow position of a specialist and the population kernel inline
the same code, so they cannot disagree.

An account is ``equity`` at the last close and a ``quantity``; cash is the rest. Fills happen at reference
prices (the open, a stop, a target); spread, impact and fees are booked as costs beside them, ``rate`` per
unit of notional.

The blocks use selects instead of branches (no ``min``, ``max``, ``and``, ``or``), and the loops pass
tuples: that is what lets LLVM turn the loop over genomes into vector code without fast-math.
"""

import math

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from compute.kernels import R1, R2, RB1, RI1, W1, W2, kernel

# Genomes per block. All state of a block lies in one flat array at ``slot * LANES + lane`` with LANES a
# compile-time constant: separate arrays fail LLVM's alias checks, strided slots fail to vectorise.
LANES = 64

# Slots of an account; in a block a family's own memory follows.
EQUITY, QUANTITY, HELD, AGE, STOP, TAKE, PENDING = range(7)
PEAK, WORST, WORST_PEAK, SUM, SUM_SQUARED, SUM_DOWNSIDE, TRADES, MEMORY = range(7, 15)
FRESH_ACCOUNT = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)

# An account that loses everything keeps this share of its start, so that returns stay defined.
RUIN = 1e-6

# Columns of the population kernel's answer, per genome and fold.
STATISTICS = ("sum", "sum_squared", "sum_downside", "trades", "growth", "drawdown")
N_STATISTICS = 6

# Columns of the simulator's curve and trades.
CURVE = ("equity", "net_return", "exposure", "turnover", "fees", "slippage")
TRADE = ("entry", "exit", "side", "entry_price", "exit_price", "quantity", "pnl", "costs", "reason")
SIGNAL, STOPPED, TAKEN, LAST_BAR, RUINED = range(5)


@intrinsic
def lift(typingctx, array, start, stride, like):
    """Return ``array[start + i * stride]`` for i = 0, 1, ... as a tuple of the same length as ``like``.

    A tuple lives in registers, so a function of tuples is inlined and vectorised like handwritten code.
    """
    if not isinstance(like, types.BaseTuple):
        return None
    signature = types.UniTuple(types.float64, like.count)(array, start, stride, like)

    def codegen(context, builder, signature, arguments):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        position, values = arguments[1], []
        for _ in range(signature.return_type.count):
            values.append(builder.load(builder.gep(data, [position])))
            position = builder.add(position, arguments[2])
        return context.make_tuple(builder, signature.return_type, values)

    return signature, codegen


@intrinsic
def lower(typingctx, array, start, stride, values):
    """Write a tuple to ``array[start + i * stride]``; the inverse of :func:`lift`."""
    if not isinstance(values, types.BaseTuple):
        return None
    signature = types.void(array, start, stride, values)

    def codegen(context, builder, signature, arguments):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        position = arguments[1]
        for i in range(signature.args[3].count):
            builder.store(builder.extract_value(arguments[3], i), builder.gep(data, [position]))
            position = builder.add(position, arguments[2])
        return context.get_dummy_value()

    return signature, codegen


@kernel(inline=True)
def fill_at_open(equity, quantity, held, age, stop, take, pending, gap, price, per_unit, rate):
    """Execute at the open what was decided at the last close.

    A target that has not changed trades nothing: the quantity stays and its weight drifts with the price.
    ``gap`` is open minus previous close; ``per_unit`` is ``1 / (open * (1 + rate))``, so that the costs are
    paid out of the position and full exposure borrows nothing. ``stop`` and ``take`` come in as distances
    (fractions of the open) when the target has changed and as price levels otherwise; they go out as
    levels.

    Returns
    -------
    tuple
        equity, quantity, held, age, stop, take, cost, changed.
    """
    changed = pending != held
    equity = equity + quantity * gap
    # A reversal pays for closing the old side before it sizes the new one.
    closing = abs(quantity) * price * rate
    closing = closing if pending * quantity < 0.0 else 0.0
    worth = equity - closing
    worth = worth if worth > 0.0 else 0.0  # a gap may have taken everything before the open
    wanted = pending * worth * per_unit
    wanted = wanted if changed else quantity
    cost = abs(wanted - quantity) * price * rate
    side = 1.0 if pending > 0.0 else -1.0
    stop = price - side * price * stop if changed else stop
    take = price + side * price * take if changed else take
    age = 0.0 if changed else age
    return equity - cost, wanted, pending, age, stop, take, cost, changed


@kernel(inline=True)
def exit_inside(equity, quantity, held, stop, take, price, high, low, rate):
    """Check stop and target against the bar's range; the stop comes first when both lie inside.

    A gap through the stop fills at the open, a gap through the target at the target and no better.

    Returns
    -------
    tuple
        equity, quantity, held, cost, exit_price, stopped, taken.
    """
    long = quantity > 0.0
    adverse = low if long else high
    favourable = high if long else low
    side = 1.0 if long else -1.0
    inside = quantity != 0.0
    stopped = inside & ((adverse - stop) * side <= 0.0)
    taken = inside & ((favourable - take) * side >= 0.0)
    out = stopped | taken
    gapped = (price - stop) * side < 0.0
    exit_price = price if gapped else stop
    exit_price = exit_price if stopped else take
    exit_price = exit_price if out else price
    cost = abs(quantity) * exit_price * rate
    cost = cost if out else 0.0
    equity = equity + quantity * (exit_price - price) - cost
    quantity = 0.0 if out else quantity
    held = 0.0 if out else held
    return equity, quantity, held, cost, exit_price, stopped, taken


@kernel(inline=True)
def mark_at_close(equity, quantity, price, close, closing_rate):
    """Mark the account at the close.

    ``closing_rate`` is the cost of closing there: zero except on the last bar. A loss of everything
    leaves ``RUIN`` and no quantity; such an account never trades again.

    Returns
    -------
    tuple
        equity, quantity, cost.
    """
    cost = abs(quantity) * close * closing_rate
    equity = equity + quantity * (close - price) - cost
    ruined = equity < RUIN
    equity = RUIN if ruined else equity
    quantity = 0.0 if ruined else quantity
    return equity, quantity, cost


@kernel(inline=True)
def step(account, price, high, low, close, gap, per_unit, rate, closing_rate):
    """Return an account one bar later: open, inside, close, and the sums its fitness is made of."""
    before, quantity, held, age, stop, take, pending = account[:7]
    peak, worst, worst_peak, total, squares, downside, trades = account[7:]
    equity, quantity, held, age, stop, take, _, changed = fill_at_open(
        before, quantity, held, age, stop, take, pending, gap, price, per_unit, rate
    )
    opened = changed & (held != 0.0)
    equity, quantity, held, _, _, _, _ = exit_inside(
        equity, quantity, held, stop, take, price, high, low, rate
    )
    equity, quantity, _ = mark_at_close(equity, quantity, price, close, closing_rate)
    result = (equity - before) / before
    squared = result * result
    peak = equity if equity > peak else peak
    # The deepest drawdown is kept as a pair (equity, peak): comparing products avoids a division.
    deeper = equity * worst_peak < worst * peak
    worst = equity if deeper else worst
    worst_peak = peak if deeper else worst_peak
    total = total + result
    squares = squares + squared
    downside = downside + (squared if result < 0.0 else 0.0)
    trades = trades + (1.0 if opened else 0.0)
    age = age + 1.0 if held != 0.0 else 0.0
    position = (equity, quantity, held, age, stop, take, pending)
    return (*position, peak, worst, worst_peak, total, squares, downside, trades)


@kernel(inline=True)
def decided(answer, held, stop, take, cap, account_stop, account_take):
    """Bound what a specialist decided; an unchanged exposure keeps its stop and target levels.

    Returns
    -------
    tuple
        stop, take, exposure, and the two distances as decided.
    """
    exposure, stop_distance, take_distance, _ = answer
    exposure = exposure if exposure == exposure else 0.0  # NaN, which passes every bound, is flat
    exposure = exposure if exposure < cap else cap
    exposure = exposure if exposure > -cap else -cap
    stop_distance = stop_distance if stop_distance < account_stop else account_stop
    take_distance = take_distance if take_distance < account_take else account_take
    changed = exposure != held
    stop = stop_distance if changed else stop
    take = take_distance if changed else take
    return stop, take, exposure, stop_distance, take_distance


#: Signature of a family's ``evaluate``: genes, rows, prices, rates, awake, ends, bounds, out.
POPULATION = numba.void(R2, R2, R2, R1, RB1, RI1, R1, W2)


@kernel(inline=True)
def population(decide, like_genes, like_row, fresh, genes, rows, prices, rates, awake, ends, bounds, out):
    """Trade a whole population over the same bars and gather each genome's statistics per fold.

    Bars are the outer loop and genomes the inner one. While a specialist sleeps (``awake`` is 0) it holds
    nothing and remembers nothing, so that those bars cost next to nothing.

    Parameters
    ----------
    decide : compiled function
        ``decide(genes, row, held, age, memory) -> (exposure, stop, take, memory)``, tuples and scalars of
        float64: exposure wanted from the next open, distances of stop and target from that open as
        fractions of it. ``held`` is the exposure still held at this close, ``age`` the bars it is held.
    like_genes, like_row, fresh : tuple of float64
        As long as a genome, a row and the memory; ``fresh`` is the memory on waking.
    genes : float64 (p, d)
        What ``decide`` reads, one row per genome.
    rows : float64 (n, k)
        What was known at each close; read only where ``awake``.
    prices : float64 (n, 4)
        open, high, low, close.
    rates : float64 (n,)
        Cost of trading at the bar, per unit of notional.
    awake : int8 (n,)
        1 where the specialist may want a position at this close.
    ends : int64 (f,)
        One past the last bar of each fold, increasing; the last one is n.
    bounds : float64 (3,)
        Largest exposure; stop and target distances of the account (infinite: none).
    out : float64 (p, f * 6)
        ``STATISTICS`` of each fold, written in place: sums of the net bar returns, of their squares, of
        the squares of the negative ones; trades opened; equity at the end over equity at the start;
        deepest drawdown since the first bar (fraction, at most 0).
    """
    n = rows.shape[0]
    k = rows.shape[1]
    d = genes.shape[1]
    p = genes.shape[0]
    # Memory is read at fixed places from here on, so a wrong width would read past the arrays.
    if d != len(like_genes) or k != len(like_row):
        raise ValueError("genes or rows are not as wide as the family's decide reads them")
    if prices.shape[0] != n or rates.size != n or awake.size != n or ends[-1] != n:
        raise ValueError("prices, rates, awake and the last fold must have as many rows as the rows")
    if out.shape[0] != p or out.shape[1] != ends.size * N_STATISTICS:
        raise ValueError("out must have one row per genome and six columns per fold")
    cap, account_stop, account_take = bounds[0], bounds[1], bounds[2]
    state = np.empty((MEMORY + len(fresh)) * LANES)
    block = np.empty(d * LANES)
    started = np.empty(LANES)
    for first in range(0, p, LANES):
        for lane in range(LANES):
            genome = min(first + lane, p - 1)  # the last block is filled up with the last genome
            for i in range(d):
                block[i * LANES + lane] = genes[genome, i]
            lower(state, lane, LANES, FRESH_ACCOUNT)
            lower(state, MEMORY * LANES + lane, LANES, fresh)
            started[lane] = 1.0
        busy = 0
        fold = 0
        for t in range(n):
            if awake[t] != 0:
                busy = 3  # what is decided here fills at t + 1; the exit after falling asleep at t + 2
            if busy > 0:
                busy -= 1
                price, high, low, close = prices[t, 0], prices[t, 1], prices[t, 2], prices[t, 3]
                gap = price - prices[t - 1, 3] if t > 0 else 0.0
                rate = rates[t]
                per_unit = 1.0 / (price * (1.0 + rate))
                closing_rate = rate if t == n - 1 else 0.0
                if awake[t] != 0:
                    row = lift(rows, t * k, 1, like_row)
                    for lane in range(LANES):
                        account = lift(state, lane, LANES, FRESH_ACCOUNT)
                        memory = lift(state, MEMORY * LANES + lane, LANES, fresh)
                        account = step(account, price, high, low, close, gap, per_unit, rate, closing_rate)
                        held, stop, take = account[HELD], account[STOP], account[TAKE]
                        answer = decide(lift(block, lane, LANES, like_genes), row, held, account[AGE], memory)
                        stop, take, exposure, _, _ = decided(
                            answer, held, stop, take, cap, account_stop, account_take
                        )
                        exposure = exposure if account[EQUITY] > RUIN else 0.0
                        lower(state, lane, LANES, account)
                        lower(state, STOP * LANES + lane, LANES, (stop, take, exposure))
                        lower(state, MEMORY * LANES + lane, LANES, answer[3])
                else:
                    for lane in range(LANES):
                        account = lift(state, lane, LANES, FRESH_ACCOUNT)
                        account = step(account, price, high, low, close, gap, per_unit, rate, closing_rate)
                        lower(state, lane, LANES, account)
                        lower(state, PENDING * LANES + lane, LANES, (0.0,))
                        lower(state, MEMORY * LANES + lane, LANES, fresh)
            if t + 1 == ends[fold]:
                for lane in range(min(LANES, p - first)):
                    base = fold * N_STATISTICS
                    account = lift(state, lane, LANES, FRESH_ACCOUNT)
                    out[first + lane, base] = account[SUM]
                    out[first + lane, base + 1] = account[SUM_SQUARED]
                    out[first + lane, base + 2] = account[SUM_DOWNSIDE]
                    out[first + lane, base + 3] = account[TRADES]
                    out[first + lane, base + 4] = account[EQUITY] / started[lane]
                    out[first + lane, base + 5] = account[WORST] / account[WORST_PEAK] - 1.0
                    started[lane] = account[EQUITY]
                    lower(state, SUM * LANES + lane, LANES, (0.0, 0.0, 0.0, 0.0))
                fold += 1


#: Signature of a family's ``follow``: genes, rows, prices, awake, bounds, state, out.
STREAM = numba.void(R1, R2, R2, RB1, R1, W1, W2)

# Slots of a specialist's shadow position between chunks; its memory follows.
SHADOW = (0.0, 0.0, 0.0, 0.0, 0.0)  # held, age, stop, take, pending


@kernel(inline=True)
def stream(decide, like_genes, like_row, fresh, genes, rows, prices, awake, bounds, state, out):
    """Follow one genome bar by bar: the streaming twin of :func:`population`, decision for decision.

    Parameters
    ----------
    decide, like_genes, like_row, fresh
        See :func:`population`.
    genes : float64 (d,)
        The genome.
    rows, prices, awake, bounds
        See :func:`population`.
    state : float64 (5 + m,)
        Memory between chunks: the shadow position, then the family's memory. Updated in place.
    out : float64 (n, 3)
        Per bar: exposure wanted from the next open, stop distance, target distance.
    """
    n = rows.shape[0]
    k = rows.shape[1]
    if genes.size != len(like_genes) or k != len(like_row) or state.size != len(SHADOW) + len(fresh):
        raise ValueError("genes, rows or state are not as wide as the family's decide reads them")
    if prices.shape[0] != n or awake.size != n or out.shape[0] != n:
        raise ValueError("prices, awake and out must have as many rows as the rows")
    held, age, stop, take, pending = lift(state, 0, 1, SHADOW)
    memory = lift(state, len(SHADOW), 1, fresh)
    for t in range(n):
        price = prices[t, 0]
        _, quantity, held, age, stop, take, _, _ = fill_at_open(
            1.0, held, held, age, stop, take, pending, 0.0, price, 1.0, 0.0
        )
        _, _, held, _, _, _, _ = exit_inside(
            1.0, quantity, held, stop, take, price, prices[t, 1], prices[t, 2], 0.0
        )
        age = age + 1.0 if held != 0.0 else 0.0
        if awake[t] != 0:
            answer = decide(lift(genes, 0, 1, like_genes), lift(rows, t * k, 1, like_row), held, age, memory)
            stop, take, pending, stop_distance, take_distance = decided(
                answer, held, stop, take, bounds[0], bounds[1], bounds[2]
            )
            memory = answer[3]
        else:
            pending, stop_distance, take_distance, memory = 0.0, math.inf, math.inf, fresh
        out[t, 0] = pending
        out[t, 1] = stop_distance
        out[t, 2] = take_distance
    lower(state, 0, 1, (held, age, stop, take, pending))
    lower(state, len(SHADOW), 1, memory)


@kernel(inline=True)
def _write_trade(trades, i, entry, leave, quantity, entry_price, exit_price, traded, pnl, costs, reason):
    trades[i, 0] = entry
    trades[i, 1] = leave
    trades[i, 2] = 1.0 if quantity > 0.0 else -1.0
    trades[i, 3] = entry_price
    trades[i, 4] = exit_price
    trades[i, 5] = traded
    trades[i, 6] = pnl
    trades[i, 7] = costs
    trades[i, 8] = reason


@kernel(numba.int64(R2, R2, R1, R1, RB1, R1, numba.boolean, W2, W2))
def simulate_targets(targets, prices, fees, slippage, new_day, bounds, close_last, curve, trades):
    """Trade one account over given targets and record everything.

    Parameters
    ----------
    targets : float64 (n, 3)
        Decided at each close: exposure, stop distance, target distance. A NaN exposure means flat.
    prices : float64 (n, 4)
        open, high, low, close.
    fees, slippage : float64 (n,)
        Costs at the bar, per unit of notional.
    new_day : int8 (n,)
        1 on the first bar of a UTC day.
    bounds : float64 (5,)
        Largest exposure, stop distance, target distance, daily loss, drawdown (infinite: off). The last
        two act on the next decision; the drawdown halts for good, the daily loss until the next day.
    close_last : bool
        Whether a position still open is closed at the last close, with costs.
    curve : float64 (n, 6)
        ``CURVE``, written in place: equity at the close, net return of the bar, exposure that is left after
        the close (signed, fraction of equity), notional traded over equity, fees and slippage paid.
    trades : float64 (2 n + 1, 9)
        ``TRADE``, written in place; entry and exit are rows of the bars. A bar ends two trades at most.

    Returns
    -------
    int
        Number of trades written.
    """
    n = targets.shape[0]
    count = 0
    equity, quantity, held, age, stop, take, pending = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    peak, day_equity, halted, halted_today = 1.0, 1.0, False, False
    entry, entry_price, traded, basis, paid = 0, 0.0, 0.0, 0.0, 0.0
    for t in range(n):
        price, high, low, close = prices[t, 0], prices[t, 1], prices[t, 2], prices[t, 3]
        rate = fees[t] + slippage[t]
        gap = price - prices[t - 1, 3] if t > 0 else 0.0
        before, was = equity, quantity
        if new_day[t] != 0:
            day_equity, halted_today = before, False
        # Open: what was decided at the last close.
        equity, quantity, held, age, stop, take, cost, changed = fill_at_open(
            equity, quantity, held, age, stop, take, pending, gap, price, 1.0 / (price * (1.0 + rate)), rate
        )
        notional = abs(quantity - was) * price
        if changed:
            closing = was != 0.0 and was * quantity <= 0.0
            leaving = abs(was) * price * rate if closing else 0.0
            if closing:
                pnl = equity + cost - leaving - basis
                _write_trade(
                    trades, count, entry, t, was, entry_price, price, traded, pnl, paid + leaving, SIGNAL
                )
                count += 1
            if quantity != 0.0 and (closing or was == 0.0):
                entry, entry_price, traded, paid = t, price, abs(quantity), cost - leaving
                basis = equity + cost - leaving
            else:
                paid += cost - leaving
                traded = max(traded, abs(quantity))
        # Inside the bar: stop first, then target.
        was = quantity
        equity, quantity, held, exit_cost, exit_price, stopped, _ = exit_inside(
            equity, quantity, held, stop, take, price, high, low, rate
        )
        if was != 0.0 and quantity == 0.0:
            reason = STOPPED if stopped else TAKEN
            pnl = equity - basis
            _write_trade(
                trades, count, entry, t, was, entry_price, exit_price, traded, pnl, paid + exit_cost, reason
            )
            count += 1
            notional += abs(was) * exit_price
        # Close: mark, and on the last bar perhaps close.
        was = quantity
        ends = close_last and t == n - 1
        equity, quantity, end_cost = mark_at_close(equity, quantity, price, close, rate if ends else 0.0)
        if was != 0.0 and (ends or quantity == 0.0):
            reason = LAST_BAR if ends else RUINED
            pnl = equity - basis
            _write_trade(
                trades, count, entry, t, was, entry_price, close, traded, pnl, paid + end_cost, reason
            )
            count += 1
            notional += abs(was) * close
            quantity = 0.0 if ends else quantity
            held = 0.0 if ends else held
        cost += exit_cost + end_cost
        curve[t, 0] = equity
        curve[t, 1] = (equity - before) / before
        curve[t, 2] = quantity * close / equity
        curve[t, 3] = notional / before
        curve[t, 4] = cost * fees[t] / rate if rate > 0.0 else 0.0
        curve[t, 5] = cost * slippage[t] / rate if rate > 0.0 else 0.0
        # Decision: limits act on what waits for the next open; a comparison with NaN is false, so it halts.
        peak = equity if equity > peak else peak
        halted = halted or equity <= RUIN or not equity > peak * (1.0 - bounds[4])
        halted_today = halted_today or not equity > day_equity * (1.0 - bounds[3])
        answer = (targets[t, 0], targets[t, 1], targets[t, 2], 0.0)
        if halted or halted_today:
            answer = (0.0, math.inf, math.inf, 0.0)
        stop, take, pending, _, _ = decided(answer, held, stop, take, bounds[0], bounds[1], bounds[2])
    return count

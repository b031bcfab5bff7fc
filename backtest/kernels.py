"""The loops around one bar of an account: a population over its genes, a stream, one account over targets.

The phases of a bar exist once, in :mod:`backtest.account`; the simulator, the shadow position of a
specialist and the population kernel inline the same code, so they cannot disagree.

The loops pass tuples and select instead of branching: that is what lets LLVM turn the loop over genomes into
vector code without fast-math. What an account may have beyond prices and a cost rate (funding, margin,
grids, ...) is an option of the population kernel: ``None`` is known when it is compiled, and costs nothing.
"""

import math

import numba
import numpy as np

from backtest.account import (
    REARMED,
    decided,
    funding_due,
    halted_at_close,
    leave,
    liquidate,
    mark_at_close,
    posted_margin,
    rearmed,
    renew,
    resize,
    touched,
    trailed,
)
from backtest.lanes import lift, lower
from compute.kernels import R1, R2, RB1, RI1, W1, W2, kernel

# Genomes per block. All state of a block lies in one flat array at ``slot * LANES + lane`` with LANES a
# compile-time constant: separate arrays fail LLVM's alias checks, strided slots fail to vectorise.
LANES = 64

# Slots of an account; in a block a family's own memory follows, and then what options remember.
EQUITY, QUANTITY, HELD, AGE, STOP, TAKE, PENDING = range(7)
PEAK, WORST, WORST_PEAK, SUM, SUM_SQUARED, SUM_DOWNSIDE, TRADES, MEMORY = range(7, 15)
FRESH_ACCOUNT = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
GOAL, POSTED, DAY_EQUITY, HALT = range(4)
N_EXTRA = 4

# An account that loses everything keeps this share of its start, so that returns stay defined.
RUIN = 1e-6

# Columns of the population kernel's answer, per genome and fold.
STATISTICS = ("sum", "sum_squared", "sum_downside", "trades", "growth", "drawdown")
N_STATISTICS = 6

# Columns of what is charged and allowed at a bar; ``backtest.terms`` explains and makes them.
FEE, RATE, MAKER, IMPACT, ROOM, FUNDING_INSIDE, FUNDING_CLOSE, MARK_HIGH, MARK_LOW, NEW_DAY = range(10)
N_TERMS = 10
# Fields of the venue, and how many maintenance tiers it has.
CAPITAL, LEVERAGE, LOT, TICK, LEAST, LARGEST = range(6)
N_TIERS = 8
_LIKE_TIERS = (0.0,) * (2 * N_TIERS)

# Columns of the simulator's curve and trades.
CURVE = ("equity", "net_return", "exposure", "turnover", "fees", "slippage", "funding", "quantity")
TRADE = (
    "entry", "exit", "side", "entry_price", "exit_price", "quantity", "pnl", "fees", "slippage", "funding",
    "mae", "mfe", "reason",
)  # fmt: skip
SIGNAL, STOPPED, TAKEN, LAST_BAR, RUINED, LIQUIDATED, HALTED = range(7)


@kernel(inline=True)
def _aligned(size):
    """Return an empty array that begins on a cache line: a vector that lies on two costs twice."""
    array = np.empty(size + 7)
    return array[-(array.ctypes.data >> 3) & 7 :][:size]


@kernel(inline=True)
def step(account, extra, bar, charges, grid, limits, new_day, tiers, trailing, margined, funded, limited):
    """Return an account one bar later: open, inside, close, and the sums its fitness is made of.

    ``extra`` is (goal, posted margin, day's first equity, halt); ``bar`` (open, high, low, close, gap,
    per_unit, rate); ``charges`` (closing rate, maker, impact, closing impact, room, funding inside, funding
    at the close, mark high, mark low, leverage); ``grid`` (lot, tick, least, largest); ``limits`` (trail,
    daily loss, drawdown, ruin). The last four are constants: what they leave out is not compiled.
    """
    before, quantity, held, age, stop, take, pending = account[:7]
    peak, worst, worst_peak, total, squares, downside, trades = account[7:]
    goal, posted, day_equity, halt = extra
    price, high, low, close, gap, per_unit, rate = bar
    closing_rate, maker, impact, closing_impact, room, inside, at_close, mark_high, mark_low, leverage = (
        charges
    )
    lot, tick, least, largest = grid
    trail, daily_loss, drawdown, ruin = limits
    was = quantity
    held, age, stop, take, changed = renew(held, age, stop, take, pending, price)
    # The margin of an account that was liquidated is infinite until its target changes.
    called = (leverage > 0.0) & (posted == math.inf) & (not changed)
    resumed = (halt == REARMED) & (not called)
    equity, quantity, goal, _, left = resize(
        before + quantity * gap,
        quantity, goal, pending, changed | resumed, halt >= 1.0, price, per_unit, rate, impact,
        room, lot, least, largest,
    )  # fmt: skip
    opened = (quantity != 0.0) & (was * quantity <= 0.0)
    day_equity = before if new_day else day_equity
    halt = rearmed(halt, new_day)
    filled = quantity
    room = left if limited else math.inf  # infinity less a quantity is no constant to the compiler
    if margined:
        posted = math.inf if called else posted_margin(posted, was, quantity, price, leverage)
        equity, quantity, goal, _, _, liquidated = liquidate(
            equity, quantity, goal, posted, price, high, low, mark_high, mark_low, rate, impact, tick, tiers
        )
        posted = math.inf if liquidated else posted
    stopped, taken, gapped, exit_price = touched(held, stop, take, price, high, low)
    at_exit = quantity
    equity, quantity, goal, _, _ = leave(
        equity, quantity, goal, held, stopped, taken, gapped, exit_price, price, high, low, rate, maker,
        impact, room, lot, tick, least,
    )  # fmt: skip
    held = 0.0 if stopped | taken else held
    if margined:
        part = posted * (quantity / (at_exit if at_exit != 0.0 else 1.0))
        posted = part if at_exit != 0.0 else posted
    if trailing:
        stop = trailed(held, stop, high, low, trail)
    funding = 0.0
    if funded:
        funding = funding_due(filled, quantity, price, close, inside, at_close)
    equity, quantity, _ = mark_at_close(
        equity, quantity, price, close, closing_rate, closing_impact, funding, ruin
    )
    result = (equity - before) / before
    squared = result * result
    peak = equity if equity > peak else peak
    # The deepest drawdown is kept as a pair (equity, peak): comparing products avoids a division.
    deeper = equity * worst_peak < worst * peak
    worst = equity if deeper else worst
    worst_peak = peak if deeper else worst_peak
    total = total + result
    squares = squares + squared
    downside = downside + squared if result < 0.0 else downside
    trades = trades + 1.0 if opened else trades
    age = age + 1.0 if held != 0.0 else 0.0
    halt = halted_at_close(halt, equity, peak, day_equity, daily_loss, drawdown, ruin)
    position = (equity, quantity, held, age, stop, take, pending)
    sums = (peak, worst, worst_peak, total, squares, downside, trades)
    return (*position, *sums), (goal, posted, day_equity, halt)


@kernel(inline=True)
def _recalled(state, at, quantity, room, margin, breakers):
    """Return goal, posted margin, the day's first equity and halt; what is off is a constant."""
    goal, posted, day_equity, halt = quantity, 0.0, 0.0, 0.0
    if room is not None:
        goal = state[at + GOAL * LANES]
    if margin is not None:
        posted = state[at + POSTED * LANES]
    if breakers is not None:
        day_equity, halt = state[at + DAY_EQUITY * LANES], state[at + HALT * LANES]
    return goal, posted, day_equity, halt


@kernel(inline=True)
def _remember(state, at, extra, room, margin, breakers):
    """Write what :func:`_recalled` reads."""
    if room is not None:
        state[at + GOAL * LANES] = extra[GOAL]
    if margin is not None:
        state[at + POSTED * LANES] = extra[POSTED]
    if breakers is not None:
        state[at + DAY_EQUITY * LANES] = extra[DAY_EQUITY]
        state[at + HALT * LANES] = extra[HALT]


#: What the population kernel can be compiled with, in the order of its last arguments.
OPTIONS = ("trail", "maker", "impact", "funding", "margin", "grid", "room", "breakers")

#: Arrays of a family's ``evaluate``; the options follow.
POPULATION = (R2, R2, R2, R1, R2, RB1, RI1, R1, R1, R2, W2)


@kernel(inline=True)
def population(
    decide, like_genes, like_row, fresh,
    genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
    trail, maker, impact, funding, margin, grid, room, breakers,
):  # fmt: skip
    """Trade a whole population over the same bars and gather each genome's statistics per fold.

    Bars are the outer loop and genomes the inner one. While a specialist sleeps (``awake`` is 0) it holds
    nothing and remembers nothing, so that those bars cost next to nothing.

    Parameters
    ----------
    decide : compiled function
        ``decide(genes, row, held, age, memory) -> (exposure, stop, take, memory)``, tuples and scalars of
        float64: exposure wanted from the next open, distances of stop and target from that open as
        fractions of it. ``held`` is the exposure that still stands at this close, ``age`` its bars.
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
    terms : float64 (n, 10)
        See ``backtest.terms``; read by the options only, of any length without them.
    awake : int8 (n,)
        1 where the specialist may want a position at this close.
    ends : int64 (f,)
        One past the last bar of each fold, increasing; the last one is n.
    bounds : float64 (7,)
        Largest and smallest exposure; stop, target and trailing distance, daily loss, drawdown (infinite:
        off). The last three work only with their options.
    venue : float64 (6,)
        Capital, leverage, lot, tick, minimum notional, largest quantity; the capital is always read.
    tiers : float64 (2, 8)
        Maintenance rates and amounts.
    out : float64 (p, f * 6)
        ``STATISTICS`` of each fold, written in place: sums of the net bar returns, of their squares, of
        the squares of the negative ones; trades opened; equity at the end over equity at the start;
        deepest drawdown since the first bar (fraction, at most 0).
    trail, maker, impact, funding, margin, grid, room, breakers : None or bool
        ``OPTIONS``: not None switches one on. With none of them the account is a price and a cost rate.
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
    if bounds.size != 7 or venue.size != 6 or tiers.size != 2 * N_TIERS or terms.shape[1] != N_TERMS:
        raise ValueError("bounds, venue, tiers and terms must have 7, 6, 16 and 10 columns")
    charged = maker is not None or impact is not None or funding is not None or margin is not None
    charged = charged or room is not None or breakers is not None
    if charged and terms.shape[0] != n:
        raise ValueError("terms must have as many rows as the rows")
    largest, smallest = bounds[0], bounds[1]
    account_stop, account_take = bounds[2], bounds[3]
    trail_distance, daily_loss, max_drawdown = math.inf, math.inf, math.inf
    if trail is not None:
        trail_distance = bounds[4]
        account_stop = min(account_stop, trail_distance)
    if breakers is not None:
        daily_loss, max_drawdown = bounds[5], bounds[6]
    capital = venue[CAPITAL]
    ruin = RUIN * capital
    lot, tick, least, most = 0.0, 0.0, 0.0, math.inf
    if grid is not None:
        lot, tick, least, most = venue[LOT], venue[TICK], venue[LEAST], venue[LARGEST]
    leverage = 0.0
    if margin is not None:
        leverage = venue[LEVERAGE]
    maintenance = lift(tiers, 0, 1, _LIKE_TIERS)
    width = MEMORY + len(fresh)
    extras = width * LANES
    state = _aligned((width + N_EXTRA) * LANES)
    block = _aligned(d * LANES)
    started = np.empty(LANES)
    for first in range(0, p, LANES):
        for lane in range(LANES):
            genome = min(first + lane, p - 1)  # the last block is filled up with the last genome
            for i in range(d):
                block[i * LANES + lane] = genes[genome, i]
            lower(state, lane, LANES, FRESH_ACCOUNT)
            lower(state, EQUITY * LANES + lane, LANES, (capital,))
            lower(state, PEAK * LANES + lane, LANES, (capital,))
            lower(state, MEMORY * LANES + lane, LANES, fresh)
            lower(state, extras + lane, LANES, (0.0, 0.0, capital, 0.0))
            started[lane] = capital
        busy = 0
        fold = 0
        dawned = False
        for t in range(n):
            if awake[t] != 0:
                busy = 3  # what is decided here fills at t + 1; the exit after falling asleep at t + 2
            if room is not None:
                busy = 3  # an exit may take many bars
            if breakers is not None:
                dawned = dawned | (terms[t, NEW_DAY] != 0.0)
            if busy > 0:
                busy -= 1
                price, high, low, close = prices[t, 0], prices[t, 1], prices[t, 2], prices[t, 3]
                gap = price - prices[t - 1, 3] if t > 0 else 0.0
                rate = rates[t]
                per_unit = 1.0 / (price * (1.0 + rate))
                bar = (price, high, low, close, gap, per_unit, rate)
                maker_rate, depth, closing_depth, space = -1.0, 0.0, 0.0, math.inf
                inside, at_close, mark_high, mark_low = 0.0, 0.0, high, low
                closing_rate = rate if t == n - 1 else 0.0
                if maker is not None:
                    maker_rate = terms[t, MAKER]
                if impact is not None:
                    depth = terms[t, IMPACT]
                    closing_depth = depth if t == n - 1 else 0.0
                if room is not None:
                    space = terms[t, ROOM]
                if funding is not None:
                    inside, at_close = terms[t, FUNDING_INSIDE], terms[t, FUNDING_CLOSE]
                if margin is not None:
                    mark_high, mark_low = terms[t, MARK_HIGH], terms[t, MARK_LOW]
                charges = (
                    closing_rate, maker_rate, depth, closing_depth, space, inside, at_close, mark_high,
                    mark_low, leverage,
                )  # fmt: skip
                grids = (lot, tick, least, most)
                limits = (trail_distance, daily_loss, max_drawdown, ruin)
                # What is decided on the last bar is never filled; that bar alone pays for closing.
                if (awake[t] != 0) & (t < n - 1):
                    charges = (
                        0.0, maker_rate, depth, 0.0, space, inside, at_close, mark_high, mark_low, leverage,
                    )  # fmt: skip
                    row = lift(rows, t * k, 1, like_row)
                    for lane in range(LANES):
                        account = lift(state, lane, LANES, FRESH_ACCOUNT)
                        memory = lift(state, MEMORY * LANES + lane, LANES, fresh)
                        extra = _recalled(state, extras + lane, account[QUANTITY], room, margin, breakers)
                        account, extra = step(
                            account, extra, bar, charges, grids, limits, dawned, maintenance,
                            trail is not None, margin is not None, funding is not None, room is not None,
                        )  # fmt: skip
                        held, stop, take = account[HELD], account[STOP], account[TAKE]
                        answer = decide(lift(block, lane, LANES, like_genes), row, held, account[AGE], memory)
                        stop, take, exposure, _, _ = decided(
                            answer, held, stop, take, largest, smallest, account_stop, account_take
                        )
                        exposure = exposure if account[EQUITY] > ruin else 0.0
                        lower(state, MEMORY * LANES + lane, LANES, answer[3])
                        lower(state, lane, LANES, account)
                        lower(state, STOP * LANES + lane, LANES, (stop, take, exposure))
                        _remember(state, extras + lane, extra, room, margin, breakers)
                else:
                    for lane in range(LANES):
                        account = lift(state, lane, LANES, FRESH_ACCOUNT)
                        extra = _recalled(state, extras + lane, account[QUANTITY], room, margin, breakers)
                        account, extra = step(
                            account, extra, bar, charges, grids, limits, dawned, maintenance,
                            trail is not None, margin is not None, funding is not None, room is not None,
                        )  # fmt: skip
                        lower(state, lane, LANES, account)
                        lower(state, PENDING * LANES + lane, LANES, (0.0,))
                        lower(state, MEMORY * LANES + lane, LANES, fresh)
                        _remember(state, extras + lane, extra, room, margin, breakers)
                dawned = False
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
        See :func:`population`; of the bounds the first five.
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
    if bounds.size < 5:
        raise ValueError("bounds must be largest and smallest exposure, stop, target and trail")
    account_stop, trail = min(bounds[2], bounds[4]), bounds[4]
    held, age, stop, take, pending = lift(state, 0, 1, SHADOW)
    memory = lift(state, len(SHADOW), 1, fresh)
    for t in range(n):
        price, high, low = prices[t, 0], prices[t, 1], prices[t, 2]
        held, age, stop, take, _ = renew(held, age, stop, take, pending, price)
        stopped, taken, _, _ = touched(held, stop, take, price, high, low)
        held = 0.0 if stopped | taken else held
        stop = trailed(held, stop, high, low, trail)
        age = age + 1.0 if held != 0.0 else 0.0
        if awake[t] != 0:
            answer = decide(lift(genes, 0, 1, like_genes), lift(rows, t * k, 1, like_row), held, age, memory)
            stop, take, pending, stop_distance, take_distance = decided(
                answer, held, stop, take, bounds[0], bounds[1], account_stop, bounds[3]
            )
            memory = answer[3]
        else:
            pending, stop_distance, take_distance, memory = 0.0, math.inf, math.inf, fresh
        out[t, 0] = pending
        out[t, 1] = stop_distance
        out[t, 2] = take_distance
    lower(state, 0, 1, (held, age, stop, take, pending))
    lower(state, len(SHADOW), 1, memory)


# The trade that is open keeps the columns of TRADE in one array.
(
    _ENTRY,
    _EXIT,
    _SIDE,
    _ENTRY_PRICE,
    _EXIT_PRICE,
    _SIZE,
    _PNL,
    _FEES,
    _SLIPPAGE,
    _FUNDING,
    _MAE,
    _MFE,
    _REASON,
) = range(13)


@kernel(inline=True)
def _begin(trade, row, price, quantity):
    trade[:] = 0.0
    trade[_ENTRY], trade[_ENTRY_PRICE] = row, price
    trade[_SIDE], trade[_SIZE] = 1.0 if quantity > 0.0 else -1.0, abs(quantity)


@kernel(inline=True)
def _book(trade, gain, fees, slippage, funding):
    trade[_PNL] += gain - fees - slippage - funding
    trade[_FEES] += fees
    trade[_SLIPPAGE] += slippage
    trade[_FUNDING] += funding


@kernel(inline=True)
def _reach(trade, low, high):
    """Note how far prices went against and in favour of the trade."""
    long = trade[_SIDE] > 0.0
    adverse, favourable = (low, high) if long else (high, low)
    trade[_MAE] = min(trade[_MAE], trade[_SIDE] * (adverse / trade[_ENTRY_PRICE] - 1.0))
    trade[_MFE] = max(trade[_MFE], trade[_SIDE] * (favourable / trade[_ENTRY_PRICE] - 1.0))


@kernel(inline=True)
def _end(trades, count, trade, row, price, reason):
    trade[_EXIT], trade[_EXIT_PRICE], trade[_REASON] = row, price, reason
    for i in range(13):
        trades[count, i] = trade[i]
    return count + 1


@kernel(numba.int64(R2, R2, R2, R1, R1, R2, numba.boolean, W2, W2))
def simulate_targets(targets, prices, terms, bounds, venue, tiers, close_last, curve, trades):
    """Trade one account over given targets and record everything; money is absolute.

    Parameters
    ----------
    targets : float64 (n, 3)
        Decided at each close: exposure, stop distance, target distance. A NaN exposure means flat.
    prices : float64 (n, 4)
        open, high, low, close.
    terms : float64 (n, 10)
        What is charged and allowed at each bar, see ``backtest.terms``.
    bounds : float64 (7,)
        Largest and smallest exposure; stop, target and trailing distance, daily loss, drawdown (infinite:
        off). The last two act on the next open; the drawdown halts for good, the daily loss until the
        first bar of the next UTC day has closed. A liquidation keeps the account flat until the target
        changes.
    venue : float64 (6,)
        Capital, leverage (0: no margin), lot, tick, minimum notional (0: off), largest quantity.
    tiers : float64 (2, 8)
        Maintenance rates and amounts.
    close_last : bool
        Whether a position still open is closed at the last close, with costs.
    curve : float64 (n, 8)
        ``CURVE``, written in place: equity at the close, net return of the bar, exposure that is left after
        the close (signed, fraction of equity), notional traded over equity, fees, slippage and funding
        paid, quantity after the close.
    trades : float64 (2 n + 1, 13)
        ``TRADE``, written in place; entry and exit are rows of the bars. A bar ends two trades at most.

    Returns
    -------
    int
        Number of trades written.
    """
    n = targets.shape[0]
    if prices.shape[0] != n or terms.shape[0] != n or curve.shape[0] != n or trades.shape[0] < 2 * n + 1:
        raise ValueError("prices, terms, curve and trades must have as many rows as the targets")
    if bounds.size != 7 or venue.size != 6 or tiers.size != 2 * N_TIERS or terms.shape[1] != N_TERMS:
        raise ValueError("bounds, venue, tiers and terms must have 7, 6, 16 and 10 columns")
    capital, leverage, lot, tick, least, largest = venue[0], venue[1], venue[2], venue[3], venue[4], venue[5]
    trail, daily_loss, max_drawdown, ruin = bounds[4], bounds[5], bounds[6], RUIN * capital
    account_stop = min(bounds[2], trail)
    maintenance = lift(tiers, 0, 1, _LIKE_TIERS)
    count, cause, called = 0, SIGNAL, False
    equity, quantity, goal, held, stop, take, pending = capital, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    posted, peak, day_equity, halt = 0.0, capital, capital, 0.0
    trade = np.zeros(13)
    for t in range(n):
        price, high, low, close = prices[t, 0], prices[t, 1], prices[t, 2], prices[t, 3]
        rate, fee_rate, maker, impact = terms[t, RATE], terms[t, FEE], terms[t, MAKER], terms[t, IMPACT]
        gap = price - prices[t - 1, 3] if t > 0 else 0.0
        before, was = equity, quantity
        # Open: what was decided at the last close.
        held, _, stop, take, changed = renew(held, 0.0, stop, take, pending, price)
        called = called and not changed
        if halt >= 1.0:
            cause = HALTED
        elif changed or (halt == REARMED and not called):
            cause, changed = SIGNAL, True
        equity, quantity, goal, cost, room = resize(
            equity + quantity * gap, quantity, goal, pending, changed, halt >= 1.0, price,
            1.0 / (price * (1.0 + rate)), rate, impact, terms[t, ROOM], lot, least, largest,
        )  # fmt: skip
        if terms[t, NEW_DAY] != 0.0:
            day_equity = before
        halt = rearmed(halt, terms[t, NEW_DAY] != 0.0)
        traded = abs(quantity - was)
        notional, fees = traded * price, traded * price * fee_rate
        slippage = cost - fees
        if was != 0.0:
            trade[_PNL] += was * gap
            _reach(trade, price, price)
        if quantity != was:
            # One order may close a trade and open the next: each pays for its own part.
            ends = was * quantity <= 0.0
            closing = abs(was) / traded if was * quantity < 0.0 else 1.0
            if was == 0.0:
                closing = 0.0
            closing_slippage = closing * slippage
            if was * quantity < 0.0:
                owned = abs(was) * price
                closing_slippage = owned * (rate - fee_rate) + impact * owned * math.sqrt(owned)
            if was != 0.0:
                _book(trade, 0.0, closing * fees, closing_slippage, 0.0)
                if ends:
                    count = _end(trades, count, trade, t, price, cause)
            if quantity != 0.0 and ends:
                _begin(trade, t, price, quantity)
                _book(trade, 0.0, (1.0 - closing) * fees, slippage - closing_slippage, 0.0)
            trade[_SIZE] = max(trade[_SIZE], abs(quantity))
        # Inside the bar: the exchange first, then stop and target.
        opened, leaving, reason = quantity, price, -1
        inside_fees, inside_slippage, market = 0.0, 0.0, 0.0
        start = equity
        if leverage > 0.0:
            posted = posted_margin(posted, was, quantity, price, leverage)
            equity, quantity, goal, cost, leaving, liquidated = liquidate(
                equity, quantity, goal, posted, price, high, low, terms[t, MARK_HIGH], terms[t, MARK_LOW],
                rate, impact, tick, maintenance,
            )  # fmt: skip
            if liquidated:
                reason, called = LIQUIDATED, True
                market = abs(opened) * leaving
                notional += market
                # What the exchange keeps beyond a market order's costs is a fee.
                inside_slippage = market * rate + impact * market * math.sqrt(market) - market * fee_rate
                inside_fees = cost - inside_slippage
        stopped, taken, gapped, exit_price = touched(held, stop, take, price, high, low)
        at_exit = quantity
        equity, quantity, goal, cost, exit_price = leave(
            equity, quantity, goal, held, stopped, taken, gapped, exit_price, price, high, low, rate, maker,
            impact, room, lot, tick, least,
        )  # fmt: skip
        if stopped or taken:
            held = 0.0
            if at_exit != 0.0:
                cause = STOPPED if stopped else TAKEN
                reason, leaving = cause, exit_price
                market = abs(at_exit - quantity) * exit_price
                notional += market
                inside_fees = cost if taken and not stopped and maker >= 0.0 else market * fee_rate
                inside_slippage = cost - inside_fees
                if leverage > 0.0:
                    posted = posted * (quantity / at_exit)
        stop = trailed(held, stop, high, low, trail)
        funding = funding_due(
            opened, quantity, price, close, terms[t, FUNDING_INSIDE], terms[t, FUNDING_CLOSE]
        )
        funding_inside = funding_due(opened, quantity, price, close, terms[t, FUNDING_INSIDE], 0.0)
        if opened != 0.0:
            gain = equity - start + inside_fees + inside_slippage
            _book(trade, gain, inside_fees, inside_slippage, funding_inside)
            if quantity != 0.0:
                _reach(trade, low, high)
            else:
                if reason == TAKEN:  # the stop was not hit, but how far the bar went before is not known
                    _reach(trade, low if opened > 0.0 else leaving, leaving if opened > 0.0 else high)
                _reach(trade, leaving, leaving)
                count = _end(trades, count, trade, t, leaving, reason)
        # Close: mark, settle, and on the last bar perhaps close.
        was, start = quantity, equity
        ends = close_last and t == n - 1
        equity, quantity, cost = mark_at_close(
            equity, quantity, price, close, rate if ends else 0.0, impact if ends else 0.0, funding, ruin
        )
        closing_fees = abs(was) * close * fee_rate if ends else 0.0
        if was != 0.0:
            gain = equity - start + cost + funding
            _book(trade, gain, closing_fees, cost - closing_fees, funding - funding_inside)
            if ends or quantity == 0.0:
                count = _end(trades, count, trade, t, close, LAST_BAR if ends else RUINED)
                notional += abs(was) * close
        elif equity == ruin and start - funding < ruin:
            trades[count - 1, _PNL] += ruin - start  # closed inside this bar for more than there was
        if ends or (was != 0.0 and quantity == 0.0):
            quantity, goal, held = 0.0, 0.0, 0.0
        curve[t, 0] = equity
        curve[t, 1] = (equity - before) / before
        curve[t, 2] = quantity * close / equity
        curve[t, 3] = notional / before
        curve[t, 4] = fees + inside_fees + closing_fees
        curve[t, 5] = slippage + inside_slippage + cost - closing_fees
        curve[t, 6] = funding
        curve[t, 7] = quantity
        # Decision: what waits for the next open; limits that were broken keep the account out of it.
        peak = equity if equity > peak else peak
        halt = halted_at_close(halt, equity, peak, day_equity, daily_loss, max_drawdown, ruin)
        answer = (targets[t, 0], targets[t, 1], targets[t, 2], 0.0)
        stop, take, pending, _, _ = decided(
            answer, held, stop, take, bounds[0], bounds[1], account_stop, bounds[3]
        )
    return count

"""An account in plain Python, one branch per sentence of the conventions of execution.

Money is kept as a bookkeeper keeps it: cash, a quantity, and a list of fills. ``number`` is the kind of
money: float, or Decimal for a shadow ledger without rounding (prices, levels and rates stay floats).
"""

import math
from decimal import Decimal
from typing import NamedTuple

import numpy as np

SIGNAL, STOPPED, TAKEN, LAST_BAR, RUINED, LIQUIDATED, HALTED = range(7)
RUIN = 1e-6
OFF = math.inf
N_TIERS = 8
SAME_STEP = 1e-9  # a multiple of a step stays itself although its quotient may come out a little off


class Terms(NamedTuple):
    """What trading is subject to during a bar; a column each of ``Scenario.terms``."""

    fee: float = 0.0
    rate: float = 0.0  # fee, half spread and impact of the liquidity, per unit of notional
    maker: float = -1.0  # of a target fill; negative: it pays like a market order
    impact: float = 0.0  # a market order of notional N pays this times sqrt(N) more per unit of notional
    room: float = OFF  # units that may trade in this bar
    funding_inside: float = 0.0  # rate settled between open and close
    funding_close: float = 0.0  # rate settled at the close
    mark_high: float = OFF
    mark_low: float = -OFF
    new_day: float = 1.0


class Bounds(NamedTuple):
    """What an account may never do; the entries of ``Scenario.bounds``."""

    largest: float = 1.0
    smallest: float = -1.0
    stop: float = OFF
    take: float = OFF
    trail: float = OFF
    daily_loss: float = OFF
    drawdown: float = OFF


class Venue(NamedTuple):
    """Where an account trades; the entries of ``Scenario.venue``."""

    capital: float = 1.0
    leverage: float = 0.0  # 0: no margin
    lot: float = 0.0
    tick: float = 0.0
    least: float = 0.0  # notional of an order
    largest: float = OFF  # quantity of a position


class Scenario(NamedTuple):
    """What ``simulate_targets`` is given."""

    targets: np.ndarray  # (n, 3)
    prices: np.ndarray  # (n, 4)
    terms: np.ndarray  # (n, 10)
    bounds: np.ndarray  # (7,)
    venue: np.ndarray  # (6,)
    tiers: np.ndarray  # (2, 8): rates and amounts of the maintenance margin
    close_last: bool = True


class Trade(NamedTuple):
    """A round trip; entry and exit are rows."""

    entry: int
    exit: int
    side: float
    entry_price: float
    exit_price: float
    quantity: float
    pnl: float
    fees: float
    slippage: float
    funding: float
    mae: float
    mfe: float
    reason: int

    @property
    def costs(self):
        return self.fees + self.slippage


class Fill(NamedTuple):
    """A line of the ledger; bought when the quantity is positive."""

    bar: int
    price: float
    quantity: float
    left: float  # the position after it
    reason: int


class Outcome(NamedTuple):
    """What came of a scenario; the columns of the curve are ``CURVE``."""

    curve: np.ndarray  # (n, 8)
    trades: list[Trade]

    @property
    def equity(self):
        return self.curve[:, 0].tolist()

    def column(self, name):
        return self.curve[:, CURVE.index(name)]


CURVE = ("equity", "net_return", "exposure", "turnover", "fees", "slippage", "funding", "quantity")


class Shadow:
    """What the position stands for. Decisions and prices move it; what the account owns never does."""

    def __init__(self, largest, smallest, stop, take, trail):
        self.largest, self.smallest, self.widest_stop, self.widest_take = largest, smallest, stop, take
        self.trail = trail
        self.held = 0.0
        self.stop = self.take = math.nan  # price levels

    def bound(self, exposure, stop, take):
        """Return a decision within the bounds; not a number is flat."""
        exposure = 0.0 if math.isnan(exposure) else max(self.smallest, min(self.largest, exposure))
        return exposure, min(stop, self.widest_stop), min(take, self.widest_take)

    def open(self, decision, price):
        """Take up what was decided at the last close, and say whether that is a change."""
        exposure, stop, take = decision
        if exposure == self.held:
            return False
        self.held = exposure
        stop = min(stop, self.trail)
        self.stop = price - price * stop if exposure > 0 else price + price * stop
        self.take = price + price * take if exposure > 0 else price - price * take
        return True

    def inside(self, bar):
        """Return the reason and the price of an exit inside the bar, and whether it is a gap's; or None."""
        if self.held == 0:
            return None
        found = exit_inside(self.held, bar, self.stop, self.take)
        if found:
            self.held = 0.0
        return found

    def pull(self, bar):
        """Move a trailing stop after the bar's extreme: the new level works from the next bar."""
        _, high, low, _ = bar
        if self.held > 0:
            self.stop = max(self.stop, high - high * self.trail)
        elif self.held < 0:
            self.stop = min(self.stop, low + low * self.trail)


def exit_inside(side, bar, stop, take):
    """Return reason and price of an exit inside a bar, and whether it is a gap's; the stop comes first."""
    opened, high, low, _ = bar
    if side > 0:
        if low <= stop:
            return STOPPED, min(opened, stop), opened < stop
        if high >= take:
            return TAKEN, take, opened > take
    else:
        if high >= stop:
            return STOPPED, max(opened, stop), opened > stop
        if low <= take:
            return TAKEN, take, opened < take
    return None


class Trip:
    """A trade under way: from the quantity's leaving zero to its return."""

    def __init__(self, bar, price, side, nothing):
        self.entry, self.entry_price, self.side = bar, float(price), side
        self.largest = self.flow = self.fees = self.slippage = self.funding = nothing
        self.mae = self.mfe = 0.0

    def see(self, *prices, best=True):
        """Note how far prices went against the trade, and for it."""
        for price in prices:
            excursion = self.side * (float(price) / self.entry_price - 1)
            self.mae = min(self.mae, excursion)
            self.mfe = max(self.mfe, excursion) if best else self.mfe


class Account:
    """Cash, a quantity, and what has been written down about them."""

    def __init__(self, venue, tiers, number=float):
        self.number, self.tiers = number, tiers
        self.leverage, self.least, self.most = map(number, (venue.leverage, venue.least, venue.largest))
        self.lot, self.tick = venue.lot, venue.tick
        self.cash, self.floor = number(venue.capital), number(RUIN) * number(venue.capital)
        self.quantity = self.goal = number(0)
        self.cause = SIGNAL  # what set the goal
        self.margin = number(0)  # posted, less quantity times average entry
        self.trip, self.ruined = None, False
        self.fills, self.trades = [], []

    def begin(self, bar, terms):
        self.bar, self.terms, self.room = bar, terms, self.number(terms.room)
        self.notional = self.fees = self.slippage = self.funding = self.number(0)

    def worth(self, price):
        return self.cash + self.quantity * self.number(price)

    def impact_of(self, notional):
        """Return what a market order of this notional pays more, per unit of it."""
        root = notional.sqrt() if isinstance(notional, Decimal) else math.sqrt(notional)
        return self.number(self.terms.impact) * root

    def market_cost(self, notional):
        return notional * self.number(self.terms.rate) + self.impact_of(notional) * notional

    # The open.

    def size(self, exposure, price):
        """Aim at an exposure: a little less than it says, so that costs are paid out of the position."""
        exposure, price = self.number(exposure), self.number(price)
        worth = self.worth(price)
        if self.quantity * exposure < 0:  # a reversal is a close and an open, both with costs
            worth -= self.market_cost(abs(self.quantity) * price)
        worth = max(worth, self.number(0))  # a gap may have taken everything
        rate = self.number(self.terms.rate) + self.impact_of(abs(exposure) * worth)
        goal = exposure * worth / (price * (1 + rate))
        if self.lot:
            lots = math.floor(abs(goal) / self.number(self.lot) + self.number(SAME_STEP))
            goal = self.number(lots * self.lot) * (1 if goal > 0 else -1)
        goal = max(-self.most, min(self.most, goal))
        if goal != 0 and abs(goal - self.quantity) * price < self.least:
            # Dropped, but a reversal still closes.
            goal = self.quantity if exposure * self.quantity > 0 else self.number(0)
        self.goal, self.cause = goal, SIGNAL

    def fill_at_open(self, price):
        price = self.number(price)
        quantity = self.take_room(self.goal, price)
        if self.trip:
            self.trip.see(price)  # whatever comes later in the bar, the open was lived through
        self.trade_to(quantity, price, self.cause)

    def take_room(self, goal, price):
        """Return the quantity after the part of an order that this bar has room for."""
        quantity, part = goal, abs(goal - self.quantity)
        if part > self.room:
            part = self.room
            quantity = self.quantity + (part if goal > self.quantity else -part)
            if self.lot:
                quantity = self.number(round(quantity / self.number(self.lot)) * self.lot)
        # An exchange takes no smaller order, at the open or at a stop, except one that closes everything.
        if part == 0 or (quantity != 0 and part * price < self.least):
            return self.quantity
        self.room -= part
        return quantity

    # Inside the bar.

    def against(self, price, bar):
        """Return the price on the grid at which the position is left: rounded against it, within the bar."""
        _, high, low, _ = map(self.number, bar)
        if not self.tick:
            return price
        steps = price / self.number(self.tick)
        if self.quantity > 0:
            rounded = self.number(math.floor(steps + self.number(SAME_STEP)) * self.tick)
            return rounded if price < low else max(rounded, low)  # below: a gap has passed the target
        rounded = self.number(math.ceil(steps - self.number(SAME_STEP)) * self.tick)
        return rounded if price > high else min(rounded, high)

    def liquidation(self, bar):
        """Return the price at which the exchange closes the position inside this bar, or None."""
        if self.quantity == 0 or self.leverage == 0:
            return None
        opened, high, low, _ = map(self.number, bar)
        levels = []  # at each tier, where margin + unrealized profit = maintenance margin
        for rate, amount in zip(*self.tiers, strict=True):
            rate, amount = self.number(rate), self.number(amount)
            if self.quantity > 0:
                levels.append((-self.margin - amount) / (self.quantity * (1 - rate)))
            else:
                levels.append((self.margin + amount) / (-self.quantity * (1 + rate)))
        # The level is seen on the mark; the fill is within the bar.
        if self.quantity > 0 and self.number(self.terms.mark_low) <= max(levels):
            level = max(levels)
            return opened if opened < level else self.against(max(level, low), bar)
        if self.quantity < 0 and self.number(self.terms.mark_high) >= min(levels):
            level = min(levels)
            return opened if opened > level else self.against(min(level, high), bar)
        return None

    def live_through(self, bar, held, found):
        """Go through the inside of a bar, with what the shadow found in it; say whether it liquidated."""
        opened, high, low, _ = map(self.number, bar)
        due = self.quantity * opened * self.number(self.terms.funding_inside)
        quantity = self.quantity
        liquidated = self.liquidation(bar)
        if liquidated is not None:
            quantity, price, reason, self.goal = self.number(0), liquidated, LIQUIDATED, self.number(0)
        elif found:
            reason, price, gapped = found[0], self.number(found[1]), found[2]
            if reason == TAKEN and gapped and self.quantity * self.number(held) < 0:
                price = opened  # an order too small to reverse it left the account on the other side
            elif reason == TAKEN or not gapped:
                price = self.against(price, bar)
            self.goal, self.cause = self.number(0), reason
            quantity = self.take_room(self.goal, price)
        if due > 0 or quantity == self.quantity:  # a credit only for who was there to the end
            self.pay(due)
        if quantity == 0 and self.trip:
            if reason == TAKEN:
                self.trip.see(low if self.trip.side > 0 else high, best=False)
            self.trip.see(price)
        if quantity != self.quantity:
            self.fill(quantity, price, reason, at_target=reason == TAKEN)
        if self.trip:
            self.trip.see(high, low)
        return liquidated is not None

    def pay(self, funding):
        self.cash -= funding
        self.funding += funding
        if self.trip:
            self.trip.flow -= funding
            self.trip.funding += funding

    # The ledger.

    def trade_to(self, quantity, price, reason):
        """Trade to a quantity; a reversal is a close and an open."""
        if quantity * self.quantity < 0:
            self.fill(self.number(0), price, reason)
        if quantity != self.quantity:
            self.fill(quantity, price, reason)

    def fill(self, quantity, price, reason, at_target=False):
        """Buy or sell, to a quantity of the same side or none: a trade is opened, resized or closed."""
        bought = quantity - self.quantity
        notional = abs(bought) * price
        if at_target and self.terms.maker >= 0:
            fees, slippage = notional * self.number(self.terms.maker), self.number(0)
        else:
            fees = notional * self.number(self.terms.fee)
            slippage = self.market_cost(notional) - fees
        if reason == LIQUIDATED:  # the exchange keeps what is left of the margin
            fees += max(self.margin + self.quantity * price - fees - slippage, self.number(0))
        if self.trip is None:
            self.trip = Trip(self.bar, price, 1.0 if bought > 0 else -1.0, self.number(0))
        if self.leverage:
            self.post_margin(quantity, price)
        self.cash -= bought * price + fees + slippage
        self.quantity = quantity
        self.notional += notional
        self.fees += fees
        self.slippage += slippage
        self.trip.flow -= bought * price + fees + slippage
        self.trip.fees += fees
        self.trip.slippage += slippage
        self.trip.largest = max(self.trip.largest, abs(quantity))
        self.fills.append(Fill(self.bar, float(price), float(bought), float(quantity), reason))
        if quantity == 0:
            self.write_trade(price, reason)

    def post_margin(self, quantity, price):
        change = quantity - self.quantity
        if abs(quantity) > abs(self.quantity):  # opened or increased
            self.margin += abs(change) * price / self.leverage - change * price
        else:
            self.margin *= quantity / self.quantity

    def write_trade(self, price, reason):
        trip, self.trip = self.trip, None
        money = (float(x) for x in (trip.largest, trip.flow, trip.fees, trip.slippage, trip.funding))
        start = (trip.entry, self.bar, trip.side, trip.entry_price, float(price))
        self.trades.append(Trade(*start, *money, trip.mae, trip.mfe, reason))

    def write_off(self, price):
        """Everything is lost: what remains is a millionth, no position, and no further trade."""
        if self.trip:  # taken away at the close: it counts as traded, and there is nothing to pay with
            self.notional += abs(self.quantity) * self.number(price)
            self.write_trade(price, RUINED)
        # What is forgiven belongs to the trade that lost it: profits add up to the change of equity (B1).
        last = self.trades.pop()
        self.trades.append(last._replace(pnl=last.pnl + float(self.floor - self.cash)))
        self.cash, self.quantity, self.goal, self.ruined = self.floor, self.number(0), self.number(0), True


def ledger(scenario, number=float):
    """Trade a scenario and return the account and its curve."""
    targets, prices, terms = (array.tolist() for array in scenario[:3])
    bounds, venue = Bounds(*scenario.bounds.tolist()), Venue(*scenario.venue.tolist())
    account, shadow = Account(venue, scenario.tiers.tolist(), number), Shadow(*bounds[:5])
    curve, last = [], len(targets) - 1
    decision = (0.0, OFF, OFF)
    equity = peak = day_start = account.cash
    halted = day_halted = rearmed = called = False
    for t, bar in enumerate(prices):
        opened, _, _, close = bar
        before = equity
        account.begin(t, Terms(*terms[t]))
        # Open: what was decided at the last close; a target that has not changed trades nothing.
        changed = shadow.open(decision, opened)
        called = called and not changed  # a liquidation keeps the account out until the target changes
        if halted or day_halted:
            account.goal, account.cause = number(0), HALTED
        elif changed or (rearmed and not called):
            account.size(shadow.held, opened)
        account.fill_at_open(opened)
        # A breaker seen at the last close of a day still rules the first open of the next. With that bar it
        # re-arms, and where its close does not halt again the next open takes up what stands.
        rearmed = bool(account.terms.new_day) and day_halted
        if account.terms.new_day:
            day_start, day_halted = before, False
        # Inside: liquidation, the stop, the target; then the trailing stop is moved for the next bar.
        called = account.live_through(bar, shadow.held, shadow.inside(bar)) or called
        shadow.pull(bar)
        # Close: funding, and on the last bar perhaps the end of the trade.
        account.pay(account.quantity * number(close) * number(account.terms.funding_close))
        if t == last and scenario.close_last and account.quantity != 0:
            account.fill(number(0), number(close), LAST_BAR)
        if account.worth(close) < account.floor:
            account.write_off(close)
        equity = account.worth(close)
        curve.append([equity, equity / before - 1, account.quantity * number(close) / equity])
        curve[-1] += [account.notional / before, account.fees, account.slippage, account.funding]
        curve[-1] += [account.quantity]
        # Decision: breakers, where a comparison with what is not a number halts; then the target.
        peak = max(peak, equity)
        halted = halted or account.ruined or not float(equity) > float(peak) * (1 - bounds.drawdown)
        day_halted = day_halted or not float(equity) > float(day_start) * (1 - bounds.daily_loss)
        decision = shadow.bound(*targets[t])
    return account, np.array(curve, dtype=float).reshape(len(curve), len(CURVE))


def twin(scenario, number=float):
    """Return the outcome of a scenario."""
    account, curve = ledger(scenario, number)
    return Outcome(curve, account.trades)


def follow(decide, fresh, genes, rows, prices, awake, bounds):
    """Return exposure, stop and target distance at each close of one genome, as a list of lists."""
    genes = tuple(np.float64(gene) for gene in genes)  # NumPy's floats divide by zero as compiled code does
    shadow, age, memory = Shadow(*bounds.tolist()), 0.0, fresh
    decision, out = (0.0, OFF, OFF), []
    for t, bar in enumerate(prices.tolist()):
        if shadow.open(decision, bar[0]):
            age = 0.0
        shadow.inside(bar)
        shadow.pull(bar)
        age = age + 1.0 if shadow.held != 0 else 0.0
        if awake[t]:
            with np.errstate(all="ignore"):
                row = tuple(np.float64(value) for value in rows[t])
                exposure, stop, take, memory = decide(genes, row, shadow.held, age, memory)
            decision = shadow.bound(float(exposure), float(stop), float(take))
        else:  # asleep: flat, and everything is forgotten
            decision, memory = (0.0, OFF, OFF), fresh
        out.append(list(decision))
    return out


def statistics(returns, equity, trades, ends, capital=1.0):
    """Return what the population kernel keeps, (folds, 6), from a curve and its trades."""
    out, peak, worst = [], capital, 0.0
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        total = squares = downside = 0.0
        for t in range(first, end):
            total += returns[t]
            squares += returns[t] * returns[t]
            if returns[t] < 0:
                downside += returns[t] * returns[t]
            peak = max(peak, equity[t])
            worst = min(worst, equity[t] / peak - 1)
        count = sum(first <= trade.entry < end for trade in trades)
        growth = equity[end - 1] / (equity[first - 1] if first else capital)
        out.append([total, squares, downside, float(count), growth, worst])
    return out


def population(decide, fresh, genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers):
    """Return the statistics of each genome and fold, (p, folds, 6): follow, then account, one by one.

    Terms of another length than the prices do not count: the account is a price and a cost rate.
    """
    terms = terms if len(terms) == len(prices) else terms_of(prices, rate=rates)
    out = []
    for genome in genes:
        targets = np.array(follow(decide, fresh, genome, rows, prices, awake, bounds[:5]))
        curve, trades = twin(Scenario(targets, prices, terms, bounds, venue, tiers))
        out.append(statistics(curve[:, 1].tolist(), curve[:, 0].tolist(), trades, ends, venue[0]))
    return np.array(out)


# Scenarios.


def terms_of(prices, **columns):
    """Return the terms of trading over these bars, (n, 10); neutral where nothing is given."""
    marks = {"mark_high": prices[:, 1], "mark_low": prices[:, 2]}
    values = Terms()._asdict() | marks | columns
    return np.column_stack([np.broadcast_to(np.asarray(v, float), len(prices)) for v in values.values()])


def tiers_of(rates, amounts):
    """Return the tiers of a maintenance margin, (2, 8): the greatest of notional x rate - amount counts."""
    tiers = np.zeros((2, N_TIERS))  # zeros demand nothing
    tiers[:, : len(rates)] = rates, amounts
    return tiers


def scenario(
    seed,
    n=40,
    gaps=True,
    tick=None,
    max_drawdown=OFF,
    daily_loss=OFF,
    close_last=True,
    leverage=1.0,
    rules=(),
):
    """Return random bars and targets: gaps, flat bars, shorts, NaN, resizes, stops and targets.

    ``leverage`` multiplies exposures and volatility; ``rules`` are those of ``RULES`` that hold.
    """
    rng = np.random.default_rng(seed)
    volatility = leverage * rng.choice([0.004, 0.015, 0.03])
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, volatility, n)))
    opened = np.concatenate([[100.0], close[:-1]])
    if gaps:
        opened = opened * np.exp(rng.normal(0.0, 0.03, n) * (rng.random(n) < 0.3))
    if tick is not None:
        opened, close = (np.maximum(np.round(price / tick), 1.0) * tick for price in (opened, close))
    wick = np.abs(rng.normal(0.0, volatility, (2, n))) * (rng.random(n) < 0.8)
    high, low = np.maximum(opened, close) * (1 + wick[0]), np.minimum(opened, close) * (1 - wick[1])
    if tick is not None:
        high, low = np.ceil(high / tick) * tick, np.maximum(np.floor(low / tick), 1.0) * tick
    exposure = rng.choice([0.0, 0.0, 1.0, -1.0, 0.5, -0.5, 2.0, math.nan], n)
    exposure = np.where(rng.random(n) < 0.2, rng.uniform(-1.2, 1.2, n), exposure)
    for t in range(1, n):  # most targets stand for a while
        exposure[t] = exposure[t - 1] if rng.random() < 0.6 else exposure[t]
    widths = [0.0, 0.005, 0.01, 0.02, 0.05, OFF]
    targets = np.column_stack([leverage * exposure, rng.choice(widths, n), rng.choice(widths, n)])
    fee, slippage = rng.choice([0.0, 1.0]) * rng.uniform(0.0, 0.003, (2, n))
    cap, stop, take = leverage * rng.choice([0.6, 1.0]), rng.choice([0.03, OFF]), rng.choice([0.04, OFF])
    prices = np.column_stack([opened, high, low, close])
    terms = {"fee": fee, "rate": fee + slippage, "new_day": np.arange(n) % 6 == 0}
    bounds = Bounds(cap, -cap, stop, take, OFF, daily_loss, max_drawdown)
    terms, bounds, venue, tiers = _ruled(rules, np.random.default_rng([seed, 1]), prices, terms, bounds)
    return Scenario(
        targets, prices, terms_of(prices, **terms), np.array(bounds), np.array(venue), tiers, close_last
    )


RULES = ("capital", "funding", "margin", "mark", "lot", "grid", "least", "most", "room", "trail", "maker")
RULES += ("impact", "long only")


def _ruled(rules, rng, prices, terms, bounds):
    """Return terms, bounds, venue and tiers under the rules of a venue, of random strictness."""
    n, venue, tiers = len(prices), Venue(), np.zeros((2, N_TIERS))
    if "capital" in rules:
        venue = venue._replace(capital=10.0 ** rng.uniform(-1.0, 6.0))
    full = venue.capital / 100.0  # the quantity of a whole position, roughly
    if "funding" in rules:
        rates = rng.normal(0.0, 10.0 ** rng.uniform(-4.0, -2.0), (2, n)) * (rng.random((2, n)) < 0.4)
        terms |= {"funding_inside": rates[0], "funding_close": rates[1]}
    if "margin" in rules:
        venue = venue._replace(leverage=rng.choice([1.0, 2.0, 3.3, 5.0, 10.0, 20.0]))
        floors = np.append(0.0, np.cumsum(rng.uniform(0.1, 0.8, rng.integers(0, 4))) * venue.capital)
        rate = np.cumsum(rng.uniform(0.0, 0.02, floors.size))
        tiers = tiers_of(rate, np.cumsum(floors * np.diff(rate, prepend=0.0)))
    if "mark" in rules:
        shift = np.exp(rng.normal(0.0, 0.004, (2, n)))
        marks = np.sort(prices[:, 1:3] * shift.T, axis=1)
        terms |= {"mark_low": marks[:, 0], "mark_high": marks[:, 1]}
    if "lot" in rules:
        venue = venue._replace(lot=full * rng.choice([0.003, 0.03, 0.2]) * rng.uniform(0.5, 1.0))
    if "grid" in rules:
        venue = venue._replace(tick=rng.choice([0.25, 0.01, rng.uniform(0.01, 2.0)]))
    if "least" in rules:
        venue = venue._replace(least=venue.capital * rng.uniform(0.0, 0.4))
    if "most" in rules:
        largest = full * rng.uniform(0.1, 1.0)
        lots = math.floor(largest / venue.lot) if venue.lot else 0
        venue = venue._replace(largest=lots * venue.lot if venue.lot else largest)
    if "room" in rules:
        room = full * rng.choice([0.0, 0.1, 0.5, 2.0], n) * rng.random(n)
        if venue.lot:
            room = np.floor(room / venue.lot) * venue.lot
        terms |= {"room": np.where(rng.random(n) < 0.3, OFF, room)}
    if "trail" in rules:
        bounds = bounds._replace(trail=rng.choice([0.003, 0.01, 0.03, 0.1]))
    if "maker" in rules:
        terms |= {"maker": rng.uniform(0.0, 0.001, n) * rng.choice([0.0, 1.0])}
    if "impact" in rules:
        terms |= {"impact": rng.uniform(0.0, 0.01, n) / math.sqrt(venue.capital)}
    if "long only" in rules:
        bounds = bounds._replace(smallest=0.0)
    return terms, bounds, venue, tiers


def any_scenario(seed, rules=RULES):
    """Return a short random scenario with any of these rules, and any of the other options."""
    rng = np.random.default_rng([seed, 2])
    return scenario(
        seed,
        n=int(rng.integers(5, 61)),
        gaps=bool(rng.random() < 0.6),
        tick=rng.choice([0.25, 2.0]) if rng.random() < 0.2 else None,
        max_drawdown=rng.choice([OFF, OFF, 0.0317, 0.117317]),
        daily_loss=rng.choice([OFF, OFF, 0.0117]),
        close_last=bool(rng.random() < 0.7),
        leverage=rng.choice([1.0, 1.0, 3.0]),
        rules=[rule for rule in RULES if rng.random() < 0.45 and rule in rules],
    )

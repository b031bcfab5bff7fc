"""An account in plain Python, one branch per sentence of the conventions of execution.

Money is kept as a bookkeeper keeps it: cash, a quantity, and a list of fills. ``number`` is the kind of
money: float, or Decimal for a shadow ledger without rounding (prices, levels and rates stay floats).
"""

import math
from typing import NamedTuple

import numpy as np

SIGNAL, STOPPED, TAKEN, LAST_BAR, RUINED = range(5)
RUIN = 1e-6


class Scenario(NamedTuple):
    """What ``simulate_targets`` is given."""

    targets: np.ndarray  # (n, 3)
    prices: np.ndarray  # (n, 4)
    fees: np.ndarray  # (n,)
    slippage: np.ndarray  # (n,)
    new_day: np.ndarray  # (n,)
    bounds: np.ndarray  # (5,)
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
    costs: float
    reason: int


class Fill(NamedTuple):
    """A line of the ledger; bought when the quantity is positive."""

    bar: int
    price: float
    quantity: float


class Outcome(NamedTuple):
    """What came of a scenario: equity, return, exposure, turnover, fees, slippage per bar; and the trades."""

    curve: np.ndarray  # (n, 6)
    trades: list[Trade]

    @property
    def equity(self):
        return self.curve[:, 0].tolist()


class Account:
    """Cash, a quantity, and what has been written down about them."""

    def __init__(self, number=float):
        self.number = number
        self.cash = number(1)
        self.quantity = number(0)
        self.held = 0.0  # the target that the position stands for
        self.stop = self.take = math.nan  # price levels
        self.fills, self.trades = [], []
        self.bar_costs = self.bar_notional = number(0)
        self.ruined = self.overdrawn = False

    def worth(self, price):
        return self.cash + self.quantity * self.number(price)

    def rebalance(self, bar, exposure, price, rate, stop, take):
        # The position is a little smaller than the exposure, so that its costs are paid out of it.
        number = self.number
        if self.worth(price) <= 0:  # nothing is left to open anything with; the close will say so
            self.overdrawn, exposure = True, 0.0
        if self.quantity * number(exposure) < 0:  # a reversal is a close and an open, both with costs
            self.buy(bar, -self.quantity, price, rate, SIGNAL)
        wanted = number(exposure) * self.worth(price) / (number(price) * (1 + number(rate)))
        self.buy(bar, wanted - self.quantity, price, rate, SIGNAL)
        if exposure == 0:
            self.quantity = number(0)
        self.held = exposure
        self.stop = price - stop * price if exposure > 0 else price + stop * price
        self.take = price + take * price if exposure > 0 else price - take * price

    def close(self, bar, price, rate, reason):
        self.buy(bar, -self.quantity, price, rate, reason)
        self.quantity, self.held = self.number(0), 0.0

    def buy(self, bar, quantity, price, rate, reason):
        """Buy a quantity (sell a negative one): one fill, which opens, resizes or closes a trade."""
        if quantity == 0:
            return
        notional = abs(quantity) * self.number(price)
        cost = notional * self.number(rate)
        if self.quantity == 0:
            self.entry, self.entry_price, self.side = bar, price, 1.0 if quantity > 0 else -1.0
            self.largest = self.flow = self.paid = self.number(0)
        self.cash -= quantity * self.number(price) + cost
        self.quantity += quantity
        self.fills.append(Fill(bar, price, float(quantity)))
        self.bar_costs += cost
        self.bar_notional += notional
        self.flow -= quantity * self.number(price) + cost
        self.paid += cost
        self.largest = max(self.largest, abs(self.quantity))
        if reason != SIGNAL or abs(self.quantity) <= self.largest * self.number(1e-12):
            self.quantity = self.number(0)
            self.write_trade(bar, price, reason)

    def write_trade(self, bar, price, reason):
        numbers = (float(self.largest), float(self.flow), float(self.paid))
        self.trades.append(
            Trade(self.entry, bar, self.side, self.entry_price, float(price), *numbers, reason)
        )

    def write_off(self, bar, price):
        """Everything is lost: what remains is RUIN, no position, and no further trade."""
        if (
            self.quantity != 0
        ):  # taken away at the close: it counts as traded, and there is nothing to pay with
            self.bar_notional += abs(self.quantity) * self.number(price)
            self.flow += self.quantity * self.number(price) + self.number(RUIN) - self.worth(price)
            self.quantity = self.number(0)
            self.write_trade(bar, price, RUINED)
        self.cash, self.held, self.ruined = self.number(RUIN), 0.0, True


def exit_inside(side, bar, stop, take):
    """Return the reason and the price of an exit inside a bar, or None."""
    opened, high, low, _ = bar
    if side > 0:
        if low <= stop:
            return STOPPED, min(opened, stop)
        if high >= take:
            return TAKEN, take
    else:
        if high >= stop:
            return STOPPED, max(opened, stop)
        if low <= take:
            return TAKEN, take
    return None


def ledger(scenario, number=float):
    """Trade a scenario and return the account and its curve."""
    targets, prices = scenario.targets.tolist(), scenario.prices.tolist()
    cap, widest_stop, widest_take, daily_loss, max_drawdown = scenario.bounds.tolist()
    account, curve, last = Account(number), [], len(targets) - 1
    decision = (0.0, math.inf, math.inf)
    equity = peak = day_start = number(1)
    day_halted = halted = False
    for t, bar in enumerate(prices):
        rate = float(scenario.fees[t]) + float(scenario.slippage[t])
        before = equity
        account.bar_costs = account.bar_notional = number(0)
        if scenario.new_day[t]:
            day_start, day_halted = before, False
        # Open: what was decided at the last close; a target that has not changed trades nothing.
        if decision[0] != account.held and not account.ruined:
            account.rebalance(t, decision[0], bar[0], rate, decision[1], decision[2])
        # Inside: the stop first, then the target.
        if account.quantity != 0:
            found = exit_inside(account.quantity, bar, account.stop, account.take)
            if found:
                account.close(t, found[1], rate, found[0])
        # Close.
        if t == last and scenario.close_last and account.quantity != 0:
            account.close(t, bar[3], rate, LAST_BAR)
        equity = account.worth(bar[3])
        if equity < RUIN:
            account.write_off(t, bar[3])
            equity = account.worth(bar[3])
        exposure = account.quantity * number(bar[3]) / equity
        share = scenario.fees[t] / rate if rate > 0 else 0.0
        fees, spread = float(account.bar_costs) * share, float(account.bar_costs) * (1.0 - share)
        turnover = account.bar_notional / before
        curve.append([float(equity), float(equity / before - 1), float(exposure), float(turnover)])
        curve[-1] += [fees, spread if rate > 0 else 0.0]
        # Decision: breakers first; then the target within its bounds; NaN is flat.
        peak = max(peak, equity)
        halted = halted or float(equity) <= float(peak) * (1 - max_drawdown)
        day_halted = day_halted or float(equity) <= float(day_start) * (1 - daily_loss)
        exposure, stop, take = targets[t]
        if halted or day_halted or math.isnan(exposure):
            decision = (0.0, math.inf, math.inf)
        else:
            decision = (max(-cap, min(cap, exposure)), min(stop, widest_stop), min(take, widest_take))
    return account, np.array(curve).reshape(len(curve), 6)


def twin(scenario, number=float):
    """Return the outcome of a scenario."""
    account, curve = ledger(scenario, number)
    return Outcome(curve, account.trades)


def follow(decide, fresh, genes, rows, prices, awake, bounds):
    """Return exposure, stop and target distance at each close of one genome, as a list of lists."""
    cap, widest_stop, widest_take = bounds.tolist()
    genes = tuple(np.float64(gene) for gene in genes)  # NumPy's floats divide by zero as compiled code does
    held, age, stop, take, memory = 0.0, 0.0, math.nan, math.nan, fresh
    decision, out = (0.0, math.inf, math.inf), []
    for t, bar in enumerate(prices.tolist()):
        if decision[0] != held:
            held, age = decision[0], 0.0
            away = 1.0 if held > 0 else -1.0
            stop, take = bar[0] - away * (decision[1] * bar[0]), bar[0] + away * (decision[2] * bar[0])
        if held != 0 and exit_inside(held, bar, stop, take):
            held = 0.0
        age = age + 1.0 if held != 0 else 0.0
        if awake[t]:
            with np.errstate(all="ignore"):
                row = tuple(np.float64(value) for value in rows[t])
                exposure, stop_distance, take_distance, memory = decide(genes, row, held, age, memory)
            exposure = 0.0 if math.isnan(exposure) else max(-cap, min(cap, float(exposure)))
            decision = (
                exposure,
                min(float(stop_distance), widest_stop),
                min(float(take_distance), widest_take),
            )
        else:  # asleep: flat, and everything is forgotten
            decision, memory = (0.0, math.inf, math.inf), fresh
        out.append(list(decision))
    return out


def statistics(returns, equity, trades, ends):
    """Return what the population kernel keeps, (folds, 6), from a curve and its trades."""
    out, peak, worst = [], 1.0, 0.0
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
        growth = equity[end - 1] / (equity[first - 1] if first else 1.0)
        out.append([total, squares, downside, float(count), growth, worst])
    return out


def population(decide, fresh, genes, rows, prices, rates, awake, ends, bounds):
    """Return the statistics of each genome and fold, (p, folds, 6): follow, then account, one by one."""
    nothing, off = np.zeros(len(prices)), np.append(bounds, [math.inf, math.inf])
    out = []
    for genome in genes:
        targets = np.array(follow(decide, fresh, genome, rows, prices, awake, bounds))
        scenario = Scenario(targets, prices, rates, nothing, np.ones(len(prices), np.int8), off)
        outcome = twin(scenario)
        out.append(statistics(outcome.curve[:, 1].tolist(), outcome.equity, outcome.trades, ends))
    return np.array(out)


def scenario(
    seed,
    n=40,
    gaps=True,
    tick=None,
    max_drawdown=math.inf,
    daily_loss=math.inf,
    close_last=True,
    leverage=1.0,
):
    """Return random bars and targets: gaps, flat bars, shorts, NaN, resizes, stops and targets."""
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
    widths = [0.0, 0.005, 0.01, 0.02, 0.05, math.inf]
    targets = np.column_stack([leverage * exposure, rng.choice(widths, n), rng.choice(widths, n)])
    costs = rng.choice([0.0, 1.0]) * rng.uniform(0.0, 0.003, (2, n))
    bounds = [leverage * rng.choice([0.6, 1.0]), rng.choice([0.03, math.inf]), rng.choice([0.04, math.inf])]
    return Scenario(
        targets=targets,
        prices=np.column_stack([opened, high, low, close]),
        fees=costs[0],
        slippage=costs[1],
        new_day=(np.arange(n) % 6 == 0).astype(np.int8),
        bounds=np.array([*bounds, daily_loss, max_drawdown]),
        close_last=close_last,
    )

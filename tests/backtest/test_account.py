"""The account: what trading costs, against its plain twin on any scenario, and planted bugs (B2, B12)."""

import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import kernels
from tests.reference.account import (
    HALTED,
    LAST_BAR,
    LIQUIDATED,
    OFF,
    RUINED,
    RULES,
    SIGNAL,
    STOPPED,
    TAKEN,
    Outcome,
    any_scenario,
    ledger,
    scenario,
    twin,
)
from tests.reference.cases import case_of, disagreement, flat, run
from tests.reference.planted import interpreted

SEEDS = st.integers(0, 2**32 - 1)
# Of a breaker: no width of a stop, so that no loss is exactly the limit, where rounding decides.
LIMIT = 0.0317
KINDS = st.fixed_dictionaries(
    {
        "n": st.sampled_from([1, 2, 3, 17, 60]),
        "gaps": st.booleans(),
        "tick": st.sampled_from([None, 0.25, 2.0]),  # ticks make ties
        "max_drawdown": st.sampled_from([OFF, LIMIT]),
        "close_last": st.booleans(),
    }
)


def compiled(case):
    return run(case, kernels.simulate_targets)


# Costs.


def test_costs_are_paid_on_both_sides(trade):
    done = trade([flat(100), flat(100), flat(100)], [1, 0, 0], fee=0.002, slippage=0.001)
    rate = 0.003
    assert done.equity == pytest.approx([1, 1 / (1 + rate), (1 - rate) / (1 + rate)], rel=1e-15)
    for bar in (1, 2):
        assert done.column("fees")[bar] == pytest.approx(0.002 / 1.003, rel=1e-14)
        assert done.column("slippage")[bar] == pytest.approx(0.001 / 1.003, rel=1e-14)
    assert done.trades[0].fees == pytest.approx(0.004 / 1.003, rel=1e-14)
    assert done.trades[0].slippage == pytest.approx(0.002 / 1.003, rel=1e-14)


def test_stop_and_target_exits_pay_costs_on_the_price_of_the_exit(trade):
    done = trade([flat(100), flat(100), (100, 100, 80, 90)], [1, 1, 0], fee=0.01, stop=0.1)
    assert done.column("fees")[2] == pytest.approx(90 / 101 * 0.01, rel=1e-14)
    done = trade([flat(100), flat(100), (100, 130, 99, 100)], [1, 1, 0], fee=0.01, take=0.2)
    assert done.column("fees")[2] == pytest.approx(120 / 101 * 0.01, rel=1e-14)


def test_a_target_may_be_filled_as_a_makers_order_without_spread_or_impact(trade):
    costs = {"fee": 0.01, "slippage": 0.004, "impact": [0.0, 0.0, 0.5], "close_last": False}
    bars, size = [flat(100), flat(100), (100, 130, 85, 100)], 1 / 101.4
    done = trade(bars, [1, 1, 0], take=0.2, maker=0.002, **costs)
    assert done.column("fees")[2] == pytest.approx(120 * size * 0.002)
    assert done.column("slippage")[2] == 0
    free = trade(bars, [1, 1, 0], take=0.2, maker=0.0, **costs)
    assert free.column("fees")[2] == free.column("slippage")[2] == 0
    for other in (
        trade(bars, [1, 1, 0], take=0.2, **costs),
        trade(bars, [1, 1, 0], stop=0.1, maker=0.002, **costs),
    ):
        value = other.trades[0].exit_price * size
        assert other.column("fees")[2] == pytest.approx(0.01 * value)
        assert other.column("slippage")[2] == pytest.approx(0.004 * value + 0.5 * value**1.5)


def test_a_market_order_pays_impact_with_the_square_root_of_its_notional(trade):
    # A worth of 10,000 pays 0.01 + 0.0001 * 100 per unit of notional, estimated on the whole worth.
    done = trade([flat(100)] * 3, [1, 0, 0], capital=1e4, fee=0.01, impact=1e-4)
    quantity = 1e4 / 102
    cost = 1e-4 * (100 * quantity) ** 1.5
    assert done.column("quantity")[1] == pytest.approx(quantity, rel=1e-14)
    assert done.column("slippage")[1:] == pytest.approx([cost, cost], rel=1e-12)
    assert done.column("fees")[1:] == pytest.approx([quantity, quantity], rel=1e-12)


def test_a_reversal_pays_the_impact_of_two_orders_and_each_trade_its_own(trade):
    done = trade([flat(100)] * 3, [1, -0.5, 0], capital=1e4, impact=1e-4)
    long = 1e4 / 101
    first = 1e-4 * (100 * long) ** 1.5
    worth = 1e4 - 2 * first
    short = 0.5 * worth / (100 * (1 + 1e-4 * math.sqrt(0.5 * worth)))
    second = 1e-4 * (100 * short) ** 1.5
    assert done.column("quantity")[2] == 0
    assert done.trades[0].slippage == pytest.approx(2 * first, rel=1e-12)
    assert done.trades[1].quantity == pytest.approx(short, rel=1e-12)
    assert done.trades[1].slippage == pytest.approx(2 * second, rel=1e-12)
    assert done.trades[0].fees == done.trades[1].fees == 0
    assert done.column("slippage")[2] == pytest.approx(first + 2 * second, rel=1e-12)


def test_a_reversal_is_a_close_and_an_open_and_both_pay(trade):
    done = trade([flat(100), flat(100), flat(100), flat(100)], [0.5, -0.5, 0, 0], fee=0.01)
    size = 0.5 / (100 * 1.01)
    after = 1 - size * 100 * 0.01
    short = 0.5 * (after - size) / (100 * 1.01)  # of what is left when the long has been paid for
    assert [(t.entry, t.exit, t.side, t.reason) for t in done.trades] == [
        (1, 2, 1.0, SIGNAL),
        (2, 3, -1.0, SIGNAL),
    ]
    assert done.trades[0].costs == pytest.approx(2 * size, rel=1e-13)
    assert done.trades[1].costs == pytest.approx(2 * short, rel=1e-13)
    assert done.equity[2] == pytest.approx(after - size - short, rel=1e-13)
    assert done.column("turnover")[2] == pytest.approx((size + short) * 100 / after, rel=1e-13)


def test_full_exposure_borrows_nothing_because_costs_are_paid_out_of_the_position(trade):
    for target in (1, -1):
        done = trade([flat(100), flat(100)], [target, target], fee=0.01, close_last=False)
        quantity = abs(done.column("quantity")[1])
        assert quantity * 100 + 0.01 * quantity * 100 == pytest.approx(1.0, rel=1e-15)
        assert quantity * 100 == pytest.approx(abs(done.column("exposure")[1]) * done.equity[1], rel=1e-15)


def test_full_exposure_borrows_nothing_on_a_reversal_either(trade):
    done = trade([flat(100)] * 3, [-1, 1, 1], fee=0.01, close_last=False)
    assert done.column("exposure")[2] == pytest.approx(1.0, rel=1e-14)


# Limits.


def test_without_costs_always_long_is_buy_and_hold():
    case = scenario(11, n=300)
    free = case_of(case.prices, [1] * 300, capital=512.0)
    expected = np.concatenate([[1.0], case.prices[1:, 3] / case.prices[1, 0]])
    assert compiled(free).equity == pytest.approx(512.0 * expected, rel=1e-12)


def test_never_trading_is_flat():
    case = scenario(12, rules=["capital", "funding", "margin", "maker", "impact"])
    done = compiled(case._replace(targets=np.tile([0.0, OFF, OFF], (40, 1))))
    assert done.equity == [case.venue[0]] * 40
    assert done.trades == []
    assert not done.curve[:, 1:].any()


# Ruin.


def test_a_loss_of_everything_leaves_a_millionth_and_no_position(trade):
    bars = [flat(100), flat(100), (150, 260, 150, 250), flat(50), flat(40)]
    done = trade(bars, [-1] * 5, capital=1000.0)
    assert done.equity[2:] == [pytest.approx(1e-3)] * 3
    assert [t.reason for t in done.trades] == [RUINED]
    assert done.trades[0].pnl == pytest.approx(1e-3 - 1000.0, rel=1e-12)


def test_a_loss_beyond_everything_is_forgiven_and_belongs_to_the_trade_that_made_it(trade):
    bars = [flat(100), flat(100), (250, 250, 240, 240), flat(240)]
    for targets, options in (([-1, 0, 0, 0], {}), ([-1] * 4, {"stop": 0.1}), ([-1] * 4, {"leverage": 2.0})):
        done = trade(bars, targets, **options)
        assert done.equity[2] == pytest.approx(1e-6)
        assert len(done.trades) == 1
        assert done.trades[0].exit_price == 250.0
        assert done.trades[0].pnl == pytest.approx(1e-6 - 1.0, rel=1e-12)
    done = trade([flat(100), (100, 250, 100, 240)], [-1, 0])
    assert done.trades[0].reason == LAST_BAR
    assert done.trades[0].pnl == pytest.approx(1e-6 - 1.0, rel=1e-12)


def ruinous():
    """Return a scenario of ruin, after which falls and rises would carry an account up that loses no more."""
    bars = [flat(100), flat(100), (150, 260, 150, 250), flat(250)]
    bars += [flat(250), (250, 250, 125, 125), (125, 250, 125, 250), flat(250)] * 5
    return case_of(bars, [-1, -1, -1, 0] + [1, 0.5, 0, 0] * 5)


def test_a_ruined_account_never_rises_again():
    # Five times after ruin: all of it in a fall by a half, half of it in a rise to the double.
    for engine in (compiled, twin):
        done = engine(ruinous())
        assert done.equity[1:3] == [1.0, 1e-6]
        assert set(done.equity[2:]) == {1e-6}
        assert len(done.trades) == 1


def test_an_account_below_zero_at_the_open_opens_nothing(trade):
    # Short into a gap that costs more than everything, while the target has turned long and has no stop.
    done = trade([flat(100), flat(100), flat(160), flat(160)], [-2, 2, 2, 0], cap=2.0)
    assert [(t.entry, t.exit, t.side, t.reason) for t in done.trades] == [(1, 2, -1.0, SIGNAL)]
    assert done.column("turnover")[2] == pytest.approx(0.02 * 160)  # and not twice that


# B2: the twin.


@settings(max_examples=150, deadline=None)
@given(SEEDS, KINDS)
def test_b2_the_kernel_equals_its_twin(seed, kind):
    case = scenario(seed, **kind)
    assert disagreement(case, compiled(case), twin(case)) is None


def test_b2_ten_thousand_scenarios_with_any_rules_reach_every_reason_and_agree():
    reasons, reached = collections.Counter(), collections.Counter()
    for seed in range(10_000):
        case = any_scenario(seed)
        account, curve = ledger(case)
        done = compiled(case)
        assert disagreement(case, done, Outcome(curve, account.trades)) is None, seed
        reasons.update(trade.reason for trade in account.trades)
        reached["carried"] += any(f.left != 0 and f.reason in (STOPPED, TAKEN) for f in account.fills)
        reached["ruined"] += account.ruined
        reached["credited"] += (curve[:, 6] < 0).any()
        reached["debited"] += (curve[:, 6] > 0).any()
        reached["short"] += (curve[:, 7] < 0).any()
    assert all(reasons[reason] > 1000 for reason in (SIGNAL, STOPPED, TAKEN, LAST_BAR, LIQUIDATED, HALTED))
    assert all(count > 1000 for name, count in reached.items() if name != "ruined")


def test_b2_accounts_on_credit_agree_through_their_ruin():
    ruined = 0
    for seed in range(300):
        case = scenario(seed, leverage=4.0, n=80)
        case.targets[:, 1] = OFF
        case.bounds[2] = OFF
        account, curve = ledger(case)
        done = compiled(case)
        assert disagreement(case, done, Outcome(curve, account.trades)) is None, seed
        ruined += account.ruined
    assert ruined > 20


@settings(max_examples=60, deadline=None)
@given(SEEDS, SEEDS, st.integers(0, 39))
def test_an_altered_future_changes_nothing_before_it(seed, other, t):
    rules = [rule for i, rule in enumerate(RULES) if seed >> i & 1]
    case = scenario(seed, max_drawdown=LIMIT, rules=rules)
    stranger = scenario(other, rules=["funding", "room", "mark", "impact", "maker"])
    altered = [array.copy() for array in case[:3]]
    for array, strange, factor in zip(altered, stranger[:3], (1.0, 1000.0, 1.0), strict=True):
        array[t + 1 :] = strange[t + 1 :] * factor
    before, after = compiled(case), compiled(case._replace(**dict(zip(case._fields, altered, strict=False))))
    assert np.array_equal(before.curve[: t + 1], after.curve[: t + 1])
    assert [x for x in before.trades if x.exit <= t] == [x for x in after.trades if x.exit <= t]


def test_what_is_decided_at_the_last_close_is_never_traded():
    case = any_scenario(5)
    targets = case.targets.copy()
    targets[-1] = (-0.77, 0.0, 0.0)
    assert disagreement(case, compiled(case), compiled(case._replace(targets=targets))) is None


# B12: each planted bug must be seen by the comparison with the twin.

PLANTED = {
    # When, and at which price.
    "fill at the close": (
        "= prices[t, 0], prices[t, 1], prices[t, 2], prices[t, 3]\n        rate, fee_rate",
        "= prices[t, 3], prices[t, 1], prices[t, 2], prices[t, 3]\n        rate, fee_rate",
    ),
    "fill at the close of the decision": (
        "gap = price - prices[t - 1, 3] if t > 0 else 0.0\n        before",
        "price = prices[t - 1, 3] if t > 0 else price\n        gap = 0.0\n        before",
    ),
    "target before stop": (
        "exit_price = exit_price if stopped else take",
        "exit_price = take if taken else exit_price",
    ),
    "gap through the stop fills at the stop": ("gapped = (price - stop) * side < 0.0", "gapped = False"),
    "gap through the target fills at the open": (
        "exit_price = exit_price if out else price\n    return stopped",
        "exit_price = exit_price if out else price\n"
        "    exit_price = price if taken & (not stopped) & ((price - take) * side > 0.0) else exit_price\n"
        "    return stopped",
    ),
    "target evaluated on the open": ("favourable = high if long else low", "favourable = price"),
    "stop missed by a tie": ("(adverse - stop) * side <= 0.0", "(adverse - stop) * side < 0.0"),
    "target missed by a tie": ("(favourable - take) * side >= 0.0", "(favourable - take) * side > 0.0"),
    "stop evaluated on the wrong side of shorts": (
        "adverse = low if long else high\n    favourable",
        "adverse = low\n    favourable",
    ),
    "stale levels after a new entry": (
        "stop = price - side * price * stop if changed else stop",
        "stop = price - side * price * stop if changed & (held == 0.0) else stop",
    ),
    "levels from the last close": (
        "\n        held, _, stop, take, changed = renew(held, 0.0, stop, take, pending, price)",
        "\n        held, _, stop, take, changed = renew(held, 0.0, stop, take, pending, price - gap)",
    ),
    "levels renewed while nothing changed": (
        "stop = stop_distance if changed else stop",
        "stop = stop_distance",
    ),
    "rebalanced on every bar": ("changed = pending != held", "changed = pending != 0.0"),
    "position still held after an exit": (
        "held = 0.0\n            if at_exit",
        "held = held\n            if at_exit",
    ),
    "quantity kept after an exit": ("quantity = rest if out else quantity", "quantity = quantity"),
    "last bar left open": ("ends = close_last and t == n - 1", "ends = False"),
    # Trailing stops.
    "trailing stop moved by the bar it is tested on": (
        "touched(held, stop, take, price, high, low)\n        at_exit",
        "touched(held, trailed(held, stop, high, low, trail), take, price, high, low)\n        at_exit",
    ),
    "trailing stop retreats": ("raised = raised if raised > stop else stop", "raised = raised"),
    "trailing stop of shorts retreats": (
        "lowered = lowered if lowered < stop else stop",
        "lowered = lowered",
    ),
    "trailing stop from the low": ("raised = high - high * trail", "raised = low - low * trail"),
    "shorts are not trailed": (
        "level = raised if held > 0.0 else lowered",
        "level = raised if held > 0.0 else stop",
    ),
    "no stop before the first trail": (
        "account_stop = min(bounds[2], trail)\n    maint",
        "account_stop = bounds[2]\n    maint",
    ),
    # Costs.
    "entry fee missing": ("cost = traded * rate", "cost = 0.0"),
    "entry fee twice": ("return equity - cost, filled", "return equity - 2.0 * cost, filled"),
    "exit fee missing": ("cost = cost if out else 0.0", "cost = 0.0"),
    "exit fee on the open": ("notional = abs(sold) * exit_price", "notional = abs(sold) * price"),
    "costs earned on shorts": ("cost = traded * rate", "cost = (filled - quantity) * price * rate"),
    "reversal without the closing fee": (
        "cost = traded * rate",
        "cost = (abs(filled) * price if filled * quantity < 0.0 else traded) * rate",
    ),
    "closing fee booked on the next trade": (
        "closing = abs(was) / traded if was * quantity < 0.0 else 1.0",
        "closing = 0.0 if was * quantity < 0.0 else 1.0",
    ),
    "costs borrowed": ("1.0 / (price * (1.0 + rate)), rate", "1.0 / price, rate"),
    "last close free of costs": ("rate if ends else 0.0, impact if ends", "0.0, impact if ends"),
    "makers fee at a stop": ("(maker >= 0.0) & (not stopped)", "(maker >= 0.0)"),
    "makers fee ignored": ("(maker >= 0.0) & (not stopped)", "False"),
    "impact in proportion to the notional": (
        "cost = cost + impact * roots if impact > 0.0 else cost",
        "cost = cost + impact * traded if impact > 0.0 else cost",
    ),
    "impact of a reversal as of one order": (
        "roots = roots if quantity * filled < 0.0 else traded * math.sqrt(traded)",
        "roots = traded * math.sqrt(traded)",
    ),
    "impact borrowed": (
        "value / (price * (1.0 + (rate + impact * math.sqrt(abs(value)))))",
        "value / (price * (1.0 + rate))",
    ),
    "impact of a stop missing": (
        "impact * notional * math.sqrt(notional) if impact > 0.0 else cost\n    cost = notional * maker",
        "0.0 if impact > 0.0 else cost\n    cost = notional * maker",
    ),
    "impact of the last close missing": (
        "cost = cost + deep if closing_impact > 0.0 else cost",
        "cost = cost",
    ),
    # Money.
    "short profit with the sign of a long": (
        "equity = equity + quantity * (close - price) - cost - funding",
        "equity = equity + abs(quantity) * (close - price) - cost - funding",
    ),
    "gap between close and open forgotten": (
        "            equity + quantity * gap,",
        "            equity,",
    ),
    "equity marked at the open": (
        "curve[t, 0] = equity",
        "curve[t, 0] = equity - quantity * (close - price)",
    ),
    "return over the equity after": (
        "(equity - before) / before\n        curve",
        "(equity - before) / equity\n        curve",
    ),
    "exposure of the equity before": ("quantity * close / equity", "quantity * close / before"),
    "turnover without the exit": (
        "market = abs(at_exit - quantity) * exit_price\n                notional += market",
        "market = abs(at_exit - quantity) * exit_price",
    ),
    "fees and slippage swapped": (
        "curve[t, 4] = fees + inside_fees + closing_fees",
        "curve[t, 4] = slippage + inside_slippage + cost - closing_fees",
    ),
    "quantity wanted instead of owned": ("curve[t, 7] = quantity", "curve[t, 7] = goal"),
    "losses beyond everything": ("equity = ruin if ruined else equity", "equity = equity"),
    "ruined account trades on": ("& (equity > ruin)", "& (equity == equity)"),
    # Bounds and breakers.
    "NaN target is full": ("exposure = exposure if known else 0.0", "exposure = exposure"),
    "shorts are not capped": (
        "exposure = exposure if exposure > smallest else smallest",
        "exposure = exposure",
    ),
    "account stop ignored": (
        "stop_distance = stop_distance if stop_distance < account_stop else account_stop",
        "stop_distance = stop_distance",
    ),
    "drawdown from the start instead of the peak": (
        "peak = equity if equity > peak else peak\n        halt",
        "halt",
    ),
    "drawdown breaker re-arms": ("new_day & (halt == 1.0)", "new_day & (halt >= 1.0)"),
    "drawdown breaker acts a bar late": (
        "halted_at_close(halt, equity, peak, day_equity, daily_loss, max",
        "halted_at_close(halt, before, peak, day_equity, daily_loss, max",
    ),
    "daily breaker re-arms on the same day": (
        "halt = halt if today | (halt > 1.0) else 1.0",
        "halt = (halt if halt != 1.0 else 0.0) if today | (halt > 1.0) else 1.0",
    ),
    "daily breaker never re-arms": ("ended = REARMED if", "ended = 1.0 if"),
    "daily breaker re-arms before the open": (
        "before, was = equity, quantity\n        #",
        "before, was = equity, quantity\n        halt = rearmed(halt, terms[t, NEW_DAY] != 0.0)\n        #",
    ),
    "a standing target is not taken up again": ("ended = REARMED if", "ended = 0.0 if"),
    "daily loss from the start": ("day_equity = before\n        halt", "pass\n        halt"),
    "halt ignored": ("goal = 0.0 if halted else goal", "goal = goal"),
    "halt touches the shadow": (
        "answer = (targets[t, 0], targets[t, 1], targets[t, 2], 0.0)\n        stop",
        "answer = (0.0 if halt >= 1.0 else targets[t, 0], targets[t, 1], targets[t, 2], 0.0)\n        stop",
    ),
    "halt written as a signal": ("cause = HALTED", "cause = SIGNAL"),
    # Room, grids.
    "the rest of an order is forgotten": (
        "goal = wanted if changed else goal",
        "goal = wanted if changed else quantity",
    ),
    "room of the open and of the stop": (
        "        opened, leaving, reason = quantity",
        "        room = terms[t, ROOM]\n        opened, leaving, reason = quantity",
    ),
    "stop sells what there is no room for": ("capped = abs(quantity) > room", "capped = False"),
    "the rest of a stop is bought back": ("goal = 0.0 if out else goal", "goal = goal"),
    "the rest of a stop written as a signal": ("cause = STOPPED if stopped else TAKEN", "cause = SIGNAL"),
    "lots rounded": ("np.floor(abs(wanted) / unit + SAME_STEP)", "np.rint(abs(wanted) / unit)"),
    "parts off the grid": (
        "part = np.rint(part / unit) * unit if lot > 0.0 else part",
        "part = part * 0.999",
    ),
    "least notional ignored": ("wanted = kept if dropped else wanted", "wanted = wanted"),
    "least notional of parts ignored": ("filled = quantity if waits else filled", "filled = filled"),
    "largest quantity ignored": ("wanted = wanted if wanted < largest else largest", "wanted = wanted"),
    "ticks for the account": ("down = np.floor(price / tick + SAME_STEP)", "down = np.ceil(price / tick)"),
    "ticks of gaps": ("(tick > 0.0) & out & (not gapped)", "(tick > 0.0) & out"),
    # Funding.
    "funding credits longs": ("due = opened * price * inside", "due = -opened * price * inside"),
    "funding at the close credits longs": ("+ quantity * close * at_close", "- quantity * close * at_close"),
    "funding on the position before the open": (
        "opened, quantity, price, close, terms[t, FUNDING_INSIDE], terms[t, FUNDING_CLOSE]",
        "was, quantity, price, close, terms[t, FUNDING_INSIDE], terms[t, FUNDING_CLOSE]",
    ),
    "funding of who left before the close": ("+ quantity * close * at_close", "+ opened * close * at_close"),
    "funding at the close on the open": ("+ quantity * close * at_close", "+ quantity * price * at_close"),
    "credit for who left": ("missed = (due < 0.0) & (abs(quantity) < abs(opened))", "missed = False"),
    "debit missed like a credit": ("missed = (due < 0.0) &", "missed ="),
    "funding outside of the trades": ("funding - funding_inside)", "0.0)"),
    # Margin.
    "liquidation ignored": ("cost = cost if liquidated else 0.0", "liquidated = False\n    cost = 0.0"),
    "liquidation by the bar instead of the mark": (
        "mark = mark_low if long else mark_high",
        "mark = adverse",
    ),
    "liquidation by the closes": ("mark = mark_low if long else mark_high", "mark = price"),
    "liquidation beyond the bar": (
        "exit_price = adverse if (level - adverse) * side < 0.0 else level",
        "exit_price = level",
    ),
    "liquidation in a gap at the level": (
        "exit_price = price if gapped else exit_price\n    exit_price = exit_price if liq",
        "exit_price = exit_price if liq",
    ),
    "liquidated account opens again": ("goal = 0.0 if liquidated else goal", "goal = goal"),
    "margin kept by the account": ("cost = left if left > cost else cost", "cost = cost"),
    "first tier only": (
        "level = _nearer(level, _tier_level(quantity, posted, r1, a1), quantity)",
        "return level",
    ),
    "margin of an increase at the old price": (
        "grown = posted + (abs(after) - abs(before)) * price / leverage - (after - before) * price",
        "grown = posted * (after / before)",
    ),
    "margin kept by a reduction": (
        "kept = posted * (after / (before if before != 0.0 else 1.0))",
        "kept = posted",
    ),
    "margin kept by a stop without room": ("posted = posted * (quantity / at_exit)", "posted = posted"),
    "margin of a reversal added up": ("return kept if before * after > 0.0 else fresh", "return kept"),
    # The record.
    "trade profit before costs": ("trade[_PNL] += gain - fees - slippage - funding", "trade[_PNL] += gain"),
    "first quantity of a resized trade": ("trade[_SIZE] = max(trade[_SIZE], abs(quantity))", "pass"),
    "reason of a stop written as a target": ("cause = STOPPED if stopped else TAKEN", "cause = TAKEN"),
    "gap missing in the profit": ("trade[_PNL] += was * gap", "trade[_PNL] += 0.0"),
    "excursions without the bars held": (
        "_reach(trade, low, high)\n            else",
        "pass\n            else",
    ),
    "a stopped trade saw the whole bar": ("_reach(trade, leaving, leaving)", "_reach(trade, low, high)"),
    "the open of a bar is not seen": ("_reach(trade, price, price)", "pass"),
    "excursion of shorts like that of longs": (
        "adverse, favourable = (low, high) if long else (high, low)",
        "adverse, favourable = low, high",
    ),
    "penalty of a liquidation nowhere": (
        "inside_fees = cost - inside_slippage",
        "inside_fees = market * fee_rate",
    ),
}


@pytest.fixture(scope="module")
def battery():
    """Return scenarios and the twin's answers."""
    cases = [any_scenario(seed) for seed in range(250)]
    cases += [scenario(seed, n=30, tick=1.0 if seed % 3 == 0 else None) for seed in range(40)]
    cases += [scenario(seed, n=60, max_drawdown=0.0217) for seed in range(40, 60)]
    cases += [scenario(seed, n=60, daily_loss=0.0117) for seed in range(60, 70)]
    cases += [
        scenario(seed, leverage=4.0, gaps=False, rules=["margin", "mark", "grid"]) for seed in range(60)
    ]
    cases.append(ruinous())
    return [(case, twin(case)) for case in cases]


def caught(engine, battery):
    for case, answer in battery:
        try:
            with np.errstate(all="ignore"):
                found = disagreement(case, run(case, engine), answer)
        except (IndexError, ValueError, ZeroDivisionError) as error:
            return str(error)
        if found:
            return found
    return None


def test_b12_the_interpreted_kernel_without_a_planted_bug_passes_the_same_check(battery):
    assert caught(interpreted().simulate_targets, battery) is None


@pytest.mark.parametrize("bug", PLANTED)
def test_b12_a_planted_bug_is_caught(bug, battery):
    assert caught(interpreted(PLANTED[bug]).simulate_targets, battery) is not None

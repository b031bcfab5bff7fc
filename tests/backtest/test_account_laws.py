"""Laws of the account: books that balance, costs that never pay, scale, time, fills, determinism.

B1, B4, B5, B6, B8 and B11 of the guarantees, and the invariants beside them. Each law is a function that
names what breaks it, and each has engines with planted bugs that it must name.
"""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import kernels
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, simulate
from backtest.venue import Venue
from market.bars import OHLCV, Bars
from market.table import Table
from tests.reference.account import (
    CURVE,
    LAST_BAR,
    LIQUIDATED,
    OFF,
    RUINED,
    RULES,
    STOPPED,
    TAKEN,
    Bounds,
    Scenario,
    Terms,
    Trade,
    any_scenario,
    ledger,
    scenario,
    terms_of,
    twin,
)
from tests.reference.account import Venue as Entries
from tests.reference.cases import case_of, disagreement, run
from tests.reference.planted import interpreted

SEEDS = st.integers(0, 2**32 - 1)
SPOT = ("capital", "lot", "grid", "least", "most", "room", "maker", "impact", "long only")
PERPETUAL = ("capital", "funding", "margin", "mark", "room", "trail", "maker", "impact")
FEE, RATE, MAKER, IMPACT, ROOM, INSIDE, CLOSE, MARK_HIGH, MARK_LOW, _ = range(len(Terms._fields))


def compiled(case):
    return run(case, kernels.simulate_targets)


def planted(*change):
    """Return an engine in plain Python with a bug, or without."""
    engine = interpreted(*([change] if change else [])).simulate_targets

    def traded(case):
        with np.errstate(all="ignore"):
            return run(case, engine)

    return traded


# B1: the books.


def unbalanced(case, engine):
    """Return where the books of an engine differ from a ledger without rounding, or None."""
    done = engine(case)
    with localcontext() as context:
        context.prec = 100
        fills = ledger(case, Decimal)[0].fills
        cash, position, i = Decimal(float(case.venue[0])), Decimal(0), 0
        for t, (equity, *_, fees, slippage, funding, quantity) in enumerate(done.curve.tolist()):
            while i < len(fills) and fills[i].bar == t:
                position += Decimal(fills[i].quantity)
                cash -= Decimal(fills[i].quantity) * Decimal(fills[i].price)
                i += 1
            cash -= sum(map(Decimal, (fees, slippage, funding)))
            if equity <= 1.0001e-6 * case.venue[0]:
                return None  # ruin: the books are closed
            close = Decimal(float(case.prices[t, 3]))
            worth = cash + position * close
            if not abs(Decimal(equity) - worth) <= Decimal("1e-9") * worth:
                return f"equity of bar {t}: {equity} and {float(worth)}"
            if not abs(Decimal(quantity) - position) * close <= Decimal("1e-9") * worth:
                return f"quantity of bar {t}: {quantity} and {float(position)}"
    return None


@pytest.mark.parametrize("rules", [SPOT, PERPETUAL], ids=["spot", "perpetual"])
def test_b1_equity_is_cash_and_position_less_what_was_paid_at_every_bar(rules):
    fills = 0
    for seed in range(60):
        case = scenario(seed, n=250, rules=rules)
        assert unbalanced(case, compiled) is None, seed
        fills += np.count_nonzero(np.diff(compiled(case).column("quantity")))
    assert fills > 1500


def test_b1_the_twin_in_floating_point_is_the_twin_without_rounding():
    with localcontext() as context:
        context.prec = 100  # more than the product of two floats: no order is left with a rest of rounding
        for seed in range(200):
            case = any_scenario(seed)
            assert disagreement(case, twin(case), twin(case, Decimal)) is None, seed


def unexplained(case, engine):
    """Return which sum over the trades, all of them closed, is not that of the account, or None."""
    done = engine(case)
    capital = case.venue[0]
    if done.trades and not math.isclose(
        sum(t.pnl for t in done.trades), done.equity[-1] - capital, rel_tol=1e-9, abs_tol=1e-9 * capital
    ):
        return "profits"
    if not np.isclose(np.prod(1 + done.column("net_return")), done.equity[-1] / capital, rtol=1e-9):
        return "returns"
    for name in ("fees", "slippage", "funding"):
        paid = sum(getattr(t, name) for t in done.trades)
        if not np.isclose(done.column(name).sum(), paid, rtol=1e-9, atol=1e-10 * capital):
            return name
    return None


def test_b1_profits_fees_slippage_and_funding_of_the_trades_add_up_to_the_accounts():
    for seed in range(1500):
        assert unexplained(any_scenario(seed)._replace(close_last=True), compiled) is None, seed


@pytest.mark.parametrize(
    "bug",
    [
        ("curve[t, 0] = equity", "curve[t, 0] = equity - quantity * (close - price)"),
        (
            "            equity + quantity * gap,",
            "            equity,",
        ),
        ("curve[t, 6] = funding", "curve[t, 6] = funding_inside"),
        ("curve[t, 7] = quantity", "curve[t, 7] = goal"),
        ("inside_fees = cost - inside_slippage", "inside_fees = market * fee_rate"),
    ],
    ids=["marked at the open", "gap", "funding", "quantity", "penalty"],
)
def test_b1_books_that_do_not_balance_are_seen(bug):
    engine = planted(*bug)
    assert any(unbalanced(scenario(seed, n=60, rules=PERPETUAL), engine) for seed in range(20))


@pytest.mark.parametrize(
    "bug",
    [
        ("trade[_PNL] += gain - fees - slippage - funding", "trade[_PNL] += gain - fees"),
        ("trade[_PNL] += was * gap", "pass"),
        ("funding - funding_inside)", "0.0)"),
        ("(equity - before) / before\n        curve", "(equity - before) / equity\n        curve"),
        ("curve[t, 5] = slippage + inside_slippage", "curve[t, 5] = inside_slippage"),
    ],
    ids=["costs", "gap", "funding", "returns", "slippage"],
)
def test_b1_sums_that_do_not_add_up_are_seen(bug):
    engine = planted(*bug)
    assert any(unexplained(any_scenario(seed)._replace(close_last=True), engine) for seed in range(60))


# B4: with the same fills, higher costs never pay.


def same_fills(seed):
    """Return a scenario whose fills no cost can change: the venue's largest quantity binds every order."""
    rng = np.random.default_rng(seed)
    case = scenario(
        seed, n=40, rules=("margin", "mark", "funding", "maker", "room", "trail"), close_last=False
    )
    targets = case.targets.copy()
    targets[:, 0] = np.sign(np.nan_to_num(targets[:, 0]))
    terms = case.terms.copy()
    terms[:, :2] = np.sort(rng.uniform(0.0, 0.003, (40, 2)), axis=1)
    terms[:, MAKER] = rng.choice([-1.0, 0.0002])
    terms[:, IMPACT] = rng.uniform(0.0, 1e-4, 40)
    terms[:, ROOM] = np.where(np.isinf(terms[:, ROOM]), OFF, np.floor(300 * terms[:, ROOM]))  # of three units
    entries = Entries(*case.venue)._replace(capital=1e5, largest=3.0)
    return case._replace(targets=targets, terms=terms, venue=np.array(entries))


def dearer(case, done, seed):
    """Return the scenario with one of its costs raised, and the name of the cost."""
    rng = np.random.default_rng(seed)
    terms, by = case.terms.copy(), rng.uniform(0.1, 10.0)
    name = rng.choice(["fee", "slippage", "maker", "impact", "funding"])
    if name == "fee":
        terms[:, RATE] += by * terms[:, FEE]
        terms[:, FEE] *= 1 + by
    elif name == "slippage":
        terms[:, RATE] += by * (terms[:, RATE] - terms[:, FEE])
    elif name == "maker":
        terms[:, MAKER] *= np.where(terms[:, MAKER] > 0, 1 + by, 1.0)
    elif name == "impact":
        terms[:, IMPACT] *= 1 + by
    else:  # against whoever holds a position at the close
        terms[:, CLOSE] += 1e-4 * by * np.sign(done.column("quantity"))
    return case._replace(terms=terms), name


def paying_costs(seed, engine):
    """Return the cost that made an account richer, or the strange fills, or None."""
    case = same_fills(seed)
    done = engine(case)
    other, name = dearer(case, done, seed)
    more = engine(other)
    if not np.array_equal(done.column("quantity"), more.column("quantity")):
        return f"{name} changed the fills"
    if more.equity[-1] > done.equity[-1]:
        return name
    paid = np.abs(np.diff(done.column("quantity"))).any() and not any(
        t.reason == LIQUIDATED for t in done.trades
    )
    if name in ("fee", "slippage", "impact") and paid and not more.equity[-1] < done.equity[-1]:
        return f"{name} is free"
    return None


def test_b4_with_the_same_fills_higher_costs_never_pay():
    for seed in range(500):
        assert paying_costs(seed, compiled) is None, seed


@pytest.mark.parametrize(
    "bug",
    [
        ("cost = traded * rate", "cost = (filled - quantity) * price * rate"),
        ("cost = notional * maker if", "cost = -notional * maker if"),
        ("cost = cost + impact * roots if", "cost = cost - impact * roots if"),
        ("+ quantity * close * at_close", "- quantity * close * at_close"),
        ("+ quantity * close * at_close", "+ abs(quantity) * close * at_close"),
    ],
    ids=["shorts earn", "maker earns", "impact earns", "funding earns", "shorts pay like longs"],
)
def test_b4_a_cost_that_pays_is_seen(bug):
    engine = planted(*bug)
    assert any(paying_costs(seed, engine) for seed in range(60))


# B5: scale and week.


def in_other_money(case, k):
    """Return the scenario in a currency worth k times less: the same quantities at k times the price."""
    terms, tiers = case.terms.copy(), case.tiers.copy()
    terms[:, [MARK_HIGH, MARK_LOW]] *= k
    terms[:, IMPACT] /= math.sqrt(k)
    tiers[1] *= k
    old = Entries(*case.venue)
    venue = np.array(old._replace(capital=old.capital * k, tick=old.tick * k, least=old.least * k))
    return case._replace(prices=case.prices * k, terms=terms, venue=venue, tiers=tiers)


def for_a_larger_account(case, k):
    """Return the scenario for k times the capital in a market k times as deep: k times the quantities."""
    terms, tiers = case.terms.copy(), case.tiers.copy()
    terms[:, ROOM] *= k
    terms[:, IMPACT] /= math.sqrt(k)
    tiers[1] *= k
    venue = case.venue * np.array([k, 1.0, k, 1.0, k, k])
    return case._replace(terms=terms, venue=venue, tiers=tiers)


# How equity, return, exposure, turnover, fees, slippage, funding and quantity grow with k, and trades.
SCALES = {
    in_other_money: ([1, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]),
    for_a_larger_account: ([1, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]),
}


def distorted(case, scaled, k, engine, rtol):
    """Return what of an account does not scale, or None."""
    powers, of_trades = (k ** np.array(power, dtype=float) for power in SCALES[scaled])
    one, two = engine(case), engine(scaled(case, k))
    if len(one.trades) != len(two.trades):
        return "trades"
    expected, size = (
        one.curve * powers,
        np.array([case.venue[0], 1, 1, 1, *[case.venue[0]] * 3, case.venue[0] / 100]),
    )
    if not np.allclose(two.curve / (size * powers), expected / (size * powers), rtol=rtol, atol=rtol):
        return "curve"
    for a, b in zip(one.trades, two.trades, strict=True):
        if not np.allclose(np.array(b), np.array(a) * of_trades, rtol=rtol, atol=rtol * case.venue[0] * k):
            return "trade"
    return None


@pytest.mark.parametrize("scaled", SCALES)
def test_b5_an_account_scales_with_its_money(scaled):
    for seed in range(200):
        case = any_scenario(seed)
        for k in (4.0**-7, 4.0**10):  # nothing rounds: the same bits
            assert distorted(case, scaled, k, compiled, 0.0) is None, seed
        if not (
            case.prices % 0.25 == 0
        ).all():  # any other factor rounds, and a tie may fall on the other side
            k = 10.0 ** np.random.default_rng(seed).uniform(-4.0, 4.0)
            assert distorted(case, scaled, k, compiled, 1e-9) is None, seed


@pytest.mark.parametrize(
    ("scaled", "bug"),
    [
        (in_other_money, ("cost = cost + impact * roots if", "cost = cost + impact * traded if")),
        (in_other_money, ("abs(wanted - quantity) * price < least)", "abs(wanted - quantity) < least)")),
        (for_a_larger_account, ("cost = traded * rate", "cost = traded * rate + 1e-4 * traded * traded")),
        (in_other_money, ("rest = abs(quantity) - room", "rest = abs(quantity) - room / price")),
        (for_a_larger_account, ("RUIN * capital\n    account_stop", "RUIN\n    account_stop")),
    ],
    ids=["linear impact", "least quantity", "quadratic cost", "room in money", "ruin in money"],
)
def test_b5_what_does_not_scale_is_seen(scaled, bug):
    engine = planted(*bug)
    cases = [any_scenario(seed) for seed in range(60)]
    cases += [case_of([(100,) * 4, (100,) * 4, (300,) * 4], [-1, -1, -1])]
    assert any(distorted(case, scaled, 4.0**5, engine, 1e-9) for case in cases)


HOUR = 3_600_000_000_000
WEEK = 7 * 24 * HOUR


def bars_from(case, start):
    volume = np.full((len(case.prices), 1), 1e4)
    time = start + HOUR * np.arange(1, len(case.prices) + 1)
    return Bars(time, np.hstack([case.prices, volume]), OHLCV, "TEST/USD", HOUR)


def test_b5_a_week_later_changes_nothing_but_the_times():
    costs, venue = Costs(size_impact=1.0, participation=0.02), Venue(kind="perpetual", leverage=3.0)
    limits = RiskLimits(max_exposure=2.0, stop=0.05, trail=0.04, daily_loss=0.04, max_drawdown=0.3)
    traded = funded = 0
    for seed in range(200):
        case = scenario(seed, n=60, leverage=2.0)
        one, two = (
            simulate(Table(bars.time, case.targets, TARGETS), bars, costs, limits, venue=venue)
            for bars in (bars_from(case, WEEK * 2600), bars_from(case, WEEK * 2601))
        )
        assert np.array_equal(one.curve.values, two.curve.values)
        assert np.array_equal(two.curve.time, one.curve.time + WEEK)
        for name in one.trades.dtype.names:
            shift = WEEK if name.endswith("_time") else 0
            assert np.array_equal(two.trades[name], one.trades[name] + shift)
        traded += len(one.trades)
        funded += one.curve.column("funding").any()
    assert traded > 1000
    assert funded > 80


# B6: fills.


def strange_fill(case, fills):
    """Return the first fill at a price that its bar did not offer, or None."""
    for fill in fills:
        opened, high, low, close = case.prices[fill.bar]
        if fill.bar == 0:
            return "before any decision was made", fill
        if fill.reason == LAST_BAR and fill.price != close:
            return "not at the last close", fill
        if fill.reason not in (STOPPED, TAKEN, LIQUIDATED, LAST_BAR) and fill.price != opened:
            return "not at the open", fill
        # Only a target passed by a gap fills outside of its bar, and then for the worse.
        worse = fill.price < low if fill.quantity < 0 else fill.price > high
        if not low <= fill.price <= high and not (fill.reason == TAKEN and worse):
            return "outside of its bar", fill
    return None


def strange_trade(case, done):
    """Return the first trade whose prices its bars did not offer, or that overlaps another, or None."""
    last = 0
    for one in done.trades:
        opened, high, low, close = case.prices[one.exit]
        if not last <= one.entry <= one.exit or one.entry == 0:
            return "order in time", one
        if one.entry_price != case.prices[one.entry, 0]:
            return "entry not at the open", one
        if one.reason in (LAST_BAR, RUINED) and one.exit_price != close:
            return "not at the last close", one
        inside = one.reason in (STOPPED, TAKEN, LIQUIDATED)
        if not inside and one.reason not in (LAST_BAR, RUINED) and one.exit_price != opened:
            return "exit not at the open", one
        worse = (one.exit_price < low) if one.side > 0 else (one.exit_price > high)
        if not low <= one.exit_price <= high and not (one.reason == TAKEN and worse):
            return "outside of its bar", one
        # Where orders wait or are dropped, an account may own what its target no longer means.
        certain = np.isinf(case.terms[:, ROOM]).all() and Entries(*case.venue).least == 0
        if one.reason == STOPPED and certain and (opened - one.exit_price) * one.side < 0:
            return "a stop better than the open", one
        reached = one.side * (one.exit_price / one.entry_price - 1)
        if not min(one.mae, 0) <= reached <= max(one.mfe, 0) or one.mae > 0 or one.mfe < 0:
            return "excursions", one
        last = one.exit
    return None


def test_b6_every_fill_is_inside_its_bar_or_at_its_open_or_a_target_that_a_gap_passed():
    fills = 0
    for seed in range(2000):
        case = any_scenario(seed)
        assert strange_trade(case, compiled(case)) is None, seed
        account, _ = ledger(case)  # the kernel's, fill by fill: B2
        assert strange_fill(case, account.fills) is None, seed
        fills += len(account.fills)
    assert fills > 20_000


@pytest.mark.parametrize(
    "bug",
    [
        ("gapped = (price - stop) * side < 0.0", "gapped = False"),
        ("exit_price = adverse if (level - adverse) * side < 0.0 else level", "exit_price = level"),
        (
            "exit_price = exit_price if stopped else take",
            "exit_price = exit_price if stopped else close_of(take)",
        ),
        (
            "= prices[t, 0], prices[t, 1], prices[t, 2], prices[t, 3]\n        rate, fee_rate",
            "= prices[t, 3], prices[t, 1], prices[t, 2], prices[t, 3]\n        rate, fee_rate",
        ),
        (
            "trade[_ENTRY], trade[_ENTRY_PRICE] = row, price",
            "trade[_ENTRY], trade[_ENTRY_PRICE] = row - 1, price",
        ),
    ],
    ids=["stop in a gap", "mark", "better than the target", "close", "a bar early"],
)
def test_b6_a_strange_fill_is_seen(bug):
    before, after = bug
    engine = planted(before, after.replace("close_of(take)", "1.01 * take if side > 0.0 else 0.99 * take"))
    assert any(strange_trade(case, engine(case)) for case in map(any_scenario, range(100)))


# B8: time.


def replayed(close, path, engine):
    """Return the profit of holding given quantities between given closes, without costs."""
    opened = np.concatenate([close[:1], close[:-1]])
    prices = np.column_stack([opened, np.maximum(opened, close), np.minimum(opened, close), close])
    equity = 1.0 + np.concatenate([[0.0], np.cumsum(path * np.diff(close))])
    exposure = np.append(path, 0.0) * close / equity  # of the next open, which is this close
    return engine(case_of(prices, exposure.tolist(), cap=9.0)).equity[-1] - 1.0


def irreversible(seed, engine):
    """Return the profits forward and backward where one is not minus the other, or None."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 50)))
    path = rng.choice([-2e-3, 0.0, 1e-3, 3e-3], 49)  # quantities held between two closes
    forward, backward = replayed(close, path, engine), replayed(close[::-1], path[::-1], engine)
    if abs(forward - float(path @ np.diff(close))) > 1e-12 or abs(forward + backward) > 1e-12:
        return forward, backward
    return None


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_b8_a_position_path_replayed_backwards_gives_minus_its_profit(seed):
    assert irreversible(seed, compiled) is None


def test_b8_a_position_held_a_bar_too_long_is_seen():
    assert irreversible(1, planted()) is None
    late = planted(
        "gap = price - prices[t - 1, 3] if t > 0 else 0.0\n        before",
        "price = prices[t, 3]\n        gap = price - prices[t - 1, 3] if t > 0 else 0.0\n        before",
    )
    assert irreversible(1, late) is not None


# B11: the same bytes.


def digest(engine, filler=0.0):
    """Return the SHA-256 of everything that an engine writes into arrays that held something else."""
    found = hashlib.sha256()
    for case in map(any_scenario, range(60)):
        curve = np.full((len(case.targets), len(CURVE)), filler)
        trades = np.full((2 * len(case.targets) + 1, len(Trade._fields)), filler)
        count = engine(*case, curve, trades)
        found.update(curve.tobytes() + trades[:count].tobytes())
    return found.hexdigest()


def test_b11_the_same_scenarios_give_the_same_bytes_in_any_thread_at_any_time():
    with ThreadPoolExecutor(4) as threads:
        digests = set(
            threads.map(lambda filler: digest(kernels.simulate_targets, filler), [0.0, math.nan, 1e300, 1.0])
        )
    assert digests == {digest(kernels.simulate_targets) for _ in range(3)}


def test_b11_an_answer_that_depends_on_what_was_there_is_seen():
    def careless(*arguments):
        count = kernels.simulate_targets(*arguments)
        arguments[-2][-1, 7] += arguments[-1][-1, 0]  # a cell that no trade was written into
        return count

    with np.errstate(all="ignore"):
        assert len({digest(careless, filler) for filler in (0.0, 1.0)}) == 2


# Invariants and limits.


def test_without_a_position_equity_stands_still():
    for seed in range(200):
        case = any_scenario(seed)
        done = compiled(case)
        still = (done.column("turnover") == 0) & (np.append(0.0, done.column("quantity")[:-1]) == 0)
        assert not done.curve[still][:, 1:].any()
        assert still.any() or seed


def test_where_there_is_no_room_nothing_is_traded_before_the_last_close():
    for seed in range(100):
        case = any_scenario(seed, rules=[rule for rule in RULES if rule != "margin"])._replace(
            close_last=False
        )
        terms = case.terms.copy()
        terms[len(terms) // 2 :, ROOM] = 0.0
        done = compiled(case._replace(terms=terms))
        ruined = any(one.reason == RUINED for one in done.trades)
        assert ruined or not done.column("turnover")[len(terms) // 2 :].any()


def continuous(seed):
    """Return a market without gaps and costs, and positions as large as their margin allows."""
    case = scenario(seed, n=60, gaps=False, leverage=4.0)
    targets = np.tile([4.0, OFF, OFF], (60, 1)) * np.where(np.arange(60) // 10 % 2, -1.0, 1.0)[:, None]
    targets[:, 1:] = OFF
    bounds = Bounds(largest=4.0, smallest=-4.0)
    return Scenario(
        targets,
        case.prices,
        terms_of(case.prices),
        np.array(bounds),
        np.array(Entries(leverage=4.0)),
        case.tiers,
    )


def test_b10_a_margined_account_loses_no_more_than_its_margin_in_a_market_without_gaps():
    def ruined(engine, seeds):
        return sum(
            min(engine(continuous(seed)).equity) < -1e-12
            or any(t.reason == RUINED for t in engine(continuous(seed)).trades)
            for seed in seeds
        )

    assert ruined(compiled, range(200)) == 0
    bug = ("cost = cost if liquidated else 0.0", "liquidated = False\n    cost = 0.0")
    assert ruined(planted(*bug), range(60)) > 0


def test_a_rule_that_knows_the_next_bar_is_enormously_profitable():
    case = scenario(3, n=500, gaps=False)
    knows = np.sign(case.prices[1:, 3] - case.prices[1:, 0])
    done = compiled(case_of(case.prices, [*knows, 0.0], fee=0.0002))
    assert done.equity[-1] > 100.0
    wrong = compiled(case_of(case.prices, [*-knows, 0.0], fee=0.0002))
    assert wrong.equity[-1] < 0.01

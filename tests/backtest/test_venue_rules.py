"""What a venue adds: grids of quantity and price, room in a bar, funding, margin, liquidation (B9, B10)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from backtest import kernels
from backtest.venue import MarginTier, Venue
from tests.reference import account as reference
from tests.reference.account import HALTED, LAST_BAR, LIQUIDATED, OFF, SIGNAL, STOPPED, TAKEN, scenario
from tests.reference.cases import case_of, ends, flat, run
from tests.reference.planted import interpreted


def quantities(done):
    return done.column("quantity").tolist()


# Quantities: lots, the largest position, the least order.


def test_quantities_are_rounded_toward_zero_on_the_grid_of_lots(trade):
    for side in (1, -1):
        done = trade([flat(100)] * 3, [0.79 * side, 0, 0], capital=1000.0, lot=1.0)
        assert quantities(done) == [0, 7 * side, 0]


def test_a_multiple_of_the_lot_stays_itself(trade):
    assert 0.3 / 0.1 < 3  # in floating point
    done = trade([flat(128)] * 2, [1, 1], capital=0.3 * 128, lot=0.1, close_last=False)
    assert quantities(done)[1] == pytest.approx(0.3, rel=1e-15)


def test_less_than_a_lot_is_nothing_and_closes_what_there_is(trade):
    done = trade([flat(100)] * 4, [1, 0.05, 0.05, 0.05], capital=1000.0, lot=1.0)
    assert ends(done) == [(1, 2, 100.0, SIGNAL)]
    assert quantities(done) == [0, 10, 0, 0]


def test_no_position_is_larger_than_the_venue_allows(trade):
    done = trade([flat(100)] * 4, [1, -1, -1, 0], capital=1000.0, most=4.0, close_last=False)
    assert quantities(done) == [0, 4, -4, -4]


def test_an_order_below_the_least_notional_is_dropped(trade):
    done = trade([flat(100)] * 4, [0.25, 0.5, 1, 1], capital=1000.0, least=300.0, close_last=False)
    assert quantities(done) == [0, 0, 5, 10]
    done = trade([flat(100)] * 4, [0.5, 0.75, -0.25, 0], capital=1000.0, least=300.0, close_last=False)
    assert quantities(done) == [0, 5, 5, -2.5]  # a reversal is one order of 750


def test_an_order_of_exactly_the_least_notional_is_sent(trade):
    done = trade([flat(128)] * 2, [0.25, 0], capital=1024.0, least=256.0, close_last=False)
    assert quantities(done) == [0, 2]


def test_a_dropped_order_is_not_tried_again_but_its_levels_stand(trade):
    bars = [flat(100), flat(100), flat(100), (100, 100, 94, 95), flat(95)]
    targets = [(0.5, OFF, OFF), (0.6, 0.05, OFF), (0.6, 0.05, OFF), (0, OFF, OFF), (0, OFF, OFF)]
    done = trade(bars, targets, capital=1000.0, least=300.0)
    assert quantities(done) == [0, 5, 5, 0, 0]
    assert ends(done) == [(1, 3, 95.0, STOPPED)]


def test_a_position_below_the_least_notional_may_be_closed(trade):
    done = trade([flat(100), flat(100), flat(20), flat(20)], [0.5, 0, 0, 0], capital=1000.0, least=300.0)
    assert ends(done) == [(1, 2, 20.0, SIGNAL)]


# Prices: the tick.


def test_exits_inside_a_bar_are_rounded_against_the_account(trade):
    bars = [flat(100), (100, 130, 70, 100)]
    assert ends(trade(bars, [1, 0], stop=0.09, tick=2.0)) == [(1, 1, 90.0, STOPPED)]
    assert ends(trade(bars, [-1, 0], stop=0.09, tick=2.0)) == [(1, 1, 110.0, STOPPED)]
    assert ends(trade(bars, [1, 0], take=0.09, tick=2.0)) == [(1, 1, 108.0, TAKEN)]
    assert ends(trade(bars, [-1, 0], take=0.09, tick=2.0)) == [(1, 1, 92.0, TAKEN)]
    # margin 10 at 100: nothing is left at 90
    assert ends(trade(bars, [1, 0], leverage=10.0, tick=4.0)) == [(1, 1, 88.0, LIQUIDATED)]
    assert ends(trade(bars, [-1, 0], leverage=10.0, tick=4.0)) == [(1, 1, 112.0, LIQUIDATED)]


def test_the_tick_rounds_no_price_beyond_its_bar(trade):
    assert ends(trade([flat(100), (100, 100, 91, 95)], [1, 0], stop=0.09, tick=2.0))[0][2] == 91.0
    assert ends(trade([flat(100), (100, 109, 100, 105)], [-1, 0], stop=0.09, tick=2.0))[0][2] == 109.0


def test_what_fills_at_an_open_is_not_rounded(trade):
    assert ends(trade([flat(100), flat(101), flat(101)], [1, 0, 0], tick=2.0)) == [(1, 2, 101.0, SIGNAL)]
    gap = [flat(100), flat(100), (85, 90, 80, 85)]
    assert ends(trade(gap, [1, 1, 0], stop=0.09, tick=2.0)) == [(1, 2, 85.0, STOPPED)]


def test_a_target_passed_by_a_gap_is_no_better_on_a_grid_either(trade):
    assert ends(trade([flat(100), flat(100), flat(140)], [1, 1, 0], take=0.09, tick=2.0))[0][2] == 108.0
    assert ends(trade([flat(100), flat(100), flat(60)], [-1, -1, 0], take=0.09, tick=2.0))[0][2] == 92.0


def test_a_multiple_of_the_tick_stays_itself(trade):
    assert (0.4 - 0.4 * 0.25) / 0.1 > 3  # in floating point
    done = trade([flat(0.4), (0.4, 0.4, 0.2, 0.3)], [-1, 0], take=0.25, tick=0.1)
    assert done.trades[0].exit_price == pytest.approx(0.3, rel=1e-15)


# Room in a bar.


def test_what_a_bar_has_no_room_for_is_carried_to_the_next_opens(trade):
    bars = [flat(100), flat(100), flat(110), flat(120), flat(125)]
    done = trade(bars, [1] * 5, capital=1000.0, room=[9, 4, 0, 4, 9], close_last=False)
    assert quantities(done) == pytest.approx([0, 4, 4, 8, 10])
    assert done.column("turnover") == pytest.approx([0, 0.4, 0, 480 / 1040, 250 / 1080])


def test_a_carried_order_ends_with_the_target_that_wanted_it(trade):
    done = trade([flat(100)] * 4, [1, 0, 0, 0], capital=1000.0, room=3.0)
    assert quantities(done) == [0, 3, 0, 0]
    done = trade([flat(100)] * 5, [1, -0.5, -0.5, -0.5, 0], capital=1000.0, room=4.0, close_last=False)
    assert quantities(done) == [0, 4, 0, -4, -5]


def test_a_stop_takes_the_room_that_is_left_and_its_rest_goes_at_the_next_opens(trade):
    bars = [flat(100), flat(100), (100, 100, 80, 85), flat(84), flat(83), flat(82)]
    room = [9, 9, 4, 3, 9, 9]
    done = trade(bars, [0.8, 0.8, 0, 0, 0, 0], capital=1000.0, stop=0.1, room=room)
    assert quantities(done) == [0, 8, 4, 1, 0, 0]
    assert ends(done) == [(1, 4, 83.0, STOPPED)]
    assert done.trades[0].pnl == pytest.approx(4 * -10 + 3 * -16 - 17)


def test_the_open_and_the_stop_of_a_bar_share_its_room(trade):
    bars = [flat(100), (100, 100, 80, 85), flat(84)]
    done = trade(bars, [0.6, 0, 0], capital=1000.0, stop=0.1, room=[9, 8, 9])
    assert quantities(done) == [0, 4, 0]
    done = trade(bars, [0.6, 0, 0], capital=1000.0, stop=0.1, room=[9, 5, 9])
    assert quantities(done) == [0, 5, 0]


def test_the_rest_of_a_target_is_sold_as_a_market_order(trade):
    bars = [flat(100), flat(100), (100, 130, 100, 100), flat(100)]
    options = {"capital": 1000.0, "take": 0.25, "fee": 0.01, "maker": 0.001, "room": [9, 9, 3, 9]}
    done = trade(bars, [0.808, 0.808, 0, 0], **options)
    assert quantities(done) == pytest.approx([0, 8, 5, 0])
    assert done.column("fees") == pytest.approx([0, 8, 0.375, 5])
    assert ends(done) == [(1, 3, 100.0, TAKEN)]


def test_a_stop_of_the_shadow_ends_an_order_that_waits(trade):
    bars = [flat(100), (100, 100, 85, 95), flat(95), flat(95)]
    done = trade(bars, [(1, 0.1, OFF), 0, 0, 0], capital=1000.0, room=[9, 0, 9, 9])
    assert quantities(done) == [0, 0, 0, 0]
    assert done.trades == []


def test_a_halt_waits_for_room_too_and_stays_the_cause(trade):
    bars = [flat(100), flat(100), flat(50), flat(50), flat(50), flat(50)]
    room, days = [9, 9, 9, 3, 9, 9], [1, 0, 0, 0, 1, 0]
    done = trade(bars, [0.8] * 4 + [0, 0], capital=1000.0, daily_loss=0.25, room=room, new_day=days)
    assert quantities(done) == [0, 8, 8, 5, 0, 0]
    assert ends(done) == [(1, 4, 50.0, HALTED)]


def test_a_part_below_the_least_notional_waits_unless_it_closes_everything(trade):
    options = {"capital": 1000.0, "least": 300.0, "close_last": False}
    done = trade([flat(100)] * 4, [1] * 4, room=[9, 2, 9, 9], **options)
    assert quantities(done) == [0, 0, 9, 9]  # the last unit waits for ever
    done = trade([flat(100)] * 4, [1, 0, 0, 0], room=[9, 12, 8, 2], **options)
    assert quantities(done) == [0, 10, 2, 0]


def test_a_part_below_the_least_notional_waits_at_a_stop_as_well(trade):
    bars = [flat(100), flat(100), (100, 100, 80, 90), flat(90)]
    done = trade(bars, [1, 1, 0, 0], capital=1000.0, least=300.0, stop=0.1, room=[99, 99, 2, 99])
    assert quantities(done) == [0, 10, 10, 0]
    assert ends(done) == [(1, 3, 90.0, STOPPED)]


def test_an_account_on_the_wrong_side_is_not_paid_a_target_that_a_gap_has_passed(trade):
    # 3 at 100; at 60 they should become a short, but that bar has no room, and what the next has room for is
    # too small to be sent unless it closes. The short that the target means has its own target at 54: where
    # the market opens at 40, nobody buys at 54.
    bars = [flat(100), flat(100), flat(60), flat(40), flat(40)]
    short = (-0.3, OFF, 0.1)
    options = {"capital": 1000.0, "least": 300.0, "take": 0.1, "room": [9, 9, 0, 3.5, 9]}
    done = trade(bars, [(0.3, OFF, OFF), short, short, 0, 0], **options)
    assert quantities(done) == [0, 3, 3, 0, 0]
    assert ends(done) == [(1, 3, 40.0, TAKEN)]
    bars[3] = (60, 60, 50, 55)  # but it leaves at the target where the market goes there
    done = trade(bars, [(0.3, OFF, OFF), short, short, 0, 0], **options)
    assert ends(done) == [(1, 3, 54.0, TAKEN)]


def test_a_reversal_that_is_too_small_to_be_sent_closes_the_old_side(trade):
    # 3 at 100; at 60 an order of 224 would turn them into a short, and 300 is the least.
    bars = [flat(100), flat(100), flat(60), flat(40)]
    done = trade(bars, [0.3, -0.05, -0.05, 0], capital=1000.0, least=300.0)
    assert quantities(done) == [0, 3, 0, 0]
    assert ends(done) == [(1, 2, 60.0, SIGNAL)]


def test_carried_parts_stay_on_the_grid_of_lots(trade):
    done = trade([flat(100)] * 4, [1] * 4, capital=1000.0, lot=0.1, room=[9, 0.3, 0.3, 0.3], close_last=False)
    assert quantities(done) == [0, 3 * 0.1, 6 * 0.1, 9 * 0.1]


def test_the_last_close_and_a_liquidation_need_no_room(trade):
    done = trade([flat(100), flat(100), flat(90)], [0.8, 0.8, 0], capital=1000.0, room=[9, 9, 0])
    assert ends(done) == [(1, 2, 90.0, LAST_BAR)]
    bars = [flat(100), flat(100), (100, 100, 80, 85), flat(85)]
    done = trade(bars, [0.8, 0.8, 0.8, 0], capital=1000.0, leverage=10.0, room=[9, 9, 0, 9])
    assert ends(done) == [(1, 2, 90.0, LIQUIDATED)]


# Funding: positions held at the settlement; a positive rate debits longs.


def test_a_positive_rate_debits_longs_and_credits_shorts(trade):
    for side in (1, -1):
        done = trade([flat(100), flat(100), flat(100)], [0.5 * side, 0, 0], funding_close=[0, 0.01, 0])
        assert done.column("funding").tolist() == pytest.approx([0, 0.005 * side, 0])
        assert done.trades[0].funding == pytest.approx(0.005 * side)
        assert done.trades[0].pnl == pytest.approx(-0.005 * side)
        assert done.equity[2] == pytest.approx(1 - 0.005 * side)


def test_funding_at_a_close_is_paid_on_the_value_at_that_close(trade):
    done = trade([flat(100), (100, 150, 100, 150), flat(150)], [1, 0, 0], funding_close=[0, 0.01, 0])
    assert done.column("funding")[1] == pytest.approx(0.015)


def test_funding_is_paid_by_what_is_held_at_the_instant_and_by_nobody_else(trade):
    bars = [flat(100), flat(100), (100, 100, 89, 95), flat(95)]
    paid = {t: [0.01 if t == row else 0.0 for row in range(4)] for t in range(4)}
    # Decided at close 0, bought at open 1, stopped inside bar 2.
    for t, at_close in enumerate([0, 0.01, 0, 0]):
        done = trade(bars, [1, 1, 0, 0], stop=0.1, funding_close=paid[t])
        assert done.column("funding").sum() == pytest.approx(at_close)
    for t, inside in enumerate([0, 0.01, 0.01, 0]):
        done = trade(bars, [1, 1, 0, 0], stop=0.1, funding_inside=paid[t])
        assert done.column("funding").sum() == pytest.approx(inside)
    # Sold at open 2: an instant at the close of bar 1 finds it, one inside bar 2 does not.
    assert trade(bars, [1, 0, 0, 0], funding_close=paid[1]).column("funding").sum() == pytest.approx(0.01)
    assert trade(bars, [1, 0, 0, 0], funding_inside=paid[2]).column("funding").sum() == 0


def test_funding_at_the_last_close_is_paid_before_the_position_is_closed(trade):
    done = trade([flat(100), flat(100)], [1, 0], funding_close=0.01)
    assert done.column("funding")[1] == pytest.approx(0.01)
    assert done.trades[0].funding == pytest.approx(0.01)


def test_a_credit_inside_a_bar_is_missed_by_a_position_that_left_it_and_a_debit_is_not(trade):
    bars = [flat(100), flat(100), (100, 100, 89, 95), flat(95)]
    for rate, paid in ((0.01, 0.01), (-0.01, 0.0)):
        done = trade(bars, [1, 1, 0, 0], stop=0.1, funding_inside=[0, 0, rate, 0])
        assert done.column("funding").tolist() == pytest.approx([0, 0, paid, 0])
        done = trade(bars, [1, 1, 0, 0], leverage=12.0, funding_inside=[0, 0, rate, 0])
        assert done.trades[0].reason == LIQUIDATED
        assert done.trades[0].funding == pytest.approx(paid)
    done = trade(bars, [1, 1, 0, 0], funding_inside=[0, 0, -0.01, 0])
    assert done.column("funding").tolist() == pytest.approx([0, 0, -0.01, 0])


def test_a_credit_is_missed_by_a_position_that_left_in_part_but_not_by_one_that_could_not_leave(trade):
    bars = [flat(100), flat(100), (100, 100, 89, 95), flat(95)]
    options = {"stop": 0.1, "capital": 1000.0, "funding_inside": [0, 0, -0.01, 0]}
    done = trade(bars, [1, 1, 0, 0], room=[99, 99, 4, 99], **options)
    assert done.column("funding").tolist() == pytest.approx([0, 0, 0, 0])
    done = trade(bars, [1, 1, 0, 0], room=[99, 99, 0, 99], **options)
    assert done.column("funding").tolist() == pytest.approx([0, 0, -10, 0])


def test_an_order_that_used_up_the_room_leaves_none_for_the_stop(trade):
    # In floating point 0.1 + 0.2 - 0.1 is not 0.2: what is left of the room must be nothing all the same.
    bars = [flat(100), flat(100), (100, 100, 89, 95), flat(95)]
    done = trade(
        bars, [1, 1, 0, 0], stop=0.1, capital=1000.0, room=[9, 0.1, 0.2, 99], funding_inside=[0, 0, -0.01, 0]
    )
    assert quantities(done)[2] == pytest.approx(0.3)
    assert done.column("funding")[2] == pytest.approx(-0.3)
    # And less than nothing would open a position where a liquidation has just closed one.
    for room in (0.1, 0.2, 0.3, 0.7):
        done = trade(
            bars,
            [1, 1, 0, 0],
            stop=0.1,
            capital=1000.0,
            leverage=20.0,
            room=[9, 0.7, room, 0],
            close_last=False,
        )
        assert ends(done) == [(1, 2, pytest.approx(95.0), LIQUIDATED)]
        assert quantities(done) == [0, 0.7, 0, 0]


# Margin and liquidation.


def test_nothing_is_liquidated_without_margin(trade):
    done = trade([flat(100), (100, 100, 60, 70)], [1, 0], leverage=0.0, tiers=[(0.5, 0.0)])
    assert done.trades[0].reason == LAST_BAR


def test_liquidation_is_where_margin_and_loss_meet_the_maintenance_margin(trade):
    # 10 at 100 with 4x: margin 250. Long: 250 + 10 (p - 100) = 0.2 * 10 p, so p = 93.75.
    bars = [flat(100), (100, 100, 93.75, 95)]
    done = trade(bars, [1, 0], capital=1000.0, leverage=4.0, tiers=[(0.2, 0.0)])
    assert ends(done) == [(1, 1, 93.75, LIQUIDATED)]
    assert done.equity[1] == pytest.approx(750.0)  # what is left of the margin stays with the exchange
    bars = [flat(100), (100, 100, 93.7501, 95)]
    assert trade(bars, [1, 0], capital=1000.0, leverage=4.0, tiers=[(0.2, 0.0)]).trades[0].reason == LAST_BAR
    # Short: 250 - 10 (p - 100) = 0.25 * 10 p, so p = 100: never; with 0.1 it is p = 1250 / 11.
    for rate, level in ((0.1, 1250 / 11), (0.0, 125.0)):
        done = trade(
            [flat(100), (100, 130, 99, 110)], [-1, 0], capital=1000.0, leverage=4.0, tiers=[(rate, 0)]
        )
        assert done.trades[0].exit_price == pytest.approx(level)
        assert done.equity[1] == pytest.approx(750.0)


def test_what_is_left_of_the_margin_counts_as_fees_beyond_a_market_orders_cost(trade):
    options = {"capital": 1000.0, "leverage": 4.0, "tiers": [(0.2, 0.0)], "fee": 0.01, "slippage": 0.002}
    done = trade([flat(100), flat(100), (100, 100, 90, 95)], [1, 1, 0], **options)
    quantity = 1000 / 101.2
    margin, price = quantity * 25, 93.75
    slippage = quantity * price * 0.002
    left = margin + quantity * (price - 100)
    assert done.trades[0].exit_price == pytest.approx(price)
    assert done.column("slippage")[2] == pytest.approx(slippage)
    assert done.column("fees")[2] == pytest.approx(left - slippage)
    assert done.equity[2] == pytest.approx(1000 - quantity * 1.2 - margin)


def test_a_liquidation_costs_a_market_order_where_less_than_that_is_left(trade):
    done = trade([flat(128), (128, 128, 96, 100)], [1, 0], leverage=4.0, fee=0.125, capital=1152.0)
    assert ends(done) == [(1, 1, 96.0, LIQUIDATED)]  # 8 at 128: nothing is left
    assert done.equity[1] == pytest.approx(1152 - 128 - 256 - 96)


def test_the_mark_decides_and_the_fill_stays_inside_the_bar(trade):
    bars, options = [flat(100), (100, 110, 95, 100)], {"leverage": 10.0, "close_last": False}
    assert trade(bars, [1, 0], mark_low=[100, 90.5], **options).trades == []
    assert ends(trade(bars, [1, 0], mark_low=[100, 89.5], **options)) == [(1, 1, 95.0, LIQUIDATED)]
    assert trade(bars, [-1, 0], mark_high=[100, 109.5], **options).trades == []
    assert ends(trade(bars, [-1, 0], mark_high=[100, 115], **options)) == [(1, 1, 110.0, LIQUIDATED)]
    # The market went further than the mark: the level is in the bar, and was not reached.
    bars = [flat(100), (100, 120, 85, 100)]
    assert trade(bars, [1, 0], mark_low=[100, 91], **options).trades == []
    assert trade(bars, [-1, 0], mark_high=[100, 109], **options).trades == []


def test_a_gap_beyond_the_level_fills_at_the_open_and_the_loss_beyond_the_margin_is_the_accounts(trade):
    done = trade([flat(100), flat(100), (70, 75, 65, 72)], [1, 1, 0], capital=1000.0, leverage=10.0, fee=0.01)
    quantity = 1000 / 101
    assert ends(done) == [(1, 2, 70.0, LIQUIDATED)]
    assert done.equity[2] == pytest.approx(1000 - quantity * (1 + 30 + 0.7))


def test_liquidation_comes_before_a_stop_that_is_nearer(trade):
    done = trade([flat(100), (100, 100, 85, 95)], [1, 0], stop=0.02, leverage=10.0)
    assert ends(done) == [(1, 1, 90.0, LIQUIDATED)]
    done = trade([flat(100), (100, 120, 85, 95)], [1, 0], take=0.02, leverage=10.0)
    assert ends(done) == [(1, 1, 90.0, LIQUIDATED)]


def test_after_a_liquidation_the_account_stays_flat_until_the_target_changes(trade):
    bars = [flat(100), (100, 100, 85, 95), flat(95), flat(95), flat(95), flat(95)]
    done = trade(bars, [1, 1, 1, 0.5, 0.5, 0.5], capital=1000.0, leverage=10.0, close_last=False)
    assert done.column("exposure") == pytest.approx([0, 0, 0, 0, 0.5, 0.5])


def test_a_stop_of_the_shadow_on_the_bar_of_a_liquidation_lets_a_standing_target_back_in(trade):
    bars = [flat(100), (100, 100, 85, 95), flat(95)]
    done = trade(bars, [1, 1, 1], stop=0.1, capital=1000.0, leverage=10.0, close_last=False)
    assert done.column("exposure") == pytest.approx([0, 0, 1])


def test_margin_follows_increases_at_their_own_prices_and_is_released_in_proportion(trade):
    # 5 at 100 and 5 more at 80 with 2x: margin 250 + 200, entry 90, so the level is 45.
    bars = [flat(100), flat(100), flat(80), (80, 80, 45.01, 80), (80, 80, 45, 80)]
    done = trade(
        bars, [(0.5, OFF, OFF), (8 / 9, OFF, OFF), *[(8 / 9, OFF, OFF)] * 3], capital=1000.0, leverage=2.0
    )
    assert quantities(done)[3] == pytest.approx(10)
    assert ends(done) == [(1, 4, pytest.approx(45.0), LIQUIDATED)]
    # A reduction changes neither the entry price nor the level.
    bars = [flat(100), flat(100), flat(120), (120, 120, 50.01, 80), (80, 80, 50, 80)]
    done = trade(bars, [1, 0.25, 0.25, 0.25, 0.25], capital=1000.0, leverage=2.0)
    assert ends(done) == [(1, 4, pytest.approx(50.0), LIQUIDATED)]
    # A reversal posts anew.
    bars = [flat(100), flat(100), flat(100), (100, 149.9, 100, 120), (120, 150, 120, 130)]
    done = trade(bars, [1, -1, -1, -1, -1], capital=1000.0, leverage=2.0)
    assert ends(done) == [(1, 2, 100.0, SIGNAL), (2, 4, pytest.approx(150.0), LIQUIDATED)]


# B10: the exchange's formula. Binance, "How to Calculate Liquidation Price of USDT-Margined Futures":
# wallet balance, maintenance amount, quantity, entry price, maintenance rate, liquidation price. Isolated:
# the balance is the position's own margin.

PUBLISHED = [
    (1_535_443.01, 135_365.00, 3_683.979, 1_456.84, 0.1, 1_114.78),
    (1_535_443.01, 16_300.00, 109.488, 32_481.98, 0.025, 18_778.73),
]


@pytest.mark.parametrize(("balance", "amount", "quantity", "entry", "rate", "published"), PUBLISHED)
def test_b10_the_exchanges_worked_examples(trade, balance, amount, quantity, entry, rate, published):
    options = {
        "capital": 1e9,
        "most": quantity,
        "leverage": quantity * entry / balance,
        "tiers": [(rate, amount)],
    }
    for low, liquidated in ((published + 0.01, False), (published - 0.01, True)):
        done = trade([flat(entry), (entry, entry, low, entry)], [1, 0], **options)
        assert (done.trades[0].reason == LIQUIDATED) == liquidated
    assert done.trades[0].exit_price == pytest.approx(published, abs=0.005)
    assert done.trades[0].pnl == pytest.approx(-balance)


def test_b10_maintenance_amounts_are_the_exchanges_table():
    # The same page: amount of a level = amount before + where it begins x difference of the rates.
    starts = [0, 50_000, 250_000, 1_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000]
    rates = [0.004, 0.005, 0.01, 0.025, 0.05, 0.1, 0.125, 0.15]
    tiers = [MarginTier(notional=start, rate=rate) for start, rate in zip(starts, rates, strict=True)]
    table = Venue(kind="perpetual", tiers=tiers).maintenance()
    assert table[0].tolist() == rates
    amounts = [0, 50, 1_300, 16_300, 266_300, 1_266_300, 2_516_300, 5_016_300]
    assert table[1] == pytest.approx(amounts)


def maintenance(notional, floors, rates):
    """Return the maintenance margin as a tax is computed: of each part of the notional its own rate."""
    tops = [*floors[1:], math.inf]
    return sum(
        max(min(notional, top) - floor, 0.0) * rate
        for floor, top, rate in zip(floors, tops, rates, strict=True)
    )


def position(seed):
    """Return a random margined position: side, leverage, entry and tiers by their floors and rates."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    return SimpleNamespace(
        side=rng.choice([-1.0, 1.0]),
        leverage=rng.uniform(1.0, 20.0),
        entry=rng.uniform(1.0, 1000.0),
        capital=10.0 ** rng.uniform(2.0, 7.0),
        floors=np.append(0.0, np.sort(10.0 ** rng.uniform(2.0, 7.0, count - 1))),
        rates=np.sort(rng.uniform(0.001, 0.04, count)),
    )


def margin_call(p):
    """Return the price at which a position is liquidated, by bisection of the rule itself."""
    quantity = p.capital / p.entry

    def spare(price):
        margin = p.capital / p.leverage + p.side * quantity * (price - p.entry)
        return margin - maintenance(quantity * price, p.floors, p.rates)

    safe, lost = p.entry, p.entry * (1e-9 if p.side > 0 else 4.0)
    if spare(safe) <= 0 or spare(lost) > 0:
        return None
    for _ in range(60):
        middle = (safe + lost) / 2
        safe, lost = (middle, lost) if spare(middle) > 0 else (safe, middle)
    return lost


def wrong_call(seed, engine):
    """Return what is wrong with the liquidation of a random position, or None."""
    p = position(seed)
    level = margin_call(p)
    if level is None:
        return None
    amounts = np.append(0.0, np.cumsum(p.floors[1:] * np.diff(p.rates)))
    tiers = list(zip(p.rates, amounts, strict=True))
    for factor in (1e-8, -1e-8):  # just not reached, and just beyond
        price = level * (1 + factor * p.side)
        bar = (p.entry, max(p.entry, price), min(p.entry, price), p.entry)
        case = case_of([flat(p.entry), bar], [p.side, 0], capital=p.capital, leverage=p.leverage, tiers=tiers)
        last = run(case, engine).trades[-1]
        if (last.reason == LIQUIDATED) != (factor < 0):
            return f"seed {seed}: {last} at {level}"
    if abs(last.exit_price / level - 1) > 1e-9 or abs(last.pnl * p.leverage / p.capital + 1) > 1e-6:
        return f"seed {seed}: {last} at {level}"
    return None


def test_b10_liquidation_is_at_the_price_of_the_rule_for_any_tiers():
    assert [found for seed in range(300) if (found := wrong_call(seed, kernels.simulate_targets))] == []
    assert sum(margin_call(position(seed)) is not None for seed in range(300)) > 200


def test_b10_where_tiers_meet_both_give_the_same_margin(trade):
    # 10 at 100, 0.1 of the first 800 and 0.2 beyond. With a margin of 280 the level is 80, where the notional
    # is 800: 280 - 200 = 0.1 * 800 = 0.2 * 800 - 80.
    options = {"capital": 1000.0, "leverage": 1000 / 280, "tiers": [(0.1, 0.0), (0.2, 80.0)]}
    done = trade([flat(100), (100, 100, 70, 90)], [1, 0], **options)
    assert done.trades[0].exit_price == pytest.approx(80.0)


MARGIN_BUGS = {
    "liquidation ignored": ("cost = cost if liquidated else 0.0", "liquidated = False\n    cost = 0.0"),
    "first tier only": (
        "level = _nearer(level, _tier_level(quantity, posted, r1, a1), quantity)",
        "return level",
    ),
    "the level of the mildest tier": (
        "return higher if quantity > 0.0 else lower",
        "return lower if quantity > 0.0 else higher",
    ),
    "maintenance amount owed": ("(-posted - amount)", "(-posted + amount)"),
    "maintenance of shorts with the rate of longs": (
        "(-quantity * (1.0 + rate))",
        "(-quantity * (1.0 - rate))",
    ),
    "margin kept by the account": ("cost = left if left > cost else cost", "cost = cost"),
    "liquidation by the closes": ("mark = mark_low if long else mark_high", "mark = price"),
    "margin without leverage": ("fresh = abs(after) * price / leverage", "fresh = abs(after) * price"),
}


@pytest.mark.parametrize("bug", MARGIN_BUGS)
def test_b10_a_wrong_liquidation_is_caught(bug):
    engine = interpreted(MARGIN_BUGS[bug]).simulate_targets
    assert any(wrong_call(seed, engine) for seed in range(60))


# B9: random filters.


def filtered(seed):
    """Return a scenario under random filters; every other one trades at opens only."""
    rules = [
        rule for rule in ("lot", "least", "most", "room", "grid", "capital") if (seed * 2654435761 >> 7) % 7
    ]
    case = scenario(seed, n=25, gaps=seed % 3 > 0, rules=rules, close_last=False)
    if seed % 2:
        case.targets[:, 1:] = OFF
        case.bounds[2:5] = OFF
    return case


def broken_filter(case, done):
    """Return which rule of the venue an outcome breaks, or None."""
    bounds, venue = reference.Bounds(*case.bounds), reference.Venue(*case.venue)
    quantity, opens = done.column("quantity"), case.prices[:, 0]
    if venue.lot and np.abs(quantity / venue.lot - np.rint(quantity / venue.lot)).max() > 1e-6:
        return "off the grid of lots"
    if np.abs(quantity).max() > venue.largest * (1 + 1e-12):
        return "larger than the largest"
    for one in done.trades:
        inside = one.reason in (STOPPED, TAKEN) and one.exit_price not in case.prices[one.exit]
        steps = one.exit_price / venue.tick if venue.tick else 0.0
        if inside and abs(steps - round(steps)) > 1e-6:
            return "off the grid of prices"
    if np.isfinite(case.targets[:, 1:]).any():
        return None
    # No stops: all orders are at the opens, and the quantities tell which.
    held = np.append(0.0, quantity[:-1])
    order = np.abs(quantity - held)
    sent = order > 0
    if (sent & (quantity != 0) & (order * opens < venue.least * (1 - 1e-12))).any():
        return "below the least notional"
    if (order > case.terms[:, 4] * (1 + 1e-12)).any():
        return "beyond the room of the bar"
    exposure = np.clip(np.nan_to_num(case.targets[:, 0]), bounds.smallest, bounds.largest)
    rate = case.terms[:, 1]
    for t in range(2, len(opens)):
        if exposure[t - 1] == exposure[t - 2] or not sent[t]:
            continue
        worth = done.curve[t - 1, 0] + held[t] * (opens[t] - case.prices[t - 1, 3])
        worth -= abs(held[t]) * opens[t] * rate[t] * (exposure[t - 1] * held[t] < 0)
        wanted = exposure[t - 1] * worth / (opens[t] * (1 + rate[t]))
        if quantity[t] * wanted > 0 and abs(quantity[t]) > max(abs(wanted), abs(held[t])) * (1 + 1e-9):
            return "rounded toward more exposure"
    return None


def test_b9_no_filter_is_broken_in_two_thousand_random_ones():
    fills = 0
    for seed in range(2000):
        case = filtered(seed)
        done = run(case, kernels.simulate_targets)
        assert broken_filter(case, done) is None, seed
        fills += np.count_nonzero(np.diff(done.column("quantity")))
    assert fills > 5000


FILTER_BUGS = {
    "lots rounded": ("np.floor(abs(wanted) / unit + SAME_STEP)", "np.rint(abs(wanted) / unit)"),
    "lots rounded up": ("np.floor(abs(wanted) / unit + SAME_STEP)", "np.ceil(abs(wanted) / unit)"),
    "lots ignored": ("wanted = steps if lot > 0.0 else wanted", "wanted = wanted"),
    "parts off the grid": (
        "part = np.rint(part / unit) * unit if lot > 0.0 else part",
        "part = part * 0.999",
    ),
    "largest ignored": ("wanted = wanted if wanted < largest else largest", "wanted = wanted"),
    "largest of shorts ignored": ("wanted = wanted if wanted > -largest else -largest", "wanted = wanted"),
    "least notional ignored": ("filled = quantity if waits else filled", "filled = filled"),
    "room ignored": ("capped = ordered > room", "capped = False"),
    "tick ignored": ("down = np.floor(price / tick + SAME_STEP) * tick", "down = price"),
    "tick of shorts ignored": ("up = -np.floor(-price / tick + SAME_STEP) * tick", "up = price"),
}


@pytest.mark.parametrize("bug", FILTER_BUGS)
def test_b9_a_broken_filter_is_caught(bug):
    engine = interpreted(FILTER_BUGS[bug]).simulate_targets
    assert any(broken_filter(case, run(case, engine)) for case in map(filtered, range(300)))

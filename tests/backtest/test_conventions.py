"""The conventions of execution, one sentence each, in a few bars computed by hand.

Everything binds the kernel and its plain twin alike. What a venue adds (grids, room, funding, margin) is in
``test_venue_rules``; what trading costs is in ``test_account``.
"""

import math

import pytest

from tests.reference.account import (
    HALTED,
    LAST_BAR,
    LIQUIDATED,
    OFF,
    SIGNAL,
    STOPPED,
    TAKEN,
)
from tests.reference.cases import ends, flat

# When a decision fills.


def test_a_decision_fills_at_the_next_open_and_never_at_the_close_it_was_made_at(trade):
    bars = [flat(100), (110, 120, 105, 115), flat(115)]
    done = trade(bars, [1, 0, 0])
    assert done.trades[0][:5] == (1, 2, 1.0, 110.0, 115.0)
    assert done.equity == pytest.approx([1.0, 115 / 110, 115 / 110], rel=1e-15)


def test_the_first_bar_is_never_traded_because_nothing_was_decided_before_it(trade):
    done = trade([(100, 200, 50, 150), flat(150)], [1, 1], close_last=False)
    assert done.equity == [1.0, 1.0]
    assert done.column("turnover").tolist() == [0.0, 1.0]


def test_what_is_decided_at_the_last_close_is_never_traded(trade):
    done = trade([flat(100), flat(100), flat(100)], [1, 1, -1], close_last=False)
    assert done.trades == []
    assert done.column("turnover").tolist() == [0.0, 1.0, 0.0]


def test_an_unchanged_target_trades_nothing_and_keeps_its_levels(trade):
    bars = [flat(100), flat(100), flat(130), (130, 131, 118, 120), flat(120)]
    done = trade(bars, [(1, 0.2, 9), (1, 0.01, 9), (1, 0.01, 9), (1, 0.01, 9), (1, 0.01, 9)], fee=0.001)
    assert len(done.trades) == 1
    assert done.trades[0].reason == LAST_BAR
    assert (done.column("turnover")[2:4] == 0).all()
    assert (done.column("fees")[2:4] == 0).all()


def test_an_unchanged_target_drifts_with_the_price_and_is_not_rebalanced(trade):
    done = trade([flat(100), flat(100), flat(200), flat(200)], [0.5] * 4, close_last=False)
    assert done.column("exposure") == pytest.approx([0.0, 0.5, 1.0 / 1.5, 1.0 / 1.5], rel=1e-15)


def test_a_changed_target_of_the_same_side_resizes_one_trade_and_renews_its_levels(trade):
    bars = [flat(100), flat(100), (120, 120, 109, 110), flat(110)]
    done = trade(bars, [(0.5, 0.1, 9), (1.0, 0.1, 9), (0, 9, 9), (0, 9, 9)])
    # 0.005 at 100; at 120 the equity is 1.1 and 1.1 / 120 is wanted; the new level is 108 and not 90
    assert len(done.trades) == 1
    assert done.trades[0][:5] == (1, 3, 1.0, 100.0, 110.0)
    assert done.trades[0].quantity == pytest.approx(1.1 / 120, rel=1e-14)
    assert done.equity[3] == pytest.approx(1.1 + (110 - 120) * 1.1 / 120, rel=1e-14)


def test_a_target_that_is_not_a_number_is_flat(trade):
    done = trade([flat(100), flat(100), flat(110), flat(150)], [1, math.nan, 1, 0])
    assert [(t.entry, t.exit) for t in done.trades] == [(1, 2), (3, 3)]
    assert done.equity == pytest.approx([1, 1, 1.1, 1.1], rel=1e-15)


def test_exposure_is_capped_on_both_sides(trade):
    done = trade([flat(100)] * 4, [3, 3, -math.inf, 0], cap=0.4, close_last=False)
    assert done.column("exposure")[[1, 3]] == pytest.approx([0.4, -0.4], rel=1e-15)


def test_where_the_smallest_exposure_is_none_a_short_is_flat(trade):
    done = trade([flat(100)] * 4, [1, -1, -1, 0], smallest=0.0, close_last=False)
    assert done.column("exposure") == pytest.approx([0.0, 1.0, 0.0, 0.0], rel=1e-15)
    assert ends(done) == [(1, 2, 100.0, SIGNAL)]


# Stops and targets.


def test_the_stop_comes_first_when_stop_and_target_lie_inside_one_bar(trade):
    done = trade([flat(100), flat(100), (100, 125, 85, 120)], [1, 1, 0], stop=0.1, take=0.2)
    assert done.trades[0][:5] == (1, 2, 1.0, 100.0, 90.0)
    assert done.trades[0].reason == STOPPED
    assert done.equity[2] == pytest.approx(0.9, rel=1e-15)


def test_stop_and_target_are_active_on_the_entry_bar(trade):
    stopped = trade([flat(100), (100, 101, 89, 95)], [1, 0], stop=0.1)
    assert ends(stopped) == [(1, 1, 90.0, STOPPED)]
    taken = trade([flat(100), (100, 120, 99, 95)], [1, 0], take=0.2)
    assert ends(taken) == [(1, 1, 120.0, TAKEN)]
    assert taken.equity[1] == pytest.approx(1.2, rel=1e-15)


def test_a_low_exactly_at_the_stop_and_a_high_exactly_at_the_target_count(trade):
    assert trade([flat(100), (100, 100, 75, 100)], [1, 0], stop=0.25).trades[0].reason == STOPPED
    assert trade([flat(100), (100, 125, 100, 100)], [1, 0], take=0.25).trades[0].reason == TAKEN


def test_a_gap_through_the_stop_fills_at_the_open(trade):
    done = trade([flat(100), flat(100), (80, 85, 70, 84)], [1, 1, 0], stop=0.1)
    assert ends(done) == [(1, 2, 80.0, STOPPED)]
    assert done.equity[2] == pytest.approx(0.8, rel=1e-15)


def test_a_gap_through_the_target_fills_at_the_target_and_no_better(trade):
    done = trade([flat(100), flat(100), (140, 150, 130, 145)], [1, 1, 0], take=0.2)
    assert ends(done) == [(1, 2, 120.0, TAKEN)]
    assert done.equity[2] == pytest.approx(1.2, rel=1e-15)


def test_a_gap_beyond_the_target_that_falls_through_the_stop_counts_as_stopped(trade):
    done = trade([flat(100), flat(100), (140, 150, 85, 145)], [1, 1, 0], stop=0.1, take=0.2)
    assert ends(done) == [(1, 2, 90.0, STOPPED)]


def test_levels_count_from_the_fill_and_not_from_the_close_of_the_decision(trade):
    done = trade([flat(100), flat(200), (200, 200, 181, 190), flat(190)], [1, 1, 1, 0], stop=0.1)
    assert done.trades[0].reason == LAST_BAR
    done = trade([flat(100), flat(200), (200, 200, 180, 190), flat(190)], [1, 1, 0, 0], stop=0.1)
    assert ends(done) == [(1, 2, 180.0, STOPPED)]


def test_of_the_stops_of_decision_and_account_the_nearer_counts_and_of_the_targets_too(trade):
    for decided, allowed in ((0.25, 0.5), (0.5, 0.25), (0.25, OFF), (OFF, 0.25)):
        down, up = [flat(100), (100, 100, 50, 60)], [flat(100), (100, 150, 100, 140)]
        assert ends(trade(down, [1, 0], stop=decided, account_stop=allowed)) == [(1, 1, 75.0, STOPPED)]
        assert ends(trade(up, [1, 0], take=decided, account_take=allowed)) == [(1, 1, 125.0, TAKEN)]


def test_after_a_stop_a_standing_target_opens_again_at_the_next_open(trade):
    done = trade([flat(100), (100, 100, 85, 95), flat(96), flat(97)], [1, 1, 1, 0], stop=0.1)
    assert [(t.entry, t.exit, t.entry_price) for t in done.trades] == [(1, 1, 100.0), (2, 3, 96.0)]


def test_shorts_mirror_longs(trade):
    stopped = trade([flat(100), flat(100), (100, 125, 85, 90)], [-1, -1, 0], stop=0.1, take=0.2)
    assert (stopped.trades[0].exit_price, stopped.trades[0].reason) == (pytest.approx(110.0), STOPPED)
    gapped = trade([flat(100), flat(100), (120, 130, 115, 118)], [-1, -1, 0], stop=0.1)
    assert gapped.trades[0].exit_price == 120.0
    taken = trade([flat(100), flat(100), (70, 75, 60, 74)], [-1, -1, 0], take=0.2)
    assert taken.trades[0][2:5] == (-1.0, 100.0, 80.0)
    assert taken.equity[2] == pytest.approx(1.2, rel=1e-15)
    paid = trade([flat(100), flat(100), flat(90)], [-1, 0, 0], fee=0.01)
    assert paid.equity[2] == pytest.approx(1 + (10 - 1.0 - 0.9) / 101, rel=1e-14)


# Trailing stops.


def test_a_stop_moved_by_this_bars_high_works_from_the_next_bar(trade):
    # From 100 the stop is 90; the high of 120 makes it 108, which this bar's low of 95 does not touch.
    bars = [flat(100), (100, 120, 95, 110), (110, 112, 108, 109), flat(109)]
    assert ends(trade(bars, [1, 1, 0, 0], trail=0.1)) == [(1, 2, 108.0, STOPPED)]
    bars = [flat(100), (100, 105, 80, 90), (90, 94.5, 85, 90), flat(90)]
    assert ends(trade(bars, [-1, -1, 0, 0], trail=0.125)) == [(1, 2, 90.0, STOPPED)]


def test_a_trailing_stop_counts_from_the_open_of_the_fill_at_first(trade):
    assert ends(trade([flat(100), (100, 100, 75, 80)], [1, 0], trail=0.25)) == [(1, 1, 75.0, STOPPED)]
    assert ends(trade([flat(100), (100, 125, 100, 110)], [-1, 0], trail=0.25)) == [(1, 1, 125.0, STOPPED)]


def test_a_trailing_stop_never_retreats(trade):
    bars = [flat(100), (100, 120, 100, 115), (115, 116, 109, 110), (110, 111, 105, 107), flat(107)]
    assert ends(trade(bars, [1, 1, 1, 0, 0], trail=0.1)) == [(1, 3, 108.0, STOPPED)]
    bars = [flat(100), (100, 100, 80, 85), (85, 89, 84, 88), (88, 95, 87, 95), flat(95)]
    assert ends(trade(bars, [-1, -1, -1, 0, 0], trail=0.125)) == [(1, 3, 90.0, STOPPED)]


def test_a_stop_decided_nearer_than_the_trail_stands_until_the_trail_passes_it(trade):
    bars = [flat(100), (100, 104, 96, 104), (104, 104, 95, 96), flat(96)]
    assert ends(trade(bars, [(1, 0.05, OFF)] * 2 + [0, 0], trail=0.1)) == [(1, 2, 95.0, STOPPED)]
    bars[1] = (100, 110, 96, 104)  # 0.9 * 110 = 99
    assert ends(trade(bars, [(1, 0.05, OFF)] * 2 + [0, 0], trail=0.1)) == [(1, 2, 99.0, STOPPED)]


# The end of the data, and what is seen of the way there.


def test_an_open_trade_is_closed_at_the_last_close_with_costs_and_flagged(trade):
    done = trade([flat(100), (100, 130, 90, 120)], [1, 1], fee=0.01)
    assert ends(done) == [(1, 1, 120.0, LAST_BAR)]
    assert done.equity[1] == pytest.approx(120 / 100 * 0.99 / 1.01, rel=1e-14)
    left = trade([flat(100), (100, 130, 90, 120)], [1, 1], fee=0.01, close_last=False)
    assert left.trades == []
    assert left.equity[1] == pytest.approx(120 / 100 / 1.01, rel=1e-14)


def excursions(done):
    return (done.trades[0].mae, done.trades[0].mfe)


def test_a_trade_saw_the_extremes_of_every_bar_it_lived_through(trade):
    bars = [flat(100), (100, 110, 95, 100), (100, 120, 97, 100), (100, 140, 60, 100)]
    assert excursions(trade(bars, [1, 1, 0, 0])) == pytest.approx((-0.05, 0.2))
    assert excursions(trade(bars, [-1, -1, 0, 0])) == pytest.approx((-0.2, 0.05))


def test_a_trade_that_ends_at_an_open_saw_that_open_and_no_more_of_the_bar(trade):
    bars = [flat(100), flat(100), (130, 150, 60, 100)]
    assert excursions(trade(bars, [1, 0, 0])) == pytest.approx((0.0, 0.3))
    assert excursions(trade(bars, [-1, 0, 0])) == pytest.approx((-0.3, 0.0))


def test_a_trade_that_is_stopped_saw_nothing_in_its_favor_on_that_bar_but_its_open(trade):
    bars = [flat(100), (100, 150, 89, 140)]
    assert excursions(trade(bars, [1, 0], stop=0.1)) == pytest.approx((-0.1, 0.0))
    gap = [flat(100), flat(100), (105, 150, 89, 140)]
    assert excursions(trade(gap, [1, 1, 0], stop=0.1)) == pytest.approx((-0.1, 0.05))
    gap = [flat(100), flat(100), (95, 111, 60, 70)]
    assert excursions(trade(gap, [-1, -1, 0], stop=0.1)) == pytest.approx((-0.1, 0.05))


def test_a_trade_that_reaches_its_target_saw_the_target_and_the_worst_of_the_bar(trade):
    bars = [flat(100), (100, 150, 92, 140)]
    assert excursions(trade(bars, [1, 0], stop=0.1, take=0.2)) == pytest.approx((-0.08, 0.2))
    bars = [flat(100), (100, 109, 60, 70)]
    assert excursions(trade(bars, [-1, 0], stop=0.1, take=0.2)) == pytest.approx((-0.09, 0.2))
    passed = [flat(100), flat(100), (130, 150, 125, 140)]
    assert excursions(trade(passed, [1, 1, 0], take=0.2)) == pytest.approx((0.0, 0.3))  # the open


def test_a_trade_closed_at_the_last_close_saw_the_whole_bar(trade):
    assert excursions(trade([flat(100), (100, 130, 90, 120)], [1, 1])) == pytest.approx((-0.1, 0.3))


def test_excursions_count_from_the_first_fill(trade):
    bars = [flat(100), flat(100), (80, 110, 80, 100), flat(100)]
    assert excursions(trade(bars, [0.5, 1, 0, 0])) == pytest.approx((-0.2, 0.1))


# Breakers act on the next open, on the account and not on the shadow.


def test_a_drawdown_halts_for_good(trade):
    bars = [flat(100), flat(100), flat(80), flat(80), flat(160), flat(160)]
    done = trade(bars, [1, 1, 1, -1, 1, 0], drawdown=0.15)
    assert ends(done) == [(1, 3, 80.0, HALTED)]
    assert done.equity == pytest.approx([1, 1, 0.8, 0.8, 0.8, 0.8])


def test_a_drawdown_counts_from_the_peak_of_the_closes(trade):
    bars = [flat(100), (100, 200, 100, 100), flat(90), flat(90)]  # the high was never a close
    assert trade(bars, [1, 1, 1, 1], drawdown=0.15).trades[0].reason == LAST_BAR
    bars = [flat(100), (100, 200, 100, 150), flat(120), flat(120)]
    assert ends(trade(bars, [1, 1, 1, 1], drawdown=0.15)) == [(1, 3, 120.0, HALTED)]


def test_a_loss_of_exactly_the_limit_halts(trade):
    bars = [flat(128), flat(128), flat(96), flat(96)]
    assert trade(bars, [1, 1, 1, 1], drawdown=0.25).trades[0].reason == HALTED
    assert trade(bars, [1, 1, 1, 1], daily_loss=0.25, new_day=0.0).trades[0].reason == HALTED


def test_a_daily_loss_halts_until_the_first_bar_of_the_next_day_has_closed(trade):
    days = [1, 0, 0, 0, 1, 0, 0]
    bars = [flat(100), flat(100), flat(80), flat(80), flat(80), flat(80), flat(80)]
    done = trade(bars, [1, 1, 1, -1, -1, 1, 0], daily_loss=0.15, new_day=days)
    # Out at the open of bar 3. The short decided at its close would be executed at the open of the new day,
    # where the halt of the day before still rules; it is taken up at the open after.
    assert ends(done) == [(1, 3, 80.0, HALTED), (5, 6, 80.0, SIGNAL), (6, 6, 80.0, LAST_BAR)]


def test_a_daily_loss_counts_from_the_last_close_of_the_day_before(trade):
    days = [1, 0, 0, 1, 0, 0]
    bars = [flat(100), flat(100), flat(90), flat(80), flat(78), flat(78)]
    # Ten percent in the first day, then 80 / 90 at the close of bar 3 and 78 / 90 at that of bar 4.
    done = trade(bars, [1] * 6, daily_loss=0.12, new_day=days)
    assert ends(done) == [(1, 5, 78.0, HALTED)]


def test_a_halt_seen_at_the_last_close_of_a_day_rules_the_first_open_of_the_next(trade):
    days = [1, 0, 0, 1, 0, 0]
    bars = [flat(100), flat(100), flat(80), flat(80), flat(80), flat(80)]
    done = trade(bars, [1, 1, 1, 1, -1, 0], daily_loss=0.15, new_day=days)
    assert ends(done) == [(1, 3, 80.0, HALTED), (4, 5, 80.0, SIGNAL), (5, 5, 80.0, LAST_BAR)]


def test_after_a_daily_halt_a_standing_target_is_sized_anew(trade):
    days = [1, 0, 0, 0, 1, 0, 0, 0]
    bars = [flat(100), flat(100)] + [flat(80)] * 6
    done = trade(bars, [1, 1, 1, 1, 1, 1, 0.5, 0.5], daily_loss=0.15, new_day=days, close_last=False)
    assert done.column("exposure") == pytest.approx([0, 1, 1, 0, 0, 1, 1, 0.5])
    assert done.column("quantity")[5] == pytest.approx(0.01)


def test_a_new_day_that_begins_with_a_loss_halts_again_at_once(trade):
    days = [1, 0, 0, 1, 0, 0, 1, 0]
    bars = [flat(100), flat(100), flat(80), (80, 80, 60, 60), flat(60), flat(60), flat(60), flat(60)]
    done = trade(bars, [1] * 8, daily_loss=0.15, new_day=days, room=[OFF, OFF, OFF, 0, OFF, OFF, OFF, OFF])
    assert ends(done) == [(1, 4, 60.0, HALTED), (7, 7, 60.0, LAST_BAR)]


def test_a_halt_leaves_the_levels_of_the_shadow_as_they_are(trade):
    # The stop of 70 was set at 100; what is taken up again at 80 still has it.
    days = [1, 0, 0, 0, 1, 0, 0]
    bars = [flat(100), flat(100), flat(80), flat(80), flat(80), (80, 80, 65, 80), flat(80)]
    done = trade(bars, [(1, 0.3, OFF)] * 6 + [0], daily_loss=0.15, new_day=days)
    assert ends(done)[:2] == [(1, 3, 80.0, HALTED), (5, 5, 70.0, STOPPED)]
    # Passed during the halt, the target stands again at the next open, with a stop of 56.
    bars[3] = (80, 80, 65, 80)
    done = trade(bars, [(1, 0.3, OFF)] * 6 + [0], daily_loss=0.15, new_day=days)
    assert ends(done) == [(1, 3, 80.0, HALTED), (5, 6, 80.0, LAST_BAR)]


def test_no_new_day_ends_a_drawdown_halt_or_lets_a_liquidated_account_back_in(trade):
    days = [1, 0, 0, 1, 0, 0]
    bars = [flat(100), flat(100), (100, 100, 80, 95), flat(95), flat(95), flat(95)]
    assert len(trade(bars, [1] * 6, drawdown=0.01, new_day=days).trades) == 1
    assert len(trade(bars, [1] * 6, leverage=10.0, new_day=days).trades) == 1
    assert len(trade(bars, [1] * 6, leverage=10.0, daily_loss=0.05, new_day=days).trades) == 1


def test_an_equity_that_is_not_a_number_halts(trade):
    done = trade(
        [flat(100), flat(100), flat(100), flat(100)], [1, 1, 1, 1], funding_close=[0, math.nan, 0, 0]
    )
    assert math.isnan(done.equity[1])
    assert done.trades[0][:2] == (1, 2)
    assert done.trades[0].reason == HALTED


# What ends a trade.


def test_a_trade_carries_the_cause_of_its_end(trade):
    signal = trade([flat(100), flat(100), flat(100)], [1, 0, 0])
    assert signal.trades[0].reason == SIGNAL
    flipped = trade([flat(100), flat(100), flat(100)], [1, -1, 0])
    assert [t.reason for t in flipped.trades] == [SIGNAL, LAST_BAR]
    halted = trade([flat(100), flat(100), flat(80), flat(80)], [1, 1, -1, 0], drawdown=0.1)
    assert [t.reason for t in halted.trades] == [HALTED]
    liquidated = trade([flat(100), (100, 100, 80, 90)], [1, 1], leverage=10.0)
    assert [t.reason for t in liquidated.trades] == [LIQUIDATED]


def test_a_trade_is_bought_at_its_first_fill_sold_at_its_last_and_as_large_as_it_ever_was(trade):
    bars = [flat(100), flat(100), flat(125), flat(160), flat(200)]
    one = trade(bars, [0.5, 1.0, 0.25, 0, 0]).trades[0]
    assert one[:5] == (1, 4, 1.0, 100.0, 200.0)
    assert one.quantity == pytest.approx(1.125 / 125)
    # 0.005 at 100; 0.009 at 125; worth 1.44 at 160, of which a quarter stays: 0.00225; sold at 200
    assert one.pnl == pytest.approx(0.125 + 0.315 + 0.00225 * 40)

"""The venue: its rules as arrays."""

import math

import numpy as np
import pytest

from backtest import kernels
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import hold, simulate
from backtest.terms import Terms
from backtest.venue import MarginTier, Venue
from configs.load import ConfigError, load, validate
from market.bars import OHLCV, Bars
from market.table import DataError

HOUR = 3_600_000_000_000
PERPETUAL = Venue(kind="perpetual", leverage=5)


def bars_of(n=48, interval=HOUR, **columns):
    time = interval * np.arange(1, n + 1)
    values = np.column_stack([np.full((n, 4), 100.0), np.full(n, 1e3), *columns.values()])
    return Bars(time, values, (*OHLCV, *columns), "TEST/USD", interval)


def test_maintenance_of_the_tiers_is_continuous_where_they_meet_and_never_falls():
    rates, amounts = Venue().maintenance()
    notional = np.concatenate([[1e3], np.repeat([tier.notional for tier in Venue().tiers[1:]], 3)])
    notional[1:] *= np.tile([1 - 1e-9, 1.0, 1 + 1e-9], len(Venue().tiers) - 1)
    margin = (notional[:, None] * rates - amounts).max(axis=1)
    assert (np.diff(margin) >= 0).all()
    assert np.allclose(margin[1::3], margin[2::3], rtol=1e-6)
    # Worked by hand: 100,000 is 50,000 at 0.4 % and 50,000 at 0.5 %.
    assert (1e5 * rates - amounts).max() == pytest.approx(200 + 250)


def test_fewer_tiers_are_filled_up_with_the_last_one():
    venue = Venue(tiers=(MarginTier(notional=0, rate=0.01), MarginTier(notional=1_000, rate=0.02)))
    rates, amounts = venue.maintenance()
    assert rates.tolist() == [0.01] + [0.02] * 7
    assert amounts.tolist() == [0.0] + [10.0] * 7


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "perpetual", "tiers": [{"notional": 5, "rate": 0.01}]}, "start at 0"),
        ({"tiers": [{"notional": 0, "rate": 0.02}, {"notional": 9, "rate": 0.01}]}, "must not fall"),
        ({"tiers": [{"notional": 0, "rate": 0.1}] * 2}, "rise"),
        ({"kind": "spot", "leverage": 2}, "only a perpetual"),
        ({"funding_hours": 7}, "divide a day"),
        (
            {"kind": "perpetual", "leverage": 100, "tiers": [{"notional": 0, "rate": 0.01}]},
            "liquidated at once",
        ),
        ({"kind": "margin"}, "kind"),
        ({"lot": -1}, "lot"),
        ({"tiers": [{"notional": i, "rate": 0.01} for i in range(9)]}, "tiers"),
    ],
)
def test_a_venue_that_cannot_be_is_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        validate(Venue, wrong, "venue")


def test_the_shipped_venue_is_the_default(root):
    assert load(Venue, root / "configs" / "venue.yaml") == Venue()


def test_limits_that_the_venue_does_not_allow_are_refused():
    bars = bars_of()
    with pytest.raises(ConfigError, match="long_only"):
        simulate(hold(bars), bars, Costs(), RiskLimits(), venue=Venue(kind="spot"))
    with pytest.raises(ConfigError, match="leverage 5; it must not exceed it"):
        simulate(hold(bars), bars, Costs(), RiskLimits(max_exposure=6), venue=PERPETUAL)
    limits = RiskLimits(max_exposure=2, long_only=True)
    with pytest.raises(ConfigError, match="leverage 1;"):
        simulate(hold(bars), bars, Costs(), limits, venue=Venue(kind="spot"))
    for capital in (0.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="capital"):
            simulate(hold(bars), bars, Costs(), RiskLimits(), capital=capital)


def test_on_spot_a_short_target_is_flat():
    bars = bars_of()
    limits = RiskLimits(long_only=True)
    result = simulate(hold(bars, -1.0), bars, Costs(), limits, venue=Venue(kind="spot"))
    assert len(result.trades) == 0
    assert len(simulate(hold(bars, 1.0), bars, Costs(), limits, venue=Venue(kind="spot")).trades) == 1


# Funding.


def test_assumed_funding_settles_at_the_closes_of_eight_sixteen_and_midnight():
    inside, at_close = PERPETUAL.funding(bars_of(48)).T
    assert not inside.any()
    assert (np.flatnonzero(at_close) + 1).tolist() == [8, 16, 24, 32, 40, 48]
    assert set(at_close) == {0.0, 1e-4}


def test_a_daily_bar_pays_two_settlements_inside_and_one_at_its_close():
    inside, at_close = PERPETUAL.funding(bars_of(5, 24 * HOUR)).T
    assert inside == pytest.approx(np.full(5, 2e-4))
    assert at_close == pytest.approx(np.full(5, 1e-4))


def test_only_a_perpetual_pays_funding():
    bars = bars_of(48, funding=np.full(48, 0.01))
    assert not Venue().funding(bars).any()
    assert PERPETUAL.funding(bars)[:, 1].tolist() == [0.01] * 48


def test_a_funding_column_with_holes_is_refused():
    rates = np.zeros(48)
    rates[3] = math.nan
    bars = bars_of(48, funding=rates)
    with pytest.raises(DataError, match="row 3: the funding rate is not a number"):
        simulate(hold(bars), bars, Costs(), RiskLimits(), venue=PERPETUAL)


def test_a_mark_price_that_is_no_price_is_refused():
    marks = np.full(48, 100.0)
    marks[5] = 0.0
    bars = bars_of(48, mark_low=marks)
    with pytest.raises(DataError, match="row 5: mark_low is 0"):
        simulate(hold(bars), bars, Costs(), RiskLimits(), venue=PERPETUAL)
    assert Venue().marks(bars_of(48)).tolist() == [[100.0, 100.0]] * 48


def test_holding_a_perpetual_through_a_day_pays_three_settlements_of_its_notional():
    bars = bars_of(26)
    result = simulate(hold(bars, 0.5), bars, Costs(), RiskLimits(), venue=PERPETUAL, close_last=False)
    notional = result.curve.column("quantity")[1] * 100.0
    assert result.curve.column("funding").sum() == pytest.approx(3 * 1e-4 * notional, rel=1e-12)
    short = simulate(hold(bars, -0.5), bars, Costs(), RiskLimits(), venue=PERPETUAL)
    assert short.trades["funding"][0] < 0  # a short is paid


# The terms.


def test_options_are_on_only_where_something_is_charged_or_bound():
    def on(costs=None, limits=None, venue=None):
        terms = Terms.of(bars_of(), costs or Costs(), limits or RiskLimits(), venue or Venue(), 1e4)
        return {name for name, switch in zip(kernels.OPTIONS, terms.options, strict=True) if switch}

    assert on() == set()
    assert on(Costs(maker_fee_bps=1)) == {"maker"}
    assert on(Costs(size_impact=1)) == {"impact"}
    assert on(Costs(participation=0.025)) == {"room"}
    assert on(limits=RiskLimits(trail=0.1)) == {"trail"}
    assert on(limits=RiskLimits(daily_loss=0.1)) == {"breakers"}
    assert on(limits=RiskLimits(max_drawdown=0.1)) == {"breakers"}
    assert on(venue=Venue(lot=0.1)) == on(venue=Venue(min_notional=5)) == {"grid"}
    assert on(venue=PERPETUAL) == {"margin", "funding"}
    assert on(venue=Venue(kind="perpetual", funding_rate=0)) == {"margin"}


def test_the_assumptions_name_the_venue_and_the_busiest_bar():
    bars = bars_of(30)
    text = " ".join(simulate(hold(bars), bars, Costs(), RiskLimits(), venue=PERPETUAL).assumptions)
    assert "funding 0.0100% every 8 hours, assumed" in text
    assert "isolated margin at 5x" in text
    costs = Costs(maker_fee_bps=2, participation=0.025, size_impact=1)
    venue = Venue(lot=0.001, min_notional=10)
    text = " ".join(simulate(hold(bars), bars, costs, RiskLimits(trail=0.1), venue=venue).assumptions)
    assert "up to 0.025 of the bar's volume" in text
    assert "lot 0.001, least order 10" in text
    assert "trailing stop 0.1" in text
    assert "2 bps and no spread or impact" in text
    # 10,000 of a turnover of 100,000 is more than anyone would call small.
    busy = simulate(hold(bars), bars, Costs(), RiskLimits()).assumptions[-1]
    assert "busiest bar traded 0.1 of its turnover; costs.participation" in busy

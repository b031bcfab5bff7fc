"""Rows glued to a market of their own: nothing is won or lost at a seam, and nothing else changes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import hold, simulate
from ensemble.gluing import Glued
from ensemble.signals import earned
from ensemble.sources import SpecialistSource
from market.bars import OHLCV
from market.table import DataError
from regimes.regime import UNDECIDED
from tests.ensemble import market

FREE = Costs(fee_bps=0, half_spread_bps=0, impact=({"turnover": 0.0, "impact_bps": 0.0},))
OPEN = RiskLimits(max_exposure=1.0, stop=None)


@st.composite
def runs(draw, n=600, most=5):
    """Ordered runs of at least two rows of n, some of them touching."""
    edges = sorted(draw(st.sets(st.integers(0, n // 2), min_size=2, max_size=2 * most)))
    edges = [2 * edge for edge in edges[: len(edges) // 2 * 2]]
    return tuple(slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True))


def jumps(bars, seams):
    """Log moves from the close before each seam to the open behind it."""
    opens, closes = bars.column("open"), bars.column("close")
    return np.log(opens[seams + 1] / closes[seams])


@pytest.mark.parametrize("cuts", [(0, 600), (0, 137, 600), (0, 100, 101, 333, 600)])
def test_a_market_of_which_nothing_is_removed_stays_as_it_is(cuts):
    bars = market.bars()[:600]
    glued = Glued.of(bars, [slice(a, b) for a, b in pairwise(cuts)])
    assert glued.runs == (slice(0, 600),)
    assert glued.seams.size == 0
    np.testing.assert_array_equal(glued.bars.values, bars.values)
    np.testing.assert_array_equal(glued.bars.time, bars.time)
    core = market.core()[:600]
    np.testing.assert_array_equal(glued.restamped(glued.cut(core)).values, core.values)
    parts = glued.asleep_at_seams(market.regimes()[:600], market.labels()[:600])
    for part, whole in zip(parts, (market.regimes(), market.labels()), strict=True):
        np.testing.assert_array_equal(part.values, whole.values[:600])


@given(runs())
@settings(max_examples=40, deadline=None)
def test_no_return_appears_at_a_seam_and_none_is_lost_within_a_run(chosen):
    bars = market.bars()[:600]
    glued = Glued.of(bars, chosen)
    made, kept = glued.bars, glued.rows_of(bars.values)
    assert not jumps(made, glued.seams).any()
    assert len(glued.seams) == len(glued.runs) - 1
    np.testing.assert_allclose(
        made.values[:, 3] / made.values[:, 0], kept[:, 3] / kept[:, 0], rtol=1e-13, atol=0
    )
    within = np.setdiff1d(np.arange(len(made) - 1), glued.seams)
    np.testing.assert_allclose(
        made.values[within + 1, 0] / made.values[within, 3],
        kept[within + 1, 0] / kept[within, 3], rtol=1e-13, atol=0,
    )  # fmt: skip
    np.testing.assert_allclose(made.values[:, 3] * made.values[:, 4], kept[:, 3] * kept[:, 4], rtol=1e-12)
    assert (np.diff(made.time) == bars.interval_ns).all()
    assert made.time[0] == bars.time[glued.runs[0].start]


def test_rows_put_together_as_they_are_would_jump():
    # Negative control: prices that nobody scaled.
    bars = market.bars()[:600]
    glued = Glued.of(bars, (slice(0, 100), slice(400, 600)))
    plain = replace(glued.bars, values=glued.rows_of(bars.values))
    assert abs(jumps(plain, glued.seams)[0]) > 0.01


def test_holding_earns_what_the_runs_earned_and_turnover_costs_what_it_cost():
    bars = market.bars()[:900]
    glued = Glued.of(bars, (slice(0, 300), slice(500, 600), slice(700, 900)))
    result = simulate(hold(glued.bars), glued.bars, FREE, OPEN)
    opens, closes = bars.column("open"), bars.column("close")
    # Bought at the open of the second bar.
    grown = [closes[299] / opens[1], closes[599] / opens[500], closes[899] / opens[700]]
    assert result.metrics.total_return == pytest.approx(np.prod(grown) - 1, rel=1e-9)
    assert earned(glued.bars)[298] == pytest.approx(closes[299] / opens[299] - 1, rel=1e-12)


def test_a_gap_within_a_run_stays_and_further_columns_are_scaled_as_what_they_are():
    bars = market.bars()[:400]
    more = np.column_stack([bars.values, bars.values[:, 1], bars.values[:, 4] / 2, np.full(400, 0.01)])
    names = (*OHLCV, "mark_high", "taker_buy_volume", "funding")
    bars = replace(bars, values=more, names=names)
    bars = replace(bars, time=np.where(np.arange(400) < 250, bars.time, bars.time + 5 * bars.interval_ns))
    glued = Glued.of(bars, (slice(0, 100), slice(200, 400))).bars
    steps = np.diff(glued.time) // bars.interval_ns
    assert steps[149] == 6  # row 250 of 400
    assert (np.delete(steps, 149) == 1).all()
    high, volume, mark, taker, funding = (
        glued.column(name) for name in ("high", "volume", "mark_high", "taker_buy_volume", "funding")
    )
    np.testing.assert_array_equal(mark, high)
    np.testing.assert_allclose(taker, volume / 2, rtol=1e-13)
    assert set(funding) == {0.01}
    assert not np.allclose(volume[100:], bars.values[200:, 4])


def test_nobody_holds_a_position_across_a_seam():
    specialist = market.specialist(None)
    source = SpecialistSource("anybody", specialist)
    whole = source.fresh().update(market.bars(), market.core(), market.regimes(), market.labels())
    held = np.flatnonzero((whole[:-1] != 0) & (whole[1:] != 0))
    row = int(held[held > 1_000][0])
    # A run that ends while it holds; the glued rows before the seam are those of the true clock.
    glued = Glued.of(market.bars(), (slice(0, row + 1), slice(row + 400, 2_500)))
    features = glued.restamped(glued.cut(market.core()))
    given = (glued.restamped(glued.cut(market.regimes())), glued.restamped(glued.cut(market.labels())))
    awake = source.fresh().update(glued.bars, features, *given)
    asleep = source.fresh().update(glued.bars, features, *glued.asleep_at_seams(*given))
    assert awake[row] != 0  # negative control
    assert asleep[row] == 0
    np.testing.assert_array_equal(asleep[:row], whole[:row])
    regimes, labels = glued.asleep_at_seams(*given)
    assert labels.column("label")[row] == UNDECIDED
    assert np.isnan(regimes.values[row]).all()
    assert np.isnan(regimes.values).any(axis=1).sum() == np.isnan(given[0].values).any(axis=1).sum() + 1


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ((), "there are no rows to glue"),
        ((slice(5, 5),), "rows 5:5 cannot be glued after row 0"),
        ((slice(10, 20), slice(15, 30)), "rows 15:30 cannot be glued after row 20"),
        ((slice(10, 20), slice(30, 10_000)), "lie within the 3000 bars"),
    ],
)
def test_runs_that_cannot_be_glued_are_one_sentence(chosen, sentence):
    with pytest.raises(DataError, match=sentence):
        Glued.of(market.bars(), chosen)

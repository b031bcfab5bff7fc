import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs, ImpactBucket
from backtest.limits import RiskLimits
from backtest.simulate import simulate
from ensemble.signals import Blend, SignalTable, earned, known_return
from market.bars import OHLCV, Bars, timeframe_ns
from market.table import DataError, Table
from regimes.regime import CRISIS_NAMES, REGIME_NAMES, RegimeProbabilities

HOUR = timeframe_ns("1h")
FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))


def a_blend(n=6, names=REGIME_NAMES, seed=0):
    random = np.random.default_rng(seed)
    time = (1 + np.arange(n)) * HOUR
    signals = random.uniform(-1, 1, (n, 2))
    if n > 2:
        signals[2, 1] = np.nan
    p = random.dirichlet(np.ones(len(names)), n)
    if n:
        p[0] = np.nan
    return Blend(
        time,
        SignalTable(time, signals, ("volatile", "xgboost_4h")),
        RegimeProbabilities(time, p, names),
        np.where(np.isnan(p[:, 0]), -1, p.argmax(axis=1)),
        p.max(axis=1),
        random.uniform(0, 1, (n, 2)),
        random.uniform(-1, 1, n),
        random.uniform(-1, 1, n),
        random.uniform(-2, 2, n),
    )


def same(one, two):
    a, b = one.to_table(), two.to_table()
    bits = [(one.names, one.time.tobytes(), one.values.tobytes()) for one in (a, b)]
    return bits[0] == bits[1]


def opens(*prices):
    prices = np.array(prices, np.float64)
    close = np.concatenate([prices[1:], prices[-1:]])
    high, low = np.maximum(prices, close), np.minimum(prices, close)
    time = (1 + np.arange(prices.size)) * HOUR
    values = np.column_stack([prices, high, low, close, np.full(prices.size, 1e6)])
    return Bars(time, values, OHLCV, symbol="BTC/USDT", interval_ns=HOUR)


@pytest.mark.parametrize("wrong", [1.0000001, -2.0, np.inf, -np.inf])
def test_a_signal_outside_its_range_is_refused_with_its_name_and_row(wrong):
    with pytest.raises(DataError, match=r"signals: b is .* \(row 1\); a signal must lie in -1\.\.1"):
        SignalTable(np.arange(2), np.array([[0.0, 1.0], [np.nan, wrong]]), ("a", "b"))


def test_no_opinion_is_a_signal_and_rows_are_of_the_same_kind():
    table = SignalTable(np.arange(3), np.array([[-1.0], [np.nan], [1.0]]), ("a",))
    assert isinstance(table[1:], SignalTable)
    assert np.isnan(table.column("a")[1])


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 12), max_size=4))
def test_slices_joined_are_the_whole(cuts):
    blend = a_blend(12)
    edges = [0, *sorted(cuts), 12]
    parts = [blend[a:b] for a, b in itertools.pairwise(edges)]
    assert same(Blend.concat(parts), blend)


@pytest.mark.parametrize("names", [REGIME_NAMES, CRISIS_NAMES])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_a_table_of_a_blend_gives_it_back_to_the_bit(n, names):
    blend = a_blend(n, names)
    again = Blend.of_table(blend.to_table())
    assert same(again, blend)
    assert again.label.dtype == np.int8
    assert again.regimes.names == names


def test_saved_rows_are_read_back_to_the_bit(tmp_path):
    import pyarrow.parquet as pq

    blend = a_blend(9)
    blend.save(tmp_path / "audit" / "blend.parquet")
    read = pq.read_table(tmp_path / "audit" / "blend.parquet")
    assert str(read.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    names = tuple(name for name in read.column_names if name != "time")
    time = read["time"].to_numpy().astype(np.int64)
    values = np.column_stack([read[name].to_numpy() for name in names])
    assert same(Blend.of_table(Table(time, values, names)), blend)


def test_a_table_of_something_else_is_no_blend():
    table = a_blend().to_table()
    with pytest.raises(DataError, match="are not those of a saved blend"):
        Blend.of_table(table.select(table.names[:-1]))
    with pytest.raises(DataError, match="are not those of a saved blend"):
        Blend.of_table(table.select(table.names[::-1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposure": np.full(6, np.nan)}, "exposure is nan .* must be finite"),
        ({"exposure": np.full(6, np.inf)}, "exposure is inf .* must be finite"),
        ({"gated": np.full(6, np.nan)}, "gated is nan"),
        ({"gated": np.full(6, 1.5)}, r"gated is 1\.5"),
        ({"blended": np.full(6, -1.5)}, r"blended is -1\.5"),
        ({"label": np.full(6, 3)}, r"label is 3 .* must lie in -1\.\.2"),
        ({"label": np.full(6, -2)}, "label is -2"),
        ({"weights": np.zeros((6, 3))}, r"weights has shape \(6, 3\)"),
        ({"blended": np.zeros(5)}, r"blended has shape \(5,\)"),
        ({"time": np.arange(6)}, "one clock"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_sentence(change, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(a_blend(), **change)


def test_nobody_can_change_what_was_decided():
    mine = np.zeros(6)
    blend = dataclasses.replace(a_blend(), exposure=mine)
    mine[0] = 9.0
    assert blend.exposure[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        blend.exposure[0] = 1.0


def test_joining_none_or_strangers_is_refused():
    with pytest.raises(DataError, match="there are none"):
        Blend.concat([])
    with pytest.raises(DataError, match="do not match"):
        Blend.concat([a_blend(6)[:3], a_blend(6, CRISIS_NAMES)[3:]])
    with pytest.raises(TypeError, match="step 1"):
        a_blend()[::2]


def test_what_is_earned_runs_from_the_next_open_to_the_one_after():
    bars = opens(100, 110, 121, 60.5, 121)
    assert earned(bars)[:3] == pytest.approx([0.1, -0.5, 1.0])
    assert np.isnan(earned(bars)[3:]).all()
    assert np.isnan(known_return(bars)[0])
    assert known_return(bars)[1:] == pytest.approx([0.1, 0.1, -0.5, 1.0])


def test_what_is_earned_is_what_an_account_without_costs_earns(make_bars):
    bars = make_bars(40, seed=4)
    for row in (0, 7, 30, 37):
        exposure = np.zeros((40, 1))
        exposure[row] = 1.0
        result = simulate(Table(bars.time, exposure, ("exposure",)), bars, FREE, RiskLimits(stop=None))
        equity = result.curve.column("equity")[-1] / result.capital
        assert equity == pytest.approx(1.0 + earned(bars)[row], rel=1e-12)
        assert equity != pytest.approx(1.0 + earned(bars)[row - 1], rel=1e-4)  # the bar before is another


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 30))
def test_what_is_known_is_what_was_earned_two_bars_before_however_it_is_cut(make_bars, cut):
    bars = make_bars(30, seed=5)
    whole = known_return(bars)
    assert whole[2:].tobytes() == earned(bars)[:-2].tobytes()
    before = bars.column("open")[cut - 1] if cut else np.nan
    parts = np.concatenate([known_return(bars[:cut]), known_return(bars[cut:], before)])
    assert np.array_equal(parts, whole, equal_nan=True)


def test_what_is_known_does_not_look_ahead_and_what_is_earned_does(make_bars):
    bars = make_bars(30, seed=6)
    values = bars.values.copy()
    values[20:] *= 3.0
    altered = dataclasses.replace(bars, values=values)
    assert np.array_equal(known_return(altered)[:20], known_return(bars)[:20], equal_nan=True)
    assert not np.array_equal(earned(altered)[:20], earned(bars)[:20])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_bars_earn_nothing_that_is_known(make_bars, n):
    bars = make_bars(n)
    assert np.isnan(earned(bars)).all()
    assert earned(bars).shape == known_return(bars).shape == (n,)

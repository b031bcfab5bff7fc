"""The eight-gene family: its published description by hand, in a stream of a few bars, and as a slow twin."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.kernels import SHADOW
from configs.load import ConfigError
from specialists import origin8
from specialists.family import FAMILIES

FAMILY = origin8.Origin8(origin8.Origin8Config())
DECIDE = getattr(origin8.decide, "py_func", origin8.decide)
OFF = math.inf
compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="compares with compiled code")

GENES = {
    "stop_loss": 0.02,
    "take_profit": 0.05,
    "position_size": 0.002,
    "entry_threshold": 0.5,
    "exit_threshold": 0.2,
    "max_hold_time": 0.5,
    "volatility_scaling": 1.0,
    "momentum_weight": 0.5,
}


def expressed(family=FAMILY, **genes):
    return family.express(np.array([list((GENES | genes).values())]))[0]


def decide(signal, held=0.0, age=1.0, span=0.04, momentum=0.0, **genes):
    return DECIDE(tuple(expressed(**genes).tolist()), (signal, span, momentum), held, age, (0.0,))


def test_it_has_the_eight_genes_of_the_origin_between_zero_and_one():
    assert FAMILY.space.names == tuple(GENES)
    values = np.random.default_rng(0).random((3, 8))
    assert np.array_equal(FAMILY.space.decode(values), values)


def test_the_ranging_specialist_reads_the_reversion_signal():
    assert FAMILY.levels[0] == "origin_trend"
    assert FAMILIES.create("origin8", {"signal": "reversion"}).levels[0] == "origin_reversion"
    with pytest.raises(ConfigError):
        FAMILIES.create("origin8", {"signal": "trending"})


def test_the_longest_hold_is_a_floor_of_fourteen_bars_and_at_least_one():
    holds = [expressed(max_hold_time=gene)[5] for gene in (0.0, 0.1, 0.2, 0.5, 0.99, 1.0)]
    assert holds == [1.0, 1.0, 2.0, 7.0, 13.0, 14.0]
    daily = origin8.Origin8(origin8.Origin8Config(longest_hold=336))
    assert expressed(daily, max_hold_time=0.5)[5] == 168.0


def test_genes_of_zero_become_the_smallest_distance_and_divisor():
    genes = expressed(stop_loss=0.0, take_profit=0.0, volatility_scaling=0.0)
    assert genes[[0, 1, 6]].tolist() == [1e-4, 1e-4, 1e-3]


def test_it_opens_at_the_threshold_in_the_direction_of_the_signal():
    assert decide(0.5)[0] == pytest.approx(0.05)
    assert decide(-0.5)[0] == pytest.approx(-0.05)
    assert decide(0.499)[0] == 0.0


def test_a_signal_of_exactly_zero_opens_nothing():
    assert decide(0.0, entry_threshold=0.0)[0] == 0.0
    assert decide(-1e-9, entry_threshold=0.0)[0] < 0.0


def test_the_size_is_divided_by_range_and_scaling_and_kept_between_one_and_ten_per_cent():
    assert decide(1.0, span=0.08)[0] == pytest.approx(0.025)
    assert decide(1.0, volatility_scaling=0.5)[0] == pytest.approx(0.1)
    assert decide(1.0, span=0.5)[0] == 0.01
    assert decide(1.0, span=0.001)[0] == 0.1


def test_a_follower_takes_more_when_momentum_is_strong():
    assert decide(1.0, momentum=0.011, momentum_weight=0.6)[0] == pytest.approx(0.05 * 1.3)
    assert decide(1.0, momentum=-0.011, momentum_weight=0.6)[0] == pytest.approx(0.05 * 1.3)
    assert decide(1.0, momentum=0.010, momentum_weight=0.6)[0] == pytest.approx(0.05)
    assert decide(1.0, span=0.021, momentum=0.02, momentum_weight=1.0)[0] == 0.1  # clipped again


def test_the_others_take_less_when_momentum_is_extended():
    assert decide(1.0, momentum=0.021, momentum_weight=0.5)[0] == pytest.approx(0.05 * 0.85)
    assert decide(1.0, momentum=-0.021, momentum_weight=0.0)[0] == pytest.approx(0.05 * 0.7)
    assert decide(1.0, momentum=0.020, momentum_weight=0.0)[0] == pytest.approx(0.05)
    assert decide(1.0, span=0.2, momentum=0.03, momentum_weight=0.0)[0] == 0.01


def test_it_closes_on_a_weak_signal_a_reversal_and_after_the_hold():
    assert decide(0.2, held=0.05)[0] == 0.05
    assert decide(0.199, held=0.05)[0] == 0.0
    assert decide(-0.3, held=0.05)[0] == 0.05  # weak enough to stay: 0.3 is not past 0.3
    assert decide(-0.301, held=0.05)[0] == 0.0
    assert decide(0.301, held=-0.05)[0] == 0.0
    assert decide(1.0, held=0.05, age=6.0)[0] == 0.05
    assert decide(1.0, held=0.05, age=7.0)[0] == 0.0


def test_it_never_closes_and_opens_at_once():
    assert decide(-1.0, held=0.05)[0] == 0.0


def test_stop_and_target_are_the_genes():
    assert decide(1.0)[1:3] == (0.02, 0.05)


@compiled
def test_a_stream_holds_as_many_bars_as_the_gene_says_and_stops_inside_the_bar():
    n = 9
    rows = np.tile([1.0, 0.04, 0.0], (n, 1))
    prices = np.full((n, 4), 100.0)
    prices[6] = (100.0, 100.0, 97.0, 100.0)
    state, out = np.concatenate([SHADOW, FAMILY.fresh]), np.empty((n, 3))
    genes = expressed(max_hold_time=3 / 14 + 1e-9)
    FAMILY.follow(genes, rows, prices, np.ones(n, np.int8), np.array([1.0, -1.0, OFF, OFF, OFF]), state, out)
    # Three bars held, a flat close, opened again for bar 5, stopped in bar 6, opened again at once.
    assert (out[:, 0] > 0).tolist() == [True, True, True, False, True, True, True, True, True]
    assert state[1] == 2.0  # bars 7 and 8: the stop began a new position


def naive(genes, row, held, age, memory):
    stop, take, position, entry, leave, hold, scaling, weight = genes
    signal, span, momentum = row
    if held != 0:
        weak = abs(signal) < leave
        against = (-signal if held > 0 else signal) > 0.3
        return (0.0 if weak or against or age >= hold else held), stop, take, memory
    if signal == 0 or abs(signal) < entry:
        return 0.0, stop, take, memory
    size = max(0.01, min(0.1, position / (scaling * span)))
    if weight > 0.5 and abs(momentum) > 0.01:
        size *= 1.0 + 0.5 * weight
    if weight <= 0.5 and abs(momentum) > 0.02:
        size *= 1.0 - 0.3 * (1.0 - weight)
    size = max(0.01, min(0.1, size))
    return (size if signal > 0 else -size), stop, take, memory


@st.composite
def situations(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    genes = FAMILY.express(rng.random((1, 8)))[0]
    signal = draw(st.sampled_from([rng.uniform(-1, 1), 0.3, -0.3, 0.0, genes[3], -genes[4]]))
    momentum = draw(st.sampled_from([rng.normal(0.0, 0.02), 0.01, -0.02]))
    held = draw(st.sampled_from([0.0, 0.05, -0.05]))
    row = (float(signal), float(rng.uniform(0.005, 0.2)), float(momentum))
    return tuple(genes.tolist()), row, held, float(rng.integers(1, 16)), (0.0,)


@settings(max_examples=300, deadline=None)
@given(situations())
def test_the_decision_is_the_one_of_its_description(situation):
    assert DECIDE(*situation) == naive(*situation)


@compiled
@settings(max_examples=100, deadline=None)
@given(situations())
def test_the_compiled_decision_is_the_interpreted_one_bit_for_bit(situation):
    assert origin8.decide(*situation) == DECIDE(*situation)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda genes, row, held, age, memory: naive(genes, row, -held, age, memory),
        lambda genes, row, held, age, memory: naive(genes, row, held, age + 1, memory),
        lambda genes, row, held, age, memory: naive(genes, (row[0], row[1], 0.0), held, age, memory),
        lambda genes, row, held, age, memory: naive((*genes[:7], 1 - genes[7]), row, held, age, memory),
    ],
    ids=["side", "hold off by one", "no momentum", "weight turned"],
)
def test_the_twin_tells_a_wrong_decision_from_a_right_one(wrong):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        genes = tuple(FAMILY.express(rng.random((1, 8)))[0].tolist())
        row = (rng.uniform(-1, 1), rng.uniform(0.005, 0.2), rng.normal(0.0, 0.02))
        situation = (genes, row, float(rng.choice([0.0, 0.05, -0.05])), float(rng.integers(1, 16)), (0.0,))
        if DECIDE(*situation) != wrong(*situation):
            return
    pytest.fail("nothing differed")

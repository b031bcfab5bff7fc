"""The default family: its decision by hand, in a stream of a few bars, and against a slow twin."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.kernels import SHADOW
from specialists import blend
from specialists.family import FAMILIES

FAMILY = blend.Blend(blend.BlendConfig())
DECIDE = getattr(blend.decide, "py_func", blend.decide)
OFF = math.inf
compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="compares with compiled code")

NATURAL = {
    "weight_return_4": 1.0,
    "entry_threshold": 0.5,
    "exit_threshold": 0.2,
    "stop_atr": 2.0,
    "target_atr": 3.0,
    "max_hold": 10.0,
    "risk": 0.005,
    "short_scale": 0.5,
    "conviction": 0.0,
    "cooldown": 0.0,
}


def expressed(**natural):
    """Return what ``decide`` reads for genes in natural units; the rest is zero."""
    values = NATURAL | natural
    return FAMILY.express(np.array([[values.get(name, 0.0) for name in FAMILY.space.names]]))[0]


def decide(score, held=0.0, age=1.0, wait=0.0, volatility=0.01, atr=0.02, **natural):
    row = (score, *[0.0] * 13, volatility, atr)
    exposure, stop, take, memory = DECIDE(tuple(expressed(**natural)), row, held, age, (wait,))
    return exposure, stop, take, memory[0]


# Expressing genes.


def test_the_space_has_a_gene_for_each_weight_and_ten_more():
    assert FAMILY.space.n_genes == len(blend.GENES) == 24
    assert FAMILY.space.names[:14] == tuple(f"weight_{name}" for name in blend.SIGNALS)
    assert isinstance(FAMILIES.create("blend"), blend.Blend)


def test_weights_are_divided_by_their_absolute_sum():
    genes = expressed(weight_return_4=0.6, weight_return_24=-0.9)
    assert genes[:2] == pytest.approx([0.4, -0.6], rel=1e-15)


def test_weights_that_are_almost_nothing_stay_quiet_instead_of_being_blown_up():
    assert expressed(weight_return_4=0.01)[0] == pytest.approx(0.1, rel=1e-15)
    assert not expressed(weight_return_4=0.0)[:14].any()


def test_the_exit_threshold_is_a_share_of_the_entry_threshold_and_shorts_are_never_negative():
    names = FAMILY.space.names
    genes = expressed(entry_threshold=2.0, exit_threshold=-0.5, short_scale=-0.4)
    assert genes[names.index("exit_threshold")] == -1.0
    assert genes[names.index("short_scale")] == 0.0
    assert expressed(short_scale=0.7)[names.index("short_scale")] == 0.7


def test_expressing_leaves_the_genes_alone():
    genes = FAMILY.space.decode(np.random.default_rng(0).random((5, 24)))
    before = genes.copy()
    FAMILY.express(genes)
    assert np.array_equal(genes, before)


# The decision.


def test_a_long_opens_above_the_entry_threshold_and_not_at_it():
    assert decide(0.51)[0] == 0.5  # 0.005 of risk over 0.01 of volatility
    assert decide(0.5)[0] == 0.0
    assert decide(-0.5)[0] == 0.0


def test_a_short_opens_below_minus_the_threshold_at_its_share_of_the_size():
    assert decide(-0.51)[0] == -0.25
    assert decide(-0.51, short_scale=0.0)[0] == 0.0
    assert decide(-0.51, short_scale=-0.3)[0] == 0.0


def test_the_bias_is_added_to_the_score():
    assert decide(0.3, bias=0.25)[0] == 0.5
    assert decide(-0.6, bias=0.25)[0] == 0.0


def test_every_signal_has_its_weight():
    for i in range(14):
        row = (*(2.0 if j == i else 0.0 for j in range(14)), 0.01, 0.02)
        for sign in (1.0, -1.0):
            genes = expressed(**{"weight_return_4": 0.0, f"weight_{blend.SIGNALS[i]}": sign})
            assert np.sign(DECIDE(tuple(genes), row, 0.0, 0.0, (0.0,))[0]) == sign


def test_the_size_aims_at_a_volatility_and_is_never_more_than_everything():
    assert decide(1.0, volatility=0.02, risk=0.004)[0] == pytest.approx(0.2, rel=1e-15)
    assert decide(1.0, volatility=0.002, risk=0.004)[0] == 1.0
    with np.errstate(divide="ignore"):
        assert decide(1.0, volatility=0.0)[0] == 1.0


def test_full_conviction_sizes_in_proportion_to_the_score_up_to_twice_the_threshold():
    sizes = [decide(score, conviction=1.0)[0] for score in (0.6, 0.75, 1.0, 3.0)]
    assert sizes == pytest.approx([0.3, 0.375, 0.5, 0.5], rel=1e-12)
    assert decide(0.6, conviction=0.5)[0] == pytest.approx(0.4, rel=1e-12)


def test_stop_and_target_are_multiples_of_the_true_range():
    assert decide(1.0)[1:3] == (0.04, 0.06)


def test_a_position_keeps_its_size_until_the_score_no_longer_agrees():
    assert decide(0.11, held=0.3)[0] == 0.3
    assert decide(0.10, held=0.3)[0] == 0.0  # at the exit threshold of 0.2 times 0.5
    assert decide(-0.11, held=-0.2)[0] == -0.2
    assert decide(-0.10, held=-0.2)[0] == 0.0
    assert decide(-0.3, held=0.3, exit_threshold=-1.0)[0] == 0.3


def test_a_position_never_turns_without_a_flat_bar():
    assert decide(-3.0, held=0.3)[0] == 0.0


def test_a_position_closes_after_its_longest_hold():
    assert decide(1.0, held=0.3, age=9.0)[0] == 0.3
    assert decide(1.0, held=0.3, age=10.0)[0] == 0.0


def test_after_a_position_it_waits():
    assert decide(1.0, held=0.3, cooldown=2.0)[3] == 2.0
    assert decide(1.0, wait=2.0, cooldown=2.0)[::3] == (0.0, 1.0)
    assert decide(1.0, wait=1.0, cooldown=2.0)[::3] == (0.0, 0.0)
    assert decide(1.0, wait=0.0, cooldown=2.0)[0] == 0.5


# Streams of a few bars.


def follow(scores, bars=None, **natural):
    n = len(scores)
    rows = np.zeros((n, 16))
    rows[:, 0], rows[:, 14], rows[:, 15] = scores, 0.01, 0.02
    prices = np.full((n, 4), 100.0) if bars is None else np.array(bars, dtype=float)
    state, out = np.concatenate([SHADOW, FAMILY.fresh]), np.empty((n, 3))
    bounds = np.array([1.0, -1.0, OFF, OFF, OFF])
    FAMILY.follow(expressed(**natural), rows, prices, np.ones(n, np.int8), bounds, state, out)
    return out[:, 0].tolist()


@compiled
def test_a_longest_hold_of_four_bars_is_four_bars_and_then_it_may_open_again():
    assert follow([1.0] * 7, max_hold=4.0) == [0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.5]


@compiled
def test_a_wait_of_two_bars_leaves_two_closes_unused():
    scores = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert follow(scores, cooldown=0.0) == [0.5, 0.0, 0.5, 0.5, 0.5, 0.5]
    assert follow(scores, cooldown=2.0) == [0.5, 0.0, 0.0, 0.0, 0.5, 0.5]


@compiled
def test_a_stop_is_followed_by_the_wait():
    bars = [(100,) * 4, (100,) * 4, (100, 100, 95, 96), *[(96,) * 4] * 4]
    assert follow([1.0] * 7, bars, cooldown=2.0) == [0.5, 0.5, 0.0, 0.0, 0.5, 0.5, 0.5]


@compiled
def test_a_stop_on_the_entry_bar_is_followed_by_the_wait_as_well():
    bars = [(100,) * 4, (100, 100, 95, 96), *[(96,) * 4] * 4]
    assert follow([1.0] * 6, bars, cooldown=2.0) == [0.5, 0.0, 0.0, 0.5, 0.5, 0.5]


# A slow twin of the decision, and the compiled one.


def naive(genes, row, held, age, memory):
    weights = genes[:14]
    bias, entry, leave, stop_atr, target_atr, max_hold, risk, short_scale, conviction, cooldown = genes[14:]
    score = bias
    for weight, value in zip(weights, row[:14], strict=True):
        score += weight * value
    volatility, atr = row[14:]
    if held != 0:
        against = score if held > 0 else -score
        stay = against > leave and age < max_hold
        return (held if stay else 0.0), stop_atr * atr, target_atr * atr, (cooldown,)
    exposure = 0.0
    if memory[0] <= 0 and abs(score) > entry:
        fullness = min(1.0, abs(score) * (0.5 / entry))
        size = min(1.0, risk / volatility * (1.0 - conviction + conviction * fullness))
        exposure = size if score > 0 else -size * short_scale
    wait = cooldown if exposure != 0 else memory[0] - 1.0
    return exposure, stop_atr * atr, target_atr * atr, (wait,)


@st.composite
def situations(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    genes = FAMILY.express(FAMILY.space.decode(rng.random((1, 24))))[0]
    row = np.append(rng.normal(0.0, 2.0, 14), rng.uniform(0.001, 0.05, 2))
    held = draw(st.sampled_from([0.0, 0.0, rng.uniform(0, 1), -rng.uniform(0, 1)]))
    wait = draw(st.sampled_from([0.0, -3.0, rng.uniform(0, 3)]))
    return tuple(genes.tolist()), tuple(row.tolist()), held, float(rng.integers(1, 60)), (wait,)


@settings(max_examples=300, deadline=None)
@given(situations())
def test_the_decision_is_the_one_of_its_description(situation):
    assert DECIDE(*situation) == naive(*situation)


@compiled
@settings(max_examples=100, deadline=None)
@given(situations())
def test_the_compiled_decision_is_the_interpreted_one_bit_for_bit(situation):
    assert blend.decide(*situation) == DECIDE(*situation)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda genes, row, held, age, memory: naive(genes, row, -held, age, memory),
        lambda genes, row, held, age, memory: naive(genes, row, held, age + 1, memory),
        lambda genes, row, held, age, memory: naive(genes, row, held, age, (0.0,)),
        lambda genes, row, held, age, memory: naive(genes, row[1:14] + row[:1] + row[14:], held, age, memory),
        lambda genes, row, held, age, memory: naive(genes, row[:14] + row[:13:-1], held, age, memory),
        lambda genes, row, held, age, memory: naive(
            (*genes[:17], genes[18], genes[17], *genes[19:]), row, held, age, memory
        ),
    ],
    ids=["side", "hold off by one", "no wait", "signals moved", "levels swapped", "stop and target swapped"],
)
def test_the_twin_tells_a_wrong_decision_from_a_right_one(wrong):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        genes = tuple(FAMILY.express(FAMILY.space.decode(rng.random((1, 24))))[0].tolist())
        row = tuple(np.append(rng.normal(0.0, 2.0, 14), rng.uniform(0.001, 0.05, 2)).tolist())
        situation = (
            genes,
            row,
            float(rng.choice([0.0, 0.4, -0.4])),
            float(rng.integers(1, 60)),
            (rng.normal(),),
        )
        if DECIDE(*situation) != wrong(*situation):
            return
    pytest.fail("nothing differed")

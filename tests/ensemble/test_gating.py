import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, validate
from ensemble.gating import Gates, GatingConfig, no_trade_band
from ensemble.signals import SignalTable
from market.table import Table
from regimes.regime import REGIME_NAMES, RegimeProbabilities

#: Every gate at its neutral value.
OPEN = {
    "confidence_power": 0.0, "threshold": 0.0, "wild_threshold": None, "leave": 1.0, "min_change": 0.0,
}  # fmt: skip
LEVEL = "volatility_24"
N = 300


def config(**changes):
    return GatingConfig(**{**OPEN, **changes})


def inputs(wish, confidence=1.0, label=0, level=None, confirming=np.nan):
    """Everything that gates read, from what a test is about."""
    wish = np.asarray(wish, np.float64)
    n = wish.size
    time = np.arange(n) * 3_600_000_000_000
    columns = [np.broadcast_to(np.asarray(one, np.float64), n) for one in (confirming, np.zeros(n))]
    return (
        wish,
        SignalTable(time, np.column_stack(columns), ("slow", "other")),
        RegimeProbabilities(time, np.full((n, 3), 1 / 3), REGIME_NAMES),
        np.broadcast_to(np.asarray(label, np.int8), n),
        np.broadcast_to(np.asarray(confidence, np.float64), n),
        Table(time, np.broadcast_to(1.0 if level is None else level, (1, n)).T, (LEVEL,)),
    )


def random_inputs(seed, n=N):
    random = np.random.default_rng(seed)
    wish = np.clip(np.cumsum(random.normal(0, 0.2, n)) * 0.3, -1, 1)
    wish[random.random(n) < 0.05] = np.nan
    wish[random.random(n) < 0.05] = 0.0
    confidence = random.uniform(0.3, 1, n)
    confidence[random.random(n) < 0.03] = np.nan
    confirming = random.uniform(-1, 1, n)
    confirming[random.random(n) < 0.2] = np.nan
    level = random.lognormal(0, 0.5, n)
    return inputs(wish, confidence, random.integers(-1, 3, n), level, confirming)


def passed(setting, given):
    return Gates(setting).update(*given)


def cut(given, start, stop):
    return tuple(one[start:stop] for one in given)


# What each gate does


def test_open_gates_pass_everything_and_what_is_not_known_is_flat():
    wish = np.array([0.5, -0.01, np.nan, 1.0, 0.0, -1.0])
    assert passed(config(), inputs(wish, confidence=np.nan, label=-1)).tolist() == [0.5, -0.01, 0, 1, 0, -1]


def test_confidence_scales_by_its_power_and_is_flat_where_unknown():
    given = inputs([0.8] * 3, confidence=[1.0, 0.25, np.nan])
    assert passed(config(confidence_power=0.5), given).tolist() == [0.8, 0.4, 0.0]
    assert passed(config(confidence_power=1.0), given).tolist() == [0.8, 0.2, 0.0]


def test_a_position_opens_at_the_threshold_and_is_left_below_its_share():
    wish = [0.09, 0.1, 0.05, 0.049, 0.09, -0.1, -0.06, 0.2, -0.05]
    found = passed(config(threshold=0.1, leave=0.5), inputs(wish))
    assert found.tolist() == [0, 0.1, 0.05, 0, 0, -0.1, -0.06, 0.2, 0]


def test_a_small_change_keeps_the_position_and_a_change_of_side_does_not():
    wish = [0.50, 0.59, 0.61, 0.52, 0.50, -0.05, -0.04, 0.0, 0.05]
    found = passed(config(min_change=0.1), inputs(wish))
    assert found.tolist() == [0.5, 0.5, 0.61, 0.61, 0.5, -0.05, -0.05, 0.0, 0.05]


def test_high_volatility_asks_for_a_stronger_wish_and_low_for_a_weaker_one():
    level = np.concatenate([np.linspace(1, 2, 20), [0.5, 1.5, 9.0]])
    given = inputs(np.full(23, 0.15), level=level)
    both = {"volatility_window": 20, "threshold": 0.1, "calm_threshold": 0.2, "wild_threshold": 0.2}
    found = passed(config(calm_below=0.1, wild_above=0.9, **both), given)
    assert not found[:19].any()  # no whole window: not known
    assert (found[19:] > 0).tolist() == [False, False, True, False]
    scaled = passed(config(wild_scale=0.5, volatility_window=20, wild_above=0.9), given)
    assert scaled[20:].tolist() == [0.15, 0.15, 0.075]


def test_volatility_may_be_told_by_the_regime():
    given = inputs(np.full(5, 0.15), label=[-1, 0, 1, 2, 3])
    setting = config(volatility_by="regime", threshold=0.1, wild_threshold=0.2, calm_threshold=0.0)
    assert passed(setting, given).tolist() == [0.0, 0.15, 0.15, 0.0, 0.0]
    assert Gates(setting).columns == ()


@pytest.mark.parametrize(
    ("action", "required", "expected"),
    [
        ("flat", False, [0.8, 0.8, 0.0, 0.8, -0.8, 0.0]),
        ("halve", False, [0.8, 0.8, 0.4, 0.8, -0.8, -0.4]),
        ("flat", True, [0.8, 0.8, 0.0, 0.0, -0.8, 0.0]),
    ],
)
def test_a_slower_source_must_not_disagree(action, required, expected):
    given = inputs([0.8, 0.8, 0.8, 0.8, -0.8, -0.8], confirming=[0.5, -0.2, -0.21, np.nan, 0.2, 0.21])
    setting = config(confirm="slow", confirm_tolerance=0.2, confirm_action=action, confirm_required=required)
    assert passed(setting, given).tolist() == expected
    assert passed(config(), given).tolist() == [0.8, 0.8, 0.8, 0.8, -0.8, -0.8]


def test_names_that_are_not_there_are_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"gating.confirm is 'slw'.*did you mean slow\?"):
        passed(config(confirm="slw"), inputs([0.1]))
    with pytest.raises(ConfigError, match=r"volatility_column is 'volatility_2'.*did you mean volatility_24"):
        passed(config(wild_scale=0.5, volatility_column="volatility_2"), inputs([0.1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calm_below": 0.8, "wild_above": 0.7}, "calm_below is 0.8; it must not lie above"),
        ({"min_change": 2.5}, "min_change is 2.5; it must lie in 0..2, or be auto"),
        ({"min_change": "car"}, "min_change"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"confirm_action": "double"}, "confirm_action"),
    ],
)
def test_settings_out_of_bounds_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(GatingConfig, changes, "validate.yaml: gating")


# The band that costs decide


def mean_loss(band, moves, cost, edge):
    """Cost and distance from the ideal per bar of a held position, by the gates themselves."""
    ideal = np.cumsum(moves)
    wish = 0.5 + ideal / 1000.0  # far from the gates' ends; all in thousandths
    held = passed(config(min_change=band / 1000.0), inputs(wish)) - 0.5
    off = (wish - 0.5 - held) * 1000.0
    turnover = np.abs(np.diff(held)).mean() * 1000.0
    return cost * turnover + edge * (off**2).mean() / 2.0


def test_the_band_that_costs_decide_is_the_best_of_all_bands():
    cost, edge, half_life = 20e-4, 4e-3, 200.0
    best = no_trade_band(cost, edge, half_life)
    deviation = math.sqrt(2.0 * 0.25 * (1.0 - 2.0 ** (-1.0 / half_life)))
    moves = np.random.default_rng(3).normal(0.0, deviation, 60_000)
    moves -= moves.mean()
    loss = {factor: mean_loss(factor * best, moves, cost, edge) for factor in (0.4, 0.7, 1.0, 1.4, 2.5)}
    assert loss[1.0] == min(loss.values())
    assert min(loss[0.4], loss[2.5]) > 1.2 * loss[1.0]


def test_dearer_trades_widen_the_band_and_stronger_signals_narrow_it():
    usual = no_trade_band(5e-4, 5e-3, 48)
    assert no_trade_band(40e-4, 5e-3, 48) == pytest.approx(2.0 * usual)
    assert no_trade_band(5e-4, 40e-3, 48) == pytest.approx(usual / 2.0)
    assert no_trade_band(5e-4, 5e-3, 480) < usual
    assert no_trade_band(1.0, 1e-6, 1) == 1.0
    assert no_trade_band(0.0, 5e-3, 48) == 0.0
    assert GatingConfig(min_change="auto", cost_bps=5, edge_bps=50, half_life_bars=48).band() == usual


# The laws


def twin(setting, wish, signals, regimes, label, confidence, features):
    """The gates in plain Python, row by row, from the first row on."""
    level, window = features.column(LEVEL), setting.volatility_window
    confirming = signals.column(setting.confirm) if setting.confirm else np.full(len(wish), np.nan)
    found, held = [], 0.0
    for t, x in enumerate(wish):
        if setting.confidence_power > 0:
            x *= confidence[t] ** setting.confidence_power
        state = "usual"
        if setting.watches_volatility and setting.volatility_by == "regime":
            state = {-1: None, 0: "calm", 1: "usual"}.get(int(label[t]), "wild")
        elif setting.watches_volatility:
            past = level[max(0, t - window + 1) : t]
            share = (past < level[t]).mean() + (past == level[t]).mean() / 2 if len(past) else math.nan
            state = (
                "wild" if share > setting.wild_above else "calm" if share < setting.calm_below else "usual"
            )
            state = None if t < window - 1 else state
        own = {"calm": setting.calm_threshold, "wild": setting.wild_threshold}.get(state)
        enter = setting.threshold if own is None else own
        x *= setting.wild_scale if state == "wild" else 1.0
        against = -confirming[t] * np.sign(x)
        if against > setting.confirm_tolerance:
            x *= {"flat": 0.0, "halve": 0.5}[setting.confirm_action]
        silent = setting.confirm and setting.confirm_required and math.isnan(confirming[t])
        inside = held * x > 0
        if state is None or silent or not abs(x) >= (enter * setting.leave if inside else enter) or x == 0:
            held = 0.0
        elif not inside or abs(x - held) > setting.min_change:
            held = x
        found.append(held)
    return np.array(found)


SETTINGS = st.builds(
    GatingConfig,
    confidence_power=st.sampled_from([0.0, 0.5, 1.0]),
    threshold=st.sampled_from([0.0, 0.1, 0.3]),
    calm_threshold=st.sampled_from([None, 0.05]),
    wild_threshold=st.sampled_from([None, 0.2, 1.0]),
    wild_scale=st.sampled_from([1.0, 0.5]),
    volatility_by=st.sampled_from(["level", "regime"]),
    volatility_window=st.sampled_from([2, 30]),
    calm_below=st.sampled_from([0.0, 0.3]),
    wild_above=st.sampled_from([0.7, 1.0]),
    confirm=st.sampled_from([None, "slow"]),
    confirm_action=st.sampled_from(["flat", "halve"]),
    confirm_required=st.booleans(),
    leave=st.sampled_from([0.0, 0.5, 1.0]),
    min_change=st.sampled_from([0.0, 0.1, 0.5, "auto"]),
)


@settings(max_examples=60, deadline=None)
@given(setting=SETTINGS, seed=st.integers(0, 10_000))
def test_the_kernel_does_what_plain_python_does(setting, seed):
    given = random_inputs(seed)
    setting = setting.model_copy(update={"min_change": setting.band()})
    assert passed(setting, given) == pytest.approx(twin(setting, *given), abs=1e-15)


def in_parts(gates, given, cuts):
    edges = [0, *sorted(cuts), N]
    return np.concatenate([gates.update(*cut(given, a, b)) for a, b in itertools.pairwise(edges)])


@settings(max_examples=40, deadline=None)
@given(setting=SETTINGS, seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, N), max_size=8))
def test_cutting_the_rows_anywhere_changes_no_bit(setting, seed, cuts):
    given = random_inputs(seed)
    whole = passed(setting, given)
    assert in_parts(Gates(setting), given, cuts).tobytes() == whole.tobytes()
    assert np.isfinite(whole).all()
    assert np.abs(whole).max() <= 1.0


def test_one_row_at_a_time_and_a_gate_that_forgets_is_seen():
    setting = config(min_change=0.3, wild_threshold=0.2, volatility_window=20)
    given = random_inputs(1)
    whole = passed(setting, given)
    assert in_parts(Gates(setting), given, range(1, N)).tobytes() == whole.tobytes()

    class Forgetful(Gates):
        def update(self, *rows):
            self._memory[:] = 0.0
            return super().update(*rows)

    assert in_parts(Forgetful(setting), given, range(1, N)).tobytes() != whole.tobytes()


def test_later_rows_change_nothing_before_them():
    setting = config(min_change=0.2, wild_threshold=0.3, volatility_window=20, confirm="slow")
    given, other = random_inputs(1), random_inputs(2)
    altered = tuple(
        np.concatenate([a[:150], b[150:]]) if isinstance(a, np.ndarray)
        else type(a)(a.time, np.concatenate([a.values[:150], b.values[150:]]), a.names)
        for a, b in zip(given, other, strict=True)
    )  # fmt: skip
    assert passed(setting, altered)[:150].tobytes() == passed(setting, given)[:150].tobytes()
    assert passed(setting, altered)[150:].tobytes() != passed(setting, given)[150:].tobytes()


@pytest.mark.parametrize("start", [1, 17, 60])
def test_after_the_warm_up_and_a_flat_row_it_does_not_matter_where_the_rows_began(start):
    setting = config(min_change=0.2, wild_threshold=0.3, volatility_window=20, threshold=0.1)
    given = random_inputs(7)
    gates = Gates(setting)
    assert gates.warmup == 19
    whole, late = passed(setting, given), passed(setting, cut(given, start, N))
    flat = start + gates.warmup + int(np.argmax(whole[start + gates.warmup :] == 0))
    assert late[flat - start :].tobytes() == whole[flat:].tobytes()
    assert late[: gates.warmup].tobytes() != whole[start : start + gates.warmup].tobytes()

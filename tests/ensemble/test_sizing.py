import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.limits import RiskLimits
from configs.load import ConfigError, validate
from ensemble.sizing import Sizing, SizingConfig
from market.bars import OHLCV, Bars, timeframe_ns

HOUR = timeframe_ns("1h")
YEAR = 8760
PLAIN = {"target_volatility": None, "min_change": 0.0}


def walk(n, seed=0, volatility=0.01, drift=0.0, missing=()):
    """Bars whose opens are the closes before; without the rows in ``missing``."""
    random = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(drift + volatility * random.normal(size=n)))
    before = np.concatenate([[100.0], close[:-1]])
    values = np.column_stack(
        [before, np.maximum(before, close), np.minimum(before, close), close, np.ones(n)]
    )
    kept = np.setdiff1d(np.arange(n), np.asarray(missing, int))
    return Bars((1 + kept) * HOUR, values[kept], OHLCV, symbol="X", interval_ns=HOUR)


def sized(bars, gated, limits=None, **settings):
    return Sizing(SizingConfig(**settings), limits).update(
        bars, np.broadcast_to(gated, len(bars)).astype(float)
    )


def random_signal(n, seed):
    random = np.random.default_rng(seed)
    signal = np.clip(np.cumsum(random.normal(0, 0.15, n)), -1, 1)
    signal[random.random(n) < 0.1] = 0.0
    return signal


# What it does


def test_a_full_signal_is_held_at_the_volatility_that_is_aimed_at():
    bars = walk(6_000, volatility=0.01)
    exposure = sized(bars, 1.0, target_volatility=0.3, min_change=0.0, cap=5.0)
    returns = np.diff(np.log(bars.column("close")))
    earned = exposure[500:-1] * returns[500:]
    assert earned.std() * math.sqrt(YEAR) == pytest.approx(0.3, rel=0.03)
    assert sized(bars, -0.5, target_volatility=0.3, min_change=0.0, cap=5.0) == pytest.approx(-exposure / 2)
    assert np.mean(exposure[500:]) == pytest.approx(0.3 / (0.01 * math.sqrt(YEAR)), rel=0.05)


def test_before_the_volatility_is_known_it_is_flat():
    exposure = sized(walk(60), 1.0, half_life_bars=24.0)
    assert not exposure[:24].any()
    assert (exposure[24:] > 0).all()


def test_a_quiet_or_frozen_market_is_not_bought_without_bound():
    frozen = walk(300, volatility=0.0)
    assert sized(frozen, 1.0, least_volatility=0.4, target_volatility=0.2, cap=3.0)[-1] == pytest.approx(0.5)
    assert sized(frozen, 1.0, least_volatility=0.05, target_volatility=0.2, cap=3.0, min_change=0.0,
                 )[-1] == 1.0  # fmt: skip
    wide = RiskLimits(max_exposure=10.0)
    assert sized(frozen, 1.0, wide, least_volatility=0.05, target_volatility=0.2, cap=3.0)[-1] == 3.0


def test_the_limits_of_the_account_bind():
    bars = walk(200)
    assert sized(bars, 1.0, RiskLimits(max_exposure=0.3), **PLAIN)[-1] == 0.3
    assert sized(bars, -1.0, RiskLimits(max_exposure=0.3), **PLAIN)[-1] == -0.3
    assert sized(bars, -1.0, RiskLimits(long_only=True), **PLAIN).tolist() == [0.0] * 200


def test_without_a_target_the_signal_is_the_exposure_up_to_the_cap():
    signal = random_signal(100, 3)
    assert sized(walk(100), signal, **PLAIN).tolist() == signal.tolist()
    assert sized(walk(100), signal, cap=0.5, **PLAIN) == pytest.approx(signal / 2)
    assert sized(walk(100), signal, cap=4.0, **PLAIN).tolist() == signal.tolist()
    assert sized(walk(3), [0.5, np.nan, 0.5], **PLAIN).tolist() == [0.5, 0.0, 0.5]


def test_small_changes_do_not_trade_and_going_flat_or_over_to_the_other_side_does():
    signal = np.array([0.50, 0.54, 0.56, 0.52, 0.515, 0.50, 0.0, 0.02, -0.01, -0.05, -0.07])
    found = sized(walk(11), signal, target_volatility=None, min_change=0.05)
    assert found.tolist() == [0.5, 0.5, 0.56, 0.56, 0.56, 0.5, 0.0, 0.02, -0.01, -0.01, -0.07]


def test_a_move_over_missing_bars_is_shared_among_them():
    bars = walk(400, seed=2)
    gapped = walk(400, seed=2, missing=range(300, 320))
    settings = {"target_volatility": 0.2, "min_change": 0.0, "half_life_bars": 24.0, "cap": 9.0}
    wide = RiskLimits(max_exposure=10.0)
    decay = 2.0 ** (-1 / 24)
    moves = np.diff(np.log(gapped.column("close")))
    steps = np.diff(gapped.time) / HOUR
    squares = weight = 0.0
    for move, step in zip(moves, steps, strict=True):
        squares = decay**step * squares + (1 - decay**step) * move**2 / step
        weight = decay**step * weight + (1 - decay**step)
    expected = 0.2 / math.sqrt(squares / weight * YEAR)
    assert sized(gapped, 1.0, wide, **settings)[-1] == pytest.approx(expected, rel=1e-12)
    # Taken for one bar, twenty would look like a storm.
    first = 300
    after, usual = (sized(one, 1.0, wide, **settings) for one in (gapped, bars))
    assert after[first] > 0.5 * usual[first - 1]


# Kelly


KELLY = {"target_volatility": None, "kelly": 0.5, "kelly_half_life_bars": 3_000.0, "min_change": 0.0}
WIDE = RiskLimits(max_exposure=10.0)


def test_kelly_bets_half_of_what_the_growth_of_an_edge_asks_for():
    edge, volatility = 0.002, 0.02
    bars = walk(12_000, seed=1, volatility=volatility, drift=edge - volatility**2 / 2)
    exposure = sized(bars, 1.0, WIDE, cap=10.0, kelly_prior_bars=0.0, **KELLY)
    opens = bars.column("open")
    paid = opens[1:] / opens[:-1] - 1.0  # the edge of these bars, which chance made a little smaller
    assert np.mean(exposure[6_000:]) == pytest.approx(0.5 * paid.mean() / (paid**2).mean(), rel=0.1)
    assert paid.mean() == pytest.approx(edge, rel=0.2)
    shrunk = sized(bars, 1.0, WIDE, cap=10.0, kelly_prior_bars=2_000.0, **KELLY)
    assert (shrunk <= exposure).all()
    assert (shrunk[2_000:] < exposure[2_000:]).all()


def test_kelly_bets_nothing_before_there_is_evidence_nor_on_a_signal_that_loses():
    bars = walk(4_000, seed=2, drift=-0.001)
    exposure = sized(bars, 1.0, WIDE, cap=10.0, **KELLY)
    assert not exposure[:2].any()
    assert not exposure[1_000:].any()
    assert sized(bars, -1.0, WIDE, cap=10.0, **KELLY)[-1] < 0.0


def test_kelly_learns_from_decisions_that_are_over_and_no_others():
    # Only the bar between the two opens after the decision pays: the move from open 11 to open 12.
    bars = walk(20, volatility=0.0)
    values = bars.values.copy()
    values[12:, :4] *= 1.5  # open of row 12 is half higher
    values[11, 1] = values[11, 3] = 150.0
    bars = dataclasses.replace(bars, values=values)
    for decided, pays in ((9, False), (10, True), (11, False)):
        signal = np.zeros(20)
        signal[decided] = 1.0
        signal[19] = 1.0  # asks
        found = sized(bars, signal, WIDE, cap=10.0, kelly_prior_bars=0.0, **KELLY)
        assert bool(found[19] > 0) == pays, decided
    signal = np.zeros(20)
    signal[10:13] = 1.0
    assert sized(bars, signal, WIDE, cap=10.0, kelly_prior_bars=0.0, **KELLY)[11] == 0.0
    assert sized(bars, signal, WIDE, cap=10.0, kelly_prior_bars=0.0, **KELLY)[12] > 0.0


# The laws


def twin(config, bars, gated):
    """The size in plain Python, from the first row on; sums are taken anew in every row."""
    close, opens = bars.column("close"), bars.column("open")
    steps = np.diff(bars.time) / bars.interval_ns
    moves = np.diff(np.log(close))
    found, held = [], 0.0
    for t in range(len(bars)):
        limit = [config.cap]
        if config.target_volatility is not None:
            limit.append(0.0)
            if t >= max(2, math.ceil(config.half_life_bars)):
                age = np.concatenate([np.cumsum(steps[:t][::-1])[::-1][1:], [0.0]])
                fades = 0.5 ** (age / config.half_life_bars)
                counts = fades * (1 - 0.5 ** (steps[:t] / config.half_life_bars))
                variance = (counts * moves[:t] ** 2 / steps[:t]).sum() / counts.sum() * bars.bars_per_year
                limit[-1] = config.target_volatility / max(math.sqrt(variance), config.least_volatility)
        if config.kelly is not None:
            paid = [
                gated[i - 2] * (opens[i] / opens[i - 1] - 1) for i in range(2, t + 1) if gated[i - 2] != 0
            ]
            fades = 0.5 ** (np.arange(len(paid))[::-1] / config.kelly_half_life_bars)
            total = (fades * paid).sum()
            sure = fades.sum() / (fades.sum() + config.kelly_prior_bars) if len(paid) else 0.0
            limit.append(config.kelly * sure * total / (fades * np.square(paid)).sum() if total > 0 else 0.0)
        if len(limit) == 1:
            limit.append(1.0)
        wanted = float(np.clip(gated[t] * min(limit), -1, 1))
        if wanted == 0 or held * wanted <= 0 or abs(wanted - held) > config.min_change:
            held = wanted
        found.append(held)
    return np.array(found)


SETTINGS = st.builds(
    SizingConfig,
    target_volatility=st.sampled_from([None, 0.1, 0.5]),
    half_life_bars=st.sampled_from([1.5, 24.0]),
    least_volatility=st.sampled_from([0.01, 0.8]),
    cap=st.sampled_from([0.5, 1.0, 3.0]),
    kelly=st.sampled_from([None, 0.3, 1.0]),
    kelly_half_life_bars=st.sampled_from([20.0, 500.0]),
    kelly_prior_bars=st.sampled_from([0.0, 30.0]),
    min_change=st.sampled_from([0.0, 0.05, 0.4]),
)
N = 250


@settings(max_examples=40, deadline=None)
@given(config=SETTINGS, seed=st.integers(0, 1_000))
def test_the_kernel_does_what_plain_python_does(config, seed):
    bars, gated = walk(N, seed, missing=[40, 41, 100]), random_signal(N - 3, seed)
    found = Sizing(config).update(bars, gated)
    assert np.count_nonzero(found) > 0 or config.kelly is not None
    # A change that equals the band but for rounding may go either way; such a row is rare, and shows nothing.
    expected = twin(config, bars, gated)
    assert np.mean(np.abs(found - expected) > 1e-9) < 0.02


def in_parts(sizing, bars, gated, cuts):
    edges = [0, *sorted(cuts), len(bars)]
    return np.concatenate([sizing.update(bars[a:b], gated[a:b]) for a, b in itertools.pairwise(edges)])


@settings(max_examples=40, deadline=None)
@given(config=SETTINGS, seed=st.integers(0, 1_000), cuts=st.lists(st.integers(0, N), max_size=8))
def test_cutting_the_rows_anywhere_changes_no_bit(config, seed, cuts):
    bars, gated = walk(N, seed, missing=[40, 41, 100]), random_signal(N - 3, seed)
    whole = Sizing(config).update(bars, gated)
    assert (
        in_parts(Sizing(config), bars, gated, [min(one, N - 3) for one in cuts]).tobytes() == whole.tobytes()
    )
    assert np.isfinite(whole).all()


def test_one_row_at_a_time_and_a_size_that_forgets_is_seen():
    config = SizingConfig(kelly=0.5, half_life_bars=24.0, kelly_prior_bars=0.0)
    bars, gated = walk(N, drift=0.003), np.abs(random_signal(N, 5))
    whole = Sizing(config).update(bars, gated)
    assert np.count_nonzero(whole) > 50
    assert in_parts(Sizing(config), bars, gated, range(1, N)).tobytes() == whole.tobytes()

    class Forgetful(Sizing):
        def update(self, *rows):
            self._memory[:] = 0.0
            return super().update(*rows)

    assert in_parts(Forgetful(config), bars, gated, range(100, N)).tobytes() != whole.tobytes()


@pytest.mark.parametrize("kelly", [None, 0.5])
@pytest.mark.parametrize("cut", [120, 200])
def test_later_bars_change_nothing_before_them(cut, kelly):
    # No band, and a signal that is never flat: a peek at one bar must show in the row before it.
    config = SizingConfig(kelly=kelly, half_life_bars=24.0, kelly_prior_bars=0.0, min_change=0.0)
    bars, gated = walk(N, drift=0.003), 0.1 + np.abs(random_signal(N, 5)) / 2
    values = bars.values.copy()
    values[cut:, :4] *= np.linspace(2, 9, N - cut)[:, None]
    altered = dataclasses.replace(bars, values=values)
    one, two = (Sizing(config).update(each, gated) for each in (bars, altered))
    assert one[cut - 1] > 0.0
    assert one[:cut].tobytes() == two[:cut].tobytes()
    assert one[cut] != two[cut]


@pytest.mark.parametrize("start", [3, 200, 450])
def test_after_the_warm_up_and_a_flat_row_it_does_not_matter_where_the_rows_began(start):
    config = SizingConfig(half_life_bars=12.0)
    sizing = Sizing(config)
    assert sizing.warmup == 240
    bars, gated = walk(1_500), random_signal(1_500, 8)
    whole = sizing.fresh().update(bars, gated)
    late = sizing.fresh().update(bars[start:], gated[start:])
    flat = start + sizing.warmup + int(np.argmax(whole[start + sizing.warmup :] == 0))
    np.testing.assert_allclose(late[flat - start :], whole[flat:], rtol=1e-6, atol=0)
    assert late[:10].tobytes() != whole[start : start + 10].tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_volatility": 0}, "target_volatility is 0"),
        ({"kelly": 1.5}, r"kelly is 1\.5"),
        ({"cap": -1}, "cap is -1"),
        ({"half_life": 3}, "half_life is not a setting; did you mean half_life_bars"),
    ],
)
def test_settings_out_of_bounds_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(SizingConfig, changes, "validate.yaml: sizing")

"""The laws on the feature pipeline, and planted leaks that the same checks must find."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import OHLCV, Bars
from market.features.feature import (
    CLOSE,
    FEATURES,
    OPEN,
    BarColumn,
    Feature,
    Indicator,
    Window,
    indicator,
    ordered,
)
from market.features.pipeline import BLOCK_ROWS, FeaturePipeline, FeaturesConfig
from market.table import Table
from tests.conformance.laws import (
    POISONS,
    check_altered_future,
    check_chunk_law,
    check_finite_after_warmup,
    check_inputs_untouched,
    check_start_invariance,
    replaced_by,
)
from tests.market.bars_factory import HOSTILE, HOUR, flat_bars, random_bars

N = 2400
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "ohlcv" / "btcusdt_binance_spot_1h.parquet"


@pytest.fixture(scope="module")
def whole():
    return FeaturePipeline()


@pytest.fixture(scope="module")
def bars():
    return random_bars(N, seed=2, tick=0.01)


# -- the laws ----------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.integers(0, N), max_size=12),
    single=st.integers(0, N - 40),
    seed=st.integers(0, 5),
)
def test_cutting_bars_anywhere_changes_no_bit(cuts, single, seed):
    check_chunk_law(FeaturePipeline(), random_bars(N, seed=seed), [*cuts, *range(single, single + 40)])


def test_bar_by_bar_from_the_very_first_equals_batch(whole, bars):
    check_chunk_law(whole, bars, range(N))


@pytest.mark.parametrize("name", ["ends of float64", "frozen feed", "one bad tick", "last digit"])
def test_hostile_bars_obey_the_chunk_law_too(whole, name):
    check_chunk_law(whole, HOSTILE[name](N), [1, 2, 3, 30, 31, 700, 1959, 1960, 1961])


def test_long_inputs_taken_in_blocks_change_no_bit(monkeypatch, whole, bars):
    expected = whole.fresh().update(bars).values
    monkeypatch.setattr("market.features.pipeline.BLOCK_ROWS", 777)
    np.testing.assert_array_equal(whole.fresh().update(bars).values, expected)
    assert BLOCK_ROWS > N


@pytest.mark.parametrize("poison", sorted(POISONS))
@pytest.mark.parametrize("row", [0, 1, 500, 1970, N - 6])
def test_another_future_changes_no_row_before_it(whole, bars, row, poison):
    check_altered_future(whole, bars, row, POISONS[poison])


def test_another_market_afterwards_changes_no_row_before_it(whole, bars):
    check_altered_future(whole, bars, 2000, replaced_by(random_bars(N, seed=9, price=3e-5)))


def test_features_repeat_themselves_and_leave_the_bars_alone(whole, bars):
    check_inputs_untouched(whole, bars)


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_every_value_is_finite_after_its_warmup_on(whole, name):
    check_finite_after_warmup(whole, HOSTILE[name](N))


def test_each_column_is_nan_in_its_own_warmup_and_no_longer(whole, bars):
    rows = whole.fresh().update(bars)
    for name in whole.names:
        assert np.isnan(rows.column(name)).sum() == np.isnan(rows.column(name)[: whole.warmups[name]]).sum()
        assert np.isnan(rows.column(name)[: whole.warmups[name]]).all()


def test_where_the_stream_begins_no_longer_matters_after_the_warmup(whole):
    check_start_invariance(whole, random_bars(6000, seed=3), range(150, 1651, 300))


def test_the_start_is_forgotten_behind_a_bad_tick_too(whole):
    # The tick lies before the first row of the later streams: a running sum would remember it.
    columns = random_bars(6000, seed=8)
    values = columns.values.copy()
    values[100, :4] *= 1e6
    nodes = {name: ordered([FEATURES.get(name).node]) for name in whole.names}
    names = [name for name in nodes if all(isinstance(node, BarColumn | Window) for node in nodes[name])]
    assert len(names) >= 30
    windows = FeaturePipeline(FeaturesConfig(names=names))
    spiked = Bars(columns.time, values, OHLCV, columns.symbol, HOUR)
    check_start_invariance(windows, spiked, [700], tolerance=0.0)


@pytest.mark.skipif(not DATA.exists(), reason=f"market data not there: {DATA.name}")
def test_start_invariance_on_bitcoin(whole):
    import pandas as pd

    frame = pd.read_parquet(DATA)
    time = frame["timestamp"].astype("datetime64[ns, UTC]").astype("int64").to_numpy() + HOUR
    bars = Bars(time, frame[list(OHLCV)].to_numpy(np.float64), OHLCV, "BTC/USDT", HOUR)
    for start in (0, 21_000, 45_000):
        check_start_invariance(whole, bars[start : start + 8000], [1, 501, 1777, 3100])


# -- TA-Lib's streams --------------------------------------------------------------------------------------


def every_indicator():
    nodes = ordered([FEATURES.get(name).node for name in FEATURES])
    return [node for node in nodes if isinstance(node, Indicator)]


@pytest.mark.parametrize(
    "node", every_indicator(), ids=lambda node: f"{node.function}{dict(node.parameters)}"
)
def test_talib_stream_equals_its_batch_bit_for_bit(node):
    bars = random_bars(700, seed=5, tick=0.01)
    inputs = [bars.column(inner.name) for inner in node.inputs]
    batch = getattr(talib, node.function)(*inputs, **dict(node.parameters))
    batch = np.asarray(batch[node.output] if isinstance(batch, (list, tuple)) else batch, dtype=np.float64)
    for cuts in ([], [1, 2, 3, 50, 51, 400], range(700)):
        memory, found = node.open(), np.empty(700)
        edges = [0, *cuts, 700]
        for start, end in itertools.pairwise(edges):
            # Three rows of the past in front, as the pipeline gives them; they must not count again.
            past = min(start, 3)
            memory.advance(tuple(x[start - past : end] for x in inputs), past, found[start:end])
        first = node.first_row
        np.testing.assert_array_equal(found[first:], batch[first:])
        assert np.isfinite(batch[first:]).all()


# -- planted leaks -----------------------------------------------------------------------------------------
# Kernels of features that look ahead, as a hurried author writes them on whole arrays.


def shifted_back(close, first, out):
    out[:] = np.append(close[first + 1 :], close[-1])


def centred_mean(close, first, out):
    padded = np.concatenate([close[first : first + 1].repeat(2), close[first:], close[-1:].repeat(2)])
    out[:] = np.convolve(padded, np.ones(5) / 5, "valid")


def whole_sample_zscore(close, first, out):
    known = close[first:]
    out[:] = (known - known.mean()) / (known.std() + 1.0)


def whole_sample_rank(close, first, out):
    out[:] = np.argsort(np.argsort(close[first:])) / close[first:].size


def filled_backwards(close, first, out):
    flat = np.where(np.diff(close[first:], append=np.nan) > 0, close[first:], np.nan)
    out[:] = 0.0
    seen = 0.0
    for i in range(flat.size - 1, -1, -1):
        seen = seen if np.isnan(flat[i]) else flat[i]
        out[i] = seen


def harmless(close, first, out):
    out[:] = close[first:]


CUTS = range(140, 160, 3)  # a value filled backwards crosses some rows only
LEAKS = (shifted_back, centred_mean, whole_sample_zscore, whole_sample_rank, filled_backwards)


def planted(monkeypatch, kernel):
    node = Window(kernel, (CLOSE,))
    monkeypatch.setitem(FEATURES._plugins, "planted", Feature("planted", node))
    return FeaturePipeline(FeaturesConfig(names=("rsi_4", "planted")))


def check_altered_futures(stage, bars):
    for row in CUTS:
        check_altered_future(stage, bars, row, POISONS["times 1000"])


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leaking_feature_is_caught_by_both_checks(monkeypatch, leak):
    stage, bars = planted(monkeypatch, leak), random_bars(300)
    with pytest.raises(AssertionError, match="column planted, row"):
        check_chunk_law(stage, bars, CUTS)
    with pytest.raises(AssertionError, match="column planted, row"):
        check_altered_futures(stage, bars)


def test_a_harmless_feature_is_not_accused(monkeypatch):
    stage, bars = planted(monkeypatch, harmless), random_bars(300)
    check_chunk_law(stage, bars, CUTS)
    check_altered_futures(stage, bars)


def test_a_poison_without_effect_is_refused(whole):
    with pytest.raises(ValueError, match="prove nothing"):
        check_altered_future(whole, flat_bars(100), 50, POISONS["reversed"])


# -- planted warm-ups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ema_gap_48_192", "macd_histogram", "adx_14", "rsi_14", "chaikin_3_10", "atr_14"]
)
def test_a_warmup_cut_short_is_caught(name):
    stage = FeaturePipeline(FeaturesConfig(names=(name,)))
    bars = random_bars(6000, seed=3)
    offsets = range(150, 1651, 500)
    check_start_invariance(stage, bars, offsets)

    class Hasty(FeaturePipeline):
        def __init__(self, config):
            super().__init__(config)
            self.warmups = {name: warmup * 6 // 10 for name, warmup in self.warmups.items()}
            self.warmup = max(self.warmups.values())
            self._first_known = np.array(list(self.warmups.values()))

    with pytest.raises(AssertionError, match=f"column {name}, row"):
        check_start_invariance(Hasty(stage.config), bars, offsets)


def test_a_cumulative_feature_is_caught(monkeypatch):
    node = indicator("OBV", CLOSE, OPEN, forget=500)
    monkeypatch.setitem(FEATURES._plugins, "planted", Feature("planted", node))
    stage = FeaturePipeline(FeaturesConfig(names=("planted",)))
    check_chunk_law(stage, random_bars(900), [300])
    with pytest.raises(AssertionError, match="column planted"):
        check_start_invariance(stage, random_bars(900), [100])


def test_a_running_sum_is_caught_behind_a_bad_tick(monkeypatch):
    bars = random_bars(900)
    values = bars.values.copy()
    values[50, :4] *= 1e9
    spiked = Bars(bars.time, values, OHLCV, bars.symbol, HOUR)
    node = indicator("STDDEV", CLOSE, timeperiod=24, forget=0)
    monkeypatch.setitem(FEATURES._plugins, "planted", Feature("planted", node))
    check_start_invariance(
        FeaturePipeline(FeaturesConfig(names=("zscore_24",))), spiked, [100], tolerance=0.0
    )
    with pytest.raises(AssertionError, match="column planted"):
        check_start_invariance(
            FeaturePipeline(FeaturesConfig(names=("planted",))), spiked, [100], tolerance=0.0
        )


# -- the checks themselves ---------------------------------------------------------------------------------


class Broken:
    """A stage that breaks one law, chosen by name."""

    warmup = 0

    def __init__(self, how):
        self.how, self.calls = how, 0

    def fresh(self):
        return self if self.how == "shares memory" else Broken(self.how)

    def update(self, new):
        self.calls += 1
        values = new.values[:, :1].copy()
        if self.how == "drops a row" and len(new):
            return Table(new.time[1:], values[1:], ("x",))
        if self.how == "shares memory":
            values += self.calls
        if self.how == "last bit":
            values *= 1 + 3e-16 * (len(new) % 2)
        if self.how == "minus zero":
            values = values * 0.0 * (1 if len(new) % 2 else -1)
        if self.how == "infinite":
            values[-1:] = np.inf
        return Table(new.time, values, ("x",))


@pytest.mark.parametrize("how", ["drops a row", "last bit", "minus zero", "shares memory"])
def test_the_chunk_check_finds_a_stage_that(how):
    with pytest.raises(AssertionError):
        check_chunk_law(Broken(how), random_bars(20), [3, 9])


def test_a_stage_that_does_not_repeat_itself_is_found():
    with pytest.raises(AssertionError, match="second run"):
        check_inputs_untouched(Broken("shares memory"), random_bars(20))


def test_an_infinite_value_is_found():
    with pytest.raises(AssertionError, match=r"row 19: .*inf"):
        check_finite_after_warmup(Broken("infinite"), random_bars(20))


@dataclasses.dataclass(frozen=True)
class Record:
    time: np.ndarray
    label: np.ndarray
    inner: Table


class Recorder:
    """A sound stage with two inputs that answers with a record instead of a table."""

    warmup = 0

    def __init__(self, leaks=False):
        self.leaks = leaks

    def fresh(self):
        return Recorder(self.leaks)

    def update(self, left, right):
        rises = [table.values[:, 3] - table.values[:, 0] for table in (left, right)]
        label = (rises[0] > rises[1]).astype(np.int8)
        if self.leaks:
            label[:] = label.max(initial=0)
        return Record(left.time, label, Table(left.time, left.values[:, :1], ("x",)))


def test_records_and_several_inputs_are_checked_too():
    pair = random_bars(50, seed=1), random_bars(50, seed=2)
    check_chunk_law(Recorder(), pair, range(50))
    check_altered_future(Recorder(), pair, 20, POISONS["reversed"])
    with pytest.raises(AssertionError, match="column label"):
        check_chunk_law(Recorder(leaks=True), pair, range(50))

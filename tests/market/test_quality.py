import io
import json

import numpy as np
import pytest
from rich.console import Console

from market.anomalies import (
    erroneous_prints,
    exchanged_open_close,
    frozen_run,
    local_scale,
    price_jumps,
    runs,
    wall_clock_switch,
)
from market.bars import OHLCV, Bars
from market.quality import quality, rendered

HOUR_NS = 3_600 * 10**9
T0 = 1_672_531_200 * 10**9


def walk(n=400, volatility=0.004, seed=0):
    rng = np.random.default_rng(seed)
    close = 1_000 * np.exp(np.cumsum(rng.normal(0, volatility, n)))
    open_ = np.concatenate([[1_000.0], close[:-1]])
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, volatility / 2, n)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, volatility / 2, n)))
    return np.column_stack([open_, high, low, close, rng.lognormal(3, 1, n)])


def bars_of(values, keep=None, names=OHLCV):
    time = T0 + (1 + np.arange(len(values))) * HOUR_NS
    keep = np.ones(len(values), bool) if keep is None else keep
    return Bars(time[keep], values[keep], names, "BTC/USDT", HOUR_NS)


def test_ordinary_bars_have_nothing_to_report():
    report = quality(bars_of(walk()))
    assert report.warnings == ()
    assert (report.rows, report.missing_bars, report.gaps) == (400, 0, ())


def test_gaps_are_listed_where_bars_are_missing():
    keep = np.ones(400, bool)
    keep[[10, 50, 51, 52]] = False
    report = quality(bars_of(walk(), keep))
    assert [(gap.after - T0) // HOUR_NS for gap in report.gaps] == [10, 50]
    assert [gap.bars for gap in report.gaps] == [1, 3]
    assert report.missing_bars == 4


def test_silent_flat_and_frozen_bars_are_counted_by_hand():
    values = walk()
    values[100:115, :4] = values[99, 3]
    values[100:115, 4] = 0
    values[200, 4] = 0
    report = quality(bars_of(values))
    assert report.zero_volume_bars == 16
    assert report.flat_bars == 15
    assert report.moved_without_volume == 1
    assert [still.bars for still in report.standstills] == [15]
    assert report.standstills[0].since == T0 + 101 * HOUR_NS
    values[300] = values[299]
    assert quality(bars_of(values)).repeated_bars == 1


def test_partial_bars_come_from_the_minutes_column():
    values = np.column_stack([walk(10), np.array([60.0] * 8 + [59, 3])])
    assert quality(bars_of(values, names=(*OHLCV, "minutes"))).partial_bars == 2
    assert quality(bars_of(walk(10))).partial_bars is None


def test_a_large_move_is_an_outlier_and_a_move_over_an_outage_is_less_of_one():
    values = walk()
    values[200:, :4] *= 1.12
    assert [one.what for one in quality(bars_of(values)).outliers] == ["gap", "return"]
    keep = np.ones(400, bool)
    keep[150:200] = False
    assert quality(bars_of(values, keep)).outliers == ()


def test_a_report_without_rows_is_still_a_report():
    report = quality(bars_of(walk(5))[:0])
    assert report.to_dict()["rows"] == 0
    assert shown(report).startswith("BTC/USDT 1h")


def shown(report):
    console = Console(file=io.StringIO(), width=100)
    console.print(rendered(report))
    return console.file.getvalue()


def test_the_report_is_json_and_a_table():
    keep = np.ones(400, bool)
    keep[10] = False
    report = quality(bars_of(walk(), keep), repairs={"sort": 2}, accepted={"jumps": 1}, notes=("layout x",))
    assert json.loads(json.dumps(report.to_dict()))["gaps"] == [{"after": "2023-01-01T10:00:00Z", "bars": 1}]
    text = shown(report)
    for part in (
        "sort: 2 rows",
        "jumps: 1 row",
        "layout x",
        "! 1 bar missing in 1 gap",
        "2023-01-01T10:00:00Z",
    ):
        assert part in text


def test_runs_of_a_mask():
    starts, lengths = runs(np.array([1, 1, 0, 1, 0, 0, 1], bool))
    np.testing.assert_array_equal(starts, [0, 3, 6])
    np.testing.assert_array_equal(lengths, [2, 1, 1])
    assert runs(np.zeros(3, bool))[0].size == 0


@pytest.mark.parametrize("n", [1, 2, 49, 50, 51, 99, 100, 149, 400])
def test_local_scale_is_the_largest_median_of_three_blocks(n):
    values = walk(n)
    spread = np.log(values[:, 1] / values[:, 2])
    count = max(1, n // 50)
    medians = [np.median(spread[b * 50 : n if b == count - 1 else b * 50 + 50]) for b in range(count)]
    expected = [
        max(max(medians[max(0, b - 1) : b + 2]), np.median(spread))
        for b in (min(t // 50, count - 1) for t in range(n))
    ]
    np.testing.assert_array_equal(local_scale(values[:, 1], values[:, 2]), expected)


def test_a_print_is_doubted_beyond_factor_3_and_10_scales_and_believed_within():
    values = walk()
    for factor, doubted in ((0.5, False), (0.34, False), (0.32, True), (0.13, True), (0.0001, True)):
        spoiled = values.copy()
        spoiled[200, 2] = spoiled[200, 3] * factor
        column, level = erroneous_prints(spoiled)
        assert (np.flatnonzero(column >= 0).tolist() == [200]) == doubted, factor
        if doubted:
            assert column[200] == 2
            assert level[200] == pytest.approx(values[195:206, 3].mean(), rel=0.02)


def test_the_wick_of_87_percent_is_doubted_in_a_crash_but_not_when_every_bar_ranges_that_far():
    crash = walk(volatility=0.05)
    crash[200, 2] = crash[200, 3] * 0.13
    assert erroneous_prints(crash)[0][200] == 2
    madness = walk(volatility=0.05)
    madness[:, 2] *= 0.75
    madness[200, 2] = madness[200, 3] * 0.13
    assert erroneous_prints(madness)[0][200] == -1


def test_spikes_are_doubted_and_lasting_steps_are_jumps():
    values = walk()
    time = T0 + np.arange(400) * HOUR_NS
    spike, step = values.copy(), values.copy()
    spike[200:203, :4] *= 1000
    step[200:, :4] *= 1000
    assert np.flatnonzero(erroneous_prints(spike)[0] >= 0).tolist() == [200, 201, 202]
    assert not price_jumps(time, spike, HOUR_NS)[0].any()
    jump, factor = price_jumps(time, step, HOUR_NS)
    assert np.flatnonzero(jump).tolist() == [200]
    assert factor[200] == pytest.approx(1000, rel=0.05)
    assert (erroneous_prints(step)[0] < 0).all()
    assert not price_jumps(time, values, HOUR_NS)[0].any()


def test_a_half_price_open_that_comes_back_is_neither():
    values = walk()
    values[200, [0, 2]] = values[200, 3] * 0.48
    assert (erroneous_prints(values)[0] < 0).all()
    assert not price_jumps(T0 + np.arange(400) * HOUR_NS, values, HOUR_NS)[0].any()
    assert {one.what for one in quality(bars_of(values)).outliers} >= {"gap"}


def test_exchanged_open_and_close_are_noticed():
    values, time = walk(), T0 + np.arange(400) * HOUR_NS
    assert not exchanged_open_close(values[:, 0], values[:, 3], time, HOUR_NS)
    assert exchanged_open_close(values[:, 3], values[:, 0], time, HOUR_NS)


def test_a_market_that_stands_still_too_long_is_frozen():
    values = walk(2_000)
    values[100:599, :4] = values[99, 3]
    assert frozen_run(values)[1] == 0
    values[100:600, :4] = values[99, 3]
    assert frozen_run(values) == (100, 500, "the price is constant")


def test_the_missing_hour_of_summer_time_is_recognized():
    times = np.arange(T0, T0 + 4_000 * HOUR_NS, HOUR_NS)
    europe = np.searchsorted(times, 1_679_796_000 * 10**9)  # 2023-03-26 02:00
    other = europe + 24
    assert wall_clock_switch(np.delete(times, europe), HOUR_NS) == europe
    assert wall_clock_switch(np.delete(times, other), HOUR_NS) is None
    assert wall_clock_switch(times, HOUR_NS) is None

"""The benchmarks of regimes count what they say they count, and run on small settings."""

import re
import sys

import numpy as np
import pytest

from benchmarks import regime_alarm, regime_refits
from market.table import Table


def test_an_alarm_is_false_unless_a_switch_came_shortly_before():
    switches = np.array([100, 200])
    assert regime_alarm.false_alarms(np.array([100, 124, 125, 199, 200, 90]), switches) == 3  # 125, 199, 90
    assert regime_alarm.false_alarms(np.array([5]), np.array([], dtype=np.int64)) == 1
    assert regime_alarm.false_alarms(np.array([], dtype=np.int64), switches) == 0


def test_a_switch_is_caught_by_the_next_alarm_if_it_comes_in_time():
    rows = np.array([103, 230])
    missed = regime_alarm.WITHIN_BARS + 1
    assert regime_alarm.delays(rows, np.array([100, 103, 104, 206, 231])).tolist() == [
        3,
        0,
        missed,
        24,
        missed,
    ]
    assert regime_alarm.delays(np.array([], dtype=np.int64), np.array([7])).tolist() == [missed]


def test_alarms_are_rows_of_the_table():
    probability = np.zeros((100, 2))
    probability[[10, 11, 50], 0] = 0.9
    table = Table(np.arange(100), probability, ("change_probability", "expected_run_bars"))
    assert regime_alarm.alarm_rows(table, 0.5).tolist() == [10, 50]


@pytest.mark.parametrize(
    ("benchmark", "arguments", "line"),
    [
        (
            regime_alarm,
            ["--seeds", "1", "--bars", "9000", "--scenarios", "separated"],
            r"separated( +\d+\.\d\d){5}",
        ),
        (
            regime_refits,
            ["--detectors", "volatility", "--seeds", "1", "--bars", "6000"],
            r"volatility, drifting: lowest 0\.\d{3}, mean 0\.\d{3}",
        ),
    ],
)
def test_it_prints_its_table(benchmark, arguments, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    benchmark.main()
    assert re.search(line, capsys.readouterr().out)

"""The benchmark of false passes: its bounds, and that it goes on where it was interrupted."""

import json
import math

import numpy as np
import pytest

from benchmarks import null_validation
from benchmarks.null_validation import Found, main, read, summary


def calibrated(seed, n=200):
    rng = np.random.default_rng(seed)
    return [
        Found(False, float(rng.random()), float(rng.beta(2, 2)), float(rng.normal() / 30), 900)
        for _ in range(n)
    ]


def test_the_bounds_of_200_runs_are_those_of_the_guarantee():
    lines, good = summary(calibrated(1))
    assert good, lines
    assert "bounds 0.000 to 0.095" in lines[0]
    assert "bounds 0.420 to 0.580" in lines[2]


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (lambda one, i: one._replace(passed=i < 20), 0),
        (lambda one, i: one._replace(skill=0.96 if i < 20 else 0.5), 1),
        (lambda one, i: one._replace(pbo=one.pbo - 0.15), 2),
        (lambda one, i: one._replace(earned=one.earned + 0.3 / 30), 3),
    ],
)
def test_each_bound_can_break(broken, line):
    lines, good = summary([broken(one, i) for i, one in enumerate(calibrated(1))])
    assert not good
    assert [text.startswith("FAIL") for text in lines].index(True) == line


def test_runs_that_traded_nothing_have_earned_nothing():
    idle = Found(False, math.nan, math.nan, math.nan, 900)
    lines, good = summary([idle] * 200)
    assert good
    assert len(lines) == 3  # no PBO to speak of


def test_an_interrupted_benchmark_goes_on(tmp_path, monkeypatch, capsys):
    made = []

    def pipeline(bars, seed):
        made.append(seed)
        return Found(False, math.nan if seed == 2 else 0.5, 0.5, 0.0, len(bars))

    monkeypatch.setitem(null_validation.PIPELINES, "specialist", pipeline)
    out = tmp_path / "null.jsonl"

    def run(*further):
        monkeypatch.setattr("sys.argv", ["null_validation", "--bars", "50", "--out", str(out), *further])
        return main()

    assert run("--runs", "3") == 0
    first = capsys.readouterr().out
    with out.open("a") as file:
        file.write('{"pipeline": "specialist", "bars": 50, "seed": 4, "pas')  # killed while writing
    assert run("--runs", "3") == 0
    assert capsys.readouterr().out == first
    assert made == [1, 2, 3]
    for _ in range(2):
        assert run("--runs", "5") == 0
        assert made == [1, 2, 3, 4, 5]
    assert math.isnan(read(out, "specialist", 50)[2].skill)
    assert read(out, "specialist", 60) == {}
    assert json.loads(out.read_text().splitlines()[0])["seed"] == 1


def test_a_whole_small_search_in_noise_is_told_to_be_one():
    pytest.importorskip("arch")
    found = null_validation.specialist(null_validation.random_walk(6_000, 1), 1)
    assert not found.passed
    assert 0 <= found.pbo <= 1
    assert abs(found.earned) * math.sqrt(found.n_bars) < 4

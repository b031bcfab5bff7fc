"""The tally of guarantees, section 5, and the whole chain: the benchmark counts what it says it counts."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks import leaks
from benchmarks.leaks import Part
from ensemble.blenders import BLENDERS
from market.poisons import Futures
from regimes.detector import DETECTORS
from specialists.family import FAMILIES
from tests.leaks.controls import CONTROLS
from tests.leaks.ground import bars
from tests.leaks.planted import LEAKS


@pytest.fixture
def tally(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["leaks", "--only", "tally", "--cuts", "2", "--prefixes", "3", *arguments]
        )
        return leaks.main(), capsys.readouterr().out

    return call


def test_the_tally_is_24_of_24_and_0_of_12_and_each_leak_has_a_line(tally):
    code, said = tally()
    assert code == 0
    assert "24 of 24 planted leaks found, 0 of 12 controls accused" in said
    lines = {line[:34].strip(): line[34:].split() for line in said.splitlines()}
    for case in LEAKS:
        assert lines[case.name[:34]][0].strip(",") in {"prefix", "altered", "refit", "stamp"}
    for case in CONTROLS:
        assert lines[case.name[:34]][0] == "no"


def test_a_leak_that_is_missed_and_a_control_that_is_accused_end_with_status_1(tally, monkeypatch):
    harmless = replace(CONTROLS[0], name="harmless")
    monkeypatch.setattr(leaks, "LEAKS", (*LEAKS[:2], harmless))
    code, said = tally()
    assert code == 1
    assert "harmless                           NOT FOUND" in said
    assert "2 of 3 planted leaks found" in said
    monkeypatch.setattr(leaks, "LEAKS", LEAKS[:2])
    monkeypatch.setattr(leaks, "CONTROLS", (*CONTROLS[:2], LEAKS[0]))
    code, said = tally()
    assert code == 1
    assert "2 of 2 planted leaks found, 1 of 3 controls accused" in said


def test_a_part_of_the_chain_that_changes_its_past_is_named_with_its_largest_difference(capsys):
    honest = Part("honest", lambda given: given.column("close"), (bars(),))
    assert leaks.show_chain(iter([honest]), 3, 3)
    peeking = Part("peeking", lambda given: given.column("close") - given.column("close")[-1], (bars(),))
    assert not leaks.show_chain(iter([honest, peeking]), 3, 3)
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if line.startswith("peeking"))
    assert float(line.split()[4]) > 0.0
    assert "prefix: answer, row 0" in said


def test_every_detector_family_forecaster_and_blender_of_the_house_is_a_sound_part(tmp_path, monkeypatch):
    # As few bars teach no markov_ar, which has a part of its own.
    monkeypatch.setattr(leaks, "WALK", (*leaks.WALK, "detector.name=volatility", "folds.train_spans=4"))
    with threadpool_limits(1, user_api="blas"):
        parts = {part.name: part for part in leaks.chain(4_500, tmp_path)}
        assert {f"regimes: {name}" for name in DETECTORS.names()} <= set(parts)
        assert {f"specialist: {name}" for name in FAMILIES.names()} <= set(parts)
        assert {"features: all", "features: full", "joined series"} <= set(parts)
        assert {f"strategy: {name}" for name in BLENDERS.names()} <= set(parts)
        assert {f"bars to exposure: {name}" for name in leaks.STREAMED} <= set(parts)
        parts.pop("features: full")  # as the one of all, and takes seconds
        parts.pop("walk-forward: trained again")  # test_ensemble_leaks.py has it, and what it finds
        for part in parts.values():
            shorter, altered = part.inspected(1, 1)
            assert shorter.clean, f"{part.name}: {shorter}"
            assert altered.clean, f"{part.name}: {altered}"
            assert altered.runs >= 9 or "trained again" in part.name
            assert not altered.deaf


def test_a_pipeline_that_refuses_nan_has_answered_what_came_before():
    stage = leaks.in_pieces(leaks.FeaturesConfig(names=("return_1", "rsi_14")))
    whole = stage(bars())
    found = stage(Futures([bars()]).altered(400, "nan")[0])
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name][:401], values[:401])
        assert np.isnan(found[name][401:]).all()

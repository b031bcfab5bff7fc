"""A walk-forward as one stage: what is fitted on its own test rows is found, and the honest one is clean.

Everything is fitted again on shortened and altered bars: detector, specialists, forecaster, blender. Cuts lie
in the test rows of the folds, and those of the first fold teach the second one.
"""

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks import leaks
from ensemble import rerun
from ensemble.blenders import BLENDERS
from market.features.pipeline import FeaturePipeline
from market.leaks import inspect
from market.sources.synthetic import SyntheticConfig, synthetic_market

BARS = 4_500
FAST = ("detector.name=volatility", "folds.train_spans=4", "blender.name=bma", "rivals=[online]")


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(SyntheticConfig(n_bars=BARS, seed=5)).bars


def inspected(bars):
    part = leaks.walk_forward(bars, *FAST)
    budget = {"cuts": 1, "prefixes": 1, "starts": 0, "poisons": ("times 1000",)}
    with threadpool_limits(1, user_api="blas"):
        return inspect(part.stage, *part.inputs, **{**part.options, **budget})


def test_a_walk_forward_that_is_fitted_again_on_every_cut_keeps_its_past(bars):
    report = inspected(bars)
    assert report.clean, str(report)
    assert not report.deaf
    assert {"exposure", "exposure_online", "weight_trending", "signal_logistic_4h", "p_volatile"} <= set(
        report.columns
    )
    assert "trained_through" in report.columns
    assert report.runs >= 2 + 2  # cut off and altered; a cut before the first test leaves no fold


def reaching(name):
    """The folds, in which some rows reach through the test; a Split would refuse to be such a fold."""
    honest = rerun.folds_of

    def folds_of(*given):
        found = []
        for split in honest(*given):
            longer = slice(getattr(split, name).start, split.test.stop)
            found.append(SimpleNamespace(**{**asdict(split), name: longer}))
        return tuple(found)

    return folds_of


class WholeSample(FeaturePipeline):
    """Features in multiples of their mean size over all rows, as a notebook scales them."""

    def update(self, bars):
        table = super().update(bars)
        size = np.nanmean(np.abs(table.values), axis=0)
        return replace(table, values=table.values / np.where(size > 0, size, 1.0))


def test_detector_and_specialists_that_learn_through_the_test_are_found(bars, monkeypatch):
    monkeypatch.setattr(rerun, "folds_of", reaching("train"))
    report = inspected(bars)
    assert set(report.routes) == {"prefix", "altered future", "stamp"}
    assert "p_volatile" in {one.column for one in report.findings}


def test_a_blender_that_is_chosen_on_the_test_is_found(bars, monkeypatch):
    monkeypatch.setattr(rerun, "folds_of", reaching("validation"))
    report = inspected(bars)
    assert set(report.routes) == {"prefix", "altered future", "stamp"}
    accused = {one.column for one in report.findings if one.route != "stamp"}
    assert "weight_trending" in accused
    assert "p_volatile" not in accused  # the detector has seen nothing of it


def test_features_that_are_scaled_by_all_rows_are_found_although_every_stamp_is_honest(bars, monkeypatch):
    monkeypatch.setattr(rerun, "FeaturePipeline", WholeSample)
    report = inspected(bars)
    assert set(report.routes) == {"prefix", "altered future"}
    assert "exposure" in {one.column for one in report.findings}


def test_strategies_by_every_blender_come_from_disk_and_trade(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(leaks, "WALK", (*leaks.WALK, *FAST[:2]))
    parts = {part.name: part for part in leaks.strategies(bars, tmp_path)}
    assert set(parts) == {f"strategy: {name}" for name in BLENDERS.names()} | {
        f"bars to exposure: {name}" for name in leaks.STREAMED
    }
    for name in leaks.STREAMED:  # both ways to the same rows
        fed, given = (parts[f"{way}: {name}"] for way in ("bars to exposure", "strategy"))
        whole = fed.stage(*fed.inputs)
        np.testing.assert_array_equal(whole["exposure"], given.stage(*given.inputs).column("exposure"))
    # One that hardly trades would prove nothing.
    monkeypatch.setattr(leaks, "LEAST_CHANGES", BARS)
    with pytest.raises(RuntimeError, match="hardly trades"):
        next(leaks.strategies(bars, tmp_path))

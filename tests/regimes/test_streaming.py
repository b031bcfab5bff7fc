"""L4 and L3 where they count: every detector on the way that live trading takes, from bars to a label."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from market.bars import Bars
from market.causal import Chain, transform
from market.features.pipeline import FeaturePipeline, FeatureTable
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.detector import DETECTORS, Detector, load_detector
from regimes.path import PathFilter
from tests.conformance.laws import check_chunk_law

NAMES = DETECTORS.names()
TRAIN = slice(2_000, 9_000)
LIVE, N_LIVE = 11_000, 300  # the first bar that comes alone, and how many do
GAP = slice(LIVE + 120, LIVE + 153)  # of 33 hours, as an exchange once had
TOLERANCE = 1e-6


@cache
def bars() -> Bars:
    whole = synthetic_market(SyntheticConfig(n_bars=LIVE + N_LIVE + GAP.stop - GAP.start, seed=5)).bars
    kept = np.delete(np.arange(len(whole)), np.arange(GAP.start, GAP.stop))
    return replace(whole, time=whole.time[kept], values=whole.values[kept])


@cache
def features() -> FeatureTable:
    return transform(FeaturePipeline(), bars())


@cache
def fitted(name: str) -> Detector:
    return DETECTORS.create(name).fit(features()[TRAIN])


def one_by_one(stage, rows: Table) -> np.ndarray:
    """Rows of a stage that goes on from where it is, a row at a time."""
    return np.vstack([stage.update(rows[t : t + 1]).values for t in range(len(rows))])


@pytest.mark.parametrize("name", NAMES)
def test_bar_by_bar_from_bars_to_probabilities_and_labels_is_the_batch_to_the_bit(name):
    assert np.ptp(transform(fitted(name), features()).values[LIVE:], axis=0).max() > 0.5  # something happens
    cuts = range(LIVE, len(bars()))
    check_chunk_law(Chain([FeaturePipeline(), fitted(name).fresh()]), bars(), cuts)
    check_chunk_law(Chain([FeaturePipeline(), fitted(name).fresh(), PathFilter()]), bars(), cuts)


@pytest.mark.parametrize("name", NAMES)
def test_bar_by_bar_over_rows_that_are_not_known_is_the_batch_to_the_bit(name):
    values = features().values[LIVE - 50 :].copy()
    values[[3, 60, 61, 62, 200]] = np.nan
    values[100:133] = np.nan
    values[150, ::2] = np.nan  # some columns only
    rows = Table(features().time[LIVE - 50 :], values, features().names)
    check_chunk_law(fitted(name), rows, range(len(rows)))
    check_chunk_law(Chain([fitted(name).fresh(), PathFilter()]), rows, range(len(rows)))
    known = np.isfinite(transform(fitted(name), rows).values).all(axis=1)
    assert known.all()  # a detector that has seen a known row goes on saying what it believes


class Forgetful:
    """A planted fault: what the rows before a chunk taught is forgotten."""

    def __init__(self, stage) -> None:
        self.stage, self.warmup = stage, stage.warmup

    def fresh(self):
        return type(self)(self.stage.fresh())

    def update(self, rows):
        return self.stage.fresh().update(rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_without_memory_is_not_the_batch(name):
    stage = Chain([FeaturePipeline(), Forgetful(fitted(name))])
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(stage, bars(), range(LIVE, len(bars())))


@pytest.mark.parametrize("name", NAMES)
def test_after_a_restart_and_a_replay_of_the_warm_up_the_rows_go_on_as_if_nothing_had_been(name, tmp_path):
    restart = LIVE + 100  # the gap comes after it
    live = Chain([FeaturePipeline(), fitted(name).fresh(), PathFilter()])
    live.update(bars()[:LIVE])
    one_by_one(live, bars()[LIVE:restart])
    live.stages[1].save(tmp_path)  # in the middle: parameters are kept, memory is not
    expected = one_by_one(live, bars()[restart:])

    again = Chain([FeaturePipeline(), load_detector(tmp_path), PathFilter()])
    assert again.warmup < restart, "there are too few bars to replay; move LIVE"
    again.update(bars()[restart - again.warmup : restart])
    found = one_by_one(again, bars()[restart:])
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])  # the labels
    np.testing.assert_allclose(found[:, 1], expected[:, 1], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_the_declared_warm_up_is_enough_and_a_day_is_not(name, tmp_path):
    fitted(name).save(tmp_path)
    expected = transform(fitted(name), features()).values[LIVE:]

    def after_a_replay_of(n_rows):
        loaded = load_detector(tmp_path)
        loaded.update(features()[LIVE - n_rows : LIVE])
        return one_by_one(loaded, features()[LIVE:])

    warmup = fitted(name).warmup
    assert warmup < LIVE, "there are too few rows to replay; move LIVE"
    np.testing.assert_allclose(after_a_replay_of(warmup), expected, rtol=TOLERANCE, atol=TOLERANCE)
    a_day = min(24, warmup // 2)
    assert warmup == 0 or np.abs(after_a_replay_of(a_day) - expected).max() > 100 * TOLERANCE

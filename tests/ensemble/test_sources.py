import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import InputError
from ensemble.sources import (
    LEAST_SCALE,
    ForecasterSource,
    SpecialistSource,
    load_source,
    member_of,
)
from market.table import DataError, Table
from regimes.regime import Regime, RegimeProbabilities
from tests.ensemble import market
from tests.ensemble.market import TEST, VALIDATION

NAMES = ("by_label", "by_probability", "generalist", "logistic_4h", "lstm_4h")


def source(name):
    if name.endswith("4h"):
        return market.forecaster_source(name.removesuffix("_4h"))
    regime = None if name == "generalist" else Regime.TRENDING
    awake = "probability" if name == "by_probability" else "label"
    return SpecialistSource(name, market.specialist(regime), awake, 0.25)


def tables(one, rows=slice(None)):
    features = market.wide() if one.reads == "forecast" else market.core()
    return tuple(part[rows] for part in (market.bars(), features, market.regimes(), market.labels()))


def whole(one, rows=slice(None)):
    return one.fresh().update(*tables(one, rows))


def in_parts(one, edges):
    stage = one.fresh()
    return np.concatenate([stage.update(*tables(one, slice(a, b))) for a, b in itertools.pairwise(edges)])


# The laws


@pytest.mark.parametrize("name", NAMES)
def test_one_row_at_a_time_changes_no_bit(name):
    one, n = source(name), 700
    rows = slice(market.N - n, market.N)
    stage = one.fresh()
    parts = [stage.update(*tables(one, slice(t, t + 1))) for t in range(rows.start, rows.stop)]
    found = np.concatenate(parts)
    assert found.tobytes() == whole(one, rows).tobytes()
    assert np.count_nonzero(np.diff(found[~np.isnan(found)])) > 5
    assert np.nanmax(np.abs(found)) <= 1.0


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, market.N), max_size=6), name=st.sampled_from(NAMES))
def test_cutting_the_rows_anywhere_changes_no_bit(cuts, name):
    one = source(name)
    assert in_parts(one, [0, *sorted(cuts), market.N]).tobytes() == whole(one).tobytes()


@pytest.mark.parametrize("name", ["by_label", "lstm_4h"])
def test_a_source_that_forgets_is_seen(name):
    class Forgetful:
        def __init__(self, one):
            self.one, self.reads = one, one.reads

        def fresh(self):
            return self

        def update(self, *rows):
            return self.one.fresh().update(*rows)

    one = source(name)
    edges = range(0, market.N + 1, 20)
    assert in_parts(one, edges).tobytes() == whole(one).tobytes()
    assert in_parts(Forgetful(one), edges).tobytes() != whole(one).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_it_does_not_matter_where_the_rows_began_once_a_window_is_full(name):
    one = source(name)
    for start in (1_700, 1_711):
        late, early = whole(one, slice(start, None)), whole(one)[start:]
        # A specialist that was awake when the rows began has slept since, if it trades a regime.
        first = one.warmup if one.kind == "forecaster" else 600
        if name != "generalist":
            assert late[first:].tobytes() == early[first:].tobytes()
    if name == "lstm_4h":
        assert np.isnan(late[: one.warmup]).all()
        assert not np.isnan(late[one.warmup :]).any()


@pytest.mark.parametrize("name", NAMES)
def test_later_rows_change_nothing_before_them(name):
    one, cut = source(name), 2_500
    given = tables(one)
    altered = []
    for part in given:
        values = part.values.copy()
        values[cut:] = values[cut:][::-1]
        altered.append(dataclasses.replace(part, values=values))
    found = one.fresh().update(*altered)
    assert found[:cut].tobytes() == whole(one)[:cut].tobytes()
    assert found[cut:].tobytes() != whole(one)[cut:].tobytes()


# Specialists


def test_the_signal_is_the_exposure_of_the_specialist_over_its_largest():
    made = market.specialist(Regime.TRENDING)
    limits = made.limits.model_copy(update={"max_exposure": 0.5})
    small = type(made)(made.family, made.genome, made.regime, made.scaler, limits, made.fitted_until)
    exposure = small.fresh().update(market.bars(), market.core(), market.labels()).column("exposure")
    assert 0.0 < np.abs(exposure).max() <= 0.5
    found = whole(SpecialistSource("small", small))
    assert found.tobytes() == (exposure / 0.5).tobytes()
    assert not np.isnan(found).any()


def test_asleep_it_wants_nothing_and_by_probability_it_may_be_awake_beside_another():
    label, p = market.labels().column("label"), market.regimes().column("trending")
    by_label, by_probability = whole(source("by_label")), whole(source("by_probability"))
    assert not by_label[label != Regime.TRENDING].any()
    assert by_label[label == Regime.TRENDING].any()
    assert not by_probability[~(p >= 0.25)].any()
    assert by_probability[(label != Regime.TRENDING) & (p >= 0.25)].any()


def test_a_generalist_is_awake_in_every_regime_that_is_decided():
    found, label = whole(source("generalist")), market.labels().column("label")
    assert all(found[label == regime].any() for regime in range(3))
    assert not found[label < 0].any()
    assert (label < 0).any()


def test_a_regime_that_the_detector_does_not_tell_never_wakes():
    made = market.specialist(None)
    crisis = type(made)(made.family, made.genome, Regime.CRISIS, made.scaler, made.limits, made.fitted_until)
    for awake in ("label", "probability"):
        assert not whole(SpecialistSource("crisis", crisis, awake)).any()


# Forecasters


def test_the_signal_is_the_distance_of_up_and_down_in_scales():
    one = source("logistic_4h")
    answers = one.fitted.answers(market.wide(), TEST)
    expected = np.clip((answers[:, 2] - answers[:, 0]) / one.scale, -1, 1)
    np.testing.assert_allclose(whole(one)[TEST], expected, rtol=0, atol=1e-12)
    assert 0.9 < np.mean(np.abs(expected) < 1) < 1.0
    lstm = source("lstm_4h")
    answers = lstm.fitted.answers(market.wide(), TEST)
    np.testing.assert_allclose(whole(lstm)[TEST], lstm.signal(answers), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["logistic_4h", "lstm_4h"])
def test_rows_that_taught_it_have_no_answer(name):
    one = source(name)
    taught = market.bars().time <= one.fitted.trained_through
    found = whole(one)
    assert one.fitted_until == one.fitted.trained_through
    assert np.isnan(found[taught]).all()
    assert not np.isnan(found[~taught]).any()
    # Negative control: a forecaster that says it has seen less answers them.
    younger = dataclasses.replace(one.fitted, trained_through=int(market.bars().time[999]))
    assert not np.isnan(whole(ForecasterSource(name, younger, one.scale))[1_000:]).any()


def test_after_missing_bars_or_an_unknown_feature_it_waits_for_a_whole_window():
    one = source("lstm_4h")
    length = one.fitted.forecaster.lookback
    kept = np.r_[0:2_300, 2_310:2_600]
    gapped = tuple(
        dataclasses.replace(part, time=part.time[kept], values=part.values[kept]) for part in tables(one)
    )
    found = one.fresh().update(*gapped)
    silent = np.isnan(found)
    silent[:1_400] = False
    assert np.flatnonzero(silent).tolist() == list(range(2_300, 2_300 + length - 1))
    stage = one.fresh()
    parts = [
        stage.update(*(part[a:b] for part in gapped)) for a, b in ((0, 2_300), (2_300, 2_301), (2_301, 2_590))
    ]
    assert np.concatenate(parts).tobytes() == found.tobytes()

    bars, features, regimes, labels = tables(one)
    values = features.values.copy()
    values[2_400, features.index("return_4")] = np.nan
    holed = Table(features.time, values, features.names)
    found = one.fresh().update(bars, holed, regimes, labels)
    assert np.isnan(found[2_400 : 2_400 + length]).all()
    assert not np.isnan(np.r_[found[1_400:2_400], found[2_400 + length :]]).any()


def test_bars_closer_than_their_interval_do_not_collide():
    one = source("logistic_4h")
    bars, features, regimes, labels = tables(one, slice(1_500, 1_600))
    expected = whole(one, slice(1_500, 1_600))
    time = features.time[-1] + np.arange(100) * 60_000_000_000  # sixty in an hour have the same place
    features = Table(time, features.values, features.names)
    np.testing.assert_allclose(
        one.fresh().update(bars, features, regimes, labels), expected, rtol=0, atol=1e-12
    )
    stage = one.fresh()
    parts = [stage.update(bars, features[t : t + 1], regimes, labels) for t in range(100)]
    assert np.concatenate(parts).tobytes() == one.fresh().update(bars, features, regimes, labels).tobytes()


def held(bars_held):
    one = source("logistic_4h")
    return ForecasterSource("held", one.fitted, 0.2, hold=bars_held)


def test_an_answer_stands_for_as_many_bars_as_its_horizon_has():
    plain, hold = held(1), 4
    single = whole(ForecasterSource("plain", plain.fitted, 1.0))  # what is not cut at a full signal
    assert np.isnan(single[0])
    expected = np.full(market.N, np.nan)
    for t in np.flatnonzero(~np.isnan(single)):
        standing = single[max(t - hold + 1, 0) : t + 1]
        expected[t] = np.clip(np.nansum(standing) / hold / 0.2, -1.0, 1.0)
    np.testing.assert_allclose(whole(held(hold)), expected, rtol=0, atol=1e-14)
    # Negative control: answers that stand for another time are others.
    for other in (hold - 1, hold + 1):
        assert np.nanmax(np.abs(whole(held(other)) - expected)) > 0.01


def test_held_answers_are_the_same_wherever_the_rows_are_cut():
    one = held(4)
    edges = [0, 1_400, 1_401, 1_402, 1_405, 2_000, 2_002, 2_002, market.N]
    assert in_parts(one, edges).tobytes() == whole(one).tobytes()
    # What was decided on kept answers is what the stage says row by row.
    answers = one.fitted.answers(market.wide(), TEST)
    np.testing.assert_allclose(whole(one)[TEST][3:], one.signal(answers)[3:], rtol=0, atol=1e-12)


def test_features_of_another_version_are_refused():
    one = source("logistic_4h")
    bars, features, regimes, labels = tables(one)
    other = dataclasses.replace(features, version="0123456789abcdef")
    with pytest.raises(DataError, match=r"source logistic_4h: was fitted on features .*; these are 0123"):
        one.fresh().update(bars, other, regimes, labels)


def test_the_scale_is_what_few_answers_exceed_and_never_tiny():
    random = np.random.default_rng(0)
    up = random.uniform(0, 0.5, 2_000)
    answers = np.column_stack([0.5 - up, np.full(up.size, 0.5), up])
    assert ForecasterSource.scale_of(answers) == pytest.approx(0.95 * 0.5, abs=0.01)
    assert ForecasterSource.scale_of(np.vstack([answers, np.full((9, 3), np.nan)])) == (
        ForecasterSource.scale_of(answers)
    )
    assert ForecasterSource.scale_of(np.full((50, 3), 1 / 3)) == LEAST_SCALE
    assert ForecasterSource.scale_of(np.full((50, 3), np.nan)) == 1.0
    assert ForecasterSource.scale_of(np.empty((0, 3))) == 1.0


# Names, and on disk


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "é", "x" * 65, None])
def test_names_that_no_folder_or_column_can_have_are_refused(name):
    with pytest.raises(DataError, match="source: its name is"):
        SpecialistSource(name, market.specialist(None))


def test_settings_that_make_no_sense_are_refused():
    made = market.specialist(None)
    with pytest.raises(ValueError, match="awake is 'always'"):
        SpecialistSource("x", made, "always")
    with pytest.raises(ValueError, match="threshold is 0"):
        SpecialistSource("x", made, "probability", 0.0)
    with pytest.raises(ValueError, match="scale is 0"):
        ForecasterSource("x", market.forecaster(), 0.0)


def test_blenders_hear_name_kind_and_regime():
    assert member_of(source("by_label")) == ("by_label", "specialist", Regime.TRENDING)
    assert member_of(source("logistic_4h")) == ("logistic_4h", "forecaster", None)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_answers_to_the_bit_and_is_saved_to_the_same_bytes(name, tmp_path):
    one = source(name)
    one.save(tmp_path / "one")
    again = load_source(tmp_path / "one")
    assert type(again) is type(one)
    assert (member_of(again), again.fitted_until) == (member_of(one), one.fitted_until)
    rows = slice(VALIDATION.start, None)
    assert whole(again, rows).tobytes() == whole(one, rows).tobytes()
    again.save(tmp_path / "two")
    files = [
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}
        for folder in ("one", "two")
    ]
    assert files[0] == files[1]
    assert len(files[0]) >= 3


@pytest.mark.parametrize("name", ["by_label", "logistic_4h"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "format 9"),
        ({"kind": "oracle"}, "kind 'oracle'"),
        ({"name": "../x"}, "its name is"),
        ({"threshold": 7.0, "scale": 7.0}, "is 7"),
        ({"threshold": "x", "scale": "x"}, "is no saved source"),
        ({"name": None}, "is no saved source"),
    ],
)
def test_a_changed_document_is_refused_in_one_sentence(name, change, message, tmp_path):
    source(name).save(tmp_path)
    path = tmp_path / "source.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        load_source(tmp_path)


@pytest.mark.parametrize("name", ["by_label", "logistic_4h"])
def test_every_missing_file_is_missed_in_one_sentence(name, tmp_path):
    source(name).save(tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert len(files) >= 3
    for path in files:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(InputError, match=path.name):
            load_source(tmp_path)
        path.write_bytes(content)
    load_source(tmp_path)


def test_a_specialist_is_not_loaded_as_a_forecaster(tmp_path):
    source("by_label").save(tmp_path)
    with pytest.raises(DataError, match="it must be forecaster"):
        ForecasterSource.load(tmp_path)


def test_no_rows_are_answered_by_none():
    for name in NAMES:
        assert whole(source(name), slice(5, 5)).shape == (0,)


def test_probabilities_that_are_not_known_let_it_sleep():
    one = source("by_probability")
    bars, features, regimes, labels = tables(one)
    unknown = RegimeProbabilities(regimes.time, np.full_like(regimes.values, np.nan), regimes.names)
    assert not one.fresh().update(bars, features, unknown, labels).any()

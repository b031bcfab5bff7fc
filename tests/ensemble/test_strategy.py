import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import simulate
from configs.load import ConfigError, InputError
from ensemble.gating import GatingConfig
from ensemble.signals import Blend
from ensemble.sizing import SizingConfig
from ensemble.sources import ForecasterSource, SpecialistSource
from ensemble.strategy import DOCUMENT, Strategy
from market.causal import transform
from market.features.cross import JoinedFeaturesConfig
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.table import DataError
from regimes.detector import DETECTORS
from regimes.path import PathConfig
from regimes.regime import Regime, RegimeProbabilities
from tests.conformance.laws import (
    POISONS,
    check_altered_future,
    check_chunk_law,
    check_inputs_untouched,
    check_start_invariance,
)
from tests.ensemble import market
from tests.ensemble.market import LEARN, TEST, VALIDATION, N, bars, blender, changed, core, strategy, wide


def rows(blend):
    return blend.to_table().values


def same(one, two):
    return rows(one).tobytes() == rows(two).tobytes() and one.time.tobytes() == two.time.tobytes()


def decided(one, given=None):
    return one.fresh().update(bars() if given is None else given)


class Silent:
    """A source without any opinion; what a forecaster becomes that never has a whole window."""

    kind, reads, regime, columns, version, interval_ns, warmup = "forecaster", "core", None, (), None, None, 0

    def __init__(self, name, says=np.nan, fitted_until=0):
        self.name, self.says, self.fitted_until = name, says, fitted_until

    def fresh(self):
        return self

    def update(self, bars, features, regimes, labels):
        return np.full(len(bars), self.says)


# The laws


@pytest.mark.parametrize("name", ["route", "regime_weighted", "online"])
def test_one_bar_at_a_time_changes_no_bit(name):
    late = bars()[N - 500 :]
    check_chunk_law(strategy(name), late, range(500))
    assert np.count_nonzero(np.diff(decided(strategy(name))[TEST].exposure)) > 5


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, N), min_size=1, max_size=8))
def test_cutting_the_bars_anywhere_changes_no_bit(cuts):
    check_chunk_law(strategy(), bars(), cuts)


@pytest.mark.parametrize("name", ["lstm", "logistic"])
def test_a_network_among_the_sources_keeps_the_law(name):
    given = (*market.sources()[:1], market.forecaster_source(name))
    check_chunk_law(changed(sources=given), bars()[1_900:2_400], [0, 1, 77, 78, 79, 300, 300, 499])


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_altering_the_future_changes_nothing_before_it(poison):
    check_altered_future(strategy(), bars(), 2_600, poison)


def test_two_runs_are_equal_and_leave_their_input_alone():
    check_inputs_untouched(strategy(), bars())


def test_it_does_not_matter_where_the_bars_began():
    one = strategy()
    assert 900 < one.warmup < 1_100
    check_start_invariance(one, bars(), [1_000, 1_500, 1_960])
    whole, late = decided(one), decided(one, bars()[1_000:])
    assert np.isclose(whole.exposure[1_000:], late.exposure, rtol=1e-6, atol=0)[one.warmup :].all()
    assert whole.exposure[2_100:].any()


class Faulty:
    """A strategy with one fault planted."""

    def __init__(self, one, fault):
        self.one, self.fault, self.warmup = one, fault, one.warmup

    def fresh(self):
        return Faulty(self.one.fresh(), self.fault)

    def update(self, new):
        if self.fault == "forgets":
            self.one = self.one.fresh()
        blend = self.one.update(new)
        if self.fault == "peeks" and len(new) > 1:
            exposure = np.append(blend.exposure[1:], 0.0)
            return dataclasses.replace(blend, exposure=exposure)
        return blend


@pytest.mark.parametrize("fault", ["forgets", "peeks"])
def test_the_chunk_law_sees_a_strategy_that(fault):
    with pytest.raises(AssertionError, match="rows differ"):
        check_chunk_law(Faulty(strategy(), fault), bars(), range(2_000, N, 100))


def test_the_altered_future_shows_a_strategy_that_peeks():
    # It peeks at the very next row, and only a row that trades tells.
    trades = 1_999 + int(np.argmax(np.diff(decided(strategy()).exposure[1_999:]) != 0))
    with pytest.raises(AssertionError, match="altered"):
        check_altered_future(Faulty(strategy(), "peeks"), bars(), trades, POISONS["times 1000"])


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(0, N))
def test_given_features_are_decided_on_as_those_it_computes_itself(cut):
    whole, one = decided(strategy()), strategy().fresh()
    parts = [one.decide(bars()[a:b], core()[a:b], wide()[a:b]) for a, b in ((0, cut), (cut, N))]
    assert same(Blend.concat(parts), whole)


def test_the_halves_of_a_decision_are_the_whole_and_serve_other_blenders():
    one = strategy().fresh()
    heard = one.hear(bars(), core(), wide())
    assert same(one.blend(bars(), core(), *heard), decided(strategy()))
    rival = strategy().with_blender(blender("equal"))
    assert same(rival.blend(bars(), core(), *heard), decided(changed(blender=blender("equal"))))
    assert not same(decided(strategy()), decided(changed(blender=blender("equal"))))


# What is out of sample


def test_no_row_that_taught_a_part_is_answered():
    blend, one = decided(strategy()), strategy()
    taught = bars().time <= one.fitted_until
    assert taught.sum() == VALIDATION.stop
    assert not blend.exposure[taught].any()
    assert not blend.gated[taught].any()
    assert blend.exposure[TEST].any()
    for source in one.sources:
        own = bars().time <= source.fitted_until
        assert np.isnan(blend.signals.column(source.name)[own]).all()
    assert not np.isnan(blend.signals.values[TEST]).any()


class Fading(Silent):
    """A source that is loud up to a row, and then too weak to open a position, yet not to keep one."""

    def __init__(self, last):
        super().__init__("fading")
        self.last = last

    def update(self, bars, features, regimes, labels):
        return np.where(bars.time <= self.last, 1.0, 0.08)


@pytest.mark.parametrize(("last", "kept"), [(VALIDATION.stop - 1, False), (VALIDATION.stop, True)])
def test_no_position_of_rows_that_taught_is_kept_into_the_first_that_is_traded(last, kept):
    given = (Fading(int(bars().time[last])),)
    gating = GatingConfig(confidence_power=0, threshold=0.1, leave=0.5, wild_threshold=None, min_change=0)
    one = changed(sources=given, blender=blender("equal", given), gating=gating, forecast_features=None)
    assert decided(one).exposure[VALIDATION.stop :].any() == kept
    assert decided(one).exposure[TEST].all() == kept


@pytest.mark.parametrize("part", ["the detector", "the blender", "source volatile", "source logistic_4h"])
def test_a_part_that_has_seen_more_is_refused(part):
    later = int(bars().time[VALIDATION.stop - 1]) + 1
    found, mixed = {}, list(market.sources())
    if part == "the detector":
        found["detector"] = DETECTORS.create("volatility", {"baseline_bars": 200}).fit(
            core()[LEARN.start : TEST.start]
        )
    elif part == "the blender":
        late = blender()
        late.fitted_until = later
        found["blender"] = late
    elif part == "source volatile":
        made = market.specialist(Regime.VOLATILE)
        made = type(made)(made.family, made.genome, made.regime, made.scaler, made.limits, later)
        mixed[2] = SpecialistSource("volatile", made)
    else:
        mixed[3] = ForecasterSource(
            "logistic_4h", dataclasses.replace(mixed[3].fitted, trained_through=later), 0.1
        )
    found = {"blender": blender(), "sources": mixed, **found}
    with pytest.raises(DataError, match=f"fitted until .* but {part} has seen what was known at"):
        changed(**found)
    assert changed(**{**found, "fitted_until": int(bars().time[TEST.start])})  # said honestly, it is taken


# What is missing, and what markets do


def test_without_any_opinion_it_is_flat():
    for says in (np.nan, 0.0):
        mute = (Silent("a", says), Silent("b", says))
        one = changed(sources=mute, blender=blender("equal", mute), forecast_features=None)
        blend = decided(one)
        assert not blend.exposure.any()
        assert not blend.gated.any()


def test_a_forecaster_that_never_answers_leaves_the_vote_to_the_others():
    alone = market.sources()[:3]
    mixed = (*alone, Silent("lost"))
    usual = {"gating": GatingConfig(threshold=0, wild_threshold=None), "forecast_features": None}
    without = decided(changed(sources=alone, blender=blender("equal", alone), **usual))
    beside = decided(changed(sources=mixed, blender=blender("equal", mixed), **usual))
    assert beside.exposure.tobytes() == without.exposure.tobytes()
    assert not beside.weights[:, 3].any()
    assert without.exposure.any()


def test_one_loud_source_is_held_to_the_volatility_that_is_aimed_at():
    loud = (Silent("loud", 1.0),)
    one = changed(
        sources=loud, blender=blender("equal", loud),
        gating=GatingConfig(confidence_power=0, volatility_window=240),
        sizing=SizingConfig(target_volatility=0.2, half_life_bars=72, min_change=0), forecast_features=None,
    )  # fmt: skip
    exposure = decided(one).exposure[TEST]
    returns = np.diff(np.log(bars().column("close")[TEST]))
    assert np.std(exposure[:-1] * returns) * np.sqrt(8760) == pytest.approx(0.2, rel=0.25)


def without(given, *gaps):
    kept = np.ones(len(given), bool)
    for gap in gaps:
        kept[gap] = False
    return dataclasses.replace(given, time=given.time[kept], values=given.values[kept])


def test_missing_bars_are_answered_and_cut_anywhere():
    gapped = without(bars(), slice(2_100, 2_105), slice(2_300, 2_301), slice(2_500, 2_700))
    blend = decided(strategy(), gapped)
    assert blend.exposure[2_000:].any()
    check_chunk_law(strategy(), gapped, [2_099, 2_100, 2_101, 2_295, 2_494])


def test_a_frozen_feed_is_answered_without_leaving_the_limits():
    values = bars().values.copy()
    close = values[2_299, 3]
    values[2_300:2_600] = [close, close, close, close, 0.0]
    frozen = dataclasses.replace(bars(), values=values)
    limits = RiskLimits(max_exposure=0.4)
    blend = decided(changed(limits=limits, sizing=SizingConfig(least_volatility=0.1)), frozen)
    assert np.isfinite(blend.exposure).all()
    assert np.abs(blend.exposure).max() <= 0.4
    check_chunk_law(changed(limits=limits), frozen, [2_299, 2_300, 2_301, 2_599, 2_600])


class Wrapped:
    """A detector that says something else than the one inside."""

    def __init__(self, inner):
        self.inner = inner
        self.columns, self.warmup, self.fitted_until = inner.columns, inner.warmup, inner.fitted_until

    def fresh(self):
        return type(self)(self.inner.fresh())

    def update(self, features):
        found = self.inner.update(features)
        return RegimeProbabilities(found.time, self.said(found), found.names)


class Flipping(Wrapped):
    """Sure of another regime every bar."""

    def said(self, found):
        even = found.time // 3_600_000_000_000 % 2 == 0
        return np.where(even[:, None], [0.95, 0.05, 0.0], [0.05, 0.95, 0.0])


def test_regimes_that_flip_every_bar_are_followed_no_faster_than_the_dwell():
    one = changed(detector=Flipping(market.detector()), blender=blender())
    blend = decided(one)
    switches = np.flatnonzero(np.diff(blend.label)) + 1
    assert np.diff(switches).min() >= market.PATH.min_dwell_bars
    assert len(switches) > 300
    assert np.isfinite(blend.exposure).all()
    check_chunk_law(one, bars(), [2_000, 2_001, 2_003, 2_500])
    hasty = decided(
        changed(detector=Flipping(market.detector()), blender=blender(), path=PathConfig(min_dwell_bars=1))
    )
    assert np.count_nonzero(np.diff(hasty.label)) > 2_500


class NeverVolatile(Wrapped):
    """Fitted where nothing was volatile, it never says so."""

    def said(self, found):
        trending = found.column("trending")
        return np.column_stack([1.0 - trending, trending, 0.0 * trending])


def test_a_specialist_whose_regime_never_occurs_sleeps_and_harms_nobody():
    one = changed(detector=NeverVolatile(market.detector()), blender=blender())
    blend = decided(one)
    taught = bars().time <= market.sources()[2].fitted_until
    assert not blend.signals.column("volatile")[~taught].any()
    assert blend.signals.column("ranging")[TEST].any()
    assert blend.exposure[TEST].any()
    assert decided(strategy()).signals.column("volatile")[TEST].any()  # where it does occur, it is awake


@pytest.mark.parametrize("n", [0, 1, 2, 30, 300])
def test_an_asset_that_starts_late_is_flat_until_enough_is_known(n):
    blend = decided(strategy(), bars()[2_000 : 2_000 + n])
    assert len(blend) == n
    assert not blend.exposure[:240].any()


def test_what_is_decided_is_traded_from_the_next_open():
    blend = decided(strategy())
    result = simulate(blend.targets(), bars(), Costs(), RiskLimits(), rows=TEST)
    assert len(result.trades) > 0
    first = int(np.argmax(blend.exposure[TEST] != 0))
    assert result.curve.column("exposure")[first] == 0.0
    assert result.curve.column("exposure")[first + 1] != 0.0


# Parts that do not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, "has no source"),
        ({"sources": (Silent("a"), Silent("a"))}, "their names must differ"),
        ({"forecast_features": None}, "source logistic_4h needs forecast features; there are none"),
        ({"forecast_features": JoinedFeaturesConfig(names=market.WIDE.names, peers=("eth",))}, "no peers"),
        (
            {"forecast_features": JoinedFeaturesConfig(names=("return_1",))},
            "was fitted on features .*; the settings",
        ),
        ({"features": FeaturesConfig(names=("return_1",))}, "there is no such feature"),
        ({"gating": GatingConfig(confirm="logistic_8h")}, "did you mean logistic_4h"),
        (
            {"gating": GatingConfig(wild_threshold=0.2, volatility_column="volatility_25")},
            "did you mean volatility_24",
        ),
        ({"interval_ns": 60_000_000_000}, "was fitted on bars of 1h; the strategy decides on bars of 1m"),
        ({"detector": DETECTORS.create("volatility")}, "the detector is not fitted"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused_in_one_sentence(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        changed(**{"blender": blender(), **changes})
    assert "\n" not in str(caught.value)


def test_bars_of_another_length_or_of_yesterday_are_refused_and_change_nothing(make_bars):
    one = strategy().fresh()
    one.update(bars()[:2_500])
    with pytest.raises(DataError, match=r"the bars are BTC/USDT 4h; it decides on bars of 1h"):
        one.update(make_bars(5, timeframe="4h"))
    with pytest.raises(DataError, match="already answered; new bars must come after them"):
        one.update(bars()[2_499:])
    assert same(one.update(bars()[2_500:]), decided(strategy())[2_500:])


def test_ways_of_feeding_are_not_mixed():
    one = strategy().fresh()
    one.update(bars()[:100])
    with pytest.raises(ValueError, match=r"was fed by update and is now fed by decide; take a fresh\(\) one"):
        one.decide(bars()[100:], core()[100:], wide()[100:])


def test_features_that_are_missing_or_others_are_refused():
    with pytest.raises(DataError, match="its forecasters need their features, and got none"):
        strategy().fresh().decide(bars(), core())
    other = transform(FeaturePipeline(FeaturesConfig(names=("return_1",))), bars())
    with pytest.raises(DataError, match=r"reads features .*; these are"):
        strategy().fresh().decide(bars(), other, wide())
    with pytest.raises(DataError, match="share one clock"):
        strategy().fresh().decide(bars(), core()[1:], wide())


def test_after_a_failure_halfway_it_answers_no_more():
    class Failing(Silent):
        def update(self, *given):
            raise OSError("the disk is full")

    given = (Failing("a"),)
    one = changed(sources=given, blender=blender("equal", (Silent("a"),)), forecast_features=None)
    with pytest.raises(OSError, match="disk"):
        one.update(bars()[:10])
    with pytest.raises(ValueError, match=r"failed halfway; take a fresh\(\) one"):
        one.update(bars()[10:20])


# On disk


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies") / "champion"
    strategy().save(folder)
    return folder


READ = """
import hashlib, sys
import numpy as np
from ensemble.strategy import Strategy
from market.bars import OHLCV, Bars
parts = np.load(sys.argv[2])
bars = Bars(parts["time"], parts["values"], OHLCV, symbol="SYN", interval_ns=int(parts["interval"]))
one = Strategy.load(sys.argv[1])
print(hashlib.sha256(one.update(bars).to_table().values.tobytes()).hexdigest(), one.fingerprint())
"""


def test_another_process_loads_it_anywhere_to_the_same_rows(saved, tmp_path):
    moved = shutil.copytree(saved, tmp_path / "elsewhere" / "moved")
    np.savez(tmp_path / "bars.npz", time=bars().time, values=bars().values, interval=bars().interval_ns)
    run = [sys.executable, "-c", READ, str(moved), str(tmp_path / "bars.npz")]
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        run, capture_output=True, text=True, check=True, cwd=root, timeout=120
    ).stdout.split()
    assert out[0] == hashlib.sha256(rows(decided(strategy())).tobytes()).hexdigest()
    assert out[1] == strategy().fingerprint()


def test_what_is_loaded_is_saved_to_the_same_bytes(saved, tmp_path):
    again = Strategy.load(saved)
    again.save(tmp_path / "again")
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (saved, tmp_path / "again")
    ]
    assert files[0] == files[1]
    assert {path.parts[0] for path in files[0]} == {DOCUMENT, "detector", "blender", "sources"}
    assert not [path for path in files[0] if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert again.fingerprint() == strategy().fingerprint() == json.loads(files[0][Path(DOCUMENT)])["digest"]
    assert (again.label, again.fitted_until, again.warmup) == (
        strategy().label, strategy().fitted_until, strategy().warmup,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"sizing": SizingConfig(half_life_bars=25.0)},
        {"fitted_until": int(bars().time[TEST.start])},
        {"sources": (*market.sources()[:3], ForecasterSource("logistic_4h", market.forecaster(), 0.5))},
        {"label": "ETH/USDT 1h"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_fingerprint_tells_strategies_apart(changes):
    other = changed(**{"blender": blender(), **changes})
    assert other.fingerprint() != strategy().fingerprint()
    assert changed().fingerprint() == strategy().fingerprint()


def test_every_file_that_is_missing_or_changed_is_named_in_one_sentence(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "damaged")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(paths) > 10
    for path in paths:
        content = path.read_bytes()
        for damage in (None, b"", content[: len(content) // 2], content[:-9] + b"#" + content[-8:]):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            with pytest.raises(InputError) as caught:
                Strategy.load(folder)
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)
        path.write_bytes(content)
    assert same(decided(Strategy.load(folder)), decided(strategy()))


def resealed(folder, **changes):
    """Change the document, and let its digest be right."""
    from ensemble.keeping import _digest

    document = json.loads((folder / DOCUMENT).read_text()) | changes
    document.pop("digest")
    (folder / DOCUMENT).write_text(json.dumps(document | {"digest": _digest(document)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version reads format 1"),
        ({"files": {"../../secret": "0"}}, "names the file ../../secret, which lies elsewhere"),
        ({"files": {"/etc/passwd": "0"}}, "which lies elsewhere"),
        ({"sources": ["../volatile"]}, "its name is"),
        ({"sources": ["volatile", "nobody"]}, "nobody/source.json"),
        ({"sizing": {"cap": -1}}, r"strategy.json: sizing: cap is -1"),
        ({"fitted_until": 5}, "is said to be fitted until"),
        ({"limits": None}, "is no saved strategy"),
    ],
)
def test_a_document_that_says_something_impossible_is_refused(change, message, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "odd")
    resealed(folder)
    Strategy.load(folder)  # sealed again without a change, it is read
    resealed(folder, **change)
    with pytest.raises(InputError, match=message) as caught:
        Strategy.load(folder)
    assert "\n" not in str(caught.value)


def test_saving_replaces_a_strategy_as_a_whole_and_nothing_else(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "champion")
    (folder / "sources" / "left_over").mkdir()
    changed(label="another").save(folder)
    assert Strategy.load(folder).label == "another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["champion"]
    assert not (folder / "sources" / "left_over").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds something else than strategy\.json"):
        strategy().save(mine)
    assert (mine / "thesis.txt").read_text() == "precious"


def test_a_save_that_fails_leaves_what_was_there(saved, tmp_path):
    class Full(Silent):
        def save(self, folder):
            raise OSError("no space left on device")

    folder = shutil.copytree(saved, tmp_path / "champion")
    given = (Full("a"),)
    broken = changed(sources=given, blender=blender("equal", given), forecast_features=None)
    with pytest.raises(DataError, match=r"cannot be written \(no space left"):
        broken.save(folder)
    assert same(decided(Strategy.load(folder)), decided(strategy()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["champion"]


def test_a_new_folder_that_cannot_take_its_place_leaves_the_old_one(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved, tmp_path / "champion")
    replace = os.replace

    def refusing(source, target):
        if str(source).endswith("champion.unfinished"):
            raise PermissionError("not today")
        replace(source, target)

    monkeypatch.setattr("ensemble.keeping.os.replace", refusing)
    with pytest.raises(DataError, match=r"cannot be written \(not today"):
        changed(label="another").save(folder)
    assert Strategy.load(folder).label == strategy().label
    assert sorted(path.name for path in tmp_path.iterdir()) == ["champion"]


def test_no_strategy_is_loaded_from_nowhere(tmp_path):
    with pytest.raises(DataError, match=r"strategy\.json: no such file"):
        Strategy.load(tmp_path / "nowhere")

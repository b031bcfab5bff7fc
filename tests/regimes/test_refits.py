"""Walk-forward refits: who answers which row, what it has seen, and what a later fit may not change."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, InputError, validate
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError, Table
from regimes.detector import DETECTORS, require_out_of_sample
from regimes.outlook import Outlook
from regimes.refits import (
    MAX_PIECES,
    Refit,
    RefitSchedule,
    RefittedDetector,
    agreement,
    continuity,
    fit_schedule,
)
from regimes.regime import REGIME_NAMES
from tests.conformance import laws
from tests.reference.regimes import HOUR_NS, small_market

N = 3100
SETTINGS = {"baseline_bars": 300}
SCHEDULE = RefitSchedule(first_bars=1000, every_bars=400, window_bars=900, embargo_bars=24)
# Rows of the small market are hours 1, 2, ...: the last fitted row of refit i is hour 1000 + 400 i.
USED = [(1000 + 400 * i + 25) for i in range(6)]


@pytest.fixture(scope="module")
def features():
    return small_market(N, seed=1, dwell_bars=60)[1]


@pytest.fixture(scope="module")
def refitted(features):
    return fit_schedule("volatility", SETTINGS, features, SCHEDULE)


def altered(features, row):
    """The same rows before one, others from there on."""
    values = features.values.copy()
    values[row:] = values[row:][::-1] * 1.5
    return Table(features.time, values, features.names)


# The schedule


def test_a_schedule_is_resolved_to_times_by_hand():
    time = np.arange(1, 11) * HOUR_NS
    schedule = RefitSchedule(first_bars=4, every_bars=3, window_bars=5, embargo_bars=2)
    hours = [tuple(t // HOUR_NS for t in refit) for refit in schedule.resolve(time)]
    assert hours == [
        (1, 4, 7),
        (3, 7, 10),
        (6, 10, 13),
    ]  # the first window is not full, the last not yet used
    expanding = RefitSchedule(first_bars=4, every_bars=3).resolve(time)
    assert [tuple(t // HOUR_NS for t in refit) for refit in expanding] == [(1, 4, 5), (1, 7, 8), (1, 10, 11)]


def test_an_embargo_is_time_and_a_gap_does_not_shorten_it():
    time = np.array([1, 2, 3, 4, 50, 51, 52, 53]) * HOUR_NS
    refits = RefitSchedule(first_bars=4, every_bars=4, embargo_bars=2).resolve(time)
    assert [refit.used_from // HOUR_NS for refit in refits] == [7, 56]


@given(st.integers(2, 40), st.integers(1, 30), st.one_of(st.none(), st.integers(1, 60)), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_more_rows_add_refits_and_change_none(first, every, window, embargo):
    schedule = RefitSchedule(first_bars=first, every_bars=every, window_bars=window, embargo_bars=embargo)
    time = np.cumsum(np.random.default_rng(first).choice([1, 1, 1, 5], size=120)) * HOUR_NS
    whole = schedule.resolve(time)
    for n in range(first, 121, 17):
        part = schedule.resolve(time[:n])
        assert part == whole[: len(part)]
        assert len(part) == 1 + (n - first) // every
    for refit in whole:
        assert refit.fitted_from <= refit.fitted_until < refit.used_from
    assert all(a.used_from < b.used_from for a, b in itertools.pairwise(whole))


def test_schedules_that_cannot_be_kept_are_refused_in_one_sentence():
    time = np.arange(1, 5001) * HOUR_NS
    with pytest.raises(DataError, match="there are 5000 rows; the first fit needs 20000"):
        RefitSchedule().resolve(time)
    with pytest.raises(DataError, match="are 4991 refits; there may be 1000"):
        RefitSchedule(first_bars=10, every_bars=1).resolve(time)
    with pytest.raises(ConfigError, match="every_bars is 0"):
        validate(RefitSchedule, {"every_bars": 0}, "refits")


# Who answers


def test_each_row_is_answered_by_the_latest_member_of_its_past(refitted, features):
    rows = transform(refitted, features)
    hour = features.time // HOUR_NS
    assert np.isnan(rows.values[hour < USED[0]]).all()
    assert not np.isnan(rows.values[hour >= USED[0]]).any()
    assert rows.names == REGIME_NAMES
    for member, used, until in zip(refitted.members, USED, [*USED[1:], N + 1], strict=True):
        # Fitted by hand on the rows of its window, and listening for its warm-up before it is used.
        fitted_until = used - 25
        alone = DETECTORS.create("volatility", SETTINGS).fit(features[fitted_until - 900 : fitted_until])
        assert alone.fitted_until == member.fitted_until == fitted_until * HOUR_NS
        listened = transform(alone, features[used - 1 - alone.warmup : until - 1])
        expected = listened.values[alone.warmup :]
        assert rows.values[used - 1 : until - 1].tobytes() == expected.tobytes()
        # Control: with an empty memory it answers otherwise.
        cold = transform(alone, features[used - 1 : until - 1])
        assert cold.values.tobytes() != expected.tobytes()


def test_every_answer_is_out_of_sample(refitted, features):
    through = refitted.trained_through(features.time)
    answered = through >= 0
    assert answered.sum() == N + 1 - USED[0]
    assert (through[answered] + 24 * HOUR_NS < features.time[answered]).all()
    members = np.searchsorted(USED, features.time[answered] // HOUR_NS, side="right") - 1
    assert through[answered].tolist() == [refitted.refits[m].fitted_until for m in members]
    require_out_of_sample(refitted, USED[0] * HOUR_NS)
    with pytest.raises(DataError, match="not out of sample"):
        require_out_of_sample(refitted, 1000 * HOUR_NS)


def test_a_member_that_has_seen_more_than_the_schedule_says_is_refused(refitted, features):
    leaked = DETECTORS.create("volatility", SETTINGS).fit(features)
    other = refitted.fresh()
    with pytest.raises(DataError, match="was fitted until 1970-05-10T04:00:00Z; the schedule says"):
        other._set(refitted.refits, [leaked] * len(refitted.refits), HOUR_NS)


class PeekingDetector(RefittedDetector):
    """A planted leak: members are fitted on all rows and stamped with the date of the schedule."""

    def _fit(self, features, known):
        members = []
        refits = self.schedule.resolve(features.time)
        for refit in refits:
            member = DETECTORS.create(self.name, self.settings).fit(features)
            member.fitted_until = refit.fitted_until
            members.append(member)
        self._set(refits, members, HOUR_NS)
        return self


class EagerDetector(RefittedDetector):
    """A planted leak: each refit one embargo late, so that its last rows are the first it answers."""

    def _fit(self, features, known):
        members = []
        refits = self.schedule.resolve(features.time)
        for refit in refits:
            rows = slice(*np.searchsorted(features.time, (refit.fitted_from, refit.used_from + 5 * HOUR_NS)))
            member = DETECTORS.create(self.name, self.settings).fit(features[rows])
            member.fitted_until = refit.fitted_until
            members.append(member)
        self._set(refits, members, HOUR_NS)
        return self


def unmoved_by_the_future(kind, features, row):
    """Whether answers before a row stay as they are when it and all later rows change and all is refitted."""
    one, other = (
        kind("volatility", SETTINGS, SCHEDULE).fit(rows) for rows in (features, altered(features, row))
    )
    before, after = (transform(d, rows) for d, rows in ((one, features), (other, altered(features, row))))
    assert before.values[row:].tobytes() != after.values[row:].tobytes()
    return before.values[:row].tobytes() == after.values[:row].tobytes()


@pytest.mark.parametrize("row", [USED[0] - 1, USED[0] + 3, 1400, USED[2], USED[4] - 1, N - 1])
def test_altering_rows_changes_no_earlier_answer_although_all_is_refitted(features, row):
    assert unmoved_by_the_future(RefittedDetector, features, row)


@pytest.mark.parametrize("leak", [PeekingDetector, EagerDetector])
def test_a_refit_that_reads_what_it_answers_is_found(leak, features):
    rows = [used + ahead for used in USED for ahead in (0, 3)]
    assert not all(unmoved_by_the_future(leak, features, row) for row in rows)


# The laws of flow


def with_gaps(features):
    values = features.values.copy()
    values[:7] = np.nan
    values[[50, 1023, 1024, 1300], [0, 1, 2, 0]] = np.nan
    values[1420:1430] = np.nan
    return Table(features.time, values, features.names)


def test_cutting_the_input_anywhere_changes_no_bit(refitted, features):
    rows = with_gaps(features)
    for cuts in ([1, 7, 1023, 1024, 1024, 1025, 2900], range(900, 1500), np.arange(0, N, 61)):
        laws.check_chunk_law(refitted, rows, [int(cut) for cut in cuts])


def test_hours_that_are_missing_change_no_law(refitted, features):
    kept = np.r_[0:1010, 1020:1024, 1100:1300, 1900:N]  # two refits fall into the longest gap
    rows = Table(features.time[kept], features.values[kept], features.names)
    laws.check_chunk_law(refitted, rows, range(1000, 1300))
    answered = ~np.isnan(transform(refitted, rows).values[:, 0])
    assert answered.tolist() == (rows.time >= USED[0] * HOUR_NS).tolist()


@pytest.mark.parametrize("poison", sorted(laws.POISONS))
def test_altering_the_future_changes_nothing_before_it(poison, refitted, features):
    for row in (USED[0], 1500, USED[3] - 2):
        laws.check_altered_future(refitted, with_gaps(features), row, laws.POISONS[poison])


def test_after_the_warmup_it_does_not_matter_where_the_rows_began(refitted, features):
    # Only rows that are answered are compared.
    laws.check_start_invariance(refitted, features, [USED[0] - 200, 1111, USED[3] - 10, 2500])
    laws.check_inputs_untouched(refitted, features)


class Deaf(RefittedDetector):
    """Broken on purpose: what was kept for the next member is lost at the end of a chunk."""

    def update(self, features):
        rows = super().update(features)
        self._kept = []
        return rows


def test_a_member_that_did_not_listen_is_found(features):
    deaf = Deaf("volatility", SETTINGS, SCHEDULE).fit(features)
    with pytest.raises(AssertionError, match="rows differ"):
        laws.check_chunk_law(deaf, features, range(0, N, 100))


def test_what_a_coming_member_will_hear_is_kept_in_few_pieces_and_then_dropped(features):
    streamed = fit_schedule("volatility", {"baseline_bars": 900}, features, SCHEDULE)
    pieces, rows = [], []
    for row in range(50, N):
        streamed.update(features[row : row + 1])
        pieces.append(len(streamed._kept))
        rows.append(sum(map(len, streamed._kept)))
    assert max(pieces) == MAX_PIECES
    # A member hears 900 rows; what is no longer wanted goes when the pieces are joined.
    assert 900 <= max(rows) <= 900 + MAX_PIECES
    assert pieces[-1] == 0  # nobody is to come


def test_unknown_columns_and_unfitted_use_are_refused(refitted, features):
    with pytest.raises(DataError, match=r"no feature column 'parkinson_24'; did you mean parkinson_42\?"):
        refitted.fresh().update(Table(features.time, features.values[:, :1], ("parkinson_42",)))
    unfitted = RefittedDetector("volatility", SETTINGS, SCHEDULE)
    for call in (lambda: unfitted.update(features), lambda: unfitted.extended(features), unfitted.outlook):
        with pytest.raises(ValueError, match="not fitted"):
            call()
    with pytest.raises(ConfigError, match="no detector named"):
        RefittedDetector("volatily", {}, SCHEDULE)
    with pytest.raises(
        DataError, match="the refit on 1970-01-01T01:00:00Z to 1970-01-05T04:00:00Z: detector"
    ):
        RefittedDetector("volatility", SETTINGS, RefitSchedule(first_bars=100)).fit(features)


# Extension, outlook, continuity


def test_a_longer_history_adds_members_and_keeps_the_old(features):
    short = fit_schedule("volatility", SETTINGS, features[:2000], SCHEDULE)
    longer = short.extended(features)
    whole = fit_schedule("volatility", SETTINGS, features, SCHEDULE)
    assert len(short.refits) == 3
    assert longer.refits == whole.refits
    assert longer.refits[:3] == short.refits
    assert transform(longer, features).values.tobytes() == transform(whole, features).values.tobytes()
    before = slice(0, USED[3] - 1)  # until the first new member: nothing has changed
    assert (
        transform(short, features[before]).values.tobytes()
        == transform(whole, features[before]).values.tobytes()
    )


def test_the_outlook_of_a_row_uses_the_chain_of_its_own_member(refitted, features):
    rows = transform(refitted, features)
    table = transform(refitted.outlook((6,)), rows)
    assert np.isnan(table.values[: USED[0] - 1]).all()
    for member, used, until in zip(refitted.members, USED, [*USED[1:], N + 1], strict=True):
        part = slice(used - 1, until - 1)
        np.testing.assert_array_equal(
            table.values[part], Outlook(member.chain, (6,)).update(rows[part]).values
        )
    # Control: the chain of the latest member, which earlier rows must not know, says something else.
    latest = transform(Outlook(refitted.chain, (6,)), rows)
    assert (latest.values[USED[0] : USED[4]] != table.values[USED[0] : USED[4]]).any()


def test_agreement_is_the_share_of_equal_labels_by_hand(refitted, features):
    one, other = refitted.members[0], refitted.members[-1]
    rows = with_gaps(features)
    a, b = (transform(detector, rows).values for detector in (one, other))
    equal = sum(x.argmax() == y.argmax() for x, y in zip(a[7:], b[7:], strict=True))
    assert np.isnan(a[:7]).all()
    assert agreement(one, other, rows) == equal / (N - 7)
    assert agreement(one, one, rows) == 1.0
    assert agreement(one, other, rows) < 1.0
    with pytest.raises(DataError, match="none of 5 rows is answered by both"):
        agreement(one, other, rows[:5])


def test_continuity_compares_neighbors_on_the_rows_both_were_fitted_on(refitted, features):
    found = continuity(refitted, features)
    assert len(found) == 5
    # The first was fitted on rows 100..999, the second on 500..1399.
    assert found[0] == agreement(refitted.members[0], refitted.members[1], features[500:1000])
    assert min(found) > 0.8
    apart = RefitSchedule(first_bars=1000, every_bars=800, window_bars=700)
    alone = fit_schedule("volatility", SETTINGS, features, apart)
    assert np.isnan(continuity(alone, features)).all()


# On disk


def test_it_comes_back_from_disk_bit_by_bit(refitted, features, tmp_path):
    used = refitted.fresh()
    used.update(features[:1700])
    used.save(tmp_path / "a")
    again = RefittedDetector.load(tmp_path / "a")
    assert again.refits == refitted.refits
    assert again.schedule == SCHEDULE
    assert again.warmup == refitted.warmup
    assert again.fitted_until == refitted.fitted_until
    assert transform(again, features).values.tobytes() == transform(refitted, features).values.tobytes()
    again.save(tmp_path / "b")
    files = [sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in "ab"]
    assert len(files[0]) == 7
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert again.extended(features).refits == refitted.refits


def test_the_schedule_on_disk_says_what_was_fitted_when(refitted, tmp_path):
    refitted.save(tmp_path)
    document = json.loads((tmp_path / "schedule.json").read_text())
    assert document["detector"] == "volatility"
    assert document["settings"] == SETTINGS
    assert document["schedule"] == {
        "first_bars": 1000,
        "every_bars": 400,
        "window_bars": 900,
        "embargo_bars": 24,
    }
    assert document["refits"][0] == Refit(101 * HOUR_NS, 1000 * HOUR_NS, 1025 * HOUR_NS)._asdict()
    assert len(document["refits"]) == 6


def test_fitting_twice_saves_the_same_bytes(refitted, features, tmp_path):
    fit_schedule("volatility", SETTINGS, features, SCHEDULE).save(tmp_path / "a")
    refitted.save(tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.json"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def change(**changes):
    return lambda document: document.update(changes)


DAMAGES = {
    "format": (change(format=2), "has format 2; this version reads format 1"),
    "no refits": (change(refits=[]), "has 0 refits"),
    "no times": (change(refits=[1]), r"refits\[0\] is 1; it must be"),
    "text": (change(refits=[{"fitted_from": "1", "fitted_until": 2, "used_from": 3}]), r"refits\[0\] is"),
    "used too early": (lambda d: d["refits"][1].update(used_from=0), r"refits\[1\] is"),
    "order": (lambda d: d["refits"].reverse(), r"refits\[1\] is"),
    "interval": (change(interval_ns=0), "interval_ns is 0; it must be positive"),
    "schedule": (change(schedule={"every_bars": -1}), "schedule: every_bars is -1"),
    "settings": (change(settings={"no_such": 1}), "no_such is not a setting"),
    "detector": (change(detector="hmm", settings={}), "the schedule is of the detector 'hmm'"),
    "member": (
        lambda d: d["refits"][0].update(fitted_until=999 * HOUR_NS),
        "the schedule says 1970-02-11T15",
    ),
    "missing": (lambda d: d.pop("refits"), "is no saved refit schedule"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_schedule_is_refused_in_one_sentence(damage, message, refitted, tmp_path):
    refitted.save(tmp_path)
    document = json.loads((tmp_path / "schedule.json").read_text())
    damage(document)
    (tmp_path / "schedule.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as refusal:
        RefittedDetector.load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_missing_member_and_a_save_that_broke_off_are_refused(refitted, tmp_path, monkeypatch):
    refitted.save(tmp_path)
    (tmp_path / "refit_002" / "detector.json").unlink()
    with pytest.raises(DataError, match=r"refit_002.*no such file"):
        RefittedDetector.load(tmp_path)
    refitted.save(tmp_path)
    broken = refitted.fresh()

    def full(folder):
        raise OSError("disk full")

    monkeypatch.setattr(broken.members[3], "save", full)
    with pytest.raises(OSError, match="disk full"):
        broken.save(tmp_path)
    with pytest.raises(DataError, match=r"schedule\.json: no such file"):
        RefittedDetector.load(tmp_path)


# The default detector


def test_the_default_detector_is_refitted_behind_real_features():
    market = synthetic_market(SyntheticConfig(scenario="short_dwell", n_bars=7_000, seed=5))
    columns = DETECTORS.create("markov_ar").columns
    features = transform(FeaturePipeline(FeaturesConfig(names=columns)), market.bars)
    schedule = RefitSchedule(first_bars=4000, every_bars=2000)
    refitted = fit_schedule("markov_ar", {}, features, schedule)
    laws.check_chunk_law(refitted, features, [3999, 4000, 4001, 5000, 5999, 6000, 6001, 6500])
    label = transform(refitted, features).values[4000:].argmax(axis=1)
    assert np.mean(label == market.regime[4000:]) > 0.85
    assert min(continuity(refitted, features)) > 0.95

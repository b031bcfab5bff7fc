"""A stored study: the same trials however often it is killed, and no damage to its file unseen."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, validate
from experiments import studies
from experiments.ranges import Range
from experiments.runs import Run
from experiments.studies import COPY, FILE, PruningConfig, SamplingConfig, StoredStudy

ROOT = Path(__file__).resolve().parents[2]
SPACE = {
    "x": Range(low=0.0, high=1.0),
    "n": Range(low=1, high=9),
    "kind": Range(choices=("a", "b", "c")),
    "rate": Range(low=0.001, high=1.0, log=True),
}
STEPS, SEED = 3, 7


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """Leave the disk to itself: a process that is killed loses nothing by it, and the tests save a minute."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


def worth(parameters, step):
    """A hill with its top at x = 0.3, n = 4, kind b; some noise of the steps."""
    hill = 1.0 - (parameters["x"] - 0.3) ** 2 - 0.02 * abs(parameters["n"] - 4)
    return hill + 0.2 * (parameters["kind"] == "b") + 0.001 * step


def opened(run, pruning="median", first=None, seed=SEED):
    return StoredStudy(
        run, SPACE, seed, STEPS, SamplingConfig(startup_trials=4), PruningConfig(name=pruning), first
    )


def work(study, until, killed_in=None):
    """Bring a study to a number of trials, or leave a trial behind half done, as a kill does."""
    while len(study.trials) < until:
        asked = study.ask()
        for step in range(STEPS):
            asked.report(worth(asked.parameters, step))
            if asked.number == killed_in:
                return
            if step < STEPS - 1 and asked.hopeless():
                asked.prune({"at": step})
                break
        else:
            if asked.parameters["n"] == 9:
                asked.fail({"reason": "nine will not do"})
            else:
                asked.complete(worth(asked.parameters, STEPS), {"at": STEPS})


def finished(root, until, name="whole", **options):
    run = Run.open(root, "tune", name)
    with opened(run, **options) as study:
        work(study, until)
        return run, list(study.trials)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of eight trials: its run, what it holds, and the bytes of its file."""
    run, trials = finished(tmp_path_factory.mktemp("studies"), 8)
    return run, trials, (run.folder / FILE).read_bytes()


@pytest.fixture
def damaged(whole, tmp_path):
    """Return a function that puts altered bytes in place of a study and opens it: trials and notes."""
    number = iter(range(1000))

    def open_with(content, copied=None):
        run = Run.open(tmp_path, "tune", f"damaged{next(number)}")
        (run.folder / COPY).write_bytes(whole[2] if copied is None else copied)
        if content is not None:
            (run.folder / FILE).write_bytes(content)
        with opened(run) as study:
            return run, list(study.trials), study.notes

    return open_with


@pytest.mark.parametrize("pruning", ["median", "hyperband"])
def test_a_study_that_was_killed_thrice_holds_the_trials_of_one_that_never_was(tmp_path, pruning):
    _, expected = finished(tmp_path, 12, pruning=pruning)
    assert {one.state for one in expected} >= {"complete", "pruned"}
    run = Run.open(tmp_path, "tune", "killed")
    for kills, killed_in in enumerate((0, 5, 9, None)):
        with opened(run, pruning=pruning) as study:
            assert study.interrupted == kills
            work(study, 12, killed_in)
            found = list(study.trials)
    assert found == expected
    connection = sqlite3.connect(run.folder / FILE)
    states = [row[0] for row in connection.execute("SELECT state FROM trials ORDER BY number")]
    connection.close()
    assert len(states) == 15
    assert states.count("FAIL") == 3 + sum(one.state == "failed" for one in expected)


def test_a_sampler_that_is_seeded_once_would_not_come_back_to_the_same_trials(tmp_path, monkeypatch):
    # The control of the test above: what it says depends on the seed of each trial.
    monkeypatch.setattr(StoredStudy, "_sampler", lambda self, number, make=StoredStudy._sampler: (
        self.__dict__.setdefault("once", make(self, 0))
    ))  # fmt: skip
    _, expected = finished(tmp_path, 6)
    run = Run.open(tmp_path, "tune", "killed")
    for killed_in in (3, None):
        with opened(run) as study:
            work(study, 6, killed_in)
            found = list(study.trials)
    assert found[:3] == expected[:3]
    assert found != expected


def test_a_killed_process_leaves_a_study_that_goes_on(tmp_path):
    _, expected = finished(tmp_path, 8)
    run = Run.open(tmp_path, "tune", "killed")
    script = (
        "import sys\nfrom experiments.runs import Run\n"
        "from tests.experiments.test_studies import opened, work\n"
        "with opened(Run.at(sys.argv[1], sys.argv[2])) as study: work(study, 10_000)"
    )
    draw = random.Random(3)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), run.id], cwd=ROOT)
    try:
        while not (run.folder / FILE).exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(draw.uniform(0.1, 0.5))
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    run.remove_drafts()
    with opened(run) as study:
        assert study.notes == []  # a kill is no damage
        work(study, 8)
        assert study.trials[:8] == expected


def test_the_first_trial_is_the_one_that_was_asked_for_and_the_rest_find_the_top(tmp_path):
    first = {"x": 0.9, "n": 1, "kind": "c", "rate": 0.1}
    run, trials = finished(tmp_path, 24, pruning="none", first=first)
    assert trials[0].parameters == first
    best = max((one for one in trials if one.state == "complete"), key=lambda one: one.value)
    assert best.parameters["kind"] == "b"
    assert abs(best.parameters["x"] - 0.3) < 0.2
    with opened(run, pruning="none", first=first) as study:
        shares = study.importances()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert list(shares) == sorted(shares, key=shares.get, reverse=True)
    assert min(shares["x"], shares["kind"]) > shares["rate"]  # which has no effect
    _, others = finished(tmp_path, 2, name="other", seed=SEED + 1)
    assert others[1].parameters != trials[1].parameters


@pytest.mark.parametrize("left", [0, 1, 4096, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_told_and_its_copy_goes_on(whole, damaged, left):
    content = whole[2][: int(left * len(whole[2])) if isinstance(left, float) else left]
    run, trials, notes = damaged(content)
    assert trials == whole[1]
    assert len(notes) == 1
    assert "the study is damaged" in notes[0]
    assert "going on with its copy, which holds 8 trials" in notes[0]
    assert (run.folder / "study-damaged-1.sqlite").read_bytes() == content
    with opened(run) as study:  # once mended, nothing is told any more
        assert study.notes == []


def test_flipped_bits_are_told_or_change_nothing(whole, damaged):
    content, draw = whole[2], random.Random(5)
    used = [i for i, byte in enumerate(content) if byte]
    told = 0
    for _ in range(16):
        place = draw.choice(used)
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.randrange(8)
        _, trials, notes = damaged(bytes(flipped))
        assert trials == whole[1], place
        told += bool(notes)
    assert told >= 4


STATEMENTS = (
    "UPDATE trial_values SET value = 9.0 WHERE trial_id = 3",
    "UPDATE trial_params SET param_value = 0.125 WHERE trial_id = 2 AND param_name = 'x'",
    "UPDATE trial_intermediate_values SET intermediate_value = 2.0 WHERE trial_id = 4 AND step = 1",
    "UPDATE trials SET state = 'PRUNED' WHERE number = 1",
    "UPDATE trials SET state = 'RUNNING' WHERE number = 1",
    "DELETE FROM trials WHERE number = 5",
    "UPDATE study_directions SET direction = 'MINIMIZE'",
    "UPDATE studies SET study_name = 'tunung'",
    "UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = 2",
    "DROP TABLE trial_values",
)


def altered(content, statement, folder):
    path = folder / "altered.sqlite"
    path.write_bytes(content)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_sqlite_cannot_notice_is_told(whole, damaged, tmp_path, statement):
    _, trials, notes = damaged(altered(whole[2], statement, tmp_path))
    assert trials == whole[1]
    assert "the study is damaged" in notes[0]


def test_without_seals_an_altered_value_would_be_believed(whole, damaged, tmp_path, monkeypatch):
    # The control of the test above.
    monkeypatch.setattr(StoredStudy, "_intact", lambda self, frozen: (
        [studies._over(one, one.state.name.lower()) for one in frozen], 0
    ))  # fmt: skip
    _, trials, notes = damaged(altered(whole[2], STATEMENTS[0], tmp_path))
    assert notes == []
    assert 9.0 in [one.value for one in trials]


def test_a_missing_file_is_replaced_and_a_missing_copy_made_anew(whole, damaged):
    run, trials, notes = damaged(None)
    assert trials == whole[1]
    assert "it is missing" in notes[0]
    (run.folder / COPY).write_bytes(b"torn")
    with opened(run) as study:
        assert study.notes == []
    assert (run.folder / COPY).stat().st_size > 10_000


def test_a_torn_rollback_journal_loses_no_trial(whole, damaged, tmp_path):
    # As a kill leaves it: pages of an unfinished transaction in the file, their old content in the journal.
    path = tmp_path / "torn.sqlite"
    path.write_bytes(whole[2])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("UPDATE trial_user_attributes SET value_json = value_json || ' '")
    connection.execute("UPDATE trial_params SET param_value = param_value + 1")
    torn, journal = path.read_bytes(), path.with_name("torn.sqlite-journal").read_bytes()
    connection.close()
    assert torn != whole[2]  # or nothing would be tested
    for share in (1.0, 0.6, 0.0):
        run = Run.open(tmp_path, "tune", f"torn{int(10 * share)}")
        (run.folder / FILE).write_bytes(torn)
        (run.folder / COPY).write_bytes(whole[2])
        (run.folder / f"{FILE}-journal").write_bytes(journal[: int(share * len(journal))])
        with opened(run) as study:
            assert study.trials == whole[1], share
            if share == 1.0:
                assert study.notes == []  # a whole journal is played back


def test_where_the_copy_is_damaged_too_a_sentence_says_so(damaged):
    with pytest.raises(
        ConfigError, match=r"the study is damaged \(.*\), and so is its copy .*start the run anew"
    ):
        damaged(b"x" * 5000, b"")


def test_what_the_database_refuses_is_a_sentence(tmp_path):
    run = Run.open(tmp_path, "tune", "refused")
    with opened(run) as study:
        asked = study.ask()
        other = sqlite3.connect(run.folder / FILE, isolation_level=None)
        other.execute("DROP TABLE trial_intermediate_values")
        other.close()
        with pytest.raises(ConfigError, match=r"the study cannot be used \(no such table.* resume the run"):
            asked.report(1.0)


def test_without_optuna_a_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    run = Run.open(tmp_path, "tune", "none")
    with pytest.raises(ConfigError, match=r"tuning needs Optuna .*regime-conductor\[studies\]"):
        opened(run)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"low": 3, "high": 2}, "low must not be above high"),
        ({"low": 3}, "low must not be above high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "begins above 0"),
        ({"low": 1, "high": 9, "step": 3}, "no whole number of steps"),
        ({"low": 1, "high": 9, "step": 0.5}, "whole between whole ends"),
        ([], "one or more different values"),
        (["a", "a"], "one or more different values"),
        ({"choices": [1], "low": 0}, "neither ends nor a step"),
        ({"low": True, "high": 2}, "must be a number"),
        ({"lo": 1, "high": 2}, "is not a setting"),
    ],
)
def test_an_impossible_range_is_a_sentence(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        validate(Range, given, "search.x") if isinstance(given, dict) else validate_list(given)


def validate_list(given):
    from configs.load import Config

    class Holder(Config):
        one: Range

    validate(Holder, {"one": given}, "search")


@given(
    st.sampled_from([*SPACE.values(), Range(low=32, high=64, step=8), Range(low=0.0, high=0.3, step=0.1)]),
    st.one_of(st.integers(-100, 100), st.floats(-100, 100), st.none(), st.sampled_from("abcd")),
)
@settings(max_examples=60, deadline=None)
def test_the_nearest_value_of_a_range_lies_in_it_and_no_end_is_nearer(one, value):
    from experiments.studies import _distribution, require_optuna

    found = one.nearest(value)
    distribution = _distribution(require_optuna(), one)
    assert distribution._contains(distribution.to_internal_repr(found))
    assert one.whole == (type(found) is int)
    if isinstance(value, int | float) and one.choices is None:
        assert all(abs(found - value) <= abs(end - value) + 1e-9 for end in one.ends())


def test_whole_ends_make_whole_numbers_and_a_range_reads_as_people_write_it(tmp_path):
    _, trials = finished(tmp_path, 3)
    assert all(type(one.parameters["n"]) is int for one in trials)
    texts = [one.text() for one in (*SPACE.values(), Range(low=32, high=64, step=8))]
    assert texts == ["0.0 to 1.0", "1 to 9", "a, b, c", "0.001 to 1.0 (log)", "32 to 64 by 8"]
    for one, dumped in product(SPACE.values(), [True]):
        assert Range(**one.model_dump(mode="json")) == one, dumped

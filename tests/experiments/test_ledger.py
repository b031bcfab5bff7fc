import math
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError
from experiments import ledger as ledger_module
from experiments.evidence import TrackRecord, deflated_sharpe
from experiments.ledger import Batch, Ledger, Openings

BTC = "ab" * 32
ETH = "cd" * 32
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


# --- counting -----------------------------------------------------------------------------------------


def test_an_empty_ledger_has_counted_nothing(ledger):
    summary = ledger.summary(BTC)
    assert (summary.n_evaluated, summary.n_unique, summary.n_effective, summary.n_runs) == (0, 0, 0.0, 0)
    assert math.isnan(summary.sharpe_mean)
    assert math.isnan(summary.sharpe_variance)


def test_two_generations_by_hand(ledger):
    ledger.record(BTC, "evolve-a", [0.1, 0.3, math.nan], n_evaluated=4, n_unique=3)
    ledger.record(BTC, "evolve-a", [0.2], n_evaluated=2, n_unique=1)
    summary = ledger.summary(BTC)
    assert (summary.n_evaluated, summary.n_unique, summary.n_defined, summary.n_runs) == (6, 4, 3, 1)
    assert summary.sharpe_mean == pytest.approx(0.2)
    assert summary.sharpe_variance == pytest.approx(0.01)
    assert ledger.summary(ETH).n_evaluated == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]), st.lists(st.floats(-2, 2) | st.just(math.nan), max_size=8)
        ),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_merged_sums_equal_all_trials_at_once(tmp_path_factory, batches):
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.sqlite")
    for run, trials in batches:
        ledger.record(BTC, run, trials, len(trials), len(trials))
    summary = Ledger(ledger.path).summary(BTC)  # another process, later
    everything = np.array([trial for _, trials in batches for trial in trials])
    defined = everything[~np.isnan(everything)] if everything.size else everything
    assert summary.n_evaluated == summary.n_unique == everything.size
    assert summary.n_defined == defined.size
    assert summary.n_runs == len({run for run, _ in batches})
    if defined.size > 1:
        assert summary.sharpe_mean == pytest.approx(defined.mean(), abs=1e-12)
        assert summary.sharpe_variance == pytest.approx(defined.var(ddof=1), rel=1e-9, abs=1e-14)


def test_the_sums_keep_small_spreads_beside_large_means(ledger):
    trials = 1e6 + np.random.default_rng(0).normal(size=300)  # a sum of squares would lose them
    for part in np.array_split(trials, 7):
        ledger.record(BTC, "run", part, part.size, part.size)
    assert ledger.summary(BTC).sharpe_variance == pytest.approx(trials.var(ddof=1), rel=1e-9)


def test_the_answer_does_not_depend_on_who_wrote_first(tmp_path):
    trials = {run: np.random.default_rng(k).normal(size=(5, 20)) for k, run in enumerate("abc")}
    found = []
    for order in ("abc", "cab"):
        ledger = Ledger(tmp_path / f"{order}.sqlite")
        for run in order:
            for batch in trials[run]:
                ledger.record(BTC, run, batch, 20, 20)
        found.append(ledger.summary(BTC))
    assert found[0] == found[1]


def test_a_resumed_run_that_repeats_a_generation_is_counted_once(ledger):
    trials = np.array([0.1, 0.2, math.nan])
    for _ in range(2):
        ledger.record(BTC, "run", trials, 5, 3, batch=7)
    assert ledger.summary(BTC).n_evaluated == 5


def test_a_different_result_under_the_same_number_cannot_hide(ledger):
    # The negative control of counting once: replacing a batch would let a search forget its trials.
    ledger.record(BTC, "run", [0.1, 0.2], 2, 2, batch=0)
    ledger.record(BTC, "run", [0.1, 0.3], 2, 2, batch=0)
    ledger.record(BTC, "run", [0.1, 0.2], 3, 2, batch=0)
    ledger.record(BTC, "run", [0.1, 0.2], 2, 2, batch=1)
    ledger.record(BTC, "other", [0.1, 0.2], 2, 2, batch=0)
    assert ledger.summary(BTC).n_evaluated == 11


def test_batches_of_one_run_are_written_together_or_not_at_all(ledger):
    good = [Batch(np.array([0.1, 0.2]), 3, 2, number) for number in range(3)]
    ledger.record_all(BTC, "run", good)
    assert (ledger.summary(BTC).n_evaluated, ledger.summary(BTC).n_unique) == (9, 6)
    ledger.record_all(BTC, "run", good)  # a resumed run repeats them
    assert ledger.summary(BTC).n_evaluated == 9

    def broken():
        yield Batch(np.array([0.3]), 1, 1, 3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.record_all(BTC, "run", broken())
    assert ledger.summary(BTC).n_evaluated == 9
    ledger.record_all(BTC, "run", [])
    assert ledger.summary(BTC).n_runs == 1


def test_a_search_that_is_repeated_to_the_last_bit_tries_nothing_new(ledger):
    random = np.random.default_rng(11)
    generations = [random.normal(0, 0.03, 40) for _ in range(3)]
    for run in ("first", "again"):
        for number, trials in enumerate(generations):
            ledger.record(BTC, run, trials, 50, 40, batch=number)
    once = Ledger(ledger.path).summary(BTC)
    assert (once.n_unique, once.n_defined, once.n_runs, once.n_evaluated) == (120, 120, 2, 300)
    assert once.sharpe_variance == pytest.approx(np.concatenate(generations).var(ddof=1))
    # A longer search from the same seed adds what it tried beyond; the negative controls: another order,
    # one other trial, a batch too small to be recognized.
    ledger.record(BTC, "longer", random.normal(0, 0.03, 40), 50, 40, batch=3)
    assert ledger.summary(BTC).n_unique == 160
    ledger.record(BTC, "moved", generations[0], 50, 40, batch=1)
    assert ledger.summary(BTC).n_unique == 200
    ledger.record(BTC, "other", np.append(generations[0][1:], 0.01), 50, 40, batch=0)
    assert ledger.summary(BTC).n_unique == 240
    for run in ("small", "small-2"):
        ledger.record(BTC, run, generations[0][:15], 15, 15, batch=0)
    assert ledger.summary(BTC).n_unique == 270
    for run in ("idle", "idle-2"):
        ledger.record(BTC, run, np.zeros(40), 40, 40, batch=0)  # nobody traded: nothing to know it by
    assert ledger.summary(BTC).n_unique == 350


def test_calls_without_a_batch_number_always_count(ledger):
    for _ in range(3):
        ledger.record(BTC, "run", [0.1], 1, 1)
    assert ledger.summary(BTC).n_evaluated == 3


def test_effective_trials_are_added_over_runs_and_never_exceed_the_unique(ledger):
    ledger.record(BTC, "a", np.zeros(100), 100, 80)
    ledger.record(BTC, "b", np.zeros(50), 50, 50)
    assert ledger.summary(BTC).n_effective == 130  # no estimate: nothing is taken off
    ledger.record_effective(BTC, "a", 12.5)
    ledger.record_effective(BTC, "a", 20.0)
    assert ledger.summary(BTC).n_effective == 70
    ledger.record_effective(BTC, "b", 999.0)
    assert ledger.summary(BTC).n_effective == 70


def test_the_ledger_feeds_deflation(ledger):
    trials = np.random.default_rng(3).normal(0, 0.03, 400)
    ledger.record(BTC, "run", trials, 400, 400)
    summary = ledger.summary(BTC)
    chosen = TrackRecord(float(trials.max()), 1000)
    assert deflated_sharpe(chosen, summary.n_unique, summary.sharpe_variance) < 0.95
    assert deflated_sharpe(chosen, 1, summary.sharpe_variance) > 0.99  # a typed 1 would have passed


def test_a_second_look_at_a_test_span_is_recorded(ledger):
    assert ledger.record_opening(BTC, "a", 100, 200, "first") == Openings(0, 0)
    assert ledger.record_opening(BTC, "a", 201, 300, "first") == Openings(0, 0)
    assert ledger.record_opening(BTC, "b", 200, 205, "second") == Openings(2, 1)
    assert ledger.record_opening(ETH, "b", 100, 200, "second") == Openings(0, 0)
    # Judging the first again is a look, but no further subject to choose from.
    assert ledger.record_opening(BTC, "c", 100, 200, "first") == Openings(2, 1)
    assert ledger.record_opening(BTC, "d", 100, 200, "third") == Openings(3, 2)
    with pytest.raises(ValueError, match="before its start"):
        ledger.record_opening(BTC, "a", 2, 1, "first")


def test_a_run_that_is_resumed_after_its_look_does_not_look_twice(ledger):
    assert ledger.record_opening(BTC, "a", 100, 200, "first") == Openings(0, 0)
    assert ledger.record_opening(BTC, "a", 100, 200, "first") == Openings(0, 0)
    assert ledger.record_opening(BTC, "b", 100, 200, "first") == Openings(1, 0)
    assert ledger.record_opening(BTC, "a", 100, 200, "first") == Openings(1, 0)
    # Anything else the run looks at, or another span, is a look of its own.
    assert ledger.record_opening(BTC, "a", 100, 200, "other") == Openings(2, 1)
    assert ledger.record_opening(BTC, "a", 100, 201, "first") == Openings(3, 1)


@pytest.mark.parametrize(
    ("trials", "n_evaluated", "n_unique"),
    [([0.1, 0.2], 1, 1), ([0.1], 1, 2), ([0.1], 1, -1), ([math.inf], 1, 1), ([[0.1]], 1, 1)],
)
def test_impossible_counts_are_refused(ledger, trials, n_evaluated, n_unique):
    with pytest.raises(ValueError, match="trial"):
        ledger.record(BTC, "run", trials, n_evaluated, n_unique)
    assert ledger.summary(BTC).n_runs == 0


def test_names_are_checked(ledger):
    with pytest.raises(ConfigError, match="is not a name"):
        ledger.record(BTC, "../run", [0.1], 1, 1)
    with pytest.raises(ValueError, match="fingerprint is ''"):
        ledger.summary("")


def test_negative_zero_comes_back_whole(ledger):
    ledger.record(BTC, "run", [-0.0, -0.0], 2, 2)  # SQLite stores it as 0.0; the seal must still fit
    ledger.record_effective(BTC, "run", -0.0)
    assert Ledger(ledger.path).summary(BTC).sharpe_variance == 0.0


# --- two processes --------------------------------------------------------------------------------------

WRITER = """
import sys
from experiments.ledger import Ledger
ledger = Ledger(sys.argv[1])
for batch in range(int(sys.argv[3])):
    ledger.record("ab" * 32, sys.argv[2], [0.1, 0.2, 0.4], 3, 3)
    print(batch, flush=True)
"""


def writer(path, run, batches):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), run, str(batches)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_start_together_lose_nothing(tmp_path):
    path = tmp_path / "new" / "ledger.sqlite"  # neither folder nor file exists
    children = [writer(path, f"run-{k % 2}", 40) for k in range(3)]  # two of them share a run
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0, 0, 0]
    summary = Ledger(path).summary(BTC)
    assert (summary.n_evaluated, summary.n_defined, summary.n_runs) == (360, 360, 2)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["ledger.sqlite"]


def test_a_killed_writer_loses_at_most_the_batch_in_flight(tmp_path):
    path = tmp_path / "ledger.sqlite"
    confirmed = 0
    for attempt in range(3):
        with writer(path, "run", 100_000) as child:
            for line in child.stdout:
                if int(line) == 5 + 7 * attempt:
                    child.send_signal(signal.SIGKILL)
                    break
            confirmed += 6 + 7 * attempt + sum(1 for _ in child.stdout)
        batches = Ledger(path).summary(BTC).n_evaluated / 3
        assert confirmed <= batches <= confirmed + attempt + 1


def test_threads_share_a_ledger(ledger):
    def work(name):
        for _ in range(10):
            ledger.record(BTC, name, [0.5], 1, 1)

    threads = [threading.Thread(target=work, args=(f"run-{k}",)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.summary(BTC).n_evaluated == 30


# --- a damaged or unusable file ---------------------------------------------------------------------------


def test_a_locked_ledger_is_one_sentence(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", timeout_s=0.1)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfigError, match=r"stayed locked by another process for 0\.1 s") as caught:
        ledger.record(BTC, "run", [0.1], 1, 1)
    one_sentence(caught)
    assert ledger.summary(BTC).n_evaluated == 0  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    ledger.record(BTC, "run", [0.1], 1, 1)


@pytest.mark.parametrize(
    "content", [b"", b"not a database at all, but long enough to be looked at" * 40, b"SQLite format 3\x00"]
)
def test_a_file_that_is_no_ledger_is_one_sentence(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)) as caught:
        Ledger(path)
    assert "restore it from a copy" in one_sentence(caught)
    assert path.read_bytes() == content  # nothing was overwritten


def test_another_database_is_refused(tmp_path):
    path = tmp_path / "models.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trials (x)")
    connection.close()
    with pytest.raises(ConfigError, match="is not a trial ledger"):
        Ledger(path)


def test_a_ledger_of_another_version_is_refused(ledger):
    connection = sqlite3.connect(ledger.path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(ConfigError, match="of version 9; this code reads version 1"):
        Ledger(ledger.path)


def test_unusable_places_are_one_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ConfigError, match="cannot be made"):
        Ledger(file / "ledger.sqlite")
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger(tmp_path)  # a folder


def test_a_ledger_deleted_on_the_way_is_not_begun_anew(ledger):
    ledger.record(BTC, "run", [0.1], 1, 1)
    ledger.path.unlink()
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        ledger.record(BTC, "run", [0.1], 1, 1)
    one_sentence(caught)
    assert not ledger.path.exists()


def test_an_entry_that_was_edited_is_caught(ledger):
    ledger.record(BTC, "run", [0.1, 0.2], 500, 500)
    connection = sqlite3.connect(ledger.path)
    connection.execute("UPDATE trials SET n_unique = 2")  # fewer trials would make a better verdict
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="does not match its seal"):
        ledger.summary(BTC)
    with pytest.raises(ConfigError, match="does not match its seal"):
        Ledger(ledger.path)


def filled(folder):
    ledger = Ledger(folder / "good.sqlite")
    for run in ("evolve-a", "evolve-b"):
        for batch in range(12):
            ledger.record(BTC, run, np.linspace(-0.1, 0.1, 5) + batch, 9, 7)
        ledger.record_effective(BTC, run, 20.0)
    return ledger


def test_flipped_bits_and_truncations_are_never_a_silent_number(tmp_path):
    good = filled(tmp_path)
    expected, content = good.summary(BTC), good.path.read_bytes()
    dice, refused, path = random.Random(1), 0, tmp_path / "bad.sqlite"
    used = [place for place in range(len(content)) if content[place]]  # empty space cannot be damaged much
    for trial in range(150):
        bad = bytearray(content)
        if trial % 5 == 0:
            del bad[dice.randrange(1, len(bad)) :]
        else:
            bad[dice.choice(used)] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        try:
            found = Ledger(path).summary(BTC)
        except ConfigError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, silence is not
        else:
            assert found == expected
        for rest in ("-wal", "-shm"):
            path.with_name(path.name + rest).unlink(missing_ok=True)
    assert refused > 75


def test_without_seals_a_flipped_bit_would_be_believed(tmp_path, monkeypatch):
    # The negative control of the test above.
    good = filled(tmp_path)
    expected = good.summary(BTC)
    content = good.path.read_bytes()
    monkeypatch.setattr(ledger_module.Ledger, "_intact", lambda self, rows: [row[:-1] for row in rows])
    believed, dice, path = 0, random.Random(2), tmp_path / "bad.sqlite"
    used = [place for place in range(len(content)) if content[place]]
    for _ in range(60):
        bad = bytearray(content)
        bad[dice.choice(used)] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        try:
            believed += Ledger(path).summary(BTC) != expected
        except ConfigError:
            continue
    assert believed > 0


def test_a_ledger_survives_a_fork(tmp_path):
    path = tmp_path / "ledger.sqlite"
    script = """
import os, sys
from experiments.ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.record("ab" * 32, "parent", [0.1], 1, 1)
child = os.fork()
ledger.record("ab" * 32, "parent" if child else "child", [0.2], 1, 1)
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    summary = Ledger(path).summary(BTC)
    assert (summary.n_evaluated, summary.n_runs) == (3, 2)


def test_a_full_disk_is_one_sentence_and_counts_nothing(tmp_path):
    # A limit on the size of files stands in for a full disk.
    path = tmp_path / "ledger.sqlite"
    script = """
import resource, sys
from configs.load import ConfigError
from experiments.ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.record("ab" * 32, "run", [0.1], 1, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    ledger.record("ab" * 32, "run", [0.1], 1, 1)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{path}: the trial ledger cannot be used (")
    assert done.stdout.count("\n") == 1
    assert Ledger(path).summary(BTC).n_evaluated == 1


def test_a_copy_of_the_file_is_a_backup(ledger, tmp_path):
    ledger.record(BTC, "run", [0.1, 0.2], 2, 2)
    shutil.copy(ledger.path, tmp_path / "copy.sqlite")  # nothing is left behind in a write-ahead log
    assert Ledger(tmp_path / "copy.sqlite").summary(BTC) == ledger.summary(BTC)

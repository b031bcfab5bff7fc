"""F1 to F4 for the folder of checkpoints alone; tests/jobs/test_kill.py holds the whole command to them."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks import damage
from benchmarks.damage import DETECTED, SILENT, same, state_of, trials
from configs.load import ConfigError
from ga import checkpoint, snapshot
from ga.checkpoint import Change, Checkpoints
from tests.processes import server

IDENTITY = {"config": "c" * 64, "data": "d" * 64, "code": "e" * 64}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the generations 5, 6 and 7."""
    with Checkpoints(tmp_path / "state", IDENTITY) as checkpoints:
        for generation in (5, 6, 7):
            checkpoints.save(generation, state_of(generation))
    return tmp_path / "state"


def named(generation):
    return f"generation-{generation:06d}.ckpt"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def load(folder, identity=IDENTITY, force=()):
    with Checkpoints(folder, identity) as checkpoints:
        return checkpoints.load(force)


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert "Errno" not in text
    return text


# --- saving and loading ---------------------------------------------------------------------------------


def test_the_newest_generation_comes_back_without_a_word(folder):
    found = load(folder)
    assert (found.generation, found.notes) == (7, ())
    assert same(found.state, state_of(7))


def test_the_last_three_are_kept_and_nothing_else(tmp_path):
    with Checkpoints(tmp_path / "state", IDENTITY) as checkpoints:
        for generation in range(12):
            path = checkpoints.save(generation, {"x": generation})
            assert path == checkpoints.folder / named(generation)
            assert checkpoints.generations() == list(range(max(0, generation - 2), generation + 1))
    assert list(contents(tmp_path / "state")) == [named(9), named(10), named(11)]
    with Checkpoints(tmp_path / "state", IDENTITY, keep=1) as checkpoints:
        checkpoints.save(12, {"x": 12})
        assert checkpoints.generations() == [12]


def test_the_same_state_makes_the_same_file(tmp_path, folder):
    with Checkpoints(tmp_path / "other", IDENTITY) as checkpoints:
        checkpoints.save(7, state_of(7))
    assert (tmp_path / "other" / named(7)).read_bytes() == (folder / named(7)).read_bytes()


def test_content_reaches_the_disk_before_the_name_does(folder, monkeypatch):
    steps = []

    class Watched:
        def __getattr__(self, name):
            function = getattr(os, name)
            if name not in ("fsync", "replace", "unlink"):
                return function

            def call(*arguments, **options):
                if name == "fsync":
                    is_folder = os.path.isdir(f"/proc/self/fd/{arguments[0]}")
                    steps.append("flush folder" if is_folder else "flush file")
                elif not str(arguments[0]).startswith(".draft") or name == "replace":
                    steps.append(name)
                return function(*arguments, **options)

            return call

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell a file from a folder by its descriptor")
    with Checkpoints(folder, IDENTITY) as checkpoints:
        monkeypatch.setattr(checkpoint, "os", Watched())
        checkpoints.save(8, state_of(8))
        monkeypatch.undo()
    assert steps == ["flush file", "replace", "flush folder", "unlink"]


def test_drafts_of_a_killed_process_are_removed_and_never_read(folder):
    (folder / f".draft-{named(8)}").write_bytes((folder / named(7)).read_bytes()[:900])
    (folder / "notes.txt").write_text("somebody else's")
    assert load(folder).generation == 7
    assert list(contents(folder)) == [named(5), named(6), named(7), "notes.txt"]


def test_a_folder_serves_one_process_at_a_time(folder):
    with Checkpoints(folder, IDENTITY) as first:
        with pytest.raises(ConfigError, match="another process works on this run") as caught:
            Checkpoints(folder, IDENTITY)
        one_sentence(caught)
        first.save(8, state_of(8))
    assert load(folder).generation == 8


def test_a_folder_whose_file_system_has_no_locks_is_used_without(folder, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(checkpoint.fcntl, "flock", unsupported)
    assert load(folder).generation == 7


def test_wrong_use_is_an_error_of_the_program(tmp_path, folder):
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path / "x", IDENTITY, keep=0)
    with pytest.raises(TypeError, match="must map texts to texts"):
        Checkpoints(tmp_path / "x", {"config": 7})
    before = contents(folder)
    with Checkpoints(folder, IDENTITY) as checkpoints:
        with pytest.raises(ValueError, match="generation is -1"):
            checkpoints.save(-1, {})
        with pytest.raises(TypeError, match=r"state\.x is a set"):
            checkpoints.save(8, {"x": {1}})
    assert contents(folder) == before


# --- damaged files (F3) -----------------------------------------------------------------------------------

SAMPLE = {"flips": 60, "cuts": 30, "empty": 6, "swapped": 18, "older": 6}


def test_every_damaged_checkpoint_is_noticed_and_the_one_before_it_is_used():
    outcomes = trials(SAMPLE, seed=11)
    assert len(outcomes) == 120
    assert [one for one in outcomes if one.verdict != DETECTED] == []
    assert all(one.reason.endswith("; passed over") for one in outcomes)


@pytest.mark.parametrize(
    ("module", "name", "broken", "kind"),
    [
        (snapshot, "_is_whole", lambda content: True, "flips"),
        (checkpoint, "_changes", lambda *_: [], "swapped"),
        (snapshot, "FORMAT", 257, "older"),
    ],
)
def test_without_its_check_each_kind_of_damage_would_be_loaded(module, name, broken, kind, monkeypatch):
    # Negative controls: the test above fails if a check is missing.
    if name == "FORMAT":  # a reader that takes the other format for its own
        real = snapshot._PREAMBLE

        class Careless:
            size, pack = real.size, real.pack

            def unpack_from(self, content):
                magic, _, *rest = real.unpack_from(content)
                return (magic, snapshot.FORMAT, *rest)

        monkeypatch.setattr(snapshot, "_PREAMBLE", Careless())
    else:
        monkeypatch.setattr(module, name, broken)
    verdicts = {one.verdict for one in trials({kind: 30}, seed=11)}
    assert SILENT in verdicts


def test_a_file_under_the_name_of_another_generation_is_noticed_by_its_number(folder, monkeypatch):
    shutil.copy(folder / named(5), folder / named(7))
    found = load(folder)
    assert found.generation == 6
    assert found.notes == (
        f"{named(7)}: holds generation 5; passed over",
        "falling back to the checkpoint of generation 6",
    )
    real = checkpoint._checked_head
    monkeypatch.setattr(
        checkpoint,
        "_checked_head",
        lambda head, generation: real(head | {"generation": generation}, generation),
    )
    assert same(load(folder).state, state_of(5))  # what would happen without


def test_where_no_checkpoint_is_intact_each_reason_is_named(folder):
    (folder / named(5)).write_bytes(b"")
    (folder / named(6)).write_bytes((folder / named(6)).read_bytes()[:-7])
    content = bytearray((folder / named(7)).read_bytes())
    content[400] ^= 8
    (folder / named(7)).write_bytes(content)
    with pytest.raises(ConfigError, match="no checkpoint is intact") as caught:
        load(folder)
    text = one_sentence(caught)
    for reason in (f"{named(5)}: is empty", f"{named(6)}: has ", f"{named(7)}: does not match its checksum"):
        assert reason in text


def test_a_folder_without_checkpoints_says_so(tmp_path):
    with pytest.raises(ConfigError, match="there is no checkpoint to resume from") as caught:
        load(tmp_path / "state")
    one_sentence(caught)


def test_what_a_process_killed_while_clearing_left_behind_goes_when_the_run_goes_on(folder, monkeypatch):
    monkeypatch.setattr(Checkpoints, "_remove", lambda self, generations: None)  # killed before it
    with Checkpoints(folder, IDENTITY) as checkpoints:
        checkpoints.save(8, state_of(8))
    assert sorted(contents(folder)) == [named(one) for one in (5, 6, 7, 8)]
    monkeypatch.undo()
    assert load(folder).generation == 8
    assert sorted(contents(folder)) == [named(one) for one in (6, 7, 8)]


def test_what_lies_behind_a_damaged_checkpoint_stays_until_the_run_has_passed_it(folder):
    (folder / named(7)).write_bytes(b"")
    assert load(folder).generation == 6
    assert sorted(contents(folder)) == [named(one) for one in (5, 6, 7)]


def test_what_is_damaged_goes_when_the_run_has_passed_it(folder):
    # Two damaged ones are newer than what the search goes on from; they must not push it out.
    for generation in (6, 7):
        (folder / named(generation)).write_bytes(b"x")
    with Checkpoints(folder, IDENTITY) as checkpoints:
        assert checkpoints.load().generation == 5
        checkpoints.save(6, state_of(6))
        assert checkpoints.generations() == [5, 6]
    assert load(folder)[::2] == (6, ())


@pytest.mark.parametrize("what", ["pipe", "folder", "link", "too large", "unreadable", "shrinking"])
def test_what_stands_in_the_place_of_a_checkpoint_is_never_followed(what, folder, tmp_path, monkeypatch):
    path = folder / named(8)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "link":
        shutil.copy(folder / named(7), tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "too large":
        with path.open("wb") as file:
            file.truncate(2**40)  # takes no room on the disk, and must take none in memory
    else:
        shutil.copy(folder / named(7), path)
        real = os.readv
        first = [True]

        def readv(descriptor, buffers):
            if first.pop() if first else False:
                if what == "shrinking":
                    return 0
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(descriptor, buffers)

        monkeypatch.setattr(checkpoint.os, "readv", readv)
    found = load(folder)
    assert found.generation == 7
    assert found.notes[0].startswith(f"{named(8)}: ")


# --- identity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["config", "data", "code"])
def test_another_identity_is_refused_unless_told(folder, key):
    other = IDENTITY | {key: "f" * 64}
    with pytest.raises(ConfigError, match="cannot go on bit for bit") as caught:
        load(folder, other)
    text = one_sentence(caught)
    assert f"{key} was {IDENTITY[key][:12]} and is {'f' * 12}" in text
    assert "--resume-changed" in text
    rest = [name for name in IDENTITY if name != key]
    with pytest.raises(ConfigError, match="cannot go on bit for bit"):
        load(folder, other, force=rest)
    found = load(folder, other, force=[key])
    assert found.generation == 7
    assert found.notes == (
        f"the run was changed when it went on from generation 7: {key} was {IDENTITY[key][:12]} and is "
        f"{'f' * 12}",
    )


def test_a_key_that_comes_or_goes_is_a_change(folder):
    with pytest.raises(ConfigError, match="numpy was none and is 2"):
        load(folder, IDENTITY | {"numpy": "2"})
    with pytest.raises(ConfigError, match="code was eeeeeeeeeeee and is none"):
        load(folder, {"config": IDENTITY["config"], "data": IDENTITY["data"]})


def test_a_run_that_was_changed_stays_marked_as_changed(folder):
    second, third = IDENTITY | {"code": "2"}, IDENTITY | {"code": "3"}
    with Checkpoints(folder, second) as checkpoints:
        checkpoints.load(force=["code"])
        checkpoints.save(8, {"x": 8})
    with Checkpoints(folder, third) as checkpoints:
        checkpoints.load(force=["code"])
        checkpoints.save(9, {"x": 9})
    with Checkpoints(folder, third) as checkpoints:
        found = checkpoints.load()
        assert checkpoints.changes == (Change(7, "code", "e" * 64, "2"), Change(8, "code", "2", "3"))
    assert len(found.notes) == 2
    assert found.notes[1] == "the run was changed when it went on from generation 8: code was 2 and is 3"


def test_what_a_file_says_of_itself_cannot_write_on_the_terminal(folder):
    with Checkpoints(folder, IDENTITY | {"config": "\x1b[31m\n\u202e"}) as checkpoints:
        checkpoints.load(force=["config"])
        checkpoints.save(8, {})
        checkpoints.save(9, {})
        checkpoints.save(10, {})
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert one_sentence(caught).isprintable()


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"generation": 8, "identity": [], "changes": []},
        {"generation": 8, "identity": IDENTITY, "changes": [1]},
        {"generation": 8, "identity": IDENTITY, "changes": [[1, 2, 3, 4]]},
        {"generation": 8, "identity": IDENTITY, "changes": [["8", "a", "b", "c"]]},
        {"generation": 8, "identity": {"config": 7}, "changes": []},
        {"generation": "8" * 999, "identity": IDENTITY, "changes": []},
    ],
)
def test_a_whole_file_with_a_wrong_head_is_passed_over(folder, head):
    (folder / named(8)).write_bytes(b"".join(snapshot.pack(head, {"x": 1})))
    found = load(folder)
    assert found.generation == 7
    assert len(found.notes[0]) < 120


# --- when the disk refuses (F4) ------------------------------------------------------------------------


class Faulty:
    """``os``, whose call number ``at`` of those that touch the disk fails."""

    CALLS = ("close", "fsync", "listdir", "open", "readv", "replace", "unlink", "write")

    def __init__(self, at, code, called=None):
        self.left, self.code, self.called = at, code, called

    def __getattr__(self, name):
        function = getattr(os, name)
        if name not in self.CALLS:
            return function

        def call(*arguments, **options):
            self.left -= 1
            if self.left == -1:
                self.called = name
                if name == "close":
                    function(*arguments, **options)
                raise OSError(self.code, os.strerror(self.code))
            return function(*arguments, **options)

        return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_wherever_saving_fails_the_earlier_checkpoints_are_whole(folder, code, monkeypatch):
    before = contents(folder)
    failed = []
    for at in range(100):
        with Checkpoints(folder, IDENTITY) as checkpoints:
            faulty = Faulty(at, code)
            monkeypatch.setattr(checkpoint, "os", faulty)
            sentences = []
            try:
                checkpoints.save(8, state_of(8))
            except ConfigError as error:
                sentences.append(str(error))
            monkeypatch.undo()
        if faulty.called is None:
            break
        failed.append(faulty.called)
        assert [os.strerror(code).lower() in text and "\n" not in text for text in sentences] == [True]
        after = contents(folder)
        assert not [name for name in after if name.startswith(".")]
        assert before.items() <= after.items()
        found = load(folder)
        assert found.generation == (8 if named(8) in after else 7)
        assert same(found.state, state_of(found.generation))
        (folder / named(8)).unlink(missing_ok=True)
        (folder / named(5)).write_bytes(before[named(5)])  # loading has finished the clearing
    assert {"open", "write", "fsync", "close", "replace", "listdir", "unlink"} <= set(failed)
    assert len(failed) > 12


def test_a_writer_that_forgets_the_draft_would_be_noticed(folder, monkeypatch):
    # Negative control: the test above fails for a checkpoint that is written in place.
    before = contents(folder)
    with Checkpoints(folder, IDENTITY) as checkpoints:
        monkeypatch.setattr(checkpoint, "_DRAFT", "")
        faulty = Faulty(4, errno.ENOSPC)
        monkeypatch.setattr(checkpoint, "os", faulty)
        with pytest.raises(ConfigError):
            checkpoints.save(7, state_of(8))
    monkeypatch.undo()
    assert not before.items() <= contents(folder).items()


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_of_them(folder, monkeypatch):
    real = os.write
    monkeypatch.setattr(checkpoint.os, "write", lambda descriptor, part: real(descriptor, part[:777]))
    with Checkpoints(folder, IDENTITY) as checkpoints:
        checkpoints.save(8, state_of(8))
    monkeypatch.undo()
    assert same(load(folder).state, state_of(8))


def refused(folder, generation=8):
    """Save into a folder that cannot be written; return the sentence. Earlier checkpoints must be whole."""
    before = contents(folder)
    with Checkpoints(folder, IDENTITY) as checkpoints:
        with pytest.raises(ConfigError) as caught:
            checkpoints.save(generation, state_of(generation))
        assert same(checkpoints.load().state, state_of(7))
    assert contents(folder) == before
    return one_sentence(caught)


def test_a_file_size_limit_of_the_system_is_one_sentence(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        text = refused(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written (file too large); the earlier checkpoints are untouched" in text


@contextmanager
def without_privileges():
    """Act as an ordinary user: permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public(folder):
    """The same checkpoints in a place that every user can reach."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    if not all(parent.stat().st_mode & 0o001 for parent in place.parents):
        place.rmdir()
        pytest.skip("the temporary folder is closed to other users")
    shutil.copytree(folder, place / "state")
    (place / "state").chmod(0o755)
    yield place / "state"
    (place / "state").chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o300])
def test_a_folder_without_the_right_to_write_or_read_is_one_sentence(public, mode):
    public.chmod(mode)
    before = contents(public) if os.geteuid() == 0 else None

    def resumed_and_saved():
        with Checkpoints(public, IDENTITY) as checkpoints:
            assert same(checkpoints.load().state, state_of(7))
            checkpoints.save(8, state_of(8))

    with without_privileges(), pytest.raises(ConfigError, match="permission denied") as caught:
        resumed_and_saved()
    one_sentence(caught)
    public.chmod(0o755)
    assert before in (None, contents(public))
    assert load(public).generation == 7


def test_one_checkpoint_without_the_right_to_read_is_passed_over(public):
    (public / named(7)).chmod(0)
    if os.geteuid() == 0:
        os.chown(public, 65534, -1)
    with without_privileges():
        found = load(public)
    assert found.generation == 6
    assert found.notes[0] == f"{named(7)}: cannot be read (permission denied); passed over"


@pytest.mark.parametrize("options", ["size=72k", "ro"])
def test_a_real_disk_that_is_full_or_read_only_is_one_sentence(folder, tmp_path, options):
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options.replace("ro", "size=1m"), "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        shutil.copytree(folder, mount / "state")
        if options == "ro":
            subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        text = refused(mount / "state")
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    reason = "read-only file system" if options == "ro" else "no space left on device"
    assert f"cannot be written ({reason})" in text


def test_a_folder_deleted_on_the_way_is_not_made_anew(folder):
    with Checkpoints(folder, IDENTITY) as checkpoints:
        shutil.rmtree(folder)
        with pytest.raises(ConfigError, match="the folder of checkpoints has disappeared") as caught:
            checkpoints.save(8, state_of(8))
        one_sentence(caught)
        assert not folder.exists()
        folder.mkdir()  # somebody else's: nothing is written there either
        with pytest.raises(ConfigError, match="has disappeared"):
            checkpoints.save(8, state_of(8))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/state", "link"])
def test_a_place_that_cannot_be_a_folder_is_one_sentence(tmp_path, place):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be used for checkpoints") as caught:
        Checkpoints(tmp_path / place, IDENTITY)
    one_sentence(caught)


# --- killed at any moment (F1, F2) ---------------------------------------------------------------------

GENERATIONS = 15


def toy_search(folder, told, forgets=""):
    """A search that needs nothing but its state; notes each generation when it is over."""
    with Checkpoints(folder, IDENTITY) as checkpoints, open(told, "ab", buffering=0) as notes:
        rng = np.random.Generator(np.random.PCG64(3))
        genes, best, generation = rng.random((50, 8)), [], -1
        if checkpoints.generations():
            generation, state, _ = checkpoints.load()
            genes, best = state["genes"], state["best"]
            if forgets != "rng":
                rng.bit_generator.state = state["rng"]
        while generation < GENERATIONS:
            generation += 1
            fitness = -((genes - 0.3) ** 2).sum(axis=1)
            parents = genes[np.argsort(-fitness, kind="stable")[:25]]
            genes = np.concatenate([parents, parents + rng.normal(0.0, 0.1, parents.shape)])
            best = [*best, float(fitness.max())]
            notes.write(b"%d\n" % generation)
            checkpoints.save(generation, {"genes": genes, "best": best, "rng": rng.bit_generator.state})


def start(*arguments):
    process = server().Process(target=toy_search, args=arguments)
    process.start()
    return process


def lines(path):
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def killed(process, told, moment, later_s):
    """Kill a search some time after it has told a generation; return what it has told by then."""
    while max(lines(told), default=-1) < moment:
        time.sleep(0.0002)
    time.sleep(later_s)
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return lines(told)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The last checkpoints of a search that nobody disturbs."""
    place = tmp_path_factory.mktemp("whole")
    whole = start(place / "state", place / "told")
    whole.join()
    assert whole.exitcode == 0
    return contents(place / "state")


def test_a_search_killed_at_ten_moments_ends_in_the_same_bytes(expected, tmp_path):
    rng = np.random.default_rng(8)
    signals = []
    for i, moment in enumerate(rng.integers(-1, GENERATIONS - 2, 10)):
        folder, told = tmp_path / f"state-{i}", tmp_path / f"told-{i}"
        first = start(folder, told)
        before = killed(first, told, moment, rng.random() * 0.005)
        signals.append(first.exitcode)
        second = start(folder, told)
        second.join()
        assert second.exitcode == 0
        after = lines(told)[len(before) :]
        assert contents(folder) == expected
        assert len(set(before) & set(after)) <= 1  # F2: at most the generation that was not yet saved
        assert sorted(set(before) | set(after)) == list(range(GENERATIONS + 1))
    assert signals.count(-signal.SIGKILL) >= 6  # the others were quicker than the signal


def test_a_search_that_forgot_its_generator_would_be_noticed(expected, tmp_path):
    # Negative control.
    first = start(tmp_path / "state", tmp_path / "told")
    killed(first, tmp_path / "told", 5, 0.0)
    second = start(tmp_path / "state", tmp_path / "told", "rng")
    second.join()
    assert second.exitcode == 0
    assert contents(tmp_path / "state") != expected


def test_the_sample_of_damage_has_every_kind():
    assert SAMPLE.keys() == damage.KINDS.keys()
    assert sum(damage.KINDS.values()) == 300

import errno
import json
import os
import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from configs.load import Config, ConfigError, load
from experiments import runs
from experiments.runs import Run, checked_id, git_commit, latest, list_runs

NOON = datetime(2026, 1, 2, 12, 30, 5, tzinfo=UTC)


class Settings(Config):
    regime: str = "volatile"
    size: int = 200


@pytest.fixture
def run(tmp_path):
    return Run.open(tmp_path / "runs", "evolve", "volatile", NOON)


def one_sentence(text):
    assert "\n" not in text
    assert "Errno" not in text
    return text


# --- names ------------------------------------------------------------------------------------------


def test_a_run_is_named_by_command_name_and_utc_time(tmp_path):
    run = Run.open(tmp_path, "evolve", "volatile", NOON.astimezone(timezone(timedelta(hours=9))))
    assert run.id == "evolve-volatile_20260102T123005Z"
    assert run.folder == tmp_path / run.id
    assert run.folder.is_dir()
    assert list(run.folder.iterdir()) == []  # subfolders appear with their first file


def test_runs_of_one_second_get_suffixes_and_nothing_is_overwritten(tmp_path):
    first = Run.open(tmp_path, "evolve", "volatile", NOON)
    first.write_json("metrics/metrics.json", {"sharpe": 1.0})
    others = [Run.open(tmp_path, "evolve", "volatile", NOON).id for _ in range(2)]
    assert others == [f"{first.id}-2", f"{first.id}-3"]
    assert json.loads((first.folder / "metrics/metrics.json").read_text()) == {"sharpe": 1.0}


def test_runs_of_one_second_are_listed_in_the_order_they_were_opened(tmp_path):
    opened = [Run.open(tmp_path, command, "x", NOON).id for command in ("tune", "evolve", "detect", "evolve")]
    assert [run.id for run in list_runs(tmp_path)] == opened
    assert latest(tmp_path).id == opened[-1]
    assert latest(tmp_path, "detect").id == opened[2]
    later = Run.open(tmp_path, "evolve", "x", NOON + timedelta(seconds=1))
    assert later.id == "evolve-x_20260102T123006Z"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "-rf",
        "a b",
        "a\n",
        "a\x00",
        "é",
        "%2e%2e",
        "~",
        "x" * 65,
        None,
    ],
)
def test_unsafe_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="is not a name"):
        checked_id(name)
    for command, label in ((name, "volatile"), ("evolve", name)):
        with pytest.raises(ConfigError, match="is not a name"):
            Run.open(tmp_path / "runs", command, label, NOON)
    with pytest.raises(ConfigError, match="is not a name"):
        Run.at(tmp_path, name)
    assert not (tmp_path / "runs").exists()


def test_names_too_long_together_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="1 to 64"):
        Run.open(tmp_path, "evolve", "x" * 60, NOON)


def test_a_naive_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without a time zone"):
        Run.open(tmp_path, "evolve", "volatile", NOON.replace(tzinfo=None))


@pytest.mark.parametrize("name", ["../x.json", "/etc/passwd", "plots/../../x", "plots//x", "plots/.x", ""])
def test_files_cannot_leave_the_run(run, name):
    with pytest.raises(ConfigError, match="is not a name"):
        run.path(name)


def test_a_link_out_of_the_run_is_refused(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (run.folder / "plots").symlink_to(outside)
    for name in ("plots/x.png", "plots/deeper/x.png"):
        with pytest.raises(ConfigError, match="leads out of the run"):
            run.path(name)
    assert list(outside.iterdir()) == []


# --- finding runs -----------------------------------------------------------------------------------


def test_runs_are_listed_oldest_first(tmp_path):
    for minutes in (3, 1, 2):
        Run.open(tmp_path, "evolve", "volatile", NOON + timedelta(minutes=minutes))
    for _ in range(11):
        Run.open(tmp_path, "validate", "btc", NOON)
    (tmp_path / "notes").mkdir()
    (tmp_path / "evolve-x_20260102T000000Z").write_text("a file, not a run")
    found = [run.id for run in list_runs(tmp_path)]
    validated = ["validate-btc_20260102T123005Z"] + [
        f"validate-btc_20260102T123005Z-{k}" for k in range(2, 12)
    ]
    assert found[:11] == validated  # -10 comes after -9, not after -1
    assert found[11:] == [f"evolve-volatile_20260102T123{m}05Z" for m in (1, 2, 3)]
    assert latest(tmp_path).id == found[-1]
    assert latest(tmp_path, "validate").id == validated[-1]
    assert latest(tmp_path, "live") is None


def test_no_folder_means_no_runs(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    assert latest(tmp_path / "nowhere") is None


def test_a_run_is_found_again_by_its_id(run):
    again = Run.at(run.folder.parent, run.id)
    assert (again.id, again.folder) == (run.id, run.folder)
    with pytest.raises(ConfigError, match="no such run"):
        Run.at(run.folder.parent, "evolve-volatile_20200101T000000Z")


# --- writing ------------------------------------------------------------------------------------------


def test_the_config_written_is_the_config_read(run):
    config = Settings(size=7)
    assert load(Settings, run.write_config(config)) == config


def test_json_takes_numpy_and_refuses_nan(run):
    path = run.write_json("metrics/metrics.json", {"n": np.int64(3), "x": np.array([1.5, 2.0]), "name": "µ"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"n": 3, "x": [1.5, 2.0], "name": "µ"}
    for bad in (float("nan"), np.array([np.inf])):
        with pytest.raises(ValueError, match="JSON"):
            run.write_json("metrics/metrics.json", {"sharpe": bad})
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        run.write_json("metrics/metrics.json", {"x": {1}})
    assert json.loads(path.read_text(encoding="utf-8"))["n"] == 3


def test_the_manifest_says_where_a_result_comes_from(run):
    run.write_manifest(
        data={"BTC/USDT 1h": "ab" * 32},
        seeds={"root": 7},
        parents=["evolve-x_20250101T000000Z"],
        rows={"train": [0, 9]},
    )
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["run"] == run.id
    assert manifest["data"] == {"BTC/USDT 1h": "ab" * 32}
    assert manifest["seeds"] == {"root": 7}
    assert manifest["parents"] == ["evolve-x_20250101T000000Z"]
    assert manifest["rows"] == {"train": [0, 9]}
    assert manifest["libraries"]["numpy"] == np.__version__
    assert re.fullmatch(r"3\.\d+\.\d+.*", manifest["python"])
    assert re.fullmatch("[0-9a-f]{64}", manifest["code"]["sources"])
    assert set(manifest["code"]) == {"version", "commit", "sources"}
    assert 0 <= manifest["wall_seconds"] < 60
    with pytest.raises(ValueError, match="run"):
        run.write_manifest(run="other")
    with pytest.raises(ConfigError, match="parent run"):
        run.write_manifest(parents=["../x"])


def test_log_lines_carry_the_time_and_stay_one_line(run):
    run.log("generation 1: best 0.12")
    run.log("evil\nline \x1b[31m \udc80")
    lines = (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z generation 1: best 0\.12", lines[0])
    assert lines[1].endswith(r"evil\nline \x1b[31m \udc80")


def test_a_writer_gets_a_draft_with_the_suffix_of_the_file(run):
    with run.writing("plots/fitness.png") as draft:
        assert draft.suffix == ".png"
        draft.write_bytes(b"png")
        assert not (run.folder / "plots/fitness.png").exists()
    assert [path.name for path in (run.folder / "plots").iterdir()] == ["fitness.png"]


# --- when the disk refuses -----------------------------------------------------------------------------


def test_a_failed_writer_leaves_the_old_file_and_no_draft(run):
    run.write_bytes("checkpoints/genome.json", b"old")

    def interrupted():
        with run.writing("checkpoints/genome.json") as draft:
            draft.write_bytes(b"half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {path.name: path.read_bytes() for path in (run.folder / "checkpoints").iterdir()} == {
        "genome.json": b"old"
    }


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(run, monkeypatch, broken):
    run.write_json("metrics/metrics.json", {"sharpe": 1.0})
    monkeypatch.setattr(runs.os, broken, full_disk)
    with pytest.raises(
        ConfigError, match=r"metrics\.json: cannot be written \(no space left on device\)"
    ) as caught:
        run.write_json("metrics/metrics.json", {"sharpe": 2.0})
    one_sentence(str(caught.value))
    monkeypatch.undo()
    assert json.loads((run.folder / "metrics/metrics.json").read_text()) == {"sharpe": 1.0}
    assert len(list((run.folder / "metrics").iterdir())) == 1


def test_content_reaches_the_disk_before_the_name_does(run, monkeypatch):
    # The order that survives a power failure: flush the draft, rename it, flush the folder.
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_fsync(descriptor)

    def replace(a, b):
        steps.append("rename")
        real_replace(a, b)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell a file from a folder by its descriptor")
    monkeypatch.setattr(runs.os, "fsync", fsync)
    monkeypatch.setattr(runs.os, "replace", replace)
    run.write_bytes("checkpoints/genome.json", b"new")
    assert steps == ["file", "rename", "folder"]


def test_a_root_that_is_a_file_is_one_sentence(tmp_path):
    file = tmp_path / "runs"
    file.write_text("not a folder")
    for root in (file, file / "deeper"):
        with pytest.raises(ConfigError, match="cannot be used as the folder of runs") as caught:
            Run.open(root, "evolve", "volatile")
        assert str(root) in one_sentence(str(caught.value))
    with pytest.raises(ConfigError, match="cannot be listed"):
        list_runs(file)


def test_a_root_without_permission_is_one_sentence(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(runs.Path, "mkdir", forbidden)
    with pytest.raises(ConfigError, match="permission denied") as caught:
        Run.open(tmp_path / "runs", "evolve", "volatile")
    one_sentence(str(caught.value))


def test_a_run_deleted_on_the_way_is_not_made_anew(run):
    run.folder.rmdir()
    for write in (
        lambda: run.write_json("metrics/metrics.json", {}),
        lambda: run.log("line"),
        run.write_manifest,
    ):
        with pytest.raises(ConfigError, match="has disappeared"):
            write()
    assert not run.folder.exists()


def test_what_a_killed_process_was_writing_is_removed_when_the_run_is_taken_up_again(run):
    kept = [run.write_bytes(name, b"whole") for name in ("config.yaml", "plots/fitness.png")]
    strangers = [run.folder / ".gitignore", run.folder / "plots" / ".0123-a.png"]
    for path in strangers:
        path.write_text("not a draft of ours")
    writer = run.writing("plots/fitness.png")  # never left: as a kill would have it
    draft = writer.__enter__()
    draft.write_bytes(b"half of the ne")
    (run.folder / ".0123456789ab-config.yaml").write_bytes(b"")
    (run.folder / ".0123456789ab-folder").mkdir()
    assert run.remove_drafts() == 2
    assert not draft.exists()
    assert all(path.exists() for path in (*kept, *strangers))
    assert run.remove_drafts() == 0
    with pytest.raises(ConfigError):
        writer.__exit__(None, None, None)


# --- provenance -----------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checkout(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {".git/HEAD": f"{COMMIT}\n"},
        {".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{COMMIT}\n"},
        {
            ".git/HEAD": "ref: refs/heads/main\n",
            ".git/packed-refs": f"# pack-refs\n{'f' * 40} refs/heads/x\n{COMMIT} refs/heads/main\n",
        },
        {
            ".git": "gitdir: elsewhere/worktrees/a\n",
            "elsewhere/worktrees/a/HEAD": "ref: refs/heads/a\n",
            "elsewhere/worktrees/a/commondir": "../..\n",
            "elsewhere/refs/heads/a": f"{COMMIT}\n",
        },
    ],
)
def test_the_commit_is_read_from_the_git_folder(tmp_path, files):
    assert git_commit(checkout(tmp_path, files)) == COMMIT


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".git/HEAD": ""},
        {".git/HEAD": "ref: refs/heads/main\n"},  # nothing committed yet
        {".git/HEAD": "ref: ../../secret\n", "secret": "not a commit"},
        {".git": "gitdir: nowhere\n"},
    ],
)
def test_no_commit_where_there_is_none(tmp_path, files):
    assert git_commit(checkout(tmp_path, files)) is None


def test_a_package_inside_a_foreign_checkout_has_no_commit(tmp_path):
    checkout(tmp_path, {".git/HEAD": COMMIT, "venv/site-packages/experiments/runs.py": ""})
    assert git_commit(tmp_path / "venv/site-packages") is None


def test_the_source_digest_sees_every_edit_and_no_result(tmp_path):
    digests = set()
    for files in (
        {"market/bars.py": "a"},
        {"market/bars.py": "b"},
        {"market/sources/files.py": "a"},
        {"configs/evolve.yaml": "seed: 7"},
    ):
        checkout(tmp_path, files)
        digests.add(runs._source_digest(tmp_path))
    assert len(digests) == 4
    checkout(
        tmp_path, {"experiments/runs/evolve-x_20260102T123005Z/config.yaml": "seed: 8", "other/x.py": "1"}
    )
    assert runs._source_digest(tmp_path) in digests

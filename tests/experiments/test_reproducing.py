"""What counts as the same run, to the byte, and what a repetition that goes wrong says."""

import json
import shutil
import sys
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from configs.load import ConfigError, dump
from experiments import reproducing
from experiments.records import read
from experiments.reproducing import VOLATILE, compare_files, reproduce, show
from experiments.runs import Run
from tests.experiments.made_runs import Settings, make_run

RETURNS = np.linspace(-0.01, 0.01, 50)


@pytest.fixture
def twins(tmp_path):
    """A run and its repetition, which differ in nothing but what may differ."""
    first = make_run(tmp_path / "a", returns=RETURNS, rows={"test": [0, 50]})
    first.write_bytes("report.md", b"# first")
    first.log("first")
    second = make_run(
        tmp_path / "b",
        minutes=9,
        config=Settings(runs="elsewhere"),
        returns=RETURNS,
        rows={"test": [0, 50]},
    )
    second.write_bytes("report.md", b"# second")
    second.log("second")
    edit(second, "report.json", run="elsewhere", wall_seconds=1.0, evidence={"n_trials": 9}, passed=False)
    return first, second


def edit(changed: Run, file: str, /, **entries) -> None:
    path = changed.folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | entries, indent=2) + "\n")


def outcomes(first, second, *overridden):
    return {one["file"]: one["outcome"] for one in compare_files(first, second, overridden)}


def notes(first, second):
    return {one["file"]: one["note"] for one in compare_files(first, second)}


def test_a_repetition_may_differ_in_times_places_and_what_the_ledger_counts(twins):
    found = outcomes(*twins)
    assert found.pop("report.md") == found.pop("log.txt") == "not compared"
    assert set(found) == {
        "checkpoints/specialist/genome.json",
        "checkpoints/specialist/specialist.json",
        "config.yaml",
        "manifest.json",
        "predictions/out_of_sample/equity.parquet",
        "report.json",
    }
    assert set(found.values()) == {"same"}
    said = notes(*twins)["report.json"]
    assert said.startswith("but for ")
    for name in ("evidence", "passed", "run", "wall_seconds"):
        assert name in said
    assert "verdict" not in said  # it may differ, and does not
    assert notes(*twins)["config.yaml"] == "but for runs (the place of the run)"


def test_a_flipped_bit_anywhere_is_found(twins):
    first, second = twins
    compared = [name for name, outcome in outcomes(first, second).items() if outcome == "same"]
    for name in sorted(set(compared) - set(VOLATILE)):
        path = second.folder / name
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        found = outcomes(first, second)
        assert found.pop(name) == "different", name
        assert "different" not in found.values()
        path.write_bytes(whole)


def test_every_entry_that_is_not_named_as_volatile_counts(twins):
    first, second = twins
    for name in ("report.json", "manifest.json"):
        whole = (second.folder / name).read_bytes()
        for key in json.loads(whole):
            edit(second, name, **{key: "something else"})
            expected = "same" if key in VOLATILE[name] else "different"
            assert outcomes(first, second)[name] == expected, key
            (second.folder / name).write_bytes(whole)
        edit(second, name, an_entry_that_is_new=1)
        assert notes(first, second)[name].startswith("an_entry_that_is_new")
        (second.folder / name).write_bytes(whole)


def test_the_last_bit_of_a_number_and_the_sign_of_zero_count(twins):
    first, second = twins
    for name, one, two in (("sharpe", 1.5, np.nextafter(1.5, 2)), ("zero", 0.0, -0.0), ("whole", 1, 1.0)):
        for run, value in ((first, one), (second, two)):
            edit(
                run, "report.json", metrics={"in sample": {name: float(value) if name != "whole" else value}}
            )
        assert notes(first, second)["report.json"] == f"metrics.in sample.{name}"


def test_the_way_a_file_is_written_counts(twins):
    first, second = twins
    name = "checkpoints/specialist/genome.json"
    path = second.folder / name
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert notes(first, second)[name] == "only in how it is written"
    assert outcomes(first, second)[name] == "different"


def test_measured_times_of_every_detector_may_differ(tmp_path):
    runs = [
        make_run(
            tmp_path / str(i),
            command="detect",
            document={"detectors": {"hmm": {"fit_seconds": 1.0 + i, "share": share}}},
        )
        for i, share in enumerate((0.5, 0.5, 0.6))
    ]
    assert outcomes(runs[0], runs[1])["report.json"] == "same"
    assert notes(runs[0], runs[1])["report.json"] == "but for detectors.*.fit_seconds (a measured time)"
    assert notes(runs[0], runs[2])["report.json"] == "detectors.hmm.share"


def test_files_that_are_missing_or_new_are_named(twins):
    first, second = twins
    (second.folder / "predictions/out_of_sample/equity.parquet").unlink()
    second.write_bytes("metrics/genes.npz", b"x")
    found = outcomes(first, second)
    assert found["predictions/out_of_sample/equity.parquet"] == "missing"
    assert found["metrics/genes.npz"] == "new"


def test_a_setting_that_was_given_anew_may_differ_and_no_other(twins):
    first, second = twins
    second.write_config(Settings(seed=8, regime="trending"))
    assert outcomes(first, second)["config.yaml"] == "different"
    assert outcomes(first, second, "seed")["config.yaml"] == "different"
    assert outcomes(first, second, "seed", "regime")["config.yaml"] == "same"


# --- running it again -------------------------------------------------------------------------------


@pytest.fixture
def again(monkeypatch, tmp_path):
    """Stands for the commands: each copies what lies in ``again`` into a new run."""
    (tmp_path / "again").mkdir()
    module = tmp_path / "ponder.py"
    module.write_text(
        "import pathlib, shutil, sys\n"
        "runs = pathlib.Path(sys.argv[sys.argv.index('--runs') + 1])\n"
        "shutil.copytree(pathlib.Path(__file__).parent / 'again', runs / 'evolve-v_20270101T000000Z')\n"
        "(runs.parent / 'arguments.txt').write_text(' '.join(sys.argv[1:]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(reproducing, "MODULES", {"evolve": "ponder"})
    return module


def quiet():
    return Console(file=StringIO(), width=160, highlight=False)


def test_a_run_is_repeated_from_its_own_config_beside_a_ledger_of_its_own(tmp_path, again):
    run = make_run(tmp_path / "runs", returns=RETURNS)
    shutil.copytree(run.folder, tmp_path / "again", dirs_exist_ok=True)
    before = sorted(run.folder.rglob("*"))
    found = reproduce(read(run), quiet(), tmp_path / "scratch", ["workers.name=serial"])
    assert found["identical"] is True
    assert found["reasons"] == []
    given = (tmp_path / "scratch/arguments.txt").read_text().split()
    assert given[:2] == ["--config", str(run.folder / "config.yaml")]
    assert given[2:4] == ["--runs", str(tmp_path / "scratch/runs")]
    assert given[-2:] == ["--set", "workers.name=serial"]
    assert found["again"] == str(tmp_path / "scratch/runs/evolve-v_20270101T000000Z")
    assert sorted(run.folder.rglob("*")) == before
    where = quiet()
    show(where, found)
    assert "Reproduced: all 6 compared files are the same." in where.file.getvalue()
    assert reproduce(read(run), quiet())["again"] is None  # and its folder is gone


@pytest.mark.parametrize("folder", ["runs", "again"])
def test_a_file_that_only_one_of_both_has_written_is_a_difference(tmp_path, again, folder):
    run = make_run(tmp_path / "runs")
    shutil.copytree(run.folder, tmp_path / "again", dirs_exist_ok=True)
    where = run.folder if folder == "runs" else tmp_path / "again"
    (where / "metrics").mkdir()
    (where / "metrics/genes.npz").write_bytes(b"x")
    found = reproduce(read(run), quiet())
    assert found["identical"] is False
    assert {one["outcome"] for one in found["files"]} == {"same", "missing" if folder == "runs" else "new"}


def test_a_repetition_is_not_mirrored_anywhere(tmp_path, again):
    class Mirrored(Settings):
        mirror: str | None = None

    for mirror, expected in (("sqlite:///studies.sqlite", True), (None, False)):
        run = make_run(tmp_path / str(expected), config=Mirrored(mirror=mirror))
        shutil.copytree(run.folder, tmp_path / "again", dirs_exist_ok=True)
        dump(Mirrored(), tmp_path / "again/config.yaml")
        found = reproduce(read(run), quiet(), tmp_path / f"scratch-{expected}")
        given = (tmp_path / f"scratch-{expected}/arguments.txt").read_text()
        assert ("--set mirror=null" in given) is expected
        assert found["identical"] is True


def test_what_explains_a_difference_is_said(tmp_path, again):
    run = make_run(tmp_path / "runs", returns=RETURNS)
    shutil.copytree(run.folder, tmp_path / "again", dirs_exist_ok=True)
    manifest = json.loads((tmp_path / "again/manifest.json").read_text())
    other = manifest | {"data": {"bars": "0" * 64}, "python": "2.7"}
    (tmp_path / "again/manifest.json").write_text(json.dumps(other))
    record = replace(read(run), changes=("numpy (1.0 then, 2.0 now)",))
    found = reproduce(record, quiet())
    assert found["identical"] is False
    assert found["reasons"][0] == "changed since: numpy (1.0 then, 2.0 now)"
    assert found["reasons"][1] == "the data are others now: their fingerprints differ"
    assert found["reasons"][2].endswith("then, 2.7 now")
    run.write_json("changes.json", [])
    assert "resumed with other code" in reproduce(record, quiet())["reasons"][1]
    where = quiet()
    show(where, found)
    assert "Not reproduced: 1 of 6 compared files differ." in where.file.getvalue()
    assert "numpy (1.0 then" in where.file.getvalue()


def test_a_command_that_fails_ends_in_its_own_sentence(tmp_path, again):
    run = make_run(tmp_path / "runs")
    again.write_text("import sys\nsys.exit('error: seed is x; it must be a number')\n")
    with pytest.raises(ConfigError, match=r"failed with status 1: seed is x; it must be a number"):
        reproduce(read(run), quiet())
    again.write_text("")
    with pytest.raises(ConfigError, match="holds 0 new runs"):
        reproduce(read(run), quiet())


@pytest.mark.parametrize(
    ("name", "content"),
    [("report.json", None), ("config.yaml", None), ("report.json", b"{"), ("manifest.json", b"{")],
)
def test_a_run_that_is_not_whole_is_not_repeated(tmp_path, name, content, again):
    run = make_run(tmp_path / "runs")
    (run.folder / name).unlink()
    if content is not None:
        (run.folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"cannot be reproduced: {name} "):
        reproduce(read(run), quiet())


def test_a_command_that_is_not_known_is_not_run(tmp_path):
    run = make_run(tmp_path, command="ponder")
    with pytest.raises(ConfigError, match="ponder is no command that can be repeated; known: detect, evolve"):
        reproduce(read(run), quiet())


def test_the_interpreter_is_the_one_that_runs_now(tmp_path, again):
    run = make_run(tmp_path / "runs")
    again.write_text("import sys\nsys.exit(sys.executable)\n")
    with pytest.raises(ConfigError, match=sys.executable):
        reproduce(read(run), quiet())

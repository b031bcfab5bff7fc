"""Runs and specialists listed and shown, whatever has become of their folders."""

import copy
import json
from io import StringIO

import pytest
from rich.console import Console

from configs.load import ConfigError, dump
from experiments import listing, records
from experiments.comparing import compare
from experiments.comparing import show as show_comparison
from experiments.records import changed_settings, find, flat, read
from experiments.runs import Run
from tests.experiments.made_runs import GENES, Inner, Settings, genome, make_run, report


def printed(show, *arguments, width=160):
    where = Console(file=StringIO(), width=width, highlight=False)
    show(where, *arguments)
    return where.file.getvalue()


def words(text):
    return " ".join(text.split())


# --- the list ---------------------------------------------------------------------------------------


def test_runs_are_listed_with_what_their_files_say_and_the_newest_last(tmp_path):
    second = make_run(tmp_path, "volatile", 5, document=report(False, (3.25, -0.5)))
    first = make_run(tmp_path, "trending", 0, document=report(True, (2.5, 1.5)))
    rows = listing.run_rows(tmp_path)
    assert [row["run"] for row in rows] == [first.id, second.id]
    last = rows[-1]
    assert last["command"] == "evolve"
    assert last["name"] == "volatile"
    assert last["opened"] == "2026-01-02T12:35:05Z"
    assert last["wall_seconds"] == 12.5
    assert last["bars"] == 61_320
    assert (last["sharpe_in_sample"], last["sharpe_out_of_sample"]) == (3.25, -0.5)
    assert last["passed"] is False
    assert last["state"] == "done"
    text = printed(listing.show_runs, rows, tmp_path).splitlines()
    shown = next(line for line in text if second.id in line).split()
    assert " ".join(shown[1:]) == "evolve volatile 2026-01-02 12:35 12.5 s 61,320 3.25 -0.50 fail done"
    assert text.index(next(line for line in text if first.id in line)) < len(text) - 1


def test_a_narrow_table_leaves_out_what_the_id_says(tmp_path):
    run = make_run(tmp_path)
    wide, narrow = (
        printed(listing.show_runs, listing.run_rows(tmp_path), tmp_path, width=width) for width in (160, 100)
    )
    assert "opened" in wide
    assert "opened" not in narrow
    assert run.id in narrow  # on one line, not folded
    assert "61,320" in narrow


def test_runs_of_one_command_can_be_asked_for_and_other_folders_are_no_runs(tmp_path):
    make_run(tmp_path)
    other = make_run(tmp_path, "hmm", command="detect", document={"seed": 7, "wall_seconds": 3.0})
    (tmp_path / "notes").mkdir()
    (tmp_path / "_20260102T123005Z").mkdir()
    assert len(listing.run_rows(tmp_path)) == 2
    (row,) = listing.run_rows(tmp_path, "detect")
    assert row["run"] == other.id
    assert row["passed"] is None
    assert row["sharpe_out_of_sample"] is None
    assert row["wall_seconds"] == 3.0


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_runs_says_so(tmp_path, name):
    folder = tmp_path / name
    assert listing.run_rows(folder) == []
    assert listing.specialist_rows(folder) == []
    assert "No runs in" in printed(listing.show_runs, [], folder)
    assert "No specialists in" in printed(listing.show_specialists, [], folder)
    with pytest.raises(ConfigError, match="holds no runs"):
        find(folder, "latest")


# --- states -----------------------------------------------------------------------------------------


def test_a_run_without_a_report_is_unfinished(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "report.json").unlink()
    record = read(run)
    assert record.state == "unfinished"
    assert record.wall_seconds is None  # the manifest was written when it began
    assert record.problems == ("report.json is missing: the run has not finished, or was broken off",)
    assert "unfinished: no report" in printed(listing.show_runs, listing.run_rows(tmp_path), tmp_path)


def test_an_unfinished_run_says_how_far_it_came(tmp_path):
    run = make_run(tmp_path)
    for generation in (7, 11, 9):
        run.write_bytes(f"checkpoints/state/generation-{generation:06}.ckpt", b"x")
    run.write_bytes("checkpoints/state/generation-nonsense.ckpt", b"x")
    assert "reached" not in printed(listing.show_run, read(run))  # it is finished
    (run.folder / "report.json").unlink()
    text = words(printed(listing.show_run, read(run)))
    assert f"reached generation 11, with a checkpoint; --resume {run.id} goes on from it" in text
    assert listing.run_document(read(run))["checkpoint"] == 11


def test_a_run_that_has_only_just_been_opened_is_shown(tmp_path):
    run = Run.open(tmp_path, "evolve", "volatile")
    text = printed(listing.show_run, read(run))
    for name in ("config.yaml", "manifest.json", "report.json"):
        assert f"{name} is missing" in text


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "report.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"5", b"[" * 100_000, b"a: [1"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    run = make_run(tmp_path)
    (run.folder / name).write_bytes(content)
    record = read(run)
    assert record.state == "damaged"
    (problem,) = record.problems
    assert problem.startswith(f"{name} cannot be read: ")
    assert "\n" not in problem
    assert f"{name} cannot be read" in words(printed(listing.show_run, record))
    assert listing.run_rows(tmp_path)[0]["state"] == "damaged"


def test_a_run_of_other_code_or_libraries_has_changed(tmp_path):
    run = make_run(tmp_path)
    assert read(run).state == "done"  # the control: the same code
    manifest = json.loads((run.folder / "manifest.json").read_text())
    other = manifest | {"code": manifest["code"] | {"sources": "0" * 64}}
    run.write_json("manifest.json", other)
    assert read(run).state == "changed"
    assert "edits that were not committed" in read(run).changes[0]
    run.write_json("manifest.json", manifest | {"libraries": manifest["libraries"] | {"numpy": "1.0"}})
    (change,) = read(run).changes
    assert change.startswith("numpy (1.0 then, ")
    run.write_json("manifest.json", manifest | {"libraries": {}})
    assert len(read(run).changes) == len(manifest["libraries"])


# --- finding one ------------------------------------------------------------------------------------


def test_a_run_is_found_by_id_by_a_beginning_or_as_the_latest(tmp_path):
    one, two = make_run(tmp_path, "trending"), make_run(tmp_path, "volatile", 1)
    assert find(tmp_path, one.id).run.id == one.id
    assert find(tmp_path, "evolve-t").run.id == one.id
    assert find(tmp_path, "latest").run.id == two.id
    again = make_run(tmp_path, "volatile", 1)
    assert find(tmp_path, two.id).run.id == two.id  # although the other id begins with it
    with pytest.raises(ConfigError, match=f"may be any of 2 in .*{two.id}, {again.id}; type more of it"):
        find(tmp_path, "evolve-v")
    with pytest.raises(ConfigError, match="did you mean evolve-trending_20260102T123005Z"):
        find(tmp_path, "evolve-trendign_20260102T123005Z")
    with pytest.raises(ConfigError, match="no run '' in"):
        find(tmp_path, "")


def test_of_many_runs_that_may_be_meant_four_are_named(tmp_path):
    for i in range(6):
        make_run(tmp_path, minutes=i)
    with pytest.raises(ConfigError, match=r"any of 6 .* and 2 more; type more of it"):
        find(tmp_path, "evolve")


# --- settings ---------------------------------------------------------------------------------------


def test_changed_settings_are_those_that_differ_from_the_packaged_ones(tmp_path):
    packaged = tmp_path / "evolve.yaml"
    dump(Settings(seed=11), packaged)
    config = Settings(seed=7, hyperparameters=Inner(patience=3), runs="elsewhere")
    assert changed_settings(config, packaged) == {"seed": 7, "hyperparameters.patience": 3}
    assert changed_settings(Settings(seed=11), packaged) == {}


def test_a_note_in_the_manifest_decides_which_settings_differ(tmp_path):
    run = make_run(tmp_path, config=Settings(seed=8), changed={"seed": 8})
    differ, source = records.unusual(read(run))
    assert differ == {"seed": 8}
    assert "noted" in source
    assert "seed 8" in words(printed(listing.show_run, read(run)))


def test_without_a_note_the_packaged_settings_of_now_are_compared(tmp_path):
    run = make_run(tmp_path, config=Settings(seed=8, hyperparameters=Inner(n_generations=10)))
    differ, source = records.unusual(read(run))
    assert differ == {"seed": 8, "hyperparameters.n_generations": 10}
    assert "evolve.yaml" in source
    strange = make_run(tmp_path, "x", command="ponder", config=Settings())
    differ, source = records.unusual(read(strange))
    assert set(differ) == set(flat(Settings().model_dump())) - {"runs"}
    assert "no packaged settings" in source


def test_flat_joins_keys_and_keeps_lists_and_empty_sections():
    assert flat({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": {}}) == {"a.b.c": 1, "a.d": [{"e": 2}], "f": {}}


# --- one run ----------------------------------------------------------------------------------------


def test_a_run_is_shown_with_everything_that_is_known_of_it(tmp_path):
    run = make_run(tmp_path, config=Settings(seed=8), parents=["evolve-older_20250101T000000Z"])
    text = words(printed(listing.show_run, read(run)))
    for part in (
        f"{run.id} done",
        "2026-01-02T12:30:05Z, took 12.5 s",
        "SYNTHETIC market (seed 7), not real prices",
        "bars ffffffffffff",
        "root 7",
        "evaluated 120",
        "builds upon evolve-older_20250101T000000Z",
        "champion born in generation 9",
        "specialist ab12cd34ef56",
        "Sharpe 2.50 1.50",
        "pass trades out of sample: 40, needs 20",
        "PASS: said of the volatile specialist.",
        "checkpoints/specialist/genome.json",
    ):
        assert part in text
    for name, value in GENES.items():
        assert f"{name} {value:g}" in text
    document = listing.run_document(read(run))
    assert json.loads(json.dumps(document)) == document
    assert document["champion"]["genes"] == GENES
    assert document["files"]["report.json"] == (run.folder / "report.json").stat().st_size


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    found = report()
    found["verdict"] = "PASS\x1b[2J\u202e: [red]cheated[/red]"
    found["champion"]["genes"] = {"bi\x1bas": 1.0}
    run = make_run(tmp_path, document=found)
    text = printed(listing.show_run, read(run))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]cheated[/red]" in text  # no markup of ours either


FILES = ("report.json", "manifest.json", "checkpoints/specialist/genome.json")
STRANGE = (None, True, 7, -1e308, "x", [], [None, {"x": []}], {}, {"x": [1]})


def places(document, path=()):
    """Every place in a document, as the keys that lead there."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def replaced(document, path, value):
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", FILES)
def test_no_content_of_a_file_breaks_a_table(tmp_path, name):
    run = make_run(tmp_path, changed={"seed": 7}, rows={"train": [0, 9]}, parents=["a"])
    file = run.folder / name
    whole = json.loads(file.read_text())
    for i, place in enumerate(places(whole)):
        for k, value in enumerate(STRANGE):
            file.write_text(json.dumps(replaced(whole, place, value)))
            record, rows = read(run), listing.specialist_rows(tmp_path)
            runs, found = listing.run_rows(tmp_path), compare(record, record)
            json.dumps([listing.run_document(record), rows, runs, found], allow_nan=False)
            if i % len(STRANGE) == k:  # printing takes its time: one strange value for each place
                assert run.id in printed(listing.show_run, record)
                assert run.id in printed(listing.show_runs, runs, tmp_path)
                assert run.id in printed(listing.show_specialists, rows, tmp_path)
                assert run.id in printed(show_comparison, found)


# --- specialists ------------------------------------------------------------------------------------


def test_specialists_are_listed_with_genes_regime_verdict_and_lineage(tmp_path):
    make_run(tmp_path, "trending", document=report(False, (2.0, 0.5)))
    run = make_run(tmp_path, "volatile", 1, parents=["evolve-older_20250101T000000Z"])
    assert [row["regime"] for row in listing.specialist_rows(tmp_path)] == ["trending", "volatile"]
    (row,) = listing.specialist_rows(tmp_path, "volatile")
    assert row["specialist"] == "ab12cd34ef56"
    assert row["run"] == run.id
    assert row["family"] == "blend"
    assert row["passed"] is True
    assert row["fitness"] == 2.25
    assert (row["sharpe_in_sample"], row["sharpe_out_of_sample"]) == (2.5, 1.5)
    assert row["generation"] == 9
    assert row["parents"] == ["evolve-older_20250101T000000Z"]
    assert row["genes"] == GENES
    text = words(printed(listing.show_specialists, [row], tmp_path))
    assert f"ab12cd34ef56 {run.id} volatile blend 2.250 2.50 1.50 9 pass evolve-older" in text
    for name, value in GENES.items():
        assert f"{name} {value:.4g}" in text


def test_the_champions_figures_are_not_given_to_another_specialist(tmp_path):
    run = make_run(tmp_path)
    other = GENES | {"bias": -0.5}
    run.write_json("checkpoints/archive/a/genome.json", genome(other, 4))
    run.write_json(
        "checkpoints/archive/a/specialist.json", {"regime": "volatile", "family": {"name": "blend"}}
    )
    rows = {row["folder"]: row for row in listing.specialist_rows(tmp_path)}
    assert rows["checkpoints/specialist"]["sharpe_out_of_sample"] == 1.5
    stranger = rows["checkpoints/archive/a"]
    assert stranger["generation"] == 4
    assert stranger["genes"]["bias"] == -0.5
    for name in ("specialist", "passed", "sharpe_in_sample", "sharpe_out_of_sample"):
        assert stranger[name] is None


def test_a_specialist_that_cannot_be_read_is_named(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "checkpoints/specialist/genome.json").write_text("{")
    (row,) = listing.specialist_rows(tmp_path)
    assert row["genes"] == {}
    assert "cannot be read" in row["problem"]
    assert f"{run.id}: specialist: cannot be read" in words(
        printed(listing.show_specialists, [row], tmp_path)
    )

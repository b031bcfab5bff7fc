"""Several evolutions side by side, and evolutions that are taken up again, by the command itself."""

import json
from pathlib import Path

import pytest

from experiments.ledger import Ledger
from ga.evolve import main

pytestmark = pytest.mark.usefixtures("blank_pictures")

SMALL = [
    "--set", "market.synthetic.n_bars=9000",
    "--set", "detector={name: volatility}",
    "--set", "fitness={folds: 4, min_trades: 5}",
    "--set", "hyperparameters={population_size: 16, n_generations: 3, patience: 0}",
]  # fmt: skip
SAME = (
    "checkpoints/specialist/genome.json",
    "checkpoints/hall_of_fame.json",
    "metrics/generations.parquet",
    "predictions/out_of_sample/trades.parquet",
)


def evolve(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return exit_.value.code


def fan(folder, *arguments):
    """Return the report of the whole, and the folder of each of its runs by asset and regime."""
    runs = folder / "runs"
    assert evolve("--runs", str(runs), *SMALL, *arguments) == 0
    (whole,) = runs.glob("fan-*")
    report = json.loads((whole / "report.json").read_text())
    return report, {(one["asset"], one["regime"]): runs / one["run"] for one in report["runs"]}


def result(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in SAME]


def verdict(folder: Path) -> dict:
    report = json.loads((folder / "report.json").read_text())
    return {key: report[key] for key in ("verdict", "criteria", "evidence", "metrics")}


def test_regimes_times_assets_give_the_same_bytes_and_verdicts_whatever_the_workers(tmp_path):
    one, alone = fan(tmp_path / "serial", "--all-regimes", "--assets", "BTC,ETH", "--workers", "serial")
    _, together = fan(
        tmp_path / "threads", "--all-regimes", "--assets", "BTC,ETH", "--workers", "threads", "--threads", "3"
    )
    assert list(alone) == [
        (asset, regime) for asset in ("BTC", "ETH") for regime in ("ranging", "trending", "volatile")
    ]
    for key, folder in alone.items():
        assert result(folder) == result(together[key])
        assert verdict(folder) == verdict(together[key])
    assert one["passed"] == sum(run["passed"] for run in one["runs"])
    # Three champions are judged on the same rows of each asset, in their order.
    champions = [verdict(folder)["evidence"]["champions"] for folder in alone.values()]
    assert champions == [1, 2, 3, 1, 2, 3]


def test_a_specialist_of_a_fan_is_the_one_that_a_run_of_its_own_finds(tmp_path):
    _, folders = fan(tmp_path / "fan", "--assets", "BTC", "--regime", "trending")
    (folder,) = folders.values()
    assert evolve("--config", str(folder / "config.yaml"), "--runs", str(tmp_path / "own" / "runs")) == 0
    (own,) = (tmp_path / "own" / "runs").iterdir()
    assert result(folder) == result(own)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parents"][0].startswith("fan-assets_")


@pytest.mark.parametrize("assets", ["BTC,,ETH", "BTC,BTC", ""])
def test_assets_that_are_not_different_names_are_refused_before_anything_is_written(tmp_path, capsys, assets):
    assert evolve("--runs", str(tmp_path / "runs"), *SMALL, "--assets", assets) == 2
    assert "different names with commas between" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def stopped(tmp_path, monkeypatch, capsys):
    """A run that was interrupted after its second generation; its id and its folder of runs."""
    from specialists.watching import GenerationTable

    show = GenerationTable.show

    def interrupt(self, evolution):
        show(self, evolution)
        if evolution.progress.generation == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(GenerationTable, "show", interrupt)
    runs = tmp_path / "runs"
    assert evolve("--runs", str(runs), *SMALL) == 130
    monkeypatch.undo()
    (run,) = runs.iterdir()
    assert f"--resume {run.name}" in capsys.readouterr().out
    return run


def test_an_interrupted_run_says_how_to_go_on_and_ends_as_if_nothing_had_happened(stopped, tmp_path, capsys):
    assert evolve("--runs", str(stopped.parent), "--resume", "latest", "--threads", "2") == 0
    assert "Continued after generation 1" in capsys.readouterr().out
    whole = tmp_path / "whole" / "runs"
    assert evolve("--runs", str(whole), *SMALL) == 0
    (other,) = whole.iterdir()
    assert result(stopped) == result(other)
    assert verdict(stopped) == verdict(other)
    assert [path.name for path in stopped.parent.iterdir()] == [stopped.name]
    trials = json.loads((stopped / "report.json").read_text())["data"]["fingerprint"]
    ledgers = [Ledger(folder.parent / "ledger.sqlite").summary(trials) for folder in (stopped.parent, whole)]
    assert ledgers[0].n_unique == ledgers[1].n_unique


def test_a_finished_run_is_not_resumed(stopped, capsys):
    assert evolve("--runs", str(stopped.parent), "--resume", stopped.name) == 0
    assert evolve("--runs", str(stopped.parent), "--resume", stopped.name) == 2
    assert "this run is finished" in capsys.readouterr().err


def test_a_run_whose_settings_were_edited_is_not_resumed(stopped, capsys):
    config = stopped / "config.yaml"
    config.write_text(config.read_text().replace("folds: 4", "folds: 5"))
    assert evolve("--runs", str(stopped.parent), "--resume", stopped.name) == 2
    assert "cannot go on bit for bit" in capsys.readouterr().err
    assert evolve("--runs", str(stopped.parent), "--resume", stopped.name, "--resume-changed") == 2


def test_a_run_goes_on_with_other_code_only_when_told_and_is_marked(stopped, capsys, monkeypatch):
    from specialists import evolving

    monkeypatch.setattr(evolving, "code_version", lambda: {"sources": "other"})
    assert evolve("--runs", str(stopped.parent), "--resume", stopped.name) == 2
    assert "--resume-changed" in capsys.readouterr().err
    assert evolve("--runs", str(stopped.parent), "--resume", stopped.name, "--resume-changed") == 0
    assert "the run was changed" in capsys.readouterr().out
    (change,) = json.loads((stopped / "changes.json").read_text())
    assert (change["key"], change["after"]) == ("code", "other")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--resume", "latest"], "holds no evolution to resume"),
        (["--resume", "evolve-volatile_20200101T000000Z"], "no such run"),
        (["--resume", "latest", "--seed", "3"], "--seed was given with --resume"),
        (["--resume", "latest", "--set", "seed=3"], "--set was given with --resume"),
        (["--resume-changed"], "--resume-changed was given without --resume"),
        (["--dashboard", *SMALL], "needs workers 'ray'"),
        (["--set", "islands.count=9", *SMALL], "an island would hold"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, capsys, arguments, sentence):
    assert evolve("--runs", str(tmp_path / "runs"), *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1

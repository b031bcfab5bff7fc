"""Whole trainings on small settings: they end, resume to the same bytes, and refuse in a sentence."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from conductor.model import FOLDER, WEIGHTS, Conductor
from conductor.strategies import FineTuning
from conductor.train import main
from conductor.training_settings import DEFAULT_SECONDS, TrainConfig, effort_of
from configs.load import ConfigError, load

SMALL = [
    "landscapes.dimensions=[3]",
    "landscapes.sizes=[[8, 6]]",
    "static.iterations=2",
    "static.candidates=4",
    "static.tasks=2",
    "labels.runs=8",
    "labels.forks=8",
    "labels.branches=4",
    "labels.horizon=2",
    "labels.repeats=1",
    "strategies.generations=3",
    "strategies.pairs=2",
    "strategies.tasks=3",
    "strategies.validate_every=2",
    "judging.validation_tasks=8",
    "judging.race_tasks=12",
    "judging.schedule_iterations=1",
    "checkpoint_every=1",
    "threads=2",
]
WINDOWS = [
    "trading.assets=[A]",
    "market.synthetic.n_bars=17520",
    "trading.windows.window_bars=600",
    "trading.windows.least_awake=60",
    "trading.windows.population_size=8",
    "trading.windows.n_generations=4",
    "trading.windows.reference_factor=1",
    "trading.windows.fitness.folds=3",
    "trading.windows.fitness.min_trades=2",
    "trading.windows.detector.name=volatility",
]


def trained(runs, *arguments, settings=SMALL):
    """Return status and the only, or latest, training run."""
    given = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--runs", str(runs), *given])
    folders = sorted(runs.glob("train-*")) if runs.exists() else []
    return end.value.code, folders[-1] if folders else None


def test_a_training_on_landscapes_and_windows_leaves_a_conductor_a_race_and_a_report(tmp_path, capsys):
    base = ["variant.base.name=dann", "variant.base.epochs=4", "variant.base.steps=1"]
    status, folder = trained(tmp_path / "runs", "--variant", "hybrid", settings=SMALL + WINDOWS + base)
    said = capsys.readouterr()
    assert status == 0, said.err
    conductor = Conductor.load(folder / FOLDER)
    assert conductor.variant == "hybrid"
    assert conductor.scaler is not None
    assert conductor.fitted_until == 0  # synthetic bars say nothing of a real market
    report = json.loads((folder / "report.json").read_text())
    assert set(report["suites"]) == {"families", "windows"}
    assert report["training"]["validation"][0]["generation"] == 0.0
    assert report["training"]["schooling"]
    for name in (
        "report.md",
        "race.html",
        "training.html",
        "results.parquet",
        "manifest.json",
        "config.yaml",
    ):
        assert (folder / name).stat().st_size > 0
    for name in ("training", "controls", "importance"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "--conductor" in said.out
    assert not list(folder.rglob("*.unfinished"))


def test_a_training_that_was_broken_off_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, capsys, blank_pictures
):
    arguments = ["--variant", "es", "--tasks", "landscapes"]
    status, whole = trained(tmp_path / "whole", *arguments)
    assert status == 0
    step = FineTuning.step

    def broken(self):
        if self.strategies.generation == 2:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(FineTuning, "step", broken)
    status, folder = trained(tmp_path / "runs", *arguments)
    assert status == 130
    assert f"--resume {folder.name}" in capsys.readouterr().out
    assert not (folder / FOLDER).exists()
    monkeypatch.setattr(FineTuning, "step", step)
    status, again = trained(tmp_path / "runs", "--resume", "latest", settings=[])
    assert (status, again) == (0, folder)
    first, second = (load_file(one / FOLDER / WEIGHTS) for one in (whole, folder))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    for name in ("suites",):
        one, other = (json.loads((f / "report.json").read_text())[name] for f in (whole, folder))
        assert one == other
    status, _ = trained(tmp_path / "runs", "--resume", "latest", settings=[])
    assert status == 2
    assert "this run is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "oracle"], "no variant named 'oracle'"),
        (["--tasks", "chess"], "tasks"),
        (["--budget", "soon"], "'soon' is no length of time"),
        (["--resume", "latest"], "holds no training to resume"),
        (["--resume", "latest", "--seed", "3"], "--seed was given with --resume"),
        (["--held-out", "Z"], "trading.held_out names Z"),
        (["--bars", "nowhere.parquet"], "must hold {asset}"),
        (["--bars", "nowhere-{asset}.parquet", "--assets", "BTC"], "there is no such file of bars"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence_and_leaves_nothing(
    arguments, message, tmp_path, capsys
):
    status, folder = trained(tmp_path / "runs", *arguments, settings=[])
    said = capsys.readouterr()
    assert status == 2
    assert message in said.err
    assert "Traceback" not in said.err
    assert folder is None
    assert not (tmp_path / "runs").exists()


def test_a_changed_setting_or_code_does_not_go_on_with_another_training(tmp_path, capsys, blank_pictures):
    runs = tmp_path / "runs"
    status, folder = trained(runs, "--variant", "es", "--tasks", "landscapes")
    assert status == 0
    (folder / "report.json").unlink()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("seed: 7", "seed: 8"))
    capsys.readouterr()
    status, _ = trained(runs, "--resume", "latest", settings=[])
    assert status == 2
    assert "settings" in capsys.readouterr().err
    shutil.rmtree(folder)


def test_a_budget_is_measured_by_a_default_run_and_makes_trainings_longer_not_rivals_weaker():
    assert effort_of("15m") * DEFAULT_SECONDS == 900.0
    assert effort_of("2h") == 8.0
    for wrong in ("", "5", "-1h", "0m", "1 week"):
        with pytest.raises(ConfigError, match="is no length of time"):
            effort_of(wrong)
    default = load(TrainConfig, "train.yaml")
    longer = load(TrainConfig, "train.yaml", effort=8.0).scaled()
    assert longer.strategies.generations == 8 * default.strategies.generations
    assert longer.static == default.static
    assert longer.judging == default.judging
    assert default.digest() != load(TrainConfig, "train.yaml", seed=8).digest()
    assert default.digest() == load(TrainConfig, "train.yaml", runs="elsewhere", threads=1).digest()

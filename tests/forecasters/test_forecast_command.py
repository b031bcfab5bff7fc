"""The whole command on tiny settings: what it leaves, how it resumes and refuses; and a plugin of a user."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from configs.load import Config, ConfigError, load
from forecasters import running
from forecasters.forecaster import FORECASTERS, Forecaster, read_forecaster, write_forecaster
from forecasters.running import load_fold
from forecasters.settings import ForecastConfig
from forecasters.train import main
from market.features.dataset import DatasetConfig

TINY = [
    "market.synthetic.n_bars=4400",
    "features.names=[return_1,return_24,rsi_14,volatility_24]",
    "schedule.span=month",
    "schedule.train_spans=3",
    "schedule.embargo_bars=24",
    "baselines=[majority,last_sign]",
    "bootstrap_paths=20",
]


def forecast(runs, *arguments, settings=TINY):
    """Return the status, and the latest run."""
    given = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--runs", str(runs), *given])
    folders = sorted(runs.glob("forecast-*")) if runs.exists() else []
    return end.value.code, folders[-1] if folders else None


def read(path):
    return pq.read_table(path).to_pydict()


def test_a_training_leaves_config_manifest_predictions_models_figures_and_a_report(tmp_path, capsys):
    code, folder = forecast(tmp_path / "runs", "--model", "logistic", "--horizon", "4h", "--json")
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads((folder / "report.json").read_text())
    assert json.loads(said.out) == found
    assert found["model"] == "logistic"
    assert found["label"] == "triple_barrier_4h"
    assert set(found["pooled"]) == {"logistic", "majority", "last_sign"}
    assert set(found["leads"]) == {"majority", "last_sign"}
    assert "SYNTHETIC" in found["data"]["origin"]
    for name in ("config.yaml", "manifest.json", "report.md", "log.txt"):
        assert (folder / name).stat().st_size
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["name"] == "logistic"
    assert config["model"]["penalty"] == 100.0  # of configs/forecasters/logistic.yaml
    rows = read(folder / "predictions" / "logistic.parquet")
    assert len(rows["time"]) == found["out_of_fold"]["rows"]
    assert all(a < b for a, b in zip(rows["trained_through"], rows["time"], strict=True))
    np.testing.assert_allclose(
        [sum(one) for one in zip(rows["p_down"], rows["p_none"], rows["p_up"], strict=True)], 1.0
    )
    assert set(rows["decision"]) <= {-1, 0, 1}
    known = [i for i, label in enumerate(rows["label"]) if label is not None]
    hits = [rows["decision"][i] == rows["label"][i] for i in known]
    assert len(known) == found["pooled"]["logistic"]["rows"]
    assert 0.2 < np.mean(hits) < 0.6  # a market of chance
    assert len(found["folds"]) == len(list((folder / "models").iterdir())) >= 2
    assert load_fold(folder).label == "triple_barrier_4h"
    text = (folder / "report.md").read_text()
    for line in ("# logistic on triple_barrier_4h", "## Against the baselines", "## Folds"):
        assert line in text


def test_a_training_is_repeated_after_so_many_bars(tmp_path, capsys):
    bars = [one for one in TINY if not one.startswith(("schedule.span", "schedule.train"))]
    bars += ["schedule.every_bars=1200", "schedule.train_spans=2"]
    code, folder = forecast(tmp_path / "runs", "--model", "logistic", settings=bars)
    assert code == 0, capsys.readouterr().err
    found = json.loads((folder / "report.json").read_text())
    assert found["schedule"]["every_bars"] == 1200
    assert found["out_of_fold"]["rows"] == 4400 - 2400
    rows = read(folder / "predictions" / "logistic.parquet")
    assert [rows["fold"].count(number) for number in (1, 2)] == [1200, 800]
    code, none = forecast(tmp_path / "none", "--schedule", "month", settings=bars)
    assert (code, none) == (2, None)
    assert "span is month and every_bars 1200" in capsys.readouterr().err


def test_a_training_that_was_stopped_goes_on_as_if_it_had_never_been(tmp_path, capsys, monkeypatch):
    tree = ["--model", "random_forest", "--set", "model.trees=8", "--set", "model.threads=1"]
    code, whole = forecast(tmp_path / "whole", *tree)
    assert code == 0
    fit, fitted = running.fit_fold, []

    def stops(*arguments):
        if len(fitted) == 1:
            raise KeyboardInterrupt
        fitted.append(arguments[3])
        return fit(*arguments)

    monkeypatch.setattr(running, "fit_fold", stops)
    code, folder = forecast(tmp_path / "runs", *tree)
    assert code == 130
    assert not (folder / "report.json").exists()
    assert f"--resume {folder.name}" in capsys.readouterr().out
    fitted.clear()
    monkeypatch.setattr(
        running, "fit_fold", lambda *arguments: fitted.append(arguments[3]) or fit(*arguments)
    )
    code, resumed = forecast(tmp_path / "runs", "--resume", "latest", settings=[])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert resumed == folder
    assert fitted == list(range(1, len(fitted) + 1))  # the first fold was not fitted again
    for name in (
        "predictions/random_forest.parquet",
        "predictions/majority.parquet",
        "report.json",
        "report.md",
    ):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    code, _ = forecast(tmp_path / "runs", "--resume", folder.name, settings=[])
    assert code == 2
    assert "this run is finished" in capsys.readouterr().err


def test_a_resume_with_other_settings_is_refused(tmp_path, capsys, monkeypatch):
    def stops(*arguments):
        raise KeyboardInterrupt

    fit, calls = running.fit_fold, []
    monkeypatch.setattr(
        running, "fit_fold", lambda *arguments: stops() if calls else calls.append(1) or fit(*arguments)
    )
    _, folder = forecast(tmp_path, "--model", "majority")
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("seed: 7\n", "seed: 8\n"))
    monkeypatch.setattr(running, "fit_fold", fit)
    code, _ = forecast(tmp_path, "--resume", folder.name, settings=[])
    assert code == 2
    assert "cannot go on bit for bit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "xgbost"], "no forecaster named 'xgbost'; did you mean xgboost?"),
        (["--model", "logistic", "--horizon", "90m"], "horizon '90m' on bars of 1h"),
        (["--model", "logistic", "--set", "model.penalty=-1"], "penalty"),
        (["--model", "logistic", "--set", "model.depth=3"], "depth"),
        (["--schedule", "fortnight"], "--span"),
        (["--set", "market.synthetic.n_bars=1200"], "give no fold"),
        (["--set", "baselines=[coin]"], "no forecaster named 'coin'"),
        (["--bars", "nowhere.parquet"], "nowhere.parquet"),
        (["--resume", "latest"], "holds no training to resume"),
        (["--resume", "latest", "--horizon", "4h"], "--horizon was given with --resume"),
        (["--resume", "latest", "--model", "svm"], "--model was given with --resume"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_a_sentence_and_leaves_nothing(tmp_path, capsys, arguments, sentence):
    settings = [] if "--resume" in arguments else TINY
    given = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:  # what the test sets goes last, and wins
        main([*given, *arguments, "--runs", str(tmp_path / "runs")])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_forecasters_can_be_listed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--list"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for name in ("xgboost", "lightgbm", "catboost", "logistic", "random_forest", "svm", "majority", "ar1"):
        assert f"\n{name} " in f"\n{said}"


def test_a_run_without_models_has_no_fold_to_load(tmp_path):
    with pytest.raises(ConfigError, match="has 0 fitted folds"):
        load_fold(tmp_path)


def test_the_packaged_settings_load_and_where_results_lie_is_no_setting_of_theirs():
    default = load(ForecastConfig, "forecast.yaml")
    assert default.digest() == load(ForecastConfig, "forecast.yaml", runs="elsewhere").digest()
    assert default.digest() != load(ForecastConfig, "forecast.yaml", seed=8).digest()
    assert default.features == load(DatasetConfig, "dataset.yaml").features
    with pytest.raises(ConfigError, match="must name each baseline once"):
        load(ForecastConfig, "forecast.yaml", ["baselines=[ar1, ar1]"])


class CoinConfig(Config):
    """Settings of the toy."""

    up: float = 0.2


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A forecaster of a user: four methods and a decorator, in no file of the project; and its YAML file."""
    monkeypatch.setattr(FORECASTERS, "_plugins", dict(FORECASTERS._plugins) if FORECASTERS.names() else {})
    monkeypatch.setattr(FORECASTERS, "_tags", dict(FORECASTERS._tags))

    @FORECASTERS.register("coin", family="toy")
    class Coin(Forecaster):
        Config = CoinConfig

        def fit(self, train, validation, *, seed, told=None):
            self.down = float((train.target == 0).mean()) * (1.0 - self.config.up)
            return self

        def predict(self, windows):
            return np.tile([self.down, 1.0 - self.down - self.config.up, self.config.up], (len(windows), 1))

        def save(self, folder):
            write_forecaster(folder, "coin", self.config, {"down": self.down})

        @classmethod
        def load(cls, folder):
            saved = read_forecaster(folder, "coin")
            coin = cls(saved.config(CoinConfig))
            coin.down = float(saved.array("down", ()))
            return coin

    path = tmp_path / "coin.yaml"
    path.write_text("name: coin\nup: 0.3\n")
    return path


def test_a_toy_of_four_methods_a_decorator_and_a_yaml_file_trains_without_touching_any_other_file(
    toy, tmp_path, capsys
):
    plain = ["--set", "learning.calibration=none", "--set", "learning.decision=likeliest"]
    code, folder = forecast(tmp_path / "runs", "--model", str(toy), *plain)
    assert code == 0, capsys.readouterr().err
    found = json.loads((folder / "report.json").read_text())
    assert (found["model"], found["family"], found["settings"]) == ("coin", "toy", {"up": 0.3})
    rows = read(folder / "predictions" / "coin.parquet")
    assert set(rows["p_up"]) == {0.3}
    fitted = load_fold(folder)
    assert type(fitted.forecaster).__name__ == "Coin"
    assert fitted.forecaster.predict(np.zeros((1, 1, 4), np.float32))[0, 0] == rows["p_down"][-1]
    assert "coin" in [Path(name).stem for name in (folder / "predictions").iterdir()]

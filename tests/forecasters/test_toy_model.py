"""A new forecaster is four methods, a decorator and a YAML file: here in a package of somebody else.

The package is installed as packages are, with an entry point, into a folder of its own; nothing of the
project knows of it. A fresh interpreter trains it, tunes it and compares it.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = '''
"""Whoever is near to the mean of a class probably belongs to it."""

import numpy as np
from pydantic import Field

from configs.load import Config
from forecasters.forecaster import FORECASTERS, Forecaster, read_forecaster, write_forecaster


class CentroidsConfig(Config):
    """Settings."""

    sharpness: float = Field(1.0, gt=0, le=100, description="How much nearer counts.")


@FORECASTERS.register("centroids", family="toy")
class Centroids(Forecaster):
    """Answers by the distances from the mean of each class."""

    Config = CentroidsConfig

    def fit(self, train, validation, *, seed, told=None):
        rows = train.tabular().astype(np.float64)
        taught = [train.target == one for one in range(3)]
        self.means = np.array([np.average(rows[one], axis=0, weights=train.weight[one]) for one in taught])
        return self

    def predict(self, windows):
        apart = windows[:, -1, None, :].astype(np.float64) - self.means
        near = np.exp(-self.config.sharpness * (apart**2).mean(axis=2))
        return near / near.sum(axis=1, keepdims=True)

    def save(self, folder):
        write_forecaster(folder, "centroids", self.config, {"means": self.means.tolist()})

    @classmethod
    def load(cls, folder):
        saved = read_forecaster(folder, "centroids")
        found = cls(saved.config(CentroidsConfig))
        found.means = saved.array("means")
        return found
'''
SETTINGS = """
name: centroids
sharpness: 2.0
search:
  sharpness: {low: 0.5, high: 8.0, log: true}
"""
METADATA = "Metadata-Version: 2.1\nName: toy-forecasters\nVersion: 1.0\n"
ENTRY_POINTS = "[regime_conductor.forecaster]\ncentroids = toy_forecasters.centroids\n"
#: Runs commands one after the other in one interpreter, and lets a fold from the disk answer.
SCRIPT = """
import importlib, importlib.util, json, sys
from pathlib import Path
import numpy as np
codes = []
for module, arguments in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module).main(arguments)
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code or 0)
from forecasters.running import load_fold
(run,) = Path("trained").iterdir()
model = load_fold(run).forecaster
answers = model.predict(np.array([[[0.5] * 4], [[-0.5] * 4]], np.float32))
member = None
if importlib.util.find_spec("ensemble.forecasts"):
    from configs.load import load
    from ensemble.forecasts import check_members, train_forecasters
    from ensemble.settings import ValidateConfig
    from experiments.runs import Run
    from market.features.pipeline import FeaturePipeline
    from market.sources.selection import select_bars
    config = load(ValidateConfig, "validate.yaml", json.loads(sys.argv[2]))
    check_members(config)
    bars = select_bars(config.market).bars
    features = FeaturePipeline(config.forecast_features).update(bars)
    run = Run.open("blended", "validate", "toy")
    (found,) = train_forecasters(run, config, bars, features, {"data": "toy"}, lambda *told: None, print)
    known = ~np.isnan(found.answers[:, 0])
    member = {
        "name": found.name,
        "rows": int(known.sum()),
        "unseen": bool((found.trained_through[known] < bars.time[known]).all()),
        "varies": float(found.answers[known].std(axis=0).min()),
        "kept": type(found.fitted(run, len(bars) - 1).forecaster).__module__,
    }
print("codes", json.dumps([codes, type(model).__module__, answers.tolist(), member]))
"""
#: Small products: more threads only wait for each other.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
TINY = {
    "market.synthetic.n_bars": 4400,
    "features.names": "[return_1,return_24,rsi_14,volatility_24]",
    "schedule.span": "month",
    "schedule.train_spans": 3,
    "schedule.embargo_bars": 24,
    "bootstrap_paths": 20,
}
#: The same as a member of the ensemble.
MEMBER = [
    "market.synthetic.n_bars=4400",
    "forecast_features.names=[return_1,return_24,rsi_14,volatility_24]",
    "folds={span: month, embargo_bars: 24}",
    "forecasters=[{name: centroids.yaml, label: {horizon: 4h}, span: month, train_spans: 3}]",
]


def given(**more):
    settings = TINY | {name.replace("__", "."): value for name, value in more.items()}
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


class Place(NamedTuple):
    """The folder, what the commands ended with and said, and what a fold and a member answer."""

    folder: Path
    codes: dict[str, int]
    said: str
    module: str
    answers: np.ndarray
    member: dict | None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the installed package, its YAML file, and the runs of the commands there are."""
    folder = tmp_path_factory.mktemp("toy")
    package, information = (
        folder / "site" / "toy_forecasters",
        folder / "site" / "toy_forecasters-1.0.dist-info",
    )
    package.mkdir(parents=True)
    information.mkdir()
    (package / "__init__.py").write_text("")
    (package / "centroids.py").write_text(MODEL)
    (information / "METADATA").write_text(METADATA)
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "centroids.yaml").write_text(SETTINGS)
    few = given(baselines="[majority]")
    commands = [
        ("forecasters.train", ["--model", "centroids.yaml", "--horizon", "4h", *few, "--runs", "trained"])
    ]
    if importlib.util.find_spec("experiments.tune"):
        held = given(baselines="[majority]", hold_out=1)
        tune = ["--target", "centroids.yaml", "--trials", "3", *held, "--runs", "tuned"]
        commands.append(("experiments.tune", tune))
    if importlib.util.find_spec("experiments.compare"):
        compare = ["--forecasters", "centroids.yaml,logistic", "--horizons", "4h", *few, "--runs", "compared"]
        commands.append(("experiments.compare", compare))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands), json.dumps(MEMBER)],
        cwd=folder,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    codes, module, answers, member = json.loads(done.stdout.rpartition("codes ")[2])
    named = dict(zip([name for name, _ in commands], codes, strict=True))
    return Place(folder, named, done.stdout + done.stderr, module, np.array(answers), member)


def finished(place, command, prefix):
    """Return the folder of the run of a command, and its report; skips where there is no such command."""
    if command not in place.codes:
        pytest.skip(f"there is no command {command}")
    assert place.codes[command] == 0, place.said
    (run,) = place.folder.glob(f"{prefix}-*")
    return run, json.loads((run / "report.json").read_text())


def test_it_is_trained_walk_forward_like_any_other(place):
    run, found = finished(place, "forecasters.train", "trained/forecast")
    assert (found["model"], found["family"], found["settings"]) == ("centroids", "toy", {"sharpness": 2.0})
    assert set(found["pooled"]) == {"centroids", "majority"}
    rows = pq.read_table(run / "predictions" / "centroids.parquet").to_pydict()
    assert len(rows["time"]) == found["out_of_fold"]["rows"] > 500
    assert all(a < b for a, b in zip(rows["trained_through"], rows["time"], strict=True))
    answers = np.array([rows["p_down"], rows["p_none"], rows["p_up"]])
    np.testing.assert_allclose(answers.sum(axis=0), 1.0, atol=1e-9)
    assert answers.std(axis=1).min() > 0.0  # it answers rows, not with one constant


def test_a_fold_of_it_comes_back_from_the_disk(place):
    run, _ = finished(place, "forecasters.train", "trained/forecast")
    assert place.module == "toy_forecasters.centroids"
    np.testing.assert_allclose(place.answers.sum(axis=1), 1.0)
    assert (place.answers[0] != place.answers[1]).all()
    saved = json.loads(max(run.glob("models/*/model/forecaster.json")).read_text())
    means = np.array(saved["state"]["means"])
    near = np.exp(-2.0 * ((0.5 - means) ** 2).mean(axis=1))
    np.testing.assert_allclose(place.answers[0], near / near.sum())


def test_it_is_tuned_by_the_ranges_of_its_own_file(place):
    _, found = finished(place, "experiments.tune", "tuned/tune")
    assert (found["model"], found["family"]) == ("centroids", "toy")
    tried = [trial["parameters"]["sharpness"] for trial in found["trials"]]
    assert len(tried) == 3
    assert tried[0] == 2.0  # what its file says comes first
    assert len(set(tried)) == 3
    assert all(0.5 <= one <= 8.0 for one in tried)
    assert found["best"]["value"] >= found["defaults"]["value"]


def test_it_is_compared_with_one_of_ours_on_the_same_rows(place):
    _, found = finished(place, "experiments.compare", "compared/compare")
    models = found["horizons"]["4h"]["models"]
    assert set(models) == {"centroids", "logistic", "majority"}
    assert (models["centroids"]["family"], models["centroids"]["naive"]) == ("toy", False)
    assert models["centroids"]["settings"] == {"sharpness": 2.0}
    alone = finished(place, "forecasters.train", "trained/forecast")[1]["pooled"]["centroids"]
    assert models["centroids"]["figures"]["f1_macro"] == alone["f1_macro"]
    # It has learned something that the other one knows, too, and is not the other one.
    assert 0.5 < found["horizons"]["4h"]["correlation"]["signals"]["centroids"]["logistic"] < 1.0


def test_it_enters_the_ensemble_with_answers_out_of_fold(place):
    if place.member is None:
        pytest.skip("there is no ensemble")
    assert place.member["name"] == "centroids_4h"
    assert place.member["kept"] == "toy_forecasters.centroids"
    assert place.member["unseen"]
    assert place.member["rows"] > 1000
    assert place.member["varies"] > 0.0


def test_no_file_of_the_project_has_heard_of_it():
    known = [
        *(ROOT / "forecasters").glob("*.py"),
        *(ROOT / "configs").rglob("*.yaml"),
        ROOT / "pyproject.toml",
    ]
    assert len(known) > 30
    assert not [path for path in known if "centroids" in path.read_text(encoding="utf-8")]

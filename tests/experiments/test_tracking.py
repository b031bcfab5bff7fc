"""A mirror shows a run in MLflow, and can neither change nor lose it.

MLflow itself is used where it is installed. Elsewhere a double stands for it, with the signatures of its
client, which are held against the real ones wherever those are.
"""

import importlib.util
import inspect
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from configs.load import ConfigError, validate
from experiments import tracking
from experiments.runs import Run
from experiments.tracking import Entry, TrackingConfig, mirror, require_tracking

INSTALLED = importlib.util.find_spec("mlflow") is not None
URI = "http://me:secret@tracking.example:5000"
WHOLE = Entry("whole", {"seed": 7, "a": {"b": 1}}, {}, {"sample": "out of fold"})
PART = Entry("xgboost 4h", {"depth": 6}, {"f1_macro": 0.41, "sharpe": None, "psr": math.nan})


class Client:
    """The part of ``mlflow.MlflowClient`` that is used, with its signatures; it keeps what it is told."""

    told: list

    def __init__(self, tracking_uri=None, registry_uri=None):
        self.uri = tracking_uri

    def get_experiment_by_name(self, name):
        return next((SimpleNamespace(experiment_id=n) for n in self.experiments if n == name), None)

    def create_experiment(self, name, artifact_location=None, tags=None):
        self.experiments.append(name)
        return name

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        self.runs.append({"experiment": experiment_id, "name": run_name, "tags": tags, "params": {}})
        self.runs[-1] |= {"metrics": {}, "files": [], "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs) - 1)))

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        assert len(metrics) <= 1000
        assert len(params) <= 100
        self.runs[int(run_id)]["params"] |= {one.key: one.value for one in params}
        self.runs[int(run_id)]["metrics"] |= {one.key: one.value for one in metrics}

    def log_artifact(self, run_id, local_path, artifact_path=None):
        with open(local_path, "rb") as file:
            self.runs[int(run_id)]["files"].append((artifact_path, file.read()))

    def set_terminated(self, run_id, status=None, end_time=None):
        self.runs[int(run_id)]["status"] = status


class Metric(SimpleNamespace):
    def __init__(self, key, value, timestamp, step):
        super().__init__(key=key, value=value, timestamp=timestamp, step=step)


class Param(SimpleNamespace):
    def __init__(self, key, value):
        super().__init__(key=key, value=value)


@pytest.fixture
def double(monkeypatch):
    """MLflow as a double; returns its client, on which everything is kept."""
    client = type("Kept", (Client,), {"experiments": [], "runs": []})
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient, module.entities, module.__path__ = client, entities, []
    entities.Metric, entities.Param = Metric, Param
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return client


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "runs", "compare", "all")
    run.write_bytes("report.md", b"# Report")
    run.write_bytes("plots/a.png", b"png")
    return run


def test_without_a_server_nothing_is_imported_and_nothing_happens(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import would fail
    require_tracking(TrackingConfig())
    assert mirror(TrackingConfig(), run, WHOLE, [PART], ["report.md"]) == ""


def test_a_run_is_mirrored_with_its_parts_below_it_and_its_files(run, double):
    config = TrackingConfig(mlflow=URI, experiment="bars")
    require_tracking(config)
    assert mirror(config, run, WHOLE, [PART], ["report.md", "plots/a.png"]) == ""
    whole, part = double.runs
    assert double.experiments == ["bars"]
    assert (whole["name"], whole["experiment"], whole["status"]) == ("whole", "bars", "FINISHED")
    assert whole["params"] == {"seed": "7", "a": "{'b': 1}"}
    assert whole["tags"] == {"sample": "out of fold", "folder": run.id}
    assert whole["files"] == [(None, b"# Report"), ("plots", b"png")]
    assert part["tags"] == {"mlflow.parentRunId": "0"}
    assert part["metrics"] == {"f1_macro": 0.41}  # what is not defined is no figure
    assert part["status"] == "FINISHED"
    assert mirror(config, run, WHOLE) == ""
    assert double.experiments == ["bars"]  # the experiment is made once


def test_many_settings_go_in_requests_that_a_server_takes(run, double):
    many = Entry("many", {f"p{i}": "x" * 9000 for i in range(250)}, {f"m/{i}:": i for i in range(2500)})
    assert mirror(TrackingConfig(mlflow=URI), run, many) == ""
    assert len(double.runs[0]["params"]) == 250
    assert len(double.runs[0]["metrics"]) == 2500
    assert max(map(len, double.runs[0]["params"].values())) <= 500
    assert "m/3_" in double.runs[0]["metrics"]  # a name that every server takes


@pytest.mark.parametrize("fails", ["get_experiment_by_name", "create_run", "log_batch", "log_artifact"])
def test_a_server_that_fails_anywhere_leaves_the_run_whole_and_a_warning_without_the_password(
    run, double, monkeypatch, fails
):
    def refuse(*arguments, **options):
        raise RuntimeError(f"{URI} is down\nlong story")

    monkeypatch.setattr(double, fails, refuse)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    warning = mirror(TrackingConfig(mlflow=URI), run, WHOLE, [PART], ["report.md"])
    assert "http://me:***@tracking.example:5000" in warning
    assert "is down" in warning
    assert f"nothing of {run.id} is lost" in warning
    assert "secret" not in warning
    assert "\n" not in warning
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_server_without_mlflow_is_refused_before_the_work_and_is_a_warning_after_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    config = TrackingConfig(mlflow="sqlite:///mlflow.db")
    with pytest.raises(ConfigError, match=r"regime-conductor\[tracking\]"):
        require_tracking(config)
    assert "is not mirrored" in mirror(config, run, WHOLE)


def test_an_empty_server_is_refused():
    with pytest.raises(ConfigError, match="empty text"):
        require_tracking(TrackingConfig(mlflow=" "))
    with pytest.raises(ConfigError, match="experiment"):
        validate(TrackingConfig, {"experiment": ""}, "here")


def test_usage_statistics_are_off_unless_somebody_wants_them(double, monkeypatch):
    import os

    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    tracking._imported()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    tracking._imported()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"


@pytest.mark.skipif(not INSTALLED, reason="MLflow is not installed (extra tracking)")
@pytest.mark.filterwarnings("ignore")
def test_the_double_has_the_signatures_of_mlflow():
    import mlflow
    import mlflow.entities

    for name, own in vars(Client).items():
        if inspect.isfunction(own):
            real = inspect.signature(getattr(mlflow.MlflowClient, name)).parameters
            names = [one for one in inspect.signature(own).parameters if one in real]
            assert names == list(inspect.signature(own).parameters), name
    for own, real in ((Metric, mlflow.entities.Metric), (Param, mlflow.entities.Param)):
        names = list(inspect.signature(own).parameters)
        assert list(inspect.signature(real).parameters)[: len(names)] == names


@pytest.mark.skipif(not INSTALLED, reason="MLflow is not installed (extra tracking)")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_shows_what_was_mirrored(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # files are kept beside the data base
    config = TrackingConfig(mlflow=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="bars")
    require_tracking(config)
    assert mirror(config, run, WHOLE, [PART], ["report.md"]) == ""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=config.mlflow)
    found = client.search_runs([client.get_experiment_by_name("bars").experiment_id])
    named = {one.info.run_name: one for one in found}
    assert set(named) == {"whole", "xgboost 4h"}
    assert named["xgboost 4h"].data.metrics == {"f1_macro": 0.41}
    assert named["xgboost 4h"].data.tags["mlflow.parentRunId"] == named["whole"].info.run_id
    assert named["whole"].data.params["seed"] == "7"
    assert {one.info.status for one in found} == {"FINISHED"}
    assert [one.path for one in client.list_artifacts(named["whole"].info.run_id)] == ["report.md"]
    dead = mirror(TrackingConfig(mlflow="nonsense://nowhere"), run, WHOLE)
    assert "is not mirrored" in dead

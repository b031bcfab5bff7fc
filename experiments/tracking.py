"""A finished run mirrored to MLflow: settings, figures and files, where a tracking server is named.

The folder of the run stays what counts. Nothing is ever read back, and a server that fails ends the mirror
and not the run: the run is whole before the mirror begins. MLflow is the extra ``tracking``; it is imported
when a server is named, and its own usage statistics are switched off.
"""

import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from configs.load import Config, ConfigError
from experiments.runs import Run

_EXTRA = "tracking"
# What one request may hold.
_METRICS, _PARAMS = 1000, 100
_LONGEST = 500  # letters of a value that every version of the server takes
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")
_PASSWORD = re.compile(r"//([^/@:\s]*):[^/@\s]*@")


class TrackingConfig(Config):
    """Where finished runs are mirrored."""

    mlflow: str | None = Field(
        None, description="Tracking URI such as sqlite:///mlflow.db or http://localhost:5000; null: nowhere."
    )
    experiment: str = Field("regime-conductor", min_length=1, description="Experiment of MLflow.")


@dataclass(frozen=True)
class Entry:
    """What becomes one run of MLflow.

    Parameters
    ----------
    name : str
    params : mapping of str to object
        Settings; written as text.
    metrics : mapping of str to float or None
        Figures; what is not finite is left out.
    tags : mapping of str to str
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def require_tracking(config: TrackingConfig) -> None:
    """Refuse a config that names a server while MLflow is not installed: before the work, not after it.

    Raises
    ------
    ConfigError
    """
    if config.mlflow is None:
        return
    if not config.mlflow.strip():
        raise ConfigError("tracking.mlflow is empty text; it must be a tracking URI, or null")
    try:
        _imported()
    except ImportError as error:
        raise ConfigError(
            f"tracking.mlflow needs MLflow ({error}); install the extra: "
            f"pip install 'regime-conductor[{_EXTRA}]', or set tracking.mlflow to null"
        ) from error


def mirror(
    config: TrackingConfig,
    run: Run,
    entry: Entry,
    children: Sequence[Entry] = (),
    files: Sequence[str] = (),
) -> str:
    """Mirror a finished run; return a warning in one sentence, empty if all is well or nothing was asked for.

    Parameters
    ----------
    config : TrackingConfig
    run : Run
        Finished: what is in its folder stays whatever happens here.
    entry : Entry
        Of the run as a whole.
    children : sequence of Entry
        Parts of it, nested below.
    files : sequence of str
        Files of the run, relative to its folder, that are kept with it.
    """
    if config.mlflow is None:
        return ""
    place = _without_password(config.mlflow)
    try:
        mlflow = _imported()
        client = mlflow.MlflowClient(tracking_uri=config.mlflow)
        known = client.get_experiment_by_name(config.experiment)
        experiment = client.create_experiment(config.experiment) if known is None else known.experiment_id
        whole = _write(mlflow, client, experiment, entry, {"folder": run.id})
        for child in children:
            _end(client, _write(mlflow, client, experiment, child, {"mlflow.parentRunId": whole}))
        for name in files:
            within = str(Path(name).parent)
            client.log_artifact(whole, str(run.folder / name), None if within == "." else within)
        _end(client, whole)
    except Exception as error:  # servers, databases and stores of files each have errors of their own
        return (
            f"MLflow at {place}: the run is not mirrored, or in part ({_first_line(error)}); nothing of "
            f"{run.id} is lost"
        )
    return ""


def _imported() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    import mlflow.entities

    for name in ("mlflow", "alembic"):  # tables that are made are not for our terminal
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def _write(mlflow: Any, client: Any, experiment: str, entry: Entry, tags: Mapping[str, str]) -> str:
    made = client.create_run(experiment, run_name=entry.name, tags={**entry.tags, **tags})
    run_id, now = made.info.run_id, int(time.time() * 1000)
    entities = mlflow.entities
    params = [entities.Param(_name(key), str(value)[:_LONGEST]) for key, value in entry.params.items()]
    metrics = [
        entities.Metric(_name(key), float(value), now, 0)
        for key, value in entry.metrics.items()
        if value is not None and math.isfinite(value)
    ]
    for first in range(0, len(params), _PARAMS):
        client.log_batch(run_id, params=params[first : first + _PARAMS])
    for first in range(0, len(metrics), _METRICS):
        client.log_batch(run_id, metrics=metrics[first : first + _METRICS])
    return run_id


def _end(client: Any, run_id: str) -> None:
    client.set_terminated(run_id, status="FINISHED")


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)[:250]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = _without_password(lines[0] if lines else type(error).__name__).rstrip(".")
    return said if len(said) <= 300 else f"{said[:299]}…"


def _without_password(text: str) -> str:
    return _PASSWORD.sub(r"//\1:***@", text)

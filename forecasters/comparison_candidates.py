"""Who is compared: which forecasters there are, and for each a training, new or finished earlier.

Every candidate is a run of ``forecasters.train`` in the folder of the comparison, so that whatever stops a
comparison costs one fold at most; or a finished run with equal settings, data and code.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from configs.load import ConfigError, InputError, PluginConfig, load
from experiments.records import read_json
from experiments.runs import Run, code_version, library_versions, list_runs
from forecasters import report
from forecasters.comparison_settings import ALL, CompareConfig
from forecasters.forecaster import FORECASTERS, new_forecaster, plugin_config
from forecasters.running import COMMAND, resume_run, train_run
from forecasters.settings import ForecastConfig
from market.bars import Bars
from market.table import DataError

CANDIDATES = "candidates"
NAIVE, ORDER_BOOK = "naive", "order_book"
#: Settings without influence on the answers of the model itself.
_BESIDE = ("runs", "baselines", "bootstrap_paths")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a forecaster answered, every row by a fit that had not seen it.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, increasing.
    fold : int64 (n,)
        Time of the first row of the fold of each row: two trainings number their folds differently.
    probabilities : float64 (n, 3)
        Down, none, up; NaN where the row was not answered.
    decision : int8 (n,)
        Class, 1 (none) where the row was not answered.
    label : int8 (n,)
        -1, 0, 1; 0 where it is not known.
    known : bool (n,)
        Whether there is a label.
    ret : float64 (n,)
        What the label earned before costs; NaN where it is not known.
    """

    time: np.ndarray
    fold: np.ndarray
    probabilities: np.ndarray
    decision: np.ndarray
    label: np.ndarray
    known: np.ndarray
    ret: np.ndarray


@dataclass(frozen=True, eq=False)
class Candidate:
    """One forecaster at one horizon.

    Parameters
    ----------
    name : str
        By which the comparison calls it.
    family : str
        ``naive`` for a baseline.
    run : str
        Run that trained it.
    config : ForecastConfig
    predictions : Predictions
    """

    name: str
    family: str
    run: str
    config: ForecastConfig
    predictions: Predictions

    @property
    def naive(self) -> bool:
        """Whether it is what others are held against."""
        return self.family == NAIVE


def resolved(config: CompareConfig) -> tuple[CompareConfig, dict[str, str]]:
    """Return the config with the settings of every forecaster in it, and who is left out, with the reason.

    Raises
    ------
    ConfigError
        If a forecaster that was named does not exist, or a setting is wrong.
    """
    chosen: dict[str, PluginConfig] = {}
    skipped: dict[str, str] = {}
    for name in config.baselines:
        chosen[name] = plugin_config(name)
        if FORECASTERS.tags(name).get("family") != NAIVE:
            raise ConfigError(f"baselines: {name} is no naive forecaster; a baseline takes no skill")
    if config.models:  # a comparison that goes on, or settings that say all themselves
        skipped = everyone()[1] if ALL in config.forecasters else {}
    for text in () if config.models else config.forecasters:
        if text == ALL:
            found, skipped = everyone()
            chosen |= {name: one for name, one in found.items() if name not in chosen}
            continue
        one = plugin_config(text)
        label = one.name
        if label in chosen and chosen[label] != one:
            label = Path(text).stem
        if label in chosen and chosen[label] != one:
            raise ConfigError(f"forecasters: there are two called {label}; give their files other names")
        chosen[label] = one
    chosen |= config.models
    for one in chosen.values():
        new_forecaster(one)  # a wrong setting should not cost the time of a training
    return config.model_copy(update={"models": chosen}), skipped


def everyone() -> tuple[dict[str, PluginConfig], dict[str, str]]:
    """Return every registered forecaster that can read bars, and who is left out, with the reason."""
    chosen, skipped = {}, {}
    for name in FORECASTERS.names():
        if FORECASTERS.tags(name).get("family") == ORDER_BOOK:
            skipped[name] = "it reads order books, and bars hold none"
        else:
            chosen[name] = plugin_config(name)
    if importlib.util.find_spec("torch") is None:
        skipped["networks"] = "PyTorch is not installed: the extra conductor"
    return chosen, skipped


def trained(
    config: CompareConfig,
    run: Run,
    data: Mapping[str, str],
    console: Console,
    skipped: dict[str, str],
) -> dict[str, list[Candidate]]:
    """Return the candidates of each horizon, trained now, before the comparison was stopped, or earlier.

    Parameters
    ----------
    config : CompareConfig
        With the settings of every forecaster.
    run : Run
        The comparison's.
    data : mapping of str to str
        Fingerprint of the ``bars``, and of features and labels by horizon.
    console : Console
    skipped : dict of str to str
        Who was left out and why; a forecaster that refuses the data is added, unless it was named.

    Raises
    ------
    InputError
        If a forecaster that was named refuses the data.
    """
    found: dict[str, list[Candidate]] = {horizon: [] for horizon in config.horizons}
    total = len(config.horizons) * len(config.models)
    place = 0
    for horizon in config.horizons:
        for name, model in config.models.items():
            place += 1
            console.rule(f"{name}, {horizon} ({place} of {total})", style="dim")
            training = config.training(model, horizon, str(run.folder / CANDIDATES))
            try:
                folder = _training(config, training, data, console)
            except InputError as error:
                if not _optional(config, name):
                    raise
                skipped[name] = " ".join(str(error).split())
                console.print(f"! {name} is left out: {skipped[name]}", markup=False)
                continue
            found[horizon].append(read_candidate(folder, name, training))
    return found


def finished(config: CompareConfig) -> dict[str, list[Candidate]]:
    """Return the candidates of finished runs by their horizon, with the baselines that were beside them.

    Raises
    ------
    ConfigError
        If there is no such run, it is not finished, or it is no training.
    """
    found: dict[str, list[Candidate]] = {}
    for run_id in config.runs_of:
        run, training = finished_run(config.runs, run_id)
        beside = found.setdefault(training.label.horizon, [])
        names = {one.name for one in beside}
        own = training.model.name
        if own in names and FORECASTERS.tags(own).get("family") != NAIVE:
            own = run.id  # two trainings of one forecaster are told apart by their runs
        if own not in names:
            beside.append(read_candidate(run.folder, own, training))
        beside += [
            read_candidate(run.folder, name, training, name)
            for name in training.rivals()
            if name not in names
        ]
    return found


def finished_run(runs: str, run_id: str) -> tuple[Run, ForecastConfig]:
    """Return a finished training and its settings; :class:`ConfigError` if it is none."""
    run = Run.at(runs, run_id)
    if not run.id.startswith(f"{COMMAND}-") or not (run.folder / report.JSON).is_file():
        raise ConfigError(f"{run.folder}: is no finished training; --runs-of takes runs of forecasters.train")
    return run, load(ForecastConfig, run.folder / "config.yaml", runs=runs)


def read_candidate(folder: Path, name: str, config: ForecastConfig, model: str | None = None) -> Candidate:
    """Return what a finished run holds of its model, or of a baseline beside it."""
    model = config.model.name if model is None else model
    return Candidate(
        name,
        str(FORECASTERS.tags(model).get("family", "")),
        folder.name,
        config,
        read_predictions(folder / "predictions" / f"{model}.parquet"),
    )


def read_predictions(path: Path) -> Predictions:
    """Return the predictions in a file of a run.

    Raises
    ------
    DataError
        If the file is missing or damaged, or a row is not later than what its forecaster was trained on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        time, through = (
            table[name].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
            for name in ("time", "trained_through")
        )
        number = table["fold"].to_numpy()
        probabilities = np.column_stack([_floats(table, f"p_{name}") for name in report.CLASSES])
        decision, label, ret = (_floats(table, name) for name in ("decision", "label", "ret"))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: holds no predictions ({' '.join(str(error).split())})") from error
    if not time.size or (np.diff(time) <= 0).any():
        raise DataError(f"{path}: its times do not increase; it is not what a training wrote")
    if (through >= time).any():
        raise DataError(
            f"{path}: a row is not later than what its forecaster was trained on; it is not out of fold"
        )
    first = np.r_[True, np.diff(number) != 0]
    known = ~np.isnan(label)
    return Predictions(
        time,
        time[np.flatnonzero(first)][np.cumsum(first) - 1],
        probabilities,
        (np.nan_to_num(decision) + 1).astype(np.int8),
        np.nan_to_num(label).astype(np.int8),
        known,
        np.where(known, ret, np.nan),
    )


def digest(config: ForecastConfig) -> str:
    """Return the SHA-256 of what the answers of the model depend on; baselines beside it are not among it."""
    document = config.model_dump(mode="json", exclude=set(_BESIDE))
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _training(
    config: CompareConfig,
    training: ForecastConfig,
    data: Mapping[str, str],
    console: Console,
) -> Path:
    # The folder of a finished run with these settings.
    for own in _with_settings(training.runs, training):
        if (own.folder / report.JSON).is_file():
            console.print(f"Trained before the comparison was stopped: {own.id}")
            return own.folder
        return resume_run(training.runs, own.id, console, show=False)
    if config.reuse:
        roots = [config.runs, *Path(config.runs).glob(f"compare-*/{CANDIDATES}")]
        for earlier in (one for root in roots for one in reversed(_with_settings(root, training))):
            if (earlier.folder / report.JSON).is_file() and _alike(
                earlier, data["bars"], data[training.label.horizon]
            ):
                console.print(f"Taken from the finished run {earlier.id}: equal settings, data and code")
                return earlier.folder
    return train_run(training, console, show=False)


def _with_settings(root: str | Path, training: ForecastConfig) -> list[Run]:
    wanted, found = digest(training), []
    for run in list_runs(root, COMMAND):
        try:
            config = load(ForecastConfig, run.folder / "config.yaml")
        except InputError:
            continue  # killed before it was written, or of another version
        if digest(config) == wanted:
            found.append(run)
    return found


def _alike(run: Run, bars: str, examples: str) -> bool:
    # Whether a run was made by this code and these libraries from these bars, features and labels.
    try:
        manifest: dict[str, Any] = read_json(run.folder / "manifest.json")
    except (OSError, ValueError):
        return False
    return (
        (manifest.get("code") or {}).get("sources") == code_version()["sources"]
        and manifest.get("libraries") == library_versions()
        and manifest.get("data") == {"bars": bars, "examples": examples}
    )


def require_bars(config: CompareConfig, bars: Bars) -> None:
    """Refuse finished runs that were trained on other bars."""
    for run_id in config.runs_of:
        run = Run.at(config.runs, run_id)
        found = (read_json(run.folder / "manifest.json").get("data") or {}).get("bars")
        if found != bars.fingerprint():
            raise ConfigError(
                f"{run.folder}: was trained on other bars than {config.runs_of[0]}; runs that are compared "
                f"need the same ones"
            )


def _optional(config: CompareConfig, name: str) -> bool:
    return ALL in config.forecasters and name not in config.forecasters and name not in config.baselines


def _floats(table: Any, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False).astype(np.float64)

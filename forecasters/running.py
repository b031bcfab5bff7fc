"""One run of ``python -m forecasters.train``: fold by fold, resumable, with everything kept in its folder."""

import hashlib
import time as clock
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.load import ConfigError, load
from configs.progress_bar import PARTS, progress_bar
from experiments.runs import Run, code_version, latest, library_versions
from forecasters import report
from forecasters.fitted import FittedForecaster
from forecasters.forecaster import FORECASTERS, new_forecaster, plugin_config
from forecasters.quantiles import column
from forecasters.settings import ForecastConfig
from forecasters.training import Fold, Ground, fit_fold, folds_of, prepare
from ga.checkpoint import Checkpoints
from market.sources.selection import Selection, select_bars
from market.splits import Split
from market.table import utc

COMMAND = "forecast"
MODELS = "models"


def train_run(config: ForecastConfig, console: Console, show: bool = True) -> Path:
    """Train, measure, print (with ``show``) and save; return the folder of the run.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong; nothing is left behind then.
    """
    ground, selection, splits = _read(config, console)
    run = Run.open(config.runs, COMMAND, config.model.name)
    run.write_config(config)
    console.print(f"Run {run.id}, seed {config.seed}")
    return _complete(run, config, ground, selection, splits, console, show)


def resume_run(runs: str, name: str, console: Console, show: bool = True) -> Path:
    """Go on with a run that was stopped or killed, as if it had never been; return its folder.

    Raises
    ------
    ConfigError
        If there is no such run, it is finished, or its settings, data or code are not what they were.
    """
    run = latest(runs, COMMAND) if name == "latest" else Run.at(runs, name)
    if run is None:
        raise ConfigError(f"{runs}: holds no training to resume; start one with python -m forecasters.train")
    if (run.folder / report.JSON).exists():
        raise ConfigError(f"{run.folder}: this run is finished; its figures are in {report.MARKDOWN}")
    config = load(ForecastConfig, run.folder / "config.yaml", runs=runs)
    ground, selection, splits = _read(config, console)
    run.remove_drafts()
    console.print(f"Going on with run {run.id}, seed {config.seed}")
    return _complete(run, config, ground, selection, splits, console, show)


def load_fold(folder: str | Path, number: int = -1) -> FittedForecaster:
    """Return the forecaster of a fold of a run, by default the latest.

    Raises
    ------
    ConfigError
        If the run has no such fold.
    """
    found = sorted((Path(folder) / MODELS).glob("fold-*"))
    try:
        return FittedForecaster.load(found[number])
    except IndexError:
        raise ConfigError(f"{folder}: has {len(found)} fitted folds; there is no number {number}") from None


def _read(config: ForecastConfig, console: Console) -> tuple[Ground, Selection, tuple[Split, ...]]:
    # A typing error should not cost the time of reading, nor leave a folder behind.
    new_forecaster(config.model)
    for name in config.rivals():
        new_forecaster(plugin_config(name))
    selection = select_bars(config.market)
    selection.show(console)
    with console.status("computing features and labels"):
        ground = prepare(selection.bars, config.dataset())
        splits = folds_of(ground, config.schedule)
    return ground, selection, splits


def _complete(
    run: Run,
    config: ForecastConfig,
    ground: Ground,
    selection: Selection,
    splits: tuple[Split, ...],
    console: Console,
    show: bool,
) -> Path:
    data = {"bars": ground.bars.fingerprint(), "examples": fingerprint(ground)}
    run.write_manifest(data=data, seeds={"root": config.seed})
    identity = {
        "settings": config.digest(),
        "data": " ".join(data.values()),
        "code": code_version()["sources"],
        **library_versions(),
    }
    with Checkpoints(run.folder / "checkpoints" / "state", identity, keep=2) as checkpoints:
        try:
            folds = _folds(run, config, ground, splits, checkpoints, console)
        except BaseException:
            if checkpoints.generations():
                console.print(
                    f"To go on: python -m forecasters.train --runs {run.folder.parent} --resume {run.id}",
                    soft_wrap=True,
                )
            raise
        for name in folds[0].answers:
            _write_predictions(run, name, ground, folds)
        with console.status("measuring"):
            found = report.figures(config, ground, selection, folds, FORECASTERS.tags(config.model.name))
        run.write_bytes(report.MARKDOWN, report.markdown(found).encode())
        run.write_manifest(
            data=data,
            seeds={"root": config.seed},
            rows={f"fold {fold.number + 1}": [fold.test.start, fold.test.stop] for fold in folds},
        )
        run.write_json(report.JSON, found)  # last: it says that the run is finished
    if show:
        report.show(console, found)
    console.print(f"Predictions, models and report: {run.folder}", soft_wrap=True)
    return run.folder


def _folds(
    run: Run,
    config: ForecastConfig,
    ground: Ground,
    splits: tuple[Split, ...],
    checkpoints: Checkpoints,
    console: Console,
) -> list[Fold]:
    folds: list[Fold] = []
    if checkpoints.generations():
        found = checkpoints.load()
        for note in found.notes:
            console.print(f"! {note}", markup=False)
        folds = [Fold.of_state(state) for state in found.state["folds"]]
        console.print(f"Going on after fold {len(folds)} of {len(splits)}")
    with progress_bar(console, "folds", len(splits), len(folds), PARTS) as told:
        for number, split in list(enumerate(splits))[len(folds) :]:
            began = clock.perf_counter()
            place = f"fold {number + 1}, test from {utc(ground.bars.time[split.test.start])[:10]}"
            told(number, place)
            fold = fit_fold(
                ground, split, config, number,
                lambda share, line, number=number, place=place: told(number + share, f"{place}: {line}"),
            )  # fmt: skip
            fold.fitted.save(run.path(f"{MODELS}/fold-{number + 1:03d}"))
            folds.append(fold)
            checkpoints.save(number, {"folds": [one.state() for one in folds]})
            run.log(f"{place}: {clock.perf_counter() - began:.1f} s")
        told(len(splits), "folds")
    return folds


def fingerprint(ground: Ground) -> str:
    """Return 16 hexadecimal digits: the hash of features and labels."""
    digest = hashlib.sha256(repr((ground.features.names, ground.labels.name)).encode())
    for array in (ground.features.time, ground.features.values, ground.labels.value, ground.labels.known_at):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _write_predictions(run: Run, name: str, ground: Ground, folds: list[Fold]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = ground.labels
    rows = np.concatenate([np.arange(fold.test.start, fold.test.stop) for fold in folds])
    sizes = [fold.test.stop - fold.test.start for fold in folds]
    through = np.repeat([fold.trained_through for fold in folds], sizes)
    if (through >= ground.bars.time[rows]).any():
        raise RuntimeError("a prediction is no later than what its forecaster was trained on")
    answers = np.concatenate([fold.answers[name] for fold in folds])
    unanswered, unknown = np.isnan(answers[:, 0]), ~labels.known[rows]
    moment = pa.timestamp("ns", tz="UTC")

    def where_known(values: np.ndarray, kind: pa.DataType, missing: np.ndarray = unknown) -> pa.Array:
        return pa.array(values, kind, mask=missing)

    decision = np.concatenate([fold.decisions[name] for fold in folds]).astype(np.int8) - 1
    columns = {
        "time": pa.array(ground.bars.time[rows], moment),
        "fold": pa.array(np.repeat([fold.number + 1 for fold in folds], sizes).astype(np.int16)),
        "trained_through": pa.array(through, moment),
        **{
            f"p_{one}": where_known(answers[:, i], pa.float64(), unanswered)
            for i, one in enumerate(report.CLASSES)
        },
        **{
            column(level): where_known(
                np.concatenate([fold.quantiles[name][:, i] for fold in folds]), pa.float64(), unanswered
            )
            for i, level in enumerate(folds[0].levels.get(name, ()))
        },
        "decision": where_known(decision, pa.int8(), unanswered),
        "label": where_known(labels.value[rows], pa.int8()),
        "known_at": where_known(labels.known_at[rows], moment),
        "ret": where_known(labels.ret[rows], pa.float64()),
    }
    with run.writing(f"predictions/{name}.parquet") as draft:
        pq.write_table(pa.table(columns), draft)

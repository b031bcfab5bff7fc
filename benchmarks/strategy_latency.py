"""Time from a closed bar to a decision: one bar at a time through a whole strategy, and through its parts.

    python -m benchmarks.strategy_latency
    python -m benchmarks.strategy_latency --strategy RUN/strategies/fold-022 --bars FILE

Without ``--strategy`` a small one of xgboost and logistic is fitted on the synthetic market. Its parts do not
depend on how well they were fitted, but trees do on how many were grown; so the forecasters are also timed
alone, fitted on random numbers with the settings that come with them and as many trees as those allow.

All times are those of the clock, one answer after the other; other work on the machine shows in the slowest
hundredth.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measuring import machine
from compute.workers import SerialMapper
from configs.load import load
from ensemble.folds import FoldJob, folds_of
from ensemble.forecasts import train_forecasters
from ensemble.informed import informed, wanted
from ensemble.settings import ValidateConfig
from ensemble.strategy import Strategy
from experiments.runs import Run
from forecasters.forecaster import Forecaster, new_forecaster, plugin_config
from forecasters.windows import Examples
from market.bars import Bars
from market.features.pipeline import FeaturePipeline
from market.sources.selection import MarketConfig, select_bars
from regimes.path import PathFilter

N_COLUMNS, N_LEARN = 149, 2_000
MODELS = {"xgboost": {"patience": 10_000}, "lstm": {"epochs": 1}}
SMALL = (
    "market.synthetic.n_bars=9000", "folds.span=month", "folds.train_spans=6", "folds.validation_spans=1",
    "folds.embargo_bars=24", "folds.latest=1", "random_routing.draws=0", "rivals=[]",
    "specialists.generalist=false", "specialists.hyperparameters.population_size=16",
    "specialists.hyperparameters.n_generations=2", "specialists.fitness.folds=4",
    "specialists.fitness.min_trades=2",
    "forecasters=[{name: xgboost, label: {horizon: 4h}, span: month, train_spans: 5}, "
    "{name: logistic, label: {horizon: 4h}, span: month, train_spans: 5}]",
)  # fmt: skip


def small() -> tuple[Strategy, Bars]:
    """Return a strategy that has just been fitted on the synthetic market, and its bars."""
    config = load(ValidateConfig, "validate.yaml", list(SMALL))
    bars = select_bars(config.market).bars
    core = FeaturePipeline(config.features).update(bars)
    wide = FeaturePipeline(config.forecast_features).update(bars)
    splits = folds_of(bars, core.warmup, config)
    with tempfile.TemporaryDirectory() as place:
        run = Run.open(Path(place) / "runs", "latency", "small")
        forecasts = train_forecasters(run, config, bars, wide, {}, _silent, _silent)
        job = FoldJob(run, config, bars, core, wide, forecasts, splits, {})
        with SerialMapper() as workers:
            job.fit(0, workers)
        return job.strategy_of(0), bars


def tell(name: str, seconds: np.ndarray) -> None:
    """Print the middle and the slowest hundredth of float64 (n,) seconds."""
    middle, slow = np.quantile(seconds, [0.5, 0.99]) * 1e3
    print(f"{name:34} {middle:8.3f} {slow:8.3f}", flush=True)


def each(answer: Callable[[int], object], numbers: range) -> np.ndarray:
    """Return the seconds of each call, float64 (n,)."""
    seconds = np.empty(len(numbers))
    for i, number in enumerate(numbers):
        began = time.perf_counter()
        answer(number)
        seconds[i] = time.perf_counter() - began
    return seconds


def whole(strategy: Strategy, bars: Bars, rows: range) -> np.ndarray:
    """Return the seconds that each of the last bars takes from its close to the exposure."""
    one = strategy.fresh()
    one.update(bars[: rows.start])
    return each(lambda row: one.update(bars[row : row + 1]), rows)


def parts(strategy: Strategy, bars: Bars, rows: range) -> None:
    """Print the same of each part, fed with what the parts before it said."""
    pipelines = {"core": FeaturePipeline(strategy.features)}
    if strategy.forecast_features is not None:
        pipelines["forecast"] = FeaturePipeline(strategy.forecast_features)
    past, features = bars[: rows.start], {}
    for name, pipeline in pipelines.items():
        features[name] = pipeline.fresh().update(bars)
        pipeline.update(past)
        tell(f"features, {name}: {len(features[name].names)}", each(_fed(pipeline, bars), rows))
    detector, path = strategy.detector.fresh(), PathFilter(strategy.path)
    regimes = strategy.detector.fresh().update(features["core"])
    labels = path.fresh().update(regimes)
    detector.update(features["core"][: rows.start])
    tell("regimes", each(_fed(detector, features["core"]), rows))
    path.update(regimes[: rows.start])
    tell("label of the regime", each(_fed(path, regimes), rows))
    signals, *_ = strategy.fresh().hear(bars, features["core"], features.get("forecast"))
    said = dict(zip(signals.names, signals.values.T, strict=True))
    for source in strategy.sources:
        table = informed(features[source.reads], wanted(source.columns), said)
        one = source.fresh()
        one.update(past, table[: rows.start], regimes[: rows.start], labels[: rows.start])
        tell(f"{source.kind} {source.name}", each(_fed(one, bars, table, regimes, labels), rows))
    half, given = strategy.fresh(), (bars, features["core"], signals, regimes, labels)
    half.blend(*(one[: rows.start] for one in given))
    slices = lambda row: (one[row : row + 1] for one in given)  # noqa: E731 - of one row each
    tell("blender, gates and sizing", each(lambda row: half.blend(*slices(row)), rows))


def fitted(name: str, settings: dict) -> Forecaster:
    """Return a forecaster with its own settings that has learned random numbers."""
    rng, names = np.random.default_rng(0), tuple(f"feature_{i}" for i in range(N_COLUMNS))
    features = rng.normal(size=(N_LEARN, N_COLUMNS)).astype(np.float32)
    model = new_forecaster(plugin_config(name).model_copy(update=settings))
    rows = np.arange(model.lookback, N_LEARN, dtype=np.int64)
    target = rng.integers(0, 3, rows.size).astype(np.int8)
    train = Examples(features, rows, model.lookback, target, None, names)
    if name == "xgboost":
        # Without rows to stop on it grows all the trees that it may.
        return model.fit(train, train.take(slice(0, 0)), seed=1)
    return model.fit(train, train.take(slice(0, 64)), seed=1)


def alone(model: Forecaster, count: int) -> np.ndarray:
    """Return the seconds of single windows, each another one."""
    rng = np.random.default_rng(1)
    windows = rng.normal(size=(count, model.lookback, N_COLUMNS)).astype(np.float32)
    model.predict(windows[:1])
    return each(lambda i: model.predict(windows[i : i + 1]), range(count))


def _fed(stage, *tables) -> Callable[[int], object]:
    return lambda row: stage.update(*(table[row : row + 1] for table in tables))


def _silent(*_: object) -> None:
    pass


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", type=Path, help="folder of a saved strategy; default: a small new one")
    parser.add_argument("--bars", help="file of the bars it trades; needed with --strategy")
    parser.add_argument("--rows", type=int, default=500, help="bars that are fed one by one, the latest")
    given = parser.parse_args()
    if (given.strategy is None) != (given.bars is None):
        parser.error("--strategy and --bars belong together")
    if given.strategy is None:
        strategy, bars = small()
    else:
        strategy, bars = Strategy.load(given.strategy), select_bars(MarketConfig(bars=given.bars)).bars
    if not 2 <= given.rows <= len(bars) // 2:
        parser.error(f"--rows is {given.rows}; it must be 2 to half of the {len(bars):,} bars")
    rows = range(len(bars) - given.rows, len(bars))
    print(machine())
    names = ", ".join(source.name for source in strategy.sources)
    print(f"{bars.label}, {len(bars):,} bars, the last {len(rows):,} one by one; members: {names}")
    print(f"{'milliseconds':34} {'middle':>8} {'p99':>8}")
    tell("whole strategy", whole(strategy, bars, rows))
    parts(strategy, bars, rows)
    for name, settings in MODELS.items():
        tell(f"{name} alone, {N_COLUMNS} columns", alone(fitted(name, settings), len(rows)))


if __name__ == "__main__":
    main()

"""L1, L2 and L5: what the leak detector finds, whom it does not accuse, and what it says of our own chain.

    python -m benchmarks.leaks [--cuts 50] [--prefixes 200] [--bars 5200] [--only tally|chain]

Three tables. The 24 planted leaks of guarantees, section 5: the routes that found each, the first row it
touches, how many rows it looks ahead at least, and by how much an answer of the past changed. The 12 clean
controls. Then every part of the chain from bars to targets, cut off at 200 rows (L1) and given four other
futures at 50 rows (L2): the largest difference to what had been answered before, which must be 0. Its last
parts are whole: strategies of a walk-forward, loaded from disk, and the walk-forward itself, in which all is
fitted anew on every one of these data.

The exit status is 1 unless the tally is 24 of 24 and 0 of 12, and every difference of the chain is 0.
"""

import argparse
import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from backtest.limits import RiskLimits
from compute.seeds import stream
from compute.workers import SerialMapper
from configs.load import load, validate
from ensemble import folds
from ensemble.blenders import BLENDERS
from ensemble.forecasts import train_forecasters
from ensemble.rerun import walked
from ensemble.settings import ValidateConfig
from ensemble.strategy import Strategy
from experiments.runs import Run
from forecasters.fitted import FittedForecaster
from forecasters.settings import ForecastConfig
from forecasters.training import fit_fold, folds_of, prepare
from ga.space import Genome
from market.bars import Bars
from market.causal import transform
from market.external import AsOfJoin, ExternalSeries
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.leak_report import PREFIX, REFIT, STAMP, LeakReport
from market.leaks import inspect
from market.poisons import Given
from market.resample import resample
from market.scaling import Scaler
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.detector import DETECTORS, load_detector
from regimes.path import PathFilter
from specialists.family import FAMILIES
from specialists.specialist import Specialist
from tests.leaks.controls import CONTROLS
from tests.leaks.ground import Case
from tests.leaks.planted import LEAKS

WARMED, SHARE = 2_000, 0.7  # rows until every feature is known; share of the others that teaches
PIECE = 250
FORECAST = {
    "model": {"name": "logistic"},
    "features": {"names": ["return_1", "return_24", "rsi_14", "volatility_24", "close_location_24"]},
    "label": {"horizon": "4"},
    "schedule": {"span": "month", "train_spans": 6, "embargo_bars": 12},
    "baselines": ["majority"],
}
#: A walk-forward of two folds, small enough to be repeated at every cut: the last one learns on rows that
#: cuts in the first one alter.
WALK = (
    "folds={span: month, train_spans: 5, validation_spans: 1, embargo_bars: 24}",
    "specialists.hyperparameters={population_size: 16, n_generations: 2}",
    "specialists.fitness={folds: 4, min_trades: 2}", "specialists.generalist=false",
    "forecast_features.names=[return_1,return_24,zscore_24,volatility_24]",
    "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 4}]",
    "random_routing.draws=0",
)  # fmt: skip
EMBARGO = 24  # bars between the last label that taught and the first row that is answered
#: Blenders that are fed bars; all of them are fed features, which is the quicker way to the same rows.
STREAMED = ("route", "regime_weighted", "online", "stack")
LEAST_CHANGES = 10  # of the exposure out of sample: a strategy that sleeps proves nothing


@dataclass(frozen=True)
class Part:
    """A part of the chain, on the inputs it is given there.

    Parameters
    ----------
    name : str
    stage : callable or Stage
    inputs : tuple of Table or ExternalSeries
    options : mapping
        Of :func:`market.leaks.inspect`.
    share : float
        Of the cuts that are asked for: what is fitted again at each of them takes its time.
    """

    name: str
    stage: Callable[..., Any] | Any
    inputs: tuple[Given, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0

    def inspected(self, cuts: int, prefixes: int) -> tuple[LeakReport, LeakReport]:
        """Return what cutting off has found, and what other futures have."""
        cuts, prefixes = (math.ceil(self.share * count) for count in (cuts, prefixes))
        shorter = inspect(self.stage, *self.inputs, cuts=0, starts=0, prefixes=prefixes, **self.options)
        altered = inspect(self.stage, *self.inputs, cuts=cuts, starts=0, prefixes=0, **self.options)
        return shorter, altered


def chain(n: int, folder: Path, seed: int = 5) -> Iterator[Part]:
    """Return the parts of the chain on a synthetic market, everything fitted as loaded from disk.

    Parameters
    ----------
    n : int
        Hourly bars.
    folder : Path
        For what is saved and loaded.
    seed : int
    """
    bars = synthetic_market(SyntheticConfig(n_bars=n, seed=seed)).bars
    for names in ("all", "full"):
        yield Part(f"features: {names}", in_pieces(FeaturesConfig(names=names)), (bars,))
    yield joined(bars)
    features = transform(FeaturePipeline(), bars)
    last = WARMED + round(SHARE * (n - WARMED))
    train, judged = slice(WARMED, last), {"first": last}
    labels = None
    for name in DETECTORS.names():
        DETECTORS.create(name).fit(features[train]).save(folder / name)
        detector = load_detector(folder / name)
        stamp = {"trained_through": detector.fitted_until, **judged}
        yield Part(
            f"regimes: {name}",
            regimes(detector),
            (Table(features.time, features.values, features.names),),
            stamp,
        )
        labels = labels or transform(PathFilter(), transform(detector, features))
    for name in FAMILIES.names():
        trader = loaded_specialist(name, (bars, features, labels), train, folder / f"specialist-{name}")
        yield Part(f"specialist: {name}", trader, (bars, features, labels), judged)
    yield from forecasts(round(n / 3.5), folder / "fold", seed)
    yield from strategies(bars, folder / "strategies")
    yield walk_forward(bars)


def in_pieces(config: FeaturesConfig) -> Callable[[Bars], dict[str, np.ndarray]]:
    """Return the stage of a pipeline that is fed as it is live: what it has answered stays when it refuses.

    Bars that are NaN are refused, and with one update there would be no answer at all to compare.
    """

    def stage(bars: Bars) -> dict[str, np.ndarray]:
        pipeline = FeaturePipeline(config)
        values = np.full((len(bars), len(pipeline.names)), np.nan)
        end = known(bars)
        for start in range(0, end, PIECE):
            rows = slice(start, min(end, start + PIECE))
            values[rows] = pipeline.update(bars[rows]).values
        with contextlib.suppress(Exception):
            values[end:] = pipeline.update(bars[end:]).values
        return {name: values[:, place] for place, name in enumerate(pipeline.names)}

    return stage


def known(bars: Bars) -> int:
    """Return how many rows come before the first that holds NaN."""
    unknown = np.isnan(bars.values).any(axis=1)
    return int(np.argmax(unknown)) if unknown.any() else len(bars)


def joined(bars: Bars) -> Part:
    """Return the join of a daily close and of a rate that is published late and revised."""
    days = resample(bars, "1d")
    rate = stream(3, "rate").normal(size=len(bars) // 8)
    settled = bars.time[7::8][: rate.size]
    revised = ExternalSeries(
        np.concatenate([settled, settled]),
        np.concatenate([settled + 60_000_000_000, settled + 5 * bars.interval_ns]),
        np.concatenate([rate, rate + 0.1]),
        "rate",
    )

    def stage(hours: Bars, daily: Bars, series: ExternalSeries) -> Table:
        return AsOfJoin([ExternalSeries.of_bars(daily, "close", "day_close"), series]).update(hours)

    return Part("joined series", stage, (bars, days, revised))


def regimes(detector: Any) -> Callable[[Table], dict[str, Table]]:
    """Return the stage from features to probabilities and to the path that decisions follow."""

    def stage(features: Table) -> dict[str, Table]:
        probabilities = transform(detector, features)
        return {"probabilities": probabilities, "path": transform(PathFilter(), probabilities)}

    return stage


def loaded_specialist(name: str, tables: Sequence[Table], train: slice, folder: Path) -> Specialist:
    """Return a genome of a family that trades, from disk; drawn, not evolved."""
    family = FAMILIES.create(name)
    bars, features, labels = tables
    scaler = Scaler.fit(features[train].select(family.signals)) if family.signals else None
    for attempt in range(100):
        genes = family.space.sample(stream(3, "leaks", name, attempt), 1)[0]
        made = Specialist(
            family,
            Genome(genes, family.space.name),
            None,
            scaler,
            RiskLimits(),
            int(bars.time[train.stop - 1]),
        )
        if np.count_nonzero(np.diff(transform(made, bars, features, labels).column("exposure"))) > 20:
            made.save(folder, name)
            return Specialist.load(folder)
    raise RuntimeError(f"family {name}: none of 100 genomes trades; the inspection would prove nothing")


def forecasts(n: int, folder: Path, seed: int) -> Iterator[Part]:
    """Return a fitted fold from disk on feature rows, and a whole training that is run again on bars."""
    bars = synthetic_market(SyntheticConfig(n_bars=n, seed=seed, timeframe="4h")).bars
    config = validate(ForecastConfig, FORECAST, "benchmarks.leaks")
    ground = prepare(bars, config.dataset())
    splits = folds_of(ground, config.schedule)
    fit_fold(ground, splits[0], config).fitted.save(folder)
    fitted, first = FittedForecaster.load(folder), splits[0].test.start

    def loaded(features: Table) -> np.ndarray:
        rows = slice(first, len(features))
        answers = np.full((len(features), 3), np.nan)
        answers[rows] = fitted.answers(features, rows)
        return answers

    plain = Table(bars.time, ground.features.values, ground.features.names)
    stamp = {"trained_through": fitted.trained_through, "first": first}
    yield Part("forecaster: loaded", loaded, (plain,), stamp)

    def trained(given: Bars) -> dict[str, np.ndarray]:
        own = prepare(given, config.dataset())
        answers, through = np.full((len(given), 3), np.nan), np.full(len(given), -1)
        for number, split in enumerate(folds_of(own, config.schedule)):
            fold = fit_fold(own, split, config, number)
            answers[fold.test], through[fold.test] = fold.answers["logistic"], fold.trained_through
        return {"p": answers, "trained_through": through}

    yield Part("forecaster: trained again", trained, (bars,), {"first": first})


def strategies(bars: Bars, folder: Path) -> Iterator[Part]:
    """Return the strategies of a fold by every blender, as loaded from disk: from features, and from bars.

    Parameters
    ----------
    bars : Bars (n,)
    folder : Path
        For the runs of which they are the first fold.

    Raises
    ------
    RuntimeError
        If one of them hardly trades; its inspection would prove nothing.
    """
    config = walk("rivals=[]")
    core, wide = (FeaturePipeline(one).update(bars) for one in (config.features, config.forecast_features))
    splits = folds.folds_of(bars, core.warmup, config)[:1]
    first, run = splits[0].test.start, Run.open(folder, "validate", "leaks")
    forecasts = train_forecasters(run, config, bars, wide, {}, silent, silent)
    loaded: dict[str, Strategy] = {}
    for name in BLENDERS.names():
        chosen = walk("rivals=[]", f"blender.name={name}")
        job = folds.FoldJob(run, chosen, bars, core, wide, forecasts, splits, {})
        with SerialMapper() as alone:
            job.fit(0, alone)
        loaded[name] = job.strategy_of(0)
        wanted = loaded[name].fresh().decide(bars, core, wide).exposure[first:]
        if np.count_nonzero(np.diff(wanted)) < LEAST_CHANGES:
            raise RuntimeError(f"the strategy by {name} hardly trades; the inspection would prove nothing")
    stamps = {
        name: {"trained_through": one.fitted_until, "first": first, "embargo": EMBARGO}
        for name, one in loaded.items()
    }
    plain = tuple(Table(one.time, one.values, one.names) for one in (core, wide))
    for name, one in loaded.items():
        yield Part(f"strategy: {name}", decided(one), (bars, *plain), stamps[name])
    for name in STREAMED:
        yield Part(f"bars to exposure: {name}", streamed(loaded[name]), (bars,), stamps[name])


def decided(strategy: Strategy) -> Callable[[Bars, Table, Table], Table]:
    """Return the stage from bars and features to everything that is decided, exposure and all."""

    def stage(bars: Bars, core: Table, wide: Table) -> Table:
        return strategy.fresh().decide(bars, core, wide).to_table()

    return stage


def streamed(strategy: Strategy) -> Callable[[Bars], dict[str, np.ndarray]]:
    """Return the stage from bars alone to the same; what it has answered stays when it refuses NaN."""

    def stage(bars: Bars) -> dict[str, np.ndarray]:
        one, end = strategy.fresh(), known(bars)
        table = one.update(bars[:end]).to_table()
        values = np.full((len(bars), len(table.names)), np.nan)
        values[:end] = table.values
        with contextlib.suppress(Exception):
            values[end:] = one.update(bars[end:]).to_table().values
        return {name: values[:, place] for place, name in enumerate(table.names)}

    return stage


def walk_forward(bars: Bars, *more: str) -> Part:
    """Return a whole walk-forward as a stage: all that is fitted is fitted again on what it is given.

    Parameters
    ----------
    bars : Bars (n,)
    *more : str
        Settings, ``a.b=c``, over the small ones.
    """
    config = walk(f"rivals=[{', '.join(STREAMED)}]", *more)
    first = folds.folds_of(bars, FeaturePipeline(config.features).warmup, config)[0].test.start

    def stage(given: Bars) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for result in walked(config, given):
            table, test = result.blend.to_table(), result.record.test
            columns = dict(zip(table.names, table.values.T, strict=True)) | {
                f"exposure_{name}": exposure for name, exposure in result.rivals.items()
            }
            for name, values in columns.items():
                found.setdefault(name, np.full(len(given), np.nan))[test] = values
            through = found.setdefault("trained_through", np.full(len(given), -1, np.int64))
            through[test] = result.record.fitted_until
        return found

    options = {"first": first, "embargo": EMBARGO}
    return Part("walk-forward: trained again", stage, (bars,), options, share=0.25)


def walk(*more: str) -> ValidateConfig:
    """Return the settings of a small walk-forward."""
    return load(ValidateConfig, "validate.yaml", [*WALK, *more])


def silent(*_: object) -> None:
    """Take what a training tells, and say nothing."""


def tally(cases: Sequence[Case], cuts: int, prefixes: int, seed: int) -> list[tuple[Case, LeakReport]]:
    """Return the report of each case."""
    return [(case, case.inspected(cuts=cuts, prefixes=prefixes, seed=seed)) for case in cases]


def show_leaks(found: Sequence[tuple[Case, LeakReport]], cuts: int, seed: int) -> int:
    """Print the table of planted leaks; return how many were found."""
    print(f"{'planted leak':34s} {'found by':24s} {'column':13s} first row  ahead       size")
    for case, report in found:
        one = report.first
        if one is None:
            print(f"{case.name:34s} NOT FOUND")
            continue
        reach = max(finding.reach for finding in report.findings)
        place = f"{one.column:13s} {one.row:9d} {reach or '-':>6}"
        routes = ", ".join(report.routes)
        print(f"{case.name:34s} {routes:24s} {place} {size(case, report, cuts, seed):>10s}")
    return sum(not report.clean for _, report in found)


def size(case: Case, report: LeakReport, cuts: int, seed: int) -> str:
    """Return the largest change of an answer on usual data: shortened, or else with their future reversed."""
    for route in (PREFIX, REFIT):
        found = [one.largest for one in report.findings if one.route == route and np.isfinite(one.largest)]
        if found:
            return f"{max(found):.4g}"
    if report.routes == (STAMP,):
        return "-"
    tame = replace(case, options={**case.options, "poisons": ("reversed",)})
    return f"{tame.inspected(cuts=4 * cuts, prefixes=0, starts=0, seed=seed).worst:.4g}"


def show_controls(found: Sequence[tuple[Case, LeakReport]]) -> int:
    """Print the table of clean stages; return how many were accused."""
    print(f"\n{'clean control':34s} {'accused':25s} {'runs':>5s}  remark")
    for case, report in found:
        remark = "depends on its start" if report.starts else ""
        print(f"{case.name:34s} {', '.join(report.routes) or 'no':25s} {report.runs:5d}  {remark}")
    return sum(not report.clean for _, report in found)


def show_chain(parts: Iterator[Part], cuts: int, prefixes: int) -> bool:
    """Print the largest difference of each part, as it is found; return whether all of them are 0."""
    heads = ("columns", "rows", "L1 runs", "worst", "L2 runs", "worst", "refused", "seconds")
    print(f"\n{'part of the chain':32s}" + "".join(f"{head:>9s}" for head in heads))
    clean = True
    for part in parts:
        began = time.perf_counter()
        reports = part.inspected(cuts, prefixes)
        seconds = time.perf_counter() - began
        shorter, altered = reports
        refused = sum(sum(one.refused.values()) for one in reports)
        figures = [
            len(shorter.columns),
            shorter.rows,
            shorter.runs,
            shorter.worst,
            altered.runs,
            altered.worst,
        ]
        print(
            f"{part.name:32s}" + "".join(f"{one:9.4g}" for one in (*figures, refused, round(seconds, 1))),
            flush=True,
        )
        for report in reports:
            clean = clean and report.clean
            if not report.clean or report.refused or report.deaf:
                print("  " + "\n  ".join(report.sentences()[:3]))
    return clean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=50, help="rows after which the future is another")
    parser.add_argument("--prefixes", type=int, default=200, help="rows after which the data end")
    parser.add_argument("--bars", type=int, default=5_200, help="hourly bars of the chain")
    parser.add_argument("--seed", type=int, default=0, help="of the rows at which is cut")
    parser.add_argument("--only", choices=("tally", "chain"), help="one half alone")
    options = parser.parse_args()
    with threadpool_limits(1, user_api="blas"):  # small products: more threads only wait for each other
        return 0 if run(options) else 1


def run(options: argparse.Namespace) -> bool:
    """Print the tables that are asked for; return whether all is as it must be."""
    found, accused, sound = len(LEAKS), 0, True
    if options.only != "chain":
        found = show_leaks(
            tally(LEAKS, options.cuts, options.prefixes, options.seed), options.cuts, options.seed
        )
        accused = show_controls(tally(CONTROLS, options.cuts, options.prefixes, options.seed))
        print(f"\n{found} of {len(LEAKS)} planted leaks found, {accused} of {len(CONTROLS)} controls accused")
    if options.only != "tally":
        with tempfile.TemporaryDirectory() as folder:
            parts = chain(options.bars, Path(folder))
            seeded = (replace(part, options={"seed": options.seed, **part.options}) for part in parts)
            sound = show_chain(seeded, options.cuts, options.prefixes)
        print(f"\nthe chain: {'every difference is 0' if sound else 'THE PAST CHANGED, see above'}")
    return found == len(LEAKS) and accused == 0 and sound


if __name__ == "__main__":
    sys.exit(main())

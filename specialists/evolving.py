"""One evolution from settings to report: the steps of ``python -m ga.evolve`` in their order."""

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from rich.console import Console

from compute.workers import mapper
from configs.load import Config
from experiments.ledger import Ledger
from experiments.runs import Run
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from market.sources.selection import MarketConfig, select_bars
from market.table import utc
from regimes.regime import Regime
from specialists import report
from specialists.training import (
    Evolved,
    Ground,
    SpecialistConfig,
    SpecialistSearch,
    Unseen,
    open_test,
    prepare,
)
from specialists.watching import GenerationTable, TrialBook

LEDGER = "ledger.sqlite"
STRESS_PATHS = 2_000
STRESS_DAYS = 7  # mean block of the bootstrap: long enough to keep the clusters of volatility together


class WorkersConfig(Config):
    """Where evaluations run; the result does not depend on it."""

    name: Literal["auto", "serial", "threads"] = Field("auto", description="auto: threads on all cores.")
    threads: int | None = Field(None, ge=1, le=1024, description="Number of threads; all cores by default.")


class EvolveConfig(SpecialistConfig):
    """Settings of ``python -m ga.evolve``."""

    market: MarketConfig = MarketConfig()
    workers: WorkersConfig = WorkersConfig()
    runs: str = Field("experiments/runs", description="Folder of runs; the trial ledger lies beside it.")
    tearsheet: bool = Field(
        False,
        description="Whether to write the champion's tear sheet and stress tests as well; some seconds.",
    )


def evolve_run(config: EvolveConfig, console: Console) -> Path:
    """Evolve, judge, print and save one specialist; return the folder of the run.

    The folder appears once the settings and the bars have proved good, so that a typing error leaves
    nothing behind.

    Parameters
    ----------
    config : EvolveConfig
    console : Console
        Where progress and verdict are shown.
    """
    began = time.perf_counter()
    if config.regime != "all":
        Regime.of(config.regime)  # a typing error should not cost the minute of reading and fitting
    selection = select_bars(config.market)
    bars = selection.bars
    selection.show(console)
    with console.status("describing bars, fitting the regime detector"):
        ground = prepare(bars, config)
    _show_ground(console, ground, config)
    search = SpecialistSearch.of(ground, config)
    whole = bars.fingerprint()  # not of the training rows: another split is no new data
    with mapper(config.workers.name, config.workers.threads) as workers:
        run = Run.open(config.runs, "evolve", config.regime)
        run.write_config(config)
        _write_manifest(run, config, ground, whole)
        console.print(f"Run {run.id}, seed {config.seed}")
        ledger = Ledger(Path(config.runs).parent / LEDGER)
        table = GenerationTable(console, config.hyperparameters.n_generations)
        with table, TrialBook(ledger, whole, run.id) as book:

            def after(evolution: Evolution, evaluator: Evaluator) -> None:
                book.note(evaluator)
                table.show(evolution)

            evolved = search.evolve(workers, after)
    test = ground.bars.time[ground.split.test]
    subject = evolved.specialist.fingerprint()
    looks = ledger.record_opening(whole, run.id, int(test[0]), int(test[-1]), subject)
    unseen = open_test(ground, evolved.specialist, config.costs, config.venue)
    evidence = report.weigh(evolved, unseen, ledger.summary(whole), looks)
    judged = report.criteria(unseen, evidence)
    found = report.summary(
        evolved,
        unseen,
        evidence,
        judged,
        config.regime,
        data={
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "symbol": bars.symbol,
            "bars": len(bars),
            "fingerprint": whole,
            "features": ground.features.version,
            "detector": config.detector.name,
        },
        rows=_rows(ground),
        run=str(run.folder),
        seed=config.seed,
        wall_seconds=round(time.perf_counter() - began, 2),
    )
    _keep(run, config, ground, evolved, unseen, found)
    report.show(console, found)
    console.print(f"Report, plots and champion: {run.folder}", soft_wrap=True)
    return run.folder


def _show_ground(console: Console, ground: Ground, config: EvolveConfig) -> None:
    train, test = ground.split.train, ground.split.test
    labels = ground.regime_labels[train]
    shares = ", ".join(f"{name} {np.mean(labels == i):.0%}" for i, name in enumerate(ground.regime_names))
    console.print(
        f"Training on {_span(ground, train)}: {shares}. Embargo {ground.split.embargo:,} bars. "
        f"Test on {_span(ground, test)}, opened once.",
    )


def _span(ground: Ground, rows: slice) -> str:
    time = ground.bars.time[rows]
    return f"{time.size:,} bars, {utc(time[0])} to {utc(time[-1])}"


def _keep(
    run: Run, config: EvolveConfig, ground: Ground, evolved: Evolved, unseen: Unseen, found: dict[str, Any]
) -> None:
    from backtest.figures import equity_and_drawdown, trades_over_regimes
    from ga.figures import fitness_curve

    test = ground.split.test
    evolved.specialist.save(run.folder / "checkpoints" / "specialist", config.family.name)
    ground.detector.save(run.folder / "checkpoints" / "detector")
    evolved.in_sample.save(run.folder / "predictions" / "in_sample")
    unseen.champion.save(run.folder / "predictions" / "out_of_sample")
    _write_generations(run, evolved)
    pictures = {
        "plots/fitness.png": "Fitness of each generation, on the training rows",
        "plots/trades.png": "Price, causal regimes and the champion's trades on the test rows",
        "plots/equity.png": "Equity and drawdown on the test rows, beside the baselines",
    }
    title = f"{config.regime} specialist, {ground.bars.label}"
    with run.writing("plots/fitness.png") as draft:
        fitness_curve(evolved.generations, draft, f"{title}: fitness in sample")
    names = dict(enumerate(ground.regime_names))
    with run.writing("plots/trades.png") as draft:
        trades_over_regimes(
            ground.bars[test],
            ground.regime_labels[test],
            names,
            unseen.champion,
            draft,
            f"{title}: trades out of sample",
        )
    results = {
        f"{config.regime} specialist": unseen.champion,
        "buy and hold": unseen.held,
        "hold in regime": unseen.gated,
    }
    with run.writing("plots/equity.png") as draft:
        equity_and_drawdown(results, draft, f"{title}: out of sample, after costs")
    if config.tearsheet:
        _write_tearsheet(run, config, ground, evolved, unseen, names)
        pictures["tearsheet/tearsheet.html"] = "Tear sheet of the test rows, with stress tests"
    run.write_json("report.json", found)
    run.write_bytes("report.md", report.markdown(found, title, pictures).encode())
    space = evolved.specialist.family.space
    hall = [{"fitness": one.fitness, "genes": space.values(one.genes)} for one in evolved.hall_of_fame]
    run.write_json("checkpoints/hall_of_fame.json", hall)
    _write_manifest(run, config, ground, found["data"]["fingerprint"])  # it now knows how long the run took


def _write_tearsheet(
    run: Run, config: EvolveConfig, ground: Ground, evolved: Evolved, unseen: Unseen, names: dict[int, str]
) -> None:
    from backtest.stress import stress
    from backtest.tearsheet import write_tearsheet

    test = ground.split.test
    bars, labels = ground.bars[test], ground.regime_labels[test]
    targets = evolved.specialist.fresh().update(bars, ground.features[test], ground.labels[test])
    stressed = stress(
        targets,
        bars,
        config.costs,
        config.limits,
        seed=config.seed,
        n_paths=STRESS_PATHS,
        mean_block=STRESS_DAYS * 86_400e9 / bars.interval_ns,
        venue=config.venue,
        regimes=labels,
    )
    write_tearsheet(
        unseen.champion,
        run.folder / "tearsheet",
        title=f"{config.regime} specialist, {bars.label}",
        sample="out-of-sample",
        bars=bars,
        labels=labels,
        regime_names=names,
        benchmarks={"buy and hold": unseen.held, "hold in regime": unseen.gated},
        stress=stressed,
    )


def _rows(ground: Ground) -> dict[str, list[int]]:
    spans = {"train": ground.split.train, "test": ground.split.test}
    return {name: [rows.start, rows.stop] for name, rows in spans.items()}


def _write_manifest(run: Run, config: EvolveConfig, ground: Ground, fingerprint: str) -> None:
    run.write_manifest(data={"bars": fingerprint}, seeds={"root": config.seed}, rows=_rows(ground))


def _write_generations(run: Run, evolved: Evolved) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with run.writing("metrics/generations.parquet") as draft:
        pq.write_table(pa.Table.from_pylist(evolved.generations), draft)

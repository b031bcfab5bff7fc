"""Many evolutions at once: regimes times assets, spread over the workers.

The searches run side by side, each alone on its worker; what comes out of them does not depend on where or
in what order they ran. The test rows are opened afterwards, one specialist after the other in a fixed order:
champions judged on the same rows are deflated by their number, so the order is part of the verdict.

The folder of runs is where workers leave their checkpoints and where the judging finds them: on a cluster of
several machines it must be one that all of them share.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from compute.workers import Mapper, SerialMapper
from configs.load import ConfigError
from experiments.runs import Run
from regimes.regime import REGIME_NAMES
from specialists.evolving import Work, begin_run, complete, hunt, open_workers
from specialists.settings import EvolveConfig


@dataclass(frozen=True)
class Blade:
    """One evolution of a fan.

    Parameters
    ----------
    asset : str
        Empty where only regimes fan out.
    config : EvolveConfig
    run : str
        Id of its run, whose folder exists.
    folder : str
        Where the command was started: paths in the settings are relative to it, on every worker.
    """

    asset: str
    config: EvolveConfig
    run: str
    folder: str


def fan_out(config: EvolveConfig, console: Console, all_regimes: bool, assets: str | None) -> Path:
    """Evolve one specialist per regime and asset, judge them in order, and return the folder of the whole.

    Parameters
    ----------
    config : EvolveConfig
        What all of them share; its workers carry whole evolutions.
    console : Console
    all_regimes : bool
        Whether all regimes that the detector tells are evolved; else that of the config.
    assets : str or None
        Names separated by commas; see ``market.sources.selection.MarketConfig.of_asset``.

    Raises
    ------
    ConfigError, DataError
        If one of them will not do; none has begun then.
    """
    plans = plan(config, all_regimes, assets)
    # Everything a user can get wrong is found here, before the first search begins.
    works: list[Work] = []
    for i, (asset, one) in enumerate(plans):
        same = i > 0 and plans[i - 1][0] == asset  # its bars, and the detector that was fitted on them
        works.append(works[-1].of_regime(one) if same else Work.open(one, console))
    whole = Run.open(config.runs, "fan", "assets" if assets else "regimes")
    whole.write_config(config)
    blades = []
    for (asset, one), work in zip(plans, works, strict=True):
        run = Run.open(config.runs, "evolve", one.regime)
        begin_run(run, work, (whole.id,))
        blades.append(Blade(asset, one, run.id, os.getcwd()))
    console.print(f"Run {whole.id}: {len(blades)} evolutions, seed {config.seed}")
    with open_workers(config.workers, console) as workers:
        _evolve_all(blades, workers, console)
    found = []
    for blade, work in zip(blades, works, strict=True):
        run = Run.at(config.runs, blade.run)
        silent = Console(file=io.StringIO())
        with SerialMapper() as here:
            found.append(complete(run, work, here, silent))
    document = {
        "seed": config.seed,
        "passed": sum(one["passed"] for one in found),
        "runs": [
            {
                "run": blade.run,
                "asset": blade.asset,
                **{key: one[key] for key in ("regime", "verdict", "passed", "metrics")},
            }
            for blade, one in zip(blades, found, strict=True)
        ],
    }
    whole.write_manifest(
        data={blade.run: work.fingerprint for blade, work in zip(blades, works, strict=True)},
        seeds={"root": config.seed},
        children=[blade.run for blade in blades],
    )
    whole.write_json("report.json", document)
    _show(console, blades, found)
    console.print(f"Reports, plots and champions: {config.runs}; all of them: {whole.folder}", soft_wrap=True)
    return whole.folder


def plan(config: EvolveConfig, all_regimes: bool, assets: str | None) -> list[tuple[str, EvolveConfig]]:
    """Return the evolutions of a fan, asset by asset and regime by regime, in the order of their judging.

    Raises
    ------
    ConfigError
        If an asset has no name or no bars, or is named twice.
    """
    names = [""] if assets is None else [name.strip() for name in assets.split(",")]
    if assets is not None and (not all(names) or len(set(names)) < len(names)):
        raise ConfigError(
            f"assets is {assets!r}; it must be different names with commas between: BTC,ETH,LTC"
        )
    regimes = [config.regime]
    if all_regimes:
        regimes = list(REGIME_NAMES)
        if config.detector.name == "crisis":
            regimes.append("crisis")
    plans = []
    for name in names:
        market = config.market.of_asset(name) if name else config.market
        for regime in regimes:
            plans.append((name, config.model_copy(update={"market": market, "regime": regime})))
    return plans


def _evolve_all(blades: list[Blade], workers: Mapper, console: Console) -> None:
    columns = (TextColumn("evolutions"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(blades))
        # As many at a time as there are workers, so that the bar moves.
        for start in range(0, len(blades), workers.n_workers):
            part = blades[start : start + workers.n_workers]
            for line in workers.map(search_blade, part):
                console.print(line)
            progress.advance(task, len(part))


def search_blade(blade: Blade) -> str:
    """Search one evolution to the end on this worker and return a line to print.

    The result lies in the checkpoints of its run.
    """
    if os.getcwd() != blade.folder:  # in a process of its own
        os.chdir(blade.folder)
    checkpoints = blade.config.checkpoints
    checkpoints = checkpoints.model_copy(update={"every": max(1, checkpoints.every)})
    config = blade.config.model_copy(update={"checkpoints": checkpoints})
    silent = Console(file=io.StringIO())
    work = Work.open(config, silent)
    run = Run.at(config.runs, blade.run)
    with SerialMapper() as here, work.checkpoints(run) as saved:
        search, observers = hunt(run, work, saved, here, silent)
    progress = search.evolution.progress
    subject = " ".join(part for part in (blade.asset, config.regime) if part)
    evaluations, seconds = search.evaluator.evaluations, observers.seconds
    return f"{subject}: generation {progress.generation}, {evaluations:,} genomes, {seconds:.1f} s"


def _show(console: Console, blades: list[Blade], found: list[dict[str, Any]]) -> None:
    grid = Grid(title="Sharpe of the champions after costs")
    for name in ("asset", "regime", "verdict"):
        grid.add_column(name)
    for name in ("in sample", "out of sample", "buy and hold", "trades"):
        grid.add_column(name, justify="right")
    for blade, one in zip(blades, found, strict=True):
        metrics = one["metrics"]
        grid.add_row(
            blade.asset or "-",
            one["regime"],
            "pass" if one["passed"] else "fail",
            _number(metrics["in sample"]["sharpe"], "{:.2f}"),
            _number(metrics["out of sample"]["sharpe"], "{:.2f}"),
            _number(metrics["buy and hold"]["sharpe"], "{:.2f}"),
            _number(metrics["out of sample"]["n_trades"], "{:,.0f}"),
        )
    console.print(grid)


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else style.format(value)

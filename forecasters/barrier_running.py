"""One run of ``python -m forecasters.barriers``: search, comparison, and everything kept in its folder."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.load import dump
from configs.progress_bar import progress_bar
from experiments.ledger import Batch, Ledger
from experiments.runs import Run
from forecasters import barrier_report as report
from forecasters.barrier_fitness import BarrierFigures
from forecasters.barrier_search import BarrierSearch, Material, compared, rivals
from forecasters.barrier_settings import BarriersConfig
from ga.progress import Progress as SearchProgress
from market.features.dataset import LabelConfig
from market.sources.selection import select_bars

COMMAND = "barriers"
BARRIERS = "barriers.yaml"
LEDGER = "ledger.sqlite"


def barriers_run(config: BarriersConfig, console: Console) -> Path:
    """Evolve barriers, compare, print and save; return the folder of the run.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong; nothing is left behind then.
    """
    selection = select_bars(config.market)
    selection.show(console)
    material = Material.of(selection.bars, config)
    with console.status("describing the training rows"):
        training = material.training()
        material.check(training)
    fingerprint = selection.bars.fingerprint()
    ledger = Ledger(Path(config.runs).parent / LEDGER)
    run = Run.open(config.runs, COMMAND, "triple_barrier")
    run.write_config(config)
    origin = {"data": {"bars": fingerprint}, "seeds": {"root": config.seed}}
    run.write_manifest(**origin)
    console.print(f"Run {run.id}, seed {config.seed}")
    search = BarrierSearch(material, training)
    try:
        with progress_bar(console, "generations", config.hyperparameters.n_generations) as told:

            def bred(now: SearchProgress) -> None:
                told(now.generation, f"generation {now.generation}, best {now.best:.3f}")

            evolved = search.run(bred)
    finally:  # a search that is broken off has looked at the data all the same
        if search.batches():
            ledger.record_all(fingerprint, run.id, search.batches())
    labels = rivals(config, evolved.label)
    measured = {"training": compared(training, labels)}
    others = [one for name, one in measured["training"].items() if name != "evolved"]
    ledger.record_all(fingerprint, run.id, [_compared(others, material, len(evolved.batches))])
    with console.status("opening the later rows"):
        test = selection.bars.time[material.split.test]
        looks = ledger.record_opening(
            fingerprint, run.id, int(test[0]), int(test[-1]), _identity(evolved.label)
        )
        measured["later"] = compared(material.later(), labels)
    trials = ledger.summary(fingerprint)
    counted = {
        "evaluations": trials.n_evaluated,
        "unique": trials.n_unique,
        "runs": trials.n_runs,
        "earlier_looks": looks.earlier,
    }
    found = report.figures(config, material, selection, evolved, labels, measured, counted)
    with run.writing(BARRIERS) as draft:
        dump(evolved.label, draft)
    run.write_bytes(report.MARKDOWN, report.markdown(found).encode())
    rows = {name: [span.start, span.stop] for name, span in report.spans(material).items()}
    run.write_manifest(**origin, rows=rows)
    run.write_json(report.JSON, found)  # last: it says that the run is finished
    report.show(console, found)
    console.print(
        f"To use them: python -m forecasters.train --set label={run.folder / BARRIERS}", markup=False
    )
    return run.folder


def _compared(figures: list[BarrierFigures], material: Material, number: int) -> Batch:
    # The barriers beside the evolved ones were looked at, too.
    sharpes = np.array([one.sharpe for one in figures]) / math.sqrt(material.bars.bars_per_year)
    return Batch(sharpes, len(figures), len(figures), number)


def _identity(label: LabelConfig) -> str:
    return hashlib.sha256(json.dumps(label.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

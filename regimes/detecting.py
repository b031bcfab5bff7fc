"""One detection from settings to page: the steps of ``python -m regimes.detect`` in their order."""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table as RichTable

from compute.seeds import MAX_SEED, stream
from configs.load import Config, InputError, PluginConfig
from experiments.page import Grid
from experiments.runs import Run
from market.sources.selection import MarketConfig, Selection, select_bars
from market.sources.synthetic import synthetic_market
from market.splits import SplitConfig
from market.table import utc
from regimes import detection_page as sheet
from regimes.detection import (
    Detection,
    Ground,
    MeasuresConfig,
    agreement,
    detect,
    feature_columns,
    measure,
    oracles,
    prepare,
    state_now,
    without_regimes,
)
from regimes.detector import DETECTORS, Detector
from regimes.path import PathConfig
from regimes.statistics import dwells, stationary_blocks

PAGE, REPORT = "regimes.html", "report.json"
PICTURES = {
    "price": "Price, and the regime that was known at each close. The vertical lines end the training rows "
    "and begin the held-out rows; between them lies the embargo.",
    "probabilities": "Filtered probability of each regime: bar by bar at the end, and on average over time.",
    "transitions": "Probability of the regime of the next bar: as learned from the training rows, and as "
    "counted on the held-out labels.",
    "dwell": "How long stays in each regime lasted.",
    "reliability": "How often the label was right, by its confidence, on held-out rows.",
    "detectors": "The labels of each detector under the price, on held-out rows.",
}


class DetectConfig(Config):
    """Settings of ``python -m regimes.detect``."""

    market: MarketConfig = MarketConfig()
    detector: PluginConfig = PluginConfig(name="markov_ar")
    compare: bool = Field(
        False, description="Whether to measure every other registered detector as well, with its defaults."
    )
    path: PathConfig = PathConfig()
    split: SplitConfig = SplitConfig()
    measures: MeasuresConfig = MeasuresConfig()
    runs: str = Field("experiments/runs", description="Folder of runs.")
    seed: int = Field(7, ge=0, le=MAX_SEED, description="Root of the bootstrap's random numbers.")


def detect_run(config: DetectConfig, console: Console) -> Path:
    """Fit, run, measure, print and save detectors; return the folder of the run.

    The folder appears once everything has been computed, so that a mistake leaves nothing behind.

    Parameters
    ----------
    config : DetectConfig
    console : Console
        Where progress and tables are shown.
    """
    began = time.perf_counter()
    name = config.detector.name
    # A typing error should not cost the time of reading.
    detectors: dict[str, Detector] = {name: DETECTORS.create(name, config.detector.settings)}
    unavailable: dict[str, str] = {}
    if config.compare:
        others = [other for other in DETECTORS.names() if other != name]
        detectors |= _tried(others, DETECTORS.create, unavailable)
    selection = select_bars(config.market)
    bars = selection.bars
    selection.show(console)
    with console.status("describing bars") as status:
        columns = feature_columns({name: detectors[name]})
        for other in _tried(
            [one for one in detectors if one != name],
            lambda one: feature_columns({one: detectors[one]}),
            unavailable,
        ).values():
            columns = tuple(dict.fromkeys((*columns, *other)))
        ground = prepare(bars, columns, config.split, selection.truth)
        _show_ground(console, ground)

        def run(one: str) -> Detection:
            status.update(f"{one}: fitting, and running over all bars")
            return detect(one, detectors[one], ground, config.path)

        found = {name: run(name)}
        found |= _tried([one for one in detectors if one not in (name, *unavailable)], run, unavailable)
        best = ()
        if ground.truth is not None:
            status.update("oracles: what the true parameters would have known")
            best = oracles(synthetic_market(config.market.synthetic), ground, config.path)
        status.update("measuring held-out bars")
        report = _report(config, selection, ground, found, best, unavailable)
        folder = Run.open(config.runs, "detect", "all" if config.compare else name)
        report |= {"run": str(folder.folder), "wall_seconds": round(time.perf_counter() - began, 2)}
        status.update("drawing and writing")
        _keep(folder, config, ground, found, best, report)
    _show(console, report)
    console.print(f"Page, pictures, labels and detector: {folder.folder}", soft_wrap=True)
    return folder.folder


def _tried(names: list[str], function: Callable[[str], Any], unavailable: dict[str, str]) -> dict[str, Any]:
    # In a comparison a detector that lacks a library, or cannot learn from these bars, is told and left out.
    done = {}
    for name in names:
        if name in unavailable:
            continue
        try:
            done[name] = function(name)
        except (InputError, ImportError) as error:
            unavailable[name] = " ".join(str(error).split())
    return done


def _report(
    config: DetectConfig,
    selection: Selection,
    ground: Ground,
    found: Mapping[str, Detection],
    best: tuple[Detection, ...],
    unavailable: Mapping[str, str],
) -> dict[str, Any]:
    bars, split, measures = ground.bars, ground.split, config.measures
    without = without_regimes(ground)
    samples = {sheet.IN_SAMPLE: split.train, sheet.HELD_OUT: split.test}
    rng = stream(config.seed, "regimes", "order of statistics")
    n = split.test.stop - split.test.start
    blocks = stationary_blocks(n, measures.block_bars, measures.n_paths, rng)
    measured = {one.name: measure(one, ground, measures, without, blocks) for one in (*found.values(), *best)}
    return {
        "detector": config.detector.name,
        "compared": config.compare,
        "truth_known": ground.truth is not None,
        "calibrated_against": "the true regime"
        if ground.truth is not None
        else f"the own label {measures.calibration_bars:,} bars later",
        "data": {
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "label": bars.label,
            "bars": len(bars),
            "fingerprint": bars.fingerprint(),
            "features": ground.features.version,
        },
        "rows": {name: [rows.start, rows.stop] for name, rows in samples.items()}
        | {"embargo": split.embargo},
        "times": {
            name: [utc(bars.time[rows][0]), utc(bars.time[rows][-1])] for name, rows in samples.items()
        },
        "years": {
            name: float(np.ptp(bars.time[rows]) + bars.interval_ns) / (bars.bars_per_year * bars.interval_ns)
            for name, rows in samples.items()
        },
        "path": config.path.model_dump(mode="json"),
        "measures": measures.model_dump(mode="json"),
        "detectors": {name: measured[name] for name in found},
        "oracles": {one.name: measured[one.name] for one in best},
        "unavailable": dict(unavailable),
        "agreement": agreement(found, ground.held_out),
        "now": state_now(found[config.detector.name], bars),
        "seed": config.seed,
    }


def _keep(
    run: Run,
    config: DetectConfig,
    ground: Ground,
    found: Mapping[str, Detection],
    best: tuple[Detection, ...],
    report: Mapping[str, Any],
) -> None:
    run.write_config(config)
    for name, one in found.items():
        one.detector.save(run.path(f"checkpoints/{name}"))
        _write_rows(run, one, ground)
    run.write_json(REPORT, report)
    title = f"Regimes of {ground.bars.label} by {config.detector.name}"
    pictures = _draw(run, ground, found, best, report, title)
    files = {
        name: hashlib.sha256((run.folder / name).read_bytes()).hexdigest()
        for name in (REPORT, *(f"predictions/{name}.parquet" for name in found))
    }
    run.write_manifest(
        data={"bars": report["data"]["fingerprint"]}, seeds={"root": config.seed}, rows=report["rows"]
    )
    run.write_bytes(PAGE, sheet.detection_page(report, title, pictures, files))


def _write_rows(run: Run, found: Detection, ground: Ground) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sample = np.full(len(ground.bars), "unused", dtype=object)  # warm-up and embargo
    sample[ground.split.train] = sheet.SAMPLES[sheet.IN_SAMPLE]
    sample[ground.held_out] = sheet.SAMPLES[sheet.HELD_OUT]
    columns = {"time": pa.array(found.path.time, pa.timestamp("ns", tz="UTC"))}
    columns |= {name: pa.array(found.probabilities.column(name)) for name in found.names}
    columns |= {
        "label": pa.array(found.path.label),
        "confidence": pa.array(found.path.confidence),
        "sample": pa.array(sample.tolist(), pa.string()).dictionary_encode(),
    }
    with run.writing(f"predictions/{found.name}.parquet") as draft:
        pq.write_table(pa.table(columns), draft)


def _draw(
    run: Run,
    ground: Ground,
    found: Mapping[str, Detection],
    best: tuple[Detection, ...],
    report: Mapping[str, Any],
    title: str,
) -> dict[str, sheet.Picture]:
    from regimes import figures

    one = found[report["detector"]]
    bars, train, test = ground.bars, ground.split.train, ground.held_out
    measured = report["detectors"][one.name]
    stays = [dwells(one.path.label[rows], len(one.names)) for rows in (test, train)]
    calibrations = {
        f"{name}, held out": figure[sheet.HELD_OUT]["calibration"]
        for name, figure in ({one.name: measured} | report["oracles"]).items()
    } | {f"{one.name}, in sample": measured[sheet.IN_SAMPLE]["calibration"]}
    drawn: dict[str, sheet.Picture] = {}

    def draw(name: str, function: Callable[..., None], *arguments: Any, title: str = title) -> None:
        with run.writing(f"plots/{name}.png") as draft:
            function(*arguments, draft, title)
        drawn[name] = ((run.folder / "plots" / f"{name}.png").read_bytes(), PICTURES[name])

    draw("price", figures.price_by_regime, bars, one.path.label, one.names, train, test)
    draw(
        "probabilities", figures.probabilities_over_time,
        bars.time, one.probabilities.values, one.names, train, test,
    )  # fmt: skip
    chains = {
        "learned from the training rows": np.array(measured["chain"]),
        "counted on the held-out labels": np.array(measured["counted_chain"]),
    }
    draw("transitions", figures.transition_matrices, chains, one.names)
    draw("dwell", figures.dwell_histograms, *stays, one.names)
    draw("reliability", figures.reliability, calibrations, report["calibrated_against"])
    if report["compared"]:
        strips = {} if ground.truth is None else {"truth": ground.truth[test]}
        strips |= {other.name: other.path.label[test] for other in (*found.values(), *best)}
        names = max((other.names for other in found.values()), key=len)
        draw(
            "detectors", figures.detectors_compared, bars[test], strips, names,
            title=f"Regimes of {bars.label}",
        )  # fmt: skip
    return drawn


def _show_ground(console: Console, ground: Ground) -> None:
    split = ground.split
    spans = [
        f"{rows.stop - rows.start:,} bars, {utc(ground.bars.time[rows.start])} to "
        f"{utc(ground.bars.time[rows.stop - 1])}"
        for rows in (split.train, split.test)
    ]
    console.print(f"Training on {spans[0]}. Embargo {split.embargo:,} bars. Held out: {spans[1]}.")


def _show(console: Console, report: Mapping[str, Any]) -> None:
    for name in report["detectors"]:
        _show_grid(console, sheet.regimes_grid(report, name))
        for sentence in sheet.sentences(report, name):
            console.print(f"  {sentence}")
    _show_grid(console, sheet.order_grid(report, report["detector"]))
    if report["compared"]:
        _show_grid(console, sheet.comparison_grid(report))
    if report["truth_known"]:
        _show_grid(console, sheet.truth_grid(report, list(report["detectors"])))
    if report["now"] is not None:
        console.print(sheet.state_sentence(report["now"]))
    for name, why in report["unavailable"].items():
        console.print(f"! {name} could not run: {why}", markup=False)
    for warning in sheet.warnings(report)[report["truth_known"] :]:
        if warning not in report["data"]["warnings"]:
            console.print(f"! {warning}", markup=False)


def _show_grid(console: Console, grid: Grid) -> None:
    shown = RichTable(title=grid.title)
    for i, column in enumerate(grid.columns):
        # A word to a line: so that columns are as narrow as their numbers, and none of these is cut off.
        head = column.replace(" ", "\n") if i else column
        shown.add_column(head, justify="right" if i else "left", no_wrap=i == 0)
    for i, row in enumerate(grid.rows):
        if len(row) == 1 < len(grid.columns) and i:
            shown.add_section()
        shown.add_row(*row, style="dim" if len(row) == 1 else None)
    console.print(shown)

"""Runs on disk as a command would leave them, in milliseconds and with every number chosen."""

import copy
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.load import Config, dump
from experiments.runs import Run

NOON = datetime(2026, 1, 2, 12, 30, 5, tzinfo=UTC)
HOUR = 3_600_000_000_000
GENES = {"bias": 0.25, "stop_atr": 6.0, "entry_threshold": 0.75}


class Inner(Config):
    n_generations: int = 60
    patience: int = 20


class Settings(Config):
    regime: str = "volatile"
    seed: int = 7
    hyperparameters: Inner = Inner()
    runs: str = "experiments/runs"


def metrics(sharpe: float, **others: float) -> dict[str, float]:
    return {"total_return": 0.1, "sharpe": sharpe, "max_drawdown": -0.2, "n_trades": 40} | others


def report(passed: bool = True, sharpes: tuple[float, float] = (2.5, 1.5), genes: dict = GENES) -> dict:
    return {
        "verdict": f"{'PASS' if passed else 'FAIL'}: said of the volatile specialist.",
        "passed": passed,
        "criteria": [{"name": "trades out of sample", "value": 40.0, "threshold": 20.0, "passed": passed}],
        "regime": "volatile",
        "champion": {"fitness": 2.25, "genes": dict(genes)},
        "metrics": {"in sample": metrics(sharpes[0]), "out of sample": metrics(sharpes[1])},
        "evidence": {"n_trials": 100, "n_runs": 1},
        "search": {"evaluated": 120, "unique": 100},
        "data": {"origin": "SYNTHETIC market (seed 7), not real prices", "bars": 61_320, "fingerprint": "f"},
        "rows": {"train": [0, 900], "test": [1000, 2000]},
        "run": "somewhere",
        "seed": 7,
        "wall_seconds": 12.5,
    }


def genome(genes: dict = GENES, generation: int = 9) -> dict:
    return {
        "space": "genome",
        "names": list(genes),
        "genes": [0.5] * len(genes),
        "values": dict(genes),
        "fitness": 2.25,
        "origin": {"run": "", "generation": generation},
    }


def make_run(
    root,
    name: str = "volatile",
    minutes: int = 0,
    *,
    command: str = "evolve",
    config: Config | None = None,
    document: dict | None = None,
    returns: np.ndarray | None = None,
    first_hour: int = 0,
    data: dict | None = None,
    **manifest,
) -> Run:
    """A finished run; ``returns`` become its equity curve, hour after hour."""
    run = Run.open(root, command, name, NOON + timedelta(minutes=minutes))
    found = copy.deepcopy(report() if document is None else document)
    place(run, "report.json", found)
    place(run, "checkpoints/specialist/genome.json", genome(found.get("champion", {}).get("genes", GENES)))
    saved = {"format": 1, "family": {"name": "blend"}, "regime": name, "fitted_until": 1}
    place(run, "checkpoints/specialist/specialist.json", saved)
    dump(config or Settings(), run.folder / "config.yaml")
    if returns is not None:
        write_curve(run, returns, first_hour)
    known = {"data": {"bars": "f" * 64} if data is None else data, "subject": "ab12cd34ef56" + "0" * 52}
    place(run, "manifest.json", _manifest() | known | manifest)
    return run


def place(run: Run, name: str, document: dict) -> None:
    """Write a file as :class:`Run` does, but without waiting for the disk."""
    run.path(name).write_text(json.dumps(document, indent=2) + "\n")


@cache
def _manifest() -> dict:
    # What a real run writes, once for all tests: hashing every source takes a while.
    with TemporaryDirectory() as folder:
        run = Run.open(folder, "evolve", "volatile", NOON)
        return json.loads(run.write_manifest(seeds={"root": 7}).read_text())


def write_curve(run: Run, returns: np.ndarray, first_hour: int = 0) -> None:
    time = (first_hour + np.arange(returns.size)) * HOUR
    columns = {
        "time": pa.array(time, pa.timestamp("ns", "UTC")),
        "equity": pa.array(np.cumprod(1.0 + returns)),
        "net_return": pa.array(returns),
    }
    pq.write_table(pa.table(columns), run.path("predictions/out_of_sample/equity.parquet"))

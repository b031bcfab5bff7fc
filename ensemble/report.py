"""What a validation has found: ``report.json``, ``report.md``, ``validation.html``, the verdict on screen.

Every figure of the page and of the Markdown is one of ``report.json``, rounded. Those of the account are
computed from ``metrics/equity.parquet`` and ``metrics/trades.parquet``, those of its rivals from
``metrics/returns.parquet``, those of the paths of cross-validation from ``metrics/cpcv.parquet``, those of
regimes and members from ``predictions/decisions.parquet``: anybody can have them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console

from ensemble.chapters import title
from ensemble.member_tables import member_tables
from ensemble.page import validation_page
from ensemble.regime_tables import regime_tables
from ensemble.report_tables import account_tables, metrics_of
from ensemble.report_text import markdown, show
from ensemble.validation import FoldRecord, Judged
from experiments.disk import file_digest
from experiments.runs import Run
from market.bars import Bars
from market.table import utc
from regimes.statistics import plain

JSON, MARKDOWN, PAGE = "report.json", "report.md", "validation.html"
DECISIONS = "predictions/decisions.parquet"
EQUITY, TRADES, RETURNS = "metrics/equity.parquet", "metrics/trades.parquet", "metrics/returns.parquet"
PATHS = "metrics/cpcv.parquet"
ROLLING_BARS = 2_160  # 90 days of hours


def write(run: Run, judged: Judged, console: Console) -> dict[str, Any]:
    """Write everything a validation has found into its run, and print the verdict.

    Parameters
    ----------
    run : Run
    judged : Judged
        ``provenance["truth"]``, int8 (m,), may say the true regimes of the test rows.
    console : Console

    Returns
    -------
    dict
        What ``report.json`` holds, which is written last: it says that the run is finished.
    """
    found = summary(judged)
    files = _write_numbers(run, judged)
    drawn = _draw(run, judged, found)
    pictures = {name: (run.folder / path).read_bytes() for name, path in drawn.items()}
    run.write_bytes(PAGE, validation_page(found, pictures, files))
    run.write_bytes(MARKDOWN, markdown(found, drawn, files).encode())
    found["files"] = files
    run.write_json(JSON, found)
    show(console, found)
    return found


def summary(judged: Judged) -> dict[str, Any]:
    """Return everything that was found as plain objects for JSON; None where a number is not defined."""
    validated, provenance = judged.validated, dict(judged.provenance)
    truth = provenance.pop("truth", None)
    time = validated.time
    members = member_tables(validated)
    return plain(
        {
            **judged.judgment.to_dict(),
            "data": {
                **provenance,
                "first": utc(time[0]),
                "last": utc(time[-1]),
                "test_bars": len(time),
                "years": len(time) / validated.result.bars_per_year,
            },
            "blender": validated.blender,
            "metrics": {
                "strategy": validated.result.metrics.to_dict(),
                "baselines": metrics_of(validated.baselines),
                "members": metrics_of(validated.members),
                "blenders": metrics_of(validated.blenders),
            },
            "random_routing": _routing(judged.random_sharpes, validated.result.metrics.sharpe),
            **account_tables(validated),
            **regime_tables(validated, truth),
            **members,
            "evidence": judged.evidence.to_dict(),
            "robustness": judged.robustness.to_dict(),
            "permutations": None if judged.permutations is None else judged.permutations.to_dict(),
            "cpcv": None if judged.paths is None else judged.paths.to_dict(),
            "folds": [_fold(fold, validated.bars) for fold in validated.folds],
            "ledger": {"trials": asdict(judged.trials), "looks": asdict(judged.looks)},
            "assumptions": list(validated.result.assumptions),
        }
    )


def _routing(sharpes: tuple[float, ...], own: float) -> dict[str, Any]:
    # A draw that never trades has earned nothing.
    drawn = np.nan_to_num(np.array(sharpes, np.float64), nan=0.0)
    if not drawn.size:
        return {"draws": 0, "sharpes": [], "low": None, "median": None, "high": None, "beaten": None}
    return {
        "draws": int(drawn.size),
        "sharpes": drawn.tolist(),
        "low": float(drawn.min()),
        "median": float(np.median(drawn)),
        "high": float(drawn.max()),
        "beaten": float(np.mean(drawn < np.nan_to_num(own, nan=0.0))),
    }


def _fold(fold: FoldRecord, bars: Bars) -> dict[str, Any]:
    found = fold.to_dict()
    found["spans"] = {
        name: [utc(bars.time[rows.start]), utc(bars.time[rows.stop - 1])]
        if rows.stop > rows.start
        else [None] * 2
        for name in ("learn", "validation", "test")
        for rows in [getattr(fold, name)]
    }
    found["fitted_until_utc"] = utc(fold.fitted_until)
    for one in found["members"].values():
        one["fitted_until_utc"] = utc(one["fitted_until"])
    return found


def _write_numbers(run: Run, judged: Judged) -> dict[str, str]:
    # Account, decisions, and the returns of all rivals and paths; returns SHA-256 by file.
    validated, names = judged.validated, [EQUITY, TRADES, RETURNS, DECISIONS]
    folder = run.path(EQUITY).parent
    validated.result.save(folder)
    with run.writing(DECISIONS) as draft:
        validated.blend.save(draft)
    results = validated.results()
    returns = {name: one.curve.column("net_return") for name, one in results.items()}
    _write_returns(run, RETURNS, validated.time, returns)
    if judged.paths is not None:
        _write_returns(run, PATHS, judged.paths.hold.curve.time, judged.paths.returns())
        names.append(PATHS)
    return {name: file_digest(run.folder / name) for name in names}


def _write_returns(run: Run, name: str, time: np.ndarray, returns: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"time": pa.array(time, pa.timestamp("ns", tz="UTC"))}
    columns |= {one: pa.array(values) for one, values in returns.items()}
    with run.writing(name) as draft:
        pq.write_table(pa.table(columns), draft)


def _draw(run: Run, judged: Judged, found: dict[str, Any]) -> dict[str, str]:
    # Paths of the pictures by name; one where there is nothing to see is not drawn.
    from backtest import figures as accounts
    from ensemble import figures

    validated, paths = judged.validated, judged.paths
    result, blend = validated.result, validated.blend
    own = found["members"]
    beside = {"strategy": result, **dict(list(validated.baselines.items())[:2])}
    window = min(ROLLING_BARS, len(blend) // 4)
    curve = result.curve
    traded = bool(curve.column("turnover").any())
    several = len(blend) > 1
    made: dict[str, str] = {}

    def draw(name: str, needed: object, function: Callable[..., None], *arguments: Any, head: str) -> None:
        if needed:
            with run.writing(f"plots/{name}.png") as draft:
                function(*arguments, draft, f"{title(found)}: {head}")
            made[name] = f"plots/{name}.png"

    draw(
        "overview",
        several,
        figures.overview,
        result,
        validated.baselines,
        blend.label,
        validated.regime_names,
        head="out of sample, after costs",
    )
    draw("luck", found["metrics"]["baselines"] or own, figures.luck, found, head="among its alternatives")
    draw("cpcv", paths is not None and len(paths.hold.curve) > 1, figures.paths, paths,
         head="many paths through the history")  # fmt: skip
    draw("folds", len(found["folds_performance"]) > 1, figures.folds, found, head="fold by fold")
    draw(
        "rolling",
        window > 1 and traded,
        accounts.rolling_risk,
        beside,
        window,
        head=f"risk of the last {window:,} bars",
    )
    draw(
        "around",
        found["transitions"]["around"]["offsets"],
        figures.around_switches,
        found,
        head="around switches of the regime",
    )
    draw("members", own, figures.contributions, found, head="members")
    draw(
        "weights",
        found["weights"] is not None and several,
        figures.weights,
        blend.time,
        blend.weights,
        blend.signals.values,
        blend.signals.names,
        head="weights over time",
    )
    draw("correlation", len(own) > 1, figures.correlation, found, head="signals")
    points = [one for one in found["degradation"]["points"] if one["out_of_sample"] is not None]
    draw("degradation", points, figures.degradation, found, head="what was kept")
    draw(
        "exposure",
        window > 1 and traded,
        accounts.exposure_and_turnover,
        result,
        window,
        head="exposure and turnover",
    )
    draw("robustness", traded, figures.robustness, found, head="robustness")
    draw("returns", np.count_nonzero(curve.column("net_return")) > 1, accounts.return_distributions, result,
         head="distribution of returns")  # fmt: skip
    return made

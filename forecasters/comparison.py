"""One run of ``python -m experiments.compare``: candidates, the same rows for all, figures, verdicts, files.

What is kept: the trainings, the rows with every answer, position and return, the figures with intervals as a
table, pictures, and the report at last. A comparison that was stopped goes on where it was.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from backtest.breakdown import trade_returns
from backtest.simulate import CAPITAL, BacktestResult
from backtest.terms import Terms
from compute.seeds import stream
from configs.load import ConfigError, load
from experiments.evidence import TrackRecord, deflated_sharpe, probabilistic_sharpe
from experiments.ledger import Ledger
from experiments.records import flat, read_json
from experiments.runs import Run, latest
from experiments.tracking import Entry, mirror, require_tracking
from forecasters import comparison_report as report
from forecasters import promotion
from forecasters.comparison_candidates import (
    Candidate,
    finished,
    finished_run,
    require_bars,
    resolved,
    trained,
)
from forecasters.comparison_measures import (
    Account,
    Skill,
    account_intervals,
    calibration_curve,
    correlations,
    finite,
    skill_intervals,
)
from forecasters.comparison_rows import (
    Rows,
    regime_names,
    regimes_of,
    rows_of_trades,
    same_rows_of,
    traded,
)
from forecasters.comparison_settings import ALL, CompareConfig
from forecasters.measures import f1_lead
from forecasters.report import SIGNIFICANT
from forecasters.running import fingerprint
from forecasters.training import folds_of, prepare
from forecasters.windows import CLASSES
from market.bars import Bars
from market.sources.selection import Selection, select_bars
from market.table import utc

COMMAND = "compare"
LEDGER = "ledger.sqlite"
WHOLE, FOLD, REGIME = "all", "fold", "regime"


def compare_run(config: CompareConfig, console: Console) -> Path:
    """Train or collect, measure, print and save; return the folder of the run.

    Raises
    ------
    ConfigError, DataError
        If a setting, a file or a run is wrong; before anything is trained, nothing is left behind.
    """
    require_tracking(config.tracking)
    skipped: dict[str, str] = {}
    if config.runs_of:
        config = _as_trained(config)
    else:
        config, skipped = resolved(config)
    selection = select_bars(config.market)
    selection.show(console)
    with console.status("looking at features, labels and regimes"):
        data = _looked_at(config, selection.bars)
    for name, why in skipped.items():
        console.print(f"! {name} is left out: {why}", markup=False)
    run = Run.open(config.runs, COMMAND, _title(config))
    run.write_config(config)
    run.write_manifest(data=data, seeds={"root": config.seed})
    console.print(f"Run {run.id}, seed {config.seed}")
    return _complete(run, config, selection, data, skipped, console)


def resume_comparison(runs: str, name: str, console: Console) -> Path:
    """Go on with a comparison that was stopped or killed; return its folder.

    Raises
    ------
    ConfigError
        If there is no such run, it is finished, or its data are not what they were.
    """
    run = latest(runs, COMMAND) if name == "latest" else Run.at(runs, name)
    if run is None:
        raise ConfigError(
            f"{runs}: holds no comparison to resume; start one with python -m experiments.compare"
        )
    if (run.folder / report.JSON).exists():
        raise ConfigError(f"{run.folder}: this run is finished; its figures are in {report.MARKDOWN}")
    config = load(CompareConfig, run.folder / "config.yaml", runs=runs)
    require_tracking(config.tracking)
    skipped: dict[str, str] = {}
    if not config.runs_of:
        config, skipped = resolved(config)
    selection = select_bars(config.market)
    selection.show(console)
    with console.status("looking at features, labels and regimes"):
        data = _looked_at(config, selection.bars)
    if read_json(run.folder / "manifest.json").get("data") != data:
        raise ConfigError(f"{run.folder}: cannot go on, the data are not those it was started with")
    run.remove_drafts()
    console.print(f"Going on with run {run.id}, seed {config.seed}")
    return _complete(run, config, selection, data, skipped, console)


def _looked_at(config: CompareConfig, bars: Bars) -> dict[str, str]:
    # Fingerprints of the bars, and of features and labels by horizon. Whatever would end the comparison is
    # told here: before hours of training, and before a folder is made.
    found = {"bars": bars.fingerprint()}
    Terms.of(bars, config.costs, config.limits, config.venue, CAPITAL)
    if config.runs_of:
        require_bars(config, bars)
        groups = finished(config)
        first = min(same_rows_of(bars, horizon, group).span.start for horizon, group in groups.items())
    else:
        first = len(bars)
        for horizon in config.horizons:
            model = next(iter(config.models.values()))
            ground = prepare(bars, config.training(model, horizon, config.runs).dataset())
            first = min(first, folds_of(ground, config.schedule)[0].test.start)
            found[horizon] = fingerprint(ground)
    regimes_of(bars, first, config.regimes)
    return found


def _complete(
    run: Run,
    config: CompareConfig,
    selection: Selection,
    data: Mapping[str, str],
    skipped: dict[str, str],
    console: Console,
) -> Path:
    try:
        candidates = finished(config) if config.runs_of else trained(config, run, data, console, skipped)
        with console.status("measuring") as status:
            found = _measured(run, config, selection, candidates, skipped, status.update)
    except BaseException:
        console.print(
            f"To go on: python -m experiments.compare --runs {run.folder.parent} --resume {run.id}",
            soft_wrap=True,
        )
        raise
    trainings = {one.run for group in candidates.values() for one in group}
    run.write_manifest(data=data, seeds={"root": config.seed}, parents=sorted(trainings))
    run.write_bytes(report.MARKDOWN, report.markdown(found).encode())
    run.write_json(report.JSON, found)  # last: it says that the run is finished
    report.show(console, found)
    console.print(f"Report, pictures, figures and trainings: {run.folder}", soft_wrap=True)
    if config.tracking.mlflow is not None:
        with console.status("mirroring"):
            warning = _mirrored(run, config, found)
        if warning:
            console.print(f"! {warning}", markup=False)
    return run.folder


def _measured(
    run: Run,
    config: CompareConfig,
    selection: Selection,
    candidates: Mapping[str, Sequence[Candidate]],
    skipped: Mapping[str, str],
    told: Any,
) -> dict[str, Any]:
    bars = selection.bars
    groups = {h: same_rows_of(bars, h, group) for h, group in candidates.items()}
    regimes = regimes_of(bars, min(rows.span.start for rows in groups.values()), config.regimes)
    accounts: dict[str, list[BacktestResult]] = {}
    for horizon, rows in groups.items():
        told(f"trading the signals of {horizon}")
        accounts[horizon] = [traded(rows, i, regimes, config) for i in range(len(rows.candidates))]
    trials = _count_trials(run, config, bars.fingerprint(), groups, accounts)
    horizons: dict[str, Any] = {}
    for horizon, rows in groups.items():
        told(f"measuring the answers to {horizon}")
        horizons[horizon] = _horizon(config, rows, regimes, accounts[horizon], trials)
        _write_rows(run, rows, regimes, accounts[horizon])
        told(f"drawing {horizon}")
        horizons[horizon]["pictures"] = _draw(run, rows, accounts[horizon], horizons[horizon])
    _write_figures(run, horizons)
    return {
        "title": f"Forecasters on {bars.label}, out of fold",
        "sample": "out of fold",
        "data": {
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "bars": bars.label,
            "rows": len(bars),
            "fingerprint": bars.fingerprint(),
        },
        "skipped": dict(skipped),
        "trained_here": not config.runs_of,
        "requirements": {"f1_macro_above": config.least_f1, "p_below": SIGNIFICANT},
        "regimes": None if config.regimes is None else config.regimes.detector.name,
        "assumptions": list(next(iter(accounts.values()))[0].assumptions),
        "trials": trials,
        "seed": config.seed,
        "bootstrap": {"paths": config.bootstrap_paths, "levels": [0.05, 0.95]},
        "horizons": horizons,
    }


def _horizon(
    config: CompareConfig,
    rows: Rows,
    regimes: np.ndarray,
    accounts: Sequence[BacktestResult],
    trials: Mapping[str, Any],
) -> dict[str, Any]:
    names, block = rows.names, config.block(rows.horizon_bars)
    judged = rows.judged
    before = np.r_[regimes[rows.span.start - 1 : rows.span.start], regimes[rows.span][:-1]]
    known = regimes[rows.span]
    labels = regime_names(known)
    folds = {int(start): utc(start)[:10] for start in np.unique(rows.fold).tolist()}
    # Scope, part, rows that were answered in it, rows whose return was earned in it, trades by their entry.
    parts = [(WHOLE, WHOLE, np.ones(judged.size, np.bool_), np.ones(judged.size, np.bool_), False)]
    parts += [(FOLD, name, rows.fold == start, rows.fold == start, False) for start, name in folds.items()]
    parts += [(REGIME, name, known == code, before == code, True) for code, name in labels.items()]
    books = [_account(result, rows.bars.interval_ns) for result in accounts]
    scopes: dict[str, dict[str, Any]] = {WHOLE: {}, FOLD: {}, REGIME: {}}
    for scope, part, answered, earned, by_entry in parts:
        kept = judged & answered
        skills = [
            Skill(rows.probabilities[i][kept], rows.decisions[i][kept], rows.target[kept], rows.ret[kept])
            for i in range(len(names))
        ]
        pieces = [book.take(earned, entered if by_entry else None) for book, entered in books]
        place = (rows.horizon, scope, part)
        classes = skill_intervals(
            skills, block, config.bootstrap_paths, stream(config.seed, "compare", "answers", *place)
        )
        money = account_intervals(
            pieces, block, config.bootstrap_paths, stream(config.seed, "compare", "account", *place)
        )
        scopes[scope][part] = {
            "rows": int(kept.sum()),
            "models": {
                name: {
                    "figures": {k: v for k, v in skill.figures().items() if k != "rows"} | piece.figures(),
                    "intervals": {key: list(value) for key, value in (one | other).items()},
                }
                for name, skill, piece, one, other in zip(names, skills, pieces, classes, money, strict=True)
            },
        }
    leads = _leads(config, rows, block)
    guardrails = config.promotion.of_span(rows.horizon_bars * rows.bars.interval_ns)
    models = {}
    for i, one in enumerate(rows.candidates):
        own = scopes[WHOLE][WHOLE]["models"][one.name]
        record = TrackRecord.of(accounts[i].curve.column("net_return"), serial=True)
        skill = probabilistic_sharpe(record)
        criteria = promotion.judge(own["figures"] | {"psr": skill}, guardrails)
        fails = [] if one.naive else _fails(config, own["figures"]["f1_macro"], leads[one.name])
        models[one.name] = {
            "family": one.family,
            "naive": one.naive,
            "run": one.run,
            "settings": one.config.model.settings,
            **own,
            "calibration": {
                CLASSES[c]: calibration_curve(rows.probabilities[i][judged, c], rows.target[judged] == c)
                for c in (0, 2)
            },
            "leads": leads.get(one.name, {}),
            "fails": fails,
            "passes": None if one.naive else not fails,
            "psr": finite(skill),
            "deflated": finite(
                deflated_sharpe(record, max(trials["counted"], 1), _or_nan(trials["variance"]))
            ),
            "promotion": promotion.document(criteria),
        }
    return {
        "label": rows.label,
        "horizon_bars": rows.horizon_bars,
        "from": utc(rows.time[0]),
        "to": utc(rows.time[-1]),
        "rows": int(judged.size),
        "answered": int(rows.answered.sum()),
        "judged": int(judged.sum()),
        "classes": {
            one: finite((rows.target[judged] == c).mean()) if judged.any() else None
            for c, one in enumerate(CLASSES)
        },
        "mean_block": block,
        "models": models,
        "folds": scopes[FOLD],
        "regimes": scopes[REGIME],
        "correlation": _correlation(rows),
        "best": _best(models),
    }


def _account(result: BacktestResult, interval_ns: int) -> tuple[Account, np.ndarray]:
    # Of the whole span; a trade counts where it ended, and by its entry where regimes are asked for.
    entered, left = rows_of_trades(result, interval_ns)
    curve = result.curve
    return (
        Account(
            curve.column("net_return"), curve.column("turnover"), curve.column("exposure"), left,
            trade_returns(result.trades), result.bars_per_year,
        ),
        entered,
    )  # fmt: skip


def _leads(config: CompareConfig, rows: Rows, block: float) -> dict[str, dict[str, dict[str, float]]]:
    # Of every model against every baseline, paired: the same blocks for both.
    judged = rows.judged
    target, found = rows.target[judged], {}
    for i, model in enumerate(rows.candidates):
        if model.naive or not target.size:
            continue
        found[model.name] = {
            rival.name: f1_lead(
                target,
                rows.decisions[i][judged],
                rows.decisions[j][judged],
                min(block, max(1.0, target.size / 4)),
                stream(config.seed, "compare", "lead", rows.horizon, model.name, rival.name),
                config.bootstrap_paths,
            )
            for j, rival in enumerate(rows.candidates)
            if rival.naive
        }
    return found


def _fails(config: CompareConfig, f1: float | None, leads: Mapping[str, Mapping[str, float]]) -> list[str]:
    # Why a model has not shown that it knows anything; empty if it has.
    found = []
    if f1 is None or not f1 > config.least_f1:
        found.append(f"F1 macro is {_or_nan(f1):.4f}, must be above {config.least_f1:g}")
    if not leads:
        found.append("it was held against no naive baseline")
    found += [
        f"does not lead {name}: {lead['lead']:+.4f} in F1 macro, p = {lead['p']:.3f}, must be below "
        f"{SIGNIFICANT}"
        for name, lead in leads.items()
        if not lead["p"] < SIGNIFICANT
    ]
    return found


def _correlation(rows: Rows) -> dict[str, Any]:
    kept = rows.judged
    if kept.sum() < 2:
        return {"signals": {}, "errors": {}}
    signals = rows.probabilities[:, :, 2] - rows.probabilities[:, :, 0]
    wrong = rows.decisions != rows.target
    return {
        kind: correlations({name: values[i][kept].astype(np.float64) for i, name in enumerate(rows.names)})
        for kind, values in (("signals", signals), ("errors", wrong))
    }


def _best(models: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    # By each figure, baselines left out: who would win by knowing nothing is not the best of those who try.
    found: dict[str, str | None] = {}
    for figure, sign in report.BEST.items():
        values = {
            name: sign * one["figures"][figure]
            for name, one in models.items()
            if not one["naive"] and one["figures"][figure] is not None
        }
        found[figure] = max(values, key=values.__getitem__) if values else None
    return found


def _count_trials(
    run: Run,
    config: CompareConfig,
    fingerprint: str,
    groups: Mapping[str, Rows],
    accounts: Mapping[str, Sequence[BacktestResult]],
) -> dict[str, Any]:
    # Whoever takes the best of these has tried them all: they go into the ledger, a batch per horizon.
    ledger = Ledger(Path(config.runs).parent / LEDGER)
    for batch, (horizon, rows) in enumerate(groups.items()):
        sharpes = np.array(
            [
                TrackRecord.of(result.curve.column("net_return")).sharpe
                for one, result in zip(rows.candidates, accounts[horizon], strict=True)
                if not one.naive
            ]
        )
        if sharpes.size:
            ledger.record(fingerprint, run.id, sharpes, sharpes.size, sharpes.size, batch)
    known = ledger.summary(fingerprint)
    return {
        "counted": int(max(known.n_unique, known.n_effective)),
        "runs": known.n_runs,
        "variance": finite(known.sharpe_variance),
    }


def _write_rows(run: Run, rows: Rows, regimes: np.ndarray, accounts: Sequence[BacktestResult]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    moment, unanswered, unknown = pa.timestamp("ns", tz="UTC"), ~rows.answered, np.isnan(rows.ret)
    known = regimes[rows.span]
    names = regime_names(known)
    columns: dict[str, Any] = {
        "time": pa.array(rows.time, moment),
        "fold": pa.array(rows.fold, moment),
        "regime": pa.array([names.get(code) for code in known.tolist()], pa.string()),
        "label": pa.array(rows.target - 1, pa.int8(), mask=unknown),
        "ret": pa.array(rows.ret, pa.float64(), mask=unknown),
    }
    for i, name in enumerate(rows.names):
        for c, one in enumerate(CLASSES):
            columns[f"{name}: p_{one}"] = pa.array(rows.probabilities[i][:, c], mask=unanswered)
        columns[f"{name}: decision"] = pa.array(rows.decisions[i] - 1, pa.int8(), mask=unanswered)
        for column in ("exposure", "net_return"):
            columns[f"{name}: {column}"] = pa.array(accounts[i].curve.column(column))
    with run.writing(f"predictions/{_file(rows.horizon)}.parquet") as draft:
        pq.write_table(pa.table(columns), draft)


def _write_figures(run: Run, horizons: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = report.table_of(horizons)
    with run.writing("figures.parquet") as draft:
        pq.write_table(pa.table(table), draft)


def _draw(
    run: Run, rows: Rows, accounts: Sequence[BacktestResult], found: Mapping[str, Any]
) -> dict[str, str]:
    from forecasters import comparison_figures as figures

    title = f"{rows.label} of {rows.bars.label}, out of fold"
    naive = [one.name for one in rows.candidates if one.naive]
    curves = {name: accounts[i].curve.column("net_return") for i, name in enumerate(rows.names)}
    pictures = {
        "figures": lambda path: figures.draw_figures(found["models"], naive, path, title),
        "calibration": lambda path: figures.draw_calibration(
            {name: one["calibration"] for name, one in found["models"].items()}, naive, path, title
        ),
        "equity": lambda path: figures.draw_equity(
            rows.time, curves, naive, path, f"Signals of {title}, after costs"
        ),
        "parts": lambda path: figures.draw_parts(found["folds"], found["regimes"], path, title),
        "correlation": lambda path: figures.draw_correlation(found["correlation"], path, title),
    }
    drawn = {}
    for name, draw in pictures.items():
        drawn[name] = f"plots/{_file(rows.horizon)}_{name}.png"
        with run.writing(drawn[name]) as draft:
            draw(draft)
    return drawn


def _mirrored(run: Run, config: CompareConfig, found: Mapping[str, Any]) -> str:
    children = [
        Entry(
            f"{name} {horizon}",
            {"model": name, "family": one["family"], "horizon": horizon, **flat(one["settings"])},
            {**one["figures"], "psr": one["psr"], "deflated": one["deflated"]},
            {"sample": "out of fold", "promoted": str(one["promotion"]["promoted"]).lower()},
        )
        for horizon, group in found["horizons"].items()
        for name, one in group["models"].items()
    ]
    settings = flat(config.model_dump(mode="json", exclude={"tracking", "models"}))
    files = ["config.yaml", "figures.parquet", report.MARKDOWN, report.JSON]
    files += [path for group in found["horizons"].values() for path in group["pictures"].values()]
    entry = Entry(run.id, settings, {}, {"sample": "out of fold", "data": found["data"]["bars"]})
    return mirror(config.tracking, run, entry, children, files)


def _as_trained(config: CompareConfig) -> CompareConfig:
    # Bars are those of the first run, whatever else was said of a market.
    _, first = finished_run(config.runs, config.runs_of[0])
    return config.model_copy(update={"market": first.market, "schedule": first.schedule})


def _title(config: CompareConfig) -> str:
    if config.runs_of:
        return f"{len(config.runs_of)}-runs"
    if ALL in config.forecasters:
        return ALL
    names = [name for name in config.models if name not in config.baselines]
    return names[0] if len(names) == 1 else f"{len(names)}-forecasters"


def _file(horizon: str) -> str:
    return horizon if horizon[-1:].isalpha() else f"{horizon}bars"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

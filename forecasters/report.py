"""What a training has found: ``report.json``, ``report.md``, and the table on the screen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compute.seeds import stream
from experiments.page import UNDEFINED, Grid, decimal, percent, whole
from forecasters.measures import f1_lead, measured
from forecasters.quantiles import quantile_figures
from forecasters.settings import ForecastConfig
from forecasters.training import Fold, Ground
from forecasters.windows import CLASSES
from market.sources.selection import Selection
from market.suspicion import suspicious
from market.table import utc

if TYPE_CHECKING:
    from rich.console import Console

JSON, MARKDOWN = "report.json", "report.md"
SHOWN = 15  # columns by importance
SIGNIFICANT = 0.05

ON_SCREEN = ("f1_macro", "balanced_accuracy", "log_loss", "brier", "information_coefficient", "hit_rate")
_HEADS = {
    "f1_macro": "F1 macro", "f1_up": "F1 up", "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss", "brier": "Brier", "calibration_error": "calibration error",
    "information_coefficient": "IC", "hit_rate": "hit rate", "signals": "signals",
}  # fmt: skip


def figures(
    config: ForecastConfig,
    ground: Ground,
    selection: Selection,
    folds: Sequence[Fold],
    tags: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that the report says, as plain objects."""
    names = list(folds[0].answers)
    rows = np.concatenate([_judged(ground, fold)[0] for fold in folds])
    target, ret = (ground.labels.value[rows] + 1).astype(np.int8), ground.labels.ret[rows]
    answers = {name: _pooled(ground, folds, name, "answers") for name in names}
    decisions = {name: _pooled(ground, folds, name, "decisions") for name in names}
    model = names[0]
    block = float(max(2 * ground.labels.horizon, 24))
    leads = {
        name: f1_lead(
            target,
            decisions[model],
            decisions[name],
            min(block, max(1.0, rows.size / 4)),
            stream(config.seed, "lead", name),
            config.bootstrap_paths,
        )
        for name in names[1:]
        if rows.size
    }
    importances = _importances(folds)
    time = ground.bars.time
    return {
        "model": model,
        "family": tags.get("family"),
        "settings": config.model.settings,
        "label": ground.labels.name,
        "horizon_bars": ground.labels.horizon,
        "data": {
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "bars": ground.bars.label,
            "rows": len(ground.bars),
            "features": ground.feature_version,
            "columns": len(ground.features.names),
        },
        "schedule": config.schedule.model_dump(mode="json"),
        "learning": config.learning.model_dump(mode="json"),
        "seed": config.seed,
        "out_of_fold": {
            "from": utc(time[folds[0].test.start]),
            "to": utc(time[folds[-1].test.stop - 1]),
            "rows": sum(fold.test.stop - fold.test.start for fold in folds),
            "answered": sum(int((~np.isnan(fold.answers[model][:, 0])).sum()) for fold in folds),
            "judged": int(rows.size),
            "classes": {
                one: float((target == i).mean()) if rows.size else None for i, one in enumerate(CLASSES)
            },
        },
        "pooled": {name: measured(answers[name], decisions[name], target, ret) for name in names},
        "quantiles": {name: _quantiles(ground, folds, name) for name in folds[0].levels},
        "leads": leads,
        "leads_all": bool(leads) and all(one["p"] < SIGNIFICANT for one in leads.values()),
        "folds": [_fold(ground, fold) for fold in folds],
        "importances": importances,
        "suspicious": [
            {"column": one.name, "reason": str(one)}
            for one in suspicious(
                ground.features, ground.labels.ret, importances, rows, ground.labels.horizon
            )
        ],
    }


def grid(name: str, table: Mapping[str, Mapping[str, Any]], title: str) -> Grid:
    """Return figures as a table, one line per entry."""
    rows = tuple(
        (one, whole(row["rows"]), *(_cell(figure, row[figure]) for figure in _HEADS))
        for one, row in table.items()
    )
    return Grid(name, ("", "rows", *_HEADS.values()), rows, title=title)


def markdown(found: Mapping[str, Any]) -> str:
    """Return ``report.md``."""
    out, model = found["out_of_fold"], found["model"]
    classes = ", ".join(
        f"{one} {percent(share or 0.0, signed=False)}" for one, share in out["classes"].items()
    )
    lines = [
        f"# {model} on {found['label']} of {found['data']['bars']}",
        "",
        f"{found['data']['origin']}. Every figure is out of fold: each row was answered by a forecaster that "
        f"knew nothing of it, {out['from']} to {out['to']}, {whole(out['rows'])} rows, "
        f"{whole(out['answered'])} answered, {whole(out['judged'])} of them with a label ({classes}).",
        "",
        *_table(grid("pooled", found["pooled"], "")),
        "",
        verdict(found),
        "",
        "Signals is the share of rows decided up or down, the hit rate the share of these whose return had "
        "that sign, before costs. IC is the rank correlation of P(up) - P(down) with the label's return.",
        "",
    ]
    if found["leads"]:
        rows = tuple(
            (
                name,
                *(decimal(one[key], 4, signed=True) for key in ("lead", "low", "high")),
                decimal(one["p"], 3),
            )
            for name, one in found["leads"].items()
        )
        lead = Grid("leads", ("F1 macro against", "lead", "5 %", "95 %", "p"), rows)
        lines += ["## Against the baselines", "", *_table(lead), ""]
    lines += _quantile_lines(found)
    by_fold = {f"{fold['number']}: {fold['test'][0][:10]}": fold["figures"][model] for fold in found["folds"]}
    lines += ["## Folds", "", *_table(grid("folds", by_fold, "")), ""]
    rows = tuple(
        (
            str(fold["number"]),
            fold["trained_through"],
            fold["test"][0],
            *(whole(fold["examples"][part]) for part in ("fit", "validation", "test")),
            whole(fold["columns"]),
        )
        for fold in found["folds"]
    )
    heads = ("fold", "trained through", "test from", "fitted on", "validated on", "answered", "columns")
    lines += ["## What each fold knew", "", *_table(Grid("knew", heads, rows)), ""]
    lines += _selection_lines(found)
    if found["importances"]:
        rows = tuple(
            (name, percent(share, signed=False)) for name, share in list(found["importances"].items())[:SHOWN]
        )
        lines += ["## Columns", "", *_table(Grid("columns", ("column", "share of the importance"), rows)), ""]
    lines += [f"- {sentence}" for sentence in warnings(found)]
    return "\n".join(lines).rstrip() + "\n"


def verdict(found: Mapping[str, Any]) -> str:
    """Return whether the model leads all its baselines, as one sentence."""
    if not found["leads"]:
        return "It was held against no baseline."
    least = min(found["leads"], key=lambda name: found["leads"][name]["lead"])
    one = found["leads"][least]
    if found["leads_all"]:
        return (
            f"{found['model']} leads every baseline in F1 macro (paired block bootstrap, p below "
            f"{SIGNIFICANT}); the nearest is {least}, {decimal(one['lead'], 4, signed=True)}."
        )
    behind = [name for name, lead in found["leads"].items() if lead["p"] >= SIGNIFICANT]
    return f"{found['model']} does NOT lead {', '.join(behind)} in F1 macro with p below {SIGNIFICANT}."


def warnings(found: Mapping[str, Any]) -> list[str]:
    """Return what speaks against the figures, one sentence each."""
    said = list(found["data"]["warnings"])
    said += [one["reason"] for one in found["suspicious"]]
    dropped = sorted({name for fold in found["folds"] for name in fold["dropped"].get("seldom known", ())})
    if dropped:
        said.append(f"Seldom known, and left out in some folds: {', '.join(dropped)}")
    return said


def show(console: "Console", found: Mapping[str, Any]) -> None:
    """Print the figures of all rows."""
    from rich.table import Table as RichTable

    shown = RichTable(title=f"{found['label']}, out of fold")
    for column in ("", *(_HEADS[figure] for figure in ON_SCREEN)):
        # A word to a line: so that columns are as narrow as their numbers, and none of these is cut off.
        shown.add_column(column.replace(" ", "\n"), justify="right" if column else "left", no_wrap=True)
    for name, row in found["pooled"].items():
        shown.add_row(name, *(_cell(figure, row[figure]) for figure in ON_SCREEN))
    console.print(shown)
    console.print(verdict(found), markup=False)
    for sentence in warnings(found):
        if sentence not in found["data"]["warnings"]:
            console.print(f"! {sentence}", markup=False)


def _judged(ground: Ground, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    # Rows that were answered and whose truth is known, and their places in the fold.
    model = next(iter(fold.answers))
    rows = np.arange(fold.test.start, fold.test.stop)
    kept = ~np.isnan(fold.answers[model][:, 0]) & ground.labels.known[rows]
    return rows[kept], kept


def _pooled(ground: Ground, folds: Sequence[Fold], name: str, what: str) -> np.ndarray:
    return np.concatenate([getattr(fold, what)[name][_judged(ground, fold)[1]] for fold in folds])


def _selection_lines(found: Mapping[str, Any]) -> list[str]:
    kept = [set(fold["selection"]["scores"]) for fold in found["folds"] if "selection" in fold]
    if not kept:
        return []
    always = sorted(set.intersection(*kept))
    how = found["learning"]["selection"]["by"].replace("_", " ")
    return [
        f"Columns were selected by {how} in each fold, on the rows it was fitted on. {len(set.union(*kept))} "
        f"were kept in some fold, {len(always)} in every one{': ' if always else ''}{', '.join(always)}.",
        "",
    ]


def _quantiles(ground: Ground, folds: Sequence[Fold], name: str) -> dict[str, Any]:
    levels, labels, constant = folds[0].levels[name], ground.labels, []
    for fold in folds:
        fit = slice(*fold.told["rows"]["fit"])
        plain = np.quantile(labels.ret[fit][labels.known[fit]], levels)
        constant.append(np.tile(plain, (_judged(ground, fold)[0].size, 1)))
    rows = np.concatenate([_judged(ground, fold)[0] for fold in folds])
    found = _pooled(ground, folds, name, "quantiles")
    return quantile_figures(found, np.concatenate(constant), labels.ret[rows], levels)


def _quantile_lines(found: Mapping[str, Any]) -> list[str]:
    rows = tuple(
        (
            name,
            percent(one["level"], signed=False),
            percent(one["coverage"], signed=False),
            *(percent(one[key], 3, signed=False) for key in ("pinball", "constant")),
            UNDEFINED if one["skill"] is None else percent(one["skill"]),
        )
        for name, figures in found["quantiles"].items()
        for one in figures["levels"].values()
    )
    if not rows:
        return []
    heads = ("", "level", "returns below", "pinball loss", "of constant ones", "skill")
    within = "; ".join(
        f"{name}: {percent(one['within'], signed=False)} of the returns lie between its outer quantiles, "
        f"{percent(one['expected'], signed=False)} should"
        for name, one in found["quantiles"].items()
        if one["rows"]
    )
    return [
        "## Quantiles of the return",
        "",
        *_table(Grid("quantiles", heads, rows)),
        "",
        f"{within}. Constant quantiles are those of the returns that a fold was fitted on; the skill is the "
        f"share of their pinball loss that the forecaster saves.",
        "",
    ]


def _fold(ground: Ground, fold: Fold) -> dict[str, Any]:
    time = ground.bars.time
    rows, kept = _judged(ground, fold)
    target, ret = (ground.labels.value[rows] + 1).astype(np.int8), ground.labels.ret[rows]
    return {
        "number": fold.number + 1,
        "test": [utc(time[fold.test.start]), utc(time[fold.test.stop - 1])],
        "trained_through": utc(fold.trained_through),
        **fold.told,
        "figures": {
            name: measured(fold.answers[name][kept], fold.decisions[name][kept], target, ret)
            for name in fold.answers
        },
    }


def _importances(folds: Sequence[Fold]) -> dict[str, float]:
    total: dict[str, float] = {}
    for fold in folds:
        for name, share in fold.importances.items():
            total[name] = total.get(name, 0.0) + share / len(folds)
    return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))


def _cell(figure: str, value: float | None) -> str:
    if value is None:
        return UNDEFINED
    if figure in ("hit_rate", "signals"):
        return percent(value, signed=False)
    return decimal(value, 4 if figure != "information_coefficient" else 3)


def _table(one: Grid) -> list[str]:
    lines = ["| " + " | ".join(one.columns) + " |", "|---" * len(one.columns) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in one.rows]

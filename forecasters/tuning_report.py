"""What a tuning has found: ``report.json``, ``report.md``, pictures, and the table on the screen."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.metrics import max_drawdown, sharpe, total_return
from compute.seeds import stream
from configs.load import PluginConfig
from experiments.page import UNDEFINED, decimal, percent, whole
from experiments.runs import Run
from experiments.studies import Trial
from forecasters.forecaster import FORECASTERS, new_forecaster
from forecasters.measures import f1_lead
from forecasters.training import Fold, Ground
from forecasters.tuning import NONE, chosen, judged, leading, targets_of, traded
from forecasters.tuning_settings import DOWN, UP, TuneConfig
from market.sources.selection import Selection
from market.splits import Split
from market.table import utc

if TYPE_CHECKING:
    from rich.console import Console

JSON, MARKDOWN = "report.json", "report.md"
PLOTS = ("history", "importances", "slices")
SHOWN = 10  # trials, best first
SIGNIFICANT = 0.05
_STATES = ("complete", "pruned", "failed")
_HEADS = {
    "f1_macro": "F1 macro", "balanced_accuracy": "balanced accuracy", "log_loss": "log loss",
    "information_coefficient": "IC", "hit_rate": "hit rate", "signals": "signals",
    "net_return": "net return", "drawdown": "drawdown", "sharpe": "Sharpe", "trades": "trades",
}  # fmt: skip
_SHARES = ("hit_rate", "signals", "drawdown")


def subject(model: PluginConfig, thresholds: tuple[float, float]) -> str:
    """Return the identity of what is judged on the held-out spans, for the trial ledger."""
    text = json.dumps([model.model_dump(mode="json"), list(thresholds)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def held_out(
    config: TuneConfig,
    ground: Ground,
    folds: Mapping[str, Sequence[Fold]],
    thresholds: tuple[float, float],
) -> dict[str, Any]:
    """Return what the best settings, the defaults and the baselines did on the spans that were held out.

    Parameters
    ----------
    config : TuneConfig
    ground : Ground
        Of all bars.
    folds : mapping of str to sequence of Fold
        ``best``, with the baselines, and ``defaults``; the same tests.
    thresholds : tuple of float (2,)
        Of the best.
    """
    name = config.model.name
    best = judged(ground, folds["best"], name, thresholds)
    defaults = judged(ground, folds["defaults"], name, NONE)
    rivals = [rival for rival in folds["best"][0].answers if rival != name]
    all_of_them = {"best": best, "defaults": defaults}
    all_of_them |= {rival: judged(ground, folds["best"], rival, None) for rival in rivals}
    rows = slice(folds["best"][0].test.start, folds["best"][-1].test.stop)
    found = {}
    for one, result in all_of_them.items():
        account = traded(ground, result.decision, rows, config)
        returns = account.curve.column("net_return")
        ratio = sharpe(returns, account.bars_per_year)
        found[one] = result.figures | {
            "net_return": total_return(returns),
            "drawdown": -max_drawdown(returns) + 0.0,
            "sharpe": float(ratio) if np.isfinite(ratio) else None,
            "trades": len(account.trades),
        }
    both, of_best, of_defaults = np.intersect1d(best.rows, defaults.rows, return_indices=True)
    block = float(min(max(2 * ground.labels.horizon, 24), max(1.0, both.size / 4)))
    lead = f1_lead(
        targets_of(ground, both),
        best.on_rows[of_best],
        defaults.on_rows[of_defaults],
        block,
        stream(config.seed, "lead", "held out"),
        config.bootstrap_paths,
    )
    time = ground.bars.time
    return {
        "from": utc(time[rows.start]),
        "to": utc(time[rows.stop - 1]),
        "rows": rows.stop - rows.start,
        "folds": len(folds["best"]),
        "figures": found,
        "lead": lead,
    }


def figures(
    config: TuneConfig,
    ground: Ground,
    selection: Selection,
    splits: Sequence[Split],
    defaults: Mapping[str, Any],
    trials: Sequence[Trial],
    importances: Mapping[str, float],
    unseen: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that the report says, as plain objects.

    Parameters
    ----------
    config : TuneConfig
    ground : Ground
        Of the rows that the search saw.
    selection : Selection
    splits : sequence of Split
        Folds of a trial.
    defaults : mapping
        ``folds``: scores of the settings before the search.
    trials : sequence of Trial
    importances : mapping of str to float
    unseen : mapping
        As of :func:`held_out`.
    """
    best = leading(trials)
    model, thresholds = chosen(best.parameters, config.model)
    before = float(np.mean([fold["value"] for fold in defaults["folds"]]))
    time = ground.bars.time
    return {
        "target": config.target,
        "model": model.name,
        "family": FORECASTERS.tags(model.name).get("family"),
        "label": ground.labels.name,
        "horizon_bars": ground.labels.horizon,
        "data": {
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "bars": ground.bars.label,
            "rows": len(selection.bars),
            "features": ground.feature_version,
            "columns": len(ground.features.names),
        },
        "schedule": config.schedule.model_dump(mode="json"),
        "learning": config.learning.model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
        "sampling": config.sampling.model_dump(mode="json"),
        "pruning": config.pruning.model_dump(mode="json"),
        "space": {name: one.text() for name, one in config.parameters().items()},
        "seed": config.seed,
        "study": {
            "from": utc(time[0]),
            "to": utc(time[-1]),
            "rows": len(ground.bars),
            "folds": [[utc(time[one.test.start]), utc(time[one.test.stop - 1])] for one in splits],
            **{state: sum(one.state == state for one in trials) for state in _STATES},
        },
        "defaults": {
            "settings": new_forecaster(config.model).config.model_dump(mode="json"),
            "value": before,
            "folds": defaults["folds"],
        },
        "best": {
            "trial": best.number + 1,
            "value": best.value,
            "settings": model.settings,
            "thresholds": {"down": thresholds[0], "up": thresholds[1]},
            "folds": best.notes["folds"],
        },
        "importances": dict(importances),
        "trials": [
            {
                "trial": one.number + 1,
                "state": one.state,
                "value": one.value,
                "parameters": dict(one.parameters),
                "steps": list(one.steps),
                "reason": one.notes.get("reason"),
            }
            for one in trials
        ],
        "held_out": dict(unseen),
    }


def draw(run: Run, found: Mapping[str, Any]) -> None:
    """Save the pictures of a study in the run's folder ``plots``."""
    from forecasters import tuning_figures

    title = f"{found['model']} on {found['label']}, {found['data']['bars']}"
    for name in PLOTS:
        with run.writing(f"plots/{name}.png") as draft:
            getattr(tuning_figures, f"draw_{name}")(found, draft, title)


def verdict(found: Mapping[str, Any]) -> list[str]:
    """Return what the search was good for, a sentence each."""
    best, defaults, unseen = found["best"], found["defaults"], found["held_out"]
    gain = best["value"] - defaults["value"]
    said = [
        f"On the folds of the search the best trial reaches {decimal(best['value'], 4)}, "
        f"{decimal(gain, 4, signed=True)} against the defaults; the best of many is always too good there."
    ]
    if gain <= 0:
        said.append("NO trial was better than the defaults on the folds of the search.")
    lead = unseen["lead"]
    how = "leads the defaults" if lead["p"] < SIGNIFICANT else "does NOT lead the defaults beyond chance"
    low, mean, high = (decimal(lead[key], 4, signed=True) for key in ("low", "lead", "high"))
    said.append(
        f"On the spans that were held out the best {how} in F1 macro: {mean} (5 to 95 %: {low} to {high}, "
        f"p {decimal(lead['p'], 3)}, paired block bootstrap)."
    )
    looks = found["evidence"]
    if looks["earlier_looks"]:
        said.append(
            f"These spans were looked at {looks['earlier_looks']} times before, for "
            f"{looks['earlier_subjects']} other settings or strategies: they are not unseen any more."
        )
    return said


def markdown(found: Mapping[str, Any], best_file: str) -> str:
    """Return ``report.md``.

    Parameters
    ----------
    found : mapping
        As of :func:`figures`, with ``evidence``.
    best_file : str
        Path of the best settings.
    """
    study, best, defaults, unseen = found["study"], found["best"], found["defaults"], found["held_out"]
    objective, looks = found["objective"], found["evidence"]
    lines = [
        f"# Tuning of {found['model']} on {found['label']} of {found['data']['bars']}",
        "",
        f"{found['data']['origin']}. {len(found['trials'])} trials on {len(study['folds'])} purged "
        f"walk-forward folds, {study['folds'][0][0]} to {study['folds'][-1][1]}: {study['complete']} "
        f"complete, {study['pruned']} given up early, {study['failed']} that could not be judged. The "
        f"objective is the mean over folds of F1 macro less {objective['drawdown_weight']:g} times the "
        f"drawdown beyond {percent(objective['drawdown_tolerated'], signed=False)} of the signal traded "
        f"after costs.",
        "",
        *(f"- {sentence}" for sentence in verdict(found)),
        "",
        f"To train with the best settings: `python -m forecasters.train --model {best_file}`",
        "",
        "## Best settings",
        "",
        *_table(("parameter", "tried", "default", "best", "importance"), _settings(found)),
        "",
        f"Importance: share of the differences between {study['complete']} complete trials that a parameter "
        f"explains (functional analysis of variance).",
        "",
        f"## Held out: {unseen['from']} to {unseen['to']}",
        "",
        f"{whole(unseen['rows'])} rows in {unseen['folds']} folds, cut off before the search began and "
        f"judged once, after it. Net return, drawdown and Sharpe ratio are of the signal traded after costs. "
        f"The best decides with its thresholds, all others without.",
        "",
        *_table(("", *_HEADS.values()), _judged(unseen["figures"])),
        "",
        f"The trial ledger knows of {whole(looks['trials'])} trials on these bars, of {looks['runs']} runs.",
        "",
        "## Folds of the search",
        "",
        *_table(
            (
                "test from",
                "best",
                "F1 macro",
                "drawdown",
                "trades",
                "defaults",
                "F1 macro",
                "drawdown",
                "trades",
            ),
            [
                (span[0][:10], *_fold(one), *_fold(other))
                for span, one, other in zip(study["folds"], best["folds"], defaults["folds"], strict=True)
            ],
        ),
        "",
        f"## The {min(SHOWN, study['complete'])} best trials",
        "",
        *_table(("trial", "value", *found["space"]), _best_trials(found)),
        "",
        *(f"![{name}](plots/{name}.png)" for name in PLOTS),
        "",
        *(f"- {warning}" for warning in found["data"]["warnings"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def show(console: "Console", found: Mapping[str, Any]) -> None:
    """Print the best settings and what they were worth."""
    from rich.table import Table as RichTable

    shown = RichTable(title=f"{found['model']} on {found['label']}: best of {len(found['trials'])} trials")
    for column in ("parameter", "tried", "default", "best", "importance"):
        shown.add_column(column, justify="left" if column == "parameter" else "right")
    for row in _settings(found):
        shown.add_row(*row)
    console.print(shown)
    for sentence in verdict(found):
        console.print(sentence, markup=False, soft_wrap=True)


def _settings(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    best = next(one for one in found["trials"] if one["trial"] == found["best"]["trial"])["parameters"]
    before = {DOWN: 0.0, UP: 0.0, **found["defaults"]["settings"]}
    shares = found["importances"]
    order = list(shares) or list(best)
    return [
        (
            name,
            found["space"][name],
            _value(before.get(name)),
            _value(best[name]),
            percent(shares[name], signed=False) if shares else UNDEFINED,
        )
        for name in order
    ]


def _judged(table: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [(name, *(_cell(figure, row[figure]) for figure in _HEADS)) for name, row in table.items()]


def _best_trials(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    complete = [one for one in found["trials"] if one["state"] == "complete"]
    complete.sort(key=lambda one: (-one["value"], one["trial"]))
    return [
        (
            str(one["trial"]),
            decimal(one["value"], 4),
            *(_value(one["parameters"][name]) for name in found["space"]),
        )
        for one in complete[:SHOWN]
    ]


def _fold(fold: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        decimal(fold["value"], 4),
        decimal(fold["f1_macro"], 4),
        percent(fold["drawdown"], signed=False),
        whole(fold["trades"]),
    )


def _value(value: Any) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(figure: str, value: float | None) -> str:
    if value is None:
        return UNDEFINED
    if figure == "net_return":
        return percent(value)
    if figure in _SHARES:
        return percent(value, signed=False)
    return whole(value) if figure == "trades" else decimal(value, 2 if figure == "sharpe" else 4)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]

"""What a search for barriers has found: ``report.json``, ``report.md``, and the tables on the screen."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.page import decimal, percent, whole
from forecasters.barrier_fitness import CLASSES, BarrierFigures
from forecasters.barrier_search import DECIMALS, Evolved, Material
from forecasters.barrier_settings import BarriersConfig, FitnessConfig
from market.features.dataset import LabelConfig
from market.sources.selection import Selection
from market.table import utc

if TYPE_CHECKING:
    from rich.console import Console

JSON, MARKDOWN = "report.json", "report.md"
SIGNIFICANT = 0.05
SPANS = {"training": "training rows, in sample", "later": "later rows, out of sample"}
_HEADS = ("barriers", "fitness", "balance", "moves beyond costs", "Sharpe after costs", "before", "labels")


def markdown(found: Mapping[str, Any]) -> str:
    """Return ``report.md``."""
    lines = [
        f"# Triple barriers evolved for {found['data']['bars']}",
        "",
        f"{found['data']['origin']}. {whole(found['search']['evaluations'])} different barriers in "
        f"{whole(found['search']['generations'])} generations, seed {found['seed']}.",
        "",
        *_table(
            ("barriers", "horizon", "up", "down", "volatility"),
            [
                (name, label["horizon"], f"{label['up']:g}", f"{label['down']:g}", label["volatility"])
                for name, label in found["labels"].items()
            ],
        ),
        "",
    ]
    for span, title in SPANS.items():
        rows = found["rows"][span]
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            f"{rows['from']} to {rows['to']}, {whole(rows['rows'])} rows.",
            "",
            *_table(_HEADS, [_cells(name, one) for name, one in found["figures"][span].items()]),
            "",
            *_table(
                ("barriers", *CLASSES, "bars", "without overlap"),
                [_about(name, one) for name, one in found["figures"][span].items()],
            ),
            "",
        ]
    lines += [*(f"{sentence}\n" for sentence in verdict(found)), *(f"- {one}" for one in warnings(found))]
    return "\n".join(lines).rstrip() + "\n"


def verdict(found: Mapping[str, Any]) -> list[str]:
    """Return what the evolved barriers bring on later rows, one sentence each."""
    said = []
    for name, lead in found["leads"].items():
        fitness = math.nan if lead["fitness"] is None else lead["fitness"]
        said.append(
            f"Evolved against {name}, on later rows: fitness {decimal(fitness, 3, signed=True)}; annual "
            f"Sharpe ratio of the probe after costs {_said(lead['after'])}, before costs "
            f"{_said(lead['before'])}."
        )
    after = found["figures"]["later"]["evolved"]["sharpe"]
    if after <= 0.0:
        said.append(
            f"The probe loses with the evolved barriers, too: its Sharpe ratio after costs is {after:.2f} on "
            f"later rows. Barriers make labels, not a strategy."
        )
    return said


def warnings(found: Mapping[str, Any]) -> list[str]:
    """Return what speaks against the figures, one sentence each."""
    said = list(found["data"]["warnings"])
    looks = found["ledger"]["earlier_looks"]
    if looks:
        said.append(
            f"These later rows have been looked at {looks} time(s) before: they are no longer unseen."
        )
    for edge in found["search"]["at_the_edge"]:
        said.append(f"{edge} is at the edge of what was tried; the best may lie beyond.")
    return said


def figures(
    config: BarriersConfig,
    material: Material,
    selection: Selection,
    evolved: Evolved,
    labels: Mapping[str, LabelConfig],
    measured: Mapping[str, Mapping[str, BarrierFigures]],
    ledger: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that the report says, as plain objects.

    Parameters
    ----------
    config : BarriersConfig
    material : Material
    selection : Selection
    evolved : Evolved
    labels : mapping of str to LabelConfig
        What is compared, by name; the evolved barriers as ``evolved``.
    measured : mapping of str to mapping
        Their figures by span and name.
    ledger : mapping
        What the trial ledger knows of these bars; ``earlier_looks`` at the later rows among it.
    """
    bars, fitness = selection.bars, config.fitness
    later = measured["later"]
    leads = {name: _lead(later["evolved"], one, fitness) for name, one in later.items() if name != "evolved"}
    return {
        "barriers": evolved.label.model_dump(mode="json"),
        "labels": {name: label.model_dump(mode="json") for name, label in labels.items()},
        "figures": {
            span: {name: _document(one, fitness) for name, one in found.items()}
            for span, found in measured.items()
        },
        "leads": leads,
        "rows": {
            name: {
                "from": utc(bars.time[span.start]),
                "to": utc(bars.time[span.stop - 1]),
                "rows": span.stop - span.start,
            }
            for name, span in spans(material).items()
        },
        "search": {
            "evaluations": evolved.evaluations,
            "generations": len(evolved.best) - 1,
            "best": [None if math.isinf(one) else one for one in evolved.best],
            "at_the_edge": _edges(material, evolved.label),
        },
        "data": {
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "bars": bars.label,
            "fingerprint": bars.fingerprint(),
        },
        "ledger": dict(ledger),
        "seed": config.seed,
    }


def spans(material: Material) -> dict[str, slice]:
    """Return the rows of both spans by name."""
    return {"training": material.split.train, "later": material.split.test}


def _document(one: BarrierFigures, config: FitnessConfig) -> dict[str, Any]:
    fitness = one.fitness(config)
    return {
        "fitness": None if math.isnan(fitness) else fitness,
        "balance": one.balance,
        "moves": one.moves,
        "sharpe": one.sharpe,
        "sharpe_error": one.error,
        "sharpe_before_costs": float(np.mean(one.gross_sharpes)),
        "sharpes": list(one.sharpes),
        "labels": one.labels,
        "effective": one.effective,
        "bars": one.bars,
        "shares": dict(zip(CLASSES, one.shares, strict=True)),
    }


def _lead(evolved: BarrierFigures, other: BarrierFigures, config: FitnessConfig) -> dict[str, Any]:
    more = evolved.fitness(config) - other.fitness(config)
    return {
        "fitness": None if math.isnan(more) else more,
        "after": _paired(evolved.sharpes, other.sharpes),
        "before": _paired(evolved.gross_sharpes, other.gross_sharpes),
    }


def _paired(one: tuple[float, ...], other: tuple[float, ...]) -> dict[str, float]:
    # Block by block: what moves all barriers alike says nothing about their difference.
    from scipy.special import stdtr

    apart = np.array(one) - np.array(other)
    mean, error = float(apart.mean()), float(apart.std(ddof=1)) / math.sqrt(apart.size)
    ratio = abs(mean) / error if error > 0.0 else (math.inf if mean else 0.0)
    return {"mean": mean, "error": error, "p": 2.0 * float(stdtr(apart.size - 1, -ratio))}


def _said(lead: Mapping[str, float]) -> str:
    if lead["p"] >= SIGNIFICANT:
        judgment = "no more than chance"
    else:
        judgment = "higher" if lead["mean"] > 0.0 else "LOWER"
    mean, error = decimal(lead["mean"], signed=True), decimal(lead["error"])
    p = decimal(lead["p"], 3) if lead["p"] >= 0.0005 else "below 0.001"
    return f"{mean} ± {error} (p {p}: {judgment})"


def _edges(material: Material, label: LabelConfig) -> list[str]:
    horizons, edges = material.space.horizons, []
    if len(horizons) > 1 and label.horizon in (horizons[0], horizons[-1]):
        edges.append(f"horizon {label.horizon}")
    for name in ("up", "down"):
        width = getattr(material.config.space, name)
        bounds = {round(width.least + step * width.step, DECIMALS) for step in (0, width.steps())}
        if len(bounds) > 1 and getattr(label, name) in bounds:
            edges.append(f"{name} {getattr(label, name):g}")
    return edges


def _cells(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        decimal(math.nan if one["fitness"] is None else one["fitness"], 3, signed=True),
        decimal(one["balance"], 3),
        percent(one["moves"], signed=False),
        f"{decimal(one['sharpe'], signed=True)} ± {decimal(one['sharpe_error'])}",
        decimal(one["sharpe_before_costs"], signed=True),
        whole(one["labels"]),
    )


def _about(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (percent(one["shares"][each], signed=False) for each in CLASSES)
    return name, *shares, decimal(one["bars"], 1), whole(one["effective"])


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [heads, ("---",) * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def show(console: "Console", found: Mapping[str, Any]) -> None:
    """Print the evolved barriers, the figures of both spans, and the verdict."""
    from rich.table import Table as RichTable

    label = found["barriers"]
    console.print(
        f"Evolved: up {label['up']:g}, down {label['down']:g} expected moves, horizon {label['horizon']}, "
        f"{label['volatility']}",
        markup=False,
    )
    for span, title in SPANS.items():
        shown = RichTable(title=title[0].upper() + title[1:])
        for head in _HEADS:
            first = head == _HEADS[0]
            shown.add_column(head if first else head.replace(" ", "\n"), justify="left" if first else "right")
        for name, one in found["figures"][span].items():
            shown.add_row(*_cells(name, one))
        console.print(shown)
    for sentence in verdict(found):
        console.print(sentence, markup=False)
    for sentence in warnings(found):
        if sentence not in found["data"]["warnings"]:
            console.print(f"! {sentence}", markup=False)

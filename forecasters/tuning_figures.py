"""Pictures of a tuning: how it went on, what mattered, and where good values lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK, BEST, GIVEN_UP, OTHER = "#222222", "#1b6ca8", "#d1495b", "#8d99ae"
COLORS = "viridis"
DPI = 110
_ACROSS = 3  # panels in a row


def draw_history(found: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw every trial in its order, and the best so far.

    Parameters
    ----------
    found : mapping
        As of :func:`forecasters.tuning_report.figures`.
    path : Path
        Where to write; the suffix decides the format.
    title : str
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    complete = _of(found, "complete")
    number, value = ([one[key] for one in complete] for key in ("trial", "value"))
    axes.scatter(number, value, s=22, color=OTHER, zorder=3, label="complete")
    given_up = [one for one in _of(found, "pruned") if one["value"] is not None]
    if given_up:
        axes.scatter(
            [one["trial"] for one in given_up], [one["value"] for one in given_up], s=22, marker="x",
            color=GIVEN_UP, lw=1.0, zorder=3, label="given up, value so far",
        )  # fmt: skip
    best = np.maximum.accumulate(value)
    axes.step(
        [*number, len(found["trials"])], [*best, best[-1]], where="post", color=BEST, lw=1.8,
        label="best so far",
    )  # fmt: skip
    axes.axhline(found["defaults"]["value"], color=INK, lw=1.0, ls="--", label="defaults")
    axes.set_xlabel("trial")
    axes.set_ylabel("F1 macro less the drawdown penalty")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI)


def draw_importances(found: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw what share of the differences between trials each parameter explains; parameters as above."""
    shares = found["importances"] or dict.fromkeys(found["space"], 0.0)
    figure = Figure(figsize=(8, 1.4 + 0.36 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=BEST)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the differences between complete trials")
    axes.set_title(title)
    axes.grid(alpha=0.25, axis="x")
    figure.savefig(path, dpi=DPI)


def draw_slices(found: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw the value of complete trials over each parameter, later trials darker; parameters as above."""
    names = list(found["space"])
    down = -(-len(names) // _ACROSS)
    figure = Figure(figsize=(3.2 * _ACROSS, 2.6 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, _ACROSS, squeeze=False, sharey=True).ravel()
    complete = _of(found, "complete")
    for axes, name in zip(panels, names, strict=False):
        _slice(axes, name, complete, found)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes in panels[::_ACROSS]:
        axes.set_ylabel("value")
    figure.suptitle(title)
    figure.savefig(path, dpi=DPI)


def _slice(axes: Axes, name: str, complete: list[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    values = [one["parameters"][name] for one in complete]
    if any(isinstance(one, str | bool) or one is None for one in values):
        values = [str(one) for one in values]
    axes.scatter(
        values, [one["value"] for one in complete], s=18, lw=0, zorder=3, cmap=f"{COLORS}_r",
        c=[one["trial"] for one in complete],
    )  # fmt: skip
    best = next(i for i, one in enumerate(complete) if one["trial"] == found["best"]["trial"])
    axes.scatter(
        values[best], complete[best]["value"], s=90, facecolors="none", edgecolors=GIVEN_UP, lw=1.6, zorder=4
    )
    if found["space"][name].endswith("(log)"):
        axes.set_xscale("log")
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)


def _of(found: Mapping[str, Any], state: str) -> list[Mapping[str, Any]]:
    return [one for one in found["trials"] if one["state"] == state]

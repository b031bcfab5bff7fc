"""Pictures of many specialists at once: a front, and an archive."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

INK, CHOSEN = "#222222", "#d1495b"
COLORS = "viridis"


def draw_front(objectives: np.ndarray, chosen: int, path: Path, title: str) -> None:
    """Draw net return against drawdown, colored by trades per year, and save the picture.

    Parameters
    ----------
    objectives : float64 (n, 3)
        Net return bound, drawdown and turnover, see ``specialists.objectives.OBJECTIVES``.
    chosen : int
        Row to mark.
    path : Path
        Where to write; the suffix decides the format.
    title : str
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    returns, falls, trades = objectives[:, 0], -objectives[:, 1], -objectives[:, 2]
    points = axes.scatter(falls, returns, c=trades, cmap=COLORS, s=26, lw=0, zorder=3)
    axes.scatter(
        falls[chosen], returns[chosen], s=160, facecolors="none", edgecolors=CHOSEN, lw=1.8, zorder=4,
        label="chosen",
    )  # fmt: skip
    figure.colorbar(points, ax=axes, label="trades per year")
    axes.axhline(0.0, color=INK, lw=0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("deepest drawdown (training rows)")
    axes.set_ylabel("net return per year, lower bound")
    axes.set_title(title)
    axes.legend(loc="upper left", frameon=False)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def draw_archive(
    objective: np.ndarray,
    edges: Sequence[np.ndarray],
    path: Path,
    title: str,
    facets: Sequence[str],
) -> None:
    """Draw the objective of every cell, one panel per net exposure, and save the picture.

    Parameters
    ----------
    objective : float64 (a, b, c)
        By trade frequency, holding time and net exposure; NaN in empty cells.
    edges : two float64 arrays, (a + 1,) and (b + 1,)
        Edges of the bins: trades per thousand bars, and bars held.
    path : Path
    title : str
    facets : sequence of str (c,)
        Title of each panel.
    """
    figure = Figure(figsize=(3.1 * len(facets) + 1.2, 3.9), layout="constrained")
    panels = figure.subplots(1, len(facets), sharex=True, sharey=True, squeeze=False)[0]
    known = objective[np.isfinite(objective)]
    reach = max(float(np.abs(np.clip(known, -3.0, None)).max(initial=0.0)), 1e-6)
    mesh = None
    for i, (axes, facet) in enumerate(zip(panels, facets, strict=True)):
        axes.set_facecolor("#eeeeee")
        mesh = axes.pcolormesh(
            edges[0], edges[1], np.ma.masked_invalid(objective[:, :, i].T),
            cmap="RdBu", vmin=-reach, vmax=reach, edgecolors="white", lw=0.5,
        )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=3)
        axes.set_title(facet, fontsize=9)
        axes.set_xlabel("trades per 1,000 bars")
    panels[0].set_ylabel("mean hold, bars")
    figure.suptitle(title)
    figure.colorbar(mesh, ax=list(panels), label="Sharpe ratio, lower bound")
    figure.savefig(path, dpi=110)

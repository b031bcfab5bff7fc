"""Pictures of a search."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BEST, MEDIAN, SPREAD = "#1b6ca8", "#d1495b", "#6c757d"


def fitness_curve(generations: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Draw best and median fitness and the diversity of each generation, and save the picture.

    Parameters
    ----------
    generations : sequence of mapping
        Rows of the logbook with ``generation``, ``best``, ``median`` and ``diversity``.
    path : Path
        Where to write; the suffix decides the format.
    title : str
    """
    column = {
        name: np.array([row[name] for row in generations], dtype=np.float64)
        for name in ("generation", "best", "median", "diversity")
    }
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    fitness, diversity = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    median = np.where(np.isfinite(column["median"]), column["median"], np.nan)
    fitness.plot(column["generation"], column["best"], color=BEST, lw=2, label="best")
    fitness.plot(column["generation"], median, color=MEDIAN, lw=1.2, label="median")
    # The first medians are far below everything of interest: show what the search fought over.
    low = np.nanquantile(median, 0.25) if np.isfinite(median).any() else column["best"].min()
    high = column["best"].max()
    margin = 0.08 * max(high - min(low, column["best"].min()), 1e-6)
    fitness.set_ylim(min(low, column["best"].min()) - margin, high + margin)
    fitness.set_ylabel("fitness (training rows)")
    fitness.set_title(title)
    fitness.legend(loc="lower right", frameon=False)
    diversity.plot(column["generation"], column["diversity"], color=SPREAD, lw=1.2)
    diversity.set_ylabel("diversity")
    diversity.set_xlabel("generation")
    diversity.set_ylim(bottom=0)
    for axes in (fitness, diversity):
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)

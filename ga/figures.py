"""Pictures of a search: fitness, controls, operators, genes.

Every function draws one picture and saves it. They are drawn again and again while a search runs, so small
multiples are one pair of axes, not dozens: each panel is a place in it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ga.controls import CONTROL_RANGES
from ga.progress import OPERATORS

BEST, MEDIAN, SPREAD = "#1b6ca8", "#d1495b", "#6c757d"
OPERATOR_COLORS = ("#8d99ae", "#1b6ca8", "#2a9d8f", "#e9a03b")  # in the order of OPERATORS
INK, FAINT, FRAME = "#222222", "#888888", "#cfd4da"
DPI = 110
WIDTH = 9.5  # inches
POINTS = 240  # along a curve in a small panel; more cannot be seen
MOST_PANELS = 60
_GAP_X, _GAP_Y = 0.17, 0.62  # between panels, in panels
_PANEL_ROW = 1.06  # inches

Rows = Sequence[Mapping[str, Any]]
Target = Path | IO[bytes]


def fitness_curve(generations: Rows, path: Target, title: str) -> None:
    """Draw best and median fitness and the diversity of each generation, and save the picture.

    Parameters
    ----------
    generations : sequence of mapping
        Rows of the logbook with ``generation``, ``best``, ``median`` and ``diversity``; rows with an
        ``island`` are drawn island by island.
    path : Path or binary file
        Where to write; the suffix decides the format, a file gets a PNG.
    title : str
    """
    islands = _islands(generations)
    figure = Figure(figsize=(WIDTH, 5.4))
    fitness, diversity = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.085, right=0.985, top=0.93, bottom=0.085, hspace=0.08)
    faint = 1.0 if len(islands) == 1 else 0.45
    for i, rows in enumerate(islands):
        x = _column(rows, "generation")
        label = "best" if len(islands) == 1 else "best of each island"
        fitness.plot(
            x, _finite(_column(rows, "best")), color=BEST, lw=2 * faint, alpha=faint, label=_once(label, i)
        )
        fitness.plot(
            x, _finite(_column(rows, "median")), color=MEDIAN, lw=1.2, alpha=faint, label=_once("median", i)
        )
        diversity.plot(x, _column(rows, "diversity"), color=SPREAD, lw=1.2, alpha=faint)
    if len(islands) > 1:
        every = np.unique(_column(generations, "generation"))
        best = np.full(every.size, -np.inf)
        np.maximum.at(
            best, np.searchsorted(every, _column(generations, "generation")), _column(generations, "best")
        )
        fitness.plot(every, _finite(best), color=BEST, lw=2, label="best of all")
    _limit_fitness(fitness, _column(generations, "best"), _column(generations, "median"))
    fitness.set_ylabel("fitness (training rows)")
    fitness.set_title(title, fontsize=11)
    fitness.legend(loc="lower right", frameon=False)
    diversity.set_ylabel("diversity")
    diversity.set_ylim(bottom=0)
    _finish(figure, diversity, (fitness, diversity), path)


def operators_and_repeats(generations: Rows, path: Target, title: str) -> None:
    """Draw success and use of each operator, and how often offspring repeated a genome; save the picture.

    Use is counted where rows hold ``<operator>_trials``; elsewhere it is what the controls ask for.

    Parameters
    ----------
    generations : sequence of mapping
        Rows of the logbook; the means over islands are drawn.
    path : Path or binary file
    title : str
    """
    rows = [row for row in generations if row["generation"] > 0]
    x, mean = _means(rows)
    figure = Figure(figsize=(WIDTH, 6.0))
    success, use, repeats = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    figure.subplots_adjust(left=0.085, right=0.77, top=0.94, bottom=0.075, hspace=0.14)
    shares = _use(mean)
    for name, color, share in zip(OPERATORS, OPERATOR_COLORS, shares, strict=True):
        rate = np.where(share > 0.0, mean(f"{name}_success"), np.nan)  # an unused one has none of its own
        success.plot(x, rate, color=color, lw=0.7, alpha=0.35)
        success.plot(x, _smooth(rate), color=color, lw=1.7, label=name)
    success.set_ylabel("fitter than parent")
    success.set_title(title, fontsize=11)
    if x.size:
        use.stackplot(x, *shares, colors=OPERATOR_COLORS, alpha=0.75, lw=0)
    use.set_ylim(0, 1)
    use.set_ylabel("share of offspring")
    for name, label, color in (
        ("duplicate_share", "repeated, mutated again", MEDIAN),
        ("cached_share", "answered from memory", BEST),
        ("invalid_share", "without a fitness", "#e9a03b"),
        ("restarted_share", "of all: drawn anew", SPREAD),
    ):
        repeats.plot(x, mean(name), color=color, lw=1.3, label=label)
    repeats.set_ylabel("of offspring")
    repeats.set_ylim(0.0, max(0.005, repeats.get_ylim()[1]))  # one of a thousand is nothing to magnify
    for axes in (success, use, repeats):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if axes is repeats else 0))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    for axes in (success, repeats):
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), frameon=False, fontsize=8.5)
    _finish(figure, repeats, (success, use, repeats), path)


def control_values(generations: Rows, path: Target, title: str) -> None:
    """Draw the value of each control over the generations, in its range, and save the picture.

    Parameters
    ----------
    generations : sequence of mapping
        Rows of the logbook with the controls by name; islands are drawn as lines of their own.
    path : Path or binary file
    title : str
    """
    islands = [[row for row in rows if row["generation"] > 0] for rows in _islands(generations)]
    last = max((row["generation"] for rows in islands for row in rows), default=1)
    panels = []
    for name, bounds in CONTROL_RANGES.items():
        curves = [
            (_along(rows, 1, last), np.clip(_place(_column(rows, name), bounds), 0.0, 1.0))
            for rows in islands
            if rows
        ]
        end = f"{_column(islands[0][-1:], name)[0]:.3g}" if islands[0] else ""
        note = f"{bounds.low:.3g} to {bounds.high:.3g}{', log' if bounds.scale == 'log' else ''}"
        panels.append((name.replace("_", " "), note, end, curves, []))
    _panels(panels, 4, path, f"{title}, generations 1 to {last:,}")


def gene_distribution(
    quantiles: np.ndarray, names: Sequence[str], low: np.ndarray, high: np.ndarray, path: Target, title: str
) -> None:
    """Draw how each gene was distributed in the population over the generations, and save the picture.

    Parameters
    ----------
    quantiles : float (g, 7, d)
        Of :class:`ga.gene_history.GeneHistory`, in the unit cube; rows of NaN are gaps.
    names : sequence of str
        (d,)
    low, high : float64 (d,)
        Natural bounds.
    path : Path or binary file
    title : str
    """
    g = len(quantiles)
    known = np.flatnonzero(np.isfinite(quantiles).all(axis=(1, 2)))
    rows = known[np.unique(np.linspace(0, known.size - 1, min(known.size, POINTS)).astype(int))]
    x = rows / max(g - 1, 1)
    panels = []
    for j, name in enumerate(names[:MOST_PANELS]):
        gene = quantiles[rows, :, j]
        bands = [(x, gene[:, i], gene[:, -1 - i]) for i in (0, 1, 2)]
        note = f"{low[j]:.3g} to {high[j]:.3g}"
        panels.append((name.replace("_", " "), note, "", [(x, gene[:, 3])], bands))
    more = "" if len(names) <= MOST_PANELS else f"; the first {MOST_PANELS} of {len(names)} genes"
    _panels(panels, 6, path, f"{title}, generations 0 to {max(g - 1, 0):,}{more}")


def _panels(
    panels: Sequence[tuple[str, str, str, list, list]], n_columns: int, path: Target, title: str
) -> None:
    # Each panel: title, note, value at its end, curves (x, y) and bands (x, low, high), all from 0 to 1.
    n_rows = max(1, -(-len(panels) // n_columns))
    inches = _PANEL_ROW / (1 + _GAP_Y)  # of one panel
    bottom, top = -(n_rows - 1) * (1 + _GAP_Y) - 0.06, 1 + _GAP_Y + 0.3 / inches
    figure = Figure(figsize=(WIDTH, (top - bottom) * inches))
    axes = figure.add_axes((0.015, 0.0, 0.97, 1.0))
    axes.set_axis_off()
    frames, lines, areas, shades = [], [], [], []
    for k, (name, note, end, curves, bands) in enumerate(panels):
        x0, y0 = (k % n_columns) * (1 + _GAP_X), -(k // n_columns) * (1 + _GAP_Y)
        frames.append([(x0, y0), (x0 + 1, y0), (x0 + 1, y0 + 1), (x0, y0 + 1)])
        for band, (x, low, high) in enumerate(bands):
            edge = np.concatenate([np.column_stack([x, low]), np.column_stack([x, high])[::-1]])
            areas.append(np.add(edge, (x0, y0)))
            shades.append((0.11, 0.44, 0.66, (0.12, 0.20, 0.30)[band]))
        lines += (np.column_stack([x0 + x, y0 + y]) for x, y in curves)
        axes.text(x0, y0 + 1.2, name, fontsize=7.4, color=INK, va="bottom")
        axes.text(x0, y0 + 1.04, note, fontsize=6.5, color=FAINT, va="bottom")
        if end:
            axes.text(x0 + 1, y0 + 1.04, end, fontsize=7, color=BEST, va="bottom", ha="right")
    axes.add_collection(PolyCollection(frames, facecolors="none", edgecolors=FRAME, linewidths=0.8))
    axes.add_collection(PolyCollection(areas, facecolors=shades, edgecolors="none"))
    axes.add_collection(LineCollection(lines, colors=BEST, linewidths=1.3))
    axes.set_xlim(-0.01, n_columns * (1 + _GAP_X) - _GAP_X + 0.01)
    axes.set_ylim(bottom, top)
    axes.text(0, top, title, fontsize=11, color=INK, va="top")
    _save(figure, path)


def _islands(rows: Rows) -> list[list[Mapping[str, Any]]]:
    apart: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        apart.setdefault(row.get("island", 0), []).append(row)
    return list(apart.values()) or [[]]


def _column(rows: Rows, name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)


def _means(rows: Rows) -> tuple[np.ndarray, Callable[[str], np.ndarray]]:
    # Generations, and a function that returns the mean of a column over the islands of each.
    x, place, count = np.unique(_column(rows, "generation"), return_inverse=True, return_counts=True)
    return x, lambda name: np.bincount(place, _column(rows, name), x.size) / count


def _use(mean: Callable[[str], np.ndarray]) -> list[np.ndarray]:
    # Share of the offspring that each operator made, in the order of OPERATORS.
    counted = np.array([mean(f"{name}_trials") for name in OPERATORS])
    if counted.size and np.isfinite(counted).all():
        return list(counted / np.maximum(counted.sum(axis=0), 1.0))
    differs, mates = mean("differential_rate"), mean("crossover_rate")
    fresh = mean("immigrant_fraction")
    rest = 1.0 - fresh
    use = (
        rest * (1 - differs) * (1 - mates),
        rest * (1 - differs) * mates,
        rest * differs,
        fresh,
    )
    return [np.nan_to_num(share) for share in use]


def _along(rows: Rows, first: int, last: int) -> np.ndarray:
    return (_column(rows, "generation") - first) / max(last - first, 1)


def _place(values: np.ndarray, bounds: Any) -> np.ndarray:
    if bounds.scale == "log":
        return np.log(values / bounds.low) / np.log(bounds.high / bounds.low)
    return (values - bounds.low) / (bounds.high - bounds.low)


def _smooth(values: np.ndarray) -> np.ndarray:
    # Mean of the last five values that are known: rates of few offspring jump.
    known = np.isfinite(values)
    if not known.any():
        return values
    window = np.ones(5)
    sums = np.convolve(np.where(known, values, 0.0), window)[: values.size]
    counts = np.convolve(known.astype(float), window)[: values.size]
    return np.divide(sums, counts, out=np.full(values.size, np.nan), where=counts > 0)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _limit_fitness(axes: Axes, best: np.ndarray, median: np.ndarray) -> None:
    # The first medians are far below everything of interest: show what the search fought over.
    best, median = best[np.isfinite(best)], median[np.isfinite(median)]
    if not best.size:
        return
    low = min(np.quantile(median, 0.25) if median.size else best.min(), best.min())
    margin = 0.08 * max(best.max() - low, 1e-6)
    axes.set_ylim(low - margin, best.max() + margin)


def _once(label: str, i: int) -> str | None:
    return label if i == 0 else None


def _finish(figure: Figure, lowest: Axes, every: Sequence[Axes], path: Target) -> None:
    lowest.set_xlabel("generation")
    lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
    lowest.margins(x=0.01)
    for axes in every:
        axes.grid(alpha=0.25)
    _save(figure, path)


def _save(figure: Figure, path: Target) -> None:
    # Compressing hard takes as long as drawing.
    png = not isinstance(path, Path) or path.suffix == ".png"
    figure.savefig(path, dpi=DPI, **({"pil_kwargs": {"compress_level": 3}} if png else {}))

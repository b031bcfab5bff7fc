"""Pictures of a conductor: of a race, of its training, of its controls, of what it reads.

Every function draws one picture of plain numbers and saves it. Data come first, then where to save and the
title. Contestants keep the order in which they are handed in, and with it their colors: hand in the same
order and a contestant looks the same in every picture of a race. The subject of a race is drawn in blue and
bold, the reference black and dashed, and everybody else thinner.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ga.controls import CONTROL_NAMES, CONTROL_RANGES

SUBJECT, REFERENCE, WORSE, SPREAD = "#1b6ca8", "#222222", "#d1495b", "#6c757d"
#: The other contestants in their order, first solid, then dashed, then dotted.
COLORS = ("#d1495b", "#2a9d8f", "#e9a03b", "#7b5ea7", "#8d99ae", "#4f772d", "#c77dba", "#a4632a")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
INK, FAINT, FRAME = "#222222", "#888888", "#cfd4da"
DPI = 110
WIDTH = 9.5  # inches
_LINE = 0.26  # inches, of a row of text

Target = Path | IO[bytes]
Estimates = Mapping[str, tuple[float, float, float]]
Curve = tuple[np.ndarray, np.ndarray]


def critical_difference(
    ranks: Mapping[str, float],
    difference: float,
    path: Target,
    title: str,
    *,
    note: str = "",
    subject: str = "",
    reference: str = "",
) -> None:
    """Draw mean ranks on a line, with a bar over those that differ by less than the critical difference.

    Parameters
    ----------
    ranks : mapping of str to float
        Mean rank of each contestant, 1 is best.
    difference : float
        Critical difference of the mean ranks; NaN draws no bars.
    path : Path or binary file
        Where to write; the suffix decides the format, a file gets a PNG.
    title : str
    note : str
        Below the picture.
    subject, reference : str
        Names to set off.

    Notes
    -----
    Source: Demsar (2006), Statistical comparisons of classifiers over multiple data sets, JMLR 7, figure 1.
    """
    order = sorted(ranks, key=lambda name: ranks[name])
    values = np.array([ranks[name] for name in order])
    cliques = alike(values, difference)
    k, left = len(order), (len(order) + 1) // 2
    rows = max(left, 1)
    below = 0.55 + 0.22 * len(cliques)  # of the axis, in rows of text, before the first name
    height = rows + below + 3.2
    figure, axes = _panel(max(2.2, _LINE * 1.15 * height))
    axes.set_axis_off()
    reach = max(k - 1.0, 1.0)
    axes.set_xlim(1.0 - 0.42 * reach, k + 0.42 * reach)
    axes.set_ylim(-(rows + below + 0.4), 2.8)
    axes.plot([1, k], [0, 0], color=INK, lw=1.0)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.18], color=INK, lw=1.0)
        axes.text(tick, 0.3, str(tick), ha="center", va="bottom", fontsize=8, color=INK)
    if np.isfinite(difference):
        end = 1.0 + min(difference, reach)
        axes.plot([1.0, end], [1.75, 1.75], color=INK, lw=1.6, marker="|", ms=7)
        axes.text(end + 0.02 * reach, 1.75, f"critical difference {difference:.2f}", va="center", fontsize=8)
    for i, (first, last) in enumerate(cliques):
        ends = [values[first] - 0.006 * reach, values[last] + 0.006 * reach]
        axes.plot(ends, [-0.3 - 0.22 * i] * 2, color=SPREAD, lw=3.0, solid_capstyle="butt")
    for i, name in enumerate(order):
        on_left, rank = i < left, values[i]
        y = -(below + (i if on_left else k - 1 - i) + 0.3)
        x, side = (1.0 - 0.05 * reach, "right") if on_left else (k + 0.05 * reach, "left")
        color = _color_of(name, subject, reference)
        bold = name in (subject, reference)
        axes.plot([rank, rank, x], [0, y, y], color=color, lw=1.5 if bold else 0.8)
        label = f"{name}  {rank:.2f} " if on_left else f" {rank:.2f}  {name}"
        weight = "bold" if bold else "normal"
        axes.text(x, y, label, ha=side, va="center", fontsize=8.5, color=color, fontweight=weight)
    axes.set_title(title, fontsize=11, loc="left")
    note = "mean rank, 1 is best" + (f"; {note}" if note else "")
    axes.text(0.0, 0.0, note, transform=axes.transAxes, fontsize=8, color=FAINT, va="bottom")
    _save(figure, path)


def alike(values: np.ndarray, difference: float) -> list[tuple[int, int]]:
    """Return first and last position of each largest group of ascending values within a difference.

    Groups of one, and groups inside another, are left out.

    Parameters
    ----------
    values : float64 (k,)
        Ascending.
    difference : float
    """
    groups: list[tuple[int, int]] = []
    for first in range(len(values)):
        last = first
        while last + 1 < len(values) and values[last + 1] - values[first] <= difference:
            last += 1
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def differences(
    estimates: Estimates,
    path: Target,
    title: str,
    *,
    label: str = "decades of error against the reference (left is better)",
    subject: str = "",
    reference: str = "",
    center: float = 0.0,
) -> None:
    """Draw an estimate with its interval for each contestant, one below the other.

    Parameters
    ----------
    estimates : mapping of str to (float, float, float)
        Estimate, low and high end of its interval.
    path, title : see :func:`critical_difference`
    label : str
        Of the axis.
    subject, reference : str
    center : float
        Where there is no difference. Intervals that leave it are drawn in color.
    """
    names = list(estimates)
    values = np.array([estimates[name] for name in names], dtype=np.float64).reshape(-1, 3)
    figure, axes = _panel(1.25 + _LINE * 1.1 * len(names))
    for i, (name, (middle, low, high)) in enumerate(zip(names, values, strict=True)):
        color = SUBJECT if high < center else WORSE if low > center else SPREAD
        bold = name == subject
        axes.plot([low, high], [i, i], color=color, lw=3.4 if bold else 2.0, solid_capstyle="butt")
        axes.plot([middle], [i], "o", color=color, ms=7 if bold else 5, mec="white", mew=0.8, zorder=3)
    axes.axvline(center, color=INK, lw=0.9, ls="--")
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    for text in axes.get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in (subject, reference) else "normal")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25, axis="x")
    _unframed(axes)
    _save(figure, path)


def target_ecdf(
    curves: Mapping[str, Curve],
    path: Target,
    title: str,
    *,
    label: str = "evaluations, share of the budget",
    subject: str = "",
    reference: str = "",
) -> None:
    """Draw the share of (run, target) pairs reached by each contestant as evaluations are spent.

    Parameters
    ----------
    curves : mapping of str to (float64 (m,), float64 (m,))
        Evaluations, and the share reached with them.
    path, title, label, subject, reference : see :func:`differences`

    Notes
    -----
    Source: Hansen et al. (2021), COCO: a platform for comparing continuous optimizers in a black-box
    setting, Optimization Methods and Software 36(1).
    """
    figure, axes = _panel(5.4)
    for name, style in _styles(curves, subject, reference):
        x, share = curves[name]
        axes.step(x, share, where="post", label=name, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_ylim(0.0, None)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(label)
    axes.set_ylabel("targets reached")
    _finish(figure, axes, path, title)


def best_so_far(
    x: np.ndarray,
    curves: Mapping[str, np.ndarray],
    path: Target,
    title: str,
    *,
    against: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    label: str = "evaluations, share of the budget",
    value: str = "mean log10 error",
    subject: str = "",
    reference: str = "",
) -> None:
    """Draw the mean best-so-far curve of each contestant, and below it how it differs from the reference.

    Parameters
    ----------
    x : float64 (m,)
        Evaluations of the grid.
    curves : mapping of str to float64 (m,)
    path, title, label : see :func:`differences`
    against : mapping of str to (float64 (m,), float64 (m,), float64 (m,)), optional
        Mean paired difference, low and high end of its interval; the band is drawn of the subject.
    value : str
        Of the upper axis.
    subject, reference : str
    """
    figure = Figure(figsize=(WIDTH, 6.6 if against else 5.0), layout="constrained")
    panels = np.atleast_1d(
        figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)) if against else figure.subplots()
    )
    for name, style in _styles(curves, subject, reference):
        panels[0].plot(x, curves[name], label=name, **style)
        if against and name in against:
            mean, low, high = against[name]
            panels[1].plot(x, mean, **style)
            if name == subject:
                panels[1].fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)
    panels[0].set_ylabel(value)
    panels[-1].set_xlabel(label)
    panels[-1].set_xlim(left=0.0)
    panels[-1].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if against:
        panels[1].axhline(0.0, color=REFERENCE, lw=1.2, ls=(0, (5, 2)))
        panels[1].set_ylabel(f"against {reference}" if reference else "difference")
        panels[1].grid(alpha=0.25)
        _unframed(panels[1])
    _finish(figure, panels[0], path, title)


def performance_profile(
    x: np.ndarray,
    shares: Mapping[str, np.ndarray],
    path: Target,
    title: str,
    *,
    subject: str = "",
    reference: str = "",
) -> None:
    """Draw the share of problems on which each contestant comes within some decades of the best of all.

    Parameters
    ----------
    x : float64 (m,)
        Decades behind the best contestant of a problem.
    shares : mapping of str to float64 (m,)
    path, title, subject, reference : see :func:`differences`

    Notes
    -----
    Source: Dolan and More (2002), Benchmarking optimization software with performance profiles,
    Mathematical Programming 91.
    """
    figure, axes = _panel(5.0)
    for name, style in _styles(shares, subject, reference):
        axes.step(x, shares[name], where="post", label=name, **style)
    axes.set_xlim(float(x[0]), float(x[-1]))
    axes.set_ylim(0.0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("decades of final error behind the best contestant")
    axes.set_ylabel("problems")
    _finish(figure, axes, path, title)


def cluster_bars(
    gains: Mapping[str, tuple[float, float, float]],
    path: Target,
    title: str,
    *,
    label: str = "decades of final error against the reference",
) -> None:
    """Draw the mean paired difference on each cluster (a function, a window), best first.

    Parameters
    ----------
    gains : mapping of str to (float, float, float)
        Mean difference, and the lowest and highest of its runs or its interval, by cluster.
    path, title, label : see :func:`differences`
    """
    names = sorted(gains, key=lambda name: gains[name][0])
    values = np.array([gains[name] for name in names], dtype=np.float64).reshape(-1, 3)
    figure, axes = _panel(4.2 if len(names) <= 40 else 4.8)
    x = np.arange(len(names))
    colors = np.where(values[:, 0] < 0.0, SUBJECT, np.where(values[:, 0] > 0.0, WORSE, SPREAD))
    axes.bar(x, values[:, 0], color=colors, width=0.72, alpha=0.85, lw=0)
    axes.vlines(x, values[:, 1], values[:, 2], color=INK, lw=0.9)
    axes.axhline(0.0, color=INK, lw=0.9)
    axes.set_xticks(x, names, rotation=90, fontsize=7.5 if len(names) <= 40 else 5.5)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel(label, fontsize=9)
    won, lost = int((values[:, 0] < 0.0).sum()), int((values[:, 0] > 0.0).sum())
    axes.set_title(f"{title}: {won} better, {lost} worse of {len(names)}", fontsize=11, loc="left")
    axes.grid(alpha=0.25, axis="y")
    _unframed(axes)
    _save(figure, path)


def control_trajectories(
    places: np.ndarray | Mapping[str, np.ndarray],
    path: Target,
    title: str,
    *,
    reference: np.ndarray | None = None,
) -> None:
    """Draw each control over the generations: the mean of many runs, and the band of the middle 80 %.

    Parameters
    ----------
    places : float64 (runs, generations, 12), or a mapping of such
        Places in their ranges from 0 to 1, NaN after the end of a run; a mapping compares groups by name,
        such as regimes.
    path, title : see :func:`critical_difference`
    reference : float64 (12,), optional
        Places of the controls that the conductor starts from, drawn dashed.
    """
    groups = dict(places) if isinstance(places, Mapping) else {"": places}
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    panels = figure.subplots(3, 4, sharex=True, sharey=True)
    for j, (name, axes) in enumerate(zip(CONTROL_NAMES, panels.flat, strict=True)):
        if reference is not None:
            axes.axhline(reference[j], color=REFERENCE, lw=1.0, ls=(0, (4, 2)))
        for (group, runs), color in zip(groups.items(), cycle((SUBJECT, *COLORS)), strict=False):
            known = np.isfinite(runs[:, :, j]).any(axis=0)
            x = np.flatnonzero(known) + 1
            mine = runs[:, known, j]
            low, high = np.nanquantile(mine, (0.1, 0.9), axis=0) if x.size else (x, x)
            axes.fill_between(x, low, high, color=color, alpha=0.16, lw=0)
            axes.plot(x, np.nanmean(mine, axis=0) if x.size else x, color=color, lw=1.6, label=group)
        bounds = CONTROL_RANGES[name]
        note = f"{bounds.low:.3g} to {bounds.high:.3g}{', log' if bounds.scale == 'log' else ''}"
        axes.set_title(name.replace("_", " "), fontsize=8.5, loc="left", pad=12)
        axes.text(0.0, 1.02, note, transform=axes.transAxes, fontsize=6.8, color=FAINT, va="bottom")
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.5, 1], ["low", "", "high"])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelsize=7.5, color=FRAME)
        axes.grid(alpha=0.2)
        axes.spines[:].set_color(FRAME)
    for axes in panels[-1]:
        axes.set_xlabel("generation", fontsize=8)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    if len(groups) > 1:
        lines = panels.flat[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=len(groups), frameon=False, fontsize=8.5)
    _save(figure, path)


def training_curves(
    rows: Sequence[Mapping[str, Any]],
    path: Target,
    title: str,
    *,
    x: str = "generation",
    curves: Mapping[str, str] | None = None,
    others: Mapping[str, str] | None = None,
    label: str = "decades against tuned static (below 0 is better)",
    baseline: float | None = 0.0,
    lowest: str = "validation",
) -> None:
    """Draw how training went, one row of a log per point.

    Parameters
    ----------
    rows : sequence of mapping
        Each with ``x`` and some of the columns; a missing, None or NaN value is a gap that is bridged.
        ``<column>_low`` and ``<column>_high`` draw a band.
    path, title : see :func:`critical_difference`
    x : str
        Column of the horizontal axis.
    curves : mapping of str to str
        Columns of the main panel and what to call them. By default those there are of ``mean`` and ``best``
        (over the candidates of a meta-generation), ``train``, ``held_out``, ``validation`` and
        ``validation_final``.
    others : mapping of str to str
        Columns of a panel below, each on an axis of its own scale, such as the step size.
    label : str
        Of the main panel.
    baseline : float, optional
        Where the tuned static controls are.
    lowest : str
        Column whose lowest value is marked, as that of the network that is kept.
    """
    if curves is None:
        curves = {name: text for name, text in _TRAINED.items() if any(name in row for row in rows)}
    others = others or {}
    figure = Figure(figsize=(WIDTH, 4.6 + 1.3 * len(others)), layout="constrained")
    heights = (3, *(1,) * len(others))
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    main = panels[0]
    if baseline is not None:
        main.axhline(baseline, color=REFERENCE, lw=1.0, ls=(0, (4, 2)))
    for (name, text), color in zip(curves.items(), cycle((SPREAD, SUBJECT, *COLORS)), strict=False):
        chosen = name == lowest
        at, values = _known(rows, x, name)
        color = SUBJECT if chosen else WORSE if color == SUBJECT else color
        main.plot(
            at, values, color=color, label=text, lw=2.0 if chosen else 1.1, alpha=1.0 if chosen else 0.75,
            marker="o" if chosen and values.size < 60 else None, ms=3.5,
        )  # fmt: skip
        (begin, low), (end, high) = (_known(rows, x, f"{name}_{side}") for side in ("low", "high"))
        if begin.size and np.array_equal(begin, end):
            main.fill_between(begin, low, high, color=color, alpha=0.13, lw=0)
        if chosen and values.size:
            best = int(np.argmin(values))
            main.plot([at[best]], [values[best]], "o", ms=9, mfc="none", mec=SUBJECT, mew=1.6)
            main.annotate(
                f"lowest: {values[best]:+.3f}", (at[best], values[best]), xytext=(0, -15),
                textcoords="offset points", ha="center", fontsize=8, color=SUBJECT,
            )  # fmt: skip
            main.margins(y=0.12)
    main.set_ylabel(label, fontsize=9)
    main.set_title(title, fontsize=11, loc="left")
    main.legend(loc="best", frameon=False, fontsize=8.5)
    for axes, (name, text) in zip(panels[1:], others.items(), strict=True):
        axes.plot(*_known(rows, x, name), color=SPREAD, lw=1.3)
        axes.set_ylabel(text, fontsize=8.5)
    panels[-1].set_xlabel(x.replace("_", " "))
    for axes in panels:
        axes.grid(alpha=0.25)
        _unframed(axes)
    _save(figure, path)


_TRAINED = {
    "mean": "mean of the candidates, training tasks",
    "best": "best candidate, training tasks",
    "train": "training rows",
    "held_out": "held-out rows",
    "validation": "validation tasks",
    "validation_final": "validation tasks, final error",
}


def importances(
    values: Mapping[str, float | tuple[float, float, float]],
    path: Target,
    title: str,
    *,
    label: str = "mean change of the controls when the feature is shuffled across runs",
    most: int = 25,
) -> None:
    """Draw permutation importances as bars, the largest first.

    Parameters
    ----------
    values : mapping of str to float, or to (float, float, float)
        Importance of each feature, with the ends of its interval where they are known.
    path, title, label : see :func:`differences`
    most : int
        Features drawn; the others are counted in the title.
    """
    rows = {name: np.resize(np.asarray(value, dtype=np.float64), 3) for name, value in values.items()}
    order = sorted(rows, key=lambda name: -rows[name][0])
    names = order[:most]
    figure, axes = _panel(1.2 + _LINE * 0.95 * max(len(names), 1))
    for i, name in enumerate(names):
        middle, low, high = rows[name]
        axes.barh(i, middle, color=SUBJECT if middle >= 0.0 else WORSE, alpha=0.85, height=0.68, lw=0)
        if np.ndim(values[name]):
            axes.plot([low, high], [i, i], color=INK, lw=1.0)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0.0, color=INK, lw=0.9)
    axes.set_xlabel(label, fontsize=9)
    rest = "" if len(order) <= most else f" (the first {most} of {len(order)})"
    axes.set_title(title + rest, fontsize=11, loc="left")
    axes.grid(alpha=0.25, axis="x")
    _unframed(axes)
    _save(figure, path)


def attention_map(
    weights: np.ndarray | Mapping[str, np.ndarray],
    path: Target,
    title: str,
    *,
    rows: str = "generation that asks",
    columns: str = "generation that is read",
    newest_last: bool = True,
) -> None:
    """Draw attention weights, one panel for each map.

    Parameters
    ----------
    weights : float64 (q, n), (heads, q, n), or a mapping of str to float64 (q, n)
        Each row adds up to 1, or is NaN where there is nothing to read.
    path, title : see :func:`critical_difference`
    rows, columns : str
        What the axes are.
    newest_last : bool
        Number generations backwards from the present, 0 last.
    """
    if isinstance(weights, Mapping):
        maps = dict(weights)
    else:
        stacked = np.asarray(weights)
        maps = {"": stacked} if stacked.ndim == 2 else {f"head {i}": one for i, one in enumerate(stacked, 1)}
    n_columns = min(len(maps), 4)
    n_rows = -(-len(maps) // n_columns)
    side = WIDTH / max(n_columns, 2)
    figure = Figure(figsize=(WIDTH, side * n_rows * 0.95 + 0.7), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    most = max((float(np.nanmax(one, initial=0.0)) for one in maps.values()), default=1.0)
    mesh = None
    for axes in panels.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, (name, one) in zip(panels.flat, maps.items(), strict=False):
        q, n = one.shape
        extent = (-n + 0.5, 0.5, 0.5, -q + 0.5) if newest_last else (0.5, n + 0.5, q + 0.5, 0.5)
        axes.set_facecolor("#f1f1f1")
        mesh = axes.imshow(
            np.ma.masked_invalid(one), cmap="Blues", vmin=0.0, vmax=most or 1.0, aspect="auto",
            extent=extent, interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name, fontsize=9, loc="left")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))
        axes.tick_params(labelsize=7.5)
    for axes in panels[-1]:
        axes.set_xlabel(columns, fontsize=8.5)
    for axes in panels[:, 0]:
        axes.set_ylabel(rows, fontsize=8.5)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    if mesh is not None:
        figure.colorbar(mesh, ax=list(panels.flat), label="attention", shrink=0.8)
    _save(figure, path)


def probe_accuracies(
    probes: Mapping[str, Estimates],
    chance: float,
    path: Target,
    title: str,
    *,
    label: str = "balanced accuracy on held-out runs",
    chance_band: tuple[float, float] | None = None,
) -> None:
    """Draw how well fresh probes tell the regime, from each kind of features.

    Parameters
    ----------
    probes : mapping of str to mapping of str to (float, float, float)
        Balanced accuracy, low and high end of its interval, by kind of features ("raw inputs", "features
        of the extractor") and by probe ("logistic", ...).
    chance : float
        Accuracy of guessing: 1 / number of regimes.
    path, title, label : see :func:`differences`
    chance_band : (float, float), optional
        Interval of the accuracy when the labels are permuted.
    """
    kinds = list(probes)
    names = list(dict.fromkeys(name for one in probes.values() for name in one))
    figure, axes = _panel(4.4)
    if chance_band is not None:
        axes.axhspan(*chance_band, color=SPREAD, alpha=0.16, lw=0, label="labels permuted")
    axes.axhline(chance, color=INK, lw=1.0, ls=(0, (4, 2)), label="guessing")
    width = 0.8 / max(len(kinds), 1)
    for i, (kind, color) in enumerate(zip(kinds, cycle((SPREAD, SUBJECT, *COLORS)), strict=False)):
        at = [j for j, name in enumerate(names) if name in probes[kind]]
        values = np.array([probes[kind][names[j]] for j in at], dtype=np.float64).reshape(-1, 3)
        x = np.array(at) + (i - (len(kinds) - 1) / 2) * width
        axes.bar(x, values[:, 0], width * 0.92, color=color, alpha=0.85, lw=0, label=kind)
        axes.vlines(x, values[:, 1], values[:, 2], color=INK, lw=1.0)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.25, axis="y")
    _finish(figure, axes, path, title)


def _styles(names: Mapping[str, Any], subject: str, reference: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Subject and reference last, above the others; colors by position among the others.
    rest = [name for name in names if name not in (subject, reference)]
    for i, name in enumerate(rest):
        dash = DASHES[min(i // len(COLORS), len(DASHES) - 1)]
        yield name, {"color": COLORS[i % len(COLORS)], "lw": 1.2, "ls": dash, "zorder": 2}
    if reference in names:
        yield reference, {"color": REFERENCE, "lw": 2.0, "ls": (0, (5, 2)), "zorder": 3}
    if subject in names:
        yield subject, {"color": SUBJECT, "lw": 2.6, "ls": "-", "zorder": 4}


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _color_of(name: str, subject: str, reference: str) -> str:
    return SUBJECT if name == subject else REFERENCE if name == reference else SPREAD


def _known(rows: Sequence[Mapping[str, Any]], x: str, name: str) -> Curve:
    pairs = [(row[x], row[name]) for row in rows if row.get(name) is not None]
    found = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    found = found[np.isfinite(found).all(axis=1)]
    return found[:, 0], found[:, 1]


def _unframed(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, axes: Axes, path: Target, title: str) -> None:
    # The legend stands beside the picture, best on top where the curves are drawn last.
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(1.005, 1.01),
        frameon=False,
        fontsize=8.5,
    )
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    _unframed(axes)
    _save(figure, path)


def _save(figure: Figure, path: Target) -> None:
    # Compressing hard takes as long as drawing.
    png = not isinstance(path, Path) or path.suffix == ".png"
    figure.savefig(path, dpi=DPI, **({"pil_kwargs": {"compress_level": 3}} if png else {}))

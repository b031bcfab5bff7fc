"""Pictures of forecasters side by side: figures with intervals, calibration, equity, parts, correlation.

Forecasters keep the order in which they are handed in, and with it their colors; baselines are gray.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK, GRAY, REFERENCE = "#222222", "#8d99ae", "#b3261e"
COLORS = (
    "#1b6ca8", "#d1495b", "#2a9d8f", "#e9a03b", "#7b5ea7", "#4f772d", "#c77dba", "#a4632a", "#3d5a80",
    "#00798c",
)  # fmt: skip
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
DPI = 110
WIDTH = 10.0  # inches
LARGEST_LOSS = 1e-4  # of equity: what is left of an account below that looks alike
_PANELS = (
    ("f1_macro", "F1 macro"), ("log_loss", "log loss"), ("information_coefficient", "IC"),
    ("sharpe", "Sharpe after costs"),
)  # fmt: skip


def draw_figures(models: Mapping[str, Any], naive: Sequence[str], path: Path, title: str) -> None:
    """Draw four figures of every forecaster with their intervals, and save the picture.

    Parameters
    ----------
    models : mapping of str to mapping
        With ``figures`` and ``intervals`` by the name of the figure.
    naive : sequence of str
        Names of the baselines.
    path : Path
        Where to write; the suffix decides the format.
    title : str
    """
    names = list(models)
    styles = _styles(names, naive)
    figure = Figure(figsize=(WIDTH, 1.4 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    y = np.arange(len(names))[::-1]
    for axes, (key, head) in zip(panels, _PANELS, strict=True):
        for place, name in zip(y, names, strict=True):
            value = models[name]["figures"][key]
            if value is None:
                continue
            color = styles[name]["color"]
            interval = models[name]["intervals"].get(key)
            if interval:
                axes.plot(interval, [place, place], color=color, lw=2.0, solid_capstyle="butt")
            axes.plot([value], [place], "o", color=color, ms=5)
        if key in ("information_coefficient", "sharpe"):
            axes.axvline(0.0, color=INK, lw=0.8)
        else:
            best = [
                models[name]["figures"][key] for name in naive if models[name]["figures"][key] is not None
            ]
            if best:
                line = max(best) if key == "f1_macro" else min(best)
                axes.axvline(line, color=GRAY, lw=0.8, ls=(0, (4, 2)))
        axes.set_title(head, fontsize=10)
        axes.grid(alpha=0.25, axis="x")
        axes.tick_params(labelsize=8)
        axes.margins(y=0.08)
        _unframed(axes)
    panels[0].set_yticks(y, [_label(name) for name in names])
    figure.suptitle(_label(title, 110), fontsize=11)
    _save(figure, path)


def draw_calibration(
    curves: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]],
    naive: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw how often what was given a probability came true, a panel per class, and save the picture.

    Parameters
    ----------
    curves : mapping
        Of each forecaster and class, the bins of
        :func:`forecasters.comparison_measures.calibration_curve`.
    naive, path, title : see :func:`draw_figures`
    """
    styles = _styles(list(curves), naive)
    classes = list(next(iter(curves.values())))
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    panels = figure.subplots(1, len(classes), squeeze=False)[0]
    for axes, side in zip(panels, classes, strict=True):
        reach = 0.05
        for name, one in curves.items():
            x, y, rows = (
                np.array([point[key] for point in one[side]]) for key in ("probability", "frequency", "rows")
            )
            if not x.size:
                continue
            axes.plot(x, y, lw=1.5, label=_label(name), **styles[name])
            axes.scatter(x, y, s=6.0 + 70.0 * rows / rows.sum(), color=styles[name]["color"], zorder=3)
            reach = max(reach, float(x.max()), float(y.max()))
        reach = min(1.0, 1.08 * reach)
        axes.plot([0.0, reach], [0.0, reach], color=INK, lw=0.8, ls=":")
        axes.set_xlim(0.0, reach)
        axes.set_ylim(0.0, reach)
        axes.set_xlabel(f"probability of {side}")
        axes.grid(alpha=0.25)
        _unframed(axes)
    panels[0].set_ylabel("frequency")
    _legend(panels[-1])
    figure.suptitle(_label(f"Calibration, {title}", 110), fontsize=11)
    _save(figure, path)


def draw_equity(
    time: np.ndarray, returns: Mapping[str, np.ndarray], naive: Sequence[str], path: Path, title: str
) -> None:
    """Draw the growth of every account, in logarithms, and save the picture.

    Parameters
    ----------
    time : int64 (m,)
        Nanoseconds UTC.
    returns : mapping of str to float64 (m,)
        Net return of each bar.
    naive, path, title : see :func:`draw_figures`
    """
    styles = _styles(list(returns), naive)
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.subplots()
    dates = time.astype("datetime64[ns]").astype("datetime64[s]")
    for name, one in returns.items():
        growth = np.exp(np.cumsum(np.log1p(np.maximum(one, LARGEST_LOSS - 1.0))))
        axes.plot(dates, np.maximum(growth, LARGEST_LOSS), lw=1.4, label=_label(name), **styles[name])
    axes.axhline(1.0, color=INK, lw=0.8)
    axes.set_yscale("log")
    for set_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_format(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_ylim()
    wide = high / low > 20.0  # then powers of ten are enough
    axes.yaxis.set_minor_locator(NullLocator() if wide else LogLocator(subs=(2.0, 5.0)))
    axes.set_ylabel("equity over its start")
    ticks = AutoDateLocator(minticks=3, maxticks=10)  # by default there is no step for 57 months
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(ticks))
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    axes.set_title(_label(title, 110), fontsize=11, loc="left")
    _unframed(axes)
    _legend(axes)
    _save(figure, path)


def draw_parts(folds: Mapping[str, Any], regimes: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw F1 macro and the Sharpe ratio of every forecaster by fold and by regime, and save the picture.

    Parameters
    ----------
    folds, regimes : mapping of str to mapping
        With ``models``, and of each its ``figures``; there may be no regimes.
    path, title : see :func:`draw_figures`
    """
    groups = [(name, one) for name, one in (("fold", folds), ("regime", regimes)) if one]
    names = list(next(iter(folds.values()))["models"])
    figure = Figure(figsize=(WIDTH, 2.4 + 0.5 * len(names)), layout="constrained")
    widths = [max(len(one), 2) for _, one in groups]
    panels = figure.subplots(
        2, len(groups), squeeze=False, sharey=True, width_ratios=[w + 1.0 for w in widths]
    )
    for line, (key, head) in enumerate((("f1_macro", "F1 macro"), ("sharpe", "Sharpe after costs"))):
        cells = [
            np.array(
                [
                    [np.nan if one["models"][n]["figures"][key] is None else one["models"][n]["figures"][key]
                     for one in group.values()]
                    for n in names
                ]
            )
            for _, group in groups
        ]  # fmt: skip
        known = np.concatenate([one[np.isfinite(one)] for one in cells])
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        if key == "sharpe":
            reach = max(float(np.quantile(np.abs(known), 0.9)) if known.size else 1.0, 1e-6)
            low, high = -reach, reach
        mesh = None
        for place, (scope, group) in enumerate(groups):
            axes = panels[line, place]
            axes.set_facecolor("#eeeeee")
            mesh = axes.imshow(
                np.ma.masked_invalid(cells[place]), aspect="auto", vmin=low, vmax=max(high, low + 1e-9),
                cmap="RdBu" if key == "sharpe" else "viridis", interpolation="nearest",
            )  # fmt: skip
            every = max(1, len(group) // 12)
            axes.set_xticks(
                range(0, len(group), every), list(group)[::every], rotation=45, ha="right", fontsize=7
            )
            axes.set_yticks(range(len(names)), [_label(name) for name in names], fontsize=8)
            axes.set_title(f"{head}, by {scope}", fontsize=9)
        figure.colorbar(mesh, ax=list(panels[line]), extend="both" if key == "sharpe" else "neither")
    figure.suptitle(_label(title, 110), fontsize=11)
    _save(figure, path)


def draw_correlation(
    correlation: Mapping[str, Mapping[str, Mapping[str, float | None]]], path: Path, title: str
) -> None:
    """Draw how alike forecasters are, a panel for signals and one for errors, and save the picture.

    Parameters
    ----------
    correlation : mapping
        Of ``signals`` and ``errors``: the correlation of each forecaster with each.
    path, title : see :func:`draw_figures`
    """
    names = list(correlation["signals"])
    size = 2.6 + 0.42 * len(names)
    figure = Figure(figsize=(2 * size + 0.6, size), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    mesh = None
    for axes, (kind, head) in zip(
        panels, (("signals", "signals, P(up) - P(down)"), ("errors", "errors")), strict=True
    ):
        found = correlation[kind]
        cells = np.array(
            [[np.nan if found[a][b] is None else found[a][b] for b in names] for a in names], dtype=np.float64
        ).reshape(len(names), len(names))
        axes.set_facecolor("#eeeeee")
        mesh = axes.imshow(np.ma.masked_invalid(cells), vmin=-1.0, vmax=1.0, cmap="RdBu")
        for (i, j), value in np.ndenumerate(cells):
            if np.isfinite(value) and len(names) <= 12:
                ink = "white" if abs(value) > 0.6 else INK
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
        shown = [_label(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), shown, fontsize=8)
        axes.set_title(head, fontsize=10)
    figure.colorbar(mesh, ax=list(panels))
    figure.suptitle(_label(title, 110), fontsize=11)
    _save(figure, path)


def _styles(names: Sequence[str], naive: Sequence[str]) -> dict[str, dict[str, Any]]:
    styles, shown, beside = {}, 0, 0
    for name in names:
        if name in naive:
            styles[name] = {"color": GRAY, "ls": DASHES[beside % len(DASHES)]}
            beside += 1
        else:
            dash = DASHES[shown // len(COLORS) % len(DASHES)]
            styles[name] = {"color": COLORS[shown % len(COLORS)], "ls": dash}
            shown += 1
    return styles


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.01), frameon=False, fontsize=8.5)


def _unframed(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _label(text: str, letters: int = 30) -> str:
    # Dollars would begin a formula, and an underscore at the start hides a legend's entry.
    shown = text if len(text) <= letters else f"{text[: letters - 1]}…"
    return f"{' ' if shown.startswith('_') else ''}{shown}".replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    # Compressing hard takes as long as drawing.
    options = {"pil_kwargs": {"compress_level": 3}} if path.suffix == ".png" else {}
    figure.savefig(path, dpi=DPI, **options)

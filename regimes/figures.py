"""Pictures of regimes: price and labels, probabilities, transitions, stays, reliability, detectors compared.

Every function draws one picture and saves it. Years of bars hold thousands of switches: where the whole
period is drawn, a stretch takes the color of the regime that it spent most bars in, and the latest bars are
drawn beside it one by one.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from experiments.page import printable, significant
from market.bars import Bars
from regimes.regime import UNDECIDED

SHADES = {"ranging": "#8d99ae", "trending": "#2a9d8f", "volatile": "#d1495b", "crisis": "#6a1b4d"}
OTHERS = ("#e9a03b", "#7a5195", "#2a9d8f", "#5d646d")
INK, FAINT, MARK = "#222222", "#999999", "#1b6ca8"
SHADING = 0.28  # opacity behind a price
STRETCHES = 260  # into which a whole period is cut: each is some pixels wide
LATEST = 1_000  # bars that are drawn one by one
LATEST_PROBABILITIES = 500
FEW_ROWS = 50  # a bin of confidence with fewer is drawn hollow
LONGEST_TITLE = 110
DPI = 110


def price_by_regime(
    bars: Bars,
    label: np.ndarray,
    names: Sequence[str],
    train: slice,
    held_out: slice,
    path: Path,
    title: str,
) -> None:
    """Draw the price shaded by regime, the whole period and the latest bars, and save the picture.

    Parameters
    ----------
    bars : Bars (n,)
    label : int (n,)
        Causal regime of each bar, -1 where undecided.
    names : sequence of str
        Regimes by their numbers.
    train, held_out : slice
        Rows that were learned from, and rows that no parameter has seen.
    path : Path
    title : str
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    whole, latest = figure.subplots(2, 1)
    label = np.asarray(label, dtype=np.int64)
    edges, most = most_frequent(label, len(names), STRETCHES)
    _shade(whole, _days(bars.time)[np.minimum(edges, len(bars) - 1)], most, names)
    _price(whole, bars)
    _mark_samples(whole, bars.time, train, held_out)
    stretch = max(len(bars) // max(most.size, 1), 1)
    _note(whole, f"all bars; the shade is the most frequent regime of about {stretch:,} bars")
    rows = slice(max(len(bars) - LATEST, held_out.start), len(bars))
    time = _days(bars.time[rows])
    _shade(latest, np.append(time, time[-1]), label[rows], names)
    _price(latest, bars[rows])
    _note(latest, f"the latest {len(time):,} bars, held out; the shade is the label of each bar")
    figure.suptitle(_text(title))
    _legend(figure, names)
    _save(figure, path)


def probabilities_over_time(
    time: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    train: slice,
    held_out: slice,
    path: Path,
    title: str,
) -> None:
    """Draw the probabilities of the latest bars, and their mean per month over all; save the picture.

    Parameters
    ----------
    time : int64 (n,)
        Nanoseconds UTC, bar close.
    probabilities : float64 (n, k)
        NaN where not known.
    names : sequence of str
        Regimes by column.
    train, held_out : slice
        Rows that were learned from, and rows that no parameter has seen.
    path : Path
    title : str
    """
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    latest, whole = figure.subplots(2, 1)
    colors = [SHADES[name] for name in names]
    rows = slice(max(time.size - LATEST_PROBABILITIES, held_out.start), time.size)
    latest.stackplot(
        _dates(time[rows]), np.nan_to_num(probabilities[rows]).T, colors=colors, lw=0, alpha=0.85
    )
    _note(latest, f"each of the latest {time[rows].size:,} bars, held out")
    starts, mean, unit = by_calendar(time, probabilities)
    edges = np.append(starts, time[-1])
    base = np.zeros(len(mean))
    for column, color in enumerate(colors):
        whole.bar(
            _days(edges[:-1]), mean[:, column], np.diff(_days(edges)) * 0.96, bottom=base,
            align="edge", color=color, lw=0, alpha=0.85,
        )  # fmt: skip
        base += np.nan_to_num(mean[:, column])
    _mark_samples(whole, time, train, held_out)
    _note(whole, f"all bars, mean of each {unit}")
    for axes in (latest, whole):
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("probability")
        axes.margins(x=0)
        _over_time(axes)
        axes.grid(visible=False)
    figure.suptitle(_text(title))
    _legend(figure, names, alpha=0.85)
    _save(figure, path)


def transition_matrices(
    chains: Mapping[str, np.ndarray], names: Sequence[str], path: Path, title: str
) -> None:
    """Draw chains of regimes as heat maps, and save the picture.

    Parameters
    ----------
    chains : mapping of str to float64 (k, k)
        By what they are: P(column at the next bar | row now).
    names : sequence of str
    path : Path
    title : str
    """
    figure = Figure(figsize=(5.4 * len(chains), 4.6), layout="constrained")
    panels = figure.subplots(1, len(chains), squeeze=False)[0]
    smallest = min(float(np.min(chain)) for chain in chains.values())
    norm = LogNorm(vmin=max(min(smallest, 1e-3), 1e-6), vmax=1.0)
    for axes, (what, chain) in zip(panels, chains.items(), strict=True):
        image = axes.imshow(np.maximum(chain, norm.vmin), norm=norm, cmap="Blues")
        for i, row in enumerate(np.asarray(chain)):
            for j, p in enumerate(row):
                axes.text(
                    j, i, _probability(float(p)), ha="center", va="center", fontsize=11,
                    color="white" if norm(max(p, norm.vmin)) > 0.6 else INK,
                )  # fmt: skip
        axes.set_xticks(range(len(names)), names)
        stays = [f"{name}\nstays {1 / max(1 - p, 1e-9):,.0f} bars" for name, p in zip(
            names, np.diagonal(chain), strict=True
        )]  # fmt: skip
        axes.set_yticks(range(len(names)), stays)
        axes.set_xlabel("regime of the next bar")
        axes.set_title(what, fontsize=10)
        axes.tick_params(length=0)
    figure.colorbar(image, ax=list(panels), shrink=0.85, label="probability (log scale)")
    figure.suptitle(_text(title))
    _save(figure, path)


def dwell_histograms(
    held_out: Sequence[np.ndarray],
    training: Sequence[np.ndarray],
    names: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw how long the stays in each regime were, and save the picture.

    Parameters
    ----------
    held_out, training : sequence of int64 (m,)
        Lengths of the stays in each regime, bars.
    names : sequence of str
    path : Path
    title : str
    """
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    every = np.concatenate([*held_out, *training])
    shortest, longest = (int(every.min()), int(every.max())) if every.size else (1, 1)
    edges = np.unique(np.round(np.geomspace(shortest, longest + 1, 24))) - 0.5
    edges[-1] = longest + 0.5
    for axes, name, seen, learned in zip(panels, names, held_out, training, strict=True):
        color = SHADES[name]
        for stays, style in (
            (seen, {"histtype": "stepfilled", "color": color, "alpha": 0.6}),
            (learned, {"histtype": "step", "color": INK, "lw": 1.0}),
        ):
            if stays.size:
                axes.hist(stays, edges, weights=np.full(stays.size, 1 / stays.size), **style)
        if seen.size:
            axes.axvline(seen.mean(), color=color, lw=1.6, ls="--")
        mean = f"mean {seen.mean():,.0f} bars" if seen.size else "none"
        axes.set_title(f"{name}: {seen.size:,} stays, {mean}", fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("bars (log scale)")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("share of the stays")
    handles = [
        Patch(color=FAINT, alpha=0.6, label="held-out rows, counted in the titles"),
        Line2D([], [], color=INK, lw=1.0, label="training rows (in sample)"),
        Line2D([], [], color=FAINT, lw=1.6, ls="--", label="mean of the held-out rows' stays"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(_text(title))
    _save(figure, path)


def reliability(found: Mapping[str, Mapping[str, Any]], against: str, path: Path, title: str) -> None:
    """Draw how often labels were right at each confidence, and save the picture.

    Parameters
    ----------
    found : mapping of str to mapping
        :meth:`regimes.statistics.Calibration.to_dict` by name; the first is drawn strongest and counted.
    against : str
        What a label had to be in order to be right.
    path : Path
    title : str
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    axes, counts = figure.subplots(1, 2, sharex=True, width_ratios=(1.4, 1))
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1.0, ls="--", label="as often right as it says")
    for i, (name, one) in enumerate(found.items()):
        rows = np.asarray(one["rows"])
        x, y = (np.asarray(one[key], dtype=np.float64) for key in ("confidence", "hit_rate"))
        used = rows > 0
        color, width = (MARK, 2.2) if i == 0 else (OTHERS[(i - 1) % len(OTHERS)], 1.1)
        axes.plot(x[used], y[used], color=color, lw=width, zorder=5 - i, label=_text(name, 40))
        for few in (False, True):
            chosen = used & ((rows < FEW_ROWS) == few)
            axes.scatter(
                x[chosen], y[chosen], s=34 if i == 0 else 16, zorder=6 - i, edgecolors=color,
                facecolors="white" if few else color,
            )  # fmt: skip
    axes.set_ylabel(f"share of rows in which the label was\n{against}", fontsize=10)
    axes.legend(loc="upper left", frameon=False)
    first = next(iter(found.values()))
    edges = np.asarray(first["edges"])
    counts.bar(edges[:-1], first["rows"], np.diff(edges) * 0.96, align="edge", color=MARK, alpha=0.6)
    counts.set_ylabel("rows of the first")
    counts.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 4)))
    for panel in (axes, counts):
        panel.set_xlim(0, 1)
        panel.set_xlabel("confidence: probability of the label")
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
        panel.grid(alpha=0.25)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _note(axes, f"hollow: fewer than {FEW_ROWS} rows")
    figure.suptitle(_text(title))
    _save(figure, path)


def detectors_compared(
    bars: Bars, strips: Mapping[str, np.ndarray], names: Sequence[str], path: Path, title: str
) -> None:
    """Draw the labels of several detectors as strips under the price, and save the picture.

    Parameters
    ----------
    bars : Bars (n,)
        The held-out rows.
    strips : mapping of str to int (n,)
        Labels by detector (or truth), -1 where undecided.
    names : sequence of str
        Regimes by their numbers: of the detector that tells most.
    path : Path
    title : str
    """
    n_strips = len(strips)
    figure = Figure(figsize=(13, 5.6 + 0.56 * n_strips), layout="constrained")
    panels = figure.subplots(4, 1, height_ratios=(2.2, 0.28 * n_strips, 2.2, 0.28 * n_strips))
    latest = slice(max(len(bars) - LATEST, 0), len(bars))
    for price, strip, rows, n_cells in (
        (panels[0], panels[1], slice(0, len(bars)), STRETCHES),
        (panels[2], panels[3], latest, LATEST),
    ):
        part = bars[rows]
        ends = _days(part.time[[0, -1]])
        _price(price, part)
        price.set_xlim(ends)
        picture = np.ones((n_strips, min(n_cells, len(part)), 3))
        colors = np.array([to_rgb(SHADES[name]) for name in names] + [to_rgb("white")])
        for i, label in enumerate(strips.values()):
            _, most = most_frequent(np.asarray(label[rows], dtype=np.int64), len(names), n_cells)
            picture[i] = colors[most]  # -1, undecided, is the last: white
        strip.imshow(
            picture, aspect="auto", interpolation="nearest", extent=(*ends, n_strips - 0.5, -0.5), alpha=0.85
        )
        for i in range(1, n_strips):
            strip.axhline(i - 0.5, color="white", lw=2.5)
        strip.set_yticks(range(n_strips), [_text(name, 24) for name in strips])
        strip.tick_params(axis="y", length=0)
        strip.set_xlim(ends)
        _over_time(strip)
        strip.grid(visible=False)
        strip.xaxis.set_ticklabels([])
        strip.tick_params(axis="x", length=0)
        for side in strip.spines.values():
            side.set_visible(False)
        stretch = max(len(part) // picture.shape[1], 1)
        _note(
            price,
            f"all {len(part):,} held-out bars; a cell is the most frequent regime of about {stretch:,}"
            if rows.start == 0 and stretch > 1
            else f"the latest {len(part):,} bars, one by one",
        )
    figure.suptitle(_text(title))
    _legend(figure, names, alpha=0.85)
    _save(figure, path)


def most_frequent(label: np.ndarray, n_regimes: int, n_stretches: int) -> tuple[np.ndarray, np.ndarray]:
    """Return equal stretches of rows and the regime that each spends most rows in.

    Parameters
    ----------
    label : int64 (n,)
        -1 where undecided.
    n_regimes, n_stretches : int

    Returns
    -------
    int64 (m + 1,)
        First row of each stretch, and n; m is ``n_stretches`` or n if that is less.
    int64 (m,)
        Regime; -1 for a stretch without a decided row.
    """
    n = label.size
    edges = np.linspace(0, n, min(n_stretches, n) + 1).astype(np.int64)
    stretch = np.repeat(np.arange(edges.size - 1), np.diff(edges))
    decided = label != UNDECIDED
    cells = stretch[decided] * n_regimes + label[decided]
    count = np.bincount(cells, minlength=(edges.size - 1) * n_regimes).reshape(-1, n_regimes)
    return edges, np.where(count.any(axis=1), count.argmax(axis=1), UNDECIDED)


def by_calendar(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the mean of each month; of each week or day where the rows span less than half a year or month.

    Parameters
    ----------
    time : int64 (n,)
        Bar close, nanoseconds UTC; a close at midnight belongs to the span that it ends.
    values : float64 (n, c)
        Rows with NaN are left out.

    Returns
    -------
    int64 (m,)
        First instant of each span, nanoseconds UTC.
    float64 (m, c)
        NaN for a span without a known row.
    str
        month, week or day.
    """
    days = (time[-1] - time[0]) / 86_400e9 if time.size else 0.0
    unit, code = ("month", "M") if days > 182 else ("week", "W") if days > 31 else ("day", "D")
    spans = (time - 1).astype("datetime64[ns]").astype(f"datetime64[{code}]")
    different, place = np.unique(spans, return_inverse=True)
    known = np.isfinite(values).all(axis=1)
    rows = np.bincount(place[known], minlength=different.size)
    with np.errstate(invalid="ignore"):
        mean = np.column_stack(
            [np.bincount(place[known], column[known], different.size) / rows for column in values.T]
        )
    return different.astype("datetime64[ns]").astype(np.int64), mean, unit


def _price(axes: Axes, bars: Bars) -> None:
    axes.plot(_dates(bars.time), bars.column("close"), color=INK, lw=0.8, zorder=3)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    fine = (1.2, 1.5, 3.0, 4.0, 6.0, 8.0) if decades < 0.6 else (1.5, 3.0, 4.0, 6.0, 8.0)
    axes.yaxis.set_minor_locator(LogLocator(subs=fine) if decades < 1.2 else NullLocator())
    if decades < 0.25:  # within a factor of 1.8: no decade to count from
        axes.set_yscale("linear")
    for set_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_format(FuncFormatter(lambda value, _: significant(value, 5)))
    axes.tick_params(axis="y", which="both", labelsize=9)
    axes.set_ylabel(f"{_text(bars.symbol, 24)} ({axes.get_yscale()} scale)")
    axes.margins(x=0)
    _over_time(axes)
    axes.grid(visible=False)


def _shade(axes: Axes, edges: np.ndarray, label: np.ndarray, names: Sequence[str]) -> None:
    # From edge i to edge i + 1 with label i; neighbors of one label become one bar.
    starts = np.flatnonzero(np.diff(label, prepend=UNDECIDED - 1))
    ends = np.append(starts[1:], label.size)
    for code, name in enumerate(names):
        own = label[starts] == code
        since, until = edges[starts[own]], edges[ends[own]]
        axes.broken_barh(
            np.column_stack([since, until - since]), (0, 1),
            transform=axes.get_xaxis_transform(), color=SHADES[name], alpha=SHADING, lw=0,
        )  # fmt: skip
    for collection in axes.collections:  # inside the axes: the layout need not measure thousands of them
        collection.set_in_layout(False)


def _mark_samples(axes: Axes, time: np.ndarray, train: slice, held_out: slice) -> None:
    # Two lines and a word on either side; what lies between them is the embargo.
    days = _days(time)
    low, high = days[0], days[-1]
    for row in (min(train.stop, time.size - 1), held_out.start):
        axes.axvline(days[row], color=INK, lw=1.3, zorder=6)
    for begin, end, text in (
        (train.start, train.stop - 1, "training rows (in sample)"),
        (held_out.start, held_out.stop - 1, "held-out rows"),
    ):
        middle = (days[begin] + days[end]) / 2
        axes.annotate(
            text, ((middle - low) / (high - low), 0.0), (0, 6), xycoords="axes fraction",
            textcoords="offset points", ha="center", va="bottom", fontsize=10, fontweight="bold",
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": "none", "alpha": 0.85}, zorder=7,
        )  # fmt: skip


def _note(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9.5, color="#555555")


def _legend(figure: Figure, names: Sequence[str], alpha: float = 2 * SHADING) -> None:
    handles = [Patch(color=SHADES[name], alpha=alpha, label=_text(name)) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _over_time(axes: Axes) -> None:
    ticks = AutoDateLocator(maxticks=10)
    axes.xaxis_date()
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(ticks))


def _probability(p: float) -> str:
    return f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def _text(text: str, letters: int = LONGEST_TITLE) -> str:
    # Dollars would begin a formula, and an underscore at the start hides a legend's entry.
    shown = printable(text)
    shown = shown if len(shown) <= letters else f"{shown[: letters - 1]}…"
    return f"{' ' if shown.startswith('_') else ''}{shown}".replace("$", r"\$")


def _dates(time: np.ndarray) -> np.ndarray:
    return time.astype("datetime64[ns]").astype("datetime64[s]")


def _days(time: np.ndarray) -> np.ndarray:
    return date2num(_dates(time))


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        # A symbol in a script that the font lacks is drawn as boxes; the page has it in full.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(path, dpi=DPI)

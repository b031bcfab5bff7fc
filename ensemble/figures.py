"""Pictures of a validation: equity and regimes, folds, members, costs, luck, transitions, degradation.

Every function draws one picture and saves it; the caller sees to it that there is something to draw. What is
in ``report.json`` is drawn from it, series are drawn from the results themselves.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from backtest.figures import DPI, FAINT, INK, LONG, REGIME_SHADES, SHORT
from backtest.metrics import drawdown
from backtest.simulate import BacktestResult
from ensemble.paths import Paths
from experiments.page import printable, significant
from regimes.figures import by_calendar, most_frequent

Report = Mapping[str, Any]

STRATEGY = "#1b6ca8"
RIVALS = (
    "#8d99ae", "#e9a03b", "#2a9d8f", "#d1495b", "#7a5195", "#5d646d", "#b08968", "#3a86a8", "#c77dff",
)  # fmt: skip
STRETCHES = 260  # into which all test rows are cut for their regimes: each is some pixels wide
SHADING = 0.2
HISTOGRAM = 12  # paths from which on their spread has a shape


def overview(
    strategy: BacktestResult,
    baselines: Mapping[str, BacktestResult],
    label: np.ndarray,
    names: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw equity against the baselines (log scale) over the regimes, and the drawdown; save the picture.

    The baselines stand on the same rows; ``label``, int8 (n,), is the causal regime of each, -1 where
    undecided, and ``names`` are the regimes by their numbers.
    """
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    growth, under = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    time = _days(strategy.curve.time)
    edges, most = most_frequent(np.asarray(label, np.int64), len(names), STRETCHES)
    for code, name in enumerate(names):
        chosen = most == code
        since, until = (time[np.minimum(ends[chosen], time.size - 1)] for ends in (edges[:-1], edges[1:]))
        growth.broken_barh(
            np.column_stack([since, until - since]), (0, 1), transform=growth.get_xaxis_transform(),
            color=_shade(name, code), alpha=SHADING, lw=0, zorder=0,
        )  # fmt: skip
    shown = dict(list(baselines.items())[: len(RIVALS)])
    for (name, one), color in zip(shown.items(), RIVALS, strict=False):
        growth.plot(time, _growth(one), color=color, lw=0.9, label=_named(name, one), zorder=2)
    growth.plot(time, _growth(strategy), color=STRATEGY, lw=2.2, label=_named("strategy", strategy), zorder=4)
    growth.axhline(1.0, color=FAINT, lw=0.6)
    _log_scale(growth)
    growth.set_ylabel("equity over its start (log scale)")
    lines, words = growth.get_legend_handles_labels()
    regimes = [
        Patch(color=_shade(name, code), alpha=2 * SHADING, label=f"{name} regime")
        for code, name in enumerate(names)
    ]
    growth.legend(
        [lines[-1], *lines[:-1], *regimes], [words[-1], *words[:-1], *(one.get_label() for one in regimes)],
        loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False, fontsize=8.5,
    )  # fmt: skip
    own = drawdown(strategy.curve.column("net_return"))
    for (_, one), color in list(zip(shown.items(), RIVALS, strict=False))[:2]:
        under.plot(time, drawdown(one.curve.column("net_return")), color=color, lw=0.7)
    under.fill_between(time, own, 0.0, color=STRATEGY, alpha=0.3, lw=0)
    under.plot(time, own, color=STRATEGY, lw=1.1)
    under.set_ylabel("drawdown")
    under.yaxis.set_major_formatter(PercentFormatter(1.0))
    _over_time(growth, under)
    _save(figure, path, title)


def folds(report: Report, path: Path, title: str) -> None:
    """Draw return and Sharpe ratio of each fold beside the first two baselines; save the picture."""
    found = report["folds_performance"]
    others = list(found[0]["baselines"])[:2]
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    at = np.arange(len(found))
    width = 0.8 / (1 + len(others))
    for axes, key, label in zip(panels, ("total_return", "sharpe"), ("return", "annual Sharpe"), strict=True):
        series = {"strategy": [one["metrics"][key] for one in found]}
        series |= {name: [one["baselines"][name][key] for one in found] for name in others}
        for i, ((name, values), color) in enumerate(zip(series.items(), (STRATEGY, *RIVALS), strict=False)):
            axes.bar(
                at - 0.4 + (i + 0.5) * width, _numbers(values), width, color=color, label=_text(name, 40)
            )
        axes.axhline(0.0, color=INK, lw=0.6)
        axes.set_ylabel(label)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False, fontsize=9)
    step = math.ceil(len(found) / 12)
    panels[1].set_xticks(
        at[::step], [f"{one['name']}\n{one['first'][:7]}" for one in found][::step], fontsize=8
    )
    panels[1].set_xlabel("fold, and the month in which its test begins")
    _save(figure, path, title)


def contributions(report: Report, path: Path, title: str) -> None:
    """Draw what each member adds, its part of the risk, and what it earns alone; save the picture."""
    members = report["members"]
    alone = [report["metrics"]["members"][name]["sharpe"] for name in members]
    kept = [None] * len(members) if report["ablation"] is None else list(report["ablation"]["lost"].values())
    columns = (
        ("adds to the blend, a year", [one["contribution"] for one in members.values()], True),
        ("part of the risk", [one["risk_share"] for one in members.values()], True),
        ("Sharpe lost without it", kept, False),
        ("Sharpe alone", alone, False),
    )
    figure = Figure(figsize=(12, 1.3 + 0.38 * len(members)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True)
    for axes, (label, values, fraction) in zip(panels, columns, strict=True):
        found = _numbers(values)
        colors = FAINT if label == "part of the risk" else np.where(found > 0, LONG, SHORT)
        axes.barh(range(len(members)), np.nan_to_num(found), color=colors, height=0.6)
        axes.axvline(0.0, color=INK, lw=0.6)
        axes.set_title(label, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if fraction:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(members)), [_text(name, 24) for name in members])
    panels[0].invert_yaxis()
    _save(figure, path, title)


def robustness(report: Report, path: Path, title: str) -> None:
    """Draw Sharpe ratio and return over costs, delays and shaken champions; save the picture."""
    found = report["robustness"]
    shaken = found["perturbations"]
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3 if shaken else 2, width_ratios=(1.6, 1, 1)[: 3 if shaken else 2])
    costs = panels[0]
    factors = [one["factor"] for one in found["costs"]["factors"]]
    costs.plot(factors, _numbers([one["sharpe"] for one in found["costs"]["factors"]]), "o-", color=STRATEGY)
    costs.axvline(1.0, color=FAINT, lw=0.8, ls=":")
    even = found["costs"]["break_even"]
    if even is not None and min(factors) < even < 1.2 * max(factors):
        costs.axvline(even, color=SHORT, lw=1.0, ls="--", label=f"nothing left at {even:.2f} times")
        costs.legend(loc="upper right", frameon=False)
    costs.set_xlabel("times the costs (dotted: as assumed)")
    costs.set_ylabel("annual Sharpe")
    late = found["delays"]
    panels[1].bar(
        [f"{one['extra_bars']:g}" for one in late], _numbers([one["sharpe"] for one in late]), color=STRATEGY,
        width=0.5,
    )  # fmt: skip
    panels[1].set_xlabel("bars that every order is late")
    if shaken:
        for i, one in enumerate(shaken):
            values = _numbers(one["sharpe"])
            spread = np.linspace(-0.18, 0.18, values.size) if values.size > 1 else np.zeros(1)
            panels[2].scatter(i + spread, values, s=14, color=STRATEGY, alpha=0.6, lw=0)
        unshaken = shaken[0]["unshaken"]
        if unshaken is not None:
            panels[2].axhline(unshaken, color=SHORT, lw=1.0, ls="--", label="unshaken")
            panels[2].legend(loc="best", frameon=False)
        panels[2].set_xticks(range(len(shaken)), [f"{one['sigma']:.0%}" for one in shaken])
        panels[2].set_xlabel("genes shaken by, of their range")
    for axes in panels:
        axes.axhline(0.0, color=INK, lw=0.6)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
    _save(figure, path, title)


def correlation(report: Report, path: Path, title: str) -> None:
    """Draw correlation and disagreement of the signals as heat maps; save the picture."""
    found = report["diversity"]
    names = [_text(name, 18) for name in found["names"]]
    figure = Figure(figsize=(12, 2.0 + 0.42 * len(names)), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, low, colors, form in zip(
        panels,
        ("correlation", "disagreement"),
        (-1, 0),
        ("RdBu_r", "Reds"),
        ("{:z.2f}", "{:.0%}"),
        strict=True,
    ):
        table = np.array([_numbers(row) for row in found[key]])
        image = axes.imshow(np.ma.masked_invalid(table), cmap=colors, vmin=low, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(table):
            text = "-" if math.isnan(value) else form.format(value)
            dark = not math.isnan(value) and abs(value) > 0.6
            axes.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
        axes.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=8.5)
        axes.set_yticks(range(len(names)), names, fontsize=8.5)
        axes.set_title(f"{key} of signals", fontsize=10)
        figure.colorbar(image, ax=axes, shrink=0.9)
    _save(figure, path, title)


def weights(
    time: np.ndarray, weight: np.ndarray, signals: np.ndarray, names: Sequence[str], path: Path, title: str
) -> None:
    """Draw mean weight and mean weighted wish of each member over time; save the picture.

    Weights and signals are float64 (n, s), NaN where there is none; times are closes, nanoseconds UTC.
    """
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    said = np.abs(np.nan_to_num(weight) * np.nan_to_num(signals))
    for axes, values, label in zip(panels, (weight, said), ("mean weight", "weight x signal"), strict=True):
        starts, mean, unit = by_calendar(time, np.nan_to_num(values))
        edges = _days(np.append(starts, time[-1]))
        base = np.zeros(len(mean))
        for j, color in zip(range(len(names)), _members(len(names)), strict=True):
            axes.bar(
                edges[:-1], mean[:, j], np.diff(edges) * 0.97, bottom=base, align="edge", color=color, lw=0
            )
            base += np.nan_to_num(mean[:, j])
        axes.set_ylabel(f"{label}\n(by {unit})")
    _over_time(*panels)
    handles = [Patch(color=c, label=_text(n, 24)) for n, c in zip(names, _members(len(names)), strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 6), frameon=False)
    _save(figure, path, title)


def around_switches(report: Report, path: Path, title: str) -> None:
    """Draw what the strategy earned around switches of the regime; save the picture."""
    found = report["transitions"]["around"]
    offsets = np.array(found["offsets"])
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    earned, moved = figure.subplots(1, 2)
    earned.fill_between(
        offsets, _numbers(found["low"]), _numbers(found["high"]), color=STRATEGY, alpha=0.2, lw=0
    )
    earned.plot(offsets, _numbers(found["strategy"]), color=STRATEGY, lw=1.6)
    earned.axhline(0.0, color=FAINT, lw=0.6)
    earned.set_ylabel("net return summed from the switch on")
    moved.plot(offsets, _numbers(found["move"]), color=INK, lw=1.0)
    moved.set_ylim(bottom=0)
    moved.set_ylabel("size of the price's move, each bar")
    for axes in (earned, moved):
        axes.axvline(0.0, color=SHORT, lw=0.8, ls="--")
        axes.set_xlabel(f"bars from the switch, mean of {found['switches']:,}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.25)
        axes.margins(x=0.01)
    _save(figure, path, title)


def degradation(report: Report, path: Path, title: str) -> None:
    """Draw Sharpe ratios out of sample over those in sample; save the picture."""
    found = report["degradation"]
    points = [one for one in found["points"] if one["out_of_sample"] is not None]
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes, spread = figure.subplots(1, 2, width_ratios=(1.1, 1))
    names = list(dict.fromkeys(one["member"] for one in points))
    for name, color in zip(names, _members(len(names)), strict=True):
        own = [one for one in points if one["member"] == name]
        axes.scatter(*_pairs(own), s=26, color=color, label=_text(name, 24), alpha=0.85, lw=0)
    inside = _pairs(points)[0]
    ends = np.array([min(inside.min(), 0.0), max(inside.max(), 0.0)])
    axes.plot(ends, ends, color=FAINT, lw=0.9, ls="--", label="kept in full")
    if found["slope"] is not None:
        line = found["intercept"] + found["slope"] * ends
        axes.plot(ends, line, color=INK, lw=1.1, label=f"slope {found['slope']:.2f}")
    axes.set_xlabel("annual Sharpe IN SAMPLE, of each search")
    axes.set_ylabel("annual Sharpe out of sample")
    axes.legend(loc="best", fontsize=8.5, framealpha=0.7)
    numbers = sorted({one["fold"] for one in points})
    each = np.array(
        [[value.mean() for value in _pairs([o for o in points if o["fold"] == n])] for n in numbers]
    )
    at = np.arange(len(numbers))
    spread.bar(at - 0.2, each[:, 0], 0.4, color=RIVALS[0], label="IN SAMPLE, mean of the searches")
    spread.bar(at + 0.2, each[:, 1], 0.4, color=STRATEGY, label="out of sample, mean of the same")
    step = math.ceil(len(numbers) / 12)
    spread.set_xticks(at[::step], [str(n) for n in numbers][::step])
    spread.set_xlabel("fold")
    spread.legend(loc="best", fontsize=8.5, framealpha=0.7)
    for panel in (axes, spread):
        panel.axhline(0.0, color=FAINT, lw=0.8)
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
    _save(figure, path, title)


def luck(report: Report, path: Path, title: str) -> None:
    """Draw the strategy among everything it is compared with, by Sharpe ratio; save the picture."""
    groups = {
        "other blenders": [one["sharpe"] for one in report["metrics"]["blenders"].values()],
        "members": [one["sharpe"] for one in report["metrics"]["members"].values()],
        "random routing": report["random_routing"]["sharpes"],
        "baselines": [one["sharpe"] for one in report["metrics"]["baselines"].values()],
    }
    groups = {name: _numbers(values) for name, values in groups.items() if len(values)}
    figure = Figure(figsize=(12, 1.4 + 0.5 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for i, (values, color) in enumerate(zip(groups.values(), RIVALS, strict=False)):
        axes.scatter(values, np.full(values.size, i), s=34, color=color, alpha=0.8, lw=0, zorder=3)
    own = report["metrics"]["strategy"]["sharpe"]
    spread = report["evidence"]["intervals"]["sharpe"]
    if own is not None:
        axes.axvline(own, color=STRATEGY, lw=2.0, label="strategy")
        if spread["low"] is not None and spread["high"] is not None:
            axes.axvspan(
                spread["low"], spread["high"], color=STRATEGY, alpha=0.12, lw=0, label="its interval"
            )
    for value, style, name in (
        (report["evidence"]["skill"]["luck_unseen"], ":", "luck of the best ever judged here"),
        (report["evidence"]["skill"]["luck"], "--", "luck of the best trial in the ledger"),
    ):
        if value is not None:
            axes.axvline(value, color=SHORT, lw=1.1, ls=style, label=name)
    axes.axvline(0.0, color=FAINT, lw=0.6)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlabel("annual Sharpe, net, out of sample")
    axes.grid(axis="x", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    _save(figure, path, title)


def paths(found: Paths, path: Path, title: str) -> None:
    """Draw the equity of all paths beside holding, how their Sharpe ratios spread, and each group; save it.

    Few Sharpe ratios are drawn as dots, many as a histogram.
    """
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    panels = figure.subplot_mosaic([["growth", "spread"], ["growth", "groups"]], width_ratios=(1.7, 1))
    growth, spread, groups = (panels[name] for name in ("growth", "spread", "groups"))
    time, count = _days(found.hold.curve.time), len(found.results)
    sharpes = found.sharpes
    middle = int(np.argsort(sharpes, kind="stable")[(count - 1) // 2])
    for i, one in enumerate(found.results):
        median = i == middle and count > 1
        label = "other paths" if i == int(middle == 0) else None
        if i == middle:
            label = "the median path" if count > 1 else "the path"
        growth.plot(
            time, _growth(one), color=STRATEGY, lw=1.8 if median else 0.9,
            alpha=1.0 if median else max(0.25, min(0.7, 6.0 / count)), label=label, zorder=3 if median else 2,
        )  # fmt: skip
    growth.plot(time, _growth(found.hold), color=RIVALS[1], lw=1.2, label="hold at the same volatility")
    for rows in found.groups[1:]:
        growth.axvline(time[rows.start - found.groups[0].start], color=FAINT, lw=0.6, ls=":")
    growth.axhline(1.0, color=FAINT, lw=0.6)
    _log_scale(growth)
    growth.set_ylabel("equity over its start (log scale)")
    growth.legend(loc="best", fontsize=8.5, framealpha=0.7)
    _over_time(growth)
    hold = found.hold.metrics.sharpe
    if count >= HISTOGRAM:
        spread.hist(sharpes, bins="auto", color=STRATEGY, alpha=0.5, label="paths")
        spread.set_ylabel("paths")
        spread.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    else:
        spread.plot(sharpes, np.zeros(count), "o", ms=9, color=STRATEGY, alpha=0.5, mew=0, label="each path")
        spread.set_yticks([])
    spread.axvline(float(np.median(sharpes)), color=STRATEGY, lw=2.0, label="median")
    if not math.isnan(hold):
        spread.axvline(hold, color=RIVALS[1], lw=1.6, label="hold")
    spread.axvline(0.0, color=INK, lw=0.8, ls="--", label="zero")
    spread.set_xlabel("annual Sharpe of a path, net")
    spread.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=4, frameon=False, fontsize=8.5)
    told = found.to_dict()["groups"]
    for i, one in enumerate(told):
        values = _numbers(one["sharpes"])
        groups.plot(np.full(values.size, i + 1), values, "o", ms=5, color=STRATEGY, alpha=0.5, mew=0)
        groups.plot([i + 0.75, i + 1.25], [one["hold"]] * 2, color=RIVALS[1], lw=1.8)
    groups.axhline(0.0, color=INK, lw=0.8, ls="--")
    groups.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    groups.set_xlim(0.4, len(told) + 0.6)
    groups.set_xlabel("group")
    groups.set_ylabel("annual Sharpe")
    for axes in (spread, groups):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    _save(figure, path, title)


def _growth(result: BacktestResult) -> np.ndarray:
    return np.maximum(result.curve.column("equity") / result.capital, 1e-6)


def _named(name: str, result: BacktestResult) -> str:
    sharpe = result.metrics.sharpe
    return f"{_text(name, 36)} ({'-' if math.isnan(sharpe) else f'{sharpe:.2f}'})"


def _members(count: int) -> list[str]:
    colors = (STRATEGY, *RIVALS[1:], RIVALS[0])
    return [colors[i % len(colors)] for i in range(count)]


def _shade(name: str, code: int) -> str:
    return REGIME_SHADES.get(name, RIVALS[code % len(RIVALS)])


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _pairs(points: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    inside, outside = (_numbers([one[key] for one in points]) for key in ("in_sample", "out_of_sample"))
    return inside, outside


def _over_time(*panels: Axes) -> None:
    ticks = AutoDateLocator(maxticks=12)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.margins(x=0.005)
        axes.xaxis.set_major_locator(ticks)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(ticks))


def _log_scale(axes: Axes) -> None:
    # Ticks as plain numbers; within a factor of three there is hardly a decade to count from.
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(MaxNLocator(7) if decades < 0.5 else LogLocator(subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 3)))


def _text(text: str, letters: int = 110) -> str:
    # Dollars would begin a formula, and an underscore at the start hides a legend's entry.
    shown = printable(text)
    shown = shown if len(shown) <= letters else f"{shown[: letters - 1]}…"
    return f"{' ' if shown.startswith('_') else ''}{shown}".replace("$", r"\$")


def _days(time: np.ndarray) -> np.ndarray:
    return date2num(np.asarray(time).astype("datetime64[ns]").astype("datetime64[s]"))


def _save(figure: Figure, path: Path, title: str) -> None:
    figure.suptitle(_text(title), fontsize=12)
    with warnings.catch_warnings():
        # A symbol in a script that the font lacks is drawn as boxes; the page has it in full.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(path, dpi=DPI)

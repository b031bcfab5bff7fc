"""Pictures of a backtest: price and trades over the regimes, equity and drawdown beside the baselines."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from backtest.simulate import BacktestResult
from market.bars import Bars

LINES = ("#1b6ca8", "#8d99ae", "#e9a03b", "#2a9d8f", "#d1495b")
REGIME_SHADES = {"ranging": "#8d99ae", "trending": "#2a9d8f", "volatile": "#d1495b"}
LONG, SHORT = "#0b7a3b", "#b3261e"


def trades_over_regimes(
    bars: Bars, labels: np.ndarray, names: Mapping[int, str], result: BacktestResult, path: Path, title: str
) -> None:
    """Draw the price shaded by regime with each trade from entry to exit, and save the picture.

    Parameters
    ----------
    bars : Bars (n,)
    labels : int8 (n,)
        Causal regime of each bar; codes that ``names`` lacks stay unshaded.
    names : mapping of int to str
        Regime by code.
    result : BacktestResult
        Whose trades to draw.
    path : Path
    title : str
    """
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    axes = figure.subplots()
    time = _dates(bars.time)
    axes.plot(time, bars.column("close"), color="#222222", lw=0.7, zorder=3)
    _log_scale(axes, "{:,.8g}")
    edges = np.flatnonzero(np.diff(labels)) + 1
    for start, end in zip(np.r_[0, edges], np.r_[edges, labels.size], strict=True):
        name = names.get(int(labels[start]))
        if name is not None:
            last = time[min(end, labels.size - 1)]
            axes.axvspan(time[start], last, color=REGIME_SHADES.get(name, "#cccccc"), alpha=0.16, lw=0)
    for side, color, marker in ((1, LONG, "^"), (-1, SHORT, "v")):
        trades = result.trades[result.trades["side"] == side]
        if trades.size == 0:
            continue
        entry, leave = _dates(trades["entry_time"]), _dates(trades["exit_time"])
        axes.plot(
            np.vstack([entry, leave]),
            np.vstack([trades["entry_price"], trades["exit_price"]]),
            color=color, lw=1.1, alpha=0.8, zorder=4,
        )  # fmt: skip
        axes.scatter(entry, trades["entry_price"], marker=marker, s=16, color=color, zorder=5, lw=0)
    handles = [Patch(color=REGIME_SHADES[name], alpha=0.3, label=name) for name in REGIME_SHADES]
    for label, color, marker in (("long", LONG, "^"), ("short", SHORT, "v")):
        handles.append(Line2D([], [], color=color, marker=marker, ms=5, label=label))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=5, frameon=False)
    axes.set_ylabel(f"{bars.symbol} (log scale)")
    axes.set_title(title)
    axes.margins(x=0.01)
    figure.savefig(path, dpi=110)


def equity_and_drawdown(results: Mapping[str, BacktestResult], path: Path, title: str) -> None:
    """Draw equity over its start (log scale) and drawdown of several results, and save the picture.

    Parameters
    ----------
    results : mapping of str to BacktestResult
        By the name in the legend; the first is drawn strongest.
    path : Path
    title : str
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    growth, drawdown = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    for i, (name, result) in enumerate(results.items()):
        _draw(growth, drawdown, result, name, LINES[i % len(LINES)], 2.0 if i == 0 else 1.0)
    _log_scale(growth, "{:.3g}")
    growth.axhline(1.0, color="#999999", lw=0.6)
    growth.set_ylabel("equity over its start (log scale)")
    growth.set_title(title)
    growth.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=len(results), frameon=False)
    drawdown.set_ylabel("drawdown")
    drawdown.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axes in (growth, drawdown):
        axes.grid(alpha=0.25)
        axes.margins(x=0.01)
    figure.savefig(path, dpi=110)


def _draw(growth: Axes, drawdown: Axes, result: BacktestResult, name: str, color: str, width: float) -> None:
    time = _dates(result.curve.time)
    equity = result.curve.column("equity") / result.capital
    sharpe = result.metrics.sharpe
    growth.plot(time, equity, color=color, lw=width, label=f"{name} (Sharpe {sharpe:.2f})")
    peak = np.maximum.accumulate(np.maximum(equity, 1.0))
    drawdown.plot(time, equity / peak - 1.0, color=color, lw=0.6 * width)


def _log_scale(axes: Axes, style: str) -> None:
    # Ticks as plain numbers: nobody reads a price as a power of ten.
    axes.set_yscale("log")
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(lambda value, _: style.format(value))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(LogLocator(subs=(1.5, 3.0, 4.0, 6.0, 8.0)))
    axes.tick_params(axis="y", which="both", labelsize=9)


def _dates(time: np.ndarray) -> np.ndarray:
    return time.astype("datetime64[ns]").astype("datetime64[s]")

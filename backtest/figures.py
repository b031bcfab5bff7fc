"""Pictures of a backtest: price and trades over the regimes, equity, risk, costs, and what trades did.

Every function draws one picture and saves it; the caller sees to it that there is something to draw.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from backtest.breakdown import Spell, TradeGroup, rolling_moments, trade_returns
from backtest.simulate import BacktestResult
from experiments.page import printable, significant
from market.bars import Bars

LINES = ("#1b6ca8", "#8d99ae", "#e9a03b", "#2a9d8f", "#d1495b")
REGIME_SHADES = {"ranging": "#8d99ae", "trending": "#2a9d8f", "volatile": "#d1495b", "crisis": "#6a1b4d"}
LONG, SHORT = "#0b7a3b", "#b3261e"
INK, FAINT = "#222222", "#999999"
LONGEST_TITLE = 110  # letters; a longer one would run out of the picture
DPI = 110
ROOM = 0.015  # share of the width that the number of a drawdown takes


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
    axes.plot(_dates(bars.time), bars.column("close"), color=INK, lw=0.7, zorder=3)
    _log_scale(axes, 8)
    shades = _shades(names)
    _shade(axes, date2num(_dates(bars.time)), np.asarray(labels), shades)
    handles = [Patch(color=shade, alpha=0.3, label=_label(names[code])) for code, shade in shades.items()]
    for side, label, color, marker in ((1, "long", LONG, "^"), (-1, "short", SHORT, "v")):
        trades = result.trades[result.trades["side"] == side]
        entry, leave = (date2num(_dates(trades[name])) for name in ("entry_time", "exit_time"))
        ends = np.stack([entry, trades["entry_price"], leave, trades["exit_price"]], axis=1).reshape(-1, 2, 2)
        axes.add_collection(LineCollection(ends, colors=color, linewidths=1.1, alpha=0.8, zorder=4))
        axes.scatter(entry, trades["entry_price"], marker=marker, s=16, color=color, zorder=5, lw=0)
        handles.append(Line2D([], [], color=color, marker=marker, ms=5, label=label))
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.06),
        ncols=min(len(handles), 6),
        frameon=False,
    )
    for collection in axes.collections:  # inside the axes, so the layout need not measure thousands of them
        collection.set_in_layout(False)
    axes.set_ylabel(f"{_label(bars.symbol)} (log scale)")
    _over_time(axes)
    axes.grid(visible=False)
    _save(figure, axes, path, title)


def equity_and_drawdown(
    results: Mapping[str, BacktestResult], path: Path, title: str, spells: Sequence[Spell] = ()
) -> None:
    """Draw equity over its start (log scale) and drawdown of several results, and save the picture.

    Parameters
    ----------
    results : mapping of str to BacktestResult
        By the name in the legend; the first is drawn strongest.
    path : Path
    title : str
    spells : sequence of Spell
        Drawdowns of the first result to shade and to number, in this order.
    """
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    growth, drawdown = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    for i, (name, result) in enumerate(results.items()):
        _draw(growth, drawdown, result, name, LINES[i % len(LINES)], 2.0 if i == 0 else 1.0)
    if spells:
        _number(drawdown, next(iter(results.values())), spells)
    _log_scale(growth, 3)
    growth.axhline(1.0, color=FAINT, lw=0.6)
    growth.set_ylabel("equity over its start (log scale)")
    growth.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(len(results), 4), frameon=False)
    drawdown.set_ylabel("drawdown")
    drawdown.yaxis.set_major_formatter(PercentFormatter(1.0))
    _over_time(growth, drawdown)
    _save(figure, growth, path, title)


def rolling_risk(results: Mapping[str, BacktestResult], window: int, path: Path, title: str) -> None:
    """Draw the annual Sharpe ratio and volatility of the last ``window`` bars, and save the picture.

    Parameters
    ----------
    results : mapping of str to BacktestResult
        By the name in the legend; the first is drawn strongest.
    window : int
        Bars, at least 2. There is no line before the window is full, and no Sharpe ratio while equity
        stands still.
    path : Path
    title : str
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    sharpe, volatility = figure.subplots(2, 1, sharex=True)
    for i, (name, result) in enumerate(results.items()):
        color, width = LINES[i % len(LINES)], 1.5 if i == 0 else 0.8
        time, year = _dates(result.curve.time), np.sqrt(result.bars_per_year)
        mean, deviation = rolling_moments(result.curve.column("net_return"), window)
        ratio = mean / np.where(deviation > 0, deviation, np.nan) * year
        sharpe.plot(time, ratio, color=color, lw=width, zorder=3 - i, label=_label(name))
        volatility.plot(time, deviation * year, color=color, lw=width, zorder=3 - i)
    sharpe.axhline(0.0, color=FAINT, lw=0.6)
    sharpe.set_ylabel("Sharpe ratio")
    sharpe.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(len(results), 4), frameon=False)
    volatility.set_ylabel("volatility per year")
    volatility.set_ylim(bottom=0)
    volatility.yaxis.set_major_formatter(PercentFormatter(1.0))
    _over_time(sharpe, volatility)
    _save(figure, sharpe, path, title)


def exposure_and_turnover(result: BacktestResult, window: int, path: Path, title: str) -> None:
    """Draw exposure at each close with its mean, and the turnover per year, and save the picture.

    Parameters
    ----------
    result : BacktestResult
    window : int
        Bars that the mean exposure and the turnover are taken over, at least 2.
    path : Path
    title : str
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    held, traded = figure.subplots(2, 1, sharex=True)
    time, exposure = _dates(result.curve.time), result.curve.column("exposure")
    for side, color in ((np.maximum(exposure, 0), LONG), (np.minimum(exposure, 0), SHORT)):
        held.fill_between(time, 0.0, side, step="pre", color=color, alpha=0.35, lw=0)
    net, gross = (rolling_moments(values, window)[0] for values in (exposure, np.abs(exposure)))
    held.plot(time, gross, color=FAINT, lw=1.0, label="mean size")
    held.plot(time, net, color=LINES[0], lw=1.5, label="mean, signed")
    held.axhline(0.0, color=FAINT, lw=0.6)
    held.set_ylabel("exposure")
    held.yaxis.set_major_formatter(PercentFormatter(1.0))
    handles = [Patch(color=LONG, alpha=0.35, label="long"), Patch(color=SHORT, alpha=0.35, label="short")]
    held.legend(
        handles=[*handles, *held.get_lines()[:2]],
        loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False,
    )  # fmt: skip
    yearly = rolling_moments(result.curve.column("turnover"), window)[0] * result.bars_per_year
    traded.plot(time, yearly, color=LINES[0], lw=1.2)
    traded.set_ylim(bottom=0)
    traded.set_ylabel("turnover per year")
    traded.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    _over_time(held, traded)
    _save(figure, held, path, title)


def costs_over_time(result: BacktestResult, path: Path, title: str) -> None:
    """Draw profit before and after costs, and each cost summed up, over the capital; save the picture.

    Parameters
    ----------
    result : BacktestResult
    path : Path
    title : str
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    profit, paid = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
    time = _dates(result.curve.time)
    net = result.curve.column("equity") / result.capital - 1.0
    costs = {
        name: result.curve.column(name).cumsum() / result.capital for name in ("fees", "slippage", "funding")
    }
    gross = net + sum(costs.values())
    profit.fill_between(time, net, gross, color=LINES[4], alpha=0.2, lw=0)
    profit.plot(time, gross, color=LINES[1], lw=1.2)
    profit.plot(time, net, color=LINES[0], lw=1.8)
    profit.axhline(0.0, color=FAINT, lw=0.6)
    profit.legend(
        handles=[
            Line2D([], [], color=LINES[1], label="profit before costs"),
            Line2D([], [], color=LINES[0], lw=1.8, label="profit after costs"),
            Patch(color=LINES[4], alpha=0.2, label="what the costs took"),
        ],
        loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False,
    )  # fmt: skip
    profit.set_ylabel("over the capital")
    for (name, cost), color in zip(costs.items(), (LINES[0], LINES[2], LINES[3]), strict=True):
        paid.plot(time, cost, color=color, lw=1.2, label=name)
    paid.set_ylabel("paid so far")
    paid.legend(loc="upper left", frameon=False)
    for axes in (profit, paid):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _over_time(profit, paid)
    _save(figure, profit, path, title)


def return_distributions(result: BacktestResult, path: Path, title: str) -> None:
    """Draw how the returns of moving bars, and of trades where there are any, are spread; save the picture.

    A bar moves if its return is not zero. The outermost columns hold what lies beyond them.

    Parameters
    ----------
    result : BacktestResult
    path : Path
    title : str
    """
    returns = result.curve.column("net_return")
    moving = returns[returns != 0]
    figure = Figure(figsize=(11, 4), layout="constrained")
    bars, trades = figure.subplots(1, 2)
    _spread(bars, moving, "return of a moving bar, after costs", "bars (log scale)")
    bars.set_yscale("log")
    bars.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 4)))
    if moving.size >= 20 and moving.std() > 0:
        low, high = bars.get_xlim()
        at, width = np.linspace(low, high, 300), bars.patches[0].get_width()
        normal = np.exp(-0.5 * ((at - moving.mean()) / moving.std()) ** 2) / (
            moving.std() * np.sqrt(2 * np.pi)
        )
        floor, top = bars.get_ylim()
        bars.plot(at, normal * width * moving.size, color=LINES[4], lw=1.2, label="normal distribution")
        bars.set_ylim(max(floor, 0.5), top * 2)
        bars.set_xlim(low, high)
        bars.legend(loc="upper right", frameon=False)
    _spread(trades, trade_returns(result.trades), "return of a trade, after costs", "trades")
    _save(figure, None, path, title)


def excursions(trades: np.ndarray, path: Path, title: str) -> None:
    """Draw the return of each trade over its worst and best excursion and its length; save the picture.

    Parameters
    ----------
    trades : record array (m,) of TRADE_DTYPE
        At least one.
    path : Path
    title : str
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    returns = trade_returns(trades)
    colors = np.where(trades["pnl"] > 0, LONG, SHORT)
    size = float(np.clip(6_000 / len(trades), 4, 24))
    for axes, values, label in zip(
        panels,
        (trades["mae"], trades["mfe"], trades["bars"]),
        (
            "largest move against the trade (MAE)",
            "largest move in its favor (MFE)",
            "bars held (log scale)",
        ),
        strict=True,
    ):
        axes.scatter(values, returns, s=size, c=colors, alpha=0.55, lw=0)
        axes.axhline(0.0, color=FAINT, lw=0.6)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
    for axes, values in zip(panels[:2], (trades["mae"], trades["mfe"]), strict=True):
        ends = np.array([min(values.min(), 0.0), max(values.max(), 0.0)])
        axes.plot(ends, ends, color=FAINT, lw=0.8, ls="--", zorder=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    panels[2].set_xscale("log")
    panels[2].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    panels[2].xaxis.set_minor_locator(NullLocator())
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_ylabel("return of the trade, after costs")
    handles = [
        Line2D([], [], color=color, marker="o", ls="", ms=5, label=label)
        for color, label in ((LONG, "profit"), (SHORT, "loss"))
    ]
    handles.append(Line2D([], [], color=FAINT, lw=0.8, ls="--", label="left at the extreme, before costs"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    _save(figure, None, path, title)


def profit_by_group(groups: Mapping[str, Sequence[TradeGroup]], path: Path, title: str) -> None:
    """Draw the net profit of groups of trades as bars, one panel per kind, and save the picture.

    Parameters
    ----------
    groups : mapping of str to sequence of TradeGroup
        By kind; each kind has at least one group.
    path : Path
    title : str
    """
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    for axes, (kind, members) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        profit = np.array([group.pnl for group in members])
        names = [f"{_label(group.name, 24)} ({group.n_trades:,})" for group in members]
        axes.barh(range(len(members)), profit, color=np.where(profit > 0, LONG, SHORT), height=0.6)
        axes.set_yticks(range(len(members)), names)
        axes.set_ylim(max(len(members), 3) - 0.5, -0.5)
        axes.axvline(0.0, color=FAINT, lw=0.6)
        axes.set_title(f"by {kind}", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    _save(figure, None, path, title)


def _draw(growth: Axes, drawdown: Axes, result: BacktestResult, name: str, color: str, width: float) -> None:
    time = _dates(result.curve.time)
    equity = result.curve.column("equity") / result.capital
    sharpe = result.metrics.sharpe
    growth.plot(time, equity, color=color, lw=width, label=f"{_label(name)} (Sharpe {sharpe:.2f})")
    peak = np.maximum.accumulate(np.maximum(equity, 1.0))
    drawdown.plot(time, equity / peak - 1.0, color=color, lw=0.6 * width)


def _number(axes: Axes, result: BacktestResult, spells: Sequence[Spell]) -> None:
    time = _dates(result.curve.time)
    for i, spell in enumerate(spells, 1):
        end = time[-1] if spell.recovery is None else time[spell.recovery]
        since = time[max(spell.peak, 0)]
        axes.axvspan(since, end, color=LINES[4], alpha=0.12, lw=0)
        axes.axvline(since, color=LINES[4], alpha=0.5, lw=0.6)
        if any(abs(spell.trough - other.trough) < ROOM * time.size for other in spells[: i - 1]):
            continue  # its number would stand on that of a deeper one
        axes.annotate(
            str(i), (time[spell.trough], spell.depth), (0, -6), textcoords="offset points",
            ha="center", va="top", fontsize=9, color=LINES[4], fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        )  # fmt: skip
    low = min(np.min(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) == time.size)
    axes.set_ylim(1.25 * low, -0.06 * low)


def _shades(names: Mapping[int, str]) -> dict[int, str]:
    # Known regimes keep their color; others take the next one that is free.
    free = [color for color in LINES if color not in REGIME_SHADES.values()]
    others = [code for code, name in names.items() if name not in REGIME_SHADES]
    return {
        code: REGIME_SHADES[name] if name in REGIME_SHADES else free[others.index(code) % len(free)]
        for code, name in names.items()
    }


def _shade(axes: Axes, time: np.ndarray, labels: np.ndarray, shades: Mapping[int, str]) -> None:
    # One collection per regime: an axvspan per episode takes minutes on a long history.
    edges = np.flatnonzero(np.diff(labels)) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, labels.size]
    for code, color in shades.items():
        chosen = labels[starts] == code
        since, until = time[starts[chosen]], time[np.minimum(ends[chosen], labels.size - 1)]
        axes.broken_barh(
            np.column_stack([since, until - since]), (0, 1),
            transform=axes.get_xaxis_transform(), color=color, alpha=0.16, lw=0,
        )  # fmt: skip


def _spread(axes: Axes, values: np.ndarray, label: str, count: str) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel(count)
    axes.grid(alpha=0.25)
    if values.size == 0:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"no {label.split(',')[0]}", ha="center", transform=axes.transAxes, color=FAINT)
        return
    low, high = np.quantile(values, (0.001, 0.999))
    if not high > low:
        low, high = low - max(abs(low), 1e-4), high + max(abs(high), 1e-4)
    edges = np.linspace(low, high, int(np.clip(2 * np.sqrt(values.size), 10, 80)))
    axes.hist(np.clip(values, low, high), edges, color=LINES[0], alpha=0.75)
    axes.axvline(0.0, color=INK, lw=0.6)
    axes.axvline(values.mean(), color=LINES[2], lw=1.2, label="mean")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 4)))
    axes.margins(x=0.01)
    axes.legend(loc="upper right", frameon=False)


def _over_time(*panels: Axes) -> None:
    ticks = AutoDateLocator(maxticks=10)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(ticks)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(ticks))


def _save(figure: Figure, axes: Axes | None, path: Path, title: str) -> None:
    text = _label(title, LONGEST_TITLE)
    if axes is None:
        figure.suptitle(text)
    else:
        axes.set_title(text)
    with warnings.catch_warnings():
        # A symbol in a script that the font lacks is drawn as boxes; the page has it in full.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(path, dpi=DPI)


def _label(text: str, letters: int = 30) -> str:
    # Dollars would begin a formula, and an underscore at the start hides a legend's entry.
    shown = printable(text)
    shown = shown if len(shown) <= letters else f"{shown[: letters - 1]}…"
    return f"{' ' if shown.startswith('_') else ''}{shown}".replace("$", r"\$")


def _log_scale(axes: Axes, digits: int) -> None:
    # Ticks as plain numbers: nobody reads a price as a power of ten. The wider the range, the fewer.
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(FuncFormatter(lambda value, _: significant(value, digits)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    minor = LogLocator(subs=(1.5, 3.0, 4.0, 6.0, 8.0)) if decades < 1.2 else NullLocator()
    axes.yaxis.set_minor_locator(minor)
    axes.tick_params(axis="y", which="both", labelsize=9)


def _dates(time: np.ndarray) -> np.ndarray:
    return time.astype("datetime64[ns]").astype("datetime64[s]")

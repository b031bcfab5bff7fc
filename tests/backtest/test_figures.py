"""The pictures of a backtest show what the result holds, and can be read."""

import itertools

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from backtest import figures
from backtest.breakdown import Bill, drawdown_spells, trade_groups, trade_returns
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, hold, simulate
from backtest.venue import Venue
from market.table import Table

NAMES = {0: "ranging", 1: "trending", 2: "odd weather"}


@pytest.fixture
def drawn(monkeypatch):
    """The last figure that was saved, kept instead of being written."""
    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: kept.append(figure))
    return kept


@pytest.fixture(scope="module")
def bars(make_bars):
    return make_bars(700, seed=5)


@pytest.fixture(scope="module")
def labels(bars):
    return np.repeat([0, 1, 2, 7, 1, -1, 0], 100).astype(np.int8)


@pytest.fixture(scope="module")
def result(bars, labels):
    wanted = np.repeat(np.random.default_rng(1).choice([-0.5, 0.0, 0.9], 140), 5)
    targets = np.column_stack([wanted, np.full(700, 0.03), np.full(700, 0.05)])
    venue = Venue(kind="perpetual", leverage=2)
    return simulate(
        Table(bars.time, targets, TARGETS), bars, Costs(), RiskLimits(), venue=venue, regimes=labels
    )


@pytest.fixture(scope="module")
def held(bars):
    return simulate(hold(bars), bars, Costs(), RiskLimits(stop=None))


def days(time):
    return date2num(time.astype("datetime64[ns]").astype("datetime64[s]"))


def extents(collection):
    """Left and right edge of every rectangle."""
    return [(p.vertices[:, 0].min(), p.vertices[:, 0].max()) for p in collection.get_paths()]


def test_the_shades_are_the_bars_of_each_regime_and_unnamed_codes_have_none(bars, labels, result, drawn):
    figures.trades_over_regimes(bars, labels, NAMES, result, "-", "title")
    (axes,) = drawn[0].axes
    shades = [one for one in axes.collections if isinstance(one, PolyCollection)]
    time = days(bars.time)
    ends = np.append(time[100::100], time[-1])
    assert len(shades) == len(NAMES)
    for code, shade in zip(NAMES, shades, strict=True):
        wanted = [(time[100 * i], ends[i]) for i in range(7) if labels[100 * i] == code]
        assert np.allclose(extents(shade), wanted)
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert entries == ["ranging", "trending", "odd weather", "long", "short"]


def test_every_trade_runs_from_its_entry_to_its_exit_in_the_color_of_its_side(bars, labels, result, drawn):
    figures.trades_over_regimes(bars, labels, NAMES, result, "-", "title")
    lines = [one for one in drawn[0].axes[0].collections if isinstance(one, LineCollection)]
    assert set(np.unique(result.trades["side"])) == {-1, 1}
    for collection, side, color in zip(lines, (1, -1), (figures.LONG, figures.SHORT), strict=True):
        trades = result.trades[result.trades["side"] == side]
        wanted = [
            days(trades["entry_time"]),
            trades["entry_price"],
            days(trades["exit_time"]),
            trades["exit_price"],
        ]
        assert np.allclose(np.reshape(collection.get_segments(), (-1, 4)), np.transpose(wanted))
        assert to_hex(collection.get_color()[0]) == color


def test_equity_and_drawdown_are_those_of_each_result(result, held, drawn):
    figures.equity_and_drawdown({"rule": result, "held": held}, "-", "title")  # as it was always called
    growth, drawdown = drawn[0].axes
    for one, line, under in zip((result, held), growth.get_lines(), drawdown.get_lines(), strict=False):
        equity = one.curve.column("equity") / one.capital
        assert np.array_equal(line.get_ydata(), equity)
        depth = equity / np.maximum.accumulate(np.maximum(equity, 1.0)) - 1
        assert np.allclose(under.get_ydata(), depth)
    assert growth.get_legend().get_texts()[0].get_text() == f"rule (Sharpe {result.metrics.sharpe:.2f})"
    assert [text for text in drawdown.texts if text.get_text()] == []


def test_the_deepest_drawdowns_are_numbered_where_they_are_deepest(result, held, drawn):
    spells = drawdown_spells(held.curve.column("net_return"))[:3]
    figures.equity_and_drawdown({"held": held, "rule": result}, "-", "title", spells)
    drawdown = drawn[0].axes[1]
    assert [text.get_text() for text in drawdown.texts] == ["1", "2", "3"]
    time = days(result.curve.time)
    for text, spell in zip(drawdown.texts, spells, strict=True):
        assert days(np.array([text.xy[0]]).astype("datetime64[ns]").astype("i8"))[0] == time[spell.trough]
        assert text.xy[1] == spell.depth
        assert drawdown.get_ylim()[0] < spell.depth


def test_rolling_risk_looks_back_on_its_window_alone(result, held, drawn):
    figures.rolling_risk({"rule": result, "held": held}, 120, "-", "title")
    sharpe, volatility = drawn[0].axes
    returns = held.curve.column("net_return")
    ratio, spread = (axes.get_lines()[1].get_ydata() for axes in (sharpe, volatility))
    assert np.isnan(ratio[:119]).all()
    for end in (119, 400, 699):
        inside = returns[end - 119 : end + 1]
        deviation = inside.std(ddof=1) * np.sqrt(held.bars_per_year)
        assert spread[end] == pytest.approx(deviation)
        assert ratio[end] == pytest.approx(inside.mean() * held.bars_per_year / deviation)


def test_exposure_and_turnover_are_means_of_their_window(result, drawn):
    figures.exposure_and_turnover(result, 50, "-", "title")
    exposure, turnover = drawn[0].axes
    gross, net = (line.get_ydata() for line in exposure.get_lines()[:2])
    held, traded = result.curve.column("exposure"), result.curve.column("turnover")
    assert gross[300] == pytest.approx(np.abs(held[251:301]).mean())
    assert net[300] == pytest.approx(held[251:301].mean())
    yearly = turnover.get_lines()[0].get_ydata()
    assert yearly[300] == pytest.approx(traded[251:301].mean() * result.bars_per_year)


def test_costs_over_time_end_at_the_bill(result, drawn):
    figures.costs_over_time(result, "-", "title")
    profit, paid = drawn[0].axes
    bill = Bill.of(result)
    gross, net = (line.get_ydata()[-1] * result.capital for line in profit.get_lines()[:2])
    assert (gross, net) == (pytest.approx(bill.gross), pytest.approx(bill.net))
    ends = {line.get_label(): line.get_ydata()[-1] * result.capital for line in paid.get_lines()}
    assert ends == {name: pytest.approx(getattr(bill, name)) for name in ("fees", "slippage", "funding")}


def test_every_moving_bar_and_every_trade_is_in_its_distribution(result, drawn):
    figures.return_distributions(result, "-", "title")
    bars, trades = drawn[0].axes
    moving = np.count_nonzero(result.curve.column("net_return"))
    assert sum(patch.get_height() for patch in bars.patches) == moving
    assert sum(patch.get_height() for patch in trades.patches) == len(result.trades)


def test_excursions_have_a_dot_for_each_trade(result, drawn):
    figures.excursions(result.trades, "-", "title")
    returns = trade_returns(result.trades)
    for axes, column in zip(drawn[0].axes, ("mae", "mfe", "bars"), strict=True):
        (dots,) = (one for one in axes.collections if isinstance(one, PathCollection))
        assert np.allclose(dots.get_offsets(), np.column_stack([result.trades[column], returns]))
        green = [to_hex(color) == figures.LONG for color in dots.get_facecolors()]
        assert green == (result.trades["pnl"] > 0).tolist()


def test_groups_are_as_long_as_their_profit(result, drawn):
    groups = trade_groups(result.trades, NAMES)
    figures.profit_by_group(groups, "-", "title")
    for axes, members in zip(drawn[0].axes, groups.values(), strict=True):
        assert [patch.get_width() for patch in axes.patches] == [group.pnl for group in members]
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == [f"{group.name} ({group.n_trades:,})" for group in members]


@pytest.mark.parametrize("title", ["$\\frac{$", "_x", "a\nb", "漢字", "x" * 999, "costs $5 and $6"])
def test_any_title_can_be_drawn(title, result, tmp_path):
    figures.profit_by_group({"side": trade_groups(result.trades, {})["side"]}, tmp_path / "a.png", title)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_title_with_dollars_is_no_formula(result, drawn):
    figures.costs_over_time(result, "-", "costs $5 and $6")
    (title,) = (axes.title for axes in drawn[0].axes if axes.get_title())
    assert title.get_text() == r"costs \$5 and \$6"  # matplotlib shows an escaped dollar as a dollar


# Legible.


def overlapping(axes):
    """Pairs of tick labels of the vertical axis that are drawn over each other."""
    axes.figure.canvas.draw()
    shown = [text for text in axes.yaxis.get_ticklabels(which="both") if text.get_text()]
    low, high = axes.get_ylim()
    boxes = sorted(
        (text.get_window_extent() for text in shown if low <= text.get_position()[1] <= high),
        key=lambda box: box.y0,
    )
    assert len(boxes) >= 2
    return [(a, b) for a, b in itertools.pairwise(boxes) if a.y1 > b.y0 + 1]


@pytest.mark.parametrize("decades", [0.01, 0.2, 1.0, 1.7, 3.0, 6.0])
def test_log_scales_have_labels_that_do_not_touch_and_are_plain_numbers(decades):
    axes = Figure(figsize=(11, 4), layout="constrained").subplots()
    axes.plot([0, 1], [1.0, 10.0**-decades])
    figures._log_scale(axes, 3)
    assert overlapping(axes) == []
    assert not any("e" in text.get_text() for text in axes.yaxis.get_ticklabels(which="both"))


def test_labels_that_touch_are_seen():
    axes = Figure(figsize=(11, 4), layout="constrained").subplots()
    axes.set_yticks(np.linspace(0, 1, 60))
    assert overlapping(axes) != []

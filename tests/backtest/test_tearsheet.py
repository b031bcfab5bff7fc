"""The tear sheet: every number has its source, nothing on the page is foreign, and no account is too odd."""

import math
import os
import re
import shutil
from dataclasses import fields
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import breakdown, metrics, tearsheet
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.sheet import results
from backtest.simulate import REASONS, TARGETS, TRADE_DTYPE, BacktestResult, hold, simulate
from backtest.stress import stress
from backtest.tearsheet import write_tearsheet
from backtest.venue import Venue
from experiments import page
from market.bars import OHLCV, Bars
from market.table import DataError, Table
from tests.reference import tearsheet as reference

HOUR = 3_600_000_000_000
START = 1_600_000_000_000_000_000 // HOUR * HOUR
YEAR = 24 * 365.0
NAMES = {-1: "no regime", 0: "calm", 1: "wild"}
OPEN = RiskLimits(stop=None, max_exposure=3)
MARGINED = Venue(kind="perpetual", leverage=3)


@pytest.fixture
def undrawn(monkeypatch):
    """A sheet without its pictures: they take a second, and hold no numbers of their own."""
    monkeypatch.setattr(tearsheet, "_draw", lambda subject, folder, title: {})


def market(n, seed=0, volatility=0.01, drift=0.0):
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(drift, volatility, n)))
    before = np.concatenate([[100.0], close])[:n]
    reach = np.abs(random.normal(0.0, volatility / 2, (2, n)))
    high, low = np.maximum(before, close) * (1 + reach[0]), np.minimum(before, close) / (1 + reach[1])
    time = START + HOUR * np.arange(1, n + 1)
    return Bars(time, np.column_stack([before, high, low, close, np.full(n, 1e4)]), OHLCV, "TEST/USD", HOUR)


def decided(bars, exposure, stop=math.inf, take=math.inf):
    values = np.column_stack([np.broadcast_to(x, len(bars)) for x in (exposure, stop, take)])
    return Table(bars.time, values.astype(float), TARGETS)


def busy(bars, seed=0, **account):
    """An account that trades both ways, is stopped out, takes profits and pays funding."""
    random = np.random.default_rng(seed)
    wanted = np.repeat(random.choice([-0.8, -0.3, 0.0, 0.4, 1.2], len(bars) // 6 + 1), 6)[: len(bars)]
    labels = np.repeat(random.integers(0, 2, len(bars) // 50 + 1), 50)[: len(bars)].astype(np.int8)
    account = {"venue": MARGINED, "regimes": labels} | account
    return simulate(decided(bars, wanted, 0.02, 0.04), bars, Costs(), OPEN, **account)


def sheet(result, folder, bars=None, benchmarks=None, **more):
    """Write a sheet; return its text and what its cells must say."""
    more = {"title": "A title", "regime_names": NAMES} | more
    path = write_tearsheet(result, folder, bars=bars, benchmarks=benchmarks, **more)
    text = path.read_text(encoding="utf-8")
    about = ("TEST/USD", "1h") if bars is not None else ("not given", "not given")
    return text, expected(result, folder, benchmarks, about)


def expected(result, folder, benchmarks=None, about=("TEST/USD", "1h")):
    return reference.recomputed(
        folder, result.capital, result.bars_per_year, list(benchmarks or {}), NAMES, about
    )


def held(bars, **account):
    return {"buy and hold": simulate(hold(bars), bars, Costs(), RiskLimits(stop=None), **account)}


# S7: every printed number comes from the files.


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 40, 600]), st.sampled_from([1.0, 10_000.0, 3e8]))
def test_s7_every_number_is_that_of_the_files_at_printed_precision(tmp_path_factory, seed, n, capital):
    bars = market(n, seed)
    result, benchmarks = busy(bars, seed, capital=capital), held(bars, capital=capital)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tearsheet, "_draw", lambda subject, folder, title: {})
        text, wanted = sheet(result, tmp_path_factory.mktemp("sheet"), bars, benchmarks)
    assert len(wanted) > 130
    assert reference.mismatches(text, wanted) == {}
    assert reference.in_order(text, "best")
    assert reference.in_order(text, "worst")


def swings(n):
    return np.sign(np.sin(np.arange(n) / 9.0))


def traded(bars, exposure, costs=Costs(), limits=OPEN, **account):  # noqa: B008 (frozen)
    return bars, simulate(decided(bars, exposure), bars, costs, limits, **account)


CALM, WILD = market(400), market(400, volatility=0.3)
RISING = market(300, volatility=0.004, drift=0.01)
ODD = {
    "no trade": lambda: traded(CALM, 0.0),
    "one trade": lambda: traded(CALM, 1.0),
    "left open": lambda: traded(CALM, 1.0, close_last=False),
    "winners only": lambda: traded(RISING, np.arange(300) // 50 % 2),
    "eaten by fees": lambda: traded(CALM, swings(400), Costs(fee_bps=300)),
    "ruined": lambda: traded(WILD, -3.0),
    "liquidated": lambda: traded(WILD, 3 * swings(400), venue=MARGINED),
    "halted": lambda: traded(CALM, swings(400), limits=RiskLimits(max_drawdown=0.02)),
    "a tiny account": lambda: (CALM, busy(CALM, capital=1e-4)),
    "0 bars": lambda: traded(market(0), 1.0),
    "1 bar": lambda: traded(market(1), 1.0),
    "2 bars": lambda: traded(market(2), 1.0),
    "3 bars": lambda: traded(market(3), 1.0),
}


@pytest.mark.parametrize("kind", ODD)
def test_s7_holds_for_odd_accounts_and_what_is_not_defined_is_a_dash(kind, tmp_path, undrawn):
    bars, result = ODD[kind]()
    for benchmarks in (None, held(bars)):
        text, wanted = sheet(result, tmp_path, bars, benchmarks)
        assert reference.mismatches(text, wanted) == {}
        shown = [cell for key, cell in reference.cells(text).items() if key[0] != "files"]
        assert not [cell for cell in shown if re.search(r"nan|inf|\de[+-]?\d|^-0\.?0*%?$", cell)]


@pytest.mark.parametrize(
    ("column", "file"),
    [("pnl", "trades"), ("mae", "trades"), ("fees", "trades"), ("equity", "equity"), ("net_return", "equity"),
     ("slippage", "equity"), ("funding", "equity"), ("turnover", "equity"), ("exposure", "equity")],
)  # fmt: skip
def test_s7_a_number_that_is_not_that_of_the_files_is_seen(column, file, tmp_path, undrawn):
    bars = market(400)
    result = busy(bars)
    text, _ = sheet(result, tmp_path, bars)
    table = pq.read_table(tmp_path / f"{file}.parquet")
    values = table.column(column).to_pylist()
    row = max(range(len(values)), key=lambda i: abs(values[i]))
    values[row] *= 1.3
    changed = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    pq.write_table(changed, tmp_path / f"{file}.parquet")
    wrong = reference.mismatches(text, expected(result, tmp_path))
    assert {key[0] for key in wrong} > {"files"}


def without_costs(result):
    return breakdown.Bill(0.0, 0.0, 0.0, float(result.curve.column("equity")[-1] - result.capital), 1.0)


@pytest.mark.parametrize(
    ("home", "name", "broken", "table"),
    [
        (breakdown.Bill, "of", without_costs, "bill"),
        (metrics, "_mean", lambda values: float(np.median(values)) if values.size else math.nan, "metrics"),
        (breakdown.TradeGroup, "of", None, "groups"),
        (
            tearsheet.performance,
            "drawdown_spells",
            lambda r: breakdown.drawdown_spells(r[:-100]),
            "drawdowns",
        ),
        (tearsheet.activity, "trade_costs", lambda trades: trades["fees"], "best"),
        (tearsheet.page, "percent", None, "months"),
    ],
)
def test_s7_a_broken_build_of_the_sheet_is_seen(home, name, broken, table, tmp_path, undrawn, monkeypatch):
    bars = market(400)
    if name == "percent":
        home, name, broken = (
            tearsheet.performance,
            "percent",
            lambda v, *a, **k: page.percent(v * 1.01, *a, **k),
        )
    if table == "groups":
        whole = breakdown.TradeGroup.of
        broken = lambda kind, trades: whole(kind, trades[1:] if len(trades) > 1 else trades)  # noqa: E731
    monkeypatch.setattr(home, name, broken)
    text, wanted = sheet(busy(bars), tmp_path, bars)
    assert table in {key[0] for key in reference.mismatches(text, wanted)}


# What it says in words.


def test_the_assumptions_stand_on_the_page_in_full(tmp_path, undrawn):
    bars = market(100)
    result = busy(bars)
    text, _ = sheet(result, tmp_path, bars)
    for assumption in result.assumptions:
        assert page.escaped(assumption) in text


WARNINGS = [
        ("no trade", "No trade was closed"), ("one trade", "Fewer than 30 trades"),
        ("left open", "A position is still open"), ("ruined", "The account was ruined"),
        ("liquidated", "A position was liquidated"), ("halted", "A breaker"),
        ("eaten by fees", "There was no profit before costs"), ("0 bars", "There are no bars"),
        ("1 bar", "There is a single bar"), ("2 bars", "shorter than a year"),
        ("3 bars", "Nobody said whether"), ("one trade", "No benchmark was given"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "said"), WARNINGS)
def test_what_speaks_against_an_account_is_said_first(kind, said, tmp_path, undrawn):
    bars, result = ODD[kind]()
    assert said in sheet(result, tmp_path, bars)[0]


def test_nothing_is_said_against_an_account_where_nothing_speaks_against_it(tmp_path, undrawn):
    bars, result = traded(market(9_000, volatility=0.002, drift=0.001), np.arange(9_000) // 100 % 2)
    text, _ = sheet(result, tmp_path, bars, held(bars), sample="out-of-sample")
    assert [said for _, said in WARNINGS if said in text] == []
    assert 'class="warning"' not in text


@pytest.mark.parametrize(
    ("sample", "large", "warned"),
    [
        ("in-sample", "in-sample", True),
        ("In sample (train)", "In sample (train)", True),
        ("out-of-sample", "out-of-sample", False),
        (None, "sample not stated", False),
    ],
)
def test_the_sample_is_printed_large_and_in_sample_is_no_evidence(sample, large, warned, tmp_path, undrawn):
    text, _ = sheet(busy(market(50)), tmp_path, sample=sample)
    assert f'<p class="sample">{large}</p>' in text
    assert ("The strategy was chosen on these bars." in text) == warned
    assert ("Nobody said whether" in text) == (sample is None)


def test_every_metric_has_a_convention_and_a_newer_one_speaks_for_itself(tmp_path, undrawn, monkeypatch):
    assert {field.name for field in fields(metrics.Metrics)} == set(results.CONVENTIONS)
    monkeypatch.delitem(results.CONVENTIONS, "sharpe")
    bars = market(200)
    text, _ = sheet(busy(bars), tmp_path, bars)
    row = re.search(r'<th scope="row">sharpe</th><td[^>]*>([^<]+)</td><td class="words">([^<]+)', text)
    assert float(row[1]) == pytest.approx(busy(bars).metrics.sharpe, rel=1e-3)
    assert row[2].startswith("the annual Sharpe ratio")


def test_a_stress_report_is_on_the_page_with_its_own_numbers(tmp_path, undrawn):
    bars = market(600)
    targets = decided(bars, np.sign(np.sin(np.arange(600) / 30)), 0.05)
    result = simulate(targets, bars, Costs(), OPEN)
    report = stress(targets, bars, Costs(), OPEN, seed=3, n_paths=20, mean_block=24.0)
    text, wanted = sheet(result, tmp_path, bars, stress=report)
    assert reference.mismatches(text, wanted) == {}  # all others are still those of the files
    cells, found = reference.cells(text), report.to_dict()
    for one in found["costs"]["factors"]:
        key = ("stress-costs", "", f"{one['factor']:g}", "total return")
        assert reference.agrees(cells[key], one["total_return"])
    for one in found["delays"]:
        key = ("stress-delays", "", f"{one['extra_bars']:g}", "trades")
        assert reference.agrees(cells[key], one["n_trades"])
    assert reference.agrees(
        cells["stress-returns", "", "largest drawdown", "taken"], found["returns"]["max_drawdown"]["taken"]
    )
    assert {key[2] for key in cells if key[0] == "stress-crises"} == {row["name"] for row in found["crises"]}
    assert page.escaped(found["costs"]["verdict"]) in text


# Nothing foreign.


class _Foreign(HTMLParser):
    """Collects what could run, load or leave."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in {
            "script",
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
            "a",
            "svg",
            "audio",
            "video",
        }:
            self.found.append(tag)
        for name, value in attributes:
            inside = name == "src" and value.startswith("data:image/png;base64,")
            if name.startswith("on") or (name in {"src", "href", "srcset", "action", "data"} and not inside):
                self.found.append(f"{tag} {name}")


def foreign(text):
    parser = _Foreign()
    parser.feed(text)
    return parser.found + re.findall(r"url\(|@import|https?://|javascript:", text)


HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "</title><b>",
    "</style><script src=//evil.example/x.js></script>", "&lt;script&gt;", "$\\frac{1}{", "_hidden", "$",
    "line\nbreak\ttab\0nul", "\u202egnp.exe", "\ud800", "{title} %s %(x)s", "漢字 🙂", "x" * 3_000, "",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_comes_in(text, tmp_path, undrawn):
    shown = _hostile_sheet(text, tmp_path)
    assert foreign(shown) == []
    assert shown.count("<title>") == shown.count("</title>") == shown.count("</style>") == 1
    plain = page.printable(text)
    if plain and plain.isascii():
        parser = HTMLParser(convert_charrefs=True)
        words = []
        parser.handle_data = words.append
        parser.feed(shown)
        assert sum(plain in word for word in words) >= 5  # it is all there, as text


def _hostile_sheet(text, folder):
    bars = market(60)
    bars = Bars(bars.time, bars.values, bars.names, text, HOUR)
    made = busy(bars)
    result = BacktestResult(
        made.curve, made.trades, made.capital, made.bars_per_year, (text, *made.assumptions)
    )
    path = write_tearsheet(
        result, folder, title=text, sample=text, bars=bars, regime_names={0: text, 1: text},
        benchmarks={text: held(bars)["buy and hold"]},
    )  # fmt: skip
    return path.read_bytes().decode("utf-8")


def test_text_that_is_not_escaped_is_seen(tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr(page, "escaped", str)
    assert "script" in foreign(_hostile_sheet("<script>alert(1)</script>", tmp_path))


def test_hostile_text_is_drawn_as_it_stands(tmp_path):
    # One sheet with everything that upsets a drawing library: formulas, underscores, odd letters.
    text = "$\\frac{1}{ _x $ <script> \u202e 漢 \ud800 " + "long " * 100
    shown = _hostile_sheet(text, tmp_path)
    assert foreign(shown) == []
    assert (tmp_path / "equity.png").stat().st_size > 10_000


# Files.


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_same_input_gives_the_same_bytes(tmp_path, undrawn):
    bars = market(100)
    for name in ("one", "two"):
        sheet(busy(bars), tmp_path / name, bars, held(bars))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    sheet(busy(bars, seed=1), tmp_path / "two", bars, held(bars))
    assert contents(tmp_path / "one") != contents(tmp_path / "two")


def test_the_folder_holds_page_pictures_and_data_and_nothing_else(tmp_path):
    bars = market(400)
    labels = (np.arange(400) // 70 % 2).astype(np.int8)
    arguments = {"bars": bars, "labels": labels, "benchmarks": held(bars)}
    text, wanted = sheet(busy(bars), tmp_path / "one", **arguments)
    assert reference.mismatches(text, wanted) == {}
    one = contents(tmp_path / "one")
    assert set(one) == {
        "tearsheet.html", "equity.parquet", "trades.parquet", "benchmark-1/equity.parquet",
        "benchmark-1/trades.parquet", *(f"{name}.png" for name in tearsheet.PICTURES),
    }  # fmt: skip
    parser = _Foreign()
    parser.feed(text)
    assert text.count("<img ") == len(tearsheet.PICTURES)
    assert parser.found == []
    assert "default-src 'none'" in text


def test_there_is_no_picture_where_there_is_nothing_to_see(tmp_path):
    bars = market(2)
    quiet = simulate(decided(bars, 0.0), bars, Costs(), OPEN)
    sheet(quiet, tmp_path)
    assert list(tmp_path.glob("*.png")) == []
    assert "<img" not in (tmp_path / "tearsheet.html").read_text()


def test_what_an_earlier_sheet_left_does_not_pass_for_a_part_of_this_one(tmp_path, undrawn):
    bars = market(60)
    two = held(bars) | {"again": held(bars)["buy and hold"]}
    sheet(busy(bars), tmp_path, bars, two)
    (tmp_path / "rolling.png").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    sheet(busy(bars), tmp_path, bars)
    assert set(contents(tmp_path)) == {"tearsheet.html", "equity.parquet", "trades.parquet", "notes.txt"}
    assert not (tmp_path / "benchmark-2").exists()


@pytest.mark.parametrize("where", ["save", "_draw", "_page"])
def test_a_failure_leaves_the_earlier_sheet_as_it_was(where, tmp_path, undrawn, monkeypatch):
    bars = market(60)
    sheet(busy(bars), tmp_path, bars)
    before = contents(tmp_path)

    def fails(*_arguments, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BacktestResult if where == "save" else tearsheet, where, fails)
    with pytest.raises(DataError, match=r"cannot be written there \(No space left on device\)"):
        write_tearsheet(busy(bars, seed=1), tmp_path, title="another", bars=bars)
    assert contents(tmp_path) == before


def test_the_page_that_stands_is_whole_at_every_step_of_replacing(tmp_path, undrawn, monkeypatch):
    bars = market(60)
    old, _ = sheet(busy(bars), tmp_path, bars, title="old")
    replace, steps = os.replace, []

    def watched(source, target):
        replace(source, target)
        steps.append((tmp_path / "tearsheet.html").read_text())

    monkeypatch.setattr(os, "replace", watched)
    new, _ = sheet(busy(bars, seed=1), tmp_path, bars, title="new")
    assert steps == [old, old, new]  # data first, and the page in one step
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_page_names_the_files_it_was_made_from(tmp_path, undrawn):
    bars = market(60)
    text, _ = sheet(busy(bars), tmp_path, bars)
    other = tmp_path / "other"
    sheet(busy(bars, seed=1), other, bars)
    shutil.copy(other / "trades.parquet", tmp_path / "trades.parquet")
    wrong = reference.mismatches(text, expected(busy(bars), tmp_path))
    assert ("files", "", "trades.parquet", "SHA-256") in wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda bars: {"benchmarks": {"late": busy(bars[1:])}}, "benchmark late: tables have 60 and 59 rows"),
        (lambda bars: {"benchmarks": {"strategy": busy(bars)}}, "benchmark strategy: that is the name"),
        (lambda bars: {"bars": bars[5:]}, "TEST/USD 1h: bars are missing for some of the 60 rows"),
        (lambda bars: {"labels": np.zeros(60)}, r"labels have shape \(60,\) and no bars are given"),
        (lambda bars: {"bars": bars, "labels": np.zeros(9)}, r"shape \(9,\) and there are 60 bars"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_nothing_is_written(arguments, message, tmp_path):
    bars = market(60)
    with pytest.raises(DataError, match=message):
        write_tearsheet(busy(bars), tmp_path / "sheet", title="t", **arguments(bars))
    assert not (tmp_path / "sheet").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(DataError, match="taken: the tear sheet cannot be written there"):
        write_tearsheet(busy(market(5)), tmp_path / "taken", title="t")
    assert (tmp_path / "taken").read_text() == "mine"


def test_bars_may_be_longer_than_the_rows_of_the_result(tmp_path, undrawn):
    bars = market(200)
    result = simulate(decided(bars, 0.5), bars, Costs(), OPEN, rows=slice(50, 150))
    text, wanted = sheet(result, tmp_path, bars, labels=np.zeros(200, np.int8))
    assert reference.mismatches(text, wanted) == {}


# The numbers behind it.


def test_a_bar_that_closes_at_midnight_belongs_to_the_month_it_ends():
    midnight = np.datetime64("2021-03-01T00", "ns").astype(np.int64)
    time = midnight + HOUR * np.array([-1, 0, 1])
    months, returns = breakdown.calendar_returns(time, np.array([0.1, 0.1, -0.5]), "M")
    assert months.astype(str).tolist() == ["2021-02", "2021-03"]
    assert returns == pytest.approx([0.21, -0.5])


def test_a_drawdown_runs_from_its_peak_to_the_first_close_that_is_no_longer_below():
    spells = breakdown.drawdown_spells(np.array([-0.1, 0.2, 0.0, -0.5, 0.5, -0.9, 20.0, -0.2]))
    found = [(s.peak, s.trough, s.recovery, s.bars, round(s.depth, 3)) for s in spells]
    assert found == [(2, 5, 6, 3, -0.925), (6, 7, None, 1, -0.2), (-1, 0, 1, 1, -0.1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.01, -0.02, 0.3]), min_size=1, max_size=60),
    st.integers(2, 20),
)
def test_rolling_moments_are_those_of_each_window(values, window):
    values = np.array(values)
    mean, deviation = breakdown.rolling_moments(values, window)
    for end in range(values.size):
        inside = values[end - window + 1 : end + 1]
        if end < window - 1:
            assert np.isnan(mean[end])
            assert np.isnan(deviation[end])
            continue
        assert mean[end] == pytest.approx(inside.mean(), abs=1e-12)
        assert deviation[end] == pytest.approx(inside.std(ddof=1), abs=1e-8)
        assert (deviation[end] == 0) == (np.ptp(inside) == 0)


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 8))
def test_no_number_is_printed_with_a_power_of_ten_or_as_a_negative_zero(value, digits):
    styles = (
        page.percent(value, digits), page.percent(value, digits, signed=False), page.decimal(value, digits),
        page.significant(value, digits + 1), page.money_style(10.0**digits)(value), page.whole(value),
    )  # fmt: skip
    for text in styles:
        assert re.fullmatch(r"-|[+-]?\d{1,3}(,\d{3})*(\.\d+)?%?", text)
        assert not re.fullmatch(r"-[0.,]+%?", text)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (page.percent(12.345678), "+1,234.6%"), (page.percent(-1e-17), "+0.0%"),
        (page.decimal(-0.004), "0.00"), (page.whole(1e6), "1,000,000"),
        (page.significant(1234.5678, 6), "1,234.57"), (page.significant(0.0000123456789), "0.0000123457"),
        (page.significant(1e-17), "0"), (page.significant(8760.0, 10), "8,760"),
        (page.money_style(10_000)(-1234.5), "-1,234.50"), (page.money_style(5e8)(1e9), "+1,000,000,000"),
        (page.money_style(0.01)(0.00000001), "+0.00000001"), (page.percent(math.nan), "-"),
        (page.decimal(math.inf), "-"),
    ],
)  # fmt: skip
def test_numbers_are_printed_as_people_read_them(text, printed):
    assert text == printed


def test_a_row_that_does_not_fit_its_table_is_a_mistake():
    with pytest.raises(ValueError, match="table t: row 'a' has 2 cells; it must have 3, or 1 for a heading"):
        page.Grid("t", ("", "x", "y"), (("heading",), ("a", "1")))


def test_trades_are_grouped_by_what_they_have_in_common():
    trades = np.zeros(4, TRADE_DTYPE)
    trades["side"], trades["bars"], trades["pnl"] = [1, 1, -1, -1], [1, 4, 5, 300], [2.0, -1.0, 3.0, -4.0]
    trades["reason"], trades["regime"] = [0, 1, 1, 6], [-1, 0, 0, 7]
    trades["quantity"], trades["entry_price"] = 2.0, 10.0
    groups = breakdown.trade_groups(trades, {0: "calm"})
    named = {kind: {g.name: (g.n_trades, g.pnl) for g in members} for kind, members in groups.items()}
    assert named == {
        "side": {"long": (2, 1.0), "short": (2, -1.0)},
        "reason of the exit": {"signal": (1, 2.0), "stop": (2, 2.0), "halt": (1, -4.0)},
        "regime at the decision": {"no regime": (1, 2.0), "calm": (2, 2.0), "regime 7": (1, -4.0)},
        "holding time": {
            "1 bar": (1, 2.0), "2 to 4 bars": (1, -1.0), "5 to 16 bars": (1, 3.0),
            "257 bars or more": (1, -4.0),
        },
    }  # fmt: skip
    assert groups["side"][0].mean_return == pytest.approx(0.025)
    assert REASONS[6] == "halt"

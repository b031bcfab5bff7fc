"""Forecasters side by side: who knows something wins, who knows nothing is told so, and nobody sees ahead."""

import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import metrics
from backtest.bootstrap import stationary_rows
from backtest.costs import Costs
from configs.load import Config, ConfigError, PluginConfig, load
from experiments import runs
from experiments.compare import main
from experiments.ledger import Ledger
from forecasters import comparison, comparison_candidates, comparison_rows, running
from forecasters.comparison_candidates import Candidate, Predictions, everyone, resolved
from forecasters.comparison_measures import (
    TRADING,
    Account,
    Skill,
    account_intervals,
    calibration_curve,
    correlations,
    skill_intervals,
)
from forecasters.comparison_rows import held, regimes_of, rows_of_trades, same_rows_of, traded
from forecasters.comparison_settings import CausalRegimesConfig, CompareConfig
from forecasters.forecaster import FORECASTERS, Forecaster, read_forecaster, write_forecaster
from forecasters.measures import FIGURES, decided, measured
from market.bars import OHLCV, Bars
from market.table import DataError
from regimes.refits import RefitSchedule
from tests.unpainted import unpainted

HOUR = 3_600_000_000_000
N = 3000  # hours: four months
START = 1_546_300_800  # 2019, seconds
ALTERED = 2600  # row from which the other market differs: inside the last fold but one
TINY = [
    "features={names: [return_1, return_24, hour_sin, hour_cos, volatility_24, parkinson_24]}",
    "schedule={span: month, train_spans: 2, embargo_bars: 24}",
    "regimes.detector={name: volatility, baseline_bars: 200}",
    "regimes.every_bars=500",
    "promotion.trades=40",
    "bootstrap_paths=40",
]
# Enough of the synthetic market for a fold, and cheap to look at.
SMALL = [
    "--set", "features={names: [return_1, volatility_24]}", "--set", "market.synthetic.n_bars=3000",
    "--set", "schedule={span: month, train_spans: 2, embargo_bars: 24}",
]  # fmt: skip


# Figures


@st.composite
def answers(draw):
    m = draw(st.integers(2, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    probabilities = random.dirichlet([1.0, 1.0, 1.0], m)
    if draw(st.booleans()):  # equal answers share their ranks
        probabilities = np.round(probabilities, 1)
        probabilities[:, 1] = 1.0 - probabilities[:, 0] - probabilities[:, 2]
        probabilities = np.abs(probabilities)
    target = random.integers(0, draw(st.integers(1, 3)), m).astype(np.int8)
    ret = np.round(random.normal(size=m), draw(st.integers(0, 3)))
    return Skill(probabilities, decided(probabilities), target, ret), random


@settings(max_examples=25, deadline=None)
@given(answers())
def test_a_mixture_of_rows_has_the_figures_that_scikit_learn_finds_on_those_rows(case):
    skill, random = case
    m = len(skill.target)
    for rows in (np.arange(m), np.sort(random.integers(0, m, m))):
        expected = measured(
            *(part[rows] for part in (skill.probabilities, skill.decision, skill.target, skill.ret))
        )
        found = skill.of(np.bincount(rows, minlength=m).astype(np.float64))
        for name, value in zip(FIGURES, found, strict=True):
            if expected[name] is None and name == "information_coefficient":
                continue  # two rows have no rank correlation there, and here one of 1 or -1
            assert value == pytest.approx(
                np.nan if expected[name] is None else expected[name], abs=1e-9, nan_ok=True
            ), name


def account(random, m=120, t=25):
    return Account(
        random.normal(0.0, 0.01, m), np.abs(random.normal(size=m)), random.choice([-1.0, 0.0, 1.0], m),
        np.sort(random.integers(0, m, t)), random.normal(0.001, 0.01, t), 8760.0,
    )  # fmt: skip


def naively(one, rows):
    # Every row and every trade of it written out as often as it occurs.
    trades = [r for row in rows for at, r in zip(one.trade_row, one.trade_return, strict=True) if at == row]
    returns = one.returns[rows]
    return (
        metrics.total_return(returns),
        metrics.sharpe(returns, 8760.0),
        metrics.max_drawdown(returns),
        metrics.profit_factor(np.array(trades)),
        len(trades),
        metrics.hit_rate(np.array(trades)),
        metrics.annual_turnover(one.turnover[rows], 8760.0),
        metrics.time_in_market(one.exposure[rows]),
    )


def test_a_path_of_an_account_has_the_figures_of_its_rows_and_trades_written_out():
    random = np.random.default_rng(3)
    one = account(random)
    whole = list(one.figures().values())
    np.testing.assert_allclose(whole, naively(one, np.arange(120)), rtol=1e-9)
    np.testing.assert_allclose(one.of(np.arange(120)), whole, rtol=1e-9)
    for rows in stationary_rows(120, 12.0, random, 5):
        np.testing.assert_allclose(one.of(rows), naively(one, rows), rtol=1e-9)
    still = Account(np.zeros(50), np.zeros(50), np.zeros(50), np.array([], int), np.array([]), 8760.0)
    assert still.figures() == dict.fromkeys(TRADING, 0.0) | {
        "sharpe": None, "profit_factor": None, "trade_hit_rate": None,
    }  # fmt: skip
    np.testing.assert_array_equal(np.isnan(still.of(np.arange(50))), [0, 1, 0, 1, 0, 1, 0, 0])


def test_some_rows_of_an_account_keep_their_trades_and_lose_the_others():
    random = np.random.default_rng(4)
    one = account(random)
    kept = random.random(120) < 0.4
    part = one.take(kept)
    np.testing.assert_allclose(list(part.figures().values()), naively(one, np.flatnonzero(kept)), rtol=1e-9)
    by_entry = one.take(kept, np.zeros(25, np.int64))  # all of them were entered in the first row
    assert by_entry.trade_return.size == (25 if kept[0] else 0)


def test_intervals_hold_the_figure_get_narrower_with_rows_and_are_not_made_of_a_few_blocks():
    random = np.random.default_rng(5)

    def skill(m):
        target = random.integers(0, 3, m).astype(np.int8)
        p = random.dirichlet([1.0, 1.0, 1.0], m) + 0.5 * np.eye(3)[target]
        p /= p.sum(axis=1, keepdims=True)
        return Skill(p, decided(p), target, target - 1 + random.normal(size=m))

    widths = []
    for m in (300, 3000):
        one = skill(m)
        (found,) = skill_intervals([one], 8.0, 100, np.random.default_rng(1))
        assert set(found) == set(FIGURES)
        for name, (low, high) in found.items():
            assert low <= high
            if name != "calibration_error":  # an error of resampled rows is larger than that of the rows
                assert low <= one.figures()[name] <= high, name
        widths.append(found["f1_macro"][1] - found["f1_macro"][0])
    assert widths[1] < 0.6 * widths[0]
    assert skill_intervals([skill(100)], 30.0, 100, random) == [{}]
    books = [account(random), account(random)]
    first, second = account_intervals(books, 6.0, 100, np.random.default_rng(1))
    assert set(first) == set(TRADING)
    assert first["sharpe"][0] < books[0].figures()["sharpe"] < first["sharpe"][1]
    assert first["net_return"] != second["net_return"]
    assert account_intervals(books, 60.0, 100, random) == [{}, {}]


def test_longer_blocks_widen_the_interval_of_rows_that_resemble_each_other():
    random = np.random.default_rng(6)
    target = np.repeat(random.integers(0, 3, 100), 20).astype(np.int8)
    decision = np.where(np.repeat(random.random(100) < 0.5, 20), target, (target + 1) % 3).astype(np.int8)
    one = Skill(np.full((2000, 3), 1 / 3), decision, target, target - 1.0)
    widths = [
        np.ptp(skill_intervals([one], block, 100, np.random.default_rng(1))[0]["f1_macro"])
        for block in (1.0, 40.0)
    ]
    assert widths[1] > 2.5 * widths[0]


def test_the_calibration_curve_is_that_of_scikit_learn():
    from sklearn.calibration import calibration_curve as theirs

    random = np.random.default_rng(7)
    probability = random.beta(2.0, 3.0, 500)
    happened = random.random(500) < probability**2
    found = calibration_curve(probability, happened)
    frequency, mean = theirs(happened, probability, n_bins=10)
    np.testing.assert_allclose([one["frequency"] for one in found], frequency)
    np.testing.assert_allclose([one["probability"] for one in found], mean)
    assert sum(one["rows"] for one in found) == 500
    assert [one["rows"] for one in calibration_curve(np.array([0.0, 1.0]), np.array([False, True]))] == [1, 1]


def test_what_does_not_vary_is_correlated_with_nothing():
    random = np.random.default_rng(8)
    a, b = random.normal(size=(2, 100))
    found = correlations({"a": a, "still": np.ones(100), "b": a + b})
    assert found["a"]["a"] == pytest.approx(1.0)
    assert found["a"]["b"] == pytest.approx(found["b"]["a"])
    assert found["a"]["b"] == pytest.approx(np.corrcoef(a, a + b)[0, 1])
    assert set(found["still"].values()) == {None}
    assert found["a"]["still"] is None


# The signal


def held_naively(decision, time, span):
    found = []
    for t in range(len(decision)):
        position = 0
        for s in range(t, -1, -1):
            if decision[s] != 0:
                position = decision[s] if time[t] - time[s] < span else 0
                break
        found.append(position)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-1, 0, 0, 0, 1]), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(0, 2**32),
)
def test_a_call_is_held_for_its_horizon_or_until_the_opposite_one(calls, span, seed):
    decision = np.array(calls, np.int8)
    time = np.cumsum(np.random.default_rng(seed).choice([1, 1, 1, 5], len(calls)))
    found = held(decision, time, span)
    np.testing.assert_array_equal(found, held_naively(decision, time, span))
    cut = len(calls) // 2
    np.testing.assert_array_equal(held(decision[:cut], time[:cut], span), found[:cut])


def candidate(bars, rows, decision, name="one", family="toy", **changes):
    m = len(rows)
    parts = {
        "time": bars.time[rows],
        "fold": np.full(m, bars.time[rows[0]]),
        "probabilities": np.full((m, 3), 1 / 3),
        "decision": np.asarray(decision, np.int8),
        "label": np.zeros(m, np.int8),
        "known": np.ones(m, np.bool_),
        "ret": np.zeros(m),
    }
    label = SimpleNamespace(label=SimpleNamespace(kind="triple_barrier"))
    return Candidate(name, family, f"run-{name}", label, Predictions(**parts | changes))


def test_a_lonely_call_trades_the_bars_that_its_label_is_about_and_pays_for_it(make_bars):
    bars = make_bars(300)
    rows = np.arange(100, 200)
    decision = np.ones(100)
    decision[20], decision[60], decision[62] = 2, 0, 2  # up; down, and two bars later up
    config = CompareConfig(forecasters=("majority",))
    found = same_rows_of(bars, "4h", [candidate(bars, rows, decision)])
    result = traded(found, 0, (np.arange(300) % 3).astype(np.int8), config)
    entered, left = rows_of_trades(result, bars.interval_ns)
    opens = bars.column("open")
    assert result.trades["side"].tolist() == [1, -1, 1]
    assert entered.tolist() == [21, 61, 63]  # the open after the call
    assert left.tolist() == [25, 63, 67]
    np.testing.assert_array_equal(result.trades["entry_price"], opens[100 + entered])
    np.testing.assert_array_equal(result.trades["exit_price"], opens[100 + left])
    assert result.trades["bars"].tolist() == [4, 2, 4]
    assert result.trades["regime"].tolist() == [(100 + row - 1) % 3 for row in entered]
    assert (result.trades["fees"] > 0).all()
    gross = np.prod(opens[100 + left[:1]] / opens[100 + entered[:1]])
    assert np.prod(1.0 + result.curve.column("net_return")[:26]) < gross
    assert not result.curve.column("exposure")[:21].any()


def test_a_position_at_the_end_is_closed_in_the_last_row(make_bars):
    bars = make_bars(300)
    decision = np.ones(50)
    decision[-2] = 2
    found = same_rows_of(bars, "4h", [candidate(bars, np.arange(100, 150), decision)])
    result = traded(found, 0, np.zeros(300, np.int8), CompareConfig(forecasters=("majority",)))
    entered, left = rows_of_trades(result, bars.interval_ns)
    assert (entered.tolist(), left.tolist()) == ([49], [49])


def test_an_account_that_costs_have_eaten_up_trades_again_in_the_next_fold(make_bars):
    bars = make_bars(900)
    decision = np.where(np.arange(800) % 2, 2, 0)  # pays for two sides at every open
    fold = np.repeat(bars.time[[100, 700]], [600, 200])
    found = same_rows_of(bars, "4h", [candidate(bars, np.arange(100, 900), decision, fold=fold)])
    config = CompareConfig(forecasters=("majority",), costs=Costs(fee_bps=200.0))
    result = traded(found, 0, np.zeros(900, np.int8), config)
    np.testing.assert_array_equal(result.curve.time, bars.time[100:])
    exposed = result.curve.column("exposure") != 0
    assert not exposed[590:600].any()  # ruined
    assert exposed[601:700].all()
    entered, left = rows_of_trades(result, bars.interval_ns)
    assert (np.diff(entered) > 0).all()
    assert not ((entered < 600) & (left >= 600)).any()
    later = same_rows_of(bars, "4h", [candidate(bars, np.arange(700, 900), decision[600:])])
    alone = traded(later, 0, np.zeros(900, np.int8), config)
    np.testing.assert_array_equal(
        alone.curve.column("net_return")[4:], result.curve.column("net_return")[604:]
    )


# The same rows for all


def test_rows_that_one_has_not_answered_count_for_nobody(make_bars):
    bars = make_bars(300)
    holed = np.full((100, 3), 1 / 3)
    holed[:10] = np.nan
    known = np.ones(70, np.bool_)
    known[-3:] = False
    one = candidate(bars, np.arange(100, 200), np.full(100, 2), probabilities=holed)
    two = candidate(bars, np.arange(130, 200), np.zeros(70), "two", known=known)
    with pytest.raises(DataError, match="two foretells other labels than one"):
        same_rows_of(bars, "4h", [one, two])
    two = candidate(bars, np.arange(105, 200), np.zeros(95), "two")
    found = same_rows_of(bars, "4h", [one, two])
    assert found.span == slice(105, 200)
    assert found.answered.tolist() == [False] * 5 + [True] * 90
    np.testing.assert_array_equal(found.decisions[:, :5], 1)
    np.testing.assert_array_equal(found.decisions[:, 5:], [[2] * 90, [0] * 90])
    with pytest.raises(DataError, match="one, far have no test rows in common"):
        same_rows_of(bars, "4h", [one, candidate(bars, np.arange(20, 60), np.ones(40), "far")])
    folds = np.repeat(bars.time[[105, 150]], [45, 50])
    with pytest.raises(DataError, match="was trained anew at other times"):
        same_rows_of(bars, "4h", [one, candidate(bars, np.arange(105, 200), np.ones(95), "two", fold=folds)])
    with pytest.raises(DataError, match="another clock"):
        same_rows_of(make_bars(300, start=150), "4h", [one])


def test_the_regime_of_a_row_is_what_was_known_at_its_close_and_one_of_hindsight_is_caught(
    make_bars, monkeypatch
):
    bars, row = make_bars(1500, seed=2), 1200
    values = bars.values.copy()
    values[row:, :4] *= np.linspace(1.0, 3.0, 1500 - row)[:, None]
    values[row:, 1] *= 1.1
    other = Bars(bars.time, values, bars.names, symbol=bars.symbol, interval_ns=bars.interval_ns)
    config = CausalRegimesConfig(detector=PluginConfig(name="volatility", baseline_bars=200), every_bars=150)
    before, after = (regimes_of(one, 600, config) for one in (bars, other))
    np.testing.assert_array_equal(before[:row], after[:row])
    assert (before[row:] != after[row:]).any()
    assert (before[:600] == -1).all()
    assert (before[620:] >= 0).all()
    assert len(set(before[620:])) > 1

    def at_the_end(time, first_bars, every_bars):
        schedule = RefitSchedule(first_bars=len(time), every_bars=every_bars)
        (whole,) = schedule.resolve(time)
        return (whole._replace(used_from=int(time[first_bars])),)

    # A detector that was fitted on all rows and answers earlier ones knows the future.
    monkeypatch.setattr(
        comparison_rows,
        "fit_schedule",
        lambda name, settings, features, schedule: _Hindsight(name, settings, features, schedule.first_bars),
    )
    before, after = (regimes_of(one, 600, config) for one in (bars, other))
    assert (before[:row] != after[:row]).any()
    assert (regimes_of(bars, 600, None) == -1).all()


class _Hindsight:
    def __init__(self, name, settings, features, first):
        from regimes.detector import DETECTORS

        self.detector = DETECTORS.create(name, settings).fit(features)

    def fresh(self):
        return self.detector.fresh()


# Whole comparisons


def market(path, altered=False):
    """Write bars that rise in the first half of each day and fall in the second, and noise."""
    random = np.random.default_rng(11)
    hour = np.arange(N) % 24
    move = np.where(hour < 12, 0.004, -0.004) + random.normal(0.0, 0.004, N)
    if altered:
        move[ALTERED:] = np.random.default_rng(12).normal(0.0, 0.02, N - ALTERED)
    close = 100.0 * np.exp(np.cumsum(move))
    before = np.r_[100.0, close[:-1]]
    wide = np.exp(0.001 + 0.002 * random.random(N))
    high, low = np.maximum(before, close) * wide, np.minimum(before, close) / wide
    lines = [
        ",".join(map(repr, (START + 3600 * i, *row)))
        for i, row in enumerate(
            zip(*(c.tolist() for c in (before, high, low, close)), [1e6] * N, strict=True)
        )
    ]
    path.write_text("\n".join(["timestamp," + ",".join(OHLCV), *lines]) + "\n")
    return path


class StubbornConfig(Config):
    """Settings of the toy."""

    up: float = 0.6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two markets, and forecasters of a user: one that knows nothing, one that refuses."""
    folder = tmp_path_factory.mktemp("comparison")
    market(folder / "BTCUSDT_1h.csv")
    market(folder / "altered_1h.csv", altered=True)
    FORECASTERS.names()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FORECASTERS, "_plugins", dict(FORECASTERS._plugins))
        patch.setattr(FORECASTERS, "_tags", dict(FORECASTERS._tags))
        code = runs.code_version()  # that of the moment, should somebody edit a file in the meantime
        for module in (runs, running, comparison_candidates):
            patch.setattr(module, "code_version", lambda: code)

        class Stubborn(Forecaster):
            Config = StubbornConfig
            calibrated = False

            def fit(self, train, validation, *, seed, told=None):
                return self

            def predict(self, windows):
                rest = (1.0 - self.config.up) / 2.0
                return np.tile([rest, rest, self.config.up], (len(windows), 1))

            def save(self, path):
                write_forecaster(path, "stubborn", self.config)

            @classmethod
            def load(cls, path):
                return cls(read_forecaster(path, "stubborn").config(StubbornConfig))

        class Picky(Stubborn):
            def fit(self, train, validation, *, seed, told=None):
                raise DataError("forecaster picky: there is no order flow")

        FORECASTERS.register("stubborn", family="toy")(Stubborn)
        FORECASTERS.register("picky", family="toy")(Picky)
        (folder / "stubborn.yaml").write_text("name: stubborn\nup: 0.7\n")
        yield folder


def compare(root, *arguments, settings=TINY):
    """Return the status, and the run that was made; if none was, the only one there is."""
    given = [part for setting in settings for part in ("--set", setting)]
    before = set(root.glob("compare-*"))
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--runs", str(root), *given])
    made = set(root.glob("compare-*")) - before or before
    return end.value.code, made.pop() if len(made) == 1 else None


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def columns_of(path):
    table = pq.read_table(path)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


@pytest.fixture(scope="module")
def compared(place):
    """The folder of one comparison, pictures and all, and what it said."""
    forecasters = f"logistic,{place / 'stubborn.yaml'}"
    bars = ("--bars", str(place / "BTCUSDT_1h.csv"))
    code, folder = compare(place / "whole" / "runs", "--forecasters", forecasters, *bars)
    assert code == 0
    return folder


def test_who_knows_something_wins_and_who_knows_nothing_is_said_to_fail(compared):
    found = report_of(compared)
    group = found["horizons"]["4h"]
    assert list(group["models"]) == ["majority", "last_sign", "ar1", "logistic", "stubborn"]
    knows, stubborn = group["models"]["logistic"], group["models"]["stubborn"]
    assert stubborn["settings"] == {"up": 0.7}
    assert knows["passes"] is True
    assert knows["fails"] == []
    assert knows["figures"]["f1_macro"] > 0.45
    assert set(knows["leads"]) == {"majority", "last_sign", "ar1"}
    assert all(lead["p"] < 0.05 < lead["lead"] for lead in knows["leads"].values())
    assert stubborn["passes"] is False
    assert "F1 macro is 0." in stubborn["fails"][0]
    assert any(one.startswith("does not lead majority") for one in stubborn["fails"])
    assert group["best"] == dict.fromkeys(group["best"], "logistic")
    assert [one["passes"] for one in group["models"].values() if one["naive"]] == [None] * 3
    text = (compared / "report.md").read_text()
    assert "- passes: logistic\n" in text
    assert "- **fails: stubborn** (F1 macro is 0." in text
    assert "- promoted by the guardrails: logistic\n" in text


def test_a_refused_promotion_shows_each_reason_and_a_promotion_none(compared):
    models = report_of(compared)["horizons"]["4h"]["models"]
    assert models["logistic"]["promotion"]["promoted"] is True
    assert models["logistic"]["promotion"]["reasons"] == []
    refused = models["stubborn"]["promotion"]
    assert refused["promoted"] is False
    folds = len(report_of(compared)["horizons"]["4h"]["folds"])  # it goes long once in each
    assert f"trades: {folds}, must be at least 40" in refused["reasons"]
    text = (compared / "report.md").read_text()
    after = text.partition("**stubborn: refused**\n")[2]
    for reason in refused["reasons"]:
        assert f"\n- {reason}\n" in after
    assert "**logistic: promoted**\n\n- PSR" in text


def test_figures_are_those_of_the_rows_that_the_run_keeps(compared):
    from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

    found = report_of(compared)["horizons"]["4h"]
    rows = columns_of(compared / "predictions" / "4h.parquet")
    known = ~np.isnan(rows["label"]) & ~np.isnan(rows["logistic: decision"])
    target = rows["label"][known]
    table = columns_of(compared / "figures.parquet")
    for name, one in found["models"].items():
        decision = rows[f"{name}: decision"][known]
        p = np.column_stack([rows[f"{name}: p_{c}"][known] for c in ("down", "none", "up")])
        figures = one["figures"]
        assert figures["f1_macro"] == pytest.approx(f1_score(target, decision, average="macro"))
        assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, decision))
        assert figures["log_loss"] == pytest.approx(log_loss(target, p, labels=[-1, 0, 1]))
        returns = rows[f"{name}: net_return"]
        assert figures["net_return"] == pytest.approx(np.prod(1.0 + returns) - 1.0)
        assert figures["exposure"] == pytest.approx((rows[f"{name}: exposure"] != 0).mean())
        for fold, group in found["folds"].items():
            inside = rows["fold"].astype("datetime64[D]") == np.datetime64(fold)
            both = inside & known
            part = group["models"][name]["figures"]
            assert group["rows"] == both.sum()
            assert part["f1_macro"] == pytest.approx(
                f1_score(
                    rows["label"][both], rows[f"{name}: decision"][both], average="macro", labels=[-1, 0, 1],
                    zero_division=0.0,
                )
            )  # fmt: skip
            assert part["net_return"] == pytest.approx(np.prod(1.0 + returns[inside]) - 1.0)
        earlier = np.r_[None, rows["regime"][:-1]]  # a return belongs to what was known before its bar
        for regime, group in found["regimes"].items():
            assert group["rows"] == ((rows["regime"] == regime) & known).sum()
            part = group["models"][name]["figures"]
            assert part["net_return"] == pytest.approx(np.prod(1.0 + returns[earlier == regime]) - 1.0)
        for scope in ("folds", "regimes"):
            trades = [g["models"][name]["figures"]["trades"] for g in found[scope].values()]
            assert sum(trades) <= figures["trades"] <= sum(trades) + (scope == "regimes")
        this = (table["model"] == name) & (table["scope"] == "all")
        listed = dict(zip(table["figure"][this], table["value"][this], strict=True))
        assert listed["f1_macro"] == figures["f1_macro"]
        low, high = one["intervals"]["f1_macro"]
        assert low <= figures["f1_macro"] <= high
    assert len(found["folds"]) >= 2
    assert len(found["regimes"]) >= 2
    assert found["mean_block"] >= found["horizon_bars"]
    signals = found["correlation"]["signals"]
    score = {n: (rows[f"{n}: p_up"] - rows[f"{n}: p_down"])[known] for n in ("logistic", "ar1")}
    assert signals["logistic"]["ar1"] == pytest.approx(np.corrcoef(*score.values())[0, 1])
    assert signals["stubborn"]["logistic"] is None


def test_everything_is_said_to_be_out_of_fold_and_stays_in_the_folder(compared):
    text = (compared / "report.md").read_text()
    assert "out of fold" in text.splitlines()[0]
    for line in text.splitlines():
        if line.startswith(("## ", "### ")) and "measured" not in line:
            assert "out of fold" in line
        assert (
            "](" not in line or (compared / line.partition("](")[2].partition(")")[0]).stat().st_size > 5000
        )
    names = {path.name for path in (compared / "plots").iterdir()}
    assert names == {f"4h_{one}.png" for one in ("figures", "calibration", "equity", "parts", "correlation")}
    assert {path.name for path in compared.iterdir()} >= {
        "config.yaml", "manifest.json", "report.md", "report.json", "figures.parquet", "candidates",
    }  # fmt: skip
    assert len(list((compared / "candidates").iterdir())) == 5


def test_the_trial_ledger_counts_the_models_and_not_the_baselines(compared):
    found = report_of(compared)
    ledger = Ledger(compared.parent.parent / "ledger.sqlite").summary(found["data"]["fingerprint"])
    assert found["trials"]["counted"] == ledger.n_unique == 2
    assert found["horizons"]["4h"]["models"]["logistic"]["deflated"] is not None


def test_a_comparison_that_was_killed_goes_on_and_loses_one_fold(
    compared, place, tmp_path, capsys, monkeypatch, blank_pictures
):
    fit, fitted = running.fit_fold, []

    def stops(ground, split, config, number, told):
        if config.model.name == "logistic" and number == 1:
            raise KeyboardInterrupt
        fitted.append((config.model.name, number))
        return fit(ground, split, config, number, told)

    monkeypatch.setattr(running, "fit_fold", stops)
    forecasters = f"logistic,{place / 'stubborn.yaml'}"
    bars = ("--bars", str(place / "BTCUSDT_1h.csv"))
    code, folder = compare(tmp_path / "runs", "--forecasters", forecasters, *bars)
    assert code == 130
    assert not (folder / "report.json").exists()
    assert f"experiments.compare --runs {tmp_path / 'runs'} --resume {folder.name}" in capsys.readouterr().out
    before = list(fitted)
    fitted.clear()
    monkeypatch.setattr(
        running,
        "fit_fold",
        lambda *given: fitted.append((given[2].model.name, given[3])) or fit(*given),
    )
    code, resumed = compare(tmp_path / "runs", "--resume", "latest", settings=[])
    assert code == 0, capsys.readouterr().err
    assert resumed == folder
    assert not set(before) & set(fitted)
    assert sorted({name for name, _ in fitted}) == ["logistic", "stubborn"]
    one, other = (report_of(each)["horizons"]["4h"] for each in (compared, resumed))
    for group in (one, other):
        for model in group["models"].values():
            del model["run"]
    assert one == other
    for name in ("figures.parquet", "predictions/4h.parquet"):
        assert (compared / name).read_bytes() == (folder / name).read_bytes()
    capsys.readouterr()
    code, _ = compare(tmp_path / "runs", "--resume", folder.name, settings=[])
    assert code == 2
    assert "this run is finished" in capsys.readouterr().err


def again(folder, runs_of=("logistic", "stubborn")):
    """Compare the trainings of a comparison once more; nothing is trained."""
    candidates = folder / "candidates"
    names = [next(candidates.glob(f"forecast-{name}_*")).name for name in runs_of]
    rest = [one for one in TINY if not one.startswith(("features", "schedule"))]
    code, found = compare(candidates, "--runs-of", ",".join(names), settings=rest)
    assert code == 0
    return found


def differing(one, other):
    """Return the columns that differ before the markets do."""
    rows = [columns_of(folder / "predictions" / "4h.parquet") for folder in (one, other)]
    moment = np.datetime64(START + 3600 * (ALTERED + 1), "s")  # the close of the first altered bar
    before = rows[0]["time"] < moment
    assert before.any()
    assert not before.all()
    found = set()
    for name in rows[0]:
        a, b = (each[name][before] for each in rows)
        if name not in ("label", "ret"):  # the truth lies ahead, and may
            same = np.array_equal(a, b) if a.dtype == object else np.array_equal(a, b, equal_nan=True)
            found |= set() if same else {name}
    return found


def test_nothing_before_a_moment_depends_on_what_comes_after_it_and_what_looks_ahead_is_caught(
    compared, place, tmp_path, monkeypatch, blank_pictures
):
    bars = ("--bars", str(place / "altered_1h.csv"))
    forecasters = f"logistic,{place / 'stubborn.yaml'}"
    code, other = compare(tmp_path / "runs", "--forecasters", forecasters, *bars, "--symbol", "BTC/USDT")
    assert code == 0
    assert differing(compared, other) == set()
    one, another = (report_of(folder)["horizons"]["4h"]["folds"] for folder in (compared, other))
    first, *_, last = one
    assert one[first] == another[first]  # with intervals and all
    assert one[last] != another[last]
    real = comparison_rows.held
    monkeypatch.setattr(
        comparison_rows, "held", lambda decision, time, span: real(np.roll(decision, -24), time, span)
    )
    leaking = differing(*(again(folder, ("logistic",)) for folder in (compared, other)))
    assert {"logistic: exposure", "logistic: net_return"} <= leaking


def test_finished_trainings_are_compared_as_they_are(compared, place, capsys, monkeypatch, blank_pictures):
    monkeypatch.setattr(running, "fit_fold", None)  # whoever trains fails
    folder = again(compared, ("majority", "ar1", "logistic", "stubborn"))
    found, whole = (report_of(one)["horizons"]["4h"] for one in (folder, compared))
    assert list(found["models"]) == ["majority", "ar1", "logistic", "stubborn"]
    for name, one in found["models"].items():
        assert one["figures"] == whole["models"][name]["figures"]
    assert set(found["models"]["logistic"]["leads"]) == {"majority", "ar1"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(manifest["parents"]) == sorted({one["run"] for one in found["models"].values()})
    alone = report_of(again(compared, ("logistic",)))["horizons"]["4h"]["models"]["logistic"]
    assert alone["passes"] is False
    assert alone["fails"] == ["it was held against no naive baseline"]
    capsys.readouterr()
    candidates = compared / "candidates"
    for run_id, sentence in (
        ("forecast-none_20200101T000000Z", "no such run"),
        (folder.name, "is no finished training"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["--runs-of", run_id, "--runs", str(candidates)])
        assert end.value.code == 2
        assert sentence in capsys.readouterr().err


def test_a_finished_training_is_taken_where_settings_data_and_code_are_equal(
    compared, place, tmp_path, capsys, monkeypatch, blank_pictures
):
    fit, fitted = running.fit_fold, []
    monkeypatch.setattr(running, "fit_fold", lambda *given: fitted.append(given[2].model.name) or fit(*given))
    bars = ("--bars", str(place / "BTCUSDT_1h.csv"))
    few = [*TINY, "baselines=[majority]"]
    made = next((compared / "candidates").glob("forecast-logistic_*")) / "manifest.json"
    code, folder = compare(compared.parent, "--forecasters", "logistic", *bars, settings=few)
    assert code == 0
    assert fitted == []
    assert "equal settings, data and code" in capsys.readouterr().out
    config = load(CompareConfig, folder / "config.yaml", ["seed=8"])
    training = config.training(config.models["logistic"], "4h", "elsewhere")
    assert comparison_candidates._with_settings(compared / "candidates", training) == []  # another seed
    training = training.model_copy(update={"seed": 7})
    (run,) = comparison_candidates._with_settings(compared / "candidates", training)
    same = json.loads(made.read_text())["data"]
    assert comparison_candidates._alike(run, **same)
    for other in same:
        assert not comparison_candidates._alike(run, **{**same, other: "others"})
    monkeypatch.setattr(comparison_candidates, "code_version", lambda: {"sources": "other code"})
    assert not comparison_candidates._alike(run, **same)


def test_all_are_those_that_can_read_bars_and_who_is_left_out_is_said(monkeypatch):
    chosen, skipped = everyone()
    assert {"majority", "last_sign", "ar1", "logistic", "xgboost"} <= set(chosen)
    orders = [name for name in FORECASTERS.names() if FORECASTERS.tags(name)["family"] == "order_book"]
    for name in orders:
        assert name not in chosen
        assert "order books" in skipped[name]
    find = comparison_candidates.importlib.util.find_spec
    monkeypatch.setattr(
        comparison_candidates.importlib.util,
        "find_spec",
        lambda name: None if name == "torch" else find(name),
    )
    assert "extra conductor" in everyone()[1]["networks"]


def test_who_refuses_the_data_is_left_out_of_all_and_said_and_stops_the_rest_when_it_was_named(
    place, tmp_path, capsys, monkeypatch, blank_pictures
):
    known = {name: FORECASTERS._plugins[name] for name in ("majority", "stubborn", "picky")}
    monkeypatch.setattr(FORECASTERS, "_plugins", known)
    bars = ("--bars", str(place / "BTCUSDT_1h.csv"))
    few = [*TINY, "baselines=[majority]", "horizons=[4h, 6]", "regimes=null"]
    code, folder = compare(tmp_path / "runs", "--forecasters", "all", *bars, settings=few)
    assert code == 0, capsys.readouterr().err
    found = report_of(folder)
    assert found["skipped"]["picky"] == "forecaster picky: there is no order flow"
    assert (
        "- picky was left out: forecaster picky: there is no order flow" in (folder / "report.md").read_text()
    )
    assert list(found["horizons"]) == ["4h", "6"]
    assert list(found["horizons"]["6"]["models"]) == ["majority", "stubborn"]
    assert found["horizons"]["6"]["horizon_bars"] == 6
    assert found["horizons"]["4h"]["regimes"] == {}
    assert "No regimes were told apart." in (folder / "report.md").read_text()
    capsys.readouterr()
    code, _ = compare(tmp_path / "named", "--forecasters", "picky", *bars, settings=few)
    assert code == 2
    assert capsys.readouterr().err == "error: forecaster picky: there is no order flow\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--forecasters", "xgbost"], "no forecaster named 'xgbost'; did you mean xgboost?"),
        (["--forecasters", "logistic", "--horizons", "4h,4h"], "must name each of them once"),
        (["--forecasters", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["--forecasters", "logistic", "--set", "baselines=[logistic]"], "logistic is no naive forecaster"),
        (["--forecasters", "logistic", "--set", "schedule.span=week"], "schedule.span is 'week'"),
        (["--forecasters", "logistic", "--bars", "nowhere.csv"], "nowhere.csv"),
        (["--forecasters", "logistic", "--set", "tracking.mlflow=''"], "tracking.mlflow is empty text"),
        (["--set", "market.synthetic.n_bars=3000"], "give no fold"),
        (["--set", "regimes.detector={name: tarot}", *SMALL], "no detector named 'tarot'"),
        (["--set", "regimes.detector.columns=4", *SMALL], "columns is not a setting"),
        (["--set", "venue.kind=spot", *SMALL], "venue.kind is spot"),
        (["--runs-of", "one", "--forecasters", "all"], "--forecasters was given with --runs-of"),
        (["--runs-of", "one", "--horizons", "4h"], "--horizons was given with --runs-of"),
        (["--runs-of", "one"], "no such run"),
        (["--set", "label.horizon=8h"], "a comparison names its horizons under horizons"),
        (["--resume", "latest"], "holds no comparison to resume"),
        (["--resume", "latest", "--runs-of", "one"], "--runs-of was given with --resume"),
        (["--resume", "latest", "--set", "seed=1"], "--set was given with --resume"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_a_sentence_and_leaves_nothing(tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--runs", str(tmp_path / "runs")])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_two_files_of_one_forecaster_are_told_apart_by_their_names(place, tmp_path):
    for name, up in (("bold", 0.9), ("shy", 0.4)):
        (tmp_path / f"{name}.yaml").write_text(f"name: stubborn\nup: {up}\n")
    files = tuple(str(tmp_path / f"{name}.yaml") for name in ("bold", "shy"))
    found, _ = resolved(CompareConfig(forecasters=files))
    assert list(found.models) == ["majority", "last_sign", "ar1", "stubborn", "shy"]
    assert found.models["shy"].settings == {"up": 0.4}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shy.yaml").write_text("name: stubborn\nup: 0.5\n")
    with pytest.raises(ConfigError, match="two called shy"):
        resolved(CompareConfig(forecasters=(*files, str(tmp_path / "other" / "shy.yaml"))))


def test_the_packaged_settings_are_those_of_a_training(capsys):
    from forecasters.settings import ForecastConfig

    ours, theirs = load(CompareConfig, "compare.yaml"), load(ForecastConfig, "forecast.yaml")
    training = ours.training(theirs.model, "4h", theirs.runs)
    assert comparison_candidates.digest(training) == comparison_candidates.digest(theirs)
    assert ours.block(4) == 24.0
    assert ours.block(24) == 48.0  # never shorter than labels overlap


def test_predictions_that_are_no_later_than_their_training_are_refused(compared, tmp_path):
    import pyarrow as pa

    source = next((compared / "candidates").glob("forecast-logistic_*")) / "predictions" / "logistic.parquet"
    table = pq.read_table(source)
    path = tmp_path / "logistic.parquet"
    place = table.column_names.index("trained_through")
    pq.write_table(table.set_column(place, "trained_through", table["time"]), path)
    with pytest.raises(DataError, match="not out of fold"):
        comparison_candidates.read_predictions(path)
    pq.write_table(table.take(pa.array([1, 0])), path)
    with pytest.raises(DataError, match="times do not increase"):
        comparison_candidates.read_predictions(path)
    path.write_bytes(b"no")
    with pytest.raises(DataError, match="holds no predictions"):
        comparison_candidates.read_predictions(path)


def test_a_mirror_that_fails_is_a_warning_after_a_whole_report(compared, capsys, monkeypatch, blank_pictures):
    told = []

    def mirror(config, run, entry, children, files):
        assert (run.folder / "report.json").is_file()
        told.append((entry, children, files))
        return "MLflow at somewhere: the run is not mirrored"

    monkeypatch.setattr(comparison, "mirror", mirror)
    monkeypatch.setattr(comparison, "require_tracking", lambda config: None)
    monkeypatch.setitem(globals(), "TINY", [*TINY, "tracking.mlflow=http://localhost:1"])
    folder = again(compared, ("majority", "logistic"))
    assert "! MLflow at somewhere: the run is not mirrored" in capsys.readouterr().out
    ((entry, children, files),) = told
    assert entry.name == folder.name
    assert [one.name for one in children] == ["majority 4h", "logistic 4h"]
    assert children[1].metrics["f1_macro"] > 0.45
    assert all((folder / name).is_file() for name in files)


def test_the_equity_of_any_span_of_time_has_dates_below_it(tmp_path):
    from matplotlib.dates import AutoDateLocator, date2num

    from forecasters import comparison_figures as figures

    class Spans(AutoDateLocator):
        """The locator of the picture, asked for every span of up to ten years."""

        def __init__(self, **options):
            super().__init__(**options)
            start = datetime(2019, 10, 1)
            for months in range(1, 120):
                end = start + timedelta(days=30 * months)
                found = self.tick_values(start, end)  # a warning is an error
                assert 2 <= len(found) <= 13, months
                assert found[0] < date2num(end)

    with pytest.MonkeyPatch.context() as patch, unpainted():
        patch.setattr(figures, "AutoDateLocator", Spans)
        figures.draw_equity(np.arange(5) * HOUR, {"a": np.zeros(5)}, [], tmp_path / "a.png", "title")


def test_pictures_of_one_model_without_regimes_and_with_nothing_known_are_drawn(tmp_path):
    from forecasters import comparison_figures as figures

    none = dict.fromkeys((*FIGURES, *TRADING))
    one = {"figures": none, "intervals": {}, "calibration": {"down": [], "up": []}}
    path = tmp_path / "a.png"
    with unpainted():
        figures.draw_figures({"a": one}, [], path, "$title")
        figures.draw_calibration({"a": one["calibration"]}, ["a"], path, "title")
        figures.draw_equity(np.arange(5) * HOUR, {"a": np.full(5, -1.0)}, [], path, "title")
        figures.draw_parts({"2020-01-01": {"models": {"a": one}}}, {}, path, "title")
        alone = {"a": {"a": None}}
        figures.draw_correlation({"signals": alone, "errors": alone}, path, "title")
    assert path.stat().st_size

"""The laws L1 to L7, and S1, S5, S6 and S7, through ``python -m ensemble.validate`` and its files.

One small run on bars of a file; what it has left is held against the bars, the ledger and slow twins.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest.simulate import simulate
from configs.load import load
from ensemble import running
from ensemble.baselines import targets_on
from ensemble.settings import ValidateConfig
from ensemble.signals import Blend
from ensemble.strategy import Strategy
from ensemble.validate import main
from experiments.ledger import Ledger
from market.bars import OHLCV
from market.causal import transform
from market.features.pipeline import FeaturePipeline
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes.hindsight import backward_smoother
from tests.ensemble.recompute import mismatches
from tests.reference import evidence as twin
from tests.reference import regimes as naive
from tests.unpainted import unpainted

N, LONGER = 7_000, 10_500
#: A hidden Markov model whose densities are those of the textbook, so that its filter has a twin.
HMM = (
    "detector={name: hmm, level_columns: [parkinson_24], magnitude_columns: [], direction_columns: "
    "[efficiency_24, variance_ratio_96], observe_direction: true, seasonal: false, gain: 0.0, evidence: 1.0, "
    "fitter: numba, n_starts: 1, start_iterations: 2, n_iterations: 10}"
)
SETTINGS = (
    HMM, "folds={span: month, train_spans: 5, validation_spans: 1, embargo_bars: 24, latest: 2}",
    "specialists.hyperparameters={population_size: 16, n_generations: 2}",
    "specialists.fitness={folds: 4, min_trades: 2}", "specialists.generalist=false",
    "forecast_features.names=[return_1,return_24,zscore_24,volatility_24]",
    "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 4}]",
    "blender.name=regime_weighted", "rivals=[]", "random_routing.draws=0",
    "evidence={comparisons: false, paths: 100, overfitting_paths: 20}",
    "robustness={sigmas: [], cost_factors: [0.0, 1.0]}",
)  # fmt: skip
#: Where one fold of one member shows as much.
LEAST = ("forecasters=[]", "specialists.regimes=[trending]", "folds.latest=1")


def write(path, bars):
    opens = pa.array(bars.time - bars.interval_ns, pa.timestamp("ns", tz="UTC"))
    pq.write_table(pa.table({"timestamp": opens} | {name: bars.column(name) for name in OHLCV}), path)
    return path


def validate(folder, bars, *more):
    """The status, and the run on these bars."""
    path = write(folder / "synusdt_1h.parquet", bars)
    given = [part for setting in (*SETTINGS, *more) for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end, unpainted():
        main(["--bars", str(path), "--runs", str(folder / "runs"), "--workers", "serial", *given])
    found = sorted((folder / "runs").glob("validate-*"))
    return end.value.code, found[-1] if found else None


@pytest.fixture(scope="module")
def longer():
    return synthetic_market(SyntheticConfig(n_bars=LONGER, seed=5)).bars


@pytest.fixture(scope="module")
def bars(longer):
    return longer[:N]


@pytest.fixture(scope="module")
def run(bars, tmp_path_factory):
    code, folder = validate(tmp_path_factory.mktemp("laws"), bars)
    assert code == 0
    return folder


def report(run):
    return json.loads((run / "report.json").read_text())


def config_of(run):
    return load(ValidateConfig, run / "config.yaml")


def folds(run):
    """Of each fold its saved strategy, and the rows that teach, choose and judge."""
    for fold in report(run)["folds"]:
        strategy = Strategy.load(run / "strategies" / f"fold-{fold['number'] + 1:03d}")
        yield strategy, *(slice(*fold[name]) for name in ("learn", "validation", "test"))


def decisions(run):
    """What was decided in the test rows: time, and all columns as they were stored."""
    table = pq.read_table(run / "predictions/decisions.parquet")
    names = table.column_names[1:]
    values = np.column_stack([table[name].to_numpy() for name in names])
    return table["time"].cast("int64").to_numpy(), values, names


def decided(run, name):
    _, values, names = decisions(run)
    return values[:, names.index(name)]


# L1 and L2: bars that are not there yet change nothing


@pytest.mark.parametrize("future", ["cut off", "altered"])
def test_l1_l2_what_a_validation_has_decided_stays_when_later_bars_end_or_are_others(
    run, bars, future, tmp_path
):
    (_, test) = (one[-1] for one in folds(run))
    cut = (test.start + test.stop) // 2
    assert_past_is_kept(run, other_future(bars, cut, future), bars.time[cut - 1], tmp_path)


def other_future(bars, cut, future):
    if future == "cut off":
        return bars[:cut]
    values = bars.values.copy()
    values[cut:, :4] *= np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.03, N - cut)))[:, None]
    values[cut:, 4] *= 1000.0
    return replace(bars, values=values)


def assert_past_is_kept(run, other, until, folder, *more):
    code, again = validate(folder, other, *more)
    assert code == 0
    (time, values, names), (later, changed, columns) = decisions(run), decisions(again)
    assert names == columns
    kept = np.searchsorted(time, until, side="right")
    assert kept > 200
    np.testing.assert_array_equal(time[:kept], later[:kept])
    np.testing.assert_array_equal(values[:kept], changed[:kept])
    for one, two in zip(report(run)["folds"], report(again)["folds"], strict=True):
        assert one["fingerprint"] == two["fingerprint"]  # of every part, to the last bit


def test_l1_features_that_know_all_rows_would_be_seen(run, bars, tmp_path, monkeypatch):
    class WholeSample(FeaturePipeline):
        def update(self, new):
            table = super().update(new)
            size = np.nanmean(np.abs(table.values), axis=0)
            return replace(table, values=table.values / np.where(size > 0, size, 1.0))

    monkeypatch.setattr(running, "FeaturePipeline", WholeSample)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    code, leaking = validate(first, bars, *LEAST)
    assert code == 0
    (_, test) = (one[-1] for one in folds(run))
    cut = (test.start + test.stop) // 2
    with pytest.raises(AssertionError, match="not equal"):
        assert_past_is_kept(leaking, bars[:cut], bars.time[cut - 1], second, *LEAST)


# L3: where the bars began is forgotten


def late(strategy, bars, offset):
    return strategy.fresh().update(bars[offset:]).exposure[-1_000:]


def test_l3_a_strategy_of_the_run_decides_the_same_wherever_its_bars_began(run, longer):
    *_, (strategy, _, _, _) = folds(run)
    room = LONGER - 1_000 - strategy.warmup
    assert room > 1_000
    whole = late(strategy, longer, 0)
    assert np.count_nonzero(np.diff(whole)) > 20
    for offset in np.linspace(1, room, 10).astype(int):
        np.testing.assert_allclose(late(strategy, longer, offset), whole, rtol=1e-6, atol=0)
    # With less than the warm-up before them, they would not.
    assert not np.allclose(late(strategy, longer, LONGER - 1_500), whole, rtol=1e-6, atol=0)


# L4: one bar at a time


def streamed(strategy, bars, test, lost=None):
    """Decisions on test rows: what lies before them at once, then bar by bar as they would arrive."""
    one = strategy.fresh()
    one.update(bars[: test.start])
    return Blend.concat([one.update(bars[i : i + 1]) for i in range(test.start, test.stop) if i != lost])


@pytest.fixture(scope="module")
def live(run, bars):
    """The strategies of the run, loaded and fed one bar at a time through their test rows."""
    return [streamed(strategy, bars, test) for strategy, _, _, test in folds(run)]


def test_l4_bars_one_at_a_time_give_the_decisions_of_the_run_bit_for_bit(run, bars, live):
    time, values, names = decisions(run)
    table = Blend.concat(live).to_table()
    assert list(table.names) == names
    assert table.time.tobytes() == time.tobytes()
    assert table.values.tobytes() == values.tobytes()
    assert np.count_nonzero(np.diff(decided(run, "exposure"))) > 20
    # A feed that loses a bar decides otherwise afterwards.
    strategy, _, _, test = next(folds(run))
    lossy = streamed(strategy, bars, slice(test.start, test.start + 300), lost=test.start + 100)
    assert not np.array_equal(lossy.exposure[100:], live[0].exposure[101:300])


def test_l4_account_and_trades_of_the_run_follow_from_what_was_streamed(run, bars, live, tmp_path):
    chosen = config_of(run)
    rows = slice(report(run)["folds"][0]["test"][0], report(run)["folds"][-1]["test"][1])
    blend = Blend.concat(live)
    labels = np.full(rows.stop, -1, np.int8)
    labels[rows] = blend.label

    def traded(exposure, folder):
        targets = targets_on(bars[: rows.stop], rows, exposure)
        simulate(
            targets, bars[: rows.stop], chosen.costs, chosen.limits, venue=chosen.venue, rows=rows,
            regimes=labels,
        ).save(folder)  # fmt: skip
        return [(folder / name).read_bytes() for name in ("equity.parquet", "trades.parquet")]

    stored = [(run / "metrics" / name).read_bytes() for name in ("equity.parquet", "trades.parquet")]
    assert traded(blend.exposure, tmp_path / "same") == stored
    # What is decided a bar later is another account.
    late = np.concatenate([[0.0], blend.exposure[:-1]])
    for one, two in zip(traded(late, tmp_path / "late"), stored, strict=True):
        assert one != two


# L6: nobody answers a row that taught


def test_l6_every_part_of_a_strategy_had_seen_nothing_of_its_test(run, bars):
    stored = report(run)["folds"]
    for (strategy, learn, validation, test), fold in zip(folds(run), stored, strict=True):
        first = bars.time[test.start]
        seen = {
            "detector": strategy.detector.fitted_until,
            "blender": strategy.blender.fitted_until,
            **{source.name: source.fitted_until for source in strategy.sources},
        }
        assert seen["detector"] == bars.time[learn.stop - 1]
        assert seen["blender"] == bars.time[validation.stop - 1]
        assert max(seen.values()) == strategy.fitted_until == fold["fitted_until"] < first
        for name, member in fold["members"].items():
            assert member["fitted_until"] == seen[name]
        blend = strategy.fresh().update(bars[: test.stop])
        taught = bars.time[: test.stop] <= strategy.fitted_until
        assert not blend.exposure[taught].any()
        for source in strategy.sources:
            own = bars.time[: test.stop] <= source.fitted_until
            assert np.isnan(blend.signals.column(source.name)[own]).all()
        assert blend.exposure[test].any()


def test_l6_a_fold_that_has_seen_a_row_of_its_test_ends_the_command(bars, tmp_path, monkeypatch, capsys):
    honest = running.FoldJob.load

    def dishonest(self, number):
        result = honest(self, number)
        seen = int(self.bars.time[result.record.test.start])
        return replace(result, record=replace(result.record, fitted_until=seen))

    monkeypatch.setattr(running.FoldJob, "load", dishonest)
    code, folder = validate(tmp_path, bars, *LEAST)
    assert code == 2
    assert "something was fitted on a row of its test" in capsys.readouterr().err
    assert not (folder / "report.json").exists()


# L7: the regimes of decisions are filtered


def test_l7_the_regimes_of_the_decisions_are_those_of_the_textbook_filter(run, bars):
    strategy, _, _, test = next(folds(run))
    core = transform(FeaturePipeline(strategy.features), bars[: test.stop])
    detector = strategy.detector
    columns = [core.column(name) for name in detector.columns]
    known = ~np.isnan(np.column_stack(columns)).any(axis=1)
    begun = int(np.argmax(known))
    assert known[begun:].all()
    columns[0] = np.log(columns[0])
    x = (np.column_stack(columns)[begun:] - detector._observer.location) / detector._observer.scale
    densities = np.empty((len(x), 3))
    for j in range(3):
        away = np.clip(x, -5, 5) - detector.mean[j]
        distance = np.einsum("tf,fg,tg->t", away, np.linalg.inv(detector.covariance[j]), away)
        densities[:, j] = -0.5 * (distance + np.linalg.slogdet(2 * np.pi * detector.covariance[j])[1])
    filtered = naive.forward_filter(densities, detector.transition, detector.stationary)
    assert sorted(detector.regime) == [0, 1, 2]  # a state each, in this order
    stored = np.column_stack([decided(run, f"p_{name}") for name in ("ranging", "trending", "volatile")])
    stored = stored[: test.stop - test.start]
    np.testing.assert_allclose(stored, filtered[test.start - begun :], rtol=0, atol=1e-12)
    # With hindsight the same model says something else.
    smoothed = np.empty_like(filtered)
    backward_smoother(filtered, detector.transition, smoothed)
    assert np.abs(smoothed[test.start - begun :] - stored).max() > 0.1


# S1, S5, S6 and S7: what is counted, and what is computed from it


def test_s7_every_number_of_the_run_is_recomputed_from_its_files(run):
    lines, compared = mismatches(run)
    assert lines == []
    assert compared > 300


def test_s1_s5_the_deflation_of_the_report_is_that_of_the_paper_with_the_numbers_of_the_ledger(run, bars):
    found = report(run)
    counted = Ledger(run.parent.parent / "ledger.sqlite").summary(bars.fingerprint())
    assert counted.n_evaluated > 2 * 3 * 16  # folds, specialists, individuals
    skill = found["evidence"]["skill"]
    returns = pq.read_table(run / "metrics/equity.parquet")["net_return"].to_pylist()
    sharpe, skewness, kurtosis, lag = twin.moments(returns)
    year = found["metrics"]["strategy"]["bars_per_year"] ** 0.5
    trials = max(counted.n_unique, counted.n_effective)
    assert skill["n_trials"] == trials
    luck = twin.expected_max_sharpe(trials, counted.sharpe_variance)
    assert skill["luck"] == pytest.approx(luck * year, rel=1e-9)
    assert [skill[name] for name in ("sharpe", "skewness", "kurtosis", "autocorrelation")] == pytest.approx(
        [sharpe * year, skewness, kurtosis, lag], rel=1e-9
    )
    # One trial more or less is another number.
    assert twin.expected_max_sharpe(trials + 1, counted.sharpe_variance) * year != pytest.approx(
        skill["luck"], rel=1e-9
    )


def test_s5_s6_a_second_run_on_the_same_rows_is_counted_and_told(bars, tmp_path):
    found = []
    for seed in (7, 8):
        code, folder = validate(tmp_path, bars, *LEAST, f"seed={seed}")
        assert code == 0
        found.append(report(folder))
    one, two = (SimpleNamespace(**each["ledger"]["trials"]) for each in found)
    assert two.n_evaluated > 1.5 * one.n_evaluated
    assert (one.n_runs, two.n_runs) == (1, 2)
    assert [each["ledger"]["looks"]["earlier"] for each in found] == [0, 1]
    assert [each["evidence"]["skill"]["champions"] for each in found] == [1, 2]
    assert found[1]["evidence"]["skill"]["luck_unseen"] > found[0]["evidence"]["skill"]["luck_unseen"]
    said = " ".join((folder / "report.md").read_text().split())
    assert "These test rows have been looked at 1 time before" in said

"""The walk-forward: what is fitted when, what survives a kill, and that the future changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from compute.workers import SerialMapper
from configs.load import ConfigError, load
from ensemble.folds import FoldJob, cost_of, folds_of, roster_of
from ensemble.forecasts import require_forecasts, train_forecasters
from ensemble.joining import joined
from ensemble.settings import ValidateConfig
from experiments.ledger import Ledger
from experiments.runs import Run
from market.features.pipeline import FeaturePipeline
from market.sources.selection import select_bars
from market.table import DataError

SMALL = (
    "market.synthetic.n_bars=7400", "folds.span=month", "folds.train_spans=5", "folds.validation_spans=1",
    "folds.embargo_bars=24", "folds.latest=2", "detector.name=volatility",
    "specialists.hyperparameters.population_size=16", "specialists.hyperparameters.n_generations=2",
    "specialists.fitness.folds=4", "specialists.fitness.min_trades=2", "random_routing.draws=2",
    "forecast_features.names=[return_1,return_24,zscore_24,volatility_24]",
    "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 4}]",
)  # fmt: skip


def silent(*_):
    pass


def settings(*more):
    return load(ValidateConfig, "validate.yaml", [*SMALL, *more])


def job_of(config, folder, bars=None):
    bars = select_bars(config.market).bars if bars is None else bars
    core = FeaturePipeline(config.features).update(bars)
    wide = FeaturePipeline(config.forecast_features).update(bars) if config.forecasters else None
    splits = folds_of(bars, core.warmup, config)
    run = Run.open(folder / "runs", "validate", "test")
    forecasts = train_forecasters(run, config, bars, wide, {}, silent, silent)
    return FoldJob(run, config, bars, core, wide, forecasts, splits, {"data": bars.fingerprint()})


@pytest.fixture(scope="module")
def config():
    return settings()


@pytest.fixture(scope="module")
def job(config, tmp_path_factory):
    made = job_of(config, tmp_path_factory.mktemp("validation"))
    for number in range(len(made.splits)):
        made(number)
    return made


@pytest.fixture(scope="module")
def results(job):
    return [job.load(number) for number in range(len(job.splits))]


def test_every_fold_learns_chooses_and_answers_in_this_order(job, results):
    for split, result in zip(job.splits, results, strict=True):
        record = result.record
        assert (record.learn, record.validation, record.test) == (split.train, split.validation, split.test)
        assert record.learn.stop + job.config.folds.embargo_bars == record.validation.start
        assert record.validation.stop + job.config.folds.embargo_bars <= record.test.start
        assert record.fitted_until < job.bars.time[record.test.start]
        for member in record.members.values():
            assert member["fitted_until"] <= record.fitted_until
        assert record.absent == {}
        assert list(record.members) == ["ranging", "trending", "volatile", "logistic_4h"]


def test_every_answer_of_a_forecaster_is_stamped_earlier_than_its_row(job):
    (forecast,) = job.forecasts
    known = ~np.isnan(forecast.answers[:, 0])
    assert known.sum() > 2000
    assert (forecast.trained_through[known] < job.bars.time[known]).all()
    assert (forecast.trained_through[~known] == np.iinfo(np.int64).max).any()
    for rows, place in forecast.spans:
        assert forecast.model_of(rows.start) == forecast.model_of(rows.stop - 1) == place
    assert forecast.model_of(0) is None


def test_a_saved_strategy_decides_what_was_validated(job, results):
    for number, (split, result) in enumerate(zip(job.splits, results, strict=True)):
        strategy = job.strategy_of(number)
        assert strategy.fingerprint() == result.record.fingerprint
        stop = split.test.stop
        wide = job.wide[:stop]
        again = strategy.decide(job.bars[:stop], job.core[:stop], wide)[split.test]
        np.testing.assert_array_equal(again.exposure, result.blend.exposure)
        np.testing.assert_array_equal(again.signals.values, result.blend.signals.values)


def test_the_same_seed_fits_the_same_fold(job, results, config, tmp_path):
    other = job_of(config, tmp_path)
    with SerialMapper() as workers:
        again = other.fit(0, workers)
    assert again.record == results[0].record
    np.testing.assert_array_equal(again.blend.to_table().values, results[0].blend.to_table().values)
    np.testing.assert_array_equal(again.random_routing, results[0].random_routing)
    np.testing.assert_array_equal(again.generalist, results[0].generalist)
    assert again.rivals.keys() == results[0].rivals.keys() == set(config.rivals) - {"route"}


INFORMED = (
    "specialists.family={name: blend, signals: [return_4, return_24, zscore_24, zscore_96, ema_gap_8_24, "
    "ema_gap_48_192, di_balance_14, slope_24, macd_histogram, rsi_14, close_location_24, close_location_96, "
    "volume_balance_24, forecast_logistic_4h]}"
)


@pytest.fixture(scope="module")
def informed(tmp_path_factory):
    """A fold whose specialists read the forecaster."""
    made = job_of(settings(INFORMED, "folds.latest=1"), tmp_path_factory.mktemp("informed"))
    made(0)
    return made


def test_specialists_read_forecasts_that_are_out_of_fold(informed):
    result, split = informed.load(0), informed.splits[0]
    assert "weight_forecast_logistic_4h" in result.record.members["trending"]["genes"]
    stop = split.test.stop
    again = informed.strategy_of(0).decide(informed.bars[:stop], informed.core[:stop], informed.wide[:stop])
    np.testing.assert_array_equal(again[split.test].signals.values, result.blend.signals.values)
    # Another answer in the test rows is another signal of the specialists, and none in earlier rows.
    (forecast,) = informed.forecasts
    answers = forecast.answers.copy()
    answers[split.train] = 1.0 / 3.0
    other = replace(informed, forecasts=(replace(forecast, answers=answers),))
    with SerialMapper() as workers:
        blind = other.fit(0, workers)
    assert blind.record.members["trending"]["genes"] != result.record.members["trending"]["genes"]


def test_bars_after_a_fold_change_nothing_in_it(job, results, config, tmp_path):
    stop = job.splits[0].test.stop
    values = job.bars.values.copy()
    values[stop:, :4] *= 3.0
    values[stop:, 4] *= 0.2
    other = job_of(config, tmp_path, replace(job.bars, values=values))
    with SerialMapper() as workers:
        again = other.fit(0, workers)
    assert again.record == results[0].record
    np.testing.assert_array_equal(again.blend.to_table().values, results[0].blend.to_table().values)


def test_no_part_of_a_strategy_was_fitted_on_rows_of_a_later_part(job, results):
    time = job.bars.time
    for number, (split, result) in enumerate(zip(job.splits, results, strict=True)):
        strategy = job.strategy_of(number)
        assert strategy.detector.fitted_until == time[split.train.stop - 1]
        assert strategy.blender.fitted_until == time[split.validation.stop - 1]
        for source in strategy.sources:
            assert source.fitted_until == result.record.members[source.name]["fitted_until"]
            if source.kind == "specialist":
                assert source.fitted_until == time[split.train.stop - 1]


def test_bars_in_the_test_of_a_fold_change_nothing_that_was_fitted(job, results, config, tmp_path):
    test = job.splits[0].test
    values = job.bars.values.copy()
    values[test.start :, :4] *= np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.03, len(values))))[
        test.start :, None
    ]
    other = job_of(config, tmp_path, replace(job.bars, values=values))
    with SerialMapper() as workers:
        again = other.fit(0, workers)
    before = results[0].record
    assert again.record.fingerprint == before.fingerprint  # of every part, to the last bit
    assert (again.record.members, again.record.fitted_until) == (before.members, before.fitted_until)
    assert not np.array_equal(again.blend.signals.values, results[0].blend.signals.values, equal_nan=True)


def test_bars_inside_a_fold_would_change_it(job, results, config, tmp_path):
    # Negative control of the test above.
    values = job.bars.values.copy()
    rows = slice(job.splits[0].test.start - 2000, job.splits[0].test.start - 1500)
    values[rows, :4] *= np.linspace(1.0, 1.2, 500)[:, None]
    other = job_of(config, tmp_path, replace(job.bars, values=values))
    with SerialMapper() as workers:
        again = other.fit(0, workers)
    assert again.record.fingerprint != results[0].record.fingerprint


def test_what_a_kill_leaves_is_not_fitted_again(job, results):
    assert [job.is_done(number) for number in range(len(job.splits))] == [True, True]
    for number, result in enumerate(results):
        again = job.load(number)
        assert again.record == result.record
        np.testing.assert_array_equal(again.blend.exposure, result.blend.exposure)


def test_a_fold_of_other_data_is_refused(job):
    foreign = replace(job, identity={"data": "0" * 16})
    with pytest.raises(ConfigError, match="cannot go on bit for bit"):
        foreign.load(0)


def test_every_evaluation_is_counted_once(job, results, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    fingerprint = job.bars.fingerprint()
    for _ in range(2):  # a resumed run counts nothing twice
        for result in results:
            job.record_trials(ledger, fingerprint, result)
    found = ledger.summary(fingerprint)
    # Three specialists and a generalist, which has as many generations as the three together.
    expected = sum(search["n_evaluated"] for result in results for search in result.searches)
    assert found.n_evaluated == expected
    assert all(len(result.searches) == 4 for result in results)
    one, *_, all_of_them = (search["n_evaluated"] for search in results[0].searches)
    assert all_of_them > 2 * one


def test_the_joined_account_trades_every_test_row_once(job, results, config):
    found, draws = joined(config, job.bars, results)
    m = found.rows.stop - found.rows.start
    assert m == sum(split.test.stop - split.test.start for split in job.splits)
    assert len(found.result.curve) == len(found.blend) == m
    assert list(found.members) == ["ranging", "trending", "volatile", "logistic_4h"]
    assert len(draws) == 2
    for result in found.results().values():
        np.testing.assert_array_equal(result.curve.time, job.bars.time[found.rows])
    constant = found.baselines["constant exposure"].curve.column("exposure")
    assert abs(constant.mean() - found.result.curve.column("exposure").mean()) < 0.05
    assert found.baselines["buy and hold"].metrics.n_trades == 1


def test_members_are_listed_by_regime_and_champion():
    found = roster_of(settings("specialists.champions=2", "specialists.regimes=[trending]"))
    assert [member.name for member in found] == ["trending_1", "trending_2", "logistic_4h"]


def test_a_rival_without_enough_to_learn_from_is_left_out_and_named(job, config, tmp_path):
    short = settings("rivals=[equal,stack]", "forecasters=[]", "folds.latest=1")
    made = job_of(short, tmp_path)
    split = made.splits[0]
    few = slice(split.validation.start, split.validation.start + 150)
    split = replace(split, validation=few)
    with SerialMapper() as workers:
        found = replace(made, splits=(split,)).fit(0, workers)
    assert set(found.rivals) == {"equal"}
    assert "takes 200 at least" in found.record.told["rivals left out"]["stack"]


def test_costs_of_a_unit_of_turnover_are_those_of_its_liquidity(job, config):
    bars = job.bars[:100]
    turnover = float(np.mean(bars.column("close") * bars.column("volume")))
    level = [bucket for bucket in config.costs.impact if bucket.turnover <= turnover][-1]
    assert cost_of(config.costs, bars) == pytest.approx((11.0 + level.impact_bps) * 1e-4)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("folds.start=2031-01-01",), r"folds\.start is 2031-01-01; no fold of SYN/USDT 1h is tested after"),
        (("folds.train_spans=500",), r"walk-forward: bars from .* give no fold; a test month needs 501"),
    ],
)
def test_folds_that_cannot_be_are_one_sentence(more, sentence):
    config = settings(*more)
    with pytest.raises((ConfigError, DataError), match=sentence):
        folds_of(select_bars(config.market).bars, 100, config)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("folds.start=yesterday", "folds.start .*no day; it must be written like 2019-01-01"),
        ("specialists.regimes=[calm]", "calm"),
        ("forecasters=[{name: logistic, span: month}, {name: logistic, span: month}]", "must differ in name"),
        ("folds.span=quarter", "a whole number of folds"),
    ],
)
def test_wrong_settings_are_one_sentence(more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settings(more)


def test_a_forecaster_that_comes_too_late_is_one_sentence(job):
    with pytest.raises(ConfigError, match=r"logistic_4h answers from 20\d\d-\d\d-\d\d on, and the last fold"):
        require_forecasts(job.forecasts, [slice(0, 100)], job.bars.time)

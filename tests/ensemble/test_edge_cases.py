"""What markets, feeds and members do at the edges, through whole folds and the joined account.

Every fold here is fitted as ``python -m ensemble.validate`` fits it, on tiny settings. Each test says what
must hold, not only that nothing breaks.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from backtest.simulate import TARGETS
from compute.workers import SerialMapper
from configs.load import ConfigError, load
from ensemble import folds
from ensemble.blenders import BLENDERS
from ensemble.criteria import judge
from ensemble.evidence import weigh
from ensemble.folds import folds_of
from ensemble.forecasts import NEVER
from ensemble.joining import joined
from ensemble.robustness import push
from ensemble.settings import ValidateConfig
from ensemble.signals import Blend
from ensemble.sources import SpecialistSource
from experiments.ledger import Ledger
from market.table import DataError, Table
from regimes.detector import DETECTORS
from regimes.regime import Regime, RegimeProbabilities
from tests.ensemble.test_folds import job_of

#: Blenders that need some hundred rows with a known outcome.
LEARNS = {"bma", "stack", "validated"}
HOUR = 3_600_000_000_000
DWELL = 6
TINY = (
    "market.synthetic.n_bars=5088", "folds.span=month", "folds.train_spans=2", "folds.validation_spans=1",
    "folds.embargo_bars=24", "folds.latest=1", "detector={name: volatility, baseline_bars: 200}",
    "specialists.hyperparameters.population_size=16", "specialists.hyperparameters.n_generations=3",
    "specialists.fitness.folds=2",
    "specialists.fitness.min_trades=1", "specialists.generalist=false", "random_routing.draws=1",
    "rivals=[equal]", "forecasters=[]", "gating={confidence_power: 0, threshold: 0, wild_threshold: null}",
    "sizing={half_life_bars: 24, min_change: 0.01}", f"path.min_dwell_bars={DWELL}",
    "forecast_features.names=[return_1,return_24,zscore_24]",
)  # fmt: skip
LOGISTIC = "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 1}]"


def settings(*more):
    return load(ValidateConfig, "validate.yaml", [*TINY, *more])


def fitted(job, number=-1):
    with SerialMapper() as workers:
        return job.fit(range(len(job.splits))[number], workers)


def rows(blend):
    return blend.to_table().values


def require_sound(result, config, bars):
    """What holds of every fold and its account, whatever the market did; return the account."""
    blend, limits = result.blend, config.limits
    assert np.isfinite(blend.exposure).all()
    assert (np.abs(blend.exposure) <= min(limits.max_exposure, config.sizing.cap)).all()
    np.testing.assert_array_equal(blend.time, bars.time[result.record.test])
    assert result.record.fitted_until < blend.time[0]
    for j, name in enumerate(blend.signals.names):
        if name.upper() in Regime.__members__:
            asleep = blend.label != int(Regime.of(name))
            assert not np.nan_to_num(blend.signals.values[asleep, j]).any(), name
    account, _ = joined(config, bars, [result])
    equity = account.result.curve.column("equity")
    assert (equity > 0.0).all()
    np.testing.assert_array_equal(account.result.curve.time, blend.time)
    for one in account.results().values():
        assert np.isfinite(one.curve.values).all()
    # Filled at the open of a bar that exists, after a row of the test that decided.
    filled = np.searchsorted(bars.time, account.result.trades["entry_time"], side="right")
    np.testing.assert_array_equal(account.result.trades["entry_price"], bars.column("open")[filled])
    assert (filled > result.record.test.start).all()
    return account


@pytest.fixture(scope="module")
def config():
    return settings(LOGISTIC)


@pytest.fixture(scope="module")
def job(config, tmp_path_factory):
    return job_of(config, tmp_path_factory.mktemp("edges"))


@pytest.fixture(scope="module")
def usual(job):
    """The fold of a market where nothing is wrong."""
    return fitted(job)


def test_the_usual_fold_trades_all_its_members(usual, config, job):
    # Nothing could be shown below with a fold that does nothing.
    account = require_sound(usual, config, job.bars)
    assert list(usual.record.members) == ["ranging", "trending", "volatile", "logistic_4h"]
    assert len(usual.blend) == 744
    assert account.result.metrics.n_trades > 10
    for name, member in account.members.items():
        assert member.metrics.n_trades > 0, name


def too_large(blend):
    return replace(blend, exposure=blend.exposure + 2.0)


def awake_elsewhere(blend):
    values = blend.signals.values.copy()
    values[blend.label != int(Regime.RANGING), 0] = 0.5
    return replace(blend, signals=replace(blend.signals, values=values))


def a_bar_early(blend):
    moved = blend.time - HOUR
    tables = {name: replace(getattr(blend, name), time=moved) for name in ("signals", "regimes")}
    return replace(blend, time=moved, **tables)


@pytest.mark.parametrize("broken", [too_large, awake_elsewhere, a_bar_early])
def test_what_must_hold_is_missed_by_a_broken_fold(usual, config, job, broken):
    # Negative control of everything that asks for a sound fold below.
    with pytest.raises(AssertionError):
        require_sound(replace(usual, blend=broken(usual.blend)), config, job.bars)


# Rapid regime flips


class Says:
    """A detector that is fitted and kept as usual, and says something else."""

    def __init__(self, inner, said):
        self.inner, self.said = inner, said

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def fit(self, features):
        return Says(self.inner.fit(features), self.said)

    def fresh(self):
        return Says(self.inner.fresh(), self.said)

    def update(self, features):
        found = self.inner.update(features)
        return RegimeProbabilities(found.time, self.said(found), found.names)


@pytest.fixture
def detector_says(monkeypatch):
    def say(said):
        made = SimpleNamespace(create=lambda *given: Says(DETECTORS.create(*given), said))
        monkeypatch.setattr(folds, "DETECTORS", made)

    return say


def flipping(found):
    """Sure of the next regime every bar."""
    return 0.9 * np.eye(3)[found.time // HOUR % 3] + 0.1 / 3.0


def stays(label):
    edges = np.flatnonzero(np.diff(label)) + 1
    return np.diff(edges)  # without the first and the last, which are cut


def test_regimes_that_flip_every_bar_are_followed_no_faster_than_the_dwell(job, config, detector_says):
    detector_says(flipping)
    slow = fitted(job)
    require_sound(slow, config, job.bars)
    assert len(stays(slow.blend.label)) > 50
    assert stays(slow.blend.label).min() >= DWELL
    assert set(slow.blend.label) == {0, 1, 2}
    # Negative control: without a dwell it is every bar.
    hasty_config = settings(LOGISTIC, "path.min_dwell_bars=1")
    hasty = fitted(replace(job, config=hasty_config))
    require_sound(hasty, hasty_config, job.bars)
    assert stays(hasty.blend.label).max() == 1


# Gaps and frozen feeds


def without(bars, *gaps):
    kept = np.ones(len(bars), bool)
    for gap in gaps:
        kept[gap] = False
    return replace(bars, time=bars.time[kept], values=bars.values[kept])


def test_a_gap_in_the_test_rows_changes_nothing_before_it(job, usual, config, tmp_path):
    test = job.splits[-1].test
    gap = slice(test.start + 300, test.start + 340)
    gapped = job_of(config, tmp_path, without(job.bars, gap))
    found = fitted(gapped)
    require_sound(found, config, gapped.bars)
    assert len(found.blend) == len(usual.blend) - 40
    assert found.record.fingerprint == usual.record.fingerprint
    np.testing.assert_array_equal(rows(found.blend)[:300], rows(usual.blend)[:300])
    assert not np.array_equal(rows(found.blend)[300:], rows(usual.blend)[340:], equal_nan=True)
    # Fed by the bar, the strategy that was saved says the same on both sides of the gap.
    strategy, at = gapped.strategy_of(0), test.start + 300
    whole = found.record.test
    parts = [strategy.update(gapped.bars[a:b]) for a, b in ((0, at), (at, at + 1), (at + 1, whole.stop))]
    np.testing.assert_array_equal(rows(Blend.concat(parts)[whole]), rows(found.blend))


def test_gaps_in_what_is_learned_from_move_no_calendar(job, usual, config, tmp_path):
    split = job.splits[-1]
    gaps = (
        slice(2100, 2105),
        slice(2900, 3080),
        slice(split.validation.start + 50, split.validation.start + 51),
    )
    gapped = job_of(config, tmp_path, without(job.bars, *gaps))
    found = fitted(gapped)
    require_sound(found, config, gapped.bars)
    np.testing.assert_array_equal(found.blend.time, usual.blend.time)
    assert found.record.fingerprint != usual.record.fingerprint
    own = found.record
    assert own.validation.start - own.learn.stop == own.test.start - own.validation.stop == 24


def frozen(bars, begin, count):
    values = bars.values.copy()
    close = values[begin - 1, 3]
    values[begin : begin + count] = [close, close, close, close, 0.0]
    return replace(bars, values=values)


def test_a_frozen_feed_pays_at_most_costs_and_leaves_no_limit(job, usual, config, tmp_path):
    test = job.splits[-1].test
    begin = test.start + 200
    dead = job_of(config, tmp_path, frozen(job.bars, begin, 300))
    found = fitted(dead)
    account = require_sound(found, config, dead.bars)
    assert found.record.fingerprint == usual.record.fingerprint
    np.testing.assert_array_equal(rows(found.blend)[:200], rows(usual.blend)[:200])
    # Nobody can earn where nothing moves; what changes hands pays the rate of an empty market.
    for one in account.results().values():
        assert one.curve.column("net_return")[201:500].max() <= 1e-12
    assert not account.baselines["buy and hold"].curve.column("net_return")[201:500].any()
    # The volatility of the freeze is not believed: no position is larger than its floor allows.
    least = config.sizing.target_volatility / config.sizing.least_volatility
    assert (
        np.abs(found.blend.exposure) <= np.abs(found.blend.gated) * least + config.sizing.min_change
    ).all()


def test_a_feed_that_was_frozen_while_learning_teaches_and_breaks_nothing(job, config, tmp_path):
    dead = job_of(config, tmp_path, frozen(job.bars, 2400, 300))
    found = fitted(dead)
    account = require_sound(found, config, dead.bars)
    assert found.record.absent == {}
    assert account.result.metrics.n_trades > 0


# A regime that never occurs in training


def test_a_regime_that_the_detector_does_not_tell_leaves_its_specialist_out(tmp_path):
    config = settings("specialists.regimes=[ranging,crisis]")
    lone = job_of(config, tmp_path)
    found = fitted(lone)
    account = require_sound(found, config, lone.bars)
    assert found.record.absent == {"crisis": "fewer than 100 bars of its regime to learn from"}
    assert list(found.record.members) == ["ranging"]
    assert np.isnan(found.blend.signals.column("crisis")).all()
    assert not found.blend.weights[:, 1].any()
    assert account.members["crisis"].metrics.n_trades == 0
    assert account.members["ranging"].metrics.n_trades > 0
    assert len(found.searches) == 1  # nothing was searched for it, and nothing is counted


def test_in_a_regime_that_training_never_saw_nobody_trades(job, detector_says, tmp_path):
    begin = int(job.bars.time[job.splits[-1].test.start])

    def late(found):
        # Never volatile before the test; as the inner one says from then on.
        ranging, trending, volatile = found.values.T
        before = found.time < begin
        return np.column_stack([np.where(before, ranging + volatile, ranging), trending,
                                np.where(before, 0.0 * volatile, volatile)])  # fmt: skip

    detector_says(late)
    config = settings()
    lone = job_of(config, tmp_path)
    found = fitted(lone)
    account = require_sound(found, config, lone.bars)
    assert list(found.record.absent) == ["volatile"]
    unseen = found.blend.label == int(Regime.VOLATILE)
    assert unseen.sum() > 50
    assert not found.blend.exposure[unseen].any()
    assert found.blend.exposure[~unseen].any()
    assert account.members["volatile"].metrics.n_trades == 0
    for name in found.rivals:
        assert not found.rivals[name][unseen].any()


# A missing forecaster


def mute(forecast, part):
    answers, through = forecast.answers.copy(), forecast.trained_through.copy()
    answers[part], through[part] = np.nan, NEVER
    return replace(forecast, answers=answers, trained_through=through)


def absent_forecaster(job, how):
    (forecast,) = job.forecasts
    test = job.splits[-1].test
    if how == "never trained":
        spans = tuple(span for span in forecast.spans if span[0].start > test.start)
        return mute(replace(forecast, spans=spans), slice(None))
    return mute(forecast, job.splits[-1].validation)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("never trained", "it was never trained on rows before the test"),
        ("silent while the blender learns", "it has no answer on the validation rows"),
    ],
)
def test_a_missing_forecaster_leaves_the_fold_of_the_others(job, usual, config, tmp_path, how, why):
    found = fitted(replace(job, forecasts=(absent_forecaster(job, how),)))
    account = require_sound(found, config, job.bars)
    assert found.record.absent == {"logistic_4h": why}
    assert np.isnan(found.blend.signals.column("logistic_4h")).all()
    assert not found.blend.weights[:, 3].any()
    assert account.members["logistic_4h"].metrics.n_trades == 0
    assert account.baselines["best single forecaster (logistic_4h)"].metrics.n_trades == 0
    # As if it had never been asked for: bit for bit.
    alone = fitted(job_of(settings(), tmp_path, job.bars))
    np.testing.assert_array_equal(found.blend.exposure, alone.blend.exposure)
    np.testing.assert_array_equal(found.rivals["equal"], alone.rivals["equal"])
    assert not np.array_equal(found.blend.exposure, usual.blend.exposure)  # negative control: it was heard


def test_folds_with_and_without_a_forecaster_are_one_account(tmp_path):
    config = settings(LOGISTIC, "folds.latest=2")
    both = job_of(config, tmp_path)
    lost = replace(both, forecasts=(mute(both.forecasts[0], both.splits[0].validation),))
    results = [fitted(lost, 0), fitted(lost, 1)]
    account, _ = joined(config, both.bars, results)
    signal = account.blend.signals.column("logistic_4h")
    m = len(results[0].blend)
    assert np.isnan(signal[:m]).all()
    assert not np.isnan(signal[m:]).any()
    assert len(account.result.curve) == m + len(results[1].blend)
    exposure = account.members["logistic_4h"].curve.column("exposure")
    assert not exposure[: m + 1].any()
    assert exposure[m + 1 :].any()
    np.testing.assert_array_equal(results[1].blend.exposure, fitted(both, 1).blend.exposure)


def test_a_fold_without_any_member_is_one_sentence(config, tmp_path):
    alone = settings(LOGISTIC, "specialists.regimes=[]")
    lone = job_of(alone, tmp_path)
    assert list(fitted(lone).record.members) == ["logistic_4h"]
    lost = replace(lone, forecasts=(absent_forecaster(lone, "silent while the blender learns"),))
    with pytest.raises(
        DataError, match=r"^fold 1: no member could be fitted \(it has no answer on the validation rows\)$"
    ):
        fitted(lost)


# All signals flat


class Flat(SpecialistSource):
    """Never wants anything."""

    def update(self, bars, features, regimes, labels):
        return np.zeros(len(bars))


class Mute(SpecialistSource):
    """Never has an opinion."""

    def update(self, bars, features, regimes, labels):
        return np.full(len(bars), np.nan)


@pytest.mark.parametrize("kind", [Flat, Mute])
@pytest.mark.parametrize("blender", ["route", "stack"])
def test_where_all_signals_are_flat_nothing_is_traded_by_any_blender(kind, blender, monkeypatch, tmp_path):
    monkeypatch.setattr(folds, "SpecialistSource", kind)
    every = sorted(BLENDERS.names())
    config = settings(f"blender.name={blender}", f"rivals=[{','.join(every)}]")
    lone = job_of(config, tmp_path)
    found = fitted(lone)
    account = require_sound(found, config, lone.bars)
    assert not found.blend.exposure.any()
    assert not np.nan_to_num(found.blend.blended).any()
    assert set(found.rivals) == set(every) - {blender}
    for name, exposure in found.rivals.items():
        assert not exposure.any(), name
    # An account that did nothing has its capital, no cost, and no Sharpe ratio rather than one of 0.
    assert (account.result.curve.column("equity") == account.result.capital).all()
    metrics = account.result.metrics
    assert (metrics.n_trades, metrics.total_return, metrics.max_drawdown) == (0, 0.0, 0.0)
    assert np.isnan(metrics.sharpe)
    assert account.baselines["constant exposure"].metrics.n_trades == 0
    assert account.baselines["buy and hold"].metrics.n_trades == 1
    # The genomes themselves trade, as always: only what was heard of them is flat.
    assert found.always_on.any()


def verdict_on(account, job, result, ledger):
    """Evidence, pushes and criteria, as a run ends."""
    config, fingerprint = job.config, job.bars.fingerprint()
    job.record_trials(ledger, fingerprint, result)
    looks = ledger.record_opening(
        fingerprint, job.run.id, int(account.time[0]), int(account.time[-1]), "edge"
    )
    rivals = {"members": account.members, "blenders": account.blenders, "baselines": account.baselines}
    evidence = weigh(
        account.result, **rivals, trials=ledger.summary(fingerprint), looks=looks, seed=1,
        config=config.evidence,
    )  # fmt: skip
    bars = job.bars[: account.rows.stop]
    wanted = np.zeros((len(bars), 1))
    wanted[account.rows, 0] = account.blend.exposure
    robustness = push(
        Table(bars.time, wanted, TARGETS[:1]), bars, config.costs, config.limits, config=config.robustness,
        decide=None, venue=config.venue, rows=account.rows,
    )  # fmt: skip
    return judge(
        account.result, **rivals, evidence=evidence, robustness=robustness, permutations=None,
        config=config.criteria,
    )  # fmt: skip


def test_an_account_that_did_nothing_does_not_pass(monkeypatch, tmp_path):
    monkeypatch.setattr(folds, "SpecialistSource", Flat)
    config = settings("rivals=[equal,validated]")
    lone = job_of(config, tmp_path)
    found = fitted(lone)
    account, _ = joined(config, lone.bars, [found])
    judgment = verdict_on(account, lone, found, Ledger(tmp_path / "ledger.sqlite"))
    assert not judgment.passed
    assert judgment.sentence.startswith("FAIL: the ensemble misses ")
    for criterion in judgment.criteria:  # what is undefined is not met
        assert not (criterion.passed and np.isnan(criterion.value)), criterion.name
        if "skill" in criterion.name or criterion.name.startswith("annual Sharpe ratio against"):
            assert not criterion.passed, criterion.name


# One-bar folds


def until(job, count):
    """The bars until so many rows of the last month are there."""
    return job.bars[: job.splits[-1].test.start + count]


def test_a_fold_of_one_bar_is_one_row_of_the_account(job, usual, config, tmp_path):
    short = job_of(config, tmp_path, until(job, 1))
    found = fitted(short)
    assert found.record.test == slice(job.splits[-1].test.start, job.splits[-1].test.start + 1)
    np.testing.assert_array_equal(rows(found.blend), rows(usual.blend)[:1])
    assert found.record.fingerprint == usual.record.fingerprint
    account = require_sound(found, config, short.bars)
    # What one row decides would be filled at the next open, and there is none.
    assert account.result.metrics.n_trades == 0
    assert account.result.curve.column("equity").tolist() == [account.result.capital]


def test_a_last_fold_of_one_bar_is_joined_to_the_one_before(job, tmp_path):
    config = settings(LOGISTIC, "folds.latest=2")
    short = job_of(config, tmp_path, until(job, 1))
    results = [fitted(short, 0), fitted(short, 1)]
    assert [len(result.blend) for result in results] == [720, 1]
    account, _ = joined(config, short.bars, results)
    first, _ = joined(config, short.bars, results[:1])
    assert len(account.result.curve) == 721
    # The account goes on: it is that of the first fold but for the last position, which is not closed yet.
    np.testing.assert_array_equal(account.result.curve.values[:719], first.result.curve.values[:719])


def test_an_account_of_one_bar_is_judged_by_nobody(job, config, tmp_path):
    short = job_of(config, tmp_path, until(job, 1))
    found = fitted(short)
    account, _ = joined(config, short.bars, [found])
    with pytest.raises(DataError, match="1 returns; a block length needs at least 30") as caught:
        verdict_on(account, short, found, Ledger(tmp_path / "ledger.sqlite"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blender", sorted(BLENDERS.names()))
@pytest.mark.parametrize("count", [1, 2])
def test_a_blender_with_hardly_a_row_to_learn_from_refuses_or_learns_nothing(job, blender, count):
    config = settings(LOGISTIC, f"blender.name={blender}", "rivals=[]")
    split = job.splits[-1]
    stop = split.validation.stop
    train = slice(split.train.start, stop - count - 24)
    short = replace(split, train=train, validation=slice(stop - count, stop))
    starved = replace(job, config=config, splits=(short,))
    if blender in LEARNS:
        sentence = (
            rf"^blender {blender}: .* hold 0 finished decisions; learning from them takes \d+ at least$"
        )
        with pytest.raises(DataError, match=sentence):
            fitted(starved)
        return
    found = fitted(starved)
    require_sound(found, config, job.bars)
    assert found.blend.exposure.any()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("folds.embargo_bars=744", "no validation rows are left before 2017-04-01.* an embargo of 744 bars"),
        ("folds.embargo_bars=2000", "no (validation|training) rows are left before"),
    ],
)
def test_a_fold_without_rows_to_choose_on_is_one_sentence(job, more, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        folds_of(job.bars, job.core.warmup, settings(more, "folds.latest=1"))
    assert "\n" not in str(caught.value)


# Assets that start late


def test_an_asset_that_starts_late_has_the_folds_that_its_own_past_allows(job):
    config = settings("folds.latest=null")
    whole = folds_of(job.bars, job.core.warmup, config)
    assert len(whole) == 3
    begin = 400  # in the middle of January: that month is no whole one
    late = folds_of(job.bars[begin:], job.core.warmup, config)
    assert [split.test.start + begin for split in late] == [split.test.start for split in whole[1:]]
    for split in late:
        assert split.train.start == job.core.warmup  # nothing is learned from rows it does not have


def test_an_asset_that_starts_late_is_answered_from_its_own_past(job, usual, tmp_path):
    config = settings(LOGISTIC)
    late = job_of(config, tmp_path, job.bars[600:])
    found = fitted(late)
    require_sound(found, config, late.bars)
    np.testing.assert_array_equal(found.blend.time, usual.blend.time)
    assert found.record.learn.start == late.core.warmup
    assert found.record.fingerprint != usual.record.fingerprint


@pytest.mark.parametrize(
    ("begin", "sentence"),
    [
        (
            2200,
            r"walk-forward: bars from 2017-04-02.* give no fold; a test month needs 3 whole months before",
        ),
        (5087, r"walk-forward: 1 bars are too few for a fold"),
    ],
)
def test_an_asset_with_less_than_a_fold_is_refused_in_one_sentence(job, begin, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        folds_of(job.bars[begin:], job.core.warmup, settings())
    assert "\n" not in str(caught.value)


def test_an_asset_shorter_than_the_features_take_is_refused_in_one_sentence(job):
    with pytest.raises(DataError, match="features take 5000 bars to be known, and no fold learns on as many"):
        folds_of(job.bars, 5000, settings())


def test_a_market_that_never_moved_is_refused_in_one_sentence(job, config, tmp_path):
    dead = frozen(job.bars, 1, len(job.bars) - 1)
    with pytest.raises((ConfigError, DataError)) as caught:
        fitted(job_of(settings(), tmp_path, dead))
    assert "\n" not in str(caught.value)

"""Combinatorial cross-validation: what teaches whom, how paths are made, what the command leaves of it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from backtest.costs import Costs
from compute.workers import SerialMapper, mapper
from configs.load import ConfigError, load
from ensemble import cpcv, report, running
from ensemble.cpcv import CombinationJob, CombinationResult, combinations_of
from ensemble.folds import cost_of
from ensemble.forecasts import NEVER, Forecast
from ensemble.gluing import Glued
from ensemble.paths import Paths
from ensemble.report_path_grids import sentence
from ensemble.settings import ValidateConfig
from experiments.ledger import Ledger
from experiments.runs import Run
from ga.snapshot import pack
from market.causal import transform
from market.combinatorial import paths_of
from market.features.pipeline import FeaturePipeline
from market.sources.selection import select_bars
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError
from regimes.regime import UNDECIDED
from regimes.volatility import VolatilityDetector
from tests.ensemble.made_judged import market as made_market
from tests.ensemble.made_results import account, noise
from tests.ensemble.recompute import of_returns
from tests.ensemble.test_validate_command import TINY, results, validate
from tests.unpainted import unpainted

#: Features that look back 72 bars at most, fewer than the embargo; a detector that remembers many more; and
#: searches of a blink.
EMBARGO = 100
SMALL = (
    "market.synthetic.n_bars=4400", f"folds.embargo_bars={EMBARGO}", "cpcv.groups=4", "cpcv.test=2",
    "detector={name: volatility, baseline_bars: 1000}", "blender.name=validated", "forecasters=[]",
    "features.names=[parkinson_24,efficiency_72,origin_trend,origin_range_14,origin_momentum_5]",
    "specialists.family={name: origin8, longest_hold: 48}", "specialists.fitness.folds=4",
    "specialists.fitness.min_trades=2", "specialists.hyperparameters.population_size=16",
    "specialists.hyperparameters.n_generations=3",
)  # fmt: skip


def settings(*more):
    return load(ValidateConfig, "validate.yaml", [*SMALL, *more])


def job_of(config, folder, bars=None, forecasts=()):
    bars = select_bars(config.market).bars if bars is None else bars
    core = FeaturePipeline(config.features).update(bars)
    run = Run.open(folder / "runs", "validate", "test")
    chosen = combinations_of(bars, core.warmup, config)
    return CombinationJob(run, config, bars, core, forecasts, chosen, {"data": bars.fingerprint()})


def learned(job, number, folder):
    """Everything that was fitted, as text: parts as they are saved, and all that the searches measured."""
    with SerialMapper() as workers:
        found = job.learn(number, workers)
    found.detector.save(folder / "detector")
    found.blender.save(folder / "blender")
    files = [path.read_text() for path in sorted(folder.rglob("*.json"))]
    sources = [(name, one.specialist.fingerprint(), one.scale) for name, one in found.sources.items()]
    measured = [search["sharpes"].tolist() for search in found.searches]
    return json.dumps([files, sources, measured, found.absent], sort_keys=True), found


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job with all its combinations on disk."""
    made = job_of(settings(), tmp_path_factory.mktemp("cpcv"))
    for number in range(len(made.combinations)):
        made(number)
    return made


@pytest.fixture(scope="module")
def decided(job):
    return [job.load(number) for number in range(len(job.combinations))]


# What teaches


def altered(bars, spans, seed=1):
    """Bars with other moves, ranges and volumes in some rows, and the same ones in all others."""
    values = bars.values.copy()
    rng = np.random.default_rng(seed)
    for rows in spans:
        n = rows.stop - rows.start
        values[rows, :4] *= np.exp(np.cumsum(rng.normal(0, 0.03, n)))[:, None]
        values[rows, 1] *= rng.uniform(1.0, 1.1, n)
        values[rows, 2] /= rng.uniform(1.0, 1.1, n)
        values[rows, 4] *= rng.uniform(0.1, 9.0, n)
    return replace(bars, values=values)


@pytest.mark.parametrize(
    "number", [0, 1, 3, 5]
)  # tested: the first two, every other, the middle, the last two
def test_bars_of_the_tested_groups_change_nothing_that_is_learned(number, job, tmp_path):
    before, _ = learned(job, number, tmp_path / "before")
    other = job_of(job.config, tmp_path, altered(job.bars, job.combinations[number].test))
    changed = [
        np.any(other.core.values[rows] != job.core.values[rows]) for rows in job.combinations[number].test
    ]
    assert all(changed)
    after, found = learned(other, number, tmp_path / "after")
    assert after == before
    assert found.sources
    # They do change what is answered.
    assert not np.array_equal(other.answer(number, found)[0], job.answer(number, found)[0])


def test_bars_that_teach_do_change_it(job, tmp_path):
    # Negative control: the law above would not notice a fit that reads nothing.
    train = job.combinations[3].train[0]
    rows = slice(train.start + 300, train.start + 500)
    other = job_of(job.config, tmp_path, altered(job.bars, (rows,)))
    assert learned(other, 3, tmp_path / "after")[0] != learned(job, 3, tmp_path / "before")[0]


def test_without_an_embargo_the_tested_groups_would_teach(job, tmp_path):
    # Negative control: features behind a tested group remember it.
    bare = settings("folds.embargo_bars=2")
    before = job_of(bare, tmp_path / "one")
    after = job_of(bare, tmp_path / "other", altered(job.bars, before.combinations[3].test))
    assert learned(after, 3, tmp_path / "after")[0] != learned(before, 3, tmp_path / "before")[0]


def test_a_detector_that_runs_along_the_true_clock_would_teach_from_the_tested_groups(
    job, tmp_path, monkeypatch
):
    # Negative control: its baseline of 1,000 bars carries a tested group over the embargo.
    other = job_of(job.config, tmp_path, altered(job.bars, job.combinations[0].test))
    found = []
    for one in (job, other):
        glued = Glued.of(one.bars, one.combinations[0].train)

        def along(stage, table, one=one, glued=glued):
            if isinstance(stage, VolatilityDetector) and len(table) == len(glued.bars):
                return glued.cut(transform(stage, one.core))
            return transform(stage, table)

        monkeypatch.setattr(cpcv, "transform", along)
        found.append(learned(one, 0, tmp_path / str(len(found)))[0])
    assert found[0] != found[1]


def test_the_latest_share_of_what_teaches_validates_after_an_embargo(job):
    for number, one in enumerate(job.combinations):
        n = sum(run.stop - run.start for run in one.train)
        split = cpcv._split_of(one, job.config)
        assert split.validation == slice(round(0.75 * n), n)
        assert split.train == slice(0, split.validation.start - EMBARGO)
        assert split.test.start >= n  # nothing of the tested groups is among the glued rows
        told = job._told(job.load(number))
        assert (told["learned"], told["validated"]) == (split.train.stop, n - split.validation.start)


def test_searches_stand_on_the_glued_rows_alone_and_no_regime_is_in_force_at_a_seam(job, monkeypatch):
    grounds = []

    def watching(self, ground, *rest):
        grounds.append(ground)
        return evolve(self, ground, *rest)

    evolve = cpcv.FoldJob.specialists
    monkeypatch.setattr(cpcv.FoldJob, "specialists", watching)
    with SerialMapper() as workers:
        job.learn(3, workers)
    (ground,) = grounds
    glued = Glued.of(job.bars, job.combinations[3].train)
    np.testing.assert_array_equal(ground.bars.values, glued.bars.values)
    np.testing.assert_array_equal(ground.features.values, glued.rows_of(job.core.values))
    assert glued.seams.size == 1
    assert ground.regime_labels[glued.seams] == UNDECIDED
    assert (ground.regime_labels[np.r_[glued.seams - 1, glued.seams + 1]] != UNDECIDED).all()


# What is answered


def test_every_row_of_every_group_is_answered_on_as_many_paths(job, decided):
    groups, test = job.config.cpcv.groups, job.config.cpcv.test
    times = np.zeros(len(job.bars), int)
    for one, result in zip(job.combinations, decided, strict=True):
        for rows, exposure, label in zip(one.test, result.exposure, result.label, strict=True):
            assert exposure.shape == label.shape == (rows.stop - rows.start,)
            assert np.isfinite(exposure).all()
            times[rows] += 1
    assert set(times[job.core.warmup :]) == {len(paths_of(groups, test))} == {3}
    assert any(exposure.any() for result in decided for exposure in result.exposure)


def test_nobody_speaks_on_rows_that_taught_and_nothing_is_held_there(job, monkeypatch):
    heard = []

    class Loud:
        """A blender that wants everything at every row, whoever speaks."""

        def update(self, signals, *rest):
            heard.append(signals.values)
            return None, np.ones(len(signals))

    one = job.combinations[1]
    with SerialMapper() as workers:
        found = job.learn(1, workers)
    monkeypatch.setattr(cpcv, "_awakened", lambda *_: Loud())
    exposure, _ = job.answer(1, found)
    (signals,) = heard
    taught = np.zeros(exposure.size, bool)
    for run in one.train:
        taught[run] = True
    assert taught.any()
    assert np.isnan(signals[taught]).all()
    assert np.isfinite(signals[~taught]).all()
    assert not exposure[taught].any()
    for rows in one.test:
        assert exposure[rows].all()


def test_what_is_decided_at_a_row_depends_on_nothing_after_it(job, tmp_path):
    with SerialMapper() as workers:
        found = job.learn(1, workers)
    rows = job.combinations[1].test[1]
    cut = (rows.start + rows.stop) // 2
    other = job_of(job.config, tmp_path, altered(job.bars, (slice(cut, len(job.bars)),)))
    before, after = (one.answer(1, found)[0] for one in (job, other))
    np.testing.assert_array_equal(after[:cut], before[:cut])
    assert not np.array_equal(after, before)  # negative control


def test_a_blender_that_goes_on_learning_does_so_on_tested_rows(tmp_path, monkeypatch):
    made = job_of(settings("blender.name=online", "gating.min_change=0", "sizing.min_change=0"), tmp_path)
    with SerialMapper() as workers:
        found = made.learn(0, workers)  # tested before anything that taught
    exposure, _ = made.answer(0, found)
    monkeypatch.setattr(cpcv, "_awakened", lambda blender, bars: blender.fresh())
    assert not np.array_equal(made.answer(0, found)[0], exposure)


def test_each_path_goes_through_all_groups_once_and_follows_the_fit_of_each(job, decided, monkeypatch):
    traded = []

    class Recorder(cpcv.Trading):
        def exposure(self, exposure, limits=None):
            traded.append(exposure)
            return super().exposure(exposure, limits)

    monkeypatch.setattr(cpcv, "Trading", Recorder)
    marked = [
        replace(one, exposure=tuple(np.full(len(part), (one.number + 1) / 100) for part in one.exposure))
        for one in decided
    ]
    found = job.paths(marked)
    assert len(found.results) == 3
    lengths = [rows.stop - rows.start for rows in found.groups]
    for numbers, exposure in zip(paths_of(4, 2), traded[:3], strict=True):
        np.testing.assert_array_equal(exposure, np.repeat((numbers + 1) / 100, lengths))
    for result in (*found.results, found.hold):
        np.testing.assert_array_equal(result.curve.time, job.bars.time[job.core.warmup :])


def test_forecasters_without_answers_are_absent_and_others_are_heard_row_by_row(job, tmp_path, monkeypatch):
    n = len(job.bars)
    answers = np.full((n, 3), np.nan)
    answers[2_500:] = np.random.default_rng(1).dirichlet((4, 2, 4), n - 2_500)
    forecasts = tuple(
        Forecast(name, known, np.full(n, NEVER), ((slice(2_500, n), "nowhere"),), 4)
        for name, known in (("logistic_4h", answers), ("lstm_4h", np.full((n, 3), np.nan)))
    )
    monkeypatch.setattr(Forecast, "fitted", lambda *_: _Fitted())
    members = "forecasters=[{name: logistic, label: {horizon: 4h}}, {name: lstm, label: {horizon: 4h}}]"
    made = replace(job_of(settings(members), tmp_path), forecasts=forecasts)
    with SerialMapper() as workers:
        found = made.learn(0, workers)  # the second half teaches
        assert found.absent == {"lstm_4h": "it has no answer on the validation rows"}
        assert list(found.sources) == ["ranging", "trending", "volatile", "logistic_4h"]
        signal = found.sources["logistic_4h"].signal(answers)
        np.testing.assert_array_equal(found.said["logistic_4h"], signal)
        exposure, _ = made.answer(0, found)
        assert exposure.size == made.combinations[0].test[1].stop
        # The last quarter of the first half knows no answer either.
        assert made.learn(5, workers).absent.keys() == {"logistic_4h", "lstm_4h"}


class _Fitted:
    """What a source asks of a forecaster whose answers are known."""

    trained_through, feature_version, interval_ns = 0, "any", 3_600_000_000_000
    scaler = type("Scaler", (), {"names": ()})
    forecaster = type("Forecaster", (), {"lookback": 1})


def test_on_random_walks_paths_earn_nothing_before_costs_and_their_costs_after_them(tmp_path):
    found = []
    for seed in range(10):
        bars = synthetic_market(
            SyntheticConfig(scenario="random_walk", n_bars=4_400, seed=seed, steps=8)
        ).bars
        job = job_of(settings("cpcv.n_generations=6"), tmp_path / str(seed), bars)
        with SerialMapper() as workers:
            decided = [job.fit(number, workers) for number in range(6)]
        free = Costs(fee_bps=0, half_spread_bps=0, impact=({"turnover": 0.0, "impact_bps": 0.0},))
        gross = replace(job, config=job.config.model_copy(update={"costs": free})).paths(decided)
        net = job.paths(decided)
        paid = [one.metrics.turnover / one.metrics.annual_volatility for one in net.results]
        promised = [one["sharpe_learn"] for result in decided for one in result.told.values()]
        drag = cost_of(job.config.costs, bars) * np.mean(paid)
        found.append((gross.sharpes.mean(), net.sharpes.mean(), drag, np.nanmean(promised)))
    gross, net, drag, promised = np.mean(found, axis=0)
    error = np.sqrt(8_760 / 4_300 / len(found))  # of the mean, if paths of one walk were all the same
    assert abs(gross) < 2.5 * error
    assert gross - net == pytest.approx(drag, rel=0.1)
    # Negative control: what the fits earned on the rows that taught them is far beyond that, after costs.
    assert promised - net > 2.5 * error


# Repeated, resumed, counted


def same_bytes(one, other):
    """Whether two results are the same to the last bit, as they are kept."""
    return b"".join(pack({}, one.state())) == b"".join(pack({}, other.state()))


def test_the_same_seed_decides_the_same_bytes_on_one_worker_and_on_two(job, decided, tmp_path):
    other = job_of(job.config, tmp_path)
    with mapper("threads", 2) as workers:
        assert workers.map(other, range(6)) == [(number, ()) for number in range(6)]
    for number, result in enumerate(decided):
        assert same_bytes(other.load(number), result)
    with SerialMapper() as workers:
        moved = job_of(settings("seed=8"), tmp_path / "seed").fit(0, workers)
    assert not same_bytes(moved, decided[0])


def test_what_is_on_disk_is_whole_and_of_this_run(job, decided):
    assert all(job.is_done(number) for number in range(6))
    assert not job.is_done(6)
    again = CombinationResult.of_state(decided[2].state())
    assert same_bytes(again, decided[2])
    with pytest.raises(ConfigError, match="cannot go on bit for bit"):
        replace(job, identity={"data": "0" * 16}).load(0)


def test_searches_are_counted_once_and_beside_those_of_the_folds(job, decided, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for _ in range(2):  # a resumed run counts nothing twice
        for result in decided:
            job.record_trials(ledger, "f" * 64, result, after=7)
    expected = sum(search["n_evaluated"] for result in decided for search in result.searches)
    assert ledger.summary("f" * 64).n_evaluated == expected == job.paths(decided).n_evaluated
    for result in decided:  # and those of another seven folds are others
        job.record_trials(ledger, "f" * 64, result, after=14)
    assert ledger.summary("f" * 64).n_evaluated == 2 * expected


def test_searches_are_those_of_the_folds_unless_smaller_ones_are_asked_for(job, tmp_path):
    own = cpcv._searching(job.config).specialists.hyperparameters
    assert own == job.config.specialists.hyperparameters
    smaller = cpcv._searching(settings("cpcv.population_size=8", "cpcv.n_generations=1"))
    assert smaller.specialists.hyperparameters.population_size == 8
    assert smaller.specialists.hyperparameters.n_generations == 1
    assert smaller.seed == cpcv._searching(job.config).seed != job.config.seed


# What is refused


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("cpcv.groups=2",), "test is 2 and groups 2; fewer groups must be tested than there are"),
        (
            ("cpcv.groups=30", "cpcv.test=5"),
            "142,506 ways to test 5 of 30 groups; there must be at most 1000",
        ),
        (("cpcv.validation=0",), r"cpcv\.validation"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(more, words):
    with pytest.raises(ConfigError, match=words):
        settings(*more)


def test_bars_that_are_too_few_are_one_sentence(job):
    with pytest.raises(
        DataError, match=r"beside the groups 1, 2 there are 110 bars, of which cpcv.validation"
    ):
        combinations_of(job.bars[:500], 80, job.config)
    with pytest.raises(DataError, match="no rows are left to learn from"):
        combinations_of(job.bars[:300], 80, job.config)
    with pytest.raises(DataError, match="features take 80 bars to be known, and there are 50"):
        combinations_of(job.bars[:50], 80, job.config)
    assert combinations_of(job.bars, 80, settings("cpcv.groups=0")) == ()


def test_a_policy_that_was_trained_on_a_market_is_refused(job, monkeypatch):
    trained = type("Trained", (), {"placed": None})
    monkeypatch.setattr(cpcv.POLICIES, "create", lambda *_: trained())
    with pytest.raises(
        ConfigError, match=r"cpcv.groups is 4 and specialists.policy fixed, which was trained"
    ):
        combinations_of(job.bars, 80, job.config)


# What is found


def made_paths(sharpes, hold=0.02, flat=0):
    """Paths with such Sharpe ratios per bar."""
    bars = made_market().bars
    groups = (slice(100, 400), slice(400, 700), slice(700, 1_000))
    rows = 900

    def one(edge, seed):
        made = noise(seed, rows)
        return account((made - made.mean()) / made.std() * 0.01 + 0.01 * edge)

    found = [one(edge, seed) for seed, edge in enumerate(sharpes)] + [account(np.zeros(rows))] * flat
    told = tuple({"chosen": [a, b], "learned": 5, "validated": 2, "absent": {}} for a, b in ((1, 2), (1, 3)))
    return Paths(bars, groups, 2, 7, told, tuple(found), one(hold, 99), 1_234)


def test_shares_and_spread_of_paths_by_hand():
    found = made_paths([-0.01, 0.01, 0.03, 0.05], flat=1)
    year = np.sqrt(8_760)
    np.testing.assert_allclose(found.sharpes, np.array([-0.01, 0.01, 0.03, 0.05, 0]) * year, rtol=1e-2)
    assert (found.positive, found.above_hold) == (0.6, 0.4)
    assert found.median == pytest.approx(0.01 * year, rel=1e-2)
    told = found.to_dict()
    assert told["below_zero"] == 0.2  # what never trades is neither above nor below
    assert told["spread"]["sharpe"]["median"] == found.median
    assert told["spread"]["max_drawdown"]["low"] == min(one["max_drawdown"] for one in told["paths"])
    assert [len(one["sharpes"]) for one in told["groups"]] == [5, 5, 5]
    first = found.results[0].curve.column("net_return")[:300]
    assert told["groups"][0]["sharpes"][0] == pytest.approx(first.mean() / first.std(ddof=1) * year)
    text = sentence({"cpcv": json.loads(json.dumps(told))})
    assert "2 fits make 5 paths" in text
    assert "20% of the paths are below zero, and 60% do not beat holding at the same volatility (1.8" in text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with unpainted():
        code, folder = validate(tmp_path_factory.mktemp("validate") / "runs", settings=WHOLE)
    assert code == 0
    return folder


WHOLE = [
    *TINY, "cpcv.groups=4", "cpcv.test=2", "criteria.paths.on=true", "criteria.paths.threshold=90",
    "specialists.generalist=false", "robustness.sigmas=[]", "folds.latest=1", "rivals=[]",
    "random_routing.draws=0",
]  # fmt: skip


def test_the_report_tells_of_all_paths_and_its_numbers_come_out_again(finished):
    found = json.loads((finished / "report.json").read_text())
    own, text = found["cpcv"], (finished / "report.md").read_text()
    page = (finished / "validation.html").read_text()
    assert [one["chosen"] for one in own["combinations"]] == [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]
    assert (len(own["paths"]), len(own["groups"])) == (3, 4)
    assert "cpcv.png" in text
    assert "cpcv.png" in [path.name for path in (finished / "plots").iterdir()]
    for place in (text, page):
        assert "Many paths through the history" in place
        assert "Cross-validation (CPCV): 6 fits make 3 paths" in place
        assert "Forecasters were not trained anew" in place
    assert "nan" not in page.split("Many paths through the history")[1].split("Years and folds")[0].lower()
    returns = pd.read_parquet(finished / "metrics/cpcv.parquet")
    assert str(returns.time[0])[:10] == own["first"][:10]
    year = own["hold"]["bars_per_year"]
    for name, told in {
        **{f"path_{i + 1}": one for i, one in enumerate(own["paths"])},
        "hold": own["hold"],
    }.items():
        again = of_returns(returns[name], year)
        for key in ("sharpe", "total_return", "max_drawdown", "annual_volatility"):
            assert again[key] == pytest.approx(told[key], rel=1e-8), (name, key)
    for i, one in enumerate(own["groups"]):
        part = returns[(returns.time >= one["first"]) & (returns.time <= one["last"])]
        again = of_returns(part["path_2"], year)["sharpe"]
        assert one["sharpes"][1] == pytest.approx(0.0 if np.isnan(again) else again, rel=1e-8), i
    assert own["spread"]["sharpe"]["median"] == np.median([one["sharpe"] or 0 for one in own["paths"]])


def test_the_median_path_can_be_a_criterion_and_is_none_unless_asked(finished):
    (line,) = [
        one for one in json.loads((finished / "report.json").read_text())["criteria"] if "CPCV" in one["name"]
    ]
    assert not line["passed"]
    assert line["threshold"] == 90
    assert "paths" not in load(ValidateConfig, "validate.yaml", []).criteria.lines()


def test_trials_of_all_fits_are_in_the_ledger_and_rows_of_all_groups_have_been_looked_at(finished):
    ledger = Ledger(finished.parent.parent / "ledger.sqlite")
    fingerprint = json.loads((finished / "manifest.json").read_text())["data"]["bars"]
    own = json.loads((finished / "report.json").read_text())["cpcv"]
    assert own["n_evaluated"] > 6 * 3 * 32
    assert ledger.summary(fingerprint).n_evaluated > own["n_evaluated"]
    first = int(pd.Timestamp(own["first"]).value)
    assert ledger.record_opening(fingerprint, "another", 0, first + 1, "someone").others == 1


def test_a_kill_among_the_combinations_ends_in_the_same_bytes(finished, tmp_path, monkeypatch, capsys):
    calls = []

    def dying(self, number):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(self, number)

    fit = running.CombinationJob.__call__
    monkeypatch.setattr(running.CombinationJob, "__call__", dying)
    with unpainted():
        code, folder = validate(tmp_path / "runs", "--workers", "serial", settings=WHOLE)
        assert code != 0
        assert not (folder / report.JSON).exists()
        monkeypatch.undo()
        code, again = validate(tmp_path / "runs", "--resume", "latest", settings=())
    assert (code, again) == (0, folder)
    assert "Going on after 2 of 6 combinations" in capsys.readouterr().out
    assert results(folder) == results(finished)
    assert (
        json.loads((folder / "report.json").read_text())["cpcv"]
        == json.loads((finished / "report.json").read_text())["cpcv"]
    )

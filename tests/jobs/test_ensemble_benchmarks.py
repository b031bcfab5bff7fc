"""The benchmarks of the ensemble: beside perfect regimes where there is an edge, and where there is none."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from benchmarks import null_validation, validation_truth
from benchmarks.validation_truth import Market, Truth, TruthConfig, clairvoyant, main, market_of, table
from configs.load import load
from ensemble import rerun
from ensemble.settings import ValidateConfig
from market.features.pipeline import FeaturePipeline
from market.sources.synthetic import SyntheticConfig
from market.table import DataError, Table
from regimes.detector import DETECTORS, load_detector

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="a benchmark of compiled code")

MARKET = SyntheticConfig(n_bars=400, seed=5, steps=8)
TINY = (
    "market.synthetic.n_bars=11000", "market.synthetic.steps=8", "folds.span=quarter",
    "folds.embargo_bars=48", "detector={name: volatility}", "random_routing.draws=2",
    "specialists.hyperparameters={population_size: 16, n_generations: 3}", "rivals=[equal, online]",
)  # fmt: skip


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch):
    # The truth is registered by who asks for it, and must not be there for the tests of real detectors.
    DETECTORS.names()
    monkeypatch.setattr(DETECTORS, "_plugins", dict(DETECTORS._plugins))
    monkeypatch.setattr(DETECTORS, "_tags", dict(DETECTORS._tags))


def rows_of(config=MARKET):
    time = market_of(config).bars.time
    return Table(time, np.zeros((len(time), 0)), ())


# The detector that knows


def test_the_truth_is_the_regime_of_each_bar_and_nothing_after_it():
    rows = rows_of()
    truth = Truth(TruthConfig(market=MARKET)).fit(rows[:200])
    whole = truth.update(rows).values
    assert (whole.argmax(axis=1) == market_of(MARKET).regime).all()
    assert (whole.max(axis=1) == 1).all()
    assert len(np.unique(whole.argmax(axis=1))) > 1
    assert np.array_equal(truth.fresh().update(rows[:250]).values, whole[:250])
    assert truth.fitted_until == rows.time[199]
    # Negative control: the truth about another market is another one.
    other = MARKET.model_copy(update={"seed": 6})
    assert not np.array_equal(Truth(TruthConfig(market=other)).fit(rows).update(rows).values, whole)


def test_the_truth_answers_for_no_bar_that_is_not_of_its_market():
    rows = rows_of()
    truth = Truth(TruthConfig(market=MARKET.model_copy(update={"n_bars": 300})))
    with pytest.raises(DataError, match="seed 5 has no bar at 2017-01-13"):
        truth.fit(rows)


def test_the_truth_is_saved_and_loaded_to_the_same_answers(tmp_path):
    DETECTORS.register("truth")(Truth)
    rows = rows_of()
    truth = Truth(TruthConfig(market=MARKET)).fit(rows)
    truth.save(tmp_path)
    loaded = load_detector(tmp_path)
    assert np.array_equal(loaded.chain, truth.chain)
    assert np.array_equal(loaded.update(rows).values, truth.update(rows).values)


# Against perfect regimes


def test_the_clairvoyant_differs_by_its_regimes_alone():
    assert "truth" not in DETECTORS  # importing the benchmark registers nothing
    config = load(ValidateConfig, "validate.yaml", [*validation_truth.DEFAULTS, *TINY])
    best = clairvoyant(config)
    own, its = (one.model_dump() for one in (config, best))
    assert {name for name in own if own[name] != its[name]} == {
        "detector", "path", "specialists", "random_routing"
    }  # fmt: skip
    assert own["specialists"] | {"generalist": False} == its["specialists"]
    assert best.path.min_dwell_bars == 1


def test_a_small_market_is_walked_by_detected_and_by_true_regimes(monkeypatch, capsys):
    seen, compare = [], validation_truth.compare
    monkeypatch.setattr(validation_truth, "compare", lambda *given: seen.append(compare(*given)) or seen[-1])
    code = main(["--markets", "1", "--first-seed", "3", "--set", *TINY])
    printed = capsys.readouterr().out
    (found,) = seen
    synthetic = SyntheticConfig(n_bars=11_000, steps=8, seed=3)
    rows = found.ensemble.rows
    assert rows == found.clairvoyant.rows
    assert np.array_equal(found.ensemble.bars.time, market_of(synthetic).bars.time)
    truth = market_of(synthetic).regime[rows]
    assert (found.clairvoyant.blend.label == truth).all()
    assert (found.ensemble.blend.label != truth).any()
    assert 1 / 3 < found.accuracy < 1
    assert len(found.ensemble.folds) == 3
    assert code == int(not found.ratio >= 0.8)
    assert f"ratio {found.ratio:5.2f}; rank {found.rank} of {1 + len(found.ensemble.baselines)}" in printed
    for name in (*found.ensemble.baselines, "route", "equal", "online"):
        assert f"\n  {name}" in printed
    assert "one generalist, same budget" in found.ensemble.baselines


def account(sharpe):
    return SimpleNamespace(metrics=SimpleNamespace(sharpe=sharpe))


def made(own, best, rivals=(0.5, math.nan)):
    parts = {"blender": "route", "blenders": {}, "folds": (), "time": ()}
    ensemble = SimpleNamespace(
        result=account(own), baselines={f"rival {i}": account(one) for i, one in enumerate(rivals)}, **parts
    )
    return Market(ensemble, SimpleNamespace(result=account(best), **parts), 0.9)


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        (((0.9, 1.0), (0.8, 1.0)), 0),
        (((0.9, 1.0), (0.6, 1.0)), 1),
        (((0.9, 1.0), (0.9, -1.0)), 1),  # nothing to be reached: no proof of anything
    ],
)
def test_less_than_four_fifths_of_what_perfect_regimes_bring_fails(monkeypatch, capsys, pairs, code):
    waiting = [made(*pair) for pair in pairs]
    monkeypatch.setattr(validation_truth, "compare", lambda *_: waiting.pop(0))
    assert main(["--markets", "2"]) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("FAIL" if code else "ok")


def test_the_rank_counts_the_baselines_that_are_not_behind():
    assert made(1.0, 1.0).rank == 1
    assert made(0.4, 1.0).rank == 2
    assert made(-0.1, 1.0).rank == 3  # what never moves has earned nothing, which is more
    assert "first of all in 1 of 2 markets" in "\n".join(table([made(1.0, 2.0), made(0.4, 1.0)]))
    assert math.isnan(made(1.0, 0.0).ratio)


# Where there is nothing to find


@pytest.fixture
def small(monkeypatch):
    pytest.importorskip("arch")
    monkeypatch.setitem(null_validation.SMALL, "detector", {"name": "volatility"})


def standard_errors(found):
    return found.earned * math.sqrt(found.n_bars)


@pytest.mark.usefixtures("small")
def test_a_whole_small_walk_forward_in_noise_earns_nothing_and_fails():
    bars = null_validation.random_walk(null_validation.BARS["ensemble"], 1)
    found = null_validation.PIPELINES["ensemble"](bars, 1)
    assert not found.passed
    assert 0 <= found.pbo <= 1
    assert 4_000 < found.n_bars < len(bars) / 2
    assert found.earned != 0
    assert abs(standard_errors(found)) < 4


@pytest.mark.usefixtures("small")
def test_the_same_walk_forward_earns_where_features_are_a_bar_early(monkeypatch):
    class Early(FeaturePipeline):
        def update(self, new):
            known = super().update(new)
            return replace(known, values=np.vstack([known.values[1:], known.values[-1:]]))

    monkeypatch.setattr(rerun, "FeaturePipeline", Early)
    bars = null_validation.random_walk(null_validation.BARS["ensemble"], 1)
    found = null_validation.ensemble(bars, 1)
    assert standard_errors(found) > 4
    assert found.skill > 0.95

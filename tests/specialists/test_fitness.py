import math
import pickle

import numba
import numpy as np
import pytest

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.metrics import sharpe
from backtest.venue import Venue
from compute.seeds import stream
from configs.load import ConfigError
from specialists.fitness import FEW, Fitness, FitnessConfig, origin_composite
from specialists.specialist import Specialist, awake_rows, decision_rows
from specialists.training import judge
from tests.specialists.ground import small_config, small_evolved, small_ground

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="minutes, uncompiled")


def small_fitness(costs=None, limits=None, venue=None, **config):
    ground, specialist = small_ground(), small_evolved().specialist
    train = ground.split.train
    rows = decision_rows(specialist.family, specialist.scaler, ground.features[train])
    awake = awake_rows(specialist.regime, ground.regime_labels[train], rows)
    settings = FitnessConfig(**{"folds": 4, "min_trades": 5} | config)
    rules = costs or Costs(), limits or small_config().limits, venue or Venue()
    return Fitness(specialist.family, ground.bars[train], rows, awake, *rules, settings)


def some_genes(p=32, seed=1):
    return small_evolved().specialist.family.space.sample(stream(seed, "genes"), p)


def test_the_kernel_earns_what_the_streaming_specialist_earns_in_the_simulator():
    evolved, ground = small_evolved(), small_ground()
    result = judge(evolved.specialist, ground, ground.split.train, Costs())
    genes = evolved.specialist.genome.genes[None, :]
    statistics = small_fitness().statistics(genes)[0]
    returns = result.curve.column("net_return")
    assert statistics[:, 0].sum() == pytest.approx(returns.sum(), rel=1e-12)
    assert statistics[:, 1].sum() == pytest.approx((returns**2).sum(), rel=1e-12)
    assert statistics[:, 3].sum() == len(result.trades)
    assert np.prod(statistics[:, 4]) == pytest.approx(result.curve.column("equity")[-1] / 10_000, rel=1e-12)
    assert statistics[-1, 5] == pytest.approx(result.metrics.max_drawdown, rel=1e-9)


PLACES = {
    "a perpetual at five times": ({}, {"max_exposure": 3.0}, {"kind": "perpetual", "leverage": 5}),
    "spot with lots": ({}, {"long_only": True}, {"kind": "spot", "lot": 0.05, "min_notional": 10}),
    "thin bars": ({"participation": 1e-4, "size_impact": 1.0, "maker_fee_bps": 2}, {}, {}),
    "a nervous account": ({}, {"trail": 0.03, "daily_loss": 0.01, "max_drawdown": 0.1}, {}),
}


@compiled
@pytest.mark.parametrize("place", PLACES)
def test_what_is_evolved_is_what_trades_wherever_the_account_is(place):
    costs, limits, venue = PLACES[place]
    costs, limits, venue = Costs(**costs), RiskLimits(**limits), Venue(**venue)
    ground, known = small_ground(), small_evolved().specialist
    train = ground.split.train
    specialist = Specialist(
        known.family, known.genome, known.regime, known.scaler, limits, known.fitted_until
    )
    result = judge(specialist, ground, train, costs, venue)
    statistics = small_fitness(costs, limits, venue).statistics(known.genome.genes[None, :])[0]
    returns = result.curve.column("net_return")
    assert np.count_nonzero(returns) > 20
    assert statistics[:, 0].sum() == pytest.approx(returns.sum(), rel=1e-12)
    assert statistics[:, 3].sum() == len(result.trades)
    assert not np.array_equal(returns, judge(known, ground, train, Costs()).curve.column("net_return"))


def test_fitness_is_the_mean_of_the_fold_ratios_less_their_standard_error():
    fitness = small_fitness(confidence=2.0, min_trades=0)
    evolved, ground = small_evolved(), small_ground()
    result = judge(evolved.specialist, ground, ground.split.train, Costs())
    returns = result.curve.column("net_return")
    n = len(returns)
    ratios = []
    for i in range(4):
        fold = returns[i * n // 4 : (i + 1) * n // 4]
        ratios.append(sharpe(fold, 8760) if fold.any() else 0.0)
    expected = np.mean(ratios) - 2.0 * np.std(ratios, ddof=1) / math.sqrt(4)
    answer = fitness(evolved.specialist.genome.genes[None, :])
    assert answer[0, 0] == pytest.approx(expected, rel=1e-9)
    assert answer[0, 1] == pytest.approx(sharpe(returns, 1), rel=1e-9)


def test_fitness_of_a_genome_does_not_depend_on_its_company():
    fitness, genes = small_fitness(), some_genes(70)
    together = fitness(genes)
    alone = np.vstack([fitness(one[None, :]) for one in genes])
    assert together.tobytes() == alone.tobytes()


def test_a_genome_that_trades_too_little_scores_below_zero_and_climbs_with_each_trade():
    fitness = small_fitness(min_trades=1_000)
    genes = some_genes(200)
    trades = fitness.statistics(genes)[:, :, 3].sum(axis=1)
    answer = fitness(genes)[:, 0]
    assert (answer < 0).all()
    assert (answer <= FEW * (1 - trades / 1_000)).all()
    assert answer[trades == 0] == pytest.approx(FEW)


def test_more_costs_never_help():
    genes = some_genes(100)
    cheap = small_fitness(Costs().scaled(0.5)).statistics(genes)[:, :, 4].prod(axis=1)
    dear = small_fitness(Costs().scaled(2.0)).statistics(genes)[:, :, 4].prod(axis=1)
    assert (dear <= cheap).all()
    assert (dear < cheap).any()


def test_altering_later_bars_changes_no_earlier_fold():
    fitness, genes = small_fitness(), some_genes(20)
    before = fitness.statistics(genes)
    n = len(fitness.bars)
    values = fitness.bars.values.copy()
    values[3 * n // 4 :, :4] *= 7.0
    values[3 * n // 4 :, 4] = 0.0
    from dataclasses import replace

    altered = replace(fitness, bars=replace(fitness.bars, values=values))
    after = altered.statistics(genes)
    assert after[:, :3].tobytes() == before[:, :3].tobytes()
    assert not np.array_equal(after[:, 3], before[:, 3])


def test_fitness_travels_to_workers():
    fitness, genes = small_fitness(), some_genes(5)
    again = pickle.loads(pickle.dumps(fitness))
    assert again(genes).tobytes() == fitness(genes).tobytes()


def test_sortino_uses_the_downside_only():
    genes = some_genes(50)
    statistics = small_fitness().statistics(genes)
    sortino = small_fitness(measure="sortino", confidence=0, min_trades=0)(genes)[:, 0]
    n = np.diff((np.arange(0, 5) * len(small_fitness().bars)) // 4)
    downside = np.sqrt(statistics[:, :, 2] / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(downside > 1e-9, statistics[:, :, 0] / n / downside, 0.0)
    assert sortino == pytest.approx(ratio.mean(axis=1) * math.sqrt(8760), rel=1e-9)


def test_the_origin_composite_is_its_published_sum():
    trades = np.zeros(
        3, dtype=[("side", "i1"), ("entry_price", "f8"), ("exit_price", "f8"), ("pnl", "f8"), ("bars", "i8")]
    )
    trades["side"] = (1, -1, 1)
    trades["entry_price"] = (100, 100, 100)
    trades["exit_price"] = (110, 95, 98)
    trades["pnl"] = (100.0, 50.0, -20.0)
    trades["bars"] = (2, 2, 2)
    equity = np.array([10_100.0, 10_150.0, 10_130.0])
    returns = np.array([0.10, 0.05, -0.02])
    ratio = returns.mean() / returns.std() * math.sqrt(252 / 2)
    expected = 10 * ratio + 20 * 0.013 + 5 * 2 / 3 - 15 * (20 / 10_150) + 3 * 3.0
    assert origin_composite(trades, equity, 10_000.0) == pytest.approx(expected)
    assert origin_composite(trades[:0], equity, 10_000.0) == 0.0


def test_the_origin_measure_scores_the_same_trades_as_the_simulator():
    fitness, genes = small_fitness(measure="origin"), some_genes(4)
    answer = fitness(genes)[:, 0]
    assert np.isfinite(answer).all()
    assert len(set(answer.tolist())) > 1


def test_a_delay_in_fitness_is_refused():
    with pytest.raises(ConfigError, match="delay_bars is 1"):
        small_fitness(Costs(delay_bars=1))

"""The alarm that watches the whole: where there is nothing to earn, the whole job must earn nothing."""

from dataclasses import replace

import numpy as np

from backtest.costs import Costs, ImpactBucket
from compute.workers import SerialMapper
from configs.load import PluginConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.training import SpecialistConfig, evolve_specialist, open_test, prepare

FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
SMALL = {
    "costs": FREE,
    "detector": PluginConfig(name="volatility"),
    "fitness": {"folds": 5, "min_trades": 20},
    "hyperparameters": {"population_size": 64, "n_generations": 12, "patience": 0},
}
REGIMES = ("ranging", "trending", "volatile")


def out_of_sample_sharpes(n_markets, alter=lambda ground: ground):
    sharpes = []
    for seed in range(40, 40 + n_markets):
        market = synthetic_market(SyntheticConfig(scenario="random_walk", n_bars=14_000, seed=seed, steps=16))
        regime = REGIMES[seed % 3]
        config = SpecialistConfig.model_validate({**SMALL, "regime": regime, "seed": seed})
        ground = alter(prepare(market.bars, config))
        champion = evolve_specialist(ground, config, SerialMapper()).specialist
        sharpes.append(open_test(ground, champion, FREE).champion.metrics.sharpe)
    return np.nan_to_num(np.array(sharpes))


def with_tomorrows_features(ground):
    values = np.vstack([ground.features.values[1:], ground.features.values[-1:]])
    return replace(ground, features=replace(ground.features, values=values))


def test_on_a_random_walk_without_costs_champions_earn_nothing_out_of_sample():
    sharpes = out_of_sample_sharpes(12)
    error = sharpes.std(ddof=1) / np.sqrt(sharpes.size)
    assert abs(sharpes.mean()) < 3.5 * error
    assert abs(sharpes.mean()) < 1.5


def test_the_same_alarm_rings_when_a_feature_is_one_bar_early():
    sharpes = out_of_sample_sharpes(3, with_tomorrows_features)
    assert sharpes.min() > 3

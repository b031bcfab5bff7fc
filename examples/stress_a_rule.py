"""Ask of a rule what is left of it in a crisis, at higher costs, a bar later, and on other paths.

``python examples/stress_a_rule.py``
"""

import numpy as np

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS
from backtest.stress import stress
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table

FEATURES = FeaturesConfig(names=("ema_gap_48_192", "atr_14"))


def decide(bars: Bars) -> Table:
    """Long while the fast average stands above the slow one; a stop four average ranges below the fill."""
    features = transform(FeaturePipeline(FEATURES), bars)
    exposure = np.where(np.nan_to_num(features.column("ema_gap_48_192")) > 0.5, 0.5, 0.0)
    stop = 4.0 * np.nan_to_num(features.column("atr_14"), nan=0.05)
    return Table(bars.time, np.column_stack([exposure, stop, np.full(len(bars), np.inf)]), TARGETS)


market = SyntheticConfig(n_bars=12_000, seed=4, start="20180701")
bars = synthetic_market(market).bars
report = stress(
    decide(bars),
    bars,
    Costs(),
    RiskLimits(),
    seed=7,
    decide=decide,  # asked again on each path of the market
    n_paths=2_000,
    n_markets=20,
    mean_block=48.0,  # leave it out, and the library arch chooses it (extra "validation")
)
print(report)

"""Trade a rule of your own over bars, with every cost on the bill.

``python examples/simulate_a_rule.py``
"""

import numpy as np

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, simulate
from market.causal import transform
from market.features.pipeline import FeaturePipeline
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table

bars = synthetic_market(SyntheticConfig(n_bars=12_000, seed=4)).bars
features = transform(FeaturePipeline(), bars)

# Long while the fast average stands above the slow one; a stop four average ranges below the fill.
trend = features.column("ema_gap_48_192")
exposure = np.where(np.nan_to_num(trend) > 0.5, 0.5, 0.0)
stop = 4.0 * np.nan_to_num(features.column("atr_14"), nan=0.05)
targets = Table(bars.time, np.column_stack([exposure, stop, np.full(len(bars), np.inf)]), TARGETS)

result = simulate(targets, bars, Costs(), RiskLimits())
metrics = result.metrics
print(f"{len(result.trades)} trades, return {metrics.total_return:+.1%}, Sharpe {metrics.sharpe:.2f}")
for assumption in result.assumptions:
    print("-", assumption)

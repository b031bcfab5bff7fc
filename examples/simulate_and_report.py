"""Trade a rule on the later half of the bars, and write its tear sheet: one page that needs nothing else.

``python examples/simulate_and_report.py`` and open the page it names in a browser.
"""

import tempfile
from pathlib import Path

import numpy as np

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, hold, simulate
from backtest.tearsheet import write_tearsheet
from backtest.venue import Venue
from market.causal import transform
from market.features.pipeline import FeaturePipeline
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table

bars = synthetic_market(SyntheticConfig(n_bars=24_000, seed=4)).bars
features = transform(FeaturePipeline(), bars)

# With the trend in both directions; a stop and a target at multiples of the average range.
trend = np.nan_to_num(features.column("ema_gap_48_192"))
exposure = np.where(trend > 0.5, 0.5, np.where(trend < -0.8, -0.4, 0.0))
stop = 4.0 * np.nan_to_num(features.column("atr_14"), nan=0.05)
targets = Table(bars.time, np.column_stack([exposure, stop, 2.0 * stop]), TARGETS)

later = slice(12_000, None)
venue = Venue(kind="perpetual", leverage=2)
result = simulate(targets, bars, Costs(), RiskLimits(), venue=venue, rows=later)
held = simulate(hold(bars), bars, Costs(), RiskLimits(stop=None), rows=later)

page = write_tearsheet(
    result,
    Path(tempfile.mkdtemp(prefix="tearsheet-")),
    title=f"Trend rule on {bars.label}",
    sample="out-of-sample",  # say it only of bars that had no part in choosing the rule
    bars=bars,
    benchmarks={"buy and hold": held},
)
print(f"{len(result.trades)} trades, Sharpe {result.metrics.sharpe:.2f}: {page}")

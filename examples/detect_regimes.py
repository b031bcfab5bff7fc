"""Detect regimes from Python: fit on the past, filter forward, and ask what comes next.

``python examples/detect_regimes.py``
"""

from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes.accuracy import balanced_accuracy
from regimes.detector import DETECTORS
from regimes.outlook import Outlook
from regimes.path import PathFilter, regime_path

market = synthetic_market(SyntheticConfig(n_bars=20_000, seed=4))
past, unseen = slice(0, 14_000), slice(14_000, None)

detector = DETECTORS.create("markov_ar")
features = transform(FeaturePipeline(FeaturesConfig(names=detector.columns)), market.bars)
detector.fit(features[past])
probabilities = transform(detector, features)  # filtered: each row from what was known at its close
path = regime_path(transform(PathFilter(), probabilities), probabilities.names)

truth = market.regime[unseen]
for name, table in (("markov_ar", probabilities), ("oracle", market.oracle)):
    accuracy = balanced_accuracy(truth, table.values[unseen].argmax(axis=1))
    print(f"{name:10s} balanced accuracy on unseen bars {accuracy:.3f}")

# Live, rows come one at a time; the answers are the same to the last bit.
live = detector.fresh()
for row in range(len(features)):
    latest = live.update(features[row : row + 1])
assert (latest.values[0] == probabilities.values[-1]).all()

outlook = transform(Outlook(detector.chain, horizons=(24,)), latest)
now = probabilities.names[path.label[-1]]
switch = outlook.column("switch_in_24")[0]
print(f"now {now} ({path.confidence[-1]:.0%} sure); chance of a switch within 24 bars: {switch:.0%}")

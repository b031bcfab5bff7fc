"""The detectors behind the real features: on a market whose truth is known, and on a real one."""

import numpy as np
import pytest

from market.bars import OHLCV, Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes.accuracy import balanced_accuracy, detection_delays
from regimes.detector import DETECTORS
from regimes.path import PathFilter, regime_path
from regimes.regime import Regime

COLUMNS = ("range_1", "body_1", "parkinson_24", "efficiency_24", "efficiency_72", "variance_ratio_96")


@pytest.fixture(scope="module")
def synthetic():
    market = synthetic_market(SyntheticConfig())
    return market, transform(FeaturePipeline(FeaturesConfig(names=COLUMNS)), market.bars)


@pytest.mark.parametrize(("name", "least"), [("hmm", 0.65), ("volatility", 0.6)])
def test_regimes_of_the_synthetic_market_are_found_out_of_sample(name, least, synthetic):
    market, features = synthetic
    first = int(0.6 * len(features))
    detector = DETECTORS.create(name).fit(features[:first])
    path = regime_path(transform(PathFilter(), transform(detector, features)))
    truth, label = market.regime[first:], path.label[first:]
    accuracy = balanced_accuracy(truth, label)
    assert accuracy >= least
    # The oracle knows the true parameters: nobody is better, and we are not far behind.
    best = balanced_accuracy(truth, market.oracle.values[first:].argmax(axis=1))
    assert accuracy < best
    assert np.median(detection_delays(truth, label)) <= 36
    assert (path.share() > 0.08).all()


def real_bars(folder):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.read_table(folder / "ohlcv" / "btcusdt_binance_spot_1h.parquet")
    opened = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    hour = 3_600_000_000_000
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    return Bars(opened + hour, values, OHLCV, symbol="BTC/USDT", interval_ns=hour)


def test_on_real_bars_every_regime_lives_in_every_year(shared_data):
    features = transform(FeaturePipeline(FeaturesConfig(names=COLUMNS)), real_bars(shared_data))
    first = int(0.6 * len(features))
    detector = DETECTORS.create("hmm").fit(features[:first])
    assert detector.summary.converged
    path = regime_path(transform(PathFilter(), transform(detector, features)))
    year = features.time.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    for one in range(2018, 2025):
        share = np.bincount(path.label[year == one], minlength=3) / (year == one).sum()
        assert (share >= 0.08).all(), (one, share)
    assert (path.mean_dwell() >= 12).all()
    # Out of sample the regimes are what their names say.
    later = {regime: path.label[first:] == regime for regime in Regime}
    level, ratio = (features.column(name)[first:] for name in ("parkinson_24", "variance_ratio_96"))
    assert level[later[Regime.VOLATILE]].mean() > 1.1 * level[later[Regime.TRENDING]].mean()
    assert ratio[later[Regime.TRENDING]].mean() > ratio[later[Regime.RANGING]].mean() + 0.05

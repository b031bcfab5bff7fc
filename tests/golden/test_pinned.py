"""Numbers of whole jobs on a seeded market, pinned: they move on purpose only, with a changelog line."""

import numpy as np
import pytest

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import simulate
from compute.seeds import stream
from ga.space import Genome
from market.causal import transform
from market.features.pipeline import FeaturePipeline
from market.scaling import Scaler
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.regime import Regime
from specialists.family import FAMILIES
from specialists.specialist import Specialist

MARKET = SyntheticConfig(n_bars=6_000, seed=11, start="20210101")

PINNED_CLOSES = [29980.49434090128, 20759.40007291714, 21599.80022732813]
PINNED_FEATURES = [
    -0.05536308178714909,
    -0.5896968724852342,
    0.46297859015242687,
    -3.580860600404635,
    0.006064475153117336,
    -0.18648985261472137,
    0.597150581956772,
]
# trades, total return, Sharpe, deepest drawdown
PINNED_RESULTS = {
    "blend": [47, -0.13866197165492866, -0.8522808731641395, -0.19106644046006316],
    "origin8": [32, -0.029716791541478327, -2.5276038353418313, -0.030663833015228792],
}


def specialist_result(family_name):
    market = synthetic_market(MARKET)
    features = transform(FeaturePipeline(), market.bars)
    family = FAMILIES.create(family_name)
    scaler = Scaler.fit(features[2_000:4_000].select(family.signals)) if family.signals else None
    # One stratum of eight per gene, drawn here: how a search samples its first population may change.
    rng, d = stream(1, "golden"), family.space.n_genes
    strata = rng.permuted(np.broadcast_to(np.arange(8.0)[:, None], (8, d)), axis=0)
    genes = ((strata + rng.random((8, d))) / 8)[3]
    genome = Genome(genes, space=family.space.name)
    specialist = Specialist(family, genome, Regime.VOLATILE, scaler, RiskLimits(), 0)
    labels = Table(market.bars.time, market.regime[:, None].astype(float), ("label",))
    targets = specialist.update(market.bars, features, labels)
    return simulate(targets, market.bars, Costs(), RiskLimits())


def test_the_synthetic_market_is_the_one_every_result_stands_on():
    bars = synthetic_market(MARKET).bars
    assert bars.column("close")[[0, 999, 5_999]] == pytest.approx(PINNED_CLOSES, rel=1e-9)


def test_the_features_of_one_row_are_pinned():
    features = transform(FeaturePipeline(), synthetic_market(MARKET).bars)
    names = ("return_24", "rsi_14", "adx_14", "ema_gap_48_192", "parkinson_24", "mfi_14", "efficiency_24")
    row = [features.column(name)[5_000] for name in names]
    assert row == pytest.approx(PINNED_FEATURES, rel=1e-7)


@pytest.mark.parametrize("family", ["blend", "origin8"])
def test_a_fixed_genome_earns_what_it_earned(family):
    result = specialist_result(family)
    metrics = result.metrics
    found = [len(result.trades), metrics.total_return, metrics.sharpe, metrics.max_drawdown]
    assert found == pytest.approx(PINNED_RESULTS[family], rel=1e-7)
    assert np.isfinite(result.curve.values).all()

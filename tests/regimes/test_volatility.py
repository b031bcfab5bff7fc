import numpy as np
import pytest

from configs.load import ConfigError, validate
from market.causal import transform
from regimes.accuracy import balanced_accuracy
from regimes.regime import Regime
from regimes.volatility import VolatilityConfig, VolatilityDetector
from tests.reference.regimes import small_market


@pytest.fixture(scope="module")
def market():
    return small_market(9000, seed=2)


def test_the_rule_finds_regimes_out_of_sample(market):
    truth, features = market
    detector = VolatilityDetector(VolatilityConfig(baseline_bars=0)).fit(features[:5000])
    label = transform(detector, features[5000:]).values.argmax(axis=1)
    assert balanced_accuracy(truth[5000:], label) > 0.65
    assert balanced_accuracy(truth[5000:], np.roll(label, 1000)) < 0.5  # control


def test_thresholds_are_quantiles_of_the_training_rows(market):
    config = VolatilityConfig(baseline_bars=0)
    detector = VolatilityDetector(config).fit(market[1][:5000])
    level = np.log(market[1].column("parkinson_24")[:5000])
    standard = (level - level.mean()) / level.std()
    assert detector._enter[0] == pytest.approx(np.quantile(standard, 0.8))
    assert detector._leave[0] == pytest.approx(np.quantile(standard, 0.6))
    slow = market[1].column("efficiency_72")[:5000]
    calm = ((slow - slow.mean()) / slow.std())[standard < detector._enter[0]]
    assert detector._enter[1] == pytest.approx(np.quantile(calm, 0.7))


def test_hysteresis_makes_fewer_switches(market):
    switches = []
    for leave in (0.6, 0.8):
        config = VolatilityConfig(baseline_bars=0, volatile_leave=leave, trending_leave=leave - 0.3)
        detector = VolatilityDetector(config.model_copy()).fit(market[1][:5000])
        switches.append((np.diff(transform(detector, market[1]).values.argmax(axis=1)) != 0).sum())
    assert switches[0] < 0.8 * switches[1]


def test_confidence_grows_with_the_distance_from_the_threshold(market):
    detector = VolatilityDetector(VolatilityConfig(baseline_bars=0)).fit(market[1][:5000])
    out = transform(detector, market[1][5000:])
    volatile = out.values.argmax(axis=1) == Regime.VOLATILE
    level = market[1].column("parkinson_24")[5000:][volatile]
    confidence = out.column("volatile")[volatile]
    order = np.argsort(level)
    fifth = len(order) // 5
    assert confidence[order[-fifth:]].mean() > confidence[order[:fifth]].mean() + 0.1


def test_a_level_relative_to_its_past_keeps_every_regime_when_volatility_fades():
    # Volatility falls by a factor of four over the series: an absolute rule runs out of volatile rows.
    _, features = small_market(24_000, seed=6, dwell_bars=80)
    values = features.values.copy()
    values[:, 0] *= np.exp(-np.linspace(0, np.log(4), 24_000))
    fading = type(features)(features.time, values, features.names)
    shares = {}
    for baseline in (0, 2000):
        detector = VolatilityDetector(VolatilityConfig(baseline_bars=baseline)).fit(fading[:12_000])
        label = transform(detector, fading).values.argmax(axis=1)[-6000:]
        shares[baseline] = (label == Regime.VOLATILE).mean()
    assert shares[2000] > 0.15
    assert shares[0] < 0.05


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"volatile_leave is 0\.9; it must not lie above"):
        validate(VolatilityConfig, {"volatile_leave": 0.9}, "detector volatility")

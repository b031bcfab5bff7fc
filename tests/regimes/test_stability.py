"""Names of regimes survive a refit: on shifted windows, fits agree on the rows that both have seen."""

import itertools

import numpy as np
import pyarrow.parquet
import pytest

from market.bars import OHLCV, Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes.detector import DETECTORS
from regimes.refits import RefitSchedule, agreement, continuity, fit_schedule
from regimes.regime import Regime, RegimeProbabilities

WINDOW, SHIFT = 10_000, 2_000  # a fifth of the length
LEAST = 0.95


def described(bars, columns):
    return transform(FeaturePipeline(FeaturesConfig(names=tuple(columns))), bars)


def two_fits(name, scenario, seed):
    """Detectors fitted on a window and on the one a fifth later, and the rows of both."""
    bars = synthetic_market(SyntheticConfig(scenario=scenario, seed=seed, n_bars=WINDOW + SHIFT)).bars
    features = described(bars, DETECTORS.create(name).columns)
    one, other = (DETECTORS.create(name).fit(features[first : first + WINDOW]) for first in (0, SHIFT))
    return one, other, features[SHIFT:WINDOW]


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("scenario", ["separated", "overlapping"])
@pytest.mark.parametrize("name", ["markov_ar", "hmm"])
def test_fits_on_shifted_windows_agree_where_regimes_persist(name, scenario, seed):
    one, other, shared = two_fits(name, scenario, seed)
    assert one.fitted_until != other.fitted_until
    assert agreement(one, other, shared) >= LEAST


class Misnamed:
    """Broken on purpose: the names follow the numbers that a fit happened to give to its states."""

    def __init__(self, detector, order):
        self.detector, self.order = detector, order

    def fresh(self):
        return Misnamed(self.detector.fresh(), self.order)

    def update(self, features):
        rows = self.detector.update(features)
        return RegimeProbabilities(rows.time, rows.values[:, self.order], rows.names)


def test_names_that_follow_the_order_of_a_fit_are_found():
    one, other, shared = two_fits("volatility", "separated", 7)
    for order in ([1, 0, 2], [0, 2, 1], [2, 1, 0]):
        assert agreement(one, Misnamed(other, order), shared) < 0.8


@pytest.fixture(scope="module")
def real_history(shared_data):
    """Features of the first 60 % of hourly BTC/USDT; no test chooses anything by the rest."""
    table = pyarrow.parquet.read_table(shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet")
    opened = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    hour = 3_600_000_000_000
    values = np.column_stack([table[name].to_numpy() for name in OHLCV])
    bars = Bars(opened + hour, values, OHLCV, symbol="BTC/USDT", interval_ns=hour)
    return described(bars[: int(0.6 * len(bars))], DETECTORS.create("markov_ar").columns)


def test_on_real_bars_expanding_refits_keep_the_meaning_of_the_regimes(real_history):
    # Real volatility is no staircase: the edges between neighbors move a little with the window, and no fit
    # takes a calm market for a wild one.
    schedule = RefitSchedule(first_bars=20_000, every_bars=8_000)
    refitted = fit_schedule("markov_ar", {}, real_history, schedule)
    assert len(refitted.members) == 3
    assert min(continuity(refitted, real_history)) > 0.9
    labels = [transform(member, real_history[:20_000]).values.argmax(axis=1) for member in refitted.members]
    extremes = (Regime.RANGING, Regime.VOLATILE)
    for before, after in itertools.pairwise(labels):
        swapped = np.isin(before, extremes) & np.isin(after, extremes) & (before != after)
        assert swapped.mean() < 0.005
        assert (before != after).any()  # what is asserted above is not empty

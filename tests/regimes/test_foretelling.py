"""The yardstick of regimes: proper densities, fitted on training rows, of bars that have not happened yet."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import t as student

from market.bars import Bars
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes import foretelling
from regimes.chain import counted_chain
from regimes.foretelling import RANGE, RETURN, foretold, foretold_without
from regimes.regime import REGIME_NAMES, RegimeProbabilities

TRAIN, N = slice(0, 4000), 6000


@pytest.fixture(scope="module")
def market():
    return synthetic_market(SyntheticConfig(n_bars=N, seed=101))


@pytest.fixture(scope="module")
def known(market):
    # The oracle's filtered probabilities, and the chain of the truth on the training rows.
    probabilities = RegimeProbabilities(market.bars.time, market.oracle.values, REGIME_NAMES)
    return probabilities, counted_chain(market.regime[TRAIN], 3)


def held_out(rows):
    return np.nanmean(rows[TRAIN.stop :], axis=0)


def test_knowing_the_regimes_pays_in_both_columns(market, known):
    gain = held_out(foretold(*known, market.bars, TRAIN) - foretold_without(market.bars, TRAIN))
    assert gain[RETURN] > 0.02
    assert gain[RANGE] > 0.1


def test_probabilities_that_know_nothing_gain_nothing(market, known):
    probabilities, chain = known
    shuffled = np.random.default_rng(0).permutation(probabilities.values)
    blind = RegimeProbabilities(market.bars.time, shuffled, REGIME_NAMES)
    gain = held_out(foretold(blind, chain, market.bars, TRAIN) - foretold_without(market.bars, TRAIN))
    assert (np.abs(gain) < 0.01).all()


def test_only_the_probabilities_of_the_row_before_are_used(market, known):
    probabilities, chain = known
    before = foretold(probabilities, chain, market.bars, TRAIN)
    for row in (4500, 5999):
        values = probabilities.values.copy()
        values[row:] = [1.0, 0.0, 0.0]
        altered = RegimeProbabilities(market.bars.time, values, REGIME_NAMES)
        after = foretold(altered, chain, market.bars, TRAIN)
        np.testing.assert_array_equal(before[: row + 1], after[: row + 1])
        assert row == N - 1 or (before[row + 1 :] != after[row + 1 :]).any()  # control


def test_held_out_bars_change_neither_the_laws_nor_the_rows_before_them(market, known):
    values = market.bars.values.copy()
    values[5000:, :4] *= 2.0
    doubled = Bars(market.bars.time, values, market.bars.names, market.bars.symbol, market.bars.interval_ns)
    one, other = (foretold(*known, bars, TRAIN) for bars in (market.bars, doubled))
    np.testing.assert_array_equal(one[:5000], other[:5000])
    assert one[5000, RETURN] != other[5000, RETURN]


def test_the_densities_integrate_to_one(market, known):
    # The density of the next return, as a function of that return, everything before it given.
    probabilities, chain = known
    row, bars = 5000, market.bars
    close = bars.column("close")

    def density(log_return):
        values = bars.values[: row + 1].copy()
        values[row, :4] = close[row - 1] * np.exp(log_return) * np.array([1.0, 1.001, 0.999, 1.0])
        cut = Bars(bars.time[: row + 1], values, bars.names, bars.symbol, bars.interval_ns)
        return values, cut

    log_return = np.append(np.nan, np.diff(np.log(close)))
    relative, level = foretelling.relative(log_return, np.log(bars.column("high") / bars.column("low")))
    law = foretelling.fit_laws(relative[2:4000, RETURN], (probabilities.values[1:3999] @ chain))
    ahead = (probabilities.values[row - 1] @ chain)[None]

    def at(log_return):
        value = np.array([log_return / np.exp(level[row])])
        log = foretelling.log_mixture(foretelling.log_densities(value, law), ahead) - level[row]
        return float(np.exp(log[0]))

    assert quad(at, -1.0, 1.0, points=[0.0], limit=200)[0] == pytest.approx(1.0, abs=1e-4)
    # And the public function says the same of a bar that is changed to that return.
    _, cut = density(0.004)
    said = foretold(probabilities[: row + 1], chain, cut, TRAIN)[row, RETURN]
    assert np.exp(said) == pytest.approx(at(0.004), rel=0.02)


def test_one_regime_is_the_maximum_likelihood_student():
    values = student(4.0, 0.3, 2.0).rvs(5000, random_state=3)
    law = foretelling.fit_laws(values, np.ones((5000, 1)))
    best = student(*student.fit(values)).logpdf(values).sum()
    found = foretelling.log_densities(values, law).sum()
    assert found == pytest.approx(best, abs=0.05)
    assert law[0] == pytest.approx([0.3, 2.0, 4.0], rel=0.15)


def test_planted_laws_are_found_under_uncertain_weights():
    random = np.random.default_rng(5)
    ahead = random.dirichlet([0.5, 0.5], 20_000)
    state = (random.random(20_000) > ahead[:, 0]).astype(int)
    values = np.array([0.0, 1.0])[state] + np.array([0.5, 3.0])[state] * random.standard_t(6, 20_000)
    law = foretelling.fit_laws(values, ahead)
    np.testing.assert_allclose(law[:, 0], [0.0, 1.0], atol=0.1)
    np.testing.assert_allclose(law[:, 1], [0.5, 3.0], rtol=0.06)
    assert (np.abs(law[:, 2] - 6) < 2).all()


def test_unknown_rows_and_bars_that_did_not_move_are_nan(market, known):
    probabilities, chain = known
    values = market.bars.values.copy()
    values[4500, :4] = values[4499, 3]  # no range
    still = Bars(market.bars.time, values, market.bars.names, market.bars.symbol, market.bars.interval_ns)
    unknown = probabilities.values.copy()
    unknown[5000] = np.nan
    rows = foretold(RegimeProbabilities(still.time, unknown, REGIME_NAMES), chain, still, TRAIN)
    assert np.isnan(rows[[0, 4500, 5001]]).all()
    assert np.isfinite(rows[[4499, 4501, 5000, 5002]]).all()

"""Costs, delays and shaken champions: what a strategy that is real survives, and one on a needle does not."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs, ImpactBucket
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, simulate
from backtest.stress import MOST_COSTS
from compute.seeds import stream
from compute.workers import ThreadMapper
from configs.load import ConfigError
from ensemble.robustness import RobustnessConfig, perturb, perturbed, perturbed_genes, push
from ga.space import Genome
from market.bars import OHLCV, Bars
from market.scaling import Scaler
from market.table import DataError, Table
from regimes.regime import Regime
from specialists.family import FAMILIES
from specialists.specialist import Specialist

HOUR = 3_600_000_000_000
FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
FEES = Costs(fee_bps=10, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
OPEN = RiskLimits(stop=None)


def bars_of(moves):
    """Bars without gaps, from what each of them moves."""
    close = 100 * np.cumprod(1 + np.asarray(moves, dtype=np.float64))
    before = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(before, close), np.minimum(before, close)
    values = np.column_stack([before, high, low, close, np.full(close.size, 1e6)])
    return Bars(HOUR * np.arange(1, close.size + 1), values, OHLCV, "TEST", HOUR)


def wanted(bars, exposure):
    return Table(bars.time, np.asarray(exposure, dtype=np.float64)[:, None], TARGETS[:1])


def foreseen(moves):
    """Exposure that is right about the next bar: a planted edge, which no real rule has."""
    return np.append(np.sign(moves[1:]), 0.0)


def noisy(seed, n=300, scale=0.004):
    return scale * np.random.default_rng(seed).normal(size=n)


# --- costs and delays ------------------------------------------------------------------------------------


def test_the_break_even_is_where_the_costs_have_eaten_everything():
    moves = noisy(1)
    bars = bars_of(moves)
    found = push(wanted(bars, foreseen(moves)), bars, FEES, OPEN)
    assert [v.setting for v in found.costs.variants] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    scaled = [
        simulate(wanted(bars, foreseen(moves)), bars, FEES.scaled(found.break_even * by), OPEN).metrics
        for by in (0.99, 1.01)
    ]
    assert scaled[0].total_return > 0 > scaled[1].total_return


@pytest.mark.parametrize(
    ("exposure", "costs", "expected"),
    [
        (lambda moves: foreseen(moves), FREE, MOST_COSTS),  # no multiple of nothing takes it away
        (lambda moves: -foreseen(moves), FEES, 0.0),  # loses for free
        (lambda moves: np.zeros(moves.size), FEES, math.nan),  # trades nothing
    ],
)
def test_a_break_even_that_is_nowhere_is_still_a_number_to_judge(exposure, costs, expected):
    moves = noisy(1)
    bars = bars_of(moves)
    config = RobustnessConfig(cost_factors=(1.0,))  # what it takes is added
    found = push(wanted(bars, exposure(moves)), bars, costs, OPEN, config=config)
    assert found.break_even == pytest.approx(expected, nan_ok=True)


def test_an_edge_of_one_bar_is_gone_one_bar_late_and_a_slow_one_is_not():
    moves = noisy(2)
    bars = bars_of(moves)
    quick = push(wanted(bars, foreseen(moves)), bars, FREE, OPEN)
    assert quick.late(0).total_return > 0.5 > 0.3 > quick.late(1).total_return
    long = np.where(np.arange(300) < 150, 1.0, -1.0)
    slow_bars = bars_of(noisy(3) + 0.002 * long)
    slow = push(wanted(slow_bars, long), slow_bars, FEES, OPEN)
    assert slow.late(1).total_return == pytest.approx(slow.late(0).total_return, rel=0.1)
    assert slow.late(7) is None


def test_only_the_rows_that_are_traded_count():
    moves = noisy(4)
    bars = bars_of(moves)
    exposure = foreseen(moves)
    exposure[:100] = -exposure[:100]
    targets = wanted(bars, exposure)
    late = push(targets, bars, FREE, OPEN, rows=slice(100, 300)).late(0)
    only = simulate(targets, bars, FREE, OPEN, rows=slice(100, 300)).metrics
    assert late.to_dict() == only.to_dict()
    assert late.total_return > push(targets, bars, FREE, OPEN).late(0).total_return


# --- shaken champions ------------------------------------------------------------------------------------


class Rule:
    """Right about the next bar while its gene is within ``width`` of one half, wrong outside."""

    def __init__(self, bars, moves, width):
        self.bars, self.moves, self.width = bars, moves, width

    def __call__(self, sigma, draw):
        gene = perturbed_genes(np.array([0.5]), sigma, stream(1, "draw", draw))
        right = abs(gene[0] - 0.5) <= self.width
        return wanted(self.bars, foreseen(self.moves) * (1 if right else -1))


def shaken(width, workers=None, **settings):
    moves = noisy(5)
    bars = bars_of(moves)
    rule = Rule(bars, moves, width)
    settings = {"sigmas": (0.02, 0.1), "draws": 30, **settings}
    return perturb(rule, rule(0.0, 0), bars, FREE, OPEN, workers=workers, **settings)


def test_a_hill_is_told_from_a_needle():
    hill, needle = shaken(0.45), shaken(0.01)
    assert [one.sigma for one in hill] == [0.02, 0.1]
    assert [one.positive for one in hill] == [1.0, 1.0]
    assert hill[1].kept == pytest.approx(1.0)
    assert needle[0].positive < 0.6
    assert needle[1].kept < 0
    # |N(0, 1)| <= 0.1: 8 % of the draws stay on the needle at the larger deviation.
    assert needle[1].positive < needle[0].positive


def test_a_perturbed_strategy_that_is_another_one_is_refused():
    moves = noisy(5)
    bars = bars_of(moves)
    rule = Rule(bars, moves, 0.3)
    with pytest.raises(DataError, match="shaken by nothing decide otherwise than the strategy did"):
        perturb(rule, wanted(bars, -foreseen(moves)), bars, FREE, OPEN, sigmas=(0.1,), draws=1)
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"sigma is .*; it must be zero or more"):
            perturb(rule, rule(0.0, 0), bars, FREE, OPEN, sigmas=(sigma,), draws=1)


def test_workers_change_nothing_and_neither_does_asking_for_more():
    with ThreadMapper(3) as workers:
        assert shaken(0.05, workers) == shaken(0.05)
    more = shaken(0.05, draws=40)
    assert more[0].sharpe[:30] == shaken(0.05)[0].sharpe


def test_draws_that_trade_nothing_earn_nothing():
    moves = noisy(5)
    bars = bars_of(moves)

    def asleep(sigma, draw):
        return wanted(bars, foreseen(moves) * (sigma == 0))

    (found,) = perturb(asleep, asleep(0.0, 0), bars, FREE, OPEN, sigmas=(0.1,), draws=3)
    assert (found.positive, found.kept) == (0.0, 0.0)
    assert found.to_dict()["sharpe"] == [None, None, None]


def test_everything_is_plain_json():
    moves = noisy(6)
    bars = bars_of(moves)
    rule = Rule(bars, moves, 0.1)
    config = RobustnessConfig(sigmas=(0.1,), draws=4)
    found = push(rule(0.0, 0), bars, FEES, OPEN, config=config, decide=rule).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["perturbations"][0]["draws"] == 4
    assert found["delays"][1]["extra_bars"] == 1
    without = push(rule(0.0, 0), bars, FEES, OPEN, config=config).to_dict()
    assert without == {**found, "perturbations": []}


@settings(max_examples=100, deadline=None)
@given(sigma=st.floats(0, 5), seed=st.integers(0, 2**32))
def test_shaken_genes_stay_in_the_unit_cube(sigma, seed):
    genes = np.random.default_rng(seed).random(20)
    new = perturbed_genes(genes, sigma, np.random.default_rng(seed))
    assert np.all((new >= 0) & (new <= 1))
    if sigma == 0:
        np.testing.assert_array_equal(new, genes)


def test_shaken_genes_have_the_deviation_asked_for_and_do_not_heap_up_at_the_faces():
    rng = np.random.default_rng(1)
    middle = perturbed_genes(np.full(20_000, 0.5), 0.05, rng)
    assert middle.mean() == pytest.approx(0.5, abs=0.002)
    assert middle.std() == pytest.approx(0.05, rel=0.03)
    edge = perturbed_genes(np.zeros(20_000), 0.05, rng)
    assert np.mean(edge == 0.0) < 0.001  # cut off they would be half of all
    assert edge.mean() == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.03)


def specialist(name):
    family = FAMILIES.create(name, {})
    rng = np.random.default_rng(1)
    scaler = None
    if family.signals:
        table = Table(HOUR * np.arange(1, 51), rng.normal(size=(50, len(family.signals))), family.signals)
        scaler = Scaler.fit(table)
    genome = Genome(rng.random(family.space.n_genes), family.space.name, fitness=1.0)
    return Specialist(family, genome, Regime.of("trending"), scaler, RiskLimits(), fitted_until=7)


def test_a_shaken_specialist_differs_in_its_genes_alone():
    one = specialist("blend")
    same, other = (perturbed(one, sigma, np.random.default_rng(2)) for sigma in (0.0, 0.05))
    assert same.fingerprint() == one.fingerprint() != other.fingerprint()
    assert (other.regime, other.scaler, other.limits) == (one.regime, one.scaler, one.limits)
    assert other.fitted_until == 7
    assert math.isnan(other.genome.fitness)  # it has not been evaluated
    step = other.genome.genes - one.genome.genes
    assert 0 < np.abs(step).max() < 0.25


def test_a_formula_is_not_shaken():
    class Formula:
        genome = family = None

    formula = Formula()
    formula.family = FAMILIES.create("tree", {})
    with pytest.raises(ConfigError, match="are formulas, which cannot be shaken a little"):
        perturbed(formula, 0.1, np.random.default_rng(1))

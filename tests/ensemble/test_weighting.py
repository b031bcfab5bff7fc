"""Weights learned on validation rows: against brute force, and against luck."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from ensemble import weighting
from ensemble.blenders import OPEN_ROWS, net_returns, opinions
from ensemble.signals import SignalTable, earned
from ensemble.weighting import in_volatilities, log_scores, mixed, pooled, sharpest
from market.table import DataError
from tests.ensemble.members_factory import COST, MEMBERS, fitted, market, part

S = len(MEMBERS)


def ratio(net, weights):
    returns = net @ weights
    return returns.mean() / returns.std()


# -- validated ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), s=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_the_sharpest_weights_are_those_that_a_search_finds(seed, s):
    # On so many rows nothing is shrunk that counts, and the answer is that of the sample.
    random = np.random.default_rng(seed)
    n = 40_000 // s
    mixing = random.normal(size=(s, s)) * 0.5 + np.eye(s)
    net = random.normal(size=(n, s)) @ mixing + random.normal(0.0, 0.5, s)
    found = sharpest(net)
    if found is None:
        assert (net.mean(axis=0) / net.std(axis=0)).max() < 0.02
        return
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0)
    mean, covariance = net.mean(axis=0), np.atleast_2d(np.cov(net.T, ddof=0))
    tries = []
    for start in (np.full(s, 1 / s), *np.eye(s)):
        search = minimize(
            lambda w: -(w @ mean) / math.sqrt(w @ covariance @ w), 0.9 * start + 0.1 / s, method="SLSQP",
            bounds=[(0, 1)] * s, constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        )  # fmt: skip
        tries.append(-search.fun)
    assert ratio(net, found) == pytest.approx(max(tries), abs=5e-4)


def test_nobody_is_weighed_where_nobody_earns_or_moves():
    random = np.random.default_rng(0)
    assert sharpest(random.normal(-1.0, 1.0, (500, 3))) is None
    assert sharpest(np.zeros((500, 3))) is None
    one = np.column_stack([np.zeros(500), random.normal(1.0, 1.0, 500)])
    np.testing.assert_array_equal(sharpest(one), [0.0, 1.0])


def test_members_who_say_the_same_share_the_weight():
    same = np.random.default_rng(1).normal(0.1, 1.0, (2000, 1))
    np.testing.assert_allclose(sharpest(np.hstack([same, same, same])), 1 / 3, atol=1e-6)


def test_ratios_within_luck_are_pooled_and_others_kept():
    lucky = np.array([0.02, -0.01, 0.01, 0.0])
    np.testing.assert_allclose(pooled(lucky, 1000), lucky.mean())
    apart = np.array([0.5, -0.5, 0.2, 0.0])
    np.testing.assert_allclose(pooled(apart, 100_000), apart, atol=1e-3)
    n = 400
    half = np.array([1.0, -1.0]) * math.sqrt(1.0 / n)  # variance 2 / n: half of it is luck
    np.testing.assert_allclose(pooled(half, n), half / 2)
    np.testing.assert_array_equal(pooled(np.array([0.3]), 5), [0.3])


def test_members_alike_but_for_luck_are_weighed_alike():
    # Four independent members with the same ratio of 0.1: on 400 rows the sample's best is far from equal.
    random = np.random.default_rng(3)
    found, naive = [], []
    for _ in range(30):
        net = random.normal(0.1, 1.0, (400, 4))
        found.append(np.abs(sharpest(net) - 0.25).mean())
        own = np.maximum(net.mean(axis=0) / net.var(axis=0), 0.0)
        naive.append(np.abs(own / own.sum() - 0.25).mean())
    assert np.mean(found) < 0.5 * np.mean(naive)


def test_mixtures_are_what_the_blender_would_have_held():
    random = np.random.default_rng(2)
    net, known = random.normal(size=(50, 3)), random.random((50, 3)) < 0.7
    weights = random.dirichlet(np.ones(3), 4)
    found = mixed(net, known, weights)
    for t in range(50):
        for j, one in enumerate(weights):
            total = sum(one[i] for i in range(3) if known[t, i])
            expected = sum(one[i] * net[t, i] for i in range(3) if known[t, i]) / total if total else 0.0
            assert found[t, j] == pytest.approx(expected, abs=1e-14)


def test_validated_finds_the_planted_best():
    rows = market(2000, seed=3, edges={"stormer": 0.2})
    made = fitted("validated", rows)
    assert made.weights[0].argmax() == 2
    assert made.weights[0, 2] > 0.6
    assert made.shrinkage[0] < 0.5
    assert (made.weights == made.weights[0]).all()  # of all regimes alike, unless asked otherwise


def test_validated_shrinks_to_equal_where_there_is_only_luck():
    # Without costs, so that about half of the members seem to earn something. Measured over 40 markets:
    # equal weights in 88 %, a mean shrinkage of 0.88; without caution 68 % and 0.71.
    levels = {}
    for caution in (1.0, 0.0):
        made = [
            fitted("validated", market(1500, seed=seed), {"caution": caution}, cost=0.0) for seed in range(40)
        ]
        levels[caution] = np.array([one.shrinkage[0] for one in made])
        for one in made:
            if one.shrinkage[0] == 1.0:
                np.testing.assert_allclose(one.weights, 1 / S, atol=1e-15)
    assert levels[1.0].mean() > 0.7
    assert (levels[1.0] == 1.0).mean() > 0.6
    # Negative control: without caution luck is believed more often.
    assert levels[0.0].mean() < levels[1.0].mean() - 0.1


def test_what_was_learned_from_luck_costs_little_on_new_rows():
    # On later rows of a market with one good member, learned weights beat equal ones.
    gains = []
    for seed in range(10):
        rows = market(3000, seed=seed, edges={"trees": 0.12})
        later = part(rows, 1500, 3000)
        ratios = []
        for name in ("validated", "equal"):
            blended = fitted(name, part(rows, 0, 1500)).update(*later)[1]
            net = net_returns(blended, later.bars, COST)
            ratios.append(net.mean() / net.std())
        gains.append(ratios[0] - ratios[1])
    assert np.mean(gains) > 2 * np.std(gains) / math.sqrt(len(gains))


def test_validated_weighs_after_costs():
    calm = market(2500, seed=8, edges={"trees": 0.15}, half_life=200.0, holes=False)
    values = calm.signals.values.copy()
    values[:, :4] = 0.0
    values[:, 5] = np.clip(values[:, 4] + 0.4 * np.where(np.arange(2500) % 2, 1.0, -1.0), -1.0, 1.0)
    rows = calm._replace(signals=SignalTable(calm.signals.time, values, calm.signals.names))
    free, dear = (fitted("validated", rows, cost=cost).weights[0] for cost in (0.0, 0.002))
    assert dear[5] < 0.1
    assert free[5] > 2 * dear[5]


def test_each_regime_may_have_weights_of_its_own():
    rows = market(6000, seed=4, half_life=8.0, holes=False)
    # The trees are right in ranging markets and wrong in trending ones; the network the other way round.
    label = rows.labels.column("label")
    values = rows.signals.values.copy()
    values[:-2, 4] = np.where(label[:-2] == 0, 1, -1) * 20 * earned(rows.bars)[:-2] + 0.7 * values[:-2, 4]
    values[:-2, 5] = np.where(label[:-2] == 1, 1, -1) * 20 * earned(rows.bars)[:-2] + 0.7 * values[:-2, 5]
    rows = rows._replace(signals=SignalTable(rows.bars.time, np.clip(values, -1, 1), rows.signals.names))
    made = fitted("validated", rows, {"by_regime": True}, cost=0.0)
    assert made.weights[0, 4] > 0.6
    assert made.weights[0, 5] < 0.1
    assert made.weights[1, 5] > 0.6
    assert made.weights[1, 4] < 0.1
    np.testing.assert_array_equal(made.update(*rows)[0][label == 0][0], made.weights[0])
    # A regime with too few rows has the weights of all, as has a row on which none is in force.
    few = fitted("validated", rows, {"by_regime": True, "regime_rows": 5000}, cost=0.0)
    assert (few.weights == few.weights[-1]).all()
    np.testing.assert_array_equal(few.weights[-1], made.weights[-1])


def test_no_decision_that_reaches_into_a_held_out_block_is_learned_from(monkeypatch):
    rows, learned = market(902, seed=3, holes=False), []

    def noted(net):
        learned.append(net)
        return sharpest(net)

    monkeypatch.setattr(weighting, "sharpest", noted)
    fitted("validated", rows, {"blocks": 3})
    net = net_returns(rows.signals.values, rows.bars, COST)
    assert len(net) == 900
    place = {row.tobytes(): t for t, row in enumerate(net)}
    *held_out, everything = learned
    assert len(everything) == 900
    for block, kept in zip((range(300), range(300, 600), range(600, 900)), held_out, strict=True):
        found = {place[row.tobytes()] for row in kept}
        # The decision of a row is bought at the next open and over at the one after.
        touched = {t for t in range(900) if {t + i for i in range(OPEN_ROWS + 1)} & set(block)}
        after = {t for t in range(900) if {t - i for i in range(OPEN_ROWS + 1)} & set(block)}
        assert found == set(range(900)) - touched - after


def test_blocks_need_rows():
    rows = market(400, seed=0)
    with pytest.raises(DataError, match="hold 398 finished decisions; learning from them takes 500 at least"):
        fitted("validated", rows, {"blocks": 50})


# -- bma ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), slope=st.floats(0.02, 0.5))
@settings(max_examples=20, deadline=None)
def test_scores_are_the_integral_of_prior_times_likelihood(seed, slope):
    random = np.random.default_rng(seed)
    signals = np.clip(random.normal(0, 0.6, (60, 1)), -1, 1)
    moves = random.uniform(-0.5, 0.5) * signals[:, 0] + random.normal(size=60)

    def likelihood(b):
        return math.exp(norm.logpdf(moves, b * signals[:, 0]).sum() - norm.logpdf(moves).sum())

    integral = quad(lambda b: 2 * norm.pdf(b, 0, slope) * likelihood(b), 0, 10 * slope, limit=200)[0]
    assert log_scores(signals, moves, slope)[0] == pytest.approx(math.log(integral), abs=1e-6)


def test_scores_add_up_row_by_row():
    # The prequential view: what each row adds is the log of its predictive density, given those before.
    random = np.random.default_rng(5)
    signals = np.clip(random.normal(0, 0.6, (40, 2)), -1, 1)
    moves = 0.4 * signals[:, 0] + random.normal(size=40)
    so_far = np.array([log_scores(signals[:t], moves[:t], 0.1) for t in range(41)])
    np.testing.assert_allclose(so_far[0], 0.0, atol=1e-12)
    grid = np.linspace(0, 1.5, 6001)
    for i in range(2):
        belief = np.exp(-0.5 * (grid / 0.1) ** 2)
        for t in range(40):
            belief /= belief.sum()
            density = float(belief @ norm.pdf(moves[t], grid * signals[t, i]))
            gain = math.log(density) - norm.logpdf(moves[t])
            assert so_far[t + 1, i] - so_far[t, i] == pytest.approx(gain, abs=1e-3)
            belief *= norm.pdf(moves[t], grid * signals[t, i])


def test_flat_and_silent_rows_say_nothing():
    random = np.random.default_rng(6)
    signals, moves = random.uniform(-1, 1, (50, 2)), random.normal(size=50)
    signals[20:, 1] = 0.0
    short = log_scores(signals[:20, 1:], moves[:20], 0.1)
    np.testing.assert_allclose(log_scores(signals, moves, 0.1)[1], short[0], atol=1e-12)
    assert log_scores(np.zeros((50, 1)), moves, 0.1)[0] == pytest.approx(0.0, abs=1e-12)


def test_bma_believes_the_planted_best_and_never_its_opposite():
    rows = market(2000, seed=7, edges={"network": 0.15, "ranger": -0.15})
    made = fitted("bma", rows)
    assert made.weights.argmax() == 5
    assert made.weights[5] > 0.9
    assert made.weights[0] < 0.01
    assert made.log_score[0] < 0.0 < made.log_score[5]
    warm = fitted("bma", rows, {"temperature": 20.0})
    assert 1 / S < warm.weights[5] < made.weights[5]
    powers = np.exp(made.log_score / 20.0)
    np.testing.assert_allclose(warm.weights, powers / powers.sum(), atol=1e-12)
    # Negative control: without an edge nobody is believed like that.
    noise = [fitted("bma", market(2000, seed=seed)).weights.max() for seed in range(10)]
    assert np.median(noise) < 0.6


def test_returns_are_measured_in_the_volatility_known_at_the_close():
    rows = market(200, seed=8)
    found = in_volatilities(rows, 10.0, 4.0)
    opens = rows.bars.column("open")
    decay, weight, total = 0.5**0.1, 0.0, 0.0
    for t in range(200):
        weight, total = decay * weight, decay * total
        if t:
            weight, total = weight + 1.0, total + (opens[t] / opens[t - 1] - 1.0) ** 2
        if t > 197 or total == 0.0:
            assert math.isnan(found[t])
            continue
        expected = (opens[t + 2] / opens[t + 1] - 1.0) / math.sqrt(total / weight)
        assert found[t] == pytest.approx(min(max(expected, -4.0), 4.0), rel=1e-9)
    assert (np.abs(found[~np.isnan(found)]) <= 4.0).all()
    assert (np.abs(in_volatilities(rows, 10.0, 1.5)[10:-2]) == 1.5).any()


def test_bma_reads_an_absent_opinion_as_no_signal():
    rows = market(1000, seed=9)
    made = fitted("bma", rows)
    moves = in_volatilities(rows, made.config.volatility_half_life_bars, made.config.clip)
    known = np.isfinite(moves)
    scores = log_scores(opinions(rows.signals.values)[known], moves[known], made.config.slope)
    np.testing.assert_array_equal(made.log_score, scores)

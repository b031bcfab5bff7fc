"""The meta-learner: its fit against another solver, what it may not say, and what it finds."""

import builtins
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from configs.load import ConfigError
from ensemble.blenders import net_returns
from ensemble.signals import SignalTable
from ensemble.stacking import LEVEL_PENALTY, ahead, fit_logistic
from market.table import DataError
from regimes.regime import REGIME_NAMES, RegimeProbabilities
from tests.ensemble.members_factory import COST, MEMBERS, fitted, market, part

S = len(MEMBERS)
MODELS = ({"model": "logistic"}, {"model": "xgboost", "penalty": 20.0})
both = pytest.mark.parametrize("chosen", MODELS, ids=["logistic", "xgboost"])


@pytest.fixture(scope="module")
def rows():
    return market(3000, seed=1, edges={"trees": 0.15, "ranger": -0.15})


@pytest.fixture(scope="module")
def made(rows):
    return {chosen["model"]: fitted("stack", part(rows, 0, 2000), chosen) for chosen in MODELS}


def with_signals(rows, values):
    return rows._replace(signals=SignalTable(rows.signals.time, values, rows.signals.names))


def test_what_lies_ahead_is_bought_at_the_next_open(rows):
    opens = rows.bars.column("open")
    for horizon in (1, 6):
        found = ahead(rows.bars, horizon)
        assert np.isnan(found[-horizon - 1 :]).all()
        for t in (0, 17, 3000 - horizon - 2):
            assert found[t] == pytest.approx(opens[t + 1 + horizon] / opens[t + 1] - 1, abs=1e-15)
    for n in (0, 1, 2, 7):
        assert np.isnan(ahead(rows.bars[:n], 6)).all()


@given(seed=st.integers(0, 10_000), penalty=st.floats(0.0, 200.0))
@settings(max_examples=8, deadline=None)
def test_coefficients_are_those_that_another_solver_finds(seed, penalty):
    random = np.random.default_rng(seed)
    n, s, k = 150, 2, 3
    signals, regimes = random.uniform(-1, 1, (n, s)), random.dirichlet(np.ones(k), n)
    up = random.random(n) < 1 / (1 + np.exp(-signals @ random.normal(0, 2, s)))
    weight = random.uniform(0.2, 2.0, n)

    def loss(c):
        c = c.reshape(s, k)
        odds = np.array([sum(c[i] @ regimes[t] * signals[t, i] for i in range(s)) for t in range(n)])
        p = 1 / (1 + np.exp(-odds))
        fit = -(weight * np.log(np.where(up, p, 1 - p))).sum()
        return fit + penalty / 2 * ((c - c.mean()) ** 2).sum() + LEVEL_PENALTY / 2 * (c**2).sum()

    found = fit_logistic(signals, regimes, up, weight, penalty)
    assert (found >= 0.0).all()
    best = loss(found.ravel())
    # A convex problem: whatever is tried near by or far away is no better.
    for step in (1e-3, 0.05, 1.0):
        for _ in range(5):
            other = np.maximum(found.ravel() + random.normal(0, step, s * k), 0.0)
            assert loss(other) >= best - 1e-9
    search = minimize(
        loss, np.full(s * k, 0.1), method="SLSQP", bounds=[(0, None)] * (s * k), options={"maxiter": 15}
    )
    assert best <= search.fun + 1e-6


@both
def test_flat_signals_are_flat_and_opposite_signals_opposite(made, rows, chosen):
    stack = made[chosen["model"]]
    found = stack.update(*rows)[1]
    turned = stack.update(*with_signals(rows, -rows.signals.values))[1]
    np.testing.assert_allclose(turned, -found, atol=1e-7)
    assert np.abs(found).max() > 0.3
    assert not stack.update(*with_signals(rows, np.zeros((3000, S))))[1].any()


@both
def test_nobody_counts_against_the_own_signal(made, rows, chosen):
    stack, values = made[chosen["model"]], np.nan_to_num(rows.signals.values)
    before = stack.update(*with_signals(rows, values))[1]
    for i in range(S):
        more = values.copy()
        more[:, i] = np.clip(more[:, i] + 0.5, -1, 1)
        assert (stack.update(*with_signals(rows, more))[1] - before).min() >= -1e-7


def test_a_lone_opinion_leans_as_its_coefficient_says(made):
    rows = market(200, seed=5)
    stack = made["logistic"]
    chances = np.tile([0.2, 0.5, 0.3], (200, 1))
    chances[:50] = np.nan
    values = np.full((200, S), np.nan)
    values[:, 4] = 0.6
    rows = with_signals(rows, values)._replace(
        regimes=RegimeProbabilities(rows.bars.time, chances, REGIME_NAMES)
    )
    weights, found = stack.update(*rows)
    for t, chance in ((10, [1 / 3] * 3), (100, [0.2, 0.5, 0.3])):
        odds = 0.6 * float(stack.coefficients[4] @ np.array(chance))
        expected = math.tanh(odds / 2) / stack.scale
        assert found[t] == pytest.approx(min(expected, 1.0), abs=1e-12)
    np.testing.assert_array_equal(weights[:, 4], 1.0)
    assert not weights[:, [0, 1, 2, 3, 5]].any()


@both
def test_it_finds_whom_to_believe_and_whom_not(made, rows, chosen):
    later = part(rows, 2000, 3000)
    weights, found = made[chosen["model"]].fresh().update(*later)
    mean = weights.mean(axis=0)
    assert mean.argmax() == 4
    assert mean[0] < 0.05
    ratios = {}
    for name, blended in (
        ("stack", found),
        ("equal", fitted("equal", part(rows, 0, 2000)).update(*later)[1]),
    ):
        net = net_returns(blended, later.bars, COST)
        ratios[name] = net.mean() / net.std()
    assert ratios["stack"] > ratios["equal"] + 0.02


def test_it_learns_in_which_regime_to_believe_whom():
    calm = market(6000, seed=2, holes=False)
    label = calm.labels.column("label")
    move = np.nan_to_num(ahead(calm.bars, 6))
    values = calm.signals.values.copy()
    values[:, 4] = np.clip(np.where(label == 0, 1, -1) * 15 * move + 0.5 * values[:, 4], -1, 1)
    values[:, 5] = np.clip(np.where(label == 1, 1, -1) * 15 * move + 0.5 * values[:, 5], -1, 1)
    made = fitted("stack", with_signals(calm, values), {"penalty": 1.0})
    assert made.coefficients[4].argmax() == 0
    assert made.coefficients[5].argmax() == 1
    assert made.coefficients[4, 0] > 3 * made.coefficients[5, 0]
    # Negative control: a strong penalty makes one of all.
    alike = fitted("stack", with_signals(calm, values), {"penalty": 1e7}).coefficients
    assert np.ptp(alike) < 0.01 * max(alike.mean(), 0.01)


def test_without_evidence_it_whispers():
    loud = {}
    for edge in (0.0, 0.15):
        found = []
        for seed in range(6):
            rows = market(3000, seed=10 + seed, edges={"trees": edge, "network": edge})
            blended = fitted("stack", part(rows, 0, 2000)).update(*part(rows, 2000, 3000))[1]
            found.append(np.abs(blended).mean())
        loud[edge] = np.mean(found)
    assert loud[0.0] < 0.2
    assert loud[0.15] > 2 * loud[0.0]


def test_trees_of_other_columns_are_refused(made, tmp_path):
    made["xgboost"].save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blender.json", "trees.json"]
    trees, path = tmp_path / "trees.json", tmp_path / "blender.json"
    trees.write_text(trees.read_text().replace("0", "1", 1))
    with pytest.raises(DataError, match=r"trees.json: is not the file that was saved"):
        type(made["xgboost"]).load(tmp_path)
    document = json.loads(path.read_text())
    document["files"] = {}
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"names no file trees.json"):
        type(made["xgboost"]).load(tmp_path)
    trees.write_text("{}")
    document["files"] = {"trees.json": hashlib.sha256(b"{}").hexdigest()}
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="holds no trees"):
        type(made["xgboost"]).load(tmp_path)
    trees.unlink()
    with pytest.raises(DataError, match=r"trees.json: is missing"):
        type(made["xgboost"]).load(tmp_path)


def test_without_the_library_a_sentence_says_what_to_do(rows, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "xgboost":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="model is xgboost, which is not installed; install the extra"):
        fitted("stack", rows, {"model": "xgboost"})
    assert fitted("stack", rows).fitted_until == rows.bars.time[-1]

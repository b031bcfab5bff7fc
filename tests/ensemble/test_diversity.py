"""Whether members differ and what each adds: against numpy, and against planted members."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.blenders import BLENDERS, net_returns
from ensemble.diversity import Diversity, ablation, contributions, correlation, disagreement, risk_shares
from ensemble.signals import Member, SignalTable
from market.table import DataError
from tests.ensemble.members_factory import COST, IDS, KINDS, MEMBERS, fitted, market, part

S = len(MEMBERS)


@pytest.fixture(scope="module")
def rows():
    return market(1500, seed=1, edges={"trees": 0.2})


def test_correlations_are_those_of_the_rows_both_know(rows):
    values = rows.signals.values
    found = correlation(values)
    for i in range(S):
        for j in range(S):
            both = ~np.isnan(values[:, [i, j]]).any(axis=1)
            assert found[i, j] == pytest.approx(np.corrcoef(values[both][:, [i, j]].T)[0, 1], abs=1e-12)
    still = np.column_stack([values[:, 0], np.zeros(1500)])
    assert np.isnan(correlation(still)[[0, 1, 1], [1, 0, 1]]).all()
    np.testing.assert_allclose(correlation(np.column_stack([values[:, 0], -values[:, 0]]))[0, 1], -1.0)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_disagreement_counts_opposite_wishes(seed):
    random = np.random.default_rng(seed)
    values = random.choice([-0.5, 0.0, 0.7, np.nan], (60, 3))
    found = disagreement(values)
    for i in range(3):
        for j in range(3):
            pairs = [(a, b) for a, b in values[:, [i, j]] if a * b == a * b and a * b != 0]
            expected = sum(a * b < 0 for a, b in pairs) / len(pairs) if pairs else math.nan
            assert found[i, j] == pytest.approx(expected, nan_ok=True)


def test_nobody_to_compare_with_is_not_known():
    apart = np.array([[1.0, 0.0], [0.0, -1.0], [np.nan, 1.0]])
    assert np.isnan(disagreement(apart)[0, 1])
    assert disagreement(apart)[0, 0] == 0.0


FACTORS = [(name, chosen) for name, chosen in KINDS if name != "stack"]


@pytest.mark.parametrize(("name", "chosen"), FACTORS, ids=[one for one in IDS if "stack" not in one])
def test_contributions_add_up_to_the_blend(rows, name, chosen):
    weights, blended = fitted(name, part(rows, 0, 800), chosen).update(*rows)
    parts = contributions(rows.signals.values, weights, rows.bars, COST)
    whole = net_returns(blended, rows.bars, COST)
    np.testing.assert_allclose(parts.sum(axis=1), whole, atol=1e-12)
    assert risk_shares(parts).sum() == pytest.approx(1.0)
    covariance = np.cov(np.column_stack([parts, whole]).T)
    np.testing.assert_allclose(risk_shares(parts), covariance[-1, :-1] / covariance[-1, -1], atol=1e-9)


def test_the_planted_best_contributes_most(rows):
    weights, _ = fitted("equal", rows).update(*rows)
    found = Diversity.of(rows.signals, weights, rows.bars, COST)
    assert found.mean.argmax() == 4
    assert found.names == rows.signals.names
    # Independent waves: about as many members as there are.
    assert S - 1 < found.effective_members <= S
    same = np.repeat(rows.signals.values[:, 4:5], S, axis=1)
    alike = Diversity.of(SignalTable(rows.bars.time, same, rows.signals.names), weights, rows.bars, COST)
    assert alike.effective_members == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(alike.correlation, 1.0)
    assert (alike.disagreement == 0.0).all()


def test_a_record_of_diversity_is_plain_json(rows):
    weights, _ = fitted("equal", rows).update(*rows)
    values = rows.signals.values.copy()
    values[:, 0] = 0.0
    signals = SignalTable(rows.bars.time, values, rows.signals.names)
    document = Diversity.of(signals, weights, rows.bars, COST).to_dict()
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again["correlation"][0][1] is None
    assert again["names"] == list(rows.signals.names)
    assert again["mean"][0] == 0.0
    short = Diversity.of(signals[:2], weights[:2], rows.bars[:2], COST).to_dict()
    assert short["effective_members"] == 0.0
    assert short["risk"] == [None] * S


def test_shapes_that_disagree_are_refused(rows):
    with pytest.raises(DataError, match=r"weights \(1500, 2\).*must be of one shape"):
        contributions(rows.signals.values, np.ones((1500, 2)), rows.bars, COST)


# -- leave one out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["equal", "online", "validated", "bma", "stack"])
def test_leaving_out_the_best_member_loses_most(name):
    rows = market(3000, seed=2, edges={"trees": 0.2})
    past, later = part(rows, 0, 1500), part(rows, 1500, 3000)
    blender = BLENDERS.create(name)
    whole, without = ablation(blender, past, later, members=MEMBERS, cost=COST, seed=1)
    assert blender.fitted_until is None  # it lent its settings and nothing else
    assert [one.name for one in without] == [member.name for member in MEMBERS]
    lost = np.array([one.lost for one in without])
    assert lost.argmax() == 4
    assert lost[4] > 1.0
    for one in without:
        assert one.lost == pytest.approx(whole - one.without)
    blended = fitted(name, past).update(*later)[1]
    net = net_returns(blended, later.bars, COST)
    assert whole == pytest.approx(net.mean() / net.std(ddof=1) * math.sqrt(8760))


def test_a_twin_is_not_missed():
    rows = market(3000, seed=3, edges={"trees": 0.2})
    values = rows.signals.values.copy()
    values[:, 5] = values[:, 4]
    signals = SignalTable(rows.bars.time, values, rows.signals.names).select(["trees", "network"])
    members = tuple(Member(name, "forecaster", None) for name in ("trees", "network"))
    rows = rows._replace(signals=SignalTable(signals.time, signals.values, signals.names))
    _, without = ablation(
        BLENDERS.create("bma"),
        part(rows, 0, 1500),
        part(rows, 1500, 3000),
        members=members,
        cost=COST,
        seed=1,
    )
    assert [one.lost for one in without] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_one_member_has_nobody_beside_it_and_rows_must_be_later(rows):
    alone = (MEMBERS[4],)
    signals = rows.signals.select(["trees"])
    single = rows._replace(signals=SignalTable(signals.time, signals.values, signals.names))
    past, later = part(single, 0, 700), part(single, 700, 1500)
    whole, without = ablation(BLENDERS.create("equal"), past, later, members=alone, cost=COST, seed=1)
    assert without == ()
    assert math.isfinite(whole)
    with pytest.raises(DataError, match="they must be later"):
        ablation(BLENDERS.create("equal"), later, past, members=alone, cost=COST, seed=1)

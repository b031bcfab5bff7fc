"""The probes: a leak is found however it hides, what is invariant is called so, luck is called luck.

The features of every test are planted, so what a probe must answer is known. The negative controls are
features that hold the regime, and judgments that ignore which rows belong to one run.
"""

import numpy as np
import pytest
import torch

from conductor import invariance
from conductor.invariance import evidence, mean_discrepancy, probed, raw, snapshots, stretches
from conductor.network import ConductorNetwork
from conductor.school import Labels
from conductor.sight import Inputs
from conductor.state import KNOWN, MARKET, NO_REGIME

N_GROUPS, ROWS, N_FEATURES = 30, 5, 6


def rows_of(n_groups=N_GROUPS, n_regimes=3):
    """Regime and group of each row; a group has one regime."""
    group = np.repeat(np.arange(n_groups), ROWS)
    return group % n_regimes, group


def noise(rng, group):
    """Features of which half are the same for all rows of a group, as those of a market are."""
    features = rng.normal(size=(group.size, N_FEATURES))
    features[:, ::2] = rng.normal(size=(group.max() + 1, N_FEATURES // 2))[group]
    return features


def leak(kind, rng, regime):
    """Something that tells the regime: a step, or rings that no line can part."""
    if kind == "a step":
        return 4.0 * regime[:, None] + rng.normal(size=(regime.size, 1))
    angle = rng.uniform(0.0, 2.0 * np.pi, regime.size)
    return ((0.5 + 4.0 * regime) * np.array([np.cos(angle), np.sin(angle)])).T


def inputs_of(state, regime):
    n = len(state)
    return Inputs(
        state.astype(np.float32),
        np.zeros((n, 0, 30), np.float32),
        np.zeros((n, 0), bool),
        regime.astype(np.int64),
    )


@pytest.fixture
def two_probes(monkeypatch):
    """Only the fast probes, where the number of fits would make a test slow."""
    everything = invariance._probes
    kept = ("logistic regression", "nearest neighbors")
    monkeypatch.setattr(invariance, "_probes", lambda seed: {name: everything(seed)[name] for name in kept})


class Chosen(ConductorNetwork):
    """Its features are some columns of the state."""

    def __init__(self, columns):
        super().__init__(None)
        self.columns = columns

    def features(self, inputs):
        return inputs.state[:, self.columns]


@pytest.mark.parametrize("kind", ["a step", "a ring"])
def test_a_planted_leak_is_found(kind):
    rng = np.random.default_rng(3)
    regime, group = rows_of(24, 2)
    features = np.hstack([noise(rng, group), leak(kind, rng, regime)])
    leaky = probed(features, regime, group, seed=1, n_exchanges=19)
    assert leaky["p_value"] <= 0.05
    assert leaky["best"] > 0.75 > leaky["luck"][1]
    assert leaky["distance"]["ranging and trending"] == pytest.approx(2.0 * (2.0 * leaky["best"] - 1.0))
    assert (leaky["accuracy"]["logistic regression"] > 0.75) == (kind == "a step")


def test_features_without_a_leak_are_within_luck(two_probes):
    regime, group = rows_of()
    clean = probed(noise(np.random.default_rng(3), group), regime, group, seed=1, n_exchanges=19)
    assert clean["p_value"] > 0.05
    assert clean["luck"][0] <= clean["best"] <= clean["luck"][1]
    assert clean["chance"] == pytest.approx(1 / 3)
    assert clean["luck"][0] < 1 / 3 < clean["luck"][1]


def test_rows_of_one_group_are_never_on_both_sides_of_a_fold():
    """Features that tell the group and nothing else: a probe that saw its other rows would know it."""
    rng = np.random.default_rng(5)
    regime, group = rows_of()
    features = rng.normal(size=(N_GROUPS, N_FEATURES))[group] + 1e-3 * rng.normal(
        size=(group.size, N_FEATURES)
    )
    honest = invariance._accuracies(features, regime, group, 1)
    split = invariance._accuracies(features, regime, np.arange(group.size), 1)
    assert max(honest.values()) < 0.6
    assert split["nearest neighbors"] > 0.95


def test_exchanged_regimes_keep_groups_whole_and_their_numbers():
    rng = np.random.default_rng(2)
    regime, group = rows_of()
    # Bars that serve two regimes, beside those that serve one.
    regime, group = (
        np.concatenate([regime, [0, 0, 1, 1, 2, 2, 0, 0]]),
        np.concatenate([group, [90] * 4, [91] * 4])[:],
    )
    moved = 0
    for _ in range(20):
        exchanged = invariance._exchanged(regime, group, rng)
        assert np.array_equal(np.sort(exchanged), np.sort(regime))
        for one in np.unique(group):
            for label in np.unique(regime[group == one]):
                assert np.unique(exchanged[(group == one) & (regime == label)]).size == 1
        assert {tuple(np.unique(exchanged[group == one])) for one in (90, 91)} == {(0, 1), (0, 2)}
        moved += not np.array_equal(exchanged, regime)
    assert moved >= 19


def test_false_alarms_of_the_best_probe_are_rare(two_probes):
    """With 19 exchanges 5 % are due; always, if rows of one group are taken for strangers."""
    rng = np.random.default_rng(11)
    regime, group = rows_of(12, 2)
    features = [noise(rng, group) for _ in range(4)]
    found = [probed(one, regime, group, seed=1, n_exchanges=19) for one in features]
    assert sum(one["p_value"] <= 0.05 for one in found) <= 1
    strangers = [probed(one, regime, np.arange(group.size), seed=1, n_exchanges=19) for one in features[:1]]
    assert all(one["p_value"] <= 0.05 for one in strangers)


def test_the_discrepancy_of_means_is_that_of_its_definition_and_knows_a_shift():
    rng = np.random.default_rng(4)
    regime, group = rows_of(20, 2)
    features = rng.normal(size=(group.size, 2))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    apart = group[:, None] != group
    squares = ((scaled[:, None] - scaled) ** 2).sum(axis=-1)
    kernel = np.exp(-squares / np.median(squares[apart]))
    means = {
        (a, b): kernel[np.ix_(regime == a, regime == b)][apart[np.ix_(regime == a, regime == b)]].mean()
        for a in (0, 1)
        for b in (0, 1)
    }
    same = mean_discrepancy(features, regime, group, (0, 1), seed=1)
    assert same["mmd2"] == pytest.approx(means[0, 0] + means[1, 1] - 2.0 * means[0, 1], abs=1e-12)
    shifted = mean_discrepancy(features + 1.5 * regime[:, None], regime, group, (0, 1), seed=1)
    assert shifted["p_value"] <= 0.01 < 0.05 < same["p_value"]


def test_separable_regimes_are_two_apart_and_equal_ones_nothing():
    rng = np.random.default_rng(6)
    regime, group = rows_of(24, 2)
    features = rng.normal(size=(group.size, 3))
    far = probed(features + 20.0 * regime[:, None], regime, group, seed=1, n_exchanges=0)
    near = probed(features, regime, group, seed=1, n_exchanges=0)
    assert far["distance"]["ranging and trending"] == pytest.approx(2.0)
    assert near["distance"]["ranging and trending"] < 0.6


def test_evidence_tells_invariant_leaking_and_untested_networks_apart(two_probes):
    rng = np.random.default_rng(9)
    regime, group = rows_of(24, 2)
    state = rng.normal(size=(group.size, 64))
    state[:, KNOWN] = 1.0
    state[:, MARKET] = rng.normal(size=(24, 13))[group]
    run = np.arange(group.size)  # a run per state: only the market shows which belong together
    blind = evidence(Chosen([5, 6, 40]), inputs_of(state, regime), run, seed=1, n_exchanges=19)
    state[:, :4] = leak("a step", rng, regime)
    inputs = inputs_of(state, regime)
    leaking = evidence(Chosen([0, 6, 40]), inputs, run, seed=1, n_exchanges=19)
    invariant = evidence(Chosen([5, 6, 40]), inputs, run, seed=1, n_exchanges=19, reference=leaking["raw"])
    found = [one["verdict"] for one in (invariant, leaking, blind)]
    assert found == ["invariant", "not invariant", "undecided"]
    assert invariant["regimes"] == {"ranging": 12, "trending": 12}
    assert leaking["raw"] == invariant["raw"]
    assert invariant["features"] == blind["features"]
    assert "are invariant" in invariant["sentence"]
    assert "are not invariant" in leaking["sentence"]


def test_too_few_runs_are_no_evidence():
    rng = np.random.default_rng(1)
    regime, group = rows_of(9)
    market = np.ones((group.size, 64))
    market[:, MARKET] = group[:, None]
    found = evidence(Chosen([0]), inputs_of(market, regime), group, seed=1)
    assert (found["verdict"], found["features"]) == ("undecided", None)
    alone = inputs_of(rng.normal(size=(group.size, 64)), np.full(group.size, NO_REGIME))
    found = evidence(Chosen([0]), alone, group, seed=1)
    assert found["sentence"].startswith("Invariance was not tested: no run belongs to a regime")
    with pytest.raises(ValueError, match="each in 4 groups"):
        probed(rng.normal(size=(group.size, 2)), regime, group, seed=1)


def test_a_network_without_an_extractor_is_judged_by_its_residuals():
    class Said(ConductorNetwork):
        def forward(self, inputs):
            return inputs.state[:, :12] * 2.0

    state = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    inputs = inputs_of(state, np.zeros(4))
    np.testing.assert_array_equal(invariance.extracted(Said(None), inputs), 2.0 * state[:, :12])
    assert not torch.is_inference_mode_enabled()
    np.testing.assert_array_equal(raw(inputs), state)


def test_runs_on_the_same_bars_are_one_group_and_landscapes_stay_apart():
    state = np.zeros((6, 64))
    state[:4, KNOWN] = 1.0
    state[:4, MARKET] = np.array([1.0, 1.0, 2.0, 1.0])[:, None]
    group = stretches(inputs_of(state, np.zeros(6)), np.arange(6))
    assert group[0] == group[1] == group[3]
    assert np.unique(group).size == 4
    same = stretches(inputs_of(state, np.zeros(6)), np.array([0, 1, 2, 3, 4, 4]))
    assert same[4] == same[5]


def test_a_state_is_seen_once_however_many_branches_its_fork_has():
    fork = np.array([7, 7, 3, 3, 3])
    labels = Labels(
        np.repeat(np.array([[1.0], [2.0]]), [2, 3], axis=0), np.zeros((5, 0, 30)), np.zeros((5, 0), bool),
        np.array([0, 0, 2, 2, 2]), np.zeros((5, 12)), np.zeros(5), fork, np.array([4, 4, 5, 5, 5]),
    )  # fmt: skip
    inputs, run = snapshots(labels)
    assert inputs.state.tolist() == [[2.0], [1.0]]
    assert (inputs.regime.tolist(), run.tolist()) == ([2, 0], [5, 4])

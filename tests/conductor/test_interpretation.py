"""Descriptions of a network: planted networks whose features, rules and looks are known."""

import math

import numpy as np
import pytest
import torch

from conductor.interpretation import Deaf, distilled, importance, looked, shuffled, subjects
from conductor.network import VARIANTS, ConductorNetwork, tensors
from conductor.sight import Inputs
from conductor.state import HISTORY_NAMES, STATE_NAMES
from conductor.steering import Steering
from ga.controls import CONTROL_NAMES, values_at

STEP, TOURNAMENT = CONTROL_NAMES.index("mutation_step"), CONTROL_NAMES.index("tournament_size")
STAGNATION, MARKET = STATE_NAMES.index("stagnation_share"), STATE_NAMES.index("market_skewness")
STEERING = Steering((0.4,) * 12)


def some_inputs(n=240, n_history=4, seed=0):
    rng = np.random.default_rng(seed)
    return Inputs(
        rng.normal(size=(n, len(STATE_NAMES))).astype(np.float32),
        rng.normal(size=(n, n_history, len(HISTORY_NAMES))).astype(np.float32),
        np.ones((n, n_history), bool),
        rng.integers(-1, 3, n),
    )


class Planted(ConductorNetwork):
    """Moves one control by stagnation, another by the skewness of the market, and none by anything else."""

    def forward(self, inputs):
        said = torch.zeros(len(inputs.state), 12)
        said[:, STEP] = torch.where(inputs.state[:, STAGNATION] > 0.25, 2.0, -1.0)
        said[:, TOURNAMENT] = 0.2 * inputs.state[:, MARKET]
        return said


class Remembering(ConductorNetwork):
    """Reads a statistic in the history only."""

    def forward(self, inputs):
        return inputs.history[:, -1, HISTORY_NAMES.index("success_rate")].repeat(12, 1).T


def test_every_column_of_the_state_belongs_to_one_feature():
    columns = [column for subject in subjects() for column in subject.state]
    assert sorted(columns) == list(range(len(STATE_NAMES)))
    past = [column for subject in subjects() for column in subject.history]
    assert sorted(past) == list(range(len(HISTORY_NAMES)))
    assert len(subjects()) == 51


def test_shuffling_a_feature_moves_its_columns_and_no_others():
    inputs = some_inputs(6)
    order = np.array([1, 2, 3, 4, 5, 0])
    for subject in subjects()[::7]:
        moved = shuffled(inputs, subject, order)
        for before, after, mine in (
            (inputs.state, moved.state, subject.state), (inputs.history, moved.history, subject.history)
        ):  # fmt: skip
            changed = [
                j for j in range(before.shape[-1]) if not np.array_equal(before[..., j], after[..., j])
            ]
            assert changed == sorted(mine)
            assert all(np.array_equal(after[..., j], before[order][..., j]) for j in mine)
        both = shuffled(tensors(inputs), subject, torch.from_numpy(order))
        np.testing.assert_array_equal(both.state.numpy(), moved.state)


def test_importance_finds_the_features_that_matter_and_the_controls_they_move():
    found = importance(Planted(None), some_inputs(), seed=1)
    names = list(found)
    assert names[:2] == ["stagnation_share", "market_skewness"]
    assert all(found[name]["change"] == 0.0 for name in names[2:])
    moved = {name for name, change in found["stagnation_share"]["controls"].items() if change > 0.0}
    assert moved == {"mutation_step"}
    share = (some_inputs().state[:, STAGNATION] > 0.25).mean()
    expected = 3.0 * 2.0 * share * (1.0 - share)  # two independent draws differ so often
    assert found["stagnation_share"]["controls"]["mutation_step"] == pytest.approx(expected, rel=0.15)
    assert next(iter(importance(Remembering(None), some_inputs(), seed=1))) == "success_rate"


def test_importance_for_whole_runs_asks_for_each_deaf_network():
    inputs = tensors(some_inputs())
    network = Planted(None)
    wanted = network(inputs)

    def evaluate(one):
        return float((one(inputs) - wanted).square().mean())

    found = importance(network, some_inputs(), seed=1, evaluate=evaluate)
    assert list(found)[:2] == ["stagnation_share", "market_skewness"]
    assert found["stagnation_share"]["loss"] > found["market_skewness"]["loss"] > 0.0
    assert all(found[name]["loss"] == 0.0 for name in list(found)[2:])


def test_a_deaf_network_hears_the_same_other_run_in_every_generation():
    subject = next(one for one in subjects() if one.name == "market_skewness")
    deaf, inputs = Deaf(Planted(None), subject, 4), tensors(some_inputs(9))
    first, second = deaf(inputs), deaf(inputs)
    assert torch.equal(first, second)
    whole = Planted(None)(inputs)
    assert torch.equal(first[:, STEP], whole[:, STEP])
    assert not torch.equal(first[:, TOURNAMENT], whole[:, TOURNAMENT])
    assert torch.equal(first[:, TOURNAMENT].sort().values, whole[:, TOURNAMENT].sort().values)
    assert not list(deaf.searched())


def test_the_rules_of_a_network_made_of_rules_are_these_rules():
    inputs, run = some_inputs(600), np.repeat(np.arange(20), 30)
    rules = distilled(Planted(None), inputs, run, STEERING, seed=1)
    assert rules.fidelity["mutation_step"] == pytest.approx(1.0)
    assert 0.7 < rules.fidelity["tournament_size"] < 1.0
    assert math.isnan(rules.fidelity["elite_fraction"])
    up, down = (values_at(STEERING.target(np.full(12, said)))[STEP] for said in (2.0, -1.0))
    tuned = values_at(np.full(12, 0.4))[STEP]
    own = [sentence for sentence in rules.sentences if sentence.startswith("mutation_step")]
    assert len(own) == 2
    assert f"is lowered to {down:.3g} (tuned {tuned:.3g}) where stagnation_share is at most 0.2" in own[0]
    assert f"is raised to {up:.3g} (tuned {tuned:.3g}) where stagnation_share is above 0.2" in own[1]
    assert "elite_fraction stays at" in " ".join(rules.sentences)
    said = Planted(None)(tensors(inputs)).numpy()
    np.testing.assert_allclose(rules.residual(inputs.state)[:, STEP], said[:, STEP], atol=1e-5)
    assert not np.abs(rules.residual(inputs.state)[:, CONTROL_NAMES.index("elite_fraction")]).max() > 1e-9


def test_rules_of_noise_have_no_fidelity_on_unseen_runs():
    """A tree always fits the runs it was made from; what counts is measured elsewhere."""

    class Noise(ConductorNetwork):
        def forward(self, inputs):
            # Of the last bits of a feature that no tree reads.
            return torch.sin(1e6 * inputs.state[:, -1:]).repeat(1, 12)

    rules = distilled(Noise(None), some_inputs(300), np.repeat(np.arange(30), 10), STEERING, seed=1)
    assert max(rules.fidelity.values()) < 0.15


def test_rules_of_a_new_network_say_that_everything_stays():
    rules = distilled(VARIANTS.create("es"), some_inputs(40), np.repeat(np.arange(8), 5), STEERING, seed=1)
    assert len(rules.sentences) == 12
    assert all(" stays at " in sentence for sentence in rules.sentences)
    np.testing.assert_allclose(rules.residual(some_inputs(40).state), 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="states come from 3 runs"):
        distilled(VARIANTS.create("es"), some_inputs(6), np.repeat(np.arange(3), 2), STEERING, seed=1)


def test_where_a_transformer_looks_is_told_by_age():
    maps = np.zeros((2, 1, 2, 4, 4))
    maps[:, 0, 0, -1] = [0.0, 0.0, 0.5, 0.5]  # half on the newest generation
    maps[0, 0, 1, -1] = 0.25
    maps[1, 0, 1, -1] = [0.0, 0.0, 0.5, 0.5]  # the second run has one generation
    known = np.array([[True, True, True], [False, False, True]])
    found = looked(maps, known)
    np.testing.assert_allclose(found["by_age"][0], [[0.5, 0.0, 0.0], [0.375, 0.25, 0.25]])
    np.testing.assert_allclose(found["state"], [[0.5, 0.375]])
    np.testing.assert_allclose(found["reach"], [[0.0, 0.75 / 1.25]])
    np.testing.assert_allclose(found["evenness"], [[(0.5 + 1.0) / 2, 1.0]])
    assert "38% to 50% of their weight on the state itself" in found["sentence"]


def test_a_run_without_a_past_looks_at_itself():
    network = VARIANTS.create("transformer", {"generations": 3, "width": 8})
    inputs = some_inputs(2, 3)
    inputs = inputs._replace(known=np.zeros((2, 3), bool), history=np.zeros_like(inputs.history))
    found = looked(network.attention(tensors(inputs)).numpy(), inputs.known)
    np.testing.assert_allclose(found["state"], 1.0)
    assert not found["by_age"].any()

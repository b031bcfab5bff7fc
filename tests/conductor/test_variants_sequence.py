"""Transformer and committee: silent when new, blind to what they must not see, fair about who has a say.

The negative controls are a transformer without its mask and shares that ignore how good the members are.
"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, vmap

from conductor.network import VARIANTS, ConductorNetwork, Inputs, flat, put, tensors, unflatten
from conductor.school import Labels, School
from conductor.state import HISTORY_NAMES, STATE_NAMES
from conductor.steering import Steering
from conductor.variants.committee import SEAT, stacked
from conductor.variants.transformer import Transformer
from configs.load import ConfigError

N = 24
SMALL = {"layers": 2, "width": 8, "generations": 6}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    yield
    torch.set_num_threads(before)


def some_inputs(n=7, n_history=N, seed=0, known=None):
    rng = np.random.default_rng(seed)
    there = np.ones((n, n_history), bool) if known is None else known
    return Inputs(
        rng.normal(size=(n, len(STATE_NAMES))).astype(np.float32),
        (rng.normal(size=(n, n_history, len(HISTORY_NAMES))) * there[..., None]).astype(np.float32),
        there,
        rng.integers(-1, 3, n),
    )


def loud(network, seed=1):
    """The network with all its weights moved, so that it says something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def answers(network, inputs):
    with torch.inference_mode():
        return network(tensors(inputs)).numpy()


def school_of(labels, seed=1):
    """A school that has labels and nothing else."""
    return School(None, Steering((0.5,) * 12), None, lambda n: labels, seed, 1.0, None, lambda *told: None)


class Unmasked(Transformer):
    """Wrong on purpose: every token sees every other."""

    def _unseen(self, known):
        return 0.0 * super()._unseen(known)


@pytest.mark.parametrize("name", ["transformer", "committee"])
def test_a_new_network_says_exactly_nothing(name):
    network = VARIANTS.create(name)
    assert not answers(network, some_inputs(n_history=network.n_history)).any()
    assert answers(loud(network), some_inputs(n_history=network.n_history)).all()


@pytest.mark.parametrize("name", ["transformer", "committee"])
def test_each_run_is_answered_by_itself(name):
    network = loud(VARIANTS.create(name))
    inputs = some_inputs(9, network.n_history)
    order = np.random.default_rng(1).permutation(9)[:5]
    some = Inputs(*(part[order] for part in inputs))
    np.testing.assert_allclose(answers(network, some), answers(network, inputs)[order], atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "committee"])
def test_candidates_at_once_answer_like_one_after_the_other(name):
    network = loud(VARIANTS.create(name))
    assert 100 < flat(network).size <= 5000
    candidates = flat(network) + 0.2 * np.random.default_rng(2).normal(size=(3, flat(network).size))
    inputs = some_inputs(6, network.n_history)
    slices = Inputs(*(part.reshape(3, 2, *part.shape[1:]) for part in tensors(inputs)))
    with torch.inference_mode():
        said = vmap(lambda weights, own: functional_call(network, weights, (own,)))(
            unflatten(network, candidates), slices
        ).numpy()
    for k, weights in enumerate(candidates):
        put(network, weights)
        one = answers(network, Inputs(*(part[2 * k : 2 * k + 2] for part in inputs)))
        np.testing.assert_allclose(said[k], one, atol=1e-4)
    assert np.abs(said[0] - said[1]).max() > 1e-2


@pytest.mark.parametrize("kind", [Transformer, Unmasked])
def test_rows_before_the_beginning_are_seen_by_nobody(kind):
    network = loud(kind(Transformer.Config(**SMALL)))
    known = np.arange(6) >= np.array([0, 2, 5, 6])[:, None]
    inputs = some_inputs(4, 6, known=known)
    garbage = inputs._replace(history=np.where(known[..., None], inputs.history, np.float32(2.5)))
    same = np.abs(answers(network, garbage) - answers(network, inputs)).max(axis=1)
    if kind is Unmasked:
        assert same[1:].min() > 1e-3
    else:
        assert same.max() == 0.0
    assert np.isfinite(answers(network, inputs)).all()


@pytest.mark.parametrize("kind", [Transformer, Unmasked])
def test_attention_looks_back_only_and_its_weights_are_shares(kind):
    network = loud(kind(Transformer.Config(**SMALL)))
    known = np.arange(6) >= np.array([0, 3])[:, None]
    maps = network.attention(tensors(some_inputs(2, 6, known=known))).numpy()
    assert maps.shape == (2, 2, 2, 7, 7)
    np.testing.assert_allclose(maps.sum(axis=-1), 1.0, atol=1e-5)
    later = maps[..., np.triu_indices(7, 1)[0], np.triu_indices(7, 1)[1]]
    unknown = maps[1, :, :, 3:, :3]
    if kind is Unmasked:
        assert later.min() > 0.0
        assert unknown.min() > 0.0
    else:
        assert later.max() == unknown.max() == 0.0
        assert maps[0, :, :, -1].min() > 0.0  # the state sees all that there is


def test_a_transformer_reads_the_order_of_generations_and_every_one_of_them():
    network = loud(Transformer(Transformer.Config(**SMALL)))
    inputs = some_inputs(5, 6)
    said = answers(network, inputs)
    assert (
        np.abs(answers(network, inputs._replace(history=inputs.history[:, ::-1].copy())) - said).min() > 0.0
    )
    for k in range(6):
        history = inputs.history.copy()
        history[:, k] += 1.0
        assert np.abs(answers(network, inputs._replace(history=history)) - said).max() > 1e-4


def test_more_history_than_asked_for_changes_nothing():
    network = loud(Transformer(Transformer.Config(**SMALL)))
    inputs = some_inputs(5, 9)
    last = inputs._replace(history=inputs.history[:, 3:], known=inputs.known[:, 3:])
    np.testing.assert_array_equal(answers(network, inputs), answers(network, last))


def test_a_width_that_heads_cannot_share_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"width is 10; it must be a multiple of 4 heads"):
        VARIANTS.create("transformer", {"width": 10, "heads": 4})


def test_a_committee_is_the_mean_of_its_members_by_their_shares():
    network = loud(
        VARIANTS.create("committee", {"members": [{"name": "es"}, {"name": "transformer", **SMALL}]})
    )
    assert network.n_history == 6
    inputs = some_inputs(5, 6)
    network.share.copy_(torch.tensor([0.25, 0.75]))
    short = inputs._replace(history=inputs.history[:, 6:], known=inputs.known[:, 6:])
    wanted = 0.25 * answers(network.members[0], short) + 0.75 * answers(network.members[1], inputs)
    np.testing.assert_allclose(answers(network, inputs), wanted, atol=1e-5)
    assert "share" in network.state_dict()
    names = [name for name, _ in network.searched()]
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    assert set(names) <= {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([{"name": "es"}], "members"),
        ([{"name": "es"}, {"name": "committee"}], "cannot be a member of a committee"),
        ([{"name": "es"}, {"name": "ess"}], "no variant named 'ess'"),
        ([{"name": "es"}, {"name": "es", "hidden": -1}], "hidden"),
    ],
)
def test_wrong_members_are_refused(members, sentence):
    with pytest.raises(ConfigError, match=sentence):
        VARIANTS.create("committee", {"members": members})


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_no_other_shares_come_nearer_to_what_was_wanted(m, seed):
    rng = np.random.default_rng(seed)
    said, wanted = rng.normal(size=(m, 40, 12)), rng.normal(size=(40, 12))
    wanted += said[0]
    shares = stacked(said, wanted)
    assert shares.sum() == pytest.approx(1.0)
    assert shares.min() >= SEAT / m - 1e-9

    def loss(weights):
        return ((np.tensordot(weights, said, 1) - wanted) ** 2).mean()

    others = SEAT / m + (1.0 - SEAT) * rng.dirichlet(np.ones(m), 200)
    assert all(loss(shares) <= loss(other) + 1e-4 for other in others)  # the trace of ridge
    assert shares.argmax() == 0


def test_members_that_answer_alike_share_alike():
    one = np.random.default_rng(1).normal(size=(30, 12))
    np.testing.assert_allclose(stacked(np.array([one, one, one]), one), 1 / 3, atol=1e-6)
    np.testing.assert_allclose(stacked(np.zeros((2, 30, 12)), one), 0.5, atol=1e-6)


class Scripted(ConductorNetwork):
    """A member that learns nothing: it says one number, or what is wanted."""

    def __init__(self, says):
        super().__init__(None)
        self.says, self.seen = says, None
        self.head = torch.nn.Linear(1, 1)

    def forward(self, inputs):
        return self.says * inputs.state[..., :12]

    def schooled(self, school):
        self.seen = school.labels(0)
        return {}


def labels_of(n_runs=16, n_forks=6, n_branches=8, seed=0):
    """Labels whose best residuals are the first twelve numbers of the state."""
    rng = np.random.default_rng(seed)
    n = n_runs * n_forks
    state = np.zeros((n, len(STATE_NAMES)), np.float32)
    state[:, :12] = 0.5 * rng.normal(size=(n, 12))
    residual = 0.7 * rng.normal(size=(n, n_branches, 12))
    advantage = -((residual - state[:, None, :12]) ** 2).sum(axis=-1)
    advantage = (advantage - advantage.mean(axis=1, keepdims=True)) / advantage.std()
    row = np.repeat(np.arange(n), n_branches)
    return Labels(
        state[row], np.zeros((row.size, N, 30), np.float32), np.ones((row.size, N), bool),
        np.full(row.size, -1), residual.reshape(-1, 12).astype(np.float32),
        advantage.ravel().astype(np.float32), row, row // n_forks,
    )  # fmt: skip


def test_the_better_member_gets_the_larger_share_on_runs_that_nobody_saw():
    labels = labels_of()
    network = VARIANTS.create("committee", {"members": [{"name": "es"}, {"name": "es"}]})
    good, bad = Scripted(0.5), Scripted(-0.5)
    network.members = torch.nn.ModuleList([bad, good])
    found = network.schooled(school_of(labels))
    assert network.share[1] > 0.7
    assert found["loss"] < found["loss_of_equal_shares"] <= found["loss_of_silence"] + 1e-6
    assert found["members"][1]["loss"] < found["members"][0]["loss"]
    seen = np.unique(good.seen.run)
    assert 0.6 < seen.size / np.unique(labels.run).size < 0.9


def test_a_committee_learns_labels_and_is_the_same_again():
    labels = labels_of(n_forks=4)
    wide = {"name": "es", "features": list(STATE_NAMES), "hidden": 16, "inertia": False}
    settings = {"members": [wide, {"name": "transformer", **SMALL}]}
    networks = []
    for _ in range(2):
        torch.manual_seed(5)
        networks.append(VARIANTS.create("committee", settings))
        found = networks[-1].schooled(school_of(labels))
    assert found["loss"] < 0.995 * found["loss_of_silence"]
    for one, other in zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_committee_says_when_there_are_too_few_runs():
    labels = labels_of(n_runs=1)
    with pytest.raises(ConfigError, match="labels come from 1 runs; it needs more"):
        VARIANTS.create("committee").schooled(school_of(dataclasses.replace(labels)))

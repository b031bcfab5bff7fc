"""The adversary: it has the gradient of the paper, it wins where it should, and says so where it cannot.

Labels are planted: what the right controls are, and where the regime shows, is known. Broken builds stand
beside the real one: a discriminator whose loss is scaled as well, and one without steps of its own.
"""

import math

import numpy as np
import pytest
import torch

from conductor.invariance import snapshots, stretches
from conductor.network import VARIANTS, flat, tensors
from conductor.regression import as_tensors, one_per_fork
from conductor.school import Labels, School
from conductor.sight import Inputs
from conductor.state import KNOWN, MARKET, NO_REGIME, STATE_NAMES
from conductor.steering import Steering
from conductor.variants import dann
from conductor.variants.dann import Adversary, Reversal, collapse, learning_rate_at, reversal_at, split

RUNS, FORKS, BRANCHES = 2, 4, 6


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(2)
    yield
    torch.set_num_threads(before)


def labels_of(n_windows=48, seed=1, n_landscapes=0, n_runs=RUNS, n_forks=FORKS):
    """Statistics 8 to 12 say what is right; the regime shows in the market and in statistic 3."""
    rng = np.random.default_rng(seed)
    everything = n_windows * n_runs + n_landscapes
    window = np.repeat(np.arange(n_windows), n_runs)
    window = np.concatenate([window, np.arange(n_windows, n_windows + n_landscapes)])
    regime = np.where(window < n_windows, window % 3, NO_REGIME)
    market = rng.normal(size=(n_windows + n_landscapes, 13))
    market[np.arange(n_windows), np.arange(n_windows) % 3] += 3.0
    run = np.repeat(np.arange(everything), n_forks)
    state = np.zeros((run.size, len(STATE_NAMES)))
    state[:, :38] = rng.normal(size=(run.size, 38))
    state[:, 3] += regime[run] - 1.0
    state[:, MARKET] = market[window[run]]
    state[:, KNOWN] = 1.0
    state[regime[run] == NO_REGIME, MARKET.start :] = 0.0
    right = np.tanh(state[:, 8:13] @ rng.normal(size=(5, 12)) / math.sqrt(5.0))
    residual = 0.8 * rng.normal(size=(run.size, BRANCHES, 12))
    gain = -((residual - right[:, None]) ** 2).sum(axis=-1)
    gain -= gain.mean(axis=1, keepdims=True)
    row = np.repeat(np.arange(run.size), BRANCHES)
    return Labels(
        state[row].astype(np.float32), np.zeros((row.size, 0, 30), np.float32), np.zeros((row.size, 0), bool),
        regime[run][row].astype(np.int64), residual.reshape(-1, 12).astype(np.float32),
        (gain / gain.std()).ravel().astype(np.float32), row, run[row],
    )  # fmt: skip


def school_of(labels, seed=1):
    """A school that has labels and nothing else."""
    return School(None, Steering((0.5,) * 12), None, lambda n: labels, seed, 1.0, None, lambda *told: None)


def gradients(network, penalty, rows, progress):
    """Of the penalty, for the extractor and for the discriminator."""
    network.zero_grad()
    penalty(network, rows, progress).backward()
    return tuple(
        torch.cat([p.grad.ravel() for p in part.parameters()]).clone()
        for part in (network.extractor, network.discriminator)
    )


class ScaledTwice(Adversary):
    """Wrong on purpose: lambda scales the loss of the discriminator too."""

    def __call__(self, network, rows, progress):
        return reversal_at(progress) * super().__call__(network, rows, progress)


def test_a_new_network_says_exactly_nothing_and_only_its_head_is_searched():
    network = VARIANTS.create("dann")
    inputs = Inputs(
        torch.randn(5, 64), torch.zeros(5, 0, 30), torch.zeros(5, 0, dtype=torch.bool), torch.arange(5) - 1
    )
    assert not network(inputs).any()
    assert {name.split(".")[0] for name, _ in network.searched()} == {"head"}
    wider = VARIANTS.create("dann", {"evolve_extractor": True})
    assert {name.split(".")[0] for name, _ in wider.searched()} == {"extractor", "head"}
    assert 0 < flat(network).size < flat(wider).size <= 5000


def test_the_schedules_are_those_of_the_paper():
    assert reversal_at(0.0) == 0.0
    assert (
        reversal_at(0.5)
        == pytest.approx(2.0 / (1.0 + math.exp(-5.0)) - 1.0)
        == pytest.approx(0.98661, abs=1e-5)
    )
    assert reversal_at(1.0) == pytest.approx(0.99991, abs=1e-5)
    assert learning_rate_at(0.0) == 0.01
    assert learning_rate_at(1.0) == pytest.approx(0.01 / 11.0**0.75)


def test_reversal_is_the_identity_with_a_gradient_turned_around():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(Reversal.apply(x, 0.3), x)
    (Reversal.apply(x, 0.3) * torch.arange(6.0).reshape(3, 2)).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * torch.arange(6.0, dtype=torch.float64).reshape(3, 2))


@pytest.mark.parametrize("kind", [Adversary, ScaledTwice])
@pytest.mark.parametrize("progress", [0.02, 0.3, 1.0])
def test_the_discriminator_learns_at_full_strength_and_only_the_reversed_gradient_is_scaled(kind, progress):
    labels = labels_of(12)
    rows = as_tensors(one_per_fork(labels))
    network = VARIANTS.create("dann")
    own = gradients(network, Adversary(labels.regime, -1.0, 0.1), rows, 50.0)  # lambda 1, not turned around
    extractor, discriminator = gradients(network, kind(labels.regime, 1.0, 0.1), rows, progress)
    right = torch.allclose(extractor, -reversal_at(progress) * own[0], rtol=1e-4, atol=1e-8)
    full = torch.allclose(discriminator, own[1], rtol=1e-4, atol=1e-8)
    assert own[0].abs().max() > 1e-4
    if kind is Adversary:
        assert right
        assert full
    elif progress < 1.0:
        assert not right
        assert not full


def test_without_an_adversary_the_discriminator_learns_and_moves_nothing_else():
    labels = labels_of(12)
    rows = as_tensors(one_per_fork(labels))
    network = VARIANTS.create("dann")
    extractor, discriminator = gradients(network, Adversary(labels.regime, 0.0, 0.1), rows, 0.7)
    assert not extractor.any()
    assert discriminator.any()


def test_every_regime_weighs_the_same_and_runs_of_none_weigh_nothing():
    labels = labels_of(12, n_landscapes=6)
    rows = one_per_fork(labels)
    network = VARIANTS.create("dann")
    with torch.no_grad():
        logits = network.discriminator(network.features(tensors(snapshots(labels)[0])))
    guess = torch.log_softmax(logits[:, :3], dim=1).numpy()
    kept = (rows.regime == 0) & (rows.run < 10) | (rows.regime > 0)  # fewer of one regime than of the others
    few = labels.rows(np.isin(labels.fork, rows.fork[kept | (rows.regime == NO_REGIME)]))
    loss = Adversary(few.regime, 1.0, 0.0)(network, as_tensors(one_per_fork(few)), 0.5).detach()
    wanted = -np.mean([guess[kept & (rows.regime == one), one].mean() for one in range(3)])
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert (rows.regime == NO_REGIME).sum() == 6 * FORKS
    plain = -np.mean(guess[kept, rows.regime[kept]])
    assert abs(float(loss) - plain) > 1e-4
    alone = rows.rows(rows.regime == NO_REGIME)
    assert float(Adversary(alone.regime, 1.0, 0.1)(network, as_tensors(alone), 0.5).detach()) == 0.0


def test_its_own_steps_teach_the_discriminator_and_leave_the_extractor_alone():
    labels = labels_of(12)
    rows = as_tensors(one_per_fork(labels))
    network = VARIANTS.create("dann")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = float(Adversary(labels.regime, 1.0, 0.1)(network, rows, 0.5).detach())
    last = float(Adversary(labels.regime, 1.0, 0.1, steps=50)(network, rows, 0.5).detach())
    assert last < first - 0.1
    moved = {
        name.split(".")[0] for name, value in network.state_dict().items() if not value.equal(before[name])
    }
    assert moved == {"discriminator"}


def test_unseen_labels_are_a_quarter_of_each_regime_and_share_no_bars_with_the_others():
    labels = labels_of(24, n_landscapes=8)
    learned, unseen = split(labels, 4)
    assert len(learned) + len(unseen) == len(labels)
    assert not set(learned.run.tolist()) & set(unseen.run.tolist())
    bars = [
        {tuple(row) for row in part.state[part.regime >= 0, MARKET].tolist()} for part in (learned, unseen)
    ]
    assert not bars[0] & bars[1]
    inputs, run = snapshots(unseen)
    group = stretches(inputs, run)
    assert [np.unique(group[inputs.regime == one]).size for one in range(-1, 3)] == [2, 2, 2, 2]
    assert split(labels, 4)[1].run.tobytes() == unseen.run.tobytes() != split(labels, 5)[1].run.tobytes()


def test_a_discriminator_that_always_answers_one_regime_has_collapsed_and_an_undecided_one_has_not():
    regime = np.repeat([0, 1, 2], [10, 20, 30])
    right, one, even = np.eye(3)[regime], np.tile([0.99, 0.005, 0.005], (60, 1)), np.full((60, 3), 1 / 3)
    assert collapse(regime, right)["balanced_accuracy"] == 1.0
    assert [collapse(regime, each)["collapsed"] for each in (right, one, even)] == [False, True, False]
    assert collapse(regime, right)["shares"] == pytest.approx(
        dict.fromkeys(("ranging", "trending", "volatile"), 1 / 3)
    )


def features_give_away(network, labels):
    """How well a fresh linear reading of the features recovers the regime; chance is 1/3."""
    inputs, _ = snapshots(labels)
    with torch.no_grad():
        features = network.features(tensors(inputs)).numpy()
    x, half = np.column_stack([features, np.ones(len(features))]), len(features) // 2
    weights = np.linalg.lstsq(x[:half], np.eye(3)[inputs.regime[:half]], rcond=None)[0]
    said, true = (x[half:] @ weights).argmax(axis=1), inputs.regime[half:]
    return float(np.mean([(said[true == one] == one).mean() for one in range(3)]))


def test_the_adversary_hides_the_regime_on_unseen_bars_and_keeps_what_is_right():
    """Against a twin without adversary, and against a discriminator without steps of its own."""
    learned, unseen = labels_of(240, n_runs=1, n_forks=2), labels_of(120, seed=77, n_runs=1, n_forks=2)
    leak, explained, judged = {}, {}, {}
    for name, settings in {"real": {}, "twin": {"adversary": 0.0}, "outrun": {"steps": 0}}.items():
        torch.manual_seed(2)
        network = VARIANTS.create("dann", settings | {"epochs": 60})
        explained[name] = dann._fitted(network, school_of(learned))["explained"]
        leak[name] = features_give_away(network, unseen), features_give_away(network, learned)
        inputs, _ = snapshots(unseen)
        judged[name] = collapse(inputs.regime, network.discriminated(inputs, np.arange(3)))
    assert max(leak["real"]) < 0.45
    assert min(leak["twin"]) > 0.55
    assert leak["outrun"][0] > leak["real"][0] + 0.03
    assert explained["real"] > 0.7 * explained["twin"] > 0.0
    assert not judged["real"]["collapsed"]
    assert judged["real"]["balanced_accuracy"] < 0.5 < judged["twin"]["balanced_accuracy"]


def test_schooling_reports_both_sides_and_is_the_same_again(monkeypatch):
    labels, found, weights = labels_of(24, n_landscapes=4), [], []
    judged = []
    monkeypatch.setattr(
        "conductor.invariance.evidence",
        lambda network, inputs, run, **_: judged.append(run) or {
            "verdict": "not invariant" if network.config.adversary == 0.0 else "invariant",
            "sentence": "Planted.", "features": {"best": 0.9}, "raw": {"best": 0.95},
        },
    )  # fmt: skip
    for _ in range(2):
        torch.manual_seed(8)
        network = VARIANTS.create("dann", {"epochs": 3})
        found.append(network.schooled(school_of(labels)))
        weights.append(torch.cat([one.ravel() for one in network.state_dict().values()]))
    assert torch.equal(*weights)
    one = found[0]["invariance"]
    assert one["verdict"] == (
        "bought" if one["lambda"]["task_loss"] <= 1.05 * one["twin"]["task_loss"] else "too dear"
    )
    assert "Without the adversary the probes reach 90%" in one["sentence"]
    assert all(math.isfinite(one[side]["gain_error"]) for side in ("lambda", "twin"))
    assert set(np.unique(judged[0])) == set(np.unique(split(labels, 1)[1].run))
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("verdicts", "losses", "said"),
    [
        (("invariant", "not invariant"), (1.0, 1.0), "bought"),
        (("invariant", "not invariant"), (1.06, 1.0), "too dear"),
        (("invariant", "invariant"), (1.0, 1.0), "there anyway"),
        (("not invariant", "not invariant"), (1.0, 1.0), "not reached"),
        (("undecided", "undecided"), (1.0, 1.0), "untested"),
    ],
)
def test_invariance_is_weighed_against_its_price(verdicts, losses, said):
    figures = {
        name: {
            "evidence": {"verdict": verdict, "sentence": "Planted.", "features": {"best": 0.5}},
            "task_loss": loss, "gain": 0.1, "gain_error": 0.01, "discriminator": {"collapsed": True},
        }
        for name, verdict, loss in zip(("lambda", "twin"), verdicts, losses, strict=True)
    }  # fmt: skip
    found = dann._weighed(figures)
    assert found["verdict"] == said
    assert ("collapsed" in found["sentence"]) == (said == "not reached")


def test_labels_without_a_regime_school_a_network_too_and_test_nothing():
    labels = labels_of(0, n_landscapes=12)
    found = VARIANTS.create("dann", {"epochs": 2}).schooled(school_of(labels))
    assert found["invariance"]["verdict"] == "untested"
    assert "no run belongs to a regime" in found["invariance"]["sentence"]

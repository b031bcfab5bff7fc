"""Advantage-weighted regression: it finds planted advantages, and leaves a network alone without any."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import nn

from conductor.network import VARIANTS, ConductorNetwork, silent, tensors
from conductor.regression import (
    as_tensors,
    fit,
    held_out,
    inputs_of_labels,
    one_per_fork,
    promised_gain,
    regress,
    squared_error,
)
from conductor.school import Labels, School
from conductor.state import STATE_NAMES
from conductor.vine import branch_residuals
from configs.load import Config


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def planted(n_runs=60, n_forks=5, n_branches=16, noise=0.5, slope=0.4, seed=0):
    """Labels in which the first control should rise with the first feature, and the second should fall."""
    rng = np.random.default_rng(seed)
    n = n_runs * n_forks
    state = rng.normal(size=(n, 64)).astype(np.float32)
    residual = branch_residuals(rng, n, n_branches)
    gain = slope * (state[:, :1] * residual[..., 0] - residual[..., 1])
    gain = gain + noise * rng.normal(size=gain.shape)
    gain -= gain.mean(axis=1, keepdims=True)
    fork = np.repeat(np.arange(n), n_branches)
    return Labels(
        state[fork],
        np.zeros((len(fork), 0, 30), dtype=np.float32),
        np.zeros((len(fork), 0), dtype=bool),
        np.full(len(fork), -1, dtype=np.int64),
        residual.reshape(-1, 12),
        (gain / gain.std()).ravel().astype(np.float32),
        fork,
        fork // n_forks,
    )


def shuffled(labels, seed=1):
    """The same labels with the advantages of each fork in another order: nothing can be learned."""
    rng = np.random.default_rng(seed)
    advantage = rng.permuted(labels.advantage.reshape(labels.fork.max() + 1, -1), axis=1)
    return dataclasses.replace(labels, advantage=advantage.ravel())


def new(seed=0, **settings):
    torch.manual_seed(seed)
    return VARIANTS.create("es", {"features": STATE_NAMES, "hidden": 16} | settings)


def weights(network):
    return b"".join(part.numpy().tobytes() for part in network.state_dict().values())


def learned(figures):
    """Whether held-out runs say that the network found something."""
    return figures["explained"] > 0.05 and figures["gain"] > 4.0 * figures["gain_error"] > 0.0


def test_planted_advantages_are_learned_and_foretell_unseen_runs():
    network = new()
    figures = fit(network, planted(n_runs=200), seed=3)
    assert learned(figures)
    fresh = planted(n_runs=100, seed=9)
    rows = one_per_fork(fresh)
    with torch.inference_mode():
        said = network(tensors(inputs_of_labels(rows))).numpy()
    assert np.corrcoef(said[:, 0], rows.state[:, 0])[0, 1] > 0.8
    assert said[:, 1].mean() < -0.1
    gain, error = promised_gain(said, rows.fork, fresh)
    assert gain > 5.0 * error > 0.0


def test_shuffled_advantages_are_not_learned():
    figures = fit(new(), shuffled(planted(n_runs=200)), seed=3)
    assert not learned(figures)
    assert figures["explained"] < 0.01


def test_a_network_that_learns_nothing_of_use_is_left_as_it_was_to_the_bit():
    network, labels = new(), planted()
    before = weights(network)
    # Training runs teach the opposite of what held-out runs show.
    sign = np.where(held_out_of(labels, seed=3), -1.0, 1.0).astype(np.float32)
    figures = fit(network, dataclasses.replace(labels, advantage=sign * labels.advantage), seed=3)
    assert figures["epoch"] == 0
    assert figures["explained"] == 0.0
    assert weights(network) == before


def held_out_of(labels, seed):
    from compute.seeds import stream

    rows = one_per_fork(labels)
    held = held_out(rows.run, stream(seed, "regression", "split"))
    return np.isin(labels.fork, rows.fork[held])


def test_one_row_per_fork_teaches_what_all_branches_teach():
    labels, temperature = planted(n_runs=4, n_branches=7), 0.6
    rows = one_per_fork(labels, temperature)
    weight = np.exp(labels.advantage.reshape(20, 7).astype(float) / temperature)
    weight /= weight.sum(axis=1, keepdims=True)
    residual = labels.residual.reshape(20, 7, 12)
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(3):
        said = rng.normal(size=(20, 12))
        all_branches = (weight[..., None] * (said[:, None] - residual) ** 2).sum(axis=(1, 2)).mean()
        one = float(squared_error(torch.from_numpy(said), torch.from_numpy(rows.residual)))
        differences.append(all_branches - one)
    assert np.ptp(differences) < 1e-5
    assert np.allclose(rows.advantage, (weight * labels.advantage.reshape(20, 7)).sum(axis=1), atol=1e-5)
    assert (rows.fork == np.arange(20)).all()
    assert (rows.state == labels.state[::7]).all()


def test_a_fork_in_which_all_branches_are_alike_asks_for_nothing():
    labels = planted(n_runs=2, n_branches=9)
    labels = dataclasses.replace(labels, advantage=np.zeros_like(labels.advantage))
    assert np.abs(one_per_fork(labels).residual).max() < 1e-6


def test_the_lower_the_temperature_the_nearer_the_best_branch():
    labels = planted(n_runs=2)
    best = labels.residual.reshape(10, 16, 12)[np.arange(10), labels.advantage.reshape(10, 16).argmax(axis=1)]
    far = [np.abs(one_per_fork(labels, t).residual - best).max() for t in (10.0, 0.2, 1e-3)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-5


def test_the_promised_gain_is_that_of_a_linear_advantage():
    rng = np.random.default_rng(4)
    labels = planted(n_runs=400, n_branches=17, noise=0.0)
    residual = rng.normal(size=(2000, 12))
    # Without noise the advantage in standard deviations is the planted slope times this.
    linear = labels.state[::17, 0].astype(float) * residual[:, 0] - residual[:, 1]
    product = labels.state[:, 0].astype(float) * labels.residual[:, 0] - labels.residual[:, 1]
    unit = product @ labels.advantage / (product @ product)
    gain, error = promised_gain(residual, np.arange(2000), labels)
    assert abs(gain - unit * linear.mean()) < 4.0 * error
    best = np.zeros_like(residual)
    best[:, 1] = -1.0
    gain, error = promised_gain(best, np.arange(2000), labels)
    assert abs(gain - unit) < 4.0 * error
    assert gain > 10.0 * error


def test_silence_is_promised_nothing():
    labels = planted(n_runs=4)
    assert promised_gain(np.zeros((20, 12)), np.arange(20), labels)[0] == 0.0


def test_the_same_seed_gives_the_same_bits_and_another_gives_others():
    found = []
    for seed in (3, 3, 4):
        network = new()
        fit(network, planted(n_runs=20), seed=seed, epochs=4, keep="last")
        found.append(weights(network))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("n_runs", [2, 5, 30])
def test_runs_are_held_out_whole(n_runs):
    run = np.random.default_rng(0).integers(n_runs, size=400)
    held = held_out(run, np.random.default_rng(1))
    assert not set(run[held]) & set(run[~held])
    assert len(set(run[held])) == max(1, round(0.2 * n_runs))


def test_a_split_by_rows_would_be_seen():
    run = np.random.default_rng(0).integers(5, size=400)
    held = np.random.default_rng(1).random(400) < 0.2
    assert set(run[held]) & set(run[~held])


def test_the_penalty_is_asked_with_rising_progress_and_rows_of_forks_and_acts():
    asked = []

    def louder(network, rows, progress):
        asked.append((progress, len(rows)))
        assert isinstance(rows.state, torch.Tensor)
        return 10.0 * (network(inputs_of_labels(rows))[:, 3] - 1.0).square().mean()

    labels, plain, pulled = planted(n_runs=40), new(), new()
    settings = {"seed": 3, "epochs": 30, "batch_size": 64, "keep": "last"}
    fit(plain, labels, **settings)
    fit(pulled, labels, penalty=louder, **settings)
    progress = [p for p, _ in asked]
    assert progress == sorted(set(progress))
    assert progress[0] == 0.0
    assert 0.9 < progress[-1] < 1.0
    assert sum(n for _, n in asked) == 30 * 32 * 5
    with torch.inference_mode():
        own = tensors(inputs_of_labels(one_per_fork(labels)))
        assert pulled(own)[:, 3].mean() > 0.5 > plain(own)[:, 3].mean() + 0.3


def test_the_penalty_is_no_part_of_the_held_out_loss():
    labels = planted(n_runs=10)
    settings = {"seed": 3, "epochs": 3, "keep": "last"}
    one = fit(new(), labels, **settings)
    other = fit(new(), labels, penalty=lambda *_: torch.tensor(1e6), **settings)
    assert one["held_out_loss"] == other["held_out_loss"]
    assert one["train_loss"] == other["train_loss"]


def test_best_keeps_the_epoch_with_the_lowest_held_out_loss_and_last_the_last():
    labels, best, last = planted(), new(hidden=64), new(hidden=64)
    kept = fit(best, labels, seed=3)
    assert 0 < kept["epoch"] == int(np.argmin(kept["held_out_loss"])) < len(kept["train_loss"])
    ended = fit(last, labels, seed=3, epochs=kept["epoch"], keep="last")
    assert ended["epoch"] == kept["epoch"] == len(ended["train_loss"])
    assert weights(best) == weights(last)


def test_the_learning_rate_may_follow_the_progress():
    labels, network = planted(n_runs=10), new()
    before, seen = weights(network), []

    def rate(progress):
        seen.append(progress)
        return 0.0

    fit(network, labels, seed=3, epochs=3, learning_rate=rate, keep="last")
    assert weights(network) == before
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def test_extra_parameters_are_fitted_with_a_criterion_of_ones_own():
    labels, scale = planted(n_runs=10), nn.Parameter(torch.zeros(()))

    def criterion(said, wanted):
        return squared_error(said, wanted) * torch.exp(-scale) + scale

    settings = {"seed": 3, "epochs": 100, "learning_rate": 0.05, "keep": "last"}
    fit(new(features=STATE_NAMES[:1], hidden=1), labels, criterion=criterion, extra=[scale], **settings)
    settled = fit(new(features=STATE_NAMES[:1], hidden=1), labels, **settings)["train_loss"][-1]
    # The minimum lies at the logarithm of the loss.
    assert scale.item() == pytest.approx(np.log(settled), abs=0.3)


def test_regress_asks_the_school_for_as_much_history_as_the_network_wants():
    class Reading(ConductorNetwork):
        n_history = 7

        def __init__(self, config):
            super().__init__(config)
            self.head = silent(nn.Linear(64, 12))

        def forward(self, inputs):
            return self.head(inputs.state)

    asked, told = [], []

    def labels(n_history):
        asked.append(n_history)
        return planted(n_runs=5)

    school = School(None, None, None, labels, 3, 1.0, None, lambda *words: told.append(words))
    figures = regress(Reading(Config()), school, epochs=2, keep="last")
    assert asked == [7]
    assert [(done, total) for done, total, _ in told] == [(1, 2), (2, 2)]
    assert figures["forks"] + figures["held_out_forks"] == 25


def test_tensors_of_labels_share_their_values():
    labels = planted(n_runs=2)
    for field in dataclasses.fields(labels):
        assert (getattr(as_tensors(labels), field.name).numpy() == getattr(labels, field.name)).all()


def test_labels_of_one_run_and_unknown_settings_are_refused():
    with pytest.raises(ValueError, match=re.escape("labels come from 1 run; two are needed")):
        fit(new(), planted(n_runs=1), seed=3)
    with pytest.raises(ValueError, match=re.escape("keep is 'first'; it must be best or last")):
        fit(new(), planted(n_runs=2), seed=3, keep="first")
    with pytest.raises(ValueError, match=re.escape("temperature is 0.0; it must be above 0")):
        one_per_fork(planted(n_runs=2), 0.0)
    with pytest.raises(ValueError, match=re.escape("the loss of epoch 1 is not a number")):
        fit(new(), planted(n_runs=4), seed=3, criterion=lambda said, _: said.sum() * float("nan"))

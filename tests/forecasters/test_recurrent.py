"""LSTM and GRU: what they compute, against twins of a few lines."""

import numpy as np
import pytest
import torch
from torch import nn

from configs.load import ConfigError
from forecasters.forecaster import FORECASTERS
from tests.forecasters.torch_examples import LEVEL, noise, shaken, small, threads


@pytest.fixture(autouse=True)
def _one_thread():
    with threads(1):
        yield


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def parameters(body):
    found = {name: part.detach().double().numpy() for name, part in body.state_dict().items()}
    return [found[f"memory.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")], found


def lstm(body, window):
    """The equations of Hochreiter and Schmidhuber with a forget gate, one row after the other."""
    (w, u, b, c), found = parameters(body)
    hidden = memory = np.zeros(u.shape[1])
    for row in window:
        let_in, keep, new, out = np.split(w @ row + u @ hidden + b + c, 4)
        memory = sigmoid(keep) * memory + sigmoid(let_in) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(memory)
    return found["head.weight"] @ hidden + found["head.bias"]


def gru(body, window):
    """The equations of Cho et al., with the reset gate after the product as cuDNN has it."""
    (w, u, b, c), found = parameters(body)
    hidden = np.zeros(u.shape[1])
    for row in window:
        reset, update, new = np.split(w @ row + b, 3)
        old_reset, old_update, old_new = np.split(u @ hidden + c, 3)
        update = sigmoid(update + old_update)
        new = np.tanh(new + sigmoid(reset + old_reset) * old_new)
        hidden = (1.0 - update) * new + update * hidden
    return found["head.weight"] @ hidden + found["head.bias"]


@pytest.mark.parametrize(("name", "twin"), [("lstm", lstm), ("gru", gru)])
def test_the_state_at_the_newest_row_answers(name, twin):
    body = shaken(small(name).body(LEVEL))
    windows = noise(3, 8, len(LEVEL))
    with torch.inference_mode():
        said = body(windows).numpy()
    rows = windows.double().numpy()
    np.testing.assert_allclose(said, [twin(body, window) for window in rows], atol=1e-5)
    # Read from the newest to the oldest row it would say something else.
    assert np.abs(said - [twin(body, window[::-1]) for window in rows]).max() > 0.01


def test_a_new_lstm_keeps_what_it_remembers_and_says_nothing_yet():
    body = small("lstm", hidden=4).body(LEVEL)
    bias = body.memory.bias_ih_l0 + body.memory.bias_hh_l0
    np.testing.assert_array_equal(bias.detach().numpy(), np.repeat([0.0, 1.0, 0.0, 0.0], 4))
    np.testing.assert_array_equal(body(noise(2, 8, 4)).detach().numpy(), np.zeros((2, 3)))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_each_gate_begins_as_a_rotation(name):
    body = small(name, hidden=6).body(LEVEL)
    for gate in body.memory.weight_hh_l0.detach().split(6):
        np.testing.assert_allclose((gate @ gate.T).numpy(), np.eye(6), atol=1e-5)


def test_dropout_stands_between_layers_and_before_the_answer():
    body = small("gru", layers=3, dropout=0.25).body(LEVEL)
    assert (body.memory.num_layers, body.memory.dropout) == (3, 0.25)
    assert body.dropout.p == 0.25
    assert isinstance(small("gru", dropout=0.25).body(LEVEL).memory, nn.GRU)  # without a warning


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hidden": 0}, "hidden is 0"), ({"layers": 9}, "layers is 9"), ({"dropout": 1.0}, "dropout is 1.0")],
)
def test_settings_out_of_bounds_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FORECASTERS.create("lstm", settings)

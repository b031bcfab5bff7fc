"""The transformer and PatchTST: who sees whom."""

import pytest
import torch
from torch import nn

from configs.load import ConfigError
from forecasters.attention import AttentionConfig, Layer
from forecasters.forecaster import FORECASTERS
from tests.forecasters.torch_examples import LEVEL, noise, shaken, small, threads


@pytest.fixture(autouse=True)
def _one_thread():
    with threads(1):
        yield


CONFIG = AttentionConfig(d_model=8, heads=2, feed_forward=8)


def altered_after(x, t):
    return torch.cat([x[:, : t + 1], noise(*x[:, t + 1 :].shape, seed=9)], dim=1)


def looks_ahead(layer, tokens):
    """Whether an output changes when tokens after it do."""
    with torch.inference_mode():
        said = layer(tokens)
        return any(
            not torch.allclose(said[:, : t + 1], layer(altered_after(tokens, t))[:, : t + 1], atol=1e-6)
            for t in range(tokens.shape[1] - 1)
        )


def test_no_token_of_the_transformer_sees_a_later_one():
    tokens = noise(2, 6, 8)
    assert not looks_ahead(shaken(Layer(CONFIG, causal=True)), tokens)
    assert looks_ahead(shaken(Layer(CONFIG, causal=False)), tokens)


def test_every_layer_of_the_transformer_is_causal():
    body = small("transformer", layers=3).body(LEVEL)
    assert [layer.causal for layer in body.layers] == [True] * 3


@pytest.mark.parametrize("causal", [True, False])
def test_the_newest_token_alone_is_the_same_token(causal):
    layer, tokens = shaken(Layer(CONFIG, causal=causal)), noise(2, 6, 8)
    with torch.inference_mode():
        torch.testing.assert_close(layer(tokens, newest_only=True), layer(tokens)[:, -1:])


def test_attention_is_that_of_pytorch():
    layer, tokens = shaken(Layer(CONFIG, causal=True)), noise(2, 6, 8)
    twin = nn.TransformerEncoderLayer(8, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        twin.self_attn.in_proj_weight.copy_(torch.cat([layer.asked.weight, layer.offered.weight]))
        twin.self_attn.in_proj_bias.copy_(torch.cat([layer.asked.bias, layer.offered.bias]))
        pairs = [
            (twin.self_attn.out_proj, layer.told),
            (twin.norm1, layer.before_attention),
            (twin.norm2, layer.map[0]),
            (twin.linear1, layer.map[1]),
            (twin.linear2, layer.map[4]),
        ]
        for other, own in pairs:
            other.load_state_dict(own.state_dict())
        unseen = nn.Transformer.generate_square_subsequent_mask(6)
        torch.testing.assert_close(layer(tokens), twin(tokens, src_mask=unseen), atol=1e-5, rtol=1e-5)


def moved(body, windows, row):
    """How far the answer moves when one row of the window does."""
    other = windows.clone()
    other[:, row] += 1.0
    with torch.inference_mode():
        return float((body(other) - body(windows)).abs().max())


@pytest.mark.parametrize("name", ["transformer", "patchtst"])
@pytest.mark.parametrize("lookback", [8, 9])
def test_every_row_of_the_window_counts_the_oldest_and_the_newest_too(name, lookback):
    settings = {"patch": 4, "stride": 4} if name == "patchtst" else {}
    body = shaken(small(name, lookback=lookback, **settings).body(LEVEL))
    windows = noise(2, lookback, len(LEVEL))
    assert all(moved(body, windows, row) > 1e-4 for row in range(lookback))


@pytest.mark.parametrize(
    ("lookback", "patch", "stride", "n"), [(8, 4, 4, 2), (9, 4, 4, 3), (48, 8, 4, 11), (5, 5, 5, 1)]
)
def test_the_newest_patch_ends_with_the_newest_row(lookback, patch, stride, n):
    body = small("patchtst", lookback=lookback, patch=patch, stride=stride).body(LEVEL)
    body.mix = nn.Identity()
    seen = []
    body.entry.register_forward_hook(lambda _module, given, _said: seen.append(given[0]))
    body.head = nn.Identity()
    rows = torch.arange(float(lookback)).view(1, lookback, 1).expand(1, lookback, 4)
    with torch.inference_mode():
        body(rows)
    patches = seen[0]
    assert patches.shape == (4, n, patch)
    assert patches[0, -1].tolist() == list(range(lookback - patch, lookback))
    assert patches[0, 0, 0] == 0.0  # the oldest row, repeated in front where rows are missing
    assert set(patches[0].flatten().tolist()) == set(range(lookback))


def test_series_pass_through_the_layers_by_themselves():
    def touched(channels):
        body = shaken(small("patchtst", channels=channels).body(LEVEL))
        said = []
        body.norm.register_forward_hook(lambda _module, _given, found: said.append(found.clone()))
        windows = noise(1, 8, len(LEVEL))
        other = windows.clone()
        other[:, :, 1] += 1.0
        with torch.inference_mode():
            body(windows)
            body(other)
        return [i for i, (one, two) in enumerate(zip(*said, strict=True)) if not torch.allclose(one, two)]

    assert touched(channels=0) == [1]  # each column is a series
    assert touched(channels=4) == [0, 1, 2, 3]  # each series is a mixture of columns


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("transformer", {"d_model": 10, "heads": 4}, "d_model is 10; it must be a multiple of the 4 heads"),
        ("patchtst", {"lookback": 6, "patch": 8}, "a patch must fit into the lookback of 6"),
        ("patchtst", {"patch": 4, "stride": 5}, "and a stride into the patch"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        FORECASTERS.create(name, settings)
    assert "\n" not in str(caught.value)

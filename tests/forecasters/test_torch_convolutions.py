"""The convolutional network, N-HiTS and the order-book network: what they see, against slow twins."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from configs.load import ConfigError
from forecasters.forecaster import FORECASTERS
from forecasters.nhits import Block
from forecasters.order_book import SIDES, book_columns
from forecasters.tcn import every_second
from market.table import DataError
from tests.forecasters.torch_examples import LEVEL, noise, shaken, small, threads


@pytest.fixture(autouse=True)
def _one_thread():
    with threads(1):
        yield


# The convolutional network


def dilated(body, windows):
    """The same network as the paper has it: all positions, and convolutions that skip further and further."""
    positions = body.entry(windows)
    for i, block in enumerate(body.blocks):
        found = positions
        for part in block.path:
            if not hasattr(part, "kernel"):
                found = part(found)
                continue
            channels = found.shape[-1]
            weights = part.weights.weight.view(channels, part.kernel, channels).transpose(1, 2)
            past = functional.pad(found.transpose(1, 2), ((part.kernel - 1) * 2**i, 0))
            found = functional.conv1d(past, weights, part.weights.bias, dilation=2**i).transpose(1, 2)
        positions = positions + found
    return body.head(body.norm(positions[:, -1]))


@pytest.mark.parametrize(
    ("lookback", "blocks", "kernel"), [(48, 5, 3), (33, 4, 2), (7, 3, 4), (8, 1, 3), (2, 4, 3)]
)
def test_dropping_every_second_position_gives_the_dilated_network(lookback, blocks, kernel):
    body = shaken(small("tcn", lookback=lookback, blocks=blocks, kernel=kernel, channels=5).body(LEVEL))
    windows = noise(3, lookback, len(LEVEL))
    with torch.inference_mode():
        torch.testing.assert_close(body(windows), dilated(body, windows), atol=1e-5, rtol=1e-5)


def test_dropping_from_the_wrong_end_is_found_out(monkeypatch):
    body = shaken(small("tcn", blocks=3, channels=5).body(LEVEL))
    windows = noise(3, 8, len(LEVEL))
    monkeypatch.setattr("forecasters.tcn.every_second", lambda positions: positions[:, ::2])
    with torch.inference_mode():
        assert (body(windows) - dilated(body, windows)).abs().max() > 0.01


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_every_second_position_is_counted_from_the_newest(n):
    kept = every_second(torch.arange(float(n)).view(1, n, 1))[0, :, 0].tolist()
    assert kept == list(range(n))[::-1][::2][::-1]


def ahead(module, given):
    """Positions whose output changes when later inputs do; positions are the axis 1."""
    with torch.inference_mode():
        said = module(given)
        found = []
        for t in range(given.shape[1] - 1):
            other = given.clone()
            other[:, t + 1 :] += noise(*other[:, t + 1 :].shape, seed=9)
            if not torch.allclose(module(other)[:, : t + 1], said[:, : t + 1], atol=1e-6):
                found.append(t)
    return found


def test_no_position_of_a_block_sees_a_later_one(monkeypatch):
    body = shaken(small("tcn", channels=5).body(LEVEL))
    positions = noise(2, 6, 5)
    assert all(ahead(block, positions) == [] for block in body.blocks)
    pad = functional.pad
    monkeypatch.setattr(functional, "pad", lambda x, sides: pad(x, (0, 0, 1, 1)))  # centred: one row ahead
    assert ahead(body.blocks[0], positions) != []


@pytest.mark.parametrize(("blocks", "kernel"), [(1, 2), (2, 2), (1, 3), (2, 3)])
def test_the_network_reaches_as_far_back_as_its_settings_say(blocks, kernel):
    body = shaken(small("tcn", lookback=16, blocks=blocks, kernel=kernel, channels=5).body(LEVEL))
    windows = noise(1, 16, len(LEVEL)).requires_grad_()
    (slope,) = torch.autograd.grad(body(windows)[0, 0], windows)
    seen = np.flatnonzero(slope.abs().sum(dim=(0, 2)).numpy())
    reach = 1 + 2 * (kernel - 1) * (2**blocks - 1)
    assert seen.tolist() == list(range(16 - reach, 16))


# N-HiTS


def hits(**settings):
    return small("nhits", **settings).config


def test_a_pool_ends_with_the_newest_row_and_knows_its_greatest_value():
    config = hits(lookback=10, rates=[4])
    block = Block(2, 4, True, config)
    pooled = []
    block.map = nn.Sequential(nn.Flatten(), nn.Linear(6, 32))
    block.map.register_forward_hook(lambda _module, given, _said: pooled.append(given[0]))
    series = torch.stack([torch.arange(10.0), -torch.arange(10.0)])[None]
    block(series)
    # Three pools of four rows: the oldest one is filled up with the oldest row.
    assert pooled[0][0].tolist() == [1.0, 5.0, 9.0, 0.0, -2.0, -6.0]


def test_a_block_hands_on_what_its_smooth_line_leaves():
    block = Block(1, 4, False, hits(lookback=8, rates=[4, 1]))
    nn.init.zeros_(block.knots.weight)
    block.knots.bias.data = torch.tensor([0.0, 7.0])  # a line from 0 to 7 over eight rows
    series = torch.arange(8.0).view(1, 1, 8)
    with torch.inference_mode():
        answer, left = block(series)
    np.testing.assert_allclose(left.numpy(), np.zeros((1, 1, 8)), atol=1e-6)
    assert answer.shape == (1, 3)


def test_the_parts_of_the_answer_add_up_and_later_blocks_see_the_rest():
    body = shaken(small("nhits", rates=[4, 2, 1]).body(LEVEL))
    windows = noise(2, 8, len(LEVEL))
    with torch.inference_mode():
        said, series, parts = body(windows), body.mix(windows).transpose(1, 2), []
        for block in body.blocks:
            part, series = block(series)
            parts.append(part)
        torch.testing.assert_close(said, sum(parts))
        whole = [block(body.mix(windows).transpose(1, 2))[0] for block in body.blocks]
        assert (
            said - sum(whole)
        ).abs().max() > 0.01  # all blocks on the whole input would say something else
    assert body.blocks[-1].knots is None  # nobody would see what the last one leaves


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": [64]}, "rates hold 64; they must be at most the lookback of 48"),
        ({"rates": []}, "rates is"),
        ({"rates": [0]}, "rates.0 is 0"),
    ],
)
def test_rates_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FORECASTERS.create("nhits", settings)


# Order books

BOOK = tuple(f"{side}{level}" for level in (1, 2, 3) for side in SIDES)
WIDE = ("rsi_14", *BOOK, "spread")


def test_levels_are_found_by_name_in_any_order():
    assert book_columns(WIDE) == (3, list(range(1, 13)), [0, 13])
    levels, book, others = book_columns(WIDE[::-1])
    assert [WIDE[::-1][i] for i in book] == list(BOOK)
    assert (levels, others) == (3, [0, 13])


def test_the_order_of_the_columns_changes_no_answer():
    windows = noise(2, 8, len(WIDE))
    order = np.random.default_rng(1).permutation(len(WIDE)).tolist()
    # Columns beside the book keep their order, as they do in the LSTM's weights.
    order = [i for i in order if 0 < i < 13] + [0, 13]
    other = tuple(WIDE[i] for i in order)
    torch.manual_seed(0)
    one = shaken(small("cnn_lstm").body(WIDE))
    two = shaken(small("cnn_lstm").body(other))
    two.load_state_dict(one.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(one(windows), two(windows[..., order]))
        assert (one(windows) - one(windows[..., order])).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("rsi_14", "close"), "there is no order book; its columns are ask_price_1, ask_size_1, bid_price_1"),
        (BOOK[:-1], "column ask_price_3 stands alone; a level has ask_price_3, ask_size_3"),
        (BOOK[4:], "column ask_price_2 stands alone; a level has ask_price_1"),
    ],
)
def test_books_with_holes_are_refused_in_one_sentence(columns, message):
    with pytest.raises(DataError, match=message) as caught:
        small("cnn_lstm").body(columns)
    assert "\n" not in str(caught.value)


def test_no_row_of_the_book_sees_a_later_one():
    body = shaken(small("cnn_lstm").body(WIDE))
    windows = noise(2, 9, len(WIDE))
    assert ahead(body.rows, windows) == []
    with torch.inference_mode():
        assert torch.isfinite(body.rows(windows)).all()


def test_every_column_reaches_the_answer_and_every_row_does():
    body = shaken(small("cnn_lstm").body(WIDE))
    windows = noise(4, 8, len(WIDE)).requires_grad_()
    (slope,) = torch.autograd.grad(body(windows).square().sum(), windows)
    assert bool((slope.abs().sum(dim=0) > 0.0).all())


def test_the_book_is_still_heard_after_all_convolutions():
    torch.manual_seed(3)
    body = small("cnn_lstm", filters=16, branch_filters=32).body(WIDE).eval()
    with torch.inference_mode():
        found = body.rows(noise(64, 8, len(WIDE)))[..., :-2]
    spread = found[:, -1].std(dim=0).mean()
    assert 0.1 < float(spread) < 10.0

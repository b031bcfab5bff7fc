"""The temporal fusion transformer: what its layers compute, what it learns, and what it says about it."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from configs.load import ConfigError
from forecasters.forecaster import DOCUMENT, load_forecaster, new_forecaster, plugin_config
from forecasters.quantiles import pinball
from forecasters.tft import FusionTransformer, GatedResidual, SharedAttention, TftConfig, VariableSelection
from forecasters.torch_training import WEIGHTS
from forecasters.windows import Examples
from market.table import DataError
from tests.forecasters.torch_examples import (
    LEVEL,
    LOOKBACK,
    QUICK,
    balanced_accuracy,
    noise,
    planted,
    shaken,
    threads,
)

LEVELS = (0.1, 0.5, 0.9)
SMALL = {"d_model": 16, "heads": 2, "epochs": 12}


@pytest.fixture(autouse=True)
def _one_thread():
    with threads(1):
        yield


def small(**settings):
    return new_forecaster(plugin_config("tft").model_copy(update={**QUICK, **SMALL, **settings}))


def spread_of(features):
    """The size of the return: told by the second column."""
    return 0.01 * np.exp(0.7 * features[:, 1])


def parts(n=3000, seed=0):
    """Examples whose class the first column tells three rows later, and whose return's size the second."""
    features, target = planted(n, seed=seed)
    ret = spread_of(features) * np.random.default_rng(seed + 1).normal(size=n)
    ends = [LOOKBACK, int(0.6 * n), int(0.8 * n), n]
    return tuple(of(features, target, ret, *span) for span in itertools.pairwise(ends))


def of(features, target, ret, begin, end, **more):
    rows = np.arange(begin, end, dtype=np.int64)
    more = {"weight": None, **more}
    return Examples(features, rows, LOOKBACK, target[begin:end], names=LEVEL, ret=ret[begin:end], **more)


@pytest.fixture(scope="module")
def fitted():
    train, validation, _ = parts()
    with threads(1):
        return small().fit(train, validation, seed=3)


def content(folder):
    return [(folder / name).read_bytes() for name in (WEIGHTS, DOCUMENT)]


# Layers


def test_a_gated_residual_network_is_that_of_the_equations():
    layer, given = shaken(GatedResidual(3, 5, 4, 0.5)), noise(6, 3)

    def mapped(part, x):
        return x @ part.weight.detach().double().numpy().T + part.bias.detach().double().numpy()

    x = given.double().numpy()
    inner = mapped(layer.map[0], x)
    inner = mapped(layer.map[2], np.where(inner > 0, inner, np.expm1(inner)))
    signal, gate = np.split(mapped(layer.gate.gate, inner), 2, axis=1)
    found = mapped(layer.beside, x) + signal / (1.0 + np.exp(-gate))
    found = (found - found.mean(axis=1, keepdims=True)) / np.sqrt(found.var(axis=1, keepdims=True) + 1e-5)
    norm = layer.gate.norm
    wanted = found * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    np.testing.assert_allclose(layer(given).detach().numpy(), wanted, atol=1e-5)
    assert isinstance(GatedResidual(4, 5, 4, 0.5).beside, nn.Identity)


def test_shared_attention_is_that_of_pytorch_with_equal_values_in_all_heads():
    layer, rows, heads = shaken(SharedAttention(8, 2)), noise(3, 6, 8), 2
    twin = nn.MultiheadAttention(8, heads, batch_first=True).eval()
    with torch.no_grad():
        value, bias = layer.value.weight.repeat(heads, 1), layer.value.bias.repeat(heads)
        twin.in_proj_weight.copy_(torch.cat([layer.ask.weight, layer.offer.weight, value]))
        twin.in_proj_bias.copy_(torch.cat([layer.ask.bias, layer.offer.bias, bias]))
        twin.out_proj.weight.copy_(layer.told.weight.repeat(1, heads) / heads)
        twin.out_proj.bias.copy_(layer.told.bias)
        found, weights = layer(rows)
        wanted, looked = twin(rows[:, -1:], rows, rows)
    torch.testing.assert_close(found, wanted[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, looked[:, 0], atol=1e-6, rtol=1e-5)


def test_a_new_selection_prefers_no_column_and_a_learned_one_weighs_each_row_by_itself():
    selection, rows = VariableSelection(4, 8, 0.0), noise(2, 5, 4)
    torch.testing.assert_close(selection(rows)[1], torch.full((2, 5, 4), 0.25))
    chosen, weights = shaken(selection)(rows)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 5))
    assert weights.std(dim=1).min() > 1e-3  # other rows, other weights
    other = rows.clone()
    other[:, 3] += 1.0
    again, _ = selection(other)
    same = (again == chosen).all(dim=-1).all(dim=0)
    assert same.tolist() == [True, True, True, False, True]


def test_every_row_of_the_window_counts_the_oldest_and_the_newest_too():
    body, windows = shaken(FusionTransformer(4, TftConfig(**QUICK, d_model=8, heads=2))), noise(2, 8, 4)
    with torch.inference_mode():
        for row in range(8):
            other = windows.clone()
            other[:, row] += 1.0
            assert (body(other) - body(windows)).abs().max() > 1e-4


# What it learns


def test_it_learns_classes_that_only_memory_can_tell(fitted):
    test = parts()[2]
    assert balanced_accuracy(fitted.predict(test.windows()), test.target) > 0.75
    assert balanced_accuracy(fitted.predict(test.windows()[:, ::-1]), test.target) < 0.45


def test_quantiles_rise_cover_what_they_say_and_lose_less_than_constant_ones(fitted):
    train, _, test = parts()
    found = fitted.quantiles(test.windows())
    assert (found.shape, found.dtype) == ((len(test), 3), np.float64)
    assert (np.diff(found, axis=1) >= 0.0).all()
    np.testing.assert_allclose((test.ret[:, None] <= found).mean(axis=0), LEVELS, atol=0.06)
    constant = pinball(np.quantile(train.ret, LEVELS), test.ret, LEVELS)
    ratio = pinball(found, test.ret, LEVELS) / constant
    assert ratio[[0, 2]].max() < 0.92
    # It has found the size of the return, and where it stands.
    size = spread_of(test.features)[test.rows]
    assert np.corrcoef(np.log(found[:, 2] - found[:, 0]), np.log(size))[0, 1] > 0.8
    backwards = fitted.quantiles(test.windows()[:, ::-1])
    assert (pinball(backwards, test.ret, LEVELS) / constant)[[0, 2]].min() > 1.0


def test_returns_that_nothing_foretells_teach_no_quantiles():
    train, validation, test = parts()
    random = np.random.default_rng(4)
    shuffled = [
        Examples(one.features, one.rows, LOOKBACK, one.target, None, LEVEL, ret=random.permutation(one.ret))
        for one in (train, validation)
    ]
    found = small(epochs=4).fit(*shuffled, seed=3).quantiles(test.windows())
    ratio = pinball(found, test.ret, LEVELS) / pinball(np.quantile(train.ret, LEVELS), test.ret, LEVELS)
    assert ratio.min() > 0.98
    assert ratio.max() < 1.05


def untaught(**weights):
    """A network whose steps are too small to move it from what it knew without looking."""
    features, target = planted(300)
    ret = 0.01 * np.random.default_rng(2).standard_t(3, 300)
    train = of(features, target, ret, LOOKBACK, 200, **{k: w[LOOKBACK:200] for k, w in weights.items()})
    model = small(learning_rate=1e-7, epochs=1).fit(train, of(features, target, ret, 200, 300), seed=1)
    return model.quantiles(train.windows(slice(5))), train.ret


def test_what_it_knows_without_looking_are_the_quantiles_of_the_training_returns():
    found, ret = untaught()
    wanted = np.quantile(ret, LEVELS, method="inverted_cdf")
    np.testing.assert_allclose(found, np.tile(wanted, (5, 1)), rtol=1e-4, atol=1e-6)


def test_quantiles_are_those_of_returns_that_count_by_their_own_weights():
    heavy = np.where(np.arange(300) % 2, 1.9, 0.1)
    found, ret = untaught(ret_weight=heavy)
    plain, _ = untaught(weight=heavy)  # what classes count moves none of them
    wanted = np.quantile(ret, LEVELS, weights=heavy[LOOKBACK:200], method="inverted_cdf")
    np.testing.assert_allclose(found, np.tile(wanted, (5, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plain, untaught()[0], rtol=1e-4, atol=1e-6)
    assert np.abs(found - plain).max() > 5e-4


def test_importances_are_the_weights_of_the_columns_and_find_the_one_that_tells(fitted):
    found = fitted.importances()
    assert found.shape == (len(LEVEL),)
    assert found.sum() == pytest.approx(1.0)
    assert sorted(np.argsort(found)[-2:]) == [0, 1]  # the class by the first, the size by the second
    train = parts()[0]
    some = np.unique(np.linspace(0, len(train) - 1, 512).astype(np.int64))
    with torch.inference_mode():
        weights = fitted.network.body.read(torch.from_numpy(train.windows(some)))[1]
    np.testing.assert_allclose(found, weights.mean(dim=(0, 1)).numpy(), atol=1e-6)


def test_attention_says_where_it_looked(fitted):
    found = fitted.attention(parts()[2].windows(slice(20)))
    assert found.shape == (20, LOOKBACK)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    assert found.std(axis=0).max() > 1e-3


# Same bits, and each row by itself


def test_it_comes_back_from_the_disk_with_the_same_bits(fitted, tmp_path):
    windows = parts()[2].windows(slice(40))
    fitted.save(tmp_path)
    again = load_forecaster(tmp_path)
    for method in ("predict", "quantiles", "attention"):
        np.testing.assert_array_equal(getattr(again, method)(windows), getattr(fitted, method)(windows))
    np.testing.assert_array_equal(again.importances(), fitted.importances())
    assert again.levels == fitted.levels == LEVELS


def test_a_seed_makes_the_same_bytes_on_any_number_of_threads_and_another_seed_others(tmp_path):
    train, validation, _ = parts(300)
    made = []
    for run, (seed, count) in enumerate([(1, 1), (1, 2), (2, 1)]):
        with threads(count):
            small(epochs=1, dropout=0.2).fit(train, validation, seed=seed).save(tmp_path / str(run))
        made.append(content(tmp_path / str(run)))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_rows_and_returns_after_the_validation_change_no_bit(tmp_path):
    features, target = planted(400)
    ret = 0.01 * np.random.default_rng(3).normal(size=400)

    def saved(name, row):
        own, returns = features.copy(), ret.copy()
        own[row:] += 1.0
        returns[row:] *= -2.0
        spans = (LOOKBACK, 200), (200, 300)
        train, validation = (of(own, target, returns, *span) for span in spans)
        small(epochs=1).fit(train, validation, seed=1).save(tmp_path / name)
        return content(tmp_path / name)

    untouched = saved("untouched", 400)
    assert saved("later", 300) == untouched
    assert saved("last", 299) != untouched


def test_each_window_is_answered_by_itself(fitted):
    windows = parts()[2].windows(slice(20))
    for answer in (fitted.predict, fitted.quantiles):
        alone = np.concatenate([answer(windows[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(alone, answer(windows), atol=1e-5)
    assert fitted.quantiles(windows[:0]).shape == (0, 3)


# Settings


def test_without_levels_it_learns_classes_alone_and_needs_no_returns(tmp_path):
    train, validation, test = (
        Examples(one.features, one.rows, LOOKBACK, one.target, None, LEVEL) for one in parts(300)
    )
    model = small(quantiles=[], epochs=1).fit(train, validation, seed=1)
    assert model.quantiles(test.windows()) is None
    model.save(tmp_path)
    np.testing.assert_array_equal(
        load_forecaster(tmp_path).predict(test.windows()), model.predict(test.windows())
    )
    with pytest.raises(DataError, match=r"tft: training examples have no returns, which its quantiles"):
        small(epochs=1).fit(train, validation, seed=1)


def test_the_settings_that_come_with_it_are_its_defaults():
    model = new_forecaster(plugin_config("tft"))
    assert model.config == TftConfig()
    assert model.levels == LEVELS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 10, "heads": 4}, "d_model is 10; it must be a multiple of the 4 heads"),
        ({"quantiles": [0.5, 0.1]}, "must increase between 0 and 1"),
        ({"quantiles": [0.5, 0.5]}, "must increase between 0 and 1"),
        ({"quantiles": [0.0, 0.5]}, "must increase between 0 and 1"),
        ({"quantiles": [1.5]}, "must increase between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        small(**settings)
    assert "\n" not in str(caught.value)

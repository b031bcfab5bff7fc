"""What all networks have in common: they learn from what they are given, alone, and come back to the bit."""

import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from compute.seeds import stream
from configs.load import ConfigError
from forecasters.forecaster import DOCUMENT, load_forecaster, new_forecaster, plugin_config
from forecasters.recurrent import LstmForecaster
from forecasters.torch_training import WEIGHTS, NetworkForecaster, silent
from forecasters.windows import Examples
from market.table import DataError
from tests.forecasters.torch_examples import (
    LEVEL,
    LOOKBACK,
    SMALL,
    balanced_accuracy,
    examples,
    parts,
    planted,
    shaken,
    small,
    threads,
)

NAMES = sorted(SMALL)


@pytest.fixture(autouse=True)
def _one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def fitted():
    """Every network, fitted to the planted pattern."""
    train, validation, _ = parts()
    with threads(1):
        return {name: small(name).fit(train, validation, seed=3) for name in NAMES}


def content(folder):
    return [(folder / name).read_bytes() for name in (WEIGHTS, DOCUMENT)]


def log_loss(probabilities, target):
    return -np.log(probabilities[np.arange(len(target)), target]).mean()


def briefly(name, **settings):
    """A network and few examples, for what needs no skill."""
    train, validation, _ = parts(300)
    return small(name, epochs=1, **settings), train, validation


# What they learn


@pytest.mark.parametrize("name", NAMES)
def test_every_network_learns_what_only_memory_can_tell(name, fitted):
    test = parts()[2]
    said = fitted[name].predict(test.windows())
    assert balanced_accuracy(said, test.target) > 0.75
    # The same rows in another order are another story.
    backwards = fitted[name].predict(test.windows()[:, ::-1])
    assert balanced_accuracy(backwards, test.target) < 0.45


def test_a_model_of_the_newest_row_learns_nothing_of_it():
    from sklearn.linear_model import LogisticRegression

    train, _, test = parts()
    said = LogisticRegression().fit(train.tabular(), train.target).predict_proba(test.tabular())
    assert balanced_accuracy(said, test.target) < 0.4


@pytest.mark.parametrize("name", ["gru", "nhits"])
def test_permuted_labels_teach_nothing(name):
    features, target = planted()
    shuffled = np.random.default_rng(5).permutation(target)
    spans = (LOOKBACK, 1200), (1200, 1600), (1600, 2000)
    train, validation, test = (examples(features, shuffled, *span) for span in spans)
    model = small(name).fit(train, validation, seed=3)
    said = model.predict(test.windows())
    assert log_loss(said, test.target) > np.log(3) - 0.02
    assert balanced_accuracy(said, test.target) < 0.4


def test_a_column_that_knows_the_answer_is_the_most_important(fitted):
    for model in fitted.values():
        importances = model.importances()
        assert importances.shape == (len(LEVEL),)
        assert importances.sum() == pytest.approx(1.0)
        assert importances.argmax() == 0
        assert importances[0] > 0.4  # weights of a tft stay nearer to even than slopes do


def test_what_has_learned_nothing_has_no_importances():
    model, train, validation = briefly("gru", learning_rate=1e-3)
    # Validation where the opposite is true: no epoch is better than none.
    contrary = examples(validation.features, 2 - planted(300)[1], validation.rows[0], validation.rows[-1] + 1)
    model.config = model.config.model_copy(update={"learning_rate": 0.05, "epochs": 3})
    model.fit(train, contrary, seed=1)
    assert model.story["epoch"] == 0
    assert model.importances() is None
    shares = np.bincount(train.target) / len(train)
    np.testing.assert_allclose(model.predict(train.windows(slice(3))), np.tile(shares, (3, 1)), atol=1e-6)


def test_examples_count_as_much_as_they_weigh():
    # Each side has as many ups as downs, but on one side the ups weigh three times as much.
    rng = np.random.default_rng(2)
    kind = rng.permutation(1200) % 4
    side = np.where(kind < 2, -1.0, 1.0).astype(np.float32)
    features = side[:, None] * np.ones((1, len(LEVEL)), np.float32)
    target = np.where(kind % 2 == 0, 0, 2).astype(np.int8)
    weight = np.where((target == 2) == (side > 0), 1.5, 0.5)
    train = examples(features, target, 1, 801, weight=weight[1:801], lookback=2)
    validation = examples(features, target, 801, 1200, weight=weight[801:], lookback=2)
    model = small("gru", lookback=2).fit(train, validation, seed=1)
    newest = np.ones((1, 2, len(LEVEL)), np.float32)
    assert model.predict(newest)[0, 2] == pytest.approx(0.75, abs=0.06)
    plain = Examples(features, train.rows, 2, train.target, None, LEVEL)
    plain = small("gru", lookback=2).fit(plain, validation.take(slice(None)), seed=1)
    assert plain.story["train_loss"][0] == pytest.approx(np.log(2), abs=0.01)
    assert plain.predict(newest)[0, 2] == pytest.approx(0.5, abs=0.1)


# What they may see


def test_training_ends_with_the_weights_of_the_lowest_validation_loss():
    train, validation, _ = parts(300)
    model = small("lstm", epochs=40, patience=3).fit(train, validation, seed=1)
    losses = model.story["validation_loss"]
    assert model.story["epoch"] == int(np.argmin(losses))
    assert len(losses) == model.story["epoch"] + 1 + 3  # three epochs in vain
    reached = log_loss(model.predict(validation.windows()), validation.target)
    assert reached == pytest.approx(min(losses), abs=1e-6)
    assert abs(losses[-1] - min(losses)) > 1e-3  # those of the last epoch would be told apart


@pytest.mark.parametrize("averaging", [0.999, 0.5, 0.0])
def test_the_mean_of_the_weights_is_what_is_kept(averaging):
    train, validation, _ = parts(300)
    steps = []

    def note(optimizer, *_):
        weights = [part for group in optimizer.param_groups for part in group["params"]]
        steps.append(torch.cat([part.detach().double().flatten() for part in weights if part.ndim > 1]))

    watched = register_optimizer_step_post_hook(note)
    try:
        model = small("gru", epochs=1, batch_size=16, averaging=averaging).fit(train, validation, seed=1)
    finally:
        watched.remove()
    assert model.story["epoch"] == 1
    wanted = steps[0]
    for step, weights in enumerate(steps[1:], 2):  # the plain mean, until that would forget less
        share = max(1.0 - averaging, 1.0 / step)
        wanted = (1.0 - share) * wanted + share * weights
    found = torch.cat(
        [part.detach().double().flatten() for part in model.network.parameters() if part.ndim > 1]
    )
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert ((found - steps[-1]).abs().max() > 1e-4) == (averaging > 0.0)


class Plain(NetworkForecaster):
    """A linear map of the newest row, which notes what it was asked and how."""

    name = "plain"

    def body(self, columns):
        class Newest(nn.Module):
            def __init__(self):
                super().__init__()
                self.head, self.asked = silent(nn.Linear(len(columns), 3)), []

            def forward(self, windows):
                self.asked.append((self.training, len(windows)))
                return self.head(windows[:, -1])

        return Newest()


def by_hand(train, config, seed):
    """One epoch of the loop for a linear map, in NumPy: Loshchilov and Hutter (2019), algorithm 2."""
    x, wanted = train.tabular().astype(np.float64), np.eye(3)[train.target]
    shares = train.weight @ wanted / train.weight.sum()
    parts = {
        "body.head.weight": np.zeros((3, x.shape[1])),
        "body.head.bias": np.zeros(3),
        "shares": np.log(shares),
    }
    first, second = (dict.fromkeys(parts, 0.0) for _ in range(2))
    order = stream(seed, "forecaster", "plain", "order").permutation(len(x))
    for step, rows in enumerate(np.array_split(order, -(-len(x) // config.batch_size)), 1):
        scores = np.exp(x[rows] @ parts["body.head.weight"].T + parts["body.head.bias"] + parts["shares"])
        error = (
            (scores / scores.sum(axis=1, keepdims=True) - wanted[rows]) * train.weight[rows, None] / len(rows)
        )
        slopes = {"body.head.weight": error.T @ x[rows]}
        slopes["body.head.bias"] = slopes["shares"] = error.sum(axis=0)
        length = np.sqrt(sum((slope**2).sum() for slope in slopes.values()))
        rate = config.learning_rate * min(1.0, step / config.warmup_steps)
        for name, slope in slopes.items():
            slope = slope * min(1.0, config.max_gradient / length)
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope**2
            move = first[name] / (1 - 0.9**step) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
            decay = config.weight_decay if name == "body.head.weight" else 0.0
            parts[name] = parts[name] * (1.0 - rate * decay) - rate * move
    return parts


def test_the_loop_does_what_it_does_by_hand():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(500, len(LEVEL))).astype(np.float32)
    target = (1 + np.sign(features[:, 0] + rng.normal(size=500)) * (features[:, 1] > 0)).astype(np.int8)
    train = examples(features, target, 1, 401, weight=rng.uniform(0.5, 1.5, 400), lookback=2)
    validation = examples(features, target, 401, 500, lookback=2)
    settings = {"lookback": 2, "epochs": 1, "batch_size": 30, "learning_rate": 0.05, "averaging": 0.0}
    # Steps that clipping, decay and the slow start all change.
    config = Plain.Config(**settings, max_gradient=0.25, weight_decay=2.0, warmup_steps=8)
    model = Plain(config).fit(train, validation, seed=11)
    assert model.story["epoch"] == 1
    found = {name: part.numpy() for name, part in model.network.state_dict().items()}
    for name, wanted in by_hand(train, config, 11).items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5, err_msg=name)
    for change in ({"max_gradient": 1e6}, {"weight_decay": 0.0}, {"warmup_steps": 1}):
        other = by_hand(train, config.model_copy(update=change), 11)
        assert max(np.abs(found[name] - other[name]).max() for name in other) > 1e-3, change
    # Dropout is at work in batches and nowhere else: not in validation, nor when importances are taken.
    batches = [(True, size) for size in [29] * 8 + [28] * 6]
    assert model.network.body.asked == [(False, 99), *batches, (False, 400)]
    assert not model.network.training


def test_rows_after_the_validation_change_no_bit(tmp_path):
    features, target = planted(400)

    def saved(name, changed):
        own = changed(features.copy())
        spans = (LOOKBACK, 200), (200, 300)
        train, validation = (examples(own, target, *span) for span in spans)
        small("lstm", epochs=3).fit(train, validation, seed=1).save(tmp_path / name)
        return content(tmp_path / name)

    def altered(row):
        def change(own):
            own[row:] += 1.0
            return own

        return change

    untouched = saved("untouched", lambda own: own)
    assert saved("later", altered(300)) == untouched
    assert saved("last", altered(299)) != untouched  # the last validation row is seen


def test_validation_stops_the_training_and_teaches_nothing():
    train, validation, _ = parts(300)
    wrong = validation.take(slice(None))
    wrong = Examples(wrong.features, wrong.rows, LOOKBACK, (2 - wrong.target).astype(np.int8), None, LEVEL)
    one, other = (
        small("gru", epochs=4, patience=9, dropout=0.2).fit(train, some, seed=1)
        for some in (validation, wrong)
    )
    assert one.story["train_loss"] == other.story["train_loss"]
    assert one.story["epoch"] != other.story["epoch"]


# Same seed, same bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_makes_the_same_bytes_on_any_number_of_threads(name, tmp_path):
    made = []
    for run, (seed, count) in enumerate([(1, 1), (1, 2), (2, 1)]):
        model, train, validation = briefly(name, dropout=0.2)
        torch.manual_seed(run)
        before = torch.random.get_rng_state()
        with threads(count):
            model.fit(train, validation, seed=seed).save(tmp_path / str(run))
            assert torch.get_num_threads() == count
        assert torch.equal(before, torch.random.get_rng_state())
        made.append(content(tmp_path / str(run)))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_fits_in_two_threads_do_not_disturb_each_other(tmp_path):
    def fit(run):
        model, train, validation = briefly("gru", dropout=0.2)
        model.fit(train, validation, seed=1).save(tmp_path / str(run))
        return content(tmp_path / str(run))

    alone = fit("alone")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fit, range(4))) == [alone] * 4


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_network_answers_with_the_same_bits(name, fitted, tmp_path):
    windows = parts()[2].windows(slice(40))
    model = fitted[name]
    model.save(tmp_path)
    state = torch.random.get_rng_state()
    again = load_forecaster(tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
    assert type(again) is type(model)
    np.testing.assert_array_equal(again.predict(windows), model.predict(windows))
    np.testing.assert_array_equal(again.importances(), model.importances())
    assert (again.config, again.columns, again.story) == (model.config, model.columns, model.story)


def test_saving_again_writes_the_same_bytes(fitted, tmp_path):
    for folder in ("a", "b"):
        fitted["lstm"].save(tmp_path / folder)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([DOCUMENT, WEIGHTS])


# Answers


class Gossip(NetworkForecaster):
    """A network that listens to its neighbors in the batch."""

    name = "gossip"

    def body(self, columns):
        class Mixing(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = silent(nn.Linear(len(columns), 3))

            def forward(self, windows):
                newest = windows[:, -1]
                return self.head(newest - newest.mean(dim=0))

        return Mixing()


def apart(model, windows):
    """Greatest difference between answers one by one and all together."""
    alone = np.concatenate([model.predict(windows[i : i + 1]) for i in range(len(windows))])
    return np.abs(alone - model.predict(windows)).max()


@pytest.mark.parametrize("name", NAMES)
def test_each_window_is_answered_by_itself(name, fitted):
    windows = parts()[2].windows(slice(30))
    before = windows.copy()
    windows.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert apart(fitted[name], windows) < 1e-5
    np.testing.assert_array_equal(windows, before)
    said = fitted[name].predict(windows)
    assert said.dtype == np.float64
    np.testing.assert_allclose(said.sum(axis=1), 1.0, atol=1e-12)
    assert fitted[name].predict(windows[:0]).shape == (0, 3)


def test_a_network_that_mixes_its_batch_is_found_out():
    train, validation, test = parts(300)
    model = Gossip(small("gru", epochs=2).config)
    model.fit(train, validation, seed=1)
    shaken(model.network)
    assert apart(model, test.windows(slice(30))) > 1e-3


def test_many_windows_are_answered_in_pieces_and_in_order(fitted):
    windows = np.concatenate([parts()[2].windows()] * 2)  # more than are answered at once
    said = fitted["gru"].predict(windows)
    np.testing.assert_allclose(said[-5:], fitted["gru"].predict(windows[-5:]), atol=1e-6)


def test_progress_is_told_and_ends_at_one():
    train, validation, _ = parts(300)
    heard = []
    model = small("gru", epochs=30, patience=1, learning_rate=0.05)
    model.fit(train, validation, seed=1, told=lambda share, line: heard.append((share, line)))
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(heard) == len(model.story["train_loss"]) < 30
    assert heard[0][1].startswith("epoch 1: validation loss ")


# What is refused


def flip(path, at):
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    path.write_bytes(bytes(damaged))


def edit(change):
    def damage(folder):
        document = json.loads((folder / DOCUMENT).read_text())
        change(document)
        (folder / DOCUMENT).write_text(json.dumps(document))

    return damage


DAMAGES = {
    "a bit of the weights": lambda folder: flip(folder / WEIGHTS, -1),
    "a bit of the weights' header": lambda folder: flip(folder / WEIGHTS, 20),
    "weights cut off": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8]),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "no document": lambda folder: (folder / DOCUMENT).unlink(),
    "half a document": lambda folder: (folder / DOCUMENT).write_text((folder / DOCUMENT).read_text()[:200]),
    "another lookback": edit(lambda document: document["settings"].update(lookback=9)),
    "more heads, for which the weights have the right shapes": edit(
        lambda document: document["settings"].update(heads=4)
    ),
    "columns in another order": edit(lambda document: document["state"]["columns"].reverse()),
    "another forecaster": edit(lambda document: document.update(forecaster="lstm")),
    "another format": edit(lambda document: document.update(format=99)),
    "no digest": lambda folder: (
        edit(lambda document: document.update(files={}))(folder),
        flip(folder / WEIGHTS, 20),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_in_one_sentence(damage, fitted, tmp_path):
    fitted["transformer"].save(tmp_path)
    type(fitted["transformer"]).load(tmp_path)
    DAMAGES[damage](tmp_path)
    with pytest.raises(DataError) as caught:
        type(fitted["transformer"]).load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_document_that_only_changed_its_looks_is_read(fitted, tmp_path):
    fitted["transformer"].save(tmp_path)
    edit(lambda document: None)(tmp_path)
    assert type(fitted["transformer"]).load(tmp_path).columns == LEVEL


def refused(train, validation, name="lstm", **settings):
    with pytest.raises((DataError, ConfigError)) as caught:
        small(name, **settings).fit(train, validation, seed=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples_that_cannot_teach_are_refused_in_one_sentence():
    train, validation, _ = parts(300)
    assert "training has 0 examples" in refused(train.take(slice(0)), validation)
    assert "validation has 0 examples" in refused(train, validation.take(slice(0)))
    blind = Examples(train.features, train.rows, LOOKBACK, None, None, LEVEL)
    assert "without targets" in refused(blind, validation)
    assert "windows hold 8 rows; they must hold 7" in refused(train, validation, lookback=7)
    other = Examples(train.features, train.rows, LOOKBACK, train.target, None, LEVEL[::-1])
    assert "different columns" in refused(train, other)
    huge = np.full_like(train.features, 3e38)
    loud = Examples(huge, train.rows, LOOKBACK, train.target, None, LEVEL)
    assert "the loss of epoch 1 is not a number" in refused(loud, validation, "tcn")


def test_windows_that_cannot_be_answered_are_refused_in_one_sentence(fitted):
    windows = parts()[2].windows(slice(3))
    with pytest.raises(ValueError, match=r"windows are \(3, 8, 3\); they must be \(m, \*\(8, 4\)\)"):
        fitted["lstm"].predict(windows[:, :, :3])
    windows[1, 2, 3] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fitted["lstm"].predict(windows)
    with pytest.raises(ValueError, match="lstm is not fitted; call fit or load"):
        small("lstm").predict(windows)
    with pytest.raises(ValueError, match="not fitted"):
        small("lstm").save("nowhere")


# Settings


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_that_come_with_a_network_are_its_defaults(name):
    model = new_forecaster(plugin_config(name))
    assert model.config == type(model).Config()
    assert model.name == name
    assert 32 <= model.lookback <= 64


def test_a_forecaster_without_settings_has_the_defaults():
    assert LstmForecaster().config == LstmForecaster.Config()

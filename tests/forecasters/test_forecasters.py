"""The contract of every tabular forecaster: it learns, answers row by row, repeats, and survives the disk."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from configs.load import ConfigError, PluginConfig
from forecasters.boosting import XGBoost
from forecasters.forecaster import (
    DOCUMENT,
    FORECASTERS,
    Forecaster,
    checked,
    load_forecaster,
    new_forecaster,
    plugin_config,
    saved_name,
)
from forecasters.windows import Examples
from market.table import DataError
from tests.forecasters.examples_factory import NAMES, examples

FAST = {
    "majority": {},
    "last_sign": {},
    "ar1": {},
    "logistic": {"penalty": 1.0},
    "random_forest": {"trees": 20, "max_depth": 5, "columns": 0.6, "threads": 1},
    "svm": {"landmarks": 40},
    "xgboost": {"rounds": 40, "learning_rate": 0.2, "columns": 1.0, "patience": 5, "threads": 1},
    "lightgbm": {"rounds": 40, "learning_rate": 0.2, "columns": 1.0, "min_leaf": 20, "threads": 1},
    "catboost": {"rounds": 40, "learning_rate": 0.2, "columns": 1.0, "patience": 5, "threads": 1},
}
LIBRARIES = {"xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost"}
TRAIN, VALIDATION, TEST = (examples(n, begin=begin) for n, begin in ((700, 0), (250, 1), (300, 2)))
_fitted = {}


def fitted(name):
    """Return the forecaster of a name, fitted once on the same examples."""
    if name in LIBRARIES and importlib.util.find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    if name not in _fitted:
        _fitted[name] = fit(name)
    return _fitted[name]


def fit(name, train=TRAIN, validation=VALIDATION, seed=3):
    return new_forecaster(PluginConfig(name=name, **FAST[name])).fit(train, validation, seed=seed)


def balanced_accuracy(probabilities, target):
    guess = probabilities.argmax(axis=1)
    return np.mean([(guess[target == one] == one).mean() for one in range(3)])


def truth(probabilities):
    """Return the mean probability of what came true."""
    return probabilities[np.arange(len(TEST)), TEST.target].mean()


tabular = pytest.mark.parametrize("name", FAST)
learners = pytest.mark.parametrize(
    "name", [name for name in FAST if name not in ("majority", "last_sign", "ar1")]
)


def test_every_forecaster_has_a_family_and_a_file_of_settings_that_says_its_name():
    assert set(FAST) <= set(FORECASTERS)
    for name in FAST:
        assert FORECASTERS.tags(name)["family"] in ("naive", "classical", "boosting")
        assert plugin_config(name).name == name
        assert FORECASTERS.get(name).Config.model_fields.keys() >= plugin_config(name).settings.keys()
        # The file says what the code does without it, so that neither can mislead about the other.
        assert new_forecaster(plugin_config(name)).config == FORECASTERS.get(name).Config()


@tabular
def test_answers_are_probabilities_and_one_row_is_answered_as_among_all(name):
    windows = TEST.windows()
    found = fitted(name).predict(windows)
    assert checked(found, len(TEST), name).dtype == np.float64
    alone = np.vstack([fitted(name).predict(windows[i : i + 1]) for i in range(12)])
    np.testing.assert_allclose(alone, found[:12], rtol=0, atol=1e-12)
    assert fitted(name).predict(windows[:0]).shape == (0, 3)


@learners
def test_learns_what_can_be_learned_and_nothing_where_there_is_nothing(name):
    assert balanced_accuracy(fitted(name).predict(TEST.windows()), TEST.target) > 0.6
    random = np.random.default_rng(5)
    shuffled = [
        Examples(one.features, one.rows, 1, random.permutation(one.target), one.weight, NAMES)
        for one in (TRAIN, VALIDATION)
    ]
    found = fit(name, *shuffled).predict(TEST.windows())
    # In probability: a sliver of a chance relation may well decide which of three equal classes is first.
    assert truth(found) < 0.37 < 0.45 < truth(fitted(name).predict(TEST.windows()))


@tabular
def test_the_same_seed_gives_the_same_answers(name):
    fitted(name)
    np.testing.assert_array_equal(fit(name).predict(TEST.windows()), fitted(name).predict(TEST.windows()))


@pytest.mark.parametrize("name", ["random_forest", "xgboost", "lightgbm", "svm"])
def test_another_seed_gives_another_model(name):
    fitted(name)
    assert (fit(name, seed=4).predict(TEST.windows()) != fitted(name).predict(TEST.windows())).any()


@tabular
def test_what_is_loaded_answers_to_the_bit_as_what_was_saved(name, tmp_path):
    fitted(name).save(tmp_path)
    loaded = load_forecaster(tmp_path)
    assert saved_name(tmp_path) == name
    assert type(loaded) is FORECASTERS.get(name)
    np.testing.assert_array_equal(loaded.predict(TEST.windows()), fitted(name).predict(TEST.windows()))
    assert not any(path.suffix in (".pkl", ".pickle", ".joblib") for path in tmp_path.iterdir())


@tabular
def test_a_file_that_was_changed_is_refused(name, tmp_path):
    fitted(name).save(tmp_path)
    files = json.loads((tmp_path / DOCUMENT).read_text())["files"]
    if files:
        path = tmp_path / next(iter(files))
        path.write_bytes(path.read_bytes() + b" ")
        match = "is not the file that was saved"
    else:
        document = json.loads((tmp_path / DOCUMENT).read_text())
        (tmp_path / DOCUMENT).write_text(json.dumps(document | {"format": 99}))
        match = "format 99"
    with pytest.raises(DataError, match=match):
        load_forecaster(tmp_path)


@learners
def test_weights_count(name):
    # All weight on the examples in which the column says the opposite of the truth.
    told = TRAIN.features[TRAIN.rows, 1]
    against = np.where(told > 0, TRAIN.target == 0, TRAIN.target == 2)
    weight = np.where(against, 50.0, 0.02)
    fitted(name)
    lying = Examples(TRAIN.features, TRAIN.rows, 1, TRAIN.target, weight / weight.mean(), NAMES)
    found = fit(name, lying, lying).predict(TEST.windows())
    honest = fitted(name).predict(TEST.windows())
    level = TEST.tabular()[:, 1]
    assert np.corrcoef(honest[:, 2] - honest[:, 0], level)[0, 1] > 0.5
    assert np.corrcoef(found[:, 2] - found[:, 0], level)[0, 1] < 0.0


@pytest.mark.parametrize("name", ["logistic", "random_forest", "xgboost", "lightgbm", "catboost"])
def test_importances_find_the_column_that_tells(name):
    found = fitted(name).importances()
    assert found.shape == (len(NAMES),)
    assert found.sum() == pytest.approx(1.0)
    assert found.argmax() == NAMES.index("teller")


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost"])
def test_validation_stops_the_growth_and_does_nothing_else(name):
    fitted(name)
    nothing = examples(250, strength=0.0, begin=9)  # nothing that is learned helps here
    early = fit(name, validation=nothing)
    trees = {
        "xgboost": lambda one: one.booster.num_boosted_rounds(),
        "lightgbm": lambda one: one.booster.num_trees() // 3,
        "catboost": lambda one: one.model.tree_count_,
    }[name]
    assert trees(early) < trees(fitted(name)) <= FAST[name]["rounds"]


@learners
@pytest.mark.parametrize("classes", [(0,), (0, 2)])
def test_a_training_without_all_classes_still_answers_with_three(name, classes):
    some = [one.take(np.isin(one.target, classes)) for one in (TRAIN, VALIDATION)]
    fitted(name)
    if name == "catboost" and len(classes) == 1:
        with pytest.raises(DataError, match="all training rows have one class"):
            fit(name, *some)
        return
    found = checked(fit(name, *some).predict(TEST.windows()), len(TEST), name)
    assert np.isin(found.argmax(axis=1), classes).mean() > 0.95


def test_the_last_sign_goes_on_and_needs_its_column():
    found = fitted("last_sign").predict(TEST.windows())
    np.testing.assert_array_equal(found.argmax(axis=1), np.where(TEST.tabular()[:, 0] > 0, 2, 0))
    bare = Examples(TRAIN.features[:, 1:].copy(), TRAIN.rows, 1, TRAIN.target, TRAIN.weight, NAMES[1:])
    with pytest.raises(DataError, match="no feature column 'return_1' that varies"):
        fit("last_sign", bare, bare)


def test_the_majority_answers_with_the_shares_of_the_training_rows():
    found = fitted("majority").predict(TEST.windows())
    np.testing.assert_allclose(found[0], (np.bincount(TRAIN.target) + 1) / (len(TRAIN) + 3))


def test_progress_is_told():
    told, settings = [], FAST["xgboost"]
    fitted("xgboost")
    XGBoost(XGBoost.Config(**settings)).fit(
        TRAIN, VALIDATION, seed=1, told=lambda share, line: told.append((share, line))
    )
    assert told
    assert all(0.0 < share <= 1.0 and line.startswith("round") for share, line in told)


def test_unknown_names_and_settings_end_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no forecaster named 'xgbost'; did you mean xgboost"):
        plugin_config("xgbost")
    with pytest.raises(ConfigError, match="forecaster xgboost: max_depth"):
        new_forecaster(PluginConfig(name="xgboost", max_depth=0))
    with pytest.raises(ConfigError, match="no such config file"):
        plugin_config(str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="must be a mapping with name and settings"):
        plugin_config(str(tmp_path / "list.yaml"))
    with pytest.raises(DataError, match="no such file"):
        load_forecaster(tmp_path)


def test_a_saved_forecaster_with_impossible_settings_is_refused(tmp_path):
    fitted("logistic").save(tmp_path)
    document = json.loads((tmp_path / DOCUMENT).read_text())
    document["settings"]["penalty"] = -1
    (tmp_path / DOCUMENT).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="penalty"):
        load_forecaster(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [np.full((2, 2), 0.5), np.full((2, 3), 0.5), np.array([[1.5, -0.5, 0.0]] * 2), np.full((2, 3), np.nan)],
)
def test_an_answer_that_is_no_probability_is_a_mistake_of_its_author(wrong):
    with pytest.raises(ValueError, match="forecaster coin"):
        checked(wrong, 2, "coin")


def test_four_methods_are_needed_and_enough():
    assert Forecaster.__abstractmethods__ == {"fit", "predict", "save", "load"}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_installed_is_asked_for_in_a_sentence(name, monkeypatch):
    monkeypatch.setitem(sys.modules, LIBRARIES[name], None)
    with pytest.raises(ConfigError, match=f"the forecaster {name} needs the package {name}; install it"):
        fit(name)

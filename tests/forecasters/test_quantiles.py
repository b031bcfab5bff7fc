"""Quantiles of the return: how they are measured, who has them, and that none of them knows the future."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, PluginConfig, validate
from forecasters import training
from forecasters.boosting import _rising
from forecasters.fitted import FittedForecaster
from forecasters.forecaster import DOCUMENT, FORECASTERS, Forecaster, load_forecaster, new_forecaster
from forecasters.quantiles import checked_quantiles, column, pinball, quantile_figures
from forecasters.settings import ForecastConfig
from forecasters.train import main
from forecasters.training import Fold, fit_fold, folds_of, prepare
from forecasters.windows import Examples, examples_of
from ga.snapshot import pack, unpack
from market.labels import forward_return
from market.scaling import Scaler
from market.table import DataError, Table
from tests.forecasters.examples_factory import examples

LEVELS = (0.1, 0.5, 0.9)
FAST = {
    "xgboost": {"rounds": 60, "learning_rate": 0.2, "columns": 1.0, "patience": 5, "threads": 1},
    "lightgbm": {"rounds": 60, "learning_rate": 0.2, "columns": 1.0, "min_leaf": 40, "threads": 1},
}
LIBRARIES = list(FAST)


# Measures


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 40), level=st.floats(0.01, 0.99))
def test_the_pinball_loss_is_that_of_scikit_learn_and_least_at_the_quantile(seed, m, level):
    from sklearn.metrics import mean_pinball_loss

    random = np.random.default_rng(seed)
    ret, said = random.normal(size=m), random.normal(size=m)
    own = pinball(said[:, None], ret, (level,))[0]
    assert own == pytest.approx(mean_pinball_loss(ret, said, alpha=level), abs=1e-12)
    best = pinball(np.quantile(ret, [level], method="inverted_cdf"), ret, (level,))[0]
    others = [pinball(np.array([one]), ret, (level,))[0] for one in np.append(ret, said)]
    assert best <= min(others) + 1e-12


def test_calibrated_quantiles_cover_what_they_say_and_shifted_ones_do_not():
    random = np.random.default_rng(1)
    size = np.exp(random.normal(size=20_000))
    ret = size * random.normal(size=size.size)
    true = size[:, None] * np.array([-1.2816, 0.0, 1.2816])
    constant = np.tile(np.quantile(ret, LEVELS), (size.size, 1))
    found = quantile_figures(true, constant, ret, LEVELS)
    assert list(found["levels"]) == ["q_10", "q_50", "q_90"]
    for one in found["levels"].values():
        assert one["coverage"] == pytest.approx(one["level"], abs=0.01)
        assert one["skill"] == pytest.approx(1.0 - one["pinball"] / one["constant"])
    assert found["levels"]["q_10"]["skill"] > 0.1
    assert found["within"] == pytest.approx(found["expected"], abs=0.01)
    shifted = quantile_figures(true + 0.5, constant, ret, LEVELS)
    assert shifted["levels"]["q_50"]["coverage"] > 0.6
    assert shifted["levels"]["q_50"]["skill"] < 0.0
    assert quantile_figures(true[:0], constant[:0], ret[:0], LEVELS)["rows"] == 0


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2)), np.full((2, 3), np.nan), np.array([[1.0, 2.0, 1.9]] * 2), None]
)
def test_quantiles_that_fall_or_are_none_are_a_mistake_of_their_author(wrong):
    checked_quantiles(np.array([[1.0, 1.0, 2.0]] * 2), 2, LEVELS, "coin")
    with pytest.raises(ValueError, match="forecaster coin: quantiles"):
        checked_quantiles(wrong, 2, LEVELS, "coin")


@pytest.mark.parametrize(
    ("level", "name"), [(0.1, "q_10"), (0.07, "q_7"), (0.025, "q_2.5"), (0.5, "q_50"), (0.999, "q_99.9")]
)
def test_a_column_is_named_by_the_percentage(level, name):
    assert column(level) == name


@pytest.mark.parametrize("levels", [[0.9, 0.1], [0.1, 0.1], [0.0], [1.0], [-0.1, 0.5], [0.1, 0.1005], ["a"]])
def test_levels_that_are_none_are_refused_in_a_sentence(levels):
    with pytest.raises(ConfigError, match="forecaster xgboost: quantiles") as caught:
        new_forecaster(PluginConfig(name="xgboost", quantiles=levels))
    assert "\n" not in str(caught.value)


# Returns reach the models


def test_examples_have_the_returns_of_their_own_rows(make_bars):
    bars = make_bars(60)
    labels = forward_return(bars, 4)
    table = Table(bars.time, np.random.default_rng(1).normal(size=(60, 2)), ("a", "b"))
    weights, plain = np.linspace(0.0, 2.0, 60), np.linspace(3.0, 1.0, 60)
    found = examples_of(table, labels, slice(5, 60), 3, Scaler.fit(table), weights, ret_weights=plain)
    assert found.left_out == {"without a label": 4}
    np.testing.assert_array_equal(found.ret, labels.ret[found.rows])
    np.testing.assert_allclose(found.ret_weight, plain[found.rows] / plain[found.rows].mean())
    some = found.take(slice(3, 9))
    np.testing.assert_array_equal(some.ret, found.ret[3:9])
    np.testing.assert_array_equal(some.ret_weight, found.ret_weight[3:9])
    asked = examples_of(table, None, slice(5, 60), 3, Scaler.fit(table), ret_weights=plain)
    assert asked.ret is None
    assert asked.ret_weight is None


def test_returns_that_do_not_fit_the_rows_are_refused():
    features, rows = np.zeros((5, 2), np.float32), np.array([1, 2])
    for wrong in (np.zeros(3), np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match=r"ret is .* it must fit the rows"):
            Examples(features, rows, 1, None, None, ("a", "b"), ret=wrong)


# Trees


def with_returns(n, begin):
    """Examples whose return is as large as ``noise_1`` says; its sign is chance."""
    one = examples(n, begin=begin)
    size = 0.01 * np.exp(one.tabular()[:, 2])
    ret = size * np.random.default_rng([7, begin]).normal(size=n)
    return replace(one, ret=ret, ret_weight=np.ones(n))


TRAIN, VALIDATION, TEST = (with_returns(n, begin) for n, begin in ((1500, 0), (500, 1), (1500, 2)))
_fitted = {}


def fit(name, seed=3, train=TRAIN, validation=VALIDATION, **settings):
    chosen = PluginConfig(name=name, **{**FAST[name], "quantiles": LEVELS, **settings})
    return new_forecaster(chosen).fit(train, validation, seed=seed)


def fitted(name):
    pytest.importorskip(name)
    if name not in _fitted:
        _fitted[name] = fit(name)
    return _fitted[name]


@pytest.mark.parametrize("name", LIBRARIES)
def test_trees_find_the_size_of_the_return(name):
    found = fitted(name).quantiles(TEST.windows())
    assert (found.shape, found.dtype) == ((len(TEST), 3), np.float64)
    assert (np.diff(found, axis=1) >= 0.0).all()
    constant = np.tile(np.quantile(TRAIN.ret, LEVELS), (len(TEST), 1))
    figures = quantile_figures(found, constant, TEST.ret, LEVELS)["levels"]
    assert min(figures["q_10"]["skill"], figures["q_90"]["skill"]) > 0.12
    for one in figures.values():
        assert one["coverage"] == pytest.approx(one["level"], abs=0.05)
    chance = replace(TRAIN, ret=np.random.default_rng(1).permutation(TRAIN.ret))
    blind = fit(name, train=chance).quantiles(TEST.windows())
    assert quantile_figures(blind, constant, TEST.ret, LEVELS)["levels"]["q_90"]["skill"] < 0.03


@pytest.mark.parametrize("name", LIBRARIES)
def test_quantiles_leave_the_classes_as_they_are_to_the_bit(name):
    windows, plain = TEST.windows(), fit(name, quantiles=()) if fitted(name) else None
    assert plain.quantiles(windows) is None
    np.testing.assert_array_equal(plain.predict(windows), fitted(name).predict(windows))
    np.testing.assert_array_equal(plain.importances(), fitted(name).importances())


@pytest.mark.parametrize("name", LIBRARIES)
def test_trees_of_quantiles_repeat_answer_row_by_row_and_survive_the_disk(name, tmp_path):
    windows = TEST.windows()[:200]
    found = fitted(name).quantiles(windows)
    np.testing.assert_array_equal(fit(name).quantiles(windows), found)
    alone = np.vstack([fitted(name).quantiles(windows[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(alone, found[:10], rtol=0, atol=1e-12)
    assert fitted(name).quantiles(windows[:0]).shape == (0, 3)
    fitted(name).save(tmp_path)
    np.testing.assert_array_equal(load_forecaster(tmp_path).quantiles(windows), found)
    files = sorted(json.loads((tmp_path / DOCUMENT).read_text())["files"])
    assert len(files) == {"xgboost": 2, "lightgbm": 4}[name]
    path = tmp_path / next(file for file in files if file.startswith("q"))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match="is not the file that was saved"):
        load_forecaster(tmp_path)


@pytest.mark.parametrize("name", LIBRARIES)
def test_weights_of_returns_move_their_quantiles_and_those_of_classes_do_not(name):
    fitted(name)
    falls = np.where(TRAIN.ret < 0, 1.9, 0.1)
    windows = TEST.windows()
    moved = fit(name, train=replace(TRAIN, ret_weight=falls)).quantiles(windows)
    assert np.median(moved[:, 1]) < np.quantile(TRAIN.ret, 0.35)
    same = fit(name, train=replace(TRAIN, weight=falls)).quantiles(windows)
    np.testing.assert_array_equal(same, fitted(name).quantiles(windows))


@pytest.mark.parametrize("name", LIBRARIES)
def test_quantiles_without_returns_are_refused_and_progress_ends_once(name):
    fitted(name)
    bare = replace(TRAIN, ret=None)
    with pytest.raises(DataError, match=f"forecaster {name}: training examples have no returns"):
        fit(name, train=bare)
    told = []
    model = new_forecaster(PluginConfig(name=name, **FAST[name], quantiles=LEVELS))
    model.fit(TRAIN, VALIDATION, seed=1, told=lambda share, line: told.append(share))
    assert all(0.0 < share <= 1.0 for share in told)
    assert told == sorted(told)


def test_trees_that_cross_are_put_in_order():
    np.testing.assert_array_equal(_rising(np.array([[0.2, 0.1, 0.3]])), [[0.1, 0.2, 0.3]])


# Folds and runs


class Spread(Forecaster):
    """Answers the quantiles of the training returns, and keeps what it was shown."""

    shown = None

    def fit(self, train, validation, *, seed, told=None):
        type(self).shown = train, validation
        self.known = np.quantile(np.concatenate([train.ret, validation.ret]), LEVELS)
        return self

    @property
    def levels(self):
        return LEVELS

    def predict(self, windows):
        return np.full((len(windows), 3), 1 / 3)

    def quantiles(self, windows):
        return np.tile(self.known, (len(windows), 1))

    def save(self, folder):
        raise NotImplementedError

    load = save


@pytest.fixture
def spread(monkeypatch):
    monkeypatch.setattr(FORECASTERS, "_plugins", dict(FORECASTERS._plugins) if FORECASTERS.names() else {})
    monkeypatch.setattr(FORECASTERS, "_tags", dict(FORECASTERS._tags))
    FORECASTERS.register("spread", family="toy")(Spread)


def config_of(name="spread"):
    document = {
        "model": {"name": name},
        "features": {"names": ["return_1", "return_24", "volatility_24"]},
        "label": {"horizon": "4h"},
        "schedule": {"span": "month", "train_spans": 3, "embargo_bars": 30},
        "baselines": ["majority"],
    }
    return validate(ForecastConfig, document, "here")


@pytest.fixture(scope="module")
def ground(make_bars):
    return prepare(make_bars(4400, seed=5), config_of().dataset())


def test_a_fold_has_quantiles_of_rows_with_an_answer_and_of_forecasters_that_have_some(ground, spread):
    config = config_of()
    split = folds_of(ground, config.schedule)[0]
    fold = fit_fold(ground, split, config)
    assert set(fold.quantiles) == set(fold.levels) == {"spread"}
    found = fold.quantiles["spread"]
    assert found.shape == (split.test.stop - split.test.start, 3)
    np.testing.assert_array_equal(np.isnan(found[:, 0]), np.isnan(fold.answers["spread"][:, 0]))
    np.testing.assert_array_equal(fold.fitted.quantiles(ground.features, fold.test), found)
    kept = bytearray(b"".join(pack({}, fold.state())))  # as a checkpoint keeps it
    again = Fold.of_state(unpack(kept)[1])
    np.testing.assert_array_equal(again.quantiles["spread"], found)
    assert tuple(again.levels["spread"]) == LEVELS
    # Returns count by uniqueness alone; classes by class weights too.
    train, _ = Spread.shown
    np.testing.assert_array_equal(train.ret, ground.labels.ret[train.rows])
    ratio = train.weight / train.ret_weight
    by_class = [ratio[train.target == one] for one in np.unique(train.target)]
    assert all(np.ptp(one) < 1e-9 for one in by_class)
    assert np.ptp([one[0] for one in by_class]) > 0.01


def altered_labels(ground, row):
    """Labels whose returns are others in rows from one on."""
    ret = np.where(np.arange(len(ground.bars)) >= row, 5.0 + ground.labels.ret, ground.labels.ret)
    return replace(ground, labels=replace(ground.labels, ret=ret))


def test_returns_of_the_test_teach_nothing_and_a_build_that_reads_later_ones_is_found(
    ground, spread, monkeypatch
):
    config = config_of()
    split = folds_of(ground, config.schedule)[0]
    # What is not known before the test begins: labels of its rows and those that reach into it.
    row = split.train.stop
    other = altered_labels(ground, row)

    def known(one):
        return fit_fold(one, split, config).fitted.forecaster.known

    np.testing.assert_array_equal(known(ground), known(other))
    real = training.examples_of

    def careless(table, labels, rows, *arguments, **named):
        found = real(table, labels, rows, *arguments, **named)
        if labels is None:
            return found
        later = np.minimum(found.rows + 400, len(labels) - 10)
        return replace(found, ret=labels.ret[later])

    monkeypatch.setattr(training, "examples_of", careless)
    assert (known(ground) != known(other)).any()


def test_predictions_and_report_of_a_run_have_quantiles(tmp_path, capsys):
    pytest.importorskip("xgboost")
    given = [
        "market.synthetic.n_bars=4400",
        "features.names=[return_1,return_24,rsi_14,volatility_24]",
        "schedule.span=month",
        "schedule.train_spans=3",
        "schedule.embargo_bars=24",
        "baselines=[majority]",
        "bootstrap_paths=20",
        "model.rounds=30",
        "model.threads=1",
        "model.quantiles=[0.1,0.5,0.9]",
    ]
    arguments = [part for one in given for part in ("--set", one)]
    with pytest.raises(SystemExit) as end:
        main(["--model", "xgboost", "--runs", str(tmp_path), *arguments])
    assert end.value.code == 0, capsys.readouterr().err
    folder = next(tmp_path.glob("forecast-*"))
    rows = pq.read_table(folder / "predictions" / "xgboost.parquet")
    names = ["q_10", "q_50", "q_90"]
    assert [name for name in rows.column_names if name.startswith("q_")] == names
    baseline = pq.read_table(folder / "predictions" / "majority.parquet")
    assert not any(name.startswith("q_") for name in baseline.column_names)
    found = json.loads((folder / "report.json").read_text())["quantiles"]["xgboost"]
    table = rows.to_pandas()
    judged = table[table["q_10"].notna() & table["label"].notna()]
    assert found["rows"] == len(judged)
    for name in names:
        one = found["levels"][name]
        assert one["coverage"] == pytest.approx((judged["ret"] <= judged[name]).mean())
        assert one["coverage"] == pytest.approx(one["level"], abs=0.12)
        assert one["pinball"] == pytest.approx(
            pinball(judged[[name]].to_numpy(), judged["ret"].to_numpy(), (one["level"],))[0]
        )
    text = (folder / "report.md").read_text()
    assert "## Quantiles of the return" in text
    assert "of the returns lie between its outer quantiles, 80.0% should" in text
    model = FittedForecaster.load(sorted((folder / "models").iterdir())[-1])
    assert model.forecaster.levels == LEVELS

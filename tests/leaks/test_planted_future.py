"""Forecasters: a column of the future is found by two checks, and permuted labels teach nothing."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from configs.load import validate
from forecasters.measures import measured
from forecasters.settings import ForecastConfig
from forecasters.training import Ground, fit_fold, folds_of, prepare
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.labels import forward_return, triple_barrier
from market.leaks import inspect
from market.suspicion import suspicious
from market.table import Table
from tests.leaks.ground import HOUR

N = 5200  # hours: seven months
NAMES = ["return_1", "return_24", "rsi_14", "volatility_24", "volume_ratio_24", "close_location_24"]
AHEAD = 4
MODELS = {
    "logistic": {"penalty": 10.0},
    "lightgbm": {"rounds": 15, "max_depth": 3, "columns": 1.0, "learning_rate": 0.3, "threads": 1},
}
needs_trees = pytest.mark.skipif(
    importlib.util.find_spec("lightgbm") is None, reason="needs LightGBM: the extra forecast"
)
BOTH = ["logistic", pytest.param("lightgbm", marks=needs_trees)]
#: Two-sided share of honest models that chance itself puts outside.
RARE = 0.002


def config_of(model, latest=None):
    return validate(
        ForecastConfig,
        {
            "model": {"name": model, **MODELS[model]},
            "features": {"names": NAMES},
            "label": {"horizon": f"{AHEAD}h"},
            "schedule": {"span": "month", "train_spans": 3, "embargo_bars": 30, "latest": latest},
            "baselines": [],
        },
        "here",
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small products: more threads only wait for each other."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def ground(make_bars):
    return prepare(make_bars(N, seed=5), config_of("logistic").dataset())


def with_column(ground, name, column):
    features = ground.features
    values = np.column_stack([features.values, column])
    return replace(ground, features=Table(features.time, values, (*features.names, name)))


def later_return(bars, noise):
    """The return of the next bars plus noise, in multiples of its deviation; a row has its own noise."""
    close = np.log(bars.column("close"))
    later = np.append(close[AHEAD:] - close[:-AHEAD], np.zeros(AHEAD))
    return later + noise * 0.02 * np.random.default_rng(3).normal(size=len(bars))


def pooled(ground, config):
    """Targets, decisions, probabilities and returns of all test rows with a label; and the importances."""
    folds = [fit_fold(ground, split, config, i) for i, split in enumerate(folds_of(ground, config.schedule))]
    rows = np.concatenate([np.arange(fold.test.start, fold.test.stop) for fold in folds])
    answers, decisions = (
        np.concatenate([getattr(fold, part)[config.model.name] for fold in folds])
        for part in ("answers", "decisions")
    )
    kept = ground.labels.known[rows] & ~np.isnan(answers[:, 0])
    rows = rows[kept]
    mean = {
        name: float(np.mean([fold.importances.get(name, 0.0) for fold in folds]))
        for name in ground.features.names
    }
    target = (ground.labels.value[rows] + 1).astype(np.int8)
    return rows, target, decisions[kept], answers[kept], mean


# -- the importance check -----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("model", BOTH)
def test_a_feature_that_is_the_later_return_and_noise_is_suspected_and_no_other_is(ground, model, noise):
    leaking = with_column(ground, "later", later_return(ground.bars, noise))
    rows, *_, importances = pooled(leaking, config_of(model))
    found = suspicious(leaking.features, leaking.labels.ret, importances, rows, AHEAD)
    assert [one.name for one in found] == ["later"]
    assert importances["later"] > 0.3
    assert found[0].share == importances["later"]
    assert ("of the model" in found[0].reason) == (noise == 1.5)  # under noise the correlation is not enough
    assert str(found[0]).startswith("later is too good to be true, does it know the future?")


@pytest.mark.parametrize("model", BOTH)
def test_honest_features_are_not_suspected(ground, model):
    rows, *_, importances = pooled(ground, config_of(model))
    assert suspicious(ground.features, ground.labels.ret, importances, rows, AHEAD) == ()


def test_none_of_all_columns_of_an_honest_market_is_suspected(make_bars):
    bars = make_bars(6000, seed=8)
    features = FeaturePipeline(FeaturesConfig(names="full")).update(bars)
    volatility = features.column("volatility_24")
    for labels in (forward_return(bars, 24), triple_barrier(bars, 24, 1.0, 1.0, volatility)):
        rows = np.flatnonzero(labels.known)
        assert suspicious(features, labels.ret, None, rows, 24) == ()


def table_of(**columns):
    values = np.column_stack(list(columns.values()))
    return Table(np.arange(len(values)) * HOUR, values, tuple(columns))


def test_each_bound_is_there_for_a_leak_that_the_others_miss():
    random = np.random.default_rng(2)
    ret, noise = random.normal(size=4000), random.normal(size=(12, 4000))
    table = table_of(
        copy=ret + noise[0],
        size=np.abs(ret) + 0.2 * noise[1],
        faint=ret + 4.0 * noise[2],
        known_class=noise[3],
        **{f"honest_{i}": noise[i] for i in range(4, 12)},
    )
    shares = dict.fromkeys(table.names, 0.01)
    reasons = {one.name: one.reason for one in suspicious(table, ret, shares)}
    assert set(reasons) == {"copy", "size"}
    assert "with the return is 0.70, beyond 0.3" in reasons["copy"]
    assert "with the size of the return" in reasons["size"]
    (faint,) = (one for one in suspicious(table, ret, shares | {"faint": 0.4}) if one.name == "faint")
    assert "carries 40% of the model, and its rank correlation" in faint.reason
    (alone,) = (
        one for one in suspicious(table, ret, shares | {"known_class": 0.6}) if one.name == "known_class"
    )
    assert alone.reason == "it carries 60% of a model of 12 columns"
    # A model of three columns may well rest on one of them.
    assert suspicious(table.select(["honest_4", "honest_5"]), ret, {"honest_4": 0.9, "honest_5": 0.1}) == ()


def test_few_rows_and_long_labels_accuse_nobody_by_chance():
    accused = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        ret = np.convolve(random.normal(size=223), np.ones(24), "valid")  # 200 labels of 24 bars, overlapping
        trend = np.convolve(random.normal(size=223), np.ones(24), "valid")
        accused += len(suspicious(table_of(trend=trend), ret, {"trend": 1.0}, horizon=24))
    assert accused == 0
    # Taken for 200 observations of their own, they would: that is what the horizon is for.
    plain = sum(
        len(suspicious(table_of(trend=np.convolve(one.normal(size=223), np.ones(24), "valid")),
                       np.convolve(one.normal(size=223), np.ones(24), "valid"), {"trend": 1.0}))
        for one in map(np.random.default_rng, range(40))
    )  # fmt: skip
    assert plain > 0


def test_unknown_and_constant_columns_accuse_nobody():
    ret = np.random.default_rng(0).normal(size=500)
    half = np.where(np.arange(500) < 250, np.nan, ret)
    table = table_of(unknown=np.full(500, np.nan), constant=np.ones(500), half=half)
    assert [one.name for one in suspicious(table, ret)] == ["half"]
    assert suspicious(table, np.full(500, np.nan)) == ()
    assert suspicious(table.select(["half"]), ret, rows=np.arange(200)) == ()


# -- altered future, through the whole training -------------------------------------------------------------


def trained(leaking):
    """Return the stage from bars to the out-of-fold answers of one fold: labels, scaler, fit and all."""
    config = config_of("logistic")

    def stage(bars):
        ground = prepare(bars, config.dataset())
        if leaking:
            ground = with_column(ground, "later", later_return(bars, 1.0))
        fold = fit_fold(ground, folds_of(ground, config.schedule)[0], config)
        answers = np.full((len(bars), 3), np.nan)
        answers[fold.test] = fold.answers["logistic"]
        through = np.full(len(bars), -1)
        through[fold.test] = fold.trained_through
        return {"p": answers, "trained_through": through}

    return stage


@pytest.mark.parametrize("leaking", [True, False])
def test_altering_the_future_finds_a_column_of_the_future_behind_a_whole_training(ground, leaking):
    first = folds_of(ground, config_of("logistic").schedule)[0].test.start
    some = ground.bars[: first + 400]
    report = inspect(
        trained(leaking),
        some,
        first=first,
        embargo=30,
        cuts=3,
        prefixes=3,
        poisons=("times 1000", "reversed"),
    )
    assert report.refused == {"shortened data": 1}  # where the fold would have no test row
    if leaking:
        assert set(report.routes) == {"prefix", "altered future"}
        assert max(one.reach for one in report.findings) == AHEAD
    else:
        assert report.clean, str(report)


# -- permuted labels ----------------------------------------------------------------------------------------


def telling(ground, strength):
    noise = np.random.default_rng(0).normal(size=len(ground.bars))
    return with_column(ground, "teller", strength * ground.labels.value + noise)


def permuted(ground, seed):
    """The same labels, each with its return, at other rows; what is known and when stays."""
    labels = ground.labels
    rows = np.flatnonzero(labels.known)
    order = np.random.default_rng(seed).permutation(rows)
    value, ret = labels.value.copy(), labels.ret.copy()
    value[rows], ret[rows] = value[order], ret[order]
    return replace(ground, labels=replace(labels, value=value, ret=ret))


def chance(target, decisions, answers, ret):
    """Interval of F1 macro and of the rank correlation, had the answers nothing to do with the truth."""
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(120):
        order = random.permutation(len(target))
        found = measured(answers, decisions, target[order], ret[order])
        drawn.append((found["f1_macro"], found["information_coefficient"]))
    middle, spread = np.mean(drawn, axis=0), np.std(drawn, axis=0)
    wide = 3.09 * spread  # the two-sided RARE of a normal distribution, which 120 draws cannot show
    return middle - wide, middle + wide


@pytest.mark.parametrize("model", BOTH)
def test_permuted_labels_teach_nothing_but_chance_and_true_ones_do(ground, model):
    told = telling(ground, 1.5)
    inside = {}
    for name, one in {"true": told, "permuted": permuted(told, 1)}.items():
        rows, target, decisions, answers, _ = pooled(one, config_of(model, latest=2))
        ret = one.labels.ret[rows]
        low, high = chance(target, decisions, answers, ret)
        found = measured(answers, decisions, target, ret)
        figures = np.array([found["f1_macro"], found["information_coefficient"]])
        inside[name] = (low <= figures) & (figures <= high)
        if name == "true":
            assert (figures > high + 0.1).all()
    assert inside["permuted"].all()
    assert not inside["true"].any()


def test_a_ground_keeps_its_purge_when_its_labels_are_permuted(ground):
    # Else the test above would measure another training than the one that is used.
    other = permuted(ground, 1)
    assert isinstance(other, Ground)
    for split, again in zip(
        folds_of(ground, config_of("logistic").schedule),
        folds_of(other, config_of("logistic").schedule),
        strict=True,
    ):
        assert split == again
    assert (other.labels.value != ground.labels.value).any()

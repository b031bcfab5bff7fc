"""What no fold may do: learn from what it is judged on. And what each must do: learn what can be learned."""

import importlib.util
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, PluginConfig, validate
from forecasters import training
from forecasters.fitted import FittedForecaster
from forecasters.forecaster import FORECASTERS
from forecasters.measures import measured
from forecasters.settings import ForecastConfig, LearningConfig
from forecasters.training import (
    Ground,
    Weighing,
    fit_and_validation,
    fit_fold,
    folds_of,
    prepare,
    require_past,
)
from market.bars import Bars
from market.scaling import Scaler
from market.splits import Split
from market.suspicion import suspicious
from market.table import DataError, Table

N = 5200  # hours: seven months
NAMES = ["return_1", "return_24", "rsi_14", "volatility_24", "weekend"]
# Trees of the extra where it is installed.
TREES = "xgboost" if importlib.util.find_spec("xgboost") else "random_forest"
SETTINGS = {
    "logistic": {"penalty": 10.0},
    "xgboost": {"rounds": 15, "max_depth": 3, "columns": 1.0, "learning_rate": 0.3, "threads": 1},
    "random_forest": {"trees": 12, "max_depth": 4, "columns": 1.0, "threads": 1},
}
MODELS = ("logistic", TREES)


def config_of(model="logistic", **changes):
    document = {
        "model": {"name": model, **SETTINGS.get(model, {})},
        "features": {"names": NAMES},
        "label": {"horizon": "4h"},
        "schedule": {"span": "month", "train_spans": 3, "embargo_bars": 30},
        "baselines": ["majority"],
    }
    return validate(ForecastConfig, document | changes, "here")


@pytest.fixture(scope="module")
def ground(make_bars):
    return prepare(make_bars(N, seed=5), config_of().dataset())


def with_column(ground, name, column):
    features = ground.features
    values = np.column_stack([features.values, column])
    return replace(ground, features=Table(features.time, values, (*features.names, name)))


def telling(ground, strength, seed=0):
    """Return the ground with a column that knows the label, and noise: the plainest leak there is."""
    noise = np.random.default_rng(seed).normal(size=len(ground.bars))
    return with_column(ground, "teller", strength * ground.labels.value + noise)


def tomorrow(ground):
    """Return the return of the next 24 bars."""
    close = np.log(ground.bars.column("close"))
    return np.append(close[24:] - close[:-24], np.zeros(24))


def pooled(ground, config, folds=None):
    folds = folds or [
        fit_fold(ground, split, config, number)
        for number, split in enumerate(folds_of(ground, config.schedule))
    ]
    rows = np.concatenate([np.arange(fold.test.start, fold.test.stop) for fold in folds])
    decision = np.concatenate([fold.decisions[config.model.name] for fold in folds])
    known = ground.labels.known[rows]
    target = ground.labels.value[rows][known] + 1
    return np.mean([(decision[known][target == one] == one).mean() for one in range(3)]), folds


def frozen(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fold_on(ground, config, tmp_path, number=1):
    fold = fit_fold(ground, folds_of(ground, config.schedule)[number], config, number)
    fold.fitted.save(tmp_path)
    return fold, frozen(tmp_path)


def altered_after(bars, row):
    """Return bars whose prices and volumes are others from a row on."""
    random = np.random.default_rng(9)
    values = bars.values.copy()
    values[row:, :4] *= np.exp(np.cumsum(random.normal(0.0, 0.03, (len(bars) - row, 1)), axis=0))
    values[row:, 4] *= random.lognormal(0.0, 1.0, len(bars) - row)
    return Bars(bars.time, values, bars.names, symbol=bars.symbol, interval_ns=bars.interval_ns)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), n=st.integers(20, 200), share=st.floats(0.05, 0.6), embargo=st.integers(0, 30))
def test_no_label_to_fit_on_reaches_the_validation(data, n, share, embargo):
    time = np.arange(1, n + 1)
    last = data.draw(st.lists(st.integers(1, 15), min_size=n, max_size=n))
    settled = time + np.array(last)
    start = data.draw(st.integers(0, n // 3))
    try:
        fit, validation = fit_and_validation(time, settled, slice(start, n), share, embargo)
    except DataError:
        return
    assert fit.start == start
    assert validation.stop == n
    assert fit.stop + embargo <= validation.start
    assert (settled[fit] < time[validation.start - embargo]).all()
    # And no more is thrown away than that takes.
    if fit.stop + embargo < validation.start:
        assert settled[fit.stop] >= time[validation.start - embargo]


def test_a_fold_learns_from_nothing_in_its_test(ground, tmp_path):
    for name in MODELS:
        config = config_of(name)
        test = folds_of(ground, config.schedule)[1].test
        other = prepare(altered_after(ground.bars, test.start), config.dataset())
        assert (other.features.values[test] != ground.features.values[test]).any()
        assert (other.labels.value[test] != ground.labels.value[test]).any()
        before, files = fold_on(ground, config, tmp_path / name / "before")
        after, files_after = fold_on(other, config, tmp_path / name / "after")
        assert files == files_after
        assert before.trained_through == after.trained_through
        assert before.told["examples"]["fit"] == after.told["examples"]["fit"]
        assert (before.answers[name] != after.answers[name]).any()


def test_the_law_of_altered_tests_catches_a_scaler_of_all_rows(ground, tmp_path, monkeypatch):
    config = config_of()
    test = folds_of(ground, config.schedule)[1].test
    other = prepare(altered_after(ground.bars, test.start), config.dataset())
    files = []
    for one, name in ((ground, "before"), (other, "after")):
        names = [name for name in one.features.names if name != "weekend"]
        leaking = Scaler.fit(one.features.select(names)[one.warmup :])
        monkeypatch.setattr(training, "fit_scaler", lambda past, fit, leaking=leaking: (leaking, {}))
        files.append(fold_on(one, config, tmp_path / name)[1])
    assert files[0] != files[1]


def test_every_answer_is_stamped_with_a_time_before_it_and_the_embargo_lies_between(ground):
    config = config_of()
    _, folds = pooled(ground, config)
    assert len(folds) >= 3
    for fold, split in zip(folds, folds_of(ground, config.schedule), strict=True):
        time = ground.bars.time
        assert fold.trained_through < time[fold.test.start]
        fit, validation = (slice(*fold.told["rows"][part]) for part in ("fit", "validation"))
        assert fit.stop + 30 <= validation.start
        assert validation.stop + 30 <= split.test.start
        for rows in (fit, validation):
            known = ground.labels.known[rows]
            assert ground.labels.known_at[rows][known].max() <= fold.trained_through
    assert all(a.test.stop == b.test.start for a, b in pairwise(folds))


def test_a_split_whose_labels_reach_into_the_test_stops_the_training(ground):
    careless = Split(slice(0, 3000), slice(3000, 3000), slice(3000, 3200))
    config = config_of(schedule={"span": "month", "train_spans": 3, "embargo_bars": 0})
    with pytest.raises(RuntimeError, match="cannot answer row 3000"):
        fit_fold(ground, careless, config)
    careful = Split(slice(0, 2996), slice(3000, 3000), slice(3000, 3200), purge=4)
    assert fit_fold(ground, careful, config).trained_through < ground.bars.time[3000]


def test_an_embargo_that_was_left_out_stops_the_training():
    time = np.arange(100)
    require_past(time, slice(50, 60), 40, 40, 10)
    with pytest.raises(RuntimeError, match="embargo of 11 bars"):
        require_past(time, slice(50, 60), 40, 40, 11)
    with pytest.raises(RuntimeError, match="cannot answer"):
        require_past(time, slice(50, 60), 50, 40, 10)


@pytest.mark.parametrize("name", MODELS)
def test_permuted_labels_give_chance_and_true_ones_do_not(ground, name):
    told = telling(ground, 1.5)
    labels = told.labels
    rows = np.flatnonzero(labels.known)
    value = labels.value.copy()
    value[rows] = np.random.default_rng(1).permutation(value[rows])
    config = config_of(name)
    found, folds = pooled(told, config)
    assert found > 0.55
    chance, _ = pooled(replace(told, labels=replace(labels, value=value)), config)
    assert abs(chance - 1 / 3) < 0.04
    del folds


def test_a_column_of_the_future_is_seen_and_honest_ones_are_not(ground):
    config = config_of(TREES)
    leaking = with_column(ground, "tomorrow", np.nan_to_num(ground.labels.ret))
    for one, expected in ((leaking, ["tomorrow"]), (ground, [])):
        found, folds = pooled(one, config)
        rows = np.concatenate([np.arange(fold.test.start, fold.test.stop) for fold in folds])
        rows = rows[one.labels.known[rows]]
        mean = {
            name: np.mean([fold.importances.get(name, 0.0) for fold in folds]) for name in one.features.names
        }
        told = suspicious(one.features, one.labels.ret, mean, rows, one.labels.horizon)
        assert [column.name for column in told] == expected
        assert (found > 0.8) == bool(expected)


def test_the_same_seed_gives_the_same_fold_and_another_seed_another(ground):
    config = config_of(TREES)
    split = folds_of(ground, config.schedule)[0]
    one, again = (fit_fold(ground, split, config, 0).answers[TREES] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    other = fit_fold(ground, split, config.model_copy(update={"seed": 8}), 0).answers[TREES]
    assert np.nanmax(np.abs(one - other)) > 0


def test_a_fitted_fold_answers_from_disk_what_it_answered_in_training_and_refuses_what_it_has_seen(
    ground, tmp_path
):
    config = config_of(TREES)
    fold, _ = fold_on(ground, config, tmp_path)
    loaded = FittedForecaster.load(tmp_path)
    np.testing.assert_array_equal(loaded.answers(ground.features, fold.test), fold.answers[TREES])
    np.testing.assert_array_equal(loaded.decide(fold.answers[TREES]), fold.decisions[TREES])
    one = slice(fold.test.start + 7, fold.test.start + 8)
    alone = loaded.answers(ground.features[: one.stop], one)
    np.testing.assert_allclose(alone, fold.answers[TREES][7:8], rtol=0, atol=1e-9)
    with pytest.raises(DataError, match="is not out of sample"):
        loaded.answers(ground.features, slice(fold.test.start - 100, fold.test.stop))


def test_the_row_that_ended_a_training_is_refused_and_the_next_one_answered(ground):
    config = config_of()
    fitted = fit_fold(ground, folds_of(ground, config.schedule)[0], config).fitted
    row = int(np.searchsorted(ground.bars.time, fitted.trained_through))
    assert ground.bars.time[row] == fitted.trained_through
    with pytest.raises(DataError, match="is not out of sample"):
        fitted.answers(ground.features, slice(row, row + 2))
    assert not np.isnan(fitted.answers(ground.features, slice(row + 1, row + 2))).any()


def test_no_answer_changes_with_bars_after_its_own_and_one_that_knows_the_future_does(ground):
    config = config_of(TREES)
    split = folds_of(ground, config.schedule)[1]
    moment = split.test.start + 200
    other = prepare(altered_after(ground.bars, moment), config.dataset())
    grounds = {
        "honest": (ground, other),
        "leaking": [with_column(one, "tomorrow", tomorrow(one)) for one in (ground, other)],
    }
    changed = {}
    for name, (one, another) in grounds.items():
        fitted = replace(fit_fold(one, split, config).fitted, feature_version=other.feature_version)
        before, after = (
            fitted.answers(features, split.test) for features in (one.features, another.features)
        )
        changed[name] = (before != after).any(axis=1)
    assert not changed["honest"][:200].any()
    assert changed["honest"][200:].any()
    assert changed["leaking"][176:200].any()


def test_a_fitted_fold_refuses_features_of_another_version(ground, tmp_path):
    config = config_of()
    fold, _ = fold_on(ground, config, tmp_path)
    other = prepare(ground.bars, config_of(features={"names": [*NAMES, "rsi_4"]}).dataset())
    with pytest.raises(DataError, match="was fitted on features"):
        fold.fitted.answers(other.features, fold.test)


@pytest.mark.parametrize("kind", ["none", "temperature", "bias_corrected", "isotonic"])
@pytest.mark.parametrize("decision", ["balanced", "likeliest"])
def test_every_way_of_learning_finds_what_the_column_tells(ground, kind, decision):
    weighed = {"class_weights": kind != "none", "uniqueness": decision == "balanced"}
    config = config_of(
        learning={"calibration": kind, "decision": decision, **weighed},
        schedule={"span": "month", "train_spans": 3, "embargo_bars": 30, "expanding": False, "latest": 2},
    )
    split = folds_of(ground, config.schedule)[0]
    assert split.train.start > 0  # it rolls
    fold = fit_fold(telling(ground, 2.0), split, config)
    known = ground.labels.known[fold.test]
    target = ground.labels.value[fold.test][known] + 1
    found = measured(
        fold.answers["logistic"][known],
        fold.decisions["logistic"][known],
        target,
        ground.labels.ret[fold.test][known],
    )
    assert found["f1_macro"] > 0.6
    assert found["log_loss"] < 0.85
    if kind in ("bias_corrected", "isotonic"):
        assert found["calibration_error"] < 0.06


def test_a_fitted_fold_with_parts_of_two_is_refused(ground, tmp_path):
    fold_on(ground, config_of(TREES), tmp_path / "one")
    fold_on(ground, config_of("logistic"), tmp_path / "two")
    (tmp_path / "one" / "fitted.json").write_bytes((tmp_path / "two" / "fitted.json").read_bytes())
    with pytest.raises(DataError, match="belongs to another forecaster"):
        FittedForecaster.load(tmp_path / "one")


def test_columns_that_do_not_vary_over_the_rows_to_fit_on_are_dropped_though_they_vary_later(ground):
    config = config_of()
    split = folds_of(ground, config.schedule)[0]
    late = np.zeros(len(ground.bars))
    late[split.train.stop :] = 1.0
    seldom = np.where(np.arange(len(ground.bars)) % 2, np.nan, 1.0 * np.arange(len(ground.bars)))
    fold = fit_fold(with_column(with_column(ground, "late", late), "seldom", seldom), split, config)
    assert fold.told["dropped"] == {"constant": ["late"], "seldom known": ["seldom"]}
    assert fold.told["examples"]["test"] == split.test.stop - split.test.start


def test_classes_weigh_the_same_and_labels_that_overlap_share(ground):
    rows = slice(500, 3000)
    weighing = Weighing.of(ground.labels, rows, LearningConfig())
    weight = weighing.weights(ground.labels, rows)
    totals = np.bincount(ground.labels.value + 1, weight)
    np.testing.assert_allclose(totals / totals.sum(), 1 / 3, atol=1e-9)
    plain = Weighing.of(ground.labels, rows, LearningConfig(class_weights=False, uniqueness=False))
    np.testing.assert_array_equal(np.unique(plain.weights(ground.labels, rows)), [0.0, 1.0])
    assert weighing.weights(ground.labels, rows, by_class=False).max() <= 1.0
    assert not weight[3000:].any()


def test_a_class_that_hardly_occurs_does_not_make_up_a_third_of_the_weight(make_bars):
    config = config_of(label={"kind": "return", "horizon": "4h"})
    bars = make_bars(1200)
    labels = config.label.labels(bars)
    value = labels.value.copy()
    value[400] = 0
    weight = Weighing.of(replace(labels, value=value), slice(0, 1000), LearningConfig()).weights(
        replace(labels, value=value), slice(0, 1000)
    )
    assert weight[400] / weight.sum() < 0.03


def test_an_outage_costs_a_window_model_rows_and_a_tabular_one_none(ground):
    kept = np.r_[0:3900, 3910:N]
    bars = ground.bars
    holed = Bars(
        bars.time[kept], bars.values[kept], bars.names, symbol=bars.symbol, interval_ns=bars.interval_ns
    )
    one = prepare(holed, config_of().dataset())

    class Looking(FORECASTERS.get("logistic")):
        lookback = 12

    config = config_of()
    split = next(
        split for split in folds_of(one, config.schedule) if split.test.start <= 3900 < split.test.stop
    )
    assert not np.isnan(fit_fold(one, split, config).answers["logistic"]).any()
    with pytest.MonkeyPatch.context() as patch:
        real = training.new_forecaster
        patch.setattr(
            training,
            "new_forecaster",
            lambda chosen: Looking(real(chosen).config) if chosen.name == "logistic" else real(chosen),
        )
        fold = fit_fold(one, split, config)
    missing = np.flatnonzero(np.isnan(fold.answers["logistic"][:, 0])) + split.test.start
    np.testing.assert_array_equal(missing, np.arange(3900, 3911))
    np.testing.assert_array_equal(
        np.isnan(fold.answers["majority"]).any(axis=1), np.isnan(fold.answers["logistic"]).any(axis=1)
    )


def test_a_baseline_that_needs_more_rows_than_the_model_is_refused(ground, monkeypatch):
    config = config_of()
    split = folds_of(ground, config.schedule)[0]
    monkeypatch.setattr(FORECASTERS.get("majority"), "lookback", 3)
    with pytest.raises(ConfigError, match="majority looks back on 3 rows"):
        fit_fold(ground, split, config)


def test_too_few_rows_end_in_a_sentence(ground, make_bars):
    with pytest.raises(DataError, match="give no fold"):
        folds_of(prepare(make_bars(900), config_of().dataset()), config_of().schedule)
    with pytest.raises(DataError, match="no rows are left to fit on"):
        fit_and_validation(np.arange(100), np.arange(100) + 3, slice(0, 100), 0.5, 60)
    unknown = replace(ground, features=Table(ground.features.time, np.full((N, 1), np.nan), ("a",)))
    with pytest.raises(DataError, match="no column is known"):
        fit_fold(unknown, folds_of(ground, config_of().schedule)[0], config_of())
    still = replace(ground, features=Table(ground.features.time, np.ones((N, 1)), ("a",)))
    with pytest.raises(DataError, match="no column varies"):
        fit_fold(still, folds_of(ground, config_of().schedule)[0], config_of())


def test_peers_are_named_by_their_files(make_bars):
    config = config_of(features={"names": NAMES, "peers": ["eth"]})
    with pytest.raises(ConfigError, match="name these under peers and external"):
        prepare(make_bars(600), config.dataset())


def test_a_ground_of_two_clocks_is_refused(ground, make_bars):
    with pytest.raises(DataError, match="another clock"):
        Ground(ground.bars, ground.features, config_of().label.labels(make_bars(N, start=1)), "v")


def test_a_model_is_not_its_own_baseline():
    config = config_of("majority", baselines=["majority", "ar1"])
    assert config.rivals() == ("ar1",)
    assert config.model == PluginConfig(name="majority")


# --- spans of bars -----------------------------------------------------------------------------------


def schedule_of(**schedule):
    return config_of(schedule={"embargo_bars": 30, **schedule}).schedule


def test_spans_of_bars_train_before_each_of_them(ground):
    found = folds_of(ground, schedule_of(every_bars=900, train_bars=2000))
    assert [split.test for split in found] == [
        slice(2000, 2900), slice(2900, 3800), slice(3800, 4700), slice(4700, N),
    ]  # fmt: skip
    for split in found:
        assert split.train.start == 0
        assert split.train.stop + 30 < split.test.start  # purge and embargo
        assert ground.labels.settled_at[split.train].max() < ground.bars.time[split.test.start]
    assert folds_of(ground, schedule_of(every_bars=900, train_bars=2000, latest=2)) == found[-2:]
    rolling = folds_of(ground, schedule_of(every_bars=900, train_bars=2000, expanding=False))
    assert [split.train.start for split in rolling] == [0, 900, 1800, 2700]
    # By default training is as many spans as of the calendar, and the first test as long as all.
    assert folds_of(ground, schedule_of(every_bars=600))[0].test == slice(4800, N)
    assert folds_of(ground, schedule_of(every_bars=1000, train_spans=2))[0].test == slice(2000, 3000)
    first = folds_of(ground, schedule_of(every_bars=900, train_bars=2000, first_bars=100))
    assert [split.test.start for split in first] == [2000, 2100, 3000, 3900, 4800]


def test_a_training_of_spans_of_bars_answers_every_row_from_its_past(ground):
    schedule = {"every_bars": 1500, "train_bars": 2200, "embargo_bars": 30}
    skill, folds = pooled(ground, config_of(schedule=schedule))
    assert [(fold.test.start, fold.test.stop) for fold in folds] == [(2200, 3700), (3700, N)]
    assert 0.25 < skill < 0.45  # a market of chance
    for fold in folds:
        assert fold.trained_through < ground.bars.time[fold.test.start]
        assert not np.isnan(fold.answers["logistic"]).any()


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ({"train_bars": 500}, "schedule: train_bars counts with every_bars alone"),
        ({"first_bars": 500}, "schedule: first_bars counts with every_bars alone"),
        (
            {"every_bars": 500, "span": "month"},
            "span is month and every_bars 500; .* must be left at quarter",
        ),
        ({"every_bars": 0}, r"schedule\.every_bars is 0; it should be greater than or equal to 1"),
        ({"every_bars": True}, r"schedule\.every_bars is True; it must be a number"),
    ],
)
def test_spans_of_bars_that_cannot_be_are_one_sentence(schedule, sentence):
    with pytest.raises(ConfigError, match=sentence):
        schedule_of(**schedule)


def test_too_few_bars_for_a_span_of_bars_are_one_sentence(ground):
    with pytest.raises(DataError, match=f"{N} bars give no fold; 8000 of them train"):
        folds_of(ground, schedule_of(every_bars=1000))

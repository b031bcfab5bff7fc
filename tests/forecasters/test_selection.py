"""Columns are chosen by the rows that are fitted on: the best, no two of a kind, and none by its future."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, load, validate
from forecasters import selection, training
from forecasters.fitted import FittedForecaster
from forecasters.selection import BINS, selected
from forecasters.settings import ForecastConfig, SelectionConfig
from forecasters.train import main
from forecasters.training import fit_fold, folds_of, prepare
from forecasters.windows import Examples, examples_of
from market.table import Table

SCORES = ("correlation", "mutual_information", "importance")
scores = pytest.mark.parametrize("by", SCORES)


@pytest.fixture(autouse=True)
def _small_forest(monkeypatch):
    monkeypatch.setattr(selection, "FOREST", {**selection.FOREST, "trees": 30, "threads": 1})


def choose(examples, by="correlation", seed=1, needed=(), **settings):
    return selected(examples, SelectionConfig(by=by, **settings), seed, needed)


def examples_with(columns, ret, rows=None):
    """Examples of named columns (n,) and the returns of the rows (all of them)."""
    features = np.column_stack(list(columns.values())).astype(np.float32)
    rows = np.arange(len(features)) if rows is None else rows
    target = np.digitize(ret[rows], np.quantile(ret, [1 / 3, 2 / 3])).astype(np.int8)
    return Examples(features, rows, 1, target, np.ones(rows.size), tuple(columns), ret=ret[rows])


def planted(n=3000, seed=0):
    """The return follows ``line``, a little ``faint``; its class follows the distance of ``bow`` from 0."""
    random = np.random.default_rng(seed)
    columns = {name: random.normal(size=n) for name in ("noise_1", "line", "noise_2", "faint", "noise_3")}
    ret = columns["line"] + 0.4 * columns["faint"] + random.normal(size=n)
    return columns, ret


# What is chosen


@scores
def test_the_columns_that_tell_are_kept_in_their_order_and_the_others_are_named(by):
    columns, ret = planted()
    found = choose(examples_with(columns, ret), by, keep=2)
    assert found.kept == ("line", "faint")
    assert max(found.scores, key=found.scores.get) == "line"
    assert found.dropped.keys() == {"low score"}
    assert set(found.weak) == {"noise_1", "noise_2", "noise_3"}
    assert found.told() == {"scores": {name: found.scores[name] for name in found.kept}, "redundant": {}}


def test_mutual_information_and_forests_see_what_is_no_line_and_a_correlation_does_not():
    random = np.random.default_rng(2)
    columns = {f"noise_{i}": random.normal(size=3000) for i in range(6)} | {"bow": random.normal(size=3000)}
    ret = columns["bow"] ** 2 + 0.5 * random.normal(size=3000)
    one = examples_with(columns, ret)
    first = {by: choose(one, by, keep=1).kept for by in SCORES}
    assert first["mutual_information"] == first["importance"] == ("bow",)
    assert first["correlation"] != ("bow",)


@scores
def test_of_two_of_a_kind_the_one_that_is_closer_to_the_label_is_kept(by):
    columns, ret = planted()
    random = np.random.default_rng(3)
    blurred = columns["line"] + 0.1 * random.normal(size=ret.size)
    for order in (("blurred", "line"), ("line", "blurred")):
        both = {name: {"blurred": blurred, "line": columns["line"]}[name] for name in order}
        one = examples_with({**both, "noise_1": columns["noise_1"]}, ret)
        found = choose(one, by, keep=3, redundant=0.95)
        if by != "importance":  # a forest shares the importance of twins as chance has it
            assert found.redundant == {"blurred": "line"}
        assert len(found.redundant) == 1
        assert len(found.kept) == 2
        assert choose(one, by, keep=3, redundant=1.0).redundant == {}


def test_equal_columns_are_kept_once_and_the_first_of_them():
    columns, ret = planted()
    again = {"before": columns["line"], **columns, "after": -columns["line"]}
    found = choose(examples_with(again, ret), "mutual_information", redundant=0.99)
    assert found.redundant == {"line": "before", "after": "before"}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    k=st.integers(1, 12),
    keep=st.integers(1, 12),
    limit=st.floats(0.1, 1.0),
    by=st.sampled_from(SCORES[:2]),
)
def test_each_column_is_kept_or_dropped_for_one_reason_and_no_two_of_a_kind_are_kept(
    seed, k, keep, limit, by
):
    from scipy.stats import spearmanr

    random = np.random.default_rng(seed)
    mixed = random.normal(size=(120, k)) @ random.normal(size=(k, k))
    columns = {f"c{i}": np.round(mixed[:, i], random.integers(0, 3)) for i in range(k)}
    one = examples_with(columns, random.normal(size=120))
    found = choose(one, by, keep=keep, redundant=limit)
    assert 1 <= len(found.kept) <= keep
    assert sorted([*found.kept, *found.redundant, *found.weak]) == sorted(columns)
    assert list(found.kept) == [name for name in columns if name in found.kept]
    for name, better in found.redundant.items():
        assert better in found.kept
        assert found.scores[better] >= found.scores[name]
        assert abs(spearmanr(columns[name], columns[better]).statistic) > limit - 1e-9
    for i, name in enumerate(found.kept):
        for other in found.kept[:i]:
            if np.ptp(columns[name]) and np.ptp(columns[other]):
                assert abs(spearmanr(columns[name], columns[other]).statistic) <= limit + 1e-9
    worst = min(found.scores[name] for name in found.kept)
    assert all(found.scores[name] <= worst for name in found.weak)


def test_scores_are_those_of_scipy_and_scikit_learn():
    from scipy.stats import spearmanr
    from sklearn.metrics import mutual_info_score

    columns, ret = planted(1600)
    columns["step"] = np.sign(columns["line"])
    one = examples_with(columns, ret)
    found = choose(one, "correlation").scores
    told = choose(one, "mutual_information").scores
    for i, name in enumerate(columns):
        x = one.features[:, i].astype(np.float64)
        assert found[name] == pytest.approx(abs(spearmanr(x, ret).statistic), abs=1e-9)
        bins = np.digitize(x, np.unique(np.quantile(x, np.arange(1, BINS) / BINS)))
        chance = (np.unique(bins).size - 1) * 2 / (2 * x.size)
        assert told[name] == pytest.approx(mutual_info_score(bins, one.target) - chance, abs=1e-9)
    assert abs(told["noise_1"]) < 0.01 < told["step"]


def test_what_is_needed_is_kept_besides():
    columns, ret = planted()
    one = examples_with(columns, ret)
    found = choose(one, keep=1, needed=("noise_3", "elsewhere"))
    assert found.kept == ("line", "noise_3")
    assert "noise_3" not in found.weak
    assert choose(one, keep=1).kept == ("line",)


@scores
def test_the_same_examples_give_the_same_columns_and_other_rows_are_not_looked_at(by):
    columns, ret = planted(2000)
    rows = np.arange(1200)
    one = examples_with(columns, ret, rows)
    altered = {name: np.append(column[:1200], 9.0 - column[1200:]) for name, column in columns.items()}
    found = choose(one, by, keep=3)
    assert choose(one, by, keep=3) == found
    assert choose(examples_with(altered, ret, rows), by, keep=3) == found
    everything = choose(examples_with(altered, ret), by, keep=3)
    assert everything.scores != found.scores


# In a fold

NAMES = ["return_1", "return_4", "return_24", "rsi_14", "volatility_24", "volume_ratio_24"]
#: Columns that know the label in the test rows and nowhere else: the bait of a selection on all rows.
BAITS = 3


def config_of(by="correlation", **changes):
    document = {
        "model": {"name": "logistic", "penalty": 10.0},
        "features": {"names": NAMES},
        "label": {"horizon": "4h"},
        "schedule": {"span": "month", "train_spans": 3, "embargo_bars": 30},
        "learning": {"selection": {"by": by, "keep": 4}},
        "baselines": ["majority"],
    }
    return validate(ForecastConfig, document | changes, "here")


@pytest.fixture(scope="module")
def ground(make_bars):
    """Bars with ten more columns of noise."""
    plain = prepare(make_bars(4400, seed=5), config_of().dataset())
    noise = np.random.default_rng(1).normal(size=(4400, 10))
    names = (*plain.features.names, *(f"noise_{i}" for i in range(10)))
    table = Table(plain.features.time, np.hstack([plain.features.values, noise]), names)
    return replace(plain, features=table)


def altered_from(ground, row):
    """The ground with other features and labels from a row on; noise there tells the label."""
    random = np.random.default_rng(9)
    n, values = len(ground.bars), ground.features.values.copy()
    values[row:] = random.normal(size=values[row:].shape)
    later = (np.arange(n) >= row) & ground.labels.known
    ret = np.where(later, random.normal(size=n), ground.labels.ret)
    value = np.where(later, np.digitize(ret, [-0.4, 0.4]) - 1, ground.labels.value).astype(np.int8)
    values[row:, -BAITS:] = 3.0 * np.nan_to_num(ret[row:, None]) + random.normal(size=(n - row, BAITS))
    features = Table(ground.features.time, values, ground.features.names)
    return replace(ground, features=features, labels=replace(ground.labels, ret=ret, value=value))


def until(ground, stop):
    """The ground as it was when its row ``stop`` had not come yet: labels that reach beyond are not known."""
    labels = ground.labels
    open_ = labels.known & (labels.end >= stop)
    never = np.iinfo(np.int64).max
    parts = {
        "value": np.where(open_, 0, labels.value).astype(np.int8),
        "known": labels.known & ~open_,
        "ret": np.where(open_, np.nan, labels.ret),
        **{name: np.where(open_, never, getattr(labels, name)) for name in ("known_at", "end", "settled_at")},
    }
    arrays = {name: column[:stop] for name, column in {"time": labels.time, **parts}.items()}
    cut = replace(labels, **arrays, side=labels.side[:stop])
    return replace(ground, bars=ground.bars[:stop], features=ground.features[:stop], labels=cut)


def frozen(ground, config, split, folder):
    fold = fit_fold(ground, split, config)
    fold.fitted.save(folder)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return fold, files


@scores
def test_a_selection_does_not_change_when_the_test_does_nor_where_it_has_not_come_yet(by, ground, tmp_path):
    config = config_of(by)
    split = folds_of(ground, config.schedule)[0]
    fold, files = frozen(ground, config, split, tmp_path / "whole")
    other, other_files = frozen(altered_from(ground, split.test.start), config, split, tmp_path / "altered")
    prefix, prefix_files = frozen(until(ground, split.test.stop), config, split, tmp_path / "prefix")
    assert files == other_files == prefix_files
    assert fold.told["selection"] == other.told["selection"] == prefix.told["selection"]
    assert fold.told["dropped"] == other.told["dropped"]


@scores
def test_a_selection_on_all_rows_is_found_by_both(by, ground, tmp_path, monkeypatch):
    config = config_of(by)
    split = folds_of(ground, config.schedule)[0]
    bait = altered_from(ground, split.test.start)

    def leaking(one):
        def on_all_rows(learn, *arguments):
            rows = slice(one.warmup, len(one.bars))
            weights = one.labels.known.astype(np.float64)
            whole = examples_of(one.features, one.labels, rows, 1, scaler_of(one), weights)
            return selected(whole, *arguments)

        return on_all_rows

    def scaler_of(one):
        return training.fit_scaler(one.features, slice(one.warmup, len(one.bars)))[0]

    found = {}
    for name, one in (
        ("whole", ground),
        ("altered", bait),
        ("bait", bait),
        ("prefix", until(bait, split.test.start + 24)),
    ):
        monkeypatch.setattr(training, "selected", leaking(one))
        cut = replace(split, test=slice(split.test.start, split.test.start + 24))
        found[name] = frozen(one, config, cut, tmp_path / name)
    assert found["whole"][1] != found["altered"][1]
    assert found["bait"][1] != found["prefix"][1]
    baits = {f"noise_{i}" for i in range(10 - BAITS, 10)}
    assert baits & set(found["bait"][0].fitted.scaler.names)


@scores
def test_the_validation_rows_do_not_choose_what_they_will_judge(by, ground, tmp_path):
    config = config_of(by)
    split = folds_of(ground, config.schedule)[0]
    fold, _ = frozen(ground, config, split, tmp_path / "plain")
    first = fold.told["rows"]["validation"][0]
    baited = altered_from(ground, first)  # noise that tells the label from there on
    other, _ = frozen(baited, config, split, tmp_path / "baited")
    assert other.told["selection"] == fold.told["selection"]
    assert other.told["dropped"] == fold.told["dropped"]
    # Negative control: a training that ends later has rows of the bait to fit on, and takes it.
    later, _ = frozen(baited, config, folds_of(ground, config.schedule)[-1], tmp_path / "later")
    assert later.told["rows"]["fit"][1] > first
    assert {f"noise_{i}" for i in range(10 - BAITS, 10)} & set(later.fitted.scaler.names)


def test_a_fold_reads_what_was_selected_and_says_why_it_reads_no_more(ground, tmp_path):
    config = config_of()
    split = folds_of(ground, config.schedule)[0]
    fold, _ = frozen(ground, config, split, tmp_path)
    scaler = fold.fitted.scaler
    assert len(scaler.names) == fold.told["columns"] == 4
    assert set(fold.told["selection"]["scores"]) == set(scaler.names)
    gone = [name for names in fold.told["dropped"].values() for name in names]
    assert sorted([*gone, *scaler.names]) == sorted(ground.features.names)
    assert set(fold.importances) == set(scaler.names)
    loaded = FittedForecaster.load(tmp_path)
    np.testing.assert_array_equal(loaded.answers(ground.features, fold.test), fold.answers["logistic"])
    plain = fit_fold(ground, split, config_of("none"))
    assert "selection" not in plain.told
    assert plain.told["columns"] == len(ground.features.names)
    whole = training.fit_scaler(ground.features[: split.train.stop], slice(*fold.told["rows"]["fit"]))[0]
    assert training.of_columns(whole, scaler.names) == scaler  # scaled as without a selection


def test_a_column_that_a_baseline_reads_is_kept(ground):
    split = folds_of(ground, config_of().schedule)[0]
    only = {"learning": {"selection": {"by": "mutual_information", "keep": 1}}}
    for column in ("return_1", "noise_9"):
        ground_of = ground if column == "return_1" else with_last_sign_of(ground, column)
        fold = fit_fold(ground_of, split, config_of(**only, baselines=["majority", "last_sign"]))
        assert "return_1" in fold.fitted.scaler.names
        assert len(fold.fitted.scaler.names) <= 2


def with_last_sign_of(ground, column):
    """The ground with a column under the name that the baseline reads."""
    names = tuple({"return_1": column, column: "return_1"}.get(name, name) for name in ground.features.names)
    return replace(ground, features=Table(ground.features.time, ground.features.values, names))


# Settings and report


def test_a_selection_is_off_by_default_and_named_in_a_word():
    assert load(ForecastConfig, "forecast.yaml").learning.selection == SelectionConfig()
    assert SelectionConfig().by == "none"
    short = load(ForecastConfig, "forecast.yaml", ["learning.selection=importance"])
    assert short.learning.selection == SelectionConfig(by="importance")
    for wrong in ("learning.selection=best", "learning.selection.keep=0", "learning.selection.redundant=1.5"):
        with pytest.raises(ConfigError) as caught:
            load(ForecastConfig, "forecast.yaml", [wrong])
        assert "\n" not in str(caught.value)
        assert "selection" in str(caught.value)


def test_a_run_reports_what_each_fold_dropped_and_what_was_always_kept(tmp_path, capsys):
    given = [
        "market.synthetic.n_bars=4400",
        "features.names=[return_1,return_4,return_24,rsi_14,volatility_24]",
        "schedule.span=month",
        "schedule.train_spans=3",
        "schedule.embargo_bars=24",
        "baselines=[majority]",
        "bootstrap_paths=20",
        "learning.selection.by=correlation",
        "learning.selection.keep=2",
    ]
    arguments = [part for one in given for part in ("--set", one)]
    with pytest.raises(SystemExit) as end:
        main(["--model", "logistic", "--runs", str(tmp_path), *arguments])
    assert end.value.code == 0, capsys.readouterr().err
    folder = next(tmp_path.glob("forecast-*"))
    found = json.loads((folder / "report.json").read_text())
    for fold in found["folds"]:
        assert fold["columns"] == len(fold["selection"]["scores"]) == 2
        assert sum(len(names) for names in fold["dropped"].values()) == 3
    text = (folder / "report.md").read_text()
    assert "Columns were selected by correlation in each fold, on the rows it was fitted on." in text

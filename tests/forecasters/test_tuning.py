"""Tuning as a whole: what it leaves, that it never sees what is held out, that it goes on after a kill."""

import json
import os
import sqlite3
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from backtest.metrics import max_drawdown
from configs.load import Config, ConfigError, PluginConfig, load
from experiments.ledger import Ledger
from experiments.tune import main
from forecasters import tuning, tuning_run
from forecasters.forecaster import (
    FORECASTERS,
    Forecaster,
    new_forecaster,
    plugin_config,
    plugin_document,
    read_forecaster,
    write_forecaster,
)
from forecasters.search_space import check_space, search_space
from forecasters.settings import ForecastConfig
from forecasters.train import main as train
from forecasters.training import Fold, folds_of, prepare
from forecasters.tuning import held_out_folds, held_out_from, score, traded, with_thresholds
from forecasters.tuning_settings import TuneConfig
from market.sources.selection import select_bars
from market.table import DataError

TINY = [
    "market.synthetic.n_bars=3600",
    "features.names=[return_1,return_24,rsi_14,volatility_24]",
    "schedule.span=month",
    "schedule.train_spans=1",
    "schedule.embargo_bars=24",
    "hold_out=1",
    "baselines=[majority]",
    "bootstrap_paths=20",
    "pruning.startup_trials=2",
    "sampling.startup_trials=3",
]


class LeanConfig(Config):
    """Settings of the toy."""

    lean: float = Field(0.1, ge=0.0, le=0.6)
    rows: int = Field(4, ge=1, le=9)
    kind: str = "plain"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A forecaster of a user: four methods and a decorator, in no file of the project; and its YAML file."""
    monkeypatch.setattr(FORECASTERS, "_plugins", dict(FORECASTERS._plugins) if FORECASTERS.names() else {})
    monkeypatch.setattr(FORECASTERS, "_tags", dict(FORECASTERS._tags))

    @FORECASTERS.register("lean", family="toy")
    class Lean(Forecaster):
        Config = LeanConfig
        calibrated = False

        def fit(self, train, validation, *, seed, told=None):
            if self.config.kind == "broken":
                raise ConfigError("forecaster lean: this kind will not do")
            return self

        def predict(self, windows):
            # Reversal: after a fall it leans to a rise.
            tilt = self.config.lean * np.tanh(-windows[:, -1, 0].astype(np.float64))
            return np.column_stack([0.34 - tilt / 2, np.full(len(windows), 0.32), 0.34 + tilt / 2])

        def save(self, folder):
            write_forecaster(folder, "lean", self.config)

        @classmethod
        def load(cls, folder):
            return cls(read_forecaster(folder, "lean").config(LeanConfig))

    path = tmp_path / "lean.yaml"
    path.write_text(
        "name: lean\nlean: 0.2\nsearch:\n  lean: {low: 0.0, high: 0.5}\n  rows: {low: 1, high: 9}\n"
        "  kind: [plain, other, broken]\n"
    )
    return path


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """Leave the disk to itself, as in the tests of stored studies, and the code as it is."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    version = tuning_run.code_version()  # who edits the sources meanwhile must not stop a resume here
    monkeypatch.setattr(tuning_run, "code_version", lambda: version)
    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


def tune(runs, *arguments, settings=TINY):
    """Return the status, and the latest run."""
    given = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main([*given, *arguments, "--runs", str(runs)])
    folders = sorted(runs.glob("tune-*")) if runs.exists() else []
    return end.value.code, folders[-1] if folders else None


def report(folder):
    return json.loads((folder / "report.json").read_text())


def result(folder):
    """The report of a run, less what the ledger had counted before."""
    return {name: part for name, part in report(folder).items() if name != "evidence"}


def test_a_tuning_leaves_a_study_a_report_pictures_and_settings_to_train_with(tmp_path, capsys):
    code, folder = tune(
        tmp_path / "runs", "--target", "forecasters.logistic", "--trials", "7", "--horizon", "4h", "--json"
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    found = report(folder)
    assert json.loads(said.out) == found
    assert found["model"] == "logistic"
    assert [one["trial"] for one in found["trials"]] == list(range(1, 8))
    assert set(found["space"]) == {"penalty", "thresholds.down", "thresholds.up"}
    first = found["trials"][0]  # the defaults, which lie in the space
    assert first["parameters"] == {"penalty": 100.0, "thresholds.down": 0.0, "thresholds.up": 0.0}
    assert first["value"] == pytest.approx(found["defaults"]["value"], abs=1e-15)
    assert found["best"]["value"] >= first["value"]
    assert sum(found["importances"].values()) == pytest.approx(1.0)
    best = found["trials"][found["best"]["trial"] - 1]
    assert best["value"] == found["best"]["value"] == best["steps"][-1]
    mean = np.mean([fold["value"] for fold in found["best"]["folds"]])
    assert found["best"]["value"] == pytest.approx(mean)
    for one in (*found["best"]["folds"], *found["defaults"]["folds"]):
        assert one["value"] == pytest.approx(one["f1_macro"] - 0.1 * max(0.0, one["drawdown"] - 0.1))
    unseen = found["held_out"]
    assert set(unseen["figures"]) == {"best", "defaults", "majority"}
    assert found["study"]["to"] < unseen["from"]
    assert unseen["from"].startswith("2017-05-01")
    assert found["evidence"] == {"trials": 8, "runs": 1, "earlier_looks": 0, "earlier_subjects": 0}
    for name in ("history", "importances", "slices"):
        assert (folder / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    text = (folder / "report.md").read_text()
    for line in ("## Best settings", "## Held out: 2017-05-01", "## The ", "judged once, after it"):
        assert line in text
    settings = yaml.safe_load((folder / "best.yaml").read_text())
    assert settings["thresholds"] == found["best"]["thresholds"]
    chosen = plugin_config(str(folder / "best.yaml"))
    assert chosen.settings == found["best"]["settings"]
    assert chosen.settings["penalty"] == best["parameters"]["penalty"]
    given = [part for setting in TINY[:5] for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        train(["--model", str(folder / "best.yaml"), "--runs", str(tmp_path / "trained"), *given])
    assert end.value.code == 0, capsys.readouterr().err
    trained = next((tmp_path / "trained").iterdir())
    assert report(trained)["settings"] == found["best"]["settings"]


def test_a_toy_of_four_methods_a_decorator_and_a_yaml_file_is_tuned(toy, tmp_path, capsys, blank_pictures):
    code, folder = tune(tmp_path / "runs", "--target", str(toy), "--trials", "9", "--pruner", "none")
    assert code == 0, capsys.readouterr().err
    found = report(folder)
    assert (found["model"], found["family"]) == ("lean", "toy")
    assert found["trials"][0]["parameters"]["lean"] == 0.2
    kinds = {one["parameters"]["kind"]: one for one in found["trials"]}
    broken = [one for one in found["trials"] if one["parameters"]["kind"] == "broken"]
    assert broken  # a setting that will not do is a trial that has failed, and no end of the search
    assert {(one["state"], one["reason"]) for one in broken} == {
        ("failed", "forecaster lean: this kind will not do")
    }
    assert all(one["state"] == "complete" for name, one in kinds.items() if name != "broken")
    assert all(type(one["parameters"]["rows"]) is int for one in found["trials"])
    assert found["study"]["failed"] == len(broken)
    assert "this kind will not do" in (folder / "log.txt").read_text()
    summary = Ledger(tmp_path / "ledger.sqlite").summary(select_bars(config().market).bars.fingerprint())
    assert (summary.n_evaluated, summary.n_unique) == (10, 10)
    assert 1 <= summary.n_defined <= 10 - len(broken)  # a signal that never trades has no Sharpe ratio


def config(*overrides):
    return load(TuneConfig, "tune.yaml", [*TINY, *overrides])


def test_a_tuning_that_was_stopped_twice_ends_as_one_that_never_was(
    toy, tmp_path, capsys, monkeypatch, blank_pictures
):
    asked = ["--target", str(toy), "--trials", "7", "--pruner", "hyperband"]
    code, whole = tune(tmp_path / "whole" / "runs", *asked)
    assert code == 0, capsys.readouterr().err
    fit, fitted = tuning.fit_fold, []

    def stops(*arguments):
        fitted.append(arguments)
        if len(fitted) == 9:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(tuning, "fit_fold", stops)
    runs = tmp_path / "runs"
    code, folder = tune(runs, *asked)
    assert code == 130
    assert not (folder / "report.json").exists()
    assert f"python -m experiments.tune --runs {runs} --resume {folder.name}" in capsys.readouterr().out
    fitted.clear()
    assert tune(runs, "--resume", "latest", settings=[])[0] == 130
    monkeypatch.setattr(tuning, "fit_fold", fit)
    code, resumed = tune(runs, "--resume", folder.name, settings=[])
    assert code == 0, capsys.readouterr().err
    assert resumed == folder
    assert result(folder) == result(whole)
    assert report(folder)["evidence"] == report(whole)["evidence"]  # no trial was counted twice
    connection = sqlite3.connect(folder / "study.sqlite")
    states = [row[0] for row in connection.execute("SELECT state FROM trials")]
    connection.close()
    assert len(states) == 9
    assert states.count("FAIL") == 2 + report(whole)["study"]["failed"]
    code, _ = tune(runs, "--resume", "latest", settings=[])
    assert code == 2
    assert "this run is finished, with 7 trials" in capsys.readouterr().err


def test_a_finished_study_goes_on_to_more_trials_as_if_they_had_been_asked_for_at_once(
    toy, tmp_path, capsys, blank_pictures
):
    asked = ["--target", str(toy), "--trials"]
    _, whole = tune(tmp_path / "whole" / "runs", *asked, "6")
    _, folder = tune(tmp_path / "runs", *asked, "3")
    assert len(report(folder)["trials"]) == 3
    code, _ = tune(tmp_path / "runs", "--resume", "latest", "--trials", "6", settings=[])
    assert code == 0, capsys.readouterr().err
    assert result(folder) == result(whole)
    looks = report(folder)["evidence"]
    assert looks["earlier_looks"] == looks["earlier_subjects"] <= 1  # unless the best is the same
    code, _ = tune(tmp_path / "runs", "--resume", "latest", "--trials", "4", settings=[])
    assert code == 2
    assert "ask for more: --trials 12" in capsys.readouterr().err


def test_a_damaged_study_goes_on_with_its_copy_and_other_code_or_settings_are_refused(
    toy, tmp_path, capsys, monkeypatch, blank_pictures
):
    asked = ["--target", str(toy), "--trials"]
    _, whole = tune(tmp_path / "whole" / "runs", *asked, "5")
    runs = tmp_path / "runs"
    _, folder = tune(runs, *asked, "3")
    (folder / "study.sqlite").write_bytes((folder / "study.sqlite").read_bytes()[:5000])
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(tuning_run, "code_version", lambda: {"sources": "edited"})
        code, _ = tune(runs, "--resume", "latest", "--trials", "5", settings=[])
        assert code == 2
        assert "--resume-changed goes on all the same" in capsys.readouterr().err
        code, _ = tune(runs, "--resume", "latest", "--trials", "4", "--resume-changed", settings=[])
        said = capsys.readouterr()
        assert code == 0, said.err
        assert json.loads((folder / "changes.json").read_text())[0]["after"] == "edited"
        code, _ = tune(runs, "--resume", "latest", "--trials", "5", settings=[])  # it is the code now
        assert code == 0
    assert "the study is damaged" in said.out
    assert "going on with its copy, which holds 3 trials" in said.out
    assert result(folder) == result(whole)
    for name in ("study.sqlite", "study-copy.sqlite"):
        (folder / name).write_bytes(b"")
    code, _ = tune(runs, "--resume", "latest", "--trials", "9", "--resume-changed", settings=[])
    assert code == 2
    assert "and so is its copy study-copy.sqlite (it is empty); start the run anew" in capsys.readouterr().err
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("\nseed: 7\n", "\nseed: 8\n"))
    code, _ = tune(runs, "--resume", "latest", "--trials", "9", settings=[])
    assert code == 2
    assert "cannot go on bit for bit" in capsys.readouterr().err


def altered_after(bars, row):
    """The same bars, with another price path from a row on."""
    values = bars.values.copy()
    tilt = np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.02, len(bars) - row)))
    values[row:, :4] *= tilt[:, None]
    return replace(bars, values=values)


def trials_on(bars, toy, monkeypatch, tmp_path, name):
    chosen = select_bars(config().market)
    with monkeypatch.context() as patch:
        patch.setattr(tuning_run, "select_bars", lambda market: replace(chosen, bars=bars))
        code, folder = tune(tmp_path / name, "--target", str(toy), "--trials", "3")
    assert code == 0
    return report(folder)


def test_other_prices_in_the_held_out_spans_change_no_trial(toy, tmp_path, monkeypatch, blank_pictures):
    bars = select_bars(config().market).bars
    first = held_out_from(bars, config().schedule, 1)
    plain, other = (
        trials_on(one, toy, monkeypatch, tmp_path, name)
        for name, one in (("plain", bars), ("other", altered_after(bars, first)))
    )
    for part in ("trials", "defaults", "best", "importances", "study"):
        assert plain[part] == other[part]
    assert plain["held_out"]["figures"] != other["held_out"]["figures"]
    # The control: a search that is given the bars as they are sees the difference.
    cut, folds = tuning_run.held_out_from, tuning_run.held_out_folds
    monkeypatch.setattr(tuning_run, "held_out_from", lambda *given: cut(*given) + 400)
    monkeypatch.setattr(tuning_run, "held_out_folds", lambda *given: folds(*given[:2], given[2] - 400))
    plain, other = (
        trials_on(one, toy, monkeypatch, tmp_path, name)
        for name, one in (("plain again", bars), ("other again", altered_after(bars, first)))
    )
    assert plain["trials"] != other["trials"]


@pytest.fixture(scope="module")
def ground():
    settings = config()
    return prepare(select_bars(settings.market).bars, settings.dataset())


def fold_of(ground, tilt, rows=slice(1500, 2200)):
    """A fold whose answers lean by as much as told to what will come true or, negative, against it."""
    truth = ground.labels.value[rows]
    answers = np.column_stack([0.34 - tilt * truth / 2, np.full(truth.size, 0.32), 0.34 + tilt * truth / 2])
    fitted = type("Fitted", (), {"prior": None})()
    return Fold(
        0, rows, 0, {"toy": answers}, {"toy": with_thresholds(answers, None, (0.0, 0.0))}, {}, {}, fitted
    )


def test_the_objective_is_f1_less_the_drawdown_that_is_not_tolerated(ground):
    settings = config("objective.drawdown_weight=0.5", "objective.drawdown_tolerated=0.05")
    good, bad = (score(ground, fold_of(ground, tilt), (0.0, 0.0), settings) for tilt in (0.2, -0.2))
    assert good.f1_macro > bad.f1_macro
    assert good.net_return > 0.0 > bad.net_return
    assert bad.drawdown > 0.3
    for one in (good, bad):
        assert one.drawdown == -max_drawdown(one.returns)
        assert one.value == one.f1_macro - 0.5 * max(0.0, one.drawdown - 0.05)
    free = score(ground, fold_of(ground, -0.2), (0.0, 0.0), config("objective.drawdown_weight=0"))
    assert free.value == bad.f1_macro


def test_a_signal_is_held_for_the_horizon_pays_costs_and_needs_no_later_bar(ground):
    rows = slice(1500, 1600)
    decision = np.ones(100, np.int8)
    decision[10] = 2
    result = traded(ground, decision, rows, config("limits.stop=null"))
    exposure = result.curve.column("exposure")
    assert ground.labels.horizon == 4
    assert (exposure[:11] == 0.0).all()  # decided at the close, filled at the next open
    np.testing.assert_allclose(exposure[11:15], 0.25, rtol=0.05)
    assert (exposure[15:] == 0.0).all()
    assert len(result.trades) == 1
    assert result.trades["fees"][0] > 0.0
    assert (traded(ground, np.ones(100, np.int8), rows, config()).curve.column("net_return") == 0.0).all()


def test_thresholds_turn_what_is_unlikely_into_no_signal_and_that_matters(ground):
    answers = np.array([[0.5, 0.2, 0.3], [0.3, 0.2, 0.5], [0.4, 0.25, 0.35], [np.nan] * 3])
    np.testing.assert_array_equal(with_thresholds(answers, None, (0.0, 0.0)), [0, 2, 0, 1])
    np.testing.assert_array_equal(with_thresholds(answers, None, (0.1, 0.0)), [0, 2, 1, 1])
    np.testing.assert_array_equal(with_thresholds(answers, None, (0.0, 0.2)), [0, 1, 0, 1])
    prior = np.array([0.45, 0.2, 0.35])  # rare or frequent in general: what counts is the distance from it
    np.testing.assert_array_equal(with_thresholds(answers, prior, (0.1, 0.1)), [1, 2, 1, 1])
    fold = fold_of(ground, -0.02)  # weakly wrong throughout
    plain, careful = (score(ground, fold, (one, one), config()) for one in (0.0, 0.1))
    assert plain.signals > 0.5
    assert careful.signals == 0.0
    assert careful.drawdown == 0.0 < plain.drawdown
    assert careful.value > plain.value


@given(st.integers(0, 10_000), st.floats(0.0, 0.3), st.floats(0.0, 0.3))
@settings(max_examples=40, deadline=None)
def test_a_higher_threshold_never_adds_a_signal_or_turns_one_around(seed, low, more):
    answers = np.random.default_rng(seed).dirichlet((2.0, 2.0, 2.0), 50)
    some = with_thresholds(answers, None, (low, low))
    fewer = with_thresholds(answers, None, (low + more, low + more))
    assert ((fewer == some) | (fewer == 1)).all()
    assert (some[fewer != 1] == fewer[fewer != 1]).all()


def test_what_is_held_out_is_known_from_times_alone_and_something_must_be_left():
    bars = select_bars(config().market).bars
    first = held_out_from(bars, config().schedule, 1)
    assert held_out_from(altered_after(bars, 0), config().schedule, 1) == first
    assert held_out_from(bars, config().schedule, 2) < first
    with pytest.raises(DataError, match="gives 4 folds after 1 months of training, and 4 are held out"):
        held_out_from(bars, config().schedule, 4)


def test_spans_of_bars_are_held_out_and_searched_on_the_same_edges(ground):
    schedule = config().schedule.model_copy(update={"span": "quarter", "every_bars": 700, "train_bars": 1000})
    first = held_out_from(ground.bars, schedule, 2)
    assert first == 2400
    whole = folds_of(ground, schedule)
    assert [split.test for split in whole] == [
        slice(1000, 1700), slice(1700, 2400), slice(2400, 3100), slice(3100, 3600),
    ]  # fmt: skip
    # What is searched ends where the held-out spans begin, and these are the rest.
    cut = prepare(ground.bars[:first], config().dataset())
    assert [split.test for split in folds_of(cut, schedule)] == [split.test for split in whole[:2]]
    assert held_out_folds(ground, schedule, first) == ((2, whole[2]), (3, whole[3]))
    with pytest.raises(DataError, match="gives 4 folds after 1,000 bars of training, and 4 are held out"):
        held_out_from(ground.bars, schedule, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "ga.evolve"], "--target ga.evolve: cannot be tuned; it must be forecasters.<name>"),
        (["--target", "xgboost"], "--target xgboost: cannot be tuned"),
        (["--target", "forecasters.xgbost"], "no forecaster named 'xgbost'; did you mean xgboost?"),
        (["--target", "forecasters.majority"], "forecaster majority has no section search"),
        (["--target", "nowhere.yaml"], "nowhere.yaml"),
        (["--target", "forecasters.logistic", "--set", "space.penlty=[1]"], "did you mean penalty?"),
        (
            ["--target", "forecasters.logistic", "--set", "space.penalty={low: -1, high: 2}"],
            "cannot be tried",
        ),
        (["--target", "forecasters.logistic", "--set", "model.penalty=3"], "nothing is left to try"),
        (["--target", "forecasters.logistic", "--trials", "0"], "--trials: trials is 0"),
        (["--target", "forecasters.logistic", "--pruner", "never"], "'median', 'hyperband' or 'none'"),
        (["--target", "forecasters.logistic", "--hold-out", "9"], "and 9 are held out"),
        (
            ["--target", "forecasters.logistic", "--set", "objective.thresholds={low: 0.5, high: 2.0}"],
            "between 0",
        ),
        (["--resume", "latest"], "holds no tuning to resume"),
        (["--resume-changed"], "--resume-changed was given without --resume"),
        (["--resume", "latest", "--hold-out", "2"], "--hold-out was given with --resume"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_a_sentence_and_leaves_nothing(tmp_path, capsys, arguments, sentence):
    code, _ = tune(tmp_path / "runs", *arguments, settings=[] if "--resume" in arguments else TINY)
    said = capsys.readouterr()
    assert code == 2
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_without_optuna_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, folder = tune(tmp_path / "runs", "--target", "forecasters.logistic")
    assert (code, folder) == (2, None)
    assert "pip install 'regime-conductor[studies]'" in capsys.readouterr().err


def test_a_setting_that_is_given_is_not_tried_and_a_space_that_is_given_goes_first():
    given = config("model.max_depth=5", "space.subsample=[0.7, 0.9]", "target=forecasters.xgboost")
    whole = tuning_run.completed(given)
    assert whole.model.settings["max_depth"] == 5
    assert "max_depth" not in whole.space
    assert whole.space["subsample"].choices == (0.7, 0.9)
    assert whole.space["learning_rate"].text() == "0.01 to 0.2 (log)"
    assert tuning_run.completed(whole) == whole  # as a stored config is read again
    assert given.digest() == given.model_copy(update={"trials": 9, "runs": "elsewhere"}).digest()
    assert given.digest() != given.model_copy(update={"hold_out": 2}).digest()


RANGES = {  # of common practice
    "xgboost": {
        "max_depth": (3, 9), "learning_rate": (0.01, 0.2), "subsample": (0.6, 1.0), "columns": (0.5, 1.0),
        "min_child_weight": (1.0, 10.0),
    },
    "lstm": {"hidden": (64, 256), "layers": (1, 3), "dropout": (0.0, 0.3), "lookback": (32, 64)},
    "gru": {"hidden": (64, 256), "layers": (1, 3), "dropout": (0.0, 0.3), "lookback": (32, 64)},
    "transformer": {"d_model": (64, 256), "layers": (2, 4), "feed_forward": (128, 512)},
}  # fmt: skip


def test_the_spaces_are_those_of_common_practice_and_every_value_of_them_will_do():
    tuned = []
    for name in FORECASTERS.names():
        if "search" not in plugin_document(name)[0]:
            with pytest.raises(ConfigError, match="has no section search"):
                search_space(name)
            continue
        space = search_space(name)
        tuned.append(name)
        model = plugin_config(name)
        assert not model.settings.keys() & {"search", "thresholds"}
        check_space(model, space)
        draw = np.random.default_rng(7)
        for _ in range(40):  # settings that depend on each other: heads divide d_model, patches fit
            some = {
                key: one.ends()[draw.integers(len(one.ends()))]
                if one.step is None
                else one.nearest(draw.uniform(one.low, one.high))
                for key, one in space.items()
            }
            new_forecaster(PluginConfig(name=name, **(model.settings | some)))
        for key, ends in RANGES.get(name, {}).items():
            assert space[key].ends() == ends
    assert {"xgboost", "lightgbm", "catboost", "logistic", "random_forest", "svm"} <= set(tuned)
    if "transformer" in tuned:
        assert search_space("transformer")["heads"].choices == (2, 4, 8)


def test_the_packaged_settings_are_those_of_training_but_for_the_folds():
    tuned, trained = load(TuneConfig, "tune.yaml"), load(ForecastConfig, "forecast.yaml")
    assert tuned.trials == 150
    for name in ForecastConfig.model_fields:
        if name == "schedule":
            assert tuned.schedule.model_copy(update={"latest": None}) == trained.schedule
        elif name != "model":
            assert getattr(tuned, name) == getattr(trained, name), name

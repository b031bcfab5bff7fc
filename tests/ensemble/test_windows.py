"""Windows of so many bars, cut by shares: folds, the forecasters trained beside them, the whole command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from configs.load import ConfigError, dump, load
from ensemble import running
from ensemble.folds import folds_of
from ensemble.rerun import smaller
from ensemble.settings import ValidateConfig
from forecasters.training import Ground
from forecasters.training import folds_of as trainings_of
from market.table import DataError, Table
from tests.ensemble.test_validate_command import TINY, results, validate
from tests.unpainted import unpainted

#: Windows of 3,500 bars to learn from, 500 for the blender and 1,000 for the test; the last has 600 of these.
WINDOWS = [
    *(one for one in TINY if not one.startswith(("folds.span", "folds.train", "folds.validation"))),
    "folds.window_bars=5000", "folds.shares=[0.7,0.1,0.2]", "market.synthetic.n_bars=6600",
]  # fmt: skip
MEMBER = "forecasters=[{name: logistic, label: {horizon: 4h}, span: year, train_spans: 9}]"


def config_of(*more):
    return load(ValidateConfig, "validate.yaml", ["forecasters=[{name: logistic}]", *more])


# --- folds -------------------------------------------------------------------------------------------


def test_two_years_of_hours_are_cut_into_70_15_15(make_bars):
    bars = make_bars(24_000)
    found = folds_of(bars, 100, config_of("folds.window_bars=17520"))
    assert [split.test for split in found] == [
        slice(14_892, 17_520), slice(17_520, 20_148), slice(20_148, 22_776), slice(22_776, 24_000),
    ]  # fmt: skip
    assert found[0].train == slice(100, 12_264 - 288)  # the features' first rows teach nothing
    assert found[0].validation == slice(12_264, 14_892 - 288)
    assert found[1].train == slice(100, 12_264 + 2_628 - 288)
    rolling = folds_of(bars, 100, config_of("folds.window_bars=17520", "folds.expanding=false"))
    assert [split.train.start for split in rolling] == [100, 2_628, 5_256, 7_884]
    assert [replace(split, train=one.train) for split, one in zip(rolling, found, strict=True)] == list(found)


def test_start_and_latest_choose_among_windows(make_bars):
    bars = make_bars(24_000)
    whole = folds_of(bars, 100, config_of("folds.window_bars=17520"))
    assert folds_of(bars, 100, config_of("folds.window_bars=17520", "folds.latest=2")) == whole[-2:]
    day = np.datetime64(int(bars.time[whole[1].test.start]), "ns").astype("datetime64[D]")
    later = config_of("folds.window_bars=17520", f"folds.start={day + 1}")
    assert folds_of(bars, 100, later) == whole[2:]
    with pytest.raises(ConfigError, match="no fold of BTC/USDT 1h is tested after that"):
        folds_of(bars, 100, config_of("folds.window_bars=17520", "folds.start=2031-01-01"))
    with pytest.raises(
        DataError, match="14000 bars give no fold; of a window of 17520 bars 14892 lie before"
    ):
        folds_of(bars[:14_000], 100, config_of("folds.window_bars=17520"))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("folds.shares=[0.7,0.2,0.2]",), "together they must be 1"),
        (("folds.shares=[0.7,0.4,-0.1]",), r"folds\.shares\.2 is -0\.1; it should be greater than 0"),
        (("folds.shares=[0.7,0.3]",), r"folds\.shares\.2 is missing"),
        (("folds.shares=[0.85,0.15,0]",), r"folds\.shares\.2 is 0; it should be greater than 0"),
        (("folds.window_bars=2",), r"folds\.window_bars is 2; it should be greater than or equal to 3"),
        (("folds.window_bars=true",), r"folds\.window_bars is True; it must be a number"),
        (("folds.window_bars=3",), r"folds: test has no rows: 0\.15 of a window of 3 bars"),
        (("folds.window_bars=null", "folds.shares=[0.6,0.2,0.2]"), "shares cut windows, and window_bars"),
        (("folds.span=month",), "folds: span is month and window_bars 500; .* must be left at quarter"),
        (("folds.train_spans=4",), "train_spans is 4 and window_bars 500; .* must be left at 3"),
        (("folds.validation_spans=1",), "validation_spans is 1 and window_bars 500; .* must be left at 2"),
    ],
)  # fmt: skip
def test_settings_of_windows_that_cannot_be_are_one_sentence(more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_of("folds.window_bars=500", *more)


def test_settings_of_windows_come_back_from_their_file(tmp_path):
    chosen = config_of("folds.window_bars=500", "folds.shares=[0.5,0.3,0.2]")
    dump(chosen, tmp_path / "config.yaml")
    assert load(ValidateConfig, tmp_path / "config.yaml") == chosen
    assert chosen.digest() != config_of("folds.window_bars=500").digest() != config_of().digest()


def test_what_a_fold_is_tested_on_is_said_in_words():
    assert config_of().folds.tested_on() == "a quarter"
    assert config_of("folds.window_bars=17520").folds.tested_on() == (
        "2,628 bars (windows of 17,520 bars, cut 70/15/15, each learning from the first bar on)"
    )
    rolling = config_of("folds.window_bars=1000", "folds.shares=[0.625,0.25,0.125]", "folds.expanding=false")
    assert rolling.folds.tested_on() == (
        "125 bars (windows of 1,000 bars, cut 62.5/25/12.5, each learning from its own bars alone)"
    )


def test_shuffled_markets_are_searched_in_the_same_windows(make_bars):
    chosen, bars = config_of("folds.window_bars=500", "folds.embargo_bars=4"), make_bars(900)
    found = smaller(chosen)
    assert folds_of(bars, 10, found) == folds_of(bars, 10, chosen)
    assert len(folds_of(bars, 10, found)) == 7


# --- forecasters beside them -------------------------------------------------------------------------


def beside(config, bars):
    """Return the folds, and the trainings of the only forecaster."""
    member = config.forecasters[0]
    features = Table(bars.time, np.zeros((len(bars), 1)), ("nothing",))
    ground = Ground(bars, features, member.label.labels(bars), "")
    return folds_of(bars, 0, config), trainings_of(ground, config.forecast(member, 0).schedule), ground.labels


def require_one_past_model(folds, trainings, labels, embargo):
    """Stop unless each row that is judged has an answer of the past, and all rows of a test of one model."""

    def of(row):
        (found,) = [one for one in trainings if one.test.start <= row < one.test.stop]
        return found

    for split in folds:
        own = of(split.test.start)
        # The model that the strategy of the fold holds, and it is as fresh as can be.
        assert (own.test.start, own.test.stop) == (split.test.start, split.test.stop)
        for rows in (split.validation, split.test):
            for row in range(rows.start, rows.stop):
                model = of(row)
                assert model.train.stop + embargo <= model.test.start <= row
                assert labels.settled_at[model.train].max() < labels.time[model.test.start]
                assert rows is split.validation or model is own


@pytest.fixture(scope="module")
def history(make_bars):
    return make_bars(600, seed=3)


@given(
    n=st.integers(60, 600),
    window=st.integers(50, 400),
    weights=st.tuples(st.integers(3, 10), st.integers(1, 5), st.integers(1, 5)),
    embargo=st.integers(2, 10),
    horizon=st.integers(1, 12),
    expanding=st.booleans(),
)
@examples(max_examples=60, deadline=None)
def test_every_judged_row_is_answered_by_a_model_of_the_past_and_a_test_by_one(
    history, n, window, weights, embargo, horizon, expanding
):
    shares = [weight / sum(weights) for weight in weights]
    try:
        config = config_of(
            f"folds.window_bars={window}", f"folds.shares={shares}", f"folds.embargo_bars={embargo}",
            f"folds.expanding={str(expanding).lower()}",
            f"forecasters=[{{name: logistic, label: {{kind: return, horizon: {horizon}h}}}}]",
        )  # fmt: skip
        found = beside(config, history[:n])
    except (ConfigError, DataError) as error:
        if not any(text in str(error) for text in ("give no fold", "rows are left", "less than one")):
            raise
        return
    require_one_past_model(*found, embargo)


@pytest.mark.parametrize("bug", ["one length for all", "trained a test late", "label in the test"])
def test_forecasters_on_other_edges_than_the_folds_are_caught(history, bug):
    config = config_of(
        "folds.window_bars=300", "folds.shares=[0.6,0.1,0.3]", "folds.embargo_bars=4",
        "forecasters=[{name: logistic, label: {kind: return, horizon: 6h}}]",
    )  # fmt: skip
    folds, trainings, labels = beside(config, history)
    require_one_past_model(folds, trainings, labels, 4)
    schedule = config.forecast(config.forecasters[0], 0).schedule
    if bug == "one length for all":
        trainings = schedule.model_copy(update={"first_bars": None}).splits(labels.time, labels.settled_at, 4)
    elif bug == "trained a test late":
        trainings = schedule.model_copy(update={"train_bars": 270, "first_bars": 90}).splits(
            labels.time, labels.settled_at, 4
        )
    else:
        trainings = schedule.splits(labels.time, None, 4)  # nothing is purged
    with pytest.raises((AssertionError, ValueError)):
        require_one_past_model(folds, trainings, labels, 4)


# --- the whole command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, and the out-of-fold answers it worked with."""
    kept = []
    train = running.train_forecasters
    with unpainted(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "train_forecasters", lambda *given: kept.append(train(*given)) or kept[-1])
        code, folder = validate(tmp_path_factory.mktemp("windows") / "runs", settings=[*WINDOWS, MEMBER])
    assert code == 0
    return folder, kept[0][0]


def test_the_report_says_windows_and_its_folds_are_those(finished):
    folder, _ = finished
    found = json.loads((folder / "report.json").read_text())
    said = "1,000 bars (windows of 5,000 bars, cut 70/10/20, each learning from the first bar on)"
    assert found["data"]["tested_on"] == said
    opening = f"in 2 folds, each fitted on its past alone and tested on {said}. Blender route."
    assert opening in (folder / "report.md").read_text()
    assert opening in (folder / "validation.html").read_text()
    assert "quarter" not in (folder / "report.md").read_text()
    assert [fold["test"] for fold in found["folds"]] == [[5000, 6000], [6000, 6600]]
    assert [fold["validation"] for fold in found["folds"]] == [[4500, 4976], [5500, 5976]]
    assert [fold["learn"][1] for fold in found["folds"]] == [4476, 5476]
    assert found["data"]["test_bars"] == 1600


def test_each_test_is_answered_by_the_one_model_that_was_trained_before_it(finished):
    folder, forecast = finished
    answered = [rows for rows, _ in forecast.spans]
    assert answered == [slice(3500, 4000), slice(4000, 5000), slice(5000, 6000), slice(6000, 6600)]
    assert not np.isnan(forecast.answers[3500:, 0]).any()
    for fold in json.loads((folder / "report.json").read_text())["folds"]:
        places = {forecast.model_of(row) for row in range(*fold["test"])}
        assert len(places) == 1
        through = int(forecast.trained_through[fold["test"][0]])
        assert through == fold["members"]["logistic_4h"]["fitted_until"] <= fold["fitted_until"]


def test_a_killed_validation_of_windows_ends_in_the_same_bytes(
    finished, tmp_path, monkeypatch, capsys, blank_pictures
):
    fit, calls = running.FoldJob.__call__, []

    def dying(self, number):
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, number)

    monkeypatch.setattr(running.FoldJob, "__call__", dying)
    code, folder = validate(tmp_path / "runs", "--workers", "serial", settings=[*WINDOWS, MEMBER])
    assert code != 0
    said = capsys.readouterr().out
    assert "2 folds, each tested on 1,000 bars (windows of 5,000 bars, cut 70/10/20" in said
    assert not (folder / "report.json").exists()
    monkeypatch.undo()
    code, again = validate(tmp_path / "runs", "--resume", "latest", settings=())
    assert (code, again) == (0, folder)
    assert "Going on after 1 of 2 folds" in capsys.readouterr().out
    assert results(folder) == results(finished[0])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("folds.shares=[0.7,0.2,0.2]",), "folds: shares are 0.7, 0.2, 0.2; training and test need"),
        (("folds.shares=[0.9,0.3,-0.2]",), "folds.shares.2 is -0.2; it should be greater than 0"),
        (("folds.span=month",), "folds: span is month and window_bars 5000; windows know no calendar"),
        (("folds.window_bars=9000",), "windows: 6600 bars give no fold; of a window of 9000 bars 7200"),
        (("folds.embargo_bars=600",), "no validation rows are left before"),
    ],
)  # fmt: skip
def test_windows_that_cannot_be_leave_one_sentence_and_no_run(more, sentence, tmp_path, capsys):
    code, folder = validate(tmp_path / "runs", settings=[*WINDOWS, MEMBER, *more])
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert "Traceback" not in said
    assert folder is None

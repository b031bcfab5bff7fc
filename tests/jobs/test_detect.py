"""The whole command ``python -m regimes.detect``: what it prints, keeps and refuses."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs.load import Config, ConfigError
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes import detecting
from regimes.detect import main
from regimes.detector import DETECTORS, load_detector
from regimes.path import PathFilter
from regimes.regime import REGIME_NAMES

N = 5000
SMALL = ["--set", f"market.synthetic.n_bars={N}", "--set", "measures.n_paths=99"]
RULE = [*SMALL, "--detector", "volatility"]
PICTURES = {"price", "probabilities", "transitions", "dwell", "reliability"}


def detect(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return exit_.value.code


@pytest.fixture
def small_run(tmp_path, capsys):
    def start(*arguments):
        before = set((tmp_path / "runs").glob("*"))
        assert detect("--runs", str(tmp_path / "runs"), *arguments) == 0
        (folder,) = set((tmp_path / "runs").iterdir()) - before
        return folder, capsys.readouterr()

    return start


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The folder of one run with its pictures, and what it has printed."""
    runs = tmp_path_factory.mktemp("default") / "runs"
    with redirect_stdout(io.StringIO()) as printed:
        assert detect("--runs", str(runs), *RULE) == 0
    (folder,) = runs.iterdir()
    return folder, printed.getvalue()


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without their pictures, which take seconds and hold no numbers of their own."""
    monkeypatch.setattr(detecting, "_draw", lambda *arguments: {})


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_a_run_prints_the_held_out_figures_and_keeps_everything_it_claims(default_run):
    folder, printed = default_run
    text = " ".join(printed.split())
    report = report_of(folder)
    held_out = report["detectors"]["volatility"]["held_out"]
    assert "SYNTHETIC market (seed 7), not real prices" in text
    assert f"volatility, {held_out['bars']:,} held-out bars" in text
    for word in (*REGIME_NAMES, "Embargo 96 bars", "switches per year", "calibration error", "bar oracle"):
        assert word in text
    assert f"{held_out['log_likelihood']['gain']:+.3f} against no regimes" in text
    assert f"{report['detectors']['volatility']['truth']['path']['balanced_accuracy']:.3f}" in text
    assert folder.name in text.replace(" ", "")
    assert {path.stem for path in (folder / "plots").iterdir()} == PICTURES
    for path in (folder / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    page = (folder / "regimes.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(PICTURES)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["bars"] == report["data"]["fingerprint"]
    assert manifest["rows"] == report["rows"]
    assert manifest["seeds"] == {"root": 7}


def test_the_rows_that_are_kept_are_those_of_the_detector_that_is_kept(default_run):
    folder, _ = default_run
    rows = pq.read_table(folder / "predictions" / "volatility.parquet")
    assert rows.column_names == ["time", *REGIME_NAMES, "label", "confidence", "sample"]
    bars = synthetic_market(SyntheticConfig(n_bars=N)).bars
    np.testing.assert_array_equal(rows["time"].cast("int64").to_numpy(), bars.time)
    detector = load_detector(folder / "checkpoints" / "volatility")
    features = transform(FeaturePipeline(FeaturesConfig(names=detector.columns)), bars)
    probabilities = transform(detector, features)
    for name in REGIME_NAMES:
        np.testing.assert_array_equal(rows[name].to_numpy(), probabilities.column(name))
    path = transform(PathFilter(), probabilities)
    for name in ("label", "confidence"):
        np.testing.assert_array_equal(rows[name].to_numpy(), path.column(name))
    sample = np.array(rows["sample"].to_pylist())
    train, test = (slice(*report_of(folder)["rows"][name]) for name in ("in_sample", "held_out"))
    assert set(sample[train]) == {"in sample"}
    assert set(sample[test]) == {"held out"}
    assert (sample == "unused").sum() == N - (sample[train].size + sample[test].size)
    assert detector.fitted_until == bars.time[train.stop - 1] < bars.time[test.start]


def test_json_is_all_that_reaches_standard_output(small_run, undrawn):
    folder, printed = small_run(*RULE, "--json", "--seed", "11")
    report = json.loads(printed.out)
    assert report == report_of(folder)
    assert report["seed"] == 11
    assert report["detector"] == "volatility"
    assert "SYNTHETIC" in printed.err


def untimed(report):
    """A report without what differs between runs: the folder, and what the clock said."""
    kept = {key: value for key, value in report.items() if key not in ("run", "wall_seconds")}
    for one in kept["detectors"].values():
        for key in ("fit_seconds", "microseconds_per_bar"):
            one.pop(key)
    return kept


def test_a_written_config_repeats_the_run_to_the_same_figures(small_run, undrawn, default_run):
    first, _ = small_run(*RULE, "--seed", "5")
    second, _ = small_run("--config", str(first / "config.yaml"))
    other, _ = default_run
    assert untimed(report_of(first)) == untimed(report_of(second))
    name = "predictions/volatility.parquet"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    orders = [report_of(folder)["detectors"]["volatility"]["order"] for folder in (first, other)]
    assert orders[0] != orders[1]  # control: the seed is that of the bootstrap


class Absent:
    """A detector whose library is not installed."""

    columns = ("range_1",)

    class Config(Config):
        """No settings."""

    def __init__(self, config):
        self.config = config

    def fit(self, features):
        raise ConfigError("detector absent needs the package nowhere; install it with: pip install nowhere")


class Unimportable(Absent):
    """One that does not even explain itself."""

    def fit(self, features):
        raise ImportError("No module named 'nowhere'")


@pytest.fixture
def few_detectors(monkeypatch):
    """The rule, and two that cannot run, in place of everything that is registered."""
    DETECTORS.names()  # now they are all there
    plugins = {"volatility": DETECTORS.get("volatility"), "absent": Absent, "unimportable": Unimportable}
    monkeypatch.setattr(DETECTORS, "_plugins", plugins)


def test_a_comparison_tells_what_could_not_run_and_why(small_run, undrawn, few_detectors):
    folder, printed = small_run(*RULE, "--compare")
    report = report_of(folder)
    assert list(report["detectors"]) == ["volatility"]
    assert "pip install nowhere" in report["unavailable"]["absent"]
    assert report["unavailable"]["unimportable"] == "No module named 'nowhere'"
    assert "! absent could not run: detector absent needs the package nowhere" in " ".join(
        printed.out.split()
    )
    assert "pip install nowhere" in (folder / "regimes.html").read_text(encoding="utf-8")


def test_the_detector_that_was_asked_for_must_run(few_detectors, capsys, tmp_path):
    runs = tmp_path / "runs"
    assert detect("--runs", str(runs), *SMALL, "--detector", "absent", "--compare") == 2
    assert "error: detector absent needs the package nowhere" in capsys.readouterr().err
    assert not runs.exists()


@pytest.mark.slow
def test_a_comparison_measures_every_registered_detector_on_the_same_rows(small_run, blank_pictures):
    folder, printed = small_run(*RULE, "--compare")
    report = report_of(folder)
    assert folder.name.startswith("detect-all_")
    assert {*report["detectors"], *report["unavailable"]} == set(DETECTORS.names())
    assert {"volatility", "hmm", "markov_ar"} <= set(report["detectors"])
    assert next(iter(report["detectors"])) == "volatility"
    bars = {one["held_out"]["bars"] for one in (report["detectors"] | report["oracles"]).values()}
    assert len(bars) == 1
    assert {path.stem for path in (folder / "plots").iterdir()} == PICTURES | {"detectors"}
    text = " ".join(printed.out.split())
    page = (folder / "regimes.html").read_text(encoding="utf-8")
    for name in report["detectors"]:
        assert f"{name}, {bars.copy().pop():,} held-out bars" in text
        assert f'id="regimes-{name}"' in page or name == "volatility"
        assert load_detector(folder / "checkpoints" / name).fitted_until is not None
        assert pq.read_table(folder / "predictions" / f"{name}.parquet").num_rows == N
        assert report["agreement"][name][name] == 1.0


@pytest.fixture
def bitcoin(shared_data):
    return str(shared_data / "ohlcv" / "btcusdt_binance_spot_1h.parquet")


def test_on_real_bars_confidence_is_held_against_the_later_label(small_run, bitcoin, blank_pictures):
    folder, printed = small_run(
        "--bars", bitcoin, "--timerange", "20180101-20181231", "--detector", "volatility",
        "--set", "measures.n_paths=99",
    )  # fmt: skip
    report = report_of(folder)
    assert not report["truth_known"]
    assert report["oracles"] == {}
    assert report["detectors"]["volatility"]["truth"] is None
    assert report["calibrated_against"] == "the own label 24 bars later"
    assert "the own label 24 bars later" in " ".join(printed.out.split())
    assert any("missing" in warning for warning in report["data"]["warnings"])
    assert report["data"]["label"] == "BTC/USDT 1h"
    assert "whether regimes persist" in (folder / "regimes.html").read_text(encoding="utf-8")


def test_a_time_range_of_the_synthetic_market_keeps_its_truth_and_its_oracles(small_run, undrawn):
    folder, _ = small_run(*RULE, "--timerange", "20170201-20170715")
    report = report_of(folder)
    assert report["data"]["bars"] == 164 * 24
    accuracy = report["oracles"]["bar oracle"]["truth"]["likeliest"]["balanced_accuracy"]
    assert accuracy > 0.8  # rows out of step with the truth would be guessing


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--detector", "hnm"], "error: no detector named 'hnm'; did you mean hmm?"),
        (["--detector", "hnm", "--compare"], "error: no detector named 'hnm'; did you mean hmm?"),
        (["--set", "detector.enter_sigma=many"], "detector volatility: enter_sigma is not a setting"),
        (["--bars", "nowhere.parquet"], "error: nowhere.parquet: no such file"),
        (["--set", "split.tran=0.5"], "split.tran is not a setting; did you mean train?"),
        (["--set", "split.train=1.5"], "split.train is 1.5; it should be less than 1"),
        (["--set", "market.synthetic.n_bars=900"], "900 bars are too few; features need"),
        (["--set", "split.embargo_bars=4500"], "5000 bars are too few; features need"),
        (["--timerange", "yesterday"], "timerange 'yesterday' must look like 20190101-20240630"),
        (["--symbol", "BTC/USDT"], "name the file with --bars"),
        (["--set", "path.threshold=0.1"], "path.threshold is 0.1"),
        (["--set", "measures.horizon_bars=1"], "measures.horizon_bars is 1"),
        (["--seed", "-1"], "seed is -1"),
        (["--config", "detekt.yaml"], "detekt.yaml: no such config file; did you mean detect.yaml?"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_leaves_no_run_behind(arguments, sentence, capsys, tmp_path):
    runs = tmp_path / "runs"
    assert detect("--runs", str(runs), *RULE, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not runs.exists()


def test_rows_that_teach_nothing_are_refused_by_the_detector(tmp_path, capsys):
    rows = ["timestamp,open,high,low,close,volume"]
    rows += [f"{1_600_000_000_000 + i * 3_600_000},100,100,100,100,5" for i in range(3000)]
    path = tmp_path / "FLATUSDT-1h.csv"
    path.write_text("\n".join(rows) + "\n")
    runs = tmp_path / "runs"
    for name, sentence in (
        ("volatility", "does not vary over the training rows"),
        ("markov_ar", "fitting needs at least 1000"),
    ):
        options = ("--bars", str(path), "--accept", "frozen", "--runs", str(runs), "--detector", name)
        assert detect(*options) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error
        assert not runs.exists()


def test_an_interrupted_run_leaves_nothing_behind(monkeypatch, tmp_path, capsys):
    def interrupt(self, features):
        raise KeyboardInterrupt

    monkeypatch.setattr(DETECTORS.get("volatility"), "fit", interrupt)
    assert detect("--runs", str(tmp_path / "runs"), *RULE) == 130
    assert not (tmp_path / "runs").exists()

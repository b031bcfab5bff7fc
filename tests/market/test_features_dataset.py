"""Data sets of features: quality figures against libraries, splits without leaks, files under their hash."""

import dataclasses
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from configs.load import ConfigError, load
from market.bars import OHLCV, Bars
from market.features import dataset_files
from market.features.__main__ import main
from market.features.dataset import Dataset, DatasetConfig, LabelConfig, build
from market.features.dataset_files import export, read_span
from market.features.exporting import findings
from market.features.feature import BUILT_ON, FEATURES
from market.features.quality import (
    TESTED_LAGS,
    TOO_GOOD,
    is_constant,
    measured,
    rank_correlation,
    stability_index,
    unit_root_p,
)
from market.scaling import Scaler
from market.table import DataError, Table
from tests.market.bars_factory import HOUR, random_bars

N = 4000
NAMES = ("return_24", "rsi_14", "hour_sin", "gap_1", "volatility_24")


@pytest.fixture(scope="module")
def bars():
    plain = random_bars(N, seed=12, gap=0.0)
    values = plain.values.copy()
    values[1:, 0] = values[:-1, 3]  # opens where it closed: gap_1 is constant
    values[:, 1] = values[:, :4].max(axis=1)
    values[:, 2] = values[:, :4].min(axis=1)
    return Bars(plain.time, values, OHLCV, "TEST/USD", HOUR)


def settings(*overrides):
    given = [f"features={{names: [{', '.join(NAMES)}]}}", "label.horizon=8h", "split.embargo_bars=48"]
    return load(DatasetConfig, "dataset.yaml", [*given, *overrides])


@pytest.fixture(scope="module")
def made(bars):
    return build(bars, settings())


# -- figures -----------------------------------------------------------------------------------------------


def test_the_stability_index_by_hand():
    reference = np.arange(1000.0)
    assert stability_index(reference, reference[::-1]) == pytest.approx(0.0, abs=1e-12)
    # Half of the values move from the lower five deciles into the upper five.
    moved = np.concatenate([reference[500:], reference[500:]])
    expected = 5 * (1e-4 - 0.1) * np.log(1e-4 / 0.1) + 5 * 0.1 * np.log(2.0)
    assert stability_index(reference, moved) == pytest.approx(expected, rel=0.02)


def test_the_stability_index_counts_single_values_where_there_are_few():
    reference, other = np.repeat([0.0, 1.0], [90, 10]), np.repeat([0.0, 1.0], [50, 50])
    expected = (0.5 - 0.9) * np.log(0.5 / 0.9) + (0.5 - 0.1) * np.log(0.5 / 0.1)
    assert stability_index(reference, other) == pytest.approx(expected)
    assert stability_index(np.zeros(50), np.zeros(50)) == 0.0
    assert stability_index(np.zeros(50), np.ones(50)) > 1.0
    assert stability_index(reference, np.append(other, [np.nan] * 7)) == pytest.approx(expected)
    assert np.isnan(stability_index(reference, np.array([np.nan])))


def test_the_unit_root_test_equals_that_of_statsmodels():
    from statsmodels.tsa.stattools import adfuller

    rng = np.random.default_rng(0)
    noise = rng.normal(size=3000)
    slow = np.zeros(3000)
    for t in range(1, 3000):
        slow[t] = 0.99 * slow[t - 1] + noise[t]
    found = []
    for values in (noise, slow, noise.cumsum()):
        found.append(unit_root_p(values))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)  # about its next release
            expected = adfuller(values, maxlag=TESTED_LAGS, autolag=None)[1]
        assert found[-1] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert found[0] < found[1] < 0.05 < found[2]


def test_the_unit_root_test_says_when_it_cannot_be_made(monkeypatch):
    assert unit_root_p(np.sin(np.arange(3000) * 2 * np.pi / 24)) is None
    assert unit_root_p(np.zeros(3000)) is None
    assert unit_root_p(np.arange(100.0) % 7) is None
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.adfvalues", None)
    assert unit_root_p(np.random.default_rng(0).normal(size=3000)) is None


def test_the_rank_correlation_equals_that_of_scipy():
    rng = np.random.default_rng(1)
    target = rng.normal(size=800)
    values = np.round(target + rng.normal(size=800), 1)  # with ties
    assert rank_correlation(values, target) == pytest.approx(spearmanr(values, target).statistic)
    holes = np.where(rng.random(800) < 0.2, np.nan, target)
    known = ~np.isnan(holes)
    expected = spearmanr(values[known], target[known]).statistic
    assert rank_correlation(values, holes) == pytest.approx(expected)
    assert rank_correlation(np.ones(800), target) is None


def test_what_varies_by_rounding_only_is_constant():
    assert is_constant(np.full(9, 0.1))
    assert is_constant(np.append(np.full(9, 1.0), 1 + 1e-15))
    assert is_constant(np.array([np.nan]))
    assert not is_constant(np.array([0.0, 1e-30]))


def figures_of(columns, target, known=None):
    n = len(target)
    table = Table(np.arange(n), np.column_stack(list(columns.values())), tuple(columns))
    spans = {"train": slice(0, n // 2), "validation": slice(n // 2, 3 * n // 4), "test": slice(3 * n // 4, n)}
    known = np.ones(n, bool) if known is None else known
    return {one.name: one for one in measured(table, spans, target, known)}


def test_a_column_that_has_seen_the_label_is_found_and_honest_ones_are_not_accused():
    rng = np.random.default_rng(2)
    target = rng.normal(size=4000)
    columns = {
        "leak": target + rng.normal(size=4000),
        "skill": 0.1 * target + rng.normal(size=4000),
        "noise": rng.normal(size=4000),
    }
    found = figures_of(columns, target)
    assert [name for name, one in found.items() if one.suspicious] == ["leak"]
    assert found["skill"].correlation_t > 3
    assert abs(found["noise"].correlation) < 0.06
    assert "leak" in " ".join(findings(list(found.values())))
    assert found["leak"].correlation > TOO_GOOD


def test_drift_and_gaps_are_found_where_they_are():
    rng = np.random.default_rng(3)
    drifting, holes = rng.normal(size=(2, 4000))
    drifting[3000:] += 1.5
    holes[2000:2100] = np.nan
    found = figures_of({"drifting": drifting, "holes": holes}, rng.normal(size=4000))
    assert found["drifting"].drift["validation"] < 0.05
    assert found["drifting"].drift["test"] > 0.25
    assert found["holes"].missing == {"train": 0.0, "validation": 0.1, "test": 0.0}
    text = " ".join(findings(list(found.values())))
    assert "1 of 2 columns drift much" in text
    assert "missing values: holes" in text


def test_the_labels_of_test_rows_are_not_looked_at():
    rng = np.random.default_rng(4)
    target, column = rng.normal(size=(2, 4000))
    before = figures_of({"x": column}, target)["x"]
    target[3000:] = column[3000:]
    assert figures_of({"x": column}, target)["x"] == before
    target[2000:3000] = column[2000:3000]
    assert figures_of({"x": column}, target)["x"] != before


def test_rows_without_a_label_do_not_count():
    rng = np.random.default_rng(5)
    target, column = rng.normal(size=(2, 4000))
    known = rng.random(4000) < 0.5
    spoiled = np.where(known, target, column)
    assert figures_of({"x": column}, spoiled, known)["x"] == figures_of({"x": column}, target, known)["x"]
    assert figures_of({"x": column}, spoiled)["x"].suspicious


# -- splits ------------------------------------------------------------------------------------------------


def test_spans_follow_in_time_and_no_training_label_reaches_the_next(made, bars):
    spans = list(made.spans.values())
    assert list(made.spans) == ["train", "validation", "test"]
    assert made.split.purge == 8
    for one, following in itertools.pairwise(spans):
        assert following.start - one.stop == 8 + 48
        known = made.labels.known[one]
        assert made.labels.known_at[one][known].max() < bars.time[following.start]
    # Negative control: without the purge labels would reach over.
    last = made.split.train.stop + 8 + 48 - 1
    assert made.labels.known_at[last] >= bars.time[made.split.validation.start]


def test_constant_columns_are_dropped_by_training_rows_alone(made, bars):
    assert made.constant == ("gap_1",)
    assert made.features.names == ("return_24", "rsi_14", "hour_sin", "volatility_24")
    values = bars.values.copy()
    row = made.split.test.start + 5
    values[row, 0] = values[row, 2]  # a gap in the test rows only
    again = build(Bars(bars.time, values, OHLCV, bars.symbol, HOUR), settings())
    assert again.constant == ("gap_1",)
    values[2000, 0] = values[2000, 2]
    assert build(Bars(bars.time, values, OHLCV, bars.symbol, HOUR), settings()).constant == ()


def test_labels_of_every_kind_can_be_asked_for(bars):
    for kind in ("triple_barrier", "direction", "return"):
        labels = LabelConfig(kind=kind, horizon="4h", band=0.001).labels(bars)
        assert labels.horizon == 4
        assert labels.name.startswith(kind)
    assert LabelConfig(horizon=20).labels(bars).horizon == 20


def test_another_future_changes_no_feature_of_the_training_rows(made, bars):
    values = bars.values.copy()
    values[made.split.test.start :, :4] *= 1.5
    again = build(Bars(bars.time, values, OHLCV, bars.symbol, HOUR), settings())
    rows = made.split.train
    np.testing.assert_array_equal(again.features.values[rows], made.features.values[rows])
    np.testing.assert_array_equal(again.labels.value[rows], made.labels.value[rows])
    assert again.version() != made.version()


def test_too_few_bars_are_one_sentence(bars):
    with pytest.raises(DataError, match=r"no training rows are left|validation has"):
        build(bars[:300], settings())
    with pytest.raises(ConfigError, match="together they must leave"):
        build(bars, settings("split.train=0.9", "split.validation=0.2"))


# -- joined tables -----------------------------------------------------------------------------------------


def write_bars(path, bars):
    import pyarrow as pa
    import pyarrow.parquet

    opens = pa.array(bars.time - bars.interval_ns, pa.timestamp("ns", tz="UTC"))
    columns = {"timestamp": opens} | {name: bars.column(name) for name in OHLCV}
    pyarrow.parquet.write_table(pa.table(columns), path)
    return str(path)


def test_peers_are_joined_from_their_files(tmp_path, bars):
    later = 20_000 * 24 * HOUR  # files of bars before 1980 are refused
    bars = dataclasses.replace(bars, time=bars.time + later)
    peer = dataclasses.replace(random_bars(N, seed=3), time=bars.time)
    path = write_bars(tmp_path / "ethusdt_1h.parquet", peer)
    found = build(bars, settings(f"peers={{eth: {path}}}"))
    assert "eth_beta_168" in found.features.names
    assert "eth_missing" in found.constant  # it never is
    slow = Bars(later + 4 * (peer.time - later), peer.values, OHLCV, "ETH/USD", 4 * HOUR)
    other = write_bars(tmp_path / "eth_4h.parquet", slow)
    with pytest.raises(ConfigError, match=r"peers\.eth: .* has bars of 4h; they must have 1h"):
        build(bars, settings(f"peers={{eth: {other}}}"))
    with pytest.raises(ConfigError, match="name these under peers"):
        build(bars, settings("features.peers=[eth]"))


def test_external_series_are_joined_from_their_registry(tmp_path, bars):
    import pyarrow as pa
    import pyarrow.parquet

    days = np.arange(0, N // 24) * 24 * HOUR
    values = 20.0 + np.random.default_rng(0).normal(size=days.size).cumsum()
    table = pa.table({"timestamp": pa.array(days, pa.timestamp("ns", tz="UTC")), "fear_points": values})
    pyarrow.parquet.write_table(table, tmp_path / "fear.parquet")
    series = "{fear_points: {unit: points, available: next-day, file: fear.parquet, max_age: 5d}}"
    found = build(bars, settings(f"external={{folder: {tmp_path}, series: {series}}}"))
    assert "fear_points_zscore_168" in found.features.names
    # Known a day later at the earliest: the age of a value never is below 24 hours.
    ages = np.expm1(found.features.column("fear_points_age")[found.split.train])
    assert ages.min() >= 24 - 1e-9


# -- files -------------------------------------------------------------------------------------------------


def test_what_is_written_reads_back_equal(tmp_path, made):
    import pandas as pd

    folder = export(made, made.quality(), tmp_path)
    assert folder.name == f"TEST-USD-1h-triple_barrier_8h-{made.version()}"
    for span, rows in made.spans.items():
        features, labels = read_span(folder, span)
        np.testing.assert_array_equal(features.values, made.features.values[rows])
        np.testing.assert_array_equal(features.time, made.features.time[rows])
        assert features.names == made.features.names
        np.testing.assert_array_equal(labels["label"], made.labels.value[rows])
        frame = pd.read_parquet(folder / f"{span}.parquet")
        np.testing.assert_array_equal(frame[list(made.features.names)].to_numpy(), features.values)
        np.testing.assert_array_equal(frame["time"].astype("int64"), features.time)
        np.testing.assert_array_equal(frame["ret"], labels["ret"])
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["version"] == made.version()
    assert manifest["dropped_constant"] == ["gap_1"]
    assert manifest["spans"]["train"]["rows"] == made.split.train.stop - made.split.train.start
    quality = json.loads((folder / "quality.json").read_text())
    assert [one["name"] for one in quality] == list(made.features.names)
    assert Scaler.load(folder / "scaler.json") == Scaler.fit(made.features[made.split.train])


def test_the_hash_tells_contents_apart(made):
    assert dataclasses.replace(made).version() == made.version()
    values = made.features.values.copy()
    values[made.split.test.stop - 1, 0] += 1e-12
    other = dataclasses.replace(made, features=dataclasses.replace(made.features, values=values))
    renamed = dataclasses.replace(made.features, names=("a", *made.features.names[1:]))
    versions = {
        made.version(),
        other.version(),
        dataclasses.replace(made, features=renamed).version(),
        dataclasses.replace(made, feature_version="0").version(),
    }
    assert len(versions) == 4


def test_an_export_that_is_there_is_left_alone_and_a_torn_one_leaves_nothing(tmp_path, made, monkeypatch):
    quality = made.quality()
    folder = export(made, quality, tmp_path)
    stamp = (folder / "train.npz").stat().st_mtime_ns
    assert export(made, quality, tmp_path) == folder
    assert (folder / "train.npz").stat().st_mtime_ns == stamp

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_files, "_npz", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left"):
        export(made, quality, tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_changed_file_is_refused(tmp_path, made):
    folder = export(made, made.quality(), tmp_path)
    content = bytearray((folder / "test.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "test.npz").write_bytes(bytes(content))
    read_span(folder, "train")
    with pytest.raises(DataError, match="is not what was written"):
        read_span(folder, "test")
    with pytest.raises(DataError, match="has no span tests; it has train, validation, test"):
        read_span(folder, "tests")
    with pytest.raises(DataError, match="is no data set"):
        read_span(tmp_path, "train")


def test_features_and_labels_of_different_clocks_are_refused(made, bars):
    with pytest.raises(DataError, match="one clock"):
        Dataset(bars[:-1], made.features, made.labels, made.split, "v")
    with pytest.raises(DataError, match="another clock"):
        Dataset(bars[:-1], made.features[:-1], made.labels, made.split, "v")


# -- the command -------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--set", "market.synthetic.n_bars=4000", "--set", "split.embargo_bars=48"])
    return end.value.code, *capsys.readouterr()


def test_the_command_exports_and_prints(tmp_path, capsys):
    code, out, err = run(capsys, "--out", str(tmp_path), "--horizon", "4h", "--set", "features.names=all")
    assert (code, err) == (0, "")
    assert "SYNTHETIC" in out
    assert "closest to the label" in out
    (folder,) = tmp_path.iterdir()
    assert str(folder) in out
    assert read_span(folder, "validation")[0].names[0] == "adx_14"


def test_the_command_answers_in_json_and_writes_nothing_when_it_checks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "--check", "--json", "--label", "direction")
    report = json.loads(out)
    assert code == 0
    assert "Checked only" in err
    assert report["folder"] is None
    assert report["label"] == "direction_24h"
    assert len(report["columns"]) + len(report["dropped_constant"]) >= 107
    assert list(tmp_path.iterdir()) == []


def test_the_command_lists_the_columns(capsys):
    code, out, _ = run(capsys, "--columns")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == list(FEATURES.names())
    assert "rsi_14" in next(line for line in lines if " core " in line and line.startswith("rsi_14"))
    assert " full  fractional " in next(line for line in lines if line.startswith("fractional_40"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--horizon", "90m"], "horizon '90m' on bars of 1h"),
        (["--label", "oracle"], "label.kind is 'oracle'"),
        (["--features", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["--set", "label.volatility=rsi"], "label.volatility"),
        (["--set", "peers={eth: nowhere.parquet}"], "nowhere.parquet"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(tmp_path, capsys, arguments, message):
    code, _, err = run(capsys, "--out", str(tmp_path / "out"), *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# -- what looks ahead stays away from what trades ----------------------------------------------------------


def test_features_do_not_load_the_modules_that_read_labels(root):
    code = (
        "import sys; from market.features.pipeline import FeaturePipeline; FeaturePipeline();"
        "print(sorted(name for name in sys.modules if name.startswith('market.')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "market.features.liquidity" in result.stdout
    assert "labels" not in result.stdout
    assert "dataset" not in result.stdout


def test_every_module_of_features_is_found_but_those_built_on_them(root):
    modules = {path.stem for path in (root / "market" / "features").glob("*.py")} - {"__init__"}
    assert set(FEATURES._modules) == modules - BUILT_ON
    assert modules > BUILT_ON

"""The page of a detection: every number is one of ``report.json``, held-out rows are told from the others."""

import copy
import json
import math
import re

import pytest
from rich.console import Console

from experiments.runs import Run
from regimes import detecting
from regimes.detecting import DetectConfig, detect_run
from regimes.detection_page import detection_page
from tests.reference.tearsheet import agrees, cells

SMALL = {
    "market": {"synthetic": {"n_bars": 4000, "scenario": "short_dwell", "seed": 3}},
    "detector": {"name": "volatility"},
    "measures": {"n_paths": 99},
}
FIGURES = {
    "share of the bars": "share", "mean stay, bars": "mean_dwell", "stays": "stays",
    "log return per year": "annual_return", "volatility per year": "annual_volatility",
    "autocorrelation, 1 bar": "autocorrelation", "variance ratio, 12 bars": "variance_ratio",
    "efficiency ratio, 12 bars": "efficiency", "bars counted": "bars",
}  # fmt: skip
NATS = {
    "log density of the return": "return", "log density of the range": "range", "both": "total",
    "gain over no regimes, return": "gain_return", "gain over no regimes, range": "gain_range",
    "gain over no regimes": "gain",
}  # fmt: skip
SAMPLES = {"held out": "held_out", "in sample": "in_sample"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    # Without its pictures: they take seconds, and hold no numbers of their own.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detecting, "_draw", lambda *arguments: {})
        settings = SMALL | {"runs": str(tmp_path_factory.mktemp("runs"))}
        folder = detect_run(DetectConfig.model_validate(settings), Console(quiet=True))
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def compared(report):
    # A comparison, as --compare would report it.
    other = copy.deepcopy(report)
    other["compared"] = True
    other["detectors"]["other"] = copy.deepcopy(other["detectors"]["volatility"])
    other["detectors"]["other"]["held_out"]["log_likelihood"]["gain"] = -0.0123
    other["agreement"] = {
        a: {b: 0.25 + 0.5 * (a == b) for b in ("volatility", "other")} for a in ("volatility", "other")
    }
    other["unavailable"] = {"jump": "needs the package <b>jumpmodels</b>"}
    return other


def page_of(report):
    return detection_page(report, "A title", {}, {"report.json": "ab" * 32}).decode()


def number(value):
    return math.nan if value is None else value


def expected(report):
    """What every cell of a page must say, by table, heading, row and column."""
    found = {}
    name = report["detector"]
    one = report["detectors"][name]

    def put(table, row, column, value, group=""):
        found[table, group, row, column] = number(value)

    def put_regimes(table, figures):
        for regime, values in figures["regimes"].items():
            for row, key in FIGURES.items():
                put(table, row, regime, values[key])

    put_regimes("regimes", one["held_out"])
    put_regimes("regimes-in-sample", one["in_sample"])
    for column, sample in SAMPLES.items():
        for row, key in NATS.items():
            put("likelihood", row, column, one[sample]["log_likelihood"][key])
        calibrated = one[sample]["calibration"]
        put("calibration", "expected calibration error", column, calibrated["error"])
        put("calibration", "Brier score", column, calibrated["brier"])
        put("calibration", "rows", column, sum(calibrated["rows"]))
    calibrated = one["held_out"]["calibration"]
    for i, rows in enumerate(calibrated["rows"]):
        if rows:
            row = f"{calibrated['edges'][i]:.0%}"
            put("bins", row, "to", calibrated["edges"][i + 1])
            put("bins", row, "rows", rows)
            put("bins", row, "mean confidence", calibrated["confidence"][i])
            put("bins", row, "label right", calibrated["hit_rate"][i])
    for test in one["order"]:
        row = f"{test['statistic']}: {test['higher']} above {test['lower']}"
        put("order", row, "first mean", test["mean_higher"])
        put("order", row, "second mean", test["mean_lower"])
        put("order", row, "p-value", test["p_value"])
    for group, key in (
        ("learned from training rows", "chain"),
        ("counted on held-out labels", "counted_chain"),
    ):
        for before, chances in zip(one["regimes"], one[key], strict=True):
            for after, chance in zip(one["regimes"], chances, strict=True):
                put("chain", before, after, chance, group)
    if report["truth_known"]:
        for group, key in (("most probable", "likeliest"), ("in force", "path")):
            for who, of in (report["detectors"] | report["oracles"]).items():
                agreed = of["truth"][key]
                put("truth", who, "balanced accuracy", agreed["balanced_accuracy"], group)
                put("truth", who, "median delay", agreed["median_delay"], group)
                put("truth", who, "false switches", agreed["false_switches"], group)
                for regime, share in agreed["recall"].items():
                    put("truth", who, f"found {regime}", share, group)
    found |= _state(report["now"])
    headline = {
        "detector": name,
        "gain, nats per bar": one["held_out"]["log_likelihood"]["gain"],
        "mean stay, bars": one["held_out"]["mean_dwell"],
        "switches per year": one["held_out"]["switches_per_year"],
        "calibration error": calibrated["error"],
    }
    if report["truth_known"]:
        headline["balanced accuracy"] = one["truth"]["likeliest"]["balanced_accuracy"]
    for column, value in headline.items():
        put("headline", name, column, value)
    if report["compared"]:
        for who, of in (report["detectors"] | report["oracles"]).items():
            held_out = of["held_out"]
            put("comparison", who, "gain, nats per bar", held_out["log_likelihood"]["gain"])
            put("comparison", who, "mean stay", held_out["mean_dwell"])
            put("comparison", who, "switches per year", held_out["switches_per_year"])
            put("comparison", who, "calibration error", held_out["calibration"]["error"])
            put("comparison", who, "Brier score", held_out["calibration"]["brier"])
        for who, of in report["detectors"].items():
            if who != name:
                put_regimes(f"regimes-{who}", of["held_out"])
            put("effort", who, "fit, seconds", of["fit_seconds"])
            put("effort", who, "us per bar", of["microseconds_per_bar"])
            put("effort", who, "warm-up, bars", of["warmup"])
            put("effort", who, "reads", ", ".join(of["columns"]))
            for against, share in report["agreement"][who].items():
                put("agreement", who, against, share)
    return found


def _state(now):
    found = {}
    rows = {
        "latest bar, UTC": now["time"], "regime in force": now["regime"], "since, UTC": now["since"],
        "bars so far": now["bars"], "confidence": now["confidence"], "most probable regime": now["likeliest"],
        "its expected further stay, bars": now["remaining_bars"],
    }  # fmt: skip
    for row, value in rows.items():
        found["now", "", row, "the state"] = value
    for regime, chance in now["probabilities"].items():
        found["ahead", "", "now", regime] = chance
    found["ahead", "", "now", "of a switch until then"] = math.nan
    for bars, chances in now["ahead"].items():
        row = f"in {bars} bar{'' if bars == '1' else 's'}"
        found["ahead", "", row, "of a switch until then"] = now["switch"][bars]
        for regime, chance in chances.items():
            found["ahead", "", row, regime] = chance
    for one in now["transitions"]:
        found["changes", "", one["time"], "from"] = one["before"]
        found["changes", "", one["time"], "to"] = one["after"]
        found["changes", "", one["time"], "confidence"] = number(one["confidence"])
        found["changes", "", one["time"], "bars the ended one lasted"] = one["dwelt_bars"]
        found["changes", "", one["time"], "bars ago"] = one["bars_ago"]
    return found


def mismatches(text, wanted):
    """Cells that are missing, too many or wrong; the record and the files are no figures."""
    found = {key: cell for key, cell in cells(text).items() if key[0] not in ("record", "files")}
    wrong = {key: (found.get(key), wanted.get(key)) for key in found.keys() ^ wanted.keys()}
    return wrong | {
        key: (cell, wanted[key])
        for key, cell in found.items()
        if key in wanted and not agrees(cell, wanted[key])
    }


def test_every_number_is_that_of_the_report_at_printed_precision(report):
    wanted = expected(report)
    assert len(wanted) > 150
    assert mismatches(page_of(report), wanted) == {}


def test_a_comparison_adds_each_detector_and_why_one_could_not_run(compared):
    text = page_of(compared)
    assert mismatches(text, expected(compared)) == {}
    assert "jump: needs the package &lt;b&gt;jumpmodels&lt;/b&gt;" in text
    assert "Detectors compared" in text


@pytest.mark.parametrize(
    "place",
    [
        ("detectors", "volatility", "held_out", "regimes", "volatile", "efficiency"),
        ("detectors", "volatility", "in_sample", "log_likelihood", "gain"),
        ("detectors", "volatility", "held_out", "calibration", "brier"),
        ("detectors", "volatility", "truth", "path", "median_delay"),
        ("oracles", "bar oracle", "truth", "likeliest", "balanced_accuracy"),
        ("now", "remaining_bars"),
        ("now", "switch", "24"),
    ],
)
def test_a_number_that_is_not_that_of_the_report_is_seen(report, place):
    other = copy.deepcopy(report)
    inner = other
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = inner[place[-1]] * 1.37 + 1
    assert mismatches(page_of(report), expected(other)) != {}


def test_what_is_not_defined_is_a_dash(report):
    other = copy.deepcopy(report)
    one = other["detectors"]["volatility"]
    one["held_out"]["regimes"]["trending"] |= {
        key: None for key in FIGURES.values() if key not in ("stays", "bars")
    }
    one["held_out"]["log_likelihood"]["gain"] = None
    one["order"][0] |= {"mean_higher": None, "p_value": None}
    one["truth"]["path"]["median_delay"] = None
    text = page_of(other)
    assert mismatches(text, expected(other)) == {}
    shown = [cell for key, cell in cells(text).items() if key[0] != "files"]
    assert not [cell for cell in shown if re.search(r"nan|inf|None|\de[+-]?\d|^-0\.?0*%?$", cell)]


def test_held_out_rows_are_told_from_rows_in_sample(report):
    text = page_of(report)
    opening, in_sample = text.index("held-out rows"), text.index("Regimes in sample")
    assert opening < text.index("Regimes on held-out rows") < in_sample
    assert "fitted on these rows" in text[in_sample : text.index('id="regimes-in-sample"')]
    for cell in (report["times"]["held_out"], report["times"]["in_sample"]):
        assert f"{cell[0]} to {cell[1]}" in text


def test_the_synthetic_market_is_named_first_and_its_truth_is_met_beside_the_oracles(report):
    text = page_of(report)
    assert text.index("SYNTHETIC market") < text.index("<table")
    assert "Against the truth" in text
    assert "bar oracle" in text
    assert "persist" not in text


def test_without_a_truth_confidence_is_a_statement_about_persistence_and_no_accuracy_is_claimed(report):
    other = copy.deepcopy(report)
    other |= {"truth_known": False, "oracles": {}, "calibrated_against": "the own label 24 bars later"}
    other["data"] |= {"origin": "file x.csv", "warnings": ["4 bars without volume"]}
    text = page_of(other)
    assert mismatches(text, expected(other)) == {}
    assert "the own label 24 bars later" in text
    assert "whether regimes persist" in text
    assert "4 bars without volume" in text
    assert "accuracy" not in text
    assert "oracle" not in text


def test_what_speaks_against_the_figures_is_said_at_the_top(report):
    other = copy.deepcopy(report)
    one = other["detectors"]["volatility"]
    one["held_out"]["log_likelihood"]["gain"] = -0.01
    one["held_out"]["regimes"]["trending"]["share"] = 0.001
    one["order"][0]["p_value"] = 0.4
    text = page_of(other)
    top = text[: text.index("<table")]
    assert "no better than no regimes at all" in top
    assert "Hardly ever in force on held-out rows: trending" in top
    assert "volatile from trending by parkinson_24" in top
    assert "less than a year" in top
    assert "no better than no regimes" not in page_of(report)


def test_a_state_that_is_not_known_is_said_to_be_unknown(report):
    other = copy.deepcopy(report) | {"now": None}
    assert "The latest bar has no label yet." in page_of(other)


def test_nothing_on_the_page_is_foreign_and_names_cannot_break_out(report):
    other = copy.deepcopy(report)
    other["data"]["label"] = '<script>alert("x")</script>'
    text = detection_page(other, "<i>title</i>", {"price": (b"\x89PNG", "a <caption>")}, {}).decode()
    assert "<script" not in text
    assert "<i>title" not in text
    assert "a &lt;caption&gt;" in text
    assert not re.findall(r"url\(|@import|https?://|javascript:|src=\"(?!data:)", text)


def test_a_run_that_cannot_draw_leaves_no_page(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no canvas")

    monkeypatch.setattr(detecting, "_draw", fail)
    settings = DetectConfig.model_validate(SMALL | {"runs": str(tmp_path)})
    with pytest.raises(RuntimeError, match="no canvas"):
        detect_run(settings, Console(quiet=True))
    (folder,) = tmp_path.iterdir()
    assert isinstance(Run.at(tmp_path, folder.name), Run)
    assert not (folder / "regimes.html").exists()
    assert not list(folder.rglob(".*"))  # no draft is left

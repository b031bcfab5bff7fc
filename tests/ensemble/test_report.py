"""The report of a validation: what it says is so, all is there, it needs nothing else, it comes out again."""

import io
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ensemble import report
from ensemble.member_tables import ablation, degradation
from ensemble.regime_tables import accuracy, regime_tables, transitions
from ensemble.report_tables import account_tables, held_label
from ensemble.signals import RegimeProbabilities, SignalTable
from experiments.runs import Run
from market.table import DataError
from regimes.regime import REGIME_NAMES
from tests.ensemble.made_judged import FIRST, N, made_blend, made_judged, made_validated
from tests.ensemble.recompute import mismatches

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JUNK = re.compile(r"\b(nan|inf|None|null)\b")


def written(root, judged):
    """The folder of a run with a report, and what was printed."""
    said = io.StringIO()
    run = Run.open(root, "validate", "route", NOW)
    found = report.write(run, judged, Console(file=said, width=160, force_terminal=False))
    return run.folder, found, said.getvalue()


@pytest.fixture(scope="module")
def judged():
    return made_judged()


@pytest.fixture(scope="module")
def run(judged, tmp_path_factory):
    return written(tmp_path_factory.mktemp("runs"), judged)


def changed_blend(**changes):
    blend = made_blend()
    return replace(blend, **changes)


def cells(page):
    """All cells of all tables of a page, as text."""
    return [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)]


# What is written


def test_the_report_leaves_page_markdown_json_pictures_account_and_decisions(run):
    folder, found, _ = run
    for name in (report.JSON, report.MARKDOWN, report.PAGE, report.DECISIONS, *found["files"]):
        assert (folder / name).stat().st_size > 0
    assert json.loads((folder / report.JSON).read_text()) == found
    assert len(list((folder / "plots").glob("*.png"))) == 12


def test_the_json_comes_last_and_says_that_the_run_is_finished(judged, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no paper")

    monkeypatch.setattr(report, "_draw", lambda *_: {})
    monkeypatch.setattr(report, "markdown", broken)
    with pytest.raises(RuntimeError, match="no paper"):
        written(tmp_path, judged)
    (folder,) = tmp_path.iterdir()
    assert (folder / report.PAGE).exists()
    assert not (folder / report.JSON).exists()


def test_the_same_input_gives_the_same_bytes(run, judged, tmp_path):
    folder = written(tmp_path, judged)[0]
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) >= 19
    for name in files:
        assert (folder / name).read_bytes() == (run[0] / name).read_bytes(), name


def test_the_verdict_is_printed_with_every_criterion_and_every_rival(run):
    _, found, said = run
    assert said.rstrip().endswith(found["verdict"])
    for one in found["criteria"]:
        assert one["name"] in said
    for group in ("baselines", "members", "blenders"):
        assert all(name in said for name in found["metrics"][group])


# S7: every number once more


def test_every_headline_number_is_recomputed_from_the_files(run):
    wrong, count = mismatches(run[0])
    assert wrong == []
    assert count > 400


@pytest.mark.parametrize(
    ("name", "column", "where"),
    [
        ("metrics/trades", "pnl", "profit_factor"),
        ("metrics/trades", "exit_time", "n_trades"),
        ("metrics/equity", "net_return", "metrics/strategy/sharpe"),
        ("metrics/returns", "buy and hold", "metrics/baselines/buy and hold/total_return"),
        ("predictions/decisions", "label", "regimes/"),
    ],
)
def test_a_tampered_file_is_noticed(run, tmp_path, name, column, where):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    path = folder / f"{name}.parquet"
    table = pd.read_parquet(path)
    if column == "exit_time":
        table.loc[0, column] += pd.Timedelta(60, "D")
    elif column == "label":
        table.loc[1_000:1_100, column] = (table.loc[1_000:1_100, column] + 1) % 3
    else:
        table.loc[7, column] = table[column][7] * 1.01 + 1e-3
    table.to_parquet(path)
    wrong, _ = mismatches(folder)
    assert any(where in line for line in wrong)


def test_a_tampered_number_of_the_report_is_noticed(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    said = json.loads((folder / report.JSON).read_text())
    said["metrics"]["strategy"]["sharpe"] += 0.01
    (folder / report.JSON).write_text(json.dumps(said))
    assert [line.split(":")[0] for line in mismatches(folder)[0]] == ["metrics/strategy/sharpe"]


def test_the_page_shows_the_numbers_of_the_json(run):
    folder, found, _ = run
    shown = cells((folder / report.PAGE).read_text())
    own = found["metrics"]["strategy"]
    for text in (f"{own['sharpe']:.2f}", f"{own['total_return']:+.1%}", f"{own['profit_factor']:.2f}"):
        assert shown.count(text) >= 2  # at the top, and in the table
    for group in found["trades"]["groups"].values():
        assert all(f"{one['pnl']:+,.2f}" in shown for one in group)


# The page


def test_the_page_needs_nothing_from_outside(run):
    text = (run[0] / report.PAGE).read_text()
    assert not re.search(r"\b(src|href)=(?!\"data:image/png;base64,)", text)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert text.count("data:image/png;base64,") == 12


def test_the_first_screen_has_verdict_criteria_equity_and_whatever_speaks_against_it(run):
    folder, found, _ = run
    text = (folder / report.PAGE).read_text()
    first = text[: text.index("<h2>")]
    assert found["verdict"] in first.replace("&#x27;", "'")
    for one in found["criteria"]:
        assert one["name"] in first
    assert first.count("data:image/png") == 1
    assert "SYNTHETIC" in first
    assert "have been looked at 1 time before" in first
    assert "2 bars were missing" in first


def test_page_and_markdown_have_every_chapter(run):
    folder, _, _ = run
    text, plain = (folder / report.PAGE).read_text(), (folder / report.MARKDOWN).read_text()
    heads = re.findall("<h2>(.*?)</h2>", text)
    assert heads == re.findall(r"(?m)^## (.*)$", plain)
    assert len(heads) == 15
    for name in re.findall(r"\]\((plots/.*?)\)", plain):
        assert (folder / name).exists()


def test_in_sample_figures_say_so(run):
    folder, found, _ = run
    shown = cells((folder / report.PAGE).read_text())
    assert shown.count("Sharpe IN SAMPLE") == 2
    inside = f"{found['folds'][0]['members']['trending']['sharpe_learn']:.2f}"
    assert inside in shown[shown.index("Sharpe IN SAMPLE") :]
    assert inside not in shown[: shown.index("Sharpe IN SAMPLE")]


def test_text_from_outside_is_escaped(judged):
    hostile = replace(judged, provenance={**judged.provenance, "symbol": "<script>x</script>|[a](b)"})
    found = report.summary(hostile)
    assert b"<script>" not in report.validation_page(found, {}, {})
    assert "# Validation of \\<script\\>x" in report.markdown(found, {}, {})


def test_rows_never_looked_at_before_raise_no_warning(judged):
    fresh = replace(judged, looks=replace(judged.looks, earlier=0, others=0))
    assert (
        b"have been looked at" not in report.validation_page(report.summary(fresh), {}, {}).split(b"<h2>")[0]
    )


# Edge cases


def test_a_strategy_that_never_trades_is_reported_with_dashes_and_fails(tmp_path):
    validated = made_validated(made_blend(flat=True))
    folder, found, said = written(tmp_path, made_judged(validated, comparisons=False, permuted=False))
    assert not found["passed"]
    assert found["metrics"]["strategy"]["sharpe"] is None
    assert found["trades"]["count"] == 0
    shown = cells((folder / report.PAGE).read_text())
    assert "-" in shown
    assert not [cell for cell in shown if JUNK.search(cell)]
    assert not JUNK.search((folder / report.MARKDOWN).read_text())
    assert "FAIL" in said
    assert mismatches(folder)[0] == []


def test_folds_of_one_bar_and_switches_in_every_bar_are_reported(judged):
    label = (np.arange(N - FIRST) % 3).astype(np.int8)
    validated = made_validated(changed_blend(label=label), stops=(FIRST + 1, FIRST + 2, N))
    found = report.summary(replace(judged, validated=validated))
    assert found["folds_performance"][0]["metrics"]["n_bars"] == 1
    assert found["folds_performance"][0]["metrics"]["sharpe"] is None
    assert found["transitions"]["switches"] == N - FIRST - 1
    assert b"Switches of the regime" in report.validation_page(found, {}, {})
    json.dumps(found, allow_nan=False)


def test_a_regime_that_never_occurs_is_reported_with_dashes(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_draw", lambda *_: {})
    label = np.zeros(N - FIRST, np.int8)
    validated = made_validated(changed_blend(label=label))
    folder, found, _ = written(tmp_path, replace(judged, validated=validated))
    assert mismatches(folder)[0] == []
    volatile = next(one for one in found["regimes"] if one["name"] == "volatile")
    assert volatile["bars"] == 0
    assert volatile["metrics"]["sharpe"] is None
    assert found["stability"]["regimes"]["volatile"]["mean_stay"] is None
    assert found["transitions"]["around"]["offsets"] == []
    text = (folder / report.PAGE).read_text()
    assert not [cell for cell in cells(text) if JUNK.search(cell)]
    assert "- (-)" not in text


def test_a_blender_that_is_no_weighted_mean_has_no_contributions(judged):
    validated = made_validated(changed_blend(weights=np.full((N - FIRST, 4), np.nan)))
    found = report.summary(replace(judged, validated=validated))
    assert found["ablation"] is None
    assert found["weights"] is None
    assert {one["contribution"] for one in found["members"].values()} == {None}
    assert {one["risk_share"] for one in found["members"].values()} == {None}
    assert found["diversity"]["correlation"][0][0] == pytest.approx(1.0)


# The numbers


def test_stretches_add_up_to_the_whole(run):
    found = run[1]
    own = found["metrics"]["strategy"]
    for key in ("years", "folds_performance"):
        parts = [one["metrics"] for one in found[key]]
        assert sum(one["n_trades"] for one in parts) == own["n_trades"]
        assert sum(one["n_bars"] for one in parts) == own["n_bars"]
        grown = np.prod([1 + one["total_return"] for one in parts]) - 1
        assert grown == pytest.approx(own["total_return"], rel=1e-9)
    assert sum(one["bars"] for one in found["regimes"]) >= own["n_bars"] - 1
    assert sum(one["part"] for one in found["regimes"]) == pytest.approx(1.0, abs=1e-9)


def test_a_return_counts_for_the_regime_that_was_known_when_it_was_decided():
    label = np.zeros(N - FIRST, np.int8)
    validated = made_validated(changed_blend(label=label))
    returns = validated.result.curve.column("net_return")
    row = int(np.argmax(returns))  # the best bar; the label turns volatile with it
    label[row:] = 2
    late = made_validated(changed_blend(label=label))
    by_name = {one["name"]: one for one in account_tables(late)["regimes"]}
    assert by_name["ranging"]["bars"] == row  # rows 1 to row: the bar of the switch included
    expected = np.prod(1 + returns[1 : row + 1]) - 1
    assert by_name["ranging"]["metrics"]["total_return"] == pytest.approx(expected, rel=1e-9)
    by_own_label = np.prod(1 + returns[:row]) - 1  # what a report that peeks would say
    assert abs(expected - by_own_label) > 1e-3


def test_the_label_that_counts_is_that_of_the_bar_before():
    assert held_label(np.array([2, 0, 1], np.int8)).tolist() == [-1, 2, 0]
    assert held_label(np.array([], np.int8)).size == 0


def test_whipsaws_and_lags_are_counted():
    label = np.zeros(N - FIRST, np.int8)
    label[500:520] = 1  # back after 20 bars: a whipsaw
    label[900:1_100] = 2  # a real change
    values = np.full((label.size, 3), 0.1)
    values[np.arange(label.size), label] = 0.8
    values[890:900] = (0.1, 0.1, 0.8)  # the probabilities knew ten bars before
    blend = made_blend()
    regimes = RegimeProbabilities(blend.time, values, REGIME_NAMES)
    found = transitions(made_validated(changed_blend(label=label, regimes=regimes)))
    assert found["switches"] == 4
    assert found["pairs"] == {
        "ranging to trending": 1, "ranging to volatile": 1, "trending to ranging": 1, "volatile to ranging": 1
    }  # fmt: skip
    assert found["whipsaws"]["count"] == 1
    assert found["whipsaws"]["bars"] == 20
    assert found["label_lag"]["count"] == 4
    assert found["label_lag"]["mean"] == pytest.approx(10 / 4)


def test_returns_around_switches_are_summed_from_the_switch_on():
    label = np.zeros(N - FIRST, np.int8)
    label[1_000:] = 1
    validated = made_validated(changed_blend(label=label))
    returns = validated.result.curve.column("net_return")
    around = transitions(validated)["around"]
    assert around["switches"] == 1
    assert around["after"] == pytest.approx(returns[1_001:1_049].sum(), abs=1e-12)
    assert around["before"] == pytest.approx(returns[977:1_001].sum(), abs=1e-12)


def test_the_slope_is_that_of_the_line_the_searches_lie_on():
    validated = made_validated()
    points = degradation(validated)["points"]
    outside = {(one["fold"], one["member"]): one["out_of_sample"] for one in points}
    folds = []
    for fold in validated.folds:
        members = {
            name: {**told, "sharpe_learn": (outside[fold.number + 1, name] - 1.0) / 2.0}
            if told["kind"] == "specialist"
            else told
            for name, told in fold.members.items()
        }
        folds.append(replace(fold, members=members))
    line = degradation(replace(validated, folds=tuple(folds)))
    assert line["pairs"] == 8  # three folds of three specialists, one of them absent
    assert line["slope"] == pytest.approx(2.0)
    assert line["intercept"] == pytest.approx(1.0)
    alone = degradation(made_validated(stops=(N,)))
    assert alone["pairs"] == 2
    assert np.isnan(alone["slope"])


def test_leaving_out_a_twin_loses_nothing_and_leaving_out_who_knows_loses_much():
    blend = made_blend()
    signals = blend.signals.values.copy()
    signals[:, 0] = signals[:, 1] = np.where(np.isnan(signals[:, 1]), 0.0, signals[:, 1])
    weights = np.zeros_like(signals)
    weights[:, 0], weights[:, 1], weights[:, 3] = 0.25, 0.25, 0.5
    table = SignalTable(blend.time, signals, blend.signals.names)
    found = ablation(made_validated(changed_blend(signals=table, weights=weights)), 0.001)
    silent = found["without"]["volatile"]  # it had no weight
    assert silent == pytest.approx(found["whole"])
    weights[:, 3] = 0.0
    weights[:, :2] = 0.5
    twins = ablation(made_validated(changed_blend(signals=table, weights=weights)), 0.001)
    assert twins["lost"]["ranging"] == pytest.approx(0.0, abs=1e-9)
    weights[:, :2] = (0.0, 1.0)
    one = ablation(made_validated(changed_blend(signals=table, weights=weights)), 0.001)
    assert np.isnan(one["without"]["trending"])  # nothing is left to trade


def test_labels_are_held_against_the_truth_where_it_is_known(run):
    validated = made_validated()
    label = validated.blend.label
    found = accuracy(validated, np.where(label == -1, 0, label))
    assert found["accuracy"] == 1.0
    assert found["false_switches"] == 0
    assert np.trace(found["confusion"]) == np.sum(label != -1)
    wrong = accuracy(validated, ((label + 1) % 3).astype(np.int8))
    assert wrong["accuracy"] < 0.1
    assert regime_tables(validated)["accuracy"] is None
    assert "Against the true regimes" in (run[0] / report.PAGE).read_text()
    with pytest.raises(DataError, match="one value for each of 2000 rows"):
        accuracy(validated, label[:-1])

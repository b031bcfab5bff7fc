"""A race becomes a verdict: what is paired, what is refused, what is said, and what is written."""

import json
import math
import re
from io import StringIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from conductor import race_comparison as comparing
from conductor import race_report, race_verdict
from conductor.race_comparison import BETTER, TARGET_COLUMNS, UNDECIDED, WORSE, Race
from conductor.race_statistics import TARGETS, Estimate
from experiments.runs import Run
from market.table import DataError

US, THEM = "conductor", "tuned static"
BUDGET = 100


def rows(gains, *, suite="bbob", n_clusters=12, n_problems=2, n_seeds=1, spread=0.1, seed=0, **further):
    """Runs of contestants whose final errors lie ``gains`` above those of nobody in particular.

    ``spread`` is how much the gain of a contestant differs from cluster to cluster; ``further`` are columns:
    functions of (contestant, cluster, random generator).
    """
    rng = np.random.default_rng(seed)
    own = {name: gain + spread * rng.normal(size=n_clusters) for name, gain in gains.items()}
    made = []
    share = np.arange(1, 11) / 10
    for c in range(n_clusters):
        for problem in range(n_problems):
            level = rng.normal()
            for run in range(n_seeds):
                luck = 0.2 * rng.normal()
                for name in gains:
                    final = level + luck + own[name][c] + 0.05 * rng.normal()
                    curve = final + 2.0 * (1.0 - share)
                    hits = [
                        float(BUDGET * share[np.argmax(curve <= target)]) if final <= target else math.nan
                        for target in np.log10(TARGETS)
                    ]
                    made.append(
                        {
                            "contestant": name,
                            "suite": suite,
                            "problem": f"f{c}",
                            "cluster": f"f{c}",
                            "instance": problem,
                            "seed": run,
                            "anytime": float(curve.mean()),
                            "final": float(final),
                            "evaluations": BUDGET,
                            "budget": BUDGET,
                            "error_10": 10.0 ** curve[0],
                            "error_100": 10.0**final,
                            "unique_evaluations": BUDGET - 5,
                            "curve": curve.tolist(),
                            **dict(zip(TARGET_COLUMNS, hits, strict=True)),
                            **{key: column(name, c, rng) for key, column in further.items()},
                        }
                    )
    return made


def table(made):
    return pa.Table.from_pylist(made)


def compared(made, subject=US, reference=THEM):
    return comparing.compare(Race.of(table(made)), subject, reference)


GAINS = {THEM: 0.0, US: -0.5, "frozen mean action": -0.1, "random search": 1.0}


# What is compared.


@pytest.mark.parametrize(("gain", "verdict"), [(-0.4, BETTER), (0.4, WORSE), (0.0, UNDECIDED)])
def test_a_planted_difference_is_found_with_its_sign_and_size(gain, verdict):
    found = compared(rows({THEM: 0.0, US: gain}))
    estimate = found["against_reference"][US]["final"]["difference"]
    assert estimate.value == pytest.approx(gain, abs=0.12)
    assert found["verdict"] == {"final": verdict, "anytime": verdict}


def test_a_gain_on_few_clusters_is_no_gain_however_many_runs_it_has():
    # Twelve clusters that differ by a whole decade, ten almost equal runs on each.
    made = rows({THEM: 0.0, US: -0.25}, n_seeds=5, spread=1.0, seed=5)
    found = compared(made)["against_reference"][US]["final"]
    assert found["verdict"] == UNDECIDED
    # The same runs, each of them its own cluster: an interval over runs is sure of itself.
    for i, row in enumerate(made):
        row["cluster"] = row["problem"] = f"pair {i // 2}"
    naive = compared(made)["against_reference"][US]["final"]
    assert naive["verdict"] != UNDECIDED


def test_both_directions_of_a_comparison_agree():
    found = compared(rows(GAINS))
    one = found["against_reference"][US]["final"]["difference"]
    other = found["subject_against"][THEM]["final"]["difference"]
    assert one == other
    assert set(found["subject_against"]) == set(GAINS) - {US}
    assert set(found["against_reference"]) == set(GAINS) - {THEM}


def test_the_order_of_rows_says_nothing():
    made = rows(GAINS)
    first = compared(made)
    firsts = made[: len(GAINS)]  # contestants keep the order of their first rows
    rest = [made[i] for i in len(GAINS) + np.random.default_rng(1).permutation(len(made) - len(GAINS))]
    second = compared(firsts + rest)
    for name in first["against_reference"]:
        for metric in ("final", "anytime"):
            one, two = (found["against_reference"][name][metric] for found in (first, second))
            assert one["difference"].value == pytest.approx(two["difference"].value)
            assert one["p"] == pytest.approx(two["p"])


def test_pairs_are_of_one_problem_and_seed_and_nothing_else():
    race = Race.of(table(rows({THEM: 0.0, US: 0.0}, n_seeds=3)))
    assert len(race.problems) == 12 * 2 * 3
    assert np.unique(race.problems).size == 24
    assert race.clusters.n == 12
    shuffled = race.values["final"][0][np.random.default_rng(0).permutation(72)]
    paired = race.differences(US, THEM, "final")
    assert paired.std() < 0.5 * (race.values["final"][1] - shuffled).std()


def test_a_failed_run_counts_as_the_worst_of_its_pair():
    made = rows({THEM: 0.0, US: 0.3, "random search": 1.0})
    honest = compared(made)["against_reference"][US]["final"]["difference"].value
    # The conductor "fails" wherever it is behind: left out, it would be ahead everywhere.
    pairs = [made[i : i + 3] for i in range(0, len(made), 3)]
    failed = 0
    for them, us, _ in pairs:
        if us["final"] > them["final"]:
            us["final"] = us["anytime"] = math.nan
            failed += 1
    found = compared(made)
    assert failed > 3
    assert found["contestants"][US]["failures"] == failed
    assert found["against_reference"][US]["final"]["difference"].value > honest
    assert f"{US}: {failed} runs had no result" in " ".join(race_verdict.sentences(found))


def test_evaluations_needed_come_from_the_curves():
    made = rows({THEM: 0.0, US: -0.6}, n_seeds=6, spread=0.0)
    found = compared(made)["against_reference"][US]["saving"]
    assert found.groups == 24  # problems, since each has six runs
    assert found.ratio.high < 0.9
    few = compared(rows({THEM: 0.0, US: -0.6}, spread=0.0))["against_reference"][US]["saving"]
    assert few.groups == 12  # clusters, since a problem has one run


def test_regimes_are_compared_one_by_one():
    made = rows({THEM: 0.0, US: 0.0}, spread=0.01, regime=lambda name, c, rng: c % 3)
    for row in made:
        if row["contestant"] == US and row["regime"] == 1:
            row["final"] -= 1.0
    found = compared(made)["by_regime"]
    assert list(found) == ["ranging", "trending", "volatile"]
    assert found["trending"][US]["final"].high < -0.8
    assert abs(found["volatile"][US]["final"].value) < 0.2
    assert compared(rows(GAINS, regime=lambda name, c, rng: -1))["by_regime"] == {}


def test_columns_without_a_number_are_as_good_as_absent():
    found = compared(rows(GAINS, out_of_sample=lambda name, c, rng: math.nan))
    assert "out_of_sample" not in found["against_reference"][US]


def test_windows_without_a_following_one_are_left_out_on_both_sides():
    made = rows({THEM: 0.0, US: -1.0}, out_of_sample=lambda name, c, rng: 1.0 if name == THEM else 0.4)
    for row in made:
        if row["cluster"] == "f3" and row["contestant"] == THEM:
            row["out_of_sample"] = math.nan
    found = compared(made)["against_reference"][US]["out_of_sample"]
    assert (found["pairs"], found["clusters"]) == (22, 11)
    assert found["difference"] == pytest.approx((-0.6, -0.6, -0.6))


# What is refused.


def without(made, condition):
    return [row for row in made if not condition(row)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda made: made[:-1], r"random search has no run of f11, instance 1, seed 1"),
        (lambda made: [*made, made[0]], r"tuned static ran f0, instance 0, seed 0, twice"),
        (lambda made: [{**made[0], "cluster": "g"}, *made[1:]], r"f0, instance 0, seed 0, lies in two"),
        (lambda made: [{**row, "cluster": row["seed"]} for row in made], r"f0, instance 0, lies in clusters"),
        (lambda made: [{**row, "final": math.nan} for row in made], r"nobody has a result on f0"),
        (lambda made: [{k: v for k, v in row.items() if k != "seed"} for row in made], r"no column seed"),
        (lambda made: [{**made[0], "curve": [1.0]}, *made[1:]], r"curves have \[1, 10\] points"),
    ],
)  # fmt: skip
def test_what_is_no_paired_race_is_refused_in_a_sentence(spoil, message):
    with pytest.raises(DataError, match=message):
        Race.of(table(spoil(rows(GAINS, n_seeds=2))))


def test_an_unknown_contestant_suite_or_file_is_refused_in_a_sentence(tmp_path):
    made = rows(GAINS)
    with pytest.raises(DataError, match="'nobody' did not run in suite bbob; contestants are: tuned static"):
        compared(made, subject="nobody")
    with pytest.raises(DataError, match="compared with itself"):
        compared(made, subject=THEM)
    with pytest.raises(DataError, match="suite is 'windows'; it must be one of: bbob"):
        Race.of(table(made), "windows")
    with pytest.raises(DataError, match="there are no runs"):
        Race.of(table(made).slice(0, 0))
    (tmp_path / "no.parquet").write_bytes(b"not a table")
    with pytest.raises(DataError, match=r"no\.parquet: cannot be read as a table of runs"):
        comparing.read(tmp_path / "no.parquet")


def test_a_table_survives_its_file(tmp_path):
    made = rows(GAINS)
    pq.write_table(table(made), tmp_path / "results.parquet")
    race = Race.of(comparing.read(tmp_path / "results.parquet"))
    assert np.array_equal(race.values["final"], Race.of(table(made)).values["final"])


# What is said.


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        (Estimate(-0.5, -0.9, -0.01), BETTER),
        (Estimate(-5.0, -9.0, 0.01), UNDECIDED),
        (Estimate(-5.0, -9.0, 0.0), UNDECIDED),
        (Estimate(0.1, 0.01, 0.2), WORSE),
        (Estimate(-5.0, math.nan, math.nan), UNDECIDED),
    ],
)
def test_an_interval_that_holds_zero_is_undecided_however_good_its_middle(estimate, verdict):
    assert comparing.verdict_of(estimate) == verdict


def test_an_end_that_is_not_zero_does_not_look_like_zero():
    assert race_verdict.interval(Estimate(-0.19, -0.32, -0.002)) == "-0.190 [-0.320, -0.002]"
    assert race_verdict.interval(Estimate(-0.41, -0.6, -0.22)) == "-0.41 [-0.60, -0.22]"
    assert race_verdict.interval(Estimate(0.0, 0.0, 0.0)) == "+0.00 [+0.00, +0.00]"
    assert race_verdict.interval(Estimate(-0.41, math.nan, math.nan)) == "-0.41"


def test_sentences_name_who_beats_the_subject_and_whether_feedback_helps():
    said = race_verdict.sentences(compared(rows({**GAINS, "CMA-ES": -2.0}, spread=0.05)))
    assert said[0].startswith(f"{US} is better than {THEM} at the end of the budget: -0.")
    assert f"On the final error {US} is beaten by: CMA-ES." in said
    assert f"On the final error {US} is better than: frozen mean action; random search." in said
    assert any("Against frozen mean action: -0." in line and "is worth something" in line for line in said)


def test_feedback_that_adds_nothing_is_not_praised():
    said = race_verdict.sentences(compared(rows({THEM: 0.0, US: -0.5, "frozen mean action": -0.5})))
    assert any("does not show that reacting to the search adds anything" in line for line in said)
    assert not any("worth something" in line for line in said)


def test_an_undecided_race_is_called_that():
    said = race_verdict.sentences(compared(rows({THEM: 0.0, US: 0.0})))
    assert said[0].startswith("Undecided at the end of the budget")
    assert "the interval contains zero" in said[0]
    assert not any(f"{US} is better" in line for line in said)


def test_one_cluster_decides_nothing():
    found = compared(rows({THEM: 0.0, US: -3.0}, n_clusters=1, n_problems=9))
    assert found["verdict"]["final"] == UNDECIDED
    assert "one cluster gives no interval" in race_verdict.sentences(found)[0]


@pytest.mark.parametrize(
    ("gain", "words"),
    [(-0.6, "significantly worse"), (0.6, "significantly better"), (0.0, "no significant difference")],
)
def test_speed_in_sample_never_stands_without_what_it_earned(gain, words):
    made = rows(
        {THEM: 0.0, US: -0.5},
        seed=2,
        out_of_sample=lambda name, c, rng: (gain if name == US else 0.0) + 0.1 * rng.normal(),
    )
    said = race_verdict.sentences(compared(made))
    assert any("in sample" in line for line in said)
    assert words in said[-1]


def test_fewer_and_more_evaluations_are_not_mixed_up():
    better = race_verdict.sentences(compared(rows({THEM: 0.0, US: -0.6}, n_seeds=6, spread=0.0)))
    worse = race_verdict.sentences(compared(rows({THEM: 0.0, US: 0.6}, n_seeds=6, spread=0.0)))
    assert any("fewer evaluations" in line for line in better)
    assert any("more evaluations" in line for line in worse)
    assert not any("fewer evaluations" in line for line in worse)


# What is written.


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder and the findings of a race of two suites whose names differ by a letter that no path has."""
    made = rows(GAINS, suite="bbob 10-D", n_clusters=6)
    made += rows(
        {THEM: 0.0, US: 0.0},
        suite="bbob 10/D",
        n_clusters=5,
        regime=lambda name, c, rng: c % 2,
        in_sample=lambda name, c, rng: rng.normal(),
        out_of_sample=lambda name, c, rng: rng.normal(),
    )
    run = Run.open(tmp_path_factory.mktemp("runs"), "race", "test")
    found = race_report.write(run, table(made), US, THEM, notes=["Trained <elsewhere> & before."])
    return run.folder, found


def test_report_page_and_plots_are_written_and_agree(written):
    folder, found = written
    page, text = (folder / "race.html").read_text(), (folder / "report.md").read_text()
    saved = json.loads((folder / "report.json").read_text())
    for line in (line for one in found["sentences"].values() for line in one):
        assert f"- {line}\n" in text
    assert "Final error: better (bbob 10-D), undecided (bbob 10/D)" in text
    assert "Final error: better (bbob 10-D), undecided (bbob 10/D)" in page
    difference = saved["suites"]["bbob 10-D"]["against_reference"][US]["final"]["difference"]
    assert difference == list(found["suites"]["bbob 10-D"]["against_reference"][US]["final"]["difference"])
    assert "Trained &lt;elsewhere&gt; &amp; before." in page


def test_every_picture_of_the_report_exists_and_no_suite_overwrites_another(written):
    folder, _ = written
    named = re.findall(r"!\[.*?\]\((.*?)\)", (folder / "report.md").read_text())
    on_disk = sorted(f"plots/{path.name}" for path in (folder / "plots").iterdir())
    assert sorted(named) == on_disk
    assert len(set(named)) == len(named)
    assert all((folder / path).read_bytes().startswith(b"\x89PNG") for path in named)
    # Two contestants have no critical difference worth a picture.
    ranks = [path for path in named if path.endswith("ranks.png")]
    assert ranks == ["plots/bbob-10-d-final-ranks.png", "plots/bbob-10-d-anytime-ranks.png"]


def test_the_page_needs_nothing_from_outside(written):
    folder, _ = written
    page = (folder / "race.html").read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"https?://|<script|<link", page)
    assert page.count("data:image/png") == len(list((folder / "plots").iterdir()))


def test_markdown_tables_have_as_many_cells_as_columns(written):
    folder, _ = written
    lines = (folder / "report.md").read_text().splitlines()
    for i, line in enumerate(lines):
        if line.startswith("| --- |"):
            end = next(j for j in range(i, len(lines)) if not lines[j].startswith("|"))
            assert end > i + 1
            assert len({row.count("|") for row in lines[i - 1 : end]}) == 1


def test_the_table_is_printed_with_its_verdict(written):
    console = Console(record=True, width=200, file=StringIO())
    race_report.show(console, written[1])
    text = console.export_text()
    assert f"{US} is better than {THEM}" in text
    assert "Undecided at the end of the budget" in text
    assert "random search" in text

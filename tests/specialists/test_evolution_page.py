"""The page of a search: everything on it comes from the log, and nothing from outside."""

import math
import re

import numpy as np
import pytest

from experiments.page import significant
from experiments.runs import Run
from ga.controls import CONTROL_RANGES
from ga.gene_history import GeneHistory
from ga.progress import STATISTIC_NAMES
from ga.space import GenomeSpace
from specialists.evolution_page import PAGE, REFRESH_SECONDS, evolution_page, write_evolution_page

SPACE = GenomeSpace(
    ("bias", "stop_atr", "max_hold", "mode"),
    np.array([-1.0, 0.5, 1.0, 0.0]),
    np.array([1.0, 10.0, 200.0, 1.0]),
    ("real", "log", "integer", "choice"),
    {"mode": ("calm", "wild")},
)
HALL = [
    {
        "fitness": 2.5 - k,
        "genes": {"bias": 0.25, "stop_atr": 6.125, "max_hold": 100, "mode": "wild"},
        "generation": 7,
    }
    for k in range(3)
]
REPORT = {
    "verdict": "FAIL: the volatile specialist does not pass.",
    "passed": False,
    "criteria": [{"name": "trades out of sample", "value": 4.0, "threshold": 20.0, "passed": False}],
    "metrics": {
        "in sample": {"sharpe": 3.5, "n_trades": 40},
        "out of sample": {"sharpe": -0.25, "n_trades": 4},
    },
    "data": {"origin": "SYNTHETIC market (seed 7), not real prices"},
}


def row(generation, **changes):
    return {
        "generation": generation,
        "evaluations": 16 * (generation + 1),
        "best": 1.0 + 0.125 * generation,
        "median": 0.5,
        "diversity": 0.25,
        "stagnation": 0,
        **dict.fromkeys(STATISTIC_NAMES, 0.25),
        **{name: bounds.high if generation else math.nan for name, bounds in CONTROL_RANGES.items()},
    } | changes


def page(n=9, report=None, rows=None, **further):
    history = GeneHistory(SPACE)
    rows = [row(g) for g in range(n)] if rows is None else rows
    for g in range(max(one["generation"] for one in rows) + 1):
        history.add(g, np.random.default_rng(g).random((16, 4)))
    made = evolution_page(
        rows, history, title="volatile specialist", n_generations=30, report=report, **further
    )
    return made.decode()


def words(text):
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.S)).split())


def cells(text, table):
    (body,) = re.findall(f'<table id="{table}">.*?</table>', text, flags=re.S)
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr[^>]*>(.*?)</tr>", body)
    ]


def test_a_page_of_a_finished_search_holds_verdict_pictures_hall_and_settings():
    text = page(report=REPORT, hall_of_fame=HALL, settings={"policy": {"name": "fixed"}}, facts={"seed": 7})
    said = words(text)
    for part in (
        "finished",
        "SYNTHETIC market (seed 7), not real prices.",
        "8 of 30",
        "FAIL: the volatile specialist does not pass.",
        "trades out of sample 4 20 fail",
        "Sharpe 3.50 -0.25",
        "policy.name fixed",
        "seed 7",
    ):
        assert part in said
    chapters = re.findall(r"<h2>(.*?)</h2>", text)
    expected = [
        "Verdict",
        "Fitness and diversity",
        "Operators",
        "Controls",
        "Genes",
        "Hall of fame",
        "Settings",
    ]
    assert chapters == [*expected, "The run"]
    assert text.count("<img ") == 4
    assert cells(text, "hall")[1:3] == [
        ["fitness", "2.500", "1.500", "0.500"],
        ["born in generation", "7", "7", "7"],
    ]
    assert ["bias", "0.2500", "0.2500", "0.2500"] in cells(text, "hall")
    assert ["mode", "wild", "wild", "wild"] in cells(text, "hall")


def test_numbers_of_the_latest_generations_are_those_of_the_log():
    rows = [row(g, best=1.0 + g / 3, success_rate=g / 40) for g in range(20)]
    found = cells(page(rows=rows), "latest")[1:]
    assert len(found) == 12
    assert [line[0] for line in found] == [str(g) for g in range(19, 7, -1)]
    assert found[0][1:6] == [f"{1 + 19 / 3:.4f}", "0.5000", "0.2500", "320", "47.5%"]


def test_a_page_of_a_running_search_loads_itself_again_and_a_finished_one_does_not():
    running, finished = page(), page(report=REPORT)
    mark = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
    assert running.count(mark) == 1
    assert running.index(mark) < running.index("<body>")
    assert "refresh" not in finished
    assert "running" in words(running)
    assert "Verdict" not in running


def test_a_page_needs_nothing_from_outside():
    text = page(report=REPORT, hall_of_fame=HALL)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', text) == []
    assert "url(" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_text_of_the_run_cannot_become_markup():
    evil = "<script>alert(1)</script>"
    text = page(
        report=REPORT | {"verdict": evil, "data": {"origin": evil}},
        settings={evil: evil},
        facts={evil: evil},
        hall_of_fame=[{"fitness": 1.0, "genes": {"mode": evil}}],
    )
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_first_generation_alone_makes_a_page():
    text = page(n=1)
    assert text.count("<img ") == 2  # nothing has been bred: no operators, no controls
    assert "0 of 30" in words(text)
    with pytest.raises(ValueError, match="there is no generation yet"):
        evolution_page([], GeneHistory(SPACE), title="x", n_generations=1)


def test_islands_are_told_apart_and_counted_together():
    rows = [row(g, island=i, best=g + i) for g in range(3) for i in (0, 1)]
    text = page(rows=rows)
    assert cells(text, "latest")[1][:3] == ["2", "1", "3.0000"]
    headline = dict(zip(*cells(text, "headline"), strict=True))
    assert headline["evaluations"] == str(2 * 48)
    assert headline["best fitness, in sample"] == "3.000"
    assert headline["found in generation"] == "2"


def test_a_search_without_a_valid_genome_has_a_page():
    rows = [row(g, best=-math.inf, median=-math.inf) for g in range(3)]
    assert dict(zip(*cells(page(rows=rows), "headline"), strict=True))["best fitness, in sample"] == "-"


def test_genes_of_the_hall_are_shaded_by_their_place_in_the_range():
    genes = {"bias": -1.0, "stop_atr": math.sqrt(5.0), "max_hold": 200, "mode": "calm"}
    text = page(hall_of_fame=[{"fitness": 1.0, "genes": genes}])
    (body,) = re.findall('<table id="hall">.*?</table>', text, flags=re.S)
    shade = dict(re.findall(r'<th scope="row">(\w+)</th><td style="background:rgba\(([\d,.]+)\)"', body))
    assert shade["bias"] == "179,38,30,0.55"  # the lowest
    assert shade["max_hold"] == "11,122,59,0.55"  # the highest
    assert "mode" not in shade  # a choice is neither
    assert float(shade.get("stop_atr", "0,0,0,0.00").split(",")[-1]) == pytest.approx(0.0, abs=0.01)
    assert significant(math.sqrt(5.0), 4) in body


def test_a_page_is_written_whole_into_its_run(tmp_path):
    run = Run.open(tmp_path, "evolve", "volatile")
    history = GeneHistory(SPACE)
    history.add(0, np.random.default_rng(0).random((16, 4)))
    write_evolution_page(run, [row(0)], history, title="volatile specialist", n_generations=3)
    first = (run.folder / PAGE).read_bytes()
    assert first.endswith(b"</html>\n")
    history.add(1, np.random.default_rng(1).random((16, 4)))
    write_evolution_page(
        run, [row(0), row(1)], history, title="volatile specialist", n_generations=3, report=REPORT
    )
    assert (run.folder / PAGE).read_bytes() != first
    assert [path.name for path in run.folder.iterdir()] == [PAGE]

"""The whole command ``python -m experiments`` on runs that the other commands have made."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments import reproducing
from experiments.__main__ import main
from ga.evolve import main as evolve
from regimes.detect import main as detect
from tests.unpainted import unpainted

SMALL = [
    "--set", "market.synthetic.n_bars=9000",
    "--set", "detector={name: volatility}",
    "--set", "fitness={folds: 4, min_trades: 5}",
    "--set", "hyperparameters={population_size: 16, n_generations: 3, patience: 0}",
]  # fmt: skip
DETECT = [
    "--set", "market.synthetic.n_bars=5000", "--set", "measures.n_paths=99", "--detector", "volatility",
]  # fmt: skip


def status(command, *arguments):
    with pytest.raises(SystemExit) as exit_:
        command([str(argument) for argument in arguments])
    return exit_.value.code or 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two evolutions and a detection; what they print is of no interest here."""
    folder = tmp_path_factory.mktemp("laboratory") / "runs"
    assert status(evolve, *SMALL, "--runs", folder) == 0  # is repeated, with its pictures
    with unpainted():
        assert status(evolve, *SMALL, "--seed", 8, "--runs", folder) == 0
        assert status(detect, *DETECT, "--runs", folder) == 0
    return folder


@pytest.fixture
def experiments(runs, capsys):
    def call(*arguments, folder=runs):
        capsys.readouterr()
        code = status(main, *arguments, "--runs", folder)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def documents(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("evolve-*/report.json"))]


def test_the_list_agrees_with_the_reports(runs, experiments):
    code, text, _ = experiments("list", "--json")
    assert code == 0
    rows = json.loads(text)
    assert [row["command"] for row in rows] == ["evolve", "evolve", "detect"]
    for row, report in zip(rows, documents(runs), strict=False):
        assert row["sharpe_out_of_sample"] == report["metrics"]["out of sample"]["sharpe"]
        assert row["bars"] == 9000
        assert row["passed"] == report["passed"]
    code, table, _ = experiments("list", "--command", "evolve")
    assert code == 0
    assert [line.split()[0] for line in table.splitlines() if line.startswith("evolve")] == [
        row["run"] for row in rows[:2]
    ]
    assert "detect" not in table


def test_a_run_of_each_command_is_shown(runs, experiments):
    first = documents(runs)[0]
    code, text, _ = experiments("show", first["run"].rsplit("/", 1)[-1])
    assert code == 0
    for name in first["champion"]["genes"]:
        assert name in text
    assert " ".join(first["verdict"].split()) in " ".join(text.split())
    assert "hyperparameters.n_generations" in text
    code, text, _ = experiments("show", "latest")
    assert code == 0
    assert "detect-volatility" in text
    assert "regimes.html" in text


def test_specialists_are_listed_with_their_genes(runs, experiments):
    code, text, _ = experiments("specialists", "--regime", "volatile", "--json")
    assert code == 0
    rows = json.loads(text)
    assert [row["genes"] for row in rows] == [report["champion"]["genes"] for report in documents(runs)]
    assert [row["fitness"] for row in rows] == [report["champion"]["fitness"] for report in documents(runs)]
    assert json.loads(experiments("specialists", "--regime", "trending", "--json")[1]) == []


def test_two_runs_are_compared_and_their_returns_tested(runs, experiments):
    names = [report["run"].rsplit("/", 1)[-1] for report in documents(runs)]
    code, text, _ = experiments("compare", *names, "--json")
    assert code == 0
    found = json.loads(text)
    assert found["settings"] == {"seed": [7, 8]}
    assert found["same_data"] is True
    sharpes = [report["metrics"]["out of sample"]["sharpe"] for report in documents(runs)]
    test = found["returns"]["sharpe"]
    assert [test["first"], test["second"]] == pytest.approx(sharpes)
    code, text, _ = experiments("compare", *names)
    assert code == 0
    assert "paired stationary bootstrap" in text
    assert experiments("compare", names[0], "latest")[0] == 0


def test_a_run_is_reproduced_to_the_byte_and_a_changed_one_is_not(runs, experiments, tmp_path, monkeypatch):
    shutil.copytree(runs, tmp_path / "runs")
    (folder, *_) = sorted((tmp_path / "runs").glob("evolve-*"))
    code, text, _ = experiments(
        "reproduce", folder.name, "--json", "--scratch", tmp_path / "s", "--set", "workers.name=serial",
        folder=tmp_path / "runs",
    )  # fmt: skip
    found = json.loads(text)
    assert found["identical"] is True, [one for one in found["files"] if one["outcome"] == "different"]
    assert code == 0
    outcomes = {one["file"]: one["outcome"] for one in found["files"]}
    for name in (
        "checkpoints/specialist/genome.json",
        "checkpoints/specialist/scaler.json",
        "checkpoints/detector/detector.json",
        "checkpoints/hall_of_fame.json",
        "metrics/generations.parquet",
        "predictions/in_sample/trades.parquet",
        "predictions/out_of_sample/equity.parquet",
        "report.json",
    ):
        assert outcomes[name] == "same"
    assert not (runs.parent / "s").exists()

    # The control: one digit of one gene, against the same repetition.
    def repeated(command, **_):
        shutil.copytree(found["again"], Path(command[command.index("--runs") + 1], Path(found["again"]).name))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(reproducing.subprocess, "run", repeated)
    again = ["reproduce", folder.name, "--set", "workers.name=serial"]
    assert experiments(*again, folder=tmp_path / "runs")[0] == 0
    genome = folder / "checkpoints/specialist/genome.json"
    text = genome.read_text()
    digit = next(i for i, letter in enumerate(text) if letter in "12345678" and text[i - 1] in "0123456789")
    genome.write_text(f"{text[:digit]}{int(text[digit]) + 1}{text[digit + 1 :]}")
    code, text, _ = experiments(*again, folder=tmp_path / "runs")
    assert code == 1
    assert "Not reproduced: 1 of" in text
    line = next(line for line in text.splitlines() if "genome.json" in line)
    assert "different" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "evolve-x"], "no run 'evolve-x' in"),
        (["show", "evolve"], "may be any of 2"),
        (["compare", "latest", "nothing"], "no run 'nothing' in"),
        (["show", ""], "no run ''"),
        (["show", "../runs"], "no run '../runs'"),
        (["show"], "Missing argument"),
        ([], "Missing command"),
        (["reproduce", "latest", "--nothing"], "No such option"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(experiments, runs, capsys, arguments, said):
    if arguments and arguments != ["show"]:
        code, out, err = experiments(*arguments)
    else:
        code, (out, err) = status(main, *arguments), capsys.readouterr()
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert out == ""


def test_unfinished_and_damaged_runs_are_listed_and_not_reproduced(runs, experiments, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    first, second = sorted((tmp_path / "runs").glob("evolve-*"))
    (first / "report.json").unlink()
    (second / "manifest.json").write_text("{")
    _, text, _ = experiments("list", "--json", folder=tmp_path / "runs")
    assert [row["state"] for row in json.loads(text)][:2] == ["unfinished", "damaged"]
    for folder in (first, second):
        assert experiments("show", folder.name, folder=tmp_path / "runs")[0] == 0
        code, _, err = experiments("reproduce", folder.name, folder=tmp_path / "runs")
        assert code == 2
        assert "cannot be reproduced" in err


def test_an_empty_folder_is_no_error_for_a_list(experiments, tmp_path):
    assert experiments("list", folder=tmp_path)[:2] == (
        0,
        f"No runs in {tmp_path}. python -m ga.evolve makes one.\n",
    )
    assert experiments("list", "--json", folder=tmp_path)[:2] == (0, "[]\n")
    assert experiments("specialists", folder=tmp_path)[0] == 0
    assert experiments("show", "latest", folder=tmp_path)[0] == 2

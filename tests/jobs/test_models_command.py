"""``python -m experiments models`` on real strategies, which are saved and judged as a validation does it."""

import json
import shutil
from datetime import timedelta

import numpy as np
import pytest

from configs.load import ConfigError
from ensemble.folds import _place as place_of_fold
from ensemble.report import summary
from ensemble.strategy import Strategy
from experiments import models as registry
from experiments.__main__ import main
from experiments.models import Models, identified
from experiments.runs import Run
from tests.ensemble import market
from tests.ensemble.made_judged import N, made_judged, made_validated
from tests.experiments.made_runs import NOON, place

BLENDERS = ("route", "equal")


@pytest.fixture(scope="module")
def report():
    """What a validation of two folds says, which has failed."""
    found = summary(made_judged(made_validated(stops=(2_300, N)), permuted=False, comparisons=False))
    assert found["passed"] is False
    assert len(found["folds"]) == 2
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, report):
    """Two validations with the same two strategies: one has failed, and a later one passed."""
    root = tmp_path_factory.mktemp("laboratory") / "runs"
    for minutes, passed in enumerate((False, True)):
        run = Run.open(root, "validate", "route", NOON + timedelta(minutes=minutes))
        found = json.loads(json.dumps(report))
        for number, name in enumerate(BLENDERS):
            strategy = market.strategy(name)
            strategy.save(run.folder / place_of_fold(number))
            found["folds"][number]["fingerprint"] = strategy.fingerprint()
        if passed:
            kept = [one for one in found["criteria"] if one["passed"]]
            found |= {"passed": True, "criteria": kept, "verdict": f"PASS: all {len(kept)} criteria."}
        (run.folder / "config.yaml").write_text("seed: 7\n")
        run.write_manifest(data={"bars": "e" * 64}, seeds={"root": 7})
        place(run, "report.json", found)
    return root


@pytest.fixture
def at_once(monkeypatch):
    """Load strategies in this process, which has imported everything already."""
    monkeypatch.setattr(registry, "identified", lambda folder: Strategy.load(folder).fingerprint())


@pytest.fixture
def command(runs, tmp_path, capsys):
    def call(*arguments):
        places = ["--models", tmp_path / "models"]
        if arguments[0] == "register":
            places += ["--runs", runs]
        with pytest.raises(SystemExit) as end:
            main([str(one) for one in ("models", *arguments, *places)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return end.value.code or 0, " ".join(printed.out.split()), printed.err

    return call


def decided(strategy):
    bars, core, wide = market.bars(), market.core(), market.wide()
    return strategy.fresh().decide(bars, core, wide).to_table().values


def test_a_strategy_is_registered_promoted_and_rolled_back(command, at_once, runs, tmp_path):
    failed, passed = (run.name for run in sorted(runs.iterdir()))
    code, text, _ = command("register", "btc", failed, "--fold", 1, "--note", "a first try")
    assert code == 0
    assert "Registered btc version 1." in text
    assert f"{failed}, fold 1 of 2" in text
    assert "FAIL: the ensemble misses" in text
    assert "a first try" in text
    code, text, _ = command("register", "btc", "latest")
    assert code == 0
    assert f"{passed}, fold 2 of 2" in text

    code, text, error = command("promote", "btc", "--version", 1)
    assert (code, text) == (2, "")
    assert error.startswith(
        "error: model btc: version 1 is not promoted: its validation misses 4 of 22 criteria ("
    )
    assert command("promote", "btc", "--version", 1, "--force", "a rehearsal")[0] == 0
    code, text, _ = command("promote", "btc", "--note", "it passed")
    assert code == 0
    assert "btc version 2 is in production, instead of version 1." in text
    assert "verdict fail pass" in text
    code, text, _ = command("rollback", "btc", "--note", "it slept")
    assert "btc version 1 is in production again, instead of version 2." in text
    assert "verdict pass fail" in text
    code, _, error = command("rollback", "btc")
    assert (code, error) == (
        2,
        "error: model btc: there is nothing to roll back to; nothing was before version 1\n",
    )

    code, text, _ = command("show", "btc")
    assert code == 0
    for part in ("btc version 1 production whole", "a rehearsal", "it passed", "it slept", "rollback"):
        assert part in text
    code, text, _ = command("list")
    assert "btc 1 production fail" in text
    assert "btc 2 retired pass" in text


def test_list_and_show_are_plain_data_on_request(command, at_once, report):
    assert json.loads(command("list", "--json")[1]) == []
    assert "No models in" in command("list")[1]
    command("register", "btc", "latest")
    (row,) = json.loads(command("list", "--json")[1])
    strategy = market.strategy(BLENDERS[1])
    assert (row["model"], row["version"], row["stage"], row["state"]) == ("btc", 1, "candidate", "whole")
    assert row["fingerprint"] == strategy.fingerprint()
    assert row["sharpe_out_of_sample"] == report["metrics"]["strategy"]["sharpe"]
    found = json.loads(command("show", "btc", "--json")[1])
    assert {key: found[key] for key in row} == row
    origin = found["origin"]
    assert origin["looks"] == report["ledger"]["looks"]
    assert origin["trials"] == report["ledger"]["trials"]["n_unique"]
    assert origin["settings"] == report["data"]["settings"]
    assert origin["tested"] == [report["data"][key] for key in ("first", "last")]
    assert origin["fitted_until"] == strategy.fitted_until
    assert origin["members"] == [source.name for source in strategy.sources]


def test_a_registered_strategy_decides_the_same_bits_on_another_machine(command, at_once, tmp_path):
    command("register", "btc", "latest")
    command("promote", "btc")
    shutil.copytree(tmp_path / "models", tmp_path / "machine" / "models")
    shutil.rmtree(tmp_path / "models")
    served = Models(tmp_path / "machine" / "models").production("btc", Strategy.load)
    rows = decided(served)
    assert rows.tobytes() == decided(market.strategy(BLENDERS[1])).tobytes()
    assert rows.tobytes() != decided(market.strategy(BLENDERS[0])).tobytes()  # and not just any
    assert np.nanmax(np.abs(rows)) > 0


def test_a_strategy_is_loaded_by_a_process_of_its_own(tmp_path):
    market.strategy().save(tmp_path / "one")
    assert identified(tmp_path / "one") == market.strategy().fingerprint()


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import sys; sys.exit('error: ' + sys.argv[1] + '/a.json: is missing')", "{}/a.json: is missing"),
        (
            "import sys; sys.exit('error: no forecaster named x')",
            "{}: cannot be loaded: no forecaster named x",
        ),
        ("raise RuntimeError('a bug')", "{}: cannot be loaded: RuntimeError: a bug"),
        ("import os; os._exit(3)", "{}: cannot be loaded: it said nothing"),
    ],
)
def test_a_process_that_cannot_load_is_one_sentence(program, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_LOAD", program)
    with pytest.raises(ConfigError) as caught:
        identified(tmp_path)
    assert str(caught.value) == sentence.format(tmp_path)


def test_a_damaged_strategy_is_one_sentence_and_leaves_nothing(command, at_once, runs, tmp_path):
    folder = shutil.copytree(sorted(runs.iterdir())[1] / place_of_fold(0), tmp_path / "damaged")
    source = next(folder.rglob("source.json"))
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    source.write_bytes(content)
    code, text, error = command("register", "btc", folder)
    assert (code, text) == (2, "")
    assert error.count("\n") == 1
    assert f"{source.relative_to(folder)}: is not the file that was saved" in error
    assert not (tmp_path / "models").exists()


def test_a_served_version_that_was_altered_is_listed_as_damaged_and_not_loaded(command, at_once, tmp_path):
    command("register", "btc", "latest")
    command("promote", "btc")
    part = next((tmp_path / "models" / "btc" / "v1").rglob("source.json"))
    part.write_bytes(part.read_bytes() + b" ")
    assert "btc 1 production pass" in command("list")[1]
    assert "is not the file that was registered" in command("list")[1]
    assert "btc version 1 production damaged" in command("show", "btc")[1]
    with pytest.raises(ConfigError, match="v1: is damaged"):
        Models(tmp_path / "models").production("btc", Strategy.load)


def test_a_strategy_that_seals_other_parts_is_not_the_one_that_was_registered(command, at_once, tmp_path):
    # Whole in itself, and of the same files: only the digests that were noted tell.
    command("register", "btc", "latest")
    command("promote", "btc")
    folder = tmp_path / "models" / "btc" / "v1"
    market.strategy(BLENDERS[0]).save(folder)
    assert Strategy.load(folder).fingerprint() == market.strategy(BLENDERS[0]).fingerprint()
    with pytest.raises(ConfigError, match="is not the file that was registered"):
        Models(tmp_path / "models").production("btc", Strategy.load)

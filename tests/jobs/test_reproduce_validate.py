"""``python -m experiments reproduce`` of a validation: every file and number again but for a few."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from configs.load import load
from ensemble.settings import ValidateConfig
from ensemble.validate import main as validate
from experiments.__main__ import main as experiments
from experiments.ledger import Ledger
from experiments.reproducing import compare_files
from experiments.runs import Run
from market.sources.selection import select_bars

SMALL = [
    "market.synthetic.n_bars=5000", "detector.name=volatility", "specialists.regimes=[trending]",
    "folds={span: month, train_spans: 4, validation_spans: 1, embargo_bars: 24, latest: 1}",
    "specialists.hyperparameters={population_size: 16, n_generations: 2}", "specialists.generalist=false",
    "specialists.fitness={folds: 4, min_trades: 2}", "random_routing.draws=1", "rivals=[equal]",
    "forecast_features.names=[return_1,return_24,zscore_24,volatility_24]",
    "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 3}]",
    "evidence={comparisons: false, paths: 100, overfitting_paths: 20}",
    "robustness={sigmas: [0.1], draws: 1, cost_factors: [0.0, 1.0]}",
]  # fmt: skip


def status(command, *arguments):
    with pytest.raises(SystemExit) as end:
        command([str(argument) for argument in arguments])
    return end.value.code or 0


def run(folder):
    return Run(folder.name, folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A validation, what is said of its repetition, and the repetition."""
    place = tmp_path_factory.mktemp("reproduced")
    # Somebody has looked at these rows before: the ledger of the repetition will know nothing of it.
    market = load(ValidateConfig, "validate.yaml", SMALL).market
    bars = select_bars(market).bars
    Ledger(place / "ledger.sqlite").record_opening(bars.fingerprint(), "another", 0, 2**62, "someone")
    given = [part for setting in SMALL for part in ("--set", setting)]
    assert status(validate, "--runs", place / "runs", *given) == 0
    (first,) = (place / "runs").iterdir()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = status(
            experiments, "reproduce", first.name, "--runs", place / "runs", "--scratch", place / "scratch",
            "--json",
        )  # fmt: skip
    (second,) = (place / "scratch/runs").iterdir()
    return code, json.loads(said.getvalue()), first, second


def test_a_validation_is_reproduced_to_the_byte_but_for_places_times_and_the_ledger(pair):
    code, found, first, _ = pair
    different = [one for one in found["files"] if one["outcome"] in ("different", "missing", "new")]
    assert different == []
    assert (code, found["identical"]) == (0, True)
    outcomes = {one["file"]: one["outcome"] for one in found["files"]}
    for name in (
        "forecasters/logistic_4h/fold-001/fitted.json",
        "metrics/equity.parquet",
        "metrics/returns.parquet",
        "metrics/trades.parquet",
        "predictions/decisions.parquet",
        "report.json",
        "strategies/fold-001/strategy.json",
        "strategies/fold-001/sources/trending/genome.json",
    ):
        assert outcomes[name] == "same", name
    (note,) = (one["note"] for one in found["files"] if one["file"] == "report.json")
    assert "evidence.skill.champions" in note  # the look of somebody else, which the repetition does not know
    assert "ledger" in note
    assert json.loads((first / "report.json").read_text())["ledger"]["looks"]["others"] == 1


def edited(document, place, change):
    *path, last = place.split(".")
    for key in path:
        document = document[key]
    document[last] = change(document[last])


@pytest.mark.parametrize(
    ("place", "outcome"),
    [
        ("metrics.strategy.sharpe", "different"),
        ("evidence.skill.probabilistic", "different"),
        ("evidence.intervals.sharpe.low", "different"),
        ("costs.fees", "different"),
        ("evidence.skill.n_trials", "same"),
        ("ledger.trials.n_evaluated", "same"),
    ],
)
def test_one_changed_number_is_reported_unless_the_ledger_counts_it(pair, place, outcome, tmp_path):
    *_, first, second = pair
    copy = tmp_path / second.name
    shutil.copytree(second, copy)
    document = json.loads((copy / "report.json").read_text())
    edited(document, place, lambda number: float(np.nextafter(number, 1e9)) if outcome == "different" else 1)
    (copy / "report.json").write_text(json.dumps(document))
    found = {one["file"]: one for one in compare_files(run(first), run(copy))}
    assert found["report.json"]["outcome"] == outcome
    if outcome == "different":
        assert found["report.json"]["note"] == place
    assert {one["outcome"] for name, one in found.items() if name != "report.json"} == {
        "same", "not compared",
    }  # fmt: skip


def test_one_changed_digit_of_a_gene_or_a_decision_is_reported(pair, tmp_path):
    *_, first, second = pair
    for name in ("strategies/fold-001/sources/trending/genome.json", "predictions/decisions.parquet"):
        copy = tmp_path / name.replace("/", "-") / second.name
        shutil.copytree(second, copy)
        whole = bytearray((copy / name).read_bytes())
        place = next(i for i in range(len(whole) // 2, len(whole)) if chr(whole[i]) in "12345678")
        whole[place] += 1
        (copy / name).write_bytes(whole)
        outcomes = {one["file"]: one["outcome"] for one in compare_files(run(first), run(copy))}
        assert [file for file, outcome in outcomes.items() if outcome == "different"] == [name]

"""``python -m ensemble.validate`` whole, on tiny settings: what it leaves, resumes and refuses."""

import hashlib
import json

import pytest

from ensemble import running
from ensemble.validate import main
from experiments.ledger import Ledger
from specialists.blend import SIGNALS
from tests.unpainted import unpainted

TINY = [
    "market.synthetic.n_bars=7000", "folds.span=month", "folds.train_spans=5", "folds.validation_spans=1",
    "folds.embargo_bars=24", "folds.latest=2", "detector.name=volatility",
    "specialists.hyperparameters.population_size=16", "specialists.hyperparameters.n_generations=2",
    "specialists.fitness.folds=4", "specialists.fitness.min_trades=2", "random_routing.draws=2",
    "forecast_features.names=[return_1,return_24,zscore_24,volatility_24]",
    "forecasters=[{name: logistic, label: {horizon: 4h}, span: month, train_spans: 4}]",
    "rivals=[equal,online]", "evidence.comparisons=false", "evidence.paths=100",
    "evidence.overfitting_paths=20", "robustness.sigmas=[0.1]", "robustness.draws=2",
    "robustness.cost_factors=[0.0,1.0,2.0]",
]  # fmt: skip

READS = [*SIGNALS[:-1], "forecast_logistic_8h"]


def validate(runs, *arguments, settings=TINY):
    """Return the status, and the latest run."""
    given = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--runs", str(runs), *given])
    folders = sorted(runs.glob("validate-*")) if runs.exists() else []
    return end.value.code, folders[-1] if folders else None


def results(folder):
    """Digests of what a run decided and earned; its name stands in the report."""
    paths = [
        path for kind in ("metrics", "predictions") for path in sorted((folder / kind).rglob("*.parquet"))
    ]
    assert paths
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with unpainted():
        code, folder = validate(tmp_path_factory.mktemp("validate") / "runs")
    assert code == 0
    return folder


def test_a_validation_leaves_report_page_strategies_and_decisions(finished):
    found = json.loads((finished / "report.json").read_text())
    assert "SYNTHETIC" in json.dumps(found)
    for name in ("report.md", "validation.html", "config.yaml", "manifest.json", "log.txt"):
        assert (finished / name).stat().st_size
    assert sorted(path.name for path in (finished / "strategies").iterdir()) == ["fold-001", "fold-002"]
    assert b"http://" not in (finished / "validation.html").read_bytes().replace(b"http://www.w3.org", b"")


def test_every_evaluation_and_the_look_at_the_test_rows_are_in_the_ledger(finished):
    ledger = Ledger(finished.parent.parent / "ledger.sqlite")
    fingerprint = json.loads((finished / "manifest.json").read_text())["data"]["bars"]
    found = ledger.summary(fingerprint)
    assert found.n_runs == 1
    assert found.n_evaluated > 2 * 4 * 32
    assert ledger.record_opening(fingerprint, "another", 0, 2**62, "someone").others == 1


def test_a_killed_validation_ends_in_the_same_bytes(finished, tmp_path, monkeypatch, capsys, blank_pictures):
    calls = []

    def dying(self, number):
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, number)

    fit = running.FoldJob.__call__
    monkeypatch.setattr(running.FoldJob, "__call__", dying)
    code, folder = validate(tmp_path / "runs", "--workers", "serial")
    assert code != 0
    assert "--resume" in capsys.readouterr().out
    assert not (folder / "report.json").exists()
    monkeypatch.undo()
    code, again = validate(tmp_path / "runs", "--resume", "latest", settings=())
    assert code == 0
    assert again == folder
    assert "Going on after 1 of 2 folds" in capsys.readouterr().out
    assert results(folder) == results(finished)


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (("--blender", "rout"), TINY, "no blender named 'rout'; did you mean route?"),
        (("--detector", "zzz"), TINY, "no detector named 'zzz'"),
        (("--start", "2031-01-01"), TINY, "folds.start is 2031-01-01; no fold"),
        (("--bars", "nowhere.csv"), TINY, "nowhere.csv"),
        ((), [*TINY, "forecasters=[{name: oracle, span: month}]"], "no forecaster named 'oracle'"),
        ((), [*TINY, "rivals=[nobody]"], "no blender named 'nobody'"),
        ((), [*TINY, f"specialists.family={{name: blend, signals: {READS}}}"], "did you mean logistic_4h"),
        (("--resume", "latest"), (), "holds no validation to resume"),
        (("--resume-changed",), (), "--resume-changed was given without --resume"),
        (("--resume", "latest", "--seed", "8"), (), "--seed was given with --resume"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(arguments, settings, sentence, tmp_path, capsys):
    code, folder = validate(tmp_path / "runs", *arguments, settings=settings)
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert "Traceback" not in said
    assert folder is None


def test_a_finished_validation_is_not_resumed(finished, capsys):
    code, _ = validate(finished.parent, "--resume", "latest", settings=())
    assert code == 2
    assert "is finished" in capsys.readouterr().err


@pytest.mark.usefixtures("blank_pictures")
def test_the_whole_search_is_made_again_on_shuffled_markets(tmp_path):
    small = ["span=month", "population_size=16", "n_generations=2", "count=1"]
    more = [*TINY, *(f"permutation.{one}" for one in small), "forecasters=[]", "rivals=[]"]
    code, folder = validate(tmp_path / "runs", settings=more)
    assert code == 0
    found = json.loads((folder / "report.json").read_text())["permutations"]
    assert len(found["found"]) == found["permutations"] == 1
    assert found["found"][0] != found["observed"]
    assert found["p"] == (0.5 if found["found"][0] < found["observed"] else 1.0)

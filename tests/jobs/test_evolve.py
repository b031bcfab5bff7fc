import json
from pathlib import Path

import pytest

from ga.evolve import main
from specialists.specialist import Specialist

SMALL = [
    "--set", "market.synthetic.n_bars=9000",
    "--set", "detector={name: volatility}",
    "--set", "fitness={folds: 4, min_trades: 5}",
    "--set", "hyperparameters={population_size: 16, n_generations: 3, patience: 0}",
]  # fmt: skip


def evolve(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return exit_.value.code


def bytes_of_result(folder: Path) -> bytes:
    names = ("checkpoints/specialist/genome.json", "predictions/out_of_sample/equity.parquet")
    trades = ("predictions/out_of_sample/trades.parquet", "predictions/in_sample/trades.parquet")
    return b"".join((folder / name).read_bytes() for name in (*names, *trades))


@pytest.fixture
def painted_run(tmp_path, capsys):
    def start(*arguments):
        assert evolve("--runs", str(tmp_path / "runs"), *SMALL, *arguments) == 0
        folder = sorted((tmp_path / "runs").iterdir())[-1]
        return folder, capsys.readouterr()

    return start


@pytest.fixture
def small_run(painted_run, blank_pictures):
    return painted_run


def test_a_run_ends_with_a_verdict_and_keeps_everything_it_claims(painted_run):
    folder, printed = painted_run()
    text = " ".join(printed.out.split())
    assert "SYNTHETIC market (seed 7), not real prices" in text
    for word in ("in sample", "out of sample", "buy and hold", "Genes", "Luck:", "weight_return_4"):
        assert word in text
    assert "PASS:" in text or "FAIL:" in text
    assert folder.name in text.replace(" ", "")
    for name in ("fitness", "trades", "equity"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((folder / "report.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["bars"] == report["data"]["fingerprint"]
    assert manifest["seeds"] == {"root": 7}
    assert report["verdict"] in (folder / "report.md").read_text()
    assert (folder / "metrics" / "generations.parquet").stat().st_size > 0
    specialist = Specialist.load(folder / "checkpoints" / "specialist")
    assert specialist.genes_by_name() == report["champion"]["genes"]


def test_a_tear_sheet_is_written_on_request_and_linked_from_the_report(small_run):
    folder, _ = small_run(
        "--set", "tearsheet=true", "--set", "venue.kind=perpetual", "--set", "venue.lot=0.001"
    )
    page = (folder / "tearsheet" / "tearsheet.html").read_text(encoding="utf-8")
    assert "out-of-sample" in page.lower()
    assert "Perpetual: funding" in page
    assert "2020-03-12" in page  # the crises it does not cover are named as well
    assert (
        "[Tear sheet of the test rows, with stress tests](tearsheet/tearsheet.html)"
        in (folder / "report.md").read_text()
    )
    assert "Perpetual" in (folder / "report.md").read_text()


def test_json_is_all_that_reaches_standard_output(small_run):
    _, printed = small_run("--json", "--regime", "ranging")
    report = json.loads(printed.out)
    assert report["regime"] == "ranging"
    assert report["passed"] is all(criterion["passed"] for criterion in report["criteria"])
    assert report["search"]["generations"] == 3
    assert "SYNTHETIC" in printed.err


def test_the_same_seed_writes_the_same_champion_trades_and_equity(small_run):
    first, _ = small_run("--threads", "1")
    second, _ = small_run("--threads", "2")
    assert first != second
    assert bytes_of_result(first) == bytes_of_result(second)


def test_a_written_config_repeats_the_run(small_run, capsys, tmp_path):
    first, _ = small_run("--seed", "5")
    assert evolve("--config", str(first / "config.yaml")) == 0
    second = sorted((tmp_path / "runs").iterdir())[-1]
    assert second != first
    assert bytes_of_result(first) == bytes_of_result(second)


def test_the_ledger_counts_the_trials_of_every_run_and_each_look_at_the_test_rows(small_run):
    first = json.loads((small_run()[0] / "report.json").read_text())["evidence"]
    second = json.loads((small_run("--seed", "8")[0] / "report.json").read_text())["evidence"]
    assert (first["n_runs"], second["n_runs"]) == (1, 2)
    assert second["n_trials"] > first["n_trials"] > 16
    assert (first["earlier_looks"], second["earlier_looks"]) == (0, 1)
    assert (first["champions"], second["champions"]) == (1, 2)
    assert first["deflated_unseen"] == first["probabilistic_sharpe"]
    assert second["deflated_unseen"] < second["probabilistic_sharpe"]


def test_judging_the_same_champion_again_is_a_look_but_no_further_champion(small_run):
    reports = [json.loads((small_run()[0] / "report.json").read_text()) for _ in range(2)]
    first, second = (report["evidence"] for report in reports)
    assert (second["earlier_looks"], second["champions"]) == (1, 1)
    assert second["deflated_unseen"] == first["deflated_unseen"]
    assert reports[0]["verdict"] == reports[1]["verdict"]


def test_a_search_that_is_broken_off_still_counts(small_run, monkeypatch, tmp_path):
    from experiments.ledger import Ledger
    from specialists.watching import GenerationTable

    def interrupt(self, evolution):
        if evolution.progress.generation == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(GenerationTable, "show", interrupt)
    assert evolve("--runs", str(tmp_path / "runs"), *SMALL) == 130
    monkeypatch.undo()
    report = json.loads((small_run()[0] / "report.json").read_text())
    summary = Ledger(tmp_path / "ledger.sqlite").summary(report["data"]["fingerprint"])
    assert summary.n_runs == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--regime", "volatil"], "error: no regime named 'volatil'; did you mean volatile?"),
        (["--bars", "nowhere.parquet"], "error: nowhere.parquet: no such file"),
        (["--set", "fitness.fold=3"], "fitness.fold is not a setting; did you mean folds?"),
        (["--set", "hyperparameters.population_size=many"], "population_size is 'many'"),
        (["--set", "seed"], "--set seed: must look like section.setting=value"),
        (["--timerange", "yesterday"], "timerange 'yesterday' must look like 20190101-20240630"),
        (["--timerange", "19990101-20000101"], "SYN/USDT 1h has no bars there"),
        (["--symbol", "BTC/USDT"], "name the file with --bars"),
        (["--set", "detector.name=hnm"], "no detector named 'hnm'; did you mean hmm?"),
        (["--set", "costs.delay_bars=1"], "costs.delay_bars is 1"),
        (["--set", "venue.kind=spot"], "cannot go short; set limits.long_only to true"),
        (["--set", "limits.max_exposure=3", "--set", "venue.kind=perpetual"], "with leverage 1; it must not"),
        (["--set", "market.funding=nowhere.csv"], "nowhere.csv: no such file"),
        (["--config", "evolv.yaml"], "evolv.yaml: no such config file; did you mean evolve.yaml?"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_leaves_no_run_behind(arguments, sentence, capsys, tmp_path):
    assert evolve("--runs", str(tmp_path / "runs"), *SMALL, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_bars_with_a_missing_price_are_refused_with_row_and_rule(tmp_path, capsys):
    rows = ["timestamp,open,high,low,close,volume"]
    rows += [f"2021-01-01T{h:02d}:00:00Z,100,101,99,{'' if h == 7 else 100},5" for h in range(24)]
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text("\n".join(rows) + "\n")
    assert evolve("--bars", str(path), "--runs", str(tmp_path / "runs")) == 2
    error = capsys.readouterr().err
    assert "close" in error
    assert "row 7" in error or "row 8" in error or "line 9" in error
    assert not (tmp_path / "runs").exists()

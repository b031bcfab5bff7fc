"""A search mirrored into real Optuna storages, read back by Optuna itself."""

import math
import sys
from pathlib import Path

import pytest

from configs.load import ConfigError
from experiments.mirror import SHOWN, STATISTICS, StudyMirror

optuna = pytest.importorskip("optuna")

PARAMETERS = {"mutation_rate": (0.004, 1.0, "log"), "crossover_rate": (0.0, 1.0, "linear")}


def row(generation: int, best: float = math.nan) -> dict:
    made = generation > 0
    return {
        "generation": generation,
        "evaluations": 10 * (generation + 1),
        "best": generation / 7 if math.isnan(best) else best,
        "median": -math.inf,
        "diversity": 0.3,
        "fitness_skew": 0.1 + generation,
        "mutation_rate": 0.004 * (generation + 1) if made else math.nan,
        "crossover_rate": 0.9 if made else math.nan,
    }


def address(kind: str, folder: Path) -> str:
    return (
        f"sqlite:///{folder}/studies.sqlite"
        if kind == "database"
        else str(folder / "new" / "studies.journal")
    )


def read_back(storage: str):
    if "://" not in storage:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    return optuna.load_study(study_name="evolve-volatile", storage=storage)


@pytest.mark.parametrize("kind", ["database", "journal"])
def test_every_generation_becomes_one_trial_that_optuna_reads(tmp_path, kind, capfd):
    storage = address(kind, tmp_path)
    for generations in ((0, 1, 1), (1, 2, 3)):  # broken off, and resumed one generation earlier
        with StudyMirror(storage, "evolve-volatile", PARAMETERS) as mirror:
            for generation in generations:
                mirror.note(row(generation))
        assert mirror.problem == ""
    study = read_back(storage)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.user_attrs["generation"] for trial in study.trials] == [0, 1, 2, 3]
    assert [trial.value for trial in study.trials] == [g / 7 for g in range(4)]  # to the bit
    assert study.best_value == 3 / 7
    assert study.trials[0].params == {}  # nothing controls the initial population
    last = study.trials[3]
    assert last.params == {"mutation_rate": 0.004 * 4, "crossover_rate": 0.9}
    assert last.distributions["mutation_rate"].log
    assert not last.distributions["crossover_rate"].log
    assert last.user_attrs["evaluations"] == 40
    assert "median" not in last.user_attrs  # it was not finite
    assert last.user_attrs[STATISTICS] == {"fitness_skew": 3.1}
    assert set(last.user_attrs) <= {"generation", STATISTICS, *SHOWN}
    assert capfd.readouterr() == ("", "")


def test_runs_share_a_storage_and_not_a_study(tmp_path):
    storage = address("journal", tmp_path)
    for name in ("evolve-volatile", "evolve-trending"):
        with StudyMirror(storage, name, PARAMETERS) as mirror:
            mirror.note(row(1))
    assert len(read_back(storage).trials) == 1


def test_a_generation_without_a_fitness_is_a_failed_trial_and_controls_stay_in_their_range(tmp_path):
    storage = address("journal", tmp_path)
    with StudyMirror(storage, "evolve-volatile", PARAMETERS) as mirror:
        mirror.note(row(1, best=-math.inf) | {"crossover_rate": 1.0 + 1e-12})
    (trial,) = read_back(storage).trials
    assert trial.state == optuna.trial.TrialState.FAIL
    assert trial.value is None
    assert trial.params["crossover_rate"] == 1.0


def test_a_storage_that_fails_ends_the_mirror_and_not_the_search(tmp_path):
    storage = address("database", tmp_path)
    mirror = StudyMirror(storage, "evolve-volatile", PARAMETERS)
    with mirror:
        mirror.note(row(0))
        mirror._thread.submit(lambda: None).result()  # it is written
        mirror._study._storage._backend.engine.dispose()
        (tmp_path / "studies.sqlite").write_bytes(b"no database any more" * 500)
        for generation in (1, 2, 3):
            mirror.note(row(generation))
    assert mirror.problem.startswith(f"Optuna storage {storage}: cannot be written (")
    assert mirror.problem.endswith("; the mirror has ended")
    assert "\n" not in mirror.problem
    mirror.note(row(4))  # and stays ended


def test_an_error_of_ours_is_not_hidden(tmp_path, monkeypatch):
    mirror = StudyMirror(address("journal", tmp_path), "evolve-volatile", PARAMETERS)
    monkeypatch.setattr(mirror, "_trial", lambda *_: (_ for _ in ()).throw(TypeError("a bug")))
    mirror.note(row(0))
    with pytest.raises(TypeError, match="a bug"):
        mirror.close()


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("sqlite:///{}/none/studies.sqlite", "unable to open database file"),
        ("nothing://host/database", "nothing"),
        (" ", "empty text"),
        ("{}/text.journal", "it is not a journal of Optuna"),
        ("sqlite:///{}/text.journal", "not a database"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_sentence(tmp_path, storage, said):
    (tmp_path / "text.journal").write_text("some text, no journal and no database\n" * 100)
    with pytest.raises(ConfigError, match=said) as caught:
        StudyMirror(storage.format(tmp_path), "evolve-volatile", PARAMETERS)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        StudyMirror("nothing://me:secret@host/database", "evolve-volatile", PARAMETERS)
    assert "nothing://me:***@host/database" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_optuna_one_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'regime-conductor\[studies\]'"):
        StudyMirror(address("journal", tmp_path), "evolve-volatile", PARAMETERS)

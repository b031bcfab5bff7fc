import io

import numpy as np
from rich.console import Console

from compute.seeds import stream
from experiments.ledger import Ledger
from ga.controls import Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution, search
from ga.policies import FixedPolicy
from ga.space import GenomeSpace
from specialists.watching import GenerationTable, TrialBook

SPACE = GenomeSpace(("a", "b"), np.zeros(2), np.ones(2), ("real", "real"))


def fitness_and_sharpe(genes):
    return np.column_stack([-(genes**2).sum(axis=1), genes[:, 0]])


def small_search(after, generations=25):
    settings = Hyperparameters(population_size=8, n_generations=generations, patience=0)
    evolution = Evolution(SPACE, settings, stream(1, "watching"))
    evaluator = Evaluator(fitness_and_sharpe, SPACE)
    search(evolution, evaluator, FixedPolicy(), lambda searched: after(searched, evaluator))
    return evaluator


def watched(terminal):
    page = io.StringIO()
    console = Console(file=page, force_terminal=terminal, width=100)
    with GenerationTable(console, 25) as table:
        small_search(lambda evolution, _: table.show(evolution))
    return page.getvalue()


def test_without_a_terminal_about_ten_lines_tell_the_whole_search():
    lines = watched(terminal=False).splitlines()
    assert 8 <= len(lines) <= 15
    assert "gen    0/25" in lines[0]
    assert "gen   25/25" in lines[-1]
    assert lines[-1].endswith("done")
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_the_table_is_redrawn():
    text = watched(terminal=True)
    assert "\x1b[" in text
    assert "25/25" in text
    assert "per second" in text


def test_the_book_writes_every_trial_once(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with TrialBook(ledger, "f" * 64, "run-1") as book:
        book._next = 0.0  # as if seconds had passed: an early note must not be written twice
        evaluator = small_search(lambda _, evaluator: book.note(evaluator))
    summary = ledger.summary("f" * 64)
    assert summary.n_unique == evaluator.evaluations
    assert summary.n_evaluated == evaluator.evaluations + evaluator.hits
    assert summary.n_defined == evaluator.evaluations
    assert np.isclose(summary.sharpe_mean, evaluator.details()[:, 0].mean())


def test_a_search_that_never_started_leaves_the_book_empty(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with TrialBook(ledger, "f" * 64, "run-1"):
        pass
    assert ledger.summary("f" * 64).n_runs == 0

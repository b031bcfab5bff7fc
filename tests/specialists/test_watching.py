import io
import json

import numpy as np
import pytest
from rich.console import Console

from compute.seeds import stream
from configs.load import load
from experiments.ledger import Ledger
from experiments.trials import TrialMatrix
from ga.controls import Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.policies import FixedPolicy
from ga.searching import search
from ga.space import GenomeSpace
from specialists.evolving import EvolveConfig, evolve_run
from specialists.fitness import Fitness
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


def noted(evaluator, batches, book, until):
    for generation in range(until):
        evaluator(batches[generation], generation)
        book.note(evaluator)


class Appending(TrialBook):
    """Wrong on purpose: writes what it finds without saying which generation it was."""

    def write(self):
        before = self._written
        if self._evaluator is not None:
            calls, sharpes = self._evaluator.calls[before:], self._evaluator.details()[:, 0]
            new = int(calls[:, 1].sum())
            self._ledger.record(*self._place, sharpes[len(sharpes) - new :], int(calls[:, 1:].sum()), new)
            self._written = before + len(calls)


@pytest.mark.parametrize(("kind", "right"), [(TrialBook, True), (Appending, False)])
@pytest.mark.parametrize("written_until", [0, 2, 4])
def test_a_killed_and_resumed_run_counts_every_trial_once(tmp_path, kind, right, written_until):
    batches = np.round(stream(2, "resumed").random((6, 20, 2)), 1)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    killed = Evaluator(fitness_and_sharpe, SPACE)
    book = kind(ledger, "f" * 64, "run-1")
    for generation in range(5):
        if generation == 3:
            checkpoint = killed.state()  # of generations 0 to 2
        killed(batches[generation], generation)
        book.note(killed)
        if generation < written_until:
            book.write()
    # Killed here: some generations reached the ledger, later ones than the checkpoint or earlier ones.
    resumed = Evaluator(fitness_and_sharpe, SPACE)
    resumed.restore(checkpoint)
    with kind(ledger, "f" * 64, "run-1") as book:
        for generation in (3, 4, 5):
            resumed(batches[generation], generation)
            book.note(resumed)
    straight = Evaluator(fitness_and_sharpe, SPACE)
    other = Ledger(tmp_path / "straight.sqlite")
    with TrialBook(other, "f" * 64, "run-1") as book:
        noted(straight, batches, book, 6)
    found, expected = ledger.summary("f" * 64), other.summary("f" * 64)
    assert (found.n_unique == expected.n_unique) is (right or written_until == 0)
    assert (found == expected) is right  # the sums too, to the last bit
    assert expected.n_unique == straight.evaluations


def test_a_judgment_on_another_window_is_an_answer_but_no_trial(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    evaluator = Evaluator(fitness_and_sharpe, SPACE)
    genes = stream(3, "judged").random((12, 2))
    with TrialBook(ledger, "f" * 64, "run-1") as book:
        evaluator(genes, 0)
        book.note(evaluator)
        evaluator.fitness_of(genes, 1)
        evaluator(genes[:4], 1)
        book.note(evaluator)
    summary = ledger.summary("f" * 64)
    assert (summary.n_unique, summary.n_evaluated) == (12, 12 + 12 + 4)


def test_a_fitness_without_a_sharpe_ratio_is_counted_all_the_same(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    evaluator = Evaluator(lambda genes: genes.sum(axis=1), SPACE)
    with TrialBook(ledger, "f" * 64, "run-1") as book:
        evaluator(stream(3, "plain").random((12, 2)))
        book.note(evaluator)
    summary = ledger.summary("f" * 64)
    assert (summary.n_unique, summary.n_defined) == (12, 0)


class Counted:
    """A fitness that knows how often it was asked, whoever asks."""

    def __init__(self):
        self.n = 0

    def __call__(self, genes):
        self.n += len(genes)
        return fitness_and_sharpe(genes)


class Polishing(Evaluator):
    """Wrong on purpose: tries neighbors of the best on the side and tells nobody."""

    def __call__(self, genes, generation=None):
        fitness = super().__call__(genes, generation)
        if len(genes):
            self._answer(np.clip(genes[[int(np.argmax(fitness))]] + 0.01, 0, 1))
        return fitness


@pytest.mark.parametrize(("kind", "complete"), [(Evaluator, True), (Polishing, False)])
def test_no_evaluation_of_a_search_passes_the_ledger_by(tmp_path, kind, complete):
    # S5: what the ledger counted is what the fitness was really asked for.
    ledger, function = Ledger(tmp_path / "ledger.sqlite"), Counted()
    hyperparameters = Hyperparameters(population_size=12, n_generations=8, patience=0)
    evolution = Evolution(SPACE, hyperparameters, stream(1, "counted"))
    evaluator = kind(function, SPACE)
    with TrialBook(ledger, "f" * 64, "run-1") as book:
        search(evolution, evaluator, FixedPolicy(), lambda _: book.note(evaluator))
    assert (ledger.summary("f" * 64).n_unique == function.n) is complete


def test_no_evaluation_of_a_real_run_passes_the_ledger_by(tmp_path, monkeypatch):
    # S5 again, from settings to report: every genome that any code hands to the fitness.
    asked = []
    original = Fitness.__call__

    def counting(self, genes):
        asked.append(len(genes))
        return original(self, genes)

    monkeypatch.setattr(Fitness, "__call__", counting)
    config = load(
        EvolveConfig,
        "evolve.yaml",
        [
            "hyperparameters.population_size=24",
            "hyperparameters.n_generations=3",
            "detector={name: volatility}",
            "fitness.folds=4",
            "fitness.rotation=0.5",
            "market.synthetic.n_bars=9000",
            "market.synthetic.seed=3",
            "workers.name=serial",
            f"runs={tmp_path / 'runs'}",
        ],
    )
    folder = evolve_run(config, Console(file=io.StringIO()))
    found = json.loads((folder / "report.json").read_text())
    summary = Ledger(tmp_path / "ledger.sqlite").summary(found["data"]["fingerprint"])
    assert summary.n_unique == sum(asked) == found["search"]["unique"] == found["evidence"]["n_trials"]
    assert summary.n_evaluated == found["search"]["evaluated"] > summary.n_unique  # judged anew each time
    assert TrialMatrix.load(folder / "metrics" / "trials.npz").n_seen == sum(asked)


def test_a_search_that_never_started_leaves_the_book_empty(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with TrialBook(ledger, "f" * 64, "run-1"):
        pass
    assert ledger.summary("f" * 64).n_runs == 0

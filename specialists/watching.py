"""Watching a search: the live table for people, and the trial book for the ledger."""

import time
from typing import Self

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table as Grid

from experiments.ledger import Batch, Ledger
from ga.evaluation import Evaluator
from ga.evolution import Evolution

SHOWN = 12  # latest generations on screen
SECONDS_BETWEEN_NOTES = 5.0
LINES = 10  # lines in all where there is no terminal to redraw


class TrialBook:
    """Carries every evaluation of a search into the trial ledger, also when the search is broken off.

    Writing is durable and takes milliseconds, so it waits for some seconds' worth of trials. A search that
    fails or is interrupted has looked at the data all the same: what is left is written on the way out.

    A batch of the ledger is one call of the evaluator, which is one generation. The evaluator remembers its
    calls from the first generation on, also across a resume, and the ledger ignores a batch that it holds:
    a book that is opened on a resumed run therefore adds what a kill had kept from the ledger, and counts
    nothing twice.

    Parameters
    ----------
    ledger : Ledger
    fingerprint : str
        Identity of the bars.
    run_id : str
        A resumed run keeps its name.
    """

    def __init__(self, ledger: Ledger, fingerprint: str, run_id: str) -> None:
        self._ledger = ledger
        self._place = (fingerprint, run_id)
        self._evaluator: Evaluator | None = None
        self._written = 0  # calls
        self._next = time.monotonic() + SECONDS_BETWEEN_NOTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def note(self, evaluator: Evaluator) -> None:
        """Take note of the generation that has just been told; the evaluator is always the same one."""
        self._evaluator = evaluator
        if time.monotonic() >= self._next:
            self.write()
            self._next = time.monotonic() + SECONDS_BETWEEN_NOTES

    def write(self) -> None:
        """Write every call that is not written yet, now and in one transaction."""
        if self._evaluator is None:
            return
        calls, details = self._evaluator.calls, self._evaluator.details()
        sharpes = details[:, 0] if details.shape[1] else np.full(self._evaluator.evaluations, np.nan)
        ends = np.cumsum(calls[:, 1])
        batches = []
        for number in range(self._written, len(calls)):
            new, hits, judged_anew = calls[number, 1:].tolist()
            if new + hits + judged_anew:
                trials = sharpes[ends[number] - new : ends[number]]
                batches.append(Batch(trials, new + hits + judged_anew, new, number))
        if batches:
            self._ledger.record_all(*self._place, batches)
        self._written = len(calls)


class GenerationTable:
    """Draws a search while it runs; without a terminal it prints about ten plain lines instead.

    Parameters
    ----------
    console : Console
    n_generations : int
        Generations the run may take.
    """

    def __init__(self, console: Console, n_generations: int) -> None:
        self._console = console
        self._n_generations = n_generations
        self._rows: list[tuple[str, ...]] = []
        self._began = time.perf_counter()
        self._best = float("-inf")
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, evolution: Evolution) -> None:
        """Add the generation that has just been told."""
        progress = evolution.progress
        elapsed = time.perf_counter() - self._began
        speed = progress.evaluations / elapsed if elapsed > 0 else 0.0
        left = elapsed / (progress.generation + 1) * (self._n_generations - progress.generation)
        star = "*" if progress.best > self._best else " "
        self._best = max(self._best, progress.best)
        row = (
            f"{progress.generation}/{self._n_generations}",
            f"{progress.best:.3f}{star}",
            f"{progress.median:.3f}",
            f"{progress.diversity:.3f}",
            f"{progress.evaluations:,}",
            f"{speed:,.0f}",
            "done" if evolution.finished else f"{left:.0f} s",
        )
        if self._live is not None:
            self._rows = [*self._rows[-SHOWN + 1 :], row]
            self._live.update(self._grid())
        elif evolution.finished or progress.generation % max(1, self._n_generations // LINES) == 0:
            self._console.print(
                f"gen {row[0]:>7}  best {row[1]:>8} median {row[2]:>8}  diversity {row[3]}  "
                f"{row[5]:>7}/s  ETA {row[6]}",
            )

    def _grid(self) -> Grid:
        grid = Grid(title="Evolution (fitness on the training rows; * a new best)")
        for name in ("generation", "best", "median", "diversity", "evaluations", "per second", "ETA"):
            grid.add_column(name, justify="right")
        for row in self._rows:
            grid.add_row(*row)
        return grid

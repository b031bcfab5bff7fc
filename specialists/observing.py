"""What is done after each generation of a search: counted, drawn, shown to whoever watches."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from compute.workers import Mapper
from experiments.ledger import Ledger
from experiments.runs import Run
from ga.controls import CONTROL_RANGES
from ga.gene_history import GeneHistory
from ga.population import Population
from specialists.settings import EvolveConfig
from specialists.watching import GenerationTable, TrialBook

SECONDS_BETWEEN_PAGES = 10.0
SECONDS_BETWEEN_GAUGES = 1.0
PAGE_SHARE = 0.05  # of the run's time that may go into drawing


class Observers:
    """The trial book, the live table, the page, the gauges of a cluster and the mirror, in one.

    Parameters
    ----------
    run : Run
    config : EvolveConfig
    fingerprint : str
        Identity of the bars, for the ledger.
    ledger : Ledger
    title : str
        Of the page.
    search : Any
        Has ``evolution`` and ``evaluator``; see ``specialists.training.ChampionSearch``.
    workers : Mapper
    console : Console
    began : float
        Reading of the performance counter when this process took up the run, seconds.
    facts : mapping, optional
        What else the page should tell, by name.
    """

    def __init__(
        self,
        run: Run,
        config: EvolveConfig,
        fingerprint: str,
        ledger: Ledger,
        title: str,
        search: Any,
        workers: Mapper,
        console: Console,
        began: float,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._facts = dict(facts or {})
        self.history = GeneHistory(search.ready.fitness.family.space)
        self._run, self._config, self._title = run, config, title
        self._workers, self._search = workers, search
        self._table = GenerationTable(console, config.hyperparameters.n_generations)
        self._book = TrialBook(ledger, fingerprint, run.id)
        self._console = console
        self._mirror = None
        if config.mirror is not None:
            from experiments.mirror import StudyMirror

            ranges = {name: (known.low, known.high, known.scale) for name, known in CONTROL_RANGES.items()}
            self._mirror = StudyMirror(config.mirror, run.id, ranges)
        self._stack = ExitStack()
        self._before = 0.0  # seconds spent before this process took over
        self._began = began
        self._gauges_at = time.perf_counter()
        self._page_at = self._gauges_at + SECONDS_BETWEEN_PAGES
        self._evaluated = 0

    def __enter__(self) -> Self:
        for one in (self._table, self._book, self._mirror):
            if one is not None:
                self._stack.enter_context(one)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)
        if self._mirror is not None and self._mirror.problem:
            self._console.print(f"! {self._mirror.problem}", markup=False)

    @property
    def seconds(self) -> float:
        """Wall time spent on this search, by all processes that worked on it."""
        return self._before + time.perf_counter() - self._began

    def note(self) -> None:
        """Take note of the generation that has just been told."""
        evolution, evaluator = self._search.evolution, self._search.evaluator
        self._book.note(evaluator)
        self._table.show(evolution)
        if isinstance(evolution.population, Population):
            self.history.note(evolution)
        if self._mirror is not None:
            self._mirror.note(evolution.progress.row())
        now = time.perf_counter()
        if now >= self._gauges_at or evolution.finished:
            self._publish(now)
        if now >= self._page_at and not evolution.finished:
            self.write_page()
            spent = time.perf_counter() - now
            self._page_at = time.perf_counter() + max(SECONDS_BETWEEN_PAGES, spent / PAGE_SHARE)

    def write_page(
        self, report: dict[str, Any] | None = None, hall: list[dict[str, Any]] | None = None
    ) -> Path | None:
        """Write ``evolution.html``, while the search runs or with its report; return where.

        Searches without one fitness have no such page.
        """
        evolution = self._search.evolution
        if not isinstance(evolution.population, Population):
            return None
        from specialists.evolution_page import PAGE, write_evolution_page

        if hall is None:
            space = self.history.space
            hall = [
                {"fitness": one.fitness, "genes": space.values(one.genes), "generation": one.origin[1]}
                for one in evolution.hall_of_fame.genomes()
            ]
        evaluator = self._search.evaluator
        write_evolution_page(
            self._run,
            list(evolution.logbook),
            self.history,
            title=self._title,
            n_generations=self._config.hyperparameters.n_generations,
            hall_of_fame=hall,
            settings=self._config.model_dump(mode="json"),
            facts={
                "run": self._run.id,
                "seed": self._config.seed,
                "evaluations": evaluator.evaluations,
                "answered from memory among offspring": f"{evaluator.hit_rate:.1%}",
                "seconds": round(self.seconds, 1),
                **self._facts,
            },
            report=report,
        )
        return self._run.folder / PAGE

    def write_ledger(self) -> None:
        """Write what the trial book still holds."""
        self._book.note(self._search.evaluator)
        self._book.write()

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs of it."""
        return {"genes": self.history.state(), "seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.history.restore(state["genes"])
        self._before = float(state["seconds"])

    def _publish(self, now: float) -> None:
        progress, evaluator = self._search.evolution.progress, self._search.evaluator
        elapsed = max(now - self._gauges_at + SECONDS_BETWEEN_GAUGES, 1e-3)
        rate = (evaluator.evaluations - self._evaluated) / elapsed
        self._evaluated = evaluator.evaluations
        gauges = {
            "generation": progress.generation,
            "best": progress.best,
            "diversity": progress.diversity,
            "evaluations": evaluator.evaluations,
            "evaluations_per_second": rate,
            "cache_hits": evaluator.hits,
            "cache_hit_rate": evaluator.hit_rate,
        }
        self._workers.publish(gauges, run=self._run.id)
        self._gauges_at = now + SECONDS_BETWEEN_GAUGES

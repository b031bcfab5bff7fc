"""One evolution from settings to report: the steps of ``python -m ga.evolve`` in their order."""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from rich.console import Console

from compute.workers import Mapper, mapper
from configs.load import ConfigError, load
from experiments.ledger import Ledger
from experiments.runs import Run, code_version, latest, library_versions
from ga.checkpoint import Checkpoints
from ga.controls import Hyperparameters
from market.sources.selection import Selection, select_bars
from market.table import utc
from regimes.regime import Regime
from specialists import keeping, report
from specialists.archive_report import open_archive, save_archive, summary
from specialists.archives import Archive, ArchiveSearch
from specialists.fronts import FrontSearch, save_front
from specialists.observing import Observers
from specialists.settings import EvolveConfig, WorkersConfig
from specialists.training import (
    GENERALIST,
    ChampionSearch,
    Ground,
    SpecialistSearch,
    open_test,
    prepare,
)

LEDGER = "ledger.sqlite"
#: What must not differ when a run is resumed, not even by force.
FOR_GOOD = ("settings", "data")


@dataclass(frozen=True, eq=False)
class Work:
    """An evolution whose settings and bars have proved good.

    Parameters
    ----------
    config : EvolveConfig
    selection : Selection
    ground : Ground
    search : SpecialistSearch
    fingerprint : str
        Of all bars, not of the training rows: another split is no new data.
    began : float
        Reading of the performance counter at the start, seconds.
    hyperparameters : Hyperparameters
        Of the search: those of the config, or what its policy chose in their place.
    """

    config: EvolveConfig
    selection: Selection
    ground: Ground
    search: SpecialistSearch
    fingerprint: str
    began: float
    hyperparameters: Hyperparameters

    @classmethod
    def open(cls, config: EvolveConfig, console: Console) -> Self:
        """Read the bars, fit the detector on the training rows, and show what there is.

        Raises
        ------
        ConfigError, DataError
            If a setting or the bars will not do.
        """
        began = time.perf_counter()
        if config.regime != GENERALIST:
            Regime.of(config.regime)  # a typing error should not cost the minute of reading and fitting
        selection = select_bars(config.market)
        selection.show(console)
        with console.status("describing bars, fitting the regime detector"):
            ground = prepare(selection.bars, config)
        _show_ground(console, ground)
        search = SpecialistSearch.of(ground, config)
        fingerprint = selection.bars.fingerprint()
        return cls(config, selection, ground, search, fingerprint, began, _hyperparameters(config, search))

    def of_regime(self, config: EvolveConfig) -> Self:
        """Return the same work for settings that differ in the regime alone; nothing is fitted anew."""
        search = SpecialistSearch.of(self.ground, config)
        return replace(self, config=config, search=search, hyperparameters=_hyperparameters(config, search))

    @property
    def chosen(self) -> bool:
        """Whether the hyperparameters are not those of the config."""
        return self.hyperparameters != self.config.hyperparameters

    @property
    def title(self) -> str:
        """What plots and pages are titled with."""
        return f"{self.config.regime} specialist, {self.ground.bars.label}"

    def ledger(self) -> Ledger:
        """Return the trial ledger, which lies beside the folder of runs."""
        return Ledger(Path(self.config.runs).parent / LEDGER)

    def checkpoints(self, run: Run) -> Checkpoints:
        """Return the checkpoints of a run of this work; they fit no other settings, data or code."""
        identity = {
            "settings": self.config.digest(),
            "data": self.fingerprint,
            "code": code_version()["sources"],
            **library_versions(),
        }
        return Checkpoints(run.folder / "checkpoints" / "state", identity, self.config.checkpoints.keep)

    def begin(self, workers: Mapper) -> Any:
        """Return the search that the settings ask for, ready for its first step."""
        config = self.config
        if config.search == "champion":
            return ChampionSearch(self.search, workers)
        if config.search == "map_elites":
            return ArchiveSearch(self.search, workers, config.archive)
        return FrontSearch(self.search, workers, config.search, config.front)


def evolve_run(config: EvolveConfig, console: Console) -> Path:
    """Evolve, judge, print and save one specialist; return the folder of the run.

    The folder appears once the settings and the bars have proved good, so that a typing error leaves
    nothing behind.

    Parameters
    ----------
    config : EvolveConfig
    console : Console
        Where progress and verdict are shown.
    """
    work = Work.open(config, console)
    with open_workers(config.workers, console) as workers:
        run = Run.open(config.runs, "evolve", config.regime)
        begin_run(run, work)
        console.print(f"Run {run.id}, seed {config.seed}")
        with _resumable(run, console):
            complete(run, work, workers, console)
    return run.folder


def resume_run(
    runs: str, name: str, console: Console, workers: WorkersConfig | None = None, changed: bool = False
) -> Path:
    """Go on with a run that was stopped or killed, as if it had never been; return its folder.

    Parameters
    ----------
    runs : str
        Folder of runs.
    name : str
        Id of the run, or ``latest``.
    console : Console
    workers : WorkersConfig, optional
        Where evaluations run from now on; by default as before.
    changed : bool
        Whether to go on with other code or libraries than the run began with; the run is marked then.

    Raises
    ------
    ConfigError
        If there is no such run, it is finished, or its settings, data or code are not what they were.
    """
    run = latest(runs, "evolve") if name == "latest" else Run.at(runs, name)
    if run is None:
        raise ConfigError(f"{runs}: holds no evolution to resume; start one with python -m ga.evolve")
    if (run.folder / "report.json").exists():
        raise ConfigError(f"{run.folder}: this run is finished; its verdict is in report.md")
    config = load(EvolveConfig, run.folder / "config.yaml", runs=runs)
    if workers is not None:
        config = config.model_copy(update={"workers": workers})
    work = Work.open(config, console)
    with open_workers(config.workers, console) as workers_:
        console.print(f"Going on with run {run.id}, seed {config.seed}")
        with _resumable(run, console):
            complete(run, work, workers_, console, changed=changed)
    return run.folder


def open_workers(config: WorkersConfig, console: Console) -> Mapper:
    """Return the workers of a config; the address of a dashboard is printed."""
    workers = mapper(config.name, config.count, address=config.address, dashboard=config.dashboard)
    if workers.dashboard_hint is not None:
        console.print(workers.dashboard_hint, soft_wrap=True, highlight=True)
    if workers.metrics_url is not None:
        console.print(f"Gauges as Prometheus text: {workers.metrics_url}", soft_wrap=True)
    return workers


def begin_run(run: Run, work: Work, parents: tuple[str, ...] = ()) -> None:
    """Write what a run begins with: its settings, and where its results will come from."""
    run.write_config(work.config)
    keeping.write_manifest(run, work.config, work.ground, work.fingerprint, parents)


def hunt(
    run: Run,
    work: Work,
    checkpoints: Checkpoints,
    workers: Mapper,
    console: Console,
    changed: bool = False,
) -> tuple[Any, Observers]:
    """Search to the end, from the latest checkpoint where there is one; return search and observers.

    Parameters
    ----------
    run : Run
    work : Work
    checkpoints : Checkpoints
        Of this run; open, so that no other process works on it.
    workers : Mapper
    console : Console
    changed : bool
        See :func:`resume_run`.
    """
    config, search = work.config, work.begin(workers)
    # What watches the search goes by the hyperparameters that it has; the settings of the run stay.
    watched = config.model_copy(update={"hyperparameters": work.hyperparameters})
    observers = Observers(
        run,
        watched,
        work.fingerprint,
        work.ledger(),
        work.title,
        search,
        workers,
        console,
        work.began,
        {"hyperparameters": _choice(work)} if work.chosen else None,
    )
    if work.chosen:
        console.print(_choice(work), soft_wrap=True)
    run.remove_drafts()
    if checkpoints.generations():
        forced = [key for key in checkpoints.identity if key not in FOR_GOOD] if changed else ()
        found = checkpoints.load(forced)
        for note in found.notes:
            console.print(f"! {note}", markup=False)
            run.log(note)
        search.restore(found.state["search"])
        observers.restore(found.state["observers"])
        console.print(f"Continued after generation {found.generation}")
        run.log(f"continued after generation {found.generation}")
        if checkpoints.changes:
            run.write_json("changes.json", [change._asdict() for change in checkpoints.changes])
    every = config.checkpoints.every
    with observers, _Saving(checkpoints) as saving:
        while not search.finished:
            search.step(saving.wait)
            observers.note()
            generation = search.evolution.progress.generation
            if every and (generation % every == 0 or search.finished):
                saving.save(generation, {"search": search.state(), "observers": observers.state()})
        observers.write_ledger()
    return search, observers


def complete(
    run: Run, work: Work, workers: Mapper, console: Console, changed: bool = False
) -> dict[str, Any]:
    """Search to the end, open the test rows for the champion, print and save all; return the report."""
    with work.checkpoints(run) as checkpoints:  # locked until the report is written
        search, observers = hunt(run, work, checkpoints, workers, console, changed)
        return _judge(run, work, workers, console, search, observers)


def _judge(
    run: Run, work: Work, workers: Mapper, console: Console, search: Any, observers: Observers
) -> dict[str, Any]:
    config, ground = work.config, work.ground
    pictures: dict[str, str] = {}
    archive: Archive | None = None
    if isinstance(search, FrontSearch):
        front = search.front()
        evolved = front.evolved
        pictures = save_front(run, front, work.title)
    elif isinstance(search, ArchiveSearch):
        archive = search.archive()
        evolved = archive.evolved
    else:
        evolved = search.evolved()
    ledger = work.ledger()
    test = ground.bars.time[ground.split.test]
    subject = evolved.specialist.fingerprint()
    looks = ledger.record_opening(work.fingerprint, run.id, int(test[0]), int(test[-1]), subject)
    unseen = open_test(ground, evolved.specialist, config.costs, config.venue)
    evidence = report.weigh(evolved, unseen, ledger.summary(work.fingerprint), looks)
    judged = report.criteria(unseen, evidence)
    selection, bars = work.selection, ground.bars
    found = report.summary(
        evolved,
        unseen,
        evidence,
        judged,
        GENERALIST if evolved.specialist.regime is None else evolved.specialist.regime.text,
        data={
            "origin": selection.origin,
            "warnings": list(selection.warnings),
            "symbol": bars.symbol,
            "bars": len(bars),
            "fingerprint": work.fingerprint,
            "features": ground.features.version,
            "detector": config.detector.name,
        },
        rows=keeping.rows_of(ground),
        run=str(run.folder),
        seed=config.seed,
        wall_seconds=round(observers.seconds, 2),
    )
    if work.chosen:
        found["hyperparameters"] = work.hyperparameters.model_dump(mode="json")
    if archive is not None:
        found["archive"], more = _look_at(archive, run, work, workers)
        pictures |= {path: f"{caption}. {_archive_line(found['archive'])}" for path, caption in more.items()}
    pictures = keeping.write_results(run, config, ground, evolved, unseen) | pictures
    with run.writing("metrics/genes.npz") as draft:
        np.savez_compressed(draft, **observers.history.arrays())
    page = observers.write_page(found, keeping.hall_of_fame(evolved))
    if page is not None:
        pictures[page.name] = "The search, generation by generation"
    keeping.write_manifest(run, config, ground, work.fingerprint, _parents(run), subject=subject)
    keeping.write_report(run, found, work.title, pictures)
    report.show(console, found)
    if archive is not None:
        console.print(_archive_line(found["archive"]))
    console.print(f"Report, plots and champion: {run.folder}", soft_wrap=True)
    return found


def _hyperparameters(config: EvolveConfig, search: SpecialistSearch) -> Hyperparameters:
    return search.hyperparameters if config.search == "champion" else config.hyperparameters


def _choice(work: Work) -> str:
    usual, own = work.config.hyperparameters, work.hyperparameters
    patience = f"a patience of {own.patience}" if own.patience else "no early end"
    return (
        f"The conductor chose {own.population_size} individuals and {own.n_generations} generations in place "
        f"of {usual.population_size} and {usual.n_generations}, with {patience}, a last mutation step of "
        f"{own.mutation_schedule:.3g} times the first and a last crossover rate of "
        f"{own.crossover_schedule:+.2f} on the first."
    )


def _look_at(
    archive: Archive, run: Run, work: Work, workers: Mapper
) -> tuple[dict[str, Any], dict[str, str]]:
    # The elites on the test rows: figures of the archive as a whole, and captions of its pictures by path.
    test = work.ground.bars.time[work.ground.split.test]
    subject = archive.fingerprint()
    work.ledger().record_opening(work.fingerprint, run.id, int(test[0]), int(test[-1]), subject)
    unseen = open_archive(work.ground, archive, workers)
    return summary(archive, unseen), save_archive(run, archive, unseen, work.title)


def _archive_line(figures: Mapping[str, Any]) -> str:
    total = figures["all"]
    return (
        f"Archive: {total['filled']} of {total['cells']} cells filled ({total['coverage']:.0%}); QD score "
        f"{total['qd_score']:.1f} in sample and {total['qd_score_out_of_sample']:.1f} out of sample; "
        f"{total['still_positive']} of {total['positive']} cells that gained in sample still gain."
    )


@contextmanager
def _resumable(run: Run, console: Console) -> Iterator[None]:
    # Says how to go on with a run that stops before its end; the error goes on its way.
    try:
        yield
    except BaseException:
        if any((run.folder / "checkpoints" / "state").glob("*.ckpt")):
            console.print(
                f"To go on: python -m ga.evolve --runs {run.folder.parent} --resume {run.id}", soft_wrap=True
            )
        raise


class _Saving:
    """Writes a checkpoint while the next generation is evaluated, and one at a time.

    No generation is told before the one before it is safe, so that a kill costs one at most.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self.wait()

    def save(self, generation: int, state: dict[str, Any]) -> None:
        """Save a state that nothing changes any more."""
        self.wait()
        self._last = self._thread.submit(self._checkpoints.save, generation, state)

    def wait(self) -> None:
        """Return once the last state is on the disk, or raise why it is not."""
        if self._last is not None:
            self._last.result()
            self._last = None


def _parents(run: Run) -> list[str]:
    return json.loads((run.folder / "manifest.json").read_text(encoding="utf-8")).get("parents", [])


def _show_ground(console: Console, ground: Ground) -> None:
    train, test = ground.split.train, ground.split.test
    labels = ground.regime_labels[train]
    shares = ", ".join(f"{name} {np.mean(labels == i):.0%}" for i, name in enumerate(ground.regime_names))
    console.print(
        f"Training on {_span(ground, train)}: {shares}. Embargo {ground.split.embargo:,} bars. "
        f"Test on {_span(ground, test)}, opened once.",
    )


def _span(ground: Ground, rows: slice) -> str:
    time = ground.bars.time[rows]
    return f"{time.size:,} bars, {utc(time[0])} to {utc(time[-1])}"

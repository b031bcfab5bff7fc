"""One run of ``python -m ensemble.validate``: forecasters, folds, comparison, evidence, verdict, report."""

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from compute.workers import Mapper
from configs.load import ConfigError, load
from configs.progress_bar import SHARE, progress_bar
from ensemble import judging, report
from ensemble.blenders import BLENDERS
from ensemble.cpcv import CombinationJob, combinations_of
from ensemble.fitting import FittingJob
from ensemble.folds import FoldJob, folds_of
from ensemble.forecasts import check_members, require_forecasts, train_forecasters
from ensemble.gating import require_known
from ensemble.informed import PREFIX, wanted
from ensemble.paths import Paths
from ensemble.phases import phase
from ensemble.rerun import permutation_test
from ensemble.settings import ValidateConfig
from experiments.ledger import Ledger
from experiments.runs import Run, code_version, latest, library_versions
from market.combinatorial import Combination
from market.features.pipeline import FeaturePipeline
from market.sources.selection import Selection, select_bars
from market.splits import Split
from market.table import utc
from regimes.detector import DETECTORS
from specialists.evolving import FOR_GOOD, LEDGER, open_workers
from specialists.family import FAMILIES
from specialists.settings import WorkersConfig

COMMAND = "validate"
#: Test bars below which no bootstrap says anything.
LEAST_TEST = 60


@dataclass(frozen=True, eq=False)
class Work:
    """A validation whose settings and bars have proved good.

    Parameters
    ----------
    config : ValidateConfig
    selection : Selection
    splits : tuple of Split
    core, wide : FeatureTable
        Features of detector and specialists; those of forecasters, None without any.
    fingerprint : str
        Of all bars.
    combinations : tuple of Combination
        Of cross-validation, if any.
    """

    config: ValidateConfig
    selection: Selection
    splits: tuple[Split, ...]
    core: object
    wide: object
    fingerprint: str
    combinations: tuple[Combination, ...] = ()

    @classmethod
    def open(cls, config: ValidateConfig, console: Console) -> "Work":
        """Read the bars, compute the features, and lay out the folds.

        Raises
        ------
        ConfigError, DataError
            If a setting or the bars will not do.
        """
        # A typing error should not cost the minute of reading and computing.
        DETECTORS.create(config.detector.name, config.detector.settings)
        family = FAMILIES.create(config.specialists.family.name, config.specialists.family.settings)
        titles, place = (
            tuple(member.title() for member in config.forecasters),
            "specialists.family: a forecast",
        )
        for name in wanted((*family.signals, *family.levels)):
            require_known(name.removeprefix(PREFIX), titles, place, "forecaster")
        BLENDERS.create(config.blender.name, config.blender.settings)
        for name in config.rivals:
            BLENDERS.create(name, {})
        check_members(config)
        selection = select_bars(config.market)
        selection.show(console)
        with console.status("computing features"):
            core = FeaturePipeline(config.features).update(selection.bars)
            wide = None
            if config.forecasters:
                wide = FeaturePipeline(config.forecast_features).update(selection.bars)
            splits = folds_of(selection.bars, core.warmup, config)
            combinations = combinations_of(selection.bars, core.warmup, config)
        count = splits[-1].test.stop - splits[0].test.start
        if count < LEAST_TEST:
            raise ConfigError(
                f"{selection.bars.label}: the folds test {count} bars in all; a verdict needs {LEAST_TEST}"
            )
        return cls(config, selection, splits, core, wide, selection.bars.fingerprint(), combinations)

    @property
    def rows(self) -> slice:
        """The test rows of all folds."""
        return slice(self.splits[0].test.start, self.splits[-1].test.stop)

    def identity(self) -> dict[str, str]:
        """Return what must be the same for a run that goes on."""
        return {
            "settings": self.config.digest(),
            "data": self.fingerprint,
            "code": code_version()["sources"],
            **library_versions(),
        }

    def show(self, console: Console) -> None:
        """Print what will be done."""
        time = self.selection.bars.time
        first, last = (utc(time[row])[:10] for row in (self.rows.start, self.rows.stop - 1))
        config = self.config
        own = config.specialists
        specialists = f"{len(own.regimes) * own.champions} specialists ({', '.join(own.regimes)})"
        members = [specialists] if own.regimes else []
        members += [member.title() for member in config.forecasters]
        count = len(self.splits)
        console.print(
            f"{count} {'fold' if count == 1 else 'folds'}, each tested on {config.folds.tested_on()} "
            f"from {first} to {last}; everything is fitted anew on the past of each. Members: "
            f"{', '.join(members)}; blender {config.blender.name}, detector {config.detector.name}.",
            soft_wrap=True,
        )

        if self.combinations:
            own = config.cpcv
            console.print(
                f"Cross-validation: {len(self.combinations)} fits, one for every choice of {own.test} of "
                f"{own.groups} groups, make {own.paths} {'path' if own.paths == 1 else 'paths'} through the "
                f"history.",
                soft_wrap=True,
            )

    def ledger(self) -> Ledger:
        """Return the trial ledger, which lies beside the folder of runs."""
        return Ledger(Path(self.config.runs).parent / LEDGER)


def validate_run(config: ValidateConfig, console: Console) -> Path:
    """Validate, print and save; return the folder of the run.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong; nothing is left behind then.
    """
    work = Work.open(config, console)
    with open_workers(config.workers, console) as workers:
        run = Run.open(config.runs, COMMAND, config.blender.name)
        run.write_config(config)
        work.show(console)
        console.print(f"Run {run.id}, seed {config.seed}")
        _complete(run, work, workers, console)
    return run.folder


def resume_run(
    runs: str, name: str, console: Console, workers: WorkersConfig | None = None, changed: bool = False
) -> Path:
    """Go on with a validation that was stopped or killed, as if it had never been; return its folder.

    With ``changed`` it goes on with other code or libraries as well; the log says so.

    Raises
    ------
    ConfigError
        If there is no such run, it is finished, or its settings, data or code are not what they were.
    """
    run = latest(runs, COMMAND) if name == "latest" else Run.at(runs, name)
    if run is None:
        raise ConfigError(
            f"{runs}: holds no validation to resume; start one with python -m ensemble.validate"
        )
    if (run.folder / report.JSON).exists():
        raise ConfigError(f"{run.folder}: this run is finished; its verdict is in {report.MARKDOWN}")
    config = load(ValidateConfig, run.folder / "config.yaml", runs=runs)
    if workers is not None:
        config = config.model_copy(update={"workers": workers})
    work = Work.open(config, console)
    run.remove_drafts()
    with open_workers(config.workers, console) as mapper:
        work.show(console)
        console.print(f"Going on with run {run.id}, seed {config.seed}")
        forced = tuple(key for key in work.identity() if key not in FOR_GOOD) if changed else ()
        _complete(run, work, mapper, console, forced)
    return run.folder


def _complete(run: Run, work: Work, workers: Mapper, console: Console, forced: tuple[str, ...] = ()) -> None:
    config, bars = work.config, work.selection.bars
    origin = {"data": {"bars": work.fingerprint}, "seeds": {"root": config.seed}}
    run.write_manifest(**origin)
    try:
        with phase(run, "forecasters"), progress_bar(console, "forecasters", 1.0, written=SHARE) as told:
            forecasts = train_forecasters(
                run, config, bars, work.wide, work.identity(), told, partial(_note, run, console), forced
            )
        require_forecasts(forecasts, [split.validation for split in work.splits], bars.time)
        job = FoldJob(
            run, config, bars, work.core, work.wide, forecasts, work.splits, work.identity(), forced
        )
        with phase(run, "folds"):
            results = _folds(run, work, job, workers, console)
        paths = None
        if work.combinations:
            with phase(run, "cross-validation"):
                paths = _paths(run, work, job, workers, console)
    except BaseException:
        if any((run.folder / "checkpoints").glob("*/*.ckpt")):
            console.print(
                f"To go on: python -m ensemble.validate --runs {run.folder.parent} --resume {run.id}",
                soft_wrap=True,
            )
        raise
    with phase(run, "shuffled markets"):
        permutations = _permuted(run, work, workers, console)
    judging.judge(
        run, config, work.selection, job, results, work.ledger(), permutations, paths, workers, console
    )
    run.write_manifest(**origin)  # once more, with the time that all of it took
    console.print(f"Report, plots, strategies and predictions: {run.folder}", soft_wrap=True)


def _permuted(run: Run, work: Work, workers: Mapper, console: Console):
    with progress_bar(console, "shuffled markets", 1.0, written=SHARE) as told:
        return permutation_test(run, work.config, work.selection.bars, work.identity(), workers, told)


def _folds(run: Run, work: Work, job: FoldJob, workers: Mapper, console: Console):
    ledger, results = work.ledger(), []
    stops = [split.test.stop for split in work.splits]
    days = [f"folds, tested to {utc(work.selection.bars.time[stop - 1])[:10]}" for stop in stops]
    _fit_all(run, job, days, workers, console)
    for number in range(len(work.splits)):
        result = job.load(number)
        job.record_trials(ledger, work.fingerprint, result)
        results.append(result)
    return tuple(results)


def _paths(run: Run, work: Work, folds: FoldJob, workers: Mapper, console: Console) -> Paths:
    job = CombinationJob(
        run, work.config, work.selection.bars, folds.core, folds.forecasts, work.combinations,
        folds.identity, folds.forced,
    )  # fmt: skip
    ledger, results = work.ledger(), []
    count = len(work.combinations)
    lines = [f"combinations, {i + 1} of {count}" for i in range(count)]
    _fit_all(run, job, lines, workers, console)
    for number in range(count):
        result = job.load(number)
        job.record_trials(ledger, work.fingerprint, result, len(work.splits))
        results.append(result)
    return job.paths(results)


def _fit_all(
    run: Run,
    job: FittingJob,
    lines: Sequence[str],
    workers: Mapper,
    console: Console,
) -> None:
    # Fit whatever is not on disk yet; a line for each, to be told once it is done.
    width, count, noun = workers.n_workers, len(lines), job.piece
    with progress_bar(console, f"{noun}s", count) as told:
        waiting = [number for number in range(count) if not job.is_done(number)]
        done = count - len(waiting)
        if done:
            console.print(f"Going on after {done} of {count} {noun}s")
        told(done, f"{noun}s")
        # As many at a time as there are workers: a kill costs those that are being fitted, one each.
        for first in range(0, len(waiting), width):
            began = clock.perf_counter()
            chunk = waiting[first : first + width]
            for number, notes in workers.map(job, chunk):
                for line in notes:
                    _note(run, console, line)
                run.log(f"{noun} {number + 1}: {clock.perf_counter() - began:.1f} s, {len(chunk)} at a time")
            done += len(chunk)
            told(done, lines[chunk[-1]])


def _note(run: Run, console: Console, line: str) -> None:
    console.print(f"! {line}", markup=False)
    run.log(line)

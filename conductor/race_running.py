"""One race from settings to report: the steps of ``python -m conductor.race`` in their order."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from compute.seeds import stream
from compute.workers import ThreadMapper, n_cores
from conductor import race_report
from conductor.ablations import Conducted
from conductor.contestants import Contestant
from conductor.curriculum import Landscapes, Source
from conductor.lineup import REFERENCE, SUBJECT, Practice, chosen, lineup
from conductor.markets import Market, eras
from conductor.model import FOLDER, Conductor, find
from conductor.racing import about, race, write_results
from conductor.racing_settings import RaceConfig
from conductor.suites import Suite, bbob, families, windows
from conductor.tasks import TaskSampler
from conductor.windows import TradingWindows
from configs.load import ConfigError
from experiments.runs import Run, checked_id
from market.sources.selection import MarketConfig, select_bars
from market.table import utc

COMMAND = "race"
#: What rivals have learned, kept with the race.
LEARNED = "rivals.json"
#: Individuals and generations of landscapes.
POPULATION, GENERATIONS = 40, 60


@dataclass(frozen=True, eq=False)
class Ground:
    """Where a race is run, and where its rivals may learn before it.

    Parameters
    ----------
    suite : Suite
    practice : Source
        Training tasks of the same kind and size.
    source : TradingWindows or None
        Of the suite, where it is one of windows.
    fingerprints : dict of str to str
        Of the bars, by asset.
    notes : tuple of str
        What a reader must know.
    """

    suite: Suite
    practice: Source
    source: TradingWindows | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: RaceConfig, conductors: Mapping[str, Conductor], console: Console) -> Self:
        """Read what the race is run on.

        Raises
        ------
        ConfigError, DataError
            If a package is missing, or the bars will not do.
        """
        if config.suite == "windows":
            return cls._of_windows(config, conductors, console)
        sizes = {
            "dimension": config.dimension,
            "population_size": config.population or POPULATION,
            "n_generations": config.generations or GENERATIONS,
        }
        opened = bbob if config.suite == "bbob" else families
        suite = opened(**sizes, n_instances=config.instances, n_seeds=config.n_seeds, seed=config.seed)
        sampler = TaskSampler(
            "train",
            config.seed % 2**31,
            dimensions=(config.dimension,),
            sizes=((sizes["population_size"], sizes["n_generations"]),),
        )
        return cls(suite, Landscapes(sampler))

    @classmethod
    def _of_windows(cls, config: RaceConfig, conductors: Mapping[str, Conductor], console: Console) -> Self:
        settings = config.windows
        for name, value in (("population_size", config.population), ("n_generations", config.generations)):
            if value is not None:
                settings = settings.model_copy(update={name: value})
        markets, fingerprints = [], {}
        for market in _market_configs(config):
            selection = select_bars(market)
            selection.show(console)
            with console.status("describing bars, fitting the regime detector"):
                markets.append(Market.of(selection.bars, settings))
            fingerprints[selection.bars.label] = selection.bars.fingerprint()
        spans = eras(markets, config.train, config.validation)
        begin = unseen_from(spans.test[0], conductors.values(), max(market.embargo_ns for market in markets))
        fitted = max(conductor.fitted_until for conductor in conductors.values())
        scaler = next(iter(conductors.values())).scaler
        held_out, practice = (
            TradingWindows(
                markets, settings, seed=config.seed, begin=first, end=last, split=split, scaler=scaler
            )
            for split, first, last in (("test", begin, spans.test[1]), ("train", *spans.train))
        )
        suite = windows(held_out, n_windows=config.n_windows, n_seeds=config.n_seeds, seed=config.seed)
        notes = [f"Windows from {utc(begin)} on; rivals learned from windows until {utc(spans.train[1])}."]
        if fitted:
            notes.append(f"The latest bar that a conductor was trained on is of {utc(fitted)}.")
        return cls(suite, practice, held_out, fingerprints, tuple(notes))


def unseen_from(begin: int, conductors: Iterable[Conductor], embargo: int) -> int:
    """Return when windows of a race may begin, nanoseconds UTC.

    Parameters
    ----------
    begin : int
        Where the last era begins: never before.
    conductors : iterable of Conductor
        Bars that any of them has seen are not unseen.
    embargo : int
        The longest memory of a feature, nanoseconds: so long after the last bar that was seen.
    """
    fitted = max(conductor.fitted_until for conductor in conductors)
    return max(begin, fitted + embargo) if fitted else begin


def race_run(config: RaceConfig, console: Console) -> Path:
    """Race, judge, print and save; return the folder of the run.

    The folder appears once conductors, names and bars have proved good.

    Raises
    ------
    ConfigError, DataError
        If there is no such conductor or contestant, or the bars will not do.
    """
    if not config.conductors:
        raise ConfigError("no conductor was named; give --conductor NAME, as conductor.train printed it")
    names = chosen(config.contestants)
    folders = {name: find(name, config.runs) for name in config.conductors}
    conductors = {name: Conductor.load(folder) for name, folder in folders.items()}
    ground = Ground.of(config, conductors, console)
    judged = next(iter(conductors.values()))
    if not (ground.suite.batch.outlook.known.any()):
        names = tuple(name for name in names if name != "without market features")  # there are none
    run = Run.open(config.runs, COMMAND, checked_id(f"{judged.variant}-{config.suite}", "run name"))
    run.write_config(config)
    document = {
        "data": dict(ground.fingerprints),
        "seeds": {"root": config.seed},
        "parents": _parents(folders),
        "conductors": {name: str(folder) for name, folder in folders.items()},
    }
    run.write_manifest(**document)
    console.print(f"Run {run.id}, seed {config.seed}")
    console.print(f"{ground.suite.sentence}", markup=False, soft_wrap=True)
    with ThreadMapper(config.threads or n_cores()) as mapper, _shown(console) as told:
        practice = Practice(
            judged,
            ground.practice,
            config.schedule,
            config.practice,
            int(stream(config.seed, "practice").integers(2**31)),
            mapper,
            told,
        )
        contestants = lineup(names, practice, config.seed, further=_further(conductors, ground))
        run.write_json(LEARNED, practice.learned())
        table = race(contestants, ground.suite, variation=judged.variation, mapper=mapper, told=told)
    write_results(run, table)
    found = race_report.write(
        run,
        table,
        subject=SUBJECT,
        reference=REFERENCE,
        title=f"Race of {config.conductors[0]} on {config.suite}",
        notes=[
            f"{ground.suite.sentence}.",
            *ground.notes,
            *_told(conductors),
            _cost(table, len(ground.suite)),
        ],
    )
    run.write_manifest(**document, seconds=about(table)["seconds"])
    race_report.show(console, found)
    console.print(f"{run.folder / race_report.PAGE}", soft_wrap=True, highlight=False)
    return run.folder


def _market_configs(config: RaceConfig) -> Iterator[MarketConfig]:
    given = config.bars or ((config.market.bars,) if config.market.bars else ())
    for path in given:
        market = config.market.model_copy(update={"bars": path})
        if "{asset}" in path:
            yield from (market.of_asset(asset) for asset in config.assets)
        else:
            yield market
    if not given:
        yield from (config.market.of_asset(asset) for asset in config.assets)


def _further(conductors: Mapping[str, Conductor], ground: Ground) -> list[Contestant]:
    """Return all conductors but the first, each seeing the market through its own scaler."""

    def seen(conductor: Conductor):
        source = ground.source
        if source is None:
            return None
        own = source.scaled(conductor.scaler)
        return lambda tasks: own.batch_of([one.problem for one in tasks], [0] * len(tasks)).outlook

    return [
        Conducted(f"{SUBJECT} {_short(name, conductors)}", conductor, outlook=seen(conductor))
        for name, conductor in list(conductors.items())[1:]
    ]


def _told(conductors: Mapping[str, Conductor]) -> list[str]:
    (first, judged), *others = conductors.items()
    return [
        f"{SUBJECT} is {first}, variant {judged.variant}.",
        *(f"{SUBJECT} {_short(name, conductors)} is {name}, variant {one.variant}." for name, one in others),
    ]


def _cost(table: pa.Table, n: int) -> str:
    """Say what a run takes with the conductor and without it."""
    with_it, without = (1e3 * about(table)["seconds"][name] / n for name in (SUBJECT, REFERENCE))
    return f"A run takes {with_it:.1f} ms with {SUBJECT} and {without:.1f} ms with {REFERENCE}."


def _short(name: str, names: Iterable[str]) -> str:
    """Return the last part of a path, where that names one conductor only."""
    last = [Path(one).name for one in names]
    return Path(name).name if last.count(Path(name).name) == 1 else name


def _parents(folders: Mapping[str, Path]) -> list[str]:
    """Return the ids of the training runs that conductors come from, where they lie in one."""
    return [folder.parent.name for folder in folders.values() if folder.name == FOLDER]


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    columns = (
        TextColumn("{task.description:30s}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("practice", total=1)
        last = [""]

        def told(name: str, done: int, total: int) -> None:
            if name != last[0]:
                progress.reset(bar)
                last[0] = name
            progress.update(bar, completed=done, total=total, description=name)

        yield told

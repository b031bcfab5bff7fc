"""A race: every contestant makes the same runs of a suite, and every run becomes one row of a table.

Rows are paired by ``problem`` and ``seed``. Errors are in the unit of the suite: f minus its optimum of a
landscape, normalised regret of a market window; below the floor of the suite they count as it. The curve of a
run is read where generations end, since a search knows its best no sooner, and only whole generations within
a share of the budget count at that share.

=====================  ==============  ==================================================================
column                 type            meaning
=====================  ==============  ==================================================================
contestant             string          who ran
suite                  string          what for, see :mod:`conductor.suites`
problem                string          what was searched
cluster                string          what intervals are drawn over: function, family, stretch of market
instance               int64           number of the problem in its cluster
regime                 int8            of the specialist of a market window, -1 for none
seed                   int64           of the run, the same for all contestants
dimension              int32           genes
population_size        int32           individuals
n_generations          int32           bred after the initial population
budget                 int64           evaluations granted
evaluations            int64           evaluations asked for, repeated ones included
unique_evaluations     int64           of them, genomes asked for the first time
invalid_evaluations    int64           of them, answers that are no finite number
anytime                float64         mean over the budget of log10 of the error so far, decades
final                  float64         log10 of the last error, decades
error_10, _30, _100    float64         error at 10, 30 and 100 % of the budget
target_00 to _50       float64         evaluations until the error was at most ``TARGETS[i]``, NaN: never
curve                  list of float64 log10 of the error at the shares ``GRID`` of the budget
champion               list of float64 genes of the best genome, 0 to 1
in_sample              float64         net annual Sharpe ratio of the champion on its window, NaN: not known
out_of_sample          float64         the same on the stretch that follows, NaN: not known
=====================  ==============  ==================================================================
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from compute.workers import Mapper
from conductor.contestants import Contestant, Performance
from conductor.objective import Outcome
from conductor.race_statistics import TARGETS
from conductor.suites import Suite
from experiments.runs import Run
from ga.progress import STATISTIC_NAMES
from ga.variation import Variation

#: Shares of the budget at which curves are told; with 60 generations, the ends of generations.
GRID = np.arange(1, 62) / 61
#: Shares of the budget of the columns ``error_*``.
SHARES = {"error_10": 0.1, "error_30": 0.3, "error_100": 1.0}
#: Name of the table in a run's folder.
RESULTS = "results.parquet"
# A batch remembers all its genomes: some hundred megabytes. Fixed, since last bits of what a network says
# depend on how many runs it is asked about at once, and a search never forgets a bit.
_EVALUATIONS_AT_ONCE = 4_000_000
_REPEATED, _INVALID = STATISTIC_NAMES.index("cached_share"), STATISTIC_NAMES.index("invalid_share")

#: Columns and their types.
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("contestant", "suite", "problem", "cluster")),
        ("instance", pa.int64()),
        ("regime", pa.int8()),
        ("seed", pa.int64()),
        *((name, pa.int32()) for name in ("dimension", "population_size", "n_generations")),
        *(
            (name, pa.int64())
            for name in ("budget", "evaluations", "unique_evaluations", "invalid_evaluations")
        ),
        *((name, pa.float64()) for name in ("anytime", "final", *SHARES)),
        *((f"target_{i:02d}", pa.float64()) for i in range(len(TARGETS))),
        ("curve", pa.list_(pa.float64())),
        ("champion", pa.list_(pa.float64())),
        ("in_sample", pa.float64()),
        ("out_of_sample", pa.float64()),
    ]
)


@dataclass(frozen=True, eq=False)
class _Record:
    """What is kept of a contestant until all have run; columns after the end of a run repeat its last."""

    errors: np.ndarray  # float64 (B, g + 1)
    asked: np.ndarray  # int64 (B, g + 1)
    repeated: np.ndarray  # int64 (B,)
    invalid: np.ndarray  # int64 (B,)
    champions: tuple[np.ndarray, ...]
    seconds: float


def race(
    contestants: Sequence[Contestant],
    suite: Suite,
    *,
    variation: Variation,
    mapper: Mapper,
    told: Callable[[str, int, int], None] | None = None,
) -> pa.Table:
    """Let all contestants make all runs of a suite; return one row per contestant and run.

    Parameters
    ----------
    contestants : sequence of Contestant
        Of different names; rows keep their order.
    suite : Suite
    variation : Variation
        Operators of the race.
    mapper : Mapper
        Threads, or serial. The table does not depend on it.
    told : callable, optional
        ``told(name, done, total)`` as runs are done.

    Returns
    -------
    pyarrow.Table
        See the module. Its metadata, entry ``race``, are JSON: the suite, ``GRID``, ``TARGETS``, and the
        seconds that each contestant took.

    Raises
    ------
    ValueError
        If nobody races, a name repeats, or a contestant spends more than its budget.
    """
    names = [contestant.name for contestant in contestants]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"contestants are {names}; a race needs at least one, and each its own name")
    records = {one.name: _raced(one, suite, variation, mapper, told) for one in contestants}
    if suite.rebase is not None:
        _rebase(records, suite)
    columns = [_columns(name, record, suite) for name, record in records.items()]
    about = {
        "suite": suite.sentence,
        "grid": GRID.tolist(),
        "targets": TARGETS.tolist(),
        "variation": variation.model_dump(mode="json"),
        "seconds": {name: round(record.seconds, 3) for name, record in records.items()},
    }
    table = pa.table(
        {field.name: [value for part in columns for value in part[field.name]] for field in SCHEMA},
        schema=SCHEMA,
    )
    return table.replace_schema_metadata({"race": json.dumps(about)})


def about(table: pa.Table) -> dict:
    """Return what the metadata of a race's table say: suite, grid, targets, variation, seconds."""
    return json.loads((table.schema.metadata or {})[b"race"])


def write_results(run: Run, table: pa.Table) -> None:
    """Write the table of a race into a run's folder."""
    with run.writing(RESULTS) as draft:
        pq.write_table(table, draft, compression="zstd")


def read_results(run: Run) -> pa.Table:
    """Return the table of a race from a run's folder."""
    return pq.read_table(run.folder / RESULTS)


def _raced(
    contestant: Contestant,
    suite: Suite,
    variation: Variation,
    mapper: Mapper,
    told: Callable[[str, int, int], None] | None,
) -> _Record:
    tasks = suite.batch.tasks
    n, longest = len(suite), max(task.n_generations for task in tasks) + 1
    pieces = -(-sum(task.budget for task in tasks) // _EVALUATIONS_AT_ONCE)
    errors, asked = np.zeros((n, longest)), np.zeros((n, longest), dtype=np.int64)
    repeated, invalid = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    champions: list[np.ndarray] = [np.empty(0)] * n
    began, done = time.perf_counter(), 0
    for piece in range(pieces):
        rows = np.arange(piece, n, pieces)  # of all clusters, in every piece
        one = contestant.run(suite.part(rows), variation, mapper)
        _checked(contestant, one)
        width = one.outcome.best.shape[1]
        errors[rows, :width], errors[rows, width:] = -one.outcome.best, -one.outcome.best[:, -1:]
        asked[rows, :width] = one.outcome.asked
        for total, column in ((repeated, _REPEATED), (invalid, _INVALID)):
            shares = one.outcome.history[:, :, column] * one.outcome.asked
            total[rows] = np.round(shares).astype(np.int64).sum(axis=1)
        for row, champion in zip(rows, one.champions, strict=True):
            champions[row] = champion
        done += len(rows)
        if told is not None:
            told(contestant.name, done, n)
    seconds = time.perf_counter() - began
    return _Record(errors, asked, repeated, invalid, tuple(champions), seconds)


def _checked(contestant: Contestant, performance: Performance) -> None:
    spent = performance.outcome.asked.sum(axis=1)
    for task, evaluations in zip(performance.outcome.tasks, spent.tolist(), strict=True):
        if evaluations > task.budget:
            raise ValueError(
                f"{contestant.name} spent {evaluations} evaluations on a run of {task.budget}; "
                "all contestants have the same budget"
            )


def _rebase(records: dict[str, _Record], suite: Suite) -> None:
    """Measure all errors of a problem from the best that any contestant has found, if it is a better one."""
    problems = np.array(suite.problems)
    for problem in dict.fromkeys(suite.problems):
        rows = np.flatnonzero(problems == problem)
        lowest = min(float(record.errors[rows].min()) for record in records.values())
        if lowest < 0.0:
            window = suite.batch.tasks[rows[0]].problem
            for record in records.values():
                record.errors[rows] = suite.rebase(window, record.errors[rows], lowest)


def _columns(name: str, record: _Record, suite: Suite) -> dict[str, list]:
    batch, n = suite.batch, len(suite)
    tasks = batch.tasks
    budget = np.array([task.budget for task in tasks])
    history = np.zeros((*record.errors.shape, 0))
    scored = batch.scores(Outcome(tasks, -record.errors, record.asked, history))
    errors = np.clip(record.errors, batch.floor[:, None], np.finfo(np.float64).max)
    spent = record.asked.cumsum(axis=1)
    in_sample, out_of_sample = _valued(record, suite)
    found = {
        "contestant": [name] * n,
        "suite": [suite.name] * n,
        "problem": suite.problems,
        "cluster": suite.clusters,
        "instance": suite.instances,
        "regime": batch.outlook.regime,
        "seed": [task.seed for task in tasks],
        "dimension": [task.dimension for task in tasks],
        "population_size": [task.population_size for task in tasks],
        "n_generations": [task.n_generations for task in tasks],
        "budget": budget,
        "evaluations": spent[:, -1],
        "unique_evaluations": spent[:, -1] - record.repeated,
        "invalid_evaluations": record.invalid,
        "anytime": scored.anytime,
        "final": scored.final,
        "curve": list(np.log10(_at(errors, spent, GRID * budget[:, None]))),
        "champion": record.champions,
        "in_sample": in_sample,
        "out_of_sample": out_of_sample,
    }
    for column, share in SHARES.items():
        found[column] = _at(errors, spent, share * budget[:, None])[:, 0]
    for i, target in enumerate(TARGETS):
        reached = errors <= target * (1.0 + 1e-12)  # a floor of 1e-8 reaches the last target
        first = spent[np.arange(n), reached.argmax(axis=1)].astype(np.float64)
        found[f"target_{i:02d}"] = np.where(reached.any(axis=1), first, np.nan)
    return found


def _at(errors: np.ndarray, spent: np.ndarray, evaluations: np.ndarray) -> np.ndarray:
    """Return the errors (B, m) after so many evaluations (B, m), those of the initial population at least."""
    whole = spent[:, :, None] <= evaluations[:, None, :] + 1e-6
    last = np.maximum(whole.sum(axis=1) - 1, 0)
    return np.take_along_axis(errors, last, axis=1)


def _valued(record: _Record, suite: Suite) -> tuple[np.ndarray, np.ndarray]:
    value, after = np.full((2, len(suite)), np.nan)
    if suite.judge is not None:
        problems = np.array(suite.problems)
        for problem in dict.fromkeys(suite.problems):
            rows = np.flatnonzero(problems == problem)
            genes = np.array([record.champions[row] for row in rows])
            value[rows], after[rows] = suite.judge(suite.batch.tasks[rows[0]].problem, genes)
    return value, after

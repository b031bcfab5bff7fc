"""What the benchmarks of the population kernel share: bars, the one call of the kernel, clocks."""

import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numba
import numpy as np

from backtest.kernels import N_STATISTICS, N_TERMS, OPTIONS, POPULATION, SHADOW, population
from backtest.limits import RiskLimits
from backtest.venue import Venue
from compute.kernels import kernel, variants

RATE = 0.0015  # cost per side, fraction of notional
EPISODE = 48  # mean length of an episode of the regime, bars
FOLDS = 6
YEAR_OF_MINUTES = (
    Path(__file__).resolve().parents[2]
    / "shared" / "data" / "ohlcv" / "btcusdt_binance_spot_1m_2023-07_2024-06.parquet"
)  # fmt: skip
# No option is on: what is measured is the account of prices and a cost rate.
PLAIN = (None,) * len(OPTIONS)


@dataclass(frozen=True, eq=False)
class Case:
    """Bars on which populations are traded; the only place that calls the kernel.

    Parameters
    ----------
    prices : float64 (n, 4)
        open, high, low, close.
    rows : float64 (n, k)
        What the family reads.
    awake : int8 (n,) or None
        Where it may trade; None is everywhere.
    folds : int
        Into how many parts the statistics are divided.
    limits : RiskLimits
        Largest exposure, stop and target of the account.
    """

    prices: np.ndarray
    rows: np.ndarray
    awake: np.ndarray | None = None
    folds: int = FOLDS
    limits: RiskLimits = field(default_factory=lambda: RiskLimits(stop=0.25))

    def __post_init__(self) -> None:
        n, venue = len(self.prices), Venue()
        arrays = {
            "awake": np.ones(n, np.int8) if self.awake is None else self.awake,
            "_rates": np.full(n, RATE),
            "_terms": np.empty((0, N_TERMS)),
            "_ends": (np.arange(1, self.folds + 1) * n // self.folds).astype(np.int64),
            "_bounds": self.limits.bounds(),
            "_venue": np.array([1.0, 0.0, venue.lot, venue.tick, venue.min_notional, np.inf]),
            "_tiers": venue.maintenance(),
        }
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.prices)

    def run(self, evaluate: Callable, genes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the statistics of a population, float64 (p, folds * 6)."""
        out = np.empty((len(genes), self.folds * N_STATISTICS)) if out is None else out
        evaluate(
            genes, self.rows, self.prices, self._rates, self._terms, self.awake, self._ends,
            self._bounds, self._venue, self._tiers, out, *PLAIN,
        )  # fmt: skip
        return out

    def decisions(self, follow: Callable, fresh: tuple[float, ...], genes: np.ndarray) -> np.ndarray:
        """Return what one genome decides in the stream, float64 (n, 3): exposure, stop, target."""
        out, state = np.empty((len(self), 3)), np.array(SHADOW + fresh)
        follow(genes, self.rows, self.prices, self.awake, self._bounds, state, out)
        return out


@kernel(inline=True)
def replay(genes, row, held, age, memory):
    exposure, stop, take = row
    return exposure, stop, take, memory


@variants(*POPULATION)
def replayed(
    genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
    trail, maker, impact, funding, margin, grid, room, breakers,
):  # fmt: skip
    population(
        replay, (0.0,), (0.0,) * 3, (0.0,),
        genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
        trail, maker, impact, funding, margin, grid, room, breakers,
    )  # fmt: skip


def unlike_the_stream(
    case: Case, evaluate: Callable, follow: Callable, fresh: tuple, genes: np.ndarray
) -> int:
    """Return how many genomes of a population decide otherwise than the streaming ``decide``.

    The streamed decisions of each genome are traded by the same account. One decision that differs while it
    matters changes the statistics, which are compared bit by bit.
    """
    ours, unlike = case.run(evaluate, genes), 0
    for i in range(len(genes)):
        decided = case.decisions(follow, fresh, genes[i])
        streamed = Case(case.prices, decided, case.awake, case.folds, case.limits)
        unlike += streamed.run(replayed, np.zeros((1, 1))).tobytes() != ours[i].tobytes()
    return unlike


def random_walk(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return open, high, low, close, float64 (n, 4): no gaps, so that all conventions for gaps agree."""
    steps = rng.normal(0.0, 0.002, (n, 8)).cumsum(axis=1)
    start = 100.0 * np.exp(np.concatenate([[0.0], steps[:, -1].cumsum()[:-1]]))
    path = start[:, None] * np.exp(np.column_stack([np.zeros(n), steps]))
    path[1:, 0] = path[:-1, -1]
    return np.column_stack([path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]])


def bars_of(argument: str, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Return prices (n, 4) and what they are: a number of random-walk bars, or a Parquet file."""
    if argument.isdigit():
        return random_walk(int(argument), rng), f"{int(argument):,} random-walk bars"
    from pyarrow.parquet import read_table

    table = read_table(argument, columns=["open", "high", "low", "close"])
    prices = np.empty((table.num_rows, 4))
    for i, column in enumerate(table.columns):
        prices[:, i] = column.to_numpy()
    return prices, f"{len(prices):,} bars of {Path(argument).name}"


def episodes(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return int8 (n,): awake in episodes of geometric length that make up a share of the bars."""
    flips = rng.random(n)
    awake, state = np.zeros(n, np.int8), 0
    for t in range(n):
        leave = 1 / EPISODE if state else share / (1 - share) / EPISODE
        state = 1 - state if flips[t] < leave else state
        awake[t] = state
    return awake


def times(run: Callable[[], object], runs: int) -> np.ndarray:
    """Return processor and wall seconds of each run, float64 (runs, 2), after one that is not counted.

    Processor time is what a core costs even while others use the machine; wall time needs it idle.
    """
    run()
    seconds = np.empty((runs, 2))
    for i in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        seconds[i] = time.process_time() - cpu, time.perf_counter() - wall
    return seconds


@dataclass(frozen=True)
class Measured:
    """Nanoseconds per bar and genome: processor time (best, median) and the best wall time."""

    best: float
    median: float
    wall: float


def measure(evaluate: Callable, case: Case, genes: np.ndarray, threads: int, runs: int) -> Measured:
    """Time a population on some threads, each of which takes an equal part of it."""
    parts = np.array_split(genes, threads)
    outs = [np.empty((len(part), case.folds * N_STATISTICS)) for part in parts]
    with ThreadPoolExecutor(threads) as pool:

        def run():
            list(pool.map(lambda part, out: case.run(evaluate, part, out), parts, outs))

        seconds = times(run, runs) * 1e9 / (len(genes) * len(case))
    return Measured(seconds[:, 0].min(), np.median(seconds[:, 0]), seconds[:, 1].min())


@numba.njit(nogil=True)
def _chain(n, x, a):
    for i in range(n):
        x = (x * a) ^ i
    return x


def clock_ghz() -> float:
    """Return the clock of a busy core: a chain of multiplications (3 cycles) and exclusive ors (1)."""
    steps = 5_000_000
    x, a = np.uint64(88172645463325252), np.uint64(6364136223846793005)
    seconds = times(lambda: _chain(np.uint64(steps), x, a), 7)[:, 0].min()
    return 4 * steps / seconds * 1e-9


def machine() -> str:
    """Return what the figures depend on, in one line."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    import llvmlite.binding as llvm

    return (
        f"{cpu} ({llvm.get_host_cpu_name()}), {os.cpu_count()} cores{load}, {clock_ghz():.2f} GHz; "
        f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}, "
        f"LLVM {'.'.join(map(str, llvm.llvm_version_info))}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def last_json(text: str) -> dict:
    """Return the object that a child process has printed on its last line."""
    return json.loads(text.strip().splitlines()[-1])

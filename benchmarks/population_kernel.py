"""How long the population kernel takes per bar and genome, alone and beside two peers.

Run from the root of the repository::

    python benchmarks/population_kernel.py [--bars 60000] [--genomes 256] [--runs 7]
    python benchmarks/population_kernel.py --peers [--peer-python PATH]

``--bars`` is a number of seeded random-walk bars, or a Parquet file with open, high, low, close. Signals are
seeded noise either way: the kernel selects instead of branching, so its time does not depend on them.
``--peers`` runs one rule here, in backtesting.py, in vectorbt and as a plain Python loop, on the same bars.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backtest.kernels import N_STATISTICS, POPULATION, population
from compute.kernels import kernel
from specialists.blend import Blend, BlendConfig
from specialists.origin8 import Origin8, Origin8Config

RATE = 0.0015  # cost per side, fraction of notional
EPISODE = 48  # mean length of an episode of the regime, bars
FOLDS = 6

# One rule for all: long above an EMA gap with the RSI below a cap; out below a gap, at a stop or a target.
RULE = ("entry", "exit", "rsi_cap", "stop", "target", "size")
LOW = np.array([0.0005, -0.004, 55.0, 0.005, 0.01, 0.2])
HIGH = np.array([0.004, 0.0005, 80.0, 0.03, 0.06, 0.9])
_LIKE_GENES, _LIKE_ROW, _FRESH = (0.0,) * 6, (0.0,) * 2, (0.0,)


@kernel(inline=True)
def decide(genes, row, held, age, memory):
    entry, leave, rsi_cap, stop, target, size = genes
    gap, rsi = row
    opening = size if (gap > entry) & (rsi < rsi_cap) else 0.0
    exposure = held if gap > leave else 0.0
    exposure = opening if held == 0.0 else exposure
    return exposure, stop, target, memory


@kernel(POPULATION)
def evaluate(genes, rows, prices, rates, awake, ends, bounds, out):
    population(decide, _LIKE_GENES, _LIKE_ROW, _FRESH, genes, rows, prices, rates, awake, ends, bounds, out)


def loop(genes, rows, prices, rate):
    """Trade the rule bar by bar in plain Python and return growth and trades: for scale."""
    entry, leave, rsi_cap, stop, target, size = genes
    cash, quantity, wanted, trades = 1.0, 0.0, 0.0, 0
    for (opened, high, low, _), (gap, rsi) in zip(prices, rows, strict=True):
        if wanted and not quantity:
            quantity = size * cash / (opened * (1 + rate))
            cash -= quantity * opened * (1 + rate)
            stop_price, target_price = opened - opened * stop, opened + opened * target
            trades += 1
        elif quantity and not wanted:
            cash, quantity = cash + quantity * opened * (1 - rate), 0.0
        if quantity and low <= stop_price:
            cash, quantity = cash + quantity * min(opened, stop_price) * (1 - rate), 0.0
        elif quantity and high >= target_price:
            cash, quantity = cash + quantity * target_price * (1 - rate), 0.0
        wanted = gap > leave if quantity else (gap > entry and rsi < rsi_cap)
    return cash + quantity * prices[-1][3] * (1 - rate), trades


def random_walk(n, rng):
    """Return open, high, low, close, float64 (n, 4): no gaps, so that all conventions for gaps agree."""
    steps = rng.normal(0.0, 0.002, (n, 8)).cumsum(axis=1)
    start = 100.0 * np.exp(np.concatenate([[0.0], steps[:, -1].cumsum()[:-1]]))
    path = start[:, None] * np.exp(np.column_stack([np.zeros(n), steps]))
    path[1:, 0] = path[:-1, -1]
    return np.column_stack([path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]])


def bars_of(argument, rng):
    if argument.isdigit():
        return random_walk(int(argument), rng), f"{int(argument):,} random-walk bars"
    from pyarrow.parquet import read_table

    table = read_table(argument, columns=["open", "high", "low", "close"])
    prices = np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)
    return prices, f"{len(prices):,} bars of {Path(argument).name}"


def rule_rows(prices):
    """Return the gap of EMA 12 and 48 over the close, and the RSI 14, float64 (n, 2)."""
    import talib

    close = np.ascontiguousarray(prices[:, 3])
    rows = np.column_stack([(talib.EMA(close, 12) - talib.EMA(close, 48)) / close, talib.RSI(close, 14)])
    rows = np.nan_to_num(rows, nan=0.0)
    rows[-3:, 0] = -1.0  # everybody is flat before the last bar, which each engine closes in its own way
    return rows


def episodes(n, share, rng):
    """Return int8 (n,): awake in episodes of geometric length that make up a share of the bars."""
    if share >= 1:
        return np.ones(n, np.int8)
    flips = rng.random(n)
    awake, state = np.zeros(n, np.int8), 0
    for t in range(n):
        leave = 1 / EPISODE if state else share / (1 - share) / EPISODE
        state = 1 - state if flips[t] < leave else state
        awake[t] = state
    return awake


def times(run, runs):
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


def measure(function, genes, case, threads, runs):
    """Return best and median processor time, and best wall time, in ns per bar and genome."""
    parts = np.array_split(genes, threads)
    outs = [np.empty((len(part), FOLDS * N_STATISTICS)) for part in parts]

    with ThreadPoolExecutor(threads) as pool:

        def run():
            list(pool.map(lambda part, out: function(part, *case, out), parts, outs))

        seconds = times(run, runs) * 1e9 / (len(genes) * len(case[0]))
    return seconds[:, 0].min(), np.median(seconds[:, 0]), seconds[:, 1].min()


def machine():
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{cpu}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, numpy {np.__version__}, "
        f"numba {numba.__version__}, LLVM {'.'.join(map(str, _llvm()))}"
    )


def _lines(path):
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _llvm():
    import llvmlite.binding

    return llvmlite.binding.llvm_version_info


def families(n, rng):
    """Return name, evaluate, genes maker and rows of what is measured."""
    blend, origin8 = Blend(BlendConfig()), Origin8(Origin8Config(longest_hold=336))
    signals = np.clip(rng.normal(0.0, 1.2, (n, 14)), -4, 4)
    blend_rows = np.column_stack([signals, rng.uniform(0.003, 0.02, (n, 2))])
    origin_rows = np.column_stack([rng.uniform(-1, 1, n), rng.uniform(0.01, 0.1, n), rng.normal(0, 0.015, n)])
    for name, family, rows in (
        ("blend, 24 genes", blend, blend_rows),
        ("origin8, 8 genes", origin8, origin_rows),
    ):

        def genes(p, family=family):
            return family.express(family.space.decode(rng.random((p, family.space.n_genes))))

        yield name, family.evaluate, genes, np.ascontiguousarray(rows)


def kernel_table(prices, genomes, runs, rng):
    n = len(prices)
    rates, bounds = np.full(n, RATE), np.array([1.0, 0.25, np.inf])
    ends = (np.arange(1, FOLDS + 1) * n // FOLDS).astype(np.int64)
    masks = {"always": episodes(n, 1.0, rng), "25 %": episodes(n, 0.25, rng)}
    print("\nns per bar and genome           awake  threads  cpu best  cpu median  wall best")
    chosen = list(families(n, rng))
    for name, function, make, rows in chosen:
        genes = make(genomes)
        for label, awake in masks.items():
            case = (rows, prices, rates, awake, ends, bounds)
            for threads in (1, 2):
                best, median, wall = measure(function, genes, case, threads, runs)
                print(f"{name:<30} {label:>6} {threads:>8} {best:>9.2f} {median:>11.2f} {wall:>10.2f}")
    print(f"(cpu: per core; the 25 % mask is awake on {masks['25 %'].mean():.1%} of the bars)")
    name, function, make, rows = chosen[0]
    case = (rows, prices, rates, masks["always"], ends, bounds)
    print(f"\n{name}, by population size (a block has 64 genomes and is filled up):")
    for p in (1, 32, 64, 128, 256, 512):
        best, median, _ = measure(function, make(p), case, 1, max(3, runs // 2))
        print(f"{p:>6} genomes {best:>9.2f} {median:>11.2f}")


SEMANTICS = """
Fills at the next open, costs on both sides, stops before targets: the same everywhere, and without gaps the
levels are as well. backtesting.py sets them from the close of the decision (without gaps the next open) and
buys whole units (cash is large enough to hide it). vectorbt allows one order per bar, so that stop and target
rest on the entry bar; after such a bar its trades differ. Its number is from_signals alone; building the
signals and reading the equity come on top. The kernel's number includes sums, trades and drawdown."""


def peer_table(prices, genomes, runs, peer_python, rng):
    n = len(prices)
    rows, genes = rule_rows(prices), LOW + (HIGH - LOW) * rng.random((genomes, len(RULE)))
    ends, out = np.array([n]), np.empty((genomes, N_STATISTICS))
    bounds = np.array([1.0, np.inf, np.inf])
    case = (rows, prices, np.full(n, RATE), np.ones(n, np.int8), ends, bounds, out)
    seconds = times(lambda: evaluate(genes, *case), runs)[:, 0]
    print(
        f"\nOne rule ({', '.join(RULE)}), next open, {RATE:.2%} per side, on the same bars, indicators given:"
    )
    _line("population kernel", seconds, genomes, n, out[:, 4], out[:, 3], out)
    few = min(genomes, 4)
    lists = rows.tolist(), prices.tolist()
    start = time.process_time()
    plain = np.array([loop(one, *lists, RATE) for one in genes[:few].tolist()])
    _line("plain Python loop", [time.process_time() - start], few, n, plain[:, 0], plain[:, 1], out)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npz"
        np.savez(path, prices=prices, rows=rows, genes=genes, rate=RATE)
        for peer, count in (("vectorbt", genomes), ("backtesting", few)):
            command = [peer_python, str(Path(__file__).with_name("peers.py")), peer, str(path), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                print(f"{peer}: skipped, it does not run with {Path(peer_python).name} ({reason})")
                continue
            answer = json.loads(done.stdout.strip().splitlines()[-1])
            growth, trades = np.array(answer["growth"]), np.array(answer["trades"])
            _line(answer["version"], answer["seconds"], count, n, growth, trades, out)
    print(SEMANTICS)


def _line(name, seconds, genomes, n, growth, trades, ours):
    scale = 1e9 / (genomes * n)
    apart = np.abs(growth / ours[:genomes, 4] - 1)
    print(
        f"{name:<22} {min(seconds) * scale:>12,.2f} ns best {np.median(seconds) * scale:>12,.2f} ns median | "
        f"{genomes:>4} genomes, {trades.mean():>7,.1f} trades each; growth apart from the kernel's: "
        f"median {np.median(apart):.1e}, largest {apart.max():.1e}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bars", default="60000", help="number of random-walk bars, or a Parquet file")
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="also time backtesting.py and vectorbt")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers")
    options = parser.parse_args()
    rng = np.random.default_rng(7)
    prices, label = bars_of(options.bars, rng)
    print(machine())
    print(f"{label}, {options.genomes} genomes, {options.runs} runs")
    kernel_table(prices, options.genomes, options.runs, rng)
    if options.peers:
        peer_table(prices, options.genomes, options.runs, options.peer_python, rng)


if __name__ == "__main__":
    main()

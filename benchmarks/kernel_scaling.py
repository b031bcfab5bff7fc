"""How the cost of the population kernel grows with bars, population and threads, and what memory it takes.

    python -m benchmarks.kernel_scaling [--genomes 256] [--runs 5]

The cost per bar and genome should be flat in both. A block has 64 genomes and is filled up: one genome costs
as much as 64. Memory: a fresh process trades 512 genomes on 500,000 one-minute bars (of the year in the
shared development data where that is present, else a random walk); the peak of the process is printed beside
its peak after the imports and a first tiny call.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import reference_family
from benchmarks.measuring import YEAR_OF_MINUTES, Case, bars_of, last_json, machine, measure, random_walk

ROOT = Path(__file__).resolve().parent.parent
MEMORY_TARGET_MB = 200


def case_of(prices: np.ndarray) -> Case:
    return Case(prices, reference_family.rows_of(prices))


def genes_of(p: int, rng: np.random.Generator) -> np.ndarray:
    return reference_family.express(reference_family.draw(p, rng))


def bars_table(genomes: int, most: int, runs: int, rng: np.random.Generator) -> None:
    prices, genes = random_walk(most, rng), genes_of(genomes, rng)
    print(f"\n{'bars':>10} {'ns':>8} {'ms':>10}   ({genomes} genomes, one core)")
    for n in sorted({*(10**e for e in range(3, 10) if 10**e < most), most}):
        got = measure(reference_family.evaluate, case_of(prices[:n].copy()), genes, 1, runs)
        print(f"{n:>10,} {got.best:>8.2f} {got.best * n * genomes * 1e-6:>10.1f}")


def population_table(bars: int, most: int, runs: int, rng: np.random.Generator) -> None:
    case = case_of(random_walk(bars, rng))
    print(f"\n{'genomes':>10} {'ns':>8} {'per lane':>9}   ({bars:,} bars, one core)")
    for p in sorted({*(4**e for e in range(9) if 4**e < most), 200, most}):
        got = measure(reference_family.evaluate, case, genes_of(p, rng), 1, runs)
        lanes = -(-p // 64) * 64
        print(f"{p:>10,} {got.best:>8.2f} {got.best * p / lanes:>9.2f}")


def thread_table(bars: int, genomes: int, runs: int, rng: np.random.Generator) -> None:
    case, genes = case_of(random_walk(bars, rng)), genes_of(genomes, rng)
    print(f"\n{'threads':>10} {'wall ns':>8} {'cpu ns':>8} {'times':>6}   ({bars:,} bars, {genomes} genomes)")
    for threads in sorted({1, 2, os.cpu_count() or 1}):
        got = measure(reference_family.evaluate, case, genes, threads, runs)
        if threads == 1:
            one = got.wall
        print(f"{threads:>10} {got.wall:>8.2f} {got.best:>8.2f} {one / got.wall:>6.2f}")
    print("(wall times, and so the last column, need a machine that does nothing else)")


def peak_mb() -> float:
    """Return the largest resident memory that this process has had, in megabytes."""
    try:
        # Linux hands ``ru_maxrss`` of a parent on to the child, where it stands for a peak of its own.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1e3
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def remember(path: str, genomes: int) -> None:
    """Trade once and print as JSON what memory it took; run in a process of its own."""
    rng = np.random.default_rng(7)
    case_of(random_walk(64, rng)).run(reference_family.evaluate, genes_of(1, rng))
    before = peak_mb()
    case = case_of(np.load(path))
    loaded = peak_mb()
    case.run(reference_family.evaluate, genes_of(genomes, rng))
    print(json.dumps({"bars": len(case), "before": before, "loaded": loaded, "peak": peak_mb()}))


def memory_table(bars: int, genomes: int, rng: np.random.Generator) -> None:
    prices, label = bars_of(str(YEAR_OF_MINUTES) if YEAR_OF_MINUTES.exists() else str(bars), rng)
    with tempfile.TemporaryDirectory() as folder:
        # Reading Parquet takes memory of its own, and so does compiling: both are done by now.
        path = Path(folder) / "prices.npy"
        np.save(path, prices[-bars:])
        command = [sys.executable, "-m", "benchmarks.kernel_scaling", "--remember", str(path)]
        command += ["--memory", str(bars), str(genomes)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    got = last_json(done.stdout)
    print(f"\nmemory, the last {got['bars']:,} of {label} x {genomes} genomes, peak of a process in MB")
    print(f"{got['before']:>10.0f} after the imports and a first call")
    print(f"{got['loaded']:>10.0f} with bars and rows")
    print(
        f"{got['peak']:>10.0f} after the population: {got['peak'] - got['before']:.0f} more than the imports"
    )
    print(f"{MEMORY_TARGET_MB:>10} target")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--most-bars", type=int, default=1_000_000)
    parser.add_argument("--most-genomes", type=int, default=4096)
    parser.add_argument(
        "--bars", type=int, default=60_000, help="bars of the tables of population and threads"
    )
    parser.add_argument("--memory", type=int, nargs=2, default=(500_000, 512), metavar=("BARS", "GENOMES"))
    parser.add_argument("--remember", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.remember:
        remember(options.remember, options.memory[1])
        return
    rng = np.random.default_rng(7)
    print(machine())
    print("reference family, processor time, best of the runs, ns per bar and genome")
    bars_table(options.genomes, options.most_bars, options.runs, rng)
    population_table(options.bars, options.most_genomes, options.runs, rng)
    thread_table(options.bars, options.genomes, options.runs, rng)
    memory_table(*options.memory, rng)


if __name__ == "__main__":
    main()

"""The population kernel: nanoseconds per bar and genome, complete with signals, stops, costs and statistics.

    python -m benchmarks.population_kernel [--bars 60000] [--genomes 256] [--runs 7]
    python -m benchmarks.population_kernel --peers [--peer-python PATH]

The second also trades the rule of ``reference_family.py`` in vectorbt, in backtesting.py and as a plain loop
in Python, on the same bars in the same run and from the bars to the metrics: every engine builds the
indicators of each genome itself, and its Sharpe ratio, drawdown and return are read.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backtest.limits import RiskLimits
from benchmarks import reference_family
from benchmarks.measuring import (
    RATE,
    Case,
    bars_of,
    episodes,
    last_json,
    machine,
    measure,
    times,
    unlike_the_stream,
)
from specialists.blend import Blend, BlendConfig
from specialists.origin8 import Origin8, Origin8Config

FAMILIES = ("reference", "blend", "origin8")
AWAKE = 0.25  # share of the bars in the second mask
FEW = 8  # genomes of the slow engines
CHECKED = 32  # genomes of each family that are compared with the stream
BARS_PER_YEAR = 8766  # hours
TARGETS = {"vectorbt": 100, "backtesting": 3000}  # times as fast, per genome

SEMANTICS = f"""
The same everywhere: decided at the close, filled at the next open, {RATE:.2%} per side, stop before
target, and without gaps the same levels. What differs: backtesting.py sets levels from the close of the
decision (without gaps the next open) and buys whole units (there is cash enough to hide it). vectorbt allows
one order per bar, so that stop and target rest on the entry bar and its later trades may differ; its averages
begin when their window is full. The kernel's Sharpe ratio and drawdown come from its statistics."""


class Measurable(NamedTuple):
    """A family and what it is measured on; the target is in ns per bar and genome, or NaN."""

    name: str
    target: float
    evaluate: Callable
    follow: Callable
    fresh: tuple[float, ...]
    genes: Callable[[int], np.ndarray]
    rows: np.ndarray


def families(prices: np.ndarray, rng: np.random.Generator, names: Sequence[str]) -> Iterator[Measurable]:
    """Yield the families of these names, each with random genes and rows."""
    n = len(prices)
    signals = np.clip(rng.normal(0.0, 1.2, (n, 14)), -4, 4)
    blend_rows = np.column_stack([signals, rng.uniform(0.003, 0.02, (n, 2))])
    origin_rows = np.column_stack([rng.uniform(-1, 1, n), rng.uniform(0.01, 0.1, n), rng.normal(0, 0.015, n)])
    one = reference_family

    def of(family):
        return lambda p: family.express(family.space.decode(rng.random((p, family.space.n_genes))))

    blend, origin8 = Blend(BlendConfig()), Origin8(Origin8Config(longest_hold=336))
    for made in (
        Measurable(
            "reference, 8 genes", one.TARGET_NS, one.evaluate, one.follow, one.FRESH,
            lambda p: one.express(one.draw(p, rng)), one.rows_of(prices),
        ),
        Measurable(
            "blend, 24 genes", 2.5, blend.evaluate, blend.follow, blend.fresh, of(blend), blend_rows
        ),
        Measurable(
            "origin8, 8 genes", math.nan, origin8.evaluate, origin8.follow, origin8.fresh, of(origin8),
            origin_rows,
        ),
    ):  # fmt: skip
        if made.name.split(",")[0] in names:
            yield made


def kernel_table(
    prices: np.ndarray, genomes: int, runs: int, names: Sequence[str], rng: np.random.Generator
) -> None:
    masks = {"always": None, f"{AWAKE:.0%}": episodes(len(prices), AWAKE, rng)}
    print("\nns per bar and genome    awake  threads  cpu best  cpu median  wall best  target")
    checks = []
    for family in families(prices, rng, names):
        genes = family.genes(genomes)
        for label, awake in masks.items():
            case = Case(prices, family.rows, awake)
            one, two = (measure(family.evaluate, case, genes, threads, runs) for threads in (1, 2))
            for threads, got in ((1, one), (2, two)):
                aim = f"{family.target:>8.1f}" if awake is None and threads == 1 and family.target > 0 else ""
                print(
                    f"{family.name:<23} {label:>6} {threads:>8} {got.best:>9.2f} {got.median:>11.2f} "
                    f"{got.wall:>10.2f}{aim}"
                )
            if awake is None:
                checks.append(
                    f"{family.name}: two threads are {one.wall / two.wall:.2f} times as fast as one by the "
                    f"wall, {2 * one.best / two.best:.2f} by processor time (target 1.9)"
                )
        some = genes[:CHECKED]
        unlike = unlike_the_stream(
            Case(prices, family.rows), family.evaluate, family.follow, family.fresh, some
        )
        checks.append(
            f"{family.name}: {unlike} of {len(some)} genomes decide otherwise than the streaming decide"
        )
    print(f"(cpu: per core; the {AWAKE:.0%} mask is awake on {masks[f'{AWAKE:.0%}'].mean():.1%} of the bars)")
    print("\n" + "\n".join(checks))


def complete(prices: np.ndarray, genes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of a population of the reference family, from the bars on."""
    case = Case(prices, reference_family.rows_of(prices), folds=1, limits=RiskLimits())
    out = case.run(reference_family.evaluate, reference_family.express(genes))
    mean = out[:, 0] / len(prices)
    spread = np.sqrt((out[:, 1] - len(prices) * mean**2) / (len(prices) - 1))
    sharpe = mean / np.where(spread > 0, spread, np.inf) * math.sqrt(BARS_PER_YEAR)
    return {"growth": out[:, 4], "trades": out[:, 3], "drawdown": out[:, 5], "sharpe": sharpe}


def peer_table(
    prices: np.ndarray, genomes: int, runs: int, peer_python: str, rng: np.random.Generator
) -> None:
    n, genes = len(prices), reference_family.draw(genomes, rng)
    names = ", ".join(gene[0] for gene in reference_family.GENES)
    print(f"\nThe reference rule ({names}), from the bars to the metrics, one core:")
    ours = complete(prices, genes)
    best = times(lambda: complete(prices, genes), runs)[:, 0].min() * 1e9 / (genomes * n)
    _line("population kernel", best, best, ours, ours)
    few = min(genomes, FEW)
    lists = (
        reference_family.express(genes[:few]).tolist(),
        reference_family.rows_of(prices).tolist(),
        prices.tolist(),
    )
    start = time.process_time()
    plain = [reference_family.plain_loop(one, *lists[1:]) for one in lists[0]]
    seconds = time.process_time() - start
    answer = {name: [one[name] for one in plain] for name in ("growth", "trades")}
    _line("plain Python loop", seconds * 1e9 / (few * n), best, answer, ours)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npz"
        np.savez(path, prices=prices, genes=genes, rate=RATE, bars_per_year=BARS_PER_YEAR)
        for peer, count in (("vectorbt", genomes), ("backtesting", few)):
            command = [peer_python, str(Path(__file__).with_name("peers.py")), peer, str(path), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                print(f"{peer}: skipped, it does not run with {Path(peer_python).name} ({reason})")
                continue
            answer = last_json(done.stdout)
            took = answer["seconds"] * 1e9 / n
            _line(answer["version"], took, best, answer, ours, TARGETS[peer])
            if "parts" in answer:
                parts = ", ".join(f"{name} {s * 1e9 / n:,.0f} ns" for name, s in answer["parts"].items())
                print(f"{'':<22} of which {parts}")
    print(SEMANTICS)


def _line(name: str, took: float, best: float, answer: dict, ours: dict, target: int | None = None) -> None:
    growth, trades = np.array(answer["growth"]), np.array(answer["trades"])
    apart = np.abs(growth / ours["growth"][: len(growth)] - 1)
    aim = f" (target {target:,})" if target else ""
    print(
        f"{name:<22} {took:>10,.2f} ns, {took / best:>7,.0f} times ours{aim} | {len(growth)} genomes, "
        f"{trades.mean():,.1f} trades each; growth apart: median {np.median(apart):.0e}, "
        f"most {apart.max():.0e}"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bars", default="60000", help="number of random-walk bars, or a Parquet file")
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="also time backtesting.py and vectorbt")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(7)
    prices, label = bars_of(options.bars, rng)
    print(machine())
    print(f"{label}, {options.genomes} genomes, {options.runs} runs")
    kernel_table(prices, options.genomes, options.runs, options.families, rng)
    if options.peers:
        peer_table(prices, options.genomes, options.runs, options.peer_python, rng)


if __name__ == "__main__":
    main()

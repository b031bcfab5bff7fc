"""How many trading tasks per minute the conductor can learn from, and how much there is to learn in them.

A task is one search of 50 individuals for 60 generations, 3,050 backtests, for the specialist of a regime on
one window. Printed are what preparing a market and calibrating a window takes; the spread of the calibrated
values, in annual ratios: what a random search of 40 genomes finds, and the best that anything found; and for
three fixed controls the tasks per minute, the decades of normalised regret (final: -2 is the floor), the
share of runs that end on the floor, the best known value being theirs, and the net annual Sharpe ratio of the
champions on the bars they were found on and on the equally many bars that follow.

    python -m benchmarks.trading_windows
    python -m benchmarks.trading_windows --bars FILE FILE FILE --windows 30 --seeds 10
    python -m benchmarks.trading_windows --window-bars 500
"""

import argparse
import time
from collections import Counter

import numpy as np

from benchmarks.measuring import machine
from compute.workers import ThreadMapper, n_cores
from conductor.calibration import LEAST_SCALE
from conductor.environment import Environment
from conductor.markets import Market, WindowsConfig, eras
from conductor.tasks import Window
from conductor.windows import TradingWindows
from ga.controls import RUGGED, SMOOTH, GAControls
from market.sources.selection import MarketConfig, select_bars

CONTROLS = {"default": GAControls(), "rugged": RUGGED, "smooth": SMOOTH}


def prepared(files: list[str], config: WindowsConfig) -> list[Market]:
    """Return the markets of files, or three synthetic ones."""
    base = MarketConfig()
    if files:
        chosen = [base.model_copy(update={"bars": file}) for file in files]
    else:
        chosen = [base.of_asset(name) for name in ("A", "B", "C")]
    return [Market.of(select_bars(one).bars, config) for one in chosen]


def spread(name: str, values: np.ndarray) -> None:
    quantiles = " ".join(f"{value:7.2f}" for value in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0)))
    print(f"{name:52s}{quantiles}")


def champions(environment: Environment) -> np.ndarray:
    """Return the fittest genes of each run, float64 (B, d)."""
    found = []
    for b in range(len(environment)):
        genes, fitness, _ = environment.population(b)
        found.append(genes[np.argmax(fitness)])
    return np.array(found)


def followed(source: TradingWindows, windows: list[Window], genes: np.ndarray) -> np.ndarray:
    """Return what champions earn on their windows and on the following ones, float64 (m, 2)."""
    pairs = []
    for window, one in zip(windows, genes, strict=True):
        if after := source.next_window(window):
            pairs.append([source.value(where, one[None])[0] for where in (window, after)])
    return np.array(pairs).reshape(-1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bars", nargs="*", default=[], help="files of bars; synthetic markets without")
    parser.add_argument("--window-bars", type=int, default=WindowsConfig().window_bars)
    parser.add_argument("--windows", type=int, default=24, help="how many of them are calibrated and run")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each window and each control")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    print(machine())
    config = WindowsConfig(window_bars=a.window_bars)
    begun = time.perf_counter()
    markets = prepared(a.bars, config)
    print(f"prepared {len(markets)} markets in {time.perf_counter() - begun:.1f} s")
    for split, (begin, end) in eras(markets)._asdict().items():
        own = TradingWindows(markets, config, seed=a.seed, begin=begin, end=end, split=split).windows
        print(f"{split:11s}{len(own):4d} windows: {dict(Counter(window.specialist for window in own))}")
    TradingWindows(markets, config, seed=a.seed).batch(0, 1)  # loads what is compiled
    source = TradingWindows(markets, config, seed=a.seed)
    begun = time.perf_counter()
    windows = [task.problem for task in source.batch(0, a.windows).tasks]
    seconds = time.perf_counter() - begun
    known = source.calibrated(windows)
    flat = sum(one.best_known - one.random < LEAST_SCALE for one in known)
    n = len(set(windows))
    print(f"calibrated {n} windows of {a.window_bars} bars in {seconds / n:.2f} s each; {flat} are flat")
    print(f"{'':52s}" + " ".join(f"{name:>7s}" for name in ("least", "25 %", "median", "75 %", "most")))
    spread("random search of 40 genomes", np.array([one.random for one in known]))
    spread("best known value", np.array([one.best_known for one in known]))
    spread("scale of regret", np.array([one.scale for one in known]))
    repeated = [window for window in windows for _ in range(a.seeds)]
    batch = source.batch_of(repeated, [a.seed * 1_000_000 + i for i in range(len(repeated))])
    for name, controls in CONTROLS.items():
        with ThreadMapper(a.threads) as threads:
            environment = batch.environment(mapper=threads)
            wall, cpu = time.perf_counter(), time.process_time()
            outcome = environment.run_fixed(controls.to_array())
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        scores = batch.scores(outcome)
        print(
            f"\n{name}: {60.0 * len(batch) / wall:,.0f} tasks per minute on {a.threads} threads, "
            f"{1e3 * cpu / len(batch):.1f} ms of processor each; "
            f"{np.mean(outcome.best[:, -1] >= -config.floor):.1%} of the runs end on the floor"
        )
        spread("  regret, anytime, decades", scores.anytime)
        spread("  regret, final, decades", scores.final)
        own, after = followed(source, repeated, champions(environment)).T
        print(f"  champions: Sharpe ratio {own.mean():.2f} on their bars, {after.mean():.2f} on those after")


if __name__ == "__main__":
    main()

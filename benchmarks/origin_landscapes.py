"""The search on the origin system's own fitness landscapes: for comparison only, no trading result.

    python benchmarks/origin_landscapes.py [--seeds 30] [--policy fixed] [--save FOLDER]
    python benchmarks/origin_landscapes.py --reproduce
    python benchmarks/origin_landscapes.py --load FOLDER

The landscape is rebuilt from data of the origin project, which is not part of this repository: daily bars of
one regime glued together, in-sample, without costs, sized equity compounded, executed at the close that gives
the signal. A number found on it says how well a search climbs it, and nothing about trading. The controls are
those of policy ``rugged``, whose last settings were chosen on these landscapes with seeds from 1000.

``--reproduce`` evaluates the published genomes and prints reported and re-measured fitness. Without it, each
seed runs one search of 200 individuals and 300 generations per regime and prints mean, best and worst fitness
and the seconds per run (one core, everything included). ``--save`` stores the champions, reloads them and
compares the fitness bit by bit; ``--load`` re-evaluates what an earlier ``--save`` stored.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from benchmarks.measuring import machine
from compute.kernels import R1, R2, RI1, W2, kernel
from compute.seeds import stream
from ga.controls import POLICIES, Hyperparameters
from ga.evolution import Evolution
from ga.space import Genome, GenomeSpace
from ga.variation import Variation

CAUTION = "in-sample, glued daily bars, no costs: a comparison of searches, no trading result"
REGIMES = ("volatile", "trending", "ranging")
GENES = (
    "stop_loss",
    "take_profit",
    "position_size",
    "entry_threshold",
    "exit_threshold",
    "max_hold_time",
    "volatility_scaling",
    "momentum_weight",
)
METRICS = (
    "total_return",
    "sharpe_ratio",
    "win_rate",
    "max_drawdown",
    "num_trades",
    "avg_trade_return",
    "profit_factor",
    "fitness",
)
FITNESS = METRICS.index("fitness")
HOLD = GENES.index("max_hold_time")
LONGEST_HOLD = 14  # days of a gene of 1
FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "origin"
UNDEFINED = -1000.0
#: Fitness the origin reports (best single run), and the best that any search has found.
REPORTED = {"volatile": 75.60, "trending": 47.55, "ranging": 6.99}
BEST_KNOWN = {"volatile": 79.5, "trending": 50.2, "ranging": 14.3}


def space() -> GenomeSpace:
    """Return the eight genes, each from 0 to 1, as the origin's later runs search them."""
    return GenomeSpace(GENES, np.zeros(8), np.ones(8), ("real",) * 8, name="origin landscape")


@kernel(inline=True)
def sized(share, scaling, weight, reach, momentum):
    """Return the size of a position as a share of equity; NaN while the range is undefined."""
    if reach != reach:
        return reach
    size = min(max(share / (scaling * reach), 0.01), 0.10)
    if weight > 0.5:
        if abs(momentum) > 0.01:
            size *= 1.0 + 0.5 * weight
    elif abs(momentum) > 0.02:
        size *= 1.0 - 0.3 * (1.0 - weight)
    return min(max(size, 0.01), 0.10)


@kernel(numba.void(R2, RI1, R1, R1, R1, R1, W2))
def metrics(genes, hold, close, signal, momentum, reach, out):
    """Trade each genome over the glued bars and write what the origin's objective reads.

    Parameters
    ----------
    genes : float64 (p, 8)
        In the order of ``GENES``.
    hold : int64 (p,)
        Longest stay in a position [bars].
    close, signal, momentum, reach : float64 (n,)
        Price, signal (0 where undefined), mean return of five days, mean range of 14 days [price].
    out : float64 (p, 8)
        In the order of ``METRICS``, written in place.
    """
    for i in range(genes.shape[0]):
        stop, target, share = genes[i, 0], genes[i, 1], genes[i, 2]
        enter, leave, scaling, weight = genes[i, 3], genes[i, 4], genes[i, 6], genes[i, 7]
        equity = peak = 10_000.0
        drawdown = won = lost = total = squares = days = 0.0
        trades = wins = 0
        side, opened, entry, size, profit = 0, 0, 0.0, 0.0, 0.0
        n = close.shape[0]
        for t in range(n):
            s = signal[t]
            if side != 0:
                change = (close[t] / entry - 1.0) * side
                worth = equity * (1.0 + size * change)
                age = t - opened
                if change <= -stop or change >= target or abs(s) < leave or s * side < -0.3 or age >= hold[i]:
                    profit = equity * size * change
                    equity += profit
                    worth = equity
                    side = 0
            elif abs(s) >= enter:
                side = 1 if s > 0.0 else -1
                entry, opened = close[t], t
                size = sized(share, scaling, weight, reach[t] / close[t], momentum[t])
                continue
            else:
                continue  # flat: equity, and with it the drawdown, stays
            if worth > peak:
                peak = worth
            elif peak - worth > 0.999999 * drawdown * peak:  # spares most bars the division
                drawdown = max(drawdown, (peak - worth) / peak)
            if side == 0:
                if profit > 0.0:
                    wins += 1
                    won += profit
                else:
                    lost -= profit
                trades += 1
                days += age
                total += change
                squares += change * change
        if side != 0:  # what is still open is closed at the last price
            change = (close[n - 1] / entry - 1.0) * side
            profit = equity * size * change
            equity += profit
            if profit > 0.0:
                wins += 1
                won += profit
            else:
                lost -= profit
            trades += 1
            days += n - opened
            total += change
            squares += change * change
        out[i] = 0.0
        if trades == 0:
            continue
        mean = total / trades
        deviation = math.sqrt(max(squares / trades - mean * mean, 0.0))
        sharpe = mean / deviation * math.sqrt(252.0 / max(1.0, days / trades)) if deviation > 0.0 else 0.0
        gain = equity / 10_000.0 - 1.0
        factor = won / lost if lost > 0.0 else won
        rate = wins / trades
        fitness = 10.0 * sharpe + 20.0 * gain + 5.0 * rate - 15.0 * drawdown + 3.0 * min(factor, 3.0)
        if not math.isfinite(fitness) or not math.isfinite(equity):
            fitness = -1000.0
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = gain, sharpe, rate, drawdown
        out[i, 4], out[i, 5], out[i, 6], out[i, 7] = trades, mean, factor, fitness


@dataclass(frozen=True, eq=False)
class Landscape:
    """The objective over one series of glued bars.

    Parameters
    ----------
    close, signal, momentum, reach : float64 (n,)
        See :func:`metrics`.
    """

    close: np.ndarray
    signal: np.ndarray
    momentum: np.ndarray
    reach: np.ndarray

    @classmethod
    def of(cls, high: np.ndarray, low: np.ndarray, close: np.ndarray, returns: np.ndarray, reverts: bool):
        """Return the landscape of glued bars.

        Parameters
        ----------
        high, low, close : float64 (n,)
            Bars of one regime in order [price].
        returns : float64 (n,)
            Return of each bar over the bar before it on the true calendar; only the factor for momentum
            reads it. The signal measures returns across the gaps.
        reverts : bool
            Whether the signal is the one against the move (ranging) or with it.
        """
        change = np.diff(close, prepend=np.nan)
        mean5, mean20 = rolling_mean(close, 5), rolling_mean(close, 20)
        if reverts:
            gains, losses = np.maximum(change, 0.0), np.maximum(-change, 0.0)
            ratio = rolling_mean(gains, 14) / rolling_mean(losses, 14)
            strength = 100.0 - 100.0 / (1.0 + ratio)
            signal = 3.0 * (50.0 - strength) / 50.0 - 5.0 * (close - mean20) / mean20
        else:
            glued = np.divide(change[1:], close[:-1])
            drift = rolling_mean(np.concatenate([[np.nan], glued]), 5)
            signal = 5.0 * (mean5 - mean20) / close + 10.0 * drift
        momentum = rolling_mean(returns, 5)
        return cls(
            np.ascontiguousarray(close),
            np.nan_to_num(signal, nan=0.0),
            np.nan_to_num(momentum, nan=0.0),
            rolling_mean(high - low, 14),
        )

    @classmethod
    def load(cls, regime: str, folder: Path = FOLDER) -> "Landscape":
        """Return the landscape of a regime from the origin's daily bars and labels."""
        from pyarrow.parquet import read_table

        bars = read_table(folder / "btc_daily.parquet", columns=["high", "low", "close"])
        high, low, close = (bars.column(name).to_numpy() for name in ("high", "low", "close"))
        labels = read_table(folder / "btc_daily_regimes.parquet", columns=["regime_training"])
        rows = np.array(labels.column(0).to_pylist()) == regime
        returns = np.concatenate([[np.nan], np.diff(close) / close[:-1]])
        return cls.of(high[rows], low[rows], close[rows], returns[rows], regime == "ranging")

    def metrics(self, genes: np.ndarray, hold: np.ndarray | None = None) -> np.ndarray:
        """Return the metrics of genomes (p, 8), float64 (p, 8) in the order of ``METRICS``.

        Parameters
        ----------
        genes : float64 (p, 8)
        hold : int64 (p,), optional
            Longest stay [bars]; without it, of the gene, as the origin's later runs do.
        """
        genes = np.ascontiguousarray(genes, dtype=np.float64)
        if hold is None:
            hold = np.maximum(1, np.floor(LONGEST_HOLD * genes[:, HOLD])).astype(np.int64)
        out = np.empty((len(genes), len(METRICS)))
        metrics(genes, hold, self.close, self.signal, self.momentum, self.reach, out)
        return out

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return the fitness of genomes (p, 8), float64 (p,)."""
        return self.metrics(genes)[:, FITNESS]


def rolling_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the simple mean of the latest values, float64 (n,); NaN until the window is full."""
    means = np.full(values.size, np.nan)
    means[window - 1 :] = np.lib.stride_tricks.sliding_window_view(values, window).mean(axis=1)
    return means


def published(folder: Path = FOLDER) -> list[tuple[str, str, np.ndarray, int, float]]:
    """Return (regime, which search, genes (8,), longest stay, reported fitness) of the six stored genomes."""
    stored = json.loads((folder / "phase3a_genomes.json").read_text(encoding="utf-8"))
    rows = []
    for regime in REGIMES:
        later = stored["specialists"][regime]
        plain = stored["plain_ga_baseline_2025_11_05"]["specialists"][regime]
        for name, entry, fitness in (
            ("with conductor", later["effective_genome"], later["reported_fitness"]),
            ("plain GA", plain, plain["reported_fitness"]),
        ):
            genes = np.array([entry["genes"][gene] for gene in GENES])
            rows.append((regime, name, genes, int(entry["max_hold_days"]), float(fitness)))
    return rows


def searched(
    fitness, seed, policy="rugged", population_size=200, n_generations=300, settings=None, variation=None
):
    """Return the champion of one search of a landscape, and the seconds it took."""
    start = time.perf_counter()
    run = Hyperparameters(population_size=population_size, n_generations=n_generations, patience=0)
    chosen = POLICIES.create(policy, settings or {})
    evolution = Evolution(space(), run, stream(seed, "ga"), variation=variation)
    while not evolution.finished:
        evolution.tell(fitness(evolution.ask(chosen.controls(evolution.progress))))
    return evolution.champion, time.perf_counter() - start


def compared(folder: Path) -> None:
    """Print reported and re-measured fitness of the published genomes."""
    print(f"{'':26s} {'reported':>12s} {'here':>12s} {'difference':>11s}")
    for regime, name, genes, hold, fitness in published(folder):
        found = Landscape.load(regime, folder).metrics(genes[None], np.array([hold]))[0, FITNESS]
        print(f"{regime + ', ' + name:26s} {fitness:12.6f} {found:12.6f} {found - fitness:11.1e}")


def reloaded(champions: Path, folder: Path) -> int:
    """Re-evaluate stored champions, and return how many do not have their stored fitness to the bit."""
    different = 0
    files = sorted(champions.glob("*.json"))
    for file in files:
        genome = Genome.load(file, space())
        again = Landscape.load(file.stem.split("_")[0], folder)(genome.genes[None])[0]
        different += float(again).hex() != genome.fitness.hex()
    print(
        f"{len(files) - different} of {len(files)} stored champions re-evaluate to their stored fitness, "
        "bit for bit"
    )
    return different


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--policy", nargs="+", default=["rugged"], help="control policies")
    parser.add_argument("--conductor", help="folder of a trained conductor, instead of control policies")
    parser.add_argument("--population", type=int, default=200)
    parser.add_argument("--generations", type=int, default=300)
    parser.add_argument("--reproduce", action="store_true", help="evaluate the published genomes and stop")
    parser.add_argument("--save", type=Path, help="folder for the champions, which are then re-evaluated")
    parser.add_argument("--load", type=Path, help="re-evaluate the champions of this folder and stop")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the origin's data")
    options = parser.parse_args(arguments)
    print(f"Origin landscapes: {CAUTION}.")
    if options.reproduce:
        compared(options.data)
        return
    if options.load:
        sys.exit(reloaded(options.load, options.data) > 0)
    settings, variation = None, Variation()
    if options.conductor:
        from conductor.model import read_document

        # A conductor steers the operators that it learned with.
        settings = {"folder": options.conductor}
        variation = Variation(**read_document(Path(options.conductor))["variation"])
    print(machine())
    print(
        f"{options.seeds} seeds from {options.seed}, population {options.population}, {options.generations} "
        f"generations; variation {variation.model_dump()}"
    )
    print(
        f"{'':24s} {'mean':>7s} {'lowest':>7s} {'highest':>7s} {'seconds':>8s} {'origin':>7s} {'known':>6s}"
    )
    for policy in ["conductor"] if options.conductor else options.policy:
        for regime in REGIMES:
            landscape = Landscape.load(regime, options.data)
            fitness, seconds = [], []
            for seed in range(options.seed, options.seed + options.seeds):
                champion, spent = searched(
                    landscape, seed, policy, options.population, options.generations, settings, variation
                )
                fitness.append(champion.fitness)
                seconds.append(spent)
                if options.save:
                    options.save.mkdir(parents=True, exist_ok=True)
                    champion.save(options.save / f"{regime}_{policy}_{seed}.json", space())
            print(
                f"{policy + ', ' + regime:24s} {np.mean(fitness):7.2f} {min(fitness):7.2f} "
                f"{max(fitness):7.2f} {np.mean(seconds):8.2f} {REPORTED[regime]:7.2f} "
                f"{BEST_KNOWN[regime]:6.1f}",
                flush=True,
            )
    if options.save:
        sys.exit(reloaded(options.save, options.data) > 0)


if __name__ == "__main__":
    main()

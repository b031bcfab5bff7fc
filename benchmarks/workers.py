"""What a generation costs on Ray, next to threads and to one process.

    python benchmarks/workers.py [--population 256] [--bars 60000] [--workers 2] [--rounds 7]

A synthetic market, the default family `blend`, its default fitness, fresh random genomes in every generation.
Serial, threads and Ray take turns within one run, in blocks of some generations, so that all see the same
machine; medians over the rounds are shown. Processor seconds are user and system time of this process and of
Ray's worker processes; those of Ray's other processes (raylet, control store, agents) are shown beside them,
with what they take while nothing is mapped on Ray.

Must hold: Ray takes at most 5 % more processor time than threads. Everything is measured after start-up, that
is printed too. Ends with status 1 if it does not hold, or if one fitness differs by a bit.
"""

import argparse
import hashlib
import sys
import time
from dataclasses import dataclass, field, replace

import numpy as np
from measuring import machine

from compute.workers import RayMapper, SerialMapper, ThreadMapper
from configs.load import PluginConfig
from ga.evaluation import Evaluator
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.training import SpecialistConfig, SpecialistSearch, prepare

ALLOWED = 1.05


def fitness_of(n_bars, seed, regime="volatile"):
    """Return the default fitness on a synthetic market, cut to a number of training bars."""
    config = SpecialistConfig(regime=regime, detector=PluginConfig(name="volatility"))
    market = synthetic_market(SyntheticConfig(n_bars=int(1.6 * n_bars) + 2_000, seed=seed))
    whole = SpecialistSearch.of(prepare(market.bars, config), config).fitness
    if len(whole.bars) < n_bars:
        raise SystemExit(f"the training rows are {len(whole.bars)} bars, fewer than {n_bars}")
    return replace(whole, bars=whole.bars[:n_bars], rows=whole.rows[:n_bars], awake=whole.awake[:n_bars])


@dataclass
class Clock:
    """Processor seconds so far of this process, Ray's workers and the rest of Ray, and the wall."""

    workers: list  # psutil processes
    others: list

    def read(self):
        """Return seconds, float64 (4,)."""
        return np.array([time.process_time(), _cpu(self.workers), _cpu(self.others), time.perf_counter()])


def _cpu(processes):
    total = 0.0
    for process in processes:
        if process.is_running():
            times = process.cpu_times()
            total += times.user + times.system
    return total


@dataclass
class Kind:
    """One mapper, its blocks of generations, and a hash of all its answers."""

    name: str
    evaluator: Evaluator
    blocks: list = field(default_factory=list)
    digest: object = field(default_factory=hashlib.sha256)

    def block(self, generations, clock):
        """Evaluate some generations and note what each has taken."""
        before = clock.read()
        for genes in generations:
            self.digest.update(self.evaluator(genes).tobytes())
        self.blocks.append((clock.read() - before) / len(generations))


def processes_of(ray_mapper):
    """Return Ray's worker processes and the others of its Ray, as psutil processes."""
    import os

    import psutil  # comes with Ray

    numbers = set(ray_mapper.map(_process, range(64)))
    children = psutil.Process(os.getpid()).children(recursive=True)
    workers = [child for child in children if child.pid in numbers]
    return workers, [child for child in children if child.pid not in numbers]


def _process(_):
    import os
    import time

    time.sleep(0.01)  # long enough that every worker gets its share
    return os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--population", type=int, default=256)
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--regime", default="all", help="where the genomes may trade; all is everywhere")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--generations", type=int, default=10, help="generations in a block")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dashboard", action="store_true", help="let Ray serve its dashboard meanwhile")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    rng = np.random.default_rng(a.seed)
    fitness = fitness_of(a.bars, a.seed, a.regime)
    n_genes = fitness.family.space.n_genes
    print(machine())
    print(
        f"population {a.population} x {len(fitness.bars):,} bars, regime {a.regime}, {a.workers} workers, "
        f"blocks of {a.generations} generations, median of {a.rounds} rounds, seed {a.seed}"
    )

    began = time.perf_counter()
    with RayMapper(a.workers, dashboard=a.dashboard) as on_ray, ThreadMapper(a.workers) as threads:
        started = time.perf_counter() - began
        mappers = {"serial": SerialMapper(), "threads": threads, "ray": on_ray}
        kinds = [Kind(name, Evaluator(fitness, fitness.family.space, one)) for name, one in mappers.items()]
        warm = rng.random((a.population, n_genes))
        for kind in kinds:  # the first loads kernels, on Ray it also brings the data
            began = time.perf_counter()
            kind.evaluator(warm)
            first = time.perf_counter() - began
        print(
            f"Ray: {started:.1f} s to start, {first:.1f} s for the first generation (imports, kernels, data)"
        )
        packed = len(on_ray._ray.cloudpickle.dumps(fitness))
        clock = Clock(*processes_of(on_ray))
        sent = on_ray.messages, on_ray.sent_bytes
        for _ in range(a.rounds):
            generations = rng.random((a.generations, a.population, n_genes))
            for kind in kinds:
                kind.block(generations, clock)
        messages, size = on_ray.messages - sent[0], on_ray.sent_bytes - sent[1]
    n = a.rounds * a.generations
    print(
        f"Ray: {messages / n:.0f} messages per generation of {a.population * n / messages:.0f} genomes and "
        f"{size / messages / 1e3:.1f} kB each; the fitness travels once, {packed / 1e6:.1f} MB\n"
    )
    head = ("wall ms", "CPU ms", "here", "workers", "rest of Ray")
    print(f"{'per generation':16s}" + "".join(f"{name:>12s}" for name in head))
    cpu = {}
    for kind in kinds:
        here, workers, rest, wall = 1e3 * np.median(kind.blocks, axis=0)
        total = 1e3 * np.median([block[0] + block[1] for block in kind.blocks])
        cpu[kind.name] = total
        print(f"{kind.name:16s} {wall:11.2f} {total:11.2f} {here:11.2f} {workers:11.2f} {rest:11.2f}")
    blocks = {kind.name: np.array(kind.blocks) for kind in kinds}
    idle = np.concatenate([blocks["serial"], blocks["threads"]])
    with_rest = np.median(blocks["ray"][:, :3].sum(axis=1)) * 1e3
    busy = blocks["ray"]
    print(
        f"\nThe rest of Ray takes {100 * idle[:, 2].sum() / idle[:, 3].sum():.1f} % of a core while nothing "
        f"is mapped on it, {100 * busy[:, 2].sum() / busy[:, 3].sum():.1f} % while something is."
    )
    same = len({kind.digest.hexdigest() for kind in kinds}) == 1
    ratio = cpu["ray"] / cpu["threads"]
    print(f"CPU of Ray over threads: {ratio:.3f} ({with_rest / cpu['threads']:.3f} with the rest of Ray)")
    print(f"same bits from all three: {'yes' if same else 'NO'}")
    if ratio > ALLOWED or not same:
        sys.exit(f"must hold: at most {ALLOWED}, and the same bits")


if __name__ == "__main__":
    main()

"""What a generation of a whole run costs beside its fitness: search, checkpoint, ledger, table, pages.

    python -m benchmarks.generation_cost [--bars 88000] [--generations 60] [--every 1] [--threads 2]

A default run (256 genomes, a generalist that is awake on every bar) on so many synthetic bars that about
60,000 are trained on. Wall time per generation of the whole loop of ``python -m ga.evolve``, and the part of
it in which the main thread waits for the workers; what is left is our own.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.measuring import machine
from compute.workers import ThreadMapper
from configs.load import load
from experiments.runs import Run
from specialists.evolving import Work, begin_run, hunt
from specialists.settings import EvolveConfig


class Timed(ThreadMapper):
    """Threads that add up how long they were waited for."""

    waited = 0.0

    def map(self, function, items):
        """Return the results in the order of the items."""
        began = time.perf_counter()
        answers = super().map(function, items)
        self.waited += time.perf_counter() - began
        return answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bars", type=int, default=88_000)
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="generations between checkpoints; 0: none")
    options = parser.parse_args()
    silent = Console(file=io.StringIO())
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        settings = (f"market.synthetic.n_bars={options.bars}", "hyperparameters.patience=0")
        settings += (f"hyperparameters.n_generations={options.generations}",)
        settings += (f"checkpoints.every={options.every}",)
        config = load(EvolveConfig, "evolve.yaml", settings, regime="all", runs=str(Path(folder) / "runs"))
        work = Work.open(config, silent)
        rows = work.ground.split.train
        print(
            f"{config.hyperparameters.population_size} genomes x {rows.stop - rows.start:,} training bars, "
            f"{options.generations} generations, {options.threads} threads, a checkpoint every "
            f"{options.every}, median of {options.repeats} runs"
        )
        found = []
        for _ in range(options.repeats):
            run = Run.open(config.runs, "evolve", "all")
            begin_run(run, work)
            with Timed(options.threads) as workers, work.checkpoints(run) as checkpoints:
                began = time.perf_counter()
                hunt(run, work, checkpoints, workers, silent)
                whole = time.perf_counter() - began
            found.append((whole, workers.waited))
    whole, waited = np.median(found, axis=0) / (options.generations + 1) * 1e3
    print(f"whole generation {whole:7.2f} ms, of which the fitness {waited:7.2f} ms")
    print(f"everything else  {whole - waited:7.2f} ms, {(whole - waited) / whole:.1%}; must hold: under 10 %")


if __name__ == "__main__":
    main()

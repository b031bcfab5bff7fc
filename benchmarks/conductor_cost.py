"""What a conductor costs inside a search: time for the controls of one generation, and its share of a run.

Three figures for each variant: loading it (PyTorch apart, once per process), the controls of a generation,
and that as a share of a generation of 256 genomes on the training bars of the synthetic market.

    python -m benchmarks.conductor_cost [--variant es hybrid transformer]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measuring import machine
from compute.workers import ThreadMapper
from configs.load import load
from ga.controls import POLICIES
from market.sources.selection import select_bars
from specialists.settings import EvolveConfig
from specialists.training import ChampionSearch, SpecialistSearch, prepare


def made(variant: str, folder: Path) -> Path:
    """Return the folder of a conductor with random weights: what it says costs the same."""
    from conductor.model import Conductor
    from conductor.network import flat, new_network, put
    from conductor.steering import Steering
    from ga.controls import GAControls

    network = new_network(variant, {}, 1)
    put(network, flat(network) + np.random.default_rng(1).normal(0.0, 0.1, flat(network).size))
    return Conductor(variant, network, Steering.around(GAControls())).save(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", nargs="+", default=["es", "hybrid", "committee", "transformer"])
    options = parser.parse_args()
    print(machine())
    config = load(EvolveConfig, "evolve.yaml")
    ground = prepare(select_bars(config.market).bars, config)
    with ThreadMapper() as workers, tempfile.TemporaryDirectory() as scratch:
        search = ChampionSearch(SpecialistSearch.of(ground, config), workers)
        search.step()
        begin = time.perf_counter()
        for _ in range(20):
            search.step()
        generation = (time.perf_counter() - begin) / 20
        progress = search.evolution.progress
        print(f"a generation of 256 genomes, {ground.split.train.stop:,} bars: {1e3 * generation:.1f} ms")
        begin = time.perf_counter()
        import torch  # noqa: F401

        print(f"importing PyTorch, once: {time.perf_counter() - begin:.2f} s")
        for variant in options.variant:
            folder = made(variant, Path(scratch) / variant)
            policy = POLICIES.create("conductor", {"folder": str(folder)})
            begin = time.perf_counter()
            policy.controls(progress)
            loading = time.perf_counter() - begin
            begin = time.perf_counter()
            for _ in range(200):
                policy.controls(progress)
            spent = (time.perf_counter() - begin) / 200
            print(
                f"{variant:12s} loading {1e3 * loading:6.0f} ms, a generation {1e3 * spent:6.3f} ms: "
                f"{100 * spent / (generation + spent):.2f} % of the run"
            )


if __name__ == "__main__":
    main()

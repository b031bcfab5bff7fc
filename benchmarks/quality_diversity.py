"""What the emitters of the archive are worth: coverage and QD score, in sample and out of sample.

    python -m benchmarks.quality_diversity [--bars 20000] [--genomes 200] [--generations 60] [--seeds 3]
    python -m benchmarks.quality_diversity --timing

Every search evaluates equally many specialists of the default family on the same synthetic market, in the
volatile regime, and differs in what proposes genomes: uniform samples, Gaussian steps, steps along lines,
CMA-ES (CMA-ME), both kinds of steps (the default), and all three together. Figures are means
over seeds of search and market. Synthetic markets have a planted edge; these figures say how well the search
works and nothing about trading.

--timing: what one evaluation costs with and without behavior, microseconds per genome on one core.
"""

import argparse
import time

import numpy as np

from benchmarks.measuring import machine
from compute.workers import SerialMapper, ThreadMapper
from configs.load import PluginConfig
from ga.elites import MapElites
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.archive_report import open_archive, summary
from specialists.archives import ArchiveConfig, evolve_archive
from specialists.niches import NicheFitness
from specialists.training import SpecialistConfig, SpecialistSearch, prepare

SEARCHES = {
    "samples": ("sample",),
    "gaussian": ("gaussian",),
    "line": ("line",),
    "improvement": ("improvement",),
    "two steps": MapElites.DEFAULT,
    "all three": ("gaussian", "line", "improvement"),
}


def config_of(genomes: int, generations: int, seed: int) -> SpecialistConfig:
    """Return the settings of one search."""
    return SpecialistConfig.model_validate(
        {
            "detector": PluginConfig(name="volatility"),
            "hyperparameters": {
                "population_size": genomes, "n_generations": generations, "patience": 0,
            },
            "seed": seed,
        }
    )  # fmt: skip


def compare(bars: int, genomes: int, generations: int, seeds: int, first: int) -> None:
    """Print one row per search."""
    rows: dict[str, list[list[float]]] = {}
    with ThreadMapper() as workers:
        for seed in range(first, first + seeds):
            config = config_of(genomes, generations, seed)
            ground = prepare(synthetic_market(SyntheticConfig(n_bars=bars, seed=seed)).bars, config)
            for name, emitters in SEARCHES.items():
                began = time.perf_counter()
                archive = evolve_archive(ground, config, workers, settings=ArchiveConfig(emitters=emitters))
                seconds = time.perf_counter() - began
                total = summary(archive, open_archive(ground, archive, workers))["all"]
                rows.setdefault(name, []).append(
                    [
                        total["coverage"], total["qd_score"], total["positive"],
                        total["qd_score_out_of_sample"], total["still_positive"], total["same_cell"],
                        archive.evolved.n_unique, seconds,
                    ]
                )  # fmt: skip
    print(
        f"{bars:,} synthetic bars, {genomes} genomes x {generations + 1} generations, seeds {first} to "
        f"{first + seeds - 1}"
    )
    print(
        f"{'':12s} {'coverage':>9s} {'QD score':>9s} {'positive':>9s} {'QD unseen':>10s} "
        f"{'still pos.':>11s} {'same cell':>10s} {'evaluated':>10s} {'seconds':>8s}"
    )
    for name, found in rows.items():
        a, b, c, d, e, f, g, h = np.mean(found, axis=0)
        print(f"{name:12s} {a:9.1%} {b:9.1f} {c:9.1f} {d:10.1f} {e:11.1f} {f:10.1%} {g:10,.0f} {h:8.1f}")


def timing(bars: int, genomes: int, seed: int) -> None:
    """Print the cost of one evaluation with and without behavior."""
    config = config_of(genomes, 1, seed)
    ground = prepare(synthetic_market(SyntheticConfig(n_bars=bars, seed=seed)).bars, config)
    search = SpecialistSearch.of(ground, config)
    genes = search.fitness.family.space.sample(np.random.default_rng(seed), genomes)
    print(f"{len(search.fitness.bars):,} training bars, {genomes} genomes, one core, median of 5")
    with SerialMapper():
        for name, fitness in (
            ("fitness", search.fitness),
            ("with behavior", NicheFitness.of(search.fitness)),
        ):
            fitness(genes)
            seconds = []
            for _ in range(5):
                began = time.perf_counter()
                fitness(genes)
                seconds.append(time.perf_counter() - began)
            print(f"  {name:14s} {1e6 * np.median(seconds) / genomes:9.1f} microseconds per genome")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bars", type=int, default=20_000)
    parser.add_argument("--genomes", type=int, default=200)
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timing", action="store_true", help="what an evaluation costs, and stop")
    a = parser.parse_args()
    print(machine())
    if a.timing:
        timing(a.bars, a.genomes, a.seed)
    else:
        compare(a.bars, a.genomes, a.generations, a.seeds, a.seed)


if __name__ == "__main__":
    main()

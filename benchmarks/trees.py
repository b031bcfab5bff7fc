"""The tree family: its interpreter, its duplicates, and what a search for trees finds beside the blend.

    python -m benchmarks.trees [--bars 60000] [--genomes 256] [--runs 7] [--trees 1000] [--markets 4]

Times are processor nanoseconds per bar and genome on one core. The searches run on synthetic markets with the
default controls; what they find in sample is labelled so and stands beside the same champion out of sample.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from deap import gp

from benchmarks.measuring import Case, bars_of, episodes, machine, measure, times, unlike_the_stream
from compute.workers import SerialMapper
from configs.load import PluginConfig
from ga import operators, tree_kernels, tree_variation
from ga.controls import GAControls
from ga.trees import PRIMITIVES, RAMP, TreeSpace, probes, vocabulary
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.blend import Blend, BlendConfig
from specialists.fitness import FitnessConfig
from specialists.training import SpecialistConfig, SpecialistSearch, judge, prepare
from specialists.tree import SIGNALS, Tree, TreeConfig

AWAKE = 0.25  # share of the bars in the second mask
GOAL = 30.0  # ns per bar and genome, trees of 15 nodes
SIZES = ((3, 5), (13, 17), (27, 31))  # nodes, from and to
FEW_ROWS = 500  # of the slow interpreter
CHECKED = 70  # genomes that are compared with the stream: more than one block

# The primitives over whole columns, in the order of ga.trees.PRIMITIVES.
_COLUMNS = (
    np.add, np.subtract, np.multiply, lambda a, b: a / np.sqrt(1.0 + b * b),
    lambda a, b: np.where(a < b, a, b), lambda a, b: np.where(a > b, a, b), np.negative, np.abs,
    lambda a: a / (1.0 + np.abs(a)), lambda c, a, b: np.where(c > 0.5, a, b),
    lambda a, b: np.where(np.greater(a, b), 1.0, 0.0), np.multiply,
    lambda a, b: np.where(a > b, a, b), lambda a: 1.0 - a,
)  # fmt: skip


def family() -> Tree:
    """Return the tree family with its default settings."""
    return Tree(TreeConfig())


def genomes_of_size(space: TreeSpace, low: int, high: int, p: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``p`` random genomes whose trees have from ``low`` to ``high`` nodes, float64 (p, d).

    Drift without selection and with wide mutations makes trees of all sizes.
    """
    box, found = tree_variation.toolbox(space), []
    genes = space.sample(rng, 256)
    wild = GAControls(mutation_rate=0.1, mutation_tail=1.0, crossover_rate=1.0, differential_rate=0.0)
    while sum(map(len, found)) < p:
        genes = box.breed(rng, genes, np.arange(256), rng.integers(0, 256, 256), wild).children
        sizes = (space.programs(genes) >= 0).sum(axis=1)
        found.append(genes[(sizes >= low) & (sizes <= high)])
        # Larger trees have more children, as bloat would have it.
        genes = genes[rng.choice(256, 256, p=sizes / sizes.sum())]
    return np.vstack(found)[:p]


def interpreters(
    space: TreeSpace, genes: np.ndarray, rows: np.ndarray, runs: int
) -> Iterator[tuple[str, float]]:
    """Yield names and nanoseconds per bar and genome of ways to run trees."""
    k, few = len(SIGNALS), min(16, len(genes))
    programs, trees = space.programs(genes), space.trees(genes[:few])
    out, chosen = np.empty((len(rows), len(genes))), np.arange(len(rows))
    yield (
        "our interpreter, signals only",
        _ns(lambda: tree_kernels.run_programs(programs, rows, chosen, k, out), len(genes) * len(rows), runs),
    )
    symbols = vocabulary(SIGNALS).primitives
    plain = [gp.compile(tree, symbols) for tree in trees]
    inputs = [(*row, *(float(x > 0) for x in row)) for row in rows[:FEW_ROWS, :k].tolist()]
    yield (
        "gp.compile, Python numbers",
        _ns(lambda: [[function(*row) for row in inputs] for function in plain], few * len(inputs), 1),
    )
    with over_columns(symbols):
        fast = [gp.compile(tree, symbols) for tree in trees]
        columns = [np.ascontiguousarray(column) for column in rows[:, :k].T]
        columns += [np.where(column > 0, 1.0, 0.0) for column in columns]
        yield (
            "gp.compile, NumPy columns",
            _ns(lambda: [function(*columns) for function in fast], few * len(rows), runs),
        )


@contextmanager
def over_columns(symbols: gp.PrimitiveSetTyped) -> Iterator[None]:
    """Let ``gp.compile`` take the primitives over whole columns."""
    before = dict(symbols.context)
    symbols.context.update(zip((name for name, *_ in PRIMITIVES), _COLUMNS, strict=True))
    try:
        yield
    finally:
        symbols.context.clear()
        symbols.context.update(before)


def _ns(run: Callable[[], object], work: int, runs: int) -> float:
    return float(times(run, runs)[:, 0].min() * 1e9 / work)


def speed(bars: str, genomes: int, runs: int, rng: np.random.Generator) -> None:
    """Print the time of a bar and genome, by size of tree, beside the blend and two other interpreters."""
    prices, label = bars_of(bars, rng)
    n, tree, blend = len(prices), family(), Blend(BlendConfig())
    rows = np.column_stack([np.clip(rng.normal(0.0, 1.2, (n, 14)), -4, 4), rng.uniform(0.003, 0.02, (n, 2))])
    print(f"\n{label}, {genomes} genomes; ns per bar and genome, one core, processor time, best of {runs}")
    cases = {
        "always awake": Case(prices, rows),
        f"{AWAKE:.0%} awake": Case(prices, rows, episodes(n, AWAKE, rng)),
    }
    drawn = blend.express(blend.space.decode(rng.random((genomes, blend.space.n_genes))))
    for name, case in cases.items():
        print(f"{'blend, ' + name:<42}{measure(blend.evaluate, case, drawn, 1, runs).best:>10.2f}")
    for low, high in SIZES:
        genes = genomes_of_size(tree.space, low, high, genomes, rng)
        mean = (tree.space.programs(genes) >= 0).sum() / len(genes)
        parameters = tree.express(tree.space.decode(genes))
        for name, case in cases.items():
            took = measure(tree.evaluate, case, parameters, 1, runs).best
            aim = f"  goal {GOAL:.0f}" if (low, high) == SIZES[1] else ""
            print(f"{f'trees of {mean:.1f} nodes, {name}':<42}{took:>10.2f}{aim}")
        for name, took in interpreters(tree.space, genes, rows, runs):
            print(f"{'  ' + name:<42}{took:>10.2f}")
        unlike = unlike_the_stream(
            cases["always awake"], tree.evaluate, tree.follow, tree.fresh, parameters[:CHECKED]
        )
        print(f"  {unlike} of {min(CHECKED, genomes)} genomes decide otherwise than their stream")


def duplicates(p: int, rng: np.random.Generator) -> None:
    """Print how many trees say what another one says, and what breeding costs."""
    space = family().space
    box, symbols = tree_variation.toolbox(space), space.vocabulary.primitives
    with operators.python_random(rng):
        drawn = [gp.PrimitiveTree(gp.genHalfAndHalf(symbols, *RAMP)) for _ in range(4 * p)]
    drawn = [tree for tree in drawn if len(tree) <= space.max_nodes][:p]
    genes = np.hstack([space.plant(drawn), np.full((len(drawn), space.n_genes - space.max_nodes), 0.5)])
    texts = len({str(tree) for tree in drawn})
    meanings = len(np.unique(space.semantics(genes), axis=0))
    removed = 1 - np.mean([len(tree) for tree in space.trees(genes)]) / np.mean([len(tree) for tree in drawn])
    print(
        f"\n{len(drawn)} trees drawn by ramped half-and-half: {texts} different texts, {meanings} different "
        f"meanings;\n{1 - meanings / len(drawn):.1%} are semantic duplicates and drawn again. Shortening "
        f"takes {removed:.1%} of the nodes."
    )
    genes = space.sample(rng, p)
    before = space.semantics(genes)
    for name, share in (
        ("subtree crossover", _unchanged(space, box, genes, before, rng, crossing=True)),
        ("one mutation", _unchanged(space, box, genes, before, rng, crossing=False)),
    ):
        print(f"After {name} {share:.1%} of trees still say what their parent says, and are varied again.")
    controls, parents = GAControls(), rng.integers(0, p, p)
    took = times(lambda: box.breed(rng, genes, np.arange(p), parents, controls), 5)[:, 0].min()
    keys = times(lambda: space.keys(genes), 5)[:, 0].min()
    print(f"Breeding {took / p * 1e6:.0f} us and identity {keys / p * 1e6:.1f} us per offspring.")


def _unchanged(
    space: TreeSpace,
    box: object,
    genes: np.ndarray,
    before: np.ndarray,
    rng: np.random.Generator,
    crossing: bool,
) -> float:
    trees, others = space.trees(genes), space.trees(genes[rng.permutation(len(genes))])
    with operators.python_random(rng):
        if crossing:
            made = [box.cross_trees(one, other)[0] for one, other in zip(trees, others, strict=True)]
        else:
            made = [tree_variation.mutated(one, 0.5, GAControls().mutation_step, box) for one in trees]
    after = genes.copy()
    after[:, : space.max_nodes] = space.plant(made)
    return float((space.semantics(after) == before).all(axis=1).mean())


def merged(p: int, rng: np.random.Generator) -> None:
    """Print how often trees that agree on the probes differ on the bars of a market."""
    from market.causal import transform
    from market.features.pipeline import FeaturePipeline
    from market.scaling import Scaler

    pipeline = FeaturePipeline()
    features = transform(pipeline, synthetic_market(SyntheticConfig(n_bars=12_000, seed=5)).bars)
    features = features[pipeline.warmup :].select(SIGNALS)
    rows = np.ascontiguousarray(Scaler.fit(features).update(features).values)
    space = family().space
    values = space.decode(genomes_of_size(space, 5, 31, p, rng))
    # As written, with their redundancies: points of the cube near programs, not shortened.
    genes = np.clip(space.encode(values) + rng.normal(0, 0.05, values.shape), 0.0, 1.0)
    programs, short = space.programs(genes), np.empty((p, space.max_nodes))
    tree_kernels.shorten(programs, probes(len(SIGNALS)), len(SIGNALS), short)
    changed = np.flatnonzero((programs != short).any(axis=1))
    said = []
    for some in (programs, short):
        out = np.empty((len(rows), changed.size))
        tree_kernels.run_programs(
            np.ascontiguousarray(some[changed]), rows, np.arange(len(rows)), len(SIGNALS), out
        )
        said.append(out)
    apart = np.abs(said[0] - said[1]) > 1e-6 * (1.0 + np.abs(said[1]))
    print(
        f"{changed.size} of {p} trees have a shorter form that agrees on all {len(probes(14))} probes; on "
        f"{len(rows):,} market bars {int(apart.any(axis=0).sum())} of the pairs differ somewhere, at most on "
        f"{apart.mean(axis=0).max():.2%} of the bars."
    )


def searches(markets: int, seeds: int) -> None:
    """Print what searches for trees and for blends find, in sample and out of sample."""
    print(
        f"\nSearches, 96 genomes x 40 generations, {markets} synthetic markets of 15,000 hourly bars x "
        f"{seeds} seeds, regime volatile, after costs.\nIn-sample figures are what the search maximised and "
        "no result; out of sample is the champion on the test rows, opened for this table."
    )
    columns = ("fitness in sample", "Sharpe in sample", "Sharpe out of sample", "seconds")
    print(f"{'family':<8}" + "".join(f"{column:>22}" for column in columns))
    for name in ("blend", "tree"):
        found, texts, began = [], [], time.perf_counter()
        for market in range(markets):
            base = SpecialistConfig(
                detector=PluginConfig(name="volatility"),
                fitness=FitnessConfig(folds=6, min_trades=20),
                family=PluginConfig(name=name),
                policy=PluginConfig(name="fixed"),
                hyperparameters={"population_size": 96, "n_generations": 40, "patience": 0},
            )
            ground = prepare(synthetic_market(SyntheticConfig(n_bars=15_000, seed=market + 1)).bars, base)
            for seed in range(seeds):
                config = base.model_copy(update={"seed": seed})
                evolved = SpecialistSearch.of(ground, config).evolve(SerialMapper())
                later = judge(evolved.specialist, ground, ground.split.test, config.costs, config.venue)
                found.append((evolved.fitness, _sharpe(evolved.in_sample), _sharpe(later)))
                texts.append(evolved.specialist.family.space.values(evolved.specialist.genome.genes))
        mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        cells = [f"{m:.2f} +- {e:.2f}" for m, e in zip(mean, error, strict=True)]
        cells.append(f"{time.perf_counter() - began:.1f}")
        print(f"{name:<8}" + "".join(f"{cell:>22}" for cell in cells))
    for text in texts[::seeds]:
        print(f"  champion: {text['signal']}")


def _sharpe(result: object) -> float:
    returns = result.curve.column("net_return")
    spread = returns.std(ddof=1)
    return float(returns.mean() / spread * np.sqrt(result.bars_per_year)) if spread > 0 else 0.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bars", default="60000", help="number of random-walk bars, or a Parquet file")
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--trees", type=int, default=1_000, help="trees among which duplicates are counted")
    parser.add_argument("--markets", type=int, default=4, help="synthetic markets of the searches; 0: none")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(arguments)
    print(machine())
    rng = np.random.default_rng(7)
    speed(options.bars, options.genomes, options.runs, rng)
    duplicates(options.trees, rng)
    merged(options.trees, rng)
    if options.markets:
        searches(options.markets, options.seeds)


if __name__ == "__main__":
    main()

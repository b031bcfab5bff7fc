"""The tree family: its signal takes the place of the blend's score, in a population as in a stream."""

import json
import pickle
import re

import numba
import numpy as np
import pytest
from deap import gp
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs
from backtest.kernels import LANES, SHADOW
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, simulate
from backtest.venue import Venue
from benchmarks import trees
from compute.workers import SerialMapper
from configs.load import ConfigError, PluginConfig
from ga import tree_kernels
from ga.space import Genome
from ga.trees import MAX_HEIGHT, TreeSpace
from market.table import Table
from specialists import blend, tree
from specialists.family import FAMILIES
from specialists.fitness import Fitness, FitnessConfig
from specialists.specialist import Specialist, awake_rows, decision_rows
from specialists.training import SpecialistSearch, evolve_specialist
from tests.specialists.ground import small_config, small_ground

FAMILY = tree.Tree(tree.TreeConfig())
NODES = FAMILY.space.max_nodes
pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="digests overflow, which only compiled code does in silence"
)


def small_fitness() -> Fitness:
    """Return a fitness of trees on the training rows of the small ground, awake everywhere."""
    ground = small_ground()
    train = ground.split.train
    search = SpecialistSearch.of(ground, small_config(family=PluginConfig(name="tree")))
    rows = decision_rows(FAMILY, search.scaler, ground.features[train])
    awake = awake_rows(None, np.zeros(len(rows), np.int8), rows)
    return Fitness(
        FAMILY, ground.bars[train], rows, awake, Costs(), RiskLimits(), Venue(), FitnessConfig(folds=4)
    )


def sample(p: int, seed: int = 0) -> np.ndarray:
    return FAMILY.space.sample(np.random.default_rng(seed), p)


def genome_with(name: str) -> np.ndarray:
    """Return one genome (1, d) whose tree has a primitive of this name."""
    genes = sample(100)
    for one, found in zip(genes, FAMILY.space.trees(genes), strict=True):
        if name in {node.name for node in found}:
            return one[None]
    raise AssertionError(name)


# The decision.


@st.composite
def situations(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    genes = FAMILY.express(FAMILY.space.decode(rng.random((1, FAMILY.space.n_genes))))[0, NODES:]
    row = (float(rng.normal(0.0, 2.0)), *rng.uniform(0.001, 0.05, 2).tolist())
    held = float(draw(st.sampled_from([0.0, 0.0, rng.uniform(0, 1), -rng.uniform(0, 1)])))
    wait = float(draw(st.sampled_from([0.0, -3.0, rng.uniform(0, 3)])))
    return tuple(genes.tolist()), row, held, float(rng.integers(1, 60)), (wait,)


@settings(max_examples=150, deadline=None)
@given(situations(), st.integers(0, len(blend.SIGNALS) - 1))
def test_a_signal_is_traded_like_a_blend_whose_score_it_is(situation, place):
    genes, (signal, *levels), *rest = situation
    weights, values = np.zeros(14), np.zeros(14)
    weights[place], values[place] = 1.0, signal
    expected = blend.decide((*weights.tolist(), 0.0, *genes), (*values.tolist(), *levels), *rest)
    assert tree.decide(genes, (signal, *levels), *rest) == expected


def test_another_signal_is_another_decision():
    rng = np.random.default_rng(0)
    genes = FAMILY.express(FAMILY.space.decode(rng.random((1, FAMILY.space.n_genes))))[0, NODES:]
    flat = (0.0, 0.0, (0.0,))
    big, small = (tree.decide(tuple(genes), (x, 0.01, 0.02), *flat) for x in (5.0, 0.01))
    assert big[0] > 0.0 == small[0]


@pytest.mark.parametrize("signal", [np.nan, 0.0])
def test_a_signal_that_is_no_number_opens_nothing_and_closes_what_is_open(signal):
    genes = dict(zip((gene[0] for gene in tree.GENES), (0.5, 0.1, 2, 3, 99, 0.01, 1, 0, 0), strict=True))
    numbers = tuple(float(value) for value in genes.values())
    for held in (0.0, 0.4, -0.4):
        assert tree.decide(numbers, (signal, 0.01, 0.02), held, 3.0, (0.0,))[0] == 0.0
    assert tree.decide(numbers, (1.0, 0.01, 0.02), 0.4, 3.0, (0.0,))[0] == 0.4  # negative control


def test_the_family_has_a_gene_per_node_and_the_trading_genes_of_the_blend():
    assert isinstance(FAMILIES.create("tree"), tree.Tree)
    assert isinstance(FAMILY.space, TreeSpace)
    assert FAMILY.space.max_height == MAX_HEIGHT == 6
    assert FAMILY.space.names[NODES:] == tuple(gene[0] for gene in blend.GENES[15:])
    assert tree.GENES[0][0] == "entry_threshold"


def test_the_exit_threshold_is_a_share_of_the_entry_threshold_and_shorts_are_never_negative():
    space = FAMILY.space
    values = space.decode(sample(1))
    for name, value in (("entry_threshold", 2.0), ("exit_threshold", -0.5), ("short_scale", -0.4)):
        values[0, space.names.index(name)] = value
    before = values.copy()
    expressed = FAMILY.express(values)
    assert expressed[0, space.names.index("exit_threshold")] == -1.0
    assert expressed[0, space.names.index("short_scale")] == 0.0
    assert np.array_equal(values, before)
    assert np.array_equal(expressed[0, :NODES], before[0, :NODES])


@pytest.mark.parametrize("setting", [{"max_height": 7}, {"max_nodes": 2}, {"max_nodes": 64}])
def test_limits_beyond_the_law_are_refused(setting):
    with pytest.raises(ConfigError, match="family tree"):
        FAMILIES.create("tree", setting)


def test_smaller_trees_may_be_asked_for():
    space = FAMILIES.create("tree", {"max_height": 2, "max_nodes": 7}).space
    trees = space.trees(space.sample(np.random.default_rng(1), 50))
    assert max(one.height for one in trees) == 2
    assert max(len(one) for one in trees) <= 7


# Population and stream.


def streamed(fitness: Fitness, genes: np.ndarray) -> Table:
    """Return what one genome decides in the stream over the bars of a fitness."""
    out, bars = np.empty((len(fitness.bars), 3)), fitness.bars
    state = np.concatenate([SHADOW, FAMILY.fresh])
    parameters = FAMILY.express(FAMILY.space.decode(genes[None]))[0]
    prices = np.ascontiguousarray(bars.values[:, :4])
    FAMILY.follow(parameters, fitness.rows, prices, fitness.awake, fitness.limits.bounds(), state, out)
    return Table(bars.time, out, TARGETS)


def test_every_genome_of_several_blocks_earns_what_its_stream_earns():
    fitness, genes = small_fitness(), sample(2 * LANES + 5)
    statistics = fitness.statistics(genes)
    rows = [0, 1, 2, 3, 31, 32, LANES - 1, LANES, LANES + 1, 2 * LANES - 1, 2 * LANES, 2 * LANES + 4]
    for row in rows:
        result = simulate(streamed(fitness, genes[row]), fitness.bars, Costs(), RiskLimits())
        returns = result.curve.column("net_return")
        assert statistics[row, :, 0].sum() == pytest.approx(returns.sum(), rel=1e-9, abs=1e-12)
        assert statistics[row, :, 3].sum() == len(result.trades)
    assert (statistics[rows][:, :, 3].sum(axis=1) > 0).sum() > len(rows) // 2
    # Negative control: a genome that traded its neighbor's signal would show.
    assert len({one.tobytes() for one in statistics}) > 100


def test_a_genome_earns_the_same_bits_alone_and_at_any_place_of_a_population():
    fitness, genes = small_fitness(), sample(LANES + 7)
    whole = fitness.statistics(genes)
    order = np.random.default_rng(2).permutation(len(genes))
    assert fitness.statistics(genes[order]).tobytes() == whole[order].tobytes()
    for row in (0, 5, LANES, LANES + 6):
        assert fitness.statistics(genes[row : row + 1]).tobytes() == whole[row : row + 1].tobytes()


def test_the_place_in_a_block_decides_whose_signal_is_traded(monkeypatch):
    fitness, genes = small_fitness(), sample(20)
    right = fitness.statistics(genes)
    monkeypatch.setattr(tree, "_DIGITS", tree._DIGITS[::-1].copy())
    wrong = fitness.statistics(genes)
    assert not (right == wrong).all(axis=(1, 2)).any()


def test_rows_are_read_only_where_it_is_awake():
    fitness, genes = small_fitness(), sample(10)
    asleep = np.random.default_rng(3).random(len(fitness.rows)) < 0.5
    awake = np.where(asleep, 0, fitness.awake).astype(np.int8)
    answers, decisions = [], []
    for filler in (0.0, np.nan, 1e300):
        rows = fitness.rows.copy()
        rows[asleep] = filler
        changed = Fitness(
            FAMILY, fitness.bars, rows, awake, Costs(), RiskLimits(), Venue(), FitnessConfig(folds=4)
        )
        answers.append(changed.statistics(genes).tobytes())
        decisions.append(streamed(changed, genes[0]).values.tobytes())
    assert len(set(answers)) == len(set(decisions)) == 1
    assert answers[0] != fitness.statistics(genes).tobytes()


def test_rows_of_another_width_are_refused():
    fitness = small_fitness()
    narrow = Fitness(
        FAMILY, fitness.bars, fitness.rows[:, 1:].copy(), fitness.awake, Costs(), RiskLimits(), Venue(),
        FitnessConfig(folds=4),
    )  # fmt: skip
    with pytest.raises(ValueError, match="the family reads 14 signals and 2 levels"):
        narrow.statistics(sample(1))
    with pytest.raises(ValueError, match="the family reads 14 signals and 2 levels"):
        streamed(narrow, sample(1)[0])


def test_genomes_with_one_key_earn_the_same():
    fitness, space = small_fitness(), FAMILY.space
    add, neg, signal = tree_kernels.ADD, tree_kernels.NEG, tree_kernels.SIGNAL
    values = np.repeat(space.decode(sample(1)), 4, axis=0)
    values[:, :NODES] = tree_kernels.UNUSED
    for row, program in enumerate(
        ([add, signal, signal + 3], [add, signal + 3, signal], [neg, neg, add, signal, signal + 3], [signal])
    ):
        values[row, : len(program)] = program
    genes = space.encode(values)
    keys, statistics = space.keys(genes), fitness.statistics(genes)
    assert len(set(keys[:3])) == 1
    assert len({one.tobytes() for one in statistics[:3]}) == 1
    # Negative control: another tree has another key, and earns something else.
    assert keys[3] != keys[0]
    assert statistics[3].tobytes() != statistics[0].tobytes()


# As a specialist.


def test_an_evolved_tree_trades_what_it_was_evolved_for_and_is_saved_with_its_formula(tmp_path):
    evolved = evolve_specialist(
        small_ground(), small_config(family=PluginConfig(name="tree")), SerialMapper()
    )
    specialist = evolved.specialist
    for one in evolved.hall_of_fame:
        (found,) = specialist.family.space.trees(one.genes[None])
        assert found.height <= MAX_HEIGHT
    specialist.save(tmp_path, "tree")
    saved = json.loads((tmp_path / "genome.json").read_text(encoding="utf-8"))
    text = saved["values"]["signal"]
    assert any(name in text for name in tree.SIGNALS)
    again = Specialist.load(tmp_path)
    assert again.fingerprint() == specialist.fingerprint()
    assert again.family.space.values(again.genome.genes) == saved["values"]
    # Negative control: another genome reads differently.
    other = Genome(sample(1, seed=9)[0], specialist.family.space.name)
    assert specialist.family.space.values(other.genes)["signal"] != text


def test_a_fitness_of_trees_travels_to_another_process():
    fitness, genes = small_fitness(), sample(5)
    again = pickle.loads(pickle.dumps(fitness))
    assert again.statistics(genes).tobytes() == fitness.statistics(genes).tobytes()
    assert again.family.space.keys(genes) == FAMILY.space.keys(genes)
    assert again.family.space.keys(genes) != FAMILY.space.keys(genes[::-1])


def test_a_search_for_trees_is_the_same_for_the_same_seed():
    config = small_config(family=PluginConfig(name="tree"))
    one, two = (evolve_specialist(small_ground(), config, SerialMapper()) for _ in range(2))
    assert one.specialist.fingerprint() == two.specialist.fingerprint()
    assert one.trial_sharpes.tobytes() == two.trial_sharpes.tobytes()
    other = evolve_specialist(small_ground(), config.model_copy(update={"seed": 8}), SerialMapper())
    assert other.trial_sharpes.tobytes() != one.trial_sharpes.tobytes()


# The benchmark.


def test_the_benchmark_prints_its_tables(capsys):
    trees.main(["--bars", "1500", "--genomes", "6", "--runs", "1", "--trees", "60", "--markets", "0"])
    said = capsys.readouterr().out
    assert len(re.findall(r"always awake +\d+\.\d\d", said)) == 1 + len(trees.SIZES)
    assert said.count("0 of 6 genomes decide otherwise than their stream") == len(trees.SIZES)
    assert "are semantic duplicates and drawn again" in said


def test_the_interpreters_of_the_benchmark_say_the_same():
    genes = sample(40)
    rows = np.clip(np.random.default_rng(4).normal(0.0, 1.5, (200, len(tree.SIGNALS))), -4.0, 4.0)
    out = np.empty((len(rows), len(genes)))
    tree_kernels.run_programs(FAMILY.space.programs(genes), rows, np.arange(200), len(tree.SIGNALS), out)
    symbols = FAMILY.space.vocabulary.primitives
    columns = [*rows.T, *np.where(rows.T > 0, 1.0, 0.0)]
    with trees.over_columns(symbols):
        for one, said in zip(FAMILY.space.trees(genes), out.T, strict=True):
            assert np.array_equal(np.broadcast_to(gp.compile(one, symbols)(*columns), 200), said)
    # Negative control: outside, the symbols are those of single numbers again.
    with pytest.raises(ValueError, match="ambiguous"):
        gp.compile(FAMILY.space.trees(genome_with("choose"))[0], symbols)(*columns)

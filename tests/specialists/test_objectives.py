import pickle

import numpy as np
import pytest

from backtest.costs import Costs
from compute.seeds import stream
from configs.load import PluginConfig
from experiments.trials import TrialMatrix
from ga.space import Genome
from specialists.fitness import FitnessConfig
from specialists.objectives import COLUMNS, OBJECTIVES, VIOLATION, FrontFitness
from specialists.specialist import Specialist
from specialists.training import SpecialistSearch, judge
from tests.specialists.ground import small_config, small_ground


def fitnesses(**fitness):
    settings = FitnessConfig(**{"folds": 4, "min_trades": 5} | fitness)
    search = SpecialistSearch.of(small_ground(), small_config(fitness=settings))
    return search, search.fitness, FrontFitness.of(search.fitness)


def some_genes(search, p=12):
    return search.fitness.family.space.sample(stream(3, "objectives"), p)


def traded(search, genes):
    ground, family = small_ground(), search.fitness.family
    genome = Genome(genes, family.space.name)
    until = int(ground.bars.time[ground.split.train.stop - 1])
    specialist = Specialist(family, genome, search.regime, search.scaler, search.config.limits, until)
    return judge(specialist, ground, ground.split.train, Costs())


def test_objectives_are_what_the_simulator_says_of_the_same_specialist():
    search, _, fitness = fitnesses(purge=0)
    train = small_ground().bars[small_ground().split.train]
    years = len(train) / train.bars_per_year
    genes = some_genes(search)
    for row, answer in zip(genes, fitness(genes), strict=True):
        result = traded(search, row)
        equity = np.concatenate([[result.capital], result.curve.column("equity")])
        ends = np.arange(5) * len(train) // 4
        yearly = np.log(equity[ends[1:]] / equity[ends[:-1]]) * train.bars_per_year / np.diff(ends)
        bound = yearly.mean() - yearly.std(ddof=1) / 2.0
        objectives = answer[COLUMNS]
        assert objectives[0] == pytest.approx(bound, rel=1e-9, abs=1e-9)
        assert objectives[1] == pytest.approx(result.metrics.max_drawdown, abs=1e-9)
        assert objectives[2] == pytest.approx(-len(result.trades) / years, rel=1e-12)


def test_what_happens_between_two_folds_is_no_part_of_the_return():
    search, _, purged = fitnesses(purge=200)
    genes = some_genes(search)
    whole = fitnesses(purge=0)[2]
    assert not np.array_equal(purged(genes)[:, COLUMNS][:, 0], whole(genes)[:, COLUMNS][:, 0])
    assert np.array_equal(purged(genes)[:, COLUMNS][:, 1:], whole(genes)[:, COLUMNS][:, 1:])


def test_too_few_trades_break_the_constraint_by_the_missing_share():
    search, _, fitness = fitnesses(min_trades=20)
    genes = some_genes(search, 40)
    violation = fitness(genes)[:, VIOLATION]
    trades = fitness.statistics(genes)[:, :, 3].sum(axis=1)
    assert np.array_equal(violation, np.maximum(20 - trades, 0) / 20)
    assert 0 < (violation == 0).sum() < 40
    assert not fitnesses(min_trades=0)[2](genes)[:, VIOLATION].any()


@pytest.mark.parametrize("measure", ["sharpe", "sortino", "origin"])
def test_around_the_objectives_the_answer_is_that_of_the_fitness(measure):
    search, plain, fitness = fitnesses(measure=measure)
    genes = some_genes(search, 4)
    answer, expected = fitness(genes), plain(genes)
    assert np.array_equal(np.delete(answer, np.r_[COLUMNS, VIOLATION], axis=1), expected)
    assert fitness.n_details == VIOLATION
    assert len(OBJECTIVES) == COLUMNS.stop - COLUMNS.start
    trials = [TrialMatrix(plain.block_bars) for _ in range(2)]
    keys = search.fitness.family.space.keys(genes)
    trials[0].append(keys, answer)
    trials[1].append(keys, expected)
    assert np.array_equal(trials[0].sums(), trials[1].sums())


def test_a_genome_is_traded_once_for_fitness_and_objectives(monkeypatch):
    search, _, fitness = fitnesses()
    calls = []
    before = type(fitness.family).evaluate
    monkeypatch.setattr(
        type(fitness.family), "evaluate", staticmethod(lambda *a: (calls.append(len(a[0])), before(*a)))
    )
    fitness(some_genes(search))
    assert calls == [12]


def test_a_genome_is_judged_the_same_alone_in_any_batch_and_in_another_process():
    search, _, fitness = fitnesses()
    genes = some_genes(search)
    answer = fitness(genes)
    assert np.array_equal(np.concatenate([fitness(row[None]) for row in genes]), answer)
    assert np.array_equal(pickle.loads(pickle.dumps(fitness))(genes), answer)


def test_objectives_do_not_rotate():
    search = SpecialistSearch.of(
        small_ground(), small_config(fitness=FitnessConfig(folds=4, min_trades=5, rotation=0.5))
    )
    assert search.fitness.rotates
    assert not FrontFitness.of(search.fitness).rotates


def test_another_family_has_objectives_too():
    config = small_config(family=PluginConfig(name="origin8"), regime="ranging")
    search = SpecialistSearch.of(small_ground(), config)
    answer = FrontFitness.of(search.fitness)(some_genes(search))
    assert np.isfinite(answer[:, COLUMNS]).all()
    assert (answer[:, COLUMNS][:, 1:] <= 0).all()

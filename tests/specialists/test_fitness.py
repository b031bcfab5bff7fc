import math
import pickle
from dataclasses import fields, replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.metrics import sharpe
from backtest.venue import Venue
from compute.seeds import stream
from configs.load import ConfigError
from experiments.evidence import pbo
from experiments.trials import TrialMatrix
from ga.evaluation import Evaluator
from ga.space import Genome
from specialists.fitness import BLOCKS, FEW, Fitness, FitnessConfig, origin_composite, purged_folds
from specialists.specialist import Specialist, awake_rows, decision_rows
from specialists.training import judge
from tests.specialists.ground import small_config, small_evolved, small_ground

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="minutes, uncompiled")


def small_fitness(costs=None, limits=None, venue=None, seed=0, **config):
    ground, specialist = small_ground(), small_evolved().specialist
    train = ground.split.train
    rows = decision_rows(specialist.family, specialist.scaler, ground.features[train])
    awake = awake_rows(specialist.regime, ground.regime_labels[train], rows)
    chosen = FitnessConfig(**{"folds": 4, "min_trades": 5} | config)
    rules = costs or Costs(), limits or small_config().limits, venue or Venue()
    return Fitness(specialist.family, ground.bars[train], rows, awake, *rules, chosen, seed)


def some_genes(p=32, seed=1):
    return small_evolved().specialist.family.space.sample(stream(seed, "genes"), p)


def test_the_kernel_earns_what_the_streaming_specialist_earns_in_the_simulator():
    evolved, ground = small_evolved(), small_ground()
    result = judge(evolved.specialist, ground, ground.split.train, Costs())
    genes = evolved.specialist.genome.genes[None, :]
    statistics = small_fitness().statistics(genes)[0]
    returns = result.curve.column("net_return")
    assert statistics[:, 0].sum() == pytest.approx(returns.sum(), rel=1e-12)
    assert statistics[:, 1].sum() == pytest.approx((returns**2).sum(), rel=1e-12)
    assert statistics[:, 3].sum() == len(result.trades)
    assert np.prod(statistics[:, 4]) == pytest.approx(result.curve.column("equity")[-1] / 10_000, rel=1e-12)
    assert statistics[-1, 5] == pytest.approx(result.metrics.max_drawdown, rel=1e-9)


PLACES = {
    "a perpetual at five times": ({}, {"max_exposure": 3.0}, {"kind": "perpetual", "leverage": 5}),
    "spot with lots": ({}, {"long_only": True}, {"kind": "spot", "lot": 0.05, "min_notional": 10}),
    "thin bars": ({"participation": 1e-4, "size_impact": 1.0, "maker_fee_bps": 2}, {}, {}),
    "a nervous account": ({}, {"trail": 0.03, "daily_loss": 0.01, "max_drawdown": 0.1}, {}),
}


@compiled
@pytest.mark.parametrize("place", PLACES)
def test_what_is_evolved_is_what_trades_wherever_the_account_is(place):
    costs, limits, venue = PLACES[place]
    costs, limits, venue = Costs(**costs), RiskLimits(**limits), Venue(**venue)
    ground, known = small_ground(), small_evolved().specialist
    train = ground.split.train
    genes = some_genes(64)
    often = small_fitness(limits=RiskLimits(long_only=True)).statistics(genes)[:, :, 3].sum(axis=1)
    genome = Genome(genes[np.argmax(often)], known.family.space.name)
    specialist = Specialist(known.family, genome, known.regime, known.scaler, limits, known.fitted_until)
    result = judge(specialist, ground, train, costs, venue)
    statistics = small_fitness(costs, limits, venue).statistics(genome.genes[None, :])[0]
    returns = result.curve.column("net_return")
    assert np.count_nonzero(returns) > 20
    assert statistics[:, 0].sum() == pytest.approx(returns.sum(), rel=1e-12)
    assert statistics[:, 3].sum() == len(result.trades)
    plain = Specialist(known.family, genome, known.regime, known.scaler, RiskLimits(), known.fitted_until)
    assert not np.array_equal(returns, judge(plain, ground, train, Costs()).curve.column("net_return"))


def naive_folds(n, folds, purge):
    """Spans of rows, written as a person would: equal lengths, a gap between two of them."""
    judged = n - (folds - 1) * purge
    spans, start = [], 0
    for i in range(folds):
        length = judged * (i + 1) // folds - judged * i // folds
        spans.append(slice(start, start + length))
        start += length + purge
    return spans


def naive_lower_bound(returns, spans, confidence):
    ratios = [sharpe(returns[span], 8760) if returns[span].any() else 0.0 for span in spans]
    return np.mean(ratios) - confidence * np.std(ratios, ddof=1) / math.sqrt(len(ratios))


@pytest.mark.parametrize("purge", [0, 1, 100, None])
def test_fitness_is_the_mean_of_the_fold_ratios_less_their_standard_error(purge):
    fitness = small_fitness(confidence=2.0, min_trades=0, purge=purge)
    evolved, ground = small_evolved(), small_ground()
    result = judge(evolved.specialist, ground, ground.split.train, Costs())  # the simulator, bar by bar
    returns = result.curve.column("net_return")
    n = len(returns)
    gap = min(168, n // 16) if purge is None else purge  # a week of hours, or a quarter of a fold
    spans = naive_folds(n, 4, gap)
    assert [span.stop - span.start for span in spans] == fitness.fold_bars.tolist()
    genes = evolved.specialist.genome.genes[None, :]
    answer = fitness(genes)[0]
    assert answer[0] == pytest.approx(naive_lower_bound(returns, spans, 2.0), rel=1e-9)
    assert answer[1] == pytest.approx(sharpe(returns, 1), rel=1e-9)  # all rows: what the ledger keeps
    assert answer[2] == len(result.trades)
    # The negative control: folds that adjoin judge other rows.
    adjoining = naive_lower_bound(returns, naive_folds(n, 4, 0), 2.0)
    assert math.isclose(answer[0], adjoining, rel_tol=1e-9) is (purge == 0)
    folds = fitness.fold_statistics(genes)[0]
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    for fold, span in zip(folds, spans, strict=True):
        part = returns[span]
        expected = part.sum(), (part**2).sum(), (part[part < 0] ** 2).sum()
        assert fold[:3] == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert fold[4] == pytest.approx(equity[span.stop] / equity[span.start], rel=1e-9)
        so_far = equity[: span.stop + 1]
        assert fold[5] == pytest.approx((so_far / np.maximum.accumulate(so_far) - 1).min(), rel=1e-9)


def test_what_happens_in_a_gap_is_traded_but_not_judged():
    evolved = small_evolved()
    genes = np.vstack([evolved.specialist.genome.genes, some_genes(31)])
    awake = np.isfinite(small_fitness().rows).all(axis=1).astype(np.int8)  # in any regime
    fitness = replace(small_fitness(purge=150, min_trades=0), awake=awake)
    spans = naive_folds(len(fitness.bars), 4, 150)
    values = fitness.bars.values.copy()
    gap = slice(spans[2].stop + 2, spans[3].start - 140)  # prices only there, and back before the next fold
    values[gap, :4] *= 1.1
    altered = replace(fitness, bars=replace(fitness.bars, values=values))
    before, after = fitness(genes), altered(genes)
    ratios = slice(3, 7)
    assert after[:, ratios][:, :3].tobytes() == before[:, ratios][:, :3].tobytes()
    assert (after[:, 1] != before[:, 1]).any()  # all rows see it
    adjoining = replace(small_fitness(purge=0, min_trades=0), awake=awake)
    seen = replace(adjoining, bars=altered.bars)(genes)
    assert (seen[:, ratios] != adjoining(genes)[:, ratios]).any()  # folds without gaps would have judged it


def test_blocks_add_up_to_all_rows_and_are_those_of_cscv():
    evolved, ground = small_evolved(), small_ground()
    result = judge(evolved.specialist, ground, ground.split.train, Costs())
    returns = result.curve.column("net_return")
    fitness = small_fitness()
    answer = fitness(evolved.specialist.genome.genes[None, :])[0]
    blocks = np.array_split(returns, BLOCKS)
    assert fitness.block_bars.tolist() == [len(block) for block in blocks]
    sums, squares = answer[-2 * BLOCKS : -BLOCKS], answer[-BLOCKS:]
    assert sums == pytest.approx([block.sum() for block in blocks], rel=1e-9, abs=1e-15)
    assert squares == pytest.approx([(block**2).sum() for block in blocks], rel=1e-9, abs=1e-15)
    # With everything the search kept, PBO is that of the curves.
    genes = some_genes(12)
    answers = fitness(genes)
    matrix = TrialMatrix(fitness.block_bars)
    matrix.append(evolved.specialist.family.space.keys(genes), answers)
    curves = []
    for one in genes:
        known = evolved.specialist
        genome = Genome(one, known.family.space.name)
        other = Specialist(known.family, genome, known.regime, known.scaler, known.limits, known.fitted_until)
        curves.append(judge(other, ground, ground.split.train, Costs()).curve.column("net_return"))
    expected = pbo(np.column_stack(curves), BLOCKS)
    assert matrix.pbo_of_first().pbo == pytest.approx(expected.pbo, abs=1e-3)
    assert matrix.pbo_of_first().loss == pytest.approx(expected.loss, abs=1e-3)


@given(st.integers(40, 5_000), st.integers(2, 12), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_folds_are_equal_spans_with_equal_gaps_or_one_sentence(n, folds, purge):
    if n - (folds - 1) * purge < 2 * folds:
        most = (n - 2 * folds) // (folds - 1)
        with pytest.raises(ConfigError, match=rf"fitness\.purge is {purge} bars; .* at most {most}$"):
            purged_folds(n, folds, purge)
        purge = most  # what the sentence says must work
    starts, stops = purged_folds(n, folds, purge)
    assert (starts[0], stops[-1]) == (0, n)
    assert (starts[1:] - stops[:-1] == purge).all()
    lengths = stops - starts
    assert lengths.min() >= 2
    assert lengths.max() - lengths.min() <= 1


def test_settings_that_cannot_be_judged_are_refused():
    with pytest.raises(ConfigError, match=r"fitness\.purge is 5000 bars; 3 gaps of it leave no 4 folds"):
        small_fitness(purge=5_000)
    with pytest.raises(ConfigError, match=r"fitness\.rotation is 0\.5; it must be 1 with the origin measure"):
        small_fitness(measure="origin", rotation=0.5)
    with pytest.raises(ConfigError, match="31 training bars cannot be cut into 4 folds and 16 blocks"):
        purged_folds(31, 4, 0)


# --- rotating windows -------------------------------------------------------------------------------------


class Growing(Fitness):
    """Wrong on purpose: each genome of a call is judged on a window of its own."""

    def score(self, details, generation):
        if generation is None:
            return super().score(details, None)
        each = [super(Growing, self).score(one[None, :], generation + i) for i, one in enumerate(details)]
        return np.concatenate(each)


@pytest.mark.parametrize(("kind", "same"), [(Fitness, True), (Growing, False)])
def test_those_who_live_are_judged_on_the_window_of_their_generation(kind, same):
    plain = small_fitness(folds=8, rotation=0.4, min_trades=0, seed=5)
    fitness = kind(**{field.name: getattr(plain, field.name) for field in fields(plain)})
    genes, space = some_genes(24), plain.family.space
    evaluator = Evaluator(fitness, space)
    assert evaluator.rotates
    evaluator(genes, 0)
    agree = []
    for generation in (1, 2, 3):
        survivors = evaluator.fitness_of(genes[10:], generation)
        fresh = Evaluator(fitness, space)(genes, generation)[10:]
        window = plain.window(generation)
        ratios = plain(genes)[10:, 3:11][:, window]
        naive = [np.mean(row) - np.std(row, ddof=1) / math.sqrt(window.sum()) for row in ratios]
        agree.append(survivors.tobytes() == fresh.tobytes() and np.allclose(survivors, naive, rtol=1e-12))
    assert all(agree) is same
    assert evaluator.evaluations == 24
    full = small_fitness(folds=8, min_trades=0)(genes)[:, 0]  # the champion is chosen on all folds
    assert evaluator.fitness_of(genes, None).tobytes() == full.tobytes()


def test_windows_depend_on_seed_and_generation_alone_and_visit_every_fold():
    fitness = small_fitness(folds=10, rotation=0.5, seed=3)
    windows = np.array([fitness.window(generation) for generation in range(200)])
    assert (windows.sum(axis=1) == 5).all()
    assert windows.sum(axis=0).min() > 70  # of 100 expected, standard deviation 7
    assert len({window.tobytes() for window in windows}) > 100
    again = pickle.loads(pickle.dumps(fitness))
    assert again.window(17).tobytes() == windows[17].tobytes()
    other = small_fitness(folds=10, rotation=0.5, seed=4)
    assert any(other.window(g).tobytes() != windows[g].tobytes() for g in range(5))
    assert fitness.window(None).all()
    assert small_fitness(folds=4, rotation=0.01).window(0).sum() == 2  # a spread takes two draws
    assert not small_fitness(folds=2, rotation=0.3).rotates


def test_without_rotation_only_what_the_ledger_needs_is_remembered():
    genes = some_genes(3)
    for rotation, n_details in ((1.0, 1), (0.5, 6)):
        evaluator = Evaluator(small_fitness(rotation=rotation), small_evolved().specialist.family.space)
        evaluator(genes)
        assert evaluator.details().shape == (3, n_details)
        assert evaluator.details()[:, 0].tobytes() == small_fitness()(genes)[:, 1].tobytes()


def test_a_genome_that_trades_too_little_is_told_so_in_every_window():
    fitness = small_fitness(min_trades=1_000, rotation=0.5)
    details = fitness(some_genes(50))[:, 1:7]
    for generation in (None, 0, 1):
        assert (fitness.score(details, generation) < 0).all()


def test_fitness_of_a_genome_does_not_depend_on_its_company():
    fitness, genes = small_fitness(), some_genes(70)
    together = fitness(genes)
    alone = np.vstack([fitness(one[None, :]) for one in genes])
    assert together.tobytes() == alone.tobytes()


def test_a_genome_that_trades_too_little_scores_below_zero_and_climbs_with_each_trade():
    fitness = small_fitness(min_trades=1_000)
    genes = some_genes(200)
    trades = fitness.statistics(genes)[:, :, 3].sum(axis=1)
    answer = fitness(genes)[:, 0]
    assert (answer < 0).all()
    assert (answer <= FEW * (1 - trades / 1_000)).all()
    assert answer[trades == 0] == pytest.approx(FEW)


def test_more_costs_never_help():
    genes = some_genes(100)
    cheap = small_fitness(Costs().scaled(0.5)).statistics(genes)[:, :, 4].prod(axis=1)
    dear = small_fitness(Costs().scaled(2.0)).statistics(genes)[:, :, 4].prod(axis=1)
    assert (dear <= cheap).all()
    assert (dear < cheap).any()


def test_altering_later_bars_changes_no_earlier_fold():
    fitness, genes = small_fitness(), some_genes(20)
    before = fitness.fold_statistics(genes)
    last = naive_folds(len(fitness.bars), 4, 168)[3]
    values = fitness.bars.values.copy()
    values[last, :4] *= 7.0
    values[last, 4] = 0.0
    altered = replace(fitness, bars=replace(fitness.bars, values=values))
    after = altered.fold_statistics(genes)
    assert after[:, :3].tobytes() == before[:, :3].tobytes()
    assert not np.array_equal(after[:, 3], before[:, 3])


def test_fitness_travels_to_workers():
    fitness, genes = small_fitness(), some_genes(5)
    again = pickle.loads(pickle.dumps(fitness))
    assert again(genes).tobytes() == fitness(genes).tobytes()


def test_sortino_uses_the_downside_only():
    genes = some_genes(50)
    statistics, n = small_fitness().fold_statistics(genes), small_fitness().fold_bars
    sortino = small_fitness(measure="sortino", confidence=0, min_trades=0)(genes)[:, 0]
    downside = np.sqrt(statistics[:, :, 2] / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(downside > 1e-9, statistics[:, :, 0] / n / downside, 0.0)
    assert sortino == pytest.approx(ratio.mean(axis=1) * math.sqrt(8760), rel=1e-9)


def test_the_origin_composite_is_its_published_sum():
    trades = np.zeros(
        3, dtype=[("side", "i1"), ("entry_price", "f8"), ("exit_price", "f8"), ("pnl", "f8"), ("bars", "i8")]
    )
    trades["side"] = (1, -1, 1)
    trades["entry_price"] = (100, 100, 100)
    trades["exit_price"] = (110, 95, 98)
    trades["pnl"] = (100.0, 50.0, -20.0)
    trades["bars"] = (2, 2, 2)
    equity = np.array([10_100.0, 10_150.0, 10_130.0])
    returns = np.array([0.10, 0.05, -0.02])
    ratio = returns.mean() / returns.std() * math.sqrt(252 / 2)
    expected = 10 * ratio + 20 * 0.013 + 5 * 2 / 3 - 15 * (20 / 10_150) + 3 * 3.0
    assert origin_composite(trades, equity, 10_000.0) == pytest.approx(expected)
    assert origin_composite(trades[:0], equity, 10_000.0) == 0.0


def test_the_origin_measure_scores_the_same_trades_as_the_simulator():
    fitness, genes = small_fitness(measure="origin"), some_genes(4)
    answer = fitness(genes)[:, 0]
    assert np.isfinite(answer).all()
    assert len(set(answer.tolist())) > 1


def test_a_delay_in_fitness_is_refused():
    with pytest.raises(ConfigError, match="delay_bars is 1"):
        small_fitness(Costs(delay_bars=1))

"""The statistics of a validated strategy: the papers' numbers, plain twins, chance, planted edges."""

import json
import math
import sys

import numpy as np
import pytest

from configs.load import ConfigError, validate
from ensemble.evidence import STRATEGY, EvidenceConfig, selection, skill, weigh
from experiments.evidence import TrackRecord, deflated_sharpe, pbo, probabilistic_sharpe
from experiments.ledger import Ledger, LedgerSummary, Openings
from market.table import DataError
from tests.ensemble.made_results import account, noise
from tests.reference import evidence as naive

NO_TRIALS = LedgerSummary("", 0, 0, 0.0, 0, math.nan, math.nan, 0)
FIRST = Openings(0, 0)
QUICK = EvidenceConfig(comparisons=False, mean_block=1, paths=100, overfitting_paths=20, blocks=(4, 6))


# --- one Sharpe ratio, and the best of many --------------------------------------------------------------


def with_moments(sharpe, skewness, kurtosis, n):
    """Returns with exactly these moments: on three values, as often as the moments ask for."""
    # Values a, b, c with probabilities p, q, r and moments 0, 1, skewness, kurtosis: two free values.
    b = 0.0
    a = (skewness + math.sqrt(4 * kurtosis - 3 * skewness**2)) / 2
    c = (skewness - math.sqrt(4 * kurtosis - 3 * skewness**2)) / 2
    p, r = 1 / (a * (a - c)), 1 / (c * (c - a))
    counts = np.rint(np.array([p, 1 - p - r, r]) * n).astype(int)
    values = np.repeat([a, b, c], counts)
    return np.random.default_rng(1).permutation(values - values.mean()) / values.std(ddof=1) + sharpe


def test_s1_the_deflated_sharpe_ratio_of_the_2014_paper_comes_out_of_the_ledger(tmp_path):
    # Annual Sharpe 2.5 over five years of 250 days, skewness -3, kurtosis 10, the best of 100 trials whose
    # annual Sharpe ratios have variance 1/2: the paper finds 0.9004.
    days = 250
    strategy = account(with_moments(2.5 / math.sqrt(days), -3.0, 10.0, 1_250), bars_per_year=days)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    spread = np.linspace(-1, 1, 100)
    spread *= math.sqrt(0.5 / days) / spread.std(ddof=1)
    ledger.record("bars", "run", spread, n_evaluated=100, n_unique=100)
    found = skill(strategy, ledger.summary("bars"), FIRST)
    assert found.n_trials == 100
    assert found.luck == pytest.approx(0.1132 * math.sqrt(days), abs=1e-3)
    # The order of these returns is drawn, so their autocorrelation is about zero and not quite.
    assert found.deflated == pytest.approx(0.9004, abs=0.02)
    # S5: one more run of trials counts, whoever made them.
    ledger.record("bars", "another", spread, n_evaluated=100, n_unique=100, batch=7)
    more = skill(strategy, ledger.summary("bars"), FIRST)
    assert more.n_trials == 200
    assert more.deflated < found.deflated


def test_the_larger_of_the_unique_and_the_effective_number_counts(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record("bars", "run", noise(1, 50), n_evaluated=80, n_unique=50)
    ledger.record_effective("bars", "run", 7.5)
    found = skill(account(noise(2, edge=0.1)), ledger.summary("bars"), FIRST)
    assert (found.n_evaluated, found.n_unique, found.n_effective, found.n_trials) == (80, 50, 7.5, 50)


def test_the_skill_of_a_strategy_is_that_of_its_track_record():
    returns = noise(3, 600, edge=0.08)
    found = skill(account(returns), LedgerSummary("", 9, 9, 9.0, 9, 0.0, 4e-4, 1), Openings(3, 2))
    record = TrackRecord.of(returns, serial=True)
    sharpe, skewness, kurtosis, lag = naive.moments(returns.tolist())
    assert found.sharpe == pytest.approx(sharpe * math.sqrt(8_760))
    assert (found.skewness, found.kurtosis, found.autocorrelation) == pytest.approx((skewness, kurtosis, lag))
    assert found.probabilistic == probabilistic_sharpe(record)
    assert (found.champions, found.earlier_looks) == (3, 3)
    assert found.deflated_unseen == deflated_sharpe(record, 3, 1 / 599)
    assert found.deflated == deflated_sharpe(record, 9, 4e-4)
    # minTRL is where PSR reaches the confidence.
    exactly = TrackRecord(record.sharpe, round(found.track_record), skewness, kurtosis, lag)
    assert probabilistic_sharpe(exactly) == pytest.approx(0.95, abs=1e-3)


def test_returns_that_hang_together_prove_less_and_are_judged_as_often_right():
    def passed(serial):
        good = 0
        for seed in range(300):
            shocks = np.random.default_rng(seed).normal(size=400)
            for t in range(1, 400):
                shocks[t] += 0.4 * shocks[t - 1]
            found = skill(account(0.01 * shocks), NO_TRIALS, FIRST).probabilistic
            good += (found if serial else probabilistic_sharpe(TrackRecord.of(shocks))) >= 0.95
        return good / 300

    assert 0.02 <= passed(serial=True) <= 0.095
    assert passed(serial=False) > 0.095  # the published convention, which takes bars for independent


def test_s3_the_best_of_ten_worthless_strategies_passes_no_more_often_than_it_may():
    good = naive_good = 0
    for seed in range(200):
        tried = np.random.default_rng(seed).normal(size=(10, 300))
        best = account(0.01 * tried[np.argmax(tried.mean(axis=1) / tried.std(axis=1))])
        found = skill(best, NO_TRIALS, Openings(earlier=9, others=9))
        good += found.deflated_unseen > 0.95
        naive_good += found.probabilistic > 0.95
    assert good / 200 <= 0.095
    assert naive_good / 200 > 0.2  # who forgets the other nine


def test_a_real_edge_passes_all_three():
    trials = LedgerSummary("", 500, 500, 500.0, 500, 0.0, 1 / 4_000, 1)
    found = skill(account(noise(5, 4_000, edge=0.1)), trials, Openings(5, 5))
    assert min(found.probabilistic, found.deflated_unseen, found.deflated) > 0.95
    assert found.track_record < 4_000


def test_a_strategy_that_never_trades_has_no_skill_to_tell_of():
    found = skill(account(np.zeros(100)), NO_TRIALS, FIRST)
    assert math.isnan(found.sharpe)
    assert found.to_dict()["probabilistic"] is None
    assert found.to_dict()["deflated_unseen"] is None


# --- choosing among variants -----------------------------------------------------------------------------


def variants(seed, n=480, m=8, edge=0.0):
    returns = np.random.default_rng(seed).normal(size=(n, m))
    returns[:, 0] += edge
    return returns


def test_the_probability_of_overfitting_is_that_of_the_plain_twin():
    x = variants(1, n=60, m=5, edge=0.1)
    found = selection(x, 1.0, 1, QUICK)
    splits = naive.cscv(x.T.tolist(), 6)
    assert found.pbo == found.by_blocks[6] == np.mean([rank <= 0.5 for rank, _, _ in splits])
    assert found.loss == np.mean([out < 0 for _, _, out in splits])
    inside, outside = np.array([(a, b) for _, a, b in splits]).T
    assert found.slope == pytest.approx(np.polyfit(inside, outside, 1)[0])
    assert found.by_blocks[4] == pbo(x, 4).pbo
    assert (found.n_blocks, found.n_variants) == (6, 5)


def test_s3_variants_that_are_alike_give_one_half_and_so_low_a_value_as_often_as_it_says():
    found = [selection(variants(seed, n=240, m=6), 1.0, seed, QUICK) for seed in range(200)]
    assert np.mean([one.pbo for one in found]) == pytest.approx(0.5, abs=0.08)
    luck = np.array([one.luck for one in found])
    for level in (0.1, 0.3, 0.6):
        band = 3.3 * math.sqrt(level * (1 - level) / 200)
        assert np.mean(luck <= level) == pytest.approx(level, abs=band + 1 / 21)
    # 0.2 is no rare value of it: what the module says.
    assert np.mean([one.pbo <= 0.2 for one in found]) > 0.05


def test_s4_a_planted_edge_is_no_overfitting():
    found = selection(variants(2, n=1_000, m=20, edge=0.3), 1.0, 1, QUICK)
    assert found.pbo < 0.02
    assert found.high < 0.1
    assert found.luck <= 2 / 21
    assert found.loss < 0.02


def test_the_interval_holds_the_expected_probability_about_as_often_as_it_says():
    config = QUICK.model_copy(update={"overfitting_paths": 60})
    hits = 0
    for seed in range(60):
        found = selection(variants(500 + seed, n=240, m=6), 1.0, seed, config)
        hits += found.low <= 0.5 <= found.high
    assert 0.78 <= hits / 60 <= 1.0


def test_copies_of_one_variant_are_no_more_of_them():
    x = variants(3, n=300, m=1)
    copied = selection(np.hstack([x + 1e-9 * variants(4, n=300, m=10)]), 1.0, 1, QUICK)
    assert copied.n_variants == 10
    assert copied.n_effective == pytest.approx(1.0, abs=0.01)
    assert selection(variants(5, n=300, m=10), 1.0, 1, QUICK).n_effective > 8


def test_one_variant_or_too_few_bars_leave_nothing_to_choose():
    assert selection(variants(1, m=1), 1.0, 1, QUICK) is None
    assert selection(variants(1, n=11), 1.0, 1, QUICK) is None
    assert selection(variants(1, n=12), 1.0, 1, QUICK) is not None


# --- all of it -------------------------------------------------------------------------------------------


def everything(edge=0.15, n=600, **settings):
    market = noise(24, n)
    config = EvidenceConfig(
        **{"mean_block": 2, "paths": 150, "overfitting_paths": 20, "blocks": (4, 6), **settings}
    )
    return weigh(
        account(noise(21, n, edge=edge)),
        members={"ranging": account(noise(22, n)), "asleep": account(np.zeros(n))},
        blenders={"equal": account(noise(23, n, edge=edge / 3))},
        baselines={"buy and hold": account(market), "cash": account(np.zeros(n))},
        trials=NO_TRIALS,
        looks=FIRST,
        seed=1,
        config=config,
    )


def test_the_evidence_of_a_real_edge_speaks_for_it_and_that_of_noise_does_not():
    pytest.importorskip("arch")
    real, luck = everything(edge=0.15), everything(edge=0.0)
    for name in ("buy and hold", "cash"):
        assert real.superiority[name].p_of[STRATEGY] < 0.05 < luck.superiority[name].p_of[STRATEGY]
        assert STRATEGY in real.superiority[name].better
        assert luck.superiority[name].better == ()
        assert real.leads[name]["sharpe"].low > 0 > luck.leads[name]["sharpe"].low
    assert set(real.superiority["cash"].p_of) == {STRATEGY, "ranging", "asleep", "equal"}
    assert STRATEGY in real.confidence_set.included
    assert "asleep" not in real.confidence_set.included
    assert set(real.confidence_set.p_of) == {STRATEGY, "ranging", "asleep", "equal", "buy and hold", "cash"}
    assert real.selection.n_variants == 4
    assert real.selection.pbo <= 0.1
    assert real.intervals["sharpe"].low > 0 > luck.intervals["sharpe"].low


def test_the_same_seed_gives_the_same_evidence_as_plain_json():
    pytest.importorskip("arch")
    texts = [json.dumps(everything().to_dict(), allow_nan=False) for _ in range(2)]
    assert texts[0] == texts[1]
    found = json.loads(texts[0])
    assert found["skill"]["deflated"] is not None
    assert found["superiority"]["cash"]["mean_block"] == 2
    assert found["selection"]["by_blocks"].keys() == {"4", "6"}


def test_the_block_length_is_chosen_from_the_returns_of_the_strategy():
    pytest.importorskip("arch")
    assert everything(mean_block=None).mean_block >= 1


def test_without_the_library_one_sentence_comes_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "arch", None)
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    with pytest.raises(ConfigError, match=r"need arch; .*set evidence.comparisons to false"):
        everything()
    found = everything(comparisons=False)
    assert found.superiority == {}
    assert found.confidence_set is None
    assert found.leads["cash"]["sharpe"].low > 0


def test_results_on_other_rows_or_under_one_name_are_refused():
    good = {"members": {}, "blenders": {}, "baselines": {}, "trials": NO_TRIALS, "looks": FIRST, "seed": 1}
    strategy = account(noise(1, 60))
    late = {"late": account(noise(2, 60), start=3_600_000_000_000)}
    with pytest.raises(DataError, match=r"late is not on the rows of the strategy \(row 0 is"):
        weigh(strategy, **{**good, "baselines": late}, config=QUICK)
    twice = {"equal": account(noise(2, 60))}
    with pytest.raises(DataError, match="equal is the name of two results"):
        weigh(strategy, **{**good, "members": twice, "blenders": twice}, config=QUICK)
    with pytest.raises(DataError, match="20 bars out of sample; a comparison needs at least 30"):
        weigh(account(noise(1, 20)), **good, config=QUICK)


@pytest.mark.parametrize("blocks", [(7,), (8, 22), (0,)])
def test_odd_and_too_many_blocks_are_refused(blocks):
    with pytest.raises(ConfigError, match=r"blocks is .*; it must be even numbers from 2 to 20"):
        validate(EvidenceConfig, {"blocks": blocks}, "x.yaml")

"""What the verdict on a champion rests on."""

import pytest

from experiments.evidence import TrackRecord, deflated_sharpe, expected_max_sharpe
from experiments.ledger import LedgerSummary, Openings
from specialists import report
from specialists.training import open_test
from tests.specialists.ground import small_config, small_evolved, small_ground


def weighed(n_unique=40, n_effective=12.5, others=3):
    evolved = small_evolved()
    unseen = open_test(small_ground(), evolved.specialist, small_config().costs)
    trials = LedgerSummary("f", 60, n_unique, n_effective, n_unique, 0.01, 4e-4, 2)
    return evolved, unseen, report.weigh(evolved, unseen, trials, Openings(earlier=5, others=others))


def test_skill_is_judged_on_the_unseen_rows_with_the_sampling_error_of_every_champion():
    _, unseen, evidence = weighed()
    returns = unseen.champion.curve.column("net_return")
    record = TrackRecord.of(returns, serial=True)
    assert evidence.champions == 4
    assert evidence.deflated_unseen == deflated_sharpe(record, 4, 1.0 / (returns.size - 1))
    # One champion alone is deflated by nothing, four are.
    alone = weighed(others=0)[2]
    assert alone.deflated_unseen == pytest.approx(alone.probabilistic_sharpe)
    assert evidence.deflated_unseen < alone.deflated_unseen


def test_luck_in_sample_counts_the_larger_number_of_trials():
    evolved, _, evidence = weighed(n_unique=40, n_effective=12.5)
    assert evidence.n_trials == 40
    years = evolved.in_sample.bars_per_year**0.5
    assert evidence.luck_sharpe == pytest.approx(expected_max_sharpe(40, 4e-4) * years)
    assert weighed(n_unique=40, n_effective=70.0)[2].n_trials == 70


def test_a_verdict_asks_for_skill_for_both_baselines_and_for_trades():
    _, unseen, evidence = weighed()
    judged = report.criteria(unseen, evidence)
    champion = unseen.champion.metrics
    assert [c.value for c in judged] == [
        evidence.deflated_unseen, champion.sharpe, champion.sharpe, champion.n_trades,
    ]  # fmt: skip
    assert [c.threshold for c in judged[1:3]] == [unseen.held.metrics.sharpe, unseen.gated.metrics.sharpe]
    said = report.sentence("volatile", judged)
    assert said.startswith("PASS" if all(c.passed for c in judged) else "FAIL")

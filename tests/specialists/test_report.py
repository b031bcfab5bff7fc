"""What the verdict on a champion rests on."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.evidence import TrackRecord, deflated_sharpe, expected_max_sharpe
from experiments.ledger import LedgerSummary, Openings
from experiments.trials import TrialMatrix
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


def test_a_verdict_asks_for_skill_for_both_baselines_for_trades_and_for_a_gain_on_the_other_half():
    _, unseen, evidence = weighed()
    judged = report.criteria(unseen, evidence)
    champion = unseen.champion.metrics
    assert [c.value for c in judged] == [
        evidence.deflated_unseen, champion.sharpe, champion.sharpe, champion.n_trades, 1 - evidence.pbo_loss,
    ]  # fmt: skip
    assert [c.threshold for c in judged[1:3]] == [unseen.held.metrics.sharpe, unseen.gated.metrics.sharpe]
    for loss, passes in ((0.5, True), (0.501, False)):
        assert report.criteria(unseen, replace(evidence, pbo_loss=loss))[-1].passed is passes
    said = report.sentence("volatile", judged)
    assert said.startswith("PASS" if all(c.passed for c in judged) else "FAIL")


# --- overfitting ------------------------------------------------------------------------------------------


def test_the_evidence_knows_the_overfitting_of_this_search():
    evolved, _, evidence = weighed()
    first, whole = evolved.trials.pbo_of_first(), evolved.trials.pbo()
    assert (evidence.pbo, evidence.pbo_loss) == (first.pbo, first.loss)
    assert (evidence.pbo_search, evidence.pbo_search_loss) == (whole.pbo, whole.loss)
    assert (evidence.pbo, evidence.pbo_loss) != (evidence.pbo_search, evidence.pbo_search_loss)
    assert evidence.n_matrix == len(evolved.trials) == evolved.trials.n_seen == evolved.n_unique
    assert evidence.n_answers == 60


def test_without_trials_overfitting_is_unknown_and_never_passes():
    evolved, unseen, _ = weighed()
    empty = replace(evolved, trials=TrialMatrix(evolved.trials.block_bars))
    trials = LedgerSummary("f", 60, 40, 12.5, 40, 0.01, 4e-4, 2)
    evidence = report.weigh(empty, unseen, trials, Openings(earlier=0, others=0))
    assert math.isnan(evidence.pbo)
    assert math.isnan(evidence.pbo_loss)
    assert not report.criteria(unseen, evidence)[-1].passed


def test_the_report_tells_hit_rate_trials_and_overfitting_to_people_and_to_programs():
    evolved, unseen, evidence = weighed()
    judged = report.criteria(unseen, evidence)
    known = replace(evolved, n_avoided=7, hit_rate=0.125)
    found = report.summary(
        known, unseen, evidence, judged, "volatile", data={"origin": "a market"}, run="run", seed=1
    )
    assert json.loads(json.dumps(found, allow_nan=False))["evidence"]["pbo"] == evidence.pbo
    assert found["search"]["hit_rate"] == 0.125
    page = io.StringIO()
    report.show(Console(file=page, width=1_000), found)
    for text in (page.getvalue(), report.markdown(found, "Title", {})):
        assert f"Search: {evolved.n_unique:,} genomes evaluated in 4 generations; 7 offspring (12.5%)" in text
        assert "40 genomes tried on these bars in 2 run(s), 60 answers in all" in text
        assert f"in {evidence.pbo:.0%} of all splits (PBO; luck gives 50%)" in text
        assert f"and loses there in {evidence.pbo_loss:.0%}." in text
        assert f"{evidence.pbo_search:.0%} and {evidence.pbo_search_loss:.0%}, which flatters" in text
    unknown = {**found, "evidence": {**found["evidence"], "pbo": None, "pbo_loss": None}}
    assert "in - of all splits" in report.markdown(unknown, "Title", {})

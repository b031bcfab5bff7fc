"""The verdict on a strategy that never trades: nothing of it is praised."""

import math

import numpy as np
import pytest

from ensemble.criteria import WITHOUT_TRADES, CriteriaConfig
from tests.ensemble.made_judged import made_blend, made_judged, made_validated
from tests.ensemble.made_results import account, noise
from tests.ensemble.test_criteria import HOLD, failed, judged, only


def test_whole_evidence_of_a_strategy_that_never_trades_meets_only_what_is_no_praise():
    found = made_judged(made_validated(made_blend(flat=True)), comparisons=False, permuted=False).judgment
    assert not found.passed
    lines = {line.name: line.figure for line in CriteriaConfig().lines().values()}
    for one in found.criteria:
        figure = next(figure for name, figure in lines.items() if one.name.startswith(name))
        if figure in WITHOUT_TRADES:
            assert not one.passed or figure.startswith("choice")
        else:
            assert math.isnan(one.value)
            assert not one.passed
    (trades,) = (one for one in found.criteria if lines.get(one.name) == "n_trades")
    assert (trades.value, trades.passed) == (0.0, False)


@pytest.mark.parametrize(
    "figure",
    ["max_drawdown", "total_return", "drawdown_low", "sharpe_low", "late_return", "break_even_costs",
     "confidence_set", "perturbed_gains", "permutation", "probabilistic_sharpe"],
)  # fmt: skip
def test_a_figure_that_idleness_would_meet_is_undefined_without_a_trade(figure):
    line = only(own={"name": "it", "figure": figure, "threshold": -1.0})
    idle = judged(line, strategy=account(np.zeros(300)))
    assert failed(idle) == ["it"]
    assert math.isnan(idle.criteria[0].value)
    assert failed(judged(line)) == []  # of one that trades the same line is met


def test_a_shallower_drawdown_than_others_by_doing_nothing_is_no_lead():
    line = only(own={"name": "drawdown", "figure": "max_drawdown", "against": [HOLD]})
    losing = {"baselines": {HOLD: account(noise(4, 300, edge=-0.2))}}
    assert failed(judged(line, strategy=account(np.zeros(300)), **losing)) == [f"drawdown against {HOLD}"]
    careful = account(noise(1, 300, edge=0.5, scale=1e-4), pnl=[1.0])
    assert failed(judged(line, strategy=careful, **losing)) == []


def test_a_search_that_is_judged_on_its_variants_is_judged_all_the_same():
    line = only(own={"name": "choice", "figure": "choice_holds", "threshold": 0.8})
    assert failed(judged(line, strategy=account(np.zeros(300)))) == []

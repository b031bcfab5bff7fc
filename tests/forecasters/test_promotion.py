"""Guardrails are data, and whoever falls short of one is refused with the reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.load import ConfigError, load, validate
from experiments.promotion import Criterion, verdict
from forecasters.comparison_settings import CompareConfig
from forecasters.promotion import DRAWDOWN, HIT_RATE, SKILL, TRADES, PromotionConfig, document, judge, reasons
from market.table import DataError

HOUR = 3_600_000_000_000
GOOD = {"trades": 200, "trade_hit_rate": 0.52, "max_drawdown": -0.10, "psr": 0.95}
BAD = {"trades": 199, "trade_hit_rate": 0.5199, "max_drawdown": -0.3501, "psr": 0.9499}
NAMES = {"trades": TRADES, "trade_hit_rate": HIT_RATE, "max_drawdown": DRAWDOWN, "psr": SKILL}


@pytest.fixture
def guardrails():
    return load(CompareConfig, "compare.yaml").promotion


def test_the_packaged_guardrails_are_those_of_the_house(guardrails):
    assert guardrails == PromotionConfig()
    four, one = guardrails.of_span(4 * HOUR), guardrails.of_span(HOUR)
    for each in (four, one):
        assert (each.trades, each.hit_rate, each.psr) == (200, 0.52, 0.95)
    assert (four.max_drawdown, one.max_drawdown) == (0.35, 0.10)
    assert guardrails.of_span(24 * HOUR).max_drawdown == 0.35  # what holds for horizons without their own


def test_exactly_what_is_required_is_enough(guardrails):
    for span, drawdown in ((HOUR, -0.10), (4 * HOUR, -0.35)):
        found = judge({**GOOD, "max_drawdown": drawdown}, guardrails.of_span(span))
        assert verdict(found)
        assert reasons(found) == []
        assert document(found)["promoted"] is True


@pytest.mark.parametrize("figure", list(GOOD))
def test_each_guardrail_refuses_by_itself_and_says_why(guardrails, figure):
    found = judge({**GOOD, figure: BAD[figure]}, guardrails.of_span(4 * HOUR))
    assert not verdict(found)
    (reason,) = reasons(found)
    assert reason.startswith(f"{NAMES[figure]}: ")
    assert "must be at least" in reason
    assert [one.name for one in found if not one.passed] == [NAMES[figure]]


def test_an_hour_allows_less_drawdown_than_four(guardrails):
    deep = {**GOOD, "max_drawdown": -0.2}
    assert verdict(judge(deep, guardrails.of_span(4 * HOUR)))
    assert reasons(judge(deep, guardrails.of_span(HOUR))) == [f"{DRAWDOWN}: -20.0%, must be at least -10.0%"]


@pytest.mark.parametrize("nothing", [None, math.nan, "missing"])
@pytest.mark.parametrize("figure", list(GOOD))
def test_what_is_not_defined_passes_nothing(guardrails, figure, nothing):
    figures = {**GOOD, figure: nothing}
    if nothing == "missing":
        del figures[figure]
    found = judge(figures, guardrails.of_span(4 * HOUR))
    assert not verdict(found)
    assert [one.name for one in found if not one.passed] == [NAMES[figure]]
    assert "not defined" in reasons(found)[0]
    criteria = document(found)["criteria"]
    assert [one["value"] for one in criteria if not one["passed"]] == [None]  # JSON has no NaN


@given(
    figures=st.fixed_dictionaries(
        {
            "trades": st.integers(0, 400),
            "trade_hit_rate": st.floats(0, 1),
            "max_drawdown": st.floats(-1, 0),
            "psr": st.floats(0, 1),
        }
    )
)
def test_a_promotion_is_all_four_guardrails_and_a_reason_stands_for_each_that_is_missed(figures):
    found = judge(figures, PromotionConfig())
    expected = [
        figures["trades"] >= 200,
        figures["trade_hit_rate"] >= 0.52,
        figures["max_drawdown"] >= -0.35,
        figures["psr"] >= 0.95,
    ]
    assert [one.passed for one in found] == expected
    assert all(isinstance(one, Criterion) for one in found)
    assert len(reasons(found)) == expected.count(False)
    assert document(found)["promoted"] == all(expected)


def test_a_guardrail_that_makes_no_sense_is_refused():
    for wrong in ({"max_drawdown": -0.1}, {"hit_rate": 52}, {"trades": 0}, {"horizons": {"4h": {"psr": 2}}}):
        with pytest.raises(ConfigError, match="promotion"):
            validate(PromotionConfig, wrong, "promotion")
    with pytest.raises(DataError, match="soon"):
        validate(PromotionConfig, {"horizons": {"soon": {"trades": 3}}}, "promotion")

"""A verdict passes only what is known to be good enough."""

import json
import math

import pytest

from experiments.promotion import Criterion, verdict


@pytest.mark.parametrize(
    ("value", "passed"), [(0.951, True), (0.95, True), (0.949, False), (math.nan, False), (-math.inf, False)]
)
def test_a_criterion_passes_at_its_threshold_and_never_undefined(value, passed):
    assert Criterion.at_least("skill", value, 0.95).passed is passed


def test_nothing_reaches_a_threshold_that_is_not_defined():
    assert Criterion.at_least("Sharpe", 3.0, math.nan).passed is False


def test_a_verdict_needs_every_criterion_and_at_least_one():
    good, bad = Criterion.at_least("a", 1, 0), Criterion.at_least("b", 0, 1)
    assert verdict([good, good])
    assert not verdict([good, bad])
    assert not verdict([])


def test_an_undefined_value_is_nothing_in_json():
    record = Criterion.at_least("skill", math.nan, 0.95).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False))["value"] is None
    assert record["passed"] is False

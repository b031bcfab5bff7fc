"""Promotion guardrails: what a forecaster must reach before anything else may rely on it, as data.

They are about the account that trades its signal, out of fold and after costs. Whoever falls short of one is
refused, with each reason.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from configs.load import Config
from experiments.page import UNDEFINED, decimal, percent, whole
from experiments.promotion import Criterion, verdict
from market.bars import timeframe_ns

TRADES, HIT_RATE, DRAWDOWN, SKILL = (
    "trades",
    "hit rate of trades after costs",
    "deepest drawdown",
    "probability that the true Sharpe ratio is above 0",
)
_STYLES = {TRADES: whole, HIT_RATE: lambda x: percent(x, signed=False), DRAWDOWN: percent, SKILL: decimal}


class HorizonGuardrails(Config):
    """What differs for one horizon; a missing guardrail is that of all horizons."""

    trades: int | None = Field(None, ge=1, description="Least number of trades.")
    hit_rate: float | None = Field(None, ge=0, le=1, description="Least share of trades with a profit.")
    max_drawdown: float | None = Field(None, gt=0, le=1, description="Deepest fall from a peak, fraction.")
    psr: float | None = Field(None, ge=0, le=1, description="Least probability of a Sharpe ratio above 0.")


class PromotionConfig(Config):
    """The guardrails of all horizons."""

    trades: int = Field(200, ge=1, description="Least number of trades.")
    hit_rate: float = Field(0.52, ge=0, le=1, description="Least share of trades with a profit after costs.")
    max_drawdown: float = Field(0.35, gt=0, le=1, description="Deepest fall from a peak, fraction.")
    psr: float = Field(0.95, ge=0, le=1, description="Least probability of a Sharpe ratio above 0.")
    horizons: dict[str, HorizonGuardrails] = Field(
        {
            "1h": HorizonGuardrails(max_drawdown=0.10),
            "4h": HorizonGuardrails(max_drawdown=0.35),
        },
        description="What differs, by the span of the label such as 4h.",
    )

    @field_validator("horizons")
    @classmethod
    def _spans(cls, horizons: dict[str, HorizonGuardrails]) -> dict[str, HorizonGuardrails]:
        for text in horizons:
            timeframe_ns(text)  # a span that nobody can ask for would guard nothing
        return horizons

    def of_span(self, span_ns: int) -> "PromotionConfig":
        """Return the guardrails of labels that span so many nanoseconds."""
        for text, own in self.horizons.items():
            if timeframe_ns(text) == span_ns:
                changes = {name: value for name, value in own.model_dump().items() if value is not None}
                return self.model_copy(update=changes)
        return self


def judge(figures: Mapping[str, float | None], guardrails: PromotionConfig) -> list[Criterion]:
    """Return one criterion per guardrail.

    Parameters
    ----------
    figures : mapping of str to float or None
        ``trades``, ``trade_hit_rate``, ``max_drawdown`` (zero or below) and ``psr`` of the account. What is
        not defined, missing or NaN passes nothing.
    guardrails : PromotionConfig
        Of the horizon, see :meth:`PromotionConfig.of_span`.
    """

    def value(name: str) -> float:
        found = figures.get(name)
        return math.nan if found is None else float(found)

    return [
        Criterion.at_least(TRADES, value("trades"), guardrails.trades),
        Criterion.at_least(HIT_RATE, value("trade_hit_rate"), guardrails.hit_rate),
        Criterion.at_least(DRAWDOWN, value("max_drawdown"), -guardrails.max_drawdown),
        Criterion.at_least(SKILL, value("psr"), guardrails.psr),
    ]


def reasons(criteria: Sequence[Criterion]) -> list[str]:
    """Return why a promotion is refused, a sentence per guardrail that is not kept; empty: it is not."""
    return [
        f"{one.name}: {_shown(one, one.value)}, must be at least {_shown(one, one.threshold)}"
        for one in criteria
        if not one.passed
    ]


def document(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """Return a verdict as plain objects: whether it is promoted, the criteria, and the reasons against it."""
    return {
        "promoted": verdict(criteria),
        "criteria": [one.to_dict() for one in criteria],
        "reasons": reasons(criteria),
    }


def _shown(criterion: Criterion, value: float) -> str:
    if not math.isfinite(value):
        return f"not defined ({UNDEFINED})"
    return _STYLES.get(criterion.name, decimal)(value)

"""A verdict is a list of criteria: each a number, the line it must reach, and whether it did."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Criterion:
    """One line of a verdict.

    Parameters
    ----------
    name : str
        What is measured, as a reader would say it.
    value : float
        What it was; NaN where it is not defined, which never passes.
    threshold : float
        What it must at least be.
    passed : bool
        Whether it was.
    """

    name: str
    value: float
    threshold: float
    passed: bool

    @classmethod
    def at_least(cls, name: str, value: float, threshold: float) -> Self:
        """Return the criterion that a value reaches a threshold."""
        return cls(name, float(value), float(threshold), bool(value >= threshold))

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; an undefined value is None."""
        return {key: None if _undefined(value) else value for key, value in asdict(self).items()}


def verdict(criteria: Sequence[Criterion]) -> bool:
    """Return whether every criterion passed; an empty list proves nothing and fails."""
    return bool(criteria) and all(criterion.passed for criterion in criteria)


def _undefined(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)

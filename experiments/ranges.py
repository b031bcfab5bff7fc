"""``Range``: what a parameter of a search may be, as data."""

import math
from typing import Any, Self

from pydantic import Field, model_validator

from configs.load import Config

Value = bool | int | float | str | None


class Range(Config):
    """What a parameter may be: numbers between two ends, or one of several values (a list in YAML).

    Two whole ends make whole numbers.
    """

    low: int | float | None = Field(None, description="Least value.")
    high: int | float | None = Field(None, description="Greatest value, included.")
    step: int | float | None = Field(None, description="Distance of the values from each other.")
    log: bool = Field(False, description="Whether equal ratios count the same, rather than differences.")
    choices: tuple[Value, ...] | None = Field(None, description="Values without an order.")

    @model_validator(mode="before")
    @classmethod
    def _of_list(cls, given: Any) -> Any:
        return {"choices": given} if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("a list of choices has neither ends nor a step")
            kinds = [(type(one), one) for one in self.choices]
            if not kinds or len(set(kinds)) != len(kinds):
                raise ValueError("choices must be one or more different values")
            return self
        if self.low is None or self.high is None or self.low > self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; low must not be above high")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        if self.step is not None:
            if self.step <= 0 or (self.whole and not isinstance(self.step, int)):
                raise ValueError(f"step is {self.step}; it must be above 0, and whole between whole ends")
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps), abs_tol=1e-9):
                raise ValueError(f"from {self.low} to {self.high} is no whole number of steps of {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Value, ...]:
        """Return the values that bound it: both ends, or every choice."""
        return (self.low, self.high) if self.choices is None else self.choices

    def nearest(self, value: Value) -> Value:
        """Return the value of the range that is closest to a number; the first choice for what is none."""
        if self.choices is not None:
            same = [one for one in self.choices if type(one) is type(value) and one == value]
            return same[0] if same else self.choices[0]
        if isinstance(value, bool | str) or value is None:
            return self.low
        inside = min(max(value, self.low), self.high)
        step = self.step or (1 if self.whole else None)
        if step is not None:
            inside = min(self.low + round((inside - self.low) / step) * step, self.high)
        return inside if self.whole else float(inside)

    def text(self) -> str:
        """Return it as people write it: ``3 to 9``, ``0.01 to 0.2 (log)``, ``2, 4, 8``."""
        if self.choices is not None:
            return ", ".join(str(one) for one in self.choices)
        step = f" by {self.step}" if self.step is not None else ""
        return f"{self.low} to {self.high}{step}{' (log)' if self.log else ''}"

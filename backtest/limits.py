"""What an account may never do, whoever decides: exposure, protective stop, daily loss, drawdown."""

import math

import numpy as np
from pydantic import Field

from configs.load import Config


class RiskLimits(Config):
    """Limits of one account; a missing one is off.

    Exposure, stop and target bind every decision. Daily loss and drawdown are breakers: seen at a close,
    they act on the next open. The daily breaker re-arms with the next UTC day, the drawdown breaker never.
    """

    max_exposure: float = Field(1.0, gt=0, le=10, description="Largest exposure, fraction of equity.")
    stop: float | None = Field(0.25, gt=0, lt=1, description="Widest stop, fraction of the entry price.")
    take: float | None = Field(None, gt=0, description="Widest target, fraction of the entry price.")
    daily_loss: float | None = Field(
        None, gt=0, lt=1, description="Loss in a UTC day that halts until the next."
    )
    max_drawdown: float | None = Field(
        None, gt=0, lt=1, description="Fall from the peak that halts for good."
    )

    def decision_bounds(self) -> np.ndarray:
        """Return exposure cap, stop and target distance as float64 (3,); infinite where off."""
        return np.array([self.max_exposure, _or_off(self.stop), _or_off(self.take)])

    def account_bounds(self) -> np.ndarray:
        """Return the decision bounds, daily loss and drawdown as float64 (5,); infinite where off."""
        return np.append(self.decision_bounds(), [_or_off(self.daily_loss), _or_off(self.max_drawdown)])


def _or_off(limit: float | None) -> float:
    return math.inf if limit is None else limit

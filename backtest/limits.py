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
    trail: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Trailing stop: distance from the best price since the fill, fraction of it.",
    )
    long_only: bool = Field(False, description="Whether short exposure is refused: it counts as flat.")
    daily_loss: float | None = Field(
        None, gt=0, lt=1, description="Loss in a UTC day that halts until the next."
    )
    max_drawdown: float | None = Field(
        None, gt=0, lt=1, description="Fall from the peak that halts for good."
    )

    def bounds(self) -> np.ndarray:
        """Return what the kernels read, float64 (7,); infinite where off.

        Largest and smallest exposure; distances of stop, target and trailing stop; daily loss; drawdown.
        """
        smallest = 0.0 if self.long_only else -self.max_exposure
        distances = (self.stop, self.take, self.trail, self.daily_loss, self.max_drawdown)
        return np.array([self.max_exposure, smallest, *map(_or_off, distances)])


def _or_off(limit: float | None) -> float:
    return math.inf if limit is None else limit

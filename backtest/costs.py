"""What a fill costs beside its price: fee, half spread, and impact by liquidity bucket."""

import itertools
import math

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config
from market.bars import Bars

BPS = 1e-4
LIQUIDITY_BARS = 24  # a day of hourly bars: long enough to be stable, short enough to follow the market


class ImpactBucket(Config):
    """Impact of a market order while the market trades at least this much per bar."""

    turnover: float = Field(ge=0, description="Least mean turnover per bar, quote currency.")
    impact_bps: float = Field(ge=0, le=1_000, description="Slippage beyond the half spread, basis points.")


class Costs(Config):
    """Costs of trading, all in basis points of notional and all paid on both sides of a trade.

    The defaults are pessimistic for a large exchange: the fee of the lowest tier as taker, and impact that
    grows when the market dries up.
    """

    fee_bps: float = Field(10.0, ge=0, le=1_000, description="Taker fee, basis points of notional.")
    half_spread_bps: float = Field(
        1.0, ge=0, le=1_000, description="Half of the quoted spread, basis points."
    )
    impact: tuple[ImpactBucket, ...] = Field(
        (
            ImpactBucket(turnover=0, impact_bps=15),
            ImpactBucket(turnover=100_000, impact_bps=8),
            ImpactBucket(turnover=1_000_000, impact_bps=4),
            ImpactBucket(turnover=10_000_000, impact_bps=2),
        ),
        min_length=1,
        description="Liquidity buckets, by rising turnover; the first starts at zero.",
    )
    delay_bars: int = Field(0, ge=0, le=24, description="Bars between a decision's next open and its fill.")

    @model_validator(mode="after")
    def _rising(self) -> "Costs":
        turnover = [bucket.turnover for bucket in self.impact]
        if turnover[0] != 0 or any(b <= a for a, b in itertools.pairwise(turnover)):
            raise ValueError(f"impact buckets start at turnover {turnover}; they must start at 0 and rise")
        return self

    def scaled(self, factor: float) -> "Costs":
        """Return the same costs times a factor of zero or more, for cost stress."""
        if not 0 <= factor < math.inf:
            raise ValueError(f"factor is {factor}; costs are scaled by zero or more")
        impact = tuple(b.model_copy(update={"impact_bps": b.impact_bps * factor}) for b in self.impact)
        return self.model_copy(
            update={
                "fee_bps": self.fee_bps * factor,
                "half_spread_bps": self.half_spread_bps * factor,
                "impact": impact,
            }
        )

    def fees(self, bars: Bars) -> np.ndarray:
        """Return the fee at each bar as float64 (n,), fraction of notional."""
        return np.full(len(bars), self.fee_bps * BPS)

    def slippage(self, bars: Bars) -> np.ndarray:
        """Return half spread plus impact at each bar as float64 (n,), fraction of notional.

        The bucket of bar t comes from the mean turnover (close times volume) of the bars before it, at
        most ``LIQUIDITY_BARS`` of them: what is known when the order is sent. The first bar has no past
        and gets the most expensive bucket.
        """
        turnover = bars.column("close") * bars.column("volume")
        # Window sums, not differences of a running sum: a row must not depend on where the bars start.
        padded = np.concatenate([np.zeros(LIQUIDITY_BARS), turnover])
        windows = np.lib.stride_tricks.sliding_window_view(padded, LIQUIDITY_BARS)[:-1]
        known = np.clip(np.arange(len(bars)), 1, LIQUIDITY_BARS)
        mean = windows.sum(axis=1) / known
        steps = np.array([bucket.turnover for bucket in self.impact])
        impact = np.array([bucket.impact_bps for bucket in self.impact])
        rates = impact[np.searchsorted(steps, mean, side="right") - 1]
        if len(bars):
            rates[0] = impact.max()
        return (self.half_spread_bps + rates) * BPS

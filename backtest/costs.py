"""What a fill costs beside its price: fee, half spread, and impact by liquidity, volatility and size."""

import itertools
import math

import numpy as np
from pydantic import Field, model_validator

from backtest.account import SAME_STEP
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
    maker_fee_bps: float | None = Field(
        None,
        ge=0,
        le=1_000,
        description="Fee of a target that rests in the book: no spread, no impact. Missing: as any order.",
    )
    size_impact: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Further impact by size: this times volatility times the root of order over turnover.",
    )
    participation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of a bar's volume that may be traded; the rest waits. Missing: all.",
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
                "maker_fee_bps": None if self.maker_fee_bps is None else self.maker_fee_bps * factor,
                "size_impact": self.size_impact * factor,
                "impact": impact,
            }
        )

    def fees(self, bars: Bars) -> np.ndarray:
        """Return the fee of a market order at each bar as float64 (n,), fraction of notional."""
        return np.full(len(bars), self.fee_bps * BPS)

    def slippage(self, bars: Bars) -> np.ndarray:
        """Return half spread plus impact at each bar as float64 (n,), fraction of notional.

        The bucket of bar t comes from the mean turnover (close times volume) of the bars before it, at
        most ``LIQUIDITY_BARS`` of them: what is known when the order is sent. The first bar has no past
        and gets the most expensive bucket.
        """
        mean = _trailing_mean(bars.column("close") * bars.column("volume"))
        steps = np.array([bucket.turnover for bucket in self.impact])
        impact = np.array([bucket.impact_bps for bucket in self.impact])
        rates = impact[np.searchsorted(steps, mean, side="right") - 1]
        if len(bars):
            rates[0] = impact.max()
        return (self.half_spread_bps + rates) * BPS

    def impact_coefficient(self, bars: Bars) -> np.ndarray:
        """Return c at each bar, float64 (n,): an order of notional N costs the further rate c * sqrt(N).

        The square-root law: ``size_impact * sigma * sqrt(N / turnover)``, with the deviation of bar returns
        and the mean turnover of the ``LIQUIDITY_BARS`` bars before, so that an order as large as a bar's
        turnover moves the price by ``size_impact`` deviations. Where nothing was traded yet, a turnover
        of one unit of quote currency is assumed.

        Source: Almgren, Thum, Hauptmann and Li (2005), "Direct estimation of equity market impact"; Toth
        et al. (2011), "Anomalous price impact and the critical nature of liquidity in financial markets".
        """
        if self.size_impact == 0:
            return np.zeros(len(bars))
        close = bars.column("close")
        moves = np.zeros(len(bars))
        moves[1:] = (close[1:] / close[:-1] - 1.0) ** 2
        turnover = np.maximum(_trailing_mean(close * bars.column("volume")), 1.0)
        return self.size_impact * np.sqrt(_trailing_mean(moves) / turnover)

    def room(self, bars: Bars, lot: float = 0.0) -> np.ndarray:
        """Return the quantity that may be traded in each bar, float64 (n,), whole lots; infinite: any.

        A share of the volume of the bar itself: what was there to be traded while the order was working.
        It bounds the fill and informs no decision.
        """
        if self.participation is None:
            return np.full(len(bars), math.inf)
        room = self.participation * bars.column("volume")
        return whole_lots(room, lot)


def whole_lots(quantity: np.ndarray | float, lot: float) -> np.ndarray | float:
    """Return quantities rounded down to the grid of a lot; 0 is no grid, infinite stays."""
    return np.floor(quantity / lot + SAME_STEP) * lot if lot > 0 else quantity


def _trailing_mean(values: np.ndarray) -> np.ndarray:
    # Of the bars before each bar. Window sums, not differences of a running sum: a row must not depend on
    # where the bars start.
    padded = np.concatenate([np.zeros(LIQUIDITY_BARS), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, LIQUIDITY_BARS)[:-1]
    return windows.sum(axis=1) / np.clip(np.arange(len(values)), 1, LIQUIDITY_BARS)

"""What is charged and allowed at every bar, as the arrays that the kernels read."""

from dataclasses import dataclass

import numpy as np

from backtest import kernels
from backtest.costs import BPS, Costs, whole_lots
from backtest.limits import RiskLimits
from backtest.venue import Venue
from configs.load import ConfigError
from market.bars import NS_PER_SECOND, Bars

NS_PER_DAY = 86_400 * NS_PER_SECOND


@dataclass(frozen=True, eq=False)
class Terms:
    """Costs, limits and venue over bars.

    Parameters
    ----------
    bars : float64 (n, 10)
        Columns by ``backtest.kernels``: FEE and RATE (fee; fee, half spread and bucket impact; fractions of
        notional), MAKER (rate of a target fill, negative: as any order), IMPACT (c of the square-root law),
        ROOM (quantity that may trade, infinite: any), FUNDING_INSIDE and FUNDING_CLOSE (rates settled),
        MARK_HIGH and MARK_LOW, NEW_DAY (1 on the first bar of a UTC day).
    bounds : float64 (7,)
        See ``RiskLimits.bounds``.
    venue : float64 (6,)
        Capital, leverage (0: no margin), lot, tick, minimum notional, largest quantity.
    tiers : float64 (2, 8)
        Maintenance rates and amounts.
    options : tuple of (None or True)
        Which of ``backtest.kernels.OPTIONS`` the population kernel needs for these terms. What is off is
        compiled away, and the answer is the same with it.
    """

    bars: np.ndarray
    bounds: np.ndarray
    venue: np.ndarray
    tiers: np.ndarray
    options: tuple[bool | None, ...]

    @classmethod
    def of(cls, bars: Bars, costs: Costs, limits: RiskLimits, venue: Venue, capital: float) -> "Terms":
        """Return the terms of trading bars (n,) from a capital in quote currency.

        Raises
        ------
        ConfigError
            If limits allow what the venue does not: shorts on spot, or more exposure than leverage.
        """
        if not capital > 0 or not np.isfinite(capital):
            raise ConfigError(f"capital is {capital}; it must be positive and finite")
        if venue.kind == "spot" and not limits.long_only:
            raise ConfigError("venue.kind is spot, which cannot go short; set limits.long_only to true")
        if venue.kind != "synthetic" and limits.max_exposure > venue.leverage:
            raise ConfigError(
                f"limits.max_exposure is {limits.max_exposure:g} on a {venue.kind} venue with leverage "
                f"{venue.leverage:g}; it must not exceed it"
            )
        fees = costs.fees(bars)
        table = np.empty((len(bars), kernels.N_TERMS))
        table[:, kernels.FEE] = fees
        table[:, kernels.RATE] = fees + costs.slippage(bars)
        table[:, kernels.MAKER] = -1.0 if costs.maker_fee_bps is None else costs.maker_fee_bps * BPS
        table[:, kernels.IMPACT] = costs.impact_coefficient(bars)
        table[:, kernels.ROOM] = costs.room(bars, venue.lot)
        table[:, kernels.FUNDING_INSIDE : kernels.FUNDING_CLOSE + 1] = venue.funding(bars)
        table[:, kernels.MARK_HIGH : kernels.MARK_LOW + 1] = venue.marks(bars)
        day = (bars.time - 1) // NS_PER_DAY  # the bar that closes at midnight belongs to the day it ends
        table[:, kernels.NEW_DAY] = np.diff(day, prepend=day[0] - 1 if len(day) else 0) != 0
        funding = table[:, kernels.FUNDING_INSIDE : kernels.FUNDING_CLOSE + 1]
        switched = {
            "trail": limits.trail is not None,
            "maker": costs.maker_fee_bps is not None,
            "impact": costs.size_impact > 0,
            "funding": bool(funding.any()),
            "margin": venue.margined,
            "grid": venue.gridded,
            "room": costs.participation is not None,
            "breakers": limits.daily_loss is not None or limits.max_drawdown is not None,
        }
        largest = np.inf if venue.max_quantity is None else whole_lots(venue.max_quantity, venue.lot)
        leverage = venue.leverage if venue.margined else 0.0
        return cls(
            bars=table,
            bounds=limits.bounds(),
            venue=np.array([capital, leverage, venue.lot, venue.tick, venue.min_notional, largest]),
            tiers=venue.maintenance(),
            options=tuple(True if switched[name] else None for name in kernels.OPTIONS),
        )

    def only(self, rows: slice) -> "Terms":
        """Return the terms of some rows; what was known before them stays in."""
        return Terms(np.ascontiguousarray(self.bars[rows]), self.bounds, self.venue, self.tiers, self.options)

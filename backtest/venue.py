"""Where an account trades: spot or perpetual, its margin, funding and order grids."""

import itertools
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from backtest.kernels import N_TIERS
from configs.load import Config
from market.bars import Bars
from market.sources.funding import FUNDING, FUNDING_INSIDE, NS_PER_HOUR
from market.table import DataError

MARK_HIGH, MARK_LOW = "mark_high", "mark_low"  # columns that bars may carry beside prices and volume


class MarginTier(Config):
    """Maintenance margin of the part of a position above a notional."""

    notional: float = Field(ge=0, description="Where the tier begins, quote currency.")
    rate: float = Field(gt=0, lt=1, description="Maintenance margin rate of the tier.")


class Venue(Config):
    """An exchange account, described by its rules.

    ``synthetic``, the default, goes long and short at the bar's price without borrowing costs or margin
    calls: what a specialist's idea is worth before an exchange is chosen. ``spot`` is long only and never
    above the equity. ``perpetual`` is a linear contract: funding, isolated margin, liquidation.

    The default tiers are those of a large exchange's BTC contract; check your exchange's.
    """

    kind: Literal["synthetic", "spot", "perpetual"] = Field("synthetic", description="What is traded.")
    leverage: float = Field(
        1.0, ge=1, le=125, description="Perpetual: a position posts its notional over this as margin."
    )
    tiers: tuple[MarginTier, ...] = Field(
        (
            MarginTier(notional=0, rate=0.004),
            MarginTier(notional=50_000, rate=0.005),
            MarginTier(notional=500_000, rate=0.01),
            MarginTier(notional=8_000_000, rate=0.025),
            MarginTier(notional=50_000_000, rate=0.05),
            MarginTier(notional=80_000_000, rate=0.10),
            MarginTier(notional=100_000_000, rate=0.125),
            MarginTier(notional=120_000_000, rate=0.15),
        ),
        min_length=1,
        max_length=N_TIERS,
        description="Perpetual: maintenance margin by notional, rising.",
    )
    funding_rate: float = Field(
        1e-4, ge=-0.05, le=0.05, description="Perpetual: rate of a settlement where bars carry none."
    )
    funding_hours: int = Field(
        8, ge=1, le=24, description="Perpetual: hours between settlements, from midnight."
    )
    lot: float = Field(0.0, ge=0, description="Step of quantities, base currency; 0: any.")
    tick: float = Field(0.0, ge=0, description="Step of prices, quote currency; 0: any.")
    min_notional: float = Field(0.0, ge=0, description="Least value of an order, quote currency.")
    max_quantity: float | None = Field(None, gt=0, description="Largest position, base currency.")

    @model_validator(mode="after")
    def _consistent(self) -> "Venue":
        starts, rates = [t.notional for t in self.tiers], [t.rate for t in self.tiers]
        if starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)):
            raise ValueError(f"margin tiers start at notional {starts}; they must start at 0 and rise")
        if any(b < a for a, b in itertools.pairwise(rates)):
            raise ValueError(f"margin tiers have rates {rates}; they must not fall")
        if self.kind != "perpetual" and self.leverage != 1:
            raise ValueError(
                f"leverage is {self.leverage:g} on a {self.kind} venue; only a perpetual has any"
            )
        if 24 % self.funding_hours:
            raise ValueError(f"funding_hours is {self.funding_hours}; it must divide a day")
        if self.leverage * rates[0] >= 1:
            raise ValueError(
                f"leverage is {self.leverage:g} with a maintenance rate of {rates[0]:g}; a new position "
                "would be liquidated at once"
            )
        return self

    @property
    def margined(self) -> bool:
        """Whether positions post margin and may be liquidated."""
        return self.kind == "perpetual"

    @property
    def gridded(self) -> bool:
        """Whether quantities, prices or order values are restricted."""
        return self.lot > 0 or self.tick > 0 or self.min_notional > 0 or self.max_quantity is not None

    def described(self, bars: Bars) -> str:
        """Return in one sentence what this venue assumes about trading these bars."""
        if self.kind == "synthetic":
            sentence = (
                "Longs and shorts trade at the bar's price; borrowing is free and nothing is liquidated"
            )
        elif self.kind == "spot":
            sentence = "Spot: long only, nothing is borrowed"
        else:
            settled = f"{self.funding_rate:.4%} every {self.funding_hours} hours, assumed"
            if FUNDING in bars.names or FUNDING_INSIDE in bars.names:
                settled = "as settled in the data"
            mark = (
                "mark price" if MARK_HIGH in bars.names and MARK_LOW in bars.names else "bar's high and low"
            )
            sentence = (
                f"Perpetual: funding {settled}; isolated margin at {self.leverage:g}x, liquidated by the "
                f"{mark} before any stop, the margin lost"
            )
        grids = {"lot": self.lot, "tick": self.tick, "least order": self.min_notional}
        grids["largest position"] = self.max_quantity or 0.0
        named = ", ".join(f"{name} {value:g}" for name, value in grids.items() if value)
        return f"{sentence}; {named or 'any quantity and price'}."

    def maintenance(self) -> np.ndarray:
        """Return the tiers as float64 (2, 8): rates and amounts, the last tier repeated.

        Maintenance margin at notional N is ``max(N * rate - amount)``: the amounts make it continuous
        where tiers meet.
        """
        rates, amounts = [self.tiers[0].rate], [0.0]
        for below, tier in itertools.pairwise(self.tiers):
            rates.append(tier.rate)
            amounts.append(amounts[-1] + tier.notional * (tier.rate - below.rate))
        missing = N_TIERS - len(rates)
        return np.array([rates + rates[-1:] * missing, amounts + amounts[-1:] * missing])

    def funding(self, bars: Bars) -> np.ndarray:
        """Return the rates settled strictly inside and at the close of each bar, float64 (n, 2).

        From the bars' columns ``funding`` and ``funding_inside`` where there is one, else ``funding_rate``
        every ``funding_hours`` from midnight UTC. Zero except for a perpetual.
        """
        rates = np.zeros((len(bars), 2))
        if not self.margined:
            return rates
        if FUNDING in bars.names or FUNDING_INSIDE in bars.names:
            for i, name in enumerate((FUNDING_INSIDE, FUNDING)):
                if name in bars.names:
                    rates[:, i] = bars.column(name)
            if not np.isfinite(rates).all():
                row = int(np.argwhere(~np.isfinite(rates))[0][0])
                raise DataError(
                    f"{bars.symbol}, row {row}: the funding rate is not a number; it is 0 where none settles"
                )
            return rates
        every = self.funding_hours * NS_PER_HOUR
        settled = bars.time // every - (bars.time - bars.interval_ns) // every
        at_close = bars.time % every == 0
        rates[:, 0] = (settled - at_close) * self.funding_rate
        rates[:, 1] = at_close * self.funding_rate
        return rates

    def marks(self, bars: Bars) -> np.ndarray:
        """Return the highest and lowest mark price of each bar, float64 (n, 2); else high and low."""
        marks = np.array(bars.values[:, 1:3])
        for i, name in enumerate((MARK_HIGH, MARK_LOW)):
            if name in bars.names:
                column = bars.column(name)
                if not (np.isfinite(column) & (column > 0)).all():
                    row = int(np.argmin(np.isfinite(column) & (column > 0)))
                    raise DataError(f"{bars.symbol}, row {row}: {name} is {column[row]}; a price is positive")
                marks[:, i] = column
        return marks

"""From a signal to an exposure: volatility target, fractional Kelly, caps, and a band of no trade."""

import math
from typing import Self

import numpy as np
from pydantic import Field

from backtest.limits import RiskLimits
from configs.load import Config
from ensemble import kernels
from market.bars import Bars

#: Half-lives after which the start of a mean no longer matters: 2**-20 is below a millionth.
FORGOTTEN = 20


class SizingConfig(Config):
    """How large a position becomes."""

    target_volatility: float | None = Field(
        0.2, gt=0, le=10, description="Volatility per year that a full signal aims at, fraction; null: none."
    )
    half_life_bars: float = Field(
        72.0, gt=0, le=100_000, description="Half-life of the squared returns that measure volatility."
    )
    least_volatility: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Volatility per year below which none is believed: a frozen feed would fill the cap.",
    )
    cap: float = Field(1.0, gt=0, le=10, description="Largest factor of a signal, fraction of equity.")
    kelly: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the Kelly bet that a full signal is at most, from what the signal has earned; "
        "null: none.",
    )
    kelly_half_life_bars: float = Field(
        2_000.0, gt=0, le=1_000_000, description="Half-life of what it has earned, bars with a position."
    )
    kelly_prior_bars: float = Field(
        500.0,
        ge=0,
        le=1_000_000,
        description="Bars without any edge that its mean is shrunk by: no bet before there is evidence.",
    )
    min_change: float = Field(
        0.05,
        ge=0,
        le=2,
        description="Change of exposure until which it is kept, fraction of equity; 0: none.",
    )


class Sizing:
    """The stage from gated signals to exposures.

    ``exposure = gated * min(target / volatility, cap)``; with Kelly, at most ``gated * kelly * mean /
    mean square`` of what ``gated`` has earned per bar, before costs. The exposure of the row before is kept
    unless it differs by more than the band, is flat, or changes its side. Where the volatility is not known
    yet, it is flat.

    The volatility is the root of an exponential mean of squared log returns of the closes. A return over
    missing bars is shared among them.

    Parameters
    ----------
    config : SizingConfig
    limits : RiskLimits, optional
        Largest exposure, and whether short is refused.

    Attributes
    ----------
    warmup : int
        Rows until the start of the means matters less than a millionth. What the band keeps has no fixed
        length: it ends whenever the signal is flat.
    """

    def __init__(self, config: SizingConfig | None = None, limits: RiskLimits | None = None) -> None:
        self.config = own = config or SizingConfig()
        self.limits = limits or RiskLimits()
        lives = [own.half_life_bars] if own.target_volatility is not None else []
        lives += [own.kelly_half_life_bars] if own.kelly is not None else []
        self.warmup = math.ceil(FORGOTTEN * max(lives, default=0.0))
        largest, smallest = self.limits.bounds()[:2]
        self._settings = np.zeros(kernels.N_SIZES)
        self._settings[kernels.DECAY] = 2.0 ** (-1.0 / own.half_life_bars)
        self._settings[kernels.LEAST_ROWS] = max(2, math.ceil(own.half_life_bars))
        self._settings[kernels.CAP] = own.cap
        self._settings[kernels.KELLY] = own.kelly or 0.0
        self._settings[kernels.KELLY_DECAY] = 2.0 ** (-1.0 / own.kelly_half_life_bars)
        self._settings[kernels.PRIOR] = own.kelly_prior_bars
        self._settings[kernels.LARGEST] = largest
        self._settings[kernels.SMALLEST] = smallest
        self._settings[kernels.BAND] = own.min_change
        self._memory = np.zeros(kernels.N_MEMORY)
        self._last_time: int | None = None

    def fresh(self) -> Self:
        """Return the same sizing with empty memory."""
        return type(self)(self.config, self.limits)

    def update(self, bars: Bars, gated: np.ndarray) -> np.ndarray:
        """Return the exposure wanted from the next open, float64 (n,), fraction of equity; nothing is NaN.

        Parameters
        ----------
        bars : Bars (n,)
        gated : float64 (n,)
            In [-1, 1]; NaN counts as flat.
        """
        out = np.empty(len(bars))
        if not len(bars):
            return out
        per_year = math.sqrt(bars.bars_per_year)
        target = self.config.target_volatility
        self._settings[kernels.TARGET] = math.inf if target is None else target / per_year
        self._settings[kernels.FLOOR] = self.config.least_volatility / per_year
        before = bars.time[0] - bars.interval_ns if self._last_time is None else self._last_time
        steps = np.maximum(np.diff(bars.time, prepend=before) / bars.interval_ns, 1.0)
        kernels.size(
            np.nan_to_num(np.asarray(gated, np.float64), nan=0.0),
            bars.column("open"),
            bars.column("close"),
            steps,
            self._settings,
            self._memory,
            out,
        )
        self._last_time = int(bars.time[-1])
        return out

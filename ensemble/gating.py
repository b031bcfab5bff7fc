"""Gates between what is blended and what is wanted: they scale, confirm, and keep from trading in vain.

In this order, each off unless it is asked for:

1. *Confidence*: the wish times the confidence in the regime to a power.
2. *Volatility*: what opens a position depends on how volatile it is, by its rank among the last weeks or by
   the regime.
3. *Confirmation*: a named source, such as a forecaster of a longer horizon, must not disagree.
4. *Hysteresis*: a position opens at a threshold and is left below a share of it.
5. *Least change*: a position is kept until the wish has moved away from it by more than a band.

A wish that is not known is flat, and so is one whose confidence or volatility is not known, where they count.
"""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config, ConfigError, did_you_mean
from ensemble import kernels
from ensemble.signals import SignalTable
from market.causal import Windowed
from market.table import Table
from regimes.regime import Regime, RegimeProbabilities

BPS = 1e-4
#: Standard deviation of a signal that uses its range, for the band that costs decide.
SPREAD = 0.5
_FACTORS = {"flat": 0.0, "halve": 0.5}


class GatingConfig(Config):
    """What stands between a blended signal and a position."""

    confidence_power: float = Field(
        0.0, ge=0, le=10, description="The wish is scaled by the confidence to this power; 0: not."
    )
    threshold: float = Field(
        0.0, ge=0, le=1, description="Wish that opens a position, share of the largest; 0: any."
    )
    calm_threshold: float | None = Field(
        None, ge=0, le=1, description="The same while volatility is low; null: as threshold."
    )
    wild_threshold: float | None = Field(
        None, ge=0, le=1, description="The same while volatility is high; null: as threshold."
    )
    wild_scale: float = Field(
        1.0, ge=0, le=1, description="Factor of the wish while volatility is high; 1: none."
    )
    volatility_by: Literal["level", "regime"] = Field(
        "level",
        description="Low and high by rank among past levels; or ranging is low, volatile and crisis high.",
    )
    volatility_column: str = Field("volatility_24", description="Feature whose rank counts.")
    volatility_window: int = Field(
        720, ge=2, le=20_000, description="Bars it is ranked among; a month of hours."
    )
    calm_below: float = Field(0.1, ge=0, le=1, description="Rank below which volatility is low, in 0..1.")
    wild_above: float = Field(0.9, ge=0, le=1, description="Rank above which it is high, in 0..1.")
    confirm: str | None = Field(
        None,
        description="Source that must not disagree, such as a forecaster of a longer horizon; null: none.",
    )
    confirm_tolerance: float = Field(
        0.1, ge=0, le=1, description="Its signal against the wish that is still no disagreement."
    )
    confirm_action: Literal["flat", "halve"] = Field(
        "flat", description="What becomes of the wish if it does."
    )
    confirm_required: bool = Field(
        False, description="Whether the wish is flat where the source has no opinion, too."
    )
    leave: float = Field(
        0.5, ge=0, le=1, description="Share of the threshold at which a position is left; 1: no hysteresis."
    )
    min_change: float | Literal["auto"] = Field(
        0.0,
        description="Change of the wish until which a position is kept, in 0..2; 0: every change counts. "
        "auto: what costs, edge and half-life of the signal decide.",
    )
    cost_bps: float = Field(15.0, ge=0, le=1_000, description="auto: cost per unit traded, basis points.")
    edge_bps: float = Field(
        2.0,
        gt=0,
        le=1_000,
        description="auto: what a full position at a full signal earns per bar, basis points.",
    )
    half_life_bars: float = Field(24.0, gt=0, le=100_000, description="auto: half-life of the signal.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.min_change != "auto" and not 0.0 <= self.min_change <= 2.0:
            raise ValueError(f"min_change is {self.min_change:g}; it must lie in 0..2, or be auto")
        if self.calm_below > self.wild_above:
            raise ValueError(
                f"calm_below is {self.calm_below:g}; it must not lie above wild_above, {self.wild_above:g}"
            )
        return self

    @property
    def watches_volatility(self) -> bool:
        """Whether anything depends on the volatility."""
        thresholds = {self.threshold, self.opening("calm"), self.opening("wild")}
        return len(thresholds) > 1 or self.wild_scale < 1.0

    @property
    def ranks(self) -> bool:
        """Whether the rank of :attr:`volatility_column` is needed."""
        return self.watches_volatility and self.volatility_by == "level"

    def opening(self, volatility: Literal["calm", "wild"]) -> float:
        """Return the wish that opens a position at low or high volatility."""
        own = self.calm_threshold if volatility == "calm" else self.wild_threshold
        return self.threshold if own is None else own

    def band(self) -> float:
        """Return the change until which a position is kept; see :func:`no_trade_band` for ``auto``."""
        if self.min_change == "auto":
            return no_trade_band(self.cost_bps * BPS, self.edge_bps * BPS, self.half_life_bars)
        return self.min_change


def no_trade_band(cost: float, edge: float, half_life: float, spread: float = SPREAD) -> float:
    """Return how far a signal may move before following it pays, at most 1.

    A position that is off by d loses ``edge * d**2 / 2`` per bar against the ideal one. Following a signal
    whose changes have the variance q per bar only when it is off by w, then entirely, costs ``cost * q / w``
    per bar and leaves a mean loss of ``edge * w**2 / 12``. Their sum is least at
    ``w = (6 * cost * q / edge)**(1/3)``.

    Parameters
    ----------
    cost : float
        Paid per unit traded, fraction.
    edge : float
        Earned per bar by a full position at a full signal, fraction.
    half_life : float
        Bars in which the correlation of the signal with itself falls to one half; then
        ``q = 2 * spread**2 * (1 - 2**(-1 / half_life))``.
    spread : float
        Standard deviation of the signal.

    Source: the cube root of Rogers (2004), "Why is the effect of proportional transaction costs
    O(delta^(2/3))?"; the constant is that of jumps to the ideal position, a Brownian motion leaving
    ``(-w, w)`` after ``w**2 / q`` bars on average, where trading to the edge of the band has 3/2.
    """
    variance = 2.0 * spread**2 * (1.0 - 2.0 ** (-1.0 / half_life))
    return min(1.0, (6.0 * cost * variance / edge) ** (1.0 / 3.0))


class Gates:
    """The stage of all gates: blended signals in, what may be wanted out, both in [-1, 1].

    Parameters
    ----------
    config : GatingConfig
        Defaults if not given.

    Attributes
    ----------
    warmup : int
        Rows until the rank of the volatility is known. The memory of hysteresis and least change has no
        fixed length: it ends whenever the answer is flat.
    columns : tuple of str
        Features that are read.
    """

    def __init__(self, config: GatingConfig | None = None) -> None:
        self.config = config or GatingConfig()
        window = self.config.volatility_window
        self.warmup = window - 1 if self.config.ranks else 0
        self.columns = (self.config.volatility_column,) if self.config.ranks else ()
        self._rank = Windowed(self._ranked, window, ("rank",))
        self._memory = np.zeros(1)
        one = self.config
        self._settings = np.zeros(kernels.N_GATES)
        self._settings[kernels.POWER] = one.confidence_power
        self._settings[kernels.CALM] = one.opening("calm")
        self._settings[kernels.USUAL] = one.threshold
        self._settings[kernels.WILD] = one.opening("wild")
        self._settings[kernels.LEAVE] = one.leave
        self._settings[kernels.WILD_SCALE] = one.wild_scale
        self._settings[kernels.TOLERANCE] = one.confirm_tolerance
        self._settings[kernels.CONTRARY] = _FACTORS[one.confirm_action]
        self._settings[kernels.REQUIRED] = one.confirm is not None and one.confirm_required
        self._settings[kernels.CHANGE] = one.band()

    def fresh(self) -> Self:
        """Return the same gates with empty memory."""
        return type(self)(self.config)

    def update(
        self,
        blended: np.ndarray,
        signals: SignalTable,
        regimes: RegimeProbabilities,
        label: np.ndarray,
        confidence: np.ndarray,
        features: Table,
    ) -> np.ndarray:
        """Return what may be wanted, float64 (n,) in [-1, 1]; flat is 0, and nothing is NaN.

        Parameters
        ----------
        blended : float64 (n,)
            The blender's answer in [-1, 1]; NaN: none.
        signals : SignalTable (n, s)
            For the confirmation.
        regimes : RegimeProbabilities (n, k)
            Not read by the gates there are now.
        label : int8 (n,)
            The regime in force; -1 while undecided.
        confidence : float64 (n,)
            Its probability; NaN where unknown.
        features : Table (n, f)
            With the column that is ranked.

        Raises
        ------
        ConfigError
            If there is no such source or feature.
        """
        confirming = np.full(blended.size, np.nan)
        if self.config.confirm is not None:
            require_known(self.config.confirm, signals.names, "gating.confirm", "source")
            confirming = signals.column(self.config.confirm)
        out = np.empty(blended.size)
        kernels.pass_gates(
            np.ascontiguousarray(blended),
            np.ascontiguousarray(confidence),
            self._volatility(label, features),
            confirming,
            self._settings,
            self._memory,
            out,
        )
        return out

    def _volatility(self, label: np.ndarray, features: Table) -> np.ndarray:
        # -1 calm, 0 usual, 1 wild, NaN unknown.
        config = self.config
        if not config.watches_volatility:
            return np.zeros(label.size)
        if config.volatility_by == "regime":
            known = np.where(label < 0, np.nan, 0.0)
            return known + np.where(
                label >= Regime.VOLATILE, 1.0, np.where(label == Regime.RANGING, -1.0, 0.0)
            )
        require_known(config.volatility_column, features.names, "gating.volatility_column", "feature")
        rank = self._rank.update(features.select(self.columns)).values[:, 0]
        state = np.where(rank > config.wild_above, 1.0, np.where(rank < config.calm_below, -1.0, 0.0))
        return np.where(np.isnan(rank), np.nan, state)

    def _ranked(self, values: np.ndarray) -> np.ndarray:
        window = self.config.volatility_window
        out = np.full((len(values), 1), np.nan)
        if len(values) >= window:
            found = np.empty(len(values) - window + 1)
            kernels.trailing_rank(np.ascontiguousarray(values[:, 0]), window, window - 1, found)
            out[window - 1 :, 0] = found
        return out


def require_known(name: str, known: tuple[str, ...], setting: str, what: str) -> None:
    """Raise ConfigError unless a name is among the known ones; the message suggests one."""
    if name not in known:
        raise ConfigError(f"{setting} is {name!r}; there is no such {what}{did_you_mean(name, known)}")

"""``volatility``: a rule of two switches on realised volatility and directedness, with hysteresis."""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config, validate
from market.table import Table
from regimes.chain import chain_of_labels, check_chain
from regimes.detector import DETECTORS, require_fitted, save_detector, saved_detector
from regimes.kernels import hysteresis
from regimes.observations import Observer
from regimes.regime import REGIME_NAMES, RegimeProbabilities

MIN_ROWS = 200
PLACE = "detector volatility"


class VolatilityConfig(Config):
    """Which columns the rule reads, and where its switches stand."""

    volatility_column: str = Field("parkinson_24", description="A positive level of volatility per bar.")
    direction_column: str = Field("efficiency_72", description="How directed moves are; larger is more.")
    baseline_bars: int = Field(
        4320, ge=0, le=100_000, description="The level is relative to its mean over these bars; 0: absolute."
    )
    volatile_enter: float = Field(0.8, gt=0, lt=1, description="Quantile of volatility that turns it on.")
    volatile_leave: float = Field(0.6, gt=0, lt=1, description="Quantile of volatility that turns it off.")
    trending_enter: float = Field(0.7, gt=0, lt=1, description="Quantile of direction that turns it on.")
    trending_leave: float = Field(0.3, gt=0, lt=1, description="Quantile of direction that turns it off.")
    sharpness: float = Field(
        3.0, gt=0, le=100, description="Certainty per standard deviation of distance from a threshold."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("volatile", "trending"):
            enter, leave = getattr(self, f"{name}_enter"), getattr(self, f"{name}_leave")
            if leave > enter:
                raise ValueError(f"{name}_leave is {leave}; it must not lie above {name}_enter, {enter}")
        return self


@DETECTORS.register("volatility")
class VolatilityDetector:
    """Calls a market volatile by its range, else trending or ranging by its efficiency.

    Thresholds are quantiles of the training rows, those of direction taken over rows that are not
    volatile. A switch that is on goes off at a lower threshold than the one that turned it on. The
    probabilities say how far the observation is from changing the call (softmax of minus distance, see
    ``regimes.kernels.hysteresis``): a measure of distance, not a calibrated frequency.
    Row t uses rows up to and including t.

    Parameters
    ----------
    config : VolatilityConfig
        Defaults if not given.
    """

    Config = VolatilityConfig

    def __init__(self, config: VolatilityConfig | None = None) -> None:
        self.config = config or VolatilityConfig()
        self.columns = (self.config.volatility_column, self.config.direction_column)
        self.warmup = self.config.baseline_bars
        self.fitted_until: int | None = None
        self._observer = Observer(self.columns[:1], self.columns[1:], self.config.baseline_bars, PLACE)
        self._enter = self._leave = np.zeros(2)
        self.chain = np.full((len(REGIME_NAMES),) * 2, 1 / len(REGIME_NAMES))
        self._memory = np.full(5, np.nan)

    def fit(self, features: Table) -> Self:
        """Learn the thresholds from training rows and return self.

        Raises
        ------
        DataError
            If there are fewer than 200 known rows, or a column does not vary.
        """
        config = self.config
        self._observer.fit(features, MIN_ROWS)
        seen = self._observer.fresh().update(features)
        volatility, direction = seen[~np.isnan(seen[:, 0])].T
        volatile = np.quantile(volatility, (config.volatile_enter, config.volatile_leave))
        calm = direction[volatility < volatile[0]]
        trending = np.quantile(calm, (config.trending_enter, config.trending_leave))
        self._enter, self._leave = np.column_stack([volatile, trending])
        self._memory = np.full(5, np.nan)
        self.fitted_until = int(features.time[-1])
        self.chain = chain_of_labels(self.fresh().update(features))
        return self

    def fresh(self) -> Self:
        """Return the same thresholds with empty memory."""
        other = type(self)(self.config)
        other._observer = self._observer.fresh()
        other._enter, other._leave, other.fitted_until = self._enter, self._leave, self.fitted_until
        other.chain = self.chain
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return one row per row: NaN before the first known row, unknown rows repeat the row before."""
        require_fitted(self, PLACE)
        out = np.empty((len(features), len(REGIME_NAMES)))
        seen = self._observer.update(features)
        hysteresis(seen, self._enter, self._leave, self.config.sharpness, self._memory, out)
        return RegimeProbabilities(features.time, out, REGIME_NAMES)

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, as JSON."""
        parameters = {
            **self._observer.parameters(),
            "enter": self._enter,
            "leave": self._leave,
            "chain": self.chain,
        }
        save_detector(folder, "volatility", self, parameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If the file is missing or damaged.
        """
        saved = saved_detector(folder, "volatility")
        detector = cls(validate(VolatilityConfig, saved.config, str(saved.path)))
        detector._observer = detector._observer.restored(saved.array)
        detector._enter, detector._leave = saved.array("enter", (2,)), saved.array("leave", (2,))
        chain = saved.array("chain", (len(REGIME_NAMES),) * 2)
        detector.chain = check_chain(chain, f"{saved.path}: parameters.chain")
        detector.fitted_until = saved.fitted_until
        return detector

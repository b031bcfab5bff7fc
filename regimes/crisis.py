"""``crisis``: a fourth regime beside those of another detector, for the days on which markets break.

Crises are too rare to be learned as a hidden state: a year of hourly bars may hold none. They are therefore
a rule, and an extreme one, laid over a detector that tells the three regimes apart.
"""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config, PluginConfig, validate
from market.table import DataError, Table
from regimes.chain import chain_of_labels, check_chain
from regimes.detector import (
    DETECTORS,
    load_detector,
    require_fitted,
    save_detector,
    saved_detector,
)
from regimes.kernels import switch
from regimes.observations import Observer
from regimes.regime import CRISIS_NAMES, RegimeProbabilities

PLACE = "detector crisis"
MIN_ROWS = 1000
BASE = "base"  # folder of the detector below, within that of the crisis detector


class CrisisConfig(Config):
    """Whose regimes are taken over, and from when on they are a crisis."""

    base: PluginConfig = Field(
        PluginConfig(name="markov_ar"),
        description="The detector of the other three regimes, with its settings.",
    )
    volatility_column: str = Field("parkinson_24", description="Positive level of volatility.")
    fall_column: str = Field("return_72", description="Return over some days; its fall adds to the stress.")
    baseline_bars: int = Field(
        4320, ge=0, le=100_000, description="The level is relative to its mean over these bars; 0: absolute."
    )
    enter: float = Field(
        0.98, gt=0.5, lt=1, description="Quantile of the training rows' stress at which a crisis begins."
    )
    leave: float = Field(0.93, gt=0.5, lt=1, description="Quantile below which it is over.")
    sharpness: float = Field(
        3.0, gt=0, le=100, description="Certainty per standard deviation of distance from a threshold."
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.base.name == "crisis":
            raise ValueError("base is crisis itself; it must be a detector of the three regimes")
        if self.leave > self.enter:
            raise ValueError(f"leave is {self.leave}; it must not lie above enter, {self.enter}")
        return self


@DETECTORS.register("crisis")
class CrisisDetector:
    """Takes the regimes of another detector, and calls the most stressed bars a crisis.

    Stress is the sum of how high volatility stands above its half year and how far the price has fallen in
    three days, both in standard deviations of the training rows; a rise adds nothing. A crisis begins at a
    high quantile of the training rows' stress and ends at a lower one. What probability it takes is taken
    from the other regimes in proportion. Row t uses rows up to and including t.

    Attributes
    ----------
    base : Detector
        The detector of the other three regimes; fitted on the same rows.

    Parameters
    ----------
    config : CrisisConfig
        Defaults if not given.
    """

    Config = CrisisConfig

    def __init__(self, config: CrisisConfig | None = None) -> None:
        self.config = config or CrisisConfig()
        self.base = DETECTORS.create(self.config.base.name, self.config.base.settings)
        own = (self.config.volatility_column, self.config.fall_column)
        self._observer = Observer(own[:1], own[1:], self.config.baseline_bars, PLACE)
        self.columns = tuple(dict.fromkeys((*self.base.columns, *own)))
        self.warmup = max(self.base.warmup, self.config.baseline_bars)
        self.fitted_until: int | None = None
        self.chain = np.full((len(CRISIS_NAMES),) * 2, 1 / len(CRISIS_NAMES))
        self._thresholds = np.zeros(2)
        self._memory = np.full(2, np.nan)

    def fit(self, features: Table) -> Self:
        """Learn the other detector and the thresholds from training rows, and return self.

        Raises
        ------
        DataError
            If there are too few known rows, a column does not vary, or the other detector refuses.
        """
        self._observer.fit(features, MIN_ROWS)
        self.base.fit(features)
        stress = _stress(self._observer.fresh().update(features))
        known = stress[~np.isnan(stress)]
        self._thresholds = np.quantile(known, (self.config.enter, self.config.leave))
        self.fitted_until = int(features.time[-1])
        self._forget()
        self.chain = chain_of_labels(self.fresh().update(features))
        return self

    def _forget(self) -> None:
        self.base, self._observer = self.base.fresh(), self._observer.fresh()
        self._memory = np.full(2, np.nan)
        self.warmup = max(self.base.warmup, self.config.baseline_bars)

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        other.__dict__.update(self.__dict__)
        other._forget()
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return one row per row, NaN before the first known one; no crisis before its columns are known."""
        require_fitted(self, PLACE)
        stress = _stress(self._observer.update(features))
        crisis = np.empty(len(features))
        enter, leave = self._thresholds
        switch(stress, enter, leave, self.config.sharpness, self._memory, crisis)
        crisis = np.nan_to_num(crisis)[:, None]
        others = self.base.update(features).values
        return RegimeProbabilities(
            features.time, np.hstack([others * (1 - crisis), crisis + 0 * others[:, :1]]), CRISIS_NAMES
        )

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, the other one into a folder within it."""
        require_fitted(self, PLACE)
        self.base.save(Path(folder) / BASE)
        learned = {"thresholds": self._thresholds, "chain": self.chain}
        save_detector(folder, "crisis", self, {**self._observer.parameters(), **learned})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If a file is missing or damaged.
        """
        saved = saved_detector(folder, "crisis")
        detector = cls(validate(CrisisConfig, saved.config, str(saved.path)))
        base = load_detector(Path(folder) / BASE)
        if type(base) is not type(detector.base):
            raise DataError(
                f"{folder}/{BASE}: holds another detector than {detector.config.base.name}, which "
                f"{saved.path} names"
            )
        detector.base, detector._observer = base, detector._observer.restored(saved.array)
        detector._thresholds = saved.array("thresholds", (2,))
        if detector._thresholds[1] > detector._thresholds[0]:
            raise DataError(
                f"{saved.path}: parameters.thresholds are {detector._thresholds.tolist()}; they must fall"
            )
        chain = saved.array("chain", (len(CRISIS_NAMES),) * 2)
        detector.chain = check_chain(chain, f"{saved.path}: parameters.chain")
        detector.fitted_until = saved.fitted_until
        detector._forget()
        return detector


def _stress(observations: np.ndarray) -> np.ndarray:
    # Standard deviations of volatility above its mean, and of the fall; float64 (n,).
    return observations[:, 0] + np.maximum(-observations[:, 1], 0.0)

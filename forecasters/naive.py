"""Baselines that take no skill: who cannot beat them has learned nothing.

The first two count examples as they are, without weights: what is frequent is what they believe in.
"""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from configs.load import Config
from forecasters.array_forecaster import ArrayForecaster, class_shares, linear, multinomial, softmax
from forecasters.forecaster import FORECASTERS, N_CLASSES, Forecaster, Told, read_forecaster, write_forecaster
from forecasters.windows import Examples
from market.table import DataError

#: A rule that is right no more often than chance still says what it says: just over a third.
LEAST_HIT_RATE = 0.34


@FORECASTERS.register("majority", family="naive")
class Majority(Forecaster):
    """Answers every row with the shares of the classes among the training examples."""

    calibrated = False
    shares: np.ndarray

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Count."""
        self.shares = class_shares(train.target)
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return the same shares for each row."""
        return np.tile(self.shares, (len(windows), 1))

    def save(self, folder: Path) -> None:
        """Write the shares."""
        write_forecaster(folder, "majority", self.config, {"shares": self.shares.tolist()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one."""
        saved = read_forecaster(folder, "majority")
        found = cls(saved.config(cls.Config))
        found.shares = saved.array("shares", (N_CLASSES,))
        return found


class ColumnConfig(Config):
    """Settings of a baseline that reads one column."""

    column: str = Field("return_1", description="Feature column: the latest return.")


def place_of(column: str, names: tuple[str, ...], forecaster: str) -> int:
    """Return the position of a column; :class:`market.table.DataError` if it is not there."""
    if column not in names:
        raise DataError(
            f"forecaster {forecaster}: there is no feature column {column!r} that varies; name "
            f"another as its setting column, for example {names[0]}"
        )
    return names.index(column)


@FORECASTERS.register("last_sign", family="naive")
class LastSign(Forecaster):
    """Foretells that the latest return goes on: up after a rise, down after a fall.

    A rise is a return above the median of the training rows (scaled columns are centered on it). The class
    of the sign has the share of training examples in which it was right as its probability.
    """

    Config = ColumnConfig
    calibrated = False
    place: int
    hit_rate: float

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Count how often the sign was right."""
        self.place = place_of(self.config.column, train.names, "last_sign")
        hits = train.target == self._classes(train.tabular()[:, self.place])
        self.hit_rate = float(np.clip(hits.mean() if hits.size else 0.0, LEAST_HIT_RATE, 0.99))
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return the hit rate for the class of the latest sign, the rest in equal parts for the others."""
        found = np.full((len(windows), N_CLASSES), (1.0 - self.hit_rate) / (N_CLASSES - 1))
        found[np.arange(len(windows)), self._classes(windows[:, -1, self.place])] = self.hit_rate
        return found

    def save(self, folder: Path) -> None:
        """Write the hit rate."""
        state = {"place": self.place, "hit_rate": self.hit_rate}
        write_forecaster(folder, "last_sign", self.config, state)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one."""
        saved = read_forecaster(folder, "last_sign")
        found = cls(saved.config(cls.Config))
        found.place, found.hit_rate = int(saved.array("place", ())), float(saved.array("hit_rate", ()))
        return found

    @staticmethod
    def _classes(column: np.ndarray) -> np.ndarray:
        return (np.sign(column) + 1).astype(np.int8)


@FORECASTERS.register("ar1", family="naive")
class Ar1(ArrayForecaster):
    """The latest return foretells the next one: a logistic regression on that column alone."""

    Config = ColumnConfig
    name = "ar1"
    parts = ("place", "coefficients", "intercept")
    place: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Fit; nothing is random, and validation is not looked at."""
        self.place = np.array(place_of(self.config.column, train.names, self.name))
        x = train.tabular()[:, [int(self.place)]]
        self.coefficients, self.intercept = multinomial(x, train.target, train.weight, 1.0, 300)
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        return softmax(linear(windows[:, -1, [int(self.place)]], self.coefficients, self.intercept))

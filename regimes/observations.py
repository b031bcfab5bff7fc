"""What a detector observes: feature columns made relative and standardised, causally.

A volatility of one percent per hour was calm in 2018 and wild in 2023. Levels are therefore compared
with their own recent past before anything is fitted, so that "volatile" keeps its meaning over years.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np

from market.table import DataError, Table
from regimes.detector import select_columns
from regimes.kernels import observe
from regimes.season import N_SEASON, hours_of_week, learned_season, seasonal

LEVEL_FLOOR = 1e-7  # per bar; far below any traded market, it only keeps the log finite
CLIP = 5.0  # standard deviations; one flash crash must not decide alone


class Observer:
    """Feature rows in, standardised observations out; row t uses rows up to and including t.

    Parameters
    ----------
    level_columns : sequence of str
        Positive levels, for example ``parkinson_24``: logged, then relative to their recent mean.
    plain_columns : sequence of str
        Columns used as they are.
    baseline_bars : int
        Rows of the recent mean; 0 keeps the levels absolute. Until so many rows have passed, the
        missing ones count as the mean of the training rows.
    place : str
        What to call the detector in messages.
    magnitude_columns : sequence of str
        Columns used without their sign.
    seasonal : bool
        Whether levels are divided by what is usual at their hour of the week.
    """

    def __init__(
        self,
        level_columns: Sequence[str],
        plain_columns: Sequence[str],
        baseline_bars: int,
        place: str,
        magnitude_columns: Sequence[str] = (),
        seasonal: bool = False,
    ) -> None:
        self.columns = (*level_columns, *plain_columns, *magnitude_columns)
        self.n_levels = len(level_columns)
        self.n_magnitudes = len(magnitude_columns)
        self.baseline_bars = baseline_bars
        self.place = place
        self.seasonal = seasonal
        self.base = np.zeros(self.n_levels)
        self.season, self.center = np.zeros((N_SEASON, self.n_levels)), np.zeros(N_SEASON)
        self._standard(np.zeros(len(self.columns)), np.ones(len(self.columns)))

    def _standard(self, location: np.ndarray, scale: np.ndarray) -> None:
        self.location, self.scale = location, scale
        self._ring = np.tile(self.base, (self.baseline_bars, 1))
        self._memory = np.append(self.base * self.baseline_bars, 0.0)

    def fit(self, features: Table, min_rows: int) -> Self:
        """Learn location and scale from training rows.

        Raises
        ------
        DataError
            If fewer than ``min_rows`` rows are known, or a column does not vary.
        """
        values = select_columns(features, self.columns, self.place)
        known = np.isfinite(values).all(axis=1)
        if known.sum() < min_rows:
            raise DataError(
                f"{self.place}: {known.sum()} of {len(features)} training rows are known in all of "
                f"{', '.join(self.columns)}; fitting needs at least {min_rows}"
            )
        levels = np.log(np.maximum(values[known, : self.n_levels], LEVEL_FLOOR))
        if self.seasonal:
            self.season, self.center = learned_season(features.time[known], levels)
            levels = levels - self._usual(features.time[known])
        self.base = levels.mean(axis=0)
        self._standard(np.zeros(len(self.columns)), np.ones(len(self.columns)))
        seen = self.update(features, clip=np.inf)[known]
        location, scale = seen.mean(axis=0), seen.std(axis=0)
        flat = scale <= 1e-9 * np.maximum(1.0, np.abs(location))
        if flat.any():
            raise DataError(
                f"{self.place}: column {self.columns[int(np.argmax(flat))]} does not vary over the training "
                f"rows; a regime cannot be learned from it"
            )
        self._standard(location, scale)
        return self

    def fresh(self) -> Self:
        """Return the same parameters with empty memory."""
        return self.with_parameters(self.parameters())

    def update(self, features: Table, clip: float = CLIP) -> np.ndarray:
        """Return observations float64 (n, f); a row with an unknown column is NaN throughout."""
        values = select_columns(features, self.columns, self.place)
        if self.seasonal or self.n_magnitudes:
            values = values.copy()
            magnitudes = values[:, values.shape[1] - self.n_magnitudes :]
            np.abs(magnitudes, out=magnitudes)
            if self.seasonal:
                values[:, : self.n_levels] *= np.exp(-self._usual(features.time))
        out = np.empty(values.shape)
        observe(values, self.location, self.scale, LEVEL_FLOOR, clip, self._ring, self._memory, out)
        return out

    def _usual(self, time: np.ndarray) -> np.ndarray:
        # Log levels that are usual at these times, float64 (n, c); summed in a fixed order, so that a row
        # does not depend on how many rows are asked for.
        return seasonal(hours_of_week(time) - self.center, self.season)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return what was learned, by the names in :meth:`shapes`."""
        learned = {"base": self.base, "location": self.location, "scale": self.scale}
        return learned | ({"season": self.season, "center": self.center} if self.seasonal else {})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array in :meth:`parameters`."""
        n_columns = len(self.columns)
        shapes = {"base": (self.n_levels,), "location": (n_columns,), "scale": (n_columns,)}
        if self.seasonal:
            shapes |= {"season": (N_SEASON, self.n_levels), "center": (N_SEASON,)}
        return shapes

    def restored(self, array: Callable[[str, tuple[int, ...]], np.ndarray]) -> Self:
        """Return an observer with saved parameters; ``array(name, shape)`` reads one of them."""
        return self.with_parameters({name: array(name, shape) for name, shape in self.shapes().items()})

    def with_parameters(self, parameters: Mapping[str, np.ndarray]) -> Self:
        """Return an observer of the same columns with given parameters and empty memory."""
        plain, magnitudes = self.n_levels, len(self.columns) - self.n_magnitudes
        other = type(self)(
            self.columns[:plain],
            self.columns[plain:magnitudes],
            self.baseline_bars,
            self.place,
            self.columns[magnitudes:],
            self.seasonal,
        )
        other.base = parameters["base"]
        if self.seasonal:
            other.season, other.center = parameters["season"], parameters["center"]
        other._standard(parameters["location"], parameters["scale"])
        return other

"""A fitted forecaster with all that was fitted beside it: scaler, calibration, and until when it has seen.

Everything that a row meets on its way to an answer is in one folder, so that nothing can be combined with
what was fitted on other rows. The answer to a row that taught it is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from forecasters.calibration import Calibration
from forecasters.forecaster import Forecaster, checked, load_forecaster, saved_name
from forecasters.measures import with_thresholds
from forecasters.quantiles import checked_quantiles
from forecasters.windows import CLASSES, Examples, examples_of
from market.saved import read_saved, write_saved
from market.scaling import Scaler
from market.table import DataError, Table, utc

FORMAT = 1
DOCUMENT, SCALER, MODEL = "fitted.json", "scaler.json", "model"
#: Windows that are gathered at once.
BATCH = 4096


@dataclass(frozen=True, eq=False)
class FittedForecaster:
    """A forecaster that can answer raw feature rows.

    Parameters
    ----------
    forecaster : Forecaster
    scaler : Scaler
        Of the columns that the forecaster reads.
    calibration : Calibration
    prior : tuple of float (3,) or None
        Class shares of the validation rows, against which a class is decided; None: the most likely class is.
    trained_through : int
        Time up to which something was known that had any influence: rows, labels, validation. Nanoseconds.
    interval_ns : int
        Length of a bar.
    label : str
        What is foretold, for example ``triple_barrier_4h``.
    feature_version : str
        Of the feature pipeline.
    thresholds : tuple of float (2,)
        By how much the probabilities of down and up must exceed their share before they are decided.
    """

    forecaster: Forecaster
    scaler: Scaler
    calibration: Calibration
    prior: tuple[float, ...] | None
    trained_through: int
    interval_ns: int
    label: str
    feature_version: str
    thresholds: tuple[float, float] = (0.0, 0.0)

    def answers(self, features: Table, rows: slice) -> np.ndarray:
        """Return calibrated probabilities of rows, float64 (j, 3); NaN where a row has no whole window.

        Parameters
        ----------
        features : Table
            Unscaled, up to the last of the rows at least; what comes later is not looked at.
        rows : slice

        Raises
        ------
        DataError
            If one of the rows is no later than what the forecaster has seen, or the features are computed in
            another way than those it was fitted on.
        """
        found = self._examples(features, rows)
        return over(rows, found, self.of_examples(found))

    def quantiles(self, features: Table, rows: slice) -> np.ndarray | None:
        """Return quantiles of the label's return, float64 (j, q), or None where the forecaster has none.

        Parameters and errors are those of :meth:`answers`; the levels are ``forecaster.levels``.
        """
        found = self._examples(features, rows)
        quantiles = raw_quantiles(self.forecaster, found)
        return None if quantiles is None else over(rows, found, quantiles)

    def _examples(self, features: Table, rows: slice) -> Examples:
        version = getattr(features, "version", self.feature_version)
        if version != self.feature_version:
            raise DataError(
                f"the forecaster was fitted on features {self.feature_version}; these are {version}"
            )
        self.require_unseen(features.time[rows])
        table, lookback = features[: rows.stop], self.forecaster.lookback
        return examples_of(table, None, rows, lookback, self.scaler, interval_ns=self.interval_ns)

    def of_examples(self, examples: Examples) -> np.ndarray:
        """Return calibrated probabilities of scaled examples, float64 (m, 3)."""
        return self.calibration.apply(raw_answers(self.forecaster, examples))

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the class of each row, int8 (m,)."""
        prior = None if self.prior is None else np.array(self.prior)
        return with_thresholds(probabilities, prior, self.thresholds)

    def require_unseen(self, time: np.ndarray) -> None:
        """Refuse times that are not after everything that has been seen."""
        if time.size and int(time[0]) <= self.trained_through:
            raise DataError(
                f"the forecaster has seen what was known at {utc(self.trained_through)}; the row at "
                f"{utc(time[0])} is not out of sample"
            )

    def save(self, folder: str | Path) -> None:
        """Write everything into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.forecaster.save(folder / MODEL)
        self.scaler.save(folder / SCALER)
        document = {
            "format": FORMAT,
            "forecaster": saved_name(folder / MODEL),
            "calibration": self.calibration.document(),
            "prior": None if self.prior is None else list(self.prior),
            "trained_through": int(self.trained_through),
            "interval_ns": int(self.interval_ns),
            "label": self.label,
            "feature_version": self.feature_version,
            "thresholds": list(self.thresholds),
        }
        write_saved(folder / DOCUMENT, document)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return what was saved.

        Raises
        ------
        DataError
            If a file is missing, or is not what it must be.
        """
        folder = Path(folder)
        path = folder / DOCUMENT
        types = {
            "format": int, "forecaster": str, "calibration": dict, "prior": (list, type(None)),
            "trained_through": int, "interval_ns": int, "label": str, "feature_version": str,
            "thresholds": list,
        }  # fmt: skip
        document = read_saved(path, "fitted forecaster", types)
        if document["format"] != FORMAT:
            raise DataError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
        if saved_name(folder / MODEL) != document["forecaster"]:
            raise DataError(f"{path}: belongs to another forecaster than the one in {folder / MODEL}")
        prior = document["prior"]
        if prior is not None and not (
            len(prior) == len(CLASSES)
            and all(isinstance(one, float | int) and 0.0 < one <= 1.0 for one in prior)
        ):
            raise DataError(f"{path}: prior is {prior}; it must hold the shares of three classes")
        thresholds = document["thresholds"]
        sound = [isinstance(one, float | int) and 0 <= one <= 1 for one in thresholds]
        if len(thresholds) != 2 or not all(sound):
            raise DataError(f"{path}: thresholds is {thresholds}; it must be those of down and up, 0..1")
        return cls(
            load_forecaster(folder / MODEL),
            Scaler.load(folder / SCALER),
            Calibration.of_document(document["calibration"], str(path)),
            None if prior is None else tuple(prior),
            document["trained_through"],
            document["interval_ns"],
            document["label"],
            document["feature_version"],
            tuple(thresholds),
        )


def raw_answers(forecaster: Forecaster, examples: Examples) -> np.ndarray:
    """Return the answers of a forecaster before calibration, float64 (m, 3), a batch of windows at a time."""
    found = np.empty((len(examples), len(CLASSES)))
    for start in range(0, len(examples), BATCH):
        some = examples.windows(slice(start, start + BATCH))
        found[start : start + BATCH] = checked(forecaster.predict(some), len(some), type(forecaster).__name__)
    return found


def raw_quantiles(forecaster: Forecaster, examples: Examples) -> np.ndarray | None:
    """Return the quantiles of a forecaster, float64 (m, q), in batches as the answers; None without any."""
    levels = forecaster.levels
    if not levels:
        return None
    found = np.empty((len(examples), len(levels)))
    for start in range(0, len(examples), BATCH):
        some = examples.windows(slice(start, start + BATCH))
        answered = forecaster.quantiles(some)
        found[start : start + BATCH] = checked_quantiles(
            answered, len(some), levels, type(forecaster).__name__
        )
    return found


def over(rows: slice, examples: Examples, answers: np.ndarray) -> np.ndarray:
    """Return the answers to examples as float64 (j, …), one per row; NaN where a row is no example."""
    found = np.full((rows.stop - rows.start, *answers.shape[1:]), np.nan)
    found[examples.rows - rows.start] = answers
    return found

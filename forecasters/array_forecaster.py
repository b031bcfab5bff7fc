"""Forecasters whose fitted parameters are arrays: how they are kept, and the arithmetic they share.

What scikit-learn has fitted is kept as arrays and not as its objects: those can only be pickled, and a pickle
runs code when it is read.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from forecasters.forecaster import N_CLASSES, Forecaster, read_forecaster, write_forecaster
from market.table import DataError

ARRAYS = "arrays.npz"


class ArrayForecaster(Forecaster):
    """A forecaster whose fitted parameters are arrays, kept in one NPZ file."""

    name: str
    #: Names of the arrays.
    parts: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write the arrays, without pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / ARRAYS, **{part: getattr(self, part) for part in self.parts})
        write_forecaster(folder, self.name, self.config, files=(ARRAYS,))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one; it answers to the bit as the saved one did."""
        saved = read_forecaster(folder, cls.name)
        found = cls(saved.config(cls.Config))
        path = Path(folder) / ARRAYS
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for part in cls.parts:
                    setattr(found, part, arrays[part])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: does not hold the arrays of {cls.name} ({error})") from error
        return found


def class_shares(target: np.ndarray) -> np.ndarray:
    """Return the share of each class, float64 (3,), one example of each added: none is impossible."""
    counts = np.bincount(target, minlength=N_CLASSES) + 1.0
    return counts / counts.sum()


def multinomial(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray | None, penalty: float, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (3, k) and intercepts (3,) of a multinomial logistic regression.

    A class that is not among the targets is improbable and stays so: its intercept is far below the others.
    """
    from sklearn.linear_model import LogisticRegression

    coefficients, intercept = np.zeros((N_CLASSES, x.shape[1])), np.log(class_shares(target))
    classes = np.unique(target)
    if classes.size < 2:
        return coefficients, intercept
    model = LogisticRegression(C=1.0 / penalty, max_iter=iterations, tol=1e-5)
    with quiet_about_steps():
        model.fit(x.astype(np.float64), target, weight)
    if classes.size == 2:  # the library keeps the coefficients of the second against the first alone
        half_slope, half_level = model.coef_[0] / 2.0, model.intercept_[0] / 2.0
        coefficients[classes] = -half_slope, half_slope
        intercept[:] = intercept.min() - 5.0
        intercept[classes] = -half_level, half_level
    else:
        coefficients[classes], intercept[classes] = model.coef_, model.intercept_
    return coefficients, intercept


def linear(x: np.ndarray, coefficients: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Return float64 (m, j) = x (m, k) times coefficients (j, k), plus intercepts."""
    # Not by a matrix product: its sums depend on how many rows there are, to a bit in the end.
    return np.einsum("mk,jk->mj", x.astype(np.float64), coefficients) + intercept


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return scores (m, j) as probabilities."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def shares(values: np.ndarray) -> np.ndarray:
    """Return values of 0 or more divided by their sum; all the same where the sum is 0."""
    total = values.sum()
    return values / total if total > 0.0 else np.full(values.size, 1.0 / max(values.size, 1))


@contextmanager
def quiet_about_steps() -> Iterator[None]:
    """Let a solver end when it runs out of steps: what counts is how it answers rows that it never saw."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield

"""Calibration: of the rows that were given 60 percent, 60 percent should come true.

A model that learned with class weights believes in a world in which all classes are equally frequent, and
boosted trees are too sure of themselves. Both are corrected by what validation rows say, weighted by
uniqueness and not by class: the result speaks of classes as frequent as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from forecasters.windows import CLASSES
from market.table import DataError

Kind = Literal["none", "temperature", "bias_corrected", "isotonic"]
#: Probabilities below this read as this: a logarithm has to be taken of them.
LEAST = 1e-6
#: Fewer validation rows than this say too little, and the probabilities stay as they are.
LEAST_ROWS = 30
#: Strength with which the few parameters are held to no change at all, in rows of weight 1.
_HOLD = 1.0
_N = len(CLASSES)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map from probabilities to probabilities, fitted on validation rows.

    Parameters
    ----------
    kind : str
        ``none``; ``temperature``: logarithms divided by one number; ``bias_corrected``: that, and a number
        added for each class; ``isotonic``: a rising step curve for each class, then divided by the sum.
    temperature : float
        Above 1: the model was too sure.
    bias : tuple of float (3,)
    curves : tuple of pairs of float64 arrays
        Of each class: probabilities before, increasing, and after. Between them it is interpolated.

    Source: Guo et al. (2017), "On calibration of modern neural networks"; Alexandari, Kundaje and Shrikumar
    (2020), "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift adaptation";
    Zadrozny and Elkan (2002), "Transforming classifier scores into accurate multiclass probability
    estimates".
    """

    kind: Kind = "none"
    temperature: float = 1.0
    bias: tuple[float, ...] = (0.0,) * _N
    curves: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @classmethod
    def fit(cls, kind: Kind, probabilities: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Self:
        """Return the calibration of validation rows.

        Parameters
        ----------
        kind : str
        probabilities : float64 (m, 3)
        target : int8 (m,)
            Classes.
        weight : float64 (m,)
            0 or more: uniqueness.
        """
        if kind == "none" or len(target) < LEAST_ROWS or weight.sum() <= 0.0:
            return cls()
        weight = weight / weight.mean()
        if kind == "isotonic":
            return cls(kind, curves=_curves(probabilities, target, weight))
        temperature, bias = _scaled(probabilities, target, weight, biased=kind == "bias_corrected")
        return cls(kind, temperature, bias)

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 (m, 3) with the sum 1; what is NaN stays so."""
        if self.kind == "none":
            return probabilities
        if self.kind == "isotonic":
            columns = [np.interp(probabilities[:, i], *curve) for i, curve in enumerate(self.curves)]
            found = np.maximum(np.column_stack(columns), LEAST)
        else:
            scores = np.log(np.maximum(probabilities, LEAST)) / self.temperature + np.array(self.bias)
            found = np.exp(scores - scores.max(axis=1, keepdims=True))
        return found / found.sum(axis=1, keepdims=True)

    def document(self) -> dict[str, Any]:
        """Return it as plain objects."""
        curves = [[before.tolist(), after.tolist()] for before, after in self.curves]
        return {
            "kind": self.kind, "temperature": self.temperature, "bias": list(self.bias), "curves": curves,
        }  # fmt: skip

    @classmethod
    def of_document(cls, document: Mapping[str, Any], place: str) -> Self:
        """Return what :meth:`document` gave.

        Raises
        ------
        DataError
            If it is no such thing.
        """
        try:
            kind, temperature = document["kind"], float(document["temperature"])
            bias = tuple(float(one) for one in document["bias"])
            curves = tuple(
                (np.array(before, np.float64), np.array(after, np.float64))
                for before, after in document["curves"]
            )
            whole = (
                kind in ("none", "temperature", "bias_corrected", "isotonic")
                and 0.0 < temperature < np.inf
                and len(bias) == _N
                and np.isfinite(bias).all()
                and len(curves) == (_N if kind == "isotonic" else 0)
                and all(a.ndim == 1 and a.shape == b.shape and a.size for a, b in curves)
                and all(np.isfinite(a).all() and np.isfinite(b).all() for a, b in curves)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{place}: holds no calibration ({error})") from error
        if not whole:
            raise DataError(f"{place}: holds no calibration")
        return cls(kind, temperature, bias, curves)


def _scaled(
    probabilities: np.ndarray, target: np.ndarray, weight: np.ndarray, biased: bool
) -> tuple[float, tuple[float, ...]]:
    from scipy.optimize import minimize

    logs = np.log(np.maximum(probabilities, LEAST))
    rows, m = np.arange(len(target)), len(target)
    truth = np.eye(_N)[target]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        # Of the logarithm of the inverse temperature, so that it stays positive, and of the biases.
        inverse, bias = np.exp(parameters[0]), parameters[1:] if biased else np.zeros(_N)
        scores = inverse * logs + bias
        scores = scores - scores.max(axis=1, keepdims=True)
        powers = np.exp(scores)
        total = powers.sum(axis=1)
        value = (weight * (np.log(total) - scores[rows, target])).sum() + _HOLD * (parameters**2).sum()
        off = weight[:, None] * (powers / total[:, None] - truth)
        slope = np.empty_like(parameters)
        slope[0] = inverse * (off * logs).sum()
        slope[1:] = off.sum(axis=0) if biased else 0.0
        return value / m, (slope + 2.0 * _HOLD * parameters) / m

    found = minimize(loss, np.zeros(1 + (_N if biased else 0)), jac=True, method="L-BFGS-B").x
    bias = tuple(float(one) for one in found[1:]) if biased else (0.0,) * _N
    return float(np.exp(-found[0])), bias


def _curves(
    probabilities: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    from sklearn.isotonic import IsotonicRegression

    curves = []
    for one in range(_N):
        curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        curve.fit(probabilities[:, one], target == one, weight)
        curves.append((curve.X_thresholds_.astype(np.float64), curve.y_thresholds_.astype(np.float64)))
    return tuple(curves)

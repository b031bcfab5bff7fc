"""What a regime detector is, how its hidden states get their names, and how it is kept on disk.

A detector is a stage with a ``fit``: ``fit`` learns from the rows it is given and no others, ``update``
filters. Nothing here can smooth: looking at a state with hindsight is the profession of
``regimes.hindsight``, which decisions never import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from configs.load import did_you_mean
from configs.registry import Registry
from market.saved import read_saved, write_saved
from market.table import DataError, Table, utc
from regimes.regime import REGIME_NAMES, Regime, RegimeProbabilities

FORMAT = 1
FILE = "detector.json"


class Detector(Protocol):
    """Says which regime the market is in, from feature rows.

    Attributes
    ----------
    columns : tuple of str
        The feature columns it reads; others may be present.
    warmup : int
        Rows from the first known one until the output no longer depends on where the rows began. Earlier
        rows are answered too, with what the training rows taught in place of the missing past.
    fitted_until : int or None
        Time of the last row that influenced the parameters, nanoseconds UTC; None before ``fit``.
    chain : float64 (k, k)
        ``chain[i, j]`` = P(regime j at the next bar | regime i at this one), learned from the training rows.
    """

    columns: tuple[str, ...]
    warmup: int
    fitted_until: int | None
    chain: np.ndarray

    def fit(self, features: Table) -> Self:
        """Learn from all the rows given, empty the memory, and return self."""
        ...

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        ...

    def update(self, features: Table) -> RegimeProbabilities:
        """Return filtered probabilities, one row per row; NaN before the first known row."""
        ...

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector, with empty memory."""
        ...


#: Every detector, by the name used in YAML.
DETECTORS: Registry[Detector] = Registry(
    "detector", "regimes", modules=("volatility", "hmm", "markov_ar", "jump", "bocpd", "crisis", "committee")
)


def by_regime(hidden: np.ndarray, regime: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return float64 (n, 3): hidden states (n, k) summed by the regime of each, int (k,)."""
    out = np.zeros((len(hidden), len(REGIME_NAMES)))
    for state, name in enumerate(regime):
        out[:, name] += hidden[:, state]
    return out


def name_states(volatility: Sequence[float], direction: Sequence[float]) -> np.ndarray:
    """Return the regime of each hidden state, from two statistics of the state.

    The state of highest volatility is volatile; of the others, the directed ones are trending and the
    rest ranging. With three states that names one of each. With more, states share a name: volatile are
    those in the upper half of the volatility span, but always so that two others remain; of these,
    trending are those in the upper half of the direction span. Only the statistics count, never the
    order in which a fit happened to number its states.

    Parameters
    ----------
    volatility : float (k,)
        Level of volatility of each state, any increasing scale; k at least 3.
    direction : float (k,)
        How directed the moves of each state are, any increasing scale.

    Returns
    -------
    int8 (k,)
        A :class:`Regime` per state; each regime occurs.
    """
    volatility, direction = np.asarray(volatility, np.float64), np.asarray(direction, np.float64)
    k = volatility.size
    if volatility.shape != direction.shape or k < len(REGIME_NAMES):
        raise ValueError(
            f"volatility has shape {volatility.shape} and direction {direction.shape}; "
            f"naming needs one value of each for at least {len(REGIME_NAMES)} states"
        )
    by_volatility = np.lexsort((direction, volatility))
    middle = (volatility.min() + volatility.max()) / 2
    n_volatile = int(np.clip((volatility > middle).sum(), 1, k - 2))
    regimes = np.full(k, Regime.RANGING, dtype=np.int8)
    regimes[by_volatility[k - n_volatile :]] = Regime.VOLATILE
    calm = by_volatility[: k - n_volatile]
    by_direction = calm[np.lexsort((volatility[calm], direction[calm]))]
    middle = (direction[calm].min() + direction[calm].max()) / 2
    n_trending = int(np.clip((direction[calm] > middle).sum(), 1, calm.size - 1))
    regimes[by_direction[calm.size - n_trending :]] = Regime.TRENDING
    return regimes


def select_columns(features: Table, columns: Sequence[str], place: str) -> np.ndarray:
    """Return the columns a detector reads, float64 (n, f), C-ordered.

    Raises
    ------
    DataError
        If one is missing; the message suggests a name.
    """
    for name in columns:
        if name not in features.names:
            raise DataError(
                f"{place}: there is no feature column {name!r}{did_you_mean(name, list(features.names))}"
            )
    return features.select(columns).values


def require_fitted(detector: Detector, place: str) -> None:
    """Raise ValueError if a detector has no parameters yet."""
    if detector.fitted_until is None:
        raise ValueError(f"{place} is not fitted; call fit(training_rows) or load(folder) before update")


def require_out_of_sample(detector: Detector, time: int) -> None:
    """Refuse to call rows out of sample that the detector's parameters have already seen.

    Parameters
    ----------
    detector : Detector
    time : int
        Time of the first row that is to be judged, nanoseconds UTC.

    Raises
    ------
    DataError
        If the detector is not fitted, or was fitted on this row or later ones.
    """
    if detector.fitted_until is None:
        raise DataError("the detector is not fitted; nothing can be judged with it")
    if detector.fitted_until >= time:
        raise DataError(
            f"the detector was fitted until {utc(detector.fitted_until)}; rows from {utc(time)} on are not "
            f"out of sample, fit it on earlier rows"
        )


def save_detector(folder: Path, name: str, detector: Any, parameters: Mapping[str, Any]) -> None:
    """Write a fitted detector as JSON; floats are written so that they read back to the same bits."""
    require_fitted(detector, f"detector {name}")
    document = {
        "format": FORMAT,
        "detector": name,
        "config": detector.config.model_dump(mode="json"),
        "fitted_until": int(detector.fitted_until),
        "parameters": {key: np.asarray(value).tolist() for key, value in parameters.items()},
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_saved(folder / FILE, document)


@dataclass(frozen=True)
class SavedDetector:
    """What :func:`save_detector` wrote: the file, and its config, ``fitted_until`` and parameters."""

    path: Path
    config: dict
    fitted_until: int
    parameters: dict

    def array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a parameter, float64 of this shape; DataError if it is not there or not finite."""
        try:
            array = np.array(self.parameters[key], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: parameters.{key} is missing or not an array of numbers") from error
        if array.shape != shape or not np.isfinite(array).all():
            raise DataError(
                f"{self.path}: parameters.{key} has shape {array.shape}; it must be finite with shape {shape}"
            )
        return array


def saved_detector(folder: Path, name: str) -> SavedDetector:
    """Return what was saved in a folder.

    Raises
    ------
    DataError
        If the file is missing, cannot be read, or holds another detector.
    """
    path = Path(folder) / FILE
    document = _read(path)
    if document["detector"] != name:
        raise DataError(f"{path}: holds the detector {document['detector']!r}; it must be {name!r}")
    return SavedDetector(path, document["config"], document["fitted_until"], document["parameters"])


def load_detector(folder: Path) -> Detector:
    """Return whichever detector was saved in a folder."""
    return DETECTORS.get(_read(Path(folder) / FILE)["detector"]).load(folder)


def _read(path: Path) -> dict:
    types = {"format": int, "detector": str, "config": dict, "fitted_until": int, "parameters": dict}
    document = read_saved(path, "detector", types)
    if document["format"] != FORMAT:
        raise DataError(f"{path}: has format {document['format']}; this version reads format {FORMAT}")
    return document

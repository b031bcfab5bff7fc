"""``committee``: the calibrated average of several detectors.

Members differ in what they see, so together they can know more than the best of them, if each counts for as
much as it is worth: that is learned from what their probabilities foretell of bars they were not fitted on.
"""

import math
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from configs.load import Config, ConfigError, PluginConfig, validate
from market.table import DataError, Table
from regimes.chain import check_chain
from regimes.detector import (
    DETECTORS,
    Detector,
    load_detector,
    require_fitted,
    save_detector,
    saved_detector,
    select_columns,
)
from regimes.foretelling import fit_laws, log_densities, log_mixture, relative
from regimes.kernels import pool
from regimes.regime import RegimeProbabilities

PLACE = "detector committee"
READS = ("return_1", "range_1")  # what is foretold: the next bar's return and range
MIN_ROWS = 500  # held-out rows that calibration needs
N_ROUNDS = 3  # of fitting the laws to the pool, and the pool to the laws
LIMITS = (-5.0, 5.0)  # of the logs of relative weights
SHYNESS = 1e-5  # nats per row and squared log: equal weights unless the rows object


class CommitteeConfig(Config):
    """Who sits in the committee, and how it learns whom to believe."""

    members: tuple[PluginConfig, ...] = Field(
        (PluginConfig(name="markov_ar"), PluginConfig(name="hmm"), PluginConfig(name="volatility")),
        min_length=2,
        max_length=10,
        description="Names and settings of the detectors; all of them must tell the same regimes.",
    )
    holdout: float = Field(
        0.3,
        gt=0.05,
        lt=0.8,
        description="Share of the training rows, the latest, on which the weights are learned; the members "
        "are fitted on the rows before, and on all of them afterwards.",
    )

    @model_validator(mode="after")
    def _no_nesting(self) -> Self:
        if any(member.name == "committee" for member in self.members):
            raise ValueError("members holds committee; a committee cannot sit in a committee")
        return self


@DETECTORS.register("committee")
class CommitteeDetector:
    """The weighted geometric mean of the probabilities of its members.

    The weights are those under which the mean, carried one bar ahead by the members' chains, foretells
    returns and ranges of held-out training rows best (see ``regimes.foretelling``). An arithmetic mean would
    be less sure than it could be (Ranjan and Gneiting 2010, Journal of the Royal Statistical Society B 72). A
    member to which nothing is known yet has no say. Row t uses rows up to and including t.

    Attributes
    ----------
    members : tuple of Detector (m,)
    weight : float64 (m,)
        Sums to 1.
    gain : float
        Nats per held-out bar that the weighted mean foretells more than the plain one, in sample of the
        weights; NaN for a loaded detector.

    Parameters
    ----------
    config : CommitteeConfig
        Defaults if not given.
    """

    Config = CommitteeConfig

    def __init__(self, config: CommitteeConfig | None = None) -> None:
        self.config = config or CommitteeConfig()
        self.members: tuple[Detector, ...] = tuple(
            DETECTORS.create(member.name, member.settings) for member in self.config.members
        )
        m = len(self.members)
        self.weight, self.gain = np.full(m, 1 / m), math.nan
        columns = [column for member in self.members for column in member.columns]
        self.columns = tuple(dict.fromkeys((*columns, *READS)))
        self.warmup = max(member.warmup for member in self.members)
        self.fitted_until: int | None = None
        self.chain = np.empty((0, 0))

    def fit(self, features: Table) -> Self:
        """Learn whom to believe from the latest training rows, the members from all of them; return self.

        Raises
        ------
        DataError
            If there are too few rows, or a member refuses.
        ConfigError
            If members tell different regimes.
        """
        first = round((1 - self.config.holdout) * len(features))
        values, _ = relative(*select_columns(features, READS, PLACE).T)
        for member in self.members:
            member.fit(features[:first])
        said = [member.update(features) for member in self.members]
        names = {one.names for one in said}
        if len(names) > 1:
            tells = ", ".join(
                f"{m.name} tells {len(p.names)}" for m, p in zip(self.config.members, said, strict=True)
            )
            raise ConfigError(f"{PLACE}: members must tell the same regimes; {tells}")
        opinions = np.stack([one.values for one in said])
        rows = np.arange(max(first, 1), len(features))
        known = np.isfinite(values[rows]).all(axis=1) & np.isfinite(opinions[:, rows - 1]).all(axis=(0, 2))
        rows = rows[known]
        if rows.size < MIN_ROWS:
            raise DataError(
                f"{PLACE}: {rows.size} of the latest {len(features) - first} training rows are known to all "
                f"members; calibration needs at least {MIN_ROWS}"
            )
        chains = np.stack([member.chain for member in self.members])
        opinions = np.ascontiguousarray(opinions[:, rows - 1])
        self.weight, self.gain = _calibrated(opinions, chains, values[rows])
        for member in self.members:
            member.fit(features)
        self.chain = np.tensordot(self.weight, np.stack([member.chain for member in self.members]), 1)
        self.fitted_until = int(features.time[-1])
        self._forget()
        return self

    def _forget(self) -> None:
        self.members = tuple(member.fresh() for member in self.members)
        self.warmup = max(member.warmup for member in self.members)

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        other.__dict__.update(self.__dict__)
        other._forget()
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return one row per row; NaN before the first row that is known to a member."""
        require_fitted(self, PLACE)
        said = [member.update(features) for member in self.members]
        out = np.empty(said[0].values.shape)
        pool(np.stack([one.values for one in said]), self.weight, out)
        return RegimeProbabilities(features.time, out, said[0].names)

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, each member into a folder within it."""
        require_fitted(self, PLACE)
        for place, member in zip(self._places(folder), self.members, strict=True):
            member.save(place)
        save_detector(folder, "committee", self, {"weight": self.weight, "chain": self.chain})

    def _places(self, folder: Path) -> list[Path]:
        return [Path(folder) / f"member_{i}_{one.name}" for i, one in enumerate(self.config.members, 1)]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If a file is missing or damaged.
        """
        saved = saved_detector(folder, "committee")
        detector = cls(validate(CommitteeConfig, saved.config, str(saved.path)))
        m = len(detector.members)
        loaded = [load_detector(place) for place in detector._places(folder)]
        for place, named, one in zip(detector._places(folder), detector.members, loaded, strict=True):
            if type(named) is not type(one):
                raise DataError(f"{place}: holds another detector than its name and {saved.path} say")
        detector.members = tuple(loaded)
        k = len(loaded[0].chain)
        detector.weight = saved.array("weight", (m,))
        if (detector.weight <= 0).any() or abs(detector.weight.sum() - 1) > 1e-9:
            raise DataError(f"{saved.path}: parameters.weight must be positive and sum to 1")
        detector.chain = check_chain(saved.array("chain", (k, k)), f"{saved.path}: parameters.chain")
        detector.fitted_until = saved.fitted_until
        detector._forget()
        return detector


def _calibrated(opinions: np.ndarray, chains: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    # Weights (m,) under which the pool of opinions (m, n, k) foretells the next values (n, 2) best, and the
    # gain over equal weights in nats per row.
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    m, n, k = opinions.shape
    point = np.zeros(m)  # logs, relative to the first member's
    ahead = np.empty((n, k))

    def pooled(point: np.ndarray) -> np.ndarray:
        weight = _shares(point)
        pool(opinions, weight, ahead)
        return ahead @ np.tensordot(weight, chains, 1)

    def likelihood(point: np.ndarray, densities: list[np.ndarray]) -> float:
        mean = pooled(point)
        return float(sum(log_mixture(one, mean).mean() for one in densities))

    with threadpool_limits(1):  # BLAS splits sums by threads, and a fit must not depend on their number
        for _ in range(N_ROUNDS):
            mean = pooled(point)
            densities = [log_densities(column, fit_laws(column, mean)) for column in values.T]

            def objective(point: np.ndarray, densities: list[np.ndarray] = densities) -> float:
                return SHYNESS * float((point**2).sum()) - likelihood(point, densities)

            bounds = [(0.0, 0.0), *([LIMITS] * (m - 1))]
            point = minimize(objective, point, method="L-BFGS-B", bounds=bounds).x
        gain = likelihood(point, densities) - likelihood(np.zeros(m), densities)
    return _shares(point), gain


def _shares(point: np.ndarray) -> np.ndarray:
    weight = np.exp(point)
    return weight / weight.sum()

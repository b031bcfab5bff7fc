"""A specialist: one genome of a family, for one regime, as a stage that emits targets."""

import hashlib
import json
from pathlib import Path
from typing import Self

import numpy as np

from backtest.kernels import SHADOW
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS
from configs.load import validate
from ga.space import Genome
from market.bars import Bars
from market.saved import write_saved
from market.scaling import Scaler
from market.table import DataError, Table, same_rows
from regimes.regime import Regime
from specialists.family import FAMILIES, Family

FORMAT = 1


def decision_rows(family: Family, scaler: Scaler | None, features: Table) -> np.ndarray:
    """Return what a family's ``decide`` reads at each bar, float64 (n, k): signals scaled, then levels."""
    parts = []
    if family.signals:
        parts.append(scaler.fresh().update(features.select(family.signals)).values)
    parts.append(features.select(family.levels).values)
    return np.ascontiguousarray(np.hstack(parts))


def awake_rows(regime: Regime | None, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return int8 (n,): 1 where a specialist may want a position.

    That is where the causal label is its regime (any label for a generalist, ``regime`` None) and
    everything it reads is known. Elsewhere it is flat and forgets, so that no position and no memory
    runs from one episode of its regime into the next.
    """
    known = np.isfinite(rows).all(axis=1)
    mine = labels >= 0 if regime is None else labels == int(regime)
    return (known & mine).astype(np.int8)


class Specialist:
    """A genome that trades its regime; a stage from bars, features and regime labels to targets.

    Parameters
    ----------
    family : Family
        The genome's family.
    genome : Genome
        Genes in the unit cube.
    regime : Regime or None
        Regime it trades; None trades all of them (a generalist).
    scaler : Scaler or None
        Fitted on training rows; None for a family that reads no scaled signals.
    limits : RiskLimits
        The exposure cap, stop and target it was evolved under.
    fitted_until : int
        Time of the last bar that influenced it, nanoseconds UTC.
    """

    warmup = 0  # rows whose features are not known yet are flat, not wrong

    def __init__(
        self,
        family: Family,
        genome: Genome,
        regime: Regime | None,
        scaler: Scaler | None,
        limits: RiskLimits,
        fitted_until: int,
    ) -> None:
        if (scaler is None) == bool(family.signals):
            raise ValueError("a family with scaled signals needs a scaler, and one without needs none")
        self.family = family
        self.genome = genome
        self.regime = regime
        self.scaler = scaler
        self.limits = limits
        self.fitted_until = fitted_until
        self._parameters = family.express(family.space.decode(genome.genes[None, :]))[0]
        self._bounds = limits.bounds()
        self._state = np.concatenate([SHADOW, family.fresh])

    def fresh(self) -> Self:
        """Return the same specialist, flat and with empty memory."""
        return type(self)(self.family, self.genome, self.regime, self.scaler, self.limits, self.fitted_until)

    def update(self, bars: Bars, features: Table, labels: Table) -> Table:
        """Return what is wanted from the next open: exposure, stop and target distance.

        Parameters
        ----------
        bars : Bars (n,)
            The new bars.
        features : Table (n, f)
            Their features.
        labels : Table (n, ...)
            Their causal regime, column ``label``; -1 where undecided.

        Returns
        -------
        Table (n, 3)
            Columns ``exposure``, ``stop``, ``take``, see ``backtest.simulate.simulate``.
        """
        same_rows(bars, features, labels)
        rows = decision_rows(self.family, self.scaler, features)
        out = np.empty((len(bars), 3))
        self.family.follow(
            self._parameters,
            rows,
            np.ascontiguousarray(bars.values[:, :4]),
            awake_rows(self.regime, labels.column("label"), rows),
            self._bounds,
            self._state,
            out,
        )
        return Table(bars.time, out, TARGETS)

    def genes_by_name(self) -> dict[str, float | int | str]:
        """Return the genes as a person would write them: in natural units, a tree as its formula."""
        return self.family.space.values(self.genome.genes)

    def fingerprint(self) -> str:
        """Return the SHA-256 of genes, family, regime, scaling and limits: who this specialist is."""
        scaler = self.scaler
        parts = {
            "genes": self.genome.genes.tolist(),
            "family": [type(self.family).__name__, self.family.config.model_dump(mode="json")],
            "regime": None if self.regime is None else int(self.regime),
            "scaling": None if scaler is None else [scaler.names, scaler.center, scaler.scale],
            "limits": self.limits.model_dump(mode="json"),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path, family_name: str) -> None:
        """Write ``specialist.json``, ``genome.json`` and ``scaler.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.genome.save(folder / "genome.json", self.family.space)
        if self.scaler is not None:
            self.scaler.save(folder / "scaler.json")
        record = {
            "format": FORMAT,
            "family": {"name": family_name, **self.family.config.model_dump(mode="json")},
            "regime": "all" if self.regime is None else self.regime.name.lower(),
            "limits": self.limits.model_dump(mode="json"),
            "fitted_until": int(self.fitted_until),
        }
        write_saved(folder / "specialist.json", record)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved specialist; :class:`DataError` if a file is missing or is not one of ours."""
        path = folder / "specialist.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            version = record["format"]
            chosen = dict(record["family"])
            regime = None if record["regime"] == "all" else Regime.of(record["regime"])
            limits, fitted_until = record["limits"], int(record["fitted_until"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: is not a saved specialist ({error})") from error
        if version != FORMAT:
            raise DataError(f"{path}: has format {version}; this version reads format {FORMAT}")
        family = FAMILIES.create(chosen.pop("name"), chosen)
        return cls(
            family,
            Genome.load(folder / "genome.json", family.space),
            regime,
            Scaler.load(folder / "scaler.json") if family.signals else None,
            validate(RiskLimits, limits, str(path)),
            fitted_until,
        )

"""What a walk-forward validation has found: the joined test rows, and what was fitted when."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import BacktestResult
from backtest.venue import Venue
from ensemble.criteria import Judgment
from ensemble.evidence import Evidence
from ensemble.paths import Paths
from ensemble.permutation import Permutations
from ensemble.robustness import Robustness
from ensemble.signals import Blend, Member
from experiments.ledger import LedgerSummary, Openings
from market.bars import Bars
from market.table import DataError


@dataclass(frozen=True)
class FoldRecord:
    """One fold: which rows did what, and what came of the members.

    Parameters
    ----------
    number : int
        From 0 on.
    learn, validation, test : slice
        Rows of the bars: detector and specialists are fitted on the first, the blender on the second, and
        the third is answered.
    fitted_until : int
        Time of the last bar that influenced the fold's strategy, nanoseconds UTC; earlier than all of test.
    fingerprint : str
        Of the fold's strategy.
    members : mapping of str to mapping
        Per member ``kind``, ``regime`` and ``fitted_until``; of a specialist also ``sharpe_learn`` (annual,
        in sample, after costs), ``n_evaluated``, ``genes``, ``fingerprint``; of a forecaster ``scale``.
    regimes : mapping of str to float
        Share of each regime in the test rows, by the causal label.
    absent : mapping of str to str
        Members the fold has not, and why.
    told : mapping
        Whatever else is worth telling: of the blender, of the detector.
    """

    number: int
    learn: slice
    validation: slice
    test: slice
    fitted_until: int
    fingerprint: str
    members: Mapping[str, Mapping[str, Any]]
    regimes: Mapping[str, float]
    absent: Mapping[str, str]
    told: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON and for checkpoints; slices as lists of two."""
        found = asdict(self)
        for name in ("learn", "validation", "test"):
            found[name] = [getattr(self, name).start, getattr(self, name).stop]
        return found

    @classmethod
    def of_dict(cls, found: Mapping[str, Any]) -> "FoldRecord":
        """Return what :meth:`to_dict` gave."""
        rows = {name: slice(*found[name]) for name in ("learn", "validation", "test")}
        return cls(**{**found, **rows})


@dataclass(frozen=True, eq=False)
class Validated:
    """A strategy and all it is compared with: the same rows, a flat start, the same costs.

    Parameters
    ----------
    bars : Bars (n,)
        All of them.
    rows : slice
        The test rows of all folds, without a gap.
    result : BacktestResult
        The strategy on these rows, one account throughout.
    blend : Blend
        What it decided on them, and why.
    folds : tuple of FoldRecord
    members : mapping of str to BacktestResult
        Each member alone, sized as the strategy is.
    blenders : mapping of str to BacktestResult
        The other blenders of the same signals, through the same gates and sizing.
    baselines : mapping of str to BacktestResult
        What takes no skill, or no regimes.
    roster : tuple of Member
        In the order of the signals' columns.
    blender : str
        Name of the strategy's own.
    costs, limits, venue : Costs, RiskLimits, Venue
        Charged and enforced for all.

    Raises
    ------
    DataError
        If the test rows do not join, or a fold had seen a row that it answers.
    """

    bars: Bars
    rows: slice
    result: BacktestResult
    blend: Blend
    folds: tuple[FoldRecord, ...]
    members: Mapping[str, BacktestResult]
    blenders: Mapping[str, BacktestResult]
    baselines: Mapping[str, BacktestResult]
    roster: tuple[Member, ...]
    blender: str
    costs: Costs
    limits: RiskLimits
    venue: Venue

    def __post_init__(self) -> None:
        row = self.rows.start
        for fold in self.folds:
            if fold.test.start != row:
                raise DataError(
                    f"fold {fold.number + 1}: its test begins at row {fold.test.start}, not {row}"
                )
            row = fold.test.stop
            if fold.fitted_until >= int(self.bars.time[fold.test.start]):
                raise DataError(f"fold {fold.number + 1}: something was fitted on a row of its test")
        if row != self.rows.stop or len(self.blend) != self.rows.stop - self.rows.start:
            raise DataError(f"the folds end at row {row} and the test rows at {self.rows.stop}")

    @property
    def time(self) -> np.ndarray:
        """Close of each test bar, int64 (m,), nanoseconds UTC."""
        return self.bars.time[self.rows]

    @property
    def regime_names(self) -> tuple[str, ...]:
        """By label."""
        return self.blend.regimes.names

    def results(self) -> dict[str, BacktestResult]:
        """Return every result by name: the strategy first, then baselines, members and blenders."""
        return {"strategy": self.result, **self.baselines, **self.members, **self.blenders}


@dataclass(frozen=True, eq=False)
class Judged:
    """A validation and everything that was asked of it: what a report is written from.

    Parameters
    ----------
    validated : Validated
    evidence : Evidence
    robustness : Robustness
    permutations : Permutations or None
        None where none was asked for.
    judgment : Judgment
    random_sharpes : tuple of float
        Annual Sharpe ratios of all random routings.
    trials : LedgerSummary
        All trials ever made on these bars.
    looks : Openings
        Earlier looks at the test rows.
    provenance : mapping
        Plain objects: ``run``, ``seed``, ``origin``, ``warnings``, ``symbol``, ``timeframe``, ``bars``,
        ``fingerprint``, ``features``, ``forecast_features``, ``detector``, ``blender``, ``settings``.
    paths : Paths or None
        Of combinatorial cross-validation; None where none was asked for.
    """

    validated: Validated
    evidence: Evidence
    robustness: Robustness
    permutations: Permutations | None
    judgment: Judgment
    random_sharpes: tuple[float, ...]
    trials: LedgerSummary
    looks: Openings
    provenance: Mapping[str, Any]
    paths: Paths | None = None

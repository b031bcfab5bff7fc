"""Is the validated strategy luck? Every statistic that the verdict rests on, from results on the same rows.

Four questions, each with the correction for how much was tried:

* **Is one Sharpe ratio real?** PSR and the minimum track record, with skewness, kurtosis and an AR(1) error.
* **After the search?** The deflated Sharpe ratio, twice. Against every strategy ever judged on *these* rows:
  worthless ones spread over them as sampling error does. And against every trial in the ledger, with the
  larger of its unique and effective numbers and its own variance; those trials were judged on earlier rows,
  where the best of them is picked, so this one is the stricter of the two by far.
* **Does choosing generalize?** PBO by CSCV over all variants that were looked at: the strategy, its members,
  the other blenders. With a bootstrap interval, several block counts, and the probability that variants
  which are all alike would give so low a PBO: 0.2 or less comes one time in ten, so PBO alone proves little.
* **Is it better than the baselines?** :mod:`ensemble.comparisons`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from backtest.bootstrap import best_block, check_block, stationary_rows
from backtest.simulate import BacktestResult
from compute.seeds import stream
from configs.load import Config
from ensemble.comparisons import (
    ConfidenceSet,
    Interval,
    Superiority,
    confidence_set,
    grouped,
    intervals,
    require_arch,
    superiority,
)
from experiments.evidence import (
    MAX_BLOCKS,
    TrackRecord,
    deflated_sharpe,
    effective_trials,
    expected_max_sharpe,
    min_track_record_length,
    pbo,
    probabilistic_sharpe,
)
from experiments.ledger import LedgerSummary, Openings
from market.table import DataError, same_rows

STRATEGY = "strategy"


class EvidenceConfig(Config):
    """How the evidence is gathered."""

    comparisons: bool = Field(True, description="Whether SPA, StepM and MCS are asked; they need arch.")
    equal_volatility: bool = Field(
        True,
        description="Whether series are compared at one volatility, so that leverage counts for nothing.",
    )
    mean_block: float | None = Field(
        None, ge=1, description="Mean block of all bootstraps, bars; null chooses it from the returns (arch)."
    )
    paths: int = Field(1_000, ge=100, le=100_000, description="Bootstrap paths of intervals and tests.")
    level: float = Field(0.9, gt=0, lt=1, description="Share of the paths that an interval holds.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the minimum track record.")
    family_error: float = Field(0.05, gt=0, lt=0.5, description="Family-wise error of StepM.")
    set_size: float = Field(0.1, gt=0, lt=0.5, description="Size of the model confidence set.")
    blocks: tuple[int, ...] = Field(
        (8, 10, 12, 14, 16), min_length=1, description="Block counts of CSCV, even; the last one is quoted."
    )
    overfitting_paths: int = Field(
        200, ge=20, le=10_000, description="Bootstrap paths of the probability of overfitting."
    )

    @field_validator("blocks")
    @classmethod
    def _even(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if any(count % 2 or not 2 <= count <= MAX_BLOCKS for count in blocks):
            raise ValueError(f"must be even numbers from 2 to {MAX_BLOCKS}")
        return blocks


@dataclass(frozen=True)
class Skill:
    """What the Sharpe ratio of one strategy proves, given how many were tried.

    Parameters
    ----------
    sharpe : float
        Annual; NaN for a strategy that never moves.
    n_bars : int
    skewness, kurtosis, autocorrelation : float
        Of the returns per bar; the kurtosis of a normal distribution is 3.
    probabilistic : float
        Probability that the true Sharpe ratio is positive.
    track_record : float
        Bars it takes to trust that; infinite where it is not positive.
    champions : int
        Different strategies ever judged on these rows, this one included.
    earlier_looks : int
        How often these rows were looked at before.
    deflated_unseen : float
        Probability of more than what the best of so many worthless champions shows.
    luck_unseen : float
        What that is, annual Sharpe ratio.
    n_trials : float
        Trials of the ledger: the larger of unique and effective.
    n_evaluated, n_unique, n_runs : int
    n_effective : float
        See :class:`experiments.ledger.LedgerSummary`.
    deflated : float
        Probability of more than what the best of all trials shows by luck, with the ledger's variance.
    luck : float
        What that is, annual Sharpe ratio.
    """

    sharpe: float
    n_bars: int
    skewness: float
    kurtosis: float
    autocorrelation: float
    probabilistic: float
    track_record: float
    champions: int
    earlier_looks: int
    deflated_unseen: float
    luck_unseen: float
    n_trials: float
    n_evaluated: int
    n_unique: int
    n_effective: float
    n_runs: int
    deflated: float
    luck: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; what is not finite is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Selection:
    """Whether picking the best of the variants on some of the time is worth anything on the rest.

    Parameters
    ----------
    pbo : float
        Probability of backtest overfitting, at ``n_blocks`` blocks; luck gives 0.5.
    low, high : float
        Quantiles of it on stationary bootstrap paths.
    luck : float
        How often variants that are all alike (each with its mean removed) give so low a PBO.
    loss : float
        Share of splits in which the chosen variant has a negative Sharpe ratio out of sample.
    slope : float
        Of the chosen variant's Sharpe ratio out of sample on the one in sample: 1 keeps all, below 0 the
        better it looked the worse it did.
    by_blocks : dict of int to float
        PBO by number of blocks.
    n_blocks, n_bootstrap_blocks : int
        Of ``pbo``; and of its bootstrap, which has fewer for speed.
    n_variants : int
    n_effective : float
        Independent variants that so many correlated ones amount to.
    """

    pbo: float
    low: float
    high: float
    luck: float
    loss: float
    slope: float
    by_blocks: dict[int, float]
    n_blocks: int
    n_bootstrap_blocks: int
    n_variants: int
    n_effective: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; what is not finite is None."""
        found = {name: _plain(value) for name, value in asdict(self).items() if name != "by_blocks"}
        return {**found, "by_blocks": {str(count): value for count, value in self.by_blocks.items()}}


@dataclass(frozen=True)
class Evidence:
    """Everything that speaks for and against luck; see the classes of the parts.

    Parameters
    ----------
    skill : Skill
    selection : Selection or None
        None for fewer than two variants, or too few bars for the blocks.
    superiority : dict of str to Superiority
        By baseline, the candidates being all variants; empty where comparisons are off.
    confidence_set : ConfidenceSet or None
        Of all variants and baselines.
    intervals : dict of str to Interval
        Total return, annual Sharpe ratio and drawdown of the strategy.
    leads : dict of str to dict
        The same of the strategy less each baseline, on the same paths.
    mean_block : float
        Of the bootstraps, bars.
    """

    skill: Skill
    selection: Selection | None
    superiority: dict[str, Superiority]
    confidence_set: ConfidenceSet | None
    intervals: dict[str, Interval]
    leads: dict[str, dict[str, Interval]]
    mean_block: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; what is not finite is None."""
        return {
            "skill": self.skill.to_dict(),
            "selection": None if self.selection is None else self.selection.to_dict(),
            "superiority": {name: found.to_dict() for name, found in self.superiority.items()},
            "confidence_set": None if self.confidence_set is None else self.confidence_set.to_dict(),
            "intervals": {name: found.to_dict() for name, found in self.intervals.items()},
            "leads": {
                name: {figure: found.to_dict() for figure, found in lead.items()}
                for name, lead in self.leads.items()
            },
            "mean_block": self.mean_block,
        }


def weigh(
    strategy: BacktestResult,
    *,
    members: Mapping[str, BacktestResult],
    blenders: Mapping[str, BacktestResult],
    baselines: Mapping[str, BacktestResult],
    trials: LedgerSummary,
    looks: Openings,
    seed: int,
    config: EvidenceConfig | None = None,
) -> Evidence:
    """Return the evidence for a strategy; the same inputs and seed give the same numbers.

    Parameters
    ----------
    strategy : BacktestResult
        On the joined out-of-sample rows.
    members, blenders, baselines : mapping of str to BacktestResult
        On the same rows, after the same costs: each source alone, every other blender, and what the
        strategy must beat. No name may be given twice.
    trials : LedgerSummary
        Of the bars that the search saw.
    looks : Openings
        Earlier looks at these rows.
    seed : int
    config : EvidenceConfig, optional

    Raises
    ------
    ConfigError
        If ``arch`` is needed and not installed.
    DataError
        If the results are not on the same rows, share a name, or there are fewer than 30 bars.
    """
    config = EvidenceConfig() if config is None else config
    if config.comparisons:
        require_arch()
    variants = _on_same_rows(strategy, members, blenders, baselines)
    returns = {name: result.curve.column("net_return") for name, result in variants.items()}
    looked_at = {name: series for name, series in returns.items() if name not in baselines}
    own = returns[STRATEGY]
    block = best_block(own) if config.mean_block is None else config.mean_block
    check_block(block)
    compared = {"seed": seed, "reps": config.paths, "mean_block": block}
    compared["equal_volatility"] = config.equal_volatility
    better: dict[str, Superiority] = {}
    remaining = None
    if config.comparisons:
        for name in baselines:
            series = {**looked_at, name: returns[name]}
            better[name] = superiority(name, series, size=config.family_error, **compared)
        if len(returns) > 1:
            remaining = confidence_set(returns, size=config.set_size, **compared)
    spread, leads = intervals(
        {STRATEGY: own, **{name: returns[name] for name in baselines}},
        strategy.bars_per_year,
        seed=seed,
        n_paths=config.paths,
        mean_block=block,
        level=config.level,
    )
    return Evidence(
        skill=skill(strategy, trials, looks, config.confidence),
        selection=selection(np.column_stack(list(looked_at.values())), block, seed, config),
        superiority=better,
        confidence_set=remaining,
        intervals=spread,
        leads=leads,
        mean_block=float(block),
    )


def skill(
    strategy: BacktestResult, trials: LedgerSummary, looks: Openings, confidence: float = 0.95
) -> Skill:
    """Return what the Sharpe ratio of a strategy proves; see :class:`Skill`.

    Parameters
    ----------
    strategy : BacktestResult
    trials, looks
        From the ledger; nothing is typed in.
    confidence : float
        Of the minimum track record, in (0.5, 1).
    """
    record = TrackRecord.of(strategy.curve.column("net_return"), serial=True)
    annual = math.sqrt(strategy.bars_per_year)
    champions = looks.others + 1
    sampling = 1.0 / max(record.n_bars - 1, 1)  # variance of the Sharpe ratio of a worthless strategy
    n_trials = max(trials.n_unique, trials.n_effective, 1.0)
    return Skill(
        sharpe=record.sharpe * annual,
        n_bars=record.n_bars,
        skewness=record.skewness,
        kurtosis=record.kurtosis,
        autocorrelation=record.autocorrelation,
        probabilistic=probabilistic_sharpe(record),
        track_record=min_track_record_length(record, 0.0, confidence),
        champions=champions,
        earlier_looks=looks.earlier,
        deflated_unseen=deflated_sharpe(record, champions, sampling),
        luck_unseen=expected_max_sharpe(champions, sampling) * annual,
        n_trials=float(n_trials),
        n_evaluated=trials.n_evaluated,
        n_unique=trials.n_unique,
        n_effective=trials.n_effective,
        n_runs=trials.n_runs,
        deflated=deflated_sharpe(record, n_trials, trials.sharpe_variance),
        luck=expected_max_sharpe(n_trials, trials.sharpe_variance) * annual,
    )


def selection(
    returns: np.ndarray, mean_block: float, seed: int, config: EvidenceConfig | None = None
) -> Selection | None:
    """Return whether choosing among variants generalizes; see :class:`Selection`.

    Parameters
    ----------
    returns : float64 (n, variants)
        Net returns per bar of every variant that was looked at.
    mean_block : float
        Of the bootstrap, bars.
    seed : int
    config : EvidenceConfig, optional

    Returns
    -------
    Selection or None
        None for fewer than two variants, or fewer than two bars a block.
    """
    config = EvidenceConfig() if config is None else config
    n, m = returns.shape
    if m < 2 or n < 2 * max(config.blocks):
        return None
    found = {count: pbo(returns, count) for count in config.blocks}
    quoted = found[config.blocks[-1]]
    # A bootstrap of 16 blocks would take half a minute, and its interval is as wide with 10.
    coarse = min(config.blocks, key=lambda count: abs(count - 10))
    rows = grouped(returns)
    block = max(1.0, mean_block * len(rows) / n)
    alike = rows - rows.mean(axis=0)
    rng = stream(seed, "evidence", "overfitting")
    paths = np.empty((2, config.overfitting_paths))
    for i in range(config.overfitting_paths):
        path = stationary_rows(len(rows), block, rng)[0]
        paths[0, i] = pbo(rows[path], coarse).pbo
        paths[1, i] = pbo(alike[path], coarse).pbo
    low, high = np.quantile(paths[0], [(1 - config.level) / 2, (1 + config.level) / 2])
    as_low = int(np.sum(paths[1] <= pbo(rows, coarse).pbo))
    return Selection(
        pbo=quoted.pbo,
        low=float(low),
        high=float(high),
        luck=(as_low + 1) / (config.overfitting_paths + 1),
        loss=quoted.loss,
        slope=quoted.slope,
        by_blocks={count: one.pbo for count, one in found.items()},
        n_blocks=quoted.n_blocks,
        n_bootstrap_blocks=coarse,
        n_variants=m,
        n_effective=effective_trials(rows),
    )


def _on_same_rows(
    strategy: BacktestResult, *groups: Mapping[str, BacktestResult]
) -> dict[str, BacktestResult]:
    together = {STRATEGY: strategy}
    for group in groups:
        for name, result in group.items():
            if name in together:
                raise DataError(f"evidence: {name} is the name of two results; each needs its own")
            together[name] = result
    for name, result in together.items():
        try:
            same_rows(strategy.curve, result.curve)
        except DataError as error:
            raise DataError(f"evidence: {name} is not on the rows of the strategy ({error})") from error
    return together


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Genes to fitness: trades the training rows, after costs, and scores what is likely to repeat."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from backtest import kernels
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import CAPITAL, TARGETS, simulate
from backtest.terms import Terms
from backtest.venue import Venue
from configs.load import Config, ConfigError
from market.bars import Bars
from market.table import Table
from specialists.family import Family

# What is taken off the fitness of a genome that never trades; the missing share of it off one that trades
# too little, so that the search has a slope to climb.
FEW = -10.0


class FitnessConfig(Config):
    """How a genome's trading on the training rows becomes one number."""

    measure: Literal["sharpe", "sortino", "origin"] = Field(
        "sharpe",
        description="sharpe, sortino: annual ratio per fold; origin: the composite of the origin system.",
    )
    folds: int = Field(10, ge=2, le=50, description="Contiguous folds in time.")
    confidence: float = Field(
        1.0, ge=0, le=5, description="Standard errors over the folds taken off their mean."
    )
    min_trades: int = Field(30, ge=0, description="Trades below which a genome counts as not trading.")


@dataclass(frozen=True, eq=False)
class Fitness:
    """The fitness of genomes on fixed training rows; holds plain arrays, so that it travels to workers.

    Parameters
    ----------
    family : Family
        The genomes' family.
    bars : Bars (n,)
        Training bars, contiguous in time: no regime's days are stitched together.
    rows : float64 (n, k)
        What ``decide`` reads, see ``specialists.specialist.decision_rows``.
    awake : int8 (n,)
        Where the specialist may trade, see ``specialists.specialist.awake_rows``.
    costs, limits, venue : Costs, RiskLimits, Venue
        Charged and enforced in every evaluation, on the capital that the champion is judged with. What is
        switched off (breakers, funding, margin, grids, ...) is compiled away.
    config : FitnessConfig
        The measure.
    """

    family: Family
    bars: Bars
    rows: np.ndarray
    awake: np.ndarray
    costs: Costs
    limits: RiskLimits
    venue: Venue
    config: FitnessConfig

    def __post_init__(self) -> None:
        if self.costs.delay_bars:
            raise ConfigError(
                f"costs.delay_bars is {self.costs.delay_bars}; it must be 0 here, a delay is a stress of the "
                "champion's simulation"
            )
        if len(self.bars) < 2 * self.config.folds:
            raise ConfigError(f"{len(self.bars)} training bars cannot be cut into {self.config.folds} folds")
        n = len(self.bars)
        ends = (np.arange(1, self.config.folds + 1) * n) // self.config.folds
        prices = np.ascontiguousarray(self.bars.values[:, :4])
        terms = Terms.of(self.bars, self.costs, self.limits, self.venue, CAPITAL)
        rates = np.ascontiguousarray(terms.bars[:, kernels.RATE])
        if not any(terms.options):
            terms = replace(terms, bars=terms.bars[:0])  # nothing reads them: a worker need not carry them
        object.__setattr__(self, "_arrays", (prices, rates, terms, ends.astype(np.int64)))

    def statistics(self, genes: np.ndarray) -> np.ndarray:
        """Return the population kernel's statistics, float64 (p, folds, 6), of genes (p, d)."""
        prices, rates, terms, ends = self._arrays
        parameters = self.family.express(self.family.space.decode(genes))
        out = np.empty((len(genes), ends.size * kernels.N_STATISTICS))
        self.family.evaluate(
            parameters, self.rows, prices, rates, terms.bars, self.awake, ends,
            terms.bounds, terms.venue, terms.tiers, out, *terms.options,
        )  # fmt: skip
        return out.reshape(len(genes), ends.size, kernels.N_STATISTICS)

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return fitness and Sharpe ratio per bar, float64 (p, 2), of genes (p, d) in the unit cube.

        The second column is what the trial ledger keeps of every evaluation.
        """
        statistics = self.statistics(genes)
        sharpe = _ratio(statistics.sum(axis=1)[:, None, :], np.array([len(self.bars)]), "sharpe")[:, 0]
        if self.config.measure == "origin":
            fitness = np.array([self._origin(one) for one in genes])
        else:
            fitness = self._lower_bound(statistics)
        return np.column_stack([fitness, sharpe])

    def _lower_bound(self, statistics: np.ndarray) -> np.ndarray:
        # A fold's ratio counts as one draw; the bound is what remains after the spread between folds.
        n = np.diff(self._arrays[3], prepend=0)
        ratios = _ratio(statistics, n, self.config.measure) * math.sqrt(self.bars.bars_per_year)
        spread = ratios.std(axis=1, ddof=1) / math.sqrt(self.config.folds)
        bound = ratios.mean(axis=1) - self.config.confidence * spread
        trades = statistics[:, :, 3].sum(axis=1)
        missing = np.maximum(self.config.min_trades - trades, 0.0) / max(self.config.min_trades, 1)
        return np.where(missing > 0, np.minimum(bound, 0.0) + FEW * missing, bound)

    def _origin(self, genes: np.ndarray) -> float:
        # 10 Sharpe + 20 return + 5 win rate - 15 drawdown + 3 min(profit factor, 3), on its own definitions.
        out = np.empty((len(self.bars), 3))
        parameters = self.family.express(self.family.space.decode(genes[None, :]))[0]
        state = np.concatenate([kernels.SHADOW, self.family.fresh])
        prices = self._arrays[0]
        self.family.follow(parameters, self.rows, prices, self.awake, self.limits.bounds(), state, out)
        targets = Table(self.bars.time, out, TARGETS)
        result = simulate(targets, self.bars, self.costs, self.limits, venue=self.venue)
        return origin_composite(result.trades, result.curve.column("equity"), result.capital)


def origin_composite(trades: np.ndarray, equity: np.ndarray, capital: float) -> float:
    """Return the fitness of the origin system: kept for comparison, not recommended.

    Its Sharpe ratio annualises the mean over the population deviation of per-trade price returns by 252
    days and the mean hold, whatever the bars are; profit without a losing trade counts as a profit factor
    of the gross profit. Zero without trades.

    Parameters
    ----------
    trades : record array (m,)
        Round trips, see ``backtest.simulate.TRADE_DTYPE``.
    equity : float64 (n,)
        Equity at each close.
    capital : float
        Equity at the start.
    """
    if len(trades) == 0:
        return 0.0
    returns = trades["side"] * (trades["exit_price"] / trades["entry_price"] - 1.0)
    deviation = returns.std()
    hold = max(1.0, trades["bars"].mean())
    sharpe = returns.mean() / deviation * math.sqrt(252.0 / hold) if deviation > 0 else 0.0
    profit = trades["pnl"][trades["pnl"] > 0].sum()
    loss = -trades["pnl"][trades["pnl"] < 0].sum()
    factor = profit / loss if loss > 0 else profit
    curve = np.concatenate([[capital], equity])
    drawdown = (1.0 - curve / np.maximum.accumulate(curve)).max()
    wins = (trades["pnl"] > 0).mean()
    return float(
        10 * sharpe + 20 * (equity[-1] / capital - 1.0) + 5 * wins - 15 * drawdown + 3 * min(factor, 3.0)
    )


def _ratio(statistics: np.ndarray, n: np.ndarray, measure: str) -> np.ndarray:
    # Mean over deviation (ddof 1) or over downside deviation per bar, (p, f); 0 where nothing varied.
    mean = statistics[:, :, 0] / n
    if measure == "sortino":
        variance = statistics[:, :, 2] / n
    else:
        variance = (statistics[:, :, 1] - statistics[:, :, 0] * mean) / (n - 1)
    moved = variance > 1e-18  # below this only rounding is left
    return np.where(moved, mean / np.sqrt(np.where(moved, variance, 1.0)), 0.0)

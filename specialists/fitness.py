"""Genes to fitness: trades the training rows, after costs, and scores what is likely to repeat."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, Self

import numpy as np
from pydantic import Field

from backtest import kernels
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import CAPITAL, TARGETS, simulate
from backtest.terms import Terms
from backtest.venue import Venue
from compute.seeds import stream
from configs.load import Config, ConfigError
from market.bars import NS_PER_SECOND, Bars
from market.table import Table
from specialists.family import Family

# What is taken off the fitness of a genome that never trades; the missing share of it off one that trades
# too little, so that the search has a slope to climb.
FEW = -10.0

# Blocks of time whose sums are kept of every genome, for the probability of backtest overfitting.
BLOCKS = 16
_NS_PER_WEEK = 7 * 86_400 * NS_PER_SECOND


class FitnessConfig(Config):
    """How a genome's trading on the training rows becomes one number."""

    measure: Literal["sharpe", "sortino", "origin"] = Field(
        "sharpe",
        description="sharpe, sortino: annual ratio per fold; origin: the composite of the origin system.",
    )
    folds: int = Field(10, ge=2, le=50, description="Folds in time, each contiguous.")
    purge: int | None = Field(
        None,
        ge=0,
        description="Bars left out of the fitness between two folds, so that no trade counts in both. By "
        "default a week, longer than 99 % of trades, but at most a quarter of a fold. Trading goes on.",
    )
    rotation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the folds, drawn anew in each generation, that its genomes are judged on; 1: "
        "always all. The champion is chosen on all of them.",
    )
    confidence: float = Field(
        1.0, ge=0, le=5, description="Standard errors over the folds taken off their mean."
    )
    min_trades: int = Field(30, ge=0, description="Trades below which a genome counts as not trading.")


@dataclass(frozen=True, eq=False)
class Fitness:
    """The fitness of genomes on fixed training rows; holds plain arrays, so that it travels to workers.

    A genome trades all rows without a break. They are cut into folds with a gap between two of them
    (``FitnessConfig.purge``): what happens in the gaps is traded and paid for, but not judged, so that
    folds share no trade and count as separate draws.

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
    seed : int
        Root of the windows of a rotating fitness.

    Raises
    ------
    ConfigError
        If a delay is asked for, the rows are too few for the folds and their gaps, or a measure without
        folds is to rotate over them.
    """

    family: Family
    bars: Bars
    rows: np.ndarray
    awake: np.ndarray
    costs: Costs
    limits: RiskLimits
    venue: Venue
    config: FitnessConfig
    seed: int = 0

    def __post_init__(self) -> None:
        if self.costs.delay_bars:
            raise ConfigError(
                f"costs.delay_bars is {self.costs.delay_bars}; it must be 0 here, a delay is a stress of the "
                "champion's simulation"
            )
        if self.config.measure == "origin" and self.config.rotation < 1:
            raise ConfigError(
                f"fitness.rotation is {self.config.rotation:g}; it must be 1 with the origin measure, which "
                "has no folds"
            )
        n = len(self.bars)
        starts, stops = purged_folds(n, self.config.folds, self._purge())
        blocks = np.cumsum([len(block) for block in np.array_split(np.empty(n), BLOCKS)])
        ends = np.union1d(np.union1d(starts[1:], stops), blocks).astype(np.int64)
        # Folds and blocks as runs of segments: where each begins and ends among them.
        edges = np.concatenate([[0], ends])
        folds = np.searchsorted(edges, starts), np.searchsorted(edges, stops)
        runs = np.column_stack(folds).ravel()[:-1]
        prices = np.ascontiguousarray(self.bars.values[:, :4])
        terms = Terms.of(self.bars, self.costs, self.limits, self.venue, CAPITAL)
        rates = np.ascontiguousarray(terms.bars[:, kernels.RATE])
        if not any(terms.options):
            terms = replace(terms, bars=terms.bars[:0])  # nothing reads them: a worker need not carry them
        object.__setattr__(self, "_arrays", (prices, rates, terms, ends))
        object.__setattr__(self, "_folds", folds)
        object.__setattr__(self, "_runs", runs)
        object.__setattr__(self, "_blocks", np.searchsorted(edges, np.concatenate([[0], blocks[:-1]])))
        object.__setattr__(self, "fold_bars", stops - starts)
        object.__setattr__(self, "block_bars", np.diff(blocks, prepend=0))

    @property
    def rotates(self) -> bool:
        """Whether each generation is judged on other folds."""
        return self.config.rotation < 1 and self._window_size < self.config.folds

    @property
    def n_details(self) -> int:
        """How many further numbers of a genome to remember: what :meth:`score` reads, if it is used."""
        return 2 + self.config.folds if self.rotates else 1

    def window(self, generation: int | None) -> np.ndarray:
        """Return the folds that a generation is judged on, bool (folds,); None gives all of them.

        Each generation draws its own, from the seed and its number alone.
        """
        chosen = np.ones(self.config.folds, dtype=bool)
        if self.rotates and generation is not None:
            rng = stream(self.seed, "fitness window", int(generation))
            chosen[rng.permutation(self.config.folds)[self._window_size :]] = False
        return chosen

    @classmethod
    def of(cls, fitness: "Fitness") -> Self:
        """Return a fitness of this kind on the ground of another."""
        return cls(**{field.name: getattr(fitness, field.name) for field in fields(fitness) if field.init})

    def statistics(self, genes: np.ndarray) -> np.ndarray:
        """Return the population kernel's statistics, float64 (p, segments, 6), of genes (p, d).

        The segments are all rows in their order, cut where a fold, a gap or a block begins: sums over
        them are sums over all rows. See :meth:`fold_statistics` for what is judged.
        """
        prices, rates, terms, ends = self._arrays
        parameters = self.family.express(self.family.space.decode(genes))
        out = np.empty((len(genes), ends.size * kernels.N_STATISTICS))
        self.family.evaluate(
            parameters, self.rows, prices, rates, terms.bars, self.awake, ends,
            terms.bounds, terms.venue, terms.tiers, out, *terms.options,
        )  # fmt: skip
        return out.reshape(len(genes), ends.size, kernels.N_STATISTICS)

    def fold_statistics(self, genes: np.ndarray) -> np.ndarray:
        """Return the same per fold, without the rows between folds, float64 (p, folds, 6)."""
        return self._of_folds(self.statistics(genes))

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return fitness and what it is made of, float64 (p, 3 + folds + 2 * BLOCKS), of genes (p, d).

        Columns: fitness on all folds; Sharpe ratio per bar of all rows, which is what the trial ledger
        keeps of every evaluation; trades opened; ratio of each fold, annual; sum of the net bar returns of
        each block, and of their squares, see ``experiments.trials.TrialMatrix``.

        Parameters
        ----------
        genes : float64 (p, d)
            In the unit cube.
        """
        return self.answer(genes, self.statistics(genes))

    def answer(self, genes: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """Return what a call returns about genes (p, d) whose statistics (p, segments, 6) are known."""
        blocks = np.add.reduceat(statistics[:, :, :2], self._blocks, axis=1)
        total = np.add.reduce(blocks, axis=1)[:, None, :]
        sharpe = _ratio(total, np.array([len(self.bars)]), "sharpe")
        trades = np.add.reduce(statistics[:, :, 3], axis=1)[:, None]
        measure = "sharpe" if self.config.measure == "origin" else self.config.measure
        ratios = _ratio(self._sums_of_folds(statistics), self.fold_bars, measure)
        details = np.hstack([sharpe, trades, ratios * math.sqrt(self.bars.bars_per_year)])
        if self.config.measure == "origin":
            fitness = np.array([self._origin(one) for one in genes])
        else:
            fitness = self.score(details, None)
        return np.column_stack([fitness, details, blocks[:, :, 0], blocks[:, :, 1]])

    def score(self, details: np.ndarray, generation: int | None) -> np.ndarray:
        """Return the fitness, float64 (p,), on the folds of a generation; None for all folds.

        A fold's ratio counts as one draw; the fitness is what remains of their mean after the standard
        error of the spread between folds. Trades are counted on all rows, whatever the window.

        Parameters
        ----------
        details : float64 (p, 2 + folds)
            Sharpe ratio, trades, and the ratios of the folds, as a call returns them after the fitness.
        generation : int or None
        """
        ratios = np.ascontiguousarray(details[:, 2:][:, self.window(generation)])
        spread = ratios.std(axis=1, ddof=1) / math.sqrt(ratios.shape[1])
        bound = ratios.mean(axis=1) - self.config.confidence * spread
        missing = np.maximum(self.config.min_trades - details[:, 1], 0.0) / max(self.config.min_trades, 1)
        return np.where(missing > 0, np.minimum(bound, 0.0) + FEW * missing, bound)

    @property
    def _window_size(self) -> int:
        # Two at least: a spread takes two draws.
        return max(2, round(self.config.rotation * self.config.folds))

    def _purge(self) -> int:
        if self.config.purge is not None:
            return self.config.purge
        week = -(-_NS_PER_WEEK // self.bars.interval_ns)
        return min(week, len(self.bars) // (4 * self.config.folds))

    def _of_folds(self, statistics: np.ndarray) -> np.ndarray:
        growth = np.multiply.reduceat(statistics[:, :, 4:5], self._runs, axis=1)[:, ::2]
        deepest = statistics[:, self._folds[1] - 1, 5:]  # since the first bar
        return np.concatenate([self._sums_of_folds(statistics), growth, deepest], axis=2)

    def _sums_of_folds(self, statistics: np.ndarray) -> np.ndarray:
        # Every other run of segments is a gap.
        return np.add.reduceat(statistics[:, :, :4], self._runs, axis=1)[:, ::2]

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


def purged_folds(n: int, folds: int, purge: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first row and end of each fold, two int64 (folds,), with ``purge`` rows between two folds.

    The lengths differ by at most one.

    Raises
    ------
    ConfigError
        If there are too few rows for the blocks of PBO, or the gaps leave a fold without two rows.
    """
    if n < 2 * max(folds, BLOCKS):
        raise ConfigError(
            f"{n} training bars cannot be cut into {folds} folds and {BLOCKS} blocks of at least two bars"
        )
    judged = n - (folds - 1) * purge
    if judged < 2 * folds:
        raise ConfigError(
            f"fitness.purge is {purge} bars; {folds - 1} gaps of it leave no {folds} folds of {n} training "
            f"bars, so it must be at most {(n - 2 * folds) // (folds - 1)}"
        )
    edges = np.arange(folds + 1, dtype=np.int64) * judged // folds
    gaps = np.arange(folds, dtype=np.int64) * purge
    return edges[:-1] + gaps, edges[1:] + gaps


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

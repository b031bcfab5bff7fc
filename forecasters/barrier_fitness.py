"""How good triple barriers are as labels: three terms, and the probe that bets on what the labels say.

Fitness is the weighted mean of three terms, each measured on labels that count by their uniqueness:

**balance**, 0 to 1
    Entropy of the classes up, none and down over that of three equal ones. A label that is nearly always
    the same can be foretold by everybody and teaches nothing. It is what bounds the widths: far barriers
    are never reached, and near ones are always.
**moves**, 0 to 1
    Share of the up and down labels whose move is larger than the costs of a round trip, those that a
    backtest would charge: fee, half spread and impact of the bars of entry and of exit, both as taker.
**sharpe**, -1 to 1
    Annual Sharpe ratio of the probe after these costs, over several blocks of time: the mean less
    ``confidence`` standard errors of it, as S / (1 + abs(S)), so that no single term outgrows the others.

**Why a probe.** The Sharpe ratio of somebody who knows each label beforehand is no measure: he earns every
barrier that is wider than the costs, the more of them the nearer they are, and so rewards noise. A forecaster
of a presumed hit rate says how wide barriers must be, and nothing of the market. The probe is the least that
is neither, a forecaster of a few numbers that is fitted and judged as every other one here:

* It knows the momentum over some lookbacks, in units of the volatility that scales the barriers. On the rows
  before a block, those left out whose label might end in it, each lookback is regressed on the return of the
  label, through the origin: what follows from drift alone is not skill. The sum of these forecasts decides
  long or short. Whether momentum goes on or turns back is thus learned, and never from the block itself.
* It bets in the block on **every** row, with target and stop at the barriers and the time of the horizon.
  If it might stay out, labels that nobody can trade would be the best ones: staying out earns 0.
* Bets overlap, and all count the same: their mean over their deviation, times the root of the bets that fit
  into a year one after the other. That is the Sharpe ratio of one bet at a time, averaged over the rows to
  start from. Uniqueness must not weigh here: a bet that ends soon has more of it, and where target and stop
  differ, what ends soon is what is near; on a random walk, near targets and far stops would pay. For the same
  reason the last rows of a block, whose bets might end after it, are left out whatever became of them.

A market in which nothing can be foretold gives a probe that loses its costs, with every barrier; barriers
that move far in relation to costs lose least there. That is told apart in the report: it shows the Sharpe
ratio before costs beside the one after.

Sources: Lopez de Prado (2018), "Advances in Financial Machine Learning", chapters 3 and 4; the momentum of
several lookbacks in units of volatility: Moskowitz, Ooi and Pedersen (2012), "Time series momentum".
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backtest.costs import Costs
from backtest.metrics import ROUNDING
from backtest.simulate import CAPITAL
from configs.load import ConfigError, validate
from forecasters.barrier_settings import FitnessConfig
from market.bars import Bars
from market.features.dataset import LabelConfig
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.kernels import STILL
from market.labels import Labels, triple_barrier
from market.sample_weights import uniqueness

#: A momentum of more deviations than this counts as this much: one crash must not make the slope.
LARGEST = 4.0
CLASSES = ("down", "none", "up")


def scales(bars: Bars, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return columns of volatility per bar by name, float64 (n,) each; NaN where they are not known yet.

    Raises
    ------
    ConfigError
        If a feature is no volatility per bar as a fraction: below 0, or usually above 1.
    """
    table = pipeline(names).update(bars)
    found = {name: table.column(name) for name in names}
    for name, column in found.items():
        known = column[~np.isnan(column)]
        if known.size and (known.min() < 0.0 or np.median(known) > 1.0):
            raise ConfigError(
                f"space.volatilities: {name} lies between {known.min():g} and {known.max():g}; it must be a "
                f"volatility per bar as a fraction, such as volatility_24"
            )
    return found


def pipeline(names: tuple[str, ...]) -> FeaturePipeline:
    """Return what computes columns of volatility; ConfigError if there is no such feature."""
    return FeaturePipeline(validate(FeaturesConfig, {"names": names}, "space.volatilities"))


def trading_rates(bars: Bars, costs: Costs, capital: float = CAPITAL) -> np.ndarray:
    """Return what a market order costs at each bar, float64 (n,), a fraction of its notional.

    Parameters
    ----------
    bars : Bars (n,)
    costs : Costs
        Of the backtester. Its delay, its share of the volume and its maker's fee are about orders, of which
        a label has none.
    capital : float
        Notional, for the impact of size, quote currency.
    """
    return costs.fees(bars) + costs.slippage(bars) + costs.impact_coefficient(bars) * math.sqrt(capital)


@dataclass(frozen=True, eq=False)
class BarrierGround:
    """What barriers are judged on.

    Parameters
    ----------
    bars : Bars (n,)
        Nothing later exists: a label that reaches beyond the last is not known.
    rows : slice
        Whose labels are counted.
    first : int
        The row from which the probe may learn; earlier ones have no momentum or no volatility yet.
    blocks : tuple of slice
        Rows on which the probe bets, ordered, within ``rows``.
    volatility : mapping of str to float64 (n,)
        Per bar, by the name of the feature.
    rates : float64 (n,)
        Cost of an order at each bar, a fraction of its notional.
    lookbacks : tuple of int
        Of the probe, bars.
    """

    bars: Bars
    rows: slice
    first: int
    blocks: tuple[slice, ...]
    volatility: Mapping[str, np.ndarray]
    rates: np.ndarray
    lookbacks: tuple[int, ...]

    @cached_property
    def _momenta(self) -> dict[str, np.ndarray]:
        return {}

    def momentum(self, name: str) -> np.ndarray:
        """Return the momentum over each lookback in deviations, float64 (n, l); 0 before ``first``."""
        if name not in self._momenta:
            log_close = np.log(self.bars.column("close"))
            scale = np.maximum(self.volatility[name][self.first :], STILL)
            found = np.zeros((len(self.bars), len(self.lookbacks)))
            for column, lookback in enumerate(self.lookbacks):
                moved = log_close[self.first :] - log_close[self.first - lookback : -lookback]
                found[self.first :, column] = np.clip(
                    moved / (scale * math.sqrt(lookback)), -LARGEST, LARGEST
                )
            self._momenta[name] = found
        return self._momenta[name]


@dataclass(frozen=True)
class BarrierFigures:
    """What barriers make of some rows.

    Parameters
    ----------
    labels : int
        Rows that have one.
    effective : float
        As many labels without overlap say as much.
    bars : float
        Mean length of a label, bars.
    shares : tuple of float (3,)
        Of down, none and up in the uniqueness.
    balance, moves : float
        Terms of the fitness, see the module.
    sharpes, gross_sharpes : tuple of float (k,)
        Annual Sharpe ratio of the probe in each block, after and before costs; 0 where nothing moved.
    """

    labels: int
    effective: float
    bars: float
    shares: tuple[float, ...]
    balance: float
    moves: float
    sharpes: tuple[float, ...]
    gross_sharpes: tuple[float, ...]

    @property
    def sharpe(self) -> float:
        """Mean over blocks of the annual Sharpe ratio after costs."""
        return float(np.mean(self.sharpes))

    @property
    def error(self) -> float:
        """Standard error of this mean."""
        return float(np.std(self.sharpes, ddof=1)) / math.sqrt(len(self.sharpes))

    def fitness(self, config: FitnessConfig) -> float:
        """Return the fitness; NaN for barriers of too few labels."""
        if self.effective < config.least_labels:
            return math.nan
        bound = self.sharpe - config.confidence * self.error
        terms = (self.balance, self.moves, bound / (1.0 + abs(bound)))
        weights = (config.weights.balance, config.weights.moves, config.weights.sharpe)
        return sum(weight * term for weight, term in zip(weights, terms, strict=True)) / sum(weights)


def judged(ground: BarrierGround, label: LabelConfig) -> BarrierFigures:
    """Return what barriers make of some rows.

    Parameters
    ----------
    ground : BarrierGround
    label : LabelConfig
        A triple barrier whose volatility is one of the ground.
    """
    labels = _labels(ground, label)
    weight = uniqueness(labels, decided(ground.rows, labels.horizon))
    rows = np.flatnonzero(weight)
    counted, effective = weight[rows], float(weight.sum())
    shares = np.zeros(3)
    moves = 0.0
    if rows.size:
        shares = np.bincount(labels.value[rows] + 1, counted, minlength=3) / effective
        moving = labels.value[rows] != 0
        beyond = np.abs(labels.ret[rows]) > _costs(ground, labels, rows)
        moves = float(counted[moving & beyond].sum() / max(counted[moving].sum(), ROUNDING))
    some = shares[shares > 0.0]
    side = sides(ground, label, labels)
    bets = _labels(ground, label, side)  # the stop of a short bet is the upper barrier
    net, gross = zip(*(_sharpes(ground, bets, side, block) for block in ground.blocks), strict=True)
    return BarrierFigures(
        labels=int(rows.size),
        effective=effective,
        bars=float((labels.end[rows] - rows).mean()) if rows.size else 0.0,
        shares=tuple(shares.tolist()),
        balance=abs(float(-(some * np.log(some)).sum())) / math.log(3.0),
        moves=moves,
        sharpes=net,
        gross_sharpes=gross,
    )


def sides(ground: BarrierGround, label: LabelConfig, labels: Labels) -> np.ndarray:
    """Return what the probe bets at each row of the blocks, int8 (n,): 1 long, -1 short, 0 elsewhere.

    Parameters
    ----------
    ground : BarrierGround
    label : LabelConfig
    labels : Labels (n,)
        Of these barriers. A block is bet on with slopes of the labels that ended before it.
    """
    momentum = ground.momentum(label.volatility)
    width = np.maximum(ground.volatility[label.volatility], STILL) * math.sqrt(labels.horizon)
    target = np.where(labels.known, labels.ret / width, 0.0)[:, None]
    usable = labels.known[:, None] & (np.arange(len(labels)) >= ground.first)[:, None]
    zeros = np.zeros((1, len(ground.lookbacks)))
    # Sums up to every row: each block takes those of its past.
    products = np.concatenate([zeros, np.cumsum(np.where(usable, momentum * target, 0.0), axis=0)])
    squares = np.concatenate([zeros, np.cumsum(np.where(usable, momentum**2, 0.0), axis=0)])
    found = np.zeros(len(labels), np.int8)
    for block in ground.blocks:
        past = past_of(block, labels.horizon)
        slopes = np.where(squares[past] > 0.0, products[past] / np.maximum(squares[past], ROUNDING), 0.0)
        found[block] = np.sign((momentum[block] * slopes).sum(axis=1))
    return found


def decided(rows: slice, horizon: int) -> slice:
    """Return the rows whose labels end among these rows, whatever becomes of them."""
    return slice(rows.start, max(rows.start, rows.stop - horizon))


def past_of(block: slice, horizon: int) -> int:
    """Return the first row whose label may end in a block: the probe learns from those before it."""
    return max(block.start - horizon, 0)


def _labels(ground: BarrierGround, label: LabelConfig, side: np.ndarray | None = None) -> Labels:
    scale = ground.volatility[label.volatility]
    return triple_barrier(ground.bars, label.horizon, label.up, label.down, scale, side=side)


def _costs(ground: BarrierGround, labels: Labels, rows: np.ndarray) -> np.ndarray:
    # Of the round trips of some rows, fractions of the notional at the entry.
    return ground.rates[rows + 1] + ground.rates[labels.end[rows]] * (1.0 + labels.ret[rows])


def _sharpes(ground: BarrierGround, bets: Labels, side: np.ndarray, block: slice) -> tuple[float, float]:
    # No two blocks share a bar.
    inside = decided(block, bets.horizon)
    rows = inside.start + np.flatnonzero(bets.known[inside] & (side[inside] != 0))
    if rows.size < 2:
        return 0.0, 0.0
    # A bet takes its length, and so many rows are waited through for one.
    waited = (inside.stop - inside.start) / rows.size - 1.0
    length = float((bets.end[rows] - rows).mean()) + waited
    root = math.sqrt(ground.bars.bars_per_year / length)
    gross = side[rows] * bets.ret[rows]
    both = (gross - _costs(ground, bets, rows), gross)
    net, before = (_ratio(returns) * root for returns in both)
    return net, before


def _ratio(returns: np.ndarray) -> float:
    deviation = float(returns.std(ddof=1))
    return float(returns.mean()) / deviation if deviation > ROUNDING else 0.0


class BarrierFitness:
    """The fitness of genomes: what an :class:`ga.evaluation.Evaluator` calls.

    Parameters
    ----------
    ground : BarrierGround
        Of training rows alone.
    config : FitnessConfig
    barriers : callable
        Genes (d,) to the LabelConfig they mean.
    """

    def __init__(
        self, ground: BarrierGround, config: FitnessConfig, barriers: Callable[[np.ndarray], LabelConfig]
    ) -> None:
        self.ground = ground
        self.config = config
        self._barriers = barriers

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return fitness and Sharpe ratio per bar of each genome, float64 (m, 2), of genes (m, d)."""
        per_bar = 1.0 / math.sqrt(self.ground.bars.bars_per_year)
        found = np.empty((len(genes), 2))
        for row, one in enumerate(genes):
            figures = judged(self.ground, self._barriers(one))
            found[row] = figures.fitness(self.config), figures.sharpe * per_bar
        return found

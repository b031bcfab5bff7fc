"""Blenders whose weights are learned on validation rows and stay: ``validated`` and ``bma``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from configs.load import Config
from ensemble.blenders import (
    BLENDERS,
    Blender,
    Rows,
    SavedBlender,
    blended,
    least_rows,
    net_returns,
    opinions,
    shared,
)
from ensemble.signals import earned, known_return
from market.splits import folds

#: Fewer finished decisions than this teach nothing.
LEAST_ROWS = 100
#: Rows left out on both sides of a held-out block: a decision is paid over two bars.
GAP_ROWS = 2
#: A standard deviation below this is rounding.
STILL = 1e-12
#: How far weights may be shrunk to equal ones, in the order in which a tie is decided.
INTENSITIES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)


class ValidatedConfig(Config):
    """How ``validated`` learns its weights."""

    blocks: int = Field(
        6, ge=2, le=100, description="Blocks of time, each held out once, that choose the shrinkage."
    )
    caution: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Standard errors by which unequal weights must beat equal ones on held-out blocks.",
    )
    by_regime: bool = Field(
        False, description="Whether each regime with enough rows has weights, shrunk to those of all rows."
    )
    regime_rows: int = Field(
        500,
        ge=LEAST_ROWS,
        le=1_000_000,
        description="Validation rows that a regime needs for its own weights.",
    )


@BLENDERS.register("validated")
class Validated(Blender):
    """The weights with the best net Sharpe ratio on the validation rows, shrunk to equal ones.

    Zero or more, with the sum 1. What is weighed are the members' net returns, each after the cost of its
    own turnover. Three things hold the weights back, as the best ones of a sample are mostly its luck: the
    members' Sharpe ratios are moved to their mean as far as luck explains them; the covariance is shrunk
    (Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices"); and
    the result is mixed with equal weights. Blocks of time that are held out in turn decide how much: chosen
    is the mixture that gains most in Sharpe ratio over equal weights, less ``caution`` standard errors of
    that gain. Equal weights gain nothing and risk nothing, so they are what is left without evidence.

    Attributes
    ----------
    weights : float64 (k + 1, s)
        Of each regime, and at last where no regime is in force; all the same unless ``by_regime``.
    shrinkage : float64 (k + 1,)
        Share of the prior in each: of equal weights, or of those of all rows for a regime of its own.
    """

    name = "validated"
    Config = ValidatedConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.weights = np.zeros((1, 0))
        self.shrinkage = np.ones(1)

    def _learn(self, rows: Rows, seed: int) -> None:
        from threadpoolctl import threadpool_limits

        net = net_returns(rows.signals.values, rows.bars, self.cost)
        known = ~np.isnan(rows.signals.values[: len(net)])
        label = rows.labels.column("label")[: len(net)]
        least_rows(self._place, len(net), max(LEAST_ROWS, 10 * self.config.blocks), rows.bars.time[-1])
        s, k = len(self.members), self.n_regimes
        with threadpool_limits(1):  # BLAS splits sums by threads, and a fit must not depend on their number
            weights, shrinkage = self._learned(net, known, np.full(s, 1.0 / s))
            self.weights, self.shrinkage = np.tile(weights, (k + 1, 1)), np.full(k + 1, shrinkage)
            for regime in range(k if self.config.by_regime else 0):
                own = label == regime
                if own.sum() >= max(self.config.regime_rows, 10 * self.config.blocks):
                    learned = self._learned(net[own], known[own], weights)
                    self.weights[regime], self.shrinkage[regime] = learned

    def _learned(self, net: np.ndarray, known: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, float]:
        # Weights (s,) and the share of the prior in them.
        levels = np.array(INTENSITIES)
        returns = np.empty((len(net), levels.size))
        for block in folds(len(net), self.config.blocks):
            others = np.ones(len(net), dtype=bool)
            others[max(block.start - GAP_ROWS, 0) : block.stop + GAP_ROWS] = False
            best = sharpest(net[others])
            best = prior if best is None else best
            tried = levels[:, None] * prior + (1.0 - levels[:, None]) * best
            returns[block] = mixed(net[block], known[block], tried)
        spread = returns.std(axis=0)
        units = returns / np.where(spread > STILL, spread, 1.0)
        gain = units - units[:, :1]  # its mean is a difference of Sharpe ratios
        error = gain.std(axis=0) / np.sqrt(len(gain))
        level = float(levels[np.argmax(gain.mean(axis=0) - self.config.caution * error)])
        best = sharpest(net)
        if best is None:
            return prior, 1.0
        weights = level * prior + (1.0 - level) * best
        return weights / weights.sum(), level

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals = rows.signals.values
        weights = shared(signals, self.weights[rows.labels.column("label").astype(np.int64)])
        return weights, blended(signals, weights)

    def _parameters(self) -> Mapping[str, Any]:
        return {"weights": self.weights, "shrinkage": self.shrinkage}

    def _restore(self, saved: SavedBlender) -> None:
        self.weights = saved.shares("weights", (self.n_regimes + 1, len(self.members)))
        self.shrinkage = saved.array("shrinkage", (self.n_regimes + 1,))


def sharpest(net: np.ndarray) -> np.ndarray | None:
    """Return the weights of zero or more, with the sum 1, of the best Sharpe ratio.

    Parameters
    ----------
    net : float64 (n, s)
        Returns of each member.

    Returns
    -------
    float64 (s,) or None
        None where no mixture has earned anything. Means are :func:`pooled`. The ratio does not change with
        the size of weights, so the best ones solve ``min w'Cw / 2 - m'w`` over w >= 0, a least-squares
        problem with non-negative unknowns; C is the Ledoit-Wolf covariance of the standardised returns.
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import nnls
    from sklearn.covariance import ledoit_wolf

    spread = net.std(axis=0)
    moves = spread > STILL
    if not moves.any():
        return None
    units = net[:, moves] / spread[moves]
    ratios = pooled(units.mean(axis=0), len(net))
    correlation = ledoit_wolf(units)[0]
    # Members that say the same make it singular; a grain on the diagonal divides the weight among them.
    root = cholesky(correlation + 1e-8 * np.eye(len(correlation)), lower=True)
    found = nnls(root.T, solve_triangular(root, ratios, lower=True))[0]
    weights = np.zeros(net.shape[1])
    weights[moves] = found / spread[moves]
    total = weights.sum()
    return weights / total if total > 0.0 else None


def pooled(ratios: np.ndarray, n: int) -> np.ndarray:
    """Return Sharpe ratios per bar (s,), moved to their mean as far as the luck of n rows explains them.

    Their variance about the mean is that of luck, ``1 / n``, and that of merit; the share of merit is kept
    (empirical Bayes, after James and Stein 1961, "Estimation with quadratic loss").
    """
    if ratios.size < 2:
        return ratios
    spread = float(ratios.var(ddof=1))
    kept = max(0.0, 1.0 - 1.0 / (n * spread)) if spread > 0.0 else 0.0
    return ratios.mean() + kept * (ratios - ratios.mean())


def mixed(net: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the net returns of each of some weights, float64 (n, w).

    Parameters
    ----------
    net : float64 (n, s)
    known : bool (n, s)
        Whether a member has an opinion; the others share the weight of those without.
    weights : float64 (w, s)
    """
    total = np.einsum("ns,ws->nw", known.astype(np.float64), weights)
    return np.einsum("ns,ws->nw", net * known, weights) / np.where(total > 0.0, total, 1.0)


class BmaConfig(Config):
    """What ``bma`` believes before it sees the validation rows."""

    slope: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Scale of the prior of a full signal's worth: expected return over volatility, per bar.",
    )
    temperature: float = Field(
        1.0, ge=0.01, le=1000, description="Log scores are divided by it: above 1, weights are more equal."
    )
    volatility_half_life_bars: float = Field(
        72.0, ge=1, le=1e6, description="Half-life of the volatility that returns are measured in."
    )
    clip: float = Field(4.0, gt=0, le=100, description="Returns beyond so many volatilities count as these.")


@BLENDERS.register("bma")
class BayesianAverage(Blender):
    """Members weigh by their posterior probability, given how well they foretold the validation rows.

    Member i says that the next return, in volatilities, is normal with variance 1 around ``b s``: its signal
    times a slope that nobody knows. A priori the slope is half-normal, so that a member is never believed to
    mean the opposite. The marginal likelihood is the product of the predictive densities of one row after the
    other (the prequential log score), and has a closed form. Members are equally probable a priori; a row
    on which one has no opinion, or is flat, is foretold by the plain normal law. What trading costs does not
    enter: this is about who foretells.

    Attributes
    ----------
    log_score : float64 (s,)
        Nats by which a member has foretold the rows better than no signal at all.
    weights : float64 (s,)
        Of members; they divide it among those with an opinion.

    Source: Hoeting, Madigan, Raftery and Volinsky (1999), "Bayesian model averaging: a tutorial"; Dawid
    (1984), "Statistical theory: the prequential approach".
    """

    name = "bma"
    Config = BmaConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.log_score = self.weights = np.zeros(0)

    def _learn(self, rows: Rows, seed: int) -> None:
        config = self.config
        moves = in_volatilities(rows, config.volatility_half_life_bars, config.clip)
        known = np.isfinite(moves)
        least_rows(self._place, int(known.sum()), LEAST_ROWS, rows.bars.time[-1])
        self.log_score = log_scores(opinions(rows.signals.values[known]), moves[known], config.slope)
        powers = np.exp((self.log_score - self.log_score.max()) / config.temperature)
        self.weights = powers / powers.sum()

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals = rows.signals.values
        weights = shared(signals, self.weights)
        return weights, blended(signals, weights)

    def _parameters(self) -> Mapping[str, Any]:
        return {"log_score": self.log_score, "weights": self.weights}

    def _restore(self, saved: SavedBlender) -> None:
        self.log_score = saved.array("log_score", (len(self.members),))
        self.weights = saved.shares("weights", (len(self.members),))


def in_volatilities(rows: Rows, half_life: float, clip: float) -> np.ndarray:
    """Return what each decision earns before costs, in volatilities as known at its close, float64 (n,).

    The volatility is the root of an exponentially weighted mean of squared returns from open to open. NaN
    where nothing has moved yet, and in the last two rows.
    """
    from scipy.signal import lfilter

    squares = np.nan_to_num(known_return(rows.bars)) ** 2
    decay = 0.5 ** (1.0 / half_life)
    weight = lfilter([1.0], [1.0, -decay], (np.arange(squares.size) > 0).astype(np.float64))
    mean = lfilter([1.0], [1.0, -decay], squares) / np.maximum(weight, 1e-300)
    volatility = np.sqrt(np.where(mean > 0.0, mean, np.nan))
    return np.clip(earned(rows.bars) / volatility, -clip, clip)


def log_scores(signals: np.ndarray, moves: np.ndarray, slope: float) -> np.ndarray:
    """Return the log marginal likelihood of each member less that of no signal, float64 (s,), nats.

    Parameters
    ----------
    signals : float64 (n, s)
        0 where a member has no opinion.
    moves : float64 (n,)
        Returns in volatilities; normal around slope times signal, with variance 1.
    slope : float
        Scale of the half-normal prior of the slope.
    """
    from scipy.special import log_ndtr

    products = (signals * moves[:, None]).sum(axis=0)
    variance = 1.0 / (1.0 / slope**2 + (signals**2).sum(axis=0))
    mean = variance * products
    # The integral of prior times likelihood: a normal one, cut at 0.
    return (
        np.log(2.0)
        + log_ndtr(mean / np.sqrt(variance))
        + 0.5 * np.log(variance / slope**2)
        + 0.5 * mean**2 / variance
    )

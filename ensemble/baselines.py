"""What a strategy has to beat: nothing here takes skill, or nothing here knows of regimes.

Every baseline is traded on the same rows, at the same costs, and (buy and hold aside) sized to the same
volatility by the same rule, so that none of them looks worse for its risk.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, BacktestResult, simulate
from backtest.venue import Venue
from ensemble.fold_result import FoldResult
from ensemble.signals import Member
from ensemble.sizing import Sizing, SizingConfig
from market.bars import Bars
from market.table import Table

#: Mean of how many closes the trend follower compares with that of the slow one.
FAST, SLOW = 48, 192
HOLD, SIZED_HOLD, TREND = "buy and hold", "hold at the same volatility", "moving-average trend"
GENERALIST, ALWAYS_ON = "one generalist, same budget", "specialists always on"
RANDOM, BEST_FORECASTER, CONSTANT = "random routing", "best single forecaster", "constant exposure"


def targets_on(bars: Bars, rows: slice, exposure: np.ndarray) -> Table:
    """Return targets of bars, Table (n, 1): the exposure of some rows, float64 (m,), flat elsewhere."""
    wanted = np.zeros((len(bars), 1))
    wanted[rows, 0] = exposure
    return Table(bars.time, wanted, TARGETS[:1])


class Trading:
    """Trades signals on the test rows, all in the same way.

    Parameters
    ----------
    bars : Bars (n,)
    rows : slice
        The test rows.
    sizing : SizingConfig
    costs, limits, venue : Costs, RiskLimits, Venue
    regimes : int8 (m,)
        Causal labels of the test rows, to note on trades.
    """

    def __init__(
        self,
        bars: Bars,
        rows: slice,
        sizing: SizingConfig,
        costs: Costs,
        limits: RiskLimits,
        venue: Venue,
        regimes: np.ndarray,
    ) -> None:
        self.bars, self.rows, self.sizing = bars, rows, sizing
        self.costs, self.limits, self.venue = costs, limits, venue
        self.regimes = regimes

    def exposure(self, exposure: np.ndarray, limits: RiskLimits | None = None) -> BacktestResult:
        """Return what exposures of the test rows earn, from a flat start; float64 (m,)."""
        bars = self.bars[: self.rows.stop]
        labels = np.full(len(bars), -1, np.int8)
        labels[self.rows] = self.regimes
        return simulate(
            targets_on(bars, self.rows, exposure), bars, self.costs, limits or self.limits,
            venue=self.venue, rows=self.rows, regimes=labels,
        )  # fmt: skip

    def signal(self, signal: np.ndarray) -> BacktestResult:
        """Return what a signal of the test rows earns once it is sized, float64 (m,) in [-1, 1]."""
        return self.exposure(self.sized(signal))

    def sized(self, signal: np.ndarray) -> np.ndarray:
        """Return the exposure of a signal of the test rows; volatility is known from the rows before."""
        bars = self.bars[: self.rows.stop]
        whole = np.zeros(len(bars))
        whole[self.rows] = np.nan_to_num(signal)
        return Sizing(self.sizing).update(bars, whole)[self.rows]

    def held(self) -> BacktestResult:
        """Return what buying once and holding earns: nothing protects it, for that would be a strategy."""
        return self.exposure(np.ones(self.rows.stop - self.rows.start), self.unprotected())

    def unprotected(self) -> RiskLimits:
        """Return the limits of whoever holds: the largest exposure, and no stop."""
        return RiskLimits(max_exposure=self.limits.max_exposure, long_only=self.limits.long_only, stop=None)


def baselines(
    trading: Trading, results: Sequence[FoldResult], roster: Sequence[Member], strategy: BacktestResult
) -> tuple[dict[str, BacktestResult], tuple[float, ...]]:
    """Return the baselines by name, and the annual Sharpe ratios of all random routings.

    Parameters
    ----------
    trading : Trading
    results : sequence of FoldResult
        In order.
    roster : sequence of Member
    strategy : BacktestResult
        Whose mean exposure the constant one has.
    """
    m = trading.rows.stop - trading.rows.start
    found = {
        HOLD: trading.held(),
        SIZED_HOLD: trading.signal(np.ones(m)),
        TREND: trading.signal(trend(trading.bars[: trading.rows.stop])[trading.rows]),
    }
    mean = float(strategy.curve.column("exposure").mean())
    found[CONSTANT] = trading.exposure(np.full(m, mean), trading.unprotected())
    if all(result.generalist is not None for result in results):
        found[GENERALIST] = trading.signal(np.concatenate([result.generalist for result in results]))
    draws: list[float] = []
    if any(member.kind == "specialist" for member in roster):
        found[ALWAYS_ON] = trading.signal(np.concatenate([result.always_on for result in results]))
        paths = np.concatenate([result.random_routing for result in results])
        routed = [trading.signal(path) for path in paths.T]
        draws = [one.metrics.sharpe for one in routed]
        if routed:  # the one in the middle stands for all of them; the report shows their spread
            found[RANDOM] = routed[int(np.argsort(draws, kind="stable")[len(draws) // 2])]
    return found, tuple(draws)


def best_forecaster(
    members: Mapping[str, BacktestResult], roster: Sequence[Member]
) -> dict[str, BacktestResult]:
    """Return the forecaster that did best on these very rows: a rival picked with hindsight, in its favor."""
    names = [member.name for member in roster if member.kind == "forecaster"]
    if not names:
        return {}
    best = max(names, key=lambda name: members[name].metrics.sharpe)
    return {f"{BEST_FORECASTER} ({best})": members[best]}


def trend(bars: Bars) -> np.ndarray:
    """Return 1 where the mean of the last 48 closes lies above that of the last 192, else -1."""
    close = bars.column("close")
    total = np.concatenate([[0.0], np.cumsum(close)])
    out = np.zeros(len(bars))
    if len(bars) >= SLOW:
        rows = np.arange(SLOW, len(bars) + 1)
        fast = (total[rows] - total[rows - FAST]) / FAST
        slow = (total[rows] - total[rows - SLOW]) / SLOW
        out[SLOW - 1 :] = np.where(fast > slow, 1.0, -1.0)
    return out

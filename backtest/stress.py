"""Stress: what is left of a result when costs, delays, dates or the path of the market turn against it.

Five questions to one set of decisions: what happened in the named crises; at which costs is nothing left;
does one more bar of delay break it; how far do its returns spread in another order; and, where the rule can
be asked again, what does it do on markets that never were. :func:`stress` asks all of them.

Nothing here decides anything: it is hindsight, for reports.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backtest.bootstrap import (
    LEAST_ROWS,
    Paths,
    best_block,
    bootstrap_bars,
    bootstrap_returns,
    check_block,
    check_paths,
    path_figures,
)
from backtest.costs import Costs
from backtest.crises import CRISES, Crisis, crisis_windows, price_returns
from backtest.limits import RiskLimits
from backtest.metrics import Metrics
from backtest.simulate import simulate
from backtest.stress_report import CostStress, Markets, StressReport, Variant
from compute.seeds import stream
from compute.workers import Mapper, SerialMapper
from configs.load import ConfigError
from market.bars import Bars
from market.table import DataError, Table, utc

FACTORS = (0.5, 1.0, 1.5, 2.0, 3.0)
DELAYS = (0, 1, 2)
MOST_COSTS = 100.0  # times the costs: where the search for the break-even ends
_PRECISION = 1e-3  # of the break-even, relative
_LEAST_FACTOR = 1e-6
_CUTS = 5  # places at which a rule must decide the same with and without the bars that follow

#: Bars in, targets of :func:`backtest.simulate.simulate` on the same clock out.
Rule = Callable[[Bars], Table]


def stress(
    targets: Table,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    seed: int,
    decide: Rule | None = None,
    crises: Sequence[Crisis] = CRISES,
    factors: Sequence[float] = FACTORS,
    delays: Sequence[int] = DELAYS,
    n_paths: int = 10_000,
    n_markets: int = 200,
    mean_block: float | None = None,
    ruin: float = 0.5,
    workers: Mapper | None = None,
    **account: Any,
) -> StressReport:
    """Return the answers to all five questions.

    Parameters
    ----------
    targets, bars, costs, limits
        As :func:`backtest.simulate.simulate` takes them.
    seed : int
        Of the bootstrap paths.
    decide : callable, optional
        The rule behind the targets, for :func:`path_stress`; without it that question is not asked.
    crises, factors, delays
        See :func:`backtest.crises.crisis_windows`, :func:`cost_stress`, :func:`delay_stress`.
    n_paths, n_markets : int
        Paths of the returns, and paths of the market.
    mean_block : float, optional
        Of both bootstraps, bars; None for the automatic choice of each, which needs the library ``arch``.
    ruin : float
        Equity over its start at which a path counts as ruined, in (0, 1).
    workers : Mapper, optional
        Spreads the paths of the market.
    **account
        Further keywords of ``simulate``: venue, rows, regimes, capital, close_last.

    Raises
    ------
    DataError, ConfigError
        As the functions named raise them.
    """
    result = simulate(targets, bars, costs, limits, **account)
    returns = bootstrap_returns(
        result.curve.column("net_return"),
        bars.bars_per_year,
        seed=seed,
        n_paths=n_paths,
        mean_block=mean_block,
        ruin=ruin,
    )
    markets = None
    if decide is not None:
        markets = path_stress(
            decide,
            bars,
            costs,
            limits,
            seed=seed,
            n_paths=n_markets,
            mean_block=mean_block,
            ruin=ruin,
            workers=workers,
            **account,
        )
    return StressReport(
        label=bars.label,
        start=int(result.curve.time[0]) - bars.interval_ns,
        end=int(result.curve.time[-1]),
        assumptions=result.assumptions,
        crises=crisis_windows(bars, result, crises),
        costs=cost_stress(targets, bars, costs, limits, factors=factors, **account),
        delays=delay_stress(targets, bars, costs, limits, delays=delays, **account),
        returns=returns,
        markets=markets,
    )


def cost_stress(
    targets: Table,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    factors: Sequence[float] = FACTORS,
    most: float = MOST_COSTS,
    **account: Any,
) -> CostStress:
    """Return what the decisions would have paid at multiples of the costs, and where nothing is left.

    Parameters
    ----------
    targets, bars, costs, limits, **account
        As :func:`backtest.simulate.simulate` takes them. What ``Costs.scaled`` scales is multiplied; funding
        is a price of the market and is not.
    factors : sequence of float
        Zero or more; 1 gives the plain result.
    most : float
        Where the search for the break-even ends.

    Returns
    -------
    CostStress
        The break-even is found by bisection on whole simulations, to one part in a thousand. A breaker
        (daily loss, drawdown) can make the return cross zero more than once; then it is one of the crossings.

    Raises
    ------
    ConfigError
        If a factor is negative or not finite.
    """
    for factor in (*factors, most):
        if not 0 <= factor < math.inf:
            raise ConfigError(f"cost stress: a factor is {factor}; it must be zero or more, and finite")

    def at(factor: float) -> Metrics:
        return simulate(targets, bars, costs.scaled(factor), limits, **account).metrics

    break_even, verdict = _break_even(at, most)
    return CostStress(tuple(Variant(float(f), at(f)) for f in factors), break_even, verdict)


def delay_stress(
    targets: Table,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    delays: Sequence[int] = DELAYS,
    **account: Any,
) -> tuple[Variant, ...]:
    """Return what the decisions would have paid if each had been filled some bars later still.

    Parameters
    ----------
    targets, bars, costs, limits, **account
        As :func:`backtest.simulate.simulate` takes them.
    delays : sequence of int
        Bars on top of ``costs.delay_bars``, zero or more; 0 gives the plain result.

    Raises
    ------
    ConfigError
        If a delay is negative.
    """
    variants = []
    for extra in delays:
        if extra < 0:
            raise ConfigError(f"delay stress: a delay is {extra}; it must be zero or more bars")
        late = costs.model_copy(update={"delay_bars": costs.delay_bars + extra})
        variants.append(Variant(extra, simulate(targets, bars, late, limits, **account).metrics))
    return tuple(variants)


def path_stress(
    decide: Rule,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    seed: int,
    n_paths: int = 200,
    mean_block: float | None = None,
    ruin: float = 0.5,
    workers: Mapper | None = None,
    **account: Any,
) -> Markets:
    """Return what a rule does on bootstrap paths of the market.

    A rule that was chosen on these bars may owe its result to their order. On the paths of
    :func:`backtest.bootstrap.bootstrap_bars` the blocks are the same and the order is not.

    Parameters
    ----------
    decide : callable
        Sees the bars it is given and nothing else. Row t of its targets must depend on bars up to t alone;
        this is tried on the real bars, at a few places.
    bars, costs, limits, **account
        As :func:`backtest.simulate.simulate` takes them.
    seed : int
        Path i depends on the seed, the bars and i alone.
    n_paths : int
    mean_block : float, optional
        Bars; None for :func:`backtest.bootstrap.best_block` of the log returns.
    ruin : float
        Equity over its start at which a path counts as ruined, in (0, 1).
    workers : Mapper, optional
        Spreads the paths; the numbers are the same with any. ``decide`` must then bear threads.

    Raises
    ------
    DataError
        If there are too few bars, or the rule decides otherwise once later bars are known.
    ConfigError
        If a setting is out of bounds, or the automatic block length needs a library that is missing.
    """
    check_paths(n_paths, ruin)
    rows = account.get("rows", slice(None))
    if len(bars[rows]) < LEAST_ROWS:
        raise DataError(f"{bars.label}: {len(bars[rows])} bars to trade; paths need at least {LEAST_ROWS}")
    mean_block = best_block(np.log1p(price_returns(bars))) if mean_block is None else mean_block
    check_block(mean_block)
    targets = decide(bars)
    _refuse_foresight(decide, bars, targets)

    def figures(market: Bars, wanted: Table) -> np.ndarray:
        earned = simulate(wanted, market, costs, limits, **account).curve.column("net_return")
        return path_figures(np.stack([earned, price_returns(market)[rows]]), market.bars_per_year)

    def one(path: int) -> np.ndarray:
        market = bootstrap_bars(bars, stream(seed, "stress", "bars", path), mean_block)
        return figures(market, decide(market))

    found = np.stack((workers or SerialMapper()).map(one, range(n_paths)), axis=1)
    taken = figures(bars, targets)
    account_paths, held_paths = (Paths.of(found[i], taken[i], mean_block, ruin) for i in range(2))
    return Markets(account_paths, held_paths)


def _break_even(at: Callable[[float], Metrics], most: float) -> tuple[float | None, str]:
    free = at(0.0)
    if not free.turnover > 0:
        return None, "Nothing is traded: no costs, no break-even."
    if free.total_return <= 0:
        return None, "There is no break-even: nothing is earned even without costs."
    low, high = 0.0, min(1.0, most)
    while at(high).total_return > 0:
        if high >= most:
            return None, f"There is no break-even up to {most:g} times the costs."
        low, high = high, min(2.0 * high, most)
    while high - low > max(_PRECISION * high, _LEAST_FACTOR):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).total_return > 0 else (low, middle)
    factor = (low + high) / 2
    return factor, f"The total return is zero at {factor:.3g} times the costs."


def _refuse_foresight(decide: Rule, bars: Bars, targets: Table) -> None:
    for cut in (len(bars) * i // (_CUTS + 1) for i in range(1, _CUTS + 1)):
        early, late = decide(bars[:cut]).values, targets.values[:cut]
        if early.shape != late.shape:
            raise DataError(
                f"decide: targets of shape {early.shape} for {cut} bars and {targets.values.shape} for "
                f"{len(bars)}; there must be one row for each bar, and the same columns"
            )
        differs = ~np.isclose(early, late, rtol=1e-9, atol=1e-12, equal_nan=True).all(axis=1)
        if differs.any():
            row = int(np.argmax(differs))
            raise DataError(
                f"decide: the target at {utc(bars.time[row])} is {early[row].tolist()} as of "
                f"{utc(bars.time[cut - 1])}, and {late[row].tolist()} once later bars are known; it must "
                f"depend on bars up to its own alone"
            )

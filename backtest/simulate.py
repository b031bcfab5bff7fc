"""``simulate``: what given decisions would have paid, with every fill, cost and trade on record."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from backtest import kernels
from backtest.costs import LIQUIDITY_BARS, Costs
from backtest.limits import RiskLimits
from backtest.metrics import Metrics, measure
from backtest.terms import Terms
from backtest.venue import Venue
from market.bars import Bars
from market.table import DataError, Table, same_rows

TARGETS = ("exposure", "stop", "take")
REASONS = ("signal", "stop", "take", "last bar", "ruin", "liquidation", "halt")
NO_REGIME = -1
CAPITAL = 10_000.0  # of an account where nothing else is said, quote currency

TRADE_DTYPE = np.dtype(
    [
        ("entry_time", "i8"),
        ("exit_time", "i8"),
        ("side", "i1"),
        ("entry_price", "f8"),
        ("exit_price", "f8"),
        ("quantity", "f8"),
        ("pnl", "f8"),
        ("fees", "f8"),
        ("slippage", "f8"),
        ("funding", "f8"),
        ("mae", "f8"),
        ("mfe", "f8"),
        ("bars", "i8"),
        ("regime", "i1"),
        ("reason", "i1"),
    ]
)


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """What an account did.

    Parameters
    ----------
    curve : Table (n, 8)
        equity [quote currency] at the close; net_return of the bar after all costs; exposure left after
        the close (signed, fraction of equity); turnover (notional traded over equity before); fees,
        slippage and funding paid [quote currency]; quantity after the close [base currency].
    trades : record array (m,) of TRADE_DTYPE
        One per round trip. Times in nanoseconds UTC (an exit inside a bar is stamped with its close);
        reference prices of the first and the last fill; the largest quantity; pnl after fees, slippage
        and funding, all in quote currency. ``mae`` and ``mfe`` are how far the price went against and in
        favour of the trade, fractions of the entry price; of a bar that stops it out only the exit
        counts. ``regime`` is the label at the decision to enter, -1 where none was given; ``reason``
        indexes ``REASONS``.
    capital : float
        Equity at the start, quote currency.
    bars_per_year : float
        For annual figures: a year has 365 days.
    assumptions : tuple of str
        How fills and costs were assumed, one sentence each.
    """

    curve: Table
    trades: np.ndarray
    capital: float
    bars_per_year: float
    assumptions: tuple[str, ...]

    @cached_property
    def metrics(self) -> Metrics:
        """Performance after all costs."""
        return measure(
            self.curve.column("net_return"),
            self.curve.column("exposure"),
            self.trades["pnl"],
            self.curve.column("turnover"),
            self.bars_per_year,
        )

    def save(self, folder: Path) -> None:
        """Write ``equity.parquet`` and ``trades.parquet`` into a folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        stamp = pa.timestamp("ns", tz="UTC")
        curve = {"time": pa.array(self.curve.time, stamp)}
        curve |= {name: pa.array(self.curve.column(name)) for name in self.curve.names}
        trades = {}
        for name in TRADE_DTYPE.names:
            column = np.ascontiguousarray(self.trades[name])
            if name.endswith("_time"):
                trades[name] = pa.array(column, stamp)
            elif name == "reason":
                trades[name] = pa.array([REASONS[code] for code in column], pa.string())
            else:
                trades[name] = pa.array(column)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(curve), folder / "equity.parquet")
        pq.write_table(pa.table(trades), folder / "trades.parquet")


def simulate(
    targets: Table,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    venue: Venue | None = None,
    rows: slice = slice(None),
    regimes: np.ndarray | None = None,
    capital: float = CAPITAL,
    close_last: bool = True,
) -> BacktestResult:
    """Return what the decisions would have paid.

    What is decided at the close of bar t is executed at the open of bar t+1. A target that does not change
    trades nothing: the quantity stays and its weight drifts with the price. After a stop or a target the
    account is flat, and an exposure that is still wanted opens again at the next open. After a liquidation
    it stays flat until the target changes.

    Parameters
    ----------
    targets : Table (n, 1) or (n, 3)
        ``exposure`` (signed fraction of equity) and, if given, ``stop`` and ``take``: distances from the
        fill as fractions of the open, infinite for none. They are set when the exposure changes. A NaN
        exposure means flat.
    bars : Bars (n,)
        On the same clock.
    costs, limits : Costs, RiskLimits
        Liquidity is measured on all bars, also those before ``rows``.
    venue : Venue, optional
        The exchange's rules; the synthetic venue where none is given. A perpetual reads the columns
        ``funding``, ``funding_inside``, ``mark_high`` and ``mark_low`` of the bars where they are there.
    rows : slice
        Rows to trade; the account starts flat on the first of them.
    regimes : int8 (n,), optional
        Labels to note on trades.
    capital : float
        Equity at the start, quote currency.
    close_last : bool
        Close an open position at the last close (costs included) and mark the trade ``last bar``.

    Returns
    -------
    BacktestResult

    Raises
    ------
    DataError
        If clocks differ or the columns are not those of a target.
    ConfigError
        If the limits allow what the venue does not.
    """
    venue = Venue() if venue is None else venue
    same_rows(bars, targets)
    if targets.names not in (TARGETS, TARGETS[:1]):
        raise DataError(f"targets have columns {targets.names}; they must be exposure, or {TARGETS}")
    if rows.step not in (None, 1):
        raise DataError(f"simulate: rows have step {rows.step}; an account trades every bar, step 1")
    first, last, _ = rows.indices(len(bars))
    wanted = np.full((len(bars), 3), np.inf)
    wanted[:, : targets.values.shape[1]] = targets.values
    if np.isnan(wanted[:, 1:]).any() or (wanted[:, 1:] < 0).any():
        raise DataError(
            "targets: a stop or take distance is negative or NaN; it must be a fraction or infinite"
        )
    delayed = _delayed(wanted[first:last], costs.delay_bars)
    time = bars.time[first:last]
    n = time.size
    prices = np.ascontiguousarray(bars.values[first:last, :4])
    terms = Terms.of(bars, costs, limits, venue, capital).only(slice(first, last))
    curve = np.empty((n, len(kernels.CURVE)))
    trades = np.empty((2 * n + 1, len(kernels.TRADE)))
    count = kernels.simulate_targets(
        delayed, prices, terms.bars, terms.bounds, terms.venue, terms.tiers, close_last, curve, trades
    )
    labels = None if regimes is None else regimes[first:last]
    return BacktestResult(
        curve=Table(time, curve, kernels.CURVE),
        trades=_trade_records(trades[:count], time, bars.interval_ns, labels, costs.delay_bars),
        capital=capital,
        bars_per_year=bars.bars_per_year,
        assumptions=(
            *_assumptions(bars, costs, limits, venue, close_last),
            _busiest(curve, bars, first, last, costs),
        ),
    )


def hold(bars: Bars, exposure: float = 1.0) -> Table:
    """Return the targets of buying once and holding; trade them with ``RiskLimits(stop=None)``."""
    return Table(bars.time, np.full((len(bars), 1), exposure), TARGETS[:1])


def _delayed(wanted: np.ndarray, bars: int) -> np.ndarray:
    if bars == 0:
        return np.ascontiguousarray(wanted)
    late = np.full_like(wanted, np.inf)
    late[:bars, 0] = 0.0
    late[bars:] = wanted[:-bars]
    return late


def _trade_records(
    raw: np.ndarray, time: np.ndarray, interval_ns: int, labels: np.ndarray | None, delay: int
) -> np.ndarray:
    records = np.zeros(len(raw), dtype=TRADE_DTYPE)
    entry, leave = raw[:, 0].astype(np.int64), raw[:, 1].astype(np.int64)
    columns = {name: raw[:, i] for i, name in enumerate(kernels.TRADE)}
    # A trade that ends at an open ends before the bar of that open: at the close of the bar before.
    at_open = np.isin(columns["reason"], (kernels.SIGNAL, kernels.HALTED))
    records["entry_time"] = time[entry] - interval_ns
    records["exit_time"] = time[leave] - np.where(at_open, interval_ns, 0)
    for name in TRADE_DTYPE.names:
        if name in columns:
            records[name] = columns[name]
    records["bars"] = leave - entry + np.where(at_open, 0, 1)
    records["regime"] = NO_REGIME if labels is None else labels[np.maximum(entry - 1 - delay, 0)]
    records.flags.writeable = False
    return records


# Share of a bar's turnover above which an order would have moved what it traded in.
NOTICEABLE = 0.025


def _busiest(curve: np.ndarray, bars: Bars, first: int, last: int, costs: Costs) -> str:
    traded = curve[:, kernels.CURVE.index("turnover")] * curve[:, 0] / (1.0 + curve[:, 1])
    turnover = (bars.column("close") * bars.column("volume"))[first:last]
    empty = (turnover == 0) & (traded > 0)
    share = float(np.max(traded / np.where(turnover > 0, turnover, np.inf), initial=0.0))
    sentence = f"The busiest bar traded {share:.2g} of its turnover"
    if empty.any():
        sentence += f", and {int(empty.sum())} bars without volume were traded"
    if costs.participation is None and (share > NOTICEABLE or empty.any()):
        sentence += "; costs.participation and costs.size_impact would say what that costs"
    return sentence + "."


def _assumptions(
    bars: Bars, costs: Costs, limits: RiskLimits, venue: Venue, close_last: bool
) -> tuple[str, ...]:
    late = f", {costs.delay_bars} bars late" if costs.delay_bars else ""
    impact = ", ".join(f"{b.impact_bps:g} bps from {b.turnover:,.0f}" for b in costs.impact)
    sized = "orders of any size pay the same rate"
    if costs.size_impact:
        sized = f"size adds {costs.size_impact:g} x volatility x the root of order over turnover"
    target = "as any order"
    if costs.maker_fee_bps is not None:
        target = f"{costs.maker_fee_bps:g} bps and no spread or impact"
    volume = "whole, whatever the bar's volume"
    if costs.participation is not None:
        volume = f"up to {costs.participation:.3g} of the bar's volume, the rest at the next opens"
    bounds = {
        "widest stop": limits.stop,
        "widest target": limits.take,
        "trailing stop": limits.trail,
        "daily loss that halts": limits.daily_loss,
        "drawdown that halts": limits.max_drawdown,
    }
    named = ", ".join(
        f"{name} {'none' if bound is None else f'{bound:.3g}'}" for name, bound in bounds.items()
    )
    side = "long only" if limits.long_only else "long and short"
    return (
        f"A decision at a close is filled at the next open{late}.",
        f"Each side pays a fee of {costs.fee_bps:g} bps, a half spread of {costs.half_spread_bps:g} bps and "
        f"impact by mean turnover of the last {LIQUIDITY_BARS} bars: {impact}; {sized}; a target pays "
        f"{target}.",
        f"Orders fill {volume}.",
        "Stops come before targets when a bar holds both; a gap through a stop fills at the open, a gap "
        "through a target at the target.",
        f"Exposure is at most {limits.max_exposure:g} of equity, {side}; {named} (fractions).",
        venue.described(bars),
        f"A position still open at the end {'is closed at the last close' if close_last else 'stays open'}.",
    )

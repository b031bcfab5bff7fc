"""Whether members differ, and what each adds: correlation, disagreement, contribution, leave-one-out.

All of it looks at past rows and judges; nothing that decides reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from backtest.metrics import sharpe
from ensemble.blenders import Blender, Rows, net_returns, opinions
from ensemble.signals import Member, SignalTable, earned
from experiments.evidence import effective_trials
from market.bars import Bars
from market.table import DataError, same_rows


@dataclass(frozen=True, eq=False)
class Diversity:
    """How much the members of a blend differ, and what each has added to it.

    Parameters
    ----------
    names : tuple of str (s,)
    correlation : float64 (s, s)
        Of the signals, over rows on which both have an opinion; NaN for one that never moves.
    disagreement : float64 (s, s)
        How often they want opposite positions, of the rows on which both want one; NaN where there are none.
    effective_members : float
        How many uncorrelated members the net returns amount to, 0 to s.
    mean : float64 (s,)
        What each has added to the mean net return per bar of the blend.
    risk : float64 (s,)
        Its share in the variance of the blend's net returns; the sum is 1. NaN where nothing moves.
    """

    names: tuple[str, ...]
    correlation: np.ndarray
    disagreement: np.ndarray
    effective_members: float
    mean: np.ndarray
    risk: np.ndarray

    @classmethod
    def of(cls, signals: SignalTable, weights: np.ndarray, bars: Bars, cost: float) -> Self:
        """Return the diversity of signals (n, s) that were blended with weights (n, s)."""
        same_rows(signals, bars)
        net = net_returns(signals.values, bars, cost)
        parts = contributions(signals.values, weights, bars, cost)
        return cls(
            signals.names,
            correlation(signals.values),
            disagreement(signals.values),
            effective_trials(net, "spectrum") if len(net) > 1 else 0.0,
            parts.mean(axis=0) if len(parts) else np.full(len(signals.names), np.nan),
            risk_shares(parts),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; None where a number is not known."""

        def plain(values: np.ndarray) -> Any:
            return [plain(row) for row in values] if values.ndim else _number(values)

        return {
            "names": list(self.names),
            "correlation": plain(self.correlation),
            "disagreement": plain(self.disagreement),
            "effective_members": self.effective_members,
            "mean": plain(self.mean),
            "risk": plain(self.risk),
        }


def correlation(signals: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair of signals, float64 (s, s).

    Over the rows on which both have an opinion. NaN where one of the two does not move on them.
    """
    s = signals.shape[1]
    found = np.full((s, s), np.nan)
    known = ~np.isnan(signals)
    for i in range(s):
        for j in range(i + 1):
            both = known[:, i] & known[:, j]
            pair = signals[both][:, [i, j]]
            if len(pair) > 1 and (pair.min(axis=0) < pair.max(axis=0)).all():
                units = pair - pair.mean(axis=0)
                units /= np.sqrt((units**2).sum(axis=0))
                found[i, j] = found[j, i] = min(max(float(units[:, 0] @ units[:, 1]), -1.0), 1.0)
    return found


def disagreement(signals: np.ndarray) -> np.ndarray:
    """Return how often each pair of members wants opposite positions, float64 (s, s), a fraction.

    Of the rows on which both want one. NaN where there are none.
    """
    side = np.sign(opinions(signals))
    both = np.abs(side).T @ np.abs(side)
    opposite = (both - side.T @ side) / 2.0
    return np.where(both > 0.0, opposite / np.where(both > 0.0, both, 1.0), np.nan)


def contributions(signals: np.ndarray, weights: np.ndarray, bars: Bars, cost: float) -> np.ndarray:
    """Return what each member has added to the net return of the blend, float64 (n - 2, s), fractions.

    A member's part of the position is weight times signal. It earns what that part earns, and pays for its
    part of the blend's turnover: less than nothing where it holds the turnover down. The sum over members is
    the net return of the blend to rounding, for all blenders whose weights are factors (all but ``stack``).

    Parameters
    ----------
    signals, weights : float64 (n, s)
    bars : Bars (n,)
    cost : float
        Fraction paid per unit of turnover.
    """
    if weights.shape != signals.shape or len(signals) != len(bars):
        raise DataError(
            f"contributions: signals are {signals.shape}, weights {weights.shape}, and there are {len(bars)} "
            f"bars; they must be of one shape and on one clock"
        )
    part = opinions(weights * signals)
    change = np.diff(part, axis=0, prepend=np.zeros((1, part.shape[1])))
    side = np.sign(change.sum(axis=1))
    return (part * earned(bars)[:, None] - cost * change * side[:, None])[: max(len(bars) - 2, 0)]


def risk_shares(parts: np.ndarray) -> np.ndarray:
    """Return the share of each member in the variance of the sum, float64 (s,); NaN where it has none.

    The covariance of a part with the sum, over the variance of the sum (Euler's division of risk). Below zero
    for a member that makes the sum calmer.
    """
    if len(parts) < 2:
        return np.full(parts.shape[1], np.nan)
    apart = parts - parts.mean(axis=0)
    whole = apart.sum(axis=1)
    variance = float(whole @ whole)
    return whole @ apart / variance if variance > 0.0 else np.full(parts.shape[1], np.nan)


class Ablation(NamedTuple):
    """A blend without one member: its name, the annual net Sharpe ratio without it, and what that loses.

    ``lost`` above zero: the blend is better with the member. NaN where a blend never moves.
    """

    name: str
    without: float
    lost: float


def ablation(
    blender: Blender, past: Rows, rows: Rows, *, members: Sequence[Member], cost: float, seed: int
) -> tuple[float, tuple[Ablation, ...]]:
    """Return the annual net Sharpe ratio of a blender, and what leaving out each member does to it.

    The blender is fitted again without the member on the same past rows; what it would have learned without
    it is judged on the same later ones.

    Parameters
    ----------
    blender : Blender
        Its class and settings; it is not fitted itself.
    past : Rows
        What blenders are fitted on.
    rows : Rows
        Later ones, on which they are judged, from flat.
    members : sequence of Member (s,)
    cost : float
        Fraction paid per unit of turnover.
    seed : int

    Returns
    -------
    float
        With all members.
    tuple of Ablation
        One per member; empty for a single one.

    Raises
    ------
    DataError
        If the rows do not begin after the past ones end, or a fit refuses.
    """
    members = tuple(members)
    if len(past.bars) and len(rows.bars) and rows.bars.time[0] <= past.bars.time[-1]:
        raise DataError("ablation: the rows to judge on begin before the past ones end; they must be later")

    def judged(kept: tuple[Member, ...]) -> float:
        fitted = type(blender)(blender.config).fit(*_of(past, kept), members=kept, cost=cost, seed=seed)
        exposure = fitted.update(*_of(rows, kept))[1]
        return sharpe(net_returns(exposure, rows.bars, cost), rows.bars.bars_per_year)

    whole = judged(members)
    if len(members) == 1:
        return whole, ()
    without = [judged(tuple(one for one in members if one is not left)) for left in members]
    return whole, tuple(
        Ablation(left.name, found, whole - found) for left, found in zip(members, without, strict=True)
    )


def _of(rows: Rows, members: tuple[Member, ...]) -> Rows:
    table = rows.signals.select([member.name for member in members])
    return rows._replace(signals=SignalTable(table.time, table.values, table.names))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None

"""Numbers of a report about members: how often each speaks, what it adds, what it keeps out of sample.

What members add is measured on the blended signal, before gates and sizing, which belong to nobody: the part
of a member in the position, what that part earns from open to open, and its part of the turnover.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.metrics import sharpe
from ensemble.blenders import net_returns, opinions
from ensemble.diversity import Diversity
from ensemble.folds import cost_of
from ensemble.signals import Member
from ensemble.validation import Validated
from regimes.statistics import plain

LEAST_PAIRS = 3  # points of a line


def member_tables(validated: Validated) -> dict[str, Any]:
    """Return everything about members, as plain objects for JSON."""
    bars, blend = validated.bars[validated.rows], validated.blend
    cost = cost_of(validated.costs, bars)
    known = is_weighted(blend.signals.values, blend.weights)
    diversity = Diversity.of(blend.signals, blend.weights, bars, cost).to_dict()
    if not known:  # a blender that is no weighted mean has no parts
        diversity |= {"mean": [None] * len(validated.roster), "risk": [None] * len(validated.roster)}
    return plain(
        {
            "cost_per_turnover": cost,
            "members": {
                member.name: _member(validated, member, j, diversity)
                for j, member in enumerate(validated.roster)
            },
            "diversity": diversity,
            "ablation": ablation(validated, cost) if known else None,
            "stages": _stages(validated, cost),
            "weights": _weights_by_fold(validated) if known else None,
            "degradation": degradation(validated),
        }
    )


def is_weighted(signals: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether weights say what each opinion counted; those of a meta-learner do not."""
    return not (np.isnan(weights) & ~np.isnan(signals)).any()


def _member(validated: Validated, member: Member, j: int, diversity: dict[str, Any]) -> dict[str, Any]:
    blend = validated.blend
    signal, weight = blend.signals.values[:, j], blend.weights[:, j]
    held = opinions(signal)
    active = held != 0.0
    counted = np.abs(np.nan_to_num(weight) * held)
    total = np.abs(np.nan_to_num(blend.weights) * opinions(blend.signals.values)).sum(axis=1)
    year = validated.result.bars_per_year
    own = np.ones(signal.size, bool) if member.regime is None else blend.label == int(member.regime)
    mean = diversity["mean"][j]
    return {
        "kind": member.kind,
        "regime": None if member.regime is None else member.regime.text,
        "opinion": float(np.mean(~np.isnan(signal))),
        "active": float(active.mean()),
        "in_regime": float(own.mean()),
        "active_in_regime": float(active[own].mean()) if own.any() else np.nan,
        "mean_size": float(np.abs(held[active]).mean()) if active.any() else np.nan,
        "long": float(np.mean(held[active] > 0)) if active.any() else np.nan,
        "mean_weight": float(np.nanmean(weight)) if np.isfinite(weight).any() else np.nan,
        "say": float(counted.sum() / total.sum()) if total.sum() > 0 else np.nan,
        "contribution": np.nan if mean is None else mean * year,
        "risk_share": diversity["risk"][j],
        "absent": {
            str(f.number + 1): f.absent[member.name] for f in validated.folds if member.name in f.absent
        },
    }


def ablation(validated: Validated, cost: float) -> dict[str, Any]:
    """Return the Sharpe ratio of the blended signal with all members, and without each of them.

    The others are scaled up to the weight that the row had before; nothing is fitted again, so this is what
    the members of *this* blend are worth, not what a blender would have made of the rest.
    """
    bars, blend = validated.bars[validated.rows], validated.blend
    signals, weights = opinions(blend.signals.values), np.nan_to_num(blend.weights)
    heard = np.where(np.isnan(blend.signals.values), 0.0, weights)
    year = validated.result.bars_per_year

    def judged(kept: list[int]) -> float:
        before, left = heard.sum(axis=1), heard[:, kept].sum(axis=1)
        scale = np.divide(before, left, out=np.zeros(left.size), where=left > 1e-12)
        signal = np.clip((heard[:, kept] * signals[:, kept]).sum(axis=1) * scale, -1.0, 1.0)
        return sharpe(net_returns(signal, bars, cost), year)

    every = list(range(signals.shape[1]))
    whole = judged(every)
    without = {
        member.name: judged([i for i in every if i != j]) if len(every) > 1 else math.nan
        for j, member in enumerate(validated.roster)
    }
    return {
        "whole": whole,
        "without": without,
        "lost": {name: whole - one for name, one in without.items()},
    }


def _stages(validated: Validated, cost: float) -> list[dict[str, Any]]:
    # What each step between signals and account makes of the wish, all at the same cost per turnover.
    bars, blend, year = validated.bars[validated.rows], validated.blend, validated.result.bars_per_year
    found = []
    for name in ("blended", "gated", "exposure"):
        wish = opinions(getattr(blend, name))
        turnover = np.abs(np.diff(wish, prepend=0.0))
        found.append(
            {
                "name": name,
                "sharpe_before_costs": sharpe(net_returns(wish, bars, 0.0), year),
                "sharpe": sharpe(net_returns(wish, bars, cost), year),
                "turnover": float(turnover.mean()) * year,
                "mean_size": float(np.abs(wish).mean()),
                "flat": float(np.mean(wish == 0.0)),
            }
        )
    return found


def _weights_by_fold(validated: Validated) -> list[dict[str, float]]:
    # The mean over the rows in which a member has an opinion, and over all of the fold 0 where it has none.
    first, names = validated.rows.start, validated.blend.signals.names
    found = []
    for fold in validated.folds:
        rows = slice(fold.test.start - first, fold.test.stop - first)
        weights = np.nan_to_num(validated.blend.weights[rows])
        found.append(dict(zip(names, weights.mean(axis=0).tolist(), strict=True)))
    return found


def degradation(validated: Validated) -> dict[str, Any]:
    """Return what specialists keep of the Sharpe ratio that their search found, fold by fold.

    In sample it is that of the champion on the rows it was picked on; out of sample that of the member alone
    on the test rows of its fold. The slope is that of the second on the first by least squares: 1 keeps all
    differences, 0 none, and below 0 the better it looked the worse it did.
    """
    first, points = validated.rows.start, []
    for fold in validated.folds:
        rows = slice(fold.test.start - first, fold.test.stop - first)
        for name, told in fold.members.items():
            inside = told.get("sharpe_learn")
            if inside is None or not math.isfinite(inside) or name not in validated.members:
                continue
            result = validated.members[name]
            outside = sharpe(result.curve.column("net_return")[rows], result.bars_per_year)
            points.append(
                {"fold": fold.number + 1, "member": name, "in_sample": inside, "out_of_sample": outside}
            )
    return {"points": points, **_line(points)}


def _line(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    known = [one for one in points if math.isfinite(one["out_of_sample"])]
    inside, outside = (np.array([one[name] for one in known]) for name in ("in_sample", "out_of_sample"))
    found = dict.fromkeys(("slope", "intercept", "correlation"), math.nan)
    if inside.size >= LEAST_PAIRS and inside.min() < inside.max():
        own = inside - inside.mean()
        found["slope"] = float(own @ outside / (own @ own))
        found["intercept"] = float(outside.mean() - found["slope"] * inside.mean())
        if outside.min() < outside.max():
            found["correlation"] = float(np.corrcoef(inside, outside)[0, 1])
    return {
        "pairs": len(known),
        "mean_in_sample": float(inside.mean()) if inside.size else math.nan,
        "mean_out_of_sample": float(outside.mean()) if inside.size else math.nan,
        "positive_out_of_sample": float(np.mean(outside > 0)) if inside.size else math.nan,
        **found,
    }

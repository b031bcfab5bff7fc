"""A small validation made by hand, for tests of reports: random bars, signals with a known edge, two folds.

Nothing is trained. Members know a part of the next open-to-open return, so that there is something to report;
accounts, evidence and verdict are made by the real engines.
"""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.venue import Venue
from ensemble import baselines, criteria
from ensemble.baselines import Trading
from ensemble.blenders import blended, shared
from ensemble.evidence import EvidenceConfig, weigh
from ensemble.permutation import Permutations
from ensemble.robustness import Perturbation, RobustnessConfig, push
from ensemble.signals import Blend, Member, SignalTable, earned
from ensemble.sizing import SizingConfig
from ensemble.validation import FoldRecord, Judged, Validated
from experiments.ledger import LedgerSummary, Openings
from market.sources.synthetic import SyntheticConfig, synthetic_market
from regimes.regime import REGIME_NAMES, Regime, RegimeProbabilities

N, FIRST = 3_200, 1_200
ROSTER = (
    Member("ranging", "specialist", Regime.RANGING),
    Member("trending", "specialist", Regime.TRENDING),
    Member("volatile", "specialist", Regime.VOLATILE),
    Member("xgboost_4h", "forecaster", None),
)
EVIDENCE = EvidenceConfig(paths=100, overfitting_paths=20, blocks=(8, 10))
ROBUST = RobustnessConfig(cost_factors=(0.0, 1.0, 2.0, 3.0), delays=(0, 1), sigmas=())


@cache
def market():
    return synthetic_market(SyntheticConfig(n_bars=N, seed=5))


def truth(rows=slice(FIRST, N)):
    """The true regimes of the test rows, int8."""
    return np.asarray(market().regime, np.int8)[rows]


def held(values, bars=16):
    """The same value for so many bars: opinions do not change with every bar."""
    return np.repeat(values[::bars], bars, axis=0)[: len(values)]


def made_blend(edge=0.4, seed=1, flat=False):
    bars, rows = market().bars, slice(FIRST, N)
    rng = np.random.default_rng(seed)
    m = N - FIRST
    ahead = np.nan_to_num(earned(bars))[rows]
    signals = held(rng.normal(0, 0.4, (m, 4)) + edge * np.sign(ahead)[:, None] * 0.4)
    drift = np.convolve(ahead, np.ones(16), "full")[15 : 15 + m] / np.std(ahead) / 8
    signals[:, 1] += held(np.clip(edge * drift, -1, 1))
    label = held(np.where(rng.uniform(size=m) < 0.7, truth(), rng.integers(0, 3, m)).astype(np.int8), 24)
    label[:5] = -1
    for j, member in enumerate(ROSTER[:3]):
        signals[label != int(member.regime), j] = 0.0
    signals[:40, 3] = np.nan
    signals = np.clip(np.zeros_like(signals) if flat else signals, -1, 1)
    confidence = np.where(label == -1, np.nan, 0.8)
    values = np.full((m, 3), 0.1)
    values[np.arange(m), np.maximum(label, 0)] = 0.8
    heard = np.array([[True] * 4] * m)
    for j, member in enumerate(ROSTER[:3]):
        heard[:, j] = label == int(member.regime)
    weights = shared(signals, heard.astype(float))
    wish = blended(signals, weights)
    gated = np.where(np.abs(wish) > 0.15, wish, 0.0)
    time = bars.time[rows]
    return Blend(
        time, SignalTable(time, signals, tuple(one.name for one in ROSTER)),
        RegimeProbabilities(time, values, REGIME_NAMES), label, confidence, weights, wish, gated, gated,
    )  # fmt: skip


def made_folds(stops):
    bars, found = market().bars, []
    edges = (FIRST, *stops)
    for number, (start, stop) in enumerate(pairwise(edges)):
        until = int(bars.time[start - 3])
        members = {
            one.name: {
                "kind": "specialist", "regime": one.regime.text, "fitted_until": until,
                "sharpe_learn": 1.5 + 0.7 * j - 0.3 * number, "n_evaluated": 4_000, "genes": {"fast": 5 + j},
                "fingerprint": "ab" * 32,
            }
            for j, one in enumerate(ROSTER[:3])
        }  # fmt: skip
        absent = {}
        if number == 0:
            absent["volatile"] = "fewer than 50 bars of its regime to learn from"
            del members["volatile"]
        members["xgboost_4h"] = {
            "kind": "forecaster",
            "regime": None,
            "fitted_until": until - 7,
            "scale": 0.3,
        }
        found.append(
            FoldRecord(number, slice(100, start - 400), slice(start - 300, start - 50), slice(start, stop),
                       until, f"{number}f" * 32, members, {"ranging": 0.4, "trending": 0.3, "volatile": 0.3},
                       absent, {})
        )  # fmt: skip
    return tuple(found)


def made_validated(blend=None, stops=(1_900, 2_500, N), costs=None):
    bars, rows = market().bars, slice(FIRST, N)
    blend = made_blend() if blend is None else blend
    costs, limits, venue = costs or Costs(), RiskLimits(), Venue()
    trading = Trading(bars, rows, SizingConfig(), costs, limits, venue, blend.label)
    members = {one.name: trading.signal(blend.signals.column(one.name)) for one in ROSTER}
    values = blend.signals.values
    blenders = {"equal": trading.signal(np.nan_to_num(values).mean(axis=1))}
    mean = float(np.abs(blend.exposure).mean())
    rivals = {
        baselines.HOLD: trading.held(),
        baselines.SIZED_HOLD: trading.signal(np.ones(len(blend))),
        baselines.TREND: trading.signal(baselines.trend(bars)[rows]),
        baselines.CONSTANT: trading.exposure(np.full(len(blend), mean)),
        baselines.RANDOM: trading.signal(np.roll(blend.blended, 500)),
    }
    return Validated(
        bars, rows, trading.exposure(blend.exposure), blend, made_folds(stops), members, blenders, rivals,
        ROSTER, "route", costs, limits, venue,
    )  # fmt: skip


def made_judged(validated=None, *, truth_known=True, permuted=True, comparisons=True, **provenance):
    validated = made_validated() if validated is None else validated
    trials = LedgerSummary("f" * 64, 24_000, 21_000, 900.5, 20_500, 0.001, 0.0001, 2)
    looks = Openings(1, 1)
    config = EVIDENCE.model_copy(update={"comparisons": comparisons})
    evidence = weigh(
        validated.result, members=validated.members, blenders=validated.blenders,
        baselines=validated.baselines, trials=trials, looks=looks, seed=3, config=config,
    )  # fmt: skip
    whole = np.zeros((validated.rows.stop, 1))
    whole[validated.rows, 0] = validated.blend.exposure
    bars = validated.bars[: validated.rows.stop]
    targets = replace(validated.blend.targets(), time=bars.time, values=whole)
    robustness = push(targets, bars, validated.costs, validated.limits, config=ROBUST, rows=validated.rows)
    shaken = Perturbation(0.05, (0.4, 0.9, -0.1), (0.05, 0.1, -0.02), 1.0)
    robustness = replace(robustness, perturbations=(shaken,))
    permutations = Permutations(0.03, (0.001, -0.002, 0.04, 0.0)) if permuted else None
    judgment = criteria.judge(
        validated.result, members=validated.members, blenders=validated.blenders,
        baselines=validated.baselines, evidence=evidence, robustness=robustness, permutations=permutations,
    )  # fmt: skip
    told = {
        "run": "validate-route_20260101T000000Z", "seed": 7, "origin": market().bars.label + ", SYNTHETIC",
        "warnings": ["2 bars were missing"], "symbol": "SYN", "timeframe": "1h", "bars": len(validated.bars),
        "fingerprint": "e" * 64, "features": "core-1", "forecast_features": "wide-1",
        "detector": {"name": "markov_ar", "settings": {}}, "blender": {"name": "route", "settings": {}},
        "settings": "d" * 64,
    } | provenance  # fmt: skip
    if truth_known:
        told["truth"] = truth()
    return Judged(
        validated, evidence, robustness, permutations, judgment, (-0.4, 0.1, 0.3), trials, looks, told
    )

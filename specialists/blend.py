"""The default family: a weighted blend of standardised signals, traded with thresholds, stops and a size.

Twenty-four genes. Fourteen weights blend causal signals to a score near -4..4; a position opens when the
score passes the entry threshold and closes when it no longer agrees, after the maximum hold, or at an
ATR-scaled stop or target. The size aims at a volatility and is fixed on entry.
"""

import numpy as np
from pydantic import Field, field_validator

from backtest.kernels import POPULATION, STREAM, population, stream
from compute.kernels import kernel, variants
from configs.load import Config
from ga.space import GenomeSpace
from specialists.family import FAMILIES

SIGNALS = (
    "return_4",
    "return_24",
    "zscore_24",
    "zscore_96",
    "ema_gap_8_24",
    "ema_gap_48_192",
    "di_balance_14",
    "slope_24",
    "macd_histogram",
    "rsi_14",
    "close_location_24",
    "close_location_96",
    "volume_balance_24",
    "body_1",
)
LEVELS = ("volatility_24", "atr_14")

# name, low, high, kind, unit and meaning
GENES = (
    *((f"weight_{name}", -1.0, 1.0, "real") for name in SIGNALS),
    ("bias", -0.5, 0.5, "real"),  # added to the score: how bullish before any evidence
    ("entry_threshold", 0.1, 2.0, "log"),  # score that opens a position
    ("exit_threshold", -1.0, 0.9, "real"),  # share of the entry threshold below which it closes
    ("stop_atr", 1.0, 10.0, "log"),  # stop distance, average true ranges
    ("target_atr", 1.0, 30.0, "log"),  # target distance, average true ranges
    ("max_hold", 4.0, 336.0, "log"),  # bars
    ("risk", 0.003, 0.02, "log"),  # volatility aimed at, per bar, fraction of equity
    ("short_scale", -0.5, 1.0, "real"),  # size of shorts relative to longs; none at or below 0
    ("conviction", 0.0, 1.0, "real"),  # 0: full size at the threshold; 1: in proportion to the score
    ("cooldown", 0.0, 48.0, "real"),  # bars to wait after a position
)
_NAMES = tuple(gene[0] for gene in GENES)

# What decide reads, in this order: the weights over their absolute sum, then the rest.
_LIKE_GENES = (0.0,) * len(GENES)
_LIKE_ROW = (0.0,) * (len(SIGNALS) + len(LEVELS))
_FRESH = (0.0,)  # bars still to wait


@kernel(inline=True)
def decide(genes, row, held, age, memory):
    """Return the exposure wanted from the next open, stop and target distance, and the memory."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13 = genes[:14]
    bias, entry, leave, stop_atr, target_atr, max_hold, risk, short_scale, conviction, cooldown = genes[14:]
    r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, volatility, atr = row
    score = bias + w0 * r0 + w1 * r1 + w2 * r2 + w3 * r3 + w4 * r4 + w5 * r5 + w6 * r6
    score = score + w7 * r7 + w8 * r8 + w9 * r9 + w10 * r10 + w11 * r11 + w12 * r12 + w13 * r13
    strength = abs(score) * (0.5 / entry)
    strength = strength if strength < 1.0 else 1.0
    size = risk / volatility * (1.0 - conviction + conviction * strength)
    size = size if size < 1.0 else 1.0
    wait = memory[0]
    ready = wait <= 0.0
    opening = size if ready & (score > entry) else 0.0
    opening = -size * short_scale if ready & (score < -entry) else opening
    agreement = score if held > 0.0 else -score
    keep = (agreement > leave) & (age < max_hold)
    flat = held == 0.0
    exposure = held if keep else 0.0
    exposure = opening if flat else exposure
    # Set at the decision to open, not at the first close with a position: a stop may come on the entry bar.
    wait = wait - 1.0 if flat & (opening == 0.0) else cooldown
    return exposure, stop_atr * atr, target_atr * atr, (wait,)


@variants(*POPULATION)
def evaluate(
    genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
    trail, maker, impact, funding, margin, grid, room, breakers,
):  # fmt: skip
    """Trade a population of this family; see ``backtest.kernels.population``."""
    population(
        decide, _LIKE_GENES, _LIKE_ROW, _FRESH,
        genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
        trail, maker, impact, funding, margin, grid, room, breakers,
    )  # fmt: skip


@kernel(STREAM)
def follow(genes, rows, prices, awake, bounds, state, out):
    """Follow one genome of this family; see ``backtest.kernels.stream``."""
    stream(decide, _LIKE_GENES, _LIKE_ROW, _FRESH, genes, rows, prices, awake, bounds, state, out)


class BlendConfig(Config):
    """Settings of the family."""

    signals: tuple[str, ...] = Field(
        SIGNALS,
        description="Columns that the weights blend, fourteen: of the features, or of forecasts such as "
        "forecast_xgboost_4h where an ensemble has them.",
    )

    @field_validator("signals")
    @classmethod
    def _fourteen(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) != len(SIGNALS) or len(set(names)) != len(names):
            raise ValueError(f"must be {len(SIGNALS)} different columns; {len(set(names))} are given")
        return names


@FAMILIES.register("blend")
class Blend:
    """Weighted blend of standardised signals with thresholds, stops and a volatility-targeted size."""

    Config = BlendConfig
    levels = LEVELS
    fresh = _FRESH
    evaluate = staticmethod(evaluate)
    follow = staticmethod(follow)

    def __init__(self, config: BlendConfig) -> None:
        self.config = config
        self.signals = config.signals
        self.space = GenomeSpace(
            names=(*(f"weight_{name}" for name in self.signals), *_NAMES[len(SIGNALS) :]),
            low=np.array([gene[1] for gene in GENES]),
            high=np.array([gene[2] for gene in GENES]),
            kind=tuple(gene[3] for gene in GENES),
        )

    def express(self, decoded: np.ndarray) -> np.ndarray:
        """Return weights over their absolute sum, the exit threshold as a score, and no negative shorts.

        Weights that sum to less than a tenth are divided by a tenth: a genome may be quiet, and nothing
        is divided by zero.
        """
        genes = np.array(decoded, dtype=np.float64, order="C")
        k = len(SIGNALS)
        total = np.abs(genes[:, :k]).sum(axis=1, keepdims=True)
        genes[:, :k] /= np.maximum(total, 0.1)
        genes[:, k + 2] *= genes[:, k + 1]
        genes[:, k + 7] = np.maximum(genes[:, k + 7], 0.0)
        return genes

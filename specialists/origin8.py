"""The eight-gene family of the system this project set out from, on our execution.

The genes, the signal and the size follow the published description. Three things differ, on purpose: the
stop and the target are tested against the bar's range instead of its close, a signal of exactly zero opens
nothing, and every cost is paid. Distances of stop and target count from the fill.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from backtest.kernels import POPULATION, STREAM, population, stream
from compute.kernels import kernel, variants
from configs.load import Config
from ga.space import GenomeSpace
from specialists.family import FAMILIES

# name, low, high of the search that drew every gene from 0..1
GENES = (
    "stop_loss",  # loss that closes, fraction of the entry price
    "take_profit",  # gain that closes, fraction of the entry price
    "position_size",  # fraction of equity before scaling
    "entry_threshold",  # absolute signal that opens
    "exit_threshold",  # absolute signal below which a position closes
    "max_hold_time",  # share of the longest hold
    "volatility_scaling",  # divides the size together with the relative range
    "momentum_weight",  # above one half: follow strong momentum with more size, else with less
)
REVERSAL = 0.3  # a signal this far against a position closes it
MOMENTUM = 0.01  # mean return that counts as strong when following
EXTENDED = 0.02  # mean return that counts as overextended when not following
SMALLEST, LARGEST = 0.01, 0.10  # position size, fraction of equity

_LIKE_GENES = (0.0,) * 8
_LIKE_ROW = (0.0,) * 3
_FRESH = (0.0,)  # nothing is remembered; a tuple has at least one element


@kernel(inline=True)
def decide(genes, row, held, age, memory):
    """Return the exposure wanted from the next open, stop and target distance, and the memory."""
    stop_loss, take_profit, position_size, entry, leave, max_hold, scaling, momentum_weight = genes
    signal, span, momentum = row
    size = position_size / (scaling * span)
    size = size if size < LARGEST else LARGEST
    size = size if size > SMALLEST else SMALLEST
    strong = abs(momentum)
    # Selects of numbers: with arithmetic inside, the row's condition stays a branch in the vector loop.
    boost = 0.5 if strong > MOMENTUM else 0.0
    damping = 0.3 if strong > EXTENDED else 0.0
    following = 1.0 + boost * momentum_weight
    fading = 1.0 - damping * (1.0 - momentum_weight)
    size = size * (following if momentum_weight > 0.5 else fading)
    size = size if size < LARGEST else LARGEST
    size = size if size > SMALLEST else SMALLEST
    strength = abs(signal)
    opening = size if signal > 0.0 else -size
    opening = opening if (strength >= entry) & (strength > 0.0) else 0.0
    agreement = signal if held > 0.0 else -signal
    keep = (strength >= leave) & (agreement >= -REVERSAL) & (age < max_hold)
    exposure = held if keep else 0.0
    exposure = opening if held == 0.0 else exposure
    return exposure, stop_loss, take_profit, memory


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


class Origin8Config(Config):
    """Settings of the family."""

    signal: Literal["trend", "reversion"] = Field(
        "trend", description="trend: the origin's volatile and trending specialists; reversion: ranging."
    )
    longest_hold: int = Field(14, ge=1, description="Bars of the longest hold (14 days in the origin).")


@FAMILIES.register("origin8")
class Origin8:
    """Eight genes on one fixed signal."""

    Config = Origin8Config
    signals = ()
    fresh = _FRESH
    evaluate = staticmethod(evaluate)
    follow = staticmethod(follow)

    def __init__(self, config: Origin8Config) -> None:
        self.config = config
        self.levels = (f"origin_{config.signal}", "origin_range_14", "origin_momentum_5")
        self.space = GenomeSpace(names=GENES, low=np.zeros(8), high=np.ones(8), kind=("real",) * 8)

    def express(self, decoded: np.ndarray) -> np.ndarray:
        """Return the genes with the hold in bars and divisors kept above zero."""
        genes = np.array(decoded, dtype=np.float64, order="C")
        genes[:, 0] = np.maximum(genes[:, 0], 1e-4)  # a stop at the fill itself would close every position
        genes[:, 1] = np.maximum(genes[:, 1], 1e-4)
        genes[:, 5] = np.maximum(1.0, np.floor(self.config.longest_hold * genes[:, 5]))
        genes[:, 6] = np.maximum(genes[:, 6], 1e-3)
        return genes

"""The family whose signal is evolved: a typed tree over the blend's signals, traded by the blend's rules.

A genome is a program of at most 31 nodes and nine trading genes. What the program says at a close takes the
place of the blend's score; thresholds, stop, target, hold, size and wait are those of
:mod:`specialists.blend`, by the same code.

A program is a function of the row at the close and of nothing else, so it cannot look ahead. It is run by the
same compiled interpreter over a whole history and over one new bar.
"""

import math

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from pydantic import Field

from backtest.kernels import LANES, POPULATION, STREAM, population, stream
from compute.kernels import kernel, variants
from configs.load import Config
from ga import tree_variation
from ga.tree_kernels import run_programs
from ga.trees import MAX_HEIGHT, TreeSpace
from ga.variation import Variation
from specialists.blend import GENES as BLEND_GENES
from specialists.blend import LEVELS, SIGNALS
from specialists.blend import decide as blended
from specialists.family import FAMILIES

#: The trading genes: those of the blend after its weights and its bias.
GENES = BLEND_GENES[len(SIGNALS) + 1 :]

# The population kernel gives every genome of a block the same row, and each tree has a signal of its own: the
# row of a block holds the signals of all its genomes, and a genome's place in it, in binary, stands among
# its genes.
_BITS = int(math.log2(LANES))
_LIKE_PLACED = (0.0,) * (_BITS + len(GENES))
_LIKE_SIGNALS = (0.0,) * (LANES + len(LEVELS))
_LIKE_GENES = (0.0,) * len(GENES)
_LIKE_ROW = (0.0,) * (1 + len(LEVELS))
_FRESH = (0.0,)  # bars still to wait
_NO_WEIGHTS = (0.0,) * (len(SIGNALS) - 1)
_NO_SIGNALS = (0.0,) * (len(SIGNALS) - 1)
_DIGITS = np.where(np.arange(LANES)[:, None] >> np.arange(_BITS) & 1, 1.0, -1.0)  # (LANES, bits)


@intrinsic
def pick(typingctx, values, digits):
    """Return the value at a place in a tuple of ``2^b``, given ``b`` binary digits (above 0: one).

    Selects only, halving the tuple digit by digit: a loop over genomes remains vector code, which an index
    into a tuple would not be.
    """
    if not isinstance(values, types.UniTuple) or not isinstance(digits, types.UniTuple):
        return None
    if values.count != 2**digits.count:
        return None

    def codegen(context, builder, signature, arguments):
        left = [builder.extract_value(arguments[0], i) for i in range(values.count)]
        zero = context.get_constant(types.float64, 0.0)
        for place in range(digits.count):
            one = builder.fcmp_ordered(">", builder.extract_value(arguments[1], place), zero)
            left = [builder.select(one, left[i + 1], left[i]) for i in range(0, len(left), 2)]
        return left[0]

    return types.float64(values, digits), codegen


@kernel(inline=True)
def decide(genes, row, held, age, memory):
    """Return what :func:`specialists.blend.decide` does about a score that is the tree's signal."""
    signal, volatility, atr = row
    # The constants fold: what is left of the weighted sum is the signal.
    return blended(
        (1.0, *_NO_WEIGHTS, 0.0, *genes), (signal, *_NO_SIGNALS, volatility, atr), held, age, memory
    )


@kernel(inline=True)
def decide_placed(genes, row, held, age, memory):
    """Return the same from a row that holds the signals of a whole block."""
    signal = pick(row[:LANES], genes[:_BITS])
    return decide(genes[_BITS:], (signal, row[LANES], row[LANES + 1]), held, age, memory)


@variants(*POPULATION)
def trade(
    genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
    trail, maker, impact, funding, margin, grid, room, breakers,
):  # fmt: skip
    """Trade one block of genomes whose signals stand in the rows; see ``backtest.kernels.population``."""
    population(
        decide_placed, _LIKE_PLACED, _LIKE_SIGNALS, _FRESH,
        genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
        trail, maker, impact, funding, margin, grid, room, breakers,
    )  # fmt: skip


@kernel(STREAM)
def trade_one(genes, rows, prices, awake, bounds, state, out):
    """Follow one genome whose signal stands in the rows; see ``backtest.kernels.stream``."""
    stream(decide, _LIKE_GENES, _LIKE_ROW, _FRESH, genes, rows, prices, awake, bounds, state, out)


def evaluate(
    genes: np.ndarray,
    rows: np.ndarray,
    prices: np.ndarray,
    rates: np.ndarray,
    terms: np.ndarray,
    awake: np.ndarray,
    ends: np.ndarray,
    bounds: np.ndarray,
    venue: np.ndarray,
    tiers: np.ndarray,
    out: np.ndarray,
    *options: bool | None,
) -> None:
    """Trade a population of this family; arguments as in ``backtest.kernels.population``.

    Per block of genomes the signals at the closes where a specialist is awake are written down first, eight
    bytes per close and genome; what is never awake takes neither time nor, page by page, memory.
    """
    _check_rows(rows)
    nodes, k = genes.shape[1] - len(GENES), len(SIGNALS)
    chosen = np.flatnonzero(awake)
    placed = np.empty((len(rows), LANES + len(LEVELS)))
    placed[chosen, LANES:] = rows[chosen, k:]
    for first in range(0, len(genes), LANES):
        block = genes[first : first + LANES]
        run_programs(np.ascontiguousarray(block[:, :nodes]), rows, chosen, k, placed)
        trading = np.hstack([_DIGITS[: len(block)], block[:, nodes:]])
        trade(
            trading, placed, prices, rates, terms, awake, ends, bounds, venue, tiers,
            out[first : first + LANES], *options,
        )  # fmt: skip


def follow(
    genes: np.ndarray,
    rows: np.ndarray,
    prices: np.ndarray,
    awake: np.ndarray,
    bounds: np.ndarray,
    state: np.ndarray,
    out: np.ndarray,
) -> None:
    """Follow one genome of this family; arguments as in ``backtest.kernels.stream``."""
    _check_rows(rows)
    nodes, k = genes.size - len(GENES), len(SIGNALS)
    signals = np.empty((len(rows), len(_LIKE_ROW)))
    signals[:, 1:] = rows[:, k:]
    program = np.ascontiguousarray(genes[None, :nodes])
    run_programs(program, rows, np.flatnonzero(awake), k, signals)
    trade_one(np.ascontiguousarray(genes[nodes:]), signals, prices, awake, bounds, state, out)


def _check_rows(rows: np.ndarray) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(SIGNALS) + len(LEVELS):
        raise ValueError(
            f"rows have shape {rows.shape}; the family reads {len(SIGNALS)} signals and {len(LEVELS)} levels"
        )


class TreeConfig(Config):
    """Settings of the family."""

    max_nodes: int = Field(31, ge=3, le=63, description="Nodes of the largest tree; each is a gene.")
    max_height: int = Field(
        MAX_HEIGHT, ge=1, le=MAX_HEIGHT, description="Depth of a tree's deepest node; a single node has 0."
    )


@FAMILIES.register("tree")
class Tree:
    """A typed tree over standardised signals, traded with thresholds, stops and a volatility target."""

    Config = TreeConfig
    signals = SIGNALS
    levels = LEVELS
    fresh = _FRESH
    evaluate = staticmethod(evaluate)
    follow = staticmethod(follow)

    def __init__(self, config: TreeConfig) -> None:
        self.config = config
        self.space = TreeSpace.of(SIGNALS, GENES, config.max_nodes, config.max_height)

    def toolbox(self, variation: Variation | None = None) -> tree_variation.Toolbox:
        """Return the operators of a search for trees."""
        return tree_variation.toolbox(self.space, variation)

    def express(self, decoded: np.ndarray) -> np.ndarray:
        """Return the program, then the trading genes: exit threshold as a score, and no negative shorts."""
        genes = np.array(decoded, dtype=np.float64, order="C")
        entry, leave, short = (
            self.space.names.index(name) for name in ("entry_threshold", "exit_threshold", "short_scale")
        )
        genes[:, leave] *= genes[:, entry]
        genes[:, short] = np.maximum(genes[:, short], 0.0)
        return genes

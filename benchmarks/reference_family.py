"""The eight-gene family that the population kernel is measured by: EMA cross, RSI filter, stop, target, hold.

    python -m benchmarks.reference_family [--bars 60000] [--genomes 256] [--runs 7]

Buys where the fast average of the close crosses above the slow one while the RSI is below a cap; leaves where
the fast average is no longer above, at the stop, at the target, or after the longest hold. Both averages and
Wilder's RSI have a period of their own in every genome, so they are computed inside the kernel, in the
memory of ``decide``: from the bars to the statistics nothing happens outside.

Printed: time on one core and on two, how many genomes the streaming ``decide`` disagrees with (bit by bit),
and the same rule as a plain loop in Python, in the style of the system that this project set out from.
"""

import argparse
import time

import numpy as np

from backtest.kernels import POPULATION, STREAM, population, stream
from benchmarks.measuring import RATE, Case, bars_of, machine, measure, unlike_the_stream
from compute.kernels import kernel, variants

# name, low, high in natural units
GENES = (
    ("fast_span", 5, 30),  # bars
    ("slow_span", 40, 200),  # bars
    ("rsi_period", 5, 30),  # bars
    ("rsi_cap", 50, 80),
    ("stop", 0.005, 0.03),  # fraction of the fill
    ("target", 0.01, 0.06),  # fraction of the fill
    ("max_hold", 4, 336),  # bars
    ("size", 0.2, 0.9),  # fraction of equity
)
WHOLE = (0, 1, 2, 6)  # genes that count bars
TARGET_NS = 2.0

LIKE_GENES = (0.0,) * len(GENES)
LIKE_ROW = (0.0,) * 3
FRESH = (0.0,) * 4  # fast and slow average, average gain and loss


@kernel(inline=True)
def decide(genes, row, held, age, memory):
    """Return the exposure wanted from the next open, stop and target distance, and the memory."""
    fast_share, slow_share, rsi_share, rsi_cap, stop, target, max_hold, size = genes
    close, up, down = row
    fast, slow, gain, loss = memory
    below = fast <= slow
    fast = fast + fast_share * (close - fast)
    slow = slow + slow_share * (close - slow)
    gain = gain + rsi_share * (up - gain)
    loss = loss + rsi_share * (down - loss)
    above = fast > slow
    # RSI = 100 * gain / (gain + loss); the comparison needs no division.
    weak = gain < rsi_cap * (gain + loss)
    opening = size if below & above & weak else 0.0
    exposure = held if above & (age < max_hold) else 0.0
    exposure = opening if held == 0.0 else exposure
    return exposure, stop, target, (fast, slow, gain, loss)


@variants(*POPULATION)
def evaluate(
    genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
    trail, maker, impact, funding, margin, grid, room, breakers,
):  # fmt: skip
    population(
        decide, LIKE_GENES, LIKE_ROW, FRESH,
        genes, rows, prices, rates, terms, awake, ends, bounds, venue, tiers, out,
        trail, maker, impact, funding, margin, grid, room, breakers,
    )  # fmt: skip


@kernel(STREAM)
def follow(genes, rows, prices, awake, bounds, state, out):
    stream(decide, LIKE_GENES, LIKE_ROW, FRESH, genes, rows, prices, awake, bounds, state, out)


def rows_of(prices: np.ndarray) -> np.ndarray:
    """Return what is the same for all genomes, float64 (n, 3): close, gain and loss.

    The close counts from the first one, as a fraction of it: averages that begin at zero are then averages
    that begin at the first close. What the two averages of the RSI lack at the beginning, they lack by the
    same factor, which their ratio does not see.
    """
    relative = prices[:, 3] / prices[0, 3] - 1.0
    change = np.diff(relative, prepend=0.0)
    return np.column_stack([relative, np.maximum(change, 0.0), np.maximum(-change, 0.0)])


def draw(p: int, rng: np.random.Generator) -> np.ndarray:
    """Return genes in natural units, float64 (p, 8), uniform between their bounds."""
    low, high = (np.array([gene[i] for gene in GENES], dtype=np.float64) for i in (1, 2))
    genes = low + (high - low) * rng.random((p, len(GENES)))
    genes[:, WHOLE] = np.rint(genes[:, WHOLE])
    return genes


def express(genes: np.ndarray) -> np.ndarray:
    """Return what ``decide`` reads, float64 (p, 8): spans and periods as shares of the newest value."""
    read = np.array(genes, order="C")
    read[:, :2] = 2.0 / (genes[:, :2] + 1.0)
    read[:, 2] = 1.0 / genes[:, 2]
    read[:, 3] = genes[:, 3] / 100.0
    return read


def plain_loop(genes: list[float], rows: list[list[float]], prices: list[list[float]]) -> dict[str, float]:
    """Trade the rule bar by bar, with the signals and the statistics of the kernel, and return these."""
    fast_share, slow_share, rsi_share, rsi_cap, stop, target, max_hold, size = genes
    fast = slow = gain = loss = 0.0
    equity, quantity, wanted, age, trades, close = 1.0, 0.0, False, 0, 0, prices[0][0]
    total = squares = downside = drawdown = 0.0
    peak, stop_price, target_price = 1.0, 0.0, 0.0
    left = len(prices)
    for (opened, high, low, new_close), (relative, up, down) in zip(prices, rows, strict=True):
        before, left = equity, left - 1
        equity += quantity * (opened - close)
        close = new_close
        if wanted and not quantity:
            quantity = size * equity / (opened * (1 + RATE))
            equity -= quantity * opened * RATE
            stop_price, target_price = opened - opened * stop, opened + opened * target
            age, trades = 0, trades + 1
        elif quantity and not wanted:
            equity -= quantity * opened * RATE
            quantity = 0.0
        if quantity and (low <= stop_price or high >= target_price):
            price = min(opened, stop_price) if low <= stop_price else target_price
            equity += quantity * (price - opened) - quantity * price * RATE
            quantity = 0.0
        equity += quantity * (close - opened)
        if not left:
            equity -= quantity * close * RATE
        age += 1
        was_below = fast <= slow
        fast += fast_share * (relative - fast)
        slow += slow_share * (relative - slow)
        gain += rsi_share * (up - gain)
        loss += rsi_share * (down - loss)
        if quantity:
            wanted = fast > slow and age < max_hold
        else:
            wanted = was_below and fast > slow and gain < rsi_cap * (gain + loss)
        result = (equity - before) / before
        total += result
        squares += result * result
        downside += min(result, 0.0) ** 2
        peak = max(peak, equity)
        drawdown = min(drawdown, equity / peak - 1.0)
    return {
        "sum": total, "squares": squares, "downside": downside, "trades": trades, "growth": equity,
        "drawdown": drawdown,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bars", default="60000", help="number of random-walk bars, or a Parquet file")
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(7)
    prices, label = bars_of(options.bars, rng)
    case, genes = Case(prices, rows_of(prices)), express(draw(options.genomes, rng))
    print(machine())
    print(f"{label}, {options.genomes} genomes, {options.runs} runs; ns per bar and genome")
    one, two = (measure(evaluate, case, genes, threads, options.runs) for threads in (1, 2))
    print(f"population kernel, 1 core   {one.best:8.2f} best {one.median:8.2f} median (target {TARGET_NS})")
    print(f"population kernel, 2 cores  {two.wall:8.2f} wall, {one.wall / two.wall:.2f} times as fast as one")
    lists = genes[0].tolist(), case.rows.tolist(), prices.tolist()
    start = time.process_time()
    plain = plain_loop(*lists)
    seconds = time.process_time() - start
    growth = case.run(evaluate, genes[:1])[0, 4::6].prod()
    print(
        f"plain Python loop           {seconds * 1e9 / len(case):8.2f} for one genome; "
        f"its growth is apart by {abs(plain['growth'] / growth - 1):.0e}"
    )
    unlike = unlike_the_stream(case, evaluate, follow, FRESH, genes)
    print(f"genomes that decide otherwise than the streaming decide: {unlike} of {len(genes)}")


if __name__ == "__main__":
    main()

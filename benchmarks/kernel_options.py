"""What each option of an account costs in the population kernel, beside the account without any.

Run from the root of the repository::

    python -m benchmarks.kernel_options [--bars 60000] [--genomes 256] [--runs 9]

The default family (24 genes, seeded noise for signals) trades seeded random-walk bars under settings as a
user would write them. Each choice of options is compiled by itself: a second or two, the first time.
"""

import argparse

import numpy as np

from backtest import kernels
from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.terms import Terms
from backtest.venue import Venue
from benchmarks.measuring import machine, random_walk, times
from market.bars import OHLCV, Bars
from specialists.blend import Blend, BlendConfig

HOUR = 3_600_000_000_000
CAPITAL = 10_000.0

# name, settings of costs, limits and venue
SETTINGS = (
    ("none", {}, {}, {}),
    ("maker fee of targets", {"maker_fee_bps": 2}, {}, {}),
    ("impact by size", {"size_impact": 1}, {}, {}),
    ("share of the volume", {"participation": 0.025}, {}, {}),
    ("trailing stop", {}, {"trail": 0.1}, {}),
    ("daily loss, drawdown", {}, {"daily_loss": 0.05, "max_drawdown": 0.3}, {}),
    ("lots, ticks, least order", {}, {}, {"lot": 0.001, "tick": 0.01, "min_notional": 5}),
    ("perpetual: funding, margin", {}, {}, {"kind": "perpetual", "leverage": 5}),
    (
        "everything",
        {"maker_fee_bps": 2, "size_impact": 1, "participation": 0.025},
        {"trail": 0.1, "daily_loss": 0.05, "max_drawdown": 0.3},
        {"kind": "perpetual", "leverage": 5, "lot": 0.001, "tick": 0.01, "min_notional": 5},
    ),
)


def market(n: int, rng: np.random.Generator) -> tuple[Bars, np.ndarray]:
    """Return bars (n,) and what the family reads of each, float64 (n, 16)."""
    prices, volume = random_walk(n, rng), rng.lognormal(6.0, 1.0, n)
    bars = Bars(HOUR * np.arange(1, n + 1), np.column_stack([prices, volume]), OHLCV, "WALK/USD", HOUR)
    signals = np.clip(rng.normal(0.0, 1.2, (n, 14)), -4, 4)
    return bars, np.column_stack([signals, rng.uniform(0.003, 0.02, (n, 2))])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--genomes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    rng, family = np.random.default_rng(7), Blend(BlendConfig())
    bars, rows = market(options.bars, rng)
    genes = family.express(family.space.decode(rng.random((options.genomes, family.space.n_genes))))
    prices, awake = np.ascontiguousarray(bars.values[:, :4]), np.ones(len(bars), np.int8)
    ends, out = np.array([len(bars)]), np.empty((options.genomes, kernels.N_STATISTICS))
    print(machine())
    print(
        f"{len(bars):,} random-walk bars, {options.genomes} genomes of blend, {options.runs} runs, one core\n"
    )
    print("option                        ns per bar and genome   times none   mean growth")
    none = None
    for name, costs, limits, venue in SETTINGS:
        terms = Terms.of(bars, Costs(**costs), RiskLimits(**limits), Venue(**venue), CAPITAL)
        rates = np.ascontiguousarray(terms.bars[:, kernels.RATE])

        def run(terms=terms, rates=rates):
            family.evaluate(
                genes, rows, prices, rates, terms.bars, awake, ends,
                terms.bounds, terms.venue, terms.tiers, out, *terms.options,
            )  # fmt: skip

        best = times(run, options.runs)[:, 0].min() * 1e9 / (options.genomes * len(bars))
        none = best if none is None else none
        print(f"{name:<29} {best:>21.2f} {best / none:>12.2f} {out[:, 4].mean():>13.4f}")


if __name__ == "__main__":
    main()

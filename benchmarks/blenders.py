"""What each blender is worth on unseen rows, where it is known what its members are worth, and what it costs.

``python -m benchmarks.blenders [--markets 40]`` makes markets in which members' signals foretell so many
volatilities of the next hour's return, has each blender learn on a quarter of a year and judges it on the
next, after costs. Printed is the annual net Sharpe ratio, and how much that is above ``equal`` on the same
markets, each with its standard error. Specialists sleep where the label is not of their regime, and are wrong
in the other regimes; labels come from noisy probabilities. The last lines are processor seconds of a fit and
an update on 20,000 rows with eight members.
"""

import argparse
import math
import time

import numpy as np
from scipy.signal import lfilter

from ensemble.blenders import BLENDERS, Rows, net_returns
from ensemble.signals import Member, SignalTable
from market.bars import OHLCV, Bars
from market.causal import transform
from regimes.path import PathFilter
from regimes.regime import REGIME_NAMES, Regime, RegimeProbabilities

HOUR = 3_600_000_000_000
QUARTER = 2_190
VOLATILITY = 0.007
COST = 0.0004
AWAKE = 0.25  # probability of its regime from which a specialist speaks under soft routing
#: Worth of a full signal in volatilities per bar: three specialists in their regime, then forecasters.
CASES = {
    "nobody": (0.0, 0.0, 0.0, 0.0, 0.0),
    "everybody": (0.05, 0.05, 0.05, 0.02, 0.02),
    "one forecaster": (0.0, 0.0, 0.0, 0.08, 0.0),
    "two specialists": (0.08, 0.08, 0.0, 0.0, 0.0),
    "good and bad": (0.06, 0.06, -0.05, 0.03, -0.03),
}
KINDS = (*((name, {}) for name in BLENDERS.names()), ("stack", {"model": "xgboost"}))


def members_of(s: int) -> tuple[Member, ...]:
    """Return three specialists, one per regime, and forecasters."""
    specialists = [Member(regime.text, "specialist", regime) for regime in Regime if regime < 3]
    return (*specialists, *(Member(f"forecaster_{i}", "forecaster", None) for i in range(1, s - 2)))


def market(n: int, seed: int, worth: tuple[float, ...], soft: bool) -> Rows:
    """Return rows of a market in which members are worth so much."""
    random = np.random.default_rng(seed)
    s = len(worth)
    lengths = random.geometric(0.01, n)
    regime = np.repeat(random.integers(0, 3, n), lengths)[:n]
    seen = np.where(random.random(n) < 0.85, regime, random.integers(0, 3, n))
    chances = lfilter([0.1], [1.0, -0.9], np.eye(3)[seen], axis=0) + 1e-3
    time_ = (1 + np.arange(n)) * HOUR
    regimes = RegimeProbabilities(time_, chances / chances.sum(axis=1, keepdims=True), REGIME_NAMES)
    labels = transform(PathFilter(), regimes)
    decay = 0.5 ** (1 / 24)
    waves = lfilter([math.sqrt(1 - decay**2)], [1.0, -decay], random.normal(size=(n, s)), axis=0)
    signals = np.clip(0.6 * waves, -1, 1)
    mean = signals[:, 3:] @ np.array(worth[3:])
    for i in range(3):
        mean += np.where(regime == i, worth[i], -0.2 * abs(worth[i])) * signals[:, i]
        awake = regimes.values[:, i] >= AWAKE if soft else labels.column("label") == i
        signals[:, i] = np.where(awake, signals[:, i], 0.0)
    returns = VOLATILITY * (mean + np.clip(random.standard_t(5, n), -10, 10) / math.sqrt(5 / 3))
    opens = 100 * np.cumprod(np.concatenate([[1, 1], 1 + returns[:-2]]))
    prices = np.column_stack([opens] * 4 + [np.ones(n)])
    bars = Bars(time_, prices, OHLCV, symbol="synthetic", interval_ns=HOUR)
    names = tuple(member.name for member in members_of(s))
    return Rows(SignalTable(time_, signals, names), regimes, labels, bars)


def judged(name: str, settings: dict, rows: Rows, seed: int) -> float:
    """Return the annual net Sharpe ratio on the second half, learned on the first."""
    past, later = (
        Rows(*(table[span] for table in rows)) for span in (slice(0, QUARTER), slice(QUARTER, None))
    )
    members = members_of(len(rows.signals.names))
    blender = BLENDERS.create(name, settings).fit(*past, members=members, cost=COST, seed=seed)
    net = net_returns(blender.update(*later)[1], later.bars, COST)
    spread = net.std(ddof=1)
    return float(net.mean() / spread * math.sqrt(later.bars.bars_per_year)) if spread > 0 else 0.0


def compare(markets: int) -> None:
    """Print what each blender reaches in each case."""
    for case, worth in CASES.items():
        found = {}
        for seed in range(markets):
            grounds = [market(2 * QUARTER, seed, worth, soft) for soft in (False, True)]
            for name, settings in KINDS:
                rows = grounds[name == "regime_weighted"]
                found.setdefault(" ".join([name, *settings.values()]), []).append(
                    judged(name, settings, rows, seed)
                )
        print(f"{case}: {worth}")
        base = np.array(found["equal"])
        for label, values in found.items():
            sharpe, above = np.array(values), np.array(values) - base
            errors = [part.std(ddof=1) / math.sqrt(markets) for part in (sharpe, above)]
            print(
                f"  {label:16} {sharpe.mean():6.2f} ({errors[0]:.2f})   above equal {above.mean():+6.2f} "
                f"({errors[1]:.2f})"
            )


def measure() -> None:
    """Print what a fit and an update cost."""
    rows, members = market(20_000, 0, (0.02,) * 8, soft=False), members_of(8)
    print("seconds for 20,000 rows and eight members")
    for name, settings in KINDS:
        blender = BLENDERS.create(name, settings)
        blender.fit(*(table[:2_000] for table in rows), members=members, cost=COST, seed=1)  # imports
        start = time.process_time()
        blender.fit(*rows, members=members, cost=COST, seed=1)
        middle = time.process_time()
        blender.update(*rows)
        label = " ".join([name, *settings.values()])
        print(f"  {label:16} fit {middle - start:.3f}, update {time.process_time() - middle:.3f}")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=40)
    compare(parser.parse_args().markets)
    measure()


if __name__ == "__main__":
    main()

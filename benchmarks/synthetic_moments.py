"""Print how the synthetic market compares with hourly BTC, what its oracles reach, and what hand rules earn.

    python -m benchmarks.synthetic_moments [--seeds 4]

The BTC column needs the shared development data beside the repository and is left out without them.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from market.sources.scenarios import REGIME_NAMES, SCENARIOS, SyntheticConfig
from market.sources.synthetic import synthetic_market
from tests.reference.synthetic import (
    HAND_RULES,
    annual_sharpe,
    balanced_accuracy,
    bar_moments,
    hand_rule,
    moments,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ohlcv" / "btcusdt_binance_spot_1h.parquet"


def btc_moments(path: Path = DATA) -> dict[str, float]:
    import pandas

    rows = pandas.read_parquet(path)
    rows = rows[(rows.timestamp >= "2018-01-01") & (rows.timestamp < "2024-07-01")]
    follows = rows.timestamp.diff().eq(pandas.Timedelta("1h")).to_numpy()
    return moments(*(rows[name].to_numpy() for name in ("open", "high", "low", "close", "volume")), follows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, help="markets per scenario")
    seeds = range(7, 7 + parser.parse_args().seeds)

    default = [bar_moments(synthetic_market(SyntheticConfig(seed=seed)).bars) for seed in seeds]
    btc = btc_moments() if DATA.exists() else {}
    print(f"{'three years of hours, mean over seeds':38s} {'synthetic':>10s} {'BTC 2018-24':>12s}")
    for name in default[0]:
        mean = np.mean([one[name] for one in default])
        print(f"{name:38s} {mean:10.4f} {btc[name] if btc else float('nan'):12.4f}")

    print(
        "\nbalanced accuracy of the oracles; net annual Sharpe of hand rules (15 bps per side, true regime)"
    )
    print(
        f"{'':12s} {'high-low-close':>15s} {'closes':>8s}  " + "".join(f"{name:>10s}" for name in HAND_RULES)
    )
    for scenario in SCENARIOS:
        rows = []
        for seed in seeds:
            market = synthetic_market(SyntheticConfig(scenario=scenario, seed=seed))
            tables = market.oracle, market.oracle_close
            row = [balanced_accuracy(market.regime, table.values) for table in tables]
            rows.append(row + [annual_sharpe(hand_rule(market, name, 15.0)) for name in REGIME_NAMES])
        bar, close, *sharpes = np.mean(rows, axis=0)
        print(f"{scenario:12s} {bar:15.3f} {close:8.3f}  " + "".join(f"{one:10.2f}" for one in sharpes))

    start = time.perf_counter()
    market = synthetic_market(SyntheticConfig())
    made = time.perf_counter()
    _ = market.oracle
    print(
        f"\n26,280 bars in {made - start:.3f} s, high-low-close oracle in {time.perf_counter() - made:.3f} s"
    )


if __name__ == "__main__":
    main()

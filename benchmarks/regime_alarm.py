"""How soon the transition alarm of bocpd notices that a regime has changed, and how often it cries wolf.

    python -m benchmarks.regime_alarm [--seeds 5] [--first-seed 300] [--bars 60000]

The threshold is the lowest at which the training rows, whose truth is known, have one false alarm per 500
bars; everything printed is of the rows after them. An alarm is false if no true switch happened in the 24
bars before it. Chance is the share of switches that the same alarms would catch if they were shifted in time.
"""

import argparse

import numpy as np

from benchmarks.regime_accuracy import SCENARIOS, TRAIN, described
from compute.seeds import stream
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.bocpd import BocpdDetector, alarms

WITHIN_BARS = 24
FALSE_PER_BARS = 500
THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.01), 2)


def alarm_rows(table: Table, threshold: float) -> np.ndarray:
    """Return the rows of the alarms, int64 (a,)."""
    return np.array([one.row for one in alarms(table, threshold, WITHIN_BARS)], dtype=np.int64)


def false_alarms(rows: np.ndarray, switches: np.ndarray) -> int:
    """Return how many alarms no switch preceded within ``WITHIN_BARS`` bars, the alarm's own bar included."""
    before = np.searchsorted(switches, rows, side="right") - 1
    explained = before >= 0
    explained[explained] = rows[explained] - switches[before[explained]] <= WITHIN_BARS
    return int((~explained).sum())


def delays(rows: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """Return the bars from each switch to the next alarm, int64 (s,); above ``WITHIN_BARS`` is not caught."""
    after = np.searchsorted(rows, switches)
    missed = np.full(switches.size, WITHIN_BARS + 1)
    found = after < rows.size
    missed[found] = np.minimum(rows[after[found]] - switches[found], WITHIN_BARS + 1)
    return missed


def judged(scenario: str, seed: int, n_bars: int) -> tuple[float, float, float, float, float]:
    """Return threshold, share caught, median delay, false alarms per 500 bars, and chance, of one market."""
    market = synthetic_market(SyntheticConfig(scenario=scenario, seed=seed, n_bars=n_bars))
    first = int(TRAIN * n_bars)
    features = described(market.bars, BocpdDetector.columns)
    table = BocpdDetector().fit(features[:first]).fresh().alarm(features)
    switches = np.flatnonzero(np.diff(market.regime)) + 1
    train, test = table[:first], table[first:]
    threshold = THRESHOLDS[-1]
    for threshold in THRESHOLDS:
        false = false_alarms(alarm_rows(train, threshold), switches[switches < first])
        if false <= first / FALSE_PER_BARS:
            break
    rows, later = alarm_rows(test, threshold), switches[switches >= first] - first
    found = delays(rows, later)
    caught = found <= WITHIN_BARS
    n = n_bars - first
    shifts = stream(seed, "regime alarm").integers(500, n - 500, 20)
    chance = [np.mean(delays(np.sort((rows + shift) % n), later) <= WITHIN_BARS) for shift in shifts]
    per_bars = false_alarms(rows, later) / n * FALSE_PER_BARS
    delay = float(np.median(found[caught])) if caught.any() else float("nan")
    return float(threshold), float(caught.mean()), delay, per_bars, float(np.mean(chance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="markets per scenario")
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    options = parser.parse_args()
    heads = ("threshold", "caught", "delay", f"false/{FALSE_PER_BARS}", "chance")
    print(f"{'scenario':12s}" + "".join(f"{head:>11s}" for head in heads))
    for scenario in options.scenarios:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        mean = np.mean([judged(scenario, seed, options.bars) for seed in seeds], axis=0)
        print(f"{scenario:12s}" + "".join(f"{value:11.2f}" for value in mean), flush=True)


if __name__ == "__main__":
    main()

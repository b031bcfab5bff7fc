"""How well detectors find regimes that are known, beside the best that is possible, and what real bars say.

    python -m benchmarks.regime_accuracy [--seeds 20] [--bars 60000] [--detectors markov_ar hmm]
    python -m benchmarks.regime_accuracy --real ../shared/data/ohlcv/btcusdt_binance_spot_1h.parquet
    python -m benchmarks.regime_accuracy --speed [--detectors markov_ar hmm]

Each market is fitted on its first part and judged on the rest. A row's label is its most probable regime, of
the detector and of two oracles alike, which know the true parameters and are causal too: one reads closes
only, one reads high, low and close. Delay and false switches are relative to the second. Accuracy is balanced
accuracy; every figure is a mean over markets except where it says lowest.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backtest.bootstrap import stationary_rows
from compute.seeds import stream
from market.bars import OHLCV, Bars, timeframe_ns
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import Table
from regimes.accuracy import balanced_accuracy, detection_delays, false_switches
from regimes.detector import DETECTORS, Detector
from regimes.foretelling import RANGE, RETURN, foretold, foretold_without
from regimes.kernels import forward_filter
from regimes.markov_ar import MarkovArConfig, MarkovArDetector
from regimes.path import PathFilter, regime_path
from regimes.regime import Regime

SCENARIOS = ("separated", "overlapping", "short_dwell", "fat_tails", "drifting")
TRAIN = 0.6
FIRST_SEED = 7
#: The statistic that names a regime, and of which regimes it must tell the first from the second.
NAMING = (
    ("parkinson_24", Regime.VOLATILE, Regime.TRENDING),
    ("parkinson_24", Regime.VOLATILE, Regime.RANGING),
    ("efficiency_24", Regime.TRENDING, Regime.RANGING),
    ("efficiency_72", Regime.TRENDING, Regime.RANGING),
    ("variance_ratio_96", Regime.TRENDING, Regime.RANGING),
)
BLOCK_BARS = 336.0  # two weeks: longer than any window and any episode
N_PATHS = 1000
#: Settings of markov_ar whose defaults were chosen by what they foretell.
CHOICES = {"likeness": (0.0, 0.01, 100.0), "largest_gain": (0.0, 0.002), "min_dwell_bars": (5.0, 60.0)}


def described(bars: Bars, columns: tuple[str, ...]) -> Table:
    """Return the feature columns of bars."""
    return transform(FeaturePipeline(FeaturesConfig(names=columns)), bars)


def judged(detector: Detector, bars: Bars, first: int) -> tuple[np.ndarray, float, float]:
    """Return labels of the rows from ``first`` on, and processor seconds of the fit and us per bar after."""
    features = described(bars, tuple(detector.columns))
    start = time.process_time()
    detector.fit(features[:first])
    fitted = time.process_time()
    probabilities = transform(detector, features).values
    ended = time.process_time()
    return probabilities[first:].argmax(axis=1), fitted - start, (ended - fitted) / len(bars) * 1e6


def against(truth: np.ndarray, label: np.ndarray, oracle: np.ndarray) -> tuple[float, float]:
    """Return median detection delay and false switches over those of an oracle (a bar at least)."""
    delay = [max(float(np.median(detection_delays(truth, one))), 1.0) for one in (label, oracle)]
    false = [max(false_switches(truth, one), 1) for one in (label, oracle)]
    return delay[0] / delay[1], false[0] / false[1]


def synthetic(seeds: range, n_bars: int, scenarios: list[str], names: list[str]) -> None:
    first = int(TRAIN * n_bars)
    print(f"{len(seeds)} markets each, fitted on {first:,} bars, judged on the {n_bars - first:,} after them")
    print("of closes, of h-l-c: accuracy as a share of that oracle's\n")
    heads = (
        "closes",
        "h-l-c",
        "accuracy",
        "of closes",
        "of h-l-c",
        "lowest",
        "delay",
        "false",
        "fit s",
        "us/bar",
    )
    print(f"{'scenario':12s} {'detector':11s}" + "".join(f"{head:>10s}" for head in heads))
    for scenario in scenarios:
        found: dict[str, list] = {name: [] for name in names}
        for seed in seeds:
            market = synthetic_market(SyntheticConfig(scenario=scenario, seed=seed, n_bars=n_bars))
            truth = market.regime[first:]
            closes, whole = (
                table.values[first:].argmax(axis=1) for table in (market.oracle_close, market.oracle)
            )
            best = [balanced_accuracy(truth, label) for label in (closes, whole)]
            for name in names:
                label, fit_s, filter_us = judged(DETECTORS.create(name), market.bars, first)
                accuracy = balanced_accuracy(truth, label)
                found[name].append([*best, accuracy, *against(truth, label, whole), fit_s, filter_us])
        for name, rows in found.items():
            closes, whole, accuracy, delay, false, fit_s, filter_us = np.mean(rows, axis=0)
            lowest = min(row[2] for row in rows)
            line = f"{scenario:12s} {name:11s}{closes:10.3f}{whole:10.3f}{accuracy:10.3f}"
            line += f"{accuracy / closes:10.1%}{accuracy / whole:10.1%}{lowest:10.3f}{delay:10.2f}"
            print(f"{line}{false:10.2f}{fit_s:10.2f}{filter_us:10.2f}", flush=True)


def hourly(path: Path) -> Bars:
    import pandas

    rows = pandas.read_parquet(path)
    opened = rows["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    interval = timeframe_ns("1h")
    values = np.column_stack([rows[name].to_numpy() for name in OHLCV])
    return Bars(opened + interval, values, OHLCV, symbol=path.stem, interval_ns=interval)


def real(path: Path, names: list[str]) -> None:
    bars = hourly(path)
    statistics = described(bars, tuple(dict.fromkeys(column for column, _, _ in NAMING)))
    first = int(TRAIN * len(bars))
    year = bars.time.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    rng = stream(FIRST_SEED, "regime accuracy", path.stem)
    rows = stationary_rows(len(bars) - first, BLOCK_BARS, rng, N_PATHS)
    for name in names:
        detector = DETECTORS.create(name)
        features = described(bars, tuple(detector.columns))
        detector.fit(features[:first])
        probabilities = transform(detector, features)
        path_filter = regime_path(transform(PathFilter(), probabilities), probabilities.names)
        label, n_regimes = path_filter.label, len(path_filter.names)
        train = slice(0, first)
        nats = foretold(probabilities, detector.chain, bars, train) - foretold_without(bars, train)
        gain = np.nanmean(nats[first:], axis=0)
        print(f"\n{path.stem}, {name}: {len(bars):,} bars, fitted on the first {first:,}")
        full = [y for y in np.unique(year) if y >= 2018]
        shares = [
            np.bincount(label[(year == y) & (label >= 0)], minlength=n_regimes) / (year == y).sum()
            for y in full
        ]
        for y, share in zip(full, shares, strict=True):
            print(
                f"  {y}  "
                + "  ".join(f"{name} {x:5.1%}" for name, x in zip(path_filter.names, share, strict=True))
            )
        dwell = path_filter.mean_dwell()
        print(
            f"  foretells {gain.sum():.3f} nats per held-out bar more than no regimes do, of the return "
            f"{gain[RETURN]:.3f}, of the range {gain[RANGE]:.3f}"
        )
        print(f"  smallest share {np.min(shares):.1%}; mean dwell in bars {np.round(dwell, 1).tolist()}")
        for column, high, low in NAMING:
            value = statistics.column(column)[first:]
            means = [value[label[first:] == regime].mean() for regime in (high, low)]
            p = chance(value, label[first:], high, low, rows)
            print(
                f"  {column:18s} {high.text} {means[0]:.4f} above {low.text} {means[1]:.4f}, "
                f"block bootstrap p = {p:.4f}"
            )
        if name == "markov_ar":
            choices(features, first)


def choices(features: Table, first: int) -> None:
    """Print what other settings of markov_ar foretell of rows they were not fitted on."""
    foretold = {}
    for setting, values in CHOICES.items():
        for value in values:
            detector = MarkovArDetector(MarkovArConfig(**{setting: value})).fit(features[:first])
            likelihood = detector.log_likelihood(features)[first:].mean()
            foretold[f"{setting} {value:g}"] = likelihood
    default = MarkovArDetector().fit(features[:first]).log_likelihood(features)[first:].mean()
    print(f"  held-out log density {default:.4f} nats per bar with the defaults; with others, more or less:")
    print("  " + ", ".join(f"{name}: {value - default:+.4f}" for name, value in foretold.items()))


def chance(value: np.ndarray, label: np.ndarray, high: int, low: int, rows: np.ndarray) -> float:
    """Return the share of resampled histories in which ``high`` does not have the higher mean."""
    below = 0
    for path in rows:
        resampled, named = value[path], label[path]
        below += not resampled[named == high].mean() > resampled[named == low].mean()
    return (below + 1) / (len(rows) + 1)


def speed(names: list[str], n_bars: int = 60_000, n_single: int = 2000) -> None:
    """Print processor times of each detector, default settings: of a fit, and of a bar of many and alone."""
    bars = synthetic_market(SyntheticConfig(n_bars=n_bars)).bars
    print(f"{n_bars:,} bars; one bar alone is the mean of {n_single:,}\n")
    print(f"{'detector':12s}" + "".join(f"{head:>14s}" for head in ("fit s", "batch us/bar", "alone us/bar")))
    for name in names:
        detector = DETECTORS.create(name)
        features = described(bars, tuple(detector.columns))
        DETECTORS.create(name).fit(features[:10_000])  # imports and compiles what a fit needs
        fit = seconds(lambda detector=detector, features=features: detector.fit(features))
        whole = seconds(lambda detector=detector, features=features: transform(detector, features))
        live, single = detector.fresh(), [features[t : t + 1] for t in range(n_single)]
        bar = seconds(lambda live=live, single=single: [live.update(row) for row in single])
        print(f"{name:12s}{fit:14.2f}{whole / n_bars * 1e6:14.2f}{bar / n_single * 1e6:14.0f}", flush=True)
    random = stream(FIRST_SEED, "regime accuracy", "speed")
    rows, chain = random.normal(size=(n_bars, 3)), 0.97 * np.eye(3) + 0.01
    out, belief = np.empty((n_bars, 3)), np.full(3, 1 / 3)
    forward = seconds(lambda: forward_filter(rows, chain, belief, out)) / n_bars * 1e6
    print(f"\nforward recursion alone, three states: {forward:.3f} us per bar")


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="markets per scenario")
    parser.add_argument("--bars", type=int, default=60_000, help="bars per market")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--detectors", nargs="+", default=["markov_ar", *DETECTORS.names()])
    parser.add_argument("--real", nargs="+", type=Path, help="hourly bars to judge instead, Parquet")
    parser.add_argument("--speed", action="store_true", help="print times instead")
    settings = parser.parse_args()
    names = list(dict.fromkeys(settings.detectors))
    if settings.speed:
        speed(names)
    elif settings.real:
        for path in settings.real:
            real(path, names)
    else:
        seeds = range(FIRST_SEED, FIRST_SEED + settings.seeds)
        synthetic(seeds, settings.bars, settings.scenarios, names)


if __name__ == "__main__":
    main()

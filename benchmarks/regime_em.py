"""The EM of hidden Markov models: its speed beside hmmlearn's, and which model of ``hmm`` foretells most.

    python -m benchmarks.regime_em [--bars 60000] [--repeats 9]
    python -m benchmarks.regime_em --selection [--real ../shared/data/ohlcv/btcusdt_binance_spot_1h.parquet]

Speed: processor time per iteration, medians of several repeats in turn, one thread. An iteration's time is
that of eleven iterations less that of one, over ten, which leaves out what a fit does once. ``difference`` is
the largest difference of the log likelihood over all iterations, from the same start.

Selection: nothing after the first 60 % of the bars is read. A model is fitted on the first 40 % and scored
on the 20 % after: nats per bar that its regimes add to what is foretold of the next bar's return and of its
range without regimes (``regimes.foretelling``). The error is that of the sum, from blocks of two weeks.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.regime_accuracy import described, hourly
from compute.seeds import stream
from market.bars import Bars
from market.causal import transform
from market.sources.synthetic import SyntheticConfig, synthetic_market
from market.table import DataError
from regimes.detector import Detector
from regimes.em import MarkovModel, fit_em, fit_hmmlearn
from regimes.foretelling import foretold, foretold_without
from regimes.hmm import HmmConfig, HmmDetector
from regimes.markov_ar import MarkovArDetector

SEED = 7
MORE = 10  # iterations that are timed
FIT, LAST = 0.4, 0.6  # shares of the bars: fitted on, and read at all
BLOCK_BARS = 336
#: Column sets: each bar's range and body; the range alone; and averages over windows.
COLUMNS = {
    "range, body": {},
    "range": {"magnitude_columns": ()},
    "windows": {
        "level_columns": ("parkinson_24",),
        "magnitude_columns": (),
        "direction_columns": ("efficiency_24", "variance_ratio_96"),
        "observe_direction": True,
        "baseline_bars": 4320,
        "gain": 0.0,
        "seasonal": False,
        "stride_bars": 36,
        "evidence": 0.15,
        "stickiness": 1.0,
    },
}


def speed(n_bars: int, repeats: int) -> None:
    """Print the time of an iteration by all fitters, and how far their log likelihoods are apart."""
    random = stream(SEED, "regime em", "speed")
    k = f = 3
    chain = 0.97 * np.eye(k) + 0.01
    state = np.zeros(n_bars, dtype=np.int64)
    uniform = random.random(n_bars)
    for t in range(1, n_bars):
        state[t] = np.searchsorted(np.cumsum(chain[state[t - 1]]), uniform[t])
    center = np.array([[0.0, 0.0, 0.0], [1.0, 0.5, -1.0], [2.0, -1.0, 0.5]])
    rows = center[state] + random.normal(size=(n_bars, f))
    lengths = np.array([n_bars])
    start = MarkovModel(
        np.full(k, 1 / k), chain, 0.5 * center, np.tile(np.eye(f), (k, 1, 1)), np.full(k, np.inf)
    )
    student = MarkovModel(start.start, start.transition, start.mean, start.covariance, np.full(k, 8.0))

    def ours(model: MarkovModel, diagonal: bool, n_iterations: int) -> tuple[float, ...]:
        settings = {"diagonal": diagonal, "n_iterations": n_iterations, "tolerance": -np.inf}
        return fit_em(rows, lengths, model, **settings).history

    print(f"{n_bars:,} rows, {k} states, {f} columns: ms of processor time per iteration")
    heads = ("ours", "log", "times", "scaling", "times", "difference", "student")
    print(f"{'':6s}" + "".join(f"{head:>12s}" for head in heads))
    with threadpool_limits(1):
        for diagonal in (True, False):
            runs = [
                lambda n, d=diagonal: ours(start, d, n),
                lambda n, d=diagonal: hmmlearn(rows, start, d, "log", n),
                lambda n, d=diagonal: hmmlearn(rows, start, d, "scaling", n),
                lambda n, d=diagonal: ours(student, d, n),
            ]
            one, log, scaling, heavy = per_iteration(runs, repeats)
            away = np.abs(np.subtract(runs[0](1 + MORE), runs[1](1 + MORE))).max()
            print(
                f"{'diag' if diagonal else 'full':6s}{one:12.2f}{log:12.1f}{log / one:12.1f}{scaling:12.1f}"
                f"{scaling / one:12.1f}{away:12.1e}{heavy:12.2f}"
            )
    market = synthetic_market(SyntheticConfig(n_bars=n_bars))
    features = described(market.bars, HmmDetector().columns)
    for fitter in ("hmmlearn", "numba"):
        detector = HmmDetector(HmmConfig(fitter=fitter))
        fit = median_seconds(lambda d=detector: d.fit(features), 3)
        live, single = detector.fresh(), [features[t : t + 1] for t in range(2000)]
        begun = time.process_time()
        for row in single:
            live.update(row)
        bar = (time.process_time() - begun) / len(single) * 1e6
        batch = median_seconds(lambda d=detector: transform(d, features), 3) / n_bars * 1e6
        print(f"hmm by {fitter}: fit {fit:.2f} s; filter {batch:.2f} us per bar, {bar:.0f} us bar by bar")


def hmmlearn(
    rows: np.ndarray, start: MarkovModel, diagonal: bool, implementation: str, n_iterations: int
) -> tuple[float, ...]:
    """Return the log likelihoods of hmmlearn's iterations."""
    if implementation == "log":
        settings = {"diagonal": diagonal, "n_iterations": n_iterations, "tolerance": -np.inf}
        return fit_hmmlearn(rows, np.array([len(rows)]), start, **settings).history
    from hmmlearn.hmm import GaussianHMM

    shape = "diag" if diagonal else "full"
    model = GaussianHMM(
        len(start.mean), shape, n_iter=n_iterations, tol=-np.inf, init_params="", implementation="scaling"
    )
    model.startprob_, model.transmat_, model.means_ = start.start, start.transition, start.mean
    model.covars_ = np.diagonal(start.covariance, 0, 1, 2) if diagonal else start.covariance
    return tuple(model.fit(rows).monitor_.history)


def per_iteration(runs: list[Callable[[int], object]], repeats: int) -> list[float]:
    """Return ms of processor time per iteration of each run, medians over repeats in turn."""
    for run in runs:
        run(1)
    spent = [[seconds(run, 1 + MORE) - seconds(run, 1) for run in runs] for _ in range(repeats)]
    return (np.median(spent, axis=0) / MORE * 1e3).tolist()


def seconds(run: Callable[[int], object], n: int) -> float:
    begun = time.process_time()
    run(n)
    return time.process_time() - begun


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    return float(np.median([seconds(lambda _: function(), 0) for _ in range(repeats)]))


def selection(bars: Bars) -> None:
    """Print what each model foretells of rows it was not fitted on."""
    bars = bars[: int(LAST * len(bars))]
    first = int(FIT / LAST * len(bars))
    zero = foretold_without(bars, slice(0, first))
    print(f"\n{bars.label}: fitted on {first:,} bars, scored on the {len(bars) - first:,} after them")
    print(f"{'':44s}{'return':>9s}{'range':>9s}{'both':>9s}{'error':>9s}")
    candidates: list[tuple[str, Detector]] = [("markov_ar", MarkovArDetector())]
    choices = itertools.product(COLUMNS, range(3, 7), ("gaussian", "student"), ("diag", "full"))
    for columns, n_states, emission, covariance in choices:
        config = HmmConfig(
            **COLUMNS[columns], n_states=n_states, emission=emission, covariance=covariance, fitter="numba"
        )
        name = f"hmm, {columns}, {n_states} states, {emission}, {covariance}"
        candidates.append((name, HmmDetector(config)))
    for name, detector in candidates:
        features = described(bars, tuple(detector.columns))
        try:
            detector.fit(features[:first])
        except DataError as error:
            print(f"{name:44s} {error}")
            continue
        gain = (foretold(transform(detector, features), detector.chain, bars, slice(0, first)) - zero)[first:]
        gain = gain[np.isfinite(gain).all(axis=1)]
        both = gain.sum(axis=1)
        blocks = [part.mean() for part in np.array_split(both, max(len(both) // BLOCK_BARS, 1))]
        error = np.std(blocks, ddof=1) / np.sqrt(len(blocks))
        line = "".join(f"{one:+9.4f}" for one in (*gain.mean(axis=0), both.mean()))
        print(f"{name:44s}{line}{error:9.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=int, default=60_000, help="rows, or bars of the synthetic market")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--selection", action="store_true", help="compare models by what they foretell")
    parser.add_argument("--real", nargs="+", type=Path, default=[], help="hourly bars to select on, Parquet")
    parser.add_argument("--scenario", default="default", help="synthetic market to select on without --real")
    settings = parser.parse_args()
    if not settings.selection:
        speed(settings.bars, settings.repeats)
        return
    if not settings.real:
        config = SyntheticConfig(scenario=settings.scenario, n_bars=settings.bars, seed=100)
        selection(synthetic_market(config).bars)
    for path in settings.real:
        selection(hourly(path))


if __name__ == "__main__":
    main()

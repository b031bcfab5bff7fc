"""How much of what regimes are worth the ensemble earns, where the truth is known: against perfect regimes.

``python -m benchmarks.validation_truth [--markets 4] [--forecasters xgboost] [--set blender.name=online]``
makes synthetic markets with an edge in every regime and walks forward through each of them twice, with the
same folds, searches, blender, sizing and costs:

* the *ensemble*, as ``python -m ensemble.validate`` would, with folds of a year and smaller searches;
* the *clairvoyant* one, whose detector is the truth: specialists are evolved and woken by the regime the
  market is really in at each close, at once and without a mistake. It does not know when the regime will end,
  nor which way a trend points, and everything else it learns as the ensemble does. So it is what a perfect
  detector would bring, and the most that this one can be asked for.

Printed per market: the annual net Sharpe ratio of both out of sample, their ratio, the ensemble's rank among
the baselines, and how often the detected label is the true one; then the means with their standard errors,
what every baseline made of the same bars, and what every blender would have made of the same members. The
command ends with 1 if the mean ratio lies below 0.8.
"""

import argparse
import math
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from benchmarks.measuring import machine
from compute.workers import Mapper, mapper
from configs.load import Config, load, validate
from ensemble.joining import joined
from ensemble.rerun import walked
from ensemble.settings import ValidateConfig
from ensemble.validation import Validated
from market.bars import Bars
from market.sources.synthetic import SyntheticConfig, SyntheticMarket, synthetic_market
from market.table import DataError, Table, utc
from regimes.accuracy import balanced_accuracy
from regimes.chain import chain_of_labels
from regimes.detector import DETECTORS, require_fitted, save_detector, saved_detector
from regimes.regime import REGIME_NAMES, RegimeProbabilities

LEAST = 0.8  # of the clairvoyant Sharpe ratio
TRUTH = "truth"
#: Seven years in four folds of a year; `--set` comes after these.
DEFAULTS = (
    "forecasters=[]",
    "folds.span=year",
    "folds.train_spans=2",
    "folds.validation_spans=1",
    "specialists.hyperparameters.population_size=128",
    "specialists.hyperparameters.n_generations=30",
    "rivals=[route, equal, regime_weighted, online]",
)


class TruthConfig(Config):
    """Which market it knows."""

    market: SyntheticConfig = SyntheticConfig()


class Truth:
    """A detector that knows the regime of every bar at its close, and of none before.

    Benchmarks alone can have it: it stands in no package that decides.

    Parameters
    ----------
    config : TruthConfig
    """

    Config = TruthConfig
    columns: tuple[str, ...] = ()
    warmup = 0

    def __init__(self, config: TruthConfig | None = None) -> None:
        self.config = config or TruthConfig()
        self.fitted_until: int | None = None
        self.chain = np.full((len(REGIME_NAMES),) * 2, 1 / len(REGIME_NAMES))

    def fit(self, features: Table) -> Self:
        """Count how often each regime follows each other one in these rows, and return self."""
        self.fitted_until = int(features.time[-1])
        self.chain = chain_of_labels(self.update(features))
        return self

    def fresh(self) -> Self:
        """Return the same; it has no memory."""
        other = type(self)(self.config)
        other.fitted_until, other.chain = self.fitted_until, self.chain
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return probability one of the true regime of each row; DataError for rows of another market."""
        require_fitted(self, TRUTH)
        regime = true_regimes(self.config.market, features.time)
        return RegimeProbabilities(features.time, np.eye(len(REGIME_NAMES))[regime], REGIME_NAMES)

    def save(self, folder: Path) -> None:
        """Write it into a folder, as JSON."""
        save_detector(folder, TRUTH, self, {"chain": self.chain})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved one."""
        saved = saved_detector(folder, TRUTH)
        detector = cls(validate(TruthConfig, saved.config, str(saved.path)))
        detector.chain = saved.array("chain", (len(REGIME_NAMES),) * 2)
        detector.fitted_until = saved.fitted_until
        return detector


class Market(NamedTuple):
    """What became of one market.

    Parameters
    ----------
    ensemble, clairvoyant : Validated
        By detected and by true regimes.
    accuracy : float
        Balanced accuracy of the detected label on the test rows, 1/3 by chance.
    """

    ensemble: Validated
    clairvoyant: Validated
    accuracy: float

    @property
    def ratio(self) -> float:
        """Share of the clairvoyant Sharpe ratio that is reached; NaN unless that one is positive."""
        return share(sharpe(self.ensemble.result), sharpe(self.clairvoyant.result))

    @property
    def rank(self) -> int:
        """Place of the ensemble among the baselines, 1 for the best."""
        own = sharpe(self.ensemble.result)
        return 1 + sum(sharpe(one) >= own for one in self.ensemble.baselines.values())


def compare(config: ValidateConfig, workers: Mapper) -> Market:
    """Walk forward through the synthetic market of a config, by its detector and by the truth."""
    synthetic = config.market.synthetic
    bars = market_of(synthetic).bars
    ensemble = validated(config, bars, workers)
    best = validated(clairvoyant(config), bars, workers)
    truth = true_regimes(synthetic, ensemble.time)
    return Market(ensemble, best, balanced_accuracy(truth, ensemble.blend.label))


def clairvoyant(config: ValidateConfig) -> ValidateConfig:
    """Return the same settings with the truth as detector, and without baselines that are searched for."""
    if TRUTH not in DETECTORS:  # on demand: who imports this module has not asked for it
        DETECTORS.register(TRUTH)(Truth)
    known = {"name": TRUTH, "market": config.market.synthetic.model_dump(mode="json")}
    return config.model_copy(
        update={
            "detector": type(config.detector).model_validate(known),
            # What is certain needs no hysteresis.
            "path": config.path.model_copy(update={"min_dwell_bars": 1}),
            "specialists": config.specialists.model_copy(update={"generalist": False}),
            "random_routing": config.random_routing.model_copy(update={"draws": 0}),
        }
    )


def validated(config: ValidateConfig, bars: Bars, workers: Mapper) -> Validated:
    """Return the joined test rows of a walk-forward beside everything they are compared with."""
    return joined(config, bars, walked(config, bars, workers))[0]


def true_regimes(config: SyntheticConfig, time_: np.ndarray) -> np.ndarray:
    """Return the true regime at each time, int8 (n,); DataError for a time that is no bar of the market."""
    market = market_of(config)
    clock = market.bars.time
    rows = np.minimum(np.searchsorted(clock, time_), len(clock) - 1)
    if not np.array_equal(clock[rows], time_):
        wrong = int(np.flatnonzero(clock[rows] != time_)[0])
        raise DataError(f"the synthetic market of seed {config.seed} has no bar at {utc(time_[wrong])}")
    return market.regime[rows]


def market_of(config: SyntheticConfig) -> SyntheticMarket:
    """Return the market of a config; the last ones are kept."""
    return _made(config.model_dump_json())


@lru_cache(maxsize=2)
def _made(text: str) -> SyntheticMarket:
    return synthetic_market(SyntheticConfig.model_validate_json(text))


def sharpe(result: object) -> float:
    """Return the annual net Sharpe ratio, 0 for what never moves."""
    value = result.metrics.sharpe
    return 0.0 if math.isnan(value) else float(value)


def share(own: float, best: float) -> float:
    """Return a Sharpe ratio over a positive one; NaN where there was nothing to reach."""
    return float(own / best) if best > 0 else math.nan


def mean(values: list[float] | np.ndarray) -> str:
    """Return a mean and its standard error as text; NaN is shown, never left out."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):6.2f} ({error:.2f})"


def table(found: list[Market]) -> list[str]:
    """Return what the markets have in common, in lines for people."""
    own = np.array([sharpe(one.ensemble.result) for one in found])
    best = [sharpe(one.clairvoyant.result) for one in found]
    lines = [
        "means over markets, in brackets their standard errors",
        f"  ensemble {mean(own)}, clairvoyant {mean(best)}, ratio {mean([one.ratio for one in found])}; "
        f"ratio of the means {share(own.mean(), np.mean(best)):.2f}",
        f"  first of all in {sum(one.rank == 1 for one in found)} of {len(found)} markets; "
        f"accuracy of the label {mean([one.accuracy for one in found])}",
        "baselines: Sharpe ratio, and the ensemble's lead",
    ]
    for name in found[0].ensemble.baselines:
        rival = np.array([sharpe(one.ensemble.baselines[name]) for one in found])
        lines.append(f"  {name:30} {mean(rival)}   {mean(own - rival)}")
    lines.append("blenders of the same members: Sharpe ratio, lead over the first, and by true regimes")
    for name, (detected, true) in by_blender(found).items():
        lines.append(f"  {name:30} {mean(detected)}   {mean(detected - own)}   {mean(true)}")
    return lines


def by_blender(found: list[Market]) -> dict[str, np.ndarray]:
    """Return Sharpe ratios by blender, the own one first: by detected and by true regimes, float64 (2, m)."""
    accounts = [
        [{one.blender: one.result, **one.blenders} for one in (market.ensemble, market.clairvoyant)]
        for market in found
    ]
    return {
        name: np.array([[sharpe(pair[i][name]) for pair in accounts] for i in (0, 1)])
        for name in accounts[0][0]
        if all(name in one for pair in accounts for one in pair)  # a fold may be too small to fit it
    }


def main(arguments: list[str] | None = None) -> int:
    """Walk, print, and return 1 if the ensemble is too far from what perfect regimes would bring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--forecasters", nargs="*", default=[], help="members beside the specialists")
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    options = parser.parse_args(arguments)
    members = [
        f"{{name: {name}, label: {{horizon: 24h}}, span: year, train_spans: 1}}"
        for name in options.forecasters
    ]
    overrides = [*DEFAULTS, *([f"forecasters=[{', '.join(members)}]"] if members else []), *options.settings]
    print(machine())
    print(f"settings: {' '.join(options.settings) or 'defaults'}; markets {options.markets}")
    found = []
    with mapper("threads") as workers:
        for seed in range(options.first_seed, options.first_seed + options.markets):
            own = [*overrides, f"market.synthetic.seed={seed}", f"seed={seed}"]
            began = time.perf_counter()
            one = compare(load(ValidateConfig, "validate.yaml", own), workers)
            found.append(one)
            baselines = one.ensemble.baselines
            leader = max(baselines, key=lambda name: sharpe(baselines[name]))
            print(
                f"seed {seed}: ensemble {sharpe(one.ensemble.result):5.2f}, clairvoyant "
                f"{sharpe(one.clairvoyant.result):5.2f}, ratio {one.ratio:5.2f}; rank {one.rank} of "
                f"{1 + len(baselines)} (best baseline: {leader}, {sharpe(baselines[leader]):.2f}); "
                f"accuracy {one.accuracy:.2f}; {len(one.ensemble.time):,} test bars in "
                f"{len(one.ensemble.folds)} folds, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    print("\n".join(table(found)))
    ratio = float(np.mean([one.ratio for one in found]))
    good = ratio >= LEAST  # false for NaN, too
    print(f"{'ok  ' if good else 'FAIL'}  mean ratio {ratio:.3f}, at least {LEAST}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

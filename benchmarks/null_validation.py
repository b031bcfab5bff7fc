"""How often validation believes in luck: whole small searches on markets without any edge (guarantee S3).

``python -m benchmarks.null_validation [--runs 200] [--pipeline specialist] [--out null.jsonl]`` runs a search
on random walks that no rule can foretell, each with its own seed, judges what it found on rows it never saw,
and prints, with the bounds that 200 runs of a test at 5 % stay in 99 times of 100,

* how often the whole verdict says pass,
* how often the line about skill alone is reached (deflated by everything judged on those rows),
* the mean probability of overfitting, 0.5 where nothing is to be learned,
* what was earned before costs, which must be nothing within its error.

The command ends with 1 if a bound is broken. With ``--out`` each run is one line of JSON, and a run that is
in the file is not made again: an interrupted benchmark goes on.

A pipeline is a function from bars and a seed to :class:`Found`. Both search and trade without costs, so what
is earned is what was foretold, and nothing protects from luck but the verdict:

* ``specialist`` is the smallest one: one generalist is evolved, its runners-up are the variants, buy and hold
  is the baseline. It takes about a second a run.
* ``ensemble`` is the walk-forward of ``python -m ensemble.validate`` made small: in every quarter
  detector, three specialists, a generalist and the blenders are fitted anew on its past, the quarters are
  joined to one account, and it meets every baseline and the criteria as they are shipped. It takes about
  three seconds a run.
"""

import argparse
import io
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from scipy.stats import binom

from backtest.costs import Costs, ImpactBucket
from compute.workers import SerialMapper
from ensemble.baselines import targets_on
from ensemble.criteria import CriteriaConfig, judge
from ensemble.evidence import EvidenceConfig, weigh
from ensemble.joining import joined
from ensemble.rerun import walked
from ensemble.robustness import RobustnessConfig, push
from ensemble.settings import ValidateConfig
from experiments.ledger import LedgerSummary, Openings
from ga.controls import Hyperparameters
from market.bars import Bars
from market.sources.scenarios import SyntheticConfig
from market.sources.synthetic import synthetic_market
from market.table import Table
from specialists.specialist import Specialist
from specialists.training import (
    GENERALIST,
    Ground,
    SpecialistConfig,
    SpecialistSearch,
    open_test,
    prepare,
)
from specialists.training import (
    judge as traded,
)

LEVEL = 0.05
OVERFITTING = 0.08  # from one half, in 200 runs
FREE = Costs(fee_bps=0, half_spread_bps=0, impact=(ImpactBucket(turnover=0, impact_bps=0),))
#: Few paths and blocks: a run is judged in a fraction of a second, by the same tests.
EVIDENCE = EvidenceConfig(paths=200, overfitting_paths=20, blocks=(8, 10))
ROBUSTNESS = RobustnessConfig(cost_factors=(0.0, 1.0), delays=(0, 1))
#: Nothing costs anything here, so there is no break-even to ask for; all other criteria are as shipped.
CRITERIA = CriteriaConfig.model_validate({"break_even": {"on": False}})
#: What makes the walk-forward small.
SMALL = {
    "folds": {"span": "quarter", "train_spans": 2, "validation_spans": 1, "embargo_bars": 48},
    "specialists": {
        "fitness": {"folds": 4, "min_trades": 5},
        "hyperparameters": {"population_size": 32, "n_generations": 6, "patience": 6},
    },
    "forecasters": (),
    "rivals": ("equal", "regime_weighted", "online"),
    "random_routing": {"draws": 3},
}


class Found(NamedTuple):
    """What a pipeline made of one market.

    Parameters
    ----------
    passed : bool
        The verdict.
    skill : float
        Probability of skill on unseen rows, deflated; NaN where nothing was traded.
    pbo : float
        Probability of backtest overfitting of what was chosen among; NaN if not known.
    earned : float
        Sharpe ratio per bar on unseen rows, before costs; NaN where nothing was traded.
    n_bars : int
        Unseen rows.
    """

    passed: bool
    skill: float
    pbo: float
    earned: float
    n_bars: int


Pipeline = Callable[[Bars, int], Found]


def specialist(bars: Bars, seed: int) -> Found:
    """One generalist on the first part of the bars, judged on the last."""
    config = SpecialistConfig(
        regime=GENERALIST,
        detector={"name": "volatility"},
        fitness={"folds": 4, "min_trades": 5},
        costs=FREE,
        split={"train": 0.6, "embargo_bars": 200},  # returns remember nothing here
        hyperparameters=Hyperparameters(population_size=48, n_generations=6, patience=6),
        seed=seed,
    )
    ground = prepare(bars, config)
    search = SpecialistSearch.of(ground, config)
    evolved = search.evolve(SerialMapper())
    unseen = open_test(ground, evolved.specialist, FREE)
    others = [search.specialist(genome) for genome in evolved.hall_of_fame]
    own = evolved.specialist.fingerprint()
    variants = {
        f"runner-up {i + 1}": traded(one, ground, ground.split.test, FREE)
        for i, one in enumerate(others[:6])
        if one.fingerprint() != own
    }
    parts = {"members": {}, "blenders": variants, "baselines": {"buy and hold": unseen.held}}
    evidence = weigh(
        unseen.champion,
        **parts,
        trials=_trials(evolved.trial_sharpes, evolved.n_unique),
        looks=Openings(0, 0),
        seed=seed,
        config=EVIDENCE,
    )
    robustness = push(
        _targets(ground, evolved.specialist),
        ground.bars[ground.split.test],
        FREE,
        evolved.specialist.limits,
        config=ROBUSTNESS,
    )
    verdict = judge(unseen.champion, **parts, evidence=evidence, robustness=robustness, config=CRITERIA)
    first = evolved.trials.pbo_of_first()
    earned = unseen.champion.metrics.sharpe / math.sqrt(bars.bars_per_year)
    return Found(
        passed=verdict.passed,
        skill=evidence.skill.deflated_unseen,
        pbo=math.nan if first is None else first.pbo,
        earned=earned,
        n_bars=evidence.skill.n_bars,
    )


def ensemble(bars: Bars, seed: int) -> Found:
    """The whole walk-forward, small: joined quarters against every baseline, and the verdict on them."""
    config = ValidateConfig.model_validate({**SMALL, "costs": FREE, "seed": seed})
    results = walked(config, bars)
    found, _ = joined(config, bars, results)
    parts = {"members": found.members, "blenders": found.blenders, "baselines": found.baselines}
    searches = [search for result in results for search in result.searches]
    evidence = weigh(
        found.result,
        **parts,
        trials=_trials(
            np.concatenate([search["sharpes"] for search in searches]),
            sum(search["n_unique"] for search in searches),
        ),
        looks=Openings(0, 0),
        seed=seed,
        config=EVIDENCE,
    )
    known = bars[: found.rows.stop]
    robustness = push(
        targets_on(known, found.rows, found.blend.exposure), known, FREE, config.limits,
        config=ROBUSTNESS, rows=found.rows,
    )  # fmt: skip
    verdict = judge(found.result, **parts, evidence=evidence, robustness=robustness, config=CRITERIA)
    return Found(
        passed=verdict.passed,
        skill=evidence.skill.deflated_unseen,
        pbo=math.nan if evidence.selection is None else evidence.selection.pbo,
        earned=found.result.metrics.sharpe / math.sqrt(bars.bars_per_year),
        n_bars=evidence.skill.n_bars,
    )


PIPELINES: dict[str, Pipeline] = {"specialist": specialist, "ensemble": ensemble}
#: Of a market: fifteen months of hours are enough for three folds.
BARS = {"specialist": 6_000, "ensemble": 11_000}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--bars", type=int, help="by default 6,000 of specialist, 11,000 of ensemble")
    parser.add_argument("--pipeline", choices=sorted(PIPELINES), default="specialist")
    parser.add_argument("--out", type=Path, help="keep each run here, and go on from what is kept")
    options = parser.parse_args()
    options.bars = BARS[options.pipeline] if options.bars is None else options.bars
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"pipeline {options.pipeline}, {options.runs} random walks of {options.bars:,} bars")
    found = []
    kept = read(options.out, options.pipeline, options.bars)
    for seed in range(options.first_seed, options.first_seed + options.runs):
        if seed not in kept:
            began = time.perf_counter()
            kept[seed] = PIPELINES[options.pipeline](random_walk(options.bars, seed), seed)
            line = {
                "pipeline": options.pipeline,
                "bars": options.bars,
                "seed": seed,
                "seconds": round(time.perf_counter() - began, 2),
                **{name: _plain(value) for name, value in kept[seed]._asdict().items()},
            }
            if options.out is not None:
                with options.out.open("a+b") as file:
                    keep(file, line)
        found.append(kept[seed])
    lines, good = summary(found)
    print("\n".join(lines))
    return 0 if good else 1


def summary(found: list[Found]) -> tuple[list[str], bool]:
    """Return what many runs have in common, in lines for people, and whether every bound holds."""
    n = len(found)
    most = binom.ppf(0.995, n, LEVEL) / n
    rows = np.array([(one.passed, one.skill, one.pbo, one.earned, one.n_bars) for one in found], dtype=float)
    passes = float(np.mean(rows[:, 0]))
    skilled = float(np.mean(np.nan_to_num(rows[:, 1]) > 1 - LEVEL))
    lines = [
        bounded("false passes of the verdict", passes, 0.0, most),
        bounded(f"probability of skill above {1 - LEVEL:g}", skilled, 0.0, most),
    ]
    chosen = rows[~np.isnan(rows[:, 2]), 2]
    if chosen.size:
        wide = OVERFITTING * math.sqrt(max(200 / chosen.size, 1.0))
        lines.append(bounded("mean PBO", float(chosen.mean()), 0.5 - wide, 0.5 + wide))
    # Worthless strategies spread by 1 / sqrt(bars); those that trade nothing have earned nothing.
    z = float((np.nan_to_num(rows[:, 3]) * np.sqrt(rows[:, 4])).sum() / math.sqrt(n))
    lines.append(bounded("earned before costs, standard errors", z, -2.6, 2.6))
    return [text for text, _ in lines], all(good for _, good in lines)


def bounded(name: str, value: float, least: float, most: float) -> tuple[str, bool]:
    """Return one line about a figure and its bounds, and whether it keeps them."""
    good = least <= value <= most
    return f"{'ok  ' if good else 'FAIL'}  {name}: {value:.3f}, bounds {least:.3f} to {most:.3f}", good


def random_walk(n: int, seed: int) -> Bars:
    """Return hourly bars whose volatility switches and whose returns nobody can foretell."""
    return synthetic_market(SyntheticConfig(scenario="random_walk", n_bars=n, seed=seed, steps=8)).bars


def read(path: Path | None, pipeline: str, bars: int) -> dict[int, Found]:
    """Return the runs that are kept in a file, by seed; a line that was cut off is not one."""
    if path is None or not path.exists():
        return {}
    kept = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if (line["pipeline"], line["bars"]) == (pipeline, bars):
            values = {name: line[name] for name in Found._fields}
            kept[line["seed"]] = Found(**{k: math.nan if v is None else v for k, v in values.items()})
    return kept


def keep(file: BinaryIO, line: dict) -> None:
    """Append one run to a file that is open for it; a line that was cut off before stays alone."""
    if file.tell():
        file.seek(-1, io.SEEK_END)
        if file.read() != b"\n":
            file.write(b"\n")
    file.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def _targets(ground: Ground, specialist: Specialist) -> Table:
    test = ground.split.test
    return specialist.fresh().update(ground.bars[test], ground.features[test], ground.labels[test])


def _trials(sharpes: np.ndarray, n_unique: int) -> LedgerSummary:
    defined = sharpes[~np.isnan(sharpes)]
    return LedgerSummary(
        "", sharpes.size, n_unique, float(n_unique), defined.size,
        float(defined.mean()), float(defined.var(ddof=1)), 1,
    )  # fmt: skip


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())

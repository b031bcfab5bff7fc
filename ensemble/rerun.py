"""The whole validation again on other bars: what shuffled markets and null studies ask for.

Nothing is shared with the run that asks: features, detector, searches, forecasters and blender begin anew.
The settings are smaller, on the bars themselves as well as on the others: like is compared with like.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from compute.workers import Mapper, SerialMapper
from ensemble.baselines import Trading
from ensemble.fold_result import FoldResult
from ensemble.folds import FoldJob, folds_of
from ensemble.forecasts import train_forecasters
from ensemble.permutation import Permutations, PermutationTest
from ensemble.settings import MONTHS, ValidateConfig
from ensemble.signals import Blend
from experiments.runs import Run
from ga.checkpoint import Checkpoints
from market.bars import Bars
from market.features.pipeline import FeaturePipeline

LABEL = "rerun"


def smaller(config: ValidateConfig) -> ValidateConfig:
    """Return the settings of a re-run: longer folds, smaller searches, no rivals."""
    own = config.permutation
    spans = {
        name: max(1, -(-getattr(config.folds, name) * MONTHS[config.folds.span] // MONTHS[own.span]))
        for name in ("train_spans", "validation_spans")
    }
    hyperparameters = config.specialists.hyperparameters.model_copy(
        update={"population_size": own.population_size, "n_generations": own.n_generations}
    )
    return config.model_copy(
        update={
            "folds": config.folds.model_copy(update={"span": own.span, **spans}),
            "specialists": config.specialists.model_copy(
                update={"hyperparameters": hyperparameters, "generalist": False}
            ),
            "forecasters": config.forecasters if own.forecasters else (),
            "random_routing": config.random_routing.model_copy(update={"draws": 0}),
            "rivals": (),
        }
    )


def earn(config: ValidateConfig, bars: Bars) -> np.ndarray:
    """Return the net returns of the strategy on the test rows of all folds, float64 (m,)."""
    results = walked(config, bars)
    blend = Blend.concat([result.blend for result in results])
    rows = slice(results[0].record.test.start, results[-1].record.test.stop)
    trading = Trading(bars, rows, config.sizing, config.costs, config.limits, config.venue, blend.label)
    return trading.exposure(blend.exposure).curve.column("net_return")


def walked(config: ValidateConfig, bars: Bars, workers: Mapper | None = None) -> tuple[FoldResult, ...]:
    """Return the folds of a walk-forward, which leaves nothing on disk.

    Parameters
    ----------
    config : ValidateConfig
    bars : Bars (n,)
    workers : Mapper, optional
        Where genomes are evaluated; the result does not depend on it.
    """
    core = FeaturePipeline(config.features).update(bars)
    wide = FeaturePipeline(config.forecast_features).update(bars) if config.forecasters else None
    splits = folds_of(bars, core.warmup, config)
    with tempfile.TemporaryDirectory() as place, SerialMapper() as alone:
        run = Run.open(Path(place) / "runs", LABEL, config.blender.name)
        forecasts = train_forecasters(run, config, bars, wide, {}, _silent, _silent)
        job = FoldJob(run, config, bars, core, wide, forecasts, splits, {})
        return tuple(job.fit(number, workers or alone) for number in range(len(splits)))


def permutation_test(
    run: Run,
    config: ValidateConfig,
    bars: Bars,
    identity: Mapping[str, str],
    workers: Mapper,
    told: Callable[[float, str], None],
) -> Permutations | None:
    """Return what the search finds on shuffled bars; None where no permutation was asked for.

    What is finished is on disk, so that a run which is resumed repeats none of it.
    """
    count = config.permutation.count
    if not count:
        return None
    test = PermutationTest(bars, _Pipeline(smaller(config)), seed=config.seed, n=count)
    with Checkpoints(run.folder / "checkpoints" / "permutations", identity, keep=2) as checkpoints:
        if checkpoints.generations():
            test.restore(checkpoints.load().state)
        while not test.finished:
            told(len(test.found) / (count + 1), f"shuffled market {len(test.found) + 1} of {count}")
            test.step(workers)
            checkpoints.save(len(test.found), test.state())
    return test.result()


class _Pipeline:
    """Travels to workers, as a nested function could not."""

    def __init__(self, config: ValidateConfig) -> None:
        self.config = config

    def __call__(self, bars: Bars) -> np.ndarray:
        return earn(self.config, bars)


def _silent(*_: object) -> None:
    pass

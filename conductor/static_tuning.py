"""Tuned fixed controls: what every conductor begins from, and the first rival it must beat.

CMA-ES in the logits of the places of the 12 controls, on fresh tasks in every iteration, all candidates on
the same ones.
"""

import warnings
from collections.abc import Callable

import numpy as np
from pydantic import Field
from scipy.special import expit, logit

from compute.seeds import stream
from compute.workers import Mapper
from conductor.curriculum import Source
from conductor.objective import candidate_losses
from conductor.steering import MARGIN, Steering
from configs.load import Config, ConfigError
from ga.controls import GAControls, values_at
from ga.variation import Variation

_LIMIT = float(logit(1.0 - MARGIN))


class StaticTuningConfig(Config):
    """How fixed controls are tuned before a conductor is trained."""

    iterations: int = Field(50, ge=1, le=100_000, description="Iterations of CMA-ES.")
    candidates: int = Field(16, ge=4, le=1024, description="Candidates per iteration.")
    tasks: int = Field(48, ge=2, le=4096, description="Fresh tasks per iteration.")
    step: float = Field(0.8, gt=0.0, le=5.0, description="First standard deviation, in logits.")


def tune_static(
    source: Source,
    variation: Variation,
    config: StaticTuningConfig,
    seed: int,
    mapper: Mapper,
    *,
    start: GAControls | None = None,
    final_share: float = 0.5,
    told: Callable[[int, int], None] | None = None,
) -> Steering:
    """Return the steering around fixed controls tuned on training tasks.

    Parameters
    ----------
    source : Source
        Training tasks.
    variation : Variation
    config : StaticTuningConfig
    seed : int
    mapper : Mapper
    start : GAControls, optional
        Where the search begins; by default the project's own.
    final_share : float
        Weight of the final error; the rest is the area under the curve.
    told : callable, optional
        ``told(done, total)`` after every iteration.

    Raises
    ------
    ConfigError
        If package cma is not installed.
    """
    begin = np.array(Steering.around(start or GAControls()).static)

    def evaluated(points: np.ndarray, iteration: int) -> np.ndarray:
        batch = source.batch(iteration, config.tasks).repeated(len(points))
        controls = np.repeat(values_at(expit(points)), config.tasks, axis=0)
        scored = batch.scores(batch.environment(variation, mapper=mapper).run_fixed(controls))
        return candidate_losses(scored.weighed(final_share).reshape(len(points), config.tasks))

    best = cma_minimum(evaluated, logit(begin), config, seed, told)
    return Steering(tuple(np.clip(expit(best), MARGIN, 1.0 - MARGIN).tolist()))


def cma_minimum(
    evaluated: Callable[[np.ndarray, int], np.ndarray],
    begin: np.ndarray,
    config: StaticTuningConfig,
    seed: int,
    told: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the last mean of CMA-ES, float64 (n,), on a noisy function of points within the margins.

    Parameters
    ----------
    evaluated : callable
        ``evaluated(points (c, n), iteration) -> losses (c,)``.
    begin : float64 (n,)
        Logits, within those of the margins.
    config : StaticTuningConfig
    seed : int
    told : callable, optional
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of optional packages that it does not find
            import cma
    except ImportError as error:
        raise ConfigError(
            "tuning of fixed controls needs package cma; install the extra conductor"
        ) from error
    rng = stream(seed, "static tuning")
    options = {
        "popsize": config.candidates,
        # Its own default seeds the global generator of NumPy.
        "seed": np.nan,
        "randn": lambda *shape: rng.standard_normal(shape),
        "verbose": -9,
        "bounds": [-_LIMIT, _LIMIT],
        "maxiter": config.iterations + 1,
    }
    search = cma.CMAEvolutionStrategy(np.clip(begin, -_LIMIT, _LIMIT), config.step, options)
    for iteration in range(config.iterations):
        points = np.array(search.ask())
        search.tell(list(points), evaluated(points, iteration).tolist())
        if told is not None:
            told(iteration + 1, config.iterations)
    return np.clip(np.array(search.result.xfavorite), -_LIMIT, _LIMIT)

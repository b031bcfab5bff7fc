"""Policies that need no learning: controls that stay, and controls that follow the clock of the run."""

import math
from dataclasses import replace

import pydantic

from configs.load import Config
from ga.controls import CONTROL_RANGES, POLICIES, GAControls
from ga.progress import Progress

# One setting per control: bounds and sentence from CONTROL_RANGES, default from GAControls.
ControlsConfig = pydantic.create_model(
    "ControlsConfig",
    __base__=Config,
    __doc__="The 12 controls as settings.",
    **{
        name: (
            float,
            pydantic.Field(
                getattr(GAControls(), name), ge=limits.low, le=limits.high, description=limits.meaning
            ),
        )
        for name, limits in CONTROL_RANGES.items()
    },
)


@POLICIES.register("fixed")
class FixedPolicy:
    """The same controls in every generation."""

    Config = ControlsConfig

    def __init__(self, config: Config | None = None) -> None:
        self._controls = GAControls(**(config or ControlsConfig()).model_dump())

    def controls(self, progress: Progress) -> GAControls:
        """Return the settings, whatever the search has shown."""
        return self._controls


@POLICIES.register("scheduled")
class ScheduledPolicy:
    """Mutation step and crossover rate follow the schedules of the run's hyperparameters.

    The settings are the controls of the first bred generation. The mutation step shrinks exponentially to
    ``mutation_schedule`` times itself in the last one, the crossover rate moves linearly by
    ``crossover_schedule``; both stay inside their ranges.
    """

    Config = ControlsConfig

    def __init__(self, config: Config | None = None) -> None:
        self._start = GAControls(**(config or ControlsConfig()).model_dump())

    def controls(self, progress: Progress) -> GAControls:
        """Return the controls that the clock of the run asks for."""
        run = progress.hyperparameters
        elapsed = min(1.0, progress.generation / max(1, run.n_generations - 1))
        step = self._start.mutation_step * math.pow(run.mutation_schedule, elapsed)
        rate = self._start.crossover_rate + run.crossover_schedule * elapsed
        return replace(
            self._start,
            mutation_step=_inside("mutation_step", step),
            crossover_rate=_inside("crossover_rate", rate),
        )


def _inside(name: str, value: float) -> float:
    limits = CONTROL_RANGES[name]
    return min(max(value, limits.low), limits.high)

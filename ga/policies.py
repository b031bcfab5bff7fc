"""Policies that need no learning: controls that stay, and controls that follow the clock of the run."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pydantic

from configs.load import Config
from ga.controls import CONTROL_NAMES, CONTROL_RANGES, POLICIES, RUGGED, SMOOTH, GAControls, inside
from ga.progress import Progress


def controls_config(name: str, defaults: GAControls) -> type[Config]:
    """Return settings of one per control: bounds and sentence from ``CONTROL_RANGES``."""
    return pydantic.create_model(
        name,
        __base__=Config,
        __doc__="The 12 controls as settings.",
        **{
            control: (
                float,
                pydantic.Field(
                    getattr(defaults, control), ge=limits.low, le=limits.high, description=limits.meaning
                ),
            )
            for control, limits in CONTROL_RANGES.items()
        },
    )


ControlsConfig = controls_config("ControlsConfig", GAControls())
SmoothConfig = controls_config("SmoothConfig", SMOOTH)
RuggedConfig = controls_config("RuggedConfig", RUGGED)


def controls_of(config: Config) -> GAControls:
    """Return the controls among the settings of a policy."""
    return GAControls(**{name: getattr(config, name) for name in CONTROL_NAMES})


class Memoryless:
    """A policy whose controls follow from the progress alone: there is nothing to save."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state; there is nothing in it."""


@POLICIES.register("fixed")
class FixedPolicy(Memoryless):
    """The same controls in every generation."""

    Config = ControlsConfig

    def __init__(self, config: Config | None = None) -> None:
        self._controls = controls_of(config or self.Config())

    def controls(self, progress: Progress) -> GAControls:
        """Return the settings, whatever the search has shown."""
        return self._controls


@POLICIES.register("smooth")
class SmoothPolicy(FixedPolicy):
    """The same controls in every generation, tuned for smooth functions and hundreds of generations."""

    Config = SmoothConfig


@POLICIES.register("rugged")
class RuggedPolicy(FixedPolicy):
    """The same controls in every generation, tuned for rules with thresholds.

    Fitness of such a rule is flat, then jumps; its best basins are narrow and often lie at a wall. They take
    hundreds of generations to find.
    """

    Config = RuggedConfig


@POLICIES.register("scheduled")
class ScheduledPolicy(Memoryless):
    """Mutation step and crossover rate follow the schedules of the run's hyperparameters.

    The settings are the controls of the first bred generation. The mutation step shrinks exponentially to
    ``mutation_schedule`` times itself in the last one, the crossover rate moves linearly by
    ``crossover_schedule``; both stay inside their ranges.
    """

    Config = ControlsConfig

    def __init__(self, config: Config | None = None) -> None:
        self._start = controls_of(config or ControlsConfig())

    def controls(self, progress: Progress) -> GAControls:
        """Return the controls that the clock of the run asks for."""
        run = progress.hyperparameters
        elapsed = min(1.0, progress.generation / max(1, run.n_generations - 1))
        step = self._start.mutation_step * math.pow(run.mutation_schedule, elapsed)
        rate = self._start.crossover_rate + run.crossover_schedule * elapsed
        return replace(
            self._start,
            mutation_step=inside("mutation_step", step),
            crossover_rate=inside("crossover_rate", rate),
        )

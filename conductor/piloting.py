"""A trained conductor as a policy of ``ga``: what ``python -m ga.evolve --conductor NAME`` runs with.

PyTorch and the network are loaded when the first numbers are asked for, so that a search with other policies
pays nothing for this one. There is nothing to save: what it chooses before the run follows from the settings
and the market, and its controls from that and the progress.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field

from conductor.market_context import MarketContext, ScaledContext
from conductor.state import NO_REGIME
from configs.load import Config, ConfigError, PluginConfig, validate
from ga.controls import CONTROL_NAMES, POLICIES, GAControls, Hyperparameters, inside
from ga.policies import Memoryless
from ga.progress import Progress
from ga.variation import Variation
from market.bars import Bars
from market.table import DataError, utc
from specialists.settings import EvolveConfig

if TYPE_CHECKING:
    from conductor.model import Conductor

_STEP, _RATE = CONTROL_NAMES.index("mutation_step"), CONTROL_NAMES.index("crossover_rate")
#: The conductor that comes with the project.
SHIPPED = Path(__file__).parent / "trained" / "es"
#: As many as ``ga.controls.Hyperparameters`` takes, of generations and of patience.
MOST_GENERATIONS = 100_000


@dataclass(frozen=True)
class _Usual:
    """A run of the settings; what ``conductor.hyperparameters`` reads of a task."""

    population_size: int
    n_generations: int
    dimension: int

    @property
    def budget(self) -> int:
        return self.population_size * (self.n_generations + 1)


class PilotedConfig(Config):
    """Settings of policy conductor."""

    folder: str | None = Field(
        None,
        description="Folder of a trained conductor, which --conductor finds by name; by default the one that "
        "comes with the project.",
    )
    weights_sha256: str | None = Field(
        None, description="Digest that its weights must have, so that a resumed run meets the same conductor."
    )


@POLICIES.register("conductor")
class PilotedPolicy(Memoryless):
    """A trained conductor sets the controls of every generation, and the hyperparameters if it can.

    Attributes
    ----------
    seconds : float
        Processor time spent on controls so far, the loading of the network left out.
    """

    Config = PilotedConfig

    def __init__(self, config: PilotedConfig) -> None:
        from conductor.model import read_document

        self._config = config
        self._folder = Path(config.folder) if config.folder is not None else SHIPPED
        self._document = read_document(self._folder)
        found = self._document["weights_sha256"]
        if config.weights_sha256 not in (None, found):
            raise ConfigError(
                f"{self._folder}: holds a conductor with weights {found[:12]}; this run began with "
                f"{config.weights_sha256[:12]}, so go on with that one or begin anew"
            )
        self._conductor: Conductor | None = None
        self._context, self._regime = ScaledContext.unknown(), NO_REGIME
        # Last mutation step as a share of the first, last crossover rate minus the first.
        self._drift = 1.0, 0.0
        self.seconds = 0.0

    def placed(self, bars: Bars, regime: int | None, opened: int) -> Self:
        """Tell the policy where it conducts; return it.

        Parameters
        ----------
        bars : Bars
            Training bars of the search: the market that the network sees.
        regime : int or None
            Position in ``regimes.regime.Regime``; None for a generalist.
        opened : int
            Open of the first bar that must be out of sample, nanoseconds UTC.

        Raises
        ------
        DataError
            If the conductor has seen real bars after that.
        """
        until = self._document["fitted_until"]
        if until > opened:
            raise DataError(
                f"{self._folder}: the conductor was trained on bars until {utc(until)}; rows from "
                f"{utc(opened)} on are not out of sample for it"
            )
        if self._document["scaled"]:
            from conductor.market_context import ContextScaler
            from conductor.model import SCALER

            scaler = ContextScaler.load(self._folder / SCALER)
            self._context = scaler.scaled(MarketContext.of(bars, bars.interval_ns))
        self._regime = NO_REGIME if regime is None else int(regime)
        return self

    def hyperparameters(self, usual: Hyperparameters, n_genes: int, least: int = 8) -> Hyperparameters:
        """Choose the hyperparameters of one run; from now on its controls drift as chosen.

        The budget stays. What the conductor would spend on several runs goes into one, of as many generations
        as there are evaluations for. Patience, a share of them, is chosen around that of the settings; a run
        that never ends early keeps to that, since no other would begin after it.

        Parameters
        ----------
        usual : Hyperparameters
            Of the settings. Their schedules are of policy ``scheduled``; the usual controls of a conductor do
            not drift. Of sizes beyond its ranges it has learned nothing and is not asked.
        n_genes : int
        least : int
            The fewest individuals, at most those of the settings.

        Returns
        -------
        Hyperparameters
            ``usual`` itself if the conductor has no head for them, or one that says nothing.
        """
        from conductor.hyperparameters import (
            HYPERPARAMETER_NAMES,
            HYPERPARAMETER_RANGES,
            hyperparameter_places,
            hyperparameter_values,
            moved,
            plan,
        )

        task = _Usual(usual.population_size, usual.n_generations, n_genes)
        residual = self._residual_of_run(task)
        self._drift = 1.0, 0.0
        for name in ("population_size", "n_generations"):
            limits = HYPERPARAMETER_RANGES[name]
            if not limits.low <= getattr(usual, name) <= limits.high:
                residual[HYPERPARAMETER_NAMES.index(name)] = 0.0
        if not residual.any():
            return usual
        own = plan(task, residual)
        population_size = max(own.population_size, least)
        n_generations = min(task.budget // population_size - 1, MOST_GENERATIONS)
        share = usual.patience / usual.n_generations
        position = HYPERPARAMETER_NAMES.index("patience")
        if residual[position]:
            places = hyperparameter_places(
                np.array([usual.population_size, usual.n_generations, share, 1.0, 0.0])
            )
            share = float(hyperparameter_values(moved(places, residual))[position])
        patience = min(max(1, round(share * n_generations)), MOST_GENERATIONS)
        self._drift = own.mutation_schedule, own.crossover_schedule
        return Hyperparameters(
            population_size=population_size,
            n_generations=n_generations,
            patience=patience if usual.patience else 0,
            mutation_schedule=own.mutation_schedule,
            crossover_schedule=own.crossover_schedule,
        )

    def controls(self, progress: Progress) -> GAControls:
        """Return the controls of the next generation."""
        from conductor.conducting import residual_of

        conductor = self._loaded()
        begin = time.thread_time()
        residual = residual_of(conductor.network, progress, self._context, self._regime)
        before = np.full(residual.shape, np.nan)
        if progress.controls is not None:
            # The way that steering goes begins where it ended, which is before the drift.
            before = progress.controls.to_array()
            factor, shift = self._drifted(progress, progress.generation - 1)
            before[_STEP] = inside("mutation_step", before[_STEP] / factor)
            before[_RATE] = inside("crossover_rate", before[_RATE] - shift)
        values = conductor.steering.steered(residual, before)
        factor, shift = self._drifted(progress, progress.generation)
        values[_STEP] *= factor
        values[_RATE] += shift
        chosen = GAControls.from_array(values)
        self.seconds += time.thread_time() - begin
        return chosen

    def _drifted(self, progress: Progress, bred: int) -> tuple[float, float]:
        # Of step and rate after so many bred generations.
        elapsed = min(1.0, bred / max(1, progress.hyperparameters.n_generations - 1))
        return self._drift[0] ** elapsed, self._drift[1] * elapsed

    def _residual_of_run(self, task: "_Usual") -> np.ndarray:
        # What the head of hyperparameters says, float64 (5,); zeros without one.
        import torch

        from conductor.hyperparameters import HYPERPARAMETER_NAMES, opening_inputs
        from conductor.network import tensors
        from conductor.sight import Outlook

        network = self._loaded().network
        outlook = Outlook.of([self._context], [self._regime])
        with torch.inference_mode():
            said = network.hyperparameters(tensors(opening_inputs([task], outlook, network.n_history)))
        if said is None:
            return np.zeros(len(HYPERPARAMETER_NAMES))
        return np.nan_to_num(said[0].numpy().astype(np.float64))

    def _loaded(self) -> "Conductor":
        if self._conductor is None:
            from conductor.model import Conductor

            self._conductor = Conductor.load(self._folder)
        return self._conductor

    def __deepcopy__(self, memo: dict[int, Any]) -> "PilotedPolicy":
        # Islands have one policy each; a network that nobody changes needs no copies.
        twin = PilotedPolicy(self._config)
        twin._context, twin._regime, twin._conductor = self._context, self._regime, self._loaded()
        twin._drift = self._drift
        return twin


def conducted(config: EvolveConfig, name: str) -> EvolveConfig:
    """Return settings of an evolution whose controls a trained conductor sets.

    Parameters
    ----------
    config : EvolveConfig
    name : str
        See :func:`conductor.model.find`.

    Raises
    ------
    ConfigError
        If there is no such conductor, another policy is named in the settings, or they choose other operators
        than the conductor learned to steer.
    """
    from conductor.model import find, read_document

    folder = find(name, config.runs).resolve()
    document = read_document(folder)
    if config.policy.name not in ("fixed", "conductor") or config.policy.settings:
        raise ConfigError(
            f"policy.name is {config.policy.name}; --conductor is a policy of its own, so leave it out"
        )
    learned = validate(Variation, document["variation"], f"{folder}: variation")
    if config.variation not in (Variation(), learned):
        raise ConfigError(
            f"variation is {config.variation.model_dump()}; the conductor {name} learned to steer "
            f"{learned.model_dump()}, so leave it out"
        )
    policy = PluginConfig(name="conductor", folder=str(folder), weights_sha256=document["weights_sha256"])
    return config.model_copy(update={"policy": policy, "variation": learned})

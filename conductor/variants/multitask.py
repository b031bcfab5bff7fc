"""One trunk, two heads: the 12 controls of every generation, and the 5 hyperparameters of the whole run.

Both are learned at once, each weighted by how uncertain it is. What makes a state hard to improve may also
tell how large and how long a run should be, so one may help the other to a better trunk.

Source: A. Kendall, Y. Gal and R. Cipolla (2018), Multi-task learning using uncertainty to weigh losses for
scene geometry and semantics (CVPR).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from compute.seeds import stream
from conductor.hyperparameters import HYPERPARAMETER_NAMES, opening_inputs, race_labels, values_of_plans
from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent, tensors
from conductor.regression import (
    as_tensors,
    held_out,
    inputs_of_labels,
    one_per_fork,
    promised_gain,
    regress,
)
from conductor.school import Labels
from conductor.sight import Inputs
from configs.load import Config

if TYPE_CHECKING:
    from conductor.school import School


class MultitaskConfig(Config):
    """Settings of variant multitask."""

    trunk: int = Field(32, ge=1, le=512, description="Units of the layer that both heads read.")
    hidden: int = Field(16, ge=1, le=256, description="Hidden units of the head of the controls.")
    race_tasks: int = Field(
        40, ge=2, le=10_000, description="Tasks on which hyperparameters race, at effort 1."
    )
    race_plans: int = Field(12, ge=2, le=1000, description="Plans in each race.")


@VARIANTS.register("multitask")
class Multitask(ConductorNetwork):
    """A shared trunk with a head of controls and a head of hyperparameters."""

    Config = MultitaskConfig

    def __init__(self, config: MultitaskConfig) -> None:
        super().__init__(config)
        self.trunk = nn.Linear(N_STATE, config.trunk)
        self.head = nn.Sequential(
            nn.Linear(config.trunk, config.hidden), nn.Tanh(), silent(nn.Linear(config.hidden, N_CONTROLS))
        )
        self.run_head = silent(nn.Linear(config.trunk, len(HYPERPARAMETER_NAMES)))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        return self.head(torch.tanh(self.trunk(inputs.state)))

    def hyperparameters(self, inputs: Inputs) -> Tensor:
        """Return the residuals of the hyperparameters, float32 (B, 5), in the order of their names.

        Parameters
        ----------
        inputs : Inputs of torch tensors
            Before anything was bred, see :func:`conductor.hyperparameters.opening_inputs`.
        """
        return self.run_head(torch.tanh(self.trunk(inputs.state)))

    def searched(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the weights of the head of controls.

        Whole runs show nothing of the other head, and the trunk may not move under it.
        """
        return ((name, one) for name, one in self.named_parameters() if name.startswith("head."))

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """Learn both heads from vine labels and from races of hyperparameters; return figures.

        A fifth of the races is held out. In the end the head of hyperparameters must prove itself on whole
        budgets of new tasks: unless it spends them better than the tasks' own sizes do, it is silenced.
        """
        races = race_labels(
            school.source,
            school.steering,
            school.variation,
            n_tasks=max(2, round(self.config.race_tasks * school.effort)),
            n_plans=self.config.race_plans,
            seed=school.seed,
            mapper=school.mapper,
            told=school.told,
        )
        targets = one_per_fork(races)
        held = held_out(targets.run, stream(school.seed, "multitask", "split"))
        device = self.trunk.weight.device
        train, test = (as_tensors(targets.rows(rows), device) for rows in (~held, held))
        joint = Joint(self, train)
        figures = regress(
            self, school, penalty=joint.penalty, criterion=joint.criterion, extra=[joint.log_variance]
        )
        found = {"races": len(targets), **self._foretold(races, test, joint), **self._proven(school)}
        if not found["decades"] < 0.0:
            silent(self.run_head)
        return {"controls": figures, "hyperparameters": {**found, "silenced": not found["decades"] < 0.0}}

    def _foretold(self, races: Labels, test: Labels, joint: "Joint") -> dict[str, Any]:
        """Return how well held-out races are foretold, before anything is silenced."""
        with torch.inference_mode():
            said = self.hyperparameters(inputs_of_labels(test))
            silence = (test.residual / joint.unit_of_run).square().mean().item()
            error = ((said - test.residual) / joint.unit_of_run).square().mean().item()
        gain, gain_error = promised_gain(said.cpu().numpy(), test.fork.cpu().numpy(), races)
        return {
            "held_out_races": len(test),
            "explained": 1.0 - error / silence if silence > 0.0 else 0.0,
            "gain": gain,
            "gain_error": gain_error,
            "log_variance": joint.log_variance.detach().tolist(),
        }

    def _proven(self, school: "School") -> dict[str, float]:
        """Return the decades between its plans and those of new tasks, and their standard error."""
        number = int(stream(school.seed, "multitask", "proof").integers(2**31, 2**32))
        batch = school.source.batch(number, max(4, round(self.config.race_tasks * school.effort)))
        seen = tensors(opening_inputs(batch.tasks, batch.outlook), self.trunk.weight.device)
        with torch.inference_mode():
            said = self.hyperparameters(seen).cpu().numpy().astype(np.float64)
        plans, usual = (
            values_of_plans(
                batch, residual, school.steering, school.variation, seed=school.seed, mapper=school.mapper
            )
            for residual in (said, np.zeros_like(said))
        )
        gap = plans - usual
        return {"decades": float(gap.mean()), "decades_error": float(gap.std(ddof=1) / np.sqrt(len(gap)))}


class Joint:
    """The losses of both heads, each divided by a variance that is learned with them.

    Parameters
    ----------
    network : Multitask
    races : Labels
        Of hyperparameters, as tensors, one row per race.

    Attributes
    ----------
    log_variance : Parameter (2,)
        Logarithms of the variances, of the controls and of the hyperparameters.
    unit_of_run : Tensor (5,)
        Root mean square of the targets of each hyperparameter.
    """

    def __init__(self, network: Multitask, races: Labels) -> None:
        self._races = races
        self.log_variance = nn.Parameter(torch.zeros(2, device=races.residual.device))
        self.unit_of_run = races.residual.square().mean(dim=0).sqrt().clamp_min(1e-6)

    def criterion(self, said: Tensor, wanted: Tensor) -> Tensor:
        """Return the weighted loss of the controls: Huber, summed over them like the squared error."""
        loss = huber_loss(said, wanted, reduction="none").sum(dim=1).mean()
        return self._weighted(loss, 0)

    def penalty(self, network: ConductorNetwork, rows: Labels, progress: float) -> Tensor:
        """Return the weighted loss of the hyperparameters on all races: Huber of standardised residuals."""
        said = network.hyperparameters(inputs_of_labels(self._races))
        loss = huber_loss(said / self.unit_of_run, self._races.residual / self.unit_of_run)
        return self._weighted(loss, 1)

    def _weighted(self, loss: Tensor, task: int) -> Tensor:
        return loss * torch.exp(-self.log_variance[task]) + 0.5 * self.log_variance[task]

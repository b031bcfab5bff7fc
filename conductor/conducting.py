"""Networks at work on batches of runs: one network for all, or one candidate's weights for each slice."""

from typing import Self

import numpy as np
import torch
from torch.func import functional_call, vmap

from conductor.environment import Environment
from conductor.market_context import ScaledContext
from conductor.network import ConductorNetwork, tensors, unflatten
from conductor.sight import Inputs, Outlook, inputs_of, inputs_of_progress
from conductor.steering import Steering
from ga.progress import Progress


class Conducting:
    """A policy of :class:`conductor.environment.Environment`: a network steers every run of the batch.

    Parameters
    ----------
    network : ConductorNetwork
    steering : Steering
    outlook : Outlook
        Of the B runs of the environment.
    weights : float64 (C, w), optional
        Searched weights of C candidates. The runs are then C slices of B / C, one for each candidate.

    Attributes
    ----------
    residuals : list of float32 (B, 12)
        What the network said, generation by generation.
    """

    def __init__(
        self,
        network: ConductorNetwork,
        steering: Steering,
        outlook: Outlook,
        weights: np.ndarray | None = None,
    ) -> None:
        self._network, self._steering, self._outlook = network, steering, outlook
        self._weights = None if weights is None else unflatten(network, weights)
        self._candidates = 0 if weights is None else len(weights)
        if weights is not None and len(outlook) % len(weights):
            raise ValueError(f"{len(outlook)} runs cannot be shared evenly by {len(weights)} candidates")
        self.residuals: list[np.ndarray] = []

    def __call__(self, states: np.ndarray, environment: Environment) -> np.ndarray:
        """Return the controls of the next generation, float64 (B, 12)."""
        inputs = inputs_of(environment, self._outlook, self._network.n_history)
        residual = self.residual(tensors(inputs))
        self.residuals.append(residual)
        return self._steering.steered(residual, environment.controls)

    def residual(self, inputs: Inputs) -> np.ndarray:
        """Return what the network says to inputs of torch tensors, float32 (B, 12)."""
        # Other threads would wait on the cores that breed meanwhile.
        with torch.inference_mode(), _OneThread():
            if self._weights is None:
                return self._network(inputs).numpy()
            shape = self._candidates, len(inputs.state) // self._candidates
            slices = Inputs(*(part.reshape(*shape, *part.shape[1:]) for part in inputs))
            said = vmap(lambda weights, own: functional_call(self._network, weights, (own,)))(
                self._weights, slices
            )
            return said.reshape(-1, said.shape[-1]).numpy()


def residual_of(
    network: ConductorNetwork, progress: Progress, context: ScaledContext, regime: int
) -> np.ndarray:
    """Return what a network says to one run inside ``ga``, float32 (12,)."""
    inputs = tensors(inputs_of_progress(progress, context, regime, network.n_history))
    with torch.inference_mode(), _OneThread():
        return network(inputs).numpy()[0]


class _OneThread:
    """Torch on one thread while it lasts."""

    def __enter__(self) -> Self:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)

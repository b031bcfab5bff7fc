"""Networks at work where the runs are: states, network and controls never leave the device.

:class:`TensorConducting` says what :class:`conductor.conducting.Conducting` says, to the precision of the
device, and is handed to ``TorchEnvironment.run_on_device``. :func:`conducted_scores` is a whole
meta-generation in one call.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from conductor import state
from conductor.curriculum import Batch
from conductor.network import ConductorNetwork, unflatten
from conductor.objective import Scores
from conductor.sight import Inputs, Outlook
from conductor.steering import STRETCH, Steering
from conductor.torch_environment import TorchEnvironment
from ga.controls import CONTROL_NAMES, CONTROL_RANGES
from ga.progress import STATISTIC_NAMES
from ga.variation import Variation

#: The statistics in the vector of a state.
_IN_STATE = [STATISTIC_NAMES.index(name) for name in state.PROGRESS_NAMES]


class TensorConducting:
    """A policy on the device: a network steers every run of the batch.

    Parameters
    ----------
    network : ConductorNetwork
        Copied to the device of the first environment that asks.
    steering : Steering
    outlook : Outlook
        Of the B runs of the environment.
    weights : float64 (C, w), optional
        Searched weights of C candidates. The runs are then C slices of B / C, one for each candidate.

    Raises
    ------
    ValueError
        If the runs cannot be shared evenly by the candidates.
    """

    def __init__(
        self,
        network: ConductorNetwork,
        steering: Steering,
        outlook: Outlook,
        weights: np.ndarray | None = None,
    ) -> None:
        if weights is not None and len(outlook) % len(weights):
            raise ValueError(f"{len(outlook)} runs cannot be shared evenly by {len(weights)} candidates")
        self._network, self._steering, self._outlook = network, steering, outlook
        self._weights = None if weights is None else unflatten(network, weights)
        self._device: torch.device | None = None

    def __call__(self, states: Tensor, environment: TorchEnvironment) -> Tensor:
        """Return the controls of the next generation, float (B, 12)."""
        if self._device != environment.device:
            self._move(environment.device)
        before = environment.controls_on_device
        with torch.no_grad():
            inputs = self.inputs(states, environment)
            if self._weights is None:
                residual = self._network(inputs)
            else:
                n = len(next(iter(self._weights.values())))
                slices = Inputs(*(part.unflatten(0, (n, len(states) // n)) for part in inputs))
                residual = vmap(lambda weights, own: functional_call(self._network, weights, (own,)))(
                    self._weights, slices
                ).reshape(len(states), -1)
        return steered(self._steering, residual.to(states.dtype), before)

    def inputs(self, states: Tensor, environment: TorchEnvironment) -> Inputs:
        """Return what the network sees, as :func:`conductor.sight.inputs_of` has it, on the device."""
        controls = environment.controls_on_device
        places = torch.where(controls.isnan(), 0.5, places_of(controls))
        market, known, regime = self._market
        vector = torch.cat([squashed(states)[:, _IN_STATE], places, market, known], 1).float()
        n = self._network.n_history
        history = vector.new_zeros(len(states), n, len(STATISTIC_NAMES))
        seen = torch.zeros(len(states), n, dtype=torch.bool, device=states.device)
        if n:
            last = squashed(environment.history_on_device(n)).float()
            history[:, n - last.shape[1] :] = last
            seen[:, n - last.shape[1] :] = True
        return Inputs(vector, history, seen, regime)

    def _move(self, device: torch.device) -> None:
        self._device = device
        self._network = copy.deepcopy(self._network).to(device)
        if self._weights is not None:
            self._weights = {name: part.to(device) for name, part in self._weights.items()}
        parts = self._outlook.market, self._outlook.known.astype(np.float64), self._outlook.regime
        self._market = [torch.as_tensor(np.ascontiguousarray(part), device=device) for part in parts]


def conducted_scores(
    network: ConductorNetwork,
    steering: Steering,
    batch: Batch,
    weights: np.ndarray | None = None,
    *,
    variation: Variation | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Scores:
    """Return decades of error of whole runs that a network conducts, or each of its candidates.

    Parameters
    ----------
    network : ConductorNetwork
    steering : Steering
    batch : Batch
        Of b landscape tasks.
    weights : float64 (C, w), optional
        Searched weights of C candidates, each of which gets the whole batch; the scores of the first come
        first, (C * b,). Without, those of the network, (b,).
    variation, device, dtype
        As in :class:`conductor.torch_environment.TorchEnvironment`.
    """
    many = batch if weights is None else batch.repeated(len(weights))
    environment = TorchEnvironment(many.tasks, variation=variation, device=device, dtype=dtype)
    environment.run_on_device(TensorConducting(network, steering, many.outlook, weights))
    found = environment.scores_on_device(many.floor)
    return Scores(*(one.to("cpu", torch.float64).numpy() for one in found))


def squashed(statistics: Tensor) -> Tensor:
    """Return statistics of a search within ±3, (..., 30), as :func:`conductor.state.squashed` has it."""
    center, unit, is_open = (
        torch.as_tensor(column, device=statistics.device)
        for column in (state.CENTER, state.UNIT, state.IS_OPEN)
    )
    values = (statistics - center.to(statistics.dtype)) / unit.to(statistics.dtype)
    values = torch.where(is_open, state.BOUND * torch.tanh(values / state.BOUND), values)
    return torch.nan_to_num(values, nan=0.0).clamp(-state.BOUND, state.BOUND)


def places_of(controls: Tensor) -> Tensor:
    """Return the places in their ranges, (..., 12), as :func:`ga.controls.places_of` has it."""
    low, high, is_log = _ranges(controls)
    logs = torch.log(torch.where(is_log, controls / low, 1.0)) / torch.log(
        torch.where(is_log, high / low, 2.0)
    )
    return torch.where(is_log, logs, (controls - low) / (high - low))


def values_at(places: Tensor) -> Tensor:
    """Return the controls in natural units, (..., 12), as :func:`ga.controls.values_at` has it."""
    low, high, is_log = _ranges(places)
    values = torch.where(
        is_log, low * torch.where(is_log, high / low, 1.0) ** places, low + places * (high - low)
    )
    return torch.clamp(values, low, high)


def steered(steering: Steering, residual: Tensor, controls: Tensor) -> Tensor:
    """Return the controls of the next generation, (..., 12), as :meth:`Steering.steered` has it.

    Parameters
    ----------
    steering : Steering
    residual : float (..., 12)
    controls : float (..., 12)
        Of the generation before, in natural units; NaN where there was none.
    """
    static = torch.tensor(steering.static, device=residual.device, dtype=residual.dtype)
    said = torch.nan_to_num(residual, nan=0.0, posinf=math.inf, neginf=-math.inf)
    before = torch.where(controls.isnan(), static, places_of(controls))
    begin = torch.logit((static + STRETCH) / (1.0 + 2.0 * STRETCH))
    asked = (1.0 + 2.0 * STRETCH) * (torch.sigmoid(begin + said) - torch.sigmoid(begin))
    target = torch.clamp(static + asked, 0.0, 1.0)
    return values_at((before + steering.rate * (target - before)).clamp(0.0, 1.0))


def _ranges(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    limits = [CONTROL_RANGES[name] for name in CONTROL_NAMES]
    low, high = (
        torch.tensor([getattr(one, side) for one in limits], device=like.device, dtype=like.dtype)
        for side in ("low", "high")
    )
    return low, high, torch.tensor([one.scale == "log" for one in limits], device=like.device)

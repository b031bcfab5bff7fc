"""What all conductors are: networks that read a run and answer with 12 residuals in logit space.

A variant is a subclass in a file of its own in ``conductor/variants``. It may stop there: the pipeline of
``conductor.training`` then gives it labels, fits it, and fine-tunes it on whole runs. Or it brings its own
schooling (:meth:`ConductorNetwork.schooled`).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compute.seeds import stream
from conductor.sight import Inputs
from conductor.state import STATE_NAMES
from configs.load import Config
from configs.registry import Registry
from ga.controls import CONTROL_NAMES

if TYPE_CHECKING:
    from conductor.school import School
    from conductor.steering import Steering

N_STATE = len(STATE_NAMES)
N_CONTROLS = len(CONTROL_NAMES)
#: Weights that evolution strategies can move; of larger networks they move the head.
MOST_WEIGHTS = 5000


class ConductorNetwork(nn.Module):
    """A network that conducts.

    A subclass has ``Config``, a :class:`configs.load.Config` of its settings, takes one as its only argument,
    and implements :meth:`forward`. Its answer must be exactly zero when it is new: the last layer of each
    path begins with zeros (:func:`silent`).
    """

    #: Settings of the variant.
    Config: ClassVar[type[Config]] = Config
    #: Generations that the network looks back on; 0 where the state of the last one is enough.
    n_history: int = 0
    #: Whether the pipeline makes vine labels for it and fits it to them before whole runs are evolved.
    wants_labels: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12), in the order of ``ga.controls.CONTROL_NAMES``.

        Parameters
        ----------
        inputs : Inputs of torch tensors
            Of B runs. Must work under ``torch.func.functional_call`` and ``torch.func.vmap``: no branch on
            the values of a tensor, nothing in place.
        """
        raise NotImplementedError

    def hyperparameters(self, inputs: Inputs) -> Tensor | None:
        """Return the residuals of 5 hyperparameters, float32 (B, 5), or None without such a head."""
        return None

    def settle(self, steering: "Steering") -> None:
        """Take note of the tuned controls that residuals move; called once, before anything is learned."""

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """Learn from what the school offers before whole runs are evolved; return figures for the report.

        By default the network is fitted to the vine labels, each weighted by its advantage.
        """
        from conductor.regression import regress

        return regress(self, school)

    def searched(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and parameter of all weights that evolution strategies move.

        All, or where they are too many those of the modules named ``head``.
        """
        everything = list(self.named_parameters())
        if sum(parameter.numel() for _, parameter in everything) <= MOST_WEIGHTS:
            yield from everything
        else:
            yield from ((name, one) for name, one in everything if "head" in name.split("."))


#: Variants by the name that a user gives; each file of ``conductor/variants`` registers its own.
VARIANTS: Registry[ConductorNetwork] = Registry("variant", "conductor.variants")


def new_network(name: str, settings: Mapping[str, Any], seed: int) -> ConductorNetwork:
    """Return a new network of a variant; the same seed gives the same weights.

    PyTorch draws first weights from its global generator, which is as it was before afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, "network").integers(2**62)))
        return VARIANTS.create(name, settings)


def silent(layer: nn.Linear) -> nn.Linear:
    """Return a linear layer whose weights and biases are zero: a new network leaves all as it was."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def tensors(inputs: Inputs, device: torch.device | str | None = None) -> Inputs:
    """Return inputs of NumPy arrays, copied, as inputs of torch tensors."""
    copies = [torch.empty(part.shape, dtype=getattr(torch, part.dtype.name)) for part in inputs]
    for copy, part in zip(copies, inputs, strict=True):
        # By NumPy: torch would wake all its threads for it, which then turn round on the cores that breed.
        copy.numpy()[...] = part
    return Inputs(*(copy.to(device) for copy in copies))


def flat(network: ConductorNetwork) -> np.ndarray:
    """Return the searched weights as one float64 vector (w,)."""
    parts = [parameter.detach().cpu().numpy().ravel() for _, parameter in network.searched()]
    return np.concatenate(parts).astype(np.float64)


def unflatten(network: ConductorNetwork, weights: np.ndarray) -> dict[str, Tensor]:
    """Return vectors (..., w) of searched weights as named float32 tensors (..., *shape)."""
    parts: dict[str, Tensor] = {}
    begin, weights = 0, torch.as_tensor(np.asarray(weights), dtype=torch.float32)
    for name, parameter in network.searched():
        end = begin + parameter.numel()
        parts[name] = weights[..., begin:end].reshape(*weights.shape[:-1], *parameter.shape)
        begin = end
    if begin != weights.shape[-1]:
        raise ValueError(f"there are {weights.shape[-1]} weights; the network searches {begin}")
    return parts


def put(network: ConductorNetwork, weights: np.ndarray) -> None:
    """Set the searched weights to a vector (w,)."""
    parts = unflatten(network, weights)
    with torch.no_grad():
        for name, parameter in network.searched():
            parameter.copy_(parts[name])

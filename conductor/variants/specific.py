"""A small network for each regime: nothing learned in one is used in another.

It is the opposite of what ``dann`` assumes, and the price of it is that every network sees only its own part
of the runs. A run that belongs to no regime gets the mean of what all networks say, so that landscapes teach
all of them.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent
from conductor.sight import Inputs
from configs.load import Config
from regimes.regime import CRISIS_NAMES, REGIME_NAMES


class SpecificConfig(Config):
    """Settings of variant specific."""

    hidden: int = Field(16, ge=1, le=256, description="Hidden units of the network of each regime.")
    n_regimes: int = Field(
        len(REGIME_NAMES), ge=1, le=len(CRISIS_NAMES), description="Regimes with a network of their own."
    )


@VARIANTS.register("specific")
class Specific(ConductorNetwork):
    """One network per regime, chosen by the label of the run."""

    Config = SpecificConfig

    def __init__(self, config: SpecificConfig) -> None:
        super().__init__(config)
        self.nets = nn.ModuleList(
            nn.ModuleDict(
                {
                    "body": nn.Linear(N_STATE, config.hidden),
                    "head": silent(nn.Linear(config.hidden, N_CONTROLS)),
                }
            )
            for _ in range(config.n_regimes)
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        said = torch.stack([net["head"](torch.tanh(net["body"](inputs.state))) for net in self.nets], dim=-2)
        return (shares(inputs.regime, len(self.nets), alone=True)[..., None] * said).sum(dim=-2)


def shares(regime: Tensor, n_regimes: int, *, alone: bool) -> Tensor:
    """Return what part each regime's network has in each run, float32 (B, n_regimes).

    Parameters
    ----------
    regime : int64 (B,)
        Position of the regime; -1, or one without a network, belongs to none.
    n_regimes : int
        Number of networks.
    alone : bool
        Whether runs without a regime have nothing but these networks: they take the mean of all then, and
        none of them otherwise.
    """
    own = (regime[..., None] == torch.arange(n_regimes, device=regime.device)).float()
    if not alone:
        return own
    return own + (1.0 - own.sum(dim=-1, keepdim=True)) / n_regimes

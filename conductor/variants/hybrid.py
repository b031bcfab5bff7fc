"""An invariant base, and a small residual for each regime on top of it.

The base is a ``dann``: it says what is right whatever the regime. If the right controls do differ by regime,
invariance forces an error on it (H. Zhao et al. 2019, On learning invariant representations for domain
adaptation, ICML), and this is where the difference goes: a head per regime that begins with zeros, shrunk
towards zero while it learns, behind a gate for each control that opens as far as it pays. A run that belongs
to no regime gets the base alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent
from conductor.regression import as_tensors, inputs_of_labels, regress
from conductor.school import Labels
from conductor.sight import Inputs
from conductor.variants.specific import shares
from configs.load import Config, PluginConfig
from regimes.regime import CRISIS_NAMES, REGIME_NAMES

if TYPE_CHECKING:
    from conductor.school import School


class HybridConfig(Config):
    """Settings of variant hybrid."""

    base: PluginConfig = Field(
        PluginConfig(name="dann"), description="Variant shared by all regimes, and its settings."
    )
    hidden: int = Field(8, ge=1, le=256, description="Hidden units that all heads of regimes read.")
    n_regimes: int = Field(
        len(REGIME_NAMES), ge=1, le=len(CRISIS_NAMES), description="Regimes with a head of their own."
    )
    shrinkage: float = Field(
        0.3, ge=0.0, le=1e6, description="Weight of the squared residuals of regimes in the loss."
    )


@VARIANTS.register("hybrid")
class Hybrid(ConductorNetwork):
    """A shared base plus gated residuals of regimes."""

    Config = HybridConfig

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.base = VARIANTS.create(config.base.name, config.base.settings)
        self.n_history = self.base.n_history
        self.body = nn.Linear(N_STATE, config.hidden)
        self.head = silent(nn.Linear(config.hidden, config.n_regimes * N_CONTROLS))
        # Half open: a closed gate would teach its head nothing.
        self.gate = nn.Parameter(torch.zeros(config.n_regimes, N_CONTROLS))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        return self.base(inputs) + self.deviation(inputs)

    def hyperparameters(self, inputs: Inputs) -> Tensor | None:
        """Return what the base says of the hyperparameters."""
        return self.base.hyperparameters(inputs)

    def deviation(self, inputs: Inputs) -> Tensor:
        """Return what the regime adds to the base, float32 (B, 12); 0 for runs of none."""
        n = self.config.n_regimes
        said = self.head(torch.tanh(self.body(inputs.state)))
        said = torch.sigmoid(self.gate) * said.reshape(*said.shape[:-1], n, N_CONTROLS)
        return (shares(inputs.regime, n, alone=False)[..., None] * said).sum(dim=-2)

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """School the base as it wishes, then fit the heads of regimes to what it leaves; return figures.

        The base rests in the second step. What the heads learn is kept only where it foretells held-out runs
        better than the base alone does.
        """
        base = dict(self.base.schooled(school))
        resting = [parameter for parameter in self.base.parameters() if parameter.requires_grad]
        for parameter in resting:
            parameter.requires_grad_(False)
        try:
            heads = regress(self, school, penalty=self._shrunk)
        finally:
            for parameter in resting:
                parameter.requires_grad_(True)
        return {"base": base, "heads": heads, "regimes": self.weight_of_regimes(school)}

    def weight_of_regimes(self, school: "School") -> dict[str, dict[str, float]]:
        """Return by regime the size of its residuals and of the base's (root mean squares), and its gate."""
        labels = school.labels(self.n_history)
        found = {}
        for position, name in enumerate(CRISIS_NAMES[: self.config.n_regimes]):
            own = labels.rows(labels.regime == position)
            if not len(own):
                continue
            inputs = inputs_of_labels(as_tensors(own, self.gate.device))
            with torch.inference_mode():
                parts = self.deviation(inputs), self.base(inputs), torch.sigmoid(self.gate[position])
            found[name] = {
                "deviation": float(parts[0].square().mean().sqrt()),
                "base": float(parts[1].square().mean().sqrt()),
                "gate": float(parts[2].mean()),
            }
        return found

    def _shrunk(self, network: ConductorNetwork, rows: Labels, progress: float) -> Tensor:
        return self.config.shrinkage * self.deviation(inputs_of_labels(rows)).square().sum(dim=1).mean()

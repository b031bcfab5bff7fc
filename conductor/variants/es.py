"""The small policy of evolution strategies: the strongest recipe on processors.

It reads statistics of the population that do not depend on the order of its members, and answers with a
linear map, or with a few hidden units beside it. The fewer weights, the better: an estimate of the gradient
from some hundred whole runs points the right way in a hundred dimensions, and hardly in a thousand. They are
evolved from the first on, without labels.

With inertia each control has one more weight, by which it stays where it came to. At 0 a control follows
what is seen now; at 1 what is seen adds up, as in the rules that adapt a step by its success.

Source: R. T. Lange et al. (2023), Discovering evolution strategies via meta-black-box optimization (ICLR) and
Discovering attention-based genetic algorithms via meta-black-box optimization (GECCO).
"""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from conductor.network import N_CONTROLS, VARIANTS, ConductorNetwork, silent
from conductor.sight import Inputs
from conductor.state import CONTROLS, STATE_NAMES
from conductor.steering import STRETCH, Steering
from configs.load import Config, did_you_mean

#: What the clock, the population and the last generation say, as far as it hardly repeats itself.
FEATURES = (
    "budget_used",
    "log_n_genes",
    "success_rate",
    "stagnation_share",
    "improvement_5",
    "median_gap",
    "fitness_distance_correlation",
    "log_relative_diversity",
    "best_to_centre",
    "age_of_best",
    "mutation_success",
    "differential_success",
)
_CLOCK = STATE_NAMES.index("budget_used")


class EsConfig(Config):
    """Settings of variant es."""

    features: tuple[str, ...] = Field(
        FEATURES, min_length=1, description="What it sees, by the names of conductor.state."
    )
    hidden: int = Field(0, ge=0, le=256, description="Hidden units beside the linear map; 0 for none.")
    inertia: bool = Field(
        True, description="Whether a control may stay where it came to, so that what is seen adds up in it."
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.features:
            if name not in STATE_NAMES:
                raise ValueError(f"features name {name!r}{did_you_mean(name, STATE_NAMES)}")
        if len(set(self.features)) < len(self.features):
            raise ValueError("features must be named once each")
        return self


@VARIANTS.register("es")
class Es(ConductorNetwork):
    """A linear map of a dozen statistics, evolved on whole runs."""

    Config = EsConfig
    wants_labels = False

    def __init__(self, config: EsConfig) -> None:
        super().__init__(config)
        columns = [STATE_NAMES.index(name) for name in config.features]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.head = silent(nn.Linear(len(columns), N_CONTROLS))
        self.body = self.beside = None
        if config.hidden:
            self.body = nn.Linear(len(columns), config.hidden)
            self.beside = silent(nn.Linear(config.hidden, N_CONTROLS, bias=False))
        self.inertia = None
        if config.inertia:
            self.inertia = nn.Parameter(torch.zeros(N_CONTROLS))
            self.register_buffer("home", torch.full((N_CONTROLS,), 0.5))

    def settle(self, steering: Steering) -> None:
        """Take note of where the tuned controls stand."""
        if self.inertia is not None:
            self.home.copy_(torch.tensor(steering.static))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        seen = inputs.state[..., self.columns]
        said = self.head(seen)
        if self.body is not None:
            said = said + self.beside(torch.tanh(self.body(seen)))
        if self.inertia is not None:
            said = said + self.inertia * self._way(inputs.state)
        return said

    def _way(self, state: Tensor) -> Tensor:
        # How far the last controls stood from the tuned ones, in the logits of steering; 0 before the first.
        away = _logits(state[..., CONTROLS]) - _logits(self.home)
        return torch.where(state[..., _CLOCK : _CLOCK + 1] > 0.0, away, 0.0)


def _logits(places: Tensor) -> Tensor:
    places = places.clamp(0.0, 1.0)
    return torch.log((places + STRETCH) / (1.0 + STRETCH - places))

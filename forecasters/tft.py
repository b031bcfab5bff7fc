"""Temporal fusion transformer: it chooses columns, remembers rows, looks back at some, and says which.

A compact form of the original for a few hundred columns of one symbol on a CPU. There are no static
covariates and no inputs that are known ahead, so the newest row alone is decoded. A residual network per
column, as the original has it, is most of the arithmetic where there are 150 of them; here each has one bent
unit beside its value, and one matrix adds them up. The network that weighs them is the original one.

Source: B. Lim, S. Arik, N. Loeff and T. Pfister (2021), Temporal fusion transformers for interpretable
multi-horizon time series forecasting; the numbers of its equations stand beside the layers.
"""

import math
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from forecasters.forecaster import FORECASTERS, N_CLASSES
from forecasters.quantiles import Levels
from forecasters.torch_training import NetworkConfig, NetworkForecaster, explained_windows, silent
from forecasters.windows import Examples


class TftConfig(NetworkConfig):
    """Settings of forecaster tft."""

    d_model: int = Field(32, ge=2, le=2048, description="Numbers per row; a multiple of the heads.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads; they share what they read.")
    quantiles: Levels = Field(
        (0.1, 0.5, 0.9),
        max_length=99,
        description="Levels of the return's quantiles to learn beside the classes, or none.",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model is {self.d_model}; it must be a multiple of the {self.heads} heads")
        return self


class Gate(nn.Module):
    """What was found passes a gate and is added to what was there before, which an open way is left to."""

    def __init__(self, found: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Linear(found, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, before: Tensor, found: Tensor) -> Tensor:
        """Return (…, width): equations 2 and 5."""
        return self.norm(before + functional.glu(self.gate(self.dropout(found)), dim=-1))


class GatedResidual(nn.Module):
    """A map of two layers behind a gate, beside its input."""

    def __init__(self, given: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.beside = nn.Identity() if given == width else nn.Linear(given, width)
        self.map = nn.Sequential(nn.Linear(given, hidden), nn.ELU(), nn.Linear(hidden, hidden))
        self.gate = Gate(hidden, width, dropout)

    def forward(self, given: Tensor) -> Tensor:
        """Return (…, width): equations 2 to 5."""
        return self.gate(self.beside(given), self.map(given))


class VariableSelection(nn.Module):
    """Weighs the columns of each row by what stands in all of them, and adds up what each of them says."""

    def __init__(self, k: int, width: int, dropout: float) -> None:
        super().__init__()
        self.weigh = GatedResidual(k, width, k, dropout)
        nn.init.zeros_(self.weigh.gate.norm.weight)  # a new network does not prefer any column
        self.slope = nn.Parameter(torch.ones(k))
        self.shift = nn.Parameter(torch.zeros(k))
        self.say = nn.Linear(k, width)
        self.say_bent = nn.Linear(k, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows (…, width) and the weights of their columns (…, k), with the sum 1: equations 6 to 8.

        Equation 6 weighs embedded columns. Those are linear in the columns, and so is the first layer that
        reads them: the columns themselves will do.
        """
        weights = self.weigh(rows).softmax(dim=-1)
        # Times k, so that a column of mean weight counts as it would without any.
        emphasis = weights * rows.shape[-1]
        bent = functional.elu(rows * self.slope + self.shift)
        return self.norm(self.say(emphasis * rows) + self.say_bent(emphasis * bent)), weights


class SharedAttention(nn.Module):
    """The newest row looks back. All heads read the same values, so their mean weight is where it looked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.offer = nn.Linear(width, width)
        self.value = nn.Linear(width, width // heads)
        self.told = nn.Linear(width // heads, width)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what was read (m, width), and the weights of the rows (m, t), with the sum 1.

        Equations 13 to 16; nothing has to be masked, because no row is later than the newest.
        """
        m, t, width = rows.shape
        asked = self.ask(rows[:, -1]).view(m, 1, self.heads, -1)
        offered = self.offer(rows).view(m, t, self.heads, -1)
        near = (asked * offered).sum(dim=-1) / math.sqrt(width // self.heads)  # (m, t, heads)
        weights = near.softmax(dim=1).mean(dim=-1)
        return self.told((weights[..., None] * self.value(rows)).sum(dim=1)), weights


class FusionTransformer(nn.Module):
    """Columns are chosen, rows remembered in order, and the newest looks back at those that matter."""

    def __init__(self, k: int, config: TftConfig) -> None:
        super().__init__()
        width, dropout = config.d_model, config.dropout
        self.choose = VariableSelection(k, width, dropout)
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.remembered = Gate(width, width, dropout)
        self.enrich = GatedResidual(width, width, width, dropout)
        self.look = SharedAttention(width, config.heads)
        self.seen = Gate(width, width, dropout)
        self.think = GatedResidual(width, width, width, dropout)
        self.thought = Gate(width, width, 0.0)
        self.head = silent(nn.Linear(width, N_CLASSES + len(config.quantiles)))
        with torch.no_grad():  # gates in PyTorch's order: input, forget, cell, output; what is new is kept
            self.memory.bias_ih_l0[width : 2 * width].fill_(1.0)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the answer at the newest row: (m, 3 + number of quantiles)."""
        return self.read(windows)[0]

    def read(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the answer, the weights of columns (m, t, k), and those of rows (m, t)."""
        chosen, columns = self.choose(windows)
        local = self.remembered(chosen, self.memory(chosen)[0])
        enriched = self.enrich(local)
        found, rows = self.look(enriched)
        thought = self.think(self.seen(enriched[:, -1], found))
        return self.head(self.thought(local[:, -1], thought)), columns, rows


@FORECASTERS.register("tft", family="attention")
class TftForecaster(NetworkForecaster):
    """Temporal fusion transformer: it chooses columns, and has quantiles of the return beside the classes."""

    name = "tft"
    Config = TftConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return FusionTransformer(len(columns), self.config)

    def explained(self, network: nn.Module, examples: Examples) -> np.ndarray:
        """Return the mean weight with which each column is chosen, over rows of training windows."""
        with torch.inference_mode():
            _, columns, _ = network.body.read(explained_windows(examples))
        found = columns.double().mean(dim=(0, 1)).numpy()
        return found / found.sum()

    def attention(self, windows: np.ndarray) -> np.ndarray:
        """Return how much the answer looked at each row of a window: float64 (m, lookback), with the sum 1.

        Raises
        ------
        DataError, ValueError
            As :meth:`predict`.
        """
        return self._answered(windows, self.lookback, lambda network, some: network.body.read(some)[2])

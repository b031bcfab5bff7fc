"""LSTM and GRU: they read a window row by row, and what they remember at its newest row answers.

Sources: S. Hochreiter and J. Schmidhuber (1997), Long short-term memory; K. Cho et al. (2014), Learning
phrase representations using RNN encoder-decoder (gated recurrent unit); R. Jozefowicz et al. (2015), An
empirical exploration of recurrent network architectures (bias of the forget gate).
"""

from pydantic import Field
from torch import Tensor, nn

from forecasters.forecaster import FORECASTERS, N_CLASSES
from forecasters.torch_training import NetworkConfig, NetworkForecaster, silent


class RecurrentConfig(NetworkConfig):
    """Settings of forecasters lstm and gru."""

    hidden: int = Field(64, ge=1, le=2048, description="Numbers that are remembered per layer.")
    layers: int = Field(1, ge=1, le=8, description="Layers; dropout stands between them and at the end.")


class _Reader(nn.Module):
    # Rows in order through a recurrent layer; its state at the newest one answers.

    def __init__(self, cell: type[nn.RNNBase], k: int, config: RecurrentConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.memory = cell(k, config.hidden, config.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.head = silent(nn.Linear(config.hidden, N_CLASSES))
        for name, part in self.memory.named_parameters():
            if name.startswith("weight_hh"):
                for gate in part.data.split(config.hidden):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(part)
            else:
                nn.init.zeros_(part)
            if cell is nn.LSTM and name.startswith("bias_ih"):
                # Gates in PyTorch's order: input, forget, cell, output. What is new is kept at first.
                nn.init.ones_(part.data[config.hidden : 2 * config.hidden])

    def forward(self, windows: Tensor) -> Tensor:
        remembered, _ = self.memory(windows)  # (m, lookback, hidden)
        return self.head(self.dropout(remembered[:, -1]))


@FORECASTERS.register("lstm", family="recurrent")
class LstmForecaster(NetworkForecaster):
    """Long short-term memory over the window."""

    name = "lstm"
    Config = RecurrentConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return _Reader(nn.LSTM, len(columns), self.config)


@FORECASTERS.register("gru", family="recurrent")
class GruForecaster(NetworkForecaster):
    """Gated recurrent units over the window: as the LSTM with a gate less, and somewhat faster."""

    name = "gru"
    Config = RecurrentConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return _Reader(nn.GRU, len(columns), self.config)

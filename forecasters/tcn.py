"""The temporal convolutional network: causal convolutions that reach twice as far in every block.

Only the answer at the newest row is wanted, and of each block the next ones see every second position alone,
counted from the newest. What lies between is therefore dropped after each block, and the dilated convolutions
become plain ones on what is left: the same numbers for less than half the work.

Source: S. Bai et al. (2018), An empirical evaluation of generic convolutional and recurrent networks for
sequence modeling (arXiv 1803.01271), section 3; normalization stands before each convolution.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from forecasters.forecaster import FORECASTERS, N_CLASSES
from forecasters.torch_training import NetworkConfig, NetworkForecaster, silent


class TcnConfig(NetworkConfig):
    """Settings of forecaster tcn."""

    channels: int = Field(64, ge=1, le=2048, description="Numbers per position.")
    blocks: int = Field(
        5, ge=1, le=10, description="Blocks; n of them reach 1 + 2 * (kernel - 1) * (2**n - 1) rows back."
    )
    kernel: int = Field(3, ge=2, le=16, description="Positions that a convolution sees.")


class CausalConvolution(nn.Module):
    """Convolution over positions (m, t, c) that sees a position and those before; the first sees zeros."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weights = nn.Linear(kernel * channels, channels)

    def forward(self, positions: Tensor) -> Tensor:
        """Return one output per position: (m, t, c)."""
        t = positions.shape[1]
        padded = functional.pad(positions, (0, 0, self.kernel - 1, 0))
        # One matrix product instead of a convolution: faster for windows this short.
        return self.weights(torch.cat([padded[:, i : i + t] for i in range(self.kernel)], dim=-1))


class Block(nn.Module):
    """Two causal convolutions beside the unchanged positions."""

    def __init__(self, config: TcnConfig) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(2):
            convolution = CausalConvolution(config.channels, config.kernel)
            parts += [nn.LayerNorm(config.channels), convolution, nn.GELU(), nn.Dropout(config.dropout)]
        self.path = nn.Sequential(*parts)

    def forward(self, positions: Tensor) -> Tensor:
        """Return as many positions as there were: (m, t, c)."""
        return positions + self.path(positions)


class TemporalNetwork(nn.Module):
    """Blocks, with every second position dropped after each."""

    def __init__(self, k: int, config: TcnConfig) -> None:
        super().__init__()
        self.entry = nn.Linear(k, config.channels)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.channels)
        self.head = silent(nn.Linear(config.channels, N_CLASSES))

    def forward(self, windows: Tensor) -> Tensor:
        """Return the answer at the newest row: (m, 3)."""
        positions = self.entry(windows)
        for block in self.blocks:
            positions = every_second(block(positions))
        return self.head(self.norm(positions[:, -1]))


def every_second(positions: Tensor) -> Tensor:
    """Return the newest position, the one before the last, and so on: (m, (t + 1) // 2, c)."""
    return positions[:, (positions.shape[1] - 1) % 2 :: 2]


@FORECASTERS.register("tcn", family="convolutional")
class TcnForecaster(NetworkForecaster):
    """Dilated causal convolutions over the window."""

    name = "tcn"
    Config = TcnConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return TemporalNetwork(len(columns), self.config)

"""N-HiTS: blocks that read the window at different rates, each what the slower ones left unexplained.

A block sees its input pooled, answers with its part of the logits, and hands on the input less its own smooth
reconstruction of it. The original forecasts the series itself; here the parts of the answer are logits, and
the columns are mixed into a few series first.

Source: C. Challu et al. (2023), N-HiTS: neural hierarchical interpolation for time series forecasting,
sections 3.2 to 3.4.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from forecasters.forecaster import FORECASTERS, N_CLASSES
from forecasters.torch_training import NetworkConfig, NetworkForecaster, silent

Rate = Annotated[int, Field(ge=1, le=512)]


class NhitsConfig(NetworkConfig):
    """Settings of forecaster nhits."""

    rates: tuple[Rate, ...] = Field(
        (8, 4, 1), min_length=1, max_length=32, description="Rows that are pooled into one, for each block."
    )
    hidden: int = Field(128, ge=1, le=8192, description="Numbers between the maps of a block.")
    layers: int = Field(2, ge=1, le=16, description="Maps of a block before its answer.")
    channels: int = Field(
        8,
        ge=0,
        le=1024,
        description="Series that the columns are mixed into; 0 leaves each column a series of its own.",
    )

    @model_validator(mode="after")
    def _rates_fit(self) -> Self:
        if max(self.rates) > self.lookback:
            raise ValueError(
                f"rates hold {max(self.rates)}; they must be at most the lookback of {self.lookback}"
            )
        return self


class Block(nn.Module):
    """One rate: series (m, channels, lookback) to a part of the logits and the series' smooth part."""

    def __init__(self, channels: int, rate: int, last: bool, config: NhitsConfig) -> None:
        super().__init__()
        self.rate, self.channels = rate, channels
        n = -(-config.lookback // rate)
        #: Rows in front of the oldest, so that the newest pool ends with the newest row.
        self.missing = n * rate - config.lookback
        parts: list[nn.Module] = []
        width = channels * n
        for _ in range(config.layers):
            parts += [nn.Linear(width, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            width = config.hidden
        self.map = nn.Sequential(*parts)
        self.head = silent(nn.Linear(width, N_CLASSES))
        self.knots = None if last else nn.Linear(width, channels * n)

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (m, 3), and what the next block sees: the series less its smooth part."""
        m, _, lookback = series.shape
        padded = functional.pad(series, (self.missing, 0), mode="replicate") if self.missing else series
        found = self.map(functional.max_pool1d(padded, self.rate).flatten(1))
        if self.knots is not None:
            knots = self.knots(found).view(m, self.channels, -1)
            smooth = functional.interpolate(knots, size=lookback, mode="linear", align_corners=True)
            series = series - smooth
        return self.head(found), series


class HierarchicalNetwork(nn.Module):
    """Blocks from slow to fast, whose answers add up."""

    def __init__(self, k: int, config: NhitsConfig) -> None:
        super().__init__()
        channels, last = config.channels or k, len(config.rates) - 1
        self.mix = nn.Linear(k, channels) if config.channels else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(channels, rate, i == last, config) for i, rate in enumerate(config.rates)
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Return the answer: (m, 3)."""
        series = self.mix(windows).transpose(1, 2).contiguous()
        answer, series = self.blocks[0](series)
        for block in self.blocks[1:]:
            part, series = block(series)
            answer = answer + part
        return answer


@FORECASTERS.register("nhits", family="mlp")
class NhitsForecaster(NetworkForecaster):
    """Hierarchical interpolation: the window at several rates, from slow to fast."""

    name = "nhits"
    Config = NhitsConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return HierarchicalNetwork(len(columns), self.config)

"""Networks that look back at the rows that matter: a causal transformer over rows, and PatchTST over patches.

Sources: A. Vaswani et al. (2017), Attention is all you need; R. Xiong et al. (2020), On layer normalization
in the transformer architecture (normalization before each sublayer); Y. Nie et al. (2023), A time series is
worth 64 words: long-term forecasting with transformers (patches, independent channels).
"""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from forecasters.forecaster import FORECASTERS, N_CLASSES
from forecasters.torch_training import NetworkConfig, NetworkForecaster, silent


class AttentionConfig(NetworkConfig):
    """Settings that both networks share."""

    d_model: int = Field(64, ge=2, le=2048, description="Numbers per token; a multiple of the heads.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads per layer.")
    layers: int = Field(2, ge=1, le=16, description="Layers.")
    feed_forward: int = Field(128, ge=1, le=8192, description="Numbers between the two maps of a layer.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"d_model is {self.d_model}; it must be a multiple of the {self.heads} heads")
        return self


class TransformerConfig(AttentionConfig):
    """Settings of forecaster transformer."""


class PatchConfig(AttentionConfig):
    """Settings of forecaster patchtst."""

    d_model: int = Field(32, ge=2, le=2048, description="Numbers per patch; a multiple of the heads.")
    feed_forward: int = Field(64, ge=1, le=8192, description="Numbers between the two maps of a layer.")
    channels: int = Field(
        8,
        ge=0,
        le=1024,
        description="Series that the columns are mixed into; 0 leaves each column a series of its own.",
    )
    patch: int = Field(8, ge=1, le=512, description="Rows of a patch.")
    stride: int = Field(4, ge=1, le=512, description="Rows between the beginnings of patches.")

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.patch > self.lookback or self.stride > self.patch:
            raise ValueError(
                f"patch is {self.patch} and stride {self.stride}; a patch must fit into the lookback of "
                f"{self.lookback} and a stride into the patch"
            )
        return self


class Layer(nn.Module):
    """Self-attention and a map of each token, both beside the unchanged tokens."""

    def __init__(self, config: AttentionConfig, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = config.heads, causal, config.dropout
        width = config.d_model
        self.before_attention = nn.LayerNorm(width)
        self.asked = nn.Linear(width, width)
        self.offered = nn.Linear(width, 2 * width)
        self.told = nn.Linear(width, width)
        self.map = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.feed_forward),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feed_forward, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, tokens: Tensor, newest_only: bool = False) -> Tensor:
        """Return all tokens (m, t, width) or, for less work, the newest alone (m, 1, width)."""
        known = self.before_attention(tokens)
        asking = known[:, -1:] if newest_only else known
        query = self._by_head(self.asked(asking))
        key, value = (self._by_head(part) for part in self.offered(known).chunk(2, dim=-1))
        read = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal and not newest_only,  # the newest token may see all
        )
        tokens = tokens[:, -1:] if newest_only else tokens
        tokens = tokens + functional.dropout(
            self.told(read.transpose(1, 2).flatten(2)), self.dropout, self.training
        )
        return tokens + self.map(tokens)

    def _by_head(self, tokens: Tensor) -> Tensor:
        m, t, width = tokens.shape
        return tokens.view(m, t, self.heads, width // self.heads).transpose(1, 2)


class RowTransformer(nn.Module):
    """Each row is a token and sees those before; the newest one answers."""

    def __init__(self, k: int, config: TransformerConfig) -> None:
        super().__init__()
        self.entry = nn.Linear(k, config.d_model)
        self.place = nn.Parameter(torch.randn(config.lookback, config.d_model) * 0.02)
        self.layers = nn.ModuleList(Layer(config, causal=True) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = silent(nn.Linear(config.d_model, N_CLASSES))

    def forward(self, windows: Tensor) -> Tensor:
        """Return the answer at the newest row: (m, 3)."""
        tokens = self.entry(windows) + self.place
        for i, layer in enumerate(self.layers):
            tokens = layer(tokens, newest_only=i == len(self.layers) - 1)
        return self.head(self.norm(tokens[:, -1]))


class PatchTransformer(nn.Module):
    """Patches of series, each series through the same layers by itself; all patches together answer.

    Features are no series of one kind, as the original has them, and 150 of them times a dozen patches is too
    much for a CPU: a linear map mixes them into a few series first. Windows are not normalized by themselves:
    columns are scaled, and their level is part of what they say.
    """

    def __init__(self, k: int, config: PatchConfig) -> None:
        super().__init__()
        self.patch, self.stride = config.patch, config.stride
        channels = config.channels or k
        self.mix = nn.Linear(k, channels) if config.channels else nn.Identity()
        n_patches = -(-(config.lookback - config.patch) // config.stride) + 1
        #: Rows in front of the oldest, so that the newest patch ends with the newest row.
        self.missing = config.patch + (n_patches - 1) * config.stride - config.lookback
        self.entry = nn.Linear(config.patch, config.d_model)
        self.place = nn.Parameter(torch.randn(n_patches, config.d_model) * 0.02)
        self.layers = nn.ModuleList(Layer(config, causal=False) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.head = silent(nn.Linear(channels * n_patches * config.d_model, N_CLASSES))

    def forward(self, windows: Tensor) -> Tensor:
        """Return the answer: (m, 3)."""
        series = self.mix(windows).transpose(1, 2)  # (m, channels, lookback)
        if self.missing:
            series = functional.pad(series, (self.missing, 0), mode="replicate")
        patches = series.unfold(-1, self.patch, self.stride).flatten(0, 1)  # (m * channels, patches, patch)
        tokens = self.entry(patches) + self.place
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.dropout(self.norm(tokens).view(len(windows), -1)))


@FORECASTERS.register("transformer", family="attention")
class TransformerForecaster(NetworkForecaster):
    """Causal attention over the rows of the window."""

    name = "transformer"
    Config = TransformerConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return RowTransformer(len(columns), self.config)


@FORECASTERS.register("patchtst", family="attention")
class PatchForecaster(NetworkForecaster):
    """Attention over patches of rows, series by series."""

    name = "patchtst"
    Config = PatchConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return PatchTransformer(len(columns), self.config)

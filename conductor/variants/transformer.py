"""The transformer: it reads the last generations one by one and looks back at those that matter.

Each generation of the history is a token, and so is the state of the search, which stands last and answers.
No generation sees a later one, and rows before the beginning of a run are seen by nobody. Which generations
were looked at can be exported (:meth:`Transformer.attention`).

Sources: A. Vaswani et al. (2017), Attention is all you need; R. Xiong et al. (2020), On layer normalization
in the transformer architecture (normalization before each sublayer).
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent
from conductor.sight import Inputs
from conductor.state import HISTORY_NAMES
from configs.load import Config, ConfigError

# Added to the scores of what must not be seen; finite, so that no row of scores is empty.
_UNSEEN = -1e9


class TransformerConfig(Config):
    """Settings of variant transformer."""

    generations: int = Field(24, ge=1, le=64, description="Generations that it looks back on.")
    width: int = Field(32, ge=4, le=256, description="Numbers per token; a multiple of the heads.")
    heads: int = Field(2, ge=1, le=8, description="Attention heads per layer.")
    layers: int = Field(1, ge=1, le=6, description="Layers.")


class Attention(nn.Module):
    """Self-attention of several heads over tokens (B, n, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.asked = nn.Linear(width, 3 * width)
        self.told = nn.Linear(width, width)

    def forward(self, tokens: Tensor, unseen: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """Return what the last tokens read, (B, last, width), and their weights (B, heads, last, n).

        ``unseen`` (B, last, n) is added to their scores.
        """
        *before, n, width = tokens.shape
        parts = self.asked(tokens).reshape(*before, n, 3, self.heads, width // self.heads)
        query, key, value = parts.movedim(-3, 0).transpose(-2, -3)  # (B, heads, n, width / heads) each
        scores = query[..., n - last :, :] @ key.transpose(-1, -2) * (width // self.heads) ** -0.5
        weights = torch.softmax(scores + unseen.unsqueeze(-3), dim=-1)
        read = (weights @ value).transpose(-2, -3)
        return self.told(read.reshape(*before, last, width)), weights


class Layer(nn.Module):
    """Attention, then two linear maps for each token; both added to what there was."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm, self.step_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.step = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, unseen: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """Return the last tokens anew, and the weights of their attention."""
        read, weights = self.attention(self.attention_norm(tokens), unseen, last)
        tokens = tokens[..., tokens.shape[-2] - last :, :] + read
        return tokens + self.step(self.step_norm(tokens)), weights


@VARIANTS.register("transformer")
class Transformer(ConductorNetwork):
    """A small causal transformer over the statistics of the last generations."""

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        if config.width % config.heads:
            raise ConfigError(
                f"variant transformer: width is {config.width}; it must be a multiple of {config.heads} heads"
            )
        self.n_history = config.generations
        self.generation = nn.Linear(len(HISTORY_NAMES), config.width)
        self.present = nn.Linear(N_STATE, config.width)
        # Counted from the newest, so that a place means an age however long the run is.
        self.place = nn.Parameter(0.1 * torch.randn(config.generations + 1, config.width))
        self.layers = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        place = torch.arange(config.generations + 1)
        self.register_buffer("earlier", place[:, None] > place, persistent=False)
        self.register_buffer("itself", place[:, None] == place, persistent=False)
        hidden = config.width // 2
        self.head = nn.Sequential(
            nn.Linear(config.width, hidden), nn.Tanh(), silent(nn.Linear(hidden, N_CONTROLS))
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        return self.head(self.features(inputs))

    def features(self, inputs: Inputs) -> Tensor:
        """Return the token of the state after the last layer, float32 (B, width)."""
        return self.norm(self._read(inputs, 1)[0][..., -1, :])

    def attention(self, inputs: Inputs) -> Tensor:
        """Return who looked at whom, float32 (B, layers, heads, N + 1, N + 1).

        The last two axes are the token that looks and the one it looks at: the N generations, the newest
        last, and then the state. Weights of a token sum to 1; rows before the beginning of a run see only
        themselves and are seen by nobody.
        """
        with torch.inference_mode():
            return torch.stack(self._read(inputs, self.n_history + 1)[1], dim=-4)

    def _read(self, inputs: Inputs, last: int) -> tuple[Tensor, list[Tensor]]:
        # Tokens before the last ones are needed up to the last layer, which nobody reads beyond.
        # Labels may hold more history than this network looks back on.
        history = inputs.history[..., -self.n_history :, :]
        known = inputs.known[..., -self.n_history :]
        tokens = torch.cat([self.generation(history), self.present(inputs.state).unsqueeze(-2)], dim=-2)
        tokens, weights = tokens + self.place, []
        unseen = self._unseen(known)
        for layer in self.layers:
            wanted = last if layer is self.layers[-1] else tokens.shape[-2]
            tokens, looked = layer(tokens, unseen[..., tokens.shape[-2] - wanted :, :], wanted)
            weights.append(looked)
        return tokens, weights

    def _unseen(self, known: Tensor) -> Tensor:
        # To add to scores (B, n, n): 0 for earlier known tokens and for itself.
        there = torch.cat([known, torch.ones_like(known[..., :1])], dim=-1)
        seen = (there.unsqueeze(-2) & self.earlier) | self.itself
        return torch.where(seen, 0.0, _UNSEEN)

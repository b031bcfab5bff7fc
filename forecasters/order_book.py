"""Order books: convolutions join price and size, both sides and all levels; an LSTM reads what they find.

Columns of the book are found by their names, in any order: ``ask_price_1``, ``ask_size_1``, ``bid_price_1``,
``bid_size_1`` and so on, level 1 the best. All other columns pass the convolutions by and go to the LSTM.

Source: Z. Zhang, S. Zohren and S. Roberts (2019), DeepLOB: deep convolutional neural networks for limit order
books, section IV. Here every convolution over time sees the past alone.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from forecasters.forecaster import FORECASTERS, N_CLASSES
from forecasters.torch_training import NetworkConfig, NetworkForecaster, silent
from market.table import DataError

#: Columns of a level, in the order in which convolutions read them; the level follows each.
SIDES = ("ask_price_", "ask_size_", "bid_price_", "bid_size_")
_LEAK = 0.01


class BookConfig(NetworkConfig):
    """Settings of forecaster cnn_lstm."""

    filters: int = Field(16, ge=1, le=512, description="Filters of the convolutions over the book.")
    branch_filters: int = Field(32, ge=1, le=512, description="Filters of each of the three time scales.")
    hidden: int = Field(64, ge=1, le=2048, description="Numbers that the LSTM remembers.")


def book_columns(columns: tuple[str, ...]) -> tuple[int, list[int], list[int]]:
    """Return the number of levels, the positions of the book's columns in order, and those of all others.

    Raises
    ------
    DataError
        If there is no first level, or a column of a level is missing.
    """
    named = {name for name in columns if name.startswith(SIDES)}
    levels = 0
    while all(f"{side}{levels + 1}" in named for side in SIDES):
        levels += 1
    book = [columns.index(f"{side}{level}") for level in range(1, levels + 1) for side in SIDES]
    lost = sorted(named - {columns[i] for i in book})
    if lost:
        raise DataError(f"forecaster cnn_lstm: column {lost[0]} stands alone; a level has {_of(levels + 1)}")
    if levels == 0:
        raise DataError(f"forecaster cnn_lstm: there is no order book; its columns are {_of(1)} and so on")
    return levels, book, [i for i in range(len(columns)) if i not in set(book)]


def _of(level: int) -> str:
    return ", ".join(f"{side}{level}" for side in SIDES)


class PastConvolution(nn.Module):
    """Convolution over time (m, c, t, width) that sees ``rows`` rows up to the present one."""

    def __init__(self, channels: int, out: int, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.weights = nn.Conv2d(channels, out, (rows, 1))

    def forward(self, found: Tensor) -> Tensor:
        """Return as many rows as there were: (m, out, t, width)."""
        padded = functional.pad(found, (0, 0, self.rows - 1, 0))
        return functional.leaky_relu(self.weights(padded), _LEAK)


class BookNetwork(nn.Module):
    """The book's columns become features of each row, at three time scales; the LSTM reads the rows."""

    def __init__(self, columns: tuple[str, ...], config: BookConfig) -> None:
        super().__init__()
        levels, book, others = book_columns(columns)
        self.register_buffer("book", torch.tensor(book), persistent=False)
        self.register_buffer("others", torch.tensor(others, dtype=torch.int64), persistent=False)
        f, b = config.filters, config.branch_filters
        parts: list[nn.Module] = []
        # Price with size; ask with bid; all levels: each halves or ends the width of 4 * levels.
        for channels, joined, stride in ((1, 2, 2), (f, 2, 2), (f, levels, 1)):
            parts += [
                nn.Conv2d(channels, f, (1, joined), (1, stride)),
                nn.LeakyReLU(_LEAK),
                PastConvolution(f, f, 4),
                PastConvolution(f, f, 4),
            ]
        self.across = nn.Sequential(*parts)
        self.short = nn.Sequential(PastConvolution(f, b, 1), PastConvolution(b, b, 3))
        self.long = nn.Sequential(PastConvolution(f, b, 1), PastConvolution(b, b, 5))
        self.highest = PastConvolution(f, b, 1)
        self.memory = nn.LSTM(3 * b + len(others), config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head = silent(nn.Linear(config.hidden, N_CLASSES))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                # By PyTorch's own first weights a dozen convolutions would leave nothing of the book.
                nn.init.kaiming_normal_(part.weight, _LEAK, nonlinearity="leaky_relu")
                nn.init.zeros_(part.bias)

    def rows(self, windows: Tensor) -> Tensor:
        """Return what the LSTM reads: (m, lookback, 3 * branch_filters + other columns)."""
        found = self.across(windows[..., self.book].unsqueeze(1))  # (m, f, lookback, 1)
        past = functional.pad(found, (0, 0, 2, 0), value=-torch.inf)
        scales = (self.short(found), self.long(found), self.highest(functional.max_pool2d(past, (3, 1), 1)))
        joined = torch.cat(scales, dim=1).squeeze(-1).transpose(1, 2)
        return torch.cat([joined, windows[..., self.others]], dim=-1)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the answer at the newest row: (m, 3)."""
        remembered, _ = self.memory(self.rows(windows))
        return self.head(self.dropout(remembered[:, -1]))


@FORECASTERS.register("cnn_lstm", family="order_book")
class BookForecaster(NetworkForecaster):
    """Convolutions over the levels of an order book, and an LSTM over their findings."""

    name = "cnn_lstm"
    Config = BookConfig

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return the network; see :meth:`NetworkForecaster.body`."""
        return BookNetwork(columns, self.config)

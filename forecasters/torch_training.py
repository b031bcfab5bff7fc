"""How every network forecaster learns, answers, and is kept on disk: one loop for all of them.

A forecaster of PyTorch is a subclass of :class:`NetworkForecaster` with a name, a ``Config`` and one method,
:meth:`NetworkForecaster.body`. Nothing else differs: batches of windows gathered on demand, AdamW, clipped
gradients, a running mean of the weights, and of these means the one with the lowest validation loss.

All arithmetic is float32 on one thread. Networks of this size gain little from more, and so neither the
number of cores nor a neighbor changes a bit; folds are what runs side by side.
"""

import copy
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from compute.seeds import stream
from configs.load import Config, ConfigError
from forecasters.forecaster import (
    DOCUMENT,
    N_CLASSES,
    Forecaster,
    Told,
    read_forecaster,
    write_forecaster,
)
from forecasters.quantiles import pinball, returns_of
from forecasters.windows import Examples
from market.table import DataError

WEIGHTS = "weights.safetensors"
#: Entry of the weights' file that repeats what the document says: the digest of the file then covers both.
_COPY = "forecaster"
#: Windows that are answered at once.
_AT_ONCE = 512
#: Training examples that importances are taken from.
_EXPLAINED = 512
#: A class that no training example has still gets this share.
_LEAST_SHARE = 1e-4
#: Quantiles of the training returns that are closer than this, in mean sizes of a return, are moved apart.
_LEAST_GAP = 1e-3
# The generator that PyTorch draws first weights and dropout from is one for the whole process.
_FITTING = threading.RLock()


class NetworkConfig(Config):
    """Settings that all networks share: the window, and how they learn."""

    lookback: int = Field(48, ge=2, le=512, description="Rows of a window, the newest included.")
    dropout: float = Field(0.1, ge=0.0, lt=1.0, description="Share of numbers that training leaves out.")
    epochs: int = Field(20, ge=1, le=10_000, description="At most so many passes over the training rows.")
    patience: int = Field(
        4, ge=1, le=10_000, description="Epochs without a lower validation loss after which training ends."
    )
    batch_size: int = Field(256, ge=1, le=65_536, description="Windows per step.")
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="Of AdamW, per step.")
    warmup_steps: int = Field(
        100, ge=0, le=1_000_000, description="Steps over which the learning rate rises from 0."
    )
    weight_decay: float = Field(
        0.01, ge=0.0, le=10.0, description="Of AdamW, per unit of learning rate; biases do not decay."
    )
    averaging: float = Field(
        0.98,
        ge=0.0,
        lt=1.0,
        description="Share that the running mean of the weights keeps per step; the mean is what answers.",
    )
    max_gradient: float = Field(
        1.0, gt=0.0, le=1e6, description="Longer gradients are clipped to this length."
    )


class NetworkForecaster(Forecaster):
    """A forecaster that is a network; a subclass has ``name``, ``Config`` and :meth:`body`.

    Attributes
    ----------
    columns : tuple of str
        Of the windows; empty before ``fit``.
    story : mapping
        What ``fit`` saw: ``train_loss`` of each epoch, ``validation_loss`` before the first and after each,
        the ``epoch`` whose weights were kept (0: those before the first, the shares of the classes).
        Losses are weighted means of the log loss, nats; with quantiles, their mean pinball loss is added:
        1 where they are no better than those of all training returns.
    """

    #: In ``FORECASTERS``.
    name: ClassVar[str]
    Config: ClassVar[type[NetworkConfig]] = NetworkConfig
    config: NetworkConfig

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__(config)
        self.columns: tuple[str, ...] = ()
        self.story: Mapping[str, Any] = {}
        self._network: _Answer | None = None
        self._importances: np.ndarray | None = None

    def body(self, columns: tuple[str, ...]) -> nn.Module:
        """Return a new network: float32 windows (m, lookback, k) to (m, 3), zeros as long as it is new.

        With the setting ``quantiles`` it answers (m, 3 + q): what follows the classes moves the lowest
        quantile, and widens the distance of each further one from the one below it.

        The last layer of each path is passed through :func:`silent`. Each window must be answered by itself:
        nothing in it may mix rows of a batch, as batch normalization does.

        Raises
        ------
        DataError
            If it cannot read these columns.
        """
        raise NotImplementedError

    @property
    def network(self) -> nn.Module:
        """The fitted network: windows to logits (m, 3), in evaluation mode."""
        if self._network is None:
            raise ValueError(f"forecaster {self.name} is not fitted; call fit or load before predict")
        return self._network

    def fit(self, train: Examples, validation: Examples, *, seed: int, told: Told | None = None) -> Self:
        """Learn from the training examples, stop on the validation examples, and return self.

        The same examples, settings and seed give the same weights, whatever the number of threads; global
        generators of random numbers are afterwards as they were.

        Raises
        ------
        DataError
            If there are no examples or no targets, windows have another length, or the columns of training
            and validation differ.
        ConfigError
            If the loss becomes infinite or no number.
        """
        for what, some in (("training", train), ("validation", validation)):
            _require(self, what, some)
        if train.names != validation.names:
            raise DataError(f"forecaster {self.name}: training and validation have different columns")
        with _FITTING, _one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(seed, "forecaster", self.name, "torch").integers(2**62)))
            network = _Answer(self.body(train.names), _Known.of(train, self.levels))
            order = stream(seed, "forecaster", self.name, "order")
            story = learn(network, train, validation, self.config, order, f"forecaster {self.name}", told)
            importances = self.explained(network, train) if story["epoch"] else None
        self._network, self.columns, self.story = network, train.names, story
        self._importances = importances
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return the probabilities of down, none and up: float64 (m, 3).

        Raises
        ------
        DataError
            If a value is not finite.
        ValueError
            If the forecaster is not fitted, or the windows have another shape.
        """
        return self._answered(windows, N_CLASSES, lambda network, some: network(some).double().softmax(dim=1))

    def quantiles(self, windows: np.ndarray) -> np.ndarray | None:
        """Return quantiles of the label's return: float64 (m, q); None without the setting ``quantiles``.

        Raises
        ------
        DataError, ValueError
            As :meth:`predict`.
        """
        if not self.levels:
            return None
        return self._answered(windows, len(self.levels), lambda network, some: network.quantiles(some))

    def _answered(
        self, windows: np.ndarray, columns: int, answer: Callable[[nn.Module, Tensor], Tensor]
    ) -> np.ndarray:
        network, wanted = self.network, (self.lookback, len(self.columns))
        if windows.ndim != 3 or windows.shape[1:] != wanted:
            raise ValueError(
                f"forecaster {self.name}: windows are {windows.shape}; they must be (m, *{wanted})"
            )
        if not np.isfinite(windows).all():
            raise DataError(f"forecaster {self.name}: a window holds a value that is not finite")
        out = np.empty((len(windows), columns))
        with _one_thread(), torch.inference_mode():
            for begin in range(0, len(windows), _AT_ONCE):
                some = slice(begin, begin + _AT_ONCE)
                piece = torch.tensor(np.ascontiguousarray(windows[some], np.float32))
                out[some] = answer(network, piece).numpy()
        return out

    def importances(self) -> np.ndarray | None:
        """Return how much each column moves the answer, float64 (k,) with the sum 1; None if nothing does.

        Mean over training windows of the absolute gradient of the right class's log probability times the
        value, summed over the rows of the window. Scaled columns have their median at zero, so this is to
        first order what the answer would lose if the column stood at its median.

        Source: A. Shrikumar et al. (2017), Learning important features through propagating activation
        differences, section 3.1 (gradient times input).
        """
        return None if self._importances is None else self._importances.copy()

    def explained(self, network: nn.Module, examples: Examples) -> np.ndarray | None:
        """Return what :meth:`importances` answers, taken from a network that has just learned.

        A network that has a better account of its columns says so here; ``network.body`` is what
        :meth:`body` returned.
        """
        windows = explained_windows(examples).requires_grad_()
        some = _explained_rows(examples)
        wanted = torch.tensor(examples.target[some], dtype=torch.int64)
        loss = functional.cross_entropy(network(windows), wanted, reduction="sum")
        (slope,) = torch.autograd.grad(loss, windows)
        found = (slope * windows).detach().abs().sum(dim=(0, 1)).numpy().astype(np.float64)
        return found / found.sum() if found.sum() > 0.0 else None

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors`` and ``forecaster.json``, which names its digest."""
        from safetensors.torch import save

        network, folder = self.network, Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "columns": list(self.columns),
            "story": dict(self.story),
            "importances": None if self._importances is None else self._importances.tolist(),
        }
        repeated = {_COPY: _repeated(self.config.model_dump(mode="json"), state)}
        weights = {name: part.detach().contiguous() for name, part in network.state_dict().items()}
        unfinished = folder / f"{WEIGHTS}.unfinished"
        unfinished.write_bytes(save(weights, repeated))
        os.replace(unfinished, folder / WEIGHTS)
        write_forecaster(folder, self.name, self.config, state, [WEIGHTS])

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return a saved forecaster; it answers with the same bits.

        Raises
        ------
        DataError
            If a file is missing, damaged, or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        folder = Path(folder)
        saved = read_forecaster(folder, cls.name)
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise DataError(f"{folder / WEIGHTS}: cannot be read as weights ({error})") from error
        if metadata.get(_COPY) != _repeated(saved.settings, saved.state):
            raise DataError(f"{folder / DOCUMENT}: does not say what was saved with {WEIGHTS}")
        new = cls(saved.config(cls.Config))
        new.columns, new.story = tuple(saved.state["columns"]), saved.state["story"]
        with _FITTING, torch.random.fork_rng(devices=[]):
            network = _Answer(new.body(new.columns), _Known.nothing(new.levels))
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(
                f"{folder / WEIGHTS}: does not hold the weights of forecaster {cls.name}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        new._network = network.eval()
        if saved.state["importances"] is not None:
            new._importances = saved.array("importances", (len(new.columns),))
        return new


def learn(
    network: "_Answer",
    train: Examples,
    validation: Examples,
    config: NetworkConfig,
    order: np.random.Generator,
    place: str,
    told: Told | None = None,
) -> dict[str, Any]:
    """Fit a network in place and leave it with the weights of the lowest validation loss.

    What is validated, and kept, is a running mean of the weights: markets are mostly noise, and steps at a
    constant rate walk around the best weights rather than to them. The weights before the first epoch are
    among those to choose from: labels that teach nothing leave the network as it was. Dropout draws from the
    global generator of PyTorch.

    Source: B. Polyak and A. Juditsky (1992), Acceleration of stochastic approximation by averaging; here the
    mean forgets exponentially.

    Parameters
    ----------
    network : _Answer
        Windows float32 (m, lookback, k) to logits (m, 3), and to quantiles where there are levels.
    train, validation : Examples
        With targets.
    config : NetworkConfig
    order : Generator
        Shuffles the training examples anew in each epoch.
    place : str
        Of what, for messages.
    told : callable, optional
        Called after each epoch.

    Returns
    -------
    dict
        See :class:`NetworkForecaster`.

    Raises
    ------
    ConfigError
        If a loss is infinite or no number.
    """
    wanted = _Wanted.of(train)
    decaying = [part for part in network.parameters() if part.ndim > 1]
    others = [part for part in network.parameters() if part.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0)
    n_batches = math.ceil(len(train) / config.batch_size)
    train_losses: list[float] = []
    losses = [_mean_loss(network, validation)]
    mean = copy.deepcopy(network)
    best, kept, step = copy.deepcopy(network.state_dict()), 0, 0
    for epoch in range(1, config.epochs + 1):
        network.train()
        total = 0.0
        for piece in np.array_split(order.permutation(len(train)), n_batches):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, step / max(config.warmup_steps, 1))
            some = torch.from_numpy(piece)
            loss = _losses(network, torch.from_numpy(train.windows(piece)), wanted, some).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient)
            optimizer.step()
            _approach(mean, network, max(1.0 - config.averaging, 1.0 / step))
            total += float(loss.detach()) * len(piece)
        train_losses.append(total / len(train))
        losses.append(_mean_loss(mean, validation))
        if not math.isfinite(train_losses[-1] + losses[-1]):
            raise ConfigError(
                f"{place}: the loss of epoch {epoch} is not a number; features must be scaled, or "
                f"learning_rate lower than {config.learning_rate:g}"
            )
        if losses[-1] < losses[kept]:
            best, kept = copy.deepcopy(mean.state_dict()), epoch
        ended = epoch - kept >= config.patience
        if told is not None:
            line = f"epoch {epoch}: validation loss {losses[-1]:.4f}, at best {losses[kept]:.4f}"
            told(1.0 if ended else epoch / config.epochs, line)
        if ended:
            break
    network.load_state_dict(best)
    network.eval()
    return {"train_loss": train_losses, "validation_loss": losses, "epoch": kept}


def silent(layer: nn.Linear) -> nn.Linear:
    """Return a linear layer whose weights and biases are zero: the last one of a new network."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Known(NamedTuple):
    # What is known without looking at a window: shares of the classes (3,), the mean size of a return, and
    # quantiles of returns in that unit, one per level, with their pinball losses.
    shares: np.ndarray
    levels: tuple[float, ...]
    unit: float
    quantiles: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, examples: Examples, levels: tuple[float, ...]) -> Self:
        counts = np.bincount(examples.target, examples.weight, minlength=N_CLASSES)
        shares = np.maximum(counts / counts.sum(), _LEAST_SHARE)
        shares = shares / shares.sum()
        if not levels:
            return cls(shares, (), 1.0, np.empty(0), np.empty(0))
        ret, weight = examples.ret, examples.ret_weight
        unit = float(np.abs(ret).mean()) or 1.0
        quantiles = np.quantile(ret / unit, levels, weights=weight, method="inverted_cdf")
        return cls(shares, levels, unit, quantiles, pinball(quantiles, ret / unit, levels))

    @classmethod
    def nothing(cls, levels: tuple[float, ...]) -> Self:
        steps = np.arange(len(levels), dtype=np.float64)
        return cls(np.full(N_CLASSES, 1.0 / N_CLASSES), levels, 1.0, steps, np.ones(len(levels)))


class _Answer(nn.Module):
    # A body's answer on top of what is known: logits of the classes and, where there are levels, quantiles.
    # The body moves the lowest one; each further one lies a positive distance above the one below it.

    def __init__(self, body: nn.Module, known: _Known) -> None:
        super().__init__()
        self.body = body
        self.shares = nn.Parameter(torch.tensor(np.log(known.shares), dtype=torch.float32))
        if known.levels:
            self.register_buffer("levels", torch.tensor(known.levels, dtype=torch.float32), persistent=False)
            # What each level would lose without looking counts as 1, or else the classes would drown it out.
            worth = 1.0 / np.maximum(known.losses, _LEAST_GAP)
            self.register_buffer("worth", torch.tensor(worth, dtype=torch.float32), persistent=False)
            self.register_buffer("unit", torch.tensor(known.unit, dtype=torch.float64))
            gaps = np.maximum(np.diff(known.quantiles), _LEAST_GAP)
            # The inverse of the softplus that they pass through.
            steps = np.concatenate([known.quantiles[:1], gaps + np.log(-np.expm1(-gaps))])
            self.steps = nn.Parameter(torch.tensor(steps, dtype=torch.float32))

    def forward(self, windows: Tensor) -> Tensor:
        return self.both(windows)[0]

    def both(self, windows: Tensor) -> tuple[Tensor, Tensor | None]:
        # Logits (m, 3), and quantiles in units (m, q) or None.
        found = self.body(windows)
        logits = found[:, :N_CLASSES] + self.shares
        if not hasattr(self, "steps"):
            return logits, None
        steps = found[:, N_CLASSES:] + self.steps
        rising = torch.cat([steps[:, :1], functional.softplus(steps[:, 1:])], dim=1)
        return logits, rising.cumsum(dim=1)

    def quantiles(self, windows: Tensor) -> Tensor:
        return self.both(windows)[1].double() * self.unit


def _require(forecaster: NetworkForecaster, what: str, some: Examples) -> None:
    place = f"forecaster {forecaster.name}: {what}"
    if len(some) == 0 or some.target is None:
        raise DataError(f"{place} has {len(some)} examples{' without targets' if len(some) else ''}")
    if some.lookback != forecaster.lookback:
        raise DataError(f"{place} windows hold {some.lookback} rows; they must hold {forecaster.lookback}")
    if forecaster.levels:
        returns_of(some, forecaster.name, what)


class _Wanted(NamedTuple):
    # What the examples came to, and what each counts: tensors (m,).
    target: Tensor
    weight: Tensor
    ret: Tensor | None
    ret_weight: Tensor

    @classmethod
    def of(cls, examples: Examples) -> Self:
        def counted(weight: np.ndarray | None) -> Tensor:
            return torch.tensor(np.ones(len(examples)) if weight is None else weight, dtype=torch.float32)

        return cls(
            torch.tensor(examples.target, dtype=torch.int64),
            counted(examples.weight),
            None if examples.ret is None else torch.tensor(examples.ret),
            counted(examples.ret_weight),
        )


def _losses(network: _Answer, windows: Tensor, wanted: _Wanted, some: slice | Tensor) -> Tensor:
    # Of each window: the log loss and, of quantiles, the mean pinball loss in its own units. Both weighted.
    logits, quantiles = network.both(windows)
    losses = functional.cross_entropy(logits, wanted.target[some], reduction="none") * wanted.weight[some]
    if quantiles is None:
        return losses
    above = (wanted.ret[some] / network.unit).float()[:, None] - quantiles
    lost = network.worth * torch.maximum(network.levels * above, (network.levels - 1.0) * above)
    return losses + lost.mean(dim=1) * wanted.ret_weight[some]


def _mean_loss(network: _Answer, examples: Examples) -> float:
    network.eval()
    wanted = _Wanted.of(examples)
    total = 0.0
    with torch.inference_mode():
        for begin in range(0, len(examples), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            losses = _losses(network, torch.from_numpy(examples.windows(some)), wanted, some)
            total += float(losses.double().sum())
    return total / float(wanted.weight.double().sum())


def _approach(mean: nn.Module, network: nn.Module, share: float) -> None:
    with torch.no_grad():
        for part, now in zip(mean.parameters(), network.parameters(), strict=True):
            part.lerp_(now, share)


def explained_windows(examples: Examples) -> Tensor:
    """Return the windows that importances are taken from: (at most 512, lookback, k), evenly over all."""
    return torch.from_numpy(examples.windows(_explained_rows(examples)))


def _explained_rows(examples: Examples) -> np.ndarray:
    return np.unique(np.linspace(0, len(examples) - 1, min(_EXPLAINED, len(examples))).astype(np.int64))


def _repeated(settings: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    return json.dumps({"settings": settings, "state": state}, sort_keys=True, allow_nan=False)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

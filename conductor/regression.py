"""Fitting a network to vine labels: advantage-weighted regression.

Within a fork each branch weighs by the exponential of its advantage; the network learns the weighted mean of
their residuals. It sees the same inputs in all branches of a fork, so the squared error to the branches is
that to their weighted mean plus what no network can change, and one row per fork is enough.

Branches are drawn evenly around zero. A fork in which the controls did not matter therefore asks for almost
nothing, and one in which they did for a step towards what helped: the temperature is its length.

Source: X. B. Peng et al. (2019), Advantage-weighted regression (arXiv 1910.00177).
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compute.seeds import stream
from conductor.network import ConductorNetwork
from conductor.school import Labels
from conductor.sight import Inputs

if TYPE_CHECKING:
    from conductor.school import School

#: Temperature of the weights, in standard deviations of advantages.
TEMPERATURE = 0.3
#: Share of the runs that are held out.
HELD_OUT = 0.2
#: Epochs without a better held-out loss after which the fit ends.
PATIENCE = 25
#: Rows of which the held-out loss is taken at once.
_AT_ONCE = 4096

#: ``penalty(network, rows, progress)``: something to add to the loss, a tensor of no dimensions. ``rows`` are
#: labels whose arrays are tensors, one row per fork (:func:`one_per_fork`); progress goes from 0 to 1.
Penalty = Callable[[ConductorNetwork, Labels, float], Tensor]
#: ``criterion(said, wanted)``: the loss of residuals (b, 12) against the targets, a tensor of no dimensions.
Criterion = Callable[[Tensor, Tensor], Tensor]


def regress(
    network: ConductorNetwork, school: "School", *, penalty: Penalty | None = None, **options: Any
) -> dict[str, Any]:
    """Fit a network to the labels of a school; see :func:`fit` for the options and the figures."""
    labels = school.labels(network.n_history)
    return fit(network, labels, seed=school.seed, penalty=penalty, told=school.told, **options)


def fit(
    network: ConductorNetwork,
    labels: Labels,
    *,
    seed: int,
    penalty: Penalty | None = None,
    criterion: Criterion | None = None,
    extra: Sequence[nn.Parameter] = (),
    epochs: int = 150,
    batch_size: int = 128,
    learning_rate: float | Callable[[float], float] = 2e-3,
    weight_decay: float = 1e-3,
    temperature: float = TEMPERATURE,
    keep: str = "best",
    told: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Fit a network to vine labels, in place.

    A fifth of the runs is held out. The same network, labels and seed give the same weights.

    Parameters
    ----------
    network : ConductorNetwork
    labels : Labels
        With at least as much history as the network looks back on.
    seed : int
        Of the split and of the order of the rows.
    penalty : callable, optional
        Added to the loss of every batch; not part of the held-out loss.
    criterion : callable, optional
        Loss to learn from instead of the squared error; the held-out loss is the squared error always.
    extra : sequence of Parameter
        Parameters of the penalty or the criterion that are fitted too, without decay.
    epochs : int
        At most so many passes over the rows.
    batch_size : int
        Forks per step.
    learning_rate : float or callable
        Of Adam; a callable gives it for the progress, 0 to 1.
    weight_decay : float
        Of Adam, decoupled.
    temperature : float
        See :func:`one_per_fork`.
    keep : {"best", "last"}
        ``best`` keeps the weights with the lowest held-out loss, those before the first epoch among them, and
        ends after ``PATIENCE`` epochs without a lower one: labels that teach nothing leave the network as it
        was. ``last`` goes through all epochs, as a schedule of the penalty may ask for.
    told : callable, optional
        ``told(done, total, sentence)`` after each epoch.

    Returns
    -------
    dict
        ``train_loss`` of each epoch; ``held_out_loss`` before the first and after each; ``epoch`` kept;
        ``explained``, the share of the held-out targets' squares that the network explains and silence would
        not; ``gain`` and ``gain_error``, the advantage over the tuned controls that held-out forks promise to
        the network's residuals to first order, in standard deviations, and its standard error over runs;
        ``size``, the root mean square of its residuals; ``forks`` and ``held_out_forks``.

    Raises
    ------
    ValueError
        If ``keep`` is neither, the labels come from fewer than two runs, or a loss is not a number.
    """
    if keep not in ("best", "last"):
        raise ValueError(f"keep is {keep!r}; it must be best or last")
    device = next(network.parameters()).device
    rows = as_tensors(one_per_fork(labels, temperature), device)
    held = held_out(rows.run.cpu().numpy(), stream(seed, "regression", "split"))
    train_rows, test_rows = (np.flatnonzero(part) for part in (~held, held))
    order = stream(seed, "regression", "order")
    groups = [{"params": list(network.parameters()), "weight_decay": weight_decay}]
    if extra:
        groups.append({"params": list(extra), "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    n_batches = math.ceil(len(train_rows) / batch_size)
    test = rows.rows(torch.from_numpy(test_rows).to(device))
    train_losses: list[float] = []
    test_losses = [_mean_loss(network, rows, test_rows)]
    best, kept = copy.deepcopy(network.state_dict()), 0
    network.train()
    for epoch in range(1, epochs + 1):
        total, done = 0.0, 0
        for piece in _pieces(order.permutation(train_rows), n_batches):
            progress = (epoch - 1 + done / len(train_rows)) / epochs
            rate = learning_rate(progress) if callable(learning_rate) else learning_rate
            for group in optimizer.param_groups:
                group["lr"] = rate
            some = rows.rows(torch.from_numpy(piece).to(device))
            loss = (criterion or squared_error)(network(inputs_of_labels(some)), some.residual)
            total, done = total + float(loss.detach()) * len(piece), done + len(piece)
            whole = loss if penalty is None else loss + penalty(network, some, progress)
            optimizer.zero_grad(set_to_none=True)
            whole.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        train_losses.append(total / done)
        network.eval()
        test_losses.append(_mean_loss(network, rows, test_rows))
        network.train()
        if not math.isfinite(train_losses[-1] + test_losses[-1]):
            raise ValueError(f"the loss of epoch {epoch} is not a number; the learning rate may be too high")
        if keep == "last" or test_losses[-1] < test_losses[kept]:
            kept = epoch
            if keep == "best":
                best = copy.deepcopy(network.state_dict())
        if told is not None:
            told(epoch, epochs, f"held-out loss {test_losses[-1]:.5f}, at best {min(test_losses):.5f}")
        if keep == "best" and epoch - kept >= PATIENCE:
            break
    if keep == "best":
        network.load_state_dict(best)
    network.eval()
    with torch.inference_mode():
        said = network(inputs_of_labels(test))
    gain, error = promised_gain(said.cpu().numpy(), test.fork.cpu().numpy(), labels)
    silence = float((test.residual**2).sum(dim=1).mean())
    return {
        "train_loss": train_losses,
        "held_out_loss": test_losses,
        "epoch": kept,
        "explained": 1.0 - _mean_loss(network, rows, test_rows) / silence if silence > 0.0 else 0.0,
        "gain": gain,
        "gain_error": error,
        "size": float(said.square().mean().sqrt()),
        "forks": len(train_rows),
        "held_out_forks": len(test_rows),
    }


def one_per_fork(labels: Labels, temperature: float = TEMPERATURE) -> Labels:
    """Return labels with one row per fork: its inputs and the weighted means over its branches.

    Parameters
    ----------
    labels : Labels
    temperature : float
        A branch weighs by ``exp(advantage / temperature)``; the lower, the more the best branch decides.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    names, first, place = np.unique(labels.fork, return_index=True, return_inverse=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, place, labels.advantage)
    weight = np.exp((labels.advantage - highest[place]) / temperature)
    weight /= np.bincount(place, weight)[place]
    residual = np.zeros((len(names), labels.residual.shape[1]))
    np.add.at(residual, place, weight[:, None] * labels.residual)
    return replace(
        labels.rows(first),
        residual=residual.astype(np.float32),
        advantage=np.bincount(place, weight * labels.advantage).astype(np.float32),
    )


def as_tensors(labels: Labels, device: torch.device | str | None = None) -> Labels:
    """Return labels whose arrays are tensors."""
    return Labels(
        *(
            torch.as_tensor(np.ascontiguousarray(getattr(labels, name)), device=device)
            for name in labels.__dataclass_fields__
        )
    )


def inputs_of_labels(labels: Labels) -> Inputs:
    """Return what a network sees in the rows of labels."""
    return Inputs(labels.state, labels.history, labels.known, labels.regime)


def promised_gain(residual: np.ndarray, fork: np.ndarray, labels: Labels) -> tuple[float, float]:
    """Return what forks promise to residuals over the tuned controls, and the standard error over runs.

    To first order the advantage of a residual is its product with the slope of the advantages of the
    branches, which is estimated by least squares in all 12 directions at once with their known covariance:
    branches are drawn independently with the same spread.

    Parameters
    ----------
    residual : float (f, 12)
        What a network says in the state of each fork.
    fork : int (f,)
        Of which forks; none twice.
    labels : Labels
        With all branches of these forks.

    Returns
    -------
    (float, float)
        In standard deviations of advantages.
    """
    row_of = {name: row for row, name in enumerate(fork.tolist())}
    rows = np.array([row_of.get(name, -1) for name in labels.fork.tolist()])
    chosen = rows >= 0
    rows, branch = rows[chosen], labels.residual[chosen].astype(np.float64)
    size = np.bincount(rows, minlength=len(fork))
    power = np.bincount(rows, (branch**2).mean(axis=1), minlength=len(fork)) / size
    product = labels.advantage[chosen] * (branch * residual[rows]).sum(axis=1)
    promise = np.bincount(rows, product, minlength=len(fork)) / size / np.maximum(power, 1e-12)
    run = np.zeros(len(fork), dtype=np.int64)
    run[rows] = labels.run[chosen]
    _, place = np.unique(run, return_inverse=True)
    by_run = np.bincount(place, promise) / np.bincount(place)
    error = by_run.std(ddof=1) / math.sqrt(len(by_run)) if len(by_run) > 1 else math.nan
    return float(promise.mean()), float(error)


def held_out(run: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which rows are held out, bool (m,): all rows of a fifth of the runs, drawn at random.

    Raises
    ------
    ValueError
        If there are fewer than two runs.
    """
    names = np.unique(run)
    if len(names) < 2:
        raise ValueError(f"labels come from {len(names)} run; two are needed, one of them held out")
    n_held = max(1, round(HELD_OUT * len(names)))
    return np.isin(run, rng.permutation(names)[:n_held])


def _pieces(rows: np.ndarray, n: int) -> Iterator[np.ndarray]:
    yield from np.array_split(rows, n)


def squared_error(said: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error of residuals (b, 12), summed over the controls, a mean over the rows."""
    return (said - wanted).square().sum(dim=1).mean()


def _mean_loss(network: ConductorNetwork, rows: Labels, chosen: np.ndarray) -> float:
    total = 0.0
    with torch.inference_mode():
        for piece in np.array_split(chosen, math.ceil(len(chosen) / _AT_ONCE)):
            some = rows.rows(torch.from_numpy(piece).to(rows.residual.device))
            total += float(squared_error(network(inputs_of_labels(some)), some.residual)) * len(piece)
    return total / len(chosen)

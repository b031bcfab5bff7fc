"""The statistics of :mod:`ga.progress` as tensors: what many runs have shown after one generation.

The numbers are those of ``ga.kernels.describe`` and ``ga.progress.Chronicle``, run by run; there stands what
each of them means.

Shapes: ``R`` runs, ``p`` individuals, ``d`` genes, ``k`` statistics.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from conductor.environment_kernels import LOG_LIMIT
from ga.progress import DIFFERENTIAL, OPERATORS, STATISTIC_NAMES


class Brood(NamedTuple):
    """What became of the offspring of one generation; the places of elites count for nothing.

    Parameters
    ----------
    child, improved : bool (R, p)
        Which places had an offspring, and which of these were fitter than their parent.
    gain : float (R, p)
        Fitness minus that of the parent; read where improved.
    operator : int64 (R, p)
        Position in ``ga.progress.OPERATORS``.
    weight, rate : float (R, p)
        F and CR; read where the operator is a difference vector.
    duplicates, cached, invalid, restarted : int64 (R,)
        As in ``ga.progress.Outcome``.
    """

    child: Tensor
    improved: Tensor
    gain: Tensor
    operator: Tensor
    weight: Tensor
    rate: Tensor
    duplicates: Tensor
    cached: Tensor
    invalid: Tensor
    restarted: Tensor


def tallied(brood: Brood) -> tuple[Tensor, Tensor]:
    """Return offspring by operator, and those fitter than their parent, int64 (R, 4) each."""
    codes = torch.arange(len(OPERATORS), device=brood.operator.device)
    made = (brood.operator[..., None] == codes) & brood.child[..., None]
    return made.sum(1), (made & brood.improved[..., None]).sum(1)


def successful(brood: Brood) -> Tensor:
    """Return the Lehmer means of F and CR of successful difference vectors, float (R, 2), NaN without any.

    Source: Tanabe and Fukunaga (2013), SHADE, equations 7 to 9; here the Lehmer mean for both.
    """
    won = brood.improved & brood.child & (brood.operator == DIFFERENTIAL)
    gain = torch.where(won, brood.gain, 0.0)
    largest = torch.where(gain.isinf(), 0.0, gain).amax(1, keepdim=True)
    largest = torch.where(largest > 0.0, largest, 1.0)  # all from parents without a valid fitness
    share = (gain / largest).clamp(max=1.0)[..., None]
    numbers = torch.stack([brood.weight, brood.rate], -1)
    first, second = (share * numbers).sum(1), (share * numbers.square()).sum(1)
    means = torch.where(first > 0.0, second / first, 0.0)
    return torch.where(won.any(1, keepdim=True), means, math.nan)


def diversity(genes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root mean square distance to the center, per gene, and that of the best, float (R,) each."""
    center = genes.mean(1, keepdim=True)
    spread = (genes - center).square().mean((1, 2)).sqrt()
    return spread, (center[:, 0] - genes[:, 0]).square().mean(1).sqrt()


def improvements(level: Tensor, generation: int) -> Tensor:
    """Return the parts of the gain made in the last 1, 5 and 15 generations, float (R, 3).

    Parameters
    ----------
    level : float (R, generation + 1)
        Best fitness so far.
    generation : int
    """
    now, start = level[:, generation], level[:, 0]
    parts = []
    for span in (1, 5, 15):
        then = level[:, max(0, generation - span)]
        part = torch.where(start.isinf(), 1.0, (now - then) / (now - start))
        parts.append(torch.where(now > then, part, 0.0))
    return torch.stack(parts, 1)


def gaps(fitness: Tensor) -> Tensor:
    """Return median gap, quartile gap and quartile skew of the finite values, float (R, 3).

    Parameters
    ----------
    fitness : float (R, p)
        Best first; invalid ones are -inf.
    """
    n = fitness.isfinite().sum(1, keepdim=True)
    last = (n - 1).clamp(min=0)
    best, worst = fitness[:, :1], fitness.gather(1, last)
    upper, median, lower = (_quantile(fitness, last, share) for share in (0.25, 0.5, 0.75))
    span, middle = best - worst, upper - lower
    found = torch.cat([(best - median) / span, (best - upper) / span], 1)
    found = torch.where((n > 1) & (best > worst), found, 0.0)
    skew = torch.where((n > 1) & (upper > lower), (upper + lower - 2.0 * median) / middle, 0.0)
    return torch.cat([found, skew], 1)


def rank_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return Spearman's rank correlation of rows, float (R,); ties share a rank, 0 if a side is constant."""
    p = x.shape[1]
    a, b = (_mean_ranks(one) - 0.5 * (p - 1) for one in (x, y))
    below = a.square().sum(1) * b.square().sum(1)
    return torch.where(below > 0.0, (a * b).sum(1) / below.sqrt(), 0.0)


def statistics(
    generation: int,
    n_generations: int,
    genes: Tensor,
    fitness: Tensor,
    age: Tensor,
    level: Tensor,
    stagnation: Tensor,
    initial: Tensor,
    brood: Brood,
    counts: tuple[Tensor, Tensor],
    controls: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return the statistics of a generation, float (R, k), in the order of ``STATISTIC_NAMES``.

    Parameters
    ----------
    generation, n_generations : int
    genes, fitness, age : float (R, p, d), float (R, p), int64 (R, p)
        Of the population after replacement, best first.
    level : float (R, at least generation + 1)
        Best fitness after each generation.
    stagnation : int64 (R,)
        Generations since it last rose.
    initial : float (R,)
        Diversity of the initial population.
    brood : Brood
    counts : two int64 (R, 4)
        Of :func:`tallied`.
    controls : float (R,) and float (R, 4), or None
        The mutation step, and the places in their ranges of the controls that statistics show; None for the
        initial population.
    """
    n_runs, p, d = genes.shape
    zero = torch.zeros(n_runs, device=genes.device, dtype=genes.dtype)
    offspring = brood.child.sum(1).to(genes.dtype)  # else a quotient of counts would be in single precision
    spread, to_center = diversity(genes)
    relative = torch.where(initial > 0.0, spread / initial, 0.0)
    near = (genes - genes[:, :1]).square().sum(2)
    made, won = (count.to(genes.dtype) for count in counts)
    success = won.sum(1) / offspring
    risen = level[:, generation] > level[:, max(0, generation - 1)]
    step = zero if controls is None else _clamped_log(controls[0], spread)
    shown = zero[:, None].expand(-1, 4) if controls is None else controls[1]
    single = [
        zero + generation / n_generations,
        zero + math.log(p),
        zero + math.log(d),
        success,
        risen,
        stagnation.to(genes.dtype) / n_generations,
    ]
    later = [
        rank_correlation(fitness, near),
        relative,
        _clamped_log(relative, torch.ones_like(relative)),
        torch.where(spread > 0.0, to_center / spread, 0.0),
        step,
        brood.duplicates / offspring,
        brood.cached / offspring,
        brood.invalid / offspring,
        brood.restarted.to(genes.dtype) / p,
        age[:, 0].to(genes.dtype) / (generation + 1),
    ]
    parts = [
        torch.stack([one.to(genes.dtype) for one in single], 1),
        improvements(level, generation),
        gaps(fitness),
        torch.stack([one.to(genes.dtype) for one in later], 1),
        shown,
        torch.where(made > 0, won / made, success[:, None]),
    ]
    row = torch.cat([part.to(genes.dtype) for part in parts], 1)
    if row.shape[1] != len(STATISTIC_NAMES):
        raise TypeError("conductor.torch_statistics writes other statistics than ga.progress names")
    return row


def _quantile(fitness: Tensor, last: Tensor, share: float) -> Tensor:
    # Linear interpolation among the first last + 1 values, as ga.kernels has it.
    place = share * last
    low = place.long()
    here, there = fitness.gather(1, low), fitness.gather(1, torch.minimum(low + 1, last))
    return here + (place - low) * (there - here)


def _mean_ranks(values: Tensor) -> Tensor:
    ordered, values = values.sort(1).values, values.contiguous()
    first = torch.searchsorted(ordered, values)
    after = torch.searchsorted(ordered, values, right=True)
    return 0.5 * (first + after - 1).to(values.dtype)


def _clamped_log(numerator: Tensor, denominator: Tensor) -> Tensor:
    value = torch.log(numerator / denominator).clamp(-LOG_LIMIT, LOG_LIMIT)
    value = torch.where(denominator <= 0.0, LOG_LIMIT, value)
    return torch.where(numerator <= 0.0, -LOG_LIMIT, value)

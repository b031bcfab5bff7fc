"""The landscapes of :mod:`conductor.landscapes` as tensors: the errors of many populations at once.

Each instance keeps what its seed drew; only the formulas stand here a second time, over whole tensors.
Errors agree with the compiled ones to about 1e-12 of their size in double precision, not to the bit: sums
run in another order. In single precision an error below about 1e-6 of what its formula adds up is noise.

Shapes: ``R`` runs, ``p`` genomes of each, ``d`` genes, ``n`` peaks.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from conductor.landscapes import FAMILIES, HEAD, HIGHEST_PEAK, N_PEAKS, OCTAVES, SCHWEFEL_BEST, Landscape

#: What a formula may read beside the moved genes: first parameter (R, 1), weights (R, 1, d), further (R, k).
Parameters = tuple[Tensor, Tensor, Tensor]


def _sphere(z: Tensor, own: Parameters) -> Tensor:
    return (own[1] * z.square()).sum(-1)


def _powers(z: Tensor, own: Parameters) -> Tensor:
    return z.abs().pow(own[1]).sum(-1).sqrt()


def _rosenbrock(z: Tensor, own: Parameters) -> Tensor:
    here, there = z[..., :-1] + 1.0, z[..., 1:] + 1.0
    return (100.0 * (there - here.square()).square() + (1.0 - here).square()).sum(-1)


def _ridge(z: Tensor, own: Parameters) -> Tensor:
    return z[..., 0].square() + own[0] * z[..., 1:].square().sum(-1).sqrt()


def _bumps(x: Tensor) -> Tensor:
    # 1 - cos(2 pi x), which a difference of rounded numbers would give only to 1e-16 of 1
    return 2.0 * torch.sin(math.pi * x).square()


def _rastrigin(z: Tensor, own: Parameters) -> Tensor:
    x = own[1] * z
    return x.square().sum(-1) + own[0] * _bumps(x).sum(-1)


def _ackley(z: Tensor, own: Parameters) -> Tensor:
    bowl = -20.0 * torch.expm1(-0.2 * z.square().mean(-1).sqrt())
    return bowl - math.e * torch.expm1(-_bumps(z).mean(-1))


def _griewank(z: Tensor, own: Parameters) -> Tensor:
    roots = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype).sqrt()
    return z.square().sum(-1) / 4000.0 + 1.0 - torch.cos(z / roots).prod(-1)


def _weierstrass(z: Tensor, own: Parameters) -> Tensor:
    cosine, height = torch.cos(2.0 * math.pi * z), 1.0
    rough = torch.zeros_like(z)
    for _ in range(OCTAVES):
        rough += height * (1.0 - cosine)
        cosine = cosine * (4.0 * cosine.square() - 3.0)  # of three times the angle
        height *= 0.5
    return 10.0 * rough.mean(-1).pow(3) + 0.1 * z.square().sum(-1)


def _schwefel(z: Tensor, own: Parameters) -> Tensor:
    x = SCHWEFEL_BEST + own[1] * z
    best = SCHWEFEL_BEST * math.sin(math.sqrt(SCHWEFEL_BEST))
    return (best - x * torch.sin(x.abs().sqrt())).clamp_min(0.0).mean(-1)


def _peaks(z: Tensor, own: Parameters) -> Tensor:
    d, further = z.shape[-1], own[2]
    height = further[:, :N_PEAKS]
    centre, sharpness = further[:, N_PEAKS:].reshape(-1, 2, d, N_PEAKS).unbind(1)
    exponent = height[:, None, :].expand(-1, z.shape[1], -1).clone()
    for j in range(d):  # gene by gene: all at once would take d times the memory
        away = z[..., j, None] - centre[:, None, j]
        exponent.addcmul_(sharpness[:, None, j], away.square_(), value=-1.0)
    return -HIGHEST_PEAK * torch.expm1(exponent.amax(-1))


def _steps(z: Tensor, own: Parameters) -> Tensor:
    stairs = torch.floor(own[0][..., None] * z + 0.5)
    return (stairs.square() + 1e-4 * z.square()).sum(-1)


def _levels(z: Tensor, own: Parameters) -> Tensor:
    return (own[1] * z.square() + own[0][..., None] * _bumps(z)).sum(-1)


_FORMULAS: dict[str, Callable[[Tensor, Parameters], Tensor]] = {
    "sphere": _sphere,
    "ellipsoid": _sphere,
    "discus": _sphere,
    "powers": _powers,
    "rosenbrock": _rosenbrock,
    "ridge": _ridge,
    "rastrigin": _rastrigin,
    "ackley": _ackley,
    "griewank": _griewank,
    "weierstrass": _weierstrass,
    "schwefel": _schwefel,
    "peaks": _peaks,
    "steps": _steps,
    "levels": _levels,
}
if tuple(_FORMULAS) != FAMILIES:
    raise TypeError("conductor.torch_landscapes has other families than conductor.landscapes")


class TensorLandscapes:
    """Instances of one dimension, one per run: ``landscapes(genes (R, p, d)) -> errors (R, p)``.

    Each family is evaluated for all its runs together, fastest where they stand side by side.

    Parameters
    ----------
    instances : sequence of Landscape
        Of R runs, all of the same dimension; one may stand for many runs.
    device : torch.device or str
    dtype : torch.dtype
        float64 or float32.

    Raises
    ------
    ValueError
        If there is no instance, or their dimensions differ.
    """

    def __init__(
        self, instances: Sequence[Landscape], device: torch.device | str, dtype: torch.dtype = torch.float64
    ) -> None:
        dimensions = sorted({one.dimension for one in instances})
        if len(dimensions) != 1:
            raise ValueError(
                f"landscapes of one tensor have dimensions {dimensions}; they must have the same"
            )
        (d,) = dimensions
        self.dimension, self.n_runs = d, len(instances)

        def tensor(part: Callable[[Landscape], np.ndarray], own: Sequence[Landscape]) -> Tensor:
            # Candidates of a meta-generation share their instances: each is read once.
            each = {one: i for i, one in enumerate(dict.fromkeys(own))}
            values = torch.as_tensor(np.array([part(one) for one in each]), device=device, dtype=dtype)
            return values[torch.as_tensor([each[one] for one in own], device=device)]

        self._optimum = tensor(lambda one: one.optimum, instances)[:, None]
        self._width = tensor(lambda one: one.parameters[3:4], instances)[:, None]
        self._rotation = tensor(_rotation, instances)
        self._above, self._below = tensor(_factors, instances).unsqueeze(-2).unbind(1)
        self._families: list[tuple[str, slice | Tensor, Parameters]] = []
        codes = np.array([one.code for one in instances])
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            own = [instances[row] for row in rows]
            parameters = (
                tensor(lambda one: one.parameters[1:2], own),
                tensor(lambda one: one.parameters[HEAD + d : HEAD + 2 * d], own)[:, None],
                tensor(_further, own),
            )
            first, last = rows[[0, -1]].tolist()
            together = len(rows) == last - first + 1
            where = slice(first, last + 1) if together else torch.as_tensor(rows, device=device)
            self._families.append((FAMILIES[code], where, parameters))

    def __call__(self, genes: Tensor) -> Tensor:
        """Return the errors (R, p) of genes (R, p, d) in the unit cube: 0 at the optimum, else positive."""
        if genes.ndim != 3 or genes.shape[0] != self.n_runs or genes.shape[2] != self.dimension:
            raise ValueError(
                f"genes have shape {tuple(genes.shape)}; {self.n_runs} landscapes need "
                f"({self.n_runs}, p, {self.dimension})"
            )
        away = genes - self._optimum
        for family, rows, (_, _, counts) in self._families:
            if family == "levels":
                away[rows] = _leveled(genes[rows], counts[:, None]) - self._optimum[rows]
        z = torch.bmm(away * self._width, self._rotation)
        z *= torch.where(z > 0.0, self._above, self._below)
        errors = torch.empty(genes.shape[:2], device=genes.device, dtype=genes.dtype)
        for family, rows, own in self._families:
            errors[rows] = _FORMULAS[family](z[rows], own)
        return errors.clamp_(min=0.0)  # rounding may step below


def _leveled(genes: Tensor, counts: Tensor) -> Tensor:
    # The middle of the level that a gene falls on; a gene without levels is itself.
    count = counts.clamp(min=1.0)
    level = (torch.minimum(torch.floor(genes * count), count - 1.0) + 0.5) / count
    return torch.where(counts < 1.0, genes, level)


def _rotation(one: Landscape) -> np.ndarray:
    # The identity where an instance is not turned: the product then changes no bit.
    d = one.dimension
    if one.parameters[0] <= 0.0:
        return np.eye(d)
    return one.parameters[HEAD + 2 * d : HEAD + 2 * d + d * d].reshape(d, d)


def _factors(one: Landscape) -> np.ndarray:
    # Above and below the optimum, (2, d); 1 for an instance that is the same on both sides.
    d = one.dimension
    if one.parameters[2] <= 0.0:
        return np.ones((2, d))
    return one.parameters[_after_rotation(one) :].reshape(2, d)


def _further(one: Landscape) -> np.ndarray:
    return one.parameters[_after_rotation(one) :] if one.parameters[2] <= 0.0 else np.empty(0)


def _after_rotation(one: Landscape) -> int:
    d, turned = one.dimension, one.parameters[0] > 0.0
    return HEAD + 2 * d + (d * d if turned else 0)

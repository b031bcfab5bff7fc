"""Test functions on the unit cube, minimum 0 at a random place, for tuning and judging the search.

``landscape(name, d, seed)`` returns a function ``genes (p, d) -> error (p,)``. Shift and rotation come
from the seed, so that tuning and judging use different instances of the same families.
"""

from collections.abc import Callable

import numpy as np

NAMES = (
    "sphere",
    "ellipsoid, rotated",
    "rosenbrock",
    "rastrigin",
    "rastrigin, rotated",
    "ackley",
    "griewank, rotated",
    "steps",
    "peaks",
)


def landscape(name: str, d: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return one instance of a family."""
    rng = np.random.default_rng([seed, d, NAMES.index(name)])
    optimum = rng.uniform(0.2, 0.8, d)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    base, _, rotated = name.partition(", ")
    half_width = {"ellipsoid": 5.0, "rosenbrock": 2.0, "rastrigin": 5.12, "ackley": 32.0, "griewank": 100.0}

    def error(genes: np.ndarray) -> np.ndarray:
        x = (genes - optimum) * 2.0 * half_width.get(base, 5.0)  # (p, d)
        return _FUNCTIONS[base](x @ rotation if rotated else x)

    if base != "peaks":
        return error
    centres = rng.uniform(0.1, 0.9, (40, d))
    centres[0] = optimum
    height = np.concatenate([[10.0], rng.uniform(1.0, 9.0, 39)])
    sharpness = np.concatenate([[20.0], rng.uniform(4.0, 30.0, 39)]) / d

    def peaks(genes: np.ndarray) -> np.ndarray:
        square = ((genes[:, None] - centres) ** 2).sum(axis=2)  # (p, 40)
        return 10.0 - (height * np.exp(-sharpness * square)).max(axis=1)

    return peaks


def _ellipsoid(x: np.ndarray) -> np.ndarray:
    return (10.0 ** np.linspace(0.0, 4.0, x.shape[1]) * x**2).sum(axis=1)


def _rosenbrock(x: np.ndarray) -> np.ndarray:
    x = x + 1.0
    return (100.0 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1.0 - x[:, :-1]) ** 2).sum(axis=1)


def _rastrigin(x: np.ndarray) -> np.ndarray:
    return (x**2 - 10.0 * np.cos(2.0 * np.pi * x) + 10.0).sum(axis=1)


def _ackley(x: np.ndarray) -> np.ndarray:
    valley = 20.0 * np.exp(-0.2 * np.sqrt((x**2).mean(axis=1)))
    return 20.0 - valley + np.e - np.exp(np.cos(2.0 * np.pi * x).mean(axis=1))


def _griewank(x: np.ndarray) -> np.ndarray:
    waves = np.cos(x / np.sqrt(np.arange(1, x.shape[1] + 1))).prod(axis=1)
    return (x**2).sum(axis=1) / 4000.0 + 1.0 - waves


def _steps(x: np.ndarray) -> np.ndarray:
    # Plateaus, as of a fitness that counts trades, on a faint slope.
    return (np.floor(2.0 * x + 0.5) ** 2).sum(axis=1) + 1e-4 * (x**2).sum(axis=1)


_FUNCTIONS = {
    "sphere": lambda x: (x**2).sum(axis=1),
    "ellipsoid": _ellipsoid,
    "rosenbrock": _rosenbrock,
    "rastrigin": _rastrigin,
    "ackley": _ackley,
    "griewank": _griewank,
    "steps": _steps,
}

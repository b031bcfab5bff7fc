"""Test functions on the unit cube, minimum 0 at a random place, for tuning and judging the search.

``landscape(name, d, seed)`` returns a function ``genes (p, d) -> error (p,)``. Shift and rotation come
from the seed, so that tuning and judging use different instances of the same families.

The families differ in what makes them hard, and each is a formula of the literature with random shift and
rotation, none an instance of a published suite, so that such a suite can be a test: condition numbers up to
1e6 (ellipsoid6, cigar, discus, powers), a bent or sharp valley (rosenbrock, ridge), an optimum in a corner
(slope), plateaus (steps), few large or many small wrong basins (peaks, funnels, schwefel, rastrigin,
griewank, schaffer, weierstrass, ackley). ``rotated`` couples the genes.
"""

from collections.abc import Callable

import numpy as np

#: The families on which ``ga_overhead.py`` compares searches.
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
#: All families by name; the position is part of the seed, so new ones go to the end.
FAMILIES = (
    *NAMES,
    "ellipsoid6",
    "ellipsoid6, rotated",
    "cigar, rotated",
    "discus, rotated",
    "powers, rotated",
    "ridge, rotated",
    "sector, rotated",
    "rosenbrock, rotated",
    "slope",
    "steps, rotated",
    "schwefel",
    "funnels, rotated",
    "schaffer, rotated",
    "weierstrass, rotated",
    "peaks, rotated",
)

#: Half the width of the cube in the units of the formula; 5 where nothing is said.
_HALF_WIDTH = {"rosenbrock": 2.0, "rastrigin": 5.12, "ackley": 32.0, "griewank": 100.0, "weierstrass": 1.0}


def landscape(name: str, d: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return one instance of a family."""
    rng = np.random.default_rng([seed, d, FAMILIES.index(name)])
    optimum = rng.uniform(0.2, 0.8, d)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    base, _, rotated = name.partition(", ")
    if base == "peaks":
        return _peaks(rng, optimum, rotation if rotated else np.eye(d), 1e3 if rotated else 1.0)
    if base == "slope":
        optimum = np.round(rng.random(d))
    if base == "schwefel":  # its best basin lies near a corner of its cube
        side = rng.choice([-1.0, 1.0], d)
        optimum, rotation, rotated = 0.5 + 0.420968746 * side, np.diag(side), True
    scale = 2.0 * _HALF_WIDTH.get(base, 5.0)
    function = _FUNCTIONS[base]

    def error(genes: np.ndarray) -> np.ndarray:
        x = (genes - optimum) * scale  # (p, d)
        return function(x @ rotation if rotated else x)

    return error


def _peaks(rng: np.random.Generator, optimum: np.ndarray, rotation: np.ndarray, condition: float) -> Callable:
    # 40 Gaussian hills of their own height, width and, above a condition of 1, long and narrow shape.
    d = optimum.size
    centres = rng.uniform(0.1, 0.9, (40, d))
    centres[0] = optimum
    height = np.concatenate([[10.0], rng.uniform(1.0, 9.0, 39)])
    sharpness = np.concatenate([[20.0], rng.uniform(4.0, 30.0, 39)]) / d
    stretch = condition ** np.linspace(-0.25, 0.25, d)
    axes = np.array([rng.permutation(stretch) for _ in range(40)]) if condition > 1.0 else np.ones((40, d))

    def error(genes: np.ndarray) -> np.ndarray:
        square = (genes @ rotation) ** 2 @ axes.T
        turned = centres @ rotation
        square += -2.0 * (genes @ rotation) @ (axes * turned).T + (axes * turned**2).sum(axis=1)
        return 10.0 - (height * np.exp(-sharpness * np.maximum(square, 0.0))).max(axis=1)

    return error


def _weights(x: np.ndarray, decades: float) -> np.ndarray:
    return 10.0 ** np.linspace(0.0, decades, x.shape[1])


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


def _powers(x: np.ndarray) -> np.ndarray:
    return np.sqrt((np.abs(x) ** np.linspace(2.0, 6.0, x.shape[1])).sum(axis=1))


def _ridge(x: np.ndarray) -> np.ndarray:
    return x[:, 0] ** 2 + 100.0 * np.sqrt((x[:, 1:] ** 2).sum(axis=1))


def _sector(x: np.ndarray) -> np.ndarray:
    # One orthant is a hundred times flatter than the others, and the optimum is its tip.
    scaled = np.where(x > 0.0, 100.0, 1.0) * x * _weights(x, 0.5)
    return (scaled**2).sum(axis=1) ** 0.9


def _schwefel(x: np.ndarray) -> np.ndarray:
    # The second best of the wrong basins lies far from the best one.
    z = 100.0 * x + 420.968746
    return np.maximum((418.98288727 - z * np.sin(np.sqrt(np.abs(z)))).mean(axis=1), 0.0)


def _funnels(x: np.ndarray) -> np.ndarray:
    # The wider of two rippled funnels is the wrong one.
    d = x.shape[1]
    right, wrong = (x**2).sum(axis=1), 1.0 * d + 0.7 * ((x - 4.0) ** 2).sum(axis=1)
    return np.minimum(right, wrong) + 10.0 * (d - np.cos(2.0 * np.pi * x).sum(axis=1))


def _schaffer(x: np.ndarray) -> np.ndarray:
    x = x * _weights(x, 0.5)
    s = np.sqrt(x[:, :-1] ** 2 + x[:, 1:] ** 2)
    return (np.sqrt(s) * (1.0 + np.sin(50.0 * s**0.2) ** 2)).mean(axis=1) ** 2


def _weierstrass(x: np.ndarray) -> np.ndarray:
    # A rugged, repetitive surface: ten octaves of cosines.
    octave = 2.0 * np.pi * 3.0 ** np.arange(10)
    waves = (0.5 ** np.arange(10) * (1.0 - np.cos(octave * x[:, :, None]))).sum(axis=(1, 2))
    return 10.0 * (waves / x.shape[1]) ** 3 + 0.1 * (x**2).sum(axis=1)


_FUNCTIONS = {
    "sphere": lambda x: (x**2).sum(axis=1),
    "ellipsoid": lambda x: (_weights(x, 4.0) * x**2).sum(axis=1),
    "rosenbrock": _rosenbrock,
    "rastrigin": _rastrigin,
    "ackley": _ackley,
    "griewank": _griewank,
    "steps": _steps,
    "ellipsoid6": lambda x: (_weights(x, 6.0) * x**2).sum(axis=1),
    "cigar": lambda x: x[:, 0] ** 2 + 1e6 * (x[:, 1:] ** 2).sum(axis=1),
    "discus": lambda x: 1e6 * x[:, 0] ** 2 + (x[:, 1:] ** 2).sum(axis=1),
    "powers": _powers,
    "ridge": _ridge,
    "sector": _sector,
    "slope": lambda x: (_weights(x, 1.0) * np.abs(x)).sum(axis=1),
    "schwefel": _schwefel,
    "funnels": _funnels,
    "schaffer": _schaffer,
    "weierstrass": _weierstrass,
}

"""The knobs of a search: 12 controls of one generation, 5 hyperparameters of a run, and who sets them.

Controls are data handed in with each generation, never attributes of the search; that is what lets a
policy, or a conductor, turn them while it runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pydantic

from configs.load import Config
from configs.registry import Registry

if TYPE_CHECKING:
    from ga.progress import Progress


@dataclass(frozen=True)
class ControlRange:
    """Bounds of one control and the scale on which it is turned.

    Parameters
    ----------
    low, high : float
        Bounds, both included.
    scale : {"linear", "log"}
        Whether equal steps or equal factors mean the same.
    meaning : str
        One sentence, shown with the setting.
    """

    low: float
    high: float
    scale: str
    meaning: str


#: The 12 controls in the order of :meth:`GAControls.to_array`.
CONTROL_RANGES: dict[str, ControlRange] = {
    # 1 / (4 d) of the widest genome expected, 64 genes
    "mutation_rate": ControlRange(0.004, 1.0, "log", "Probability that a gene mutates."),
    "mutation_step": ControlRange(
        1e-4, 0.5, "log", "Step size of a mutation, as a fraction of the range of its gene."
    ),
    "mutation_tail": ControlRange(
        0.0, 1.0, "linear", "Share of mutations with a heavy-tailed (Cauchy) instead of a Gaussian step."
    ),
    "crossover_rate": ControlRange(
        0.0,
        1.0,
        "linear",
        "Probability of recombination: of an offspring with its partner, of a gene with a difference vector.",
    ),
    "crossover_spread": ControlRange(
        0.0,
        0.7,
        "linear",
        "BLX alpha: how far a child may lie beyond its parents, in units of their distance.",
    ),
    "differential_rate": ControlRange(
        0.0, 1.0, "linear", "Share of offspring made with a difference vector instead of a partner."
    ),
    "differential_weight": ControlRange(0.0, 1.2, "linear", "Scale factor F of the difference vectors."),
    "tournament_size": ControlRange(
        1.0, 8.0, "linear", "Contestants per tournament; a fraction is rounded up or down at random."
    ),
    # one individual of the largest population a conductor may ask for, 512
    "elite_fraction": ControlRange(
        1 / 512, 0.3, "log", "Share of the population that survives untouched; at least one individual does."
    ),
    "immigrant_fraction": ControlRange(
        0.0, 0.3, "linear", "Share of the other places given to random newcomers in every generation."
    ),
    "crowding_rate": ControlRange(
        0.0,
        1.0,
        "linear",
        "Probability that a place is defended: the occupant is the parent and stays if its child is worse.",
    ),
    "restart_fraction": ControlRange(
        0.0, 0.95, "linear", "Share of the non-elites drawn anew when the search has stagnated."
    ),
}

CONTROL_NAMES: tuple[str, ...] = tuple(CONTROL_RANGES)
_VALUES = attrgetter(*CONTROL_NAMES)
_LOW = np.array([r.low for r in CONTROL_RANGES.values()])
_HIGH = np.array([r.high for r in CONTROL_RANGES.values()])
_IS_LOG = np.array([r.scale == "log" for r in CONTROL_RANGES.values()])


@dataclass(frozen=True, slots=True)
class GAControls:
    """The 12 knobs of one generation; ranges, scales and meanings are in ``CONTROL_RANGES``.

    The defaults are for short searches of a costly fitness, tens of generations, as of a trading strategy:
    they recombine and select hard. ``SMOOTH`` and ``RUGGED`` are the tuned fixed controls of two classes of
    long searches; ``docs/search.md`` compares the three.

    Raises
    ------
    ValueError
        If a control lies outside its range or is NaN.
    """

    mutation_rate: float = 0.01
    mutation_step: float = 0.007
    mutation_tail: float = 0.5
    crossover_rate: float = 0.95
    crossover_spread: float = 0.5
    differential_rate: float = 0.4
    differential_weight: float = 0.35
    tournament_size: float = 4.5
    elite_fraction: float = 0.003
    immigrant_fraction: float = 0.02
    crowding_rate: float = 0.2
    restart_fraction: float = 0.3

    def __post_init__(self) -> None:
        for name, limits in CONTROL_RANGES.items():
            value = getattr(self, name)
            if not limits.low <= value <= limits.high:
                raise ValueError(
                    f"{name} is {value}; it must lie between {limits.low:.4g} and {limits.high:.4g}"
                )

    def to_array(self) -> np.ndarray:
        """Return the controls in natural units, float64 (12,), in the order of ``CONTROL_NAMES``."""
        return np.array(_VALUES(self))

    def to_dict(self) -> dict[str, float]:
        """Return the controls by name."""
        return dict(zip(CONTROL_NAMES, _VALUES(self), strict=True))

    @classmethod
    def from_array(cls, values: np.ndarray) -> "GAControls":
        """Return the controls of natural values (12,), each clipped into its range.

        Raises
        ------
        ValueError
            If there are not 12 values or one is NaN.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.shape != _LOW.shape:
            raise ValueError(f"controls have shape {values.shape}; from_array() needs {_LOW.shape}")
        return cls(*np.clip(values, _LOW, _HIGH).tolist())

    def to_unit(self) -> np.ndarray:
        """Return each control as its place in its range, float64 (12,) from 0 to 1, on its own scale."""
        return places_of(self.to_array())

    @classmethod
    def from_unit(cls, unit: np.ndarray) -> "GAControls":
        """Return the controls at places (12,) in their ranges; the inverse of :meth:`to_unit`, clipped."""
        unit = np.clip(np.asarray(unit, dtype=np.float64), 0.0, 1.0)
        if unit.shape != _LOW.shape:
            raise ValueError(f"controls have shape {unit.shape}; from_unit() needs {_LOW.shape}")
        return cls.from_array(values_at(unit))


def places_of(values: np.ndarray) -> np.ndarray:
    """Return the places in their ranges, float64 (..., 12) from 0 to 1, of controls in natural units."""
    values = np.asarray(values, dtype=np.float64)
    unit = (values - _LOW) / (_HIGH - _LOW)
    # ascontiguousarray: strided logarithms may have other last bits than those of one row
    logs = np.ascontiguousarray(values[..., _IS_LOG]) / _LOW[_IS_LOG]
    unit[..., _IS_LOG] = np.log(logs) / np.log(_HIGH[_IS_LOG] / _LOW[_IS_LOG])
    return unit


def values_at(unit: np.ndarray) -> np.ndarray:
    """Return the controls in natural units, float64 (..., 12) within their ranges, at places 0 to 1."""
    unit = np.asarray(unit, dtype=np.float64)
    values = _LOW + unit * (_HIGH - _LOW)
    places = np.ascontiguousarray(unit[..., _IS_LOG])
    values[..., _IS_LOG] = _LOW[_IS_LOG] * (_HIGH[_IS_LOG] / _LOW[_IS_LOG]) ** places
    return np.clip(values, _LOW, _HIGH)


def inside(name: str, value: float) -> float:
    """Return a value of a control, moved to the nearest bound of its range if it lies outside."""
    limits = CONTROL_RANGES[name]
    return min(max(value, limits.low), limits.high)


if tuple(f.name for f in fields(GAControls)) != CONTROL_NAMES:  # the array order is part of saved logs
    raise TypeError("CONTROL_RANGES and GAControls must name the same controls in the same order")


#: The tuned fixed controls for smooth functions and hundreds of generations: differential evolution in which
#: every place is defended.
SMOOTH = GAControls(
    mutation_rate=0.01,
    mutation_step=0.3,
    mutation_tail=0.5,
    crossover_rate=0.9,
    crossover_spread=0.5,
    differential_rate=0.95,
    differential_weight=0.5,
    tournament_size=4.0,
    elite_fraction=0.003,
    immigrant_fraction=0.0,
    crowding_rate=1.0,
    restart_fraction=0.0,
)

#: The tuned fixed controls for rules with thresholds, whose fitness is flat, then jumps, and whose best
#: basins are narrow and often lie at a wall: single genes change, by steps of all sizes, and each parent is
#: defended.
RUGGED = GAControls(
    mutation_rate=0.25,
    mutation_step=0.5,
    mutation_tail=0.9,
    crossover_rate=0.02,
    crossover_spread=0.5,
    differential_rate=0.55,
    differential_weight=1.0,
    tournament_size=5.0,
    elite_fraction=0.003,
    immigrant_fraction=0.0,
    crowding_rate=1.0,
    restart_fraction=0.0,
)


class Hyperparameters(Config):
    """The settings of one run that stay put while it lasts."""

    population_size: int = pydantic.Field(
        200, ge=8, le=8192, description="Individuals in the population; a power of two fills the lanes best."
    )
    n_generations: int = pydantic.Field(
        60, ge=1, le=100_000, description="Generations bred after the initial population."
    )
    patience: int = pydantic.Field(
        15,
        ge=0,
        le=100_000,
        description="Generations without a better champion after which the search ends; 0 never ends early.",
    )
    mutation_schedule: float = pydantic.Field(
        0.1,
        ge=1e-3,
        le=1.0,
        description="Last mutation step as a share of the first, reached exponentially (policy scheduled).",
    )
    crossover_schedule: float = pydantic.Field(
        0.0,
        ge=-0.8,
        le=0.8,
        description="Last crossover rate minus the first, reached linearly (policy scheduled).",
    )


class ControlPolicy(Protocol):
    """Turns the knobs, once per generation."""

    def controls(self, progress: "Progress") -> GAControls:
        """Return the controls of the next generation from what the search has shown so far.

        The same again for the same progress, however often it is asked.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs: nested dictionaries of arrays and numbers, {} without memory."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned, so that the same controls follow bit for bit."""
        ...


#: Policies by the name that a config uses.
POLICIES: Registry[ControlPolicy] = Registry("policy", "ga", ("policies", "adaptive_policies"))

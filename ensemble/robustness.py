"""What is left of a strategy when costs rise, orders are late, or its champions are not quite the same ones.

Costs and delays are those of :mod:`backtest.stress`, asked of the joined out-of-sample decisions. What is
added is the perturbation of the parameters: an optimum that is real lies on a hill, one that was found by
chance on a needle. ``ensemble.permutation`` asks whether the search itself finds something in noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field

from backtest.costs import Costs
from backtest.limits import RiskLimits
from backtest.metrics import Metrics
from backtest.simulate import simulate
from backtest.stress import MOST_COSTS, cost_stress, delay_stress
from backtest.stress_report import CostStress, Variant
from compute.workers import Mapper, SerialMapper
from configs.load import Config, ConfigError
from market.bars import Bars
from market.table import DataError, Table
from specialists.specialist import Specialist

#: Size of the perturbation and number of the draw in, targets of ``simulate`` on the clock of the bars out.
Perturbed = Callable[[float, int], Table]

QUANTILES = (0.05, 0.5, 0.95)


class RobustnessConfig(Config):
    """How hard a strategy is pushed."""

    cost_factors: tuple[float, ...] = Field(
        (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), min_length=1, description="Multiples of the costs."
    )
    delays: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Bars that orders are late.")
    sigmas: tuple[float, ...] = Field(
        (0.02, 0.05, 0.1), description="Deviations by which genes are shaken, fractions of their range."
    )
    draws: int = Field(20, ge=1, le=1_000, description="Shaken strategies per deviation.")


@dataclass(frozen=True)
class Perturbation:
    """The strategy with champions that are shaken by one size, in several draws.

    Parameters
    ----------
    sigma : float
        Standard deviation of the shift of each gene, a fraction of its range.
    sharpe, total_return : tuple of float
        Per draw, after costs. The Sharpe ratio is annual, NaN where nothing was traded.
    unshaken : float
        Annual Sharpe ratio without perturbation.
    """

    sigma: float
    sharpe: tuple[float, ...]
    total_return: tuple[float, ...]
    unshaken: float

    @property
    def positive(self) -> float:
        """Share of the draws that earn anything."""
        return float(np.mean(np.array(self.total_return) > 0))

    @property
    def kept(self) -> float:
        """Median Sharpe ratio over the one without perturbation; NaN unless that is positive."""
        return self.quantiles()[1] / self.unshaken if self.unshaken > 0 else math.nan

    def quantiles(self) -> tuple[float, ...]:
        """Return the ``QUANTILES`` of the Sharpe ratio, 0 for draws that trade nothing."""
        return tuple(np.quantile(np.nan_to_num(np.array(self.sharpe), nan=0.0), QUANTILES).tolist())

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; what is not finite is None."""
        return {
            "sigma": self.sigma,
            "draws": len(self.sharpe),
            "sharpe": [_plain(value) for value in self.sharpe],
            "total_return": [_plain(value) for value in self.total_return],
            "quantiles": {f"{q:g}": v for q, v in zip(QUANTILES, self.quantiles(), strict=True)},
            "unshaken": _plain(self.unshaken),
            "positive": self.positive,
            "kept": _plain(self.kept),
        }


@dataclass(frozen=True)
class Robustness:
    """Everything :func:`push` found out.

    Parameters
    ----------
    costs : CostStress
    delays : tuple of Variant
        By bars of extra delay.
    perturbations : tuple of Perturbation
        By size; empty where the champions were not shaken.
    """

    costs: CostStress
    delays: tuple[Variant, ...]
    perturbations: tuple[Perturbation, ...]

    @property
    def break_even(self) -> float:
        """Multiple of the costs at which nothing is left, as a number that can be judged.

        0 where nothing is earned even without costs, ``MOST_COSTS`` where so much is not enough to take it
        all, NaN where nothing is traded. It is read from what :func:`backtest.stress.cost_stress` found, so
        the factors must include 0.
        """
        if self.costs.break_even is not None:
            return self.costs.break_even
        free = next((v.metrics for v in self.costs.variants if v.setting == 0), None)
        if free is None or not free.turnover > 0:
            return math.nan
        return MOST_COSTS if free.total_return > 0 else 0.0

    def late(self, bars: int = 1) -> Metrics | None:
        """Return the figures with orders so many bars late; None where that was not asked."""
        return next((v.metrics for v in self.delays if v.setting == bars), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON; what is not finite is None."""
        return {
            "costs": {
                "factors": [{"factor": v.setting, **v.metrics.to_dict()} for v in self.costs.variants],
                "break_even": _plain(self.break_even),
                "verdict": self.costs.verdict,
            },
            "delays": [{"extra_bars": v.setting, **v.metrics.to_dict()} for v in self.delays],
            "perturbations": [one.to_dict() for one in self.perturbations],
        }


def push(
    targets: Table,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    config: RobustnessConfig | None = None,
    decide: Perturbed | None = None,
    workers: Mapper | None = None,
    **account: Any,
) -> Robustness:
    """Return what is left of decisions under costs, delays and perturbed champions.

    Parameters
    ----------
    targets, bars, costs, limits, **account
        As :func:`backtest.simulate.simulate` takes them; the targets are those of the strategy.
    config : RobustnessConfig, optional
    decide : callable, optional
        The strategy with shaken champions; see :func:`perturb`. Without it they are not shaken.
    workers : Mapper, optional
        Spreads the draws; the numbers are the same with any. ``decide`` must then bear threads.

    Raises
    ------
    ConfigError, DataError
        As ``cost_stress``, ``delay_stress`` and :func:`perturb` raise them.
    """
    config = RobustnessConfig() if config is None else config
    factors = config.cost_factors if 0.0 in config.cost_factors else (0.0, *config.cost_factors)
    shaken: tuple[Perturbation, ...] = ()
    if decide is not None:
        shaken = perturb(
            decide,
            targets,
            bars,
            costs,
            limits,
            sigmas=config.sigmas,
            draws=config.draws,
            workers=workers,
            **account,
        )
    return Robustness(
        costs=cost_stress(targets, bars, costs, limits, factors=factors, **account),
        delays=delay_stress(targets, bars, costs, limits, delays=config.delays, **account),
        perturbations=shaken,
    )


def perturb(
    decide: Perturbed,
    targets: Table,
    bars: Bars,
    costs: Costs,
    limits: RiskLimits,
    *,
    sigmas: Sequence[float],
    draws: int,
    workers: Mapper | None = None,
    **account: Any,
) -> tuple[Perturbation, ...]:
    """Return what a strategy earns whose champions are shaken.

    Parameters
    ----------
    decide : callable
        ``decide(sigma, draw)`` returns the targets of the strategy with each champion shaken by ``sigma``
        (see :func:`perturbed`); the same arguments must give the same targets. ``decide(0.0, 0)`` is tried
        first and must give the strategy's own.
    targets, bars, costs, limits, **account
        As :func:`backtest.simulate.simulate` takes them.
    sigmas : sequence of float
        Zero or more.
    draws : int
        Per sigma.
    workers : Mapper, optional

    Raises
    ------
    DataError
        If champions that are not shaken decide otherwise than the strategy did.
    """
    for sigma in sigmas:
        if not 0 <= sigma < math.inf:
            raise ConfigError(f"perturbation: sigma is {sigma}; it must be zero or more, and finite")
    rows = account.get("rows", slice(None))
    mine, same = targets.values[rows], decide(0.0, 0).values[rows]
    if mine.shape != same.shape or not np.array_equal(mine, same, equal_nan=True):
        raise DataError(
            "perturbation: champions shaken by nothing decide otherwise than the strategy did; the perturbed "
            "strategy is another one"
        )

    def figures(wanted: Table) -> tuple[float, float]:
        found = simulate(wanted, bars, costs, limits, **account).metrics
        return found.sharpe, found.total_return

    unshaken = figures(targets)[0]
    every = [(float(sigma), draw) for sigma in sigmas for draw in range(draws)]
    found = (workers or SerialMapper()).map(lambda one: figures(decide(*one)), every)
    return tuple(
        Perturbation(
            sigma=float(sigma),
            sharpe=tuple(sharpe for sharpe, _ in found[i * draws : (i + 1) * draws]),
            total_return=tuple(total for _, total in found[i * draws : (i + 1) * draws]),
            unshaken=unshaken,
        )
        for i, sigma in enumerate(sigmas)
    )


def perturbed(specialist: Specialist, sigma: float, rng: np.random.Generator) -> Specialist:
    """Return a specialist whose genes have been shaken: the same family, regime, scaling and limits.

    Parameters
    ----------
    specialist : Specialist
    sigma : float
        Standard deviation of the shift, a fraction of each gene's range; 0 changes nothing.
    rng : numpy.random.Generator

    Raises
    ------
    ConfigError
        If the genome is a formula, which has no small change.
    """
    family, genome = specialist.family, specialist.genome
    if hasattr(family, "toolbox"):
        raise ConfigError(
            f"perturbation: genomes of the family {type(family).__name__} are formulas, which cannot be "
            f"shaken a little"
        )
    return type(specialist)(
        family,
        replace(genome, genes=perturbed_genes(genome.genes, sigma, rng), fitness=math.nan),
        specialist.regime,
        specialist.scaler,
        specialist.limits,
        specialist.fitted_until,
    )


def perturbed_genes(genes: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return genes of the unit cube shifted by normal steps, float64 (d,), reflected at its faces.

    Cutting off at the faces would heap the shaken genes up on them.

    Parameters
    ----------
    genes : float64 (d,)
        In [0, 1].
    sigma : float
    rng : numpy.random.Generator
    """
    if sigma == 0:
        return np.array(genes, dtype=np.float64)
    shifted = genes + sigma * rng.standard_normal(np.shape(genes))
    folded = np.mod(shifted, 2.0)
    return np.minimum(folded, 2.0 - folded)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""A small synthetic ground that the tests of this folder share."""

from functools import cache

from compute.workers import SerialMapper
from configs.load import PluginConfig
from market.sources.synthetic import SyntheticConfig, synthetic_market
from specialists.fitness import FitnessConfig
from specialists.training import Evolved, Ground, SpecialistConfig, evolve_specialist, prepare

SMALL = {
    "detector": PluginConfig(name="volatility"),
    "fitness": FitnessConfig(folds=4, min_trades=5),
    "hyperparameters": {"population_size": 24, "n_generations": 4, "patience": 0},
}


def small_config(**changes: object) -> SpecialistConfig:
    """Return settings that evolve in a blink."""
    return SpecialistConfig.model_validate({**SMALL, **changes})


@cache
def small_ground() -> Ground:
    """Return a prepared synthetic market of about a year."""
    market = synthetic_market(SyntheticConfig(n_bars=9_000, seed=3))
    return prepare(market.bars, small_config())


@cache
def small_evolved() -> Evolved:
    """Return a champion of the small ground."""
    return evolve_specialist(small_ground(), small_config(), SerialMapper())

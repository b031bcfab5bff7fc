"""Evolving a specialist: the work behind ``python -m ga.evolve``, and what walk-forward refits call.

Everything that is fitted (detector, scaler, genome) sees the training rows only. The test rows begin an
embargo later and are opened once, at the end, for the champion alone.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from pydantic import Field

from backtest.costs import Costs
from backtest.kernels import LANES
from backtest.limits import RiskLimits
from backtest.simulate import TARGETS, BacktestResult, hold, simulate
from backtest.venue import Venue
from compute.seeds import stream
from compute.workers import Mapper
from configs.load import Config, ConfigError, PluginConfig
from experiments.trials import TrialMatrix
from ga.controls import POLICIES, ControlPolicy, Hyperparameters
from ga.evaluation import Evaluator
from ga.evolution import Evolution
from ga.islands import LEAST_ISLAND, IslandPolicies, Islands, IslandsConfig
from ga.searching import Search
from ga.space import Genome
from ga.variation import Variation
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig, FeatureTable
from market.scaling import Scaler
from market.splits import Split, SplitConfig
from market.table import DataError, Table, utc
from regimes.detector import DETECTORS, Detector, require_out_of_sample
from regimes.path import PathConfig, PathFilter
from regimes.regime import Regime
from specialists.family import FAMILIES
from specialists.fitness import Fitness, FitnessConfig
from specialists.specialist import Specialist, awake_rows, decision_rows

GENERALIST = "all"
LEAST_AWAKE = 100  # training bars of the regime


class Pilot(ControlPolicy, Protocol):
    """A policy that looks at the market as well, such as a trained conductor."""

    def placed(self, bars: Bars, regime: int | None, opened: int) -> "Pilot":
        """Take note of the training bars, the regime, and when the rows begin that must be out of sample.

        Raises
        ------
        DataError
            If the policy was trained on bars after that, nanoseconds UTC.
        """
        ...

    def hyperparameters(self, usual: Hyperparameters, n_genes: int, least: int) -> Hyperparameters:
        """Choose those of the run, before anything is bred; ``usual`` itself where it has no choice to make.

        Must not ask for more evaluations than ``usual`` does, nor for fewer individuals than ``least``.
        """
        ...


class SpecialistConfig(Config):
    """Everything that decides which specialist a search finds on given bars."""

    regime: str = Field(
        "volatile",
        description="ranging, trending, volatile, or all (a generalist); crisis if the detector tells it.",
    )
    features: FeaturesConfig = FeaturesConfig()
    detector: PluginConfig = PluginConfig(name="markov_ar")
    path: PathConfig = PathConfig()
    family: PluginConfig = PluginConfig(name="blend")
    fitness: FitnessConfig = FitnessConfig()
    costs: Costs = Costs()
    limits: RiskLimits = RiskLimits()
    venue: Venue = Venue()
    split: SplitConfig = SplitConfig()
    hyperparameters: Hyperparameters = Hyperparameters()
    policy: PluginConfig = PluginConfig(name="fixed")
    variation: Variation = Variation()
    islands: IslandsConfig = IslandsConfig()
    seed: int = Field(7, ge=0, le=2**63 - 1, description="Root of all random streams.")


@dataclass(frozen=True, eq=False)
class Ground:
    """What a search stands on: bars, what is known about them, and which rows are whose.

    Parameters
    ----------
    bars : Bars (n,)
    features : FeatureTable (n, f)
    labels : Table (n, 2)
        Causal regime ``label`` and ``confidence``.
    split : Split
        Training and test rows.
    detector : Detector
        Fitted on the training rows.
    regime_names : tuple of str
        By label.
    """

    bars: Bars
    features: FeatureTable
    labels: Table
    split: Split
    detector: Detector
    regime_names: tuple[str, ...]

    @property
    def regime_labels(self) -> np.ndarray:
        """Causal regime of each row, int8 (n,); -1 where undecided."""
        return self.labels.column("label").astype(np.int8)


@dataclass(frozen=True, eq=False)
class Evolved:
    """A champion and how it was found; the test rows are still closed.

    Parameters
    ----------
    specialist : Specialist
    fitness : float
        Of the champion, on the training rows.
    generations : list of dict
        One row per generation, see ``ga.progress.Progress.row``.
    in_sample : BacktestResult
        The champion on the training rows, from a flat start.
    trial_sharpes : float64 (m,)
        Sharpe ratio per bar of every evaluation, in the order made.
    trials : TrialMatrix
        What the evaluated genomes earned per block of time, for the probability of overfitting.
    hall_of_fame : tuple of Genome
        The best distinct genomes ever evaluated, fittest first.
    n_evaluated, n_unique, n_avoided : int
        Answers given to the search, different genomes among them, and offspring answered from memory.
    hit_rate : float
        Share of the offspring asked about that were answered from memory.
    """

    specialist: Specialist
    fitness: float
    generations: list[dict[str, Any]]
    in_sample: BacktestResult
    trial_sharpes: np.ndarray
    trials: TrialMatrix
    hall_of_fame: tuple[Genome, ...]
    n_evaluated: int
    n_unique: int
    n_avoided: int
    hit_rate: float


@dataclass(frozen=True, eq=False)
class Unseen:
    """The champion and its baselines on the test rows, each from a flat start and after the same costs.

    Parameters
    ----------
    champion : BacktestResult
    held : BacktestResult
        Buy and hold.
    gated : BacktestResult
        Hold while the causal regime is the champion's: what the regime alone is worth.
    """

    champion: BacktestResult
    held: BacktestResult
    gated: BacktestResult


def prepare(bars: Bars, config: SpecialistConfig) -> Ground:
    """Describe bars, cut them, and fit the detector on the training rows.

    Raises
    ------
    ConfigError
        If there are too few bars for the features' warm-up, the embargo, and something to learn from, or if
        the detector does not know the regime.
    """
    pipeline = FeaturePipeline(config.features)
    split = config.split.rows(bars, pipeline.warmup)
    features = transform(pipeline, bars)
    detector = DETECTORS.create(config.detector.name, config.detector.settings)
    detector = detector.fit(features[split.train])
    probabilities = transform(detector, features)
    names = probabilities.names
    if config.regime != GENERALIST and Regime.of(config.regime).text not in names:
        raise ConfigError(
            f"regime: {config.regime} is not known to the detector {config.detector.name}, which tells "
            f"{', '.join(names)}; choose one of these, or detector.name=crisis"
        )
    labels = transform(PathFilter(config.path), probabilities)
    return Ground(bars, features, labels, split, detector, names)


@dataclass(frozen=True, eq=False)
class SpecialistSearch:
    """A search that is ready to start: every setting has proved good.

    Parameters
    ----------
    ground : Ground
    config : SpecialistConfig
    regime : Regime or None
        None for a generalist.
    scaler : Scaler or None
        Fitted on the training rows.
    fitness : Fitness
        On the training rows.
    policy : ControlPolicy
        Sets the controls of each generation.
    """

    ground: Ground
    config: SpecialistConfig
    regime: Regime | None
    scaler: Scaler | None
    fitness: Fitness
    policy: ControlPolicy

    @classmethod
    def of(cls, ground: Ground, config: SpecialistConfig, policy: ControlPolicy | None = None) -> Self:
        """Return the search that a config describes; the policy is the config's unless one is given.

        Raises
        ------
        ConfigError
            If a plugin or its settings are unknown, or the regime hardly occurs in the training rows.
        """
        regime = None if config.regime == GENERALIST else Regime.of(config.regime)
        family = FAMILIES.create(config.family.name, config.family.settings)
        if policy is None:
            policy = POLICIES.create(config.policy.name, config.policy.settings)
        train = ground.split.train
        if hasattr(policy, "placed"):
            test = ground.bars.time[ground.split.test]
            opened = int(test[0]) - ground.bars.interval_ns
            policy = policy.placed(ground.bars[train], None if regime is None else int(regime), opened)
        features = ground.features[train]
        scaler = Scaler.fit(features.select(family.signals)) if family.signals else None
        rows = decision_rows(family, scaler, features)
        awake = awake_rows(regime, ground.regime_labels[train], rows)
        if awake.sum() < LEAST_AWAKE:
            raise ConfigError(
                f"regime {config.regime} covers {int(awake.sum())} of {awake.size} training bars; a "
                f"specialist needs at least {LEAST_AWAKE} to learn from"
            )
        bars = ground.bars[train]
        fitness = Fitness(
            family, bars, rows, awake, config.costs, config.limits, config.venue, config.fitness, config.seed
        )
        return cls(ground, config, regime, scaler, fitness, policy)

    @cached_property
    def hyperparameters(self) -> Hyperparameters:
        """Those of a search for one champion: the config's, or what the policy chooses in their place.

        A front and an archive keep the config's: their sizes are part of what is asked for.

        Raises
        ------
        ConfigError
            If the config's population is too small for its islands.
        """
        config = self.config
        usual, least = config.hyperparameters, LEAST_ISLAND
        if not hasattr(self.policy, "hyperparameters"):
            return usual
        if config.islands.count > 1:
            config.islands.sizes(usual.population_size)  # what the user gave is judged, not what is chosen
            least = config.islands.count * max(LEAST_ISLAND, 2 * config.islands.migrants)
        return self.policy.hyperparameters(usual, self.fitness.family.space.n_genes, least)

    def specialist(self, genome: Genome) -> Specialist:
        """Return the specialist of a genome of this search, fitted until the end of the training rows."""
        ground = self.ground
        return Specialist(
            self.fitness.family,
            genome,
            self.regime,
            self.scaler,
            self.config.limits,
            fitted_until=int(ground.bars.time[ground.split.train.stop - 1]),
        )

    def evolve(
        self, workers: Mapper, on_generation: Callable[[Evolution, Evaluator], None] | None = None
    ) -> Evolved:
        """Search the training rows for the champion.

        The same ground, config and seed give the same bytes, whatever the workers.

        Parameters
        ----------
        workers : Mapper
            Where evaluations run.
        on_generation : callable, optional
            Called after each generation with the search and the evaluator, for example to draw.
        """
        hunt = ChampionSearch(self, workers)
        while not hunt.finished:
            hunt.step()
            if on_generation is not None:
                on_generation(hunt.evolution, hunt.evaluator)
        return hunt.evolved()


class ChampionSearch:
    """A search for a champion that is under way; between two steps its state can be saved.

    Parameters
    ----------
    ready : SpecialistSearch
    workers : Mapper
        Where evaluations run.

    Attributes
    ----------
    evolution : Evolution or Islands
    evaluator : Evaluator
    trials : TrialMatrix
        What the evaluated genomes earned per block of time.

    Raises
    ------
    ConfigError
        If the islands would be too small.
    """

    def __init__(self, ready: SpecialistSearch, workers: Mapper) -> None:
        self.ready = ready
        config, family = ready.config, ready.fitness.family
        self.trials = TrialMatrix(ready.fitness.block_bars)
        self.evaluator = Evaluator(
            ready.fitness, family.space, workers, chunk_size=LANES, witness=self.trials.append
        )
        # A family whose genomes are not plain vectors brings its own operators.
        toolbox = family.toolbox(config.variation) if hasattr(family, "toolbox") else None
        further = {"variation": config.variation, "toolbox": toolbox}
        policy = ready.policy
        # Islands get copies of a policy that has chosen already.
        hyperparameters = ready.hyperparameters
        if config.islands.count > 1:
            self.evolution = Islands(family.space, hyperparameters, config.islands, config.seed, **further)
            policy = IslandPolicies([copy.deepcopy(policy) for _ in range(config.islands.count)])
        else:
            self.evolution = Evolution(family.space, hyperparameters, stream(config.seed, "ga"), **further)
        self._search = Search(self.evolution, self.evaluator, policy)

    @property
    def finished(self) -> bool:
        """Whether the evolution is over."""
        return self._search.finished

    def step(self, before_tell: Callable[[], None] | None = None) -> None:
        """Breed, evaluate and tell one generation; see :meth:`ga.searching.Search.step`."""
        self._search.step(before_tell)

    def evolved(self) -> Evolved:
        """Return the champion found so far, traded on the training rows.

        Raises
        ------
        RuntimeError
            If it does not earn there what it was evolved for.
        """
        ready, evaluator = self.ready, self.evaluator
        ground, config = ready.ground, ready.config
        champion = self._search.champion()
        specialist = ready.specialist(champion)
        in_sample = judge(specialist, ground, ground.split.train, config.costs, config.venue)
        _check_same(ready.fitness, champion, in_sample)
        return Evolved(
            specialist=specialist,
            fitness=float(champion.fitness),
            generations=list(self.evolution.logbook),
            in_sample=in_sample,
            trial_sharpes=evaluator.details()[:, 0],
            trials=self.trials,
            hall_of_fame=tuple(self.evolution.hall_of_fame.genomes()),
            n_evaluated=evaluator.asked,
            n_unique=evaluator.evaluations,
            n_avoided=evaluator.hits,
            hit_rate=evaluator.hit_rate,
        )

    def state(self) -> dict[str, Any]:
        """Return everything the search goes on from: nested dictionaries of arrays and plain values."""
        return {"search": self._search.state(), "trials": self.trials.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit as the search that was stopped there would have."""
        self._search.restore(state["search"])
        self.trials.restore(state["trials"])


def evolve_specialist(
    ground: Ground, config: SpecialistConfig, workers: Mapper, policy: ControlPolicy | None = None
) -> Evolved:
    """Search the training rows for a regime's champion; see :class:`SpecialistSearch`."""
    return SpecialistSearch.of(ground, config, policy).evolve(workers)


def open_test(ground: Ground, specialist: Specialist, costs: Costs, venue: Venue | None = None) -> Unseen:
    """Return a champion and its baselines on the test rows; every look is to be noted in the ledger first.

    Raises
    ------
    DataError
        If the champion or the detector was fitted on a bar of the test rows.
    """
    test = ground.split.test
    bars = ground.bars[test]
    opened = int(bars.time[0]) - bars.interval_ns
    if specialist.fitted_until > opened:
        raise DataError(
            f"the specialist was fitted until {utc(specialist.fitted_until)}; rows from {utc(opened)} on are "
            f"not out of sample for it"
        )
    require_out_of_sample(ground.detector, int(bars.time[0]))
    unprotected = RiskLimits(
        max_exposure=specialist.limits.max_exposure, long_only=specialist.limits.long_only, stop=None
    )
    gate = awake_rows(specialist.regime, ground.regime_labels[test], np.zeros((len(bars), 1)))
    gated = Table(bars.time, gate[:, None].astype(np.float64), TARGETS[:1])
    # A baseline holds: the account's protective stop would make it another strategy.
    return Unseen(
        champion=judge(specialist, ground, test, costs, venue),
        held=simulate(hold(bars), bars, costs, unprotected, venue=venue),
        gated=simulate(gated, bars, costs, unprotected, venue=venue),
    )


def judge(
    specialist: Specialist, ground: Ground, rows: slice, costs: Costs, venue: Venue | None = None
) -> BacktestResult:
    """Return what a specialist does on some rows, from a flat start on the first of them."""
    bars = ground.bars[rows]
    targets = specialist.fresh().update(bars, ground.features[rows], ground.labels[rows])
    labels = ground.regime_labels[rows]
    return simulate(targets, bars, costs, specialist.limits, venue=venue, regimes=labels)


def _check_same(fitness: Fitness, champion: Genome, result: BacktestResult) -> None:
    # What was evolved must be what is traded.
    total = fitness.statistics(champion.genes[None, :])[0, :, 0].sum()
    traded = result.curve.column("net_return").sum()
    if not abs(total - traded) <= 1e-9 * (1.0 + abs(traded)):
        raise RuntimeError(
            f"the population kernel earned {total!r} and the streaming specialist {traded!r} on the same "
            f"bars; they must agree"
        )

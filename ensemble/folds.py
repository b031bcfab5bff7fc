"""One fold of a walk-forward: fit everything on the past, answer the test rows, and keep what was decided.

Rows of a fold, in bars::

    learn                                | embargo | validation     | embargo | test
    detector, scaler, genomes                        blender                   answered

Forecasters have their own walk-forward (``ensemble.forecasts``): whoever answers a row has never seen it.
Nothing of a fold reads rows after its test, and nothing that is fitted reads its test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest.costs import Costs
from compute.seeds import stream
from compute.workers import Mapper
from configs.load import ConfigError, PluginConfig
from ensemble.blenders import BLENDERS, Blender
from ensemble.counterparts import always_on, random_routing
from ensemble.fitting import FittingJob
from ensemble.fold_result import FoldResult
from ensemble.forecasts import Forecast
from ensemble.informed import informed, wanted
from ensemble.settings import ValidateConfig
from ensemble.signals import Blend, Member, SignalTable
from ensemble.sources import ForecasterSource, SpecialistSource, awake_by_probability
from ensemble.strategy import Strategy
from ensemble.validation import FoldRecord
from experiments.ledger import Ledger
from experiments.runs import Run
from forecasters.fitted import FittedForecaster
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeatureTable
from market.splits import Split
from market.table import DataError
from regimes.detector import DETECTORS
from regimes.path import PathFilter
from regimes.regime import Regime, RegimeProbabilities
from specialists.family import FAMILIES
from specialists.training import GENERALIST, LEAST_AWAKE, Evolved, Ground, SpecialistSearch

STRATEGIES = "strategies"


def folds_of(bars: Bars, warmup: int, config: ValidateConfig) -> tuple[Split, ...]:
    """Return the folds of the settings, oldest first.

    Raises
    ------
    ConfigError, DataError
        If there are too few bars for one fold.
    """
    folds = config.folds
    splits = folds.splits(bars.time)
    if folds.start is not None:
        day = int(np.datetime64(folds.start, "ns").astype(np.int64))
        splits = tuple(split for split in splits if int(bars.time[split.test.start]) > day)
        if not splits:
            raise ConfigError(f"folds.start is {folds.start}; no fold of {bars.label} is tested after that")
    # The features' first rows are not known: they teach nothing.
    kept = []
    for split in splits:
        train = slice(max(split.train.start, warmup), split.train.stop)
        if train.stop > train.start:
            kept.append(replace(split, train=train))
    if not kept:
        raise DataError(
            f"{bars.label}: features take {warmup} bars to be known, and no fold learns on as many"
        )
    return tuple(kept if folds.latest is None else kept[-folds.latest :])


def roster_of(config: ValidateConfig) -> tuple[Member, ...]:
    """Return the members of the ensemble in the order of their signals."""
    own = config.specialists
    found = []
    for regime in own.regimes:
        for i in range(own.champions):
            stem = "generalist" if regime == GENERALIST else regime
            name = stem if own.champions == 1 else f"{stem}_{i + 1}"
            found.append(Member(name, "specialist", None if regime == GENERALIST else Regime.of(regime)))
    found += [Member(member.title(), "forecaster", None) for member in config.forecasters]
    return tuple(found)


@dataclass(frozen=True, eq=False)
class FoldJob(FittingJob[FoldResult]):
    """Fits folds by their number; travels to workers whole.

    Parameters
    ----------
    run : Run
        Strategies and checkpoints are left in its folder.
    config : ValidateConfig
    bars : Bars (n,)
    core : FeatureTable (n, f)
        Of ``config.features``.
    wide : FeatureTable (n, g) or None
        Of ``config.forecast_features``; None without forecasters.
    forecasts : tuple of Forecast
    splits : tuple of Split
    identity : mapping of str to str
        What must be the same for a resumed run.
    forced : tuple of str
        What of it may have changed all the same.
    """

    run: Run
    config: ValidateConfig
    bars: Bars
    core: FeatureTable
    wide: FeatureTable | None
    forecasts: tuple[Forecast, ...]
    splits: tuple[Split, ...]
    identity: Mapping[str, str]
    forced: tuple[str, ...] = ()

    piece, short, kept = "fold", "fold", FoldResult

    def strategy_of(self, number: int) -> Strategy:
        """Return the strategy of a fold that is on disk."""
        return Strategy.load(self.run.folder / _place(number))

    def record_trials(self, ledger: Ledger, fingerprint: str, result: FoldResult) -> None:
        """Count the trials of a fold; those that are counted already are not counted again."""
        first = result.record.number * (len(roster_of(self.config)) + 1)
        self.record_searches(ledger, fingerprint, result, first)

    def fit(self, number: int, workers: Mapper) -> FoldResult:
        """Fit a fold, save its strategy, and return what it decided.

        Parameters
        ----------
        number : int
        workers : Mapper
            Where genomes are evaluated; the result does not depend on it.
        """
        config, split = self.config, self.splits[number]
        test, stop = split.test, split.test.stop
        bars, core = self.bars[:stop], self.core[:stop]  # from here on nothing later exists
        wide = None if self.wide is None else self.wide[:stop]
        detector = DETECTORS.create(config.detector.name, config.detector.settings).fit(core[split.train])
        regimes = transform(detector, core)
        labels = transform(PathFilter(config.path), regimes)
        forecasters, absent = self.forecasters(
            lambda one: (one.fitted(self.run, test.start), one.answers[split.validation])
        )
        said = {one.name: one.signal(self.answers(one.name)[:stop]) for one in forecasters}
        features = informed(core, self.forecast_columns(), said)
        ground = Ground(bars, features, labels, split, detector, regimes.names)
        roster = roster_of(config)
        sources, told, asleep, searches = self.specialists(ground, regimes, roster, number, workers)
        absent = asleep | absent
        for source in forecasters:
            sources[source.name] = source
            told[source.name] = {
                "kind": "forecaster",
                "regime": None,
                "fitted_until": source.fitted_until,
                "scale": source.scale,
            }
        if not sources:
            raise DataError(f"fold {number + 1}: no member could be fitted ({'; '.join(absent.values())})")
        heard = self.heard(sources, said, ground, regimes)
        blender = self.blender(config.blender, heard, ground, regimes, number)
        strategy = Strategy(
            features=config.features,
            forecast_features=config.forecast_features if self.forecasts else None,
            detector=detector,
            path=config.path,
            sources=tuple(sources.values()),
            blender=blender,
            gating=config.gating,
            sizing=config.sizing,
            limits=config.limits,
            fitted_until=max(
                int(bars.time[split.validation.stop - 1]), *(one.fitted_until for one in sources.values())
            ),
            label=bars.label,
            interval_ns=bars.interval_ns,
        )
        strategy.save(self.run.path(_place(number)))
        parts = strategy.hear(bars, core, wide)
        blend = strategy.blend(bars, core, *parts)[test]
        self._require_same_answers(blend, test)
        rivals, left_out = {}, {}
        for name in config.rivals:
            if name == config.blender.name:
                continue
            try:
                rival = self.blender(PluginConfig(name=name), heard, ground, regimes, number)
            except DataError as error:  # too little to learn from is the end of a rival, not of the strategy
                left_out[name] = str(error)
                continue
            rivals[name] = strategy.with_blender(rival).blend(bars, core, *parts).exposure[test]
        generalist = None
        if config.specialists.generalist and config.specialists.regimes:
            evolved = self._evolved(ground, regimes, GENERALIST, number, len(roster), workers, whole=True)
            searches.append(_search(evolved))
            source = self._source(GENERALIST, evolved, ground, regimes)
            generalist = source.update(bars, features, regimes, labels)[test]
        own = [source for source in sources.values() if isinstance(source, SpecialistSource)]
        record = FoldRecord(
            number, split.train, split.validation, test, strategy.fitted_until, strategy.fingerprint(),
            told, _shares(blend), absent, {"rivals left out": left_out},
        )  # fmt: skip
        return FoldResult(
            record,
            _with_absent(blend, roster),
            rivals,
            generalist,
            always_on(own, bars, features)[test],
            random_routing(
                own, bars, features, ground.regime_labels, test,
                stream(config.seed, "random routing", number), config.random_routing.draws,
            ),
            tuple(searches),
        )  # fmt: skip

    def specialists(
        self,
        ground: Ground,
        regimes: RegimeProbabilities,
        roster: Sequence[Member],
        number: int,
        workers: Mapper,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, str], list[dict[str, Any]]]:
        """Evolve the specialists of a roster on the training rows of a ground.

        Returns
        -------
        sources, told, absent : dict
            By name: what speaks, what is told of it, and why a member is missing.
        searches : list of dict
            For the ledger.
        """
        sources, told, absent, searches = {}, {}, {}, []
        for i, member in enumerate(roster):
            if member.kind != "specialist":
                continue
            if (evolved := self._evolved(ground, regimes, _text(member.regime), number, i, workers)) is None:
                absent[member.name] = f"fewer than {LEAST_AWAKE} bars of its regime to learn from"
                continue
            searches.append(_search(evolved))
            sources[member.name] = self._source(member.name, evolved, ground, regimes)
            told[member.name] = {
                "kind": "specialist",
                "regime": _text(member.regime),
                "fitted_until": evolved.specialist.fitted_until,
                "fingerprint": evolved.specialist.fingerprint(),
                "scale": sources[member.name].scale,
                "sharpe_learn": evolved.in_sample.metrics.sharpe,
                "n_evaluated": evolved.n_evaluated,
                "genes": evolved.specialist.genes_by_name(),
            }
        return sources, told, absent, searches

    def _source(
        self, name: str, evolved: Evolved, ground: Ground, regimes: RegimeProbabilities
    ) -> SpecialistSource:
        # On the scale of what it did on the rows it learned on.
        own = self.config.specialists
        plain = SpecialistSource(name, evolved.specialist, own.awake, own.threshold)
        said = plain.fresh().update(ground.bars, ground.features, regimes, ground.labels)
        scale = SpecialistSource.scale_of(said[ground.split.train])
        return plain.with_specialist(evolved.specialist, scale)

    def _evolved(
        self,
        ground: Ground,
        regimes: RegimeProbabilities,
        regime: str,
        number: int,
        place: int,
        workers: Mapper,
        whole: bool = False,
    ) -> Evolved | None:
        seed = int(stream(self.config.seed, "specialist", number, place).integers(2**62))
        chosen = self.config.specialist(regime, seed, whole)
        if regime != GENERALIST:
            own = self.config.specialists
            if own.awake == "probability":  # it learns on the rows on which it will be awake
                labels = awake_by_probability(regimes, Regime.of(regime), own.threshold)
                ground = replace(ground, labels=labels)
            if _awake(ground, Regime.of(regime)) < LEAST_AWAKE:
                return None
        return SpecialistSearch.of(ground, chosen).evolve(workers)

    def forecasters(
        self, asked: Callable[[Forecast], tuple[FittedForecaster | None, np.ndarray]]
    ) -> tuple[list[ForecasterSource], dict[str, str]]:
        """Return the forecasters that can be members, and why the others cannot.

        Parameters
        ----------
        asked : callable
            Returns the model of a forecast, None if there is none, and its answers on the validation rows,
            float64 (v, 3).
        """
        found, absent = [], {}
        for forecast in self.forecasts:
            fitted, heard = asked(forecast)
            if fitted is None:
                absent[forecast.name] = "it was never trained on rows before the test"
            elif np.isnan(heard[:, 0]).all():
                absent[forecast.name] = "it has no answer on the validation rows"
            else:
                scale = ForecasterSource.scale_of(heard, forecast.hold)
                found.append(ForecasterSource(forecast.name, fitted, scale, hold=forecast.hold))
        return found, absent

    def answers(self, name: str) -> np.ndarray:
        """Return what a forecaster answers out of fold, on all rows, float64 (n, 3)."""
        return next(forecast.answers for forecast in self.forecasts if forecast.name == name)

    def forecast_columns(self) -> tuple[str, ...]:
        """Return the columns of forecasts that specialists read."""
        family = self.config.specialists.family
        family = FAMILIES.create(family.name, family.settings)
        return wanted((*family.signals, *family.levels))

    def heard(
        self,
        sources: Mapping[str, Any],
        said: Mapping[str, np.ndarray],
        ground: Ground,
        regimes: RegimeProbabilities,
    ) -> SignalTable:
        """Return what the members said on the validation rows, which none of them had seen.

        ``said`` holds the signals of the forecasters on all rows of the ground, float64 (n,).
        """
        rows = ground.split.validation
        columns = []
        for name, source in sources.items():
            if name in said:
                columns.append(said[name][rows])
            else:
                signal = source.fresh().update(ground.bars, ground.features, regimes, ground.labels)
                columns.append(signal[rows])
        return SignalTable(ground.bars.time[rows], np.column_stack(columns), tuple(sources))

    def blender(
        self,
        chosen: PluginConfig,
        heard: SignalTable,
        ground: Ground,
        regimes: RegimeProbabilities,
        number: int,
    ) -> Blender:
        """Fit a blender on what was :meth:`heard`."""
        rows = ground.split.validation
        members = tuple(member for member in roster_of(self.config) if member.name in heard.names)
        return BLENDERS.create(chosen.name, chosen.settings).fit(
            heard, regimes[rows], ground.labels[rows], ground.bars[rows],
            members=members,
            cost=cost_of(self.config.costs, ground.bars[rows]),
            seed=int(stream(self.config.seed, "blender", chosen.name, number).integers(2**62)),
        )  # fmt: skip

    def _require_same_answers(self, blend: Blend, test: slice) -> None:
        # What was learned from is what is traded: kept answers and those of the strategy agree.
        for forecast in self.forecasts:
            if forecast.name not in blend.signals.names:
                continue
            kept, said = forecast.answers[test][:, 0], blend.signals.column(forecast.name)
            if not np.array_equal(np.isnan(kept), np.isnan(said)):
                raise RuntimeError(f"{forecast.name} answers other rows in the strategy than in its training")


def cost_of(costs: Costs, bars: Bars) -> float:
    """Return what a unit of turnover costs on these bars, a fraction: fee, half spread and usual impact."""
    turnover = float(np.mean(bars.column("close") * bars.column("volume")))
    impact = max(
        (level for level in costs.impact if level.turnover <= turnover), key=lambda one: one.turnover
    )
    return (costs.fee_bps + costs.half_spread_bps + impact.impact_bps) * 1e-4


def _place(number: int) -> str:
    return f"{STRATEGIES}/fold-{number + 1:03d}"


def _text(regime: Regime | None) -> str:
    return GENERALIST if regime is None else regime.text


def _awake(ground: Ground, regime: Regime) -> int:
    # Training bars on which a specialist of the regime would be awake.
    if regime.text not in ground.regime_names:
        return 0
    train = ground.split.train
    return int((ground.regime_labels[train] == int(regime)).sum())


def _search(evolved: Evolved) -> dict[str, Any]:
    return {
        "sharpes": np.asarray(evolved.trial_sharpes, np.float64),
        "n_evaluated": int(evolved.n_evaluated),
        "n_unique": int(evolved.n_unique),
    }


def _shares(blend: Blend) -> dict[str, float]:
    return {name: float(np.mean(blend.label == i)) for i, name in enumerate(blend.regimes.names)}


def _with_absent(blend: Blend, roster: Sequence[Member]) -> Blend:
    # The same columns in every fold: a member that a fold has not is one without an opinion.
    names = tuple(member.name for member in roster)
    if blend.signals.names == names:
        return blend
    signals = np.full((len(blend), len(names)), np.nan)
    weights = np.zeros(signals.shape)
    for j, name in enumerate(blend.signals.names):
        signals[:, names.index(name)] = blend.signals.values[:, j]
        weights[:, names.index(name)] = blend.weights[:, j]
    return replace(blend, signals=SignalTable(blend.time, signals, names), weights=weights)

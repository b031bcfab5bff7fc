"""Combinatorial purged cross-validation of the ensemble: many paths through one history.

The history is cut into groups. For every choice of some of them detector, specialists and blender are fitted
anew on the others, and answer the chosen ones::

    group          1        2        3        4        5        6
               learn ... | TEST  | ... learn ... | TEST  | ... learn, validation
                      embargo on both sides of every tested group

What teaches is glued to a market of its own (``ensemble.gluing``); its latest part validates: the blender is
fitted there. Regimes of these rows are told by a detector that has seen them alone. What answers runs along
the true clock, row by row, and takes no position on rows that taught.

Here the future teaches the past: a group in the middle is answered by what was learned before and after it.
That is what makes many paths of one history, and why they are not what the walk-forward is, a history of what
could have been done. Forecasters are not fitted anew: their answers are those of their own walk-forward.
Whoever answers a row has never seen it or what came after it, but may have learned from a tested group that
lies before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from compute.seeds import stream
from compute.workers import Mapper
from configs.load import ConfigError
from ensemble.baselines import Trading
from ensemble.blenders import Blender
from ensemble.fitting import FittingJob
from ensemble.folds import FoldJob, roster_of
from ensemble.forecasts import Forecast
from ensemble.gating import Gates
from ensemble.gluing import Glued
from ensemble.informed import informed
from ensemble.paths import Paths
from ensemble.settings import ValidateConfig
from ensemble.signals import SignalTable
from ensemble.sizing import Sizing
from ensemble.sources import Source
from experiments.ledger import Ledger
from experiments.runs import Run
from ga.controls import POLICIES
from market.bars import Bars
from market.causal import transform
from market.combinatorial import Combination, combinatorial, paths_of
from market.features.pipeline import FeatureTable
from market.splits import Split, folds
from market.table import DataError
from regimes.detector import DETECTORS, Detector
from regimes.path import PathFilter
from specialists.training import Ground

#: Of what a fold tells of a specialist; its stamp would be of the glued clock.
_TOLD = ("genes", "sharpe_learn", "n_evaluated")


def combinations_of(bars: Bars, warmup: int, config: ValidateConfig) -> tuple[Combination, ...]:
    """Return the choices of tested groups that the settings ask for; none where ``cpcv.groups`` is 0.

    Parameters
    ----------
    bars : Bars (n,)
    warmup : int
        Rows until the features are known; they belong to no group.
    config : ValidateConfig

    Raises
    ------
    ConfigError, DataError
        If a combination leaves too little to learn from, or the policy of the searches looks at the market.
    """
    own = config.cpcv
    if not own.groups:
        return ()
    policy = config.specialists.policy
    if hasattr(POLICIES.create(policy.name, policy.settings), "placed"):
        raise ConfigError(
            f"cpcv.groups is {own.groups} and specialists.policy {policy.name}, which was trained on some "
            f"market itself; what tests every row needs a policy that has seen none"
        )
    if warmup >= len(bars):
        raise DataError(
            f"{bars.label}: features take {warmup} bars to be known, and there are {len(bars)}; "
            f"combinations need more bars"
        )
    embargo = config.folds.embargo_bars
    found = combinatorial(bars.time, slice(warmup, len(bars)), own.groups, own.test, embargo)
    for one in found:
        _split_of(one, config)
    return found


@dataclass(frozen=True, eq=False)
class Learned:
    """What was fitted beside some groups.

    Parameters
    ----------
    detector : Detector
    sources : mapping of str to Source
        By name, in the order of the blender's columns.
    said : mapping of str to float64 (n,)
        Signals of the forecasters among them, on all rows.
    blender : Blender
    told : mapping
        Per specialist its ``genes``, ``sharpe_learn`` (annual, in sample, after costs) and ``n_evaluated``.
    absent : mapping of str to str
        Members that are missing, and why.
    searches : tuple of mapping
        For the ledger.
    """

    detector: Detector
    sources: Mapping[str, Source]
    said: Mapping[str, np.ndarray]
    blender: Blender
    told: Mapping[str, Any]
    absent: Mapping[str, str]
    searches: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class CombinationResult:
    """What was decided on the tested groups of a combination.

    Parameters
    ----------
    number : int
        From 0 on.
    exposure : tuple of float64 (m,)
        By group, wanted from the next open.
    label : tuple of int8 (m,)
        By group, the regime in force.
    told, absent : mapping
        See :class:`Learned`.
    searches : tuple of mapping
        For the ledger: ``sharpes`` float64 (k,) per bar, ``n_evaluated``, ``n_unique``.
    """

    number: int
    exposure: tuple[np.ndarray, ...]
    label: tuple[np.ndarray, ...]
    told: Mapping[str, Any]
    absent: Mapping[str, str]
    searches: tuple[Mapping[str, Any], ...]

    def state(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        found = dict(vars(self))
        for name in ("exposure", "label", "searches"):
            found[name] = list(found[name])
        return found

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "CombinationResult":
        """Return what :meth:`state` gave."""
        lists = {name: tuple(state[name]) for name in ("exposure", "label", "searches")}
        return cls(**{**state, **lists})


@dataclass(frozen=True, eq=False)
class CombinationJob(FittingJob[CombinationResult]):
    """Fits combinations by their number; travels to workers whole.

    Parameters
    ----------
    run : Run
        Checkpoints are left in its folder.
    config : ValidateConfig
        Of the validation.
    bars : Bars (n,)
    core : FeatureTable (n, f)
        Of ``config.features``.
    forecasts : tuple of Forecast
    combinations : tuple of Combination
    identity : mapping of str to str
        What must be the same for a resumed run.
    forced : tuple of str
        What of it may have changed all the same.
    """

    run: Run
    config: ValidateConfig
    bars: Bars
    core: FeatureTable
    forecasts: tuple[Forecast, ...]
    combinations: tuple[Combination, ...]
    identity: Mapping[str, str]
    forced: tuple[str, ...] = ()

    piece, short, kept = "combination", "cpcv", CombinationResult

    def record_trials(self, ledger: Ledger, fingerprint: str, result: CombinationResult, after: int) -> None:
        """Count the trials of a combination, once; ``after`` folds have been counted in the same run."""
        first = (after + result.number) * (len(roster_of(self.config)) + 1)
        self.record_searches(ledger, fingerprint, result, first)

    def fit(self, number: int, workers: Mapper) -> CombinationResult:
        """Fit a combination and return what it decides on its groups.

        Parameters
        ----------
        number : int
        workers : Mapper
            Where genomes are evaluated; the result does not depend on it.
        """
        learned = self.learn(number, workers)
        exposure, label = self.answer(number, learned)
        test = self.combinations[number].test
        return CombinationResult(
            number, tuple(exposure[rows] for rows in test), tuple(label[rows] for rows in test),
            learned.told, learned.absent, learned.searches,
        )  # fmt: skip

    def learn(self, number: int, workers: Mapper) -> Learned:
        """Fit detector, specialists and blender on the rows beside the tested groups, and on no others.

        Rows near a tested group teach nothing. Features beyond them still remember it as far as they look
        back further than the embargo.
        """
        config, chosen, steps = self.config, self.combinations[number], self._steps
        glued, split = Glued.of(self.bars, chosen.train), _split_of(chosen, config)
        known = glued.cut(self.core)
        detector = DETECTORS.create(config.detector.name, config.detector.settings).fit(known[split.train])
        probabilities = transform(detector, known)
        regimes, labels = glued.asleep_at_seams(
            glued.restamped(probabilities), glued.restamped(transform(PathFilter(config.path), probabilities))
        )
        # Any of its models makes a source: none is asked, for all answers are there.
        forecasters, absent = steps.forecasters(
            lambda one: (
                one.fitted(self.run, one.spans[-1][0].start),
                glued.rows_of(one.answers)[split.validation],
            )
        )
        said = {one.name: one.signal(steps.answers(one.name)) for one in forecasters}
        heard = {name: glued.rows_of(signal) for name, signal in said.items()}
        features = informed(glued.restamped(known), steps.forecast_columns(), heard)
        ground = Ground(glued.bars, features, labels, split, detector, regimes.names)
        sources, told, asleep, searches = steps.specialists(
            ground, regimes, roster_of(config), number, workers
        )
        sources |= {one.name: one for one in forecasters}
        absent = asleep | absent
        if not sources:
            raise DataError(
                f"combination {number + 1}: no member could be fitted ({'; '.join(absent.values())})"
            )
        signals = steps.heard(sources, heard, ground, regimes)
        blender = steps.blender(config.blender, signals, ground, regimes, number)
        told = {name: {key: one[key] for key in _TOLD} for name, one in told.items()}
        return Learned(detector, sources, said, blender, told, absent, tuple(searches))

    def answer(self, number: int, learned: Learned) -> tuple[np.ndarray, np.ndarray]:
        """Return what is decided along the true clock: exposure float64 (j,) and regime int8 (j,).

        Rows end with the last tested group. On rows that taught nobody speaks and the exposure is flat; the
        embargo before a group is answered, so that a group begins with whatever position it then has.
        """
        config, chosen = self.config, self.combinations[number]
        stop = chosen.test[-1].stop
        bars, core = self.bars[:stop], self.core[:stop]
        regimes = transform(learned.detector, core)
        labels = transform(PathFilter(config.path), regimes)
        said = {name: signal[:stop] for name, signal in learned.said.items()}
        features = informed(core, self._steps.forecast_columns(), said)
        taught = np.zeros(len(bars), bool)
        for run in chosen.train:
            taught[run] = True
        # A member that could not be fitted is one without an opinion.
        names = tuple(member.name for member in roster_of(config))
        values = np.full((len(bars), len(names)), np.nan)
        for name, source in learned.sources.items():
            signal = said.get(name)
            if signal is None:
                signal = source.fresh().update(bars, features, regimes, labels)
            values[:, names.index(name)] = np.where(taught, np.nan, signal)
        signals = SignalTable(bars.time, values, names)
        members = tuple(learned.sources)
        own = SignalTable(bars.time, values[:, [names.index(name) for name in members]], members)
        _, blended = _awakened(learned.blender, bars).update(own, regimes, labels, bars)
        label, confidence = labels.column("label").astype(np.int8), labels.column("confidence")
        allowed = np.where(taught, np.nan, blended)
        gated = Gates(config.gating).update(allowed, signals, regimes, label, confidence, core)
        return Sizing(config.sizing, config.limits).update(bars, gated), label

    def paths(self, results: Sequence[CombinationResult]) -> Paths:
        """Return the paths that the results of all combinations, in their order, make."""
        config, own = self.config, self.config.cpcv
        groups = folds(slice(self._first, len(self.bars)), own.groups)
        places = [{group: i for i, group in enumerate(one.chosen)} for one in self.combinations]
        rows = slice(self._first, len(self.bars))
        trading, found = None, []
        for answers in paths_of(own.groups, own.test):
            parts = [(results[i], places[i][group]) for group, i in enumerate(answers)]
            label = np.concatenate([one.label[place] for one, place in parts])
            trading = Trading(
                self.bars, rows, config.sizing, config.costs, config.limits, config.venue, label
            )
            found.append(trading.exposure(np.concatenate([one.exposure[place] for one, place in parts])))
        assert trading is not None  # there is a path wherever there is a combination
        return Paths(
            self.bars, groups, own.test, config.folds.embargo_bars,
            tuple(self._told(result) for result in results), tuple(found),
            trading.signal(np.ones(rows.stop - rows.start)),
            sum(int(search["n_evaluated"]) for result in results for search in result.searches),
        )  # fmt: skip

    @property
    def _first(self) -> int:
        return min(one.test[0].start for one in self.combinations)

    def _told(self, result: CombinationResult) -> dict[str, Any]:
        one = self.combinations[result.number]
        split = _split_of(one, self.config)
        return {
            "chosen": [group + 1 for group in one.chosen],
            "learned": split.train.stop,
            "validated": split.validation.stop - split.validation.start,
            "absent": dict(result.absent),
        }

    @cached_property
    def _steps(self) -> FoldJob:
        # The steps of a fold, with the random streams and the searches of combinations.
        return FoldJob(self.run, _searching(self.config), self.bars, self.core, None, self.forecasts, (), {})


def _split_of(chosen: Combination, config: ValidateConfig) -> Split:
    # Which of the glued rows teach and which validate. What the split calls its test lies beyond the last of
    # them: nothing of the tested groups is there to be looked at.
    n = sum(run.stop - run.start for run in chosen.train)
    embargo = config.folds.embargo_bars
    first = round(n * (1.0 - config.cpcv.validation))
    if first - embargo < 1 or first >= n:
        groups = ", ".join(str(group + 1) for group in chosen.chosen)
        raise DataError(
            f"combinations: beside the groups {groups} there are {n} bars, of which cpcv.validation takes "
            f"{n - first} and its embargo {embargo}; it takes more bars, fewer tested groups or a smaller "
            f"embargo"
        )
    return Split(slice(0, first - embargo), slice(first, n), slice(n + embargo, n + embargo + 1), 0, embargo)


def _searching(config: ValidateConfig) -> ValidateConfig:
    own = config.cpcv
    sizes = {"population_size": own.population_size, "n_generations": own.n_generations}
    hyperparameters = config.specialists.hyperparameters.model_copy(
        update={name: value for name, value in sizes.items() if value is not None}
    )
    return config.model_copy(
        update={
            "seed": int(stream(config.seed, "cpcv").integers(2**62)),
            "specialists": config.specialists.model_copy(update={"hyperparameters": hyperparameters}),
        }
    )


def _awakened(blender: Blender, bars: Bars) -> Blender:
    # One that goes on learning does so from each decision after what taught it. Its stamp is of the glued
    # clock and says nothing here; that nobody speaks on rows that taught keeps these from teaching it twice.
    found = blender.fresh()
    found.fitted_until = int(bars.time[0]) - bars.interval_ns
    return found

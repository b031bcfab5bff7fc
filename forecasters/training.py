"""Walk-forward training: every row of history is answered by a forecaster that has never seen it.

One fold, in bars::

    train                                                |            | test
    fit                   | purge, embargo | validation  | purge,     |
    scaler, columns,                         stops,        embargo      answers
    weights, model                           calibrates

The training rows of a fold are cut off from everything later before anything is fitted: test rows are not
there to be looked at. Each answer is stamped ``trained_through``, the last moment of which anything was
known; an answer to a row that is not later than that stops the training.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compute.seeds import stream
from configs.load import ConfigError, PluginConfig
from forecasters.calibration import Calibration
from forecasters.fitted import FittedForecaster, over, raw_answers, raw_quantiles
from forecasters.forecaster import Told, new_forecaster, plugin_config
from forecasters.selection import selected
from forecasters.settings import ForecastConfig, LearningConfig, ScheduleConfig
from forecasters.windows import CLASSES, Examples, examples_of
from market.bars import Bars
from market.features.dataset import DatasetConfig, computed
from market.labels import Labels
from market.sample_weights import uniqueness
from market.scaling import Scaler
from market.splits import Split
from market.table import DataError, Table, same_rows, utc

#: A column that is known in less than this share of the rows to fit on would cost more rows than it is worth.
MOSTLY = 0.8
#: A class that is rarer counts as if it were as frequent: a handful of rows must not make up a third of all.
LEAST_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class Ground:
    """What forecasters are trained on.

    Parameters
    ----------
    bars : Bars (n,)
    features : Table (n, c)
        Unscaled.
    labels : Labels (n,)
    feature_version : str
    warmup : int
        Rows in which features are not known yet.
    """

    bars: Bars
    features: Table
    labels: Labels
    feature_version: str
    warmup: int = 0

    def __post_init__(self) -> None:
        same_rows(self.bars, self.features)
        if not np.array_equal(self.labels.time, self.bars.time):
            raise DataError(f"{self.bars.label}: {self.labels.name} stands on another clock than the bars")


@dataclass(frozen=True, eq=False)
class Fold:
    """What one fold has found.

    Parameters
    ----------
    number : int
        From 0 on.
    test : slice
        Rows it answers.
    trained_through : int
        Nanoseconds UTC; earlier than all of them.
    answers : mapping of str to float64 (j, 3)
        Probabilities of each forecaster, the model first; NaN where a row has no whole window.
    decisions : mapping of str to int8 (j,)
        Classes.
    importances : mapping of str to float
        Share of each column; empty where the model does not tell.
    told : mapping
        Numbers of rows, columns that were dropped, calibration: for the report.
    fitted : FittedForecaster or None
        None once it is on disk.
    quantiles : mapping of str to float64 (j, q)
        Of the label's return, by forecasters that have them; NaN as the answers.
    levels : mapping of str to sequence of float (q,)
        Of these quantiles.
    """

    number: int
    test: slice
    trained_through: int
    answers: Mapping[str, np.ndarray]
    decisions: Mapping[str, np.ndarray]
    importances: Mapping[str, float]
    told: Mapping[str, Any]
    fitted: FittedForecaster | None = field(default=None)
    quantiles: Mapping[str, np.ndarray] = field(default_factory=dict)
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return all but the fitted forecaster, as a checkpoint keeps it."""
        return {
            "number": self.number,
            "test": [self.test.start, self.test.stop],
            "trained_through": self.trained_through,
            "answers": dict(self.answers),
            "decisions": dict(self.decisions),
            "importances": dict(self.importances),
            "told": dict(self.told),
            "quantiles": dict(self.quantiles),
            "levels": dict(self.levels),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Fold":
        """Return what :meth:`state` gave."""
        return cls(**{**state, "test": slice(*state["test"])})


def prepare(bars: Bars, config: DatasetConfig) -> Ground:
    """Return features and labels of bars; no column is dropped, for that is for each fold to decide.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong.
    """
    features = computed(bars, config)
    return Ground(
        bars, features, config.label.labels(bars), features.version, min(features.warmup, len(bars))
    )


def folds_of(ground: Ground, schedule: ScheduleConfig) -> tuple[Split, ...]:
    """Return the folds of a schedule, oldest first; DataError if there are too few bars for one."""
    splits = schedule.splits(ground.bars.time, ground.labels.settled_at, schedule.embargo_bars)
    return splits if schedule.latest is None else splits[-schedule.latest :]


def fit_and_validation(
    time: np.ndarray, settled_at: np.ndarray, train: slice, share: float, embargo: int
) -> tuple[slice, slice]:
    """Return the rows to fit on and those to validate on.

    Validation takes the latest share of the training rows. Fitting ends before the first row whose label
    reaches into the embargo before it, as training does before a test.

    Raises
    ------
    DataError
        If nothing is left to fit on.
    """
    first = train.stop - round((train.stop - train.start) * share)
    stop = train.start
    if train.start < first - embargo and first < train.stop:
        stop = first - embargo
        reaching = settled_at[train.start : stop] >= time[stop]
        stop = train.start + int(np.argmax(reaching)) if reaching.any() else stop
    if stop <= train.start:
        raise DataError(
            f"training: no rows are left to fit on before {utc(time[min(first, time.size - 1)])}, with "
            f"{share:.0%} of {train.stop - train.start} rows for validation and an embargo of {embargo} "
            f"bars; it takes more bars, a longer training or a smaller embargo"
        )
    return slice(train.start, stop), slice(first, train.stop)


def fit_fold(
    ground: Ground, split: Split, config: ForecastConfig, number: int = 0, told: Told | None = None
) -> Fold:
    """Fit the model and its baselines on the training rows of a fold, and answer its test rows.

    Raises
    ------
    DataError
        If there are too few rows to learn from.
    """
    schedule, labels = config.schedule, ground.labels
    time = ground.bars.time
    train = slice(max(split.train.start, ground.warmup), split.train.stop)
    if train.stop <= train.start:
        raise DataError(
            f"training: features are known from {utc(time[min(ground.warmup, time.size - 1)])} on, after the "
            f"training rows of fold {number + 1} end; it takes a longer training"
        )
    fit, validation = fit_and_validation(
        time, labels.settled_at, train, schedule.validation, schedule.embargo_bars
    )
    past = ground.features[: train.stop]  # from here on nothing later exists
    scaler, dropped = fit_scaler(past, fit)
    weighing = Weighing.of(labels, fit, config.learning)
    model = new_forecaster(config.model)
    interval = ground.bars.interval_ns
    seed = int(stream(config.seed, "fold", number).integers(2**62))
    selection = None

    def examples(rows: slice) -> Examples:
        weights, plain = (weighing.weights(labels, rows, by_class=one) for one in (True, False))
        return examples_of(
            past, labels, rows, model.lookback, scaler, weights, interval_ns=interval, ret_weights=plain
        )

    learn = examples(fit)
    if config.learning.selection.by != "none" and len(learn):
        selection = selected(learn, config.learning.selection, seed, _needed(config))
        scaler = of_columns(scaler, selection.kept)
        dropped = {**dropped, **selection.dropped}
        learn = examples(fit)
    judge = examples(validation)
    for rows, found, what in ((fit, learn, "fit on"), (validation, judge, "validate on")):
        if not len(found):
            raise DataError(
                f"training: none of {rows.stop - rows.start} rows before {utc(time[rows.stop - 1])} is an "
                f"example to {what} ({_reasons(found)})"
            )
    through = max(int(labels.known_at[rows][labels.known[rows]].max()) for rows in (fit, validation))
    require_past(time, split.test, through, train.stop, schedule.embargo_bars)
    asked = examples_of(
        ground.features[: split.test.stop], None, split.test, model.lookback, scaler, interval_ns=interval
    )
    answers, decisions, notes, quantiles, levels = {}, {}, {}, {}, {}
    fitted = None
    for chosen in (config.model, *(plugin_config(name) for name in config.rivals())):
        own = fitted is None
        lookback = model.lookback if own else new_forecaster(chosen).lookback
        if lookback > model.lookback:
            raise ConfigError(
                f"baselines: {chosen.name} looks back on {lookback} rows and the model on {model.lookback}; "
                f"a baseline must not need more"
            )
        # Baselines have the same examples, so that all are measured on the same rows.
        one = _fitted(
            chosen, *(replace(part, lookback=lookback) for part in (learn, judge)), scaler, weighing,
            labels, validation, through, ground, config.learning, seed, told if own else None,
        )  # fmt: skip
        own_asked = replace(asked, lookback=lookback)
        answers[chosen.name] = over(split.test, asked, one.of_examples(own_asked))
        spread = raw_quantiles(one.forecaster, own_asked)
        if spread is not None:
            quantiles[chosen.name] = over(split.test, asked, spread)
            levels[chosen.name] = list(one.forecaster.levels)
        decisions[chosen.name] = one.decide(answers[chosen.name])
        notes[chosen.name] = one.calibration.temperature
        fitted = fitted or one
    importances = fitted.forecaster.importances()
    return Fold(
        number,
        split.test,
        through,
        answers,
        decisions,
        {} if importances is None else dict(zip(scaler.names, importances.tolist(), strict=True)),
        {
            "rows": {"fit": [fit.start, fit.stop], "validation": [validation.start, validation.stop]},
            "purge": split.purge,
            "examples": {"fit": len(learn), "validation": len(judge), "test": len(asked)},
            "left_out": {"fit": dict(learn.left_out), "test": dict(asked.left_out)},
            "columns": len(scaler.names),
            "dropped": dropped,
            **({} if selection is None else {"selection": selection.told()}),
            "shares": dict(zip(CLASSES, weighing.shares, strict=True)),
            "temperature": notes,
        },
        fitted,
        quantiles,
        levels,
    )


def require_past(time: np.ndarray, test: slice, through: int, train_stop: int, embargo: int) -> None:
    """Stop unless a test is later than everything that was known in training, and the embargo lies between.

    Raises
    ------
    RuntimeError
        A mistake of the program, and one that no figure would survive.
    """
    if through >= int(time[test.start]) or test.start - train_stop < embargo:
        raise RuntimeError(
            f"training knew of {utc(through)} and of row {train_stop - 1}; it cannot answer row {test.start} "
            f"at {utc(time[test.start])} with an embargo of {embargo} bars"
        )


def fit_scaler(past: Table, fit: slice) -> tuple[Scaler, dict[str, list[str]]]:
    """Return the scaler of the columns that are of use in some rows, and those that are not, by the reason.

    Raises
    ------
    DataError
        If no column is.
    """
    rows = past[fit]
    usual = (~np.isnan(rows.values)).mean(axis=0) >= MOSTLY
    names = [name for name, kept in zip(past.names, usual, strict=True) if kept]
    if not names:
        raise DataError(f"training: no column is known in {MOSTLY:.0%} of {len(rows)} rows to fit on")
    whole = Scaler.fit(rows.select(names))
    varying = [name for name in names if name not in whole.constant]
    if not varying:
        raise DataError(f"training: no column varies over {len(rows)} rows to fit on")
    dropped = {
        "constant": list(whole.constant),
        "seldom known": [name for name, often in zip(past.names, usual, strict=True) if not often],
    }
    return of_columns(whole, varying), {why: found for why, found in dropped.items() if found}


def of_columns(scaler: Scaler, names: Collection[str]) -> Scaler:
    """Return the scaler of some of its columns, in the order that they have."""
    places = [i for i, name in enumerate(scaler.names) if name in set(names)]
    kept = [tuple(part[i] for i in places) for part in (scaler.names, scaler.center, scaler.scale)]
    return Scaler(*kept, scaler.fitted_until, scaler.limit)


def _needed(config: ForecastConfig) -> set[str]:
    # Columns that the model or a baseline was told to read.
    chosen = (config.model, *(plugin_config(name) for name in config.rivals()))
    return {getattr(new_forecaster(one).config, "column", None) for one in chosen} - {None}


@dataclass(frozen=True)
class Weighing:
    """What rows count, as the rows to fit on say.

    Parameters
    ----------
    shares : tuple of float (3,)
        Of the classes in the weight of these rows.
    factors : tuple of float (3,)
        By which the rows of a class are multiplied.
    uniqueness : bool
    """

    shares: tuple[float, ...]
    factors: tuple[float, ...]
    uniqueness: bool

    @classmethod
    def of(cls, labels: Labels, fit: slice, learning: LearningConfig) -> "Weighing":
        """Return how rows are weighed."""
        plain = cls((0.0,) * len(CLASSES), (1.0,) * len(CLASSES), learning.uniqueness)
        weight = plain.weights(labels, fit)
        rows = np.flatnonzero(weight)
        if not rows.size:
            raise DataError(f"{labels.name}: no row to fit on has a label")
        shares = weighted_shares(labels.value[rows] + 1, weight[rows])
        factors = 1.0 / (len(CLASSES) * np.array(floored(shares)))
        return cls(
            tuple(shares.tolist()),
            tuple(factors.tolist()) if learning.class_weights else plain.factors,
            learning.uniqueness,
        )

    def weights(self, labels: Labels, rows: slice, by_class: bool = True) -> np.ndarray:
        """Return what each row counts, float64 (n,): among these rows; 0 elsewhere and without a label."""
        if self.uniqueness:
            found = uniqueness(labels, rows)
        else:
            found = np.zeros(len(labels))
            found[rows] = labels.known[rows]
        return found * np.array(self.factors)[labels.value + 1] if by_class else found


def weighted_shares(target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the share of each class in the weight of some rows, float64 (3,)."""
    totals = np.bincount(target, weight, minlength=len(CLASSES))
    return totals / totals.sum()


def floored(shares: np.ndarray) -> tuple[float, ...]:
    """Return shares, none of them below what a class counts at least."""
    return tuple(np.maximum(shares, LEAST_SHARE).tolist())


def _fitted(
    chosen: PluginConfig,
    learn: Examples,
    judge: Examples,
    scaler: Scaler,
    weighing: Weighing,
    labels: Labels,
    validation: slice,
    through: int,
    ground: Ground,
    learning: LearningConfig,
    seed: int,
    told: Callable[[float, str], None] | None,
) -> FittedForecaster:
    forecaster = new_forecaster(chosen).fit(learn, judge, seed=seed, told=told)
    calibration, prior = Calibration(), None
    if forecaster.calibrated:
        weight = weighing.weights(labels, validation, by_class=False)[judge.rows]
        calibration = Calibration.fit(
            learning.calibration, raw_answers(forecaster, judge), judge.target, weight
        )
        if learning.decision == "balanced":
            # Against the frequencies that the answers speak of. Those of other rows would tip a model of
            # little skill into answering one class throughout.
            if calibration.kind in ("bias_corrected", "isotonic"):
                prior = floored(weighted_shares(judge.target, weight))
            elif learning.class_weights:
                prior = (1.0 / len(CLASSES),) * len(CLASSES)
            else:
                prior = floored(np.array(weighing.shares))
    return FittedForecaster(
        forecaster, scaler, calibration, prior, through, ground.bars.interval_ns, labels.name,
        ground.feature_version, (learning.thresholds.down, learning.thresholds.up),
    )  # fmt: skip


def _reasons(examples: Examples) -> str:
    return ", ".join(f"{why}: {count}" for why, count in examples.left_out.items()) or "there are none"

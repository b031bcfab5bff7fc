"""Forecasters among the members: each trained along the whole history, each answer out of fold.

A forecaster is trained anew at the start of every span of its own schedule, on what was known before, and
answers the rows of the span. So every answer that a blender learns from, and every one it is judged by, comes
from a model that had never seen the row, and the answers that are fitted on are as good as those that are
traded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compute.seeds import stream
from configs.load import ConfigError
from ensemble.settings import ValidateConfig
from experiments.runs import Run
from forecasters.fitted import FittedForecaster
from forecasters.forecaster import new_forecaster
from forecasters.settings import ForecastConfig
from forecasters.training import Ground, fit_fold, folds_of
from forecasters.windows import CLASSES
from ga.checkpoint import Checkpoints
from market.bars import Bars
from market.features.pipeline import FeatureTable
from market.splits import Split
from market.table import DataError, utc

MODELS = "forecasters"
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Forecast:
    """The answers of one member, out of fold.

    Parameters
    ----------
    name : str
        Of the member.
    answers : float64 (n, 3)
        Calibrated probabilities of down, none and up; NaN where nobody could answer yet.
    trained_through : int64 (n,)
        Up to when something was known to whoever answered the row, nanoseconds UTC; the largest number where
        nobody did.
    spans : tuple of (slice, str)
        Test rows of each training, and where its model is kept.
    hold : int
        Bars of the horizon, for which each answer stands.
    """

    name: str
    answers: np.ndarray
    trained_through: np.ndarray
    spans: tuple[tuple[slice, str], ...]
    hold: int

    def model_of(self, row: int) -> str | None:
        """Return where the model is kept that answers a row; None where there is none yet."""
        for rows, place in self.spans:
            if rows.start <= row < rows.stop:
                return place
        return None

    def fitted(self, run: Run, row: int) -> FittedForecaster | None:
        """Return the model that answers a row."""
        place = self.model_of(row)
        return None if place is None else FittedForecaster.load(run.folder / place)


def check_members(config: ValidateConfig) -> None:
    """Raise :class:`ConfigError` if a forecaster is unknown, lacks its library, or has wrong settings."""
    for member in config.forecasters:
        new_forecaster(config.forecast(member, 0).model)


def train_forecasters(
    run: Run,
    config: ValidateConfig,
    bars: Bars,
    features: FeatureTable | None,
    identity: Mapping[str, str],
    told: Callable[[float, str], None],
    note: Callable[[str], None],
    forced: tuple[str, ...] = (),
) -> tuple[Forecast, ...]:
    """Train every forecaster along the history; a training that is on disk already is not repeated.

    Parameters
    ----------
    run : Run
        Where models and checkpoints go.
    config : ValidateConfig
    bars : Bars (n,)
    features : FeatureTable (n, f) or None
        Those of ``config.forecast_features``; None where there is no forecaster.
    identity : mapping of str to str
        What must be the same for a resumed run, see :class:`ga.checkpoint.Checkpoints`.
    told : callable
        Called with the share that is done, 0..1, and a line about it.
    note : callable
        Called with what the user must be told about a resumed run.
    forced : tuple of str
        What of the identity may have changed all the same.
    """
    found = []
    for i, member in enumerate(config.forecasters):
        seed = int(stream(config.seed, "forecaster", member.title()).integers(2**62))
        chosen = config.forecast(member, seed)
        labels = member.label.labels(bars)
        ground = Ground(bars, features, labels, features.version, min(features.warmup, len(bars)))
        part = partial(_part, told, i, len(config.forecasters))
        own = {**identity, "member": member.title()}
        with Checkpoints(run.folder / "checkpoints" / member.title(), own, keep=2) as checkpoints:
            states: list[dict[str, Any]] = []
            if checkpoints.generations():
                loaded = checkpoints.load(forced)
                for line in loaded.notes:
                    note(line)
                states = loaded.state["folds"]
            found.append(_trained(run, member.title(), chosen, ground, checkpoints, states, part))
    return tuple(found)


def _part(told: Callable[[float, str], None], i: int, count: int, share: float, line: str) -> None:
    told((i + share) / count, line)


def _trained(
    run: Run,
    name: str,
    config: ForecastConfig,
    ground: Ground,
    checkpoints: Checkpoints,
    states: list[dict[str, Any]],
    told: Callable[[float, str], None],
) -> Forecast:
    n = len(ground.bars)
    try:
        splits = folds_of(ground, config.schedule)
    except DataError as error:
        raise DataError(f"forecaster {name}: {error}") from error
    answers = np.full((n, len(CLASSES)), np.nan)
    through = np.full(n, NEVER, np.int64)
    spans = []
    for number, split in enumerate(splits):
        place = f"{MODELS}/{name}/fold-{number + 1:03d}"
        line = f"{name}, trained before {utc(ground.bars.time[split.test.start])[:10]}"
        told(number / len(splits), line)
        if number == len(states):
            inside = partial(_inside, told, number, len(splits), line)
            states.append(_fold(run, config, ground, split, number, place, inside))
            checkpoints.save(number, {"folds": states})
        test = slice(*states[number]["test"])
        answers[test] = states[number]["answers"]
        through[test] = states[number]["trained_through"]
        spans.append((test, place))
    known = ~np.isnan(answers[:, 0])
    if (through[known] >= ground.bars.time[known]).any():
        raise RuntimeError(f"{name} answers a row that is no later than what it was trained on")
    return Forecast(name, answers, through, tuple(spans), ground.labels.horizon)


def _inside(told: Callable, number: int, count: int, place: str, share: float, line: str) -> None:
    told((number + share) / count, f"{place}: {line}")


def _fold(
    run: Run, config: ForecastConfig, ground: Ground, split: Split, number: int, place: str, told: Callable
) -> dict[str, Any]:
    fold = fit_fold(ground, split, config, number, told)
    fold.fitted.save(run.path(place))
    return {
        "test": [fold.test.start, fold.test.stop],
        "trained_through": fold.trained_through,
        "answers": fold.answers[config.model.name],
    }


def require_forecasts(forecasts: tuple[Forecast, ...], rows: Sequence[slice], time: np.ndarray) -> None:
    """Stop if a forecaster has no answer on the validation rows of any fold: its training begins too late.

    Raises
    ------
    ConfigError
        With the first row that it answers.
    """
    for forecast in forecasts:
        known = ~np.isnan(forecast.answers[:, 0])
        if not any(known[one].any() for one in rows):
            first = f"from {utc(time[int(np.argmax(known))])[:10]} on" if known.any() else "nowhere"
            raise ConfigError(
                f"forecaster {forecast.name} answers {first}, and the last fold needs it before "
                f"{utc(time[rows[-1].stop - 1])[:10]}; its train_spans must be smaller, or the bars more"
            )

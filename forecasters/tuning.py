"""What settings of a forecaster are worth: F1 macro over folds, less what its signal lost on the way.

The spans at the end of the bars are held out: bars from there on are cut off before a feature is computed,
and the search works on what is left, fold by fold as :mod:`forecasters.training` trains. What it has chosen
is judged on the held-out spans once.

A signal is traded as its label means it: each decision is held for the horizon, and the account holds the
mean of the decisions that are open, so that a new one moves the position by its share.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backtest.metrics import max_drawdown, sharpe, total_return
from backtest.simulate import BacktestResult, simulate
from configs.load import PluginConfig
from experiments.studies import Trial
from forecasters.forecaster import Told
from forecasters.measures import measured, with_thresholds
from forecasters.settings import ScheduleConfig
from forecasters.training import Fold, Ground, fit_fold, folds_of
from forecasters.tuning_settings import DOWN, UP, TuneConfig
from market.bars import Bars
from market.bet_sizing import average_active
from market.splits import Split
from market.table import DataError, Table, utc

#: Thresholds of down and up under which decisions are those of ``forecasters.train``.
NONE = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class FoldScore:
    """What one fold was worth.

    Parameters
    ----------
    f1_macro : float
    drawdown : float
        Deepest, of the signal after costs; a fraction of equity, 0 or more.
    net_return : float
        Over the test, after costs.
    trades : int
    signals : float
        Share of judged rows that were decided up or down.
    value : float
        F1 macro less the penalty of the drawdown.
    returns : float64 (j,)
        Net, of each test row.
    """

    f1_macro: float
    drawdown: float
    net_return: float
    trades: int
    signals: float
    value: float
    returns: np.ndarray

    def document(self) -> dict[str, Any]:
        """Return all but the returns, as plain objects."""
        names = ("f1_macro", "drawdown", "net_return", "trades", "signals", "value")
        return {name: getattr(self, name) for name in names}


def held_out_from(bars: Bars, schedule: ScheduleConfig, spans: int) -> int:
    """Return the first row that is held out: of the latest spans. Only times are looked at.

    Raises
    ------
    DataError
        If the bars have no fold beside them.
    """
    splits = schedule.splits(bars.time)
    if len(splits) <= spans:
        raise DataError(
            f"tuning: {bars.label} from {utc(bars.time[0])} to {utc(bars.time[-1])} gives {len(splits)} "
            f"folds after {schedule.training()} of training, and {spans} are held out; it "
            f"takes more bars, a smaller hold_out or a shorter training"
        )
    return splits[-spans].test.start


def held_out_folds(ground: Ground, schedule: ScheduleConfig, first: int) -> tuple[tuple[int, Split], ...]:
    """Return the folds from a row on, each with its number, of the ground of all bars."""
    splits = folds_of(ground, schedule.model_copy(update={"latest": None}))
    return tuple((number, split) for number, split in enumerate(splits) if split.test.start >= first)


def traded(ground: Ground, decision: np.ndarray, rows: slice, config: TuneConfig) -> BacktestResult:
    """Return what an account made of decisions on some rows, after all costs.

    Parameters
    ----------
    ground : Ground
    decision : int8 (j,)
        Class of each of the rows.
    rows : slice
    config : TuneConfig
        Costs, limits and venue.
    """
    exposure = np.zeros((len(ground.bars), 1))
    ends = np.arange(len(decision)) + ground.labels.horizon
    exposure[rows, 0] = average_active(decision.astype(np.float64) - 1.0, ends)
    targets = Table(ground.bars.time, exposure, ("exposure",))
    return simulate(targets, ground.bars, config.costs, config.limits, venue=config.venue, rows=rows)


class Judged(NamedTuple):
    """Decisions on folds that follow each other, and how good they were.

    Parameters
    ----------
    decision : int8 (j,)
        Class of every row of the tests.
    rows : int64 (m,)
        Rows that were answered and have a label.
    on_rows : int8 (m,)
        The decisions on them.
    figures : dict
        As of :func:`forecasters.measures.measured`.
    """

    decision: np.ndarray
    rows: np.ndarray
    on_rows: np.ndarray
    figures: dict[str, Any]


def judged(
    ground: Ground, folds: Sequence[Fold], name: str, thresholds: tuple[float, float] | None
) -> Judged:
    """Return how a forecaster of some folds did; thresholds of None take decisions as the folds made them."""
    decisions, parts = [], []
    for fold in folds:
        answers, decision = fold.answers[name], fold.decisions[name]
        if thresholds is not None:
            prior = fold.fitted.prior
            decision = with_thresholds(answers, None if prior is None else np.array(prior), thresholds)
        rows = np.arange(fold.test.start, fold.test.stop)
        kept = ~np.isnan(answers[:, 0]) & ground.labels.known[rows]
        parts.append((answers[kept], decision[kept], rows[kept]))
        decisions.append(decision)
    answers, decision, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    figures = measured(answers, decision, targets_of(ground, rows), ground.labels.ret[rows])
    return Judged(np.concatenate(decisions), rows, decision, figures)


def targets_of(ground: Ground, rows: np.ndarray) -> np.ndarray:
    """Return the class that came true on rows that have a label, int8 (m,)."""
    return (ground.labels.value[rows] + 1).astype(np.int8)


def score(ground: Ground, fold: Fold, thresholds: tuple[float, float], config: TuneConfig) -> FoldScore:
    """Return what a fold was worth under some thresholds.

    Raises
    ------
    DataError
        If no row of it can be judged.
    """
    found = judged(ground, (fold,), next(iter(fold.answers)), thresholds)
    if not found.rows.size:
        raise DataError(
            f"tuning: fold {fold.number + 1} from {utc(ground.bars.time[fold.test.start])} has no row that "
            f"is answered and has a label"
        )
    result = traded(ground, found.decision, fold.test, config)
    returns = result.curve.column("net_return")
    drawdown = -max_drawdown(returns) + 0.0  # no minus zero
    return FoldScore(
        found.figures["f1_macro"],
        drawdown,
        total_return(returns),
        len(result.trades),
        found.figures["signals"],
        found.figures["f1_macro"] - config.objective.penalty(drawdown),
        returns,
    )


def scored(
    ground: Ground,
    splits: tuple[Split, ...],
    model: PluginConfig,
    thresholds: tuple[float, float],
    config: TuneConfig,
    told: Told | None = None,
) -> Iterator[FoldScore]:
    """Give the score of fold after fold; who has seen enough stops asking.

    All trials draw the same random numbers, so that luck is the same for all.

    Raises
    ------
    ConfigError, DataError
        If the settings will not do, or there are too few rows.
    """
    alone = config.model_copy(update={"model": model, "baselines": ()})
    for number, split in enumerate(splits):
        yield score(ground, fit_fold(ground, split, alone, number, told), thresholds, config)


def chosen(parameters: Mapping[str, Any], model: PluginConfig) -> tuple[PluginConfig, tuple[float, float]]:
    """Return the settings and the thresholds that the parameters of a trial mean."""
    settings = {name: value for name, value in parameters.items() if name not in (DOWN, UP)}
    thresholds = (float(parameters.get(DOWN, 0.0)), float(parameters.get(UP, 0.0)))
    return model.model_copy(update=settings), thresholds


def leading(trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the greatest value, the earliest of equals; None if there is none."""
    return max((one for one in trials if one.state == "complete"), key=lambda one: one.value, default=None)


def bar_sharpe(scores: Sequence[FoldScore]) -> float | None:
    """Return the Sharpe ratio per bar over folds, for the trial ledger; None where it is not defined."""
    found = sharpe(np.concatenate([one.returns for one in scores]), 1.0)
    return float(found) if np.isfinite(found) else None

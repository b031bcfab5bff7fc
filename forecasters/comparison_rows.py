"""The rows on which forecasters are compared: the same for all, with regimes and what signals earn.

A row counts where every forecaster has answered it. Its regime is the one that was known at its close: the
detector is fitted on the rows before the first test, and anew on all rows before, every so many bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from backtest.simulate import NO_REGIME, REASONS, BacktestResult, simulate
from configs.load import validate
from forecasters.comparison_candidates import Candidate
from forecasters.comparison_settings import CausalRegimesConfig, CompareConfig
from market.bars import Bars
from market.causal import transform
from market.features.pipeline import FeaturePipeline, FeaturesConfig
from market.labels import horizon_bars
from market.table import DataError, Table, concat, utc
from regimes.path import PathFilter, regime_path
from regimes.refits import RefitSchedule, fit_schedule
from regimes.regime import REGIME_NAMES

#: Reasons of an exit that is filled at an open; other exits lie inside or at the end of their bar.
_AT_OPEN = tuple(REASONS.index(name) for name in ("signal", "halt"))


@dataclass(frozen=True, eq=False)
class Rows:
    """Test rows of one horizon, and what every forecaster answered.

    Parameters
    ----------
    bars : Bars (n,)
    horizon : str
        As it was asked for.
    horizon_bars : int
    label : str
        Kind and horizon of the label.
    span : slice
        Rows of the bars from the first test row to the last, m of them.
    fold : int64 (m,)
        Time of the first row of its fold.
    answered : bool (m,)
        By all forecasters.
    judged : bool (m,)
        Answered, and the label is known.
    target : int8 (m,)
        Class that came true; 1 where it is not known.
    ret : float64 (m,)
        What the label earned before costs; NaN where it is not known.
    candidates : tuple of Candidate (k,)
    probabilities : float64 (k, m, 3)
    decisions : int8 (k, m)
        Class; 1, none, where the row was not answered by all.
    """

    bars: Bars
    horizon: str
    horizon_bars: int
    label: str
    span: slice
    fold: np.ndarray
    answered: np.ndarray
    judged: np.ndarray
    target: np.ndarray
    ret: np.ndarray
    candidates: tuple[Candidate, ...]
    probabilities: np.ndarray
    decisions: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """By which the comparison calls the forecasters."""
        return tuple(one.name for one in self.candidates)

    @property
    def time(self) -> np.ndarray:
        """Times of the rows, int64 (m,)."""
        return self.bars.time[self.span]


def same_rows_of(bars: Bars, horizon: str, candidates: Sequence[Candidate]) -> Rows:
    """Return the rows that all candidates were tested on.

    Raises
    ------
    DataError
        If there is none, they are not rows of the bars, the candidates were tested on other folds, or they
        foretell something else.
    """
    time = candidates[0].predictions.time
    for one in candidates[1:]:
        time = np.intersect1d(time, one.predictions.time, assume_unique=True)
    if not time.size:
        names = ", ".join(one.name for one in candidates)
        raise DataError(f"horizon {horizon}: {names} have no test rows in common")
    rows = np.searchsorted(bars.time, time)
    if rows[-1] >= len(bars) or not np.array_equal(bars.time[rows], time):
        raise DataError(f"horizon {horizon}: predictions stand on another clock than {bars.label}")
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    place, m = rows - span.start, span.stop - span.start
    picked = [np.searchsorted(one.predictions.time, time) for one in candidates]
    first = candidates[0].predictions
    label, known = first.label[picked[0]], first.known[picked[0]]
    ret, fold = first.ret[picked[0]], first.fold[picked[0]]
    begins = np.flatnonzero(np.diff(fold)) + 1
    probabilities = np.full((len(candidates), m, 3), np.nan)
    decisions = np.ones((len(candidates), m), np.int8)
    for i, (one, at) in enumerate(zip(candidates, picked, strict=True)):
        own = one.predictions
        if not (
            np.array_equal(own.label[at], label)
            and np.array_equal(own.known[at], known)
            and np.array_equal(own.ret[at], ret, equal_nan=True)
        ):
            raise DataError(
                f"horizon {horizon}: {one.name} foretells other labels than {candidates[0].name}; the same "
                f"kind and barriers are needed"
            )
        if not np.array_equal(np.flatnonzero(np.diff(own.fold[at])) + 1, begins):
            raise DataError(
                f"horizon {horizon}: {one.name} was trained anew at other times than {candidates[0].name}; "
                f"the same schedule is needed"
            )
        probabilities[i, place] = own.probabilities[at]
        decisions[i, place] = own.decision[at]
    answered = ~np.isnan(probabilities).any(axis=(0, 2))
    decisions[:, ~answered] = 1
    judged, target, earned = np.zeros(m, np.bool_), np.ones(m, np.int8), np.full(m, np.nan)
    judged[place], target[place], earned[place] = known, label + 1, ret
    last = np.searchsorted(place, np.arange(m), side="right") - 1
    config = candidates[0].config
    return Rows(
        bars, horizon, horizon_bars(horizon, bars.interval_ns), f"{config.label.kind}_{horizon}", span,
        time[np.r_[0, begins]][np.searchsorted(begins, last, side="right")], answered, judged & answered,
        target, earned, tuple(candidates), probabilities, decisions,
    )  # fmt: skip


def regimes_of(bars: Bars, first: int, config: CausalRegimesConfig | None) -> np.ndarray:
    """Return the regime known at each close, int8 (n,); -1 where there is none yet.

    Parameters
    ----------
    bars : Bars (n,)
    first : int
        First row that is wanted: the first fit takes the rows before it and no other.
    config : CausalRegimesConfig or None
        None: nothing is told apart.

    Raises
    ------
    DataError, ConfigError
        If there are too few rows before, or there is no such detector.
    """
    if config is None:
        return np.full(len(bars), NO_REGIME, np.int8)
    name, settings = config.detector.name, config.detector.settings
    schedule = RefitSchedule(first_bars=max(first, 2), every_bars=config.every_bars)
    from regimes.detector import DETECTORS

    columns = tuple(DETECTORS.create(name, settings).columns)
    features = validate(FeaturesConfig, {"names": columns}, f"detector {name}: features")
    described = transform(FeaturePipeline(features), bars)
    detector = fit_schedule(name, settings, described, schedule)
    probabilities = transform(detector, described)
    path = regime_path(transform(PathFilter(config.path), probabilities), probabilities.names)
    return np.array(path.label)


def regime_names(labels: np.ndarray) -> dict[int, str]:
    """Return the names of the regimes that occur, by their number; rows without one are left out."""
    names = (*REGIME_NAMES, "crisis")
    return {int(code): names[code] for code in np.unique(labels) if code != NO_REGIME}


def held(decision: np.ndarray, time: np.ndarray, span_ns: int) -> np.ndarray:
    """Return the position that each close asks for: the latest call, while it is younger than its horizon.

    A call holds for the span of its label, until the opposite call, or is held longer by the same call again.
    What is asked for at a close is filled at the next open, so a lonely call is held for the bars that its
    label is about.

    Parameters
    ----------
    decision : int8 (n,)
        -1 down, 0 none, 1 up.
    time : int64 (n,)
        Closes, nanoseconds UTC. Time counts and not rows: an outage does not hold a position longer.
    span_ns : int
        Span of the label, nanoseconds.

    Returns
    -------
    float64 (n,)
        -1 short, 0 flat, 1 long; row t depends on rows up to t.
    """
    rows = np.arange(decision.size)
    latest = np.maximum.accumulate(np.where(decision != 0, rows, -1))
    called = latest >= 0
    place = np.maximum(latest, 0)
    young = time - time[place] < span_ns
    return np.where(called & young, decision[place], 0).astype(np.float64)


def traded(rows: Rows, place: int, regimes: np.ndarray, config: CompareConfig) -> BacktestResult:
    """Return the account that trades the signal of a candidate over the test rows, after all costs.

    Every fold begins flat and with fresh capital, and is closed at its end: an account that costs have eaten
    up in one year would trade nothing in the next, and later folds would have no figures.

    Parameters
    ----------
    rows : Rows
    place : int
        Of the candidate.
    regimes : int8 (n,)
        To note on trades.
    config : CompareConfig
        Its costs, limits and venue.
    """
    wanted = np.zeros((len(rows.bars), 1))
    span_ns = rows.horizon_bars * rows.bars.interval_ns
    wanted[rows.span, 0] = held(rows.decisions[place] - 1, rows.time, span_ns)
    targets = Table(rows.bars.time, wanted, ("exposure",))
    starts = np.flatnonzero(np.diff(rows.fold, prepend=rows.fold[0] - 1))
    edges = rows.span.start + np.append(starts, rows.fold.size)
    folds = [
        simulate(
            targets, rows.bars, config.costs, config.limits, venue=config.venue, rows=slice(first, last),
            regimes=regimes,
        )
        for first, last in pairwise(edges.tolist())
    ]  # fmt: skip
    return replace(
        folds[0],
        curve=concat([one.curve for one in folds]),
        trades=np.concatenate([one.trades for one in folds]),
    )


def rows_of_trades(result: BacktestResult, interval_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the curve in which trades were entered and left, int64 (t,) each.

    Raises
    ------
    DataError
        If the trades are not of this curve.
    """
    time, trades = result.curve.time, result.trades
    entered = np.searchsorted(time, trades["entry_time"] + 1)
    at_open = np.isin(trades["reason"], _AT_OPEN)
    left = np.searchsorted(time, trades["exit_time"] + at_open)
    if trades.size and (left.max() >= time.size or (left < entered - 1).any()):
        raise DataError(f"trades from {utc(trades['entry_time'][0])} on are not those of their curve")
    return entered, np.maximum(left, entered)

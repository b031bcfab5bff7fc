"""Which rows may teach and which may judge: purged splits, time folds, walk-forward folds.

A label that looks ahead until ``known_at`` connects its row with all rows up to that time. A training
row whose label reaches into the rows it is judged on has seen the answer, so it is **purged**. The
**embargo** is a further number of rows left unused, because features and positions remember: before a
span that judges what was fitted on earlier rows (here the fitted thing is used no sooner than its last
training row + label + embargo), and after a test span whose later rows train (purged k-fold).

Ten rows, ``holdout(10, train=0.7, purge=1, embargo=1)``::

    row      0  1  2  3  4  5  6  7  8  9
             train         |  |  |  test
                           |  embargo
                           purge

Rows are named by slices with step 1: ``bars[split.train]``.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field

from configs.load import Config, ConfigError
from market.bars import NS_PER_SECOND, Bars
from market.table import DataError, utc

NS_PER_DAY = 86_400 * NS_PER_SECOND
LEAST_BARS = 1_000  # beyond warm-up and embargo: something to learn from, and something to judge by


class SplitConfig(Config):
    """How rows become training and test."""

    train: float = Field(0.7, gt=0, lt=1, description="Share of the bars, from the first on, to learn from.")
    embargo_bars: int | None = Field(
        None,
        ge=0,
        description="Bars between training and test. By default the longest memory of any feature, so that "
        "no test row remembers a training row.",
    )

    def rows(self, bars: Bars, warmup: int) -> "Split":
        """Return training and test rows of bars whose features take ``warmup`` rows to be known.

        Raises
        ------
        ConfigError
            If there are too few bars for the warm-up, the embargo, and something to learn from.
        """
        embargo = self.embargo_bars
        if embargo is None:
            embargo = embargo_bars(bars.interval_ns, label=0, memory=warmup)
        least = warmup + embargo + LEAST_BARS
        if len(bars) < least:
            raise ConfigError(
                f"{bars.label}: {len(bars)} bars are too few; features need {warmup} to warm up, the embargo "
                f"takes {embargo}, and at least {least} in all leave something to learn from"
            )
        return holdout(slice(warmup, len(bars)), train=self.train, embargo=embargo)


@dataclass(frozen=True)
class Split:
    """Rows to fit on, to choose on, and to judge on; ordered in time, each span contiguous.

    Parameters
    ----------
    train, validation, test : slice
        Row numbers, step 1. Train and test hold at least one row; an empty validation lies at the start
        of test.
    purge : int
        Rows dropped at the end of training because their labels reach into the next span, bars.
    embargo : int
        Further rows left unused in front of validation and of test, bars.

    Raises
    ------
    DataError
        If a span that must hold rows is empty.
    ValueError
        If spans overlap, are out of order, or their gaps are not purge + embargo.
    """

    train: slice
    validation: slice
    test: slice
    purge: int = 0
    embargo: int = 0

    def __post_init__(self) -> None:
        _check_gap(self.purge, self.embargo)
        for name in ("train", "validation", "test"):
            _span(getattr(self, name))
        has_validation = self.validation.stop > self.validation.start
        judged = self.validation if has_validation else self.test
        for name, rows in (("training", self.train), ("test", self.test)):
            if rows.start == rows.stop:
                raise DataError(
                    f"split: no {name} rows are left before row {judged.start} with a purge of {self.purge} "
                    f"and an embargo of {self.embargo} bars; it takes more bars or a smaller gap"
                )
        if self.train.stop + self.purge + self.embargo != judged.start:
            raise ValueError(
                f"training ends at row {self.train.stop} and the next span starts at row {judged.start}; the "
                f"gap must be purge + embargo = {self.purge + self.embargo} rows"
            )
        if has_validation and self.validation.stop + self.embargo > self.test.start:
            raise ValueError(
                f"validation ends at row {self.validation.stop} and test starts at row {self.test.start}; "
                f"the gap must be at least the embargo of {self.embargo} rows"
            )


def holdout(
    rows: int | slice, train: float = 0.7, validation: float = 0.0, purge: int = 0, embargo: int = 0
) -> Split:
    """Return one split by fractions: train, then validation (if any), then test with the rest.

    The gap of purge + embargo rows is taken from the end of train, and from the end of validation.

    Parameters
    ----------
    rows : int or slice
        Number of rows, or the rows to divide.
    train, validation : float
        Fractions of the rows, train in (0, 1), together below 1.
    purge : int
        Longest label, bars: :func:`label_bars`.
    embargo : int
        Bars: :func:`embargo_bars`.

    Raises
    ------
    DataError
        If a span has no rows left.
    """
    if not (train > 0 and validation >= 0 and train + validation < 1):
        raise ValueError(f"train is {train:g} and validation {validation:g}; both and the rest need a share")
    _check_gap(purge, embargo)
    rows = _span(rows)
    n = rows.stop - rows.start
    first = rows.start + round(n * train)
    last = rows.start + round(n * (train + validation))
    gap = purge + embargo
    if first == last:
        if validation:
            raise DataError(f"split: validation has no rows: {validation:g} of {n} rows is less than one")
        middle = slice(last, last)
    else:
        middle = slice(first, last - gap)
        if middle.stop <= first:
            raise DataError(
                f"split: validation has {last - first} rows, all of them within the {gap} rows of purge and "
                f"embargo before the test; it takes more bars or a smaller gap"
            )
    return Split(
        slice(rows.start, max(rows.start, first - gap)), middle, slice(last, rows.stop), purge, embargo
    )


def folds(rows: int | slice, k: int) -> tuple[slice, ...]:
    """Return k contiguous spans of time that cover the rows; their lengths differ by at most one.

    Raises
    ------
    DataError
        If there are fewer than k rows.
    """
    rows = _span(rows)
    n = rows.stop - rows.start
    if k < 1:
        raise ValueError(f"k is {k}; there must be at least 1 fold")
    if n < k:
        raise DataError(f"folds: {n} rows cannot be cut into {k} folds of at least one row")
    edges = [rows.start + i * n // k for i in range(k + 1)]
    return tuple(slice(a, b) for a, b in pairwise(edges))


def purged_train(
    time: np.ndarray, known_at: np.ndarray, train: slice | None, test: slice, embargo: int = 0
) -> np.ndarray:
    """Return the training rows that a test span in their midst leaves honest (purged k-fold).

    A row trains if its label interval ``[time, known_at]`` does not meet the interval of the test,
    from the first test row to the end of the last test label. After that end a further ``embargo`` rows
    are dropped; before the test the embargo has no work, since those rows were over when it began.

    Parameters
    ----------
    time : int64 (n,)
        Close of each row, ns UTC, increasing.
    known_at : int64 (n,) or (n, h)
        When each label (of each horizon) became known, ns UTC; a label never known is the largest int64.
    train : slice or None
        Rows to choose from; None for all.
    test : slice
        At least one row.
    embargo : int
        Bars.

    Returns
    -------
    int64 (m,)
        Row numbers, increasing; not contiguous when training lies on both sides.

    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", sections 7.4.1 and 7.4.2.
    """
    _check_gap(0, embargo)
    known = _known(time, known_at)
    n = len(known)
    train = slice(0, n) if train is None else train
    if not 0 <= test.start < test.stop <= n:
        raise ValueError(f"test is {test}; it must hold at least one of {n} rows")
    end = max(int(known[test].max()), int(time[test.stop - 1]))
    after = int(np.searchsorted(time, end, side="right"))  # first row that begins after the last test label
    rows = np.arange(train.start, train.stop)
    before = (rows < test.start) & (known[rows] < time[test.start])
    return rows[before | (rows >= after + embargo)]


def walk_forward(
    time: np.ndarray,
    span: Literal["month", "quarter", "year"] = "quarter",
    train_spans: int = 8,
    validation_spans: int = 0,
    expanding: bool = True,
    purge: int = 0,
    embargo: int = 0,
    known_at: np.ndarray | None = None,
) -> tuple[Split, ...]:
    """Return one split per calendar span, each tested on a span and trained on what lies before it.

    A bar belongs to the span in which it ends; the bar that closes at midnight of 1 April is the last of
    the first quarter. The tests join without gap or overlap, the last may be an unfinished span.

    Parameters
    ----------
    time : int64 (n,)
        Close of each bar, ns UTC, increasing.
    span : str
        month, quarter or year: length of one test.
    train_spans : int
        Full spans of training before the first test (and in every rolling window), at least 1.
    validation_spans : int
        Spans between training and test.
    expanding : bool
        True: training starts at row 0. False: it rolls, ``train_spans`` long.
    purge : int
        Bars, when ``known_at`` is not given.
    embargo : int
        Bars left unused in front of validation and test, beyond the purge.
    known_at : int64 (n,) or (n, h), optional
        When each label became known, ns UTC. Training then ends before the first row whose label
        reaches into the embargo (without one: the first row of the next span), so that the embargo lies
        between the last label and that row; ``Split.purge`` says how many rows that cost.

    Raises
    ------
    DataError
        If there are too few bars for one fold, or a fold loses all its training rows.
    """
    if span not in ("month", "quarter", "year"):
        raise ValueError(f"span is {span!r}; it must be month, quarter or year")
    if train_spans < 1 or validation_spans < 0:
        raise ValueError(f"{train_spans} training and {validation_spans} validation spans; at least 1 and 0")
    _check_gap(purge, embargo)
    time, known = _clock(time, known_at, purge)
    if time.size < 2:
        raise DataError(f"walk-forward: {time.size} bars are too few for a fold")
    spans = _calendar(time, span)
    first = int(_calendar(time[:1] - int(np.diff(time).min()), span)[0]) + 1  # the first span that is whole
    splits = []
    for number in np.unique(spans).tolist():
        if number - validation_spans - train_spans < first:
            continue
        edges = [number - validation_spans - train_spans, number - validation_spans, number, number + 1]
        start, judged, test, stop = np.searchsorted(spans, edges).tolist()
        start = 0 if expanding else start
        validated = validation_spans > 0
        splits.append(_purged(time, known, (start, judged, test, stop), validated, purge, embargo))
    if not splits:
        raise DataError(
            f"walk-forward: bars from {utc(time[0])} to {utc(time[-1])} give no fold; a test {span} needs "
            f"{train_spans + validation_spans} whole {span}s before it"
        )
    return tuple(splits)


def window_lengths(window: int, shares: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return how many rows of a window train, validate and test; together they are the window.

    Its two inner edges are rounded to whole rows, as in :func:`holdout`.

    Parameters
    ----------
    window : int
        Bars.
    shares : tuple of float (3,)
        Of training, validation and test, together 1; without validation its share is 0.

    Raises
    ------
    ValueError
        If the shares are no shares, or one of them is less than a row.
    """
    text = ", ".join(f"{share:g}" for share in shares)
    train, validation, test = shares
    if not (train > 0 and validation >= 0 and test > 0 and abs(train + validation + test - 1) < 1e-9):
        raise ValueError(
            f"shares are {text}; training and test need one above 0, and together they must be 1"
        )
    first, last = round(window * train), round(window * (train + validation))
    lengths = (first, last - first, window - last)
    for name, length, share in zip(("training", "validation", "test"), lengths, shares, strict=True):
        if share and length < 1:
            raise ValueError(f"{name} has no rows: {share:g} of a window of {window} bars is less than one")
    return lengths


def windows(
    time: np.ndarray,
    window: int,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    expanding: bool = True,
    purge: int = 0,
    embargo: int = 0,
    known_at: np.ndarray | None = None,
) -> tuple[Split, ...]:
    """Return one split per window of so many bars, cut by shares; the calendar plays no part.

    The first window begins at row 0, each further one a test length later, so the tests join without gap
    or overlap. The last test may be unfinished. Ten bars, ``windows(time, 7, (3/7, 2/7, 2/7), False)``::

        row   0  1  2  3  4  5  6  7  8  9
              train    valid test
                    train    valid test
                          train    valid te (unfinished)

    Purge and embargo are taken from the end of training, and from the end of validation.

    Parameters
    ----------
    time : int64 (n,)
        Close of each bar, ns UTC, increasing.
    window : int
        Length of a window, bars.
    shares : tuple of float (3,)
        Of a window for training, validation and test, together 1; see :func:`window_lengths`.
    expanding : bool
        True: training starts at row 0. False: with its window.
    purge, embargo, known_at
        As in :func:`walk_forward`.

    Raises
    ------
    DataError
        If there are too few bars for one fold, or a fold loses all its training or validation rows.

    Source: Pardo (2008), "The Evaluation and Optimization of Trading Strategies", 2nd edition, chapter 11,
    walk-forward windows that move by the length of their test; with a share to choose on in between.
    """
    train, validation, test = window_lengths(window, shares)
    _check_gap(purge, embargo)
    time, known = _clock(time, known_at, purge)
    before = train + validation
    if time.size <= before:
        raise DataError(
            f"windows: {time.size} bars give no fold; of a window of {window} bars {before} lie before its "
            f"test, and at least one must follow"
        )
    splits = []
    for first in range(0, time.size - before, test):
        edges = (
            0 if expanding else first, first + train, first + before, min(first + window, time.size),
        )  # fmt: skip
        splits.append(_purged(time, known, edges, validation > 0, purge, embargo))
    return tuple(splits)


def rolling_origin(
    time: np.ndarray,
    train: int,
    every: int,
    first: int | None = None,
    expanding: bool = True,
    purge: int = 0,
    embargo: int = 0,
    known_at: np.ndarray | None = None,
) -> tuple[Split, ...]:
    """Return one split per so many bars: each is tested on them, and trained on what lies before.

    The first test begins at row ``train``; the tests join to the end, the last may be unfinished.

    Parameters
    ----------
    time : int64 (n,)
        Close of each bar, ns UTC, increasing.
    train : int
        Rows before the first test, at least 1.
    every : int
        Length of a test, bars, at least 1.
    first : int, optional
        Length of the first test, bars; by default as long as all.
    expanding : bool
        True: training starts at row 0. False: it rolls, ``train`` bars long.
    purge, embargo, known_at
        As in :func:`walk_forward`.

    Raises
    ------
    DataError
        If there are too few bars for one fold, or a fold loses all its training rows.

    Source: Tashman (2000), "Out-of-sample tests of forecasting accuracy", International Journal of
    Forecasting 16, evaluation over rolling origins, with updated and with rolling windows.
    """
    first = every if first is None else first
    if min(train, every, first) < 1:
        raise ValueError(f"train is {train}, every {every} and first {first}; each must be at least 1 bar")
    _check_gap(purge, embargo)
    time, known = _clock(time, known_at, purge)
    if time.size <= train:
        raise DataError(
            f"rolling origin: {time.size} bars give no fold; {train} of them train, and at least one must "
            f"follow"
        )
    edges = [train, *range(train + first, time.size, every), time.size]
    return tuple(
        _purged(time, known, (0 if expanding else test - train, test, test, stop), False, purge, embargo)
        for test, stop in pairwise(edges)
    )


def label_bars(time: np.ndarray, known_at: np.ndarray) -> int:
    """Return the length of the longest label in bars: the purge that suits every split.

    A label known at ``time[t + h]`` is h bars long. Parameters as in :func:`purged_train`.
    """
    known = _known(time, known_at)
    if known.size == 0:
        return 0
    return int(np.max(np.searchsorted(time, known, side="left") - np.arange(known.size)))


def embargo_bars(interval_ns: int, label: int, memory: int) -> int:
    """Return the embargo of the house: the longest of label, feature memory and one day, in bars.

    Parameters
    ----------
    interval_ns : int
        Length of a bar, ns.
    label : int
        Longest label, bars.
    memory : int
        Longest memory of a feature, bars.
    """
    return max(label, memory, -(-NS_PER_DAY // interval_ns))


def _before(
    time: np.ndarray, known: np.ndarray | None, start: int, boundary: int, purge: int, embargo: int
) -> tuple[slice, int]:
    # Rows from start to a boundary that leave the embargo free of rows and of the labels of rows, and what
    # the labels cost. "Free of" includes a label that becomes known with the first row of the embargo.
    last = max(boundary - embargo, start)
    if known is not None:
        reaching = known[start:last] >= time[last]
        purge = last - start - int(np.argmax(reaching)) if reaching.any() else 0
    return slice(start, last - purge), purge


def _clock(time: np.ndarray, known_at: np.ndarray | None, purge: int) -> tuple[np.ndarray, np.ndarray | None]:
    # Times, and when the last label of each row is known; the purge is given by a number or by these.
    if known_at is not None and purge:
        raise ValueError("purge follows from known_at; give one of them")
    time = np.asarray(time, dtype=np.int64)
    return time, None if known_at is None else _known(time, known_at)


def _purged(
    time: np.ndarray,
    known: np.ndarray | None,
    edges: tuple[int, int, int, int],
    validated: bool,
    purge: int,
    embargo: int,
) -> Split:
    # One fold of a walk from its edges: where training starts, what follows it, the test, and its end.
    start, judged, test, stop = edges
    train, cost = _before(time, known, start, judged, purge, embargo)
    validation = slice(test, test)
    if validated:
        validation, late = _before(time, known, judged, test, purge, embargo)
        if validation.stop <= judged:
            raise DataError(
                f"walk-forward: no validation rows are left before {utc(time[test])} with a purge of "
                f"{late} and an embargo of {embargo} bars; it takes a longer span or a smaller gap"
            )
    if train.stop <= start:
        raise DataError(
            f"walk-forward: no training rows are left before {utc(time[judged])} with a purge of {cost} "
            f"and an embargo of {embargo} bars; it takes a longer training or a smaller gap"
        )
    return Split(train, validation, slice(test, stop), cost, embargo)


def _calendar(time: np.ndarray, span: str) -> np.ndarray:
    # Number of the calendar span each bar ends in; a close on the boundary belongs to the span before.
    months = (time - 1).astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
    return months // {"month": 1, "quarter": 3, "year": 12}[span]


def _known(time: np.ndarray, known_at: np.ndarray) -> np.ndarray:
    known = np.asarray(known_at)
    if known.dtype != np.int64 or known.ndim not in (1, 2) or len(known) != len(time):
        raise ValueError(f"known_at is {known.dtype} {known.shape}; it must be int64 with {len(time)} rows")
    known = known if known.ndim == 1 else known.max(axis=1)
    early = known < time
    if early.any():
        row = int(np.argmax(early))
        raise DataError(
            f"labels: row {row} at {utc(time[row])} has a label known at {utc(known[row])}; a label is "
            f"known at its row or later"
        )
    return known


def _span(rows: int | slice) -> slice:
    rows = rows if isinstance(rows, slice) else slice(0, int(rows))
    if None in (rows.start, rows.stop) or rows.step is not None or not 0 <= rows.start <= rows.stop:
        raise ValueError(f"rows is {rows}; it must be start:stop with 0 <= start <= stop")
    return rows


def _check_gap(purge: int, embargo: int) -> None:
    if purge < 0 or embargo < 0:
        raise ValueError(f"purge is {purge} and embargo {embargo} bars; neither can be negative")

"""How much each label counts: uniqueness, attributed return, age; the sequential bootstrap; a summary.

Labels that look ahead overlap. With a horizon of 24 bars some 24 labels read every bar, so 24,000 rows hold
about as much as 1,000 independent ones; a model that is not told believes far too much of what it sees.

The label of row t reads the bars t+1 to ``end``. The *concurrency* of a bar is the number of labels that
read it, the *uniqueness* of a label the mean of 1 / concurrency over its bars.

Every function takes ``rows``, the rows that are used (training rows), and counts these alone: weights that
count other rows would tell the training about them. Rows that are not used, or have no label, weigh 0.

Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 4. Like all that reads
labels, this looks ahead.
"""

from dataclasses import dataclass

import numpy as np

from configs.load import ConfigError
from market.bars import Bars
from market.label_kernels import sequential_draws
from market.labels import Labels
from market.table import DataError

#: Rows of a training set: a slice, a mask bool (n,), or row numbers; None for all.
Rows = slice | np.ndarray | None
_ROUNDING = 1e-9


def concurrency(labels: Labels, rows: Rows = None) -> np.ndarray:
    """Return how many labels read each bar: int64 (n,).

    Parameters
    ----------
    labels : Labels
    rows : slice, bool (n,), int (m,) or None
        Labels that count; those that are not known never do.

    Source: Lopez de Prado (2018), snippet 4.1. Two cumulative sums in place of one loop per label.
    """
    return _concurrency(labels, _used(labels, rows))


def uniqueness(labels: Labels, rows: Rows = None) -> np.ndarray:
    """Return the average uniqueness of each label: float64 (n,), in (0, 1]; 0 for rows that are not used.

    Parameters
    ----------
    labels : Labels
    rows : slice, bool (n,), int (m,) or None
        Labels that are used.

    Source: Lopez de Prado (2018), section 4.4 and snippet 4.2.
    """
    used = _used(labels, rows)
    share = 1.0 / np.maximum(_concurrency(labels, used), 1)
    start = np.flatnonzero(used)
    end = labels.end[start]
    total = np.cumsum(share)  # up to and including each bar
    weights = np.zeros(len(labels))
    weights[start] = (total[end] - total[start]) / (end - start)
    return weights


def return_weights(labels: Labels, bars: Bars, rows: Rows = None) -> np.ndarray:
    """Return weights by attributed absolute return: float64 (n,), with mean 1 over the rows that are used.

    Each bar's log return is shared out among the labels that read it; a label weighs the absolute sum of its
    shares. Its first bar counts from the open, where it entered, and its last one to the exit price: a label
    that overlaps with no other weighs its own log return. If no label moved, all weigh the same.

    Parameters
    ----------
    labels : Labels
        Of these bars: of their price, not of bets. For meta-labels give the labels that they were made of.
    bars : Bars
    rows : slice, bool (n,), int (m,) or None
        Labels that are used.

    Raises
    ------
    DataError
        If labels and bars do not belong together.

    Source: Lopez de Prado (2018), section 4.6 and snippet 4.10; his first and last bars count whole.
    """
    _same_clock(labels, bars)
    used = _used(labels, rows)
    start = np.flatnonzero(used)
    end = labels.end[start]
    _check_exits(labels, bars, start)
    share = 1.0 / np.maximum(_concurrency(labels, used), 1)
    log_open, log_close = np.log(bars.column("open")), np.log(bars.column("close"))
    total = np.zeros(len(bars))
    np.cumsum(np.diff(log_close) * share[1:], out=total[1:])
    before_entry = log_open[start + 1] - log_close[start]
    exit_price = log_open[start + 1] + np.log1p(labels.ret[start])
    after_exit = log_close[end] - exit_price
    moved = total[end] - total[start] - before_entry * share[start + 1] - after_exit * share[end]
    weights = np.zeros(len(labels))
    weights[start] = np.abs(moved)
    mean = weights[start].mean() if start.size else 0.0
    if mean > 0.0:
        return weights / mean
    weights[start] = 1.0
    return weights


def time_decay(weights: np.ndarray, oldest: float = 0.5) -> np.ndarray:
    """Return factors by age: float64 (n,), from about ``oldest`` to exactly 1 for the newest used row.

    Age is counted in uniqueness, not in time: a crowd of labels that say the same ages as one.

    Parameters
    ----------
    weights : float64 (n,)
        Uniqueness of each label in the order of time; rows that weigh 0 stay 0.
    oldest : float
        In (-1, 1]. 1: no decay. Between 0 and 1: what the oldest label would keep. Below 0: that share of
        the oldest labels is forgotten altogether.

    Raises
    ------
    ConfigError
        If ``oldest`` is out of bounds.

    Source: Lopez de Prado (2018), section 4.7 and snippet 4.11.
    """
    if not -1.0 < oldest <= 1.0:
        raise ConfigError(f"time decay: the oldest weight is {oldest:g}; it must be above -1, and at most 1")
    weights = np.asarray(weights, dtype=np.float64)
    if not (weights >= 0.0).all():
        raise DataError("time decay: every weight must be a number, and 0 or more")
    age = np.cumsum(weights)
    if age.size == 0 or age[-1] == 0.0:
        return np.zeros(age.size)
    share = age / age[-1]  # in (0, 1]; exactly 1 for the newest
    slope = 1.0 - oldest if oldest >= 0.0 else 1.0 / (1.0 + oldest)
    return np.where(weights > 0.0, np.maximum(1.0 - slope * (1.0 - share), 0.0), 0.0)


def sequential_bootstrap(
    labels: Labels, draws: int, random: np.random.Generator, rows: Rows = None
) -> np.ndarray:
    """Return rows drawn with replacement so that they overlap little: int64 (draws,), in the order drawn.

    Every draw takes a label with probability in proportion to its average uniqueness among the labels drawn
    before it. Members of a bagged ensemble that learn from such samples differ more than those that learn
    from a plain bootstrap.

    Parameters
    ----------
    labels : Labels
    draws : int
        At least 0.
    random : numpy.random.Generator
    rows : slice, bool (n,), int (m,) or None
        Labels to draw from.

    Raises
    ------
    DataError
        If there is no label to draw from.

    Source: Lopez de Prado (2018), section 4.5; see :func:`market.label_kernels.sequential_draws`.
    """
    if draws < 0:
        raise ValueError(f"draws is {draws}; it cannot be negative")
    start = np.flatnonzero(_used(labels, rows))
    if start.size == 0:
        raise DataError(f"{labels.name}: there is no known label among the rows to draw from")
    last = labels.end[start]
    longest = int((last - start).max())
    leaves = 1 << int(start.size - 1).bit_length()
    drawn = np.empty(draws, np.int64)
    sequential_draws(
        start + 1,
        last,
        longest,
        random.random(draws),
        np.zeros(len(labels), np.int64),
        np.zeros(2 * leaves),
        np.zeros(3 * longest),
        drawn,
    )
    return start[drawn]


@dataclass(frozen=True)
class LabelSummary:
    """What a set of labels is worth.

    Parameters
    ----------
    name : str
        Of the labels.
    rows : int
        Rows that were asked for.
    known : int
        Rows that have a label.
    pending : int
        Rows without one that more bars will settle.
    up, none, down : float
        Shares of the values 1, 0 and -1 among the known; NaN without any.
    mean_bars : float
        Bars from the row to the end of its label.
    mean_return : float
        Mean of the returns, a fraction, before costs.
    mean_uniqueness : float
        In (0, 1].
    effective_rows : float
        Sum of the uniqueness: how many labels without overlap would say as much.
    """

    name: str
    rows: int
    known: int
    pending: int
    up: float
    none: float
    down: float
    mean_bars: float
    mean_return: float
    mean_uniqueness: float
    effective_rows: float

    def __str__(self) -> str:
        if not self.known:
            return f"{self.name}: none of {self.rows:,} rows has a label."
        return (
            f"{self.name}: {self.known:,} of {self.rows:,} rows have a label; up {self.up:.1%}, none "
            f"{self.none:.1%}, down {self.down:.1%}. Labels last {self.mean_bars:.1f} bars, with a mean "
            f"uniqueness of {self.mean_uniqueness:.3f}: as much as {self.effective_rows:,.0f} that do not "
            f"overlap."
        )


def summarize(labels: Labels, rows: Rows = None) -> LabelSummary:
    """Return class shares, mean uniqueness and effective sample size of the labels of some rows."""
    asked = _mask(labels, rows)
    used = asked & labels.known
    count = int(used.sum())
    weights = uniqueness(labels, used)
    start = np.flatnonzero(used)

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if count else float("nan")

    return LabelSummary(
        name=labels.name,
        rows=int(asked.sum()),
        known=count,
        pending=int((asked & (labels.settled_at == np.iinfo(np.int64).max)).sum()),
        up=mean(labels.value[start] == 1),
        none=mean(labels.value[start] == 0),
        down=mean(labels.value[start] == -1),
        mean_bars=mean(labels.end[start] - start),
        mean_return=mean(labels.ret[start]),
        mean_uniqueness=mean(weights[start]),
        effective_rows=float(weights.sum()),
    )


def _concurrency(labels: Labels, used: np.ndarray) -> np.ndarray:
    n = len(labels)
    start = np.flatnonzero(used)
    begun = np.bincount(start + 1, minlength=n + 1)
    over = np.bincount(labels.end[start] + 1, minlength=n + 1)
    return np.cumsum(begun - over)[:n]


def _used(labels: Labels, rows: Rows) -> np.ndarray:
    return _mask(labels, rows) & labels.known


def _mask(labels: Labels, rows: Rows) -> np.ndarray:
    mask = np.zeros(len(labels), np.bool_)
    mask[slice(None) if rows is None else rows] = True
    return mask


def _same_clock(labels: Labels, bars: Bars) -> None:
    if not np.array_equal(labels.time, bars.time):
        raise DataError(f"{labels.name}: the labels stand on another clock than {bars.label}")


def _check_exits(labels: Labels, bars: Bars, start: np.ndarray) -> None:
    # An exit that its bar never saw: labels of other bars, or of short bets, whose returns are reversed.
    end = labels.end[start]
    exit_price = bars.column("open")[start + 1] * (1.0 + labels.ret[start])
    outside = (exit_price > bars.column("high")[end] * (1.0 + _ROUNDING)) | (
        exit_price < bars.column("low")[end] * (1.0 - _ROUNDING)
    )
    if outside.any():
        at = int(np.argmax(outside))
        raise DataError(
            f"{labels.name}: the label of row {start[at]} leaves at {exit_price[at]:g}, which the bar of row "
            f"{end[at]} never saw; give labels of the price of {bars.label}, not of bets on it"
        )

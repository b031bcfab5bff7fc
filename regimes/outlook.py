"""What comes next: later regimes, the chance of a switch, the stay that is left; and news of switches.

All of it follows from the chain of regimes in closed form. A belief is not a regime: where the regime in
force is only believed with a probability, every figure here is the mean over what it may be.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from configs.load import ConfigError
from market.table import DataError, Table, utc
from regimes.regime import UNDECIDED, Regime, RegimePath, RegimeProbabilities

PLACE = "outlook"
HORIZONS = (1, 6, 24)
MAX_HORIZON = 100_000  # bars; eleven years of hours, by then only the long-run shares are left
ROW_TOLERANCE = 1e-9
REMAINING = "remaining_bars"


class Outlook:
    """Stage: regime probabilities in, what the chain makes of them out; row t uses row t alone.

    With p the row, C the chain and s its diagonal, the chances to stay one more bar, for every horizon h:

    * ``<regime>_in_<h>``: the regime in force h bars later, ``p C^h``;
    * ``switch_in_<h>``: the regime in force now, whichever it is, is left at least once within h bars,
      ``sum_i p_i (1 - s_i^h)``. That is more than the chance that another one is in force h bars later,
      for a regime may be left and entered again;

    and once:

    * ``remaining_bars``: for how many bars more the most probable regime m lasts unbroken, on average,
      ``p_m s_m / (1 - s_m)``. With the chance ``1 - p_m`` it is not in force, and none of it is left.

    The stay of a chain has no age: how long a regime has lasted says nothing about how long it will. Rows of
    NaN give rows of NaN.

    Parameters
    ----------
    chain : float64 (k, k) or (m, k, k)
        ``chain[i, j]`` = P(regime j at the next bar | regime i at this one), as ``Detector.chain``. Of
        several, each is used from a time of its own on.
    horizons : sequence of int
        Bars ahead, increasing.
    used_from : int64 (m,), optional
        With several chains: when each comes into use, nanoseconds UTC, increasing. Earlier rows are NaN.

    Raises
    ------
    DataError
        If a row of a chain is no distribution, or a regime is never left.
    ConfigError
        If the horizons are not whole, positive and increasing.

    Source: Kemeny and Snell (1960), Finite Markov Chains, chapters 2 and 3.
    """

    warmup = 0

    def __init__(
        self,
        chain: np.ndarray,
        horizons: Sequence[int] = HORIZONS,
        used_from: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.chain = np.array(chain, dtype=np.float64)
        self.chain.flags.writeable = False
        self.horizons = _checked(horizons)
        self.used_from = None if used_from is None else np.array(used_from, dtype=np.int64)
        chains = self.chain if used_from is not None else self.chain[None]
        _check_chains(chains, self.used_from)
        stay = np.diagonal(chains, axis1=1, axis2=2)
        self._expected = stay / (1.0 - stay)
        self._weights = [_weights(one, self.horizons) for one in chains]

    def fresh(self) -> Self:
        """Return the stage, which has no memory."""
        return type(self)(self.chain, self.horizons, self.used_from)

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns that are written for regimes of these names."""
        ahead = (f"{name}_in_{h}" for h in self.horizons for name in names)
        return (*ahead, *(f"switch_in_{h}" for h in self.horizons), REMAINING)

    def update(self, probabilities: RegimeProbabilities) -> Table:
        """Return the outlook of each row, one row per row.

        Raises
        ------
        DataError
            If the chain knows another number of regimes than the probabilities.
        """
        n, k = probabilities.values.shape
        if k != self.chain.shape[-1]:
            raise DataError(
                f"{PLACE}: the chain has {self.chain.shape[-1]} regimes, the probabilities have {k}, "
                f"{', '.join(probabilities.names)}; both must come from one detector"
            )
        names = self.columns(probabilities.names)
        out = np.full((n, len(names)), np.nan)
        for member, rows in self._in_use(probabilities.time):
            belief, weights = probabilities.values[rows], self._weights[member]
            # Summed in a fixed order, so that a row does not depend on how many rows are asked for.
            out[rows, :-1] = sum(belief[:, i : i + 1] * weights[i] for i in range(k))
            best = belief.argmax(axis=1)
            out[rows, -1] = belief[np.arange(len(belief)), best] * self._expected[member, best]
        return Table(probabilities.time, out, names)

    def _in_use(self, time: np.ndarray) -> list[tuple[int, slice]]:
        # Which chain each stretch of rows takes.
        if self.used_from is None or not time.size:
            return [(0, slice(None))]
        first, last = np.searchsorted(self.used_from, time[[0, -1]], side="right") - 1
        members = range(max(first, 0), last + 1)
        edges = [*np.searchsorted(time, self.used_from[members.start : members.stop]), time.size]
        return [(member, slice(edges[i], edges[i + 1])) for i, member in enumerate(members)]


def _weights(chain: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
    # What a unit of belief in each regime adds to the columns, all but the last: (k, horizons * (k + 1)).
    with np.errstate(divide="ignore"):  # the log of a stay that never lasts
        log_stay = np.log(np.diagonal(chain))
    ahead = [np.linalg.matrix_power(chain, h) for h in horizons]
    leave = [-np.expm1(h * log_stay)[:, None] for h in horizons]
    return np.concatenate([*ahead, *leave], axis=1)


def _checked(horizons: Sequence[int]) -> tuple[int, ...]:
    given = tuple(horizons)
    whole = all(isinstance(h, int | np.integer) and not isinstance(h, bool) for h in given)
    if not (
        given and whole and list(given) == sorted(set(given)) and 1 <= given[0] <= given[-1] <= MAX_HORIZON
    ):
        raise ConfigError(
            f"{PLACE}: horizons are {given}; they must be whole bars, increasing, in 1..{MAX_HORIZON}"
        )
    return tuple(int(h) for h in given)


def _check_chains(chains: np.ndarray, used_from: np.ndarray | None) -> None:
    if chains.ndim != 3 or chains.shape[1] != chains.shape[2] or not chains.size:
        raise DataError(
            f"{PLACE}: the chain has shape {chains.shape[-2:]}; it must be a row and a column per regime"
        )
    if used_from is not None and (used_from.shape != chains.shape[:1] or (np.diff(used_from) <= 0).any()):
        raise DataError(
            f"{PLACE}: {used_from.size} times for {len(chains)} chains; there must be one each, increasing"
        )
    wrong = ~((chains >= 0).all(axis=2) & (np.abs(chains.sum(axis=2) - 1) <= ROW_TOLERANCE))
    if wrong.any():
        member, row = np.argwhere(wrong)[0]
        raise DataError(
            f"{PLACE}: row {row} of the chain is {chains[member, row].tolist()}; it must not be negative "
            f"and must sum to 1"
        )
    forever = np.diagonal(chains, axis1=1, axis2=2) >= 1
    if forever.any():
        row = np.argwhere(forever)[0, 1]
        raise DataError(f"{PLACE}: the chain never leaves regime {row}; there must be a way out of each")


class TransitionEvent(NamedTuple):
    """One change of regime, as an alert tells it.

    Attributes
    ----------
    row, time : int
        Row since the stream began, and its time, nanoseconds UTC, bar close.
    before, after : Regime
        The regime that ended and the one that began.
    confidence : float
        Probability of the new one at this row, 0..1; NaN if it is not known.
    dwelt_bars : int
        Rows that the ended regime lasted.
    complete : bool
        Whether its beginning was seen; if not, it lasted at least so long.
    remaining_bars : float
        Expected further bars of the new regime, see :class:`Outlook`; NaN if not known.
    """

    row: int
    time: int
    before: Regime
    after: Regime
    confidence: float
    dwelt_bars: int
    complete: bool
    remaining_bars: float

    def text(self, symbol: str) -> str:
        """Return the event as one line, for example of ``BTC/USDT``."""
        when = f"{utc(self.time)[:16].replace('T', ' ')} UTC"
        sure = "" if np.isnan(self.confidence) else f" ({self.confidence:.0%})".replace("%", " %")
        least = "" if self.complete else "at least "
        line = f"{when}: {symbol} turns {self.after.text}{sure}, after {least}{_bars(self.dwelt_bars)}"
        line = f"{line} of {self.before.text}"
        if np.isnan(self.remaining_bars):
            return line
        left = round(self.remaining_bars)
        return f"{line}; expected to last {_bars(left) if left else 'less than a bar'}"


class TransitionWatch:
    """Tells of changes of regime as rows arrive: at the row where the label changes, and at no other.

    However the rows are cut, the events are the same. A change to or from undecided rows is none, as in
    :meth:`RegimePath.transitions`.
    """

    def __init__(self) -> None:
        self._row = 0
        self._label = UNDECIDED
        self._began = 0
        self._complete = False

    def fresh(self) -> Self:
        """Return a watch that has seen nothing."""
        return type(self)()

    def update(self, path: RegimePath, outlook: Table) -> tuple[TransitionEvent, ...]:
        """Return the events of new rows, in order.

        Parameters
        ----------
        path : RegimePath
            The new rows' labels.
        outlook : Table
            What :class:`Outlook` made of the probabilities of the same rows.

        Raises
        ------
        DataError
            If the two do not stand on the same rows.
        """
        if not np.array_equal(path.time, outlook.time):
            raise DataError(
                f"transition events: the path has {len(path)} rows and the outlook {len(outlook)}, or other "
                f"times; both must be of the same rows"
            )
        if not len(path):
            return ()
        label, remaining, found = path.label, outlook.column(REMAINING), []
        for row in np.flatnonzero(np.diff(label, prepend=np.int8(self._label))):
            before, after = int(label[row - 1]) if row else self._label, int(label[row])
            begins = self._row + int(row)
            if UNDECIDED not in (before, after):
                event = TransitionEvent(
                    begins,
                    int(path.time[row]),
                    Regime(before),
                    Regime(after),
                    float(path.confidence[row]),
                    begins - self._began,
                    self._complete,
                    float(remaining[row]),
                )
                found.append(event)
            self._began, self._complete = begins, before != UNDECIDED
        self._row += len(path)
        self._label = int(label[-1])
        return tuple(found)


def _bars(count: int) -> str:
    return f"{count:,} bar" + ("" if count == 1 else "s")


def events(path: RegimePath, outlook: Table) -> tuple[TransitionEvent, ...]:
    """Return the changes of regime along a whole path; see :meth:`TransitionWatch.update`."""
    return TransitionWatch().update(path, outlook)

"""``inspect``: does a stage look ahead? It runs again on less and on other data; its past must not change.

    from market.leaks import inspect

    def zscore(bars):
        close = bars.column("close")
        return {"zscore": (close - close.mean()) / close.std()}      # the mean of ALL rows

    print(inspect(zscore, bars))

Four routes find what looks ahead:

* **prefix**: the rows after a cut are taken away (guarantee L1);
* **altered future**: they are replaced by NaN, a thousand times themselves, their reverse, another coin (L2);
* **refit**: what was fitted is fitted again on such rows; a filter with leaked parameters is causal itself;
* **stamp**: where nobody can fit again, each answer says what it was ``trained_through``, and must be later
  (L6).

A fifth, **start**, says where the first row matters for longer than the warm-up. That is no leak (an
expanding mean does it) and is told apart.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from compute.seeds import stream
from market.causal import Stage, transform
from market.leak_report import ALTERED, PREFIX, REFIT, REPEAT, STAMP, START, Finding, LeakReport
from market.poisons import POISONS, Futures, Given
from market.table import DataError, Table, utc

#: Column in which a stage may say what each of its answers was trained through, nanoseconds UTC.
THROUGH = "trained_through"
#: Relative difference that a start may leave behind after the warm-up (guarantee L3).
FORGOTTEN = 1e-6
Answers = Mapping[str, np.ndarray]
Run = Callable[[tuple[Given, ...]], Answers]


def inspect(
    stage: Stage | Callable[..., Any] | None,
    *inputs: Given,
    fit: Callable[..., Any] | None = None,
    trained_through: int | np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None,
    first: int = 0,
    delay: int | Mapping[str, int] = 0,
    embargo: int = 0,
    warmup: int | None = None,
    other: Mapping[int, Table] | None = None,
    cuts: int = 50,
    prefixes: int = 200,
    refits: int = 10,
    starts: int = 10,
    poisons: Iterable[str] = tuple(POISONS),
    tolerance: float = 0.0,
    seed: int = 0,
) -> LeakReport:
    """Return what looks ahead in a stage.

    Parameters
    ----------
    stage : Stage or callable
        ``stage(*inputs)`` returns one answer per row of the first input: a Table, a mapping or a data frame
        of columns, or an array. It is run many times, and is given nothing but its inputs: whatever else it
        reads (a file, a frame around it) is beyond inspection. None: what ``fit`` returns.
    *inputs : Table or ExternalSeries
        The first is the clock. Further ones are cut at the same moments, by when their values became known.
    fit : callable, optional
        ``fit(*inputs)`` returns a fitted stage. It is run again on shortened and altered inputs; which rows
        of them teach is its own decision and the question.
    trained_through : int, int64 (n,) or callable, optional
        Stamp of the answers, nanoseconds UTC, or a function of their times. By default what the stage itself
        says: a column, a method ``trained_through(time)``, or ``fitted_until``.
    first : int
        Rows before it are training rows: they stay as they are, and answers to them carry no stamp.
    delay : int or mapping of str to int
        Rows that must lie between an answer and what it was made of: 0 for what is decided at the close of
        its row; 1 for what acts inside its row, a stop or a size, and so must be known at the close before.
    embargo : int
        Bars that must lie between what was trained through and the answer.
    warmup : int, optional
        Rows after which the start must be forgotten; by default the stage's own, and else nothing is asked.
    other : mapping of int to Table, optional
        By position of an input, the market that ``other coin`` goes on with.
    cuts, prefixes, refits, starts : int
        Random rows at which the future is altered (once per poison), cut off, altered or cut off under a
        fit, and at which the stage begins late.
    poisons : iterable of str
        Names of :data:`market.poisons.POISONS`.
    tolerance : float
        Relative difference that counts as none. 0: a sound stage computes the same bits again.
    seed : int
        Of the random rows; the same seed gives the same report.

    Notes
    -----
    A cut shows only what reads across it. A leak that touches a few rows (a repaired outage, a single event)
    needs a cut at just these: ``prefixes=len(bars)`` cuts at each row.

    Raises
    ------
    DataError
        If there are too few rows, the stage does not answer row by row, or nothing could be compared.
    """
    futures = Futures(inputs, other, seed)
    n = len(futures.clock)
    least = max(first - 1, 0)
    if n - 1 - least < 2:
        raise DataError(
            f"leaks: {n} rows, {first} of them for training, leave nothing to cut; give more rows"
        )
    fitted = stage
    if stage is None:
        if fit is None:
            raise DataError("leaks: there is neither a stage nor a fit; give one of them")
        fitted = fit(*inputs)
    trial = _Trial(futures, delay, tolerance, tuple(poisons))

    def draw(name: str, count: int, low: int, high: int) -> list[int]:
        # Both ends are always among them: a leak of one row may show at one place alone.
        pool = np.arange(low, high)
        chosen = stream(seed, "leaks", name).choice(pool, min(count, pool.size), replace=False).tolist()
        return sorted({low, high - 1, *chosen}) if count else []

    def run(given: tuple[Given, ...]) -> Answers:
        return _answers(fitted, given)

    whole = run(inputs)
    trial.columns = tuple(whole)
    for name in delay if isinstance(delay, Mapping) else ():
        if name not in whole:
            raise DataError(f"leaks: delay names {name}; the columns are {', '.join(whole)}")
    how = "it ran again on the same rows: nothing can be proved of it"
    trial.compare(whole, run(inputs), n - 1, REPEAT, how)
    trial.shorten(run, whole, draw(PREFIX, prefixes, least, n - 1), PREFIX)
    trial.alter(run, whole, draw(ALTERED, cuts, least, n - 1), ALTERED)
    if fit is not None:

        def again(given: tuple[Given, ...]) -> Answers:
            return _answers(fit(*given), given)

        refitted = again(inputs)
        if stage is None:
            how = "it was fitted again on the same rows: nothing can be proved of it"
            trial.compare(whole, refitted, n - 1, REPEAT, how)
        places = draw(REFIT, refits, least, n - 1)
        trial.shorten(again, refitted, places, REFIT)
        trial.alter(again, refitted, places, REFIT)
    trial.stamps(whole, _stamp(fitted, trained_through, whole, futures.clock), first, embargo)
    memory = getattr(fitted, "warmup", None) if warmup is None else warmup
    if memory is not None and starts:
        room = max(2, (n - int(memory)) // 2)
        trial.begin_late(
            run, whole, draw(START, starts, 1, room), int(memory), getattr(fitted, "warmups", {})
        )
    return trial.report()


class _Trial:
    """What is compared with what, and the earliest difference of each column by each route."""

    def __init__(
        self, futures: Futures, delay: int | Mapping[str, int], tolerance: float, poisons: tuple[str, ...]
    ) -> None:
        self.futures, self.delay, self.tolerance, self.poisons = futures, delay, tolerance, poisons
        self.columns: tuple[str, ...] = ()
        self._found: dict[tuple[str, str], Finding] = {}
        self._refused: dict[str, int] = {}
        self._reason, self._runs = "", 0
        self._asked, self._heard = False, False

    def shorten(self, run: Run, whole: Answers, cuts: list[int], route: str) -> None:
        for cut in cuts:
            found = self._run(run, self.futures.past(cut), "shortened data")
            if found is not None:
                self.compare(whole, found, cut, route, f"the rows after {cut} were cut off")

    def alter(self, run: Run, whole: Answers, cuts: list[int], route: str) -> None:
        for cut in cuts:
            for poison in self.poisons:
                given = self.futures.altered(cut, poison)
                if given is None:
                    continue
                found = self._run(run, given, f"a future that is {POISONS[poison]}")
                if found is not None:
                    self.compare(whole, found, cut, route, f"the rows after {cut} were {POISONS[poison]}")
                    self._asked = True
                    self._heard = self._heard or any(
                        name not in found or _differ(values, found[name], 0.0).any()
                        for name, values in whole.items()
                    )

    def begin_late(
        self, run: Run, whole: Answers, offsets: list[int], warmup: int, warmups: Mapping[str, int]
    ) -> None:
        for offset in offsets:
            found = self._run(run, self.futures.begun_at(offset), "data that begin later")
            for name, values in (found or {}).items():
                if name not in whole or name == THROUGH:
                    continue
                behind = warmups.get(name, warmup)
                a = whole[name][offset + behind :].astype(np.float64)
                b = values[behind:].astype(np.float64)
                if not a.size:
                    continue
                usual = np.nanmedian(np.abs(a)) if (~np.isnan(a)).any() else 0.0
                size = np.maximum(np.maximum(np.abs(a), np.abs(b)), usual)
                wrong = ~((np.abs(a - b) <= FORGOTTEN * size) | (a == b) | (np.isnan(a) & np.isnan(b)))
                how = f"it began at row {offset}, after a warm-up of {behind} rows"
                self._keep(START, name, wrong, a, b, offset + behind, offset, how)

    def compare(self, whole: Answers, found: Answers, cut: int, route: str, how: str) -> None:
        """Compare everything that had to be known at a cut."""
        for name, values in whole.items():
            delay = self.delay if isinstance(self.delay, int) else self.delay.get(name, 0)
            stop = cut + 1 + delay
            if name not in found:
                # A column that was chosen by what comes later is gone when that is another.
                gone = np.full(values.shape, np.nan)
                self._keep(route, name, np.ones(stop, bool)[: values.size], values, gone, 0, cut, how)
                continue
            a, b = values[:stop], found[name][:stop]
            a = a[: b.size]
            self._keep(route, name, _differ(a, b, self.tolerance), a, b, 0, cut, how, delay)

    def stamps(self, whole: Answers, through: np.ndarray | None, first: int, embargo: int) -> None:
        """Check that every answer is later than what it was trained through, by more than the embargo."""
        if through is None:
            return
        clock = self.futures.clock
        last = np.searchsorted(clock, through, side="right") - 1
        early = np.arange(clock.size) - last <= embargo
        early[:first] = False
        for name, values in whole.items():
            wrong = early & ~np.isnan(values.astype(np.float64)) & (name != THROUGH)
            if wrong.any():
                row = int(np.argmax(wrong))
                how = (
                    f"it was answered by what was trained through {utc(through[row])}, row {last[row]}; "
                    f"{embargo} bars at least must lie between"
                )
                self._keep(STAMP, name, wrong, values, values, 0, int(last[row]), how)

    def report(self) -> LeakReport:
        if not self._runs:
            raise DataError(
                f"leaks: the stage ended in an error on everything but the whole data: {self._reason}"
            )
        found = sorted(self._found.values(), key=lambda one: (one.row, one.column, one.route))
        return LeakReport(
            tuple(one for one in found if one.route != START),
            tuple(one for one in found if one.route == START),
            self.columns,
            self.futures.clock.size,
            self._runs,
            dict(self._refused),
            self._reason,
            self._asked and not self._heard,
        )

    def _run(self, run: Run, given: tuple[Given, ...], what: str) -> Answers | None:
        try:
            # What is wrong with such data is not what the user is to hear of.
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = run(given)
        except Exception as error:
            self._refused[what] = self._refused.get(what, 0) + 1
            self._reason = self._reason or f"{type(error).__name__}: {error}"
            return None
        self._runs += 1
        return found

    def _keep(
        self, route: str, column: str, wrong: np.ndarray, before: np.ndarray, after: np.ndarray,
        offset: int, cut: int, how: str, delay: int = 0,
    ) -> None:  # fmt: skip
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        a, b = before[: wrong.size].astype(np.float64)[wrong], after[: wrong.size].astype(np.float64)[wrong]
        gaps = np.abs(a - b)
        gaps = gaps[np.isfinite(gaps)]
        largest = float(gaps.max()) if gaps.size else np.inf
        reach = cut + 1 + delay - row if route in (PREFIX, ALTERED, REFIT) else 0
        new = Finding(
            route, column, offset + row, int(self.futures.clock[offset + row]), cut, how, float(a[0]),
            float(b[0]), largest, reach,
        )  # fmt: skip
        known = self._found.get((route, column))
        if known is None:
            self._found[route, column] = new
            return
        earliest, sizes = new if new.row < known.row else known, (known.largest, new.largest)
        self._found[route, column] = replace(
            earliest,
            largest=max((one for one in sizes if np.isfinite(one)), default=np.inf),
            reach=max(known.reach, new.reach),
        )


def _differ(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    if a.dtype.kind == b.dtype.kind == "i":
        return a != b
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if tolerance:
        same |= np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b))
    return ~same


def _stamp(
    stage: Any,
    given: int | np.ndarray | Callable[[np.ndarray], np.ndarray] | None,
    whole: Answers,
    clock: np.ndarray,
) -> np.ndarray | None:
    if given is None:
        given = whole.get(THROUGH)
    if given is None:
        given = getattr(stage, THROUGH, None)
    if given is None:
        given = getattr(stage, "fitted_until", None)
    if given is None:
        return None
    found = np.asarray(given(clock) if callable(given) else given)
    if found.dtype.kind not in "iu" or found.shape not in ((), clock.shape):
        raise DataError(
            f"leaks: the stamp is {found.dtype} {found.shape}; it must be int64 nanoseconds, one, or one "
            f"per row"
        )
    return np.broadcast_to(found.astype(np.int64), clock.shape)


def _answers(stage: Any, given: tuple[Given, ...]) -> Answers:
    output = transform(stage, *given) if hasattr(stage, "update") else stage(*given)
    clock = given[0].time
    found = {name: _plain(values, name) for name, values in _columns(output, "answer", clock.size)}
    if not found:
        raise DataError(
            f"leaks: the stage answered {type(output).__name__} without a column of one value per row"
        )
    for name, values in found.items():
        if values.shape != clock.shape:
            raise DataError(
                f"leaks: {name} has shape {values.shape} for {clock.size} rows; a stage answers each row once"
            )
    return found


def _columns(output: Any, name: str, n: int) -> Iterable[tuple[str, Any]]:
    time = getattr(output, "time", None)
    if isinstance(time, np.ndarray) and time.size != n:
        raise DataError(f"leaks: {n} rows in, {time.size} out; a stage answers each row once")
    if isinstance(output, Table):
        for place, one in enumerate(output.names):
            yield one, output.values[:, place]
    elif isinstance(output, Mapping):
        for one, values in output.items():
            yield from _columns(values, str(one), n)
    elif hasattr(output, "columns") and hasattr(output, "to_numpy"):  # a data frame
        for one in output.columns:
            yield str(one), output[one]
    elif is_dataclass(output):
        for field in fields(output):
            values = getattr(output, field.name)
            if isinstance(values, Table) or (isinstance(values, np.ndarray) and field.name != "time"):
                yield from _columns(values, field.name, n)
    else:
        values = np.asarray(output)
        if values.ndim == 2:
            for place in range(values.shape[1]):
                yield f"{name}[{place}]", values[:, place]
        else:
            yield name, values


def _plain(values: Any, name: str) -> np.ndarray:
    # Whole numbers stay whole, for a stamp in nanoseconds has more digits than a float.
    array = np.asarray(values)
    try:
        if array.dtype.kind in "biuM":
            return array.astype(np.int64)
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"leaks: {name} holds {array.dtype}; a stage answers numbers") from None

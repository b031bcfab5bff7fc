"""The tear sheet of a backtest: one HTML page that needs nothing else, its pictures, and the raw figures.

Every number in a table of the page can be had again from ``equity.parquet`` and ``trades.parquet`` beside it
(and from those of the benchmarks), except the chapter of stress tests, which says so.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backtest.breakdown import drawdown_spells, trade_groups
from backtest.sheet import activity, opening, performance, results, stress_tests
from backtest.sheet.subject import STRATEGY, Subject
from backtest.simulate import BacktestResult
from backtest.stress_report import StressReport
from experiments import page
from market.bars import Bars
from market.table import DataError, same_rows

PAGE = "tearsheet.html"
PICTURES = ("equity", "trades", "rolling", "exposure", "costs", "returns", "excursions", "groups")


def write_tearsheet(
    result: BacktestResult,
    folder: Path,
    *,
    title: str,
    sample: str | None = None,
    bars: Bars | None = None,
    labels: np.ndarray | None = None,
    regime_names: Mapping[int, str] | None = None,
    benchmarks: Mapping[str, BacktestResult] | None = None,
    stress: StressReport | None = None,
) -> Path:
    """Write the tear sheet of a backtest into a folder, with the files its numbers come from.

    The folder holds afterwards ``tearsheet.html``, the pictures as PNG, ``equity.parquet`` and
    ``trades.parquet`` of the result, and those of each benchmark in ``benchmark-1``, ``benchmark-2``, ...
    Everything is drawn and written aside and then renamed into place, the page last: a failure to draw or
    to write leaves an earlier sheet as it was. The page names the SHA-256 of the files it was made from.

    Parameters
    ----------
    result : BacktestResult
    folder : Path
        Made if missing; other files in it are left alone.
    title : str
    sample : str, optional
        What the bars were to the strategy, for example ``in-sample`` or ``out-of-sample``; printed large.
    bars : Bars, optional
        For symbol, timeframe and the picture of the price; may be longer than the result's rows.
    labels : int8 (n,), optional
        Causal regime of each of the ``bars``, for shading.
    regime_names : mapping of int to str, optional
        Names of the regimes, as noted on trades and in ``labels``.
    benchmarks : mapping of str to BacktestResult, optional
        On the same clock, by name; buy and hold after the same costs comes first. The sheet cannot make one
        itself: costs and limits are the caller's.
    stress : StressReport, optional

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    DataError
        If a benchmark or the bars do not share the result's clock, labels do not belong to the bars, or the
        folder cannot be written.
    """
    subject = Subject(result, sample, bars, labels, dict(regime_names or {}), dict(benchmarks or {}), stress)
    subject = _checked(subject)
    folder = Path(folder)
    with _draft(folder) as draft:
        result.save(draft)
        for i, benchmark in enumerate(subject.benchmarks.values(), 1):
            benchmark.save(draft / f"benchmark-{i}")
        pictures = _draw(subject, draft, title)
        (draft / PAGE).write_bytes(_page(subject, draft, title, pictures))
        _put_in_place(draft, folder)
    return folder / PAGE


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    # Inside the folder, so that renaming does not cross file systems.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".tearsheet-", dir=folder))
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the tear sheet cannot be written there ({error.strerror or error})"
        ) from error


def _put_in_place(draft: Path, folder: Path) -> None:
    made = {path.relative_to(draft) for path in draft.rglob("*") if path.is_file()}
    for name in sorted(made, key=lambda name: (name == Path(PAGE), name)):
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(draft / name, folder / name)
    # What an earlier sheet left would pass for a part of this one.
    own = [Path(f"{name}.png") for name in PICTURES]
    own += (path.relative_to(folder) for path in folder.glob("benchmark-[0-9]*/*.parquet"))
    for name in set(own) - made:
        (folder / name).unlink(missing_ok=True)
    for left in folder.glob("benchmark-[0-9]*"):
        with suppress(OSError):  # not empty: it holds what is needed, or somebody else's files
            left.rmdir()


def _checked(subject: Subject) -> Subject:
    curve, bars, labels = subject.result.curve, subject.bars, subject.labels
    for name, benchmark in subject.benchmarks.items():
        if name == STRATEGY:
            raise DataError(f"benchmark {name}: that is the name of the result itself; give it another")
        try:
            same_rows(curve, benchmark.curve)
        except DataError as error:
            raise DataError(f"benchmark {page.printable(name)}: {error}") from None
    if labels is not None and (bars is None or np.shape(labels) != (len(bars),)):
        rows = "no bars are given" if bars is None else f"there are {len(bars)} bars"
        raise DataError(f"labels have shape {np.shape(labels)} and {rows}; there must be one for each bar")
    if bars is None:
        return subject
    first = int(np.searchsorted(bars.time, curve.time[0])) if len(curve) else 0
    rows = slice(first, first + len(curve))
    if not np.array_equal(bars.time[rows], curve.time):
        raise DataError(
            f"{bars.label}: bars are missing for some of the {len(curve)} rows of the result; give them all"
        )
    labels = np.full(len(curve), -1, np.int8) if labels is None else np.asarray(labels)[rows]
    return replace(subject, bars=bars[rows], labels=labels)


def _draw(subject: Subject, folder: Path, title: str) -> dict[str, tuple[Path, str]]:
    # Pictures by name, with what to say below them; none where there is nothing to see.
    from backtest import figures

    result, trades, everyone = subject.result, subject.result.trades, subject.everyone
    moving = {name: one for name, one in everyone.items() if one.curve.column("net_return").any()}
    several = len(subject.time) > 1
    made = {}

    def draw(
        name: str, needed: bool, caption: str, function: Callable[..., None], *arguments: Any, **keywords: Any
    ) -> None:
        if needed:
            path = folder / f"{name}.png"
            function(*arguments, path, **keywords)
            made[name] = (path, caption)

    shown = {STRATEGY: result} | moving
    spells = drawdown_spells(subject.returns)[: performance.DEEPEST]
    draw(
        "equity", several and bool(moving),
        "Equity over its start on a log scale, and drawdown, after costs. Shaded and numbered, "
        "where there is room: the deepest drawdowns of the table.",
        figures.equity_and_drawdown, shown, title=f"{title}: equity and drawdown", spells=spells,
    )  # fmt: skip
    draw(
        "trades", several and subject.bars is not None,
        "Price with each trade from entry to exit; the shade is the regime as it was known at the time.",
        figures.trades_over_regimes, subject.bars, subject.labels, subject.regimes, result,
        title=f"{title}: trades",
    )  # fmt: skip
    window = subject.window
    back = f"the last {window:,} bars" if window else "no bars"
    draw(
        "rolling", window is not None and bool(moving),
        f"Annual Sharpe ratio and volatility of {back}. No line before the window is full, and no Sharpe "
        "ratio while equity stands still.",
        figures.rolling_risk, shown, window, title=f"{title}: rolling risk",
    )  # fmt: skip
    draw(
        "exposure", window is not None and bool(result.curve.column("turnover").any()),
        f"Exposure at each close, and turnover per year; lines are means of {back}.",
        figures.exposure_and_turnover, result, window, title=f"{title}: exposure and turnover",
    )  # fmt: skip
    draw(
        "costs", several and bool(result.curve.column("turnover").any()),
        "Profit before and after costs, and each cost summed up, as fractions of the capital.",
        figures.costs_over_time, result, title=f"{title}: what the costs took",
    )  # fmt: skip
    draw(
        "returns", np.count_nonzero(subject.returns) > 1,
        "Returns of bars that moved the equity, beside a normal distribution of the same mean and deviation, "
        "and returns of trades. The outermost columns hold everything beyond them.",
        figures.return_distributions, result, title=f"{title}: distribution of returns",
    )  # fmt: skip
    draw(
        "excursions", trades.size > 0,
        "Each dot is a trade. Far left of the dashed line: a trade that recovered from its worst moment. Far "
        "right of it: a profit that was given back.",
        figures.excursions, trades, title=f"{title}: excursions of trades",
    )  # fmt: skip
    draw(
        "groups", trades.size > 0,
        "Net profit of trades by what they have in common; the number of trades in brackets.",
        figures.profit_by_group, trade_groups(trades, subject.regimes), title=f"{title}: profit of trades",
    )  # fmt: skip
    return made


def _page(subject: Subject, folder: Path, title: str, pictures: Mapping[str, tuple[Path, str]]) -> bytes:
    def see(name: str) -> str:
        if name not in pictures:
            return ""
        path, caption = pictures[name]
        return page.picture(path.read_bytes(), caption)

    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
    }
    return page.document(
        title,
        *opening.opening(subject),
        page.chapter("How execution was assumed", page.bullets(subject.result.assumptions, "assumptions")),
        page.chapter("Figures", *results.metrics_table(subject)),
        page.chapter("Equity", see("equity"), *performance.drawdowns(subject)),
        page.chapter("Months and years", *performance.calendar(subject)),
        page.chapter("Returns", see("returns"), *performance.returns(subject), see("rolling")),
        page.chapter("Costs", *activity.costs(subject), see("costs")),
        page.chapter("Exposure", *activity.exposure(subject), see("exposure")),
        page.chapter("Trades", see("trades"), *activity.trades(subject, see)),
        page.chapter("Stress", *stress_tests.stress(subject)),
        page.chapter("Where the numbers come from", *opening.sources(subject, files)),
    )

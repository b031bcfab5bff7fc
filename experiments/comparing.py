"""Two runs side by side: settings, data, metrics, verdicts, genes, and whether their returns differ.

The difference of two equity curves is tested by a paired stationary bootstrap: both accounts are resampled
with the same blocks of rows, so that what the market did to both of them cancels.

Source: Politis and Romano (1994), "The stationary bootstrap", JASA 89(428); Ledoit and Wolf (2008), "Robust
performance hypothesis testing with the Sharpe ratio", J. Empirical Finance 15(5), for the paired test.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from compute.seeds import stream
from experiments.listing import METRICS, cell, table
from experiments.page import UNDEFINED, printable
from experiments.records import IN_SAMPLE, OUT_OF_SAMPLE, Record, entry

EQUITY = "predictions/out_of_sample/equity.parquet"
N_PATHS = 10_000
BLOCK_DAYS = 7  # mean block: long enough to keep the clusters of volatility together
LEAST_BLOCKS = 10  # below, paths are made of so few blocks that they hardly differ
CONFIDENCE = 0.95
DAYS_PER_YEAR = 365.0
_CELLS = 200_000  # blocks of a chunk of paths


@dataclass(frozen=True)
class Difference:
    """A statistic of the second account less that of the first.

    Parameters
    ----------
    first, second, difference : float
        NaN where an account has none.
    low, high : float
        Bootstrap interval of the difference, 95 %.
    p_value : float
        Probability of a difference at least as large, either way, if there were none.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    mean_block: float,
    per_year: float,
    rng: np.random.Generator,
    n_paths: int = N_PATHS,
) -> dict[str, Difference]:
    """Return how two accounts on the same bars differ, with the uncertainty of it.

    Parameters
    ----------
    first, second : float64 (n,)
        Net return of each bar, as fractions above -1.
    mean_block : float
        Mean length of a block, bars, at least 1.
    per_year : float
        Bars per year.
    rng : numpy.random.Generator
    n_paths : int

    Returns
    -------
    dict of str to Difference
        ``growth``: mean log return per year; ``sharpe``: annual Sharpe ratio.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than 2 rows, or a return is not a number above -1.
    """
    pair = np.array([first, second], dtype=np.float64)  # (2, n)
    if pair.ndim != 2 or pair.shape[1] < 2:
        raise ValueError(f"returns have shape {pair.shape[1:]}; both need (n,), two rows at least")
    if not ((pair > -1.0) & (pair < np.inf)).all():
        raise ValueError(
            "a net return is not a number above -1; an account that lost everything has no growth"
        )
    if not 1.0 <= mean_block < math.inf:
        raise ValueError(f"mean_block is {mean_block}; it must be at least 1 bar and finite")
    n = pair.shape[1]
    center = pair.mean(axis=1, keepdims=True)
    logs = np.log1p(pair)
    # Sums of blocks are differences of these running sums; two rounds, because blocks wrap around the end.
    rows = np.concatenate([logs - logs.mean(axis=1, keepdims=True), pair - center, (pair - center) ** 2])
    running = np.zeros((6, 2 * n + 1))
    np.cumsum(np.concatenate([rows, rows], axis=1), axis=1, out=running[:, 1:])

    growth, sharpe = np.empty(n_paths), np.empty(n_paths)
    chunk = max(1, int(_CELLS * mean_block / n))
    for begin in range(0, n_paths, chunk):
        part = slice(begin, min(begin + chunk, n_paths))
        starts, lengths = _blocks(n, mean_block, rng, part.stop - begin)
        sums = (running[:, starts + lengths] - running[:, starts]).sum(axis=-1)  # (6, paths)
        growth[part] = (sums[1] - sums[0]) / n * per_year
        one, two = (_sharpe(sums[2 + i] / n, sums[4 + i], n, center[i, 0], per_year) for i in (0, 1))
        sharpe[part] = two - one
    own = [_sharpe(0.0, rows[4 + i].sum(), n, center[i, 0], per_year) for i in (0, 1)]
    mean = logs.mean(axis=1) * per_year
    # The logs were centered, so these paths are about a difference of zero; the Sharpe ratios are not.
    return {
        "growth": _difference(mean[0], mean[1], growth + (mean[1] - mean[0])),
        "sharpe": _difference(float(own[0]), float(own[1]), sharpe),
    }


def _blocks(
    n: int, mean_block: float, rng: np.random.Generator, n_paths: int
) -> tuple[np.ndarray, np.ndarray]:
    # First rows and lengths of the blocks of each path, int64 (n_paths, k): geometric lengths, the last one
    # cut so that a path has n rows, and blocks of no rows after it.
    expected = n / mean_block
    k = min(n, int(expected + 6.0 * math.sqrt(expected)) + 8)
    lengths = rng.geometric(1.0 / mean_block, (n_paths, k))
    while lengths.sum(axis=1).min() < n:
        lengths = np.concatenate([lengths, rng.geometric(1.0 / mean_block, (n_paths, k))], axis=1)
    before = np.cumsum(lengths, axis=1) - lengths
    lengths = np.clip(n - before, 0, lengths)
    return rng.integers(n, size=lengths.shape), lengths


def _sharpe(mean: Any, squares: Any, n: int, center: float, per_year: float) -> Any:
    # Of rows less `center`: their mean and the sum of their squares. NaN for an account that never moved.
    variance = np.maximum(squares - n * mean * mean, 0.0) / (n - 1)
    deviation = np.sqrt(variance)
    moved = deviation > 1e-12 * abs(center) + 1e-15
    return np.where(moved, (mean + center) / np.where(moved, deviation, 1.0), np.nan) * math.sqrt(per_year)


def _difference(first: float, second: float, paths: np.ndarray) -> Difference:
    found = second - first
    paths = paths[np.isfinite(paths)]  # a path without any trade has no Sharpe ratio
    if not paths.size or not math.isfinite(found):
        return Difference(float(first), float(second), math.nan, math.nan, math.nan, math.nan)
    low, high = np.quantile(paths, [0.5 - CONFIDENCE / 2.0, 0.5 + CONFIDENCE / 2.0])
    # Paths are about the difference found; less it they are about none.
    tolerance = 1e-12 * (1.0 + abs(found))
    beyond = int((np.abs(paths - found) >= abs(found) - tolerance).sum())
    p_value = (1 + beyond) / (1 + paths.size)
    return Difference(float(first), float(second), float(found), float(low), float(high), p_value)


def compare(first: Record, second: Record, seed: int = 7) -> dict[str, Any]:
    """Return two runs side by side as plain objects; undefined numbers are None.

    Parameters
    ----------
    first, second : Record
        Differences are the second less the first.
    seed : int
        Root of the bootstrap's random numbers.
    """
    one, two = first.settings(), second.settings()
    both = first.fingerprints, second.fingerprints
    same = bool(both[0]) and both[0] == both[1] if both[0] or both[1] else None
    test, reason = returns_test(first, second, seed)
    return {
        "runs": [first.run.id, second.run.id],
        "states": [first.state, second.state],
        "problems": [list(first.problems), list(second.problems)],
        "same_data": same,
        "data": list(both),
        "same_code": _same(first, second, "code", "sources"),
        "same_rows": _same(first, second, "rows"),
        "settings": {
            path: [one.get(path), two.get(path)]
            for path in [*one, *(path for path in two if path not in one)]
            if path not in one or path not in two or one[path] != two[path]
        },
        "metrics": {sample: _metrics(first, second, sample) for sample in (IN_SAMPLE, OUT_OF_SAMPLE)},
        "verdicts": [
            {"passed": record.verdict, "sentence": record.report.get("verdict")} for record in (first, second)
        ],
        "genes": _beside(first.genes(), second.genes()),
        "returns": test,
        "returns_reason": reason,
    }


def returns_test(first: Record, second: Record, seed: int = 7) -> tuple[dict[str, Any] | None, str]:
    """Return the paired test of two runs' out-of-sample returns, or None and why there is none."""
    if not first.fingerprints or first.fingerprints != second.fingerprints:
        return None, "their bars are not known to be the same"
    curves = []
    for record in (first, second):
        path = record.run.folder / EQUITY
        if not path.is_file():
            return None, f"{record.run.id} has no {EQUITY}"
        try:
            curves.append(_returns(path))
        except (OSError, ValueError, KeyError) as error:
            return None, f"{EQUITY} of {record.run.id} cannot be read ({error})"
    (time, one), (other, two) = curves
    common, i, j = np.intersect1d(time, other, assume_unique=True, return_indices=True)
    if common.size < 2:
        return None, "they have no out-of-sample rows in common"
    per_year = DAYS_PER_YEAR * 86_400e9 / float(np.median(np.diff(common)))
    mean_block = max(1.0, BLOCK_DAYS * per_year / DAYS_PER_YEAR)
    if common.size < LEAST_BLOCKS * mean_block:
        return None, (
            f"they have {common.size:,} out-of-sample rows in common; blocks of {BLOCK_DAYS} days need "
            f"{math.ceil(LEAST_BLOCKS * mean_block):,}"
        )
    try:
        found = paired_bootstrap(one[i], two[j], mean_block, per_year, stream(seed, "compare"))
    except ValueError as error:
        return None, str(error)
    return {
        "rows": int(common.size),
        "from": _utc(common[0]),
        "until": _utc(common[-1]),
        "mean_block_bars": mean_block,
        "n_paths": N_PATHS,
        "seed": seed,
        **{
            name: {key: _finite(value) for key, value in asdict(difference).items()}
            for name, difference in found.items()
        },
    }, ""


def _returns(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    curve = pq.read_table(path, columns=["time", "net_return"])
    time = curve["time"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    if time.size > 1 and not (np.diff(time) > 0).all():
        raise ValueError("its times do not increase")
    return time, curve["net_return"].to_numpy()


def show(where: Console, found: Mapping[str, Any]) -> None:
    """Print two runs side by side."""
    for mark, run, state in zip("12", found["runs"], found["states"], strict=True):
        where.print(f"{mark}  {run}  {state}", style="bold", soft_wrap=True, markup=False)
    for run, problems in zip(found["runs"], found["problems"], strict=True):
        for problem in problems:
            where.print(f"  {run}: {problem}", style="red", soft_wrap=True, markup=False)
    for what, key in (("data", "same_data"), ("rows", "same_rows"), ("code", "same_code")):
        same = found[key]
        where.print(f"  {what}: {'not known' if same is None else 'the same' if same else 'different'}")
    where.print()
    _print_beside(where, "setting", found["settings"], "No setting differs.")
    grid = table("metric")
    for title in (f"1, {IN_SAMPLE}", "2", "2 less 1", f"1, {OUT_OF_SAMPLE}", "2", "2 less 1"):
        grid.add_column(title, justify="right")
    for key, title, style in METRICS:
        cells = []
        for sample in (IN_SAMPLE, OUT_OF_SAMPLE):
            one, two, difference = found["metrics"][sample].get(key, (None, None, None))
            cells += [_number(one, style), _number(two, style), _number(difference, _signed(style))]
        if any(text != UNDEFINED for text in cells):
            grid.add_row(title, *cells)
    if grid.row_count:
        where.print(grid)
    _print_test(where, found)
    if found["genes"]:
        where.print()
        _print_beside(where, "gene", found["genes"], "No gene differs.")
    for mark, verdict in zip("12", found["verdicts"], strict=True):
        if verdict["sentence"]:
            style = "green" if verdict["passed"] else "red"
            where.print(f"{mark}  {printable(verdict['sentence'])}", style=style, markup=False)


def _print_test(where: Console, found: Mapping[str, Any]) -> None:
    test = found["returns"]
    if test is None:
        where.print(f"Returns are not tested: {found['returns_reason']}.", soft_wrap=True, markup=False)
        return
    where.print(
        f"Returns on the {test['rows']:,} out-of-sample rows that both have, {test['from']} to "
        f"{test['until']} (paired stationary bootstrap, mean block {test['mean_block_bars']:,.0f} bars, "
        f"{test['n_paths']:,} paths):",
        markup=False,
    )
    for name, title in (("growth", "log growth per year"), ("sharpe", "Sharpe")):
        one = test[name]
        if one["difference"] is None:
            where.print(f"  {title}: not defined for both")
            continue
        where.print(
            f"  {title}: {one['first']:.3f} and {one['second']:.3f}, difference {one['difference']:+.3f} "
            f"({CONFIDENCE:.0%} from {one['low']:+.3f} to {one['high']:+.3f}), p = {one['p_value']:.4f}"
        )
    where.print("  Whoever chooses by this has looked at these rows once more.", style="dim")


def _print_beside(where: Console, title: str, pairs: Mapping[str, Any], none: str) -> None:
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if not differ:
        where.print(none)
        return
    grid: Grid = table(title, "1", "2")
    for name, (one, two) in differ.items():
        grid.add_row(cell(name), cell(_plain(one)), cell(_plain(two)))
    where.print(grid)


def _metrics(first: Record, second: Record, sample: str) -> dict[str, list[float | None]]:
    found = {}
    for name, _, _ in METRICS:
        one, two = first.metric(sample, name), second.metric(sample, name)
        if one is not None or two is not None:
            found[name] = [one, two, None if one is None or two is None else two - one]
    return found


def _beside(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [one.get(name), two.get(name)] for name in dict.fromkeys([*one, *two])}


def _same(first: Record, second: Record, *path: str) -> bool | None:
    one, two = entry(first.manifest, *path), entry(second.manifest, *path)
    return None if one is None or two is None else one == two


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(int(ns) / 1e9, UTC).strftime("%Y-%m-%d %H:%M")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None, style: str) -> str:
    return UNDEFINED if value is None else style.format(value)


def _signed(style: str) -> str:
    return style if "+" in style else style.replace("{:", "{:+")


def _plain(value: Any) -> str:
    return UNDEFINED if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

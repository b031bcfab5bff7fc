"""From a table of runs to a comparison: everybody against the reference, the subject against everybody.

A row is one run. What must be in it is in ``COLUMNS``; what else is read where it is there, in ``FURTHER``.
Runs are paired by problem, instance and seed, so a contestant that lacks one of them, or ran it twice, is
refused: runs left out are how a comparison goes wrong without anybody noticing. A run without a result (NaN)
is counted, and takes the worst result that anybody had on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conductor import race_statistics as statistics
from conductor.race_statistics import LEAST_RUNS, TARGETS, Clusters, Estimate
from market.table import DataError
from regimes.regime import Regime

#: Columns of every table of runs; the last four are numbers.
COLUMNS = (
    "contestant", "suite", "problem", "cluster", "instance", "seed",
    "anytime", "final", "evaluations", "budget",
)  # fmt: skip
#: Numbers that add figures where they are there. ``in_sample`` and ``out_of_sample`` are net annual Sharpe
#: ratios of the champion, on the window it was searched on and on the one that follows.
FURTHER = (
    "error_10", "error_30", "error_100", "unique_evaluations", "invalid_evaluations", "regime",
    "in_sample", "out_of_sample",
)  # fmt: skip
#: Evaluations at which each of ``race_statistics.TARGETS`` was first reached, NaN if never.
TARGET_COLUMNS = tuple(f"target_{i:02d}" for i in range(len(TARGETS)))
#: log10 error of the best so far, a list per run; and the evaluations that belong to it, equal shares of the
#: budget where there is no such column.
CURVE, CURVE_EVALUATIONS = "curve", "curve_evaluations"
#: The two errors that contestants are judged by.
METRICS = {"final": "final error", "anytime": "anytime error"}
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"

Rows = pa.Table | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Race:
    """The runs of one suite, paired: ``k`` contestants, ``n`` pairs.

    Parameters
    ----------
    suite : str
    contestants : tuple of k str
        In the order in which they appear in the table.
    problems : int64 (n,)
        Which pairs are of one problem, numbered from 0.
    cluster_names : tuple of C str
    clusters : Clusters
        Of the pairs.
    values : dict of str to float64 (k, n)
        Numeric columns by name.
    curves : float64 (k, n, m), or None
        log10 error of the best so far.
    at : float64 (k, n, m), or None
        Evaluations at each point of the curves.
    hits : float64 (k, n, 51), or None
        Evaluations at which each of ``TARGETS`` was first reached, NaN if never.
    failures : int64 (k,)
        Runs without a result.
    """

    suite: str
    contestants: tuple[str, ...]
    problems: np.ndarray
    cluster_names: tuple[str, ...]
    clusters: Clusters
    values: dict[str, np.ndarray]
    curves: np.ndarray | None
    at: np.ndarray | None
    hits: np.ndarray | None
    failures: np.ndarray

    @classmethod
    def of(cls, table: Rows, suite: str | None = None) -> Self:
        """Return the race of one suite in a table.

        Parameters
        ----------
        table : pyarrow.Table, or mapping of str to array
        suite : str, optional
            May be left out where there is only one.

        Raises
        ------
        DataError
            If a column or a run is missing, a run is there twice, or nobody has a result for a pair.
        """
        table = checked(table)
        names = suites(table)
        if suite is None and len(names) == 1:
            suite = names[0]
        if suite not in names:
            raise DataError(f"race table: suite is {suite!r}; it must be one of: {', '.join(names)}")
        rows = np.flatnonzero(np.asarray(table["suite"].to_pylist()) == suite)
        table = table.take(pa.array(rows))
        contestants, order, pairs = _paired(table)
        k, n = len(contestants), len(order) // len(contestants)
        table = table.take(pa.array(order))

        def column(name: str) -> np.ndarray:
            return table[name].to_numpy(zero_copy_only=False).astype(np.float64).reshape(k, n)

        present = set(table.column_names)
        numbers = [*COLUMNS[-4:], *(name for name in FURTHER if name in present)]
        values = {name: column(name) for name in numbers}
        values = {name: one for name, one in values.items() if name in COLUMNS or np.isfinite(one).any()}
        lacking = ~np.isfinite(values["final"]) | ~np.isfinite(values["anytime"])
        if lacking.all(axis=0).any():
            where = pairs[int(np.argmax(lacking.all(axis=0)))]
            raise DataError(f"race table: nobody has a result on {_said(where)} at least one contestant must")
        for name in METRICS:
            worst = np.where(lacking, -np.inf, values[name]).max(axis=0)
            values[name] = np.where(lacking, worst, values[name])
        spent = values["evaluations"]
        values["evaluations"] = np.where(np.isfinite(spent), spent, values["budget"])
        problem_of = _codes([f"{problem}\0{instance}" for problem, instance, _ in pairs])[0]
        codes, cluster_names = _codes([str(name) for name in table["cluster"].to_pylist()[:n]])
        first = codes[np.unique(problem_of, return_index=True)[1]][problem_of]
        if (astray := np.flatnonzero(first != codes)).size:
            p = int(astray[0])
            raise DataError(
                f"race table: {pairs[p][0]}, instance {pairs[p][1]}, lies in clusters "
                f"{cluster_names[first[p]]} and {cluster_names[codes[p]]}; a problem must lie in one"
            )
        hits = None
        if present.issuperset(TARGET_COLUMNS):
            hits = np.stack([column(name) for name in TARGET_COLUMNS], axis=2)
        curves, at = _curves(table, values, k, n)
        return cls(
            suite, contestants, problem_of, cluster_names, Clusters(codes), values, curves, at, hits,
            lacking.sum(axis=1),
        )  # fmt: skip

    def position(self, contestant: str) -> int:
        """Return the position of a contestant; :class:`DataError` if it did not run."""
        if contestant not in self.contestants:
            raise DataError(
                f"race table: {contestant!r} did not run in suite {self.suite}; "
                f"contestants are: {', '.join(self.contestants)}"
            )
        return self.contestants.index(contestant)

    def differences(self, contestant: str, other: str, metric: str) -> np.ndarray:
        """Return how many decades a contestant lies above another in each pair, float64 (n,)."""
        values = self.values[metric]
        return values[self.position(contestant)] - values[self.position(other)]

    def on_clusters(self, metric: str) -> np.ndarray:
        """Return the mean of each contestant on each cluster, float64 (k, C)."""
        return self.clusters.means(self.values[metric])


def suites(table: Rows) -> tuple[str, ...]:
    """Return the suites of a table in their order; :class:`DataError` if a column is missing."""
    table = checked(table)
    return tuple(dict.fromkeys(table["suite"].to_pylist()))


def read(path: Path) -> pa.Table:
    """Return the table of runs in a Parquet file; :class:`DataError` if it is none."""
    try:
        return checked(pq.read_table(path))
    except (OSError, pa.ArrowInvalid) as problem:
        raise DataError(f"{path}: cannot be read as a table of runs ({problem})") from None


def compare(race: Race, subject: str, reference: str) -> dict[str, Any]:
    """Return all figures of a race, as plain objects and :class:`Estimate`.

    Parameters
    ----------
    race : Race
    subject : str
        Who is to be judged.
    reference : str
        What it is judged against; it may be the subject's equal, never itself.

    Returns
    -------
    dict
        ``size`` (counts), ``contestants`` (figures of each alone), ``against_reference`` and
        ``subject_against`` (paired, by the name of the other), ``ranking`` (by metric), ``by_regime``
        (everybody against the reference, where there are regimes), ``by_cluster`` (the subject against the
        reference) and ``verdict`` (by metric: better, worse or undecided).
    """
    if subject == reference:
        raise DataError(f"race table: {subject!r} is compared with itself; name another reference")
    for name in (subject, reference):
        race.position(name)
    others = [name for name in race.contestants if name != reference]
    rivals = [name for name in race.contestants if name != subject]
    against = {name: _pair(race, name, reference) for name in others}
    facing = {name: _pair(race, subject, name) for name in rivals}
    for pairs in (against, facing):
        for metric in METRICS:
            adjusted = statistics.holm([pair[metric]["p"] for pair in pairs.values()])
            for pair, p in zip(pairs.values(), adjusted, strict=True):
                pair[metric]["p_holm"] = float(p)
    return {
        "suite": race.suite,
        "subject": subject,
        "reference": reference,
        "size": _size(race),
        "contestants": {name: _alone(race, i) for i, name in enumerate(race.contestants)},
        "against_reference": against,
        "subject_against": facing,
        "ranking": {metric: _ranking(race, metric) for metric in METRICS},
        "by_regime": _by_regime(race, reference),
        "by_cluster": {metric: _by_cluster(race, subject, reference, metric) for metric in METRICS},
        "verdict": {metric: against[subject][metric]["verdict"] for metric in METRICS},
    }


def verdict_of(estimate: Estimate) -> str:
    """Return what an interval of a difference of errors says: better, worse, or undecided."""
    return BETTER if estimate.high < 0.0 else WORSE if estimate.low > 0.0 else UNDECIDED


def _pair(race: Race, name: str, other: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    clusters = race.clusters
    i, j = race.position(name), race.position(other)
    for metric in METRICS:
        differences = race.differences(name, other, metric)
        means = clusters.means(differences)
        estimate = clusters.of_means(means)
        won = statistics.wins(means)
        found[metric] = {
            "difference": estimate,
            "verdict": verdict_of(estimate),
            "p": statistics.signed_rank(means),
            "pairs_won": statistics.clipped(clusters.estimate(statistics.wins(differences))),
            "clusters_won": statistics.share(float(won.sum()), clusters.n),
            "superiority": statistics.superiority(race.values[metric][i], race.values[metric][j], clusters),
        }
    final = race.differences(name, other, "final")
    found["middle"] = statistics.interquartile_mean(final, clusters)
    if race.curves is not None and race.at is not None:
        spent = race.values["evaluations"]
        found["saving"] = statistics.saving(
            (race.curves[i], race.curves[j]), (race.at[i], race.at[j]), (spent[i], spent[j]),
            target_groups(race), clusters,
        )  # fmt: skip
    for column in ("in_sample", "out_of_sample"):
        if np.isfinite(race.values.get(column, np.nan)).any():  # landscapes have no market to earn in
            found[column] = _earned(race, i, j, column)
    return found


def target_groups(race: Race) -> np.ndarray:
    """Return which pairs share a target, int64 (n,): those of a problem where it has seeds enough.

    A problem with fewer than ``LEAST_RUNS`` runs cannot tell how often a target is reached; its whole
    cluster is then the group, as in COCO, where the instances of a function are its repetitions.
    """
    enough = np.bincount(race.problems).min() >= LEAST_RUNS
    return race.problems if enough else race.clusters.codes


def _earned(race: Race, i: int, j: int, column: str) -> dict[str, Any]:
    # A window at the end of the data has none that follows: its pairs are left out on both sides.
    values = race.values[column]
    known = np.isfinite(values[[i, j]]).all(axis=0)
    if not known.any():
        missing = Estimate(np.nan, np.nan, np.nan)
        return {"difference": missing, "pairs": 0, "clusters": 0}
    codes = np.unique(race.clusters.codes[known], return_inverse=True)[1]
    clusters = Clusters(codes)
    return {
        "difference": clusters.estimate((values[i] - values[j])[known]),
        "pairs": int(known.sum()),
        "clusters": clusters.n,
    }


def _alone(race: Race, i: int) -> dict[str, Any]:
    found: dict[str, Any] = {"failures": int(race.failures[i])}
    for metric in METRICS:
        found[metric] = float(race.on_clusters(metric)[i].mean())
        found[f"{metric}_rank"] = float(race.clusters.means(statistics.ranks(race.values[metric])[i]).mean())
    floor = 10.0 ** race.values["final"].min()
    for name in ("error_10", "error_30", "error_100"):
        if name in race.values:
            logs = np.log10(np.maximum(race.values[name][i], floor))
            found[name] = float(race.clusters.means(logs[None])[0].mean())
    found["evaluations"] = float(race.values["evaluations"][i].mean())
    if "unique_evaluations" in race.values:
        found["unique_share"] = float(
            race.values["unique_evaluations"][i].sum() / race.values["evaluations"][i].sum()
        )
    if "invalid_evaluations" in race.values:
        found["invalid"] = float(race.values["invalid_evaluations"][i].sum())
    for name in ("in_sample", "out_of_sample"):
        if np.isfinite(race.values.get(name, np.nan)).any():
            known = race.values[name][i][np.isfinite(race.values[name][i])]
            found[name] = float(known.mean()) if known.size else float("nan")
    return found


def _ranking(race: Race, metric: str) -> dict[str, Any]:
    found = statistics.ranking(race.on_clusters(metric))
    return {
        "mean_ranks": dict(zip(race.contestants, found.mean_ranks.tolist(), strict=True)),
        "chi_square": found.chi_square,
        "p_chi_square": found.p_chi_square,
        "f": found.f,
        "p": found.p,
        "critical_difference": found.critical_difference,
        "blocks": found.n_blocks,
    }


def _by_regime(race: Race, reference: str) -> dict[str, dict[str, dict[str, Estimate]]]:
    # Differences against the reference by regime, contestant and metric; nothing for runs without regimes.
    if "regime" not in race.values:
        return {}
    of_pair = race.values["regime"][0]
    found: dict[str, dict[str, dict[str, Estimate]]] = {}
    for regime in Regime:
        mine = of_pair == int(regime)
        if mine.any():
            clusters = Clusters(np.unique(race.clusters.codes[mine], return_inverse=True)[1])
            found[regime.text] = {
                name: {
                    metric: clusters.estimate(race.differences(name, reference, metric)[mine])
                    for metric in METRICS
                }
                for name in race.contestants
                if name != reference
            }
    return found


def _by_cluster(race: Race, subject: str, reference: str, metric: str) -> dict[str, tuple[float, ...]]:
    # Mean difference on each cluster, and the quartiles of its runs.
    differences = race.differences(subject, reference, metric)
    found = {}
    for c, name in enumerate(race.cluster_names):
        mine = differences[race.clusters.codes == c]
        low, high = np.quantile(mine, (0.25, 0.75))
        found[name] = (float(mine.mean()), float(low), float(high))
    return found


def _size(race: Race) -> dict[str, Any]:
    budget = race.values["budget"]
    problems = int(race.problems.max()) + 1
    return {
        "contestants": len(race.contestants),
        "runs": budget.size,
        "pairs": budget.shape[1],
        "problems": problems,
        "clusters": race.clusters.n,
        "runs_per_problem": budget.shape[1] / problems,
        "budget": [float(budget.min()), float(budget.max())],
    }


def checked(table: Rows) -> pa.Table:
    """Return rows as a table; :class:`DataError` if a column is missing or there are none."""
    if not isinstance(table, pa.Table):
        table = pa.table({name: pa.array(list(values)) for name, values in table.items()})
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"race table: there is no column {', '.join(missing)}; each run needs one")
    if not table.num_rows:
        raise DataError("race table: there are no runs; at least one of each contestant is needed")
    return table


def _paired(table: pa.Table) -> tuple[tuple[str, ...], np.ndarray, list[tuple[Any, ...]]]:
    # Contestants, rows in the order of (contestant, pair), and the pairs themselves.
    names = table["contestant"].to_pylist()
    keys = list(zip(*(table[name].to_pylist() for name in ("problem", "instance", "seed")), strict=True))
    contestants = tuple(dict.fromkeys(names))
    pairs = list(dict.fromkeys(keys))
    place = {pair: p for p, pair in enumerate(pairs)}
    who = {name: i for i, name in enumerate(contestants)}
    order = np.full((len(contestants), len(pairs)), -1, dtype=np.int64)
    for row, (name, key) in enumerate(zip(names, keys, strict=True)):
        i, p = who[name], place[key]
        if order[i, p] >= 0:
            raise DataError(f"race table: {name} ran {_said(key)} twice; once is one pair")
        order[i, p] = row
    if (order < 0).any():
        i, p = np.argwhere(order < 0)[0]
        raise DataError(
            f"race table: {contestants[i]} has no run of {_said(pairs[p])}; everybody must run the same pairs"
        )
    clusters = np.array([str(name) for name in table["cluster"].to_pylist()])[order]
    if (clusters != clusters[0]).any():
        _, p = np.argwhere(clusters != clusters[0])[0]
        raise DataError(f"race table: {_said(pairs[p])} lies in two clusters; it must lie in one")
    return contestants, order.ravel(), pairs


def _said(key: tuple[Any, ...]) -> str:
    return f"{key[0]}, instance {key[1]}, seed {key[2]},"


def _codes(names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    distinct = tuple(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(distinct)}
    return np.array([place[name] for name in names]), distinct


def _curves(
    table: pa.Table, values: Mapping[str, np.ndarray], k: int, n: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if CURVE not in table.column_names:
        return None, None
    lists = table[CURVE].to_pylist()
    lengths = {len(one) for one in lists}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(
            f"race table: curves have {sorted(lengths)} points; all of a suite need the same grid"
        )
    m = lengths.pop()
    curves = np.array(lists, dtype=np.float64).reshape(k, n, m)
    curves = np.where(np.isnan(curves), np.inf, curves)  # of a run without a result: never there
    if CURVE_EVALUATIONS in table.column_names:
        at = np.array(table[CURVE_EVALUATIONS].to_pylist(), dtype=np.float64).reshape(k, n, m)
    else:
        at = values["budget"][:, :, None] * np.arange(1, m + 1) / m
    return curves, at

"""Who is better, by how much, and how sure that is: statistics of a race, clustered and paired.

Runs of one function, or of one window of a market, resemble each other: a thousand of them are no thousand
pieces of evidence. So every interval and every test here counts *clusters*. Runs are paired first (same
problem, same seed), differences are averaged within their cluster, and the clusters, all of the same weight,
are what is resampled, ranked and tested.

An interval is the percentile bootstrap over clusters, widened as Hesterberg (2015) has it, so that a mean of
few clusters gets the width that Student's t would give it; below ten clusters it is Student's t, with the
standard error of the bootstrap. Instances within a cluster are not resampled once more: their luck is in the
mean of the cluster already, and resampling them counts it twice (``benchmarks/race_intervals.py``).

Shapes: ``k`` contestants, ``n`` pairs (problem and seed), ``C`` clusters. Errors are decades: less is better.

Sources: Hesterberg (2015), "What teachers should know about the bootstrap", The American Statistician 69(4);
Demsar (2006), "Statistical comparisons of classifiers over multiple data sets", JMLR 7; Vargha and Delaney
(2000), "A critique and improvement of the CL common language effect size statistics", JEBS 25(2); Hansen et
al. (2021), "COCO", Optimization Methods and Software 36(1), for expected running times and their ECDF;
Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS, for
the interquartile mean.
"""

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from compute.seeds import stream

CONFIDENCE = 0.95
N_RESAMPLES = 10_000
#: Fewer clusters than this are too few to resample: percentiles never leave the range of what was seen.
FEW = 10
#: Errors that published comparisons ask how soon they are reached.
TARGETS: np.ndarray = 10.0 ** np.linspace(2.0, -8.0, 51)
#: Runs that an expected running time is estimated from, at least.
LEAST_RUNS = 5
# A group that no run of a contestant solved has no estimate. Half a success instead of none stands for it:
# twice the evaluations of one that succeeded once, at its very end.
_NO_SUCCESS = 0.5
_TIE = 1e-12  # decades
_FEWER = 2_000  # resamples of what is dear


class Estimate(NamedTuple):
    """A figure and the ends of its interval, NaN where there are too few clusters for one."""

    value: float
    low: float
    high: float

    def excludes(self, center: float) -> bool:
        """Return whether the whole interval lies on one side of a value."""
        return self.low > center or self.high < center


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which runs belong together, and the resamples of the clusters that all figures of a race share.

    Parameters
    ----------
    codes : int64 (n,)
        Cluster of each run, from 0 to C - 1, each used.
    n_resamples : int
    seed : int
        The same seed draws the same resamples.

    Raises
    ------
    ValueError
        If a number below the largest code is not used.
    """

    codes: np.ndarray
    n_resamples: int = N_RESAMPLES
    seed: int = 0
    n: int = field(init=False)

    def __post_init__(self) -> None:
        sizes = np.bincount(self.codes)
        if not len(self.codes) or (sizes == 0).any():
            raise ValueError("clusters must be numbered from 0 without gaps, each with a run at least")
        object.__setattr__(self, "n", len(sizes))

    @cached_property
    def weights(self) -> np.ndarray:
        """Share of each cluster in each resample, float64 (n_resamples, C)."""
        rng = stream(self.seed, "race", "clusters")
        return rng.multinomial(self.n, np.full(self.n, 1.0 / self.n), self.n_resamples) / self.n

    def means(self, values: ArrayLike) -> np.ndarray:
        """Return the mean over the runs of each cluster, float64 (..., C), of values (..., n)."""
        values = np.asarray(values, dtype=np.float64)
        order = np.argsort(self.codes, kind="stable")
        starts = np.searchsorted(self.codes[order], np.arange(self.n))
        return np.add.reduceat(values[..., order], starts, axis=-1) / np.bincount(self.codes)

    def estimate(self, values: ArrayLike) -> Estimate:
        """Return the mean of values (n,) of runs, each cluster counted once, with its interval."""
        return self.of_means(self.means(values))

    def of_means(self, means: np.ndarray) -> Estimate:
        """Return the mean of values (C,) of clusters with its interval."""
        return self.interval(float(means.mean()), self.weights @ means)

    def interval(self, value: float, resampled: np.ndarray) -> Estimate:
        """Return a figure with its interval from what it was in the resamples, (n_resamples,)."""
        low, high = self.bounds(np.asarray(value), resampled)
        return Estimate(value, float(low), float(high))

    def bounds(self, values: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the intervals of figures (...) from the resamples, (n_resamples, ...)."""
        if self.n < 2:
            return np.full(values.shape, np.nan), np.full(values.shape, np.nan)
        if self.n < FEW:
            error = resampled.std(axis=0) * math.sqrt(self.n / (self.n - 1))
            reach = error * stats.t.ppf(0.5 + CONFIDENCE / 2.0, self.n - 1)
            return values - reach, values + reach
        low, high = np.quantile(resampled, expanded_levels(self.n), axis=0)
        return low, high


@cache
def expanded_levels(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return which percentiles of the bootstrap of a mean of n are the ends of its interval.

    The plain percentiles are too narrow by ``sqrt((n - 1) / n)`` and by the tails of Student's t.
    """
    tail = stats.t.ppf((1.0 - confidence) / 2.0, n - 1) * math.sqrt(n / (n - 1))
    return float(stats.norm.cdf(tail)), float(stats.norm.cdf(-tail))


# Ranks.


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each contestant in each column of values (k, N), 1 is lowest; ties share theirs."""
    return stats.rankdata(np.round(values, 12), axis=0)


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of contestants over blocks, and whether they differ at all.

    Parameters
    ----------
    mean_ranks : float64 (k,)
    chi_square, p_chi_square : float
        Friedman's test, corrected for ties.
    f, p : float
        The less conservative statistic of Iman and Davenport.
    critical_difference : float
        Of Nemenyi: mean ranks further apart than it differ.
    n_blocks : int
    """

    mean_ranks: np.ndarray
    chi_square: float
    p_chi_square: float
    f: float
    p: float
    critical_difference: float
    n_blocks: int


def ranking(values: np.ndarray) -> Ranking:
    """Return mean ranks, Friedman's test and Nemenyi's critical difference of values (k, N).

    Blocks must be independent: hand in means of clusters, not runs. What needs more contestants or blocks
    than there are is NaN: the test wants 3 and 2.
    """
    k, n = values.shape
    ranked = ranks(values)
    mean_ranks = ranked.mean(axis=1)
    chi = p_chi = f = p = math.nan
    spread = float(((ranked - (k + 1) / 2.0) ** 2).sum())
    if k >= 3 and n >= 2 and spread > 0.0:
        chi = (k - 1) * float(((ranked.sum(axis=1) - n * (k + 1) / 2.0) ** 2).sum()) / spread
        p_chi = float(stats.chi2.sf(chi, k - 1))
        rest = n * (k - 1) - chi
        f = (n - 1) * chi / rest if rest > 1e-9 else math.inf
        p = float(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    return Ranking(mean_ranks, chi, p_chi, f, p, nemenyi_difference(k, n), n)


def nemenyi_difference(k: int, n: int, alpha: float = 1.0 - CONFIDENCE) -> float:
    """Return how far two of k mean ranks over n blocks must lie apart to differ; NaN for one contestant."""
    if k < 2:
        return math.nan
    q = float(stats.studentized_range.ppf(1.0 - alpha, k, np.inf)) / math.sqrt(2.0)
    return q * math.sqrt(k * (k + 1) / (6.0 * n))


# Pairs.


def signed_rank(differences: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of differences (C,).

    Zeros are shared by both sides. Without any difference it is 1.
    """
    differences = np.where(np.abs(differences) < _TIE, 0.0, differences)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return p-values (m,) that hold for all m tests together, by Holm's step-down; NaN counts as no test."""
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    order = np.argsort(p_values)
    order = order[np.isfinite(p_values[order])]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted


def wins(differences: np.ndarray) -> np.ndarray:
    """Return 1 where the first is better (lower), 0 where it is worse, 0.5 for a tie."""
    return np.where(np.abs(differences) < _TIE, 0.5, np.where(differences < 0.0, 1.0, 0.0))


def clipped(estimate: Estimate) -> Estimate:
    """Return the estimate of a share with no end below 0 or above 1."""
    return Estimate(*(min(max(x, 0.0), 1.0) if math.isfinite(x) else x for x in estimate))


def share(won: float, n: int) -> Estimate:
    """Return the share of n independent trials that were won, ties as halves, with Wilson's interval.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2.0))
    p = won / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(center - reach, 0.0), min(center + reach, 1.0))


def superiority(values: np.ndarray, reference: np.ndarray, clusters: Clusters) -> Estimate:
    """Return Vargha and Delaney's A12: how often a run beats any run of the reference in its cluster.

    Of values (n,) against reference (n,), unpaired; ties count half, 0.5 is no difference, above it the
    first has the lower errors. Also known as the probability of improvement.
    """
    own = np.empty(clusters.n)
    for c in range(clusters.n):
        mine = clusters.codes == c
        own[c] = wins(values[mine][:, None] - reference[mine][None, :]).mean()
    return clipped(clusters.of_means(own))


def interquartile_mean(differences: np.ndarray, clusters: Clusters) -> Estimate:
    """Return the mean of the middle half of differences (n,): what the extreme runs do not decide.

    Runs weigh so that clusters weigh the same. The interval comes from whole clusters, as everywhere, but
    from fewer resamples: each of them needs all runs.
    """
    order = np.argsort(differences, kind="stable")
    ordered, codes = differences[order], clusters.codes[order]
    per_run = 1.0 / np.bincount(clusters.codes)[codes]
    weights = clusters.weights[:_FEWER]
    resampled = np.empty(len(weights))
    chunk = max(1, 2_000_000 // len(ordered))
    for begin in range(0, len(weights), chunk):
        part = slice(begin, begin + chunk)
        resampled[part] = _middle(weights[part][:, codes] * per_run, ordered)
    whole = per_run[None, :] / clusters.n
    return clusters.interval(float(_middle(whole, ordered)[0]), resampled)


def _middle(weights: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    # Means of the middle half of ascending values (n,) under weights (r, n) that add up to 1.
    upper = np.minimum(np.cumsum(weights, axis=1), 0.75)
    lower = np.concatenate([np.full((len(weights), 1), 0.0), upper[:, :-1]], axis=1)
    kept = np.maximum(upper, 0.25) - np.maximum(lower, 0.25)
    return kept @ ordered / 0.5


def kept_share(partial: np.ndarray, whole: np.ndarray, clusters: Clusters) -> Estimate:
    """Return which share of a gain is left: mean of differences (n,) over mean of other differences (n,).

    For example of a conductor that has not seen a regime over one that has, both against the same reference.
    NaN where the interval of the whole gain contains zero: a share of nothing means nothing.
    """
    if not clusters.estimate(whole).excludes(0.0):
        return Estimate(math.nan, math.nan, math.nan)
    top, bottom = clusters.means(partial), clusters.means(whole)
    resampled = (clusters.weights @ top) / (clusters.weights @ bottom)
    return clusters.interval(float(top.mean() / bottom.mean()), resampled)


# Targets.


def expected_running_time(hits: np.ndarray, spent: np.ndarray) -> float:
    """Return the evaluations that restarted runs need until one reaches a target, infinite if none did.

    Parameters
    ----------
    hits : float64 (r,)
        Evaluations at which each run reached the target, NaN if it did not.
    spent : float64 (r,)
        Evaluations of the whole run, which count where it failed.
    """
    reached = np.isfinite(hits)
    if not reached.any():
        return math.inf
    return float(np.where(reached, hits, spent).sum() / reached.sum())


@dataclass(frozen=True)
class Saving:
    """How many evaluations a contestant needs to end where the reference ends.

    Parameters
    ----------
    ratio : Estimate
        Geometric mean over the groups of its expected running time over that of the reference; 0.75 is a
        quarter less.
    unreached : int
        Groups in which no run of it came so far; they count as half a success.
    groups : int
    """

    ratio: Estimate
    unreached: int
    groups: int


def saving(
    curves: tuple[np.ndarray, np.ndarray],
    at: tuple[np.ndarray, np.ndarray],
    spent: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray,
    clusters: Clusters,
) -> Saving:
    """Return the evaluations to the reference's final errors, as a share of the reference's own.

    The target of a group is the median of the reference's final errors in it, which half of its own runs
    reach: an equal contestant has a ratio of 1.

    Parameters
    ----------
    curves : two float64 (n, m)
        log10 error of the best so far, of the contestant and of the reference.
    at : two float64 (n, m)
        Evaluations at each point of the curves.
    spent : two float64 (n,)
        Evaluations of the whole runs.
    groups : int64 (n,)
        Runs with a target in common, numbered from 0; a group lies in one cluster.
    clusters : Clusters
    """
    n_groups = int(groups.max()) + 1
    logs, home = np.empty(n_groups), np.empty(n_groups, dtype=np.int64)
    unreached = 0
    for g in range(n_groups):
        mine = groups == g
        home[g] = clusters.codes[mine][0]
        target = float(np.median(curves[1][mine, -1]))
        times = []
        for curve, x, whole in zip(curves, at, spent, strict=True):
            time = expected_running_time(first_reached(curve[mine], x[mine], target), whole[mine])
            if not math.isfinite(time):
                unreached += 1
                time = float(whole[mine].sum()) / _NO_SUCCESS
            times.append(time)
        logs[g] = math.log(times[0] / times[1])
    means = np.bincount(home, logs, clusters.n) / np.bincount(home, minlength=clusters.n)
    found = clusters.of_means(means)
    return Saving(Estimate(*(math.exp(x) for x in found)), unreached, n_groups)


def first_reached(curves: np.ndarray, at: np.ndarray, target: float) -> np.ndarray:
    """Return the evaluations (r,) at which falling curves (r, m) first lie at a target or below, or NaN."""
    below = curves <= target + _TIE
    first = np.argmax(below, axis=1)[:, None]
    return np.where(below.any(axis=1), np.take_along_axis(at, first, axis=1)[:, 0], np.nan)


def reached_share(hits: np.ndarray, budget: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the share of (run, target) pairs reached within each share of the budget, float64 (m,).

    Parameters
    ----------
    hits : float64 (n, t)
        Evaluations at which each target was first reached, NaN if never.
    budget : float64 (n,)
    x : float64 (m,)
        Shares of the budget.
    """
    times = np.sort((hits / budget[:, None]).ravel())  # NaN last, so never counted
    return np.searchsorted(times, x, side="right") / times.size


def behind_best(final: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the share of pairs on which each contestant is within so many decades of the best, (k, m).

    Of final errors (k, n); the first value at 0 is the share of pairs that it wins or shares.
    """
    gaps = np.sort(final - final.min(axis=0), axis=1)
    return np.array([np.searchsorted(row, x + _TIE, side="right") for row in gaps]) / final.shape[1]

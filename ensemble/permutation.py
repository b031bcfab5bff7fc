"""Is it the search? The whole pipeline again, on bars whose order carries no information.

The moves of the market are cut apart and put together in another order: the gaps from close to open, and
what happens inside each bar (high, low and close over the open, with volume and whatever else the bar
carries). Gaps and bars are shuffled independently. Trend over the whole span, volatility, tails and the
shapes of bars are all kept, so a strategy that lives from drift alone does as well as before; whatever
one bar tells of the next is gone. A search that does as well on such bars has found nothing.

What the test cannot tell apart: volatility that clusters is order too, so a strategy that owes its Sharpe
ratio to sizing by volatility passes as well. Beside volatility-targeted hold that shows.

Source: Masters (2018), "Permutation and Randomization Tests for Trading System Development", chapter 3.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest.bootstrap import MARK_PRICES
from backtest.metrics import sharpe
from compute.seeds import stream
from compute.workers import Mapper, SerialMapper
from market.bars import Bars
from market.table import DataError

LEAST_ROWS = 3  # with fewer there is no other order

#: Bars in, net returns per bar of what was found on them out, float64 (m,).
Pipeline = Callable[[Bars], np.ndarray]


def permuted(bars: Bars, rng: np.random.Generator, rows: slice = slice(None)) -> Bars:
    """Return bars on the same clock with the moves of some rows in another order.

    Parameters
    ----------
    bars : Bars (n,)
    rng : numpy.random.Generator
    rows : slice
        Rows that are shuffled among themselves, at least 3. Rows before and after are the original to the
        last bit: a walk-forward keeps the rows that its first fold learns from, or it would test the fit of
        the first fold too.

    Returns
    -------
    Bars (n,)
        With the first open and, but for rounding, the last close of the rows; the log gaps inside the rows
        and the log moves inside the bars are the same numbers in another order. The volume and all extra
        columns travel with the inside of their bar, and mark prices move with it.

    Raises
    ------
    DataError
        If there are fewer than 3 rows.
    """
    first, last, step = rows.indices(len(bars))
    if step != 1 or last - first < LEAST_ROWS:
        raise DataError(
            f"{bars.label}: {max(last - first, 0)} bars to shuffle; a permutation needs at least "
            f"{LEAST_ROWS}, in rows of step 1"
        )
    values = bars.values[first:last]
    opens, closes = values[:, 0], values[:, 3]
    gaps = np.log(opens[1:] / closes[:-1])[rng.permutation(len(values) - 1)]
    inside = rng.permutation(len(values))
    bodies = np.log(closes / opens)[inside]
    # The prices that the walk of gaps and bodies reaches; the first open stays.
    open_ = opens[0] * np.exp(np.concatenate([[0.0], np.cumsum(gaps + bodies[:-1])]))
    prices = [1, 2, 3] + [bars.names.index(name) for name in MARK_PRICES if name in bars.names]
    # Ratios, not logs: multiplying by one open keeps the order of prices to the last bit.
    ratios = values[:, prices] / opens[:, None]
    made = values[inside]
    made[:, 0] = open_
    made[:, prices] = ratios[inside] * open_[:, None]
    return replace(bars, values=np.concatenate([bars.values[:first], made, bars.values[last:]]))


def earned_sharpe(returns: np.ndarray) -> float:
    """Return the Sharpe ratio per bar of float64 (m,) returns, 0 for what never moves: it earned nothing."""
    ratio = sharpe(returns, 1.0)
    return 0.0 if math.isnan(ratio) else ratio


@dataclass(frozen=True)
class Permutations:
    """What a pipeline finds on the bars, and on permutations of them.

    Parameters
    ----------
    observed : float
        The statistic on the bars themselves.
    found : tuple of float
        On each permutation, in their order.
    """

    observed: float
    found: tuple[float, ...]

    @property
    def p(self) -> float:
        """Probability of doing as well on permuted bars: (r + 1) / (m + 1), r of m at least as good.

        Exact: under the hypothesis that the order means nothing, the observed one is one of m + 1 equals.
        """
        return (sum(one >= self.observed for one in self.found) + 1) / (len(self.found) + 1)

    @property
    def percentile(self) -> float:
        """Share of the permutations that did worse; NaN before the first."""
        return float(np.mean(np.array(self.found) < self.observed)) if self.found else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain objects for JSON."""
        return {
            "observed": self.observed,
            "found": list(self.found),
            "permutations": len(self.found),
            "p": self.p,
        }


class PermutationTest:
    """A permutation test that is under way: each step re-runs the whole pipeline, and can be saved after it.

    Permutation i depends on the bars, the rows, the seed and i alone: more permutations leave the first
    ones as they were, and so do workers and interruptions.

    Parameters
    ----------
    bars : Bars (n,)
    pipeline : callable
        Everything that a user would run to get from bars to returns: features, detector, search, choice,
        blending, walk-forward. What it does not repeat, it does not test. Where it finds nothing to trade
        it must say so with returns of zero, not raise.
    seed : int
    n : int
        Permutations; at least 19 to reach 5 %, and for a claim 200 (100 walk-forward).
    rows : slice
        See :func:`permuted`.
    statistic : callable
        Of the returns; higher is better. :func:`earned_sharpe` by default.
    observed : array, optional
        Returns on the bars themselves, if they are known already; else the first step asks the pipeline.

    Attributes
    ----------
    observed : float or None
    found : list of float
    """

    def __init__(
        self,
        bars: Bars,
        pipeline: Pipeline,
        *,
        seed: int,
        n: int,
        rows: slice = slice(None),
        statistic: Callable[[np.ndarray], float] = earned_sharpe,
        observed: np.ndarray | None = None,
    ) -> None:
        if n < 1:
            raise ValueError(f"n is {n}; a test needs at least 1 permutation")
        permuted(bars, np.random.default_rng(0), rows)  # what is wrong with them is said before any work
        self.bars, self.pipeline, self.seed, self.n, self.rows = bars, pipeline, seed, n, rows
        self.statistic = statistic
        self.observed = None if observed is None else self._judged(observed)
        self.found: list[float] = []

    @property
    def finished(self) -> bool:
        """Whether all permutations have been made."""
        return self.observed is not None and len(self.found) >= self.n

    def step(self, workers: Mapper | None = None) -> None:
        """Run the pipeline as often as there are workers, at least once; nothing once it is finished."""
        workers = workers or SerialMapper()
        if self.observed is None:
            self.observed = self._judged(self.pipeline(self.bars))
            return
        begin = len(self.found)
        self.found += workers.map(self._one, range(begin, min(begin + workers.n_workers, self.n)))

    def run(self, workers: Mapper | None = None) -> Permutations:
        """Finish the test and return what it found."""
        while not self.finished:
            self.step(workers)
        return self.result()

    def result(self) -> Permutations:
        """Return what was found so far.

        Raises
        ------
        RuntimeError
            Before the first step.
        """
        if self.observed is None:
            raise RuntimeError("the pipeline has not been run on the bars themselves yet")
        return Permutations(self.observed, tuple(self.found))

    def state(self) -> dict[str, Any]:
        """Return everything the test goes on from: plain values and an array."""
        return {
            "identity": self._identity(),
            "observed": math.nan if self.observed is None else self.observed,
            "found": np.array(self.found, dtype=np.float64),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, to the same numbers.

        Raises
        ------
        DataError
            If it is the state of a test of other bars, rows, or another seed.
        """
        if state["identity"] != self._identity():
            raise DataError(
                f"{self.bars.label}: the permutations that were kept are of other bars, other rows or "
                f"another seed; start the test again"
            )
        observed = float(state["observed"])
        self.observed = None if math.isnan(observed) else observed
        self.found = [float(one) for one in state["found"]]

    def _one(self, number: int) -> float:
        rng = stream(self.seed, "permutation", number)
        return self._judged(self.pipeline(permuted(self.bars, rng, self.rows)))

    def _judged(self, returns: np.ndarray) -> float:
        found = float(self.statistic(np.asarray(returns, dtype=np.float64)))
        if math.isnan(found):
            raise ValueError("the statistic is NaN, which cannot be ranked; what earns nothing is 0")
        return found

    def _identity(self) -> str:
        first, last, _ = self.rows.indices(len(self.bars))
        parts = [self.bars.fingerprint(), first, last, self.seed]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

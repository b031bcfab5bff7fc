"""Blenders that go on learning: members weigh by what their own decisions have earned, once it is known.

Both read :class:`OwnReturns`: what a member decided at the close of t-2 was bought at the open of t-1, has
been paid by the open of t, and has cost its own turnover. What was known by ``fitted_until`` taught them in
``fit`` and does not count again when such rows are streamed.
"""

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from pydantic import Field

from compute.kernels import R2, W1, W2, kernel
from configs.load import Config
from ensemble.blenders import BLENDERS, OPEN_ROWS, Blender, Rows, SavedBlender, blended, net_returns, opinions
from ensemble.signals import known_return
from market.table import DataError


class OwnReturns:
    """What each member's own decisions have earned, as it becomes known: the causal :func:`net_returns`.

    Parameters
    ----------
    s : int
        Members.
    cost : float
        Fraction paid per unit of turnover.
    """

    def __init__(self, s: int, cost: float) -> None:
        self._cost = cost
        self._signals = np.full((OPEN_ROWS + 1, s), np.nan)  # of the rows before the next one
        self._open = math.nan

    def update(self, rows: Rows, after: int | None) -> np.ndarray:
        """Return float64 (n, s): the net return of the decision two rows before.

        NaN where the member had no opinion, where there was no such row, and up to the time ``after``: what
        was known by then has been learned from already.
        """
        bars = rows.bars
        if not len(bars):
            return np.empty((0, len(rows.signals.names)))
        signals = np.vstack([self._signals, rows.signals.values])
        n = len(bars)
        decided, before = signals[1 : n + 1], opinions(signals[:n])
        gross = decided * known_return(bars, self._open)[:, None]
        net = gross - self._cost * np.abs(decided - before)
        if after is not None:
            net[bars.time <= after] = np.nan
        self._signals, self._open = signals[n:].copy(), float(bars.column("open")[-1])
        return net


class RankConfig(Config):
    """How long ``rank`` remembers."""

    half_life_bars: float = Field(
        720.0, ge=1, le=1e6, description="Bars after which a return counts half; a month of hourly bars."
    )


@BLENDERS.register("rank")
class Rank(Blender):
    """Members weigh by their rank in a league table of what they have earned of late.

    The score of a member is the ratio of the sum of its net returns to the root of the sum of their squares,
    both with exponentially fading memory: a trailing Sharpe ratio. Of m members with an opinion the best
    weighs in proportion to m and the last to 1; equal scores share their ranks, so it begins as ``equal``.
    Ranks ask nothing of the size of returns, and nobody is ever silenced. A row's scores know decisions up to
    two rows before it: later ones have not been paid yet.
    """

    name = "rank"
    Config = RankConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._learned = np.zeros((2, 0))

    def _learn(self, rows: Rows, seed: int) -> None:
        self._learned = np.zeros((2, len(self.members)))
        self._forget()
        self._answer(rows)
        self._learned = self._sums

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals = rows.signals.values
        weights = np.empty(signals.shape)
        decay = 0.5 ** (1.0 / self.config.half_life_bars)
        rank_weights(self._own.update(rows, self.fitted_until), signals, decay, self._sums, weights)
        return weights, blended(signals, weights)

    def _forget(self) -> None:
        self._own = OwnReturns(len(self.members), self.cost)
        self._sums = self._learned.copy()

    def _parameters(self) -> Mapping[str, Any]:
        return {"sums": self._learned}

    def _restore(self, saved: SavedBlender) -> None:
        self._learned = saved.array("sums", (2, len(self.members)))
        if (self._learned[1] < 0.0).any():
            raise DataError(f"{saved.path}: parameters.sums has a negative sum of squares")


@kernel(numba.void(R2, R2, numba.float64, W2, W2))
def rank_weights(net, signals, decay, memory, out):
    """Write the weight of each member by the rank of what it has earned of late.

    Parameters
    ----------
    net : float64 (n, s)
        Net returns that become known at each row; NaN: the member had no opinion.
    signals : float64 (n, s)
        NaN: the member has no opinion now.
    decay : float64
        What a row leaves of the sums.
    memory : float64 (2, s)
        Sums of net returns and of their squares.
    out : float64 (n, s)
        Written in place.
    """
    n, s = net.shape
    score = np.empty(s)
    for t in range(n):
        for i in range(s):
            if not math.isnan(net[t, i]):
                memory[0, i] = decay * memory[0, i] + net[t, i]
                memory[1, i] = decay * memory[1, i] + net[t, i] * net[t, i]
            score[i] = memory[0, i] / math.sqrt(memory[1, i]) if memory[1, i] > 0.0 else 0.0
        total = 0.0
        for i in range(s):
            out[t, i] = 0.0
            if math.isnan(signals[t, i]):
                continue
            # Places from the bottom: one, one more for each that is worse, half for each other that is equal.
            place = 0.5
            for j in range(s):
                if not math.isnan(signals[t, j]):
                    place += 1.0 if score[j] < score[i] else (0.5 if score[j] == score[i] else 0.0)
            out[t, i] = place
            total += place
        if total > 0.0:
            for i in range(s):
                out[t, i] /= total


class OnlineConfig(Config):
    """How boldly ``online`` learns, and in which unit."""

    rate: float = Field(
        0.577,
        gt=0,
        le=100,
        description="Learning rate, in multiples of root(ln K / rounds); 1 / root(3) has the best bound.",
    )
    unit_quantile: float = Field(
        0.99,
        gt=0,
        le=1,
        description="Gains are counted in units of this quantile of the members' absolute net returns on "
        "the rows of the fit, and a larger one counts as 1.",
    )


@BLENDERS.register("online")
class Online(Blender):
    """Exponentiated gradient: weights in proportion to ``exp(rate * gain so far)``, with bounded regret.

    Members are the experts of Hedge (Freund and Schapire 1997). A round is a decision; its gains are the
    members' net returns in units, cut to [-1, 1]. The rate of round t is ``c root(ln K / t)``, ``c`` being
    ``rate``, so no horizon has to be known. A member without an opinion sleeps: it is not heard, and is
    credited with what the blend gained (Freund, Schapire, Singer and Warmuth 1997, "Using and combining
    predictors that specialize"). ``fit`` plays the rounds of its rows, and streaming goes on from there.

    **Bound.** Over T rows of one stream, whatever the market does, even if it knows the weights::

        (gains of a member in its rounds) - (gains of the blend in them) <= (1/c + 3c) root(T ln K)

    which is ``root(12 T ln K)`` for ``c = 1/root(3)``. Proof: credited as above, sleepers change neither
    side, so let nobody sleep. Take weights that know all rounds before theirs, and the potential
    ``ln(mean of exp(rate * gain)) / rate``. A round adds what the weights gain and at most ``rate_t / 2``
    (Hoeffding's lemma, gains having the range 2); a falling rate only lowers it; in the end it is at least
    the best gain less ``ln K / rate_T``. With one rate for a known T that is ``root(2 T ln K)``
    (Cesa-Bianchi and Lugosi 2006, "Prediction, learning, and games", theorem 2.2). Ours do not know the round
    before, which is paid one bar later. The map from gains to weights is 1-smooth from the maximum norm to
    the sum of absolute values, so one round moves the weights by ``rate_t`` at most, and what they gain by no
    more. Together that is ``ln K / rate_T + 3/2 sum rate_t``, and ``sum 1/root(t) <= 2 root(T)``.

    Such weights trade little: while nobody falls asleep or wakes, the blend pays for at most
    ``3c root(T ln K)`` units of turnover beyond the members' own. The bound is for gains as they are counted:
    what exceeds the unit is cut, on both sides.
    """

    name = "online"
    Config = OnlineConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._learned = np.zeros(0)
        self._rounds = 0.0
        self.unit = 1.0

    def _learn(self, rows: Rows, seed: int) -> None:
        net = np.abs(net_returns(rows.signals.values, rows.bars, self.cost))
        net = net[net > 0.0]
        # Where nobody has ever moved, any unit will do: there is nothing to count.
        self.unit = float(np.quantile(net, self.config.unit_quantile)) if net.size else 1.0
        self._learned, self._rounds = np.zeros(len(self.members)), 0.0
        self._forget()
        self._answer(rows)
        self._learned, self._rounds = self._gains, float(self._round[0])

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals = rows.signals.values
        weights = np.empty(signals.shape)
        gains = np.clip(self._own.update(rows, self.fitted_until) / self.unit, -1.0, 1.0)
        hedge(gains, signals, self.config.rate, self._gains, self._round, self._weights, weights)
        return weights, blended(signals, weights)

    def _forget(self) -> None:
        s = len(self.members)
        self._own = OwnReturns(s, self.cost)
        self._gains, self._round = self._learned.copy(), np.array([self._rounds])
        self._weights = np.zeros((OPEN_ROWS, s))

    def _parameters(self) -> Mapping[str, Any]:
        return {"gains": self._learned, "rounds": self._rounds, "unit": self.unit}

    def _restore(self, saved: SavedBlender) -> None:
        self._learned = saved.array("gains", (len(self.members),))
        self._rounds, self.unit = float(saved.array("rounds", ())), float(saved.array("unit", ()))
        if self._rounds < 0.0 or self.unit <= 0.0:
            raise DataError(
                f"{saved.path}: parameters.rounds is {self._rounds:g} and unit {self.unit:g}; a count is "
                f"zero or more, and a unit above zero"
            )


@kernel(numba.void(R2, R2, numba.float64, W1, W1, W2, W2))
def hedge(gained, signals, rate, gains, rounds, weights, out):
    """Write the weights of Hedge with sleeping experts, whose gains are paid two rows after the decision.

    Parameters
    ----------
    gained : float64 (n, s)
        In [-1, 1], of the decision two rows before; NaN: the member slept then, or nothing is paid.
    signals : float64 (n, s)
        NaN: the member sleeps now.
    rate : float64
        Learning rate in multiples of ``root(ln s / round)``.
    gains : float64 (s,)
        Memory: what a member has gained more than the blend, in the rounds in which it was awake.
    rounds : float64 (1,)
        Memory: rounds that are paid.
    weights : float64 (2, s)
        Memory: weights of the last two rows, the older one first.
    out : float64 (n, s)
        Written in place.
    """
    n, s = gained.shape
    size = math.sqrt(math.log(s))
    for t in range(n):
        own, awake = 0.0, False
        for i in range(s):
            if not math.isnan(gained[t, i]):
                own += weights[0, i] * gained[t, i]
                awake = True
        if awake:
            rounds[0] += 1.0
            for i in range(s):
                if not math.isnan(gained[t, i]):
                    gains[i] += gained[t, i] - own
        # The round that is decided now is the second after those paid.
        eta = rate * size / math.sqrt(rounds[0] + 2.0)
        best = -math.inf
        for i in range(s):
            if not math.isnan(signals[t, i]):
                best = max(best, eta * gains[i])
        total = 0.0
        for i in range(s):
            out[t, i] = 0.0
            if not math.isnan(signals[t, i]):
                out[t, i] = math.exp(eta * gains[i] - best)
                total += out[t, i]
        for i in range(s):
            if total > 0.0:
                out[t, i] /= total
            weights[0, i] = weights[1, i]
            weights[1, i] = out[t, i]

"""The Markov-switching law of whole bars, and its fit: maximum likelihood, from several starts.

The likelihood climbs by quasi-Newton steps whose gradient is the E step's (Fisher's identity): one pass over
the rows per step as in EM, without EM's slow last mile. First three plain states are fitted, from several
starting points and with two views of the level; then they get their names, the trending regime gets its two
directions, and the whole is finished. Nothing here is random, and nothing depends on threads.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from market.table import DataError
from regimes.chain import stationary
from regimes.range_kernels import (
    DRIFT,
    ECHO,
    HALF_DOF,
    LENGTH,
    LEVEL,
    LIKELIHOOD,
    MEMORY,
    MOVE,
    N_EMISSION,
    SHOCK,
    SHOCK_LIMIT,
    VOLATILITY,
    bar_likelihood,
    emission_gradient,
    expectation,
    follow,
)
from regimes.regime import REGIME_NAMES, Regime
from regimes.season import N_SEASON, centered_mean, hours_of_week, learned_season, seasonal

N_REGIMES = len(REGIME_NAMES)
#: Hidden states: ranging, the trend up, the trend down, volatile.
STATE_REGIME = np.array([Regime.RANGING, Regime.TRENDING, Regime.TRENDING, Regime.VOLATILE], dtype=np.int8)
STATE_SIGN = np.array([0.0, 1.0, -1.0, 0.0])
PLAIN_REGIME = np.arange(N_REGIMES, dtype=np.int8)
PLAIN_SIGN = np.zeros(N_REGIMES)

# Shock and memory together: what lasts longer than a day or two is a matter of regimes and of the level.
MOST_PERSISTENCE = 0.96
# Prior pseudo-observations that keep a small sample sane; they do not show in ten thousand rows. Means and
# deviations of: logit of the persistence, logit of the shock's share in it, log of HALF_DOF - 1.
PRIOR = {1: (2.0, 1.5), 2: (-2.5, 1.5), 3: (math.log(2.0), 0.7)}
TRANSITION_PRIOR = 1.0  # further transitions of every kind: no state may be out of reach
BOUNDS = ((-16.0, 0.0), (-5.0, 8.0), (-7.0, 2.0), (math.log(0.05), math.log(14.0)), (0.0, 0.4), (-0.4, 0.4))
FIRST_DRIFT = 0.08
START_QUANTILES = ((0.2, 0.55, 0.9), (0.1, 0.5, 0.9), (0.3, 0.7, 0.95))
VIEW_BARS = 1001  # span of the centred mean that is the second view of the level (training rows only)
FADE = 0.05  # per unit of gain: the level comes home after some twenty times its own memory
# Rates at which the level may follow; 0.004 follows within about four days of hourly bars.
GAINS = (0.0, 0.001, 0.002, 0.004)
NAMING_HORIZON = 24
NAMING_ERRORS = 3.0
MIN_SHARE = 0.02  # a state with less of the time is an outlier, not a regime


@dataclass(frozen=True, eq=False)
class SwitchingLaw:
    """A fitted law.

    Parameters
    ----------
    emission : float64 (3, N_EMISSION)
        One row per :class:`Regime`, see ``regimes.range_kernels``.
    transition : float64 (s, s)
        ``transition[i, j]`` = P(state j now | state i one bar ago), states as in ``STATE_REGIME``.
    stationary : float64 (s,)
        Long-run share of each state: the belief before anything is known.
    season, center : float64 (N_SEASON,)
        Weights of the hour and the weekend in the log volatility, and what the hours are measured from.
    gain : float64 (1,)
        Step of the log level per unit of score.
    """

    emission: np.ndarray
    transition: np.ndarray
    stationary: np.ndarray
    season: np.ndarray
    center: np.ndarray
    gain: np.ndarray

    @classmethod
    def read(cls, array: Callable[[str, tuple[int, ...]], np.ndarray]) -> Self:
        """Return a saved law; ``array(name, shape)`` reads one of its arrays."""
        s = STATE_REGIME.size
        shapes = ((N_REGIMES, N_EMISSION), (s, s), (s,), (N_SEASON,), (N_SEASON,), (1,))
        return cls(*(array(field.name, shape) for field, shape in zip(fields(cls), shapes, strict=True)))

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return its arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def seasonal(self, time: np.ndarray) -> np.ndarray:
        """Return the multiplier of the volatility at each time (bar close, nanoseconds UTC)."""
        return np.exp(seasonal(hours_of_week(time) - self.center, self.season))

    def memory(self) -> np.ndarray:
        """Return the memory of the filter before anything is known."""
        return np.concatenate([self.stationary, np.ones(N_REGIMES), [0.0, 0.0]])

    def filtered(self, bars: np.ndarray, series: np.ndarray, time: np.ndarray, memory: np.ndarray) -> tuple:
        """Return filtered probabilities (n, s) and the journal (n, 2) of the filter; advances the memory.

        The columns of the journal are LEVEL and LIKELIHOOD, see ``regimes.range_kernels.follow``.
        """
        out, journal = np.empty((len(bars), self.stationary.size)), np.empty((len(bars), 2))
        regime, sign = _states(self.stationary.size)
        gain = float(self.gain[0])
        follow(
            bars,
            series,
            self.seasonal(time),
            self.emission,
            regime,
            sign,
            self.transition,
            gain,
            FADE * gain,
            memory,
            out,
            journal,
        )
        return out, journal


@dataclass(frozen=True)
class SwitchingFit:
    """How a fit ended.

    Parameters
    ----------
    log_likelihood : float
        Nats per training row, each row given the rows before it.
    n_passes : float
        Passes over the training rows, those over a part of them counted in proportion.
    variance_ratio : tuple of float
        Variance ratio over a day of bars within each regime, in order of :class:`Regime`: what tells
        trending from ranging.
    naming_errors : float
        By how many standard errors the ratio of trending is above that of ranging.
    n_rejected : int
        Starts that were rejected as degenerate on the way.
    """

    log_likelihood: float
    n_passes: float
    variance_ratio: tuple[float, float, float]
    naming_errors: float
    n_rejected: int


@dataclass(frozen=True)
class Effort:
    """How hard a fit tries; see the fields of the detector's config."""

    min_dwell_bars: float
    likeness: float
    largest_gain: float
    start_rows: int
    start_iterations: int
    n_iterations: int
    tolerance: float


def estimate(
    bars: np.ndarray, series: np.ndarray, time: np.ndarray, effort: Effort, place: str
) -> tuple[SwitchingLaw, SwitchingFit]:
    """Return the law of training rows, and how the fit ended.

    Parameters
    ----------
    bars, series
        From ``regimes.range_kernels.read_bars``.
    time : int64 (n,)
        Bar close, nanoseconds UTC.
    effort : Effort
    place : str
        What to call the detector in messages.

    Raises
    ------
    DataError
        If every start ends degenerate.
    """
    known = bars[:, LENGTH] > 0
    log_range = np.log(bars[known, LENGTH])
    season, center = learned_season(time[known], log_range)
    blank = SwitchingLaw(
        np.zeros((N_REGIMES, N_EMISSION)), np.eye(N_REGIMES), np.ones(N_REGIMES), season, center, np.zeros(1)
    )
    multiplier = blank.seasonal(time)
    level_range = log_range - np.log(multiplier[known])
    slow = np.interp(np.arange(len(bars)), np.flatnonzero(known), centered_mean(level_range, VIEW_BARS))
    slow -= slow.mean()
    climb = _Climb(bars, series, effort)
    latest = slice(max(0, len(bars) - effort.start_rows), None)
    starts = []
    for view in (np.zeros(len(bars)), slow):
        smooth = centered_mean(level_range - view[known], 24)
        for quantiles in START_QUANTILES:
            raw = _first(np.quantile(smooth, quantiles), effort)
            scale = multiplier * np.exp(view)
            raw = climb.ascend(raw, scale, latest, effort.start_iterations, effort.tolerance)
            law = replace(blank, **climb.law(raw))
            law, likelihood = _leveled(law, climb, time, latest, effort.largest_gain)
            starts.append((likelihood, -len(starts), raw, law))
    reason = ""
    starts.sort(key=lambda one: one[:2], reverse=True)
    for rejected, (_, _, raw, law) in enumerate(starts):
        law, summary, reason = _finish(raw, law, climb, multiplier, time, effort)
        if not reason:
            return law, replace(summary, n_rejected=rejected)
    raise DataError(
        f"{place}: no sound model in {len(starts)} starts over {len(bars)} rows; the last one: {reason}; "
        f"give more rows"
    )


def _finish(
    raw: np.ndarray,
    law: SwitchingLaw,
    climb: "_Climb",
    multiplier: np.ndarray,
    time: np.ndarray,
    effort: Effort,
) -> tuple[SwitchingLaw, SwitchingFit, str]:
    # Name the states of a start, give the trend its directions, and climb to the top.
    whole = slice(None)
    scale = multiplier * np.exp(_level(law, climb, time))
    raw = climb.ascend(raw, scale, whole, effort.start_iterations, effort.tolerance)
    law = replace(law, **climb.law(raw))
    ratio, error = _variance_ratios(climb, raw, scale)
    order, errors = named_order(law.emission[:, VOLATILITY], ratio, error)
    raw = _with_directions(raw, order)
    law, _ = _leveled(replace(law, **climb.law(raw)), climb, time, whole, effort.largest_gain)
    scale = multiplier * np.exp(_level(law, climb, time))
    raw = climb.ascend(raw, scale, whole, effort.n_iterations, effort.tolerance)
    law, likelihood = _leveled(replace(law, **climb.law(raw)), climb, time, whole, effort.largest_gain)
    n = len(climb.bars)
    summary = SwitchingFit(likelihood / n, climb.rows_passed / n, tuple(ratio[order].tolist()), errors, 0)
    return law, summary, _degenerate(law)


def _degenerate(law: SwitchingLaw) -> str:
    # Says what is wrong with a fitted law; empty if nothing is.
    if not all(np.isfinite(array).all() for array in law.arrays().values()):
        return "its parameters are not finite"
    share = np.bincount(STATE_REGIME, law.stationary).min()
    return f"a regime holds {share:.1%} of the time" if share < MIN_SHARE else ""


def named_order(volatility: np.ndarray, ratio: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, float]:
    """Return which plain state is ranging, trending and volatile, by their statistics alone.

    The state of highest volatility is volatile. Of the two others the one whose moves go on is trending, the
    one whose moves come back is ranging: that of the higher variance ratio, where the two ratios differ by
    more than ``NAMING_ERRORS`` standard errors; where they do not, the calmer one is ranging.

    Parameters
    ----------
    volatility, ratio, error : float64 (3,)
        Of each state: volatility, variance ratio, and the ratio's standard error.

    Returns
    -------
    int64 (3,), float
        State of each :class:`Regime`, and by how many standard errors the ratio of trending is the higher.
    """
    ranging, trending, volatile = np.argsort(volatility, kind="stable")
    errors = (ratio[trending] - ratio[ranging]) / math.hypot(error[trending], error[ranging])
    if errors < -NAMING_ERRORS:
        ranging, trending, errors = trending, ranging, -errors
    return np.array([ranging, trending, volatile]), float(errors)


def _variance_ratios(climb: "_Climb", raw: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Lo and MacKinlay's ratio from autocorrelations, over pairs of rows that both belong to the state.
    _, smoothed, cluster = climb.expect(raw, scale, slice(None))
    ratio, error = np.empty(N_REGIMES), np.empty(N_REGIMES)
    volatility = climb.law(raw)["emission"][:, VOLATILITY]
    for r in range(N_REGIMES):
        shock = climb.bars[:, MOVE] / (volatility[r] * scale * np.sqrt(cluster[:, r]))
        shock = np.clip(shock, -SHOCK_LIMIT, SHOCK_LIMIT)
        weight = np.where((smoothed[:, r] > 0.5) & (climb.bars[:, LENGTH] > 0), smoothed[:, r], 0.0)
        square = max(float((weight * shock**2).sum() / max(weight.sum(), 1.0)), 1e-12)
        total, spread = 1.0, 0.0
        for lag in range(1, NAMING_HORIZON):
            pairs = weight[lag:] * weight[:-lag]
            count = max(float(pairs.sum()), 1.0)
            part = 2.0 * (1.0 - lag / NAMING_HORIZON)
            total += part * float((pairs * shock[lag:] * shock[:-lag]).sum()) / count / square
            spread += part * part / count
        ratio[r], error[r] = total, math.sqrt(spread)
    return ratio, error


def _states(n_states: int) -> tuple[np.ndarray, np.ndarray]:
    return (PLAIN_REGIME, PLAIN_SIGN) if n_states == N_REGIMES else (STATE_REGIME, STATE_SIGN)


def _level(law: SwitchingLaw, climb: "_Climb", time: np.ndarray) -> np.ndarray:
    return law.filtered(climb.bars, climb.series, time, law.memory())[1][:, LEVEL]


def _leveled(
    law: SwitchingLaw, climb: "_Climb", time: np.ndarray, rows: slice, largest: float
) -> tuple[SwitchingLaw, float]:
    # The law with the rate of the level that foretells the rows best, and its log likelihood.
    best = None
    for gain in GAINS:
        if gain <= largest:
            one = replace(law, gain=np.array([gain]))
            _, journal = one.filtered(climb.bars[rows], climb.series[rows], time[rows], one.memory())
            likelihood = float(journal[:, LIKELIHOOD].sum())
            if best is None or likelihood > best[1]:
                best = one, likelihood
    return best


def _first(log_range: np.ndarray, effort: Effort) -> np.ndarray:
    # Raw parameters of three plain states at given log ranges; a range is 1.6 volatilities on average.
    emission = np.zeros((N_EMISSION, N_REGIMES))
    emission[0] = log_range - math.log(1.6)
    for row, (mean, _) in PRIOR.items():
        emission[row] = mean
    transition = np.zeros((N_REGIMES, N_REGIMES))
    np.fill_diagonal(transition, -math.log(5.0))  # a dwell of six times the least one
    return np.concatenate([emission.ravel(), transition.ravel()])


def _with_directions(raw: np.ndarray, order: np.ndarray) -> np.ndarray:
    # The same states in the order of their names, the trending one as two with a small drift.
    size = N_EMISSION * N_REGIMES
    emission = raw[:size].reshape(N_EMISSION, N_REGIMES)[:, order].copy()
    emission[DRIFT, Regime.TRENDING] = FIRST_DRIFT
    names = order[STATE_REGIME]
    transition = raw[size:].reshape(N_REGIMES, N_REGIMES)[np.ix_(names, names)].copy()
    transition[1, 2] = transition[2, 1] = -3.0  # a trend rarely turns at once
    return np.concatenate([emission.ravel(), transition.ravel()])


class _Climb:
    """The penalised log likelihood of training rows as a function of unbounded parameters, and its ascent.

    Raw parameters are, one per regime: log volatility, logit of the persistence, logit of the shock's share
    in it, log of HALF_DOF - 1, drift, echo; then per state, on the diagonal, the logit of the chance to
    leave over its bound, and beside it the logs of the chances to arrive.
    """

    def __init__(self, bars: np.ndarray, series: np.ndarray, effort: Effort) -> None:
        self.bars, self.series = bars, series
        self.most_leaving = 1.0 / effort.min_dwell_bars
        self.likeness = effort.likeness
        self.rows_passed = 0

    def law(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        """Return emission, transition and stationary shares of raw parameters."""
        emission, _, _ = self._emission(raw)
        transition, _, _, _ = self._transition(raw)
        return {"emission": emission, "transition": transition, "stationary": stationary(transition)}

    def ascend(
        self, raw: np.ndarray, scale: np.ndarray, rows: slice, n_iterations: int, tolerance: float
    ) -> np.ndarray:
        """Return raw parameters after at most so many quasi-Newton steps."""
        from scipy.optimize import minimize  # takes half a second to import

        n = len(self.bars[rows])
        bounds = [bound for bound in BOUNDS for _ in range(N_REGIMES)]
        if len(raw) - len(bounds) == N_REGIMES**2:  # plain states have no direction
            bounds[DRIFT * N_REGIMES : (DRIFT + 1) * N_REGIMES] = [(0.0, 0.0)] * N_REGIMES
        else:
            for regime in (Regime.RANGING, Regime.VOLATILE):
                bounds[DRIFT * N_REGIMES + regime] = (0.0, 0.0)
        bounds += [(-14.0, 14.0)] * (len(raw) - len(bounds))

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.value(point, scale, rows)
            return -value / n, -gradient / n

        options = {"maxiter": n_iterations, "maxfun": 2 * n_iterations, "ftol": tolerance, "gtol": 1e-6}
        return minimize(objective, raw, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

    def expect(self, raw: np.ndarray, scale: np.ndarray, rows: slice) -> tuple:
        """Return log likelihood, smoothed states (n, s) and variances over their long-run values (n, r)."""
        likelihood, smoothed, cluster, _, _, _ = self._pass(raw, scale, rows)
        return likelihood, smoothed, cluster

    def value(self, raw: np.ndarray, scale: np.ndarray, rows: slice) -> tuple[float, np.ndarray]:
        """Return the penalised log likelihood and its gradient."""
        likelihood, smoothed, _, slope, drag, counts = self._pass(raw, scale, rows)
        emission, persistence, share = self._emission(raw)
        regime, sign = _states(len(counts))
        by = np.empty((N_REGIMES, N_EMISSION))
        emission_gradient(self.bars[rows], scale[rows], emission, regime, sign, smoothed, slope, drag, by)
        gradient = np.empty((N_EMISSION, N_REGIMES))
        gradient[0] = by[:, VOLATILITY]
        both = by[:, SHOCK] * share + by[:, MEMORY] * (1 - share)
        gradient[1] = both * persistence * (1 - persistence / MOST_PERSISTENCE)
        gradient[2] = (by[:, SHOCK] - by[:, MEMORY]) * persistence * share * (1 - share)
        gradient[3] = by[:, HALF_DOF] * (emission[:, HALF_DOF] - 1)
        gradient[4], gradient[5] = by[:, DRIFT], by[:, ECHO]
        likeness = self.likeness * len(scale[rows])
        for row, (mean, deviation) in PRIOR.items():
            value = raw[row * N_REGIMES : (row + 1) * N_REGIMES]
            away, unlike = (value - mean) / deviation, value - value.mean()
            likelihood -= 0.5 * float((away**2).sum() + likeness * (unlike**2).sum())
            gradient[row] -= away / deviation + likeness * unlike
        transition, use, leaving, arrival = self._transition(raw)
        likelihood += TRANSITION_PRIOR * float(np.log(transition).sum())
        counts += TRANSITION_PRIOR
        stays = np.diagonal(counts).copy()
        np.fill_diagonal(counts, 0.0)
        left = counts.sum(axis=1)
        by_chain = counts - arrival * left[:, None]
        np.fill_diagonal(by_chain, (left - stays * leaving / (1 - leaving)) * (1 - use))
        return likelihood, np.concatenate([gradient.ravel(), by_chain.ravel()])

    def _pass(self, raw: np.ndarray, scale: np.ndarray, rows: slice) -> tuple:
        emission, _, _ = self._emission(raw)
        transition, _, _, _ = self._transition(raw)
        regime, sign = _states(len(transition))
        bars, n = self.bars[rows], len(self.bars[rows])
        density, slope = np.empty((n, regime.size)), np.empty((n, regime.size, 3))
        cluster, drag = np.empty((n, N_REGIMES)), np.empty((n, N_REGIMES, 3))
        slopes_of_log_gamma = _digamma(emission[:, HALF_DOF])
        bar_likelihood(
            bars,
            self.series[rows],
            scale[rows],
            emission,
            slopes_of_log_gamma,
            regime,
            sign,
            density,
            slope,
            cluster,
            drag,
        )
        smoothed, counts = np.empty_like(density), np.empty_like(transition)
        likelihood = expectation(density, transition, np.full(regime.size, 1 / regime.size), smoothed, counts)
        self.rows_passed += n
        return likelihood, smoothed, cluster, slope, drag, counts

    def _emission(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = raw[: N_EMISSION * N_REGIMES].reshape(N_EMISSION, N_REGIMES)
        persistence = MOST_PERSISTENCE * _logistic(rows[1])
        share = _logistic(rows[2])
        emission = np.empty((N_REGIMES, N_EMISSION))
        emission[:, VOLATILITY] = np.exp(rows[0])
        emission[:, SHOCK], emission[:, MEMORY] = persistence * share, persistence * (1 - share)
        emission[:, HALF_DOF] = 1 + np.exp(rows[3])
        emission[:, DRIFT], emission[:, ECHO] = rows[4], rows[5]
        return emission, persistence, share

    def _transition(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rows = raw[N_EMISSION * N_REGIMES :]
        k = math.isqrt(rows.size)
        rows = rows.reshape(k, k)
        use = _logistic(np.diagonal(rows))
        leaving = self.most_leaving * use
        arrival = np.exp(rows - rows.max())
        np.fill_diagonal(arrival, 0.0)
        arrival /= arrival.sum(axis=1, keepdims=True)
        transition = arrival * leaving[:, None]
        np.fill_diagonal(transition, 1 - leaving)
        return transition, use, leaving, arrival


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _digamma(x: np.ndarray) -> np.ndarray:
    from scipy.special import digamma

    return digamma(x)

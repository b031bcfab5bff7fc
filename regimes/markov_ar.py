"""``markov_ar``: a Markov-switching model of whole bars, their range included, filtered forward.

Ranges carry most of what a bar says about its regime. The model therefore reads open, high, low and close
with their joint density, where other detectors read a window's average of them: it reacts within hours.
"""

import math
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from configs.load import Config, validate
from market.table import DataError, Table
from regimes.chain import chain_of_states, check_chain
from regimes.detector import (
    DETECTORS,
    by_regime,
    require_fitted,
    save_detector,
    saved_detector,
    select_columns,
)
from regimes.range_kernels import (
    ECHO,
    HALF_DOF,
    LENGTH,
    LIKELIHOOD,
    MEMORY,
    N_NODES,
    SHOCK,
    VOLATILITY,
    read_bars,
)
from regimes.regime import REGIME_NAMES, RegimeProbabilities
from regimes.switching import STATE_REGIME, Effort, SwitchingFit, SwitchingLaw, estimate

PLACE = "detector markov_ar"
MIN_ROWS = 1000
# Differences shrink by e in about one dwell, and where regimes and level stand in for each other in 1.7 steps
# of the level; after this many of them they are below 1e-6 (measured, on BTC and on every scenario).
FORGET_DWELLS = 16
FORGET_STEPS = 30


class MarkovArConfig(Config):
    """What a regime is taken to be, and how hard the fit tries."""

    min_dwell_bars: float = Field(
        20.0,
        ge=2,
        le=10_000,
        description="Expected stay in a state, at least, bars; what ends sooner is a burst within a regime.",
    )
    likeness: float = Field(
        0.03,
        ge=0,
        le=100,
        description="How alike clustering and tails of the regimes are a priori, nats per row and squared "
        "log difference. Without it, states of real markets differ in how volatility moves, not how much.",
    )
    largest_gain: float = Field(
        0.004,
        ge=0,
        le=0.02,
        description="Fastest the level of volatility may follow the bars; 0.004 forgets half of the past in "
        "about two days of hourly bars, 0 keeps the level of the training rows for ever.",
    )
    start_rows: int = Field(
        15_000, ge=500, description="The latest training rows that every start climbs on."
    )
    start_iterations: int = Field(12, ge=1, le=1000, description="Quasi-Newton steps of each start.")
    n_iterations: int = Field(40, ge=1, le=10_000, description="Steps the best start gets at most.")
    tolerance: float = Field(1e-7, gt=0, description="Relative gain per step that ends the fit.")
    max_rows: int = Field(60_000, ge=1000, description="The latest training rows that are fitted.")


@DETECTORS.register("markov_ar")
class MarkovArDetector:
    """Filtered probabilities of a hidden Markov chain that emits whole bars, summed by the states' names.

    States are ranging, a trend up, a trend down, and volatile. Given the state, a bar's log path is a
    Brownian motion with

    * a mean of the trend's drift and a share of the return before (the autoregression);
    * a variance that is inverse gamma, which makes returns Student t, around an expectation of four factors:
      the regime's volatility, its own GARCH recursion on past returns, the hour of the week, and a level
      common to all regimes that follows the bars slowly, so that "volatile" keeps its meaning over years.

    The likelihood is that of high, low and close given the open, exact but for a sum over twenty nodes. A row
    with an unknown column, or a bar that did not move, carries the belief forward by the transition only. The
    belief starts at the stationary distribution, the level at that of the training rows. Row t uses rows up
    to and including t.

    Attributes
    ----------
    law : SwitchingLaw
        What was learned.
    chain : float64 (3, 3)
        The transition of the named regimes.
    summary : SwitchingFit or None
        How the fit ended; None for a loaded detector.

    Parameters
    ----------
    config : MarkovArConfig
        Defaults if not given.

    Source: Hamilton (1989), Econometrica 57; Haas, Mittnik, Paolella (2004), Journal of Financial
    Econometrics 2; Creal, Koopman, Lucas (2013), Journal of Applied Econometrics 28.
    """

    Config = MarkovArConfig
    columns = ("range_1", "body_1", "lower_wick_1")

    def __init__(self, config: MarkovArConfig | None = None) -> None:
        self.config = config or MarkovArConfig()
        self.warmup = 0
        self.fitted_until: int | None = None
        self.law: SwitchingLaw | None = None
        self.summary: SwitchingFit | None = None
        self._memory = np.empty(0)
        self._started = False

    def fit(self, features: Table) -> Self:
        """Learn from training rows and return self.

        Raises
        ------
        DataError
            If there are too few known rows, or every start ends degenerate.
        """
        config = self.config
        rows = features[max(0, len(features) - config.max_rows) :]
        bars, series = self._read(rows)
        known = int((bars[:, LENGTH] > 0).sum())
        if known < MIN_ROWS:
            raise DataError(
                f"{PLACE}: {known} of {len(rows)} training rows moved and are known in all of "
                f"{', '.join(self.columns)}; fitting needs at least {MIN_ROWS}"
            )
        effort = Effort(
            config.min_dwell_bars,
            config.likeness,
            config.largest_gain,
            config.start_rows,
            config.start_iterations,
            config.n_iterations,
            config.tolerance,
        )
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # BLAS splits sums by threads, and a fit must not depend on their number
            law, self.summary = estimate(bars, series, rows.time, effort, PLACE)
        self._set(law)
        self.fitted_until = int(features.time[-1])
        return self

    def _set(self, law: SwitchingLaw) -> None:
        self.law = law
        self.chain = chain_of_states(law.transition, law.stationary, STATE_REGIME, len(REGIME_NAMES))
        dwell = 1 / (1 - np.diagonal(law.transition))
        gain = float(law.gain[0])
        self.warmup = math.ceil(max(FORGET_DWELLS * dwell.max(), FORGET_STEPS / gain if gain > 0 else 0.0))
        self._memory, self._started = law.memory(), False

    def _read(self, features: Table) -> tuple[np.ndarray, np.ndarray]:
        shape = select_columns(features, self.columns, PLACE)
        bars, series = np.empty((len(features), 2)), np.empty((len(features), N_NODES))
        read_bars(shape, bars, series)
        return bars, series

    def fresh(self) -> Self:
        """Return the same fitted parameters with empty memory."""
        other = type(self)(self.config)
        if self.law is not None:
            other._set(self.law)
            other.fitted_until, other.summary = self.fitted_until, self.summary
        return other

    def update(self, features: Table) -> RegimeProbabilities:
        """Return filtered regime probabilities, one row per row: NaN before the first known row."""
        return self._advance(features)[0]

    def log_likelihood(self, features: Table) -> np.ndarray:
        """Return float64 (n,): log density of each bar's high, low and close given all bars before it, nats.

        In logs of price over the open, unknown rows 0, NaN before the first known row. Advances the memory as
        ``update`` does. The sum over rows that were not fitted is what models are compared by.
        """
        return self._advance(features)[1]

    def _advance(self, features: Table) -> tuple[RegimeProbabilities, np.ndarray]:
        require_fitted(self, PLACE)
        out = np.full((len(features), len(REGIME_NAMES)), np.nan)
        likelihood = np.full(len(features), np.nan)
        bars, series = self._read(features)
        first = 0
        if not self._started:
            known = bars[:, LENGTH] > 0
            self._started = bool(known.any())
            first = int(np.argmax(known)) if self._started else len(features)
        if first < len(features):
            hidden, journal = self.law.filtered(
                bars[first:], series[first:], features.time[first:], self._memory
            )
            likelihood[first:] = journal[:, LIKELIHOOD]
            out[first:] = by_regime(hidden, STATE_REGIME)
        return RegimeProbabilities(features.time, out, REGIME_NAMES), likelihood

    def save(self, folder: Path) -> None:
        """Write the fitted detector into a folder, as JSON."""
        require_fitted(self, PLACE)
        save_detector(folder, "markov_ar", self, self.law.arrays())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return a saved detector with empty memory.

        Raises
        ------
        DataError, ConfigError
            If the file is missing or damaged.
        """
        saved = saved_detector(folder, "markov_ar")
        detector = cls(validate(MarkovArConfig, saved.config, str(saved.path)))
        law = SwitchingLaw.read(saved.array)
        _check(law, saved.path)
        detector._set(law)
        detector.fitted_until = saved.fitted_until
        return detector


def _check(law: SwitchingLaw, path: Path) -> None:
    check_chain(law.transition, f"{path}: parameters.transition")
    if (law.stationary < 0).any() or abs(law.stationary.sum() - 1) > 1e-9:
        raise DataError(f"{path}: parameters.stationary must lie in 0..1 and sum to 1")
    if law.gain[0] < 0:
        raise DataError(f"{path}: parameters.gain is {law.gain[0]}; it must not be negative")
    emission = law.emission
    sound = (emission[:, VOLATILITY] > 0) & (emission[:, HALF_DOF] > 1) & (np.abs(emission[:, ECHO]) < 1)
    sound &= (emission[:, SHOCK] >= 0) & (emission[:, MEMORY] >= 0)
    sound &= emission[:, SHOCK] + emission[:, MEMORY] < 1
    if not sound.all():
        raise DataError(
            f"{path}: parameters.emission is {emission.tolist()}; volatilities must be positive, shock + "
            f"memory below 1, half the degrees of freedom above 1"
        )

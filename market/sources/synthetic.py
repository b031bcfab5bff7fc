"""A market whose true regimes are known: for tests, for first runs, and for measuring detectors.

A hidden Markov chain switches between a ranging, a trending and a volatile regime. Given the regime, a
bar's log return is Student t around a small expectation that depends on earlier closes only:

* *ranging*: low volatility, pulled back to a slow average of past closes;
* *trending*: a drift whose sign is drawn when the episode begins and kept until it ends;
* *volatile*: high volatility in clusters, fat tails, and overreaction: most of a large move of the last
  hours is taken back.

The variance of each regime follows its own GARCH recursion on past returns (Haas, Mittnik, Paolella
2004), so it is a function of past closes too. High and low are the extremes of the path inside the bar,
and each open is the close before. Volume follows the bar's range, the hour of the week and noise of its
own: it says nothing about the regime that the range does not say.

Targets are the moments of hourly BTC/USDT, 2018 to 2024; ``benchmarks/synthetic_moments.py`` prints both
side by side. Known differences: inside a bar the path is Brownian, so Parkinson's volatility equals that
of the closes (in BTC it is 7 % above), and volatility remembers weeks, not months.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compute.seeds import stream
from market.bars import OHLCV, Bars, timeframe_ns
from market.sources.kernels import fade, switch, walk
from market.sources.law import TrueLaw, season
from market.sources.oracle import bar_oracle, close_oracle
from market.sources.scenarios import REGIME_NAMES, SyntheticConfig
from market.table import Table

_BLOCK_BARS = 4096  # bars drawn at once: bounds the memory, changes no number


@dataclass(frozen=True, eq=False)
class SyntheticMarket:
    """Bars and the truth behind them.

    Parameters
    ----------
    config : SyntheticConfig
        The true parameters.
    bars : Bars
        n rows.
    regime : int8 (n,)
        True regime of each bar, a position in ``REGIME_NAMES``.
    direction : int8 (n,)
        Sign of the trend while trending, else 0.
    """

    config: SyntheticConfig
    bars: Bars
    regime: np.ndarray
    direction: np.ndarray

    @cached_property
    def oracle(self) -> Table:
        """The best causal regime probabilities from high, low and close, computed when first asked for."""
        return bar_oracle(self.config, self.bars)

    @cached_property
    def oracle_close(self) -> Table:
        """The best causal regime probabilities from closes alone."""
        return close_oracle(self.config, self.bars)


def synthetic_market(config: SyntheticConfig) -> SyntheticMarket:
    """Return bars with known regimes.

    The same config gives the same bytes, and a longer market begins with the bars of a shorter one.

    Parameters
    ----------
    config : SyntheticConfig
        See its fields.
    """
    law = TrueLaw.of(config)
    state = _hidden_states(config, law)
    regime = law.regime_of[state]
    direction = law.direction_of[state]
    half_dof = 0.5 * law.dof[state]
    # Inverse gamma with mean one: the variance of the bar over its expectation.
    mixing = (half_dof - 1) / stream(config.seed, "synthetic", "mixing").standard_gamma(half_dof)

    log_path = np.empty((config.n_bars, 3))
    log_close = np.zeros(1)
    memory = np.column_stack([np.zeros(len(REGIME_NAMES)), np.ones(len(REGIME_NAMES))])
    inside, above, below = (stream(config.seed, "synthetic", name) for name in ("path", "above", "below"))
    for first in range(0, config.n_bars, _BLOCK_BARS):
        rows = slice(first, min(first + _BLOCK_BARS, config.n_bars))
        shape = (rows.stop - first, config.steps)
        walk(
            law.parameters,
            law.scale[rows],
            regime[rows],
            direction[rows],
            mixing[rows],
            inside.standard_normal(shape),
            above.standard_exponential(shape),
            below.standard_exponential(shape),
            memory,
            log_close,
            log_path[rows],
        )
    truth = regime, direction.astype(np.int8)
    for array in truth:
        array.flags.writeable = False
    return SyntheticMarket(config, _bars(config, law, log_path), *truth)


def _hidden_states(config: SyntheticConfig, law: TrueLaw) -> np.ndarray:
    uniform = stream(config.seed, "synthetic", "regime").random(config.n_bars)
    state = np.empty(config.n_bars, dtype=np.int64)
    # The first bar is drawn from the long-run law, so no bar is special.
    first = np.searchsorted(np.cumsum(law.stationary), uniform[0], side="right")
    state[0] = min(first, law.stationary.size - 1)
    switch(uniform[1:], np.cumsum(law.transition, axis=1), state[0], state[1:])
    return state


def _bars(config: SyntheticConfig, law: TrueLaw, log_path: np.ndarray) -> Bars:
    price = config.price * np.exp(log_path)
    close = price[:, 2]
    open_ = np.append(config.price, close[:-1])
    # exp rounds: an extreme may come out one unit short of a price that it must enclose.
    high = np.maximum(price[:, 0], np.maximum(open_, close))
    low = np.minimum(price[:, 1], np.minimum(open_, close))
    volume = _volume(config, law, np.log(high / low))
    values = np.column_stack([open_, high, low, close, volume])
    return Bars(law.time, values, OHLCV, config.symbol, timeframe_ns(config.timeframe))


def _volume(config: SyntheticConfig, law: TrueLaw, log_range: np.ndarray) -> np.ndarray:
    rule = config.volume
    slow = stream(config.seed, "synthetic", "volume").standard_normal(config.n_bars)
    fade(rule.memory, slow)
    fast = stream(config.seed, "synthetic", "volume jitter").standard_normal(config.n_bars)
    typical_range = 1.5 * np.median([regime.volatility for regime in config.regimes])
    log_volume = rule.elasticity * np.log(np.maximum(log_range, 1e-9) / typical_range)
    log_volume += rule.noise * slow + rule.jitter * fast
    opened = law.time - timeframe_ns(config.timeframe)
    return rule.typical * season(opened, rule.day_swing, rule.weekend) * np.exp(log_volume)

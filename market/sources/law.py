"""The true law of a synthetic market as arrays: what the generator draws from and the oracle filters with."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from market.bars import timeframe_ns, timerange_ns
from market.sources import kernels
from market.sources.scenarios import SyntheticConfig

NS_PER_HOUR = 3_600_000_000_000


@dataclass(frozen=True, eq=False)
class TrueLaw:
    """Hidden states, one per regime and one per direction where the regime has a trend, and their law.

    Parameters
    ----------
    time : int64 (n,)
        Close of each bar, nanoseconds UTC.
    scale : float64 (n,)
        Multiplier of volatility: hour of the week and slow drift. A function of the clock alone.
    parameters : float64 (k, N_PARAMETERS)
        One row per regime, as the kernels read them.
    regime_of : int8 (s,)
        Regime of each state.
    direction_of : float64 (s,)
        -1, 0 or 1.
    transition : float64 (s, s)
        ``transition[i, j]`` = P(state j now | state i one bar ago); rows sum to one.
    stationary : float64 (s,)
        Long-run share of each state, and the law of the first.
    """

    time: np.ndarray
    scale: np.ndarray
    parameters: np.ndarray
    regime_of: np.ndarray
    direction_of: np.ndarray
    transition: np.ndarray
    stationary: np.ndarray

    @classmethod
    def of(cls, config: SyntheticConfig) -> Self:
        """Return the law that a config describes."""
        start, _ = timerange_ns(f"{config.start}-")
        interval = timeframe_ns(config.timeframe)
        opened = start + interval * np.arange(config.n_bars, dtype=np.int64)
        typical_square = np.mean(_season(np.arange(168), config.day_swing, config.weekend) ** 2)
        turn = 2 * np.pi * np.arange(config.n_bars) / config.drift_bars
        scale = season(opened, config.day_swing, config.weekend) / np.sqrt(typical_square)
        regime_of, direction_of, transition = _chain(config)
        return cls(
            opened + interval,
            scale * np.exp(config.drift_size * np.sin(turn)),
            _parameters(config),
            regime_of,
            direction_of,
            transition,
            _long_run(transition),
        )

    @property
    def dof(self) -> np.ndarray:
        """Degrees of freedom of each state, float64 (s,)."""
        return self.parameters[self.regime_of, kernels.DOF]


def season(opened: np.ndarray, swing: float, weekend: float) -> np.ndarray:
    """Return a factor for the hour of the week in which each bar opens.

    Parameters
    ----------
    opened : int64 (n,)
        Nanoseconds UTC.
    swing : float
        Log factor at 15:00 UTC, when New York opens; minus that twelve hours away.
    weekend : float
        Factor on Saturday and Sunday.

    Returns
    -------
    float64 (n,)
    """
    # 1970 began on a Thursday; hour 0 is Monday 00:00.
    return _season((opened // NS_PER_HOUR + 72) % 168, swing, weekend)


def _season(hour: np.ndarray, swing: float, weekend: float) -> np.ndarray:
    factor = np.exp(swing * np.cos(2 * np.pi * (hour % 24 - 15) / 24))
    return np.where(hour >= 120, weekend * factor, factor)


def _parameters(config: SyntheticConfig) -> np.ndarray:
    matrix = np.empty((len(config.regimes), kernels.N_PARAMETERS))
    for r, regime in enumerate(config.regimes):
        matrix[r, kernels.VOLATILITY] = regime.volatility
        matrix[r, kernels.TREND] = regime.trend
        matrix[r, kernels.PULL] = regime.pull
        matrix[r, kernels.ANCHOR] = 2.0 / (regime.anchor_bars + 1.0)
        matrix[r, kernels.THRESHOLD] = regime.threshold
        matrix[r, kernels.REACH] = regime.reach
        matrix[r, kernels.SHOCK] = regime.shock
        matrix[r, kernels.MEMORY] = regime.memory
        matrix[r, kernels.DOF] = regime.dof
    return matrix


def _chain(config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    states = []  # regime, direction, and the chance of that direction when the regime begins
    for r, regime in enumerate(config.regimes):
        if regime.trend > 0:
            states += [(r, 1.0, regime.up_share), (r, -1.0, 1.0 - regime.up_share)]
        else:
            states += [(r, 0.0, 1.0)]
    transition = np.zeros((len(states), len(states)))
    for i, (r, _, _) in enumerate(states):
        leave = 1.0 / config.regimes[r].dwell_bars
        chance = np.insert(np.array(config.regimes[r].leaving), r, 0.0)
        for j, (other, _, entry) in enumerate(states):
            transition[i, j] = leave * chance[other] * entry
        transition[i, i] = 1.0 - leave
    regime_of = np.array([r for r, _, _ in states], dtype=np.int8)
    return regime_of, np.array([direction for _, direction, _ in states]), transition


def _long_run(transition: np.ndarray) -> np.ndarray:
    # x (P - 1) = 0 with shares that sum to one.
    n_states = len(transition)
    system = np.vstack([transition.T - np.eye(n_states), np.ones(n_states)])
    share = np.linalg.lstsq(system, np.append(np.zeros(n_states), 1.0), rcond=None)[0]
    share = np.clip(share, 0.0, None)
    return share / share.sum()

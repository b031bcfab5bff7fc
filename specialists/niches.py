"""How a specialist behaves: how often it trades, how long it holds, and whether it leans long or short.

Niches are counted in bars, so that one grid serves every timeframe.
"""

import numpy as np

from backtest import kernels
from ga.elites import Axis
from specialists.fitness import Fitness

#: Axes of the archive. 8 doublings of the trades per 1,000 bars, 6 triplings of the hold, 5 fifths of the
#: way from short only to long only.
AXES = (
    Axis("trades_per_1000_bars", 0.5, 128.0, 8, log=True),
    Axis("mean_hold_bars", 1.0, 729.0, 6, log=True),
    Axis("net_exposure", -1.0, 1.0, 5),
)
#: Where behavior stands in an answer, after fitness and Sharpe ratio.
COLUMNS = slice(2, 5)


class NicheFitness(Fitness):
    """The fitness of genomes, and behind it how each behaves on the same rows.

    ``trades_per_1000_bars``
        Trades opened, of the population kernel.
    ``mean_hold_bars``
        Bars at whose close the specialist wants a position, over its trades; 0 without any.
    ``net_exposure``
        Sum of the exposures wanted over the sum of their sizes: 1 is long only, -1 short only, 0 both alike
        or flat.

    The kernel counts neither bars held nor exposure. Its streaming twin does know what is wanted at each
    close, so every genome is followed once more, over the bars where anything can happen; as one genome is
    followed at a time, that costs about ten times what trading does. What the venue makes of the wish
    (margin, lots, room) is no part of the behavior.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        # One bar after falling asleep the position closes, and from the next on nothing is left to follow.
        awake = self.awake != 0
        busy = awake.copy()
        busy[1:] |= awake[:-1]
        busy[2:] |= awake[:-2]
        followed = (self.rows, self._arrays[0], self.awake)
        followed = tuple(np.ascontiguousarray(array[busy]) for array in followed)
        object.__setattr__(self, "_followed", followed)

    @property
    def rotates(self) -> bool:
        """Never: an elite is compared with elites of other generations."""
        return False

    @property
    def n_details(self) -> int:
        """Sharpe ratio and behavior."""
        return 4

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return fitness, Sharpe ratio, behavior, and the rest of a fitness's answer, float64 (p, 5 + ...).

        Parameters
        ----------
        genes : float64 (p, d)
            In the unit cube.
        """
        statistics = self.statistics(genes)
        answer = self.answer(genes, statistics)
        behavior = self.behavior(genes, statistics[:, :, 3].sum(axis=1))
        return np.hstack([answer[:, :2], behavior, answer[:, 2:]])

    def behavior(self, genes: np.ndarray, trades: np.ndarray) -> np.ndarray:
        """Return the behavior of genomes in the order of ``AXES``, float64 (p, 3).

        Parameters
        ----------
        genes : float64 (p, d)
        trades : float64 (p,)
            Trades that each opened.
        """
        family, bounds = self.family, self.limits.bounds()
        rows, prices, awake = self._followed
        wanted = np.empty((len(rows), 3))
        out = np.zeros((len(genes), len(AXES)))
        out[:, 0] = trades * (1000.0 / len(self.bars))
        for i, parameters in enumerate(family.express(family.space.decode(genes))):
            if trades[i] == 0.0:
                continue
            state = np.array([*kernels.SHADOW, *family.fresh])
            family.follow(parameters, rows, prices, awake, bounds, state, wanted)
            exposure = np.ascontiguousarray(wanted[:, 0])
            gross = float(np.abs(exposure).sum())
            if gross > 0.0:
                out[i, 1] = np.count_nonzero(exposure) / trades[i]
                out[i, 2] = float(exposure.sum()) / gross
        return out

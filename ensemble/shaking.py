"""The strategies of all folds with champions that are shaken, to see whether good genes lie on a plain."""

from collections.abc import Sequence

import numpy as np

from backtest.simulate import TARGETS
from compute.seeds import stream
from ensemble.folds import FoldJob
from ensemble.robustness import perturbed
from ensemble.signals import SignalTable
from ensemble.sources import SpecialistSource
from market.table import Table


class Shaken:
    """Decides as the strategies of a walk-forward, with every champion shaken; what forecasters say stays.

    Parameters
    ----------
    job : FoldJob
        All its folds are on disk.
    rows : slice
        The test rows of all folds.
    seed : int
    """

    def __init__(self, job: FoldJob, rows: slice, seed: int) -> None:
        self.job, self.rows, self.seed = job, rows, seed
        self._heard = [self._hear(number) for number in range(len(job.splits))]

    def __call__(self, sigma: float, draw: int) -> Table:
        """Return the targets of one draw: of all bars, flat outside the test rows."""
        job = self.job
        exposure = np.zeros((len(job.bars[: self.rows.stop]), 1))
        for number, (strategy, parts) in enumerate(self._heard):
            test = job.splits[number].test
            bars, core = job.bars[: test.stop], job.core[: test.stop]
            signals, regimes, labels = parts
            if sigma:
                rng = stream(self.seed, "shaken", number, draw)
                signals = _shaken(strategy.sources, signals, bars, core, regimes, labels, sigma, rng)
            blend = strategy.fresh().blend(bars, core, signals, regimes, labels)
            exposure[test, 0] = blend.exposure[test]
        return Table(job.bars.time[: self.rows.stop], exposure, TARGETS[:1])

    def _hear(self, number: int):
        test = self.job.splits[number].test
        strategy = self.job.strategy_of(number)
        wide = None if self.job.wide is None else self.job.wide[: test.stop]
        return strategy, strategy.hear(self.job.bars[: test.stop], self.job.core[: test.stop], wide)


def _shaken(sources: Sequence, signals: SignalTable, bars, core, regimes, labels, sigma, rng) -> SignalTable:
    values = signals.values.copy()
    for j, source in enumerate(sources):
        if isinstance(source, SpecialistSource):
            other = source.with_specialist(perturbed(source.specialist, sigma, rng))
            said = other.update(bars, core, regimes, labels)
            values[:, j] = np.where(bars.time > source.fitted_until, said, np.nan)
    return SignalTable(signals.time, values, signals.names)

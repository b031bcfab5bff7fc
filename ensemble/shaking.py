"""The strategies of all folds with champions that are shaken, to see whether good genes lie on a plain."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from backtest.simulate import TARGETS
from compute.seeds import stream
from compute.workers import Mapper, SerialMapper
from ensemble.folds import FoldJob
from ensemble.informed import informed, wanted
from ensemble.robustness import perturbed
from ensemble.signals import SignalTable
from ensemble.sources import SpecialistSource, awake_by_probability
from market.bars import Bars
from market.table import Table
from regimes.regime import RegimeProbabilities


class Shaken:
    """Decides as the strategies of a walk-forward, with every champion shaken; what forecasters say stays.

    All draws of the settings are decided at once, fold by fold, and of each only the exposure is kept: a
    strategy and all it has heard take far more memory than what it decides.

    Parameters
    ----------
    job : FoldJob
        All its folds are on disk; ``config.robustness`` says what is drawn.
    rows : slice
        The test rows of all folds.
    seed : int
    workers : Mapper, optional
        Of this process, on which folds are spread; the numbers are the same with any.
    """

    def __init__(self, job: FoldJob, rows: slice, seed: int, workers: Mapper | None = None) -> None:
        self.rows = rows
        self._time = job.bars.time[: rows.stop]
        own = job.config.robustness
        draws = [(0.0, 0), *((float(sigma), draw) for sigma, draw in product(own.sigmas, range(own.draws)))]
        self._place = {one: i for i, one in enumerate(draws)}
        numbers = range(len(job.splits))
        folds = (workers or SerialMapper()).map(lambda number: _decided(job, number, draws, seed), numbers)
        self._exposure = np.concatenate(folds, axis=1)

    def __call__(self, sigma: float, draw: int) -> Table:
        """Return the targets of one draw of the settings: of all bars, flat outside the test rows."""
        exposure = np.zeros((self._time.size, 1))
        exposure[self.rows, 0] = self._exposure[self._place[sigma, draw]]
        return Table(self._time, exposure, TARGETS[:1])


def _decided(job: FoldJob, number: int, draws: Sequence[tuple[float, int]], seed: int) -> np.ndarray:
    # Exposure of a fold's test rows by draw, float64 (len(draws), m).
    test = job.splits[number].test
    bars, core = job.bars[: test.stop], job.core[: test.stop]
    strategy = job.strategy_of(number)
    wide = None if job.wide is None else job.wide[: test.stop]
    signals, regimes, labels = strategy.hear(bars, core, wide)
    shakable = {
        j: source for j, source in enumerate(strategy.sources) if isinstance(source, SpecialistSource)
    }
    # Before the first row that a champion is heard in all draws are alike: they branch off there.
    heard = [int(np.searchsorted(bars.time, one.fitted_until, side="right")) for one in shakable.values()]
    first = min(heard, default=0)
    before = strategy.branched()
    if first:
        before.blend(bars[:first], core[:first], signals[:first], regimes[:first], labels[:first])
    asleep = {j: _last_asleep(one, regimes, labels, first) for j, one in shakable.items()}
    said = dict(zip(signals.names, signals.values.T, strict=True))
    given = {j: informed(core, wanted(one.columns), said) for j, one in shakable.items()}
    out = np.empty((len(draws), test.stop - test.start))
    for i, (sigma, draw) in enumerate(draws):
        values = signals.values[first:]
        if sigma:
            values, rng = values.copy(), stream(seed, "shaken", number, draw)
            for j, source in shakable.items():
                other = source.with_specialist(perturbed(source.specialist, sigma, rng))
                answer = _answer(other, bars, given[j], regimes, labels, asleep[j])[first - asleep[j] :]
                values[:, j] = np.where(bars.time[first:] > source.fitted_until, answer, np.nan)
        table = SignalTable(signals.time[first:], values, signals.names)
        blend = before.branched().blend(bars[first:], core[first:], table, regimes[first:], labels[first:])
        out[i] = blend.exposure[test.start - first :]
    return out


def _answer(
    source: SpecialistSource,
    bars: Bars,
    features: Table,
    regimes: RegimeProbabilities,
    labels: Table,
    begin: int,
) -> np.ndarray:
    # Its signals from one row on, float64 (n - begin,).
    return source.update(bars[begin:], features[begin:], regimes[begin:], labels[begin:])


def _last_asleep(source: SpecialistSource, regimes: RegimeProbabilities, labels: Table, first: int) -> int:
    # The last row before `first` in which a specialist is not awake: it forgets there whatever it was doing,
    # and need not be asked about anything earlier.
    if source.awake == "probability" and source.regime is not None:
        labels = awake_by_probability(regimes, source.regime, source.threshold)
    label = labels.column("label")[:first]
    asleep = np.flatnonzero(label < 0 if source.regime is None else label != int(source.regime))
    return int(asleep[-1]) if asleep.size else 0

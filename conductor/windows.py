"""Trading tasks: evolve a regime's specialist on a stretch of a market, judged by normalised regret.

The fitness of a window is that of ``ga.evolve`` on its bars. A task answers minus the regret, the part of
the way from a random search to the best value known that a genome leaves undone: 0 is the best known, -1
what a random search finds. So windows of all assets and regimes count alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from compute.seeds import stream
from conductor.calibration import Calibration, Measures
from conductor.curriculum import Batch
from conductor.market_context import ContextScaler, MarketContext, ScaledContext
from conductor.markets import PREPARED, Market, WindowsConfig
from conductor.sight import Outlook
from conductor.state import NO_REGIME
from conductor.tasks import SEED_LIMIT, SPLITS, Task, Window
from ga.space import GenomeSpace
from market.table import DataError, utc
from regimes.regime import Regime
from specialists.training import GENERALIST

#: Genes (m, d) in the unit cube to fitness (m,), higher is better.
RawFitness = Callable[[np.ndarray], np.ndarray]


class TradingWindows:
    """Batches of trading tasks by number; a :class:`conductor.curriculum.Source`.

    Windows lie side by side in the rows of each market. A stretch becomes the task of a regime if it holds
    enough bars of it, in half of its folds at least, and enough of its bars are there. No window reaches
    beyond the asked time (features of its first bars remember earlier ones), and what is found out about
    it depends on the window alone, not on who asks, when, or for what else.

    Parameters
    ----------
    markets : sequence of Market
        Each of another symbol.
    config : WindowsConfig
        The markets were prepared with its family, detector, path and ``fit_share``.
    seed : int
        Of the batches: another meta-seed draws other ones of the same windows.
    begin, end : int, optional
        Windows lie between these times, whole bars, nanoseconds UTC; see :func:`conductor.markets.eras`.
    split : {"train", "validation", "test"}
        Keeps random streams apart, see :mod:`conductor.tasks`; the time keeps the windows apart.
    scaler : ContextScaler, optional
        Learned on training windows; without one networks see no market.

    Attributes
    ----------
    windows : tuple of Window
        All of them, by market, then by regime, then by time.

    Raises
    ------
    DataError
        If there is no window, or two markets have one symbol.
    ConfigError
        If a setting of the fitness does not suit a window.
    ValueError
        If the split is unknown, the seed negative, or a market was prepared with other settings.
    """

    def __init__(
        self,
        markets: Sequence[Market],
        config: WindowsConfig,
        *,
        seed: int,
        begin: int | None = None,
        end: int | None = None,
        split: str = "train",
        scaler: ContextScaler | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split of windows is {split!r}; known: {', '.join(SPLITS)}")
        if seed < 0:
            raise ValueError(f"seed of the {split} windows is {seed}; it must not be negative")
        by_symbol = {market.symbol: market for market in markets}
        if len(by_symbol) < len(markets):
            names = ", ".join(market.symbol for market in markets)
            raise DataError(f"{split} windows: the markets are {names}; each must have a symbol of its own")
        for market in markets:
            for name in PREPARED:
                if getattr(market.config, name) != getattr(config, name):
                    raise ValueError(f"{market.symbol} was prepared with another {name} than is asked for")
        self.config, self.seed, self.split, self.scaler = config, int(seed), split, scaler
        self._markets, self._end = by_symbol, end
        self._measures = Measures(by_symbol, config)
        self.windows = tuple(window for market in markets for window in self._windows_of(market, begin, end))
        if not self.windows:
            raise DataError(
                f"{split} windows: {', '.join(by_symbol) or 'no market'} from "
                f"{'the beginning' if begin is None else utc(begin)} to "
                f"{'the end' if end is None else utc(end)} has no stretch of {config.window_bars} bars with "
                f"{config.least_awake} of one of the regimes {', '.join(config.regimes)}"
            )
        self._measures.fitness(self.windows[0])  # settings of the fitness prove good now, not amid a training

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def space(self) -> GenomeSpace:
        """The genes that are searched."""
        return next(iter(self._markets.values())).family.space

    def scaled(self, scaler: ContextScaler | None) -> Self:
        """Return the same source with another scaler; what was found out about its windows is shared."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, scaler=scaler)
        return other

    def contexts(self) -> list[MarketContext]:
        """Return the market context of each window: what a :class:`ContextScaler` learns from."""
        return [self._measures.context(window) for window in self.windows]

    def batch(self, number: int, n: int) -> Batch:
        """Return batch ``number`` of ``n`` tasks, the same whenever it is asked for.

        No window comes a second time before all came once, and each regime has its share of any number of
        tasks. What opens a task answers minus its normalised regret. Windows that come for the first time
        are calibrated, about half a second each.

        Raises
        ------
        ValueError
            If the number is negative or n is below 1.
        """
        if number < 0 or n < 1:
            raise ValueError(
                f"batch {number} of {n} windows was asked for; a batch has a number from 0 and at least one "
                "window"
            )
        rng = stream(self.seed, "windows", self.split, number)
        chosen: list[Window] = []
        while len(chosen) < n:
            chosen += self._turn(rng)
        place, n_splits = list(SPLITS).index(self.split), len(SPLITS)
        seeds = rng.integers(SEED_LIMIT // n_splits - 1, size=n) * n_splits + place
        return self.batch_of(chosen[:n], seeds.tolist())

    def batch_of(self, windows: Sequence[Window], seeds: Sequence[int]) -> Batch:
        """Return a batch of one task for each window and seed, for example each window with 30 seeds."""
        config = self.config
        self._measures.calibrate(windows)
        tasks = tuple(
            Task(window, self.space.n_genes, config.population_size, config.n_generations, seed)
            for window, seed in zip(windows, seeds, strict=True)
        )
        unseen = ScaledContext.unknown()
        contexts = [
            unseen if self.scaler is None else self.scaler.scaled(self._measures.context(window))
            for window in windows
        ]
        outlook = Outlook.of(contexts, [_regime(window) for window in windows])
        return Batch(tasks, outlook, np.full(len(tasks), config.floor), self._open)

    def calibrated(self, windows: Sequence[Window] | None = None) -> tuple[Calibration, ...]:
        """Return the calibrations of windows, of all by default; new ones are found out first."""
        return self._measures.calibrate(self.windows if windows is None else windows)

    def note_best(self, problem: Window, value: float) -> bool:
        """Take note of a fitness that some method found; return whether it beats the best known.

        Tasks that are opened from then on answer with the new best; those already open keep the old one,
        so that a run never changes its measure. :meth:`Calibration.fitness` leads back from their answers.

        Raises
        ------
        ValueError
            If the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"best value of the window of {problem.symbol} is {value}; it must be finite")
        return self._measures.note(problem, float(value))

    def raw_fitness(self, window: Window) -> RawFitness:
        """Return the fitness of a window as ``ga.evolve`` has it: a lower bound of annual ratios per fold."""
        fitness = self._measures.fitness(window)
        return lambda genes: fitness(genes)[:, 0]

    def value(self, window: Window, genes: np.ndarray) -> np.ndarray:
        """Return the annual Sharpe ratio, net of costs, of genomes on all bars of a window, float64 (m,).

        From a flat start; 0 for one that never trades.

        Parameters
        ----------
        window : Window
            Any stretch of the markets, for example the one after that on which the genomes were found.
        genes : float64 (m, d)
            In the unit cube.
        """
        fitness = self._measures.fitness(window)
        return fitness(genes)[:, 1] * math.sqrt(fitness.bars.bars_per_year)

    def next_window(self, window: Window) -> Window | None:
        """Return the equally many bars that follow a window, for the same specialist.

        None if they are not all there before the end of the asked time, or too many are missing between.
        """
        market = self._markets[window.symbol]
        rows = market.spanned(window.start, window.stop)
        following = slice(rows.stop, 2 * rows.stop - rows.start)
        if following.stop > market.rows_between(None, self._end).stop:
            return None
        found = market.stretch(following)
        return None if found is None else Window(window.symbol, *found, window.specialist)

    def _windows_of(self, market: Market, begin: int | None, end: int | None) -> list[Window]:
        config, length = self.config, self.config.window_bars
        rows = market.rows_between(begin, end)
        step = max(1, round(length * (1.0 - config.overlap)))
        stretches = [slice(a, a + length) for a in range(rows.start, rows.stop - length + 1, step)]
        found: list[Window] = []
        for name in config.regimes:
            own = [
                Window(market.symbol, *span, name)
                for stretch in stretches
                if self._spread(market.awake(name)[stretch]) and (span := market.stretch(stretch))
            ]
            own = [window for window in own if self._measures.has_market(window)]
            if config.n_windows is not None and len(own) > config.n_windows:
                places = np.linspace(0, len(own) - 1, config.n_windows).round().astype(int)
                own = [own[i] for i in places]
            found += own
        return found

    def _spread(self, awake: np.ndarray) -> bool:
        # Where all trades fall into one fold, the lower bound over folds is 0 whatever they earn.
        least, folds = self.config.least_awake, self.config.fitness.folds
        parts = np.array([part.sum() for part in np.array_split(awake, folds)])
        return parts.sum() >= least and 2 * (parts * folds >= least).sum() >= folds

    def _turn(self, rng: np.random.Generator) -> list[Window]:
        # All windows once, in random order, but each regime evenly along the way.
        names = np.array([window.specialist for window in self.windows])
        places = np.empty(names.size)
        for name in self.config.regimes:
            own = rng.permutation(np.flatnonzero(names == name))
            places[own] = (np.arange(own.size) + rng.random()) / max(own.size, 1)
        return [self.windows[i] for i in np.argsort(places, kind="stable")]

    def _open(self, task: Task) -> tuple[GenomeSpace, RawFitness]:
        fitness, (known,) = self.raw_fitness(task.problem), self._measures.calibrate([task.problem])
        return self.space, lambda genes: -known.regret(fitness(genes))


def _regime(window: Window) -> int:
    return NO_REGIME if window.specialist == GENERALIST else int(Regime.of(window.specialist))

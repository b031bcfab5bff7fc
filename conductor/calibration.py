"""What is measured on market windows: fitness, market context, and what regret is measured between.

All of it depends on the window and the settings alone, is found out when it is first asked for, and kept.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compute.seeds import stream
from conductor.environment import Environment
from conductor.market_context import MarketContext
from conductor.markets import Market, WindowsConfig
from conductor.tasks import SEED_LIMIT, Task, Window
from ga.controls import RUGGED, SMOOTH, GAControls
from market.table import DataError
from specialists.fitness import Fitness

#: A random search is the best of so many genomes, and regret 1 the median of so many random searches.
RANDOM_GENOMES, RANDOM_SEARCHES = 40, 25
#: Controls of the searches for the best known value, beside those that are smooth.
OTHER_REFERENCES = (GAControls(), RUGGED)
#: Windows that are calibrated side by side: bounds the memory, to some 50 MB.
AT_ONCE = 16
#: Regret is measured in at least so much fitness: where nothing beats a random search, nothing is to learn.
LEAST_SCALE = 0.1


@dataclass(frozen=True)
class Calibration:
    """What makes the fitness values of a window comparable with those of others.

    Parameters
    ----------
    window : Window
    random : float
        What a random search of 40 genomes finds: the median of 25.
    best_known : float
        The best fitness that anything has found.
    """

    window: Window
    random: float
    best_known: float

    @property
    def scale(self) -> float:
        """How much fitness lies between a random search and the best known; at least ``LEAST_SCALE``."""
        return max(self.best_known - self.random, LEAST_SCALE)

    def regret(self, fitness: np.ndarray) -> np.ndarray:
        """Return the normalised regret, float64, of fitness values of any shape."""
        return (self.best_known - fitness) / self.scale

    def fitness(self, regret: np.ndarray) -> np.ndarray:
        """Return the fitness, float64, that has this regret: the inverse of :meth:`regret`."""
        return self.best_known - regret * self.scale


class Measures:
    """What was found out about windows, kept; safe to ask from several threads.

    Parameters
    ----------
    markets : mapping of str to Market
        By symbol.
    config : WindowsConfig
    """

    def __init__(self, markets: Mapping[str, Market], config: WindowsConfig) -> None:
        self._markets, self._config = markets, config
        # No compiled work waits for it: what is opened holds a fitness and a calibration of its own.
        self._lock = threading.RLock()
        self._fitness: dict[Window, Fitness] = {}
        self._contexts: dict[tuple[str, int, int], MarketContext] = {}
        self._known: dict[Window, Calibration] = {}

    def _place(self, window: Window) -> tuple[Market, slice]:
        if window.symbol not in self._markets:
            known = ", ".join(self._markets)
            raise DataError(f"the window is one of {window.symbol}; the markets here are {known}")
        market = self._markets[window.symbol]
        return market, market.spanned(window.start, window.stop)

    def has_market(self, window: Window) -> bool:
        """Return whether the window has a context: its price moves, and enough bars follow each other."""
        try:
            self.context(window)
        except DataError:
            return False
        return True

    def context(self, window: Window) -> MarketContext:
        """Return the state of the market over a window; DataError if there is none."""
        key = window.symbol, window.start, window.stop
        with self._lock:
            if key not in self._contexts:
                market, rows = self._place(window)
                self._contexts[key] = MarketContext.of(market.bars[rows])
            return self._contexts[key]

    def fitness(self, window: Window) -> Fitness:
        """Return the fitness of ``ga.evolve`` on the bars of a window."""
        with self._lock:
            if window not in self._fitness:
                (market, rows), config = self._place(window), self._config
                self._fitness[window] = Fitness(
                    market.family,
                    market.bars[rows],
                    market.rows[rows],
                    market.awake(window.specialist)[rows],
                    config.costs,
                    config.limits,
                    config.venue,
                    config.fitness,
                )
            return self._fitness[window]

    def calibrate(self, windows: Sequence[Window]) -> tuple[Calibration, ...]:
        """Return the calibrations of windows; new ones are found out first."""
        with self._lock:
            new = [window for window in dict.fromkeys(windows) if window not in self._known]
            for i in range(0, len(new), AT_ONCE):
                some = new[i : i + AT_ONCE]
                self._known.update(zip(some, self._calibrations(some), strict=True))
            return tuple(self._known[window] for window in windows)

    def note(self, window: Window, value: float) -> bool:
        """Raise the best known value of a window; return whether it is higher than before."""
        with self._lock:
            (known,) = self.calibrate([window])
            if better := value > known.best_known:
                self._known[window] = replace(known, best_known=value)
            return better

    def _calibrations(self, windows: list[Window]) -> list[Calibration]:
        # All searches of these windows side by side; their bits do not depend on the company.
        config, space = self._config, self._markets[windows[0].symbol].family.space
        references = (SMOOTH,) * config.reference_runs + OTHER_REFERENCES
        n_generations = config.reference_factor * (config.n_generations + 1) - 1
        opened, tasks, random = {}, [], []
        for window in windows:
            rng = stream(0, "calibration", window.symbol, window.start, window.stop, window.specialist)
            fitness = self.fitness(window)
            opened[window] = lambda genes, fitness=fitness: fitness(genes)[:, 0]
            genes = rng.random((RANDOM_SEARCHES * RANDOM_GENOMES, space.n_genes))
            random.append(opened[window](genes).reshape(RANDOM_SEARCHES, RANDOM_GENOMES).max(axis=1))
            for seed in rng.integers(SEED_LIMIT, size=len(references)).tolist():
                tasks.append(Task(window, space.n_genes, config.population_size, n_generations, seed))
        environment = Environment(tasks, opening=lambda task: (space, opened[task.problem]))
        controls = np.array([one.to_array() for one in references])
        outcome = environment.run_fixed(np.tile(controls, (len(windows), 1)))
        found = outcome.best[:, -1].reshape(len(windows), len(references)).max(axis=1)
        return [
            Calibration(window, float(np.median(searches)), float(max(best, searches.max())))
            for window, searches, best in zip(windows, random, found, strict=True)
        ]

"""Genes to three objectives instead of one fitness: earnings, drawdown and how much is traded."""

import math

import numpy as np

from specialists.fitness import Fitness

#: Objectives by name, all maximised; see :class:`FrontFitness`.
OBJECTIVES = ("net_return_bound", "drawdown", "turnover")
#: What each is, with its unit, for people.
MEANINGS = (
    "lower bound of the net return, per year",
    "deepest drawdown, share of the peak",
    "minus trades opened per year",
)
#: Where objectives and violation stand in an answer, after fitness and Sharpe ratio.
COLUMNS = slice(2, 5)
VIOLATION = 5


class FrontFitness(Fitness):
    """The fitness of genomes, and behind it what a front is made of; one backtest gives both.

    Objectives, all maximised and all from the training rows after costs:

    ``net_return_bound``
        Mean over the folds of the continuously compounded net return per year, less ``confidence``
        standard errors of that mean. Folds and confidence are those of the fitness.
    ``drawdown``
        The deepest drawdown over all training rows, as a fraction of the peak before it; at most 0.
    ``turnover``
        Minus the trades opened per year. The population kernel counts trades and not notional: where a
        family varies its sizes, a large trade counts like a small one.

    A genome with fewer than ``min_trades`` breaks a constraint by the missing share: never to trade would
    otherwise be the best drawdown and the best turnover there are.
    """

    @property
    def rotates(self) -> bool:
        """Never: a front is compared with fronts of other generations."""
        return False

    @property
    def n_details(self) -> int:
        """Sharpe ratio, three objectives, violation."""
        return 5

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return fitness, Sharpe ratio, objectives, violation, and the rest of a fitness's answer.

        Parameters
        ----------
        genes : float64 (p, d)
            In the unit cube.

        Returns
        -------
        float64 (p, 6 + ...)
            The fitness first and the sums per block last, as ``experiments.trials.TrialMatrix`` reads them.
        """
        statistics = self.statistics(genes)
        answer = self.answer(genes, statistics)
        objectives, violation = self.objectives(statistics)
        return np.hstack([answer[:, :2], objectives, violation[:, None], answer[:, 2:]])

    def objectives(self, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return objectives, float64 (p, 3), and violations, float64 (p,).

        Parameters
        ----------
        statistics : float64 (p, segments, 6)
            Of :meth:`statistics`.
        """
        config, per_year = self.config, self.bars.bars_per_year
        returns = np.log(self._of_folds(statistics)[:, :, 4]) * (per_year / self.fold_bars)
        spread = returns.std(axis=1, ddof=1) / math.sqrt(config.folds)
        bound = returns.mean(axis=1) - config.confidence * spread
        trades = statistics[:, :, 3].sum(axis=1)
        missing = np.maximum(config.min_trades - trades, 0.0) / max(config.min_trades, 1)
        # The kernel's drawdown is the deepest since the first bar, so the last segment knows all of it.
        return np.column_stack([bound, statistics[:, -1, 5], -trades * per_year / len(self.bars)]), missing

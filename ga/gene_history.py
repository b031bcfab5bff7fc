"""How the genes of a population were distributed in each generation, in few numbers."""

from typing import Any

import numpy as np

from ga.space import GenomeSpace

#: Shares of the population below each stored value: the extremes, the middle 80 % and 50 %, the median.
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_FIRST_ROWS = 64


class GeneHistory:
    """Quantiles of every gene of the unit cube, one row per generation, also through a kill and a resume.

    A generation is told once. One that is told again, as a resumed search does, replaces itself and forgets
    those after it; one that nobody told is NaN.

    Parameters
    ----------
    space : GenomeSpace
        Gives the genes their names.
    """

    def __init__(self, space: GenomeSpace) -> None:
        self.space = space
        self._rows = np.empty((_FIRST_ROWS, len(QUANTILES), space.n_genes), dtype=np.float32)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def note(self, evolution: Any) -> None:
        """Take note of the generation that has just been told.

        Parameters
        ----------
        evolution : Evolution or Islands
            Anything with ``population.genes``, float64 (p, d), and ``progress.generation``.
        """
        self.add(evolution.progress.generation, evolution.population.genes)

    def add(self, generation: int, genes: np.ndarray) -> None:
        """Take note of a population.

        Parameters
        ----------
        generation : int
            0 is the initial population.
        genes : float64 (p, d)
            In the unit cube; p at least 1.
        """
        p, d = genes.shape
        if d != self.space.n_genes or p == 0 or generation < 0:
            raise ValueError(
                f"generation {generation} has genes {genes.shape}; it needs (p, {self.space.n_genes})"
            )
        if generation >= len(self._rows):
            larger = np.empty((2 * generation, *self._rows.shape[1:]), dtype=np.float32)
            larger[: self._n] = self._rows[: self._n]
            self._rows = larger
        self._rows[self._n : generation] = np.nan
        ordered = np.ascontiguousarray(genes.T)  # each gene in one piece: sorting it is then quickest
        if np.shares_memory(ordered, genes):  # a single individual, or genes that lie by columns
            ordered = ordered.copy()
        ordered.sort(axis=1)
        # Linear interpolation, as np.quantile does by default, which takes thirty times as long.
        place = np.asarray(QUANTILES) * (p - 1)
        below = place.astype(np.int64)
        low = ordered[:, below]
        high = ordered[:, np.minimum(below + 1, p - 1)]
        self._rows[generation] = (low + (place - below) * (high - low)).T
        self._n = generation + 1

    def quantiles(self) -> np.ndarray:
        """Return the quantiles so far, float32 (g, 7, d), read-only; an untold generation is NaN."""
        view = self._rows[: self._n].view()
        view.flags.writeable = False
        return view

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``metrics/genes.npz`` holds, for ``np.savez``.

        Returns
        -------
        dict
            ``quantiles`` float32 (g, 7, d), ``shares`` float64 (7,), ``names`` text (d,), ``low`` and
            ``high`` float64 (d,): the natural bounds.
        """
        return {
            "quantiles": self.quantiles(),
            "shares": np.array(QUANTILES),
            "names": np.array(self.space.names),
            "low": np.asarray(self.space.low),
            "high": np.asarray(self.space.high),
        }

    def state(self) -> dict[str, Any]:
        """Return the memory, for a checkpoint."""
        return {"quantiles": self.quantiles().copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a memory of the same genes.

        Raises
        ------
        ValueError
            If it is of other genes.
        """
        rows = np.array(state["quantiles"], dtype=np.float32)
        if rows.ndim != 3 or rows.shape[1:] != self._rows.shape[1:]:
            raise ValueError(
                f"the gene history has shape {rows.shape}; {self.space.name} needs (g, {len(QUANTILES)}, "
                f"{self.space.n_genes})"
            )
        self._rows = rows if len(rows) else np.empty((_FIRST_ROWS, *rows.shape[1:]), dtype=np.float32)
        self._n = len(rows)

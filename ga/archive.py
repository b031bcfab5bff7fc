"""What a search keeps for good: which genomes it ever asked for, and the best distinct ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ga import kernels
from ga.space import Genome, GenomeSpace

_LEAST = 4096  # genomes that fit before the table grows


class Seen:
    """The genomes that were ever asked for, as digests in a hash table of the house.

    About 50 bytes per genome, and no object of its own for each.
    """

    def __init__(self) -> None:
        self._log = np.empty((_LEAST, 2), dtype=np.uint64)  # in the order entered
        self._slots = np.zeros(2 * _LEAST, dtype=np.int64)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def enter(self, digests: np.ndarray) -> np.ndarray:
        """Enter genomes and return which of them are new, bool (m,).

        Of several equal genomes only the first is new.

        Parameters
        ----------
        digests : uint64 (m, 2)
            Of :meth:`ga.space.GenomeSpace.digests`.
        """
        m = len(digests)
        if self._n + m > len(self._log):
            self._grow(self._n + m)
        new = np.empty(m, dtype=np.bool_)
        kernels.enter(self._log, self._slots, self._n, digests, new)
        self._n += int(np.count_nonzero(new))
        return new

    def state(self) -> np.ndarray:
        """Return the digests in the order entered, uint64 (n, 2)."""
        return self._log[: self._n].copy()

    def restore(self, state: np.ndarray) -> None:
        """Take over the digests of :meth:`state`."""
        self.__init__()
        self.enter(np.ascontiguousarray(state, dtype=np.uint64).reshape(-1, 2))

    def _grow(self, n: int) -> None:
        # At most half of the slots are ever taken, so that a probe ends soon.
        capacity = 1 << (2 * n - 1).bit_length()
        known = self._log[: self._n]
        self._log = np.empty((capacity, 2), dtype=np.uint64)
        self._slots = np.zeros(2 * capacity, dtype=np.int64)
        kernels.enter(self._log, self._slots, 0, known, np.empty(self._n, dtype=np.bool_))


class HallOfFame:
    """The best distinct genomes ever evaluated; the array form of ``deap.tools.HallOfFame``.

    Of two equally fit genomes the earlier one stands higher. Genomes without a finite fitness never enter.

    Parameters
    ----------
    space : GenomeSpace
    size : int
        How many genomes are kept.
    run : str
        Name of the run, part of each genome's origin.
    """

    def __init__(self, space: GenomeSpace, size: int = 10, run: str = "") -> None:
        if size < 1:
            raise ValueError(f"size of the hall of fame is {size}; it must be at least 1")
        self.size = size
        self._space = space
        self._run = run
        self._n = 0  # of the rows below, best first
        self._losses = np.empty(size)  # minus the fitness
        self._genes = np.empty((size, space.n_genes))
        self._keys = np.empty((size, 2), dtype=np.uint64)
        self._born = np.empty(size, dtype=np.int64)

    def __len__(self) -> int:
        return self._n

    def update(
        self,
        genes: np.ndarray,
        fitness: np.ndarray,
        keys: list[bytes] | np.ndarray,
        generation: int | np.ndarray,
    ) -> None:
        """Enter newly evaluated genomes.

        Parameters
        ----------
        genes : float64 (m, d)
        fitness : float64 (m,)
        keys : list of bytes, or uint64 (m, 2)
            Of :meth:`ga.space.GenomeSpace.keys` or ``digests``.
        generation : int or int (m,)
            In which they were born.
        """
        if isinstance(keys, list):
            keys = np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, 2)
        if not isinstance(generation, np.ndarray):
            generation = np.array([generation])
        rows = (self._losses, self._genes, self._keys, self._born)
        self._n = kernels.enshrine(fitness, genes, keys, generation, *rows, self._n)

    def genomes(self) -> list[Genome]:
        """Return the genomes, best first."""
        return [
            Genome(self._genes[k], self._space.name, -self._losses[k], (self._run, self._born[k]))
            for k in range(self._n)
        ]

    def clear(self) -> None:
        """Forget every genome."""
        self._n = 0

    def state(self) -> dict[str, np.ndarray]:
        """Return what :meth:`restore` needs: arrays with one row per genome, best first."""
        arrays = {"losses": self._losses, "genes": self._genes, "keys": self._keys, "born": self._born}
        return {name: array[: self._n].copy() for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the genomes of :meth:`state`.

        Raises
        ------
        ValueError
            If they do not fit the space or the size of this hall.
        """
        shape = np.shape(state["genes"])
        if len(shape) != 2 or shape[0] > self.size or shape[1] != self._space.n_genes:
            raise ValueError(
                f"the saved hall of fame has genes of shape {shape}; "
                f"this one holds at most ({self.size}, {self._space.n_genes})"
            )
        self._n = shape[0]
        self._losses[: self._n] = state["losses"]
        self._genes[: self._n] = state["genes"]
        self._keys[: self._n] = state["keys"]
        self._born[: self._n] = state["born"]

"""What a search keeps for good: the best distinct genomes it ever evaluated."""

import bisect

import numpy as np

from ga.space import Genome, GenomeSpace


def genome_keys(decoded: np.ndarray) -> list[bytes]:
    """Return one key per genome: the bytes of its natural values (p, d).

    Two genomes are the same if they decode to the same values, since then nothing outside can tell
    them apart.
    """
    decoded = np.ascontiguousarray(decoded, dtype=np.float64)
    return decoded.view(f"V{8 * decoded.shape[1]}").ravel().tolist()


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
        self._keys: list[bytes] = []  # best first, as all lists here
        self._losses: list[float] = []  # minus the fitness, ascending
        self._genes: list[np.ndarray] = []
        self._generations: list[int] = []

    def __len__(self) -> int:
        return len(self._keys)

    def update(self, genes: np.ndarray, fitness: np.ndarray, keys: list[bytes], generation: int) -> None:
        """Enter newly evaluated genomes.

        Parameters
        ----------
        genes : float64 (m, d)
        fitness : float64 (m,)
        keys : list of bytes
            Of :func:`genome_keys`.
        generation : int
            In which they were born.
        """
        threshold = -self._losses[-1] if len(self) == self.size else -np.inf
        for i in np.flatnonzero((fitness > threshold) & np.isfinite(fitness)).tolist():
            loss = -float(fitness[i])
            if (len(self) == self.size and loss >= self._losses[-1]) or keys[i] in self._keys:
                continue
            place = bisect.bisect_right(self._losses, loss)
            self._losses.insert(place, loss)
            self._keys.insert(place, keys[i])
            self._genes.insert(place, genes[i].copy())
            self._generations.insert(place, generation)
            for kept in (self._losses, self._keys, self._genes, self._generations):
                del kept[self.size :]

    def genomes(self) -> list[Genome]:
        """Return the genomes, best first."""
        return [
            Genome(genes, self._space.name, -loss, (self._run, generation))
            for genes, loss, generation in zip(self._genes, self._losses, self._generations, strict=True)
        ]

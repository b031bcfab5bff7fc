"""The fitness of genomes, each paid for once: a cache in front of a mapper."""

from collections.abc import Callable

import numpy as np

from compute.workers import Mapper, SerialMapper
from ga.archive import genome_keys
from ga.space import GenomeSpace


class Evaluator:
    """Calls a fitness function for genomes it has not seen.

    New genomes go to the workers in chunks of a fixed size, so neither the chunks nor anything else a
    fitness could notice depends on how many workers there are.

    Parameters
    ----------
    function : callable
        ``genes (m, d) in the unit cube -> fitness (m,)``, higher is better, or ``(m, 1 + e)``: the fitness
        and ``e`` further numbers that :meth:`details` keeps. Each row depends on that genome alone. With a
        thread mapper it runs in several threads at once.
    space : GenomeSpace
        Decodes genes; genomes that decode to the same values share one evaluation.
    mapper : Mapper, optional
        Serial by default. The caller closes it.
    chunk_size : int
        Genomes per call of the function.

    Attributes
    ----------
    evaluations : int
        Genomes the function was called for.
    hits : int
        Genomes answered without calling it. Survivors of a generation are never asked about, so these
        are evaluations avoided among offspring.
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        space: GenomeSpace,
        mapper: Mapper | None = None,
        chunk_size: int = 32,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
        self.evaluations = 0
        self.hits = 0
        self._function = function
        self._space = space
        self._mapper = SerialMapper() if mapper is None else mapper
        self._chunk_size = chunk_size
        self._known: dict[bytes, float] = {}
        self._details: list[np.ndarray] = []

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        """Return the fitness, float64 (m,), of genes (m, d).

        Raises
        ------
        ValueError
            If the function returns anything but one number per genome.
        """
        genes = np.ascontiguousarray(genes, dtype=np.float64)
        keys = genome_keys(self._space.decode(genes))
        rows: dict[bytes, int] = {}  # the first row of each new genome
        for i, key in enumerate(keys):
            if key not in self._known:
                rows.setdefault(key, i)
        new = genes[list(rows.values())]
        chunks = [new[i : i + self._chunk_size] for i in range(0, len(new), self._chunk_size)]
        answers = self._mapper.map(self._answer, chunks)
        if answers:
            answer = np.concatenate(answers)
            self._known.update(zip(rows, answer[:, 0].tolist(), strict=True))
            self._details.append(answer[:, 1:])
        self.evaluations += len(rows)
        self.hits += len(keys) - len(rows)
        return np.array([self._known[key] for key in keys])

    def details(self) -> np.ndarray:
        """Return the further numbers of every evaluation in the order made, float64 (evaluations, e)."""
        return np.concatenate(self._details) if self._details else np.empty((0, 0))

    def _answer(self, genes: np.ndarray) -> np.ndarray:
        answer = np.asarray(self._function(genes), dtype=np.float64)
        if answer.ndim not in (1, 2) or len(answer) != len(genes) or answer.size == 0:
            raise ValueError(
                f"the fitness function returned shape {answer.shape} for {len(genes)} genomes; "
                f"it must return ({len(genes)},), one value per genome, or one row per genome"
            )
        return answer.reshape(len(genes), -1)

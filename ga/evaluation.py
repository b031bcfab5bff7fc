"""The fitness of genomes, each paid for once: a cache in front of a mapper."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from compute.workers import Mapper, SerialMapper
from ga.space import GenomeSpace

_LEAST_ROWS = 1_024  # what memory begins with; it doubles when full


class RotatingFitness(Protocol):
    """What a fitness function may have beyond being called, all of it optional.

    Attributes
    ----------
    rotates : bool
        Whether genomes are judged on another window of the data in each generation.
    n_details : int
        How many of the ``e`` further numbers are remembered per genome, the first ones; all by default.
    """

    rotates: bool
    n_details: int

    def score(self, details: np.ndarray, generation: int | None) -> np.ndarray:
        """Return the fitness, float64 (m,), on the window of a generation; None for all windows together.

        Parameters
        ----------
        details : float64 (m, n_details)
            What is remembered of each genome. Judging anew is arithmetic on it and costs no evaluation.
        generation : int or None
            All genomes of a generation are judged on the same window.
        """
        ...


#: Sees every new evaluation once: keys of the genomes, and the function's answers, float64 (m, 1 + e).
Witness = Callable[[list[bytes], np.ndarray], None]


class Evaluator:
    """Calls a fitness function for genomes it has not seen.

    New genomes go to the workers in chunks of a fixed size, so neither the chunks nor anything else a
    fitness could notice depends on how many workers there are. The mapper is handed the same small callable
    for the whole run, which holds the function and none of what is remembered.

    Parameters
    ----------
    function : callable
        ``genes (m, d) in the unit cube -> fitness (m,)``, higher is better, or ``(m, 1 + e)``: the fitness
        and ``e`` further numbers that :meth:`details` keeps. Each row depends on that genome alone. With a
        thread mapper it runs in several threads at once. See :class:`RotatingFitness` for what else it may
        have.
    space : GenomeSpace
        Tells genomes apart; those with the same key share one evaluation.
    mapper : Mapper, optional
        Serial by default. The caller closes it.
    chunk_size : int
        Genomes per call of the function.
    witness : callable, optional
        Called with every batch of new evaluations, once each and in the order made, before the search
        hears of them.

    Attributes
    ----------
    rotates : bool
        Whether the fitness of a genome depends on the generation that asks.
    known : bool (m,)
        Which answers of the last call came from memory.
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        space: GenomeSpace,
        mapper: Mapper | None = None,
        chunk_size: int = 32,
        witness: Witness | None = None,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
        self.rotates = bool(getattr(function, "rotates", False))
        self.known = np.zeros(0, dtype=bool)
        self._function = function
        self._answer = _Answering(function)
        self._space = space
        self._mapper = SerialMapper() if mapper is None else mapper
        self._chunk_size = chunk_size
        self._witness = witness
        self._row_of: dict[bytes, int] = {}  # in the order evaluated
        self._memory: np.ndarray | None = None  # (capacity, 1 + remembered)
        self._calls: list[tuple[int, int, int, int]] = []
        self._hits = 0
        self._judged_anew = 0  # before the last call
        self._rejudged = 0  # since the last call

    @property
    def evaluations(self) -> int:
        """Genomes the function was called for: the trials of this search."""
        return len(self._row_of)

    @property
    def hits(self) -> int:
        """Genomes answered without calling the function.

        Survivors of a generation are never asked about, so these are evaluations avoided among offspring.
        """
        return self._hits

    @property
    def asked(self) -> int:
        """Answers given: evaluations, hits, and genomes judged anew on another window."""
        return self.evaluations + self._hits + self._judged_anew + self._rejudged

    @property
    def hit_rate(self) -> float:
        """Share of the offspring asked about that cost no evaluation; 0 before there were offspring.

        The initial population (calls with generation 0) is no offspring, survivors are never asked about,
        and judging anew on another window is no hit.
        """
        later = self.calls[self.calls[:, 0] != 0]
        offspring = int(later[:, 1:3].sum())
        return int(later[:, 2].sum()) / offspring if offspring else 0.0

    @property
    def calls(self) -> np.ndarray:
        """Every call, int64 (calls, 4): generation (-1 if not told), new, hits, judged anew before."""
        return np.array(self._calls, dtype=np.int64).reshape(-1, 4)

    def __call__(self, genes: np.ndarray, generation: int | None = None) -> np.ndarray:
        """Return the fitness, float64 (m,), of genes (m, d).

        Parameters
        ----------
        genes : float64 (m, d)
        generation : int, optional
            On whose window a rotating fitness judges; without one on all windows together.

        Raises
        ------
        ValueError
            If the function returns anything but one number, or one row of numbers, per genome.
        """
        genes = np.ascontiguousarray(genes, dtype=np.float64)
        keys = self._space.keys(genes)
        first: dict[bytes, int] = {}  # the first row of each new genome
        known = np.ones(len(keys), dtype=bool)
        for i, key in enumerate(keys):
            if key not in self._row_of and key not in first:
                first[key] = i
                known[i] = False
        new = genes[list(first.values())]
        chunks = [new[i : i + self._chunk_size] for i in range(0, len(new), self._chunk_size)]
        answers = self._mapper.map(self._answer, chunks)
        if answers:
            answer = np.concatenate(answers)
            if self._witness is not None:
                self._witness(list(first), answer)
            self._remember(first, answer)
        hits = len(keys) - len(first)
        self._calls.append((-1 if generation is None else generation, len(first), hits, self._rejudged))
        self._hits += hits
        self._judged_anew += self._rejudged
        self._rejudged = 0
        self.known = known
        return self._judged(keys, generation)

    def fitness_of(self, genes: np.ndarray, generation: int | None = None) -> np.ndarray:
        """Return the fitness, float64 (m,), of genomes that were evaluated before, on another window.

        It costs arithmetic, and counts as asked (not as new trials). To choose among known genomes on all
        windows together is no question of the search and is not counted.

        Parameters
        ----------
        genes : float64 (m, d)
        generation : int or None
            As in a call.

        Raises
        ------
        ValueError
            If a genome was never evaluated.
        """
        keys = self._space.keys(np.ascontiguousarray(genes, dtype=np.float64))
        strangers = [i for i, key in enumerate(keys) if key not in self._row_of]
        if strangers:
            raise ValueError(f"the genome in row {strangers[0]} was never evaluated; ask for it in a call")
        if generation is not None:
            self._rejudged += len(keys)
        return self._judged(keys, generation)

    def details(self) -> np.ndarray:
        """Return the further numbers remembered of every evaluation in the order made, (evaluations, e).

        A view that cannot be written to.
        """
        if self._memory is None:
            return np.empty((0, 0))
        view = self._memory[: self.evaluations, 1:]
        view.flags.writeable = False
        return view

    def state(self) -> dict[str, Any]:
        """Return what was learned so far, for :meth:`restore`: arrays and an integer."""
        keys = np.frombuffer(b"".join(self._row_of), dtype=np.uint8)
        memory = np.empty((0, 0)) if self._memory is None else self._memory[: self.evaluations].copy()
        return {
            "keys": keys.reshape(self.evaluations, -1) if self._row_of else np.empty((0, 0), dtype=np.uint8),
            "memory": memory,
            "calls": self.calls,
            "rejudged": self._rejudged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, bit for bit as the evaluator that gave it would.

        Raises
        ------
        ValueError
            If keys and memory do not belong together.
        """
        keys = np.ascontiguousarray(state["keys"], dtype=np.uint8)
        memory = np.array(state["memory"], dtype=np.float64)
        calls = np.asarray(state["calls"], dtype=np.int64).reshape(-1, 4)
        row_of = {key.tobytes(): i for i, key in enumerate(keys)}
        if len(row_of) != len(memory) or len(row_of) != int(calls[:, 1].sum()):
            raise ValueError(
                f"the state holds {len(row_of)} different genomes, {len(memory)} answers and calls that made "
                f"{int(calls[:, 1].sum())}; these must agree"
            )
        self._row_of = row_of
        self._memory = memory if len(memory) else None
        self._calls = [tuple(call) for call in calls.tolist()]
        self._hits, self._judged_anew = int(calls[:, 2].sum()), int(calls[:, 3].sum())
        self._rejudged = int(state["rejudged"])

    def _remember(self, new: dict[bytes, int], answer: np.ndarray) -> None:
        kept = min(answer.shape[1], 1 + getattr(self._function, "n_details", answer.shape[1]))
        n = self.evaluations
        if self._memory is None:
            self._memory = np.empty((max(_LEAST_ROWS, len(answer)), kept))
        if kept != self._memory.shape[1]:
            raise ValueError(
                f"the fitness function returned {answer.shape[1]} numbers per genome; it must return equally "
                f"many in every call"
            )
        if n + len(answer) > len(self._memory):
            larger = np.empty((max(2 * len(self._memory), n + len(answer)), kept))
            larger[:n] = self._memory[:n]
            self._memory = larger
        self._memory[n : n + len(answer)] = answer[:, :kept]
        self._row_of.update(zip(new, range(n, n + len(answer)), strict=True))

    def _judged(self, keys: list[bytes], generation: int | None) -> np.ndarray:
        if not keys:
            return np.empty(0)
        rows = self._memory[[self._row_of[key] for key in keys]]
        if self.rotates and generation is not None:
            return np.asarray(self._function.score(rows[:, 1:], generation), dtype=np.float64)
        return rows[:, 0].copy()


class _Answering:
    """What workers hold: the function, and the check of its answers."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function = function

    def __call__(self, genes: np.ndarray) -> np.ndarray:
        answer = np.asarray(self._function(genes), dtype=np.float64)
        if answer.ndim not in (1, 2) or len(answer) != len(genes) or answer.size == 0:
            raise ValueError(
                f"the fitness function returned shape {answer.shape} for {len(genes)} genomes; "
                f"it must return ({len(genes)},), one value per genome, or one row per genome"
            )
        return answer.reshape(len(genes), -1)

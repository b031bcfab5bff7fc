"""What all trials of a search earned, block of time by block of time: the matrix behind PBO, kept small.

CSCV asks for the returns of **every** trial that was evaluated, and a search evaluates up to a million.
Of the returns only the sums per block of time and the sums of their squares are kept, which is all that
a Sharpe ratio over half of the blocks needs. And of many trials a uniform sample of the different ones is
kept, beside the fittest of all.

The sample holds the genomes with the smallest hash of their key. That is a uniform draw without
replacement among *different* genomes, whatever their order; it needs no random state, so a resumed search
keeps the same sample; and asking twice about a genome does not count it twice. The winner of a sample is
the best of fewer, so PBO comes out somewhat lower than of all trials. The fittest of all is always in the
matrix, or the choice that was really made would not be among those judged.

What CSCV cannot see is that a search learns. It supposes trials that were laid down before anybody looked;
from the second generation on a search breeds from what did well in **all** blocks, so both halves of every
split have been seen, and PBO of all trials says little: it is as low on markets without any edge as on
markets with one (docs/generalisation.md has the figures). The **first batch**, the initial population, is
drawn blindly. For it CSCV says what it claims to, and so it is kept whole: :meth:`TrialMatrix.pbo_of_first`.
"""

import zipfile
from pathlib import Path
from typing import Any, Self

import numpy as np

from configs.load import ConfigError
from experiments.evidence import Overfitting, pbo_of_blocks

FORMAT = 1
CAPACITY = 4_096
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # SplitMix64


class TrialMatrix:
    """Sums of net returns and of their squares, per trial and block of time.

    Parameters
    ----------
    block_bars : int64 (blocks,)
        Bars of each block of time, in order.
    capacity : int
        Trials in the sample, and at most of the first batch. Each takes 8 bytes per block, and 16 for its
        name and its fitness: 590 kB for 4,096 trials on 16 blocks.

    Attributes
    ----------
    n_seen : int
        Trials told, of which the matrix is a sample.
    """

    def __init__(self, block_bars: np.ndarray, capacity: int = CAPACITY) -> None:
        self.block_bars = np.array(block_bars, dtype=np.int64)
        if self.block_bars.ndim != 1 or self.block_bars.size < 2 or self.block_bars.min() < 2:
            raise ValueError(f"block_bars is {block_bars}; it must be at least 2 blocks of 2 bars or more")
        if capacity < 2:
            raise ValueError(f"capacity is {capacity}; a choice is made among at least 2 trials")
        self.block_bars.flags.writeable = False
        self.capacity = capacity
        self.n_seen = 0
        self._names = np.empty(0, dtype=np.uint64)  # hashes of keys, ascending
        self._fitness = np.empty(0)
        self._blocks = np.empty((0, 2 * self.block_bars.size), dtype=np.float32)
        self._best = self._names, self._fitness, self._blocks  # no row or one
        self._first = self._blocks  # of the first batch, in its order

    def __len__(self) -> int:
        """Trials in the matrix."""
        return len(self._together()[0])

    def append(self, keys: list[bytes], answers: np.ndarray) -> None:
        """Take note of newly evaluated genomes; see ``ga.evaluation.Witness``.

        Parameters
        ----------
        keys : list of bytes (m,)
            Who they are; all equally long, a multiple of 8 bytes.
        answers : float64 (m, k)
            The fitness first; last, per block, the sum of the net returns per bar, and then of their
            squares.
        """
        answers = np.asarray(answers, dtype=np.float64)
        width = self._blocks.shape[1]
        if answers.ndim != 2 or len(answers) != len(keys) or answers.shape[1] <= width:
            raise ValueError(
                f"answers has shape {answers.shape} for {len(keys)} genomes; it must have a row per genome, "
                f"with the fitness and {width} sums"
            )
        if not len(keys):
            return
        if not np.isfinite(answers[:, -width:]).all():
            row = int(np.argmin(np.isfinite(answers[:, -width:]).all(axis=1)))
            raise ValueError(f"the sums of the genome in row {row} are not finite")
        names, fitness = _names(keys), answers[:, 0]
        blocks = answers[:, -width:].astype(np.float32)
        if self.n_seen == 0:
            self._first = blocks[: self.capacity].copy()
        self.n_seen += len(keys)
        ranked = np.where(np.isnan(fitness), -np.inf, fitness)
        top = int(np.argmax(ranked))
        if not self._best[0].size or ranked[top] > self._best[1][0]:
            self._best = names[top : top + 1].copy(), ranked[top : top + 1], blocks[top : top + 1].copy()
        if len(self._names) == self.capacity:
            near = names < self._names[-1]
            if not near.any():
                return
            names, fitness, blocks = names[near], fitness[near], blocks[near]
        names, first = np.unique(np.concatenate([self._names, names]), return_index=True)
        first = first[: self.capacity]
        self._names = names[: self.capacity]
        self._fitness = np.concatenate([self._fitness, fitness])[first]
        self._blocks = np.concatenate([self._blocks, blocks])[first]

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sums and sums of squares, two float64 (blocks, trials); the fittest is among the trials."""
        return _split(self._together()[2])

    def pbo(self) -> Overfitting | None:
        """Return CSCV of the whole search; None for fewer than 2 trials.

        The trials of a search are not independent of the blocks they are judged on: see the module.
        """
        return None if len(self) < 2 else pbo_of_blocks(self.block_bars, *self.sums())

    def pbo_of_first(self) -> Overfitting | None:
        """Return CSCV of the first batch, drawn before anything was known; None for fewer than 2 trials.

        What it asks: would the best of the blindly drawn genomes on half of the training rows have done
        well on the other half?
        """
        return None if len(self._first) < 2 else pbo_of_blocks(self.block_bars, *_split(self._first))

    def state(self) -> dict[str, Any]:
        """Return what was noted so far, for :meth:`restore`: arrays and integers."""
        parts = ("names", "fitness", "blocks")
        kept = {name: part.copy() for name, part in zip(parts, self._sample(), strict=True)}
        best = {f"best_{name}": part.copy() for name, part in zip(parts, self._best, strict=True)}
        return {
            "block_bars": self.block_bars.copy(),
            "capacity": self.capacity,
            "n_seen": self.n_seen,
            "first": self._first.copy(),
            **kept,
            **best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state as the matrix that gave it would.

        Raises
        ------
        ValueError
            If it is a state of other blocks or of another capacity, or its parts do not belong together.
        """
        if int(state["capacity"]) != self.capacity or not np.array_equal(
            state["block_bars"], self.block_bars
        ):
            raise ValueError("the state belongs to a trial matrix of other blocks or of another capacity")
        width = self._blocks.shape[1]
        for begin, most in (("", self.capacity), ("best_", 1)):
            names = np.array(state[f"{begin}names"], dtype=np.uint64)
            fitness = np.array(state[f"{begin}fitness"], dtype=np.float64)
            blocks = np.array(state[f"{begin}blocks"], dtype=np.float32)
            if names.ndim != 1 or len(names) > most or blocks.shape != (len(names), width):
                raise ValueError(f"the state holds {names.shape} trials with blocks {blocks.shape}")
            if fitness.shape != names.shape or not np.isfinite(blocks).all():
                raise ValueError("the state holds trials without a fitness or without finite sums")
            if begin:
                self._best = names, fitness, blocks
            else:
                self._names, self._fitness, self._blocks = names, fitness, blocks
        first = np.array(state["first"], dtype=np.float32)
        if first.ndim != 2 or first.shape[1] != width or not np.isfinite(first).all():
            raise ValueError(f"the state holds a first batch of shape {first.shape}")
        self._first = first
        self.n_seen = int(state["n_seen"])

    def save(self, path: Path) -> None:
        """Write the matrix as an ``.npz`` archive of plain arrays; the same matrix gives the same bytes.

        The caller writes to a draft, see ``experiments.runs.Run.writing``.
        """
        with open(path, "wb") as file:
            np.savez(file, format=FORMAT, **self.state())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the matrix that :meth:`save` wrote; nothing in the file is executed.

        Raises
        ------
        ConfigError
            If the file is missing, damaged, or no trial matrix of this version.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                state = {name: archive[name] for name in archive.files}
            if int(state.pop("format")) != FORMAT:
                raise ValueError(f"it has another format than {FORMAT}")
            matrix = cls(state["block_bars"], int(state["capacity"]))
            matrix.restore(state)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: is not a trial matrix that can be read ({reason})") from error
        return matrix

    def _sample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._names, self._fitness, self._blocks

    def _together(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if np.isin(self._best[0], self._names).all():
            return self._sample()
        return tuple(np.concatenate(pair) for pair in zip(self._sample(), self._best, strict=True))


def _split(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # (trials, 2 blocks) as kept -> sums and squares, (blocks, trials) each
    turned = blocks.T.astype(np.float64)
    half = len(turned) // 2
    return np.ascontiguousarray(turned[:half]), np.ascontiguousarray(turned[half:])


def _names(keys: list[bytes]) -> np.ndarray:
    # One 64-bit hash per key, uint64 (m,): equal keys have equal hashes, and hashes are spread evenly.
    words = np.frombuffer(b"".join(keys), dtype="<u8").reshape(len(keys), -1)
    name = np.zeros(len(keys), dtype=np.uint64)
    for word in words.T:
        name = (name ^ word) + np.uint64(_GOLDEN)
        name = (name ^ (name >> np.uint64(30))) * np.uint64(_MIX_1)
        name = (name ^ (name >> np.uint64(27))) * np.uint64(_MIX_2)
        name ^= name >> np.uint64(31)
    return name

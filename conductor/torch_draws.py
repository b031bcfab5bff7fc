"""Random numbers of many runs as tensors: each is a function of its run, its generation and its place.

There is no state to hand on. A number is a hash of the seed of its task, the generation, what it is for, and
its place in the tensor; so a run draws the same numbers alone, in any batch, on any device, and runs of the
same seed draw the same: candidates that share their tasks differ by their controls alone.

Source: G. L. Steele, D. Lea and C. H. Flood (2014), Fast splittable pseudorandom number generators (OOPSLA);
the finalizer is variant 13 of D. Stafford, as in SplitMix64.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: How many purposes the numbers of one generation may have.
PURPOSES = 64


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def mixed(words: Tensor) -> Tensor:
    """Return hashes of 64-bit words, int64 of the same shape; a bijection, every bit depends on every bit."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        # A right shift of int64 drags the sign along; the mask makes it that of an unsigned word.
        words = (words >> shift).bitwise_and_((1 << (64 - shift)) - 1).bitwise_xor_(words).mul_(factor)
    return (words >> 31).bitwise_and_((1 << 33) - 1).bitwise_xor_(words)


class Draws:
    """The random numbers of a batch of runs.

    Parameters
    ----------
    seeds : sequence of int
        Of R runs.
    device : torch.device or str
    dtype : torch.dtype
        float64: multiples of 2^-32; float32: of 2^-24. Both are below 1.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> None:
        each = {seed: i for i, seed in enumerate(dict.fromkeys(seeds))}
        self._dtype = dtype
        self._words = mixed(torch.tensor(list(each), device=device, dtype=torch.int64) * _GOLDEN + _FIRST)
        # Numbers are drawn once per seed and copied to the runs that share it.
        same = torch.tensor([each[seed] for seed in seeds], device=device, dtype=torch.int64)
        self._same = None if len(each) == len(same) else same
        self._each = torch.arange(len(each), device=device) if self._same is None else same
        self._places: dict[int, Tensor] = {}
        self._keys: tuple[int, Tensor] = -1, self._words  # of the last generation that was asked for

    def own(self, numbers: Tensor) -> Tensor:
        """Return numbers of each seed, (U, ...), as numbers of each run, (R, ...)."""
        return numbers if self._same is None else numbers.index_select(0, self._same)

    def uniform(self, generation: int, purpose: int, *shape: int) -> tuple[Tensor, Tensor]:
        """Return two independent tensors (U, *shape) of uniform numbers from [0, 1), one row per seed.

        A tensor that is wider in its first dimension begins with the numbers of a narrower one.
        """
        n = math.prod(shape)
        key = self._key(generation)[:, purpose, None]
        return self._halves(mixed(key + self._steps(n)).reshape(-1, *shape))

    def uniform_at(
        self, generation: int, purpose: int, runs: Tensor, rows: Tensor, d: int
    ) -> tuple[Tensor, Tensor]:
        """Return the numbers (n, d) that stand at some ``runs`` (n,) and ``rows`` (n,) of shape (R, p, d)."""
        key = self._key(generation)[self._each[runs], purpose]
        return self._halves(mixed((key + rows * d * _GOLDEN)[:, None] + self._steps(d)))

    def _key(self, generation: int) -> Tensor:
        # Of all purposes at once, (U, PURPOSES): a small call to a device takes as long as a large one.
        if self._keys[0] != generation:
            first = _signed(generation * PURPOSES * _GOLDEN % (1 << 64))
            self._keys = generation, mixed(self._words[:, None] + first + self._steps(PURPOSES))
        return self._keys[1]

    def _steps(self, n: int) -> Tensor:
        if n not in self._places:
            self._places[n] = torch.arange(1, n + 1, device=self._words.device) * _GOLDEN
        return self._places[n]

    def _halves(self, words: Tensor) -> tuple[Tensor, Tensor]:
        bits = 32 if self._dtype == torch.float64 else 24  # no more than a number holds: none rounds up to 1
        high = (words >> (64 - bits)).bitwise_and_((1 << bits) - 1)
        low = words.bitwise_and_((1 << bits) - 1)
        return tuple(half.to(self._dtype).mul_(2.0**-bits) for half in (high, low))


def normal(one: Tensor, other: Tensor) -> Tensor:
    """Return standard normal numbers from two tensors of uniform ones.

    Source: Box and Muller (1958).
    """
    return torch.sqrt(-2.0 * torch.log1p(-one)) * torch.cos(2.0 * math.pi * other)


def cauchy(uniform: Tensor) -> Tensor:
    """Return standard Cauchy numbers from uniform ones."""
    return torch.tan(math.pi * (uniform - 0.5))

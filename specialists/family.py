"""What a family of genomes is: its genes, the columns it reads, and one compiled decision.

A family writes ``decide`` once. The population kernel and the streaming kernel are generated from it, so
what is evolved and what is traded make the same decisions bit for bit.
"""

from typing import ClassVar, Protocol

import numpy as np

from configs.load import Config
from configs.registry import Registry
from ga.space import GenomeSpace


class Family(Protocol):
    """One way of trading, with genes to be found.

    Attributes
    ----------
    space : GenomeSpace
        The genes, their natural units and ranges.
    signals : tuple of str
        Feature columns that ``decide`` reads standardised (fitted on training rows).
    levels : tuple of str
        Feature columns that it reads as they are, after the signals in the row.
    fresh : tuple of float64
        The memory of a specialist that wakes up.
    """

    Config: ClassVar[type[Config]]
    config: Config
    space: GenomeSpace
    signals: tuple[str, ...]
    levels: tuple[str, ...]
    fresh: tuple[float, ...]

    def express(self, decoded: np.ndarray) -> np.ndarray:
        """Return what ``decide`` reads, float64 (p, d), from genes in natural units (p, g)."""
        ...

    def evaluate(self, *arrays: np.ndarray) -> None:
        """Trade a population; arguments as in ``backtest.kernels.POPULATION``."""
        ...

    def follow(self, *arrays: np.ndarray) -> None:
        """Follow one genome; arguments as in ``backtest.kernels.STREAM``."""
        ...


FAMILIES: Registry[Family] = Registry("family", "specialists", modules=("blend", "origin8", "tree"))

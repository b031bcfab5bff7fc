"""Where bars come from: the ``Source`` role and its registry."""

from typing import Protocol

from configs.registry import Registry
from market.bars import Bars
from market.quality import QualityReport


class Source(Protocol):
    """One place that bars come from.

    A plugin has a ``Config`` class and takes one in its constructor. Whatever stamp a source uses, the bars
    it returns carry the time of their close.
    """

    def bars(self) -> tuple[Bars, QualityReport]:
        """Return checked bars and their quality report."""
        ...


SOURCES: Registry[Source] = Registry("source", "market.sources")

"""From probabilities to one regime per row: threshold, hysteresis and minimum dwell, all causal."""

from typing import Self

import numpy as np
from pydantic import Field

from configs.load import Config
from market.table import Table
from regimes.kernels import dwell
from regimes.regime import REGIME_NAMES, UNDECIDED, RegimePath, RegimeProbabilities

PATH_COLUMNS = ("label", "confidence")


class PathConfig(Config):
    """How a path follows the probabilities."""

    threshold: float = Field(
        0.6,
        ge=0.34,
        le=0.999,
        description="Probability another regime needs to take over. Above one half this is a hysteresis: "
        "between the two, the label in force stays.",
    )
    min_dwell_bars: int = Field(
        12, ge=1, le=10_000, description="Bars a label is kept at least; half a day of hourly bars."
    )


class PathFilter:
    """Stage: regime probabilities in, one label and its probability out.

    The first known row decides by the most probable regime. From then on the label changes only to a
    regime that is the most probable one, has at least ``threshold``, and after the label has been kept
    for ``min_dwell_bars`` rows. Row t uses probabilities up to and including t.

    Parameters
    ----------
    config : PathConfig
        Defaults if not given.
    """

    def __init__(self, config: PathConfig | None = None) -> None:
        self.config = config or PathConfig()
        self.warmup = self.config.min_dwell_bars
        self._memory = np.array([UNDECIDED, 0.0])

    def fresh(self) -> Self:
        """Return the stage with empty memory."""
        return type(self)(self.config)

    def update(self, probabilities: RegimeProbabilities) -> Table:
        """Return columns ``label`` (-1: undecided) and ``confidence`` (NaN: not known), one row per row."""
        out = np.empty((len(probabilities), len(PATH_COLUMNS)))
        config = self.config
        dwell(probabilities.values, config.threshold, config.min_dwell_bars, self._memory, out)
        return Table(probabilities.time, out, PATH_COLUMNS)


def regime_path(table: Table, names: tuple[str, ...] = REGIME_NAMES) -> RegimePath:
    """Return the rows of a :class:`PathFilter` as a :class:`RegimePath`; ``names`` are the probabilities'."""
    return RegimePath(table.time, table.column("label").astype(np.int8), table.column("confidence"), names)

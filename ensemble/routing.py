"""Blenders that ask who is responsible: all members, or those of the regime, hard or soft."""

import numpy as np
from pydantic import Field

from configs.load import Config
from ensemble.blenders import BLENDERS, Blender, Rows, blended, shared


@BLENDERS.register("equal")
class Equal(Blender):
    """The mean of all members that have an opinion: what everything else has to beat.

    Source: DeMiguel, Garlappi and Uppal (2009), "Optimal versus naive diversification: how inefficient is the
    1/N portfolio strategy?"
    """

    name = "equal"

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals = rows.signals.values
        weights = shared(signals, np.ones(signals.shape[1]))
        return weights, blended(signals, weights)


class RoutingConfig(Config):
    """How specialists and forecasters share the say."""

    forecaster_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of all forecasters together where specialists have an opinion too; the rest is "
        "that of the specialists.",
    )


@BLENDERS.register("route")
class Route(Blender):
    """Hard routing: the label of the regime says who speaks.

    Heard are the members of the regime in force and those of no regime: forecasters and generalists. While no
    regime is in force only the latter are. Specialists and forecasters share the say by ``forecaster_share``
    and divide it evenly among themselves; a group without an opinion leaves its part to the other.
    """

    name = "route"
    Config = RoutingConfig

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals, label = rows.signals.values, rows.labels.column("label")
        weights = np.zeros(signals.shape)
        for regime in range(-1, self.n_regimes):
            weights += np.where((label == regime)[:, None], self._routed(signals, regime), 0.0)
        return weights, blended(signals, weights)

    def _routed(self, signals: np.ndarray, regime: int) -> np.ndarray:
        # Weights (n, s) as if a regime were certain; -1: none is.
        heard = np.array([one.regime is None or one.regime == regime for one in self.members])
        forecasts = np.array([one.kind == "forecaster" for one in self.members])
        known = ~np.isnan(signals) & heard
        groups = [known & ~forecasts, known & forecasts]
        counts = [group.sum(axis=1) for group in groups]
        weights = np.zeros(signals.shape)
        parts = (1.0 - self.config.forecaster_share, self.config.forecaster_share)
        for own, other, part, group in zip(counts, counts[::-1], parts, groups, strict=True):
            each = np.where(other > 0, part, 1.0) / np.maximum(own, 1)
            weights += np.where(group, each[:, None], 0.0)
        return weights


@BLENDERS.register("regime_weighted")
class RegimeWeighted(Route):
    """Soft routing: what ``route`` would do in each regime, weighted by how probable the regime is.

    Weights are those of ``route`` in each regime times its filtered probability, added up: with a certain
    regime it is ``route``. Where the probabilities are not known, only members of no regime are heard. The
    part of a regime in which nobody has an opinion stays in cash.
    """

    name = "regime_weighted"

    def _answer(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        signals, probabilities = rows.signals.values, rows.regimes.values
        unknown = np.isnan(probabilities).any(axis=1)
        weights = np.where(unknown[:, None], self._routed(signals, -1), 0.0)
        for regime in range(self.n_regimes):
            chance = np.where(unknown, 0.0, probabilities[:, regime])
            weights += chance[:, None] * self._routed(signals, regime)
        return weights, blended(signals, weights)

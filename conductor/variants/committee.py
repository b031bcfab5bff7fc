"""A committee: networks of several architectures answer together, each with a share that it has earned.

The members learn one after the other, each in its own way, from the same runs. Their shares are those with
which the committee's answer comes nearest to the labels of runs that no member saw (stacking), so a member
that adds nothing to the others keeps little more than its seat.

Source: L. Breiman (1996), Stacked regressions (Machine Learning 24).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field, field_validator
from scipy.optimize import minimize
from torch import Tensor, nn

from conductor.network import MOST_WEIGHTS, VARIANTS, ConductorNetwork, tensors
from conductor.sight import Inputs
from configs.load import Config, ConfigError, PluginConfig

if TYPE_CHECKING:
    from conductor.school import School
    from conductor.steering import Steering

#: What every member keeps of an equal share: a silent member could not be moved by evolution strategies.
SEAT = 0.2


class CommitteeConfig(Config):
    """Settings of variant committee."""

    members: tuple[PluginConfig, ...] = Field(
        (PluginConfig(name="es"), PluginConfig(name="dann"), PluginConfig(name="transformer")),
        min_length=2, max_length=5, description="Variants that belong to it, each with its settings.",
    )  # fmt: skip

    @field_validator("members")
    @classmethod
    def _no_committee(cls, members: tuple[PluginConfig, ...]) -> tuple[PluginConfig, ...]:
        if any(member.name == "committee" for member in members):
            raise ValueError("a committee cannot be a member of a committee")
        return members


@VARIANTS.register("committee")
class Committee(ConductorNetwork):
    """The weighted mean of its members.

    Attributes
    ----------
    share : float32 (m,)
        Weights of the members, a buffer that is saved with the network; they sum to 1.
    """

    Config = CommitteeConfig

    def __init__(self, config: CommitteeConfig) -> None:
        super().__init__(config)
        self.members = nn.ModuleList(
            VARIANTS.create(member.name, member.settings) for member in config.members
        )
        self.n_history = max(member.n_history for member in self.members)
        self.register_buffer("share", torch.full((len(self.members),), 1.0 / len(self.members)))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        return sum(
            share * member(part)
            for share, member, part in zip(self.share, self.members, self._parts(inputs), strict=True)
        )

    def hyperparameters(self, inputs: Inputs) -> Tensor | None:
        """Return the weighted mean of the members with this head, float32 (B, 5), or None without any."""
        parts = zip(self.share, self.members, self._parts(inputs), strict=True)
        said = [(share, member.hyperparameters(part)) for share, member, part in parts]
        said = [(share, one) for share, one in said if one is not None]
        total = sum(share for share, _ in said)
        return sum(share / total * one for share, one in said) if said else None

    def searched(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what each member yields; where that is too much, only those of modules named ``head``."""
        everything = [
            (f"members.{k}.{name}", one)
            for k, member in enumerate(self.members)
            for name, one in member.searched()
        ]
        if sum(one.numel() for _, one in everything) > MOST_WEIGHTS:
            everything = [(name, one) for name, one in everything if "head" in name.split(".")]
        yield from everything

    def settle(self, steering: "Steering") -> None:
        """Tell all members of the tuned controls."""
        for member in self.members:
            member.settle(steering)

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """Let every member learn from three quarters of the runs, and find the shares on the rest.

        Returns
        -------
        dict
            ``members``: a list with ``variant``, ``share``, ``loss`` (on the unseen runs) and ``figures`` (of
            its own schooling) of each; ``loss`` of the committee, ``loss_of_equal_shares`` and
            ``loss_of_silence``.
        """
        from conductor.regression import one_per_fork
        from conductor.variants.dann import split

        learned, unseen = split(school.labels(self.n_history), school.seed)
        if not len(unseen):
            raise ConfigError(
                f"schooling of variant committee: labels come from {len(np.unique(learned.run))} runs; it "
                "needs more, a quarter of which decides the shares"
            )
        school = replace(school, labels=lambda n_history: learned)
        figures = [member.schooled(school) for member in self.members]
        rows = one_per_fork(unseen)
        said = self._said(Inputs(rows.state, rows.history, rows.known, rows.regime))
        shares = stacked(said, rows.residual)
        with torch.no_grad():
            self.share.copy_(torch.from_numpy(shares))
        equal = np.full(len(said), 1.0 / len(said))
        return {
            "members": [
                {
                    "variant": member.name,
                    "share": float(share),
                    "loss": _loss(one, rows.residual),
                    "figures": own,
                }
                for member, share, one, own in zip(self.config.members, shares, said, figures, strict=True)
            ],
            "loss": _loss(np.tensordot(shares, said, 1), rows.residual),
            "loss_of_equal_shares": _loss(np.tensordot(equal, said, 1), rows.residual),
            "loss_of_silence": _loss(np.zeros_like(rows.residual), rows.residual),
        }

    def _parts(self, inputs: Inputs) -> list[Inputs]:
        n = inputs.history.shape[-2]
        return [
            inputs._replace(
                history=inputs.history[..., n - member.n_history :, :],
                known=inputs.known[..., n - member.n_history :],
            )
            for member in self.members
        ]

    def _said(self, inputs: Inputs) -> np.ndarray:
        # What each member says, float64 (m, rows, 12).
        with torch.inference_mode():
            parts = self._parts(tensors(inputs))
            return np.array(
                [member(part).numpy() for member, part in zip(self.members, parts, strict=True)], np.float64
            )


def stacked(said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the shares with which the answers of members come nearest to what was wanted, float64 (m,).

    Parameters
    ----------
    said : float64 (m, n, k)
        Answers of each member, of which none has learned from these rows.
    wanted : float (n, k)

    Notes
    -----
    Least squares over shares that sum to 1, each at least ``SEAT / m``; a trace of ridge decides for equal
    shares where members answer the same.
    """
    m, n = said.shape[:2]
    flat, target = said.reshape(m, -1), np.asarray(wanted, np.float64).ravel()
    gram, product = flat @ flat.T / n, flat @ target / n
    scale = np.trace(gram) / m or 1.0
    gram, product = gram / scale, product / scale
    gram, product = gram + 1e-3 * np.eye(m), product + 1e-3 / m
    found = minimize(
        lambda share: 0.5 * share @ gram @ share - product @ share,
        np.full(m, 1.0 / m),
        jac=lambda share: gram @ share - product,
        bounds=[(SEAT / m, 1.0)] * m,
        constraints={"type": "eq", "fun": lambda share: share.sum() - 1.0, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    ).x
    found = np.clip(found, SEAT / m, 1.0)
    return found / found.sum()


def _loss(said: np.ndarray, wanted: np.ndarray) -> float:
    return float(((said - wanted) ** 2).sum(axis=-1).mean())

"""The domain-adversarial conductor: features from which an adversary cannot tell the regime.

Where the same state of a search asks for the same controls in every regime, and only the mix of states
differs, features without a trace of the regime carry over to one that was never seen. Where the right
controls do differ, they cannot help: the figures of its schooling put a twin without adversary beside it, so
that the report can say which it was.

The discriminator learns at full strength; only the gradient that it sends back into the extractor is turned
around and scaled. To scale its loss as well would leave the extractor without an adversary for most of the
schooling, and the figures with the comfort of a discriminator that never learned.

Source: Y. Ganin et al. (2016), Domain-adversarial training of neural networks (JMLR 17).
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compute.seeds import stream
from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent, tensors
from conductor.sight import Inputs
from conductor.state import NO_REGIME
from configs.load import Config
from regimes.regime import Regime

if TYPE_CHECKING:
    from conductor.school import Labels, School

#: Share of the groups that all schooling leaves to the probes.
JUDGED = 0.25
#: An invariance that costs more than this share of the twin's task loss is too dear.
DEAR = 0.05
_OWN_RATE = 5e-3  # of the discriminator's own steps


class DannConfig(Config):
    """Settings of variant dann."""

    hidden: int = Field(
        32, ge=1, le=256, description="Hidden units of the extractor and of the discriminator."
    )
    features: int = Field(
        16, ge=1, le=64, description="Features, all that the head and the discriminator see."
    )
    adversary: float = Field(
        1.0, ge=0.0, le=10.0, description="Largest factor of the reversed gradient; 0 is no adversary."
    )
    smoothing: float = Field(
        0.1, ge=0.0, le=0.5, description="Label smoothing of the discriminator, against overconfidence."
    )
    epochs: int = Field(
        100, ge=1, le=10_000, description="Passes over the labels while the adversary learns."
    )
    steps: int = Field(
        8, ge=0, le=100, description="Steps of the discriminator alone before each step of all."
    )
    evolve_extractor: bool = Field(
        False,
        description="Whether evolution strategies move the extractor too, which may undo its invariance.",
    )
    exchanges: int = Field(
        19, ge=19, le=999, description="Exchanges of the regimes with which fresh probes are compared."
    )


class Reversal(torch.autograd.Function):
    """The identity, whose gradient comes back multiplied by a negative factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, factor: float) -> Tensor:
        """Return the features as they are."""
        return features.view_as(features)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Remember the factor."""
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient, turned around."""
        return -ctx.factor * gradient, None


def reversal_at(progress: float) -> float:
    """Return lambda, the factor of the reversed gradient: 0 at the beginning, near 1 at the end."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def learning_rate_at(progress: float) -> float:
    """Return the learning rate of the paper, from 0.01 down to 0.0017."""
    return 0.01 / (1.0 + 10.0 * progress) ** 0.75


@VARIANTS.register("dann")
class Dann(ConductorNetwork):
    """An extractor, a head on its features, and a discriminator that only schooling uses.

    Evolution strategies move the head alone: whatever it makes of the features, the regime is not in them.
    """

    Config = DannConfig

    def __init__(self, config: DannConfig) -> None:
        super().__init__(config)
        hidden, n = config.hidden, config.features
        self.extractor = nn.Sequential(nn.Linear(N_STATE, hidden), nn.Tanh(), nn.Linear(hidden, n), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(n, n), nn.Tanh(), silent(nn.Linear(n, N_CONTROLS)))
        self.discriminator = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, len(Regime)))

    def features(self, inputs: Inputs) -> Tensor:
        """Return what the extractor makes of the state, float32 (B, features)."""
        return self.extractor(inputs.state)

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        return self.head(self.features(inputs))

    def searched(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the weights of the head; with ``evolve_extractor`` those of the extractor before them."""
        parts = ("extractor", "head") if self.config.evolve_extractor else ("head",)
        yield from ((name, one) for name, one in self.named_parameters() if name.split(".")[0] in parts)

    def discriminated(self, inputs: Inputs, among: np.ndarray) -> np.ndarray:
        """Return how probable the discriminator thinks each of some regimes, float64 (B, k)."""
        with torch.inference_mode():
            guess = self.discriminator(self.features(tensors(inputs)))
            return torch.softmax(guess[:, among].double(), dim=1).numpy()

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """Learn the labels against the adversary, then the head alone; compare with a twin without adversary.

        Returns
        -------
        dict
            The figures of ``conductor.regression.regress`` for the head, and under ``invariance``: ``lambda``
            and ``twin`` (each with ``task_loss``, ``explained``, ``gain`` and ``gain_error`` on unseen runs,
            see :func:`conductor.regression.fit`; ``discriminator``, the judgment of :func:`collapse`; and
            ``evidence``, see :func:`conductor.invariance.evidence`), ``verdict`` ("bought", "there anyway",
            "too dear", "not reached" or "untested") and ``sentence``.
        """
        learned, unseen = split(school.labels(self.n_history), school.seed)
        school = replace(school, labels=lambda n_history: learned)
        twin = Dann(self.config.model_copy(update={"adversary": 0.0}))
        twin.load_state_dict(self.state_dict())
        figures = {}
        reference = None
        for name, network in (("lambda", self), ("twin", twin)):
            fitted = _fitted(network, school)
            figures[name] = {"fit": fitted, **_judged(network, unseen, school.seed, reference)}
            reference = figures[name]["evidence"]["raw"]
        found = dict(figures["lambda"].pop("fit"))
        figures["twin"].pop("fit")
        found["invariance"] = {**figures, **_weighed(figures)}
        return found


class Adversary:
    """A penalty of :func:`conductor.regression.regress`: how well the discriminator tells the regimes apart.

    Cross-entropy over the rows that belong to a regime, each regime with the same weight in all. The
    discriminator goes down its gradient at full strength, the extractor up, ``strength`` times lambda as far.

    Parameters
    ----------
    regime : int64 (m,)
        Of all labels, which regimes there are and how many rows of each.
    strength : float
        0 trains a discriminator that has no influence.
    smoothing : float
        Label smoothing.
    steps : int
        Of the discriminator alone, with an optimizer of its own, each time that the penalty is asked for. A
        discriminator that lags behind the extractor is not deceived but outrun, and fresh probes then find
        what it has missed.
    """

    def __init__(self, regime: np.ndarray, strength: float, smoothing: float, steps: int = 0) -> None:
        present, counts = np.unique(regime[regime != NO_REGIME], return_counts=True)
        weight = np.zeros(len(Regime), dtype=np.float32)
        weight[present] = counts.sum() / (max(len(present), 1) * counts)
        self._weight, self._strength, self._smoothing = torch.from_numpy(weight), strength, smoothing
        self._steps, self._own = steps, None
        # Classes that do not occur are no answer: a large constant keeps them out of the softmax.
        self._absent = torch.from_numpy(np.where(weight > 0.0, 0.0, -1e4).astype(np.float32))

    def __call__(self, network: Dann, rows: "Labels", progress: float) -> Tensor:
        """Return the loss of the discriminator on some rows, 0 where none belongs to a regime."""
        features = network.features(Inputs(rows.state, rows.history, rows.known, rows.regime))
        self._advance(network, features.detach(), rows.regime)
        features = Reversal.apply(features, self._strength * reversal_at(progress))
        return self._loss(network.discriminator(features), rows.regime)

    def _advance(self, network: Dann, features: Tensor, regime: Tensor) -> None:
        if self._own is None:
            self._own = torch.optim.Adam(network.discriminator.parameters(), lr=_OWN_RATE)
        for _ in range(self._steps):
            self._own.zero_grad(set_to_none=True)
            self._loss(network.discriminator(features), regime).backward()
            self._own.step()

    def _loss(self, answers: Tensor, regime: Tensor) -> Tensor:
        guess = torch.log_softmax(answers + self._absent.to(answers.device), dim=1)
        known, weight = regime != NO_REGIME, self._weight.to(answers.device)
        label, present = regime.clamp(min=0), (weight > 0.0).float()
        share = (1.0 - self._smoothing) * nn.functional.one_hot(label, len(Regime)).float()
        share = share + self._smoothing * present / present.sum().clamp(min=1.0)
        worth = weight[label] * known.float()
        return -(worth * (share * guess).sum(dim=1)).sum() / worth.sum().clamp(min=1.0)


def split(labels: "Labels", seed: int) -> tuple["Labels", "Labels"]:
    """Return the labels to learn from and those of unseen groups, a quarter of them in each regime.

    Runs on the same bars stay together, see :func:`conductor.invariance.stretches`.
    """
    from conductor.invariance import stretches

    inputs = Inputs(labels.state, labels.history, labels.known, labels.regime)
    group, rng = stretches(inputs, labels.run), stream(seed, "conductor", "dann", "unseen")
    unseen: set[int] = set()
    for one in np.unique(labels.regime):
        names = np.unique(group[labels.regime == one])
        taken = sum(name in unseen for name in names.tolist())  # bars may serve several regimes
        more = [name for name in rng.permutation(names).tolist() if name not in unseen]
        unseen.update(more[: max(0, round(JUDGED * names.size) - taken)])
    judged = np.isin(group, sorted(unseen))
    return labels.rows(np.flatnonzero(~judged)), labels.rows(np.flatnonzero(judged))


def collapse(regime: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """Say whether a discriminator still weighs all regimes, and how often it is right.

    Over features that hold no regime the best answer is to think all of them equally probable, and its
    largest entry is then chance. A discriminator that is sure of one regime whatever it sees has given up.

    Parameters
    ----------
    regime : int64 (m,)
        True regimes.
    probability : float64 (m, k)
        What the discriminator thinks of each of the k regimes that occur, in their order.

    Returns
    -------
    dict
        ``balanced_accuracy``, ``shares`` (mean probability by name of the regime, each regime with the same
        weight) and ``collapsed``: whether a regime has less than a tenth of its due.
    """
    from conductor.invariance import balanced_accuracy

    names = np.unique(regime)
    if not names.size:
        return {"balanced_accuracy": math.nan, "shares": {}, "collapsed": False}
    shares = np.mean([probability[regime == one].mean(axis=0) for one in names], axis=0)
    return {
        "balanced_accuracy": balanced_accuracy(regime, names[probability.argmax(axis=1)]),
        "shares": {Regime(one).text: float(share) for one, share in zip(names, shares, strict=True)},
        "collapsed": bool(shares.min() < 0.1 / names.size),
    }


def _fitted(network: Dann, school: "School") -> dict[str, Any]:
    from conductor.regression import regress

    settings, new = network.config, copy.deepcopy(network.head.state_dict())
    adversary = Adversary(school.labels(0).regime, settings.adversary, settings.smoothing, settings.steps)
    # To the last epoch: the best held-out loss is that of an epoch in which lambda was still small.
    adversarial = regress(
        network,
        school,
        penalty=adversary,
        epochs=settings.epochs,
        learning_rate=learning_rate_at,
        keep="last",
    )
    network.head.load_state_dict(new)
    apart = [*network.extractor.parameters(), *network.discriminator.parameters()]
    for parameter in apart:
        parameter.requires_grad_(False)
    try:
        found = regress(network, school)
    finally:
        for parameter in apart:
            parameter.requires_grad_(True)
    return {**found, "adversarial_loss": adversarial["train_loss"]}


def _judged(
    network: Dann, unseen: "Labels", seed: int, reference: Mapping[str, Any] | None
) -> dict[str, Any]:
    from conductor.invariance import evidence, snapshots
    from conductor.regression import one_per_fork, promised_gain

    inputs, run = snapshots(unseen)
    rows = one_per_fork(unseen)
    with torch.inference_mode():
        said = network(tensors(inputs)).numpy()
    found: dict[str, Any] = dict.fromkeys(("task_loss", "explained", "gain", "gain_error"), math.nan)
    if len(rows):
        loss, silence = (
            float(((one - rows.residual) ** 2).sum(axis=1).mean()) for one in (said, np.zeros_like(said))
        )
        gain, error = promised_gain(said, rows.fork, unseen)
        found = {
            "task_loss": loss,
            "explained": 1.0 - loss / silence if silence > 0.0 else 0.0,
            "gain": gain,
            "gain_error": error,
        }
    of_regime = inputs.regime != NO_REGIME
    mine = Inputs(*(part[of_regime] for part in inputs))
    return {
        **found,
        "discriminator": collapse(mine.regime, network.discriminated(mine, np.unique(mine.regime))),
        "evidence": evidence(
            network, inputs, run, seed=seed, n_exchanges=network.config.exchanges, reference=reference
        ),
    }


def _weighed(figures: Mapping[str, Any]) -> dict[str, str]:
    """Put invariance and what it cost side by side, whichever way it went."""
    with_, without = figures["lambda"], figures["twin"]
    dearer = with_["task_loss"] / without["task_loss"] - 1.0 if without["task_loss"] > 0.0 else 0.0
    anyway = without["evidence"]["verdict"] == "invariant"
    verdict = {
        "invariant": "too dear" if dearer > DEAR else "there anyway" if anyway else "bought",
        "not invariant": "not reached",
        "undecided": "untested",
    }[with_["evidence"]["verdict"]]
    sentence = with_["evidence"]["sentence"]
    if without["evidence"]["features"] is not None:
        plain = without["evidence"]["features"]
        sentence += (
            f" Without the adversary the probes reach {100 * plain['best']:.0f}%; with it the loss on unseen "
            f"labels is {100 * abs(dearer):.1f}% {'higher' if dearer > 0.0 else 'lower'}, and they promise "
            f"{with_['gain']:+.3f} ± {with_['gain_error']:.3f} standard deviations of advantage instead of "
            f"{without['gain']:+.3f} ± {without['gain_error']:.3f}."
        )
    if with_["discriminator"]["collapsed"] and verdict == "not reached":
        # Over features that hold nothing it has nothing to say; over others it has given up.
        sentence += " The discriminator collapsed, and showed the extractor nothing."
    return {"verdict": verdict, "sentence": sentence}

"""Evolution strategies over the weights of a network, judged by whole runs of the search.

Pairs of candidates lie on both sides of the mean; all candidates breed the same tasks with the same seeds.
Each task is standardised over the candidates, so that none dominates, and only ranks of the means reach the
gradient, which Adam follows.

Source: T. Salimans et al. (2017), Evolution strategies as a scalable alternative to reinforcement learning;
B. Polyak and A. Juditsky (1992) for the average of the path.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from compute.seeds import stream
from compute.workers import Mapper
from conductor.conducting import Conducting
from conductor.curriculum import Batch, Source
from conductor.devices import candidate_scores
from conductor.network import ConductorNetwork, flat, put
from conductor.objective import Scores, candidate_losses, objective
from conductor.steering import Steering
from configs.load import Config
from ga.variation import Variation

#: Weights up to which candidates and steps are as long as the settings say. In more dimensions an estimate of
#: the gradient from as many runs points less surely, so both shrink with the root of their number.
FEW = 160


class StrategiesConfig(Config):
    """How weights are evolved on whole runs."""

    generations: int = Field(300, ge=1, le=1_000_000, description="Meta-generations.")
    pairs: int = Field(16, ge=1, le=4096, description="Candidates on either side of the mean.")
    tasks: int = Field(32, ge=2, le=4096, description="Fresh tasks per meta-generation.")
    sigma: float = Field(0.2, gt=0.0, le=10.0, description="Standard deviation of the candidates.")
    learning_rate: float = Field(0.03, gt=0.0, le=1.0, description="Step of Adam at the beginning.")
    last_rate: float = Field(0.1, gt=0.0, le=1.0, description="Step at the end, as a share of the first.")
    decay: float = Field(0.005, ge=0.0, le=1.0, description="Shrinkage of the weights, times the step.")
    memory: float = Field(
        0.96, ge=0.0, lt=1.0, description="Share of the running average of the weights that stays."
    )
    final_share: float = Field(
        0.5, ge=0.0, le=1.0, description="Weight of the final error in the objective; the rest is the area."
    )
    validate_every: int = Field(25, ge=1, description="Meta-generations between two validations.")


class Strategies:
    """The search itself: ask for candidates, tell their losses.

    Parameters
    ----------
    weights : float64 (w,)
        Where to begin.
    config : StrategiesConfig
    seed : int
    """

    def __init__(self, weights: np.ndarray, config: StrategiesConfig, seed: int) -> None:
        self.config, self._seed = config, seed
        self.mean = np.array(weights, dtype=np.float64)
        self.average = self.mean.copy()
        self.generation = 0
        self.shortening = min(1.0, (FEW / max(self.mean.size, 1)) ** 0.5)
        self._first, self._second = np.zeros_like(self.mean), np.zeros_like(self.mean)

    def ask(self) -> np.ndarray:
        """Return the candidates of this generation, float64 (2 * pairs, w); the same when asked again."""
        moves = self.config.sigma * self.shortening * self._noise()
        return np.concatenate([self.mean + moves, self.mean - moves])

    def tell(self, losses: np.ndarray) -> None:
        """Move the mean; lower losses, float64 (2 * pairs,), are better."""
        config, noise = self.config, self._noise()
        if losses.shape != (2 * config.pairs,):
            raise ValueError(f"losses have shape {losses.shape}; there are {2 * config.pairs} candidates")
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable") / (len(losses) - 1) - 0.5
        gradient = ((ranks[: config.pairs] - ranks[config.pairs :])[:, None] * noise).mean(axis=0)
        self.generation += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * np.square(gradient)
        first = self._first / (1.0 - 0.9**self.generation)
        second = self._second / (1.0 - 0.999**self.generation)
        elapsed = (self.generation - 1) / config.generations
        rate = self.shortening * config.learning_rate * (1.0 - (1.0 - config.last_rate) * min(elapsed, 1.0))
        self.mean = self.mean - rate * (first / (np.sqrt(second) + 1e-8) + config.decay * self.mean)
        # A mean of all means at first, one of the latest later on.
        self.average += max(1.0 - config.memory, 1.0 / self.generation) * (self.mean - self.average)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on bit for bit."""
        return {
            "mean": self.mean.copy(),
            "average": self.average.copy(),
            "first": self._first.copy(),
            "second": self._second.copy(),
            "generation": self.generation,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.mean, self.average = np.array(state["mean"]), np.array(state["average"])
        self._first, self._second = np.array(state["first"]), np.array(state["second"])
        self.generation = int(state["generation"])

    def _noise(self) -> np.ndarray:
        rng = stream(self._seed, "strategies", self.generation)
        return rng.standard_normal((self.config.pairs, self.mean.size))


class FineTuning:
    """Evolves the searched weights of a network on whole runs, and keeps the best of validation.

    Parameters
    ----------
    network : ConductorNetwork
        Its searched weights are where the search begins; :meth:`finish` sets them to the best.
    source : Source
        Training tasks.
    validation : Batch
        Runs that choose among the averages of the path; they train nothing. Beginning counts as a choice,
        so that nothing worse is kept.
    steering, variation : Steering, Variation
    config : StrategiesConfig
    seed : int
    mapper : Mapper

    Attributes
    ----------
    curve : list of dict
        ``generation``, ``anytime``, ``final`` (decades against the tuned controls, lower is better),
        ``objective`` and ``spread`` of each validation.
    """

    def __init__(
        self,
        network: ConductorNetwork,
        source: Source,
        validation: Batch,
        steering: Steering,
        variation: Variation,
        config: StrategiesConfig,
        seed: int,
        mapper: Mapper,
    ) -> None:
        self._network, self._source, self._validation = network, source, validation
        self._steering, self._variation, self._mapper = steering, variation, mapper
        self._config = config
        self.strategies = Strategies(flat(network), config, seed)
        self.curve: list[dict[str, float]] = []
        self._best = self.strategies.mean.copy()
        self._reference: Scores | None = None

    @property
    def finished(self) -> bool:
        """Whether all meta-generations are done."""
        return self.strategies.generation >= self._config.generations

    def step(self) -> None:
        """Do one meta-generation, and a validation when it is due."""
        if not self.curve:
            self._judge(self.strategies.mean)
        config, search = self._config, self.strategies
        batch = self._source.batch(search.generation, config.tasks)
        search.tell(self._losses(search.ask(), batch))
        if search.generation % config.validate_every == 0 or self.finished:
            self._judge(search.average)

    def run(self, told: Callable[["FineTuning"], None] | None = None) -> None:
        """Go on to the end; ``told`` is called after every meta-generation."""
        while not self.finished:
            self.step()
            if told is not None:
                told(self)
        self.finish()

    def finish(self) -> None:
        """Set the network to the best weights that validation has seen."""
        put(self._network, self._best)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs."""
        return {"strategies": self.strategies.state(), "best": self._best.copy(), "curve": list(self.curve)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, bit for bit as the fine-tuning that was stopped there would have."""
        self.strategies.restore(state["strategies"])
        self._best = np.array(state["best"])
        self.curve = [dict(row) for row in state["curve"]]

    def _losses(self, candidates: np.ndarray, batch: Batch) -> np.ndarray:
        scored = candidate_scores(
            self._network, self._steering, self._variation, batch, candidates, self._mapper
        )
        values = scored.weighed(self._config.final_share)
        return candidate_losses(values.reshape(len(candidates), len(batch)))

    def _judge(self, weights: np.ndarray) -> None:
        batch = self._validation
        if self._reference is None:
            environment = batch.environment(self._variation, mapper=self._mapper)
            self._reference = batch.scores(environment.run_fixed(self._steering.controls.to_array()))
        conducting = Conducting(self._network, self._steering, batch.outlook, weights[None])
        scored = batch.scores(batch.environment(self._variation, mapper=self._mapper).run(conducting))
        gain = objective(scored, self._reference, final_share=self._config.final_share)
        if not self.curve or gain.mean() < min(row["objective"] for row in self.curve):
            self._best = weights.copy()
        self.curve.append(
            {
                "generation": float(self.strategies.generation),
                "anytime": float((scored.anytime - self._reference.anytime).mean()),
                "final": float((scored.final - self._reference.final).mean()),
                "objective": float(gain.mean()),
                "spread": float(gain.std(ddof=1) / np.sqrt(len(gain))),
            }
        )

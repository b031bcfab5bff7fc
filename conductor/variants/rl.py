"""The conductor of reinforcement learning: an actor of Stable-Baselines3, trained on runs as episodes.

One generation is one step, and an episode is paid what the objective says of its run
(:mod:`conductor.episodes`), so nothing is discounted. Exploration is state-dependent and held where the
algorithm can (PPO, SAC) and correlated in time where it cannot (TD3): what a control does shows only after
some generations.

Published reports are sobering: learning of this kind is slow, and fails where evolution strategies do not. So
the actor is judged on tasks put aside every now and then, the best is judged again on others, and if these do
not agree that it is better than the tuned controls, the network stays as silent as it began.

Training needs the extra ``rl``; a trained conductor runs without it.

Sources: J. Schulman et al. (2017), Proximal policy optimization algorithms (arXiv 1707.06347); T. Haarnoja et
al. (2018), Soft actor-critic (ICML); S. Fujimoto et al. (2018), Addressing function approximation error in
actor-critic methods (ICML); A. Raffin et al. (2022), Smooth exploration for robotic reinforcement learning
(CoRL); T. Nguyen et al. (2025), On the importance of reward design in reinforcement learning-based dynamic
algorithm configuration (arXiv 2502.20265).
"""

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compute.seeds import stream
from conductor.conducting import Conducting
from conductor.curriculum import Batch
from conductor.episodes import REACH, Terms
from conductor.network import N_CONTROLS, N_STATE, VARIANTS, ConductorNetwork, silent
from conductor.objective import Scores, objective
from conductor.sight import Inputs
from configs.load import Config, ConfigError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from conductor.gym_environment import RunVecEnv
    from conductor.school import School

#: Batches of the training source that choose the actor and that check the choice, and the first of those that
#: train: far from those of the labels.
_JUDGING, _CHECKING, _TRAINING = 500_000, 500_001, 500_002
#: Times that an actor is judged during training.
_JUDGED = 10
#: Generations for which SAC holds its exploration; PPO holds it for a rollout, about one run.
_HELD = 6
#: Logarithm of the standard deviation of that noise, per hidden unit.
_LOG_NOISE = {"ppo": -1.0, "sac": -2.0}
#: Generations of a rollout of PPO.
_ROLLOUT = 60
#: Step of Adam where nothing is said.
_LEARNING_RATE = {"ppo": 2e-3, "sac": 3e-4, "td3": 3e-4}
#: Of the noise of TD3, in units of the reach.
_NOISE, _TARGET_NOISE = 0.2, 0.1
#: Steps of random actions before SAC and TD3 begin to learn, as a share of all, and their replay buffer.
_WARM_UP, _REPLAY = 0.05, 200_000


class RlConfig(Config):
    """Settings of variant rl."""

    algorithm: Literal["ppo", "sac", "td3"] = Field("ppo", description="Algorithm of Stable-Baselines3.")
    steps: int = Field(
        1_000_000, ge=1, le=10**9, description="Generations of runs to learn from, at an effort of 1."
    )
    runs: int = Field(256, ge=1, le=4096, description="Runs at the same time.")
    hidden: int = Field(32, ge=1, le=256, description="Hidden units of each of the two layers.")
    reach: float = Field(REACH, gt=0.0, le=6.0, description="Largest residual that it can set, in logits.")
    learning_rate: float | None = Field(
        None, gt=0.0, le=0.1, description="Step of Adam; by default one that suits the algorithm."
    )
    discount: float = Field(1.0, gt=0.0, le=1.0, description="Worth of a reward one generation later.")
    final_share: float = Field(
        0.5, ge=0.0, le=1.0, description="Weight of the final error in the reward; the rest is the area."
    )
    judging_tasks: int = Field(
        256,
        ge=2,
        le=4096,
        description="Training tasks put aside to choose the actor, and again to check it.",
    )


@VARIANTS.register("rl")
class Rl(ConductorNetwork):
    """The actor: two layers of tanh units and a bounded answer, its mean action without noise.

    It reads no labels, and so none are made.
    """

    Config = RlConfig

    def __init__(self, config: RlConfig) -> None:
        super().__init__(config)
        units = config.hidden
        self.body = nn.Sequential(nn.Linear(N_STATE, units), nn.Tanh(), nn.Linear(units, units), nn.Tanh())
        self.head = silent(nn.Linear(units, N_CONTROLS))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the residuals, float32 (B, 12)."""
        return self.config.reach * torch.tanh(self.head(self.body(inputs.state)))

    def schooled(self, school: "School") -> Mapping[str, Any]:
        """Train on episodes; keep the best actor on tasks put aside.

        Returns
        -------
        dict
            ``algorithm``; ``steps`` and ``judged``, when the actor was judged and the mean of the objective
            then, in decades against the static twins; ``checked``, that of the chosen one on other tasks,
            which no choice has touched; ``kept``, after how many steps, 0 if silence was; ``episodes`` and
            ``paid``, their number and mean sum of rewards with exploration, between two judgements.

        Raises
        ------
        ConfigError
            If the extra is not installed.
        """
        check_installed()
        from conductor.gym_environment import RunVecEnv

        config = self.config
        steps = max(int(config.steps * school.effort), config.runs)
        terms = Terms(school.steering, school.variation, config.final_share, config.reach)
        environment = RunVecEnv(school.source, terms, config.runs, first=_TRAINING, mapper=school.mapper)
        seed = int(stream(school.seed, "rl").integers(2**31))
        with _own_randomness(seed):
            model = _model(config, environment, steps, seed)
            _load(model, self)
            course = _Course(self, school, steps)
            model.learn(steps, callback=course.callback(model))
        environment.close()
        return course.finished()


def check_installed() -> None:
    """Check that a conductor of this variant can be trained here.

    Raises
    ------
    ConfigError
        If gymnasium or Stable-Baselines3 is not installed.
    """
    missing = [name for name in ("gymnasium", "stable_baselines3") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"variant rl is trained with {' and '.join(missing)}, which this installation lacks; install it "
            "with: pip install 'regime-conductor[rl]', or choose another variant"
        )


class _Course:
    """Judges the actor while it is trained, and remembers the best."""

    def __init__(self, network: Rl, school: "School", steps: int) -> None:
        self._network, self._school, self._total = network, school, steps
        self._judging, self._checking = self._put_aside(_JUDGING), self._put_aside(_CHECKING)
        self._silent = self._best = copy.deepcopy(network.state_dict())
        # A silent network is the static twin, bit for bit.
        self._steps, self._judged, self._kept = [0], [0.0], 0
        self._paid: list[list[float]] = []
        self._now: list[float] = []

    def callback(self, model: "BaseAlgorithm") -> Any:
        """Return what Stable-Baselines3 calls after every step."""
        from stable_baselines3.common.callbacks import BaseCallback

        course, every = self, max(self._total // _JUDGED, 1)

        class Judging(BaseCallback):
            def _on_step(self) -> bool:
                infos = self.locals["infos"]
                course._now += [info["episode"]["r"] for info in infos if "episode" in info]
                if self.num_timesteps - course._steps[-1] >= every:
                    course.judge(model, self.num_timesteps)
                return True

            def _on_training_end(self) -> None:
                course.judge(model, self.num_timesteps)

        return Judging()

    def judge(self, model: "BaseAlgorithm", steps: int) -> None:
        """Run the actor as it is on the tasks put aside."""
        network = self._network
        body, head = _parts(model)
        network.body.load_state_dict(body)
        network.head.load_state_dict(head)
        found = self._worth(*self._judging)
        if found < min(self._judged):
            self._best, self._kept = copy.deepcopy(network.state_dict()), steps
        self._steps.append(steps)
        self._judged.append(found)
        self._paid.append(self._now)
        self._now = []
        best = min(self._judged)
        sentence = f"{network.config.algorithm} {found:+.3f} decades against static, at best {best:+.3f}"
        self._school.told(min(steps, self._total), self._total, sentence)

    def finished(self) -> dict[str, Any]:
        """Set the network to the best, or back to silence if others do not agree; return the figures."""
        self._network.load_state_dict(self._best)
        checked = self._worth(*self._checking) if self._kept else 0.0
        if checked >= 0.0:
            self._network.load_state_dict(self._silent)
            self._kept = 0
        return {
            "algorithm": self._network.config.algorithm,
            "steps": self._steps,
            "judged": self._judged,
            "checked": checked,
            "kept": self._kept,
            "episodes": [len(paid) for paid in self._paid],
            "paid": [float(np.mean(paid)) if paid else None for paid in self._paid],
        }

    def _put_aside(self, number: int) -> tuple[Batch, Scores]:
        batch = self._school.source.batch(number, self._network.config.judging_tasks)
        environment = batch.environment(self._school.variation, mapper=self._school.mapper)
        fixed = self._school.steering.controls.to_array()
        return batch, batch.scores(environment.run_fixed(fixed))

    def _worth(self, batch: Batch, reference: Scores) -> float:
        environment = batch.environment(self._school.variation, mapper=self._school.mapper)
        outcome = environment.run(Conducting(self._network, self._school.steering, batch.outlook))
        share = self._network.config.final_share
        return float(objective(batch.scores(outcome), reference, final_share=share).mean())


def _model(config: RlConfig, environment: "RunVecEnv", steps: int, seed: int) -> "BaseAlgorithm":
    from stable_baselines3 import PPO, SAC, TD3
    from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

    units = [config.hidden, config.hidden]
    common: dict[str, Any] = {
        "learning_rate": config.learning_rate or _LEARNING_RATE[config.algorithm],
        "gamma": config.discount,
        "seed": seed,
        "device": "cpu",  # a network this small waits longer for a GPU than it computes
    }
    policy: dict[str, Any] = {"activation_fn": nn.Tanh}
    if config.algorithm == "ppo":
        n_steps = min(_ROLLOUT, max(2, steps // config.runs))
        samples = n_steps * config.runs
        return PPO(
            "MlpPolicy",
            environment,
            n_steps=n_steps,
            batch_size=samples // 4 if samples % 4 == 0 and samples > 4 else samples,
            n_epochs=5,
            gae_lambda=0.98,
            use_sde=True,
            policy_kwargs=policy
            | {
                "net_arch": {"pi": units, "vf": [64, 64]},
                "log_std_init": _LOG_NOISE["ppo"],
                "squash_output": True,
            },
            **common,
        )
    replayed: dict[str, Any] = {
        "buffer_size": min(_REPLAY, max(steps, 2 * config.runs)),
        "learning_starts": int(_WARM_UP * steps),
        "batch_size": 256,
        "gradient_steps": max(1, config.runs // 16),
    }
    policy["net_arch"] = {"pi": units, "qf": [64, 64]}
    if config.algorithm == "sac":
        return SAC(
            "MlpPolicy",
            environment,
            use_sde=True,
            sde_sample_freq=_HELD,
            use_sde_at_warmup=True,
            policy_kwargs=policy | {"log_std_init": _LOG_NOISE["sac"], "clip_mean": 0.0},
            **replayed,
            **common,
        )
    zeros = np.zeros(N_CONTROLS)
    return TD3(
        "MlpPolicy",
        environment,
        policy_kwargs=policy,
        action_noise=OrnsteinUhlenbeckActionNoise(zeros, np.full(N_CONTROLS, _NOISE)),
        target_policy_noise=_TARGET_NOISE,
        **replayed,
        **common,
    )


def _places(model: "BaseAlgorithm") -> list[tuple[nn.Module, nn.Linear]]:
    # Where an algorithm keeps the hidden layers of its actor and the layer of their mean; TD3 has two actors.
    if hasattr(model.policy, "mlp_extractor"):
        return [(model.policy.mlp_extractor.policy_net, model.policy.action_net)]
    if hasattr(model.actor, "latent_pi"):
        return [(model.actor.latent_pi, model.actor.mu)]
    return [(actor.mu[:4], actor.mu[4]) for actor in (model.actor, model.actor_target)]


def _load(model: "BaseAlgorithm", network: Rl) -> None:
    for body, head in _places(model):
        body.load_state_dict(network.body.state_dict())
        head.load_state_dict(network.head.state_dict())


def _parts(model: "BaseAlgorithm") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    body, head = _places(model)[0]
    return body.state_dict(), head.state_dict()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Lend the library the global generators it draws from; afterwards they are as they were.

    Torch works on one thread meanwhile: with another number of them a sum may have other last bits.
    """
    threads, python, numbers = torch.get_num_threads(), random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002

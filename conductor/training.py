"""From settings to a trained conductor: the steps of ``python -m conductor.train`` in their order.

1. Tune fixed controls on the training tasks: the largest step, and the first rival.
2. School the network: by default on vine labels, which say what a change of controls was worth.
3. Evolve its weights on whole runs, and keep the best of validation; the beginning counts as a choice.
4. Race it on tasks that neither trained nor chose anything.

What is finished survives a kill: a checkpoint follows the first two steps and every so many meta-generations
of the third.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from rich.console import Console

from compute.workers import Mapper, ThreadMapper, n_cores
from conductor.curriculum import Shifted
from conductor.lessons import Lessons
from conductor.model import FOLDER, Conductor
from conductor.network import VARIANTS, ConductorNetwork, new_network
from conductor.school import Labels, School
from conductor.static_tuning import tune_static
from conductor.steering import Steering
from conductor.strategies import FineTuning
from conductor.training_settings import TrainConfig
from configs.load import ConfigError, load
from configs.progress_bar import progress_bar
from experiments.runs import Run, code_version, latest, library_versions
from ga.checkpoint import Checkpoints

COMMAND = "train"
#: Tasks are drawn by number; each step has numbers of its own, so that no two steps meet the same ones.
STATIC, LABELS, WHOLE_RUNS = 0, 1_000_000, 2_000_000


@dataclass(eq=False)
class Training:
    """A training under way.

    Parameters
    ----------
    config : TrainConfig
        As the user gave it.
    lessons : Lessons
    mapper : Mapper
    console : Console
    """

    config: TrainConfig
    lessons: Lessons
    mapper: Mapper
    console: Console
    steering: Steering | None = None
    network: ConductorNetwork | None = None
    fine_tuning: FineTuning | None = None
    schooling: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def begin(cls, config: TrainConfig, console: Console, mapper: Mapper) -> Self:
        """Read what there is to learn from; wrong settings are found here, before a folder is made."""
        if config.variant.name == "rl":
            from conductor.variants.rl import check_installed

            check_installed()
        VARIANTS.create(config.variant.name, config.variant.settings)
        return cls(config, Lessons.of(config, console, mapper), mapper, console)

    def run(self, checkpoints: Checkpoints) -> Conductor:
        """Train to the end, from the latest checkpoint where there is one; return the conductor."""
        scaled = self.config.scaled()
        state: Mapping[str, Any] = {}
        if checkpoints.generations():
            found = checkpoints.load()
            state = found.state
            for note in found.notes:
                self.console.print(f"! {note}", markup=False)
        if state:
            self._restore(state)
            self.console.print(f"Going on after {self._place()}")
        if self.steering is None:
            self._calibrate()
            self._tune(scaled)
            checkpoints.save(0, self.state())
        if not self.schooling:
            self._school(scaled)
            checkpoints.save(1, self.state())
        self._evolve(scaled, state.get("fine_tuning"), checkpoints)
        return self.conductor()

    def conductor(self) -> Conductor:
        """Return the conductor as it is now."""
        return Conductor(
            self.config.variant.name,
            self.network,
            self.steering,
            self.config.variation,
            self.lessons.scaler,
            self.lessons.fitted_until,
            {
                "tasks": list(self.lessons.origin),
                "seed": self.config.seed,
                "effort": self.config.effort,
                "validation": list(self.fine_tuning.curve) if self.fine_tuning else [],
            },
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed training goes on from."""
        return {
            "static": np.array(self.steering.static),
            "network": {} if self.network is None else _arrays(self.network),
            "schooling": _plain(self.schooling),
            "fine_tuning": None if self.fine_tuning is None else self.fine_tuning.state(),
            "seconds": dict(self.seconds),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.steering = Steering(tuple(np.asarray(state["static"]).tolist()), self.config.rate)
        self.schooling, self.seconds = dict(state["schooling"]), dict(state["seconds"])
        if state["network"]:
            self.network = self._new()
            self.network.load_state_dict(
                {name: torch.from_numpy(np.array(value)) for name, value in state["network"].items()}
            )

    def _place(self) -> str:
        if self.network is None:
            return "the tuning of fixed controls"
        return "schooling" if self.fine_tuning is None else "fine-tuning"

    def _new(self) -> ConductorNetwork:
        variant = self.config.variant
        return new_network(variant.name, variant.settings, self.config.seed)

    def _calibrate(self) -> None:
        # The best known value of every window that trains or selects takes some searches; here they are seen.
        for split in ("train", "validation"):
            if split not in self.lessons.windows:
                continue
            windows = self.lessons.windows[split]
            with self.step(f"{split} windows") as told:
                for i in range(0, len(windows), 8):
                    told(i, len(windows), f"measuring {len(windows)} {split} windows")
                    windows.calibrated(windows.windows[i : i + 8])

    def _tune(self, config: TrainConfig) -> None:
        with self.step("fixed controls") as told:
            steering = tune_static(
                Shifted(self.lessons.train, STATIC),
                config.variation,
                config.static,
                config.seed,
                self.mapper,
                final_share=config.strategies.final_share,
                told=lambda done, total: told(done, total, "tuning fixed controls"),
            )
        self.steering = Steering(steering.static, config.rate)

    def _school(self, config: TrainConfig) -> None:
        self.network = self._new()
        self.network.settle(self.steering)
        own = type(self.network).schooled is not ConductorNetwork.schooled
        self.schooling = {"schooled": own or type(self.network).wants_labels}
        if not self.schooling["schooled"]:
            return
        with self.step("schooling") as told:
            school = School(
                source=Shifted(self.lessons.train, LABELS),
                steering=self.steering,
                variation=config.variation,
                labels=self._labels(config),
                seed=config.seed,
                effort=config.effort,
                mapper=self.mapper,
                told=told,
            )
            self.schooling |= dict(self.network.schooled(school))
        if not all(torch.isfinite(value).all() for value in self.network.state_dict().values()):
            raise RuntimeError(f"schooling left weights of variant {config.variant.name} that are no numbers")

    def _labels(self, config: TrainConfig) -> Callable[[int], Labels]:
        from conductor.vine import vine

        made: dict[int, Labels] = {}
        chosen = config.labels

        def labels(n_history: int) -> Labels:
            if n_history not in made:
                forks = vine(
                    Shifted(self.lessons.train, LABELS),
                    self.steering,
                    config.variation,
                    n_history,
                    n_runs=chosen.runs,
                    n_forks=chosen.forks,
                    n_branches=chosen.branches,
                    horizon=chosen.horizon,
                    repeats=chosen.repeats,
                    seed=config.seed,
                    mapper=self.mapper,
                )
                made[n_history] = forks.labels()
                self.schooling["labels"] = {
                    "forks": len(forks),
                    "branches": chosen.branches,
                    "agreement": forks.agreement,
                }
            return made[n_history]

        return labels

    def _evolve(self, config: TrainConfig, state: Mapping[str, Any] | None, checkpoints: Checkpoints) -> None:
        judging = config.judging
        self.fine_tuning = FineTuning(
            self.network,
            Shifted(self.lessons.train, WHOLE_RUNS),
            self.lessons.validation.batch(0, judging.validation_tasks),
            self.steering,
            config.variation,
            config.strategies,
            config.seed,
            self.mapper,
        )
        if state is not None:
            self.fine_tuning.restore(state)
        total = config.strategies.generations
        with self.step("whole runs") as told:

            def note(tuning: FineTuning) -> None:
                done = tuning.strategies.generation
                last = tuning.curve[-1]
                told(
                    done,
                    total,
                    f"whole runs: validation {last['anytime']:+.3f} anytime, {last['final']:+.3f} final",
                )
                if done % config.checkpoint_every == 0 or tuning.finished:
                    checkpoints.save(1 + done, self.state())

            self.fine_tuning.run(note)
            self.fine_tuning.finish()

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """Show the progress of a step, ``told(done, total, sentence)``, and take its time."""
        begin = time.perf_counter()
        with progress_bar(self.console, name, 1) as told:
            yield lambda done, total, sentence: told(done, sentence, total)
        spent = time.perf_counter() - begin
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.console.print(f"{name}: {spent:.0f} s", highlight=False)


def train_run(config: TrainConfig, console: Console) -> Path:
    """Train, race, print and save one conductor; return the folder of the run."""
    with ThreadMapper(config.threads or n_cores()) as mapper:
        training = Training.begin(config, console, mapper)
        run = Run.open(config.runs, COMMAND, config.variant.name)
        run.write_config(config)
        console.print(f"Run {run.id}, seed {config.seed}")
        return _complete(run, training)


def resume_run(runs: str, name: str, console: Console) -> Path:
    """Go on with a training that was stopped or killed, as if it had never been; return its folder.

    Raises
    ------
    ConfigError
        If there is no such run, it is finished, or its settings, data or code are not what they were.
    """
    run = latest(runs, COMMAND) if name == "latest" else Run.at(runs, name)
    if run is None:
        raise ConfigError(f"{runs}: holds no training to resume; start one with python -m conductor.train")
    if (run.folder / "report.json").exists():
        raise ConfigError(f"{run.folder}: this run is finished; its race is in report.md")
    config = load(TrainConfig, run.folder / "config.yaml", runs=runs)
    with ThreadMapper(config.threads or n_cores()) as mapper:
        training = Training.begin(config, console, mapper)
        console.print(f"Going on with run {run.id}, seed {config.seed}")
        return _complete(run, training)


def _complete(run: Run, training: Training) -> Path:
    from conductor.training_report import judge

    config, lessons = training.config, training.lessons
    data = {
        f"bars of {asset}": one
        for asset, one in zip(config.trading.assets, lessons.fingerprints, strict=False)
    }
    origin = {"data": data, "seeds": {"root": config.seed}}
    run.write_manifest(**origin)
    identity = {
        "settings": config.digest(),
        "data": " ".join(lessons.fingerprints),
        "code": code_version()["sources"],
        **library_versions(),
    }
    with Checkpoints(run.folder / "checkpoints" / "state", identity) as checkpoints:
        try:
            conductor = training.run(checkpoints)
        except BaseException:
            if checkpoints.generations():
                training.console.print(
                    f"To go on: python -m conductor.train --runs {run.folder.parent} --resume {run.id}",
                    soft_wrap=True,
                )
            raise
        conductor.save(run.folder / FOLDER)
        judge(run, training, conductor)
    run.write_manifest(**origin)  # once more, with the time that all of it took
    return run.folder


def _arrays(network: ConductorNetwork) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else value

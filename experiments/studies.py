"""Optuna studies that survive: seeded trial by trial, resumed as if never killed, and held against damage.

A study is one SQLite file, ``study.sqlite``, in the folder of its run; ``optuna-dashboard`` reads it. SQLite
itself survives a kill at any moment. What it does not notice is noticed here: every finished trial carries a
seal over all that later trials depend on, and after every trial a complete copy, ``study-copy.sqlite``, is
put in place atomically. A file that is cut off, emptied or altered is told, moved aside, and replaced by its
copy.

A resumed study equals one that was never stopped. Trials have numbers of their own, which a trial that was
killed does not use up; the sampler is made anew for each, seeded by the root seed and that number; and all
else that the sampler and the pruner know are the finished trials in the file.
"""

import copy
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from compute.seeds import stream
from configs.load import Config, ConfigError
from experiments.ranges import Range, Value
from experiments.runs import Run

FILE, COPY = "study.sqlite", "study-copy.sqlite"
_NUMBER, _SEAL, _NOTES = "number", "seal", "notes"
_EXTRA = "studies"
_JOURNAL = "-journal"
_HEADER = b"SQLite format 3\0"
_RUNG = "completed_rung"  # what Optuna's halving keeps with a trial


class SamplingConfig(Config):
    """How the next trial is chosen: by a tree-structured Parzen estimator of all parameters together."""

    startup_trials: int = Field(
        10, ge=1, le=100_000, description="Trials that are drawn at random before it learns from them."
    )
    candidates: int = Field(24, ge=1, le=10_000, description="Draws of which the most promising is tried.")


class PruningConfig(Config):
    """When a trial is given up before its last step."""

    name: Literal["median", "hyperband", "none"] = Field(
        "median",
        description="median: when its best so far is below the median of the others at the same step; "
        "hyperband: by successive halving in brackets; none: never.",
    )
    startup_trials: int = Field(
        5, ge=1, le=100_000, description="median: complete trials before any is given up."
    )
    warmup_steps: int = Field(
        1, ge=0, le=1_000, description="median: steps of every trial that are not judged."
    )
    reduction: int = Field(3, ge=2, le=100, description="hyperband: one of so many goes on at each rung.")


@dataclass(frozen=True)
class Trial:
    """A trial that is over.

    Parameters
    ----------
    number : int
        From 0 on, without gaps.
    state : str
        ``complete``, ``pruned``, or ``failed``: it could not be judged.
    value : float or None
        Of a complete trial the objective, of a pruned one what was reported last.
    parameters : mapping
    steps : tuple of float
        What was reported, step by step.
    notes : mapping
        What the caller told with it.
    """

    number: int
    state: str
    value: float | None
    parameters: Mapping[str, Value]
    steps: tuple[float, ...]
    notes: Mapping[str, Any]


class DamagedError(Exception):
    """The file of a study is not what was written; the message says how."""


class Asked:
    """The trial that is under way; exactly one of ``complete``, ``prune`` and ``fail`` ends it.

    Attributes
    ----------
    number : int
    parameters : dict
    """

    def __init__(self, study: "StoredStudy", number: int, trial: Any) -> None:
        self._study, self._trial = study, trial
        self._steps = 0
        self.number, self.parameters = number, dict(trial.params)

    def report(self, value: float) -> None:
        """Take note of the objective after one more step."""
        self._steps += 1
        with self._study.explained():
            self._trial.report(value, self._steps)

    def hopeless(self) -> bool:
        """Return whether it should be given up, going by what was reported."""
        with self._study.explained():
            return self._trial.should_prune()

    def complete(self, value: float, notes: Mapping[str, Any]) -> None:
        """End it with the objective."""
        if not math.isfinite(value):
            raise ValueError(f"trial {self.number} has the value {value}; it must be a number")
        self._study.end(self._trial, "complete", float(value), notes)

    def prune(self, notes: Mapping[str, Any]) -> None:
        """End it early."""
        self._study.end(self._trial, "pruned", None, notes)

    def fail(self, notes: Mapping[str, Any]) -> None:
        """End it without a value; the sampler learns nothing from it."""
        self._study.end(self._trial, "failed", None, notes)


class StoredStudy:
    """One study, maximized, in the folder of a run; made there, or taken up again.

    One process uses it at a time: the caller sees to that.

    Parameters
    ----------
    run : Run
    space : mapping of str to Range
        What to try, by parameter.
    seed : int
        Root of all its random numbers.
    steps : int
        Steps of a complete trial.
    sampling : SamplingConfig
    pruning : PruningConfig
    first : mapping of str to Value, optional
        Parameters of the first trial, within the space.

    Attributes
    ----------
    notes : list of str
        What the user must be told about the file, one sentence each.
    trials : list of Trial
        Those that are over, by number.
    interrupted : int
        Trials that were under way when a process was killed. They have failed, and were tried anew.

    Raises
    ------
    ConfigError
        If Optuna is not installed, the folder cannot be written, or the file and its copy are damaged.
    """

    NAME = "tuning"  # the same in every run: Hyperband deals trials into brackets by it

    def __init__(
        self,
        run: Run,
        space: Mapping[str, Range],
        seed: int,
        steps: int,
        sampling: SamplingConfig,
        pruning: PruningConfig,
        first: Mapping[str, Value] | None = None,
    ) -> None:
        self._optuna = require_optuna()
        self._run, self._seed, self._sampling = run, seed, sampling
        self._first = dict(first or {})
        self._distributions = {name: _distribution(self._optuna, one) for name, one in space.items()}
        self._pruner = _pruner(self._optuna, pruning, steps)
        self.notes: list[str] = []
        self.trials: list[Trial] = []
        self.interrupted = 0
        self._storage: Any = None
        try:
            self._take_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
            self._storage = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._run.folder / FILE

    def ask(self) -> Asked:
        """Return the next trial, its parameters chosen.

        The choice depends on the root seed, the number of the trial, and the trials that are over.
        """
        number = len(self.trials)
        study = self._study
        with self.explained():
            study.sampler = self._sampler(number)
            waiting = (self._optuna.trial.TrialState.WAITING,)
            if not study.get_trials(deepcopy=False, states=waiting):  # else a kill came right after this line
                study.enqueue_trial({} if number else self._first, user_attrs={_NUMBER: number})
            return Asked(self, number, study.ask(self._distributions))

    def end(self, trial: Any, state: str, value: float | None, notes: Mapping[str, Any]) -> None:
        """Write the end of a trial, and the copy of the file; see :class:`Asked`."""
        states = self._optuna.trial.TrialState
        ended = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
        with self.explained():
            trial.set_user_attr(_NOTES, dict(notes))
            found = self._frozen(trial.number)
            trial.set_user_attr(_SEAL, _seal(self._optuna, found, state, value))
            self._study.tell(trial, value, ended)
            self.trials.append(_over(self._frozen(trial.number), state))
            self._copy()

    def importances(self) -> dict[str, float]:
        """Return what share of the differences between complete trials each parameter explains.

        Empty where fewer than two trials are complete, or all have the same value.

        Source: Hutter, Hoos and Leyton-Brown (2014), "An efficient approach for assessing hyperparameter
        importance" (functional analysis of variance).
        """
        values = [one.value for one in self.trials if one.state == "complete"]
        if len(values) < 2 or max(values) == min(values):
            return {}
        evaluator = self._optuna.importance.FanovaImportanceEvaluator(
            seed=int(stream(self._seed, "importances").integers(2**31))
        )
        with self.explained():
            found = self._optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        shares = {name: float(found.get(name, 0.0)) for name in self._distributions}
        return dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0])))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the database refuses into a sentence."""
        import sqlalchemy

        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, self._optuna.exceptions.StorageInternalError) as error:
            raise ConfigError(
                f"{self.path}: the study cannot be used ({_reason(error)}); trials that are over are "
                f"kept: mend that and resume the run"
            ) from error

    def _take_up(self) -> None:
        folder = self._run.folder
        main, spare = folder / FILE, folder / COPY
        if not main.exists() and not spare.exists():
            with self._run.writing(COPY) as draft:
                self._open(draft, make=True)
                self.close()
            self._run.write_bytes(FILE, spare.read_bytes())
        try:
            self._read(main)
        except DamagedError as damage:
            self.close()
            try:
                self._read(spare)
            except DamagedError as also:
                raise ConfigError(
                    f"{main}: the study is damaged ({damage}), and so is its copy {COPY} ({also}); start the "
                    f"run anew"
                ) from also
            self.close()
            aside = self._move_aside(main)
            self._run.write_bytes(FILE, spare.read_bytes())
            self._read(main)
            kept = f"; the old file is {aside}" if aside else ""
            self.notes.append(
                f"{main}: the study is damaged ({damage}); going on with its copy, which holds "
                f"{len(self.trials)} trials that are over{kept}"
            )
        with self.explained():
            for one in self._study.get_trials(deepcopy=False):
                if one.state == self._optuna.trial.TrialState.RUNNING:  # its process was killed
                    self._study.tell(one.number, state=self._optuna.trial.TrialState.FAIL)
                    self.interrupted += 1
            self._copy()

    def _move_aside(self, main: Path) -> str:
        # With its rollback journal: SQLite would play it into the file that takes this one's place.
        number = 1
        while (main.parent / f"study-damaged-{number}.sqlite").exists():
            number += 1
        name = f"study-damaged-{number}.sqlite"
        for suffix in (_JOURNAL, ""):
            old = main.parent / f"{main.name}{suffix}"
            if old.exists():
                os.replace(old, main.parent / f"{name}{suffix}")
        return name if (main.parent / name).exists() else ""

    def _open(self, path: Path, make: bool = False) -> None:
        optuna = self._optuna
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
        if make:
            self._study = optuna.create_study(
                storage=self._storage, study_name=self.NAME, direction="maximize", pruner=self._pruner
            )
        else:
            self._study = optuna.load_study(storage=self._storage, study_name=self.NAME, pruner=self._pruner)

    def _read(self, path: Path) -> None:
        # Leaves the study open, its trials read and held against their seals.
        if not path.is_file():
            raise DamagedError("it is missing")
        if path.stat().st_size == 0:  # SQLite would make a new one of it
            raise DamagedError("it is empty")
        with path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:  # of a few bytes it would make a new one as well
                raise DamagedError("it is no file of SQLite")
        try:
            verdict = _integrity(path)
            if verdict != "ok":
                raise DamagedError(verdict)
            self._open(path)
            frozen = self._study.get_trials(deepcopy=False)
            direction = self._study.direction
            self.trials, self.interrupted = self._intact(frozen)
        except (DamagedError, ConfigError, KeyboardInterrupt):
            raise
        except Exception as error:  # altered bytes may break the reading of a database anywhere
            raise DamagedError(_reason(error)) from error
        if direction != self._optuna.study.StudyDirection.MAXIMIZE:
            raise DamagedError("it does not say that the study is maximized")

    def _intact(self, frozen: Sequence[Any]) -> tuple[list[Trial], int]:
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        over, interrupted = [], 0
        for one in frozen:
            state = names.get(one.state.name)
            if state is None:
                continue
            value = one.value if state == "complete" else None
            if one.user_attrs.get(_SEAL) != _seal(self._optuna, one, state, value):
                if state == "failed":  # nobody has ended it: it was killed
                    interrupted += 1
                    continue
                raise DamagedError(f"trial {one.number} does not match its seal")
            over.append(_over(one, state))
        if [one.number for one in over] != list(range(len(over))):
            raise DamagedError("trials are missing")
        return over, interrupted

    def _frozen(self, number: int) -> Any:
        return self._study.get_trials(deepcopy=False)[number]

    def _copy(self) -> None:
        # What SQLite writes here is one consistent state of the file, whatever else is going on.
        with (
            self._run.writing(COPY) as draft,
            self._storage.engine.connect() as connection,
        ):
            automatic = connection.execution_options(isolation_level="AUTOCOMMIT")
            automatic.exec_driver_sql("VACUUM INTO ?", (str(draft),))

    def _sampler(self, number: int) -> Any:
        with warnings.catch_warnings():  # that they may change; what they do is held by tests
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return self._optuna.samplers.TPESampler(
                n_startup_trials=self._sampling.startup_trials,
                n_ei_candidates=self._sampling.candidates,
                multivariate=True,
                constant_liar=False,
                seed=int(stream(self._seed, "trial", number).integers(2**31)),
            )


def require_optuna() -> Any:
    """Return Optuna, silenced; ConfigError if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"tuning needs Optuna ({error}); install the extra: pip install 'regime-conductor[{_EXTRA}]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # one line per trial is not for our terminal
    return optuna


def _distribution(optuna: Any, one: Range) -> Any:
    known = optuna.distributions
    if one.choices is not None:
        return known.CategoricalDistribution(one.choices)
    if one.whole:
        return known.IntDistribution(one.low, one.high, log=one.log, step=one.step or 1)
    return known.FloatDistribution(float(one.low), float(one.high), log=one.log, step=one.step)


def _pruner(optuna: Any, config: PruningConfig, steps: int) -> Any:
    if config.name == "none":
        return optuna.pruners.NopPruner()
    if config.name == "median":
        # Steps count from 1 here, and warm-up is over at its step.
        return optuna.pruners.MedianPruner(config.startup_trials, config.warmup_steps + 1)

    class Hyperband(optuna.pruners.HyperbandPruner):
        # Brackets by the number that a killed trial does not use up; one that has failed is in none.

        def _get_bracket_id(self, study: Any, trial: Any) -> int:
            if not self._pruners:  # else all are in one bracket until the first trial of a process is judged
                self._try_initialization(study)
            if trial.state == optuna.trial.TrialState.FAIL:
                return -1
            own = copy.copy(trial)
            own.number = trial.user_attrs[_NUMBER]
            return super()._get_bracket_id(study, own)

    return Hyperband(min_resource=1, max_resource=max(steps, 1), reduction_factor=config.reduction)


def _seal(optuna: Any, trial: Any, state: str, value: float | None) -> str:
    # Over all that later trials and the report depend on: SQLite keeps no checksums.
    document = {
        "state": state,
        "value": value,
        "parameters": trial.params,
        "ranges": {
            name: optuna.distributions.distribution_to_json(one) for name, one in trial.distributions.items()
        },
        "steps": {str(step): told for step, told in trial.intermediate_values.items()},
        "attributes": {name: told for name, told in trial.user_attrs.items() if name != _SEAL},
        "rungs": {
            name: told for name, told in trial.system_attrs.items() if name.startswith("completed_rung")
        },
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _over(trial: Any, state: str) -> Trial:
    steps = tuple(float(trial.intermediate_values[step]) for step in sorted(trial.intermediate_values))
    value = None if trial.value is None else float(trial.value)
    return Trial(trial.user_attrs[_NUMBER], state, value, dict(trial.params), steps, trial.user_attrs[_NOTES])


def _integrity(path: Path) -> str:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{path.resolve()}", poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        return " ".join(str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()).split())


def _reason(error: Exception) -> str:
    # What the database said: SQLAlchemy has it as the original, Optuna hides that in the cause.
    cause = error.__cause__ if type(error).__name__ == "StorageInternalError" else error
    cause = getattr(cause, "orig", None) or cause or error
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")

"""A search mirrored into an Optuna storage, one trial per generation, so that optuna-dashboard shows it.

The storage is for looking only: nothing of a run is ever read back from it, and a storage that fails in the
middle of a search ends the mirror and not the search.
"""

import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from configs.load import ConfigError

GENERATION, STATISTICS = "generation", "statistics"
#: Numbers of a log row that become attributes of their own; each costs a database some statements.
SHOWN = (
    "evaluations", "median", "diversity", "stagnation", "success_rate", "duplicate_share", "cached_share",
)  # fmt: skip
_EXTRA = "studies"


class StudyMirror:
    """Carries the generations of one run into one study of an Optuna storage.

    A generation becomes a completed trial: the controls are its parameters, the best fitness its value, and
    the other numbers of the log row user attributes: those of :data:`SHOWN` by name, the rest together as
    ``statistics``. A trial without a best fitness has failed; the initial population has no controls and no
    parameters. A generation that is told twice, as a resumed search does, is stored once.

    A database takes tens of milliseconds for a trial, as long as a search for several generations (a journal
    file some), so a thread of the mirror's own writes; leaving the ``with`` block waits for it.

    Parameters
    ----------
    storage : str
        Database URL such as ``sqlite:///studies.sqlite``, or the path of a journal file.
    study_name : str
        For example the run's id. A study of this name is continued.
    parameters : mapping of str to (float, float, str)
        Lowest and highest value and scale, ``linear`` or ``log``, of each control.

    Attributes
    ----------
    problem : str
        Why the mirror has ended; empty while it works.

    Raises
    ------
    ConfigError
        If Optuna is not installed, or the storage cannot be opened.
    """

    def __init__(
        self, storage: str, study_name: str, parameters: Mapping[str, tuple[float, float, str]]
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(
                f"mirroring a search needs Optuna ({error}); install the extra: "
                f"pip install 'regime-conductor[{_EXTRA}]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # one line per trial is not for our terminal
        self.problem = ""
        self._optuna = optuna
        self._place = f"Optuna storage {_without_password(storage)}"
        self._distributions = {
            name: optuna.distributions.FloatDistribution(low, high, log=scale == "log")
            for name, (low, high, scale) in parameters.items()
        }
        try:
            self._study = optuna.create_study(
                storage=_storage(optuna, storage),
                study_name=study_name,
                direction="maximize",
                load_if_exists=True,
            )
            trials = self._study.get_trials(deepcopy=False)
        except Exception as error:
            if not _about_storage(optuna, error):
                raise
            raise ConfigError(f"{self._place}: cannot be opened ({_first_line(error)})") from error
        self._told = {trial.user_attrs.get(GENERATION) for trial in trials}
        self._bug: Exception | None = None
        self._thread = ThreadPoolExecutor(1, "study-mirror")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note(self, row: Mapping[str, Any]) -> None:
        """Take note of a generation; it is written soon.

        Parameters
        ----------
        row : mapping
            Of :meth:`ga.progress.Progress.row`: ``generation``, ``best``, controls and statistics by name.
        """
        generation = int(row[GENERATION])
        if not self.problem and generation not in self._told:
            self._told.add(generation)
            self._thread.submit(self._write, generation, dict(row))

    def close(self) -> None:
        """Wait until every generation is written. :attr:`problem` says why some are not."""
        self._thread.shutdown()
        if self._bug is not None:
            raise self._bug

    def _write(self, generation: int, row: Mapping[str, Any]) -> None:
        if self.problem or self._bug is not None:
            return
        try:
            self._study.add_trial(self._trial(generation, row))
        except Exception as error:
            if _about_storage(self._optuna, error):
                self.problem = (
                    f"{self._place}: cannot be written ({_first_line(error)}); the mirror has ended"
                )
            else:
                self._bug = error

    def _trial(self, generation: int, row: Mapping[str, Any]) -> Any:
        optuna = self._optuna
        numbers = {name: value for name, value in row.items() if _is_number(value)}
        params = {
            # A control may leave its range in the last bit; a storage refuses that.
            name: min(max(float(numbers.pop(name)), known.low), known.high)
            for name, known in self._distributions.items()
            if name in numbers
        }
        best = numbers.pop("best", None)
        shown = {name: numbers.pop(name) for name in (GENERATION, *SHOWN) if name in numbers}
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.FAIL if best is None else optuna.trial.TrialState.COMPLETE,
            value=None if best is None else float(best),
            params=params,
            distributions={name: self._distributions[name] for name in params},
            user_attrs={GENERATION: generation, **shown, STATISTICS: numbers},
        )


def _storage(optuna: Any, storage: str) -> Any:
    if not storage.strip():
        raise ConfigError("the Optuna storage is empty text; it must be a database URL or a file")
    if "://" in storage:
        return optuna.storages.RDBStorage(storage)
    os.makedirs(os.path.dirname(os.path.abspath(storage)), exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(storage)
    return optuna.storages.JournalStorage(backend)


def _about_storage(optuna: Any, error: Exception) -> bool:
    # Refusals of the database (SQLAlchemy's, which Optuna lets through at times), a missing driver, and what
    # a damaged journal leads to. A ConfigError of ours is a sentence already.
    known = (optuna.exceptions.OptunaError, OSError, ImportError, ValueError, KeyError)
    return isinstance(error, known) or type(error).__module__.partition(".")[0] == "sqlalchemy"


def _first_line(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "it is not a journal of Optuna, or damaged"
    cause = error.__cause__ if str(error).startswith("An exception is raised during the commit") else error
    lines = str(cause or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def _without_password(storage: str) -> str:
    # A database URL may hold one: mysql://name:password@host/database
    scheme, mark, rest = storage.partition("://")
    account, at, place = rest.rpartition("@")
    if not mark or not at:
        return storage
    name, colon, _ = account.partition(":")
    return f"{scheme}://{name}{':***' if colon else ''}@{place}"


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)

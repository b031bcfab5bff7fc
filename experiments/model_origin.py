"""Where a strategy comes from: its folder, the validation that made it, and what that said of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.load import ConfigError
from experiments.disk import file_digest
from experiments.promotion import Criterion, verdict
from experiments.records import LATEST, Record, entry, find, read, read_json
from experiments.runs import latest

DOCUMENT = "strategy.json"  # what makes a folder a saved strategy
STRATEGIES = "strategies"
VALIDATE = "validate"
_FOLD = re.compile(r"fold-(\d{3,})")


@dataclass(frozen=True)
class Source:
    """A saved strategy, and what is known of it.

    Parameters
    ----------
    folder : Path
    record : Record or None
        The validation it lies in; None for a folder that lies elsewhere.
    fold : int or None
        Counted from 1.
    """

    folder: Path
    record: Record | None
    fold: int | None

    @classmethod
    def find(cls, text: str | Path, runs: str | Path, fold: int | None = None) -> "Source":
        """Return the strategy that a person means.

        Parameters
        ----------
        text : str or Path
            Folder of a saved strategy; or a finished validation: its folder, its id, how that begins, or
            ``latest``.
        runs : str or Path
            Folder of runs.
        fold : int, optional
            Which strategy of a validation, counted from 1; by default the latest, which has seen most.

        Raises
        ------
        ConfigError
            If there is no such strategy, or the run is no finished validation.
        """
        path = Path(text)
        if (path / DOCUMENT).is_file():
            if fold is not None:
                raise ConfigError(f"{path}: is the strategy of one fold; --fold chooses in a validation")
            return cls._in(path.resolve())
        if (path / STRATEGIES).is_dir():
            record = find(path.resolve().parent, path.resolve().name)
        elif path.is_dir() and len(path.parts) > 1:
            raise ConfigError(f"{path}: holds no saved strategy ({DOCUMENT}), and is no validation")
        else:
            record = _validation(str(text), runs)
        if record.command != VALIDATE:
            raise ConfigError(f"{record.run.id}: is no validation; python -m ensemble.validate makes one")
        if record.damaged or not record.report:
            raise ConfigError(f"{record.run.folder}: is no finished validation: {'; '.join(record.problems)}")
        folds = _folds(record)
        chosen = max(folds, default=0) if fold is None else fold
        folder = record.run.folder / STRATEGIES / f"fold-{chosen:03d}"
        if chosen not in folds or not folder.is_dir():
            raise ConfigError(f"{record.run.id}: has no strategy of fold {chosen}; it has {len(folds)} folds")
        return cls(folder, record, chosen)

    @classmethod
    def _in(cls, folder: Path) -> "Source":
        match, run = _FOLD.fullmatch(folder.name), folder.parent.parent
        if match is None or folder.parent.name != STRATEGIES:
            return cls(folder, None, None)
        try:
            record = find(run.parent, run.name)
        except ConfigError:  # named like a fold, yet in no run
            return cls(folder, None, None)
        if record.run.id != run.name or record.command != VALIDATE:
            return cls(folder, None, None)
        if record.damaged:
            raise ConfigError(f"{run}: is damaged: {'; '.join(record.problems)}")
        return cls(folder, record, int(match[1]))

    def origin(self, fingerprint: str) -> dict[str, Any]:
        """Return what is worth knowing of it, as plain objects.

        Parameters
        ----------
        fingerprint : str
            Of the strategy that was loaded from the folder.

        Returns
        -------
        dict
            ``label``, ``fitted_until`` (nanoseconds UTC) and ``members`` of the strategy. Of its validation,
            None without a finished one: ``run``, ``fold``, ``folds``, ``settings`` (digest), ``data``
            (fingerprint by name), ``market``, ``tested`` (first and last row), ``code``, ``libraries``,
            ``verdict``, ``passed``, ``criteria``, ``sharpe`` (annual, out of sample), ``looks``, ``trials``,
            ``report`` (SHA-256 of the file).

        Raises
        ------
        ConfigError
            If the report judged another strategy than this one.
        """
        document = read_json(self.folder / DOCUMENT)
        own = {
            "label": document.get("label"),
            "fitted_until": document.get("fitted_until"),
            "members": document.get("sources"),
        }
        return own | self._judged(fingerprint)

    def _judged(self, fingerprint: str) -> dict[str, Any]:
        record = self.record
        report: Mapping[str, Any] = {} if record is None else record.report
        if report and _folds(record).get(self.fold) != fingerprint:
            raise ConfigError(
                f"{self.folder}: is not the strategy that the report of {record.run.id} has judged as fold "
                f"{self.fold}; validate again"
            )
        manifest: Mapping[str, Any] = {} if record is None else record.manifest
        tested = [entry(report, "data", key) for key in ("first", "last")]
        return {
            "run": None if record is None else record.run.id,
            "fold": self.fold,
            "folds": len(_folds(record)) if report else None,
            "settings": entry(report, "data", "settings"),
            "data": {} if record is None else record.fingerprints,
            "market": entry(report, "data", "origin"),
            "tested": tested if all(tested) else None,
            "code": manifest.get("code"),
            "libraries": manifest.get("libraries"),
            "verdict": report.get("verdict"),
            "passed": report.get("passed") if isinstance(report.get("passed"), bool) else None,
            "criteria": report.get("criteria") if isinstance(report.get("criteria"), list) else [],
            "sharpe": record.metric("strategy", "sharpe") if report else None,
            "looks": entry(report, "ledger", "looks"),
            "trials": entry(report, "ledger", "trials", "n_unique"),
            "report": file_digest(record.run.folder / "report.json") if report else None,
        }


def missed(origin: Mapping[str, Any]) -> list[str]:
    """Return the criteria that the validation of a version did not meet, a phrase each."""
    return [
        f"{one.name} is {one.value:.3g}, needs {one.threshold:.3g}".replace(" nan,", " not defined,")
        for one in _criteria(origin)
        if not one.passed
    ]


def objections(origin: Mapping[str, Any]) -> list[str]:
    """Return why a version should not be served, a sentence each; empty: nothing speaks against it.

    The criteria are judged here once more, by value and threshold: what a report calls passed is not asked.
    """
    if origin.get("verdict") is None:
        return ["no finished validation has judged it"]
    criteria, reasons = _criteria(origin), missed(origin)
    if verdict(criteria) and origin.get("passed") is True:
        return []
    if not reasons:
        return ["its validation says FAIL" if criteria else "its validation has asked no criterion"]
    return [f"its validation misses {len(reasons)} of {len(criteria)} criteria"]


def _criteria(origin: Mapping[str, Any]) -> list[Criterion]:
    found = [one for one in origin.get("criteria") or () if isinstance(one, Mapping)]
    return [
        Criterion.at_least(str(one.get("name")), *(_number(one.get(key)) for key in ("value", "threshold")))
        for one in found
    ]


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else float("nan")


def _validation(text: str, runs: str | Path) -> Record:
    if text != LATEST:
        return find(runs, text)
    run = latest(runs, VALIDATE)
    if run is None:
        raise ConfigError(f"{runs}: holds no validation; python -m ensemble.validate makes one")
    return read(run)


def _folds(record: Record) -> dict[int, str]:
    # Fingerprint of each fold's strategy by number, counted from 1 as their folders are.
    found = record.report.get("folds")
    return {
        one["number"] + 1: one.get("fingerprint")
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, Mapping) and isinstance(one.get("number"), int)
    }

"""One run of ``python -m experiments.tune``: trial by trial, resumable, everything kept in its folder."""

import time as clock
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from configs.load import ConfigError, InputError, PluginConfig, dump, load
from configs.progress_bar import progress_bar
from experiments.ledger import Ledger
from experiments.runs import Run, code_version, latest, library_versions
from experiments.studies import Asked, StoredStudy, Trial, require_optuna
from forecasters import tuning_report as report
from forecasters.forecaster import Told, new_forecaster, plugin_config
from forecasters.search_space import PREFIX, check_space, search_space, target_model
from forecasters.training import Ground, fit_fold, folds_of, prepare
from forecasters.tuning import (
    NONE,
    FoldScore,
    bar_sharpe,
    chosen,
    held_out_folds,
    held_out_from,
    leading,
    scored,
)
from forecasters.tuning_settings import DOWN, UP, TuneConfig
from ga.checkpoint import Checkpoints
from market.sources.selection import Selection, select_bars
from market.splits import Split

COMMAND = "tune"
LEDGER = "ledger.sqlite"
BEST = "best.yaml"
FOR_GOOD = ("settings", "data")  # what a resumed study may never have others of


class Tuning:
    """What a tuning works on: bars up to the spans that are held out, features, labels, folds.

    Parameters
    ----------
    config : TuneConfig
        Complete: the settings of the model, and the space.
    console : Console

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong.
    """

    def __init__(self, config: TuneConfig, console: Console) -> None:
        # A typing error should not cost the time of reading, nor leave a folder behind.
        check_space(config.model, config.space)
        for one in (config.model, *map(plugin_config, config.rivals())):
            new_forecaster(one)
        require_optuna()
        self.config, self.console = config, console
        self.selection: Selection = select_bars(config.market)
        self.selection.show(console)
        self.first = held_out_from(self.selection.bars, config.schedule, config.hold_out)
        with console.status("computing features and labels"):
            # From here on the search has nothing that is held out, not even a feature or a label of it.
            self.ground: Ground = prepare(self.selection.bars[: self.first], config.dataset())
            self.splits: tuple[Split, ...] = folds_of(self.ground, config.schedule)
        self.fingerprint = self.selection.bars.fingerprint()

    def identity(self) -> dict[str, str]:
        """Return what must be the same for a study to go on."""
        return {
            "settings": self.config.digest(),
            "data": self.fingerprint,
            "code": code_version()["sources"],
            "optuna": metadata.version("optuna"),
            **library_versions(),
        }

    def study(self, run: Run) -> StoredStudy:
        """Return the study of a run; its first trial is the defaults, moved into the space."""
        config = self.config
        before = {DOWN: NONE[0], UP: NONE[1], **new_forecaster(config.model).config.model_dump(mode="json")}
        space = config.parameters()
        return StoredStudy(
            run, space, config.seed, len(self.splits), config.sampling, config.pruning,
            {name: one.nearest(before[name]) for name, one in space.items()},
        )  # fmt: skip

    def ledger(self) -> Ledger:
        """Return the trial ledger, which lies beside the folder of runs."""
        return Ledger(Path(self.config.runs).parent / LEDGER)


def tune_run(config: TuneConfig, console: Console, target: str | None = None) -> Path:
    """Search, judge what was found on the held-out spans, print and save; return the folder of the run.

    Parameters
    ----------
    config : TuneConfig
    console : Console
    target : str, optional
        Instead of that of the config: ``forecasters.<name>``, or a YAML file of a forecaster.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong; nothing is left behind then.
    """
    tuning = Tuning(completed(config, target), console)
    run = Run.open(config.runs, COMMAND, tuning.config.model.name)
    run.write_config(tuning.config)
    console.print(f"Run {run.id}, seed {config.seed}")
    return _complete(run, tuning)


def resume_run(runs: str, name: str, trials: int | None, console: Console, changed: bool = False) -> Path:
    """Go on with a study, as if it had never been stopped, to the number of trials; return its folder.

    Parameters
    ----------
    runs : str
    name : str
        Id of the run, or ``latest``.
    trials : int or None
        In all; None: as many as were asked for.
    console : Console
    changed : bool
        Whether to go on even if code or libraries have changed, which marks the run.

    Raises
    ------
    ConfigError
        If there is no such run, it has that many trials, or its settings, data or code are not what they
        were.
    """
    run = latest(runs, COMMAND) if name == "latest" else Run.at(runs, name)
    if run is None:
        raise ConfigError(f"{runs}: holds no tuning to resume; start one with python -m experiments.tune")
    config = load(TuneConfig, run.folder / "config.yaml", runs=runs, trials=trials)
    finished = run.folder / report.JSON
    if finished.exists():
        before = load(TuneConfig, run.folder / "config.yaml").trials
        if config.trials <= before:
            raise ConfigError(
                f"{run.folder}: this run is finished, with {before} trials; its figures are in "
                f"{report.MARKDOWN}; to go on, ask for more: --trials {2 * before}"
            )
    tuning = Tuning(config, console)
    console.print(f"Going on with run {run.id}, seed {config.seed}")
    return _complete(run, tuning, changed)


def completed(config: TuneConfig, target: str | None = None) -> TuneConfig:
    """Return the config with the settings and the space of its target; what was set by hand goes first.

    A setting that was given is not tried. Of a YAML file nothing but the name is asked for again.
    """
    text = target_model(config.target if target is None else target)
    base, given = plugin_config(text), config.model.settings
    space = {
        name: one
        for name, one in search_space(text, config.space).items()
        if name in config.space or name not in given
    }
    found = {"target": f"{PREFIX}{base.name}", "model": base.model_copy(update=given), "space": space}
    return config.model_copy(update=found)


def _complete(run: Run, tuning: Tuning, changed: bool = False) -> Path:
    config, console = tuning.config, tuning.console
    with Checkpoints(run.folder / "checkpoints" / "state", tuning.identity(), keep=2) as checkpoints:
        known = None
        if checkpoints.generations():
            forced = [key for key in checkpoints.identity if key not in FOR_GOOD] if changed else ()
            found = checkpoints.load(forced)
            for note in found.notes:
                console.print(f"! {note}", markup=False)
                run.log(note)
            known = found.state["defaults"]
            if checkpoints.changes:
                checkpoints.save(found.generation, found.state)  # with the identity of now, and the changes
                run.write_json("changes.json", [change._asdict() for change in checkpoints.changes])
        run.remove_drafts()
        data = {"bars": tuning.fingerprint}
        run.write_manifest(data=data, seeds={"root": config.seed})
        try:
            with tuning.study(run) as study:
                for note in study.notes:
                    console.print(f"! {note}", markup=False)
                    run.log(note)
                if len(study.trials) > config.trials:
                    raise ConfigError(
                        f"--trials {config.trials}: run {run.id} has {len(study.trials)} trials already"
                    )
                (run.folder / report.JSON).unlink(missing_ok=True)  # it says that the run is finished
                run.write_config(config)
                defaults = _search(run, tuning, study, checkpoints, known)
                trials, importances = list(study.trials), study.importances()
        except BaseException:
            if checkpoints.generations():
                again = f"python -m experiments.tune --runs {run.folder.parent} --resume {run.id}"
                console.print(f"To go on: {again}", soft_wrap=True, markup=False)
            raise
        best = leading(trials)
        if best is None:
            reason = next(
                (one.notes["reason"] for one in trials if "reason" in one.notes), "none is complete"
            )
            raise ConfigError(f"{run.folder}: none of {len(trials)} trials could be judged: {reason}")
        model, thresholds = chosen(best.parameters, config.model)
        _write_best(run, tuning, best, model, thresholds)
        with console.status("judging on the spans that are held out"):
            held_out = _judge(run, tuning, model, thresholds)
            evidence = held_out.pop("evidence")
        figures = report.figures(
            config, tuning.ground, tuning.selection, tuning.splits, defaults, trials, importances, held_out
        )
        figures["evidence"] = evidence
        report.draw(run, figures)
        run.write_bytes(report.MARKDOWN, report.markdown(figures, str(run.folder / BEST)).encode())
        run.write_manifest(
            data=data,
            seeds={"root": config.seed},
            rows={"study": [0, tuning.first], "held out": [tuning.first, len(tuning.selection.bars)]},
        )
        run.write_json(report.JSON, figures)  # last: it says that the run is finished
    report.show(console, figures)
    console.print(f"Best settings, study and report: {run.folder}", soft_wrap=True)
    console.print(
        f"To train with them: python -m forecasters.train --model {run.folder / BEST}", soft_wrap=True
    )
    return run.folder


def _search(
    run: Run, tuning: Tuning, study: StoredStudy, checkpoints: Checkpoints, known: dict[str, Any] | None
) -> dict[str, Any]:
    config, ledger = tuning.config, tuning.ledger()
    with progress_bar(tuning.console, "trials", config.trials, len(study.trials)) as told:
        if known is None:
            # First of all: what will not do for the defaults would not do in 150 trials either.
            scores = list(scored(
                tuning.ground, tuning.splits, config.model, NONE, config, _at(told, 0, "the defaults")
            ))  # fmt: skip
            known = {"folds": [one.document() for one in scores], "sharpe": bar_sharpe(scores)}
            checkpoints.save(0, {"defaults": known})
        _record(ledger, tuning.fingerprint, run.id, 0, known["sharpe"])
        for one in study.trials:  # a kill may have come between the study and the ledger
            _record(ledger, tuning.fingerprint, run.id, one.number + 1, one.notes.get("sharpe"))
        while len(study.trials) < config.trials:
            began = clock.perf_counter()
            asked = study.ask()
            best = leading(study.trials)
            place = f"trial {asked.number + 1}" + (f", best {best.value:.4f}" if best else "")
            _try(tuning, asked, _at(told, asked.number, place))
            over = study.trials[-1]
            _record(ledger, tuning.fingerprint, run.id, over.number + 1, over.notes.get("sharpe"))
            value = "" if over.value is None else f" {over.value:.4f}"
            why = f" ({over.notes['reason']})" if "reason" in over.notes else ""
            run.log(
                f"trial {over.number + 1}: {over.state}{value}{why}, {clock.perf_counter() - began:.1f} s"
            )
    return known


def _try(tuning: Tuning, asked: Asked, told: Told) -> None:
    config = tuning.config
    model, thresholds = chosen(asked.parameters, config.model)
    scores: list[FoldScore] = []
    try:
        for one in scored(tuning.ground, tuning.splits, model, thresholds, config, told):
            scores.append(one)
            asked.report(float(np.mean([one.value for one in scores])))
            if len(scores) < len(tuning.splits) and asked.hopeless():
                break
    except InputError as error:
        # Settings that will not do together, or a network whose loss is no number: others may do.
        asked.fail({"reason": str(error), "folds": [one.document() for one in scores], "sharpe": None})
        return
    folds = [one.document() for one in scores]
    if len(scores) < len(tuning.splits):
        asked.prune({"folds": folds, "sharpe": None})
    else:
        value = float(np.mean([one.value for one in scores]))
        asked.complete(value, {"folds": folds, "sharpe": bar_sharpe(scores)})


def _record(ledger: Ledger, fingerprint: str, run: str, batch: int, sharpe: float | None) -> None:
    # Numbered, so that a trial that is told twice counts once.
    ledger.record(fingerprint, run, np.array([np.nan if sharpe is None else sharpe]), 1, 1, batch)


def _judge(run: Run, tuning: Tuning, model: PluginConfig, thresholds: tuple[float, float]) -> dict[str, Any]:
    config, bars, ledger = tuning.config, tuning.selection.bars, tuning.ledger()
    # Written down before the look, and with what was looked at: a second look at these rows is told.
    looks = ledger.record_opening(
        tuning.fingerprint, run.id, int(bars.time[tuning.first]), int(bars.time[-1]),
        report.subject(model, thresholds),
    )  # fmt: skip
    ground = prepare(bars, config.dataset())
    folds: dict[str, list] = {"best": [], "defaults": []}
    for number, split in held_out_folds(ground, config.schedule, tuning.first):
        for name, one, rivals in (("best", model, config.baselines), ("defaults", config.model, ())):
            settings = config.model_copy(update={"model": one, "baselines": rivals})
            folds[name].append(fit_fold(ground, split, settings, number))
    found = report.held_out(config, ground, {name: tuple(some) for name, some in folds.items()}, thresholds)
    summary = ledger.summary(tuning.fingerprint)
    found["evidence"] = {
        "trials": summary.n_evaluated,
        "runs": summary.n_runs,
        "earlier_looks": looks.earlier,
        "earlier_subjects": looks.others,
    }
    return found


def _write_best(
    run: Run, tuning: Tuning, best: Trial, model: PluginConfig, thresholds: tuple[float, float]
) -> None:
    lines = [
        f"The best of {tuning.config.trials} trials of {run.id}: trial {best.number + 1}, {best.value:.4f}",
        f"on {tuning.ground.labels.name} of {tuning.ground.bars.label}.",
        f"To train with it: python -m forecasters.train --model {run.folder / BEST}",
    ]
    if DOWN in best.parameters:
        found = {"down": thresholds[0], "up": thresholds[1]}
        model = model.model_copy(update={"thresholds": found})
        lines.append("thresholds: by how much a direction must exceed its share before it is decided.")
    with run.writing(BEST) as draft:
        dump(model, draft)
        said = "".join(f"# {line}\n" for line in lines)
        draft.write_text(said + draft.read_text(encoding="utf-8"), encoding="utf-8")


def _at(told: Any, number: int, place: str) -> Told:
    return lambda share, line: told(number, f"{place}: {line}")

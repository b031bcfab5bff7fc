"""``python -m experiments.tune --target forecasters.xgboost --trials 150``: a search for settings."""

from typing import Annotated

import typer

from configs.command import command


def tune(
    target: Annotated[
        str | None,
        typer.Option(help="forecasters.<name>, for example forecasters.lstm; or a YAML file of one."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials in all; with --resume also more than were asked for before.")
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="Of the label: bars, or for example 4h.")] = None,
    label: Annotated[str | None, typer.Option(help="triple_barrier, direction or return.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Trained anew every quarter, month or year.")] = None,
    hold_out: Annotated[
        int | None, typer.Option(help="Spans at the end that the search never sees, and that judge it.")
    ] = None,
    pruner: Annotated[str | None, typer.Option(help="median, hyperband or none.")] = None,
    bars: Annotated[str | None, typer.Option(help="File of bars; default: the synthetic market.")] = None,
    symbol: Annotated[str | None, typer.Option(help="For example BTC/USDT.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="For example 1h.")] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20190101-20240630.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the file; default: found out.")] = None,
    repair: Annotated[
        list[str] | None, typer.Option(help="A repair of the file by name; may repeat.")
    ] = None,
    accept: Annotated[list[str] | None, typer.Option(help="An oddity to accept; may repeat.")] = None,
    features: Annotated[
        str | None, typer.Option(help="YAML file of features; default features_full.yaml.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all random numbers.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a search that was stopped: its id, or latest.")
    ] = None,
    resume_changed: Annotated[
        bool, typer.Option("--resume-changed", help="Go on even if code or libraries have changed.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: pruning.warmup_steps=2.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "tune.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Search for the settings of a forecaster, and for the thresholds of its decisions.

    Each trial is trained and judged walk-forward: F1 macro less a penalty for the drawdown of its signal
    after costs. The latest spans are cut off first, and judge the best settings once, beside the defaults.
    What is tried stands in the file of the forecaster, section search. Without --bars it works on the
    synthetic market.
    """
    from rich.console import Console

    from configs.load import ConfigError, load
    from forecasters.tuning_settings import TuneConfig

    settings = list(settings or [])
    shortcuts = {
        "label__horizon": horizon,
        "label__kind": label,
        "schedule__span": schedule,
        "hold_out": hold_out,
        "pruning__name": pruner,
        "market__bars": bars,
        "market__symbol": symbol,
        "market__timeframe": timeframe,
        "market__timerange": timerange,
        "market__layout": layout,
        "market__repairs": repair,
        "market__accept": accept,
        "features": features,
        "seed": seed,
    }
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    if resume is not None:
        named = {"target": target, **shortcuts, "set": settings or None}
        given = [name.split("__")[-1] for name, value in named.items() if value is not None]
        if given:
            raise ConfigError(
                f"--{given[0].replace('_', '-')} was given with --resume; a resumed run keeps its settings"
            )
        from forecasters.tuning_run import resume_run

        where = load(TuneConfig, config, (), runs=runs).runs
        folder = resume_run(where, resume, trials, console, resume_changed)
    else:
        if resume_changed:
            raise ConfigError("--resume-changed was given without --resume; name the run to go on with")
        from forecasters.tuning_run import tune_run

        shortcuts |= {"trials": trials, "runs": runs}
        # Not among these: the name of a YAML file would be taken for what is in it.
        folder = tune_run(load(TuneConfig, config, settings, **shortcuts), console, target)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(tune)

if __name__ == "__main__":
    main()

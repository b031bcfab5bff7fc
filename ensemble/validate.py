"""``python -m ensemble.validate``: one strategy, walk-forward, and a report that a skeptic believes."""

from typing import Annotated

import typer

from configs.command import command


def validate(
    bars: Annotated[str | None, typer.Option(help="File of bars; default: the synthetic market.")] = None,
    symbol: Annotated[str | None, typer.Option(help="For example BTC/USDT.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="For example 1h.")] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20170817-20240630.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the file; default: found out.")] = None,
    repair: Annotated[
        list[str] | None, typer.Option(help="A repair of the file by name; may repeat.")
    ] = None,
    accept: Annotated[list[str] | None, typer.Option(help="An oddity to accept; may repeat.")] = None,
    start: Annotated[str | None, typer.Option(help="First day that may be tested, as 2019-01-01.")] = None,
    span: Annotated[str | None, typer.Option(help="Fitted anew every quarter, month or year.")] = None,
    blender: Annotated[
        str | None, typer.Option(help="route, equal, regime_weighted, validated, rank, stack, bma or online.")
    ] = None,
    detector: Annotated[str | None, typer.Option(help="Of regimes, for example markov_ar or hmm.")] = None,
    permutations: Annotated[
        int | None, typer.Option(help="Runs of the whole search on shuffled markets.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all random numbers.")] = None,
    workers: Annotated[str | None, typer.Option(help="auto, serial, threads or ray.")] = None,
    count: Annotated[int | None, typer.Option("--n-workers", help="Number of workers.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a validation that was stopped: its id, or latest.")
    ] = None,
    resume_changed: Annotated[
        bool, typer.Option("--resume-changed", help="Go on although code or libraries have changed.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: specialists.champions=3.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "validate.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Blend specialists and forecasters into one strategy, and say whether it would have held.

    In every quarter all is fitted anew on the past alone: detector, specialists, forecasters, blender. The
    quarters join to one account, which is held against baselines and against luck. Without --bars it works on
    the synthetic market.
    """
    from rich.console import Console

    from configs.load import ConfigError, load

    settings = list(settings or [])
    shortcuts = {
        "market__bars": bars,
        "market__symbol": symbol,
        "market__timeframe": timeframe,
        "market__timerange": timerange,
        "market__layout": layout,
        "market__repairs": repair,
        "market__accept": accept,
        "folds__start": start,
        "folds__span": span,
        "blender__name": blender,
        "detector__name": detector,
        "permutation__count": permutations,
        "seed": seed,
    }
    places = {"workers__name": workers, "workers__count": count}
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    from ensemble.settings import ValidateConfig

    if resume_changed and resume is None:
        raise ConfigError("--resume-changed was given without --resume; name the run to go on with")
    if resume is not None:
        named = {**shortcuts, "set": settings or None}
        given = [name.split("__")[-1] for name, value in named.items() if value is not None]
        if given:
            raise ConfigError(f"--{given[0]} was given with --resume; a resumed run keeps its settings")
        from ensemble.running import resume_run

        base = load(ValidateConfig, config, (), runs=runs, **places)
        changed = base.workers if any(value is not None for value in places.values()) else None
        folder = resume_run(base.runs, resume, console, changed, resume_changed)
    else:
        from ensemble.running import validate_run

        chosen = load(ValidateConfig, config, settings, runs=runs, **shortcuts, **places)
        folder = validate_run(chosen, console)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(validate)

if __name__ == "__main__":
    main()

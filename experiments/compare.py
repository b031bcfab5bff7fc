"""``python -m experiments.compare --forecasters all``: side by side, out of fold and after costs."""

from typing import Annotated

import typer

from configs.command import command


def compare(
    forecasters: Annotated[
        str | None,
        typer.Option(help="Names or YAML files of forecasters with commas, or all. Baselines come along."),
    ] = None,
    horizons: Annotated[
        str | None, typer.Option(help="Of the label, with commas: bars, or for example 4h,24h.")
    ] = None,
    runs_of: Annotated[
        str | None,
        typer.Option(help="Finished runs of forecasters.train with commas; nothing is trained then."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="triple_barrier, direction or return.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Trained anew every quarter, month or year.")] = None,
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
        str | None, typer.Option(help="Go on with a comparison that was stopped: its id, or latest.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: regimes.every_bars=2000.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "compare.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Hold forecasters against each other and against naive baselines, on rows that none of them has seen.

    Every forecaster is trained walk-forward, or taken from a finished training with equal settings. The
    report says how good its answers are, what its signal earns after costs, each with bootstrap intervals,
    which models fail, and which are promoted.
    """
    from rich.console import Console

    from configs.load import ConfigError, load
    from forecasters.comparison_settings import CompareConfig

    shortcuts = {
        "forecasters": _listed(forecasters),
        "horizons": _listed(horizons),
        "runs_of": _listed(runs_of),
        "label__kind": label,
        "schedule__span": schedule,
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
    if runs_of is not None:
        named = ("forecasters", "runs_of", "seed")
        other = [name for name, value in shortcuts.items() if value is not None and name not in named]
        if forecasters is not None or other:
            raise ConfigError(
                f"--{'forecasters' if forecasters is not None else other[0].split('__')[-1]} was given with "
                f"--runs-of; finished runs are compared as they are"
            )
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    if resume is not None:
        given = [
            name.split("__")[-1]
            for name, value in (shortcuts | {"set": settings}).items()
            if value is not None and value != []
        ]
        if given:
            raise ConfigError(
                f"--{given[0].replace('_', '-')} was given with --resume; a resumed run keeps its settings"
            )
        from forecasters.comparison import resume_comparison

        folder = resume_comparison(load(CompareConfig, config, (), runs=runs).runs, resume, console)
    else:
        from forecasters.comparison import compare_run

        folder = compare_run(load(CompareConfig, config, settings or (), runs=runs, **shortcuts), console)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


main = command(compare)

if __name__ == "__main__":
    main()

"""``python -m ga.evolve --regime volatile``: evolve a specialist for one regime and judge it."""

from typing import Annotated

import typer

from configs.command import command


def evolve(
    regime: Annotated[str | None, typer.Option(help="ranging, trending, volatile, all, or crisis.")] = None,
    bars: Annotated[str | None, typer.Option(help="File of bars; default: the synthetic market.")] = None,
    symbol: Annotated[str | None, typer.Option(help="For example BTC/USDT.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="For example 1h.")] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20190101-20240630.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the file; default: found out.")] = None,
    repair: Annotated[
        list[str] | None, typer.Option(help="A repair of the file by name; may repeat.")
    ] = None,
    accept: Annotated[list[str] | None, typer.Option(help="An oddity to accept; may repeat.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all random numbers.")] = None,
    threads: Annotated[int | None, typer.Option(help="Worker threads; default: all cores.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: fitness.folds=8.")] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "evolve.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Evolve a trading specialist for one market regime, and print an honest verdict.

    Without --bars it works on a synthetic market whose regimes are known, so it runs anywhere.
    """
    from rich.console import Console

    from configs.load import load
    from specialists.evolving import EvolveConfig, evolve_run

    chosen = load(
        EvolveConfig,
        config,
        settings or (),
        regime=regime,
        seed=seed,
        market__bars=bars,
        market__symbol=symbol,
        market__timeframe=timeframe,
        market__timerange=timerange,
        market__layout=layout,
        market__repairs=repair,
        market__accept=accept,
        workers__threads=threads,
        runs=runs,
    )
    folder = evolve_run(chosen, Console(stderr=as_json, highlight=False))
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(evolve)

if __name__ == "__main__":
    main()

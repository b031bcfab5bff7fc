"""``python -m forecasters.barriers``: widths, horizon and volatility of the triple barrier, evolved."""

from typing import Annotated

import typer

from configs.command import command


def barriers(
    horizon: Annotated[
        list[str] | None, typer.Option(help="Keep to this horizon: bars, or for example 4h; may repeat.")
    ] = None,
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
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: fitness.weights.sharpe=2.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "barriers.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Evolve the barriers of labels on training rows, and say what they bring on later ones.

    Fitness weighs class balance, moves beyond the costs, and the Sharpe ratio after costs of a small honest
    forecaster that bets on the labels. The run leaves barriers.yaml, for
    python -m forecasters.train --set label=<run>/barriers.yaml. Without --bars it works on the synthetic
    market.
    """
    from rich.console import Console

    from configs.load import load
    from forecasters.barrier_running import barriers_run
    from forecasters.barrier_settings import BarriersConfig

    shortcuts = {
        "space__horizons": horizon or None,
        "market__bars": bars,
        "market__symbol": symbol,
        "market__timeframe": timeframe,
        "market__timerange": timerange,
        "market__layout": layout,
        "market__repairs": repair or None,
        "market__accept": accept or None,
        "seed": seed,
        "runs": runs,
    }
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    folder = barriers_run(load(BarriersConfig, config, settings or [], **shortcuts), console)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(barriers)

if __name__ == "__main__":
    main()

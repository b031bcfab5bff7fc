"""``python -m market.ingest``: take bars into the store, refusing by default and repairing only by name."""

from typing import Annotated

import typer

from configs.command import command


def ingest(
    files: Annotated[list[str] | None, typer.Argument(help="Files of one symbol.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="auto, binance, freqtrade, ccxt, bitfinex, yahoo, tradingview or generic."),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="For example BTC/USDT; default from the file name.")
    ] = None,
    timeframe: Annotated[str | None, typer.Option(help="For example 1h; default from the rows.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="House name and column of the file: open=o, close_time=t.")
    ] = None,
    repair: Annotated[list[str] | None, typer.Option(help="A repair by name; may repeat.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="An oddity to accept; may repeat.")] = None,
    exchange: Annotated[str | None, typer.Option(help="A ccxt exchange instead of files.")] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20190101-20240630.")] = None,
    store: Annotated[str | None, typer.Option(help="Folder of the store; default data.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check and report; store nothing.")] = False,
    existing: Annotated[
        str | None, typer.Option(help="Stored bars that differ: refuse, replace or extend.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: retries=9.")] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "ingest.yaml",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    remedies: Annotated[bool, typer.Option("--remedies", help="List all repairs and acceptances.")] = False,
) -> None:
    """Read files or download from an exchange, check, store, and print the quality report."""
    from configs.load import load
    from market.intake import IntakeConfig, intake

    if remedies:
        _print_remedies()
        return
    settings = list(settings or [])
    if check:
        settings.append("store=null")
    chosen = load(
        IntakeConfig,
        config,
        settings,
        files=files or None,
        layout=layout,
        symbol=symbol,
        timeframe=timeframe,
        columns=_columns(column),
        repairs=repair or None,
        accept=accept or None,
        exchange=exchange,
        timerange=timerange,
        store=store,
        existing=existing,
    )
    _, report, path = intake(chosen)
    _print(report, path, as_json)


def _columns(pairs: list[str] | None) -> dict[str, str] | None:
    from configs.load import ConfigError

    columns = {}
    for pair in pairs or ():
        house, equals, name = pair.partition("=")
        if not (house and equals and name):
            raise ConfigError(f"--column {pair}: must look like open=o")
        if house in columns:
            raise ConfigError(f"--column {pair}: {house} is given twice")
        columns[house] = name
    return columns or None


def _print(report, path, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(report.to_dict() | {"stored": str(path) if path else None}, indent=1))
        return
    from rich.console import Console

    from market.quality import rendered

    console = Console(highlight=False, soft_wrap=True)
    console.print(rendered(report))
    console.print(f"stored in {path}" if path else "checked only; nothing stored", markup=False)


def _print_remedies() -> None:
    from market.rows import ACCEPTS, REPAIRS

    for option, known in (("--repair", REPAIRS), ("--accept", ACCEPTS)):
        for name, meaning in known.items():
            print(f"{option} {name:<20} {meaning}")


main = command(ingest)

if __name__ == "__main__":
    main()

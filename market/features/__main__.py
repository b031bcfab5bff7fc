"""``python -m market.features``: features, labels and splits of a market, checked and written to disk."""

from typing import Annotated

import typer

from configs.command import command


def dataset(
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
    horizon: Annotated[str | None, typer.Option(help="Of the label: bars, or for example 4h.")] = None,
    label: Annotated[str | None, typer.Option(help="triple_barrier, direction or return.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of data sets; default data/features.")] = None,
    columns: Annotated[bool, typer.Option("--columns", help="List the columns, and nothing else.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Measure and report; write nothing.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: split.train=0.6.")] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "dataset.yaml",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Compute features and labels, split them in time, report their quality, and export them.

    Each split becomes a Parquet and an NPZ file in a folder named by the hash of its content. Columns that do
    not vary over the training rows are dropped. The label of a test row is written but never measured.
    """
    from rich.console import Console

    from configs.load import load
    from market.features.dataset import DatasetConfig
    from market.features.exporting import export_run, print_columns

    if columns:
        print_columns()
        return
    settings = list(settings or [])
    if features is not None:
        settings.append(f"features={features}")
    if check:
        settings.append("out=null")
    chosen = load(
        DatasetConfig,
        config,
        settings,
        label__kind=label,
        label__horizon=horizon,
        market__bars=bars,
        market__symbol=symbol,
        market__timeframe=timeframe,
        market__timerange=timerange,
        market__layout=layout,
        market__repairs=repair,
        market__accept=accept,
        out=None if check else out,
    )
    report = export_run(chosen, Console(stderr=as_json, highlight=False, soft_wrap=True))
    if as_json:
        import json

        print(json.dumps(report, indent=1))


main = command(dataset)

if __name__ == "__main__":
    main()

"""``python -m regimes.detect``: which regime a market is in, and how well a detector can tell."""

from typing import Annotated

import typer

from configs.command import command


def detect(
    bars: Annotated[str | None, typer.Option(help="File of bars; default: the synthetic market.")] = None,
    detector: Annotated[str | None, typer.Option(help="A registered detector, for example hmm.")] = None,
    compare: Annotated[
        bool | None, typer.Option("--compare", help="Measure every registered detector beside it.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="For example BTC/USDT.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="For example 1h.")] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20190101-20240630.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the file; default: found out.")] = None,
    repair: Annotated[
        list[str] | None, typer.Option(help="A repair of the file by name; may repeat.")
    ] = None,
    accept: Annotated[list[str] | None, typer.Option(help="An oddity to accept; may repeat.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root of the bootstrap's random numbers.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting: split.train=0.6.")] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "detect.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Fit a regime detector, run it causally, and measure it on bars that it was not fitted on.

    Without --bars it works on a synthetic market whose regimes are known, beside the best that any causal
    filter could do. The run's folder holds regimes.html, pictures, labels and the fitted detector.
    """
    from rich.console import Console

    from configs.load import load
    from regimes.detecting import DetectConfig, detect_run

    chosen = load(
        DetectConfig,
        config,
        settings or (),
        detector__name=detector,
        compare=compare,
        seed=seed,
        market__bars=bars,
        market__symbol=symbol,
        market__timeframe=timeframe,
        market__timerange=timerange,
        market__layout=layout,
        market__repairs=repair,
        market__accept=accept,
        runs=runs,
    )
    folder = detect_run(chosen, Console(stderr=as_json, highlight=False))
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(detect)

if __name__ == "__main__":
    main()

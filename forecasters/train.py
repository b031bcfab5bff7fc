"""``python -m forecasters.train --model xgboost --horizon 4h``: trained walk-forward, each row unseen."""

from typing import Annotated

import typer

from configs.command import command


def train(
    model: Annotated[
        str | None,
        typer.Option(help="A forecaster such as xgboost, lightgbm, logistic or lstm; or a YAML file of one."),
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="Of the label: bars, or for example 4h.")] = None,
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
        str | None, typer.Option(help="Go on with a training that was stopped: its id, or latest.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the forecasters, and nothing else.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: model.max_depth=6.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "forecast.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Train a forecaster on the past of every quarter, and let it answer for the quarter.

    Labels that reach into a test are purged, an embargo lies in front of it, and scaler, weights, stopping
    and calibration come from training rows alone. Without --bars it works on the synthetic market.
    """
    from rich.console import Console

    from configs.load import ConfigError, load, validate

    if listed:
        _print_list()
        return
    settings = list(settings or [])
    shortcuts = {
        "label__horizon": horizon,
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
    from forecasters.settings import ForecastConfig, ThresholdsConfig

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    if resume is not None:
        named = {"model": model, **shortcuts, "set": settings or None}
        given = [name.split("__")[-1] for name, value in named.items() if value is not None]
        if given:
            raise ConfigError(f"--{given[0]} was given with --resume; a resumed run keeps its settings")
        from forecasters.running import resume_run

        folder = resume_run(load(ForecastConfig, config, (), runs=runs).runs, resume, console)
    else:
        from forecasters.forecaster import plugin_config, plugin_document
        from forecasters.running import train_run

        chosen = load(ForecastConfig, config, settings, runs=runs, **shortcuts)
        base = plugin_config(model or chosen.model.name)
        # What was set by hand goes before what the file of the forecaster says.
        whole = base.model_copy(update=chosen.model.settings)
        changes = {"model": whole}
        if thresholds := plugin_document(model or chosen.model.name)[0].get("thresholds"):
            # What a tuning found belongs to the model, as its settings do.
            found = validate(ThresholdsConfig, thresholds, f"{model}: thresholds")
            changes["learning"] = chosen.learning.model_copy(update={"thresholds": found})
        folder = train_run(chosen.model_copy(update=changes), console)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


def _print_list() -> None:
    from forecasters.forecaster import FORECASTERS

    for name in FORECASTERS.names():
        about = " ".join((FORECASTERS.get(name).__doc__ or "").partition("\n\n")[0].split())
        print(f"{name:<14} {FORECASTERS.tags(name).get('family', ''):<10} {about}")


main = command(train)

if __name__ == "__main__":
    main()

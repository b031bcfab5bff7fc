"""``python -m conductor.train --variant hybrid``: train a conductor, and race it on tasks it never saw."""

from typing import Annotated

import typer

from configs.command import command


def train(
    variant: Annotated[
        str | None,
        typer.Option(help="dann, specific, hybrid, multitask, committee, transformer, es, rl, maml."),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="both, landscapes or windows.")] = None,
    bars: Annotated[
        str | None,
        typer.Option(help="Files of bars, {asset} standing for each; default: synthetic markets."),
    ] = None,
    assets: Annotated[str | None, typer.Option(help="For example BTC,ETH,LTC.")] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Assets among them that only judge, for example LTC.")
    ] = None,
    held_out_regimes: Annotated[
        str | None, typer.Option(help="Regimes whose windows only judge, for example volatile.")
    ] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20190101-20240630.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Length against a default run, about 15m on two cores: 30m, 2h."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all random numbers.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; default: one per core.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a training that was stopped: its id, or latest.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: strategies.pairs=32.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "train.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Train a network that sets the controls of the evolution, and race it against tuned fixed controls.

    Without --bars its tasks are synthetic landscapes and windows of synthetic markets, so it runs anywhere.
    """
    from rich.console import Console

    from conductor.training_settings import TrainConfig, effort_of
    from configs.load import ConfigError, load

    def names(text: str | None) -> list[str] | None:
        return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

    shortcuts = {
        "variant__name": variant,
        "tasks": tasks,
        "market__bars": bars,
        "market__timerange": timerange,
        "trading__assets": names(assets),
        "trading__held_out": names(held_out),
        "trading__held_out_regimes": names(held_out_regimes),
        "effort": None if budget is None else effort_of(budget),
        "seed": seed,
    }
    console = Console(stderr=as_json, highlight=False)
    if resume is not None:
        given = [name.split("__")[-1] for name, value in shortcuts.items() if value is not None]
        if given or settings:
            raise ConfigError(
                f"--{(given or ['set'])[0].replace('_', '-')} was given with --resume; a resumed run keeps "
                "its settings"
            )
        from conductor.training import resume_run

        chosen = load(TrainConfig, config, (), runs=runs)
        folder = resume_run(chosen.runs, resume, console)
    else:
        chosen = load(TrainConfig, config, settings or (), runs=runs, threads=threads, **shortcuts)
        from conductor.training import train_run

        folder = train_run(chosen, console)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(train)

if __name__ == "__main__":
    main()

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
    search: Annotated[str | None, typer.Option(help="champion, nsga2, nsga3 or map_elites.")] = None,
    conductor: Annotated[
        str | None,
        typer.Option(help="Trained conductor that sets the controls: a folder, a run, a variant."),
    ] = None,
    workers: Annotated[str | None, typer.Option(help="auto, serial, threads or ray.")] = None,
    threads: Annotated[int | None, typer.Option(help="Number of workers; default: one per core.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; default: a local one.")] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve Ray's dashboard, on this machine only.")
    ] = False,
    all_regimes: Annotated[
        bool, typer.Option("--all-regimes", help="One evolution per regime, side by side.")
    ] = False,
    assets: Annotated[
        str | None, typer.Option(help="One evolution per asset, for example BTC,ETH,LTC.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a run that was stopped: its id, or latest.")
    ] = None,
    resume_changed: Annotated[
        bool, typer.Option("--resume-changed", help="Go on even if code or libraries have changed.")
    ] = False,
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

    from configs.load import ConfigError, load
    from specialists.settings import EvolveConfig

    shortcuts = {
        "regime": regime,
        "seed": seed,
        "search": search,
        "market__bars": bars,
        "market__symbol": symbol,
        "market__timeframe": timeframe,
        "market__timerange": timerange,
        "market__layout": layout,
        "market__repairs": repair,
        "market__accept": accept,
    }
    where = {
        "workers__name": workers,
        "workers__count": threads,
        "workers__address": address,
        "workers__dashboard": dashboard or None,
    }
    console = Console(stderr=as_json, highlight=False)
    if resume is not None:
        from specialists.evolving import resume_run

        given = [name.split("__")[-1] for name, value in shortcuts.items() if value not in (None, [])]
        given += [
            name
            for name, value in (
                ("set", settings),
                ("assets", assets),
                ("all-regimes", all_regimes),
                ("conductor", conductor),
            )
            if value
        ]
        if given:
            raise ConfigError(
                f"--{given[0]} was given with --resume; a resumed run keeps its settings; only --workers, "
                f"--threads, --address and --dashboard may be chosen anew"
            )
        chosen = load(EvolveConfig, config, (), runs=runs, **where)
        elsewhere = chosen.workers if any(value is not None for value in where.values()) else None
        folder = resume_run(chosen.runs, resume, console, elsewhere, resume_changed)
    else:
        if resume_changed:
            raise ConfigError("--resume-changed was given without --resume; name the run to go on with")
        chosen = load(EvolveConfig, config, settings or (), runs=runs, **shortcuts, **where)
        if conductor is not None:
            from conductor.piloting import conducted

            chosen = conducted(chosen, conductor)
        if all_regimes or assets is not None:
            from specialists.fanning import fan_out

            folder = fan_out(chosen, console, all_regimes, assets)
        else:
            from specialists.evolving import evolve_run

            folder = evolve_run(chosen, console)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(evolve)

if __name__ == "__main__":
    main()

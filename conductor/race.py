"""``python -m conductor.race --conductor NAME``: race a conductor against every baseline at equal budgets."""

from typing import Annotated

import typer

from configs.command import command


def race(
    conductor: Annotated[
        list[str] | None,
        typer.Option(help="Run, variant, name or folder; may repeat: the first is judged."),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="bbob, families or windows.")] = None,
    instances: Annotated[int | None, typer.Option(help="Of each function or family.")] = None,
    windows: Annotated[int | None, typer.Option(help="Windows at most, of suite windows.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each problem.")] = None,
    dimension: Annotated[int | None, typer.Option(help="Genes of a landscape.")] = None,
    population: Annotated[int | None, typer.Option(help="Individuals.")] = None,
    generations: Annotated[int | None, typer.Option(help="Generations.")] = None,
    bars: Annotated[
        list[str] | None,
        typer.Option(help="File of bars, {asset} standing for each; may repeat. Default: synthetic."),
    ] = None,
    assets: Annotated[str | None, typer.Option(help="For example BTC,ETH,LTC.")] = None,
    timerange: Annotated[str | None, typer.Option(help="For example 20190101-20240630.")] = None,
    contestants: Annotated[
        str | None, typer.Option(help="Rivals, for example 'tuned schedule,CMA-ES'; default: all.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all random numbers.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; default: one per core.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: schedule.iterations=100.")
    ] = None,
    config: Annotated[str, typer.Option(help="YAML file of settings.")] = "race.yaml",
    runs: Annotated[str | None, typer.Option(help="Folder of runs.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, progress aside.")
    ] = False,
) -> None:
    """Race a trained conductor against tuned fixed controls and all other baselines, and print the verdict.

    All make the same runs with the same seeds and the same evaluations, on problems that none has seen.
    """
    from rich.console import Console

    from conductor.racing_settings import RaceConfig
    from configs.load import load

    def names(text: str | None) -> list[str] | None:
        return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

    chosen = load(
        RaceConfig,
        config,
        settings or (),
        conductors=conductor,
        suite=suite,
        instances=instances,
        n_windows=windows,
        seeds=seeds,
        dimension=dimension,
        population=population,
        generations=generations,
        bars=bars,
        assets=names(assets),
        market__timerange=timerange,
        contestants=names(contestants),
        seed=seed,
        threads=threads,
        runs=runs,
    )
    from conductor.race_running import race_run

    folder = race_run(chosen, Console(stderr=as_json, highlight=False))
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")


main = command(race)

if __name__ == "__main__":
    main()

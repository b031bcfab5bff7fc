"""``python -m experiments``: list, show, compare and reproduce runs, and list specialists."""

from typing import Annotated

import typer

from configs.command import command

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="List, show, compare and reproduce runs, and list the specialists in them.",
)

Runs = Annotated[str, typer.Option(help="Folder of runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print plain data as JSON instead of tables.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, how it begins, or latest.")]
FOLDER = "experiments/runs"


@app.command("list")
def list_(
    runs: Runs = FOLDER,
    of: Annotated[str | None, typer.Option("--command", help="Only runs of one, such as evolve.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest last: when, how long, on how many bars, with which result."""
    from experiments import listing

    rows = listing.run_rows(runs, of)
    if as_json:
        _print_json(rows)
    else:
        listing.show_runs(listing.console(), rows, runs)


@app.command()
def show(run: RunId, runs: Runs = FOLDER, as_json: AsJson = False) -> None:
    """Show one run: settings, data, code, verdict, metrics, genes, lineage and files."""
    from experiments import listing
    from experiments.records import find

    record = find(runs, run)
    if as_json:
        _print_json(listing.run_document(record))
    else:
        listing.show_run(listing.console(), record)


@app.command()
def specialists(
    runs: Runs = FOLDER,
    regime: Annotated[str | None, typer.Option(help="Only of one, such as volatile.")] = None,
    as_json: AsJson = False,
) -> None:
    """List saved specialists with genes by name, regime, verdict and lineage."""
    from experiments import listing

    rows = listing.specialist_rows(runs, regime)
    if as_json:
        _print_json(rows)
    else:
        listing.show_specialists(listing.console(), rows, runs)


@app.command()
def compare(
    first: RunId,
    second: RunId,
    runs: Runs = FOLDER,
    seed: Annotated[int, typer.Option(help="Root of the bootstrap's random numbers.", min=0)] = 7,
    as_json: AsJson = False,
) -> None:
    """Compare two runs: settings, data, metrics, verdicts, genes, and whether their returns differ."""
    from experiments import comparing, listing
    from experiments.records import find

    found = comparing.compare(find(runs, first), find(runs, second), seed)
    if as_json:
        _print_json(found)
    else:
        comparing.show(listing.console(), found)


@app.command()
def reproduce(
    run: RunId,
    runs: Runs = FOLDER,
    scratch: Annotated[
        str | None, typer.Option(help="Folder to rerun in, which is kept; default: one that is removed.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that must change no result: workers.name=serial."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Rerun a run's stored settings and compare its files byte by byte.

    The exit status is 0 if they are identical, and 1 if not.
    """
    from experiments import listing, reproducing
    from experiments.records import find

    where = listing.console(as_json)
    found = reproducing.reproduce(find(runs, run), where, scratch, settings or ())
    if as_json:
        _print_json(found)
    else:
        reproducing.show(where, found)
    return 0 if found["identical"] else 1


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))


main = command(app)

if __name__ == "__main__":
    main()

"""``python -m experiments``: list, show, compare and reproduce runs, list specialists, and keep models."""

from typing import Annotated

import typer

from configs.command import command

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="List, show, compare and reproduce runs, list the specialists in them, and keep models.",
)
models = typer.Typer(
    rich_markup_mode=None, help="Register strategies under a name, and say which version of it is served."
)
app.add_typer(models, name="models")

Runs = Annotated[str, typer.Option(help="Folder of runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print plain data as JSON instead of tables.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, how it begins, or latest.")]
FOLDER = "experiments/runs"
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model, for example btc.")]
Root = Annotated[str, typer.Option("--models", help="Folder of models.")]
Note = Annotated[str, typer.Option(help="Why; is kept in the history.")]
MODELS = "experiments/models"


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


@models.command("list")
def list_models(root: Root = MODELS, as_json: AsJson = False) -> None:
    """List all versions of all models: which is served, its verdict, and whether its files are whole."""
    from experiments import listing, model_tables
    from experiments.models import Models

    registry = Models(root)
    rows = model_tables.version_rows(registry)
    if as_json:
        _print_json(rows)
    else:
        model_tables.show_versions(listing.console(), rows, registry.root)


@models.command("show")
def show_model(
    name: ModelName,
    version: Annotated[int | None, typer.Option(help="Default: in production, or else the newest.")] = None,
    root: Root = MODELS,
    as_json: AsJson = False,
) -> None:
    """Show one version of a model, where it comes from, the others, and everything that happened."""
    from experiments import listing, model_tables
    from experiments.models import Models

    found = model_tables.model_document(Models(root).model(name), version)
    if as_json:
        _print_json(found)
    else:
        model_tables.show_model(listing.console(), found)


@models.command()
def register(
    name: ModelName,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A validation (id or latest), or the folder of a strategy."),
    ],
    fold: Annotated[int | None, typer.Option(help="Of the validation, from 1; default: the last.")] = None,
    note: Note = "",
    root: Root = MODELS,
    runs: Runs = FOLDER,
) -> None:
    """Copy a strategy as the next version of a model, with where it comes from and its verdict."""
    from experiments import listing, model_tables
    from experiments.model_origin import Source
    from experiments.models import Models

    registry = Models(root)
    version = registry.register(name, Source.find(source, runs, fold), note)
    where = listing.console()
    where.print(f"Registered {name} version {version.number}.", style="bold", markup=False)
    model_tables.show_version(where, model_tables.model_document(registry.model(name), version.number))


@models.command()
def promote(
    name: ModelName,
    version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None,
    note: Note = "",
    force: Annotated[
        str | None, typer.Option(help="Why, although its validation has not passed; is kept in the history.")
    ] = None,
    root: Root = MODELS,
) -> None:
    """Serve a version from now on, if its validation has passed."""
    from experiments import listing, model_tables
    from experiments.models import Models

    before, now = Models(root).promote(name, version, note, force)
    where = listing.console()
    instead = "" if before is None else f", instead of version {before.number}"
    where.print(f"{name} version {now.number} is in production{instead}.", style="bold", markup=False)
    model_tables.show_change(where, before, now)


@models.command()
def rollback(
    name: ModelName,
    to: Annotated[int | None, typer.Option(help="Further back than to the version before.")] = None,
    note: Note = "",
    root: Root = MODELS,
) -> None:
    """Serve the version again that was served before."""
    from experiments import listing, model_tables
    from experiments.models import Models

    before, now = Models(root).rollback(name, to, note)
    where = listing.console()
    where.print(
        f"{name} version {now.number} is in production again, instead of version {before.number}.",
        style="bold", markup=False,
    )  # fmt: skip
    model_tables.show_change(where, before, now)


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False))


main = command(app)

if __name__ == "__main__":
    main()

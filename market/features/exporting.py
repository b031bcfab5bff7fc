"""One export from settings to files: the steps of ``python -m market.features`` in their order."""

from rich.console import Console
from rich.table import Table as RichTable

from market.features.dataset import Dataset, DatasetConfig, build, shares
from market.features.dataset_files import export
from market.features.feature import FEATURES, feature_names
from market.features.quality import MUCH_DRIFT, SOME_DRIFT, TESTED_LAGS, TESTED_ROWS, ColumnQuality
from market.sources.selection import select_bars
from market.table import utc

SHOWN = 12  # rows of each table on the screen; the files have all


def export_run(config: DatasetConfig, console: Console) -> dict:
    """Build, measure, print and write a data set; return the report as plain objects.

    Raises
    ------
    ConfigError, DataError
        If a setting or a file is wrong; nothing is written then.
    """
    selection = select_bars(config.market)
    selection.show(console)
    with console.status("computing features and labels") as status:
        dataset = build(selection.bars, config)
        status.update("measuring the columns")
        quality = dataset.quality()
        folder = None
        if config.out is not None:
            status.update("writing")
            folder = export(dataset, quality, config.out)
    _show(console, dataset, quality)
    console.print(f"Written to {folder}" if folder else "Checked only; nothing written.", markup=False)
    return {
        "version": dataset.version(),
        "bars": dataset.bars.label,
        "origin": selection.origin,
        "label": dataset.labels.name,
        "columns": [one.to_dict() for one in quality],
        "dropped_constant": list(dataset.constant),
        "findings": findings(quality),
        "folder": str(folder) if folder else None,
    }


def print_columns() -> None:
    """Print every column of bars alone: its set, what it reads, its warm-up, and what it means."""
    for name in feature_names("full"):
        feature, tags = FEATURES.get(name), FEATURES.tags(name)
        meaning = " ".join(feature.__doc__.partition("\n\n")[0].split())
        print(f"{name:<28} {tags.get('set', 'core')}  {tags['subject']:<12}  {feature.warmup:>4}  {meaning}")


def findings(quality: list[ColumnQuality]) -> list[str]:
    """Return one sentence for everything a user should look at."""
    found = []
    drifting = [one.name for one in quality if one.largest_drift > MUCH_DRIFT]
    some = sum(SOME_DRIFT < one.largest_drift <= MUCH_DRIFT for one in quality)
    if drifting or some:
        found.append(
            f"{len(drifting)} of {len(quality)} columns drift much between spans (PSI above {MUCH_DRIFT:g}), "
            f"{some} somewhat (above {SOME_DRIFT:g})"
        )
    tested = [one for one in quality if one.unit_root_p is not None]
    wandering = [one.name for one in tested if one.unit_root_p > 0.05]
    if not tested:
        found.append("stationarity was not tested: that takes statsmodels, and 240 training rows")
    elif wandering:
        found.append(
            f"{len(wandering)} of {len(tested)} columns may have a unit root (augmented Dickey-Fuller, "
            f"{TESTED_LAGS} lags, latest {TESTED_ROWS:,} training rows): {', '.join(wandering[:SHOWN])}"
        )
    suspicious = [one.name for one in quality if one.suspicious]
    if suspicious:
        found.append(f"too close to the label to be true, a leak? {', '.join(suspicious)}")
    gaps = [one.name for one in quality if max(one.missing.values()) > 0]
    if gaps:
        found.append(f"{len(gaps)} columns have missing values: {', '.join(gaps[:SHOWN])}")
    return found


def _show(console: Console, dataset: Dataset, quality: list[ColumnQuality]) -> None:
    spans = RichTable(
        "span", "rows", "from", "to", "labelled", "down", "none", "up", title=dataset.labels.name
    )
    for name, rows in dataset.spans.items():
        # What the test rows hold is theirs to tell: their labels are not looked at.
        share = shares(dataset.labels, rows) if name != "test" else {}
        time = dataset.bars.time
        spans.add_row(
            name,
            f"{rows.stop - rows.start:,}",
            utc(time[rows.start])[:7],
            utc(time[rows.stop - 1])[:7],
            f"{int(dataset.labels.known[rows].sum()):,}",
            *(f"{share[which]:.1%}" if share else "-" for which in ("down", "none", "up")),
        )
    console.print(spans)
    console.print(
        f"{len(quality)} columns, purge {dataset.split.purge} and embargo {dataset.split.embargo} bars, "
        f"features {dataset.feature_version}, data set {dataset.version()}",
    )
    if dataset.constant:
        console.print(
            f"dropped, constant over the training rows: {', '.join(dataset.constant)}", markup=False
        )
    told = sorted(quality, key=lambda one: -abs(one.correlation or 0.0))[:SHOWN]
    _columns(console, "closest to the label (rank correlation of training rows)", told)
    _columns(console, "drift most", sorted(quality, key=lambda one: -one.largest_drift)[:SHOWN])
    for sentence in findings(quality):
        console.print(f"! {sentence}", markup=False)


def _columns(console: Console, title: str, quality: list[ColumnQuality]) -> None:
    table = RichTable("column", "correlation", "t", "validation", "PSI", "unit root p", title=title)
    for one in quality:
        table.add_row(
            one.name,
            _text(one.correlation, "+.3f"),
            _text(one.correlation_t, "+.1f"),
            _text(one.validation_correlation, "+.3f"),
            _text(one.largest_drift, ".2f"),
            _text(one.unit_root_p, ".3f"),
        )
    console.print(table)


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)

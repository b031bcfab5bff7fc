"""Data sets on disk: Parquet and NPZ files per span in a folder named by the hash of what it holds."""

import hashlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from market.bars import timeframe_text
from market.features.dataset import FORMAT, Dataset, shares
from market.features.quality import ColumnQuality
from market.table import DataError, Table, utc

MANIFEST, QUALITY, SCALER = "dataset.json", "quality.json", "scaler.json"


def export(dataset: Dataset, quality: list[ColumnQuality], out: str | Path) -> Path:
    """Write a data set and return its folder, which is named by symbol, timeframe, label and hash.

    Per span a Parquet file and an NPZ file with the same rows; beside them the manifest, the quality report,
    and the scaler fitted on the training rows. The folder appears whole or not at all; one of the same name
    holds the same content and is left as it is.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    from market.scaling import Scaler
    from market.store import folder_name

    out = Path(out)
    version = dataset.version()
    bars = dataset.bars
    stem = f"{folder_name(bars.symbol or 'bars')}-{timeframe_text(bars.interval_ns)}-{dataset.labels.name}"
    folder = out / f"{stem}-{version}"
    if (folder / MANIFEST).is_file():
        return folder
    try:
        out.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
        try:
            digests = {}
            for name, rows in dataset.spans.items():
                for ending, content in (("parquet", _parquet(dataset, rows)), ("npz", _npz(dataset, rows))):
                    (unfinished / f"{name}.{ending}").write_bytes(content)
                    digests[f"{name}.{ending}"] = hashlib.sha256(content).hexdigest()
            Scaler.fit(dataset.features[dataset.split.train]).save(unfinished / SCALER)
            _write_json(unfinished / QUALITY, [one.to_dict() for one in quality])
            _write_json(unfinished / MANIFEST, _manifest(dataset, version, digests))
            unfinished.chmod(0o755)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    return folder


def read_span(folder: str | Path, span: str) -> tuple[Table, dict[str, np.ndarray]]:
    """Return the features of a span, and its labels as arrays.

    Parameters
    ----------
    folder : str or Path
        A folder that :func:`export` wrote.
    span : str
        train, validation or test.

    Raises
    ------
    DataError
        If there is no such span, or the file is not the one that was written.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = manifest["files"]
        if f"{span}.npz" not in known:
            raise DataError(f"{folder}: has no span {span}; it has {', '.join(manifest['spans'])}")
        content = (folder / f"{span}.npz").read_bytes()
        if hashlib.sha256(content).hexdigest() != known[f"{span}.npz"]:
            raise DataError(f"{folder / span}.npz: is not what was written; export the data set again")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder}: is no data set that can be read ({error})") from error
    names = tuple(str(name) for name in arrays.pop("names"))
    return Table(arrays.pop("time"), arrays.pop("x"), names), arrays


def _parquet(dataset: Dataset, rows: slice) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    found = dataset.arrays(rows)
    columns = {"time": pa.array(found["time"], pa.timestamp("ns", tz="UTC"))}
    columns |= {name: found["x"][:, i] for i, name in enumerate(dataset.features.names)}
    columns |= {name: found[name] for name in ("label", "known", "known_at", "ret")}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _npz(dataset: Dataset, rows: slice) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array(dataset.features.names), **dataset.arrays(rows))
    return buffer.getvalue()


def _manifest(dataset: Dataset, version: str, digests: dict[str, str]) -> dict:
    labels, time = dataset.labels, dataset.bars.time
    return {
        "format": FORMAT,
        "version": version,
        "bars": dataset.bars.label,
        "bars_fingerprint": dataset.bars.fingerprint(),
        "feature_version": dataset.feature_version,
        "columns": list(dataset.features.names),
        "dropped_constant": list(dataset.constant),
        "label": labels.name,
        "horizon_bars": labels.horizon,
        "purge_bars": dataset.split.purge,
        "embargo_bars": dataset.split.embargo,
        "spans": {
            name: {
                "rows": rows.stop - rows.start,
                "from": utc(time[rows.start]),
                "to": utc(time[rows.stop - 1]),
                "labelled": int(labels.known[rows].sum()),
                "shares": shares(labels, rows),
            }
            for name, rows in dataset.spans.items()
        },
        "files": digests,
    }


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")

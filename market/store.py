"""Bars on disk: one Parquet file per symbol and timeframe, and a manifest that says what it must hold.

The data file carries its fingerprint in its name and the manifest is replaced last, so that a process killed
at any moment leaves the old bars or the new ones. A file that was changed is refused on loading.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from market.bars import OHLCV, Bars, timeframe_ns, timeframe_text
from market.quality import QualityReport
from market.table import DataError, utc

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_MANIFEST_BYTES = 16 * 2**20
_VERSION = 1


def folder_name(symbol: str) -> str:
    """Return the folder of a symbol: ``BTC/USDT:USDT`` lies in ``BTC-USDT-USDT``.

    Raises
    ------
    DataError
        If the symbol holds anything but letters, digits and ``. _ - / :``, or could leave the store.
    """
    name = re.sub(r"[/:]", "-", symbol)
    parts = re.split(r"[/:]", symbol)
    if not _NAME.fullmatch(name) or any(not part.strip(".") for part in parts) or name.startswith("-"):
        raise DataError(
            f"symbol {symbol[:80]!r} cannot be stored; it must be like BTC/USDT: at most 64 letters, digits "
            f"and . _ - / :"
        )
    return name


class BarStore:
    """Stored bars, by symbol and timeframe.

    Parameters
    ----------
    root : str or Path
        Folder of the store; made on the first save.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def save(self, bars: Bars, report: QualityReport | None = None, **facts: Any) -> Path:
        """Store bars in place of what was there and return the path of the data file.

        Parameters
        ----------
        bars : Bars
            At least one.
        report : QualityReport, optional
            Its summary, source and repairs go into the manifest.
        **facts
            Further facts for the manifest, as plain objects.

        Raises
        ------
        DataError
            If the symbol cannot be stored, there are no bars, or the folder cannot be written.
        """
        if not len(bars):
            raise DataError(f"{bars.label}: no bars to store")
        fingerprint = bars.fingerprint()
        manifest_path = self._manifest_path(bars.symbol, timeframe_text(bars.interval_ns))
        data_path = manifest_path.with_name(f"{manifest_path.stem}-{fingerprint[:16]}.parquet")
        manifest = {
            "version": _VERSION,
            "symbol": bars.symbol,
            "timeframe": timeframe_text(bars.interval_ns),
            "file": data_path.name,
            "fingerprint": fingerprint,
            "rows": len(bars),
            "columns": list(bars.names),
            **facts,
            "quality": report.to_dict() if report else None,
        }
        old = self._old_data(manifest_path)
        try:
            manifest_path.parent.mkdir(parents=True, exist_ok=True)
            _replace(
                data_path,
                lambda file: pyarrow.parquet.write_table(_to_arrow(bars), file, write_page_checksum=True),
            )
            text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode()
            _replace(manifest_path, lambda file: file.write(text))
            if old is not None and old != data_path:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"{manifest_path.parent}: cannot be written ({error.strerror or error})"
            ) from error
        return data_path

    def load(self, symbol: str, timeframe: str) -> Bars:
        """Return stored bars.

        Raises
        ------
        DataError
            If there are none, or the file is not the one that was stored.
        """
        manifest = self.manifest(symbol, timeframe)
        path = self._manifest_path(symbol, timeframe).with_name(manifest["file"])
        try:
            file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
            if file.metadata.num_rows != manifest["rows"]:
                raise DataError(
                    f"{path}: has {file.metadata.num_rows} rows, not the {manifest['rows']} stored"
                )
            bars = _to_bars(file.read(), manifest)
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, DataError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path}: cannot be read ({reason}); ingest the bars again") from error
        if bars.fingerprint() != manifest["fingerprint"]:
            raise DataError(f"{path}: is not what was stored (fingerprints differ); ingest the bars again")
        return bars

    def manifest(self, symbol: str, timeframe: str) -> Mapping[str, Any]:
        """Return the manifest of stored bars.

        Raises
        ------
        DataError
            If there is none, or it is damaged.
        """
        path = self._manifest_path(symbol, timeframe)
        try:
            if path.stat().st_size > _MAX_MANIFEST_BYTES:
                raise DataError(f"{path}: is too large for a manifest; ingest the bars again")
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = ", ".join(" ".join(key) for key in self.keys()) or "nothing"
            raise DataError(f"{self.root}: no {symbol} {timeframe} is stored; stored: {known}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: is damaged ({error}); ingest the bars again") from None
        kinds = {"version": int, "symbol": str, "timeframe": str, "file": str, "fingerprint": str}
        kinds |= {"rows": int, "columns": list}
        for key, kind in kinds.items():
            if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
                raise DataError(f"{path}: {key} is missing or of the wrong kind; ingest the bars again")
        if (manifest["symbol"], manifest["timeframe"], manifest["version"]) != (symbol, timeframe, _VERSION):
            raise DataError(
                f"{path}: describes {manifest['symbol']} {manifest['timeframe']} in version "
                f"{manifest['version']}, not {symbol} {timeframe} in version {_VERSION}"
            )
        if not _NAME.fullmatch(manifest["file"]) or not manifest["file"].endswith(".parquet"):
            raise DataError(
                f"{path}: names the data file {manifest['file'][:80]!r}, which is no name of this store"
            )
        return manifest

    def keys(self) -> list[tuple[str, str]]:
        """Return symbol and timeframe of everything stored, sorted."""
        found = []
        for path in sorted(self.root.glob("bars/*/*.json")):
            try:
                manifest = json.loads(path.read_text(encoding="utf-8"))
                found.append((str(manifest["symbol"]), str(manifest["timeframe"])))
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                raise DataError(f"{path}: is damaged ({error}); ingest the bars again") from None
        return sorted(found)

    def remove(self, symbol: str, timeframe: str) -> None:
        """Remove stored bars; nothing happens when there are none."""
        manifest_path = self._manifest_path(symbol, timeframe)
        data = self._old_data(manifest_path)
        manifest_path.unlink(missing_ok=True)
        if data is not None:
            data.unlink(missing_ok=True)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return self._manifest_path(*key).is_file()

    def _manifest_path(self, symbol: str, timeframe: str) -> Path:
        timeframe = timeframe_text(timeframe_ns(timeframe))
        folder = self.root / "bars" / folder_name(symbol)
        if folder.is_symlink() or not folder.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"{folder}: leads out of the store")
        return folder / f"{timeframe}.json"

    def _old_data(self, manifest_path: Path) -> Path | None:
        try:
            name = json.loads(manifest_path.read_text(encoding="utf-8"))["file"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None  # nothing there, or damaged: the new manifest replaces it either way
        own = isinstance(name, str) and _NAME.fullmatch(name) and name.endswith(".parquet")
        return manifest_path.with_name(name) if own else None


def join(old: Bars, new: Bars, *, keep: str | None = None) -> Bars:
    """Return the bars of both, by time.

    Parameters
    ----------
    old, new : Bars
        Of one symbol, timeframe and set of columns.
    keep : str, optional
        ``first`` or ``last``: which of two different bars of one time stays. None refuses them.

    Raises
    ------
    DataError
        If they are not of one kind, or disagree about a bar.
    """
    if (old.symbol, old.interval_ns, old.names) != (new.symbol, new.interval_ns, new.names):
        raise DataError(
            f"{old.label} with columns {', '.join(old.names)} cannot be joined with {new.label} with columns "
            f"{', '.join(new.names)}; symbol, timeframe and columns must be the same"
        )
    common, at_old, at_new = np.intersect1d(old.time, new.time, assume_unique=True, return_indices=True)
    a, b = old.values[at_old], new.values[at_new]
    differs = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if differs.any() and keep is None:
        row, column = (int(i) for i in np.argwhere(differs)[0])
        raise DataError(
            f"{old.label}: {old.names[column]} at {utc(common[row])} is {a[row, column]:.12g} in one source "
            f"and {b[row, column]:.12g} in the other; go on with --repair keep-first-conflict or "
            f"--repair keep-last-conflict"
        )
    kept_old, kept_new = np.ones(len(old), bool), np.ones(len(new), bool)
    (kept_old if keep == "last" else kept_new)[at_old if keep == "last" else at_new] = False
    time = np.concatenate([old.time[kept_old], new.time[kept_new]])
    values = np.concatenate([old.values[kept_old], new.values[kept_new]])
    order = np.argsort(time, kind="stable")
    return Bars(time[order], values[order], old.names, old.symbol, old.interval_ns)


def _to_arrow(bars: Bars) -> pa.Table:
    columns = {"close_time": pa.array(bars.time).cast(pa.timestamp("ns", "UTC"))}
    columns |= {name: pa.array(bars.column(name)) for name in bars.names}
    return pa.table(columns)


def _to_bars(table: pa.Table, manifest: Mapping[str, Any]) -> Bars:
    names = tuple(manifest["columns"])
    if table.schema.names != ["close_time", *names] or names[:5] != OHLCV:
        raise DataError(
            f"the data file has columns {', '.join(table.schema.names)}, not those of the manifest"
        )
    time = np.asarray(table.column("close_time").cast(pa.int64()).combine_chunks())
    values = np.column_stack([np.asarray(table.column(name).combine_chunks()) for name in names])
    return Bars(time, values, names, manifest["symbol"], timeframe_ns(manifest["timeframe"]))


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    # Written beside the target and renamed over it: readers see the old file or the new one.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

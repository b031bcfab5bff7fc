"""The bytes of a file become a ``RawTable``: named columns as they stand there, nothing interpreted yet."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from market.rows import Remedies
from market.sources.containers import Content
from market.table import DataError

MAX_LINE_BYTES = 10_000
MAX_CELLS = 64 * 2**20  # 512 MB as float64: twenty years of minute bars
MAX_COLUMNS = 1_000
MAX_JSON_BYTES = 64 * 2**20  # Python objects cost some ten times their text
MAX_JSON_ROWS = 4_000_000
_DELIMITERS = (";", "\t", "|", ",")  # the comma last: where both divide evenly, it is a decimal comma


@dataclass(frozen=True)
class RawTable:
    """Columns of a file before anything is interpreted.

    Parameters
    ----------
    place : str
        The file, for messages.
    names : tuple of str
        The header; ``0``, ``1``, ... where the file has none.
    columns : tuple of pyarrow.Array
        One per name, all of one length.
    number : int64 (n,)
        Line or row of each row as the user sees it, counted from 1.
    counted : str
        ``line`` in text tables, ``row`` otherwise.
    headed : bool
        Whether the names come from the file.
    notes : tuple of str
        How the file was read.
    """

    place: str
    names: tuple[str, ...]
    columns: tuple[pa.Array, ...]
    number: np.ndarray
    counted: str
    headed: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.number.size

    def column(self, name: str) -> pa.Array:
        """Return the one column of a name.

        Raises
        ------
        DataError
            If there is none, or more than one.
        """
        count = self.names.count(name)
        if count != 1:
            found = f"is there {count} times" if count else f"is missing; columns are {', '.join(self.names)}"
            raise DataError(f"{self.place}: column {name} {found}")
        return self.columns[self.names.index(name)]


def read_raw(content: Content, remedies: Remedies) -> RawTable:
    """Return the columns of a file's content.

    Raises
    ------
    DataError
        If the content is no table, ragged, damaged, or too large to hold.
    """
    reader = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet, "feather": _read_feather}
    return reader[content.kind](content, remedies)


def _read_csv(content: Content, remedies: Remedies) -> RawTable:
    body, place = content.body, content.place
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    body = body.rstrip(b"\n")
    _check_lines(body, place)
    body, number, notes = _without_comments(body, place, remedies)
    first_lines = [line.decode() for line in body[: 5 * MAX_LINE_BYTES].split(b"\n", 5)[:5]]
    delimiter = _delimiter(first_lines, place)
    first = _fields(first_lines[0], delimiter, place)
    headed = sum(_is_number(field) for field in first) < 4
    names = tuple(field.strip() for field in first) if headed else tuple(str(i) for i in range(len(first)))
    number = number[1:] if headed else number
    if number.size == 0:
        raise DataError(f"{place}: has a header and no rows; it must hold at least one bar")
    unique = [str(i) for i in range(len(names))]  # a header may repeat names; arrow must not see that
    bad: list[Any] = []
    options = {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=unique, skip_rows=int(headed), use_threads=False, block_size=4 * 2**20
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(unique, pa.string()), strings_can_be_null=False
        ),
    }

    def ragged(row: Any) -> str:
        bad.append(row)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(body),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=ragged
            ),
            **options,
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{place}: is no table of text: {_first_line(error)}") from None
    if bad:
        number = _without_ragged(bad, number, place, headed, remedies)
    if table.num_rows != number.size:
        raise DataError(
            f"{place}: {number.size} lines hold {table.num_rows} rows; a row must be one line, and quotes "
            f"must be closed on it"
        )
    if delimiter != ",":
        notes += (f"fields divided by {'tabs' if delimiter == chr(9) else delimiter}",)
    columns = tuple(column.combine_chunks() for column in table.columns)
    return RawTable(place, names, columns, number, "line", headed, notes)


def _check_lines(body: bytes, place: str) -> None:
    ends = np.flatnonzero(np.frombuffer(body, np.uint8) == 10)
    edges = np.concatenate([[-1], ends, [len(body)]])
    lengths = np.diff(edges) - 1
    if lengths.max() > MAX_LINE_BYTES:
        row = int(np.argmax(lengths))
        raise DataError(
            f"{place}: line {row + 1} has {lengths[row]} bytes; a line of a table has at most "
            f"{MAX_LINE_BYTES}"
        )
    if (lengths == 0).any():
        raise DataError(
            f"{place}: line {int(np.argmax(lengths == 0)) + 1} is empty; every line must hold a row"
        )


def _without_comments(
    body: bytes, place: str, remedies: Remedies
) -> tuple[bytes, np.ndarray, tuple[str, ...]]:
    if not body.startswith(b"#") and b"\n#" not in body:
        return body, np.arange(1, body.count(b"\n") + 2), ()
    lines = body.split(b"\n")
    kept = np.array([not line.startswith(b"#") for line in lines])
    if not remedies.repairs("drop-comments", int((~kept).sum())):
        raise DataError(
            f"{place}: line {int(np.argmin(kept)) + 1} is a comment; every line must hold a row; go on with "
            f"--repair drop-comments"
        )
    if not kept.any():
        raise DataError(f"{place}: holds only comments; it must hold a table of bars")
    body = b"\n".join(line for line, keep in zip(lines, kept, strict=True) if keep)
    return body, np.flatnonzero(kept) + 1, ()


def _without_ragged(
    bad: list[Any], number: np.ndarray, place: str, headed: bool, remedies: Remedies
) -> np.ndarray:
    # Arrow counts rows from 1 after the skipped header.
    index = np.array([row.number for row in bad]) - 1 - (1 if headed else 0)
    first = bad[0]
    few = len(bad) <= max(1, 0.05 * number.size)
    if not few or not remedies.repairs("drop-bad-rows", len(bad)):
        way = "; go on with --repair drop-bad-rows" if few else ""
        more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
        raise DataError(
            f"{place}: line {number[index[0]]} has {first.actual_columns} fields; every line must have "
            f"{first.expected_columns}{more}{way}"
        )
    return np.delete(number, index)


def _delimiter(lines: Sequence[str], place: str) -> str:
    found = {}
    for delimiter in _DELIMITERS:
        counts = {line.count(delimiter) for line in lines}
        if min(counts):
            found[delimiter] = (len(counts) == 1, lines[0].count(delimiter))
    if not found:
        if len(lines) > 1 and any(delimiter in lines[1] for delimiter in _DELIMITERS):
            raise DataError(f"{place}: line 1 is no header of the table; remove it")
        raise DataError(
            f"{place}: line 1 is one field; a table needs columns divided by comma, semicolon or tab"
        )
    # Evenly dividing first, then the more fields; among equals a comma is a decimal comma.
    return max(found, key=lambda delimiter: (found[delimiter], -_DELIMITERS.index(delimiter)))


def _fields(line: str, delimiter: str, place: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{place}: line 1 cannot be divided into fields ({error})") from None


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _read_json(content: Content, remedies: Remedies) -> RawTable:
    place = content.place
    if len(content.body) > MAX_JSON_BYTES:
        raise DataError(
            f"{place}: has {len(content.body)} bytes of JSON; at most {MAX_JSON_BYTES} are read, "
            f"save it as CSV or Parquet"
        )
    if content.body.count(b"[") + content.body.count(b"{") > MAX_JSON_ROWS:
        raise DataError(f"{place}: has more than {MAX_JSON_ROWS} rows; save it as CSV or Parquet")
    text = content.body.decode("utf-8").strip()
    try:
        rows = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or "\n" not in text:
            raise DataError(f"{place}: line {error.lineno} is not JSON ({error.msg.lower()})") from None
        rows = _json_lines(text, place)
    except (RecursionError, ValueError) as error:
        raise DataError(f"{place}: is not JSON of a table ({_first_line(error)})") from None
    if isinstance(rows, dict):
        rows = [rows] if not any(isinstance(value, list | dict) for value in rows.values()) else rows
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{place}: must hold a list of bars, each a list or an object")
    headed = isinstance(rows[0], dict)
    names = tuple(rows[0]) if headed else tuple(str(i) for i in range(_length(rows[0], place)))
    for index, row in enumerate(rows):
        if headed and not (isinstance(row, dict) and row.keys() == rows[0].keys()):
            raise DataError(
                f"{place}: row {index + 1} has other keys than row 1; all rows must have the same"
            )
        if not headed and _length(row, place, index) != len(names):
            raise DataError(
                f"{place}: row {index + 1} has {len(row)} values; every row must have {len(names)}"
            )
    values = [[row[name] for name in names] for row in rows] if headed else rows
    columns = tuple(
        _json_column(column, name, place)
        for name, column in zip(names, zip(*values, strict=True), strict=True)
    )
    return RawTable(place, names, columns, np.arange(1, len(rows) + 1), "row", headed)


def _json_lines(text: str, place: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows.append(json.loads(line, object_pairs_hook=_unique_keys))
        except (RecursionError, ValueError) as error:
            raise DataError(f"{place}: line {number} is not JSON ({_first_line(error)})") from None
    return rows


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("an object names a key twice")
    return keys


def _length(row: Any, place: str, index: int = 0) -> int:
    if not isinstance(row, list):
        raise DataError(f"{place}: row {index + 1} is {type(row).__name__}; each bar must be a list")
    return len(row)


def _json_column(column: Sequence[Any], name: str, place: str) -> pa.Array:
    kinds = set(map(type, column)) - {type(None)}
    if not kinds <= {int, float, str}:
        index, value = next(
            (i, value) for i, value in enumerate(column) if type(value) not in (int, float, str, type(None))
        )
        raise DataError(
            f"{place}: row {index + 1}: {name} is {type(value).__name__}; cells must be numbers or text"
        )
    if str not in kinds:
        try:
            return pa.array(column, pa.int64() if kinds == {int} else pa.float64())
        except (pa.ArrowException, OverflowError):
            pass  # an integer beyond 64 bits: its text is parsed and judged like any other
    return pa.array([None if value is None else str(value) for value in column], pa.string())


def _read_parquet(content: Content, remedies: Remedies) -> RawTable:
    try:
        file = pyarrow.parquet.ParquetFile(
            io.BytesIO(content.body),
            thrift_string_size_limit=2**24,
            thrift_container_size_limit=2**20,
            page_checksum_verification=True,
        )
        _check_size(file.metadata.num_rows, len(file.schema_arrow), content.place)
        _check_flat(file.schema_arrow, content.place)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{content.place}: the Parquet file cannot be read ({_first_line(error)})") from None
    return _from_arrow(table, content.place)


def _read_feather(content: Content, remedies: Remedies) -> RawTable:
    try:
        if content.body[:4] == b"FEA1":
            raise DataError(f"{content.place}: is Feather version 1; write it again as version 2")
        schema = pa.ipc.open_file(pa.BufferReader(content.body)).schema
        _check_size(0, len(schema), content.place)
        _check_flat(schema, content.place)
        # One column tells the number of rows before the others are decompressed.
        one = pa.ipc.IpcReadOptions(included_fields=[0], use_threads=False)
        file, rows = pa.ipc.open_file(pa.BufferReader(content.body), options=one), 0
        for index in range(file.num_record_batches):
            rows += file.get_batch(index).num_rows
            _check_size(rows, len(schema), content.place)
        table = pa.ipc.open_file(pa.BufferReader(content.body)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{content.place}: the Feather file cannot be read ({_first_line(error)})") from None
    return _from_arrow(table, content.place)


def _check_size(rows: int, columns: int, place: str) -> None:
    if columns > MAX_COLUMNS or rows * max(columns, 1) > MAX_CELLS:
        raise DataError(
            f"{place}: declares {rows} rows and {columns} columns; at most {MAX_COLUMNS} columns and "
            f"{MAX_CELLS} cells are read, split it"
        )


def _check_flat(schema: pa.Schema, place: str) -> None:
    for name, kind in zip(schema.names, schema.types, strict=True):
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if (
            pa.types.is_nested(value)
            or pa.types.is_binary(value)
            or pa.types.is_large_binary(value)
            or isinstance(value, pa.BaseExtensionType)
        ):
            raise DataError(f"{place}: column {name} is {kind}; columns must be numbers, times or text")


def _from_arrow(table: pa.Table, place: str) -> RawTable:
    if table.num_rows == 0:
        raise DataError(f"{place}: has no rows; it must hold at least one bar")
    columns = []
    for column in table.columns:
        column = column.combine_chunks()
        columns.append(column.dictionary_decode() if pa.types.is_dictionary(column.type) else column)
    number = np.arange(1, table.num_rows + 1)
    return RawTable(place, tuple(table.schema.names), tuple(columns), number, "row", True)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]

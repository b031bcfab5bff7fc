"""A state as one self-checking file: nested dicts, lists and tuples of arrays and plain values as bytes.

The layout of a file::

    preamble    magic, format version, length of the structure, length of the file      32 bytes
    structure   JSON: a head of plain values, and the state with its large parts left out
    blocks      the large parts (arrays, bytes), raw and little-endian, in the order the structure names them
    digest      SHA-256 of everything before it                                         32 bytes

Nothing that is read runs code. A block has no address of its own, so no two can overlap, none can lie
outside the file, and what a file makes this process allocate is bounded by its size.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.load import ConfigError

FORMAT = 1
MAGIC = b"\x89RCGA\r\n\x1a"  # the line ends show a file that was once transferred as text
MAX_BYTES = 2**29  # of a file
MAX_STRUCTURE = 2**23  # bytes of JSON
MAX_ITEMS = 2**22  # bytes objects and floats in lists; arrays have no such limit
MAX_DEPTH = 64

_PREAMBLE = struct.Struct("<8sIIQQ")
_DIGEST = hashlib.sha256().digest_size
_ALIGNMENT = 16
_DTYPES = {"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iu" for size in (2, 4, 8))}
_DTYPES |= {"<f2", "<f4", "<f8", "<c8", "<c16"}
_MALFORMED = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, struct.error,
)  # fmt: skip
_MANY = 16  # floats or bytes in a list from which on they share one block


class DamagedError(Exception):
    """Bytes are not a whole file of this format; the message says how, as the rest of a sentence."""


def pack(head: Mapping[str, Any], state: Mapping[str, Any]) -> list[bytes | memoryview]:
    """Return the parts of a file, to be written one after the other.

    The same content gives the same bytes. The blocks are views of the arrays, not copies.

    Parameters
    ----------
    head : mapping
        What JSON can hold, NaN and infinity left out; comes back as JSON reads it (tuples as lists).
    state : mapping
        Keys are texts; values are NumPy arrays and scalars of numbers or truth values, int of any size,
        float, str, bool, None, bytes, and dicts, lists and tuples of these. All of them come back with
        their type, bit for bit.

    Raises
    ------
    TypeError
        If the state holds anything else.
    ConfigError
        If it is too large.
    """
    writer = _Writer()
    document = {"head": dict(head), "state": writer.node(dict(state), "state", 0)}
    structure = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    structure += b" " * (-len(structure) % _ALIGNMENT)
    size = _PREAMBLE.size + len(structure) + sum(map(len, writer.blocks)) + _DIGEST
    if len(structure) > MAX_STRUCTURE or writer.items > MAX_ITEMS or size > MAX_BYTES:
        raise ConfigError(
            f"the state of the search is too large to be kept ({size:,} bytes, {len(structure):,} of them "
            f"structure, {writer.items:,} items in lists; at most {MAX_BYTES:,}, {MAX_STRUCTURE:,} and "
            f"{MAX_ITEMS:,}); choose fewer generations or a smaller population"
        )
    parts = [_PREAMBLE.pack(MAGIC, FORMAT, 0, len(structure), size), structure, *writer.blocks]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return [*parts, digest.digest()]


def unpack(content: bytearray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return head and state of a file; the arrays are writable views of ``content``.

    Raises
    ------
    DamagedError
        If a single bit is not as it was written, or the format is another.
    """
    n_structure = _checked(content)
    # From here on only a file that was made to deceive can be wrong; it is refused the same way.
    start, end = _PREAMBLE.size, len(content) - _DIGEST
    if n_structure > min(MAX_STRUCTURE, end - start):
        raise DamagedError("has a structure larger than itself")
    reader = _Reader(content, start + n_structure, end)
    try:
        text = content[start : start + n_structure].decode("ascii")
        document = json.loads(text, parse_constant=_refuse)
        head, state = document["head"], reader.value(document["state"], 0)
    except _MALFORMED as error:
        raise DamagedError("has a structure that cannot be read") from error
    if type(head) is not dict or type(state) is not dict or reader.position != end:
        raise DamagedError("has a structure that no writer of this format makes")
    return head, state


def _checked(content: bytearray) -> int:
    if not content:
        raise DamagedError("is empty")
    if not MAGIC.startswith(bytes(content[: len(MAGIC)])):
        raise DamagedError("is not a checkpoint")
    if len(content) < _PREAMBLE.size + _DIGEST:
        raise DamagedError(f"is cut off after {len(content)} bytes")
    _, version, _, n_structure, size = _PREAMBLE.unpack_from(content)
    if version != FORMAT:
        raise DamagedError(f"has format {version}; this code reads format {FORMAT}")
    if size != len(content):
        raise DamagedError(f"has {len(content):,} bytes instead of {size:,}")
    if not _is_whole(content):
        raise DamagedError("does not match its checksum")
    return n_structure


def _is_whole(content: bytearray) -> bool:
    view = memoryview(content)
    return hashlib.sha256(view[:-_DIGEST]).digest() == view[-_DIGEST:]


def _refuse(constant: str) -> None:
    raise DamagedError(f"has {constant} in its structure")


class _Writer:
    """Turns a state into JSON, where every list begins with its kind, and blocks."""

    def __init__(self) -> None:
        self.blocks: list[bytes | memoryview] = []
        self.items = 0

    def node(self, value: Any, place: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise TypeError(f"{place} is nested more than {MAX_DEPTH} deep")
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if abs(value) < 2**63 else ["int", hex(value)]
        if kind is float:  # the digits that Python prints are exact; JSON has none for the others
            return value if math.isfinite(value) else ["float", struct.pack(">d", value).hex()]
        if kind is bytes:
            self._block(value)
            return ["bytes", len(value)]
        if kind is np.ndarray:
            return ["array", *self._array(value, place)]
        if isinstance(value, np.generic):
            return ["scalar", *self._array(np.asarray(value), place)]
        if kind is dict:
            for key in value:
                if type(key) is not str:
                    raise TypeError(f"{place} has the key {key!r}; keys of a state are texts")
            return ["dict", {key: self.node(one, f"{place}.{key}", depth + 1) for key, one in value.items()}]
        if kind is list and len(value) >= _MANY and (block := self._many(value)):
            return block
        if kind in (list, tuple):
            nodes = [self.node(one, f"{place}[{i}]", depth + 1) for i, one in enumerate(value)]
            return [kind.__name__, *nodes]
        raise TypeError(f"{place} is a {kind.__name__}; a state holds arrays, numbers, texts and bytes")

    def _many(self, value: list) -> list | None:
        # Tens of thousands of keys or numbers: one block instead of a node each.
        kinds = set(map(type, value))
        if kinds == {float}:
            self.items += len(value)
            self._block(np.array(value, dtype="<f8").tobytes())
            return ["floats", len(value)]
        if kinds == {bytes} and value[0] and len(set(map(len, value))) == 1:
            self.items += len(value)
            self._block(b"".join(value))
            return ["keys", len(value), len(value[0])]
        return None

    def _array(self, array: np.ndarray, place: str) -> tuple[str, list[int]]:
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"{place} is an array of {array.dtype}; a state holds numbers and truth values")
        flat = np.asarray(array, order="C").reshape(-1)
        self._block(memoryview(flat.view(np.uint8)))
        return array.dtype.str, list(array.shape)

    def _block(self, content: bytes | memoryview) -> None:
        self.blocks.append(content)
        if len(content) % _ALIGNMENT:
            self.blocks.append(bytes(-len(content) % _ALIGNMENT))


class _Reader:
    """Turns JSON and blocks back into a state; takes the blocks one after the other."""

    def __init__(self, content: bytearray, position: int, end: int) -> None:
        self.position = position
        self._content = content
        self._end = end
        self._items = 0

    def value(self, node: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise DamagedError(f"is nested more than {MAX_DEPTH} deep")
        if not isinstance(node, list):
            if isinstance(node, dict):
                raise DamagedError("has a part without a kind")
            return node
        kind, *rest = node
        if kind == "dict":
            (pairs,) = rest
            return {key: self.value(one, depth + 1) for key, one in pairs.items()}
        if kind == "list":
            return [self.value(one, depth + 1) for one in rest]
        if kind == "tuple":
            return tuple(self.value(one, depth + 1) for one in rest)
        return self._leaf(kind, *rest)

    def _leaf(self, kind: str, *rest: Any) -> Any:
        if kind == "int":
            return int(*rest, base=16)
        if kind == "float":
            return struct.unpack(">d", bytes.fromhex(*rest))[0]
        if kind == "bytes":
            return bytes(self._block(*rest))
        if kind == "array":
            return self._array(*rest)
        if kind == "scalar":
            return self._array(*rest)[()]
        if kind == "floats":
            (count,) = rest
            self._count(count)
            return np.frombuffer(self._block(8 * count), dtype="<f8").tolist()
        if kind == "keys":
            count, size = rest
            if size < 1:
                raise DamagedError("has keys without bytes")
            self._count(count)
            joined = bytes(self._block(count * size))
            return [joined[i : i + size] for i in range(0, len(joined), size)]
        raise DamagedError(f"has a part of unknown kind {str(kind)[:20]!a}")

    def _array(self, dtype: str, shape: list[int]) -> np.ndarray:
        if dtype not in _DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise DamagedError("has an array that no state holds")
        block = self._block(math.prod(shape) * np.dtype(dtype).itemsize)
        array = np.ndarray(tuple(shape), dtype=dtype, buffer=block)
        if dtype == "|b1" and array.view(np.uint8).max(initial=0) > 1:
            raise DamagedError("has a truth value that is neither true nor false")
        return array

    def _count(self, count: int) -> None:
        self._items += count
        if count < 0 or self._items > MAX_ITEMS:
            raise DamagedError("has more parts than a state holds")

    def _block(self, size: int) -> memoryview:
        start, stop = self.position, self.position + size
        if type(size) is not int or not start <= stop <= self._end:
            raise DamagedError("has a block that reaches beyond its end")
        self.position = stop + -size % _ALIGNMENT
        return memoryview(self._content)[start:stop]

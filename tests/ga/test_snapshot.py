"""The file of a state: exact, self-checking, and harmless whoever wrote it."""

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.damage import same, state_of
from configs.load import ConfigError
from ga import snapshot
from ga.snapshot import FORMAT, MAGIC, DamagedError, pack, unpack

DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**63 - 2, 2**130),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.binary(max_size=40),
    ARRAYS,
    hnp.arrays(np.float64, (3, 4)).map(lambda array: array.T[::2]),  # neither contiguous nor aligned in C
    st.floats().map(np.float64),
    st.integers(0, 255).map(np.uint8),
    st.lists(st.floats(), min_size=16, max_size=20),
    st.lists(st.binary(min_size=16, max_size=16), min_size=16, max_size=20),
    st.lists(st.binary(max_size=3), min_size=16, max_size=20),
)
STATES = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        LEAVES,
        lambda node: st.one_of(
            st.lists(node, max_size=4),
            st.lists(node, max_size=4).map(tuple),
            st.dictionaries(st.text(max_size=5), node, max_size=4),
        ),
        max_leaves=12,
    ),
    max_size=5,
)


def packed(state, head=()):
    return bytearray(b"".join(pack(dict(head), state)))


def forged(document, blocks=b"", n_structure=None):
    """A file with any structure and a checksum that is right."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text += b" " * (-len(text) % 16)
    size = 32 + len(text) + len(blocks) + 32
    content = struct.pack(
        "<8sIIQQ", MAGIC, FORMAT, 0, len(text) if n_structure is None else n_structure, size
    )
    content += text + blocks
    return bytearray(content + hashlib.sha256(content).digest())


def forged_state(node, blocks=b""):
    return forged({"head": {}, "state": ["dict", {"x": node}]}, blocks)


@settings(max_examples=150, deadline=None)
@given(STATES)
def test_a_state_comes_back_with_its_types_and_bit_for_bit(state):
    head = {"generation": 3, "identity": {"config": "a"}}
    content = packed(state, head)
    assert packed(state, head) == content  # the same content gives the same bytes
    found, read = unpack(content)
    assert found == head
    assert same(read, state)


def test_what_equals_zero_or_nan_in_another_way_keeps_its_own():
    quiet = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
    state = {"zero": -0.0, "nan": quiet, "inf": -np.inf, "one": 1, "true": True, "float": 1.0, "none": None}
    _, read = unpack(packed(state))
    assert same(read, state)
    assert not same(read, state | {"zero": 0.0})
    assert not same(read, state | {"one": True})
    assert not same(read, state | {"nan": np.nan})


def test_a_generator_that_was_saved_goes_on_where_it_stopped():
    rng = np.random.Generator(np.random.PCG64(5))
    rng.random(1000)
    rng.integers(9, dtype=np.int32)  # half of a word is waiting in the generator
    _, read = unpack(packed({"rng": rng.bit_generator.state}))
    other = np.random.Generator(np.random.PCG64())
    other.bit_generator.state = read["rng"]
    assert (
        other.integers(2**31, size=5, dtype=np.int32).tolist()
        == rng.integers(2**31, size=5, dtype=np.int32).tolist()
    )


def test_arrays_that_were_read_can_be_written_and_do_not_share():
    state = {"a": np.zeros(3), "b": np.zeros(3)}
    state["a"].flags.writeable = False
    _, read = unpack(packed(state))
    read["a"][:] = 1.0
    assert read["b"].tolist() == [0.0, 0.0, 0.0]
    assert state["a"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.array(["text"]), "state.x is an array of <U4"),
        (np.array([None]), "state.x is an array of object"),
        (np.zeros(2, dtype=">f8"), "state.x is an array of >f8"),
        (np.zeros(2, dtype=[("a", "<f8")]), "state.x is an array of"),
        (np.datetime64("2026-01-01"), "state.x is an array of datetime64"),
        ([1, {"y": {1, 2}}], r"state\.x\[1\]\.y is a set"),
        ({1: 2}, "state.x has the key 1"),
        (np.ma.array([1.0]), "state.x is a MaskedArray"),
        (len, "state.x is a builtin_function_or_method"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place(value, sentence):
    with pytest.raises(TypeError, match=sentence):
        pack({}, {"x": value})


def test_a_state_nested_without_end_is_refused():
    loop: dict = {}
    loop["x"] = loop
    with pytest.raises(TypeError, match="more than 64 deep"):
        pack({}, loop)


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_STRUCTURE", "MAX_ITEMS"])
def test_a_state_that_could_not_be_read_back_is_not_written(limit, monkeypatch):
    state = {"keys": [bytes(16)] * 100, "genes": np.zeros(100), "list": list(range(100))}
    monkeypatch.setattr(snapshot, limit, 64)
    with pytest.raises(ConfigError, match="too large to be kept") as caught:
        pack({}, state)
    assert "\n" not in str(caught.value)


def test_every_single_bit_of_a_file_counts():
    content = packed({"x": np.arange(3), "n": 7})
    for position in range(len(content)):
        for bit in range(8):
            content[position] ^= 1 << bit
            with pytest.raises(DamagedError):
                unpack(content)
            content[position] ^= 1 << bit
    assert unpack(content)[1]["n"] == 7


def test_every_truncation_of_a_file_is_noticed():
    content = packed({"x": np.arange(3), "n": 7})
    for size in range(len(content)):
        with pytest.raises(DamagedError):
            unpack(content[:size])
    with pytest.raises(DamagedError, match="instead of"):
        unpack(content + b"\x00")


def test_without_its_checksum_a_flipped_bit_would_be_loaded(monkeypatch):
    # Negative control: it is the checksum that the tests above rest on.
    monkeypatch.setattr(snapshot, "_is_whole", lambda content: True)
    state = {"x": np.arange(3.0)}
    content = packed(state)
    content[-48] ^= 1
    assert not same(unpack(content)[1], state)


HOSTILE = {
    "nothing": b"",
    "zeros": bytes(500),
    "a pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94." * 4,
    "an array file": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" * 2,
    "an archive": b"PK\x03\x04" + bytes(200),
    "text with the magic": MAGIC + b"x" * 200,
    "structure of 2^63 bytes": forged({}, n_structure=2**63),
    "structure as long as the file": forged({}, n_structure=66),
    "no structure": forged(b""),
    "not JSON": forged(b"{"),
    "not ASCII": forged('{"head": {}, "state": ["dict", {"é": 1}]}'.encode()),
    "nested 100,000 deep": forged(b'{"head":{},"state":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "nested 100 deep": forged_state(json.loads('["list", ' * 100 + "1" + "]" * 100)),
    "nan": forged(b'{"head": {}, "state": ["dict", {"x": NaN}]}'),
    "a million digits": forged(b'{"head": {}, "state": ["dict", {"x": ' + b"9" * 1_000_000 + b"}]}"),
    "a list": forged([]),
    "no state": forged({"head": {}}),
    "no head": forged({"state": ["dict", {}]}),
    "head of numbers": forged({"head": 7, "state": ["dict", {}]}),
    "state of numbers": forged({"head": {}, "state": 7}),
    "state without a kind": forged({"head": {}, "state": {"x": 1}}),
    "a part without a kind": forged_state({"y": 1}),
    "an empty part": forged_state([]),
    "an unknown kind": forged_state(["object", "os.system"]),
    "a kind that is no text": forged_state([["dict"], {}]),
    "a dict of nothing": forged_state(["dict"]),
    "a dict that is none": forged_state(["dict", [1, 2]]),
    "a block of 2^62 bytes": forged_state(["bytes", 2**62]),
    "a block of minus 16 bytes": forged_state(["bytes", -16], bytes(16)),
    "a block of half bytes": forged_state(["bytes", 1.5], bytes(16)),
    "a block of text": forged_state(["bytes", "16"], bytes(16)),
    "an array of 2^80 rows": forged_state(["array", "<f8", [2**80]]),
    "an array of 2^62 rows without columns": forged_state(["array", "<f8", [2**62, 2**62, 0]]),
    "an array of minus rows": forged_state(["array", "<f8", [-1, -2]], bytes(16)),
    "an array of 100 dimensions": forged_state(["array", "<f8", [1] * 100], bytes(16)),
    "an array of objects": forged_state(["array", "|O", [2]], bytes(16)),
    "an array of records": forged_state(["array", "<f8,<f8", [1]], bytes(16)),
    "an array of the shape true": forged_state(["array", "<f8", [True]], bytes(16)),
    "an array without a shape": forged_state(["array", "<f8"], bytes(16)),
    "truth values of 7": forged_state(["array", "|b1", [16]], b"\x07" * 16),
    "2^62 numbers": forged_state(["floats", 2**62]),
    "minus 1 numbers": forged_state(["floats", -1], bytes(16)),
    "2^62 keys": forged_state(["keys", 2**62, 16]),
    "2^62 keys of nothing": forged_state(["keys", 2**62, 0]),
    "keys of minus bytes": forged_state(["keys", -2, -8], bytes(16)),
    "5 million keys of a byte": forged_state(["keys", 5_000_000, 1], bytes(5_000_000)),
    "a number in the decimal system": forged_state(["int", "12x"]),
    "a float of 3 bytes": forged_state(["float", "ffffff"]),
    "bytes that nothing names": forged_state(1, bytes(16)),
    "the same bytes twice": forged_state(["list", ["bytes", 16], ["bytes", 16]], bytes(16)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_a_reason_and_costs_no_memory(name):
    content = bytearray(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError) as caught:
            unpack(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6 + 4 * len(content)
    assert 0 < len(str(caught.value)) < 100
    assert str(caught.value).isprintable()


KINDS = ["dict", "list", "tuple", "int", "float", "bytes", "array", "scalar", "floats", "keys"]
NODES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-20, 40),
        st.floats(-4, 40),
        st.sampled_from([*KINDS, *DTYPES, "ff", "0x1f", "7ff0000000000000", ""]),
    ),
    lambda node: st.one_of(
        st.lists(node, max_size=4),
        st.dictionaries(st.sampled_from(["x", "y"]), node, max_size=2),
        st.tuples(st.sampled_from(KINDS), node, node),
        st.tuples(st.sampled_from(KINDS), node),
        st.tuples(st.just("array"), st.sampled_from(DTYPES), st.lists(st.integers(-1, 4), max_size=2)),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(NODES, st.integers(0, 8))
def test_whatever_stands_in_a_structure_is_read_or_refused(node, n_blocks):
    try:
        _, state = unpack(forged_state(node, bytes(16 * n_blocks)))
    except DamagedError:
        return
    assert same(unpack(packed(state))[1], state)


def test_the_forger_of_these_files_can_make_a_good_one():
    # Negative control: they are refused for what is in them, not for how they were made.
    found, read = unpack(forged_state(["array", "<f8", [2]], np.array([1.0, 2.0]).tobytes()))
    assert found == {}
    assert read["x"].tolist() == [1.0, 2.0]


def test_the_size_of_a_state_is_that_of_its_arrays():
    state = state_of(1, population=200, known=60_000)
    arrays = sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))
    assert arrays < len(packed(state)) < arrays + 2_000

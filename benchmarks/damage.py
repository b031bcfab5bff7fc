"""Damaged checkpoints: bit flips, truncations, empty, swapped and older files, each loaded once.

    python -m benchmarks.damage [--flips 200] [--cuts 60] [--empty 20] [--swapped 10] [--older 10]

A search must notice every one of them before it uses a byte, say what is wrong, and go on from the checkpoint
before it. The exit status is 1 if one was loaded silently or ended in a traceback.
"""

import argparse
import hashlib
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compute.seeds import stream
from ga.checkpoint import Checkpoints

IDENTITY = {"config": "9f" * 32, "data": "3c" * 32, "run": "evolve-volatile_20260102T123005Z"}
NEWEST = 42
KINDS = {"flips": 200, "cuts": 60, "empty": 20, "swapped": 10, "older": 10}
DETECTED, SILENT, CRASHED = "detected", "loaded silently", "crashed"


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file.

    Parameters
    ----------
    kind : str
        How it was damaged.
    verdict : str
        ``DETECTED``, ``SILENT`` or ``CRASHED``.
    reason : str
        The first note that was given, or the error.
    """

    kind: str
    verdict: str
    reason: str


def state_of(generation: int, seed: int = 1, population: int = 40, known: int = 400) -> dict[str, Any]:
    """Return a state such as a search has, of any size."""
    rng = stream(seed, "damage", generation)
    return {
        "genes": rng.random((population, 24)),
        "fitness": rng.normal(size=population),
        "age": rng.integers(0, 9, population).astype(np.int32),
        "evaluated": rng.random(population) < 0.5,
        "seen": rng.integers(0, 256, (known, 16), dtype=np.uint8),
        "known": rng.normal(size=known),
        "stagnation": int(rng.integers(99)),
        "rng": rng.bit_generator.state,
    }


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal in type and, bit by bit, in value."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    return one == other


def damaged(kind: str, folder: Path, rng: np.random.Generator, foreign: bytes) -> int:
    """Damage the newest checkpoint in one way; return the generation that is then the newest intact one.

    Parameters
    ----------
    kind : str
        A key of ``KINDS``.
    folder : Path
        Holds intact checkpoints of ``NEWEST`` and the two generations before it.
    rng : numpy.random.Generator
    foreign : bytes
        The same generation of another run.
    """
    path, before = (folder / f"generation-{generation:06d}.ckpt" for generation in (NEWEST, NEWEST - 1))
    content = bytearray(path.read_bytes())
    expected = NEWEST - 1
    if kind == "flips":
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        if content == path.read_bytes():  # the same bit twice
            content[0] ^= 1
    elif kind == "cuts":
        content = content[: rng.integers(1, len(content))]
        if rng.random() < 0.25:  # as some file systems leave it after a power failure: the end is zeros
            content = content.ljust(path.stat().st_size, b"\x00")
        if content == path.read_bytes():
            content[-1] ^= 1
    elif kind == "empty":
        content = bytearray()
    elif kind == "swapped":
        which = rng.integers(3)
        if which == 0:
            content = bytearray(foreign)
        elif which == 1:
            content = bytearray(before.read_bytes())
        else:
            other = before.read_bytes()
            before.write_bytes(content)
            content = bytearray(other)
            expected = NEWEST - 2
    elif kind == "older":  # whole in itself: only its version tells
        content[8:12] = int(rng.choice([0, 2, 257])).to_bytes(4, "little")
        content[-32:] = hashlib.sha256(content[:-32]).digest()
    path.write_bytes(content)
    return expected


def trial(kind: str, folder: Path, rng: np.random.Generator, foreign: bytes) -> Outcome:
    """Damage one file and load; the folder is whole again afterwards."""
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    expected = damaged(kind, folder, rng, foreign)
    try:
        with Checkpoints(folder, IDENTITY) as checkpoints:
            found = checkpoints.load()
        right = (
            found.generation == expected
            and same(found.state, state_of(expected))
            and len(found.notes) == NEWEST - expected + 1
            and found.notes[0].startswith(f"generation-{NEWEST:06d}.ckpt: ")
        )
        outcome = Outcome(kind, DETECTED if right else SILENT, "".join(found.notes[:1]))
    except Exception as error:
        outcome = Outcome(kind, CRASHED, f"{type(error).__name__}: {error}")
    for path, content in whole.items():
        path.write_bytes(content)
    return outcome


def trials(counts: Mapping[str, int], seed: int = 1) -> list[Outcome]:
    """Return the outcome of so many damaged files of each kind."""
    rng = stream(seed, "damaged checkpoints")
    outcomes = []
    with tempfile.TemporaryDirectory() as root:
        with Checkpoints(Path(root) / "other", IDENTITY | {"run": "evolve-all_20260102T123005Z"}) as other:
            foreign = other.save(NEWEST, state_of(NEWEST, seed=2)).read_bytes()
        folder = Path(root) / "state"
        with Checkpoints(folder, IDENTITY) as checkpoints:
            for generation in range(NEWEST - 2, NEWEST + 1):
                checkpoints.save(generation, state_of(generation))
        for kind, count in counts.items():
            outcomes += [trial(kind, folder, rng, foreign) for _ in range(count)]
    return outcomes


def show(outcomes: list[Outcome]) -> bool:
    """Print a table by kind; return whether all files were detected."""
    table = Counter((one.kind, one.verdict) for one in outcomes)
    heads = ("files", DETECTED, SILENT, CRASHED)
    print(f"{'damage':10s}" + "".join(f"{head:>17s}" for head in heads))
    for kind in dict.fromkeys(one.kind for one in outcomes):
        figures = [sum(one.kind == kind for one in outcomes), *(table[kind, head] for head in heads[1:])]
        print(f"{kind:10s}" + "".join(f"{figure:17d}" for figure in figures))
    for kind in dict.fromkeys(one.kind for one in outcomes):
        reasons = Counter(
            one.reason.partition(": ")[2].translate(dict.fromkeys(b"0123456789,", None))
            for one in outcomes
            if one.kind == kind
        )
        for reason, count in reasons.most_common(4):
            print(f"  {kind}: {' '.join(reason.split())} ({count})")
    return all(one.verdict == DETECTED for one in outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, count in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="FILES")
    parser.add_argument("--seed", type=int, default=1)
    options = vars(parser.parse_args())
    return 0 if show(trials({kind: options[kind] for kind in KINDS}, options["seed"])) else 1


if __name__ == "__main__":
    sys.exit(main())

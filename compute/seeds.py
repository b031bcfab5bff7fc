"""One seed, many independent named random streams.

A stream depends on the root seed and on its own name only, never on the order in which streams are
asked for. Adding a component therefore leaves the numbers of every other component as they were.
"""

import hashlib
import json

import numpy as np

MAX_SEED = 2**63 - 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random generator that belongs to a name.

    Parameters
    ----------
    seed : int
        Root seed of the run, 0 to 2**63 - 1.
    names : str or int
        Path of the component, for example ``("ga", "operators")`` or ``("fold", 3)``.

    Returns
    -------
    numpy.random.Generator
        PCG64, independent of the streams of all other names.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; it must lie between 0 and 2**63 - 1")
    path = json.dumps(names)  # unlike a joined text, no name in it can imitate two
    digest = hashlib.sha256(path.encode()).digest()
    key = np.frombuffer(digest, dtype=np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key.tolist())))

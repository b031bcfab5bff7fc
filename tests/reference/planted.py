"""The kernels of the backtester as plain Python, from their own source, with bugs planted on request."""

import types
from pathlib import Path

import compute.kernels
from compute.kernels import R1, R2, RB1, RI1, W1, W2  # noqa: F401 - the kernels' source asks for them here

SOURCE = Path(compute.kernels.__file__).parent.parent / "backtest" / "kernels.py"


def kernel(*_signatures, inline=False):
    """Leave a function as it is."""
    return lambda function: function


def lift(array, start, stride, like):
    """Stand in for the intrinsic of the same name."""
    flat = array.reshape(-1)
    return tuple(flat[start + i * stride] for i in range(len(like)))


def lower(array, start, stride, values):
    """Stand in for the intrinsic of the same name."""
    flat = array.reshape(-1)
    for i, value in enumerate(values):
        flat[start + i * stride] = value


def interpreted(*changes, lanes=None):
    """Return ``backtest.kernels`` uncompiled, with each change (text before, text after) made to its source.

    A change whose text is not there exactly once is an error: the bug would not be planted.
    """
    source = SOURCE.read_text(encoding="utf-8")
    changes = [*changes, ("from compute.kernels import", "from tests.reference.planted import")]
    if lanes is not None:
        changes.append(("LANES = 64", f"LANES = {lanes}"))
    for before, after in changes:
        assert source.count(before) == 1, (
            f"planted bug: {before!r} is {source.count(before)} times in {SOURCE}"
        )
        source = source.replace(before, after)
    module = types.ModuleType("interpreted_kernels")
    exec(compile(source, str(SOURCE), "exec"), vars(module))
    module.lift, module.lower = lift, lower
    return module

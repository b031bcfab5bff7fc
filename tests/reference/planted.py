"""The kernels of the backtester as plain Python, from their own source, with bugs planted on request."""

import sys
import types
from pathlib import Path

import compute.kernels
from compute.kernels import R1, R2, RB1, RI1, W1, W2  # noqa: F401 - the kernels' source asks for them here

FOLDER = Path(compute.kernels.__file__).parent.parent / "backtest"
SOURCES = (FOLDER / "account.py", FOLDER / "kernels.py")


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

    The blocks of ``backtest.account`` are part of it. A change whose text is not there exactly once in the
    two files together is an error: the bug would not be planted.
    """
    account, kernels = (path.read_text(encoding="utf-8") for path in SOURCES)
    if lanes is not None:
        changes = (*changes, ("LANES = 64", f"LANES = {lanes}"))
    for before, after in changes:
        found = account.count(before) + kernels.count(before)
        assert found == 1, f"planted bug: {before!r} is {found} times in {[path.name for path in SOURCES]}"
        account, kernels = account.replace(before, after), kernels.replace(before, after)
    here = "from tests.reference.planted import"
    blocks = types.ModuleType("interpreted_account")
    exec(compile(account.replace("from compute.kernels import", here), str(SOURCES[0]), "exec"), vars(blocks))
    # The loops import the blocks by name: they find these for as long as they are loaded.
    module, before = types.ModuleType("interpreted_kernels"), sys.modules.get("backtest.account")
    sys.modules["backtest.account"] = blocks
    try:
        exec(
            compile(kernels.replace("from compute.kernels import", here), str(SOURCES[1]), "exec"),
            vars(module),
        )
    finally:
        if before is None:
            del sys.modules["backtest.account"]
        else:
            sys.modules["backtest.account"] = before
    module.lift, module.lower = lift, lower
    return module

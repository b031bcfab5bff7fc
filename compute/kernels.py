"""How kernels are compiled: one set of flags and one cache that cannot go stale.

Numba decides whether a cached kernel is still good by the time stamp of the file that holds it. A
kernel that inlines functions of *other* files would go on running their old code after an update.
The cache therefore lives in a folder named by a digest of every kernel source of the house.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

# Where Intel's vector library is installed, a logarithm would round differently in a vector loop than in
# its scalar remainder, and a row would depend on the length of its chunk. Read when numba is imported.
os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")

import numba
import numpy as np

# A kernel may inline code from these files and from its own (whose time stamp numba checks itself).
_ROOT = Path(__file__).resolve().parent.parent
_INLINED = (
    "compute/kernels.py",
    "market/kernels.py",
    "regimes/kernels.py",
    "backtest/lanes.py",
    "backtest/account.py",
    "backtest/kernels.py",
    "specialists/blend.py",
    "ga/kernels.py",
    "ga/breeding_kernels.py",
    "conductor/landscapes.py",
)


@cache
def cache_folder() -> Path:
    """Return the folder that holds the compiled kernels of exactly this source code."""
    digest = hashlib.sha256(f"numba {numba.__version__}".encode())
    for name in _INLINED:
        path = _ROOT / name
        digest.update(name.encode())
        digest.update(path.read_bytes() if path.exists() else b"")
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = Path("regime-conductor") / digest.hexdigest()[:16]
    folder = Path(base) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:  # a read-only home: compile once per boot instead of never running
        folder = Path(tempfile.gettempdir()) / name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def kernel(*signatures: numba.core.typing.templates.Signature, inline: bool = False) -> Callable:
    """Compile a function the way every kernel of the house is compiled.

    No fast-math: bit-equality across chunks is a law. The global interpreter lock is released, so
    threads share one process. Division by zero follows IEEE 754 and raises nothing.

    Parameters
    ----------
    signatures : numba signature
        Explicit signatures, for example ``numba.void(R2, W1)``; compiled (or loaded from the cache) at
        import. Inputs are declared read-only (``R1``, ``R2``), so tables pass without copies.
    inline : bool
        For building blocks that only other kernels call: compiled into their callers, never cached
        by themselves, and without a signature of their own.

    Returns
    -------
    callable
        A decorator.
    """
    flags = {"error_model": "numpy", "fastmath": False, "nogil": True}
    if inline == bool(signatures):
        raise TypeError("kernel() takes signatures, or inline=True, and not both")
    if inline:
        # Forced: a call that stays a call stops vectorisation, and a function passed to one stops caching.
        return numba.njit(**flags, forceinline=True)

    def compiled(function: Callable) -> Callable:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(cache_folder())
        try:
            return numba.njit(list(signatures), cache=True, **flags)(function)
        finally:
            numba.config.CACHE_DIR = before

    return compiled


class Variants:
    """A kernel that is compiled once for each choice of its options, when it is first called with them.

    Parameters
    ----------
    function : callable
        Arrays first, then options; an option that is off is ``None``, which the compiler knows.
    arguments : tuple of numba types
        Of the arrays.
    """

    def __init__(self, function: Callable, arguments: tuple[numba.types.Type, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.__doc__ = function.__doc__
        self._compiled: dict[tuple[bool, ...], Callable] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: np.ndarray | bool | None) -> None:
        """Call the variant that the options among the arguments choose."""
        options = tuple(option is not None for option in arguments[len(self.arguments) :])
        self.variant(options)(*arguments)

    def variant(self, options: tuple[bool, ...]) -> Callable:
        """Return the compiled kernel for a choice of options (True: on), compiling or loading it."""
        compiled = self._compiled.get(options)
        if compiled is None:
            with self._lock:
                compiled = self._compiled.get(options)
                if compiled is None:
                    flags = (numba.boolean if on else numba.none for on in options)
                    compiled = kernel(numba.void(*self.arguments, *flags))(self.function)
                    self._compiled[options] = compiled
        return compiled


def variants(*arguments: numba.types.Type) -> Callable:
    """Compile a kernel per choice of options; see :class:`Variants`. ``arguments`` types its arrays.

    Returns
    -------
    callable
        A decorator.
    """
    return lambda function: Variants(function, arguments)


_READONLY = {
    (dtype, ndim): numba.types.Array(dtype, ndim, "C", readonly=True)
    for dtype in (numba.float64, numba.int64, numba.int8)
    for ndim in (1, 2)
}
#: Read-only C-ordered float64 arrays; writable arrays may be passed too.
R1 = _READONLY[numba.float64, 1]
R2 = _READONLY[numba.float64, 2]
#: The same for int64 and int8 vectors.
RI1 = _READONLY[numba.int64, 1]
RB1 = _READONLY[numba.int8, 1]
#: Writable C-ordered float64 arrays.
W1 = numba.float64[::1]
W2 = numba.float64[:, ::1]
W3 = numba.float64[:, :, ::1]

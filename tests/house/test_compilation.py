"""Kernels state their flags in one place, and no cached kernel can run old code of another file."""

import ast
import importlib
import types
from pathlib import Path

import numba
import pytest
from numba.core.dispatcher import Dispatcher

from compute import kernels
from tests.house.tree import ROOT, Module, shipped

COMPILERS = {
    "numba.cfunc", "numba.experimental.jitclass", "numba.generated_jit", "numba.guvectorize", "numba.jit",
    "numba.jit_module", "numba.njit", "numba.stencil", "numba.vectorize",
}  # fmt: skip
MODULES = shipped()
BY_PATH = {module.path: module for module in MODULES}


def compilers(module: Module) -> list[str]:
    """Direct uses of numba's compilers, and of flags that change bits."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += (f"{node.lineno}: {name}" for name in names & COMPILERS)
        elif isinstance(node, ast.Attribute) and module.dotted(node) in COMPILERS:
            found.append(f"{node.lineno}: {module.dotted(node)}")
        elif isinstance(node, ast.keyword) and node.arg in {"fastmath", "parallel"}:
            found.append(f"{node.value.lineno}: {node.arg}")
    return found


def test_kernels_are_compiled_in_one_place_only():
    others = [module for module in MODULES if module.name != "compute.kernels"]
    assert {module.path: compilers(module) for module in others if compilers(module)} == {}
    assert compilers(BY_PATH["compute/kernels.py"])  # the rule sees the one that is allowed


@pytest.mark.parametrize(
    "source",
    [
        "from numba import njit",
        "import numba as nb\n@nb.njit\ndef f(): pass",
        "import numba\nf = numba.vectorize(g)",
        "kernel(fastmath=True)",
    ],
)
def test_a_second_place_is_seen(source):
    assert compilers(Module("a.py", source)) != []


def read_names(code: types.CodeType) -> set[str]:
    """Global names and attributes that a function reads, inner functions included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(read_names(one) for one in inner))


def home(module: Module, name: str, modules: dict[str, Module]) -> str:
    """Path of the file in which a name that a module sees is written."""
    origin = module.origins.get(name)
    if origin is None:
        return module.path
    as_module = f"{origin.replace('.', '/')}.py"
    if as_module in modules:
        return as_module
    package, _, inner = origin.rpartition(".")
    source = modules.get(f"{package.replace('.', '/')}.py")
    return home(source, inner, modules) if source else ""  # a library: its version is another matter


def foreign_sources(
    module: Module, functions: list[types.FunctionType], modules: dict[str, Module]
) -> set[str]:
    """Other files of the house whose code or constants are compiled into these functions."""
    names = set().union(*(read_names(function.__code__) for function in functions))
    return {home(module, name, modules) for name in names & module.origins.keys()} - {"", module.path}


def compiled_functions(module: Module) -> list[types.FunctionType]:
    loaded = importlib.import_module(module.name)
    return [
        value.py_func
        for value in vars(loaded).values()
        if isinstance(value, Dispatcher) and value.py_func.__module__ == module.name
    ]


def test_the_cache_folder_is_named_by_everything_that_kernels_inline():
    inlined = set(kernels._INLINED)
    missing = {}
    count = 0
    for module in MODULES:
        if "kernel" not in module.text:
            continue
        functions = compiled_functions(module)
        count += len(functions)
        stale = foreign_sources(module, functions, BY_PATH) - inlined
        if stale:
            missing[module.path] = stale
    assert count > 40, "the kernels were not found"
    assert missing == {}


def test_a_foreign_source_is_seen():
    modules = {
        "a/one.py": Module("a/one.py", "from a.two import LIMIT, f\nfrom math import sqrt\nOWN = 1"),
        "a/two.py": Module("a/two.py", "from a.three import f\nLIMIT = 3"),
        "a/three.py": Module("a/three.py", "def f(x): return x"),
    }
    namespace = {"LIMIT": 3, "OWN": 1}
    exec("def g(x): return f(x) + OWN", namespace)
    exec("def h(x): return min(x, LIMIT) + sqrt(x)", namespace)
    one = modules["a/one.py"]
    assert foreign_sources(one, [namespace["g"]], modules) == {"a/three.py"}
    assert foreign_sources(one, [namespace["h"]], modules) == {"a/two.py"}


def test_every_kernel_keeps_ieee_division_and_releases_the_lock():
    for module in MODULES:
        if "kernel" not in module.text:
            continue
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            if isinstance(value, Dispatcher):
                options = value.targetoptions
                stated = {key: options.get(key) for key in ("error_model", "fastmath", "nogil")}
                expected = {"error_model": "numpy", "fastmath": False, "nogil": True}
                assert stated == expected, f"{module.name}.{name}"
                own = Path(value.py_func.__code__.co_filename).is_relative_to(ROOT)
                assert own or value.py_func.__module__.startswith("numba"), name
    assert str(kernels.cache_folder()) != numba.config.CACHE_DIR  # numba's own setting is left alone

"""The house is tidy: short modules, documented names, empty packages, no drawers."""

import ast
import re

import pytest

from tests.house.tree import PACKAGES, ROOT, Module, shipped

MAX_LINES = 650
DRAWERS = {
    "common", "engine", "handler", "helper", "helpers", "manager", "misc", "processor", "util", "utils",
    "wrapper",
}  # fmt: skip
MODULES = shipped()


def too_long(module: Module) -> bool:
    return len(module.text.splitlines()) > MAX_LINES


def undocumented(module: Module) -> list[str]:
    """Public definitions without a docstring; what a private class or a function holds is private."""
    missing = [] if ast.get_docstring(module.tree) else ["the module"]

    def visit(body: list[ast.stmt], place: str) -> None:
        for node in body:
            if isinstance(node, ast.If | ast.Try):
                visit(node.body, place)
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                missing.append(place + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{place}{node.name}.")

    visit(module.tree.body, "")
    return missing


def says_more_than_its_docstring(module: Module) -> bool:
    body = module.tree.body
    return not (len(body) == 1 and ast.get_docstring(module.tree))


def drawers(module: Module) -> list[str]:
    """Names of the module, its classes and functions that contain a word which promises nothing."""
    names = module.name.split(".")
    names += (
        node.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )
    return [name for name in names if words(name) & DRAWERS]


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}


def test_the_tree_has_the_twelve_packages():
    assert len(PACKAGES) == 12
    assert [package for package in PACKAGES if not (ROOT / package / "__init__.py").is_file()] == []
    assert len(MODULES) > 12


def test_no_module_is_longer_than_650_lines():
    assert [module.path for module in MODULES if too_long(module)] == []
    assert too_long(Module("a.py", "x = 1\n" * 651))
    assert not too_long(Module("a.py", "x = 1\n" * 650))


def test_every_public_name_has_a_docstring():
    assert {module.path: undocumented(module) for module in MODULES if undocumented(module)} == {}


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("x = 1", ["the module"]),
        ('"""M."""\ndef f(): pass', ["f"]),
        ('"""M."""\nasync def f(): pass', ["f"]),
        ('"""M."""\nclass C:\n    """C."""\n    def f(self): pass\n    def _g(self): pass', ["C.f"]),
        ('"""M."""\nif True:\n    class C: pass', ["C"]),
        ('"""M."""\ndef _f(): pass\nclass _C:\n    def f(self): pass\n', []),
        ('"""M."""\ndef f():\n    """F."""\n    def g(): pass', []),
    ],
)
def test_a_missing_docstring_is_seen(source, missing):
    assert undocumented(Module("a.py", source)) == missing


def test_packages_hold_a_docstring_and_nothing_else():
    packages = [module for module in MODULES if module.path.endswith("__init__.py")]
    assert len(packages) >= 12
    assert [module.path for module in packages if says_more_than_its_docstring(module)] == []
    assert says_more_than_its_docstring(Module("a/__init__.py", '"""A."""\nimport os'))
    assert says_more_than_its_docstring(Module("a/__init__.py", ""))


def test_nothing_is_named_like_a_drawer():
    assert {module.path: drawers(module) for module in MODULES if drawers(module)} == {}


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("market/utils.py", "", ["utils"]),
        ("a.py", "class BarManager: pass", ["BarManager"]),
        ("a.py", "class CSVHandler: pass", ["CSVHandler"]),
        ("a.py", "def load_helper():\n    def wrapper(): pass", ["load_helper", "wrapper"]),
        ("a.py", "class Commons: pass\ndef handle(): pass\ndef engineer(): pass", []),
    ],
)
def test_a_drawer_is_seen(path, source, found):
    assert drawers(Module(path, source)) == found

"""No door for foreign code, no second home for a library, no path of somebody's machine."""

import ast
import re

import pytest

from tests.house.tree import ROOT, Module, everything, shipped

# Formats whose loaders run what they load.
UNSAFE_IMPORTS = {"_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {
    "__import__", "builtins.compile", "builtins.eval", "builtins.exec", "code.interact", "compile", "eval",
    "exec", "os.popen", "os.system", "pandas.read_pickle", "runpy.run_path", "subprocess.getoutput",
    "subprocess.getstatusoutput", "torch.jit.load", "torch.load", "yaml.full_load", "yaml.full_load_all",
    "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
}  # fmt: skip
UNSAFE_LOADERS = {"yaml.FullLoader", "yaml.Loader", "yaml.UnsafeLoader", "yaml.CLoader", "yaml.CFullLoader"}
# Modules are looked up by name in one place: plugins are found by the registry.
BY_NAME = {"importlib.import_module", "importlib.util.spec_from_file_location"}
DYNAMIC = {"configs.registry"}
# Spelled in pieces, or this file would contain what it forbids.
MACHINE = re.compile("(?<![\\w.~/}-])/(?:" + "|".join(["work", "tmp", "root", "home", "Users"]) + ")\\b")
MODULES = shipped()


def unsafe(module: Module) -> list[str]:
    """What in a module would run foreign code, as ``line: what``."""
    found = []

    def note(node: ast.AST, what: str) -> None:
        found.append(f"{node.lineno}: {what}")

    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        for name in names:
            if name.partition(".")[0] in UNSAFE_IMPORTS or name in UNSAFE_CALLS | UNSAFE_LOADERS:
                note(node, f"imports {name}")
        if isinstance(node, ast.Attribute) and module.dotted(node) in UNSAFE_LOADERS:
            note(node, module.dotted(node))
        if isinstance(node, ast.Call):
            called = module.dotted(node.func)
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if called in UNSAFE_CALLS:
                note(node, f"{called}()")
            if called == "yaml.load" and not _is_safe_loader(module, given.get("Loader")):
                note(node, "yaml.load() without a safe loader")
            for keyword in ("shell", "allow_pickle"):
                if keyword in given and ast.unparse(given[keyword]) != "False":
                    note(node, f"{keyword}={ast.unparse(given[keyword])}")
            if called in BY_NAME and module.name not in DYNAMIC:
                note(node, f"{called}()")
    return found


def _is_safe_loader(module: Module, loader: ast.expr | None) -> bool:
    # SafeLoader itself, or a class of the same module that inherits from it.
    if loader is None:
        return False
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    safe |= {
        node.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and any(module.dotted(base) in safe for base in node.bases)
    }
    return module.dotted(loader) in safe


def test_no_shipped_module_can_run_foreign_code():
    assert {module.path: unsafe(module) for module in MODULES if unsafe(module)} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import joblib",
        "from os import system",
        "import os\nos.system('x')",
        "import os as o\no.popen('x')",
        "eval('1')",
        "import builtins\nbuiltins.exec('x')",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import subprocess\nsubprocess.Popen('x', shell=flag)",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x', weights_only=True)",
        "from torch import load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load('x')",
        "import yaml\nyaml.load('x', Loader=yaml.Loader)",
        "import yaml\nyaml.load('x', Loader=yaml.FullLoader)",
        "import yaml\nclass L(yaml.UnsafeLoader): pass\nyaml.load('x', Loader=L)",
        "import yaml\nyaml.unsafe_load('x')",
        "import pandas as pd\npd.read_pickle('x')",
        "__import__('ray')",
        "import importlib\nimportlib.import_module('torch')",
    ],
)
def test_a_door_is_seen(source):
    assert unsafe(Module("a.py", source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('x')",
        "model.eval()",
        "import yaml\nyaml.safe_load('x')",
        "import yaml\nclass L(yaml.SafeLoader): pass\nyaml.load('x', Loader=L)",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import subprocess\nsubprocess.run(['x'])",
        "import json\njson.load(file)",
    ],
)
def test_what_is_safe_passes(source):
    assert unsafe(Module("a.py", source)) == []


def machine_paths(text: str) -> list[str]:
    return [f"{i}: {line.strip()}" for i, line in enumerate(text.splitlines(), 1) if MACHINE.search(line)]


def test_no_path_of_a_machine_is_written_anywhere():
    found = {}
    for path in everything():
        lines = machine_paths(path.read_text(encoding="utf-8"))
        if lines:
            found[path.relative_to(ROOT).as_posix()] = lines
    assert found == {}


@pytest.mark.parametrize(
    ("line", "is_path"),
    [
        ("x = '" + "/".join(["", "home", "me", "x'"]), True),
        ("cd " + "/".join(["", "tmp"]), True),
        ("(" + "/".join(["", "work", "main"]) + ")", True),
        ("see docs/home/x.md", False),
        ("a and/or home", False),
        ("https://example.org/home", False),
        ("/homestead", False),
    ],
)
def test_a_path_of_a_machine_is_seen(line, is_path):
    assert bool(machine_paths(line)) == is_path

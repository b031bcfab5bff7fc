"""The tree as the house rules see it: which packages are shipped, and which modules are in them."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = tuple(
    pattern.removesuffix("*") for pattern in _PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
)


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: str
    text: str

    @property
    def name(self) -> str:
        """Dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree."""
        return ast.parse(self.text, self.path)

    @cached_property
    def origins(self) -> dict[str, str]:
        """Dotted origin of each name that an import binds anywhere in the module."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    found[bound] = alias.name if alias.asname else bound
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def dotted(self, node: ast.expr) -> str:
        """Full dotted name of an expression such as ``np.load``; empty if it is none."""
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.origins.get(node.id, node.id), *reversed(parts)])


@cache
def shipped() -> list[Module]:
    """Every module of the packages."""
    return [module for package in PACKAGES for module in _modules(ROOT / package)]


def everything() -> list[Path]:
    """Every text file of the project: sources, tests, documents, settings."""
    folders = [*PACKAGES, ".ci", "benchmarks", "deploy", "docs", "examples", "tests"]
    kinds = {".py", ".md", ".yaml", ".toml", ".cfg", ".txt", ".sh", ""}
    # Hidden files beside .gitignore are what tools leave behind, for example a coverage database.
    files = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    files.append(ROOT / ".gitignore")
    for folder in folders:
        files += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return [
        path
        for path in files
        if path.suffix in kinds and "__pycache__" not in path.parts and not _is_run(path)
    ]


def entry_points() -> list[str]:
    """Dotted names of the modules that are commands."""
    return [module.name for module in shipped() if is_command(module)]


def is_command(module: Module) -> bool:
    """Whether a module does something when it is run with ``python -m``."""
    return module.path.endswith("/__main__.py") or any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in module.tree.body
    )


def _modules(folder: Path) -> Iterator[Module]:
    for path in sorted(folder.rglob("*.py")):
        if not _is_run(path):
            yield Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


def _is_run(path: Path) -> bool:
    return path.relative_to(ROOT).parts[:2] == ("experiments", "runs")

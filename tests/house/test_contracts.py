"""The import contracts of setup.cfg hold, and each of them catches a planted violation."""

import configparser
import itertools
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT, Module, entry_points, is_command

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
# What each contract must catch: importer, imported. A third name is imported on the way.
PLANTED = {
    "floors": [
        ("market.table", "regimes.regime"),
        ("ga.space", "market.bars"),
        ("configs.load", "compute.seeds"),
        ("ga.population", "experiments.runs"),
        ("regimes.hmm", "backtest.costs"),
        ("specialists.blend", "forecasters.windows"),
        ("backtest.metrics", "specialists.blend"),
        ("conductor.state", "ensemble.signals"),
        ("experiments.runs", "live.journal"),
    ],
    "entry points": [
        ("specialists.training", "ga.evolve"),
        ("live.trader", "market.ingest"),
        ("ga.evolve", "market.ingest"),
    ],
    "hindsight": [
        ("backtest.simulate", "market.labels"),
        ("market.bet_sizing", "market.labels"),
        ("specialists.specialist", "market.scaling", "market.labels"),
        ("ensemble.strategy", "ensemble.blenders", "regimes.hindsight"),
    ],
    "kernels": [
        ("market.kernels", "market.bars"),
        ("regimes.kernels", "scipy"),
        ("regimes.em_kernels", "market.table"),
        ("regimes.jump_kernels", "scipy"),
        ("regimes.range_kernels", "regimes.chain"),
        ("regimes.run_length_kernels", "configs.load"),
        ("backtest.kernels", "configs.load"),
        ("ga.kernels", "os"),
        ("ga.pareto_kernels", "ga.space"),
        ("ga.tree_kernels", "scipy"),
        ("ga.breeding_kernels", "deap"),
        ("conductor.environment_kernels", "ga.space"),
        ("backtest.account", "market.bars"),
        ("backtest.lanes", "configs.load"),
        ("market.label_kernels", "market.bars"),
        ("market.sources.kernels", "pandas"),
    ],
    "ray": [("ga.evaluation", "ray"), ("compute.seeds", "ray")],
    "torch": [("ga.operators", "torch"), ("forecasters.boosting", "torch"), ("compute.workers", "torch")],
    "deap": [("ga.archive", "deap"), ("specialists.training", "deap")],
    "ribs": [("ga.archive", "ribs"), ("specialists.niches", "ribs")],
    "optuna": [("specialists.watching", "optuna"), ("experiments.runs", "optuna")],
    "mlflow": [("experiments.compare", "mlflow"), ("forecasters.running", "mlflow")],
    "arch": [("ensemble.evidence", "arch"), ("specialists.report", "arch")],
    "cma": [("conductor.strategies", "cma"), ("ga.evolution", "cma")],
    "reinforcement": [("conductor.episodes", "gymnasium"), ("conductor.train", "stable_baselines3")],
    "figures": [("backtest.simulate", "matplotlib"), ("ga.evolve", "matplotlib")],
    "network": [("market.store", "ccxt"), ("live.trader", "socket"), ("ga.evaluation", "urllib")],
    "databases": [("market.store", "sqlite3"), ("live.trader", "sqlite3")],
}
# What they must let pass.
ALLOWED = [
    ("ga.evolve", "specialists.training"),
    ("experiments.tune", "ensemble.walkforward"),
    ("market.features.volume", "configs.registry"),
    ("conductor.hybrid", "torch"),
    ("forecasters.recurrent", "torch"),
    ("compute.workers", "ray"),
    ("ga.operators", "deap"),
    ("ga.trees", "deap"),
    ("ga.elites", "ribs"),
    ("experiments.mirror", "optuna"),
    ("experiments.compare", "forecasters.recurrent"),
    ("experiments.tracking", "mlflow"),
    ("ensemble.comparisons", "arch"),
    ("forecasters.tuning_figures", "matplotlib"),
    ("conductor.static_tuning", "cma"),
    ("conductor.gym_environment", "gymnasium"),
    ("ga.breeding_kernels", "numba"),
    ("conductor.environment_kernels", "ga.breeding_kernels"),
    ("ga.pareto_kernels", "numpy"),
    ("ga.tree_kernels", "math"),
    ("backtest.figures", "matplotlib"),
    ("market.sources.exchange", "ccxt"),
    ("live.feed", "websockets"),
    ("experiments.ledger", "sqlite3"),
    ("backtest.kernels", "market.kernels"),
    ("backtest.kernels", "backtest.account"),
    ("backtest.lanes", "numba"),
    ("regimes.em_kernels", "regimes.kernels"),
    ("regimes.jump_kernels", "numpy"),
    ("regimes.range_kernels", "numba"),
    ("regimes.run_length_kernels", "math"),
    ("market.kernels", "numpy"),
    ("market.label_kernels", "math"),
    ("market.splits", "market.labels"),
]


def lint(folder: Path) -> tuple[int, str]:
    """Exit code and output of import-linter on a folder, uncoloured."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", LINT], cwd=folder, capture_output=True, text=True, check=False
    )
    return result.returncode, re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr)


def named_importers() -> list[str]:
    """Modules that a contract names as they are, which the linter wants to find."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    found = (config.get(name, "source_modules", fallback="").split() for name in config.sections())
    return sorted({name for names in found for name in names if "*" not in name})


def build(folder: Path, imports: list[tuple[str, ...]]) -> None:
    """Write a tree of packages that contains these imports."""
    shutil.copy(ROOT / "setup.cfg", folder)
    lines: dict[str, list[str]] = {name: [] for name in named_importers()}
    for chain in imports:
        for importer, imported in itertools.pairwise(chain):
            lines.setdefault(importer, []).append(f"import {imported}\n")
            if imported.partition(".")[0] in PACKAGES:
                lines.setdefault(imported, [])
    for package in PACKAGES:
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    for name, text in lines.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text("".join(text), encoding="utf-8")


def sections(output: str) -> dict[str, str]:
    """What the linter says about each broken contract."""
    said = re.split(r"\n([a-z ]+)\n-{3,}\n", output.partition("Broken contracts")[2])
    return dict(zip(said[1::2], said[2::2], strict=True))


def test_the_tree_keeps_every_contract():
    code, output = lint(ROOT)
    assert code == 0, output
    assert f"Contracts: {len(PLANTED)} kept, 0 broken." in output


def test_every_contract_catches_what_is_planted(tmp_path):
    build(tmp_path, [*(chain for chains in PLANTED.values() for chain in chains), *ALLOWED])
    code, output = lint(tmp_path)
    assert code == 1
    said = sections(output)
    assert set(said) == set(PLANTED), output
    for contract, chains in PLANTED.items():
        for chain in chains:
            for importer, imported in itertools.pairwise(chain):
                assert f"{importer} -> {imported} " in said[contract], f"{contract}: {chain}\n{output}"
    for importer, imported in ALLOWED:
        assert f"{importer} -> {imported} " not in output


def test_the_contracts_let_pass_what_they_should(tmp_path):
    build(tmp_path, ALLOWED)
    code, output = lint(tmp_path)
    assert code == 0, output


def options(section: str, key: str) -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config[section][key].split()


def test_linter_and_coverage_look_at_every_shipped_package():
    assert sorted(options("importlinter", "root_packages")) == sorted(PACKAGES)
    assert sorted(options("coverage:run", "source")) == sorted(PACKAGES)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    floors = re.findall(r"\w+", config["importlinter:contract:floors"]["layers"])
    assert sorted(floors) == sorted(PACKAGES)
    named = {config[name]["name"] for name in config.sections() if name.startswith("importlinter:")}
    assert named == set(PLANTED)


def test_every_command_is_protected_as_an_entry_point():
    patterns = options("importlinter:contract:entry_points", "protected_modules")
    assert entry_points(), "no command found"
    assert [
        name
        for name in entry_points()
        if not any(
            fnmatchcase(name, pattern) and (name.count(".") == 1 or pattern.startswith("**."))
            for pattern in patterns
        )
    ] == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("ga/evolve.py", 'if __name__ == "__main__":\n    main()', True),
        ("experiments/__main__.py", "", True),
        ("ga/space.py", "def main(): pass", False),
    ],
)
def test_a_command_is_recognised(path, source, expected):
    assert is_command(Module(path, source)) is expected

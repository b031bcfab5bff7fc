"""A built wheel, installed in another folder, is the whole product: code, settings, licence, no more."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from numba.core.caching import _CacheLocator

from compute.kernels import cache_folder
from tests.house.tree import PACKAGES, ROOT, entry_points

OLDEST_SETUPTOOLS = 77  # the first that knows a licence expression


def major_version(distribution: str) -> int:
    # Asked of the metadata: a folder `build` left by an earlier build passes for a package of that name.
    try:
        return int(importlib.metadata.version(distribution).partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


HAS_SETUPTOOLS = major_version("setuptools") >= OLDEST_SETUPTOOLS
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not HAS_SETUPTOOLS and major_version("build") == 0,
        reason=f"needs setuptools {OLDEST_SETUPTOOLS} or newer, or the extra dev",
    ),
]


def run(*command: str, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the sources, so that nothing is written into the tree."""
    copy = tmp_path_factory.mktemp("sources")
    skip = shutil.ignore_patterns("__pycache__", "runs", "*.sqlite*")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=skip)
    shutil.copytree(ROOT / "tests" / "house", copy / "tests" / "house", ignore=skip)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    out = tmp_path_factory.mktemp("wheel")
    if HAS_SETUPTOOLS:
        options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out))
        run("-m", "pip", "wheel", *options, ".", folder=copy)
    else:  # build fetches the setuptools that pyproject.toml asks for
        run("-m", "build", "--wheel", "--outdir", str(out), ".", folder=copy)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel), folder=target)
    return target


def test_the_wheel_holds_every_source_and_setting_and_nothing_else(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "*.yaml", "trained/*/*")
        for path in (ROOT / package).rglob(pattern)
        if path.relative_to(ROOT).parts[:2] != ("experiments", "runs")
    }
    assert {"configs/evolve.yaml", "conductor/trained/es/weights.safetensors"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - metadata == expected
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


@pytest.mark.parametrize("name", entry_points())
def test_a_command_of_the_wheel_answers_elsewhere(installed, tmp_path, name):
    out = run("-P", "-m", name, "--help", folder=tmp_path, PYTHONPATH=str(installed))
    assert "Usage" in out


def test_the_wheel_runs_its_own_code_and_finds_its_own_settings(installed, tmp_path):
    script = "import configs.load as c; print(c.__file__); print(c.config_text('evolve.yaml'))"
    file, text = run("-P", "-c", script, folder=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert Path(file).is_relative_to(installed)
    assert "configs/evolve.yaml" in text


@pytest.fixture(scope="module")
def compiled(installed, tmp_path_factory) -> Path:
    """A cache that holds what the tree has compiled, as if it had been compiled where the wheel lies.

    Compiling all kernels takes more than a minute, and the sources are the same. Numba files kernels under
    the folder of their source; what it does not find here, it compiles.
    """
    subpath = _CacheLocator.get_suitable_cache_subpath
    ours = cache_folder()
    place = tmp_path_factory.mktemp("compiled")
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*.py"):
            copy = installed / source.relative_to(ROOT)
            if copy.is_file() and copy.read_bytes() == source.read_bytes():
                stat = source.stat()
                os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # older versions of numba compare it
            kernels = ours / subpath(str(source))
            target = place / ours.parent.name / ours.name / subpath(str(copy))
            if kernels.is_dir() and not target.exists():
                shutil.copytree(kernels, target)
    return place


def test_the_wheel_evolves_a_specialist_elsewhere(installed, compiled, tmp_path):
    settings = ("hyperparameters.population_size=16", "hyperparameters.n_generations=2")
    settings += ("market.synthetic.n_bars=7000", "detector.name=volatility")
    options = [word for setting in settings for word in ("--set", setting)]
    command = ("-P", "-m", "ga.evolve", "--json", "--runs", str(tmp_path / "experiments" / "runs"), *options)
    out = run(*command, folder=tmp_path, PYTHONPATH=str(installed), NUMBA_CACHE_DIR=str(compiled))
    assert json.loads(out)["verdict"]
    assert [path for path in (tmp_path / "experiments" / "runs").iterdir() if path.is_dir()]
    assert {path.name for path in tmp_path.iterdir()} == {"experiments"}  # and writes nowhere else

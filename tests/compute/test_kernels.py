"""One set of flags, and a cache that cannot run the old code of another file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from compute import kernels
from compute.kernels import R1, R2, RB1, RI1, W1, W2, kernel

INLINED = """
from compute.kernels import kernel

@kernel(inline=True)
def scaled(x):
    return {factor} * x
"""
CALLER = """
import numba
from compute.kernels import R1, W1, kernel
from market.kernels import scaled

@kernel(numba.void(R1, W1))
def double(values, out):
    for i in range(values.size):
        out[i] = scaled(values[i])
"""
RUN = """
import sys
import numpy as np
from pathlib import Path
if "fixed" in sys.argv:  # what numba does by itself: one folder, whatever the sources say
    import compute.kernels
    compute.kernels.cache_folder = lambda: Path(sys.argv[2])
import caller
out = np.empty(1)
caller.double(np.ones(1), out)
hits = sum(caller.double.stats.cache_hits.values())
print(int(out[0]), hits)
"""


@pytest.fixture
def house(tmp_path):
    """A small house: compute.kernels, one file of building blocks, and one that inlines them."""
    folder = tmp_path / "house"
    for package in ("compute", "market"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    shutil.copy(kernels.__file__, folder / "compute")
    (folder / "market" / "kernels.py").write_text(INLINED.format(factor=2))
    (folder / "caller.py").write_text(CALLER)
    (folder / "run.py").write_text(RUN)
    return folder


def run(house: Path, *arguments: str, **environment: str) -> tuple[int, int]:
    """What the kernel computes, and how many of its versions came out of the cache."""
    known = {key: value for key, value in os.environ.items() if key not in {"NUMBA_CACHE_DIR", "PYTHONPATH"}}
    result = subprocess.run(
        [sys.executable, "run.py", *arguments],
        cwd=house,
        env=known | {"XDG_CACHE_HOME": str(house.parent / "cache")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    value, hits = result.stdout.split()
    return int(value), int(hits)


def test_a_changed_building_block_is_compiled_into_its_callers(house):
    assert run(house) == (2, 0)
    assert run(house) == (2, 1)  # the second process finds it in the cache
    (house / "market" / "kernels.py").write_text(INLINED.format(factor=3))
    assert run(house) == (3, 0)
    (house / "market" / "kernels.py").write_text(INLINED.format(factor=2))
    assert run(house) == (2, 1)  # back to the old code, whose folder is still there


def test_one_cache_for_all_versions_runs_old_code(house, tmp_path):
    # Negative control: this is the trap the folder is for.
    folder = str(tmp_path / "fixed")
    assert run(house, "fixed", folder) == (2, 0)
    (house / "market" / "kernels.py").write_text(INLINED.format(factor=3))
    assert run(house, "fixed", folder) == (2, 1)


def test_numbas_own_variable_chooses_the_place_of_the_cache(house, tmp_path):
    assert run(house, NUMBA_CACHE_DIR=str(tmp_path / "numba")) == (2, 0)
    assert len(list((tmp_path / "numba" / "regime-conductor").iterdir())) == 1
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def fresh_folder(monkeypatch):
    """``cache_folder`` without its memory, in an environment that names no cache."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return kernels.cache_folder.__wrapped__


def test_the_folder_is_made_below_the_home(fresh_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    folder = fresh_folder()
    assert folder.is_dir()
    assert folder.parent == tmp_path / ".cache" / "regime-conductor"


def test_the_folder_is_named_by_the_sources(fresh_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "root"
    for name in kernels._INLINED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}")
    monkeypatch.setattr(kernels, "_ROOT", root)
    folders = [fresh_folder()]
    assert fresh_folder() == folders[0]
    for name in kernels._INLINED:
        (root / name).write_text(f"# {name} changed")
        folders.append(fresh_folder())
    monkeypatch.setattr(numba, "__version__", "0.0.0")
    folders.append(fresh_folder())
    assert len(set(folders)) == len(kernels._INLINED) + 2


def test_every_file_that_names_the_folder_exists():
    assert [name for name in kernels._INLINED if not (kernels._ROOT / name).is_file()] == []


def test_a_home_that_cannot_be_written_falls_back(fresh_folder, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the home should be: nobody, root included, can make folders in it")
    monkeypatch.setattr(Path, "home", lambda: blocked)
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    folder = fresh_folder()
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "temporary")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which not even root may write")
def test_an_existing_folder_that_cannot_be_written_falls_back(fresh_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    existing = fresh_folder()
    existing.rmdir()
    existing.symlink_to("/proc/self")
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    (fresh_folder() / "kernel").touch()


def test_flags_are_the_same_for_all():
    @kernel(numba.float64(R1))
    def total(values):
        return values.sum()

    @kernel(inline=True)
    def one():
        return 1.0

    for compiled in (total, one):
        options = compiled.targetoptions
        assert options["error_model"] == "numpy"
        assert options["fastmath"] is False
        assert options["nogil"] is True
    assert total.signatures  # compiled at once
    assert one.targetoptions["forceinline"] is True


def test_signatures_or_inline_but_not_both_and_not_neither():
    for arguments in ({}, {"inline": False}):
        with pytest.raises(TypeError, match="takes signatures, or inline=True, and not both"):
            kernel(**arguments)
    with pytest.raises(TypeError, match="takes signatures"):
        kernel(numba.float64(R1), inline=True)


def test_division_by_zero_follows_ieee():
    @kernel(numba.float64(numba.float64, numba.float64))
    def over(a, b):
        return a / b

    assert over(1.0, 0.0) == np.inf
    assert np.isnan(over(0.0, 0.0))


def test_sums_are_not_reordered():
    # With fast-math, or with parallel reduction, this would lose the one or the order.
    @kernel(numba.float64(R1))
    def total(values):
        result = 0.0
        for i in range(values.size):
            result += values[i]
        return result

    values = np.array([1e16, 1.0, -1e16, 1.0] * 1000)
    expected = 0.0
    for value in values.tolist():
        expected += value
    assert total(values) == expected
    assert total(values) != np.sort(values).sum()  # the order matters for these values


def test_read_only_arrays_pass_and_writable_ones_too_but_never_for_output():
    @kernel(numba.void(R1, R2, RI1, RB1, W1, W2))
    def copy(a, b, c, d, out, table):
        for i in range(a.size):
            out[i] = a[i] + b[i, 0] + c[i] + d[i]
            table[i, 0] = out[i]

    frozen = [
        np.ones(3), np.ones((3, 1)), np.ones(3, dtype=np.int64), np.ones(3, dtype=np.int8)
    ]  # fmt: skip
    out, table = np.zeros(3), np.zeros((3, 1))
    copy(*frozen, out, table)
    for array in frozen:
        array.flags.writeable = False
    copy(*frozen, out, table)
    assert (out == 4.0).all()
    out.flags.writeable = False
    with pytest.raises(TypeError, match="No matching definition"):
        copy(*frozen, out, table)
    with pytest.raises(TypeError, match="No matching definition"):
        copy(*frozen, np.zeros(6)[::2], table)


def test_numbas_own_cache_setting_is_left_alone():
    before = numba.config.CACHE_DIR

    @kernel(numba.float64(numba.float64))
    def same(x):
        return x

    assert same(2.0) == 2.0
    assert before == numba.config.CACHE_DIR
